"""rnn against its equations in a loop, sources whose entropy is known, examples of different lengths."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from entry_models import generator
from entry_models import random_model as random_entry_model
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.model import Model

TEXT = Event((6,), Support("nominal", 4), "sequence")
ROLLS = Event((5, 3), BINARY, "sequence", open=True)
random_model = partial(random_entry_model, "rnn", deviation=0.7, width=5, layers=2)
IMAGE = Event((2, 2, 3), Support("ordinal", 4, low=1))


def lstm_by_loops(model: Model, inputs: Tensor) -> Tensor:
    """Outputs of the head for one example ``(L, I)``, site by site."""
    for layer in model.stack:
        weight, state, bias, state_bias = layer.net.all_weights[0]
        h = c = torch.zeros(layer.width).double()
        found = []
        for x in inputs:
            i, f, g, o = (weight @ x + bias + state @ h + state_bias).view(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            found.append(h)
        inputs = torch.stack(found)
    return inputs @ model.head.module.weight.T + model.head.module.bias


@torch.no_grad()
def test_symbols_are_scored_by_the_equations() -> None:
    model = random_model(TEXT)
    x = torch.tensor([2, 0, 3, 3, 1, 0])
    inputs = torch.cat([model.inputs.start[None], one_hot(x[:-1], 4).double()])
    log_p = lstm_by_loops(model, inputs).log_softmax(1)[range(6), x]
    torch.testing.assert_close(model.log_conditionals(x[None])[0], log_p, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_images_are_scored_by_the_equations_with_coordinates_and_a_condition() -> None:
    model = random_model(IMAGE, coordinates=True, given=labels(3))
    x = torch.randint(1, 5, IMAGE.shape, generator=generator(1))
    line = x.permute(1, 2, 0).flatten() - 1
    inputs = torch.cat([model.inputs.start[None], one_hot(line[:-1], 4).double()])
    places = [[2 * k - 1, 2 * r - 1, c - 1] for r, c, k in itertools.product(range(2), range(3), range(2))]
    told = one_hot(torch.tensor(2), 3).double().expand(12, 3)
    inputs = torch.cat([inputs, torch.tensor(places).double(), told], 1)
    log_p = lstm_by_loops(model, inputs).log_softmax(1)[range(12), line].sum()
    torch.testing.assert_close(model.log_prob(x[None], given=torch.tensor(2))[0], log_p, rtol=1e-12, atol=0)


@torch.no_grad()
def test_frames_are_independent_given_earlier_frames() -> None:
    """Nats a step of a piano roll: the lengths count, and what is beyond them does not."""
    model = random_model(ROLLS)
    x = torch.randint(2, (4, *ROLLS.shape), generator=generator(2))
    lengths = torch.tensor([5, 3, 1, 0])
    found = model.log_prob(x, lengths=lengths)
    for example, length, total in zip(x.double(), lengths.tolist(), found, strict=True):
        inputs = torch.cat([model.inputs.start[None], 2 * example[:-1] - 1])
        logits = lstm_by_loops(model, inputs)
        each = example * logsigmoid(logits) + (1 - example) * logsigmoid(-logits)
        torch.testing.assert_close(total, each[:length].sum(), rtol=1e-12, atol=1e-12)
    other = torch.where(ROLLS.padding(lengths)[..., None], 1 - x, x)
    assert torch.equal(model.log_prob(other, lengths=lengths), found)
    for length in (0, 1, 2):  # p(x | length) sums to one
        every = torch.zeros(2 ** (3 * length), *ROLLS.shape)
        every[:, :length] = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3 * length))).view(
            len(every), length, 3
        )
        mass = model.log_prob(every, lengths=torch.full((len(every),), length)).exp().sum()
        assert abs(mass - 1) < 1e-10


@pytest.mark.parametrize("frames", [True, False])
def test_a_frame_is_a_declared_blind_spot(frames: bool) -> None:
    model = random_model(Event((3, 2), BINARY, "sequence"), frames=frames)
    spot = torch.zeros(6, 6, dtype=torch.bool)
    if frames:
        spot[[1, 3, 5], [0, 2, 4]] = True
    assert torch.equal(model.blind_spot(), spot)
    x = torch.rand(1, 3, 2, generator=generator(), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(model.conditionals, x).view(6, 6)
    earlier = torch.ones(6, 6).tril(-1).bool()
    assert torch.equal(jacobian != 0, earlier & ~spot)


@torch.no_grad()
def test_texts_of_all_lengths_have_mass_one() -> None:
    event = Event((4,), Support("nominal", 3), "sequence", open=True)
    model = random_model(event)
    total = 0.0
    for length in range(5):
        x = torch.zeros(3**length, 4, dtype=torch.int64)
        x[:, :length] = torch.tensor(list(itertools.product(range(3), repeat=length))).view(len(x), length)
        total += float(model.log_prob(x, lengths=torch.full((len(x),), length)).exp().sum())
    assert abs(total - 1) < 1e-10
    drawn, lengths = model.sample_with_lengths(2000, generator=generator())
    probability = [
        float(model.log_prob(torch.zeros(1, 4, dtype=torch.int64), lengths=torch.tensor([0])).exp()),
        float(sum(model.log_prob(torch.tensor([[s, 0, 0, 0]]), lengths=torch.tensor([1])).exp() for s in range(3))),
    ]
    for length, p in enumerate(probability):
        share = float((lengths == length).double().mean())
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 2000)
    assert event.contains(drawn, lengths).all()


def sampled_chain(transition: Tensor, n: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Sequences of a stationary Markov chain, and their log-probabilities."""
    values, vectors = torch.linalg.eig(transition.T)
    stationary = vectors[:, (values.real - 1).abs().argmin()].real
    stationary = stationary / stationary.sum()
    noise = torch.rand(n, length, 1, generator=generator(seed), dtype=torch.float64)
    x = (stationary.cumsum(0) < noise[:, 0]).sum(1)
    states, log_p = [x], stationary.log()[x]
    for t in range(1, length):
        following = (transition[x].cumsum(1) < noise[:, t]).sum(1).clamp(max=len(transition) - 1)
        log_p = log_p + transition.log()[x, following]
        x = following
        states.append(x)
    return torch.stack(states, 1), log_p


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    "transition",
    [[[0.5, 0.3, 0.2]] * 3, [[0.9, 0.1], [0.25, 0.75]]],
    ids=["independent", "markov"],
)
def test_reaches_the_entropy_rate_of_a_source(transition: list[list[float]], cell: str) -> None:
    """The best predictor of independent symbols is their frequencies; that of a Markov chain its transitions."""
    chain = torch.tensor(transition, dtype=torch.float64)
    length, symbols = 24, len(chain)
    support = Support("nominal", symbols) if symbols > 2 else BINARY
    torch.manual_seed(0)
    model = unsup.create("rnn", Event((length,), support, "sequence"), cell=cell, width=12, layers=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    x, _ = sampled_chain(chain, 64 * 120, length, 1)
    for batch in x.split(64):
        optimizer.zero_grad()
        model.loss(Batch(batch))["loss"].mean().backward()
        optimizer.step()
    held_out, log_p = sampled_chain(chain, 1000, length, 2)
    with torch.no_grad():
        excess = (log_p - model.eval().log_prob(held_out)).mean() / length  # nats a symbol above the source's own
    assert excess < 0.01
    if symbols == 2:
        frequencies = torch.tensor([5 / 7, 2 / 7]).log()[held_out].sum(1)
        assert (log_p - frequencies).mean() / length > 0.1  # counts alone are far from it


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("event", "options"),
    [
        (TEXT, {}),
        (Event((6,), Support("nominal", 9), "sequence"), {}),  # embedded: more symbols than cells
        (IMAGE, {"coordinates": True, "chunk": 5, "dropout": 0.5}),
        (Event((4, 3), Support("nominal", 3), "sequence"), {"given": labels(2)}),
        (Event((4, 3), BINARY, "sequence"), {"frames": False}),
        (Event((5,), BINARY), {"layers": 1}),
    ],
    ids=str,
)
def test_cached_is_naive_also_in_the_middle(event: Event, options: dict[str, Any], cell: str) -> None:
    model = random_model(event, cell=cell, **options)
    told = {"given": torch.tensor(1)} if model.classes else {}
    for knobs in ({}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.7}):
        fast = model.sample(8, generator=generator(1), **knobs, **told)
        slow = model.sample_naive(8, generator=generator(1), **knobs, **told)
        assert torch.equal(fast, slow), knobs
    x = fast.roll(1, 0)
    known = (model.orders[0] < event.dims // 2).view(event.shape).expand_as(x)
    drawn = model.complete(x, known, generator=generator(2), top_k=2, **told)
    assert torch.equal(drawn[known], x[known])
    with torch.no_grad():
        cached = model._steps(8, model._context(model.condition_or_none(told.get("given"), 8)))
        line = model._targets(drawn).long()
        for site in range(event.dims):
            given = model.conditionals(drawn, **told)[:, model.order.entries[site]]
            torch.testing.assert_close(cached.outputs(site), given, rtol=1e-11, atol=1e-12)
            cached.put(site, line[:, site])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_samples_longer_than_the_event(cell: str) -> None:
    """A walk beyond the event is that of the same network on a longer event."""
    for event in (TEXT, Event((3, 2), BINARY, "sequence")):
        model = random_model(event, cell=cell)
        length = 2 * event.shape[0] + 1
        longer = random_model(Event((length, *event.shape[1:]), event.support, "sequence"), cell=cell)
        drawn = model.sample_long(5, length, generator=generator(4))
        assert torch.equal(drawn, longer.sample(5, generator=generator(4)))
    with pytest.raises(CapabilityError, match="coordinates"):
        random_model(TEXT, coordinates=True).sample_long(1, 9)


def test_real_completions_keep_what_is_known_and_follow_it() -> None:
    event = Event((3,), REAL, "sequence")
    model = unsup.create("rnn", event, width=5, layers=1, components=2).double()
    data = 100 + 10 * torch.randn(200, 3, generator=generator()).cumsum(1).double()
    model.prepare(Batch(data), generator=generator())
    x, known = data[:50], torch.tensor([True, True, False]).expand(50, 3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator(1), dtype=p.dtype))
        drawn = model.eval().complete(x, known, generator=generator(3)).double()
        assert torch.allclose(drawn[:, :2], x[:, :2].float().double())
        cached = model._steps(50, model._context(None))
        for site, y in enumerate(model.observation.front(x)[0].T):
            torch.testing.assert_close(cached.outputs(site), model.conditionals(x)[:, site], rtol=1e-10, atol=1e-10)
            cached.put(site, y)


def test_a_head_of_zeros_is_uniform() -> None:
    model = random_model(Event((20,), Support("nominal", 50), "sequence"))
    with torch.no_grad():
        model.head.module.weight.zero_()
        model.head.module.bias.zero_()
    x = torch.randint(50, (3, 20), generator=generator())
    assert torch.allclose(-model.log_prob(x), torch.full((3,), 20 * math.log(50), dtype=torch.float64))


def test_options_act_where_they_should() -> None:
    x = torch.randint(4, (16, 6), generator=generator())
    batch = Batch(x)

    def gradient(seed: int, **options: Any) -> tuple[Tensor, Tensor]:
        model = random_model(TEXT, **options).train()
        loss = model.loss(batch, generator=generator(seed))["loss"].mean()
        loss.backward()
        return loss.detach(), model.stack[0].net.weight_hh_l0.grad

    plain, chunked = gradient(0), gradient(0, chunk=2)
    assert torch.allclose(plain[0], chunked[0], rtol=1e-13, atol=0)
    assert not torch.allclose(plain[1], chunked[1])
    for dropout in ({"dropout": 0.5}, {"weight_dropout": 0.5}):
        dropped = [gradient(seed, **dropout)[0] for seed in (0, 0, 1)]
        assert dropped[0] == dropped[1] != dropped[2] != plain[0]
    same = random_model(TEXT, dropout=0.5).log_prob(x)
    assert torch.equal(same, random_model(TEXT).log_prob(x))


def test_paper_preset_has_the_papers_size() -> None:
    """4.3 million weights on 49 characters; the paper's cells have 3 peepholes each besides, and one bias per gate."""
    model = unsup.create("rnn", Event((10,), Support("nominal", 49), "sequence"), preset="paper")
    weights = 4 * 1000 * (49 + 1000) + 49 * 1000
    biases = 2 * 4 * 1000 + 49
    assert model.parameter_count == weights + biases + 49  # and what stands for the symbol before the first
    assert round(model.parameter_count / 1e6, 1) == 4.3


def test_refusals_say_why() -> None:
    with pytest.raises(InputError, match="entries of one kind only"):
        unsup.create("rnn", Event((2,), (BINARY, REAL)))
    with pytest.raises(InputError, match="cell"):
        unsup.create("rnn", TEXT, cell="elman")


@pytest.mark.parametrize("lengths", [[1, 2], [-1, 2, 3], [1, 2, 5], [1.0, 2.0, 3.0], [[1], [2], [3]]])
def test_wrong_lengths_are_refused(lengths):
    model = unsup.create("rnn", Event((4,), Support("nominal", 3), "sequence", open=True), preset="tiny")
    for call in (model.log_prob, model.log_conditionals):
        with pytest.raises(InputError, match="expected 3 integers from 0 to 4"):
            call(torch.zeros(3, 4, dtype=torch.int64), lengths=torch.tensor(lengths))


def test_lengths_may_be_a_list_and_are_never_ignored():
    model = unsup.create("rnn", Event((4,), Support("nominal", 3), "sequence", open=True), preset="tiny")
    x = torch.zeros(2, 4, dtype=torch.int64)
    assert (model.log_prob(x, lengths=[1, 3]) == model.log_prob(x, lengths=torch.tensor([1, 3]))).all()
    for name in ("made", "fvsbn"):
        other = unsup.create(name, Event((4,), Support("nominal", 3), "sequence"), preset="tiny")
        with pytest.raises(CapabilityError, match="remove lengths="):
            other.log_prob(x, lengths=torch.tensor([1, 3]))
