"""The steps of the pipelines. Each runs as a job in a process of its own, on pinned versions of the datasets.

Heavy libraries are imported where they are used: whoever only compiles a pipeline need not load them.
"""

from __future__ import annotations

import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

import modelyard
from flights.table import ALWAYS_KNOWN, FEATURES, matrix, model_table
from flights.views import NAMES
from modelyard import Dataset, task
from modelyard.sdk.features import historical

HELD_OUT_DAYS = 14
SAMPLE_SEED = 20130101
LATENCY_REQUESTS = 300
_ASKED = [
    "flight_id",
    "scheduled_departure",
    "carrier",
    "tailnum",
    "origin",
    "dest",
    "minute_of_day",
    "day_of_week",
    "distance",
]


@task(retries=1)
def assemble(
    part: str,
    flights: Dataset,
    arrivals: Dataset,
    weather: Dataset,
    outcomes: Dataset,
    until: str,
    days: int,
    rows: int,
) -> dict[str, Any]:
    """Join a sample of flights with their features and labels, and keep it as a version of dataset `delay_<part>`.

    `part` is `training` or `held_out`: the two weeks before `until`, or the `days` before those. A label counts only
    if it was known by the end of its part.
    """
    start, end = bounds(part, until, days)
    asked = flights.read(
        _ASKED, f"scheduled_departure >= '{start.isoformat()}' AND scheduled_departure < '{end.isoformat()}'"
    )
    labels = outcomes.read(["flight_id", "late"], f"landed_at < '{end.isoformat()}'")
    labelled = asked.join(labels, "flight_id", join_type="inner").sort_by("flight_id")
    chosen = sample(labelled, rows).sort_by([("scheduled_departure", "ascending"), ("flight_id", "ascending")])
    joined = historical(
        chosen,
        NAMES,
        timestamp="scheduled_departure",
        versions={"arrivals": int(arrivals.ref or 0), "weather": int(weather.ref or 0)},
    )
    table = model_table(joined)
    for name in ("flight_id", "scheduled_departure", "carrier", "origin", "late"):
        table = table.append_column(name if name != "late" else "label", joined[name])
    name = f"delay_{part}"
    written = modelyard.dataset(name).write(
        table, mode="overwrite", source=f"flights of {start:%Y-%m-%d} to {end:%Y-%m-%d}"
    )
    return {"dataset": name, "version": written.version, "rows": table.num_rows}


@task(retries=1)
def train(candidate: str, training: dict[str, Any], held_out: dict[str, Any]) -> dict[str, Any]:
    """Fit one candidate under MLflow's autologging, convert it to ONNX, and score it on the held-out weeks."""
    import mlflow
    import mlflow.onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.metrics import log_loss, roc_auc_score
    from threadpoolctl import threadpool_limits

    from flights.candidates import make_candidate

    rows, tests = read(training), read(held_out)
    mlflow.set_experiment("flight-delays")
    # The model itself is logged as ONNX below; autologging would pickle it as well.
    mlflow.sklearn.autolog(log_models=False, log_datasets=False)
    # A job has one CPU: more threads than that only wait for each other.
    with mlflow.start_run(run_name=candidate) as run, threadpool_limits(1):
        model = make_candidate(candidate).fit(matrix(rows), labels_of(rows))
        graph = to_onnx(
            model, initial_types=[("features", FloatTensorType([None, len(FEATURES)]))], options={"zipmap": False}
        )
        inputs = Schema([ColSpec("float", name, required=name in ALWAYS_KNOWN) for name in FEATURES])
        outputs = Schema([ColSpec("float", "probability")])
        logged = mlflow.onnx.log_model(
            graph, name="model", signature=ModelSignature(inputs, outputs), pip_requirements=["onnxruntime"]
        )
        scores = model.predict_proba(matrix(tests))[:, 1]
        found = {
            "auc": float(roc_auc_score(labels_of(tests), scores)),
            "log_loss": float(log_loss(labels_of(tests), scores)),
        }
        mlflow.log_metrics({f"held_out_{name}": value for name, value in found.items()})
        mlflow.set_tags({"training": f"{training['dataset']}@{training['version']}", "candidate": candidate})
    return {"candidate": candidate, "run": run.info.run_id, "source": logged.model_uri, **found}


@task(retries=1)
def register(trained: list[dict[str, Any]], held_out: dict[str, Any], model: str) -> dict[str, Any]:
    """Register the best, and give the gates their evidence: it and the champion on the same held-out rows.

    The best is the one of the least log loss: what is served are probabilities, and these must be right.
    """
    best = min(trained, key=lambda one: one["log_loss"])
    handle = modelyard.model(model)
    version = handle.register(
        best["source"], run=best["run"], description=f"{best['candidate']}, AUC {best['auc']:.3f} on the held-out weeks"
    )
    rows = read(held_out)
    urn = f"dataset:{held_out['dataset']}@{held_out['version']}"
    champion = handle.get().aliases.get("champion")
    for number in {version.version, *([champion] if champion else [])}:
        with tempfile.TemporaryDirectory() as folder:
            session = open_model(handle, number, Path(folder) / "model")
            handle.evaluate(number, evidence(session, rows), dataset=urn)
            if number == version.version:
                p50_ms, p95_ms = latency(session, rows)
                handle.record_latency(
                    number, p50_ms=p50_ms, p95_ms=p95_ms, requests=LATENCY_REQUESTS, measured_on="the job's host"
                )
    return {"model": model, "version": version.version, "candidate": best["candidate"], "auc": best["auc"]}


def bounds(part: str, until: str, days: int) -> tuple[datetime, datetime]:
    """From when to when a part reaches."""
    end = datetime.fromisoformat(until)
    cut = end - timedelta(days=HELD_OUT_DAYS)
    return (cut, end) if part == "held_out" else (cut - timedelta(days=days), cut)


def sample(table: pa.Table, rows: int) -> pa.Table:
    """So many rows, the same ones every time."""
    import numpy as np

    if table.num_rows <= rows:
        return table
    return table.take(np.sort(np.random.default_rng(SAMPLE_SEED).permutation(table.num_rows)[:rows]))


def read(part: dict[str, Any]) -> pa.Table:
    """The rows that `assemble` kept."""
    return modelyard.dataset(part["dataset"]).read(version=part["version"])


def labels_of(table: pa.Table) -> Any:
    """The labels as 0 and 1."""
    return table["label"].cast(pa.int8()).to_numpy()


def open_model(handle: Any, version: int, folder: Path) -> Any:
    """A registered version as an ONNX session."""
    import onnxruntime

    handle.download(version, folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def evidence(session: Any, rows: pa.Table) -> pa.Table:
    """What the server judges a version by: who, the truth, the score, and the columns to slice by."""
    scores = session.run(["probabilities"], {"features": matrix(rows)})[0][:, 1]
    return pa.table(
        {
            "row_id": rows["flight_id"],
            "label": rows["label"].cast(pa.int8()),
            "score": pa.array(scores, pa.float64()),
            "carrier": rows["carrier"],
            "origin": rows["origin"],
        }
    )


def latency(session: Any, rows: pa.Table) -> tuple[float, float]:
    """Median and 95th percentile of one prediction, in milliseconds."""
    import numpy as np

    table = matrix(rows)
    taken = []
    for at in range(LATENCY_REQUESTS):
        began = time.perf_counter()
        session.run(None, {"features": table[at % len(table) : at % len(table) + 1]})
        taken.append((time.perf_counter() - began) * 1_000)
    return float(np.percentile(taken, 50)), float(np.percentile(taken, 95))
