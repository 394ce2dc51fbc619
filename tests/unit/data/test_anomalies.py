"""Anomalies: what is usual is never called unusual, what is far off always is, each with its reason."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import NotFound
from modelyard.kernel.events import events as events_table
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.data import Data
from modelyard.planes.data.anomalies import FreshnessWatch
from modelyard.planes.data.anomaly_rules import (
    HISTORY_MIN,
    ColumnMeasure,
    Earlier,
    Measure,
    expected_by,
    judge,
    overdue,
    spoken,
)
from modelyard.types.contracts import Contract

MONDAY = dt.datetime(2024, 1, 1, 6, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def measure(rows: int, **columns: ColumnMeasure) -> Measure:
    return Measure(rows=rows, columns=columns)


def daily(rows: list[int], start: dt.datetime = MONDAY) -> list[Earlier]:
    return [Earlier(version=n + 1, at=start + n * DAY, measure=measure(count)) for n, count in enumerate(rows)]


def column(null_rate: float = 0.0, mean: float | None = None, std: float | None = None, distinct: int | None = None,
           type: str = "double") -> ColumnMeasure:  # fmt: skip
    return ColumnMeasure(type=type, null_rate=null_rate, mean=mean, std=std, distinct=distinct)


# --- volume -----------------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 10**7), min_size=HISTORY_MIN, max_size=40)


@given(st.integers(1, 10**7), st.integers(HISTORY_MIN, 60))
def test_the_same_as_ever_is_usual(rows: int, times: int) -> None:
    assert judge(daily([rows] * times), measure(rows), MONDAY + times * DAY) == []


@given(COUNTS)
def test_the_median_of_the_history_is_usual(rows: list[int]) -> None:
    middle = sorted(rows)[len(rows) // 2]
    history = [Earlier(version=n, at=MONDAY, measure=measure(count)) for n, count in enumerate(rows)]
    assert judge(history, measure(middle), MONDAY) == [] or len(rows) % 2 == 0


@given(COUNTS, st.integers(1, 10**7), st.randoms(use_true_random=False))
def test_the_order_of_the_history_and_the_unit_do_not_matter(rows: list[int], found: int, draw: object) -> None:
    history = daily(rows)
    shuffled = sorted(history, key=lambda _: draw.random())  # type: ignore[attr-defined]
    at = MONDAY + len(rows) * DAY
    one, other = judge(history, measure(found), at), judge(shuffled, measure(found), at)
    assert one == other
    tenfold = judge(daily([10 * count for count in rows]), measure(10 * found), at)
    assert [anomaly.kind for anomaly in one] == [anomaly.kind for anomaly in tenfold]


@given(COUNTS)
def test_what_is_far_beyond_all_before_is_unusual_and_says_why(rows: list[int]) -> None:
    [anomaly] = judge(daily(rows), measure(20 * max(rows) + 1), MONDAY + len(rows) * DAY)
    assert (anomaly.kind, anomaly.observed) == ("volume", 20 * max(rows) + 1)
    assert anomaly.expected_high is not None
    assert anomaly.expected_high < anomaly.observed
    assert "unusually many" in anomaly.reason


@given(COUNTS, st.integers(1, 10**7), st.integers(1, 10**7))
def test_what_lies_farther_out_is_not_more_usual(rows: list[int], near: int, far: int) -> None:
    middle = sorted(rows)[len(rows) // 2]
    assume(middle <= near <= far)
    at = MONDAY + len(rows) * DAY
    assert not judge(daily(rows), measure(near), at) or judge(daily(rows), measure(far), at)


def test_too_little_history_tells_nothing() -> None:
    assert judge(daily([100] * (HISTORY_MIN - 1)), measure(1), MONDAY) == []


def test_a_sunday_is_measured_by_sundays() -> None:
    weeks = [1000, 1010, 990, 1005, 995, 200, 50] * 5
    sunday, monday = MONDAY + 34 * DAY, MONDAY + 35 * DAY
    assert judge(daily(weeks[:-1]), measure(52), sunday) == []
    [anomaly] = judge(daily(weeks), measure(52), monday)
    assert "on a Monday" in anomaly.reason
    [anomaly] = judge(daily(weeks[:-1]), measure(1000), sunday)
    assert "on a Sunday" in anomaly.reason


# --- columns ----------------------------------------------------------------------------------------------------


def judged(before: list[ColumnMeasure], found: ColumnMeasure, rows: int = 1_000) -> list[str]:
    history = [Earlier(version=n, at=MONDAY, measure=measure(rows, x=one)) for n, one in enumerate(before)]
    return [f"{one.kind}: {one.reason}" for one in judge(history, measure(rows, x=found), MONDAY)]


def test_nulls_means_and_distinct_values_out_of_the_usual_are_named() -> None:
    usual = [column(null_rate=0.01 + n / 1000, mean=50 + n / 10, std=5, distinct=40 + n % 2) for n in range(10)]
    assert judged(usual, column(null_rate=0.015, mean=50.5, std=5, distinct=41)) == []
    [found] = judged(usual, column(null_rate=0.4, mean=50.5, std=5, distinct=41))
    assert found.startswith("null_rate: 40.0% of column 'x' is null")
    [found] = judged(usual, column(null_rate=0.015, mean=500, std=5, distinct=41))
    assert found.startswith("mean: column 'x' is 500 on average, where 50.45 is usual")
    [found] = judged(usual, column(null_rate=0.015, mean=50.5, std=5, distinct=3))
    assert found.startswith("distinct: column 'x' has 3 different values")


@given(st.lists(st.floats(0, 1), min_size=HISTORY_MIN, max_size=30), st.integers(10, 10**6))
def test_a_null_rate_within_those_before_and_near_their_middle_is_usual(rates: list[float], rows: int) -> None:
    middle = sorted(rates)[len(rates) // 2]
    found = judged([column(null_rate=rate) for rate in rates], column(null_rate=middle), rows)
    assert found == [] or len(rates) % 2 == 0


def test_an_increasing_key_is_not_unusual_for_increasing() -> None:
    usual = [column(mean=1000.0 * n + 500, std=288.0) for n in range(30)]
    assert judged(usual, column(mean=30_500.0, std=288.0)) == []


def test_a_change_of_schema_needs_no_history_but_the_write_before() -> None:
    before = [Earlier(version=1, at=MONDAY, measure=measure(5, a=column(), b=column(type="string")))]
    found = judge(before, measure(5, a=column(type="int64"), c=column()), MONDAY)
    assert [one.reason for one in found] == [
        "column 'b' is gone",
        "column 'c' (double) is new",
        "column 'a' was double and is int64",
    ]
    assert {one.kind for one in found} == {"schema"}


# --- freshness --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(60, 10**6), min_size=HISTORY_MIN, max_size=50))
def test_who_keeps_the_gaps_of_the_past_is_never_late(gaps: list[int]) -> None:
    at = [MONDAY]
    for gap in gaps:
        at.append(at[-1] + dt.timedelta(seconds=gap))
    expected = expected_by(at)
    assert expected is not None
    assert min(gaps) <= expected.gap_s
    assert expected.by > at[-1]
    assert overdue(expected, at[-1], expected.by) is None
    late = overdue(expected, at[-1], expected.by + dt.timedelta(seconds=1))
    assert late is not None
    assert "usually come" in late.reason


def test_a_feed_that_rests_at_weekends_is_not_late_on_saturday() -> None:
    workdays = [MONDAY + n * DAY for n in range(40) if (MONDAY + n * DAY).weekday() < 5]
    friday = max(at for at in workdays if at.weekday() == 4)
    expected = expected_by([at for at in workdays if at <= friday])
    assert expected is not None
    assert expected.by >= friday + 3 * DAY
    assert "after a Friday" in expected.reason
    tuesday = expected_by([at for at in workdays if at <= friday - 3 * DAY])
    assert tuesday is not None
    assert tuesday.by < friday - 3 * DAY + 2 * DAY


def test_a_promise_counts_for_more_than_habit_and_without_either_nobody_can_tell() -> None:
    assert expected_by([MONDAY, MONDAY + DAY]) is None
    assert expected_by([]) is None
    expected = expected_by([MONDAY], promised_s=7_200)
    assert expected is not None
    assert expected.by == MONDAY + dt.timedelta(hours=2)
    assert "its contract promises a version every 2 hours" in expected.reason


@pytest.mark.parametrize(
    ("seconds", "text"), [(1, "1 second"), (90, "90 seconds"), (7_200, "2 hours"), (302_400, "3.5 days")]
)
def test_durations_are_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text


# --- through the plane ------------------------------------------------------------------------------------------


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def rows(count: int, amount: float = 10.0) -> pa.Table:
    return pa.table({"id": range(count), "amount": [amount + n % 7 for n in range(count)]})


def write_daily(data: Data, scope: Scope, clock: FixedClock, days: int) -> None:
    for _ in range(days):
        data.write(scope, "orders", rows(100), create=True)
        clock.advance(86_400)


def anomaly_events(data: Data, scope: Scope) -> list[dict[str, object]]:
    with data._database.reading(scope) as tx:
        found = tx.all(events_table.select().where(events_table.c.kind == "dataset.anomaly_found"))
    return [json.loads(row.data) if isinstance(row.data, str) else row.data for row in found]


def test_an_unusual_write_is_published_with_a_warning_and_an_event_and_the_next_ends_it(
    data: Data, scope: Scope, clock: FixedClock
) -> None:
    write_daily(data, scope, clock, 8)
    assert data.anomalies.list(scope).items == []
    written = data.write(scope, "orders", rows(3, amount=9_000))
    assert written.published
    warned = {one.name: one.severity for one in written.report.failed}
    assert warned == {"unusual volume": "warn", "unusual mean of amount": "warn"}
    found = data.anomalies.list(scope, "orders", standing=True).items
    assert {one.anomaly.kind for one in found} == {"volume", "mean"}
    assert {one.version for one in found} == {9}
    [event] = anomaly_events(data, scope)
    assert event["count"] == 2
    data.write(scope, "orders", rows(100))
    assert data.anomalies.list(scope, standing=True).items == []
    assert len(data.anomalies.list(scope).items) == 2


def test_a_contract_may_make_what_is_unusual_block(data: Data, scope: Scope, clock: FixedClock) -> None:
    write_daily(data, scope, clock, 7)
    data.contracts.set(scope, "orders", Contract(on_anomaly="block"))
    written = data.write(scope, "orders", rows(2))
    assert written.status == "quarantined"
    assert "unusually few" in written.report.failed[0].message
    assert data.get(scope, "orders").latest == 7


def test_a_version_that_does_not_come_is_noticed_once(data: Data, scope: Scope, clock: FixedClock) -> None:
    write_daily(data, scope, clock, 8)
    loop = ReconcileLoop(data._database, [FreshnessWatch(data._database)])
    loop.settle()
    assert data.anomalies.list(scope).items == []
    clock.advance(3 * 86_400)
    loop.settle()
    clock.advance(86_400)
    loop.settle()
    [found] = data.anomalies.list(scope, standing=True).items
    assert (found.version, found.anomaly.kind) == (None, "freshness")
    assert "no version for 4 days" in found.anomaly.reason
    assert len(anomaly_events(data, scope)) == 1
    data.write(scope, "orders", rows(100))
    assert data.anomalies.list(scope, standing=True).items == []


def test_what_a_contract_promises_is_watched_from_the_first_version_on(
    data: Data, scope: Scope, clock: FixedClock
) -> None:
    data.write(scope, "orders", rows(5), create=True)
    data.contracts.set(scope, "orders", Contract(max_age_s=3_600))
    loop = ReconcileLoop(data._database, [FreshnessWatch(data._database)])
    clock.advance(3_000)
    loop.settle()
    assert data.anomalies.list(scope).items == []
    clock.advance(1_000)
    loop.settle()
    [found] = data.anomalies.list(scope).items
    assert "its contract promises" in found.anomaly.reason


def test_the_freshness_of_a_dataset_can_be_asked_for_at_any_time(data: Data, scope: Scope, clock: FixedClock) -> None:
    data.write(scope, "orders", rows(5), create=True)
    first = clock.now()
    assert data.anomalies.freshness(scope, "orders").due_at is None
    data.contracts.set(scope, "orders", Contract(max_age_s=3_600))
    known = data.anomalies.freshness(scope, "orders")
    assert (known.last_at, known.due_at, known.overdue) == (first, first + dt.timedelta(hours=1), False)
    clock.advance(4_000)
    ReconcileLoop(data._database, [FreshnessWatch(data._database)]).settle()
    late = data.anomalies.freshness(scope, "orders")
    assert (late.due_at, late.overdue) == (first + dt.timedelta(hours=1), True)
    assert "its contract promises" in late.reason
    with pytest.raises(NotFound):
        data.anomalies.freshness(scope, "nothing")


def test_the_volumes_of_writes_come_with_what_was_usual_then(data: Data, scope: Scope, clock: FixedClock) -> None:
    write_daily(data, scope, clock, 8)
    data.write(scope, "orders", rows(3))
    volumes = data.anomalies.volumes(scope, "orders")
    assert [one.rows for one in volumes] == [100] * 8 + [3]
    assert [one.expected_low for one in volumes[:HISTORY_MIN]] == [None] * HISTORY_MIN
    last = volumes[-1]
    [said] = [one.anomaly for one in data.anomalies.list(scope).items if one.anomaly.kind == "volume"]
    assert (last.expected_low, last.expected_high) == (said.expected_low, said.expected_high)
