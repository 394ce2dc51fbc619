"""statements, signatures, retention and what moves rest on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import modelyard.kernel.schema

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "registry_attestations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("version_digest", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("value", sa.String(length=255), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("at", modelyard.kernel.schema.Instant(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["registry_models.id"], name=op.f("fk_registry_attestations_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_attestations")),
    )
    with op.batch_alter_table("registry_attestations", schema=None) as batch_op:
        batch_op.create_index("registry_attestations_by_version", ["model_id", "version", "id"], unique=False)

    op.create_table(
        "registry_signatures",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model_id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("version_digest", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("at", modelyard.kernel.schema.Instant(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["registry_models.id"], name=op.f("fk_registry_signatures_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registry_signatures")),
    )
    with op.batch_alter_table("registry_signatures", schema=None) as batch_op:
        batch_op.create_index("registry_signatures_by_version", ["model_id", "version", "id"], unique=False)

    with op.batch_alter_table("registry_alias_moves", schema=None) as batch_op:
        batch_op.add_column(sa.Column("gates", modelyard.kernel.schema.Json(), nullable=True))
        batch_op.add_column(sa.Column("approved_by", modelyard.kernel.schema.Json(), nullable=True))

    with op.batch_alter_table("registry_models", schema=None) as batch_op:
        batch_op.add_column(sa.Column("retention", modelyard.kernel.schema.Json(), nullable=True))
        batch_op.add_column(sa.Column("retention_due_at", modelyard.kernel.schema.Instant(), nullable=True))
        batch_op.create_index("registry_models_retention_due", ["retention_due_at"], unique=False)

    with op.batch_alter_table("registry_versions", schema=None) as batch_op:
        batch_op.add_column(sa.Column("purged_at", modelyard.kernel.schema.Instant(), nullable=True))
        batch_op.add_column(sa.Column("license", sa.String(length=255), server_default="", nullable=False))
        batch_op.add_column(sa.Column("input_example", sa.String(length=1024), server_default="", nullable=False))


def downgrade() -> None:
    """Undo."""
    with op.batch_alter_table("registry_versions", schema=None) as batch_op:
        batch_op.drop_column("input_example")
        batch_op.drop_column("license")
        batch_op.drop_column("purged_at")

    with op.batch_alter_table("registry_models", schema=None) as batch_op:
        batch_op.drop_index("registry_models_retention_due")
        batch_op.drop_column("retention_due_at")
        batch_op.drop_column("retention")

    with op.batch_alter_table("registry_alias_moves", schema=None) as batch_op:
        batch_op.drop_column("approved_by")
        batch_op.drop_column("gates")

    with op.batch_alter_table("registry_signatures", schema=None) as batch_op:
        batch_op.drop_index("registry_signatures_by_version")

    op.drop_table("registry_signatures")
    with op.batch_alter_table("registry_attestations", schema=None) as batch_op:
        batch_op.drop_index("registry_attestations_by_version")

    op.drop_table("registry_attestations")
