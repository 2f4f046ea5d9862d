"""WaveNet: dilated causal convolutions with gated units, residual and skip connections.

log p(x | c) = Σ_t log p(x_t | x_{t−R}, …, x_{t−1}, c)      R = 1 + stacks · (2ⁿ − 1) samples: the receptive field
z^l_t = tanh(W_f^l * h^l + V_f^l c) ⊙ σ(W_g^l * h^l + V_g^l c)      * : taps h_t and h_{t−d}, d = 1, 2, …, 2ⁿ⁻¹
h^{l+1} = h^l + R^l z^l      outputs = W₂ ReLU(W₁ ReLU(Σ_l S^l z^l))

(van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior, Kavukcuoglu 2016,
https://arxiv.org/abs/1609.03499; sampling with queues: Le Paine et al. 2016, https://arxiv.org/abs/1611.09482.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Generator, nn

from unsup.core.batch import Batch
from unsup.core.config import AtLeast, Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import Causal, Pointwise, Sequential
from unsup.nn.dilated import Coordinates, DilatedStack, Number
from unsup.nn.logistics import MixtureOfLogistics, start_at
from unsup.nn.sequence import Delayed, Frames, SequenceModel, Tokens

_MOST_SYMBOLS = 256


class WaveNet(SequenceModel):
    """Density of sound and other sequences, and of images with coordinates as inputs (van den Oord et al. 2016).

    Entries have a softmax; two levels a Bernoulli, more than 256 ordered levels a mixture of logistics, real entries a
    mixture of Gaussians. Sound should have 256 levels (``mu_law=True``). A condition is added inside every gate.

    Args:
        event: sequences, images or vectors of entries with one support.
        width: number of features of a layer, and of its gate.
        skip: number of features of the sum of skip connections, and of the head.
        layers: number of layers of a stack, with dilations 1, 2, 4, …
        stacks: number of stacks.
        components: number of Gaussians of a real entry, and of logistics of one with more than 256 levels.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: columns of several kinds.

    >>> from unsup import Event, Support
    >>> model = WaveNet(Event((16,), Support("ordinal", 256), "sequence"), width=4, skip=8, layers=3, stacks=2)
    >>> model.receptive_field
    15
    >>> model.sample_long(2, 40).shape
    torch.Size([2, 40])
    """

    presets = {
        "tiny": {"width": 12, "skip": 24, "layers": 3, "stacks": 2, "components": 3},
        "paper": {"width": 64, "skip": 256, "layers": 10, "stacks": 3},
    }
    fit_defaults = {"lr": 2e-3, "batch_size": 16}
    data_defaults = SequenceModel.data_defaults | {"sound": {"mu_law": True}}
    unbounded = True

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 32,
        skip: Count = 128,
        layers: Annotated[int, AtLeast(1), Within(1, 24)] = 9,
        stacks: Count = 2,
        components: Count = 5,
        given: Event | None = None,
    ) -> None:
        self.take(event, given, components=components)
        support = event.uniform
        assert support is not None
        self.tokens: Delayed
        if event.is_real:
            self.tokens = Frames(1, width)
        elif support.kind == "ordinal" and support.levels > _MOST_SYMBOLS:
            self.observation, self.tokens = MixtureOfLogistics(event, components), Number(support.levels, width)
        else:
            self.tokens = Tokens(support.levels, width)
        has_coordinates = Coordinates.has_any(event.shape, is_image=event.is_image)
        self.coordinates = Coordinates(self.order, width, is_image=event.is_image) if has_coordinates else None
        dilations = [2**layer for _ in range(stacks) for layer in range(layers)]
        self.receptive_field = 1 + sum(dilations)
        self.stack = DilatedStack(width, skip, dilations, self.conditions.size)
        self.head = Sequential(
            Pointwise(torch.relu),
            Pointwise(nn.Linear(skip, skip)),
            Pointwise(torch.relu),
            Pointwise(nn.Linear(skip, self.observation.outputs_each)),
        )

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.uniform is not None else "takes entries of one kind only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)  # it is for sound; on other data models that see everything before are better

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """As for all models; a mixture of logistics starts at that of all entries."""
        super().prepare(batch, generator=generator)
        if isinstance(self.observation, MixtureOfLogistics):
            start_at(self.head, self.observation.start(batch.x))

    def layers(self) -> Sequence[Causal]:
        return [self.tokens, *filter(None, [self.coordinates]), self.stack, self.head]
