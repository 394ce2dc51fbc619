"""Trees of files: what is written is read, a change costs one chunk, comparison finds exactly what differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.planes.data import trees
from modelyard.types.files import FileEntry, FolderEntry

NAMES = st.text("abcdefgh", min_size=1, max_size=4)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def _entry(path: str, content: str = "x") -> FileEntry:
    return FileEntry(path, hashlib.sha256(content.encode()).hexdigest(), len(content))


def _many(count: int) -> list[FileEntry]:
    return sorted(_entry(f"dir{at % 7}/file{at:06d}.png", str(at)) for at in range(count))


def _files_only(paths: dict[str, str]) -> dict[str, str]:
    """Without paths that others lie below, which no tree can hold."""
    return {path: content for path, content in paths.items() if not any(o.startswith(f"{path}/") for o in paths)}


FILES = st.dictionaries(PATHS, st.sampled_from("xyz"), max_size=30).map(_files_only)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
    return LocalBlobs(tmp_path_factory.mktemp("blobs"))


def test_a_tree_comes_back_and_is_named_by_its_content(blobs: LocalBlobs) -> None:
    entries = _many(3_000)
    tree = trees.write_tree(blobs, entries)
    assert list(trees.read_tree(blobs, tree)) == entries
    assert trees.write_tree(blobs, entries) == tree
    assert trees.write_tree(blobs, entries[1:]) != tree


def test_a_changed_file_costs_one_chunk(blobs: LocalBlobs) -> None:
    entries = _many(5_000)
    before = trees.read_index(blobs, trees.write_tree(blobs, entries))
    entries[2_500] = _entry(entries[2_500].path, "changed")
    del entries[10]
    after = trees.read_index(blobs, trees.write_tree(blobs, entries))
    assert len(before) > 5
    assert len({one.digest for one in after} - {one.digest for one in before}) <= 2


@settings(max_examples=50, deadline=None)
@given(before=FILES, after=FILES)
def test_differences_are_those_of_the_mappings(
    blobs: LocalBlobs, before: dict[str, str], after: dict[str, str]
) -> None:
    old, new = ({path: _entry(path, content) for path, content in files.items()} for files in (before, after))
    indices = [
        trees.read_index(blobs, trees.write_tree(blobs, [files[path] for path in sorted(files)]))
        for files in (old, new)
    ]
    found = trees.differences(indices[0], indices[1], lambda chunk: trees.read_chunk(blobs, chunk))
    wanted = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
    assert {one.path for one in found} == wanted
    assert all((one.before, one.after) == (old.get(one.path), new.get(one.path)) for one in found)


@settings(max_examples=50, deadline=None)
@given(files=FILES, prefix=st.one_of(st.just(""), NAMES), after=st.one_of(st.just(""), PATHS))
def test_a_page_reads_what_it_needs_and_misses_nothing(
    blobs: LocalBlobs, files: dict[str, str], prefix: str, after: str
) -> None:
    entries = [_entry(path) for path in sorted(files)]
    # Small chunks, so that there are many of them.
    index = [trees.Chunk(one.path, 1, 1, one.path) for one in entries]
    by_path = {one.path: one for one in entries}
    found = list(trees.entries_after(index, lambda chunk: [by_path[chunk.digest]], prefix, after))
    assert found == [one for one in entries if one.path.startswith(prefix) and one.path > after]


def test_a_page_of_a_large_tree_reads_few_chunks(blobs: LocalBlobs) -> None:
    index = trees.read_index(blobs, trees.write_tree(blobs, _many(20_000)))
    read: list[trees.Chunk] = []

    def reading(chunk: trees.Chunk) -> list[FileEntry]:
        read.append(chunk)
        return trees.read_chunk(blobs, chunk)

    found = trees.entries_after(index, reading, "dir6/", "dir6/file019990")
    assert all(one.path.startswith("dir6/") for one in found)
    assert len(read) <= 2 < len(index)


def test_a_commit_puts_removes_and_replaces() -> None:
    tree = [_entry("a/1"), _entry("a/2"), _entry("b/1")]
    assert [one.path for one in trees.changed_tree(tree, [_entry("a/3")], [], "a")] == ["a/3", "b/1"]
    assert [one.path for one in trees.changed_tree(tree, [_entry("c")], ["b"], None)] == ["a/1", "a/2", "c"]
    assert trees.changed_tree(tree, [], [], "") == []
    with pytest.raises(InvalidInput, match="no file or directory 'nope'"):
        trees.changed_tree(tree, [], ["nope"], None)


@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a\\b", "", "x/%2e%2e/y", "~/x", "a\nb"])
def test_an_unsafe_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        trees.changed_tree([], [_entry(path)], [], None)


@pytest.mark.parametrize("pair", [("A.png", "a.png"), ("\u00e9.png", "e\u0301.png"), ("a", "a/b")])
def test_names_that_are_one_on_some_file_system_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(Conflict):
        trees.changed_tree([_entry(pair[0])], [_entry(pair[1])], [], None)


def test_chunks_have_a_bound_whatever_the_names(tmp_path: Path) -> None:
    parts = list(trees.cut(_many(50_000)))
    assert sum(map(len, parts)) == 50_000
    assert max(map(len, parts)) <= trees.CHUNK_FILES_MAX


@settings(max_examples=50, deadline=None)
@given(files=st.dictionaries(st.lists(st.text("ab-.", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join),
                             st.just("x"), max_size=30).map(_files_only), size=st.integers(1, 4))  # fmt: skip
def test_a_directory_page_by_page_is_the_directory(blobs: LocalBlobs, files: dict[str, str], size: int) -> None:
    index = trees.read_index(blobs, trees.write_tree(blobs, [_entry(path) for path in sorted(files)]))

    def page(limit: int, past: str = "") -> list[FolderEntry]:
        return trees.children(index, lambda chunk: trees.read_chunk(blobs, chunk), "", limit, past)

    found: list[FolderEntry] = []
    while more := page(size, f"{found[-1].path}/" if found and found[-1].is_dir else found[-1].path if found else ""):
        found += more
    assert found == page(1_000)
    assert {one.path for one in found} == {path.partition("/")[0] for path in files}
