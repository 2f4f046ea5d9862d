"""Nearest training examples: every pair by brute force, copies that were planted, and what chance gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unsup.core.errors import InputError
from unsup.evaluate.distances import nearest_neighbours
from unsup.evaluate.neighbours import memorisation


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(x: torch.Tensor, train: torch.Tensor) -> tuple[list[int], list[float]]:
    index, distance = [], []
    for row in x.double().numpy():
        squared = ((train.double().numpy() - row) ** 2).sum(1)
        index.append(int(squared.argmin()))
        distance.append(math.sqrt(squared.min()))
    return index, distance


CASES = {
    "gaussian": (normal(40, 7), normal(300, 7, seed=1)),
    "one feature": (normal(40, 1), normal(300, 1, seed=1)),
    "far from 0": (1e6 + normal(40, 5), 1e6 + normal(300, 5, seed=1)),
    "scales that differ": (
        normal(40, 8) * 10.0 ** torch.arange(-4, 4),
        normal(300, 8, seed=1) * 10.0 ** torch.arange(-4, 4),
    ),
    "an outlier": (normal(40, 5), torch.cat([normal(300, 5, seed=1), torch.full((1, 5), 1e9, dtype=torch.float64)])),
    "a lattice": (normal(40, 3).round(), normal(300, 3, seed=1).round()),  # many equal distances
    "repeated rows": (normal(40, 4), normal(30, 4, seed=1).repeat(10, 1)),
    "one row alone": (normal(40, 4), torch.ones(300, 4)),
    "all equal": (torch.full((40, 4), 0.1), torch.full((300, 4), 0.1)),
    "float32": (normal(40, 6).float(), normal(300, 6, seed=1).float()),
    "pixels": tuple((60 * normal(n, 30, seed=n) + 128).clamp(0, 255).to(torch.uint8) for n in (40, 300)),
    "nearly equal": (normal(1, 9) + 1e-7 * normal(40, 9, seed=2), normal(1, 9) + 1e-7 * normal(300, 9, seed=1)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [40, 1000, 2**22])
def test_the_nearest_is_that_of_all_pairs(name, block):
    x, train = CASES[name]
    x = torch.cat([x, train[37:41].to(x.dtype)])  # exact copies are at 0 exactly
    index, distance = brute_force(x, train)
    found = nearest_neighbours(x, train, block=block)
    assert found[0].tolist() == index
    assert found[1].tolist() == pytest.approx(distance, rel=1e-13, abs=0)
    assert found[1][-4:].tolist() == [0] * 4


def test_the_order_of_training_examples_moves_the_index_alone():
    x, train = normal(30, 5), normal(200, 5, seed=1)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    index, distance = nearest_neighbours(x, train)
    moved, same = nearest_neighbours(x, train[order])
    assert torch.equal(order[moved], index)
    assert torch.equal(same, distance)


def test_a_model_that_generalises_is_at_one_half():
    """Fakes and held-out examples of one law: ½ within the interval in 95 of 100, and one in a hundred this near."""
    found = [
        memorisation(normal(80, 3, seed=3 * s), normal(120, 3, seed=3 * s + 1), normal(60, 3, seed=3 * s + 2))
        for s in range(300)
    ]
    assert np.mean([f.nearer.low <= 0.5 <= f.nearer.high for f in found]) == pytest.approx(0.95, abs=0.035)
    assert np.mean([f.nearer.value for f in found]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([f.copies for f in found]) == pytest.approx(0.01, abs=0.01)


def test_planted_copies_are_counted_and_named():
    train, held_out = normal(500, 20), normal(400, 20, seed=1)
    fake = normal(200, 20, seed=2)
    fake[:50] = train[100:150] + 1e-9
    found = memorisation(fake, held_out, train)
    assert found.nearest[:50].tolist() == list(range(100, 150))
    assert found.distance[:50].tolist() == pytest.approx([1e-9 * math.sqrt(20)] * 50, rel=1e-4)
    assert 0.25 <= found.copies <= 0.28
    assert found.nearer.value == pytest.approx(0.25 + 0.75 / 2, abs=0.04)
    assert found.n == 200


def test_samples_off_the_data_are_farther_and_none_are_copies():
    train = normal(300, 4)
    found = memorisation(9 * normal(100, 4, seed=2), normal(100, 4, seed=1), train)
    assert found.nearer.value < 0.1
    assert found.copies == 0


def test_copies_where_held_out_examples_repeat_the_data_too_are_no_sign():
    """Repeated data: a fake at distance 0 ties with held-out examples at 0."""
    train = normal(5, 3).repeat(20, 1)
    found = memorisation(train[:40], train[:30], train)
    assert found.nearer.value == 0.5
    assert found.copies == 0


def test_statistic_and_copies_are_what_a_loop_counts():
    fake, held_out, train = 0.7 * normal(23, 2), normal(31, 2, seed=1), normal(40, 2, seed=2)
    near, usual = brute_force(fake, train)[1], brute_force(held_out, train)[1]
    found = memorisation(fake, held_out, train)
    pairs = [(a < b) + (a == b) / 2 for a in near for b in usual]
    assert found.nearer.value == pytest.approx(sum(pairs) / len(pairs), rel=1e-12)
    limit = np.quantile(usual, 0.01)
    assert found.copies == pytest.approx(sum(a < limit for a in near) / 23)
    assert found.nearer.low < found.nearer.value < found.nearer.high


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="two or more"):
        memorisation(normal(1, 2), normal(5, 2), normal(5, 2))
    with pytest.raises(InputError, match=r"held_out of shape \(5, 3\)"):
        memorisation(normal(5, 2), normal(5, 3), normal(5, 2))
    with pytest.raises(InputError, match="not empty"):
        memorisation(normal(5, 2), normal(5, 2), normal(0, 2))
    with pytest.raises(InputError, match="1 of 5 examples of fake"):
        memorisation(normal(5, 2).index_fill(0, torch.tensor([3]), torch.inf), normal(5, 2), normal(5, 2))
