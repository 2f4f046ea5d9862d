"""Losses of predictions without labels against their formulas, by automatic differentiation and in loops."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from unsup.prob.consistency import divergence, entropy, fisher_product, scaled_to, sharpened


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _divergence(target: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return divergence(target[None], logits[None]).sum()


def test_entropy_and_its_gradient() -> None:
    logits = drawn(7, 5, scale=3.0).requires_grad_()
    p = logits.detach().softmax(1)
    expected = torch.tensor([-sum(v * math.log(v) for v in row) for row in p.tolist()], dtype=torch.float64)
    found = entropy(logits)
    assert torch.allclose(found, expected, rtol=1e-12)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert torch.allclose(gradient, -p * (p.log() + expected[:, None]), atol=1e-12)
    uniform = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    assert float(entropy(uniform.detach())) == pytest.approx(math.log(5))
    (at_most,) = torch.autograd.grad(entropy(uniform).sum(), uniform)
    assert float(at_most.abs().max()) < 1e-15
    assert float(entropy(torch.tensor([[1000.0, 0.0, -1000.0]]))) == 0


def test_divergence_is_zero_for_equal_predictions_and_else_the_sum() -> None:
    one, two = drawn(6, 4, scale=2.0), drawn(6, 4, seed=1, scale=2.0)
    p, q = one.softmax(1), two.softmax(1)
    assert torch.allclose(divergence(one, two), (p * (p / q).log()).sum(1), rtol=1e-12)
    assert float(divergence(one, one + 3.0).abs().max()) < 1e-14
    assert float(divergence(one, two).min()) > 0


def test_the_second_derivative_of_the_divergence_times_a_vector() -> None:
    logits, v = drawn(3, 5, scale=2.0), drawn(3, 5, seed=1)
    for row, direction, found in zip(logits, v, fisher_product(logits, v), strict=True):
        hessian = torch.autograd.functional.hessian(functools.partial(_divergence, row), row)
        assert torch.allclose(hessian @ direction, found, atol=1e-12)


def test_sharpening() -> None:
    p = drawn(6, 4, scale=2.0).softmax(1)
    assert torch.allclose(sharpened(p, 1.0), p, rtol=1e-12)
    assert torch.allclose(sharpened(p, 0.5), p**2 / (p**2).sum(1, keepdim=True), rtol=1e-12)
    assert torch.allclose(sharpened(p, 1e-3), torch.nn.functional.one_hot(p.argmax(1), 4).double(), atol=1e-6)
    certain = torch.tensor([[1.0, 0.0]])
    assert torch.equal(sharpened(certain, 0.5), certain)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4, 4)])
def test_each_example_gets_the_norm(shape: tuple[int, ...], scale: float) -> None:
    x = drawn(*shape).float() * scale
    found = scaled_to(x, 0.7)
    assert found.shape == x.shape
    assert torch.allclose(found.flatten(1).norm(dim=1), torch.full((5,), 0.7), rtol=1e-6)
    assert torch.allclose(torch.cosine_similarity(found.flatten(1), (x / scale).flatten(1)), torch.ones(5), atol=1e-6)
    assert torch.equal(scaled_to(torch.zeros(2, 3), 1.0), torch.zeros(2, 3))
