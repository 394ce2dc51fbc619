"""Input for datasets as a stranger would try it, by the command line and over HTTP: a clear error that names the place,
and the dataset as it was."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.errors import ModelyardError
from modelyard.sdk.arrow_wire import ipc_stream
from modelyard.sdk.data import DatasetHandle
from modelyard.server.run import Server
from running import client_of, raw_client, running_server

pytestmark = pytest.mark.slow
KEPT = {1: 1.0, 2: 2.0}
Make = Callable[[Path], list[object]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("input") / "home") as made:
        flights = DatasetHandle("flights", client_of(made))
        flights.create(key=["id"])
        flights.write(table(1, 2))
        DatasetHandle("words", client_of(made)).write(pa.table({"word": ["a" * 50_000 + "!", "aaa"]}))
        yield made


def table(*ids: float) -> pa.Table:
    return pa.table({"id": pa.array([float(one) for one in ids]), "x": [float(one) for one in ids]})


def run(server: Server, *words: object) -> tuple[int, str]:
    given = ["--home", str(server.yard.settings.home), "dataset", *map(str, words)]
    done = CliRunner().invoke(app, given)
    error = done.exception
    assert error is None or isinstance(error, (SystemExit, ModelyardError)), repr(error)
    # What `main` prints of it.
    said = f"{error.message} {error.hint}" if isinstance(error, ModelyardError) else done.output
    return done.exit_code, " ".join(said.split())


def unharmed(server: Server) -> None:
    flights = DatasetHandle("flights", client_of(server))
    assert flights.get().latest == 1
    found = flights.read()
    assert dict(zip(found["id"].to_pylist(), found["x"].to_pylist(), strict=True)) == KEPT
    home = server.yard.settings.home
    assert list((home / "tables" / "default" / "flights" / "_staged").glob("*")) == []
    assert [one for one in home.rglob("*.incoming") if one.is_file()] == []
    with raw_client(server) as raw:
        assert raw.get("/api/health").status_code == 200


def whole_parquet(folder: Path) -> bytes:
    pq.write_table(pa.table({"id": [float(one) for one in range(5_000)], "x": [0.5] * 5_000}), folder / "whole.parquet")
    return (folder / "whole.parquet").read_bytes()


def truncated(folder: Path) -> list[object]:
    whole = whole_parquet(folder)
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    return ["write", "flights", folder / "cut.parquet"]


def corrupt(folder: Path) -> list[object]:
    whole = whole_parquet(folder)
    (folder / "bad.parquet").write_bytes(whole[:200] + os.urandom(2_000) + whole[2_200:])
    return ["write", "flights", folder / "bad.parquet"]


def imported_truncated(folder: Path) -> list[object]:
    truncated(folder)
    (folder / "whole.parquet").unlink()
    return ["import", "flights", folder]


def gap_in_the_log(folder: Path) -> list[object]:
    for _ in range(3):
        deltalake.write_deltalake(folder / "theirs", table(1), mode="append")
    (folder / "theirs" / "_delta_log" / f"{1:020d}.json").unlink()
    return ["import", "flights", folder / "theirs"]


def nan_key(folder: Path) -> list[object]:
    pq.write_table(table(7, math.nan), folder / "nan.parquet")
    return ["merge-rows", "flights", folder / "nan.parquet"]


def key_twice(folder: Path) -> list[object]:
    pq.write_table(table(7, 8, 8), folder / "twice.parquet")
    return ["merge-rows", "flights", folder / "twice.parquet"]


def with_checks(text: str, *, suffix: str = "yaml", on: str = "flights") -> Make:
    def make(folder: Path) -> list[object]:
        (folder / f"checks.{suffix}").write_text(text)
        return ["check", on, "--suite", folder / f"checks.{suffix}"]

    return make


def written_with_checks(text: str) -> Make:
    def make(folder: Path) -> list[object]:
        (folder / "checks.yaml").write_text(text)
        pq.write_table(table(7), folder / "more.parquet")
        return ["write", "flights", folder / "more.parquet", "--checks", folder / "checks.yaml"]

    return make


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class Case(NamedTuple):
    """What is tried, and the words that the answer must have."""

    make: Make
    words: tuple[str, ...]


CASES = {
    "truncated Parquet": Case(truncated, ("Parquet", "truncated")),
    "corrupt Parquet": Case(corrupt, ("Parquet",)),
    "a folder with a truncated file": Case(imported_truncated, ("cut.parquet",)),
    "a log with a gap": Case(gap_in_the_log, (f"{1:020d}.json",)),
    "a key that is NaN": Case(nan_key, ("1 of the rows", "NaN", "id")),
    "a key that is there twice": Case(key_twice, ("more than once", "8.0")),
    "a check on a missing column": Case(
        with_checks("checks: [{check: range, column: nope, min: 0}]"),
        ("range(nope)", "column 'nope' is missing; the columns are: id, x"),
    ),
    "a write with such a check": Case(
        written_with_checks("checks: [{check: not_null, column: nope}]"), ("not_null(nope)", "column 'nope' is missing")
    ),
    "a pattern that looks back": Case(
        with_checks("checks: [{check: regex, column: word, pattern: '(a+)+(?=b)'}]", on="words"),
        ("regex(word)", "(?="),
    ),
    "a YAML bomb": Case(with_checks(BOMB), ("checks.yaml",)),
    "YAML that makes objects": Case(
        with_checks("checks: !!python/object/apply:os.system ['touch /tmp/modelyard-was-here']"), ("checks.yaml",)
    ),
    "deep YAML": Case(with_checks("[" * 5_000), ("checks.yaml",)),
    "deep JSON": Case(with_checks("[" * 100_000, suffix="json"), ("checks.json",)),
    "a suite of nothing": Case(with_checks("checks: {a: 1}"), ("list of checks",)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_it_is_refused_by_the_command_line(server: Server, tmp_path: Path, case: Case) -> None:
    status, said = run(server, *case.make(tmp_path))
    assert status == 1, said
    assert "Traceback" not in said
    for word in case.words:
        assert word in said
    for held in json.loads(run(server, "quarantine", "list", "flights", "--json")[1])["items"]:
        run(server, "quarantine", "discard", "flights", held["id"])
    unharmed(server)


def test_a_pattern_that_others_never_end_with_ends(server: Server, tmp_path: Path) -> None:
    """`(a+)+$` takes Python longer than the universe lasts; here time grows with the text alone."""
    (tmp_path / "checks.yaml").write_text("checks: [{check: regex, column: word, pattern: '^(a+)+$'}]")
    status, said = run(server, "check", "words", "--suite", tmp_path / "checks.yaml")
    assert status == 1
    assert "1 of 2" in said


@pytest.mark.parametrize("first", ["A.png", "straße.txt"])
def test_files_whose_names_are_one_somewhere_are_refused(server: Server, tmp_path: Path, first: str) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    second = first.lower() if first != first.lower() else first.upper()
    for name in (first, second):
        (folder / name).write_text(name)
    status, said = run(server, "files", "add", "scans", folder, "--link", "copy")
    assert status == 1
    assert "one name on some file systems" in said
    (folder / second).unlink()
    assert run(server, "files", "add", "scans", folder, "--link", "copy")[0] == 0
    unharmed(server)


@pytest.mark.parametrize(
    "path", ["../out.txt", "a/../../out.txt", "/etc/passwd", "a\\..\\b", "a\0b", "..", "a//b", "~/x"]
)
def test_names_that_climb_are_refused_over_http(server: Server, path: str) -> None:
    put = [path, "0" * 64, 1, False]
    with raw_client(server, server.token) as raw:
        raw.post("/api/datasets", json={"name": "climbing", "kind": "files"})
        reply = raw.post("/api/datasets/climbing/files/commits", json={"put": [put]})
    assert reply.status_code == 400, reply.text
    assert "Traceback" not in reply.text
    assert reply.json()["code"].startswith(("path.", "request.", "files."))
    unharmed(server)


@pytest.mark.parametrize("name", ["../../etc", "..", "a/b", "%2e%2e%2fetc", "con\n", ""])
def test_a_dataset_has_no_name_that_climbs(server: Server, name: str) -> None:
    with raw_client(server, server.token) as raw:
        assert 400 <= raw.post("/api/datasets", json={"name": name}).status_code < 500
    unharmed(server)


def test_a_file_damaged_on_the_disk_is_named_and_older_versions_stay(server: Server) -> None:
    torn = DatasetHandle("torn", client_of(server))
    torn.write(table(1, 2))
    torn.write(table(3))
    folder = server.yard.settings.home / "tables" / "default" / "torn"
    newest = max(folder.glob("*.parquet"), key=lambda file: file.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-40])
    home = str(server.yard.settings.home)
    status, said = run(server, "read", "torn")
    assert (status, newest.name in said, home in said) == (1, True, False), "where it lies is not told"
    assert "version 2 of dataset 'torn' has a file that cannot be read" in said
    for damage in ("cut short", "gone"):
        if damage == "gone":
            newest.unlink()
        with raw_client(server, server.token) as raw:
            replies = [
                raw.get("/api/datasets/torn/rows"),
                raw.get("/api/datasets/torn/diff?before=1&after=2"),
                raw.post("/api/datasets/torn/delete-rows", json={"where": "id = 3"}),
            ]
        for reply in replies:
            assert reply.status_code >= 500, (damage, reply.json()["detail"])
            assert newest.name in reply.text
            assert home not in reply.text
    assert run(server, "read", "torn", "--version", 1)[0] == 0


def test_a_body_that_ends_early_leaves_nothing(server: Server) -> None:
    whole = b"".join(ipc_stream(table(*range(50_000))))
    with raw_client(server, server.token) as raw:
        for body in (whole[: len(whole) // 2], whole[:-9], whole[:8] + bytes(300) + whole[308:]):
            reply = raw.post("/api/datasets/flights/data?mode=overwrite", content=body)
            assert reply.status_code == 400, reply.text
    unharmed(server)
