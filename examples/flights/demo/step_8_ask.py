"""Ask: where the model in production comes from, what was in production when, what it cost, and what is cached."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal

from flights.pipeline import MODEL, train_delay

import modelyard
from demo.screen import Screen
from demo.step_5_serve import ENDPOINT
from modelyard.kernel.lineage import Graph
from modelyard.sdk.cost import allocate_cost, cost_of, set_prices
from modelyard.sdk.pipelines import check_succeeded, start_run, wait_run
from modelyard.types.pipelines import PipelineRun, StepState
from modelyard.types.registry import ModelVersion

PRICES = {"cpu_h": Decimal("0.0425"), "memory_gib_h": Decimal("0.0057")}
CAUSES = ("run", "job", "feature-view", "dataset", "code", "env")


def run(screen: Screen, first: PipelineRun, instants: dict[str, datetime]) -> None:
    """Four questions."""
    champion = modelyard.model(MODEL).resolve("champion")
    lineage(screen, champion)
    history(screen, instants)
    cost(screen, champion)
    rerun(screen, first)


def lineage(screen: Screen, version: ModelVersion) -> None:
    """Up from the model version to the data and the code."""
    graph = modelyard.connect().get("/api/lineage", Graph, {"urn": version.urn, "direction": "up"})
    things = whole(list(graph.nodes))
    kinds = {kind: [urn for urn in things if urn.partition(":")[0] == kind] for kind in CAUSES}
    counted = ", ".join(f"{len(urns)} {kind}{'s' * (len(urns) > 1)}" for kind, urns in kinds.items() if urns)
    screen.good(f"{version.urn} in production comes from {counted}")
    for kind in CAUSES:
        urns = kinds[kind]
        if kind == "dataset":
            urns = newest(urns)
        if kind != "job" and urns:
            screen.say(f"  {kind:13} {', '.join(shortened(urn) for urn in urns[:5])}{' …' if len(urns) > 5 else ''}")
    missing = [kind for kind in ("run", "dataset", "code", "env") if not kinds[kind]]
    assert not missing, f"the lineage of {version.urn} does not reach {missing}"


def whole(urns: list[str]) -> list[str]:
    """The things themselves, in place of the columns and features of them that were read."""
    return list(dict.fromkeys(urn.partition("#")[0] for urn in urns))


def newest(urns: list[str]) -> list[str]:
    """Of several versions of a dataset the newest: the ones before are its own past."""
    latest: dict[str, int] = {}
    for urn in urns:
        name, _, version = urn.rpartition("@")
        latest[name] = max(latest.get(name, 0), int(version))
    return [f"{name}@{version}" for name, version in sorted(latest.items())]


def shortened(urn: str) -> str:
    """A URN without its kind, long digests cut."""
    name = urn.partition(":")[2]
    return name if len(name) <= 40 else f"{name[:12]}…"


def history(screen: Screen, instants: dict[str, datetime]) -> None:
    """What was in production when."""
    for what, at in instants.items():
        by_alias = modelyard.model(MODEL).at("champion", at)
        served = modelyard.endpoint(ENDPOINT).served_at(at)
        urns = ", ".join(variant.urn for variant in served.variants)
        screen.good(f"in production at {at:%H:%M:%S}, {what}: {by_alias.urn}; the endpoint served {urns}")


def cost(screen: Screen, version: ModelVersion) -> None:
    """Metered CPU and memory by a price book."""
    book = set_prices(PRICES, effective_from=datetime(2020, 1, 1).astimezone(), currency="USD")
    item = cost_of(f"run:{version.provenance.run}")
    lines = ", ".join(f"{line.quantity:.6f} {line.resource} = {line.amount:.6f}" for line in item.lines)
    screen.good(f"the run that made it cost {item.amount:.6f} {book.currency} ({lines})")
    total = allocate_cost("pipeline")
    parts = ", ".join(f"{part.urn} {part.amount:.6f}" for part in total.parts)
    screen.say(f"all jobs so far: {total.total.amount:.6f} {total.currency} ({parts})")


def rerun(screen: Screen, first: PipelineRun) -> None:
    """The training pipeline again, on the same versions of its data: nothing is computed twice."""
    pinned = {name: f"{name}@{version}" for name, version in first.datasets.items()}
    screen.now("running the training pipeline again")
    again = check_succeeded(wait_run(start_run(train_delay, {**first.params, **pinned}).id, timeout_s=120))
    states = Counter(step.state for step in again.steps)
    assert states == {StepState.CACHED: len(again.steps)}, f"steps were run again: {dict(states)}"
    screen.good(f"pipeline run {again.id}: all {len(again.steps)} steps are cache hits")
