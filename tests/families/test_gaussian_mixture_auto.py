"""components="auto": the choice by BIC, noise in place of small components, and the warning of a degenerate fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture as SklearnMixture

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import keyed_generator
from unsup.families.classical.gaussian_mixture import COUNTS, SMALLEST, GaussianMixture
from unsup.nn.counting import added
from unsup.sklearn import DensityEstimator


def chosen(x: np.ndarray, **options) -> GaussianMixture:
    model = GaussianMixture(Event(x.shape[1:], REAL, precision="float64"), **options)
    model.prepare(Batch(torch.tensor(x)), generator=keyed_generator(0))
    return model


def clusters(k: int, n: int, dims: int, seed: int, *, round_ones: bool) -> np.ndarray:
    g = np.random.default_rng(seed)
    centres = 9 * g.normal(size=(k, dims))
    shapes = np.stack([(1 + i) * np.eye(dims) if round_ones else g.normal(size=(dims, dims)) for i in range(k)])
    own = g.integers(0, k, n)
    return centres[own] + np.einsum("nij,nj->ni", shapes[own], g.normal(size=(n, dims)))


@pytest.mark.parametrize(("k", "round_ones", "form"), [(1, False, "full"), (3, False, "full"), (2, True, "diagonal")])
def test_finds_the_components_and_the_form_of_their_covariances(k, round_ones, form) -> None:
    model = chosen(clusters(k, 900, 3, seed=1, round_ones=round_ones))
    assert (int(model.used.sum()), model.covariance) == (k, form)


def test_the_choice_is_the_lowest_bic_of_all_candidates() -> None:
    x = clusters(3, 400, 2, seed=3, round_ones=False)
    y = torch.tensor((x - x.mean(0)) / x.std(0))
    found = {}
    for form in ("diagonal", "tied", "full"):
        for k in COUNTS:
            one = GaussianMixture(Event((2,), REAL, precision="float64"))
            one.scale(Batch(torch.tensor(x)), generator=keyed_generator(0))
            bic = one.try_candidate(y, k, form, generator=keyed_generator(0))
            # the same by scipy: every component, the noise, and the parameters counted by hand
            factors, weights = one.gaussians.factors(one.used).detach(), one.logits.detach().softmax(0)
            density = sum(
                float(w) * stats.multivariate_normal(m, np.linalg.inv(u @ u.T)).pdf(y.numpy())
                for w, m, u in zip(weights, one.gaussians.means.detach().numpy(), factors.numpy(), strict=True)
            )
            used = int(one.used.sum())
            free = used + 2 * used + {"diagonal": 2 * used, "tied": 3, "full": 3 * used}[form]
            assert bic == pytest.approx(free * math.log(len(x)) - 2 * np.log(density).sum(), rel=1e-6)
            found[form, used] = min(bic, found.get((form, used), math.inf))
    model = chosen(x)
    assert (model.covariance, int(model.used.sum())) == min(found, key=found.get) == ("full", 3)


def test_agrees_with_scikit_learn_where_prior_and_noise_do_not_count() -> None:
    x = clusters(2, 20_000, 3, seed=5, round_ones=True)
    model = chosen(x)
    for _ in range(50):
        model.maximize(model.statistics(Batch(torch.tensor(x))))
    reference = SklearnMixture(2, n_init=3, random_state=0).fit(x)
    mine = model.log_prob(torch.tensor(x)).detach().numpy()
    assert abs(mine.mean() - reference.score(x)) < 2e-3
    assert np.corrcoef(mine, reference.score_samples(x))[0, 1] > 0.999


@pytest.mark.parametrize(("share", "width", "dims"), [(0.04, 0.01, 5), (0.02, 0.1, 10), (0.045, 0.3, 3), (0.01, 0, 2)])
def test_a_tight_group_of_anomalies_gets_no_component(share, width, dims) -> None:
    g = np.random.default_rng(0)
    n, odd = 1000, int(1000 * share)
    x = np.concatenate([g.normal(size=(n, dims)) @ g.normal(size=(dims, dims)), 8 + width * g.normal(size=(odd, dims))])
    y = np.repeat([0, 1], [n, odd])
    estimator = DensityEstimator(random_state=0).fit(x)
    assert roc_auc_score(y, -estimator.score_samples(x)) > 0.99
    code = estimator.model_.encode(torch.tensor(x)).detach()
    assert float(code[n:, -1].min()) > 0.99  # noise
    assert float(code[:n, -1].mean()) < SMALLEST


def dependent_rows() -> tuple[np.ndarray, np.ndarray]:
    """Twenty rows of 1000 break the dependence of two columns; the last row of all is an ordinary one."""
    g = np.random.default_rng(0)
    z = g.normal(size=(1000, 2))
    x = np.stack([z[:, 0], z[:, 0] + 0.2 * z[:, 1], g.normal(size=1000)], 1)
    x[:20] = g.normal(size=(20, 3))
    x[:20, 1] = -1.5 * x[:20, 0]
    return x, (np.arange(1000) < 20).astype(int)


@pytest.mark.parametrize("gross", [1e4, 1e5, 1e8, 1e100])
@pytest.mark.parametrize("columns", [[0, 1, 2], [1], [2]])
def test_one_gross_value_changes_little(gross, columns) -> None:
    x, y = dependent_rows()
    clean = -DensityEstimator(random_state=0).fit(x).score_samples(x)[:-1]
    x[-1, columns] = gross
    scores = -DensityEstimator(random_state=0).fit(x).score_samples(x)
    assert scores.argmax() == 999
    assert roc_auc_score(y[:-1], scores[:-1]) > max(0.8, roc_auc_score(y[:-1], clean) - 0.02)


def test_a_gross_value_in_a_column_that_is_mostly_zero_or_beside_levels() -> None:
    x, y = dependent_rows()
    x[:, 2] = np.where(x[:, 2] > 1, x[:, 2], 0)
    x[-1, 2] = 1e8
    assert roc_auc_score(y[:-1], -DensityEstimator(random_state=0).fit(x).score_samples(x)[:-1]) > 0.8
    levels = np.random.default_rng(1).integers(0, 3, 1000)
    model = GaussianMixture(Event((3,), (REAL, REAL, Support("ordinal", 3)), precision="float64"))
    model.prepare(Batch(torch.tensor(np.stack([x[:, 0], x[:, 1], levels], 1))), generator=keyed_generator(0))
    assert model.limits.isfinite().tolist() == [[True, True, False]] * 2
    assert float(model.columns.front.std[1]) == pytest.approx(x[:, 1].std(), rel=1e-6)
    assert float(model.levels[0].spread) == pytest.approx(levels.std(), rel=1e-6)


def test_as_many_columns_as_rows() -> None:
    g = np.random.default_rng(0)
    x, new = g.normal(size=(2, 400, 300))
    estimator = DensityEstimator(random_state=0).fit(x)
    truth = stats.norm.logpdf(new).sum(1).mean()
    assert truth - 5 < estimator.score(new) < truth
    with pytest.warns(ConvergenceWarning, match=r"no variance of its own in (2\d\d|300) of 300 directions"):
        bad = DensityEstimator(options={"components": 10}, random_state=0).fit(x)
    assert bad.score(new) < -1e6


@pytest.mark.parametrize(("share", "degenerate"), [(1.3, False), (0.7, True)])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("floor", [1e-6, 1e-2])
def test_degenerate_is_a_direction_whose_variance_is_at_least_half_floor(floor, covariance, share, degenerate) -> None:
    model = GaussianMixture(Event((3,), REAL), components=2, covariance=covariance, floor=floor)
    own = torch.tensor([1.0, 1.0, share * floor], dtype=torch.float64)  # of the directions
    turn = torch.eye(3, dtype=torch.float64)
    if covariance == "full":  # no column by itself shows it
        turn = torch.linalg.qr(torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 0, 2]], dtype=torch.float64))[0]
    points = 3**0.5 * torch.cat([turn.T, -turn.T]) * torch.cat([own, own]).sqrt()[:, None]
    y = torch.cat([points, points + 40])
    responsibility = torch.eye(2, dtype=torch.float64).repeat_interleave(6, 0)
    model.maximize(added(model._sums(part, r) for part, r in [(y, responsibility)]))
    assert (model.diagnose({}) is not None) == degenerate


@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_a_column_that_others_determine_is_degenerate(covariance) -> None:
    x = np.random.default_rng(0).normal(size=(600, 3))
    with pytest.warns(ConvergenceWarning, match="no variance of its own in 1 of 4 directions"):
        DensityEstimator(options={"components": 2, "covariance": covariance}, random_state=0).fit(
            np.c_[x, x[:, 0] + x[:, 1]]
        )


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
def test_small_components_of_a_good_fit_are_not_degenerate() -> None:
    g = np.random.default_rng(0)
    x = np.concatenate([g.normal(0, 1, 300), g.normal(5, 0.5, 200)])[:, None]
    DensityEstimator(options={"components": 10, "floor": 1e-3}, random_state=0).fit(x)


@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("options", [{}, {"components": 2}, {"components": 2, "covariance": "diagonal"}])
def test_no_warning_of_columns_that_are_constant(options) -> None:
    x = np.random.default_rng(0).normal(size=(300, 4))
    x[:, 2] = 7.0
    DensityEstimator(options=options, random_state=0).fit(x)


def test_a_covariance_that_is_named_is_kept_and_explicit_numbers_have_no_noise() -> None:
    x = clusters(2, 200, 2, seed=0, round_ones=True)
    assert chosen(x, covariance="tied").covariance == "tied"
    explicit = chosen(x, components=2)
    assert (explicit.covariance, len(explicit.gaussians.means)) == ("full", 2)
    assert len(GaussianMixture(Event((2,), REAL), learn="gradient").gaussians.means) == 10


@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_rows(n) -> None:
    x = np.random.default_rng(0).normal(size=(n, 5))
    assert torch.isfinite(chosen(x).log_prob(torch.tensor(x))).all()


@pytest.mark.parametrize(("low", "levels"), [(0, 2), (0, 10), (0, 256), (-7, 300), (1_700_000_037, 60_000)])
def test_levels_of_any_size_and_place(low, levels) -> None:
    event = Event((2,), (Support("ordinal", levels, low=low), Support("ordinal", 7)))
    g = torch.Generator().manual_seed(0)
    columns = [torch.randint(0, k, (300,), generator=g) for k in (levels, 7)]
    x = torch.stack([low + columns[0], columns[1]], 1).to(event.dtype)
    model = GaussianMixture(event)
    model.prepare(Batch(x), generator=keyed_generator(0))
    assert float(model.log_prob(x).mean().detach()) > -math.log(levels * 7) - 0.5


def test_one_row_is_refused() -> None:
    with pytest.raises(InputError, match="two or more"):
        chosen(np.zeros((1, 2)))


@pytest.mark.parametrize("options", [{}, {"components": 3}, {"components": 3, "covariance": "diagonal"}])
def test_log_given_rest_is_the_joint_less_the_integral_over_one_entry(options) -> None:
    x = clusters(3, 300, 3, seed=2, round_ones=False)
    model = chosen(x, **options)
    rows = torch.tensor(x[:3])
    got = model.log_given_rest(rows).detach()
    grid = torch.linspace(-80, 80, 160_001, dtype=torch.float64)
    for i in range(3):
        for d in range(3):
            line = rows[i].repeat(len(grid), 1)
            line[:, d] = grid
            with torch.no_grad():
                total = torch.logsumexp(model.log_prob(line), 0) + math.log(160 / 160_000)
                assert float(got[i, d]) == pytest.approx(float(model.log_prob(rows[i : i + 1]) - total), abs=1e-3)
