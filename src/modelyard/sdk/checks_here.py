"""Checking rows that a program has in its hands: `modelyard.check(frame, "checks.yaml")`.

What the server does for datasets is done here inside this process, so that the rows stay where they are; it needs no
server and no home, unless a check refers to a dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from modelyard.engines.tables.foreign import ForeignRows, foreign_rows
from modelyard.kernel.errors import Conflict
from modelyard.planes.data.checking_rows import check_rows
from modelyard.planes.data.checking_rows import failing_rows as select_failing
from modelyard.planes.data.suites import read_suite as suite_of
from modelyard.sdk.client import Client
from modelyard.sdk.data import DatasetHandle, reasons
from modelyard.sdk.data_checks import read_document
from modelyard.types.checks import Rule
from modelyard.types.data import Check, CheckReport, DatasetVersion, Suite

if TYPE_CHECKING:
    import pyarrow as pa

Checks = Sequence[Check] | Suite | Mapping[str, Any] | str | Path


def check(
    data: Any,
    checks: Checks,
    *,
    model: str = "",
    dataset: str = "",
    on_fail: Literal["return", "raise"] = "return",
    client: Client | None = None,
) -> CheckReport:
    """What checks say of rows, which stay where they are; only a text of more than 64 MiB is put into a temporary
    Parquet file, since it would take too much memory.

    `data`: an Arrow table or reader, a pandas or Polars frame, or the path of a Parquet, Arrow, CSV or JSON lines file,
    several Parquet files or a folder of them. `checks`: nouns of `modelyard.types.checks`, or a suite, as read or as
    the path of its file: ours (YAML), of Great Expectations (JSON), or of dbt, of which `model` names the part.
    `dataset`: the one that a check means which refers to an earlier version without saying of what. A result that
    failed has a sample of its rows. Raises InvalidInput for what is no table or no suite, and with `on_fail="raise"`
    Conflict (`checks.failed`) where a blocking check fails.
    """
    report = check_rows(
        foreign_rows(data), read_suite(checks, model).checks, datetime.now(UTC), take=_Datasets(client), dataset=dataset
    )
    if not report.passed and on_fail == "raise":
        raise Conflict(
            f"the rows do not pass: {reasons(report)}",
            code="checks.failed",
            hint='with `on_fail="return"` the report says all',
        )
    return report


@overload
def failing_rows(
    data: Any, check: Check, *, columns: Sequence[str] | None = None, dataset: str = "", client: Client | None = None
) -> pa.Table: ...


@overload
def failing_rows(
    data: Any,
    check: Sequence[Check],
    *,
    columns: Sequence[str] | None = None,
    dataset: str = "",
    client: Client | None = None,
) -> list[pa.Table]: ...


def failing_rows(
    data: Any,
    check: Check | Sequence[Check],
    *,
    columns: Sequence[str] | None = None,
    dataset: str = "",
    client: Client | None = None,
) -> pa.Table | list[pa.Table]:
    """All rows that fail a check, or of several checks those that fail each, looked for side by side; with `columns`,
    only these of them, such as their ids. See `check`. Raises InvalidInput for a check that is not about rows, and for
    a column that there is not."""
    checks = [check] if isinstance(check, Rule) else check
    found = select_failing(foreign_rows(data), checks, columns=columns, take=_Datasets(client), dataset=dataset)
    return found[0] if isinstance(check, Rule) else found


def opened(data: Any) -> ForeignRows:
    """Rows that are checked more than once, read once: give this to `check` and `failing_rows` in their place."""
    return foreign_rows(data)


def read_suite(checks: Checks, model: str = "") -> Suite:
    """The checks as a suite, read where they are a file or a document; `unsupported` of it names what cannot be run."""
    if isinstance(checks, Suite):
        return checks
    if isinstance(checks, (str, Path)):
        return suite_of(read_document(Path(checks)), model)
    if isinstance(checks, Mapping):
        return suite_of(checks, model)
    return Suite(name="", format="modelyard", checks=list(checks))


class _Datasets:
    """The datasets that checks refer to, fetched only where one does."""

    def __init__(self, client: Client | None) -> None:
        self._client = client

    def __call__(self, name: str, ref: int | str | None, *, rows: bool) -> tuple[DatasetVersion, pa.Table | None]:
        handle = DatasetHandle(name, self._client)
        version = handle.version(ref)
        return version, handle.read(version=version.version) if rows else None
