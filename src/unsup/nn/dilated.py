"""Dilated causal layers over sequences ``(B, L, F)``, with queues of what a step still needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from unsup.nn.causal import NOTHING, Causal, Context, Site, gate, spread_through
from unsup.nn.order import Order
from unsup.nn.sequence import Delayed, Placed

_AT_ONCE = 64  # steps whose older taps are computed by one product; more would only need more memory


class DilatedGate(Causal):
    """A gated convolution of two taps, ``dilation`` sites apart; before the first site, features are zero.

        z_t = tanh(a_t) ⊙ σ(b_t)      (a_t, b_t) = W₁ h_t + W₀ h_{t−d} + V c + bias

    A step takes h_{t−d} from a queue. W₀ h is computed for many steps at once, since these inputs are long known.

    Args:
        inputs: number of input features.
        outputs: number of output features.
        dilation: d.
        condition: size of the features c in the context; 0 without a condition.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int, condition: int = 0) -> None:
        super().__init__()
        self.dilation = dilation
        self.taps = nn.Linear(2 * inputs, 2 * outputs)  # of (h_{t−d}, h_t)
        self.condition = nn.Linear(condition, 2 * outputs, bias=False) if condition else None

    def _bias(self, context: Context) -> Tensor:
        """V c + bias: ``(B, 2 outputs)``, or ``(2 outputs,)`` without a condition."""
        if self.condition is None:
            return self.taps.bias
        assert context.given is not None
        return cast(Tensor, self.taps.bias + self.condition(context.given))

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        kept = max(h.shape[1] - self.dilation, 0)
        past = pad(h[:, :kept], (0, 0, h.shape[1] - kept, 0))
        found = self.taps(torch.cat([past, h], -1))
        if self.condition is not None:
            assert context.given is not None
            found = found + self.condition(context.given)[:, None]
        return gate(found, -1)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Queue:
        return _Queue(self, n, size[1], self._bias(context))

    def step(self, memory: _Queue, site: Site, h: Tensor) -> Tensor:
        return gate(memory.put(site.column, h), -1)

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``: a site sees itself and the site ``dilation`` before."""
        past = pad(seen, (self.dilation, 0))[:, : seen.shape[1]]
        return torch.maximum(seen, past)


class _Queue:
    """The latest inputs of a `DilatedGate`, and what they contribute to the next steps."""

    def __init__(self, gate: DilatedGate, n: int, length: int, bias: Tensor) -> None:
        older, self.newer = gate.taps.weight.t().chunk(2)
        self.older, self.bias, self.dilation = older, bias, gate.dilation
        self.each = min(gate.dilation, _AT_ONCE)
        self.is_used = gate.dilation < length
        self.inputs = older.new_zeros(gate.dilation if self.is_used else 0, n, len(older))
        self.slots = self.inputs.unbind()
        self.past: Sequence[Tensor] = [bias.expand(n, -1)]

    def put(self, t: int, h: Tensor) -> Tensor:
        """Take the inputs of site t, ``(B, I)``, and return the two halves of its gate ``(B, 2 O)``."""
        if not self.is_used:
            return torch.addmm(self.past[0], h, self.newer)
        slot = t % self.dilation
        if slot % self.each == 0:
            self.past = (self.inputs[slot : slot + self.each] @ self.older + self.bias).unbind()
        self.slots[slot].copy_(h)
        return torch.addmm(self.past[slot % self.each], h, self.newer)


_Map = tuple[Tensor, Tensor]  # the weight and the bias of a linear map


class DilatedStack(Causal):
    """Residual layers of dilated gates; the output is the sum of a linear map of every gate, its skip connection.

        z^l = gate_l(h^l)      h^{l+1} = h^l + R_l z^l      y = Σ_l S_l z^l + bias

    R of the last layer would have no effect, and is left out.

    Args:
        width: number of features of h and of every gate.
        skip: number of output features.
        dilations: of the layers in order.
        condition: size of the features of a condition, which every gate takes; 0 without one.
    """

    def __init__(self, width: int, skip: int, dilations: Sequence[int], condition: int = 0) -> None:
        super().__init__()
        self.skip = nn.Linear(len(dilations) * width, skip)
        self.gates = nn.ModuleList(DilatedGate(width, width, d, condition) for d in dilations)
        self.residual = nn.ModuleList(nn.Linear(width, width) for _ in dilations[1:])

    def _gates(self) -> list[DilatedGate]:
        return cast(list[DilatedGate], list(self.gates))

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        found = []
        for number, layer in enumerate(self._gates()):
            found.append(layer(h, context))
            if number < len(self.residual):
                h = h + self.residual[number](found[-1])
        return cast(Tensor, self.skip(torch.cat(found, -1)))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> list[tuple[_Queue, _Map | None]]:
        maps = [(layer.weight, layer.bias) for layer in cast(list[nn.Linear], list(self.residual))]
        return [(gated.begin(n, size, context), map_) for gated, map_ in zip(self._gates(), [*maps, None], strict=True)]

    def step(self, memory: list[tuple[_Queue, _Map | None]], site: Site, h: Tensor) -> Tensor:
        found = []
        for queue, map_ in memory:
            found.append(gate(queue.put(site.column, h), -1))
            if map_ is not None:
                h = h + linear(found[-1], *map_)
        return cast(Tensor, self.skip(torch.cat(found, -1)))

    def spread(self, seen: Tensor) -> Tensor:
        # What a gate sees includes what the layer itself sees, as earlier skip connections do.
        return cast(Tensor, spread_through(self._gates(), seen))


class Number(Delayed):
    """A linear map of levels that are scaled to [−1, 1]: ``(B, L)`` → ``(B, L, width)``.

    Args:
        levels: number of levels.
        width: number of features.
    """

    def __init__(self, levels: int, width: int) -> None:
        super().__init__(width)
        self.levels = levels
        self.map = nn.Linear(1, width)

    def features(self, h: Tensor) -> Tensor:
        scaled = 2 * h.to(self.map.weight.dtype) / (self.levels - 1) - 1
        return cast(Tensor, self.map(scaled.unsqueeze(-1)))


class Coordinates(Placed):
    """W u, where u are the coordinates of the site: the position of an entry as additional inputs.

    Of an image, they are its row and column, scaled to [−1, 1], and the channel, one-hot; of a sequence the channel
    alone, which does not depend on the length.

    Args:
        order: the order of generation, of one entry at a site.
        width: number of features.
        is_image: whether examples are images.
    """

    inputs: Tensor

    def __init__(self, order: Order, width: int, *, is_image: bool) -> None:
        super().__init__()
        self.register_buffer("inputs", _coordinates(order, is_image), persistent=False)  # (period, k)
        self.map = nn.Linear(self.inputs.shape[1], width, bias=False)

    @staticmethod
    def has_any(shape: Sequence[int], *, is_image: bool) -> bool:
        """Whether the entries of examples of that shape have coordinates."""
        return is_image or len(shape) > 1

    def places(self) -> Tensor:
        return cast(Tensor, self.map(self.inputs))


def _coordinates(order: Order, is_image: bool) -> Tensor:
    """The coordinates of the sites of one period, ``(period, k)``."""
    if not is_image:
        return torch.eye(order.dims // order.shape[0])
    channels, scaled = order.shape[0], order.coordinates()
    if channels > 1:
        return torch.cat([scaled[:, 1:], torch.eye(channels)[order.places()[0]]], 1)
    return scaled if scaled.shape[1] else torch.zeros(order.dims, 1)
