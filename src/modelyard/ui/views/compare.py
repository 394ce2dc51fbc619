"""Several runs side by side: what differs of their metrics, params, tags, code, environment and data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import Tracking
from modelyard.types.tracking import Key, Run
from modelyard.ui.frame import Crumb, Frame, Screen
from modelyard.ui.page import page as ui_page
from modelyard.ui.views.columns import SYSTEM, Value
from modelyard.ui.views.provenance import code_facts, data_facts, environment_facts, files_of_note, text_of
from modelyard.ui.views.runs import ChartKey, Plot, dot, sections

COMPARED_MAX = 24
LONG_CHARACTERS = 60
DIFF_LINES_MAX = 400
_HIGHER_IS_BETTER = (
    "acc", "auc", "f1", "precision", "recall", "r2", "score", "map", "ndcg", "bleu", "rouge", "iou", "dice", "reward",
)  # fmt: skip
_LOWER_IS_BETTER = ("loss", "error", "mse", "mae", "brier", "latency", "_time")
_DURATIONS = ("_ms", "_s")


class Compared(Struct, frozen=True, kw_only=True):
    """A metric, param or tag over the compared runs; `best` is the place of the best value, -1 where none is."""

    name: str
    values: tuple[Value, ...]
    best: int = -1


class Group(Struct, frozen=True, kw_only=True):
    """The rows of one kind. `equal` counts those that do not differ."""

    name: str
    rows: tuple[Compared, ...]
    equal: int


class DiffLine(Struct, frozen=True):
    """A line of a difference: `kind` is same, added, removed or place."""

    kind: str
    text: str


class TextDiff(Struct, frozen=True, kw_only=True):
    """How a long text of the first run became that of another."""

    name: str
    before: str
    after: str
    lines: tuple[DiffLine, ...]


class Compare(Screen, frozen=True, kw_only=True):
    """Several runs side by side. Unless `all`, only what differs."""

    runs: tuple[Run, ...]
    groups: tuple[Group, ...] = ()
    diffs: tuple[TextDiff, ...] = ()
    charts: tuple[ChartKey, ...] = ()
    charts_left_out: int = 0
    plot: Plot | None = None
    all: bool = False


def groups(
    runs: Sequence[Run], *, everything: bool, more: Sequence[tuple[str, Sequence[Mapping[str, Value]]]] = ()
) -> tuple[Group, ...]:
    """Metrics, params and tags of the runs side by side, and what else is given of each."""
    tags = [{k: v for k, v in run.tags.items() if not k.startswith(("mlflow.", "modelyard."))} for run in runs]
    latest = [run.latest for run in runs]
    sources: list[tuple[str, Sequence[Mapping[str, Value]]]] = [
        ("Metrics", [{key: value for key, value in one.items() if not key.startswith(SYSTEM)} for one in latest]),
        ("Params", [dict(run.params) for run in runs]),
        *more,
        ("Tags", [dict(one) for one in tags]),
        ("System", [{key: value for key, value in one.items() if key.startswith(SYSTEM)} for one in latest]),
    ]
    result = []
    for name, values in sources:
        rows = []
        equal = 0
        for key in sorted({key for one in values for key in one}):
            found = tuple(one.get(key) for one in values)
            if len(set(found)) == 1:
                equal += 1
                if not everything:
                    continue
            rows.append(Compared(name=key, values=found, best=_best(key, found) if name == "Metrics" else -1))
        if rows or equal:
            result.append(Group(name=name, rows=tuple(rows), equal=equal))
    return tuple(result)


def _best(name: str, values: Sequence[Value]) -> int:
    known = [(value, place) for place, value in enumerate(values) if isinstance(value, int | float)]
    if len({value for value, _ in known}) < 2:
        return -1
    if any(word in name.lower() for word in _LOWER_IS_BETTER) or name.endswith(_DURATIONS):
        return min(known)[1]
    # Of a metric whose direction is not known, no value is called the best.
    return max(known)[1] if any(word in name.lower() for word in _HIGHER_IS_BETTER) else -1


def text_diff(name: str, runs: Sequence[Run], texts: Sequence[str]) -> TextDiff | None:
    """The difference of a text between the first run and the first other that has another; None where all agree."""
    other = next((place for place, text in enumerate(texts) if text != texts[0]), None)
    if other is None:
        return None
    made = difflib.unified_diff(texts[0].splitlines(), texts[other].splitlines(), lineterm="", n=3)
    lines = [
        DiffLine({"+": "added", "-": "removed", "@": "place"}.get(line[:1], "same"), line)
        for line in list(made)[2 : DIFF_LINES_MAX + 2]
    ]
    return TextDiff(name=name, before=_name(runs[0]), after=_name(runs[other]), lines=tuple(lines))


def _name(run: Run) -> str:
    return run.name or run.id[-8:]


def long_texts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The params and notes that are too long for a cell, each with its text in every run."""
    found = []
    for key in sorted({key for run in runs for key in run.params}):
        texts = [run.params.get(key, "") for run in runs]
        if any("\n" in text or len(text) > LONG_CHARACTERS for text in texts):
            found.append((key, texts))
    notes = [run.tags.get("mlflow.note.content", "") for run in runs]
    return [*found, ("notes", notes)] if any(notes) else found


@ui_page("/compare", template="compare.html")
def compare(caller: Scope, tracking: Tracking, runs: str = "", all: bool = False) -> Compare:
    """Several runs side by side: `runs` are their ids, with commas."""
    asked = list(dict.fromkeys(one for one in runs.split(",") if one))
    if len(asked) > COMPARED_MAX:
        raise InvalidInput(
            f"{len(asked)} runs do not fit side by side",
            code="compare.too_many",
            hint=f"choose at most {COMPARED_MAX}; the charts of the table draw hundreds",
        )
    found = [tracking.runs.get(caller, one) for one in asked]
    title = f"Compare {len(found)} runs" if found else "Compare runs"
    frame = Frame(title=title, section="runs", crumbs=(Crumb("Runs", "/runs"),))
    if len(found) < 2:
        return Compare(frame=frame, runs=tuple(found), all=all)
    names = dict.fromkeys(metric.key for one in found for metric in one.metrics)
    made, left_out = sections([Key(kind="metric", name=name, runs=1) for name in names])
    files = [files_of_note(caller, tracking, one.id) for one in found]
    texts = long_texts(found)
    for name in sorted({name for one in files for name in one}):
        read = [text_of(caller, tracking, one.id, by.get(name, "")) for one, by in zip(found, files, strict=True)]
        texts.append((name, read))
    return Compare(
        frame=frame,
        runs=tuple(found),
        groups=groups(
            found,
            everything=all,
            more=(
                ("Data", [data_facts(one) for one in found]),
                ("Code", [code_facts(one) for one in found]),
                ("Environment", [environment_facts(one) for one in found]),
            ),
        ),
        diffs=tuple(diff for name, text in texts if (diff := text_diff(name, found, text)) is not None),
        charts=made,
        charts_left_out=left_out,
        plot=Plot(runs=tuple(dot(one, (), ()) for one in found)),
        all=all,
    )


ROUTES: list[Any] = [compare]
