"""What steps run in: the interpreter and every installed package, with one hash over all of it."""

from __future__ import annotations

import platform
import sys
import threading
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from modelyard.planes.pipelines.keys import digest_of
from modelyard.types.pipelines import Environment

_lock = threading.Lock()
_known: dict[tuple[tuple[str, int], ...], Environment] = {}


def current_environment() -> Environment:
    """The environment of this interpreter, which is the one that workers run in. Read again when a package changes."""
    folders = tuple((path, _changed_ns(path)) for path in sys.path)
    with _lock:
        if folders not in _known:
            _known.clear()
            _known[folders] = _read()
        return _known[folders]


def _changed_ns(path: str) -> int:
    with suppress(OSError):
        return Path(path or ".").stat().st_mtime_ns
    return 0


def _read() -> Environment:
    packages: dict[str, str] = {}
    for one in metadata.distributions():
        name = one.metadata["Name"] if one.metadata else None
        if name:
            # The first one on the path is the one that is imported.
            packages.setdefault(name.lower().replace("_", "-"), one.version)
    python = platform.python_version()
    where = f"{platform.system()} {platform.machine()}".lower()
    ordered = dict(sorted(packages.items()))
    return Environment(hash=digest_of([python, where, ordered]), python=python, platform=where, packages=ordered)
