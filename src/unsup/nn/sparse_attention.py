"""Factorised attention: each half of the heads sees about √n of n sites, and two layers together see all earlier ones.

Child, Gray, Radford, Sutskever 2019, https://arxiv.org/abs/1904.10509. Sites are rows of ``l`` columns; every factor is
dense attention inside batches of rows or columns, so time and memory grow as n √n.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from unsup.core.errors import InputError
from unsup.nn.attention import attend, join_heads, split_heads
from unsup.nn.causal import NOTHING, Causal, Context, Site

Pattern = Literal["strided", "fixed"]


class Factor(ABC):
    """A set of sites that each site sees: itself or earlier ones.

    Args:
        stride: number of columns, l.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride

    @abstractmethod
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all sites, ``(B, heads, n, d)`` each; 0 where a site sees none."""

    @abstractmethod
    def seen(self, site: int) -> Sequence[tuple[slice, slice | Tensor]]:
        """The sites that a site sees, as an index, for groups of heads."""

    def rows(self, x: Tensor) -> Tensor:
        """``(B, heads, n, d)`` → ``(B · heads, rows, l, d)``; zeros after the last site."""
        missing = -x.shape[2] % self.stride
        return pad(x, (0, 0, 0, missing)).unflatten(2, (-1, self.stride)).flatten(0, 1)


def _line(rows: Tensor, like: Tensor) -> Tensor:
    """``(B · heads, rows, l, d)`` → ``(B, heads, n, d)``, with the axes B, heads and n of ``like``."""
    return rows.flatten(1, 2)[:, : like.shape[2]].unflatten(0, like.shape[:2])


_ALL = slice(None)


class Window(Factor):
    """The site and the last l before it: {i − l, …, i}."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys, values = self.rows(q), self._with_row_before(k), self._with_row_before(v)
        column = torch.arange(self.stride, device=q.device)
        seen = torch.cat([column >= column[:, None], column <= column[:, None]], 1)  # of the row before, of its own
        seen = seen.repeat(queries.shape[1], 1, 1)  # (rows, l, 2 l)
        seen[0, :, : self.stride] = False
        return _line(attend(queries, keys, values, seen), q)

    def _with_row_before(self, x: Tensor) -> Tensor:
        """``(B, heads, n, d)`` → ``(B · heads, rows, 2 l, d)``."""
        own = self.rows(x)
        return torch.cat([pad(own, (0, 0, 0, 0, 1, -1)), own], 2)

    def seen(self, site: int) -> Sequence[tuple[slice, slice]]:
        return [(_ALL, slice(max(0, site - self.stride), site + 1))]


class Column(Factor):
    """Every l-th site: {i, i − l, i − 2 l, …}."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        found = attend(*(self.rows(x).transpose(1, 2) for x in (q, k, v)))
        return _line(found.transpose(1, 2), q)

    def seen(self, site: int) -> Sequence[tuple[slice, slice]]:
        return [(_ALL, slice(site % self.stride, site + 1, self.stride))]


class Row(Factor):
    """The sites of the own row: {l ⌊i / l⌋, …, i}."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _line(attend(*map(self.rows, (q, k, v))), q)

    def seen(self, site: int) -> Sequence[tuple[slice, slice]]:
        return [(_ALL, slice(site - site % self.stride, site + 1))]


class Summary(Factor):
    """c columns of all rows, other ones in each head: {j ≤ i: l − (h + 1) c ≤ j mod l < l − h c} in head h = 0, 1, ….

    With more heads than groups of c columns, the groups are used again. Sites before the first of these see none.

    Args:
        stride: number of columns, l.
        columns: c.
        heads: number of heads.
    """

    def __init__(self, stride: int, columns: int, heads: int) -> None:
        super().__init__(stride)
        self.columns = columns
        self.firsts = [stride - columns * (1 + head % (stride // columns)) for head in range(heads)]

    def sites(self, n: int, first: int, device: torch.device) -> Tensor:
        """The sites among the first n whose column is one of the c from ``first`` on."""
        site = torch.arange(n, device=device)
        column = site % self.stride
        return site[(column >= first) & (column < first + self.columns)]

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        each = zip(self.firsts, *(x.split(1, 1) for x in (q, k, v)), strict=True)
        return torch.cat([self._head(first, *parts) for first, *parts in each], 1)

    def _head(self, first: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[2]
        if n <= first:
            return v.new_zeros(v.shape)
        sites = self.sites(n, first, q.device)
        seen = sites <= torch.arange(first, n, device=q.device)[:, None]
        return pad(attend(q[:, :, first:], k[:, :, sites], v[:, :, sites], seen), (0, 0, first, 0))

    def seen(self, site: int) -> Sequence[tuple[slice, Tensor]]:
        cpu = torch.device("cpu")
        return [(slice(h, h + 1), self.sites(site + 1, first, cpu)) for h, first in enumerate(self.firsts)]


def factors(pattern: Pattern, stride: int, columns: int, heads: int) -> tuple[Factor, Factor]:
    """The two factors of a pattern, for ``heads`` heads each."""
    if pattern == "strided":
        return Window(stride), Column(stride)
    return Row(stride), Summary(stride, columns, heads)


class SparseAttention(Causal):
    """Multi-head attention in which the first half of the heads has one factor, the other half the other one.

    Args:
        width: number of features.
        heads: number of heads, even, a divisor of the width and of the key features.
        keys: number of features of queries and keys, of all heads together.
        pattern: ``strided`` (the last l sites, every l-th site) or ``fixed`` (own row, summary columns).
        stride: number of columns, l.
        columns: number of summary columns of a head with ``fixed``, at most l.
    """

    def __init__(self, width: int, heads: int, keys: int, pattern: Pattern, stride: int, columns: int) -> None:
        super().__init__()
        if heads % 2:
            raise InputError(f"heads={heads} is odd; half of the heads sees one set of sites, half the other one")
        for name, features in (("width", width), ("number of key features", keys)):
            if features % heads:
                raise InputError(f"the {name}, {features}, is not divisible by heads={heads}")
        self.heads, self.parts = heads, (keys, keys, width)
        self.factors = factors(pattern, stride, columns, heads // 2)
        self.queries_keys_values = nn.Linear(width, sum(self.parts))
        self.out = nn.Linear(width, width)

    def _projected(self, h: Tensor) -> tuple[Tensor, ...]:
        return self.queries_keys_values(h).split(self.parts, -1)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        halves = zip(*(split_heads(part, self.heads).chunk(2, 1) for part in self._projected(h)), strict=True)
        found = [factor.forward(*half) for factor, half in zip(self.factors, halves, strict=True)]
        return cast(Tensor, self.out(join_heads(torch.cat(found, 1))))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        empty = [self.out.weight.new_zeros(n, self.heads, size[1], part // self.heads) for part in self.parts[1:]]
        return {"keys": empty[0], "values": empty[1]}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor) -> Tensor:
        t, half = site.column, self.heads // 2
        q, k, v = (part.unflatten(-1, (self.heads, 1, -1)) for part in self._projected(h))
        memory["keys"][:, :, t : t + 1], memory["values"][:, :, t : t + 1] = k, v
        found = []
        for own, factor in zip((slice(0, half), slice(half, None)), self.factors, strict=True):
            queries, all_keys, all_values = q[:, own], memory["keys"][:, own], memory["values"][:, own]
            for group, seen in factor.seen(t):
                keys, values = all_keys[:, group, seen], all_values[:, group, seen]
                weights = (queries[:, group] * q.shape[-1] ** -0.5 @ keys.transpose(-1, -2)).softmax(-1)
                found.append(weights @ values)  # 0 if there is no key
        return cast(Tensor, self.out(torch.cat(found, 1).flatten(1)))

    def visible(self, n: int) -> Tensor:
        """Whether site i sees site j in this layer, bool ``(n, n)``."""
        seen = torch.zeros(n, n, dtype=torch.bool)
        for t in range(n):
            for factor in self.factors:
                for _, own in factor.seen(t):
                    seen[t, own] = True
        return seen

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``."""
        return (seen @ self.visible(seen.shape[1]).T.to(seen.dtype) > 0).to(seen.dtype)
