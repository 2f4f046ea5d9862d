"""Heads of pixels: their conditionals telescope to the joint mixture, which sums to one, in models of both kinds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, Event, Support
from unsup.nn.attention import Attention
from unsup.nn.causal import Causal, Pointwise
from unsup.nn.logistics import CoupledLogistics, CoupledSymbols, MixtureOfLogistics, PixelHead, PixelMixture, pixel_head
from unsup.nn.observation import Logistic
from unsup.nn.order import Order
from unsup.nn.sequence import Frames, Places, SequenceModel
from unsup.testing import check_model


def images(channels: int, support: Support) -> Event:
    return Event((channels, 2, 2), support)


def ordinal(levels: int) -> Support:
    return Support("ordinal", levels)


HEADS: dict[str, PixelHead] = {
    "logistic": CoupledLogistics(images(3, ordinal(5)), 4),
    "logistic-of-2": CoupledLogistics(images(2, ordinal(6)), 1),
    "logistic-of-4": CoupledLogistics(images(4, ordinal(3)), 2),
    "logistic-alone": CoupledLogistics(images(1, ordinal(7)), 3),
    "softmax": CoupledSymbols(images(3, Support("nominal", 4)), 3),
    "bernoulli": CoupledSymbols(images(3, BINARY), 3),
    "softmax-alone": CoupledSymbols(images(1, Support("nominal", 4)), 3),
}


def outputs_of(head: PixelHead, n: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(n, 1, head.outputs, generator=generator, dtype=torch.float64)


def every_pixel(head: PixelHead) -> Tensor:
    levels = head.observation.levels
    return torch.tensor(list(itertools.product(range(levels), repeat=head.channels))).view(-1, 1, head.channels)


@pytest.mark.parametrize("name", HEADS)
def test_the_joint_sums_to_one_and_the_conditionals_are_its_own(name: str) -> None:
    head = HEADS[name]
    x, levels = every_pixel(head), head.observation.levels
    found = outputs_of(head).expand(len(x), -1, -1)
    joint = head.joint_log_prob(found, x).exp()
    assert float(joint.sum()) == pytest.approx(1, abs=1e-12)
    table = joint.view((levels,) * head.channels)
    entries = head.observation.log_prob(x, head.expand(found, x))  # (levels^C, 1, C)
    for channel in range(head.channels):
        upto = table.flatten(channel + 1).sum(-1) if channel + 1 < head.channels else table
        conditional = upto / upto.sum(-1, keepdim=True)
        expected = conditional[x[:, 0, : channel + 1].unbind(-1)].log()
        torch.testing.assert_close(entries[:, 0, channel], expected, rtol=1e-10, atol=1e-10)
        masses = head.observation.log_masses(head.expand(found, x)[:, 0, channel]).exp()
        if channel:
            conditional = conditional[x[:, 0, :channel].unbind(-1)]
        torch.testing.assert_close(masses, conditional.expand_as(masses), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", HEADS)
def test_a_walk_has_the_parameters_of_the_full_pass(name: str) -> None:
    head = HEADS[name]
    x = every_pixel(head)[::3]
    found = outputs_of(head, len(x))
    expanded = head.expand(found, x)
    assert expanded.shape == (len(x), 1, head.channels, head.observation.outputs_each)
    for channel in range(head.channels):
        here = head.at(found[:, 0], list(x[:, 0, :channel].unbind(-1)))
        assert torch.equal(here, expanded[:, 0, channel])


@pytest.mark.parametrize("name", HEADS)
def test_conditionals_move_with_earlier_channels_alone(name: str) -> None:
    head = HEADS[name]
    x = (head.observation.levels - 1) * torch.rand(1, 1, head.channels, dtype=torch.float64)

    def expanded(x: Tensor) -> Tensor:
        return head.expand(outputs_of(head), x)[0, 0]

    jacobian = torch.autograd.functional.jacobian(expanded, x)[:, :, 0, 0]  # (C, parameters, C)
    seen = (jacobian != 0).any(1)
    assert torch.equal(seen, torch.ones(head.channels, head.channels, dtype=torch.bool).tril(-1))


def test_the_coupled_mixture_is_the_papers() -> None:
    """Equation 3 as loops, for two pixels of three channels with 256 levels."""
    event, components = images(3, ordinal(256)), 3
    head = CoupledLogistics(event, components)
    assert head.outputs == 10 * components
    found = outputs_of(head, 2).view(1, 2, -1)
    x = torch.tensor([[[0, 255, 100], [3, 128, 250]]])

    def mass(level: int, mean: float, log_scale: float) -> float:
        scale = math.exp(max(log_scale, -7))

        def below(edge: int) -> float:
            return 1 / (1 + math.exp(-(-1 + 2 * edge / 256 - mean) / scale))

        return (1.0 if level == 255 else below(level + 1)) - (0.0 if level == 0 else below(level))

    total = 0.0
    for pixel in range(2):
        parts = found[0, pixel].view(10, components).tolist()
        r, g, b = (int(v) for v in x[0, pixel])
        red, green = ((2 * v + 1) / 256 - 1 for v in (r, g))
        weights = [math.exp(v) for v in parts[0]]
        p = 0.0
        for k in range(components):
            alpha, beta, gamma = (math.tanh(parts[i][k]) for i in (7, 8, 9))
            p += (
                weights[k]
                / sum(weights)
                * mass(r, parts[1][k], parts[4][k])
                * mass(g, parts[2][k] + alpha * red, parts[5][k])
                * mass(b, parts[3][k] + beta * red + gamma * green, parts[6][k])
            )
        total += math.log(p)
    assert float(head.joint_log_prob(found, x)) == pytest.approx(total, rel=1e-9)
    expanded = head.expand(found, x).flatten(1, 2)
    assert float(head.observation.total_log_prob(x.flatten(1), expanded)) == pytest.approx(total, rel=1e-9)


def test_the_observation_of_pixels_sums_to_one_and_draws_its_masses() -> None:
    event = Event((2, 1, 2), ordinal(3))
    observation = PixelMixture(event, 2).double()
    generator = torch.Generator().manual_seed(0)
    outputs = 1.5 * torch.randn(1, 2, observation.outputs, generator=generator, dtype=torch.float64)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    table = outputs.expand(len(every), -1, -1)
    log_p = observation.total_log_prob(every, table)
    assert float(log_p.exp().sum()) == pytest.approx(1)
    torch.testing.assert_close(observation.log_prob(every, table).sum(1), log_p)
    torch.testing.assert_close(observation.total_log_prob(every, table[None].expand(2, -1, -1, -1))[1], log_p)
    draws = observation.draw(outputs.expand(40_000, -1, -1), generator)
    counts = (draws @ torch.tensor([27, 9, 3, 1])).bincount(minlength=81) / len(draws)
    assert ((counts - log_p.exp()).abs() < 4.5 * (log_p.exp() / len(draws)).sqrt() + 1e-9).all()
    # The channels of a pixel depend on each other: (red, green) at a pixel are entries 0 and 2.
    joint = log_p.exp().view(3, 3, 3, 3).sum((1, 3))
    assert (joint - joint.sum(1, keepdim=True) * joint.sum(0)).abs().max() > 1e-3
    pixel = joint.view(3, 3)
    red, green = observation.typical(outputs)[0, [0, 2]].tolist()
    assert red == int(pixel.sum(1).argmax())
    assert green == int(pixel[red].argmax())


def test_the_mixture_of_products_is_a_mixture_of_products() -> None:
    head = HEADS["softmax"]
    found, x = outputs_of(head), torch.tensor([[[3, 0, 2]]])
    weights, each = found[0, 0, :3].softmax(-1), found[0, 0, 3:].view(3, 3, 4).softmax(-1)  # channel, component, level
    expected = sum(weights[k] * each[0, k, 3] * each[1, k, 0] * each[2, k, 2] for k in range(3))
    assert float(head.joint_log_prob(found, x)) == pytest.approx(math.log(expected), rel=1e-12)


def test_gradients_are_finite_for_far_and_narrow_mixtures() -> None:
    head = CoupledLogistics(images(3, ordinal(256)), 2)
    x = torch.tensor([[[0, 255, 128], [255, 0, 7]]])
    for log_scale, dtype in itertools.product((-20.0, -7.0, 7.0), (torch.float32, torch.float64)):
        found = torch.full((1, 2, head.outputs), 5.0, dtype=dtype)
        found[..., 8:14] = log_scale
        found.requires_grad_()
        for value in (head.joint_log_prob(found, x), head.observation.log_masses(head.expand(found, x))):
            (gradient,) = torch.autograd.grad(value.sum(), found)
            assert bool(value.isfinite().all())
            assert bool(gradient.isfinite().all())
            assert bool((gradient != 0).any())


def test_one_component_is_the_logistic_of_other_models() -> None:
    event = Event((6,), ordinal(9))
    outputs = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mixture, single = MixtureOfLogistics(event, 1).double(), Logistic(event).double()
    x = torch.randint(9, (5, 6), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mixture.log_prob(x, outputs), single.log_prob(x, outputs[..., 1:]), rtol=1e-12, atol=0)
    torch.testing.assert_close(mixture.log_masses(outputs), single.log_masses(outputs[..., 1:]), rtol=1e-12, atol=1e-13)


def test_marginals_fit_columns_better_than_one_logistic() -> None:
    event = Event((2,), Support("ordinal", 100, low=-20))
    generator = torch.Generator().manual_seed(0)
    two = torch.where(torch.rand(500, 2, generator=generator) < 0.4, -12, 70)
    cells = two + torch.randint(6, (500, 2), generator=generator)
    mixture, single = MixtureOfLogistics(event, 5), Logistic(event)
    scores = [o.log_prob(o.target(cells), o.marginal(cells)).mean() for o in (mixture, single)]
    assert scores[0] > scores[1] + 0.3


@pytest.mark.parametrize("levels", [256, 65_536])
def test_one_level_can_be_almost_certain(levels: int) -> None:
    made = MixtureOfLogistics(Event((1,), Support("ordinal", levels), "sequence"), 1)
    level = levels // 3
    outputs = torch.tensor([0.0, (2 * level + 1) / levels - 1, -50.0])
    assert float(made.log_prob(torch.tensor(level), outputs).exp()) > 0.95
    gradient = torch.autograd.functional.jacobian(lambda o: made.log_prob(torch.tensor(0), o), outputs)
    assert gradient.isfinite().all()


def test_draws_of_many_levels_have_their_masses() -> None:
    levels, n = 300, 200_000
    made = MixtureOfLogistics(Event((1,), Support("ordinal", levels), "sequence"), 2)
    outputs = torch.tensor([0.3, -0.2, -0.97, 0.6, -4.0, -1.5])  # a part lies outside the first level
    masses = made.log_masses(outputs).exp().double()
    drawn = made.draw(outputs.expand(n, -1), torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=levels).double()
    assert drawn.dtype == torch.int64
    deviations = (counts - n * masses) / (n * masses).sqrt()
    assert deviations.abs().max() < 5
    assert deviations.square().sum() < levels + 5 * math.sqrt(2 * levels)


def test_the_start_of_a_head_is_close_to_the_data() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([40.0, 120.0, 200.0])[:, None, None]
    x = (centres + 9 * torch.randn(64, 3, 8, 8, generator=generator)).round().clamp(0, 255).to(torch.uint8)
    head = pixel_head(Event((3, 8, 8), Support("ordinal", 256)), "logistic", 5)
    found = head.start(x).expand(64, 64, -1)
    levels = x.flatten(2).transpose(1, 2)
    bits = -head.joint_log_prob(found, levels).mean() / (192 * math.log(2))
    entropy = math.log2(9 * math.sqrt(2 * math.pi * math.e))
    assert entropy - 0.05 < bits < entropy + 0.7


def test_the_event_determines_the_head() -> None:
    assert isinstance(pixel_head(images(3, ordinal(256))), CoupledLogistics)
    for support in (BINARY, Support("nominal", 5), ordinal(2)):
        assert isinstance(pixel_head(images(3, support)), CoupledSymbols)
        with pytest.raises(InputError, match="head='logistic' does not fit"):
            pixel_head(images(3, support), "logistic")
    assert isinstance(pixel_head(images(3, ordinal(256)), "softmax"), CoupledSymbols)


class Pixels(SequenceModel):
    """Attention over pixels, with a head of pixels."""

    def __init__(self, event: Event, *, softmax: bool = False) -> None:
        head = pixel_head(event, "softmax" if softmax else "auto", 2)
        self.take(event, None, head=head)
        self.frames, self.places = Frames(event.shape[0], 8), Places(Order(Event((4,), BINARY)), 8)
        self.attention = Attention(8, 2)
        self.last = Pointwise(nn.Linear(8, head.outputs))

    def layers(self) -> Sequence[Causal]:
        return [self.frames, self.places, self.attention, self.last]


@pytest.mark.parametrize("softmax", [False, True])
def test_laws_hold_for_sequences_of_pixels(softmax: bool) -> None:
    event = images(2, ordinal(3))
    model = Pixels(event, softmax=softmax)
    x = torch.randint(3, (64, *event.shape), generator=torch.Generator().manual_seed(0))
    wanted = ("order", "normalised", "factorisation", "fast-sampling", "completion", "loss-is-likelihood")
    check_model(model, Batch(x), laws=wanted).raise_for_failures()


@pytest.mark.parametrize(
    ("name", "event", "options"),
    [
        ("wavenet", Event((256,), Support("ordinal", 65_536, low=-32_768), "sequence"), {"layers": 4}),
        ("image-transformer", Event((1, 16, 16), Support("ordinal", 256)), {"head": "logistic"}),
    ],
)
def test_models_start_close_to_the_data(name: str, event: Event, options: dict[str, object]) -> None:
    assert event.uniform is not None
    levels, low = event.uniform.levels, event.uniform.low
    generator = torch.Generator().manual_seed(0)
    x = low + levels * (0.5 + 0.02 * torch.randn(64, 256, generator=generator))
    x = x.round().to(event.dtype).view(64, *event.shape)
    model = unsup.create(name, event, seed=0, **options)
    before = float(unsup.evaluate_likelihood(model, x).bits_per_dim)
    model.prepare(Batch(x), generator=generator)
    bits = float(unsup.evaluate_likelihood(model, x).bits_per_dim)
    entropy = math.log2(0.02 * levels * math.sqrt(2 * math.pi * math.e))
    assert entropy - 0.1 < bits < entropy + 1.5 < before
