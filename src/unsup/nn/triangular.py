"""Products of masked layers that skip their zero blocks: a fast path of `unsup.nn.masked`.

Sorted by degree, the kept weights of a masked layer are block-triangular: a unit of degree m sees the units below of
degree ≤ m, which come first. A product is computed in blocks of rows, each with the columns that it sees, at little
more than half the cost. Features come first here, ``(units, B)``, so that blocks lie side by side in memory.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function

_ROWS = 64  # of a block at least; with fewer, products are slower than what they skip
_BLOCKS = 6


class Sorting(NamedTuple):
    """How a layer is sorted by degree.

    Attributes:
        rows: units above by degree, ``(O,)``; None: they are in order.
        columns: units below by degree, ``(I,)``; None: they are in order.
        rows_back: the inverse of ``rows``.
        columns_back: the inverse of ``columns``.
        mask: kept weights, sorted, 0 and 1, ``(O, I)``.
        by_rows: blocks of rows: first and last row, and the number of columns that they see.
        by_columns: blocks of columns: first and last column, and the first row that sees them.
    """

    rows: Tensor | None
    columns: Tensor | None
    rows_back: Tensor | None
    columns_back: Tensor | None
    mask: Tensor
    by_rows: list[tuple[int, int, int]]
    by_columns: list[tuple[int, int, int]]

    @classmethod
    def of(cls, mask: Tensor, above: Tensor, below: Tensor) -> Sorting:
        """The sorting of a mask ``(O, I)`` by the degrees of its rows and columns."""
        rows, columns = _order(above), _order(below)
        mask = arranged(mask, rows, columns)
        kept = mask > 0
        seen = (kept * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(1).cummax(0).values
        first = len(mask) - (kept * torch.arange(len(mask), 0, -1, device=mask.device)[:, None]).amax(0)
        first = first.flip(0).cummin(0).values.flip(0)
        return cls(
            rows,
            columns,
            None if rows is None else rows.argsort(),
            None if columns is None else columns.argsort(),
            mask,
            [(start, stop, int(seen[stop - 1])) for start, stop in _blocks(len(mask))],
            [(start, stop, int(first[start])) for start, stop in _blocks(mask.shape[1])],
        )

    def weight(self, weight: Tensor) -> Tensor:
        """W ∘ M, sorted."""
        return arranged(weight, self.rows, self.columns) * self.mask

    def bias(self, bias: Tensor) -> Tensor:
        return bias if self.rows is None else bias[self.rows]


def arranged(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Rows and columns of ``(O, I)`` in the given orders."""
    if rows is not None:
        weight = weight.index_select(0, rows)
    return weight if columns is None else weight.index_select(1, columns)


def product(x: Tensor, weight: Tensor, bias: Tensor | None, sorting: Sorting) -> Tensor:
    """y = (W ∘ M) x + b of sorted features: ``(I, B)`` → ``(O, B)``, for unsorted parameters."""
    return cast(Tensor, _Product.apply(x, weight, bias, sorting))


def sorted_product(x: Tensor, weight: Tensor, bias: Tensor | None, sorting: Sorting) -> Tensor:
    """The same for sorted and masked parameters, without a graph."""
    y = x.new_empty(len(weight), x.shape[1])
    for start, stop, seen in sorting.by_rows:
        rows = y[start:stop]
        if not seen:
            rows.zero_() if bias is None else rows.copy_(bias[start:stop, None].expand_as(rows))
        elif bias is None:
            torch.mm(weight[start:stop, :seen], x[:seen], out=rows)
        else:
            torch.addmm(bias[start:stop, None], weight[start:stop, :seen], x[:seen], out=rows)
    return y


class _Product(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, sorting: Sorting) -> Tensor:
        arranged_weight = sorting.weight(weight)
        ctx.save_for_backward(x, weight, bias, arranged_weight)
        ctx.sorting = sorting
        return sorted_product(x, arranged_weight, None if bias is None else sorting.bias(bias), sorting)

    @staticmethod
    def backward(ctx: Any, to_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, kept = ctx.saved_tensors
        sorting: Sorting = ctx.sorting
        wanted = ctx.needs_input_grad
        to_x: Tensor | None = None
        to_weight: Tensor | None = None
        to_bias: Tensor | None = None
        if torch.is_grad_enabled():  # for second derivatives: differentiable, with the zero blocks
            kept = sorting.weight(weight)
            to_weight = arranged((to_y @ x.T) * sorting.mask, sorting.rows_back, sorting.columns_back)
            to_x = kept.T @ to_y
        else:
            if wanted[0]:
                to_x = torch.empty_like(x, memory_format=torch.contiguous_format)
                for start, stop, first in sorting.by_columns:
                    torch.mm(kept[first:, start:stop].T, to_y[first:], out=to_x[start:stop])
            if wanted[1]:
                to_weight = torch.zeros_like(kept)
                for start, stop, seen in sorting.by_rows:
                    if seen:
                        torch.mm(to_y[start:stop], x[:seen].T, out=to_weight[start:stop, :seen])
                to_weight.mul_(sorting.mask)
                to_weight = arranged(to_weight, sorting.rows_back, sorting.columns_back)
        if bias is not None and wanted[2]:
            to_bias = to_y.sum(1)
            to_bias = to_bias if sorting.rows_back is None else to_bias[sorting.rows_back]
        return to_x, to_weight, to_bias, None


def _order(degrees: Tensor) -> Tensor | None:
    """The order by degree; None if they are in order."""
    return None if bool((degrees.diff() >= 0).all()) else degrees.argsort(stable=True)


def _blocks(size: int) -> list[tuple[int, int]]:
    count = max(1, min(_BLOCKS, size // _ROWS))
    ends = [size * i // count for i in range(count + 1)]
    return list(pairwise(ends))
