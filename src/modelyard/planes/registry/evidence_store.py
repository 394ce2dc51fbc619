"""The tables of evidence: evaluations, latency measurements, approvals, and comparisons that were made once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, String, Table, Text, select

from modelyard.kernel.database import Instant, Json, Transaction, insert_missing, metadata
from modelyard.planes.registry import store
from modelyard.types.registry import Approval, Comparison, Evaluation, Latency, Scores, SliceScores

evaluations = Table(
    "registry_evaluations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("dataset", String(512), nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Column("threshold", Float, nullable=False),
    Column("overall", Json, nullable=False),
    Column("slices", Json, nullable=False),
    Column("rows_digest", String(64), nullable=False),
    Column("labels_digest", String(64), nullable=False),
    Column("made_by", String(16), nullable=False, server_default="client"),
    Column("job", String(32), nullable=False, server_default=""),
    Index("registry_evaluations_by_version", "model_id", "version", "id"),
)
latencies = Table(
    "registry_latencies",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Column("p50_ms", Float, nullable=False),
    Column("p95_ms", Float, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("measured_on", Text, nullable=False),
    Index("registry_latencies_by_version", "model_id", "version", "id"),
)
approvals = Table(
    "registry_approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Column("reason", Text, nullable=False),
    Column("revoked_at", Instant),
    Column("revoked_by", String(255), nullable=False),
    Column("revoked_reason", Text, nullable=False),
    Index("registry_approvals_by_version", "model_id", "version", "id"),
)
comparisons = Table(
    "registry_comparisons",
    metadata,
    Column("challenger", String(32), primary_key=True),
    Column("champion", String(32), primary_key=True),
    Column("metric", String(32), primary_key=True),
    Column("confidence", Float, primary_key=True),
    Column("result", Json, nullable=False),
)


def _to_evaluation(row: Any, name: str) -> Evaluation:
    return Evaluation(
        id=row.id,
        model=name,
        version=row.version,
        version_digest=row.version_digest,
        dataset=row.dataset,
        at=row.at,
        by=row.by,
        threshold=row.threshold,
        overall=msgspec.convert(row.overall, Scores),
        slices=msgspec.convert(row.slices, list[SliceScores]),
        rows_digest=row.rows_digest,
        labels_digest=row.labels_digest,
        made_by=row.made_by,
        job=row.job,
    )


def _to_latency(row: Any, name: str) -> Latency:
    return Latency(
        id=row.id,
        model=name,
        version=row.version,
        version_digest=row.version_digest,
        at=row.at,
        by=row.by,
        p50_ms=row.p50_ms,
        p95_ms=row.p95_ms,
        requests=row.requests,
        measured_on=row.measured_on,
    )


def _to_approval(row: Any) -> Approval:
    return Approval(
        id=row.id,
        version=row.version,
        version_digest=row.version_digest,
        by=row.by,
        at=row.at,
        reason=row.reason,
        revoked_at=row.revoked_at,
        revoked_by=row.revoked_by,
        revoked_reason=row.revoked_reason,
    )


def evaluations_of(tx: Transaction, model: Any, version: int | None = None, limit: int = 200) -> list[Evaluation]:
    """Evaluations, newest first."""
    statement = (
        select(evaluations).where(evaluations.c.model_id == model.id).order_by(evaluations.c.id.desc()).limit(limit)
    )
    if version is not None:
        statement = statement.where(evaluations.c.version == version)
    return [_to_evaluation(row, model.name) for row in tx.all(statement)]


def add_evaluation(tx: Transaction, model_id: str, made: Evaluation) -> None:
    """Record an evaluation."""
    values = msgspec.structs.asdict(made)
    del values["model"]
    tx.execute(evaluations.insert().values(model_id=model_id, **values))


def latencies_of(tx: Transaction, model: Any, version: int, limit: int = 200) -> list[Latency]:
    """Latency measurements of a version, newest first."""
    rows = tx.all(
        select(latencies)
        .where(latencies.c.model_id == model.id, latencies.c.version == version)
        .order_by(latencies.c.id.desc())
        .limit(limit)
    )
    return [_to_latency(row, model.name) for row in rows]


def add_latency(tx: Transaction, model_id: str, made: Latency) -> None:
    """Record a latency measurement."""
    values = msgspec.structs.asdict(made)
    del values["model"]
    tx.execute(latencies.insert().values(model_id=model_id, **values))


def approvals_of(tx: Transaction, model_id: str, version: int) -> list[Approval]:
    """Approvals of a version, oldest first, the revoked ones too."""
    rows = tx.all(
        select(approvals)
        .where(approvals.c.model_id == model_id, approvals.c.version == version)
        .order_by(approvals.c.id)
    )
    return [_to_approval(row) for row in rows]


def add_approval(tx: Transaction, model_id: str, made: Approval) -> None:
    """Record an approval."""
    tx.execute(approvals.insert().values(model_id=model_id, **msgspec.structs.asdict(made)))


def comparison_of(tx: Transaction, challenger: str, champion: str, metric: str, confidence: float) -> Comparison | None:
    """A comparison of two evaluations that was made before."""
    found = tx.one(
        select(comparisons.c.result).where(
            comparisons.c.challenger == challenger,
            comparisons.c.champion == champion,
            comparisons.c.metric == metric,
            comparisons.c.confidence == confidence,
        )
    )
    return None if found is None else msgspec.convert(found.result, Comparison)


def keep_comparison(tx: Transaction, challenger: str, champion: str, made: Comparison) -> None:
    """Keep a comparison; it follows from immutable rows, so that one made at the same time is the same."""
    row = {"challenger": challenger, "champion": champion, "metric": made.metric, "confidence": made.confidence}
    insert_missing(tx, comparisons, [{**row, "result": made}])


def kept_blobs(tx: Transaction) -> Iterator[str]:
    """The digests of all blobs that the registry of any project names: files of versions, rows of evaluations."""
    versions, of = store.versions, store.version_files
    same = (versions.c.model_id == of.c.model_id) & (versions.c.version == of.c.version)
    held = select(of.c.digest).join(versions, same).where(versions.c.purged_at.is_(None))
    for statement in (held, select(evaluations.c.rows_digest)):
        yield from (row[0] for row in tx.stream(statement))
