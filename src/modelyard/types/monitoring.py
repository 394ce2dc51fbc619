"""The nouns of monitoring: monitors, their windows of results, and alerts.

A monitor watches one endpoint. It cuts the prediction log by event time into windows, compares each window (per model
version) with a reference, and scores it against the labels once these are there. A *finding* is a threshold crossed in
one window; an *alert* is a finding that somebody, or a trigger, should act on. Covariate drift alone is a warning.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

AlertKind = Literal["auc", "calibration", "prediction_drift", "label_drift", "null_rate"]
Level = Literal["warning", "alert"]
AlertStatus = Literal["open", "acknowledged", "resolved"]


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What "as usual" means for the inputs: a dataset at a ref (the training table, say) with columns named as the
    inputs, or without one the first complete window of the log. It is read once: the monitor keeps its sketch.

    Predictions, and without a `Baseline` performance, are compared with the first complete window of the same model
    version: two models may well differ in what they say.
    """

    dataset: str | None = None
    ref: str = "main"


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the truth arrives: `label` is a column of 0 and 1, or `column > number` (also <, >=, <=, ==, !=).

    A prediction belongs to the label row whose `key` equals the prediction's `prediction_key`. With `known_at`, only
    what is known at the time of evaluation counts, and of several rows for one key the latest known one.
    """

    dataset: str
    key: str
    label: str
    ref: str = "main"
    prediction_key: str = "id"
    known_at: str | None = None


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model does when it is well. The standard error widens the doubt that an alert must overcome."""

    auc: float | None = None
    auc_se: float = 0.0
    base_rate: float | None = None
    rows: int = 0


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is too far. None switches a check off. Confidence is one-sided: a worse value must be surely worse.

    `auc_drop` is against the baseline; `calibration` is an expected calibration error, of 0 to 1; `label_drift` a
    change of the base rate; `prediction_psi` and `null_rate` compare with the reference. `input_drift` is per column
    and only ever warns: normed Wasserstein (numeric) or Jensen-Shannon distance (categorical).
    """

    auc_drop: float | None = 0.03
    calibration: float | None = 0.05
    label_drift: float | None = 0.15
    prediction_psi: float | None = 0.2
    null_rate: float | None = 0.1
    input_drift: float = 0.1
    confidence: float = 0.95
    rows_min: int = 200
    label_coverage_min: float = 0.8
    performance_windows: int = 1
    drift_windows: int = 2
    healthy_windows: int = 1
    resolve_ratio: float = 0.8


class MonitorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to watch. `window` is `month`, `week`, `day` or hours as `6h`, all in UTC over the predictions' event time.

    `predictions` is the endpoint's prediction log by default. `inputs` limits which inputs are compared (default: all
    that the reference has as well); `score` names the output that is the probability of the positive class, where the
    model has several.
    """

    name: str
    endpoint: str
    reference: Reference = Reference()
    window: str = "month"
    predictions: str | None = None
    predictions_ref: str = "main"
    labels: Labels | None = None
    baseline: Baseline | None = None
    thresholds: Thresholds = Thresholds()
    inputs: tuple[str, ...] | None = None
    score: str | None = None


class Monitor(msgspec.Struct, frozen=True, kw_only=True):
    """A monitor and how far it has come. `problem` says why its last evaluation could not be done."""

    id: str
    name: str
    spec: MonitorSpec
    created_at: datetime
    created_by: str
    updated_at: datetime
    reference_rows: int | None = None
    reference_source: str | None = None
    predictions_version: int | None = None
    labels_version: int | None = None
    evaluated_at: datetime | None = None
    due_at: datetime | None = None
    problem: str | None = None


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far a column of a window lies from the reference.

    `value` is by `measure`; `noise` is what two samples of these sizes from the same distribution would stay under 95
    times of 100: only a value above both threshold and noise is drift. `value` is None, with a `note`, where there is
    nothing to compare.
    """

    column: str
    measure: Literal["wasserstein_normed", "jensen_shannon"]
    threshold: float
    value: float | None = None
    noise: float | None = None
    psi: float | None = None
    psi_noise: float | None = None
    drifted: bool = False
    rows: int = 0
    null_rate: float = 0.0
    null_rate_reference: float = 0.0
    unseen_rate: float = 0.0
    unseen: tuple[str, ...] = ()
    note: str | None = None


class CalibrationBin(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions with a score from `low` to `high`: how many, what they said on average, and what came true."""

    low: float
    high: float
    rows: int
    mean_score: float
    base_rate: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """How good the predictions of a window were, by the labels that are known. `note` says what is missing."""

    labelled: int
    coverage: float
    positives: int
    base_rate: float | None = None
    mean_score: float | None = None
    auc: float | None = None
    auc_se: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    calibration_error: float | None = None
    calibration_noise: float | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    note: str | None = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A threshold crossed in one window, in words and numbers."""

    kind: str
    level: Level
    reason: str
    values: dict[str, float]


class MonitorWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one window and model version. `complete`: no more predictions are to come for it."""

    monitor: str
    start: datetime
    end: datetime
    model_version: str
    rows: int
    complete: bool
    inputs: tuple[Distance, ...] = ()
    prediction: Distance | None = None
    drift_share: float | None = None
    performance: Performance | None = None
    findings: tuple[Finding, ...] = ()
    predictions_version: int
    labels_version: int | None = None
    evaluated_at: datetime
    note: str | None = None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs an answer. At most one is unresolved per monitor and kind.

    It rings again for each later window that is as bad: then the window, reason and values are those of that one, and
    `windows` counts them. Each time is an event `alert.raised`, with `again` in its data from the second time on.
    """

    id: str
    monitor: str
    endpoint: str
    kind: str
    status: AlertStatus
    model: str | None
    model_version: str
    window_start: datetime
    window_end: datetime
    reason: str
    values: dict[str, float]
    windows: int = 1
    raised_at: datetime
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    resolution: str | None = None


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why somebody acknowledges or resolves."""

    note: str = ""


class Evaluate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask for an evaluation now. Windows that end by `complete_through` are taken as complete: no more is to come."""

    complete_through: datetime | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation did."""

    monitor: str
    predictions_version: int | None
    labels_version: int | None
    windows_evaluated: int
    windows_unchanged: int
    raised: tuple[str, ...] = ()
    resolved: tuple[str, ...] = ()
    problem: str | None = None
