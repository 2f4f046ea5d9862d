"""Causal layers to twice the resolution: transposed convolutions with stride 2.

Sites are those of the fine grid; the coarse site (i, j) is known from the fine site (2 i, 2 j) on. The fine grid may
have an odd number of rows or columns, and is then cropped.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d

from unsup.nn.causal import NOTHING, Causal, Context, Site
from unsup.nn.causal_conv import channels_last, fresh
from unsup.nn.weight_norm import WeightNorm

_STRIDE = 2


def coarse(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns at half the resolution, rounded up."""
    return (size[0] + 1) // _STRIDE, (size[1] + 1) // _STRIDE


class Enlarged(Causal):
    """Each coarse site gives the fine sites (2 i, 2 j), …, (2 i + 1, 2 j + 1): a 2×2 kernel.

    Its input is a pair of coarse features and the size of the fine grid; in stepping, coarse features ``(B, I)`` at
    fine sites with even row and column, None at others.

    Args:
        width: number of features.
        norm: weight norm of the outputs.
    """

    def __init__(self, width: int, norm: WeightNorm) -> None:
        super().__init__()
        self.weight, self.bias = fresh(width, width, 2, 2, normed=True)
        self.norm = norm

    def forward(self, h: Any, context: Context = NOTHING) -> Tensor:
        h, (rows, columns) = h
        kernel = self.norm.weight(self.weight).transpose(0, 1)
        found = conv_transpose2d(h, kernel, self.bias, stride=_STRIDE)[:, :, :rows, :columns]
        return channels_last(self.norm.started(found, self.bias))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        kernel = self.norm.weight(self.weight)
        taps = [[kernel[:, :, row, column].T.contiguous() for column in (0, 1)] for row in (0, 1)]
        return {"taps": taps, "row": [None] * coarse(size)[1]}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor | None) -> Tensor:
        if h is not None:
            memory["row"][site.column // _STRIDE] = h
        tap = memory["taps"][site.row % _STRIDE][site.column % _STRIDE]
        return torch.addmm(self.bias, memory["row"][site.column // _STRIDE], tap)

    def spread(self, seen: Any) -> Tensor:
        seen, (rows, columns) = seen
        fine: Tensor = seen.repeat_interleave(_STRIDE, 2).repeat_interleave(_STRIDE, 3)
        return fine[:, :, :rows, :columns]


class VerticalEnlarged(Causal):
    """Each coarse row gives the fine rows 2 i and 2 i + 1, from columns on both sides: a 2×3 kernel.

    Its input is a pair of coarse features and the size of the fine grid; in stepping, which visits rows, a coarse row
    ``(B, I, 1, W)`` at even fine rows, None at odd ones.

    Args:
        width: number of features.
        norm: weight norm of the outputs.
    """

    def __init__(self, width: int, norm: WeightNorm) -> None:
        super().__init__()
        self.weight, self.bias = fresh(width, width, 2, 3, normed=True)
        self.norm = norm

    def forward(self, h: Any, context: Context = NOTHING) -> Tensor:
        h, (rows, columns) = h
        kernel = self.norm.weight(self.weight).transpose(0, 1)
        found = _enlarged(h, kernel, self.bias, columns)[:, :, :rows]
        return channels_last(self.norm.started(found, self.bias))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        kernel = self.norm.weight(self.weight).transpose(0, 1)
        return {"taps": [kernel[:, :, row : row + 1].contiguous() for row in (0, 1)], "columns": size[1], "row": None}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor | None) -> Tensor:
        if h is not None:
            memory["row"] = h
        return _enlarged(memory["row"], memory["taps"][site.row % _STRIDE], self.bias, memory["columns"])

    def spread(self, seen: Any) -> Tensor:
        seen, (rows, columns) = seen
        each = seen.flatten(0, 1).unsqueeze(1)
        fine = _enlarged(each, each.new_ones(1, 1, 2, 3), None, columns)[:, :, :rows]
        return (fine > 0).to(seen.dtype).view(*seen.shape[:2], rows, columns)


def _enlarged(h: Tensor, kernel: Tensor, bias: Tensor | None, columns: int) -> Tensor:
    """The middle of the kernel lies on the even columns."""
    found = conv_transpose2d(h, kernel, bias, stride=(kernel.shape[2], _STRIDE))
    return found[..., 1 : columns + 1]
