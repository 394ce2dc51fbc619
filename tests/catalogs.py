"""Catalogs on SQLite that are ready at once: copies of one that was migrated, which takes half a second itself."""

from __future__ import annotations

import shutil
import tempfile
from functools import cache
from pathlib import Path

from modelyard.kernel.database import Database
from modelyard.migrations import migrate


@cache
def _migrated() -> Path:
    file = Path(tempfile.mkdtemp(prefix="modelyard-catalog-")) / "catalog.db"
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
