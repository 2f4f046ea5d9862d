"""Networks that map examples to codes and codes to examples: dense, and convolutional for any image size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

ActivationName = Literal["relu", "tanh"]
UnitName = Literal["sigmoid", "tanh", "relu", "linear"]
"""The activations of units that are features; `ActivationName` are those of hidden layers of networks."""
Sides = tuple[int, int]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "linear": nn.Identity,
}


def activated(a: Tensor, activation: UnitName) -> Tensor:
    """The units s(a)."""
    found: Tensor = _ACTIVATIONS[activation]()(a)
    return found


def slope(h: Tensor, activation: UnitName) -> Tensor:
    """The derivative s′(a) of units h = s(a), which is a function of h.

    >>> slope(torch.tensor([0.5]), "sigmoid"), slope(torch.tensor([0.5]), "tanh")
    (tensor([0.2500]), tensor([0.7500]))
    """
    if activation == "sigmoid":
        return h * (1 - h)
    if activation == "tanh":
        return 1 - h.square()
    return (h > 0).to(h.dtype) if activation == "relu" else torch.ones_like(h)


def dense(widths: Sequence[int], activation: UnitName) -> nn.Sequential:
    """Linear layers of these widths, starting with the input, with activations in between; inputs are flattened."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class TiedLinear(nn.Module):
    """h Wᵀ + b, with the transposed weights W of another layer and a bias of its own.

    Args:
        source: the layer of W. It is not a child of this module: W belongs to the source alone.
    """

    def __init__(self, source: nn.Linear) -> None:
        super().__init__()
        self._source = (source,)  # a tuple, which does not register it
        self.bias = nn.Parameter(torch.zeros(source.in_features))

    @property
    def weight(self) -> Tensor:
        return self._source[0].weight.t()

    def forward(self, h: Tensor) -> Tensor:
        return linear(h, self.weight, self.bias)


def tied_decoder(encoder: nn.Sequential, activation: UnitName) -> nn.Sequential:
    """The reverse of a `dense` encoder, with its transposed weights."""
    layers: list[nn.Module] = [nn.Flatten()]
    for layer in reversed(linear_layers(encoder)):
        assert isinstance(layer, nn.Linear)
        layers += [TiedLinear(layer), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def layer_units(net: nn.Module, x: Tensor, activations: Sequence[UnitName]) -> list[Tensor]:
    """The units of the first layers of a `dense` network, ``(B, width)`` each: one layer for each activation."""
    found, h = [], x.flatten(1)
    for layer, activation in zip(linear_layers(net), activations, strict=False):
        h = activated(layer(h), activation)
        found.append(h)
    return found


def linear_layers(net: nn.Module) -> list[nn.Linear | TiedLinear]:
    """The linear layers of a `dense` network, from its input to its output."""
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear | TiedLinear)]


def halved(sides: Sides, times: int) -> list[Sides]:
    """The sides of an image after 0, 1, …, ``times`` halvings, each rounded down.

    >>> halved((28, 9), 2)
    [(28, 9), (14, 4), (7, 2)]
    """
    return [(sides[0] >> i, sides[1] >> i) for i in range(times + 1)]


def conv_encoder(channels: Sequence[int], sides: Sides, outputs: int, activation: UnitName) -> nn.Sequential:
    """4×4 convolutions of stride 2, then a linear layer: ``(B, channels[0], *sides)`` → ``(B, outputs)``."""
    layers: list[nn.Module] = []
    for below, above in pairwise(channels):
        layers += [nn.Conv2d(below, above, 4, stride=2, padding=1), _ACTIVATIONS[activation]()]
    height, width = halved(sides, len(channels) - 1)[-1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, outputs))


def conv_decoder(inputs: int, channels: Sequence[int], sides: Sides, activation: UnitName) -> nn.Sequential:
    """The reverse of `conv_encoder`: ``(B, inputs)`` → ``(B, channels[-1], *sides)``.

    It adds the row or column back that a halving has rounded off.
    """
    smallest, *larger = reversed(halved(sides, len(channels) - 1))
    shape = (channels[0], *smallest)
    layers: list[nn.Module] = [nn.Linear(inputs, math.prod(shape)), nn.Unflatten(1, shape)]
    for (below, above), (height, width) in zip(pairwise(channels), larger, strict=True):
        lost = (height % 2, width % 2)
        up = nn.ConvTranspose2d(below, above, 4, stride=2, padding=1, output_padding=lost)
        layers += [_ACTIVATIONS[activation](), up]
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """h + Conv₃ₓ₃(ReLU(Conv₃ₓ₃(ReLU(h)) + V c)); without a condition there is no V c.

    Args:
        width: number of features.
        condition: size of the features c of a condition; 0 without one.
    """

    def __init__(self, width: int, condition: int = 0) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.shift = nn.Linear(condition, width, bias=False) if condition else None

    def forward(self, h: Tensor, given: Tensor | None = None) -> Tensor:
        a: Tensor = self.first(relu(h))
        if self.shift is not None:
            assert given is not None
            a = a + linear(given, self.shift.weight)[:, :, None, None]
        return cast(Tensor, h + self.second(relu(a)))


def start_glorot(*nets: nn.Module) -> None:
    """Biases 0, and weights drawn as by Glorot, Bengio 2010 (https://proceedings.mlr.press/v9/glorot10a.html)."""
    for net in nets:
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
