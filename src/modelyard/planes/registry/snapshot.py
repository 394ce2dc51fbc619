"""What a source holds at this moment: the files by digest, and the run and logged model behind them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from modelyard.engines.blobs.base import BlobStore
from modelyard.engines.models.formats import FileVerdict, classify_files
from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.registry.documents import MLMODEL, README, YAML_BYTES_MAX, MLmodel, read_license, read_mlmodel
from modelyard.planes.registry.sources import Source
from modelyard.planes.tracking import Owner, Tracking, below_uri, locate
from modelyard.types.registry import FormatSafety, ModelFile

if TYPE_CHECKING:
    from modelyard.types.tracking import Artifact

COMMIT_TAG = "mlflow.source.git.commit"
ENVIRONMENT_FILES = ("requirements.txt", "conda.yaml", "python_env.yaml")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
FILES_MAX = 20_000
REASON_FILES_MAX = 10


@dataclass(frozen=True)
class Snapshot:
    """The files of a source as they are now. `location` is where MLflow's clients may download them from."""

    location: str
    files: Sequence[ModelFile] = ()
    run: str = ""
    logged_model: str = ""


@dataclass(frozen=True)
class Declared:
    """Where code and environment come from by what the client said of them: `code:<commit>`, `env:<digest>`."""

    code: str = ""
    environment: str = ""


@dataclass(frozen=True)
class Inspected:
    """What the files say of themselves."""

    digest: str = ""
    size_bytes: int = 0
    format: FormatSafety = "unknown"
    format_reason: str = "the files are not known here"
    mlmodel: MLmodel = field(default_factory=MLmodel)
    license: str = ""
    files: Sequence[ModelFile] = ()


class Sources:
    """Reads sources that this platform holds: artifacts of runs and of logged models."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def read(self, scope: Scope, source: Source) -> Snapshot:
        """The files of a run's or logged model's artifacts. What cannot be found has no files, only a location.

        Raises NotFound for a logged model that is not there, since nothing could ever be loaded from it.
        """
        if source.kind == "logged model":
            return self._logged_model(scope, source)
        if source.kind == "run":
            return self._run(scope, source)
        if source.kind == "artifacts":
            return self._artifacts(scope, source)
        return Snapshot(source.uri)

    def known_run(self, scope: Scope, run: str) -> str:
        """The run's id if such a run is on record, else nothing."""
        if not run:
            return ""
        try:
            return self._tracking.runs.get(scope, run).id
        except (NotFound, InvalidInput):
            return ""

    def params(self, scope: Scope, run: str) -> Mapping[str, str]:
        """The params of a run; none where it is not on record."""
        return self._tracking.runs.get(scope, run).params if self.known_run(scope, run) else {}

    def declared(self, scope: Scope, run: str, files: Sequence[ModelFile]) -> Declared:
        """The code and environment that the run and the files declare, for where the lineage knows of none."""
        commit = self._tracking.runs.get(scope, run).tags.get(COMMIT_TAG, "") if run else ""
        listed = {one.path: one.digest for one in files}
        environment = next((listed[name] for name in ENVIRONMENT_FILES if name in listed), "")
        return Declared(
            f"code:{commit}" if _COMMIT.fullmatch(commit) else "", f"env:{environment}" if environment else ""
        )

    def _logged_model(self, scope: Scope, source: Source) -> Snapshot:
        model = self._tracking.models.get(scope, source.owner)
        files = self._files(scope, Owner("model", model.id), source.path)
        below = f"/{source.path}" if source.path else ""
        return Snapshot(f"{model.artifact_location}{below}", files, model.source_run_id or "", model.id)

    def _run(self, scope: Scope, source: Source) -> Snapshot:
        try:
            files = self._files(scope, Owner("run", source.owner), source.path)
        except NotFound:
            return Snapshot(source.uri)
        return Snapshot(source.uri, files, self.known_run(scope, source.owner))

    def _artifacts(self, scope: Scope, source: Source) -> Snapshot:
        try:
            owner, path = locate(below_uri(source.uri))
            files = self._files(scope, owner, path)
        except (NotFound, InvalidInput):
            # A location in another server's tree, or one that nothing was put to.
            return Snapshot(source.uri)
        return Snapshot(
            source.uri,
            files,
            self.known_run(scope, owner.id) if owner.kind == "run" else "",
            owner.id if owner.kind == "model" else "",
        )

    def _files(self, scope: Scope, owner: Owner, path: str) -> list[ModelFile]:
        below = f"{path.strip('/')}/" if path.strip("/") else ""
        found = [_file(one, below) for one in self._tracking.artifacts.tree(scope, owner) if one.path.startswith(below)]
        if len(found) > FILES_MAX:
            raise InvalidInput(
                f"the model has {len(found):,} files, at most {FILES_MAX:,} are taken", code="version.files"
            )
        return sorted(found, key=lambda one: one.path)


def _file(artifact: Artifact, below: str) -> ModelFile:
    assert artifact.digest is not None
    assert artifact.size_bytes is not None
    return ModelFile(artifact.path[len(below) :], artifact.digest, artifact.size_bytes)


def tree_digest(files: Sequence[ModelFile]) -> str:
    """One SHA-256 over all paths, digests and sizes, whatever their order; empty for no files."""
    if not files:
        return ""
    digest = hashlib.sha256()
    for one in sorted(files, key=lambda one: one.path):
        path = one.path.encode()
        digest.update(b"%d:%s %s %d\n" % (len(path), path, one.digest.encode(), one.size_bytes))
    return digest.hexdigest()


def inspect(blobs: BlobStore, files: Sequence[ModelFile]) -> Inspected:
    """What the files are and declare, without loading any of them."""
    if not files:
        return Inspected()
    verdict = classify_files((one.path, partial(blobs.open, one.digest)) for one in files)
    reasons = verdict.reasons
    more = [f"and {len(reasons) - REASON_FILES_MAX} more"] if len(reasons) > REASON_FILES_MAX else []
    described, readme = _small_file(blobs, files, MLMODEL), _small_file(blobs, files, README)
    mlmodel = read_mlmodel(described)
    return Inspected(
        digest=tree_digest(files),
        size_bytes=sum(one.size_bytes for one in files),
        format=verdict.safety.value,
        format_reason="; ".join([*reasons[:REASON_FILES_MAX], *more]) or verdict.format,
        mlmodel=mlmodel,
        license=mlmodel.license or read_license(readme),
        files=_with_verdicts(files, verdict.files),
    )


def _with_verdicts(files: Sequence[ModelFile], verdicts: Sequence[FileVerdict]) -> list[ModelFile]:
    found = {one.path: one for one in verdicts}
    return [
        msgspec.structs.replace(
            one,
            format=found[one.path].format,
            safety=found[one.path].safety.value,
            reason=found[one.path].reason,
        )
        for one in files
    ]


def _small_file(blobs: BlobStore, files: Sequence[ModelFile], path: str) -> bytes:
    """The bytes of a text file of the model; nothing where there is none, or a huge one."""
    found = next((one for one in files if one.path == path and one.size_bytes <= YAML_BYTES_MAX), None)
    return blobs.get(found.digest) if found else b""
