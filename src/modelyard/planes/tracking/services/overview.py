"""Many runs at a glance: their keys, their number, their groups, their children."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.kernel.errors import InvalidInput
from modelyard.planes.tracking import filters, overview, rules, search
from modelyard.types.page import Page
from modelyard.types.tracking import Key, RunGroup, View

COUNTED_MAX = 10_000
METRICS_MAX = 20
GROUPS_MAX = 1_000


class Overview:
    """What a table of runs needs to know of runs that it does not show."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keys(
        self, scope: Scope, experiment_ids: Sequence[str] | None = None, filter: str = "", find: str = "",
        view: View = "active",
    ) -> list[Key]:  # fmt: skip
        """The keys of the newest runs that a filter picks, of those that contain `find`; most frequent first.

        Looks at the newest 300 runs. Raises InvalidInput.
        """
        clauses, numbers = filters.parse_runs(filter), _numbers(experiment_ids)
        with self._database.reading(scope) as tx:
            newest = search.run_numbers(tx, numbers, clauses, (), view, overview.LOOKED_AT, 0)
            return overview.keys(tx, newest, find[:250])

    def count(
        self, scope: Scope, experiment_ids: Sequence[str] | None = None, filter: str = "", view: View = "active",
        at_most: int = COUNTED_MAX,
    ) -> int:  # fmt: skip
        """How many runs a filter picks; counting ends at `at_most`. Raises InvalidInput."""
        clauses, numbers = filters.parse_runs(filter), _numbers(experiment_ids)
        with self._database.reading(scope) as tx:
            return overview.count(tx, numbers, clauses, view, at_most)

    def groups(
        self,
        scope: Scope,
        by: Sequence[str],
        metrics: Sequence[str] = (),
        *,
        experiment_ids: Sequence[str] | None = None,
        filter: str = "",
        view: View = "active",
        order: str = "",
        limit: int = 100,
        page: str | None = None,
    ) -> Page[RunGroup]:
        """The groups that the runs fall into by params, tags or attributes, with the spread of some metrics in each.

        Raises InvalidInput.
        """
        if not 1 <= len(by) <= overview.GROUPED_BY_MAX or len(metrics) > METRICS_MAX:
            raise InvalidInput(
                f"runs are grouped by one to {overview.GROUPED_BY_MAX} keys, with at most {METRICS_MAX} metrics",
                code="group.too_many",
                hint="leave some out",
            )
        clauses, numbers, offset = filters.parse_runs(filter), _numbers(experiment_ids), filters.page_offset(page)
        parsed, limit = [overview.parse_by(one) for one in by], min(limit, GROUPS_MAX)
        with self._database.reading(scope) as tx:
            found = overview.groups(tx, numbers, clauses, view, parsed, metrics, order, limit + 1, offset)
        more = filters.page_token(offset + limit) if len(found) > limit else None
        return Page(found[:limit], more)

    def names(self, scope: Scope, run_ids: Sequence[str]) -> dict[str, str]:
        """The names of runs by id; those that do not exist are left out."""
        with self._database.reading(scope) as tx:
            return overview.names(tx, run_ids)

    def children(self, scope: Scope, run_ids: Sequence[str]) -> dict[str, int]:
        """How many active runs each of some runs is the parent of; those without children are left out."""
        with self._database.reading(scope) as tx:
            return overview.children(tx, run_ids)


def _numbers(experiment_ids: Sequence[str] | None) -> list[int] | None:
    return None if experiment_ids is None else [rules.experiment_number(one) for one in experiment_ids]
