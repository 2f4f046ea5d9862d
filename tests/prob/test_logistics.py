"""Mixtures of logistics against arbitrary precision, sums over the levels, and gradients at extremes."""

from __future__ import annotations

import mpmath
import pytest
import torch
from torch import Tensor

from unsup.prob import distributions as dist
from unsup.prob.logistics import logistic_mixture_log_masses, logistic_mixture_log_prob


def parts(n: int, components: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and log-scales from −7 to 7, ``(n, components)`` each, float64."""
    noise = torch.randn(3, n, components, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 3 * noise[0], spread * noise[1], (3 * noise[2]).clamp(-7, 7)


def precise(x: int, logits: Tensor, mean: Tensor, log_scale: Tensor, levels: int) -> float:
    """The definition for one mixture with 60 digits; what is above the mean is counted from above."""
    with mpmath.workdps(60):
        weights = [mpmath.exp(mpmath.mpf(v)) for v in logits.tolist()]
        total = mpmath.mpf(0)
        for w, m, s in zip(weights, mean.tolist(), log_scale.tolist(), strict=True):
            ends = [(mpmath.mpf(-1) + mpmath.mpf(2 * e) / levels - m) / mpmath.exp(mpmath.mpf(s)) for e in (x, x + 1)]
            low, high = (-mpmath.inf if x == 0 else ends[0]), (mpmath.inf if x == levels - 1 else ends[1])
            if low > 0:
                low, high = -high, -low
            total += w / sum(weights) * (1 / (1 + mpmath.exp(-high)) - 1 / (1 + mpmath.exp(-low)))
        return float(mpmath.log(total))


@pytest.mark.parametrize(("levels", "spread"), [(2, 1.0), (5, 0.5), (7, 30.0), (256, 1.0), (256, 100.0)])
def test_masses_are_the_definition_in_full_relative_precision(levels: int, spread: float) -> None:
    logits, mean, log_scale = parts(6, 3, spread=spread)
    found = logistic_mixture_log_masses(logits, mean, log_scale, levels)
    for row in range(6):
        for x in sorted({0, 1, levels // 2, levels - 2, levels - 1}):
            expected = precise(x, logits[row], mean[row], log_scale[row], levels)
            assert float(found[row, x]) == pytest.approx(expected, rel=1e-13, abs=1e-12), (row, x)
            one = logistic_mixture_log_prob(torch.tensor(x), logits[row], mean[row], log_scale[row], levels)
            assert float(one) == pytest.approx(expected, rel=1e-13, abs=1e-12)


@pytest.mark.parametrize("levels", [2, 3, 5, 256, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_masses_sum_to_one(levels: int, dtype: torch.dtype) -> None:
    every = [t.to(dtype) for t in parts(200, 4, seed=levels, spread=3.0)]
    every[2][:50] = -7.0
    every[2][50:100] = 7.0
    every[1][:25] *= 1e-4  # narrow ones around an edge
    masses = logistic_mixture_log_masses(*every, levels)
    one_by_one = logistic_mixture_log_prob(torch.arange(levels), *(t[:, None] for t in every), levels)
    tolerance = 1e-11 if dtype is torch.float64 else 1e-5
    for found in (masses, one_by_one):
        assert float((found.double().exp().sum(-1) - 1).abs().max()) < tolerance
    torch.testing.assert_close(masses, one_by_one, rtol=1e-12 if dtype is torch.float64 else 1e-4, atol=1e-12)


def test_one_component_is_the_discretised_logistic() -> None:
    logits, mean, log_scale = parts(30, 1)
    x = torch.arange(30) % 9
    found = logistic_mixture_log_prob(x, logits, mean, log_scale, 9)
    assert torch.equal(found, dist.discretized_logistic_log_prob(x, mean[:, 0], log_scale[:, 0], 9))


def test_a_mixture_of_equal_components_is_one_of_them() -> None:
    logits, mean, log_scale = parts(30, 1)
    logits = torch.randn(30, 5, generator=torch.Generator().manual_seed(1)).double()
    found = logistic_mixture_log_masses(logits, mean.expand(-1, 5), log_scale.expand(-1, 5), 11)
    torch.testing.assert_close(
        found, logistic_mixture_log_masses(logits[:, :1], mean, log_scale, 11), atol=1e-12, rtol=0
    )


def test_a_wide_logistic_is_uniform_between_its_edges() -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    masses = logistic_mixture_log_masses(zero, zero, zero + 7, 8).exp()
    middle = 2 / 8 / 4 * torch.tensor(-7.0).double().exp()  # the density at the mean is 1 / (4 s)
    torch.testing.assert_close(masses[1:-1], middle.expand(6), rtol=1e-6, atol=0)
    torch.testing.assert_close(masses[[0, -1]], (0.5 - 3 * middle).expand(2), rtol=1e-6, atol=0)


@pytest.mark.parametrize("log_scale", [-7.0, 7.0])
@pytest.mark.parametrize("mean", [-50.0, -1.0, 0.0, 1.0, 50.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_finite(log_scale: float, mean: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([100.0, -100.0, 0.0], dtype=dtype, requires_grad=True)
    means = torch.tensor([mean, 0.0, -mean], dtype=dtype, requires_grad=True)
    scales = torch.full((3,), log_scale, dtype=dtype, requires_grad=True)
    for log_p in (
        logistic_mixture_log_prob(torch.arange(256), logits, means, scales, 256),
        logistic_mixture_log_masses(logits, means, scales, 256),
    ):
        assert bool(log_p.isfinite().all())
        for gradient in torch.autograd.grad(log_p.sum(), (logits, means, scales)):
            assert bool(gradient.isfinite().all())
        assert bool((gradient != 0).any())  # of the log-scales
