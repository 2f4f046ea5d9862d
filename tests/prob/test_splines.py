"""Rational-quadratic splines: derivatives by autograd, inverses, the identity, and a loop over the paper's formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from unsup.prob.splines import (
    SMALLEST,
    Knots,
    outputs_of,
    plain_rational_quadratic,
    plain_rational_quadratic_inverse,
    rational_quadratic,
    rational_quadratic_inverse,
)

B, BINS = 3.0, 8


def drawn(n: int, scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.empty(n, dtype=torch.float64).uniform_(-1.2 * B, 1.2 * B, generator=generator)
    return x, scale * torch.randn(n, outputs_of(BINS), dtype=torch.float64, generator=generator)


def by_loop(x: float, knots: tuple[list[float], list[float], list[float]]) -> tuple[float, float]:
    """The formulas of the paper (4 and 5) for one entry."""
    xs, ys, slopes = knots
    k = max(i for i in range(BINS) if xs[i] <= x)
    w, h = xs[k + 1] - xs[k], ys[k + 1] - ys[k]
    s, xi = h / w, (x - xs[k]) / w
    bottom = s + (slopes[k + 1] + slopes[k] - 2 * s) * xi * (1 - xi)
    y = ys[k] + h * (s * xi**2 + slopes[k] * xi * (1 - xi)) / bottom
    top = s**2 * (slopes[k + 1] * xi**2 + 2 * s * xi * (1 - xi) + slopes[k] * (1 - xi) ** 2)
    return y, math.log(top / bottom**2)


def test_values_and_derivatives_are_those_of_the_paper() -> None:
    x, outputs = drawn(200)
    x = x.clamp(-0.99 * B, 0.99 * B)
    y, log_derivative = rational_quadratic(x, outputs, B)
    knots = Knots.of(outputs, B)
    for i in range(len(x)):
        want = by_loop(float(x[i]), tuple(t[i].tolist() for t in knots))  # type: ignore[arg-type]
        assert (float(y[i]), float(log_derivative[i])) == pytest.approx(want, rel=1e-9, abs=1e-9)


def test_the_log_derivative_is_that_of_autograd() -> None:
    x, outputs = drawn(1000)
    x.requires_grad_()
    y, log_derivative = rational_quadratic(x, outputs, B)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_derivative.exp(), slope, rtol=1e-9, atol=1e-12)
    assert bool((y.detach().abs() <= B).eq(x.detach().abs() <= B).all())


def test_gradients_are_finite_and_right_in_the_tails_too() -> None:
    x, outputs = drawn(20, seed=1)
    x[:2] = torch.tensor([1e6, -1e6])
    x.requires_grad_()
    outputs.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, o: rational_quadratic(x, o, B), (x, outputs), eps=1e-7, atol=1e-4)
    y, log_derivative = rational_quadratic(x, outputs, B)
    assert torch.equal(y[:2], x[:2])
    assert torch.equal(log_derivative[:2], torch.zeros(2, dtype=torch.float64))


def test_the_inverse_goes_back_at_knots_and_in_the_tails() -> None:
    x, outputs = drawn(100_000, seed=2)
    knots = Knots.of(outputs[:1000], B).x.flatten()
    at_knots = torch.cat([x, knots, torch.tensor([B, -B, 1e6, -1e6], dtype=torch.float64)])
    own = torch.cat([outputs, outputs[:1000].repeat_interleave(BINS + 1, 0), outputs[:4]])
    y = rational_quadratic(at_knots, own, B)[0]
    assert float((rational_quadratic_inverse(y, own, B) - at_knots).abs().max()) < 1e-9
    low = rational_quadratic_inverse(y.float(), own.float(), B).double()
    slope = rational_quadratic(at_knots, own, B)[1].exp().clamp(max=1)  # float32 loses what the slope contracts
    assert float(((low - at_knots) * slope).abs().max()) < 1e-4


def test_zeros_are_the_identity() -> None:
    x, outputs = drawn(100)
    y, log_derivative = rational_quadratic(x, torch.zeros_like(outputs), B)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_derivative, torch.zeros_like(x), rtol=0, atol=1e-12)


def test_bins_and_slopes_have_a_smallest_size() -> None:
    _, outputs = drawn(100, scale=50.0)
    x, y, slope = Knots.of(outputs, B)
    for t in (x, y):
        assert torch.equal(t[:, 0], torch.full((100,), -B, dtype=torch.float64))
        assert torch.equal(t[:, -1], torch.full((100,), B, dtype=torch.float64))
        assert float(t.diff(dim=-1).min()) >= 2 * B * SMALLEST * (1 - 1e-9)
    assert float(slope.min()) >= SMALLEST


@pytest.mark.parametrize("layout", ["entries", "kinds of an entry", "kinds"])
@pytest.mark.parametrize("divisor", [1.0, 4.0])
def test_values_and_gradients_are_those_of_the_slow_reference(layout: str, divisor: float) -> None:
    flat, outputs = drawn(60, scale=1.5, seed=3)
    flat[:3] = torch.tensor([B, -B, 50.0])
    inputs = flat.view(12, 5), outputs.view(12, 5, -1)
    if layout == "kinds of an entry":
        inputs = inputs[0], inputs[1].permute(1, 2, 0).contiguous().permute(2, 0, 1)
    elif layout == "kinds":
        inputs = inputs[0], inputs[1].permute(2, 1, 0).contiguous().permute(2, 1, 0)
    x, told = (t.detach().requires_grad_() for t in inputs)
    weights = torch.randn(2, 12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found, want = (f(x, told, B, divisor) for f in (rational_quadratic, plain_rational_quadratic))
    for own, other in zip(found, want, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-11)
    ours, theirs = (
        torch.autograd.grad((weights[0] * y + weights[1] * log).sum(), (x, told)) for y, log in (found, want)
    )
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-7, atol=1e-10)
    with torch.no_grad():
        back, slow = (
            f(found[0], told, B, divisor) for f in (rational_quadratic_inverse, plain_rational_quadratic_inverse)
        )
    torch.testing.assert_close(back, slow, rtol=1e-8, atol=1e-9)


def test_second_derivatives_are_those_of_the_slow_reference() -> None:
    x, outputs = drawn(20, scale=1.0, seed=5)
    seconds = []
    for way in (rational_quadratic, plain_rational_quadratic):
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(way(leaf, outputs, B)[1].sum(), leaf, create_graph=True)
        seconds.append(torch.autograd.grad(slope.sum(), leaf)[0])
    torch.testing.assert_close(*seconds, rtol=1e-7, atol=1e-9)
