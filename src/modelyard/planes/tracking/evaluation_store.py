"""The tables of evaluation datasets. A record's key is the digest of its inputs: same inputs are the same example."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from modelyard.kernel.schema import Json, metadata

datasets = Table(
    "evaluation_datasets",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("name", String(500), nullable=False),
    Column("digest", String(16), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("updated_by", Text),
    Column("fields", Json),
    Index("evaluation_datasets_by_time", "project", "created_ms"),
)
dataset_tags = Table(
    "evaluation_dataset_tags",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("dataset", String(40), primary_key=True),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)
dataset_experiments = Table(
    "evaluation_dataset_experiments",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("dataset", String(40), primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, nullable=False),
)
records = Table(
    "evaluation_records",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("dataset", String(40), primary_key=True),
    Column("inputs_digest", String(64), primary_key=True),
    Column("id", String(40), nullable=False),
    Column("inputs", Json, nullable=False),
    Column("outputs", Json),
    Column("expectations", Json),
    Column("tags", Json, nullable=False),
    Column("source_type", Text),
    Column("source", Json),
    Column("created_ms", BigInteger, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    Column("created_by", Text),
    Column("updated_by", Text),
    # In which order they came, within one instant too.
    Column("place", BigInteger, nullable=False),
    Index("evaluation_records_by_place", "project", "dataset", "place"),
)
