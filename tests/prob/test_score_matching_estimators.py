"""Estimators of score matching against Jacobians, enumeration, quadrature and Gaussians in closed form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unsup.prob.score_matching import (
    denoising_score_matching,
    exact_score_matching,
    score_of,
    sliced_score_matching,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def whitened(n: int, dims: int, seed: int = 0) -> Tensor:
    """Rows whose mean is 0 and whose second moments are the identity exactly: expectations of quadratics are exact."""
    x = normals(n, dims, seed=seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / n)).T


def curved(dims: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(dims, 12), nn.Tanh(), nn.Linear(12, 1)).double()


def score_by(net: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: score_of(lambda y: net(y).squeeze(1), x, graph=True)


def all_signs(dims: int, batch: int) -> Tensor:
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dims)), dtype=torch.float64)
    return signs.unsqueeze(1).expand(-1, batch, -1)


COVARIANCE = torch.tensor([[1.5, 0.6, 0.0], [0.6, 0.8, -0.3], [0.0, -0.3, 0.5]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def gaussian_data(n: int = 400) -> Tensor:
    return MEAN + whitened(n, 3) @ torch.linalg.cholesky(COVARIANCE).T


def test_the_exact_trace_is_that_of_the_jacobian_row_by_row() -> None:
    net, x = curved(4), normals(5, 4)
    norm, trace = exact_score_matching(score_by(net), x)
    for b in range(5):
        hessian = torch.autograd.functional.hessian(lambda one: net(one[None]).squeeze(), x[b])
        assert float(trace[b].detach()) == pytest.approx(-float(hessian.trace()), rel=1e-12)
        slope = torch.autograd.functional.jacobian(lambda one: net(one[None]).squeeze(), x[b])
        assert float(norm[b].detach()) == pytest.approx(0.5 * float(slope.square().sum()), rel=1e-12)


@pytest.mark.parametrize("variance_reduced", [True, False])
def test_the_mean_over_all_sign_vectors_is_exact_score_matching(variance_reduced: bool) -> None:
    net, x = curved(4), normals(6, 4)
    exact = exact_score_matching(score_by(net), x)
    sliced = sliced_score_matching(score_by(net), x, all_signs(4, 6), variance_reduced=variance_reduced)
    for found, expected in zip(sliced, exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    # One slice is another number: the enumeration was needed.
    one = sliced_score_matching(score_by(net), x, all_signs(4, 6)[3:4], variance_reduced=variance_reduced)
    assert float((one[1] - exact[1]).detach().abs().min()) > 1e-3
    if not variance_reduced:
        v = all_signs(4, 6)[3]
        s = score_by(net)(x).detach()
        torch.testing.assert_close(one[0], 0.5 * (v * s).sum(1).square(), rtol=1e-12, atol=0)


def test_slices_have_unit_variance_whatever_the_example() -> None:
    # E[v vᵀ] = I is what makes the mean right: scaled slices give another trace.
    net, x = curved(3), normals(4, 3)
    doubled = sliced_score_matching(score_by(net), x, 2 * all_signs(3, 4))[1]
    torch.testing.assert_close(doubled, 4 * exact_score_matching(score_by(net), x)[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_exact_score_matching_is_fishers_divergence_up_to_a_constant_of_the_data_alone(seed: int) -> None:
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64).unsqueeze(1).requires_grad_()
    log_p = torch.logsumexp(torch.stack([-0.5 * (x + 1.5) ** 2, math.log(0.4) - 2 * (x - 1) ** 2]), 0)
    (truth,) = torch.autograd.grad(log_p.sum(), x)
    x = x.detach()
    p = log_p.detach().squeeze(1).softmax(0)

    def gap(net: nn.Module) -> float:
        norm, trace = exact_score_matching(score_by(net), x)
        divergence = 0.5 * (score_by(net)(x) - truth).square().sum(1)
        return float((p * (norm + trace - divergence)).sum().detach())

    expected = -0.5 * float((p * truth.square().squeeze(1)).sum())
    assert gap(curved(1, seed)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_denoising_is_fishers_divergence_from_the_noisy_density_up_to_a_constant(seed: int) -> None:
    sigma, points, shares = 0.6, (-1.0, 2.0), (0.3, 0.7)
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    noise = torch.from_numpy(node).unsqueeze(1)
    weight = torch.from_numpy(weight / weight.sum())
    net = curved(1, seed)
    denoising = sum(
        w * (weight * denoising_score_matching(score_by(net), torch.full_like(noise, a), noise, sigma)).sum().item()
        for a, w in zip(points, shares, strict=True)
    )
    x = torch.linspace(-8, 9, 4001, dtype=torch.float64).unsqueeze(1).requires_grad_()
    parts = [math.log(w) - 0.5 * ((x - a) / sigma) ** 2 for a, w in zip(points, shares, strict=True)]
    log_p = torch.logsumexp(torch.stack(parts), 0)
    (truth,) = torch.autograd.grad(log_p.sum(), x)  # the score of a mixture of two noisy points
    p = log_p.detach().squeeze(1).softmax(0)
    divergence = float((p * 0.5 * (score_by(net)(x.detach()) - truth).square().sum(1)).sum().detach())
    constant = 0.5 / sigma**2 - 0.5 * float((p * truth.square().squeeze(1)).sum())
    assert denoising - divergence == pytest.approx(constant, abs=1e-8)


@pytest.mark.parametrize("method", ["exact", "sliced", "sliced plain", "denoising"])
def test_each_estimator_recovers_a_gaussian_and_its_value_at_the_optimum(method: str) -> None:
    sigma = 0.7
    noisy = method == "denoising"
    # Data and noise with exact joint moments, so that the minimum is that of the population.
    draws = whitened(600, 6, seed=1)
    x, noise = MEAN + draws[:, :3] @ torch.linalg.cholesky(COVARIANCE).T, draws[:, 3:]
    factor = torch.eye(3, dtype=torch.float64).requires_grad_()
    mean = torch.zeros(3, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [factor, mean], max_iter=400, tolerance_grad=1e-11, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def value() -> Tensor:
        precision = factor @ factor.T

        def score(y: Tensor) -> Tensor:
            return -(y - mean) @ precision

        if noisy:
            return denoising_score_matching(score, x, noise, sigma).mean()
        if method == "exact":
            return sum(exact_score_matching(score, x)).mean()
        return sum(sliced_score_matching(score, x, all_signs(3, len(x)), variance_reduced=method == "sliced")).mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = value()
        loss.backward()
        return loss

    optimizer.step(closure)
    target = torch.linalg.inv(COVARIANCE + (sigma**2 if noisy else 0) * torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close((factor @ factor.T).detach(), target, rtol=0, atol=1e-5)
    torch.testing.assert_close(mean.detach(), MEAN, rtol=0, atol=1e-5)
    least = 0.5 * (3 / sigma**2 - float(target.trace())) if noisy else -0.5 * float(target.trace())
    assert float(value()) == pytest.approx(least, abs=1e-8)


def test_for_one_variance_the_least_denoising_loss_is_half_the_difference_of_precisions() -> None:
    variance, sigma = 2.3, 0.4
    draws = whitened(500, 2)
    x, noise = math.sqrt(variance) * draws[:, :1], draws[:, 1:]
    loss = denoising_score_matching(lambda y: -y / (variance + sigma**2), x, noise, sigma).mean()
    assert float(loss) == pytest.approx(0.5 * (1 / sigma**2 - 1 / (variance + sigma**2)), rel=1e-12)


@pytest.mark.parametrize("method", ["exact", "sliced"])
def test_under_inference_mode_the_values_are_the_same(method: str) -> None:
    net, x, signs = curved(3), normals(4, 3), all_signs(3, 4)

    def run() -> tuple[Tensor, ...]:
        if method == "exact":
            return exact_score_matching(score_by(net), x + 0)
        return sliced_score_matching(score_by(net), x + 0, signs + 0)

    def score_by(net: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: score_of(lambda y: net(y).squeeze(1), x, graph=torch.is_grad_enabled())

    expected = run()
    with torch.inference_mode():
        found = run()
        slope = score_of(lambda y: net(y).squeeze(1), x + 0, graph=False)
    torch.testing.assert_close(slope, score_by(net)(x).detach())
    for value, same in zip(found, expected, strict=True):
        torch.testing.assert_close(value, same.detach())


@pytest.mark.parametrize("method", ["exact", "sliced"])
def test_without_gradients_the_values_are_the_same_and_carry_no_graph(method: str) -> None:
    net, x = curved(3), normals(4, 3)

    def run() -> tuple[Tensor, Tensor]:
        if method == "exact":
            return exact_score_matching(score_by(net), x)
        return sliced_score_matching(score_by(net), x, all_signs(3, 4))

    found = run()
    sum(found).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for n, p in net.named_parameters() if n != "2.bias")
    with torch.no_grad():
        again = run()
    for a, b in zip(found, again, strict=True):
        assert a.requires_grad
        assert not b.requires_grad
        torch.testing.assert_close(a.detach(), b, rtol=0, atol=0)
