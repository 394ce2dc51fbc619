"""Write-audit-publish: how a batch becomes a version, and how a publication that was cut off is carried to its end.

The order, and what a crash after each step leaves:

1. files are written aside        -> nothing refers to them; the sweep removes them
2. checks run over them           -> the same
3. the catalog records the plan   -> the next writer, reader of pending work or start carries it out: one new version
4. the table's log gets the entry -> the same; the entry names the write, so it is not made twice
5. the catalog gets the version   -> done; event and lineage are in that same commit

Steps 3 to 5 happen under the table's lock, which the kernel releases when its holder dies. So a plan that is seen
under the lock belongs to a writer that is gone. Readers only know versions of step 5.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from modelyard.engines.tables.base import Commit, DataFile, StagedFile, TableStore
from modelyard.kernel.auth import Principal, Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import ModelyardError
from modelyard.planes.data import file_profiles, file_states, manifests, store
from modelyard.planes.data.anomaly_rules import Measure
from modelyard.planes.data.derivation import Derived, record_derivation
from modelyard.planes.data.file_profiles import FileProfile
from modelyard.planes.data.file_states import FileStates
from modelyard.planes.data.guards import record_write
from modelyard.planes.data.manifests import Manifest, Part
from modelyard.planes.data.schemas import replaced_columns
from modelyard.planes.data.states import State, schema_from, schema_text
from modelyard.types.data import CheckReport, Column, Dataset, DatasetVersion
from modelyard.types.profiles import Anomaly

if TYPE_CHECKING:
    import pyarrow as pa

JOB_PREFIX = "job:"
_VERSION_URN = re.compile(r"dataset:[A-Za-z0-9._-]{1,128}@[1-9][0-9]{0,8}")
NO_REPORT = CheckReport(passed=True, rows=0, results=[])


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that steps 4 and 5 need, as the catalog keeps it.

    `makes`: a `version`; or a `layout`, the same version in other files; or a `merge`, by which the branch `into`
    names a version that there is. `logged`: whether it concerns `main`, which the table's log follows.
    """

    version: DatasetVersion
    base_table_version: int | None
    schema: str
    files: list[dict[str, Any]] = []
    remove: list[DataFile] = []
    add: list[DataFile] = []
    partition_by: list[str] = []
    schema_changed: bool = False
    logged: bool = True
    makes: Literal["version", "layout", "merge"] = "version"
    into: str = store.MAIN
    into_before: int = 0
    parts: list[Part] = []
    manifests: list[Manifest] = []
    measure: Measure | None = None
    anomalies: list[Anomaly] = []
    derived: list[Derived] = []
    profiles: list[FileProfile] = []
    states: list[FileStates] = []

    def commit(self, write_id: str) -> Commit:
        """What the table's log shall get."""
        return Commit(
            write_id=write_id,
            mode="optimize" if self.makes == "layout" else self.makes if self.makes == "merge" else self.version.mode,
            files=self.staged,
            schema=schema_from(self.schema),
            base_version=self.base_table_version,
            remove=tuple(self.remove),
            add=tuple(self.add),
            partition_by=tuple(self.partition_by),
            schema_changed=self.schema_changed,
            changes_rows=self.makes != "layout",
        )

    @property
    def staged(self) -> tuple[StagedFile, ...]:
        """The files that are still aside, or were until a crash."""
        return tuple(StagedFile(**file) for file in self.files)


def make_plan(
    version: DatasetVersion,
    state: State,
    schema: pa.Schema,
    *,
    dataset: Dataset,
    files: Sequence[StagedFile] = (),
    removed: Sequence[DataFile] = (),
    added: Sequence[DataFile] = (),
    makes: Literal["version", "layout"] = "version",
    measure: Measure | None = None,
    anomalies: Sequence[Anomaly] = (),
    derived: Sequence[Derived] = (),
    profiles: Sequence[FileProfile] = (),
    states: Sequence[FileStates] = (),
    logged: bool | None = None,
) -> Plan:
    """The plan that turns a state into a version: some files go, staged and known ones come."""
    on_main = version.branch == store.MAIN if makes == "version" else dataset.latest == version.version
    arranged = state.arranged(frozenset(one.name for one in removed), [*added, *(one.as_held for one in files)])
    return Plan(
        version=version,
        base_table_version=state.table_version,
        schema=schema_text(schema),
        files=[msgspec.to_builtins(file) for file in files],
        remove=list(removed),
        add=list(added),
        partition_by=dataset.partition_by,
        schema_changed=state.schema is not None and state.schema != schema,
        logged=on_main if logged is None else logged,
        makes=makes,
        parts=arranged.parts,
        manifests=arranged.new,
        measure=measure,
        anomalies=list(anomalies),
        derived=list(derived),
        profiles=list(profiles),
        states=list(states),
    )


class Publisher:
    """Carries plans out. All of its methods expect the table's lock to be held."""

    def __init__(self, database: Database, tables: TableStore) -> None:
        self._database = database
        self._tables = tables

    def publish(
        self, scope: Scope, dataset: store.DatasetRow, write_id: str, plan: Plan, idempotency_key: str | None
    ) -> int:
        """Steps 3 to 5. Returns the new version's number. When it raises, either nothing is left of the write, or
        (where the log has it and the catalog could not be written) the plan stays, to be carried out."""
        dataset.require("table")
        with self._database.transaction(scope) as tx:
            mode = plan.version.mode if plan.makes == "version" else plan.makes
            values = _write_values(dataset, write_id, store.PUBLISHING, mode, plan.version.rows_written)
            store.insert_write(
                tx,
                {
                    **values,
                    "idempotency_key": idempotency_key,
                    "columns": plan.version.columns,
                    "report": plan.version.report or NO_REPORT,
                    "version": plan.version.version,
                    "plan": plan,
                    "source": plan.version.source,
                    "created_at": tx.now,
                    "created_by": tx.actor,
                },
            )
        return self._carry_out(scope, dataset, write_id, plan)

    def quarantine(
        self,
        scope: Scope,
        dataset: store.DatasetRow,
        write_id: str,
        *,
        mode: str,
        rows: int,
        columns: list[Column],
        report: CheckReport,
        source: str,
        idempotency_key: str | None,
    ) -> None:
        """Record that a staged batch was turned down; its files stay aside."""
        with self._database.transaction(scope) as tx:
            store.insert_write(
                tx,
                {
                    **_write_values(dataset, write_id, store.QUARANTINED, mode, rows),
                    "idempotency_key": idempotency_key,
                    "columns": columns,
                    "report": report,
                    "version": None,
                    "plan": None,
                    "source": source,
                    "created_at": tx.now,
                    "created_by": tx.actor,
                },
            )
            failed = [found.name for found in report.failed if found.severity == "block"]
            tx.event(
                "dataset.batch_quarantined",
                f"dataset:{dataset.noun.name}",
                {"quarantine_id": write_id, "rows": rows, "failed_checks": failed[:50]},
            )

    def recover(self, scope: Scope, dataset: store.DatasetRow) -> int:
        """Carry out what writers that are gone had planned. Returns how many publications that were."""
        with self._database.reading(scope) as tx:
            pending = store.writes_of(tx, dataset.id, store.PUBLISHING, 100)
        for row in pending:
            owner = Scope(row.project, Principal(row.created_by))
            self._carry_out(owner, dataset, row.id, msgspec.convert(row.plan, Plan))
        return len(pending)

    def _carry_out(self, scope: Scope, dataset: store.DatasetRow, write_id: str, plan: Plan) -> int:
        commit = plan.commit(write_id)
        table_version = plan.version.table_version
        try:
            if plan.logged:
                table_version = self._tables.commit(dataset.location, commit)
            else:
                self._tables.place(dataset.location, write_id, commit.files)
        except (ModelyardError, OSError):
            if not plan.logged or self._tables.committed(dataset.location, write_id, plan.base_table_version) is None:
                with self._database.transaction(scope) as tx:
                    store.delete_write(tx, write_id)
                self._tables.withdraw(dataset.location, commit)
            raise
        with self._database.transaction(scope) as tx:
            self._record(tx, dataset, write_id, plan, table_version)
        return plan.version.version

    def _record(
        self, tx: Transaction, dataset: store.DatasetRow, write_id: str, plan: Plan, table_version: int | None
    ) -> None:
        manifests.insert(tx, dataset.id, plan.manifests)
        file_profiles.keep(tx, dataset.id, plan.profiles)
        file_states.keep(tx, dataset.id, plan.states)
        if plan.makes == "version":
            self._record_version(tx, dataset, write_id, plan, table_version)
        else:
            self._record_move(tx, dataset, plan, table_version)
        store.finish_write(tx, write_id, store.PUBLISHED)

    def _record_version(
        self, tx: Transaction, dataset: store.DatasetRow, write_id: str, plan: Plan, table_version: int | None
    ) -> None:
        version = msgspec.structs.replace(plan.version, table_version=table_version)
        digest = manifests.insert_schema(tx, dataset.id, plan.schema)
        store.insert_version(tx, dataset.id, version, parts=plan.parts, schema_digest=digest, write_id=write_id)
        store.advance(tx, dataset.id, version)
        replaced = replaced_columns(version.report)
        tx.event(
            "dataset.version_published" if version.branch == store.MAIN else "dataset.branch_written",
            version.urn,
            {
                "dataset": version.dataset,
                "version": version.version,
                "branch": version.branch,
                "mode": version.mode,
                "rows": version.rows,
                "rows_written": version.rows_written,
                "source": version.source,
                **({"schema_replaced": replaced} if replaced else {}),
            },
        )
        if version.parent and version.mode != "overwrite":
            tx.link(version.urn, "derived", f"dataset:{version.dataset}@{version.parent}")
        if _VERSION_URN.fullmatch(version.source) and version.source != version.urn:
            tx.link(version.urn, "derived", version.source)
        if tx.actor.startswith(JOB_PREFIX):
            tx.link(tx.actor, "produced", version.urn)
        record_derivation(tx, version, plan.derived)
        if version.branch == store.MAIN:
            record_write(tx, dataset.id, version, plan.measure, plan.anomalies)

    def _record_move(self, tx: Transaction, dataset: store.DatasetRow, plan: Plan, table_version: int | None) -> None:
        version = plan.version
        values: dict[str, Any] = {"table_version": table_version} if plan.logged else {}
        if plan.makes == "layout":
            digest = manifests.insert_schema(tx, dataset.id, plan.schema)
            values |= {"parts": plan.parts, "schema_digest": digest, "size_bytes": version.size_bytes}
            if plan.logged:
                store.update_dataset(tx, dataset.id, {"size_bytes": version.size_bytes})
            said = {"version": version.version, "files_before": len(plan.remove), "files_after": len(plan.files)}
            tx.event("dataset.compacted", version.urn, said)
        else:
            store.move(tx, dataset.id, version, plan.into, plan.into_before, "merge")
            merged = {"branch": version.branch, "into": plan.into}
            tx.event("dataset.merged", version.urn, {**merged, "version": version.version, "before": plan.into_before})
            if plan.into == store.MAIN:
                published = {"dataset": version.dataset, "version": version.version, "branch": plan.into}
                counts = {"mode": "merge", "rows": version.rows, "rows_written": 0, "source": version.source}
                tx.event("dataset.version_published", version.urn, {**published, **counts})
        if values:
            store.update_version(tx, dataset.id, version.version, values)


def _write_values(dataset: store.DatasetRow, write_id: str, status: str, mode: str, rows: int) -> dict[str, Any]:
    return {"id": write_id, "dataset_id": dataset.id, "status": status, "mode": mode, "rows": rows}
