"""Routes over the kernel itself: health, who am I, sign-in, tokens, events, audit, lineage."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response
from litestar.datastructures import Cookie
from litestar.params import Parameter

from modelyard.kernel import auth, events, lineage
from modelyard.kernel.auth import Action, Role, Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.event import Event, Verdict
from modelyard.kernel.limits import PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX
from modelyard.kernel.routing import delete, get, post
from modelyard.server.gate import COOKIE
from modelyard.types.kernel import Health, IssuedToken, IssueToken, Me, SignIn
from modelyard.types.page import Page

SESSION_TTL_S = 30 * 24 * 3600.0


@get("/api/health", requires=Action.PUBLIC)
def get_health(database: Database) -> Health:
    """Whether the server and its catalog answer."""
    with database.reading() as tx:
        return Health(status="ok", events=events.head_seq(tx))


@get("/api/me", requires=Action.READ)
def get_me(caller: Scope) -> Me:
    """Who the token stands for, and in which project."""
    role = caller.principal.role_in(caller.project)
    return Me(caller.actor, caller.project, role.value if role else "")


@post("/api/sign-in", requires=Action.PUBLIC)
def sign_in(database: Database, data: SignIn) -> Response[Me]:
    """Exchange a one-time sign-in token for a session cookie."""
    with database.transaction(auth.system_scope("*")) as tx:
        principal = auth.authenticate(tx, data.token, consume=True)
        session = auth.open_session(tx, principal.name, SESSION_TTL_S)
    cookie = Cookie(key=COOKIE, value=session, path="/", httponly=True, samesite="strict", max_age=int(SESSION_TTL_S))
    return Response(Me(principal.name, "", ""), cookies=[cookie])


@post("/api/sign-out", requires=Action.READ)
def sign_out() -> Response[dict[str, str]]:
    """Forget the session cookie."""
    cookie = Cookie(key=COOKIE, value="", path="/", httponly=True, samesite="strict", max_age=0)
    return Response({"status": "signed out"}, cookies=[cookie])


@post("/api/tokens", requires=Action.ADMIN, status_code=201)
def create_token(caller: Scope, database: Database, data: IssueToken) -> IssuedToken:
    """A new token for a principal in the project of the request, shown this once."""
    if data.principal.startswith(("job:", "automation:", "system")):
        raise InvalidInput(
            f"'{data.principal}' is a name that the platform keeps for itself", code="principal.name_reserved"
        )
    try:
        role = Role(data.role)
    except ValueError as error:
        raise InvalidInput(
            f"'{data.role}' is no role", code="role.unknown", hint=f"use one of {', '.join(Role)}"
        ) from error
    with database.transaction(caller) as tx:
        token = auth.issue_token(tx, data.principal, caller.project, role, data.ttl_s)
    return IssuedToken(data.principal, role.value, token)


@delete("/api/principals/{name:str}", requires=Action.ADMIN)
def revoke_principal(caller: Scope, database: Database, name: str) -> dict[str, str]:
    """Shut a principal out, with all of its tokens. Only who is admin of all projects may."""
    auth.check(caller.principal, Action.ADMIN, auth.ALL_PROJECTS)
    with database.transaction(caller) as tx:
        auth.revoke_principal(tx, name)
    return {"status": "revoked"}


@get("/api/events", requires=Action.READ)
def list_events(
    caller: Scope,
    database: Database,
    subject: str | None = None,
    kind: str | None = None,
    after: str | None = None,
    limit: Annotated[int, Parameter(ge=1, le=PAGE_ITEMS_MAX)] = PAGE_ITEMS_DEFAULT,
) -> Page[Event]:
    """What happened in the project, newest first."""
    kinds = frozenset(kind.split(",")) if kind else None
    with database.reading(caller) as tx:
        found = events.recent(tx, subject=subject, kinds=kinds, before_id=after, limit=limit)
    return Page(found, found[-1].id if len(found) == limit else None)


@get("/api/audit", requires=Action.READ)
def verify_audit(database: Database) -> Verdict:
    """Seal what is not sealed yet, and recompute the hash chain over the whole log."""
    system = auth.system_scope("*")
    with database.transaction(system) as tx:
        while events.seal(tx):
            pass
    with database.reading(system) as tx:
        return events.verify(tx)


@get("/api/lineage", requires=Action.READ)
def get_lineage(
    caller: Scope,
    database: Database,
    newest: lineage.Newest,
    urn: str,
    direction: lineage.Direction = "up",
    depth: int = 64,
) -> lineage.Graph:
    """What led to a URN (`up`), what came of it (`down`), or both. A dataset, a model or a feature view without a
    version stands for its newest, which is the `root` then."""
    root = newest.resolve(caller, urn)
    with database.reading(caller) as tx:
        return lineage.walk(tx, root, direction, depth)


ROUTES: list[Any] = [
    get_health, get_me, sign_in, sign_out, create_token, revoke_principal, list_events, verify_audit, get_lineage,
]  # fmt: skip
