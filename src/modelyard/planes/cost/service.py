"""The verbs of cost: prices, what a thing cost, and a total allocated to its parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec

from modelyard.kernel.auth import Scope
from modelyard.kernel.clock import EPOCH
from modelyard.kernel.database import Database, Transaction
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.lineage import neighbours
from modelyard.planes.cost import store
from modelyard.planes.cost.pricing import PricedAttempt, amount, lines, price_attempt, split_attempt
from modelyard.planes.jobs import Jobs
from modelyard.types.cost import Allocation, CostItem, Price, PriceBook, SetPrices
from modelyard.types.jobs import AttemptUsage, Job

EXAMPLE_CURRENCY = "USD"
EXAMPLE_PRICES = (
    Price(resource="cpu_h", price=Decimal("0.04"), effective_from=EPOCH),
    Price(resource="memory_gib_h", price=Decimal("0.005"), effective_from=EPOCH),
)
PRICE_MAX = Decimal(1_000_000)
PRICE_PLACES_MAX = 9
PERIOD = timedelta(days=30)
NOTHING = "(none)"
LABEL_PREFIX = "label:"
GROUPS = ("pipeline", "pipeline_run", "step", "job", "submitted_by", "run")
KINDS = ("job", "run", "pipeline-run", "model", "project")
EXAMPLES_NOTE = "the prices are examples; set your own with `modelyard cost prices --set cpu_h=0.04`"


class Cost:
    """Prices times metered usage, per project. Nothing is stored but the prices: usage is the jobs' own ledger."""

    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs

    # --- prices -----------------------------------------------------------------------------------------------

    def prices(self, scope: Scope) -> PriceBook:
        """The project's prices, or the examples where none are set."""
        with self._database.reading(scope) as tx:
            return _book(tx)

    def set_prices(self, scope: Scope, given: SetPrices) -> PriceBook:
        """Set prices from an instant on. What is before it keeps its price. Raises InvalidInput; Conflict for another
        currency than the book's."""
        for resource, price in given.prices.items():
            _check_price(resource, price)
        with self._database.transaction(scope) as tx:
            currency = store.currency_of(tx)
            if currency is None:
                store.set_currency(tx, given.currency or EXAMPLE_CURRENCY)
            elif given.currency is not None and given.currency != currency:
                raise Conflict(
                    f"the prices of project '{tx.project}' are in {currency}, not {given.currency}",
                    code="cost.currency_fixed",
                    hint="a book has one currency: convert the prices",
                )
            since = (given.effective_from or tx.now).astimezone(UTC)
            store.put_prices(tx, given.prices, since)
            data = {name: str(price) for name, price in given.prices.items()}
            tx.event("price.set", f"project:{tx.project}", {"prices": data, "effective_from": since.isoformat()})
            return _book(tx)

    # --- what it cost -----------------------------------------------------------------------------------------

    def of(self, scope: Scope, urn: str) -> CostItem:
        """What a `job:`, `run:`, `pipeline-run:`, `model:name@version` or `project:` cost.

        Raises NotFound, InvalidInput. A job that made several runs, or a run that made several model versions, is
        split evenly between them.
        """
        kind, _, name = urn.partition(":")
        if kind not in KINDS or not name:
            raise InvalidInput(
                f"what '{urn[:80]}' cost is not metered",
                code="cost.urn_invalid",
                hint=f"ask for one of: {', '.join(f'{one}:…' for one in KINDS)}",
            )
        now = self._database.clock.now()
        with self._database.reading(scope) as tx:
            book = _book(tx)
        if kind == "project":
            if name != scope.project:
                raise NotFound(
                    f"this request is about project '{scope.project}', not '{name[:80]}'", code="cost.project"
                )
            ledger = self._jobs.usage(scope, since=EPOCH, until=now + timedelta(microseconds=1))
            return _cost(urn, book, [price_attempt(one, book.prices, now) for one in ledger])
        with self._database.reading(scope) as tx:
            parts = _parts_of(tx, urn)
        priced: list[PricedAttempt] = []
        for job_id, part in sorted(parts.items()):
            attempts = [price_attempt(one, book.prices, now) for one in _ledger(self._jobs.get_job(scope, job_id))]
            priced += part.of(attempts)
        notes = () if parts else ("no metered job made it: what ran outside the platform is not known",)
        return _cost(urn, book, priced, notes=notes, shared=not all(part.whole for part in parts.values()))

    def allocate(
        self, scope: Scope, by: str = "pipeline", *, since: datetime | None = None, until: datetime | None = None
    ) -> Allocation:
        """The project's cost of a period, allocated to pipelines, pipeline runs, steps, jobs, runs, persons, or the
        values of a label (`label:team`). The parts add up to the total exactly.

        An attempt counts in the period in which it started, so periods add up as well. Default: the last 30 days.
        """
        if by not in GROUPS and not (by.startswith(LABEL_PREFIX) and len(by) > len(LABEL_PREFIX)):
            raise InvalidInput(
                f"cost cannot be allocated by '{by[:80]}'",
                code="cost.by_invalid",
                hint=f"use one of {', '.join(GROUPS)}, or label:NAME",
            )
        now = self._database.clock.now()
        until = until or now + timedelta(microseconds=1)
        since = since or until - PERIOD
        if since >= until:
            raise InvalidInput(
                f"the period from {since.isoformat()} to {until.isoformat()} is empty",
                code="cost.period_invalid",
                hint="give a `since` before `until`",
            )
        ledger = [one for one in self._jobs.usage(scope, since=since, until=until) if since <= one.started_at < until]
        with self._database.reading(scope) as tx:
            book = _book(tx)
            priced = [price_attempt(one, book.prices, now) for one in ledger]
            groups = _by_run(tx, priced) if by == "run" else _by_label(by, priced)
        parts = [_cost(_group_urn(by, name), book, found) for name, found in groups.items()]
        return Allocation(
            by=by,
            currency=book.currency,
            total=_cost(f"project:{scope.project}", book, priced),
            parts=tuple(sorted(parts, key=lambda part: (-part.amount, part.urn))),
        )


class Part(msgspec.Struct, frozen=True):
    """A part of a job: halved, say, and of that the second third. Each cut is how many even parts, and which of them.

    Cut by cut, so that the parts of a part add up to it exactly.
    """

    cuts: tuple[tuple[int, int], ...] = ()

    @property
    def whole(self) -> bool:
        """Whether nothing else has a part of the job."""
        return all(parts == 1 for parts, _ in self.cuts)

    def of(self, attempts: Sequence[PricedAttempt]) -> list[PricedAttempt]:
        """This part of what the job cost."""
        found = list(attempts)
        for parts, place in self.cuts:
            found = [split_attempt(one, parts)[place] for one in found]
        return found

    def among(self, siblings: Sequence[str], own: str) -> Part:
        """What one of several things, made by this part, has of it."""
        ordered = sorted(siblings)
        return Part((*self.cuts, (len(ordered), ordered.index(own))))


def _parts_of(tx: Transaction, urn: str) -> dict[str, Part]:
    """Which part of which jobs a thing is made of, by lineage."""
    kind, _, name = urn.partition(":")
    match kind:
        case "job":
            return {name: Part()}
        case "pipeline-run":
            return {job: Part() for job in _tied(tx, urn, "triggered", "job:", down=True)}
        case "run":
            jobs = _tied(tx, urn, "produced", "job:", down=False)
            return {job: Part().among(_tied(tx, f"job:{job}", "produced", "run:", down=True), name) for job in jobs}
        case _:
            found: dict[str, Part] = {}
            for run in _tied(tx, urn, "produced", "run:", down=False):
                models = _tied(tx, f"run:{run}", "produced", "model:", down=True)
                for job, part in _parts_of(tx, f"run:{run}").items():
                    found[job] = part.among(models, name)
            return found


def _tied(tx: Transaction, urn: str, relation: str, prefix: str, *, down: bool) -> list[str]:
    """What a URN is tied to by a relation, without the prefix: as its subject (`down`) or as its object."""
    ends = [
        edge.object if down else edge.subject
        for edge in neighbours(tx, urn)
        if edge.relation == relation and (edge.subject if down else edge.object) == urn
    ]
    return [end.removeprefix(prefix) for end in ends if end.startswith(prefix)]


def _by_label(by: str, priced: Sequence[PricedAttempt]) -> Mapping[str, list[PricedAttempt]]:
    groups: dict[str, list[PricedAttempt]] = defaultdict(list)
    for one in priced:
        match by:
            case "job":
                name = one.attempt.job_id
            case "submitted_by":
                name = one.attempt.submitted_by
            case _:
                name = one.attempt.labels.get(by.removeprefix(LABEL_PREFIX), NOTHING)
        groups[name].append(one)
    return groups


def _by_run(tx: Transaction, priced: Sequence[PricedAttempt]) -> Mapping[str, list[PricedAttempt]]:
    groups: dict[str, list[PricedAttempt]] = defaultdict(list)
    runs: dict[str, list[str]] = {}
    for one in priced:
        job = one.attempt.job_id
        if job not in runs:
            runs[job] = sorted(_tied(tx, f"job:{job}", "produced", "run:", down=True))
        if not runs[job]:
            groups[NOTHING].append(one)
            continue
        for run, part in zip(runs[job], split_attempt(one, len(runs[job])), strict=True):
            groups[run].append(part)
    return groups


def _group_urn(by: str, name: str) -> str:
    if name == NOTHING:
        return NOTHING
    prefix = {"pipeline_run": "pipeline-run", "submitted_by": "principal"}.get(by, by.removeprefix(LABEL_PREFIX))
    return f"{prefix}:{name}"


def _ledger(job: Job) -> list[AttemptUsage]:
    return [
        AttemptUsage(
            job_id=job.id,
            attempt=attempt.number,
            name=job.name,
            labels=job.labels,
            submitted_by=job.submitted_by,
            resources=job.resources,
            state=attempt.state,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            usage=attempt.usage,
        )
        for attempt in job.attempts
    ]


def _cost(
    urn: str, book: PriceBook, priced: Sequence[PricedAttempt], *, notes: tuple[str, ...] = (), shared: bool = False
) -> CostItem:
    attempts = [one.attempt for one in priced]
    running = [one for one in attempts if one.ended_at is None]
    unpriced = sorted({resource for one in priced for resource in one.unpriced})
    said = [*notes]
    if shared:
        said.append("a part of the cost of jobs that made several things alike")
    if running:
        said.append("still running: what it costs so far")
    if unpriced:
        said.append(f"used before any price for it held, and so not counted: {', '.join(unpriced)}")
    if book.default and priced:
        said.append(EXAMPLES_NOTE)
    return CostItem(
        urn=urn,
        currency=book.currency,
        amount=amount(sum(one.nanos for one in priced)),
        lines=lines(priced),
        jobs=tuple(sorted({one.job_id for one in attempts})),
        attempts=len({(one.job_id, one.attempt) for one in attempts}),
        since=min((one.started_at for one in attempts), default=None),
        until=max((one.ended_at for one in attempts if one.ended_at is not None), default=None),
        estimate=bool(running) or book.default,
        notes=tuple(said),
    )


def _book(tx: Transaction) -> PriceBook:
    found = store.prices_of(tx)
    if not found:
        return PriceBook(currency=EXAMPLE_CURRENCY, prices=EXAMPLE_PRICES, default=True)
    return PriceBook(currency=store.currency_of(tx) or EXAMPLE_CURRENCY, prices=tuple(found), default=False)


def _check_price(resource: str, price: Decimal) -> None:
    exponent = price.as_tuple().exponent
    if not price.is_finite() or not 0 <= price <= PRICE_MAX or not isinstance(exponent, int):
        problem = f"must lie between 0 and {PRICE_MAX:,}"
    elif -exponent > PRICE_PLACES_MAX:
        problem = f"has more than {PRICE_PLACES_MAX} places"
    else:
        return
    raise InvalidInput(
        f"the price of {resource} {problem}: {str(price)[:40]}",
        code="cost.price_invalid",
        hint="give the price of one unit as a decimal, such as 0.04",
    )
