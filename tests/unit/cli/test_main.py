"""The command line: help that costs nothing, listings for people and programs, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.cli.main import NOUNS
from running import running_server


def modelyard(home: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MODELYARD_")}
    return subprocess.run(
        [sys.executable, "-m", "modelyard", "--home", str(home), *arguments],
        capture_output=True, text=True, check=False, cwd=home.parent, env={**inherited, **environ}, timeout=120,
    )  # fmt: skip


def test_help_lists_every_noun_and_loads_none(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom modelyard.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules if m in ('httpx', 'sqlalchemy', 'litestar', 'rich.console')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    for noun in NOUNS:
        assert f"  {noun} " in done.stdout


@pytest.mark.parametrize("noun", list(NOUNS))
def test_every_noun_explains_itself(tmp_path: Path, noun: str) -> None:
    done = modelyard(tmp_path / "home", noun, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


@pytest.mark.slow
def test_listings_for_programs_are_json(tmp_path: Path) -> None:
    done = modelyard(tmp_path / "home", "audit", "list", "--json")
    assert json.loads(done.stdout) == {"items": [], "next": None}
    assert json.loads(modelyard(tmp_path / "home", "audit", "verify", "--json").stdout)["ok"] is True


@pytest.mark.slow
def test_an_empty_listing_says_so(tmp_path: Path) -> None:
    assert "nothing happened yet" in modelyard(tmp_path / "home", "audit", "list").stdout


def test_errors_go_to_stderr_with_what_to_do_next_and_no_traceback(tmp_path: Path) -> None:
    done = modelyard(tmp_path / "home", "audit", "list", MODELYARD_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "does not answer" in done.stderr
    assert "next: start it with `modelyard up`" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistyped_setting_is_named(tmp_path: Path) -> None:
    done = modelyard(tmp_path / "home", "config", "show", MODELYARD_PROT="1")
    assert done.returncode == 1
    assert "did you mean 'port'" in done.stderr


def test_a_mistyped_command_is_named(tmp_path: Path) -> None:
    done = modelyard(tmp_path / "home", "audit", "lst")
    assert done.returncode == 2
    assert "Did you mean 'list'" in done.stderr


def test_config_shows_every_origin(tmp_path: Path) -> None:
    shown = json.loads(modelyard(tmp_path / "home", "config", "show", "--json", MODELYARD_CPUS="2").stdout)["items"]
    origins = {one["name"]: one["origin"] for one in shown}
    assert origins["cpus"] == "MODELYARD_CPUS"
    assert origins["home"] == "flag"
    assert origins["port"] == "default"


@pytest.mark.slow
def test_the_command_line_finds_the_server_of_its_home(tmp_path: Path) -> None:
    with running_server(tmp_path / "home"):
        done = modelyard(tmp_path / "home", "token", "create", "bob", "--role", "viewer", "--json")
        assert done.returncode == 0, done.stderr
        listed = json.loads(modelyard(tmp_path / "home", "audit", "list", "--json").stdout)["items"]
    issued = [one for one in listed if one["kind"] == "token.issued" and one["data"]["principal"] == "bob"]
    assert issued[0]["actor"] == "admin"


@pytest.mark.slow
def test_a_broken_log_ends_with_1(tmp_path: Path) -> None:
    home = tmp_path / "home"
    modelyard(home, "token", "create", "bob")
    modelyard(home, "audit", "verify")
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(\"UPDATE events SET actor='x'\"); c.commit()"
    )
    subprocess.run([sys.executable, "-c", code, str(home / "catalog.db")], check=True)
    done = modelyard(home, "audit", "verify")
    assert done.returncode == 1
    assert "BROKEN" in done.stdout
