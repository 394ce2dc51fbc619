"""Logs of W&B and TensorBoard, byte by byte: what is whole is read, what is cut off or damaged is said."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.sdk.imports import protobuf, tensorboard_log, wandb_log
from modelyard.sdk.imports.collected import Collected, plain_name
from modelyard.sdk.imports.source import CutOff, Owner, Value
from modelyard.sdk.imports.tensorboard_folder import TensorboardFolder
from modelyard.sdk.imports.wandb_folder import WandbFolder, run_id_of
from modelyard.types.tracking import CreateRun

# --- the formats, written as their makers write them ------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= 2**64 - 1
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: bytes | str | int | float) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    body = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(body)) + body


def wandb_file(records: list[bytes]) -> bytes:
    """LevelDB's log: a record is cut where a block of 32 KiB ends."""
    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for record in records:
        left, first = record, True
        while first or left:
            room = 32_768 - len(out) % 32_768
            if room < 7:
                out += b"\0" * room
                room = 32_768
            piece, left = left[: room - 7], left[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[(first, not left)]
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            first = False
    return bytes(out)


def event_file(records: list[bytes]) -> bytes:
    out = bytearray()
    for record in records:
        head = struct.pack("<Q", len(record))
        # The sum of a large record is not looked at.
        foot = tensorboard_log.masked(record) if len(record) <= tensorboard_log.CHECKED_BYTES_MAX else 0
        out += head + struct.pack("<I", tensorboard_log.masked(head)) + record + struct.pack("<I", foot)
    return bytes(out)


FORMATS = pytest.mark.parametrize(
    ("write", "read"), [(wandb_file, wandb_log.records), (event_file, tensorboard_log.records)]
)
Write = Callable[[list[bytes]], bytes]
Read = Callable[[Path], Iterator[bytes]]


@FORMATS
@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.integers(0, 70_000), max_size=6))
def test_records_of_any_length_come_back(
    write: Write, read: Read, sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    records = [bytes(at % 251 for at in range(size)) for size in sizes if size != 0 or write is event_file]
    file = tmp_path_factory.mktemp("log") / "x"
    file.write_bytes(write(records))
    assert list(read(file)) == records


@FORMATS
def test_what_a_killed_writer_left_is_read_up_to_there(write: Write, read: Read, tmp_path: Path) -> None:
    whole, file = write([b"first" * 10, b"second" * 10]), tmp_path / "x"
    head = 7 if write is wandb_file else 0
    seen = set()
    for end in range(head, len(whole)):
        file.write_bytes(whole[:end])
        found = []
        try:
            found.extend(read(file))
        except CutOff:
            seen.add("cut off")
        assert found in ([], [b"first" * 10])
        seen.add(str(len(found)))
    assert seen == {"cut off", "0", "1"}


@FORMATS
def test_a_changed_byte_shows(write: Write, read: Read, tmp_path: Path) -> None:
    whole, file = bytearray(write([b"some record", b"another"])), tmp_path / "x"
    for at in range(7 if write is wandb_file else 0, len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x41
        file.write_bytes(changed)
        found = []
        with pytest.raises(CutOff):
            found.extend(read(file))
        assert found in ([], [b"some record"])


def test_the_checksum_is_the_one_of_tfrecord() -> None:
    # RFC 3720 gives the CRC-32C of 32 zero bytes as 0x8A9136AA; TFRecord turns and shifts it.
    crc = 0x8A9136AA
    assert tensorboard_log.masked(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def test_another_file_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "run-x.wandb").write_bytes(b"PNG")
    with pytest.raises(InvalidInput, match="no log of W&B"):
        list(wandb_log.records(tmp_path / "run-x.wandb"))
    for kind in (WandbFolder, TensorboardFolder):
        with pytest.raises(InvalidInput, match="holds no"):
            kind(tmp_path / "nothing")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    try:
        found = protobuf.grouped(data)
    except InvalidInput:
        return
    assert all(number >= 0 for number in found)


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
def test_numbers_and_texts_come_back(number: int, text: str) -> None:
    found = protobuf.grouped(field(3, number) + field(5, text) + field(9, 1.5))
    assert (protobuf.integer(found, 3), protobuf.text(found, 5), protobuf.number(found[9][0])) == (number, text, 1.5)


@given(st.lists(st.text(max_size=300), max_size=8))
def test_names_may_be_stored_whatever_they_were_and_stay_apart(names: list[str]) -> None:
    collected = Collected()
    found = {name: collected.name(name) for name in names}
    assert len(set(found.values())) == len(set(names))
    for name in found.values():
        assert 0 < len(name) <= 250
        assert plain_name(name) == name
    assert CreateRun.__struct_fields__


# --- runs -------------------------------------------------------------------------------------------------------------


def item(key: str, value: object) -> bytes:
    return field(1, field(2, key) + field(16, json.dumps(value)))


def wandb_run(folder: Path, records: list[bytes], name: str = "offline-run-1") -> None:
    (folder / name / "files").mkdir(parents=True)
    (folder / name / "run-abc.wandb").write_bytes(wandb_file(records))
    (folder / name / "files/output.log").write_text("hello")


HEAD = field(17, field(1, "abc") + field(2, "ops") + field(3, "flights") + field(8, "first")
             + field(17, field(1, 1_000)) + field(4, item("lr", 0.1) + item("opt", {"name": "adam"})))  # fmt: skip


def history(step: int, **values: object) -> bytes:
    items = b"".join(item(key, value) for key, value in {**values, "_step": step, "_timestamp": 1_000.0 + step}.items())
    return field(2, items)


def test_a_run_of_wandb_with_numbers_of_every_spelling(tmp_path: Path) -> None:
    typed = field(1, field(2, "typed") + field(5, 5)) + item("_step", 3)
    records = [HEAD, history(0, loss=0.5, val={"auc": 1}, word="x", odd="NaN", flag=True), history(1, loss=0.25),
               field(2, typed), field(18, field(1, 0) + field(2, 60))]  # fmt: skip
    wandb_run(tmp_path, records)
    source = WandbFolder(tmp_path)
    (experiment,) = source.experiments()
    (run,) = source.runs(experiment.id)
    assert (experiment.name, run.id) == ("flights", run_id_of("ops/flights/abc"))
    assert (run.name, run.status, run.params) == ("first", "FINISHED", {"lr": "0.1", "opt.name": "adam"})
    assert (run.ended_at - run.started_at).total_seconds() == 60
    assert run.metrics == ("flag", "loss", "odd", "typed", "val.auc")
    assert list(source.history(run.id, "loss")) == [Value(1_000_000, 0, 0.5), Value(1_001_000, 1, 0.25)]
    assert [(one.step, one.value) for one in source.history(run.id, "typed")] == [(3, -3.0)]
    assert [file.path for file in source.files(Owner("run", run.id))] == ["history/word.jsonl", "output.log"]
    with source.open(Owner("run", run.id), "history/word.jsonl") as pieces:
        assert json.loads(b"".join(pieces)) == {"step": 0, "timestamp_ms": 1_000_000, "value": "x"}


def test_a_killed_run_of_wandb_and_one_in_two_parts(tmp_path: Path) -> None:
    wandb_run(tmp_path, [HEAD, history(0, loss=1.0)], "offline-run-1")
    wandb_run(tmp_path, [HEAD, history(1, loss=2.0), b"\xff\xff"], "offline-run-2")
    second = tmp_path / "offline-run-2/run-abc.wandb"
    second.write_bytes(second.read_bytes()[:-1])
    (tmp_path / "offline-run-3").mkdir()
    (tmp_path / "offline-run-3/run-x.wandb").write_bytes(b"")
    source = WandbFolder(tmp_path)
    (run,) = source.runs("ops/flights")
    assert run.status == "KILLED"
    assert [one.value for one in source.history(run.id, "loss")] == [1.0, 2.0]
    assert "what came before is here" in run.notes[0]
    assert len(source.unreadable) == 1


def test_a_manifest_makes_an_import_read_what_wandb_staged_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "artifacts/staging").mkdir(parents=True)
    staged, secret = tmp_path / "artifacts/staging/tmpx", tmp_path / "secret"
    staged.write_text("weights")
    secret.write_text("weights")
    digest = base64.b64encode(hashlib.md5(b"weights").digest()).decode()
    entries = [("a.bin", staged, digest), ("b.bin", secret, digest), ("c.bin", staged, "other"),
               ("d.bin", tmp_path / "artifacts/staging/../../secret", digest)]  # fmt: skip
    manifest = b"".join(
        field(4, field(1, path) + field(2, told) + field(6, str(local))) for path, local, told in entries
    )
    wandb_run(tmp_path, [HEAD, field(8, field(5, "model") + field(12, manifest)), field(18, field(1, 1))])
    source = WandbFolder(tmp_path)
    (run,) = source.runs("ops/flights")
    paths = [file.path for file in source.files(Owner("run", run.id))]
    assert paths == ["artifacts/model/a.bin", "output.log"]
    assert (run.status, len(run.notes)) == ("FAILED", 3)


def test_scalars_old_and_new_of_tensorboard(tmp_path: Path) -> None:
    def event(step: int, value: bytes) -> bytes:
        return field(1, 1_000.0 + step) + field(2, step) + field(5, field(1, value))

    tensor = field(1, 1) + field(4, struct.pack("<f", 2.5))
    plugin = field(9, field(1, field(1, "scalars")))
    short = varint(2 << 3 | 5) + struct.pack("<f", 0.5)
    records = [field(1, 1_000.0) + field(3, "brain.Event:2"), event(1, field(1, "old") + short),
               event(2, field(1, "new") + field(8, tensor) + plugin),
               event(-1, field(1, "odd key!") + short)]  # fmt: skip
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/events.out.tfevents.1.x").write_bytes(event_file(records)[:-1])
    source = TensorboardFolder(tmp_path / "runs")
    (run,) = source.runs("runs")
    assert (run.name, run.metrics) == ("a", ("new", "old"))
    assert "ends in the middle" in run.notes[0]
    assert list(source.history(run.id, "new")) == [Value(1_002_000, 2, 2.5)]
    source.close()
