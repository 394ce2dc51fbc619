"""Feature views over HTTP, in the SDK and on the command line, against the whole app over a home directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.errors import InvalidInput, NotFound, UserCodeError
from modelyard.kernel.settings import load
from modelyard.sdk import features
from modelyard.sdk.client import EMBEDDED_URL, Client
from modelyard.sdk.data import dataset
from modelyard.sdk.embedded import embedded_transport
from modelyard.sdk.features import count, feature_view, mean

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
INSTANTS = pa.timestamp("us", tz="UTC")
VIEW = feature_view(
    "origin_delays",
    entities=["origin"],
    source="arrivals",
    event_time="departed_at",
    known_at="landed_at",
    ttl="24h",
    columns=["delay"],
    aggregates=[mean("delay", "3h"), count(timedelta(days=7), name="week")],
)


def arrivals() -> pa.Table:
    return pa.table(
        {
            "origin": ["JFK", "JFK"],
            "departed_at": pa.array([NOON, NOON + timedelta(hours=1)], INSTANTS),
            "landed_at": pa.array([NOON + timedelta(hours=1), NOON + timedelta(hours=2)], INSTANTS),
            "delay": [10.0, 30.0],
        }
    )


def frame() -> pa.Table:
    return pa.table({"origin": ["JFK", "LGA"], "t": pa.array([NOON + timedelta(hours=2)] * 2, INSTANTS)})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def client(home: Path) -> Iterator[Client]:
    made = Client(EMBEDDED_URL, transport=embedded_transport(load({"home": str(home)})))
    dataset("arrivals", made).write(arrivals())
    yield made
    made.close()


def test_from_declaration_to_frame(client: Client) -> None:
    [applied] = features.apply(VIEW, client=client)
    assert features.get_feature_view("origin_delays", client).version == applied.version
    assert [one.name for one in features.list_feature_views(client).items] == ["origin_delays"]
    joined = features.historical(frame(), ["origin_delays"], timestamp="t", versions={"arrivals": 1}, client=client)
    assert joined.to_pylist() == [
        {**row, "origin_delays__delay": delay, "origin_delays__mean_delay_3h": mean_, "origin_delays__week": week}
        for row, (delay, mean_, week) in zip(frame().to_pylist(), [(30.0, 20.0, 2), (None, None, 0)], strict=True)
    ]
    record = features.join_record(joined)
    assert (record.views, record.rows) == ([applied.urn], 2)


def test_errors_cross_the_wire(client: Client) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        features.get_feature_view("nothing", client)
    wrong = feature_view(
        "v", entities=["origin"], source="arrivals", event_time="departed_at", sql="SELEC", columns=["x"]
    )
    with pytest.raises(InvalidInput) as caught:
        features.apply(wrong, client=client)
    assert (caught.value.code, caught.value.details["line"]) == ("feature_view.sql_invalid", 1)
    features.apply(VIEW, client=client)
    for body in (b"", b"not arrow", b"\xff\xff\xff\xff" + b"\0" * 64):
        with pytest.raises(InvalidInput):
            client.send_bytes(
                "POST", "/api/features/historical", body, params={"feature": ["origin_delays"], "timestamp": "t"}
            )
    with pytest.raises(InvalidInput) as caught:
        features.historical(frame(), ["origin_delays"], timestamp="t", versions={"": 1}, client=client)
    assert caught.value.code == "features.pin_invalid"


def test_spooled_frames_are_removed(client: Client, home: Path) -> None:
    features.apply(VIEW, client=client)
    features.historical(frame(), ["origin_delays"], timestamp="t", client=client)
    with pytest.raises(InvalidInput):
        features.historical(frame(), ["origin_delays"], timestamp="when", client=client)
    assert list(home.rglob("*.incoming")) == []


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("45s", 45),
        ("30m", 1_800),
        ("3h", 10_800),
        ("7d", 604_800),
        ("2w", 1_209_600),
        (9, 9),
        (timedelta(hours=1), 3_600),
    ],
)
def test_durations(written: Any, seconds: int) -> None:
    assert features.seconds(written) == seconds


@pytest.mark.parametrize(
    "written", ["", "3", "3 years", "0h", "-1h", 0, -5, True, timedelta(milliseconds=5), timedelta(0)]
)
def test_what_is_no_duration(written: Any) -> None:
    with pytest.raises(InvalidInput):
        features.seconds(written)


def run(home: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, ["--home", str(home), "feature", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line(client: Client, home: Path, tmp_path: Path) -> None:
    assert "modelyard feature apply" in run(home, "list")
    views = tmp_path / "views.py"
    views.write_text(
        "from modelyard.sdk.features import feature_view, mean\n"
        "origin_delays = feature_view('origin_delays', entities=['origin'], source='arrivals',\n"
        "    event_time='departed_at', known_at='landed_at', aggregates=[mean('delay', '3h')])\n"
    )
    [applied] = json.loads(run(home, "apply", str(views), "--json"))["items"]
    assert json.loads(run(home, "list", "--json"))["items"][0]["version"] == applied["version"]
    assert json.loads(run(home, "get", "origin_delays", "--json"))["definition"]["source"] == "arrivals"
    shown = run(home, "get", "origin_delays")
    assert "mean_delay_3h" in shown
    assert "landed_at" in shown
    pq.write_table(frame(), tmp_path / "frame.parquet")
    out = tmp_path / "out.parquet"
    said = run(
        home, "historical", str(tmp_path / "frame.parquet"), "-f", "origin_delays", "--timestamp", "t", "-o", str(out)
    )
    assert "arrivals@1" in said
    assert pq.read_table(out)["origin_delays__mean_delay_3h"].to_pylist() == [20.0, None]


def test_a_file_that_is_no_definition_is_refused(client: Client, home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import no_such_module_here")
    with pytest.raises(UserCodeError, match="no_such_module_here"):
        run(home, "apply", str(broken))
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1")
    with pytest.raises(InvalidInput, match="declares no feature view"):
        run(home, "apply", str(empty))
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"name": "x"}')
    with pytest.raises(InvalidInput, match="entities"):
        run(home, "apply", str(wrong))
    with pytest.raises(InvalidInput, match="no file"):
        run(home, "apply", str(tmp_path / "missing.py"))
