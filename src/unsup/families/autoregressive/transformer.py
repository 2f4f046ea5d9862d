"""Transformer: a pre-norm decoder over tokens, colours or codes.

log p(x | c) = Σ_t log softmax(W LN(h_t))_{x_t}      h⁰_t = E[x_{t−1}] + P_t
hˡ⁺½ = hˡ + Attention(LN(hˡ))      hˡ⁺¹ = hˡ⁺½ + W₂ GELU(W₁ LN(hˡ⁺½))

(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; pre-norm decoder: Radford et al. 2019.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

from torch import nn

from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.nn.attention import Attention
from unsup.nn.causal import Causal, Dropout, Sequential
from unsup.nn.sequence import Places, SequenceModel, Sitewise, Tokens


class Transformer(SequenceModel):
    """Decoder-only transformer over discrete entries.

    Args:
        event: sequences, images or vectors of discrete entries with one support.
        width: number of features.
        layers: number of blocks.
        heads: number of attention heads, a divisor of the width.
        dropout: share of features that are dropped in training.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: real data, mixed columns, or a width that the heads do not divide.

    >>> from unsup import Event, Support
    >>> model = Transformer(Event((8,), Support("nominal", 5), "sequence"), width=8, layers=1, heads=2)
    >>> model.sample(3).shape
    torch.Size([3, 8])
    """

    presets = {"tiny": {"width": 16, "layers": 2, "heads": 2}}
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 128,
        layers: Count = 4,
        heads: Count = 4,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        given: Event | None = None,
    ) -> None:
        self.take(event, given)
        assert event.uniform is not None
        self.tokens = Tokens(event.uniform.levels, width, self.conditions.size)
        self.places = Places(self.order, width)
        self.blocks = nn.ModuleList(
            Sequential(
                Sequential(Sitewise(nn.LayerNorm(width)), Attention(width, heads), Dropout(dropout), residual=True),
                Sequential(
                    Sitewise(nn.LayerNorm(width)),
                    Sitewise(nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))),
                    Dropout(dropout),
                    residual=True,
                ),
            )
            for _ in range(layers)
        )
        self.head = Sequential(Sitewise(nn.LayerNorm(width)), Sitewise(nn.Linear(width, self.observation.outputs_each)))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.is_discrete and event.uniform is not None else "takes discrete entries of one kind only"

    def layers(self) -> Sequence[Causal]:
        return [self.tokens, self.places, *cast(list[Causal], list(self.blocks)), self.head]
