"""Weights are met, keys stick, and a change of one weight moves no key between the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.endpoint.router import Router
from modelyard.kernel.errors import InvalidInput

weights = st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100.0), min_size=1, max_size=6)


@given(weights, st.text(max_size=40))
def test_the_same_key_has_the_same_variant_in_any_order(chosen: dict[str, float], key: str) -> None:
    forth = Router(list(chosen.items())).choose(key)
    back = Router(list(chosen.items())[::-1]).choose(key)
    assert forth == back
    assert forth in chosen


@given(weights, st.sampled_from("abcdef"), st.floats(0.01, 100.0))
def test_a_changed_weight_moves_keys_only_to_or_from_its_variant(
    chosen: dict[str, float], changed: str, weight: float
) -> None:
    before, after = Router(list(chosen.items())), Router(list({**chosen, changed: weight}.items()))
    for key in map(str, range(60)):
        was, now = before.choose(key), after.choose(key)
        assert was == now or changed in (was, now)
        if changed in chosen and weight > chosen[changed]:
            assert was == now or now == changed


def test_shares_are_as_weighted() -> None:
    router = Router([("a", 6.0), ("b", 3.0), ("c", 1.0), ("off", 0.0)])
    found = [router.choose(f"row-{number}") for number in range(20_000)]
    for name, share in (("a", 0.6), ("b", 0.3), ("c", 0.1), ("off", 0.0)):
        assert found.count(name) / len(found) == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("bad", [[], [("a", 0.0)], [("a", 1.0), ("a", 2.0)], [("a", -1.0)], [("a", float("nan"))]])
def test_weights_that_choose_nothing_are_refused(bad: list[tuple[str, float]]) -> None:
    with pytest.raises(InvalidInput):
        Router(bad)
