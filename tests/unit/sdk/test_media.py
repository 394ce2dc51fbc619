"""Images, tables, figures and histograms as bytes: right for what they are given, clear about what they cannot be."""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.paths import safe_relative
from modelyard.sdk import media


def _read_png(content: bytes) -> np.ndarray[Any, Any]:
    """The pixels of an unfiltered PNG, its checksums verified: the other half of what is written."""
    assert content.startswith(media.PNG_SIGNATURE)
    at, chunks = len(media.PNG_SIGNATURE), {}
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, body = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", content, at + 8 + length) == (zlib.crc32(kind + body),)
        chunks[kind] = body
        at += 12 + length
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert depth == 8
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, channels)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9).filter(lambda s: s[2] <= 4)))
def test_an_array_comes_back_from_its_png(pixels: np.ndarray[Any, Any]) -> None:
    assert (_read_png(media.image_bytes(pixels)) == pixels).all()


def test_floats_booleans_and_flat_images() -> None:
    assert _read_png(media.image_bytes(np.array([[0.0, 1.0]])))[:, :, 0].tolist() == [[0, 255]]
    assert _read_png(media.image_bytes(np.array([[True, False]])))[:, :, 0].tolist() == [[255, 0]]


@pytest.mark.parametrize(
    "pixels", [np.zeros(3), np.zeros((2, 2, 5)), np.zeros((0, 2)), np.full((2, 2), 1.5), np.full((2, 2), math.nan),
               np.full((2, 2), 256), np.array([["a"]])],
)  # fmt: skip
def test_what_is_no_image_is_said(pixels: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidInput):
        media.image_bytes(pixels)


def test_images_lie_where_mlflow_looks_for_them() -> None:
    path = media.image_path("val/sample", 7, 1_700_000_000_000)
    assert path.startswith("images/val~sample+step+7+timestamp+1700000000000+")
    assert str(safe_relative(path)) == path
    with pytest.raises(InvalidInput):
        media.image_path("../up%2f", 0, 0)


TABLE = {"name": ["a", "b"], "score": [0.5, 1.0]}


@pytest.mark.parametrize(
    "table", [TABLE, pa.table(TABLE), pd.DataFrame(TABLE), [{"name": "a", "score": 0.5}, {"name": "b", "score": 1.0}]]
)
def test_a_table_of_any_kind_is_written_alike(table: Any) -> None:
    assert json.loads(media.table_bytes(table)) == {"columns": ["name", "score"], "data": [["a", 0.5], ["b", 1.0]]}


def test_odd_cells_of_a_table() -> None:
    cells = {"x": [np.float32(0.5), np.float64("nan"), None, date(2013, 1, 1), math.nan, math.inf]}
    found = json.loads(media.table_bytes(cells))["data"]
    assert found == [[0.5], [None], [None], ["2013-01-01"], [None], [None]]


@pytest.mark.parametrize("table", [{"a": [1], "b": [1, 2]}, "text", 7, {"a": range(media.TABLE_CELLS_MAX + 1)}])
def test_what_is_no_table_is_said(table: Any) -> None:
    with pytest.raises(InvalidInput):
        media.table_bytes(table)


@given(st.lists(st.floats(), max_size=200), st.integers(1, 64))
def test_a_histogram_counts_every_finite_value(values: list[float], bins: int) -> None:
    found = media.histogram(values, 3, bins)
    finite = [value for value in values if math.isfinite(value)]
    assert sum(found.counts) == len(finite)
    assert found.count == len(values)
    assert found.nans == sum(map(math.isnan, values))
    if finite:
        assert len(found.edges) in (2, bins + 1)
        assert len(found.counts) == len(found.edges) - 1
        assert found.edges[0] <= min(finite) <= max(finite) <= found.edges[-1]


def test_what_is_no_histogram_is_said() -> None:
    with pytest.raises(InvalidInput):
        media.histogram(["a"], 0)
    with pytest.raises(InvalidInput):
        media.histogram([1.0], 0, bins=0)


def test_a_histogram_has_the_bins_that_were_asked_for() -> None:
    found = media.histogram(range(100), 0, bins=10)
    assert found.counts == [10] * 10
    assert media.histogram([5, 5], 0).counts == [2]


class _Figure:
    """What both plotting libraries have in common with a figure of theirs."""

    def savefig(self, target: io.BytesIO, *, format: str, bbox_inches: str) -> None:
        target.write(f"{format} {bbox_inches}".encode())


def test_a_figure_takes_its_format_from_the_path() -> None:
    assert media.figure_bytes(_Figure(), "plots/loss.svg") == b"svg tight"
    with pytest.raises(InvalidInput):
        media.figure_bytes("no figure", "loss.png")
