"""Search: filters, orders with not-a-number and missing last, pages without gaps."""

from __future__ import annotations

import math

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import Tracking, narrowing, search
from modelyard.types.tracking import CreateExperiment, CreateRun

VALUES = {"low": 1.0, "high": 3.0, "nan": math.nan, "negative": -2.0, "none": None, "inf": math.inf}


@pytest.fixture
def names(tracking: Tracking, scope: Scope, clock: FixedClock) -> dict[str, str]:
    """Runs by what their metric `m` is; each started a second after the one before."""
    made = {}
    for at, (name, value) in enumerate(VALUES.items()):
        run = tracking.runs.create(scope, CreateRun(name=name))
        points = [] if value is None else [("m", value, 0, 0)]
        tracking.runs.log(scope, run.id, points, {"p": name, "even": str(at % 2 == 0)}, {"Case": name.title()})
        made[run.id] = name
        clock.advance(1)
    return made


def found(tracking: Tracking, scope: Scope, names: dict[str, str], filter: str = "", *order_by: str) -> list[str]:
    return [names[run.id] for run in tracking.runs.search(scope, ["0"], filter, order_by).items]


def test_the_default_order_is_newest_first(tracking: Tracking, scope: Scope, names: dict[str, str]) -> None:
    assert found(tracking, scope, names) == list(reversed(VALUES))


def test_order_by_a_metric_puts_nan_and_missing_last_both_ways(
    tracking: Tracking, scope: Scope, names: dict[str, str]
) -> None:
    assert found(tracking, scope, names, "", "metrics.m ASC") == ["negative", "low", "high", "inf", "nan", "none"]
    assert found(tracking, scope, names, "", "metrics.m DESC") == ["inf", "high", "low", "negative", "nan", "none"]
    assert found(tracking, scope, names, "", "metrics.absent DESC") == list(reversed(VALUES))
    assert found(tracking, scope, names, "", "params.even", "metrics.m DESC") == [
        "inf", "high", "negative", "low", "nan", "none",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ("metrics.m > 0", {"low", "high", "inf"}),
        ("metrics.m <= 1", {"low", "negative"}),
        ("metrics.m != 1", {"high", "negative", "inf"}),
        ("metrics.m = 0", set()),
        ("params.p = 'low'", {"low"}),
        ("params.p != 'low'", set(VALUES) - {"low"}),
        ("params.absent != 'x'", set()),
        ("params.absent IS NULL", set(VALUES)),
        ("tags.Case IS NOT NULL", set(VALUES)),
        ("tags.Case LIKE 'N%'", {"nan", "negative", "none"}),
        ("tags.Case LIKE 'n%'", set()),
        ("tags.Case ILIKE 'n%'", {"nan", "negative", "none"}),
        ("tags.Case LIKE 'N_n'", {"nan"}),
        ("tags.Case LIKE 'N*'", set()),
        ("tags.Case LIKE 'N\\%'", set()),
        ("run_name = 'high' AND metrics.m > 2", {"high"}),
        ("attributes.status = 'RUNNING' AND params.even = 'True'", {"low", "nan", "none"}),
        ("end_time > 0", set()),
    ],
)
def test_a_filter_picks(
    tracking: Tracking, scope: Scope, names: dict[str, str], filter: str, expected: set[str]
) -> None:
    assert set(found(tracking, scope, names, filter)) == expected


@pytest.mark.parametrize("order", ["metrics.m DESC", "metrics.m ASC", "start_time ASC", "params.even"])
@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_pages_together_are_the_whole(
    tracking: Tracking, scope: Scope, names: dict[str, str], order: str, size: int
) -> None:
    whole = found(tracking, scope, names, "", order)
    seen: list[str] = []
    token: str | None = None
    for _ in range(10):
        page = tracking.runs.search(scope, ["0"], order_by=[order], limit=size, page=token)
        seen += [names[run.id] for run in page.items]
        token = page.next
        if token is None:
            break
    assert seen == whole


@pytest.mark.parametrize("looked_at", [1, 2, 3, 4, 5_000])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
def test_looking_among_the_best_first_changes_no_answer(
    tracking: Tracking, scope: Scope, looked_at: int, direction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for at, value in enumerate([1.0, 2.0, 2.0, 2.0, 3.0, 3.0]):
        run = tracking.runs.create(scope, CreateRun(name=f"r{at}"))
        tracking.runs.log(scope, run.id, [("m", value, 0, 0), ("even", float(at % 2), 0, 0)])
        made.append((value if direction == "ASC" else -value, at, run.id))
    expected = [run_id for _, at, run_id in sorted(made) if at % 2 == 0]
    monkeypatch.setattr(search, "BEST_LOOKED_AT", looked_at)
    seen: list[str] = []
    for size in (1, 2):
        seen, token = [], None
        while True:
            page = tracking.runs.search(
                scope, ["0"], "metrics.even = 0", [f"metrics.m {direction}"], limit=size, page=token
            )
            seen += [run.id for run in page.items]
            token = page.next
            if token is None:
                break
        assert seen == expected


@pytest.mark.parametrize("looked_at", [1, 3, 5_000])
@pytest.mark.parametrize("named", [0, 2, 50_000])
@pytest.mark.parametrize("order", ["params.p ASC", "params.p DESC", "metrics.m ASC"])
def test_looking_where_few_texts_meet_changes_no_answer(
    tracking: Tracking,
    scope: Scope,
    clock: FixedClock,
    looked_at: int,
    named: int,
    order: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = ["b", "a", "v" * 70 + "2", "a", None, "v" * 70 + "1", "c", "b"]
    for at, value in enumerate(values):
        run = tracking.runs.create(scope, CreateRun(name=str(at)))
        params = {"q": "x", **({} if value is None else {"p": value})}
        tracking.runs.log(scope, run.id, [("m", float(at), 0, 0)], params, {"t": "y" if at else "z"})
        clock.advance(1)
    expected = {"params.p ASC": "3176524", "params.p DESC": "2567314", "metrics.m ASC": "1234567"}[order]
    monkeypatch.setattr(search, "BEST_LOOKED_AT", looked_at)
    monkeypatch.setattr(narrowing, "NAMED_MAX", named)
    # As if each condition were met by many.
    monkeypatch.setattr(narrowing, "PROBED_MAX", 0)
    seen, token = "", ""
    for _ in range(4):
        page = tracking.runs.search(scope, ["0"], "params.q = 'x' AND tags.t = 'y'", [order], limit=2, page=token)
        seen += "".join(run.name for run in page.items)
        token = page.next or ""
    assert (seen, token) == (expected, "")


def test_only_the_experiments_and_stages_that_are_asked_for(
    tracking: Tracking, scope: Scope, names: dict[str, str]
) -> None:
    other = tracking.experiments.create(scope, CreateExperiment(name="other"))
    run = tracking.runs.create(scope, CreateRun(experiment_id=other.id))
    assert [one.id for one in tracking.runs.search(scope, [other.id]).items] == [run.id]
    assert tracking.runs.search(scope, []).items == []
    assert len(tracking.runs.search(scope).items) == len(VALUES) + 1
    tracking.runs.delete(scope, run.id)
    assert tracking.runs.search(scope, [other.id]).items == []
    assert [one.id for one in tracking.runs.search(scope, [other.id], view="deleted").items] == [run.id]


@pytest.mark.parametrize("limit", [0, -1, 50_001])
def test_a_limit_out_of_bounds_is_refused(tracking: Tracking, scope: Scope, limit: int) -> None:
    with pytest.raises(InvalidInput, match="Invalid value"):
        tracking.runs.search(scope, limit=limit)


def test_chosen_metrics_only(tracking: Tracking, scope: Scope, run_id: str) -> None:
    tracking.runs.log(scope, run_id, [("a", 1.0, 0, 0), ("b", 2.0, 0, 0)])
    (run,) = tracking.runs.search(scope, metric_keys=["b"]).items
    assert run.latest == {"b": 2.0}


def test_experiments_are_searched_by_name_and_tag(tracking: Tracking, scope: Scope) -> None:
    for name, tag in (("a", "x"), ("ab", "X"), ("Abc", None)):
        tags = {} if tag is None else {"k": tag}
        tracking.experiments.create(scope, CreateExperiment(name=name, tags=tags))

    def names(filter: str, *order_by: str) -> list[str]:
        return [one.name for one in tracking.experiments.search(scope, filter, order_by).items]

    assert names("name LIKE 'a%'", "name ASC") == ["a", "ab"]
    assert names("name ILIKE 'a%'", "experiment_id ASC") == ["a", "ab", "Abc"]
    assert names("tags.k = 'x'") == ["a"]
    assert set(names("tags.k IS NULL")) == {"Abc", "Default"}
