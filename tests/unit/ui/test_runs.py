"""What the pages of runs are built from: columns, the filter of an address, sections of charts, comparison."""

from __future__ import annotations

import msgspec
import pytest

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking.filters import parse_runs
from modelyard.types import tracking as nouns
from modelyard.types.tracking import Key
from modelyard.ui.markdown import markdown
from modelyard.ui.views import columns, compare, provenance, run_query, runs
from modelyard.ui.views.artifacts import byte_range
from unit.ui import samples, samples_runs


def test_columns_begin_with_metrics_and_the_params_that_differ() -> None:
    keys = [column.key for column in columns.chosen(None, samples_runs.KEYS)]
    assert keys == [
        "metrics.val/loss", "metrics.auc", "metrics.log_loss", "params.learning_rate", "params.max leaf nodes",
    ]  # fmt: skip


def test_chosen_columns_are_those_of_the_address_in_its_order() -> None:
    asked = ["tags.purpose", "metrics.unknown", "params.seed", "tags.purpose", "none", "spans.x", "params."]
    assert [one.key for one in columns.chosen(asked, ())] == ["tags.purpose", "metrics.unknown", "params.seed"]
    assert columns.chosen(["none"], samples_runs.KEYS) == ()


def test_odd_names_are_quoted_in_the_order_grammar() -> None:
    (odd,) = columns.chosen(["metrics.val loss"], ())
    assert odd.sort == "metrics.`val loss`"


def test_what_only_machines_read_is_not_offered() -> None:
    assert "tags.mlflow.source.name" not in [one.key for one in columns.offered(samples_runs.KEYS)]


def test_a_run_has_the_values_of_its_columns() -> None:
    shown = columns.chosen(["params.seed", "tags.purpose", "metrics.auc", "metrics.absent"], ())
    assert columns.values_of(samples.run(0), shown) == ("7", "demo", 0.66, None)


@pytest.mark.parametrize(
    "query",
    [
        run_query.Query(text="it's"),
        run_query.Query(text="both ' and \""),
        run_query.Query(text="0193" * 8, nest=True),
        run_query.Query(text="a", filter=" metrics.auc > 1 ", nest=True),
    ],
)
def test_the_filter_of_an_address_is_mlflows_grammar(query: run_query.Query) -> None:
    assert parse_runs(query.whole_filter)


def test_a_text_finds_a_part_of_a_name_or_an_id() -> None:
    assert run_query.named(" deep ") == "attributes.run_name ILIKE '%deep%'"
    assert run_query.named("0193" * 8) == f"attributes.run_id = '{'0193' * 8}'"
    assert run_query.named("  ") == ""


def test_a_group_is_picked_by_a_filter_and_named_in_the_address() -> None:
    group, values = (
        ["params.max depth", "tags.team", "attributes.user", "attributes.experiment"],
        ("6", None, "ada", "3"),
    )
    filter, experiment = run_query.of_group(group, values)
    assert filter == "params.`max depth` = '6' AND tags.team IS NULL AND attributes.user_id = 'ada'"
    assert experiment == "3"
    assert parse_runs(filter)
    assert run_query.values_of_token(run_query.token_of(values)) == values
    assert run_query.values_of_token("{") is None


def test_charts_stand_in_sections_with_those_of_the_machine_last() -> None:
    made, left_out = runs.sections(samples_runs.KEYS)
    assert [(one.section, one.keys, one.open) for one in made] == [
        ("", ("auc", "log_loss"), True),
        ("val", ("val/loss",), True),
        ("system", ("system/cpu_utilization_percentage",), False),
    ]
    assert left_out == 0
    many = [Key(kind="metric", name=f"layer/{n:05}", runs=1) for n in range(12_000)]
    made, left_out = runs.sections(many, "LAYER/0")
    assert sum(len(one.keys) for one in made) + left_out == 10_000
    assert runs.sections(many, "absent") == ((), 0)


def test_comparison_shows_what_differs_and_counts_the_rest() -> None:
    metrics, params, _ = compare.groups([samples.run(4), samples.run(0)], everything=False)
    assert [row.name for row in params.rows] == ["learning_rate", "max_leaf_nodes", "model"]
    assert params.equal == 1
    best = {row.name: row.best for row in metrics.rows}
    assert best["auc"] == 0
    assert best["log_loss"] == 0, "less loss is better, and run 4 has less"
    runs_of = [nouns.Metric(key=key, value=value) for key, value in (("f1_score", 0.9), ("fit_s", 0.9))]
    better = msgspec.structs.replace(samples.run(0), metrics=runs_of)
    worse = msgspec.structs.replace(better, metrics=[msgspec.structs.replace(one, value=0.1) for one in runs_of])
    rows = compare.groups([worse, better], everything=False)[0].rows
    assert {row.name: row.best for row in rows} == {"f1_score": 1, "fit_s": 0}
    assert best["train_rows"] == -1, "more of it is not known to be better"


def test_comparison_can_show_everything_and_more() -> None:
    pair = [samples.run(4), samples.run(0)]
    groups = compare.groups(pair, everything=True, more=(("Data", [provenance.data_facts(one) for one in pair]),))
    assert "seed" in [row.name for row in groups[1].rows]
    assert [group.name for group in groups] == ["Metrics", "Params", "Data", "Tags"]
    assert groups[2].rows[0].values == ("9f86d081", "9f86d081")


def test_texts_that_differ_are_shown_as_a_difference() -> None:
    pair = [samples.run(0), samples.run(1), samples.run(2)]
    diff = compare.text_diff("query", pair, ["a\nb", "a\nb", "a\nc"])
    assert diff is not None
    assert diff.after == "hist-gbdt-deep"
    assert [(line.kind, line.text) for line in diff.lines[1:]] == [("same", " a"), ("removed", "-b"), ("added", "+c")]
    assert compare.text_diff("query", pair, ["a", "a", "a"]) is None
    long = msgspec.structs.replace(pair[0], params={"query": "select 1\nfrom x", "seed": "7"})
    assert [name for name, _ in compare.long_texts([long, pair[1]])] == ["query"]


def test_what_made_a_run_is_read_from_its_tags_and_params() -> None:
    tags = {
        "mlflow.source.name": "train.py", "mlflow.source.git.commit": "9f31c02", "modelyard.git.changed": "yes",
        "modelyard.python": "3.11.7", "modelyard.seed.numpy": "3", "team": "red",
    }  # fmt: skip
    one = msgspec.structs.replace(samples.run(0), tags=tags, params={"model.random_state": "5", "depth": "2"})
    assert provenance.code_facts(one) == {"program": "train.py", "commit": "9f31c02", "uncommitted changes": "yes"}
    assert provenance.environment_facts(one) == {"python": "3.11.7"}
    assert provenance.seed_facts(one) == {"model.random_state": "5", "seed numpy": "3"}


def test_notes_cannot_act() -> None:
    text = markdown(
        "# Title\n\n<script>alert(1)</script> <b>x</b>\n\n[a](javascript:alert(1)) [b](https://example.org)\n\n"
        "![i](https://example.org/x.png)\n\n| a |\n|--:|\n| 1 |\n"
    )
    assert "<script" not in text
    assert "<b>" not in text
    assert "<img" not in text
    assert "style=" not in text
    assert 'href="javascript' not in text
    assert '<a href="https://example.org" rel="noopener noreferrer nofollow">b</a>' in text
    assert "<h3>Title</h3>" in text
    assert "<td>1</td>" in text


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", (0, 99)), ("bytes=0-", (0, 99)), ("bytes=10-19", (10, 19)), ("bytes=90-500", (90, 99)),
        ("bytes=-10", (90, 99)), ("bytes=-500", (0, 99)), ("items=0-1", (0, 99)), ("bytes=0-1,5-6", (0, 99)),
        ("bytes=-", (0, 99)),
    ],
)  # fmt: skip
def test_a_range_of_a_file(header: str, expected: tuple[int, int]) -> None:
    assert byte_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=50-40"])
def test_a_range_that_is_not_there_is_refused(header: str) -> None:
    with pytest.raises(InvalidInput):
        byte_range(header, 100)
