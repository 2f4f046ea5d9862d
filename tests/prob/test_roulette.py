"""Random sums beside the whole series, and gradients beside those of the determinant."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.prob.roulette import geometric, log_det_by_neumann, log_det_series, roulette_weights


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def contraction(dims: int, norm: float) -> Tensor:
    matrix = torch.randn(dims, dims, dtype=torch.float64, generator=generator())
    return norm * matrix / torch.linalg.matrix_norm(matrix, 2)


def signs(n: int, dims: int) -> Tensor:
    return torch.randint(2, (n, dims), generator=generator(1)).double() * 2 - 1


def test_weights_are_one_over_the_probability_of_a_term() -> None:
    u = torch.rand(100_000, generator=generator(), dtype=torch.float64)
    numbers = torch.tensor([geometric(float(v)) for v in u])
    weights = roulette_weights(2, 5)
    assert weights[:2] == [1, 1]
    for j in range(1, 6):
        share = float((numbers >= j).double().mean())
        assert abs(share * weights[1 + j] - 1) < 5 * math.sqrt((weights[1 + j] - 1) / len(u)) + 1e-12


def test_traces_of_all_unit_vectors_give_the_determinant() -> None:
    a = contraction(4, 0.8)
    probe = 2 * torch.eye(4, dtype=torch.float64)  # the mean of ε εᵀ over its rows is I
    found = log_det_series(lambda v: v @ a.T, probe, [1.0] * 200).mean()
    exact = torch.linalg.slogdet(torch.eye(4, dtype=torch.float64) + a).logabsdet
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


def test_the_mean_over_numbers_of_terms_is_the_series() -> None:
    a, probe = contraction(4, 0.6), signs(50, 4)
    whole = log_det_series(lambda v: v @ a.T, probe, [1.0] * 60)
    mean = torch.zeros_like(whole)
    for more in range(1, 41):  # P(N = more) = 2^−more
        mean += 0.5**more * log_det_series(lambda v: v @ a.T, probe, roulette_weights(2, more))
    torch.testing.assert_close(mean, whole, rtol=0, atol=1e-6)


def test_random_sums_have_the_mean_of_the_determinant() -> None:
    a, n = contraction(4, 0.7), 200_000
    probe, u = signs(n, 4), torch.rand(n, generator=generator(2), dtype=torch.float64)
    numbers = torch.tensor([geometric(float(v)) for v in u])
    found = torch.cat(
        [
            log_det_series(lambda v: v @ a.T, probe[numbers == more], roulette_weights(2, more))
            for more in range(1, int(numbers.max()) + 1)
        ]
    )
    exact = float(torch.linalg.slogdet(torch.eye(4, dtype=torch.float64) + a).logabsdet)
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(n)


def test_neumann_series_reports_the_estimate_and_has_its_mean_gradient() -> None:
    """Over all signs, both estimates have the gradient of the series with the same weights."""
    a = contraction(3, 0.7).requires_grad_()
    probe = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    weights = roulette_weights(2, 3)
    values, gradients = [], []
    for series in (log_det_series, log_det_by_neumann):
        found = series(lambda v: v @ a.T, probe, weights)
        values.append(found.detach())
        gradients.append(torch.autograd.grad(found.mean(), a)[0])
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_many_terms_of_the_neumann_series_have_the_gradient_of_the_determinant() -> None:
    a = contraction(3, 0.5).requires_grad_()
    probe = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    found = log_det_by_neumann(lambda v: v @ a.T, probe, [1.0] * 80).mean()
    exact = torch.linalg.slogdet(torch.eye(3, dtype=torch.float64) + a).logabsdet
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
    (said,) = torch.autograd.grad(found, a)
    (right,) = torch.autograd.grad(exact, a)
    torch.testing.assert_close(said, right, rtol=1e-9, atol=1e-12)
