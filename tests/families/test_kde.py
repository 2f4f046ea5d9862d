"""Kernel density estimates: scikit-learn, loops, integrals, sums, and the bias of the method."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KernelDensity

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.classical import kde
from unsup.families.classical.kde import KDE
from unsup.prob import kernels

COLUMNS = (REAL, Support("nominal", 3), Support("ordinal", 5, low=-2), BINARY)
MIXED = Event((4,), COLUMNS, precision="float64")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reals(n: int = 200, dims: int = 2, seed: int = 0) -> torch.Tensor:
    g = np.random.default_rng(seed)
    return torch.tensor(g.normal(size=(n, dims)) * np.geomspace(0.5, 20, dims) + 3)


def mixed(n: int = 80, seed: int = 0) -> torch.Tensor:
    g = np.random.default_rng(seed)
    own = g.integers(0, 3, n)
    word = np.where(g.random(n) < 0.3, g.integers(0, 3, n), own)
    columns = [g.normal(size=n) + 2 * own, word, np.clip(own + g.integers(-2, 2, n), -2, 2), word > g.integers(0, 3, n)]
    return torch.tensor(np.stack(columns, 1).astype(float))


def fitted(x: torch.Tensor, event: Event | None = None, **options) -> KDE:
    model = KDE(event or Event(tuple(x.shape[1:]), REAL, precision="float64"), **options)
    model.prepare(Batch(x), generator=seeded())
    return model


def test_one_example_is_its_kernel() -> None:
    model = fitted(torch.tensor([[1.0, 2.0]]).double(), bandwidth=0.7)
    x = reals(10)
    expected = stats.norm([1, 2], 0.7).logpdf(x.numpy()).sum(1)
    np.testing.assert_allclose(model.log_prob(x), expected, rtol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 10])
def test_scores_are_those_of_scikit_learn(dims: int) -> None:
    x, query = reals(dims=dims), reals(50, dims, seed=1)
    model = fitted(x, bandwidth=0.4)
    std = model.front.std.numpy()
    # A single leaf: its trees lose digits where the density is low.
    reference = KernelDensity(bandwidth=0.4, leaf_size=len(x)).fit(x.numpy() / std)
    expected = reference.score_samples(query.numpy() / std) - np.log(std).sum()
    np.testing.assert_allclose(model.log_prob(query), expected, rtol=1e-9, atol=1e-9)


def test_density_integrates_to_one() -> None:
    line = torch.linspace(-40, 50, 40_001, dtype=torch.float64)
    model = fitted(reals(30, 1), bandwidth="silverman")
    assert float(torch.trapezoid(model.log_prob(line[:, None]).exp(), line)) == pytest.approx(1, abs=1e-9)
    model = fitted(reals(30, 2), bandwidth="scott")
    a, b = torch.linspace(-2, 8, 301, dtype=torch.float64), torch.linspace(-120, 130, 301, dtype=torch.float64)
    p = model.log_prob(torch.cartesian_prod(a, b)).exp().view(301, 301)
    assert float(torch.trapezoid(torch.trapezoid(p, b, dim=1), a)) == pytest.approx(1, abs=1e-6)


def test_masses_of_a_table_sum_to_one_at_every_real_value_together() -> None:
    x = mixed()
    model = fitted(x, MIXED)
    levels = torch.tensor(list(itertools.product(range(3), range(-2, 3), range(2)))).double()
    line = torch.linspace(-15, 20, 4001, dtype=torch.float64)
    p = torch.stack([model.log_prob(torch.cat([line[:, None], row.expand(len(line), -1)], 1)).exp() for row in levels])
    marginal = p.sum(0)
    assert float(torch.trapezoid(marginal, line)) == pytest.approx(1, abs=1e-9)
    width = float(model.bandwidth * model.columns.front.std)
    alone = stats.norm(x[:, 0].numpy(), width).pdf(line.numpy()[:, None]).mean(1)
    np.testing.assert_allclose(marginal, alone, atol=1e-10)  # kernels of other columns sum to one


def test_leave_one_out_is_a_loop() -> None:
    x = reals(40)
    model = fitted(x, bandwidth=0.5)
    std = model.front.std.numpy()
    for n, found in enumerate(model.leave_one_out().tolist()):
        rest = np.delete(x.numpy(), n, 0)
        kernel = stats.norm(rest, 0.5 * std).logpdf(x[n].numpy()).sum(1)
        assert found == pytest.approx(np.logaddexp.reduce(kernel) - math.log(39), rel=1e-10)
    table = fitted(mixed(20), MIXED, bandwidth=0.5)
    for n, found in enumerate(table.leave_one_out().tolist()):
        rest = fitted(mixed(20), MIXED, bandwidth=0.5)
        rest.data[n] = rest.data[19]
        rest.stored.fill_(19)
        assert found == pytest.approx(float(rest.log_prob(mixed(20)[n : n + 1])), rel=1e-9)


@pytest.mark.parametrize(("x", "event"), [(reals(40), None), (mixed(40), MIXED)])
def test_examples_are_scored_without_themselves(x: torch.Tensor, event: Event | None) -> None:
    model = fitted(x, event)
    torch.testing.assert_close(model.log_prob_without(x, x), model.leave_one_out())
    other = x + 0.0
    other[:, 0] += 0.5  # no training examples
    torch.testing.assert_close(model.log_prob_without(x, other), model.log_prob(x))
    twice = fitted(x.repeat(2, 1), event, bandwidth=0.5)  # one copy stays
    once = fitted(torch.cat([x, x[1:]]), event, bandwidth=0.5)
    for copy, name in itertools.product((once,), ("bandwidth", "share", "spread")):
        getattr(copy, name).copy_(getattr(twice, name))
    (once.front or once.columns.front).load_state_dict((twice.front or twice.columns.front).state_dict())
    torch.testing.assert_close(twice.log_prob_without(x[3:5], x[:1].expand(2, -1)), once.log_prob(x[3:5]))


def test_bandwidth_has_the_largest_leave_one_out_likelihood() -> None:
    x = reals(300, 2)
    model = fitted(x)
    best = float(model.leave_one_out().mean())
    for factor in (0.5, 0.8, 0.95, 1.05, 1.25, 2):
        other = fitted(x, bandwidth=float(model.bandwidth) * factor)
        assert float(other.leave_one_out().mean()) < best + 1e-6
    assert fitted(x, bandwidth=float(model.bandwidth) * 2).leave_one_out().mean() < best - 1e-3
    table = fitted(mixed(), MIXED)
    best = float(table.leave_one_out().mean())
    for name in ("bandwidth", "share"):
        kept = getattr(table, name).clone()
        for factor in (0.6, 1.6):
            getattr(table, name).copy_((kept * factor).clamp(max=1.0) if name == "share" else kept * factor)
            assert float(table.leave_one_out().mean()) < best
        getattr(table, name).copy_(kept)


def test_test_data_and_the_example_itself_have_no_part_in_the_choice() -> None:
    x = reals(60, 1)
    model = fitted(x)
    assert float(model.bandwidth) > 0.05  # with itself, the likelihood is highest at a bandwidth of zero
    assert float(fitted(x, bandwidth=1e-4).log_prob(x).mean()) > float(model.log_prob(x).mean())


def test_copies_do_not_shrink_the_bandwidth() -> None:
    x = reals(100, 2)
    plain, twice = fitted(x), fitted(x.repeat(2, 1))
    assert float(twice.bandwidth) == pytest.approx(float(plain.bandwidth), rel=0.02)
    equal = fitted(torch.ones(10, 2).double())
    assert bool(equal.log_prob(torch.ones(1, 2).double()).isfinite())


def test_bias_in_one_dimension_is_half_h_squared_times_the_curvature() -> None:
    """E p̂(x) − p(x) = h²/2 p″(x) + O(h⁴), over quantiles of N(0, 1), whose sampling error is small."""
    n, h = 20_000, 0.15
    x = torch.tensor(stats.norm.ppf((np.arange(n) + 0.5) / n))[:, None]
    model = fitted(x, bandwidth=h, examples=n)
    h *= float(model.front.std)
    at = np.array([-1.5, -0.5, 0.0, 0.3, 2.0])
    p = stats.norm.pdf(at)
    found = model.log_prob(torch.tensor(at)[:, None]).exp().numpy() - p
    np.testing.assert_allclose(found, h**2 / 2 * (at**2 - 1) * p, atol=0.75 * h**4 * p.max())
    assert np.abs(found).max() > 20 * h**4 * 0.05 * p.max()


@pytest.mark.parametrize(("x", "event"), [(reals(), None), (mixed(), MIXED)])
def test_blocks_change_nothing(x: torch.Tensor, event: Event | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(x, event)
    whole, alone = model.log_prob(x), model.leave_one_out()
    monkeypatch.setattr(kde, "_BLOCK", 21)
    monkeypatch.setattr(kde, "_QUERIES", 3)
    monkeypatch.setattr(kde, "_MOST_ONE_HOT", 2)  # others are looked up
    torch.testing.assert_close(model.log_prob(x), whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model.leave_one_out(), alone, rtol=1e-11, atol=1e-11)
    blocks = [part.shape[1] for part in model._kernels(model._middle(x[:3]), model._centres())]
    assert max(blocks) == 7
    assert sum(blocks) == len(x)


def test_conditional_of_a_completion() -> None:
    """Centres are drawn by their kernels of the known entries, then unknown entries from these centres."""
    x = mixed()
    model = fitted(x, MIXED)
    known = torch.tensor([False, True, True, False])
    row = x[5].clone()
    n = 20_000
    drawn = model.complete(row.expand(n, -1), known.expand(n, -1), generator=seeded()).numpy()
    assert (drawn[:, 1:3] == row[1:3].numpy()).all()
    line = torch.linspace(-15, 20, 4001, dtype=torch.float64)
    pair = []
    for bit in (0.0, 1.0):
        every = row.expand(len(line), -1).clone()
        every[:, 0], every[:, 3] = line, bit
        pair.append(model.log_prob(every).exp())
    joint = torch.stack(pair)
    joint = joint / torch.trapezoid(joint.sum(0), line)
    one = float(torch.trapezoid(joint[1], line))
    assert (drawn[:, 3] == 1).mean() == pytest.approx(one, abs=5 * math.sqrt(one * (1 - one) / n))
    cdf = np.cumsum(joint.sum(0).numpy()) * float(line[1] - line[0])
    assert stats.kstest(drawn[:, 0], lambda v: np.interp(v, line.numpy(), cdf)).pvalue > 1e-4


def test_kernels_of_levels_sum_to_one_over_what_is_seen() -> None:
    for share in (1e-4, 0.3, 1.0):
        table = kernels.aitchison_aitken(torch.arange(4), 4, share).exp().double()
        torch.testing.assert_close(table.sum(0), torch.ones(4).double(), rtol=1e-6, atol=0)
    assert bool((kernels.aitchison_aitken(torch.arange(4), 4, 1.0).exp() - 0.25).abs().max() < 1e-6)
    for width in (0.01, 0.7, 30.0):
        table = kernels.rounded_gaussian(torch.arange(6), 6, torch.tensor(width).double()).exp()
        torch.testing.assert_close(table.sum(0), torch.ones(6).double())
    table = kernels.rounded_gaussian(torch.arange(6), 6, torch.tensor(0.7).double()).exp()
    assert float(table[2, 3]) == pytest.approx(stats.norm(3, 0.7).cdf(2.5) - stats.norm(3, 0.7).cdf(1.5))


def test_rules_of_thumb_are_scipys() -> None:
    x = np.random.default_rng(0).normal(size=(3, 500))
    assert kernels.scott(500, 3) == pytest.approx(stats.gaussian_kde(x, "scott").factor)
    assert kernels.silverman(500, 3) == pytest.approx(stats.gaussian_kde(x, "silverman").factor)
    assert float(fitted(torch.tensor(x.T), bandwidth="scott").bandwidth) == pytest.approx(kernels.scott(500, 3))


def test_gross_values_do_not_widen_the_kernels() -> None:
    x = reals(300, 2)
    gross = x.clone()
    gross[0, 0] = 1e9
    plain, spoilt = fitted(x), fitted(gross)
    assert float(spoilt.front.std[0]) == pytest.approx(float(plain.front.std[0]), rel=0.15)
    assert float((spoilt.log_prob(x[1:]) - plain.log_prob(x[1:])).abs().mean()) < 0.1
    assert float(spoilt.log_prob(torch.tensor([[1e6, 3.0]]).double())) < -1e6


def test_most_examples_that_are_stored() -> None:
    x = reals(500, 2)
    model = fitted(x, examples=50)
    assert int(model.stored) == 50
    assert len({tuple(row) for row in model.data.tolist()} & {tuple(row) for row in x.tolist()}) == 50
    few = fitted(x[:20], examples=50)
    assert int(few.stored) == 20
    other = KDE(few.event, examples=50)
    other.load_state_dict(few.state_dict())
    assert torch.equal(other.log_prob(x), few.log_prob(x))


def test_dequantised_levels_have_a_bound_and_binary_arrays_are_exact() -> None:
    image = Event((1, 2, 2), Support("ordinal", 8))
    x = torch.randint(8, (60, 1, 2, 2), generator=seeded())
    model = fitted(x, image)
    assert model.likelihood_kind == "bound"
    assert bool((model.sample(100, generator=seeded()) < 8).all())
    bits = Event((1, 2, 2), BINARY)
    model = fitted(x > 3, bits)
    assert model.likelihood_kind == "exact"
    every = torch.tensor(list(itertools.product((0, 1), repeat=4))).view(-1, 1, 2, 2)
    assert float(model.log_prob(every).exp().sum()) == pytest.approx(1)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="in tables only"):
        KDE(Event((5,), Support("nominal", 4), layout="sequence"))
    with pytest.raises(InputError, match="missing values"):
        KDE(Event((2,), REAL, missing=True))
    with pytest.raises(InputError, match="bandwidth"):
        KDE(Event((2,), REAL), bandwidth=0.0)
    with pytest.raises(InputError, match="a training example"):
        KDE(Event((2,), REAL)).prepare(Batch(torch.zeros(0, 2)), generator=seeded())
