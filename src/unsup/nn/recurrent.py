"""Recurrent layers over sequences ``(B, L, F)``: fused kernels in a full pass, a state in a cache in a walk."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from unsup.core import random
from unsup.core.event import Event
from unsup.nn.causal import NOTHING, Causal, Context, Site
from unsup.nn.inputs import Inputs
from unsup.nn.sequence import Delayed

CellName = Literal["lstm", "gru"]
State = tuple[Tensor, ...]
"""``(h,)`` of a GRU or ``(h, c)`` of an LSTM, ``(B, width)`` each."""


class Recurrent(Causal):
    """One layer of LSTM or GRU cells.

    LSTM (Hochreiter & Schmidhuber 1997 with the forget gates of Gers et al. 2000):

        (i, f, o) = σ(W x_t + U h_{t−1} + b)      g = tanh(W_g x_t + U_g h_{t−1} + b_g)
        c_t = f ⊙ c_{t−1} + i ⊙ g                 h_t = o ⊙ tanh(c_t)

    GRU (Cho et al. 2014, https://arxiv.org/abs/1406.1078):

        (r, z) = σ(W x_t + U h_{t−1} + b)         n = tanh(W_n x_t + b_n + r ⊙ (U_n h_{t−1} + b'_n))
        h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}

    The first state is zero. The biases of the forget gates are initially 1 (Jozefowicz et al. 2015).

    Args:
        inputs: number of input features.
        width: number of cells.
        cell: kind of the cells.
        chunk: truncated back-propagation: the state is carried over from each chunk of so many sites to the next, but
            gradients are not. None: gradients flow through the whole sequence.
        weight_dropout: share of the entries of U that are dropped in training, the same ones at all sites of a batch
            (Merity, Keskar, Socher 2018, https://arxiv.org/abs/1708.02182).
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        cell: CellName = "lstm",
        *,
        chunk: int | None = None,
        weight_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.chunk, self.weight_dropout = width, chunk, weight_dropout
        self.states = 2 if cell == "lstm" else 1
        self.net: nn.LSTM | nn.GRU
        self.net = (
            nn.LSTM(inputs, width, batch_first=True) if cell == "lstm" else nn.GRU(inputs, width, batch_first=True)
        )
        if cell == "lstm":
            with torch.no_grad():  # PyTorch adds two biases, and orders the gates i, f, g, o
                self._weights()[2][width : 2 * width] = 1
                self._weights()[3][width : 2 * width] = 0

    def _weights(self) -> list[Tensor]:
        """Input weight, state weight, and their biases."""
        return [*self.net.all_weights[0]]

    def _zero(self, n: int) -> State:
        return (self._weights()[0].new_zeros(n, self.width),) * self.states

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        weights, state = self._weights(), self._zero(len(h))
        h = h.to(weights[0].dtype)
        if self.training:
            weights[1] = random.dropout(weights[1], self.weight_dropout, context.generator, axis=None)
        if self.chunk is None or not self.training:
            return self._run(h, state, weights)[0]
        found = []
        for part in h.split(self.chunk, 1):
            out, state = self._run(part, tuple(s.detach() for s in state), weights)
            found.append(out)
        return torch.cat(found, 1)

    def _run(self, h: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
        """Features of some sites, ``(B, L, F)`` → ``(B, L, width)``, and the state after them."""
        # The module would use the kernel without gradients in evaluation mode.
        options = (weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
        if self.states == 2:
            out, *after = torch.lstm(h, [s[None] for s in state], *options)
        else:
            out, *after = torch.gru(h, state[0][None], *options)
        return out, tuple(s[0] for s in after)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        return {"state": self._zero(n)}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor) -> Tensor:
        state: State = memory["state"]
        if self.states == 2:
            state = torch.lstm_cell(h, list(state), *self._weights())
        else:
            state = (torch.gru_cell(h, state[0], *self._weights()),)
        memory["state"] = state
        return state[0]

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``: a site sees all earlier ones."""
        return seen.cummax(1).values


class Plain(Delayed):
    """The values of the site before as features without weights: one-hot symbols, scaled levels, or real numbers.

    Levels ``(B, L)`` or frames ``(B, L, frame)`` → ``(B, L, width)``.

    Args:
        event: the event of the examples.
        frame: entries of a site.
        one_hot: one feature for each level, or one for each entry. Real numbers are taken as they are.
    """

    def __init__(self, event: Event, frame: int = 1, *, one_hot: bool = False) -> None:
        each = event.uniform.levels if one_hot and event.uniform is not None else 1
        super().__init__(frame * each)
        self.inputs = Inputs(event, one_hot=one_hot) if event.is_discrete else None
        self.is_flat = frame == 1

    def features(self, h: Tensor) -> Tensor:
        if self.inputs is None:
            return h.to(self.start.dtype)
        found = self.inputs.levels(h)
        if self.inputs.one_hot == self.is_flat:
            return found
        return found.unsqueeze(-1) if self.is_flat else found.flatten(-2)


class Appended(Causal):
    """Features, and after them the place of the site and the features of the condition.

    Args:
        places: features of the sites, ``(L, k)``, or None.
        condition: number of features of the condition; 0 without one.
    """

    places: Tensor | None

    def __init__(self, places: Tensor | None, condition: int = 0) -> None:
        super().__init__()
        self.register_buffer("places", places, persistent=False)
        self.condition = condition
        self.size = condition + (0 if places is None else places.shape[1])
        """Number of features that are appended."""

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        parts, shape = [h], (*h.shape[:-1], -1)
        if self.places is not None:
            parts.append(self.places.expand(shape))
        if self.condition:
            assert context.given is not None
            parts.append(context.given[:, None].expand(shape))
        return torch.cat(parts, -1)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Tensor | None:
        return context.given if self.condition else None

    def step(self, memory: Tensor | None, site: Site, h: Tensor) -> Tensor:
        parts = [h]
        if self.places is not None:
            parts.append(self.places[site.column].expand(len(h), -1))
        if memory is not None:
            parts.append(memory)
        return torch.cat(parts, -1)
