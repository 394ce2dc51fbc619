"""Statements that run thousands of times a second: compiled once a dialect, then run by the driver itself.

SQLAlchemy's way from a statement to the driver and back costs several times what SQLite needs to run a small one.
`Prepared` keeps what it compiles to. Values are translated on their way in, but what comes back are the driver's own
rows: a statement that selects a type of ours (`Instant`, `Json`) is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

Bind = Callable[[Mapping[str, Any]], Any]


class Prepared:
    """A statement for `Transaction.run` and `run_many`; or, where dialects differ, what makes it for each by name."""

    def __init__(self, statement: Executable | Callable[[str], Executable]) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, Bind]] = {}

    def of(self, dialect: Dialect) -> tuple[str, Bind]:
        """The text for a driver, and what turns named parameters into what that driver takes."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = self._compile(dialect)
        return found

    def _compile(self, dialect: Dialect) -> tuple[str, Bind]:
        statement: Any = self._statement if isinstance(self._statement, Executable) else self._statement(dialect.name)
        compiled: Any = statement.compile(dialect=dialect)
        for column in compiled._result_columns:
            if isinstance(column.type, TypeDecorator):
                raise TypeError(f"a statement that selects {column.type!r} cannot be prepared: it is translated")
        fixed = {name: value for name, value in compiled.params.items() if value is not None}
        names: list[str] | None = compiled.positiontup
        processors: dict[str, Any] = {
            name: processor
            for name, processor in compiled._bind_processors.items()
            if isinstance(compiled.binds[name].type, TypeDecorator)
        }
        return compiled.string, _by_name(fixed, processors) if names is None else _by_place(names, fixed, processors)


def _by_name(fixed: Mapping[str, Any], processors: Mapping[str, Any]) -> Bind:
    def bind(given: Mapping[str, Any]) -> dict[str, Any]:
        bound = {**fixed, **given}
        for name, processor in processors.items():
            bound[name] = processor(bound[name])
        return bound

    return bind


def _by_place(names: list[str], fixed: Mapping[str, Any], processors: Mapping[str, Any]) -> Bind:
    def simple(given: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([given[name] for name in names])

    def bind(given: Mapping[str, Any]) -> tuple[Any, ...]:
        found = [given[name] if name in given else fixed[name] for name in names]
        return tuple([processors[n](v) if n in processors else v for n, v in zip(names, found, strict=True)])

    return bind if fixed or processors else simple
