"""Errors survive the wire, by table and never by import."""

from __future__ import annotations

import msgspec
import pytest

from modelyard.kernel import errors
from modelyard.kernel.errors import ModelyardError, Problem, from_problem, to_problem

KINDS = ModelyardError.__subclasses__()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.__module__ == errors.__name__])
def test_an_error_comes_back_as_it_went(kind: type[ModelyardError]) -> None:
    sent = kind("no such run", code="run.not_found", hint="list them", details={"id": "a"})
    wire = msgspec.json.encode(to_problem(sent))
    back = from_problem(msgspec.json.decode(wire, type=Problem))
    assert type(back) is kind
    assert (back.message, back.code, back.hint, back.details) == (
        "no such run",
        "run.not_found",
        "list them",
        {"id": "a"},
    )


def test_an_unknown_status_is_still_an_error() -> None:
    back = from_problem(Problem(status=418, title="os.system", detail="tea", code="os.system"))
    assert type(back) is ModelyardError
