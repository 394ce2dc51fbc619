"""Roles, tokens and their ends."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from modelyard.kernel import auth
from modelyard.kernel.auth import Action, Principal, Role, Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Forbidden, InvalidInput, Unauthenticated

ALLOWED = {
    Role.VIEWER: {Action.PUBLIC, Action.READ},
    Role.CONTRIBUTOR: {Action.PUBLIC, Action.READ, Action.WRITE},
    Role.APPROVER: {Action.PUBLIC, Action.READ, Action.WRITE, Action.APPROVE},
    Role.ADMIN: set(Action),
}


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("action", list(Action))
def test_the_matrix_of_roles(role: Role, action: Action) -> None:
    principal = Principal("ada", {"here": role})
    assert principal.may(action, "here") == (action in ALLOWED[role])
    assert principal.may(action, "elsewhere") == (action is Action.PUBLIC)


def test_nobody_is_told_to_sign_in_and_somebody_what_is_missing() -> None:
    with pytest.raises(Unauthenticated):
        auth.check(auth.ANONYMOUS, Action.READ, "here")
    with pytest.raises(Forbidden, match="viewer"):
        auth.check(Principal("ada", {"*": Role.VIEWER}), Action.WRITE, "here")


def issue(database: Database, **options: object) -> str:
    with database.transaction(system_scope("here")) as tx:
        return auth.issue_token(tx, "ada", "here", Role.CONTRIBUTOR, **options)  # type: ignore[arg-type]


def who(database: Database, token: str) -> Principal:
    with database.reading() as tx:
        return auth.authenticate(tx, token)


def test_a_token_is_its_principal_and_kept_only_as_a_digest(database: Database) -> None:
    token = issue(database)
    assert who(database, token).roles == {"here": Role.CONTRIBUTOR}
    with database.reading() as tx:
        kept = "".join(str(row) for row in tx.all(sa.select(auth.tokens)))
    assert token not in kept


@pytest.mark.parametrize("change", ["truncate", "expire", "revoke", "shut out", "none"])
def test_a_bad_token_is_refused_in_the_same_words(database: Database, clock: FixedClock, change: str) -> None:
    token = issue(database, ttl_s=60)
    if change == "truncate":
        token = token[:-1]
    elif change == "expire":
        clock.advance(61)
    elif change == "none":
        token = "alg=none"
    else:
        with database.transaction(system_scope("here")) as tx:
            auth.revoke_tokens(tx, "ada") if change == "revoke" else auth.revoke_principal(tx, "ada")
    with pytest.raises(Unauthenticated, match="the token is not valid"):
        who(database, token)


def test_a_sign_in_token_works_once_and_only_for_signing_in(database: Database) -> None:
    token = issue(database, single_use=True)
    with pytest.raises(Unauthenticated):
        who(database, token)
    with database.transaction(system_scope("here")) as tx:
        assert auth.authenticate(tx, token, consume=True).name == "ada"
    with pytest.raises(Unauthenticated), database.transaction(system_scope("here")) as tx:
        auth.authenticate(tx, token, consume=True)


def test_a_chosen_token_is_adopted_once(database: Database) -> None:
    for _ in range(2):
        with database.transaction(system_scope("*")) as tx:
            auth.adopt_token(tx, "admin", "*", Role.ADMIN, "x" * 40)
    assert who(database, "x" * 40).may(Action.ADMIN, "anywhere")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a" * 65, "-a", "a b", "é"])
def test_names_that_no_project_may_have(name: str) -> None:
    with pytest.raises(InvalidInput):
        auth.check_project_name(name)


def test_a_scope_names_its_actor() -> None:
    assert Scope("here", Principal("ada")).actor == "ada"
