"""The layered drawing: what must hold for every graph, and what a reader expects of small ones."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.ui.graph import NODE_GAP, Drawing, GraphEdge, GraphNode, PlacedNode, draw


def graph_of(*pairs: str) -> Drawing:
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    return draw([GraphNode(id=name, label=name) for name in names], [GraphEdge(pair[0], pair[1]) for pair in pairs])


@st.composite
def graphs(draw_from: st.DrawFn) -> tuple[list[GraphNode], list[GraphEdge]]:
    count = draw_from(st.integers(1, 14))
    ends = st.integers(0, count - 1)
    pairs = draw_from(st.lists(st.tuples(ends, ends), max_size=30))
    return (
        [GraphNode(id=f"n{n}", label=f"n{n}") for n in range(count)],
        [GraphEdge(f"n{source}", f"n{target}") for source, target in pairs],
    )


def overlap(one: PlacedNode, other: PlacedNode) -> bool:
    apart_across = one.x + one.width <= other.x or other.x + other.width <= one.x
    apart_down = one.y + one.height <= other.y or other.y + other.height <= one.y
    return not (apart_across or apart_down)


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_every_graph_is_drawn_whole_and_without_overlap(graph: tuple[list[GraphNode], list[GraphEdge]]) -> None:
    nodes, edges = graph
    drawing = draw(nodes, edges)
    assert [placed.node for placed in drawing.nodes] == nodes
    wanted = {(edge.source, edge.target) for edge in edges if edge.source != edge.target}
    assert {(line.edge.source, line.edge.target) for line in drawing.edges} == wanted
    assert not any(overlap(one, other) for one, other in combinations(drawing.nodes, 2))
    for placed in drawing.nodes:
        assert placed.x >= 0
        assert placed.x + placed.width <= drawing.width + 0.1
        assert placed.y >= 0
        assert placed.y + placed.height <= drawing.height + 0.1


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_lines_begin_and_end_at_their_nodes(graph: tuple[list[GraphNode], list[GraphEdge]]) -> None:
    drawing = draw(*graph)
    boxes = {placed.node.id: placed for placed in drawing.nodes}
    for line in drawing.edges:
        for (x, y), name in ((line.points[0], line.edge.source), (line.points[-1], line.edge.target)):
            box = boxes[name]
            assert x in (box.x, box.x + box.width)
            assert abs(y - (box.y + box.height / 2)) < 0.2
        assert line.path.startswith("M")


@given(graphs())
@settings(max_examples=40, deadline=None)
def test_equal_graphs_give_equal_drawings(graph: tuple[list[GraphNode], list[GraphEdge]]) -> None:
    assert draw(*graph) == draw(*graph)


def test_causes_stand_left_of_effects() -> None:
    at = {placed.node.id: placed.x for placed in graph_of("ab", "bc", "ac").nodes}
    assert at["a"] < at["b"] < at["c"]


def test_a_late_source_stands_next_to_what_it_feeds() -> None:
    at = {placed.node.id: placed.x for placed in graph_of("ab", "bc", "cd", "xd").nodes}
    assert at["x"] == at["c"]


def test_a_cycle_is_drawn_with_one_line_turned_round() -> None:
    drawing = graph_of("ab", "bc", "ca")
    backwards = [line for line in drawing.edges if line.points[0][0] > line.points[-1][0]]
    assert [(line.edge.source, line.edge.target) for line in backwards] == [("c", "a")]


def test_a_line_that_can_be_straight_is() -> None:
    line = graph_of("ab").edges[0]
    assert line.points[0][1] == line.points[1][1]


def test_crossings_that_can_be_avoided_are() -> None:
    drawing = graph_of("ax", "by", "cz", "ay")
    centre = {placed.node.id: placed.y for placed in drawing.nodes}
    order_left = sorted("abc", key=centre.__getitem__)
    order_right = sorted("xyz", key=centre.__getitem__)
    assert [dict(zip("abc", "xyz", strict=True))[name] for name in order_left] == order_right


def test_neighbours_in_a_rank_keep_their_gap() -> None:
    drawing = graph_of("ar", "br", "cr", "dr")
    column = sorted((placed for placed in drawing.nodes if placed.node.id != "r"), key=lambda placed: placed.y)
    gaps = [lower.y - (upper.y + upper.height) for upper, lower in pairwise(column)]
    assert all(gap >= NODE_GAP - 0.2 for gap in gaps)


def test_what_is_not_in_the_graph_is_not_drawn() -> None:
    drawing = draw([GraphNode(id="a", label="a")], [GraphEdge("a", "ghost"), GraphEdge("a", "a")])
    assert drawing.edges == ()
    assert len(drawing.nodes) == 1
    assert draw([], []) == Drawing()


def test_a_large_graph_is_drawn_in_reasonable_time() -> None:
    nodes = [GraphNode(id=str(n), label=str(n)) for n in range(400)]
    edges = [GraphEdge(str(n), str(n + step)) for n in range(400) for step in (1, 7) if n + step < 400]
    drawing = draw(nodes, edges)
    assert len(drawing.nodes) == 400
