"""The filter grammar: what it means, what it refuses and in which words, and that nothing makes it slow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import filters, trace_filters
from modelyard.planes.tracking.filters import Clause, Order


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("metrics.acc >= 0.94", Clause("metric", "acc", ">=", 0.94)),
        ("metric.acc>=-3", Clause("metric", "acc", ">=", -3)),
        ("metrics.`two words` < 1e-3", Clause("metric", "two words", "<", 0.001)),
        ('metrics."X//Y#$@" = 3', Clause("metric", "X//Y#$@", "=", 3)),
        ("`params`.m != 'tf'", Clause("parameter", "m", "!=", "tf")),
        ('params."p.q" = "it\'s"', Clause("parameter", "p.q", "=", "it's")),
        ("tags.t ilike 'a%'", Clause("tag", "t", "ILIKE", "a%")),
        ("tags.t IS NOT NULL", Clause("tag", "t", "IS NOT NULL", None)),
        ("Created > 5", Clause("attribute", "start_time", ">", 5)),
        ("run.run_id IN ('a', \"b\")", Clause("attribute", "run_id", "IN", ["a", "b"])),
        ("dataset.name NOT IN ('x')", Clause("dataset", "name", "NOT IN", ["x"])),
        ("status = 'RUNNING' AND", Clause("attribute", "status", "=", "RUNNING")),
    ],
)
def test_a_comparison_means(text: str, clause: Clause) -> None:
    assert filters.parse_runs(text) == [clause]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metrics.A > 0.1 OR params.B = 'x'", "Invalid clause(s) in filter string"),
        ("(metrics.A > 0.1)", "Invalid clause(s) in filter string"),
        ("metrics.A > 1; metrics.B > 2", "multiple expression"),
        ("m.acc > 1", "Invalid entity type 'm'"),
        ("acc > 1", "Invalid attribute key 'acc'"),
        ("attribute.status = true", "Invalid clause(s)"),
        ("dataset.profile = 'x'", "Invalid dataset key"),
        ("metrics.acc IS NULL", "only supported for tags and params"),
        ("metrics.acc = '5'", "Expected numeric value type for metric"),
        ("params.acc = 5", "Expected a quoted string value for parameter"),
        ("params.acc = x", "not quoted"),
        ("1 = 1", "Expected 'Identifier' found '1'"),
        ("params.a > 'x'", "Invalid comparator '>'"),
        ("status IN ('RUNNING')", "Only the 'run_id' attribute"),
        ("run_id IN ()", "non-empty list"),
        ("run_id IN (1)", "different type in list"),
        ("params.acc = 'LR", "Invalid clause(s)"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_mlflows_words(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        filters.parse_runs(text)
    assert words in refused.value.message


def test_orders() -> None:
    found = filters.order_runs(["metrics.`a b` DESC", "attributes.created", "params.p aSc"])
    assert found == [
        Order("metric", "a b", False), Order("attribute", "start_time", True), Order("parameter", "p", True)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metrics.A != 1", "Invalid order_by clause"),
        ("attribute.run_id ACS", "Invalid ordering key"),
        ("", "Invalid order_by clause"),
        ("`metrics.A`", "Invalid entity type"),
        ("attribute.experiment_id", "Invalid attribute key"),
    ],
)
def test_a_bad_order_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        filters.order_runs([text])
    assert words in refused.value.message


def test_an_order_comes_once() -> None:
    with pytest.raises(InvalidInput, match="duplicate fields"):
        filters.order_runs(["start_time", "created DESC"])


def test_logged_models_have_words_of_their_own() -> None:
    assert filters.parse_models("name = 'x' AND metrics.loss < 1 AND model_id IN ('a', 'b')") == [
        Clause("attribute", "name", "=", "x"),
        Clause("metric", "loss", "<", 1),
        Clause("attribute", "model_id", "IN", ["a", "b"]),
    ]
    for text, words in [
        ("Foo", "Invalid filter string"),
        ("name = 'a' OR name = 'b'", "Invalid filter string"),
        ("foo.bar = 'a'", "Invalid entity type"),
        ("name > 'foo'", "Invalid comparison operator"),
        ("metrics.foo LIKE 0", "Invalid comparison operator"),
    ]:
        with pytest.raises(InvalidInput, match=words):
            filters.parse_models(text)


@given(st.text(max_size=200))
def test_any_text_gives_clauses_or_an_error_of_ours(text: str) -> None:
    for parse in (filters.parse_runs, filters.parse_experiments, filters.parse_models, trace_filters.parse_traces):
        try:
            parse(text)
        except InvalidInput:
            continue


@given(st.text(alphabet="'\"`\\ aAND()=.<,;IN", max_size=300))
def test_any_heap_of_quotes_and_operators_too(text: str) -> None:
    for parse in (filters.parse_runs, trace_filters.parse_traces):
        try:
            parse(text)
        except InvalidInput:
            continue


# What is not linear takes hours over so much text: the limit is for a test that hangs, and decides nothing else.
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece", ["'", "'\\'", "`a.", "a.`", "a in ( AND ", "a = 1 ", "((", "metrics.a > 1 AND ", "''", "a.b.", "-1.e"]
)
def test_a_filter_built_to_blow_up_is_read_in_linear_time(piece: str) -> None:
    text = piece * (50_000 // len(piece))
    with pytest.raises(InvalidInput):
        filters.parse_runs(text)


@given(st.integers(min_value=1, max_value=2**40))
def test_a_page_token_leads_back(offset: int) -> None:
    assert filters.page_offset(filters.page_token(offset)) == offset


@pytest.mark.parametrize(
    "token", ["not base64", "bm90IGpzb24=", "e30=", "eyJvZmZzZXQiOiAiYSJ9", "W10=", "eyJvZmZzZXQiOi0xfQ=="]
)
def test_a_foreign_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="Invalid page token"):
        filters.page_offset(token)
