"""MADE: masks against the paper's rule by loops, closed forms, and other estimators of the same model."""

from __future__ import annotations

import math

import pytest
import torch
from entry_models import bits, maximise_likelihood, shaken
from sklearn.linear_model import LogisticRegression

import unsup
from unsup.core.batch import Batch
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.autoregressive.made import MADE


def words(dims: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(2)] * dims).view(-1, dims)


@pytest.mark.parametrize("order", ["natural", "random"])
def test_masks_follow_the_rule_of_the_paper_by_loops(order):
    model = MADE(Event((5,), BINARY), hidden=(7, 6), masks=3, order=order)
    for m in range(3):
        degrees = [model.orders[m].tolist()] + [layer.above[m].tolist() for layer in model.net.layers[:-1]]
        for below, above, layer in zip(degrees[:-1], degrees[1:], model.net.layers[:-1], strict=True):
            expected = [[float(up >= down) for down in below] for up in above]
            assert layer.mask(m).tolist() == expected
            assert min(above) >= min(below)
            assert max(above) <= 4
        output = [[float(d > up) for up in degrees[-1]] for d in degrees[0]]
        assert model.net.layers[-1].mask(m).tolist() == output
        direct = [[float(d > e) for e in degrees[0]] for d in degrees[0]]
        assert model.net.direct.mask(m).tolist() == direct
    same = model.orders[0].tolist() == model.orders[1].tolist()
    assert same == (order == "natural")


def test_parameters_of_the_papers_net():
    """2 × 8000 units on 784 pixels with direct connections and 32 masks, built and counted."""
    model = unsup.create("made", Event((1, 28, 28), BINARY), preset="paper")
    expected = (784 * 8000 + 8000) + (8000 * 8000 + 8000) + (8000 * 784 + 784) + 784 * 784
    assert model.parameter_count == expected
    assert len(model.orders) == 32
    assert len(model.orders.unique(dim=0)) == 32


def test_no_hidden_layer_is_a_logistic_regression_for_each_dimension():
    """A fully visible belief net: the optimum is that of separate logistic regressions."""
    x = bits(2000, 5)
    model = MADE(Event((5,), BINARY), hidden=(), direct=False).double()
    maximise_likelihood(model, x)
    mean = float(x[:, 0].double().mean())
    expected = -(mean * math.log(mean) + (1 - mean) * math.log(1 - mean))
    for d in range(1, 5):
        fitted = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(x[:, :d].numpy(), x[:, d].numpy())
        log_p = torch.from_numpy(fitted.predict_log_proba(x[:, :d].numpy()))
        expected -= float(log_p.gather(1, x[:, d, None].long()).mean())
    assert model.eval().loss(Batch(x))["loss"].mean().item() == pytest.approx(expected, abs=1e-6)


def test_two_dimensions_reach_the_count_table():
    x = bits(3000, 2)
    model = MADE(Event((2,), BINARY), hidden=(8,)).double()
    maximise_likelihood(model, x)
    counts = torch.tensor([(x == w).all(1).double().mean() for w in words(2)], dtype=torch.float64)
    torch.testing.assert_close(model.eval().log_prob(words(2)).exp(), counts, atol=1e-6, rtol=0)


def test_mixture_is_the_mean_of_probabilities_of_whole_examples():
    model = shaken(MADE(Event((6,), BINARY), hidden=(9,), masks=4, order="random"))
    x = words(6)
    parts = []
    for m in range(4):
        p = model.conditionals(x.double(), order=m).squeeze(-1).sigmoid()
        parts.append(torch.where(x.bool(), p, 1 - p).prod(1))
    torch.testing.assert_close(model.log_prob(x).exp(), torch.stack(parts).mean(0), rtol=1e-10, atol=0)
    assert (torch.stack(parts).std(0) > 1e-6).all()


def test_training_cycles_through_the_masks_and_moves_only_kept_weights():
    model = MADE(Event((6,), BINARY), hidden=(9,), masks=3, order="random").train()
    x = bits(50, 6)
    for step in range(6):
        model.zero_grad()
        loss = model.loss(Batch(x))["loss"].mean()
        loss.backward()
        order = step % 3
        expected = -model._log_prob_in_order(x, order, None).mean()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        for layer in [*model.net.layers, model.net.direct]:
            dropped = layer.mask(order) == 0
            assert (layer.weight.grad[dropped] == 0).all()
            assert (layer.weight.grad[~dropped] != 0).any()


def test_prepared_bias_gives_the_product_of_marginals():
    x = torch.randint(0, 3, (400, 4), generator=torch.Generator().manual_seed(0))
    model = MADE(Event((4,), Support("nominal", 3)), hidden=(5,)).double()
    model.prepare(Batch(x), generator=torch.Generator())
    with torch.no_grad():
        model.net.layers[-1].weight.zero_()
    frequency = torch.stack([(x == k).double().sum(0) + 1 for k in range(3)]) / 403
    expected = frequency.log().gather(0, x).sum(1)
    torch.testing.assert_close(model.eval().log_prob(x), expected)


def test_real_conditionals_integrate_to_one_in_raw_units():
    model = MADE(Event((1,), REAL), components=4)
    x = 1000 + 50 * torch.randn(500, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model.prepare(Batch(x), generator=torch.Generator())
    model = shaken(model)
    grid = torch.linspace(-4000, 6000, 200_001, dtype=torch.float64)
    assert torch.trapezoid(model.log_prob(grid[:, None]).exp(), grid).item() == pytest.approx(1, abs=1e-6)


def test_masked_products_are_renewed_when_weights_or_masks_change():
    model = shaken(MADE(Event((4,), BINARY), hidden=(6,), masks=2, order="random"))
    other = shaken(MADE(Event((4,), BINARY), hidden=(6,), masks=2, order="random", mask_seed=5))
    x = words(4)
    with torch.no_grad():
        before = model.log_prob(x)
        model.net.layers[0].weight.mul_(2)
        assert not torch.allclose(model.log_prob(x), before)
        model.load_state_dict(other.state_dict())
        assert torch.equal(model.log_prob(x), other.log_prob(x))


@pytest.mark.parametrize("event", [Event((1,), REAL), Event((1,), REAL, missing=True)])
def test_narrow_components_do_not_overflow(event: Event) -> None:
    """Rounded values make components narrow; the square of a far value divided by their width must stay finite."""
    observation = MADE(event, hidden=(4,), components=2).observation
    narrow = torch.tensor([0.0, 0.0, 0.0, 0.0, -60.0, -60.0])
    outputs = narrow.view(1, 1, 6) if not event.missing else narrow.view(1, 6)
    outputs = outputs.clone().requires_grad_()
    log_p = observation.log_prob(torch.tensor([[60.0]]), outputs)
    log_p.sum().backward()
    assert bool(log_p.isfinite().all())
    assert bool(outputs.grad.isfinite().all())
