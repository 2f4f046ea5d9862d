"""Causal layers: stepping is computing all sites at once, nothing but the past is seen, masks are the paper's."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from unsup.core.event import BINARY, Event
from unsup.families.autoregressive import pixelcnn
from unsup.families.autoregressive.pixelcnn import ResidualBlock
from unsup.nn import causal, causal_conv, raster
from unsup.nn import gated as gated_layers
from unsup.nn.attention import Attention
from unsup.nn.causal import (
    Causal,
    Chain,
    Context,
    Dropout,
    Groups,
    Pointwise,
    Remembering,
    Sequential,
    Shift,
    Site,
    gate,
)
from unsup.nn.causal_conv import POINT, MaskedConv, VerticalConv, Window, square
from unsup.nn.gated import Beside, GatedLayer, Stacks
from unsup.nn.raster import AsSequence, Raster

HEIGHT, WIDTH, N = 4, 5, 3
CONDITION = Context(
    torch.randn(N, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
    pixels=torch.randn(N, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(6), dtype=torch.float64),
)


def conv(inputs: int, outputs: int, groups: int = 1, **options: Any) -> tuple[Causal, Groups, Groups]:
    layer = MaskedConv(inputs, outputs, groups, **options)
    return layer, layer.into, layer.out


def same(layer: Causal, features: int, groups: int) -> tuple[Causal, Groups, Groups]:
    return layer, Groups(features, groups), Groups(features, groups)


def vertical(**options: Any) -> tuple[Causal, Groups, Groups]:
    layer = VerticalConv(4, 6, rows=2, reach=2, **options)
    return layer, layer.into, Groups(6, 1)


def gated(groups: int, first: bool, last: bool, kernel: int = 3) -> tuple[Causal, Groups, Groups]:
    layer = GatedLayer(4 if first else 5, 5, groups, kernel, 2, first=first, last=last)
    return layer, layer.horizontal.into, layer.out.out


def residual_stack() -> tuple[Causal, Groups, Groups]:
    inner = Sequential(Pointwise(torch.relu), MaskedConv(5, 5, 2, window=square(3)), Shift(2, Groups(5, 2)))
    return same(Sequential(inner, MaskedConv(5, 5, 2), residual=True), 5, 2)


# A layer, the groups of its inputs, those of its outputs.
LAYERS: dict[str, Callable[[], tuple[Causal, Groups, Groups]]] = {
    "relu": lambda: same(Pointwise(torch.relu), 5, 2),
    "gate": lambda: (Pointwise(gate), Groups(10, 3, parts=2), Groups(5, 3)),
    "dropout": lambda: same(Dropout(0.5), 5, 2),
    "shift": lambda: same(Shift(2, Groups(5, 2)), 5, 2),
    "shift-of-halves": lambda: (Shift(2, Groups(10, 3, parts=2)), *[Groups(10, 3, parts=2)] * 2),
    "no-shift": lambda: same(Shift(0, Groups(5, 2)), 5, 2),
    "1x1": lambda: conv(4, 6),
    "1x1-groups": lambda: conv(5, 7, 3),
    "1x1-A": lambda: conv(5, 7, 3, mask="A"),
    "square-A": lambda: conv(1, 4, window=square(7), mask="A"),
    "square-A-groups": lambda: conv(3, 8, 3, window=square(3), mask="A"),
    "square": lambda: conv(4, 6, window=square(3)),
    "square-groups": lambda: conv(5, 7, 3, window=square(5)),
    "left-A-halves": lambda: conv(4, 10, 3, window=Window(left=2), mask="A", parts=2),
    "left-halves": lambda: conv(4, 10, 3, window=Window(left=2), parts=2),
    "down-right": lambda: conv(4, 6, window=Window(above=1, left=1)),
    "above-alone": lambda: conv(4, 6, 2, window=Window(above=2)),
    "vertical": lambda: vertical(),
    "vertical-strict": lambda: vertical(strict=True, groups=3),
    "sequential": residual_stack,
    "block": lambda: same(ResidualBlock(4, 2, 3, 2), 8, 2),
    "beside": lambda: same(Beside(4, Groups(5, 2)), 5, 2),
    "as-sequence": lambda: same(AsSequence(Attention(4, 2), Raster(Event((2, HEIGHT, WIDTH), BINARY))), 8, 2),
    "gated-first": lambda: gated(2, first=True, last=False),
    "gated-middle": lambda: gated(3, first=False, last=False, kernel=5),
    "gated-last": lambda: gated(2, first=False, last=True),
    "gated-alone": lambda: gated(1, first=True, last=True),
}


def build(name: str) -> tuple[Causal, Groups, Groups]:
    """The layer in float64 with plain parameters, in evaluation mode."""
    layer, into, out = LAYERS[name]()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return layer.double().eval(), into, out


def sites(groups: int) -> Iterator[Site]:
    return (Site(*place) for place in itertools.product(range(HEIGHT), range(WIDTH), range(groups)))


def at(h: Tensor, site: Site, groups: Groups) -> Tensor:
    """Features of one site, ``(B, those of its group)``."""
    return h[:, groups.of == site.group, site.row, site.column]


def is_of_stacks(layer: Causal) -> bool:
    return isinstance(layer, GatedLayer) and not layer.strict


def inputs_of(layer: Causal, into: Groups, seed: int = 0) -> Any:
    def noise(seed: int) -> Tensor:
        shape = (N, len(into.of), HEIGHT, WIDTH)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return Stacks(noise(seed), noise(seed + 1)) if is_of_stacks(layer) else noise(seed)


def stepped(layer: Causal, h: Any, into: Groups, out: Groups) -> Any:
    """What the layer gives site by site, put together."""
    memory = layer.begin(N, (HEIGHT, WIDTH), CONDITION)
    vertical = isinstance(layer, VerticalConv)
    found = torch.full((N, len(out.of), HEIGHT, WIDTH), torch.nan, dtype=torch.float64)
    rows = []
    for site in sites(into.count):
        strict = isinstance(layer, Remembering) and layer.strict
        if vertical and not site.opens_row:
            y = None
        elif strict:
            y = layer.look(memory, site)
        elif vertical:
            y = layer.step(memory, site, h[:, :, site.row : site.row + 1])
        elif is_of_stacks(layer):
            row = h.vertical[:, :, site.row : site.row + 1] if site.opens_row else None
            y = layer.step(memory, site, Stacks(row, at(h.horizontal, site, into)))
        else:
            y = layer.step(memory, site, at(h, site, into))
        if strict:
            layer.put(memory, site, at(h, site, into))
        if isinstance(y, Stacks):
            rows += [] if y.vertical is None else [y.vertical]
            y = y.horizontal
        if vertical and y is not None:
            found[:, :, site.row] = y[:, :, 0]
        elif y is not None:
            found[:, out.of == site.group, site.row, site.column] = y
    return Stacks(torch.cat(rows, 2), found) if rows else found


def test_every_causal_layer_is_in_the_table() -> None:
    defined = {
        cls
        for module in (causal, causal_conv, pixelcnn, gated_layers, raster)
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, Causal) and not inspect.isabstract(cls)
    }
    assert {type(LAYERS[name]()[0]) for name in LAYERS} == defined - {Causal, Remembering, Chain}


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_stepping_is_forward(name: str) -> None:
    layer, into, out = build(name)
    h = inputs_of(layer, into)
    whole, single = layer(h, CONDITION), stepped(layer, h, into, out)
    for expected, got in zip(*((w,) if isinstance(w, Tensor) else w for w in (whole, single)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def is_strict(name: str) -> bool:
    layer = LAYERS[name]()[0]
    return isinstance(layer, Remembering) and layer.strict and not isinstance(layer, VerticalConv)


@pytest.mark.parametrize("name", [name for name in LAYERS if is_strict(name)])
def test_strict_layers_step_as_they_look_and_put(name: str) -> None:
    layer, into, _ = build(name)
    h = inputs_of(layer, into)
    one, other = (layer.begin(N, (HEIGHT, WIDTH), CONDITION) for _ in range(2))
    for site in sites(into.count):
        found, here = layer.look(one, site), at(h, site, into)
        layer.put(one, site, here)
        stepped_once = layer.step(other, site, here)
        pairs = [(found, stepped_once)] if isinstance(found, Tensor) else zip(found, stepped_once, strict=True)
        assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


def moves(layer: Causal, into: Groups, out: Groups, which: int, seed: int) -> list[Tensor]:
    """[i, g, row, column]: whether what goes out there moves with input i of one stack, which is a site and group."""
    places = [(g, *divmod(p, WIDTH)) for g in range(into.count) for p in range(HEIGHT * WIDTH)]
    pixels = CONDITION.pixels[:1].expand(len(places), -1, -1, -1)
    context = Context(CONDITION.given[:1].expand(len(places), -1), pixels=pixels)
    with torch.no_grad():
        layer.double()
        for p in layer.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=torch.Generator().manual_seed(seed), dtype=p.dtype))
        before = inputs_of(layer, into, seed)
        stacks = [h[:1].repeat(len(places), 1, 1, 1) for h in ((before,) if isinstance(before, Tensor) else before)]
        old = layer(Stacks(*stacks) if len(stacks) == 2 else stacks[0], context)
        stacks[which] = stacks[which].clone()  # some layers give back what they were given
        for i, (group, row, column) in enumerate(places):
            stacks[which][i, into.of == group, row, column] += 1.7
        new = layer(Stacks(*stacks) if len(stacks) == 2 else stacks[0], context)
    found = []
    for a, b in zip(*((h,) if isinstance(h, Tensor) else h for h in (old, new)), strict=True):
        groups = out.of if a.shape[1] == len(out.of) else torch.zeros(a.shape[1], dtype=torch.long)  # vertical: all one
        found.append(torch.stack([(a != b)[:, groups == g].any(1) for g in range(int(groups.max()) + 1)], 1))
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_spread_is_where_a_change_of_one_input_shows(name: str) -> None:
    layer, into, out = LAYERS[name]()
    layer.eval()
    dims = into.count * HEIGHT * WIDTH
    eye = torch.eye(dims).view(dims, into.count, HEIGHT, WIDTH)
    for which in range(2 if is_of_stacks(layer) else 1):  # inputs of the vertical stack, then of the horizontal one
        one = Stacks(*(eye if which == i else torch.zeros_like(eye) for i in range(2)))
        told = layer.spread(one if is_of_stacks(layer) else eye)
        # A path through ReLUs may be shut, so several inputs are tried.
        runs = [moves(layer, into, out, which, seed) for seed in range(12)]
        for pattern, *shown in zip((told,) if isinstance(told, Tensor) else told, *runs, strict=True):
            seen = torch.stack(shown).any(0)
            assert torch.equal(seen, pattern[:, : seen.shape[1]] > 0)


def test_masks_keep_half_of_a_kernel() -> None:
    for kernel in (1, 3, 5, 7):
        kept = [int(MaskedConv(1, 1, window=square(kernel), mask=mask).mask.sum()) for mask in ("A", "B")]
        assert kept == [(kernel**2 + 1) // 2 - 1, (kernel**2 + 1) // 2]


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize(("groups", "kernel"), [(1, 3), (3, 1), (3, 5)])
def test_masked_conv_is_the_papers_masked_square_kernel(groups: int, kernel: int, mask: str) -> None:
    inputs, outputs = 7, 8
    layer = MaskedConv(inputs, outputs, groups, window=square(kernel), mask=mask).double()
    full = pad(layer.weight.detach(), (0, 0, 0, kernel // 2), value=9.0)
    centre = kernel // 2
    into, out = Groups(inputs, groups).of.tolist(), Groups(outputs, groups).of.tolist()
    for o, i, row, column in itertools.product(range(outputs), range(inputs), range(kernel), range(kernel)):
        sees_centre = out[o] > into[i] if mask == "A" else out[o] >= into[i]
        earlier = (row, column) < (centre, centre)
        if not (earlier or ((row, column) == (centre, centre) and sees_centre)):
            full[o, i, row, column] = 0
    x = torch.randn(2, inputs, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(layer(x), conv2d(x, full, layer.bias, padding=centre), atol=1e-12)


def test_features_are_split_as_evenly_as_possible() -> None:
    assert Groups(256, 3).of.bincount().tolist() == [86, 85, 85]
    assert Groups(1024, 3).of.bincount().tolist() == [342, 341, 341]
    halves = Groups(8, 3, parts=2)
    assert halves.sort(torch.arange(8)).tolist() == [0, 1, 4, 5, 2, 6, 3, 7]
    assert [own.stop - own.start for own in halves.slices] == [4, 2, 2]


def test_kept_masked_weights_follow_a_changed_weight() -> None:
    layer, x = MaskedConv(2, 3, window=square(3)).eval(), torch.ones(1, 2, 3, 3)
    with torch.no_grad():
        before = layer(x)
        assert layer.masked_weight() is layer.masked_weight()
        layer.weight.mul_(2)
        assert torch.allclose(layer(x) - layer.bias[:, None, None], 2 * (before - layer.bias[:, None, None]))


def test_dropout_draws_from_the_generator_of_the_context() -> None:
    layer, h = Dropout(0.25).train(), torch.ones(40, 6, 5, 5)
    first, second = (layer(h, Context(generator=torch.Generator().manual_seed(s))) for s in (1, 1))
    assert torch.equal(first, second)
    assert first.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float((first == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(layer.eval()(h), h)


def test_a_gate_is_tanh_times_sigmoid() -> None:
    a, b = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    for axis in (0, 1, -1):
        assert torch.allclose(gate(torch.cat([a, b], axis), axis), torch.tanh(a) / (1 + torch.exp(-b)))


def test_window_of_one_pixel_needs_no_padding() -> None:
    assert square(1) == POINT
