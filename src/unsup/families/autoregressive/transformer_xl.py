"""Transformer-XL: segments with a memory of the features before them, and relative positions.

log p(x | c) = Σ_t log softmax(W hᴺ_t)_{x_t}      h⁰_t = √d E[x_{t−1}] + V c
a = LN(h + Attention(h, memory))      h' = LN(a + W₂ ReLU(W₁ a))

(Dai, Yang, Yang, Carbonell, Le, Salakhutdinov 2019, https://arxiv.org/abs/1901.02860.) An example is a long window of
several segments of S sites. In each layer, site i of a segment attends to the M sites before the segment, by the inputs
of the layer there, which are detached, and to the sites 0, …, i of its own. The score of a query and a key at distance
r is q'k + q'W r + u'k + v'W r, see `RelativeAttention`. The paper processes the segments in turn and stores M features;
here all segments of an example are computed at once, with the same result. As N layers reach N memories back, context
is longer than M. In evaluation the memory may be longer, with far distances told as ``clamp``, and all sites may see
the same number of sites: the last M ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from unsup.core.config import Count, Whole, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import NOTHING, Causal, Context, Dropout, Pointwise, Site, layers_of
from unsup.nn.decoder import draw_weights
from unsup.nn.entries import against_all_but_symbols
from unsup.nn.relative_attention import Reach, RelativeAttention
from unsup.nn.sequence import SequenceModel, Tokens

_DEVIATION = 0.02  # of initial weights


class PostNormBlock(Causal):
    """Attention and a net, each added to its input and then normalised.

    Args:
        width: number of features.
        attention: the attention layer.
        hidden: units of the net.
        dropout: share that is dropped in training of both terms, and of the units.
    """

    def __init__(self, width: int, attention: RelativeAttention, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        self.enter, self.leave = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        h = self.first(h + self.dropout(self.attention(h, context), context))
        units = self.dropout(self.enter(h).relu(), context)
        return cast(Tensor, self.second(h + self.dropout(self.leave(units), context)))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, object]:
        return self.attention.begin(n, size, context)

    def step(self, memory: dict[str, object], site: Site, h: Tensor) -> Tensor:
        h = self.first(h + self.attention.step(memory, site, h))
        return cast(Tensor, self.second(h + self.leave(self.enter(h).relu())))

    def spread(self, seen: Tensor) -> Tensor:
        return torch.maximum(seen, self.attention.spread(seen))


class TransformerXL(SequenceModel):
    """Decoder with segment memory and relative positions (Dai et al. 2019, https://arxiv.org/abs/1901.02860).

    The preset ``paper`` is the 12-layer model of enwik8, with 41 M parameters, and its evaluation. There the logits
    share their weights with the embedding; here they have their own, and each layer has its own u and v.

    Args:
        event: sequences, images or vectors of discrete entries with one support.
        width: number of features.
        layers: number of blocks.
        heads: number of attention heads, a divisor of the width.
        hidden: units of the net of a block; None for four times the width.
        segment: number of entries of a segment, S.
        memory: number of entries before a segment that it attends to, M.
        eval_memory: M outside training; None for ``memory``.
        same_length: outside training, every entry attends to the last M ones only, itself included, wherever it is in
            its segment.
        clamp: outside training, larger distances are told as this one; None for no limit.
        dropout: share that is dropped in training of embeddings, of what a block adds, of its units and of distances.
        attention_dropout: share of attention weights that are dropped in training.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: real data, mixed columns, a width that the heads do not divide, or ``same_length`` without memory.

    >>> from unsup import Event, Support
    >>> event = Event((12,), Support("nominal", 5), "sequence")
    >>> model = TransformerXL(event, width=8, layers=2, heads=2, segment=3, memory=2).eval()
    >>> [int(seen) for seen in (~model.blind_spot()).tril(-1).sum(1)]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8]
    """

    presets = {
        "tiny": {"width": 8, "layers": 2, "heads": 2, "segment": 4, "memory": 4},
        "paper": {
            "width": 512,
            "layers": 12,
            "heads": 8,
            "segment": 512,
            "memory": 512,
            "eval_memory": 2100,
            "same_length": True,
            "clamp": 820,
            "dropout": 0.1,
        },
    }
    fit_defaults = {"lr": 5e-4, "batch_size": 16, "clip": 0.25}

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 128,
        layers: Count = 4,
        heads: Count = 4,
        hidden: Count | None = None,
        segment: Count = 64,
        memory: Whole = 64,
        eval_memory: Whole | None = None,
        same_length: bool = False,
        clamp: Count | None = None,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        attention_dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        given: Event | None = None,
    ) -> None:
        self.take(event, given)
        assert event.uniform is not None
        longest = memory if eval_memory is None else eval_memory
        if same_length and not longest:
            raise InputError("same_length without memory leaves nothing to attend to; set memory or eval_memory")
        reaches = (Reach(segment, memory), Reach(segment, longest, same_length, clamp))
        self.tokens = Tokens(event.uniform.levels, width, self.conditions.size)
        self.scale = Pointwise(partial(torch.mul, other=width**0.5))
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(
                width,
                RelativeAttention(width, heads, *reaches, dropout, attention_dropout),
                hidden or 4 * width,
                dropout,
            )
            for _ in range(layers)
        )
        self.head = Pointwise(nn.Linear(width, self.observation.outputs_each))
        draw_weights(self, lambda weight: _DEVIATION)
        # Like an embedding: from zeros, every norm would multiply the gradient of the first entry by its 1/√ε.
        nn.init.normal_(self.tokens.start, 0, _DEVIATION)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_symbols(event)

    def layers(self) -> Sequence[Causal]:
        return [self.tokens, self.scale, self.dropout, *layers_of(self.blocks), self.dropout, self.head]
