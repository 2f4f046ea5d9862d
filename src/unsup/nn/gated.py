"""Gated convolutions over the pixels of an image, in two stacks that together see every earlier pixel.

The layer of Gated PixelCNN (van den Oord et al. 2016, https://arxiv.org/abs/1606.05328, figure 2).
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from unsup.nn.causal import NOTHING, Causal, Context, Groups, Remembering, Shift, Site, gate
from unsup.nn.causal_conv import MaskedConv, VerticalConv, Window


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


def gated_layers(inputs: int, width: int, groups: int, kernel: int, condition: int, count: int) -> nn.ModuleList:
    """A chain of gated layers, from the image to horizontal features."""
    return nn.ModuleList(
        GatedLayer(width if i else inputs, width, groups, kernel, condition, first=i == 0, last=i == count - 1)
        for i in range(count)
    )


class Beside(Causal):
    """h + U e, with features e of each pixel that are known before the first site, in ``context.pixels``.

    Of two stacks, it is added to the horizontal one.
    """

    def __init__(self, size: int, groups: Groups) -> None:
        super().__init__()
        self.map = nn.Conv2d(size, len(groups.of), 1, bias=False)
        self.groups = groups

    def _added(self, context: Context) -> Tensor:
        assert context.pixels is not None
        return cast(Tensor, self.map(context.pixels))

    def forward(self, h: Any, context: Context = NOTHING) -> Any:
        if isinstance(h, Stacks):
            return Stacks(h.vertical, h.horizontal + self._added(context))
        return h + self._added(context)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Tensor:
        return self._added(context).permute(0, 2, 3, 1).contiguous()

    def step(self, memory: Tensor, site: Site, h: Any) -> Any:
        added = memory[:, site.row, site.column, self.groups.slices[site.group]]
        return Stacks(h.vertical, h.horizontal + added) if isinstance(h, Stacks) else h + added
