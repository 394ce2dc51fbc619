"""What auditing a write comes to, and running checks over the rows that come and the table as it would become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from modelyard.engines.tables.base import FileSet, TableStore
from modelyard.engines.tables.sql import Later
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database
from modelyard.planes.data.checks import BASE, BATCH, DATASET, State, implied_by_key
from modelyard.planes.data.checks.asking import Session
from modelyard.planes.data.checks.running import Before, Seen, run_suite
from modelyard.planes.data.checks.statements import Hints
from modelyard.planes.data.file_states import StateKeeper, Staying, Told
from modelyard.planes.data.references import Referenced, TakeSnapshot, in_catalog, referenced
from modelyard.planes.data.rewriting import OpenSession
from modelyard.planes.data.store import DatasetRow
from modelyard.types.data import Check, CheckReport, CheckResult, Column, Profile
from modelyard.types.profiles import Anomaly

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found, with the profile of the dataset as it would become, and of the batch alone."""

    report: CheckReport
    profile: Profile | None
    batch: Profile
    anomalies: list[Anomaly] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Over:
    """What is audited: `batch`, the rows that come, in the dataset as it would become, the `whole`.

    `one_table`: the batch is all of it; where no rows come, it is the whole. Else `base` are the rows before them, and
    `before` the states of the version before: of the base, or, where rows of it go, of more than what is `staying`.
    `apart`: columns in which no two rows that come agree, nor one with one that stays.
    """

    batch: FileSet | Later
    schema: pa.Schema
    whole: Later
    hints: Hints
    one_table: bool = False
    none_come: bool = False
    base: Later | None = None
    before: Mapping[str, State] = field(default_factory=dict)
    staying: Staying | None = None
    apart: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of checks, what they were told by the batch alone, and what was told of rows that stay."""

    results: list[CheckResult] = field(default_factory=list)
    seen: Seen = field(default_factory=dict)
    told: Told = field(default_factory=Told)


class Auditor:
    """Runs the checks of a write."""

    def __init__(
        self, database: Database, tables: TableStore, open_session: OpenSession, snapshot: TakeSnapshot
    ) -> None:
        self._database = database
        self._open_session = open_session
        self._snapshot = snapshot
        self._keeper = StateKeeper(database, tables, open_session)

    def findings(self, scope: Scope, dataset: DatasetRow, checks: Sequence[Check], over: Over) -> Findings:
        """The results of all checks, and of those that the dataset's key implies. What can go on from what is known of
        rows that stay does, and does not read them."""
        columns = columns_of(over.schema)
        asked = [*implied_by_key(dataset.noun.key, {one.name: one.type for one in columns}), *checks]
        if not asked:
            return Findings()
        others = referenced(in_catalog(self._snapshot, scope), dataset.noun.name, asked)
        told = Told()
        if over.staying is not None:
            told = self._keeper.of_what_stays(
                scope, dataset, over.staying, asked, others,
                whole=over.none_come, before=over.before, hints=over.hints,
            )  # fmt: skip
        states = over.before if over.staying is None else told.states
        seen: Seen = {}
        results = self._run(asked, columns, others, over, states, seen)
        return Findings(results, seen, told)

    def _run(
        self,
        checks: Sequence[Check],
        columns: Sequence[Column],
        others: Referenced,
        over: Over,
        states: Mapping[str, State],
        seen: Seen,
    ) -> list[CheckResult]:
        tables: dict[str, FileSet | pa.Table | Later] = {BATCH: over.batch, DATASET: over.whole, **others.tables}
        before = None
        if over.none_come and states:
            before = Before(states, appended=True, whole=True, none_come=True)
        elif over.base is not None and not over.none_come:
            tables[BASE] = over.base
            before = Before(states, appended=True, apart=over.apart)
        with self._open_session(tables) as session:
            return run_suite(
                session,
                checks,
                columns,
                self._database.clock.now(),
                provided=others.provided,
                profiles=others.profiles,
                before=before,
                one_table=before is None and over.one_table,
                hints=over.hints,
                seen=seen,
            )


def columns_of(schema: pa.Schema) -> list[Column]:
    """The columns of an Arrow schema."""
    return [Column(field.name, str(field.type)) for field in schema]


def run_checks(
    session: Session, checks: Sequence[Check], columns: Sequence[Column], now: datetime
) -> list[CheckResult]:
    """The results of all checks, in their order. One that cannot run gives an error result and disturbs no other."""
    return run_suite(session, checks, columns, now)
