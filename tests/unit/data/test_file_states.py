"""The audit of a write that takes rows away reads the files that it rewrites, and says what all rows say."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from modelyard.engines.tables.delta import DeltaTables
from modelyard.engines.tables.sql import sandbox
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data, file_profiles, file_states
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks import Provided
from modelyard.planes.data.checks.running import run_suite
from modelyard.planes.data.file_states import StateKeeper
from modelyard.planes.data.writing import Writer
from modelyard.types.checks import (
    Check,
    DistinctValues,
    Distribution,
    Finite,
    InSet,
    Monotonic,
    NotNull,
    Parses,
    Range,
    Reference,
    References,
    Regex,
    RowCount,
    RowCountMatches,
    Satisfies,
    Sql,
    Statistic,
    Unique,
)
from modelyard.types.data import CheckReport, CheckResult, Retention
from modelyard.types.data_branches import Vacuum
from unit.data.small_files import PER_FILE, batch


@pytest.fixture(autouse=True)
def _files_of_few_rows_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_profiles, "KEPT_ROWS_MIN", 20)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows of the parts of each look at files."""
    found: list[list[int]] = []
    look = StateKeeper._look

    def counting(self: Any, dataset: Any, staying: Any, parts: Any, *others: Any) -> Any:
        found.append(sorted(sum(file.rows for file in one.files) for one in parts.values() if one.wanted))
        return look(self, dataset, staying, parts, *others)

    monkeypatch.setattr(StateKeeper, "_look", counting)
    return found


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")


SUITE: list[Check] = [
    NotNull(column="id"),
    Range(column="x", min=0),
    Regex(column="s", pattern="^s"),
    Unique(columns=["id"]),
    RowCount(of="dataset", min=1),
    Statistic(column="s", measure="distinct", max=5, of="dataset"),
    Statistic(column="x", measure="mean", max=1_000, of="dataset"),
]


def filled(data: Data, scope: Scope, files: int = 5, checks: Sequence[Check] = SUITE) -> None:
    data.create(scope, "flights", key=["id"], checks=checks)
    for at in range(files):
        data.write(scope, "flights", batch(at * PER_FILE))


def refused(*_: object) -> None:
    raise AssertionError("the whole table is read")


def evaluated(report: CheckReport) -> set[int]:
    """How many rows the checks looked at that count rows."""
    return {one.evaluated for one in report.results if one.check in ("not_null", "range", "regex", "unique")}


def how(report: CheckReport) -> dict[str, str | None]:
    return {one.name: one.merge for one in report.results if one.merge}


def test_a_delete_looks_at_the_file_that_it_rewrites(
    data: Data, scope: Scope, looked_at: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(data, scope)
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_table", refused)
        found = data.delete_rows(scope, "flights", "id = 123")
    assert looked_at == [[PER_FILE - 1]]
    assert set(how(found.report).values()) == {"merged"}
    assert found.report.rows == 249
    assert evaluated(found.report) == {249}
    data.delete_rows(scope, "flights", "id = 124 OR id = 205")
    assert looked_at[1:] == [[48 + 49]], "both in one new file; the others are known"


def test_a_merge_looks_at_the_file_that_it_rewrites(
    data: Data, scope: Scope, looked_at: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(data, scope)
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "_table", refused)
        found = data.write(scope, "flights", batch(245, 10), mode="merge")
    assert looked_at == [[PER_FILE - 5]]
    assert {one.check: one.evaluated for one in found.report.results if one.check in ("unique", "not_null")} == {
        "unique": 255,
        "not_null": 10,
    }


def test_a_merge_looks_at_other_rows_for_what_is_unique_beside_the_key(data: Data, scope: Scope) -> None:
    filled(data, scope, 3, [Unique(columns=["x"], severity="warn")])
    wrong = pa.table({"id": [7], "x": [math.sqrt(120)], "s": ["s0"]})
    [found] = [one for one in data.write(scope, "flights", wrong, mode="merge").report.results if one.check == "unique"]
    assert (found.status, found.evaluated, found.failing, found.merge) == ("failed", 150, 2, "merged")
    assert {row["id"] for row in found.sample} == {7, 120}
    # From a table in which pairs fail, nothing is known of what is left.
    again = data.delete_rows(scope, "flights", "id = 120").report
    [found] = [one for one in again.results if one.check == "unique"]
    assert (found.status, found.failing, found.merge) == ("passed", 0, "scanned")


def test_what_was_found_of_a_merge_is_not_taken_for_what_all_rows_say(data: Data, scope: Scope) -> None:
    filled(data, scope, 2)
    data.write(scope, "flights", batch(95, 10), mode="merge")
    run = data.checking.run(scope, "flights")
    assert evaluated(run.report) == {105}
    assert set(how(run.report).values()) == {"merged"}


def test_a_suite_run_by_hand_reads_what_is_not_known_of_files_and_keeps_nothing_of_them(
    data: Data, scope: Scope, looked_at: list[list[int]], database: Database
) -> None:
    filled(data, scope, 3)
    data.write(scope, "flights", batch(145, 10), mode="merge")
    with database.reading(scope) as tx:
        kept = tx.all(file_states.states.select())
    data.checking.run(scope, "flights")
    assert looked_at.pop() == [45 + 10], "what stays of the file that was rewritten, and the small one that came"
    run = data.checking.run(scope, "flights", checks=[Finite(column="x")])
    assert (how(run.report), evaluated(run.report)) == ({"finite(x)": "scanned"}, set())
    with database.reading(scope) as tx:
        assert tx.all(file_states.states.select()) == kept


def test_what_is_not_known_is_looked_at_once_and_some_files_a_write(
    data: Data, scope: Scope, looked_at: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_states, "LOOKS_MAX", 2)
    filled(data, scope, 5, ())
    data.write(scope, "flights", batch(1_000, 5))
    data.update(scope, "flights", checks=SUITE)
    data.delete_rows(scope, "flights", "id = 1")
    assert looked_at.pop() == [PER_FILE - 1, PER_FILE, PER_FILE, 2 * PER_FILE + 5]
    data.delete_rows(scope, "flights", "id = 2")
    assert looked_at.pop() == [5, PER_FILE - 2, PER_FILE, PER_FILE]
    data.delete_rows(scope, "flights", "id = 3")
    assert looked_at.pop() == [5, PER_FILE - 3]
    # A check more is asked of every file, those before are not.
    data.update(scope, "flights", checks=[*SUITE, Finite(column="x")])
    data.delete_rows(scope, "flights", "id = 4")
    assert looked_at.pop() == [PER_FILE - 4, PER_FILE, PER_FILE, 2 * PER_FILE + 5]


def test_conditions_on_more_than_the_row_are_asked_of_all_rows(data: Data, scope: Scope) -> None:
    checks: list[Check] = [
        Satisfies(condition="x <= (SELECT max(x) FROM dataset)", severity="warn"),
        Satisfies(condition="x IS DISTINCT FROM -1", severity="warn"),
        Range(column="x", min=0, where="now() > TIMESTAMPTZ '2020-01-01'"),
    ]
    filled(data, scope, 3, checks)
    report = data.delete_rows(scope, "flights", "id = 149").report
    assert [one.merge for one in report.results if one.check in ("satisfies", "range")] == [
        "rescans", "merged", "rescans"
    ]  # fmt: skip
    assert report.passed


def test_rows_that_fail_are_shown_wherever_they_are(data: Data, scope: Scope) -> None:
    checks: list[Check] = [
        Range(column="x", max=10, severity="warn"),
        Parses(column="s", form="json", severity="warn"),
    ]
    filled(data, scope, 4, checks)
    report = data.delete_rows(scope, "flights", "id = 0").report
    for one, failing in [(found, found.failing) for found in report.results if found.check in ("range", "parses")]:
        assert one.merge == "merged"
        assert len(one.sample) == 20
        with sandbox({"dataset": data.read(scope, "flights")}) as session:
            assert len(session.rows(one.query)) == failing == (99 if one.check == "range" else 199)


def test_a_vacuum_forgets_what_checks_said_of_files_that_are_gone(data: Data, scope: Scope, database: Database) -> None:
    filled(data, scope, 3)
    data.delete_rows(scope, "flights", "id = 7")
    with database.reading(scope) as tx:
        assert len(tx.all(file_states.states.select())) == 4
    data.layout.vacuum(scope, "flights", Vacuum(retention=Retention(versions=1), grace_s=0))
    with database.reading(scope) as tx:
        kept = {row.name for row in tx.all(file_states.states.select())}
    assert kept == {file.name for file in map(Path, data.files(scope, "flights").files)}


# --- whatever was written -----------------------------------------------------------------------------------------

FIXED = Reference(dataset="other", version="1")
ALL_KINDS: list[Check] = [
    NotNull(column="f", semantics="pandas"),
    InSet(column="s", values=["a", "b"], by="g"),
    Range(column="f", min=0, max=2, where="i > 0"),
    Range(column="z", min=0),
    Regex(column="s", pattern="^a"),
    Finite(column="f"),
    Parses(column="s", form="json"),
    Satisfies(condition="i % 2 = 0"),
    Unique(columns=["id"]),
    Unique(columns=["id", "s"], where="g = 'x'", ignore_row_if="never"),
    Unique(columns=["u"]),
    Unique(columns=["f", "i"]),
    Unique(columns=["u"], by="g"),
    Monotonic(column="i"),
    References(columns=["i"], dataset="other", ref="1"),
    RowCount(of="dataset", max=90),
    RowCount(of="dataset", by="g", max=20),
    RowCountMatches(dataset="other", ref="1"),
    Statistic(column="i", measure="sum", max=3, of="dataset"),
    Statistic(column="f", measure="max", max=2, by="g", of="dataset"),
    Statistic(column="f", measure="distinct", max=4, of="dataset"),
    Statistic(column="id", measure="distinct", max=4, of="dataset"),
    Statistic(column="z", measure="not_null_share", min=0.5, of="dataset"),
    Statistic(column="f", measure="mean", max=1, of="dataset"),
    Statistic(column="i", measure="std", max=1, by="g", of="dataset"),
    Statistic(column="f", measure="median", max=1, of="dataset"),
    DistinctValues(column="s", values=["a", "b", "c"], relation="equal", of="dataset"),
    Distribution(column="f", measure="psi", reference=FIXED, max=0.1, bins=4, of="dataset"),
    Distribution(column="s", measure="chi_square", reference=FIXED, p_min=0.1, of="dataset"),
    Sql(query="SELECT * FROM dataset WHERE i > 1"),
]
OTHER = pa.table({"i": [0, 1, 2, 3], "f": [0.0, 1.0, 2.0, 3.0], "s": ["a", "b", "a", "c"]})


def random_rows(seed: int, ids: Sequence[int], *, group: str = "", z: bool = False) -> pa.Table:
    chance = random.Random(seed)
    columns: dict[str, pa.Array] = {
        "id": pa.array(ids, pa.int64()),
        "u": pa.array([one if seed % 3 else one % 7 for one in ids], pa.int64()),
        "i": pa.array([chance.choice([None, -1, 0, 1, 2, 3]) for _ in ids], pa.int64()),
        "f": pa.array([chance.choice([None, 0.0, 1.0, 2.5, math.nan, math.inf]) for _ in ids], pa.float64()),
        "s": pa.array([chance.choice([None, "a", "b", "12", "日本"]) for _ in ids], pa.string()),
        "g": pa.array([group or chance.choice([None, "x", "y"]) for _ in ids], pa.string()),
    }
    if z:
        columns["z"] = pa.array([chance.choice([None, math.nan, 1.0, -1.0]) for _ in ids], pa.float64())
    return pa.table(columns)


def said(one: CheckResult) -> tuple[Any, ...]:
    def rounded(value: Any) -> Any:
        return f"{value:.9g}" if isinstance(value, float) else str(value)

    slices = sorted(
        (str(part.value), part.status, part.evaluated, part.failing, part.missing, rounded(part.observed))
        for part in one.slices
    )
    return (one.name, one.status, one.evaluated, one.failing, one.missing, rounded(one.observed), slices)


class Acts:
    """Writes of all kinds, each of whose reports is held against a look at all rows."""

    def __init__(self, home: Path, scope: Scope) -> None:
        self.database = Database(f"sqlite:///{home}/catalog.db")
        metadata.create_all(self.database.engine)
        self.data = Data(self.database, DeltaTables(home / "tables"), home / "spill")
        self.scope = scope
        self.next = 0
        self.z = False
        self.data.create(scope, "other")
        self.data.write(scope, "other", OTHER)
        self.data.create(scope, "d", key=["id"], checks=[replace(one, severity="warn") for one in ALL_KINDS])
        for seed in (1, 2):
            self.do("append", seed)

    def do(self, what: str, seed: int) -> None:
        count, at = 15 + seed % 30, seed % max(self.next, 1)
        match what:
            case "append" | "evolve":
                self.z = self.z or what == "evolve"
                self.write("append", random_rows(seed, range(self.next, self.next + count), z=self.z))
                self.next += count
            case "merge":
                self.write("merge", random_rows(seed, range(at, at + 10), z=self.z))
                self.next = max(self.next, at + 10)
            case "replace":
                rows = random_rows(seed, range(self.next, self.next + 5), group="x", z=self.z)
                self.next += 5
                self.write("overwrite", rows, where="g = 'x'")
            case "overwrite":
                self.write("overwrite", random_rows(seed, range(count), z=self.z))
                self.next = count
            case "compact":
                self.data.layout.compact(self.scope, "d")
            case _:
                report = self.data.delete_rows(self.scope, "d", f"id BETWEEN {at} AND {at + seed % 25}").report
                self.compare(report, over_all=True)
        self.compare(self.data.checking.run(self.scope, "d").report, over_all=True)

    def write(self, mode: Any, rows: pa.Table, where: str | None = None) -> None:
        found = self.data.write(self.scope, "d", rows, mode=mode, where=where, evolve=True)
        self.compare(found.report, over_all=False, rows=rows)

    def compare(self, report: CheckReport, *, over_all: bool, rows: pa.Table | None = None) -> None:
        whole = self.data.read(self.scope, "d")
        tables = {"dataset": whole, "batch": whole if rows is None else rows.select(whole.schema.names), "other": OTHER}
        provided = {"other@1": Provided("other", {one.name: str(one.type) for one in OTHER.schema}, "dataset:other@1")}
        checks = self.data.get(self.scope, "d").checks
        with sandbox(tables) as session:
            now = self.database.clock.now()
            expected = run_suite(session, checks, columns_of(whole.schema), now, provided=provided, one_table=over_all)
        found = {one.name: one for one in report.results}
        for one in expected:
            assert said(found[one.name]) == said(one)


@pytest.mark.slow
@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    acts=st.lists(
        st.tuples(
            st.sampled_from(["append", "evolve", "merge", "delete", "replace", "overwrite", "compact"]),
            st.integers(0, 1_000),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_whatever_was_written_its_report_says_what_all_rows_say(
    acts: list[tuple[str, int]], scope: Scope, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = Acts(tmp_path_factory.mktemp("acts"), scope)
    for what, seed in acts:
        done.do(what, seed)
    done.database.close()
