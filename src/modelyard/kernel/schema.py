"""The one MetaData that every room's tables are declared on, and the column types that they share."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Connection, Dialect, MetaData, Table, Text, dialects
from sqlalchemy.types import TypeDecorator

from modelyard.kernel.clock import from_us, to_us

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as a BIGINT of microseconds since the epoch: exact, alike on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else to_us(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else from_us(value)


class Json(TypeDecorator[Any]):
    """Any value that msgspec encodes (dicts, lists, Structs), stored as JSON text; read back as plain builtins."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002
        return None if value is None else msgspec.json.decode(value)


def inserting(dialect: str, table: Table) -> Any:
    """An INSERT that knows ON CONFLICT, in the dialect of this name."""
    # Whoever has a catalog has loaded its dialect; the other one's is a thirtieth of a start.
    return getattr(dialects, dialect).insert(table)


def on_conflict_do_nothing(connection: Connection, table: Table) -> Any:
    """INSERT … ON CONFLICT DO NOTHING in the connection's dialect."""
    return inserting(connection.dialect.name, table).on_conflict_do_nothing()
