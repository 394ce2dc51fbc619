"""What a write must pass besides its checks: the contract, those who use the dataset, and its own history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.planes.data import history_store, store
from modelyard.planes.data.anomaly_rules import Earlier, Measure, expected_by, judge, measure_of
from modelyard.planes.data.consumers import Consumers
from modelyard.planes.data.contract_rules import breaks_of_consumers, breaks_of_contract, checks_of, results_of
from modelyard.types.contracts import Consumer, Contract
from modelyard.types.data import Check, CheckResult, Column, DatasetVersion, Profile
from modelyard.types.profiles import Anomaly

_JUDGED_MODES = frozenset({"append", "overwrite"})
_SHOWN_IN_EVENT = 20


@dataclass(frozen=True, slots=True)
class Guard:
    """What one write is held against. `breaking`: consumers may break, since the writer knows and wants it."""

    dataset: str = ""
    contract: Contract | None = None
    history: Sequence[Earlier] = ()
    consumers: Callable[[], Sequence[Consumer]] = field(default=lambda: ())
    breaking: bool = False

    @property
    def checks(self) -> list[Check]:
        """The checks on rows that the contract adds."""
        return [] if self.contract is None else checks_of(self.contract)

    def schema_results(self, before: Sequence[Column] | None, after: Sequence[Column]) -> list[CheckResult]:
        """What the schema that the dataset would have breaks; those who use it are only asked where it changes."""
        broken = [] if self.contract is None else breaks_of_contract(self.dataset, self.contract, after)
        if before is not None and list(before) != list(after):
            broken += breaks_of_consumers(self.consumers(), after)
        results = results_of(broken, allowed=self.breaking)
        if self.contract is not None and not any(one.name == f"contract:{self.dataset}" for one in results):
            kept = CheckResult(name=f"contract:{self.dataset}", check="contract", status="passed", severity="block")
            results.insert(0, kept)
        return results

    def anomalies(self, batch: Profile, at: datetime) -> list[Anomaly]:
        """What is unusual about the batch."""
        return judge(self.history, measure_of(batch), at) if batch.rows else []

    def anomaly_results(self, found: Sequence[Anomaly]) -> list[CheckResult]:
        """Anomalies as results of the report: warnings, unless the contract lets them block."""
        blocks = self.contract is not None and self.contract.on_anomaly == "block"
        return [
            CheckResult(
                name=f"unusual {one.kind}" + (f" of {one.column}" if one.column else ""),
                check="anomaly",
                status="failed",
                severity="block" if blocks else "warn",
                columns=[one.column] if one.column else [],
                observed=one.observed,
                message=one.reason,
            )
            for one in found
        ]


class Guards:
    """Knows what writes are held against, and remembers what became of them."""

    def __init__(self, database: Database, users: Consumers) -> None:
        self._database = database
        self._users = users

    def of(self, scope: Scope, dataset: store.DatasetRow, mode: str, *, breaking: bool = False) -> Guard:
        """What a write of this mode is held against now."""
        with self._database.reading(scope) as tx:
            contract = history_store.current_contract(tx, dataset.id)
            history = history_store.earlier_writes(tx, dataset.id, mode) if mode in _JUDGED_MODES else []

        def consumers() -> Sequence[Consumer]:
            with self._database.reading(scope) as tx:
                return self._users.of(tx, dataset)

        return Guard(dataset.noun.name, contract, history, consumers, breaking)


def record_write(
    tx: Transaction, dataset_id: str, version: DatasetVersion, measure: Measure | None, found: Sequence[Anomaly]
) -> None:
    """Remember a version that came: its measure, what was unusual, and by when the next should come."""
    history_store.end_anomalies(tx, dataset_id)
    if measure is not None:
        history_store.insert_measure(tx, dataset_id, version.version, version.mode, measure, version.created_at)
    history_store.insert_anomalies(tx, dataset_id, version.version, found)
    if found:
        said = [{"kind": one.kind, "column": one.column, "reason": one.reason} for one in found[:_SHOWN_IN_EVENT]]
        tx.event("dataset.anomaly_found", version.urn, {"anomalies": said, "count": len(found)})
    expect_next(tx, dataset_id, version.created_at)


def expect_next(tx: Transaction, dataset_id: str, last_at: datetime | None) -> None:
    """Say anew by when the next version should come, as after a version or a change of the contract."""
    instants = history_store.write_instants(tx, dataset_id)
    last = last_at or max(instants, default=None)
    if last is None:
        return
    contract = history_store.current_contract(tx, dataset_id)
    promised = None if contract is None else contract.max_age_s
    history_store.expect(tx, dataset_id, last, expected_by(instants or [last], promised))
