"""What a filter and an order may say of runs, experiments and logged models. Pure: text in, typed clauses out.

The rules and the texts of the errors are MLflow's, because its clients' users read them and its tests assert them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking.grammar import Comparison, Kind, Stray, Token, comparisons, tokens
from modelyard.planes.tracking.operands import (
    check_left,
    check_operator,
    number_of,
    text_of,
    texts_of,
    trimmed,
    unquoted,
)

Field = Literal["attribute", "metric", "parameter", "tag", "dataset"]

ORDERS_MAX = 20
NUMERIC = frozenset({">", ">=", "!=", "=", "<", "<="})
TEXTUAL = frozenset({"!=", "=", "LIKE", "ILIKE"})
NULLS = frozenset({"IS NULL", "IS NOT NULL"})
LISTS = frozenset({"IN", "NOT IN"})
_FIELDS: tuple[Field, ...] = ("metric", "parameter", "tag", "attribute", "dataset")
_ALIASES: dict[str, Field] = {
    "metric": "metric", "metrics": "metric",
    "parameter": "parameter", "parameters": "parameter", "param": "parameter", "params": "parameter",
    "tag": "tag", "tags": "tag",
    "attribute": "attribute", "attr": "attribute", "attributes": "attribute", "run": "attribute",
    "dataset": "dataset", "datasets": "dataset",
}  # fmt: skip
_RUN_ALIASES = {"created": "start_time", "Created": "start_time"} | dict.fromkeys(
    ("run name", "Run name", "Run Name"), "run_name"
)
_RUN_TEXTS = frozenset({"run_id", "run_name", "status", "user_id", "artifact_uri"})
_RUN_TIMES = frozenset({"start_time", "end_time"})
_RUN_SEARCHABLE = _RUN_TEXTS | _RUN_TIMES | frozenset(_RUN_ALIASES)
_RUN_ORDERABLE = _RUN_TEXTS | _RUN_TIMES | frozenset({"created", "Created"})
_EXPERIMENT_TIMES = frozenset({"creation_time", "last_update_time"})
_EXPERIMENT_SEARCHABLE = _EXPERIMENT_TIMES | {"name"}
_EXPERIMENT_ORDERABLE = _EXPERIMENT_SEARCHABLE | {"experiment_id"}
_DATASET_KEYS = frozenset({"name", "digest", "context"})
_MODEL_TEXTS = frozenset({"name", "model_id", "model_type", "status", "source_run_id"})
_MODEL_TIMES = {
    "creation_timestamp": "created_ms", "creation_time": "created_ms", "creation_timestamp_ms": "created_ms",
    "last_updated_timestamp": "updated_ms", "last_updated_time": "updated_ms",
    "last_updated_timestamp_ms": "updated_ms",
}  # fmt: skip
_MODEL_FIELDS: dict[str, Field] = {
    "attributes": "attribute", "metrics": "metric", "params": "parameter", "tags": "tag",
}  # fmt: skip


class Clause(NamedTuple):
    """One condition. `value` is a number for metrics and times, a list for IN, None for IS NULL."""

    field: Field
    key: str
    operator: str
    value: str | float | list[str] | None


class Order(NamedTuple):
    """One key to order by."""

    field: Field
    key: str
    ascending: bool


class ModelOrder(NamedTuple):
    """One key to order logged models by: an attribute, or a metric, of one dataset if that is named."""

    field: Field
    key: str
    ascending: bool
    dataset_name: str | None
    dataset_digest: str | None


def parse_runs(text: str) -> list[Clause]:
    """The clauses of a filter over runs. Raises InvalidInput."""
    return [_run_clause(one) for one in valid_comparisons(text, quoted=True)]


def parse_experiments(text: str) -> list[Clause]:
    """The clauses of a filter over experiments. Raises InvalidInput."""
    return [_experiment_clause(one) for one in valid_comparisons(text, quoted=False)]


def parse_models(text: str) -> list[Clause]:
    """The clauses of a filter over logged models. Raises InvalidInput."""
    found = comparisons(text)
    if any(isinstance(one, Stray) for one in found):
        raise InvalidInput(
            f"Invalid filter string: {text!r}. Expected a list of comparisons "
            "separated by 'AND' (e.g. 'metrics.loss > 0.1 AND params.lr = 0.01').",
            code="filter.invalid",
        )
    return [_model_clause(one) for one in found if isinstance(one, Comparison)]


def order_runs(order_by: Sequence[str]) -> list[Order]:
    """The keys to order runs by. Raises InvalidInput, also where a key comes twice."""
    check_orders(order_by)
    found = []
    for text in order_by:
        name, ascending = split_order(text)
        field, key = _identifier(name, _RUN_ORDERABLE)
        if field == "dataset":
            raise InvalidInput("Invalid identifier type 'dataset'", code="order.invalid")
        found.append(Order(field, _RUN_ALIASES.get(key, key) if field == "attribute" else key, ascending))
    if len({order[:2] for order in found}) < len(found):
        raise InvalidInput(f"`order_by` contains duplicate fields: {list(order_by)}", code="order.duplicate")
    return found


def order_experiments(order_by: Sequence[str]) -> list[Order]:
    """The keys to order experiments by. Raises InvalidInput."""
    check_orders(order_by)
    found = []
    for text in order_by or ("creation_time DESC", "experiment_id ASC"):
        name, ascending = split_order(text)
        field, key = _experiment_identifier(name, _EXPERIMENT_ORDERABLE)
        if field != "attribute":
            raise InvalidInput(f"Invalid order_by entity: {field}", code="order.invalid")
        found.append(Order(field, key, ascending))
    return found


def order_model(
    field_name: str, ascending: bool, dataset_name: str | None = None, dataset_digest: str | None = None
) -> ModelOrder:
    """One key to order logged models by. Raises InvalidInput."""
    if "." in field_name:
        entity, _, key = field_name.partition(".")
        if entity != "metrics":
            raise InvalidInput(
                f"Invalid order by field name: {field_name}. Only metrics are supported.", code="order.invalid"
            )
        return ModelOrder("metric", key, ascending, dataset_name or None, dataset_digest or None)
    key = _MODEL_TIMES.get(field_name, field_name)
    if key == field_name and field_name not in _MODEL_TEXTS | {"experiment_id"}:
        raise InvalidInput(f"Invalid order by field name: {field_name}", code="order.invalid")
    return ModelOrder("attribute", key, ascending, None, None)


def check_orders(order_by: Sequence[str]) -> None:
    """Raise InvalidInput for more keys than a database sorts by at once."""
    if len(order_by) > ORDERS_MAX:
        raise InvalidInput(f"`order_by` has more than {ORDERS_MAX} keys", code="order.too_long")


def split_order(text: str) -> tuple[str, bool]:
    """The name in an order clause and whether it ascends. Raises InvalidInput."""
    pieces = tokens(text)
    if not pieces or len(pieces) > 2 or pieces[0].kind is not Kind.NAME or pieces[-1].kind is not Kind.NAME:
        raise InvalidInput(f"Invalid order_by clause '{text}'. Could not be parsed.", code="order.invalid")
    if len(pieces) == 1:
        return pieces[0].text, True
    direction = pieces[1].text.lower()
    if direction not in ("asc", "desc"):
        raise InvalidInput(f"Invalid ordering key in order_by clause '{text}'.", code="order.invalid")
    return pieces[0].text, direction == "asc"


def page_token(offset: int) -> str:
    """The token of the page that starts after so many items."""
    return base64.b64encode(msgspec.json.encode({"offset": offset})).decode()


def page_offset(token: str | None) -> int:
    """After how many items the page of a token starts. Raises InvalidInput for what is no token of ours."""
    if not token:
        return 0
    try:
        decoded = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput("Invalid page token, could not base64-decode", code="page.invalid") from error
    try:
        offset = msgspec.convert(msgspec.json.decode(decoded)["offset"], int, strict=False)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise InvalidInput(f"Invalid page token, decoded value={decoded!r}", code="page.invalid") from error
    if not 0 < offset < 2**62:
        raise InvalidInput(f"Invalid page token, parsed value={{'offset': {offset}}}", code="page.invalid")
    return offset


def valid_comparisons(text: str, *, quoted: bool) -> list[Comparison]:
    """The comparisons of a filter that has nothing else in it. Raises InvalidInput; `quoted`: how it shows the rest."""
    body, semicolon, more = _split_statements(text)
    if semicolon and more.strip():
        raise InvalidInput(
            f"Search filter contained multiple expression {text!r}. Provide AND-ed expression list.",
            code="filter.invalid",
        )
    found = comparisons(body)
    strays = [piece for one in found if isinstance(one, Stray) for piece in one.pieces]
    if strays:
        shown = ", ".join(f"'{piece}'" if quoted else piece for piece in strays)
        raise InvalidInput(
            f"Invalid clause(s) in filter string: {shown}",
            code="filter.invalid",
            hint="join comparisons by AND, such as: metrics.auc > 0.7 AND params.lr = '0.1'",
        )
    return [one for one in found if isinstance(one, Comparison)]


def _split_statements(text: str) -> tuple[str, str, str]:
    # A semicolon within quotes is part of a value, so the first bare one has to be found by pieces.
    if ";" not in text or not any(piece.text == ";" for piece in tokens(text)):
        return text, "", ""
    at = 0
    for piece in tokens(text):
        at = text.index(piece.text, at)
        if piece.text == ";":
            return text[:at], ";", text[at + 1 :]
        at += len(piece.text)
    return text, "", ""


def _run_clause(one: Comparison) -> Clause:
    check_left(one)
    field, key = _identifier(one.left.text, _RUN_SEARCHABLE)
    if one.right is None:
        if field not in ("tag", "parameter"):
            raise InvalidInput(
                f"IS NULL / IS NOT NULL is only supported for tags and params, not for '{field}' '{key}'",
                code="filter.invalid",
            )
        return Clause(field, key, one.operator, None)
    numeric = field == "metric" or (field == "attribute" and _RUN_ALIASES.get(key, key) in _RUN_TIMES)
    value = _run_value(field, key, one.right, numeric)
    if field == "attribute":
        key = _RUN_ALIASES.get(key, key)
    check_operator(one.operator, _run_operators(field, numeric))
    return Clause(field, key, one.operator, value)


def _run_operators(field: Field, numeric: bool) -> frozenset[str]:
    if numeric:
        return NUMERIC
    return TEXTUAL | (NULLS if field in ("tag", "parameter") else LISTS)


def _run_value(field: Field, key: str, right: Token, numeric: bool) -> str | float | list[str]:
    if numeric:
        what = "metric" if field == "metric" else f"numeric attribute: {key}"
        return number_of(right, f"Expected numeric value type for {what}")
    if field == "attribute" and right.kind is Kind.LIST:
        if key != "run_id":
            raise InvalidInput(
                "Only the 'run_id' attribute supports comparison with a list of quoted string values.",
                code="filter.invalid",
            )
        return texts_of(right)
    if field == "dataset" and right.kind is Kind.LIST:
        return texts_of(right)
    expected = {
        "attribute": "Expected a quoted string value for attributes.",
        "dataset": "Expected a quoted string value for dataset attributes.",
    }.get(field, f"Expected a quoted string value for {field} (e.g. 'my-value').")
    return text_of(right, expected)


def _experiment_clause(one: Comparison) -> Clause:
    check_left(one)
    field, key = _experiment_identifier(one.left.text, _EXPERIMENT_SEARCHABLE)
    if one.right is None:
        if field != "tag":
            raise InvalidInput(
                f"IS NULL / IS NOT NULL is only supported for tags, not for attribute '{key}'",
                code="filter.invalid",
            )
        return Clause(field, key, one.operator, None)
    if field == "tag":
        value: str | float = text_of(one.right, "Expected a quoted string value for tag (e.g. 'my-value').")
        check_operator(one.operator, TEXTUAL, "Invalid comparator for tag: {}")
    elif key in _EXPERIMENT_TIMES:
        value = number_of(one.right, f"Expected numeric value type for numeric attribute: {key}")
        check_operator(one.operator, NUMERIC, "Invalid comparator for numeric attribute: {}")
    else:
        if one.right.kind is Kind.LIST:
            raise InvalidInput(f"Invalid comparator for string attribute: {one.operator}", code="filter.invalid")
        value = text_of(one.right, "Expected a quoted string value for attributes.")
        check_operator(one.operator, TEXTUAL, "Invalid comparator for string attribute: {}")
    return Clause(field, key, one.operator, value)


def _model_clause(one: Comparison) -> Clause:
    field, key = _model_identifier(one.left)
    numeric = field == "metric" or key in ("created_ms", "updated_ms")
    if one.operator not in (NUMERIC if numeric else TEXTUAL | LISTS):
        raise InvalidInput(
            f"Invalid comparison operator for {one.left.text}: {one.operator!r}. "
            f"Expected one of {tuple(sorted(NUMERIC if numeric else TEXTUAL | LISTS))}.",
            code="filter.invalid",
        )
    assert one.right is not None
    if numeric:
        return Clause(field, key, one.operator, number_of(one.right, f"Expected a number for {one.left.text}"))
    if one.right.kind is Kind.LIST:
        return Clause(field, key, one.operator, texts_of(one.right))
    value = one.right.text
    return Clause(field, key, one.operator, value.strip("'") if one.right.kind is Kind.TEXT else unquoted(value))


def _model_identifier(left: Token) -> tuple[Field, str]:
    entity, dot, key = left.text.partition(".")
    if not dot:
        field, key = "attribute", left.text.strip("`")
    elif entity in _MODEL_FIELDS:
        field, key = _MODEL_FIELDS[entity], unquoted(key.strip("`"))
    else:
        raise InvalidInput(
            f"Invalid entity type: {entity!r}. Expected one of {list(_MODEL_FIELDS)}.", code="filter.invalid"
        )
    if field == "attribute":
        known = _MODEL_TIMES.get(key, key)
        if known == key and key not in _MODEL_TEXTS | {"experiment_id"}:
            raise InvalidInput(
                f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(_MODEL_TEXTS | set(_MODEL_TIMES))}'",
                code="filter.invalid",
            )
        key = known
    return field, key  # type: ignore[return-value]


def _identifier(text: str, attributes: frozenset[str]) -> tuple[Field, str]:
    entity, dot, key = text.partition(".")
    if not dot:
        entity, key = "attribute", text
    field = _ALIASES.get(trimmed(entity, "`"))
    if field is None:
        raise InvalidInput(
            f"Invalid entity type '{trimmed(entity, '`')}'. Valid values are {list(_FIELDS)}", code="filter.invalid"
        )
    key = trimmed(unquoted(key), "`")
    if field == "attribute" and key not in attributes:
        raise InvalidInput(
            f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(attributes)}'", code="filter.invalid"
        )
    if field == "dataset" and key not in _DATASET_KEYS:
        raise InvalidInput(
            f"Invalid dataset key '{key}' specified. Valid keys are '{sorted(_DATASET_KEYS)}'", code="filter.invalid"
        )
    return field, key


def _experiment_identifier(text: str, attributes: frozenset[str]) -> tuple[Field, str]:
    entity, dot, _ = text.partition(".")
    allowed = ("attribute", "tag", "tags")
    if dot and entity not in allowed:
        raise InvalidInput(f"Invalid entity type '{entity}'. Valid entity types are {allowed}", code="filter.invalid")
    return _identifier(text, attributes)
