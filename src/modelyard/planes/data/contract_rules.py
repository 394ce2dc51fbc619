"""What a schema must keep so that it breaks neither a contract nor those who use the dataset. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from modelyard.types.contracts import Break, Consumer, Contract
from modelyard.types.data import Check, CheckResult, Column, NotNull

_INTEGERS = ("int8", "int16", "int32", "int64")
_FLOATS = ("halffloat", "float", "double")


def contract_urn(dataset: str) -> str:
    """How a dataset's own contract is named among those who would break."""
    return f"contract:{dataset}"


def breaks_of_contract(dataset: str, contract: Contract, columns: Sequence[Column]) -> list[Break]:
    """What of a contract a schema does not keep."""
    types = {column.name: column.type for column in columns}
    promised = {column.name for column in contract.columns}
    name = contract_urn(dataset)
    found = [
        Break(consumer=name, column=column.name, problem=problem)
        for column in contract.columns
        if (problem := _problem(column.name, column.type, types, exactly=True))
    ]
    if contract.closed:
        found += [
            Break(consumer=name, column=one, problem=f"column '{one}' is not in the contract, which is closed")
            for one in types
            if one not in promised
        ]
    return found


def breaks_of_consumers(consumers: Iterable[Consumer], columns: Sequence[Column]) -> list[Break]:
    """What a schema would take from those who use the dataset."""
    types = {column.name: column.type for column in columns}
    return [
        Break(consumer=consumer.consumer, column=column.name, problem=problem)
        for consumer in consumers
        for column in consumer.columns
        if (problem := _problem(column.name, column.type, types, exactly=False))
    ]


def _problem(name: str, wanted: str, types: Mapping[str, str], *, exactly: bool) -> str:
    """Why a schema does not give this column; empty where it does."""
    found = types.get(name)
    if found is None:
        near = [one for one in types if one.casefold() == name.casefold()]
        return f"column '{name}' is missing" + (f"; it is written '{near[0]}'" if near else "")
    same = wanted in ("", found) or (not exactly and is_readable_as(found, wanted))
    return "" if same else f"column '{name}' is {found}, not {wanted}"


def is_readable_as(found: str, wanted: str) -> bool:
    """Whether who reads one type, by its Arrow name, can take values of the other: narrower ones, never wider."""
    if found == wanted:
        return True
    if found in _INTEGERS and wanted in _INTEGERS:
        return _INTEGERS.index(found) <= _INTEGERS.index(wanted)
    if found in _FLOATS and wanted in _FLOATS:
        return _FLOATS.index(found) <= _FLOATS.index(wanted)
    # All integers of 32 bits, and no wider ones, are exact in a double.
    if found in _INTEGERS[:3] and wanted == "double":
        return True
    return _fits_decimal(found, wanted)


def _fits_decimal(found: str, wanted: str) -> bool:
    sizes = [re.fullmatch(r"decimal128\((\d+), (\d+)\)", kind) for kind in (found, wanted)]
    if sizes[0] is None or sizes[1] is None:
        return False
    (precision, scale), (other_precision, other_scale) = ((int(one[1]), int(one[2])) for one in sizes if one)
    return scale <= other_scale and precision - scale <= other_precision - other_scale


def checks_of(contract: Contract) -> list[Check]:
    """The checks on rows that a contract stands for."""
    nulls = [
        NotNull(name=f"contract: '{column.name}' has no null", column=column.name)
        for column in contract.columns
        if not column.nullable
    ]
    return [*nulls, *contract.checks]


def results_of(breaks: Sequence[Break], *, allowed: bool) -> list[CheckResult]:
    """Breaks as results of a report, one for each contract or consumer, by name; `allowed` lets them only warn.

    A dataset's own contract is not broken by allowance: it is changed.
    """
    found: dict[str, list[Break]] = {}
    for one in breaks:
        found.setdefault(one.consumer, []).append(one)
    return [
        CheckResult(
            name=consumer if consumer.startswith("contract:") else f"consumer {consumer}",
            check="contract",
            status="failed",
            severity="warn" if allowed and not consumer.startswith("contract:") else "block",
            columns=[one.column for one in broken],
            message=message_of(consumer, broken),
        )
        for consumer, broken in found.items()
    ]


def message_of(consumer: str, broken: Sequence[Break]) -> str:
    """What breaks whom, in a line."""
    shown = "; ".join(one.problem for one in broken[:5])
    more = f"; and {len(broken) - 5} more" if len(broken) > 5 else ""
    if consumer.startswith("contract:"):
        return f"the contract is not kept: {shown}{more}"
    return f"{consumer} would break: {shown}{more}"
