"""Deep dense sigmoidal flows: a loop over the paper's formula, autograd, monotony, inverses, and one layer as DSF."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unsup.nn.bijection import DenseSigmoid, SigmoidMixture
from unsup.prob.dense_sigmoid import SigmoidLayer, dense_sigmoid, dense_sigmoid_inverse
from unsup.prob.mixture_cdf import Mixture, log_density, log_tails

SIZES = ((1,), (1, 4), (1, 4, 3))  # inputs of each layer of 5 sigmoids


def drawn(n: int, inputs: tuple[int, ...], seed: int = 0, spread: float = 1.0) -> list[SigmoidLayer]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return spread * torch.randn(shape, dtype=torch.float64, generator=generator)

    return [
        SigmoidLayer(normal(n, 5, i).log_softmax(-1), normal(n, 5), 2 * normal(n, 5), normal(n, o, 5).log_softmax(-1))
        for i, o in zip(inputs, (*inputs[1:], 1), strict=True)
    ]


@pytest.mark.parametrize("inputs", SIZES)
def test_values_are_those_of_the_formula(inputs: tuple[int, ...]) -> None:
    layers, x = drawn(6, inputs), torch.linspace(-2, 2, 6, dtype=torch.float64)
    found = dense_sigmoid(x, layers)[0]
    for n in range(6):
        h = x[n : n + 1]
        for log_u, log_a, b, log_w in layers:
            h = torch.logit(log_w[n].exp() @ (log_a[n].exp() * (log_u[n].exp() @ h) + b[n]).sigmoid())
        torch.testing.assert_close(found[n], h[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("inputs", SIZES)
def test_log_derivatives_are_those_of_autograd(inputs: tuple[int, ...]) -> None:
    layers = drawn(40, inputs)
    x = (3 * torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    y, log_derivative = dense_sigmoid(x, layers)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_derivative, slope.log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inputs", SIZES)
def test_maps_increase_on_a_grid(inputs: tuple[int, ...]) -> None:
    layers = drawn(1, inputs, spread=2.0)
    x = torch.linspace(-200, 200, 4001, dtype=torch.float64)
    y, log_derivative = dense_sigmoid(
        x, [SigmoidLayer(*(t.expand(len(x), *t.shape[1:]) for t in own)) for own in layers]
    )
    assert bool((y.diff() > 0).all())
    assert bool(log_derivative.isfinite().all())


@pytest.mark.parametrize("inputs", SIZES)
@pytest.mark.parametrize("wanted", [0.0, 2.0, -40.0, 500.0])
def test_inverses_go_back(inputs: tuple[int, ...], wanted: float) -> None:
    layers = drawn(100, inputs, seed=2)
    y = wanted + torch.linspace(-1, 1, 100, dtype=torch.float64)
    x = dense_sigmoid_inverse(y, layers)
    torch.testing.assert_close(dense_sigmoid(x, layers)[0], y, rtol=1e-9, atol=1e-9)


def test_inverses_have_the_gradient_of_the_implicit_function() -> None:
    layers = drawn(3, (1, 4))
    b = layers[0].b.requires_grad_()
    y = torch.linspace(-1, 1, 3, dtype=torch.float64).requires_grad_()

    def inverse(y: Tensor, b: Tensor) -> Tensor:
        return dense_sigmoid_inverse(y, [layers[0]._replace(b=b), layers[1]])

    assert torch.autograd.gradcheck(inverse, (y, b))
    x = dense_sigmoid_inverse(y, layers)
    torch.testing.assert_close(torch.autograd.grad(x.sum(), y)[0], (-dense_sigmoid(x, layers)[1]).exp())


def test_one_layer_is_a_mixture_of_sigmoids() -> None:
    (layer,), x = drawn(50, (1,)), torch.linspace(-4, 4, 50, dtype=torch.float64)
    mixture = Mixture(layer.log_w[:, 0], -layer.b * (-layer.log_a).exp(), -layer.log_a)
    below, above = log_tails(x, mixture, "logistic")
    y, log_derivative = dense_sigmoid(x, [layer])
    torch.testing.assert_close(y, below - above, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_derivative, log_density(x, mixture, "logistic") - below - above)


def test_one_dense_layer_is_the_sigmoidal_flow_of_the_same_outputs() -> None:
    dense, plain = DenseSigmoid(4, 1).double(), SigmoidMixture(4).double()
    outputs = torch.randn(7, 3, 12, dtype=torch.float64)
    logits, a, b = outputs.chunk(3, -1)
    own = torch.cat([logits + dense.w[0].detach()[0], a, b], -1)
    x = torch.randn(7, 3, dtype=torch.float64)
    for found, wanted in zip(dense(x, outputs), plain(x, own), strict=True):
        torch.testing.assert_close(found.detach(), wanted, rtol=1e-10, atol=1e-10)


def test_one_sigmoid_in_each_layer_is_affine() -> None:
    layers = [SigmoidLayer(*(t[:, :1] if t.ndim == 2 else t[:, :1, :1] * 0 for t in own)) for own in drawn(5, (1, 4))]
    x = torch.randn(5, dtype=torch.float64)
    wanted = x
    for layer in layers:
        wanted = layer.log_a[:, 0].exp() * wanted + layer.b[:, 0]
    y, log_derivative = dense_sigmoid(x, layers)
    torch.testing.assert_close(y, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_derivative, sum(layer.log_a[:, 0] for layer in layers), rtol=1e-9, atol=1e-9)
