"""Retention lets go what nobody needs, and nothing that is protected; what goes is on record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel import events
from modelyard.kernel.auth import Role, Scope
from modelyard.kernel.errors import Conflict, Forbidden
from modelyard.planes.registry.retention import plan
from modelyard.types.registry import ModelVersion, Policy, Retention

from .conftest import House

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def version(number: int, age_days: float, **more: object) -> ModelVersion:
    at = NOW - timedelta(days=age_days)
    return ModelVersion(model="delay", version=number, created_at=at, created_by="ann", updated_at=at, **more)


@given(
    ages=st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=12),
    held=st.sets(st.integers(min_value=1, max_value=12)),
    served=st.sets(st.integers(min_value=1, max_value=12)),
    tagged=st.sets(st.integers(min_value=1, max_value=12)),
    keep_last=st.integers(min_value=1, max_value=12),
    keep_days=st.floats(min_value=0, max_value=100),
)
def test_what_is_protected_new_or_young_stays(ages, held, served, tagged, keep_last, keep_days) -> None:
    versions = [
        version(n, age, aliases=["champion"] if n in held else [], tags={"protected": "true"} if n in tagged else {})
        for n, age in enumerate(sorted(ages, reverse=True), start=1)
    ]
    uses = {n: ["endpoint:late"] for n in served}
    steps = plan(versions, Retention(keep_last=keep_last, keep_days=keep_days), uses, NOW)
    assert [one.version for one in steps] == sorted((one.version for one in versions), reverse=True)
    dropped = {one.version for one in steps if one.action == "drop"}
    assert not dropped & (held | served | tagged)
    newest = sorted((one.version for one in versions), reverse=True)[:keep_last]
    assert not dropped & set(newest)
    for one in versions:
        old = NOW - one.created_at > timedelta(days=keep_days)
        free = one.version not in held | served | tagged and one.version not in newest
        assert (one.version in dropped) == (old and free)
    assert all(one.reason for one in steps)


def test_a_tag_that_says_false_protects_nothing() -> None:
    steps = plan(
        [version(1, 9, tags={"protected": "false"}), version(2, 9)], Retention(keep_last=1, keep_days=1), {}, NOW
    )
    assert [one.action for one in steps] == ["keep", "drop"]


def test_retention_is_carried_out_and_recorded(house: House, ann: Scope) -> None:
    for _ in range(4):
        house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "")
    house.registry.versions.set_tag(ann, "delay", 2, "protected", "audit 2026")
    house.registry.retention.declare(ann, "delay", Retention(keep_last=1, keep_days=0, grace_days=2), "disk")
    blob = house.registry.versions.files(ann, "delay", 3)[0].digest
    house.clock.advance(60)
    model = house.registry.models.get(ann, "delay")
    keeper = next(one for one in house.registry.reconcilers() if one.name == "registry.retention")
    assert list(keeper.due(house.clock.now())) == [model.id]
    for _ in range(2):
        house.registry.retention.carry_out(model.id)
    assert list(keeper.due(house.clock.now())) == []
    assert [one.version for one in house.registry.versions.list(ann, "delay")] == [4, 2, 1]
    gone = next(one for one in house.registry.versions.list(ann, "delay", dropped=True) if one.version == 3)
    assert gone.dropped_by == "system"
    assert gone.dropped_reason.startswith("retention: older than 0 days")
    assert gone.purged_at is None
    with house.database.reading(ann) as tx:
        said = events.recent(tx, subject="model:delay@3", kinds=frozenset({"model.version_dropped"}))
    assert [one.data["digest"] for one in said] == [gone.digest]
    assert blob in set(house.registry.kept_blobs()), "other versions have the same file"


def test_the_bytes_of_what_was_dropped_go_after_the_grace_and_the_record_stays(house: House, ann: Scope) -> None:
    house.version(ann, files={"model.txt": b"tree\nversion=v4\nfirst"})
    house.version(ann)
    house.registry.retention.declare(ann, "delay", Retention(keep_last=1, keep_days=0, grace_days=2))
    house.clock.advance(60)
    model = house.registry.models.get(ann, "delay")
    house.registry.retention.carry_out(model.id)
    house.clock.advance(86_400)
    house.registry.retention.carry_out(model.id)
    with house.database.reading(ann) as tx:
        assert events.recent(tx, kinds=frozenset({"model.version_purged"})) == []
    house.clock.advance(2 * 86_400)
    house.registry.retention.carry_out(model.id)
    first = next(one for one in house.registry.versions.list(ann, "delay", dropped=True) if one.version == 1)
    assert first.purged_at is not None
    assert first.digest
    kept = set(house.registry.kept_blobs())
    assert kept == {one.digest for one in house.registry.versions.files(ann, "delay", 2)}


def test_what_is_served_is_dropped_by_nobody(house: House, ann: Scope) -> None:
    house.version(ann)
    house.version(ann)
    house.registry.used_by(lambda tx, model: {1: ["endpoint:late"]} if model == "delay" else {})
    root = house.scope("root", Role.ADMIN)
    for act in (
        lambda: house.registry.drop(root, "delay", 1, "old"),
        lambda: house.registry.versions.drop(root, "delay", 1, "old", with_aliases=True),
        lambda: house.registry.models.delete(root, "delay"),
    ):
        with pytest.raises(Conflict, match=r"endpoint:late") as caught:
            act()
        assert caught.value.code == "version.in_use"
    house.registry.drop(ann, "delay", 2, "never used")
    assert house.registry.versions.in_use(ann, "delay") == {1: ["endpoint:late"]}


def test_what_is_tagged_or_guarded_is_dropped_by_nobody(house: House, ann: Scope) -> None:
    root = house.scope("root", Role.ADMIN)
    house.version(ann)
    house.registry.versions.set_tag(ann, "delay", 1, "protected", "yes")
    for act in (
        lambda: house.registry.drop(root, "delay", 1, "old"),
        lambda: house.registry.models.delete(root, "delay"),
    ):
        with pytest.raises(Conflict, match="tagged protected"):
            act()
    house.registry.versions.unset_tag(ann, "delay", 1, "protected")
    house.registry.models.set_policy(ann, "delay", Policy(aliases=["champion"]))
    house.registry.promote(ann, "delay", 1, "champion", "")
    for act in (
        lambda: house.registry.versions.drop(root, "delay", 1, "old", with_aliases=True),
        lambda: house.registry.models.delete(root, "delay"),
    ):
        with pytest.raises(Conflict, match="champion"):
            act()
    house.registry.promotions.unset(root, "delay", "champion", "out of use")
    house.registry.models.delete(root, "delay", "project over")


def test_on_a_model_with_a_policy_retention_is_for_admins(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", Policy())
    with pytest.raises(Forbidden):
        house.registry.retention.declare(ann, "delay", Retention())
    root = house.scope("root", Role.ADMIN)
    assert house.registry.retention.declare(root, "delay", Retention(keep_last=3)).retention == Retention(keep_last=3)
    assert house.registry.retention.declare(root, "delay", None).retention is None
    assert house.registry.retention.preview(ann, "delay") == []
