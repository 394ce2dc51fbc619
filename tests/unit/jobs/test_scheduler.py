"""The scheduler: what it decides in named cases, and what holds for every queue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.planes.jobs.scheduler import (
    Decision,
    Holding,
    Policy,
    Refuse,
    Start,
    Wait,
    Waiting,
    decide,
)
from modelyard.types.jobs import Resources

NOW = datetime(2013, 3, 1, 12, tzinfo=UTC)
TWO = Resources(cpus=2, memory_bytes=8 * 2**30)
POLICY = Policy()


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def waiting(
    name: str,
    *,
    project: str = "p",
    priority: int = 0,
    at: float = -1.0,
    cpus: float = 1.0,
    memory_bytes: int = 0,
    timeout_s: float = 100.0,
    not_before: float | None = None,
) -> Waiting:
    return Waiting(
        id=name,
        project=project,
        priority=priority,
        submitted_at=after(at),
        resources=Resources(cpus=cpus, memory_bytes=memory_bytes),
        timeout_s=timeout_s,
        not_before=None if not_before is None else after(not_before),
    )


def holding(
    name: str, *, project: str = "p", priority: int = 0, cpus: float = 1.0, memory_bytes: int = 0, ends: float = 50.0
) -> Holding:
    resources = Resources(cpus=cpus, memory_bytes=memory_bytes)
    return Holding(id=name, project=project, priority=priority, resources=resources, ends_by=after(ends))


def started(decisions: list[Decision]) -> list[str]:
    return [decision.job for decision in decisions if isinstance(decision, Start)]


def of(decisions: list[Decision], name: str) -> Decision:
    return next(decision for decision in decisions if decision.job == name)


def test_first_come_first_served() -> None:
    queue = [waiting("late", at=-1), waiting("early", at=-3), waiting("middle", at=-2)]
    assert started(decide(queue, [], TWO, POLICY, NOW)) == ["early", "middle"]


def test_priority_goes_first_and_is_worth_so_much_waiting_and_no_more() -> None:
    one = Resources(cpus=1)
    old = waiting("old", at=-500)
    assert started(decide([old, waiting("urgent", priority=1)], [], one, POLICY, NOW)) == ["urgent"]
    older = waiting("older", at=-700)
    assert started(decide([older, waiting("urgent", priority=1)], [], one, POLICY, NOW)) == ["older"]


def test_a_waiting_job_is_told_for_whom_it_waits() -> None:
    running = [holding("a" * 32, priority=5), holding("b" * 32)]
    decision = of(decide([waiting("w")], running, TWO, POLICY, NOW), "w")
    assert isinstance(decision, Wait)
    assert decision.reason == (
        f"waiting: 2 of 2 CPUs are in use by job {'a' * 32} (higher priority), job {'b' * 32}; "
        "it needs 1, and starts when enough of them have ended"
    )
    assert decision.blockers == ("a" * 32, "b" * 32)


def test_jobs_of_other_projects_are_not_named() -> None:
    decision = of(decide([waiting("w", project="q")], [holding("secret", cpus=2)], TWO, POLICY, NOW), "w")
    assert "secret" not in decision.reason
    assert "another project" in decision.reason


def test_memory_counts_too() -> None:
    running = [holding("m", memory_bytes=6 * 2**30)]
    decision = of(decide([waiting("w", memory_bytes=4 * 2**30)], running, TWO, POLICY, NOW), "w")
    assert isinstance(decision, Wait)
    assert "6 GiB of 8 GiB are in use by job m; it needs 4 GiB" in decision.reason


def test_what_can_never_fit_is_refused() -> None:
    decision = of(decide([waiting("big", cpus=3)], [], TWO, POLICY, NOW), "big")
    assert isinstance(decision, Refuse)
    assert "3 CPUs" in decision.reason


def test_a_project_that_floods_the_queue_does_not_shut_others_out() -> None:
    flood = [waiting(f"f{number:03}", project="flood", at=-100 + number / 10, priority=100) for number in range(300)]
    queue = [*flood, waiting("mine", project="mine", at=-0.1)]
    four = Resources(cpus=4)
    assert "mine" in started(decide(queue, [], four, POLICY, NOW))
    busy = [holding(f"r{number}", project="flood") for number in range(3)]
    assert started(decide(queue, busy, four, POLICY, NOW)) == ["mine"]


def test_weights_share_unequally() -> None:
    queue = [waiting(f"{project}{number}", project=project) for project in "ab" for number in range(9)]
    chosen = started(decide(queue, [], Resources(cpus=6), Policy(weights={"a": 2.0}), NOW))
    assert sorted(name[0] for name in chosen) == ["a"] * 4 + ["b"] * 2


def test_small_jobs_pass_a_big_one_at_first_and_not_for_ever() -> None:
    running = [holding("r", ends=1000)]
    small = waiting("small", timeout_s=5000)
    assert started(decide([waiting("big", cpus=2, at=-10), small], running, TWO, POLICY, NOW)) == ["small"]
    decisions = decide([waiting("big", cpus=2, at=-90), small], running, TWO, POLICY, NOW)
    assert started(decisions) == []
    assert "kept for job big" in of(decisions, "small").reason


def test_backfill_uses_what_a_reservation_does_not_need() -> None:
    running = [holding("r", ends=1000)]
    short = waiting("short", timeout_s=900)
    assert started(decide([waiting("big", cpus=2, at=-90), short], running, TWO, POLICY, NOW)) == ["short"]
    three = Resources(cpus=3)
    beside = [waiting("one", timeout_s=9e6), waiting("two", timeout_s=9e6)]
    chosen = started(decide([waiting("big", cpus=2, at=-90), *beside], [holding("r", cpus=2)], three, POLICY, NOW))
    assert chosen == ["one"]


def test_a_job_that_failed_waits_out_its_delay() -> None:
    decision = of(decide([waiting("w", not_before=7)], [], TWO, POLICY, NOW), "w")
    assert isinstance(decision, Wait)
    assert "7 s" in decision.reason
    assert started(decide([waiting("w", not_before=-1)], [], TWO, POLICY, NOW)) == ["w"]


projects = st.sampled_from(["a", "b", "c"])
sizes = st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0])
memories = st.integers(0, 6).map(lambda units: units * 2**30)
queues = st.lists(
    st.builds(
        lambda project, priority, age, cpus, memory_bytes, timeout_s, not_before: waiting(
            "x",
            project=project,
            priority=priority,
            at=-age,
            cpus=cpus,
            memory_bytes=memory_bytes,
            timeout_s=timeout_s,
            not_before=not_before,
        ),
        projects,
        st.integers(-100, 100),
        st.floats(0, 1e5),
        sizes,
        memories,
        st.floats(1, 1e5),
        st.none() | st.floats(-100, 100),
    ),
    max_size=25,
).map(lambda jobs: [_named(job, f"q{number}") for number, job in enumerate(jobs)])
runnings = st.lists(
    st.builds(
        lambda project, cpus, ends: holding("x", project=project, cpus=cpus, ends=ends),
        projects,
        sizes,
        st.floats(-5, 1e4),
    ),
    max_size=4,
).map(lambda jobs: [_held(job, f"r{number}") for number, job in enumerate(jobs)])


def _named(job: Waiting, name: str) -> Waiting:
    return Waiting(**{**{field: getattr(job, field) for field in job.__struct_fields__}, "id": name})


def _held(job: Holding, name: str) -> Holding:
    return Holding(**{**{field: getattr(job, field) for field in job.__struct_fields__}, "id": name})


@given(queues, runnings)
def test_never_over_capacity_and_every_job_has_one_decision_with_a_reason(
    queue: list[Waiting], running: list[Holding]
) -> None:
    decisions = decide(queue, running, TWO, POLICY, NOW)
    assert sorted(decision.job for decision in decisions) == sorted(job.id for job in queue)
    assert all(decision.reason for decision in decisions)
    by_id = {job.id: job for job in queue}
    new = [by_id[name].resources for name in started(decisions)]
    held = [job.resources for job in running]
    if new:
        assert sum(one.cpus for one in [*new, *held]) <= TWO.cpus + 1e-4
    if any(one.memory_bytes for one in new):
        assert sum(one.memory_bytes for one in [*new, *held]) <= TWO.memory_bytes
    for job in queue:
        decision = of(decisions, job.id)
        if isinstance(decision, Start):
            assert job.not_before is None or job.not_before <= NOW
        assert isinstance(decision, Refuse) == (job.resources.cpus > 2 or job.resources.memory_bytes > 8 * 2**30)


@given(queues, runnings, st.randoms(use_true_random=False))
def test_the_decision_does_not_depend_on_the_order_of_what_is_given(
    queue: list[Waiting], running: list[Holding], random: object
) -> None:
    shuffled, held = list(queue), list(running)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = decide(queue, running, TWO, POLICY, NOW)
    assert started(decide(shuffled, held, TWO, POLICY, NOW)) == started(first)


@given(queues)
def test_an_empty_machine_never_stays_empty_while_something_could_run(queue: list[Waiting]) -> None:
    decisions = decide(queue, [], TWO, POLICY, NOW)
    possible = [
        job
        for job in queue
        if (job.not_before is None or job.not_before <= NOW) and not isinstance(of(decisions, job.id), Refuse)
    ]
    assert bool(started(decisions)) == bool(possible)


Arrival = tuple[str, float, float, int]


def waited_s(victim: Waiting, stream: list[Arrival], policy: Policy, limit_s: float) -> float:
    """How long `victim` waits while the stream keeps the queue full; `limit_s` where it is still waiting then."""
    queue, running = [victim], []
    clock, arrivals = 0.0, 0
    while clock < limit_s:
        running = [job for job in running if job.ends_by > after(clock)]
        while len(queue) < 8:
            project, cpus, timeout_s, priority = stream[arrivals % len(stream)]
            arrivals += 1
            name = f"s{arrivals}"
            queue.append(waiting(name, project=project, cpus=cpus, timeout_s=timeout_s, priority=priority, at=clock))
        chosen = set(started(decide(queue, running, TWO, policy, after(clock))))
        if victim.id in chosen:
            return clock
        for job in [job for job in queue if job.id in chosen]:
            running.append(holding(job.id, project=job.project, cpus=job.resources.cpus, ends=clock + job.timeout_s))
        queue = [job for job in queue if job.id not in chosen]
        clock += 5.0
    return limit_s


STAGGERED: list[Arrival] = [("a", 1.0, 5.0, 5), *[("a", 1.0, 10.0, 5)] * 3000]


def test_a_big_job_starves_without_the_reservation_and_not_with_it() -> None:
    victim = waiting("victim", project="a", cpus=2, priority=0, at=0, timeout_s=60)
    assert waited_s(victim, STAGGERED, Policy(point_s=60, reserve_after_s=1e9), 5_000) == 5_000
    assert waited_s(victim, STAGGERED, Policy(point_s=60, reserve_after_s=60), 5_000) < 5 * 60 + 100


def test_a_job_of_low_priority_waits_as_long_as_its_rank_says() -> None:
    victim = waiting("victim", project="a", cpus=1, priority=-5, at=0, timeout_s=60)
    assert 10 * 60 <= waited_s(victim, STAGGERED, Policy(point_s=60), 5_000) < 10 * 60 + 100


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(projects, st.sampled_from([0.5, 1.0, 2.0]), st.floats(1, 120), st.integers(0, 5)),
        min_size=1,
        max_size=120,
    ),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.integers(-5, 0),
)
def test_nobody_starves(stream: list[Arrival], cpus: float, priority: int) -> None:
    victim = waiting("victim", project="a", cpus=cpus, priority=priority, at=0, timeout_s=60)
    limit_s = 10 * 60 + 3600.0
    assert waited_s(victim, stream, Policy(point_s=60, reserve_after_s=60), limit_s) < limit_s
