"""The app inside this process: the one place where the SDK loads the server, and only where no server runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from modelyard.app import compose
from modelyard.kernel.settings import Settings
from modelyard.server.app import create_app
from modelyard.server.run import Server, serve_in_thread

if TYPE_CHECKING:
    import httpx


def embedded_transport(settings: Settings) -> httpx.BaseTransport:
    """A transport into the app over the home directory of `settings`."""
    from modelyard.sdk.asgi import AsgiTransport  # loads httpx, which a server that comes up does not need

    return AsgiTransport(create_app(compose(settings), embedded=True))


@contextmanager
def serving_here(settings: Settings) -> Iterator[str]:
    """A real server on a loopback port for as long as the block runs, with its loop: for work that starts processes."""
    server = serve_in_thread(settings)
    try:
        yield server.url
    finally:
        server.stop()


def serve(settings: Settings, announce: Callable[[Server], None]) -> None:
    """Serve over the home directory until told to end; `announce` is called once requests are answered."""
    server = Server(settings)
    server.run(lambda: announce(server))
