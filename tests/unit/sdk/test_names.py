"""The public names are exactly those of `__all__`, each loads, and importing the package loads none of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import modelyard


@pytest.mark.parametrize("name", modelyard.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(modelyard, name) is not None


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        modelyard.nope  # noqa: B018


def test_dir_is_all() -> None:
    assert dir(modelyard) == sorted(modelyard.__all__)


def test_importing_loads_no_sdk() -> None:
    code = "import sys, modelyard; print([m for m in sys.modules if m.startswith('modelyard.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
