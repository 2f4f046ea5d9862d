"""Bayesian networks: the enumerated joint, d-separation, structures, gaps, draws, other libraries, refusals."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import Tensor

import unsup
from unsup import Batch, Event, InputError, Support
from unsup.core.event import BINARY, REAL
from unsup.data import Data, Split
from unsup.families.classical.bayes_net import BayesNet
from unsup.prob.structure import FamilyScores, hill_climb, spanning_tree, tree_weights

SIZES = (2, 3, 2, 2, 3, 2, 2)
EDGES = "0:2,1:2,2:3,2:4,4:5,1:5"  # and 6 alone
EVENT = Event((7,), tuple(BINARY if k == 2 else Support("nominal", k) for k in SIZES))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_net(event: Event = EVENT, structure: str = EDGES, seed: int = 0, sharp: float = 2.0) -> BayesNet:
    """Random tables, far from uniform."""
    model = BayesNet(event, structure=structure)
    for table in model._tables():
        noise = torch.randn(table.shape, generator=seeded(seed + table.numel()), dtype=torch.float64)
        table.copy_((sharp * noise).log_softmax(-1))
    return model


def everything(sizes: Sequence[int]) -> Tensor:
    return torch.tensor(list(itertools.product(*map(range, sizes))))


def joint_by_loop(model: BayesNet, sizes: Sequence[int]) -> np.ndarray:
    """Π_i p(x_i | parents), cell by cell, read from the tables: an array with one axis per column."""
    parents: list[list[int]] = [[] for _ in sizes]
    for j, i in model.edges():
        parents[int(i)].append(int(j))
    tables = [table.exp().numpy() for table in model._tables()]
    joint = np.empty(sizes)
    for cell in itertools.product(*map(range, sizes)):
        p = 1.0
        for i, own in enumerate(parents):
            p *= tables[i][(*(cell[j] for j in own), cell[i])]
        joint[cell] = p
    return joint


def gapped(event: Event) -> Event:
    return Event(event.shape, event.support, missing=True)


def with_gaps(model: BayesNet) -> BayesNet:
    """The same network for data with missing entries."""
    other = BayesNet(gapped(model.event), **model.config)
    other.load_state_dict(model.state_dict())
    return other


def test_the_joint_sums_to_one_and_is_the_product_of_the_tables() -> None:
    model = random_net()
    joint = joint_by_loop(model, SIZES)
    assert abs(joint.sum() - 1) < 1e-12
    found = model.log_prob(everything(SIZES)).exp().numpy().reshape(SIZES)
    np.testing.assert_allclose(found, joint, rtol=1e-12)


def test_every_marginal_is_a_sum_over_the_joint() -> None:
    model = random_net()
    joint, scorer = joint_by_loop(model, SIZES), with_gaps(model)
    for size in range(len(SIZES) + 1):
        for seen in itertools.combinations(range(len(SIZES)), size):
            hidden = tuple(d for d in range(len(SIZES)) if d not in seen)
            expected = joint.sum(hidden)
            cells = everything([SIZES[d] for d in seen]) if seen else torch.zeros(1, 0)
            x = torch.full((len(cells), len(SIZES)), math.nan)
            x[:, list(seen)] = cells.float()
            found = scorer.log_prob(x).exp().numpy().reshape(expected.shape)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_every_conditional_is_a_ratio_of_the_joint() -> None:
    model = random_net()
    joint = joint_by_loop(model, SIZES)
    for target in range(len(SIZES)):
        others = [d for d in range(len(SIZES)) if d != target]
        for size in range(4):
            for seen in itertools.combinations(others, size):
                hidden = tuple(d for d in others if d not in seen)
                table = np.moveaxis(
                    joint.sum(hidden, keepdims=True), (*seen, target), (*range(size), len(SIZES) - 1)
                ).reshape(-1, SIZES[target])
                expected = table / table.sum(1, keepdims=True)
                cells = everything([SIZES[d] for d in seen]) if seen else torch.zeros(1, 0, dtype=torch.int64)
                codes = torch.full((len(cells), len(SIZES)), -1)
                codes[:, list(seen)] = cells
                parts = [p for _, p in model._posteriors(codes, seen, [target])]
                np.testing.assert_allclose(torch.cat(parts).numpy(), expected, rtol=1e-12, atol=1e-12)


def test_pairs_given_others_are_ratios_of_the_joint() -> None:
    model = random_net()
    joint = joint_by_loop(model, SIZES)
    codes = torch.tensor([[-1, -1, -1, 1, -1, 0, -1]])
    ((_, found),) = model._posteriors(codes, {3, 5}, [4, 0])
    expected = joint[:, :, :, 1, :, 0].sum((1, 2, 4)).T  # axes: 4, 0
    np.testing.assert_allclose(found[0].numpy(), expected / expected.sum(), rtol=1e-12)


def test_d_separated_columns_have_no_conditional_mutual_information() -> None:
    model = random_net()
    joint = joint_by_loop(model, SIZES)
    graph = nx.DiGraph(model.edges())
    graph.add_nodes_from(range(len(SIZES)))
    separated = dependent = 0
    for a, b in itertools.combinations(range(len(SIZES)), 2):
        others = [d for d in range(len(SIZES)) if d not in (a, b)]
        for given in itertools.chain.from_iterable(itertools.combinations(others, k) for k in range(4)):
            hidden = tuple(d for d in others if d not in given)
            p = np.moveaxis(joint.sum(hidden, keepdims=True), (a, b), (0, 1)).reshape(SIZES[a], SIZES[b], -1)
            ratio = p * p.sum((0, 1)) / (p.sum(1, keepdims=True) * p.sum(0, keepdims=True))
            information = float((p * np.log(ratio)).sum())
            if nx.is_d_separator(graph, {a}, {b}, set(given)):
                assert abs(information) < 1e-13
                separated += 1
            else:
                assert information > 1e-9
                dependent += 1
    assert separated > 50
    assert dependent > 50


def test_entries_have_the_conditionals_of_the_topological_order() -> None:
    model = random_net()
    x = everything(SIZES)
    np.testing.assert_allclose(model.log_conditionals(x).sum(1).numpy(), model.log_prob(x).numpy(), rtol=1e-12)
    order = model.positions.argsort().tolist()
    assert all(order.index(j) < order.index(i) for j, i in model.edges())
    gaps = x.float().masked_fill(torch.rand(x.shape, generator=seeded(1)) < 0.4, math.nan)
    scorer, total = with_gaps(model), torch.zeros(len(x), dtype=torch.float64)
    each = scorer.log_conditionals(gaps)
    shown = torch.full_like(gaps, math.nan)
    for d in order:
        before = scorer.log_prob(shown)
        shown[:, d] = gaps[:, d]
        torch.testing.assert_close(each[:, d], scorer.log_prob(shown) - before, rtol=0, atol=1e-12)
        total += each[:, d]
    torch.testing.assert_close(total, scorer.log_prob(gaps), rtol=0, atol=1e-12)


def test_completions_follow_the_conditional_distribution() -> None:
    model = random_net(sharp=1.0)
    joint, n = joint_by_loop(model, SIZES), 40_000
    start = torch.tensor([[0, 0, 0, 1, 0, 1, 0]]).expand(n, -1)
    known = torch.tensor([[False, False, False, True, False, True, False]]).expand(n, -1)
    drawn = model.complete(start, known, generator=seeded())
    assert bool((drawn[:, 3] == 1).all())
    assert bool((drawn[:, 5] == 1).all())
    expected = joint[:, :, :, 1, :, 1].reshape(-1)
    expected = expected / expected.sum()
    shape = [SIZES[d] for d in (0, 1, 2, 4, 6)]
    index = np.ravel_multi_index(tuple(drawn[:, [0, 1, 2, 4, 6]].T.long().numpy()), shape)
    found = np.bincount(index, minlength=len(expected)) / n
    assert float((np.abs(found - expected) / np.sqrt(expected / n + 1e-9)).max()) < 5


def test_samples_follow_the_joint() -> None:
    model, n = random_net(sharp=1.0), 40_000
    expected = joint_by_loop(model, SIZES).reshape(-1)
    index = np.ravel_multi_index(tuple(model.sample(n, generator=seeded()).T.long().numpy()), SIZES)
    found = np.bincount(index, minlength=len(expected)) / n
    assert float((np.abs(found - expected) / np.sqrt(expected / n + 1e-9)).max()) < 5


def test_the_tables_are_smoothed_frequencies_by_a_loop() -> None:
    x = random_net().sample(300, generator=seeded())
    for size in (0.0, 1.0, 7.0):
        model = BayesNet(EVENT, structure=EDGES, equivalent_size=size)
        model.maximize(model.statistics(Batch(x)))
        for i, table in enumerate(model._tables()):
            parents = [int(j) for j, child in model.edges() if child == i]
            for cell in itertools.product(*(range(k) for k in table.shape)):
                same = (x[:, parents] == torch.tensor(cell[:-1])).all(1)
                own, total = float((same & (x[:, i] == cell[-1])).sum()), float(same.sum())
                configurations = table.numel() // SIZES[i]
                if total + size == 0:
                    expected = 1 / SIZES[i]  # never seen
                else:
                    expected = (own + size / table.numel()) / (total + size / configurations)
                assert abs(float(table[cell].exp()) - expected) < 1e-12


# --- structures -------------------------------------------------------------------------------------------------------


def trees(n: int) -> list[list[tuple[int, int]]]:
    """All n^(n−2) labelled trees, by their Prüfer sequences."""
    return [list(nx.from_prufer_sequence(list(s)).edges) for s in itertools.product(range(n), repeat=n - 2)]


def test_no_other_tree_of_five_columns_is_as_likely_as_chow_liu() -> None:
    event = Event((5,), (BINARY, Support("nominal", 3), BINARY, Support("ordinal", 4), BINARY))
    x = random_net(event, "0:1,0:2,1:3,2:3,3:4", sharp=1.0).sample(500, generator=seeded())
    learned = BayesNet(event, structure="chow-liu", equivalent_size=0.0)
    learned.prepare(Batch(x), generator=seeded())
    learned.maximize(learned.statistics(Batch(x)))
    best, others = float(learned.log_prob(x).sum()), []
    every = trees(5)
    assert len(every) == 125
    for tree in every:
        structure = ",".join(f"{j}:{i}" for j, i in nx.bfs_edges(nx.Graph(tree), 0))
        model = BayesNet(event, structure=structure, equivalent_size=0.0)
        model.maximize(model.statistics(Batch(x)))
        others.append(float(model.log_prob(x).sum()))
    assert best == pytest.approx(max(others), abs=1e-8)
    assert sum(other > best - 1e-8 for other in others) == 1


def skeleton(edges: Sequence[tuple[Any, Any]]) -> set[frozenset[int]]:
    return {frozenset(edge) for edge in edges}


def immoralities(edges: Sequence[tuple[Any, Any]]) -> set[tuple[int, frozenset[int]]]:
    """Pairs of parents that are not joined, with their child: with the skeleton, all that data can tell."""
    joined, parents = skeleton(edges), dict[int, list[int]]()
    for j, i in edges:
        parents.setdefault(i, []).append(j)
    return {
        (i, frozenset(pair))
        for i, own in parents.items()
        for pair in itertools.combinations(own, 2)
        if frozenset(pair) not in joined
    }


@pytest.mark.parametrize("score", ["bic", "bdeu"])
def test_hill_climbing_finds_the_network_that_made_the_data(score: str) -> None:
    truth = random_net(seed=3)
    x = truth.sample(15_000, generator=seeded())
    model = BayesNet(EVENT, score=score)
    model.prepare(Batch(x), generator=seeded())
    assert skeleton(model.edges()) == skeleton(truth.edges())
    assert immoralities(model.edges()) == immoralities(truth.edges())


def bic_by_loop(x: Tensor, parents: Sequence[Sequence[int]], sizes: Sequence[int]) -> float:
    total, rows = 0.0, x.tolist()
    for i, own in enumerate(parents):
        pairs: dict[tuple[int, ...], dict[int, int]] = {}
        for row in rows:
            counts = pairs.setdefault(tuple(row[j] for j in own), {})
            counts[row[i]] = counts.get(row[i], 0) + 1
        for counts in pairs.values():
            n = sum(counts.values())
            total += sum(c * math.log(c / n) for c in counts.values())
        total -= 0.5 * math.log(len(rows)) * math.prod(sizes[j] for j in own) * (sizes[i] - 1)
    return total


def bdeu_by_loop(x: Tensor, parents: Sequence[Sequence[int]], sizes: Sequence[int], s: float) -> float:
    total = 0.0
    for i, own in enumerate(parents):
        q = math.prod(sizes[j] for j in own)
        for configuration in itertools.product(*(range(sizes[j]) for j in own)):
            same = (x[:, list(own)] == torch.tensor(configuration)).all(1)
            total += math.lgamma(s / q) - math.lgamma(s / q + int(same.sum()))
            for k in range(sizes[i]):
                n = int((same & (x[:, i] == k)).sum())
                total += math.lgamma(s / (q * sizes[i]) + n) - math.lgamma(s / (q * sizes[i]))
    return total


@pytest.mark.parametrize("score", ["bic", "bdeu"])
def test_no_single_move_improves_a_learned_network(score: Any) -> None:
    """Every neighbour without a cycle, scored by a loop over rows."""
    x = random_net(sharp=1.0).sample(400, generator=seeded())
    model = BayesNet(EVENT, score=score, max_parents=2, equivalent_size=3.0)
    model.prepare(Batch(x), generator=seeded())

    def value(edges: set[tuple[int, int]]) -> float:
        parents = [[j for j, child in sorted(edges) if child == i] for i in range(len(SIZES))]
        return bic_by_loop(x, parents, SIZES) if score == "bic" else bdeu_by_loop(x, parents, SIZES, 3.0)

    own = {(int(j), int(i)) for j, i in model.edges()}
    reached = value(own)
    assert reached > value(set()) + 1
    for j, i in itertools.permutations(range(len(SIZES)), 2):
        moves = [own - {(j, i)}, own - {(j, i)} | {(i, j)}] if (j, i) in own else [own | {(j, i)}]
        for edges in moves:
            graph = nx.DiGraph(edges)
            if nx.is_directed_acyclic_graph(graph) and all(graph.in_degree(v) <= 2 for v in graph):
                assert value(edges) <= reached + 1e-6


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("score", ["bic", "bdeu"])
def test_the_learned_network_of_incomplete_rows_is_that_of_the_complete_ones(score: Any, share: float) -> None:
    truth = random_net(seed=3)
    x = truth.sample(15_000, generator=seeded()).float()
    x[torch.rand(x.shape, generator=seeded(1)) < share] = math.nan
    model = BayesNet(gapped(EVENT), score=score)
    model.prepare(Batch(x), generator=seeded())
    assert skeleton(model.edges()) == skeleton(truth.edges())
    assert immoralities(model.edges()) == immoralities(truth.edges())


def table_of(n: int, columns: int, seed: int) -> Tensor:
    """Independent columns of three levels."""
    p = torch.tensor([0.6, 0.3, 0.1])
    return torch.multinomial(p, n * columns, True, generator=seeded(seed)).view(n, columns)


def scores_of(codes: Tensor, sizes: Sequence[int], score: Any = "bic") -> FamilyScores:
    return FamilyScores(codes, sizes, score=score, equivalent_size=1.0, most_cells=2**14)


def moves_of(scores: FamilyScores, max_parents: int = 3) -> list[float]:
    """The gains of the moves of hill climbing, and no end is found if there are very many."""
    gains: list[float] = []

    def on_step(gain: float) -> None:
        gains.append(gain)
        assert len(gains) <= 2 * len(scores.sizes) ** 2

    hill_climb(scores, max_parents, on_step=on_step)
    return gains


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("n", [500, 5000, 20_000])
@pytest.mark.parametrize("score", ["bic", "bdeu"])
def test_independent_columns_have_no_edges_with_and_without_gaps(score: str, n: int, share: float) -> None:
    for seed in range(4):
        x = table_of(n, 8, seed)
        x[torch.rand(x.shape, generator=seeded(seed + 100)) < share] = -1
        assert not moves_of(scores_of(x, [3] * 8, score))


@pytest.mark.parametrize("score", ["bic", "bdeu"])
def test_the_gain_of_a_parent_is_that_of_the_rows_that_have_all_of_it(score: Any) -> None:
    """By a loop over these rows; the penalty of BIC is that of all rows. A deletion loses what the addition gained."""
    x = random_net().sample(300, generator=seeded()).long()
    codes = x.masked_fill(torch.rand(x.shape, generator=seeded(1)) < 0.3, -1)
    scores, penalty = scores_of(codes, SIZES, score), 0.5 * math.log(len(codes))

    def fit(rows: Tensor, node: int, own: Sequence[int]) -> float:
        parents: list[Sequence[int]] = [own if i == node else () for i in range(len(SIZES))]
        if score == "bdeu":
            return bdeu_by_loop(rows, parents, SIZES, 1.0)
        free = sum((k - 1) * math.prod(SIZES[j] for j in parents[i]) for i, k in enumerate(SIZES))
        return bic_by_loop(rows, parents, SIZES) + (0.5 * math.log(len(rows)) - penalty) * free

    for node, own in ((2, ()), (2, (0,)), (4, (3, 0))):
        gains = scores.gains(node, own)
        for j in set(range(len(SIZES))) - {node, *own}:
            rows = codes[(codes[:, [node, *own, j]] >= 0).all(1)]
            expected = fit(rows, node, (*own, j)) - fit(rows, node, own)
            assert float(gains[j]) == pytest.approx(expected, abs=1e-8)
            deleted = scores.of(node, own, (*own, j)) - scores.of(node, (*own, j))
            assert deleted == pytest.approx(-expected, abs=1e-8)


def test_hill_climbing_ends_where_gains_of_different_rows_go_in_a_circle() -> None:
    for seed in range(30):
        truth = random_net(seed=seed)
        x = truth.sample(200, generator=seeded(seed)).long()
        codes = x.masked_fill(torch.rand(x.shape, generator=seeded(seed + 1)) < 0.6, -1)
        for score in ("bic", "bdeu"):
            moves_of(scores_of(codes, SIZES, score))


def test_the_tree_of_columns_that_are_seldom_together_follows_the_pairs_that_are() -> None:
    """Two halves of a questionnaire, each a chain, with five rows that have both: of those the information is large."""
    generator = seeded()
    first = torch.randint(3, (4000, 1), generator=generator)
    x = [first]
    for _ in range(7):
        noise = torch.randint(3, (4000, 1), generator=generator)
        x.append(torch.where(torch.rand((4000, 1), generator=generator) < 0.5, x[-1], noise))
    codes = torch.cat(x, 1)
    codes[:2000, 4:], codes[2005:, :4] = -1, -1
    parents = spanning_tree(tree_weights(codes, [3] * 8))
    found = skeleton([(j, i) for i, own in enumerate(parents) for j in own])
    assert skeleton([(k, k + 1) for k in range(7) if k != 3]) <= found


def test_coins_of_a_table_in_which_most_rows_repeat_are_independent() -> None:
    """Splits by distinct rows would leave out cells of the joint table, which looks like dependence."""
    data = unsup.from_arrays(np.random.default_rng(0).integers(0, 2, (5000, 8)))
    model = BayesNet(data.event)
    model.prepare(Batch(data.train.x), generator=seeded())
    assert model.edges() == []


# --- gaps -------------------------------------------------------------------------------------------------------------


def test_expected_counts_are_sums_over_the_enumerated_posterior() -> None:
    model = random_net()
    scorer, joint = with_gaps(model), joint_by_loop(model, SIZES)
    x = model.sample(12, generator=seeded()).float()
    x[torch.rand(x.shape, generator=seeded(1)) < 0.4] = math.nan
    weight = torch.arange(12) % 3
    found = scorer.statistics(Batch(x, weight=weight))
    cells, p = everything(SIZES), torch.from_numpy(joint.reshape(-1))
    expected = torch.zeros_like(scorer.log_table)
    for row, own in zip(x, weight, strict=True):
        fits = ((cells == row) | row.isnan()).all(1)
        posterior = float(own) * p[fits] / p[fits].sum()
        expected += model._counted(cells[fits], range(len(SIZES)), posterior)
    torch.testing.assert_close(found["counts"], expected, rtol=0, atol=1e-12)
    assert float(found["count"]) == float(weight.sum())


@pytest.mark.parametrize("size", [0.0, 2.0])
def test_no_pass_of_em_lowers_the_posterior_of_the_tables(size: float) -> None:
    """The likelihood of the observed entries from the enumerated joint, with the log of the prior."""
    x = random_net().sample(60, generator=seeded()).float()
    x[torch.rand(x.shape, generator=seeded(1)) < 0.4] = math.nan
    model, cells, reached = BayesNet(gapped(EVENT), structure=EDGES, equivalent_size=size), everything(SIZES), []
    noise = torch.rand(model.log_table.shape, generator=seeded(2), dtype=torch.float64)
    for table in model._tables():
        table.copy_(noise[: table.numel()].view(table.shape).log().log_softmax(-1))
    fits = ((cells[None] == x[:, None]) | x.isnan()[:, None]).all(2).double()
    for _ in range(25):
        p = torch.from_numpy(joint_by_loop(model, SIZES).reshape(-1))
        sums = model.statistics(Batch(x))
        log_prob = float((fits @ p).log().sum())
        assert float(sums["log_prob"]) == pytest.approx(log_prob, abs=1e-9)
        reached.append(log_prob + float(model.parameter_log_prior()))
        model.maximize(sums)
    assert min(b - a for a, b in itertools.pairwise(reached)) > -1e-9
    assert reached[-1] > reached[0] + 1


def test_em_recovers_the_tables_from_rows_with_gaps() -> None:
    truth = random_net(sharp=1.0)
    x = truth.sample(8000, generator=seeded()).float()
    x[torch.rand(x.shape, generator=seeded(1)) < 0.15] = math.nan
    model = BayesNet(gapped(EVENT), structure=EDGES)
    for _ in range(15):
        model.maximize(model.statistics(Batch(x)))
    cells = everything(SIZES)
    p = truth.log_prob(cells).exp()
    kl = float((p * (truth.log_prob(cells) - model.log_prob(cells))).sum())
    assert 0 <= kl < 0.01


# --- large networks ---------------------------------------------------------------------------------------------------


def test_a_hundred_columns_are_summed_out_one_by_one() -> None:
    """A chain: the probability of its ends is a product of matrices. Arrays have at most 32 or 64 axes."""
    n = 100
    event = Event((n,), BINARY)
    model = random_net(event, ",".join(f"{d}:{d + 1}" for d in range(n - 1)), sharp=1.0)
    tables = [table.exp() for table in model._tables()]
    total = torch.diag(tables[0])
    for table in tables[1:]:
        total = total @ table
    x = torch.full((4, n), math.nan)
    x[:, 0], x[:, -1] = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    torch.testing.assert_close(with_gaps(model).log_prob(x).exp(), total.flatten(), rtol=1e-12, atol=0)
    drawn = with_gaps(model).complete(x, ~x.isnan(), generator=seeded())
    assert not bool(drawn.isnan().any())


def test_marginals_and_expected_counts_of_a_hundred_columns() -> None:
    """p(x_50 | both ends) of a chain, by products of matrices; every family is counted once in each row."""
    n = 100
    model = random_net(Event((n,), BINARY), ",".join(f"{d}:{d + 1}" for d in range(n - 1)), sharp=1.0)
    tables = [table.exp() for table in model._tables()]
    left, right = torch.diag(tables[0]), torch.eye(2, dtype=torch.float64)
    for table in tables[1:51]:
        left = left @ table
    for table in tables[51:]:
        right = right @ table
    expected = left[1] * right[:, 0]
    x = torch.zeros(1, n)
    x[0, 0] = 1.0
    known = torch.zeros(1, n, dtype=torch.bool)
    known[0, [0, -1]] = True
    found = {entry: log_p for entry, _, log_p in model.marginals(x, known)}
    assert len(found) == n - 2
    torch.testing.assert_close(found[50][0].exp(), expected / expected.sum(), rtol=1e-10, atol=0)
    gapped_rows = x.where(known, math.nan).repeat(3, 1)
    sums = with_gaps(model).statistics(Batch(gapped_rows))
    assert float(sums["counts"].sum()) == pytest.approx(3 * n, rel=1e-10)


def test_a_naive_network_with_forty_children_has_no_wide_table() -> None:
    model = random_net(Event((41,), BINARY), ",".join(f"0:{d}" for d in range(1, 41)))
    x = torch.full((2, 41), math.nan)
    x[:, 1:31] = 1.0
    x[1, 0] = 1.0
    both = with_gaps(model).log_prob(torch.cat([x, x[1:].clone()]))
    x[1, 0] = 0.0
    torch.testing.assert_close(torch.logaddexp(both[1], with_gaps(model).log_prob(x)[1]), both[0], rtol=0, atol=1e-12)


def test_a_sum_that_is_too_large_is_refused_with_its_size() -> None:
    n = 30  # every pair has a common child, so that all 30 depend on each other given the children
    pairs = list(itertools.combinations(range(n), 2))
    structure = ",".join(f"{a}:{n + k},{b}:{n + k}" for k, (a, b) in enumerate(pairs))
    model = BayesNet(Event((n + len(pairs),), BINARY, missing=True), structure=structure)
    x = torch.zeros(1, n + len(pairs))
    x[:, :n] = math.nan
    with pytest.raises(InputError, match=r"1,073,741,824 cells"):
        model.log_prob(x)


# --- refusals, unseen configurations, storage -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ("0:1,1:2,2:0", "0 → 1 → 2 → 0"),
        ("1:1", "1 → 1"),
        ("0:9", "outside the 7 columns"),
        ("hill-climb", "hill-climbing"),
        ("0-1", "parent:child"),
        ("", "parent:child"),
        ("0:1:2", "parent:child"),
        ("²:1", "parent:child"),
    ],
)
def test_wrong_structures_are_refused(structure: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BayesNet(EVENT, structure=structure)


def test_real_columns_and_many_levels_are_refused_with_what_to_do() -> None:
    with pytest.raises(InputError, match="cut the real ones into intervals"):
        BayesNet(Event((2,), (REAL, BINARY)))
    with pytest.raises(InputError, match="merge rare levels"):
        BayesNet(Event((2,), (Support("ordinal", 1000), BINARY)))
    with pytest.raises(InputError, match="tables of this structure have"):
        BayesNet(Event((5,), Support("ordinal", 200)), structure="0:4,1:4,2:4,3:4")


def test_unseen_configurations_are_uniform_and_impossible_rows_refused() -> None:
    x = torch.tensor([[0, 0], [0, 0], [0, 1]])
    model = BayesNet(Event((2,), BINARY), structure="0:1", equivalent_size=0.0)
    model.maximize(model.statistics(Batch(x)))
    torch.testing.assert_close(model._tables()[1][1].exp(), torch.tensor([0.5, 0.5]).double())
    assert float(model.log_prob(torch.tensor([[1, 0]]))[0]) == -math.inf
    with pytest.raises(InputError, match="probability 0"):
        model.complete(torch.tensor([[1, 0]]), torch.tensor([[True, False]]))
    scorer = with_gaps(model)
    assert float(scorer.log_prob(torch.tensor([[1.0, math.nan]]))[0]) == -math.inf
    each = scorer.log_conditionals(torch.tensor([[1.0, 0.0]]))
    assert each.tolist() == [[-math.inf, 0.0]]


def test_edges_are_named() -> None:
    model = BayesNet(Event((3,), BINARY), structure="2:0 2:1")
    assert model.edges() == [(2, 0), (2, 1)]
    assert model.edges(["wet", "slippery", "rain"]) == [("rain", "wet"), ("rain", "slippery")]
    with pytest.raises(InputError, match="2 names"):
        model.edges(["a", "b"])


def test_a_run_learns_keeps_and_loads_its_structure(tmp_path: Path) -> None:
    truth = random_net(seed=3)
    x = truth.sample(6000, generator=seeded())
    data = Data("rows", EVENT, Split(x[:5000]), Split(x[5000:5500]), Split(x[5500:]))
    model = BayesNet(EVENT)
    run = unsup.fit(model, data, out=tmp_path / "run", progress="off")
    assert run is not None
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["config"]["structure"] == "hill-climbing"
    again = unsup.load(tmp_path / "run")
    assert isinstance(again, BayesNet)
    assert again.edges() == model.edges()
    torch.testing.assert_close(again.log_prob(x), model.log_prob(x), rtol=0, atol=0)
    gap = float(truth.log_prob(x[5500:]).mean() - again.log_prob(x[5500:]).mean())
    assert gap < 0.02


def test_pgmpy_agrees() -> None:
    pytest.importorskip("pgmpy")
    import pandas as pd
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.inference import VariableElimination
    from pgmpy.models import DiscreteBayesianNetwork

    model = random_net()
    peer = DiscreteBayesianNetwork([(f"c{j}", f"c{i}") for j, i in model.edges()])
    peer.add_nodes_from([f"c{i}" for i in range(len(SIZES))])
    for i, table in enumerate(model._tables()):
        parents = [int(j) for j, child in model.edges() if child == i]
        values = table.exp().reshape(-1, SIZES[i]).T.numpy()
        names = [f"c{j}" for j in parents]
        peer.add_cpds(TabularCPD(f"c{i}", SIZES[i], values, names, [SIZES[j] for j in parents]))
    inference = VariableElimination(peer)
    codes = torch.tensor([[-1, -1, -1, 1, -1, 0, -1]])
    for target in (0, 1, 2, 4, 6):
        ((_, found),) = model._posteriors(codes, {3, 5}, [target])
        theirs = inference.query([f"c{target}"], {"c3": 1, "c5": 0}, show_progress=False).values
        np.testing.assert_allclose(found[0].numpy(), theirs, rtol=1e-10)
    assert pd.__version__


def test_posteriors_from_a_kept_table_are_those_of_an_elimination(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_net()
    for seed in range(3):  # the tables change: what was kept for the old ones is not used
        model.log_table.copy_(random_net(seed=seed).log_table)
        for seen, of in (({3, 5}, [2]), ({0, 6}, [4, 1]), (set(), [5]), ({1, 2, 4}, [0])):
            codes = everything(SIZES).clone()
            codes[:, [v for v in range(7) if v not in seen]] = -1
            codes = codes.unique(dim=0)
            ((_, kept),) = model._posteriors(codes, seen, of)
            with monkeypatch.context() as without:
                without.setattr("unsup.families.classical.bayes_net._MOST_KEPT", 0)
                other = BayesNet(EVENT, structure=EDGES)
                other.load_state_dict(model.state_dict())
                ((_, eliminated),) = other._posteriors(codes, seen, of)
                assert not any(other._joints.values())
            torch.testing.assert_close(kept, eliminated.expand_as(kept), atol=1e-14, rtol=1e-12)
            assert model._joints[frozenset(seen), tuple(of)] is not None


def test_rows_whose_evidence_underflows_in_the_kept_table_are_eliminated_on_their_own() -> None:
    model = BayesNet(Event((3,), BINARY), structure="0:1,0:2")
    tables = model._tables()
    tables[0].copy_(torch.tensor([0.5, 0.5]).log())
    tables[1].copy_(torch.tensor([[0.0, -330.0], [0.0, -330.5]]))
    tables[2].copy_(torch.tensor([[0.0, -330.0], [0.0, -332.0]]))
    ((_, found),) = model._posteriors(torch.tensor([[-1, 1, 1]]), {1, 2}, [0])
    torch.testing.assert_close(found[0, 0], torch.tensor(2.5, dtype=torch.float64).sigmoid(), atol=1e-12, rtol=0)


def test_cells_by_a_product_are_those_by_gathering() -> None:
    model = random_net()
    codes = everything(SIZES)
    for nodes in (range(7), [5], [4, 2]):
        assert torch.equal(model._places(codes, nodes), model._places_by_gathering(codes, nodes))
