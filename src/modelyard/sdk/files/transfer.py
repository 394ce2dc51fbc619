"""The bytes of files to and from the server: by link where both share a disk, else many in one request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from modelyard.kernel import frames
from modelyard.kernel.errors import Conflict, InvalidInput
from modelyard.kernel.paths import blob_path
from modelyard.kernel.portions import portions
from modelyard.sdk.client import Client
from modelyard.sdk.files.hashing import Hashed, digest_of, unchanged
from modelyard.sdk.files.placing import Link, Placer
from modelyard.types.files import Adopted, Dropbox, FetchFiles, FileEntry, MissingBlobs

ASKED_AT_ONCE = 10_000
PORTION_BYTES = 128 * 1024 * 1024
SENT_FILES, SENT_BYTES = 5_000, 64 * 1024 * 1024
Tell = Callable[[int, int], None]
"""Called with how many files and bytes more have been moved."""


class Shared:
    """A disk that this program and the server share."""

    def __init__(self, box: Dropbox) -> None:
        self.box = box
        self.folder = Path(box.folder)
        self.blobs = Path(box.blobs)
        self.nonce_file = self.folder.with_name(f"{self.folder.name}.nonce")

    @property
    def proven(self) -> bool:
        """Whether what the server wrote can be read here."""
        try:
            return self.nonce_file.read_text("ascii") == self.box.nonce
        except OSError:
            return False


@contextmanager
def shared_disk(client: Client, path: str) -> Iterator[Shared | None]:
    """The disk that is shared with the server, for as long as the block lasts; None where there is none."""
    box: Any = client.post(f"{path}/files/dropbox")
    found = None if box is None else Shared(msgspec.convert(box, Dropbox))
    if found is None or not found.proven:
        yield None
        return
    try:
        yield found
    finally:
        shutil.rmtree(found.folder, ignore_errors=True)
        found.nonce_file.unlink(missing_ok=True)


class Sender:
    """Brings the server the bytes that it lacks, a portion at a time, while the caller finds out what else there is.
    Use as a context manager: leaving it waits for the last portion.

    Raises, from `add` or at the end, Conflict for a file that changed since it was hashed.
    """

    def __init__(self, client: Client, path: str, link: Link, tell: Tell) -> None:
        self._client = client
        self._path = path
        self._link = link
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="send")
        self._portion: list[Hashed] = []
        self._portion_bytes = 0
        self._sent: list[Future[None]] = []

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._hand_over()
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self._raise_failures()

    def add(self, files: Iterable[Hashed]) -> None:
        """Take further files."""
        for one in files:
            self._portion.append(one)
            self._portion_bytes += one.found.size_bytes
            if len(self._portion) == ASKED_AT_ONCE or self._portion_bytes >= PORTION_BYTES:
                self._raise_failures()
                self._hand_over()

    def _hand_over(self) -> None:
        if self._portion:
            self._sent.append(
                self._thread.submit(_send, self._client, self._path, self._portion, self._link, self._tell)
            )
            self._portion, self._portion_bytes = [], 0

    def _raise_failures(self) -> None:
        for done in self._sent:
            if done.done():
                done.result()


def _send(client: Client, path: str, files: Sequence[Hashed], link: Link, tell: Tell) -> None:
    lacking = _missing(client, path, files)
    if not lacking:
        return
    with shared_disk(client, path) as shared:
        if shared is not None:
            _drop(client, path, shared, lacking, link, tell)
            return
    for group in _groups(lacking):
        client.send_bytes("POST", f"{path}/files/blobs", _framed(group), media_type=frames.MEDIA_TYPE, type=Adopted)
        tell(len(group), sum(one.found.size_bytes for one in group))


def fetch(
    client: Client, path: str, version: int, entries: Sequence[FileEntry], target: Path, link: Link, tell: Tell
) -> None:
    """Put files of a version below `target`, which holds none of them. Raises InvalidInput for bytes that have another
    digest."""
    for folder in sorted({one.path.rpartition("/")[0] for one in entries}):
        (target / folder).mkdir(parents=True, exist_ok=True)
    with shared_disk(client, path) as shared:
        if shared is not None:
            placer, root = Placer(link), os.fspath(target)
            for one in entries:
                blob = os.fspath(blob_path(shared.blobs, one.digest))
                placer.place(blob, f"{root}/{one.path}", executable=one.executable)
                tell(1, one.size_bytes)
            return
    if link in ("hardlink", "reflink"):
        raise InvalidInput(
            "the server's disk is not this machine's, so nothing can be linked",
            code="files.not_shared",
            hint="use --link auto or copy",
        )
    for some in portions(entries, ASKED_AT_ONCE):
        _download(client, path, version, some, target, tell)


def _missing(client: Client, path: str, files: Sequence[Hashed]) -> list[Hashed]:
    by_digest = {one.digest: one for one in files}
    answer = client.post(f"{path}/files/missing", MissingBlobs(list(by_digest)), MissingBlobs)
    return [by_digest[digest] for digest in answer.digests]


def _drop(client: Client, path: str, shared: Shared, files: Sequence[Hashed], link: Link, tell: Tell) -> None:
    placer, folder = Placer(link), os.fspath(shared.folder)
    for one in files:
        found = one.found
        placer.place(found.file, f"{folder}/{one.digest}", executable=found.executable, mode=found.mode)
        # A link stands for the file as it is now, which must be what was hashed.
        if not unchanged(one.found):
            os.unlink(f"{folder}/{one.digest}")
            raise _changed(one)
        tell(1, one.found.size_bytes)
    client.patient.post(f"{path}/files/dropbox/{shared.box.id}/adopt", None, Adopted)


def _framed(group: Iterable[Hashed]) -> Iterator[bytes]:
    for one in group:
        yield frames.head(one.digest, one.found.size_bytes)
        left = one.found.size_bytes
        with open(one.found.file, "rb") as source:
            while piece := source.read(min(left, frames.PIECE_BYTES)):
                left -= len(piece)
                yield piece
        if left or not unchanged(one.found):
            raise _changed(one)


def _groups(files: Sequence[Hashed]) -> Iterator[list[Hashed]]:
    group: list[Hashed] = []
    size_bytes = 0
    for one in files:
        group.append(one)
        size_bytes += one.found.size_bytes
        if len(group) == SENT_FILES or size_bytes >= SENT_BYTES:
            yield group
            group, size_bytes = [], 0
    if group:
        yield group


def _download(client: Client, path: str, version: int, entries: Sequence[FileEntry], target: Path, tell: Tell) -> None:
    wanted: dict[str, list[FileEntry]] = {}
    for one in entries:
        wanted.setdefault(one.digest, []).append(one)
    copier = Placer("copy")
    asked = FetchFiles(version, [found[0].path for found in wanted.values()])
    with client.stream_post(f"{path}/files/fetch", asked) as chunks:
        for digest, size_bytes, content in frames.frames(frames.Pieces(chunks)):
            first, *more = wanted[digest]
            with (target / first.path).open("xb") as sink:
                for piece in content:
                    sink.write(piece)
            if digest_of(os.fspath(target / first.path)) != digest:
                raise InvalidInput(f"the bytes of {first.path!a} arrived damaged", code="files.damaged", hint="repeat")
            _set_mode(target / first.path, first)
            for other in more:
                copier.place(
                    os.fspath(target / first.path), os.fspath(target / other.path), executable=other.executable
                )
            tell(1 + len(more), size_bytes * (1 + len(more)))


def _set_mode(file: Path, entry: FileEntry) -> None:
    if entry.executable:
        os.chmod(file, 0o755)


def _changed(one: Hashed) -> Conflict:
    return Conflict(
        f"{one.found.file} changed while it was being added",
        code="files.changed",
        hint="add it again when nothing writes to it",
    )
