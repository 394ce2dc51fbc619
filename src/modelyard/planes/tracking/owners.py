"""Whose a file is, and where it stands in the artifact tree of other servers.

What they call the artifact tree is the same files under `<experiment>/<run>/artifacts/…` and
`<experiment>/models/<model>/artifacts/…`; all other paths of that tree belong to the project itself.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlalchemy import select

from modelyard.kernel.database import Transaction
from modelyard.planes.tracking import store
from modelyard.types.tracking import OwnerKind

_RUN_PATH = re.compile(r"(\d{1,18})/([0-9a-f]{32})/artifacts(?:/(.+))?")
_MODEL_PATH = re.compile(r"(\d{1,18})/models/(m-[0-9a-f]{32})/artifacts(?:/(.+))?")


class Owner(NamedTuple):
    """Whose files: a run's, a logged model's, or (with no id) the project's own."""

    kind: OwnerKind
    id: str = ""


def locate(path: str) -> tuple[Owner, str]:
    """Whose file a path of the artifact tree is, and its path below that owner (empty: all of the owner's files)."""
    for kind, pattern in (("run", _RUN_PATH), ("model", _MODEL_PATH)):
        match = pattern.fullmatch(path)
        if match is not None:
            named: Any = kind
            return Owner(named, match[2]), match[3] or ""
    return Owner("project"), path


def tree_path(tx: Transaction, owner: Owner, path: str) -> str | None:
    """Where a file of an owner stands in the artifact tree, None for an owner that is no more."""
    if owner.kind == "project":
        return path
    table, between = (store.runs, "") if owner.kind == "run" else (store.logged_models, "models/")
    row = tx.one(select(table.c.experiment).where(table.c.project == tx.project, table.c.id == owner.id))
    return None if row is None else f"{row.experiment}/{between}{owner.id}/artifacts/{path}"
