"""Monitors over real datasets: Delta tables written by the data plane, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from msgspec.structs import replace

from modelyard.engines.tables.delta import DeltaTables
from modelyard.kernel import events, lineage
from modelyard.kernel.auth import Principal, Role, Scope, system_scope
from modelyard.kernel.clock import FixedClock
from modelyard.kernel.database import Database
from modelyard.kernel.errors import Conflict, InvalidInput, NotFound
from modelyard.kernel.event import Event
from modelyard.kernel.reconcile import ReconcileLoop
from modelyard.planes.data import Data
from modelyard.planes.monitoring import Monitoring
from modelyard.types.monitoring import (
    Alert,
    Baseline,
    Labels,
    MonitorSpec,
    MonitorWindow,
    Reference,
    Thresholds,
)

APRIL, MAY, JUNE, JULY = (datetime(2013, month, 1, tzinfo=UTC) for month in (4, 5, 6, 7))
LABELS = Labels(dataset="arrivals", key="flight", label="arr_delay > 15", prediction_key="id", known_at="known_at")
SPEC = MonitorSpec(
    name="delay",
    endpoint="delay",
    reference=Reference(dataset="training"),
    labels=LABELS,
    baseline=Baseline(auc=0.83, auc_se=0.005, base_rate=0.5, rows=4000),
)


class Flights:
    """Predictions and what came true, drawn with a seed: the score is the chance of being late, when all is well."""

    def __init__(self, data: Data, scope: Scope) -> None:
        self.data, self.scope = data, scope
        self.random = np.random.default_rng(17)
        self.made = 0

    def train(self, rows: int = 3_000) -> None:
        table = pa.table({"temp": self.random.normal(5, 5, rows), "carrier": self._carriers(rows), "late": [0] * rows})
        self.data.write(self.scope, "training", table, create=True)

    def predict(
        self,
        start: datetime,
        rows: int = 2_000,
        days: int = 28,
        *,
        warmer: float = 0.0,
        wrong: float = 0.0,
        version: int = 1,
        nulls: float = 0.0,
        label: bool = True,
        log: bool = True,
    ) -> pa.Table:
        """Log predictions, and unless told otherwise their arrivals. `wrong`: the share of scores that say nothing."""
        scores = self.random.random(rows)
        late = self.random.random(rows) < np.where(self.random.random(rows) < wrong, 1 - scores, scores)
        at = [start + timedelta(seconds=float(second)) for second in np.sort(self.random.random(rows)) * days * 86_400]
        ids = [f"f{self.made + number}" for number in range(rows)]
        self.made += rows
        temp = self.random.normal(5 + warmer, 5, rows)
        table = pa.table(
            {
                "id": ids,
                "event_time": pa.array(at, pa.timestamp("us", "UTC")),
                "model": ["delay"] * rows,
                "version": pa.array([version] * rows, pa.int64()),
                "input.temp": pa.array(temp, mask=self.random.random(rows) < nulls),
                "input.carrier": self._carriers(rows),
                "output.probability": scores,
                "output.label": pa.array((scores > 0.5).astype(np.int64)),
            }
        )
        if log:
            self.data.write(self.scope, "predictions.delay", table, create=True)
        if label:
            self.arrive(ids, late, at)
        return table

    def arrive(self, ids: list[str], late: Any, at: list[datetime], delay: timedelta = timedelta(hours=3)) -> None:
        known = pa.array([one + delay for one in at], pa.timestamp("us", "UTC"))
        table = pa.table({"flight": ids, "arr_delay": np.where(late, 40.0, -5.0), "known_at": known})
        self.data.write(self.scope, "arrivals", table, create=True)

    def _carriers(self, rows: int) -> Any:
        return self.random.choice(["UA", "B6", "EV", "DL"], rows)


@pytest.fixture
def data(database: Database, tmp_path: Path) -> Data:
    return Data(database, DeltaTables(tmp_path / "tables"))


@pytest.fixture
def monitoring(database: Database, data: Data, clock: FixedClock) -> Monitoring:
    clock.advance(180 * 86_400)  # late August 2013: the windows of the tests are over
    return Monitoring(database, data)


@pytest.fixture
def flights(data: Data, scope: Scope) -> Flights:
    made = Flights(data, scope)
    made.train()
    return made


def by_month(monitoring: Monitoring, scope: Scope, version: str = "1") -> dict[int, MonitorWindow]:
    found = monitoring.windows(scope, "delay").items
    return {window.start.month: window for window in found if window.model_version == version}


def open_alerts(monitoring: Monitoring, scope: Scope) -> list[Alert]:
    return [alert for alert in monitoring.alerts(scope).items if alert.status != "resolved"]


def said(database: Database, kind: str) -> list[Event]:
    with database.reading(system_scope("default")) as tx:
        return events.recent(tx, kinds=frozenset({kind}))


def test_a_month_is_compared_and_scored(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, warmer=8)
    flights.predict(MAY)
    done = monitoring.evaluate(scope, "delay", complete_through=JUNE)
    assert (done.windows_evaluated, done.raised, done.problem) == (2, (), None)
    april, may = by_month(monitoring, scope)[4], by_month(monitoring, scope)[5]
    assert april.rows == 2_000
    assert april.complete
    temp, carrier = april.inputs
    assert (temp.column, temp.drifted, carrier.column, carrier.drifted) == ("temp", True, "carrier", False)
    assert temp.value == pytest.approx(8 / 5, abs=0.1)
    assert [found.kind for found in april.findings] == ["input_drift"], "covariate drift warns"
    assert not any(distance.drifted for distance in may.inputs)
    assert may.prediction is not None
    assert may.prediction.psi == pytest.approx(0.0, abs=0.05)
    assert april.performance is not None
    assert april.performance.coverage == 1.0
    assert april.performance.auc == pytest.approx(5 / 6, abs=0.03)
    monitor = monitoring.get(scope, "delay")
    assert (monitor.reference_rows, monitor.reference_source) == (3_000, "dataset:training@1")


def test_a_month_in_many_versions_is_that_month_in_one(
    monitoring: Monitoring, flights: Flights, data: Data, scope: Scope
) -> None:
    monitoring.create(scope, SPEC)
    whole = flights.predict(APRIL, rows=3_000)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    once = by_month(monitoring, scope)[4]
    other = replace(SPEC, name="pieces", predictions="pieces")
    monitoring.create(scope, other)
    for piece in (whole.slice(0, 700), whole.slice(700, 1), whole.slice(701)):
        data.write(scope, "pieces", piece, create=True)
        done = monitoring.evaluate(scope, "pieces", complete_through=MAY)
        assert done.windows_evaluated == 1
    (pieces,) = monitoring.windows(scope, "pieces").items
    assert pieces.performance == once.performance
    for one, two in zip(pieces.inputs, once.inputs, strict=True):
        assert (one.value, one.psi, one.rows) == (pytest.approx(two.value), pytest.approx(two.psi), two.rows)


def test_only_what_changed_is_computed(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    before = by_month(monitoring, scope)[4]
    flights.predict(MAY)
    done = monitoring.evaluate(scope, "delay", complete_through=JUNE)
    assert (done.windows_evaluated, done.windows_unchanged) == (1, 1)
    assert by_month(monitoring, scope)[4] == before
    again = monitoring.evaluate(scope, "delay")
    assert (again.windows_evaluated, again.windows_unchanged) == (0, 2)


def test_labels_that_come_late_judge_their_window_again(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    april = flights.predict(APRIL, label=False)
    flights.predict(MAY, label=False)
    monitoring.evaluate(scope, "delay", complete_through=JUNE)
    assert by_month(monitoring, scope)[4].performance is None
    ids, at, scores = (april[name].to_pylist() for name in ("id", "event_time", "output.probability"))
    flights.arrive(ids[:1_000], np.array(scores[:1_000]) > 0.5, at[:1_000])
    done = monitoring.evaluate(scope, "delay")
    assert (done.windows_evaluated, done.windows_unchanged) == (1, 1), "only the window whose labels came"
    half = by_month(monitoring, scope)[4].performance
    assert half is not None
    assert (half.labelled, half.coverage, half.auc) == (1_000, 0.5, 1.0)
    flights.arrive(ids[1_000:], np.array(scores[1_000:]) < 0.5, at[1_000:])
    monitoring.evaluate(scope, "delay")
    whole = by_month(monitoring, scope)[4].performance
    assert whole is not None
    assert whole.labelled == 2_000
    assert whole.auc == pytest.approx(0.5, abs=0.1)


def test_labels_not_known_yet_do_not_count_and_the_latest_known_does(
    monitoring: Monitoring, flights: Flights, scope: Scope, clock: FixedClock
) -> None:
    monitoring.create(scope, SPEC)
    april = flights.predict(APRIL, rows=400, label=False)
    ids, at, scores = (april[name].to_pylist() for name in ("id", "event_time", "output.probability"))
    flights.arrive(ids, np.array(scores) > 0.5, at)
    flights.arrive(ids, np.array(scores) < 0.5, at, delay=timedelta(days=3650))
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    found = by_month(monitoring, scope)[4].performance
    assert found is not None
    assert found.auc == 1.0, "what will be known in ten years does not count"
    flights.arrive(ids, np.array(scores) < 0.5, at, delay=timedelta(hours=4))
    monitoring.evaluate(scope, "delay")
    found = by_month(monitoring, scope)[4].performance
    assert found is not None
    assert found.auc == 0.0, "a correction, known later, counts"


def test_a_worse_month_raises_one_alert_with_its_reason(
    monitoring: Monitoring, flights: Flights, scope: Scope, database: Database
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL)
    flights.predict(MAY, wrong=0.2)
    done = monitoring.evaluate(scope, "delay", complete_through=JUNE)
    kinds = {alert.kind for alert in open_alerts(monitoring, scope)}
    assert "auc" in kinds
    alert = next(alert for alert in open_alerts(monitoring, scope) if alert.kind == "auc")
    assert (alert.model, alert.model_version, alert.window_start) == ("delay", "1", MAY)
    assert alert.id in done.raised
    assert monitoring.evaluate(scope, "delay").raised == ()
    event = next(event for event in said(database, "alert.raised") if event.subject == f"alert:{alert.id}")
    assert event.data["monitor"] == "delay"
    assert event.data["window"] == "2013-05"
    assert event.data["reason"] == alert.reason
    with database.reading(scope) as tx:
        tied = {(edge.relation, edge.object) for edge in lineage.walk(tx, alert.id and f"alert:{alert.id}").edges}
    assert {("derived", "dataset:predictions.delay@2"), ("derived", "model:delay@1")} <= tied


def test_a_month_later_that_is_as_bad_rings_the_same_alert_again(
    monitoring: Monitoring, flights: Flights, scope: Scope, database: Database
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    (first,) = [alert for alert in open_alerts(monitoring, scope) if alert.kind == "auc"]
    flights.predict(MAY, wrong=0.4)
    assert first.id in monitoring.evaluate(scope, "delay", complete_through=JUNE).raised
    (alert,) = [alert for alert in open_alerts(monitoring, scope) if alert.kind == "auc"]
    assert (alert.id, alert.window_start, alert.windows) == (first.id, MAY, 2)
    told = [event.data for event in said(database, "alert.raised") if event.subject == f"alert:{first.id}"]
    assert [(one["window"], one["again"]) for one in told] == [("2013-05", True), ("2013-04", False)]


def test_a_month_that_still_grows_raises_nothing_until_it_is_over(
    monitoring: Monitoring, flights: Flights, scope: Scope, clock: FixedClock
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(MAY, wrong=0.4, days=10)
    assert monitoring.evaluate(scope, "delay").raised == ()
    assert not by_month(monitoring, scope)[5].complete
    flights.predict(JUNE, rows=10, days=1)
    assert monitoring.evaluate(scope, "delay").raised, "a prediction in June ends May"
    assert by_month(monitoring, scope)[5].complete


def test_a_month_that_is_over_is_complete_once_the_log_is_quiet(
    monitoring: Monitoring, flights: Flights, scope: Scope, clock: FixedClock
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(MAY, wrong=0.4)
    monitoring.evaluate(scope, "delay")
    due_at = monitoring.get(scope, "delay").due_at
    assert due_at == clock.now() + timedelta(hours=1)
    clock.advance(3_600)
    assert monitoring.evaluate(scope, "delay").raised


def test_an_alert_resolves_when_all_is_well_again(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    raised = {alert.id for alert in open_alerts(monitoring, scope)}
    assert raised
    flights.predict(MAY)
    assert set(monitoring.evaluate(scope, "delay", complete_through=JUNE).resolved) == raised
    assert open_alerts(monitoring, scope) == []


def test_another_version_ends_the_alert(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    assert open_alerts(monitoring, scope)
    flights.predict(MAY, version=2)
    monitoring.evaluate(scope, "delay", complete_through=JUNE)
    assert open_alerts(monitoring, scope) == []
    assert "version 1 no longer predicts" in (monitoring.alerts(scope).items[0].resolution or "")
    second = by_month(monitoring, scope, "2")[5]
    assert second.prediction is not None
    assert second.prediction.value == 0.0, "a version is compared with its own first window"


def test_acknowledge_and_resolve(monitoring: Monitoring, flights: Flights, scope: Scope, database: Database) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    first = next(alert for alert in open_alerts(monitoring, scope) if alert.kind == "auc")
    seen = monitoring.acknowledge(scope, first.id, "looking")
    assert (seen.status, seen.acknowledged_by) == ("acknowledged", "ada")
    assert monitoring.acknowledge(scope, first.id) == seen
    done = monitoring.resolve(scope, first.id, "a feed was down")
    assert (done.status, done.resolution) == ("resolved", "a feed was down")
    assert monitoring.resolve(scope, first.id) == done
    assert len([event for event in said(database, "alert.resolved") if event.subject.endswith(first.id)]) == 1
    with pytest.raises(Conflict):
        monitoring.acknowledge(scope, first.id)
    monitoring.evaluate(scope, "delay")
    assert not [alert for alert in open_alerts(monitoring, scope) if alert.kind == "auc"], "it does not ring again"


def test_without_a_reference_dataset_the_first_month_is_as_usual(
    monitoring: Monitoring, flights: Flights, scope: Scope
) -> None:
    monitoring.create(scope, replace(SPEC, reference=Reference(), baseline=None))
    flights.predict(APRIL)
    monitoring.evaluate(scope, "delay")
    assert by_month(monitoring, scope)[4].inputs == ()
    assert "first window is complete" in (by_month(monitoring, scope)[4].note or "")
    flights.predict(MAY, warmer=8, wrong=0.4)
    done = monitoring.evaluate(scope, "delay", complete_through=JUNE)
    found = by_month(monitoring, scope)
    assert [distance.value for distance in found[4].inputs] == [0.0, 0.0]
    assert found[5].inputs[0].drifted
    assert done.raised, "worse than its own first month"


def test_nulls_that_spread_are_an_alert_after_two_months(
    monitoring: Monitoring, flights: Flights, scope: Scope
) -> None:
    monitoring.create(scope, replace(SPEC, labels=None))
    flights.predict(APRIL, nulls=0.5)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    assert open_alerts(monitoring, scope) == []
    flights.predict(MAY, nulls=0.5)
    monitoring.evaluate(scope, "delay", complete_through=JUNE)
    (alert,) = open_alerts(monitoring, scope)
    assert alert.kind == "null_rate"
    assert "temp" in alert.reason


def test_a_log_that_was_rewritten_is_read_anew(
    monitoring: Monitoring, flights: Flights, data: Data, scope: Scope
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, rows=900)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    table = flights.predict(MAY, rows=700, log=False)
    data.write(scope, "predictions.delay", table, mode="overwrite")
    done = monitoring.evaluate(scope, "delay", complete_through=JUNE)
    assert [(window.start, window.rows) for window in monitoring.windows(scope, "delay").items] == [(MAY, 700)]
    assert done.windows_unchanged == 0


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"reference": Reference(dataset="nothing")}, "nothing"),
        ({"reference": Reference(dataset="arrivals")}, "has no column"),
        ({"inputs": ("wind",)}, "no comparable input 'wind'"),
        ({"score": "label"}, "no numeric output 'label'"),
        ({"predictions": "arrivals"}, "no prediction log"),
        ({"labels": replace(LABELS, prediction_key="nokey")}, "'nokey'"),
        ({"labels": replace(LABELS, label="flight")}, "label"),
        ({"labels": replace(LABELS, key="nokey")}, "nokey"),
        ({"labels": replace(LABELS, known_at="arr_delay")}, "timestamp"),
    ],
)
def test_what_does_not_fit_is_a_problem_of_the_monitor_and_mended_by_an_update(
    monitoring: Monitoring, flights: Flights, scope: Scope, change: dict[str, Any], word: str
) -> None:
    flights.predict(APRIL)
    wrong = replace(SPEC, **change)
    monitoring.create(scope, wrong)
    done = monitoring.evaluate(scope, "delay", complete_through=MAY)
    assert word in (done.problem or "")
    assert monitoring.get(scope, "delay").problem == done.problem
    assert monitoring.get(scope, "delay").due_at is None, "the same data would give the same problem"
    monitoring.update(scope, "delay", SPEC)
    assert monitoring.evaluate(scope, "delay", complete_through=MAY).problem is None


def test_no_predictions_or_too_few_are_waited_for(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    assert "predictions.delay" in (monitoring.evaluate(scope, "delay").problem or "")
    flights.predict(APRIL, rows=150)
    assert "150 predictions so far" in (monitoring.evaluate(scope, "delay").problem or "")
    flights.predict(APRIL, rows=150)
    assert monitoring.evaluate(scope, "delay").problem is None
    assert by_month(monitoring, scope)[4].rows == 300, "the first ones are not lost"


def test_the_loop_evaluates_what_has_new_data_and_then_rests(
    monitoring: Monitoring, flights: Flights, scope: Scope, database: Database, clock: FixedClock
) -> None:
    loop = ReconcileLoop(database, monitoring.reconcilers(), monitoring.readers())
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    flights.predict(MAY, rows=300, days=1)
    loop.settle()
    assert open_alerts(monitoring, scope)
    clock.advance(60)
    loop.settle()
    assert loop.step() == 0
    flights.predict(MAY, rows=300, days=1)
    flights.predict(MAY, rows=300, days=1)
    loop.settle()
    assert by_month(monitoring, scope)[5].rows == 300, "versions are gathered for a moment"
    clock.advance(3)
    loop.settle()
    assert by_month(monitoring, scope)[5].rows == 900


def test_a_log_that_never_rests_is_looked_at_all_the_same(
    monitoring: Monitoring, flights: Flights, scope: Scope, database: Database, clock: FixedClock
) -> None:
    loop = ReconcileLoop(database, monitoring.reconcilers(), monitoring.readers())
    monitoring.create(scope, SPEC)
    loop.settle()
    for _ in range(6):
        flights.predict(APRIL, rows=100, days=1)
        loop.settle()
        clock.advance(1)
    assert by_month(monitoring, scope)[4].rows >= 300


class Racing(Data):
    """Something else happens while an evaluation reads: so many times."""

    def __init__(self, database: Database, data: Data, times: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(database, data._tables)
        self.times, self.meanwhile = times, meanwhile

    def resolve(self, *args: Any, **kwargs: Any) -> Any:
        if self.times:
            self.times -= 1
            self.meanwhile()
        return super().resolve(*args, **kwargs)


def test_two_evaluations_at_once_count_nothing_twice(
    monitoring: Monitoring, flights: Flights, scope: Scope, data: Data, database: Database
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL)
    racing = Racing(database, data, 2, lambda: monitoring.evaluate(scope, "delay"))
    done = Monitoring(database, racing).evaluate(scope, "delay", complete_through=MAY)
    assert done.problem is None
    assert by_month(monitoring, scope)[4].rows == 2_000
    assert by_month(monitoring, scope)[4].complete, "what was asked for is done on what the other left"


def test_an_evaluation_that_never_gets_its_turn_says_so(
    monitoring: Monitoring, flights: Flights, scope: Scope, data: Data, database: Database
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL)
    racing = Racing(database, data, 99, lambda: monitoring.evaluate(scope, "delay"))
    with pytest.raises(Conflict, match="changed in the meantime"):
        Monitoring(database, racing).evaluate(scope, "delay")
    assert by_month(monitoring, scope)[4].rows == 2_000


def test_data_that_arrives_during_an_evaluation_is_looked_at_by_the_next(
    monitoring: Monitoring, flights: Flights, scope: Scope, data: Data, database: Database
) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL)

    arriving = Racing(database, data, 1, lambda: monitoring.mark_due(scope, "predictions.delay"))
    Monitoring(database, arriving).evaluate(scope, "delay", complete_through=MAY)
    assert monitoring.get(scope, "delay").due_at is not None


def test_projects_do_not_see_each_other(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    alert = open_alerts(monitoring, scope)[0]
    other = Scope("other", Principal("eve", {"*": Role.ADMIN}))
    assert monitoring.list(other).items == []
    assert monitoring.alerts(other).items == []
    for look in (
        lambda: monitoring.get(other, "delay"),
        lambda: monitoring.windows(other, "delay"),
        lambda: monitoring.evaluate(other, "delay"),
        lambda: monitoring.alert(other, alert.id),
        lambda: monitoring.resolve(other, alert.id),
        lambda: monitoring.delete(other, "delay"),
    ):
        with pytest.raises(NotFound):
            look()


def test_names_and_thresholds_are_checked(monitoring: Monitoring, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    with pytest.raises(Conflict):
        monitoring.create(scope, SPEC)
    nan = float("nan")
    for wrong in (
        replace(SPEC, name="../x"),
        replace(SPEC, name="x", window="year"),
        replace(SPEC, name="x", labels=replace(LABELS, label="a b > c")),
        replace(SPEC, name="x", endpoint=""),
        replace(SPEC, name="x", thresholds=Thresholds(auc_drop=nan)),
        replace(SPEC, name="x", thresholds=Thresholds(auc_drop=-1)),
        replace(SPEC, name="x", thresholds=Thresholds(confidence=1.0)),
        replace(SPEC, name="x", thresholds=Thresholds(rows_min=0)),
        replace(SPEC, name="x", thresholds=Thresholds(drift_windows=0)),
    ):
        with pytest.raises(InvalidInput):
            monitoring.create(scope, wrong)
    with pytest.raises(InvalidInput, match="keeps its name"):
        monitoring.update(scope, "delay", replace(SPEC, name="other"))


def test_a_deleted_monitor_leaves_its_alerts_resolved(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, SPEC)
    flights.predict(APRIL, wrong=0.4)
    monitoring.evaluate(scope, "delay", complete_through=MAY)
    monitoring.delete(scope, "delay")
    assert monitoring.list(scope).items == []
    assert {alert.status for alert in monitoring.alerts(scope).items} == {"resolved"}
    monitoring.create(scope, SPEC)
    assert monitoring.windows(scope, "delay").items == []


def test_windows_are_paged_whole(monitoring: Monitoring, flights: Flights, scope: Scope) -> None:
    monitoring.create(scope, replace(SPEC, window="day", labels=None))
    flights.predict(APRIL, rows=600, days=6)
    flights.predict(APRIL, rows=600, days=6, version=2)
    monitoring.evaluate(scope, "delay")
    pages, before = [], None
    while True:
        page = monitoring.windows(scope, "delay", before=before, limit=5)
        pages.append([(window.start.day, window.model_version) for window in page.items])
        if page.next is None:
            break
        before = datetime.fromisoformat(page.next)
    assert sorted(item for page in pages for item in page) == [(day, v) for day in range(1, 7) for v in ("1", "2")]
