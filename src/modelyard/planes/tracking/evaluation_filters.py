"""What a filter and an order may say of evaluation datasets. Pure: text in, typed clauses out."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking.filters import (
    NUMERIC,
    TEXTUAL,
    Clause,
    Order,
    check_orders,
    split_order,
    valid_comparisons,
)
from modelyard.planes.tracking.operands import check_left, check_operator, number_of, text_of, trimmed, unquoted

_TIMES = frozenset({"created_time", "last_update_time"})
_SEARCHABLE = _TIMES | {"name", "created_by", "last_updated_by"}
_ORDERABLE = _TIMES | {"name"}
_ENTITIES = {"attribute": "attribute", "attributes": "attribute", "tag": "tag", "tags": "tag"}


def parse_evaluation_datasets(text: str) -> list[Clause]:
    """The clauses of a filter. Raises InvalidInput."""
    found = []
    for one in valid_comparisons(text, quoted=True):
        check_left(one)
        entity, key = _identifier(one.left.text, _SEARCHABLE)
        if one.right is None:
            raise InvalidInput(f"Invalid comparator for {entity}: {one.operator}", code="filter.invalid")
        if entity == "tag":
            check_operator(one.operator, TEXTUAL, "Invalid comparator for tag: {}")
            found.append(
                Clause("tag", key, one.operator, text_of(one.right, "Expected a quoted string value for tag."))
            )
        elif key in _TIMES:
            check_operator(one.operator, NUMERIC, "Invalid comparator for numeric attribute: {}")
            value = number_of(one.right, f"Expected numeric value type for numeric attribute: {key}")
            found.append(Clause("attribute", key, one.operator, value))
        else:
            check_operator(one.operator, TEXTUAL, "Invalid comparator for string attribute: {}")
            text_value = text_of(one.right, "Expected a quoted string value for attributes.")
            found.append(Clause("attribute", key, one.operator, text_value))
    return found


def order_evaluation_datasets(order_by: Sequence[str]) -> list[Order]:
    """The keys to order by, newest first where none is named. Raises InvalidInput."""
    check_orders(order_by)
    found = []
    for text in order_by or ("created_time DESC",):
        name, ascending = split_order(text)
        entity, key = _identifier(name, _ORDERABLE)
        if entity != "attribute":
            raise InvalidInput(f"Invalid order_by entity: {entity}", code="order.invalid")
        found.append(Order("attribute", key, ascending))
    return found


def _identifier(text: str, attributes: frozenset[str]) -> tuple[str, str]:
    name, dot, key = text.partition(".")
    if not dot:
        name, key = "attribute", text
    entity = _ENTITIES.get(trimmed(name, "`"))
    if entity is None:
        raise InvalidInput(
            f"Invalid entity type '{trimmed(name, '`')}'. Valid values are {sorted(_ENTITIES)}", code="filter.invalid"
        )
    key = trimmed(unquoted(key), "`")
    if entity == "attribute" and key not in attributes:
        raise InvalidInput(
            f"Invalid attribute key '{key}' specified. Valid keys are '{sorted(attributes)}'", code="filter.invalid"
        )
    return entity, key
