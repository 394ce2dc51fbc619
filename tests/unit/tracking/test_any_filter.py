"""Whatever a filter says, a search answers or says why not: never a fault of the database's or of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import catalogs
from modelyard.engines.blobs.local import LocalBlobs
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import Tracking
from modelyard.types.tracing import Span, Trace
from modelyard.types.tracking import CreateRun

SCOPE = Scope("default", Principal("ada", {"*": Role.ADMIN}))
_KEYS = st.sampled_from(["a", "`a b`", '"a.b"', "a.b", "mlflow.traceName", "`", "ü", "x" * 300]) | st.text(max_size=6)
_NAMES = st.sampled_from(
    ["name", "status", "run_id", "run_name", "start_time", "end_time", "timestamp", "execution_time", "text", "prompt",
     "span.name", "span.content", "attributes.run_id", "trace.name", "dataset.digest", "issue.id", "user_id"]
) | st.builds(
    "{}.{}".format,
    st.sampled_from(["metrics", "params", "tags", "metadata", "feedback", "expectation", "span.attributes", "dataset"]),
    _KEYS,
)  # fmt: skip
_OPERATORS = st.sampled_from(
    [
        "=",
        "!=",
        "<",
        ">=",
        "LIKE",
        "ILIKE",
        "like",
        "RLIKE",
        "IN",
        "NOT IN",
        "IS NULL",
        "IS NOT NULL",
        "==",
        "~",
        "NOT LIKE",
    ]
)
_TEXTS = st.text(max_size=12) | st.sampled_from(
    ["%", "_", "%a%", "[", "[^a]", "*?", "\\", "(a+)+$", "^a|b", "\\1", "\x00"]
)
_VALUES = st.one_of(
    st.builds("'{}'".format, _TEXTS),
    st.builds('"{}"'.format, _TEXTS),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["1e999", "-1e999", "9" * 30, "9" * 5_000, ".5", "5.", "1e", "true", "null"]),
    st.builds("({})".format, st.lists(st.builds("'{}'".format, _TEXTS), max_size=3).map(", ".join)),
    st.just(""),
)
FILTERS = st.lists(st.builds("{} {} {}".format, _NAMES, _OPERATORS, _VALUES), min_size=1, max_size=4).map(" AND ".join)
ORDERS = st.lists(st.builds("{} {}".format, _NAMES, st.sampled_from(["", "ASC", "desc", "up"])), max_size=2)


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=(pytest.mark.postgres, pytest.mark.slow))]
)
def tracking(request: pytest.FixtureRequest) -> Iterator[Tracking]:
    """A plane with a run and a trace."""
    with tempfile.TemporaryDirectory() as directory:
        on_postgres = request.param == "postgresql"
        url = request.getfixturevalue("postgres").migrated() if on_postgres else f"sqlite:///{directory}/catalog.db"
        database = Database(url)
        catalogs.prepare(database)
        made = Tracking(database, LocalBlobs(Path(directory) / "blobs"))
        run = made.runs.create(SCOPE, CreateRun(name="one"))
        made.runs.log(SCOPE, run.id, [("a", 1.0, 0, 0)], {"a": "x"}, {"a": "a" * 2_000})
        made.traces.start(SCOPE, Trace(id="t", experiment_id="0", request_ms=1, tags={"a": "a" * 2_000}))
        span = Span(trace_id="0" * 32, id="0" * 16, name="a" * 50, start_ns=1, attributes={"a": "a" * 50, "a.b": [1]})
        made.spans.log(SCOPE, "0", {"t": [span]})
        yield made
        database.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filter=FILTERS, order_by=ORDERS)
def test_a_search_answers_or_says_why_not(tracking: Tracking, filter: str, order_by: list[str]) -> None:
    for search in (tracking.runs.search, tracking.traces.search):
        for orders in (order_by, []):
            try:
                assert len(search(SCOPE, ["0"], filter, orders).items) <= 1
            except InvalidInput:
                continue


@pytest.mark.parametrize("search", ["runs", "traces"])
def test_a_hundred_conditions_are_not_too_many(tracking: Tracking, search: str) -> None:
    find = getattr(tracking, search).search
    every = " AND ".join(f"tags.a LIKE '{'_' * length}%'" for length in range(100))
    assert len(find(SCOPE, ["0"], every).items) == 1
    with pytest.raises(InvalidInput):
        find(SCOPE, ["0"], f"{every} AND tags.a = 'x'")
    with pytest.raises(InvalidInput):
        find(SCOPE, ["0"], "", [f"tags.k{at}" for at in range(21)])
