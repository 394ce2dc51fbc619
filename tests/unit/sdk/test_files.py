"""Datasets of files through the SDK, over a server on the same disk and as if it were on another."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from modelyard.kernel import frames
from modelyard.kernel.auth import Role
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound
from modelyard.sdk.client import Client
from modelyard.sdk.data import dataset
from modelyard.sdk.files import transfer
from modelyard.sdk.files.handle import FilesHandle
from modelyard.sdk.files.hashing import hash_files, walk
from modelyard.server.run import Server
from modelyard.types.files import CommitFiles, FileEntry
from running import client_of, running_server, token_for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("files") / "home") as server:
        yield server


@pytest.fixture(params=["same disk", "another machine"])
def client(request: pytest.FixtureRequest, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path / "own"))
    if request.param == "another machine":
        monkeypatch.setattr(transfer.Shared, "proven", False)
    return client_of(server)


@pytest.fixture
def scans(client: Client, request: pytest.FixtureRequest) -> FilesHandle:
    return FilesHandle(f"scans-{abs(hash(request.node.nodeid))}", client)


def _fill(folder: Path, files: dict[str, str]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def _read(folder: Path) -> dict[str, str]:
    return {one.relative_to(folder).as_posix(): one.read_text() for one in folder.rglob("*") if one.is_file()}


FILES = {"train/a.png": "aaa", "train/b.png": "bb", "test/c.png": "aaa", "readme.md": ""}


def test_what_is_added_is_checked_out_and_read(scans: FilesHandle, tmp_path: Path) -> None:
    added = scans.add(_fill(tmp_path / "raw", FILES), message="first")
    assert (added.changed, added.added, added.version.rows, added.version.size_bytes) == (True, 4, 4, 8)
    assert scans.checkout(tmp_path / "out").version == 1
    assert _read(tmp_path / "out") == FILES
    assert scans.read("test/c.png") == b"aaa"
    assert [one.path for one in scans.list(prefix="train/")] == ["train/a.png", "train/b.png"]
    assert scans.version().source == "first"
    assert scans.verify().problems == []
    with pytest.raises(NotFound):
        scans.read("nope")


def test_a_version_stays_what_it_was(scans: FilesHandle, tmp_path: Path) -> None:
    raw = _fill(tmp_path / "raw", FILES)
    first = scans.add(raw).version
    (raw / "readme.md").unlink()
    (raw / "train/b.png").unlink()
    _fill(raw, {"train/b.png": "changed", "train/new.png": "n"})
    second = scans.add(raw)
    assert (second.added, second.replaced, second.removed) == (1, 1, 1)
    assert not scans.add(raw).changed
    found = scans.diff(first.version, second.version.version)
    assert (found.added_paths, found.removed_paths, found.changed_paths) == (
        ["train/new.png"], ["readme.md"], ["train/b.png"],
    )  # fmt: skip
    scans.checkout(tmp_path / "old", first.version)
    assert _read(tmp_path / "old") == FILES


def test_part_of_a_tree_is_replaced_added_to_or_removed(scans: FilesHandle, tmp_path: Path) -> None:
    scans.add(_fill(tmp_path / "raw", FILES))
    scans.add(_fill(tmp_path / "more", {"z.png": "z"}), "train")
    assert [one.path for one in scans.list()] == ["readme.md", "test/c.png", "train/z.png"]
    scans.add(tmp_path / "more", "train", replace=False)
    scans.add(tmp_path / "more/z.png", "test")
    scans.remove(["train"])
    assert [one.path for one in scans.list()] == ["readme.md", "test/c.png", "test/z.png"]
    with pytest.raises(InvalidInput, match="no file or directory"):
        scans.remove(["gone"])
    last = scans.diff(3, 4)
    assert (last.added, last.removed, last.changed) == (0, 1, 0)


def test_a_branch_is_written_and_merged_and_undone(scans: FilesHandle, client: Client, tmp_path: Path) -> None:
    raw = _fill(tmp_path / "raw", FILES)
    scans.add(raw)
    table = dataset(scans.name, client)
    table.branch("clean")
    (raw / "train/b.png").unlink()
    scans.add(raw, branch="clean")
    assert (scans.version().version, scans.version("clean").version) == (1, 2)
    assert table.merge("clean").moved
    assert "train/b.png" not in {one.path for one in scans.list()}
    table.revert(1)
    assert {one.path for one in scans.list()} == set(FILES)
    _fill(raw, {"readme.md": "theirs"})
    scans.add(raw, branch="clean")
    _fill(raw, {"readme.md": "ours"})
    scans.add(raw)
    with pytest.raises(Conflict, match=r"readme\.md"):
        table.merge("clean")


def test_a_file_that_moved_is_seen_as_one(scans: FilesHandle, tmp_path: Path) -> None:
    raw = _fill(tmp_path / "raw", FILES)
    scans.add(raw)
    (raw / "train/b.png").rename(raw / "b.png")
    scans.add(raw)
    assert scans.diff(1).renamed == [("train/b.png", "b.png")]


def test_an_existing_folder_is_brought_to_a_version_and_keeps_what_is_not_of_it(
    scans: FilesHandle, tmp_path: Path
) -> None:
    scans.add(_fill(tmp_path / "raw", FILES))
    work = _fill(tmp_path / "work", {"train/a.png": "stale", "mine.txt": "mine"})
    with pytest.raises(Conflict, match="exists already"):
        scans.checkout(work)
    scans.checkout(work, update=True)
    assert _read(work) == {**FILES, "mine.txt": "mine"}


def test_a_folder_is_compared_with_a_version(scans: FilesHandle, tmp_path: Path) -> None:
    raw = _fill(tmp_path / "raw", FILES)
    scans.add(raw, link="copy")
    assert scans.status(raw).is_clean
    (raw / "train/a.png").unlink()
    _fill(raw, {"train/b.png": "other", "new.txt": "new"})
    found = scans.status(raw)
    assert (found.version, found.files) == (1, 4)
    assert (found.added_paths, found.removed_paths, found.changed_paths) == (
        ["new.txt"],
        ["train/a.png"],
        ["train/b.png"],
    )
    below = scans.status(raw / "test", prefix="test")
    assert (below.is_clean, below.files) == (True, 1)
    assert (scans.version().version, scans.add(raw).version.version) == (1, 2)
    assert scans.status(raw).is_clean
    assert scans.status(raw, 1).changed == 1


def test_executables_stay_so(scans: FilesHandle, tmp_path: Path) -> None:
    raw = _fill(tmp_path / "raw", {"run.sh": "same", "data.txt": "same"})
    (raw / "run.sh").chmod(0o755)
    scans.add(raw)
    scans.checkout(tmp_path / "out")
    modes = {one.name: bool(one.stat().st_mode & stat.S_IXUSR) for one in (tmp_path / "out").iterdir()}
    assert modes == {"run.sh": True, "data.txt": False}


def test_many_files_of_random_bytes(scans: FilesHandle, tmp_path: Path) -> None:
    source, wanted = random.Random(7), {}
    for at in range(400):
        path = f"d{at % 13}/f{at}.bin"
        content = source.randbytes(source.choice([0, 1, 100, 70_000]))
        (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / path).write_bytes(content)
        wanted[path] = hashlib.sha256(content).hexdigest()
    scans.add(tmp_path / "raw")
    scans.checkout(tmp_path / "out")
    found = {one.found.path: one.digest for one in hash_files(walk(tmp_path / "out"), tmp_path / "cache.db")}
    assert found == wanted


def test_what_is_sent_in_many_portions_is_all_there(
    scans: FilesHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ASKED_AT_ONCE", 3)
    files = {f"d{at % 4}/{at}": f"content {at % 17}" for at in range(50)} | {"large": "x" * 300_000}
    told: list[tuple[str, int]] = []
    added = scans.add(_fill(tmp_path / "raw", files), progress=lambda what, done, _: told.append((what, done)))
    assert added.added == 51
    scans.checkout(tmp_path / "out")
    assert _read(tmp_path / "out") == files
    assert ("hashing", 51) in told
    assert max(done for what, done in told if what == "sending") == 18, "equal ones once"


def test_a_file_that_changes_while_it_is_added_makes_no_version(
    scans: FilesHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ASKED_AT_ONCE", 3)
    raw = _fill(tmp_path / "raw", {f"{at}": f"content {at}" for at in range(20)})

    ask = transfer._missing

    def change_and_ask(*of: Any) -> Any:
        # After it was hashed, before it is sent.
        (raw / "5").unlink()
        (raw / "5").write_text("another one")
        return ask(*of)

    monkeypatch.setattr(transfer, "_missing", change_and_ask)
    with pytest.raises(Conflict) as refused:
        scans.add(raw)
    assert refused.value.code == "files.changed"
    with pytest.raises(NotFound):
        scans.version()


def test_symbolic_links_and_unsafe_names_are_refused(scans: FilesHandle, tmp_path: Path) -> None:
    raw = _fill(tmp_path / "raw", {"a": "a"})
    (raw / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="symbolic link"):
        scans.add(raw)
    (raw / "link").unlink()
    (raw / "back\\slash").write_text("x")
    with pytest.raises(InvalidInput):
        scans.add(raw)
    with pytest.raises(NotFound):
        scans.add(tmp_path / "nothing-here")


def test_a_table_is_no_tree_and_a_tree_no_table(client: Client, tmp_path: Path) -> None:
    table, tree = dataset("rows-here", client), FilesHandle("files-here", client)
    table.write(pa.table({"x": [1]}))
    tree.add(_fill(tmp_path / "raw", FILES))
    for act in (lambda: FilesHandle("rows-here", client).add(tmp_path / "raw"), dataset("files-here", client).read):
        with pytest.raises(Conflict, match="holds"):
            act()
    with pytest.raises(Conflict, match="holds files"):
        dataset("files-here", client).write(pa.table({"x": [1]}))


def test_bytes_come_before_the_version_that_names_them(scans: FilesHandle, client: Client, tmp_path: Path) -> None:
    scans.add(_fill(tmp_path / "raw", FILES))
    other = FilesHandle(f"{scans.name}-other", client)
    other.add(_fill(tmp_path / "own", {"own.txt": "own"}))
    digest = hashlib.sha256(b"aaa").hexdigest()
    claim = CommitFiles(put=[FileEntry("stolen.png", digest, 3)])
    # That another dataset holds these bytes is no reason to hand them out.
    with pytest.raises(InvalidInput, match="does not hold"):
        client.post(f"/api/datasets/{other.name}/files/commits", claim)
    with pytest.raises(Conflict, match="names version 1, not 7"):
        client.post(f"/api/datasets/{scans.name}/files/commits", msgspec.structs.replace(claim, expect=7))


def test_bytes_of_another_digest_are_refused(scans: FilesHandle, client: Client, tmp_path: Path) -> None:
    scans.add(_fill(tmp_path / "raw", FILES))
    path = f"/api/datasets/{scans.name}/files/blobs"
    for body in (frames.head("0" * 64, 3) + b"abc", frames.head("0" * 64, 9) + b"abc", b"junk"):
        with pytest.raises(InvalidInput):
            client.send_bytes("POST", path, body)


def test_who_may_only_read_adds_nothing(server: Server, client: Client, scans: FilesHandle, tmp_path: Path) -> None:
    scans.add(_fill(tmp_path / "raw", FILES))
    reader = Client(server.url, token=token_for(server, f"vi-{scans.name}", Role.VIEWER))
    FilesHandle(scans.name, reader).checkout(tmp_path / "out")
    assert _read(tmp_path / "out") == FILES
    _fill(tmp_path / "raw", {"more": "more"})
    with pytest.raises(Forbidden):
        FilesHandle(scans.name, reader).add(tmp_path / "raw")


def test_a_damaged_blob_is_named(server: Server, scans: FilesHandle, tmp_path: Path) -> None:
    scans.add(_fill(tmp_path / "raw", {"a.png": scans.name, "b.png": "fine"}))
    digest = hashlib.sha256(scans.name.encode()).hexdigest()
    blob = server.yard.settings.home / "blobs" / digest[:2] / digest
    blob.chmod(0o600)
    blob.write_bytes(b"rotten")
    assert [(one.path, one.what) for one in scans.verify().problems] == [("a.png", "damaged")]


def test_a_second_checkout_on_the_same_disk_costs_no_bytes(server: Server, tmp_path: Path) -> None:
    os.environ["MODELYARD_HOME"] = str(tmp_path / "own")
    scans = FilesHandle("linked", client_of(server))
    scans.add(_fill(tmp_path / "raw", {"big.bin": "x" * 1_000_000}))
    for name in ("one", "two"):
        scans.checkout(tmp_path / name, link="hardlink")
    inodes = {(tmp_path / name / "big.bin").stat().st_ino for name in ("one", "two")}
    assert len(inodes) == 1
    assert not (tmp_path / "one" / "big.bin").stat().st_mode & 0o222
    scans.checkout(tmp_path / "copy", link="copy")
    (tmp_path / "copy" / "big.bin").write_text("changed")
    assert scans.verify().problems == []
    del os.environ["MODELYARD_HOME"]


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = _fill(tmp_path / "raw", FILES)
    for file in raw.rglob("*"):
        os.utime(file, (1, 1))
    first = hash_files(walk(raw), tmp_path / "cache.db")
    read: list[str] = []
    monkeypatch.setattr("modelyard.sdk.files.hashing.digest_of", lambda file: read.append(file) or "new")
    assert hash_files(walk(raw), tmp_path / "cache.db") == first
    assert read == []
    (raw / "readme.md").write_text("now")
    hash_files(walk(raw), tmp_path / "cache.db")
    assert [Path(file).name for file in read] == ["readme.md"]
