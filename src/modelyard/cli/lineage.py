"""`modelyard lineage`: walk the graph from any URN."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from modelyard.cli.context import JsonFlag, client, show_json
from modelyard.kernel.errors import InvalidInput
from modelyard.kernel.lineage import OBJECT_IS_CAUSE, Graph, TimedEdge
from modelyard.types.contracts import ColumnLineage

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
        typer.echo(f"nothing is tied to {urn} in this project")
        return
    for way in ("up", "down") if direction == "both" else (direction,):
        for line in tree(graph, urn, way):
            typer.echo(line)
    if graph.truncated:
        typer.echo("… there is more than is shown; ask with a smaller --depth")


@app.command()
def columns(
    column: Annotated[str, typer.Argument(help="DATASET.COLUMN")],
    version: Annotated[int | None, typer.Option(help="Of this version. Default: the newest that SQL made.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Where a column comes from and what came of it, as far as SQL made it; `*` stands for the rows as such."""
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
