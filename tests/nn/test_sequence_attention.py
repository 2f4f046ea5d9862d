"""Attention over sequences: stepping is the full pass, and every score is that of the papers' loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event
from unsup.families.autoregressive.transformer_xl import PostNormBlock
from unsup.nn.attention import Attention, attend
from unsup.nn.causal import Causal, Context, Pointwise, Site
from unsup.nn.decoder import Block, draw_weights
from unsup.nn.order import Order
from unsup.nn.relative_attention import Reach, RelativeAttention, relative_shift, sinusoids
from unsup.nn.sequence import Places
from unsup.nn.sparse_attention import SparseAttention

LENGTH, WIDTH, N = 11, 8, 2
REACHES = {
    "segments": Reach(3, 4),
    "no-memory": Reach(4, 0),
    "short-memory": Reach(4, 1),
    "one-segment": Reach(20, 5),
    "same-length": Reach(3, 4, same_length=True),
    "same-length-of-one": Reach(2, 1, same_length=True),
    "clamped": Reach(3, 5, clamp=2),
}


def sparse(pattern: str, stride: int, columns: int = 1, heads: int = 2) -> SparseAttention:
    return SparseAttention(WIDTH, heads, 4, pattern, stride, columns)


def relative(name: str) -> RelativeAttention:
    return RelativeAttention(WIDTH, 2, Reach(2, 1), REACHES[name])


LAYERS: dict[str, Callable[[], Causal]] = {
    "pointwise": lambda: Pointwise(nn.Linear(WIDTH, WIDTH)),
    "places": lambda: Places(Order(Event((LENGTH,), BINARY)), WIDTH),
    "places-in-rows": lambda: Places(Order(Event((LENGTH,), BINARY)), WIDTH, (3, 4)),
    "attention": lambda: Attention(WIDTH, 2),
    "attention-dropout": lambda: Attention(WIDTH, 4, dropout=0.5),
    "block": lambda: Block(WIDTH, Attention(WIDTH, 2), 12, 0.5),
    **{f"strided-{stride}": lambda s=stride: sparse("strided", s) for stride in (1, 3, 4, 11)},
    **{f"fixed-{s}-{c}": lambda s=s, c=c: sparse("fixed", s, c, heads=4) for s, c in ((1, 1), (4, 1), (4, 3), (11, 2))},
    "sparse-block": lambda: Block(WIDTH, sparse("strided", 3), 12, 0.0),
    **{f"relative-{name}": lambda n=name: relative(n) for name in REACHES},
    "post-norm-block": lambda: PostNormBlock(WIDTH, relative("segments"), 12, 0.5),
}


def build(name: str) -> Causal:
    """The layer in float64 with large weights, in evaluation mode."""
    layer = LAYERS[name]()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(0.7 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return layer.double().eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_stepping_is_forward(name: str) -> None:
    layer, h = build(name), noise(N, LENGTH, WIDTH)
    memory = layer.begin(N, (1, LENGTH), Context())
    found = torch.stack([layer.step(memory, Site(0, t), h[:, t]) for t in range(LENGTH)], 1)
    torch.testing.assert_close(found, layer(h), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_spread_is_where_a_change_of_one_site_shows(name: str) -> None:
    layer, h = build(name), noise(1, LENGTH, WIDTH)
    changed = h.repeat(LENGTH, 1, 1)
    changed[torch.arange(LENGTH), torch.arange(LENGTH)] += noise(WIDTH, seed=1)
    moved = (layer(changed) != layer(h.repeat(LENGTH, 1, 1))).any(2)
    assert torch.equal(moved, layer.spread(torch.eye(LENGTH)) > 0)


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    """softmax(q kᵀ / √d) v over the seen keys, ``(B, n, d)``; 0 where a query sees none."""
    weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).exp() * seen
    return weights @ v / weights.sum(-1, keepdim=True).clamp(min=1e-300)


def pairs(n: int, holds: Callable[[int, int], bool]) -> Tensor:
    return torch.tensor([[j <= i and holds(i, j) for j in range(n)] for i in range(n)])


def sets(pattern: str, n: int, stride: int, c: int, head: int = 0) -> list[Tensor]:
    """The sets of sites of the paper, bool ``(n, n)``; the second one is that of a head of the second half."""
    if pattern == "strided":
        return [pairs(n, lambda i, j: i - j <= stride), pairs(n, lambda i, j: (i - j) % stride == 0)]
    end = stride - c * (head % (stride // c))
    return [pairs(n, lambda i, j: i // stride == j // stride), pairs(n, lambda i, j: end - c <= j % stride < end)]


@pytest.mark.parametrize("n", [1, 7, 12])
@pytest.mark.parametrize(
    ("pattern", "stride", "c"),
    [("strided", 3, 1), ("strided", 5, 1), ("fixed", 4, 1), ("fixed", 4, 3), ("fixed", 5, 2)],
)
def test_sparse_attention_is_masked_dense_attention(pattern: str, stride: int, c: int, n: int) -> None:
    layer = SparseAttention(WIDTH, 4, 4, pattern, stride, c).double()
    h = noise(N, n, WIDTH).requires_grad_()
    q, k, v = layer.queries_keys_values(h).split((4, 4, WIDTH), -1)
    found = []
    for head in range(4):
        seen = sets(pattern, n, stride, c, head % 2)[head // 2].double()
        found.append(dense(q[..., head, None], k[..., head, None], v[..., 2 * head : 2 * head + 2], seen))
    expected = layer.out(torch.cat(found, -1))
    torch.testing.assert_close(layer(h), expected, rtol=1e-11, atol=1e-11)
    slope = noise(N, n, WIDTH, seed=3)
    both = [torch.autograd.grad((y * slope).sum(), h, retain_graph=True)[0] for y in (layer(h), expected)]
    torch.testing.assert_close(both[0], both[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_one_row_is_dense_attention(pattern: str) -> None:
    """With l = n the first factor sees all earlier sites; the other one itself, or what is summarised."""
    layer = SparseAttention(WIDTH, 2, WIDTH, pattern, 9, 9).double()
    full, h = Attention(WIDTH, 2).double(), noise(N, 9, WIDTH)
    full.load_state_dict(layer.state_dict())
    with torch.no_grad():
        for part in (layer, full):
            part.out.weight.copy_(torch.eye(WIDTH))
    whole = slice(None) if pattern == "fixed" else slice(0, WIDTH // 2)  # l = c = n: the summary is everything too
    torch.testing.assert_close(layer(h)[..., whole], full(h)[..., whole], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
@pytest.mark.parametrize(("n", "stride"), [(12, 3), (16, 4), (14, 4), (10, 1), (10, 10)])
def test_two_layers_reach_every_earlier_site(pattern: str, n: int, stride: int) -> None:
    layer = SparseAttention(WIDTH, 2, WIDTH, pattern, stride, 1)
    first, second = (s.long() for s in sets(pattern, n, stride, 1))
    assert torch.equal(layer.visible(n), first + second > 0)
    all_earlier = torch.ones(n, n, dtype=torch.bool).tril()
    assert torch.equal((first + second) @ (first + second) > 0, all_earlier)
    assert torch.equal(layer.spread(layer.spread(torch.eye(n))).T > 0, all_earlier)
    assert torch.equal(first @ second > 0, all_earlier) or pattern == "fixed"  # window, then column


def test_a_query_without_keys_gives_zeros() -> None:
    layer = SparseAttention(WIDTH, 2, WIDTH, "fixed", 5, 2).double()
    for n in (2, 3, 7):
        h = noise(1, n, WIDTH).requires_grad_()
        q, k, v = (part[..., WIDTH // 2 :][:, None] for part in layer.queries_keys_values(h).chunk(3, -1))
        found = layer.factors[1].forward(q, k, v)
        assert (found[:, :, :3] == 0).all()
        assert (found[:, :, 3:] != 0).all()
        (slope,) = torch.autograd.grad(layer(h).sum(), h)
        assert slope.isfinite().all()


def test_sparse_attention_refuses_what_it_cannot_split() -> None:
    for options, match in (
        ((8, 3, 8, "strided", 3, 1), "heads=3 is odd"),
        ((9, 2, 8, "strided", 3, 1), "width, 9, is not divisible by heads=2"),
        ((8, 2, 5, "strided", 3, 1), "key features, 5, is not divisible by heads=2"),
    ):
        with pytest.raises(InputError, match=match):
            SparseAttention(*options)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_memory_grows_as_n_to_the_three_halves_at_most(pattern: str) -> None:
    """Bytes that a layer keeps for its gradients. For 16 times as many sites they are 64 times as many; of dense
    attention weights, 256 times."""

    def kept(n: int) -> int:
        layer, storages = SparseAttention(WIDTH, 2, WIDTH, pattern, math.isqrt(n), 1), {}

        def pack(x: Tensor) -> Tensor:
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            found = layer(torch.randn(1, n, WIDTH))
        assert found.grad_fn is not None
        return sum(storages.values())

    assert kept(4096) < 1.1 * 64 * kept(256)


# --- relative positions -----------------------------------------------------------------------------------------------


def test_relative_shift_is_the_double_loop() -> None:
    for segment, keys in ((1, 1), (4, 4), (3, 8), (1, 5)):
        x = noise(2, segment, keys)
        shifted = relative_shift(x)
        for i in range(segment):
            for k in range(keys - segment + i + 1):
                distance = keys - segment + i - k
                assert torch.equal(shifted[:, i, k], x[:, i, keys - 1 - distance])


def loop(layer: RelativeAttention, h: Tensor, reach: Reach, *, detached: bool = False) -> Tensor:
    """Attention score by score, as in the paper: ``(n, width)`` → ``(n, width)``."""
    (n, width), heads = h.shape, layer.heads
    d = width // heads
    query, key, value = layer.queries_keys_values.weight.chunk(3, 0)
    rows = []
    for i in range(n):
        start = i // reach.segment * reach.segment
        if reach.same_length:
            seen = [j for j in range(n) if 0 <= i - j < reach.memory]
        else:
            seen = [j for j in range(n) if start - reach.memory <= j <= i]
        found = []
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            q, u, v = query[own] @ h[i], layer.content_bias[head], layer.distance_bias[head]
            scores, values = [], []
            for j in seen:
                other = h[j].detach() if detached and j < start else h[j]
                k = key[own] @ other
                distance = i - j if reach.clamp is None else min(i - j, reach.clamp)
                angles = [distance / 10000 ** (2 * f / width) for f in range(width // 2)]
                r = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
                r = layer.distances.weight[own] @ r
                scores.append((q @ k + q @ r + u @ k + v @ r) / math.sqrt(d))
                values.append(value[own] @ other)
            found.append(torch.stack(scores).softmax(0) @ torch.stack(values))
        rows.append(layer.out.weight @ torch.cat(found))
    return torch.stack(rows)


@pytest.mark.parametrize("name", REACHES)
@pytest.mark.parametrize("n", [1, 3, 11])
def test_relative_attention_is_the_papers_loop(name: str, n: int) -> None:
    layer, h = build(f"relative-{name}"), noise(1, n, WIDTH)
    assert isinstance(layer, RelativeAttention)
    with torch.no_grad():
        torch.testing.assert_close(layer(h)[0], loop(layer, h[0], REACHES[name]), rtol=1e-11, atol=1e-11)


def test_gradients_do_not_flow_into_the_memory_in_training() -> None:
    layer = RelativeAttention(WIDTH, 2, Reach(3, 4), Reach(3, 4)).double()
    draw_weights(layer, lambda weight: 0.7)
    h, slope = noise(1, 8, WIDTH).requires_grad_(), noise(8, WIDTH, seed=2)
    for mode in (True, False):
        layer.train(mode)
        sources = [h, *layer.parameters()]
        whole = torch.autograd.grad((layer(h)[0] * slope).sum(), sources)
        parts = torch.autograd.grad((loop(layer, h[0], Reach(3, 4), detached=mode) * slope).sum(), sources)
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        (late,) = torch.autograd.grad((layer(h)[0] * slope)[6:].sum(), h)
        assert bool((late[0, :6] == 0).all()) is mode  # the last segment reads the memory, and does not train it


def test_sinusoids_are_told_by_distance() -> None:
    r = sinusoids(torch.tensor([0, 1, 5]), 6, torch.zeros((), dtype=torch.float64))
    assert r[0].tolist() == [0, 0, 0, 1, 1, 1]
    assert r[2, 0] == pytest.approx(math.sin(5))
    assert r[2, 4] == pytest.approx(math.cos(5 / 10000 ** (2 / 6)))


@pytest.mark.parametrize("reach", REACHES.values(), ids=REACHES)
def test_rule_of_a_segment(reach: Reach) -> None:
    short = reach.within(LENGTH)
    told = short.visible(LENGTH, torch.device("cpu"))
    for i, j in itertools.product(range(LENGTH), repeat=2):
        row, place = divmod(i, short.segment)
        column = j - row * short.segment + short.memory
        inside = 0 <= column < told.shape[2]
        assert (inside and bool(told[row, place, column])) == (reach.first(i) <= j <= i)


# --- fast kernels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_whole_products_are_the_fused_kernel(masked: bool) -> None:
    q, k, v = noise(3, 2, 2, 40, 8).float().unbind(0)
    seen = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)) < 0.5 if masked else None
    if seen is not None:
        seen |= torch.eye(40, dtype=torch.bool)
    fused = attend(q, k, v, seen)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        whole = attend(q, k, v, seen)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(whole, fused, rtol=1e-3, atol=1e-4)
    seen = torch.ones(40, 40, dtype=torch.bool).tril() if seen is None else seen
    torch.testing.assert_close(fused, dense(q, k, v, seen.float()), rtol=1e-4, atol=1e-5)


def test_dropped_attention_weights_follow_the_generator_and_keep_the_mean() -> None:
    layer, h = Attention(WIDTH, 2, dropout=0.3).double().train(), noise(1, 5, WIDTH)
    draws = [layer(h.expand(2000, -1, -1), Context(generator=torch.Generator().manual_seed(s))) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    error = (draws[0].mean(0) - layer.eval()(h)[0]) / draws[0].std(0) * math.sqrt(2000)
    assert error.abs().max() < 5


def test_ends_of_residual_blocks_start_smaller() -> None:
    blocks = nn.ModuleList(Block(64, Attention(64, 2), 256, 0.0) for _ in range(8))
    draw_weights(blocks, lambda weight: 0.02)
    for block in blocks:
        for end in block.ends:
            assert float(end.weight.detach().std()) == pytest.approx(0.02 / 4, rel=0.1)
            assert not end.bias.any()
        assert float(block.attention.queries_keys_values.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert (block.first.weight == 1).all()
