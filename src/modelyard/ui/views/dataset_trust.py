"""What of a dataset can be relied on: its contract and who needs it, and what was unusual over its versions."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from modelyard.kernel.auth import Scope
from modelyard.planes.data import Data
from modelyard.types.contracts import Break, Consumer, ContractColumn, ContractVersion, SchemaColumn
from modelyard.types.data import Dataset, DatasetVersion
from modelyard.types.profiles import FoundAnomaly, FreshnessState, WriteVolume
from modelyard.ui.series import Band, Chart, series

COLUMNS_SHOWN_MAX = 1_000
ANOMALIES_SHOWN = 50
VOLUMES_MIN = 3


class Promise(Struct, frozen=True, kw_only=True):
    """A column of the contract, what the newest version has of it, and who needs it."""

    column: ContractColumn
    present: str
    problem: str = ""
    needed_by: tuple[str, ...] = ()


class Reliance(Struct, frozen=True, kw_only=True):
    """Who uses the dataset, and what of it the newest version (or the schema that is tried) does not give."""

    consumer: Consumer
    breaks: tuple[Break, ...] = ()


class Trust(Struct, frozen=True, kw_only=True):
    """The contract in force with its present state. `dropped`: a column that is thought away; `would_break` then says
    whom that would break."""

    contract: ContractVersion | None = None
    earlier: tuple[ContractVersion, ...] = ()
    freshness: FreshnessState
    promises: tuple[Promise, ...] = ()
    promises_left_out: int = 0
    unpromised: tuple[str, ...] = ()
    consumers: tuple[Reliance, ...] = ()
    columns: tuple[str, ...] = ()
    dropped: str = ""
    would_break: tuple[Break, ...] = ()
    affected: tuple[str, ...] = ()


class Unusual(Struct, frozen=True, kw_only=True):
    """Anomalies, newest first, and what writes brought beside what was usual."""

    anomalies: tuple[FoundAnomaly, ...] = ()
    next: str | None = None
    volumes: Chart | None = None
    freshness: FreshnessState


def trust(caller: Scope, datasets: Data, found: Dataset, newest: DatasetVersion | None, dropped: str) -> Trust:
    """The contract, its present state and who relies on it."""
    history = datasets.contracts.history(caller, found.name)
    present = {} if newest is None else {one.name: one.type for one in newest.columns}
    dropped = dropped if dropped in present else ""
    now = datasets.contracts.check(caller, found.name)
    broken = now.breaks if newest is not None else []
    promises = _promises(history[0], present, broken, now.consumers) if history else []
    tried = None
    if dropped:
        kept = [SchemaColumn(name=name, type=kind) for name, kind in present.items() if name != dropped]
        tried = datasets.contracts.check(caller, found.name, kept)
    return Trust(
        contract=history[0] if history else None,
        earlier=tuple(history[1:]),
        freshness=datasets.anomalies.freshness(caller, found.name),
        promises=tuple(promises[:COLUMNS_SHOWN_MAX]),
        promises_left_out=max(len(promises) - COLUMNS_SHOWN_MAX, 0),
        unpromised=_unpromised(history[0], present) if history else (),
        consumers=tuple(
            Reliance(consumer=one, breaks=tuple(each for each in broken if each.consumer == one.consumer))
            for one in now.consumers
        ),
        columns=tuple(present),
        dropped=dropped,
        would_break=() if tried is None else tuple(one for one in tried.breaks if one.column == dropped),
        affected=() if tried is None else tuple(tried.affected),
    )


def _promises(
    held: ContractVersion, present: dict[str, str], broken: Sequence[Break], consumers: Sequence[Consumer]
) -> list[Promise]:
    problems = {one.column: one.problem for one in broken if one.consumer == f"contract:{held.dataset}"}
    needed: dict[str, list[str]] = {}
    for consumer in consumers:
        for column in consumer.columns:
            needed.setdefault(column.name, []).append(consumer.consumer)
    return [
        Promise(
            column=column,
            present=present.get(column.name, ""),
            problem=problems.get(column.name, ""),
            needed_by=tuple(needed.get(column.name, ())),
        )
        for column in held.contract.columns
    ]


def _unpromised(held: ContractVersion, present: dict[str, str]) -> tuple[str, ...]:
    promised = {one.name for one in held.contract.columns}
    return tuple(name for name in present if promised and name not in promised)


def unusual(caller: Scope, datasets: Data, name: str, page: str) -> Unusual:
    """What was unusual about a dataset, with the volume of its writes."""
    found = datasets.anomalies.list(caller, name, after=page or None, limit=ANOMALIES_SHOWN)
    return Unusual(
        anomalies=tuple(found.items),
        next=found.next,
        volumes=volume_chart(datasets.anomalies.volumes(caller, name)),
        freshness=datasets.anomalies.freshness(caller, name),
    )


def volume_chart(writes: Sequence[WriteVolume]) -> Chart | None:
    """Rows of each write over what would have been usual, once there are enough writes to draw a line through."""
    if len(writes) < VOLUMES_MIN:
        return None
    known = [
        (float(one.version), one.expected_low, one.expected_high)
        for one in writes
        if one.expected_low is not None and one.expected_high is not None
    ]
    band = Band(
        name="usual",
        xs=tuple(x for x, _, _ in known),
        low=tuple(low for _, low, _ in known),
        high=tuple(high for _, _, high in known),
    )
    return Chart(
        title="Rows by write",
        series=(series("rows", [(float(one.version), float(one.rows)) for one in writes]),),
        band=band if known else None,
        note="" if known else "What is usual shows once there are enough writes to tell.",
    )
