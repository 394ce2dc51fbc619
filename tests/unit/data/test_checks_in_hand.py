"""Checks of rows that are in no dataset: tables, frames and files; and that many rows are asked otherwise than few, and
answer the same."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

import modelyard
from modelyard.engines.tables import foreign
from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.foreign import distinct_texts, foreign_rows
from modelyard.engines.tables.sql import sandbox
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.planes.data.audit import columns_of
from modelyard.planes.data.checks.running import run_suite
from modelyard.planes.data.checks.statements import Hints
from modelyard.types.checks import (
    Check,
    Compare,
    DistinctValues,
    Freshness,
    InSet,
    IsNull,
    Length,
    Like,
    Monotonic,
    NotInSet,
    NotNull,
    Range,
    References,
    Regex,
    RowCount,
    Satisfies,
    Sql,
    Statistic,
    Unique,
)

ROWS = pa.table(
    {
        "id": [1, 2, 3, 3],
        "carrier": ["AA", "UA", None, "??"],
        "delay": [1.5, float("nan"), None, -2.0],
        "at": pa.array([dt.datetime(2013, 1, day) for day in (1, 2, 3, 4)], pa.timestamp("ns")),
    }
)
CHECKS: list[Check] = [
    NotNull(column="carrier"),
    InSet(column="carrier", values=["AA", "UA"]),
    Unique(columns=["id"]),
    Range(column="at", min="2013-01-02T00:00:00+00:00"),
    Freshness(column="at", max_age_s=60),
]
FAILING = [1, 1, 2, 1, 0]


def test_a_table_is_checked_where_it_is_and_shows_what_fails() -> None:
    report = modelyard.check(ROWS, CHECKS)
    assert not report.passed
    assert report.rows == 4
    assert [one.failing for one in report.results] == FAILING
    assert [one.status for one in report.results] == ["failed"] * 5
    assert [row["carrier"] for row in report.results[1].sample] == ["??"]
    found = modelyard.failing_rows(ROWS, CHECKS[2])
    assert found["id"].to_pylist() == [3, 3]
    assert modelyard.check(ROWS, [NotNull(column="id")]).passed


def test_frames_files_and_readers_say_the_same(tmp_path: Path) -> None:
    wanted = [(one.failing, one.status) for one in modelyard.check(ROWS, CHECKS).results]
    pq.write_table(ROWS, tmp_path / "one.parquet")
    pq.write_table(ROWS.slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(ROWS.slice(2), tmp_path / "b.parquet")
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as sink, pa.ipc.new_file(sink, ROWS.schema) as writer:
        writer.write_table(ROWS)
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(ROWS, folder / "part-0.parquet")
    several = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for data in (
        ROWS.to_pandas(),
        ROWS.to_reader(),
        tmp_path / "one.parquet",
        several,
        tmp_path / "rows.arrow",
        folder,
    ):
        found = modelyard.check(data, CHECKS)
        assert [(one.failing, one.status) for one in found.results] == wanted, data
    csv.write_csv(ROWS.select(["id", "carrier"]), tmp_path / "rows.csv")
    assert modelyard.check(str(tmp_path / "rows.csv"), [CHECKS[2]]).results[0].failing == 2


def test_columns_keep_what_their_types_mean() -> None:
    odd = pa.table(
        {
            "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
            "large": pa.array(["x", "yy", None], pa.large_string()),
            "view": pa.array(["x", "yy", None], pa.string_view()),
            "small": pa.array([1, 2, 300], pa.uint16()),
            "half": pa.array([1.0, 2.0, None], pa.float16()),
            "zoned": pa.array([0, 3_600_000_000_000, None], pa.timestamp("ns", tz="Europe/Berlin")),
            "clock": pa.array([1, 2, 3], pa.time64("us")),
            "nothing": pa.nulls(3),
        }
    )
    report = modelyard.check(
        odd,
        [
            InSet(column="kind", values=["a"]),
            Length(column="large", max=1),
            Regex(column="view", pattern="^x$"),
            Range(column="small", min=0, max=255),
            Range(column="half", max=1),
            Range(column="zoned", min="1970-01-01T00:30:00+00:00"),
            NotNull(column="clock"),
            NotNull(column="nothing"),
        ],
    )
    assert [one.failing for one in report.results] == [1, 1, 1, 1, 1, 1, 0, 3]
    assert all(one.status != "error" for one in report.results)


@pytest.mark.parametrize("large", [False, True])
def test_texts_of_any_form_are_checked_and_large_ones_are_not_held_in_memory(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    if large:
        monkeypatch.setattr(foreign, "_IN_MEMORY_BYTES", 0)
    (tmp_path / "rows.csv").write_text("id,carrier,delay\n1,AA,1.5\n2,UA,\n3,,-2\n3,??,0\n")
    (tmp_path / "rows.tsv").write_text("id\tcarrier\tdelay\n1\tAA\t1.5\n2\tUA\t\n3\t\t-2\n3\t??\t0\n")
    lines = [{"id": 1, "carrier": "AA", "delay": 1.5}, {"id": 2, "carrier": "UA", "delay": None}]
    lines += [{"id": 3, "carrier": "", "delay": -2}, {"id": 3, "carrier": "??", "delay": 0}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    for name in ("rows.csv", "rows.tsv", "rows.jsonl"):
        held = foreign_rows(tmp_path / name)
        assert isinstance(held.rows, FileSet) is large
        report = modelyard.check(held, [*CHECKS[1:3], NotNull(column="delay")])
        assert (report.rows, [one.failing for one in report.results]) == (4, [2, 2, 1]), name
        found = modelyard.failing_rows(held, CHECKS[2], columns=["carrier", "id"])
        assert found.to_pydict() == {"carrier": ["", "??"], "id": [3, 3]}
        del held
    assert list((tmp_path / "temporary").iterdir()) == []
    (tmp_path / "rows.jsonl").write_text('{"id": 1}\n{"id": ')
    with pytest.raises(InvalidInput, match="JSON lines"):
        modelyard.check(tmp_path / "rows.jsonl", CHECKS)
    with pytest.raises(InvalidInput, match="'nothing' is missing"):
        modelyard.failing_rows(ROWS, CHECKS[2], columns=["nothing"])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_no_zone_are_instants_of_utc(unit: str) -> None:
    zone = dt.timezone(dt.timedelta(0))
    moments = [
        dt.datetime(1900, 1, 1, 23, 59, 59),
        dt.datetime(1969, 12, 31, 23, 59, 59),
        None,
        dt.datetime(2013, 7, 1),
    ]
    table = pa.table({"at": pa.array(moments, pa.timestamp(unit)), "n": [0, 1, 2, 3]})
    for place, moment in enumerate(moments):
        if moment is None:
            continue
        told = moment.replace(tzinfo=zone).isoformat()
        found = modelyard.check(table, [Range(column="at", min=told, max=told)]).results[0]
        assert (found.evaluated, found.failing, found.missing) == (3, 2, 1)
        assert {row["n"] for row in found.sample} == {0, 1, 3} - {place}


def test_a_time_that_has_no_end_is_still_one() -> None:
    for far in (2**63 - 1, 2**60):
        endless = pa.table({"at": pa.array([far, 0, None], pa.int64()).cast(pa.timestamp("us")), "n": [0, 1, 2]})
        late: list[Check] = [
            NotNull(column="at"),
            Range(column="at", max="2013-01-01T00:00:00+00:00"),
            Freshness(column="at", max_age_s=60),
        ]
        report = modelyard.check(endless, late)
        assert [(one.status, one.failing) for one in report.results] == [("failed", 1), ("failed", 1), ("failed", 0)]
        [shown] = report.results[1].sample
        assert shown["n"] == 0
        assert isinstance(shown["at"], str)


def test_suites_of_any_format_are_taken_as_documents_and_files(tmp_path: Path) -> None:
    gx = {"name": "mine", "expectations": [{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}}]}
    (tmp_path / "gx.json").write_text(json.dumps(gx))
    (tmp_path / "ours.yaml").write_text("- {check: not_null, column: carrier}\n")
    dbt = "models: [{name: flights, columns: [{name: id, data_tests: [unique]}]}]\n"
    (tmp_path / "schema.yml").write_text(dbt)
    assert modelyard.check(ROWS, gx).passed
    assert modelyard.check(ROWS, tmp_path / "gx.json").passed
    assert modelyard.check(ROWS, str(tmp_path / "ours.yaml")).results[0].failing == 1
    assert modelyard.check(ROWS, tmp_path / "schema.yml", model="flights").results[0].failing == 2
    with pytest.raises(Conflict) as caught:
        modelyard.check(ROWS, tmp_path / "ours.yaml", on_fail="raise")
    assert caught.value.code == "checks.failed"
    assert "1 of 4 rows fail" in caught.value.message


@pytest.mark.parametrize(
    "data",
    ["nowhere.parquet", 7, {"a": [1]}, [], pa.table({"a": [1], "A": [2]}), pa.table({"a": pa.array([], pa.int8())})],
)
def test_what_is_no_table_is_said(data: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InvalidInput):
        modelyard.check(tmp_path / "bad.parquet", CHECKS)
    if isinstance(data, pa.Table) and data.num_columns == 1:
        assert modelyard.check(data, [RowCount(min=1)]).results[0].status == "failed", "no rows are rows too"
        return
    with pytest.raises(InvalidInput):
        modelyard.check(data, CHECKS)


def test_no_file_is_reached_by_the_sql_of_a_check(tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "other.parquet")
    stolen = Sql(query=f"SELECT * FROM read_parquet('{tmp_path}/other.parquet')")
    [found] = modelyard.check(ROWS, [stolen]).results
    assert found.status == "error"


def test_a_check_that_refers_to_a_dataset_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "home"))
    client = modelyard.connect()
    modelyard.dataset("carriers", client).write(pa.table({"code": ["AA"]}))
    refers = References(columns=["carrier"], to=["code"], dataset="carriers")
    assert modelyard.check(ROWS, [refers], client=client).results[0].failing == 2
    [missing] = modelyard.check(ROWS, [replace(refers, dataset="nowhere")], client=client).results
    assert missing.status == "error"
    assert "nowhere" in missing.message


# --- many rows ----------------------------------------------------------------------------------------------------

texts = st.sampled_from(["a", "B7", "x\n", "", "äö", "null", None])
numbers = st.sampled_from([0.0, -1.5, 1e160, -1e160, 1e308, float("nan"), float("inf"), -float("inf"), None, 3.0])
rows = st.lists(st.tuples(texts, numbers, st.integers(-3, 3) | st.none()), max_size=12)
_OF_TEXTS: list[Check] = [
    Regex(column="s", pattern="^[a-z]"),
    Regex(column="s", pattern=["7$", "ö"], match="all", negate=True, semantics="pandas"),
    InSet(column="s", values=["a", "B7"]),
    InSet(column="s", values=["a"], mostly=0.5, by="i"),
    NotInSet(column="s", values=[""], where="i > 0"),
    Like(column="s", pattern="%7"),
    Length(column="s", min=1, max=2),
    NotNull(column="s"),
    IsNull(column="s"),
    DistinctValues(column="s", values=["a", "null"]),
    DistinctValues(column="s", values=["a"], relation="contain"),
    DistinctValues(column="s", values=[3], semantics="pandas"),
    Statistic(column="s", measure="distinct", max=2),
    Statistic(column="s", measure="distinct_share", min=0.5),
    Unique(columns=["s"]),
]
_OF_NUMBERS: list[Check] = [
    Statistic(column="f", measure="mean", min=-1, max=1),
    Statistic(column="f", measure="mean", min=-1, max=1, semantics="pandas", where="i IS NOT NULL"),
    Statistic(column="f", measure="std", max=1),
    Statistic(column="f", measure="std", max=1, by="s"),
    Statistic(column="f", measure="sum", max=1),
    Statistic(column="i", measure="std", max=1),
    Range(column="f", min=-1, max=1, semantics="pandas"),
    Range(column="i", min=0),
    Unique(columns=["i"]),
    Monotonic(column="i"),
    RowCount(max=3),
]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(rows)
def test_many_rows_are_asked_otherwise_and_answer_the_same(found: list[tuple[Any, Any, Any]]) -> None:
    schema = pa.schema([("s", pa.string()), ("f", pa.float64()), ("i", pa.int64())])
    table = pa.Table.from_pylist([dict(zip("sfi", row, strict=True)) for row in found], schema=schema)
    now = dt.datetime(2013, 3, 1, tzinfo=dt.UTC)
    checks = [*_OF_TEXTS, *_OF_NUMBERS]
    with sandbox({"batch": table, "dataset": table}) as session:
        few, many = (
            run_suite(session, checks, columns_of(schema), now, one_table=True, hints=hints)
            for hints in (Hints(rows=0), Hints(rows=1_000_000, distinct={"s": 7}))
        )
    for one, other in zip(few, many, strict=True):
        assert _told(one) == _told(other)


def test_samples_are_the_first_that_fail_each_check_however_many_fail_another() -> None:
    count = 3_000
    table = pa.table({"n": range(count), "text": [f"{place * 7919 % count}" for place in range(count)]})
    checks: list[Check] = [
        Range(column="n", max=-1),
        Range(column="n", max=2_990),
        Satisfies(condition="n % 1000 <> 999"),
        Unique(columns=["text"]),
        Range(column="n", max=2_990, where="n > 2_995"),
        NotInSet(column="n", values=[7]),
    ]
    report = modelyard.check(table, checks)
    assert [one.failing for one in report.results] == [count, 9, 3, 0, 4, 1]
    assert (report.results[3].evaluated, report.results[3].missing) == (count, 0)
    shown = [[row["n"] for row in one.sample] for one in report.results]
    assert shown == [[*range(20)], [*range(2_991, 3_000)], [999, 1_999, 2_999], [], [*range(2_996, 3_000)], [7]]
    few = modelyard.check(table.slice(2_900), checks).results
    assert [[row["n"] for row in one.sample][-1:] for one in few] == [[2_919], [2_999], [2_999], [], [2_999], []]
    twice = pa.table({"text": ["b", "a", None, "b", None]})
    [found] = modelyard.check(twice, [Unique(columns=["text"])]).results
    assert (found.evaluated, found.failing, found.missing) == (3, 2, 2)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(rows)
def test_rows_in_a_file_answer_as_those_in_memory(found: list[tuple[Any, Any, Any]]) -> None:
    schema = pa.schema([("s", pa.string()), ("f", pa.float64()), ("i", pa.int64())])
    table = pa.Table.from_pylist([dict(zip("sfi", row, strict=True)) for row in found], schema=schema)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        pq.write_table(table, file)
        checks: list[Check] = _OF_TEXTS + _OF_NUMBERS + [one for one in _OF_NAN if not isinstance(one, Compare)]
        for one, other in zip(
            modelyard.check(table, checks).results, modelyard.check(file, checks).results, strict=True
        ):
            assert _told(one) == _told(other)


_OF_NAN: list[Check] = [
    Range(column="f", max=5),
    Range(column="f", max=5, semantics="pandas"),
    Statistic(column="f", measure="max", max=5),
    Satisfies(condition="f <= 5"),
    Compare(column="f", operator="<", other="bound"),
    NotNull(column="f", where="f > 5"),
    RowCount(where="f > 5", min=1),
    Sql(query="SELECT * FROM dataset WHERE f > 5"),
]


def test_what_a_file_says_of_the_bounds_of_its_floats_hides_no_nan(tmp_path: Path) -> None:
    table = pa.table({"f": [1.0, float("nan"), 2.0], "bound": [9.0, 9.0, 9.0]})
    pq.write_table(table, tmp_path / "rows.parquet")
    assert pq.read_metadata(tmp_path / "rows.parquet").row_group(0).column(0).statistics.max == 2
    in_memory, in_file = (modelyard.check(one, _OF_NAN).results for one in (table, tmp_path / "rows.parquet"))
    assert [(one.status, one.failing, len(one.sample)) for one in in_file] == [
        ("failed", 1, 1),
        ("passed", 0, 0),
        ("passed", 0, 0),
        ("failed", 1, 1),
        ("failed", 1, 1),
        ("passed", 0, 0),
        ("passed", 0, 0),
        ("failed", 1, 1),
    ]
    for one, other in zip(in_memory, in_file, strict=True):
        assert _told(one) == _told(other)


def _told(result: Any) -> Any:
    # Which of its slices a message names first is left open.
    plain = replace(result, sample=[], state="", slices=[], message="" if result.slices_total else result.message)
    if isinstance(plain.observed, float):
        plain = replace(plain, observed=pytest.approx(plain.observed, rel=1e-9, nan_ok=True), message="")
    rows = sorted(map(repr, result.sample)) if len(result.sample) < 20 else None
    sliced = sorted((repr(one.value), one.status, one.evaluated, one.failing, one.missing) for one in result.slices)
    return plain, rows, sliced


def test_about_how_many_texts_differ_is_found_without_a_look_at_all(tmp_path: Path) -> None:
    count = 200_000
    table = pa.table(
        {
            "few": [f"v{n % 7}" for n in range(count)],
            "some": [f"value-{n * 7919 % 3000}" for n in range(count)],
            "all": [f"value-{n * 7919 % count}" for n in range(count)],
        }
    )
    found = distinct_texts(foreign_rows(table), ["few", "some", "all"])
    assert found["few"] == 7
    assert 2500 < found["some"] < 3500
    assert found["all"] > count // 2
    for kind in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        other = pa.table({"few": table["few"].cast(kind)})
        assert distinct_texts(foreign_rows(other), ["few"]) == {"few": 7}
        assert modelyard.check(other, [Regex(column="few", pattern="^v[0-5]$")]).results[0].failing == 28571
    pq.write_table(table, tmp_path / "t.parquet")
    in_file = distinct_texts(foreign_rows(tmp_path / "t.parquet"), ["few", "some", "all"])
    assert [in_file[name] * 16 <= count for name in ("few", "some", "all")] == [True, True, False]
    checks = [Regex(column="few", pattern="^v[0-5]$"), Length(column="all", max=7), NotNull(column="some")]
    assert [one.failing for one in modelyard.check(table, checks).results] == [28571, 199990, 0]
    assert [one.failing for one in modelyard.check(tmp_path / "t.parquet", checks).results] == [28571, 199990, 0]


def test_of_several_checks_the_failing_rows_of_each() -> None:
    both = modelyard.failing_rows(ROWS, CHECKS[1:3], columns=["id"])
    assert [one.to_pydict() for one in both] == [
        modelyard.failing_rows(ROWS, check, columns=["id"]).to_pydict() for check in CHECKS[1:3]
    ]
    assert modelyard.failing_rows(ROWS, []) == []
    with pytest.raises(InvalidInput, match="check 'not_null\\(id\\)' has no failing rows") as refused:
        modelyard.failing_rows(ROWS, [CHECKS[2], RowCount(min=1, name="not_null(id)")])
    assert refused.value.code == "dataset.check_without_rows"


@pytest.mark.parametrize("semantics", ["sql", "pandas"])
def test_a_column_that_is_missing_is_named(semantics: Literal["sql", "pandas"]) -> None:
    checks: list[Check] = [
        NotNull(column="nope", semantics=semantics),
        Range(column="nope", min=1, semantics=semantics),
        Unique(columns=["nope"], semantics=semantics),
        Statistic(column="nope", measure="median", semantics=semantics),
        Compare(column="id", operator="<", other="nope", semantics=semantics),
        Monotonic(column="nope", semantics=semantics),
    ]
    for one in modelyard.check(ROWS, checks).results:
        assert one.status == "error"
        assert "column 'nope' is missing" in one.message
