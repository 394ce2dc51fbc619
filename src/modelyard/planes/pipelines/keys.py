"""What a step is known by: pure functions from a plan and the values of a run to bound inputs and cache keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from modelyard.kernel.errors import InvalidInput
from modelyard.types.pipelines import (
    DatasetRef,
    Input,
    ListOf,
    MapOf,
    Output,
    OutputRef,
    Param,
    ParamRef,
    Plan,
    Step,
    Value,
    leaves,
)

KEY_VERSION = 1
"""Part of every key: raised when what a key covers changes, so that old entries are not found."""

STEPS_MAX = 1_000
TASK_CHARACTERS_MAX = 500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,103}")
_DATASET = re.compile(r"(?P<name>[^@]{1,255})(?:@(?P<ref>[^@]{1,255}))?")
_CHECKS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}


def canonical(value: Any) -> bytes:
    """Bytes that are equal for equal values, whatever the order in which dicts were filled."""
    return msgspec.json.encode(value, order="sorted")


def digest_of(value: Any) -> str:
    """The SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


# --- params -------------------------------------------------------------------------------------------------------


def complete_params(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """All params of a run: what was given, else the defaults. Raises InvalidInput, naming all that is wrong."""
    known = {param.name: param for param in plan.params}
    wrong = [f"'{name}' is no parameter" for name in given if name not in known]
    params: dict[str, Any] = {}
    for param in plan.params:
        if param.name not in given:
            if param.required:
                wrong.append(f"'{param.name}' is not given")
            params[param.name] = param.default
            continue
        try:
            params[param.name] = _convert(param, given[param.name])
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        shown = ", ".join(f"{param.name}{'' if param.required else f'={param.default!r}'}" for param in plan.params)
        raise InvalidInput(
            f"pipeline '{plan.name}' cannot be run so: {'; '.join(wrong)}",
            code="pipeline.params_invalid",
            hint=f"its parameters are: {shown}" if shown else "it has no parameters",
        )
    return params


def _convert(param: Param, value: Any) -> Any:
    if param.kind == "any" or (value is None and param.default is None and not param.required):
        return value
    if param.kind == "dataset":
        return msgspec.to_builtins(_dataset(param, value))
    if not isinstance(value, _CHECKS[param.kind]) or (isinstance(value, bool) and param.kind != "bool"):
        raise ValueError(f"'{param.name}' must be {param.kind}, not {value!r:.80}")
    return float(value) if param.kind == "float" and isinstance(value, int | float) else value


def _dataset(param: Param, value: Any) -> DatasetRef:
    if isinstance(value, str) and (match := _DATASET.fullmatch(value)):
        ref = match["ref"]
        return DatasetRef(match["name"], int(ref) if ref and ref.isdigit() else ref)
    try:
        return msgspec.convert(value, DatasetRef)
    except msgspec.ValidationError as error:
        raise ValueError(f"'{param.name}' must be a dataset, written 'name', 'name@7' or 'name@tag'") from error


# --- datasets -----------------------------------------------------------------------------------------------------


def dataset_refs(plan: Plan, params: Mapping[str, Any]) -> dict[str, DatasetRef]:
    """Every dataset that a run refers to, by label: in its steps and in the params that they use."""
    found: dict[str, DatasetRef] = {}
    for step in plan.steps:
        for given in step.inputs.values():
            for leaf in leaves(given):
                ref = plan.dataset_of(leaf, params)
                if ref is not None:
                    found[ref.label] = ref
    return found


# --- inputs -------------------------------------------------------------------------------------------------------


def needs(step: Step) -> list[str]:
    """The steps whose outputs a step takes."""
    found = [leaf.step for given in step.inputs.values() for leaf in leaves(given) if isinstance(leaf, OutputRef)]
    return list(dict.fromkeys(found))


def bind(given: Input, plan: Plan, params: Mapping[str, Any], datasets: Mapping[str, int]) -> Input:
    """The input with params filled in and datasets pinned; references to outputs stay."""
    if isinstance(given, ListOf):
        return ListOf([bind(item, plan, params, datasets) for item in given.items])
    if isinstance(given, MapOf):
        return MapOf({key: bind(item, plan, params, datasets) for key, item in given.items.items()})
    ref = plan.dataset_of(given, params)
    if ref is not None:
        return DatasetRef(ref.name, datasets[ref.label])
    return Value(params[given.name]) if isinstance(given, ParamRef) else given


def bind_step(step: Step, plan: Plan, params: Mapping[str, Any], datasets: Mapping[str, int]) -> dict[str, Input]:
    """All inputs of a step, bound."""
    return {name: bind(given, plan, params, datasets) for name, given in step.inputs.items()}


def step_key(step: Step, bound: Mapping[str, Input], outputs: Mapping[str, Output], env_hash: str) -> str:
    """What the cache knows a step by: equal exactly when code, inputs by content, params and environment are equal."""
    inputs = {name: _content(given, outputs) for name, given in bound.items()}
    return digest_of([KEY_VERSION, step.task, step.code_hash, inputs, env_hash])


def _content(given: Input, outputs: Mapping[str, Output]) -> Any:
    match given:
        case Value():
            return ["value", given.value]
        case DatasetRef():
            return ["dataset", given.name, given.ref]
        case OutputRef():
            return ["output", outputs[given.step].format, outputs[given.step].digest, given.path]
        case ListOf():
            return ["list", [_content(item, outputs) for item in given.items]]
        case MapOf():
            return ["map", {key: _content(item, outputs) for key, item in given.items.items()}]
        case ParamRef():
            raise ValueError(f"parameter '{given.name}' is not bound")


def resolve(given: Input, outputs: Mapping[str, Output]) -> Any:
    """The plain value of a bound input, or None where some of it is not at hand as a plain value."""
    try:
        return _resolve(given, outputs)
    except LookupError:
        return None


def _resolve(given: Input, outputs: Mapping[str, Output]) -> Any:
    match given:
        case Value():
            return given.value
        case DatasetRef():
            return f"dataset:{given.name}@{given.ref}"
        case OutputRef():
            output = outputs[given.step]
            if not output.inline:
                raise LookupError(given.step)
            value = output.value
            for part in given.path:
                value = _part(value, part)
            return value
        case ListOf():
            return [_resolve(item, outputs) for item in given.items]
        case MapOf():
            return {key: _resolve(item, outputs) for key, item in given.items.items()}
        case ParamRef():
            raise LookupError(given.name)


def _part(value: Any, part: str | int) -> Any:
    if isinstance(value, dict):
        return value[part]
    if isinstance(value, list) and isinstance(part, int):
        return value[part]
    raise LookupError(part)


# --- plans --------------------------------------------------------------------------------------------------------


def check_plan(plan: Plan) -> None:
    """Raise InvalidInput for a plan that no pipeline function yields: it may have come over the wire from anywhere."""
    seen: set[str] = set()
    params = {param.name for param in plan.params}
    if not plan.steps or len(plan.steps) > STEPS_MAX:
        raise _invalid(plan, f"it has {len(plan.steps)} steps; from 1 to {STEPS_MAX} are allowed")
    for name in (plan.name, *(step.name for step in plan.steps)):
        if not _NAME.fullmatch(name):
            raise _invalid(plan, f"{name[:80]!r} is no name: it takes at most 100 letters, digits, '_', '.' and '-'")
    for step in plan.steps:
        if step.name in seen:
            raise _invalid(plan, f"two steps are called '{step.name}'")
        module, _, function = step.task.partition(":")
        if len(step.task) > TASK_CHARACTERS_MAX or not (
            all(part.isidentifier() for part in module.split(".")) and function.isidentifier()
        ):
            raise _invalid(plan, f"'{step.task[:100]}' is not a task, written 'module:function'")
        for given in step.inputs.values():
            _check_leaves(plan, f"step '{step.name}'", given, seen, params)
        seen.add(step.name)
    _check_leaves(plan, "the result", plan.result, seen, params)


def _check_leaves(plan: Plan, what: str, given: Input, steps: set[str], params: set[str]) -> None:
    for leaf in leaves(given):
        if isinstance(leaf, OutputRef) and leaf.step not in steps:
            raise _invalid(plan, f"{what} takes the output of '{leaf.step}', which is no step before it")
        if isinstance(leaf, ParamRef) and leaf.name not in params:
            raise _invalid(plan, f"{what} takes the parameter '{leaf.name}', which there is not")


def _invalid(plan: Plan, why: str) -> InvalidInput:
    return InvalidInput(f"the plan of pipeline '{plan.name[:100]}' cannot be run: {why}", code="pipeline.plan_invalid")
