"""Log-probabilities against scipy and PyTorch's own, draws against the distribution they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as torch_dist

from unsup.prob import distributions as dist


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def test_bernoulli_and_categorical_agree_with_pytorch():
    logits = 5 * randn(40)
    x = (randn(40, seed=1) > 0).double()
    torch.testing.assert_close(
        dist.bernoulli_log_prob(x, logits), torch_dist.Bernoulli(logits=logits).log_prob(x), rtol=1e-12, atol=1e-12
    )
    logits = 5 * randn(6, 7, 4)
    x = torch.randint(0, 4, (6, 7), generator=generator())
    torch.testing.assert_close(
        dist.categorical_log_prob(x, logits), torch_dist.Categorical(logits=logits).log_prob(x), rtol=1e-12, atol=1e-12
    )


def test_gaussian_mixture_agrees_with_scipy():
    x, logits, mean, log_std = randn(30), randn(30, 3, seed=1), randn(30, 3, seed=2), randn(30, 3, seed=3)
    weights = logits.softmax(-1).numpy()
    density = stats.norm.pdf(x[:, None].numpy(), mean.numpy(), log_std.exp().numpy())
    expected = torch.from_numpy((weights * density).sum(-1)).log()
    torch.testing.assert_close(dist.gaussian_mixture_log_prob(x, logits, mean, log_std), expected)


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [-1.3, -0.2, 0.9])
def test_discretized_logistic_agrees_with_scipy_and_telescopes_to_one(mean, log_scale):
    levels = 16
    x = torch.arange(levels)
    found = dist.discretized_logistic_log_prob(
        x, torch.tensor(mean, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64), levels
    )
    edges = -1 + 2 * torch.arange(1, levels, dtype=torch.float64) / levels
    cdf = torch.from_numpy(stats.logistic.cdf(edges.numpy(), mean, math.exp(log_scale)))
    mass = torch.cat([cdf, torch.ones(1)]) - torch.cat([torch.zeros(1), cdf])
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(found.exp(), mass.double(), atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("log_scale", [-7.0, 7.0])
def test_discretized_logistic_has_finite_gradients_far_away(log_scale):
    mean = torch.zeros(256, requires_grad=True)
    scale = torch.full((256,), log_scale, requires_grad=True)
    dist.discretized_logistic_log_prob(torch.arange(256), mean, scale, 256).sum().backward()
    assert mean.grad.isfinite().all()
    assert scale.grad.isfinite().all()


def test_draws_follow_their_probabilities():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0])
    for temperature in (1.0, 0.5):
        drawn = dist.sample_categorical(logits.expand(20_000, -1), generator=generator(), temperature=temperature)
        expected = 20_000 * (logits / temperature).softmax(-1)
        assert (
            stats.chisquare(drawn.bincount(minlength=4).numpy(), expected.double().numpy(), sum_check=False).pvalue
            > 1e-4
        )
    ones = dist.sample_bernoulli(torch.full((20_000,), 0.7), generator=generator()).sum().item()
    assert stats.binomtest(ones, 20_000, 1 / (1 + math.exp(-0.7))).pvalue > 1e-4
    mixture = [torch.tensor(v).expand(20_000, 2) for v in ([0.0, 1.0], [-3.0, 2.0], [0.0, -1.0])]
    x = dist.sample_gaussian_mixture(*mixture, generator=generator()).numpy()
    w = 1 / (1 + math.e)

    def cdf(v):
        return w * stats.norm.cdf(v, -3, 1) + (1 - w) * stats.norm.cdf(v, 2, math.exp(-1))

    assert stats.kstest(x, cdf).pvalue > 1e-4


def test_half_precision_parameters_are_raised_before_the_sum():
    logits = 3 * torch.randn(5, 300, generator=generator()).bfloat16()
    x = torch.randint(0, 300, (5,), generator=generator())
    found = dist.categorical_log_prob(x, logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, dist.categorical_log_prob(x, logits.float()))


def test_log_mean_exp_does_not_overflow():
    x = torch.tensor([[1000.0, 1000.0], [-1000.0, 0.0]])
    torch.testing.assert_close(dist.log_mean_exp(x, 1), torch.tensor([1000.0, -math.log(2)]))


@pytest.mark.parametrize("width", [1e-12, 1e-4, 0.3, 50.0])
@pytest.mark.parametrize("place", [-700.0, -3.0, 0.0, 0.1, 40.0])
def test_logistic_intervals_keep_their_precision(place, width):
    edges = torch.tensor([-np.inf, place, place + width, np.inf], dtype=torch.float64)[:, None] * 0.5 + 2
    found = dist.logistic_interval_log_prob(
        edges, edges.diff(dim=0), torch.full((1, 1), 2.0).double(), torch.full((1, 1), 0.5).double().log()
    )[:, 0]
    a, h = (float(edges[1]) - 2) / 0.5, float(edges[2] - edges[1]) / 0.5
    expected = -np.logaddexp(0, -a - h) - np.logaddexp(0, a) + np.log(-np.expm1(-h))
    assert found.tolist() == pytest.approx([stats.logistic.logcdf(a), expected, stats.logistic.logsf(a + h)], rel=1e-9)
