"""Causal convolutions over the pixels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu

from unsup.nn.causal import NOTHING, Context, Groups, Pointwise, Remembering, Sequential, Site
from unsup.nn.weight_norm import WeightNorm


class Window(NamedTuple):
    """The pixels that a kernel covers besides its centre.

    Attributes:
        above: number of rows above the centre.
        left: number of columns on the left.
        right: number of columns on the right, in the rows above.
    """

    above: int = 0
    left: int = 0
    right: int = 0


POINT = Window()


def square(kernel: int) -> Window:
    """The causal half of a square kernel of odd size."""
    return Window(kernel // 2, kernel // 2, kernel // 2)


class MaskedConv(Remembering):
    """Convolution under mask A or B of PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759).

    The kernel sees the rows above its centre and, in the centre's row, what is on the left; at the centre itself the
    features of group g see groups < g (mask A) or ≤ g (mask B). Weights below the centre are not stored.

    Stepping computes the contribution of the rows above once per row, and that of the current row at each pixel.

    Args:
        inputs: number of input features, grouped.
        outputs: number of output features.
        groups: number of colour channels; inputs and outputs are split among them.
        window: pixels that are seen besides the centre.
        mask: A or B.
        parts: number of equal parts of the outputs that are split among the groups separately; 2 for gates.
        stride: distance of the sites with outputs, in both directions. Stepping visits all sites of the inputs, and
            returns None at those without outputs.
        norm: weight norm of the outputs, if any.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        groups: int = 1,
        *,
        window: Window = POINT,
        mask: Literal["A", "B"] = "B",
        parts: int = 1,
        stride: int = 1,
        norm: WeightNorm | None = None,
    ) -> None:
        super().__init__()
        self.window, self.strict, self.stride, self.norm = window, mask == "A", stride, norm
        taps = (window.above + 1, window.left + 1 + window.right)
        self.weight, self.bias = fresh(inputs, outputs, *taps, normed=norm is not None)
        self.into, self.out = Groups(inputs, groups), Groups(outputs, groups, parts)
        self.register_buffer("mask", self._kept(self.into.of, self.out.of), persistent=False)
        self._cache: tuple[tuple[int, int, torch.dtype, torch.device], Tensor] | None = None

    def _kept(self, into: Tensor, out: Tensor) -> Tensor:
        """The taps that the mask keeps, bool ``(O, I, rows, columns)``, from the groups of inputs and outputs."""
        above, left, right = self.window
        kept = torch.ones(len(out), len(into), above + 1, left + 1 + right, dtype=torch.bool)
        kept[:, :, above, left] = out[:, None] > into if self.strict else out[:, None] >= into
        kept[:, :, above, left + 1 :] = False
        return kept

    def masked_weight(self) -> Tensor:
        """W ∘ M, normalised; outside training it is cached until the weight changes."""
        if self.training or torch.is_grad_enabled():
            self._cache = None
            return self._product()
        gain = 0 if self.norm is None else self.norm.gain._version
        key = (self.weight._version, gain, self.weight.dtype, self.weight.device)
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self._product())
        return self._cache[1]

    def _product(self) -> Tensor:
        product = self.weight * self.mask
        return product if self.norm is None else self.norm.weight(product)

    def _padded(self, x: Tensor) -> Tensor:
        above, left, right = self.window
        return pad(x, (left, right, above, 0)) if above or left or right else x

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        found = conv2d(self._padded(h), self.masked_weight(), self.bias, stride=self.stride)
        return channels_last(found if self.norm is None else self.norm.started(found, self.bias))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Memory:
        return _Memory(self, n, size)

    def put(self, memory: _Memory, site: Site, h: Tensor) -> None:
        memory.put(site, h)

    def look(self, memory: _Memory, site: Site) -> Tensor:
        return memory.look(site)

    def step(self, memory: _Memory, site: Site, h: Tensor) -> Any:
        if memory.alone:
            level, bias = memory.kernels[0]
            return torch.addmm(bias, h, level)
        if site.row % self.stride or site.column % self.stride:
            self.put(memory, site, h)
            return None
        return super().step(memory, site, h)

    def spread(self, seen: Tensor) -> Tensor:
        group = torch.arange(self.into.count)
        taps = self._kept(group, group).to(seen.dtype)
        return (conv2d(self._padded(seen), taps, stride=self.stride) > 0).to(seen.dtype)


def relu_points(widths: Sequence[int], groups: int) -> Sequential:
    """ReLU and a 1×1 convolution to each of these numbers of features, from the first."""
    convs = (MaskedConv(inputs, outputs, groups) for inputs, outputs in pairwise(widths))
    return Sequential(*(layer for conv in convs for layer in (Pointwise(relu), conv)))


class _Latest:
    """The rows of a map that a kernel still sees, the current one last; zero where nothing was put yet."""

    def __init__(self, rows: Tensor, axis: int) -> None:
        self.rows, self.axis, self.row = rows, axis, 0

    def at(self, row: int) -> Tensor:
        """The rows up to ``row``, which is the same as in the call before or the next one."""
        if row != self.row:
            self.row = row
            count = self.rows.shape[self.axis] - 1
            kept = self.rows.narrow(self.axis, 1, count).clone()
            self.rows.narrow(self.axis, 0, count).copy_(kept)
            self.rows.select(self.axis, count).zero_()
        return self.rows


class _Memory:
    """The latest inputs of a masked convolution, and its kernel with the relevant taps of each group."""

    def __init__(self, conv: MaskedConv, n: int, size: tuple[int, int]) -> None:
        (above, left, right), (_, width) = conv.window, size
        self.above, self.left = above, left
        self.into, self.out = conv.into.slices, conv.out.slices
        weight, bias = conv.out.sort(conv.masked_weight()), conv.out.sort(conv.bias)
        inputs = weight.shape[1]
        self.is_point = conv.window == POINT
        self.alone = self.is_point and len(self.into) == 1 and not conv.strict
        # A 1×1 convolution needs the current pixel only; the others keep rows, zero-padded at the sides.
        self.pixel = weight.new_zeros(n, inputs) if self.is_point else weight.new_zeros(0)
        rows = 0 if self.is_point else above + 1
        self.latest = _Latest(weight.new_zeros(n, rows, left + width + right, inputs), axis=1)
        self.higher, self.bias = weight[:, :, :above], bias
        self.row = weight.new_zeros(0)
        self.kernels: list[tuple[Tensor, Tensor]] = []
        for group, out in enumerate(self.out):
            # At the centre, a group sees the first inputs: those of the groups up to it.
            seen = self.into[group].start if conv.strict else self.into[group].stop
            level = weight[out, :, above, : left + 1].permute(2, 1, 0).flatten(0, 1)  # (taps I, O_g)
            self.kernels.append((level[: left * inputs + seen].contiguous(), bias[out]))

    def put(self, site: Site, h: Tensor) -> None:
        row, column, group = site
        if self.is_point:
            self.pixel[:, self.into[group]] = h
        else:
            self.latest.at(row)[:, self.above, column + self.left, self.into[group]] = h

    def look(self, site: Site) -> Tensor:
        row, column, group = site
        level, bias = self.kernels[group]
        if self.is_point:
            return torch.addmm(bias, self.pixel[:, : len(level)], level)
        rows = self.latest.at(row)
        if self.above:
            if site.opens_row:
                self.row = self._from_above(rows[:, : self.above])
            bias = self.row[:, column, self.out[group]]
        here = rows[:, self.above, column : column + self.left + 1].flatten(1)[:, : len(level)]
        return torch.addmm(bias, here, level)

    def _from_above(self, rows: Tensor) -> Tensor:
        """The contribution of the rows above to each pixel of a row, with the bias: ``(B, W, O)``."""
        return conv2d(rows.permute(0, 3, 1, 2), self.higher, self.bias)[:, :, 0].transpose(1, 2).contiguous()


class VerticalConv(Remembering):
    """Convolution over whole rows: those above and, unless it is strict, the row itself, columns on both sides alike.

    Its sites are rows: `look` and `step` are called at the start of a row. With strict layers first, features of a row
    depend on the rows above it only, on all of their columns and groups, so nothing needs a mask (the vertical stack of
    van den Oord et al. 2016, https://arxiv.org/abs/1606.05328).

    Args:
        inputs: number of input features.
        outputs: number of output features.
        rows: number of rows of the kernel.
        reach: number of columns that it sees on either side.
        strict: whether its last row is the row above, not the row itself.
        groups: groups of the inputs, for `put`, which takes them one by one.
        stride: distance of the rows and columns with outputs. Stepping returns None at rows without outputs.
        norm: weight norm of the outputs, if any.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rows: int,
        reach: int,
        strict: bool = False,
        groups: int = 1,
        stride: int = 1,
        norm: WeightNorm | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.bias = fresh(inputs, outputs, rows, 2 * reach + 1, normed=norm is not None)
        self.rows, self.reach, self.strict, self.stride, self.norm = rows, reach, strict, stride, norm
        self.above = rows - 1 + strict
        self.into = Groups(inputs, groups)

    def _padded(self, x: Tensor) -> Tensor:
        return pad(x, (self.reach, self.reach, self.above, -int(self.strict)))

    def kernel(self) -> Tensor:
        """The weight, normalised."""
        return self.weight if self.norm is None else self.norm.weight(self.weight)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        found = conv2d(self._padded(h), self.kernel(), self.bias, stride=self.stride)
        return channels_last(found if self.norm is None else self.norm.started(found, self.bias))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> tuple[_Latest, Tensor]:
        shape = (n, self.weight.shape[1], self.above + 1, size[1] + 2 * self.reach)
        rows = self.weight.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        return _Latest(rows, axis=2), self.kernel()

    def put(self, memory: tuple[_Latest, Tensor], site: Site, h: Tensor) -> None:
        """Take the inputs of one site ``(B, I_g)``."""
        memory[0].at(site.row)[:, self.into.slices[site.group], -1, site.column + self.reach] = h

    def look(self, memory: tuple[_Latest, Tensor], site: Site) -> Tensor:
        """Outputs of a row: ``(B, O, 1, W)``."""
        latest, kernel = memory
        return conv2d(latest.at(site.row)[:, :, : self.rows], kernel, self.bias, stride=(1, self.stride))

    def step(self, memory: tuple[_Latest, Tensor], site: Site, h: Tensor) -> Any:
        """A row ``(B, I, 1, W)`` → ``(B, O, 1, W)``."""
        found = self.look(memory, site) if self.strict else None
        memory[0].at(site.row)[:, :, -1, self.reach : self.reach + h.shape[-1]] = h[:, :, 0]
        if site.row % self.stride:
            return None
        return self.look(memory, site) if found is None else found

    def spread(self, seen: Tensor) -> Tensor:
        """The groups are merged here: all outputs can depend on the inputs of any group of a pixel."""
        taps = seen.new_ones(1, seen.shape[1], *self.weight.shape[2:])
        found = (conv2d(self._padded(seen), taps, stride=self.stride) > 0).to(seen.dtype)
        return found.expand(-1, seen.shape[1], -1, -1)


_NORMED_STD = 0.05
"""Standard deviation of the initial v of weight norm in the published code; only its direction matters."""


def fresh(
    inputs: int, outputs: int, rows: int, columns: int, *, normed: bool = False
) -> tuple[nn.Parameter, nn.Parameter]:
    """Initial weight and bias."""
    if normed:
        v = _NORMED_STD * torch.randn(outputs, inputs, rows, columns)
        return nn.Parameter(channels_last(v)), nn.Parameter(torch.zeros(outputs))
    made = nn.Conv2d(inputs, outputs, (rows, columns))
    return nn.Parameter(channels_last(made.weight.detach())), cast(nn.Parameter, made.bias)


def channels_last(x: Tensor) -> Tensor:
    """The layout in which CPU and GPU convolutions are fastest, and in which a softmax reads contiguous logits.

    Features follow the layout of their input, but a single input channel has no layout.
    """
    return x.contiguous(memory_format=torch.channels_last)
