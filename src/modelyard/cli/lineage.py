"""`modelyard lineage`: walk the graph from any URN."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from modelyard.cli.context import JsonFlag, client, show_items, show_json
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.lineage import OBJECT_IS_CAUSE, Graph, TimedEdge
from modelyard.types.contracts import ColumnLineage, DataBehind

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def lineage() -> None:
    """What led to a thing, and what came of it."""


@app.command()
def get(
    urn: Annotated[str, typer.Argument(help="Such as model:delay@3, run:<id>, dataset:flights@7, endpoint:delay.")],
    direction: Annotated[str, typer.Option(help="up: what led to it; down: what came of it; both.")] = "up",
    depth: Annotated[int, typer.Option(help="How many steps away to look.", min=1, max=64)] = 64,
    as_json: JsonFlag = False,
) -> None:
    """The graph around a URN, as a tree."""
    graph = client().get("/api/lineage", Graph, {"urn": urn, "direction": direction, "depth": depth})
    if as_json:
        show_json(graph)
        return
    if not graph.edges:
        typer.echo(f"nothing is tied to {graph.root} in this project")
        return
    for way in ("up", "down") if direction == "both" else (direction,):
        for line in tree(graph, graph.root, way):
            typer.echo(line)
    if graph.truncated:
        typer.echo("… there is more than is shown; ask with a smaller --depth")


@app.command()
def columns(
    column: Annotated[str, typer.Argument(help="DATASET.COLUMN")],
    version: Annotated[int | None, typer.Option(help="Of this version. Default: the newest that SQL made.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Where a column comes from, what came of it by SQL (`*` stands for the rows as such), and all who used it."""
    dataset, found, name = column.rpartition(".")
    if not found:
        raise InvalidInput(f"{column!a} is not DATASET.COLUMN", code="lineage.column_invalid")
    path = f"/api/datasets/{quote(dataset, safe='')}/columns/{quote(name, safe='')}/lineage"
    lineage_of = client().get(path, ColumnLineage, {"version": version})
    if as_json:
        show_json(lineage_of)
        return
    for title, edges in (("comes from", lineage_of.up), ("came of it", lineage_of.down)):
        typer.echo(f"{title}:" if edges else f"{title}: nothing that SQL made")
        for one in edges:
            made = f"{one.dataset}@{one.version}.{one.column}"
            typer.echo(f"  {made} <- {one.of_dataset}@{one.of_version}.{one.of_column}")
    typer.echo("used by:" if lineage_of.used_by else "used by: nobody who named it")
    for urn in lineage_of.used_by:
        typer.echo(f"  {urn}")


@app.command()
def data(
    urn: Annotated[str, typer.Argument(help="Such as model:delay@3, run:<id>, endpoint:delay, dataset:flights@7.")],
    as_json: JsonFlag = False,
) -> None:
    """Which data made a thing: every dataset version that led to it, and the columns of it that were read."""
    found = client().get("/api/lineage/data", DataBehind, {"urn": urn})
    if as_json:
        show_json(found)
        return
    columns = {
        "DATASET": lambda one: f"{one.dataset}@{one.version}",
        "COLUMNS": lambda one: ", ".join(one.columns) + (", …" if one.whole and one.columns else "") or "not known",
        "READ BY": lambda one: ", ".join(one.readers),
    }
    show_items(found.data, columns, as_json=False, empty=f"no dataset is known to have led to {found.urn}")
    if found.truncated:
        typer.echo("… there is more than is shown")


def tree(graph: Graph, root: str, way: str) -> list[str]:
    """The lines of a walk as an indented tree; what was shown already is only named again."""
    nexts: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        cause, effect = _ends(edge)
        here, there = (effect, cause) if way == "up" else (cause, effect)
        nexts.setdefault(here, []).append((edge.relation, there))
    lines, seen = [root], {root}

    def descend(node: str, indent: str) -> None:
        branches = nexts.get(node, [])
        for place, (relation, there) in enumerate(branches):
            last = place == len(branches) - 1
            again = " (above)" if there in seen and nexts.get(there) else ""
            lines.append(f"{indent}{'└─' if last else '├─'} {relation}: {there}{again}")
            if there not in seen:
                seen.add(there)
                descend(there, indent + ("   " if last else "│  "))

    descend(root, "")
    return lines


def _ends(edge: TimedEdge) -> tuple[str, str]:
    forward = edge.relation in OBJECT_IS_CAUSE
    return (edge.object, edge.subject) if forward else (edge.subject, edge.object)
