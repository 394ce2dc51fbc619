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

import base64
from typing import TYPE_CHECKING, Any

import msgspec

from modelyard.engines.tables.base import Commit, Staged, StagedFile, TableStore
from modelyard.kernel.auth import Principal, Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import ModelyardError
from modelyard.planes.data import store
from modelyard.types.data import CheckReport, Column, DatasetVersion, WriteMode

if TYPE_CHECKING:
    import pyarrow as pa

JOB_PREFIX = "job:"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All that steps 4 and 5 need, as the catalog keeps it."""

    version: DatasetVersion
    base_table_version: int | None
    schema: str
    files: list[dict[str, Any]]

    def commit(self, write_id: str) -> Commit:
        """What the table's log shall get."""
        return Commit(
            write_id=write_id,
            mode=self.version.mode,
            files=tuple(StagedFile(**file) for file in self.files),
            schema=_schema_from(self.schema),
            base_version=self.base_table_version,
        )


def make_plan(version: DatasetVersion, staged: Staged, schema: pa.Schema, base_table_version: int | None) -> Plan:
    """The plan to publish staged files as a version under a schema."""
    return Plan(
        version=version,
        base_table_version=base_table_version,
        schema=base64.b64encode(schema.serialize()).decode(),
        files=[
            {"name": one.name, "size_bytes": one.size_bytes, "rows": one.rows, "stats": one.stats}
            for one in staged.files
        ],
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
        with self._database.transaction(scope) as tx:
            values = _write_values(dataset, write_id, store.PUBLISHING, plan.version.mode, plan.version.rows_written)
            store.insert_write(
                tx,
                {
                    **values,
                    "idempotency_key": idempotency_key,
                    "columns": plan.version.columns,
                    "report": plan.version.report,
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
        mode: WriteMode,
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
        try:
            table_version = self._tables.commit(dataset.location, commit)
        except (ModelyardError, OSError):
            if self._tables.committed(dataset.location, write_id, plan.base_table_version) is None:
                with self._database.transaction(scope) as tx:
                    store.delete_write(tx, write_id)
                self._tables.withdraw(dataset.location, commit)
            raise
        with self._database.transaction(scope) as tx:
            self._record(tx, dataset, write_id, plan.version, table_version)
        return plan.version.version

    def _record(
        self, tx: Transaction, dataset: store.DatasetRow, write_id: str, version: DatasetVersion, table_version: int
    ) -> None:
        store.insert_version(tx, dataset.id, version, table_version=table_version, write_id=write_id)
        store.advance(tx, dataset.id, version.dataset, version)
        store.finish_write(tx, write_id, store.PUBLISHED)
        tx.event(
            "dataset.version_published",
            version.urn,
            {
                "dataset": version.dataset,
                "version": version.version,
                "mode": version.mode,
                "rows": version.rows,
                "rows_written": version.rows_written,
                "source": version.source,
            },
        )
        if version.mode == "append" and version.version > 1:
            tx.link(version.urn, "derived", f"dataset:{version.dataset}@{version.version - 1}")
        if tx.actor.startswith(JOB_PREFIX):
            tx.link(tx.actor, "produced", version.urn)


def _write_values(dataset: store.DatasetRow, write_id: str, status: str, mode: str, rows: int) -> dict[str, Any]:
    return {"id": write_id, "dataset_id": dataset.id, "status": status, "mode": mode, "rows": rows}


def _schema_from(text: str) -> pa.Schema:
    import pyarrow as pa  # heavy: imported late

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
