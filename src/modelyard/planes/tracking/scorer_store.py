"""The tables of scorers. A scorer is a name in an experiment; what it does is in its versions, which never change."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from modelyard.kernel.schema import metadata

scorers = Table(
    "scorers",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("experiment", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(256), primary_key=True),
    Column("id", String(40), nullable=False),
    # The number of a version that was deleted is not given again.
    Column("last_version", Integer, nullable=False),
)
versions = Table(
    "scorer_versions",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("scorer", String(40), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("definition", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)
