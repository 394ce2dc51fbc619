"""segments by key range, sketches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


_KEY = sa.String(length=250).with_variant(sa.String(length=250, collation="C"), "postgresql")
_SETTLED = 99


def upgrade() -> None:
    """Apply. A segment of mixed keys keeps the widest range, which is true of any."""
    op.create_table(
        "metric_sketches",
        sa.Column("segment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("segment", name=op.f("pk_metric_sketches")),
    )
    with op.batch_alter_table("metric_segments") as batch_op:
        batch_op.add_column(sa.Column("first_key", _KEY, server_default="", nullable=False))
        batch_op.add_column(sa.Column("last_key", _KEY, server_default="\U0010ffff", nullable=False))
        batch_op.add_column(sa.Column("level", sa.SmallInteger(), server_default="0", nullable=False))
        batch_op.drop_index("metric_segments_by_run")
    segments = sa.table("metric_segments", *map(sa.column, ("key", "first_key", "last_key", "level")))
    op.execute(
        segments.update()
        .where(segments.c.key.is_not(None))
        .values(first_key=segments.c.key, last_key=segments.c.key, level=_SETTLED)
    )
    with op.batch_alter_table("metric_segments") as batch_op:
        batch_op.drop_column("key")
    op.create_index("metric_segments_by_run", "metric_segments", ["run", "first_key", "last_key", "level", "points"])


def downgrade() -> None:
    """Undo."""
    op.drop_index("metric_segments_by_run", "metric_segments")
    with op.batch_alter_table("metric_segments") as batch_op:
        batch_op.add_column(sa.Column("key", sa.String(length=250), nullable=True))
    segments = sa.table("metric_segments", *map(sa.column, ("key", "first_key", "level")))
    op.execute(segments.update().where(segments.c.level == _SETTLED).values(key=segments.c.first_key))
    with op.batch_alter_table("metric_segments") as batch_op:
        batch_op.drop_column("level")
        batch_op.drop_column("last_key")
        batch_op.drop_column("first_key")
    op.create_index("metric_segments_by_run", "metric_segments", ["run", "key"])
    op.drop_table("metric_sketches")
