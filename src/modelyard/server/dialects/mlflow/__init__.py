"""MLflow's REST API over our planes. It translates, and decides nothing."""

from __future__ import annotations

from modelyard.server.dialects.mlflow import (
    about,
    artifacts,
    assessments,
    evaluation_datasets,
    experiments,
    graphql,
    issues,
    logged_models,
    logging,
    metrics,
    pages,
    registry,
    runs,
    scorers,
    traces,
    uploads,
    wire,
)

ROUTES = [
    *wire.telling(
        [
            *experiments.HANDLERS,
            *runs.HANDLERS,
            *logging.HANDLERS,
            *metrics.HANDLERS,
            *logged_models.HANDLERS,
            *artifacts.HANDLERS,
            *uploads.HANDLERS,
            *registry.HANDLERS,
            *traces.HANDLERS,
            *assessments.HANDLERS,
            *issues.HANDLERS,
            *scorers.HANDLERS,
            *evaluation_datasets.HANDLERS,
            *about.HANDLERS,
            *graphql.HANDLERS,
        ]
    ),
    *pages.ROUTES,
]
