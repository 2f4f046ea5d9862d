"""pixelrnn: receptive fields, caches, exact masses, hand-counted sizes. Its layers: tests/nn/test_recurrent_maps.py."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from entry_models import every_example, generator, random_model, seen_by_jacobian
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.families.autoregressive.pixelrnn import PixelRNN
from unsup.nn.recurrent_maps import DiagonalBiLSTM, RowLSTM
from unsup.testing import check_model

LAYERS = ("row", "diagonal")
COLOURS = Event((3, 4, 4), Support("ordinal", 6, low=2))


def masked(conv: torch.nn.Module, h: Tensor, colours: int) -> Tensor:
    """A 1×1 convolution in which a colour sees the colours up to it: ``(I, H, W)`` → ``(O, H, W)``."""
    into, out = ([f * colours // n for f in range(n)] for n in (conv.weight.shape[1], conv.weight.shape[0]))
    kept = torch.tensor([[g >= f for f in into] for g in out])
    return torch.einsum("oi,ihw->ohw", conv.weight[:, :, 0, 0] * kept, h) + conv.bias[:, None, None]


@pytest.mark.parametrize("layer", LAYERS)
@torch.no_grad()
def test_blocks_are_residual_on_twice_the_cells(layer: str) -> None:
    model = random_model("pixelrnn", COLOURS, layer=layer, given=labels(3))
    x = 2 + torch.randint(6, COLOURS.shape, generator=generator(2))
    h = model.first(2 * (x[None] - 2).double() / 5 - 1)
    for block in model.blocks:
        assert isinstance(block.lstm, RowLSTM if layer == "row" else DiagonalBiLSTM)
        bias = block.shift.weight[:, 1]  # of class 1
        h = h + masked(block.expand, block.lstm(h + bias[:, None, None])[0], 3)
    h = h[0]
    for conv in list(model.head.children())[1::2]:
        h = masked(conv, h.clamp(min=0), 3)
    logits = h.unflatten(0, (3, -1)).permute(0, 2, 3, 1).flatten(0, 2)
    torch.testing.assert_close(model.conditionals(x[None], given=torch.tensor(1))[0], logits, rtol=1e-10, atol=1e-10)


WIDE: dict[str, Any] = {"channels": 9, "head_channels": 12, "layers": 1}


@pytest.mark.parametrize(
    ("event", "layers"),
    [(Event((1, 4, 7), BINARY), 1), (Event((1, 3, 6), BINARY), 3), (Event((3, 3, 5), Support("ordinal", 4)), 1)],
    ids=str,
)
def test_diagonals_see_every_earlier_pixel_but_the_last_of_the_row_above(event: Event, layers: int) -> None:
    """Features of a pixel do not see the pixel itself, and at the end of a row no later feature does. Only the first
    convolution does from the row below, up to three columns away."""
    (colours, height, width), spot = event.shape, torch.zeros(event.dims, event.dims, dtype=torch.bool)
    for r, c, k in itertools.product(range(1, height), range(max(width - 4, 0)), range(colours)):
        spot[(k * height + r) * width + c, ((colours - 1) * height + r - 1) * width + width - 1] = True
    model = random_model("pixelrnn", event, **WIDE | {"layers": layers})
    position = model.orders[0]
    assert torch.equal(model.blind_spot(), spot)
    assert torch.equal(seen_by_jacobian(model, draws=8), (position[:, None] > position[None, :]) & ~spot)


@pytest.mark.parametrize("layers", [1, 2])
def test_rows_see_the_predicted_triangle(layers: int) -> None:
    """By paths: each row up reaches one pixel further to both sides, each layer one more to the left, and the first
    convolution three."""
    height, width = 5, 12
    model = random_model("pixelrnn", Event((1, height, width), BINARY), layer="row", layers=layers)
    seen = torch.zeros(height * width, height * width, dtype=torch.bool)
    for (r, c), (row, column) in itertools.product(itertools.product(range(height), range(width)), repeat=2):
        up, side = r - row, column - c
        furthest = up + 2 if up else -1
        seen[r * width + c, row * width + column] = up >= 0 and -(up + layers + 3) <= side <= furthest
    position = model.orders[0]
    assert torch.equal(model.blind_spot(), (position[:, None] > position[None, :]) & ~seen)
    assert torch.equal(seen_by_jacobian(model, draws=4), seen)


def test_rows_of_colours_see_what_is_declared() -> None:
    event = Event((3, 2, 7), Support("ordinal", 3))
    model = random_model("pixelrnn", event, layer="row", **WIDE)
    position, spot = model.orders[0], model.blind_spot()
    assert spot.any()
    assert torch.equal(seen_by_jacobian(model, draws=8), (position[:, None] > position[None, :]) & ~spot)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("classes", [0, 2])
@torch.no_grad()
def test_masses_of_all_images_sum_to_one(layer: str, classes: int) -> None:
    given = labels(classes) if classes else None
    for event in (Event((1, 3, 3), BINARY), Event((2, 1, 2), Support("ordinal", 5, low=3))):
        model = random_model("pixelrnn", event, layer=layer, given=given)
        assert abs(model.log_prob(every_example(event)).exp().sum() - 1) < 1e-10


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(
    ("event", "options", "n"),
    [
        (Event((1, 5, 4), BINARY), {"layers": 2}, 5),
        (Event((1, 1, 4), BINARY), {"layers": 1}, 1),
        (Event((3, 2, 3), Support("ordinal", 6, low=2)), {"channels": 8, "given": labels(3)}, 16),
        (Event((2, 5, 1), Support("nominal", 4)), {}, 2),
    ],
    ids=str,
)
def test_cached_is_naive_also_in_the_middle(layer: str, event: Event, options: dict[str, Any], n: int) -> None:
    model = random_model("pixelrnn", event, layer=layer, **options)
    told = {"given": torch.tensor(1)} if model.classes else {}
    for knobs in ({}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.7}):
        fast = model.sample(n, generator=generator(1), **knobs, **told)
        slow = model.sample_naive(n, generator=generator(1), **knobs, **told)
        assert torch.equal(fast, slow), knobs
    known = (model.orders[0] < event.dims // 2).view(event.shape).expand_as(fast)
    drawn = model.complete(fast.roll(1, 0), known, generator=generator(2), top_k=2, **told)
    assert torch.equal(drawn[known], fast.roll(1, 0)[known])
    with torch.no_grad():
        cached = model._steps(n, model._context(model.condition_or_none(told.get("given"), n)))
        line, outputs = (
            model._targets(drawn).long(),
            model.order.line(
                model.conditionals(drawn, **told).unflatten(1, event.shape).movedim(-1, 0).flatten(0, 1)
            ).unflatten(0, (-1, n)),
        )
        for site in range(event.dims):
            torch.testing.assert_close(cached.outputs(site), outputs[:, :, site].T, rtol=1e-11, atol=1e-11)
            cached.put(site, line[:, site])


@pytest.mark.parametrize("layer", LAYERS)
def test_zero_logits_are_uniform(layer: str) -> None:
    event = Event((3, 4, 4), Support("ordinal", 256))
    model = random_model("pixelrnn", event, layer=layer)
    with torch.no_grad():
        for p in list(model.head.parameters())[-2:]:
            p.zero_()
        x = torch.randint(256, (2, *event.shape), generator=generator())
        assert torch.allclose(-model.log_prob(x), torch.full((2,), 48 * math.log(256)).double())


@pytest.mark.parametrize("layer", LAYERS)
def test_laws_hold_given_numbers(layer: str) -> None:
    event, plane = Event((1, 2, 2), Support("ordinal", 3)), Event((2,), REAL)
    given = 1000 + 5 * torch.randn(64, 2, generator=generator(1))
    x = ((given.sum(1) > 2000).long()[:, None] + torch.randint(2, (64, 4), generator=generator(2))).view(64, 1, 2, 2)
    model = unsup.create("pixelrnn", event, preset="tiny", layer=layer, given=plane)
    wanted = ("conditions", "normalised", "factorisation", "fast-sampling", "descent")
    check_model(model, Batch(x, given=given), laws=wanted).raise_for_failures()


def test_conditions_reach_every_layer() -> None:
    event = Event((1, 4, 4), BINARY)
    x = torch.randint(2, (6, *event.shape), generator=generator())
    for alone in range(3):
        model = random_model("pixelrnn", event, layers=3, given=labels(2))
        with torch.no_grad():
            for number, block in enumerate(model.blocks):
                block.shift.weight.mul_(number == alone)
            zero, one = (model.log_prob(x, given=torch.tensor(y)) for y in (0, 1))
        assert ((zero - one).abs() > 1e-7).all()


def lstm_size(inputs: int, cells: int, input_taps: int, state_taps: int) -> int:
    return 4 * cells * (inputs * input_taps + cells * state_taps + 1)


@pytest.mark.parametrize(
    ("preset", "event", "options", "h", "layers", "head", "outputs"),
    [
        ("paper", Event((1, 28, 28), BINARY), {}, 16, 7, 32, 1),
        ("paper", Event((1, 28, 28), BINARY), {"layer": "row"}, 16, 7, 32, 1),
        ("paper-cifar10", Event((3, 32, 32), Support("ordinal", 256)), {}, 128, 12, 1024, 768),
    ],
    ids=str,
)
def test_paper_presets_have_the_papers_sizes(
    preset: str, event: Event, options: dict[str, str], h: int, layers: int, head: int, outputs: int
) -> None:
    """The input-to-state kernel of a Row LSTM has 2 of its 3 taps, and the first convolution 4 of its 7 rows."""
    model = unsup.create("pixelrnn", event, preset=preset, **options)
    assert isinstance(model, PixelRNN)
    first = 2 * h * (event.shape[0] * 4 * 7 + 1)
    lstm = lstm_size(2 * h, h, 2, 3) if options else 2 * lstm_size(2 * h, h, 1, 2)
    ends = head * (2 * h + 1) + head * (head + 1) + outputs * (head + 1)
    assert model.parameter_count == first + layers * (lstm + 2 * h * (h + 1)) + ends


def test_refusals_say_how_to_mend() -> None:
    for event, match in ((Event((4,), BINARY), "takes images only"), (Event((1, 4, 4), REAL), "takes discrete pixels")):
        with pytest.raises(InputError, match=match):
            unsup.create("pixelrnn", event)
    with pytest.raises(InputError, match=r"channels=2 and head_channels=32 must be at least 3"):
        unsup.create("pixelrnn", COLOURS, channels=2)
    with pytest.raises(InputError, match="layer"):
        unsup.create("pixelrnn", COLOURS, layer="column")
