"""Fast paths of networks of flows against their slow references: values, gradients and second derivatives."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from unsup.nn.masked import MaskedMLP, sequential_degrees
from unsup.nn.ode import ActivationName, Layers
from unsup.nn.triangular import Sorting

DIMS, WIDTH = 11, 200  # wide enough for several blocks


def network(residual: bool, order: Literal["natural", "random"], context: int) -> MaskedMLP:
    torch.manual_seed(0)
    position = torch.arange(1, DIMS + 1) if order == "natural" else torch.randperm(DIMS) + 1
    degrees = sequential_degrees(DIMS, (WIDTH,) * (3 if residual else 2), 0 if context else 1)
    return MaskedMLP(position[None], degrees, outputs=23, context=context, residual=residual).double()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("order", ["natural", "random"])
@pytest.mark.parametrize("context", [0, 2])
def test_a_pass_by_blocks_is_the_masked_pass(residual: bool, order: Literal["natural", "random"], context: int) -> None:
    net = network(residual, order, context)
    x = torch.randn(6, DIMS, dtype=torch.float64, requires_grad=True)
    told = torch.randn(6, context, dtype=torch.float64, requires_grad=True) if context else None
    leaves = [x, *([] if told is None else [told]), *net.parameters()]
    fast, slow = net.by_blocks(x, context=told), net(x, context=told)
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(net.eval().by_blocks(x, context=told), slow, rtol=0, atol=1e-12)
    weights = torch.randn_like(slow)
    for ours, theirs in zip(*(torch.autograd.grad((y * weights).sum(), leaves) for y in (fast, slow)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_blocks_leave_out_nearly_half_of_the_products() -> None:
    layer = network(False, "natural", 0).top
    sorting = Sorting.of(layer.mask(0), layer.above[0], layer.below[0])
    done = sum((stop - start) * seen for start, stop, seen in sorting.by_rows)
    assert done < 0.7 * layer.weight.numel()
    assert bool((sorting.mask.sum() < done).all())


def test_a_kept_sorted_weight_follows_a_changed_weight() -> None:
    net = network(False, "natural", 0).eval()
    x = torch.randn(4, DIMS, dtype=torch.float64)
    with torch.no_grad():
        before = net.by_blocks(x)
        net.top.weight.mul_(2)
        torch.testing.assert_close(net.by_blocks(x), net(x), rtol=0, atol=1e-12)
        assert not torch.equal(before, net.by_blocks(x))


def test_second_derivatives_of_a_pass_by_blocks() -> None:
    net = network(False, "natural", 0)
    x = torch.randn(4, DIMS, dtype=torch.float64, requires_grad=True)

    def second(y: Tensor) -> tuple[Tensor, ...]:
        (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, net.top.weight])

    for ours, theirs in zip(second(net.by_blocks(x)), second(net(x)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ["softplus", "tanh"])
@pytest.mark.parametrize("directions", [0, 1, 3])
@pytest.mark.parametrize("graph", [False, True])
def test_values_and_tangents_in_one_product(activation: ActivationName, directions: int, graph: bool) -> None:
    torch.manual_seed(1)
    net = Layers([nn.Linear(a, b) for a, b in pairwise([5, 16, 16, 5])], 0, activation).double()
    y = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    along = torch.randn(7, directions, 5, dtype=torch.float64, requires_grad=True)
    time = torch.tensor([[0.3]], dtype=torch.float64)
    leaves, ways = [y, along, *net.parameters()], (net(y, along, time), net.separately(y, along, time))
    weights = [torch.randn_like(t) for t in ways[1]]
    found = []
    for way in ways:
        torch.testing.assert_close(way, ways[1], rtol=0, atol=1e-12)
        total = sum(((w * t).sum() for w, t in zip(weights, way, strict=True)), torch.zeros(()))
        found.append(torch.autograd.grad(total, leaves, create_graph=graph))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_kept_sorted_weight_follows_training() -> None:
    """An optimizer may change weights without a new version of the tensor."""
    net = network(False, "natural", 0).eval()
    x = torch.randn(4, DIMS, dtype=torch.float64)
    with torch.no_grad():
        net.by_blocks(x)
    net.by_blocks(x).sum().backward()
    net.top.weight.data.mul_(2)
    with torch.no_grad():
        torch.testing.assert_close(net.by_blocks(x), net(x), rtol=0, atol=1e-12)
