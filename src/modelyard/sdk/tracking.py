"""Reading runs: `list_runs`, `get_run`, their metrics and files, and what differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from modelyard.sdk.client import Client, connect
from modelyard.types.page import Page
from modelyard.types.tracking import Artifact, Experiment, Purge, Purged, Run, Series, View


def list_runs(
    *,
    experiment: str = "",
    filter: str = "",
    order_by: Sequence[str] = (),
    view: View = "active",
    limit: int = 100,
    page: str | None = None,
    metrics: Sequence[str] | None = None,
    client: Client | None = None,
) -> Page[Run]:
    """The runs that a filter picks, newest first unless ordered otherwise. `experiment` is a name or an id."""
    chosen = client or connect()
    params: dict[str, Any] = {
        "experiment": [_known_experiment(chosen, experiment)] if experiment else None,
        "filter": filter or None,
        "order_by": list(order_by) or None,
        "view": view,
        "limit": limit,
        "page": page,
        "metric": list(metrics) if metrics else None,
    }
    return chosen.get("/api/runs", Page[Run], params)


def get_run(run_id: str, client: Client | None = None) -> Run:
    """A run with its params, tags, latest metrics, inputs and outputs."""
    return (client or connect()).get(f"/api/runs/{quote(run_id, safe='')}", Run)


def delete_run(run_id: str, client: Client | None = None) -> Run:
    """Mark a run deleted; it can be restored."""
    found: Run = (client or connect()).delete(f"/api/runs/{quote(run_id, safe='')}", Run)
    return found


def restore_run(run_id: str, client: Client | None = None) -> Run:
    """Make a deleted run active again."""
    return (client or connect()).post(f"/api/runs/{quote(run_id, safe='')}/restore", None, Run)


def read_history(run_id: str, key: str, *, points_max: int = 2_000, client: Client | None = None) -> Series:
    """The history of a metric by time, thinned to `points_max` with its extremes kept."""
    path = f"/api/runs/{quote(run_id, safe='')}/metrics/{quote(key)}"
    return (client or connect()).get(path, Series, {"points_max": points_max})


def purge(
    runs: Sequence[str] = (),
    experiments: Sequence[str] = (),
    *,
    older_than_s: int = 0,
    dry_run: bool = False,
    client: Client | None = None,
) -> Purged:
    """End runs and experiments for good that were deleted: those named, or all, that were so long ago."""
    asked = Purge(runs=list(runs), experiments=list(experiments), older_than_s=older_than_s, dry_run=dry_run)
    purged: Purged = (client or connect()).post("/api/runs/purge", asked, Purged)
    return purged


def list_artifacts(run_id: str, path: str = "", client: Client | None = None) -> list[Artifact]:
    """What is in a directory of a run's artifacts."""
    params = {"path": path or None}
    return (client or connect()).get(f"/api/runs/{quote(run_id, safe='')}/artifacts", list[Artifact], params)


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str | None]]]:
    """What differs between runs: params, tags that people set and metrics, each with its value in every run."""
    rows: list[tuple[str, list[str | None]]] = []
    for label, tables in (
        ("param", [run.params for run in runs]),
        ("tag", [{key: value for key, value in run.tags.items() if "mlflow." not in key} for run in runs]),
        ("metric", [{one.key: _shown(one.value) for one in run.metrics} for run in runs]),
    ):
        for key in sorted({key for table in tables for key in table}):
            values = [table.get(key) for table in tables]
            if len(set(values)) > 1:
                rows.append((f"{label} {key}", values))
    return rows


def _known_experiment(client: Client, name_or_id: str) -> str:
    found = client.get("/api/experiments", Page[Experiment], {"name": name_or_id}).items
    if found:
        return found[0].id
    return client.get(f"/api/experiments/{quote(name_or_id, safe='')}", Experiment).id


def _shown(value: float | None) -> str:
    return "NaN" if value is None else msgspec.json.encode(value).decode()
