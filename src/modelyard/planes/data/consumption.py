"""Which columns of which datasets led to a thing: the way up the lineage graph, through runs, jobs and feature views.

A reader that names columns is tied to each (`run:… used dataset:flights@7#distance`) beside the version as a whole; one
that names none to `dataset:flights@7#**`, and of it it is not known which columns it needs, whatever else it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.kernel import lineage
from modelyard.kernel.database import Transaction

ALL_ROWS = "*"
"""Stands for a thing's rows as such: what decides which there are, and so is behind each of its columns."""
COLUMN_CHARACTERS_MAX = 256
COLUMNS_TIED_MAX = 1_000
_DATASET = re.compile(r"dataset:([^@#]+)@(\d+)(?:#(.+))?", re.DOTALL)
_STEPS_MAX = 64
_NODES_MAX = 10_000

InForce = Callable[[Transaction], Mapping[str, Sequence[str]]]
"""What is in force now, by URN, each with the names of all that rely on it: a model version under an alias, say, with
the model and the endpoints that serve it."""


@dataclass(slots=True)
class Uses:
    """What of one dataset version something uses, and by whom. `is_whole`: also columns that are not known."""

    columns: set[str] = field(default_factory=set)
    readers: set[str] = field(default_factory=set)
    is_whole: bool = False


Found = dict[tuple[str, int], Uses]


def tie_columns(tx: Transaction, reader: str, relation: str, version: str, columns: Sequence[str] | None) -> None:
    """Tie a reader to the columns of a dataset version that it names (None: it names none, and may need any). What are
    too many is a use of the whole."""
    named = [one for one in dict.fromkeys(columns or ()) if len(one) <= COLUMN_CHARACTERS_MAX]
    if columns is None or len(named) > COLUMNS_TIED_MAX:
        named = [lineage.ALL_COLUMNS]
    for one in named:
        tx.link(reader, relation, f"{version}#{one}")


class Upstream:
    """The part of the graph above some things, read level by level. `through`: go on above datasets, too."""

    def __init__(self, tx: Transaction, roots: Sequence[str], *, through: bool) -> None:
        self._through = through
        self._causes: dict[str, list[str]] = {}
        self.is_cut = False
        waiting = list(dict.fromkeys(roots))
        for _ in range(_STEPS_MAX):
            fresh = [one for one in waiting if one not in self._causes]
            if not fresh:
                return
            if len(self._causes) + len(fresh) > _NODES_MAX:
                break
            found = lineage.causes_of(tx, fresh)
            self._causes |= {one: found.get(one, []) for one in fresh}
            waiting = list(dict.fromkeys(above for one in fresh for above in self._above(one)))
        self.is_cut = True

    def of(self, root: str) -> Found:
        """What datasets led to one of the roots."""
        found: Found = {}
        named: set[tuple[str, str, int]] = set()
        whole: set[tuple[str, str, int]] = set()
        unnamed: set[tuple[str, str, int]] = set()
        seen, waiting = {root}, [root]
        for one in waiting:
            for cause in self._causes.get(one, ()):
                dataset = _DATASET.fullmatch(cause)
                if dataset is None or _is_parent(one, cause):
                    continue
                key = (dataset[1], int(dataset[2]))
                reader = family(one)
                uses = found.setdefault(key, Uses())
                uses.readers.add(reader)
                if dataset[3] is None:
                    whole.add((reader, *key))
                elif dataset[3] == lineage.ALL_COLUMNS:
                    unnamed.add((reader, *key))
                else:
                    named.add((reader, *key))
                    uses.columns.add(dataset[3])
            for above in self._above(one):
                if above not in seen:
                    seen.add(above)
                    waiting.append(above)
        # One tied to the whole alone was so tied before readers that name no columns were marked.
        for _, name, version in unnamed | (whole - named):
            found[name, version].is_whole = True
        return found

    def _above(self, one: str) -> list[str]:
        """Where the way up goes on from a node whose causes are known."""
        causes = self._causes.get(one, [])
        named_of = {family(cause) for cause in causes if "#" in cause} - {
            family(cause) for cause in causes if cause.endswith(f"#{lineage.ALL_COLUMNS}")
        }
        above = [cause for cause in causes if not _is_parent(one, cause) and cause not in named_of]
        if not self._through:
            above = [cause for cause in above if not cause.startswith("dataset:")]
        base, named, column = one.partition("#")
        if named and column != ALL_ROWS:
            above.append(f"{base}#{ALL_ROWS}")
        if named and not causes and one.startswith("dataset:"):
            above.append(base)  # a column that no SQL made came with the version as a whole
        return above


def family(urn: str) -> str:
    """A thing without its column or feature: who it is that reads."""
    return urn.partition("#")[0]


def _is_parent(one: str, cause: str) -> bool:
    """Whether a cause is only an earlier version of the same dataset, which says nothing new."""
    return one.startswith("dataset:") and one.partition("@")[0] == cause.partition("@")[0]
