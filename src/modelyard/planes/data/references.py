"""The tables and profiles that checks refer to: found, and named for SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from modelyard.engines.tables.base import FileSet, Snapshot
from modelyard.kernel.auth import Scope
from modelyard.kernel.errors import NotFound
from modelyard.planes.data.checks import Provided, profiles_of, reference_key, tables_of
from modelyard.types.data import Check, DatasetVersion

if TYPE_CHECKING:
    import pyarrow as pa

TakeSnapshot = Callable[[Scope, str, int | str | None], tuple[DatasetVersion, Snapshot]]


class Take(Protocol):
    """How a version of a dataset is found, with its rows where they are wanted. Raises NotFound."""

    def __call__(
        self, name: str, ref: int | str | None, *, rows: bool
    ) -> tuple[DatasetVersion, FileSet | pa.Table | None]: ...


@dataclass(frozen=True, slots=True)
class Referenced:
    """What a suite refers to. `tables`: those for the session; `provided`, `profiles`: what the suite calls them."""

    tables: Mapping[str, FileSet | pa.Table]
    provided: Mapping[str, Provided]
    profiles: Mapping[str, dict[str, Any]]


def in_catalog(snapshot: TakeSnapshot, scope: Scope) -> Take:
    """Finds versions in the catalog."""

    def take(name: str, ref: int | str | None, *, rows: bool) -> tuple[DatasetVersion, FileSet | None]:
        version, found = snapshot(scope, name, ref)
        return version, found.file_set if rows else None

    return take


def referenced(take: Take, dataset: str, checks: Sequence[Check]) -> Referenced:
    """What these checks of a dataset refer to. What is not there is left out: its check says so."""
    tables: dict[str, FileSet | pa.Table] = {}
    provided: dict[str, Provided] = {}
    profiles: dict[str, dict[str, Any]] = {}
    wanted = {one: False for check in checks for one in tables_of(check)}
    wanted |= {one: True for check in checks for one in profiles_of(check) if one not in wanted}
    for place, ((name, ref), profile_only) in enumerate(wanted.items()):
        try:
            version, found = take(name or dataset, ref or None, rows=not profile_only)
        except NotFound:
            continue
        key, table = reference_key(name, ref), f"reference_{place}"
        columns = {column.name: column.type for column in version.columns}
        provided[key] = Provided(table, columns, version.urn, version.rows)
        if found is not None:
            tables[table] = found
        if version.profile is not None:
            profiles[key] = {
                one.name: {"quantiles": one.quantiles, "mean": one.mean, "std": one.std}
                for one in version.profile.columns
            }
    return Referenced(tables, provided, profiles)
