"""Installs packages into an environment: `tools/install.py PYTHON ARGUMENTS…`, with the arguments of `pip install`.

By uv, which does in seconds what takes pip minutes, with the indexes and constraints that pip is set up to use; by pip
where uv cannot be had or does not manage.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

UV = "uv>=0.9"
TAKEN_OVER = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
}
SECTIONS = ("global", "install", ":env:")
"""Where pip keeps settings that concern us; of two that say something the later counts."""


def main() -> int:
    target, arguments = sys.argv[1], sys.argv[2:]
    uv = find_uv()
    if uv is not None:
        command = [str(uv), "pip", "install", "--quiet", "--python", target, *arguments]
        if subprocess.run(command, check=False, env={**of_pip(pip_settings()), **os.environ}).returncode == 0:
            return 0
        sys.stderr.write("uv did not manage; pip is asked …\n")
    return pip("--python", target, "install", "--quiet", *arguments).returncode


def pip(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """pip of the environment that runs this, which may work on another one."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, check=False, text=True, capture_output=quiet)


def find_uv() -> Path | None:
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pip("install", "--quiet", UV, quiet=True)
    return uv if uv.exists() else None


def pip_settings() -> str:
    return pip("config", "list", quiet=True).stdout


def of_pip(listed: str) -> dict[str, str]:
    """What `pip config list` says, as uv's environment."""
    found: dict[str, Mapping[str, str]] = {section: {} for section in SECTIONS}
    for line in listed.splitlines():
        said = re.fullmatch(r"(\S+)\.([a-z-]+)=(.*)", line)
        if said and said[1] in found and said[2] in TAKEN_OVER:
            found[said[1]] = {**found[said[1]], TAKEN_OVER[said[2]]: " ".join(str(ast.literal_eval(said[3])).split())}
    # As pip does it: of all indexes the best version, not the first index that has any.
    given = {"UV_INDEX_STRATEGY": "unsafe-best-match"}
    for section in SECTIONS:
        given.update(found[section])
    return given


if __name__ == "__main__":
    sys.exit(main())
