"""What runs beside requests: endpoint processes kept as wanted, aliases followed, logged predictions taken in."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec

from modelyard.engines.compute.base import CommandSpec, ComputeEngine, Finished, Handle, Running
from modelyard.kernel.auth import ALL_PROJECTS, Scope, system_scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, EngineError, InvalidInput, ModelyardError, NotFound
from modelyard.kernel.event import Event
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import Lease
from modelyard.kernel.paths import make_private
from modelyard.planes.data import Data
from modelyard.planes.serving import store
from modelyard.planes.serving.decisions import (
    Decision,
    Life,
    Seen,
    Step,
    backoff_s,
    decide,
    restarts_after,
    state_of,
)
from modelyard.planes.serving.log_table import groups, to_table
from modelyard.planes.serving.ports import Versions
from modelyard.planes.serving.segments import Segment, closed_segments, has_segments, read_segment
from modelyard.planes.serving.store import EndpointRow
from modelyard.types.serving import EndpointConfig, EndpointStatus, Variant, VariantConfig

SWITCHED = "endpoint.switched"
STOPPED = "endpoint.stopped"
DATASET_PREFIX = "predictions."
STOP_GRACE_S = 20.0
RUNS_KEPT = 3
SEGMENTS_AT_ONCE = 20
DAMAGED_FOLDER = "damaged_predictions"
_ENDPOINT = (sys.executable, "-m", "modelyard.endpoint")
ERROR_TAIL_BYTES = 1_500


def home_of(directory: Path, project: str, name: str) -> Path:
    """The directory of one endpoint: its configuration, models, log and runs."""
    return directory / project / name


class EndpointReconciler:
    """Brings each endpoint's process from what it is to what is wanted. A process outlives the server and is found
    again by the directory that it was started in."""

    name = "serving.endpoint"

    def __init__(self, database: Database, versions: Versions, compute: ComputeEngine, directory: Path) -> None:
        self._database = database
        self._versions = versions
        self._compute = compute
        self._directory = directory

    def due(self, now: datetime) -> Sequence[str]:
        with self._database.reading(system_scope(ALL_PROJECTS)) as tx:
            rows = store.everywhere(tx)
        return [row.key for row in rows if self._is_due(row, now)]

    def _is_due(self, row: EndpointRow, now: datetime) -> bool:
        try:
            return decide(row, self._look(row), now).step is not Step.WAIT
        except EngineError:
            # `act` meets it again, says so and backs off; the other endpoints must not wait for this one.
            return True

    def act(self, key: str, lease: Lease) -> None:
        project, _, name = key.partition("/")
        scope = system_scope(project)
        try:
            with self._database.reading(scope) as tx:
                row = store.find(tx, name)
        except NotFound:
            return
        try:
            seen = self._look(row)
            decision = decide(row, seen, self._database.clock.now())
            self._carry_out(scope, row, seen, decision, lease)
        except Conflict:
            # Somebody changed the endpoint, or took the lease, in the meantime: look again, nothing is wrong.
            raise
        except ModelyardError as error:
            with self._database.transaction(scope, lease=lease) as tx:
                state = "failed" if not row.serving else row.state
                store.update(tx, store.find(tx, name), error=str(error), state=state, updated_at=tx.now)
            raise

    def _carry_out(self, scope: Scope, row: EndpointRow, seen: Seen, decision: Decision, lease: Lease) -> None:
        match decision.step:
            case Step.WRITE:
                self._write(scope, row, lease)
            case Step.START:
                self._start(scope, row, lease)
            case Step.STOP:
                self._stop(scope, row, decision.reason, lease)
            case Step.FORGET:
                self._forget(scope, row, decision.reason, lease)
            case Step.OBSERVE:
                assert seen.status is not None
                self._observe(scope, row, seen.status, lease)
            case Step.REMOVE:
                shutil.rmtree(self._home(row), ignore_errors=True)
                with self._database.transaction(scope, lease=lease) as tx:
                    store.remove(tx, row)

    # --- looking ------------------------------------------------------------------------------------------------

    def _home(self, row: EndpointRow) -> Path:
        return home_of(self._directory, row.project, row.name)

    def _run_directory(self, row: EndpointRow, attempt: int) -> Path:
        return self._home(row) / "runs" / str(attempt)

    def _handle(self, row: EndpointRow) -> Handle | None:
        """The process that was started, also where the server died before it could note it."""
        if not row.launched:
            return None
        return row.handle or self._compute.find(str(self._run_directory(row, row.attempt)))

    def _look(self, row: EndpointRow) -> Seen:
        waiting = row.deleting and has_segments(self._home(row) / "log")
        handle = self._handle(row)
        if handle is None:
            return Seen(life=Life.NONE, waiting_segments=waiting)
        found = self._compute.poll(handle)
        if isinstance(found, Running):
            return Seen(life=Life.RUNNING, status=self._status(row), waiting_segments=waiting)
        return Seen(life=Life.ENDED, why=_why(found), waiting_segments=waiting)

    def _status(self, row: EndpointRow) -> EndpointStatus | None:
        try:
            return msgspec.json.decode((self._home(row) / "status.json").read_bytes(), type=EndpointStatus)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise EngineError(f"the status file of endpoint '{row.name}' is damaged: {error}") from error

    # --- steps --------------------------------------------------------------------------------------------------

    def _write(self, scope: Scope, row: EndpointRow, lease: Lease) -> None:
        """Lay out the files of all variants, then tell the process by its configuration file."""
        home = make_private(self._home(row))
        variants = [self._lay_out(scope, home, variant) for variant in row.variants]
        config = EndpointConfig(
            revision=row.revision, endpoint=row.name, project=row.project, variants=variants, host=row.host,
            options=row.options,
        )  # fmt: skip
        _replace(home / "config.json", msgspec.json.format(msgspec.json.encode(config), indent=2))
        with self._database.transaction(scope, lease=lease) as tx:
            store.update(tx, row, written_revision=row.revision, updated_at=tx.now)

    def _lay_out(self, scope: Scope, home: Path, variant: Variant) -> VariantConfig:
        folder = model_folder(variant)
        target = home / folder
        version = self._versions.resolve(scope, variant.model, variant.version)
        if version.digest != variant.digest:
            raise EngineError(
                f"model '{variant.model}' version {variant.version} is {version.digest[:12]} now, but "
                f"{variant.digest[:12]} was to be served",
                code="endpoint.digest_changed",
            )
        if not target.exists():
            partial = make_private(home / "incoming") / new_id()
            self._versions.materialize(scope, variant.model, variant.version, partial)
            make_private(target.parent)
            partial.rename(target)
        return VariantConfig(
            name=variant.name, model=variant.model, version=variant.version, digest=variant.digest,
            directory=folder, weight=variant.weight, trusted=version.trusted,
        )  # fmt: skip

    def _start(self, scope: Scope, row: EndpointRow, lease: Lease) -> None:
        attempt = row.attempt + 1
        with self._database.transaction(scope, lease=lease) as tx:
            store.update(
                tx, row, attempt=attempt, launched=True, handle=None, stopping=False, started_at=tx.now,
                state="starting", updated_at=tx.now,
            )  # fmt: skip
        home = self._home(row)
        # What the last process said of itself must not be taken for the word of this one.
        (home / "status.json").unlink(missing_ok=True)
        for old in range(max(attempt - RUNS_KEPT - 5, 1), attempt - RUNS_KEPT + 1):
            shutil.rmtree(self._run_directory(row, old), ignore_errors=True)
        handle = self._compute.start(
            CommandSpec(
                directory=str(self._run_directory(row, attempt)),
                argv=[*_ENDPOINT, "--config", str(home / "config.json"), "--port", str(row.port)],
                env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                cwd=str(home),
                grace_s=STOP_GRACE_S,
            )
        )
        with self._database.transaction(scope, lease=lease) as tx:
            store.update(tx, store.find(tx, row.name), handle=handle)
            tx.event("endpoint.started", f"endpoint:{row.name}", {"attempt": attempt, "revision": row.revision})

    def _stop(self, scope: Scope, row: EndpointRow, reason: str, lease: Lease) -> None:
        handle = self._handle(row)
        if handle is not None:
            self._compute.stop(handle, STOP_GRACE_S)
        with self._database.transaction(scope, lease=lease) as tx:
            store.update(tx, row, stopping=True, error="" if not row.running else reason, updated_at=tx.now)

    def _forget(self, scope: Scope, row: EndpointRow, why: str, lease: Lease) -> None:
        handle = self._handle(row)
        usage: dict[str, Any] = {}
        if handle is not None:
            usage = msgspec.to_builtins(self._compute.poll(handle).usage)
            why = self._with_last_words(handle, why)
        about = {"attempt": row.attempt, "why": why, "usage": usage}
        gone: dict[str, Any] = {"launched": False, "handle": None, "stopping": False, "pid": 0}
        with self._database.transaction(scope, lease=lease) as tx:
            if row.running and not row.deleting:
                restarts = restarts_after(row, tx.now)
                gone |= {"restarts": restarts, "next_start_at": tx.now + timedelta(seconds=backoff_s(restarts - 1))}
                gone |= {"state": "starting" if row.serving else "failed", "error": why}
                tx.event("endpoint.died", f"endpoint:{row.name}", {**about, "restarts": restarts})
            else:
                gone |= {"state": "deleting" if row.deleting else "stopped", "serving": [], "error": ""}
                gone["observed_revision"] = 0
                tx.event(STOPPED, f"endpoint:{row.name}", {**about, "revision": row.observed_revision, "variants": []})
            store.update(tx, row, **gone, updated_at=tx.now)

    def _with_last_words(self, handle: Handle, why: str) -> str:
        tail = self._compute.read_log(handle, -ERROR_TAIL_BYTES, ERROR_TAIL_BYTES).content.decode("utf-8", "replace")
        last = tail.strip().splitlines()[-1:] or [""]
        return f"{why}: {last[0][-400:]}" if last[0] else why

    def _observe(self, scope: Scope, row: EndpointRow, status: EndpointStatus, lease: Lease) -> None:
        values: dict[str, Any] = {
            "pid": status.pid, "port": status.port, "state": state_of(status),
            "failed_revision": status.failed_revision, "error": status.error,
        }  # fmt: skip
        with self._database.transaction(scope, lease=lease) as tx:
            if status.revision and status.revision != row.observed_revision:
                values |= self._note_switch(tx, row, status.revision)
            if status.failed_revision and status.failed_revision != row.failed_revision:
                about = {"revision": status.failed_revision, "error": status.error}
                tx.event("endpoint.switch_failed", f"endpoint:{row.name}", about)
            store.update(tx, row, **values, updated_at=tx.now)
        if "serving" in values:
            self._remove_unused(row, values["serving"])

    def _note_switch(self, tx: Transaction, row: EndpointRow, revision: int) -> dict[str, Any]:
        meant = store.revision_of(tx, row, revision)
        about = {
            "revision": revision,
            "variants": msgspec.to_builtins(meant.variants),
            "previous": msgspec.to_builtins(row.serving),
            "by": meant.by,
            "reason": meant.reason,
        }
        tx.event(SWITCHED, f"endpoint:{row.name}", about)
        for variant in meant.variants:
            if variant.weight > 0:
                tx.link(f"endpoint:{row.name}", "serves", variant.urn)
        return {"observed_revision": revision, "serving": meant.variants}

    def _remove_unused(self, row: EndpointRow, serving: Sequence[Variant]) -> None:
        """Remove model files that neither what is served nor what is wanted needs."""
        needed = {Path(model_folder(one)).name for one in (*serving, *row.variants)}
        models = self._home(row) / "models"
        for folder in models.iterdir() if models.is_dir() else ():
            if folder.name not in needed:
                shutil.rmtree(folder, ignore_errors=True)


def model_folder(variant: Variant) -> str:
    """Where the files of a version lie below an endpoint's directory; equal only for equal bytes."""
    name = hashlib.sha256(variant.model.encode()).hexdigest()[:12]
    return f"models/{name}-{variant.version}-{variant.digest.removeprefix('sha256:')[:32]}"


def _why(found: Finished | Any) -> str:
    if not isinstance(found, Finished):
        return f"its process is gone: {found.reason}"
    if found.signal is not None:
        return f"its process was ended by signal {found.signal}"
    if found.exit_code is None:
        return f"its process could not be started: {found.message}"
    return f"its process ended with status {found.exit_code}"


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".new")
    partial.touch(0o600)
    partial.write_bytes(content)
    partial.rename(path)


class Follow(Protocol):
    """Resolve the aliases of an endpoint anew."""

    def __call__(self, scope: Scope, name: str, reason: str) -> object: ...


class AliasFollower:
    """Gives an endpoint a new revision when an alias that it follows has moved."""

    name = "serving.alias_follower"
    kinds = frozenset({"model.alias_moved"})

    def __init__(
        self, database: Database, follow: Follow, refuse: Callable[[Scope, str, ModelyardError], None]
    ) -> None:
        self._database = database
        self._follow = follow
        self._refuse = refuse

    def handle(self, event: Event) -> None:
        model, alias = event.data.get("model"), event.data.get("alias")
        scope = system_scope(event.project)
        with self._database.reading(scope) as tx:
            rows = store.following(tx, str(model))
        for row in rows:
            if not any(spec.alias == alias for spec in row.specs):
                continue
            try:
                self._follow(scope, row.name, f"alias '{alias}' of model '{model}' moved, by {event.actor}")
            except ModelyardError as error:
                if error.code == "stale" or error.status >= 500:
                    raise
                # What cannot be served is said, and what is served goes on; the event is done with.
                self._refuse(scope, row.name, error)


class PredictionIngest:
    """Takes closed segments of the prediction logs into the datasets `predictions.<endpoint>`, each exactly once: a
    segment's id is the idempotency key of its write, and its file goes only when the write is done."""

    name = "serving.predictions"

    def __init__(self, database: Database, data: Data, directory: Path) -> None:
        self._database = database
        self._data = data
        self._directory = directory

    def due(self, now: datetime) -> Sequence[str]:  # noqa: ARG002  segments are due when they are there
        with self._database.reading(system_scope(ALL_PROJECTS)) as tx:
            rows = store.everywhere(tx)
        return [row.key for row in rows if closed_segments(home_of(self._directory, row.project, row.name) / "log")]

    def act(self, key: str, lease: Lease) -> None:
        project, _, name = key.partition("/")
        scope = system_scope(project)
        written = 0
        for path in closed_segments(home_of(self._directory, project, name) / "log")[:SEGMENTS_AT_ONCE]:
            segment = read_segment(path)
            try:
                written += self._take_in(scope, name, path.stem, segment)
            except InvalidInput as error:
                # What no table can hold would block all that comes after it.
                segment = Segment(segment.records, str(error))
            if segment.problem:
                self._set_aside(scope, name, path, segment.problem, lease)
            else:
                path.unlink(missing_ok=True)
        if written:
            rows = self._data.get(scope, DATASET_PREFIX + name).rows
            with self._database.transaction(scope, lease=lease) as tx:
                store.note_rows(tx, name, rows)

    def _take_in(self, scope: Scope, name: str, segment_id: str, segment: Segment) -> int:
        number = 0
        for number, group in enumerate(groups(segment.records), 1):
            self._data.write(
                scope,
                DATASET_PREFIX + name,
                to_table(group),
                idempotency_key=f"{segment_id}-{number}",
                source=f"endpoint:{name}",
                evolve=True,
                create=True,
            )
        return number

    def _set_aside(self, scope: Scope, name: str, path: Path, problem: str, lease: Lease) -> None:
        # Beside the endpoints, so that it stays for a look when the endpoint is deleted.
        kept = make_private(self._directory.parent / DAMAGED_FOLDER / scope.project / name) / path.name
        path.rename(kept)
        with self._database.transaction(scope, lease=lease) as tx:
            about = {"segment": path.stem, "problem": problem, "kept": str(kept)}
            tx.event("endpoint.segment_damaged", f"endpoint:{name}", about)
