"""Who asks, and what they may do. Every route names the action that it requires; what no route allows is denied.

Roles are per project, ordered: a higher one may all that a lower one may. Tokens are random, kept only as SHA-256
(they have 256 bits of entropy, so a slow hash would add nothing), and belong to a principal.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import Boolean, Column, Index, String, Table, select

from modelyard.kernel.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from modelyard.kernel.ids import new_id
from modelyard.kernel.schema import Instant, metadata

if TYPE_CHECKING:
    from modelyard.kernel.database import Transaction


class Action(StrEnum):
    """What a route requires of its caller, in the project of the request."""

    PUBLIC = "public"
    READ = "read"
    WRITE = "write"
    APPROVE = "approve"
    ADMIN = "admin"


class Role(StrEnum):
    """What a principal is in a project."""

    VIEWER = "viewer"
    CONTRIBUTOR = "contributor"
    APPROVER = "approver"
    ADMIN = "admin"


_ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.READ}),
    Role.CONTRIBUTOR: frozenset({Action.READ, Action.WRITE}),
    Role.APPROVER: frozenset({Action.READ, Action.WRITE, Action.APPROVE}),
    Role.ADMIN: frozenset({Action.READ, Action.WRITE, Action.APPROVE, Action.ADMIN}),
}
_RANK = {role: rank for rank, role in enumerate(Role)}
ALL_PROJECTS = "*"
TOKEN_PREFIX = "myd_"
_PROJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


class Principal(msgspec.Struct, frozen=True):
    """A person, a job (`job:<id>`), an automation (`automation:<trigger>`) or the platform itself (`system`).

    `roles` maps a project, or `*` for all of them, to the role there. `expires_at` is that of the token shown.
    """

    name: str
    roles: dict[str, Role] = {}
    expires_at: datetime | None = None

    def role_in(self, project: str) -> Role | None:
        """The role in a project; None where there is none."""
        here, everywhere = self.roles.get(project), self.roles.get(ALL_PROJECTS)
        if here is None or everywhere is None:
            return here or everywhere
        return max(here, everywhere, key=_RANK.__getitem__)

    def may(self, action: Action, project: str) -> bool:
        """Whether the action is allowed in the project."""
        if action is Action.PUBLIC:
            return True
        role = self.role_in(project)
        return role is not None and action in _ALLOWED[role]


ANONYMOUS = Principal("anonymous")
SYSTEM = Principal("system", {ALL_PROJECTS: Role.ADMIN})


class Scope(msgspec.Struct, frozen=True):
    """In which project, by whom."""

    project: str
    principal: Principal

    @property
    def actor(self) -> str:
        """The principal's name, as events and lineage record it."""
        return self.principal.name


def system_scope(project: str) -> Scope:
    """The platform acting by itself in a project."""
    return Scope(project, SYSTEM)


def check(principal: Principal, action: Action, project: str) -> None:
    """Raise Unauthenticated or Forbidden unless the principal may do the action in the project."""
    if principal.may(action, project):
        return
    if principal == ANONYMOUS:
        raise Unauthenticated(
            "this request carries no token",
            hint="send `Authorization: Bearer <token>`, or open the sign-in link that `modelyard up` prints",
        )
    role = principal.role_in(project)
    raise Forbidden(
        f"'{principal.name}' is {role.value if role else 'nobody'} in project '{project}', "
        f"which does not allow to {action.value}",
        hint="ask an admin of the project for a higher role",
    )


def check_project_name(name: str) -> str:
    """The name, if a project may be called so: lower-case letters, digits, `.`, `_` and `-`, at most 64."""
    if not _PROJECT_NAME.fullmatch(name):
        raise InvalidInput(
            f"'{name[:80]}' cannot name a project",
            code="project.name_invalid",
            hint="use at most 64 lower-case letters, digits, '.', '_' or '-'",
        )
    return name


principals = Table(
    "principals",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("created_at", Instant, nullable=False),
    Column("revoked", Boolean, nullable=False, default=False),
)
grants = Table(
    "grants",
    metadata,
    Column("principal", String(255), primary_key=True),
    Column("project", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("principal", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked", Boolean, nullable=False, default=False),
    Column("single_use", Boolean, nullable=False, default=False),
    Index("tokens_by_principal", "principal"),
)


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def grant(tx: Transaction, principal: str, project: str, role: Role) -> None:
    """Give a principal, made known if it is new, a role in a project (`*`: in all of them)."""
    if tx.one(select(principals).where(principals.c.name == principal)) is None:
        tx.execute(principals.insert().values(name=principal, created_at=tx.now, revoked=False))
    tx.execute(grants.delete().where(grants.c.principal == principal, grants.c.project == project))
    tx.execute(grants.insert().values(principal=principal, project=project, role=role.value))
    tx.event("principal.granted", f"principal:{principal}", {"project": project, "role": role.value})


def issue_token(
    tx: Transaction,
    principal_name: str,
    project: str,
    role: Role,
    ttl_s: float | None = None,
    *,
    single_use: bool = False,
) -> str:
    """A new token for a principal with a role in a project; returned once, kept only as a digest."""
    grant(tx, principal_name, project, role)
    return _new_token(tx, principal_name, ttl_s, single_use)


def adopt_token(tx: Transaction, principal_name: str, project: str, role: Role, token: str) -> None:
    """Make a token that was chosen elsewhere good for a principal; nothing changes where it is already."""
    if tx.one(select(tokens.c.id).where(tokens.c.digest == digest_of(token))) is None:
        grant(tx, principal_name, project, role)
        _keep_token(tx, principal_name, token, None, single_use=False)


def open_session(tx: Transaction, principal_name: str, ttl_s: float) -> str:
    """A new token for a principal that is known already, with the roles that it has."""
    return _new_token(tx, principal_name, ttl_s, single_use=False)


def _new_token(tx: Transaction, principal_name: str, ttl_s: float | None, single_use: bool) -> str:
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    _keep_token(tx, principal_name, token, ttl_s, single_use)
    return token


def _keep_token(tx: Transaction, principal_name: str, token: str, ttl_s: float | None, single_use: bool) -> None:
    token_id = new_id()
    tx.execute(
        tokens.insert().values(
            id=token_id,
            digest=digest_of(token),
            principal=principal_name,
            created_at=tx.now,
            expires_at=None if ttl_s is None else tx.now + timedelta(seconds=ttl_s),
            revoked=False,
            single_use=single_use,
        )
    )
    tx.event("token.issued", f"token:{token_id}", {"principal": principal_name, "ttl_s": ttl_s})


def authenticate(tx: Transaction, token: str, *, consume: bool = False) -> Principal:
    """The principal that a token stands for.

    Raises Unauthenticated for an unknown, expired, revoked or (unless it is being consumed) single-use token, in the
    same words for all, so that an answer tells nothing about a token.
    """
    digest = digest_of(token)
    row = tx.one(select(tokens).where(tokens.c.digest == digest))
    refused = Unauthenticated(
        "the token is not valid", hint="it may be mistyped, expired or revoked; ask for a new one"
    )
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise refused
    expired = row.expires_at is not None and row.expires_at <= tx.now
    if row.revoked or expired or row.single_use != consume:
        raise refused
    owner = tx.one(select(principals).where(principals.c.name == row.principal))
    if owner is None or owner.revoked:
        raise refused
    if consume:
        tx.update_guarded(
            tokens.update().where(tokens.c.id == row.id, tokens.c.revoked.is_(False)).values(revoked=True),
            what="the sign-in link",
        )
    return Principal(row.principal, roles_of(tx, row.principal), row.expires_at)


def roles_of(tx: Transaction, principal: str) -> dict[str, Role]:
    """A principal's roles by project."""
    rows = tx.all(select(grants.c.project, grants.c.role).where(grants.c.principal == principal))
    return {row.project: Role(row.role) for row in rows}


def principal_named(tx: Transaction, name: str) -> Principal:
    """A principal that was not revoked. Raises NotFound."""
    row = tx.one(select(principals).where(principals.c.name == name))
    if row is None or row.revoked:
        raise NotFound(f"there is no principal '{name}'", code="principal.not_found")
    return Principal(name, roles_of(tx, name))


def revoke_tokens(tx: Transaction, principal: str) -> int:
    """Revoke all tokens of a principal, as when its job has ended. Returns how many were still good."""
    result = tx.execute(
        tokens.update().where(tokens.c.principal == principal, tokens.c.revoked.is_(False)).values(revoked=True)
    )
    if result.rowcount:
        tx.event("token.revoked", f"principal:{principal}", {"tokens": result.rowcount})
    return int(result.rowcount)


def revoke_principal(tx: Transaction, name: str) -> None:
    """Shut a principal out: none of its tokens works from now on."""
    tx.update_guarded(
        principals.update().where(principals.c.name == name, principals.c.revoked.is_(False)).values(revoked=True),
        what=f"principal '{name}'",
    )
    revoke_tokens(tx, name)
    tx.event("principal.revoked", f"principal:{name}", {})
