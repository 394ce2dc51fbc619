"""Cost over the real ledger of jobs, on SQLite and PostgreSQL; only the compute engine is one that tests meter."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.engines.blobs.local import LocalBlobs
from modelyard.engines.compute.base import CommandSpec, Finished, Handle, LogPiece, Lost, Outcome, Running
from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.cost import Cost
from modelyard.planes.data import Data
from modelyard.planes.jobs import Jobs
from modelyard.planes.registry import Registry
from modelyard.planes.tracking import Owner, Tracking
from modelyard.types.cost import SetPrices
from modelyard.types.jobs import Resources, SubmitJob, Usage
from modelyard.types.tracking import CreateRun

GIB = 2**30
HOUR = 3_600.0
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Metered:
    """A compute engine whose commands use what a test says, and end when it says so."""

    name = "metered"

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.using: dict[str, Usage] = {}
        self.ended: dict[str, int] = {}

    def capacity(self) -> Resources:
        return Resources(cpus=64, memory_bytes=64 * GIB)

    def start(self, spec: CommandSpec) -> Handle:
        self.using.setdefault(spec.directory, Usage())
        return Handle(directory=spec.directory, pid=1, started_at=self.clock.now().timestamp())

    def find(self, directory: str) -> Handle | None:
        return None

    def poll(self, handle: Handle) -> Running | Finished | Lost:
        usage = self.using[handle.directory]
        if handle.directory not in self.ended:
            return Running(usage=usage)
        code, now = self.ended[handle.directory], self.clock.now().timestamp()
        return Finished(
            outcome=Outcome.EXITED, exit_code=code, signal=None, message="", started_at=now, ended_at=now, usage=usage
        )

    def wait(self, handle: Handle, timeout_s: float) -> Running | Finished | Lost:
        return self.poll(handle)

    def watch(self, handle: Handle, ended: Callable[[], None]) -> None:
        return None

    def stop(self, handle: Handle, grace_s: float) -> None:
        self.ended[handle.directory] = 1

    def read_log(self, handle: Handle, offset: int = 0, limit_bytes: int = 65_536) -> LogPiece:
        return LogPiece(content=b"", offset=0, next=0, skipped_bytes=0, end=True)


class House:
    """Jobs with a metered engine, tracking and registry for the lineage, and cost over them."""

    def __init__(self, database: Database, clock: FixedClock, root: Path, scope: Scope) -> None:
        self.database, self.clock, self.scope = database, clock, scope
        self.engine = Metered(clock)
        self.jobs = Jobs(database, self.engine, root / "jobs", server_url="http://127.0.0.1:9")
        blobs = LocalBlobs(root / "blobs")
        self.tracking = Tracking(database, blobs)
        self.registry = Registry(database, blobs, self.tracking, Data(database, DeltaTables(root / "tables")))
        self.cost = Cost(database, self.jobs)
        self.loop = ReconcileLoop(database, self.jobs.reconcilers())

    def start(self, *, memory_bytes: int = 0, max_attempts: int = 1, **labels: str) -> str:
        """A job that runs. Returns its id."""
        spec = SubmitJob(
            command=["train"], labels=labels, max_attempts=max_attempts, resources=Resources(memory_bytes=memory_bytes)
        )
        job = self.jobs.submit_job(self.scope, spec)
        self.loop.settle()
        return job.id

    def use(self, job: str, *, cpu_s: float, wall_s: float, peak: int = 0, exit_code: int | None = 0) -> None:
        """The job's attempt used so much, in so long; and ended, unless `exit_code` is None."""
        self.clock.advance(wall_s)
        number = self.jobs.get_job(self.scope, job).attempts[-1].number
        directory = str(self.jobs.attempt_directory(job, number))
        self.engine.using[directory] = Usage(cpu_s=cpu_s, wall_s=wall_s, peak_rss_bytes=peak)
        if exit_code is not None:
            self.engine.ended[directory] = exit_code
        self.loop.settle()

    def did(self, cpu_h: float = 1.0, **labels: str) -> str:
        """A job that ran for an hour and is over."""
        job = self.start(**labels)
        self.use(job, cpu_s=cpu_h * HOUR, wall_s=HOUR)
        return job

    def price(self, cpu_h: str = "1", since: datetime | None = LONG_AGO, **more: Any) -> None:
        prices = {"cpu_h": Decimal(cpu_h), "memory_gib_h": Decimal(0)}
        self.cost.set_prices(self.scope, SetPrices(prices=prices, effective_from=since, **more))  # type: ignore[arg-type]

    def run_of(self, job: str) -> str:
        """A tracked run that a job made."""
        worker = Scope("default", Principal(f"job:{job}", {"default": Role.CONTRIBUTOR}))
        return self.tracking.runs.create(worker, CreateRun(experiment_id="0", tags={})).id

    def model_of(self, run: str) -> str:
        """A model version that a run made."""
        if not self.registry.models.search(self.scope, "name = 'delay'").items:
            self.registry.models.create(self.scope, "delay")
        model = self.tracking.models.create(self.scope, "0", "delay", source_run_id=run)
        self.tracking.artifacts.put(self.scope, Owner("model", model.id), "MLmodel", io.BytesIO(run.encode()))
        self.tracking.models.finish(self.scope, model.id, "READY")
        return self.registry.versions.create(self.scope, "delay", f"models:/{model.id}").urn


@pytest.fixture
def house(database: Database, clock: FixedClock, tmp_path: Path, scope: Scope) -> House:
    return House(database, clock, tmp_path, scope)


def test_a_job_costs_its_metered_use(house: House) -> None:
    house.cost.set_prices(
        house.scope,
        SetPrices(prices={"cpu_h": Decimal("0.04"), "memory_gib_h": Decimal("0.005")}, effective_from=LONG_AGO),
    )
    job = house.start()
    house.use(job, cpu_s=2 * HOUR, wall_s=HOUR, peak=3 * GIB)
    found = house.cost.of(house.scope, f"job:{job}")
    assert found.amount == Decimal("0.095")
    assert {line.resource: (line.quantity, line.amount) for line in found.lines} == {
        "cpu_h": (2, Decimal("0.08")),
        "memory_gib_h": (3, Decimal("0.015")),
    }
    assert (found.attempts, found.jobs, found.estimate) == (1, (job,), False)


def test_all_attempts_are_paid_for(house: House) -> None:
    house.price("1")
    job = house.start(max_attempts=2)
    house.use(job, cpu_s=HOUR, wall_s=HOUR, exit_code=1)
    house.clock.advance(120)
    house.loop.settle()
    house.use(job, cpu_s=2 * HOUR, wall_s=HOUR)
    found = house.cost.of(house.scope, f"job:{job}")
    assert (found.attempts, found.amount) == (2, 3)


def test_what_still_runs_costs_so_far_and_says_so(house: House) -> None:
    house.price("1")
    job = house.start()
    house.use(job, cpu_s=HOUR / 2, wall_s=HOUR, exit_code=None)
    found = house.cost.of(house.scope, f"job:{job}")
    assert found.amount == Decimal("0.5")
    assert found.estimate
    assert "still running: what it costs so far" in found.notes
    assert house.cost.of(house.scope, "project:default").amount == found.amount


def test_runs_and_models_of_one_job_share_it_exactly(house: House) -> None:
    house.price("0.000000001")
    job = house.start()
    runs = [house.run_of(job) for _ in range(3)]
    models = [house.model_of(runs[0]) for _ in range(2)]
    house.use(job, cpu_s=100 * HOUR, wall_s=HOUR)
    costs = [house.cost.of(house.scope, f"run:{run}") for run in runs]
    assert sum(cost.amount for cost in costs) == Decimal("1E-7") == house.cost.of(house.scope, f"job:{job}").amount
    assert max(cost.amount for cost in costs) - min(cost.amount for cost in costs) <= Decimal("1E-9")
    assert "a part of the cost" in costs[0].notes[0]
    of_models = [house.cost.of(house.scope, urn).amount for urn in models]
    assert sum(of_models) == costs[0].amount
    allocated = house.cost.allocate(house.scope, "run")
    assert {part.urn: part.amount for part in allocated.parts} == {
        f"run:{run}": cost.amount for run, cost in zip(runs, costs, strict=True)
    }


def test_a_pipeline_run_is_its_jobs(house: House) -> None:
    house.price("1")
    jobs = [house.did(cpu_h, pipeline="train", pipeline_run="p1", step=step) for cpu_h, step in ((1, "a"), (2, "b"))]
    house.did(4)
    with house.database.transaction(system_scope("default")) as tx:
        for job in jobs:
            tx.link("pipeline-run:p1", "triggered", f"job:{job}")
    assert house.cost.of(house.scope, "pipeline-run:p1").amount == 3
    by_pipeline = house.cost.allocate(house.scope, "pipeline")
    assert {part.urn: part.amount for part in by_pipeline.parts} == {"pipeline:train": 3, "(none)": 4}
    assert by_pipeline.total.amount == 7
    by_step = house.cost.allocate(house.scope, "step")
    assert [part.urn for part in by_step.parts] == ["(none)", "step:b", "step:a"], "the dearest first"


def test_a_run_that_no_job_made_costs_nothing_known(house: House) -> None:
    run = house.tracking.runs.create(house.scope, CreateRun(experiment_id="0", tags={})).id
    found = house.cost.of(house.scope, f"run:{run}")
    assert found.amount == 0
    assert "not known" in found.notes[0]


def test_labels_and_persons(house: House) -> None:
    house.price("1")
    house.did(1, team="fog")
    house.did(2, team="rain")
    by_team = house.cost.allocate(house.scope, "label:team")
    assert {part.urn: part.amount for part in by_team.parts} == {"team:fog": 1, "team:rain": 2}
    (ada,) = house.cost.allocate(house.scope, "submitted_by").parts
    assert (ada.urn, ada.amount) == ("principal:ada", 3)


def test_periods_add_up(house: House) -> None:
    house.price("1")
    start = house.clock.now()
    house.did(1)
    house.did(2)
    middle, end = start + timedelta(minutes=30), house.clock.now() + timedelta(seconds=1)
    parts = [
        house.cost.allocate(house.scope, since=since, until=until) for since, until in ((start, middle), (middle, end))
    ]
    assert [part.total.amount for part in parts] == [1, 2], "what spans a boundary counts where it started"
    assert house.cost.allocate(house.scope, since=start, until=end).total.amount == 3


def test_prices_hold_from_their_day_on(house: House) -> None:
    house.price("1")
    house.did(1)
    house.price("10", since=None)
    house.did(1)
    assert house.cost.of(house.scope, "project:default").amount == 11
    house.price("20", since=house.clock.now() + timedelta(days=1))
    assert house.cost.of(house.scope, "project:default").amount == 11
    book = house.cost.prices(house.scope)
    assert [price.price for price in book.prices if price.resource == "cpu_h"] == [1, 10, 20]
    assert book.prices[0].set_by == "ada"


def test_a_price_for_the_same_instant_is_replaced(house: House) -> None:
    house.price("1")
    house.price("2")
    house.did(1)
    assert house.cost.of(house.scope, "project:default").amount == 2


def test_without_prices_there_are_examples_that_say_so(house: House) -> None:
    assert house.cost.prices(house.scope).default
    job = house.did(1)
    found = house.cost.of(house.scope, f"job:{job}")
    assert found.estimate
    assert "examples" in found.notes[-1]


def test_use_before_the_first_price_is_named(house: House) -> None:
    job = house.did(1)
    house.price("1", since=None)
    found = house.cost.of(house.scope, f"job:{job}")
    assert found.amount == 0
    assert "cpu_h" in found.notes[0]


def test_a_book_has_one_currency(house: House) -> None:
    house.price("1", currency="EUR")
    assert house.cost.prices(house.scope).currency == "EUR"
    house.price("2", currency="EUR")
    with pytest.raises(Conflict, match="EUR"):
        house.price("2", currency="USD")


@pytest.mark.parametrize("price", ["-1", "NaN", "Infinity", "1e9", "0.0000000001", "1E-30"])
def test_prices_without_meaning_are_refused(house: House, price: str) -> None:
    with pytest.raises(InvalidInput):
        house.price(price)
    assert house.cost.prices(house.scope).default


@pytest.mark.parametrize("urn", ["", "job:", "endpoint:delay", "dataset:x@1", "nothing"])
def test_what_is_not_metered_says_so(house: House, urn: str) -> None:
    with pytest.raises(InvalidInput, match="not metered"):
        house.cost.of(house.scope, urn)


def test_unknown_groups_and_periods_are_refused(house: House) -> None:
    now = house.clock.now()
    for by in ("", "colour", "label:"):
        with pytest.raises(InvalidInput):
            house.cost.allocate(house.scope, by)
    with pytest.raises(InvalidInput, match="empty"):
        house.cost.allocate(house.scope, since=now, until=now)


def test_projects_pay_apart(house: House) -> None:
    house.price("1")
    job = house.did(1)
    other = Scope("other", Principal("eve", {"*": Role.ADMIN}))
    assert house.cost.allocate(other).total.amount == 0
    assert house.cost.prices(other).default
    with pytest.raises(NotFound):
        house.cost.of(other, f"job:{job}")
    with pytest.raises(NotFound):
        house.cost.of(other, "project:default")


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 3), st.sampled_from(["a", "b", ""])), max_size=4),
    st.decimals(0, 10, places=5),
)
def test_parts_add_up_to_the_total_by_every_group(
    house: House, done: list[tuple[float, int, str]], price: Decimal
) -> None:
    house.price(str(price))
    for cpu_s, runs, team in done:
        job = house.start(**({"team": team} if team else {}))
        for _ in range(runs):
            house.run_of(job)
        house.use(job, cpu_s=cpu_s, wall_s=1.0)
    for by in ("run", "job", "label:team", "pipeline"):
        found = house.cost.allocate(house.scope, by)
        assert sum((part.amount for part in found.parts), Decimal(0)) == found.total.amount
        for line in found.total.lines:
            same = [one.amount for part in found.parts for one in part.lines if one.resource == line.resource]
            assert sum(same, Decimal(0)) == line.amount
