"""Tables of what is known of a dataset over time: measures of its writes, anomalies, when the next is due; contracts
and consumers. All SQL on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Column, Float, Index, Integer, String, Table, Text, select

from modelyard.kernel.database import Instant, Json, Transaction, metadata
from modelyard.kernel.ids import new_id
from modelyard.planes.data import store
from modelyard.planes.data.anomaly_rules import HISTORY_KEPT, Earlier, Expected, Measure
from modelyard.types.contracts import ConsumedColumn, Consumer, ConsumerOrigin, Contract, ContractVersion
from modelyard.types.profiles import Anomaly, FoundAnomaly

measures = Table(
    "dataset_measures",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("mode", String(16), nullable=False),
    Column("at", Instant, nullable=False),
    Column("measure", Json, nullable=False),
    Index("dataset_measures_by_mode", "dataset_id", "mode", "version"),
)
anomalies = Table(
    "dataset_anomalies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("dataset_id", String(32), nullable=False),
    Column("version", Integer),
    Column("kind", String(16), nullable=False),
    Column("anomaly", Json, nullable=False),
    Column("found_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("dataset_anomalies_standing", "project", "ended_at"),
    Index("dataset_anomalies_by_dataset", "dataset_id", "id"),
    Index("dataset_anomalies_standing_of", "dataset_id", "ended_at"),
)
expectations = Table(
    "dataset_expectations",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("last_at", Instant, nullable=False),
    Column("gap_s", Float, nullable=False),
    Column("reason", Text, nullable=False),
    # Null once it has been said that nothing came.
    Column("expected_by", Instant),
    Index("dataset_expectations_due", "expected_by"),
)
contracts = Table(
    "dataset_contracts",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("contract", Json, nullable=False),
    Column("set_at", Instant, nullable=False),
    Column("set_by", String(255), nullable=False),
)
consumers = Table(
    "dataset_consumers",
    metadata,
    Column("dataset_id", String(32), primary_key=True),
    Column("consumer", String(255), primary_key=True),
    Column("origin", String(16), nullable=False),
    Column("columns", Json, nullable=False),
    Column("owner", Text, nullable=False),
    Column("at", Instant, nullable=False),
)


# --- measures ---------------------------------------------------------------------------------------------------


def insert_measure(tx: Transaction, dataset_id: str, version: int, mode: str, measure: Measure, at: datetime) -> None:
    tx.execute(measures.insert().values(dataset_id=dataset_id, version=version, mode=mode, at=at, measure=measure))


def earlier_writes(tx: Transaction, dataset_id: str, mode: str) -> list[Earlier]:
    """The latest writes of one mode, oldest first."""
    rows = tx.all(
        select(measures)
        .where(measures.c.dataset_id == dataset_id, measures.c.mode == mode)
        .order_by(measures.c.version.desc())
        .limit(HISTORY_KEPT)
    )
    return [
        Earlier(version=row.version, at=row.at, measure=msgspec.convert(row.measure, Measure)) for row in rows[::-1]
    ]


def last_mode(tx: Transaction, dataset_id: str) -> str | None:
    """How the latest write that was measured was made."""
    newest = select(measures.c.mode).where(measures.c.dataset_id == dataset_id)
    found: str | None = tx.scalar(newest.order_by(measures.c.version.desc()).limit(1))
    return found


def write_instants(tx: Transaction, dataset_id: str) -> list[datetime]:
    """When the latest versions came."""
    rows = tx.all(
        select(measures.c.at)
        .where(measures.c.dataset_id == dataset_id)
        .order_by(measures.c.version.desc())
        .limit(HISTORY_KEPT)
    )
    return [row.at for row in rows]


# --- anomalies --------------------------------------------------------------------------------------------------


def insert_anomalies(tx: Transaction, dataset_id: str, version: int | None, found: Sequence[Anomaly]) -> None:
    for one in found:
        tx.execute(
            anomalies.insert().values(
                id=new_id(),
                project=tx.project,
                dataset_id=dataset_id,
                version=version,
                kind=one.kind,
                anomaly=one,
                found_at=tx.now,
                ended_at=None,
            )
        )


def end_anomalies(tx: Transaction, dataset_id: str) -> None:
    """What was said of the version before stands no longer."""
    tx.execute(
        anomalies.update()
        .where(anomalies.c.dataset_id == dataset_id, anomalies.c.ended_at.is_(None))
        .values(ended_at=tx.now)
    )


def list_anomalies(
    tx: Transaction, dataset: str | None, *, standing: bool, before: str | None, limit: int
) -> list[FoundAnomaly]:
    """Newest first, of one dataset or of all of the project."""
    statement = (
        select(anomalies, store.datasets.c.name.label("dataset"))
        .join(store.datasets, store.datasets.c.id == anomalies.c.dataset_id)
        .where(anomalies.c.project == tx.project)
    )
    if dataset is not None:
        statement = statement.where(store.datasets.c.name == dataset)
    if standing:
        statement = statement.where(anomalies.c.ended_at.is_(None))
    if before is not None:
        statement = statement.where(anomalies.c.id < before)
    return [_anomaly(row) for row in tx.all(statement.order_by(anomalies.c.id.desc()).limit(limit))]


def _anomaly(row: sa.Row[Any]) -> FoundAnomaly:
    return FoundAnomaly(
        id=row.id,
        dataset=row.dataset,
        version=row.version,
        anomaly=msgspec.convert(row.anomaly, Anomaly),
        found_at=row.found_at,
        ended_at=row.ended_at,
    )


# --- when the next version is due -------------------------------------------------------------------------------


def expect(tx: Transaction, dataset_id: str, last_at: datetime, expected: Expected | None) -> None:
    """Remember by when the next version should come, instead of what was expected before."""
    tx.execute(expectations.delete().where(expectations.c.dataset_id == dataset_id))
    if expected is not None:
        values = {"dataset_id": dataset_id, "project": tx.project, "last_at": last_at}
        told = {"gap_s": expected.gap_s, "reason": expected.reason, "expected_by": expected.by}
        tx.execute(expectations.insert().values(**values, **told))


def due(tx: Transaction, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Project and name of datasets of which a version should have come, over all projects."""
    rows = tx.all(
        select(expectations.c.project, store.datasets.c.name)
        .join(store.datasets, store.datasets.c.id == expectations.c.dataset_id)
        .where(expectations.c.expected_by < now)
        .limit(limit)
    )
    return [(row.project, row.name) for row in rows]


def expectation(tx: Transaction, dataset_id: str) -> tuple[datetime, Expected] | None:
    """When the last version came, and what is expected, unless it has been said already that nothing came."""
    row = tx.one(
        select(expectations).where(expectations.c.dataset_id == dataset_id, expectations.c.expected_by.is_not(None))
    )
    return None if row is None else (row.last_at, Expected(by=row.expected_by, gap_s=row.gap_s, reason=row.reason))


def last_expectation(tx: Transaction, dataset_id: str) -> Expected | None:
    """What is expected, also where it has been said already that nothing came."""
    row = tx.one(select(expectations).where(expectations.c.dataset_id == dataset_id))
    if row is None:
        return None
    return Expected(by=row.last_at + timedelta(seconds=row.gap_s), gap_s=row.gap_s, reason=row.reason)


def expectation_told(tx: Transaction, dataset_id: str) -> None:
    tx.execute(expectations.update().where(expectations.c.dataset_id == dataset_id).values(expected_by=None))


# --- contracts and consumers ------------------------------------------------------------------------------------


def contract_versions(tx: Transaction, dataset: store.DatasetRow, limit: int) -> list[ContractVersion]:
    """Newest first."""
    rows = tx.all(
        select(contracts).where(contracts.c.dataset_id == dataset.id).order_by(contracts.c.number.desc()).limit(limit)
    )
    return [
        ContractVersion(
            dataset=dataset.noun.name,
            number=row.number,
            contract=msgspec.convert(row.contract, Contract),
            set_at=row.set_at,
            set_by=row.set_by,
        )
        for row in rows
    ]


def current_contract(tx: Transaction, dataset_id: str) -> Contract | None:
    row = tx.one(
        select(contracts.c.contract)
        .where(contracts.c.dataset_id == dataset_id)
        .order_by(contracts.c.number.desc())
        .limit(1)
    )
    return None if row is None else msgspec.convert(row.contract, Contract)


def insert_contract(tx: Transaction, dataset_id: str, number: int, contract: Contract) -> None:
    values = {"dataset_id": dataset_id, "number": number, "contract": contract}
    tx.execute(contracts.insert().values(set_at=tx.now, set_by=tx.actor, **values))


def consumers_of(tx: Transaction, dataset_id: str) -> list[Consumer]:
    rows = tx.all(select(consumers).where(consumers.c.dataset_id == dataset_id).order_by(consumers.c.consumer))
    return [
        Consumer(
            consumer=row.consumer,
            columns=msgspec.convert(row.columns, list[ConsumedColumn]),
            origin=row.origin,
            owner=row.owner,
            at=row.at,
        )
        for row in rows
    ]


def set_consumer(
    tx: Transaction,
    dataset_id: str,
    consumer: str,
    columns: Sequence[ConsumedColumn],
    *,
    origin: ConsumerOrigin,
    owner: str = "",
) -> None:
    """Say what a consumer uses, instead of what was said before. What it declared itself is not replaced by lineage."""
    same = (consumers.c.dataset_id == dataset_id, consumers.c.consumer == consumer)
    if origin == "lineage" and tx.scalar(select(consumers.c.origin).where(*same)) == "declared":
        return
    tx.execute(consumers.delete().where(*same))
    values = {"dataset_id": dataset_id, "consumer": consumer, "origin": origin, "columns": list(columns)}
    tx.execute(consumers.insert().values(owner=owner, at=tx.now, **values))


def delete_consumer(tx: Transaction, dataset_id: str, consumer: str) -> bool:
    same = (consumers.c.dataset_id == dataset_id, consumers.c.consumer == consumer)
    return tx.execute(consumers.delete().where(*same)).rowcount == 1


def forget_lineage_consumer(tx: Transaction, consumer: str, kept: Sequence[str]) -> None:
    """A consumer that lineage showed uses only these datasets now."""
    project = select(store.datasets.c.id).where(store.datasets.c.project == tx.project)
    statement = consumers.delete().where(
        consumers.c.consumer == consumer, consumers.c.origin == "lineage", consumers.c.dataset_id.in_(project)
    )
    tx.execute(statement.where(consumers.c.dataset_id.not_in(kept)) if kept else statement)
