"""Trees of files as blobs: a list of entries by path, cut into chunks where the paths say so, and an index of chunks.

Whether a chunk ends after a path depends on that path alone, so a changed file changes one chunk and the index, and two
versions share all others: what is kept and compared grows with what changed. A tree is named by its index's digest.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import msgspec

from modelyard.engines.blobs.base import BlobStore
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.kernel.paths import collision_key, require_safe
from modelyard.types.files import FileEntry, FolderEntry

CHUNK_FILES = 512
_LAST = "\U0010ffff"
CHUNK_FILES_MAX = 8 * CHUNK_FILES


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """Entries that follow each other: the first one's path, how many, their bytes, and the blob that holds them."""

    first: str
    files: int
    size_bytes: int
    digest: str


class Change(msgspec.Struct, frozen=True):
    """A path with its entry on both sides; None where it is not there."""

    path: str
    before: FileEntry | None
    after: FileEntry | None


def write_tree(blobs: BlobStore, entries: Sequence[FileEntry], there: Collection[str] = ()) -> str:
    """Store a tree, whose entries are sorted by path. Returns its name. Durable once the store has settled. `there`:
    blobs that need not be stored, since a version names them that stays."""
    index = [
        Chunk(
            part[0].path, len(part), sum(one.size_bytes for one in part), _put(blobs, msgspec.json.encode(part), there)
        )
        for part in cut(entries)
    ]
    return _put(blobs, msgspec.json.encode(index), there)


def read_index(blobs: BlobStore, tree: str) -> list[Chunk]:
    """The chunks of a tree, in order. Raises EngineError for a damaged blob."""
    return msgspec.json.decode(blobs.get(tree), type=list[Chunk])


def read_chunk(blobs: BlobStore, chunk: Chunk) -> list[FileEntry]:
    """The entries of a chunk."""
    return msgspec.json.decode(blobs.get(chunk.digest), type=list[FileEntry])


def read_tree(blobs: BlobStore, tree: str) -> Iterator[FileEntry]:
    """All entries by path."""
    for chunk in read_index(blobs, tree):
        yield from read_chunk(blobs, chunk)


def entries_after(
    index: Sequence[Chunk], read: Callable[[Chunk], list[FileEntry]], prefix: str, after: str
) -> Iterator[FileEntry]:
    """The entries whose path starts with a prefix and follows another, reading only the chunks that may hold them."""
    for at, chunk in enumerate(index):
        ends_before = index[at + 1].first if at + 1 < len(index) else None
        if ends_before is not None and ends_before <= max(prefix, after):
            continue
        if chunk.first > prefix and not chunk.first.startswith(prefix):
            return
        yield from (one for one in read(chunk) if one.path.startswith(prefix) and one.path > after)


def children(
    index: Sequence[Chunk], read: Callable[[Chunk], list[FileEntry]], directory: str, limit: int, past: str = ""
) -> list[FolderEntry]:
    """What lies right in a directory, by name, at most so many: a directory below it is skipped at one look. `past` is
    the path of the entry to begin after, of a directory with a `/` at its end."""
    prefix = f"{directory.strip('/')}/" if directory.strip("/") else ""
    reading = lru_cache(maxsize=2)(read)
    found: list[FolderEntry] = []
    after = f"{past}{_LAST}" if past.endswith("/") else past
    while len(found) < limit:
        one = next(entries_after(index, reading, prefix, after), None)
        if one is None:
            break
        name, below, _ = one.path[len(prefix) :].partition("/")
        if below:
            found.append(FolderEntry(path=prefix + name, is_dir=True))
            after = f"{prefix}{name}/{_LAST}"
        else:
            found.append(FolderEntry(path=one.path, size_bytes=one.size_bytes, digest=one.digest))
            after = one.path
    return found


def differences(
    before: Sequence[Chunk], after: Sequence[Chunk], read: Callable[[Chunk], list[FileEntry]]
) -> list[Change]:
    """What differs between two trees by path, reading only the chunks that are not in both."""
    shared = {chunk.digest for chunk in before} & {chunk.digest for chunk in after}
    old = {one.path: one for chunk in before if chunk.digest not in shared for one in read(chunk)}
    new = {one.path: one for chunk in after if chunk.digest not in shared for one in read(chunk)}
    return [
        Change(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def changed_tree(
    entries: Iterable[FileEntry], put: Sequence[FileEntry], remove: Sequence[str], replace_below: str | None
) -> list[FileEntry]:
    """The entries after a commit, by path. Raises InvalidInput for an unsafe path, Conflict where two names are one
    on some file system, or a file would be a directory too."""
    tree = {one.path: one for one in entries}
    if replace_below is not None:
        _drop_below(tree, replace_below)
    for path in remove:
        if tree.pop(path, None) is None and not _drop_below(tree, path):
            raise InvalidInput(f"there is no file or directory {path[:200]!a} to remove", code="files.not_there")
    for one in put:
        require_safe(one.path)
        tree[one.path] = one
    _check_names(tree)
    return [tree[path] for path in sorted(tree)]


def cut(entries: Sequence[FileEntry]) -> Iterator[Sequence[FileEntry]]:
    """The entries in chunks."""
    start = 0
    for at, one in enumerate(entries, start=1):
        if zlib.crc32(one.path.encode()) % CHUNK_FILES == 0 or at - start == CHUNK_FILES_MAX:
            yield entries[start:at]
            start = at
    if start < len(entries):
        yield entries[start:]


def _drop_below(tree: dict[str, FileEntry], directory: str) -> int:
    prefix = f"{directory.rstrip('/')}/" if directory.strip("/") else ""
    gone = [path for path in tree if path.startswith(prefix)]
    for path in gone:
        del tree[path]
    return len(gone)


def _check_names(tree: Mapping[str, FileEntry]) -> None:
    folded: dict[str, str] = {}
    for path in tree:
        other = folded.setdefault(collision_key(path), path)
        if other != path:
            raise Conflict(
                f"{path!a} and {other!a} are one name on some file systems",
                code="files.names_collide",
                hint="rename one of them",
            )
    for path in _directories(tree) & tree.keys():
        raise Conflict(f"{path!a} would be a file and a directory", code="files.names_collide", hint="rename one")


def _directories(paths: Iterable[str]) -> set[str]:
    """The directories that files lie in, and those that these lie in."""
    found = {path.rpartition("/")[0] for path in paths}
    for directory in list(found):
        while (directory := directory.rpartition("/")[0]) and directory not in found:
            found.add(directory)
    return found


def _put(blobs: BlobStore, content: bytes, there: Collection[str]) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return digest if digest in there else blobs.put([content], durable=False).digest
