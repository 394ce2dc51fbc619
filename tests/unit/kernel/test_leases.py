"""Leases: one holder, tokens that grow, and a late holder whose work is thrown away."""

from __future__ import annotations

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.leases import Lease, StaleLease, release_lease, take_lease


def take(database: Database, scope: Scope, owner: str, ttl_s: float = 10) -> Lease | None:
    with database.transaction(scope) as tx:
        return take_lease(tx.connection, "job:1", owner, tx.now, ttl_s)


def test_one_holder_at_a_time(database: Database, scope: Scope, clock: FixedClock) -> None:
    first = take(database, scope, "a")
    assert first is not None
    assert take(database, scope, "b") is None
    clock.advance(11)
    second = take(database, scope, "b")
    assert second is not None
    assert second.token > first.token


def test_renewing_keeps_the_token(database: Database, scope: Scope, clock: FixedClock) -> None:
    first = take(database, scope, "a")
    clock.advance(5)
    again = take(database, scope, "a")
    assert first is not None
    assert again is not None
    assert again.token == first.token
    assert again.expires_at > first.expires_at


def test_a_late_holder_cannot_commit(database: Database, scope: Scope, clock: FixedClock) -> None:
    late = take(database, scope, "a")
    clock.advance(11)
    take(database, scope, "b")
    with pytest.raises(StaleLease), database.transaction(scope, lease=late) as tx:
        tx.event("x", "job:1")
    with database.transaction(scope) as tx:
        from modelyard.kernel import events

        assert events.count(tx) == 0


def test_a_released_lease_is_free_and_its_token_still_grows(database: Database, scope: Scope) -> None:
    first = take(database, scope, "a")
    assert first is not None
    with database.transaction(scope) as tx:
        release_lease(tx.connection, first)
    second = take(database, scope, "b")
    assert second is not None
    assert second.token > first.token
