"""Which schema may follow which. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from modelyard.engines.tables.arrow import fits
from modelyard.types.data import CheckReport, CheckResult

if TYPE_CHECKING:
    import pyarrow as pa

REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a write may do to the schema. `evolve`: add columns, which are null in the rows before it, and, where it is
    an overwrite of all rows (`whole`), widen them. `replace`, for such an overwrite only: bring any schema."""

    evolve: bool = False
    replace: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """What a batch would do to a column; the types are in Arrow's words, `before` or `after` empty where there is
    none."""

    kind: Literal["added", "dropped", "widened", "retyped"]
    column: str
    before: str = ""
    after: str = ""

    def allowed(self, by: Allowed) -> bool:
        """Whether the write may do this. Rows that stay, and those who read them, hold to the types that there are."""
        if by.replace and by.whole:
            return True
        return by.evolve and (self.kind == "added" or (self.kind == "widened" and by.whole))

    def __str__(self) -> str:
        match self.kind:
            case "added":
                return f"column '{self.column}' ({self.after}) is not in the dataset"
            case "dropped":
                return f"column '{self.column}' ({self.before}) is missing"
            case _:
                return f"column '{self.column}' is {self.after}, not {self.before}"

    def advice(self, by: Allowed) -> str:
        """What would let a write do it that may not."""
        if self.kind == "added":
            return "to add columns, write with `evolve`"
        if not by.whole:
            return "columns keep their types while rows of before stay; to change them, overwrite all rows"
        if self.kind == "widened":
            return "to widen columns, write with `evolve`"
        return "to drop columns, or give them another type, overwrite with `replace_schema`"


def changes(batch: pa.Schema, base: pa.Schema | None) -> list[Change]:
    """What a batch would do to the columns that there are."""
    if base is None:
        return []
    known = {field.name: field.type for field in base}
    found = {field.name: field.type for field in batch}
    lost = [Change("dropped", name, str(kind)) for name, kind in known.items() if name not in found]
    other = [
        Change("widened" if fits(kind, found[name]) else "retyped", name, str(kind), str(found[name]))
        for name, kind in known.items()
        if name in found and found[name] != kind
    ]
    return [*lost, *other, *(Change("added", name, "", str(kind)) for name, kind in found.items() if name not in known)]


def schema_result(batch: pa.Schema, base: pa.Schema | None, allowed: Allowed) -> CheckResult:
    """Whether a batch has the structure that its dataset has, or changes it as the write may: the first check of every
    report. What a schema that was replaced lost is told in the result's details."""
    found = changes(batch, base)
    wrong = [one for one in found if not one.allowed(allowed)]
    lost = [str(one) for one in found if one.kind in ("dropped", "retyped")] if not wrong else []
    return _verdict([str(one) for one in wrong], list(dict.fromkeys(one.advice(allowed) for one in wrong)), lost)


def replaced_columns(report: CheckReport | None) -> list[str]:
    """What the schema of a version lost, as its report tells; empty where it replaced none."""
    return [
        str(column)
        for one in (report.results if report else [])
        if one.check == "schema"
        for column in one.details.get(REPLACED, [])
    ]


def _verdict(problems: list[str], advice: list[str], replaced: list[str]) -> CheckResult:
    more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
    shown = "; ".join([*problems[:10], *more])
    if advice:
        shown += f" ({'; '.join(advice)})"
    return CheckResult(
        name="schema",
        check="schema",
        status="failed" if problems else "passed",
        severity="block",
        message=shown,
        observed=problems or None,
        details={REPLACED: replaced} if replaced else {},
    )


def resulting_schema(batch: pa.Schema, base: pa.Schema | None, *, whole: bool = False) -> pa.Schema:
    """The dataset's schema once the batch is in it: columns that are new come last. Where no row stays of before (an
    overwrite that is `whole`), it is that of the batch."""
    if base is None or whole:
        return batch
    merged = base
    for field in batch:
        if field.name not in base.names:
            merged = merged.append(field)
    return merged
