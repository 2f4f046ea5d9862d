"""Image Transformer against loops over positions, its orders, blind spots and wiring, and hand-counted sizes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from decoders import norm
from entry_models import (
    assert_each_drops_out,
    assert_steps_are_naive,
    every_example,
    generator,
    random_model,
    seen_by_jacobian,
)
from torch import Tensor

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.families.autoregressive.image_transformer import ImageTransformer
from unsup.nn.causal import Dropout

GREY, RGB = Event((1, 3, 4), BINARY), Event((3, 2, 3), Support("ordinal", 4, low=2))
LINE = {"block": (5,), "memory": (3,)}
SQUARE = {"attention": "2d", "block": (2, 2), "memory": (1, 1)}
LOGISTIC = {"head": "logistic", "components": 2}
SETTINGS: list[tuple[Event, dict[str, Any]]] = [
    (GREY, LINE),
    (GREY, SQUARE | {"layers": 2}),
    (RGB, LINE | {"layers": 2}),
    (RGB, SQUARE | {"given": labels(3)}),
    (RGB, LINE | LOGISTIC | {"given": labels(3)}),
    (RGB, SQUARE | LOGISTIC),
    (Event((2, 3, 2), Support("nominal", 3)), {}),
]


def places(event: Event, options: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(row, column, channel) in the order of generation."""
    channels, height, width = event.shape
    found = itertools.product(range(height), range(width), range(channels))
    if options.get("attention") != "2d":
        return list(found)
    h, w = options["block"]
    return sorted(found, key=lambda p: (p[0] // h, p[1] // w, *p))


def attended(t: int, sites: list[tuple[int, int, int]], options: dict[str, Any], width: int) -> list[int]:
    """The positions that position t sees in one layer."""
    if options.get("attention") != "2d":
        block, memory = options.get("block", (256,))[0], options.get("memory", (256,))[0]
        return [j for j in range(t + 1) if j >= t // block * block - memory]
    (h, w), (above, aside) = options["block"], options["memory"]

    def block_of(place: tuple[int, int, int]) -> tuple[int, int]:
        return place[0] // h, place[1] // w

    (up, left), seen = block_of(sites[t]), []
    for j in range(t + 1):
        row, column, _ = sites[j]
        right = min((left + 1) * w, width) - 1
        near = row >= up * h - above and left * w - aside <= column <= right + aside
        if block_of(sites[j]) == (up, left) or near:
            seen.append(j)
    return seen


def loop_network(model: ImageTransformer, x: Tensor, options: dict[str, Any]) -> Tensor:
    """Outputs of all sites for one image, a position at a time: ``(L, outputs)``."""
    event, pixels = model.event, options.get("head") == "logistic"
    levels, low = event.uniform.levels, event.uniform.low
    sites = places(event, options)
    if pixels:
        sites = sites[:: event.shape[0]]
    h = []
    for t, (row, column, channel) in enumerate(sites):
        if t == 0:
            before = (model.first if pixels else model.first.tokens).start
        else:
            r, c, k = sites[t - 1]
            if pixels:
                values = 2 * (x[:, r, c] - low).double() / (levels - 1) - 1
                before = (model.first.map.weight @ values + model.first.map.bias).clamp(min=0)
            else:
                before = model.first.tokens.weight[k * levels + int(x[k, r, c]) - low]
        if model.conditions.size:
            before = before + (model.first if pixels else model.first.tokens).condition.weight[:, 1]
        places_of_channels = column if pixels else column * event.shape[0] + channel
        place = torch.cat([model.coordinates.rows[row], model.coordinates.columns[places_of_channels]])
        h.append(before + place)
    for residual, first_norm, network, last_norm in (list(block.children()) for block in model.blocks):
        attention = residual.layers()[0]
        width = len(attention.out.weight)
        q, k, v = attention.queries_keys_values.weight.view(3, width, width)
        found = []
        for t, own in enumerate(h):
            parts = []
            for head in torch.arange(width).chunk(attention.heads):
                sees = attended(t, sites, options, event.shape[2])
                scores = torch.stack([(q @ own)[head] @ (k @ h[j])[head] for j in sees]) / math.sqrt(len(head))
                weights = (scores - scores.max()).exp()
                parts.append(sum(a * (v @ h[j])[head] for a, j in zip(weights, sees, strict=True)) / weights.sum())
            y = norm(own + attention.out.weight @ torch.cat(parts), first_norm.module)
            inner, _, outer = network.layers()[0].module
            hidden = (inner.weight @ y + inner.bias).clamp(min=0)
            found.append(norm(y + outer.weight @ hidden + outer.bias, last_norm.module))
        h = found
    return torch.stack([model.head.module.weight @ own + model.head.module.bias for own in h])


@pytest.mark.parametrize(("event", "options"), SETTINGS, ids=str)
@torch.no_grad()
def test_network_is_the_papers_by_loops(event: Event, options: dict[str, Any]) -> None:
    model = random_model("image-transformer", event, width=8, hidden=5, **options)
    assert isinstance(model, ImageTransformer)
    support = event.uniform
    x = support.low + torch.randint(support.levels, event.shape, generator=generator(2))
    context = model._context(torch.tensor([1]) if "given" in options else None)
    expected = loop_network(model, x, options)
    torch.testing.assert_close(model._network(x[None], context)[0], expected, rtol=1e-9, atol=1e-9)
    sequence = [(c * event.shape[1] + r) * event.shape[2] + column for r, column, c in places(event, options)]
    assert model.orders[0].argsort().tolist() == sequence


@pytest.mark.parametrize(("event", "options"), SETTINGS, ids=str)
def test_jacobian_is_the_order_less_the_declared_blind_spot(event: Event, options: dict[str, Any]) -> None:
    model = random_model("image-transformer", event, width=8, **options)
    position = model.orders[0]
    allowed = (position[:, None] > position[None, :]) & ~model.blind_spot()
    assert torch.equal(seen_by_jacobian(model, draws=8), allowed)


def test_blind_spot_is_what_is_outside_of_the_blocks() -> None:
    """One layer sees its windows; the input of a position is the position before it. More layers see further."""
    height, width = 4, 6
    event = Event((1, height, width), BINARY)
    for options in ({"block": (4,), "memory": (2,)}, {"attention": "2d", "block": (2, 3), "memory": (1, 1)}):
        sites = places(event, options)
        for layers in (1, 2):
            reach = [{t} for t in range(len(sites))]
            for _ in range(layers):
                reach = [
                    set().union(*(reach[j] for j in attended(t, sites, options, width))) for t in range(len(sites))
                ]
            spot = unsup.create("image-transformer", event, preset="tiny", layers=layers, **options).blind_spot()
            for (t, (r, c, _)), (j, (row, column, _)) in itertools.product(enumerate(sites), repeat=2):
                expected = j < t and j + 1 not in reach[t]
                assert bool(spot[r * width + c, row * width + column]) == expected
        assert spot.any()
    assert not unsup.create("image-transformer", event, preset="tiny", memory=(24,), block=(5,)).blind_spot().any()


@pytest.mark.parametrize("head", ["softmax", "logistic"])
@torch.no_grad()
def test_one_block_is_full_attention_in_both_kinds(head: str) -> None:
    """A block that covers the image is the whole sequence, of the same order in one and two dimensions."""
    event = Event((2, 3, 4), Support("ordinal", 5))
    options = {"head": head, "width": 8, "layers": 2}
    whole = random_model("image-transformer", event, **options)
    x = torch.randint(5, (3, *event.shape), generator=generator())
    for blocks in (
        {"block": (1,), "memory": (24,)},
        {"attention": "2d", "block": (3, 4), "memory": (0, 0)},
        {"attention": "2d", "block": (1, 4), "memory": (9, 9)},
    ):
        other = random_model("image-transformer", event, **options, **blocks)
        torch.testing.assert_close(other.conditionals(x), whole.conditionals(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(other.log_prob(x), whole.log_prob(x), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(other.float().log_prob(x), whole.log_prob(x).float(), rtol=1e-5, atol=1e-6)
        assert not other.blind_spot().any()


@pytest.mark.parametrize("given", [None, labels(2)], ids=str)
@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 3, 3), BINARY), SQUARE),
        (Event((3, 2, 2), BINARY), {"block": (2,), "memory": (1,)}),
        (Event((2, 1, 3), Support("ordinal", 3)), SQUARE | LOGISTIC),
        (Event((1, 1, 4), Support("ordinal", 4, low=7)), LOGISTIC),
        (Event((1, 1, 1), BINARY), {}),
    ],
    ids=str,
)
@torch.no_grad()
def test_masses_of_all_images_sum_to_one(event: Event, options: dict[str, Any], given: Event | None) -> None:
    model = random_model("image-transformer", event, given=given, **options)
    assert abs(model.log_prob(every_example(event)).exp().sum() - 1) < 1e-10


@torch.no_grad()
def test_zero_logits_are_uniform() -> None:
    for event, levels in ((Event((1, 6, 6), BINARY), 2), (Event((3, 2, 4), Support("ordinal", 256)), 256)):
        model = random_model("image-transformer", event, **SQUARE)
        for p in model.head.parameters():
            p.zero_()
        x = torch.randint(levels, (2, *event.shape), generator=generator())
        uniform = torch.full((2,), event.dims * math.log(levels), dtype=torch.float64)
        assert torch.allclose(-model.log_prob(x), uniform)


@pytest.mark.parametrize("draw", [{}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.7}], ids=str)
@pytest.mark.parametrize(("event", "options"), SETTINGS[1:6], ids=str)
def test_cached_is_naive_also_in_the_middle_of_a_completion(
    event: Event, options: dict[str, Any], draw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("image-transformer", event, **options)
    assert_steps_are_naive(model, draw, monkeypatch)


@torch.no_grad()
def test_completion_knows_blocks_in_their_order() -> None:
    event = Event((1, 4, 4), BINARY)
    model = random_model("image-transformer", event, attention="2d", block=(2, 2), memory=(1, 1))
    x = torch.randint(2, (3, *event.shape), generator=generator())
    rows, block = torch.zeros(2, 3, *event.shape, dtype=torch.bool)
    rows[:, :, :2] = True  # the top row of blocks
    block[:, :, :2, :2] = True  # the first block
    for known in (rows, block):
        drawn = model.complete(x, known, generator=generator(1))
        assert torch.equal(drawn[known], x[known].to(drawn.dtype))
    known = torch.zeros_like(rows)
    known[:, :, :1] = True  # the top row of pixels is no prefix
    with pytest.raises(InputError, match=r"blocks of 2x2 pixels.*the top 2 rows \(or a multiple of it\)"):
        model.complete(x, known)
    line = random_model("image-transformer", event, block=(4,), memory=(4,))
    assert torch.equal(line.complete(x, known, generator=generator(1))[known], x[known].to(torch.uint8))
    with pytest.raises(InputError, match="prefix of the raster order"):
        line.complete(x, block)


def test_dropout_of_training_is_drawn_from_the_generator_everywhere() -> None:
    event = Event((1, 3, 3), BINARY)
    model = random_model("image-transformer", event, layers=2, dropout=0.3)
    x = torch.randint(2, (8, *event.shape), generator=generator())
    places = [part for part in model.modules() if isinstance(part, Dropout)]
    assert len(places) == 1 + 2 * 2  # after the coordinates; after attention and network of each layer
    assert_each_drops_out(model, x, places)


def test_refusals_say_how_to_mend() -> None:
    rgb = Event((3, 4, 4), BINARY)
    for event, match in ((Event((4,), BINARY), "takes images only"), (Event((1, 4, 4), REAL), "takes discrete pixels")):
        with pytest.raises(InputError, match=match):
            unsup.create("image-transformer", event)
    for options, match in (
        ({"width": 9, "heads": 3}, "width=9 is odd"),
        ({"width": 10, "heads": 4}, "width=10 is not divisible by heads=4"),
        ({"attention": "2d", "block": (8,)}, "block=.8,. does not fit attention='2d'; expected two numbers of pixels"),
        ({"memory": (2, 2)}, "memory=.2, 2. does not fit attention='1d'; expected one number of positions"),
        ({"head": "logistic"}, "head='logistic' does not fit"),
        ({"block": (0,)}, "at least 1"),
    ):
        with pytest.raises(InputError, match=match):
            unsup.create("image-transformer", rgb, **options)


def test_paper_preset_has_the_papers_size() -> None:
    event = Event((3, 32, 32), Support("ordinal", 256))
    model = unsup.create("image-transformer", event, preset="paper")
    w, ffn = 512, 2048
    layer = 4 * w * w + (w * ffn + ffn + ffn * w + w) + 2 * 2 * w
    coordinates = (32 + 3 * 32) * w // 2
    assert model.parameter_count == 3 * 256 * w + w + coordinates + 12 * layer + w * 256 + 256
    assert isinstance(model, ImageTransformer)
    attention = model.blocks[0].layers()[0].layers()[0]
    assert attention.visible.shape == (12, 1, 256, 512)  # 3,072 positions in blocks of 256, memory of 256
    logistic = {"head": "logistic", "width": 256, "layers": 14, "heads": 8, "hidden": 512, "dropout": 0.2}
    model = unsup.create("image-transformer", event, preset="paper", **logistic)
    w, ffn = 256, 512
    layer = 4 * w * w + (w * ffn + ffn + ffn * w + w) + 2 * 2 * w
    assert model.parameter_count == 3 * w + w + w + (32 + 32) * w // 2 + 14 * layer + w * 100 + 100
