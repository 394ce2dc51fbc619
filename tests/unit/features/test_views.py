"""Feature views through the plane's face: what is accepted, what is refused and where, and what a join gives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from sqlalchemy import select

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import Data
from modelyard.planes.features import METADATA_KEY, Features
from modelyard.planes.features.binding import bind
from modelyard.types.features import Aggregate, DefineFeatureView, JoinRecord

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
HOUR_S = 3_600


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


ARRIVALS = pa.table(
    {
        "origin": ["JFK", "JFK", "LGA", None],
        "number": [1, 2, 3, 4],
        "departed_at": pa.array([at(0), at(1), at(1), at(1)], pa.timestamp("us", tz="UTC")),
        "landed_at": pa.array([at(2), at(5), at(2), at(2)], pa.timestamp("us", tz="UTC")),
        "delay": [10.0, 40.0, 5.0, 99.0],
    }
)
FRAME = pa.table(
    {
        "flight": ["a", "b", "c", "d"],
        "origin": ["JFK", "LGA", "JFK", "SFO"],
        "t": pa.array([at(5), at(3), at(1.5), at(5)], pa.timestamp("us", tz="UTC")),
    }
)


def definition(**changes: Any) -> DefineFeatureView:
    base = DefineFeatureView(
        name="origin_delays",
        entities=["origin"],
        source="arrivals",
        event_time="departed_at",
        known_at="landed_at",
        columns=["delay"],
        aggregates=[
            Aggregate(function="mean", column="delay", window_s=24 * HOUR_S),
            Aggregate(function="rate", column="late", window_s=24 * HOUR_S),
            Aggregate(function="count", window_s=3 * HOUR_S),
        ],
        sql="SELECT *, delay > 15 AS late FROM arrivals -- late as the airlines mean it",
    )
    return msgspec.structs.replace(base, **changes)


@pytest.fixture
def data(database: Database, scope: Scope, tmp_path: Path) -> Data:
    plane = Data(database, DeltaTables(tmp_path / "tables"))
    plane.create(scope, "arrivals")
    plane.append(scope, "arrivals", ARRIVALS)
    return plane


@pytest.fixture
def features(database: Database, data: Data) -> Features:
    return Features(database, data)


def joined(
    features: Features, scope: Scope, wanted: Sequence[str], frame: pa.Table = FRAME, **options: Any
) -> pa.Table:
    return features.historical(scope, frame.to_reader(), wanted, timestamp="t", **options)


# --- applying ---------------------------------------------------------------------------------------------------


def test_a_view_is_kept_with_its_features_and_types(features: Features, scope: Scope) -> None:
    view = features.apply(scope, definition(description="delays"))
    assert [(one.name, one.type) for one in view.features] == [
        ("delay", "double"),
        ("mean_delay_24h", "double"),
        ("rate_late_24h", "double"),
        ("count_3h", "int64"),
    ]
    assert view.current
    assert features.get(scope, f"origin_delays@{view.version}") == view
    assert features.list(scope).items == [view]


def test_the_version_is_the_meaning(features: Features, scope: Scope, database: Database) -> None:
    first = features.apply(scope, definition())
    again = features.apply(scope, definition(description="other words"))
    assert again.version == first.version
    assert again.definition.description == "other words"
    second = features.apply(scope, definition(ttl_s=60))
    assert second.version != first.version
    assert not features.get(scope, f"origin_delays@{first.version}").current
    back = features.apply(scope, definition())
    assert (back.version, back.current) == (first.version, True)
    assert {one.version for one in features.versions(scope, "origin_delays").items} == {first.version, second.version}
    with database.reading(scope) as tx:
        kinds = [row.kind for row in tx.all(select(events.events.c.kind)) if row.kind.startswith("feature_view.")]
    assert sorted(kinds) == ["feature_view.created", "feature_view.updated", "feature_view.updated"]


def test_another_project_sees_nothing(features: Features, scope: Scope) -> None:
    features.apply(scope, definition())
    other = Scope("other", scope.principal)
    assert features.list(other).items == []
    with pytest.raises(NotFound) as caught:
        features.get(other, "origin_delays")
    assert caught.value.code == "feature_view.not_found"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"source": "departures"}, "dataset.not_found", "departures"),
        ({"entities": ["airport"]}, "feature_view.entity_unknown", "airport"),
        ({"entities": ["orgin"]}, "feature_view.entity_unknown", "did you mean 'origin'"),
        ({"entities": ["origin", "origin"]}, "feature_view.duplicate", "origin"),
        ({"entities": ["delay"]}, "feature_view.type_unsuited", "delay"),
        ({"event_time": "departed"}, "feature_view.column_unknown", "departed_at"),
        ({"event_time": "number"}, "feature_view.type_unsuited", "timestamp"),
        ({"columns": ["speed"]}, "feature_view.column_unknown", "speed"),
        ({"columns": [], "aggregates": []}, "feature_view.empty", "no features"),
        ({"name": "origin delays"}, "feature_view.name_invalid", "origin delays"),
        (
            {"aggregates": [Aggregate(function="mean", column="origin", window_s=1)]},
            "feature_view.type_unsuited",
            "text",
        ),
        (
            {"aggregates": [Aggregate(function="rate", column="delay", window_s=1)]},
            "feature_view.type_unsuited",
            "boolean",
        ),
        ({"aggregates": [Aggregate(function="sum", window_s=1)]}, "feature_view.column_missing", "sum"),
        ({"aggregates": [Aggregate(function="count", window_s=1)] * 2}, "feature_view.duplicate", "count_1s"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    features: Features, scope: Scope, changes: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises((InvalidInput, NotFound)) as caught:
        features.apply(scope, definition(**changes))
    assert caught.value.code == code
    assert words in str(caught.value)
    assert features.list(scope).items == []


def test_a_dataset_without_a_version_is_no_source(features: Features, data: Data, scope: Scope) -> None:
    data.create(scope, "departures")
    with pytest.raises(NotFound) as caught:
        features.apply(scope, definition(source="departures", sql="SELECT *, true AS late FROM departures"))
    assert caught.value.code == "dataset.empty"


@pytest.mark.parametrize(
    ("sql", "words", "place"),
    [
        ("SELEC 1", "syntax error", (1, 1)),
        ("SELECT *,\n  delay >> FROM arrivals", "syntax error", (2, 12)),
        ("SELECT *, dely > 15 AS late FROM arrivals", "dely", (1, 11)),
        ("SELECT *, lenght(origin) > 1 AS late FROM arrivals", "lenght", (1, 11)),
        ("SELECT *, true AS late FROM departures", "departures", (1, 29)),
        ("SELECT *, avg(delay) OVER () > 15 AS late FROM arrivals", "window function", (1, 11)),
        ("SELECT avg(delay) AS late FROM arrivals", "aggregate", (1, 8)),
        ("SELECT *, (SELECT true) AS late FROM arrivals", "subquery", (1, 11)),
        ("SELECT *, random() > 0.5 AS late FROM arrivals", "every call", (1, 11)),
        ("SELECT *, departed_at > now() AS late FROM arrivals", "every call", (1, 25)),
        ("SELECT *, departed_at > current_timestamp AS late FROM arrivals", "every call", (1, 25)),
        ("SELECT *, 'ü' = origin, today() IS NULL AS late FROM arrivals", "every call", (1, 25)),
        ("SELECT *, true AS late FROM arrivals LIMIT 3", "LIMIT", None),
        ("SELECT DISTINCT *, true AS late FROM arrivals", "DISTINCT", None),
        ("SELECT *, true AS late FROM arrivals ORDER BY delay", "ORDER", None),
        ("SELECT *, true AS late FROM arrivals USING SAMPLE 3", "SAMPLE", None),
        ("SELECT *, true AS late FROM arrivals TABLESAMPLE 10%", "alone", (1, 29)),
        ("SELECT *, true AS late FROM arrivals QUALIFY row_number() OVER () = 1", "QUALIFY", None),
        ("SELECT origin, true AS late FROM arrivals GROUP BY ALL", "GROUP BY", None),
        ("WITH x AS (SELECT 1) SELECT *, true AS late FROM arrivals", "WITH", None),
        ("SELECT *, true AS late FROM arrivals UNION ALL SELECT *, true FROM arrivals", "several SELECTs", None),
        ("SELECT *, true AS late FROM arrivals, arrivals AS b", "join", None),
        ("SELECT *, true AS late FROM (SELECT * FROM arrivals)", "subquery", None),
        ("SELECT *, true AS late FROM read_csv('/etc/passwd')", "table function", (1, 29)),
        ("SELECT *, true AS late FROM main.arrivals", "alone", (1, 29)),
        ("SELECT *, true AS late FROM arrivals; SELECT 1", "2 statements", None),
        ("DROP TABLE arrivals", "SELECT", None),
        ("SELECT 1 AS late", "nothing", None),
        ("", "late", None),
    ],
)
def test_wrong_sql_is_refused_with_its_place(sql: str, words: str, place: tuple[int, int] | None) -> None:
    with pytest.raises(InvalidInput) as caught:
        bind(definition(sql=sql), ARRIVALS.schema)
    assert words in str(caught.value)
    if place is not None:
        assert (caught.value.details["line"], caught.value.details["column"]) == place
        assert f"line {place[0]}, column {place[1]}" in caught.value.message


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT *, coalesce(delay, 0) > 15 AND origin IN ('JFK', 'LGA') AS late FROM arrivals;",
        'SELECT a.*, CASE WHEN nullif(a.delay, 0) > 15 THEN true ELSE false END AS late FROM "arrivals" AS a',
        "SELECT * REPLACE (upper(origin) AS origin), round(delay) > 15 AS late FROM Arrivals WHERE number > 0 /* x */",
    ],
)
def test_row_wise_sql_is_accepted(sql: str) -> None:
    assert bind(definition(sql=sql), ARRIVALS.schema).features


# --- joining ----------------------------------------------------------------------------------------------------


def test_every_row_comes_back_in_its_order_with_what_was_known_then(features: Features, scope: Scope) -> None:
    features.apply(scope, definition())
    table = joined(features, scope, ["origin_delays"])
    assert table.select(FRAME.column_names).equals(FRAME)
    found = table.select(["origin_delays__mean_delay_24h", "origin_delays__rate_late_24h", "origin_delays__delay"])
    assert found.to_pylist() == [
        {"origin_delays__mean_delay_24h": 25.0, "origin_delays__rate_late_24h": 0.5, "origin_delays__delay": 40.0},
        {"origin_delays__mean_delay_24h": 5.0, "origin_delays__rate_late_24h": 0.0, "origin_delays__delay": 5.0},
        {"origin_delays__mean_delay_24h": None, "origin_delays__rate_late_24h": None, "origin_delays__delay": None},
        {"origin_delays__mean_delay_24h": None, "origin_delays__rate_late_24h": None, "origin_delays__delay": None},
    ]
    # Flight 2 left three hours before it was known: no three-hour window ever saw it.
    assert table.column("origin_delays__count_3h").to_pylist() == [0, 1, 0, 0]


def test_corrupting_the_future_in_the_dataset_changes_nothing(features: Features, data: Data, scope: Scope) -> None:
    features.apply(scope, definition())
    before = joined(features, scope, ["origin_delays"])
    landed = ARRIVALS.column("landed_at").to_pylist()
    horizon = at(3)
    asked = FRAME.filter([moment <= horizon for moment in FRAME.column("t").to_pylist()])
    corrupted = ARRIVALS.set_column(
        ARRIVALS.column_names.index("delay"),
        "delay",
        pa.array(
            [
                -1e6 if when > horizon else value
                for when, value in zip(landed, ARRIVALS["delay"].to_pylist(), strict=True)
            ]
        ),
    )
    data.write(scope, "arrivals", corrupted, mode="overwrite")
    now = joined(features, scope, ["origin_delays"], asked)
    then = joined(features, scope, ["origin_delays"], asked, pins={"arrivals": 1})
    assert now.equals(then)
    # Whoever asks later does see the difference: the corruption is really there.
    assert not joined(features, scope, ["origin_delays"]).equals(before)


def test_single_features_versions_and_pins(features: Features, data: Data, scope: Scope) -> None:
    old = features.apply(scope, definition())
    features.apply(scope, definition(columns=[]))
    data.append(scope, "arrivals", ARRIVALS)
    table = joined(features, scope, [f"origin_delays@{old.version}:delay", f"origin_delays@{old.version}:count_3h"])
    assert table.column_names == [*FRAME.column_names, "origin_delays__delay", "origin_delays__count_3h"]
    assert table.column("origin_delays__count_3h").to_pylist() == [0, 2, 0, 0]
    pinned = joined(features, scope, ["origin_delays:count_3h"], pins={"arrivals": "1"})
    assert pinned.column("origin_delays__count_3h").to_pylist() == [0, 1, 0, 0]
    record = msgspec.json.decode(pinned.schema.metadata[METADATA_KEY], type=JoinRecord)
    assert [(pin.dataset, pin.version) for pin in record.datasets] == [("arrivals", 1)]
    assert record.rows == 4


def test_several_views_share_a_frame(features: Features, scope: Scope) -> None:
    features.apply(scope, definition())
    features.apply(scope, definition(name="numbers", entities=["number"], columns=["origin"], aggregates=[], sql=""))
    frame = FRAME.append_column("number", pa.array([1, 2, 3, 9], pa.int32()))
    table = joined(features, scope, ["numbers", "origin_delays:count_3h"], frame)
    assert table.column("numbers__origin").to_pylist() == ["JFK", None, None, None]


def test_a_dictionary_encoded_key_and_another_clock_join_as_well(features: Features, scope: Scope) -> None:
    features.apply(scope, definition())
    frame = FRAME.set_column(1, "origin", FRAME["origin"].dictionary_encode())
    frame = frame.set_column(2, "t", FRAME["t"].cast(pa.timestamp("ns", tz="America/New_York")))
    expected = joined(features, scope, ["origin_delays"])
    assert joined(features, scope, ["origin_delays"], frame).column(3).equals(expected.column(3))


@pytest.mark.parametrize(
    ("wanted", "frame", "options", "code"),
    [
        (["nothing"], FRAME, {}, "feature_view.not_found"),
        (["origin_delays@000000000000"], FRAME, {}, "feature_view.not_found"),
        (["origin_delays:speed"], FRAME, {}, "features.feature_unknown"),
        ([], FRAME, {}, "features.none_asked"),
        ([":delay"], FRAME, {}, "features.ref_invalid"),
        (["origin_delays"], FRAME.drop_columns(["origin"]), {}, "features.entity_missing"),
        (["origin_delays"], FRAME.drop_columns(["t"]), {}, "features.entity_missing"),
        (["origin_delays"], FRAME.set_column(2, "t", pa.array([1, 2, 3, 4])), {}, "features.timestamp_invalid"),
        (["origin_delays"], FRAME.set_column(2, "t", pa.nulls(4, pa.timestamp("us"))), {}, "features.timestamp_null"),
        (["origin_delays"], FRAME.append_column("origin_delays__delay", pa.nulls(4)), {}, "features.column_duplicate"),
        (["origin_delays"], FRAME.append_column("t", FRAME["t"]), {}, "features.column_duplicate"),
        (["origin_delays"], FRAME, {"pins": {"arrivals": 9}}, "dataset.version_not_found"),
        (["origin_delays"], FRAME, {"pins": {"weather": 1}}, "features.pin_unused"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_name(
    features: Features, scope: Scope, wanted: list[str], frame: pa.Table, options: dict[str, Any], code: str
) -> None:
    features.apply(scope, definition())
    with pytest.raises((InvalidInput, NotFound)) as caught:
        joined(features, scope, wanted, frame, **options)
    assert caught.value.code == code


def test_a_key_of_another_type_is_refused(features: Features, scope: Scope) -> None:
    features.apply(scope, definition(entities=["number"]))
    frame = FRAME.append_column("number", pa.array(["1", "two", "3", "4"]))
    with pytest.raises(InvalidInput) as caught:
        joined(features, scope, ["origin_delays"], frame)
    assert caught.value.code == "features.entity_type"


def test_a_source_that_changed_its_schema_is_named(features: Features, data: Data, scope: Scope) -> None:
    features.apply(scope, definition())
    without = ARRIVALS.drop_columns(["delay"])
    told = data.write(scope, "arrivals", without, mode="overwrite", replace_schema=True)
    assert told.status == "quarantined"
    assert told.report.failed[0].message.startswith("feature-view:")
    data.write(scope, "arrivals", without, mode="overwrite", replace_schema=True, breaking=True)
    with pytest.raises(InvalidInput) as caught:
        joined(features, scope, ["origin_delays"])
    assert caught.value.code == "feature_view.source_changed"
    assert joined(features, scope, ["origin_delays"], pins={"arrivals": 1}).num_rows == 4


def test_an_empty_frame_and_an_empty_past(features: Features, scope: Scope) -> None:
    features.apply(scope, definition())
    assert joined(features, scope, ["origin_delays"], FRAME.slice(0, 0)).num_rows == 0
    early = FRAME.set_column(2, "t", pa.array([at(-99)] * 4, pa.timestamp("us", tz="UTC")))
    assert joined(features, scope, ["origin_delays"], early).column("origin_delays__count_3h").to_pylist() == [0] * 4


def test_a_value_that_cannot_be_summed_exactly_is_an_error(features: Features, data: Data, scope: Scope) -> None:
    features.apply(scope, definition())
    huge = ARRIVALS.set_column(4, "delay", pa.array([1e300, 1.0, 1.0, 1.0]))
    data.write(scope, "arrivals", huge, mode="overwrite")
    with pytest.raises(InvalidInput, match="cannot be summed exactly"):
        joined(features, scope, ["origin_delays"])


def test_a_job_that_joins_is_tied_to_what_it_read(
    features: Features, data: Data, scope: Scope, database: Database
) -> None:
    view = features.apply(scope, definition())
    job = Scope("default", Principal("job:abc", {"default": Role.CONTRIBUTOR}))
    joined(features, job, ["origin_delays"])
    with database.reading(scope) as tx:
        graph = lineage.walk(tx, "job:abc", "up")
    used = {edge.object for edge in graph.edges if edge.relation == "used"}
    assert {one for one in used if "#" not in one} == {view.urn, "dataset:arrivals@1"}
    assert "dataset:arrivals@1#origin" in used, "the columns behind its features, too"
