"""Bayesian network of discrete columns: a table for each column given its parents in a directed graph without cycles.

    p(x) = Π_i p(x_i | x_pa(i)),    p(x_i = k | configuration j of the parents) = (n_ijk + s/(q_i r_i)) / (n_ij + s/q_i)

with the counts n of the training data, r_i levels, q_i configurations and the equivalent sample size s of BDeu (Pearl
1988, https://doi.org/10.1016/C2009-0-27609-4; Heckerman, Geiger, Chickering 1995, https://doi.org/10.1007/BF00994016;
Koller, Friedman 2009). A configuration that was never seen has a uniform distribution. The graph is given, a Chow-Liu
tree, or found by hill climbing (`unsup.prob.structure`).

Everything is exact. Sums over missing or unknown entries are variable eliminations (`unsup.prob.elimination`): without
barren nodes, with the evidence sliced out of the tables first. Unknown entries are drawn by going back through the
elimination: the last variable from its product, then each earlier one given those drawn before. Data with missing
entries is counted by EM with the exact posterior of each family.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Weight
from unsup.core.errors import InputError, nearest
from unsup.core.event import Event
from unsup.core.model import Advice, CanSample, ChooseEntry, CodesEntries, Factorises, HasGraph, KnowsMarginals
from unsup.core.steps import in_steps
from unsup.core.words import counted
from unsup.nn.columns import patterns
from unsup.nn.counting import Counting
from unsup.prob import elimination as sums
from unsup.prob.elimination import Factor, Plan
from unsup.prob.structure import (
    FamilyScores,
    Score,
    find_cycle,
    hill_climb,
    spanning_tree,
    topological_order,
    tree_weights,
)

_EM_PASSES, _TOLERANCE = 100, 1e-6
_MOST_LEVELS, _MOST_IN_ALL = 256, 4096
_MOST_LEARNED = 2**14  # cells of a table that hill climbing considers
_MOST_GIVEN = 2**26  # cells of all tables of a given structure
_AT_ONCE = 2**22  # cells of a product, for all examples at a time
_FEW = 10_000  # rows times cells of a product, that cost less than the overhead of a separate elimination
_MOST_KEPT = 2**12  # cells of a table of evidence and target that is kept between queries
_MOST_PRODUCT = 2**16  # cells of a product on the way to such a table
_KEPT_TABLES, _KEPT_PLANS = 256, 1024
_CACHED = 2**16  # numbers of a part of the rows, which stay in the cache
_TINY = 1e-280  # total of a row of such a table, which has rounding errors only above
_DENSE = 128  # columns up to which cells are found by one matrix product
_MANY_COLUMNS = 64  # for which hill climbing takes minutes
_SHOWN = 40  # edges in a line
_LEARNED = ("hill-climbing", "chow-liu")


class BayesNet(Counting, Factorises, CanSample, KnowsMarginals, CodesEntries, HasGraph):
    """Π_i p(x_i | x_pa(i)) with one table per column (Pearl 1988); all operations are exact.

    `edges` lists the structure. Samples, scores of entries and compression follow its topological order. A structure is
    learned from at most 20,000 training examples, before the tables are counted in all of them. Networks with the same
    independences have the same score, so that these alone decide the direction of an edge: it is not a cause.

    Args:
        event: binary, ordinal or nominal entries of at most 256 levels, 4,096 levels in all.
        structure: ``hill-climbing``: add, delete and reverse edges while the score rises; ``chow-liu``: the tree with
            the largest likelihood; or the edges themselves as parent:child, columns numbered from 0: ``0:1,0:2,1:3``.
        score: of hill climbing: ``bic``, or ``bdeu`` with the equivalent size.
        max_parents: the most parents of a column that hill climbing tries, with tables of at most 16,384 cells.
        equivalent_size: s, the number of pseudo-observations of each family; 0 is maximum likelihood, where a level
            that was never seen in a configuration is impossible in it.

    Raises:
        InputError: a structure with a cycle, unknown columns or too large tables; ``score="bdeu"`` with size 0.

    >>> import torch
    >>> from unsup import Batch, Event, Support
    >>> model = BayesNet(Event((2,), Support("binary")), structure="0:1", equivalent_size=0.0)
    >>> model.maximize(model.statistics(Batch(torch.tensor([[0, 0], [0, 1], [1, 1], [1, 1]]))))
    >>> [round(p, 4) for p in model.log_prob(torch.tensor([[0, 0], [0, 1], [1, 1]])).exp().tolist()]
    [0.25, 0.25, 0.5]
    """

    presets = {"tiny": {"max_parents": 2}, "paper": {}}
    autocast = False
    takes_missing = True
    marginalises = True
    not_in_half = "its tables are in float64"

    low: Tensor
    edge: Tensor
    log_table: Tensor

    def __init__(
        self,
        event: Event,
        *,
        structure: str = "hill-climbing",
        score: Score = "bic",
        max_parents: Count = 3,
        equivalent_size: Weight = 1.0,
    ) -> None:
        if score == "bdeu" and not equivalent_size:
            raise InputError("BayesNet: score='bdeu' needs equivalent_size above 0")
        self.structure, self.criterion, self.max_parents = structure, score, max_parents
        self.equivalent_size = equivalent_size
        if event.missing:
            self.take_passes(_EM_PASSES, _TOLERANCE)
        else:
            self.take_passes(1)
        self.sizes = [s.levels for s in event.columns]
        self.register_buffer("low", torch.tensor([s.low for s in event.columns]), persistent=False)
        self.shifted = any(s.low for s in event.columns)
        parents = [[] for _ in self.sizes] if structure in _LEARNED else _parsed(structure, event.dims)
        self.register_buffer("edge", _edges(parents))  # [j, i]: j is a parent of i, (D, D)
        # The tables of all columns one after the other, with room for any structure that may be learned.
        self.register_buffer("log_table", torch.zeros(self._room(parents), dtype=torch.float64))
        self._laid_out: tuple[bytes, _Layout] | None = None
        self._joint_key, self._joint_net = (0, 0, 0), self._net
        self._joints: dict[tuple[frozenset[int], tuple[int, ...]], tuple[list[int], Tensor] | None] = {}
        self._start()

    def _room(self, parents: Sequence[Sequence[int]]) -> int:
        """The number of cells of all tables, the most that a learned structure can have."""
        if self.structure not in _LEARNED:
            cells = sum(math.prod(self.sizes[j] for j in [i, *own]) for i, own in enumerate(parents))
            if cells > _MOST_GIVEN:
                raise InputError(
                    f"BayesNet: the tables of this structure have {cells:,} cells; at most {_MOST_GIVEN:,} are "
                    "possible; remove parents of columns with many levels"
                )
            return cells
        largest = sorted(self.sizes, reverse=True)
        if self.structure == "chow-liu":
            return sum(size * largest[0] for size in self.sizes)
        return sum(max(size, min(_MOST_LEARNED, size * math.prod(largest[: self.max_parents]))) for size in self.sizes)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_discrete:
            return (
                "takes discrete columns only (cut the real ones into intervals first, or use gaussian-mixture, made or "
                "histogram)"
            )
        most, total = max(s.levels for s in event.columns), sum(s.levels for s in event.columns)
        if most > _MOST_LEVELS or total > _MOST_IN_ALL:
            return (
                f"takes columns of at most {_MOST_LEVELS} levels, {_MOST_IN_ALL:,} in all; these have up to {most:,}, "
                f"{total:,} in all (merge rare levels or neighbouring numbers, or use gaussian-mixture, made or "
                "histogram)"
            )
        return None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """A tree where hill climbing takes long; in a contest only if it is named."""
        return Advice({"structure": "chow-liu"} if event.dims > _MANY_COLUMNS else {}, turn=None)

    @property
    def n_free(self) -> int:
        return sum(table.numel() // size * (size - 1) for table, size in zip(self._tables(), self.sizes, strict=True))

    def edges(self, names: Sequence[str] | None = None) -> list[tuple[int, int]] | list[tuple[str, str]]:
        """The edges of the graph, (parent, child), by the numbers of flattened entries from 0, or by their names.

        >>> from unsup import Event, Support
        >>> BayesNet(Event((3,), Support("binary")), structure="0:1,0:2").edges(["rain", "wet", "slippery"])
        [('rain', 'wet'), ('rain', 'slippery')]
        """
        found = self.links()
        if names is None:
            return found
        if len(names) != self.event.dims:
            raise InputError(f"{len(names)} names were given for {self.event.dims} columns")
        return [(names[j], names[i]) for j, i in found]

    def links(self) -> list[tuple[int, int]]:
        return [(int(j), int(i)) for j, i in self.edge.nonzero().tolist()]

    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """The edges, as ``rain → wet``."""
        shown = [f"{j} → {i}" for j, i in self.edges(names)]
        if not shown:
            return ("no edges: the columns are independent",)
        more = len(shown) - _SHOWN
        rest = f" and {more:,} more (edges() of the model)" if more > 0 else ""
        return (f"{counted(len(shown), 'edge')} (parent → child): {', '.join(shown[:_SHOWN])}{rest}",)

    # --- the layout of the tables ---------------------------------------------------------------------------------

    @property
    def _net(self) -> _Layout:
        """What follows from the structure; computed again where that has changed."""
        key = self.edge.cpu().numpy().tobytes()
        if self._laid_out is None or self._laid_out[0] != key:
            self._laid_out = key, _Layout.of(self.edge, self.sizes)
        return self._laid_out[1]

    def _tables(self) -> list[Tensor]:
        """log p(x_i | parents), ``(*sizes of the parents, r_i)`` for each column."""
        net = self._net
        return [
            self.log_table[start : start + math.prod(shape)].view(shape)
            for start, shape in zip(net.offsets, net.shapes, strict=True)
        ]

    def _start(self) -> None:
        """Uniform tables."""
        self.log_table.zero_()
        for table, size in zip(self._tables(), self.sizes, strict=True):
            table.fill_(-math.log(size))

    def _pseudocounts(self) -> Tensor:
        """s / (q_i r_i) of each cell, 0 beyond the tables, ``(C,)``."""
        alpha = torch.zeros_like(self.log_table)
        for start, shape in zip(self._net.offsets, self._net.shapes, strict=True):
            cells = math.prod(shape)
            alpha[start : start + cells] = self.equivalent_size / cells
        return alpha

    # --- learning -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Learn the structure from examples, unless it is given, and start with uniform tables."""
        if self.structure in _LEARNED:
            codes = self._codes(batch.x)
            if self.structure == "chow-liu":
                parents = spanning_tree(tree_weights(codes, self.sizes))
            else:
                scores = FamilyScores(
                    codes,
                    self.sizes,
                    score=self.criterion,
                    equivalent_size=self.equivalent_size,
                    most_cells=_MOST_LEARNED,
                )
                parents = hill_climb(scores, self.max_parents)
            self.edge.copy_(_edges(parents))
        self._start()

    @torch.no_grad()
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """``counts`` of every cell of every table, and ``count``; with gaps expected counts, and ``log_prob``."""
        if not self.event.missing:
            weight = None if batch.weight is None else batch.weight.double()
            count = self.log_table.new_tensor(len(batch)) if weight is None else weight.sum()
            counts, nodes = torch.zeros_like(self.log_table), range(self.event.dims)
            size = max(_CACHED // self.event.dims, len(counts) // self.event.dims, 1)
            for start in range(0, len(batch), size):
                part = slice(start, start + size)
                counts += self._counted(self._codes(batch.x[part]), nodes, None if weight is None else weight[part])
            return {"counts": counts, "count": count}
        codes = self._codes(batch.x)
        weight = self.log_table.new_ones(len(codes)) if batch.weight is None else batch.weight.double()
        counts, log_prob = torch.zeros_like(self.log_table), self.log_table.new_zeros(())
        for rows, seen in self._groups(codes):
            own, place = codes[rows].unique(dim=0, return_inverse=True)
            times = torch.zeros_like(weight[: len(own)]).index_add_(0, place, weight[rows])
            log_prob = log_prob + self._add_expected(counts, own, seen, times)
        return {"counts": counts, "count": weight.sum(), "log_prob": log_prob}

    def _counted(self, codes: Tensor, nodes: Sequence[int], weight: Tensor | None) -> Tensor:
        """Counts of the families of some columns in complete rows, in the shape of ``log_table``."""
        place = self._places(codes, nodes)
        each = None if weight is None else weight[None].expand_as(place).flatten()
        return place.flatten().bincount(each, minlength=len(self.log_table)).to(self.log_table.dtype)

    def _add_expected(self, counts: Tensor, codes: Tensor, seen: Collection[int], weight: Tensor) -> Tensor:
        """Add Σ_n w_n p(family | observed entries of example n) to the counts of all families; Σ_n w_n log p(observed).

        Args:
            counts: in the shape of ``log_table``.
            codes: a group of rows, ``(B, D)``.
            seen: the columns that all of them have.
            weight: w, ``(B,)``.
        """
        net, nodes = self._net, range(self.event.dims)
        observed = [i for i in nodes if set(net.families[i]) <= set(seen)]
        if observed:
            counts += self._counted(codes, observed, weight)
        plan = self._plan(nodes, seen, ())
        total = weight.new_zeros(())
        for part in self._parts(codes, plan, len(plan.order)):
            own, times = codes[part], weight[part]
            factors, log_scale = self._factors(own, nodes, seen)
            if factors:
                left, log_rest, products = sums.eliminate(factors, plan.order)
                log_scale = log_scale + log_rest + sums.table_over(left, ())[1]
                posterior = dict(zip(plan.order, sums.beliefs(plan.order, products), strict=True))
                for i in sorted(set(nodes) - set(observed)):
                    hidden = [v for v in net.families[i] if v not in seen]
                    first = min(hidden, key=plan.order.index)
                    self._add_family(counts, i, own, sums.marginal(posterior[first], hidden), times)
            total = total + times @ log_scale.expand(len(own))
        return total

    def _add_family(self, counts: Tensor, node: int, codes: Tensor, posterior: Factor, weight: Tensor) -> None:
        """Add weighted posteriors of the hidden members of a family to its counts."""
        net, device = self._net, codes.device
        base = torch.full((len(codes),), net.offsets[node], device=device)
        beyond = torch.zeros((), dtype=torch.int64, device=device)
        strides = dict(zip(net.families[node], net.strides(node), strict=True))
        for v, stride in strides.items():
            if v not in posterior.variables:
                base = base + stride * codes[:, v]
        for v in posterior.variables:
            beyond = beyond[..., None] + strides[v] * torch.arange(self.sizes[v], device=device)
        each = posterior.values.expand(len(codes), *posterior.values.shape[1:]).flatten(1) * weight[:, None]
        counts.index_add_(0, (base[:, None] + beyond.flatten()).flatten(), each.flatten())

    @torch.no_grad()
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Set every table to the smoothed frequencies; a configuration without a count is uniform."""
        smoothed = statistics["counts"] + self._pseudocounts()
        for start, shape, table in zip(self._net.offsets, self._net.shapes, self._tables(), strict=True):
            own = smoothed[start : start + math.prod(shape)].view(shape)
            total = own.sum(-1, keepdim=True)
            table.copy_(torch.where(total > 0, own / total, 1 / shape[-1]).log())

    def parameter_log_prior(self) -> Tensor:
        """Σ α log p over the cells of all tables, with α = s / (q_i r_i): Dirichlet distributions with 1 + α."""
        return self._pseudocounts() @ self.log_table if self.equivalent_size else self.log_table.new_zeros(())

    # --- scores ---------------------------------------------------------------------------------------------------

    def _codes(self, x: Tensor) -> Tensor:
        """Level numbers from 0, −1 for a missing entry: ``(B, *event.shape)`` → int64 ``(B, D)``."""
        flat = x.flatten(1)
        if not flat.is_floating_point():
            return flat.long() - self.low if self.shifted else flat.long()
        gaps = flat.isnan()
        return (flat.masked_fill(gaps, 0.0).long() - self.low).masked_fill(gaps, -1)

    def _places(self, codes: Tensor, nodes: Sequence[int]) -> Tensor:
        """The cell of each family in ``log_table``, for complete rows: ``(B, D)`` → ``(n, B)``."""
        net = self._net
        if len(self.sizes) > _DENSE:
            return self._places_by_gathering(codes, nodes)
        # Integers below 2^53 are exact in float64.
        weight, offset = net.weight[:, nodes].T, net.offset[nodes, None]
        return torch.addmm(offset.double(), weight, codes.T.double()).long()

    def _places_by_gathering(self, codes: Tensor, nodes: Sequence[int]) -> Tensor:
        """`_places` parent by parent: for many columns, and the reference."""
        net, across = self._net, codes.T.contiguous()
        found = across[list(nodes)] + net.offset[nodes, None]
        for parent, stride in zip(net.parent[:, nodes], net.stride[:, nodes], strict=True):
            found += across[parent] * stride[:, None]
        return found

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        codes = self._codes(batch.x)
        if not self.event.missing:
            return self.log_table[self._places(codes, range(self.event.dims))].sum(0)
        found = self.log_table.new_zeros(len(codes))
        for rows, seen in self._groups(codes):
            found[rows] = self._log_marginal(codes[rows], seen)
        return found

    def _groups(self, codes: Tensor) -> Iterator[tuple[Tensor, set[int]]]:
        """Rows that are one computation, and the columns that all of them have, which are sliced out of the tables.

        Rows with the same entries observed are a group. Where they are few, and the tables that are not sliced are
        small, rows of different patterns are one group: other observed entries are factors that are 1 at their level.
        """
        found = list(_patterns(codes))
        if len(found) > 1:
            common = set.intersection(*(seen for _, seen in found))
            hidden = [[v for v in family if v not in common] for family in self._net.families]
            cells = sums.min_fill(hidden, self.sizes, ()).cells
            few = [group for group in found if len(group[0]) * cells < _FEW]
            if len(few) > 1:
                yield torch.cat([rows for rows, _ in few]), set.intersection(*(seen for _, seen in few))
                found = [group for group in found if len(group[0]) * cells >= _FEW]
        yield from found

    def _log_marginal(self, codes: Tensor, seen: Collection[int]) -> Tensor:
        """log p of the observed entries of a group of rows, ``(B, D)`` → ``(B,)``: all others are summed out."""
        nodes = sums.ancestors(self._net.parents, _observed(codes))
        plan = self._plan(nodes, seen, ())
        found = []
        for part in self._parts(codes, plan):
            factors, log_scale = self._factors(codes[part], nodes, seen)
            if factors:
                left, log_rest, _ = sums.eliminate(factors, plan.order)
                log_scale = log_scale + log_rest + sums.table_over(left, ())[1]
            found.append(log_scale)
        return torch.cat(found) if found else self.log_table.new_zeros(0)

    def _posteriors(self, codes: Tensor, seen: Collection[int], of: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
        """Rows of a group, and p(x_of | observed entries), ``(B, *sizes of these)``; NaN where p(observed) is 0."""
        net = self._net
        observed = _observed(codes)
        if observed == set(seen):
            found = self._looked_up(codes, frozenset(observed), tuple(of))
            if found is not None:
                yield slice(0, len(codes)), found
                return
        nodes = sums.ancestors(net.parents, {*observed, *of})
        scopes = [[v for v in net.families[i] if v not in seen] for i in nodes]
        joined = sums.connected(scopes, of)
        nodes = {i for i, scope in zip(nodes, scopes, strict=True) if joined.issuperset(scope) and scope}
        plan = self._plan(nodes, seen, of)
        for part in self._parts(codes, plan):
            factors, _ = self._factors(codes[part], nodes, seen)
            left, _, _ = sums.eliminate(factors, plan.order)
            table, _ = sums.table_over(left, of)
            table = table.expand(len(codes[part]), *table.shape[1:])
            yield part, table / table.flatten(1).sum(1).view(-1, *(1,) * len(of))

    def _looked_up(self, codes: Tensor, seen: frozenset[int], of: tuple[int, ...]) -> Tensor | None:
        """`_posteriors` of complete rows from a table of the evidence and the target; None if that is too large."""
        table = self.log_table
        if table.is_inference():
            return None
        key = id(self), id(table), table._version  # any change of the parameters is a new version
        if key != self._joint_key or self._net is not self._joint_net:
            self._joint_key, self._joint_net, self._joints = key, self._net, {}
        if (seen, of) not in self._joints:
            if len(self._joints) >= _KEPT_TABLES:
                self._joints.clear()
            self._joints[seen, of] = self._joint(seen, of)
        kept = self._joints[seen, of]
        if kept is None:
            return None
        evidence, joint = kept
        index = codes.new_zeros(len(codes))
        for v in evidence:
            index = index * self.sizes[v] + codes[:, v]
        found = joint[index]
        total = found.flatten(1).sum(1)
        # Where the table has nothing, either the evidence is impossible, or its probability underflows.
        return found / total.view(-1, *(1,) * len(of)) if bool((total > _TINY).all()) else None

    def _joint(self, seen: frozenset[int], of: tuple[int, ...]) -> tuple[list[int], Tensor] | None:
        """The evidence that matters, and p(evidence, target) up to a factor, ``(cells of the evidence, *sizes)``."""
        net = self._net
        nodes = sums.ancestors(net.parents, {*seen, *of})
        scopes = [[v for v in net.families[i] if v not in seen] for i in nodes]
        joined = sums.connected(scopes, of)
        nodes = {i for i, scope in zip(nodes, scopes, strict=True) if joined.issuperset(scope) and scope}
        evidence = sorted(seen & {v for i in nodes for v in net.families[i]})
        if math.prod(self.sizes[v] for v in (*evidence, *of)) > _MOST_KEPT:
            return None
        families = [net.families[i] for i in sorted(nodes)]
        plan = sums.min_fill(families, self.sizes, (*evidence, *of))
        if plan.cells > _MOST_PRODUCT:
            return None
        tables = self._tables()
        factors = [Factor(tuple(net.families[i]), tables[i].exp()[None]) for i in sorted(nodes)]
        left, _, _ = sums.eliminate(factors, plan.order)
        joint, _ = sums.table_over(left, (*evidence, *of))
        return evidence, joint.reshape(-1, *(self.sizes[v] for v in of))

    def _plan(self, nodes: Collection[int], seen: Collection[int], keep: Collection[int]) -> Plan:
        families, plans = self._net.families, self._net.plans
        key = frozenset(nodes), frozenset(seen), tuple(keep)
        plan = plans.get(key)
        if plan is None:
            scopes = ([v for v in families[i] if v not in seen] for i in sorted(nodes))
            if len(plans) >= _KEPT_PLANS:
                plans.clear()
            plan = plans[key] = sums.min_fill(scopes, self.sizes, keep)
        sums.check_width(plan, "inference in this BayesNet")
        return plan

    def _parts(self, codes: Tensor, plan: Plan, products: int = 1) -> Iterator[slice]:
        """Rows whose products of factors fit into memory, of which so many are kept."""
        rows = max(1, _AT_ONCE // (plan.cells * max(products, 1)))
        return (slice(start, start + rows) for start in range(0, len(codes), rows))

    def _factors(self, codes: Tensor, nodes: Collection[int], seen: Collection[int]) -> tuple[list[Factor], Tensor]:
        """The tables of some columns at the observed entries, and the log p of wholly observed ones, ``(B,)``.

        Entries that some rows of a group have and others lack are observed by a factor of their own.
        """
        tables, net = self._tables(), self._net
        observed = [i for i in sorted(nodes) if all(v in seen for v in net.families[i])]
        log_scale = self.log_table.new_zeros(len(codes))
        if observed:
            log_scale = self.log_table[self._places(codes, observed)].sum(0)
        rest = sorted(set(nodes) - set(observed))
        factors = [sums.sliced(tables[i].exp(), net.families[i], codes, seen) for i in rest]
        for v in sorted(_observed(codes) & {v for factor in factors for v in factor.variables}):
            levels = torch.arange(self.sizes[v], device=codes.device)
            agrees = (codes[:, v, None] == levels) | (codes[:, v, None] < 0)
            factors.append(Factor((v,), agrees.to(self.log_table.dtype)))
        return factors, log_scale

    @property
    def positions(self) -> Tensor:
        return torch.tensor(self._net.order, device=self.device).argsort()

    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """log p(x_d | the observed entries before it in the topological order), 0 for a missing entry: ``(B, D)``."""
        self.event.check(x)
        codes = self._codes(x)
        if not self.event.missing:
            return self.log_table[self._places(codes, range(self.event.dims))].T
        found = self.log_table.new_zeros(codes.shape)
        for rows, seen in self._groups(codes):
            before: set[int] = set()
            own = codes[rows]
            shown = torch.full_like(own, -1)
            possible = torch.ones(len(rows), dtype=torch.bool, device=codes.device)
            for node in self._net.order:
                level, there = own[:, node], own[:, node] >= 0
                if bool(there.any()):
                    each = self._log_given(shown, before, node).gather(1, level.clamp(min=0)[:, None]).squeeze(1)
                    # After what is impossible, 0: the sum is −∞ already.
                    found[rows, node] = torch.where(possible & there, each, 0.0)
                    possible &= ~there | (each > -math.inf)
                shown[:, node] = level
                if node in seen:
                    before.add(node)
        return found

    def _log_given(self, codes: Tensor, before: Collection[int], node: int) -> Tensor:
        """log p of the levels of a column given earlier entries, ``(B, r)``; uniform if these have p = 0.

        Args:
            codes: rows of a group without the later entries (−1), ``(B, D)``.
            before: earlier columns that all rows have.
            node: the column.
        """
        *parents, _ = self._net.families[node]
        if all(p in before for p in parents):  # these separate the column from all others before it
            return sums.sliced(self._tables()[node], self._net.families[node], codes, parents).values.expand(
                len(codes), -1
            )
        found = self.log_table.new_zeros(len(codes), self.sizes[node])
        for part, posterior in self._posteriors(codes, before, [node]):
            found[part] = posterior.nan_to_num(nan=1 / self.sizes[node]).log()
        return found

    # --- draws ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Exact draws, parents first."""
        codes = self.low.new_zeros(n, self.event.dims)
        noise = random.uniform((n, self.event.dims), generator, like=self.log_table)
        self._draw_forwards(codes, noise, self._net.order)
        return self._raw(codes)

    def _draw_forwards(self, codes: Tensor, noise: Tensor, nodes: Sequence[int]) -> None:
        """Draw columns in topological order into ``codes``, given their parents."""
        tables, net = self._tables(), self._net
        for i in nodes:
            *parents, _ = net.families[i]
            mass = sums.sliced(tables[i].exp(), net.families[i], codes, parents).values
            codes[:, i] = _drawn(mass, noise[:, i])

    def _raw(self, codes: Tensor) -> Tensor:
        return (codes + self.low).to(self.event.dtype).view(len(codes), *self.event.shape)

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws of the unknown entries given the known ones.

        Known entries keep their values. A known entry that is missing (NaN) stays so, and is summed out.

        Raises:
            InputError: the known entries of an example have probability 0, which only ``equivalent_size=0`` allows.
        """
        codes = self._known_codes(x, known)
        noise = random.uniform(codes.shape, generator, like=self.log_table)
        for rows, seen in self._groups(codes):
            own = codes[rows]
            self._draw_given(own, noise[rows], seen, rows)
            codes[rows] = own
        return self.kept(x, known, self._raw(codes))

    def _known_codes(self, x: Tensor, known: Tensor) -> Tensor:
        """`_codes` of known entries, −1 for others."""
        self.check_known(x, known)
        return self._codes(torch.where(known, x, self.event.lowest(x))).masked_fill(~known.flatten(1), -1)

    @torch.no_grad()
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """log p(x_d | known entries) of every level, by one variable elimination for each pattern and entry.

        Raises:
            InputError: as `complete`.
        """
        codes, gaps = self._known_codes(x, known), ~known.flatten(1)
        for rows, seen in self._groups(codes):
            for entry in gaps[rows].any(0).nonzero().flatten().tolist():
                own = rows[gaps[rows, entry]]
                for part, posterior in self._posteriors(codes[own], seen, [entry]):
                    impossible = posterior.isnan().any(1).nonzero()
                    if len(impossible):
                        raise self._nothing_follows(int(own[part][impossible[0]]))
                    yield entry, own[part], posterior.log()

    @staticmethod
    def _nothing_follows(example: int) -> InputError:
        return InputError(
            f"the known entries of example {example} have probability 0 under this BayesNet, so that nothing follows "
            "from them; train it with equivalent_size above 0"
        )

    def _draw_given(self, codes: Tensor, noise: Tensor, seen: Collection[int], rows: Tensor) -> None:
        """Draw the missing entries of a group of rows: back through the elimination, then barren ones forwards."""
        nodes = sums.ancestors(self._net.parents, _observed(codes))
        plan = self._plan(nodes, seen, ())
        for part in self._parts(codes, plan):
            own = codes[part]
            factors, log_scale = self._factors(own, nodes, seen)
            drawn = set(seen)
            if factors:
                left, log_rest, products = sums.eliminate(factors, plan.order)
                log_scale = log_scale + log_rest + sums.table_over(left, ())[1]
                impossible = log_scale.isneginf().nonzero()
                if not len(impossible):
                    for v, whole in zip(reversed(plan.order), reversed(products), strict=True):
                        mass = sums.sliced_batch(whole, own, v)
                        own[:, v] = _drawn(mass, noise[part, v])
                        drawn.add(v)
            impossible = log_scale.isneginf().nonzero()
            if len(impossible):
                raise self._nothing_follows(int(rows[part][impossible[0]]))
            self._draw_forwards(own, noise[part], [i for i in self._net.order if i not in drawn])
            codes[part] = own

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """Parents first: the table of a column, or, after missing parents, the sum over these."""
        shown = torch.full((n, self.event.dims), -1, device=self.device)
        groups = list(self._groups(shown.masked_fill(~gaps, 0) if gaps is not None else torch.zeros_like(shown)))
        before: set[int] = set()
        for entry in in_steps(self._net.order):
            size = self.sizes[entry]
            found = self.log_table.new_full((n, size), -math.log(size))
            for rows, seen in groups:
                if gaps is None or not bool(gaps[rows, entry].all()):
                    found[rows] = self._log_given(shown[rows], before & seen, entry)
            value = choose(entry, found)
            shown[:, entry] = value.nan_to_num(-1.0).long()
            before.add(entry)


@dataclass(frozen=True)
class _Layout:
    """What follows from a structure.

    Attributes:
        parents: of each column, ascending.
        families: the parents of each column, and the column itself last.
        order: of all columns, parents first.
        shapes: of the tables.
        offsets: where they start.
        offset: the same as a tensor, ``(D,)``.
        parent, stride: the k-th parent of each column, and its stride in the table; stride 0 where there is none:
            ``(most parents, D)``.
        weight: the same as a matrix: column i has the strides of the members of family i, float64 ``(D, D)``.
        plans: of eliminations, by nodes, observed columns and columns to keep.
    """

    parents: list[list[int]]
    families: list[list[int]]
    order: list[int]
    shapes: list[tuple[int, ...]]
    offsets: list[int]
    offset: Tensor
    parent: Tensor
    stride: Tensor
    weight: Tensor
    plans: dict[tuple[frozenset[int], frozenset[int], tuple[int, ...]], Plan]

    @classmethod
    def of(cls, edge: Tensor, sizes: Sequence[int]) -> _Layout:
        parents: list[list[int]] = [[] for _ in sizes]
        for j, i in edge.nonzero().tolist():
            parents[i].append(j)
        families = [[*own, i] for i, own in enumerate(parents)]
        shapes = [tuple(sizes[v] for v in family) for family in families]
        offsets = [0]
        for shape in shapes[:-1]:
            offsets.append(offsets[-1] + math.prod(shape))
        most = max(map(len, parents))
        parent = torch.zeros(most, len(sizes), dtype=torch.int64)
        stride = torch.zeros(most, len(sizes), dtype=torch.int64)
        for i, own in enumerate(parents):
            for k, j in enumerate(own):
                parent[k, i], stride[k, i] = j, math.prod(shapes[i][k + 1 :])
        small = len(sizes) if len(sizes) <= _DENSE else 0  # the matrix of many columns is not used
        weight = torch.zeros(small, small, dtype=torch.float64)
        for i, (own, shape) in enumerate(zip(families[:small], shapes, strict=False)):
            for k, j in enumerate(own):
                weight[j, i] = math.prod(shape[k + 1 :])
        device = edge.device
        offset = torch.tensor(offsets, device=device)
        return cls(
            parents,
            families,
            topological_order(parents),
            shapes,
            offsets,
            offset,
            parent.to(device),
            stride.to(device),
            weight.to(device),
            {},
        )

    def strides(self, node: int) -> list[int]:
        """Of each member of a family in the table."""
        return [math.prod(self.shapes[node][k + 1 :]) for k in range(len(self.shapes[node]))]


def _patterns(codes: Tensor) -> Iterator[tuple[Tensor, set[int]]]:
    """Rows with the same entries missing (−1), and the observed columns."""
    if len(codes):
        for rows, seen in patterns(torch.where(codes < 0, math.nan, 0.0)):
            yield rows, set(seen.tolist())


def _observed(codes: Tensor) -> set[int]:
    """The columns that a row of ``(B, D)`` has."""
    return set((codes >= 0).any(0).nonzero().flatten().tolist())


def _drawn(mass: Tensor, noise: Tensor) -> Tensor:
    """Levels by inverting the distribution function: ``(B, r)`` or ``(1, r)``, noise ``(B,)`` → ``(B,)``."""
    cumulative = mass.cumsum(1)
    return (cumulative <= noise[:, None] * cumulative[:, -1:]).sum(1).clamp(max=mass.shape[1] - 1)


def _edges(parents: Sequence[Collection[int]]) -> Tensor:
    """[j, i]: whether j is a parent of i."""
    edge = torch.zeros(len(parents), len(parents), dtype=torch.bool)
    for i, own in enumerate(parents):
        edge[list(own), i] = True
    return edge


def _parsed(structure: str, dims: int) -> list[list[int]]:
    """The parents of each column from edges as text: ``0:1,0:2``.

    Raises:
        InputError: it is not a list of edges between columns, or has a cycle.
    """
    parents: list[list[int]] = [[] for _ in range(dims)]
    for word in structure.replace(",", " ").split() or [structure]:
        ends = word.split(":")
        if len(ends) != 2 or not all(end.isdecimal() and len(end) < 10 for end in ends):
            raise InputError(
                f"BayesNet: structure={structure[:80]!r} should be hill-climbing, chow-liu, or edges as parent:child "
                f"with columns numbered from 0, such as 0:1,0:2{nearest(structure, _LEARNED)}"
            )
        j, i = map(int, ends)
        if max(i, j) >= dims:
            raise InputError(f"BayesNet: the edge {word} is outside the {dims} columns, which are numbered from 0")
        if j not in parents[i]:
            parents[i].append(j)
    cycle = find_cycle(parents)
    if cycle is not None:
        raise InputError(
            f"BayesNet: the structure has a cycle, {' → '.join(map(str, cycle))}; remove or reverse one of these edges"
        )
    return [sorted(own) for own in parents]
