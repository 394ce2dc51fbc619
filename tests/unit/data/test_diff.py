"""What differs between two versions, judged against plain Python."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engines.tables.delta import DeltaTables
from modelyard.engines.tables.sql import sandbox
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import Data, kept_diffs
from modelyard.planes.data.diff import _by_key, _by_row
from modelyard.planes.data.profile import wire_value
from modelyard.types.data import ColumnChange, Retention, VersionDiff
from modelyard.types.data_branches import Vacuum

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])
EMPTY = VersionDiff(dataset="d", before=1, after=2, rows_before=0, rows_after=0)
values = st.sampled_from([None, 1.0, 2.0, float("inf")])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(0, 6), values), st.dictionaries(st.integers(0, 6), values))
def test_by_key_every_row_is_the_same_added_removed_or_changed(
    before: dict[int, float | None], after: dict[int, float | None]
) -> None:
    tables = {
        name: pa.table({"id": list(held), "x": list(held.values())}, schema=SCHEMA)
        for name, held in (("before", before), ("after", after))
    }
    keyed = VersionDiff(dataset="d", before=1, after=2, rows_before=0, rows_after=0, key=["id"])
    with sandbox(tables) as session:
        found = _by_key(session, keyed, ["id", "x"], ["id", "x"])
        whole = _by_row(session, EMPTY, ["id", "x"])
    assert found.added == len(after.keys() - before.keys())
    assert found.removed == len(before.keys() - after.keys())
    assert found.changed == sum(before[key] != after[key] for key in before.keys() & after.keys())
    assert (whole.added, whole.removed) == (found.added + found.changed, found.removed + found.changed)
    assert found.samples.get("changed", []) == [
        {"id": key, "x before": wire_value(before[key]), "x after": wire_value(after[key])}
        for key in sorted(before.keys() & after.keys())
        if before[key] != after[key]
    ]
    assert [row["id"] for row in found.samples.get("added", [])] == sorted(after.keys() - before.keys())
    assert [row["id"] for row in found.samples.get("removed", [])] == sorted(before.keys() - after.keys())


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(values, max_size=6), st.lists(values, max_size=6))
def test_without_a_key_equal_rows_are_counted(before: list[float | None], after: list[float | None]) -> None:
    schema = pa.schema([("x", pa.float64())])
    tables = {name: pa.table({"x": held}, schema=schema) for name, held in (("before", before), ("after", after))}
    with sandbox(tables) as session:
        found = _by_row(session, EMPTY, ["x"])
    assert found.added == sum((Counter(after) - Counter(before)).values())
    assert found.removed == sum((Counter(before) - Counter(after)).values())


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


def test_versions_are_compared_in_columns_and_rows(data: Data, scope: Scope) -> None:
    data.create(scope, "flights", key=["id"])
    data.write(scope, "flights", pa.table({"id": [1, 2, 3], "x": ["a", "b", "c"], "old": [1, 1, 1]}))
    new = pa.table({"id": [2, 3, 4], "x": ["b", "C", "d"], "new": [1.5, 1.5, 1.5]})
    data.write(scope, "flights", new, mode="overwrite", replace_schema=True)
    found = data.diffs.between(scope, "flights", 1, None, ["id"])
    assert found.columns == [ColumnChange("old", "int64", None), ColumnChange("new", None, "double")]
    assert (found.before, found.after, found.added, found.removed, found.changed) == (1, 2, 1, 1, 1)
    assert found.samples["changed"] == [{"id": 3, "x before": "c", "x after": "C"}]
    assert [row["id"] for row in found.samples["added"]] == [4]
    assert [row["id"] for row in found.samples["removed"]] == [1]
    same = data.diffs.between(scope, "flights", 2, 2, ["id"])
    assert (same.added, same.removed, same.changed, same.columns) == (0, 0, 0, [])


def test_what_cannot_be_compared_is_said(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    data.write(scope, "flights", pa.table({"id": [1, 1], "x": [1, 2]}))
    data.write(scope, "flights", pa.table({"id": [1], "x": [1]}))
    for key in (["nope"], ["id"]):
        with pytest.raises(InvalidInput):
            data.diffs.between(scope, "flights", 1, 2, key)
    assert data.diffs.between(scope, "flights", 1, 2, []).added == 1
    with pytest.raises(NotFound):
        data.diffs.between(scope, "flights", 1, 9, [])


def test_rows_that_come_more_often_and_columns_of_any_name_are_told(data: Data, scope: Scope) -> None:
    data.create(scope, "flights")
    before = {"side": [1, 1, 2, 2], "times": ["a", "a", None, None], "TOTAL": [float("nan")] * 4, "what": [[1]] * 4}
    after = {"side": [1, 2, 2, 2], "times": ["a", None, None, None], "TOTAL": [float("nan")] * 4, "what": [[1]] * 4}
    data.write(scope, "flights", pa.table(before))
    data.write(scope, "flights", pa.table(after), mode="overwrite")
    found = data.diffs.between(scope, "flights", 1, 2, [])
    assert (found.added, found.removed) == (1, 1)
    assert found.samples == {
        "added": [{"side": 2, "times": None, "TOTAL": "NaN", "what": [1]}],
        "removed": [{"side": 1, "times": "a", "TOTAL": "NaN", "what": [1]}],
    }
    data.write(
        scope, "flights", pa.table({"side": [7] * 30, "times": ["b"] * 30, "TOTAL": [0.5] * 30, "what": [[1]] * 30})
    )
    more = data.diffs.between(scope, "flights", 2, 3, [])
    assert (more.added, len(more.samples["added"])) == (30, 20)


def test_by_key_columns_of_any_name_and_times_that_python_has_none_for_are_told(data: Data, scope: Scope) -> None:
    far = pa.array([4 * 10**17] * 3, pa.timestamp("us"))
    before = pa.table({"old": [1, 2, 3], "new": ["a", None, "c"], "here": [math.nan, 1.0, None], "what": far})
    after = pa.table({"old": [2, 3, 4], "new": [None, "c", "d"], "here": [math.nan, None, 2.0], "what": far})
    data.create(scope, "flights")
    data.write(scope, "flights", before)
    data.write(scope, "flights", after, mode="overwrite")
    found = data.diffs.between(scope, "flights", 1, 2, ["old", "new"])
    assert (found.added, found.removed, found.changed) == (1, 1, 1)
    at = found.samples["added"][0]["what"]
    assert at.startswith("14645-06-30")
    assert found.samples == {
        "added": [{"old": 4, "new": "d", "here": 2.0, "what": at}],
        "removed": [{"old": 1, "new": "a", "here": "NaN", "what": at}],
        "changed": [
            {"old": 2, "new": None, "here before": 1.0, "here after": "NaN", "what before": at, "what after": at}
        ],
    }


@pytest.mark.parametrize(("before", "after", "what"), [(1, 2, "added"), (2, 1, "removed")])
def test_where_one_side_has_all_files_of_the_other_the_others_are_told(
    data: Data, scope: Scope, before: int, after: int, what: str
) -> None:
    data.create(scope, "flights", key=["id"])
    data.write(scope, "flights", pa.table({"id": [1, 2]}))
    data.write(scope, "flights", pa.table({"id": list(range(40, 10, -1))}))
    found = data.diffs.between(scope, "flights", before, after, ["id"])
    assert {"added": found.added, "removed": found.removed}[what] == 30 == found.added + found.removed
    assert found.samples == {what: [{"id": one} for one in range(11, 31)]}


def test_what_differs_is_found_once(data: Data, scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    data.create(scope, "flights", key=["id"])
    data.write(scope, "flights", pa.table({"id": [1, 2]}))
    data.write(scope, "flights", pa.table({"id": [3]}))
    assert data.diffs.known(scope, "flights", 1, 2, []) is None
    found = data.diffs.between(scope, "flights", 1, 2, [])
    monkeypatch.setattr("modelyard.planes.data.diff._by_row", None)
    assert data.diffs.between(scope, "flights", 1, "latest", []) == found
    assert data.diffs.known(scope, "flights", 1, 2, []) == found
    assert data.diffs.between(scope, "flights", 1, 2, ["id"]).key == ["id"], "by another key it is another"
    with pytest.raises(NotFound):
        data.diffs.known(scope, "flights", 1, 9, [])
    assert data.diffs.known(scope, "flights", 2, 2, []) is None


def test_of_versions_that_are_given_up_no_sample_is_left(data: Data, scope: Scope, database: Database) -> None:
    data.create(scope, "flights")
    for number in range(3):
        data.write(scope, "flights", pa.table({"id": [number]}))
    data.diffs.between(scope, "flights", 1, 3, [])
    data.diffs.between(scope, "flights", 2, 3, [])
    data.layout.vacuum(scope, "flights", Vacuum(retention=Retention(versions=2), grace_s=0))
    with database.reading(scope) as tx:
        assert [row.before for row in tx.all(kept_diffs.diffs.select())] == [2]


def test_some_diffs_are_kept_the_newest(
    data: Data, scope: Scope, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_diffs, "KEPT_MAX", 2)
    data.create(scope, "flights")
    for number in range(4):
        data.write(scope, "flights", pa.table({"id": [number]}))
    for before in (1, 2, 3):
        clock.advance(1)
        data.diffs.between(scope, "flights", before, 4, [])
    assert [data.diffs.known(scope, "flights", before, 4, []) is not None for before in (1, 2, 3)] == [
        False,
        True,
        True,
    ]
