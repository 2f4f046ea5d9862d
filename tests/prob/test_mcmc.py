"""Langevin chains against closed forms, scipy's densities and hand-written steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from unsup.prob.mcmc import langevin, langevin_acceptance, mala, temperature_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def standard(x: Tensor) -> Tensor:
    return 0.5 * x.flatten(1).square().sum(1)


MEANS, STDS, SHARES = (-1.5, 1.0), (0.5, 0.8), (0.3, 0.7)


def mixture(x: Tensor) -> Tensor:
    parts = [math.log(w / s) - 0.5 * ((x[:, 0] - m) / s) ** 2 for m, s, w in zip(MEANS, STDS, SHARES, strict=True)]
    return -torch.logsumexp(torch.stack(parts), 0)


def mixture_cdf(x: np.ndarray) -> np.ndarray:
    return sum(w * stats.norm.cdf(x, m, s) for m, s, w in zip(MEANS, STDS, SHARES, strict=True))


def histogram_p_value(x: Tensor, cdf) -> float:
    """Chi-square of 40 bins between −3 and 3 and two tails."""
    edges = np.concatenate([[-np.inf], np.linspace(-3, 3, 41), [np.inf]])
    counts = np.histogram(x.numpy(), edges)[0]
    expected = np.diff(cdf(edges)) * len(x)
    keep = expected > 5
    rest = counts[~keep].sum(), expected[~keep].sum()
    counts, expected = counts[keep], expected[keep]
    if rest[1] > 1:
        counts, expected = np.append(counts, rest[0]), np.append(expected, rest[1])
    return float(stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue)


def test_langevin_is_its_equation_step_by_step_with_clamp_and_bounds() -> None:
    precision = torch.tensor([[2.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    x = normals(6, 2, seed=1)
    path: list[tuple[int, Tensor]] = []
    found = langevin(
        lambda y: 0.5 * torch.einsum("bi,ij,bj->b", y, precision, y),
        x,
        steps=3,
        step=0.2,
        noise=0.4,
        clamp=0.9,
        low=torch.tensor([-1.0, -torch.inf], dtype=torch.float64),
        high=torch.tensor([0.7, torch.inf], dtype=torch.float64),
        generator=seeded(),
        on_step=lambda *at: path.append(at),
    )
    generator, expected = seeded(), x.numpy().copy()
    for i in range(3):
        noise = torch.randn(6, 2, generator=generator, dtype=torch.float64).numpy()
        expected = expected - 0.2 * np.clip(expected @ precision.numpy(), -0.9, 0.9) + 0.4 * noise
        expected[:, 0] = np.clip(expected[:, 0], -1, 0.7)
        assert path[i][0] == i + 1
        np.testing.assert_allclose(path[i][1], expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert float(found[:, 1].max()) > 0.7  # no bound there


@pytest.mark.parametrize(("step", "noise"), [(0.5, None), (0.2, None), (0.5, 0.3), (0.2, 1.5)])
def test_the_stationary_variance_of_unadjusted_chains_is_the_temperature_over_one_minus_half_a_step(
    step: float, noise: float | None
) -> None:
    temperature = 1.0 if noise is None else noise**2 / (2 * step)
    assert temperature_of(step, math.sqrt(2 * step) if noise is None else noise) == pytest.approx(temperature)
    x = langevin(standard, normals(20_000, 2), steps=round(12 / step), step=step, noise=noise, generator=seeded(1))
    expected = temperature / (1 - step / 2)
    error = expected * math.sqrt(2 / x.numel())
    assert abs(float(x.var()) - expected) < 4.5 * error
    assert abs(temperature - expected) > 9 * error  # the discretisation is seen


@pytest.mark.parametrize("step", [0.3, 1.2])
def test_adjusted_chains_sample_a_gaussian_exactly_whatever_the_step(step: float) -> None:
    x, accepted = mala(standard, 0.2 * normals(20_000, 1) + 1, steps=60, step=step, generator=seeded(1))
    assert histogram_p_value(x[:, 0], stats.norm.cdf) > 1e-4
    assert 0.4 < float(accepted.mean()) < 0.99


def test_adjusted_chains_give_a_mixture_its_shares_from_a_start_in_one_mode() -> None:
    x, _ = mala(mixture, torch.full((10_000, 1), -1.5, dtype=torch.float64), steps=300, step=0.4, generator=seeded())
    assert histogram_p_value(x[:, 0], mixture_cdf) > 1e-4
    unadjusted = langevin(mixture, x, steps=40, step=0.4, generator=seeded(1))
    assert histogram_p_value(unadjusted[:, 0], mixture_cdf) < 1e-10  # the adjustment is needed


@pytest.mark.parametrize(("noise", "clamp"), [(None, 0.0), (0.25, 0.0), (0.4, 0.8)])
def test_the_acceptance_is_the_metropolis_ratio_of_the_densities(noise: float | None, clamp: float) -> None:
    step, x = 0.3, 2 * normals(200, 1, seed=3)
    tau = math.sqrt(2 * step) if noise is None else noise
    found = langevin_acceptance(mixture, x, step=step, noise=noise, clamp=clamp, generator=seeded())

    def gradient(y: Tensor) -> Tensor:
        y = y.clone().requires_grad_()
        slope = torch.autograd.grad(mixture(y).sum(), y)[0]
        return slope.clamp(-clamp, clamp) if clamp else slope

    proposal = x - step * gradient(x) + tau * torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    forth = stats.norm.logpdf(proposal, x - step * gradient(x), tau)
    back = stats.norm.logpdf(x, proposal - step * gradient(proposal), tau)
    log_ratio = (mixture(x) - mixture(proposal)).numpy() * 2 * step / tau**2 + (back - forth)[:, 0]
    np.testing.assert_allclose(found, np.exp(np.minimum(log_ratio, 0)), rtol=1e-9)
    assert 0.01 < float((found < 1).double().mean()) < 0.99


def test_mala_counts_what_it_accepts_and_stays_where_it_rejects() -> None:
    start = normals(500, 2)
    x, accepted = mala(standard, start, steps=1, step=1.5, generator=seeded(2))
    stayed = (x == start).all(1)
    assert torch.equal(stayed, accepted == 0)
    expected = langevin_acceptance(standard, start, step=1.5, generator=seeded(2))
    assert abs(float(accepted.mean() - expected.mean())) < 4.5 * 0.5 / math.sqrt(500)
    wall = mala(
        lambda y: standard(y).where(y[:, 0] > 0, torch.inf), start.abs(), steps=30, step=0.5, generator=seeded()
    )
    assert bool((wall[0][:, 0] > 0).all())


@pytest.mark.parametrize("sampler", ["langevin", "mala", "acceptance"])
def test_a_chain_is_no_function_of_the_energys_parameters(sampler: str) -> None:
    weight = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def energy(y: Tensor) -> Tensor:
        return (weight * y.square()).sum(1)

    run = {
        "langevin": lambda: langevin(energy, start, steps=3, step=0.1, generator=seeded()),
        "mala": lambda: mala(energy, start, steps=3, step=0.1, generator=seeded())[0],
        "acceptance": lambda: langevin_acceptance(energy, start, step=0.1, generator=seeded()),
    }[sampler]
    start = (normals(4, 2) * weight).clone()  # a start that hangs on the parameter
    x = run()
    assert not x.requires_grad
    assert weight.grad is None
    with torch.no_grad():
        assert torch.equal(run(), x)
    with torch.inference_mode():
        assert torch.equal(run(), x)
