"""The home directory as a meeting place: who serves it, at which URL, and the token that its owner may use."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec

from modelyard.kernel.errors import Conflict, Unavailable

LOCK = "server.lock"
SERVING = "server.json"
TOKEN = "token"


class Serving(msgspec.Struct, frozen=True):
    """A server that has this home open."""

    url: str
    pid: int


class HomeLock:
    """The right to serve a home directory. At most one process has it; the system frees it when that one dies."""

    def __init__(self, home: Path) -> None:
        self._home = home
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._handle = os.open(home / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise Unavailable(
                f"the home directory {home} cannot be used: {error.strerror}",
                code="home.unusable",
                hint="choose another with `--home` or MODELYARD_HOME, or correct its owner and mode",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            serving = find_serving(home)
            where = f" at {serving.url} (process {serving.pid})" if serving else ""
            raise Conflict(
                f"another server has {home} open{where}",
                code="home.taken",
                hint="use that one, stop it, or choose another home with `--home`",
            ) from error

    def announce(self, url: str) -> None:
        """Tell other processes of this home where the server is."""
        write_private(self._home / SERVING, msgspec.json.encode(Serving(url, os.getpid())))

    def release(self) -> None:
        """Stop serving."""
        (self._home / SERVING).unlink(missing_ok=True)
        os.close(self._handle)


def find_serving(home: Path) -> Serving | None:
    """The server that has this home open now; None where there is none, or it has not announced itself yet."""
    try:
        with open(home / LOCK, "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except BlockingIOError:
        try:
            return msgspec.json.decode((home / SERVING).read_bytes(), type=Serving)
        except (OSError, msgspec.DecodeError):
            return None
    except OSError:
        return None


def read_token(home: Path) -> str:
    """The token of the home's owner, or an empty text."""
    try:
        return (home / TOKEN).read_text("ascii").strip()
    except OSError:
        return ""


def write_private(file: Path, content: bytes) -> None:
    """Write a file whole, readable by its owner only."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
