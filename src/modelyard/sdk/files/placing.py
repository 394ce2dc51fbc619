"""Putting the bytes of one file at another path at the least cost: sharing blocks, sharing the inode, or copying."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Literal

Link = Literal["auto", "reflink", "hardlink", "copy"]
Placed = Literal["reflink", "hardlink", "copy"]
# linux/fs.h: share the blocks of another file, on btrfs, XFS and their like.
_FICLONE = 0x40049409
_WRITABLE = 0o222
_PIECE_BYTES = 1024 * 1024


def place(source: Path, target: Path, link: Link, *, executable: bool = False) -> Placed:
    """Make `target`, which must not exist, hold the bytes of `source`. Returns how it was done.

    `auto` takes the first that works of reflink, hard link and copy. A hard link shares its inode with the platform's
    own copy, so its write permission is taken away; a mode that `source` does not have needs a copy.
    Raises OSError where the asked way does not work here.
    """
    if link in ("auto", "reflink"):
        if _reflink(source, target):
            _set_mode(target, executable)
            return "reflink"
        if link == "reflink":
            raise OSError(f"the disk of {target} cannot share blocks: choose another way to link")
    if link in ("auto", "hardlink") and _hardlink(source, target, executable, needed=link == "hardlink"):
        return "hardlink"
    with source.open("rb") as content, target.open("xb") as made:
        shutil.copyfileobj(content, made, _PIECE_BYTES)
    _set_mode(target, executable)
    return "copy"


def _hardlink(source: Path, target: Path, executable: bool, *, needed: bool) -> bool:
    mode = stat.S_IMODE(source.stat().st_mode)
    if bool(mode & 0o100) != executable:
        return False
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # Another disk, or more links than it allows.
        if needed:
            raise
        return False
    if mode & _WRITABLE:
        target.chmod(mode & ~_WRITABLE)
    return True


def _reflink(source: Path, target: Path) -> bool:
    try:
        with source.open("rb") as content, target.open("xb") as made:
            fcntl.ioctl(made.fileno(), _FICLONE, content.fileno())
    except FileExistsError:
        raise
    except OSError:
        with suppress(FileNotFoundError):
            target.unlink()
        return False
    return True


def _set_mode(file: Path, executable: bool) -> None:
    file.chmod(0o755 if executable else 0o644)
