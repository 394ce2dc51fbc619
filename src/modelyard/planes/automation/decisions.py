"""What a trigger makes of an event, and what becomes of the challenger: pure, each answer with its reason.

No promotion on doubt: an alias without gates, a gate that failed or lacks evidence, a policy that never compares with
the champion: each ends without a promotion, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.types.automation import FINAL_STATES, OnDataset, OnEvent, Promotion, Response, Scalar, TriggerSpec
from modelyard.types.registry import Decision

DATASET_PUBLISHED = "dataset.version_published"
ROOTS = ("id", "kind", "subject", "at", "data")
_TEMPLATE = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"event((?:\.[A-Za-z0-9_-]+)+)")


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """What a trigger reacts to: an event of the log, or its own schedule come due."""

    id: str
    kind: str
    subject: str
    at: datetime
    data: dict[str, Any] = {}


class Fire(msgspec.Struct, frozen=True, kw_only=True):
    """Start the pipeline, with these params."""

    params: dict[str, Any]
    reason: str


class Suppress(msgspec.Struct, frozen=True, kw_only=True):
    """Start nothing."""

    reason: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a challenger. `approve`: record an automated approval and ask again."""

    action: Literal["promote", "approve", "drop", "wait", "keep"]
    reason: str


def matches(on: OnEvent | OnDataset, cause: Cause) -> bool:
    """Whether an event is one that a trigger waits for."""
    if isinstance(on, OnDataset):
        # The subject is `dataset:<name>@<version>`, or without the version.
        return cause.kind == DATASET_PUBLISHED and cause.subject.rpartition("@")[0] == f"dataset:{on.dataset}"
    if cause.kind != on.kind:
        return False
    return all(_equals(_field(cause.data, path.split(".")), wanted) for path, wanted in on.match.items())


def decide(spec: TriggerSpec, cause: Cause, history: Sequence[Response], now: datetime) -> Fire | Suppress:
    """Whether a trigger fires on an event that matches it. `history` are its own responses."""
    if not spec.enabled:
        return Suppress(reason="suppressed because the trigger is switched off")
    fired = [one for one in history if one.state != "suppressed"]
    going = next((one for one in fired if one.state not in FINAL_STATES), None)
    if going is not None:
        return Suppress(reason=f"suppressed because response {going.id} of this trigger is not over yet")
    last = max((one.created_at for one in fired), default=None)
    if last is not None and now < last + timedelta(seconds=spec.cooldown_s):
        wait_s = spec.cooldown_s - (now - last).total_seconds()
        return Suppress(reason=f"suppressed because the cooldown of {spec.cooldown_s:g} s has {wait_s:.0f} s to go")
    recent = [one for one in fired if one.created_at > now - timedelta(seconds=spec.storm_window_s)]
    if len(recent) >= spec.storm_runs_max:
        return Suppress(
            reason=f"suppressed because {len(recent)} runs were started within {spec.storm_window_s:g} s, the most "
            "there may be; look into why it fires so often"
        )
    try:
        params = fill(spec.start.params, cause)
    except InvalidInput as error:
        return Suppress(reason=f"suppressed because {error.message}")
    return Fire(params=params, reason=f"fired on {cause.kind} of {cause.subject}")


def check_templates(params: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a template that no event could fill."""
    for text in _texts(params):
        for template in _TEMPLATE.findall(text):
            _path(template)


def fill(params: Mapping[str, Any], cause: Cause) -> dict[str, Any]:
    """The params with their templates replaced. A param that is one template keeps the field's type.

    Nothing is evaluated: a template is a path of names, looked up in plain data. Raises InvalidInput where the event
    lacks the field.
    """
    return {name: _filled(value, cause) for name, value in params.items()}


def judge(policy: Promotion, decision: Decision, champion: int | None, automation_counts: bool) -> Verdict:
    """What becomes of the challenger by the registry's answer.

    `champion` is the version that the alias names now. `automation_counts`: the model's own policy accepts the approval
    of an automation as one of those that it requires.
    """
    if champion == decision.version:
        return Verdict(action="keep", reason=f"version {decision.version} is the {policy.alias} already")
    if not decision.guarded:
        return Verdict(
            action="wait",
            reason=f"alias '{policy.alias}' of model '{decision.model}' has no policy, and automation promotes only "
            "through gates: declare one, or promote it by hand",
        )
    unmet = [gate for gate in decision.gates if gate.status != "passed"]
    if unmet:
        return Verdict(action="drop", reason="; ".join(f"{gate.name}: {gate.reason}" for gate in unmet))
    if policy.better_than_champion and champion is not None and not _surely_better(decision, champion):
        return Verdict(
            action="drop",
            reason=f"it is not known to be better than version {champion}: the policy of '{decision.model}' "
            "does not compare with the champion on the same rows",
        )
    if not decision.approvals.enough:
        return _judge_approvals(policy, decision, automation_counts)
    if not decision.promotable:
        return Verdict(action="drop", reason="; ".join(decision.reasons) or "the registry refuses it without a reason")
    return Verdict(action="promote", reason=_why_better(decision))


def _judge_approvals(policy: Promotion, decision: Decision, automation_counts: bool) -> Verdict:
    have, need = len(decision.approvals.by), decision.approvals.required
    if policy.approve and automation_counts and have + 1 >= need:
        return Verdict(action="approve", reason=_why_better(decision))
    return Verdict(action="wait", reason=f"all gates passed, and it has {have} of {need} approvals: a person decides")


def _surely_better(decision: Decision, champion: int) -> bool:
    comparison = decision.comparison
    if decision.champion != champion:
        return False
    return comparison is not None and comparison.lower is not None and comparison.lower > 0.0


def _why_better(decision: Decision) -> str:
    passed = f"all {len(decision.gates)} gates passed"
    comparison = decision.comparison
    if comparison is None or comparison.difference is None or comparison.lower is None:
        return passed
    return (
        f"{passed}: {comparison.metric} better than version {decision.champion} by {comparison.difference:.4f} (at "
        f"least {comparison.lower:.4f} with {comparison.confidence:.0%} confidence) on the same "
        f"{comparison.rows:,} rows"
    )


def _equals(value: Any, wanted: Scalar | list[Scalar]) -> bool:
    if isinstance(wanted, list):
        return any(_equals(value, one) for one in wanted)
    # True == 1 in Python; in an event they are different things.
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)


def _field(data: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(data, Mapping) or name not in data:
            return None
        data = data[name]
    return data


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case Mapping():
            return [text for one in value.values() for text in _texts(one)]
        case list() | tuple():
            return [text for one in value for text in _texts(one)]
        case _:
            return []


def _filled(value: Any, cause: Cause) -> Any:
    match value:
        case str():
            whole = _TEMPLATE.fullmatch(value)
            if whole is not None:
                return _looked_up(whole[1], cause)
            return _TEMPLATE.sub(lambda found: _as_text(_looked_up(found[1], cause)), value)
        case Mapping():
            return {name: _filled(one, cause) for name, one in value.items()}
        case list() | tuple():
            return [_filled(one, cause) for one in value]
        case _:
            return value


def _looked_up(template: str, cause: Cause) -> Any:
    fields = {"id": cause.id, "kind": cause.kind, "subject": cause.subject, "data": cause.data}
    value = _field({**fields, "at": cause.at.isoformat()}, _path(template))
    if value is None:
        raise InvalidInput(
            f"the event has no field '{template.removeprefix('event.')}', which a param needs",
            code="trigger.template_unfilled",
            hint="look at the event's data with `modelyard audit list`",
        )
    return value


def _path(template: str) -> list[str]:
    found = _PATH.fullmatch(template)
    path = found[1].split(".")[1:] if found else []
    if not path or path[0] not in ROOTS or (path[0] != "data" and len(path) > 1):
        raise InvalidInput(
            f"'{{{template[:80]}}}' names no field of an event",
            code="trigger.template_invalid",
            hint="write {event.id}, {event.kind}, {event.subject}, {event.at} or {event.data.<field>}",
        )
    return path


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
