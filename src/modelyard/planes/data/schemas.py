"""Which schema may follow which. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.types.data import CheckResult, WriteMode

if TYPE_CHECKING:
    import pyarrow as pa


def schema_result(batch: pa.Schema, base: pa.Schema | None, mode: WriteMode, *, evolve: bool) -> CheckResult:
    """Whether a batch has the structure that its dataset has, as the first check of every report.

    With `evolve` an append may add columns, which are null in the rows before it, and an overwrite may bring any
    structure.
    """
    if base is None or (evolve and mode == "overwrite"):
        return _verdict([])
    known = {field.name: field.type for field in base}
    found = {field.name: field.type for field in batch}
    problems = [f"column '{name}' ({kind}) is missing" for name, kind in known.items() if name not in found]
    problems += [
        f"column '{name}' is {found[name]}, not {kind}"
        for name, kind in known.items()
        if name in found and found[name] != kind
    ]
    if not evolve:
        added = {name: kind for name, kind in found.items() if name not in known}
        problems += [f"column '{name}' ({kind}) is not in the dataset" for name, kind in added.items()]
    return _verdict(problems)


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


def resulting_schema(batch: pa.Schema, base: pa.Schema | None, mode: WriteMode) -> pa.Schema:
    """The dataset's schema once the batch is in it: for an append, columns that are new come last."""
    if base is None or mode == "overwrite":
        return batch
    merged = base
    for field in batch:
        if field.name not in base.names:
            merged = merged.append(field)
    return merged
