"""What pages of datasets, versions and batches are asked for by."""

from __future__ import annotations

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.limits import PAGE_ITEMS_MAX


def page_size(limit: int) -> int:
    """So many items. Raises InvalidInput for more than a page has."""
    if not 1 <= limit <= PAGE_ITEMS_MAX:
        raise InvalidInput(f"a page has 1 to {PAGE_ITEMS_MAX} items, not {limit}", code="page.limit_invalid")
    return limit


def page_token(after: str | None) -> int | None:
    """The number that a page begins after. Raises InvalidInput for what is none."""
    if after is None:
        return None
    if not (after.isascii() and after.isdecimal()) or len(after) > 9:
        raise InvalidInput(
            f"{after[:40]!a} is no token of a page", code="page.token_invalid", hint="pass `next` on as it came"
        )
    return int(after)
