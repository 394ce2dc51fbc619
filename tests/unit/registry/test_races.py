"""Promotions, rollbacks, drops and unsettings at once end in a state that some order of them explains."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from modelyard.kernel import events
from modelyard.kernel.auth import Role, Scope
from modelyard.kernel.errors import Conflict, NotFound
from modelyard.planes.registry.history import step_back
from modelyard.types.registry import AliasMove, Policy

from .conftest import House

THREADS = 16
VERSIONS = 6
ACTS_EACH = 3


def explained(moves: list[AliasMove], gone: dict[int, str]) -> None:
    """Follow the record step by step, as a model of one alias would: each step must be legal where it stands."""
    at: int | None = None
    for place, move in enumerate(moves):
        usable = {n for n in range(1, VERSIONS + 1) if n not in gone or gone[n] > move.id}
        assert move.previous == at, f"step {place} starts from {move.previous}, the alias was at {at}"
        if move.kind == "promote":
            assert move.version in usable, f"version {move.version} had been dropped"
            assert move.version != at
        elif move.kind == "rollback":
            assert move.version == step_back(moves[:place], usable)
        else:
            assert move.version is None
            assert at is not None
        at = move.version


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_any_mixture_of_acts_is_explained_by_its_record(house: House, ann: Scope, guarded: bool, seed: int) -> None:
    for _ in range(VERSIONS):
        house.version(ann)
    if guarded:
        house.registry.models.set_policy(ann, "delay", Policy(signature=True))
    root = house.scope("root", Role.ADMIN)
    registry = house.registry
    done: list[tuple[str, int]] = []
    refused: list[str] = []
    start = threading.Barrier(THREADS)
    verbs: dict[str, Callable[[int], object]] = {
        "promote": lambda version: registry.promote(ann, "delay", version, "champion", "race"),
        "rollback": lambda _: registry.rollback(root, "delay", "champion", "race"),
        "drop": lambda version: registry.drop(root, "delay", version, "race"),
        "unset": lambda _: registry.promotions.unset(root, "delay", "champion", "race"),
    }

    def act(choice: random.Random) -> None:
        start.wait()
        for _ in range(ACTS_EACH):
            name = choice.choice(["promote", "promote", "rollback", "drop", "unset"])
            version = choice.randint(1, VERSIONS)
            try:
                verbs[name](version)
                done.append((name, version))
            except (Conflict, NotFound) as error:
                refused.append(error.code)

    threads = [threading.Thread(target=act, args=(random.Random(seed * 1000 + n),)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) + len(refused) == THREADS * ACTS_EACH, "nothing ended in an error that is no answer"
    assert set(refused) <= {"stale", "version.in_use", "version.not_found", "alias.no_earlier"}
    with house.database.reading(ann) as tx:
        said = events.recent(tx, kinds=frozenset({"model.version_dropped"}), limit=100)
    gone = {int(event.data["version"]): event.id for event in said}
    assert len(said) == len(gone) == sum(name == "drop" for name, _ in done), "each drop once"
    moves = registry.history(ann, "delay", "champion")
    explained(moves, gone)
    aliases = registry.models.get(ann, "delay").aliases
    assert aliases.get("champion") == (moves[-1].version if moves else None)
    live = {one.version for one in registry.versions.list(ann, "delay")}
    assert live == set(range(1, VERSIONS + 1)) - gone.keys()
    assert set(aliases.values()) <= live, "no alias points to what was dropped"
