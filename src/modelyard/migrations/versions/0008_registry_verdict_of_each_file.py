"""registry: verdict of each file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    with op.batch_alter_table("registry_version_files", schema=None) as batch_op:
        batch_op.add_column(sa.Column("format", sa.String(length=32), server_default="", nullable=False))
        batch_op.add_column(sa.Column("safety", sa.String(length=16), server_default="", nullable=False))
        batch_op.add_column(sa.Column("reason", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("registry_version_files", schema=None) as batch_op:
        batch_op.drop_column("reason")
        batch_op.drop_column("safety")
        batch_op.drop_column("format")
