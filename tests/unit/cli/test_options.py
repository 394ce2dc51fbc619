"""NAME=VALUE, instants and sizes as they are typed: read in one way, refused in one, by every command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.cli.options import instant, pair, pairs, size_bytes
from modelyard.kernel.errors import InvalidInput


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: "=" not in name), st.text()))
def test_pairs_are_what_was_written(given_as: dict[str, str]) -> None:
    assert pairs(f"{name}={value}" for name, value in given_as.items()) == given_as


def test_the_first_sign_parts_and_the_last_pair_of_a_name_counts() -> None:
    assert pairs(["A=b=c", "D=", "D=2"]) == {"A": "b=c", "D": "2"}
    assert pairs(None) == {}


@pytest.mark.parametrize("text", ["", "nothing", "=value", "=", "x" * 10_000])
def test_what_is_no_pair_is_refused_and_told_the_form(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not COLUMN=INPUT") as refused:
        pair(text, "COLUMN=INPUT")
    assert refused.value.code == "cli.pair_invalid"
    assert len(refused.value.message) < 200


def test_a_value_that_must_be_there_must_not_be_empty() -> None:
    assert pair("a=") == ("a", "")
    with pytest.raises(InvalidInput, match="DATASET=VERSION"):
        pair("flights=", "DATASET=VERSION", may_be_empty=False)


@pytest.mark.parametrize(
    "command",
    [
        ["job", "submit", "--label", "x", "--", "true"],
        ["job", "submit", "--env", "=x", "--", "true"],
        ["trigger", "create", "t", "--pipeline", "p", "--cron", "0 6 * * 1", "--param", "x"],
        ["trigger", "create", "t", "--pipeline", "p", "--on-event", "alert.raised", "--match", "x"],
        ["pipeline", "run", "flow", "--param", "x"],
        ["cost", "prices", "--set", "cpu_h"],
        ["feature", "verify", "--endpoint", "e", "--input", "x="],
        ["endpoint", "create", "e", "--model", "m", "--variant", "canary"],
        ["dataset", "create-from-sql", "d", "select 1", "--at", "x="],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_every_command_refuses_what_is_no_pair_alike(tmp_path: Path, command: list[str]) -> None:
    done = CliRunner(env={"MODELYARD_HOME": str(tmp_path / "home")}).invoke(app, command)
    assert isinstance(done.exception, InvalidInput), done.output
    assert done.exception.code == "cli.pair_invalid"


@given(st.datetimes(min_value=datetime(1000, 1, 1)), st.sampled_from(["", "Z", "+02:00", "-09:30"]))
def test_instants_are_aware_and_utc_unless_they_say_otherwise(naive: datetime, zone: str) -> None:
    away = {"": timedelta(), "Z": timedelta(), "+02:00": timedelta(hours=2), "-09:30": -timedelta(hours=9, minutes=30)}
    found = instant(naive.isoformat() + zone)
    assert found.replace(tzinfo=None) == naive
    assert found.utcoffset() == away[zone]


def test_days_and_minutes_are_instants() -> None:
    assert instant("2013-06-01") == datetime(2013, 6, 1, tzinfo=UTC)
    assert instant("2013-06-01 12:30") == datetime(2013, 6, 1, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "command",
    [
        ["cost", "list", "--since", "soon"],
        ["cost", "prices", "--set", "cpu_h=1", "--effective-from", "soon"],
        ["feature", "verify", "--endpoint", "e", "--until", "soon"],
        ["model", "history", "m", "--at", "soon"],
        ["monitor", "evaluate", "m", "--complete-through", "soon"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_every_command_refuses_what_is_no_time_alike(tmp_path: Path, command: list[str]) -> None:
    done = CliRunner(env={"MODELYARD_HOME": str(tmp_path / "home")}).invoke(app, command)
    assert isinstance(done.exception, InvalidInput), done.output
    assert done.exception.code == "time.invalid"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("512MiB", 2**29), ("1.5 GiB", 3 * 2**29), ("2GB", 2 * 10**9), ("1k", 1000)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "1 furlong", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        size_bytes(text)
