"""A table with a network, logistic regressions, and NADE: closed forms, other estimators, loops and enumeration."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from entry_models import bits, frequencies_fit, generator, maximise_likelihood, shaken
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.families.autoregressive.conditional_2d import Conditional2d
from unsup.families.autoregressive.fvsbn import FVSBN
from unsup.families.autoregressive.made import MADE
from unsup.families.autoregressive.nade import NADE


def every(dims: int, levels: int = 2) -> Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=dims)))


def entropies(x: Tensor) -> float:
    mean = x.double().mean(0)
    return float(-(mean * mean.log() + (1 - mean) * (1 - mean).log()).sum())


# Two entries.


def pairs(n: int, levels: int) -> Tensor:
    """Every pair occurs."""
    first, step = torch.randint(levels**2, (2, n), generator=generator(1)).double().sqrt().long()
    return torch.stack([first, (first + step) % levels], 1)


def test_a_pair_converges_to_the_table_of_counts() -> None:
    x = pairs(3000, 4)
    model = Conditional2d(Event((2,), Support("ordinal", 4)), hidden=(8,)).double()
    model.prepare(Batch(x), generator=generator())
    maximise_likelihood(model, x, steps=200)
    counts = torch.zeros(4, 4, dtype=torch.float64).index_put((x[:, 0], x[:, 1]), torch.tensor(1.0).double(), True)
    p = model.log_prob(every(2, 4)).exp().view(4, 4)
    torch.testing.assert_close(p, counts / len(x), atol=1e-4, rtol=0)
    # The train NLL of the table is the entropy of the first entry.
    share = counts.sum(1) / len(x)
    found = -model.log_conditionals(x)[:, 0].mean().detach()
    assert float(found) == pytest.approx(float(-(share * share.log()).sum()), abs=1e-6)


def test_a_pair_starts_at_the_smoothed_frequencies() -> None:
    x = pairs(200, 6)
    model = Conditional2d(Event((2,), Support("nominal", 6)), hidden=(12,)).double()
    model.prepare(Batch(x), generator=generator())
    counts = x[:, 0].bincount(minlength=6).double() + 1
    torch.testing.assert_close(model.conditionals(x[:1])[0, 0].softmax(0), counts / counts.sum())
    with torch.no_grad():
        for p in model.net[-1].parameters():
            p.mul_(0) if p.ndim == 2 else p
    second = x[:, 1].bincount(minlength=6).double() + 1
    torch.testing.assert_close(model.conditionals(x[:1])[0, 1].softmax(0), second / second.sum())


def test_the_second_entry_is_an_mlp_of_the_one_hot_first() -> None:
    model = shaken(Conditional2d(Event((2,), Support("ordinal", 4, low=3)), hidden=(5,), given=labels(3)))
    for first, y in itertools.product(range(4), range(3)):
        one_hot, c = torch.eye(4).double()[first], torch.eye(3).double()[y]
        h = (model.net[1].weight @ torch.cat([one_hot, c]) + model.net[1].bias).clamp(min=0)
        expected = torch.stack([model.table + model.shift.weight @ c, model.net[3].weight @ h + model.net[3].bias])
        found = model.conditionals(torch.tensor([[first + 3, 5]]), given=torch.tensor(y))[0]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "event", [Event((3,), BINARY), Event((2,), REAL), Event((2,), (BINARY, Support("ordinal", 3)))]
)
def test_other_than_pairs_is_refused(event: Event) -> None:
    with pytest.raises(InputError, match="takes"):
        unsup.create("conditional-2d", event)


# Logistic regressions.


@pytest.mark.parametrize("levels", [2, 3])
def test_regressions_fitted_separately_reach_the_same_optimum(levels: int) -> None:
    x = bits(1500, 4) if levels == 2 else (bits(1500, 4) + bits(1500, 4, 1))
    event = Event((4,), BINARY if levels == 2 else Support("nominal", 3))
    model = FVSBN(event).double()
    maximise_likelihood(model, x)
    frequency = x[:, 0].bincount(minlength=levels) / len(x)
    expected = -float((frequency * frequency.log()).sum())
    for d in range(1, 4):
        seen = torch.nn.functional.one_hot(x[:, :d].long(), levels).flatten(1) if levels > 2 else x[:, :d]
        fitted = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(seen.numpy(), x[:, d].numpy())
        log_p = torch.from_numpy(fitted.predict_log_proba(seen.numpy()))
        expected -= float(log_p.gather(1, x[:, d, None].long()).mean())
    assert model.eval().loss(Batch(x))["loss"].mean().item() == pytest.approx(expected, abs=1e-6)


def test_two_entries_have_the_closed_form_of_the_counts() -> None:
    x = bits(2000, 2)
    model = FVSBN(Event((2,), BINARY)).double()
    maximise_likelihood(model, x)
    n = torch.zeros(2, 2, dtype=torch.float64)
    for a, b in x.tolist():
        n[a, b] += 1
    weight, bias = model.net.top.masked_weight(0).detach(), model.net.top.bias.detach()
    assert float(bias[0]) == pytest.approx(float((n[1].sum() / n[0].sum()).log()), abs=1e-6)
    assert float(bias[1]) == pytest.approx(float((n[0, 1] / n[0, 0]).log()), abs=1e-6)
    assert float(weight[1, 0]) == pytest.approx(float((n[1, 1] * n[0, 0] / (n[1, 0] * n[0, 1])).log()), abs=1e-6)
    assert weight[0].tolist() == [0, 0]
    assert float(weight[1, 1]) == 0


@pytest.mark.parametrize("name", ["fvsbn", "nade"])
def test_prepared_weights_are_those_of_independent_entries(name: str) -> None:
    x = bits(4000, 5)
    model = unsup.create(name, Event((5,), BINARY), preset="tiny").double().eval()
    model.prepare(Batch(x), generator=generator())
    if name == "nade":
        torch.nn.init.zeros_(model.out)
    assert model.loss(Batch(x))["loss"].mean().item() == pytest.approx(entropies(x), abs=1e-5)


def test_weights_are_strictly_lower_triangular_in_raster_order() -> None:
    event = Event((2, 2, 2), BINARY)
    model = shaken(FVSBN(event))
    position = model.orders[0]
    assert torch.equal(model.net.top.masked_weight(0) != 0, position[:, None] > position[None])
    x = every(8)[37].view(1, *event.shape)
    sequence = position.argsort().tolist()
    logits = [
        model.net.top.bias[d] + sum(model.net.top.weight[d, e] * x.flatten()[e] for e in sequence[:t])
        for t, d in enumerate(sequence)
    ]
    found = model.conditionals(x)[0, sequence, 0]
    torch.testing.assert_close(found, torch.stack(logits).detach(), rtol=1e-12, atol=1e-12)


def test_a_class_shifts_every_regression() -> None:
    model = shaken(FVSBN(Event((3,), Support("nominal", 3)), given=labels(2)))
    x = torch.tensor([[0, 2, 1]])
    zero, one = (model.conditionals(x, given=torch.tensor(y))[0] for y in (0, 1))
    weight = model.shift.weight.view(3, 3, 2)
    torch.testing.assert_close(one - zero, weight[..., 1] - weight[..., 0], rtol=1e-10, atol=1e-12)


# NADE.


def loop_nade(model: NADE, x: Tensor, order: int = 0) -> Tensor:
    """log p of one example by the recursion of the paper, with sums from scratch at every entry."""
    total = torch.zeros(()).double()
    sequence = model.orders[order].argsort().tolist()
    for t, d in enumerate(sequence):
        a = model.bias.clone()
        for e in sequence[:t]:
            a = a + model._features(x[None])[0, e] @ model.into[e]
        h = a.clamp(min=0) if model.orderless else 1 / (1 + torch.exp(-a))
        for layer in model.deeper:
            h = (layer.weight @ h + layer.bias).clamp(min=0)
        total = total + (h @ model.out[d] + model.out_bias[d]).log_softmax(0)[x[d]]
    return total


@pytest.mark.parametrize(
    "options", [{}, {"order": "random"}, {"orderless": True, "layers": 3, "order": "random"}], ids=str
)
@torch.no_grad()
def test_nade_is_the_recursion_by_loops(options: dict) -> None:
    model = shaken(NADE(Event((35,), Support("nominal", 3)), hidden=6, **options))  # three chunks
    x = torch.randint(3, (3, 35), generator=generator())
    expected = torch.stack([loop_nade(model, row) for row in x])
    torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-12, atol=1e-12)


def test_no_hidden_units_are_independent_bernoullis() -> None:
    x = bits(3000, 5)
    model = NADE(Event((5,), BINARY), hidden=0).double()
    maximise_likelihood(model, x)
    assert model.eval().loss(Batch(x))["loss"].mean().item() == pytest.approx(entropies(x), abs=1e-9)


@torch.no_grad()
def test_nade_is_a_made_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """MADE with H units of every degree, which see the same entries with the same weights, and serve one output."""
    dims, hidden = 5, 3
    nade = shaken(NADE(Event((dims,), BINARY), hidden=hidden))
    made = shaken(MADE(Event((dims,), BINARY), hidden=(dims * hidden,), direct=False))
    degrees = torch.arange(dims).repeat_interleave(hidden)[None]  # unit (i, k) sees the entries before i
    first, top = made.net.layers
    first.above.copy_(degrees)
    top.below.copy_(degrees)
    first.weight.copy_(nade.into[:, 0].T.repeat(dims, 1))
    first.bias.copy_(nade.bias.repeat(dims))
    top.weight.zero_()
    for i in range(dims):
        top.weight[i, i * hidden : (i + 1) * hidden] = nade.out[i, :, 0]
    top.bias.copy_(nade.out_bias[:, 0])
    monkeypatch.setattr("unsup.nn.masked.relu", torch.sigmoid)
    x = every(dims)
    torch.testing.assert_close(made.log_prob(x), nade.log_prob(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(nade.log_prob(x)[0], nade.log_prob(x)[1])


@torch.no_grad()
def test_orderless_loss_is_the_mean_over_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged over all orders and positions of four entries by enumeration, against the exact NLL of each order."""
    dims, x = 4, every(4)[5:7]
    model = shaken(NADE(Event((dims,), BINARY), hidden=5, layers=2, orderless=True)).train()
    losses = []
    for order, d in itertools.product(itertools.permutations(range(dims)), range(dims)):
        rank = torch.tensor(order).double()[None].expand(2, -1)
        monkeypatch.setattr("unsup.core.random.uniform", lambda *_, rank=rank, **__: rank)
        monkeypatch.setattr("unsup.core.random.integers", lambda *_, d=d, **__: torch.full((2, 1), d))
        losses.append(model.loss(Batch(x))["loss"])
    monkeypatch.undo()
    exact = []
    for order in itertools.permutations(range(dims)):
        model._orders[0] = torch.tensor(order) + 1
        exact.append(-model.eval().log_prob(x))
    exact = torch.stack(exact)
    assert (exact.std(0) > 1e-3).all()
    torch.testing.assert_close(torch.stack(losses).mean(0), exact.mean(0), rtol=1e-12, atol=0)
    assert len({round(float(loss[0]), 9) for loss in losses}) > 10


@torch.no_grad()
def test_orderless_loss_draws_every_number_of_known_entries() -> None:
    model = shaken(NADE(Event((4,), BINARY), hidden=5, orderless=True)).train()
    x = every(4)[6].expand(6000, 4)
    loss = model.loss(Batch(x), generator=generator())["loss"]
    exact = []
    for order in itertools.permutations(range(4)):
        model._orders[0] = torch.tensor(order) + 1
        exact.append(-model.eval().log_prob(x[:1]))
    assert abs(loss.mean() - torch.cat(exact).mean()) < 4 * loss.std() / math.sqrt(len(loss))


@torch.no_grad()
def test_ensembles_average_probabilities() -> None:
    model = shaken(NADE(Event((5,), BINARY), hidden=6, orderless=True, ensemble=4, order="random"))
    x = every(5)
    parts = torch.stack([torch.stack([loop_bernoulli(model, row, m) for m in range(4)]) for row in x]).exp()
    torch.testing.assert_close(model.log_prob(x).exp(), parts.mean(1), rtol=1e-12, atol=0)
    assert (parts.std(1) > 1e-6).all()
    assert abs(float(model.log_prob(x).exp().sum()) - 1) < 1e-12
    again = NADE(Event((5,), BINARY), hidden=6, orderless=True, ensemble=4, order="random")
    assert torch.equal(again.orders, model.orders)


def loop_bernoulli(model: NADE, x: Tensor, order: int) -> Tensor:
    total, sequence = torch.zeros(()).double(), model.orders[order].argsort().tolist()
    known = torch.zeros(1, 5, dtype=torch.bool)
    for d in sequence:
        logit = model.outputs_given(model._features(x[None]), known)[0, d, 0]
        total = total + torch.nn.functional.logsigmoid(logit if x[d] else -logit)
        known[0, d] = True
    return total


@pytest.mark.parametrize("ensemble", [1, 3])
@torch.no_grad()
def test_any_entries_may_be_known(ensemble: int) -> None:
    """Completions are those of the same orders with the known entries moved to the front, by enumeration."""
    dims = 4
    options = {"orderless": True, "ensemble": ensemble, "order": "random"}
    model = shaken(NADE(Event((dims,), BINARY), hidden=6, layers=2, **options), deviation=1.0)
    x = every(dims)
    orders = model.orders.clone()
    for mask in ([0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 1, 1]):
        known = torch.tensor(mask, dtype=torch.bool)
        first = (orders + (~known) * dims).argsort(1).argsort(1) + 1
        model._orders.copy_(first)
        p = model.log_prob(x).exp() * ((x == x[9]) | ~known).all(1)
        model._orders.copy_(orders)
        start = torch.where(known, x[9], 1 - x[9]).expand(4000, dims)
        drawn = model.complete(start, known.expand(4000, dims), generator=generator(3))
        assert (drawn[:, known] == x[9, known]).all()
        assert frequencies_fit(drawn, x, p / p.sum())


def test_each_example_may_have_its_own_known_entries() -> None:
    model = shaken(NADE(Event((6,), Support("ordinal", 5, low=2)), hidden=6, orderless=True))
    x = torch.randint(2, 7, (40, 6), generator=generator())
    known = torch.rand(40, 6, generator=generator(1)) < 0.5
    drawn = model.complete(torch.where(known, x, 99), known, generator=generator(2))
    assert torch.equal(drawn[known].long(), x[known])
    assert not torch.equal(drawn[~known].long(), x[~known])
    assert model.event.contains(drawn).all()


def test_a_fixed_order_completes_only_from_its_start() -> None:
    model = shaken(NADE(Event((4,), BINARY), hidden=6))
    with pytest.raises(InputError, match="orderless=True"):
        model.complete(torch.zeros(1, 4), torch.tensor([[False, True, False, False]]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layers": 2}, "orderless=True"),
        ({"ensemble": 2, "order": "random"}, "orderless=True"),
        ({"ensemble": 2, "orderless": True}, "use 'random'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        NADE(Event((4,), BINARY), **options)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.7}, {"temperature": 1.3, "top_k": 3}]
)
@pytest.mark.parametrize("name", ["conditional-2d", "fvsbn", "nade", "orderless", "made"])
def test_cached_sampling_is_the_naive_sampling(name: str, options: dict) -> None:
    event = Event((2,) if name == "conditional-2d" else (20,), Support("nominal", 4))
    own = {"orderless": True, "layers": 2, "ensemble": 2, "order": "random"} if name == "orderless" else {}
    model = shaken(unsup.create("nade" if name == "orderless" else name, event, preset="tiny", **own))
    fast, slow = (draw(12, generator=generator(4), **options) for draw in (model.sample, model.sample_naive))
    assert torch.equal(fast, slow)
    assert len(fast.unique(dim=0)) > 1


def test_zero_weights_are_uniform() -> None:
    for name, dims, levels in (("fvsbn", 784, 2), ("nade", 784, 2), ("nade", 12, 256), ("conditional-2d", 2, 100)):
        event = Event((dims,), BINARY if levels == 2 else Support("ordinal", levels))
        model = unsup.create(name, event, preset="tiny").double()
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        x = torch.randint(levels, (2, dims), generator=generator())
        nats = torch.full((2,), dims * math.log(levels), dtype=torch.float64)
        torch.testing.assert_close(-model.log_prob(x), nats, rtol=1e-12, atol=0)


def test_parameters_of_the_papers_nade() -> None:
    model = unsup.create("nade", Event((1, 28, 28), BINARY), preset="paper")
    assert model.parameter_count == 784 * 500 + 500 + 784 * 500 + 784  # W, c, V, b


def test_the_papers_orderless_nade_has_two_layers_the_mask_and_different_orders() -> None:
    model = unsup.create("nade", Event((1, 28, 28), BINARY), preset="paper-orderless")
    first, second, outputs = 2 * 784 * 500 + 500, 500 * 500 + 500, 784 * 500 + 784  # the mask doubles the inputs
    assert model.parameter_count == first + second + outputs
    assert model.orderless
    assert len({tuple(order) for order in model.orders.tolist()}) == 128
    features = torch.zeros(1, 784, 2).index_fill_(2, torch.tensor([1]), 1.0)
    known = torch.arange(784)[None] < 5
    found = model.outputs_given(features, known)
    assert not torch.equal(found, model.outputs_given(features, torch.zeros_like(known)))  # the mask is an input
