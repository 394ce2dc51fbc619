"""Putting the bytes of files at other paths at the least cost: sharing blocks, sharing the inode, or copying."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from typing import Literal

Link = Literal["auto", "reflink", "hardlink", "copy"]
Placed = Literal["reflink", "hardlink", "copy"]
# linux/fs.h: share the blocks of another file, on btrfs, XFS and their like.
_FICLONE = 0x40049409
_WRITABLE = 0o222
_PIECE_BYTES = 1024 * 1024


class Placer:
    """Places files one way. `auto` takes the first that works of reflink, hard link and copy.

    A hard link shares its inode with the platform's own copy, so its write permission is taken away; a mode that the
    source does not have needs a copy.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        # Whether a disk can share blocks is learnt from the first file; asking for each would cost more than the link.
        self._reflinks = link in ("auto", "reflink")

    def place(self, source: str, target: str, *, executable: bool = False, mode: int | None = None) -> Placed:
        """Make `target`, which must not exist, hold the bytes of `source`. Returns how it was done. `mode`: that of the
        source, where it is known.

        Raises OSError where the asked way does not work here.
        """
        if self._reflinks:
            if _reflink(source, target):
                _set_mode(target, executable)
                return "reflink"
            if self._link == "reflink":
                raise OSError(f"the disk of {target} cannot share blocks: choose another way to link")
            self._reflinks = False
        if self._link in ("auto", "hardlink") and self._hardlink(source, target, executable, mode):
            return "hardlink"
        with open(source, "rb") as content, open(target, "xb") as made:
            shutil.copyfileobj(content, made, _PIECE_BYTES)
        _set_mode(target, executable)
        return "copy"

    def _hardlink(self, source: str, target: str, executable: bool, known: int | None) -> bool:
        mode = stat.S_IMODE(os.stat(source).st_mode if known is None else known)
        if bool(mode & 0o100) != executable:
            return False
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:
            # Another disk, or more links than it allows.
            if self._link == "hardlink":
                raise
            return False
        if mode & _WRITABLE:
            os.chmod(target, mode & ~_WRITABLE)
        return True


def _reflink(source: str, target: str) -> bool:
    try:
        with open(source, "rb") as content, open(target, "xb") as made:
            fcntl.ioctl(made.fileno(), _FICLONE, content.fileno())
    except FileExistsError:
        raise
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(target)
        return False
    return True


def _set_mode(file: str, executable: bool) -> None:
    os.chmod(file, 0o755 if executable else 0o644)
