"""Bounds from importance weights: by enumeration of a discrete latent, and by quadrature over a Gaussian one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from unsup.nn.posterior import DiagonalGaussian
from unsup.prob.bounds import dreg, elbo, iwae, with_free_bits
from unsup.prob.distributions import gaussian_log_prob, standard_gaussian_log_prob

X = 0.7


# --- a latent with four values ----------------------------------------------------------------------------------------


def tables(seed: int = 0) -> tuple[Tensor, Tensor]:
    """p(x, z) of one x, and q(z | x)."""
    generator = torch.Generator().manual_seed(seed)
    joint, q = torch.rand(2, 4, generator=generator, dtype=torch.float64) + 0.05
    return joint / 5, q / q.sum()


def expected(bound: object, joint: Tensor, q: Tensor, k: int) -> float:
    """The mean of a bound over all draws of k latents."""
    draws = torch.tensor(list(itertools.product(range(4), repeat=k))).T  # (k, 4^k)
    found = bound((joint / q).log()[draws])
    assert found.shape == draws.shape[1:]
    return float((q[draws].prod(0) * found).sum())


def test_bounds_rise_from_the_elbo_to_log_p_and_the_gap_is_the_divergence_from_the_posterior() -> None:
    joint, q = tables()
    log_p, posterior = float(joint.sum().log()), joint / joint.sum()
    gap = float((q * (q / posterior).log()).sum())
    for k in (1, 2, 3):
        assert expected(elbo, joint, q, k) == pytest.approx(log_p - gap, abs=1e-12)
    values = [expected(iwae, joint, q, k) for k in (1, 2, 3, 4, 5)]
    assert values[0] == pytest.approx(log_p - gap, abs=1e-12)
    assert all(low < high for low, high in itertools.pairwise([*values, log_p]))
    # Of log p the means of weights are an unbiased estimate, whatever k is.
    assert expected(lambda w: iwae(w).exp(), joint, q, 3) == pytest.approx(math.exp(log_p), abs=1e-12)


def test_with_the_posterior_all_bounds_are_log_p() -> None:
    joint, _ = tables(1)
    log_p = float(joint.sum().log())
    for bound, k in itertools.product((elbo, iwae), (1, 3)):
        assert expected(bound, joint, joint / joint.sum(), k) == pytest.approx(log_p, abs=1e-12)


# --- a Gaussian latent ------------------------------------------------------------------------------------------------


class Model:
    """z ~ N(0, 1), x ~ N(a z + b, 1), q(z | x) = N(m, e^v); q is exact at m = a(x − b)/(1 + a²), v = −log(1 + a²)."""

    def __init__(self, m: float = 0.1, v: float = -0.3) -> None:
        given = {"a": 0.8, "b": -0.4, "m": m, "v": v}
        self.parameters = {k: torch.tensor(x, dtype=torch.float64, requires_grad=True) for k, x in given.items()}

    def draws(self, noise: Tensor, *, held: bool) -> tuple[Tensor, Tensor]:
        """Log-weights ``(k, B)`` and z ``(k, B, 1)`` of noise ``(k, B)``."""
        a, b, m, v = self.parameters.values()
        ones = torch.ones(noise.shape[1], 1, dtype=torch.float64)
        q = DiagonalGaussian(m * ones, v * ones)
        z = q.at(noise.unsqueeze(-1))
        x = torch.tensor(X, dtype=torch.float64)
        log_p = (standard_gaussian_log_prob(z) + gaussian_log_prob(x, a * z + b, torch.zeros_like(z))).sum(-1)
        return log_p - (q.held().log_prob(z) if held else q.log_density(noise.unsqueeze(-1))), z

    def gradient(self, value: Tensor) -> list[float]:
        """By a, b, m, v."""
        found = torch.autograd.grad(value, list(self.parameters.values()), retain_graph=True)
        return [float(g) for g in found]


def nodes(k: int, count: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss–Hermite nodes of k standard normals, ``(k, B)``, and their weights."""
    node, weight = np.polynomial.hermite_e.hermegauss(count)
    grid = np.array(list(itertools.product(node, repeat=k))).T
    weights = np.prod(list(itertools.product(weight / weight.sum(), repeat=k)), 1)
    return torch.from_numpy(grid), torch.from_numpy(weights)


def test_the_mean_of_the_dreg_gradient_is_that_of_the_plain_gradient_and_its_value_the_plain_value() -> None:
    model = Model()
    noise, weight = nodes(2)
    plain, doubly = iwae(model.draws(noise, held=False)[0]), dreg(*model.draws(noise, held=True))
    torch.testing.assert_close(doubly, plain, rtol=1e-12, atol=1e-12)
    found, reference = model.gradient((weight * doubly).sum()), model.gradient((weight * plain).sum())
    assert found == pytest.approx(reference, abs=1e-9)
    assert all(abs(g) > 1e-3 for g in reference)
    # A loop over draws: the plain gradient is that of L_2 itself, by central differences of its quadrature.
    for i, name in enumerate(model.parameters):
        ends = []
        for sign in (1, -1):
            moved = Model()
            with torch.no_grad():
                moved.parameters[name] += sign * 1e-5
                ends.append(float((weight * iwae(moved.draws(noise, held=False)[0])).sum()))
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(reference[i], abs=1e-8), name


def test_the_dreg_gradient_of_q_is_the_sum_of_squared_shares_and_that_of_p_the_plain_one() -> None:
    model = Model()
    noise = torch.tensor([[0.3], [-1.1], [0.8]], dtype=torch.float64)
    a, b, m, v = (p.item() for p in model.parameters.values())
    found = model.gradient(dreg(*model.draws(noise, held=True)).sum())
    log_weight, z = (t.detach().flatten() for t in model.draws(noise, held=True))
    share = log_weight.softmax(0)
    slope = -z + a * (X - a * z - b) + (z - m) / math.exp(v)  # ∂ log w / ∂z with q's own parameters held
    eps = noise.flatten()
    expected_m = float((share**2 * slope).sum())
    expected_v = float((share**2 * slope * 0.5 * math.exp(v / 2) * eps).sum())
    expected_a = float((share * (X - a * z - b) * z).sum())
    expected_b = float((share * (X - a * z - b)).sum())
    assert found == pytest.approx([expected_a, expected_b, expected_m, expected_v], abs=1e-12)


def test_sticking_the_landing_has_the_mean_of_the_plain_gradient_and_none_where_q_is_exact() -> None:
    model = Model()
    noise, weight = nodes(1)
    plain, landing = (model.gradient((weight * elbo(model.draws(noise, held=held)[0])).sum()) for held in (False, True))
    assert landing == pytest.approx(plain, abs=1e-10)
    exact = Model(m=0.8 * (X + 0.4) / (1 + 0.8**2), v=-math.log(1 + 0.8**2))
    one = torch.tensor([[1.7]], dtype=torch.float64)
    assert exact.gradient(elbo(exact.draws(one, held=True)[0]).sum())[2:] == pytest.approx([0, 0], abs=1e-12)
    assert abs(exact.gradient(elbo(exact.draws(one, held=False)[0]).sum())[3]) > 0.1


def test_without_gradients_dreg_is_its_value() -> None:
    model = Model()
    noise, _ = nodes(2, 5)
    with torch.no_grad():
        log_weight, z = model.draws(noise, held=True)
        torch.testing.assert_close(dreg(log_weight, z), iwae(log_weight))


def test_free_bits_compare_the_weighted_mean_of_each_part() -> None:
    parts = torch.tensor([[0.1, 2.0], [0.3, 1.0], [2.0, 0.4]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)
    found = with_free_bits(parts, 0.5, weight)  # means 0.23 and 1.33: only the second part costs
    assert torch.allclose(found, 0.5 + parts[:, 1])
    found.sum().backward()
    assert torch.equal(parts.grad, torch.tensor([[0.0, 1.0]] * 3, dtype=torch.float64))
    assert torch.allclose(with_free_bits(parts, 0.5), parts.sum(1))  # unweighted means 0.8 and 1.13
