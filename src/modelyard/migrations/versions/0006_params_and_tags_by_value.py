"""params and tags by value."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    for table in ("params", "run_tags"):
        op.create_index(f"{table}_by_value", table, ["project", "key", sa.text("substr(value, 1, 64)"), "run"])


def downgrade() -> None:
    """Undo."""
    for table in ("params", "run_tags"):
        op.drop_index(f"{table}_by_value", table)
