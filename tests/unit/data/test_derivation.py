"""Datasets made by SQL: through the sandbox and the checks, with the columns that each column comes from."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.data import Data
from modelyard.planes.data.column_lineage import columns_of_query, tables_of_query
from modelyard.types.contracts import CreateFromSql
from modelyard.types.data import NotNull

SCHEMAS = {"flights": ["id", "origin", "dep", "dist"], "planes": ["tail", "Seats", "id"], "my-data": ["a", "b"]}
F, P = "flights", "planes"


@pytest.mark.parametrize(
    ("statement", "outputs", "rows"),
    [
        ("SELECT id, dist * 2 AS far FROM flights", {"id": [(F, "id")], "far": [(F, "dist")]}, []),
        ("SELECT f.origin, sum(dist) d, count(*) n FROM flights f WHERE dep > 1 GROUP BY 1",
         {"origin": [(F, "origin")], "d": [(F, "dist")], "n": []}, [(F, "dep"), (F, "origin")]),
        ("WITH x AS (SELECT origin o, dep + dist s FROM flights) SELECT x.s, p.seats FROM x JOIN planes p ON tail = o",
         {"s": [(F, "dep"), (F, "dist")], "seats": [(P, "Seats")]}, [(F, "origin"), (P, "tail")]),
        ("SELECT * EXCLUDE (id, dep) REPLACE (dist / 2 AS dist) FROM flights",
         {"origin": [(F, "origin")], "dist": [(F, "dist")]}, []),
        ("SELECT id, (SELECT max(seats) FROM planes p WHERE p.id = f.id) m FROM flights f",
         {"id": [(F, "id")], "m": [(F, "id"), (P, "Seats"), (P, "id")]}, []),
        ("SELECT id FROM flights UNION ALL SELECT id FROM planes", {"id": [(F, "id"), (P, "id")]}, []),
        ('SELECT "a" FROM "my-data" ORDER BY b LIMIT 1', {"a": [("my-data", "a")]}, [("my-data", "b")]),
        ("SELECT id FROM flights WHERE id IN (SELECT id FROM planes WHERE seats > 3)",
         {"id": [(F, "id")]}, [(F, "id"), (P, "Seats"), (P, "id")]),
        ("SELECT origin, row_number() OVER (PARTITION BY origin ORDER BY dep) rn FROM flights",
         {"origin": [(F, "origin")], "rn": [(F, "dep"), (F, "origin")]}, []),
        ("SELECT z.id FROM flights z JOIN planes USING (id)", {"id": [(F, "id")]}, [(F, "id"), (P, "id")]),
    ],
)  # fmt: skip
def test_columns_are_followed_to_the_tables_that_they_come_from(
    statement: str, outputs: dict[str, list[tuple[str, str]]], rows: Sequence[tuple[str, str]]
) -> None:
    found = columns_of_query(statement, SCHEMAS)
    assert found is not None
    assert {name: list(sources) for name, sources in found.outputs.items()} == outputs
    assert list(found.rows) == list(rows)


@pytest.mark.parametrize(
    "statement",
    ["PIVOT flights ON origin USING sum(dist)", "SUMMARIZE flights", "SELECT nope FROM flights", "SELECT FROM WHERE",
     "SELECT id FROM elsewhere"],
)  # fmt: skip
def test_what_cannot_be_followed_is_not_guessed(statement: str) -> None:
    assert columns_of_query(statement, SCHEMAS) is None


def test_where_the_names_are_not_those_that_come_out_nothing_is_said() -> None:
    assert columns_of_query("SELECT columns('d.*') FROM flights", SCHEMAS, ["dep", "dist"]) is None
    found = columns_of_query("SELECT ID AS Key FROM flights", SCHEMAS, ["Key"])
    assert found is not None
    assert found.outputs == {"Key": (("flights", "id"),)}


def test_tables_are_those_that_are_named() -> None:
    assert tables_of_query('SELECT * FROM a JOIN "my-data" USING (id)') == {"a", "my-data"}
    assert {"a", "b"} <= tables_of_query("SELECT ~~~ FROM a, b WHERE !!")


# --- through the plane --------------------------------------------------------------------------------------------


@pytest.fixture
def data(database: Database, tmp_path: Path, scope: Scope) -> Data:
    made = Data(database, DeltaTables(tmp_path / "tables"), tmp_path / "spill")
    made.write(scope, "flights", pa.table({"id": [1, 2, 3], "origin": ["JFK", "JFK", "LGA"], "dist": [5, 7, 9]}),
               create=True)  # fmt: skip
    made.write(scope, "airports", pa.table({"code": ["JFK", "LGA"], "city": ["New York"] * 2}), create=True)
    return made


def sql(statement: str, **options: object) -> CreateFromSql:
    return CreateFromSql(statement=statement, **options)  # type: ignore[arg-type]


BY_CITY = "SELECT city, sum(dist) AS total FROM flights JOIN airports ON code = origin GROUP BY city"


def test_a_dataset_is_made_by_sql_with_the_lineage_of_its_columns(data: Data, scope: Scope) -> None:
    written = data.derivations.create(scope, "by_city", sql(BY_CITY))
    assert (written.status, written.version) == ("published", 1)
    assert data.read(scope, "by_city").to_pylist() == [{"city": "New York", "total": 21}]
    version = data.resolve(scope, "by_city")
    assert version.source == f"sql: {BY_CITY}"
    assert {column.name: column.type for column in version.columns} == {"city": "string", "total": "int64"}
    with data._database.reading(scope) as tx:
        near = {(edge.relation, edge.object) for edge in lineage.neighbours(tx, "dataset:by_city@1")}
    assert {one for one in near if "#" not in one[1]} == {
        ("derived", "dataset:flights@1"),
        ("derived", "dataset:airports@1"),
    }
    assert ("derived", "dataset:flights@1#dist") in near, "who reads it whole stands on these columns"
    found = data.derivations.columns(scope, "by_city", "total")
    assert [(one.of_dataset, one.of_version, one.of_column) for one in found.up] == [("flights", 1, "dist")]
    down = data.derivations.columns(scope, "flights", "origin")
    assert [(one.dataset, one.column) for one in down.down] == [("by_city", "*")]


def test_columns_are_followed_over_several_datasets_and_versions(data: Data, scope: Scope) -> None:
    data.derivations.create(scope, "by_city", sql(BY_CITY))
    data.derivations.create(scope, "top", sql("SELECT total * 2 AS double_total FROM by_city"))
    data.write(scope, "flights", pa.table({"id": [4], "origin": ["LGA"], "dist": [1]}))
    up = data.derivations.columns(scope, "top", "double_total").up
    assert {(one.of_dataset, one.of_column) for one in up} == {("by_city", "total"), ("flights", "dist")}
    down = data.derivations.columns(scope, "flights", "dist").down
    assert {(one.dataset, one.column) for one in down} == {("by_city", "total"), ("top", "double_total")}
    with pytest.raises(NotFound):
        data.derivations.columns(scope, "flights", "nope")


def test_inputs_are_read_at_the_versions_that_are_asked_for(data: Data, scope: Scope) -> None:
    data.write(scope, "flights", pa.table({"id": [4], "origin": ["LGA"], "dist": [100]}))
    counted = "SELECT count(*) AS n FROM FLIGHTS"
    data.derivations.create(scope, "n", sql(counted, inputs={"flights": 1}))
    data.derivations.create(scope, "n", sql(counted))
    assert [data.read(scope, "n", version).to_pylist() for version in (1, 2)] == [[{"n": 3}], [{"n": 4}]]


def test_checks_guard_what_sql_makes(data: Data, scope: Scope) -> None:
    data.create(scope, "cities", checks=[NotNull(column="city")])
    written = data.derivations.create(
        scope, "cities", sql("SELECT id, city FROM flights LEFT JOIN airports ON code = origin AND origin = 'JFK'")
    )
    assert written.status == "quarantined"
    assert data.get(scope, "cities").latest == 0
    assert data.contracts.consumers(scope, "flights") == []


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM read_csv('/etc/passwd')", "SELECT * FROM '/etc/passwd'", "COPY flights TO '/tmp/x'",
     "SELECT 1; SELECT 2", "SELECT * FROM nowhere", "SELECT id, id FROM flights",
     "SELECT interval 1 day AS i FROM flights",
     "SELECT sum(9223372036854775807) AS s FROM flights"],
)  # fmt: skip
def test_sql_reads_datasets_and_nothing_else(data: Data, scope: Scope, statement: str) -> None:
    with pytest.raises(InvalidInput):
        data.derivations.create(scope, "made", sql(statement))
    with pytest.raises(NotFound):
        data.read(scope, "made")


def test_a_pinned_input_that_is_no_dataset_is_said(data: Data, scope: Scope) -> None:
    with pytest.raises(NotFound):
        data.derivations.create(scope, "made", sql("SELECT 1 AS one", inputs={"nowhere": 1}))


def test_who_stops_using_a_dataset_is_no_consumer_of_it(data: Data, scope: Scope) -> None:
    data.derivations.create(scope, "made", sql("SELECT id FROM flights"))
    assert [one.consumer for one in data.contracts.consumers(scope, "flights")] == ["dataset:made"]
    made = "SELECT code FROM airports"
    data.derivations.create(scope, "made", sql(made, replace_schema=True))
    assert data.contracts.consumers(scope, "flights") == []
    assert [[one.name for one in use.columns] for use in data.contracts.consumers(scope, "airports")] == [["code"]]


def test_decimals_of_the_query_stay_decimals(data: Data, scope: Scope) -> None:
    data.derivations.create(scope, "made", sql("SELECT 1.50::DECIMAL(10,2) AS price, now() AS at FROM flights LIMIT 1"))
    assert data.read(scope, "made", columns=["price"]).to_pylist() == [{"price": Decimal("1.50")}]
    types = {column.name: column.type for column in data.resolve(scope, "made").columns}
    assert types == {"price": "decimal128(10, 2)", "at": "timestamp[us, tz=UTC]"}
