"""Reading GraphQL: what pages send is understood, what is wrong or too much is refused before anything is looked up."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.kernel.errors import InvalidInput
from modelyard.server.dialects.mlflow.graphql_document import Operation, Selection, read


def names(selections: tuple[Selection, ...]) -> list[str]:
    return [one.alias for one in selections]


def test_a_query_with_variables_aliases_fragments_and_directives() -> None:
    text = """
      # what the page asks
      query Get($data: In! = {a: [1]}, $deep: Boolean) @component(name: "x (y)") {
        run: mlflowGetRun(input: $data, note: "a\\"b", n: -1.5e3, list: [1, $deep, {k: null}], enum: ALL) {
          ...Info
          ... on Run { data { key } }
          left @skip(if: $deep) { x }
          kept @include(if: $deep)
        }
      }
      fragment Info on Run { info { runUuid, ...Name } data { value } }
      fragment Name on RunInfo { runName }
    """
    found = read(text, {"data": {"run_id": "1"}, "deep": True}, "Get")
    (run,) = found.selections
    assert found.kind == "query"
    assert (run.alias, run.name) == ("run", "mlflowGetRun")
    assert run.arguments == {
        "input": {"run_id": "1"}, "note": 'a"b', "n": -1500.0, "list": [1, True, {"k": None}], "enum": "ALL",
    }  # fmt: skip
    assert names(run.below) == ["info", "data", "kept"]
    assert names(run.below[0].below) == ["runUuid", "runName"]
    assert names(run.below[1].below) == ["value", "key"]


def test_one_of_several_operations_is_picked_by_its_name() -> None:
    text = "query A { a } mutation B { b }"
    assert read(text, {}, "B") == Operation("mutation", (Selection("b", "b", {}, ()),))
    for name in ("", "C"):
        with pytest.raises(InvalidInput):
            read(text, {}, name)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "{ a", "{ a }}", "{ a(x: }", "{ a(x: $) }", "query", "subscription { a }", "{ ...Missing }", "{ a ? }",
        '{ a(x: "\\q") }', "fragment F on T { ...F } { ...F }", "{" * 50, "{ a(x: " + "[" * 50 + "]" * 50 + ") }",
        "{ " + "a " * 2_000 + "}", "x" * 30_000,
        "fragment A on T { ...B ...B ...B } fragment B on T { ...C ...C ...C } fragment C on T { "
        + "x " * 500 + "} { ...A ...A }",
    ],
)  # fmt: skip
def test_what_is_wrong_or_too_much_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(text, {})
    assert caught.value.code in ("graphql.invalid", "graphql.too_large")


PIECES = st.sampled_from(
    ["{", "}", "(", ")", "a", "b:", "$x", "...", "@skip", "query", "fragment F on T", '"t"', "1", "[", "]", ",", ":"]
)


@given(st.lists(PIECES, max_size=30).map(" ".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidInput):
        assert isinstance(read(text, {}), Operation)
