"""Tracing: what a pipeline function compiles to, and what it may not do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.pipelines.keys import check_plan
from modelyard.sdk.tasks import Dataset, Pipeline, is_plain, pipeline, task
from modelyard.types.jobs import Resources
from modelyard.types.pipelines import DatasetRef, ListOf, MapOf, OutputRef, Param, ParamRef, Plan, Value


@task
def load(data: Any, n: int = 3) -> list[int]:
    return list(range(n))


@task(name="fit", cpus=2, memory_bytes=100, timeout_s=5, retries=2, cache=False)
def train(rows: Any, kind: str = "tree") -> dict[str, Any]:
    return {"kind": kind, "rows": rows}


@task
def best(models: Any) -> Any:
    return models[0] if isinstance(models, list) else models


def compiled(flow: Pipeline[..., Any]) -> Plan:
    plan = flow.compile(lambda function: f"hash of {function.__name__}", lambda called: f"here:{called.__name__}")
    check_plan(plan)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    return plan


def test_a_pipeline_compiles_to_steps_that_feed_each_other() -> None:
    @pipeline(name="flights")
    def flow(rate: float = 0.5, data: Dataset = Dataset("flights")) -> Any:
        """Trains."""
        rows = load(data, n=4)
        models = [train.named(f"fit-{kind}")(rows, kind=kind) for kind in ("tree", "forest")]
        chosen = best([*models, {"rate": rate}])
        return {"model": chosen["kind"], "first": models[0]["rows"][0], "fixed": 7}

    plan = compiled(flow)
    assert plan.name == "flights"
    assert plan.description == "Trains."
    assert plan.params == [
        Param(name="rate", kind="float", default=0.5),
        Param(name="data", kind="dataset", default={"from": "dataset", "name": "flights", "ref": None}),
    ]
    assert [step.name for step in plan.steps] == ["load", "fit-tree", "fit-forest", "best"]
    first, tree, _, chosen = plan.steps
    assert first.inputs == {"data": ParamRef("data"), "n": Value(4)}
    assert (first.task, first.code_hash, first.cache) == ("here:load", "hash of load", True)
    assert tree.inputs == {"rows": OutputRef("load"), "kind": Value("tree")}
    assert tree.resources == Resources(cpus=2, memory_bytes=100)
    assert (tree.timeout_s, tree.retries, tree.cache) == (5, 2, False)
    assert chosen.inputs == {
        "models": ListOf([OutputRef("fit-tree"), OutputRef("fit-forest"), MapOf({"rate": ParamRef("rate")})])
    }
    assert plan.result == MapOf(
        {"model": OutputRef("best", ["kind"]), "first": OutputRef("fit-tree", ["rows", 0]), "fixed": Value(7)}
    )


def test_called_as_usual_they_are_plain_functions() -> None:
    @pipeline
    def flow(n: int = 2) -> Any:
        return best([train(load(None, n=n))])

    assert flow(n=3) == {"kind": "tree", "rows": [0, 1, 2]}
    assert load(None, 1) == [0]
    assert compiled(flow).params == [Param(name="n", kind="int", default=2)]
    assert flow() == {"kind": "tree", "rows": [0, 1]}


def test_the_same_task_twice_gets_a_number_and_datasets_and_tuples_can_be_written_in_place() -> None:
    @pipeline
    def flow() -> Any:
        first = load(Dataset("a", 3))
        second = load((1, (2, 3)))
        return best((first, second))

    plan = compiled(flow)
    assert [step.name for step in plan.steps] == ["load", "load-2", "best"]
    assert plan.steps[0].inputs["data"] == DatasetRef("a", 3)
    assert plan.steps[1].inputs["data"] == Value([1, [2, 3]])


LOOKS_INSIDE: list[Callable[[Any], Any]] = [
    lambda value: 1 if value else 2,
    lambda value: value > 3,
    lambda value: value == 3,
    lambda value: value + 1,
    lambda value: 2 * value,
    lambda value: -value,
    lambda value: f"{value}",
    lambda value: str(value),
    lambda value: int(value),
    lambda value: len(value),
    lambda value: list(value),
    lambda value: 1 in value,
    lambda value: value.shape,
    lambda value: value(),
    lambda value: [1, 2, 3][value],
]


@pytest.mark.parametrize("look", LOOKS_INSIDE)
def test_looking_into_what_is_not_known_yet_is_refused_with_the_way_out(look: Callable[[Any], Any]) -> None:
    @pipeline
    def of_param(rate: float = 1.0) -> Any:
        look(rate)
        return load(rate)

    @pipeline
    def of_output() -> Any:
        return look(load(None))

    with pytest.raises(InvalidInput, match="parameter 'rate' has no value while") as refused:
        compiled(of_param)
    assert "@task" in refused.value.hint
    with pytest.raises(InvalidInput, match="output of step 'load' has no value while"):
        compiled(of_output)


def test_a_param_cannot_be_taken_apart_and_an_output_only_by_names_and_numbers() -> None:
    @pipeline
    def of_param(config: Any = None) -> Any:
        return load(config["a"])

    @pipeline
    def of_output() -> Any:
        return load(load(None)[1:2])

    for flow in (of_param, of_output):
        with pytest.raises(InvalidInput, match="has no value while"):
            compiled(flow)


def test_what_is_not_plain_cannot_be_an_argument() -> None:
    @pipeline
    def flow() -> Any:
        return load(object())

    with pytest.raises(InvalidInput, match="argument 'data' of step 'load' is a object"):
        compiled(flow)


def test_wrong_arguments_name_the_step() -> None:
    @pipeline
    def flow() -> Any:
        return load(1, nn=2)  # type: ignore[call-arg]

    with pytest.raises(InvalidInput, match=r"step 'load' is called wrongly: .*nn"):
        compiled(flow)


def test_a_pipeline_without_steps_is_refused() -> None:
    @pipeline
    def flow() -> int:
        return 1

    with pytest.raises(InvalidInput, match="no steps"):
        compiled(flow)


def test_a_default_that_is_not_plain_is_refused() -> None:
    @pipeline
    def flow(when: Any = object()) -> Any:
        return load(when)

    with pytest.raises(InvalidInput, match="default of parameter 'when'"):
        compiled(flow)


def test_functions_without_fixed_parameters_cannot_be_tasks() -> None:
    def spread(*values: int) -> int:
        return len(values)

    async def later() -> int:
        return 1

    def one_by_one() -> Any:
        yield 1

    for function in (spread, later, one_by_one):
        with pytest.raises(InvalidInput, match="cannot be a task"):
            task(function)


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 101, "é"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(InvalidInput):
        pipeline(name=name)(lambda: None)
    with pytest.raises(InvalidInput):
        load.named(name)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, True),
        (True, True),
        (1.5, True),
        ("é", True),
        ([1, {"a": [None]}], True),
        (float("nan"), False),
        (float("inf"), False),
        ((1, 2), False),
        ({1: 2}, False),
        ({"a": (1,)}, False),
        (2**64, False),
        (b"x", False),
        ("\ud800", False),
        ({1, 2}, False),
    ],
)
def test_plain_is_what_json_gives_back_as_it_was(value: Any, plain: bool) -> None:
    assert is_plain(value) is plain
    if plain:
        assert msgspec.json.decode(msgspec.json.encode(value)) == value
