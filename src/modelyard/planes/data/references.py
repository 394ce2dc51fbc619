"""The tables and profiles that checks refer to: found, and named for SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.engines.tables.base import FileSet, Snapshot
from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import NotFound
from modelyard.planes.data.checks import Provided, profiles_of, reference_key, tables_of
from modelyard.types.data import Check, DatasetVersion

TakeSnapshot = Callable[[Scope, str, int | str | None], tuple[DatasetVersion, Snapshot]]


@dataclass(frozen=True, slots=True)
class Referenced:
    """What a suite refers to. `files`: tables for the session; `provided`, `profiles`: what the suite calls them."""

    files: Mapping[str, FileSet]
    provided: Mapping[str, Provided]
    profiles: Mapping[str, dict[str, Any]]


def referenced(snapshot: TakeSnapshot, scope: Scope, dataset: str, checks: Sequence[Check]) -> Referenced:
    """What these checks of a dataset refer to. What is not there is left out: its check says so."""
    files: dict[str, FileSet] = {}
    provided: dict[str, Provided] = {}
    profiles: dict[str, dict[str, Any]] = {}
    wanted = {one: False for check in checks for one in tables_of(check)}
    wanted |= {one: True for check in checks for one in profiles_of(check) if one not in wanted}
    for place, ((name, ref), profile_only) in enumerate(wanted.items()):
        try:
            version, found = snapshot(scope, name or dataset, ref or None)
        except NotFound:
            continue
        key, table = reference_key(name, ref), f"reference_{place}"
        columns = {field.name: str(field.type) for field in found.schema}
        provided[key] = Provided(table, columns, version.urn)
        if not profile_only:
            files[table] = found.file_set
        if version.profile is not None:
            profiles[key] = {
                one.name: {"quantiles": one.quantiles, "mean": one.mean, "std": one.std}
                for one in version.profile.columns
            }
    return Referenced(files, provided, profiles)
