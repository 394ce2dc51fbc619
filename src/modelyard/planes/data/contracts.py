"""The verbs of contracts: set and read them, say who uses what, and try a schema before anything is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from modelyard.kernel import lineage
from modelyard.kernel.auth import Scope
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.planes.data import history_store, store
from modelyard.planes.data.checks import name_of
from modelyard.planes.data.checks.verdicts import columns_of
from modelyard.planes.data.consumers import Consumers
from modelyard.planes.data.consumption import InForce
from modelyard.planes.data.contract_rules import breaks_of_consumers, breaks_of_contract
from modelyard.planes.data.guards import expect_next
from modelyard.types.contracts import (
    ConsumedColumn,
    Consumer,
    Contract,
    ContractCheck,
    ContractVersion,
    SchemaColumn,
)
from modelyard.types.data import Column

FindRow = Callable[[Scope, str], store.DatasetRow]
_URN = re.compile(r"[a-z][a-z-]{0,31}:[\x21-\x7e]{1,220}")
_HISTORY_MAX = 100
_AFFECTED_DEPTH = 4
_AFFECTED_KINDS = ("model:", "endpoint:", "feature-view:", "dataset:", "pipeline:")


class Contracts:
    """What datasets promise, and to whom. `find` gives a dataset's row or raises NotFound."""

    def __init__(self, database: Database, find: FindRow, users: Consumers) -> None:
        self._database = database
        self._find = find
        self._users = users

    def set(self, scope: Scope, name: str, contract: Contract, *, breaking: bool = False) -> ContractVersion:
        """Put a contract in force; the ones before stay as history.

        Raises InvalidInput for one that contradicts itself, Conflict (`contract.breaks_consumers`) where it leaves
        out or changes what somebody uses, by name, unless `breaking`.
        """
        row = self._find(scope, name)
        _check_contract(contract)
        with self._database.transaction(scope) as tx:
            if not breaking:
                self._refuse_breaks(tx, row, contract)
            before = history_store.contract_versions(tx, row, 1)
            number = before[0].number + 1 if before else 1
            history_store.insert_contract(tx, row.id, number, contract)
            expect_next(tx, row.id, None)
            tx.event("dataset.contract_set", f"dataset:{name}", {"number": number, "owner": contract.owner})
        return self.get(scope, name)

    def get(self, scope: Scope, name: str, number: int | None = None) -> ContractVersion:
        """The contract in force, or an earlier one. Raises NotFound."""
        for one in self.history(scope, name):
            if number is None or one.number == number:
                return one
        raise NotFound(
            f"dataset '{name}' has no contract" + ("" if number is None else f" number {number}"),
            code="contract.not_found",
            hint=f"set one with `modelyard dataset contract set {name} FILE`",
        )

    def history(self, scope: Scope, name: str) -> list[ContractVersion]:
        """All that were set, newest first."""
        row = self._find(scope, name)
        with self._database.reading(scope) as tx:
            return history_store.contract_versions(tx, row, _HISTORY_MAX)

    def check(self, scope: Scope, name: str, columns: Sequence[SchemaColumn] | None = None) -> ContractCheck:
        """Try a schema (None: that of the newest version) against the contract and all who use the dataset.

        Nothing is written. Whoever would break is named; whoever uses the dataset without it being known which
        columns is `affected` where the schema differs from the newest version's.
        """
        row = self._find(scope, name)
        with self._database.reading(scope) as tx:
            contract = history_store.current_contract(tx, row.id)
            consumers = self._users.of(tx, row)
            newest = store.version_row(tx, row, row.noun.latest) if row.noun.latest else None
            held = [] if newest is None else newest.noun.columns
            tried = held if columns is None else [Column(one.name, one.type) for one in columns]
            affected = [] if newest is None or tried == held else _affected(tx, newest.noun.urn, consumers)
        broken = [] if contract is None else breaks_of_contract(name, contract, tried)
        if tried or columns is not None:
            broken += breaks_of_consumers(consumers, tried)
        return ContractCheck(dataset=name, passed=not broken, breaks=broken, consumers=consumers, affected=affected)

    # --- consumers --------------------------------------------------------------------------------------------

    def consumers(self, scope: Scope, name: str) -> list[Consumer]:
        """Who uses a dataset, as far as they said so or lineage shows it."""
        row = self._find(scope, name)
        with self._database.reading(scope) as tx:
            return self._users.of(tx, row)

    def relied_on_by(self, in_force: InForce) -> None:
        """Ask this function, too, what is in force: whoever relies on it is a consumer of the data behind it."""
        self._users.relied_on_by(in_force)

    def declare(
        self, scope: Scope, name: str, consumer: str, columns: Sequence[ConsumedColumn], *, owner: str = ""
    ) -> Consumer:
        """Say which columns a consumer uses; said again, it replaces what was said before.

        Raises InvalidInput for a name that is no URN, Conflict (`contract.consumer_unmet`) where the newest version
        does not have such columns.
        """
        if not _URN.fullmatch(consumer):
            raise InvalidInput(
                f"{consumer[:120]!a} names no consumer",
                code="contract.consumer_invalid",
                hint="a consumer is a URN such as model:delay, feature-view:delays, pipeline:retrain or team:ops",
            )
        row = self._find(scope, name)
        said = Consumer(consumer=consumer, columns=list(columns), origin="declared", owner=owner)
        with self._database.transaction(scope) as tx:
            newest = store.version_row(tx, row, row.noun.latest) if row.noun.latest else None
            broken = [] if newest is None else breaks_of_consumers([said], newest.noun.columns)
            if broken:
                raise Conflict(
                    f"dataset '{name}' does not have what {consumer} wants to use: {broken[0].problem}",
                    code="contract.consumer_unmet",
                    hint="declare columns that its newest version has",
                )
            self.note_use(tx, name, consumer, columns, owner=owner)
        return next(one for one in self.consumers(scope, name) if one.consumer == consumer)

    def note_use(
        self, tx: Transaction, name: str, consumer: str, columns: Sequence[ConsumedColumn], *, owner: str = ""
    ) -> None:
        """As `declare`, in a transaction of another plane whose noun the consumer is; said again, it is no event."""
        row = store.dataset_named(tx, name)
        said = (consumer, list(columns), "declared", owner)
        known = [] if row is None else history_store.consumers_of(tx, row.id)
        if row is not None and said not in [(one.consumer, one.columns, one.origin, one.owner) for one in known]:
            history_store.set_consumer(tx, row.id, consumer, columns, origin="declared", owner=owner)
            tx.event("dataset.consumer_declared", f"dataset:{name}", {"consumer": consumer, "columns": len(columns)})

    def withdraw(self, scope: Scope, name: str, consumer: str) -> None:
        """Forget a consumer. Raises NotFound."""
        row = self._find(scope, name)
        with self._database.transaction(scope) as tx:
            if not history_store.delete_consumer(tx, row.id, consumer):
                raise NotFound(
                    f"{consumer[:120]!a} is no consumer of dataset '{name}'",
                    code="contract.consumer_not_found",
                    hint=f"list them with `modelyard dataset consumer list {name}`",
                )
            tx.event("dataset.consumer_withdrawn", f"dataset:{name}", {"consumer": consumer})

    def _refuse_breaks(self, tx: Transaction, row: store.DatasetRow, contract: Contract) -> None:
        if not contract.columns:
            return
        promised = [Column(one.name, one.type) for one in contract.columns]
        uses = [_of_promised(one, contract) for one in self._users.of(tx, row)]
        broken = breaks_of_consumers(uses, promised)
        if broken:
            named = sorted({one.consumer for one in broken})
            raise Conflict(
                f"this contract would break {', '.join(named)}: {broken[0].problem}",
                code="contract.breaks_consumers",
                hint="keep what they use, agree with them and let them withdraw, or set it as breaking",
            )


def _of_promised(consumer: Consumer, contract: Contract) -> Consumer:
    """What a consumer uses of what a contract can take away: an open one only says more of some columns."""
    promised = {one.name: one.type for one in contract.columns}
    kept = [
        ConsumedColumn(name=one.name, type=one.type if promised.get(one.name) else "")
        for one in consumer.columns
        if contract.closed or one.name in promised
    ]
    return Consumer(consumer=consumer.consumer, columns=kept, origin=consumer.origin)


def _check_contract(contract: Contract) -> None:
    names = [column.name for column in contract.columns]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InvalidInput(f"the contract has column '{twice}' twice", code="contract.invalid")
    if contract.closed and not names:
        raise InvalidInput("a closed contract names its columns", code="contract.invalid")
    for check in contract.checks:
        foreign = [column for column in columns_of(check) if contract.closed and column not in names]
        if foreign:
            raise InvalidInput(
                f"check '{name_of(check)}' is about column '{foreign[0]}', which the closed contract does not have",
                code="contract.invalid",
            )


def _affected(tx: Transaction, urn: str, known: Sequence[Consumer]) -> list[str]:
    """What came of a version, as far as lineage shows, and is no consumer all of whose columns are known."""
    told = {one.consumer for one in known if one.columns and not one.whole}
    own = urn.partition("@")[0]
    names = {node.partition("@")[0] for node in lineage.walk(tx, urn, "down", _AFFECTED_DEPTH).nodes}
    names |= {one.consumer for one in known}
    return sorted(one for one in names if one.startswith(_AFFECTED_KINDS) and one != own and one not in told)
