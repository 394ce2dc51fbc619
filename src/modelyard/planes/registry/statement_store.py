"""The tables of what others state about versions: attestations, and signatures over their files."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, select

from modelyard.kernel.database import Instant, Transaction, metadata
from modelyard.types.registry import Attestation, FileSignature

STATEMENTS_SHOWN_MAX = 500
attestations = Table(
    "registry_attestations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("summary", Text, nullable=False),
    Column("value", String(255), nullable=False),
    Column("evidence", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Index("registry_attestations_by_version", "model_id", "version", "id"),
)
signatures = Table(
    "registry_signatures",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model_id", String(32), ForeignKey("registry_models.id"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("version_digest", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("by", String(255), nullable=False),
    Index("registry_signatures_by_version", "model_id", "version", "id"),
)


def attestations_of(tx: Transaction, model: Any, version: int) -> list[Attestation]:
    """Attestations of a version, newest first."""
    rows = tx.all(_of(attestations, model.id, version))
    return [
        Attestation(
            id=row.id,
            model=model.name,
            version=row.version,
            version_digest=row.version_digest,
            kind=row.kind,
            passed=row.passed,
            summary=row.summary,
            value=row.value,
            evidence=row.evidence,
            at=row.at,
            by=row.by,
        )
        for row in rows
    ]


def add_attestation(tx: Transaction, model_id: str, made: Attestation) -> None:
    """Record an attestation."""
    _add(tx, attestations, model_id, made)


def signatures_of(tx: Transaction, model: Any, version: int) -> list[FileSignature]:
    """Signatures over the files of a version, newest first."""
    rows = tx.all(_of(signatures, model.id, version))
    return [
        FileSignature(
            id=row.id,
            model=model.name,
            version=row.version,
            version_digest=row.version_digest,
            key=row.key,
            public_key=row.public_key,
            bundle=row.bundle,
            at=row.at,
            by=row.by,
        )
        for row in rows
    ]


def add_signature(tx: Transaction, model_id: str, made: FileSignature) -> None:
    """Record a signature."""
    _add(tx, signatures, model_id, made)


def _of(table: Table, model_id: str, version: int) -> Any:
    return (
        select(table)
        .where(table.c.model_id == model_id, table.c.version == version)
        .order_by(table.c.id.desc())
        .limit(STATEMENTS_SHOWN_MAX)
    )


def _add(tx: Transaction, table: Table, model_id: str, made: Attestation | FileSignature) -> None:
    values = msgspec.structs.asdict(made)
    del values["model"]
    tx.execute(table.insert().values(model_id=model_id, **values))
