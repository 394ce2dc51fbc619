"""Errors as pages: what happened, why, and what to do, for whoever looks with a browser."""

from __future__ import annotations

from modelyard.kernel.errors import Problem
from modelyard.ui.render import render_alone


def wants_page(accept: str, path: str) -> bool:
    """Whether a request is a person's: its Accept header names HTML, and it is not for the API or for JSON."""
    return "text/html" in accept.lower() and not path.startswith("/api/") and not path.endswith(".json")


def problem_page(problem: Problem) -> bytes:
    """The page for a problem, as UTF-8 HTML."""
    return render_alone("problem.html", title=problem.detail, problem=problem, width="wide").encode()
