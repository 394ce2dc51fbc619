"""The names that people gave to jobs and runs, for graphs and lists that know them by their URNs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from modelyard.kernel.auth import Scope
from modelyard.planes.jobs import Jobs
from modelyard.planes.tracking import Tracking

NameThem = Callable[[Iterable[str]], Mapping[str, str]]
"""Gives the names of those URNs that have one."""
_ASKED_MAX = 500


def names(caller: Scope, jobs: Jobs, tracking: Tracking) -> NameThem:
    """What knows the names of a project's jobs and runs."""

    def of(urns: Iterable[str]) -> Mapping[str, str]:
        ids: dict[str, list[str]] = {"job": [], "run": []}
        for urn in urns:
            kind, _, rest = urn.partition(":")
            if kind in ids:
                ids[kind].append(rest)
        of_jobs = jobs.names(caller, ids["job"][:_ASKED_MAX]) if ids["job"] else {}
        of_runs = tracking.overview.names(caller, ids["run"][:_ASKED_MAX]) if ids["run"] else {}
        found = {f"job:{one}": name for one, name in of_jobs.items()}
        return found | {f"run:{one}": name for one, name in of_runs.items()}

    return of
