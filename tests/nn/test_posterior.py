"""Diagonal Gaussians against `torch.distributions` and sums over draws."""

from __future__ import annotations

import math

import torch
from torch.distributions import Normal, kl_divergence

from unsup.nn.posterior import DiagonalGaussian


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(seed: int = 0) -> tuple[DiagonalGaussian, Normal]:
    mean, log_variance = torch.randn(2, 6, 3, generator=seeded(seed), dtype=torch.float64)
    return DiagonalGaussian(mean, log_variance), Normal(mean, (0.5 * log_variance).exp())


def test_divergences_are_the_closed_forms_and_the_monte_carlo_mean() -> None:
    (q, by_torch), (other, other_by_torch) = gaussian(), gaussian(1)
    standard = Normal(torch.zeros(3).double(), 1)
    torch.testing.assert_close(q.kl(), kl_divergence(by_torch, standard).sum(-1))
    torch.testing.assert_close(q.kl(other), kl_divergence(by_torch, other_by_torch).sum(-1))
    torch.testing.assert_close(q.kl(q), torch.zeros(6).double())
    noise = torch.randn(20_000, 6, 3, generator=seeded(2), dtype=torch.float64)
    ratio = q.log_density(noise) - standard.log_prob(q.at(noise)).sum(-1)
    assert ((ratio.mean(0) - q.kl()).abs() < 4 * ratio.std(0) / math.sqrt(len(noise))).all()


def test_draws_and_densities_are_those_of_torch() -> None:
    q, by_torch = gaussian()
    z, log_q = q.draw(seeded(3))
    torch.testing.assert_close(z, q.mean + q.std * torch.randn(6, 3, generator=seeded(3), dtype=torch.float64))
    for found in (log_q, q.log_prob(z)):
        torch.testing.assert_close(found, by_torch.log_prob(z).sum(-1))


def test_a_held_gaussian_has_a_gradient_by_z_alone() -> None:
    q, _ = gaussian()
    mean, log_variance = q.mean.requires_grad_(), q.log_variance.requires_grad_()
    z = torch.ones(6, 3, dtype=torch.float64, requires_grad=True)
    q.held().log_prob(z).sum().backward()
    assert mean.grad is None
    assert log_variance.grad is None
    torch.testing.assert_close(z.grad, -(1 - mean.detach()) * (-log_variance.detach()).exp())


def test_outputs_of_half_precision_are_raised_and_log_variances_kept_within_bounds() -> None:
    q = DiagonalGaussian.of(torch.tensor([[1.0, 2.0, 300.0, -300.0]], dtype=torch.float16))
    assert q.mean.dtype == torch.float32
    assert q.mean.tolist() == [[1.0, 2.0]]
    assert q.log_variance.tolist() == [[20.0, -20.0]]
