"""The structure of a Bayesian network from counts: trees of mutual information, and hill climbing on a score.

**Chow-Liu** (Chow, Liu 1968, https://doi.org/10.1109/TIT.1968.1054142): of all trees, the one with the largest sum of
mutual information over its edges has the largest likelihood; it is a maximum spanning tree.

**Hill climbing**: add, delete or reverse one edge, the one that raises the score most, until none does. With n_jk of N
examples that have parents in configuration j of q and level k of r, the score is a sum over families of

    BIC:   Σ_jk n_jk log (n_jk / n_j) − ½ log N · q (r − 1)
    BDeu:  Σ_j [log Γ(s/q) − log Γ(s/q + n_j) + Σ_k log Γ(s/(qr) + n_jk) − log Γ(s/(qr))]

(Schwarz 1978; Heckerman, Geiger, Chickering 1995, https://doi.org/10.1007/BF00994016, with equivalent sample size s).
Both are equal for networks with the same independences.

Where entries are missing, a move is judged in the examples that have every column of the families that it changes: the
scores before and after it are those of the same n examples. Scores of different examples, even if scaled to N, differ
by about √N for independent columns, which no penalty of log N outweighs (Balov 2013, https://doi.org/10.1214/13-EJS802,
shows it for BIC). The penalty stays ½ log N, so that missing entries never make an edge more probable. Such gains are
not differences of one function of the graph. So that the search ends, an edge that was removed is not added again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Literal

import torch
from torch import Tensor

_ROWS = 2048  # at a time
_AT_ONCE = 2**24  # counts and indices at a time
_SAME = 1e-9  # of scores, relative to their size: moves within it are equal

Score = Literal["bic", "bdeu"]


def find_cycle(parents: Sequence[Collection[int]]) -> list[int] | None:
    """The nodes along a directed cycle, the first one again at the end; None if there is none.

    >>> find_cycle([[2], [0], [1]])
    [0, 1, 2, 0]
    """
    children: list[list[int]] = [[] for _ in parents]
    for node, own in enumerate(parents):
        for parent in sorted(own):
            children[parent].append(node)
    done: set[int] = set()
    for start in range(len(parents)):
        path, on_path = [start], {start}
        waiting = [iter(children[start])] if start not in done else []
        while waiting:
            following = next(waiting[-1], None)
            if following is None:
                waiting.pop()
                done.add(path[-1])
                on_path.discard(path.pop())
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                on_path.add(following)
                waiting.append(iter(children[following]))
    return None


def topological_order(parents: Sequence[Collection[int]]) -> list[int]:
    """The nodes with parents first, else in ascending order; for a graph without cycles.

    >>> topological_order([[1], [], [0]])
    [1, 0, 2]
    """
    placed: dict[int, None] = {}
    for start in range(len(parents)):
        waiting = [start]
        while waiting:
            node = waiting[-1]
            missing = [p for p in sorted(parents[node], reverse=True) if p not in placed]
            if missing:
                waiting.extend(missing)
            else:
                placed.setdefault(waiting.pop())
    return list(placed)


def tree_weights(codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """The weight of each edge of a Chow-Liu tree in nats, ``(D, D)``: mutual information in ``(N, D)`` codes.

    A missing entry is −1. A pair is counted in the n rows that have both, and charged ½ log N · (r − 1)(k − 1)
    (1/n − 1/N) for its r and k levels, since the information of few rows is large by chance. The charge is 0 without
    missing entries.
    """
    total = sum(sizes)
    levels = torch.tensor(sizes, device=codes.device)
    column = torch.arange(len(sizes), device=codes.device).repeat_interleave(levels)
    offset = torch.tensor([0, *sizes[:-1]], device=codes.device).cumsum(0)
    counts = torch.zeros(total, total, dtype=torch.float64, device=codes.device)
    for part in codes.split(_ROWS):
        place = torch.where(part < 0, total, part + offset)
        bits = torch.zeros(len(part), total + 1, device=codes.device).scatter_(1, place, 1.0)[:, :total]
        counts += (bits.T @ bits).double()  # integers below 2²⁴ are exact

    def blocks(values: Tensor, axis: int) -> Tensor:
        """Sums over the levels of each column along an axis."""
        shape = list(values.shape)
        shape[axis] = len(sizes)
        return values.new_zeros(shape).index_add_(axis, column, values)

    margin = blocks(counts, 1)  # of each level in the rows that have the other column too: (S, D)
    number = blocks(margin, 0)
    first = blocks(margin.xlogy(margin), 0)
    joint = blocks(blocks(counts.xlogy(counts), 0), 1)
    found = joint - first - first.T + number.xlogy(number)
    information = (found / number.clamp(min=1)).clamp(min=0)
    free, n = (levels - 1)[:, None] * (levels - 1), max(len(codes), 1)
    charge = 0.5 * math.log(n) * free * (1 / number.clamp(min=1) - 1 / n)
    return (information - charge).fill_diagonal_(0)


def spanning_tree(weights: Tensor) -> list[list[int]]:
    """Parents of each node in the maximum spanning tree of symmetric weights, rooted at node 0 (Prim's algorithm).

    >>> spanning_tree(torch.tensor([[0.0, 3.0, 1.0], [3.0, 0.0, 2.0], [1.0, 2.0, 0.0]]))
    [[], [0], [1]]
    """
    n = len(weights)
    parents: list[list[int]] = [[] for _ in range(n)]
    best, nearest = weights[0].clone(), torch.zeros(n, dtype=torch.int64)
    best[0] = -math.inf
    for _ in range(n - 1):
        node = int(best.argmax())
        parents[node] = [int(nearest[node])]
        better = (weights[node] > best) & (best > -math.inf)
        best, nearest = torch.where(better, weights[node], best), torch.where(better.cpu(), node, nearest)
        best[node] = -math.inf
    return parents


class FamilyScores:
    """Scores of families, by the rows of a table.

    Args:
        codes: levels of all columns, ``(N, D)``; −1 is missing.
        sizes: number of levels of each column.
        score: the score.
        equivalent_size: s of BDeu.
        most_cells: families with larger tables are not considered.
    """

    def __init__(
        self, codes: Tensor, sizes: Sequence[int], *, score: Score, equivalent_size: float, most_cells: int
    ) -> None:
        self.codes, self.sizes, self.most_cells = codes.T.contiguous(), list(sizes), most_cells
        self.score, self.equivalent_size = score, equivalent_size
        self.gaps = bool((codes < 0).any())
        self._alone = torch.zeros(1, len(codes), dtype=torch.int64, device=codes.device)
        self._known: dict[tuple[int, frozenset[int], frozenset[int]], float] = {}

    def of(self, node: int, parents: Collection[int], beside: Collection[int] = ()) -> float:
        """The score of one family in the rows that have it and the columns ``beside``."""
        own = frozenset(parents)
        has = (own | {node} | set(beside)) if self.gaps else frozenset[int]()
        if (node, own, has) not in self._known:
            counts = self._counts(*self._base(node, own, has), self._alone, 1)
            self._known[node, own, has] = float(self._scores(counts)[0])
        return self._known[node, own, has]

    def gains(self, node: int, parents: Collection[int]) -> Tensor:
        """What each other column as a further parent adds to the score, in the rows that have all of these, ``(D,)``.

        −∞ where that is not possible.
        """
        found = torch.full((len(self.sizes),), -math.inf, dtype=torch.float64)
        base, rows, size = self._base(node, parents, (*parents, node))
        for levels in sorted(set(self.sizes)):
            if rows * size * levels > self.most_cells:
                continue
            others = [j for j, k in enumerate(self.sizes) if k == levels and j != node and j not in parents]
            at_once = max(1, _AT_ONCE // max(len(base), rows * size * levels))
            for part in (others[k : k + at_once] for k in range(0, len(others), at_once)):
                counts = self._counts(base, rows, size, self.codes[part], levels)
                scores = self._scores(counts)
                if self.gaps:
                    scores -= self._scores(counts.sum(3, keepdim=True))
                found[part] = scores.cpu()
        return found if self.gaps else found - self.of(node, parents)

    def _base(self, node: int, parents: Collection[int], has: Collection[int]) -> tuple[Tensor, int, int]:
        """Configuration of the parents and level of the node in each row, −1 without all columns ``has``; q and r."""
        index, rows = torch.zeros_like(self.codes[0]), 1
        for column in (*sorted(parents), node):
            index = index * self.sizes[column] + self.codes[column]
            rows *= self.sizes[column]
        if self.gaps:
            index = index.masked_fill((self.codes[list(has)] < 0).any(0), -1)
        return index, rows // self.sizes[node], self.sizes[node]

    def _counts(self, base: Tensor, rows: int, size: int, more: Tensor, levels: int) -> Tensor:
        """Counts of the family with each of M columns ``(M, N)`` of so many levels as a further parent.

        Returns:
            ``(M, q, r, levels)``.
        """
        columns, cells = len(more), rows * size * levels
        place = base * levels + more
        if self.gaps:
            place = place.masked_fill((base < 0) | (more < 0), cells)
        place += (cells + 1) * torch.arange(columns, device=more.device)[:, None]
        counts = place.flatten().bincount(minlength=columns * (cells + 1)).view(columns, cells + 1)[:, :cells]
        return counts.double().view(columns, rows, size, levels)

    def _scores(self, counts: Tensor) -> Tensor:
        """Scores of families by their counts ``(M, q, r, levels)``: ``(M,)``."""
        _, rows, size, levels = counts.shape
        total = counts.sum(2)
        if self.score == "bic":
            free = rows * levels * (size - 1)
            fit = counts.xlogy(counts).sum((1, 2, 3)) - total.xlogy(total).sum((1, 2))
            return fit - 0.5 * math.log(max(self.codes.shape[1], 1)) * free
        row = self.equivalent_size / (rows * levels)
        each = row / size
        return _log_rising(row, total).sum((1, 2)).neg() + _log_rising(each, counts).sum((1, 2, 3))


def _log_rising(alpha: float, counts: Tensor) -> Tensor:
    """log Γ(α + n) − log Γ(α)."""
    return torch.lgamma(counts + alpha) - math.lgamma(alpha)


def hill_climb(
    scores: FamilyScores, max_parents: int, *, on_step: Callable[[float], None] | None = None
) -> list[list[int]]:
    """Parents of each node after greedy moves from the empty graph: add, delete or reverse an edge.

    Args:
        scores: of families.
        max_parents: the most parents of a node.
        on_step: called with the gain of each move.
    """
    n = len(scores.sizes)
    parents: list[set[int]] = [set() for _ in range(n)]
    adding = torch.empty(n, n, dtype=torch.float64)  # [j, i]: what the edge j → i gains
    deleting = torch.full((n, n), -math.inf, dtype=torch.float64)
    edge = torch.zeros(n, n, dtype=torch.bool)
    reach = torch.zeros(n, n, dtype=torch.bool)  # [j, i]: a directed path leads from j to i
    barred = torch.eye(n, dtype=torch.bool)  # edges that are never added
    current = torch.zeros(n, dtype=torch.float64)

    def look_at(node: int) -> None:
        own = parents[node]
        current[node] = scores.of(node, own)
        adding[:, node] = -math.inf if len(own) >= max_parents else scores.gains(node, own)
        deleting[:, node] = -math.inf
        for parent in own:
            deleting[parent, node] = scores.of(node, own - {parent}, own) - current[node]

    def reversal(j: int, i: int) -> float:
        """The gain of i → j instead of j → i, from both families in the same rows."""
        old, new = parents[i], parents[j] | {i}
        after = scores.of(i, old - {j}, old | new) + scores.of(j, new, old | new)
        return after - scores.of(i, old, old | new) - scores.of(j, parents[j], old | new)

    for node in range(n):
        look_at(node)
    while True:
        around = (edge.float() @ reach.float()) > 0  # paths of two edges or more
        reversing = (deleting + adding.T).masked_fill(~edge | around | barred.T, -math.inf)
        if scores.gaps:
            for j, i in reversing.isfinite().nonzero().tolist():
                reversing[j, i] = reversal(j, i)
        gains = torch.stack([adding.masked_fill(edge | reach.T | barred, -math.inf), deleting, reversing]).flatten()
        same = _SAME * max(1.0, float(current.abs().sum()))
        best = float(gains.max())
        if not best > same:
            return [sorted(own) for own in parents]
        kind, place = divmod(int((gains >= best - same).nonzero()[0]), n * n)  # the first of equal ones
        j, i = divmod(place, n)
        edge[j, i] = kind == 0
        if kind == 0:
            parents[i].add(j)
            reach |= (reach[:, [j]] | (torch.arange(n) == j)[:, None]) & (reach[[i]] | (torch.arange(n) == i))
        else:
            parents[i].discard(j)
            barred[j, i] = scores.gaps
            if kind == 2:
                parents[j].add(i)
                edge[i, j] = True
            reach = _reachable(edge)
        look_at(i)
        if kind == 2:
            look_at(j)
        if on_step is not None:
            on_step(best)


def _reachable(edge: Tensor) -> Tensor:
    """Which nodes a directed path leads to, ``(n, n)``, by repeated squaring."""
    reach = edge
    for _ in range(max(1, math.ceil(math.log2(max(len(edge), 2))))):
        reach = reach | ((reach.float() @ reach.float()) > 0)
    return reach
