"""Walks of the lineage graph: causes up, effects down, cycles end, projects do not mix."""

from __future__ import annotations

import pytest

from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput

STORY = [
    ("job:1", "used", "dataset:flights@3"),
    ("job:1", "used", "code:abc"),
    ("job:1", "produced", "run:r"),
    ("run:r", "produced", "model:delay@1"),
    ("endpoint:delay", "serves", "model:delay@1"),
    ("alert:x", "triggered", "pipeline-run:2"),
]


@pytest.fixture
def told(database: Database, scope: Scope) -> Database:
    with database.transaction(scope) as tx:
        for edge in STORY:
            tx.link(*edge)
    return database


def sentences(graph: lineage.Graph) -> set[tuple[str, str, str]]:
    return {(e.subject, e.relation, e.object) for e in graph.edges}


def test_up_finds_all_causes(told: Database, scope: Scope) -> None:
    with told.reading(scope) as tx:
        graph = lineage.walk(tx, "endpoint:delay", "up")
    assert sentences(graph) == set(STORY[:5])
    assert graph.nodes == sorted({"endpoint:delay", "model:delay@1", "run:r", "job:1", "dataset:flights@3", "code:abc"})


def test_down_finds_all_effects(told: Database, scope: Scope) -> None:
    with told.reading(scope) as tx:
        assert sentences(lineage.walk(tx, "dataset:flights@3", "down")) == {STORY[0], *STORY[2:5]}
        assert sentences(lineage.walk(tx, "alert:x", "down")) == {STORY[5]}


def test_depth_bounds_a_walk(told: Database, scope: Scope) -> None:
    with told.reading(scope) as tx:
        assert sentences(lineage.walk(tx, "endpoint:delay", "up", depth=2)) == {STORY[4], STORY[3]}


def test_a_cycle_ends(told: Database, scope: Scope) -> None:
    with told.transaction(scope) as tx:
        tx.link("dataset:flights@3", "derived", "model:delay@1")
    with told.reading(scope) as tx:
        assert len(lineage.walk(tx, "run:r", "both").edges) == 6


def test_the_same_tie_twice_is_one(told: Database, scope: Scope) -> None:
    with told.transaction(scope) as tx:
        tx.link(*STORY[0])
    with told.reading(scope) as tx:
        assert len(lineage.neighbours(tx, "dataset:flights@3")) == 1


def test_projects_do_not_mix(told: Database, scope: Scope) -> None:
    with told.reading(Scope("other", scope.principal)) as tx:
        assert lineage.walk(tx, "endpoint:delay", "both").edges == []


def test_an_unknown_relation_is_refused(database: Database, scope: Scope) -> None:
    with pytest.raises(InvalidInput, match="no relation"), database.transaction(scope) as tx:
        tx.link("a", "likes", "b")
