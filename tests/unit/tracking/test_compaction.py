"""Compaction changes no point; each is written again once a level; reading a key touches few segments; charts stay."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from modelyard.kernel.auth import Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import EngineError
from modelyard.kernel.ids import new_id
from modelyard.kernel.leases import take_lease
from modelyard.planes.tracking import Tracking, compaction, packing, reading, series, store
from modelyard.planes.tracking.compaction import FANOUT, SETTLED, SETTLED_POINTS_MIN, Made, Segment
from modelyard.planes.tracking.history import History
from modelyard.planes.tracking.points import Batch, PointColumns
from modelyard.types.tracking import AskCurves, CreateRun

Logged = list[tuple[str, float, int, int]]
BATCHES = st.lists(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.floats(allow_nan=False), st.integers(0, 50), st.integers(0, 50)),
        min_size=1,
        max_size=20,
    ),
    min_size=1,
    max_size=12,
)


def parts_of(batches: list[Logged]) -> list[dict[str, History]]:
    return [packing.unpack_all(Batch.of(PointColumns.of(one)).body) for one in batches]


def read(bodies: list[bytes], key: str) -> Any:
    found = series.merge(packing.unpack(body, key) for body in bodies)
    return [column.tolist() for column in found[:3]]


def line(count: int, start: int = 0, spike_at: int | None = None) -> History:
    steps = np.arange(start, start + count)
    values = np.sin(steps / 1_000)
    if spike_at is not None:
        values[spike_at] = 50.0
    return History(values, steps, steps * 10)


@settings(deadline=None)
@given(BATCHES)
def test_merging_changes_no_point(batches: list[Logged]) -> None:
    before = [Batch.of(PointColumns.of(one)).body for one in batches]
    made = compaction.merge(parts_of(batches), 1)
    for key in "abcd":
        after = [one.body for one in made if one.first_key <= key <= one.last_key]
        assert read(after, key) == read(before, key)
    assert sum(one.points for one in made) == sum(len(read(before, key)[0]) for key in "abcd")


def test_a_long_series_settles_with_a_sketch_and_the_rest_stays_loose() -> None:
    many = {f"k{at:03}": line(400) for at in range(400)}
    made = compaction.merge([{"long": line(SETTLED_POINTS_MIN * 4 + 100)}, many], 3)
    settled = [one for one in made if one.level == SETTLED]
    mixed = [one for one in made if one.level == 3]
    assert [(one.first_key, one.last_key) for one in settled] == [("long", "long")] * 2
    assert all(one.sketch is not None for one in settled)
    assert all(one.sketch is None for one in mixed)
    # Neighbours in the order of keys, without overlap: a key is in one of them.
    assert len(mixed) >= 3
    assert all(left.last_key < right.first_key for left, right in itertools.pairwise(mixed))


def test_each_point_is_written_again_once_a_level_and_a_key_stays_in_few_segments() -> None:
    segments: list[Segment] = []
    bodies: dict[int, dict[str, History]] = {}
    number = written = 0
    steps = 900
    keys = [f"k{at:02}" for at in range(30)]
    for step in range(steps):
        number += 1
        batch = Batch.of(PointColumns.of([(key, float(step), step, step) for key in keys]))
        bodies[number] = packing.unpack_all(batch.body)
        segments.append(Segment(number, 0, keys[0], keys[-1], batch.points))
        while chosen := compaction.plan(segments):
            made: list[Made] = compaction.merge([bodies.pop(one.number) for one in chosen], chosen[0].level + 1)
            segments = [one for one in segments if one not in chosen]
            for one in made:
                number += 1
                written += one.points
                bodies[number] = packing.unpack_all(one.body)
                segments.append(Segment(number, one.level, one.first_key, one.last_key, one.points))
    levels = math.ceil(math.log(steps, FANOUT))
    assert written <= steps * len(keys) * levels
    assert len(segments) < FANOUT * levels
    whole = series.merge(part.get("k07") for part in bodies.values())
    assert whole.steps.tolist() == list(range(steps))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 199_999), st.integers(4, 2_000))
def test_a_sketch_of_a_sketch_keeps_the_spike_and_the_ends(spike_at: int, points_max: int) -> None:
    history = line(200_000, spike_at=spike_at)
    pieces = [history.at(slice(start, start + 50_000)) for start in range(0, 200_000, 50_000)]
    sketched = series.merge(
        packing.unpack(packing.pack(series.sketch(piece, compaction.SKETCH_POINTS)), "any") for piece in pieces
    )
    assert sketched.total == 200_000
    assert len(sketched) <= 4 * compaction.SKETCH_POINTS
    drawn = series.thin(sketched, points_max)
    assert len(drawn) <= points_max
    assert (drawn.steps[0], drawn.steps[-1]) == (0, 199_999)
    assert drawn.values.max() == 50.0
    assert drawn.steps[int(drawn.values.argmax())] == spike_at


def compacted(tracking: Tracking, database: Database, clock: FixedClock) -> None:
    (compactor,) = tracking.reconcilers()
    while due := list(compactor.due(clock.now())):
        with database.transaction(system_scope("default")) as tx:
            lease = take_lease(tx.connection, f"test-{new_id()}", "test", tx.now, 60)
        assert lease is not None
        compactor.act(due[0], lease)


def queue(database: Database) -> None:
    with database.transaction(system_scope("default")) as tx:
        tx.execute(
            store.inserting(tx, store.compactions).on_conflict_do_nothing(),
            [{"run": row.number, "project": row.project} for row in tx.all(select(store.runs))],
        )


@pytest.mark.slow
def test_reading_one_key_of_a_run_with_many_reads_few_segments(
    tracking: Tracking, database: Database, scope: Scope, run_id: str, clock: FixedClock
) -> None:
    keys = [f"metric/{at:04}" for at in range(1_000)]
    for step in range(160):
        tracking.runs.log(scope, run_id, [(key, step + at / 1_000, step, step) for at, key in enumerate(keys)])
    queue(database)
    compacted(tracking, database, clock)
    with database.reading(scope) as tx:
        bodies = reading.bodies_of(tx, 1, "metric/0500")
        (total,) = tx.one(select(func.count()).select_from(store.metric_segments)) or (0,)
    assert len(bodies) < total
    assert sum(len(body) for _, body in bodies) < 160_000 * 24 // 2
    found = tracking.metrics.history(scope, run_id, "metric/0500")
    assert found.steps == list(range(160))
    assert found.values == [step + 0.5 for step in range(160)]
    curves = tracking.metrics.curves(scope, AskCurves(runs=[run_id], keys=["metric/0999", "metric/0000", "none"]))
    assert [(curve.key, curve.total) for curve in curves] == [("metric/0999", 160), ("metric/0000", 160)]


def test_a_chart_of_a_long_series_reads_sketches_and_keeps_its_spike(
    tracking: Tracking, database: Database, scope: Scope, run_id: str, clock: FixedClock
) -> None:
    whole = line(300_000, spike_at=123_456)
    for start in range(0, 300_000, 10_000):
        part = whole.at(slice(start, start + 10_000))
        points = zip(["m"] * 10_000, part.values.tolist(), part.steps.tolist(), part.times.tolist(), strict=True)
        tracking.runs.log(scope, run_id, list(points))
    queue(database)
    compacted(tracking, database, clock)
    with database.reading(scope) as tx:
        drawn = reading.bodies_of(tx, 1, "m", thinned=True)
        every = reading.bodies_of(tx, 1, "m")
    assert sum(len(body) for _, body in drawn) * 3 < sum(len(body) for _, body in every)
    chart = tracking.metrics.history(scope, run_id, "m", points_max=2_000)
    assert chart.total == 300_000
    assert len(chart.values) <= 2_000
    assert max(value for value in chart.values if value is not None) == 50.0
    assert chart.steps[chart.values.index(50.0)] == 123_456
    (curve,) = tracking.metrics.curves(scope, AskCurves(runs=[run_id], keys=["m"], points=500))
    assert curve.total == 300_000
    assert 50.0 in curve.ys
    assert tracking.metrics.history(scope, run_id, "m").steps == list(range(300_000))


def test_a_damaged_segment_is_named_and_hurts_no_other_run(
    tracking: Tracking, database: Database, scope: Scope, run_id: str, clock: FixedClock
) -> None:
    other = tracking.runs.create(scope, CreateRun(name="two")).id
    for one in (run_id, other):
        for step in range(FANOUT + 1):
            tracking.runs.log(scope, one, [("m", float(step), step, step)])
    segments = store.metric_segments
    with database.transaction(scope) as tx:
        row = tx.one(select(segments).where(segments.c.run == 1).order_by(segments.c.number.desc()).limit(1))
        assert row is not None
        spoiled = bytes(row.body[:-1]) + bytes([row.body[-1] ^ 1])
        tx.execute(segments.update().where(segments.c.number == row.number).values(body=spoiled))
    queue(database)
    compacted(tracking, database, clock)
    with pytest.raises(EngineError, match=f"segment {row.number} of the metric points is damaged"):
        tracking.metrics.history(scope, run_id, "m")
    assert tracking.metrics.history(scope, other, "m").total == FANOUT + 1
    with database.reading(scope) as tx:
        counts = tx.all(select(segments.c.run, func.count()).group_by(segments.c.run).order_by(segments.c.run))
    assert [tuple(one) for one in counts] == [(1, FANOUT + 1), (2, 1)]
