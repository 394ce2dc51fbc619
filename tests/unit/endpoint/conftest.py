"""A prediction process per test, ended with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.endpoint.living import Living


@pytest.fixture
def living(tmp_path: Path) -> Iterator[Living]:
    """A directory for a prediction process, not started yet."""
    directory = tmp_path / "endpoint"
    directory.mkdir()
    made = Living(directory)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
