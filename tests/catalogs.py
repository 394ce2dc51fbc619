"""Catalogs that are ready at once: copies of one that was migrated, which takes half a second itself."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from functools import cache, cached_property
from pathlib import Path

import sqlalchemy as sa

from modelyard.kernel.database import Database
from modelyard.migrations import migrate

MEMORY_BYTES_MIN = 2 * 2**30
# For surviving a loss of power, which no test of ours asks of PostgreSQL: its files are gone with the tests.
_WAITS_FOR_THE_DISK = ("fsync", "synchronous_commit", "full_page_writes")


@cache
def _migrated() -> Path:
    directory = tempfile.mkdtemp(prefix="modelyard-catalog-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    file = Path(directory) / "catalog.db"
    database = Database(f"sqlite:///{file}")
    migrate(database)
    # The last connection that closes takes the write-ahead log into the file.
    database.close()
    return file


def prepare(database: Database) -> None:
    """What `migrate` does to a catalog; to a new one on SQLite by copying."""
    url = database.engine.url
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).stat().st_size:
        shutil.copyfile(_migrated(), url.database)
    migrate(database)


def place() -> str | None:
    """Where a PostgreSQL server may lie: in memory, where there is enough; None for the usual place."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES_MIN else None


class Postgres:
    """The databases of a PostgreSQL server that only tests use; no two of them share one."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)
        self._engine = sa.create_engine(self._url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
        for name in _WAITS_FOR_THE_DISK:
            self._execute(f"ALTER SYSTEM SET {name} = off")
        self._execute("SELECT pg_reload_conf()")

    def empty(self) -> str:
        """The URL of a new database with nothing in it."""
        return self._create("")

    def migrated(self) -> str:
        """The URL of a new database with all tables."""
        return self._create(f" TEMPLATE {sa.make_url(self._template).database} STRATEGY FILE_COPY")

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected: hundreds of them would fill gigabytes."""
        self._execute(f"DROP DATABASE {sa.make_url(url).database} WITH (FORCE)")

    @cached_property
    def _template(self) -> str:
        url = self.empty()
        database = Database(url)
        migrate(database)
        database.close()
        return url

    def _create(self, like: str) -> str:
        name = f"t{uuid.uuid4().hex}"
        self._execute(f"CREATE DATABASE {name}{like}")
        return self._url.set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        with self._engine.connect() as connection:
            connection.execute(sa.text(statement))

    def close(self) -> None:
        self._engine.dispose()
