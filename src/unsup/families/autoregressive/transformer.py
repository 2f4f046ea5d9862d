"""Transformer: a pre-norm decoder over tokens, colours or codes.

log p(x | c) = Σ_t log softmax(W LN(h_t))_{x_t}      h⁰_t = E[x_{t−1}] + P_t + V c
hˡ⁺½ = hˡ + Attention(LN(hˡ))      hˡ⁺¹ = hˡ⁺½ + W₂ GELU(W₁ LN(hˡ⁺½))

(Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; the norms and the initial weights are those of GPT-2, Radford
et al. 2019. Over pixels it is image GPT, Chen et al. 2020, https://proceedings.mlr.press/v119/chen20s.html.) Before the
first entry there is a learned start. Logits have weights of their own, which start at zero, as in image GPT. Unlike in
its code, places of images are embedded as the sum of a row, a column and a channel, norms have means and biases, linear
maps have biases, and GELU is exact, where theirs is x σ(1.702 x).

With ``auxiliary``, training has the additional losses of the 64-layer character model (Al-Rfou et al. 2018,
https://arxiv.org/abs/1808.04444). With −log pˡ the same loss of predictions from hˡ by a head of its own, l = 1, …, N,
and −log rˡ that of a second head which predicts the entry after the next,

    loss = −log p^N − ½ log r^N − Σ_{l < N, s < l / 2N} (log pˡ + ½ log rˡ)      s: the share of training that is done
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice, Terms
from unsup.nn.attention import Attention
from unsup.nn.causal import Causal, Context, Dropout, layers_of
from unsup.nn.decoder import Block, draw_weights, linear_map, normed_map
from unsup.nn.entries import against_all_but_symbols
from unsup.nn.sequence import Places, SequenceModel, Tokens


class Transformer(SequenceModel):
    """Decoder-only transformer over discrete entries.

    The preset ``paper`` is iGPT-S of image GPT (Chen et al. 2020), whose 76 M parameters are for 32×32 images of 512
    colours.

    Args:
        event: sequences, images or vectors of discrete entries with one support.
        width: number of features.
        layers: number of blocks.
        heads: number of attention heads, a divisor of the width.
        dropout: share that is dropped in training of embeddings, of what a block adds, and of attention weights.
        auxiliary: whether training has the losses of intermediate layers and of second targets.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: real data, mixed columns, or a width that the heads do not divide.

    >>> from unsup import Event, Support
    >>> model = Transformer(Event((8,), Support("nominal", 5), "sequence"), width=8, layers=1, heads=2)
    >>> model.sample(3).shape
    torch.Size([3, 8])
    """

    presets = {
        "tiny": {"width": 16, "layers": 2, "heads": 2},
        "paper": {"width": 512, "layers": 24, "heads": 8},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 32, "betas": (0.9, 0.95), "schedule": "cosine", "clip": 1.0}

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 128,
        layers: Count = 4,
        heads: Count = 4,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        auxiliary: bool = False,
        given: Event | None = None,
    ) -> None:
        self.take(event, given)
        assert event.uniform is not None
        self.tokens = Tokens(event.uniform.levels, width, self.conditions.size)
        self.places = Places(self.order, width)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, Attention(width, heads, dropout), 4 * width, dropout) for _ in range(layers)
        )
        outputs = self.observation.outputs_each
        self.head = normed_map(width, outputs)
        self.auxiliary = auxiliary
        if auxiliary:
            self.early = nn.ModuleList(normed_map(width, 2 * outputs) for _ in range(layers - 1))
            self.second = normed_map(width, outputs)
        draw_weights(self, lambda weight: 0.02)
        nn.init.zeros_(linear_map(self.head).weight)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_symbols(event)

    def layers(self) -> Sequence[Causal]:
        return [self.tokens, self.places, self.dropout, *layers_of(self.blocks), self.head]

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x | c): ``(B,)``. With ``auxiliary`` in training, ``loss`` is the sum of ``nats``, which is that, of
        the losses of ``layers`` and of those of the ``second`` targets."""
        if not (self.auxiliary and self.training):
            return super().loss(batch, generator=generator)
        given = None if self.given is None else self.condition(batch.given, len(batch))
        x = self._with_low_padding(batch.x, batch.lengths)
        context, targets = self._context(given, generator), self._targets(x)

        def surprise(outputs: Tensor, ahead: int = 0) -> Tensor:
            seen = outputs[:, : outputs.shape[1] - ahead]
            return -self._total(targets[:, ahead:], seen, batch.lengths, ahead)

        *early, last = self._states(x, context)
        nats, second = surprise(self.head(last)), surprise(self.second(last), 1) / 2
        layers = nats.new_zeros(nats.shape)
        for number, (own, h) in enumerate(zip(self.early, early, strict=True), 1):
            if contributes(number, len(self.blocks), batch.time):
                following, after = own(h).chunk(2, -1)
                layers = layers + surprise(following) + surprise(after, 1) / 2
        return {"loss": nats + layers + second, "nats": nats, "layers": layers, "second": second}

    def _states(self, x: Tensor, context: Context) -> list[Tensor]:
        """The features after each block, ``(B, D, width)``."""
        h = self._features(x)
        states = []
        for layer in self.layers()[:-1]:
            h = layer(h, context)
            if isinstance(layer, Block):
                states.append(h)
        return states


def contributes(layer: int, layers: int, time: Time) -> bool:
    """Whether the loss of an intermediate layer l = 1, …, N − 1 of N counts: until l / 2N of training."""
    return time.share < layer / (2 * layers)
