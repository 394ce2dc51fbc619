"""From segments on disk to tables: nothing lost, nothing invented, in any shape and type."""

from __future__ import annotations

import fcntl
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.endpoint.prediction_log import PredictionLog
from modelyard.engines.models.columns import pack
from modelyard.planes.serving.log_table import groups, to_table
from modelyard.planes.serving.segments import closed_segments, has_segments, read_segment
from modelyard.types.serving import FRAME_HEADER, EndpointOptions, LoggedColumn, PredictionRecord


def _logged(name: str, array: Any) -> LoggedColumn:
    return pack({name: array})[0]


def record(name: str = "r", rows: int = 1, **changes: Any) -> PredictionRecord:
    made = PredictionRecord(
        request_id=name, at_us=1_000_000, endpoint="e", variant="v", model="m", version=1, digest="d", latency_us=5,
        rows=rows, ids=None, event_times_us=None,
        inputs=[_logged("x", np.arange(rows, dtype=np.float32))], outputs=[],
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def frame(one: PredictionRecord) -> bytes:
    payload = msgspec.msgpack.encode(one)
    return FRAME_HEADER.pack(len(payload), zlib.crc32(payload)) + payload


@given(st.lists(st.integers(1, 4), max_size=5), st.integers(0, 400))
def test_a_torn_tail_loses_only_what_is_torn(rows: list[int], cut: int) -> None:
    records = [record(str(n), count) for n, count in enumerate(rows)]
    parts = [frame(one) for one in records]
    whole = b"".join(parts)
    content = whole[: max(len(whole) - cut, 0)]
    path = Path(f"/dev/shm/modelyard-segment-{zlib.crc32(whole)}-{cut}")
    path.write_bytes(content)
    try:
        found = read_segment(path)
    finally:
        path.unlink()
    complete, at = 0, 0
    for part in parts:
        at += len(part)
        complete += at <= len(content)
    assert (found.records, found.problem) == (records[:complete], "")


def test_damage_in_the_middle_is_told_from_a_torn_tail(tmp_path: Path) -> None:
    parts = [frame(record(str(n))) for n in range(3)]
    broken = bytearray(b"".join(parts))
    broken[len(parts[0]) + 20] ^= 0xFF
    file = tmp_path / "a.frames"
    file.write_bytes(broken)
    found = read_segment(file)
    assert [one.request_id for one in found.records] == ["0"]
    assert "damaged at byte" in found.problem
    file.write_bytes(frame(record("0")) + FRAME_HEADER.pack(3, zlib.crc32(b"\xc1\xc1\xc1")) + b"\xc1\xc1\xc1")
    assert "of no known form" in read_segment(file).problem


def test_only_segments_without_a_writer_are_taken(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, EndpointOptions())
    log.append([record("live")])
    dead = tmp_path / "0dead.open"
    dead.write_bytes(frame(record("dead")))
    assert [path.name for path in closed_segments(tmp_path)] == ["0dead.frames"]
    assert has_segments(tmp_path)
    log.close()
    assert len(closed_segments(tmp_path)) == 2
    assert closed_segments(tmp_path / "absent") == []
    assert not has_segments(tmp_path / "absent")


def test_a_segment_that_somebody_locks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.open"
    path.write_bytes(b"")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert closed_segments(tmp_path) == []
        assert path.exists()


def test_a_table_has_a_line_per_row(tmp_path: Path) -> None:
    records = [
        record(
            "a", 2, ids=["f1", "f2"], event_times_us=[0, 1_500_000],
            inputs=[
                _logged("n", np.array([1.5, np.nan])),
                _logged("w", np.array(["x", "é"], object)),
                _logged("one", np.array([[7], [8]], np.int64)),
            ],
            outputs=[_logged("p", np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))],
        ),
        record(
            "b", 1,
            inputs=[
                _logged("n", np.array([2.0])),
                _logged("w", np.array([""], object)),
                _logged("one", np.array([[9]], np.int64)),
            ],
            outputs=[_logged("p", np.array([[1.0, 0.0]], np.float32))],
        ),
    ]  # fmt: skip
    (group,) = groups(records)
    table = to_table(group)
    assert str(table.schema.field("event_time").type) == "timestamp[us, tz=UTC]"
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == ["f1", "f2", "b:0"]
    assert [row["event_time"].timestamp() for row in rows] == [0.0, 1.5, 1.0]
    assert [row["row"] for row in rows] == [0, 1, 0]
    assert [row["input.n"] for row in rows] == [1.5, None, 2.0]
    assert [row["input.w"] for row in rows] == ["x", "é", ""]
    assert [row["input.one"] for row in rows] == [7, 8, 9]
    assert [(row["output.p.0"], row["output.p.1"]) for row in rows] == [(0.25, 0.75), (0.5, 0.5), (1.0, 0.0)]


KINDS = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT64": np.uint64, "INT8": np.int8, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 3, 40])
def test_every_type_and_width_has_a_form_that_a_dataset_takes(tmp_path: Path, kind: str, width: int) -> None:
    from deltalake import DeltaTable, write_deltalake

    largest = np.array([True]) if kind == "BOOL" else np.array([np.finfo(KINDS[kind]).max]) if kind[0] == "F" else (
        np.array([np.iinfo(KINDS[kind]).max])
    )  # fmt: skip
    values = np.repeat(largest.astype(KINDS[kind]), 2 * width).reshape(2, width)
    table = to_table([record("a", 2, outputs=[_logged("y", values)])])
    write_deltalake(str(tmp_path / "t"), table)
    stored = DeltaTable(str(tmp_path / "t")).to_pyarrow_table().to_pylist()
    names = ["output.y"] if width in (1, 40) else [f"output.y.{at}" for at in range(width)]
    for row in stored:
        found = [row[name] for name in names]
        flat = found[0] if width == 40 else found
        assert [float(one) for one in flat] == [float(one) for one in values[0]]


def test_records_of_another_form_go_into_another_table() -> None:
    records = [
        record("a"),
        record("b"),
        record("c", inputs=[_logged("other", np.array([1.0]))]),
        record("d", version=2),
        record("e"),
    ]
    assert [[one.request_id for one in group] for group in groups(records)] == [["a", "b"], ["c"], ["d"], ["e"]]
    assert list(groups([])) == []


def test_an_output_that_counts_no_rows_stands_in_each() -> None:
    table = to_table([record("a", 2, outputs=[LoggedColumn("s", "FP64", [], np.array(3.0).tobytes())])])
    assert [row["output.s"] for row in table.to_pylist()] == [3.0, 3.0]
