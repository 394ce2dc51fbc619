"""A project's source tree as one archive: which files belong to it, packing them, unpacking them again.

The archive is a plain tar whose bytes depend on names, modes and contents only, so that the same tree has the same
digest on every machine. Unpacking trusts nothing: regular files only, every name checked, nothing outside the target.
"""

from __future__ import annotations

import fnmatch
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from modelyard.kernel.errors import InvalidInput, TooLarge
from modelyard.kernel.limits import CODE_SNAPSHOT_BYTES_MAX, CODE_SNAPSHOT_FILES_MAX
from modelyard.kernel.paths import open_inside, safe_relative

IGNORE_FILE = ".modelyardignore"
_MARKERS = ("modelyard.toml", "pyproject.toml", "setup.py", ".git")
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages", "mlruns"})
_GIT_TIMEOUT_S = 60.0


def project_root(file: Path) -> Path:
    """The nearest folder above a source file that looks like a project; its own folder where none does."""
    folder = file.resolve().parent
    for candidate in (folder, *folder.parents):
        if any((candidate / marker).exists() for marker in _MARKERS):
            return candidate
    return folder


def import_paths(root: Path) -> list[str]:
    """The folders within the project that Python imports from here, as relative paths, in that order."""
    found: list[str] = []
    for entry in sys.path:
        path = Path(entry or os.curdir).resolve()
        if path.is_dir() and path.is_relative_to(root):
            relative = path.relative_to(root)
            if not _SKIPPED.intersection(relative.parts) and not any(part.startswith(".") for part in relative.parts):
                found.append("" if relative == Path() else relative.as_posix())
    if "" not in found:
        found.append("")
    return list(dict.fromkeys(found))


def source_files(root: Path) -> list[str]:
    """The files of the project, as relative paths: what git does not ignore, else all but hidden and built ones.

    Patterns in `.modelyardignore`, one a line, leave out more. Symbolic links are left out.
    """
    patterns = _ignored(root)
    listed = _git_files(root)
    names = listed if listed is not None else _walk(root)
    return sorted(name for name in names if _belongs(root, name, patterns))


def pack(root: Path) -> bytes:
    """The archive. Raises TooLarge, naming the largest files, when the tree is over the limits."""
    names = source_files(root)
    sizes = {name: (root / name).stat().st_size for name in names}
    if len(names) > CODE_SNAPSHOT_FILES_MAX or sum(sizes.values()) > CODE_SNAPSHOT_BYTES_MAX:
        largest = ", ".join(sorted(sizes, key=lambda name: -sizes[name])[:3])
        raise TooLarge(
            f"the source tree at {root} has {len(names):,} files and {sum(sizes.values()):,} bytes; a snapshot has at "
            f"most {CODE_SNAPSHOT_FILES_MAX:,} files and {CODE_SNAPSHOT_BYTES_MAX:,} bytes (the largest: {largest})",
            code="code.too_large",
            hint=f"keep data out of it: list it in .gitignore or {IGNORE_FILE}",
        )
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            safe_relative(name)
            content = (root / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755 if os.access(root / name, os.X_OK) else 0o644
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def unpack(archive: BinaryIO, target: Path) -> None:
    """Write the files of an archive below an empty folder.

    Raises InvalidInput for anything but plain files under safe, distinct names; TooLarge past the limits.
    """
    files = size_bytes = 0
    try:
        with tarfile.open(fileobj=archive, mode="r:") as opened:
            for member in opened:
                if not member.isreg():
                    raise InvalidInput(f"{member.name!a} is not a plain file", code="code.archive_invalid")
                files, size_bytes = files + 1, size_bytes + member.size
                if files > CODE_SNAPSHOT_FILES_MAX or size_bytes > CODE_SNAPSHOT_BYTES_MAX:
                    raise TooLarge("the archive is larger than a snapshot may be", code="code.too_large")
                _unpack_one(opened, member, target)
    except tarfile.TarError as error:
        raise InvalidInput(f"the archive cannot be read: {error}", code="code.archive_invalid") from error


def _unpack_one(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    assert content is not None
    try:
        with content, open_inside(target, member.name, "xb") as sink:
            shutil.copyfileobj(content, sink)
            if member.mode & 0o100:
                os.fchmod(sink.fileno(), 0o700)
    except FileExistsError as error:
        raise InvalidInput(f"the archive holds {member.name!a} twice", code="code.archive_invalid") from error


def commit_of(root: Path) -> tuple[str, bool]:
    """The git commit of a tree and whether it has changes on top; empty where it is not under git."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return "", False
    return commit.strip(), bool(_git(root, "status", "--porcelain", "--", "."))


def _git_files(root: Path) -> list[str] | None:
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".")
    return None if listed is None else [name for name in listed.split("\0") if name]


def _git(root: Path, *arguments: str) -> str | None:
    with suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, check=True, timeout=_GIT_TIMEOUT_S
        )
        return done.stdout.decode()
    return None


def _walk(root: Path) -> Iterable[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in _SKIPPED and not (Path(folder) / name / "pyvenv.cfg").exists()
        ]
        for name in [one for one in files if not one.startswith(".")]:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _ignored(root: Path) -> list[str]:
    with suppress(FileNotFoundError):
        lines = (root / IGNORE_FILE).read_text("utf-8").splitlines()
        return [line.strip().rstrip("/") for line in lines if line.strip() and not line.startswith("#")]
    return []


def _belongs(root: Path, name: str, patterns: list[str]) -> bool:
    parts = name.split("/")
    # `.env` files hold secrets by custom, and a snapshot is read by everybody in the project.
    if _SKIPPED.intersection(parts) or name.endswith((".pyc", ".pyo")) or parts[-1].startswith(".env"):
        return False
    above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
    if any(fnmatch.fnmatch(one, pattern) for one in (*above, parts[-1]) for pattern in patterns):
        return False
    path = root / name
    return path.is_file() and not path.is_symlink()
