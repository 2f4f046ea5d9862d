"""PixelCNN against enumeration, brute-force Jacobians, hand-counted sizes and its own slow sampler."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn.functional import conv2d, pad

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.autoregressive.pixelcnn import MaskedConv, PixelCNN, group_of

TINY = dict(PixelCNN.presets["tiny"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_model(event: Event, seed: int = 0, scale: float = 0.6, **options: int) -> PixelCNN:
    """A float64 model with large random weights (and class prior), so that no conditional is near uniform."""
    model = PixelCNN(event, **(TINY | options)).double().eval()
    noise = generator(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=noise, dtype=p.dtype))
        if model.classes:
            model.log_prior.copy_(torch.randn(model.classes, generator=noise, dtype=torch.float64).log_softmax(0))
    return model


def every_image(event: Event) -> Tensor:
    support = event.uniform
    levels = range(support.low, support.low + support.levels)
    return torch.tensor(list(itertools.product(levels, repeat=event.dims))).view(-1, *event.shape)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    "event",
    [
        Event((1, 3, 3), BINARY),
        Event((3, 2, 2), BINARY),
        Event((2, 1, 2), Support("ordinal", 5, low=3)),
        Event((2, 2, 1), Support("nominal", 4)),
    ],
    ids=str,
)
def test_masses_of_all_images_sum_to_one(event: Event, classes: int) -> None:
    model, x = random_model(event, classes=classes), every_image(event)
    with torch.no_grad():
        total = model.log_prob(x).exp().sum()
        assert abs(total - 1) < 1e-10
        if not classes:
            return
        given = torch.stack([model.log_prob_given(x, torch.full((len(x),), y)) for y in range(classes)], 1).exp()
        assert (given.sum(0) - 1).abs().max() < 1e-10
        assert torch.allclose(given @ model.log_prior.exp(), model.log_prob(x).exp(), rtol=1e-10, atol=0)


def test_masks_keep_half_of_a_kernel() -> None:
    for kernel in (1, 3, 5, 7):
        assert int(MaskedConv(1, 1, 1, kernel=kernel, mask="B").mask.sum()) == (kernel**2 + 1) // 2
        assert int(MaskedConv(1, 1, 1, kernel=kernel, mask="A").mask.sum()) == (kernel**2 + 1) // 2 - 1


@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize(("groups", "kernel"), [(1, 3), (3, 1), (3, 5)])
def test_masked_conv_is_the_papers_masked_square_kernel(groups: int, kernel: int, mask: str) -> None:
    inputs, outputs = 7, 8
    conv = MaskedConv(inputs, outputs, groups, kernel=kernel, mask=mask).double()
    full = pad(conv.weight.detach(), (0, 0, 0, kernel // 2), value=9.0)
    centre = kernel // 2
    into, out = group_of(inputs, groups).tolist(), group_of(outputs, groups).tolist()
    for o, i, row, column in itertools.product(range(outputs), range(inputs), range(kernel), range(kernel)):
        sees_centre = out[o] > into[i] if mask == "A" else out[o] >= into[i]
        earlier = (row, column) < (centre, centre)
        if not (earlier or ((row, column) == (centre, centre) and sees_centre)):
            full[o, i, row, column] = 0
    x = torch.randn(2, inputs, 5, 6, generator=generator(), dtype=torch.float64)
    assert torch.allclose(conv(x), conv2d(x, full, conv.bias, padding=centre), atol=1e-12)


def test_features_are_split_as_evenly_as_possible() -> None:
    assert group_of(256, 3).bincount().tolist() == [86, 85, 85]
    assert group_of(1024, 3).bincount().tolist() == [342, 341, 341]


def seen_by_jacobian(event: Event, nets: int, **options: int) -> Tensor:
    """[i, j]: whether conditional i moves with input j, at any of several random nets and inputs."""
    support, seen = event.uniform, torch.zeros(event.dims, event.dims, dtype=torch.bool)
    for seed in range(nets):
        model = random_model(event, seed, **options)
        x = torch.rand(1, *event.shape, generator=generator(seed), dtype=torch.float64) * (support.levels - 1)
        jacobian = torch.autograd.functional.jacobian(model.conditionals, x + support.low, vectorize=True)
        seen |= (jacobian.reshape(event.dims, -1, event.dims) != 0).any(1)
    return seen


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (Event((1, 6, 6), BINARY), {"blocks": 1}),
        (Event((1, 6, 6), BINARY), {"blocks": 4}),
        (Event((1, 4, 7), BINARY), {"blocks": 0}),
        (Event((3, 3, 3), Support("ordinal", 4)), {"blocks": 1}),
        (Event((2, 3, 6), Support("nominal", 3)), {"blocks": 2}),
        (Event((1, 5, 6), BINARY), {"blocks": 1, "kernel": 5}),
    ],
    ids=str,
)
def test_jacobian_is_the_order_less_the_predicted_blind_spot(event: Event, options: dict[str, int]) -> None:
    model = PixelCNN(event, **(TINY | options))
    position = model.orders[0]
    allowed = (position[:, None] > position[None, :]) & ~model.blind_spot()
    assert torch.equal(seen_by_jacobian(event, nets=12, channels=8, **options), allowed)


def test_blind_spot_of_a_deep_net_is_the_wedge() -> None:
    """Through mask A one row up reaches 3 columns to the right, each further row one more; none is lost to the left."""
    height, width = 4, 12
    spot = PixelCNN(Event((1, height, width), BINARY), channels=1, head_channels=1, blocks=12).blind_spot()
    for (r, c), (above, right) in itertools.product(itertools.product(range(height), range(width)), repeat=2):
        rows_up = r - above
        in_wedge = rows_up >= 1 and right - c > rows_up + 2
        assert bool(spot[r * width + c, above * width + right]) == in_wedge


def test_order_is_raster_with_the_channel_fastest() -> None:
    channels, height, width = 3, 2, 4
    order = PixelCNN(Event((channels, height, width), BINARY), **TINY, classes=2).orders
    sequence = itertools.product(range(height), range(width), range(channels))
    assert order.shape == (2, 24)
    for position, (row, column, c) in enumerate(sequence):
        assert (order[:, (c * height + row) * width + column] == position).all()


@pytest.mark.parametrize(
    ("event", "levels"), [(Event((1, 28, 28), BINARY), 2), (Event((3, 4, 4), Support("ordinal", 256)), 256)]
)
def test_zero_logits_are_uniform(event: Event, levels: int) -> None:
    model = PixelCNN(event, **TINY).double()
    with torch.no_grad():
        model.head[-1].weight.zero_()
        model.head[-1].bias.zero_()
        x = torch.randint(levels, (2, *event.shape), generator=generator())
        assert torch.allclose(-model.log_prob(x), torch.full((2,), event.dims * math.log(levels), dtype=torch.float64))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize(
    ("event", "options", "n"),
    [
        (Event((1, 6, 5), BINARY), {"blocks": 2}, 5),
        (Event((1, 1, 4), BINARY), {"blocks": 1, "kernel": 5}, 1),
        (Event((3, 4, 4), Support("ordinal", 6, low=2)), {"channels": 8, "blocks": 2, "head_channels": 7}, 32),
        (Event((2, 3, 5), Support("nominal", 4)), {"blocks": 0}, 2),
    ],
    ids=str,
)
def test_cached_sampling_is_the_naive_sampling(
    event: Event, options: dict[str, int], n: int, temperature: float, classes: int
) -> None:
    model = random_model(event, classes=classes, **options)
    fast = model.sample(n, generator=generator(3), temperature=temperature)
    slow = model.sample_naive(n, generator=generator(3), temperature=temperature)
    assert torch.equal(fast, slow)
    assert fast.dtype == event.dtype
    assert event.contains(fast).all()


def test_mean_surprise_of_own_samples_is_the_entropy() -> None:
    event = Event((2, 2, 2), BINARY)
    for classes in (0, 2):
        model = random_model(event, seed=1, scale=0.9, classes=classes)
        with torch.no_grad():
            log_p = model.log_prob(every_image(event))
            entropy = -(log_p.exp() * log_p).sum()
            surprise = -model.log_prob(model.sample(4000, generator=generator(5)))
        assert abs(surprise.mean() - entropy) < 4 * surprise.std() / math.sqrt(len(surprise))
        assert entropy < 0.9 * event.dims * math.log(2)


def test_samples_given_a_label_follow_its_density() -> None:
    event = Event((1, 2, 3), BINARY)
    model, images = random_model(event, seed=2, classes=2), every_image(event)
    for y in (0, 1):
        with torch.no_grad():
            p = model.log_prob_given(images, torch.full((len(images),), y)).exp()
        drawn = model.sample_given(torch.full((4000,), y), generator=generator(y))
        assert frequencies_fit(drawn, images, p)


def frequencies_fit(drawn: Tensor, images: Tensor, p: Tensor) -> bool:
    """χ² of how often each of ``images`` was drawn against ``p``; images expected less than 5 times are pooled."""
    counts = (drawn[:, None].long() == images).flatten(2).all(2).sum(0).double()
    assert counts.sum() == len(drawn)
    expected, common = p * len(drawn), p * len(drawn) >= 5
    groups = [torch.cat([v[common], v[~common].sum().view(-1)]) for v in (counts, expected)]
    keep = groups[1] > 0
    return bool(chisquare(groups[0][keep], groups[1][keep]).pvalue > 1e-3)


@pytest.mark.parametrize("classes", [0, 2])
def test_completions_follow_the_enumerated_conditional(classes: int) -> None:
    event = Event((2, 2, 2), BINARY)
    model, images = random_model(event, seed=4, scale=0.5, classes=classes), every_image(event)
    with torch.no_grad():
        for block in model.blocks:
            if classes:  # classes far apart, so that what is known says much about the label
                block.label_bias.weight.mul_(8)
    model_sequence = model.orders[0].argsort()
    for prefix, truth in itertools.product((0, 3, 6), images[37::90]):  # 3 ends between the two channels of a pixel
        known = torch.zeros(event.dims, dtype=torch.bool)
        known[model_sequence[:prefix]] = True
        known = known.view(event.shape)
        agree = ((images == truth) | ~known).flatten(1).all(1)
        with torch.no_grad():
            p = model.log_prob(images).exp() * agree
        start = torch.where(known, truth, 1 - truth).expand(3000, *event.shape)
        drawn = model.complete(start, known.expand_as(start), generator=generator(prefix))
        assert frequencies_fit(drawn, images, p / p.sum())


def test_completion_keeps_a_different_prefix_of_each_image() -> None:
    event = Event((3, 3, 4), Support("ordinal", 7))
    model = random_model(event)
    x = torch.randint(7, (5, *event.shape), generator=generator(1), dtype=torch.uint8)
    known = (model.orders[0] < torch.tensor([0, 1, 17, 30, 36])[:, None]).view(5, *event.shape)
    drawn = model.complete(x, known, generator=generator(2))
    assert torch.equal(drawn[known], x[known])
    assert torch.equal(drawn[4], x[4])
    assert not torch.equal(drawn[~known], x[~known])


def test_completion_refuses_what_it_could_not_condition_on() -> None:
    model = random_model(Event((2, 2, 2), BINARY))
    x, known = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    known[:, 1, 0, 0] = True  # the second channel of the first pixel without the first
    with pytest.raises(InputError, match="prefix of the raster order"):
        model.complete(x, known)


def test_paper_preset_has_the_layers_of_table_1() -> None:
    model = PixelCNN(Event((3, 32, 32), Support("ordinal", 256)), **PixelCNN.presets["paper"])
    # The stored half of the 7×7 (4 rows of 7) 3→256; 15 × (256→128, half of the 3×3 (2 rows of 3) 128→128, 128→256);
    # 256→1024, 1024→1024, 1024→3·256; each with its bias.
    assert model.parameter_count == 21_760 + 15 * (32_896 + 98_432 + 33_024) + 263_168 + 1_049_600 + 787_200
    grey = PixelCNN(Event((1, 32, 32), Support("ordinal", 256)), **PixelCNN.presets["paper"])
    free = sum(int(m.mask.sum()) for m in grey.modules() if isinstance(m, MaskedConv))
    # One channel: 24 of 49 taps, 5 of 9, and no mask on 1×1.
    assert free == 24 * 256 + 15 * (256 * 128 + 5 * 128 * 128 + 128 * 256) + 256 * 1024 + 1024 * 1024 + 1024 * 256


def test_label_reaches_every_block() -> None:
    event = Event((1, 4, 4), BINARY)
    x = torch.randint(2, (6, *event.shape), generator=generator())
    for block in range(3):
        model = random_model(event, blocks=3, classes=2)
        with torch.no_grad():
            for other in range(3):
                if other != block:
                    model.blocks[other].label_bias.weight.zero_()
            zero, one = (model.log_prob_given(x, torch.full((6,), y)) for y in (0, 1))
        assert ((zero - one).abs() > 1e-6).all()


def test_prior_is_counted_and_smoothed() -> None:
    model = PixelCNN(Event((1, 2, 2), BINARY), **TINY, classes=3)
    model.prepare(torch.zeros(5, 1, 2, 2), torch.tensor([0, 0, 1, 0, 1]), generator=generator())
    assert torch.allclose(model.log_prior.exp(), torch.tensor([4.0, 3.0, 1.0]) / 8)


def test_loss_is_of_the_label_in_training_and_marginal_in_evaluation() -> None:
    event = Event((1, 3, 3), BINARY)
    model = random_model(event, classes=3)
    x, label = torch.randint(2, (8, *event.shape), generator=generator()), torch.arange(8) % 3
    assert torch.allclose(model.loss(Batch(x))["loss"], -model.log_prob(x).mean())
    model.train()
    assert torch.allclose(model.loss(Batch(x, label))["loss"], -model.log_prob_given(x, label).mean())


@pytest.mark.parametrize("channels", [1, 3])
def test_every_parameter_gets_a_gradient(channels: int) -> None:
    event = Event((channels, 5, 5), Support("ordinal", 4))
    model = PixelCNN(event, **(TINY | {"blocks": 2}), classes=2).train()
    x = torch.randint(4, (16, *event.shape), generator=generator())
    model.loss(Batch(x, torch.arange(16) % 2))["loss"].backward()
    for name, p in model.named_parameters():
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().sum() > 0, name
        conv = model.get_submodule(name.rpartition(".")[0])
        if name.endswith("weight") and isinstance(conv, MaskedConv):
            assert (p.grad[~conv.mask] == 0).all(), name


def test_kept_masked_weights_follow_a_changed_weight() -> None:
    event = Event((1, 3, 3), BINARY)
    model, other = random_model(event, seed=0), random_model(event, seed=1)
    x = every_image(event)[::37]
    with torch.no_grad():
        before, after = model.log_prob(x), other.log_prob(x)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.log_prob(x), after)
        assert not torch.allclose(before, after)


def test_bfloat16_keeps_the_likelihood_sum_in_float32() -> None:
    event = Event((3, 8, 8), Support("ordinal", 256))
    model = PixelCNN(event, **TINY)
    x = torch.randint(256, (4, *event.shape), generator=generator(), dtype=torch.uint8)
    exact = model.log_prob(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.log_prob(x)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, rtol=2e-3)
    assert not torch.equal(rounded, exact)


def test_refusals_say_how_to_mend() -> None:
    rgb = Event((3, 4, 4), BINARY)
    with pytest.raises(InputError, match="takes images only"):
        PixelCNN(Event((4,), BINARY))
    with pytest.raises(InputError, match="takes discrete pixels only"):
        PixelCNN(Event((1, 4, 4), REAL))
    with pytest.raises(InputError, match="kernel=4 is even"):
        PixelCNN(rgb, kernel=4)
    with pytest.raises(InputError, match="give at least 3"):
        PixelCNN(rgb, channels=2)
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(InputError, match="x has shape"):
        PixelCNN(rgb, **TINY).log_prob(torch.zeros(1, 3, 4, 5))
    with pytest.raises(InputError, match="no labels; use classes=0"):
        PixelCNN(rgb, **TINY, classes=2).train().loss(Batch(x))
    with pytest.raises(InputError, match="expected 0 to 1"):
        PixelCNN(rgb, **TINY, classes=2).log_prob_given(x, torch.tensor([2]))
    with pytest.raises(CapabilityError, match="without classes"):
        PixelCNN(rgb, **TINY).sample_given(torch.tensor([0]))


@pytest.mark.parametrize("channels", [1, 3])
def test_features_stay_channels_last(channels: int) -> None:
    model = PixelCNN(Event((channels, 6, 6), BINARY), **(TINY | {"blocks": 2}))
    kept = []
    for conv in model.modules():
        if isinstance(conv, MaskedConv) and conv is not model.first:
            conv.register_forward_hook(
                lambda _, inputs, output: kept.append(
                    inputs[0].is_contiguous(memory_format=torch.channels_last)
                    and output.is_contiguous(memory_format=torch.channels_last)
                )
            )
    model.log_prob(torch.zeros(2, channels, 6, 6))
    assert kept == [True] * 9  # three convolutions in each of two blocks, three in the head
