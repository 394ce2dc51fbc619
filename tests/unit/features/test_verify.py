"""Served features are verified against the point-in-time join; the outcome opens or shuts the gate of a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from modelyard.cli.main import app
from modelyard.kernel.auth import Role
from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound
from modelyard.planes.features.skew import compare
from modelyard.sdk import features
from modelyard.sdk.client import Client
from modelyard.server.run import Server
from running import client_of, running_server, token_for
from unit.features.delays import ADA, INSTANTS, NOON, guard_by_features


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("verify") / "home") as server:
        guard_by_features(server, {"model.txt": b"tree\nversion=v4\n"})
        yield server


@pytest.fixture
def client(server: Server) -> Client:
    return client_of(server)


def served(client: Client) -> pa.Table:
    frame = pa.table(
        {"origin": ["JFK", "LGA", "SFO"], "t": pa.array([NOON + timedelta(hours=at) for at in (2, 4, 5)], INSTANTS)}
    )
    return features.historical(frame, ["origin_delays"], timestamp="t", client=client)


def changed(frame: pa.Table, column: str, values: list[object]) -> pa.Table:
    at = frame.column_names.index(column)
    return frame.set_column(at, column, pa.array(values, frame.column(column).type))


def test_the_gate_opens_by_what_was_verified_and_shuts_again(server: Server, client: Client) -> None:
    registry = server.yard.registry
    [gate] = registry.decide(ADA, "delay", 1).gates
    assert (gate.name, gate.status) == ("features", "missing")
    good = served(client)
    found = features.verify(good, ["origin_delays"], timestamp="t", model="delay@1", client=client)
    assert (found.passed, found.rows, found.different) == (True, 3, 0)
    assert {one.feature for one in found.features} == {"origin_delays__mean_delay_3h", "origin_delays__week"}
    [gate] = registry.decide(ADA, "delay", 1).gates
    assert (gate.status, gate.evidence) == ("passed", f"attestation:{found.attestation}")
    registry.promote(ADA, "delay", 1, "champion", "")
    week = good.column("origin_delays__week").to_pylist()
    skewed = changed(good, "origin_delays__week", [week[0] + 1, *week[1:]])
    worse = features.verify(skewed, ["origin_delays"], timestamp="t", model="delay@1", client=client)
    assert (worse.passed, worse.different) == (False, 1)
    [gate] = registry.decide(ADA, "delay", 1).gates
    assert gate.status == "failed"
    assert "origin_delays__week" in gate.reason
    [gate] = registry.decide(ADA, "delay", 2).gates
    assert gate.status == "missing", "what was said of another version does not count"
    [newest, *_] = registry.statements.attestations(ADA, "delay", 1)
    assert "dataset:arrivals@1" in newest.evidence


def test_without_a_model_nothing_is_recorded_and_reading_is_enough(server: Server, client: Client) -> None:
    viewer = Client(server.url, token=token_for(server, "vera", Role.VIEWER))
    before = server.yard.registry.statements.attestations(ADA, "delay", 2)
    assert features.verify(served(client), ["origin_delays:week"], timestamp="t", client=viewer).attestation == ""
    with pytest.raises(Forbidden):
        features.verify(served(client), ["origin_delays"], timestamp="t", model="delay@2", client=viewer)
    assert server.yard.registry.statements.attestations(ADA, "delay", 2) == before


def test_what_cannot_be_verified_is_said(client: Client) -> None:
    good = served(client)
    with pytest.raises(InvalidInput, match="no column 'origin_delays__week'"):
        features.verify(good.drop_columns(["origin_delays__week"]), ["origin_delays"], timestamp="t", client=client)
    with pytest.raises(InvalidInput, match="no rows"):
        features.verify(good.slice(0, 0), ["origin_delays"], timestamp="t", client=client)
    with pytest.raises(InvalidInput, match="names no version"):
        features.verify(good, ["origin_delays"], timestamp="t", model="delay", client=client)
    with pytest.raises(NotFound):
        features.verify(good, ["origin_delays"], timestamp="t", model="delay@77", client=client)


def test_the_command_line_shows_what_differs(
    server: Server, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELYARD_URL", server.url)
    monkeypatch.setenv("MODELYARD_TOKEN", server.token)
    good = served(client)
    pq.write_table(good, tmp_path / "good.parquet")
    pq.write_table(changed(good, "origin_delays__mean_delay_3h", [None, 1.0, None]), tmp_path / "bad.parquet")
    words = ["-f", "origin_delays", "--timestamp", "t"]
    done = CliRunner().invoke(app, ["feature", "verify", str(tmp_path / "good.parquet"), *words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["passed"]
    done = CliRunner().invoke(app, ["feature", "verify", str(tmp_path / "bad.parquet"), *words])
    assert done.exit_code == 3
    assert "row 0: null, not 10.0" in done.output


VALUES = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=30)


@given(values=VALUES, moved=st.integers(0, 29))
def test_a_feature_agrees_with_itself_and_not_with_one_that_moved(values: list[float | None], moved: int) -> None:
    column = pa.chunked_array([pa.array(values, pa.float64())])
    assert compare(column, column, "f", 1e-6).different == 0
    at = moved % len(values)
    other = list(values)
    other[at] = 5.0 if other[at] is None or np.isnan(other[at]) else None  # type: ignore[arg-type]
    found = compare(pa.chunked_array([pa.array(other, pa.float64())]), column, "f", 1e-6)
    assert [one.row for one in found.examples] == [at]


def test_numbers_agree_within_the_tolerance_and_texts_exactly() -> None:
    def column(*values: object) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(list(values))])

    assert compare(column(1e9, 1.0), column(1e9 + 1, 1.0), "f", 1e-6).different == 0
    assert compare(column(1.0), column(1.1), "f", 1e-6).largest == pytest.approx(0.1)
    assert compare(column(1, 2), column(1.0, 2.0), "f", 0.0).different == 0
    assert compare(column("a", "b", None), column("a", "c", None), "f", 1e-6).different == 1
    with pytest.raises(InvalidInput, match="was served as"):
        compare(column("a"), pa.chunked_array([pa.array([NOON], INSTANTS)]), "f", 1e-6)
