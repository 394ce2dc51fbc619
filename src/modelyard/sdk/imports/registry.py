"""Bringing the registry of a source over: models, then their versions by files that are here already, then aliases."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.kernel.errors import Forbidden, NotFound
from modelyard.sdk.imports.mlflow_files import owner_of
from modelyard.sdk.imports.source import Owner, Source, SourceRegistered, SourceVersion, Unreachable
from modelyard.sdk.imports.target import REFUSED, TAG_CHARACTERS_MAX, Target, cut
from modelyard.types.imports import ImportModel, ImportReport, ImportVersion


class RegistryImporter:
    """Brings registered models, once runs and logged models are here: a version's files are those of its run."""

    def __init__(self, source: Source, target: Target, report: ImportReport) -> None:
        self._source = source
        self._target = target
        self._report = report

    def bring(self, there: SourceRegistered) -> None:
        """A registered model, its versions, then its aliases."""
        count = self._report.count("registered models")
        count.there += 1
        what = f"registered model '{there.name}'"
        asked = ImportModel(
            source=self._source.uri, name=there.name, description=there.description, tags=there.tags,
            created_at=there.created_at, updated_at=there.updated_at,
        )  # fmt: skip
        try:
            here = self._target.registered(asked)
        except REFUSED as error:
            self._report.say(what, str(error))
            return
        count.here += 1
        for version in self._source.versions(there.name):
            self._version(there.name, version)
        for alias, number in sorted(there.aliases.items()):
            self._report.count("aliases").there += 1
            self._alias(there.name, alias, number, here.aliases)

    def _version(self, name: str, there: SourceVersion) -> None:
        count = self._report.count("versions")
        count.there += 1
        what = f"version {name}@{there.version}"
        try:
            files, expected = self._place(name, there)
            made = self._target.version(
                ImportVersion(
                    source=self._source.uri, model=name, version=there.version, files=files, run=there.run,
                    logged_model=there.logged_model, description=there.description, stage=there.stage,
                    created_at=there.created_at, updated_at=there.updated_at,
                    tags=cut(there.tags, TAG_CHARACTERS_MAX),
                )
            )  # fmt: skip
        except (Unreachable, *REFUSED) as error:
            self._report.say(what, str(error))
            return
        found = {one.path: one.digest for one in self._target.version_files(name, there.version)}
        if expected is not None and found != expected:
            self._report.say(what, "its files here are not those that it has there")
            return
        count.here += 1
        count.new += not made.existed

    def _place(self, name: str, there: SourceVersion) -> tuple[str, dict[str, str] | None]:
        """Where the files of a version are here, and their digests where that is known. Raises Unreachable."""
        for uri in (there.source, there.location):
            found = owner_of(uri)
            if found is None:
                continue
            owner, below = found
            prefix = f"{below}/" if below else ""
            try:
                here = self._target.files(owner)
            except NotFound:
                continue
            expected = {path[len(prefix) :]: one.digest or "" for path, one in here.items() if path.startswith(prefix)}
            root = f"models:/{owner.id}" if owner.kind == "model" else f"runs:/{owner.id}"
            return f"{root}/{below}".rstrip("/"), expected
        if any(one == "mlflow.prompt.is_prompt" for one in there.tags):
            return there.source, None
        return self._bring_files(name, there)

    def _bring_files(self, name: str, there: SourceVersion) -> tuple[str, dict[str, str] | None]:
        """Bring files that lie in no run and no logged model."""
        owner = Owner("version", f"{name}/{there.version}")
        folder = f"imported/{name}/{there.version}"
        expected: dict[str, str] = {}
        for file in self._source.files(owner):
            with self._source.open(owner, file.path) as pieces:
                size_bytes, digest = self._target.put_loose(f"{folder}/{file.path}", pieces)
            expected[file.path] = digest
            self._report.bytes += size_bytes
        if not expected:
            raise Unreachable(f"there are no files at {there.location or there.source}")
        return f"mlflow-artifacts:/{folder}", expected

    def _alias(self, name: str, alias: str, number: int, here: Mapping[str, int]) -> None:
        count = self._report.count("aliases")
        if here.get(alias) != number:
            try:
                self._target.promote(name, alias, number, f"it was so in {self._source.uri}")
            except (NotFound, Forbidden, *REFUSED) as error:
                self._report.say(f"alias '{alias}' of {name}", str(error))
                return
            count.new += 1
        count.here += 1
