"""A folder of files under their own names, for programs that read a disk and ask no server: copies, never the blobs
themselves, so that whoever writes into the folder spoils nothing but it. File systems that can (XFS, Btrfs) share the
bytes until somebody writes to one of the two.

The folder is marked as one of a certain catalog, since whatever is in it and not in that catalog gets removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.kernel.ids import new_id
from modelyard.kernel.paths import make_private, parent_inside, safe_join, safe_relative

_MARK = ".modelyard-folder"
_INCOMING = ".modelyard-incoming"
_DIRECTORY_MODE = 0o755
_FILE_MODE = 0o444
_COPIED_AT_ONCE = 1 << 30


class NamedFolder:
    """Files by name below one directory, of one owner. No link in it is ever followed."""

    def __init__(self, root: Path, owner: str) -> None:
        self._root = root
        self._mark = f"Made and kept by Modelyard: what is not in its catalog gets removed from here.\nof {owner}\n"

    @property
    def root(self) -> Path:
        return self._root

    def claim(self) -> None:
        """Make the folder and mark it. Raises InvalidInput for one that holds other things, or is another owner's."""
        mark = self._root / _MARK
        try:
            make_private(self._root)
            if not mark.exists() and not any(self._root.iterdir()):
                mark.write_text(self._mark)
            found = mark.read_text() if mark.exists() else ""
            if found == self._mark:
                make_private(self._root / _INCOMING)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"the folder of artifacts {self._root} cannot be used: {error}",
                code="artifact_folder.unusable",
                hint="name a folder that this server may write to, or leave the setting 'artifact_folder' empty",
            ) from error
        if found != self._mark:
            whose = found.rpartition("\nof ")[2].strip() if found else "it holds files that are none of ours"
            raise InvalidInput(
                f"the folder of artifacts {self._root} is not this catalog's: {whose[:200]}",
                code="artifact_folder.foreign",
                hint="name an empty folder: what is not an artifact would be removed from it",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Between processes too: one at a time gives names and takes them away."""
        handle = os.open(self._root / _MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def holds(self, name: str, size_bytes: int, written_ns: int) -> bool:
        """Whether the file of this name is there as it was put: of this length, and not written to since."""
        try:
            with parent_inside(self._root, name) as (parent, last):
                found = os.stat(last, dir_fd=parent, follow_symlinks=False)
        except (NotFound, FileNotFoundError, InvalidInput):
            return False
        return stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (size_bytes, written_ns)

    @contextmanager
    def staged(self, content: BinaryIO, written_ns: int) -> Iterator[Path]:
        """A copy of the content aside, to be given its name by `take`; gone afterwards if it was not."""
        aside = self._root / _INCOMING / new_id()
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
                _copy(content, sink)
                sink.flush()
                os.fchmod(sink.fileno(), _FILE_MODE)
                os.utime(sink.fileno(), ns=(written_ns, written_ns))
                os.fsync(sink.fileno())
            yield aside
        finally:
            with suppress(FileNotFoundError):
                aside.unlink()

    def take(self, aside: Path, name: str) -> None:
        """Give a staged file its name, in place of one that has it. Raises InvalidInput, NotFound, OSError."""
        with parent_inside(self._root, name, create=True, mode=_DIRECTORY_MODE) as (parent, last):
            os.rename(aside, last, dst_dir_fd=parent)

    def remove(self, name: str) -> None:
        """Remove the file or link of this name, if it is there, and the directories that are empty then."""
        with suppress(NotFound, FileNotFoundError), parent_inside(self._root, name) as (parent, last):
            os.unlink(last, dir_fd=parent)
        way = safe_relative(name).parts[:-1]
        for depth in range(len(way), 0, -1):
            try:
                with parent_inside(self._root, "/".join(way[:depth])) as (parent, last):
                    os.rmdir(last, dir_fd=parent)
            except (OSError, NotFound):
                return

    def names(self, below: str = "") -> Iterator[str]:
        """The names of all files and links, or of that one or those below that directory. Raises InvalidInput."""
        start = safe_join(self._root, below) if below else self._root
        if start.is_file():
            yield below
            return
        for directory, subdirectories, files in os.walk(start):
            if Path(directory) == self._root:
                subdirectories[:] = [one for one in subdirectories if one != _INCOMING]
            links = [one for one in subdirectories if os.path.islink(os.path.join(directory, one))]
            for name in [*files, *links]:
                relative = os.path.relpath(os.path.join(directory, name), self._root)
                if relative != _MARK:
                    yield relative

    def clear(self, older_than: datetime) -> None:
        """Remove what was staged before the instant, by a process that came to its end."""
        for entry in (self._root / _INCOMING).iterdir():
            with suppress(FileNotFoundError):
                # Not by when it was written, which it has from the file that it is to be.
                if entry.lstat().st_ctime < older_than.timestamp():
                    entry.unlink()


def is_ours(name: str) -> bool:
    """Whether a name is one that the folder needs for itself, so that no file can have it."""
    return name.partition("/")[0] in (_MARK, _INCOMING)


def _copy(content: BinaryIO, sink: BinaryIO) -> None:
    try:
        # The file system may share the bytes instead of copying them.
        while os.copy_file_range(content.fileno(), sink.fileno(), _COPIED_AT_ONCE):
            pass
    except (OSError, AttributeError):
        # Not both are files of a system that can; a part may be copied already.
        content.seek(0)
        sink.seek(0)
        sink.truncate()
        shutil.copyfileobj(content, sink, 1 << 20)
