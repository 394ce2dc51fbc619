"""`python tools/make_migration.py WHAT`: write the next migration: what the rooms declare and the chain lacks."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import alembic.command
import alembic.config

import modelyard.app  # noqa: F401  declares every room's tables
from modelyard import migrations
from modelyard.kernel.database import Database


def main(what: str) -> None:
    folder = Path(migrations.__file__).parent
    numbers = [int(file.name[:4]) for file in (folder / "versions").glob("[0-9]*.py")]
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{directory}/catalog.db")
        config = alembic.config.Config()
        config.set_main_option("script_location", str(folder))
        config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            if numbers:
                alembic.command.upgrade(config, "head")
            alembic.command.revision(config, what, autogenerate=True, rev_id=f"{max(numbers, default=0) + 1:04d}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
