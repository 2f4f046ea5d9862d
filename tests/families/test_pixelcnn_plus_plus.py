"""PixelCNN++ against a transcription of its published code, its layers step by step, its reach, and its size."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from entry_models import generator, random_model, seen_by_jacobian
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, elu, pad

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.families.autoregressive.pixelcnn_plus_plus import Entrance, PixelCNNPlusPlus, Resolution, Streams
from unsup.nn.autoregressor import drawing, keeping
from unsup.nn.causal import Causal, Context, Site
from unsup.nn.causal_conv import MaskedConv, VerticalConv, Window
from unsup.nn.gated_residual import GatedResidual
from unsup.nn.resolutions import Enlarged, VerticalEnlarged
from unsup.nn.weight_norm import WeightNorm

GREY = Event((1, 4, 4), Support("ordinal", 6))


# The published code, with lists of what both streams found; convolutions by padding alone.


def normed(layer: Any) -> Tensor:
    v = layer.weight
    return v * (layer.norm.gain / v.flatten(1).norm(dim=1))[:, None, None, None]


def down_shifted(layer: Any, x: Tensor, stride: int = 1) -> Tensor:
    rows, columns = layer.weight.shape[2:]
    reach = (columns - 1) // 2
    return conv2d(pad(x, (reach, reach, rows - 1, 0)), normed(layer), layer.bias, stride=stride)


def down_right_shifted(layer: Any, x: Tensor, stride: int = 1) -> Tensor:
    rows, columns = layer.weight.shape[2:]
    return conv2d(pad(x, (columns - 1, 0, rows - 1, 0)), normed(layer), layer.bias, stride=stride)


def deconv(layer: Any, x: Tensor) -> Tensor:
    rows, columns = layer.weight.shape[2:]
    kernel = normed(layer).transpose(0, 1)
    # "VALID" has n s + f − 1 outputs along an axis.
    y = conv_transpose2d(x, kernel, layer.bias, stride=2, output_padding=1)
    assert y.shape[2:] == (2 * x.shape[2] + rows - 1, 2 * x.shape[3] + columns - 1)
    return y


def down_shifted_deconv(layer: Any, x: Tensor) -> Tensor:
    y, (rows, columns) = deconv(layer, x), layer.weight.shape[2:]
    reach = (columns - 1) // 2
    return y[:, :, : y.shape[2] - rows + 1, reach : y.shape[3] - reach]


def down_right_shifted_deconv(layer: Any, x: Tensor) -> Tensor:
    y, (rows, columns) = deconv(layer, x), layer.weight.shape[2:]
    return y[:, :, : y.shape[2] - rows + 1, : y.shape[3] - columns + 1]


def concat_elu(x: Tensor) -> Tensor:
    return elu(torch.cat([x, -x], 1))


def gated_resnet(block: GatedResidual, conv: Any, x: Tensor, a: Tensor | None, h: Tensor | None) -> Tensor:
    c1 = conv(block.first, concat_elu(x))
    if a is not None:
        c1 = c1 + conv2d(concat_elu(a), normed(block.beside), block.beside.bias)
    c2 = conv(block.second, concat_elu(c1))
    if h is not None:
        c2 = c2 + (h @ block.shift.weight.T)[:, :, None, None]
    a, b = c2.chunk(2, 1)
    return x + a * b.sigmoid()


def published(model: PixelCNNPlusPlus, x: Tensor, h: Tensor | None) -> Tensor:
    entrance, x = model.entrance, torch.cat([x, torch.ones_like(x[:, :1])], 1)
    # Shifted by a row and a column of zeros; ours has the bias in the first row.
    u_list = [pad(down_shifted(entrance.above, x), (0, 0, 1, -1))]
    u_list[0][:, :, 0] = entrance.above.bias[:, None]
    below = pad(down_shifted(entrance.row_above, x), (0, 0, 1, -1))
    below[:, :, 0] = entrance.row_above.bias[:, None]
    ul_list = [below + pad(down_right_shifted(entrance.left, x), (1, -1))]
    levels = [model.net]
    while levels[-1].lower is not None:
        levels.append(levels[-1].lower)
    for number, level in enumerate(levels):
        for pair in level.down:
            u_list.append(gated_resnet(pair.above, down_shifted, u_list[-1], None, h))
            ul_list.append(gated_resnet(pair.left, down_right_shifted, ul_list[-1], u_list[-1], h))
        if number + 1 < len(levels):
            u_list.append(down_shifted(level.shrink_above, u_list[-1], stride=2))
            ul_list.append(down_right_shifted(level.shrink_left, ul_list[-1], stride=2))
    u, ul = u_list.pop(), ul_list.pop()
    for level in reversed(levels):
        if level.lower is not None:
            rows, columns = u_list[-1].shape[2:]
            u = down_shifted_deconv(level.grow_above, u)[:, :, :rows, :columns]
            ul = down_right_shifted_deconv(level.grow_left, ul)[:, :, :rows, :columns]
        for pair in level.up:
            u = gated_resnet(pair.above, down_shifted, u, u_list.pop(), h)
            ul = gated_resnet(pair.left, down_right_shifted, ul, torch.cat([u, ul_list.pop()], 1), h)
    assert not u_list
    assert not ul_list
    return conv2d(elu(ul), normed(model.last), model.last.bias)


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((3, 8, 8), Support("ordinal", 256)), {"resolutions": 3, "blocks": 2}),
        (Event((1, 5, 7), Support("ordinal", 5)), {"resolutions": 3, "given": labels(3)}),
        (Event((2, 6, 3), BINARY), {"resolutions": 4}),
        (Event((1, 3, 3), BINARY), {"resolutions": 1}),
    ],
    ids=str,
)
@torch.no_grad()
def test_the_network_is_the_published_one(event: Event, options: dict[str, Any]) -> None:
    model = random_model("pixelcnn++", event, **options)
    assert isinstance(model, PixelCNNPlusPlus)
    levels = event.uniform.levels
    x = torch.randint(levels, (2, *event.shape), generator=generator(1))
    h = torch.eye(3, dtype=torch.float64)[[1, 1]] if "given" in options else None
    context = Context(h)
    expected = published(model, 2 * x.double() / (levels - 1) - 1, h)
    found = model._network(x, context)
    torch.testing.assert_close(found, expected.permute(0, 2, 3, 1).flatten(1, 2), rtol=1e-10, atol=1e-10)


SIZE = (5, 7)
N = 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def steps(layer: Causal, inputs: Any, context: Context, rows_only: bool = False) -> dict[tuple[int, int], Any]:
    """What the layer gives at each site, from ``inputs(row, column)``."""
    memory, found = layer.begin(N, SIZE, context), {}
    for row, column in itertools.product(range(SIZE[0]), range(1 if rows_only else SIZE[1])):
        found[row, column] = layer.step(memory, Site(row, column), inputs(row, column))
    return found


def fresh(layer: Causal) -> Causal:
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(0.6 * torch.randn(p.shape, generator=generator(i)))
    return layer.double().eval()


@torch.no_grad()
def test_strided_and_enlarging_layers_step_as_they_compute_all_sites() -> None:
    left = fresh(MaskedConv(4, 6, window=Window(1, 1), stride=2, norm=WeightNorm(6)))
    above = fresh(VerticalConv(4, 6, rows=2, reach=1, stride=2, norm=WeightNorm(6)))
    x = noise(N, 4, *SIZE)
    whole, found = left(x), steps(left, lambda r, c: x[:, :, r, c], Context())
    assert whole.shape[2:] == (3, 4)
    for (row, column), y in found.items():
        if row % 2 or column % 2:
            assert y is None
        else:
            torch.testing.assert_close(y, whole[:, :, row // 2, column // 2], rtol=1e-12, atol=1e-12)
    whole, found = above(x), steps(above, lambda r, c: x[:, :, r : r + 1], Context(), rows_only=True)
    for (row, _), y in found.items():
        if row % 2:
            assert y is None
        else:
            torch.testing.assert_close(y, whole[:, :, row // 2 : row // 2 + 1], rtol=1e-12, atol=1e-12)

    enlarged, vertical = fresh(Enlarged(4, WeightNorm(4))), fresh(VerticalEnlarged(4, WeightNorm(4)))
    low = noise(N, 4, 3, 4, seed=1)
    whole = enlarged((low, SIZE))
    assert whole.shape[2:] == SIZE
    found = steps(enlarged, lambda r, c: None if r % 2 or c % 2 else low[:, :, r // 2, c // 2], Context())
    for (row, column), y in found.items():
        torch.testing.assert_close(y, whole[:, :, row, column], rtol=1e-12, atol=1e-12)
    whole = vertical((low, SIZE))
    assert whole.shape[2:] == SIZE
    rows = steps(vertical, lambda r, c: None if r % 2 else low[:, :, r // 2 : r // 2 + 1], Context(), rows_only=True)
    for (row, _), y in rows.items():
        torch.testing.assert_close(y, whole[:, :, row : row + 1], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_all_resolutions_step_as_they_compute_all_sites() -> None:
    context = Context(noise(N, 2, seed=9))
    entrance = fresh(Entrance(2, 4))
    net = fresh(Resolution(4, 1, 2, condition=2))
    x = noise(N, 2, *SIZE)
    first = entrance(x)
    whole = net(first, context)
    memories = entrance.begin(N, SIZE), net.begin(N, SIZE, context)
    for row, column in itertools.product(*map(range, SIZE)):
        site = Site(row, column)
        streams = entrance.look(memories[0], site)
        entrance.put(memories[0], site, x[:, :, row, column])
        torch.testing.assert_close(streams.left, first.left[:, :, row, column], rtol=1e-12, atol=1e-12)
        found = net.step(memories[1], site, streams)
        torch.testing.assert_close(found.left, whole.left[:, :, row, column], rtol=1e-11, atol=1e-11)
        if column == 0:
            torch.testing.assert_close(found.above, whole.above[:, :, row : row + 1], rtol=1e-11, atol=1e-11)
        else:
            assert found.above is None


@pytest.mark.parametrize("which", [0, 1])
def test_spread_of_resolutions_is_where_a_change_shows(which: int) -> None:
    net = fresh(Resolution(4, 1, 2))
    pixels = SIZE[0] * SIZE[1]
    eye = torch.eye(pixels).view(pixels, 1, *SIZE)
    told = net.spread(Streams(*(eye if which == i else torch.zeros_like(eye) for i in range(2))))
    shown = [torch.zeros(pixels, 1, *SIZE, dtype=torch.bool) for _ in range(2)]
    for seed in range(2):
        streams = [noise(1, 4, *SIZE, seed=seed + i).expand(pixels, -1, -1, -1) for i in range(2)]
        changed = list(streams)
        changed[which] = changed[which] + 1.7 * eye
        with torch.no_grad():
            for a, b, seen in zip(net(Streams(*streams)), net(Streams(*changed)), shown, strict=True):
                seen |= (a != b).any(1, keepdim=True)
    for pattern, seen in zip(told, shown, strict=True):
        assert torch.equal(seen, pattern > 0)


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 5, 6), Support("ordinal", 5)), {"resolutions": 3}),
        (Event((3, 3, 4), Support("ordinal", 7)), {"resolutions": 2}),
        (Event((2, 3, 3), BINARY), {"resolutions": 3}),
        (Event((1, 4, 6), BINARY), {"resolutions": 1, "blocks": 3}),
    ],
    ids=str,
)
def test_every_earlier_entry_counts(event: Event, options: dict[str, int]) -> None:
    model = random_model("pixelcnn++", event, **options)
    position = model.orders[0]
    assert not model.blind_spot().any()
    assert torch.equal(seen_by_jacobian(model, draws=4), position[:, None] > position[None, :])


def test_reach_of_a_shallow_network_is_the_predicted_one() -> None:
    """One resolution: the entrance and the four convolutions of two blocks see one column more of the row each."""
    event = Event((1, 9, 9), BINARY)
    model = random_model("pixelcnn++", event, resolutions=1)
    spot, position = model.blind_spot(), model.orders[0]
    assert spot[80, 72:80].tolist() == [True, True, True, False, False, False, False, False]
    assert torch.equal(seen_by_jacobian(model, draws=8), (position[:, None] > position[None, :]) & ~spot)


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((3, 3, 5), Support("ordinal", 20, low=-3)), {"resolutions": 3}),
        (Event((2, 4, 3), Support("nominal", 3)), {"given": labels(2)}),
        (GREY, {"head": "softmax"}),
        (Event((1, 1, 7), BINARY), {}),
    ],
    ids=str,
)
@torch.no_grad()
def test_cached_sampling_and_completion_are_the_naive_ones(event: Event, options: dict[str, Any]) -> None:
    model = random_model("pixelcnn++", event, deviation=0.4, **options)
    for draw in ({}, {"temperature": 0.7, "top_k": 3, "top_p": 0.8}):
        fast = model.sample(6, generator=generator(3), **draw)
        assert torch.equal(fast, model.sample_naive(6, generator=generator(3), **draw))
        assert event.contains(fast).all()
        # A completion from the middle of a pixel.
        known = (model.order.position < event.dims // 2).view(event.shape).expand(6, *event.shape)
        given = {"given": torch.arange(6) % 2} if options.get("given") else {}
        done = model.complete(fast, known, generator=generator(4), **given, **draw)
        line, targets = model.order.line(known), model._targets(fast)
        naive = model._naive(6, model._context(given.get("given")))
        otherwise = drawing(model.observation, generator(4), **draw)
        assert torch.equal(done, model._raw(model._walked(naive, 6, keeping(line, targets.long(), otherwise))))
        assert torch.equal(done[known], fast[known])
    x = model.sample(5, generator=generator(5))
    given = torch.zeros(5, dtype=torch.int64) if options.get("given") else None
    visited: dict[int, Tensor] = {}

    def choose(entry: int, masses: Tensor) -> Tensor:
        level = x.flatten(1)[:, entry].long() - event.uniform.low
        visited[entry] = masses.gather(1, level[:, None])[:, 0]
        return level.double()

    model.visit(5, choose, given=given)
    told = torch.stack([visited[d] for d in range(event.dims)], 1)
    torch.testing.assert_close(told, model.log_conditionals(x, given=given), rtol=1e-9, atol=1e-9)


def test_the_joint_of_a_pixel_is_the_product_of_its_conditionals() -> None:
    model = random_model("pixelcnn++", Event((3, 4, 4), Support("ordinal", 256)), deviation=0.3)
    x = torch.randint(256, (4, 3, 4, 4), generator=generator())
    torch.testing.assert_close(model.log_conditionals(x).sum(1), model.log_prob(x), rtol=1e-10, atol=0)


@torch.no_grad()
def test_zero_logits_are_uniform() -> None:
    for event in (Event((1, 8, 8), BINARY), Event((3, 4, 4), Support("nominal", 5))):
        model = random_model("pixelcnn++", event)
        model.last.norm.gain.zero_()
        model.last.bias.zero_()
        x = torch.randint(event.uniform.levels, (2, *event.shape), generator=generator())
        expected = event.dims * torch.tensor(float(event.uniform.levels), dtype=torch.float64).log()
        torch.testing.assert_close(-model.log_prob(x), expected.expand(2), rtol=1e-12, atol=0)


@torch.no_grad()
def test_the_first_batch_standardises_the_outputs() -> None:
    event = Event((3, 8, 8), Support("ordinal", 256))
    model = unsup.create("pixelcnn++", event, channels=8, blocks=1, given=labels(2))
    x = torch.randint(256, (70, *event.shape), generator=generator())
    batch = Batch(x, given=torch.arange(70) % 2)
    model.prepare(batch, generator=generator())
    found = model._network(x[:64], model._context(batch.given[:64]))
    std, mean = torch.std_mean(found, (0, 1), correction=0)
    torch.testing.assert_close(std, torch.ones_like(std), rtol=1e-3, atol=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-3)
    again = unsup.create("pixelcnn++", event, channels=8, blocks=1, given=labels(2))
    again.prepare(batch, generator=generator(7))
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_dropout_acts_in_training_alone_by_the_generator() -> None:
    model = random_model("pixelcnn++", GREY, dropout=0.5)
    x = torch.randint(6, (8, *GREY.shape), generator=generator())
    model.train()
    first, same, other = (model.loss(Batch(x), generator=generator(s))["loss"] for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    torch.testing.assert_close(model.eval().loss(Batch(x))["loss"], -model.log_prob(x))
    assert not torch.allclose(first, -model.log_prob(x))


def test_conditions_reach_every_gate() -> None:
    event = Event((1, 4, 4), BINARY)
    x = torch.randint(2, (6, *event.shape), generator=generator())
    model = random_model("pixelcnn++", event, given=labels(2), resolutions=3)
    shifts = {n: p.detach().clone() for n, p in model.named_parameters() if "shift" in n}
    assert len(shifts) == 2 * (3 + 2 + 2 + 1)
    for alone, half in itertools.product(shifts, range(2)):
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in shifts:
                    p.zero_()
                    if name == alone:
                        p.chunk(2, 0)[half].copy_(shifts[name].chunk(2, 0)[half])
            zero, one = (model.log_prob(x, given=torch.tensor(y)) for y in (0, 1))
        assert ((zero - one).abs() > 1e-9).any(), (alone, half)


def test_paper_preset_has_the_papers_size() -> None:
    event = Event((3, 32, 32), Support("ordinal", 256))
    model = unsup.create("pixelcnn++", event, preset="paper")
    assert isinstance(model, PixelCNNPlusPlus)
    f = 160

    def conv(taps: int, inputs: int, outputs: int) -> int:
        return taps * inputs * outputs + 2 * outputs  # and a gain and a bias for each output

    def block(taps: int, beside: int) -> int:
        own = conv(taps, 2 * f, f) + conv(taps, 2 * f, 2 * f)
        return own + (conv(1, 2 * beside, f) if beside else 0)

    down, up = block(6, 0) + block(4, f), block(6, f) + block(4, 2 * f)
    entrance = conv(6, 4, f) + conv(3, 4, f) + conv(2, 4, f)
    between = 2 * 2 * (conv(6, f, f) + conv(4, f, f))
    expected = entrance + 15 * down + 17 * up + between + conv(1, f, 100)
    assert model.parameter_count == expected == 53_659_080


def test_refusals_say_how_to_mend() -> None:
    for event, match in ((Event((4,), BINARY), "takes images only"), (Event((1, 4, 4), REAL), "takes discrete pixels")):
        with pytest.raises(InputError, match=match):
            unsup.create("pixelcnn++", event)
    with pytest.raises(InputError, match=r"head='logistic' does not fit .*use 'softmax'"):
        unsup.create("pixelcnn++", Event((1, 4, 4), BINARY), head="logistic")
    model = unsup.create("pixelcnn++", GREY, preset="tiny")
    with pytest.raises(InputError, match="x has shape"):
        model.log_prob(torch.zeros(1, 1, 4, 5))
