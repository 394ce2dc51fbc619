"""The only place where text becomes a path: safe names, safe joins, safe opening; `archives` adds safe extraction.

Published attacks on this class of code came in rounds (climbing, then encoded climbing, then encoded twice, then by
`;` parameters, then by symbolic links in archives), so the rule here is narrow on purpose: what could be read as
anything but a plain relative name is refused, never cleaned.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, NoReturn

from modelyard.kernel.errors import InvalidInput, NotFound

PATH_BYTES_MAX = 1024
SEGMENT_BYTES_MAX = 255
DEPTH_MAX = 64

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,15}")
_DRIVE = re.compile(r"^[A-Za-z]:")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
# `mlflow.log_image` names its files so. What follows the signs are digits of a number or a UUID; whoever decodes them
# once more gets an odd name below the same directory, never a way out of it.
_IMAGE_END = re.compile(
    r"%step%-?\d{1,19}%timestamp%\d{1,19}"
    r"%[0-9a-z][0-9a-f]{7}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:%compressed)?\.[a-z]{3,5}\Z"
)
_ENCODED_FORBIDDEN = frozenset(b"./\\%;~:")
_INVISIBLE = frozenset("\u061c\u200b\u200e\u200f\u2028\u2029\ufeff") | {
    chr(code) for start, end in ((0x202A, 0x202E), (0x2060, 0x2069)) for code in range(start, end + 1)
}


def safe_relative(text: str) -> PurePosixPath:
    """The relative path that `text` names, with `/` between segments.

    `text` is what is left after the one percent-decoding that a web server does. Raises InvalidInput
    (`path.unsafe`) for anything that could leave its root, hide its true name, or be decoded once more into that.
    """
    require_safe(text)
    return PurePosixPath(text)


def require_safe(text: str) -> None:
    """Raise InvalidInput where `safe_relative` does. A tree of 200,000 files is checked name by name."""
    if len(text) <= SEGMENT_BYTES_MAX and _PLAIN.fullmatch(text):
        # Nothing below could object.
        return
    if not text:
        _refuse(text, "it is empty")
    if len(text.encode("utf-8", "surrogatepass")) > PATH_BYTES_MAX:
        _refuse(text, f"it is longer than {PATH_BYTES_MAX} bytes")
    for character in text:
        if character in _INVISIBLE or unicodedata.category(character) in ("Cc", "Cs"):
            _refuse(text, f"it holds the character U+{ord(character):04X}")
    if "\\" in text:
        _refuse(text, "it holds a backslash")
    if text.startswith("/"):
        _refuse(text, "it is absolute")
    if text.startswith("~"):
        _refuse(text, "it starts with '~'")
    if _DRIVE.match(text):
        _refuse(text, "it starts with a drive letter")
    for match in _ENCODED.finditer(_IMAGE_END.sub("", text)):
        byte = int(match[1], 16)
        if byte < 0x20 or byte >= 0x7F or byte in _ENCODED_FORBIDDEN:
            _refuse(text, f"it is still encoded: '{match[0]}'")
    segments = text.split("/")
    if len(segments) > DEPTH_MAX:
        _refuse(text, f"it is deeper than {DEPTH_MAX} segments")
    for segment in segments:
        _check_segment(text, segment)


def _check_segment(text: str, segment: str) -> None:
    if not segment:
        _refuse(text, "it has an empty segment")
    if len(segment.encode()) > SEGMENT_BYTES_MAX:
        _refuse(text, f"a segment is longer than {SEGMENT_BYTES_MAX} bytes")
    # Compatibility forms (a fullwidth dot or slash) turn into the real ones on some file systems and in some clients.
    plain = unicodedata.normalize("NFKC", segment)
    if "/" in plain or "\\" in plain:
        _refuse(text, "a character stands for a separator")
    # `;x=..` is how parameters of a path segment smuggled a climb past a check of whole segments.
    if any(piece.strip() in (".", "..") for piece in re.split("[;=]", plain)):
        _refuse(text, "it has a '.' or '..' segment")


def _refuse(text: str, why: str) -> NoReturn:
    shown = ascii(text if len(text) <= 120 else text[:117] + "...")
    raise InvalidInput(
        f"{shown} cannot be used as a path: {why}",
        code="path.unsafe",
        hint="use a relative path such as 'plots/roc.png', its parts separated by '/'",
    )


def collision_key(path: PurePosixPath | str) -> str:
    """Equal for two names that some file system takes for one: other case, or other Unicode normal form."""
    text = str(path)
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def safe_join(root: Path, text: str) -> Path:
    """`root` with `text` below it. Raises InvalidInput for an unsafe text, or where a symbolic link is on the way.

    A link can be put there after this check; whoever reads or writes bytes uses `open_inside`, which has no such gap.
    """
    joined = root
    for segment in safe_relative(text).parts:
        joined = joined / segment
        if joined.is_symlink():
            _refuse_link(text)
    return joined


def open_inside(root: Path, text: str, mode: Literal["rb", "xb"] = "rb") -> BinaryIO:
    """Open a regular file below `root`, walking by directory handles so that no link is ever followed.

    `rb` reads; `xb` creates a new file (0600) with its directories (0700). Raises InvalidInput for an unsafe text, a
    link on the way or a thing that is no regular file; NotFound; FileExistsError for `xb` on an existing file.
    """
    create = mode == "xb"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY | os.O_NONBLOCK
    with parent_inside(root, text, create=create) as (parent, name):
        file = _open_at(parent, name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, text)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidInput(f"{text!a} is not a regular file", code="path.not_a_file")
    return os.fdopen(file, "wb" if create else "rb")


@contextmanager
def parent_inside(root: Path, text: str, *, create: bool = False, mode: int = 0o700) -> Iterator[tuple[int, str]]:
    """A handle of the directory below `root` in which the file that `text` names lies, and its name there.

    No link is followed on the way. With `create`, directories that are missing are made, of that mode. Raises
    InvalidInput for an unsafe text or a link on the way, NotFound.
    """
    *way, name = safe_relative(text).parts
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for segment in way:
            child = _open_directory(handle, segment, text, mode if create else None)
            os.close(handle)
            handle = child
        yield handle, name
    finally:
        os.close(handle)


def _open_directory(parent: int, segment: str, text: str, mode: int | None) -> int:
    if mode is not None:
        # That it exists is the usual case; whether it is a directory shows in the opening.
        with suppress(FileExistsError):
            os.mkdir(segment, mode, dir_fd=parent)
    return _open_at(parent, segment, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, text)


def _open_at(parent: int, segment: str, flags: int, text: str) -> int:
    try:
        return os.open(segment, flags, 0o600, dir_fd=parent)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {text!a}", code="path.not_found") from error
    except FileExistsError:
        raise
    except OSError as error:
        # With O_NOFOLLOW a link gives ELOOP, or ENOTDIR where a directory was asked for.
        if _is_link(parent, segment):
            _refuse_link(text)
        if isinstance(error, NotADirectoryError):
            raise NotFound(f"there is no file {text!a}", code="path.not_found") from error
        raise


def _is_link(parent: int, segment: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(segment, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _refuse_link(text: str) -> NoReturn:
    raise InvalidInput(
        f"{text!a} leads through a symbolic link, which is never followed",
        code="path.link",
        hint="replace the link by the file itself",
    )


def make_private(directory: Path) -> Path:
    """Make `directory` and its missing parents, readable by their owner only. Returns it."""
    missing = []
    at = directory
    while not at.exists():
        missing.append(at)
        at = at.parent
    for path in reversed(missing):
        path.mkdir(0o700, exist_ok=True)
    return directory


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power cut: a renamed file is only durable once its directory is."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_filesystem(directory: Path) -> None:
    """Make everything that was written to the file system of `directory` survive a power cut, in one go."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(handle) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(directory))
    finally:
        os.close(handle)


def blob_path(root: Path, digest: str) -> Path:
    """Where a blob of a local store lies below its root. A program on the same disk links it from there."""
    return root / digest[:2] / digest


def remove_older(directory: Path, before: datetime) -> int:
    """Remove the files and directories right below `directory` that were last written before the instant.

    Returns how many. Links are removed and not followed; a directory that is not there holds nothing.
    """
    removed = 0
    if not directory.is_dir():
        return removed
    for entry in list(directory.iterdir()):
        with suppress(FileNotFoundError):
            if entry.lstat().st_mtime < before.timestamp():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink()
                removed += 1
    return removed
