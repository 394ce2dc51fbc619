"""The page at the end: what was done, with the ids and the URLs to look at."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

import modelyard
from demo.screen import Screen
from demo.step_5_serve import Traffic
from demo.step_6_monitor import MONITOR
from modelyard.types.automation import Response
from modelyard.types.pipelines import PipelineRun
from modelyard.types.registry import ModelVersion
from modelyard.types.serving import Endpoint


@dataclass(frozen=True)
class Done:
    """What came of the steps."""

    trained: PipelineRun
    first: ModelVersion
    champion: ModelVersion
    served: Endpoint
    traffic: Traffic
    responses: list[Response]


def show_page(screen: Screen, done: Done) -> None:
    """Print it."""
    base = modelyard.connect().base_url
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def line(title: str, text: str, url: str) -> None:
        table.add_row(title, Text.assemble(text, "\n", (f"{base}{url}", "cyan")))

    flights = modelyard.dataset("flights").get()
    line("data", f"flights@{flights.latest}, {flights.rows:,} rows; one batch in quarantine", "/datasets/flights")
    line("features", "5 views, 19 features, nothing of the future in them", "/features")
    line("training", f"pipeline run {done.trained.id}", f"/pipelines/runs/{done.trained.id}")
    line("model", f"{done.champion.urn} is champion, {done.first.urn} was", f"/models/{done.champion.model}")
    line("run", f"{done.champion.provenance.run} made the champion", f"/runs/{done.champion.provenance.run}")
    traffic = (
        f"{done.traffic.rows:,} predictions in {done.traffic.requests:,} requests, {len(done.traffic.failures)} failed"
    )
    line("endpoint", f"{done.served.name}: {traffic}", f"/endpoints/{done.served.name}")
    line("monitor", "; ".join(told(one) for one in done.responses), f"/monitors/{MONITOR}")
    line("lineage", "from the champion back to data and code", f"/lineage?urn={done.champion.urn}")
    took = f"{time.monotonic() - screen.began:.0f} s"
    screen.console.print()
    screen.console.print(Panel(table, title=f"[bold]done in {took}[/]", expand=False, padding=(1, 2)))


def told(response: Response) -> str:
    """A response in a few words."""
    return f"alert {response.alert} → {response.model}@{response.challenger} {response.state}"
