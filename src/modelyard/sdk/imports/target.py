"""The side that an import writes to: the platform's API, with files checked by digest as they go in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from modelyard.kernel.errors import Conflict, EngineError, InvalidInput, TooLarge
from modelyard.sdk.client import Client
from modelyard.sdk.imports.source import Owner, Value
from modelyard.types.imports import (
    FinishImportedRun,
    FinishImportedRuns,
    ImportedContents,
    ImportedExperiment,
    ImportedLoggedModel,
    ImportedRun,
    ImportedTrace,
    ImportedVersion,
    ImportExperiment,
    ImportFilledRun,
    ImportLoggedModel,
    ImportModel,
    ImportRun,
    ImportRuns,
    ImportTraces,
    ImportVersion,
)
from modelyard.types.page import Page
from modelyard.types.registry import Model, ModelFile, ModelVersion, PromoteVersion
from modelyard.types.tracking import Artifact, LogBatch, LoggedModel, Point, Run

BATCH_POINTS = 20_000
SOURCE_TAG, STATE_TAG, COMPLETE = "modelyard.import.source", "modelyard.import.state", "complete"
LEFT_OUT_TAG = "modelyard.import.left_out"
PARAM_CHARACTERS_MAX, TAG_CHARACTERS_MAX = 6_000, 8_000
REFUSED = (InvalidInput, TooLarge, Conflict)
"""What is said of one thing that cannot come; all else ends the import."""


def cut(texts: Mapping[str, str], characters_max: int) -> dict[str, str]:
    """Texts as long as they may be here."""
    return {key: text[:characters_max] for key, text in texts.items()}


class Target:
    """A project of a server of ours."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def complete_runs(self, source: str) -> set[str]:
        """The ids of runs that earlier passes brought whole."""
        quoted = source.replace("'", "''")
        filter = f"tags.`{STATE_TAG}` = '{COMPLETE}' AND tags.`{SOURCE_TAG}` = '{quoted}'"
        found: set[str] = set()
        page: str | None = None
        while True:
            asked = {"filter": filter, "view": "all", "limit": 1_000, "page": page, "metric": ["-"]}
            answer = self._client.get("/api/runs", Page[Run], asked)
            found.update(run.id for run in answer.items)
            page = answer.next
            if page is None:
                return found

    def experiment(self, asked: ImportExperiment) -> ImportedExperiment:
        """The experiment here."""
        return self._client.post("/api/import/experiments", asked, ImportedExperiment)

    def run(self, asked: ImportRun) -> ImportedRun:
        """The run here, open for its points and files."""
        return self._client.post("/api/import/runs", asked, ImportedRun)

    def log(self, run_id: str, histories: Iterable[tuple[str, Iterable[Value]]]) -> None:
        """Add values of metrics to a run, many at once; those that are there stay once."""
        batch: list[Point] = []
        for key, values in histories:
            for time, step, value in values:
                batch.append(Point(key, None if math.isnan(value) else value, step, time))
                if len(batch) == BATCH_POINTS:
                    self._send(run_id, batch)
                    batch = []
        if batch:
            self._send(run_id, batch)

    def fill_runs(self, asked: Sequence[ImportFilledRun]) -> list[ImportedContents]:
        """Some runs with all their points, as they are here then."""
        return self._client.post("/api/import/filled-runs", ImportRuns(runs=list(asked)), list[ImportedContents])

    def finish_runs(self, asked: Mapping[str, FinishImportedRun]) -> None:
        """Say of some runs that they are whole."""
        self._client.post("/api/import/finished-runs", FinishImportedRuns(runs=dict(asked)))

    def finish(self, run_id: str, asked: FinishImportedRun) -> None:
        """Say that a run is whole."""
        self._client.post(f"/api/import/runs/{run_id}/finish", asked)

    def contents(self, run_id: str) -> ImportedContents:
        """A run as it is here, with a digest of each metric's points."""
        return self._client.get(f"/api/import/runs/{run_id}", ImportedContents)

    def traces(self, asked: ImportTraces) -> list[ImportedTrace]:
        """The traces here, each with a digest of its spans."""
        return self._client.post("/api/import/traces", asked, list[ImportedTrace])

    def model(self, asked: ImportLoggedModel) -> ImportedLoggedModel:
        """The logged model here."""
        return self._client.post("/api/import/logged-models", asked, ImportedLoggedModel)

    def read_model(self, model_id: str) -> LoggedModel:
        """A logged model as it is here."""
        return self._client.get(f"/api/logged-models/{model_id}", LoggedModel)

    def files(self, owner: Owner) -> dict[str, Artifact]:
        """All files of a run or a logged model, by path."""
        found = self._client.get(f"{_files_of(owner)}?tree=true", list[Artifact])
        return {one.path: one for one in found}

    def put(self, owner: Owner, path: str, pieces: Iterator[bytes]) -> tuple[int, str]:
        """Store a file. Returns its size and digest; raises EngineError where other bytes were stored than sent."""
        sent = _Counted(pieces)
        where = f"{_files_of(owner)}/{quote(path, safe='/')}"
        stored: Artifact = self._client.send_bytes("PUT", where, sent, type=Artifact)
        if (stored.size_bytes, stored.digest) != (sent.size_bytes, sent.hexdigest()):
            raise EngineError(f"'{path}' was not stored as it was sent", code="import.file_differs")
        return sent.size_bytes, sent.hexdigest()

    def put_loose(self, path: str, pieces: Iterator[bytes]) -> tuple[int, str]:
        """Store a file that belongs to no run and no model. Returns its size and digest."""
        sent = _Counted(pieces)
        self._client.send_bytes("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{quote(path, safe='/')}", sent)
        return sent.size_bytes, sent.hexdigest()

    def registered(self, asked: ImportModel) -> Model:
        """The registered model here."""
        return self._client.post("/api/import/models", asked, Model)

    def version(self, asked: ImportVersion) -> ImportedVersion:
        """The version here."""
        return self._client.post("/api/import/model-versions", asked, ImportedVersion)

    def version_files(self, name: str, version: int) -> Sequence[ModelFile]:
        """The files of a version, each with its digest."""
        return self._client.get(f"/api/models/{quote(name, safe='')}/versions/{version}/files", list[ModelFile])

    def promote(self, name: str, alias: str, version: int, reason: str) -> None:
        """Let an alias point to a version, through whatever gates there are."""
        asked = PromoteVersion(alias=alias, version=version, reason=reason)
        self._client.post(f"/api/models/{quote(name, safe='')}/promote", asked, ModelVersion)

    def _send(self, run_id: str, batch: list[Point]) -> None:
        self._client.post(f"/api/runs/{run_id}/log", LogBatch(metrics=batch))


class _Counted:
    """Pieces of a body, measured and digested as they pass."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            self.size_bytes += len(piece)
            yield piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _files_of(owner: Owner) -> str:
    if owner.kind == "version":
        raise Conflict("a version's files are taken from where they are", code="import.no_owner")
    return f"/api/{'runs' if owner.kind == 'run' else 'logged-models'}/{owner.id}/artifacts"
