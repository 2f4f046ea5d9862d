"""A histogram and a network: two discrete entries, the second one given the first.

p(x₁, x₂ | c) = softmax(a + A c)_{x₁} · softmax(MLP(onehot(x₁), c))_{x₂}

The first exercise on autoregressive models of the course CS294-158, Deep Unsupervised Learning (Abbeel, Chen, Ho,
Srinivas 2020, https://sites.google.com/view/berkeley-cs294-158-sp20): both entries have the same levels.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from unsup.core.batch import Batch
from unsup.core.config import Widths
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressor import Steps
from unsup.nn.causal import Context
from unsup.nn.conditions import joined
from unsup.nn.entries import EntryModel
from unsup.nn.inputs import Inputs
from unsup.nn.nets import dense
from unsup.nn.observation import Categorical
from unsup.nn.order import Order


class Conditional2d(EntryModel):
    """A table of p(x₁) and an MLP for p(x₂ | x₁).

    Both start at the smoothed frequencies of the data, so that no level has probability 0.

    Args:
        event: two discrete entries with one support.
        hidden: units of each hidden layer of the MLP.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: other than two entries, or two different supports.

    >>> from unsup import Event, Support
    >>> model = Conditional2d(Event((2,), Support("ordinal", 20)), hidden=(16,))
    >>> model.sample(3).shape
    torch.Size([3, 2])
    """

    presets = {"tiny": {"hidden": (16,)}, "paper": {"hidden": (100, 100)}}
    fit_defaults = {"lr": 1e-3, "batch_size": 128}

    observation: Categorical

    def __init__(self, event: Event, *, hidden: Widths = (100, 100), given: Event | None = None) -> None:
        self.order, self.observation = Order(event), Categorical(event)
        self.take_condition_of(given)
        levels, condition = self.observation.levels, self.conditions.size
        self.inputs = Inputs(event, one_hot=True)
        self.table = nn.Parameter(torch.zeros(levels))
        self.shift = nn.Linear(condition, levels, bias=False) if condition else None
        self.net = dense([levels + condition, *hidden, levels], "relu")

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.dims != 2:
            return "takes two entries only"
        if event.uniform is None:
            return "takes two entries with the same levels only"
        return None if event.is_discrete else "takes discrete entries only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start at the frequencies of the levels."""
        super().prepare(batch, generator=generator)
        first, second = self.observation.marginal(batch.x.flatten(1))
        self.table.copy_(first)
        top = self.net[-1]
        assert isinstance(top, nn.Linear)
        top.bias.copy_(second)

    def _first_outputs(self, n: int, context: Context) -> Tensor:
        if self.shift is None:
            return self.table.expand(n, -1)
        assert context.given is not None
        return linear(context.given, self.shift.weight, self.table)

    def _second_outputs(self, first: Tensor, context: Context) -> Tensor:
        """From one-hot x₁, ``(B, levels)``."""
        found: Tensor = self.net(joined(first, context.given))
        return found

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        self.event.check_shape(x)
        first = self.inputs(x.flatten(1)[:, 0])
        return torch.stack([self._first_outputs(len(x), context), self._second_outputs(first, context)], 1)

    def _steps(self, n: int, context: Context) -> Steps:
        return _Pair(self, n, context)


class _Pair(Steps):
    """The table, then the network."""

    def __init__(self, model: Conditional2d, n: int, context: Context) -> None:
        self.model, self.n, self.context = model, n, context
        self.first = torch.zeros(0)

    def outputs(self, site: int) -> Tensor:
        if site == 0:
            return self.model._first_outputs(self.n, self.context)
        return self.model._second_outputs(self.first, self.context)

    def put(self, site: int, value: Tensor) -> None:
        if site == 0:
            self.first = self.model.inputs.levels(value)
