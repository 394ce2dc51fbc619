"""The nouns of automation: triggers, and responses: what a trigger made of an event, up to the verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from modelyard.types.registry import GateResult

Scalar = str | int | float | bool
ResponseState = Literal[
    "suppressed", "starting", "running", "completed", "promoted", "dropped", "unchanged", "waiting", "failed"
]
FINAL_STATES: frozenset[str] = frozenset(
    {"suppressed", "completed", "promoted", "dropped", "unchanged", "waiting", "failed"}
)

Name = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
Seconds = Annotated[float, Meta(ge=0.0)]


class OnEvent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="event", tag_field="on"):
    """When an event of this kind is said. `match` names fields of its data (dots go deeper) and the value, or the list
    of values, that they must have; all must match."""

    kind: str
    match: dict[str, Scalar | list[Scalar]] = {}


class OnDataset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="dataset", tag_field="on"):
    """When a dataset gets a new published version."""

    dataset: str


class OnSchedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="schedule", tag_field="on"):
    """By the clock: either `cron`, five fields in UTC (minute hour day month weekday), or `every_s`, an interval."""

    cron: str = ""
    every_s: Seconds = 0.0


On = OnEvent | OnDataset | OnSchedule


class StartPipeline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pipeline to run. A param may hold `{event.data.window}`: it is replaced by that field of the event."""

    pipeline: str
    params: dict[str, Any] = {}


class Promotion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with the model version that the run made: promote it to `alias` if the registry's gates allow it.

    The version is read from the run's outputs, fields `model` and `version`; with `model`, no other is touched.
    `approve`: record an automated approval where the model's policy accepts those. `better_than_champion`: refuse where
    there is a champion and the policy does not compare with it. A version that does not pass is dropped, with the
    reason.
    """

    model: str | None = None
    alias: str = "champion"
    approve: bool = True
    better_than_champion: bool = True


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events start which pipeline. Between two runs at least `cooldown_s` pass, one run is over before the next
    starts, and within `storm_window_s` there are at most `storm_runs_max`: what comes in between is suppressed, and the
    reason is recorded."""

    name: Name
    on: On
    start: StartPipeline
    then: Promotion | None = None
    cooldown_s: Seconds = 0.0
    storm_runs_max: Annotated[int, Meta(ge=1)] = 5
    storm_window_s: Seconds = 86_400.0
    enabled: bool = True


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """A trigger. `next_at`: when a schedule comes due."""

    id: str
    name: str
    spec: TriggerSpec
    created_at: datetime
    created_by: str
    updated_at: datetime
    next_at: datetime | None = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger made of one event, from its decision to the verdict on the challenger.

    `reason` says why it fired or was suppressed; `verdict` why the challenger was promoted or dropped, or what failed.
    `completed`: the run is over, and nothing was to be promoted; `unchanged`: it gave the champion itself; `waiting`: a
    person has to decide.
    """

    id: str
    trigger: str
    event: str
    event_kind: str
    event_subject: str
    event_at: datetime
    state: ResponseState
    reason: str
    alert: str | None = None
    pipeline: str
    params: dict[str, Any] = {}
    pipeline_run: str | None = None
    model: str | None = None
    challenger: int | None = None
    champion: int | None = None
    verdict: str | None = None
    gates: tuple[GateResult, ...] = ()
    created_at: datetime
    updated_at: datetime


class SetEnabled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Switch a trigger on or off."""

    enabled: bool
