"""MLflow's model registry: registered models, versions, aliases, tags and stages."""

from __future__ import annotations

from modelyard.server.dialects.mlflow import registry_models, registry_versions

HANDLERS = [*registry_models.HANDLERS, *registry_versions.HANDLERS]
