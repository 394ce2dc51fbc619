"""TensorBoard's logs: each folder with event files is a run; scalars become metrics, all else becomes files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.imports import protobuf as pb
from modelyard.sdk.imports import tensors
from modelyard.sdk.imports.collected import Collected
from modelyard.sdk.imports.files import files_below, in_memory, pieces_of
from modelyard.sdk.imports.source import (
    CutOff,
    Owner,
    RunsOnly,
    SourceExperiment,
    SourceFile,
    SourceRun,
    Value,
    instant,
)
from modelyard.sdk.imports.tensorboard_log import records
from modelyard.types.tracking import RunStatus

LOG = "*tfevents*"
TENSOR_NUMBERS_MAX = 10_000
_SUCCESS_BY_NUMBER: dict[int, RunStatus] = {1: "FINISHED", 2: "FAILED", 3: "RUNNING"}
_ENDINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"RIFF": "wav"}
# The fields of TensorFlow's public event.proto and summary.proto, by their numbers.
WALL_TIME, STEP, GRAPH, SUMMARY = 1, 2, 4, 5
TAG, SIMPLE, IMAGE, HISTOGRAM, AUDIO, TENSOR, METADATA = 1, 2, 4, 5, 6, 8, 9


class _Log:
    """One run, read from all event files of its folder. Images and sounds wait on disk."""

    def __init__(self, logs: Sequence[Path], spill: Path) -> None:
        self.collected = Collected()
        self.params: dict[str, str] = {}
        self.notes: list[str] = []
        self.status: RunStatus = "FINISHED"
        self.started_s = self.ended_s = 0.0
        self._spill = spill
        self._plugins: dict[str, str] = {}
        for log in logs:
            try:
                for record in records(log):
                    self._read(pb.grouped(record))
            except (CutOff, InvalidInput) as error:
                self.notes.append(f"{log.name}: {error}; what came before is here")

    def _read(self, event: dict[int, list[Any]]) -> None:
        at = pb.number(event[WALL_TIME][-1]) if WALL_TIME in event else 0.0
        self.started_s = min(self.started_s or at, at)
        self.ended_s = max(self.ended_s, at)
        if event.get(GRAPH):
            self._keep("graph.pb", event[GRAPH][-1])
        step, moment = pb.integer(event, STEP), int(at * 1_000)
        for summary in event.get(SUMMARY, ()):
            for value in pb.grouped(summary).get(1, ()):
                self._take(pb.grouped(value), moment, step)

    def _take(self, value: dict[int, list[Any]], moment: int, step: int) -> None:
        tag = pb.text(value, TAG)
        plugin = pb.message(pb.message(value, METADATA), 1)
        # What shows a value is said with the first of its tag only.
        name = self._plugins.setdefault(tag, pb.text(plugin, 1))
        if name == "hparams":
            self._take_settings(pb.message(plugin, 2))
        elif SIMPLE in value:
            self.collected.point(tag, moment, step, pb.number(value[SIMPLE][-1], wide=False))
        elif HISTOGRAM in value:
            self.collected.value(tag, moment, step, _histogram(pb.message(value, HISTOGRAM)))
        elif IMAGE in value:
            self._keep_media("images", tag, step, [pb.message(value, IMAGE).get(4, [b""])[-1]])
        elif AUDIO in value:
            self._keep_media("audio", tag, step, [pb.message(value, AUDIO).get(4, [b""])[-1]])
        elif TENSOR in value:
            self._take_tensor(name, tag, tensors.read(pb.message(value, TENSOR)), moment, step)

    def _take_tensor(self, plugin: str, tag: str, found: tensors.Tensor, moment: int, step: int) -> None:
        if plugin == "images":
            # Width and height come before the images.
            self._keep_media("images", tag, step, found.texts[2:])
        elif plugin == "audio":
            self._keep_media("audio", tag, step, found.texts[::2])
        elif found.texts:
            said = [one.decode("utf-8", "replace") for one in found.texts]
            self.collected.value(tag, moment, step, said[0] if len(said) == 1 else said)
        elif plugin == "histograms" and len(found.shape) == 2 and found.shape[1] == 3:
            rows = [found.numbers[at : at + 3] for at in range(0, len(found.numbers), 3)]
            bins = [row[0] for row in rows] + [row[1] for row in rows[-1:]]
            shown = {"_type": "histogram", "bins": bins, "values": [row[2] for row in rows]}
            self.collected.value(tag, moment, step, shown)
        elif len(found.numbers) == 1:
            self.collected.point(tag, moment, step, found.numbers[0])
        elif 0 < len(found.numbers) <= TENSOR_NUMBERS_MAX:
            shown = {"_type": "tensor", "shape": list(found.shape), "values": found.numbers}
            self.collected.value(tag, moment, step, shown)
        else:
            self.notes.append(f"'{tag[:100]}' at step {step} is of a kind that is not read ({plugin or 'unknown'})")

    def _take_settings(self, found: dict[int, list[Any]]) -> None:
        for entry in pb.message(found, 3).get(1, ()):
            pair = pb.grouped(entry)
            self.params[self.collected.name(pb.text(pair, 1))] = _setting(pb.message(pair, 2))
        ended = pb.message(found, 4)
        if ended:
            self.status = _SUCCESS_BY_NUMBER.get(pb.integer(ended, 1), "FINISHED")

    def _keep_media(self, kind: str, tag: str, step: int, bodies: Sequence[bytes]) -> None:
        for at, body in enumerate(bodies):
            ending = next((ending for magic, ending in _ENDINGS.items() if body.startswith(magic)), "bin")
            number = f"{step}" if len(bodies) == 1 else f"{step}-{at}"
            self._keep(f"{kind}/{self.collected.name(tag)}/{number}.{ending}", body)

    def _keep(self, path: str, body: bytes) -> None:
        file = self._spill / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)


class TensorboardFolder(RunsOnly):
    """A log directory, as `tensorboard --logdir` takes it."""

    def __init__(self, folder: Path) -> None:
        root = folder.resolve()
        self.uri = f"tensorboard:{root.name}"
        self.unreadable: Sequence[str] = ()
        self.one_at_a_time = True
        self._name = root.name
        self._runs: dict[str, list[Path]] = {}
        for log in sorted(one for one in root.rglob(LOG) if one.is_file()):
            self._runs.setdefault(log.parent.relative_to(root).as_posix(), []).append(log)
        if not self._runs:
            raise InvalidInput(
                f"{folder} holds no event files of TensorBoard",
                code="import.source_invalid",
                hint="give the directory that `tensorboard --logdir` is given",
            )
        self._spill: tempfile.TemporaryDirectory[str] | None = None
        self._open: dict[str, _Log] = {}

    def experiments(self) -> Iterable[SourceExperiment]:
        yield SourceExperiment(id=self._name, name=self._name)

    def runs(self, experiment_id: str) -> Iterable[SourceRun]:  # noqa: ARG002
        for place, logs in self._runs.items():
            self.close()
            self._spill = tempfile.TemporaryDirectory(prefix="modelyard-import-")
            log = _Log(logs, Path(self._spill.name))
            run_id = _run_id(f"{self._name}/{place}", log.started_s)
            self._open = {run_id: log}
            yield SourceRun(
                id=run_id,
                name=self._name if place == "." else place,
                started_at=instant(log.started_s * 1_000),
                ended_at=instant(log.ended_s * 1_000),
                status=log.status,
                params=log.params,
                tags={"tensorboard.run": place},
                metrics=tuple(sorted(log.collected.metrics)),
                notes=(*log.notes, *log.collected.renamed),
            )

    def history(self, run_id: str, key: str) -> Sequence[Value]:
        return list(self._open[run_id].collected.metrics[key])

    def files(self, owner: Owner) -> Sequence[SourceFile]:
        assert self._spill is not None
        found = [*self._open[owner.id].collected.listed(), *files_below(Path(self._spill.name))]
        return sorted(found, key=lambda file: file.path)

    def open(self, owner: Owner, path: str) -> AbstractContextManager[Iterator[bytes]]:
        assert self._spill is not None
        body = self._open[owner.id].collected.all_files().get(path)
        return pieces_of(Path(self._spill.name) / path) if body is None else in_memory(body)

    def close(self) -> None:
        self._open = {}
        if self._spill is not None:
            self._spill.cleanup()
            self._spill = None


def _run_id(place: str, started_s: float) -> str:
    """The id here of a run there: the same whenever and from wherever it is imported."""
    return hashlib.sha256(f"tensorboard:{place}:{started_s!r}".encode()).hexdigest()[:32]


def _histogram(found: dict[int, list[Any]]) -> dict[str, Any]:
    limits, counts = pb.packed(found.get(6, []), wide=True), pb.packed(found.get(7, []), wide=True)
    low = pb.number(found[1][-1]) if 1 in found else 0.0
    # The outermost limits are the largest doubles, which say nothing.
    high = pb.number(found[2][-1]) if 2 in found else 0.0
    bins = [low, *(min(limit, high) for limit in limits)]
    return {"_type": "histogram", "bins": bins, "values": counts}


def _setting(value: dict[int, list[Any]]) -> str:
    if 2 in value:
        number = pb.number(value[2][-1])
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    if 4 in value:
        return str(bool(value[4][-1]))
    return pb.text(value, 3)
