"""Hidden Markov models against all paths, one after the other, and against hmmlearn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from unsup import Event, Support, create
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL
from unsup.core.model import CodesEntries
from unsup.families.classical.hmm import HiddenMarkovModel
from unsup.nn.emissions import MixedGaussians
from unsup.prob import hmm

K, T = 3, 6
WORDS = Event((T,), Support("nominal", 4), "sequence")
TEXT = Event((3,), Support("nominal", 3), "sequence", open=True)
ROLL = Event((5, 4), BINARY, "sequence", open=True)
SERIES = Event((T, 2), REAL, "sequence")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(steps: int, batch: int, states: int, scale: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """log π, log A, log b."""
    g = seeded(seed)

    def normal(*shape: int) -> Tensor:
        return scale * torch.randn(shape, generator=g, dtype=torch.float64)

    return normal(states).log_softmax(0), normal(states, states).log_softmax(1), normal(steps, batch, states)


def generic(event: Event, seed: int = 0, **options: object) -> HiddenMarkovModel:
    model = create("hmm", event, seed=seed, **{"states": K, **options})
    assert isinstance(model, HiddenMarkovModel)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded(seed), dtype=p.dtype))
    return model


def paths(log_initial: Tensor, log_transition: Tensor, log_b: Tensor) -> tuple[Tensor, Tensor]:
    """All K^T paths ``(P, T)``, and log p(x, z) of each ``(P, B)``."""
    steps, batch, states = log_b.shape
    every = torch.tensor(list(itertools.product(range(states), repeat=steps)))
    joint = log_initial[every[:, 0]][:, None].expand(-1, batch).clone()
    for t in range(steps):
        joint += log_b[t].T[every[:, t]]
        if t:
            joint += log_transition[every[:, t - 1], every[:, t]][:, None]
    return every, joint


# --- recursions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", [False, True])
def test_likelihood_posteriors_and_counts_are_those_of_all_paths(scan: bool) -> None:
    log_initial, log_transition, log_b = chain(T, 2, K)
    every, joint = paths(log_initial, log_transition, log_b)
    posterior = joint.softmax(0)
    found = torch.zeros_like(log_b)

    def take(first: int, last: int, own: Tensor) -> None:
        found[first:last] = own

    weight = torch.tensor([1.0, 3.0], dtype=torch.float64)
    sums = hmm.expect(log_initial, log_transition, lambda i, j: log_b[i:j], T, 2, take, weight=weight, scan=scan)
    torch.testing.assert_close(sums.log_prob, joint.logsumexp(0), atol=1e-12, rtol=0)
    for t, k in itertools.product(range(T), range(K)):
        expected = posterior[every[:, t] == k].sum(0) * weight
        torch.testing.assert_close(found[t, :, k], expected, atol=1e-12, rtol=0)
    for i, j in itertools.product(range(K), range(K)):
        pairs = ((every[:, :-1] == i) & (every[:, 1:] == j)).sum(1).double()
        assert float(sums.transitions[i, j]) == pytest.approx(float(pairs @ posterior @ weight), abs=1e-12)
    torch.testing.assert_close(sums.initial, found[0].sum(0))


def test_best_path_is_that_of_all_paths() -> None:
    for seed in range(20):
        log_initial, log_transition, log_b = chain(T, 3, K, scale=2.0, seed=seed)
        every, joint = paths(log_initial, log_transition, log_b)
        path, reached = hmm.best_path(log_initial, log_transition, log_b)
        torch.testing.assert_close(reached, joint.max(0).values, atol=1e-12, rtol=0)
        assert torch.equal(path.T, every[joint.argmax(0)])


def test_paths_are_drawn_from_the_posterior() -> None:
    log_initial, log_transition, log_b = chain(4, 1, 2)
    every, joint = paths(log_initial, log_transition, log_b)
    filtered, _ = hmm.filtered_and_terms(log_initial, log_transition, log_b)
    n = 40_000
    drawn = hmm.draw_path(filtered.expand(-1, n, -1), log_transition, seeded())
    counts = (drawn.T @ torch.tensor([8, 4, 2, 1])).bincount(minlength=16).double()
    expected = n * joint.softmax(0)[:, 0]
    assert float(((counts - expected).square() / expected).sum()) < 45  # χ² of 15 degrees: p = 8e-5
    assert torch.equal(every[3], torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("steps", [1, 5, 32, 33, 64, 100, 256, 333])
@pytest.mark.parametrize("wide", [False, True])
def test_scan_is_the_sequential_pass(steps: int, wide: bool) -> None:
    log_initial, log_transition, log_b = chain(steps, 3, 4, scale=8.0)
    lengths = torch.tensor([steps, steps // 2, 0])
    there = torch.arange(steps)[:, None] < lengths
    masked = torch.where(there[:, :, None], log_b, 0.0)
    for own, mask in ((log_b, None), (masked, there)):
        slow, fast = (
            hmm.Trellis(own, hmm.positive(log_transition), mask, scan=scan, wide=scan and wide)
            for scan in (False, True)
        )
        start, end = log_initial.exp().expand(3, -1), torch.ones(3, 4, dtype=torch.float64)
        for one, other in zip(slow.forward(start), fast.forward(start), strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(slow.backward(end), fast.backward(end), atol=1e-10, rtol=1e-10)


def test_expected_counts_of_weighted_sequences_are_those_of_the_sequential_pass() -> None:
    log_initial, log_transition, log_b = chain(150, 3, 4, scale=5.0)
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    for lengths in (None, torch.tensor([150, 70, 1])):
        found = []
        for scan in (False, True):
            parts: list[Tensor] = []
            counts = hmm.expect(
                log_initial,
                log_transition,
                lambda i, j: log_b[i:j],
                150,
                3,
                lambda first, last, posterior, parts=parts: parts.append(posterior),  # type: ignore[misc]
                lengths=lengths,
                weight=weight,
                scan=scan,
            )
            found.append((counts.initial, counts.transitions, torch.cat(parts)))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
        ends = torch.tensor([150, 150, 150]) if lengths is None else lengths
        assert float(found[1][1].sum()) == pytest.approx(float(weight @ (ends - 1).double()), rel=1e-12)


@pytest.mark.parametrize("scan", [False, True])
def test_gradient_is_that_of_the_recursion_in_log_space(scan: bool) -> None:
    leaves = [t.requires_grad_() for t in chain(40, 2, K, scale=3.0)]
    slow = hmm.log_forward(*leaves)[-1].logsumexp(-1)
    fast = hmm.log_prob(*leaves, scan=scan)
    torch.testing.assert_close(slow, fast, atol=1e-10, rtol=0)
    weight = torch.tensor([1.0, -2.0], dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad(slow @ weight, leaves), torch.autograd.grad(fast @ weight, leaves), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
    both = hmm.log_forward(*leaves) + hmm.log_backward(*leaves[1:])
    torch.testing.assert_close(both.logsumexp(-1), slow.expand(40, -1), atol=1e-10, rtol=0)


@pytest.mark.parametrize("scan", [False, True])
def test_a_long_sequence_does_not_underflow(scan: bool) -> None:
    steps = 20_000
    log_initial, log_transition, log_b = chain(steps, 1, 2, scale=30.0)
    score = log_initial + log_b[0]
    for own in log_b[1:]:
        score = torch.logsumexp(score.unsqueeze(-1) + log_transition, -2) + own
    found = hmm.log_prob(log_initial, log_transition, log_b, scan=scan)
    assert float(found) == pytest.approx(float(score.logsumexp(1)), rel=1e-12)


def hostile(
    steps: int, batch: int, states: int, scale: float, lowest: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """log π, log A, log b; 40 % of π and A are ``lowest``, and b of the other states may be e^scale times as large."""
    log_initial, log_transition, log_b = chain(steps, batch, states, seed=seed)
    gone = torch.rand(states + 1, states, generator=seeded(seed)) < 0.4
    gone[0, 0], gone[1:] = False, gone[1:] & ~torch.eye(states, dtype=torch.bool)
    log_initial, log_transition = (
        torch.where(own, math.log(lowest), old).log_softmax(-1)
        for own, old in ((gone[0], log_initial), (gone[1:], log_transition))
    )
    return log_initial, log_transition, scale * log_b


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("lowest", [hmm.LOWEST, 1e-200, 1e-101, 1e-100])
@pytest.mark.parametrize("scale", [30.0, 400.0, 2000.0])
def test_no_step_underflows(scale: float, lowest: float, scan: bool) -> None:
    """What is in float64 is what sums in log-space have, however unlikely the only possible states are."""
    for seed in range(10):
        log_initial, log_transition, log_b = hostile(70, 3, 4, scale, lowest, seed)
        lengths = torch.tensor([70, 33, 40])
        for own in (None, lengths):
            found = torch.zeros_like(log_b)

            def take(first: int, last: int, posterior: Tensor, found: Tensor = found) -> None:
                found[first:last] = posterior

            def emissions(first: int, last: int, log_b: Tensor = log_b) -> Tensor:
                return log_b[first:last]

            sums = hmm.expect(log_initial, log_transition, emissions, 70, 3, take, lengths=own, scan=scan)
            initial, pairs = torch.zeros(4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
            for n, length in enumerate([70, 70, 70] if own is None else own.tolist()):
                each = log_b[:length, n : n + 1]
                forward, backward = (
                    hmm.log_forward(log_initial, log_transition, each),
                    hmm.log_backward(log_transition, each),
                )
                log_p = forward[-1].logsumexp(-1)
                tolerance = 1e-13 * float(each.abs().sum())
                torch.testing.assert_close(sums.log_prob[n : n + 1], log_p, atol=tolerance, rtol=0)
                posterior = (forward + backward - log_p).exp()
                torch.testing.assert_close(found[:length, n], posterior[:, 0], atol=1e-8, rtol=0)
                assert not found[length:, n].any()
                ahead = (each + backward)[1:].unsqueeze(-2)
                pairs += (forward[:-1].unsqueeze(-1) + log_transition + ahead - log_p).exp().sum((0, 1))
                initial += posterior[0, 0]
            torch.testing.assert_close(sums.initial, initial, atol=1e-8, rtol=0)
            torch.testing.assert_close(sums.transitions, pairs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("at", [0, 31, 40, 63])
def test_every_probability_of_a_prediction_is_precise(at: int, scan: bool) -> None:
    """One step is unlikely in the state that cannot be left, by 0 to 2,000 nats, one sequence each."""
    nats = torch.arange(0, 2000, 5, dtype=torch.float64)
    transition = torch.eye(2, dtype=torch.float64).clamp(min=hmm.LOWEST)
    log_initial, log_transition = transition[0].log(), transition.log()
    log_b = torch.zeros(64, len(nats), 2, dtype=torch.float64)
    log_b[at, :, 0] = -nats
    trellis = hmm.Trellis(log_b, transition, scan=scan)
    filtered, terms, _ = trellis.forward(transition[0].expand(len(nats), -1))
    d = trellis.backward(transition[0].expand(len(nats), -1))

    def ahead(x: Tensor) -> Tensor:
        return (x.unsqueeze(-1) + log_transition).logsumexp(-2).log_softmax(-1)

    forward = hmm.log_forward(log_initial, log_transition, log_b)
    torch.testing.assert_close(terms.sum(0), forward[-1].logsumexp(-1), atol=1e-10, rtol=0)
    torch.testing.assert_close((filtered @ transition).log().log_softmax(-1), ahead(forward), atol=1e-10, rtol=0)
    # The chain is the same backwards in time.
    backward = hmm.log_forward(log_initial, log_transition, torch.cat([torch.zeros_like(log_b[:1]), log_b.flip(0)]))
    torch.testing.assert_close((d @ transition).log().log_softmax(-1), ahead(backward[1:].flip(0)), atol=1e-10, rtol=0)


def test_an_impossible_first_state_is_one_of_the_lowest_probability() -> None:
    _, log_transition, log_b = chain(5, 3, 2)
    log_b[0] += torch.tensor([[0.0, 0.0], [0.0, 600.0], [0.0, 2000.0]])
    log_initial = torch.tensor([0.0, -math.inf], dtype=torch.float64)
    forward = hmm.log_forward(hmm.floored(log_initial), log_transition, log_b)
    found = hmm.log_prob(log_initial, log_transition, log_b)
    torch.testing.assert_close(found, forward[-1].logsumexp(-1), atol=1e-10, rtol=0)
    path, reached = hmm.best_path(log_initial, log_transition, log_b)
    assert path[0].tolist() == [0, 0, 1]
    assert bool((reached <= found).all())


def test_chunks_of_a_long_sequence_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    leaves, lengths = chain(70, 3, 2), torch.tensor([70, 40, 33])

    def counts() -> list[Tensor]:
        own = [t.clone().requires_grad_() for t in leaves]
        return list(torch.autograd.grad(hmm.log_prob(*own, lengths=lengths).sum(), own))

    whole = counts()
    monkeypatch.setattr(hmm, "_CHUNK", 32 * 6)
    assert hmm.chunk_length(3, 2) == 32
    for one, other in zip(whole, counts(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scan", [False, True, None])
@pytest.mark.parametrize("states", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 5, 32, 40, 64, 150])
def test_one_sequence_has_the_gradient_of_a_batch_and_is_not_changed(
    steps: int, states: int, scan: bool | None
) -> None:
    log_initial, log_transition, log_b = chain(steps, 1, states, scale=3.0)
    before = log_b.clone()
    leaves = [t.requires_grad_() for t in (log_initial, log_transition, log_b)]

    def gradients(log_p: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(log_p.sum(), leaves, materialize_grads=True)

    slow = hmm.log_forward(*leaves)[-1].logsumexp(-1)
    fast = hmm.log_prob(*leaves, scan=scan)
    found = gradients(fast)
    twice = hmm.log_prob(log_initial, log_transition, log_b.expand(-1, 2, -1), scan=scan) / 2
    assert torch.equal(log_b, before)
    torch.testing.assert_close(fast, slow, atol=1e-10, rtol=0)
    torch.testing.assert_close(hmm.log_prob(*leaves, scan=scan), fast, atol=0, rtol=0)
    for one, other, both in zip(found, gradients(slow), gradients(twice), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(one, both, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("batch", "states"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_recursions_leave_their_inputs_as_they_are(batch: int, states: int) -> None:
    leaves = chain(200, batch, states)
    before = [t.clone() for t in leaves]
    for scan in (False, True):
        for lengths in (None, torch.arange(batch) + 150):
            hmm.expect(
                *leaves[:2], lambda i, j: leaves[2][i:j], 200, batch, lambda *_: None, lengths=lengths, scan=scan
            )
            hmm.filtered_and_terms(*leaves, lengths=lengths)
            hmm.best_path(*leaves, lengths=lengths)
    assert all(torch.equal(own, old) for own, old in zip(leaves, before, strict=True))


# --- the model --------------------------------------------------------------------------------------------------------


def test_masses_of_all_strings_sum_to_one() -> None:
    model = generic(WORDS)
    x = torch.tensor(list(itertools.product(range(4), repeat=T)))
    assert float(model.log_prob(x).detach().exp().sum()) == pytest.approx(1, abs=1e-10)


def test_masses_over_all_lengths_sum_to_one() -> None:
    model = generic(TEXT)
    total = 0.0
    for length in range(4):
        x = torch.tensor(list(itertools.product(range(3), repeat=length)), dtype=torch.int64).view(3**length, length)
        padded = torch.cat([x, torch.full((len(x), 3 - length), 2)], 1)
        total += float(model.log_prob(padded, lengths=torch.full((len(x),), length)).detach().exp().sum())
    assert total == pytest.approx(1, abs=1e-10)


def test_one_state_is_independent_steps() -> None:
    model = generic(WORDS, states=1)
    x = torch.randint(4, (10, T), generator=seeded())
    log_p = model.emissions.log_prob(x.view(-1, 1)).view(10, T).sum(1)
    torch.testing.assert_close(model.log_prob(x), log_p)


def test_one_step_is_a_mixture() -> None:
    model = generic(Event((1, 2), REAL, "sequence"), covariance="full", components=2)
    x = torch.randn(10, 1, 2, generator=seeded())
    each = model.emissions.log_prob(model.emissions.frames(x[:, 0]))
    torch.testing.assert_close(model.log_prob(x), (each + model.log_initial).logsumexp(1))


def test_padding_is_not_counted_and_lengths_are_those_of_shorter_sequences() -> None:
    model = generic(ROLL)
    x = torch.randint(2, (3, 5, 4), generator=seeded(), dtype=torch.uint8)
    shorter = HiddenMarkovModel(Event((2, 4), BINARY, "sequence"), **model.config)
    shorter.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.log_prob(x, lengths=torch.tensor([2, 2, 2])), shorter.log_prob(x[:, :2]))
    log_p = model.log_prob(x, lengths=torch.tensor([0, 2, 5]))
    torch.testing.assert_close(log_p[1:], torch.stack([shorter.log_prob(x[1:2, :2])[0], model.log_prob(x[2:])[0]]))
    assert float(log_p[0].detach()) == 0


SHORT = Event((4, 2), Support("nominal", 3), "sequence", missing=True)


def test_every_marginal_is_a_sum_over_the_enumerated_strings() -> None:
    """All subsets of eight entries, each with the values of one string."""
    model = generic(SHORT)
    every = torch.tensor(list(itertools.product(range(3), repeat=8)), dtype=torch.float32)
    p = model.log_prob(every.view(-1, 4, 2)).detach().exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-10)
    one = every[4321]
    subsets = torch.tensor(list(itertools.product((False, True), repeat=8)))
    found = model.log_prob(one.where(subsets, math.nan).view(-1, 4, 2)).detach().exp()
    agrees = (every == one)[None] | ~subsets[:, None]  # (256, 3^8, 8)
    torch.testing.assert_close(found, agrees.all(2).double() @ p, atol=1e-12, rtol=1e-10)


def test_posteriors_and_the_best_path_with_gaps_are_those_of_all_paths() -> None:
    model = generic(SHORT)
    x = torch.randint(3, (5, 4, 2), generator=seeded()).float()
    x[torch.rand(x.shape, generator=seeded(1)) < 0.4] = math.nan
    table = model.emissions.log_table().detach()  # (K, C, levels)
    log_b = torch.zeros(4, 5, K, dtype=torch.float64)
    for n, t, c in itertools.product(range(5), range(4), range(2)):
        if not x[n, t, c].isnan():
            log_b[t, n] += table[:, c, int(x[n, t, c])]
    every, joint = paths(model.log_initial.detach(), model.log_transition.detach(), log_b)
    torch.testing.assert_close(model.log_prob(x).detach(), joint.logsumexp(0), atol=1e-10, rtol=0)
    assert torch.equal(model.states(x), every[joint.argmax(0)])
    posterior, found = joint.softmax(0), model.posteriors(x)
    for t, k in itertools.product(range(4), range(K)):
        torch.testing.assert_close(found[:, t, k], posterior[every[:, t] == k].sum(0), atol=1e-10, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_posteriors_and_the_best_path_know_that_a_sequence_has_ended(seed: int) -> None:
    """The end is a step of all paths, except of a sequence of the greatest length."""
    event = Event((5,), Support("nominal", 3), "sequence", open=True)
    model = generic(event, seed)
    with torch.no_grad():
        model.emissions.logits[0, 0, -1] -= 4.0  # one state hardly ever ends
        model.emissions.logits[1, 0, -1] += 2.0
    end, table = 3, model.emissions.log_table().detach()[:, 0]
    lengths = torch.tensor([0, 1, 2, 3, 4, 5, 3, 2])
    x = torch.randint(3, (8, 5), generator=seeded(seed)).to(event.dtype)
    posterior, path = model.posteriors(x, lengths=lengths), model.states(x, lengths=lengths)
    assert torch.equal(model.encode(x, lengths=lengths), posterior.flatten(1))
    for n, length in enumerate(lengths.tolist()):
        symbols = [*x[n, :length].long().tolist(), end][:5]
        log_b = torch.stack([table[:, s] for s in symbols])[:, None]
        every, joint = paths(model.log_initial.detach(), model.log_transition.detach(), log_b)
        torch.testing.assert_close(
            model.log_prob(x[n : n + 1], lengths=lengths[n : n + 1]).detach(), joint.logsumexp(0)
        )
        expected, weight = torch.zeros(5, K, dtype=torch.float64), joint.softmax(0)[:, 0]
        for t, k in itertools.product(range(length), range(K)):
            expected[t, k] = weight[every[:, t] == k].sum()
        torch.testing.assert_close(posterior[n], expected, atol=1e-12, rtol=0)
        best = every[joint[:, 0].argmax(), :length].tolist()
        assert path[n].tolist() == best + [-1] * (5 - length)
        # Alone, the sequence may be the longest of its batch.
        alone = {"lengths": lengths[n : n + 1]}
        torch.testing.assert_close(model.posteriors(x[n : n + 1], **alone)[0], expected, atol=1e-12, rtol=0)
        assert torch.equal(model.states(x[n : n + 1], **alone)[0], path[n])


@pytest.mark.parametrize(
    ("event", "options"),
    [
        (WORDS, {}),
        (WORDS, {"transition_prior": 0.0, "smoothing": 0.0}),
        (TEXT, {}),
        (ROLL, {}),
        (SHORT, {}),
        (SERIES, {}),
        (SERIES, {"covariance": "full", "components": 2}),
        (Event((T, 2), REAL, "sequence", missing=True), {"components": 2}),
        (Event((T, 2), REAL, "sequence", missing=True), {"covariance": "full"}),
    ],
    ids=str,
)
def test_each_pass_raises_the_likelihood(event: Event, options: dict[str, object]) -> None:
    generator = seeded(1)
    model = generic(event, **options)
    x = (
        torch.randn(40, *event.shape, generator=generator)
        if event.is_real
        else torch.randint(event.columns[0].levels, (40, *event.shape), generator=generator).to(event.dtype)
    )
    if event.missing:
        x[torch.rand(x.shape, generator=generator) < 0.3] = math.nan
    lengths = torch.randint(event.shape[0] + 1, (40,), generator=generator) if event.open else None
    batch, last = Batch(x, lengths=lengths), -math.inf
    model.prepare(batch, generator=generator)
    for _ in range(60):
        sums = model.statistics(batch)
        reached = float(sums["log_prob"]) + float(model.parameter_log_prior().detach())
        assert reached >= last - 1e-9 * abs(last)
        last = reached
        model.maximize(sums)


def test_gradient_of_the_likelihood_has_the_expected_counts() -> None:
    model = generic(TEXT)
    x, lengths = torch.randint(3, (20, 3), generator=seeded()), torch.randint(4, (20,), generator=seeded())
    sums = model.statistics(Batch(x, lengths=lengths))
    model.log_prob(x, lengths=lengths).sum().backward()
    # The gradient of Σ n log softmax(l) is n − (Σ n) softmax(l).
    counts = sums["transitions"]
    expected = counts - counts.sum(1, keepdim=True) * model.log_transition.exp()
    torch.testing.assert_close(model.transitions.grad, expected.detach())
    first = sums["initial"]
    torch.testing.assert_close(model.initial.grad, (first - first.sum() * model.log_initial.exp()).detach())
    levels = sums["emitted_levels"]
    expected = levels - levels.sum(2, keepdim=True) * model.emissions.logits.softmax(2)
    torch.testing.assert_close(model.emissions.logits.grad, expected.detach())


def test_gradient_of_one_series_is_that_of_finite_differences() -> None:
    model = generic(SERIES)
    x = torch.randn(1, T, 2, dtype=torch.float64, generator=seeded()).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: model.log_prob(x), (x, model.initial, model.transitions))


def test_marginals_of_one_long_sequence_are_those_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = generic(Event((200,), Support("nominal", 3), "sequence"))
    monkeypatch.setattr(hmm, "_CHUNK", 32 * 6)  # a batch of two has chunks of 32 steps, one sequence of 64
    x, known = torch.randint(3, (1, 200), generator=seeded()), torch.ones(1, 200, dtype=torch.bool)
    known[0, 10] = False
    own, both = (next(iter(model.marginals(x.expand(n, -1), known.expand(n, -1))))[2].exp() for n in (1, 2))
    torch.testing.assert_close(own.expand(2, -1), both, atol=1e-12, rtol=0)
    each = x.repeat(3, 1)
    each[:, 10] = torch.arange(3)
    torch.testing.assert_close(own[0], model.log_prob(each).detach().softmax(0), atol=1e-12, rtol=0)


def test_a_model_of_a_long_sequence_does_not_underflow() -> None:
    """20,000 steps: the parts of all entries sum to log p, and posteriors at every step to one."""
    model = generic(Event((20_000,), Support("nominal", 4), "sequence"))
    x = torch.randint(4, (1, 20_000), generator=seeded())
    log_p = float(model.log_prob(x).detach())
    assert log_p < -20_000
    assert log_p == pytest.approx(float(model.log_conditionals(x).sum()), rel=1e-10)
    torch.testing.assert_close(model.posteriors(x).sum(2), torch.ones(1, 20_000, dtype=torch.float64))
    assert int(model.states(x).min()) >= 0


def test_an_outlier_does_not_end_a_state_that_cannot_be_left() -> None:
    """The fourth step is that of the other state, by more than e^745."""
    model = generic(Event((T,), REAL, "sequence"), states=2, transition_prior=0.0)
    assert isinstance(model.emissions, MixedGaussians)
    with torch.no_grad():
        model.initial.zero_()
        model.transitions.copy_((torch.eye(2) + hmm.LOWEST).double().log())
        model.emissions.gaussians.means.copy_(torch.tensor([[0.0], [8.0]]))
        model.emissions.gaussians.log_diagonal.fill_(math.log(5.0))
    x = torch.tensor([[0.0, 0.0, 0.0, 8.0, 0.0, 0.0]])
    log_b = model.emissions.log_prob(x.double().view(T, 1)).view(T, 1, 2)
    assert float(log_b.detach()[3, 0].diff()) > 745
    every, joint = paths(model.log_initial.detach(), hmm.floored(model.log_transition.detach()), log_b.detach())
    log_p = joint.logsumexp(0)
    torch.testing.assert_close(model.log_prob(x).detach(), log_p)
    torch.testing.assert_close(model.log_conditionals(x).sum(1), log_p)
    torch.testing.assert_close(model.statistics(Batch(x))["log_prob"], log_p[0])
    posterior = joint.softmax(0)[:, 0]
    expected = torch.stack([posterior[every[:, t] == 1].sum() for t in range(T)])
    torch.testing.assert_close(model.posteriors(x)[0, :, 1], expected, atol=1e-12, rtol=0)
    assert torch.equal(model.states(x)[0], every[joint.argmax(0)[0]])
    assert torch.equal(model.states(x), model.posteriors(x).argmax(2))


def test_a_dead_state_keeps_its_row() -> None:
    model = generic(WORDS, transition_prior=0.0, smoothing=0.0)
    with torch.no_grad():
        model.initial[2] = -800.0
        model.transitions[:, 2] = -800.0
    row, symbols = model.transitions[2].clone(), model.emissions.logits[2].clone()
    model.maximize(model.statistics(Batch(torch.randint(4, (20, T), generator=seeded()))))
    assert torch.equal(model.transitions[2], row)
    assert torch.equal(model.emissions.logits[2], symbols)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_state_of_one_step_has_a_covariance() -> None:
    model = generic(SERIES, covariance="full", covariance_prior=0.01)
    x = torch.zeros(4, T, 2)
    x[0, 0] = 5.0
    model.prepare(Batch(x), generator=seeded())
    for _ in range(30):
        model.maximize(model.statistics(Batch(x)))
    assert bool(model.log_prob(x).isfinite().all())


def test_states_refuse_what_has_no_path() -> None:
    model = generic(SERIES)
    x = torch.zeros(2, T, 2)
    assert model.states(x).shape == (2, T)
    x[0, 0, 0] = math.nan
    with pytest.raises(InputError, match="outside"):
        model.states(x)
    with pytest.raises(InputError, match="no examples"):
        model.states(x[:0])
    gaps = generic(Event((T, 2), REAL, "sequence", missing=True))
    assert int(gaps.states(x).min()) >= 0
    path = generic(ROLL).states(torch.zeros(2, 5, 4, dtype=torch.uint8), lengths=torch.tensor([2, 0]))
    assert (path == -1).tolist() == [[False, False, True, True, True], [True] * 5]


def test_codes_are_posteriors_step_by_step() -> None:
    model = generic(ROLL)
    x = torch.randint(2, (3, 5, 4), generator=seeded(), dtype=torch.uint8)
    codes = model.encode(x)
    assert codes.shape == (3, 5 * K)
    torch.testing.assert_close(codes.view(3, 5, K).sum(2), torch.ones(3, 5, dtype=torch.float64))
    within = model.posteriors(x, lengths=torch.tensor([2, 5, 0]))
    assert within.sum(2).round().tolist() == [[1, 1, 0, 0, 0], [1] * 5, [0] * 5]


def test_completions_follow_the_exact_conditional() -> None:
    model = generic(TEXT)
    with torch.no_grad():
        model.emissions.logits[:, 0, -1] += 1.0  # ends are usual
    n = 20_000
    x = torch.tensor([0, 1, 0]).repeat(n, 1)
    known = torch.tensor([False, True, False]).repeat(n, 1)
    drawn, lengths = model.complete_with_lengths(x, known, generator=seeded())
    assert int(lengths.min()) == 2  # a known symbol has no end before it
    candidates = [(a, 1, b) for a in range(3) for b in range(3)] + [(a, 1, 0) for a in range(3)]
    sizes = torch.tensor([3] * 9 + [2] * 3)
    log_p = model.log_prob(torch.tensor(candidates), lengths=sizes).detach()
    expected = n * log_p.softmax(0)
    number = torch.where(lengths == 3, 3 * drawn[:, 0] + drawn[:, 2], 9 + drawn[:, 0])
    counts = number.bincount(minlength=12)
    assert float(((counts - expected).square() / expected).sum()) < 40  # χ² of 11 degrees: p = 4e-5


@pytest.mark.parametrize(
    ("event", "options"),
    [(WORDS, {}), (ROLL, {}), (SERIES, {"covariance": "full", "components": 2})],
)
def test_a_visit_has_the_conditionals(event: Event, options: dict[str, object]) -> None:
    model = generic(event, **options)
    assert isinstance(model, CodesEntries)
    x = model.sample(4, generator=seeded())
    flat, found = x.flatten(1).double(), torch.zeros(4, event.dims, dtype=torch.float64)
    width = 1e-6

    def choose(entry: int, conditional: object) -> Tensor:
        value = flat[:, entry]
        if isinstance(conditional, Tensor):
            found[:, entry] = conditional.gather(1, value.long()[:, None])[:, 0]
        else:
            edges = torch.stack([value - width / 2, value + width / 2], 1)
            found[:, entry] = conditional.log_masses(edges)[:, 0] - math.log(width)  # type: ignore[attr-defined]
        return value

    model.visit(4, choose)
    torch.testing.assert_close(found, model.log_conditionals(x), atol=1e-5 if event.is_real else 1e-10, rtol=0)
    torch.testing.assert_close(found.sum(1), model.log_prob(x), atol=1e-4 if event.is_real else 1e-10, rtol=0)


def test_gaussians_are_refused_for_symbols() -> None:
    with pytest.raises(InputError, match="Gaussians"):
        create("hmm", WORDS, components=2)


def test_em_finds_the_chain_that_made_the_data() -> None:
    event = Event((200,), REAL, "sequence")
    g = seeded(3)
    state = torch.zeros(8, 200, dtype=torch.int64)
    for t in range(1, 200):
        switch = torch.rand(8, generator=g) < 0.1
        state[:, t] = torch.where(switch, 1 - state[:, t - 1], state[:, t - 1])
    x = 4.0 * state + torch.randn(8, 200, generator=g)
    model = create("hmm", event, states=2, seed=0)
    assert isinstance(model, HiddenMarkovModel)
    model.prepare(Batch(x), generator=g)
    for _ in range(30):
        model.maximize(model.statistics(Batch(x)))
    stay = model.log_transition.exp().diagonal()
    assert bool(((stay - 0.9).abs() < 0.04).all())
    right = (model.states(x) == state).double().mean()
    assert max(float(right), 1 - float(right)) > 0.97


# --- hmmlearn ---------------------------------------------------------------------------------------------------------


def test_hmmlearn_has_the_same_gaussians() -> None:
    peer = pytest.importorskip("hmmlearn.hmm")
    event = Event((30, 2), REAL, "sequence", open=True)
    model = generic(event)
    x, lengths = torch.randn(6, 30, 2, generator=seeded()), torch.tensor([30, 1, 17, 5, 30, 12])
    other = peer.GaussianHMM(K, covariance_type="diag", init_params="", min_covar=0, covars_prior=0, covars_weight=0)
    other.startprob_, other.transmat_ = (t.exp().detach().numpy() for t in (model.log_initial, model.log_transition))
    gaussians = model.emissions.gaussians
    other.means_ = gaussians.means.detach().numpy()
    other.covars_ = (-2 * gaussians.log_diagonal).exp().detach().numpy()
    rows = [x[i, : lengths[i]].double().numpy() for i in range(6)]
    expected = torch.tensor([other.score(row) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(model.log_prob(x, lengths=lengths), expected)
    path = model.states(x, lengths=lengths)
    posterior = model.posteriors(x, lengths=lengths)
    for i, row in enumerate(rows):
        assert path[i, : len(row)].tolist() == other.predict(row).tolist()
        torch.testing.assert_close(posterior[i, : len(row)], torch.from_numpy(other.predict_proba(row)))


def test_hmmlearn_makes_the_same_passes() -> None:
    peer = pytest.importorskip("hmmlearn.hmm")
    model = generic(WORDS, transition_prior=0.0, smoothing=0.0)
    x = torch.randint(4, (50, T), generator=seeded())
    other = peer.CategoricalHMM(K, init_params="", n_iter=5, tol=-1e9, n_features=4)
    other.startprob_, other.transmat_ = (t.exp().detach().numpy() for t in (model.log_initial, model.log_transition))
    other.emissionprob_ = model.emissions.log_table()[:, 0].exp().detach().numpy()
    other.fit(x.reshape(-1, 1).numpy(), [T] * 50)
    for _ in range(5):
        model.maximize(model.statistics(Batch(x)))
    torch.testing.assert_close(model.log_transition.exp().detach(), torch.from_numpy(other.transmat_))
    torch.testing.assert_close(model.emissions.log_table()[:, 0].exp().detach(), torch.from_numpy(other.emissionprob_))


def test_hmmlearn_makes_the_same_passes_of_gaussians() -> None:
    peer = pytest.importorskip("hmmlearn.hmm")
    model = generic(SERIES, transition_prior=0.0, covariance_prior=1e-13)
    x = torch.randn(50, T, 2, generator=seeded())
    other = peer.GaussianHMM(
        K, "diag", init_params="", n_iter=5, tol=-1e9, min_covar=0.0, covars_prior=0.0, covars_weight=0.0
    )
    other.startprob_, other.transmat_ = (t.exp().detach().numpy() for t in (model.log_initial, model.log_transition))
    gaussians = model.emissions.gaussians  # of the units of the model, which are those of the data here
    other.means_ = gaussians.means.detach().numpy()
    other.covars_ = (-2 * gaussians.log_diagonal).exp().detach().numpy()
    other.fit(x.reshape(-1, 2).double().numpy(), [T] * 50)
    for _ in range(5):
        model.maximize(model.statistics(Batch(x)))
    torch.testing.assert_close(model.log_transition.exp().detach(), torch.from_numpy(other.transmat_))
    torch.testing.assert_close(gaussians.means.detach(), torch.from_numpy(other.means_))
    variances = torch.from_numpy(other.covars_).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close((-2 * gaussians.log_diagonal).exp().detach(), variances)
