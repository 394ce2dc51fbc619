"""Signing in: the page that exchanges a one-time link for a session. The exchange itself is the server's."""

from __future__ import annotations

from typing import Any

from litestar import Response

from modelyard.kernel.auth import Action
from modelyard.kernel.routing import get
from modelyard.ui.render import render_alone


@get("/sign-in", requires=Action.PUBLIC)
def sign_in(next: str = "/") -> Response[bytes]:
    """The page; `static/signin.js` takes the token out of the address and sends it."""
    # Only a path of this server: `//host` and `/\\host` would lead a browser elsewhere.
    local = next if next.startswith("/") and not next.startswith(("//", "/\\")) else "/"
    body = render_alone("signin.html", title="Sign in", next=local).encode()
    return Response(body, media_type="text/html", headers={"Cache-Control": "no-store"})


ROUTES: list[Any] = [sign_in]
