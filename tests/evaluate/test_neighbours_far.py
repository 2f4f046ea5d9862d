"""Distances where squared norms lose digits: every measure of neighbours equals a loop over differences in float64."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import pytest
import torch

from unsup.evaluate import distances
from unsup.evaluate.distances import nearest_neighbours, radii
from unsup.evaluate.neighbours import groups_left_out, neighbours
from unsup.evaluate.samples import frechet_distance, squared_mmd


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters(n: int, dims: int, width: float, apart: float, seed: int) -> torch.Tensor:
    """Clusters at three corners, interleaved."""
    corners = torch.zeros(3, dims, dtype=torch.float64)
    corners[1, 0], corners[2, -1] = apart, -apart
    return corners[torch.arange(n) % 3] + width * normal(n, dims, seed=seed)


def with_point(x: torch.Tensor, at: float) -> torch.Tensor:
    return torch.cat([x, torch.full((1, x.shape[1]), at, dtype=x.dtype)])


CASES = {
    "gaussian": (normal(90, 6), normal(120, 6, seed=1)),
    "clusters 1e-3 wide, 1e4 apart": (clusters(150, 4, 1e-3, 1e4, 0), clusters(120, 4, 1e-3, 1e4, 1)),
    "wider fakes": (clusters(150, 4, 3e-3, 1e4, 0), clusters(120, 4, 1e-3, 1e4, 1)),
    "a real at 1e8": (1e-3 * normal(90, 5), with_point(1e-3 * normal(110, 5, seed=1), 1e8)),
    "a fake at 1e8": (with_point(1e-3 * normal(90, 5), 1e8), 1e-3 * normal(110, 5, seed=1)),
    "both, and one feature": (with_point(normal(60, 1), 1e8), with_point(normal(70, 1, seed=1), -1e8)),
    "far from 0": (1e8 + 1e-3 * normal(80, 3), 1e8 + 1e-3 * normal(90, 3, seed=1)),
    "a lattice": (normal(100, 2).round(), normal(120, 2, seed=1).round()),
    "a lattice far away": (1e6 + normal(100, 3).round(), 1e6 + normal(120, 3, seed=1).round()),
    "repeated": (normal(12, 3).repeat(8, 1), torch.cat([normal(12, 3), normal(30, 3, seed=1)]).repeat(3, 1)),
    "all equal": (torch.full((20, 3), 0.1).double(), torch.full((30, 3), 0.1).double()),
    "one is repeated often": (normal(40, 3), torch.cat([normal(40, 3, seed=1), torch.zeros(40, 3).double()])),
    "the same sets": (clusters(60, 4, 1e-3, 1e4, 0), clusters(60, 4, 1e-3, 1e4, 0)),
    "scales that differ": (
        normal(80, 8) * 10.0 ** torch.arange(-4, 4),
        normal(90, 8, seed=1) * 10.0 ** torch.arange(-4, 4),
    ),
}


def all_squared(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x[:, None] - y[None]).square().sum(2)


@pytest.mark.parametrize("block", [200, 2**22])
@pytest.mark.parametrize("name", CASES)
def test_they_are_what_a_loop_over_differences_counts(name, block):
    fake, real = CASES[name]
    across = all_squared(fake, real)
    balls = [all_squared(x, x).fill_diagonal_(torch.inf).sort().values for x in (fake, real)]
    found = neighbours(fake, real, block=block)
    assert torch.equal(found.precision, (across <= balls[1][:, 2]).any(1).float())
    assert torch.equal(found.recall, (across <= balls[0][:, 2, None]).any(0).float())
    inside = across <= balls[1][:, 4]
    assert torch.allclose(found.density, inside.sum(1) / 5)
    assert torch.equal(found.coverage, inside.any(0).float())
    assert torch.equal(radii(real, (1, 3, 5), block), balls[1][:, [0, 2, 4]].T)
    index, distance = nearest_neighbours(fake, real, block=block)
    assert torch.equal(distance, across.min(1).values.sqrt())
    assert torch.equal(index, (across == across.min(1, keepdim=True).values).long().argmax(1))  # the first


@pytest.mark.parametrize("groups", [2, 10])
@pytest.mark.parametrize("name", CASES)
def test_groups_left_out_are_what_a_loop_without_them_counts(name, groups):
    fake, real = CASES[name]
    parts = [[part.tolist() for part in torch.arange(len(x)).tensor_split(groups)] for x in (fake, real)]
    whole, *found = groups_left_out(fake, real, groups)
    for g in range(groups):
        rest = ([i for i in range(len(x)) if i not in part[g]] for x, part in zip((fake, real), parts, strict=True))
        expected = neighbours(*(x[rows] for x, rows in zip((fake, real), rest, strict=True)))
        for key, terms in vars(expected).items():
            assert torch.equal(vars(found[g])[key], terms), (g, key)
    assert all(torch.equal(vars(whole)[key], terms) for key, terms in vars(neighbours(fake, real)).items())


@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_what_differences_give(name):
    x, y = CASES[name]
    for part in distances.bounds(x, y, 500):
        exact = all_squared(x[part.rows], y)
        assert bool((part.lower <= exact).all())
        assert bool((exact <= part.lower + part.row_slack + part.column_slack).all())


def test_few_pairs_of_clusters_far_apart_are_computed_one_by_one(monkeypatch):
    """Bounds about a common centre would rule out none within a cluster: 2.3 million pairs."""
    computed = []
    whole = distances.squared

    def counted(x, i, y, j):
        computed.append(len(i))
        return whole(x, i, y, j)

    monkeypatch.setattr(distances, "squared", counted)
    x, y = clusters(1500, 8, 1e-3, 1e4, 0), clusters(1500, 8, 1e-3, 1e4, 1)
    neighbours(x, y, block=2**18)
    assert sum(computed) < 400_000


def test_the_distance_of_gaussians_keeps_its_digits_for_far_clusters():
    """A shift by v adds ‖v‖², beside variances of 1e8."""
    x, shift = clusters(600, 4, 1e-3, 1e4, 0), torch.tensor([0.0, 3.0, 0.0, 0.0]).double()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-4)
    assert frechet_distance(x + shift, x) == pytest.approx(9, abs=1e-4)
    far = with_point(normal(300, 3), 1e8)
    assert frechet_distance(far + 1, far) == pytest.approx(3, abs=0.5)  # of variances of 3e13


def test_the_kernel_distance_keeps_the_digits_of_its_largest_term():
    """Against fractions: the kernel is a cube, so far points have terms of 1e47 beside which others are rounding."""
    for x, y in (
        (clusters(9, 2, 1e-3, 1e4, 0), clusters(8, 2, 3e-3, 1e4, 1)),
        (with_point(normal(6, 2), 1e8), normal(7, 2)),
    ):
        a, b = ([[Fraction(v) for v in row] for row in points.tolist()] for points in (x, y))

        def k(p, q):
            return (sum(u * v for u, v in zip(p, q, strict=True)) / 2 + 1) ** 3

        within = [sum(k(p, q) for p, q in permutations(v, 2)) / (len(v) * (len(v) - 1)) for v in (a, b)]
        exact = sum(within) - 2 * sum(k(p, q) for p in a for q in b) / (len(a) * len(b))
        largest = max(k(p, p) for p in a + b)
        assert abs(squared_mmd(x.numpy(), y.numpy()) - float(exact)) < 1e-14 * float(largest)
