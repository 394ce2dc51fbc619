"""File datasets: trees of files by content, and what is sent to make and to read them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from modelyard.types.data import DatasetVersion

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Size = Annotated[int, Meta(ge=0)]


class FileEntry(Struct, frozen=True, array_like=True, order=True):
    """One file of a tree, written `[path, digest, size_bytes, executable]`; the digest is the SHA-256 of its bytes."""

    path: str
    digest: Digest
    size_bytes: Size
    executable: bool = False


class FolderEntry(Struct, frozen=True, kw_only=True):
    """What lies right in a directory of a tree: a file, or a directory, which has neither size nor digest."""

    path: str
    is_dir: bool = False
    size_bytes: int | None = None
    digest: str | None = None


class CommitFiles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new version: that of the branch, less `remove` (files, or directories with all below), with `put` in place.

    `replace_below`: a directory (`""` is the whole tree) of which nothing stays that is not in `put`. `expect`: the
    version that the branch must name now; null takes any.
    """

    put: list[FileEntry] = []
    remove: list[str] = []
    replace_below: str | None = None
    branch: str = "main"
    message: str = ""
    expect: int | None = None


class FilesResult(Struct, frozen=True, kw_only=True):
    """How a commit ended: the version that holds now, and how many files it added, changed and removed.

    `changed` False: the tree was like that already, and no version was made.
    """

    version: DatasetVersion
    changed: bool
    added: int
    replaced: int
    removed: int


class FilesDiff(Struct, frozen=True, kw_only=True):
    """What differs between two trees; `renamed` are pairs of old and new path with the same content.

    The lists hold at most 1,000 paths each; the counts are whole.
    """

    dataset: str
    before: int
    after: int
    added: int
    removed: int
    changed: int
    added_bytes: int
    removed_bytes: int
    added_paths: list[str] = []
    removed_paths: list[str] = []
    changed_paths: list[str] = []
    renamed: list[tuple[str, str]] = []


class FolderStatus(Struct, frozen=True, kw_only=True):
    """How a folder differs from a version: what `add` would add, change and remove. Lists and counts as in a diff."""

    dataset: str
    version: int
    files: int
    added: int
    removed: int
    changed: int
    added_paths: list[str] = []
    removed_paths: list[str] = []
    changed_paths: list[str] = []

    @property
    def is_clean(self) -> bool:
        """Whether the folder holds the version and nothing else."""
        return not (self.added or self.removed or self.changed)


class MissingBlobs(Struct, frozen=True):
    """Of which of these the server has no bytes."""

    digests: Annotated[list[Digest], Meta(max_length=10_000)]


class FetchFiles(Struct, frozen=True):
    """Files of a version by path, of which the bytes are wanted."""

    version: int
    paths: Annotated[list[str], Meta(max_length=10_000)]


class Dropbox(Struct, frozen=True, kw_only=True):
    """A folder that the server shares with whoever can reach its disk.

    Whoever finds `nonce` in the file beside `folder` that is named like it with `.nonce` shares the disk, and may move
    or link files into `folder` under the names of their digests, for `adopt`; and link the blobs below `blobs`.
    """

    id: str
    folder: str
    nonce: str
    blobs: str


class Adopted(Struct, frozen=True):
    """How many files of a dropbox became blobs."""

    files: int


class Problem(Struct, frozen=True):
    """A file of a version whose bytes are not what they were: `missing` or `damaged`."""

    path: str
    digest: str
    what: str


class Verified(Struct, frozen=True, kw_only=True):
    """What looking at every byte of a version found."""

    files: int
    size_bytes: int
    problems: list[Problem] = []
