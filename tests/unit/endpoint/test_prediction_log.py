"""The prediction log: whole records, bounded size, segments that show whether their writer lives."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from modelyard.endpoint.prediction_log import PredictionLog
from modelyard.types.serving import EndpointOptions, LoggedColumn, PredictionRecord
from unit.endpoint.living import frames


def record(name: str, payload: int = 10) -> PredictionRecord:
    return PredictionRecord(
        request_id=name, at_us=1, endpoint="e", variant="v", model="m", version=1, digest="d", latency_us=1, rows=1,
        ids=None, event_times_us=None, inputs=[LoggedColumn("x", "BYTES", [1], ["a" * payload])], outputs=[],
    )  # fmt: skip


def names(directory: Path) -> list[str]:
    return [one.request_id for path in sorted(directory.iterdir()) for one in frames(path.read_bytes())]


def test_records_come_back_in_order(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, EndpointOptions())
    assert log.append([record("a"), record("b")])
    assert log.append([record("c")])
    assert [path.suffix for path in tmp_path.iterdir()] == [".open"]
    log.close()
    assert [path.suffix for path in tmp_path.iterdir()] == [".frames"]
    assert names(tmp_path) == ["a", "b", "c"]


def test_segments_are_closed_by_size(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, EndpointOptions(segment_bytes_max=1024))
    for number in range(30):
        log.append([record(str(number), 200)])
    log.close()
    assert len(list(tmp_path.glob("*.frames"))) >= 5
    assert names(tmp_path) == [str(number) for number in range(30)]


def test_segments_are_closed_by_age(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, EndpointOptions(segment_age_s_max=1e-9))
    log.tick()
    assert list(tmp_path.iterdir()) == []
    log.append([record("a")])
    log.tick()
    assert [path.suffix for path in tmp_path.iterdir()] == [".frames"]


def test_a_full_log_drops_and_counts_until_there_is_room(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, EndpointOptions(segment_bytes_max=1024, log_bytes_max=4096))
    kept = [log.append([record(str(number), 500)]) for number in range(20)]
    assert kept.count(True) == log.rows_written
    assert log.rows_dropped == kept.count(False) > 0
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4096
    for path in tmp_path.glob("*.frames"):
        path.unlink()
    log.tick()
    assert log.append([record("again")])


def test_an_open_segment_is_locked_while_its_writer_lives(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, EndpointOptions())
    log.append([record("a")])
    (path,) = tmp_path.iterdir()
    with path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    log.close()


def test_a_short_write_leaves_no_torn_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PredictionLog(tmp_path, EndpointOptions())
    log.append([record("a")])
    real = os.write
    with monkeypatch.context() as patched:
        # A disk that fills up takes only a part, which cannot be had on demand without root.
        patched.setattr(os, "write", lambda file, data: real(file, data[:7]))
        assert not log.append([record("torn")])
    assert log.append([record("b")])
    log.close()
    assert names(tmp_path) == ["a", "b"]
    assert log.rows_dropped == 1
