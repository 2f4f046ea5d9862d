"""Backbones: published sizes, stages, and the same features for an example in any batch."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support
from unsup.nn.alexnet import LEAST_SIDE, AlexNet
from unsup.nn.backbone import shape_of_maps
from unsup.nn.backbones import BackboneName, build_backbone
from unsup.nn.norm import without_batch_statistics
from unsup.nn.vit import ViT

SMALL = Event((3, 32, 32), Support("ordinal", 256), "image")
LARGE = Event((3, 224, 224), Support("ordinal", 256), "image")
NAMES: tuple[BackboneName, ...] = get_args(BackboneName)


@pytest.mark.parametrize(
    ("name", "event", "parameters"),
    [  # published sizes less those of their classifiers
        ("resnet18", SMALL, 11_173_962 - 5_130),
        ("resnet18", LARGE, 11_689_512 - 513_000),
        ("resnet50", LARGE, 25_557_032 - 2_049_000),
        ("wrn-28-2", SMALL, 1_467_610 - 1_290),
    ],
)
def test_sizes_are_the_published_ones(name: BackboneName, event: Event, parameters: int) -> None:
    net = build_backbone(name, event, owner="test")
    assert sum(p.numel() for p in net.parameters()) == parameters


@pytest.mark.parametrize("name", NAMES)
def test_stages_and_features_have_the_stated_sizes(name: BackboneName) -> None:
    net = build_backbone(name, SMALL, width=0.25, owner="test").eval()
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = net(x)
        assert features.shape == (3, net.size)
        assert torch.allclose(net(x[1:2]), features[1:2], atol=1e-5)
        assert torch.equal(net(x, len(net.stages)), features)
        for stage, size in enumerate(net.sizes, start=1):
            assert net(x, stage).shape == (3, size)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: BackboneName) -> None:
    net = build_backbone(name, SMALL, width=0.25, owner="test")
    net(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


def test_channels_are_standardised_by_the_training_images() -> None:
    net = build_backbone("mlp", SMALL, width=0.1, owner="test")
    x = (
        torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.2, 0.5, 0.0])[:, None, None]
    )
    net.scale.prepare(x)
    scaled = net.scale(x)
    assert scaled.mean((0, 2, 3)).abs().max() < 1e-4
    assert torch.allclose(scaled.std((0, 2, 3)), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3)


def test_a_vision_transformer_sees_the_patches_that_are_kept() -> None:
    net = build_backbone("vit", Event((1, 28, 28), BINARY, "image"), width=0.1, owner="test")
    assert isinstance(net, ViT)
    assert net.places == 49
    x, other = torch.rand(2, 1, 28, 28), torch.rand(2, 1, 28, 28)
    other[:, :, :4, 4:8] = x[:, :, :4, 4:8]  # the second patch
    kept = torch.tensor([[1], [1]])
    assert torch.equal(net.maps(x, kept=kept), net.maps(other, kept=kept))
    everything = torch.arange(49).expand(2, -1)
    assert torch.allclose(net.maps(x, kept=everything), net.maps(x), atol=1e-6)


def test_events_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="takes images"):
        build_backbone("resnet18", Event((5,), BINARY), owner="test")
    with pytest.raises(InputError, match="needs 12 pixels or more; these are 8×8"):
        build_backbone("conv-large", Event((1, 8, 8), BINARY, "image"), owner="test")


@pytest.mark.parametrize("name", NAMES)
def test_the_shape_of_maps_is_known_without_computing_them(name: BackboneName) -> None:
    net = build_backbone(name, SMALL, width=0.25, owner="test").eval()
    with torch.no_grad():
        maps = net.finished(net.maps(torch.zeros(1, 3, 32, 32)))
    assert shape_of_maps(net, (3, 32, 32)) == tuple(maps.shape[1:])
    assert not any(p.is_meta for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_without_batch_statistics_examples_do_not_meet(name: BackboneName) -> None:
    net = build_backbone(name, SMALL, width=0.25, owner="test").train()
    before = sum(p.numel() for p in net.parameters())
    without_batch_statistics(net)
    assert sum(p.numel() for p in net.parameters()) == before
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(net(x)[:1], net(x[:1]), atol=1e-5)
        assert float(net(x).std(0).max()) > 0


@pytest.mark.parametrize(("stride", "padding", "groups", "norm"), [(4, 5, 1, True), (2, 0, 2, False)])
def test_alexnet_has_the_stated_sizes(stride: int, padding: int, groups: int, norm: bool) -> None:
    net = AlexNet(3, 1.0, stride=stride, padding=padding, groups=groups, norm=norm)
    with_bias = 96 + 256 + (0 if norm else 384 + 384 + 256)
    weights = 96 * 3 * 121 + 256 * 96 * 25 // groups + 384 * 256 * 9 + (384 * 384 + 256 * 384) * 9 // groups
    assert sum(p.numel() for p in net.parameters()) == weights + with_bias
    assert net.sizes == (96, 256, 384, 384, 256)
    with torch.no_grad():
        features = net.eval()(torch.rand(2, 3, LEAST_SIDE, LEAST_SIDE))
    assert features.shape == (2, 256)
    assert net(torch.rand(2, 3, LEAST_SIDE, LEAST_SIDE), 3).shape == (2, 384)


def test_nin_averages_places_as_the_paper() -> None:
    net = build_backbone("nin-3", SMALL, owner="test")
    pools = [m for m in net.modules() if isinstance(m, nn.MaxPool2d | nn.AvgPool2d)]
    assert [type(m) for m in pools] == [nn.MaxPool2d, nn.AvgPool2d]
    assert [(m.kernel_size, m.stride, m.padding) for m in pools] == [(3, 2, 1)] * 2
