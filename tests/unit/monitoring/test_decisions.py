from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from modelyard.planes.monitoring.decisions import KINDS, Again, Decision, Raise, Resolve, decide, findings
from modelyard.types.monitoring import Alert, Baseline, Distance, MonitorWindow, Performance, Thresholds

START = datetime(2013, 4, 1, tzinfo=UTC)
BASELINE = Baseline(auc=0.75, auc_se=0.002, base_rate=0.23, rows=20_000)
POLICY = Thresholds()


def window(
    number: int,
    *,
    auc: float | None = 0.75,
    error: float = 0.0,
    base_rate: float = 0.23,
    psi: float | None = 0.01,
    nulls: float = 0.0,
    drifted: bool = False,
    version: str = "1",
    rows: int = 20_000,
    coverage: float = 0.95,
    complete: bool = True,
    se: float = 0.003,
) -> MonitorWindow:
    labelled = round(rows * coverage)
    return MonitorWindow(
        monitor="delay",
        start=START + timedelta(days=number),
        end=START + timedelta(days=number + 1),
        model_version=version,
        rows=rows,
        complete=complete,
        inputs=(
            Distance(
                column="temp", measure="wasserstein_normed", threshold=0.1, value=3.1 if drifted else 0.01,
                noise=0.02, drifted=drifted, rows=rows, null_rate=nulls,
            ),
        ),
        prediction=Distance(
            column="score", measure="wasserstein_normed", threshold=0.1, value=0.0, noise=0.02, psi=psi, psi_noise=0.01,
            rows=rows,
        ),
        performance=Performance(
            labelled=labelled, coverage=coverage, positives=round(labelled * base_rate), base_rate=base_rate,
            mean_score=0.23, auc=auc, auc_se=se, calibration_error=error, calibration_noise=0.01,
        ),
        predictions_version=1,
        evaluated_at=START,
    )  # fmt: skip


def decided(
    windows: Sequence[MonitorWindow], alerts: Sequence[Alert] = (), policy: Thresholds = POLICY
) -> list[Decision]:
    baselines = {one.model_version: BASELINE for one in windows}
    return decide(policy, windows, baselines, alerts)


def apply(decisions: Sequence[Decision], alerts: Sequence[Alert]) -> list[Alert]:
    after = list(alerts)
    for one in decisions:
        match one:
            case Raise():
                after.append(
                    Alert(
                        id=f"a{len(after)}", monitor="delay", endpoint="delay", kind=one.kind, status="open",
                        model=None, model_version=one.model_version,
                        window_start=one.window_start, window_end=one.window_end,
                        reason=one.reason, values=one.values, raised_at=START,
                    )
                )  # fmt: skip
            case Again():
                after = [
                    replace(alert, window_start=one.window_start, window_end=one.window_end, windows=alert.windows + 1)
                    if alert.id == one.alert
                    else alert
                    for alert in after
                ]
            case Resolve():
                after = [replace(alert, status="resolved") if alert.id == one.alert else alert for alert in after]
    return after


def raised(decisions: Sequence[Decision]) -> list[str]:
    return [one.kind for one in decisions if isinstance(one, Raise)]


def test_an_auc_that_surely_fell_too_far_raises() -> None:
    (alert,) = decided([window(0), window(1, auc=0.70)])
    assert isinstance(alert, Raise)
    assert (alert.kind, alert.model_version, alert.window_start) == ("auc", "1", START + timedelta(days=1))
    assert "0.750 to 0.700" in alert.reason
    assert alert.values["drop"] == pytest.approx(0.05)


def test_an_auc_that_may_have_fallen_by_chance_does_not() -> None:
    assert decided([window(1, auc=0.70, se=0.02)]) == []
    assert decided([window(1, auc=0.716)]) == [], "0.034 is beyond 0.03, but not with confidence"


def test_covariate_drift_alone_warns_and_raises_nothing() -> None:
    windows = [window(number, drifted=True) for number in range(6)]
    assert decided(windows) == []
    (warning,) = findings(POLICY, windows[0], BASELINE)
    assert (warning.kind, warning.level) == ("input_drift", "warning")
    assert "temp" in warning.reason


def test_prediction_drift_must_hold() -> None:
    assert decided([window(0), window(1, psi=0.5)]) == []
    assert raised(decided([window(0), window(1, psi=0.5), window(2, psi=0.4)])) == ["prediction_drift"]
    assert decided([window(0, psi=0.5), window(1), window(2, psi=0.4)]) == [], "not in a row"


def test_labels_and_nulls_and_calibration_raise() -> None:
    assert raised(decided([window(0, base_rate=0.5, error=0.0), window(1, base_rate=0.5)])) == ["label_drift"]
    assert raised(decided([window(0, nulls=0.4), window(1, nulls=0.4)])) == ["null_rate"]
    assert raised(decided([window(0, error=0.09)])) == ["calibration"]


def test_growing_windows_and_first_labels_are_not_judged() -> None:
    assert decided([window(0, auc=0.5, complete=False)]) == []
    assert decided([window(0, auc=0.5, coverage=0.5)]) == []
    assert decided([window(0, auc=0.5, rows=150)]) == []


def test_a_check_that_is_off_is_silent() -> None:
    policy = Thresholds(auc_drop=None, calibration=None, prediction_psi=None, null_rate=None, label_drift=None)
    bad = [window(number, auc=0.5, error=0.3, psi=3.0, nulls=0.9, base_rate=0.9) for number in range(3)]
    assert decided(bad, policy=policy) == []


def test_without_a_baseline_no_fall_can_be_seen() -> None:
    assert decide(POLICY, [window(0, auc=0.5)], {}, []) == []


def test_one_alert_per_kind_until_it_is_resolved() -> None:
    first = [window(0, auc=0.6)]
    alerts = apply(decided(first), [])
    assert decided(first, alerts) == []
    seen = [replace(alerts[0], status="acknowledged")]
    assert decided(first, seen) == [], "acknowledged is not resolved"
    more = [*first, window(1, auc=0.6), window(2, auc=0.5)]
    done = [replace(alerts[0], status="resolved")]
    assert raised(decided(more, done)) == ["auc"], "the newer windows are news"
    assert decided(first, done) == [], "the window that somebody resolved is not"


def test_a_later_window_that_is_as_bad_rings_the_same_alert_again() -> None:
    first = [window(0, auc=0.6)]
    alerts = apply(decided(first), [])
    (again,) = decided([*first, window(1, auc=0.55)], alerts)
    assert isinstance(again, Again)
    assert (again.alert, again.window_start) == (alerts[0].id, START + timedelta(days=1))
    assert "0.550" in again.reason
    after = apply([again], alerts)
    assert (len(after), after[0].windows) == (1, 2)
    assert decided([*first, window(1, auc=0.55)], after) == [], "and that window once as well"
    assert decided([*first, window(1, auc=0.72)], alerts) == [], "one that is only so-so does not"


def test_it_resolves_well_inside_the_threshold_and_not_at_its_edge() -> None:
    alerts = apply(decided([window(0, auc=0.6)]), [])
    assert decided([window(0, auc=0.6), window(1, auc=0.722)], alerts) == [], "0.028 of 0.03: neither"
    (resolved,) = decided([window(0, auc=0.6), window(1, auc=0.74)], alerts)
    assert isinstance(resolved, Resolve)
    assert resolved.alert == alerts[0].id


def test_more_labels_can_take_the_alert_back() -> None:
    alerts = apply(decided([window(0, auc=0.6)]), [])
    (resolved,) = decided([window(0, auc=0.75)], alerts)
    assert isinstance(resolved, Resolve)
    assert decided([window(0, auc=0.6)], apply([resolved], alerts)) == [], "nor does the same window ring twice"


def test_another_version_ends_the_alert_of_the_old_one() -> None:
    alerts = apply(decided([window(0, auc=0.6)]), [])
    both = [window(0, auc=0.6), window(1, auc=0.6), window(1, version="2", rows=300, complete=False)]
    (again,) = decided(both, alerts)
    assert isinstance(again, Again), "both predict still"
    (resolved,) = decided([*both, window(2, version="2", complete=False)], alerts)
    assert isinstance(resolved, Resolve)
    assert "version 1 no longer predicts" in resolved.reason


def test_the_new_version_is_judged_by_its_own_windows() -> None:
    windows = [window(0, auc=0.6), window(1, auc=0.6), window(2, version="2", auc=0.75)]
    assert decided(windows) == [], "what no longer serves needs no alert"


shapes = st.builds(
    window,
    st.integers(0, 8),
    auc=st.one_of(st.none(), st.floats(0.4, 0.9)),
    error=st.floats(0, 0.3),
    base_rate=st.floats(0.01, 0.99),
    psi=st.one_of(st.none(), st.floats(0, 2)),
    nulls=st.floats(0, 1),
    drifted=st.booleans(),
    version=st.sampled_from(["1", "2"]),
    rows=st.integers(1, 50_000),
    coverage=st.floats(0, 1),
    complete=st.booleans(),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(shapes, max_size=8, unique_by=lambda one: (one.start, one.model_version)))
def test_windows_that_arrive_one_by_one_never_leave_two_alerts_of_a_kind(windows: list[MonitorWindow]) -> None:
    alerts: list[Alert] = []
    for count in range(1, len(windows) + 1):
        for _ in range(len(KINDS) + 2):
            decisions = decided(windows[:count], alerts)
            alerts = apply(decisions, alerts)
            if not decisions:
                break
        else:
            pytest.fail("deciding again and again changes its mind")
        unresolved = [alert.kind for alert in alerts if alert.status != "resolved"]
        assert len(unresolved) == len(set(unresolved))
        rung = [(alert.kind, alert.model_version, alert.window_start) for alert in alerts]
        assert len(rung) == len(set(rung)), "a window rings once"


@settings(deadline=None)
@given(st.lists(shapes, max_size=8, unique_by=lambda one: (one.start, one.model_version)), st.randoms())
def test_the_order_of_windows_does_not_matter(windows: list[MonitorWindow], random: object) -> None:
    shuffled = list(windows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decided(shuffled) == decided(windows)
