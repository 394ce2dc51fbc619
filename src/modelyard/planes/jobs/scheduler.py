"""Who runs next, and why not: a pure function of the queue, what runs, the capacity and the time.

Within a project jobs are ranked by *virtual submit time*: when they were submitted, less what their priority is worth
in waiting (`Policy.point_s` a point). The rank of a job never changes while later ones come ever later, so only
finitely many can ever pass it: priorities cannot starve anybody. Between projects the next start goes to whoever holds
the smallest dominant share (the larger of its parts of CPUs and memory, over its weight); equal shares go by rank.

A job that does not fit is passed by smaller ones, until it has waited `reserve_after_s` at the head. From then on it
has a reservation: the earliest time by which, by the timeouts of what runs, enough will be free. Others may only start
if they end before that time, or leave enough room for it then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from modelyard.types.jobs import Resources

CPU_UNIT = 1e-6
"""CPUs are compared with this slack, since sums of fractions are not exact."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the queue. `not_before`: it was put back after a failure and shall wait until then."""

    id: str
    project: str
    priority: int
    submitted_at: datetime
    resources: Resources
    timeout_s: float
    not_before: datetime | None = None


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A job that runs, and so holds resources until `ends_by` at the latest."""

    id: str
    project: str
    priority: int
    resources: Resources
    ends_by: datetime


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs. `weights` of projects, 1 where not named."""

    point_s: float = 600.0
    reserve_after_s: float = 60.0
    weights: dict[str, float] = {}


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Start this job now."""

    job: str
    reason: str


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Leave it in the queue. `blockers` are the running jobs that it waits for."""

    job: str
    reason: str
    blockers: tuple[str, ...] = ()


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """It asks for more than there is: it could wait for ever."""

    job: str
    reason: str


Decision = Start | Wait | Refuse


class _Reservation(msgspec.Struct, frozen=True):
    job: str
    at: datetime
    spare: Resources


def rank(job: Waiting, policy: Policy) -> tuple[datetime, str]:
    """The place of a job in its project: lower goes first."""
    return job.submitted_at - timedelta(seconds=job.priority * policy.point_s), job.id


def decide(
    queue: Sequence[Waiting], running: Sequence[Holding], capacity: Resources, policy: Policy, now: datetime
) -> list[Decision]:
    """One decision for every job of the queue, in the order in which they were considered."""
    held = list(running)
    free = _minus(capacity, _total(job.resources for job in held))
    ready: list[Waiting] = []
    decisions: list[Decision] = []
    for job in queue:
        early = _decide_early(job, capacity, now)
        if early is None:
            ready.append(job)
        else:
            decisions.append(early)
    reservation: _Reservation | None = None
    for job in _in_order(ready, held, capacity, policy):
        blocked = _why_blocked(job, free, reservation, held, capacity, now)
        if blocked is None:
            held.append(_holding(job, now))
            free = _minus(free, job.resources)
            if reservation is not None and _ends_by(job, now) > reservation.at:
                reservation = msgspec.structs.replace(reservation, spare=_minus(reservation.spare, job.resources))
            decisions.append(Start(job=job.id, reason=_why_started(job, reservation)))
            continue
        decisions.append(blocked)
        if reservation is None and (now - job.submitted_at).total_seconds() >= policy.reserve_after_s:
            reservation = _reserve(job, held, capacity, now)
    return decisions


def _decide_early(job: Waiting, capacity: Resources, now: datetime) -> Wait | Refuse | None:
    if not _fits(job.resources, capacity):
        return Refuse(
            job=job.id,
            reason=f"it asks for {_in_words(job.resources)}, more than the {_in_words(capacity)} that there are at all",
        )
    if job.not_before is not None and job.not_before > now:
        wait_s = (job.not_before - now).total_seconds()
        return Wait(job=job.id, reason=f"waiting: the last attempt failed, the next one starts in {wait_s:.0f} s")
    return None


def _in_order(
    ready: Sequence[Waiting], held: Sequence[Holding], capacity: Resources, policy: Policy
) -> Iterable[Waiting]:
    """The jobs in the order of their claim. `held` grows as they are started, and with it the shares change."""
    queues: dict[str, list[Waiting]] = defaultdict(list)
    for job in sorted(ready, key=lambda job: rank(job, policy), reverse=True):
        queues[job.project].append(job)
    used: dict[str, Resources] = defaultdict(lambda: Resources(cpus=0.0))
    counted = 0
    while queues:
        for one in held[counted:]:
            used[one.project] = _plus(used[one.project], one.resources)
        counted = len(held)
        project = min(
            queues,
            key=lambda name: (
                _share(used[name], capacity) / policy.weights.get(name, 1.0),
                rank(queues[name][-1], policy),
            ),
        )
        yield queues[project].pop()
        if not queues[project]:
            del queues[project]


def _share(used: Resources, capacity: Resources) -> float:
    cpus = used.cpus / capacity.cpus if capacity.cpus else 0.0
    memory = used.memory_bytes / capacity.memory_bytes if capacity.memory_bytes else 0.0
    # Rounded, so that sums of fractions that mean the same compare as the same.
    return round(max(cpus, memory), 9)


def _why_blocked(
    job: Waiting,
    free: Resources,
    reservation: _Reservation | None,
    held: Sequence[Holding],
    capacity: Resources,
    now: datetime,
) -> Wait | None:
    if not _fits(job.resources, free):
        return _wait_for_room(job, free, held, capacity)
    if reservation is None or _ends_by(job, now) <= reservation.at or _fits(job.resources, reservation.spare):
        return None
    return Wait(
        job=job.id,
        reason=f"waiting: what is free is kept for job {reservation.job}, which has waited long and comes first",
        blockers=(reservation.job,),
    )


def _wait_for_room(job: Waiting, free: Resources, held: Sequence[Holding], capacity: Resources) -> Wait:
    if job.resources.cpus > free.cpus + CPU_UNIT:
        used = f"{_number(capacity.cpus - free.cpus)} of {_number(capacity.cpus)} CPUs are in use"
        need = f"needs {_number(job.resources.cpus)}"
        holders = [one for one in held if one.resources.cpus > 0]
    else:
        used = f"{_bytes(capacity.memory_bytes - free.memory_bytes)} of {_bytes(capacity.memory_bytes)} are in use"
        need = f"needs {_bytes(job.resources.memory_bytes)}"
        holders = [one for one in held if one.resources.memory_bytes > 0]
    shown = ", ".join(_holder_in_words(one, job) for one in holders[:3])
    more = f" and {len(holders) - 3} more" if len(holders) > 3 else ""
    return Wait(
        job=job.id,
        reason=f"waiting: {used} by {shown}{more}; it {need}, and starts when enough of them have ended",
        blockers=tuple(one.id for one in holders),
    )


def _holder_in_words(holder: Holding, job: Waiting) -> str:
    if holder.project != job.project:
        return "a job of another project"
    if holder.priority != job.priority:
        return f"job {holder.id} ({'higher' if holder.priority > job.priority else 'lower'} priority)"
    return f"job {holder.id}"


def _why_started(job: Waiting, reservation: _Reservation | None) -> str:
    if reservation is None:
        return f"{_in_words(job.resources)} are free and nothing comes before it"
    return f"it fits beside job {reservation.job}, which comes first and loses nothing by it"


def _reserve(job: Waiting, held: Sequence[Holding], capacity: Resources, now: datetime) -> _Reservation:
    free = _minus(capacity, _total(one.resources for one in held))
    at = now
    for one in sorted(held, key=lambda one: (one.ends_by, one.id)):
        if _fits(job.resources, free):
            break
        free = _plus(free, one.resources)
        at = max(at, one.ends_by)
    return _Reservation(job.id, at, _minus(free, job.resources))


def _holding(job: Waiting, now: datetime) -> Holding:
    return Holding(
        id=job.id,
        project=job.project,
        priority=job.priority,
        resources=job.resources,
        ends_by=_ends_by(job, now),
    )


def _ends_by(job: Waiting, now: datetime) -> datetime:
    return now + timedelta(seconds=job.timeout_s)


def _fits(wanted: Resources, free: Resources) -> bool:
    return wanted.cpus <= free.cpus + CPU_UNIT and wanted.memory_bytes <= max(free.memory_bytes, 0)


def _plus(one: Resources, other: Resources) -> Resources:
    return Resources(cpus=one.cpus + other.cpus, memory_bytes=one.memory_bytes + other.memory_bytes)


def _minus(one: Resources, other: Resources) -> Resources:
    return Resources(cpus=one.cpus - other.cpus, memory_bytes=one.memory_bytes - other.memory_bytes)


def _total(many: Iterable[Resources]) -> Resources:
    total = Resources(cpus=0.0)
    for one in many:
        total = _plus(total, one)
    return total


def _in_words(resources: Resources) -> str:
    memory = f" and {_bytes(resources.memory_bytes)} of memory" if resources.memory_bytes else ""
    return f"{_number(resources.cpus)} CPUs{memory}"


def _number(value: float) -> str:
    return f"{max(round(value, 3), 0):g}"


def _bytes(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def reasons(decisions: Iterable[Decision]) -> Mapping[str, str]:
    """The reason of each job that was decided on."""
    return {decision.job: decision.reason for decision in decisions}
