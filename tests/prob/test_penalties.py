"""Penalties of codes against loops, automatic Jacobians and scipy."""

from __future__ import annotations

import pytest
import torch
from scipy.special import rel_entr
from torch import nn

from unsup.nn.nets import UnitName, dense, layer_units, linear_layers, slope
from unsup.prob.penalties import activity_divergence, contraction

NAMES: tuple[UnitName, ...] = ("sigmoid", "tanh", "relu", "linear")


@pytest.mark.parametrize("name", NAMES)
def test_slopes_are_derivatives(name: UnitName):
    a = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
    (h,) = layer_units(_identity(), a[:, None], [name])
    (expected,) = torch.autograd.grad(h.sum(), a)
    torch.testing.assert_close(slope(h.detach().squeeze(1), name), expected, rtol=1e-12, atol=1e-12)


def _identity() -> nn.Module:
    layer = nn.Linear(1, 1).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    return nn.Sequential(layer)


@pytest.mark.parametrize("widths", [(4, 3), (4, 6, 3), (5, 4, 6, 3), (3, 2, 4, 5, 2)])
@pytest.mark.parametrize("hidden", NAMES[:3])
@pytest.mark.parametrize("last", ["sigmoid", "linear"])
def test_contraction_is_the_norm_of_the_jacobian(widths: tuple[int, ...], hidden: UnitName, last: UnitName):
    torch.manual_seed(0)
    net = dense(widths, hidden).double()
    names: list[UnitName] = [hidden] * (len(widths) - 2) + [last]
    x = torch.randn(5, widths[0], dtype=torch.float64)
    units, layers = layer_units(net, x, names), linear_layers(net)
    found = contraction([layer.weight for layer in layers], [slope(h, n) for h, n in zip(units, names, strict=True)])
    for row, value in zip(x, found, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: layer_units(net, v[None], names)[-1][0], row)
        torch.testing.assert_close(value, jacobian.square().sum(), rtol=1e-12, atol=0)


def test_activity_divergence_is_that_of_scipy():
    mean = torch.tensor([0.01, 0.05, 0.3, 0.9], dtype=torch.float64)
    for target in (0.05, 0.4):
        expected = (rel_entr(target, mean.numpy()) + rel_entr(1 - target, 1 - mean.numpy())).sum()
        assert float(activity_divergence(mean, target)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_activity_divergence_is_finite_at_saturated_units(end: float):
    mean = torch.tensor([end], requires_grad=True)
    value = activity_divergence(mean, 0.05)
    assert 0.5 < value.item() < 20
    value.backward()
    assert mean.grad is not None
    assert bool(mean.grad.isfinite().all())
