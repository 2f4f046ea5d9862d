"""Rounded Gaussians and missing entries: scipy's truncated normal, quadrature, and the joint density."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from unsup.prob.gaussians import (
    cell_moments,
    conditional_moments,
    gaussian_cell_log_prob,
    gaussian_interval_log_prob,
    marginal_log_prob,
    mixture_mode,
)

NONE, ALL = torch.tensor(False), torch.tensor(True)


def cell(*numbers: float) -> list[torch.Tensor]:
    return [torch.tensor(n, dtype=torch.float64) for n in numbers]


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.2, 0.21), (3.0, 3.5), (-8.0, -7.0), (30.0, 31.0), (-0.1, 9.0)]
)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.4, 0.3), (-2.0, 5.0)])
def test_moments_of_a_cell_are_those_of_the_truncated_normal(low: float, high: float, mean: float, std: float) -> None:
    one, two = cell_moments(*cell(low, high, mean, np.log(std)), NONE, NONE)
    expected = stats.truncnorm((low - mean) / std, (high - mean) / std)
    assert float(one) == pytest.approx(expected.mean(), rel=1e-6, abs=1e-8)
    assert float(two) == pytest.approx(expected.var() + expected.mean() ** 2, rel=1e-6, abs=1e-8)


def test_ends_take_the_tails() -> None:
    one, two = cell_moments(*cell(-1, 0.5, 0, 0), ALL, NONE)
    expected = stats.truncnorm(-np.inf, 0.5)
    assert (float(one), float(two)) == pytest.approx((expected.mean(), expected.var() + expected.mean() ** 2))
    assert float(gaussian_cell_log_prob(*cell(-1, 0.5, 0, 0), ALL, NONE)) == pytest.approx(stats.norm.logcdf(0.5))
    assert float(gaussian_cell_log_prob(*cell(0.5, 1, 0, 0), NONE, ALL)) == pytest.approx(stats.norm.logsf(0.5))


def test_log_masses_are_finite_and_right_far_out() -> None:
    ends = torch.linspace(-300, 300, 61, dtype=torch.float64)
    found = gaussian_cell_log_prob(ends[:-1], ends[1:], *cell(0, 0), NONE, NONE)
    assert bool(found.isfinite().all())
    near = [stats.norm.logcdf(-end) for end in ends[31:-1].tolist()]  # a cell's mass is that of its nearer end
    np.testing.assert_allclose(found[31:], near, rtol=1e-6)
    np.testing.assert_allclose(found.flip(0), found, rtol=1e-12)


def test_marginal_and_conditional_are_those_of_the_joint_density() -> None:
    g = np.random.default_rng(0)
    root = g.normal(size=(4, 4))
    covariance = root @ root.T
    y, seen = g.normal(size=(5, 4)), [0, 2]
    rest = [1, 3]
    own = torch.tensor(covariance)[None]
    found = marginal_log_prob(torch.tensor(y[:, seen])[None], own[:, seen][:, :, seen])[0]
    np.testing.assert_allclose(
        found, stats.multivariate_normal(np.zeros(2), covariance[np.ix_(seen, seen)]).logpdf(y[:, seen])
    )
    mean, left = conditional_moments(torch.tensor(y[:, seen])[None], own, torch.tensor(seen))
    np.testing.assert_allclose(mean[0][:, seen], y[:, seen])
    assert float(left[0][seen].abs().max()) == 0
    conditional = np.linalg.inv(np.linalg.inv(covariance)[np.ix_(rest, rest)])  # by the precision matrix
    np.testing.assert_allclose(left[0][rest][:, rest], conditional)
    joint = stats.multivariate_normal(np.zeros(4), covariance).logpdf(y)
    for n in range(5):
        given = stats.multivariate_normal(mean[0, n, rest].numpy(), conditional).logpdf(y[n, rest])
        assert float(found[n]) + given == pytest.approx(joint[n])


@pytest.mark.parametrize("std", [1e-3, 0.7, 40.0])
@pytest.mark.parametrize("width", [1e-12, 1e-6, 1e-3, 0.0312, 0.0313, 0.2, 3.0])
@pytest.mark.parametrize("place", [-37.0, -6.0, -0.4, 0.0, 0.02, 2.5, 20.0])
def test_masses_of_narrow_and_of_wide_intervals(place: float, width: float, std: float) -> None:
    mean = 1.7
    start = mean + std * place
    edges = torch.tensor([-np.inf, start, start + std * width, np.inf], dtype=torch.float64)[:, None]
    widths = edges.diff(dim=0)
    parameters = torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[np.log(std)]], dtype=torch.float64)
    low, middle, high = gaussian_interval_log_prob(edges, widths, *parameters)[:, 0].tolist()
    a = (start - mean) / std
    assert low == pytest.approx(stats.norm.logcdf(a), rel=1e-9, abs=1e-9)
    assert high == pytest.approx(stats.norm.logsf((float(edges[2]) - mean) / std), rel=1e-9, abs=1e-9)
    # The density relative to that at the start is e^(−a t − t² / 2), which is of moderate size.
    h = float(widths[1]) / std
    inside, _ = integrate.quad(lambda t: np.exp(-a * t * h - (t * h) ** 2 / 2), 0, 1, epsabs=0, epsrel=1e-10)
    assert middle == pytest.approx(stats.norm.logpdf(a) + np.log(h) + np.log(inside), abs=5e-4)
    if abs(place) < 7:
        assert middle == pytest.approx(stats.norm.logpdf(a) + np.log(h) + np.log(inside), abs=1e-6)


def test_intervals_without_a_width_or_far_away_are_no_nan() -> None:
    edges = torch.tensor([-np.inf, -1e300, -1e160, 0.0, 0.0, 1e200, np.inf], dtype=torch.float64)[:, None]
    one = torch.ones(1, 1, dtype=torch.float64)
    found = gaussian_interval_log_prob(edges, edges.diff(dim=0), 0 * one, -7 * one)
    assert not found.isnan().any()
    assert found[[2, 4], 0].exp().tolist() == [0.5, 0.5]


def test_the_mode_of_a_mixture_is_the_highest_point_of_a_fine_grid() -> None:
    g = torch.Generator().manual_seed(0)
    log_weights = torch.randn(40, 5, generator=g, dtype=torch.float64).log_softmax(1)
    means = 2 * torch.randn(40, 5, generator=g, dtype=torch.float64)
    log_std = 0.7 * torch.randn(40, 5, generator=g, dtype=torch.float64)

    def log_density(y: torch.Tensor) -> torch.Tensor:
        far = (y[..., None] - means[:, None]) * (-log_std[:, None]).exp()
        return (log_weights[:, None] - log_std[:, None] - 0.5 * far.square()).logsumexp(2)

    grid = torch.linspace(-12, 12, 24_001, dtype=torch.float64).expand(40, -1)
    found = mixture_mode(log_weights, means, log_std)
    best = log_density(grid).max(1).values
    assert bool((log_density(found[:, None])[:, 0] >= best - 1e-12).all())
    alone = mixture_mode(log_weights[:, :1], means[:, :1], log_std[:, :1])
    torch.testing.assert_close(alone, means[:, 0])
