"""From the event to the verdict, over real planes, on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from modelyard.kernel import lineage
from modelyard.kernel.auth import Principal, Role, Scope
from modelyard.kernel.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from modelyard.planes.automation import Automation
from modelyard.planes.registry import Registry
from modelyard.types.automation import OnDataset, OnEvent, OnSchedule, Promotion, StartPipeline, TriggerSpec
from modelyard.types.registry import ApprovalRule, ModelVersion

from .conftest import POLICY, House

SPEC = TriggerSpec(
    name="retrain",
    on=OnEvent(kind="alert.raised", match={"monitor": "delay", "kind": ["auc", "calibration"]}),
    start=StartPipeline(pipeline="train", params={"until": "{event.data.window}"}),
    then=Promotion(model="delay"),
)
ALERT = {"monitor": "delay", "kind": "auc", "window": "2013-06"}


def retrained(house: House, noise: float, **spec: Any) -> int:
    """An alert, and the run that it starts makes a challenger of this quality. Returns its version."""
    house.automation.create(house.scope, replace(SPEC, **spec))
    house.say(ALERT)
    house.loop.settle()
    challenger = house.version(noise)
    house.work({"model": "delay", "version": challenger})
    house.loop.settle()
    return challenger


def test_an_alert_retrains_and_a_better_challenger_is_promoted(house: House) -> None:
    old = house.champion(noise=2.0)
    challenger = retrained(house, noise=0.3)
    (response,) = house.responses()
    assert (response.state, response.model, response.challenger, response.champion) == (
        "promoted",
        "delay",
        challenger,
        old,
    )
    assert house.serving() == challenger
    assert response.params == {"until": "2013-06"}
    assert response.verdict is not None
    assert "better than version 1" in response.verdict
    assert all(gate.status == "passed" for gate in response.gates)
    (approval,) = house.registry.evidence.approvals(house.scope, "delay", challenger)
    assert approval.by == "automation:retrain"
    (event,) = house.said("challenger.promoted")
    assert event.subject == f"model:delay@{challenger}"
    assert event.data["alert"] == response.alert
    move = house.registry.history(house.scope, "delay")[-1]
    assert (move.by, move.version, move.previous) == ("automation:retrain", challenger, old)


def test_the_lineage_says_what_the_alert_led_to(house: House) -> None:
    house.champion()
    retrained(house, noise=0.3)
    (response,) = house.responses()
    with house.database.reading(house.scope) as tx:
        edges = lineage.walk(tx, f"alert:{response.alert}", "down").edges
    assert (f"alert:{response.alert}", "triggered", f"pipeline-run:{response.pipeline_run}") in {
        (edge.subject, edge.relation, edge.object) for edge in edges
    }


@pytest.mark.parametrize("noise", [2.0, 3.0])
def test_a_tie_or_a_worse_challenger_is_dropped_with_the_reason(house: House, noise: float) -> None:
    old = house.champion(noise=2.0)
    challenger = retrained(house, noise=noise)
    (response,) = house.responses()
    assert response.state == "dropped"
    assert response.verdict
    assert house.serving() == old
    version = house.registry.versions.list(house.scope, "delay", dropped=True)[0]
    assert version.version == challenger
    assert version.dropped_by == "automation:retrain"
    assert response.verdict in version.dropped_reason
    (event,) = house.said("challenger.dropped")
    assert event.data["reason"] == response.verdict


def test_missing_evidence_is_no_promotion(house: House) -> None:
    old = house.champion()
    house.automation.create(house.scope, SPEC)
    house.say(ALERT)
    house.loop.settle()
    house.work({"model": "delay", "version": house.version(0.1, evaluated=False)})
    house.loop.settle()
    assert house.responses()[0].state == "dropped"
    assert house.serving() == old


def test_people_decide_where_the_policy_wants_people(house: House) -> None:
    old = house.champion()
    policy = replace(POLICY, approvals=ApprovalRule(count=1, automation=False))
    house.registry.models.set_policy(house.scope, "delay", policy)
    challenger = retrained(house, noise=0.3)
    (response,) = house.responses()
    assert response.state == "waiting"
    assert "a person decides" in (response.verdict or "")
    assert house.serving() == old
    assert house.registry.versions.get(house.scope, "delay", challenger).dropped_at is None


def test_without_a_policy_nothing_is_promoted(house: House) -> None:
    old = house.champion()
    house.registry.models.set_policy(house.scope, "delay", None)
    retrained(house, noise=0.1)
    assert house.responses()[0].state == "waiting"
    assert house.serving() == old


def test_a_retraining_that_was_all_cached_leaves_the_champion_alone(house: House) -> None:
    old = house.champion()
    house.automation.create(house.scope, SPEC)
    house.say(ALERT)
    house.loop.settle()
    house.work({"model": "delay", "version": str(old)})
    house.loop.settle()
    assert house.responses()[0].state == "unchanged"
    assert house.serving() == old
    assert house.registry.versions.get(house.scope, "delay", old).dropped_at is None


@pytest.mark.parametrize(
    ("output", "word"),
    [
        (None, "no challenger"),
        ({"model": "delay"}, "no challenger"),
        ({"model": "delay", "version": "new"}, "names no challenger"),
        ({"model": "delay", "version": True}, "names no challenger"),
        ({"model": "other", "version": 1}, "promotes only 'delay'"),
        ({"model": "delay", "version": 99}, "99"),
    ],
)
def test_a_run_that_makes_no_challenger_fails_the_response(house: House, output: Any, word: str) -> None:
    old = house.champion()
    house.automation.create(house.scope, SPEC)
    house.say(ALERT)
    house.loop.settle()
    house.work(output)
    house.loop.settle()
    (response,) = house.responses()
    assert response.state == "failed"
    assert word in (response.verdict or "")
    assert house.serving() == old


def test_a_run_that_fails_or_is_cancelled_ends_the_response(house: House) -> None:
    house.champion()
    house.automation.create(house.scope, SPEC)
    house.say(ALERT)
    house.loop.settle()
    (response,) = house.responses()
    assert response.state == "running"
    assert response.pipeline_run is not None
    house.pipelines.cancel(house.scope, response.pipeline_run)
    house.loop.settle()
    (response,) = house.responses()
    assert response.state == "failed"
    assert "cancelled" in (response.verdict or "")


def test_a_pipeline_that_is_not_there_fails_the_response(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, start=StartPipeline(pipeline="nothing")))
    house.say(ALERT)
    house.loop.settle()
    (response,) = house.responses()
    assert response.state == "failed"
    assert "could not be started" in (response.verdict or "")


def test_an_event_is_answered_once_however_often_it_is_heard(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, then=None))
    house.say(ALERT)
    house.loop.settle()
    (event,) = house.said("alert.raised")
    for _ in range(3):
        house.automation.hear(event)
    house.loop.settle()
    assert len(house.responses()) == 1
    assert len(house.pipelines.list_runs(house.scope).items) == 1


def test_a_crash_between_start_and_record_starts_no_second_run(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, then=None))
    house.say(ALERT)
    house.loop._step_events()
    (response,) = house.responses()
    assert response.state == "starting"
    # What a process did that died before it could record it:
    house.pipelines.start(
        Scope("default", Principal("automation:retrain", {"default": Role.APPROVER})), "train", response.params,
        cause=response.event_subject, idempotency_key=f"response:{response.id}",
    )  # fmt: skip
    house.loop.settle()
    (run,) = house.pipelines.list_runs(house.scope).items
    assert house.responses()[0].pipeline_run == run.id


class Crash(Exception):
    """The process dies here."""


class CrashesAfter(Registry):
    """A registry whose caller dies right after one of its acts."""

    def __init__(self, house: House, act: str) -> None:
        self.__dict__.update(house.registry.__dict__)
        self.act, self.crashed = act, False

    def _crash(self, act: str) -> None:
        if act == self.act and not self.crashed:
            self.crashed = True
            raise Crash

    def promote(self, *args: Any, **options: Any) -> ModelVersion:
        done = super().promote(*args, **options)
        self._crash("promote")
        return done

    def drop(self, *args: Any, **options: Any) -> ModelVersion:
        done = super().drop(*args, **options)
        self._crash("drop")
        return done


@pytest.mark.parametrize(("act", "noise", "state"), [("promote", 0.3, "promoted"), ("drop", 3.0, "dropped")])
def test_a_crash_after_the_act_ends_with_what_was_meant(house: House, act: str, noise: float, state: str) -> None:
    house.champion()
    house.loop = house.loop_of(Automation(house.database, house.pipelines, CrashesAfter(house, act)))
    with pytest.raises(Crash):
        retrained(house, noise=noise)
    assert house.responses()[0].state == "running"
    house.clock.advance(60)
    house.loop_of(house.automation).settle()
    (response,) = house.responses()
    assert response.state == state
    assert len(house.said(f"challenger.{state}")) == 1


def test_an_end_that_is_not_heard_is_found_by_looking(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, then=None))
    house.say(ALERT)
    house.loop.settle()
    house.work({})
    deaf = house.loop_of(house.automation)
    deaf._readers = ()
    house.clock.advance(3)
    deaf.settle()
    assert house.responses()[0].state == "running"
    house.clock.advance(31)
    deaf.settle()
    assert house.responses()[0].state == "completed"


def test_what_comes_too_often_is_suppressed_and_says_why(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, then=None, cooldown_s=3_600))
    house.say(ALERT)
    house.loop.settle()
    house.say(ALERT)
    house.loop.settle()
    assert "not over yet" in house.responses()[1].reason
    house.work({})
    house.loop.settle()
    house.clock.advance(60)
    house.say(ALERT)
    house.loop.settle()
    assert "cooldown" in house.responses()[2].reason
    house.clock.advance(3_600)
    house.say(ALERT)
    house.loop.settle()
    assert [one.state for one in house.responses()] == ["completed", "suppressed", "suppressed", "running"]
    assert len(house.said("trigger.suppressed")) == 2


def test_a_storm_is_capped(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, then=None, storm_runs_max=2, storm_window_s=86_400))
    for _ in range(4):
        house.say(ALERT)
        house.loop.settle()
        if house.responses()[-1].state == "running":
            house.work({})
            house.loop.settle()
        house.clock.advance(60)
    assert [one.state for one in house.responses()] == ["completed", "completed", "suppressed", "suppressed"]


def test_a_pipeline_that_triggers_itself_comes_to_an_end(house: House) -> None:
    on = OnEvent(kind="pipeline-run.succeeded")
    house.automation.create(house.scope, replace(SPEC, on=on, start=StartPipeline(pipeline="train"), then=None))
    house.pipelines.start(house.scope, "train")
    for _ in range(8):
        house.loop.settle()
        if any(not run.state.final for run in house.pipelines.list_runs(house.scope).items):
            house.work({})
        house.clock.advance(1)
    runs = house.pipelines.list_runs(house.scope).items
    assert all(run.state.final for run in runs)
    assert len(runs) <= 1 + SPEC.storm_runs_max


def test_events_that_do_not_match_or_came_before_do_nothing(house: House) -> None:
    house.say(ALERT)
    house.clock.advance(1)
    house.automation.create(house.scope, SPEC)
    house.say({**ALERT, "kind": "null_rate"})
    house.say({**ALERT, "monitor": "other"})
    house.say(ALERT, kind="alert.resolved")
    house.loop.settle()
    assert house.responses() == []


def test_a_new_dataset_version_triggers(house: House) -> None:
    import pyarrow as pa

    spec = replace(SPEC, on=OnDataset(dataset="flights"), then=None)
    params = {"until": "{event.data.version}"}
    house.automation.create(house.scope, replace(spec, start=StartPipeline(pipeline="train", params=params)))
    house.data.write(house.scope, "flight", pa.table({"x": [1]}), create=True)
    house.data.write(house.scope, "flights", pa.table({"x": [1]}), create=True)
    house.loop.settle()
    (response,) = house.responses()
    assert (response.event_subject, response.params) == ("dataset:flights@1", {"until": 1})
    with house.database.reading(house.scope) as tx:
        assert lineage.walk(tx, "dataset:flights@1", "down").edges


def test_a_schedule_fires_once_however_often_it_was_missed(house: House) -> None:
    spec = replace(SPEC, on=OnSchedule(cron="0 6 * * *"), start=StartPipeline(pipeline="train"), then=None)
    made = house.automation.create(house.scope, spec)
    assert made.next_at is not None
    assert made.next_at.hour == 6
    house.loop.settle()
    assert house.responses() == []
    house.clock.advance(5 * 86_400)
    house.loop.settle()
    (response,) = house.responses()
    assert response.event_kind == "schedule.due"
    assert house.automation.get(house.scope, "retrain").next_at > house.clock.now()  # type: ignore[operator]
    house.work({})
    house.loop.settle()
    house.clock.advance(86_400)
    house.loop.settle()
    assert len(house.responses()) == 2


def test_a_trigger_that_is_off_says_so_and_fires_again_when_it_is_on(house: House) -> None:
    house.automation.create(house.scope, replace(SPEC, then=None))
    house.automation.set_enabled(house.scope, "retrain", False)
    house.say(ALERT)
    house.loop.settle()
    assert "switched off" in house.responses()[0].reason
    house.automation.set_enabled(house.scope, "retrain", True)
    house.say(ALERT)
    house.loop.settle()
    assert house.responses()[1].state == "running"


def test_who_may_not_approve_cannot_let_a_trigger_do_it(house: House) -> None:
    ann = Scope("default", Principal("ann", {"default": Role.CONTRIBUTOR}))
    with pytest.raises(Forbidden):
        house.automation.create(ann, SPEC)
    made = house.automation.create(ann, replace(SPEC, then=Promotion(approve=False)))
    assert made.created_by == "ann"


@pytest.mark.parametrize(
    "change",
    [
        {"on": OnEvent(kind="trigger.fired")},
        {"on": OnEvent(kind="")},
        {"on": OnSchedule()},
        {"on": OnSchedule(cron="* * *")},
        {"start": StartPipeline(pipeline="train", params={"x": "{event.actor}"})},
    ],
)
def test_triggers_without_meaning_are_refused(house: House, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        house.automation.create(house.scope, replace(SPEC, **change))
    assert house.automation.list(house.scope).items == []


def test_a_deleted_trigger_leaves_its_history_and_its_run_ends_well(house: House) -> None:
    old = house.champion()
    house.automation.create(house.scope, SPEC)
    house.say(ALERT)
    house.loop.settle()
    house.automation.delete(house.scope, "retrain")
    with pytest.raises(NotFound):
        house.automation.get(house.scope, "retrain")
    challenger = house.version(0.3)
    house.work({"model": "delay", "version": challenger})
    house.loop.settle()
    assert house.responses()[0].state == "promoted"
    assert house.serving() == challenger != old


def test_names_are_taken_once_and_projects_apart(house: House) -> None:
    house.automation.create(house.scope, SPEC)
    with pytest.raises(Conflict):
        house.automation.create(house.scope, SPEC)
    other = Scope("other", Principal("eve", {"*": Role.ADMIN}))
    assert house.automation.list(other).items == []
    house.say(ALERT)
    house.loop.settle()
    (response,) = house.responses()
    assert house.automation.responses(other).items == []
    for look in (
        lambda: house.automation.get(other, "retrain"),
        lambda: house.automation.delete(other, "retrain"),
        lambda: house.automation.response(other, response.id),
    ):
        with pytest.raises(NotFound):
            look()
    assert house.automation.responses(house.scope, alert=response.alert).items == [response]


def test_what_the_registry_refuses_waits_for_a_person(house: House) -> None:
    class Refusing(Registry):
        def __init__(self) -> None:
            self.__dict__.update(house.registry.__dict__)

        def approve(self, *args: Any, **options: Any) -> Any:
            raise Conflict("the files are not known here", code="version.no_files")

    old = house.champion()
    house.loop = house.loop_of(Automation(house.database, house.pipelines, Refusing()))
    challenger = retrained(house, noise=0.3)
    (response,) = house.responses()
    assert (response.state, house.serving()) == ("waiting", old)
    assert "the files are not known here" in (response.verdict or "")
    assert house.registry.versions.get(house.scope, "delay", challenger).dropped_at is None


def test_somebody_who_moves_the_alias_at_the_same_moment_wins_and_is_compared_with(house: House) -> None:
    class Moving(Registry):
        """A person promotes another version right before the automation does."""

        moved = False

        def __init__(self) -> None:
            self.__dict__.update(house.registry.__dict__)

        def promote(self, *args: Any, **options: Any) -> ModelVersion:
            if not self.moved:
                self.moved = True
                bob = Scope("default", Principal("bob", {"default": Role.APPROVER}))
                super().approve(bob, "delay", 2, "looks right")
                super().promote(bob, "delay", 2, "champion", "by hand")
            return super().promote(*args, **options)

    house.champion(noise=2.0)
    by_hand = house.version(noise=0.2)
    house.loop = house.loop_of(Automation(house.database, house.pipelines, Moving()))
    challenger = retrained(house, noise=1.0)
    house.clock.advance(60)
    house.loop.settle()
    (response,) = house.responses()
    assert (response.state, response.challenger, response.champion) == ("dropped", challenger, by_hand)
    assert house.serving() == by_hand


def test_a_registry_that_does_not_answer_is_asked_again(house: House) -> None:
    class Away(Registry):
        away = True

        def __init__(self) -> None:
            self.__dict__.update(house.registry.__dict__)

        def decide(self, *args: Any, **options: Any) -> Any:
            if Away.away:
                raise Unavailable("the disk of the catalog is full")
            return super().decide(*args, **options)

    house.champion()
    house.loop = house.loop_of(Automation(house.database, house.pipelines, Away()))
    house.automation.create(house.scope, SPEC)
    house.say(ALERT)
    house.loop.settle()
    challenger = house.version(0.3)
    house.work({"model": "delay", "version": challenger})
    for _ in range(3):
        house.loop.step()
        house.clock.advance(timedelta(minutes=5).total_seconds())
    assert house.responses()[0].state == "running"
    Away.away = False
    house.loop.settle()
    assert house.responses()[0].state == "promoted"
    assert house.serving() == challenger
