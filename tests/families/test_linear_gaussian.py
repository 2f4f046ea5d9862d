"""Probabilistic PCA and factor analysis: scikit-learn, dense Gaussians, the closed form, loops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.decomposition import FactorAnalysis as SklearnFactors

import unsup
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.families.classical.factor_analysis import FactorAnalysis
from unsup.families.classical.ppca import PPCA
from unsup.nn import linear_gaussian as engine
from unsup.nn.linear_gaussian import LinearGaussian
from unsup.prob import linear_gaussian as lg

BOTH = (PPCA, FactorAnalysis)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def event(dims: int, missing: bool = False) -> Event:
    return Event((dims,), REAL, precision="float64", missing=missing)


def examples(n: int = 400, dims: int = 8, factors: int = 3, seed: int = 0) -> torch.Tensor:
    """Three factors and unequal noise, in one unit, far from zero."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(n, factors)) @ g.normal(size=(factors, dims))
    return torch.tensor(x + g.normal(size=(n, dims)) * np.linspace(0.3, 1.5, dims) + 7)


def with_gaps(x: torch.Tensor, share: float = 0.2) -> torch.Tensor:
    return x.masked_fill(torch.rand(x.shape, generator=seeded(9)) < share, math.nan)


def fitted(model: LinearGaussian, x: torch.Tensor, passes: int | None = None) -> tuple[LinearGaussian, list[float]]:
    """The model after its passes, and the mean log-likelihood before each."""
    model.prepare(Batch(x), generator=seeded())
    reached: list[float] = []
    for _ in range(passes or model.passes):
        sums = model.statistics(Batch(x))
        if "log_prob" in sums:
            reached.append(float(sums["log_prob"] / sums["count"]))
            if passes is None and len(reached) > 1 and reached[-1] - reached[-2] < model.tolerance:
                break
        model.maximize(sums)
    return model, reached


def dense(model: LinearGaussian) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance in raw units."""
    mean = model.front.mean.double() + model.front.std.double() * model.means.detach()
    return mean.numpy(), model.covariance().detach().numpy()


@pytest.mark.parametrize("components", [1, 3, 6])
def test_ppca_scores_as_scikit_learn(components: int) -> None:
    x = examples()
    model, _ = fitted(PPCA(event(8), components=components, units="common"), x)
    # Its covariance divides by N − 1.
    pca = PCA(components).fit(x.numpy())
    ratio = (len(x) - 1) / len(x)
    pca.explained_variance_, pca.noise_variance_ = pca.explained_variance_ * ratio, pca.noise_variance_ * ratio
    np.testing.assert_allclose(model.log_prob(x).detach(), pca.score_samples(x.numpy()), rtol=1e-9)
    np.testing.assert_allclose(dense(model)[1], pca.get_covariance(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_factor_analysis_scores_as_scikit_learn(components: int) -> None:
    x = examples(factors=components)
    model, _ = fitted(FactorAnalysis(event(8), components=components, tolerance=1e-13, iterations=5000, floor=1e-12), x)
    reference = SklearnFactors(components, tol=1e-12, max_iter=5000, svd_method="lapack").fit(x.numpy())
    np.testing.assert_allclose(model.log_prob(x).detach(), reference.score_samples(x.numpy()), rtol=1e-5)
    np.testing.assert_allclose(dense(model)[1], reference.get_covariance(), rtol=1e-4, atol=1e-4)
    assert float(model.log_prob(x).detach().mean()) > reference.score(x.numpy()) - 1e-9


@pytest.mark.parametrize("cls", BOTH)
def test_log_likelihood_is_that_of_the_covariances(cls: type[LinearGaussian]) -> None:
    x = examples()
    model, _ = fitted(cls(event(8), components=2), x)
    mean, c = dense(model)
    s = np.cov(x.numpy().T, bias=True)
    expected = -len(x) / 2 * (8 * math.log(2 * math.pi) + np.linalg.slogdet(c)[1] + np.trace(np.linalg.solve(c, s)))
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    assert float(model.log_prob(x).detach().sum()) == pytest.approx(expected, rel=1e-12)


def test_ppca_is_the_closed_form() -> None:
    x = examples()
    model, _ = fitted(PPCA(event(8), components=3, units="common"), x)
    values, vectors = np.linalg.eigh(np.cov(x.numpy().T, bias=True))
    noise = values[:5].mean()
    leading = vectors[:, 5:]
    expected = leading @ np.diag(values[5:] - noise) @ leading.T + noise * np.eye(8)
    np.testing.assert_allclose(dense(model)[1], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cls", BOTH)
def test_em_ends_at_the_fit_of_the_covariance(cls: type[LinearGaussian], monkeypatch: pytest.MonkeyPatch) -> None:
    x = examples()
    counted, _ = fitted(cls(event(8), components=3, tolerance=1e-13, iterations=5000), x)
    monkeypatch.setattr(engine, "MOST_DIMS", 4)
    stepped, reached = fitted(cls(event(8), components=3, tolerance=1e-12, iterations=5000), x)
    assert not stepped.counts_covariance
    assert all(after > before - 1e-12 for before, after in pairwise(reached))
    np.testing.assert_allclose(dense(stepped)[1], dense(counted)[1], rtol=1e-3, atol=1e-3)
    assert reached[-1] == pytest.approx(float(counted.log_prob(x).detach().mean()), abs=1e-8)


@pytest.mark.parametrize("cls", BOTH)
def test_em_with_gaps_is_monotone_and_ends_at_a_maximum(cls: type[LinearGaussian]) -> None:
    x = with_gaps(examples())
    model, reached = fitted(cls(event(8, missing=True), components=3, tolerance=1e-12, iterations=3000), x)
    assert all(after > before - 1e-12 for before, after in pairwise(reached))
    assert reached[-1] > reached[0] + 1e-2
    best = float(model.log_prob(x).detach().mean())
    for seed in range(6):  # any small change lowers the likelihood
        other = cls(event(8, missing=True), components=3)
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            for parameter in other.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=seeded(seed), dtype=parameter.dtype)
        assert float(other.log_prob(x).detach().mean()) < best


@pytest.mark.parametrize("cls", BOTH)
def test_em_without_gaps_ignores_that_there_could_be_some(cls: type[LinearGaussian]) -> None:
    x = examples(n=150, factors=2)
    model, _ = fitted(cls(event(8, missing=True), components=2, tolerance=1e-11, iterations=3000), x)
    counted, _ = fitted(cls(event(8), components=2, tolerance=1e-13, iterations=3000), x)
    np.testing.assert_allclose(model.log_prob(x).detach(), counted.log_prob(x).detach(), atol=2e-3)
    best = float(counted.log_prob(x).detach().mean())
    assert float(model.log_prob(x).detach().mean()) == pytest.approx(best, abs=1e-8)


def test_small_noise_gives_the_codes_of_pca() -> None:
    g = np.random.default_rng(1)
    x = torch.tensor(g.normal(size=(300, 2)) @ g.normal(size=(2, 6)) + 1e-4 * g.normal(size=(300, 6)))
    model, _ = fitted(PPCA(event(6), components=2, units="common", floor=1e-14), x)
    codes = PCA(2, whiten=True).fit(x.numpy())
    expected = codes.transform(x.numpy()) * math.sqrt(len(x) / (len(x) - 1))
    found = model.encode(x).detach().numpy()
    np.testing.assert_allclose(np.abs((found * expected).mean(0)), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose(model.decode(model.encode(x)).detach(), x, atol=1e-3)


@pytest.mark.parametrize("cls", BOTH)
def test_conditionals_with_gaps_are_those_of_the_dense_gaussian(cls: type[LinearGaussian]) -> None:
    x = with_gaps(examples(n=60))
    model, _ = fitted(cls(event(8, missing=True), components=3, iterations=20), x)
    mean, c = dense(model)
    scores, each = model.log_prob(x).detach(), model.log_given_rest(x).detach()
    loadings = (model.loadings * model.front.std.double()[:, None]).detach().numpy()
    for row, score, own, code in zip(x.numpy(), scores, each, model.encode(x).detach(), strict=True):
        seen = np.flatnonzero(~np.isnan(row))
        inverse = np.linalg.inv(c[np.ix_(seen, seen)])
        residual = row[seen] - mean[seen]
        density = stats.multivariate_normal(mean[seen], c[np.ix_(seen, seen)]).logpdf(row[seen])
        assert float(score) == pytest.approx(density, abs=1e-9)
        np.testing.assert_allclose(code, loadings[seen].T @ inverse @ residual, atol=1e-9)
        variance = 1 / np.diag(inverse)
        pulled = row[seen] - variance * (inverse @ residual)
        np.testing.assert_allclose(own[seen], stats.norm.logpdf(row[seen], pulled, np.sqrt(variance)), atol=1e-9)
        assert not own[np.flatnonzero(np.isnan(row))].any()


@pytest.mark.parametrize("cls", BOTH)
def test_completions_have_the_moments_of_the_dense_conditional(cls: type[LinearGaussian]) -> None:
    x = examples()
    model, _ = fitted(cls(event(8), components=2), x)
    mean, c = dense(model)
    known = torch.tensor([True, False, True, True, False, False, True, False])
    k, u = known.numpy().nonzero()[0], (~known).numpy().nonzero()[0]
    gain = c[np.ix_(u, k)] @ np.linalg.inv(c[np.ix_(k, k)])
    expected = mean[u] + gain @ (x[0].numpy()[k] - mean[k])
    left = c[np.ix_(u, u)] - gain @ c[np.ix_(k, u)]
    n = 40_000
    drawn = model.complete(x[:1].expand(n, -1), known.expand(n, -1), generator=seeded()).numpy()
    assert (drawn[:, k] == x[0].numpy()[k]).all()
    np.testing.assert_allclose(drawn[:, u].mean(0), expected, atol=5 * np.sqrt(np.diag(left).max() / n))
    np.testing.assert_allclose(np.cov(drawn[:, u].T), left, atol=8 * np.diag(left).max() / math.sqrt(n))


def test_temperature_scales_the_deviations() -> None:
    model, _ = fitted(PPCA(event(8), components=2), examples())
    warm, cold = (model.sample(50, generator=seeded(), temperature=t) for t in (1.0, 0.5))
    mean = torch.tensor(dense(model)[0])
    torch.testing.assert_close(cold - mean, 0.5 * (warm - mean))


def test_bic_chooses_the_factors_that_made_the_data() -> None:
    x = examples(n=2000)
    model, _ = fitted(FactorAnalysis(event(8)), x)
    assert model.code_size == 3
    g = np.random.default_rng(3)
    flat = torch.tensor(g.normal(size=(1000, 4)) @ g.normal(size=(4, 12)) + 0.5 * g.normal(size=(1000, 12)))
    model, _ = fitted(PPCA(event(12), units="common"), flat)
    assert model.code_size == 4
    assert model.encode(flat).shape == (1000, 4)
    bics = [fitted(PPCA(event(12), components=k, units="common"), flat)[0].bic(flat) for k in (3, 4, 5)]
    assert model.bic(flat) == pytest.approx(min(bics)) == pytest.approx(bics[1])
    gaps = with_gaps(flat, 0.1)
    assert fitted(PPCA(event(12, missing=True), units="common"), gaps)[0].code_size in (3, 5)  # of 1, 2, 3, 5, …


def test_units_of_entries_matter_to_ppca_only_if_they_are_common() -> None:
    x, scale = examples(), torch.linspace(0.1, 10, 8, dtype=torch.float64)
    for model, invariant in (
        (lambda: PPCA(event(8), components=2, units="each"), True),
        (lambda: PPCA(event(8), components=2, units="common"), False),
        (lambda: FactorAnalysis(event(8), components=2), True),
    ):
        plain = fitted(model(), x)[0].log_prob(x)
        scaled = fitted(model(), x * scale)[0].log_prob(x * scale) + scale.log().sum()
        assert torch.allclose(plain, scaled, atol=1e-8) == invariant
    assert PPCA(event(8)).units == "each"
    assert PPCA(Event((1, 4, 4), Support("ordinal", 16))).units == "common"


def test_heywood_case_is_floored_and_reported() -> None:
    x = examples(dims=4, factors=1)
    x = torch.cat([x, x[:, :1]], 1)  # a column twice
    model, _ = fitted(FactorAnalysis(event(5), components=2), x)
    assert bool(model.log_prob(x).isfinite().all())
    symptom = model.diagnose({})
    assert symptom is not None
    assert symptom.name == "heywood"
    assert "2 of 5 entries" in symptom.advice
    assert float(model.log_noise.detach().exp().min()) >= model.floor * (1 - 1e-9)
    assert fitted(FactorAnalysis(event(8), components=2), examples())[0].diagnose({}) is None
    constant = torch.cat([examples(), torch.full((400, 1), 3.0)], 1)
    assert fitted(FactorAnalysis(event(9), components=2), constant)[0].diagnose({}) is None


def test_unfinished_em_and_noise_at_its_floor_are_reported() -> None:
    symptom = fitted(FactorAnalysis(event(8), components=3, iterations=1), examples())[0].diagnose({})
    assert symptom is not None
    assert symptom.name == "unconverged"
    x = examples(dims=3, factors=1)
    x = torch.cat([x, x], 1)
    symptom = fitted(PPCA(event(6), components=3), x)[0].diagnose({})
    assert symptom is not None
    assert symptom.name == "degenerate"


@pytest.mark.parametrize("cls", BOTH)
def test_bad_input_is_refused(cls: type[LinearGaussian]) -> None:
    with pytest.raises(InputError, match="more than 8 entries"):
        cls(event(8), components=8)
    with pytest.raises(InputError, match="two or more entries"):
        cls(event(1))
    with pytest.raises(InputError, match="no categories"):
        cls(Event((3,), Support("nominal", 3)))
    with pytest.raises(InputError, match="two or more training examples"):
        cls(event(3)).prepare(Batch(torch.zeros(1, 3)), generator=seeded())


@pytest.mark.parametrize("cls", BOTH)
def test_colour_images_need_no_large_matrix(cls: type[LinearGaussian], monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (3, 32, 32)
    g = np.random.default_rng(0)
    raw = 128 + 20 * g.normal(size=(60, 5)) @ g.normal(size=(5, 3072)) + 10 * g.normal(size=(60, 3072))
    x = torch.tensor(raw.clip(0, 255)).round().to(torch.uint8).view(60, *shape)
    largest = 0

    def seen(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        nonlocal largest
        largest = max([largest, *(t.numel() for t in tensors.values())])
        return tensors

    expected = lg.expected
    monkeypatch.setattr(lg, "expected", lambda *args, **kwargs: seen(expected(*args, **kwargs)))
    model = cls(Event(shape, Support("ordinal", 256)), components=5)
    model.prepare(Batch(x), generator=seeded())
    before = float(model.log_prob(x, generator=seeded()).detach().mean())
    for _ in range(3):
        model.maximize(model.statistics(Batch(x), generator=seeded()))
    assert float(model.log_prob(x, generator=seeded()).detach().mean()) > before
    assert largest <= 3072 * 6
    assert model.sample(2, generator=seeded()).shape == (2, *shape)
    assert model.decode(model.encode(x)).sub(x.long()).abs().float().mean() < 15


def test_start_of_em_is_the_singular_value_decomposition() -> None:
    g = np.random.default_rng(5)
    y = torch.tensor(g.normal(size=(50, 6)) @ np.diag([9, 7, 5, 3, 2, 1]) @ g.normal(size=(6, 200)))
    values, vectors = lg.leading_directions(y, 4, seeded())
    s, v = torch.linalg.svd(y)[1:]
    torch.testing.assert_close(values, s[:4].square() / 50)
    torch.testing.assert_close((vectors.T @ v[:4].T).abs(), torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_bound_of_a_linear_vae_is_the_likelihood_of_ppca_at_its_posterior() -> None:
    """With linear nets, the bound of the best VAE is the likelihood of PPCA (Lucas et al. 2019): no VAE exceeds it."""
    x = examples(n=300, dims=5, factors=2)
    model, _ = fitted(PPCA(event(5), components=2, units="common"), x)
    y = model.front(x)[0]
    w, noise = model.loadings.detach(), model.log_noise.detach().exp()
    inner = torch.linalg.inv(w.T @ w + noise * torch.eye(2, dtype=torch.float64))
    encoder = inner @ w.T  # of the exact posterior, which is diagonal, as WᵀW is
    variance = (noise * inner).diagonal()

    def bound(encoder: torch.Tensor, variance: torch.Tensor, w: torch.Tensor) -> float:
        centred = y - model.means.detach()
        mean = centred @ encoder.T
        squares = (centred - mean @ w.T).square().sum(1) + (w.square().sum(0) * variance).sum()
        fit = -0.5 * (squares / noise + 5 * (math.log(2 * math.pi) + noise.log()))
        divergence = 0.5 * (mean.square() + variance - variance.log() - 1).sum(1)
        return float((fit - divergence).mean())

    exact = float((model.log_prob(x) - model.front(x)[1]).detach().mean())
    assert bound(encoder, variance, w) == pytest.approx(exact, abs=1e-9)
    for seed in range(5):
        noisy = 0.05 * torch.randn(5, 2, generator=seeded(seed), dtype=torch.float64)
        assert bound(encoder + noisy.T, variance, w) < exact
        assert bound(encoder, variance * 1.2, w) < exact
        assert bound(encoder, variance, w + noisy) < exact


def test_best_linear_vae_has_the_likelihood_of_ppca() -> None:
    """From a random start, by gradients: the best bound of linear nets with one noise variance (Lucas et al. 2019)."""
    x = examples(n=300, dims=5, factors=2)
    model, _ = fitted(PPCA(event(5), components=2, units="common"), x)
    y = model.front(x)[0].detach()
    y = y - y.mean(0)
    start = [0.3 * torch.randn(size, generator=seeded(4), dtype=torch.float64) for size in ((5, 2), (2, 5), (2,), ())]
    decoder, encoder, log_variance, log_noise = (part.requires_grad_() for part in start)
    optimizer = torch.optim.LBFGS(start, max_iter=500, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        mean, variance = y @ encoder.T, log_variance.exp()
        squares = (y - mean @ decoder.T).square().sum(1) + (decoder.square().sum(0) * variance).sum()
        fit = -0.5 * (squares / log_noise.exp() + 5 * (math.log(2 * math.pi) + log_noise))
        negative = -(fit - 0.5 * (mean.square() + variance - log_variance - 1).sum(1)).mean()
        negative.backward()
        return negative

    best = -float(optimizer.step(loss).detach()), -float(loss().detach())
    assert best[1] == pytest.approx(float((model.log_prob(x) - model.front(x)[1]).detach().mean()), abs=1e-6)
    assert best[0] < best[1] - 0.1  # the start


def test_run_of_a_table_with_gaps_fits_resumes_and_fills(tmp_path) -> None:
    x = with_gaps(examples(n=200)).numpy()
    path = tmp_path / "table.csv"
    lines = [",".join("abcdefgh"), *(",".join("" if np.isnan(v) else f"{v:.5f}" for v in row) for row in x)]
    path.write_text("\n".join(lines))
    data = unsup.load_data(path)
    model = unsup.create("factor-analysis", data.event, components=2, seed=0)
    unsup.fit(model, data, out=tmp_path / "run", progress="off")
    again = unsup.load(tmp_path / "run")
    torch.testing.assert_close(again.log_prob(data.test.x), model.log_prob(data.test.x))
    gaps = data.test.x.isnan()
    filled = again.complete(data.test.x.nan_to_num(0.0), ~gaps, generator=seeded())
    assert bool(filled.isfinite().all())
    assert bool((filled[~gaps] == data.test.x[~gaps]).all())
