"""Collections through HTTP and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    return tmp_path


def _call(*words: str) -> str:
    done = CliRunner().invoke(app, ["gc", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_says_what_it_found_and_remembers_it(home: Path) -> None:
    from modelyard.engines.blobs.local import LocalBlobs

    assert "no collection yet" in _call("--history")
    LocalBlobs(home / "blobs").put([b"loose"])
    seen = json.loads(_call("--dry-run", "--json"))
    assert (seen["dry_run"], seen["blobs"], seen["young"], seen["grace_s"]) == (True, 1, 1, 86_400)
    for expected in ({"freed": 0, "waiting": 1}, {"freed": 1, "waiting": 0}):
        found = json.loads(_call("--grace", "0", "--json"))
        assert {name: found[name] for name in expected} == expected
    assert len(json.loads(_call("--history", "--json"))["items"]) == 2
    assert "looked at" in _call("--grace", "36h")
