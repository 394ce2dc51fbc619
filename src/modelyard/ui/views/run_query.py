"""What an address asks of the runs: text, filter, order, groups. From it, a filter in MLflow's grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from modelyard.types.tracking import View
from modelyard.ui.views.columns import identifier

SIZES = (25, 50, 100, 250)
VIEWS = ("table", "charts", "parallel", "scatter")
DRAWN = (20, 100, 250, 500)
PARENT = "tags.`mlflow.parentRunId`"
_ID = re.compile(r"[0-9a-f]{32}")
_GROUP_ATTRIBUTES = {"status": "status", "user": "user_id", "name": "run_name"}


class Query(Struct, frozen=True, kw_only=True):
    """The state of the page of runs, exactly as the address has it."""

    experiment: str = ""
    text: str = ""
    filter: str = ""
    order: str = ""
    view: str = "table"
    group: tuple[str, ...] = ()
    nest: bool = False
    archived: bool = False
    page: str = ""
    size: int = 50
    drawn: int = 100
    metric: str = ""

    @property
    def stage(self) -> View:
        """Which runs: those that are there, or those that were archived."""
        return "deleted" if self.archived else "active"

    @property
    def experiments(self) -> list[str] | None:
        """The experiments to look in; None is all."""
        return [self.experiment] if self.experiment else None

    @property
    def whole_filter(self) -> str:
        """The filter with what the other fields say too."""
        return joined(self.filter, named(self.text), f"{PARENT} IS NULL" if self.nest else "")

    @property
    def narrowed(self) -> bool:
        """Whether anything but the experiment picks among the runs."""
        return bool(self.filter.strip() or self.text.strip())


def joined(*filters: str) -> str:
    """Filters of which all must hold."""
    return " AND ".join(filter(None, (one.strip() for one in filters)))


def named(text: str) -> str:
    """The filter for runs whose name contains a text, or that have it as their id."""
    text = text.strip()
    if _ID.fullmatch(text):
        return f"attributes.run_id = '{text}'"
    return f"attributes.run_name ILIKE {quoted(f'%{text}%')}" if text else ""


def quoted(value: str) -> str:
    """A text as a string of the grammar, which has no escapes: where both quotes occur, the double ones are lost."""
    return f"'{value}'" if "'" not in value else '"{}"'.format(value.replace('"', ""))


def of_group(group: Sequence[str], values: Sequence[str | None]) -> tuple[str, str]:
    """The filter that picks the runs of one group, and the experiment where it is grouped by that."""
    filters, experiment = [], ""
    for by, value in zip(group, values, strict=False):
        kind, _, key = by.partition(".")
        if kind == "attributes" and key == "experiment":
            experiment = value or ""
        elif kind == "attributes":
            filters.append(f"attributes.{_GROUP_ATTRIBUTES[key]} = {quoted(value or '')}")
        elif value is None:
            filters.append(f"{identifier(kind, key)} IS NULL")
        else:
            filters.append(f"{identifier(kind, key)} = {quoted(value)}")
    return joined(*filters), experiment


def token_of(values: Sequence[str | None]) -> str:
    """A group as the address names it when it is open."""
    return msgspec.json.encode(values).decode()


def values_of_token(token: str) -> tuple[str | None, ...] | None:
    """The values of a group that the address names; None for anything else."""
    try:
        return msgspec.json.decode(token, type=tuple[str | None, ...])
    except msgspec.DecodeError:
        return None
