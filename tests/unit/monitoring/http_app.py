"""Some planes' routes behind the real gate, in this process: what an embedded client talks to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import Litestar
from litestar.di import Provide

from modelyard.kernel.database import Database
from modelyard.sdk.asgi import AsgiTransport
from modelyard.sdk.client import EMBEDDED_URL, Client
from modelyard.server.app import LOCAL, LOOPBACK, _caller, enforce
from modelyard.server.gate import Gate
from modelyard.server.problems import HANDLERS


def client_over(database: Database, routes: Sequence[Any], **planes: Any) -> Client:
    """A client of these routes, over these planes."""

    def provide(value: Any) -> Provide:
        return Provide(lambda: value, use_cache=True, sync_to_thread=False)

    app = Litestar(
        route_handlers=list(routes),
        guards=[enforce],
        dependencies={
            **{name: provide(plane) for name, plane in planes.items()},
            "caller": Provide(_caller, sync_to_thread=False),
        },
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
    )
    gate = Gate(app, database, frozenset(LOOPBACK), embedded=LOCAL)
    return Client(EMBEDDED_URL, transport=AsgiTransport(gate))
