"""Conformance of blob stores: every engine of the kind runs this suite."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.blobs.base import BlobStore, SharedDisk
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel.errors import EngineError, InvalidInput, NotFound, TooLarge, Unavailable

NEVER = "0" * 64
FUTURE = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(root: Path) -> BlobStore:
    return LocalBlobs(root)


def on_disk(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]


def test_what_is_put_is_got_under_its_digest(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b"hello"))
    assert blob.digest == hashlib.sha256(b"hello").hexdigest()
    assert blob.size_bytes == 5
    assert blobs.get(blob.digest) == b"hello"
    assert blobs.exists(blob.digest)
    assert blobs.size_bytes(blob.digest) == 5
    with blobs.open(blob.digest, verify=True) as file:
        assert file.read() == b"hello"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(pieces=st.lists(st.binary(max_size=40), max_size=8))
def test_the_same_bytes_are_one_blob_however_they_come(blobs: BlobStore, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    first, second = blobs.put(iter(pieces)), blobs.put(io.BytesIO(whole))
    assert first == second
    assert blobs.get(first.digest) == whole
    assert list(blobs.digests()).count(first.digest) == 1


def test_missing_blobs_are_not_found(blobs: BlobStore) -> None:
    assert not blobs.exists(NEVER)
    assert blobs.delete(NEVER) is False
    for act in (blobs.get, blobs.open, blobs.size_bytes):
        with pytest.raises(NotFound):
            act(NEVER)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 63 + "/", "0" * 64 + "\n"])
def test_what_is_no_digest_never_becomes_a_path(blobs: BlobStore, digest: str) -> None:
    for act in (blobs.get, blobs.open, blobs.size_bytes, blobs.exists, blobs.delete):
        with pytest.raises(InvalidInput):
            act(digest)


def test_a_blob_past_the_cap_leaves_nothing(blobs: BlobStore, root: Path) -> None:
    assert blobs.put(io.BytesIO(b"x" * 10), size_bytes_max=10).size_bytes == 10
    with pytest.raises(TooLarge):
        blobs.put((b"y" for _ in range(11)), size_bytes_max=10)
    assert len(on_disk(root)) == 1


def test_a_source_that_fails_leaves_nothing(blobs: BlobStore, root: Path) -> None:
    def source() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionResetError("the peer went away")

    with pytest.raises(ConnectionResetError):
        blobs.put(source())
    assert on_disk(root) == []


def test_damage_is_found_named_and_healed_by_putting_again(blobs: BlobStore, root: Path) -> None:
    blob = blobs.put(io.BytesIO(b"precious"))
    [file] = on_disk(root)
    file.write_bytes(b"preciouz")
    for act in (lambda: blobs.get(blob.digest), lambda: blobs.open(blob.digest, verify=True)):
        with pytest.raises(EngineError) as caught:
            act()
        assert caught.value.code == "blob.corrupt"
    blobs.put(io.BytesIO(b"precious"))
    assert blobs.get(blob.digest) == b"precious"


def test_only_the_owner_can_read(blobs: BlobStore, root: Path) -> None:
    blobs.put(io.BytesIO(b"secret"))
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def _later() -> datetime:
    """An instant that the file system tells from those before and after it."""
    time.sleep(0.02)
    now = datetime.now(UTC)
    time.sleep(0.02)
    return now


def test_a_removal_spares_what_is_new_and_what_is_not_named(blobs: BlobStore, root: Path) -> None:
    kept, dropped = (blobs.put(io.BytesIO(text)) for text in (b"kept", b"dropped"))
    unfinished = root / "incoming" / "left-by-a-crash"
    unfinished.write_bytes(b"half")
    instant = _later()
    new = blobs.put(io.BytesIO(b"new"))
    removed = blobs.remove([dropped.digest, new.digest, NEVER], instant)
    assert (removed.blobs, removed.size_bytes) == (1, len(b"dropped"))
    assert blobs.clear(instant) == len(b"half")
    assert sorted(blobs.digests()) == sorted([kept.digest, new.digest])
    assert list(blobs.digests(kept.digest[:2])) == [kept.digest]
    assert not unfinished.exists()


def test_when_a_blob_was_last_put_is_known(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b"x"))
    first = blobs.written_at(blob.digest)
    assert first is not None
    assert first[0] == 1
    assert abs(datetime.now(UTC) - first[1]) < timedelta(minutes=1)
    instant = _later()
    blobs.put(io.BytesIO(b"x"))
    again = blobs.written_at(blob.digest)
    assert again is not None
    assert first[1] < instant < again[1]
    assert blobs.written_at(NEVER) is None


def test_putting_again_what_is_about_to_be_removed_renews_it(blobs: BlobStore) -> None:
    blob = blobs.put(io.BytesIO(b"x"))
    instant = _later()
    blobs.put(io.BytesIO(b"x"))
    assert blobs.remove([blob.digest], instant).blobs == 0
    assert blobs.exists(blob.digest)
    assert blobs.remove([blob.digest], FUTURE).blobs == 1


_PUTTING = """
import io, sys
from pathlib import Path
from modelyard.engines.blobs.local import LocalBlobs
blobs = LocalBlobs(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
blobs.put(io.BytesIO(b"x"))
print("put", flush=True)
"""


def test_what_another_process_puts_while_it_is_being_removed_is_there(
    blobs: BlobStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: the blob was seen to be old, and is not yet unlinked."""
    digest = blobs.put(io.BytesIO(b"x")).digest
    instant = _later()
    command = [sys.executable, "-c", _PUTTING, root]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        unlink = Path.unlink

        def late(file: Path, missing_ok: bool = False) -> None:
            assert other.stdin is not None
            other.stdin.write("go\n")
            other.stdin.flush()
            # Without the lock the other would be done long before this, and its blob lost with the old one.
            time.sleep(0.3)
            unlink(file, missing_ok)

        monkeypatch.setattr(Path, "unlink", late)
        assert blobs.remove([digest], instant).blobs == 1
        monkeypatch.undo()
        assert other.stdout.readline() == "put\n"
    assert blobs.get(digest) == b"x"


def _dropped(blobs: BlobStore, box: str, files: dict[str, bytes]) -> SharedDisk:
    assert isinstance(blobs, SharedDisk)
    folder = blobs.make_drop(box, "nonce")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return blobs


def test_what_is_dropped_is_adopted_without_being_read(blobs: BlobStore, root: Path, tmp_path: Path) -> None:
    content = b"a picture"
    digest = hashlib.sha256(content).hexdigest()
    disk = _dropped(blobs, "b1", {digest: content})
    assert (root / "incoming" / "drop-b1.nonce").read_text() == "nonce"
    assert [(one.digest, one.size_bytes) for one in disk.adopt("b1")] == [(digest, len(content))]
    assert blobs.get(digest) == content
    assert list((root / "incoming").iterdir()) == []
    with pytest.raises(NotFound):
        disk.adopt("b1")


def test_an_old_file_that_was_just_linked_is_not_swept(blobs: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "old.png"
    source.write_bytes(b"old")
    os.utime(source, (1, 1))
    digest = hashlib.sha256(b"old").hexdigest()
    disk = _dropped(blobs, "b2", {})
    os.link(source, disk.root / "incoming" / "drop-b2" / digest)
    disk.adopt("b2")
    assert blobs.remove([digest], datetime.now(UTC) - timedelta(hours=1)).blobs == 0
    assert blobs.exists(digest)
    assert source.stat().st_mode & 0o222 == 0


@pytest.mark.parametrize("name", ["not-a-digest", "nonce"])
def test_a_dropbox_with_anything_else_is_refused_whole(blobs: BlobStore, name: str) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    disk = _dropped(blobs, "b3", {digest: b"x", name: b"y"})
    with pytest.raises(InvalidInput):
        disk.adopt("b3")
    assert not blobs.exists(digest)


def test_a_link_in_a_dropbox_is_not_followed(blobs: BlobStore, tmp_path: Path) -> None:
    disk = _dropped(blobs, "b4", {})
    (disk.root / "incoming" / "drop-b4" / ("a" * 64)).symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput):
        disk.adopt("b4")


@pytest.mark.parametrize("box", ["../drop-x", "a/b", "..", ""])
def test_a_dropbox_has_a_plain_name(blobs: BlobStore, box: str) -> None:
    assert isinstance(blobs, SharedDisk)
    with pytest.raises((InvalidInput, NotFound)):
        blobs.adopt(box)


def test_many_blobs_settle_together(blobs: BlobStore) -> None:
    found = [blobs.put(io.BytesIO(bytes([at])), durable=False) for at in range(50)]
    blobs.settle()
    assert all(blobs.get(one.digest) == bytes([at]) for at, one in enumerate(found))


def test_many_threads_put_the_same_and_other_blobs(blobs: BlobStore) -> None:
    failures: list[Exception] = []

    def put(number: int) -> None:
        try:
            for turn in range(20):
                text = f"{(number * turn) % 7}".encode()
                assert blobs.get(blobs.put(io.BytesIO(text)).digest) == text
        except (AssertionError, OSError, EngineError) as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path: Path) -> None:
    """256 MB go through a process that may have 200 MB more than an empty one."""
    program = """
import resource, sys
from pathlib import Path
from modelyard.engines.blobs.local import LocalBlobs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
blob = LocalBlobs(Path(sys.argv[1])).put(bytes(1024 * 1024) for _ in range(256))
with LocalBlobs(Path(sys.argv[1])).open(blob.digest, verify=True): pass
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(blob.size_bytes, after - before)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    size_bytes, grown_kib = (int(part) for part in done.stdout.split())
    assert size_bytes == 256 * 1024 * 1024
    assert grown_kib < 40 * 1024


def test_a_full_disk_is_said_and_leaves_nothing(blobs: BlobStore, root: Path) -> None:
    """A file may have 64 kB at most: the kernel then answers as a full disk does."""
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, before[1]))
    try:
        with pytest.raises(Unavailable) as caught:
            blobs.put(io.BytesIO(b"z" * 200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.code == "blob.disk_full"
    assert on_disk(root) == []
    assert blobs.put(io.BytesIO(b"z" * 200_000)).size_bytes == 200_000
