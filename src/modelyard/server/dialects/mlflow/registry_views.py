"""Models and versions as MLflow's clients know them."""

from __future__ import annotations

from typing import Any

from modelyard.server.dialects.mlflow import wire
from modelyard.types.registry import Model, ModelVersion


def model_view(model: Model) -> dict[str, Any]:
    """A registered model. What is empty is left out, as protobuf leaves it out."""
    view: dict[str, Any] = {
        "name": model.name,
        "creation_timestamp": wire.ms(model.created_at),
        "last_updated_timestamp": wire.ms(model.updated_at),
    }
    if model.description:
        view["description"] = model.description
    if model.latest:
        view["latest_versions"] = [version_view(version, with_aliases=False) for version in model.latest]
    if model.tags:
        view["tags"] = wire.pairs(model.tags)
    if model.aliases:
        view["aliases"] = [{"alias": alias, "version": str(number)} for alias, number in model.aliases.items()]
    return view


def version_view(version: ModelVersion, *, with_aliases: bool = True) -> dict[str, Any]:
    """A version of a registered model."""
    view: dict[str, Any] = {
        "name": version.model,
        "version": str(version.version),
        "creation_timestamp": wire.ms(version.created_at),
        "last_updated_timestamp": wire.ms(version.updated_at),
        "user_id": version.created_by,
        "current_stage": version.stage,
        "description": version.description,
        "source": version.source,
        "run_id": version.provenance.run,
        "status": "READY",
    }
    if version.tags:
        view["tags"] = wire.pairs(version.tags)
    if version.run_link:
        view["run_link"] = version.run_link
    if with_aliases and version.aliases:
        view["aliases"] = version.aliases
    if version.provenance.logged_model:
        view["model_id"] = version.provenance.logged_model
    return view
