"""Aliases move through gates and approvals, linearly, and what they did stays on record."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from modelyard.kernel import auth, events
from modelyard.kernel.auth import Role, Scope, system_scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from modelyard.planes.registry.documents import read_policy
from modelyard.types.registry import LatencyReport, Policy

from .conftest import MLMODEL, PICKLE, House, arrow, scored

POLICY = read_policy(
    """
    aliases: [champion]
    metrics: [{metric: auc, min: 0.7}]
    slices: [{columns: [carrier], limit: 0.65, min_rows: 100}]
    champion: {alias: champion, metric: auc}
    latency: {p95_ms: 20}
    provenance: {run: true}
    signature: true
    safe_format: true
    approvals: {count: 1, automation: true}
    """
)
FAST = LatencyReport(p50_ms=1.0, p95_ms=3.0, requests=1000, measured_on="laptop")
DATA = "dataset:held_out@1"


def ready(house: House, ann: Scope, bob: Scope, noise: float, policy: Policy | None = POLICY, seed: int = 1) -> int:
    """A version with all its evidence and an approval."""
    made = house.version(ann)
    if policy is not None and made.version == 1:
        house.registry.models.set_policy(ann, "delay", policy)
    house.registry.evidence.evaluate(ann, "delay", made.version, [scored(noise, seed=seed)], dataset=DATA)
    house.registry.evidence.record_latency(ann, "delay", made.version, FAST)
    house.registry.approve(bob, "delay", made.version, "looks right")
    return made.version


def unmet(caught: pytest.ExceptionInfo[Forbidden]) -> str:
    assert caught.value.code == "promotion.refused"
    return "; ".join(caught.value.details["unmet"])


def test_without_a_policy_aliases_move_freely(house: House, ann: Scope) -> None:
    house.version(ann)
    assert house.registry.decide(ann, "delay", 1).promotable
    assert house.registry.promote(ann, "delay", 1, "champion", "").aliases == ["champion"]


def test_nothing_known_nothing_promoted(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", POLICY)
    with pytest.raises(Forbidden) as caught:
        house.registry.promote(ann, "delay", 1, "champion", "please")
    said = unmet(caught)
    for word in ("metric:auc missing", "slices:auc:carrier missing", "latency:p95 missing", "1 approvals are needed"):
        assert word in said
    with pytest.raises(NotFound):
        house.registry.resolve(ann, "delay", "champion")


def test_the_whole_way(house: House, ann: Scope, bob: Scope) -> None:
    version = ready(house, ann, bob, noise=0.5)
    decision = house.registry.decide(ann, "delay", version)
    assert decision.promotable
    assert [gate.status for gate in decision.gates] == ["passed"] * 7
    assert decision.approvals.by == ["bob"]
    promoted = house.registry.promote(ann, "delay", version, "champion", "better")
    assert promoted.aliases == ["champion"]
    with house.database.reading(ann) as tx:
        said = events.recent(tx, kinds=frozenset({"model.alias_moved"}))
    assert len(said) == 1
    assert said[0].subject == "model:delay@1"
    assert said[0].data["alias"] == "champion"
    assert (said[0].data["version"], said[0].data["previous"], said[0].data["reason"]) == (1, None, "better")


def test_a_challenger_has_to_be_better_with_confidence(house: House, ann: Scope, bob: Scope) -> None:
    first = ready(house, ann, bob, noise=0.8)
    house.registry.promote(ann, "delay", first, "champion", "first")
    same = ready(house, ann, bob, noise=0.8, seed=2)
    with pytest.raises(Forbidden) as caught:
        house.registry.promote(ann, "delay", same, "champion", "hope")
    assert "better-than:champion failed" in unmet(caught)
    better = ready(house, ann, bob, noise=0.1)
    decision = house.registry.decide(ann, "delay", better)
    assert decision.champion == first
    assert decision.comparison is not None
    assert decision.comparison.lower > 0
    assert house.registry.promote(ann, "delay", better, "champion", "better").version == better


def test_other_rows_cannot_be_compared(house: House, ann: Scope, bob: Scope) -> None:
    first = ready(house, ann, bob, noise=0.8)
    house.registry.promote(ann, "delay", first, "champion", "")
    second = house.version(ann).version
    house.registry.evidence.evaluate(ann, "delay", second, [scored(0.1, rows=1_500)], dataset=DATA)
    house.registry.evidence.record_latency(ann, "delay", second, FAST)
    house.registry.approve(bob, "delay", second, "looks right")
    with pytest.raises(Forbidden) as caught:
        house.registry.promote(ann, "delay", second, "champion", "")
    assert "other rows" in unmet(caught)
    house.registry.evidence.evaluate(ann, "delay", first, [scored(0.8, rows=1_500)], dataset=DATA)
    assert house.registry.decide(ann, "delay", second).promotable


def test_an_unguarded_alias_of_a_guarded_model_moves_freely(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", POLICY)
    assert house.registry.promote(ann, "delay", 1, "challenger", "").aliases == ["challenger"]
    house.registry.models.set_policy(house.scope("root", Role.ADMIN), "delay", Policy(signature=True, safe_format=True))
    assert house.registry.promote(ann, "delay", 1, "anything", "").aliases == ["anything", "challenger"]


def test_a_pickle_is_refused_until_trusted(house: House, ann: Scope, bob: Scope) -> None:
    house.version(ann, files={"MLmodel": MLMODEL, "model.pkl": PICKLE})
    house.registry.models.set_policy(ann, "delay", Policy(safe_format=True))
    with pytest.raises(Forbidden) as caught:
        house.registry.promote(ann, "delay", 1, "champion", "")
    assert "format failed" in unmet(caught)
    house.registry.versions.trust(bob, "delay", 1, "read the training code")
    house.registry.promote(ann, "delay", 1, "champion", "")


def test_nobody_approves_their_own(house: House) -> None:
    both = house.scope("both", Role.APPROVER)
    house.version(both)
    with pytest.raises(Forbidden) as caught:
        house.registry.approve(both, "delay", 1, "mine is good")
    assert caught.value.code == "approval.own"


def test_who_submitted_the_job_submitted_its_version(house: House, bob: Scope) -> None:
    """A job registers as itself; the person behind it may still not approve it."""
    with house.database.transaction(bob) as tx:
        tx.event("job.submitted", "job:0123", {})
    job = house.scope("job:0123")
    house.version(job)
    with pytest.raises(Forbidden) as caught:
        house.registry.approve(bob, "delay", 1, "my own work")
    assert caught.value.code == "approval.own"


def test_who_started_the_pipeline_submitted_what_it_registered(house: House, bob: Scope) -> None:
    """The platform submits a step's job; the person who started the run may not approve what comes of it."""
    with house.database.transaction(system_scope("default")) as tx:
        tx.event("job.submitted", "job:4567", {"submitted_by": bob.actor})
    house.version(house.scope("job:4567"))
    with pytest.raises(Forbidden) as caught:
        house.registry.approve(bob, "delay", 1, "my own work")
    assert caught.value.code == "approval.own"


def test_a_contributor_cannot_approve_and_an_approval_needs_a_reason(house: House, ann: Scope, bob: Scope) -> None:
    house.version(ann)
    with pytest.raises(Forbidden):
        house.registry.approve(house.scope("carl"), "delay", 1, "sure")
    with pytest.raises(Unauthenticated):
        house.registry.approve(Scope("default", auth.ANONYMOUS), "delay", 1, "sure")
    with pytest.raises(InvalidInput):
        house.registry.approve(bob, "delay", 1, "  ")
    with pytest.raises(Conflict) as caught:
        house.registry.approve(bob, "delay", 1, "for those bytes", digest="0" * 64)
    assert caught.value.code == "approval.other_digest"


@pytest.mark.parametrize("how", ["principal revoked", "role lost", "approval revoked"])
def test_an_approver_who_is_gone_does_not_count(house: House, ann: Scope, bob: Scope, how: str) -> None:
    version = ready(house, ann, bob, noise=0.5)
    assert house.registry.decide(ann, "delay", version).promotable
    with house.database.transaction(system_scope("default")) as tx:
        if how == "principal revoked":
            auth.revoke_principal(tx, "bob")
        elif how == "role lost":
            auth.grant(tx, "bob", "default", Role.VIEWER)
    if how == "approval revoked":
        given = house.registry.evidence.approvals(ann, "delay", version)[0]
        house.registry.evidence.revoke(bob, "delay", version, given.id, "saw a leak")
    decision = house.registry.decide(ann, "delay", version)
    assert not decision.promotable
    assert "bob" in decision.approvals.refused[0]
    with pytest.raises(Forbidden):
        house.registry.promote(ann, "delay", version, "champion", "")


def test_only_ones_own_approval_is_revoked_but_by_an_admin(house: House, ann: Scope, bob: Scope, root: Scope) -> None:
    version = ready(house, ann, bob, noise=0.5)
    given = house.registry.evidence.approvals(ann, "delay", version)[0]
    other = house.scope("cleo", Role.APPROVER)
    with pytest.raises(Forbidden):
        house.registry.evidence.revoke(other, "delay", version, given.id, "no")
    house.registry.evidence.revoke(root, "delay", version, given.id, "no")
    with pytest.raises(NotFound):
        house.registry.evidence.revoke(root, "delay", version, given.id, "again")


def test_an_automation_approves_only_where_the_policy_says_so(house: House, ann: Scope) -> None:
    machine = house.scope("automation:drift", Role.APPROVER)
    house.version(machine)
    house.registry.models.set_policy(ann, "delay", POLICY)
    house.registry.evidence.evaluate(machine, "delay", 1, [scored(0.3)], dataset=DATA)
    house.registry.evidence.record_latency(machine, "delay", 1, FAST)
    house.registry.approve(machine, "delay", 1, "gates passed on the held-out weeks")
    assert house.registry.promote(machine, "delay", 1, "champion", "drift").aliases == ["champion"]
    people = read_policy("approvals: {count: 1}")
    house.registry.models.set_policy(house.scope("root", Role.ADMIN), "delay", people)
    house.version(machine)
    with pytest.raises(Forbidden) as caught:
        house.registry.approve(machine, "delay", 2, "gates passed")
    assert caught.value.code == "approval.automation"


def test_an_override_takes_an_admin_and_a_reason_and_stays_on_record(house: House, ann: Scope, root: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", POLICY)
    with pytest.raises(Forbidden):
        house.registry.promote(ann, "delay", 1, "champion", "urgent", override=True)
    with pytest.raises(InvalidInput):
        house.registry.promote(root, "delay", 1, "champion", "", override=True)
    house.registry.promote(root, "delay", 1, "champion", "outage", override=True)
    move = house.registry.history(ann, "delay", "champion")[-1]
    assert (move.kind, move.by, move.reason) == ("override", "root", "outage")
    assert any("metric:auc missing" in one for one in move.unmet)


def test_only_an_admin_changes_a_declared_policy_or_goes_round_it(house: House, ann: Scope, root: Scope) -> None:
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", POLICY)
    house.registry.promote(root, "delay", 1, "champion", "start", override=True)
    for round_it in (
        lambda: house.registry.models.set_policy(ann, "delay", None),
        lambda: house.registry.models.set_policy(ann, "delay", Policy()),
        lambda: house.registry.models.rename(ann, "delay", "late"),
        lambda: house.registry.models.delete(ann, "delay"),
        lambda: house.registry.promotions.unset(ann, "delay", "champion"),
        lambda: house.registry.versions.drop(ann, "delay", 1, "gone", with_aliases=True),
        lambda: house.registry.promotions.transition(ann, "delay", 1, "Production"),
    ):
        with pytest.raises(Forbidden):
            round_it()
    assert house.registry.resolve(ann, "delay", "champion").stage == "None"
    house.registry.promotions.transition(ann, "delay", 1, "Staging")
    house.registry.models.set_policy(root, "delay", None)
    house.registry.promotions.transition(ann, "delay", 1, "Production")


def test_who_was_champion_at_a_time(house: House, ann: Scope) -> None:
    start = house.clock.now()
    for version in (1, 2):
        house.version(ann)
        house.clock.advance(86_400)
        house.registry.promote(ann, "delay", version, "champion", "")
    house.clock.advance(86_400)
    house.registry.promotions.unset(ann, "delay", "champion", "trouble")
    registry = house.registry
    assert registry.at(ann, "delay", "champion", start + timedelta(days=1, hours=1)).version == 1
    assert registry.at(ann, "delay", "champion", start + timedelta(days=2, hours=1)).version == 2
    for instant in (start, start + timedelta(days=3, hours=1), datetime(2000, 1, 1, tzinfo=UTC)):
        with pytest.raises(NotFound):
            registry.at(ann, "delay", "champion", instant)
    assert [(one.version, one.previous) for one in registry.history(ann, "delay")] == [(1, None), (2, 1), (None, 2)]


def test_rollback_in_one_step(house: House, ann: Scope, bob: Scope) -> None:
    first = ready(house, ann, bob, noise=0.8)
    house.registry.promote(ann, "delay", first, "champion", "")
    second = ready(house, ann, bob, noise=0.1)
    house.registry.promote(ann, "delay", second, "champion", "")
    assert house.registry.rollback(ann, "delay", "champion", "worse in summer").version == first
    assert house.registry.history(ann, "delay")[-1].kind == "rollback"
    with pytest.raises(Conflict) as caught:
        house.registry.rollback(ann, "delay", "champion", "")
    assert caught.value.code == "alias.no_earlier"


def test_promoting_what_is_champion_already_changes_nothing(house: House, ann: Scope) -> None:
    house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "")
    house.registry.promote(ann, "delay", 1, "champion", "again")
    assert len(house.registry.history(ann, "delay")) == 1


def test_expected_guards_against_a_move_in_between(house: House, ann: Scope) -> None:
    for _ in range(3):
        house.version(ann)
    house.registry.promote(ann, "delay", 1, "champion", "", expected=0)
    house.registry.promote(ann, "delay", 2, "champion", "", expected=1)
    with pytest.raises(Conflict) as caught:
        house.registry.promote(ann, "delay", 3, "champion", "", expected=1)
    assert caught.value.code == "alias.moved"


@pytest.mark.parametrize("guarded", [True, False])
def test_concurrent_promotions_are_linear(house: House, ann: Scope, guarded: bool) -> None:
    """16 at once: the history is one chain that ends at the alias, and each that was told yes is in it."""
    for _ in range(8):
        house.version(ann)
    if guarded:
        house.registry.models.set_policy(ann, "delay", Policy(signature=True))
    start = threading.Barrier(16)
    done: list[int] = []
    refused: list[str] = []

    def move(version: int) -> None:
        start.wait()
        try:
            house.registry.promote(ann, "delay", version, "champion", f"to {version}")
            done.append(version)
        except Conflict as error:
            refused.append(error.code)

    threads = [threading.Thread(target=move, args=(1 + number % 8,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moves = house.registry.history(ann, "delay", "champion")
    assert len(done) + len(refused) == 16
    assert set(refused) <= {"stale"}
    assert guarded or not refused
    assert [move.previous for move in moves] == [None, *[move.version for move in moves[:-1]]]
    assert house.registry.resolve(ann, "delay", "champion").version == moves[-1].version
    assert {move.version for move in moves} <= set(done)
    assert len(moves) <= len(done)


def test_evidence_that_arrives_in_between_makes_the_decision_stale(house: House, ann: Scope, monkeypatch) -> None:
    """A promotion rests on what was read; the policy changes after that, so the promotion is told to start again."""
    house.version(ann)
    house.registry.models.set_policy(ann, "delay", Policy(signature=True))
    root = house.scope("root", Role.ADMIN)
    promotions = house.registry.promotions
    decide = promotions._decide

    def decided_then_changed(*args):
        found = decide(*args)
        house.registry.models.set_policy(root, "delay", POLICY)
        return found

    monkeypatch.setattr(promotions, "_decide", decided_then_changed)
    with pytest.raises(Conflict) as caught:
        house.registry.promote(ann, "delay", 1, "champion", "")
    assert caught.value.code == "stale"


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"row_id": ["a"], "label": [1]}, "score"),
        ({"row_id": ["a", "a"], "label": [1, 0], "score": [0.1, 0.2]}, "not unique"),
        ({"row_id": ["a", None], "label": [1, 0], "score": [0.1, 0.2]}, "no row_id"),
        ({"row_id": ["a"], "label": ["yes"], "score": [0.2]}, "label is string"),
        ({"row_id": ["a"], "label": [1], "score": [0.2], "x": [[1]]}, "'x' is list"),
        ({"row_id": ["a"], "label": [1], "score": [0.2], "x": [b"1"]}, "'x' is binary"),
        (
            {"row_id": list(range(2000)), "label": [1] * 2000, "score": [0.2] * 2000, "id": list(range(2000))},
            "2,000 values",
        ),
    ],
)
def test_rows_that_cannot_be_meant(house: House, ann: Scope, columns: dict[str, list[object]], word: str) -> None:
    house.version(ann)
    with pytest.raises(InvalidInput, match=word):
        house.registry.evidence.evaluate(ann, "delay", 1, [arrow(columns)])


@pytest.mark.parametrize("body", [b"", b"not arrow", b"\xff\xff\xff\xff\x10\x00\x00\x00", b"\x00" * 64])
def test_what_is_no_arrow_is_refused(house: House, ann: Scope, body: bytes) -> None:
    house.version(ann)
    with pytest.raises(InvalidInput) as caught:
        house.registry.evidence.evaluate(ann, "delay", 1, [body])
    assert caught.value.code == "evaluation.not_arrow"


def test_missing_and_broken_numbers_are_not_enough_data(house: House, ann: Scope) -> None:
    house.version(ann)
    rows = {"row_id": [1, 2, 3], "label": [True, False, True], "score": [0.2, None, float("inf")]}
    made = house.registry.evidence.evaluate(ann, "delay", 1, [arrow(rows)])
    assert made.overall.verdict == "not enough data"
    assert "2 of 3 scores" in made.overall.reason


@pytest.mark.parametrize("dataset", ["flights", "dataset:flights", "dataset:@1", "dataset:flights@main"])
def test_a_dataset_is_named_with_its_version(house: House, ann: Scope, dataset: str) -> None:
    house.version(ann)
    with pytest.raises(InvalidInput):
        house.registry.evidence.evaluate(ann, "delay", 1, [scored(0.5, rows=50)], dataset=dataset)


def test_data_checks_are_asked_of_the_data_plane(house: House, ann: Scope) -> None:
    import pyarrow as pa

    house.data.create(ann, "flights")
    house.data.append(ann, "flights", pa.table({"distance": [1.0]}))
    made = house.version(ann)
    with house.database.transaction(ann) as tx:
        tx.link(f"run:{made.provenance.run}", "used", "dataset:flights@1")
    house.registry.models.set_policy(ann, "delay", read_policy("data_checks: true\nprovenance: {data: true}"))
    decision = house.registry.decide(ann, "delay", 1)
    assert decision.promotable, decision.reasons
    with house.database.transaction(ann) as tx:
        tx.link(f"run:{made.provenance.run}", "used", "dataset:gone@4")
    decision = house.registry.decide(ann, "delay", 1)
    assert not decision.promotable
    assert "dataset:gone@4" in decision.reasons[0]
