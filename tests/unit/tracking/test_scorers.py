"""Scorers: versions that never change, found by name, with nothing in them that somebody would run unseen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.tracking import Tracking
from modelyard.types.tracking import CreateExperiment


def test_a_scorer_has_versions_and_the_latest_is_shown(tracking: Tracking, scope: Scope) -> None:
    made = [tracking.scorers.register(scope, "0", "safety", f'{{"n": {at}}}') for at in (1, 2)]
    other = tracking.scorers.register(scope, "0", "accuracy", "{}")
    elsewhere = tracking.experiments.create(scope, CreateExperiment(name="e")).id
    tracking.scorers.register(scope, elsewhere, "safety", "{}")
    assert [one.version for one in made] == [1, 2]
    assert made[0].id == made[1].id != other.id
    assert tracking.scorers.latest(scope, "0") == [other, made[1]]
    assert tracking.scorers.versions(scope, "0", "safety") == made
    assert tracking.scorers.get(scope, "0", "safety") == made[1]
    assert tracking.scorers.get(scope, "0", "safety", 1) == made[0]
    for name, version in (("none", None), ("safety", 9)):
        with pytest.raises(NotFound):
            tracking.scorers.get(scope, "0", name, version)


def test_the_number_of_a_deleted_version_does_not_come_again(tracking: Tracking, scope: Scope) -> None:
    for _ in range(2):
        tracking.scorers.register(scope, "0", "safety", "{}")
    tracking.scorers.delete(scope, "0", "safety", 2)
    assert tracking.scorers.register(scope, "0", "safety", "{}").version == 3
    assert [one.version for one in tracking.scorers.versions(scope, "0", "safety")] == [1, 3]
    tracking.scorers.delete(scope, "0", "safety")
    assert tracking.scorers.latest(scope, "0") == []
    for version in (None, 1):
        with pytest.raises(NotFound):
            tracking.scorers.delete(scope, "0", "safety", version)


def judge(model: Any) -> str:
    return json.dumps({"instructions_judge_pydantic_data": {"model": model}})


def test_what_cannot_be_a_scorer_is_refused(tracking: Tracking, scope: Scope) -> None:
    within = json.dumps({"memory_augmented_judge_data": {"base_judge": json.loads(judge(" "))}})
    for name, definition in (
        (" ", "{}"), ("n" * 257, "{}"), ("n", "no JSON"), ("n", "[1]"), ("n", judge("")), ("n", judge(3)),
        ("n", within), ("n", '{"call_source": "import os"}'), ("n", json.dumps({"a": "b" * 70_000})),
        ("n", "[" * 10_000),
    ):  # fmt: skip
        with pytest.raises(InvalidInput):
            tracking.scorers.register(scope, "0", name, definition)
    with pytest.raises(NotFound, match="GatewayEndpoint"):
        tracking.scorers.register(scope, "0", "n", judge("gateway:/mine"))
    with pytest.raises(NotFound):
        tracking.scorers.register(scope, "9", "n", "{}")
    assert tracking.scorers.register(scope, "0", "n", judge("openai:/gpt")).version == 1
