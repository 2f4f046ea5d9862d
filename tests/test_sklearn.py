"""The scikit-learn estimators: scikit-learn's own checks, closed forms, and stories of pipelines and searches."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import unsup
from unsup import Event, InputError, Support
from unsup.core.event import BINARY, REAL
from unsup.core.model import CanEncode, HasDensity, HasEnergy
from unsup.core.registry import model_class, names
from unsup.data.source import Data, Split
from unsup.sklearn import DensityEstimator, Encoder

ROOT = Path(__file__).parent.parent
TINY = {"preset": "tiny"}
BRIEF = {"steps": 3, "validate_every": 3}
PLANE = Event((2,), REAL)
DIGITS = Event((1, 8, 8), Support("ordinal", 17))


def taking(event: Event, *abilities: type) -> list[str]:
    found = {n: model_class(n) for n in names()}
    return [n for n, c in found.items() if issubclass(c, abilities) and c.reason_against(event) is None]


def tiny(model: str, cls: type = DensityEstimator, **parameters: object) -> DensityEstimator | Encoder:
    return cls(model, **{"options": TINY, "training": BRIEF, "random_state": 0} | parameters)


def blobs(*centres: tuple[float, ...], n: int = 100, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(c, scale, (n, len(c))) for c in centres])


# --- scikit-learn's checks --------------------------------------------------------------------------------------------


# The estimators share their code: one model for each way to learn and to score, and all others in the slow tests.
TYPICAL = ("gaussian-mixture", "kde", "ppca", "made", "realnvp", "vae", "ebm")


def checked(*, typical: bool) -> list[DensityEstimator | Encoder]:
    found = [(n, DensityEstimator) for n in taking(PLANE, HasDensity, HasEnergy)]
    found += [(n, Encoder) for n in taking(PLANE, CanEncode)]
    return [tiny(n, cls, random_state=None) for n, cls in found if (n in TYPICAL) == typical]


@parametrize_with_checks([*checked(typical=True), DensityEstimator(), Encoder()])
def test_estimators_keep_the_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(checked(typical=False))
def test_estimators_of_all_models_keep_the_contract(estimator, check):
    check(estimator)


def test_the_checks_saw_every_kind():
    assert {"gaussian-mixture", "histogram", "made", "realnvp", "vae", "ebm", "score-matching"} <= set(
        taking(PLANE, HasDensity, HasEnergy)
    )
    assert {"gaussian-mixture", "realnvp", "vae"} <= set(taking(PLANE, CanEncode))


def test_codes_come_as_a_frame_with_names():
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(blobs((0.0, 0.0)), columns=["height", "width"], index=range(5, 105))
    encoder = Encoder(options={"components": 3}, random_state=0).set_output(transform="pandas").fit(X)
    z = encoder.transform(X)
    assert z.columns.tolist() == encoder.get_feature_names_out().tolist() == ["encoder0", "encoder1", "encoder2"]
    assert z.index.equals(X.index)
    assert encoder.feature_names_in_.tolist() == ["height", "width"]
    with pytest.raises(ValueError, match="feature names"):
        encoder.transform(X[["width", "height"]])


# --- scores -----------------------------------------------------------------------------------------------------------


def test_one_gaussian_is_that_of_the_sample_moments_of_all_rows():
    X = blobs((3.0, -100.0, 0.01), scale=2.0) @ np.random.default_rng(1).normal(size=(3, 3))
    estimator = DensityEstimator(options={"components": 1, "floor": 0.0}).fit(X)
    expected = multivariate_normal(X.mean(0), np.cov(X.T, ddof=0)).logpdf(X)
    np.testing.assert_allclose(estimator.score_samples(X), expected, rtol=1e-9)
    assert estimator.score(X) == pytest.approx(expected.mean(), rel=1e-9)
    assert estimator.likelihood_kind_ == "exact"


@pytest.mark.parametrize("model", ["made", "realnvp", "histogram"])
def test_exact_scores_are_those_of_the_model(model):
    X = blobs((3.0, 50.0), n=150)
    estimator = tiny(model).fit(X)
    with torch.no_grad():
        expected = estimator.model_.log_prob(torch.tensor(X)).numpy()
    assert estimator.score_samples(X).dtype == np.float64
    np.testing.assert_allclose(estimator.score_samples(X), expected, rtol=1e-12)


def gappy() -> np.ndarray:
    X = blobs((3.0, 50.0, 1.0), n=200) @ np.random.default_rng(1).normal(size=(3, 3))
    X[np.random.default_rng(2).random(X.shape) < 0.2] = np.nan
    return X


@pytest.mark.parametrize("model", ["ppca", "factor-analysis", "gaussian-mixture", "naive-bayes", "histogram"])
def test_rows_with_gaps_are_scored_as_by_the_library(model):
    X = gappy()
    estimator = tiny(model, training={}).fit(X)
    event, x = unsup.from_arrays(X).event, torch.tensor(X)
    assert event.missing
    data = Data(None, event, Split(x), Split(x), Split(x[:0]))
    fitted = unsup.create(model, event, seed=estimator.seed_, **TINY)
    unsup.fit(fitted, data, progress="off", seed=estimator.seed_)
    scores = fitted.double().log_prob(x).detach().numpy()
    np.testing.assert_allclose(estimator.score_samples(X), scores, rtol=1e-6)
    assert np.isfinite(scores).all()
    assert estimator.__sklearn_tags__().input_tags.allow_nan
    assert (pickle.loads(pickle.dumps(estimator)).score_samples(X) == estimator.score_samples(X)).all()
    assert 0 < (estimator.predict(X) == -1).sum() <= 20  # of equal scores, none


def test_the_noise_of_rows_with_gaps_is_that_of_the_row():
    X = gappy()
    estimator = tiny("vae").fit(X)
    np.testing.assert_allclose(estimator.score_samples(X[::-1])[::-1], estimator.score_samples(X), rtol=1e-9)
    assert tiny("vae", Encoder).fit(X).transform(X).shape == (200, 4)


def test_gaps_that_a_model_or_an_event_does_not_have_are_refused():
    X = gappy()
    assert not DensityEstimator("kde").__sklearn_tags__().input_tags.allow_nan
    with pytest.raises(InputError, match=r"or use a model that takes NaN: .*ppca"):
        DensityEstimator("kde").fit(X)
    with pytest.raises(InputError, match=r"or use event=unsup.Event\(..., missing=True\)"):
        DensityEstimator("ppca", event=Event((3,), REAL)).fit(X)
    with pytest.raises(InputError, match="or fit with such rows too"):
        DensityEstimator("ppca").fit(np.nan_to_num(X)).score_samples(X)
    infinite = np.where(np.isnan(X), np.inf, X)
    infinite[0] = np.nan
    with pytest.raises(InputError, match="infinit"):
        DensityEstimator("ppca", event=Event((3,), REAL, missing=True)).fit(infinite)


@pytest.mark.parametrize("model", taking(PLANE, HasEnergy))
def test_scores_of_an_energy_are_its_negative_and_there_is_no_mean_of_them(model):
    X = blobs((3.0, 50.0))
    estimator = tiny(model)
    assert not hasattr(estimator, "score")
    estimator.fit(X)
    assert estimator.likelihood_kind_ == "unnormalised"
    with torch.no_grad():
        np.testing.assert_allclose(estimator.score_samples(X), -estimator.model_.energy(torch.tensor(X)).numpy())
    assert not hasattr(estimator, "score")
    with pytest.raises(TypeError, match="score"):
        GridSearchCV(estimator, {"contamination": [0.1]}).fit(X)


def test_the_noise_of_a_bound_is_a_fresh_draw_for_each_row():
    X = blobs((0.0, 0.0))
    estimator = tiny("vae", training={"steps": 50, "validate_every": 50}).fit(X)
    same = np.tile(X[:1], (2000, 1))
    assert len(set(estimator.score_samples(same))) == 1
    assert len(set(estimator.score_samples([[0.0, 0.0], [-0.0, 0.0]]))) == 1
    alike = same + 1e-12 * np.arange(2000)[:, None]  # 2,000 rows, and in effect one
    with torch.no_grad():
        draws = estimator.model_.log_prob(torch.tensor(same), generator=torch.Generator().manual_seed(5)).numpy()
    found = estimator.score_samples(alike)
    assert len(set(found)) == 2000
    assert ks_2samp(found, draws).pvalue > 0.01


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("ffjord", "residual-flow") else name
        for name in taking(DIGITS, HasDensity, HasEnergy)
    ],
)
def test_scores_of_whole_numbers_do_not_depend_on_batch_or_order(model):
    rng = np.random.default_rng(0)
    X = load_digits().data[:250]
    estimator = tiny(model, event=DIGITS, training={"steps": 2, "validate_every": 2}).fit(X[:60])
    scores, order = estimator.score_samples(X), rng.permutation(250)
    np.testing.assert_allclose(estimator.score_samples(X[order].astype(np.uint8)), scores[order], rtol=1e-10)
    np.testing.assert_allclose(np.concatenate([estimator.score_samples(X[i : i + 1]) for i in range(5)]), scores[:5])


@pytest.mark.parametrize("parameters", [{}, {"options": {**TINY, "hidden": 24}}], ids=["enumerated", "annealed"])
def test_a_machine_of_binary_units_scores_bits(parameters):
    bits = (load_digits().data[:300] > 7).astype(int)
    estimator = tiny("rbm", event="auto", **parameters).fit(bits)
    assert estimator.event_ == Event((64,), BINARY)
    assert estimator.likelihood_kind_ == ("estimate" if parameters else "exact")
    x = torch.tensor(bits[:20])
    with torch.no_grad():
        expected = -estimator.model_.energy(x).double()
    difference = estimator.score_samples(bits[:20]) - expected.numpy()
    np.testing.assert_allclose(difference, difference[0])  # −log Z
    if not parameters:
        values = torch.cartesian_prod(*[torch.arange(2)] * 6).double()
        w, b, c = (p.detach() for p in estimator.model_.interaction())
        log_z = (values @ c + torch.nn.functional.softplus(values @ w.T + b).sum(1)).logsumexp(0)
        assert difference[0] == pytest.approx(-float(log_z))


# --- outliers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gaussian-mixture", "vae", "ebm"])
@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.5])
def test_the_share_flagged_in_training_is_the_contamination(model, contamination):
    X = blobs((0.0, 0.0), (5.0, 5.0))
    estimator = tiny(model, contamination=contamination)
    flagged = estimator.fit_predict(X) == -1
    assert flagged.sum() == 200 * contamination
    decision = estimator.decision_function(X)
    np.testing.assert_array_equal(flagged, decision < 0)
    np.testing.assert_array_equal(decision, estimator.score_samples(X) - estimator.offset_)
    assert decision[flagged].max() < decision[~flagged].min()


def test_what_is_far_is_an_outlier():
    estimator = DensityEstimator(options={"components": 2}, random_state=0).fit(blobs((-5.0, 0.0), (5.0, 0.0)))
    assert estimator.predict([[-5, 0], [5, 0], [0, 0], [5, 9]]).tolist() == [1, 1, -1, -1]


# --- pipelines, searches ----------------------------------------------------------------------------------------------


def test_a_scaler_changes_the_density_by_its_jacobian():
    X = blobs((3.0, 50.0), (9.0, 20.0)) * [1.0, 40.0]
    estimator = DensityEstimator(options={"components": 2}, random_state=0)
    pipeline = make_pipeline(StandardScaler(), clone(estimator)).fit(X)
    shift = np.log(pipeline[0].scale_).sum()
    np.testing.assert_allclose(pipeline.score_samples(X) - shift, estimator.fit(X).score_samples(X), rtol=1e-6)
    np.testing.assert_array_equal(pipeline.predict(X), estimator.predict(X))


def test_a_search_finds_the_number_of_clusters():
    X = np.random.default_rng(1).permutation(blobs((-6.0, 0.0), (6.0, 0.0), (0.0, 8.0)))
    grid = {"options": [{"components": k, "restarts": 3} for k in (1, 2, 3, 6)]}
    search = GridSearchCV(DensityEstimator(random_state=0), grid, cv=3).fit(X)
    assert search.best_params_["options"]["components"] == 3
    assert search.best_score_ == pytest.approx(-np.log(3) - np.log(2 * np.pi) - 1, abs=0.1)  # minus the entropy


def test_codes_make_classes_linear():
    X, y = blobs((-3.0, -3.0), (3.0, 3.0), (-3.0, 3.0), (3.0, -3.0)), np.repeat([0, 0, 1, 1], 100)
    pipeline = make_pipeline(Encoder(options={"components": 4, "restarts": 5}, random_state=0), LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.98
    assert LogisticRegression().fit(X, y).score(X, y) < 0.7


# --- data -------------------------------------------------------------------------------------------------------------


def test_pixels_of_flat_digits_are_images_to_the_model():
    X = load_digits().data[:400]
    estimator = tiny("pixelcnn", event=DIGITS, training={"steps": 40, "validate_every": 40, "lr": 1e-2}).fit(X)
    with torch.no_grad():
        expected = estimator.model_.log_prob(torch.tensor(load_digits().images[:400, None]).byte()).numpy()
    np.testing.assert_allclose(estimator.score_samples(X), expected)
    turned = load_digits().images[:400].transpose(0, 2, 1).reshape(400, 64)
    assert estimator.score(X) > estimator.score(turned) + 5
    drawn = estimator.sample(4)
    assert drawn.dtype == np.int64
    assert drawn.shape == (4, 64)
    assert np.isfinite(estimator.score_samples(drawn)).all()


def test_whole_numbers_are_real_unless_told_otherwise():
    X = np.random.default_rng(0).poisson(4, (100, 2))
    real, counts = DensityEstimator(random_state=0), DensityEstimator(event="auto", random_state=0)
    assert real.fit(X).event_ == PLANE
    assert real.predict([[4, 1000]]).tolist() == [-1]
    np.testing.assert_array_equal(real.score_samples(X), clone(real).fit(X.astype(float)).score_samples(X))
    assert counts.fit(X).event_ == Event((2,), Support("ordinal", X.max() - X.min() + 1, X.min()))
    assert counts.likelihood_kind_ == "exact"
    assert DensityEstimator(event="auto").fit(X.astype(float)).event_ == PLANE
    with pytest.raises(InputError, match=r"1 of 2 rows of X have values outside .* \(the first is row 1\).*event=None"):
        counts.predict([[4, 4], [4, 1000]])
    with pytest.raises(InputError, match="2 of 2 rows of X have values outside"):
        counts.predict([[0.5, 4], [4, 4.5]])


@pytest.mark.parametrize("options", [{"learn": "em"}, {"learn": "gradient"}])
def test_a_tenth_is_set_aside_only_to_choose_among_steps(options, monkeypatch):
    import unsup.sklearn.facade as facade

    seen, train = [], facade.train
    monkeypatch.setattr(facade, "train", lambda model, data, **kw: seen.append(data) or train(model, data, **kw))
    X = np.sort(blobs((0.0, 0.0)), 0)
    DensityEstimator(options=options, training={"steps": 2}).fit(X)
    parts = [split.x.numpy() for split in (seen[0].train, seen[0].validation, seen[0].test)]
    assert [len(p) for p in parts] == ([100, 100, 0] if options["learn"] == "em" else [90, 10, 0])
    rows = np.concatenate(parts[:1] if options["learn"] == "em" else parts)
    np.testing.assert_array_equal(np.sort(rows, 0), X)


def test_samples_are_in_raw_units_and_keyed():
    X = blobs((1000.0, -3.0), n=400, scale=5.0)
    estimator = DensityEstimator(options={"components": 1}, random_state=0).fit(X)
    drawn = estimator.sample(4000)
    assert drawn.dtype == np.float64
    assert np.abs(drawn.mean(0) - X.mean(0)).max() < 4 * 5 / np.sqrt(4000)
    np.testing.assert_array_equal(drawn, estimator.sample(4000))
    np.testing.assert_array_equal(estimator.sample(5, random_state=1), estimator.sample(5, random_state=1))
    assert not np.array_equal(estimator.sample(5, random_state=1), estimator.sample(5))
    source = np.random.RandomState(0)
    assert not np.array_equal(estimator.sample(5, random_state=source), estimator.sample(5, random_state=source))


@pytest.mark.parametrize("model", ["vae", "gaussian-mixture"])  # a random start, and one made from the data
def test_random_state_decides_everything_and_nothing_global_moves(model):
    X = blobs((0.0, 0.0))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, same, other = (tiny(model, random_state=s).fit(X).score_samples(X) for s in (1, 1, 2))
    tiny(model).fit(X).sample(3)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize(
    ("model", "event", "options"),
    [
        ("gaussian-mixture", None, {}),
        ("vae", None, {}),
        ("ebm", DIGITS, {"hidden": (4, 4)}),  # spectral norms, which torch does not pickle
        ("rbm", Event((64,), BINARY), {"hidden": 24}),  # with its estimate of log Z
    ],
)
def test_a_pickle_scores_the_same(model, event, options):
    X = load_digits().data[:200]
    X = X > 7 if model == "rbm" else X[:, 2:5] if event is None else X
    estimator = tiny(model, event=event, options=TINY | options).fit(X)
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.score_samples(X), estimator.score_samples(X))
    np.testing.assert_array_equal(copy.sample(3), estimator.sample(3))
    assert copy.get_params() == estimator.get_params()
    assert copy.model_.config == estimator.model_.config


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "gan"}, "gan has neither a density nor an energy; suitable models: .*made"),
        (
            {"model": "rbm"},
            "rbm takes binary data only; X with n_features=2 is treated as vector of 2, real .*suitable models: .*made",
        ),
        ({"model": "realnpv"}, "did you mean 'realnvp'"),
        ({"options": {"component": 3}}, "did you mean 'components'"),
        ({"options": {"preset": "huge"}}, "no preset 'huge'"),
        ({"options": {"components": 500}}, "at least as many training examples"),
        ({"options": {"seed": 3}}, "options has a seed; use random_state=3"),
        ({"training": {"seed": 3}}, "training has a seed; use random_state=3"),
        ({"training": {"step": 3}}, "did you mean 'steps'"),
        ({"training": {"out": "run"}}, "no training setting 'out'"),
        ({"contamination": 0.0}, "contamination=0.0 should be above 0"),
        ({"contamination": 0.6}, "at most 0.5"),
        ({"event": DIGITS}, "X has 2 features, but event=image .* has 64 entries"),
        ({"event": "real"}, "event='real' should be None"),
        ({"event": Event((2,), BINARY)}, "100 of 100 rows of X have values outside vector of 2, binary"),
    ],
)
def test_fit_says_what_is_wrong_and_how_to_mend_it(parameters, message):
    with pytest.raises(InputError, match=message):
        DensityEstimator().set_params(**parameters).fit(blobs((0.0, 0.0)))


@pytest.mark.parametrize(("cls", "verb"), [(DensityEstimator, "score_samples"), (Encoder, "transform")])
def test_rows_that_are_none_are_refused_in_one_line(cls, verb):
    X = blobs((0.0, 0.0))
    fitted = cls(options={"components": 2}).fit(X)
    for bad in (np.nan, np.inf, -np.inf):
        Y = X.copy()
        Y[7, 1] = Y[9, 0] = bad
        refusing = (getattr(fitted, verb),) if np.isnan(bad) else (cls().fit, getattr(fitted, verb))
        for refuse in refusing:  # in `fit`, NaN is missing
            with pytest.raises(
                InputError, match=r"^2 of 100 rows of X have NaN or infinity, the first is row 7, feature 1 "
            ) as caught:
                refuse(Y)
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^Found array with 0 sample\(s\)") as caught:
        getattr(fitted, verb)(X[:0])
    assert "\n" not in str(caught.value)


def test_precision_follows_the_rows():
    """Rows at 1e9 keep their digits in what is learned, scored and drawn."""
    far, near = blobs((1e9, 0.0), n=400), blobs((0.0, 0.0), n=400)
    estimator = DensityEstimator(options={"components": 1, "floor": 0.0}, random_state=0).fit(far)
    assert estimator.event_ == Event((2,), REAL, precision="float64")
    expected = multivariate_normal(far.mean(0), np.cov(far.T, ddof=0)).logpdf(far)
    np.testing.assert_allclose(estimator.score_samples(far), expected, atol=1e-5)
    drawn = estimator.sample(500)
    assert drawn.dtype == np.float64
    assert len(np.unique(drawn[:, 0])) == 500
    assert drawn[:, 0].std() == pytest.approx(1, rel=0.2)
    codes = Encoder("realnvp", options=TINY, training=BRIEF, random_state=0).fit(far).transform(far)
    assert codes.dtype == np.float64
    assert len(np.unique(codes[:, 0])) == 400
    assert DensityEstimator(random_state=0).fit(near).event_ == PLANE
    assert DensityEstimator(random_state=0).fit(near.astype(np.float32)).event_ == PLANE
    copy = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(copy.score_samples(far), estimator.score_samples(far))
    np.testing.assert_array_equal(copy.sample(3), estimator.sample(3))


def test_only_what_encodes_is_an_encoder():
    with pytest.raises(InputError, match=r"made cannot encode; suitable models: gaussian-mixture, .*realnvp, vae"):
        Encoder("made").fit(blobs((0.0, 0.0)))


def test_symptoms_of_training_are_warnings():
    noise = np.random.default_rng(0).integers(0, 17, (200, 64))
    with pytest.warns(ConvergenceWarning, match=r"ebm, step \d+: .*near-copies"):
        tiny("ebm", event=DIGITS).fit(noise)


def test_an_interrupt_goes_on_to_the_caller():
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        DensityEstimator("made", options=TINY, training={"steps": 10**7}).fit(blobs((0.0, 0.0)))


# --- start-up, documentation ------------------------------------------------------------------------------------------


def test_the_library_itself_imports_neither_torch_nor_scikit_learn():
    code = "import sys, unsup; dir(unsup); print([m for m in ('torch', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_the_programs_of_the_page_run_in_order():
    scope: dict[str, object] = {}
    programs = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "sklearn.md").read_text(), re.S)
    assert len(programs) == 5
    for program in programs:
        exec(compile(program, "docs/sklearn.md", "exec"), scope)
