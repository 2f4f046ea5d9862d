"""Clusters compared with classes: scikit-learn's measures, exact cases, and planted clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from unsup.core.errors import InputError
from unsup.evaluate.clusters import adjusted_rand, ari, clusters, contingency, mutual_information, nmi


def partition(n: int, k: int, seed: int) -> torch.Tensor:
    return torch.randint(k, (n,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (2, 2, 2), (40, 3, 5), (500, 10, 10), (500, 1, 4), (30, 30, 2)])
def test_both_are_those_of_scikit_learn(n, k, m):
    for seed in range(5):
        a, b = partition(n, k, seed), partition(n, m, seed + 100)
        mixed = torch.where(torch.arange(n) % 3 == 0, a, b)  # related to a
        for other in (b, mixed, 7 - a):
            table = contingency(a, other)
            assert float(adjusted_rand(table)) == pytest.approx(adjusted_rand_score(a, other), abs=1e-12)
            expected = normalized_mutual_info_score(a, other)
            if len(a.unique()) == len(other.unique()) == 1:
                expected = 1.0
            assert float(mutual_information(table)) == pytest.approx(expected, abs=1e-9)


def test_many_tables_at_once_are_each_alone():
    tables = np.stack([contingency(partition(80, 4, s), partition(80, 3, s + 9)) for s in range(6)])
    for value in (adjusted_rand, mutual_information):
        assert np.allclose(value(tables), [value(t) for t in tables])


def test_planted_clusters_are_found_and_noise_is_chance():
    g = torch.Generator().manual_seed(0)
    label = partition(600, 4, 1)
    centres = 20 * torch.randn(4, 5, generator=g)
    x = centres[label] + torch.randn(600, 5, generator=g)
    for judge in (nmi, ari):
        assert judge(x[:400], label[:400], x[400:], label[400:]).value == pytest.approx(1)
    noise = torch.randn(2000, 5, generator=g)
    label = partition(2000, 4, 2)
    found = ari(noise[:1000], label[:1000], noise[1000:], label[1000:])
    assert abs(found.value) < 0.02
    assert found.low < 0.01


def test_labels_are_only_counted():
    """Clusters are those of the codes alone: shuffled training labels change nothing."""
    g = torch.Generator().manual_seed(0)
    x, label = torch.randn(300, 3, generator=g), partition(300, 3, 1)
    shuffled = label[:200][torch.randperm(200, generator=g)]
    for judge in (nmi, ari):
        own = judge(x[:200], label[:200], x[200:], label[200:])
        assert judge(x[:200], shuffled, x[200:], label[200:]) == own
    again = clusters(x[:200], x[200:], 3, seed=0)
    assert torch.equal(again, clusters(5 * x[:200] + 3, 5 * x[200:] + 3, 3, seed=0))  # standardised


def test_codes_that_do_not_vary_are_one_cluster():
    label = partition(100, 3, 0)
    constant = torch.ones(100, 2)
    assert clusters(constant, constant, 3).unique().tolist() == [0]
    for judge in (nmi, ari):
        assert judge(constant, label, constant, label).value == 0


def test_the_interval_is_of_the_examples():
    g = torch.Generator().manual_seed(0)
    label = partition(4000, 3, 1)
    x = 2.0 * torch.nn.functional.one_hot(label).double() + torch.randn(4000, 3, generator=g, dtype=torch.float64)
    values = [ari(x[:1000], label[:1000], x[i : i + 200], label[i : i + 200]) for i in range(1000, 4000, 200)]
    spread = np.std([v.value for v in values], ddof=1)
    assert np.mean([v.error for v in values]) == pytest.approx(spread, rel=0.5)


def test_partitions_that_do_not_match_are_refused():
    with pytest.raises(InputError, match=r"shapes \(2,\) and \(3,\)"):
        contingency(torch.zeros(2), torch.zeros(3))
    with pytest.raises(InputError, match="labels of shape"):
        nmi(torch.ones(4, 2), torch.zeros(3).long(), torch.ones(4, 2), torch.zeros(4).long())
    assert math.isfinite(float(adjusted_rand(np.ones((1, 1)))))
