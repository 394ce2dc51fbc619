"""Many runs at a glance: keys, counts, groups, children, and curves for drawing."""

from __future__ import annotations

import math

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import Tracking
from modelyard.types.tracking import AskCurves, CreateRun, Run, Spread


@pytest.fixture
def made(tracking: Tracking, scope: Scope, clock: FixedClock) -> list[Run]:
    """Six runs over two depths and two users; the last has no params at all, the first value is not a number."""
    runs = []
    for at in range(6):
        run = tracking.runs.create(scope, CreateRun(name=f"r{at}", user="ada" if at < 4 else "ben"))
        params = {} if at == 5 else {"depth": str(at % 2), "Seed": "7"}
        value = math.nan if at == 0 else float(at)
        tracking.runs.log(scope, run.id, [("auc", value, 0, 0)], params, {"team": "red"})
        runs.append(run)
        clock.advance(1)
    return runs


def test_keys_say_how_many_runs_have_them_and_how_many_values(
    tracking: Tracking, scope: Scope, made: list[Run]
) -> None:
    found = {(key.kind, key.name): (key.runs, key.values) for key in tracking.overview.keys(scope, ["0"])}
    assert found[("metric", "auc")] == (6, 0)
    assert found[("param", "depth")] == (5, 2)
    assert found[("param", "Seed")] == (5, 1)
    assert found[("tag", "team")] == (6, 1)


def test_keys_are_found_by_a_part_in_any_case_and_among_the_filtered(
    tracking: Tracking, scope: Scope, made: list[Run]
) -> None:
    assert [key.name for key in tracking.overview.keys(scope, None, find="SEE")] == ["Seed"]
    assert tracking.overview.keys(scope, None, find="%") == []
    assert [key.runs for key in tracking.overview.keys(scope, None, "metrics.auc > 2.5", "auc")] == [3]
    assert tracking.overview.keys(scope, []) == []


def test_runs_are_counted_up_to_a_bound(tracking: Tracking, scope: Scope, made: list[Run]) -> None:
    assert tracking.overview.count(scope, ["0"]) == 6
    assert tracking.overview.count(scope, ["0"], at_most=4) == 4
    assert tracking.overview.count(scope, ["0"], "attributes.user_id = 'ben'") == 2
    tracking.runs.delete(scope, made[0].id)
    assert tracking.overview.count(scope) == 5
    assert tracking.overview.count(scope, view="deleted") == 1


def test_groups_have_the_spread_of_a_metric_without_what_is_no_number(
    tracking: Tracking, scope: Scope, made: list[Run]
) -> None:
    groups = tracking.overview.groups(scope, ["params.depth"], ["auc", "absent"]).items
    found = {group.values: (group.runs, group.metrics["auc"]) for group in groups}
    assert found == {
        ("0",): (3, Spread(count=2, mean=3.0, least=2.0, greatest=4.0)),
        ("1",): (2, Spread(count=2, mean=2.0, least=1.0, greatest=3.0)),
        (None,): (1, Spread(count=1, mean=5.0, least=5.0, greatest=5.0)),
    }
    assert groups[0].metrics["absent"] == Spread(count=0, mean=None, least=None, greatest=None)


def test_groups_are_ordered_paged_and_nested(tracking: Tracking, scope: Scope, made: list[Run]) -> None:
    def values(order: str) -> list[tuple[str | None, ...]]:
        return [g.values for g in tracking.overview.groups(scope, ["params.depth"], ["auc"], order=order).items]

    assert values("")[0] == ("0",)
    assert values("runs ASC")[0] == (None,)
    assert values("metrics.auc DESC") == [(None,), ("0",), ("1",)]
    assert values("metrics.auc ASC") == [("1",), ("0",), (None,)]
    first = tracking.overview.groups(scope, ["params.depth"], limit=2)
    assert len(first.items) == 2
    assert len(tracking.overview.groups(scope, ["params.depth"], limit=2, page=first.next).items) == 1
    both = tracking.overview.groups(scope, ["attributes.user", "tags.team"]).items
    assert [(group.values, group.runs) for group in both] == [(("ada", "red"), 4), (("ben", "red"), 2)]


@pytest.mark.parametrize("by", [[], ["depth"], ["metrics.auc"], ["attributes.stage"], ["params.a"] * 4, ["params."]])
def test_what_cannot_group_is_refused(tracking: Tracking, scope: Scope, by: list[str]) -> None:
    with pytest.raises(InvalidInput):
        tracking.overview.groups(scope, by)


def test_children_are_counted_by_their_parent(tracking: Tracking, scope: Scope, made: list[Run]) -> None:
    for child in made[1:4]:
        tracking.runs.log(scope, child.id, tags={"mlflow.parentRunId": made[0].id})
    tracking.runs.delete(scope, made[3].id)
    assert tracking.overview.children(scope, [made[0].id, made[5].id]) == {made[0].id: 2}


def test_curves_of_many_runs_are_thinned_and_keep_spikes(tracking: Tracking, scope: Scope) -> None:
    runs = [tracking.runs.create(scope, CreateRun(name=str(at))) for at in range(3)]
    for at, run in enumerate(runs[:2]):
        points = [("loss", 1.0 / (step + 1), step, 1_000 * step) for step in range(5_000)]
        points[2_500] = ("loss", 99.0 + at, 2_500, 2_500_000)
        tracking.runs.log(scope, run.id, points)
    asked = AskCurves(runs=[runs[1].id, runs[0].id, runs[2].id, "unknown"], keys=["loss", "absent"], points=100)
    curves = tracking.metrics.curves(scope, asked)
    assert [(curve.run_id, curve.key) for curve in curves] == [(runs[1].id, "loss"), (runs[0].id, "loss")]
    assert max(y for y in curves[1].ys if y is not None) == 99.0
    assert len(curves[0].xs) == len(curves[0].ys) <= 100
    assert curves[0].xs[0] == 0
    assert curves[0].xs[-1] == 4_999
    assert curves[0].total == 5_000


def test_a_curve_has_gaps_for_what_cannot_be_drawn_and_an_x_of_its_own(
    tracking: Tracking, scope: Scope, clock: FixedClock
) -> None:
    run = tracking.runs.create(scope, CreateRun())
    start = int(run.started_at.timestamp() * 1_000)
    values = [0.123456789, math.nan, math.inf, 0.0, 1e-300, -2e300]
    tracking.runs.log(scope, run.id, [("m", value, 3, start + 500 * at) for at, value in enumerate(values)])
    (by_step,) = tracking.metrics.curves(scope, AskCurves(runs=[run.id], keys=["m"]))
    assert by_step.xs == [0, 1, 2, 3, 4, 5], "all steps are equal: in the order of logging"
    assert by_step.ys == [0.1234568, None, None, 0.0, 1e-300, -2e300]
    (relative,) = tracking.metrics.curves(scope, AskCurves(runs=[run.id], keys=["m"], x="relative"))
    assert relative.xs == [0, 0.5, 1, 1.5, 2, 2.5]
    (wall,) = tracking.metrics.curves(scope, AskCurves(runs=[run.id], keys=["m"], x="wall"))
    assert wall.xs[1] == start / 1_000 + 0.5


def test_more_than_can_be_drawn_is_refused(tracking: Tracking, scope: Scope) -> None:
    with pytest.raises(InvalidInput, match="too many"):
        tracking.metrics.curves(scope, AskCurves(runs=[str(at) for at in range(1_001)], keys=["m"]))
