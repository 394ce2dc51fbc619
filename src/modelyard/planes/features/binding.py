"""Binding a definition to its source's schema: every column it names exists, with a type that suits its use.

What is bound is checked by running the compiled join over empty tables, so that a view that was accepted can run.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelyard.engines.tables.sql import SqlSession, literal, quoted, sandbox
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.features.pit_join import ENTITIES, JoinView, Kind, compile_join
from modelyard.planes.features.row_sql import (
    FunctionTraits,
    check_row_wise,
    function_names,
    place_of_name,
    refused,
)
from modelyard.types.features import Aggregate, DefineFeatureView, Feature

if TYPE_CHECKING:
    import pyarrow as pa

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_KEY_KINDS = frozenset({"integer", "boolean", "text", "date", "instant"})
_FUNCTION_KINDS: Mapping[str, frozenset[str]] = {
    "sum": frozenset({"integer", "float"}),
    "mean": frozenset({"integer", "float"}),
    "rate": frozenset({"boolean"}),
    "min": frozenset({"integer", "float", "date", "instant"}),
    "max": frozenset({"integer", "float", "date", "instant"}),
}


@dataclass(frozen=True, slots=True)
class Binding:
    """A definition whose names are known to be columns. `key_types` are those of the entities, in their order."""

    definition: DefineFeatureView
    key_types: tuple[pa.DataType, ...]
    kinds: Mapping[str, Kind]
    features: tuple[Feature, ...]

    def join_view(self, keys: tuple[str, ...], outputs: Mapping[str, str]) -> JoinView:
        """The view as the compiler takes it: joined on these columns of the entity table, giving these outputs."""
        return _join_view(self.definition, self.kinds, keys, outputs)


def bind(definition: DefineFeatureView, source: pa.Schema) -> Binding:
    """Bind a definition to the schema of its source. Raises InvalidInput naming the first thing that does not fit."""
    _check_names(definition)
    with sandbox({definition.source: source.empty_table()}) as session:
        columns = _relation_schema(session, definition, source)
    kinds = {field.name: kind_of(field.type) for field in columns}
    _check_columns(definition, kinds)
    key_types = tuple(columns.field(name).type for name in definition.entities)
    return Binding(definition, key_types, kinds, _features(definition, source, key_types, kinds))


def kind_of(kind: pa.DataType) -> Kind:
    """The family of an Arrow type."""
    import pyarrow as pa  # heavy: imported late

    t = pa.types
    if t.is_integer(kind):
        return "integer"
    if t.is_floating(kind) or t.is_decimal(kind):
        return "float"
    if t.is_boolean(kind):
        return "boolean"
    if t.is_timestamp(kind):
        return "instant"
    if t.is_date(kind):
        return "date"
    return "text" if t.is_string(kind) or t.is_large_string(kind) else "other"


def relation_of(definition: DefineFeatureView) -> str:
    """The view's rows as SQL that stands in a FROM."""
    if not definition.sql:
        return quoted(definition.source)
    # The line break ends a comment that the text may close with.
    return f"({definition.sql.strip().removesuffix(';')}\n)"


def _check_names(definition: DefineFeatureView) -> None:
    if not _NAME.fullmatch(definition.name):
        raise InvalidInput(
            f"{definition.name!a} cannot name a feature view",
            code="feature_view.name_invalid",
            hint="use letters, digits and '_', beginning with a letter, at most 128",
        )
    names = [*definition.columns, *(item.feature for item in definition.aggregates)]
    if not names:
        raise InvalidInput(
            f"feature view '{definition.name}' declares no features",
            code="feature_view.empty",
            hint="give it `columns` (values of the latest row) or `aggregates`",
        )
    for what, given in (("feature", names), ("entity", definition.entities)):
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise InvalidInput(
                f"feature view '{definition.name}' has {what} '{twice[0]}' twice",
                code="feature_view.duplicate",
                hint="give one of them another `name`" if what == "feature" else "remove one",
            )


def _relation_schema(session: SqlSession, definition: DefineFeatureView, source: pa.Schema) -> pa.Schema:
    if not definition.sql:
        return source
    text = definition.sql
    tree = _parsed(session, text)
    check_row_wise(tree, text, definition.source, source.names, _functions(session, function_names(tree)))
    try:
        return session.table(f"SELECT * FROM {relation_of(definition)}").schema
    except InvalidInput as error:
        reason = error.message.removeprefix("the SQL cannot be run: ")
        named = re.search(r'(?:column|name)\s+"?([A-Za-z0-9_]+)"?', reason)
        raise refused(text, reason, *([place_of_name(tree, named.group(1))] if named else [])) from error


def _parsed(session: SqlSession, text: str) -> Mapping[str, Any]:
    tree = session.one(f"SELECT json_serialize_sql({literal(text)}) AS tree")["tree"]
    parsed: Mapping[str, Any] = json.loads(tree)
    return parsed


def _functions(session: SqlSession, names: list[str]) -> dict[str, FunctionTraits]:
    if not names:
        return {}
    rows = session.rows(
        "SELECT function_name, list(DISTINCT function_type) AS kinds, list(DISTINCT stability) AS stabilities"
        f" FROM duckdb_functions() WHERE function_name IN ({', '.join(literal(name) for name in names)})"
        " GROUP BY function_name"
    )
    return {
        row["function_name"]: FunctionTraits(
            frozenset(row["kinds"]), frozenset(one for one in row["stabilities"] if one is not None)
        )
        for row in rows
    }


def _check_columns(definition: DefineFeatureView, kinds: Mapping[str, Kind]) -> None:
    for name in definition.entities:
        _present(definition, name, "entity", kinds)
        if kinds[name] not in _KEY_KINDS:
            raise _unsuited(definition, name, kinds[name], "an entity", "cast it to an integer or a text in `sql`")
    for name, role in ((definition.event_time, "event time"), (definition.known_at, "known-at time")):
        if not name and role == "known-at time":
            continue
        _present(definition, name, role, kinds)
        if kinds[name] != "instant":
            raise _unsuited(definition, name, kinds[name], f"the {role}", "it must be a timestamp")
    for name in definition.columns:
        _present(definition, name, "column", kinds)
    for item in definition.aggregates:
        _check_aggregate(definition, item, kinds)


def _check_aggregate(definition: DefineFeatureView, item: Aggregate, kinds: Mapping[str, Kind]) -> None:
    if item.name and not _NAME.fullmatch(item.name):
        raise InvalidInput(f"{item.name!a} cannot name a feature", code="feature_view.name_invalid")
    if not item.column:
        if item.function == "count":
            return
        raise InvalidInput(
            f"{item.function} of feature view '{definition.name}' says not of which column",
            code="feature_view.column_missing",
            hint="only `count` can do without",
        )
    _present(definition, item.column, "column", kinds)
    suited = _FUNCTION_KINDS.get(item.function)
    if suited is not None and kinds[item.column] not in suited:
        hint = f"{item.function} takes {' or '.join(sorted(suited))}; derive such a column in `sql`"
        raise _unsuited(definition, item.column, kinds[item.column], f"a column to take the {item.function} of", hint)


def _present(definition: DefineFeatureView, name: str, role: str, kinds: Mapping[str, Kind]) -> None:
    if name in kinds:
        return
    where = "its SQL gives" if definition.sql else f"dataset '{definition.source}' has"
    raise InvalidInput(
        f"feature view '{definition.name}' names {role} '{name}', but {where} no such column",
        code="feature_view.entity_unknown" if role == "entity" else "feature_view.column_unknown",
        hint=_nearest(name, kinds),
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}"


def _unsuited(definition: DefineFeatureView, name: str, kind: str, role: str, hint: str) -> InvalidInput:
    return InvalidInput(
        f"column '{name}' of feature view '{definition.name}' is {kind}, which cannot be {role}",
        code="feature_view.type_unsuited",
        hint=hint,
    )


def _features(
    definition: DefineFeatureView, source: pa.Schema, key_types: tuple[pa.DataType, ...], kinds: Mapping[str, Kind]
) -> tuple[Feature, ...]:
    import pyarrow as pa  # heavy: imported late

    names = [*definition.columns, *(item.feature for item in definition.aggregates)]
    keys = tuple(f"e{index}" for index in range(len(key_types)))
    entities = pa.schema([("nth", pa.int64()), ("t", pa.int64()), *zip(keys, key_types, strict=True)])
    view = _join_view(definition, kinds, keys, {name: name for name in names})
    with sandbox({definition.source: source.empty_table(), ENTITIES: entities.empty_table()}) as session:
        found = session.table(compile_join([view])).schema
    return tuple(Feature(name, str(found.field(name).type)) for name in names)


def _join_view(
    definition: DefineFeatureView, kinds: Mapping[str, Kind], keys: tuple[str, ...], outputs: Mapping[str, str]
) -> JoinView:
    return JoinView(
        relation=relation_of(definition),
        keys=tuple(zip(definition.entities, keys, strict=True)),
        event_time=definition.event_time,
        known_at=definition.known_at or definition.event_time,
        columns=tuple(definition.columns),
        ttl_s=definition.ttl_s,
        aggregates=tuple(definition.aggregates),
        kinds=kinds,
        outputs=outputs,
    )
