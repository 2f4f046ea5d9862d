"""Gated convolutions with self-attention, the networks of Flow++ (Ho et al. 2019, https://arxiv.org/abs/1902.00275)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, elu, scaled_dot_product_attention

from unsup.nn.dropout import Dropout
from unsup.nn.split import HalfCheckerboard
from unsup.nn.weight_norm import WeightNorm

_QUIET = 0.1  # deviation of the outputs of networks and residual branches over the first batch


class StartedConv(nn.Module):
    """A convolution with weight normalisation, whose outputs have a given deviation over the first batch.

    ``(B, inputs, H, W)`` → ``(B, outputs, H, W)``.
    """

    def __init__(self, inputs: int, outputs: int, size: int, deviation: float = 1.0) -> None:
        super().__init__()
        fresh = nn.Conv2d(inputs, outputs, size)
        assert fresh.bias is not None
        self.weight, self.bias, self.norm = fresh.weight, fresh.bias, WeightNorm(outputs, scale=deviation)

    def forward(self, h: Tensor) -> Tensor:
        h = conv2d(h.to(self.weight.dtype), self.norm.weight(self.weight), self.bias, padding="same")
        return self.norm.started(h, self.bias)


class GatedConv(nn.Module):
    """h + a ⊙ σ(b) with (a, b) from two convolutions and a context, then layer normalisation of the channels.

    Args:
        channels: of h.
        context: channels of the context, or 0.
        dropout: share of the inputs of the second convolution that are dropped in training.
    """

    def __init__(self, channels: int, context: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = StartedConv(2 * channels, channels, 3)
        self.aside = StartedConv(2 * context, channels, 1) if context else None
        self.dropout = Dropout(dropout)
        self.second = StartedConv(2 * channels, 2 * channels, 1, _QUIET)
        self.norm = _ChannelNorm(channels)

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        inner = self.first(_double(h))
        if self.aside is not None and context is not None:
            inner = inner + self.aside(_double(context))
        value, gate = self.second(self.dropout(_double(inner))).chunk(2, 1)
        y: Tensor = self.norm(h + value * gate.sigmoid())
        return y


class GatedAttention(nn.Module):
    """h + a ⊙ σ(b) with (a, b) from self-attention over all pixels, then layer normalisation of the channels."""

    def __init__(self, channels: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.queries = StartedConv(channels, 3 * channels, 1)
        self.dropout = Dropout(dropout)
        self.merge = StartedConv(channels, 2 * channels, 1, _QUIET)
        self.norm = _ChannelNorm(channels)

    def forward(self, h: Tensor, places: Tensor) -> Tensor:
        """``places``: what is added to h for the attention alone."""
        split = self.queries(h + places).flatten(2).transpose(1, 2).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(query, key, value)
        found = found.transpose(1, 2).flatten(2).transpose(1, 2).view(h.shape)
        value, gate = self.merge(self.dropout(found)).chunk(2, 1)
        y: Tensor = self.norm(h + value * gate.sigmoid())
        return y


class GatedAttentionNet(nn.Module):
    """Blocks of a gated convolution and gated attention, ``(B, inputs + context, H, W)`` → ``(B, outputs, H, W)``.

    Args:
        inputs: channels of the half that is seen.
        context: channels of a context, which are inputs of every block.
        channels: of the blocks.
        sides: H and W, for the learned places.
        dropout: share of the features inside the branches of the blocks that are dropped in training.
    """

    def __init__(
        self,
        inputs: int,
        context: int,
        channels: int,
        blocks: int,
        heads: int,
        outputs: int,
        sides: tuple[int, int],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context = context
        self.first = StartedConv(inputs, channels, 3)
        self.places = nn.Parameter(0.01 * torch.randn(channels, *sides))
        self.convs = nn.ModuleList(GatedConv(channels, context, dropout) for _ in range(blocks))
        self.attentions = nn.ModuleList(GatedAttention(channels, heads, dropout) for _ in range(blocks))
        self.last = StartedConv(channels, outputs, 3, _QUIET)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.places.dtype)
        context = x[:, -self.context :] if self.context else None
        h = self.first(x[:, : x.shape[1] - self.context])
        for conv, attention in zip(self.convs, self.attentions, strict=True):
            h = attention(conv(h, context), self.places)
        y: Tensor = self.last(h)
        return y


class GatedFeatures(nn.Module):
    """A convolution and gated convolutions: ``(B, inputs, H, W)`` → ``(B, 2 channels, H, W / 2)``.

    Both colours of the checkerboard are side by side, as a coupling of its halves needs them.
    """

    def __init__(self, inputs: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.first = StartedConv(inputs, channels, 3)
        self.convs = nn.ModuleList(GatedConv(channels) for _ in range(blocks))
        self.colours = HalfCheckerboard(0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for conv in self.convs:
            h = conv(h)
        return torch.cat(self.colours.parts(h), 1)


class _ChannelNorm(nn.Module):
    """Layer normalisation of the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, h: Tensor) -> Tensor:
        y: Tensor = self.norm(h.movedim(1, -1)).movedim(-1, 1)
        return y


def _double(h: Tensor) -> Tensor:
    """elu of [h, −h]."""
    return elu(torch.cat([h, -h], 1))
