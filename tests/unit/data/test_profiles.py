"""Profiles of batches: exact where they say so, within their bounds elsewhere, the same however rows are cut."""

from __future__ import annotations

import datetime as dt
import math
import statistics
import string
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.data import profiling
from modelyard.planes.data.hashing import LONG_TEXT_BYTES, Registers, hash_decimals, hash_numbers, hash_texts
from modelyard.planes.data.profile import merge_profiles
from modelyard.planes.data.profiling import Profiler
from modelyard.planes.data.sketches import COUNTED_MAX, distinct_count
from modelyard.types.data import ColumnProfile, LengthProfile, Profile


def profile_of(table: pa.Table) -> Profile:
    return profiling.profile_of(table.schema, table.to_batches())


def column_of(values: list[Any], kind: pa.DataType) -> ColumnProfile:
    return profile_of(pa.table({"x": pa.array(values, kind)})).columns[0]


# --- what is exact ----------------------------------------------------------------------------------------------

INTEGERS = st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3)), max_size=60)
FLOATS = st.lists(st.one_of(st.none(), st.floats(width=64), st.sampled_from([0.0, -0.0, 1.5])), max_size=60)
TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=30), st.sampled_from(["", "a", "a\0", "ä", "€"])), max_size=60)


@settings(deadline=None)
@given(INTEGERS)
def test_integers_are_counted_and_bounded_exactly(values: list[int | None]) -> None:
    column, present = column_of(values, pa.int64()), [one for one in values if one is not None]
    assert (column.count, column.nulls, column.nans) == (len(present), len(values) - len(present), 0)
    assert (column.min, column.max) == (min(present, default=None), max(present, default=None))
    assert column.exact
    assert column.distinct == len(set(present))
    assert dict(zip(column.top, column.top_counts, strict=True)).items() <= Counter(present).items()
    if present:
        # Large values of both signs leave little of themselves, and of their digits.
        rounded = max(1e-3, 1e-15 * max(map(abs, present)))
        assert column.mean == pytest.approx(statistics.fmean(present), rel=1e-9, abs=rounded)
        assert all(float(column.min) <= quantile <= float(column.max) for quantile in column.quantiles.values())


@settings(deadline=None)
@given(FLOATS)
def test_floats_leave_out_what_is_not_finite(values: list[float | None]) -> None:
    column, present = column_of(values, pa.float64()), [one for one in values if one is not None]
    finite = [one for one in present if math.isfinite(one)]
    assert (column.count, column.nulls) == (len(present), len(values) - len(present))
    assert column.nans == sum(map(math.isnan, present))
    assert (column.min, column.max) == (min(finite, default=None), max(finite, default=None))
    assert column.distinct == len(set(finite))
    # Beyond these bounds the squares of doubles overflow, or vanish.
    if finite and (not any(finite) or 1e-100 < max(map(abs, finite)) < 1e100):
        assert column.mean == pytest.approx(statistics.fmean(finite), rel=1e-9, abs=1e-9 * max(map(abs, finite)))
        assert column.std == pytest.approx(statistics.pstdev(finite), rel=1e-6, abs=1e-6 * max(map(abs, finite)))
    for number in (column.mean, column.std, *column.quantiles.values()):
        assert number is None or math.isfinite(number)


@settings(deadline=None)
@given(TEXTS)
def test_texts_are_counted_bounded_and_measured_exactly(values: list[str | None]) -> None:
    column, present = column_of(values, pa.string()), [one for one in values if one is not None]
    assert (column.count, column.distinct) == (len(present), len(set(present)))
    by_bytes = sorted(present, key=lambda text: text.encode())
    assert (column.min, column.max) == ((by_bytes[0], by_bytes[-1]) if present else (None, None))
    assert dict(zip(column.top, column.top_counts, strict=True)).items() <= Counter(present).items()
    lengths = [len(text) for text in present]
    assert column.lengths == (
        LengthProfile(min=min(lengths), max=max(lengths), mean=sum(lengths) / len(lengths)) if present else None
    )


def test_texts_of_many_values_keep_exact_bounds_and_lengths() -> None:
    values = [f"common prefix {number * 7919 % 100_003:06d}" for number in range(20_000)] + ["ß" * 300, "", "x\0", "x"]
    column = column_of(values, pa.string())
    assert not column.exact
    assert (column.min, column.max) == ("", "ß" * 200)
    assert column.lengths is not None
    assert (column.lengths.min, column.lengths.max) == (0, 300)
    assert column.lengths.mean == pytest.approx(statistics.fmean(map(len, values)))
    assert column.distinct == pytest.approx(len(set(values)), rel=0.1)


def test_every_kind_of_column_has_a_profile() -> None:
    utc = dt.UTC
    table = pa.table(
        {
            "flag": [True, False, True, None],
            "day": pa.array([dt.date(2024, 2, 29), dt.date(2023, 1, 1), None, None]),
            "at": pa.array([dt.datetime(2024, 1, 1, tzinfo=utc)] * 2 + [None, dt.datetime(1969, 1, 1, tzinfo=utc)],
                           pa.timestamp("us", tz="UTC")),
            "money": pa.array([Decimal("10.50"), Decimal("-0.25"), Decimal("10.50"), None], pa.decimal128(10, 2)),
            "raw": [b"ab", b"", None, b"ab"],
            "tags": [["a"], [], None, ["a", "b", "c"]],
            "place": [{"lat": 1.0}, None, {"lat": 2.0}, {"lat": None}],
            "pairs": pa.array([[("a", 1)], None, [], []], pa.map_(pa.string(), pa.int64())),
        }
    )  # fmt: skip
    found = {column.name: column for column in profile_of(table).columns}
    assert {name: (one.count, one.nulls) for name, one in found.items()} == {
        "flag": (3, 1), "day": (2, 2), "at": (3, 1), "money": (3, 1),
        "raw": (3, 1), "tags": (3, 1), "place": (3, 1), "pairs": (3, 1),
    }  # fmt: skip
    assert (found["flag"].mean, found["flag"].top, found["flag"].top_counts) == (2 / 3, [True, False], [2, 1])
    assert (found["day"].min, found["day"].max, found["day"].distinct) == ("2023-01-01", "2024-02-29", 2)
    assert (found["at"].min, found["at"].max) == ("1969-01-01T00:00:00Z", "2024-01-01T00:00:00Z")
    assert (found["money"].min, found["money"].max, found["money"].distinct) == ("-0.25", "10.50", 2)
    assert found["money"].mean == pytest.approx(20.75 / 3)
    assert found["raw"].lengths == LengthProfile(min=0, max=2, mean=4 / 3)
    assert found["tags"].lengths == LengthProfile(min=0, max=3, mean=4 / 3)
    assert found["pairs"].lengths == LengthProfile(min=0, max=1, mean=1 / 3)
    assert found["place"].distinct is None


def test_times_that_python_does_not_know_are_cut_to_those_that_it_does() -> None:
    column = column_of([2**60, -(2**60)], pa.timestamp("us", tz="UTC"))
    assert (column.min[:4], column.max[:4]) == ("0001", "9999")


# --- the same however it is cut ---------------------------------------------------------------------------------


def _blocks(table: pa.Table, rows: int) -> list[pa.RecordBatch]:
    return [batch for batch in table.to_batches(max_chunksize=rows) if batch.num_rows]


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 50), st.integers(0, 400), st.integers(0, 3))
def test_counts_bounds_and_distinct_do_not_depend_on_the_batches(rows: int, total: int, spread: int) -> None:
    draw = np.random.default_rng((rows, total, spread))
    numbers = draw.integers(0, 10 ** (spread + 1), total)
    table = pa.table({"n": numbers, "f": numbers / 7, "s": [f"text {number}" for number in numbers]})
    whole = profile_of(table)
    parts = profiling.profile_of(table.schema, _blocks(table, rows))
    merged: Profile | None = None
    for batch in _blocks(table, rows):
        one = profiling.profile_of(table.schema, [batch])
        merged = one if merged is None else merge_profiles(merged, one)
    for found in (parts, merged or whole):
        for a, b in zip(found.columns, whole.columns, strict=True):
            assert (a.count, a.min, a.max, a.distinct, a.exact) == (b.count, b.min, b.max, b.distinct, b.exact)
            assert set(a.top) == set(b.top) or not a.exact or len(set(numbers)) > 10
            assert a.mean == pytest.approx(b.mean)


def test_a_column_stops_being_counted_one_by_one_when_it_has_many_values() -> None:
    few = profile_of(pa.table({"x": range(COUNTED_MAX)}))
    more = profile_of(pa.table({"x": range(COUNTED_MAX, COUNTED_MAX + 1)}))
    assert few.columns[0].exact
    merged = merge_profiles(few, more)
    assert merged is not None
    assert not merged.columns[0].exact
    assert merged.columns[0].distinct == pytest.approx(COUNTED_MAX + 1, rel=0.1)


def test_a_value_that_comes_often_is_found_among_many() -> None:
    draw = np.random.default_rng(5)
    numbers = np.where(draw.random(200_000) < 0.3, 0.0, draw.normal(size=200_000))
    texts = np.where(draw.random(200_000) < 0.1, "often", np.char.mod("rare %d", draw.integers(0, 10**9, 200_000)))
    found = profile_of(pa.table({"n": numbers, "s": texts}))
    assert (found.columns[0].top[0], found.columns[1].top[0]) == (0.0, "often")
    assert found.columns[0].top_counts[0] == pytest.approx((numbers == 0).sum())
    assert found.columns[1].top_counts[0] == pytest.approx((texts == "often").sum(), rel=0.1)


# --- sketches keep their bounds -----------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[int], pa.Array]] = {
    "counted up": lambda n: pa.array(np.arange(n)),
    "multiples of a power of two": lambda n: pa.array(np.arange(n) << 32),
    "negative": lambda n: pa.array(-np.arange(n) * 1000),
    "whole doubles": lambda n: pa.array(np.arange(n, dtype=np.float64)),
    "small doubles": lambda n: pa.array(np.arange(n) / 1e9),
    "texts alike at the start": lambda n: pa.array([f"https://example.org/{number:09d}" for number in range(n)]),
    "texts alike at the end": lambda n: pa.array([f"{number:09d}-the-same-end" for number in range(n)]),
    "short texts": lambda n: pa.array([str(number) for number in range(n)]),
    "instants": lambda n: pa.array(np.arange(n) * 3_600_000_000, pa.timestamp("us", tz="UTC")),
}


@pytest.mark.parametrize("count", [10, 700, 3_000, 6_000, 60_000])
@pytest.mark.parametrize("shape", SHAPES)
def test_distinct_values_are_counted_within_four_standard_errors(shape: str, count: int) -> None:
    values = pa.concat_arrays([SHAPES[shape](count)] * 2)
    [column] = profile_of(pa.table({"x": values})).columns
    assert column.distinct == pytest.approx(count, rel=4 * 0.023)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200_000), st.integers(0, 2**32))
def test_registers_count_random_hashes_within_five_standard_errors(count: int, seed: int) -> None:
    hashes = np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)
    registers = Registers()
    registers.add(hashes)
    assert distinct_count(registers.to_bytes()) == pytest.approx(count, rel=5 * 0.023, abs=1)


@pytest.mark.parametrize("shape", ["uniform", "normal", "lognormal", "pareto", "ties", "sorted", "two peaks"])
def test_quantiles_are_right_within_one_percent_of_the_rows(shape: str) -> None:
    draw, count = np.random.default_rng(11), 300_000
    values = {
        "uniform": lambda: draw.random(count),
        "normal": lambda: draw.normal(1e6, 1, count),
        "lognormal": lambda: draw.lognormal(0, 3, count),
        "pareto": lambda: draw.pareto(0.8, count),
        "ties": lambda: np.round(draw.normal(0, 2, count)),
        "sorted": lambda: np.arange(count) ** 2.0,
        "two peaks": lambda: np.concatenate((draw.normal(0, 1, count // 2), draw.normal(1e3, 1, count // 2))),
    }[shape]()
    [column] = profile_of(pa.table({"x": values})).columns
    for share, found in column.quantiles.items():
        below, at_most = (values < found).mean(), (values <= found).mean()
        assert below - 0.01 <= float(share) <= at_most + 0.01
    assert column.mean == pytest.approx(values.mean(), rel=1e-9)
    assert column.std == pytest.approx(values.std(), rel=1e-6)


# --- hashes -----------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=3 * 8), min_size=1, max_size=30), st.integers(0, 29))
def test_a_text_has_one_hash_wherever_it_stands(texts: list[str], start: int) -> None:
    start = min(start, len(texts) - 1)
    whole = hash_texts(pa.array(texts))[0]
    assert (hash_texts(pa.array(texts).slice(start))[0] == whole[start:]).all()
    assert [hash_texts(pa.array([text]))[0][0] for text in texts] == whole.tolist()
    assert len(set(whole.tolist())) == len(set(texts))


def test_long_texts_are_told_apart_also_beyond_what_is_hashed_in_words() -> None:
    stem = "a" * LONG_TEXT_BYTES
    texts = [stem, stem + "b", stem + "c", "b" + stem]
    assert len(set(hash_texts(pa.array(texts))[0].tolist())) == 4


def test_equal_numbers_of_other_widths_have_one_hash() -> None:
    for narrow, wide in ((np.int32, np.int64), (np.float32, np.float64), (np.int16, np.int64)):
        assert (hash_numbers(np.arange(-5, 5, dtype=narrow)) == hash_numbers(np.arange(-5, 5, dtype=wide))).all()
    assert (hash_numbers(np.array([0.0])) == hash_numbers(np.array([-0.0]))).all()


def test_hashes_stay_what_they_are() -> None:
    """Sketches of last year must merge with those of today: whoever changes the function renames `HASHED_BY`."""
    assert [hex(one) for one in hash_numbers(np.array([0, 1, -1]))] == HASHES["integers"]
    assert [hex(one) for one in hash_numbers(np.array([0.5, np.nan]))] == HASHES["floats"]
    assert [hex(one) for one in hash_texts(pa.array(["", "a", string.ascii_letters]))[0]] == HASHES["texts"]
    assert [hex(one) for one in hash_decimals(pa.array([Decimal("1.5")], pa.decimal128(5, 1)))] == HASHES["decimals"]


HASHES = {
    "integers": ["0x4179b063aa74d3bc", "0x631bdda294cf6997", "0x1e29b4bade410d51"],
    "floats": ["0x36bceb82be3e0ca9", "0x3b8cac76ee143308"],
    "texts": ["0x4179b063aa74d3bc", "0x1847dbdce4dc5d12", "0xa8c2677a841bbd80"],
    "decimals": ["0x572dad988a3f586f"],
}


# --- on a thread --------------------------------------------------------------------------------------------------


def test_the_profiler_finds_what_one_look_finds() -> None:
    table = pa.table({"x": range(1_000), "s": [str(number % 7) for number in range(1_000)]})
    with Profiler() as profiler:
        for batch in table.to_batches(max_chunksize=37):
            profiler.add(batch)
        assert profiler.finish() == profiling.profile_of(table.schema, table.to_batches(max_chunksize=37))
    with Profiler() as profiler:
        assert profiler.finish() == Profile(rows=0, columns=[])


def test_what_goes_wrong_on_the_thread_is_raised_to_who_gives_the_batches_and_nobody_hangs() -> None:
    with Profiler() as profiler, pytest.raises(IndexError):
        profiler.add(pa.record_batch({"x": [1], "y": [1]}))
        for _ in range(50):
            profiler.add(pa.record_batch({"y": [1]}))
        profiler.finish()
