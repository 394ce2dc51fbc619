"""A running MLflow server, read over its REST API."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast
from urllib.parse import quote, urlsplit, urlunsplit

import httpx

from modelyard.kernel.errors import InvalidInput, Unavailable
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

API = "/api/2.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
PAGE = 1_000
HISTORY_PAGE = 25_000
TIMEOUT_S = 120.0
ATTEMPTS = 4
_NOT_OFFERED = (404, 405, 501)
_PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"
_MODEL_STATUS: dict[str, ModelStatus] = {
    "LOGGED_MODEL_PENDING": "PENDING", "LOGGED_MODEL_READY": "READY", "LOGGED_MODEL_UPLOAD_FAILED": "FAILED",
}  # fmt: skip


class MlflowServer:
    """The server at a URL; `token` is a bearer token, where it asks for one."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        # What is kept, shown and compared has no password in it.
        place = parts.netloc.rpartition("@")[2]
        self.uri = f"mlflow:{urlunsplit((parts.scheme, place, parts.path.rstrip('/'), '', ''))}"
        self.unreadable: Sequence[str] = ()
        self.one_at_a_time = False
        auth = httpx.BasicAuth(parts.username, parts.password or "") if parts.username else None
        self._http = httpx.Client(
            base_url=self.uri.removeprefix("mlflow:"),
            auth=auth,
            headers={"Authorization": f"Bearer {token}"} if token and auth is None else {},
            timeout=TIMEOUT_S,
            transport=httpx.HTTPTransport(retries=2),
        )

    def experiments(self) -> Iterable[SourceExperiment]:
        asked = {"max_results": PAGE, "view_type": "ALL", "order_by": ["experiment_id ASC"]}
        for one in self._pages("POST", f"{API}/experiments/search", asked, "experiments"):
            yield SourceExperiment(
                id=str(one["experiment_id"]),
                name=one["name"],
                stage=_stage(one),
                created_at=instant(int(one["creation_time"])) if one.get("creation_time") else None,
                updated_at=instant(int(one["last_update_time"])) if one.get("last_update_time") else None,
                tags=_pairs(one.get("tags")),
            )

    def runs(self, experiment_id: str) -> Iterable[SourceRun]:
        asked = {
            "experiment_ids": [experiment_id],
            "run_view_type": "ALL",
            "max_results": PAGE,
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
        }
        for one in self._pages("POST", f"{API}/runs/search", asked, "runs"):
            yield _run(one)

    def history(self, run_id: str, key: str) -> Sequence[Value]:
        asked = {"run_id": run_id, "metric_key": key, "max_results": HISTORY_PAGE}
        return [
            Value(int(one.get("timestamp", 0)), int(one.get("step", 0)), float(one.get("value", 0.0)))
            for one in self._pages("GET", f"{API}/metrics/get-history", asked, "metrics")
        ]

    def models(self, experiment_id: str) -> Iterable[SourceModel]:
        asked = {"experiment_ids": [experiment_id], "max_results": 50}
        for one in self._pages("POST", f"{API}/logged-models/search", asked, "models", optional=True):
            yield _model(one)

    def registered(self) -> Iterable[SourceRegistered]:
        for filter in ("", _PROMPTS):
            asked = {"max_results": PAGE, "filter": filter, "order_by": ["name ASC"]}
            for one in self._pages("GET", f"{API}/registered-models/search", asked, "registered_models"):
                yield SourceRegistered(
                    name=one["name"],
                    description=one.get("description") or "",
                    tags=_pairs(one.get("tags")),
                    aliases={alias["alias"]: int(alias["version"]) for alias in one.get("aliases", ())},
                    created_at=instant(int(one["creation_timestamp"])),
                    updated_at=instant(int(one["last_updated_timestamp"])),
                )

    def versions(self, name: str) -> Iterable[SourceVersion]:
        quoted = f'name = "{name}"' if "'" in name else f"name = '{name}'"
        found: dict[int, SourceVersion] = {}
        for filter in (quoted, f"{quoted} AND {_PROMPTS}"):
            asked = {"max_results": PAGE, "filter": filter, "order_by": ["version_number ASC"]}
            for one in self._pages("GET", f"{API}/model-versions/search", asked, "model_versions"):
                version = _version(one)
                found[version.version] = version
        return [found[number] for number in sorted(found)]

    def files(self, owner: Owner) -> Sequence[SourceFile]:
        if owner.kind == "version":
            raise Unreachable("the server does not list files of a version that lie at a place of their own")
        found: list[SourceFile] = []
        waiting = [""]
        while waiting:
            for one in self._listed(owner, waiting.pop()):
                if one.get("is_dir"):
                    waiting.append(one["path"])
                else:
                    found.append(SourceFile(one["path"], int(one["file_size"]) if "file_size" in one else None))
        return sorted(found, key=lambda file: file.path)

    def open(self, owner: Owner, path: str) -> AbstractContextManager[Iterator[bytes]]:
        if owner.kind == "run":
            return self._stream("/get-artifact", {"run_uuid": owner.id, "path": path})
        return self._stream(f"{AJAX}/logged-models/{owner.id}/artifacts/files", {"artifact_file_path": path})

    def close(self) -> None:
        self._http.close()

    def _listed(self, owner: Owner, path: str) -> Iterable[dict[str, Any]]:
        if owner.kind == "run":
            address, asked = f"{API}/artifacts/list", {"run_id": owner.id, "path": path}
        else:
            address = f"{API}/logged-models/{quote(owner.id)}/artifacts/directories"
            asked = {"artifact_directory_path": path}
        try:
            yield from self._pages("GET", address, {key: value for key, value in asked.items() if value}, "files")
        except InvalidInput as error:
            raise Unreachable(error.message) from error

    def _pages(
        self, method: str, path: str, asked: Mapping[str, Any], name: str, *, optional: bool = False
    ) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            found = self._ask(method, path, {**asked, **({"page_token": token} if token else {})}, optional)
            yield from found.get(name, ())
            token = found.get("next_page_token") or ""
            if not token:
                return

    def _ask(self, method: str, path: str, asked: Mapping[str, Any], optional: bool) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                reply = (
                    self._http.post(path, json=dict(asked))
                    if method == "POST"
                    else self._http.get(path, params=dict(asked))
                )
            except httpx.TransportError as error:
                if attempt == ATTEMPTS:
                    raise self._away(error) from error
                continue
            if reply.status_code < 500 or reply.status_code == 501 or attempt == ATTEMPTS:
                break
        if optional and reply.status_code in _NOT_OFFERED:
            return {}
        if reply.status_code != 200:
            raise InvalidInput(
                f"{self.uri.removeprefix('mlflow:')}{path} answers {reply.status_code}: {reply.text[:300]}",
                code="import.source_refused",
                hint="check the address, and the token (--token) if it asks for one",
            )
        # Python's own decoder knows bare NaN, which some releases send.
        return cast(dict[str, Any], json.loads(reply.content or b"{}"))

    @contextmanager
    def _stream(self, path: str, asked: Mapping[str, str]) -> Iterator[Iterator[bytes]]:
        try:
            with self._http.stream("GET", path, params=dict(asked)) as reply:
                if reply.status_code != 200:
                    reply.read()
                    raise Unreachable(f"the server answers {reply.status_code}: {reply.text[:200]}")
                yield reply.iter_bytes(1024 * 1024)
        except httpx.TransportError as error:
            raise self._away(error) from error

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(
            f"{self.uri.removeprefix('mlflow:')} does not answer: {error}",
            code="import.source_away",
            hint="run the same command again to go on from here",
        )


def _run(one: dict[str, Any]) -> SourceRun:
    info, data = one["info"], one.get("data", {})
    inputs, outputs = one.get("inputs", {}), one.get("outputs", {})
    tags = _pairs(data.get("tags"))
    return SourceRun(
        id=info.get("run_id") or info["run_uuid"],
        name=info.get("run_name") or tags.get("mlflow.runName", "") or info["run_id"][:8],
        started_at=instant(int(info.get("start_time", 0))),
        ended_at=instant(int(info["end_time"])) if info.get("end_time") else None,
        user=info.get("user_id") or "",
        status=cast(RunStatus, info.get("status", "FINISHED")),
        stage=_stage(info),
        params=_pairs(data.get("params")),
        tags=tags,
        metrics=tuple(sorted(metric["key"] for metric in data.get("metrics", ()))),
        inputs=[
            DatasetInput(
                Dataset(
                    name=found["dataset"]["name"],
                    digest=found["dataset"]["digest"],
                    source_type=found["dataset"].get("source_type", ""),
                    source=found["dataset"].get("source", ""),
                    schema=found["dataset"].get("schema"),
                    profile=found["dataset"].get("profile"),
                ),
                _pairs(found.get("tags")),
            )
            for found in inputs.get("dataset_inputs", ())
        ],
        model_inputs=[found["model_id"] for found in inputs.get("model_inputs", ())],
        model_outputs=[
            ModelOutput(found["model_id"], int(found.get("step", 0))) for found in outputs.get("model_outputs", ())
        ],
    )


def _model(one: dict[str, Any]) -> SourceModel:
    info, data = one["info"], one.get("data", {})
    return SourceModel(
        id=info["model_id"],
        name=info.get("name") or info["model_id"],
        status=_MODEL_STATUS.get(info.get("status", ""), "PENDING"),
        created_at=instant(int(info["creation_timestamp_ms"])),
        updated_at=instant(int(info["last_updated_timestamp_ms"])),
        model_type=info.get("model_type") or "",
        source_run_id=info.get("source_run_id") or "",
        params=_pairs(data.get("params")),
        tags=_pairs(info.get("tags")),
        metrics=[
            ModelMetric(
                key=found["key"],
                value=None if math.isnan(value := float(found.get("value", 0.0))) else value,
                step=int(found.get("step", 0)),
                timestamp_ms=int(found.get("timestamp", 0)),
                run_id=found.get("run_id", ""),
                dataset_name=found.get("dataset_name") or None,
                dataset_digest=found.get("dataset_digest") or None,
            )
            for found in data.get("metrics", ())
        ],
    )


def _version(one: dict[str, Any]) -> SourceVersion:
    return SourceVersion(
        version=int(one["version"]),
        source=one.get("source", ""),
        created_at=instant(int(one["creation_timestamp"])),
        updated_at=instant(int(one["last_updated_timestamp"])),
        run=one.get("run_id", ""),
        logged_model=one.get("model_id", ""),
        description=one.get("description") or "",
        stage=one.get("current_stage") or "None",
        tags=_pairs(one.get("tags")),
    )


def _pairs(found: Iterable[dict[str, Any]] | None) -> dict[str, str]:
    return {one["key"]: one.get("value") or "" for one in found or ()}


def _stage(one: dict[str, Any]) -> Stage:
    return "deleted" if one.get("lifecycle_stage") == "deleted" else "active"
