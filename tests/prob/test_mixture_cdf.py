"""Distribution functions of mixtures: scipy, derivatives by autograd, quantiles in the tails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from unsup.prob.bisection import bisect
from unsup.prob.mixture_cdf import ComponentName, Mixture, log_density, log_tails, normal_quantile, quantile

COMPONENTS: tuple[ComponentName, ...] = ("logistic", "gaussian")
LAWS = {"logistic": stats.logistic, "gaussian": stats.norm}


def drawn(n: int, k: int = 4, seed: int = 0) -> tuple[Tensor, Mixture]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    return 3 * normal(n), Mixture(normal(n, k).log_softmax(-1), 2 * normal(n, k), 0.7 * normal(n, k))


@pytest.mark.parametrize("component", COMPONENTS)
def test_densities_and_tails_are_those_of_scipy(component: ComponentName) -> None:
    x, mixture = drawn(50)
    weight, mean, scale = mixture.log_weight.exp().numpy(), mixture.mean.numpy(), mixture.log_scale.exp().numpy()
    law = LAWS[component](mean, scale)
    at = x.numpy()[:, None]
    below, above = log_tails(x, mixture, component)
    np.testing.assert_allclose(log_density(x, mixture, component).exp(), (weight * law.pdf(at)).sum(1), rtol=1e-10)
    np.testing.assert_allclose(below.exp(), (weight * law.cdf(at)).sum(1), rtol=1e-10)
    np.testing.assert_allclose(above.exp(), (weight * law.sf(at)).sum(1), rtol=1e-10)


@pytest.mark.parametrize("component", COMPONENTS)
def test_the_derivative_of_the_distribution_function_is_the_density(component: ComponentName) -> None:
    x, mixture = drawn(50)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(log_tails(x, mixture, component)[0].exp().sum(), x)
    torch.testing.assert_close(slope, log_density(x, mixture, component).exp(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("odds", [0.0, 1.5, -20.0, 20.0, 300.0, -300.0])
def test_quantiles_go_back(component: ComponentName, odds: float) -> None:
    _, mixture = drawn(200, seed=1)
    wanted = torch.full((200,), odds, dtype=torch.float64) + torch.linspace(-1, 1, 200, dtype=torch.float64)
    x = quantile(wanted, mixture, component)
    below, above = log_tails(x, mixture, component)
    torch.testing.assert_close(below - above, wanted, rtol=1e-9, atol=1e-9)


def test_one_component_has_its_own_quantile() -> None:
    wanted = torch.linspace(-30, 30, 61, dtype=torch.float64)
    one = Mixture(torch.zeros(61, 1), torch.full((61, 1), 2.0), torch.full((61, 1), 0.5))
    one = Mixture(*(t.double() for t in one))
    torch.testing.assert_close(quantile(wanted, one, "logistic"), 2 + np.exp(0.5) * wanted)


def test_normal_quantiles_are_those_of_scipy() -> None:
    log_p = -torch.logspace(-3, 5, 400, dtype=torch.float64)
    log_q = torch.log(-torch.expm1(log_p))
    want = torch.where(log_p.exp() > 0, torch.from_numpy(stats.norm.ppf(log_p.exp().numpy())), 0)
    found = normal_quantile(log_p, log_q)
    known = log_p > -500
    torch.testing.assert_close(found[known], want[known], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.special.log_ndtr(found), log_p, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(normal_quantile(log_q, log_p), -found, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_quantiles_are_finite_everywhere(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 5, 10, 29, 31, 100, 1e3, 1e5, 1e10, 1e16, 1e25], dtype=dtype).requires_grad_()
    one = Mixture(*(torch.zeros(1, dtype=dtype) for _ in range(3)))
    below, above = log_tails(x, one, "gaussian")
    y = normal_quantile(below, above)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert bool(y.isfinite().all())
    known = x.detach() < 1e14
    torch.testing.assert_close(y.detach()[known], x.detach()[known], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope[:7], torch.ones(7, dtype=dtype), rtol=0.05, atol=0)


def test_bisection_finds_the_change() -> None:
    want = torch.linspace(-5, 5, 101, dtype=torch.float64)
    found = bisect(lambda x: x < want, torch.full_like(want, -7), torch.full_like(want, 9))
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    assert bisect(lambda x: x < 0, torch.zeros(0), torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("component", COMPONENTS)
def test_quantiles_have_the_gradient_of_the_inverse_function(component: ComponentName) -> None:
    wanted, mixture = drawn(5, seed=2)
    inputs = [t.requires_grad_() for t in (wanted, *mixture)]

    def found(odds: Tensor, *told: Tensor) -> Tensor:
        return quantile(odds, Mixture(told[0].log_softmax(-1), *told[1:]), component)

    assert torch.autograd.gradcheck(found, inputs, eps=1e-6, atol=1e-5)
