"""What the kernel's own routes send and receive."""

from __future__ import annotations

import msgspec


class Health(msgspec.Struct, frozen=True):
    """`status` is `ok`; `events` is the last place in the sealed order."""

    status: str
    events: int


class Me(msgspec.Struct, frozen=True):
    """Who asks, in which project, with which role there."""

    principal: str
    project: str
    role: str


class SignIn(msgspec.Struct, frozen=True):
    """The one-time token of a sign-in link."""

    token: str


class IssueToken(msgspec.Struct, frozen=True):
    """For whom a token is asked for. `ttl_s`: seconds until it expires; null: never."""

    principal: str
    role: str
    ttl_s: float | None = None


class IssuedToken(msgspec.Struct, frozen=True):
    """A token, shown this once."""

    principal: str
    role: str
    token: str
