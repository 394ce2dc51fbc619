"""Interpreters with foreign programs (`make foreign`), for tests that run those programs against us."""

from __future__ import annotations

from pathlib import Path

import pytest

ENVIRONMENTS = Path(__file__).parents[1] / ".venvs"


def foreign_python(name: str) -> Path:
    """The interpreter of `tests/foreign/<name>.txt`; skips the test where that environment is not set up."""
    python = ENVIRONMENTS / name / "bin" / "python"
    if not (ENVIRONMENTS / name / ".made").exists():
        pytest.skip(f"the foreign programs '{name}' are not set up: run `make foreign`")
    return python
