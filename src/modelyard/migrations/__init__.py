"""Schema migrations (Alembic), one chain for the whole catalog."""

from __future__ import annotations

from modelyard.kernel.database import Database
from modelyard.kernel.schema import metadata

__all__ = ["migrate"]


def migrate(database: Database) -> None:
    """Bring the catalog to this version's schema. Does nothing, cheaply, where it is there already."""
    metadata.create_all(database.engine)
