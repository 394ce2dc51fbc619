"""Schema migrations (Alembic), one chain for the whole catalog: every room's tables move together.

A revision's file is `versions/NNNN_<what>.py` with `revision = "NNNN"`. The newest number is known from the file names
alone, so that a catalog that is up to date costs one query and no import of Alembic.
"""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict

__all__ = ["head", "migrate"]

_VERSIONS = Path(__file__).parent / "versions"
_current = sa.table("alembic_version", sa.column("version_num"))


def head() -> str:
    """The newest revision that this program knows."""
    return max(found[1] for file in _VERSIONS.iterdir() if (found := re.match(r"(\d{4})_\w+\.py$", file.name)))


def migrate(database: Database) -> None:
    """Bring the catalog to this program's schema, in one transaction; a kill in the middle leaves the old schema.

    Raises Conflict (`catalog.too_new`) where a newer program has written the catalog.
    """
    found, wanted = _revision_of(database), head()
    if found == wanted:
        return
    if found is not None and found > wanted:
        raise Conflict(
            f"the catalog has schema {found}, this program knows {wanted} at most",
            code="catalog.too_new",
            hint="update modelyard, or restore the backup that was made before the update",
        )
    _upgrade(database)


def _revision_of(database: Database) -> str | None:
    with database.engine.connect() as connection:
        inspector = sa.inspect(connection)
        if not inspector.has_table("alembic_version"):
            if inspector.has_table("events"):
                raise Conflict(
                    "the catalog was made before the first release and cannot be migrated",
                    code="catalog.too_old",
                    hint="choose another home with `--home` or MODELYARD_HOME, or move the old one away",
                )
            return None
        return connection.execute(sa.select(_current.c.version_num)).scalar()


def _upgrade(database: Database) -> None:
    import alembic.command
    import alembic.config

    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with database.engine.begin() as connection:
        # Two programs may start on one new catalog: the second waits here, and then finds nothing to do.
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(7461726421)"))
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
