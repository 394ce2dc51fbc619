"""What a run needs for being understood and repeated: the program, its code and changes, its packages, its machine."""

from __future__ import annotations

import getpass
import hashlib
import platform
import random
import subprocess
import sys
from importlib import metadata
from typing import Any

from modelyard.sdk.system_metrics import hardware

_GIT_TIMEOUT_S = 5.0
DIFF_BYTES_MAX = 10 * 1024 * 1024
DIFF_PATH = "code/uncommitted.diff"
PACKAGES_PATH = "environment/requirements.txt"
SEED_MAX = 2**32 - 1


def source_tags() -> dict[str, str]:
    """What made a run: the program, its commit and whether the tree had changes, Python, host, user and hardware."""
    tags = {
        "mlflow.source.name": sys.argv[0] or "python",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": user(),
        "modelyard.python": platform.python_version(),
        "modelyard.host": platform.node(),
        **hardware(),
    }
    commit = _git("rev-parse", "HEAD").decode().strip()
    if commit:
        tags["mlflow.source.git.commit"] = commit
        tags["mlflow.source.git.branch"] = _git("rev-parse", "--abbrev-ref", "HEAD").decode().strip()
        tags["modelyard.git.changed"] = "yes" if _git("status", "--porcelain", "--untracked-files=no") else "no"
    return {key: value for key, value in tags.items() if value}


def uncommitted_diff() -> bytes:
    """The changes of the working tree on top of its commit, as `git diff HEAD` prints them; cut at 10 MiB."""
    diff = _git("diff", "--no-color", "--no-ext-diff", "HEAD")
    if len(diff) > DIFF_BYTES_MAX:
        return diff[:DIFF_BYTES_MAX] + b"\n[cut: the changes are larger than 10 MiB]\n"
    return diff


def packages() -> str:
    """The installed distributions, `name==version` a line, by name."""
    found = {one.name.lower(): f"{one.name}=={one.version}" for one in metadata.distributions() if one.name}
    return "".join(f"{found[name]}\n" for name in sorted(found))


def environment_hash(listed: str) -> str:
    """What names an environment: the digest of its Python, platform and packages, 32 hex digits."""
    whole = f"{platform.python_version()}\n{sys.platform} {platform.machine()}\n{listed}"
    return hashlib.sha256(whole.encode()).hexdigest()[:32]


def seed_everything(seed: int) -> list[str]:
    """Seed `random`, and numpy and torch where the program has loaded them. Returns what was seeded."""
    random.seed(seed)
    seeded = ["random"]
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed)
        seeded.append("numpy")
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        seeded.append("torch")
    return seeded


def user() -> str:
    """Who runs the program; empty where the machine does not say."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
