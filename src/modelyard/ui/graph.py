"""A layered drawing of a directed graph, left to right: the method of Sugiyama in four pure steps.

Cycles are broken by turning back edges round, nodes are ranked by longest path, long edges get a bend in each
rank they cross, each rank is ordered by the barycentre of its neighbours, and places across the ranks are the
least-squares nearest to the neighbours that keep order and gaps (isotonic regression, so exact and linear).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

NODE_WIDTH = 164.0
NODE_HEIGHT = 46.0
RANK_GAP = 44.0
NODE_GAP = 16.0
BEND_HEIGHT = 8.0
MARGIN = 12.0
_SWEEPS = 12
_ALIGNMENTS = 8


class GraphNode(Struct, frozen=True, kw_only=True):
    """A node to draw. `id` is unique within the graph; `href` empty means not clickable."""

    id: str
    label: str
    kind: str = ""
    detail: str = ""
    state: str = ""
    href: str = ""
    focus: bool = False


class GraphEdge(Struct, frozen=True):
    """A directed edge between two node ids."""

    source: str
    target: str
    label: str = ""


class PlacedNode(Struct, frozen=True):
    """A node with the top-left corner and size of its box, in pixels."""

    node: GraphNode
    x: float
    y: float
    width: float
    height: float


class PlacedEdge(Struct, frozen=True):
    """An edge with its bends, and the same as an SVG path from its source to its target."""

    edge: GraphEdge
    points: tuple[tuple[float, float], ...]
    path: str


class Drawing(Struct, frozen=True):
    """A finished layout; all coordinates lie within (0, 0, width, height)."""

    nodes: tuple[PlacedNode, ...] = ()
    edges: tuple[PlacedEdge, ...] = ()
    width: float = 0.0
    height: float = 0.0


Links = Mapping[int, Sequence[int]]


def draw(nodes: Sequence[GraphNode], edges: Iterable[GraphEdge]) -> Drawing:
    """Lay out a graph, the same way every time. Edges to unknown nodes and self loops are not drawn."""
    if not nodes:
        return Drawing()
    index = {node.id: number for number, node in enumerate(nodes)}
    kept = {
        (index[edge.source], index[edge.target]): edge
        for edge in edges
        if edge.source in index and edge.target in index and edge.source != edge.target
    }
    forward = _without_cycles(len(nodes), list(kept))
    ranks = _rank(len(nodes), set(forward.values()))
    chains, ranks = _bend(forward, ranks)
    rows = _order(ranks, chains.values())
    heights = [NODE_HEIGHT if number < len(nodes) else BEND_HEIGHT for number in range(len(ranks))]
    across = _place(rows, chains.values(), heights)
    return _drawing(nodes, kept, forward, chains, ranks, across, heights)


def _without_cycles(count: int, edges: list[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Each edge with its direction when drawn: turned round where a depth-first walk closes a cycle."""
    after: dict[int, list[int]] = {number: [] for number in range(count)}
    entered = [0] * count
    for source, target in edges:
        after[source].append(target)
        entered[target] += 1
    result: dict[tuple[int, int], tuple[int, int]] = {}
    state = [0] * count  # 0 unseen, 1 on the walk's stack, 2 done
    for start in sorted(range(count), key=lambda number: (entered[number] > 0, number)):
        if state[start]:
            continue
        state[start] = 1
        stack = [(start, iter(after[start]))]
        while stack:
            node, rest = stack[-1]
            following = next(rest, None)
            if following is None:
                state[node] = 2
                stack.pop()
                continue
            closes = state[following] == 1
            result[(node, following)] = (following, node) if closes else (node, following)
            if state[following] == 0:
                state[following] = 1
                stack.append((following, iter(after[following])))
    return result


def _rank(count: int, edges: set[tuple[int, int]]) -> list[int]:
    """Rank by longest path; a source with followers then moves next to the nearest of them."""
    after: dict[int, list[int]] = {number: [] for number in range(count)}
    waiting = [0] * count
    for source, target in sorted(edges):
        after[source].append(target)
        waiting[target] += 1
    sources = [number for number in range(count) if waiting[number] == 0]
    ranks = [0] * count
    ready = list(sources)
    for node in ready:
        for following in after[node]:
            ranks[following] = max(ranks[following], ranks[node] + 1)
            waiting[following] -= 1
            if waiting[following] == 0:
                ready.append(following)
    for node in sources:
        if after[node]:
            ranks[node] = min(ranks[following] for following in after[node]) - 1
    return ranks


def _bend(
    forward: Mapping[tuple[int, int], tuple[int, int]], ranks: Sequence[int]
) -> tuple[dict[tuple[int, int], list[int]], list[int]]:
    """A chain of nodes for each edge, with one new bend node in every rank between its ends."""
    ranks = list(ranks)
    chains: dict[tuple[int, int], list[int]] = {}
    for source, target in sorted(set(forward.values())):
        chain = [source]
        for rank in range(ranks[source] + 1, ranks[target]):
            chain.append(len(ranks))
            ranks.append(rank)
        chain.append(target)
        chains[(source, target)] = chain
    return chains, ranks


def _neighbours(chains: Iterable[Sequence[int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for chain in chains:
        for left, right in pairwise(chain):
            after.setdefault(left, []).append(right)
            before.setdefault(right, []).append(left)
    return before, after


def _order(ranks: Sequence[int], chains: Iterable[Sequence[int]]) -> list[list[int]]:
    """The nodes of each rank from top to bottom, with few crossings: the best of a fixed number of sweeps."""
    before, after = _neighbours(chains)
    rows: list[list[int]] = [[] for _ in range(max(ranks) + 1)]
    for number, rank in enumerate(ranks):
        rows[rank].append(number)
    best, fewest = [list(row) for row in rows], _crossings(rows, after)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        downward = sweep % 2 == 0
        walk = range(1, len(rows)) if downward else range(len(rows) - 2, -1, -1)
        for rank in walk:
            fixed = rows[rank - 1 if downward else rank + 1]
            rows[rank] = _by_barycentre(rows[rank], fixed, before if downward else after)
        count = _crossings(rows, after)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def _by_barycentre(row: Sequence[int], fixed: Sequence[int], links: Links) -> list[int]:
    place = {number: position for position, number in enumerate(fixed)}
    scale = len(fixed) / max(len(row), 1)

    def centre(item: tuple[int, int]) -> float:
        position, number = item
        near = [place[other] for other in links.get(number, ())]
        return sum(near) / len(near) if near else position * scale

    return [number for _, number in sorted(enumerate(row), key=centre)]


def _crossings(rows: Sequence[Sequence[int]], after: Links) -> int:
    total = 0
    for left, right in pairwise(rows):
        place = {number: position for position, number in enumerate(right)}
        seen: list[int] = []
        for number in left:
            ends = sorted(place[other] for other in after.get(number, ()))
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _place(rows: Sequence[Sequence[int]], chains: Iterable[Sequence[int]], heights: Sequence[float]) -> list[float]:
    """The centre of every node across the ranks."""
    before, after = _neighbours(chains)
    centres = [0.0] * len(heights)
    for row in rows:
        reach = 0.0
        for number in row:
            centres[number] = reach + heights[number] / 2
            reach += heights[number] + NODE_GAP
    for round_ in range(_ALIGNMENTS):
        downward = round_ % 2 == 0
        links = before if downward else after
        for row in rows if downward else reversed(rows):
            wanted = [_mean([centres[other] for other in links.get(n, ())], centres[n]) for n in row]
            for number, centre in zip(row, _spread(wanted, [heights[n] for n in row]), strict=True):
                centres[number] = centre
    return centres


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The centres nearest to the wanted ones (least squares) that keep the order and the gap between boxes.

    Taking off each box's stacked offset turns "at least a gap apart" into "not decreasing", which pooling
    adjacent violators solves exactly.
    """
    offsets = [0.0]
    for upper, lower in pairwise(heights):
        offsets.append(offsets[-1] + (upper + lower) / 2 + NODE_GAP)
    blocks: list[tuple[float, int]] = []  # (sum, count): their means never decrease
    for want, offset in zip(wanted, offsets, strict=False):
        total, count = want - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            earlier = blocks.pop()
            total, count = total + earlier[0], count + earlier[1]
        blocks.append((total, count))
    means = [total / count for total, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]


def _drawing(
    nodes: Sequence[GraphNode],
    kept: Mapping[tuple[int, int], GraphEdge],
    forward: Mapping[tuple[int, int], tuple[int, int]],
    chains: Mapping[tuple[int, int], Sequence[int]],
    ranks: Sequence[int],
    across: Sequence[float],
    heights: Sequence[float],
) -> Drawing:
    top = min(centre - height / 2 for centre, height in zip(across, heights, strict=True)) - MARGIN
    lefts = [MARGIN + rank * (NODE_WIDTH + RANK_GAP) for rank in ranks]
    placed = tuple(
        PlacedNode(node, lefts[n], round(across[n] - NODE_HEIGHT / 2 - top, 1), NODE_WIDTH, NODE_HEIGHT)
        for n, node in enumerate(nodes)
    )
    lines = []
    for ends, edge in kept.items():
        chain = chains[forward[ends]]
        points: list[tuple[float, float]] = []
        for number in chain:
            y = round(across[number] - top, 1)
            if number != chain[0]:
                points.append((lefts[number], y))
            if number != chain[-1]:
                points.append((lefts[number] + NODE_WIDTH, y))
        if forward[ends] != ends:
            points.reverse()
        lines.append(PlacedEdge(edge, tuple(points), _path(points)))
    bottom = max(centre + height / 2 for centre, height in zip(across, heights, strict=True))
    return Drawing(placed, tuple(lines), max(lefts) + NODE_WIDTH + MARGIN, round(bottom - top + MARGIN, 1))


def _path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through the points: curves between ranks, straight lines along a bend."""
    x, y = points[0]
    parts = [f"M{x:g},{y:g}"]
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        middle = (x0 + x1) / 2
        curved = number % 2 == 0 and y0 != y1
        parts.append(f"C{middle:g},{y0:g} {middle:g},{y1:g} {x1:g},{y1:g}" if curved else f"L{x1:g},{y1:g}")
    return "".join(parts)
