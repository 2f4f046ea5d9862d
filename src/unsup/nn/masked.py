"""Masked dense layers: output d of a network depends only on inputs before d in an order.

Unit k of layer l has a degree m^l(k); a weight is kept if (Germain, Gregor, Murray, Larochelle 2015,
https://arxiv.org/abs/1502.03509)

    hidden:  m^l(k') ≥ m^{l−1}(k)        (eq. 13)
    output:  m(d) > m^L(k)               (eq. 14)

The degree of an input is its position in the order, from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, relu

from unsup.core import random
from unsup.nn.autoregressor import Steps


class MaskedLinear(nn.Module):
    """y = (W ∘ M) x + b with one mask per ordering.

    The masks are stored as degrees, a few thousand integers in place of millions of entries. One mask at a time is
    expanded to floats, since a product with a boolean mask is many times slower.
    """

    above: Tensor
    below: Tensor

    def __init__(self, above: Tensor, below: Tensor, *, strict: bool, bias: bool = True) -> None:
        """Keep input k' of output k where above[k] ≥ below[k'], or > if ``strict``; int64 degrees ``(orders, units)``.

        Without a bias the weights start at zero (a skip connection).
        """
        super().__init__()
        fresh = nn.Linear(below.shape[1], above.shape[1], bias=bias)
        self.weight, self.bias = fresh.weight, cast(nn.Parameter | None, fresh.bias)
        if not bias:
            nn.init.zeros_(self.weight)
        self.strict = strict
        self.register_buffer("above", above)
        self.register_buffer("below", below)
        self._mask: tuple[tuple[object, ...], Tensor] | None = None
        self._product: tuple[tuple[object, ...], Tensor] | None = None

    def mask(self, order: int) -> Tensor:
        """M of one ordering, 0 and 1 in the type of the weight, ``(outputs, inputs)``; the last one is cached."""
        key = (order, self.above._version, self.below._version, self.weight.dtype, self.weight.device)
        if self._mask is None or self._mask[0] != key:
            difference = self.above[order].float()[:, None] - self.below[order].float()
            self._mask = (key, (difference if self.strict else difference + 1).clamp_(0, 1).to(self.weight.dtype))
        return self._mask[1]

    def masked_weight(self, order: int) -> Tensor:
        """W ∘ M of one ordering; outside training the product is cached until the weight changes."""
        if self.training or torch.is_grad_enabled():
            self._product = None
            return self.weight * self.mask(order)
        key = (order, self.weight._version, self.weight.dtype, self.weight.device, self.above._version)
        if self._product is None or self._product[0] != key:
            self._product = (key, self.weight * self.mask(order))
        return self._product[1]

    def forward(self, x: Tensor, order: int) -> Tensor:
        return linear(x, self.masked_weight(order), self.bias)


class MaskedMLP(nn.Module):
    """A ReLU network from D inputs to D outputs; output d depends on the inputs before d.

    Args:
        orders: position of each input, from 1: int64 ``(M, D)``, one row per mask.
        degrees: degrees of the units of each hidden layer, int64 ``(M, units)`` each; `draw_degrees` draws both.
        inputs: number of features of every input, or of each.
        outputs: number of values of every output, or of each.
        direct: whether to add masked connections from input to output (section 4.4 of the paper).
        dropout: fraction of hidden units dropped in training.
    """

    def __init__(
        self,
        orders: Tensor,
        degrees: list[Tensor],
        *,
        inputs: int | Sequence[int] = 1,
        outputs: int | Sequence[int] = 1,
        direct: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims, self.dropout = orders.shape[1], dropout
        self.outputs_each = outputs if isinstance(outputs, int) else None
        self.inputs, self.outputs = (
            [each] * self.dims if isinstance(each, int) else list(each) for each in (inputs, outputs)
        )
        per_input, per_output = _repeated(orders, self.inputs), _repeated(orders, self.outputs)
        layers = [MaskedLinear(up, down, strict=False) for down, up in pairwise([per_input, *degrees])]
        layers.append(MaskedLinear(per_output, degrees[-1] if degrees else per_input, strict=True))
        self.layers = nn.ModuleList(layers)
        self.direct = MaskedLinear(per_output, per_input, strict=True, bias=False) if direct else None

    @property
    def hidden(self) -> list[MaskedLinear]:
        return cast(list[MaskedLinear], list(self.layers[:-1]))

    @property
    def top(self) -> MaskedLinear:
        return cast(MaskedLinear, self.layers[-1])

    @torch.no_grad()
    def start_at(self, bias: Tensor) -> None:
        """Set the bias of the outputs, side by side."""
        _bias(self.top).copy_(bias)

    def forward(self, inputs: Tensor, order: int = 0, *, generator: Generator | None = None) -> Tensor:
        """Features of all inputs, side by side → ``(B, D, outputs)``, or ``(B, P)`` where each output has its own size.

        ``generator`` is for dropout.
        """
        h = inputs
        for layer in self.hidden:
            h = relu(layer(h, order))
            if self.training:
                h = random.dropout(h, self.dropout, generator)
        out = self.top(h, order)
        if self.direct is not None:
            out = out + self.direct(inputs, order)
        return cast(Tensor, out if self.outputs_each is None else out.view(len(out), self.dims, self.outputs_each))

    def joined(self, order: int = 0) -> Tensor:
        """``(D, D)`` bool: whether a path of kept weights connects output i and input j."""
        layers = [*self.hidden, self.top]
        reach = layers[0].mask(order).float()
        for layer in layers[1:]:
            reach = (layer.mask(order).float() @ reach).clamp(max=1)
        if self.direct is not None:
            reach = reach + self.direct.mask(order).float()
        by_output = torch.stack([rows.sum(0) for rows in reach.split(self.outputs)])
        return torch.stack([columns.sum(1) for columns in by_output.split(self.inputs, 1)], 1) > 0

    def begin(self, n: int, order: int, encode: Callable[[int, Tensor], Tensor]) -> Steps:
        """Steps through one order that compute every unit once, when its last input is known.

        A unit of degree m depends on inputs of degree ≤ m only, so all D steps together cost one pass of the network.
        Sites are the outputs, in the order of their positions.

        Args:
            encode: a site and its targets ``(B,)`` → input features ``(B, inputs)``.
        """
        return _Growing(self, n, order, encode)


class _Growing(Steps):
    def __init__(self, net: MaskedMLP, n: int, order: int, encode: Callable[[int, Tensor], Tensor]) -> None:
        self.encode, self.step = encode, 0
        self.seen, self.made = _slices(net.inputs), _slices(net.outputs)
        degrees = [layer.above[order] for layer in net.hidden]
        by_degree = [m.argsort(stable=True) for m in degrees]
        # Hidden units sorted by degree: the units ready after step t are the contiguous slice [ends[t-1], ends[t]).
        self.ends = [m.bincount(minlength=net.dims + 1).cumsum(0).tolist() for m in degrees]
        self.layers: list[tuple[Tensor, Tensor]] = []
        columns: Tensor | slice = slice(None)
        for layer, rows in zip(net.hidden, by_degree, strict=True):
            self.layers.append((layer.masked_weight(order)[rows][:, columns], _bias(layer)[rows]))
            columns = rows
        self.top, self.bias = net.top.masked_weight(order)[:, columns], _bias(net.top)
        self.skip = None if net.direct is None else net.direct.masked_weight(order)
        first = (*net.hidden, net.top)[0].weight
        self.inputs = first.new_zeros(n, first.shape[1])
        self.hidden = [first.new_zeros(n, len(m)) for m in degrees]

    def outputs(self, site: int) -> Tensor:
        rows = self.made[site]
        seen = self.hidden[-1][:, : self.ends[-1][self.step]] if self.hidden else self.inputs
        found = self.bias[rows] + seen @ self.top[rows, : seen.shape[1]].T
        return found if self.skip is None else found + self.inputs @ self.skip[rows].T

    def put(self, site: int, value: Tensor) -> None:
        self.step += 1
        self.inputs[:, self.seen[site]] = self.encode(site, value).view(len(value), -1)
        below = self.inputs
        for (weight, bias), ends, hidden in zip(self.layers, self.ends, self.hidden, strict=True):
            start, end = ends[self.step - 1], ends[self.step]
            if end > start:
                hidden[:, start:end] = relu(below @ weight[start:end, : below.shape[1]].T + bias[start:end])
            below = hidden[:, :end]


def _repeated(orders: Tensor, sizes: list[int]) -> Tensor:
    """The position of every feature, from those of the entries: ``(M, D)`` → ``(M, Σ sizes)``."""
    if len(set(sizes)) == 1:
        return orders.repeat_interleave(sizes[0], 1)
    return torch.cat([own.repeat_interleave(size, 1) for own, size in zip(orders.split(1, 1), sizes, strict=True)], 1)


def _slices(sizes: Sequence[int]) -> list[slice]:
    """The places of parts of these sizes, side by side."""
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _bias(layer: MaskedLinear) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def draw_degrees(
    dims: int, hidden: tuple[int, ...], masks: int, order: Literal["natural", "random"], generator: Generator
) -> tuple[Tensor, list[Tensor]]:
    """Positions of the inputs ``(M, D)`` from 1 to D, and degrees ``(M, units)`` of the units of each hidden layer.

    Degrees are uniform between the smallest degree of the layer below and D − 1 (section 4.1 of the paper).
    """
    natural = torch.arange(1, dims + 1)
    orders, degrees = [], []
    for _ in range(masks):
        position = natural if order == "natural" else torch.randperm(dims, generator=generator) + 1
        orders.append(position)
        lowest, layers = 1, []
        for width in hidden:
            layers.append(torch.randint(lowest, max(dims, lowest + 1), (width,), generator=generator))
            lowest = int(layers[-1].min())
        degrees.append(layers)
    return torch.stack(orders), [torch.stack(layer) for layer in zip(*degrees, strict=True)]
