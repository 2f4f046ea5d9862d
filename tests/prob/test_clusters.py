"""Seeds of clusters against the definition, by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy import stats

from unsup.prob.clusters import kmeans_plus_plus


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_seeds_follow_the_definition_of_kmeans_plus_plus() -> None:
    y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [2.0, 2.0]], dtype=torch.float64)
    trials, generator = 6000, seeded()
    triples = list(itertools.permutations(range(4), 3))
    seen = dict.fromkeys(triples, 0)
    for _ in range(trials):
        seeds, nearest = kmeans_plus_plus(y, 3, generator=generator)
        seen[tuple(seeds.tolist())] += 1
    points = y.numpy()
    chances = []
    for triple in triples:
        chance = 1 / 4
        for k in (1, 2):
            d2 = np.array([min(((p - points[s]) ** 2).sum() for s in triple[:k]) for p in points])
            chance *= d2[triple[k]] / d2.sum()
        chances.append(chance)
    assert abs(sum(chances) - 1) < 1e-12
    assert stats.chisquare([seen[t] for t in triples], trials * np.array(chances)).pvalue > 1e-3
    distances = ((y[:, None] - y[seeds][None]) ** 2).sum(2)
    assert torch.equal(distances.gather(1, nearest[:, None])[:, 0], distances.amin(1))


def test_seeds_of_coinciding_rows_are_different_rows_that_own_themselves() -> None:
    seeds, nearest = kmeans_plus_plus(torch.ones(6, 2, dtype=torch.float64), 5, generator=seeded())
    assert len(set(seeds.tolist())) == 5
    assert nearest[seeds].tolist() == [0, 1, 2, 3, 4]
