"""Which schema may follow which. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.engines.tables.arrow import fits
from modelyard.types.data import CheckResult

if TYPE_CHECKING:
    import pyarrow as pa


def schema_result(batch: pa.Schema, base: pa.Schema | None, mode: str, *, evolve: bool) -> CheckResult:
    """Whether a batch has the structure that its dataset has, as the first check of every report.

    With `evolve` a write may add columns, which are null in the rows before it. An overwrite of all rows with `evolve`
    may bring any structure, since no row of the old one stays. A column is never lost, narrowed or widened otherwise:
    rows that were written before, and those who read them, hold to the type that it has.
    """
    if base is None or (evolve and mode == "overwrite"):
        return _verdict([])
    known = {field.name: field.type for field in base}
    found = {field.name: field.type for field in batch}
    problems = [f"column '{name}' ({kind}) is missing" for name, kind in known.items() if name not in found]
    problems += [
        _other_type(name, kind, found[name]) for name, kind in known.items() if name in found and found[name] != kind
    ]
    if not evolve:
        added = {name: kind for name, kind in found.items() if name not in known}
        problems += [f"column '{name}' ({kind}) is not in the dataset" for name, kind in added.items()]
    return _verdict(problems)


def _other_type(name: str, known: pa.DataType, found: pa.DataType) -> str:
    if fits(known, found):
        return (
            f"column '{name}' is {found}, not {known}: a column is widened only by an overwrite of all rows with "
            "`evolve`, since other readers of the table would not see two types as one"
        )
    return f"column '{name}' is {found}, not {known}"


def _verdict(problems: list[str]) -> CheckResult:
    shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
    return CheckResult(
        name="schema",
        check="schema",
        status="failed" if problems else "passed",
        severity="block",
        message=shown,
        observed=problems or None,
    )


def resulting_schema(batch: pa.Schema, base: pa.Schema | None, mode: str, *, whole: bool = True) -> pa.Schema:
    """The dataset's schema once the batch is in it: columns that are new come last. Where no row stays of before (an
    overwrite that is `whole`), it is that of the batch."""
    if base is None or (mode == "overwrite" and whole):
        return batch
    merged = base
    for field in batch:
        if field.name not in base.names:
            merged = merged.append(field)
    return merged
