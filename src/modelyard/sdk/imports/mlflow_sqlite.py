"""MLflow's SQLite file (its SQL store), read as it is, without MLflow."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.imports.mlflow_files import Places
from modelyard.sdk.imports.mlflow_traces import traces_of
from modelyard.sdk.imports.source import (
    Owner,
    SourceExperiment,
    SourceFile,
    SourceModel,
    SourceRegistered,
    SourceRun,
    SourceTrace,
    SourceVersion,
    Unreachable,
    Value,
    instant,
)
from modelyard.types.tracking import Dataset, DatasetInput, ModelMetric, ModelOutput, ModelStatus, RunStatus, Stage

_MODEL_STATUS: dict[int, ModelStatus] = {1: "PENDING", 2: "READY", 3: "FAILED"}


class MlflowSqlite:
    """The file of `mlflow server --backend-store-uri sqlite:///…`."""

    def __init__(self, file: Path, artifacts: Path | None = None) -> None:
        if not file.is_file():
            raise InvalidInput(f"there is no file {str(file)!r}", code="import.source_missing")
        self.uri = f"mlflow:sqlite:///{file.resolve()}"
        self.unreadable: Sequence[str] = ()
        self.one_at_a_time = False
        self._places = Places(artifacts, file.resolve().parent)
        self._db = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        self._db.row_factory = sqlite3.Row
        self._tables = self._read_tables(file)
        self._read_of, self._read = "", dict[str, list[Value]]()
        if not {"experiments", "runs", "metrics"} <= self._tables:
            raise InvalidInput(f"{file} is no database of MLflow", code="import.source_invalid")

    def _read_tables(self, file: Path) -> set[str]:
        try:
            return {row["name"] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.DatabaseError as error:
            raise InvalidInput(f"{file} is no SQLite file: {error}", code="import.source_invalid") from error

    def experiments(self) -> Iterable[SourceExperiment]:
        for row in self._rows("experiments", "1 = 1 ORDER BY experiment_id"):
            number = row["experiment_id"]
            yield SourceExperiment(
                id=str(number),
                name=row["name"],
                stage=_stage(row["lifecycle_stage"]),
                created_at=instant(row["creation_time"]) if row["creation_time"] else None,
                updated_at=instant(row["last_update_time"]) if row["last_update_time"] else None,
                tags=self._pairs("experiment_tags", "experiment_id = ?", number),
            )

    def runs(self, experiment_id: str) -> Iterable[SourceRun]:
        rows = self._rows("runs", "experiment_id = ? ORDER BY start_time, run_uuid", experiment_id)
        for row in list(rows):
            run_id = row["run_uuid"]
            tags = self._pairs("tags", "run_uuid = ?", run_id)
            yield SourceRun(
                id=run_id,
                name=row["name"] or tags.get("mlflow.runName", "") or run_id[:8],
                started_at=instant(row["start_time"]),
                ended_at=instant(row["end_time"]) if row["end_time"] else None,
                user=row["user_id"] or "",
                status=cast(RunStatus, row["status"]),
                stage=_stage(row["lifecycle_stage"]),
                params=self._pairs("params", "run_uuid = ?", run_id),
                tags=tags,
                metrics=tuple(one["key"] for one in self._rows("latest_metrics", "run_uuid = ? ORDER BY key", run_id)),
                inputs=self._inputs(run_id),
                model_inputs=[one["destination_id"] for one in self._links(run_id, "RUN_INPUT")],
                model_outputs=[
                    ModelOutput(one["destination_id"], one["step"] or 0) for one in self._links(run_id, "RUN_OUTPUT")
                ],
            )

    def history(self, run_id: str, key: str) -> Sequence[Value]:
        # The index is by run, so that reading key by key would walk over all of the run's points each time.
        if self._read_of != run_id:
            self._read_of, self._read = run_id, {}
            cursor = self._db.execute(
                "SELECT key, timestamp, step, value, is_nan FROM metrics WHERE run_uuid = ?", (run_id,)
            )
            cursor.row_factory = None
            for name, time, step, value, is_nan in cursor:
                self._read.setdefault(name, []).append(Value(time, step, math.nan if is_nan else float(value)))
        return self._read.get(key, ())

    def traces(self, experiment_id: str) -> Iterable[SourceTrace]:
        return traces_of(self._rows, self._bytes, experiment_id)

    def models(self, experiment_id: str) -> Iterable[SourceModel]:
        rows = self._rows("logged_models", "experiment_id = ? AND lifecycle_stage = 'active'", experiment_id)
        for row in list(rows):
            model_id = row["model_id"]
            yield SourceModel(
                id=model_id,
                name=row["name"],
                status=_MODEL_STATUS.get(row["status"], "PENDING"),
                created_at=instant(row["creation_timestamp_ms"]),
                updated_at=instant(row["last_updated_timestamp_ms"]),
                model_type=row["model_type"] or "",
                source_run_id=row["source_run_id"] or "",
                params=self._pairs("logged_model_params", "model_id = ?", model_id, "param_key", "param_value"),
                tags=self._pairs("logged_model_tags", "model_id = ?", model_id, "tag_key", "tag_value"),
                metrics=[
                    ModelMetric(
                        key=one["metric_name"],
                        value=one["metric_value"],
                        step=one["metric_step"],
                        timestamp_ms=one["metric_timestamp_ms"],
                        run_id=one["run_id"],
                        dataset_name=one["dataset_name"],
                        dataset_digest=one["dataset_digest"],
                    )
                    for one in self._rows("logged_model_metrics", "model_id = ?", model_id)
                ],
            )

    def registered(self) -> Iterable[SourceRegistered]:
        for row in list(self._rows("registered_models", "1 = 1 ORDER BY name")):
            name = row["name"]
            yield SourceRegistered(
                name=name,
                description=row["description"] or "",
                tags=self._pairs("registered_model_tags", "name = ?", name),
                aliases={
                    one["alias"]: int(one["version"])
                    for one in self._rows("registered_model_aliases", "name = ?", name)
                },
                created_at=instant(row["creation_time"]),
                updated_at=instant(row["last_updated_time"]),
            )

    def versions(self, name: str) -> Iterable[SourceVersion]:
        for row in list(self._rows("model_versions", "name = ? ORDER BY version", name)):
            if row["current_stage"] == "Deleted_Internal":
                continue
            yield SourceVersion(
                version=int(row["version"]),
                source=row["source"] or "",
                location=_named(row, "storage_location"),
                created_at=instant(row["creation_time"]),
                updated_at=instant(row["last_updated_time"]),
                run=row["run_id"] or "",
                description=row["description"] or "",
                stage=row["current_stage"] or "None",
                tags=self._pairs("model_version_tags", "name = ? AND version = ?", name, more=(row["version"],)),
            )

    def files(self, owner: Owner) -> Sequence[SourceFile]:
        return self._places.files(self._location(owner))

    def open(self, owner: Owner, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._places.open(self._location(owner), path)

    def close(self) -> None:
        self._db.close()

    def _bytes(self, location: str, path: str) -> bytes:
        with self._places.open(location, path) as pieces:
            return b"".join(pieces)

    def _location(self, owner: Owner) -> str:
        if owner.kind == "run":
            row = next(self._rows("runs", "run_uuid = ?", owner.id), None)
            return str(row["artifact_uri"]) if row else ""
        if owner.kind == "model":
            row = next(self._rows("logged_models", "model_id = ?", owner.id), None)
            return str(row["artifact_location"]) if row else ""
        name, _, version = owner.id.rpartition("/")
        row = next(self._rows("model_versions", "name = ? AND version = ?", name, version), None)
        if row is None:
            raise Unreachable(f"there is no version {owner.id}")
        return _named(row, "storage_location") or str(row["source"])

    def _inputs(self, run_id: str) -> list[DatasetInput]:
        if not {"inputs", "datasets"} <= self._tables:
            return []
        found = self._db.execute(
            "SELECT d.*, i.input_uuid FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id"
            " WHERE i.source_type = 'DATASET' AND i.destination_type = 'RUN' AND i.destination_id = ?"
            " ORDER BY d.name, d.digest",
            (run_id,),
        ).fetchall()
        return [
            DatasetInput(
                Dataset(
                    name=row["name"],
                    digest=row["digest"],
                    source_type=row["dataset_source_type"],
                    source=row["dataset_source"],
                    schema=row["dataset_schema"],
                    profile=row["dataset_profile"],
                ),
                self._pairs("input_tags", "input_uuid = ?", row["input_uuid"], "name"),
            )
            for row in found
        ]

    def _links(self, run_id: str, kind: str) -> Iterator[sqlite3.Row]:
        return self._rows("inputs", "source_id = ? AND source_type = ?", run_id, kind)

    def _rows(self, table: str, where: str, *values: Any) -> Iterator[sqlite3.Row]:
        # Tables and conditions are this module's own words; older releases lack some of the tables.
        if table not in self._tables:
            return iter(())
        return iter(self._db.execute(f"SELECT * FROM {table} WHERE {where}", values))

    def _pairs(
        self, table: str, where: str, owner: Any, key: str = "key", value: str = "value", more: tuple[Any, ...] = ()
    ) -> dict[str, str]:
        return {row[key]: row[value] or "" for row in self._rows(table, where, owner, *more)}


def _stage(text: str) -> Stage:
    return "deleted" if text == "deleted" else "active"


def _named(row: sqlite3.Row, column: str) -> str:
    """A column that older releases do not have."""
    return str(row[column] or "") if column in row.keys() else ""  # noqa: SIM118  a Row is no mapping
