"""Rows over the wire: what they mean whatever their Arrow types, and bodies made to break or to swell."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

from modelyard.kernel.errors import InvalidInput, ModelyardError
from modelyard.planes.registry.arrow_guard import is_compressed
from modelyard.planes.registry.arrow_rows import in_order_of_ids, labels_digest, read_rows
from modelyard.planes.registry.evaluation import measure, measure_slices

pa = pytest.importorskip("pyarrow")


def stream(table, options=None, chunk: int = 50) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


def table(rows: int = 120, **more):
    columns = {
        "row_id": [f"f{n}" for n in range(rows)],
        "label": [n % 2 for n in range(rows)],
        "score": [n / rows for n in range(rows)],
        **more,
    }
    return pa.table(columns)


@pytest.mark.parametrize(
    "values",
    [
        pa.array(["UA", "B6", None] * 40),
        pa.array(["UA", "B6", None] * 40).dictionary_encode(),
        pa.array(["UA", "B6", None] * 40, pa.large_string()),
        pa.array([1, 2, None] * 40, pa.int8()),
        pa.array([True, False, None] * 40),
    ],
)
def test_slices_of_any_plain_type(values) -> None:
    rows = read_rows(io.BytesIO(stream(table(carrier=values))))
    found = list(rows.slices["carrier"])
    assert len(set(found)) == 3
    assert found[2::3] == ["null"] * 40
    assert found[:3] == found[3:6]


def test_an_empty_table_is_rows_that_say_nothing() -> None:
    kinds = {"row_id": pa.string(), "label": pa.int8(), "score": pa.float32(), "carrier": pa.string()}
    empty = pa.table({name: pa.array([], kind) for name, kind in kinds.items()})
    rows = read_rows(io.BytesIO(stream(empty)))
    assert measure(rows.labels, rows.scores).reason == "there are no rows"
    assert measure_slices(rows) == []


def test_rows_in_another_order_are_the_same_rows() -> None:
    one = read_rows(io.BytesIO(stream(table())))
    shuffled = table().take(np.random.default_rng(1).permutation(120))
    other = read_rows(io.BytesIO(stream(shuffled)))
    assert labels_digest(one) == labels_digest(other)
    for mine, theirs in zip(in_order_of_ids(one), in_order_of_ids(other), strict=True):
        assert mine.tolist() == theirs.tolist()
    changed = table(label=[1 - n % 2 for n in range(120)])
    assert labels_digest(read_rows(io.BytesIO(stream(changed)))) != labels_digest(one)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_compressed_bodies_are_refused_before_they_unfold(codec: str, dictionary: bool) -> None:
    values = pa.array(["UA"] * 120)
    made = table(carrier=values.dictionary_encode() if dictionary else values)
    body = stream(made, pa.ipc.IpcWriteOptions(compression=codec))
    with pytest.raises(InvalidInput) as caught:
        read_rows(io.BytesIO(body))
    assert caught.value.code == "evaluation.compressed"


def test_the_flag_is_read_from_every_kind_of_message() -> None:
    made = table(carrier=pa.array(["UA"] * 120).dictionary_encode())
    for codec, flags in ((None, [False] * 5), ("zstd", [False, True, True, True, True])):
        reader = pa.ipc.MessageReader.open_stream(stream(made, pa.ipc.IpcWriteOptions(compression=codec)))
        assert [is_compressed(message.metadata.to_pybytes()) for message in reader] == flags


@pytest.mark.parametrize(
    "change",
    [
        {"carrier": pa.array(["x" * 501] * 120)},
        {"carrier": pa.array([1.5] * 120)},
        {"carrier": pa.array(["x"] * 120, pa.string_view())},
        {"row_id": pa.array([f"f{n}" for n in range(120)]).dictionary_encode()},
        {"row_id": pa.array([n / 2 for n in range(120)])},
    ],
)
def test_types_that_could_swell_or_mislead_are_refused(change) -> None:
    with pytest.raises(InvalidInput):
        read_rows(io.BytesIO(stream(table(**change))))


def test_integers_beyond_a_float_are_no_labels() -> None:
    rows = read_rows(io.BytesIO(stream(table(label=pa.array([2**62 + n for n in range(120)])))))
    assert "neither 0 nor 1" in measure(rows.labels, rows.scores).reason


@pytest.mark.parametrize("seed", range(4))
def test_damaged_bodies_are_read_or_refused_and_never_crash(seed: int) -> None:
    base = stream(table(carrier=pa.array(["UA", "B6"] * 60).dictionary_encode()))
    chance = random.Random(seed)
    for _ in range(300):
        body = bytearray(base)
        for _ in range(chance.choice([1, 2, 8])):
            place = chance.randrange(len(body))
            kind = chance.random()
            if kind < 0.7:
                body[place] = chance.choice([0, 1, 127, 128, 255])
            elif kind < 0.85:
                body[place : place + 4] = chance.choice([b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"])
            else:
                del body[max(place, 1) :]
        try:
            rows = read_rows(io.BytesIO(bytes(body)))
            measure(rows.labels, rows.scores)
            measure_slices(rows)
        except ModelyardError:
            continue
