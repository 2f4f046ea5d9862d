"""How codes are spread: collapses, spheres and Gaussians of known values, and loops over pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.spread import alignment, directions, effective_rank, spread, uniformity


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sphere(n: int, d: int) -> Tensor:
    return directions(normal(n, d))


def test_one_point_is_a_collapse():
    for x in (torch.full((9, 5), 0.3), torch.zeros(9, 5), torch.full((9, 5), -1e200, dtype=torch.float64)):
        found = uniformity(x)
        assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)
        assert effective_rank(x) == 1
        assert spread(x) == pytest.approx(0, abs=1e-12)


def test_a_uniform_sphere_of_many_dimensions():
    """E exp(−2 ‖u − v‖²) = e⁻⁴ E exp(4 cos), and cos is nearly N(0, 1/d): −4 + 8/d."""
    n, d = 2000, 400
    x = sphere(n, d)
    assert uniformity(x).value == pytest.approx(-4 + 8 / d, abs=0.005)
    assert spread(x) == pytest.approx(1 / math.sqrt(d), rel=0.01)
    # The rank of as many as ten examples for each dimension; it tends to d.
    assert effective_rank(sphere(4000, 40)) == pytest.approx(40, rel=0.01)


def test_uniformity_is_the_loop_over_pairs_of_different_examples():
    x = normal(23, 4).float()
    u = np.stack([v / np.linalg.norm(v) for v in x.double().numpy()])
    terms = [math.exp(-2 * ((u[i] - u[j]) ** 2).sum()) for i in range(23) for j in range(23) if i != j]
    expected = math.log(sum(terms) / len(terms))
    assert uniformity(x).value == pytest.approx(expected, abs=1e-12)
    for block in (1, 30, 100):
        assert uniformity(x, block=block).value == pytest.approx(expected, abs=1e-12)
    assert uniformity(x * torch.rand(23, 1) * 100).value == pytest.approx(expected, abs=1e-6)  # the length is not read
    with_itself = math.log((sum(terms) + 23) / 23**2)
    assert abs(with_itself - expected) > 0.01  # so pairs of an example with itself would be noticed


def test_the_interval_of_uniformity_covers_the_limit_as_often_as_stated():
    truth = uniformity(sphere(6000, 3)).value
    covered = 0
    for seed in range(200):
        found = uniformity(directions(normal(150, 3, seed=seed + 1)))
        covered += found.low < truth < found.high
    assert 0.9 < covered / 200 < 1


def test_effective_rank_is_the_entropy_of_the_spectrum():
    shares = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    basis = torch.linalg.qr(normal(50, 4)).Q
    basis = torch.linalg.qr(basis - basis.mean(0)).Q  # columns with mean 0
    x = basis * shares.sqrt()
    expected = math.exp(-sum(p * math.log(p) for p in shares.tolist()))
    turned = x @ torch.linalg.qr(normal(4, 4, seed=1)).Q
    for changed in (x, turned, 1e150 * turned + 1e150, torch.cat([x, torch.zeros(50, 90)], 1)):
        assert effective_rank(changed) == pytest.approx(expected, rel=1e-6)
    line = normal(50, 1) @ normal(1, 7, seed=1)
    assert effective_rank(line) == pytest.approx(1, abs=1e-9)


def test_alignment_is_the_mean_squared_distance_of_directions():
    a, b = normal(300, 6), normal(300, 6, seed=1)
    pairs = [(directions(u[None]) - directions(v[None])).square().sum().item() for u, v in zip(a, b, strict=True)]
    found = alignment(a, b)
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.error == pytest.approx(np.std(pairs, ddof=1) / math.sqrt(300))
    assert alignment(a, 3 * a).value == pytest.approx(0, abs=1e-12)
    assert found.value == pytest.approx(2, abs=4 * found.error)  # unrelated views
    with pytest.raises(InputError, match="two views of each example"):
        alignment(a, b[:200])


@pytest.mark.parametrize("measure", [uniformity, effective_rank, spread])
def test_what_has_no_spread_is_refused(measure):
    with pytest.raises(InputError, match="with 2 examples or more"):
        measure(torch.ones(1, 3))
    with pytest.raises(InputError, match="not finite"):
        measure(torch.tensor([[1.0], [math.nan]]))
