"""Causal self-attention within local blocks of a sequence (Parmar et al. 2018, https://arxiv.org/abs/1802.05751).

The sites of a sequence are split into *query blocks*. A site attends to the sites of its own block up to itself, and to
a *memory block*: sites of earlier blocks, all of which it sees. Blocks are intervals of the sequence, or rectangles of
an image that is generated block by block.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from unsup.core.event import Event
from unsup.nn.attention import check_heads
from unsup.nn.causal import NOTHING, Causal, Context, Site
from unsup.nn.order import Order


class Blocks(NamedTuple):
    """Sites of query blocks and of their memory blocks, numbered in the order of generation; −1 fills up shorter ones.

    Attributes:
        queries: ``(blocks, lq)``; each block is an interval, and together they cover the sequence in order.
        memory: ``(blocks, lm)``, sites before the block.
    """

    queries: Tensor
    memory: Tensor

    def visible(self) -> Tensor:
        """Whether site i attends to site j: ``(L, L)`` bool."""
        length = int(self.queries.max()) + 1
        seen = torch.zeros(length, length, dtype=torch.bool)
        for queries, memory in zip(self.queries, self.memory, strict=True):
            own = queries[queries >= 0]
            seen[own[:, None], memory[memory >= 0]] = True
            seen[own[:, None], own] = own[:, None] >= own
        return seen

    def times(self, entries: int) -> Blocks:
        """The blocks of a sequence with ``entries`` consecutive sites in place of each."""
        return Blocks(*(_repeated(part, entries) for part in self))


def _repeated(sites: Tensor, entries: int) -> Tensor:
    each = sites[:, :, None] * entries + torch.arange(entries)
    return torch.where(sites[:, :, None] < 0, -1, each).flatten(1)


def line_blocks(length: int, block: int, memory: int) -> Blocks:
    """Intervals of ``block`` sites, each with the ``memory`` sites before it.

    >>> line_blocks(5, 2, 3)
    Blocks(queries=tensor([[ 0,  1],
            [ 2,  3],
            [ 4, -1]]), memory=tensor([[-1, -1, -1],
            [-1,  0,  1],
            [ 1,  2,  3]]))
    """
    starts = torch.arange(0, length, block)[:, None]
    queries, before = starts + torch.arange(block), starts + torch.arange(-memory, 0)
    return _trimmed(torch.where(queries < length, queries, -1), before.clamp(min=-1))


def _trimmed(queries: Tensor, memory: Tensor) -> Blocks:
    """Without columns that no block uses."""
    return Blocks(*(part[:, (part >= 0).any(0)] for part in (queries, memory)))


class BlockRaster(Order):
    """Images block by block: blocks in raster order, and in a block the raster order of pixels, channel by channel.

    Args:
        event: images ``(C, H, W)``.
        block: height and width of a block; those at the right and lower edge may be smaller.
    """

    def __init__(self, event: Event, block: tuple[int, int]) -> None:
        channels, self.height, self.width = event.shape
        self.block = block
        pixel = torch.arange(self.height * self.width)
        row, column = pixel // self.width, pixel % self.width
        across = -(-self.width // block[1])
        number = row // block[0] * across + column // block[1]
        self.pixels = number.argsort(stable=True)  # a stable sort keeps raster order in a block
        """Numbers of the pixels in the order of generation."""
        self.sizes: list[int] = number.bincount().tolist()
        """Number of pixels of each block."""
        super().__init__(event, (self.pixels[:, None] + torch.arange(channels) * len(pixel)).flatten())
        high, wide = block
        self.beginning = (
            f"images are generated in blocks of {high}x{wide} pixels, row by row in a block; known may be the top "
            f"{high} rows (or a multiple of it), then blocks from the left, then the first pixels of one more block"
        )

    def blocks(self, memory: tuple[int, int]) -> Blocks:
        """Query blocks of pixels. Their memory: earlier pixels of a rectangle that extends the block.

        Args:
            memory: number of rows above, and number of columns on each side.
        """
        above, aside = memory
        row, column = self.pixels // self.width, self.pixels % self.width
        queries, before, start = [], [], 0
        for size in self.sizes:
            own, end = slice(start, start + size), int(row[start : start + size].max())
            near = (row >= row[start] - above) & (row <= end)
            near &= (column >= column[own].min() - aside) & (column <= column[own].max() + aside)
            queries.append(torch.arange(start, start + size))
            before.append(near[:start].nonzero()[:, 0])
            start += size
        return _trimmed(*(nn.utils.rnn.pad_sequence(part, True, -1.0).long() for part in (queries, before)))


class LocalAttention(Causal):
    """Multi-head attention of each site to the earlier sites of its block, itself included, and to the memory block.

        softmax(q kᵀ / √d) v      q, k, v: linear maps of the features, d features in each head

    Args:
        width: number of features.
        heads: number of heads, a divisor of the width.
        blocks: what each site attends to.
    """

    queries: Tensor
    keys: Tensor
    visible: Tensor
    slots: Tensor

    def __init__(self, width: int, heads: int, blocks: Blocks) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.blocks = heads, blocks
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        queries, memory = blocks
        size = queries.shape[1]
        keys = torch.cat([memory, queries], 1)
        own = torch.ones(size, size, dtype=torch.bool).tril()
        seen = torch.cat([own.new_ones(size, memory.shape[1]), own], 1) & (keys >= 0)[:, None]
        for name, found in {"queries": queries, "keys": keys}.items():
            self.register_buffer(name, found.clamp(min=0).flatten(), persistent=False)
        self.register_buffer("visible", seen[:, None], persistent=False)  # (blocks, 1, lq, lm + lq)
        self.register_buffer("slots", (queries.flatten() >= 0).nonzero()[:, 0], persistent=False)
        """Where the site t is among the queries of all blocks: ``(L,)``."""
        self.place: list[tuple[int, int]] = [divmod(slot, size) for slot in self.slots.tolist()]
        """Number of the block of a site, and its number in the block."""
        self.before = [own[own >= 0] for own in memory]

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.queries_keys_values(h).chunk(3, -1))
        q, k, v = self._blocked(q, self.queries), self._blocked(k, self.keys), self._blocked(v, self.keys)
        found = scaled_dot_product_attention(q, k, v, attn_mask=self.visible)  # (blocks, B heads, lq, d)
        line = found.unflatten(1, (len(h), self.heads)).permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)
        return cast(Tensor, self.out(line if line.shape[1] == h.shape[1] else line[:, self.slots]))

    def _blocked(self, part: Tensor, sites: Tensor) -> Tensor:
        """``(B, L, heads, d)`` → ``(blocks, B heads, sites of a block, d)``."""
        count = len(self.visible)
        found = part if sites is self.queries and len(sites) == part.shape[1] else part[:, sites]
        return found.unflatten(1, (count, -1)).permute(1, 0, 3, 2, 4).flatten(1, 2)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        weight = self.out.weight
        shape = (2, n, self.heads, size[1], len(weight) // self.heads)
        return {"all": weight.new_zeros(shape), "near": weight.new_zeros(0)}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor) -> Tensor:
        block, number = self.place[site.column]
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.queries_keys_values(h).chunk(3, -1))
        before = self.before[block]
        if number == 0:  # a block opens: collect the keys and values of its memory
            found = memory["all"].index_select(3, before.to(h.device))
            own = found.new_zeros(*found.shape[:3], len(self.keys) // len(self.visible) - len(before), found.shape[-1])
            memory["near"] = torch.cat([found, own], 3)
        new = torch.stack([k, v])
        last = len(before) + number
        memory["all"][:, :, :, site.column] = new
        memory["near"][:, :, :, last] = new
        keys, values = memory["near"][:, :, :, : last + 1]
        return cast(Tensor, self.out(scaled_dot_product_attention(q[:, :, None], keys, values).flatten(1)))

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``: a site sees its block up to itself, and the memory block."""
        return (seen @ self.blocks.visible().to(seen.dtype).T > 0).to(seen.dtype)
