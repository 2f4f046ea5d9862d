"""Outputs and derivatives along directions, against those of the backward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unsup.core.event import Event, Support
from unsup.nn.backbones import BackboneName, build_backbone
from unsup.nn.norm import BatchNorm, averages_kept
from unsup.nn.tangents import pushed

IMAGES = Event((3, 16, 16), Support("ordinal", 256), "image")
NETS: tuple[BackboneName, ...] = (
    *("mlp", "conv-small", "conv-large", "nin-3", "nin-4", "wrn-28-2"),
    *("resnet18", "resnet50", "vit"),
)


def drawn(name: BackboneName) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A network with moved parameters and averages in float64, inputs and a direction."""
    torch.manual_seed(0)
    net = build_backbone(name, IMAGES, width=0.05, owner="X").double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    generator = torch.Generator().manual_seed(1)
    x, d = (torch.randn(6, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        net.train()(x)
    return net, x, d


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_outputs_and_derivatives_are_those_of_the_network(name: BackboneName, training: bool) -> None:
    net, x, d = drawn(name)
    net.train(training)
    x.requires_grad_()
    with averages_kept():
        y, change = pushed(net, x, d)
        expected = net(x)
    assert torch.allclose(y, expected, rtol=1e-9, atol=1e-12)
    for seed in range(5):  # ⟨w, J d⟩ = ⟨Jᵀ w, d⟩
        w = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        (back,) = torch.autograd.grad(expected, x, w, retain_graph=True)
        one, two = float((w * change).sum()), float((back * d).sum())
        assert abs(one - two) < 1e-9 * float((w.norm() * change.norm()).detach())


@pytest.mark.parametrize("name", ["mlp", "wrn-28-2", "resnet18"])
def test_the_graph_of_the_outputs_is_that_of_the_network(name: BackboneName) -> None:
    net, x, d = drawn(name)
    parameters = list(net.parameters())
    with averages_kept():
        one = torch.autograd.grad(pushed(net, x, d)[0].square().sum(), parameters)
        two = torch.autograd.grad(net(x).square().sum(), parameters)
    for own, expected in zip(one, two, strict=True):
        assert torch.allclose(own, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
    assert not pushed(net, x, d)[1].requires_grad


@pytest.mark.parametrize("name", ["conv-small", "resnet18"])
def test_running_averages_follow_as_in_an_ordinary_pass_or_stay(name: BackboneName) -> None:
    found = []
    for how in (lambda net, x, d: net(x), pushed):
        net, x, d = drawn(name)
        before = [m.running_mean.clone() for m in net.modules() if isinstance(m, BatchNorm)]
        with averages_kept():
            how(net.train(), x + 1, d)
        kept = [m.running_mean for m in net.modules() if isinstance(m, BatchNorm)]
        assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True))
        how(net, x + 1, d)
        found.append({name: value for name, value in net.named_buffers() if "running" in name})
        assert not torch.equal(before[0], kept[0])
    for key, value in found[0].items():
        assert torch.allclose(value, found[1][key], rtol=1e-9), key


def test_half_precision_is_close() -> None:
    net, x, d = drawn("mlp")
    with averages_kept(), torch.no_grad():
        _, exact = pushed(net, x, d)
        net = net.float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            _, half = pushed(net, x.float(), d.float())
    cosine = nn.functional.cosine_similarity(exact.flatten(), half.double().flatten(), dim=0)
    assert float(cosine) > 0.99
