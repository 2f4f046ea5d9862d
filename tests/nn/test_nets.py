"""Dense and convolutional nets at any size: which outputs which inputs reach, and how they start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unsup.nn.nets import conv_decoder, conv_encoder, dense, halved, start_glorot


@pytest.mark.parametrize("sides", [(8, 8), (9, 21), (28, 28), (5, 7)])
def test_the_way_up_has_the_sides_of_the_way_down(sides: tuple[int, int]) -> None:
    widths = (2, 5, 6)
    encoder = conv_encoder(widths, sides, 4, "tanh").double()
    decoder = conv_decoder(4, widths[::-1], sides, "tanh").double()
    x = torch.randn(3, 2, *sides, dtype=torch.float64, requires_grad=True)
    z = encoder(x)
    assert z.shape == (3, 4)
    (gradient,) = torch.autograd.grad(z.sum(), x)
    side_seen = [side // 4 * 4 for side in sides]  # a rounded half leaves the last rows to the padding of a kernel
    assert bool((gradient[:, :, : side_seen[0], : side_seen[1]] != 0).all())
    made = decoder(z)
    assert made.shape == x.shape
    assert bool((made[0] != made[1]).all())
    for shape, layer in zip(halved(sides, 2)[1:], (encoder[0], encoder[2]), strict=True):
        x = layer(x)
        assert x.shape[2:] == shape


def test_dense_nets_are_products_with_the_activation_between() -> None:
    net = dense((6, 5, 4), "relu").double()
    x = torch.randn(3, 2, 3, dtype=torch.float64)
    first, last = net[1], net[3]
    expected = (x.flatten(1) @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(net(x), expected)
    assert [type(layer) for layer in dense((6, 4), "tanh")] == [nn.Flatten, nn.Linear]


def test_glorots_start() -> None:
    net = nn.Sequential(nn.Linear(300, 100), nn.Conv2d(20, 30, 3), nn.ConvTranspose2d(20, 30, 4, bias=False))
    start_glorot(net)
    for layer, fans in zip(net, (400, 50 * 9, 50 * 16), strict=True):
        limit = math.sqrt(6 / fans)
        assert 0.98 * limit < float(layer.weight.detach().abs().max()) <= limit
        assert layer.bias is None or not layer.bias.any()
