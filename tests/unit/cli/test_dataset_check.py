"""`modelyard dataset check`: suites of three tools, exit codes, failing rows, files that are no suite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow


def modelyard(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")}
    return subprocess.run(
        [sys.executable, "-m", "modelyard", "--home", str(home), "dataset", *arguments],
        capture_output=True, text=True, check=False, cwd=home.parent, env=environ, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a dataset `d` of 100 rows, ten of which have a negative value."""
    made = tmp_path_factory.mktemp("cli") / "home"
    table = pa.table({"id": list(range(100)), "v": [-1.0 if n % 10 == 0 else 1.0 for n in range(100)]})
    pq.write_table(table, made.parent / "d.parquet")
    written = modelyard(made, "write", "d", "d.parquet")
    assert written.returncode == 0, written.stderr
    return made


GX = {
    "name": "mine",
    "expectations": [
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "v", "min_value": 0}},
        {"type": "expect_column_values_to_rhyme", "kwargs": {"column": "v"}},
    ],
}


def test_a_failing_suite_exits_with_1_and_gives_every_failing_row(home: Path) -> None:
    (home.parent / "gx.json").write_text(json.dumps(GX))
    done = modelyard(home, "check", "d", "--suite", "gx.json", "--failing", "out", "--json")
    assert done.returncode == 1
    run = json.loads(done.stdout)
    assert [one["status"] for one in run["report"]["results"]] == ["failed", "error"]
    assert run["report"]["results"][0]["failing"] == 10
    [file] = (home.parent / "out").iterdir()
    assert pq.read_table(file)["id"].to_pylist() == list(range(0, 100, 10))
    shown = modelyard(home, "check", "d", "--suite", "gx.json")
    assert "expect_column_values_to_rhyme: no such expectation is known here" in shown.stderr
    assert run["id"] in modelyard(home, "check-runs", "d", "--json").stdout


def test_a_dbt_file_that_holds_exits_with_0(home: Path) -> None:
    (home.parent / "schema.yml").write_text(
        "version: 2\nmodels:\n  - name: other\n  - name: d\n    columns:\n      - name: id\n"
        "        tests: [unique, not_null]\n"
    )
    done = modelyard(home, "check", "d", "--suite", "schema.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nb: [*a, *a]\n", "anchors"),
        ("!!python/object/apply:os.system ['true']\n", "no YAML"),
        ("checks: [{check: range, column: v, mni: 0}]\n", "mni"),
        ("- {check: nope}\n", "nope"),
        ("a: [", "line 1"),
        ("just text\n", "no list of checks"),
    ],
)
def test_a_file_that_is_no_suite_is_refused_with_the_place(home: Path, text: str, said: str) -> None:
    (home.parent / "bad.yaml").write_text(text)
    done = modelyard(home, "check", "d", "--suite", "bad.yaml")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_is_checked_without_a_dataset(home: Path) -> None:
    (home.parent / "gx.json").write_text(json.dumps(GX))
    done = modelyard(home, "check-file", "d.parquet", "--suite", "gx.json", "--failing", "bad", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert [one["status"] for one in report["results"]] == ["failed", "error"]
    [file] = (home.parent / "bad").iterdir()
    assert pq.read_table(file)["id"].to_pylist() == list(range(0, 100, 10))
    (home.parent / "good.yaml").write_text("- {check: not_null, column: id}\n")
    good = modelyard(home, "check-file", "d.parquet", "--suite", "good.yaml")
    assert (good.returncode, "100 rows, 1 checks" in good.stdout) == (0, True), good.stderr
    missing = modelyard(home, "check-file", "nowhere.parquet", "--suite", "good.yaml")
    assert missing.returncode != 0
    assert "there is no file nowhere.parquet" in missing.stderr
