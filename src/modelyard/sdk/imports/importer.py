"""Bringing a source over: experiments, logged models, runs, then the registry. One pass may be killed at any point.

What came is read back and compared before it is called whole, and the next pass skips what is whole. What cannot come
(a path that nobody may store, a file in a store that is not read) is left out, said, and recorded on its run.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from modelyard.kernel.errors import ModelyardError
from modelyard.sdk.imports import digests
from modelyard.sdk.imports.registry import RegistryImporter
from modelyard.sdk.imports.sending import Sender, Sending
from modelyard.sdk.imports.source import (
    Owner,
    Source,
    SourceExperiment,
    SourceModel,
    SourceRun,
    SourceTrace,
    TraceSource,
    Value,
)
from modelyard.sdk.imports.target import (
    LEFT_OUT_TAG,
    PARAM_CHARACTERS_MAX,
    REFUSED,
    SOURCE_TAG,
    STATE_TAG,
    TAG_CHARACTERS_MAX,
    Target,
    cut,
)
from modelyard.types.imports import (
    FinishImportedRun,
    ImportedContents,
    ImportExperiment,
    ImportFilledRun,
    ImportLoggedModel,
    ImportPoints,
    ImportReport,
    ImportRun,
    ImportTrace,
    ImportTraces,
    PointsOf,
)
from modelyard.types.tracking import Experiment

LEFT_OUT_CHARACTERS_MAX = 4_000
TRACES_AT_ONCE, SPANS_AT_ONCE = 100, 2_000
RUNS_AT_ONCE, BYTES_AT_ONCE = 20, 4 * 1024 * 1024
"""So many runs are one request and one commit: few enough that nobody waits long for the catalog's write lock."""
POINT_BYTES = 50
"""About as much a point is on the wire."""
_NO_POINTS = PointsOf(0, hashlib.sha256().hexdigest())
_MINE = frozenset({SOURCE_TAG, STATE_TAG, LEFT_OUT_TAG})
Progress = Callable[[str, ImportReport], None]


class _Read(NamedTuple):
    """A run as it was read there. Without `histories` its points are too many to be held; `expected` fills later."""

    there: SourceRun
    histories: Mapping[str, Sequence[Value]] | None
    expected: dict[str, PointsOf]
    weight: int


class _Filling(NamedTuple):
    """Runs that are being taken in with their points, and what they are here then."""

    runs: Sequence[_Read]
    filled: Future[list[ImportedContents]]


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
        self._sender = Sender(source, target, recheck=recheck)
        self._ahead = ThreadPoolExecutor(1, "import-ahead")

    def run(self) -> ImportReport:
        """Bring what is not here yet. Raises Unavailable where either side is away: run it again to go on."""
        try:
            return self._bring_all()
        finally:
            self._ahead.shutdown()
            self._sender.close()

    def _bring_all(self) -> ImportReport:
        began = time.monotonic()
        self._whole = self._target.complete_runs(self._source.uri)
        for what in self._source.unreadable:
            self.report.say(self._source.uri, what)
        for experiment in self._source.experiments():
            self._experiment(experiment)
        registry = RegistryImporter(self._source, self._target, self.report)
        for model in self._source.registered():
            registry.bring(model)
            self._progress("models", self.report)
        self.report.seconds = round(time.monotonic() - began, 3)
        differing = any(count.there != count.here for count in self.report.counts.values())
        self.report.verified = not differing and all(one.kind != "failed" for one in self.report.problems)
        return self.report

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
            self.report.say(what, f"its id is taken here; it is {here.id}", "changed")
        if here.name != there.name:
            self.report.say(what, f"its name is taken here; it is '{here.name}'", "changed")
        for model in self._source.models(there.id):
            self._model(model, here.id)
        self._all_runs(there, here)
        if isinstance(self._source, TraceSource):
            for traces in _batches(self._source.traces(there.id)):
                self._traces(traces, here.id)
                self._progress(f"traces of {here.name}", self.report)

    def _all_runs(self, there: SourceExperiment, here: Experiment) -> None:
        """Bring the runs, some at a time; while they are taken in, the next are read where the source can do that."""
        begun: deque[_Filling] = deque()
        ahead = 0 if self._source.one_at_a_time else 1
        for some in self._portions(there.id):
            begun.append(_Filling(some, self._begin_runs(some, here.id)))
            while len(begun) > ahead:
                self._end_runs(begun.popleft(), here)
        for last in begun:
            self._end_runs(last, here)

    def _portions(self, experiment_id: str) -> Iterator[list[_Read]]:
        """The runs that are not here whole yet, some at a time; one with many points comes alone and without them.
        A source that holds one at a time is asked for the next when what was yielded is brought."""
        some: list[_Read] = []
        weight = 0
        for run in self._source.runs(experiment_id):
            self.report.count("runs").there += 1
            if run.id in self._whole:
                self.report.count("runs").here += 1
                if self._recheck:
                    self._check_run(run, self._target.contents(run.id))
                    self._settle_files(Owner("run", run.id), self._sender.begin(Owner("run", run.id)))
                continue
            read = self._read(run)
            if some and (read.histories is None or len(some) == RUNS_AT_ONCE or weight + read.weight > BYTES_AT_ONCE):
                yield some
                some, weight = [], 0
            some.append(read)
            weight += read.weight
            if read.histories is None or self._source.one_at_a_time:
                yield some
                some, weight = [], 0
        if some:
            yield some

    def _read(self, there: SourceRun) -> _Read:
        expected: dict[str, PointsOf] = {}
        histories: dict[str, Sequence[Value]] = {}
        weight = sum(len(key) + len(text) for texts in (there.params, there.tags) for key, text in texts.items())
        for key, values in self._histories(there, expected):
            histories[key] = values
            weight += POINT_BYTES * len(values)
            if weight > BYTES_AT_ONCE:
                return _Read(there, None, {}, weight)
        return _Read(there, histories, expected, weight)

    def _begin_runs(self, some: Sequence[_Read], experiment_id: str) -> Future[list[ImportedContents]]:
        if some[0].histories is not None:
            asked = [
                ImportFilledRun(run=self._asked(one.there, experiment_id), metrics=_columns(one.histories or {}))
                for one in some
            ]
            return self._ahead.submit(self._target.fill_runs, asked)
        # Its points are read while they are sent, and a source is read by one thread.
        [alone] = some
        filled: Future[list[ImportedContents]] = Future()
        try:
            filled.set_result([self._fill_run(alone, experiment_id)])
        except ModelyardError as error:
            filled.set_exception(error)
        return filled

    def _end_runs(self, filling: _Filling, experiment: Experiment) -> None:
        """Bring what else there is of runs; of some of which one is refused each alone, so that it keeps none back."""
        some = filling.runs
        try:
            found = filling.filled.result()
        except REFUSED as error:
            if len(some) > 1:
                for one in some:
                    self._end_runs(_Filling([one], self._begin_runs([one], experiment.id)), experiment)
            else:
                self.report.say(_named(some[0].there), str(error))
        else:
            self._finish_runs(some, found)
        self._progress(f"runs of {experiment.name}", self.report)

    def _finish_runs(self, some: Sequence[_Read], found: Sequence[ImportedContents]) -> None:
        owners = [Owner("run", one.there.id) for one in some]
        sent = [self._sender.begin(one, empty=not here.existed) for one, here in zip(owners, found, strict=True)]
        finished = {}
        for one, here, owner, sending in zip(some, found, owners, sent, strict=True):
            for note in one.there.notes:
                self.report.say(_named(one.there), note, "changed")
            for characters_max, texts in (
                (PARAM_CHARACTERS_MAX, one.there.params),
                (TAG_CHARACTERS_MAX, one.there.tags),
            ):
                self._say_cuts(one.there.id, texts, characters_max)
            left_out = self._settle_files(owner, sending)
            if self._check_run(one.there, here, one.expected):
                finished[one.there.id] = self._finished(one.there, left_out)
            self.report.count("points").new += sum(points.count for points in one.expected.values())
        if finished:
            self._target.finish_runs(finished)
        self.report.count("runs").here += len(finished)
        self.report.count("runs").new += len(finished)

    def _asked(self, there: SourceRun, experiment_id: str) -> ImportRun:
        return ImportRun(
            source=self._source.uri, id=there.id, experiment_id=experiment_id, name=there.name, user=there.user,
            started_at=there.started_at, params=cut(there.params, PARAM_CHARACTERS_MAX),
            tags=_tags(there.tags), inputs=there.inputs,
            model_inputs=there.model_inputs, model_outputs=there.model_outputs,
        )  # fmt: skip

    def _finished(self, there: SourceRun, left_out: Sequence[str]) -> FinishImportedRun:
        listed = "\n".join(left_out)[:LEFT_OUT_CHARACTERS_MAX]
        return FinishImportedRun(
            source=self._source.uri, status=there.status, stage=there.stage, ended_at=there.ended_at,
            tags={LEFT_OUT_TAG: listed} if left_out else {},
        )  # fmt: skip

    def _fill_run(self, read: _Read, experiment_id: str) -> ImportedContents:
        """Bring a run whose points are many, metric by metric; what they must be is noted in `read`."""
        self._target.run(self._asked(read.there, experiment_id))
        self._target.log(read.there.id, self._histories(read.there, read.expected))
        return msgspec.structs.replace(self._target.contents(read.there.id), existed=True)

    def _histories(self, there: SourceRun, read: dict[str, PointsOf]) -> Iterator[tuple[str, Sequence[Value]]]:
        """The metrics of a run as they are kept, noting of each what must be here afterwards."""
        for key in there.metrics:
            values = digests.storable(self._source.history(there.id, key))
            read[key] = PointsOf(len(values), digests.of_storable(values))
            yield key, values

    def _check_run(
        self, there: SourceRun, contents: ImportedContents, expected: Mapping[str, PointsOf] | None = None
    ) -> bool:
        """Compare a run with what was read back of it, all but its files, which were compared as they went in.
        `expected`: its points, where they were just read."""
        here = contents.run
        before = len(self.report.problems)
        what = _named(there)
        params = cut(there.params, PARAM_CHARACTERS_MAX)
        tags = {**_tags(there.tags), "mlflow.runName": there.name}
        self._compare(what, "params", params, here.params)
        self._compare(what, "tags", tags, _tags(here.tags))
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
            self.report.say(what, f"metric '{key}' has {there.count:,} points there and {here.count:,} here")
        elif here.digest != there.digest:
            self.report.say(what, f"the points of metric '{key}' differ")

    def _traces(self, there: Sequence[SourceTrace], experiment_id: str) -> None:
        """Bring traces; one that is refused is brought alone, so that it keeps no other back."""
        asked = ImportTraces(
            source=self._source.uri, experiment_id=experiment_id,
            traces=[ImportTrace(trace=one.trace, spans=one.spans, runs=one.runs) for one in there],
        )  # fmt: skip
        count, spans = self.report.count("traces"), self.report.count("spans")
        try:
            made = {one.id: one for one in self._target.traces(asked)}
        except REFUSED as error:
            if len(there) > 1:
                for alone in there:
                    self._traces([alone], experiment_id)
                return
            count.there += 1
            self.report.say(f"trace {there[0].trace.id}", str(error))
            return
        for one in there:
            here = made[one.trace.id]
            count.there, count.here, count.new = count.there + 1, count.here + 1, count.new + (not here.existed)
            spans.there, spans.here = spans.there + len(one.spans), spans.here + here.spans
            spans.new += 0 if here.existed else here.spans
            if here.digest != digests.of_spans(one.spans):
                self.report.say(f"trace {one.trace.id}", "its spans differ")
            for note in one.notes:
                self.report.say(f"trace {one.trace.id}", note, "left out")

    def _model(self, there: SourceModel, experiment_id: str) -> None:
        count = self.report.count("logged models")
        count.there += 1
        what = f"logged model {there.id} ({there.name})"
        asked = ImportLoggedModel(
            source=self._source.uri, id=there.id, experiment_id=experiment_id, name=there.name, status=there.status,
            created_at=there.created_at, updated_at=there.updated_at, model_type=there.model_type,
            source_run_id=there.source_run_id, params=cut(there.params, PARAM_CHARACTERS_MAX),
            tags=_tags(there.tags), metrics=there.metrics,
        )  # fmt: skip
        try:
            made = self._target.model(asked)
        except REFUSED as error:
            self.report.say(what, str(error))
            return
        owner = Owner("model", there.id)
        self._settle_files(owner, self._sender.begin(owner, empty=not made.existed))
        here = self._target.read_model(there.id)
        self._compare(what, "params", asked.params, here.params)
        self._compare(what, "tags", asked.tags, _tags(here.tags))
        if len(here.metrics) != len(there.metrics):
            self.report.say(what, f"it has {len(there.metrics)} metrics there and {len(here.metrics)} here")
        count.here += 1
        count.new += not made.existed

    def _settle_files(self, owner: Owner, sending: Sending) -> list[str]:
        """Count files that were sent. Returns what had to be left out."""
        sent = self._sender.settle(sending)
        count = self.report.count("files")
        count.there += sent.there
        count.here += sent.here
        count.new += sent.new
        self.report.bytes += sent.bytes
        what = f"{owner.kind} {owner.id}"
        for path in sent.differing:
            self.report.say(what, f"'{path}' differs")
        for why in sent.left_out:
            self.report.say(what, why, "left out")
        return sent.left_out

    # --- what is said -------------------------------------------------------------------------------------------------

    def _say_cuts(self, run_id: str, texts: Mapping[str, str], characters_max: int) -> None:
        for key in (key for key, text in texts.items() if len(text) > characters_max):
            self.report.say(f"run {run_id}", f"'{key}' is cut at {characters_max:,} characters", "changed")

    def _compare(self, what: str, noun: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
        if digests.of_texts(there) != digests.of_texts(here):
            differing = sorted({*there.items()} ^ {*here.items()})
            self.report.say(what, f"its {noun} differ: {', '.join(sorted({key for key, _ in differing}))[:200]}")


def _named(run: SourceRun) -> str:
    return f"run {run.id} ({run.name})"


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as they are brought: without those that an import, maybe an earlier one into the source, says itself by."""
    return cut({key: text for key, text in tags.items() if key not in _MINE}, TAG_CHARACTERS_MAX)


def _columns(histories: Mapping[str, Sequence[Value]]) -> dict[str, ImportPoints]:
    return {
        key: ImportPoints(
            [one.timestamp_ms for one in values],
            [one.step for one in values],
            [None if math.isnan(one.value) else one.value for one in values],
        )
        for key, values in histories.items()
        if values
    }


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
