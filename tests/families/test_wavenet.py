"""WaveNet: receptive field, conditions inside gates, samples of any length, sizes, and a source of known entropy."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from entry_models import generator
from entry_models import random_model as random_entry_model
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.families.autoregressive.wavenet import WaveNet
from unsup.nn.logistics import MixtureOfLogistics
from unsup.nn.sequence import Frames

random_model = partial(random_entry_model, "wavenet")
MU_LAW, FIVE = Support("ordinal", 256), Support("ordinal", 5)


def sequence(*shape: int, support: Support = FIVE) -> Event:
    return Event(shape, support, "sequence")


@pytest.mark.parametrize(("layers", "stacks"), [(1, 1), (3, 1), (2, 3), (3, 2)])
def test_receptive_field_by_an_impulse(layers: int, stacks: int) -> None:
    """Output t depends on inputs t − R … t − 1, each of them, and on nothing else."""
    field = 1 + stacks * (2**layers - 1)
    model = random_model(sequence(20), layers=layers, stacks=stacks)
    assert model.receptive_field == field
    x = torch.randint(5, (1, 20), generator=generator())
    changed = x.repeat(20, 1)
    changed[torch.arange(20), torch.arange(20)] = (x[0] + 1) % 5
    with torch.no_grad():
        moved = (model.conditionals(changed) != model.conditionals(x)).any(2).T  # [t, i]
    back = torch.arange(20)[:, None] - torch.arange(20)
    assert torch.equal(moved, (back >= 1) & (back <= field))
    assert torch.equal(model.blind_spot(), back > field)


def test_paper_sees_3070_samples() -> None:
    model = unsup.create("wavenet", sequence(64, support=MU_LAW), preset="paper")
    assert isinstance(model, WaveNet)
    assert model.receptive_field == 3 * 1023 + 1 == 3070
    w, s = 64, 256  # the paper states no widths
    gates = 30 * (2 * w * 2 * w + 2 * w)
    residual, skip = 29 * (w * w + w), 30 * w * s + s
    head = s * s + s + s * 256 + 256
    assert model.parameter_count == 256 * w + w + gates + residual + skip + head


@torch.no_grad()
def test_head_by_loops() -> None:
    model = random_model(sequence(4))
    x = torch.tensor([[3, 1, 4, 0]])
    h = torch.stack([model.tokens.start, *model.tokens.weight[x[0, :3]]])[None]
    first, second = (layer.module for layer in list(model.head.children())[1::2])
    skips = model.stack(h).clamp(min=0)
    logits = (skips @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    torch.testing.assert_close(model.conditionals(x), logits, rtol=1e-12, atol=1e-12)
    expected = logits.log_softmax(-1)[0, torch.arange(4), x[0]].sum()
    torch.testing.assert_close(model.log_prob(x)[0], expected)


def test_zero_logits_are_8_bits_a_sample() -> None:
    model = unsup.create("wavenet", sequence(10, support=MU_LAW), preset="tiny").double()
    torch.nn.init.zeros_(model.head.get_submodule("3").module.weight)
    torch.nn.init.zeros_(model.head.get_submodule("3").module.bias)
    x = torch.randint(256, (3, 10), generator=generator())
    torch.testing.assert_close(-model.log_prob(x) / math.log(2), torch.full((3,), 80.0, dtype=torch.float64))


def test_condition_enters_every_gate_and_nothing_else() -> None:
    plain, told = random_model(sequence(6)), random_model(sequence(6), given=labels(3))
    extra = set(dict(told.named_parameters())) - set(dict(plain.named_parameters()))
    assert extra == {f"stack.gates.{i}.condition.weight" for i in range(6)}
    x = torch.randint(5, (4, 6), generator=generator())
    told.loss(Batch(x, given=torch.tensor([0, 1, 2, 0])))["loss"].sum().backward()
    for name in extra:
        assert bool((told.get_parameter(name).grad.abs().sum(0) > 0).all())
    with torch.no_grad():
        for name, p in told.named_parameters():
            p.zero_() if name in extra else p.copy_(plain.get_parameter(name))
        torch.testing.assert_close(told.log_prob(x, given=torch.tensor(1)), plain.log_prob(x), rtol=1e-12, atol=0)


@torch.no_grad()
def test_samples_longer_and_shorter_than_the_event() -> None:
    for shape in ((12,), (6, 2)):
        support = Support("ordinal", 5, low=-2)
        model = random_model(sequence(*shape, support=support), given=labels(2))
        long = random_model(sequence(4 * shape[0], *shape[1:], support=support), given=labels(2))
        long.load_state_dict(model.state_dict())
        told = {"given": torch.tensor([0, 1, 0]), "temperature": 0.8, "top_k": 4}
        found = model.sample_long(3, 4 * shape[0], generator=generator(), **told)
        assert torch.equal(found, long.sample_naive(3, generator=generator(), **told))
        assert found.dtype == model.event.dtype
        assert torch.equal(found[:, : shape[0]], model.sample(3, generator=generator(), **told))
        assert torch.equal(found[:, :2], model.sample_long(3, 2, generator=generator(), **told))


@pytest.mark.parametrize(
    ("event", "words"),
    [(Event((1, 4, 4), BINARY), "whose size is fixed"), (Event((4,), BINARY), "whose size is fixed"),
     (sequence(4, support=REAL), "standardises each real entry by its position")],
)  # fmt: skip
def test_models_of_fixed_positions_do_not_sample_longer(event: Event, words: str) -> None:
    model = unsup.create("wavenet", event, preset="tiny")
    with pytest.raises(CapabilityError, match=words):
        model.sample_long(1, 9)
    transformer = unsup.create("transformer", sequence(4), preset="tiny")
    with pytest.raises(CapabilityError, match="depends on the positions of entries"):
        transformer.sample_long(1, 9)
    with pytest.raises(InputError, match="length=0"):
        unsup.create("wavenet", sequence(4), preset="tiny").sample_long(1, 0)


@torch.no_grad()
def test_completion_walks_the_queues_through_what_is_known() -> None:
    """As if drawn naively, with the same generator, from the entries that are known."""
    model = random_model(sequence(24))
    x = torch.randint(5, (3, 24), generator=generator(1))
    known = torch.arange(24) < torch.tensor([0, 9, 17])[:, None]
    for options in ({}, {"top_k": 2}, {"top_p": 0.7, "temperature": 1.3}):
        found = model.complete(x, known, generator=generator(2), **options)
        naive, model._steps = model._steps, model._naive
        assert torch.equal(model.complete(x, known, generator=generator(2), **options), found)
        model._steps = naive
        assert torch.equal(found[known], x[known])


def test_outputs_by_the_kind_of_entries() -> None:
    many = unsup.create("wavenet", sequence(8, support=Support("ordinal", 65_536, -32_768)), preset="tiny")
    assert isinstance(many.observation, MixtureOfLogistics)
    assert bool(many.log_prob(torch.tensor([[-32_768] * 4 + [32_767] * 4])).isfinite())
    real = unsup.create("wavenet", sequence(8, support=REAL), preset="tiny")
    assert isinstance(real.tokens, Frames)
    assert unsup.create("wavenet", sequence(8, support=BINARY), preset="tiny").observation.outputs_each == 1
    with pytest.raises(InputError, match="takes entries of one kind only"):
        unsup.create("wavenet", Event((2,), (BINARY, REAL)))


@torch.no_grad()
def test_where_an_entry_of_an_image_is_matters() -> None:
    """Without its coordinates, the network sees the same at all pixels of an empty image beyond its reach."""
    model = random_model(Event((1, 6, 6), BINARY), layers=1, stacks=1)
    assert model.coordinates is not None
    x = torch.zeros(1, 1, 6, 6, dtype=torch.uint8)
    assert len(model.conditionals(x).unique()) == 36
    model.coordinates.map.weight.zero_()
    assert len(model.conditionals(x)[:, 2:].unique()) == 1


def ar1(n: int, length: int, seed: int, *, rho: float, cell: float) -> Tensor:
    """A stationary x_t = ρ x_{t−1} + ε, ε ~ N(0, 1), in cells of one width, as 64 levels."""
    noise = torch.randn(n, length, generator=generator(seed), dtype=torch.float64)
    x = [noise[:, 0] / math.sqrt(1 - rho**2)]
    for t in range(1, length):
        x.append(rho * x[-1] + noise[:, t])
    return ((torch.stack(x, 1) / cell).floor() + 32).clamp(0, 63).long()


def test_nll_tends_to_the_entropy_rate_of_a_quantised_gaussian_process() -> None:
    """In fine cells the entropy rate is h(ε) − ln(cell); without the past it is that of N(0, 1 / (1 − ρ²))."""
    rho, cell = 0.9, 0.25
    rate = 0.5 * math.log(2 * math.pi * math.e) - math.log(cell)
    alone = rate - 0.5 * math.log(1 - rho**2)
    torch.manual_seed(0)
    model = unsup.create("wavenet", sequence(48, support=Support("ordinal", 64)), preset="tiny")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    steps = 120
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for step in range(steps):
        loss = model.loss(Batch(ar1(32, 48, step, rho=rho, cell=cell)))["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = -model.log_conditionals(ar1(1000, 48, steps, rho=rho, cell=cell))[:, 8:].mean()
    assert -0.02 < float(found) - rate < 0.1 * (alone - rate)
