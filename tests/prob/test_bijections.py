"""Bijections of the line: derivatives against autograd, inverses, closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unsup.prob.bijections import additive, additive_inverse, affine, affine_inverse

# Each with its inverse and how many tensors tell it.
BIJECTIONS: dict[str, tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., Tensor], int]] = {
    "affine": (affine, affine_inverse, 2),
    "additive": (additive, additive_inverse, 1),
}


def drawn(*shape: int, seed: int) -> Tensor:
    return 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", BIJECTIONS)
def test_log_derivative_is_that_of_autograd_and_the_inverse_goes_back(name: str) -> None:
    forward, inverse, count = BIJECTIONS[name]
    x = drawn(7, 3, seed=0).requires_grad_()
    told = [drawn(7, 3, seed=1 + i) for i in range(count)]
    y, log_derivative = forward(x, *told)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert log_derivative.shape == x.shape
    torch.testing.assert_close(log_derivative.exp(), slope, rtol=1e-12, atol=0)
    torch.testing.assert_close(inverse(y, *told), x, rtol=0, atol=1e-12)


def test_closed_forms() -> None:
    x, two, three = (torch.tensor(v, dtype=torch.float64) for v in (1.5, 2.0, 3.0))
    assert float(affine(x, two.log(), three)[0]) == pytest.approx(6.0)
    assert float(affine(x, two.log(), three)[1]) == pytest.approx(math.log(2))
    assert float(additive(x, three)[0]) == 4.5
    assert float(additive(x, three)[1]) == 0
