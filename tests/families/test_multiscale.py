"""Models from coarse to fine, and slice by slice: enumeration, exact blind spots, and what each network may see."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from entry_models import every_example, generator, seen_by_jacobian
from entry_models import random_model as random_entry_model

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support, labels
from unsup.families.autoregressive.parallel_multiscale import CoarseToFine, ParallelMultiscale
from unsup.families.autoregressive.subscale import Interleaved, Subscale, SubscaleDepth
from unsup.nn.entries import EntryModel

MODELS = ("parallel-multiscale", "subscale")
FOUR = Event((1, 4, 4), BINARY)


def random_model(name: str, event: Event, seed: int = 0, **options: Any) -> Any:
    if name == "parallel-multiscale":
        options = {"base": 2} | options
    return random_entry_model(name, event, seed, deviation=0.5, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("parallel-multiscale", {"channels": 2, "head_channels": 3, "blocks": 0}),
        ("subscale", {"channels": 2, "heads": 1, "layers": 1, "embedding": 2, "blocks": 0}),
    ],
)
@torch.no_grad()
def test_masses_of_all_binary_images_sum_to_one(name: str, options: dict[str, int]) -> None:
    numbers = torch.arange(2**16)[:, None]
    images = (numbers >> torch.arange(16) & 1).view(-1, 1, 4, 4)
    model = random_model(name, FOUR, **options)
    total = sum(float(model.log_prob(part).exp().sum()) for part in images.split(2**13))
    assert abs(total - 1) < 1e-10


# Orders.


def test_groups_partition_the_pixels_from_coarse_to_fine() -> None:
    order = CoarseToFine(Event((3, 28, 28), BINARY), 4)
    assert (order.coarse.shape, order.stride) == ((3, 7, 7), 4)
    assert order.sizes == [3 * 49] * 4 + [3 * 196] * 3
    assert order.entries.sort().values.tolist() == list(range(3 * 28 * 28))
    assert CoarseToFine(Event((1, 32, 32), BINARY), 4).coarse.shape == (1, 4, 4)
    assert CoarseToFine(Event((1, 8, 16), BINARY), 4).coarse.shape == (1, 4, 8)


def test_groups_are_the_corners_of_squares_in_turn() -> None:
    order = CoarseToFine(Event((2, 4, 4), BINARY), 2)
    expected = [(c, r, k) for r in (0, 2) for k in (0, 2) for c in (0, 1)]  # raster, channel fastest
    for i, j in ((0, 1), (1, 0), (1, 1)):  # channel slowest
        expected += [(c, r + i, k + j) for c in (0, 1) for r in (0, 2) for k in (0, 2)]
    assert order.entries.tolist() == [c * 16 + r * 4 + k for c, r, k in expected]


def test_slices_are_in_rows_of_offsets() -> None:
    order = Interleaved(Event((2, 4, 6), BINARY), 2)
    expected = [
        c * 24 + (r * 2 + i) * 6 + k * 2 + j
        for i, j in itertools.product(range(2), repeat=2)
        for r, k, c in itertools.product(range(2), range(3), range(2))
    ]
    assert order.entries.tolist() == expected


# What is seen.


@pytest.mark.parametrize(
    ("name", "event", "options"),
    [
        ("parallel-multiscale", Event((1, 8, 8), BINARY), {"blocks": 0}),
        ("parallel-multiscale", Event((2, 4, 4), BINARY), {"blocks": 1}),
        ("subscale", Event((1, 6, 8), BINARY), {"blocks": 0, "layers": 1, "attention": 0}),
        ("subscale", Event((2, 4, 4), BINARY), {"blocks": 0, "layers": 2}),
        ("subscale", Event((1, 4, 8), Support("nominal", 3)), {"scale": 2, "layers": 1}),
    ],
    ids=str,
)
def test_blind_spots_are_exactly_what_no_conditional_sees(name: str, event: Event, options: dict) -> None:
    model = random_model(name, event, **options)
    position, spot = model.orders[0], model.blind_spot()
    earlier = position[:, None] > position[None]
    assert torch.equal(seen_by_jacobian(model, 8), earlier & ~spot)


def test_pixels_of_a_group_do_not_see_each_other_and_nothing_else_is_lost() -> None:
    model = random_model("parallel-multiscale", Event((2, 8, 8), BINARY), base=4, blocks=2, layers=5)
    order, spot, size = model.order, model.blind_spot(), 32
    line = spot[order.entries][:, order.entries]
    assert not line[:, :size].any()
    for number in range(3):
        own = slice(size * (1 + number), size * (2 + number))
        same = torch.eye(16, dtype=torch.bool).repeat(2, 2)
        assert torch.equal(line[own, own], (~same).tril(-1))
        assert not line[own, : own.start].any()  # a reach of 5 is all of the grid


def test_groups_of_one_pixel_make_a_full_autoregressive_model() -> None:
    model = random_model("parallel-multiscale", Event((3, 2, 2), BINARY), base=1)
    assert not model.blind_spot().any()
    position = model.orders[0]
    assert torch.equal(seen_by_jacobian(model, 5), position[:, None] > position[None])


def test_attention_sees_what_convolutions_do_not() -> None:
    event = Event((1, 8, 16), BINARY)
    without, with_it = (random_model("subscale", event, layers=2, attention=n).blind_spot() for n in (0, 1))
    assert not (with_it & ~without).any()
    assert 0 < 4 * with_it.sum() < without.sum()
    assert not random_model("subscale", Event((1, 8, 8), BINARY), layers=4, blocks=2).blind_spot().any()


# Speed by caches and by groups.


@pytest.mark.parametrize("given", [None, labels(3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.8}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_cached_sampling_is_the_naive_sampling(name: str, options: dict, given: Event | None) -> None:
    model = random_model(name, Event((2, 4, 4), Support("nominal", 3)), given=given)
    fast, slow = (draw(5, generator=generator(3), **options) for draw in (model.sample, model.sample_naive))
    assert torch.equal(fast, slow)
    assert len(fast.unique(dim=0)) > 1


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_steps_are_the_full_pass_also_in_the_middle_of_a_completion(name: str) -> None:
    event = Event((2, 4, 4), Support("ordinal", 5, low=1))
    model: EntryModel = random_model(name, event)
    x = torch.randint(1, 6, (3, *event.shape), generator=generator(), dtype=torch.uint8)
    known = (model.orders[0] < torch.tensor([0, 11, 29])[:, None]).view(3, *event.shape)
    drawn = model.complete(torch.where(known, x, 77), known, generator=generator(2))
    assert torch.equal(drawn[known], x[known])
    outputs, taken = [], model._targets(drawn)
    steps = model._steps(3, model._context(None))
    for site in range(event.dims):
        outputs.append(steps.outputs(site))
        steps.put(site, taken[:, site])
    found = torch.stack(outputs, 1)[:, model.orders[0]]
    torch.testing.assert_close(found, model.conditionals(drawn), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_a_completion_that_the_order_cannot_honour_is_refused(name: str) -> None:
    model = random_model(name, FOUR)
    known = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    known[..., :2, :] = True  # the upper half, which is no start of these orders
    with pytest.raises(InputError, match="order of generation"):
        model.complete(torch.zeros(1, 1, 4, 4), known)


def test_each_network_runs_once_for_a_group() -> None:
    model = random_model("parallel-multiscale", Event((2, 8, 8), BINARY))
    calls = [0] * len(model.upscalers)

    def counting(number: int) -> Any:
        return lambda *_: calls.__setitem__(number, calls[number] + 1)

    for number, net in enumerate(model.upscalers):
        net.first.register_forward_hook(counting(number))
    model.sample(3)
    assert calls == [1] * 6


def test_the_embedder_runs_once_for_a_slice() -> None:
    model = random_model("subscale", FOUR)
    calls = []
    model.embedder.register_forward_hook(lambda *_: calls.append(1))
    model.sample(3)
    assert len(calls) == 4


# Wiring.


@torch.no_grad()
def test_one_slice_is_the_plain_decoder() -> None:
    event = Event((2, 4, 3), Support("ordinal", 4))
    model: Subscale = random_model("subscale", event, scale=1)
    assert model.embedder is None
    x = torch.randint(4, (3, *event.shape), generator=generator())
    h = 2 * x.double() / 3 - 1
    for layer in model.layers():
        h = layer(h)
    log_p = h.unflatten(1, (2, 4)).log_softmax(2).gather(2, x[:, :, None]).flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(x), log_p, rtol=1e-12, atol=0)
    assert torch.equal(model.orders, random_model("gated-pixelcnn", event).orders)


@torch.no_grad()
def test_slices_are_scored_as_if_alone() -> None:
    """Slice by slice in a loop: later slots are empty, the position is that of the slice."""
    event = Event((1, 4, 6), Support("ordinal", 4))
    model: Subscale = random_model("subscale", event)
    x = torch.randint(4, (2, *event.shape), generator=generator())
    image, total = 2 * x.double() / 3 - 1, torch.zeros(2).double()
    slices = [image[..., i::2, j::2] for i in range(2) for j in range(2)]
    for s, (i, j) in enumerate(itertools.product(range(2), repeat=2)):
        slots = torch.cat([slices[k] if k < s else torch.zeros_like(slices[k]) for k in range(3)], 1)
        h = model.embedder.first(slots) + model.embedder.position[s][:, None, None]
        for block in model.embedder.blocks:
            h = h + block.second(block.first(h.clamp(min=0)).clamp(min=0))
        context = unsup.nn.causal.Context(pixels=h.clamp(min=0))
        y = slices[s]
        for layer in model.layers():
            y = layer(y, context)
        own = x[:, 0, i::2, j::2]
        total += y.log_softmax(1).gather(1, own[:, None]).flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(x), total, rtol=1e-12, atol=0)


@torch.no_grad()
def test_the_position_of_a_slice_matters() -> None:
    model: Subscale = random_model("subscale", FOUR)
    x = torch.zeros(1, 1, 4, 4)
    before = model.conditionals(x)
    model.embedder.position[2] += 1
    moved = (model.conditionals(x) != before).view(4, 4)
    assert moved.nonzero().tolist() == [[1, 0], [1, 2], [3, 0], [3, 2]]  # offset (1, 0)


@torch.no_grad()
def test_groups_are_scored_by_their_own_networks() -> None:
    event = Event((2, 4, 4), Support("ordinal", 3))
    model: ParallelMultiscale = random_model("parallel-multiscale", event)
    x = torch.randint(3, (2, *event.shape), generator=generator())
    image = x.double() - 1
    h = image[..., ::2, ::2]
    for layer in model.layers():
        h = layer(h)
    parts = {(0, 0): h.unflatten(1, (2, 3))}
    seen = [image[..., ::2, ::2]]
    for (i, j), net in zip(((0, 1), (1, 0), (1, 1)), model.upscalers, strict=True):
        own = image[..., i::2, j::2]
        h = net.first(torch.cat(seen, 1))
        for block in net.blocks:
            h = h + block.second(block.first(h.clamp(min=0)).clamp(min=0))
        h = net.top(h.clamp(min=0)) + net.own(own)
        parts[i, j] = net.out(h.clamp(min=0)).unflatten(1, (2, 3))
        seen.append(own)
    total = torch.zeros(2).double()
    for (i, j), logits in parts.items():
        total += logits.log_softmax(2).gather(2, x[:, :, None, i::2, j::2]).flatten(1).sum(1)
    torch.testing.assert_close(model.log_prob(x), total, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_class_reaches_every_part(name: str) -> None:
    event = Event((1, 4, 4), Support("nominal", 3))
    model = random_model(name, event, given=labels(2))
    x = torch.randint(3, (1, *event.shape), generator=generator())
    zero, one = (model.conditionals(x, given=torch.tensor(y)) for y in (0, 1))
    assert ((zero - one).abs() > 1e-9).any(2).all()


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_zero_logits_are_uniform(name: str) -> None:
    model = random_model(name, Event((3, 4, 4), Support("ordinal", 256)))
    outs = [model.head, *(net.out for net in model.upscalers)] if name == "parallel-multiscale" else [model.decoder[-1]]
    for out in outs:
        for p in list(out.parameters())[-2:]:
            p.zero_()
    x = torch.randint(256, (2, 3, 4, 4), generator=generator())
    torch.testing.assert_close(-model.log_prob(x), torch.full((2,), 48 * math.log(256)).double())


# Depth.


@torch.no_grad()
def test_bits_of_both_networks_sum_to_the_joint() -> None:
    """3 + 5 bits: q x^high + x^low over all values of one pixel, and the two terms by the two networks."""
    model: SubscaleDepth = random_model("subscale-depth", Event((1, 2, 2), Support("ordinal", 256)), depth=3)
    x = torch.randint(256, (4, 1, 2, 2), generator=generator())
    high, low = x >> 5, x & 31
    expected = model.high.log_prob(high) + model.low.log_prob(low, given=high)
    torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-12, atol=0)
    terms = model.loss(Batch(x))
    torch.testing.assert_close(terms["loss"], terms["high"] + terms["low"])
    assert torch.equal(model.joined(*model.split(x)).long(), x)


@torch.no_grad()
def test_masses_of_all_depths_sum_to_one() -> None:
    event = Event((1, 2, 2), Support("ordinal", 8, low=-3))
    model = random_model("subscale-depth", event, depth=2)
    images = every_example(Event((1, 2, 2), Support("ordinal", 8))) - 3
    log_p = model.log_prob(images)
    assert abs(float(log_p.exp().sum()) - 1) < 1e-10
    entropy = -(log_p.exp() * log_p).sum()
    surprise = -model.log_prob(model.sample(3000, generator=generator(1)))
    assert abs(surprise.mean() - entropy) < 4 * surprise.std() / math.sqrt(len(surprise))


@torch.no_grad()
def test_low_bits_see_the_high_bits_of_all_pixels() -> None:
    event = Event((1, 4, 4), Support("ordinal", 16))
    model = random_model("subscale-depth", event, depth=2, blocks=2)
    low = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    before = model.low.conditionals(low, given=low)
    for pixel in range(16):
        high = torch.zeros(1, 16, dtype=torch.int64)
        high[0, pixel] = 3
        assert (model.low.conditionals(low, given=high.view_as(low)) != before).any(2).all()


@pytest.mark.parametrize(
    ("name", "event", "options", "match"),
    [
        ("parallel-multiscale", Event((1, 7, 8), BINARY), {}, "cannot be halved"),
        ("parallel-multiscale", Event((3, 8, 8), BINARY), {"channels": 2}, "at least 3"),
        ("subscale", Event((1, 6, 8), BINARY), {"scale": 4}, "scale=4 should divide"),
        ("subscale", FOUR, {"channels": 6, "heads": 4}, "not divisible"),
        ("subscale-depth", Event((1, 4, 4), Support("ordinal", 20)), {"depth": 3}, "2.5 levels"),
        ("subscale-depth", Event((1, 4, 4), Support("ordinal", 17)), {}, "even number of levels"),
        ("subscale-depth", Event((1, 4, 4), Support("ordinal", 8)), {"depth": 3}, "leave 1 levels"),
        ("subscale-depth", FOUR, {}, "takes ordinal pixels only"),
    ],
)
def test_bad_sizes_are_refused(name: str, event: Event, options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        unsup.create(name, event, **options)
