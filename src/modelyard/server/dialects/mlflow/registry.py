"""MLflow's model registry: registered models, versions, aliases, tags, stages and webhooks."""

from __future__ import annotations

from modelyard.server.dialects.mlflow import registry_models, registry_versions, registry_webhooks

HANDLERS = [*registry_models.HANDLERS, *registry_versions.HANDLERS, *registry_webhooks.HANDLERS]
