"""Local attention: blocks are the paper's, stepping is forward, one block is full causal attention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unsup.core.event import BINARY, Event
from unsup.nn.attention import Attention
from unsup.nn.causal import Site
from unsup.nn.local_attention import BlockRaster, Blocks, LocalAttention, line_blocks

WIDTH, HEADS, N = 6, 2, 3


def raster(height: int, width: int, block: tuple[int, int], memory: tuple[int, int], channels: int = 1) -> Blocks:
    return BlockRaster(Event((channels, height, width), BINARY), block).blocks(memory).times(channels)


BLOCKS: dict[str, Callable[[], Blocks]] = {
    "line": lambda: line_blocks(12, 4, 4),
    "short-memory": lambda: line_blocks(12, 4, 2),
    "long-memory": lambda: line_blocks(11, 3, 7),
    "ragged": lambda: line_blocks(10, 4, 3),
    "no-memory": lambda: line_blocks(8, 3, 0),
    "one": lambda: line_blocks(1, 4, 4),
    "square": lambda: raster(4, 6, (2, 2), (1, 1)),
    "square-ragged": lambda: raster(5, 7, (2, 3), (2, 1)),
    "square-channels": lambda: raster(3, 4, (2, 2), (1, 2), channels=2),
}


def layer_of(blocks: Blocks, seed: int = 0) -> LocalAttention:
    layer = LocalAttention(WIDTH, HEADS, blocks).double().eval()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(10 * seed + i), dtype=p.dtype))
    return layer


def features(length: int, n: int = N, seed: int = 0) -> Tensor:
    return torch.randn(n, length, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_every_site_attends_to_what_it_sees(name: str) -> None:
    """Site by site and head by head, by a softmax over the visible sites."""
    blocks = BLOCKS[name]()
    layer, seen = layer_of(blocks), blocks.visible()
    h, each = features(len(seen)), WIDTH // HEADS
    q, k, v = (h @ part.T for part in layer.queries_keys_values.weight.chunk(3, 0))
    found = torch.zeros_like(h)
    for b, head, t in itertools.product(range(N), range(HEADS), range(len(seen))):
        own = slice(head * each, (head + 1) * each)
        weights = [
            math.exp(float(q[b, t, own] @ k[b, j, own]) / math.sqrt(each)) for j in range(len(seen)) if seen[t, j]
        ]
        values = [v[b, j, own] for j in range(len(seen)) if seen[t, j]]
        found[b, t, own] = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
    torch.testing.assert_close(layer(h), found @ layer.out.weight.T, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_stepping_is_forward(name: str) -> None:
    blocks = BLOCKS[name]()
    layer, length = layer_of(blocks), len(blocks.visible())
    h = features(length)
    memory = layer.begin(N, (1, length))
    stepped = torch.stack([layer.step(memory, Site(0, t), h[:, t]) for t in range(length)], 1)
    torch.testing.assert_close(stepped, layer(h), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BLOCKS)
@torch.no_grad()
def test_spread_is_where_a_change_of_one_input_shows(name: str) -> None:
    blocks = BLOCKS[name]()
    layer, length = layer_of(blocks), len(blocks.visible())
    h = features(length, 1).expand(length, -1, -1).clone()
    before = layer(h)
    h[torch.arange(length), torch.arange(length)] += 1.3
    assert torch.equal((layer(h) != before).any(2), layer.spread(torch.eye(length)) > 0)
    assert torch.equal(blocks.visible(), blocks.visible().tril())


@pytest.mark.parametrize("block", [9, 12, 50])
@torch.no_grad()
def test_a_block_as_long_as_the_sequence_is_full_causal_attention(block: int) -> None:
    layer, full = layer_of(line_blocks(9, block, 4)), Attention(WIDTH, HEADS).double()
    for own, part in ((layer.queries_keys_values, full.queries_keys_values), (layer.out, full.out)):
        part.weight.copy_(own.weight)
        part.bias.zero_()
    h = features(9)
    torch.testing.assert_close(layer(h), full(h), rtol=1e-10, atol=1e-10)
    single = layer.float()(h.float())
    torch.testing.assert_close(single, full.float()(h.float()), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_memory_as_long_as_the_sequence_is_full_causal_attention_too() -> None:
    one, many = layer_of(line_blocks(10, 10, 0)), layer_of(line_blocks(10, 3, 10))
    square = layer_of(raster(2, 5, (1, 2), (2, 5)))
    h = features(10)
    for other in (many, square):
        torch.testing.assert_close(other(h), one(h), rtol=1e-12, atol=1e-12)


def test_later_positions_of_the_own_block_are_masked_and_the_memory_block_is_fully_seen() -> None:
    seen = line_blocks(9, 3, 2).visible()
    for t, j in itertools.product(range(9), range(9)):
        start = t // 3 * 3
        assert bool(seen[t, j]) == (start - 2 <= j <= t)


@pytest.mark.parametrize(("size", "block", "memory"), [((4, 6), (2, 2), (1, 1)), ((5, 7), (2, 3), (3, 2))])
def test_squares_are_generated_block_by_block_with_what_is_above_left_and_right_in_memory(
    size: tuple[int, int], block: tuple[int, int], memory: tuple[int, int]
) -> None:
    (height, width), (h, w), (above, aside) = size, block, memory
    order = BlockRaster(Event((2, height, width), BINARY), block)
    pixels = sorted(itertools.product(range(height), range(width)), key=lambda p: (p[0] // h, p[1] // w, *p))
    entries = [c * height * width + row * width + column for row, column in pixels for c in range(2)]
    assert order.entries.tolist() == entries
    x = torch.arange(3 * 2 * height * width).view(3, 2, height, width)
    assert torch.equal(order.grid(order.line(x)), x)
    seen = order.blocks(memory).visible()
    for (i, (r, c)), (j, (row, column)) in itertools.product(enumerate(pixels), repeat=2):
        top, left, own = r // h * h, c // w * w, (row // h, column // w) == (r // h, c // w)
        right = min(left + w, width) - 1
        near = top - above <= row and left - aside <= column <= right + aside
        older = row < top or (row // h == r // h and column < left)  # a block above, or one on the left
        assert bool(seen[i, j]) == ((own and j <= i) or (near and older)), ((r, c), (row, column))


def test_blocks_of_pixels_are_blocks_of_their_channels() -> None:
    blocks = raster(3, 4, (2, 2), (1, 2))
    channels = blocks.times(2).visible()
    for (i, a), (j, b) in itertools.product(itertools.product(range(12), range(2)), repeat=2):
        expected = bool(blocks.visible()[i, j]) and (i != j or b <= a)
        assert bool(channels[2 * i + a, 2 * j + b]) == expected
