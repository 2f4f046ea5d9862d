"""Masked dense layers: output d of a network depends only on inputs before d in an order.

Unit k of layer l has a degree m^l(k); a weight is kept if (Germain, Gregor, Murray, Larochelle 2015,
https://arxiv.org/abs/1502.03509)

    hidden:  m^l(k') ≥ m^{l−1}(k)        (eq. 13)
    output:  m(d) > m^L(k)               (eq. 14)

The degree of an input is its position in the order, from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, relu

from unsup.core import random
from unsup.nn.autoregressor import Steps
from unsup.nn.triangular import Sorting, product, sorted_product

_BLOCK = 16  # steps of a walk for which products are computed at once


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
        self._sorting: tuple[tuple[object, ...], Sorting] | None = None
        self._sorted: tuple[tuple[object, ...], Tensor] | None = None

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

    def sorting(self, order: int) -> Sorting:
        """How rows and columns of one ordering are sorted by degree; the last one is cached."""
        key = (order, self.above._version, self.below._version, self.weight.dtype, self.weight.device)
        if self._sorting is None or self._sorting[0] != key:
            self._sorting = (key, Sorting.of(self.mask(order), self.above[order], self.below[order]))
        return self._sorting[1]

    def sorted_weight(self, order: int) -> Tensor:
        """W ∘ M with rows and columns sorted by degree, without a graph; outside training it is cached."""
        key = (order, self.weight._version, self.weight.dtype, self.weight.device, self.above._version)
        if self.training:
            self._sorted = None
            return self.sorting(order).weight(self.weight.detach())
        if self._sorted is None or self._sorted[0] != key:
            self._sorted = (key, self.sorting(order).weight(self.weight.detach()))
        return self._sorted[1]

    def by_blocks(self, x: Tensor, order: int) -> Tensor:
        """`forward` of features sorted by degree ``(I, B)`` → ``(O, B)``, sorted too, without the zero blocks."""
        sorting = self.sorting(order)
        if torch.is_grad_enabled():
            self._sorted = None
            return product(x, self.weight, self.bias, sorting)
        bias = None if self.bias is None else sorting.bias(self.bias)
        return sorted_product(x, self.sorted_weight(order), bias, sorting)


class MaskedMLP(nn.Module):
    """A ReLU network from D inputs to D outputs; output d depends on the inputs before d.

    Args:
        orders: position of each input, from 1: int64 ``(M, D)``, one row per mask.
        degrees: degrees of the units of each hidden layer, int64 ``(M, units)`` each; `draw_degrees` draws both.
        inputs: number of features of every input, or of each.
        outputs: number of values of every output, or of each.
        direct: whether to add masked connections from input to output (section 4.4 of the paper).
        dropout: fraction of hidden units dropped in training; of residual blocks, those between their two layers.
        context: number of features that all outputs depend on; they come before all inputs. Only hidden units of
            degree 0 let the first output see them.
        residual: the layers after the first, which are as wide, form blocks of two with pre-activation,
            h + W₂ relu(W₁ relu(h)), and the outputs are linear in h (Durkan et al. 2019, section 5.1).
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
        context: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.dims, self.dropout, self.context, self.residual = orders.shape[1], dropout, context, residual
        self.outputs_each = outputs if isinstance(outputs, int) else None
        self.inputs, self.outputs = (
            [each] * self.dims if isinstance(each, int) else list(each) for each in (inputs, outputs)
        )
        per_input, per_output = _repeated(orders, self.inputs), _repeated(orders, self.outputs)
        per_input = torch.cat([per_input.new_zeros(len(orders), context), per_input], 1)
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

    def forward(
        self,
        inputs: Tensor,
        order: int = 0,
        *,
        context: Tensor | None = None,
        drops: bool | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Features of all inputs, side by side → ``(B, D, outputs)``, or ``(B, P)`` where each output has its own size.

        ``generator`` is for dropout, ``drops`` whether there is any; None: in training mode.
        """
        if context is not None:
            inputs = torch.cat([context.to(inputs.dtype), inputs], 1)
        h = skipped = inputs
        for number, layer in enumerate(self.hidden):
            h = layer(h, order)
            if self.adds(number):
                h = h + skipped
            if self.residual and number % 2 == 0:
                skipped = h
            if self.activates(number):
                h = relu(h)
            if (self.training if drops is None else drops) and self.drops(number):
                h = random.dropout(h, self.dropout, generator)
        out = self.top(h, order)
        if self.direct is not None:
            out = out + self.direct(inputs, order)
        return cast(Tensor, out if self.outputs_each is None else out.view(len(out), self.dims, self.outputs_each))

    def by_blocks(self, inputs: Tensor, order: int = 0, *, context: Tensor | None = None) -> Tensor:
        """`forward` without dropout that skips the zero blocks of the masks, where this is faster.

        Outputs of one kind then lie side by side along the batch, ``(D, outputs, B)`` in memory. The network has the
        same number of outputs for each entry, and no direct connections.
        """
        if not _blocks_pay(inputs, self):
            return cast(Tensor, self(inputs, order, context=context, drops=False))
        if context is not None:
            inputs = torch.cat([context.to(inputs.dtype), inputs], 1)
        columns, back = cast(MaskedLinear, self.layers[0]).sorting(order).columns, self.top.sorting(order).rows_back
        h = skipped = inputs.T if columns is None else inputs.T[columns]
        for number, layer in enumerate(self.hidden):
            h = layer.by_blocks(h, order)
            if self.adds(number):
                h = h + skipped
            if self.residual and number % 2 == 0:
                skipped = h
            if self.activates(number):
                h = relu(h) if h is skipped else h.relu_()
        out = self.top.by_blocks(h, order)
        out = out if back is None else out.index_select(0, back)
        assert self.outputs_each is not None
        return out.view(self.dims, self.outputs_each, len(inputs)).permute(2, 0, 1)

    def adds(self, number: int) -> bool:
        """Whether a hidden layer adds what the block began with."""
        return self.residual and number > 0 and number % 2 == 0

    def activates(self, number: int) -> bool:
        """Whether the outputs of a hidden layer are rectified."""
        return not self.residual or number < len(self.layers) - 2

    def drops(self, number: int) -> bool:
        """Whether units of a hidden layer are dropped in training; what blocks add up is not."""
        return not self.residual or number % 2 == 1

    def joined(self, order: int = 0) -> Tensor:
        """``(D, D)`` bool: whether a path of kept weights connects output i and input j."""
        layers = [*self.hidden, self.top]
        reach = layers[0].mask(order).float()
        for layer in layers[1:]:
            reach = (layer.mask(order).float() @ reach).clamp(max=1)
        if self.direct is not None:
            reach = reach + self.direct.mask(order).float()
        by_output = torch.stack([rows.sum(0) for rows in reach[:, self.context :].split(self.outputs)])
        return torch.stack([columns.sum(1) for columns in by_output.split(self.inputs, 1)], 1) > 0

    def begin(
        self, n: int, order: int, encode: Callable[[int, Tensor], Tensor], context: Tensor | None = None
    ) -> Steps:
        """Steps through one order that compute every unit once, when its last input is known.

        A unit of degree m depends on inputs of degree ≤ m only, so all D steps together cost one pass of the network.
        Sites are the outputs, in the order of their positions.

        Args:
            encode: a site and its targets ``(B,)`` → input features ``(B, inputs)``.
            context: features ``(B, context)``.
        """
        return _Growing(self, n, order, encode, context)


class _Growing(Steps):
    """Units and inputs are sorted by when they are known, so that those known at a time are the first ones."""

    def __init__(
        self, net: MaskedMLP, n: int, order: int, encode: Callable[[int, Tensor], Tensor], context: Tensor | None
    ) -> None:
        self.net, self.encode, self.time = net, encode, 0
        layers = [*net.hidden, net.top]
        below = layers[0].below[order]
        known = _counts(below, net.dims)
        columns, self.known = below.argsort(stable=True), known
        self.inputs = source = net.top.weight.new_zeros(n, len(below))
        if context is not None:
            self.inputs[:, : known[0]] = context
        self.hidden: list[_Units] = []
        for layer in net.hidden:
            degrees = layer.above[order]
            rows = degrees.argsort(stable=True)
            product = _Product(layer, order, rows, columns, [0, *_counts(degrees, net.dims)], known, source)
            own = source.new_zeros(n, len(rows))
            self.hidden.append(_Units(product, own, own if not net.residual else torch.zeros_like(own)))
            source, columns, known = own, rows, _counts(degrees, net.dims)
        position = net.top.above[order]
        rows, ends = position.argsort(stable=True), _counts(position, net.dims)
        self.top = [_Product(net.top, order, rows, columns, ends, known, source)]
        if net.direct is not None:
            columns = below.argsort(stable=True)
            self.top.append(_Product(net.direct, order, rows, columns, ends, self.known, self.inputs))
        self._grow()

    def outputs(self, site: int) -> Tensor:
        found = [product.at(self.time) for product in self.top]
        return found[0] if len(found) == 1 else found[0] + found[1]

    def put(self, site: int, value: Tensor) -> None:
        start, self.time = self.known[self.time], self.time + 1
        stop = self.known[self.time]
        self.inputs[:, start:stop] = self.encode(site, value).view(len(value), stop - start)
        self._grow()

    def _grow(self) -> None:
        """Compute the units that became known at this time, layer by layer."""
        for number, units in enumerate(self.hidden):
            rows = units.product.rows(self.time)
            if rows.start < rows.stop:
                found = units.product.at(self.time)
                if self.net.adds(number):
                    found = found + self.hidden[number - 2].sums[:, rows]
                units.sums[:, rows] = found
                units.seen[:, rows] = relu(found) if self.net.activates(number) else found


class _Units(NamedTuple):
    """The units of a hidden layer in a walk.

    Attributes:
        product: what computes them.
        seen: what the next layer sees, ``(B, units)``.
        sums: the same before rectification, where a block adds it; else ``seen``.
    """

    product: _Product
    seen: Tensor
    sums: Tensor


class _Product:
    """A masked layer in a walk: the outputs of time t, which depend on the inputs known at time t.

    The first time of a block computes what all outputs of the block get from the inputs known by then, in one product
    of large matrices. The others add what became known since.

    Args:
        rows: the outputs sorted by time.
        columns: the inputs sorted by when they are known.
        starts: the number of outputs before each time.
        known: the number of inputs known at each time.
        source: the inputs ``(B, I)``, sorted; filled while they become known.
    """

    def __init__(
        self,
        layer: MaskedLinear,
        order: int,
        rows: Tensor,
        columns: Tensor,
        starts: list[int],
        known: list[int],
        source: Tensor,
    ) -> None:
        self.weight = layer.masked_weight(order)[rows][:, columns]
        self.bias = self.weight.new_zeros(len(rows)) if layer.bias is None else layer.bias[rows]
        self.starts, self.known, self.source = starts, known, source
        self.begun, self.base = -_BLOCK, source

    def rows(self, time: int) -> slice:
        return slice(self.starts[time], self.starts[time + 1])

    def at(self, time: int) -> Tensor:
        rows, known = self.rows(time), self.known[time]
        if time >= self.begun + _BLOCK:
            self.begun = time
            block = slice(rows.start, self.starts[min(time + _BLOCK, len(self.starts) - 1)])
            self.base = torch.addmm(self.bias[block], self.source[:, :known], self.weight[block, :known].T)
        first, since = self.starts[self.begun], self.known[self.begun]
        base = self.base[:, rows.start - first : rows.stop - first]
        if known == since:
            return base
        return torch.addmm(base, self.source[:, since:known], self.weight[rows, since:known].T)


def _blocks_pay(inputs: Tensor, net: MaskedMLP) -> bool:
    """Whether a pass is faster by blocks: on a CPU, without autocast, which rounds only single products."""
    return (
        inputs.device.type == "cpu"
        and inputs.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and net.direct is None
        and net.outputs_each is not None
    )


def _counts(degrees: Tensor, most: int) -> list[int]:
    """How many degrees are at most 0, 1, … ``most``."""
    counts: list[int] = degrees.bincount(minlength=most + 1).cumsum(0).tolist()
    return counts


def _repeated(orders: Tensor, sizes: list[int]) -> Tensor:
    """The position of every feature, from those of the entries: ``(M, D)`` → ``(M, Σ sizes)``."""
    if len(set(sizes)) == 1:
        return orders.repeat_interleave(sizes[0], 1)
    return torch.cat([own.repeat_interleave(size, 1) for own, size in zip(orders.split(1, 1), sizes, strict=True)], 1)


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


def sequential_degrees(dims: int, hidden: tuple[int, ...], lowest: int = 1) -> list[Tensor]:
    """Degrees from ``lowest`` to D − 1 in turn, for one order: the units of each hidden layer, ``(1, units)``.

    >>> sequential_degrees(4, (5,))
    [tensor([[1, 2, 3, 1, 2]])]
    """
    return [lowest + torch.arange(width)[None] % max(1, dims - lowest) for width in hidden]
