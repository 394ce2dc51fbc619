"""MLflow's `mlruns` folder (its file store), read as it is, without MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.imports.mlflow_files import Places
from modelyard.sdk.imports.source import (
    Owner,
    SourceExperiment,
    SourceFile,
    SourceModel,
    SourceRegistered,
    SourceRun,
    SourceVersion,
    Unreachable,
    Value,
    instant,
)
from modelyard.types.tracking import Dataset, DatasetInput, ModelMetric, ModelOutput, ModelStatus, RunStatus, Stage

META = "meta.yaml"
META_BYTES_MAX = 4 * 1024 * 1024
_STATUS: dict[int, RunStatus] = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
_MODEL_STATUS: dict[int, ModelStatus] = {1: "PENDING", 2: "READY", 3: "FAILED"}


class MlflowFolder:
    """A folder that MLflow wrote with no server."""

    def __init__(self, folder: Path, artifacts: Path | None = None) -> None:
        self._root = folder.resolve()
        if not self._root.is_dir():
            raise InvalidInput(f"there is no folder {str(folder)!r}", code="import.source_missing")
        self.uri = f"mlflow:{self._root.as_uri()}"
        self.unreadable: Sequence[str] = ()
        self.one_at_a_time = False
        self._places = Places(artifacts, self._root.parent)
        self._run_folders: dict[str, Path] = {}
        self._model_folders: dict[str, Path] = {}
        self._experiments = self._find_experiments()
        if not self._experiments:
            raise InvalidInput(
                f"{folder} holds no experiments of MLflow",
                code="import.source_invalid",
                hint="give the `mlruns` folder itself",
            )

    def _find_experiments(self) -> dict[str, Path]:
        found = {}
        for parent in (self._root, self._root / ".trash"):
            for one in _folders(parent):
                if (one / META).is_file() and "experiment_id" in (meta := _read(one)):
                    found[str(meta["experiment_id"])] = one
        return found

    def experiments(self) -> Iterable[SourceExperiment]:
        for experiment_id, folder in sorted(self._experiments.items()):
            meta = _read(folder)
            yield SourceExperiment(
                id=experiment_id,
                name=str(meta["name"]),
                stage=_stage(meta),
                created_at=instant(meta["creation_time"]) if meta.get("creation_time") else None,
                updated_at=instant(meta["last_update_time"]) if meta.get("last_update_time") else None,
                tags=_texts(folder / "tags"),
            )

    def runs(self, experiment_id: str) -> Iterable[SourceRun]:
        folder = self._experiments[experiment_id]
        for one in _folders(folder):
            meta = _read(one) if (one / META).is_file() else {}
            run_id = str(meta.get("run_id") or meta.get("run_uuid") or "")
            if not run_id:
                continue
            self._run_folders[run_id] = one
            tags = _texts(one / "tags")
            yield SourceRun(
                id=run_id,
                name=str(meta.get("run_name") or tags.get("mlflow.runName") or run_id[:8]),
                started_at=instant(meta.get("start_time")),
                ended_at=instant(meta["end_time"]) if meta.get("end_time") else None,
                user=str(meta.get("user_id") or ""),
                status=_STATUS.get(int(meta.get("status") or 3), "FINISHED"),
                stage=_stage(meta),
                params=_texts(one / "params"),
                tags=tags,
                metrics=tuple(_names(one / "metrics")),
                inputs=self._inputs(folder, one),
                model_inputs=[str(found["destination_id"]) for found in _metas(one / "inputs", "RUN_INPUT")],
                model_outputs=[
                    ModelOutput(str(found["destination_id"]), int(found.get("step") or 0))
                    for found in _metas(one / "outputs", "RUN_OUTPUT")
                ],
            )

    def history(self, run_id: str, key: str) -> Sequence[Value]:
        lines = (self._run_folders[run_id] / "metrics" / key).read_text("utf-8").splitlines()
        return [_value(words) for line in lines if (words := line.split(" "))[0]]

    def models(self, experiment_id: str) -> Iterable[SourceModel]:
        for one in _folders(self._experiments[experiment_id] / "models"):
            meta = _read(one) if (one / META).is_file() else {}
            if not meta or meta.get("lifecycle_stage") == "deleted":
                continue
            model_id = str(meta["model_id"])
            self._model_folders[model_id] = one
            yield SourceModel(
                id=model_id,
                name=str(meta["name"]),
                status=_MODEL_STATUS.get(int(meta["status"]), "PENDING"),
                created_at=instant(meta["creation_timestamp"]),
                updated_at=instant(meta["last_updated_timestamp"]),
                model_type=str(meta.get("model_type") or ""),
                source_run_id=str(meta.get("source_run_id") or ""),
                params=_texts(one / "params"),
                tags=_texts(one / "tags"),
                metrics=[found for key in _names(one / "metrics") for found in _model_values(one / "metrics", key)],
            )

    def registered(self) -> Iterable[SourceRegistered]:
        for one in _folders(self._root / "models"):
            if not (one / META).is_file():
                continue
            meta = _read(one)
            aliases = _texts(one / "aliases")
            yield SourceRegistered(
                name=str(meta["name"]),
                description=str(meta.get("description") or ""),
                tags=_texts(one / "tags"),
                aliases={alias: int(version) for alias, version in aliases.items()},
                created_at=instant(meta.get("creation_timestamp")),
                updated_at=instant(meta.get("last_updated_timestamp")),
            )

    def versions(self, name: str) -> Iterable[SourceVersion]:
        found = []
        for one in _folders(self._root / "models" / name):
            if not one.name.startswith("version-") or not (one / META).is_file():
                continue
            meta = _read(one)
            found.append(
                SourceVersion(
                    version=int(meta["version"]),
                    source=str(meta.get("source") or ""),
                    location=str(meta.get("storage_location") or ""),
                    created_at=instant(meta.get("creation_timestamp")),
                    updated_at=instant(meta.get("last_updated_timestamp")),
                    run=str(meta.get("run_id") or ""),
                    logged_model=str(meta.get("model_id") or ""),
                    description=str(meta.get("description") or ""),
                    stage=str(meta.get("current_stage") or "None"),
                    tags=_texts(one / "tags"),
                )
            )
        return sorted(found, key=lambda version: version.version)

    def files(self, owner: Owner) -> Sequence[SourceFile]:
        return self._places.files(self._location(owner))

    def open(self, owner: Owner, path: str) -> AbstractContextManager[Iterator[bytes]]:
        return self._places.open(self._location(owner), path)

    def close(self) -> None:
        """Nothing is open."""

    def _location(self, owner: Owner) -> str:
        """Where the files are now: beside what describes them, wherever the folder was moved to, or else as it says."""
        if owner.kind == "version":
            name, _, version = owner.id.rpartition("/")
            meta = _read(self._root / "models" / name / f"version-{version}")
            return str(meta.get("storage_location") or meta.get("source") or "")
        folders = self._run_folders if owner.kind == "run" else self._model_folders
        folder = folders.get(owner.id)
        if folder is None:
            raise Unreachable(f"there is no {owner.kind} {owner.id}")
        beside = folder / "artifacts"
        meta = _read(folder)
        recorded = str(meta.get("artifact_uri") or meta.get("artifact_location") or "")
        return beside.as_uri() if beside.is_dir() and any(beside.iterdir()) else recorded or beside.as_uri()

    def _inputs(self, experiment: Path, run: Path) -> list[DatasetInput]:
        found = []
        for link in _metas(run / "inputs", "DATASET"):
            meta = _read(experiment / "datasets" / str(link["source_id"]))
            dataset = Dataset(
                name=str(meta["name"]),
                digest=str(meta["digest"]),
                source_type=str(meta["source_type"]),
                source=str(meta["source"]),
                schema=meta.get("schema"),
                profile=meta.get("profile"),
            )
            tags = {str(key): str(value) for key, value in (link.get("tags") or {}).items()}
            found.append(DatasetInput(dataset, tags))
        return found


def _read(folder: Path) -> dict[str, Any]:
    import yaml  # heavy: imported late

    file = folder / META
    try:
        if file.stat().st_size > META_BYTES_MAX:
            raise InvalidInput(f"{file} is larger than {META_BYTES_MAX} bytes", code="import.source_invalid")
        found = yaml.load(file.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", code="import.source_invalid") from error
    return found if isinstance(found, dict) else {}


def _metas(folder: Path, kind: str) -> list[dict[str, Any]]:
    metas = (_read(one) for one in _folders(folder) if (one / META).is_file())
    return [meta for meta in metas if meta.get("source_type") == kind]


def _folders(parent: Path) -> list[Path]:
    return sorted(one for one in parent.iterdir() if one.is_dir()) if parent.is_dir() else []


def _names(folder: Path) -> list[str]:
    # A key may hold slashes: then its file lies in folders of its own.
    files = (one for one in folder.rglob("*") if one.is_file()) if folder.is_dir() else ()
    return sorted(one.relative_to(folder).as_posix() for one in files)


def _texts(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text("utf-8") for name in _names(folder)}


def _value(words: list[str]) -> Value:
    return Value(int(words[0]), int(words[2]) if len(words) > 2 else 0, float(words[1]))


def _model_values(folder: Path, key: str) -> Iterator[ModelMetric]:
    for line in (folder / key).read_text("utf-8").splitlines():
        words = line.split(" ")
        if len(words) < 4:
            continue
        found = _value(words)
        yield ModelMetric(
            key=key,
            value=None if found.value != found.value else found.value,
            step=found.step,
            timestamp_ms=found.timestamp_ms,
            run_id=words[3],
            dataset_name=words[4] if len(words) > 5 else None,
            dataset_digest=words[5] if len(words) > 5 else None,
        )


def _stage(meta: dict[str, Any]) -> Stage:
    return "deleted" if meta.get("lifecycle_stage") == "deleted" else "active"
