"""Sparse Transformer: factorised attention over long sequences, in time and memory n √n.

log p(x | c) = Σ_t log softmax(W LN(h_t))_{x_t}, with the blocks of a pre-norm decoder, in which a site i attends to

    strided  {i − l, …, i} in half of the heads, {j ≤ i: (i − j) mod l = 0} in the others
    fixed    {j ≤ i: ⌊j / l⌋ = ⌊i / l⌋}          {j ≤ i: l − (h + 1) c ≤ j mod l < l − h c} in head h = 0, 1, … of them

(Child, Gray, Radford, Sutskever 2019, https://arxiv.org/abs/1904.10509). The paper describes three ways to combine the
two sets: one for each residual block, one for all heads, and different ones for different heads, as here. Two layers
together reach every earlier site. Images are embedded by row, column and channel, other examples by row ⌊t / l⌋ and
column t mod l. Weights start at N(0, 0.125² / inputs), with 1/√(2N) of it at the ends of N residual blocks; embeddings
of width d at N(0, 0.125² / d), of m axes of places at N(0, 0.125² / (d m)), logits at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import nn

from unsup.core.config import Count, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import Causal, layers_of
from unsup.nn.decoder import Block, draw_weights, linear_map, normed_map
from unsup.nn.entries import against_all_but_symbols
from unsup.nn.sequence import Places, SequenceModel, Tokens
from unsup.nn.sparse_attention import Pattern, SparseAttention


class SparseTransformer(SequenceModel):
    """Decoder with strided or fixed sparse attention (Child et al. 2019, https://arxiv.org/abs/1904.10509).

    The preset ``paper`` is that for CIFAR-10, with 59 M parameters: 128 layers of width 256, 2 heads, ``half_size``.
    GELU is exact here; the paper's is the approximation x σ(1.702 x).

    Args:
        event: sequences, images or vectors of discrete entries with one support.
        width: number of features.
        layers: number of blocks.
        heads: number of attention heads, even; the first half sees one of the two sets, the second half the other one.
        pattern: ``strided`` for images and sound, whose structure is periodic, or ``fixed``, for text.
        stride: l, at most the number of entries; None for the entries of a row of an image, else about √n of n entries.
        summary: number of columns c of a row that later rows see in one head of ``fixed``, other ones in each head, at
            most l; None for an eighth of l.
        half_size: whether queries and keys have half of the features, and the nets 2 instead of 4 times as many.
        dropout: share that is dropped in training of what is added to the residual stream.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: real data, mixed columns, an odd number of heads, features that the heads do not divide, a stride
            above the number of entries, or a summary above the stride.

    >>> from unsup import Event, Support
    >>> model = SparseTransformer(Event((9,), Support("nominal", 5), "sequence"), width=8, layers=2, heads=2)
    >>> model.stride, bool(model.blind_spot().any())
    (3, False)
    """

    presets = {
        "tiny": {"width": 16, "layers": 2, "heads": 2},
        "paper": {"width": 256, "layers": 128, "heads": 2, "half_size": True, "dropout": 0.25},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 16, "betas": (0.9, 0.95), "clip": 1.0}

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 128,
        layers: Count = 4,
        heads: Count = 4,
        pattern: Pattern = "strided",
        stride: Count | None = None,
        summary: Count | None = None,
        half_size: bool = False,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        given: Event | None = None,
    ) -> None:
        self.take(event, given)
        assert event.uniform is not None
        entries = self.order.dims
        if stride is None:
            stride = event.shape[0] * event.shape[2] if event.is_image else math.ceil(math.sqrt(entries))
        if stride > entries:
            raise InputError(f"stride={stride} is more than the {entries} entries of an example")
        if summary is None:
            summary = max(1, stride // 8)
        if summary > stride:
            raise InputError(f"summary={summary} columns are more than the stride={stride} of a row")
        self.stride = stride
        keys, hidden = (width // 2, 2 * width) if half_size else (width, 4 * width)
        self.tokens = Tokens(event.uniform.levels, width, self.conditions.size)
        shape = event.shape if event.is_image else (math.ceil(entries / stride), stride)
        self.places = Places(self.order, width, shape)
        self.blocks = nn.ModuleList(
            Block(width, SparseAttention(width, heads, keys, pattern, stride, summary), hidden, dropout)
            for _ in range(layers)
        )
        self.head = normed_map(width, self.observation.outputs_each)
        draw_weights(self, lambda weight: 0.125 * weight.shape[-1] ** -0.5)
        with torch.no_grad():
            for table in self.places.tables:
                table.mul_(len(self.places.tables) ** -0.5)
            linear_map(self.head).weight.zero_()

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_symbols(event)

    def layers(self) -> Sequence[Causal]:
        return [self.tokens, self.places, *layers_of(self.blocks), self.head]
