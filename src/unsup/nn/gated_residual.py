"""Gated residual blocks of convolutions, as in PixelCNN++ and PixelSNAIL.

    y = x + a ⊙ σ(b)      (a, b) = W₂ ∗ drop(φ(W₁ ∗ φ(x) + U φ(s))) + V c

with φ(x) = ELU([x, −x]) in PixelCNN++ and φ(x) = ELU(x) in PixelSNAIL, for features x, features s beside them (a
short-cut, or another stream) and a condition c (Salimans, Karpathy, Chen, Kingma 2017,
https://arxiv.org/abs/1701.05517).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import elu

from unsup.nn.causal import NOTHING, Causal, Context, Dropout, Groups, Shift, Site
from unsup.nn.causal_conv import MaskedConv, Window
from unsup.nn.weight_norm import WeightNorm

_LAST_SCALE = 0.1
"""Initial standard deviation of the outputs of the second convolution in the published code."""

Conv = Callable[[int, int, WeightNorm], Causal]
"""Makes a convolution from its numbers of inputs and outputs and its weight norm."""


def concat_elu(x: Tensor) -> Tensor:
    """ELU([x, −x]) along axis 1 (concatenated ELU): twice the features.

    >>> concat_elu(torch.tensor([[2.0]])).round(decimals=2).tolist()
    [[2.0, -0.8600000143051147]]
    """
    return elu(torch.cat([x, -x], 1))


def square(inputs: int, outputs: int, norm: WeightNorm) -> MaskedConv:
    """A convolution over 2×2 pixels: the pixel, and its left, upper and upper left neighbours."""
    return MaskedConv(inputs, outputs, window=Window(above=1, left=1), norm=norm)


def point(inputs: int, outputs: int, norm: WeightNorm) -> MaskedConv:
    """A convolution over one pixel."""
    return MaskedConv(inputs, outputs, norm=norm)


def with_ones(h: Tensor) -> Tensor:
    """Features on axis 1, and one more that is 1: with zeros around the image it marks what lies outside.

    >>> with_ones(torch.tensor([[3.0]])).tolist()
    [[3.0, 1.0]]
    """
    return torch.cat([h, torch.ones_like(h[:, :1])], 1)


class GatedResidual(Causal):
    """A gated residual block of weight-normalised convolutions, which keeps the shape of its input.

    It takes features x, or a pair (x, s) if there are features beside them. It also works in streams whose sites are
    rows.

    Args:
        width: number of features of x.
        conv: makes a convolution.
        point: makes a 1×1 convolution.
        beside: number of features s; 0 for none.
        condition: size of the features of a condition; 0 without one.
        dropout: share of features that are dropped in training.
        both_signs: whether φ(x) is ELU([x, −x]), with twice the features, or ELU(x).
    """

    def __init__(
        self,
        width: int,
        conv: Conv,
        point: Conv,
        *,
        beside: int = 0,
        condition: int = 0,
        dropout: float = 0.0,
        both_signs: bool = True,
    ) -> None:
        super().__init__()
        self.activation: Callable[[Tensor], Tensor] = concat_elu if both_signs else elu
        times = 2 if both_signs else 1
        self.first = conv(times * width, width, WeightNorm(width))
        self.beside = point(times * beside, width, WeightNorm(width)) if beside else None
        self.dropout = Dropout(dropout)
        self.second = conv(times * width, 2 * width, WeightNorm(2 * width, scale=_LAST_SCALE))
        self.shift = Shift(condition, Groups(2 * width, 1))

    def _found(self, h: Any, call: Callable[[Causal, Tensor], Tensor]) -> Tensor:
        if self.beside is None:
            x, y = h, call(self.first, self.activation(h))
        else:
            x, s = h
            y = call(self.first, self.activation(x)) + call(self.beside, self.activation(s))
        y = call(self.shift, call(self.second, call(self.dropout, self.activation(y))))
        a, b = y.chunk(2, 1)
        return torch.addcmul(x, a, b.sigmoid())

    def forward(self, h: Any, context: Context = NOTHING) -> Tensor:
        return self._found(h, lambda layer, y: layer(y, context))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[Causal, Any]:
        parts = (self.first, self.beside, self.dropout, self.second, self.shift)
        return {layer: layer.begin(n, size, context) for layer in parts if layer is not None}

    def step(self, memory: dict[Causal, Any], site: Site, h: Any) -> Tensor:
        return self._found(h, lambda layer, y: layer.step(memory[layer], site, y))

    def spread(self, seen: Any) -> Tensor:
        if self.beside is None:
            x, y = seen, self.first.spread(seen)
        else:
            x, s = seen
            y = torch.maximum(self.first.spread(x), self.beside.spread(s))
        return torch.maximum(x, self.second.spread(y))
