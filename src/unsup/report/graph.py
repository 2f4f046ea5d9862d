"""A directed graph without cycles as a drawing: parents above their children."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from unsup.report.svg import drawing, element, line, shape, text

MOST_NODES = 60
_WIDTH, _HEIGHT, _GAP, _LAYER = 96.0, 26.0, 20.0, 74.0
_MOST_LETTERS = 14
_ROUNDS = 4  # of ordering the nodes of the layers by their neighbours
_HEAD = 7.0

Edges = Sequence[tuple[int, int]]


def layers(nodes: int, edges: Edges) -> list[list[int]]:
    """The nodes by their longest path from a node without parents; those of a layer are near their neighbours.

    Raises:
        ValueError: there is a cycle.

    >>> layers(4, [(0, 1), (1, 2), (0, 2)])
    [[0, 3], [1], [2]]
    """
    rank = [0] * nodes
    for _ in range(nodes):
        moved = [(i, rank[j] + 1) for j, i in edges if rank[i] <= rank[j]]
        for i, least in moved:
            rank[i] = max(rank[i], least)
        if not moved:
            break
    else:
        if nodes:
            raise ValueError("the graph has a cycle")
    found = [[v for v in range(nodes) if rank[v] == r] for r in range(max(rank, default=-1) + 1)]
    beside: list[list[int]] = [[] for _ in range(nodes)]
    for j, i in edges:
        beside[i].append(j)
        beside[j].append(i)
    for _ in range(_ROUNDS):
        place = {v: k - (len(row) - 1) / 2 for row in found for k, v in enumerate(row)}
        for row in found:
            own = {v: sum(place[u] for u in beside[v]) / len(beside[v]) if beside[v] else place[v] for v in row}
            row.sort(key=own.__getitem__)
    return found


def graph(names: Sequence[str], edges: Edges, ident: str, title: str) -> Markup:
    """The drawing, with a description of all edges for screen readers."""
    rows = layers(len(names), edges)
    width = max(len(row) for row in rows) * (_WIDTH + _GAP)
    centre = {}
    for depth, row in enumerate(rows):
        room = width / len(row)
        for k, v in enumerate(row):
            centre[v] = ((k + 0.5) * room, _HEIGHT / 2 + 1 + depth * _LAYER)
    parts = []
    for j, i in edges:
        (x1, y1), (x2, y2) = (centre[j][0], centre[j][1] + _HEIGHT / 2), (centre[i][0], centre[i][1] - _HEIGHT / 2)
        length = math.hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length * _HEAD, (y2 - y1) / length * _HEAD
        parts.append(line(x1, y1, x2 - dx, y2 - dy, "base"))
        ends = [(x2, y2), (x2 - dx - dy / 2, y2 - dy + dx / 2), (x2 - dx + dy / 2, y2 - dy - dx / 2)]
        parts.append(shape("polygon", ends, "head"))
    for v, (x, y) in centre.items():
        name = names[v] if len(names[v]) <= _MOST_LETTERS else f"{names[v][: _MOST_LETTERS - 1]}…"
        left, top = x - _WIDTH / 2, y - _HEIGHT / 2
        parts.append(element("rect", x=left, y=top, width=_WIDTH, height=_HEIGHT, rx=6, class_="node"))
        parts.append(text(name, x, y + 4, anchor="middle"))
    words = ", ".join(f"{names[j]} → {names[i]}" for j, i in edges) or "no edges"
    return drawing(ident, width, _HEIGHT + 2 + (len(rows) - 1) * _LAYER, title, words, parts)
