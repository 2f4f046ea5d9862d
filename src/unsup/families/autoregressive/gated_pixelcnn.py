"""Gated PixelCNN: two stacks of gated convolutions that together see every earlier pixel.

p(x | c) = ∏_i ∏_k p(x_{i,k} | x_{<i}, x_{i,<k}, c)  over pixels i in raster order and colour channels k in turn
(van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016, https://arxiv.org/abs/1606.05328). In each
layer a vertical stack v sees the rows above, with columns on both sides, and so leaves no blind spot; a horizontal one
h sees what is on the left in the row, under masks A (first layer) and B over groups of channels, and what the vertical
one found (figure 2, eq. 4). With f and g the halves that a gate takes,

    a = W ∗ v             v' = tanh(a_f + V_f c) ⊙ σ(a_g + V_g c)
    b = W' ∗ h + U a      h' = h + R (tanh(b_f + V'_f c) ⊙ σ(b_g + V'_g c))      U, R: 1×1; without h in the first layer
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from unsup.core.config import AtLeast, Count, Odd
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.causal import NOTHING, Causal, Context, Groups, Pointwise, Remembering, Sequential, Shift, Site, gate
from unsup.nn.causal_conv import MaskedConv, VerticalConv, Window
from unsup.nn.raster import RasterModel


class Stacks(NamedTuple):
    """Features of both stacks. In stepping, those of the vertical stack are for a whole row, computed at its start."""

    vertical: Tensor | None
    horizontal: Tensor


_Memory = dict[str, Any]


class GatedLayer(Remembering):
    """A layer of both stacks. The first one takes the image as input, the last one returns horizontal features only."""

    def __init__(self, inputs: int, width: int, groups: int, kernel: int, condition: int, first: bool, last: bool):
        super().__init__()
        self.strict, self.last, reach = first, last, kernel // 2
        window: dict[str, Any] = {"window": Window(left=reach), "mask": "A" if first else "B"}
        self.vertical = VerticalConv(inputs, 2 * width, rows=reach + 1, reach=reach, strict=first, groups=groups)
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        self.horizontal = MaskedConv(inputs, 2 * width, groups, **window, parts=2)
        self.out = MaskedConv(width, width, groups)
        self.vertical_shift = Shift(0 if last else condition, Groups(2 * width, 1))
        self.horizontal_shift = Shift(condition, self.horizontal.out)

    def forward(self, h: Any, context: Context = NOTHING) -> Any:
        vertical, horizontal = (h, h) if self.strict else h
        a = self.vertical(vertical, context)
        b = self.horizontal_shift(self.horizontal(horizontal, context) + self.link(a), context)
        found = self.out(gate(b), context)
        if not self.strict:
            found = horizontal + found
        return found if self.last else Stacks(gate(self.vertical_shift(a, context)), found)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> _Memory:
        parts = ("vertical", "horizontal", "horizontal_shift", "out")
        memory = {name: getattr(self, name).begin(n, size, context) for name in parts}
        bias = self.vertical_shift.bias(context)
        return memory | {"bias": 0.0 if bias is None else bias[:, :, None, None]}

    def put(self, memory: _Memory, site: Site, h: Tensor) -> None:
        self.vertical.put(memory["vertical"], site, h)
        self.horizontal.put(memory["horizontal"], site, h)

    def look(self, memory: _Memory, site: Site) -> Any:
        a = self.vertical.look(memory["vertical"], site) if site.opens_row else None
        return self._found(memory, site, a, self.horizontal.look(memory["horizontal"], site), None)

    def step(self, memory: _Memory, site: Site, h: Any) -> Any:
        if self.strict:
            return super().step(memory, site, h)
        a = self.vertical.step(memory["vertical"], site, h.vertical) if site.opens_row else None
        b = self.horizontal.step(memory["horizontal"], site, h.horizontal)
        return self._found(memory, site, a, b, h.horizontal)

    def _found(self, memory: _Memory, site: Site, a: Tensor | None, b: Tensor, h: Tensor | None) -> Any:
        out = self.horizontal.out
        if a is not None:  # start of a row: contribution of the vertical stack to its pixels, (B, W, 2 width)
            memory["link"] = out.sort(self.link(a)[:, :, 0], 1).transpose(1, 2).contiguous()
        b = b + memory["link"][:, site.column, out.slices[site.group]]
        gated = gate(self.horizontal_shift.step(memory["horizontal_shift"], site, b))
        found = self.out.step(memory["out"], site, gated)
        found = found if h is None else h + found
        return found if self.last else Stacks(None if a is None else gate(a + memory["bias"]), found)

    def spread(self, seen: Any) -> Any:
        vertical, horizontal = (seen, seen) if self.strict else seen
        above = self.vertical.spread(vertical)
        found = self.out.spread(torch.maximum(self.horizontal.spread(horizontal), above))
        if not self.strict:
            found = torch.maximum(horizontal, found)
        return found if self.last else Stacks(above, found)


class GatedPixelCNN(RasterModel):
    """Gated convolutions in two stacks (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328).

    Inputs and outputs are as in `PixelCNN`. The paper does not specify the output layers; they are those of PixelCNN:
    twice ReLU and 1×1, then ReLU and the logits. With ``given``, the condition adds a bias to both halves of every
    gate; if it is a class y, log p(x) = log Σ_y p(y) p(x | y), with p(y) counted in `prepare`.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        channels: features of each stack, at least C.
        layers: number of layers of both stacks.
        head_channels: features of the last two 1×1 layers, at least C.
        kernel: odd size n of the kernels: vertical kernels see (n + 1)/2 rows of n pixels, horizontal ones (n + 1)/2.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, an even kernel, fewer features than colour channels.

    >>> from unsup import Event, Support
    >>> model = GatedPixelCNN(Event((1, 4, 4), Support("binary")), channels=4, layers=3, head_channels=4)
    >>> bool(model.blind_spot().any())
    False
    """

    presets = {
        "tiny": {"channels": 8, "layers": 2, "head_channels": 16, "kernel": 3},
        "paper": {"channels": 384, "layers": 20, "head_channels": 1024, "kernel": 5},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        channels: Count = 32,
        layers: Count = 7,
        head_channels: Count = 64,
        kernel: Annotated[int, AtLeast(3), Odd()] = 3,
        given: Event | None = None,
    ) -> None:
        self.take(event, given, channels=channels, head_channels=head_channels)
        groups, condition = self.raster.channels, self.conditions.size
        ends = [{"first": i == 0, "last": i == layers - 1} for i in range(layers)]
        into = [self.inputs.channels, *[channels] * (layers - 1)]
        self.stacks = nn.ModuleList(
            GatedLayer(n, channels, groups, kernel, condition, **end) for n, end in zip(into, ends, strict=True)
        )
        widths = (channels, head_channels, head_channels, groups * self.observation.outputs_each)
        convolutions = [MaskedConv(a, b, groups) for a, b in pairwise(widths)]
        self.head = Sequential(*(layer for conv in convolutions for layer in (Pointwise(relu), conv)))

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def layers(self) -> Sequence[Causal]:
        return [*cast(list[Causal], list(self.stacks)), self.head]
