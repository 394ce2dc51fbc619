"""Bringing a source over: experiments, logged models, runs, then the registry. One pass may be killed at any point.

What came is read back and compared before it is called whole, and the next pass skips what is whole. What cannot come
(a path that nobody may store, a file in a store that is not read) is left out, said, and recorded on its run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound, TooLarge
from modelyard.sdk.imports import digests
from modelyard.sdk.imports.mlflow_files import owner_of
from modelyard.sdk.imports.source import (
    Owner,
    Source,
    SourceExperiment,
    SourceModel,
    SourceRegistered,
    SourceRun,
    SourceTrace,
    SourceVersion,
    TraceSource,
    Unreachable,
    Value,
)
from modelyard.sdk.imports.target import LEFT_OUT_TAG, SOURCE_TAG, STATE_TAG, Target
from modelyard.types.imports import (
    FinishImportedRun,
    ImportExperiment,
    ImportLoggedModel,
    ImportModel,
    ImportProblem,
    ImportReport,
    ImportRun,
    ImportTrace,
    ImportTraces,
    ImportVersion,
    PointsOf,
    ProblemKind,
)

PARAM_CHARACTERS_MAX, TAG_CHARACTERS_MAX = 6_000, 8_000
LEFT_OUT_CHARACTERS_MAX = 4_000
TRACES_AT_ONCE, SPANS_AT_ONCE = 100, 2_000
_NO_POINTS = PointsOf(0, hashlib.sha256().hexdigest())
_REFUSED = (InvalidInput, TooLarge, Conflict)
Progress = Callable[[str, ImportReport], None]


class Importer:
    """One import of a source into a project. `recheck`: what earlier passes brought whole is compared again too."""

    def __init__(
        self, source: Source, target: Target, progress: Progress = lambda *_: None, *, recheck: bool = False
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._recheck = recheck
        self.report = ImportReport(source=source.uri)
        self._whole: set[str] = set()
        self._left_out: list[str] = []

    def run(self) -> ImportReport:
        """Bring what is not here yet. Raises Unavailable where either side is away: run it again to go on."""
        began = time.monotonic()
        self._whole = self._target.complete_runs(self._source.uri)
        for what in self._source.unreadable:
            self._say(self._source.uri, what)
        for experiment in self._source.experiments():
            self._experiment(experiment)
        for model in self._source.registered():
            self._registered(model)
        self.report.seconds = round(time.monotonic() - began, 3)
        differing = any(count.there != count.here for count in self.report.counts.values())
        self.report.verified = not differing and all(one.kind != "failed" for one in self.report.problems)
        return self.report

    # --- tracking -----------------------------------------------------------------------------------------------------

    def _experiment(self, there: SourceExperiment) -> None:
        count = self.report.count("experiments")
        count.there += 1
        asked = ImportExperiment(
            source=self._source.uri, id=there.id, name=there.name, stage=there.stage, created_at=there.created_at,
            updated_at=there.updated_at, tags=there.tags,
        )  # fmt: skip
        made = self._target.experiment(asked)
        here = made.experiment
        count.here += 1
        count.new += not made.existed
        what = f"experiment {there.id} ({there.name})"
        if here.id != there.id and there.id.isdecimal():
            self._say(what, f"its id is taken here; it is {here.id}", "changed")
        if here.name != there.name:
            self._say(what, f"its name is taken here; it is '{here.name}'", "changed")
        for model in self._source.models(there.id):
            self._model(model, here.id)
        for run in self._source.runs(there.id):
            self._run(run, here.id)
            self._progress(f"runs of {here.name}", self.report)
        if isinstance(self._source, TraceSource):
            for some in _batches(self._source.traces(there.id)):
                self._traces(some, here.id)
                self._progress(f"traces of {here.name}", self.report)

    def _run(self, there: SourceRun, experiment_id: str) -> None:
        self.report.count("runs").there += 1
        if there.id in self._whole:
            self.report.count("runs").here += 1
            if self._recheck:
                self._check_run(there)
                self._files(Owner("run", there.id))
            return
        self._left_out = []
        try:
            self._fill_run(there, experiment_id)
        except _REFUSED as error:
            self._say(f"run {there.id} ({there.name})", str(error))

    def _fill_run(self, there: SourceRun, experiment_id: str) -> None:
        asked = ImportRun(
            source=self._source.uri, id=there.id, experiment_id=experiment_id, name=there.name, user=there.user,
            started_at=there.started_at, params=self._cut(there.params, PARAM_CHARACTERS_MAX, there.id),
            tags=self._cut(there.tags, TAG_CHARACTERS_MAX, there.id), inputs=there.inputs,
            model_inputs=there.model_inputs, model_outputs=there.model_outputs,
        )  # fmt: skip
        self._target.run(asked)
        for note in there.notes:
            self._say(f"run {there.id} ({there.name})", note, "changed")
        expected: dict[str, PointsOf] = {}
        self._target.log(there.id, self._histories(there, expected))
        self.report.count("points").new += sum(one.count for one in expected.values())
        self._files(Owner("run", there.id))
        if self._left_out:
            listed = "\n".join(self._left_out)[:LEFT_OUT_CHARACTERS_MAX]
            self._target.tag(there.id, {LEFT_OUT_TAG: listed})
        if not self._check_run(there, expected):
            return
        self._target.finish(
            there.id,
            FinishImportedRun(
                source=self._source.uri, status=there.status, stage=there.stage, ended_at=there.ended_at
            ),
        )  # fmt: skip
        count = self.report.count("runs")
        count.here += 1
        count.new += 1

    def _histories(self, there: SourceRun, read: dict[str, PointsOf]) -> Iterator[tuple[str, Sequence[Value]]]:
        """The metrics of a run as they are kept, noting of each what must be here afterwards."""
        for key in there.metrics:
            values = digests.storable(self._source.history(there.id, key))
            read[key] = PointsOf(len(values), digests.of_storable(values))
            yield key, values

    def _check_run(self, there: SourceRun, expected: Mapping[str, PointsOf] | None = None) -> bool:
        """Read a run back and compare all but its files, which were compared as they went in. `expected`: its points,
        where they were just read."""
        contents = self._target.contents(there.id)
        here = contents.run
        before = len(self.report.problems)
        what = f"run {there.id} ({there.name})"
        params = self._cut(there.params, PARAM_CHARACTERS_MAX)
        tags = {**self._cut(there.tags, TAG_CHARACTERS_MAX), "mlflow.runName": there.name}
        mine = {SOURCE_TAG, STATE_TAG, LEFT_OUT_TAG}
        kept = {key: value for key, value in here.tags.items() if key not in mine}
        self._compare(what, "params", params, here.params)
        self._compare(what, "tags", tags, kept)
        inputs = {f"{one.dataset.name}@{one.dataset.digest}": one.dataset.source for one in there.inputs}
        self._compare(
            what,
            "inputs",
            inputs,
            {f"{one.dataset.name}@{one.dataset.digest}": one.dataset.source for one in here.inputs},
        )
        self.report.count("metrics").there += len(there.metrics)
        self.report.count("metrics").here += len(here.metrics)
        if expected is None:
            expected = {}
            for _ in self._histories(there, expected):
                pass
        for key, wanted in expected.items():
            self._check_points(what, key, wanted, contents.points.get(key, _NO_POINTS))
        return len(self.report.problems) == before

    def _check_points(self, what: str, key: str, there: PointsOf, here: PointsOf) -> None:
        count = self.report.count("points")
        count.there += there.count
        count.here += here.count
        if here.count != there.count:
            self._say(what, f"metric '{key}' has {there.count:,} points there and {here.count:,} here")
        elif here.digest != there.digest:
            self._say(what, f"the points of metric '{key}' differ")

    def _traces(self, there: Sequence[SourceTrace], experiment_id: str) -> None:
        """Bring traces; one that is refused is brought alone, so that it keeps no other back."""
        asked = ImportTraces(
            source=self._source.uri, experiment_id=experiment_id,
            traces=[ImportTrace(trace=one.trace, spans=one.spans, runs=one.runs) for one in there],
        )  # fmt: skip
        count, spans = self.report.count("traces"), self.report.count("spans")
        try:
            made = {one.id: one for one in self._target.traces(asked)}
        except _REFUSED as error:
            if len(there) > 1:
                for alone in there:
                    self._traces([alone], experiment_id)
                return
            count.there += 1
            self._say(f"trace {there[0].trace.id}", str(error))
            return
        for one in there:
            here = made[one.trace.id]
            count.there, count.here, count.new = count.there + 1, count.here + 1, count.new + (not here.existed)
            spans.there, spans.here = spans.there + len(one.spans), spans.here + here.spans
            spans.new += 0 if here.existed else here.spans
            if here.digest != digests.of_spans(one.spans):
                self._say(f"trace {one.trace.id}", "its spans differ")
            for note in one.notes:
                self._say(f"trace {one.trace.id}", note, "left out")

    def _model(self, there: SourceModel, experiment_id: str) -> None:
        count = self.report.count("logged models")
        count.there += 1
        what = f"logged model {there.id} ({there.name})"
        asked = ImportLoggedModel(
            source=self._source.uri, id=there.id, experiment_id=experiment_id, name=there.name, status=there.status,
            created_at=there.created_at, updated_at=there.updated_at, model_type=there.model_type,
            source_run_id=there.source_run_id, params=self._cut(there.params, PARAM_CHARACTERS_MAX),
            tags=self._cut(there.tags, TAG_CHARACTERS_MAX), metrics=there.metrics,
        )  # fmt: skip
        try:
            made = self._target.model(asked)
        except _REFUSED as error:
            self._say(what, str(error))
            return
        self._files(Owner("model", there.id))
        here = self._target.read_model(there.id)
        self._compare(what, "params", asked.params, here.params)
        self._compare(what, "tags", asked.tags, {key: text for key, text in here.tags.items() if key != SOURCE_TAG})
        if len(here.metrics) != len(there.metrics):
            self._say(what, f"it has {len(there.metrics)} metrics there and {len(here.metrics)} here")
        count.here += 1
        count.new += not made.existed

    def _files(self, owner: Owner) -> None:
        """Bring the files of an owner that are not here yet."""
        count = self.report.count("files")
        what = f"{owner.kind} {owner.id}"
        try:
            listed = self._source.files(owner)
        except Unreachable as error:
            self._leave_out(what, f"its files: {error}")
            return
        here = self._target.files(owner) if listed else {}
        for file in listed:
            count.there += 1
            known = here.get(file.path)
            if known is not None and file.size_bytes is not None and known.size_bytes == file.size_bytes:
                count.here += 1
                if self._recheck and self._digest(owner, file.path) != known.digest:
                    self._say(what, f"'{file.path}' differs")
                continue
            try:
                with self._source.open(owner, file.path) as pieces:
                    size_bytes, _ = self._target.put(owner, file.path, pieces)
            except (Unreachable, *_REFUSED) as error:
                count.there -= 1
                self._leave_out(what, f"'{file.path}': {error}")
                continue
            count.here += 1
            count.new += 1
            self.report.bytes += size_bytes

    def _digest(self, owner: Owner, path: str) -> str:
        digest = hashlib.sha256()
        with self._source.open(owner, path) as pieces:
            for piece in pieces:
                digest.update(piece)
        return digest.hexdigest()

    # --- registry -----------------------------------------------------------------------------------------------------

    def _registered(self, there: SourceRegistered) -> None:
        count = self.report.count("registered models")
        count.there += 1
        what = f"registered model '{there.name}'"
        asked = ImportModel(
            source=self._source.uri, name=there.name, description=there.description, tags=there.tags,
            created_at=there.created_at, updated_at=there.updated_at,
        )  # fmt: skip
        try:
            here = self._target.registered(asked)
        except _REFUSED as error:
            self._say(what, str(error))
            return
        count.here += 1
        for version in self._source.versions(there.name):
            self._version(there.name, version)
        for alias, number in sorted(there.aliases.items()):
            self.report.count("aliases").there += 1
            self._alias(there.name, alias, number, here.aliases)
        self._progress("models", self.report)

    def _version(self, name: str, there: SourceVersion) -> None:
        count = self.report.count("versions")
        count.there += 1
        what = f"version {name}@{there.version}"
        try:
            files, expected = self._place(name, there)
            made = self._target.version(
                ImportVersion(
                    source=self._source.uri, model=name, version=there.version, files=files, run=there.run,
                    logged_model=there.logged_model, description=there.description, stage=there.stage,
                    created_at=there.created_at, updated_at=there.updated_at,
                    tags=self._cut(there.tags, TAG_CHARACTERS_MAX),
                )
            )  # fmt: skip
        except (Unreachable, *_REFUSED) as error:
            self._say(what, str(error))
            return
        found = {one.path: one.digest for one in self._target.version_files(name, there.version)}
        if expected is not None and found != expected:
            self._say(what, "its files here are not those that it has there")
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
        return self._bring(name, there)

    def _bring(self, name: str, there: SourceVersion) -> tuple[str, dict[str, str] | None]:
        """Bring files that lie in no run and no logged model."""
        owner = Owner("version", f"{name}/{there.version}")
        folder = f"imported/{name}/{there.version}"
        expected: dict[str, str] = {}
        for file in self._source.files(owner):
            with self._source.open(owner, file.path) as pieces:
                size_bytes, digest = self._target.put_loose(f"{folder}/{file.path}", pieces)
            expected[file.path] = digest
            self.report.bytes += size_bytes
        if not expected:
            raise Unreachable(f"there are no files at {there.location or there.source}")
        return f"mlflow-artifacts:/{folder}", expected

    def _alias(self, name: str, alias: str, number: int, here: Mapping[str, int]) -> None:
        count = self.report.count("aliases")
        if here.get(alias) != number:
            try:
                self._target.promote(name, alias, number, f"it was so in {self._source.uri}")
            except (NotFound, Forbidden, *_REFUSED) as error:
                self._say(f"alias '{alias}' of {name}", str(error))
                return
            count.new += 1
        count.here += 1

    # --- what is said -------------------------------------------------------------------------------------------------

    def _cut(self, texts: Mapping[str, str], characters_max: int, run_id: str = "") -> dict[str, str]:
        if run_id:
            for key in (key for key, text in texts.items() if len(text) > characters_max):
                self._say(f"run {run_id}", f"'{key}' is cut at {characters_max:,} characters", "changed")
        return {key: text[:characters_max] for key, text in texts.items()}

    def _compare(self, what: str, noun: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
        if digests.of_texts(there) != digests.of_texts(here):
            differing = sorted({*there.items()} ^ {*here.items()})
            self._say(what, f"its {noun} differ: {', '.join(sorted({key for key, _ in differing}))[:200]}")

    def _leave_out(self, what: str, why: str) -> None:
        self._left_out.append(why)
        self._say(what, why, "left out")

    def _say(self, what: str, why: str, kind: ProblemKind = "failed") -> None:
        self.report.problems.append(ImportProblem(what=what, why=why, kind=kind))


def _batches(traces: Iterable[SourceTrace]) -> Iterator[list[SourceTrace]]:
    """Traces in portions of some, with a bounded number of spans."""
    some: list[SourceTrace] = []
    spans = 0
    for one in traces:
        if some and (len(some) == TRACES_AT_ONCE or spans + len(one.spans) > SPANS_AT_ONCE):
            yield some
            some, spans = [], 0
        some.append(one)
        spans += len(one.spans)
    if some:
        yield some
