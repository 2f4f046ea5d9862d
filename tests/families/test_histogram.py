"""Histogram: frequencies by a counting loop, sums and integrals, entropy, draws against the density."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.storage import load_model
from unsup.families.classical.histogram import Histogram

TABLE = Event((3,), (BINARY, Support("ordinal", 3, -1), Support("nominal", 4)))
MIXED = Event((2,), (Support("ordinal", 3), REAL))


def fitted(event: Event, x: torch.Tensor, **options) -> Histogram:
    model = Histogram(event, **options)
    model.prepare(Batch(x), generator=torch.Generator())
    model.maximize(model.statistics(Batch(x)))
    return model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table_data(n: int) -> torch.Tensor:
    g = np.random.default_rng(0)
    a = g.integers(0, 2, n)
    return torch.tensor(np.stack([a, (a + (g.random(n) < 0.7)) % 3 - 1, g.integers(0, 3, n)], 1))


def everything(event: Event) -> torch.Tensor:
    levels = [range(s.low, s.low + s.levels) for s in event.columns]
    return torch.tensor(list(itertools.product(*levels)))


def brute_force(x: torch.Tensor, event: Event, alpha: float, joint: bool) -> list[float]:
    """Smoothed frequencies of every value, by counting in a loop."""
    rows, values = [tuple(r) for r in x.tolist()], [tuple(v) for v in everything(event).tolist()]
    if joint:
        return [(rows.count(v) + alpha) / (len(rows) + alpha * len(values)) for v in values]
    chances = []
    for v in values:
        chance = 1.0
        for d, s in enumerate(event.columns):
            chance *= (sum(r[d] == v[d] for r in rows) + alpha) / (len(rows) + alpha * s.levels)
        chances.append(chance)
    return chances


@pytest.mark.parametrize(("joint", "alpha"), [("always", 1.0), ("always", 0.3), ("never", 1.0), ("never", 0.0)])
def test_masses_are_smoothed_frequencies_and_sum_to_one(joint: str, alpha: float) -> None:
    x = table_data(40)
    masses = fitted(TABLE, x, joint=joint, smoothing=alpha).log_prob(everything(TABLE)).exp()
    expected = brute_force(x, TABLE, alpha, joint == "always")
    torch.testing.assert_close(masses, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-14)
    assert abs(float(masses.sum()) - 1) < 1e-12


@pytest.mark.parametrize("joint", ["auto", "always", "never"])
@pytest.mark.parametrize("event", [TABLE, Event((1, 2, 2), BINARY)])
def test_normalised_before_any_data(event: Event, joint: str) -> None:
    values = everything(event).view(-1, *event.shape)
    assert abs(float(Histogram(event, joint=joint).log_prob(values).exp().sum()) - 1) < 1e-12


def test_maximum_likelihood_reaches_the_empirical_entropy() -> None:
    x = table_data(500)
    _, counts = np.unique(x.numpy(), axis=0, return_counts=True)
    model = fitted(TABLE, x, joint="always", smoothing=0.0)
    assert abs(float(model.loss(Batch(x))["loss"].mean()) - stats.entropy(counts)) < 1e-12
    marginal = sum(stats.entropy(np.unique(c, return_counts=True)[1]) for c in x.numpy().T)
    independent = fitted(TABLE, x, joint="never", smoothing=0.0)
    assert abs(float(independent.loss(Batch(x))["loss"].mean()) - marginal) < 1e-12
    assert float(independent.log_prob(torch.tensor([[0, 0, 3]]))) == -math.inf  # level 3 was never seen


def test_auto_is_joint_only_with_an_example_a_cell() -> None:
    values = everything(TABLE)  # 24 cells
    few, enough = table_data(23), table_data(24)
    torch.testing.assert_close(fitted(TABLE, few).log_prob(values), fitted(TABLE, few, joint="never").log_prob(values))
    assert torch.equal(fitted(TABLE, enough).log_prob(values), fitted(TABLE, enough, joint="always").log_prob(values))
    assert not torch.allclose(
        fitted(TABLE, enough).log_prob(values), fitted(TABLE, enough, joint="never").log_prob(values)
    )


@pytest.mark.parametrize("low", [0, -5])
def test_image_entries_are_independent_frequencies(low: int) -> None:
    event = Event((2, 3, 3), Support("ordinal", 7, low))
    x = torch.randint(low, low + 7, (50, 2, 3, 3), generator=seeded())
    model = fitted(event, x, smoothing=0.5)
    expected = sum(
        math.log((int((x[:, c, h, w] == x[0, c, h, w]).sum()) + 0.5) / (50 + 3.5))
        for c, h, w in itertools.product(range(2), range(3), range(3))
    )
    assert abs(float(model.log_prob(x[:1])) - expected) < 1e-12


@pytest.mark.parametrize("event", [TABLE, Event((3,), REAL)])
def test_statistics_add_over_batches(event: Event) -> None:
    x = table_data(60) if event is TABLE else torch.randn(60, 3, generator=seeded())
    model = fitted(event, x)
    whole, parts = model.statistics(Batch(x)), [model.statistics(Batch(p)) for p in x.split((7, 41, 12))]
    for name, total in whole.items():
        assert torch.equal(sum(p[name] for p in parts), total)
    assert whole["count"] == 60


@pytest.mark.parametrize("event", [TABLE, Event((3,), REAL)])
def test_examples_count_by_their_weight(event: Event) -> None:
    x = table_data(60) if event is TABLE else torch.randn(60, 3, generator=seeded())
    model, weight = fitted(event, x), torch.tensor([0.0, 1.0, 2.0]).repeat(20)
    expected = model.statistics(Batch(x.repeat_interleave(weight.long(), 0)))
    for name, found in model.statistics(Batch(x, weight=weight)).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("joint", ["always", "never", "auto"])
def test_no_other_masses_are_better_with_their_prior(joint: str) -> None:
    """Σ log p(x) + log prior is highest at the smoothed frequencies, among all masses of the same tables."""
    x = table_data(20)
    model = fitted(TABLE, x, joint=joint, smoothing=0.7)

    def reached() -> float:
        return float(model.log_prob(x).sum() + model.parameter_log_prior())

    best, log_mass = reached(), model.log_mass.clone()
    for seed in range(20):
        noise = 0.1 * torch.randn(log_mass.shape, generator=seeded(seed), dtype=torch.float64)
        if joint == "auto":  # 20 examples are fewer than 24 cells: the table is a product
            rows = torch.randn(3, 4, generator=seeded(seed), dtype=torch.float64)
            noise = 0.1 * (rows[0, :2, None, None] + rows[1, :3, None] + rows[2]).view(1, -1)
        model.log_mass.copy_((log_mass + noise).log_softmax(1))
        assert reached() < best
    assert model.n_free == (23 if joint == "always" else 1 + 2 + 3)


def test_real_density_is_the_numpy_histogram_inside_the_range() -> None:
    x = torch.randn(200, 1, generator=seeded()) * 3 + 1
    model = fitted(Event((1,), REAL), x, bins=9, smoothing=0.0)
    density, edges = np.histogram(x.double().numpy(), bins=9, density=True)
    middles = torch.tensor((edges[1:] + edges[:-1]) / 2)[:, None]
    np.testing.assert_allclose(model.log_prob(middles).exp(), density, rtol=1e-12)
    at_ends = torch.tensor([x.min(), x.max()])[:, None]
    np.testing.assert_allclose(model.log_prob(at_ends).exp(), density[[0, -1]], rtol=1e-12)
    assert model.log_prob(x.max()[None, None] + 1).item() == -math.inf


def density_pieces(model: Histogram, column: int, density) -> float:
    """∫ density over the line, one smooth piece at a time."""
    low, high = float(model.low[column]), float(model.high[column])
    edges = [-np.inf, *np.linspace(low, high, model.bins + 1), np.inf]
    return sum(integrate.quad(density, a, b, epsabs=1e-11)[0] for a, b in itertools.pairwise(edges))


def test_real_density_integrates_to_one_with_its_tails() -> None:
    model = fitted(Event((1,), REAL), torch.randn(50, 1, generator=seeded()) * 4 - 2, bins=5, smoothing=2.0)

    def density(v: float) -> float:
        return float(model.log_prob(torch.tensor([[v]], dtype=torch.float64)).exp())

    assert abs(density_pieces(model, 0, density) - 1) < 1e-8
    smoothed = 2.0 / (50 + 2.0 * 7)  # a tail: no example, α = 2, 5 bins and 2 tails
    assert abs(integrate.quad(density, float(model.high), np.inf)[0] - smoothed) < 1e-8
    assert abs(integrate.quad(density, -np.inf, float(model.low))[0] - smoothed) < 1e-8


@pytest.mark.parametrize("joint", ["always", "never"])
def test_mixed_table_sums_and_integrates_to_one(joint: str) -> None:
    g = seeded()
    level = torch.randint(0, 3, (40, 1), generator=g)
    x = torch.cat([level.float(), level + torch.randn(40, 1, generator=g)], 1)
    model = fitted(MIXED, x, joint=joint, bins=4)

    def marginal(v: float) -> float:
        rows = torch.tensor([[k, v] for k in range(3)], dtype=torch.float64)
        return float(model.log_prob(rows).exp().sum())

    assert abs(density_pieces(model, 1, marginal) - 1) < 1e-8


@pytest.mark.parametrize("temperature", [1.0, 0.4])
@pytest.mark.parametrize("joint", ["always", "never"])
def test_draws_have_the_tempered_masses(joint: str, temperature: float) -> None:
    model = fitted(TABLE, table_data(100), joint=joint)
    n = 20000
    draws = model.sample(n, generator=seeded(1), temperature=temperature)
    assert draws.dtype == TABLE.dtype
    assert bool(TABLE.contains(draws).all())
    values = everything(TABLE)
    chance = (model.log_prob(values) / temperature).softmax(0).numpy()
    seen = (draws[:, None] == values[None]).all(2).sum(0).numpy()
    assert stats.chisquare(seen, n * chance).pvalue > 1e-3


@pytest.mark.parametrize("joint", ["always", "never"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_real_draws_have_the_tempered_density(temperature: float, joint: str) -> None:
    g = seeded()
    level = torch.randint(0, 3, (60, 1), generator=g)
    model = fitted(MIXED, torch.cat([level.float(), level + torch.randn(60, 1, generator=g)], 1), joint=joint, bins=3)
    n = 20000
    draws = model.sample(n, generator=seeded(2), temperature=temperature).double()

    def tempered(v: float) -> float:
        rows = torch.tensor([[k, v] for k in range(3)], dtype=torch.float64)
        return float((model.log_prob(rows) / temperature).exp().sum())

    low, high = float(model.low[1]), float(model.high[1])
    edges = [-np.inf, low - 2, low - 0.5, *np.linspace(low, high, 7), high + 0.5, high + 2, np.inf]
    chance = np.array([integrate.quad(tempered, a, b)[0] for a, b in itertools.pairwise(edges)])
    seen = np.histogram(draws[:, 1].numpy(), edges)[0]
    assert stats.chisquare(seen, n * chance / chance.sum()).pvalue > 1e-3


def test_far_and_constant_values_are_finite() -> None:
    x = torch.cat([torch.full((30, 1), 7.0), torch.randn(30, 1, generator=seeded())], 1)
    model = fitted(Event((2,), REAL), x)
    far = torch.tensor([[7.0, 1e6], [-1e6, 0.0], [7.0, 0.0]])
    assert bool(model.log_prob(far).isfinite().all())
    assert model.low[0] == 6.5
    assert model.high[0] == 7.5


def test_it_copes_without_parameters_and_comes_back_from_disk(tmp_path) -> None:
    model = fitted(MIXED, torch.tensor([[0.0, 1.0], [2.0, -3.0], [1.0, 0.5]]))
    assert [o.parameters for o in model.objectives()] == [()]
    model.save(tmp_path)
    again, x = load_model(tmp_path), torch.tensor([[1.0, 0.1], [0.0, 9.0]])
    assert torch.equal(again.log_prob(x), model.log_prob(x))
    assert torch.equal(again.sample(5, generator=seeded()), model.sample(5, generator=seeded()))


@pytest.mark.parametrize(
    ("options", "word"),
    [({"bins": 0}, "bins=0"), ({"smoothing": -1.0}, "smoothing=-1"), ({"joint": "always"}, "65,536")],
)
def test_options_that_make_no_sense_are_refused(options: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Histogram(Event((17,), BINARY), **options)


def test_a_table_of_mixed_columns_is_kept_in_a_run_folder(tmp_path):
    """Columns of fewer cells leave cells without mass in the table, whose logarithm is minus infinity."""
    file = tmp_path / "mixed.csv"
    rng = np.random.default_rng(0)
    lines = (f"{a:.5f},{b:.5f},{c}" for a, b, c in zip(*rng.normal(size=(2, 90)), rng.integers(3, 9, 90), strict=True))
    file.write_text("\n".join(lines))
    data = unsup.load_data(file)
    model = unsup.create("histogram", data.event)
    unsup.fit(model, data, out=tmp_path / "run", progress="off")
    again = unsup.load(tmp_path / "run")
    assert torch.equal(again.log_prob(data.test.x), model.log_prob(data.test.x))
    assert bool(again.log_prob(data.test.x).isfinite().all())


def test_a_joint_table_with_missing_entries_is_their_maximum_likelihood() -> None:
    """If only the last entry is missing, it is P(x1) of all rows times P(x2 | x1) of the complete ones."""
    g = np.random.default_rng(0)
    x = torch.tensor(g.integers(0, 2, (400, 2)), dtype=torch.float32)
    x[g.random(400) < 0.6 * x[:, 0].numpy() + 0.1, 1] = torch.nan
    model = Histogram(Event((2,), BINARY, missing=True), joint="always", smoothing=0.0)
    model.prepare(Batch(x), generator=torch.Generator())
    for _ in range(200):
        model.maximize(model.statistics(Batch(x)))
    complete = x[~x[:, 1].isnan()]
    for a in (0, 1):
        for b in (0, 1):
            own = complete[complete[:, 0] == a, 1]
            expected = float((x[:, 0] == a).double().mean() * (own == b).double().mean())
            assert float(model.log_prob(torch.tensor([[a, b]])).exp()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("joint", ["always", "never", "auto"])
def test_missing_entries_are_not_counted_and_not_scored(joint: str) -> None:
    event = Event((2,), (Support("nominal", 3), Support("real")), missing=True)
    x = torch.tensor([[0, 1.0], [2, math.nan], [math.nan, 3.0], [0, 2.0], [math.nan, math.nan]])
    model = Histogram(event, joint=joint, bins=2, smoothing=0.0)
    model.prepare(Batch(x), generator=torch.Generator())
    for _ in range(500):
        model.maximize(model.statistics(Batch(x)))
    assert (float(model.low[1]), float(model.high[1])) == (1.0, 3.0)
    scores = model.log_prob(torch.tensor([[math.nan, math.nan], [2, math.nan], [math.nan, 1.5]]))
    found = scores.exp().tolist()
    assert found[0] == pytest.approx(1)
    if joint == "never":
        assert found[1:] == pytest.approx([1 / 3, 1 / 3])
    assert bool(event.contains(model.sample(50)).all())
    assert not bool(model.sample(50).isnan().any())


@pytest.mark.parametrize(("n", "dims", "size"), [(300, 1, 20), (300, 10, 50), (300, 30, 1e6), (3000, 2, 100)])
def test_far_values_are_the_least_likely_also_in_training(n, dims, size) -> None:
    x = np.random.default_rng(0).normal(size=(n, dims))
    x[[7, 19, 3]] = 0.0
    x[[7, 19, 3], -1] = [size, -0.9 * size, 0.75 * size]
    model = fitted(Event(x.shape[1:], REAL, precision="float64"), torch.tensor(x))
    new = torch.tensor(x[:1]).repeat(4, 1)
    new[:, -1] = torch.tensor([2.0, 3.0, 1e9, 1e12]) * size
    scores = -model.log_prob(torch.cat([torch.tensor(x), new]))
    assert scores.isfinite().all()
    assert scores[:n].argsort(descending=True)[:3].tolist() == [7, 19, 3]
    assert (scores[n:].diff() > 0).all()
    assert scores[n] > scores[7] - 30


def test_bins_reach_the_ends_of_ordinary_columns() -> None:
    g = np.random.default_rng(0)
    x = np.stack([g.normal(size=500), g.uniform(size=500), g.exponential(size=500), g.integers(0, 2, 500)], 1)
    model = fitted(Event(x.shape[1:], REAL, precision="float64"), torch.tensor(x))
    assert model.low.tolist() == x.min(0).tolist()
    assert model.high.tolist() == x.max(0).tolist()


# --- completion


@pytest.mark.parametrize("joint", ["always", "never"])
@pytest.mark.parametrize("hidden", [[0], [1, 2], [0, 1, 2]])
def test_completion_of_discrete_entries_follows_the_table(joint, hidden):
    model = fitted(TABLE, table_data(300), joint=joint)
    n, x = 20_000, torch.tensor([[1, 0, 2]])
    known = torch.ones(3, dtype=torch.bool)
    known[hidden] = False
    drawn = model.complete(x.expand(n, 3), known.expand(n, 3), generator=seeded())
    assert torch.equal(drawn[:, known], x.expand(n, 3)[:, known].to(drawn.dtype))
    cells = torch.tensor(list(itertools.product(range(2), range(-1, 2), range(4))))
    agrees = (cells == x)[:, known].all(1)
    p = (model.log_prob(cells).exp() * agrees)[agrees]
    index = {tuple(cell): i for i, cell in enumerate(cells[agrees].tolist())}
    counts = np.bincount([index[tuple(row)] for row in drawn.tolist()], minlength=len(p))
    assert stats.chisquare(counts, p / p.sum() * n).pvalue > 1e-4


@pytest.mark.parametrize("missing", [False, True])
def test_completion_of_a_real_entry_follows_the_density_in_its_cells(missing):
    g = np.random.default_rng(0)
    level = g.integers(0, 3, 2000)
    event = Event((2,), (Support("ordinal", 3), REAL), missing=missing)
    rows = torch.tensor(np.stack([level, 5 * level + g.normal(size=2000)], 1))
    model = fitted(event, rows, bins=6, joint="always")
    n = 20_000
    x = torch.tensor([[1.0, torch.nan]], dtype=torch.float64).expand(n, 2)
    drawn = model.complete(x, ~x.isnan(), generator=seeded(1))
    nodes = torch.linspace(-100, 100, 200_001, dtype=torch.float64)
    mass = model.log_prob(torch.stack([torch.ones_like(nodes), nodes], 1)).exp()
    below = mass.cumsum(0) / mass.sum()
    assert stats.kstest(np.interp(drawn[:, 1], nodes, below), "uniform").pvalue > 1e-4
    x = torch.tensor([[torch.nan, 5.2]], dtype=torch.float64).expand(n, 2)
    drawn = model.complete(x, ~x.isnan(), generator=seeded(2))
    assert torch.equal(drawn[:, 1], x[:, 1])  # in float64, although the event has float32
    p = model.log_prob(torch.tensor([[k, 5.2] for k in range(3)], dtype=torch.float64)).exp()
    assert stats.chisquare(drawn[:, 0].long().bincount(minlength=3), p / p.sum() * n).pvalue > 1e-4


@pytest.mark.parametrize("joint", ["always", "never"])
def test_completion_ignores_unknown_values_and_other_rows(joint):
    x = table_data(200)
    model = fitted(TABLE, x, joint=joint)
    known = torch.rand(x.shape, generator=seeded(3)) < 0.5
    drawn = model.complete(x, known, generator=seeded(4))
    assert torch.equal(drawn[known], x[known].to(drawn.dtype))
    other = torch.where(known, x, x.flip(0))
    assert torch.equal(model.complete(other, known, generator=seeded(4)), drawn)
    assert torch.equal(model.complete(x[:0], known[:0], generator=seeded(4)), drawn[:0])
    moved = torch.where(known, x.flip(0), x)
    changed = (model.complete(moved, known, generator=seeded(4)) != drawn)[~known].any()
    assert bool(changed) == (joint == "always")


def test_known_entries_of_probability_zero_are_refused():
    model = fitted(TABLE, torch.tensor([[0, 0, 1], [0, 1, 2]]), smoothing=0.0, joint="always")
    known = torch.tensor([[True, False, False]])
    with pytest.raises(InputError, match=r"example 1 have probability 0.*smoothing above 0"):
        model.complete(torch.tensor([[0, 0, 0], [1, 0, 0]]), known.expand(2, 3))
