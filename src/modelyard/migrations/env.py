"""Alembic's entry: it is given the open connection and migrates inside its transaction."""

from __future__ import annotations

from alembic import context

from modelyard.kernel.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
