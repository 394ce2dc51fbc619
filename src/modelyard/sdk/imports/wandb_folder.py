"""Offline runs of Weights & Biases, read from the folders that its client leaves, without its package."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.paths import safe_join
from modelyard.sdk.imports import protobuf as pb
from modelyard.sdk.imports.collected import Collected, as_number, flat_texts, put_nested
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
from modelyard.sdk.imports.wandb_log import records
from modelyard.types.tracking import RunStatus

LOG = "*.wandb"
STAGING = "/artifacts/staging"
# The fields of `Record` and of what is in it, by their numbers in W&B's public wandb_internal.proto.
HISTORY, SUMMARY, CONFIG, STATS, ARTIFACT, RUN, EXIT, ENVIRONMENT = 2, 3, 5, 7, 8, 17, 18, 26
_ITEM_KEY, _ITEM_NESTED, _ITEM_JSON = 1, 2, 16
_ITEM_NONE, _ITEM_BOOLEAN, _ITEM_INTEGER, _ITEM_NUMBER, _ITEM_TEXT, _ITEM_JSON_TEXT = 3, 4, 5, 6, 7, 8


class _Log:
    """One run, read from all its logs: a resumed run has several."""

    def __init__(self, logs: Sequence[Path]) -> None:
        self.logs = logs
        self.collected = Collected()
        self.run: dict[int, list[Any]] = {}
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.environment: dict[int, list[Any]] = {}
        self.exit: dict[int, list[Any]] | None = None
        self.artifacts: dict[str, Path] = {}
        self.notes: list[str] = []
        self.started_ms = self.last_ms = 0
        self._stats = 0
        for log in logs:
            try:
                for record in records(log):
                    self._read(record)
            except CutOff as error:
                self.notes.append(f"{log.name}: {error}; what came before is here")
        self._take_summary()

    def _read(self, record: bytes) -> None:
        for number, _, value in pb.fields(record):
            reader = _READERS.get(number)
            if reader is not None and isinstance(value, bytes):
                reader(self, pb.grouped(value))

    def take_run(self, found: dict[int, list[Any]]) -> None:
        self.run = found
        self.started_ms = self.started_ms or _milliseconds(pb.message(found, 17))
        self.last_ms = max(self.last_ms, self.started_ms)
        self.take_config(pb.message(found, 4))

    def take_config(self, found: dict[int, list[Any]]) -> None:
        for path, value in _items(found.get(1, ())):
            if path[0] != "_wandb":
                put_nested(self.config, path, value)

    def take_summary(self, found: dict[int, list[Any]]) -> None:
        for path, value in _items(found.get(1, ())):
            put_nested(self.summary, path, value)

    def take_history(self, found: dict[int, list[Any]]) -> None:
        row: dict[str, Any] = {}
        for path, value in _items(found.get(1, ())):
            put_nested(row, path, value)
        step = as_number(row.pop("_step", None))
        at = as_number(row.pop("_timestamp", None))
        moment = self.last_ms if at is None else int(at * 1_000)
        self.last_ms = max(self.last_ms, moment)
        number = pb.integer(pb.message(found, 2), 1) if step is None else int(step)
        for key, value in row.items():
            if key not in ("_runtime", "_wandb"):
                self.collected.value(key, moment, number, value)

    def take_stats(self, found: dict[int, list[Any]]) -> None:
        moment = _milliseconds(pb.message(found, 2))
        for path, value in _items(found.get(3, ())):
            self.collected.value(f"system/{path[0]}", moment, self._stats, value)
        self._stats += 1

    def take_artifact(self, found: dict[int, list[Any]]) -> None:
        name = pb.text(found, 5)
        for entry in (pb.grouped(one) for one in pb.message(found, 12).get(4, ())):
            path, local = f"artifacts/{name}/{pb.text(entry, 1)}", Path(pb.text(entry, 6))
            if _is_staged(local, pb.text(entry, 2)):
                self.artifacts[path] = local
            else:
                self.notes.append(f"'{path[:200]}' is no longer where W&B put it")

    def take_exit(self, found: dict[int, list[Any]]) -> None:
        self.exit = found

    def take_environment(self, found: dict[int, list[Any]]) -> None:
        for number, values in found.items():
            self.environment.setdefault(number, []).extend(values)

    def _take_summary(self) -> None:
        """What was only summed up: numbers become metrics of the end, all else is kept as tags."""
        step = max((columns.steps[-1] for columns in self.collected.metrics.values() if columns.steps), default=0)
        self.other_summary: dict[str, str] = {}
        for name, found in self.summary.items():
            # What was logged last is in the summary too, media as a reference to their file.
            if name.startswith("_") or (isinstance(found, dict) and "_type" in found):
                continue
            for key, text in flat_texts({name: found}).items():
                if self.collected.knows(key):
                    continue
                value = as_number(_json(text))
                if value is None:
                    self.other_summary[key] = text
                else:
                    self.collected.point(key, self.last_ms, step, value)

    @property
    def status(self) -> RunStatus:
        if self.exit is None:
            return "KILLED"
        return "FAILED" if pb.integer(self.exit, 1) else "FINISHED"

    @property
    def ended_ms(self) -> int:
        runtime = pb.integer(self.exit, 2) if self.exit is not None else 0
        return max(self.last_ms, self.started_ms + runtime * 1_000)


_READERS = {
    RUN: _Log.take_run,
    CONFIG: _Log.take_config,
    SUMMARY: _Log.take_summary,
    HISTORY: _Log.take_history,
    STATS: _Log.take_stats,
    ARTIFACT: _Log.take_artifact,
    EXIT: _Log.take_exit,
    ENVIRONMENT: _Log.take_environment,
}


class WandbFolder(RunsOnly):
    """An offline run's folder, or a folder with many (such as `wandb`)."""

    def __init__(self, folder: Path) -> None:
        self.uri = "wandb:offline"
        found: dict[Path, None] = {}
        for log in sorted([*folder.glob(LOG), *folder.glob(f"*/{LOG}"), *folder.glob(f"*/*/{LOG}")]):
            found.setdefault(log.resolve())
        if not found:
            raise InvalidInput(
                f"{folder} holds no runs of W&B",
                code="import.source_invalid",
                hint="give a folder `offline-run-…`, or the `wandb` folder with such",
            )
        self._runs: dict[str, dict[str, list[Path]]] = {}
        self._projects: dict[str, str] = {}
        unreadable: list[str] = []
        self.unreadable: Sequence[str] = unreadable
        # A long run's history fills some of the memory.
        self.one_at_a_time = True
        for log in found:
            try:
                entity, project, run = _head(log)
            except InvalidInput as error:
                unreadable.append(error.message)
                continue
            place = f"{entity}/{project}"
            self._projects[place] = project
            self._runs.setdefault(place, {}).setdefault(f"{place}/{run}", []).append(log)
        self._open: dict[str, _Log] = {}

    def experiments(self) -> Iterable[SourceExperiment]:
        for place, project in sorted(self._projects.items()):
            yield SourceExperiment(id=place, name=project, tags={"wandb.project": place})

    def runs(self, experiment_id: str) -> Iterable[SourceRun]:
        for identity, logs in sorted(self._runs[experiment_id].items()):
            run_id = run_id_of(identity)
            self._open = {run_id: (log := _Log(logs))}
            yield _noun(run_id, identity, log)

    def history(self, run_id: str, key: str) -> Sequence[Value]:
        return list(self._open[run_id].collected.metrics[key])

    def files(self, owner: Owner) -> Sequence[SourceFile]:
        log = self._open[owner.id]
        found = {one.path: one for one in log.collected.listed()}
        for folder in self._folders(owner):
            found.update((one.path, one) for one in files_below(folder))
        for path, local in log.artifacts.items():
            found[path] = SourceFile(path, local.stat().st_size)
        return [found[path] for path in sorted(found)]

    def open(self, owner: Owner, path: str) -> AbstractContextManager[Iterator[bytes]]:
        log = self._open[owner.id]
        if path in log.artifacts:
            return pieces_of(log.artifacts[path])
        for folder in reversed(self._folders(owner)):
            if (file := safe_join(folder, path)).is_file():
                return pieces_of(file)
        return in_memory(log.collected.all_files()[path])

    def close(self) -> None:
        self._open = {}

    def _folders(self, owner: Owner) -> list[Path]:
        return [log.parent / "files" for log in self._open[owner.id].logs]


def run_id_of(identity: str) -> str:
    """The id here of a run there: the same whenever and from wherever it is imported."""
    return hashlib.sha256(f"wandb:{identity}".encode()).hexdigest()[:32]


def _is_staged(file: Path, digest: str) -> bool:
    """Whether a file is one that W&B staged, with the content that its manifest tells. A log may come from anywhere,
    so it cannot make an import read other files of this machine."""
    real = file.resolve()
    if STAGING not in real.parent.as_posix() or not real.is_file():
        return False
    found = hashlib.md5(usedforsecurity=False)
    with real.open("rb") as opened:
        while piece := opened.read(1024 * 1024):
            found.update(piece)
    return base64.b64encode(found.digest()).decode() == digest


def _head(log: Path) -> tuple[str, str, str]:
    """Entity, project and id of a log's run, from its first records. Raises InvalidInput."""
    try:
        for record in records(log):
            run = pb.message(pb.grouped(record), RUN)
            if run:
                return pb.text(run, 2), pb.text(run, 3) or "uncategorized", pb.text(run, 1)
    except CutOff as error:
        raise InvalidInput(f"{log}: {error}", code="import.source_invalid") from error
    raise InvalidInput(f"{log} says of no run", code="import.source_invalid")


def _noun(run_id: str, identity: str, log: _Log) -> SourceRun:
    git = pb.message(log.environment, 9) or pb.message(log.run, 21)
    tags = {
        "wandb.run": identity,
        "wandb.group": pb.text(log.run, 6),
        "wandb.job_type": pb.text(log.run, 7),
        "wandb.sweep": pb.text(log.run, 12),
        "wandb.tags": ", ".join(pb.texts(log.run, 10)),
        "wandb.host": pb.text(log.run, 13),
        "mlflow.note.content": pb.text(log.run, 9),
        "mlflow.source.name": pb.text(log.environment, 6),
        "mlflow.source.git.commit": pb.text(git, 2),
        "mlflow.source.git.repoURL": pb.text(git, 1),
        "mlflow.user": pb.text(log.environment, 13),
    }
    summed = {log.collected.name(f"wandb.summary.{key}"): text for key, text in log.other_summary.items()}
    params = {log.collected.name(key): text for key, text in flat_texts(log.config).items()}
    return SourceRun(
        id=run_id,
        name=pb.text(log.run, 8) or pb.text(log.run, 1),
        started_at=instant(log.started_ms),
        ended_at=instant(log.ended_ms),
        user=pb.text(log.environment, 13) or pb.text(log.run, 2),
        status=log.status,
        params=params,
        tags={key: text for key, text in {**tags, **summed}.items() if text},
        metrics=tuple(sorted(log.collected.metrics)),
        notes=(*log.notes, *log.collected.renamed),
    )


def _items(found: Iterable[Any]) -> Iterator[tuple[list[str], Any]]:
    for one in found:
        if not isinstance(one, bytes):
            continue
        item = pb.grouped(one)
        path = pb.texts(item, _ITEM_NESTED) or [pb.text(item, _ITEM_KEY)]
        if path[0]:
            yield path, _value(item)


def _value(item: dict[int, list[Any]]) -> Any:
    for number in (_ITEM_JSON, _ITEM_JSON_TEXT):
        if number in item:
            return _json(pb.text(item, number))
    if _ITEM_NUMBER in item:
        return pb.number(item[_ITEM_NUMBER][-1])
    if _ITEM_INTEGER in item:
        return pb.zigzag(item[_ITEM_INTEGER][-1])
    if _ITEM_BOOLEAN in item:
        return bool(item[_ITEM_BOOLEAN][-1])
    return pb.text(item, _ITEM_TEXT) if _ITEM_TEXT in item else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _milliseconds(timestamp: dict[int, list[Any]]) -> int:
    return pb.integer(timestamp, 1) * 1_000 + pb.integer(timestamp, 2) // 1_000_000
