"""What a filter and an order may say of traces. Pure: text in, typed clauses out. The grammar is `grammar.py`'s.

Besides its own attributes, tags and metadata a trace is found by its spans (conditions on spans hold for one and the
same span), by assessments, by the run that it is tied to and by the prompts that it used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking.filters import NULLS, NUMERIC, check_orders, split_order, valid_comparisons
from modelyard.planes.tracking.grammar import Comparison, Kind
from modelyard.planes.tracking.operands import check_left, number_of, text_of, texts_of, trimmed, unquoted

TraceField = Literal["attribute", "tag", "metadata", "span", "feedback", "expectation", "issue", "run", "prompt"]

NAME_TAG = "mlflow.traceName"
RUN_KEY = "mlflow.sourceRun"
ATTRIBUTES = "attributes."
"""How the key of a span clause starts that is about an attribute of the span."""
_ENTITIES: dict[str, TraceField] = {
    "attribute": "attribute", "attributes": "attribute", "trace": "attribute",
    "tag": "tag", "tags": "tag",
    "request_metadata": "metadata", "metadata": "metadata",
    "span": "span", "feedback": "feedback", "expectation": "expectation", "issue": "issue",
}  # fmt: skip
_TIMES = {
    "timestamp": "request_ms", "timestamp_ms": "request_ms",
    "execution_time": "duration_ms", "execution_time_ms": "duration_ms",
    "end_time": "end_ms", "end_time_ms": "end_ms",
}  # fmt: skip
_TEXTS = {"request_id": "id", "status": "state", "client_request_id": "client_request_id"}
_MAPPED = frozenset({"name", "run_id", "prompt", "text"})
_SEARCHABLE = frozenset(_TIMES) | frozenset(_TEXTS) | _MAPPED
_ORDERABLE = frozenset(_TIMES) | {"experiment_id", "status", "request_id", "name", "run_id"}
_LISTED = frozenset({"name", "status", "request_id", "run_id", "client_request_id"})
_SPAN_COLUMNS = frozenset({"name", "type", "status"})
_LIKES = frozenset({"!=", "=", "LIKE", "ILIKE", "RLIKE"})
_LISTS = frozenset({"IN", "NOT IN"})
_QUOTED = "Expected a quoted string value for {} (e.g. 'my-value')."


class TraceClause(NamedTuple):
    """One condition. `value` is a number for times, a list for IN, None for IS NULL."""

    field: TraceField
    key: str
    operator: str
    value: str | float | list[str] | None


class TraceOrder(NamedTuple):
    """One key to order by: a column of the trace, a tag, or a piece of metadata."""

    field: TraceField
    key: str
    ascending: bool


def parse_traces(text: str) -> list[TraceClause]:
    """The clauses of a filter over traces. Raises InvalidInput."""
    return [_clause(one) for one in valid_comparisons(text, quoted=True)]


def order_traces(order_by: Sequence[str]) -> list[TraceOrder]:
    """The keys to order traces by. Raises InvalidInput, also where a key comes twice."""
    check_orders(order_by)
    found = []
    for text in order_by:
        name, ascending = split_order(text)
        field, key = _identifier(name, _ORDERABLE)
        if field == "attribute":
            field, key = _ordered_attribute(key)
        if field not in ("attribute", "tag", "metadata"):
            raise InvalidInput(f"Invalid identifier type '{field}'", code="order.invalid")
        found.append(TraceOrder(field, key, ascending))
    if len({order[:2] for order in found}) < len(found):
        raise InvalidInput(f"`order_by` contains duplicate fields: {list(order_by)}", code="order.duplicate")
    return found


def _ordered_attribute(key: str) -> tuple[TraceField, str]:
    if key == "name":
        return "tag", NAME_TAG
    if key == "run_id":
        return "metadata", RUN_KEY
    return "attribute", _TIMES.get(key) or _TEXTS.get(key, "experiment")


def _identifier(text: str, attributes: frozenset[str]) -> tuple[TraceField, str]:
    entity, dot, key = text.partition(".")
    if not dot:
        entity, key = "attribute", text
    field = _ENTITIES.get(trimmed(entity, "`"))
    if field is None:
        raise InvalidInput(
            f"Invalid entity type '{trimmed(entity, '`')}'. Valid values are {sorted(_ENTITIES)}",
            code="filter.invalid",
        )
    key = trimmed(unquoted(key), "`")
    if field == "attribute" and key not in attributes:
        raise InvalidInput(
            f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(attributes)}'", code="filter.invalid"
        )
    return field, key


def _clause(one: Comparison) -> TraceClause:
    check_left(one)
    field, key = _identifier(one.left.text, _SEARCHABLE)
    if field == "attribute":
        return _attribute_clause(one, key)
    if field == "span":
        return _span_clause(one, key)
    if field == "issue":
        return _issue_clause(one, key)
    _check(one.operator, _LIKES | NULLS, "" if field in ("tag", "metadata") else f"assessment.{key} comparator")
    if one.right is None:
        return TraceClause(field, key, one.operator, None)
    value = text_of(one.right, _QUOTED.format(field))
    # The run that made a trace is in its metadata; runs that it was tied to afterwards count as well.
    if field == "metadata" and key == RUN_KEY and one.operator == "=":
        return TraceClause("run", key, "=", value)
    return TraceClause(field, key, one.operator, value)


def _attribute_clause(one: Comparison, key: str) -> TraceClause:
    if one.right is None:
        raise InvalidInput(
            f"IS NULL / IS NOT NULL is only supported for tags, metadata and assessments, not for attribute '{key}'",
            code="filter.invalid",
        )
    if key in _TIMES:
        _check(one.operator, NUMERIC)
        value = number_of(one.right, f"Expected numeric value type for numeric attribute: {key}")
        return TraceClause("attribute", _TIMES[key], one.operator, value)
    if key == "text":
        return _span_clause(one, "content")
    if one.right.kind is Kind.NUMBER:
        raise InvalidInput(
            f"Only the '{sorted(_TIMES)}' attributes support comparison with numeric values.", code="filter.invalid"
        )
    if key == "prompt":
        return _prompt_clause(one)
    # Names and runs are kept as a tag and as metadata, which know no lists.
    _check(one.operator, _LIKES | (_LISTS if key in _TEXTS else frozenset()))
    if one.right.kind is Kind.LIST:
        if key not in _LISTED:
            raise InvalidInput(
                f"Only attributes in {sorted(_LISTED)} supports comparison with a list of quoted string values.",
                code="filter.invalid",
            )
        return TraceClause("attribute", _TEXTS[key], one.operator, texts_of(one.right))
    text = text_of(one.right, "Expected a quoted string value or a list of quoted string values for attributes.")
    if key == "name":
        return TraceClause("tag", NAME_TAG, one.operator, text)
    if key == "run_id":
        return TraceClause("run" if one.operator == "=" else "metadata", RUN_KEY, one.operator, text)
    return TraceClause("attribute", _TEXTS[key], one.operator, text)


def _prompt_clause(one: Comparison) -> TraceClause:
    assert one.right is not None
    if one.operator != "=":
        raise InvalidInput(
            f"Invalid comparator '{one.operator}' for prompts filter. "
            "Only '=' is supported with format: prompt = \"name/version\"",
            code="filter.invalid",
        )
    value = text_of(one.right, _QUOTED.format("prompt"))
    if value.count("/") != 1:
        raise InvalidInput(
            f"Invalid prompts filter value '{value}'. Expected format: prompt = \"name/version\"",
            code="filter.invalid",
        )
    return TraceClause("prompt", "prompt", "=", value)


def _span_clause(one: Comparison, key: str) -> TraceClause:
    if key == "content":
        allowed = frozenset({"LIKE", "ILIKE"})
    elif key in _SPAN_COLUMNS or key.startswith(ATTRIBUTES):
        allowed = _LIKES | _LISTS
    else:
        raise InvalidInput(
            f"Invalid span attribute '{key}'. "
            f"Supported attributes: {', '.join(sorted(_SPAN_COLUMNS))}, attributes.<attribute_name>.",
            code="filter.invalid",
        )
    _check(one.operator, allowed, f"span.{key} comparator")
    if key.startswith(ATTRIBUTES):
        key = ATTRIBUTES + trimmed(key[len(ATTRIBUTES) :], "`")
        if key == ATTRIBUTES:
            raise InvalidInput("Span attribute name cannot be empty after 'attributes.'", code="filter.invalid")
    assert one.right is not None
    if one.right.kind is Kind.LIST:
        return TraceClause("span", key, one.operator, texts_of(one.right))
    return TraceClause("span", key, one.operator, text_of(one.right, _QUOTED.format("span")))


def _issue_clause(one: Comparison, key: str) -> TraceClause:
    if key != "id":
        raise InvalidInput(f"Invalid issue attribute '{key}'. Supported attributes: id", code="filter.invalid")
    _check(one.operator, frozenset({"="}), "issue.id comparator")
    assert one.right is not None
    return TraceClause("issue", "id", "=", text_of(one.right, _QUOTED.format("issue")))


def _check(operator: str, allowed: frozenset[str], what: str = "Invalid comparator") -> None:
    if operator not in allowed:
        raise InvalidInput(
            f"{what or 'Invalid comparator'} '{operator}' not one of '{sorted(allowed)}'", code="filter.invalid"
        )
