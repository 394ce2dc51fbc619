"""The chain of migrations gives exactly the schema that the rooms declare, on both databases, from nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import alembic.autogenerate
import alembic.migration
import pytest
import sqlalchemy as sa

import modelyard.app  # noqa: F401  declares every room's tables
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict
from modelyard.kernel.schema import metadata
from modelyard.migrations import head, migrate


def test_the_migrated_schema_is_the_declared_one(database_url: str) -> None:
    database = Database(database_url)
    migrate(database)
    with database.engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(connection)
        missing = alembic.autogenerate.compare_metadata(context, metadata)
    database.close()
    assert missing == [], "write the migration: .venv/bin/python tools/make_migration.py 'what it does'"


def test_migrating_again_does_nothing(database_url: str) -> None:
    database = Database(database_url)
    migrate(database)
    migrate(database)
    with database.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [head()]
    database.close()


def test_a_catalog_of_a_newer_program_is_refused_with_advice(database_url: str) -> None:
    database = Database(database_url)
    migrate(database)
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Conflict, match="schema 9999") as caught:
        migrate(database)
    assert "update modelyard" in caught.value.hint
    database.close()


def test_a_catalog_without_a_revision_is_refused_with_advice(database_url: str) -> None:
    database = Database(database_url)
    metadata.create_all(database.engine)
    with pytest.raises(Conflict, match="before the first release") as caught:
        migrate(database)
    assert "--home" in caught.value.hint
    database.close()


@pytest.mark.slow
def test_programs_that_start_at_once_on_a_new_catalog_agree(tmp_path: Path) -> None:
    code = (
        "import sys, modelyard.app; from modelyard.kernel.database import Database; "
        "from modelyard.migrations import migrate; migrate(Database(sys.argv[1]))"
    )
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    command = [sys.executable, "-c", code, url]
    starters = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for starter in starters:
        _, errors = starter.communicate(timeout=120)
        assert starter.returncode == 0, errors[-2000:]
