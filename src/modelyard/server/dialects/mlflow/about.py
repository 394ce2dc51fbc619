"""What MLflow's clients ask about the server itself."""

from __future__ import annotations

from litestar import Response

from modelyard.kernel.auth import Action
from modelyard.kernel.routing import get
from modelyard.server.dialects.mlflow import wire
from modelyard.server.dialects.mlflow.wire import endpoint

SPOKEN_VERSION = "3.12.0"
"""The release of MLflow whose REST API is spoken here."""


@get(endpoint("/server-info", "3.0"), requires=Action.READ)
def server_info() -> Response[bytes]:
    return wire.reply({"store_type": "SqlStore", "workspaces_enabled": False})


@get("/version", requires=Action.PUBLIC)
def version() -> Response[bytes]:
    return Response(SPOKEN_VERSION.encode(), media_type="text/plain")


@get("/health", requires=Action.PUBLIC)
def health() -> Response[bytes]:
    return Response(b"OK", media_type="text/plain")


HANDLERS = [server_info, version, health]
