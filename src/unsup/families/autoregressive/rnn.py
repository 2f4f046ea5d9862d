"""Recurrent networks over symbols, pixels or frames.

log p(x | c) = Σ_t log p(x_t | h_t)      h_t = f(h_{t−1}, x_{t−1}, c)

(Graves 2013, https://arxiv.org/abs/1308.0850): a stack of LSTM or GRU layers f reads the sequence entry by entry, and a
linear map of its last layer gives the distribution of the next entry: a softmax over symbols, a Bernoulli logit, or a
mixture of Gaussians. The cells have no peepholes and there are no connections past layers, as in later work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from unsup.core.config import Count, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import Causal, Dropout, Pointwise, layers_of
from unsup.nn.recurrent import Appended, CellName, Plain, Recurrent
from unsup.nn.sequence import SequenceModel, Tokens


class RNN(SequenceModel):
    """LSTM or GRU layers over sequences, images and vectors (Graves 2013, https://arxiv.org/abs/1308.0850).

    Symbols are one-hot, or embedded if there are more than ``width`` of them; binary and real entries are one number.
    A condition, and coordinates, are appended to the inputs of every site.

    Args:
        event: sequences, images or vectors whose entries have one support.
        cell: kind of the cells.
        width: number of cells of each layer.
        layers: number of layers.
        dropout: share of the features that are dropped in training between layers, and before the output.
        weight_dropout: share of the weights between the states of consecutive sites that are dropped in training, the
            same ones at all sites of a batch (Merity, Keskar, Socher 2018, https://arxiv.org/abs/1708.02182).
        chunk: truncated back-propagation: gradients do not flow from a chunk of so many sites into earlier ones, but
            the state does. None: gradients flow through the whole example.
        coordinates: append to the inputs where the next entry is along each axis of the example, scaled to [−1, 1].
        frames: in sequences of vectors ``(T, C)`` the C entries of a vector are independent given earlier vectors.
            Otherwise they are generated one after the other. Other examples are not changed.
        components: number of Gaussians of a real entry.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: a table with mixed columns.

    >>> from unsup import Event, Support
    >>> model = RNN(Event((8,), Support("nominal", 5), "sequence"), width=8, layers=1)
    >>> model.sample(3).shape
    torch.Size([3, 8])
    """

    presets = {
        "tiny": {"width": 16, "layers": 2},
        # The network of characters in section 3.1 of the paper, without its 3,000 peepholes.
        "paper": {"width": 1000, "layers": 1},
    }
    fit_defaults = {"lr": 2e-3, "batch_size": 64, "clip": 1.0}
    unbounded = True

    def __init__(
        self,
        event: Event,
        *,
        cell: CellName = "lstm",
        width: Count = 256,
        layers: Count = 2,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        weight_dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        chunk: Count | None = None,
        coordinates: bool = False,
        frames: bool = True,
        components: Count = 5,
        given: Event | None = None,
    ) -> None:
        frame = event.shape[1] if frames and event.layout == "sequence" and len(event.shape) == 2 else 1
        self.take(event, given, frame=frame, components=components)
        assert event.uniform is not None
        levels = event.uniform.levels
        self.inputs: Plain | Tokens
        self.inputs = (
            Tokens(levels, width) if frame == 1 and levels > width else Plain(event, frame, one_hot=levels > 2)
        )
        places = self.order.coordinates(frame) if coordinates else None
        self.appended = Appended(places, self.conditions.size)
        widths = [len(self.inputs.start) + self.appended.size, *[width] * layers]
        self.stack = nn.ModuleList(
            Recurrent(a, width, cell, chunk=chunk, weight_dropout=weight_dropout) for a in widths[:-1]
        )
        self.dropout = Dropout(dropout)
        self.head = Pointwise(nn.Linear(width, frame * self.observation.outputs_each))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return (
            None if event.uniform is not None and not event.missing else "takes entries of one kind only, none missing"
        )

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    def reason_against_length(self) -> str | None:
        if self.appended.places is not None:
            return "has coordinates, which end with the length of its event"
        return super().reason_against_length()

    def layers(self) -> Sequence[Causal]:
        stack = [layer for cells in layers_of(self.stack) for layer in (cells, self.dropout)]
        return [self.inputs, self.appended, *stack, self.head]
