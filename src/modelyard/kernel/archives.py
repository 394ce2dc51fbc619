"""Unpacking archives safely: part of `paths`, in a file of its own since few need it and its imports cost time.

Everything is built in a new directory beside the target, which takes its place only when all of it was good.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from modelyard.kernel.errors import Conflict, InvalidInput, NotFound, TooLarge
from modelyard.kernel.paths import collision_key, make_private, open_inside, safe_relative


@dataclass(frozen=True, slots=True)
class ExtractionLimits:
    """How much an archive may become. `ratio_max`: unpacked bytes per packed byte."""

    members_max: int = 20_000
    bytes_max: int = 4 * 1024**3
    ratio_max: int = 200
    archive_bytes_max: int = 4 * 1024**3


_CHUNK_BYTES = 64 * 1024
_RATIO_FREE_BYTES = 1024 * 1024
_TAR_HEADER_BYTES_MAX = 64 * 1024
_ZIP_ENTRY_BYTES_MAX = 4 * 1024
_TAR_EXTENSIONS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


def extract_tar(archive: Path, into: Path, limits: ExtractionLimits | None = None) -> list[PurePosixPath]:
    """Unpack a tar file (plain, gzip, bzip2 or xz) into `into`, which must not exist or be empty.

    Only plain files and directories are taken. Raises InvalidInput (`archive.unsafe`, `archive.invalid`) or TooLarge
    (`archive.too_large`); then nothing was written. Returns the files, in the archive's order.
    """
    bounds = limits or ExtractionLimits()
    with _target(into) as target, archive.open("rb") as packed:
        meter = _Meter(bounds, _packed_bytes(archive, bounds))
        counted = _Counted(_unpacked(packed), meter)
        try:
            with tarfile.open(fileobj=counted, mode="r|", tarinfo=_BoundedTarInfo, format=tarfile.PAX_FORMAT) as tar:
                files = _extract_members(target, meter, _tar_members(tar))
            # To its end: the packing's own checksum comes last.
            while counted.read():
                continue
            return files
        except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError, RecursionError) as error:
            raise _archive_error(error) from error


def extract_zip(archive: Path, into: Path, limits: ExtractionLimits | None = None) -> list[PurePosixPath]:
    """Unpack a zip file into `into`, which must not exist or be empty. Raises and returns as `extract_tar` does."""
    bounds = limits or ExtractionLimits()
    with _target(into) as target:
        meter = _Meter(bounds, _packed_bytes(archive, bounds))
        try:
            _check_zip_directory(archive, bounds)
            with zipfile.ZipFile(archive) as packed:
                return _extract_members(target, meter, _zip_members(packed, meter))
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError) as error:
            raise _archive_error(error) from error
        except (RuntimeError, struct.error, UnicodeDecodeError) as error:
            # Zip's own words for a password, and for fields that contradict each other.
            raise _archive_error(error) from error


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    is_directory: bool
    open: Callable[[], IO[bytes]]


class _Meter:
    """Counts what an archive becomes, and stops it at the limit; headers are not believed."""

    def __init__(self, limits: ExtractionLimits, packed_bytes: int) -> None:
        self._limits = limits
        self._allowed = min(limits.bytes_max, max(_RATIO_FREE_BYTES, packed_bytes * limits.ratio_max))
        self._bytes = 0
        self._members = 0

    def member(self) -> None:
        self._members += 1
        if self._members > self._limits.members_max:
            raise _too_large(f"it has more than {self._limits.members_max} members")

    def add(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._allowed:
            raise _too_large(f"it unpacks to more than {self._allowed} bytes")


class _Counted(io.RawIOBase):
    """An unpacked stream whose bytes are metered, tar's own headers and padding included."""

    def __init__(self, source: IO[bytes], meter: _Meter) -> None:
        self._source = source
        self._meter = meter

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(_CHUNK_BYTES if size < 0 else min(size, _CHUNK_BYTES))
        self._meter.add(len(piece))
        return piece


class _BoundedTarInfo(tarfile.TarInfo):
    """A tar header whose extensions, which tarfile reads into memory, have a bound."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _TAR_EXTENSIONS and self.size > _TAR_HEADER_BYTES_MAX:
            raise _too_large(f"a header of it has {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found


@contextmanager
def _target(into: Path) -> Iterator[Path]:
    """A new directory beside `into` that takes its place if all goes well, and else is gone."""
    if into.is_symlink() or (into.exists() and (not into.is_dir() or any(into.iterdir()))):
        raise Conflict(
            f"'{into.name}' exists already", code="archive.target_exists", hint="extract into a new directory"
        )
    make_private(into.parent)
    building = Path(tempfile.mkdtemp(prefix=".extracting-", dir=into.parent))
    try:
        yield building
        building.rename(into)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _extract_members(target: Path, meter: _Meter, members: Iterator[_Member]) -> list[PurePosixPath]:
    files: list[PurePosixPath] = []
    directories: set[str] = set()
    names: dict[str, str] = {}
    for member in members:
        meter.member()
        text = member.name.removeprefix("./")
        if member.is_directory:
            text = text.removesuffix("/")
        if member.is_directory and text in ("", "."):
            continue
        path = safe_relative(text)
        for part in (path, *path.parents[:-1]):
            other = names.setdefault(collision_key(part), str(part))
            if other != str(part):
                raise _unsafe(f"'{other}' and '{part}' are one name on some file systems")
        if member.is_directory or str(path) in directories:
            if not member.is_directory:
                raise _unsafe(f"'{path}' is both a file and a directory")
            directories.add(str(path))
            make_private(target.joinpath(*path.parts))
            continue
        directories.update(str(parent) for parent in path.parents[:-1])
        _write_member(target, str(path), member)
        files.append(path)
    return files


def _write_member(target: Path, name: str, member: _Member) -> None:
    try:
        sink = open_inside(target, name, "xb")
    except FileExistsError:
        raise _unsafe(f"'{name}' is in it twice") from None
    except NotFound:
        raise _unsafe(f"'{name}' lies below a file") from None
    with sink, member.open() as source:
        shutil.copyfileobj(source, sink, _CHUNK_BYTES)


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        if info.issparse() or not (info.isreg() or info.isdir()):
            raise _unsafe(f"{info.name[:80]!a} is neither a plain file nor a directory")
        yield _Member(info.name, info.isdir(), partial(_open_tar_member, tar, info))


def _open_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    opened = tar.extractfile(info)
    if opened is None:
        raise _unsafe(f"{info.name[:80]!a} holds no bytes")
    return opened


def _zip_members(packed: zipfile.ZipFile, meter: _Meter) -> Iterator[_Member]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(f"{info.filename[:80]!a} is neither a plain file nor a directory")
        yield _Member(info.filename, info.is_dir(), partial(_open_zip_member, packed, info, meter))


def _open_zip_member(packed: zipfile.ZipFile, info: zipfile.ZipInfo, meter: _Meter) -> IO[bytes]:
    return io.BufferedReader(_CountedMember(packed.open(info), meter), _CHUNK_BYTES)


class _CountedMember(io.RawIOBase):
    def __init__(self, source: IO[bytes], meter: _Meter) -> None:
        self._source = source
        self._meter = meter

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        piece = self._source.read(len(target))
        self._meter.add(len(piece))
        target[: len(piece)] = piece
        return len(piece)


def _packed_bytes(archive: Path, limits: ExtractionLimits) -> int:
    size_bytes = archive.stat().st_size
    if size_bytes > limits.archive_bytes_max:
        raise _too_large(f"it has {size_bytes} bytes itself")
    return size_bytes


def _unpacked(packed: BinaryIO) -> IO[bytes]:
    magic = packed.read(6)
    packed.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=packed))
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(packed)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(packed)
    return packed


def _check_zip_directory(archive: Path, limits: ExtractionLimits) -> None:
    """Refuse a central directory larger than the members allowed need, before zipfile reads it into memory."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - 65_557))
        tail = file.read()
        place = tail.rfind(b"PK\x05\x06")
        if place < 0 or len(tail) - place < 22:
            raise zipfile.BadZipFile("it has no directory")
        count, size_bytes = struct.unpack("<HI", tail[place + 10 : place + 16])
        locator = tail.rfind(b"PK\x06\x07", 0, place)
        if locator >= 0 and len(tail) - locator >= 20:
            file.seek(struct.unpack("<Q", tail[locator + 8 : locator + 16])[0])
            record = file.read(56)
            if len(record) == 56:
                count, size_bytes = struct.unpack("<QQ", record[32:48])
    if count > limits.members_max or size_bytes > limits.members_max * _ZIP_ENTRY_BYTES_MAX:
        raise _too_large(f"it has more than {limits.members_max} members")


def _unsafe(why: str) -> InvalidInput:
    return InvalidInput(
        f"the archive is refused: {why}",
        code="archive.unsafe",
        hint="pack plain files and directories under relative names",
    )


def _too_large(why: str) -> TooLarge:
    return TooLarge(f"the archive is refused: {why}", code="archive.too_large", hint="pack less into one archive")


def _archive_error(error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return InvalidInput(
        f"the archive cannot be read: {error}", code="archive.invalid", hint="it may be truncated; pack it again"
    )
