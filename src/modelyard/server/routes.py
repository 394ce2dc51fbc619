"""Every room's routes. A room that is not listed here is not served."""

from __future__ import annotations

from typing import Any

from modelyard.planes.automation import routes as automation
from modelyard.planes.cost import routes as cost
from modelyard.planes.data import check_routes as checks
from modelyard.planes.data import file_routes as files
from modelyard.planes.data import routes as data
from modelyard.planes.features import routes as features
from modelyard.planes.jobs import routes as jobs
from modelyard.planes.monitoring import routes as monitoring
from modelyard.planes.pipelines import routes as pipelines
from modelyard.planes.registry import routes as registry
from modelyard.planes.serving import routes as serving
from modelyard.planes.storage import routes as storage
from modelyard.planes.tracking import routes as tracking
from modelyard.server.dialects import mlflow, otlp
from modelyard.ui import views

_PLANES = (
    tracking, data, checks, files, jobs, registry, features, pipelines, serving, monitoring, automation, cost, storage,
)  # fmt: skip


def all_routes() -> list[Any]:
    """The route handlers of all planes, dialects and pages."""
    return [handler for room in (*_PLANES, mlflow, otlp, views) for handler in room.ROUTES]
