"""Evaluation datasets: the same inputs are the same example, and whatever changes shows in the digest."""

from __future__ import annotations

import pytest

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.errors import InvalidInput, NotFound
from modelyard.planes.tracking import Tracking
from modelyard.types.tracing import PutRecord
from modelyard.types.tracking import CreateExperiment


def test_records_are_added_once_and_merged(tracking: Tracking, scope: Scope) -> None:
    made = tracking.evaluation.create(scope, "qa", ["0"], {"mlflow.user": "ada"})
    first = PutRecord(inputs={"q": 1, "deep": {"b": [1], "a": None}}, outputs="one", tags={"mlflow.user": "ada"})
    same = PutRecord(inputs={"deep": {"a": None, "b": [1]}, "q": 1}, expectations={"right": 2.5}, tags={"t": "x"})
    assert tracking.evaluation.put_records(scope, made.id, [first, same, PutRecord(inputs={"q": 2})]) == (2, 1)
    one, two = tracking.evaluation.records(scope, made.id).items
    assert (one.outputs, one.expectations, one.tags) == ("one", {"right": 2.5}, {"mlflow.user": "ada", "t": "x"})
    assert (one.created_by, two.inputs, two.outputs) == ("ada", {"q": 2}, None)
    assert tracking.evaluation.put_records(scope, made.id, [PutRecord(inputs={"q": 2}, outputs={"a": 1})]) == (0, 1)
    found = tracking.evaluation.get(scope, made.id)
    assert (found.records, found.created_by, found.experiment_ids) == (2, "ada", ["0"])
    assert found.fields == {
        "inputs": {"q": "integer", "deep": "object"}, "outputs": "string", "expectations": {"right": "float"},
        "version": "1.0",
    }  # fmt: skip
    assert found.digest != made.digest
    assert tracking.evaluation.delete_records(scope, made.id, [one.id, "dr-none"]) == 1
    assert tracking.evaluation.get(scope, made.id).digest != found.digest
    assert [record.id for record in tracking.evaluation.records(scope, made.id).items] == [two.id]


def test_records_come_in_pages_in_their_order(tracking: Tracking, scope: Scope) -> None:
    made = tracking.evaluation.create(scope, "many")
    tracking.evaluation.put_records(scope, made.id, [PutRecord(inputs={"q": number}) for number in range(25)])
    seen: list[int] = []
    page: str | None = None
    while True:
        some = tracking.evaluation.records(scope, made.id, 10, page)
        seen += [record.inputs["q"] for record in some.items]
        page = some.next
        if page is None:
            break
    assert seen == list(range(25))


def test_datasets_are_found_by_experiment_tag_and_name(tracking: Tracking, scope: Scope, clock: FixedClock) -> None:
    other = tracking.experiments.create(scope, CreateExperiment(name="other")).id
    ids = {}
    for name, experiments, tags in (
        ("a", ["0"], {"env": "dev"}),
        ("ab", [other], {}),
        ("c", ["0", other], {"env": "x"}),
    ):
        ids[tracking.evaluation.create(scope, name, experiments, tags).id] = name
        clock.advance(1)

    def found(filter: str = "", *order_by: str, of: tuple[str, ...] = ()) -> list[str]:
        return [ids[one.id] for one in tracking.evaluation.search(scope, of, filter, order_by).items]

    assert found() == ["c", "ab", "a"]
    assert found("", "name ASC") == ["a", "ab", "c"]
    assert found(of=(other,)) == ["c", "ab"]
    assert found("name LIKE 'a%'", "created_time") == ["a", "ab"]
    assert found("tags.env = 'dev' AND created_time > 0") == ["a"]
    for filter in ("nope = 'x'", "name > 'x'", "created_time = 'x'", "tags.env IS NULL", "name"):
        with pytest.raises(InvalidInput):
            found(filter)
    with pytest.raises(InvalidInput):
        found("", "tags.env")


def test_experiments_are_tied_once_and_untied(tracking: Tracking, scope: Scope) -> None:
    made = tracking.evaluation.create(scope, "d")
    assert tracking.evaluation.add_experiments(scope, made.id, ["0", "0"]).experiment_ids == ["0"]
    assert tracking.evaluation.add_experiments(scope, made.id, ["0"]).experiment_ids == ["0"]
    with pytest.raises(NotFound, match="No Experiment with id=7"):
        tracking.evaluation.add_experiments(scope, made.id, ["7"])
    assert tracking.evaluation.remove_experiments(scope, made.id, ["0", "9"]).experiment_ids == []
    for change in (tracking.evaluation.add_experiments, tracking.evaluation.remove_experiments):
        with pytest.raises(NotFound):
            change(scope, "d-none", ["0"])


def test_a_deleted_dataset_is_gone_with_all_of_it(tracking: Tracking, scope: Scope) -> None:
    made = tracking.evaluation.create(scope, "d", ["0"], {"k": "v"})
    tracking.evaluation.put_records(scope, made.id, [PutRecord(inputs={"q": 1})])
    tracking.evaluation.set_tags(scope, made.id, {"k": "w"})
    assert tracking.evaluation.get(scope, made.id).tags == {"k": "w"}
    tracking.evaluation.delete_tag(scope, made.id, "k")
    tracking.evaluation.delete_tag(scope, made.id, "k")
    other = Scope("other", scope.principal)
    with pytest.raises(NotFound):
        tracking.evaluation.get(other, made.id)
    tracking.evaluation.delete(other, made.id)
    assert tracking.evaluation.get(scope, made.id).tags == {}
    tracking.evaluation.delete(scope, made.id)
    tracking.evaluation.delete(scope, made.id)
    with pytest.raises(NotFound):
        tracking.evaluation.records(scope, made.id)
