"""Networks that map examples to codes and codes to examples: dense, and convolutional for any image size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn.functional import linear, relu

ActivationName = Literal["relu", "tanh"]
Sides = tuple[int, int]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def dense(widths: Sequence[int], activation: ActivationName) -> nn.Sequential:
    """Linear layers of these widths, starting with the input, with activations in between; inputs are flattened."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def halved(sides: Sides, times: int) -> list[Sides]:
    """The sides of an image after 0, 1, …, ``times`` halvings, each rounded down.

    >>> halved((28, 9), 2)
    [(28, 9), (14, 4), (7, 2)]
    """
    return [(sides[0] >> i, sides[1] >> i) for i in range(times + 1)]


def conv_encoder(channels: Sequence[int], sides: Sides, outputs: int, activation: ActivationName) -> nn.Sequential:
    """4×4 convolutions of stride 2, then a linear layer: ``(B, channels[0], *sides)`` → ``(B, outputs)``."""
    layers: list[nn.Module] = []
    for below, above in pairwise(channels):
        layers += [nn.Conv2d(below, above, 4, stride=2, padding=1), _ACTIVATIONS[activation]()]
    height, width = halved(sides, len(channels) - 1)[-1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, outputs))


def conv_decoder(inputs: int, channels: Sequence[int], sides: Sides, activation: ActivationName) -> nn.Sequential:
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
