"""Step keys, params and plans: pure decisions, so they are asked for what holds always."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.pipelines.keys import (
    bind_step,
    check_plan,
    complete_params,
    dataset_refs,
    resolve,
    step_key,
)
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
)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
inputs: st.SearchStrategy[Input] = st.recursive(
    plain.map(Value)
    | st.builds(OutputRef, st.sampled_from(["a", "b"]), st.lists(st.text(max_size=3) | st.integers(0, 9), max_size=2))
    | st.builds(DatasetRef, st.sampled_from(["x", "y"]), st.integers(1, 9)),
    lambda inner: (
        st.lists(inner, max_size=3).map(ListOf) | st.dictionaries(st.text(max_size=3), inner, max_size=3).map(MapOf)
    ),
    max_leaves=6,
)
OUTPUTS = {name: Output(digest=name * 64, format="json", size_bytes=1) for name in "ab"}


def step(**changes: Any) -> Step:
    return Step(**{"name": "s", "task": "m:f", "code_hash": "c" * 64, **changes})


def key(bound: dict[str, Input], outputs: dict[str, Output] = OUTPUTS, env: str = "e", **changes: Any) -> str:
    return step_key(step(**changes), bound, outputs, env)


@given(st.dictionaries(st.text(min_size=1, max_size=5), inputs, max_size=4), st.randoms(use_true_random=False))
def test_a_key_does_not_depend_on_the_order_of_inputs_or_on_the_way_over_the_wire(
    bound: dict[str, Input], random: Any
) -> None:
    names = list(bound)
    random.shuffle(names)
    travelled = msgspec.json.decode(msgspec.json.encode({name: bound[name] for name in names}), type=dict[str, Input])
    assert key(travelled) == key(bound)
    assert len(key(bound)) == 64


@given(inputs, inputs)
def test_different_inputs_have_different_keys(one: Input, other: Input) -> None:
    same = msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
    assert (key({"x": one}) == key({"x": other})) == same


@given(plain, st.text(min_size=1), digests, digests)
def test_everything_that_counts_changes_the_key_and_nothing_else_does(
    value: Any, text: str, code: str, digest: str
) -> None:
    bound: dict[str, Input] = {"x": Value(value), "y": OutputRef("a")}
    before = key(bound)
    assert key(bound, name="renamed", retries=3, timeout_s=1.0, cache=False) == before
    assert key(bound, code_hash=code) != before
    assert key(bound, task=f"m:{text}") != before or text == "f"
    assert key(bound, env=f"e{text}") != before
    assert key({"z" if name == "x" else name: given for name, given in bound.items()}) != before
    assert key(bound, {**OUTPUTS, "a": Output(digest=digest, format="json", size_bytes=1)}) != before
    assert key(bound, {**OUTPUTS, "a": Output(digest="a" * 64, format="pickle", size_bytes=1)}) != before
    assert key(bound, {**OUTPUTS, "a": Output(digest="a" * 64, format="json", size_bytes=9)}) == before


def test_the_same_output_of_another_step_is_the_same_input() -> None:
    same = {"a": OUTPUTS["a"], "b": OUTPUTS["a"]}
    assert key({"x": OutputRef("a")}, same) == key({"x": OutputRef("b")}, same)


def test_an_integer_and_a_float_are_not_the_same() -> None:
    assert key({"x": Value(1)}) != key({"x": Value(1.0)})


PLAN = Plan(
    name="p",
    params=[
        Param(name="n", kind="int", required=True),
        Param(name="rate", kind="float", default=0.5),
        Param(name="name", kind="str", default=None),
        Param(name="data", kind="dataset", default={"from": "dataset", "name": "flights", "ref": None}),
        Param(name="free", default=[1]),
    ],
    steps=[
        step(name="a", inputs={"n": ParamRef("n"), "d": ParamRef("data"), "w": DatasetRef("weather", "stable")}),
        step(name="b", inputs={"all": ListOf([OutputRef("a"), MapOf({"r": ParamRef("rate")})])}),
    ],
    result=MapOf({"x": OutputRef("a", ["k", 1]), "n": ParamRef("n")}),
)


def test_params_are_completed_converted_and_pinned() -> None:
    params = complete_params(PLAN, {"n": 3, "rate": 1, "data": "flights@7"})
    assert params == {
        "n": 3,
        "rate": 1.0,
        "name": None,
        "data": {"from": "dataset", "name": "flights", "ref": 7},
        "free": [1],
    }
    assert isinstance(params["rate"], float)
    refs = dataset_refs(PLAN, params)
    assert refs == {"flights@7": DatasetRef("flights", 7), "weather@stable": DatasetRef("weather", "stable")}
    pinned = {"flights@7": 7, "weather@stable": 2}
    assert bind_step(PLAN.steps[0], PLAN, params, pinned) == {
        "n": Value(3),
        "d": DatasetRef("flights", 7),
        "w": DatasetRef("weather", 2),
    }
    assert bind_step(PLAN.steps[1], PLAN, params, pinned) == {"all": ListOf([OutputRef("a"), MapOf({"r": Value(1.0)})])}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "'n' is not given"),
        ({"n": "3"}, "'n' must be int, not '3'"),
        ({"n": True}, "'n' must be int"),
        ({"n": 1.5}, "'n' must be int"),
        ({"n": 1, "rate": "x"}, "'rate' must be float"),
        ({"n": 1, "name": 3}, "'name' must be str"),
        ({"n": 1, "data": 3}, "'data' must be a dataset"),
        ({"n": 1, "data": "a@b@c"}, "'data' must be a dataset"),
        ({"n": 1, "nn": 2}, "'nn' is no parameter"),
    ],
)
def test_wrong_params_are_named(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        complete_params(PLAN, given)
    assert "rate=0.5" in refused.value.hint


def test_results_that_are_not_at_hand_are_none() -> None:
    inline = Output(digest="", format="json", size_bytes=1, inline=True, value={"k": [1, 2]})
    assert resolve(MapOf({"x": OutputRef("a", ["k", 1]), "y": Value(3)}), {"a": inline}) == {"x": 2, "y": 3}
    assert resolve(OutputRef("a", ["absent"]), {"a": inline}) is None
    assert resolve(OutputRef("a"), {"a": OUTPUTS["a"]}) is None


@pytest.mark.parametrize(
    "plan",
    [
        Plan(name="p"),
        Plan(name="p", steps=[step(), step()]),
        Plan(name="p" * 200, steps=[step()]),
        Plan(name="../p", steps=[step()]),
        Plan(name="p", steps=[step(name="a b")]),
        Plan(name="p", steps=[step(task=f"m:{'f' * 600}")]),
        Plan(name="p", steps=[step(name=f"s{number}") for number in range(1001)]),
        Plan(name="p", steps=[step(task="os:system;x")]),
        Plan(name="p", steps=[step(task="f")]),
        Plan(name="p", steps=[step(task="..:f")]),
        Plan(name="p", steps=[step(name="a", inputs={"x": OutputRef("b")}), step(name="b")]),
        Plan(name="p", steps=[step(name="a", inputs={"x": ListOf([OutputRef("a")])})]),
        Plan(name="p", steps=[step(inputs={"x": ParamRef("n")})]),
        Plan(name="p", steps=[step()], result=OutputRef("other")),
    ],
)
def test_plans_that_no_pipeline_yields_are_refused(plan: Plan) -> None:
    with pytest.raises(InvalidInput, match="cannot be run"):
        check_plan(plan)
    check_plan(PLAN)
