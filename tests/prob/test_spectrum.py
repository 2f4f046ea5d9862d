"""Largest singular values beside a singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unsup.prob.spectrum import top_singular_vectors


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def top(matrix: Tensor, u: Tensor, tolerance: float, powers: int) -> tuple[Tensor, Tensor]:
    return top_singular_vectors(lambda v: matrix @ v, lambda u: matrix.T @ u, u, tolerance=tolerance, powers=powers)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (7, 3), (40, 60)])
@pytest.mark.parametrize("powers", [3, 16])
def test_vectors_are_those_of_the_decomposition(shape: tuple[int, int], powers: int) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=generator())
    u, v = top(matrix, torch.randn(shape[0], dtype=torch.float64, generator=generator(1)), 1e-14, powers)
    left, values, right = torch.linalg.svd(matrix)
    torch.testing.assert_close(u @ matrix @ v, values[0], rtol=1e-10, atol=0)
    assert abs(float(u @ left[:, 0])) == pytest.approx(1, abs=1e-6)
    assert abs(float(v @ right[0])) == pytest.approx(1, abs=1e-6)


def test_a_start_at_another_singular_vector_is_left() -> None:
    matrix = torch.diag(torch.tensor([2.0, 1.9, 0.5], dtype=torch.float64))
    u, v = top(matrix, torch.tensor([1e-6, 1, 0.3], dtype=torch.float64), 1e-3, 3)
    assert float(u @ matrix @ v) == pytest.approx(2)


def test_equal_singular_values_and_zero() -> None:
    ones = torch.ones(4, dtype=torch.float64)
    u, v = top(2 * torch.eye(4, dtype=torch.float64), ones, 1e-10, 3)
    assert float(2 * u @ v) == pytest.approx(2)
    u, v = top(torch.zeros(4, 4, dtype=torch.float64), ones, 1e-10, 3)
    assert bool(u.isfinite().all())
    assert float(v.abs().max()) == 0
