"""Frames of pandas as Arrow tables: what Arrow itself makes of them, with nulls for what is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.tables.base import FileSet
from modelyard.engines.tables.foreign import foreign_rows
from modelyard.engines.tables.frames import table_of_frame
from modelyard.engines.tables.sql import sandbox
from modelyard.kernel.errors import InvalidInput

floats = st.floats(allow_nan=True, allow_infinity=True)
numpy_columns = st.sampled_from(["f8", "f4", "f2", "M8[s]", "M8[ms]", "M8[us]", "M8[ns]", "b", "i8", "u1"])


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 40))
    columns: dict[str, Any] = {}
    for place, kind in enumerate(draw(st.lists(numpy_columns, min_size=1, max_size=5))):
        if kind.startswith("f"):
            values = np.array(draw(st.lists(floats, min_size=rows, max_size=rows)), "f8")
            with np.errstate(over="ignore"):
                columns[f"c{place}"] = values.astype(kind)
        else:
            numbers = np.array(draw(st.lists(st.integers(0, 200), min_size=rows, max_size=rows)), "i8")
            columns[f"c{place}"] = numbers.astype(kind)
            if kind.startswith("M"):
                columns[f"c{place}"][numbers % 3 == 0] = np.datetime64("NaT")
    return pd.DataFrame(columns)


@given(frames(), st.integers(1, 3))
def test_a_frame_becomes_what_arrow_makes_of_it(frame: pd.DataFrame, step: int) -> None:
    some = frame.iloc[::step]
    found, without_nan = table_of_frame(some)
    assert without_nan == {name for name in frame.columns if frame[name].dtype in ("f4", "f8")}
    assert found.equals(pa.Table.from_pandas(some, preserve_index=False).replace_schema_metadata())
    found.validate(full=True)


def test_columns_of_every_kind_of_pandas() -> None:
    frame = pd.DataFrame(
        {
            "text": ["a", None, "b"],
            "object": pd.Series(["a", None, np.nan], dtype="object"),
            "category": pd.Categorical(["x", None, "x"]),
            "nullable": pd.array([1, None, 2], "Int64"),
            "zoned": pd.to_datetime(["2020-01-01", None, "2021-01-01"], utc=True),
            "length": pd.to_timedelta([1, None, 2], unit="s"),
            "arrow": pd.array([1, None, 2], dtype=pd.ArrowDtype(pa.int8())),
        }
    )
    assert table_of_frame(frame)[0].equals(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata())
    assert table_of_frame(frame.set_axis([1, 2.5, -1, b"b", ("x", 1), True, "s"], axis=1))[0].column_names == [
        "1", "2.5", "-1", "b", "('x', 1)", "True", "s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "column", [pd.Series([1, "a"]), pd.arrays.SparseArray([1.0, np.nan]), np.array([1.0, 2.0], ">f8")]
)
def test_a_column_without_one_type_is_named(column: Any) -> None:
    with pytest.raises(InvalidInput, match="column 'odd'") as refused:
        table_of_frame(pd.DataFrame({"fine": [1, 2], "odd": column}))
    assert refused.value.code == "dataset.not_tabular"


def test_the_first_rows_that_meet_a_condition_are_found_in_memory() -> None:
    times = np.arange(5_000).astype("M8[s]")
    rows = foreign_rows(pd.DataFrame({"Number": np.arange(5_000.0), "at": times, "s": ["a", None] * 2_500}))
    with sandbox({"dataset": rows, "none": rows.rows.slice(0, 0)}) as session:  # type: ignore[union-attr]
        assert session.is_in_memory("dataset")
        assert session.places("dataset", '"Number" % 1000 = 7 AND s IS NULL', 3) == [7, 1007, 2007]
        assert session.places("none", "true", 3) == []
        found = session.rows_at("dataset", [4_999, 0]).to_pylist()
        assert session.rows_at("dataset", []).num_rows == 0
    assert found == [
        {"Number": 4999.0, "at": datetime(1970, 1, 1, 1, 23, 19, tzinfo=UTC), "s": None},
        {"Number": 0.0, "at": datetime(1970, 1, 1, tzinfo=UTC), "s": "a"},
    ]


odd = st.sampled_from([0.0, -0.0, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), None, 0.1, 7.0])


@given(st.lists(odd | floats, max_size=30), st.sampled_from([pa.float64(), pa.float32(), pa.int16()]))
def test_a_median_in_memory_is_that_of_sql(values: list[float | None], kind: pa.DataType) -> None:
    if kind == pa.int16():
        values = [None if one is None or not -1e4 < one < 1e4 else int(one) for one in values]
    with sandbox({"dataset": pa.table({"v": pa.array(values, pa.float64()).cast(kind, safe=False)})}) as session:
        number = "v IS NOT NULL AND NOT isnan(v::DOUBLE)"
        [wanted] = session.rows(
            f"SELECT median(v::DOUBLE) FILTER (WHERE {number}) AS m, count(*) FILTER (WHERE {number}) AS n FROM dataset"
        )
        found = session.median("dataset", "v")
    assert found is not None
    assert found[1] == wanted["n"]
    assert found[0] == wanted["m"] or (np.isnan(found[0]) and np.isnan(wanted["m"]))


def test_a_median_is_found_by_sql_where_it_is_not_in_memory_or_no_number() -> None:
    days = pa.table({"text": ["a"], "day": pa.array([1], pa.date32())})
    with sandbox({"dataset": days, "files": FileSet(pa.schema([("a", pa.int64())]), ())}) as session:
        assert [session.median("dataset", one) for one in days.column_names] == [None, None]
        assert session.median("files", "a") is None


def test_what_is_in_files_is_not_in_memory() -> None:
    with sandbox({"dataset": FileSet(pa.schema([("a", pa.int64())]), ())}) as session:
        assert not session.is_in_memory("dataset")
