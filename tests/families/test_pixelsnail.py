"""PixelSNAIL against loops over pixels, its receptive field, its wiring, and hand-counted sizes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
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
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.families.autoregressive.pixelsnail import PixelAttention, PixelSNAIL
from unsup.nn.causal_conv import MaskedConv
from unsup.nn.gated_residual import GatedResidual
from unsup.nn.weight_norm import WeightNorm


def elu(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, h.exp() - 1)


def loop_conv(conv: MaskedConv, h: Tensor, taps: dict[tuple[int, int], tuple[int, int]]) -> Tensor:
    """``(I, H, W)`` → ``(O, H, W)``: a tap (up, left) of the kernel is at its row and column."""
    height, width = h.shape[1:]
    v = conv.weight * conv.mask
    kernel = torch.stack([g * each / each.square().sum().sqrt() for g, each in zip(conv.norm.gain, v, strict=True)])
    found = conv.bias[:, None, None].expand(-1, height, width).clone()
    for r, c in itertools.product(range(height), range(width)):
        for (up, left), (row, column) in taps.items():
            if r >= up and 0 <= c - left < width:
                found[:, r, c] += kernel[:, :, row, column] @ h[:, r - up, c - left]
    return found


SQUARE = {(1, 1): (0, 0), (1, 0): (0, 1), (0, 1): (1, 0), (0, 0): (1, 1)}
POINT = {(0, 0): (0, 0)}
START = {(1, 1): (0, 0), (1, 0): (0, 1), (1, -1): (0, 2), (0, 1): (1, 0)}


def loop_residual(
    layer: GatedResidual, h: Tensor, taps: dict, condition: Tensor | None, more: Tensor | None = None
) -> Tensor:
    found = loop_conv(layer.first, elu(h), taps)
    if more is not None:
        found = found + loop_conv(layer.beside, elu(more), POINT)
    found = loop_conv(layer.second, elu(found), taps)
    if condition is not None:
        found = found + (layer.shift.weight @ condition)[:, None, None]
    half = len(h)
    return h + found[:half] / (1 + (-found[half:]).exp())


def loop_attention(layer: PixelAttention, x: Tensor, h: Tensor, condition: Tensor | None) -> Tensor:
    height, width = h.shape[1:]
    rows = torch.tensor([[(r - height / 2) / height] * width for r in range(height)])
    columns = torch.tensor([[(c - width / 2) / width for c in range(width)]] * height)
    torch.testing.assert_close(layer.places.float(), torch.stack([rows, columns]))
    places = layer.places
    content = loop_residual(layer.content, torch.cat([x, h, places]), POINT, condition)
    question = loop_residual(layer.question, torch.cat([h, places]), POINT, condition)
    keys_values, queries = loop_conv(layer.keys_values, content, POINT), loop_conv(layer.queries, question, POINT)
    size = len(queries)
    keys, values = keys_values[:size].flatten(1), keys_values[size:].flatten(1)
    found = torch.zeros_like(values)
    for t in range(1, height * width):
        weights = [math.exp(float(queries.flatten(1)[:, t] @ keys[:, j]) / math.sqrt(size)) for j in range(t)]
        found[:, t] = sum(w * values[:, j] for j, w in enumerate(weights)) / sum(weights)
    return loop_residual(layer.mix, h, POINT, condition, found.view(-1, height, width))


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 3, 4), BINARY), {"blocks": 2, "layers": 2}),
        (Event((3, 2, 3), Support("ordinal", 4, low=1)), {"given": labels(3)}),
        (Event((2, 3, 2), Support("nominal", 3)), {"keys": 3, "values": 5}),
    ],
    ids=str,
)
@torch.no_grad()
def test_network_is_the_papers_by_loops(event: Event, options: dict[str, Any]) -> None:
    model = random_model("pixelsnail", event, deviation=0.2, **options)
    assert isinstance(model, PixelSNAIL)
    support = event.uniform
    x = support.low + torch.randint(support.levels, event.shape, generator=generator(2))
    if support.kind == "nominal":
        image = torch.nn.functional.one_hot(x - support.low, 3).permute(0, 3, 1, 2).flatten(0, 1).double()
    else:
        image = 2 * (x - support.low).double() / (support.levels - 1) - 1
    condition = torch.tensor([0.0, 1.0, 0.0]).double() if options.get("given") else None
    h = loop_conv(model.start.conv, torch.cat([image, torch.ones_like(image[:1])]), START)
    for block in model.blocks:
        for layer in block.convolutions:
            h = loop_residual(layer, h, SQUARE, condition)
        h = loop_attention(block.attention, image, h, condition)
    expected = loop_conv(model.head.conv, elu(h), POINT).flatten(1).T
    context = model._context(None if condition is None else torch.tensor([1]))
    torch.testing.assert_close(model._network(x[None], context)[0], expected, rtol=1e-10, atol=1e-10)
    if event.shape[0] == 1:
        torch.testing.assert_close(model.conditionals(x[None])[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "event", [Event((1, 4, 5), BINARY), Event((1, 5, 1), BINARY), Event((3, 2, 3), Support("ordinal", 4))], ids=str
)
def test_one_block_sees_every_earlier_entry_and_nothing_else(event: Event) -> None:
    model = random_model("pixelsnail", event, blocks=1, layers=1)
    position = model.orders[0]
    assert not model.blind_spot().any()
    assert torch.equal(seen_by_jacobian(model, draws=6), position[:, None] > position[None, :])


@torch.no_grad()
def test_prepare_standardises_every_layer_on_the_data() -> None:
    event = Event((3, 4, 4), Support("ordinal", 8))
    model = unsup.create("pixelsnail", event, preset="tiny", given=labels(2)).double()
    batch = Batch(torch.randint(8, (64, *event.shape), generator=generator()), given=torch.arange(64) % 2)
    model.prepare(batch, generator=generator())
    found = {}
    for name, part in model.named_modules():
        if isinstance(part, MaskedConv):
            part.register_forward_hook(lambda conv, _, out, name=name: found.update({name: (conv.norm.scale, out)}))
    model.conditionals(batch.x, given=batch.given)
    assert len(found) == sum(isinstance(part, WeightNorm) for part in model.modules()) == 1 + 2 + (2 + 1) * 2 + 3 + 1
    for name, (scale, out) in found.items():
        std, mean = torch.std_mean(out, (0, 2, 3), correction=0)
        torch.testing.assert_close(std, torch.full_like(std, scale), msg=name)
        assert mean.abs().max() < 1e-9, name


@torch.no_grad()
def test_without_attention_the_reach_is_that_of_the_convolutions() -> None:
    """So what the test before shows is the attention: with its values at zero, one block sees three rows."""
    event = Event((1, 6, 6), BINARY)
    model = random_model("pixelsnail", event, blocks=1, layers=1)
    x = torch.randint(2, (2, *event.shape), generator=generator()).double()
    other = x.clone()
    other[:, :, 0] = 1 - other[:, :, 0]
    assert (model.conditionals(x) != model.conditionals(other)).view(2, 6, 6)[:, -1].all()
    model.blocks[0].attention.mix.beside.norm.gain.zero_()
    same = (model.conditionals(x) == model.conditionals(other)).view(2, 6, 6)
    assert same[:, 4:].all()
    assert not same[:, 1:3].any(2).all()


def test_first_pixel_has_no_key_and_depends_on_nothing() -> None:
    model = random_model("pixelsnail", Event((1, 3, 3), Support("ordinal", 5)))
    x = torch.randint(5, (6, 1, 3, 3), generator=generator())
    found = model.conditionals(x)
    assert found.isfinite().all()
    assert (found[:, 0] == found[0, 0]).all()
    gradients = torch.autograd.grad(-model.train().loss(Batch(x))["loss"].sum(), list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("given", [None, labels(2)], ids=str)
@pytest.mark.parametrize(
    ("event", "head"),
    [
        (Event((1, 2, 3), BINARY), "auto"),
        (Event((2, 1, 3), Support("ordinal", 3)), "logistic"),
        (Event((2, 1, 3), Support("ordinal", 3)), "softmax"),
        (Event((3, 2, 2), BINARY), "auto"),
        (Event((1, 1, 1), Support("ordinal", 9, low=3)), "auto"),
    ],
    ids=str,
)
@torch.no_grad()
def test_masses_of_all_images_sum_to_one(event: Event, head: str, given: Event | None) -> None:
    model = random_model("pixelsnail", event, head=head, given=given)
    assert abs(model.log_prob(every_example(event)).exp().sum() - 1) < 1e-10


@pytest.mark.parametrize(
    ("event", "levels"), [(Event((1, 6, 6), BINARY), 2), (Event((1, 4, 4), Support("nominal", 256)), 256)]
)
@torch.no_grad()
def test_zero_logits_are_uniform(event: Event, levels: int) -> None:
    model = random_model("pixelsnail", event)
    model.head.conv.norm.gain.zero_()
    model.head.conv.bias.zero_()
    x = torch.randint(levels, (2, *event.shape), generator=generator())
    assert torch.allclose(-model.log_prob(x), torch.full((2,), event.dims * math.log(levels), dtype=torch.float64))


@pytest.mark.parametrize("draw", [{}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.7}], ids=str)
@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 5, 4), BINARY), {"blocks": 2, "layers": 2}),
        (Event((3, 3, 4), Support("ordinal", 6, low=2)), {"given": labels(3)}),
        (Event((2, 4, 1), Support("nominal", 4)), {"keys": 1, "values": 1}),
    ],
    ids=str,
)
def test_cached_is_naive_also_in_the_middle_of_a_completion(
    event: Event, options: dict[str, Any], draw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model("pixelsnail", event, **options)
    assert_steps_are_naive(model, draw, monkeypatch)


def test_dropout_of_training_is_drawn_from_the_generator_in_every_residual() -> None:
    event = Event((1, 4, 4), BINARY)
    model = random_model("pixelsnail", event, blocks=2, layers=2, dropout=0.5)
    x = torch.randint(2, (8, *event.shape), generator=generator())
    residuals = [part for part in model.modules() if isinstance(part, GatedResidual)]
    assert len(residuals) == 2 * (2 + 3)
    assert_each_drops_out(model, x, residuals)


def test_condition_reaches_every_gate() -> None:
    event = Event((1, 3, 3), BINARY)
    model = random_model("pixelsnail", event, given=labels(2))
    x = torch.randint(2, (6, *event.shape), generator=generator())
    shifts = {name: p.detach().clone() for name, p in model.named_parameters() if "shift" in name}
    assert len(shifts) == 4
    for (alone, weight), half in itertools.product(shifts.items(), range(2)):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in shifts:
                    p.zero_()
            model.get_parameter(alone).chunk(2)[half].copy_(weight.chunk(2)[half])
            zero, one = (model.log_prob(x, given=torch.tensor(y)) for y in (0, 1))
        assert (zero != one).all(), (alone, half)


def test_heads_fit_the_data() -> None:
    rgb = Event((3, 4, 4), Support("ordinal", 256))
    outputs = {
        head: unsup.create("pixelsnail", rgb, preset="tiny", components=4, head=head).head.conv.weight.shape[0]
        for head in ("auto", "logistic", "softmax")
    }
    assert outputs == {"auto": 40, "logistic": 40, "softmax": 4 + 3 * 4 * 256}
    for event, match in ((Event((4,), BINARY), "takes images only"), (Event((1, 4, 4), REAL), "takes discrete pixels")):
        with pytest.raises(InputError, match=match):
            unsup.create("pixelsnail", event)
    with pytest.raises(InputError, match="head='logistic' does not fit"):
        unsup.create("pixelsnail", Event((1, 4, 4), BINARY), head="logistic")


def test_paper_preset_has_the_layers_of_the_published_code() -> None:
    event = Event((3, 32, 32), Support("ordinal", 256))
    model = unsup.create("pixelsnail", event, preset="paper")
    f = 256

    def conv(inputs: int, outputs: int, taps: int = 1) -> int:
        return inputs * outputs * taps + outputs + outputs  # biases and gains

    def residual(width: int, taps: int = 1, more: int = 0) -> int:
        return conv(width, width, taps) + conv(width, 2 * width, taps) + (conv(more, width) if more else 0)

    attention = (
        residual(3 + f + 2) + conv(3 + f + 2, 16 + 128) + residual(f + 2) + conv(f + 2, 16) + residual(f, more=128)
    )
    stored = conv(4, f, 6)  # the kernel is stored as 2×3; two of its taps are masked
    assert model.parameter_count == stored + 12 * (4 * residual(f, taps=4) + attention) + conv(f, 100)
