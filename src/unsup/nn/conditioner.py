"""Conditioner networks of invertible steps. They compute in the type of their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unsup.nn.dropout import Dropout
from unsup.nn.norm import batch_norm, uses_batch_statistics
from unsup.nn.weight_norm import DataDependent

_LEAST_DEVIATION = 1e-6


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """ReLU layers and a linear layer initialised to zero: ``(B, inputs)`` → ``(B, outputs)``."""
    layers: list[nn.Module] = []
    linear: type[nn.Linear] = _FirstLinear
    for width in hidden:
        layers += [linear(inputs, width), nn.ReLU(inplace=True)]
        inputs, linear = width, nn.Linear
    last = linear(inputs, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


class ResidualMLP(nn.Module):
    """Blocks h + W₂ drop(relu(W₁ relu(h))), and a linear layer that starts at zero: ``(B, inputs)`` → ``(B, outputs)``.

    In training, a fraction ``dropout`` of the inputs of W₂ is dropped (Durkan, Bekasov, Murray, Papamakarios 2019,
    section 5.1).
    """

    def __init__(self, inputs: int, width: int, blocks: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = _FirstLinear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(width, width), _activation(dropout), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        # Stored outputs first: those of one kind then lie side by side along the batch.
        y: Tensor = torch.addmm(self.last.bias[:, None], self.last.weight, h.T).T
        return y


def _activation(dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(inplace=True), Dropout(dropout))


class _FirstLinear(nn.Linear):
    """Accepts any floating type."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class NormedConv(DataDependent):
    """A convolution with a scale and a bias per output, which has mean 0 and deviation 1 over the first batch."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, padding="same", bias=False)
        # 0.044 for 512 inputs, where the code of Glow has 0.05; with few inputs the first scales would be large.
        nn.init.normal_(self.conv.weight, std=(inputs * size**2) ** -0.5)
        self.log_scale, self.bias = nn.Parameter(torch.zeros(outputs)), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x.to(self.conv.weight.dtype))
        if self.starting:
            std, mean = torch.std_mean(h, (0, 2, 3), correction=0)
            scale = torch.where(std > _LEAST_DEVIATION, std.reciprocal(), 1.0)
            self.log_scale.copy_(scale.log())
            self.bias.copy_(-mean * scale)
        y: Tensor = h * self.log_scale.exp().view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y


class ZeroConv(nn.Module):
    """A 3×3 convolution that starts at zero, with outputs times exp(3 s) for a learned s (Glow, section 3.3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(cast(Tensor, self.conv.bias))
        self.log_scale = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.to(self.conv.weight.dtype)) * (3 * self.log_scale).exp().view(1, -1, 1, 1)
        return y


def glow_net(inputs: int, channels: int, outputs: int) -> nn.Sequential:
    """Three convolutions, ``(B, inputs, H, W)`` → ``(B, outputs, H, W)``; the last one starts at zero."""
    first, second = NormedConv(inputs, channels, 3), NormedConv(channels, channels, 1)
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True), ZeroConv(channels, outputs))


class ResidualConvNet(nn.Module):
    """The network of RealNVP, ``(B, inputs, H, W)`` → ``(B, outputs, H, W)``: weight and batch norm, summed skips.

    Details that the paper does not specify follow the code of its authors: it starts from relu([h, −h, m]) with the
    normalised input h.

    Args:
        channels: channels of the inner layers.
        mask: bool ``(1, 1, H, W)``, the entries of the input that are not blank, half of them; None: all.
    """

    mask: Tensor | None

    def __init__(self, inputs: int, outputs: int, channels: int, blocks: int, mask: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.norm_in = ShiftedNorm(inputs)
        self.conv_in = WeightNormConv(2 * inputs + (mask is not None), channels, 3, gain=False)
        self.blocks = nn.ModuleList(
            ResidualBlock(
                channels, WeightNormConv(channels, channels, 3, gain=False), WeightNormConv(channels, channels, 3)
            )
            for _ in range(blocks)
        )
        self.skips = nn.ModuleList(WeightNormConv(channels, channels, 1) for _ in range(blocks + 1))
        self.norm_out = ShiftedNorm(channels)
        self.conv_out = WeightNormConv(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm_in(x.to(self.conv_in.weight.dtype))
        parts = [h, -h]
        if self.mask is not None:
            # Half of the normalised entries are blanks.
            parts = [2 * h, -2 * h, self.mask.to(h.dtype).expand(len(h), -1, -1, -1)]
        h = self.conv_in(torch.cat(parts, 1).relu())
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = block(h)
            total = total + skip(h)
        y: Tensor = self.conv_out(self.norm_out(total).relu())
        return y


class PlainResidualConvNet(nn.Module):
    """The network of image splines, ``(B, inputs, H, W)`` → ``(B, outputs, H, W)``: 1×1, residual blocks, 1×1.

    (Durkan, Bekasov, Murray, Papamakarios 2019, https://arxiv.org/abs/1906.04032, and their code.) The last
    convolution starts at zero. Batch norms have no gain, which the next convolution has, and no bias is before them.

    Args:
        channels: channels of the blocks, which have two 3×3 convolutions each.
        dropout: share of the features before the second one that are dropped inside `unsup.nn.dropout.dropping`.
    """

    def __init__(self, inputs: int, outputs: int, channels: int, blocks: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, channels, 1)
        self.blocks = nn.ModuleList(
            ResidualBlock(
                channels,
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.Conv2d(channels, channels, 3, padding=1),
                dropout,
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(channels, outputs, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(cast(Tensor, self.last.bias))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.to(self.first.weight.dtype))
        for block in self.blocks:
            h = block(h)
        y: Tensor = self.last(h)
        return y


class ResidualBlock(nn.Module):
    """h + second(drop(relu(norm(first(relu(norm(h)))))))."""

    def __init__(self, channels: int, first: nn.Module, second: nn.Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = ShiftedNorm(channels), ShiftedNorm(channels)
        self.conv1, self.conv2, self.dropout = first, second, Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.conv1(self.norm1(h).relu())
        y: Tensor = h + self.conv2(self.dropout(self.norm2(inner).relu()))
        return y


class WeightNormConv(nn.Module):
    """Convolution with weight g · v / ‖v‖ for each output (Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868).

    It has no bias, and g = 1 without a gain: a batch normalisation follows.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, gain: bool = True) -> None:
        super().__init__()
        bound = (2 / inputs) ** 0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size).uniform_(-bound, bound))
        # The expected norm of v: the weight starts as it would without normalisation.
        self.gain = nn.Parameter(torch.full((outputs,), size / 6**0.5)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        scale = norm.reciprocal() if self.gain is None else self.gain.view(-1, 1, 1, 1) / norm
        return F.conv2d(x, self.weight * scale, padding="same")


class ShiftedNorm(nn.Module):
    """(x − μ) / √(σ² + ε) + shift for each channel, by the statistics of the batch inside `batch_statistics`."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-4) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        on = uses_batch_statistics()
        return batch_norm(x, self.running_mean, self.running_var, None, self.shift, on, self.momentum, self.eps)
