"""When to raise an alert and when to resolve it: pure, over the windows' results and the alerts that there were.

The rules, and why:

- Covariate drift alone is a warning, never an alert: temperature drifts every season while the model ranks as well as
  before. Somebody should know; nobody should be woken, and nothing retrained.
- A worse performance must be *surely* worse: beyond the threshold by more than the sampling error. Drift must hold for
  several windows. Only complete windows count, else growing ones would be tested over and over until one alarms.
- An alert resolves when the value is back well inside the threshold, not barely; between the two nothing changes. So a
  value at the edge does not ring twice.
- At most one alert per kind is unresolved. A window alarms once: whoever resolved its alert has seen it. But a later
  window that is as bad is news, and rings the same alert again: what was done about it has not helped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import NormalDist

import msgspec

from modelyard.types.monitoring import Alert, AlertKind, Baseline, Finding, MonitorWindow, Performance, Thresholds

KINDS: tuple[AlertKind, ...] = ("auc", "calibration", "prediction_drift", "label_drift", "null_rate")
PERFORMANCE_KINDS = frozenset({"auc", "calibration"})
INPUT_DRIFT = "input_drift"
NAMED_COLUMNS_MAX = 5
_NORMAL = NormalDist()


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold against one window: crossed, healthy again (well inside), or neither."""

    kind: AlertKind
    crossed: bool
    healthy: bool
    reason: str
    values: dict[str, float]


class Raise(msgspec.Struct, frozen=True, kw_only=True):
    """An alert to raise, for the last of the windows that it rests on."""

    kind: AlertKind
    model_version: str
    window_start: datetime
    window_end: datetime
    reason: str
    values: dict[str, float]


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """An unresolved alert to ring again, for a later window."""

    alert: str
    window_start: datetime
    window_end: datetime
    reason: str
    values: dict[str, float]


class Resolve(msgspec.Struct, frozen=True, kw_only=True):
    """An alert to resolve."""

    alert: str
    reason: str


Decision = Raise | Again | Resolve


def decide(
    thresholds: Thresholds,
    windows: Sequence[MonitorWindow],
    baselines: Mapping[str, Baseline],
    alerts: Sequence[Alert],
) -> list[Decision]:
    """What to raise, ring again and resolve now.

    `baselines` are by model version; `alerts` are all of this monitor, in any status.
    """
    decisions: list[Decision] = []
    serving = _serving_versions(windows)
    for kind in KINDS:
        unresolved = [alert for alert in alerts if alert.kind == kind and alert.status != "resolved"]
        for alert in unresolved:
            reason = _why_resolve(thresholds, kind, alert, windows, baselines, serving)
            if reason is not None:
                decisions.append(Resolve(alert=alert.id, reason=reason))
                continue
            version = alert.model_version
            later = _why_raise(thresholds, kind, version, windows, baselines.get(version), alert.window_start)
            if later is not None:
                decisions.append(
                    Again(
                        alert=alert.id,
                        window_start=later.window_start,
                        window_end=later.window_end,
                        reason=later.reason,
                        values=later.values,
                    )
                )
        if unresolved:
            continue
        for version in serving:
            rung = [one.window_start for one in alerts if (one.kind, one.model_version) == (kind, version)]
            raised = _why_raise(thresholds, kind, version, windows, baselines.get(version), max(rung, default=None))
            if raised is not None:
                decisions.append(raised)
                break
    return decisions


def findings(thresholds: Thresholds, window: MonitorWindow, baseline: Baseline | None) -> tuple[Finding, ...]:
    """All thresholds that a window crosses, those that only warn included."""
    crossed = [
        Finding(kind=check.kind, level="alert", reason=check.reason, values=check.values)
        for kind in KINDS
        if (check := check_window(thresholds, kind, window, baseline)) is not None and check.crossed
    ]
    drifted = [distance for distance in window.inputs if distance.drifted]
    if drifted:
        drifted.sort(key=lambda distance: -(distance.value or 0.0) / max(distance.threshold, 1e-9))
        crossed.append(
            Finding(
                kind=INPUT_DRIFT,
                level="warning",
                reason=f"{len(drifted)} of {len(window.inputs)} inputs drifted: "
                + _named([distance.column for distance in drifted]),
                values={distance.column: distance.value or 0.0 for distance in drifted},
            )
        )
    return tuple(crossed)


def check_window(
    thresholds: Thresholds, kind: AlertKind, window: MonitorWindow, baseline: Baseline | None
) -> Check | None:
    """One threshold against one window; None where it is switched off, or there is not enough to judge by."""
    match kind:
        case "auc":
            return _check_auc(thresholds, window, baseline)
        case "calibration":
            return _check_calibration(thresholds, window)
        case "prediction_drift":
            return _check_prediction(thresholds, window)
        case "label_drift":
            return _check_labels(thresholds, window, baseline)
        case "null_rate":
            return _check_nulls(thresholds, window)


def _check_auc(thresholds: Thresholds, window: MonitorWindow, baseline: Baseline | None) -> Check | None:
    limit, performance = thresholds.auc_drop, _judged(thresholds, window)
    if limit is None or performance is None or performance.auc is None or baseline is None or baseline.auc is None:
        return None
    drop = baseline.auc - performance.auc
    doubt = _z(thresholds) * math.hypot(performance.auc_se or 0.0, baseline.auc_se)
    return Check(
        kind="auc",
        crossed=drop - doubt > limit,
        healthy=drop <= limit * thresholds.resolve_ratio,
        reason=f"AUC fell from {baseline.auc:.3f} to {performance.auc:.3f} on {performance.labelled:,} labelled "
        f"predictions: by at least {drop - doubt:.3f} with {thresholds.confidence:.0%} confidence, and {limit:g} is "
        "allowed",
        values={"auc": performance.auc, "baseline": baseline.auc, "drop": drop, "doubt": doubt, "threshold": limit},
    )


def _check_calibration(thresholds: Thresholds, window: MonitorWindow) -> Check | None:
    limit, performance = thresholds.calibration, _judged(thresholds, window)
    if limit is None or performance is None or performance.calibration_error is None:
        return None
    error, noise = performance.calibration_error, performance.calibration_noise or 0.0
    said, true = performance.mean_score or 0.0, performance.base_rate or 0.0
    return Check(
        kind="calibration",
        crossed=error - noise > limit,
        healthy=error - noise <= limit * thresholds.resolve_ratio,
        reason=f"the calibration error is {error:.3f} on {performance.labelled:,} labelled predictions (chance "
        f"explains {noise:.3f}, and {limit:g} is allowed): {said:.1%} were predicted on average, {true:.1%} came "
        "true",
        values={"error": error, "noise": noise, "mean_score": said, "base_rate": true, "threshold": limit},
    )


def _check_prediction(thresholds: Thresholds, window: MonitorWindow) -> Check | None:
    limit, distance = thresholds.prediction_psi, window.prediction
    if limit is None or distance is None or distance.psi is None or distance.psi_noise is None:
        return None
    return Check(
        kind="prediction_drift",
        crossed=distance.psi >= limit and distance.psi >= distance.psi_noise,
        healthy=distance.psi < max(limit * thresholds.resolve_ratio, distance.psi_noise),
        reason=f"the predictions of {distance.rows:,} rows are {distance.psi:.2f} (PSI) from the reference's, and "
        f"{limit:g} is allowed",
        values={"psi": distance.psi, "noise": distance.psi_noise, "threshold": limit},
    )


def _check_labels(thresholds: Thresholds, window: MonitorWindow, baseline: Baseline | None) -> Check | None:
    limit, performance = thresholds.label_drift, _judged(thresholds, window)
    if limit is None or performance is None or performance.base_rate is None:
        return None
    if baseline is None or baseline.base_rate is None:
        return None
    now, before = performance.base_rate, baseline.base_rate
    change = abs(now - before)
    doubt = _z(thresholds) * math.sqrt(
        now * (1 - now) / performance.labelled + (before * (1 - before) / baseline.rows if baseline.rows else 0.0)
    )
    return Check(
        kind="label_drift",
        crossed=change - doubt > limit,
        healthy=change <= limit * thresholds.resolve_ratio,
        reason=f"{now:.1%} of {performance.labelled:,} labels are positive, and {before:.1%} were in the reference; a "
        f"change of {limit:.1%} is allowed",
        values={"base_rate": now, "baseline": before, "doubt": doubt, "threshold": limit},
    )


def _check_nulls(thresholds: Thresholds, window: MonitorWindow) -> Check | None:
    limit = thresholds.null_rate
    if limit is None or window.rows < thresholds.rows_min or not window.inputs:
        return None
    rises = {one.column: one.null_rate - one.null_rate_reference for one in window.inputs}
    over = sorted((column for column in rises if rises[column] > limit), key=lambda column: -rises[column])
    worst = max(window.inputs, key=lambda one: rises[one.column])
    return Check(
        kind="null_rate",
        crossed=bool(over),
        healthy=rises[worst.column] <= limit * thresholds.resolve_ratio,
        reason=f"nulls rose by more than {limit:.0%} in {_named(over)}: worst is {worst.column}, from "
        f"{worst.null_rate_reference:.1%} to {worst.null_rate:.1%}",
        values={column: rises[column] for column in over},
    )


def _why_raise(
    thresholds: Thresholds,
    kind: AlertKind,
    version: str,
    windows: Sequence[MonitorWindow],
    baseline: Baseline | None,
    seen: datetime | None,
) -> Raise | None:
    needed = thresholds.performance_windows if kind in PERFORMANCE_KINDS else thresholds.drift_windows
    last = _judgements(thresholds, kind, version, windows, baseline)[-needed:]
    if len(last) < needed or not all(check.crossed for _, check in last):
        return None
    window, check = last[-1]
    if seen is not None and window.start <= seen:
        return None
    held = f", in each of the last {needed} windows" if needed > 1 else ""
    return Raise(
        kind=kind,
        model_version=version,
        window_start=window.start,
        window_end=window.end,
        reason=check.reason + held,
        values=check.values,
    )


def _why_resolve(
    thresholds: Thresholds,
    kind: AlertKind,
    alert: Alert,
    windows: Sequence[MonitorWindow],
    baselines: Mapping[str, Baseline],
    serving: Sequence[str],
) -> str | None:
    version = alert.model_version
    if serving and version not in serving:
        return f"model version {version} no longer predicts: {_named(list(serving))} does"
    judged = _judgements(thresholds, kind, version, windows, baselines.get(version))
    since = [check for window, check in judged if window.start >= alert.window_start]
    last = since[-thresholds.healthy_windows :]
    if len(last) < thresholds.healthy_windows or not all(check.healthy for check in last):
        return None
    return f"healthy again in the last {len(last)} window{'s' if len(last) > 1 else ''}"


def _judgements(
    thresholds: Thresholds,
    kind: AlertKind,
    version: str,
    windows: Sequence[MonitorWindow],
    baseline: Baseline | None,
) -> list[tuple[MonitorWindow, Check]]:
    """The complete windows of a version that say something about a kind, oldest first."""
    judged = []
    for window in sorted(windows, key=lambda one: one.start):
        if window.model_version == version and window.complete:
            check = check_window(thresholds, kind, window, baseline)
            if check is not None:
                judged.append((window, check))
    return judged


def _serving_versions(windows: Sequence[MonitorWindow]) -> list[str]:
    """The versions that predicted in the newest window, the busiest first."""
    newest = max((window.start for window in windows), default=None)
    current = [window for window in windows if window.start == newest]
    return [window.model_version for window in sorted(current, key=lambda one: (-one.rows, one.model_version))]


def _judged(thresholds: Thresholds, window: MonitorWindow) -> Performance | None:
    # The labels that come first are not a fair sample (a flight on time lands before a late one): wait for most.
    performance = window.performance
    if performance is None or performance.labelled < thresholds.rows_min:
        return None
    return performance if performance.coverage >= thresholds.label_coverage_min else None


def _z(thresholds: Thresholds) -> float:
    return _NORMAL.inv_cdf(thresholds.confidence)


def _named(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:NAMED_COLUMNS_MAX])
    return shown + (f" and {len(columns) - NAMED_COLUMNS_MAX} more" if len(columns) > NAMED_COLUMNS_MAX else "")
