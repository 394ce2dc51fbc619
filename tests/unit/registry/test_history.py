"""Who was it at time T, and where does one step back lead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from modelyard.planes.registry.history import step_back, version_at
from modelyard.types.registry import AliasMove

START = datetime(2026, 1, 1, tzinfo=UTC)


def moves(*steps: tuple[str, int | None]) -> list[AliasMove]:
    made: list[AliasMove] = []
    for number, (kind, version) in enumerate(steps):
        made.append(
            AliasMove(
                id=str(number),
                model="delay",
                alias="champion",
                kind=kind,
                version=version,
                previous=made[-1].version if made else None,
                at=START + timedelta(days=number),
                by="ann",
                reason="",
            )
        )
    return made


def test_who_was_it_at_a_time() -> None:
    past = moves(("promote", 1), ("promote", 2), ("delete", None), ("promote", 4))
    assert version_at(past, START - timedelta(seconds=1)) is None
    assert version_at(past, START) == 1
    assert version_at(past, START + timedelta(days=1, hours=5)) == 2
    assert version_at(past, START + timedelta(days=2, hours=5)) is None
    assert version_at(past, START + timedelta(days=90)) == 4


def test_rollback_goes_back_further_each_time() -> None:
    usable = {1, 2, 3}
    past = [("promote", 1), ("promote", 2), ("promote", 3)]
    assert step_back(moves(*past), usable) == 2
    past.append(("rollback", 2))
    assert step_back(moves(*past), usable) == 1
    past.append(("rollback", 1))
    assert step_back(moves(*past), usable) is None
    past.append(("promote", 3))
    assert step_back(moves(*past), usable) == 1


def test_rollback_passes_over_what_was_dropped_and_after_a_delete_restores() -> None:
    assert step_back(moves(("promote", 1), ("promote", 2), ("promote", 3)), {1, 3}) == 1
    assert step_back(moves(("promote", 1), ("promote", 2), ("delete", None)), {1, 2}) == 2
    assert step_back(moves(("promote", 1)), {1}) is None
    assert step_back([], {1}) is None


@given(st.lists(st.integers(1, 5), max_size=12), st.sets(st.integers(1, 5)))
def test_rolling_back_unwinds_the_promotions(versions: list[int], usable: set[int]) -> None:
    """A list of promotions is a stack (without repeats); rollbacks take from it, unusable ones are passed over."""
    steps: list[tuple[str, int | None]] = [("promote", version) for version in versions]
    stack = [version for n, version in enumerate(versions) if n == 0 or versions[n - 1] != version]
    while (target := step_back(moves(*steps), usable)) is not None:
        present = stack.pop()
        while stack[-1] not in usable or stack[-1] == present:
            stack.pop()
        assert target == stack[-1]
        steps.append(("rollback", target))
    assert not any(version in usable and version != stack[-1] for version in stack[:-1])
