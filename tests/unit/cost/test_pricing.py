from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.cost.pricing import GIB, amount, lines, price_attempt, quantities, split, split_attempt
from modelyard.types.cost import Price
from modelyard.types.jobs import AttemptState, AttemptUsage, Resources, Usage

START = datetime(2013, 6, 1, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def attempt(
    cpu_s: float = 3600, wall_s: float = 3600, peak: int = 0, asked: int = 0, ended: bool = True
) -> AttemptUsage:
    return AttemptUsage(
        job_id="j1", attempt=1, name="fit", labels={}, submitted_by="ada", resources=Resources(memory_bytes=asked),
        state=AttemptState.SUCCEEDED if ended else AttemptState.RUNNING, started_at=START,
        ended_at=START + timedelta(seconds=wall_s) if ended else None,
        usage=Usage(cpu_s=cpu_s, wall_s=wall_s, peak_rss_bytes=peak),
    )  # fmt: skip


def cpu(price: str, since: datetime = LONG_AGO) -> Price:
    return Price(resource="cpu_h", price=Decimal(price), effective_from=since)


def memory(price: str, since: datetime = LONG_AGO) -> Price:
    return Price(resource="memory_gib_h", price=Decimal(price), effective_from=since)


def test_an_hour_of_a_cpu_costs_its_price() -> None:
    priced = price_attempt(attempt(), [cpu("0.04")], START)
    assert amount(priced.nanos) == Decimal("0.04")
    (line,) = lines([priced])
    assert (line.resource, line.quantity, line.price, line.amount) == ("cpu_h", 1, Decimal("0.04"), Decimal("0.04"))


def test_memory_is_what_was_used_or_asked_for_if_that_is_more() -> None:
    assert quantities(attempt(peak=2 * GIB))["memory_gib_h"] == 2
    assert quantities(attempt(peak=2 * GIB, asked=4 * GIB))["memory_gib_h"] == 4


def test_a_price_that_changes_meanwhile_counts_by_time() -> None:
    prices = [cpu("1"), cpu("3", START + timedelta(minutes=15))]
    priced = price_attempt(attempt(), prices, START)
    assert amount(priced.nanos) == Decimal("0.25") * 1 + Decimal("0.75") * 3
    assert lines([priced])[0].price is None


def test_the_order_in_which_prices_were_set_does_not_matter() -> None:
    prices = [cpu("3", START + timedelta(minutes=15)), cpu("1")]
    assert price_attempt(attempt(), prices, START) == price_attempt(attempt(), prices[::-1], START)


def test_a_later_price_does_not_change_what_is_past() -> None:
    before = price_attempt(attempt(), [cpu("1")], START)
    assert price_attempt(attempt(), [cpu("1"), cpu("9", START + timedelta(hours=2))], START) == before


def test_use_before_the_first_price_is_named_not_hidden() -> None:
    priced = price_attempt(attempt(), [cpu("1", START + timedelta(minutes=30))], START)
    assert amount(priced.nanos) == Decimal("0.5")
    assert priced.unpriced == ("cpu_h",)
    assert price_attempt(attempt(peak=GIB), [cpu("1")], START).unpriced == ("memory_gib_h",)


def test_what_runs_still_is_priced_so_far() -> None:
    running = attempt(cpu_s=60, wall_s=60, ended=False)
    assert amount(price_attempt(running, [cpu("60")], START + timedelta(seconds=60)).nanos) == Decimal(1)


def test_an_attempt_of_no_length_costs_what_it_used() -> None:
    assert amount(price_attempt(attempt(cpu_s=0.5, wall_s=0), [cpu("7200")], START).nanos) == Decimal(1)


@given(st.integers(0, 10**15), st.integers(1, 1000))
def test_parts_add_up_to_the_whole(nanos: int, parts: int) -> None:
    found = split(nanos, parts)
    assert sum(found) == nanos
    assert max(found) - min(found) <= 1


attempts = st.builds(
    attempt,
    cpu_s=st.floats(0, 1e6),
    wall_s=st.floats(0, 1e6),
    peak=st.integers(0, 2**40),
    asked=st.integers(0, 2**40),
)
price = st.decimals(min_value=0, max_value=1000, places=6, allow_nan=False)
since = st.datetimes(datetime(2012, 1, 1), datetime(2014, 1, 1), timezones=st.just(UTC))
prices = st.lists(
    st.builds(Price, resource=st.sampled_from(["cpu_h", "memory_gib_h"]), price=price, effective_from=since),
    max_size=5,
    unique_by=lambda one: (one.resource, one.effective_from),
)


@settings(deadline=None)
@given(st.lists(attempts, max_size=6), prices, st.integers(1, 7))
def test_lines_and_splits_add_up_exactly(many: list[AttemptUsage], book: list[Price], parts: int) -> None:
    priced = [price_attempt(one, book, START) for one in many]
    total = amount(sum(one.nanos for one in priced))
    assert sum((line.amount for line in lines(priced)), Decimal(0)) == total
    pieces = [piece for one in priced for piece in split_attempt(one, parts)]
    assert sum((line.amount for line in lines(pieces)), Decimal(0)) == total


@settings(deadline=None)
@given(attempts, prices)
def test_rounding_is_half_a_nano_unit_per_charge(one: AttemptUsage, book: list[Price]) -> None:
    for charge in price_attempt(one, book, START).charges:
        assert abs(Fraction(charge.nanos, 10**9) - charge.quantity * Fraction(charge.price)) <= Fraction(1, 2 * 10**9)


def test_a_decimal_price_is_taken_as_it_is_written() -> None:
    # 0.1 and 0.2 as floats would not be 0.3.
    priced = [price_attempt(attempt(), [cpu(text)], START) for text in ("0.1", "0.2")]
    assert amount(sum(one.nanos for one in priced)) == Decimal("0.3")
