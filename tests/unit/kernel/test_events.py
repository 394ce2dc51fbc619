"""The event log: sealed in one gap-free order, altered or removed rows show, readers miss nothing."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from modelyard.kernel import events
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import TooLarge
from modelyard.kernel.event import Verdict
from modelyard.kernel.limits import EVENT_DATA_BYTES_MAX


def say(database: Database, scope: Scope, *kinds: str) -> None:
    for kind in kinds:
        with database.transaction(scope) as tx:
            tx.event(kind, f"run:{kind}", {"n": len(kind)})


def seal(database: Database, scope: Scope) -> int:
    with database.transaction(scope) as tx:
        return events.seal(tx)


def verify(database: Database) -> Verdict:
    with database.reading() as tx:
        return events.verify(tx)


def test_sealing_gives_a_gap_free_order(database: Database, scope: Scope) -> None:
    say(database, scope, "a", "b")
    assert seal(database, scope) == 2
    say(database, scope, "c")
    assert seal(database, scope) == 1
    assert seal(database, scope) == 0
    with database.reading() as tx:
        assert [(e.seq, e.kind) for e in events.after(tx, 0)] == [(1, "a"), (2, "b"), (3, "c")]
        assert [e.kind for e in events.after(tx, 1, frozenset({"c"}))] == ["c"]
    assert verify(database).ok


@pytest.mark.parametrize(
    ("change", "place", "word"),
    [
        (events.events.update().where(events.events.c.kind == "b").values(actor="mallory"), 2, "altered"),
        (events.events.update().where(events.events.c.kind == "b").values(data='{"n":2}'), 2, "altered"),
        (events.events.delete().where(events.events.c.kind == "b"), 2, "missing"),
        (events.events.delete().where(events.events.c.kind == "c"), 3, "missing"),
        (events.events.delete(), 1, "missing"),
    ],
)
def test_what_is_changed_or_removed_shows(
    database: Database, scope: Scope, change: sa.Executable, place: int, word: str
) -> None:
    say(database, scope, "a", "b", "c")
    seal(database, scope)
    with database.transaction(scope) as tx:
        tx.execute(change)
    verdict = verify(database)
    assert not verdict.ok
    assert verdict.broken_at == place
    assert word in verdict.reason


def test_a_listing_is_of_one_project_and_continues(database: Database, scope: Scope) -> None:
    say(database, scope, "a", "b", "c")
    other = Scope("other", scope.principal)
    say(database, other, "z")
    with database.reading(scope) as tx:
        first = events.recent(tx, limit=2)
        rest = events.recent(tx, limit=2, before_id=first[-1].id)
        assert [e.kind for e in first + rest] == ["c", "b", "a"]
        assert [e.kind for e in events.recent(tx, subject="run:b")] == ["b"]


def test_data_over_the_limit_is_refused_whole(database: Database, scope: Scope) -> None:
    with pytest.raises(TooLarge, match="at most"), database.transaction(scope) as tx:
        tx.event("a", "run:a", {"x": "y" * EVENT_DATA_BYTES_MAX})
    with database.reading(scope) as tx:
        assert events.count(tx) == 0


def test_a_cursor_never_goes_back(database: Database, scope: Scope) -> None:
    with database.transaction(scope) as tx:
        events.move_cursor(tx, "reader", 5)
        events.move_cursor(tx, "reader", 3)
        assert events.cursor_of(tx, "reader") == 5
