"""Validators: what each needs, that the best parameters are kept by it, whichever way is better, and resumed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import unsup
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event
from unsup.core.model import CanEncode, CanSample, Classifies, Model, keyed_generator
from unsup.data import Data, Split
from unsup.evaluate import measures
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.features import choose_extractor
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.probe import encode_all, neighbours_vote
from unsup.evaluate.samples import frechet_distance
from unsup.evaluate.validators import Validator, _Watching, choose_validator, validators
from unsup.report.page import write_page
from unsup.train.trainer import fit


@pytest.fixture(scope="module")
def digits() -> Data:
    return unsup.load_data("digits", limit=300)


class Path(Model, Classifies, CanEncode):
    """A number that counts steps, and what the model says as a function of it."""

    def __init__(self, event: Event, *, best: int = 3) -> None:
        self.best = best
        self.w = nn.Parameter(torch.zeros(()))
        self.done = 0

    def loss(self, batch, *, generator=None):
        return {"loss": (batch.x.sum(1) * 0 - self.w)}  # plain descent at rate 1 adds 1 to w at each step

    @property
    def away(self) -> float:
        """How far from its best the model is, in steps."""
        return abs(float(self.w.detach()) - self.best)

    def predict_proba(self, x):
        """Class 0 or 1 by the sign of the first entry, wrong where the second is below how far it is from its best."""
        right = (x[:, 0] > 0) ^ (x[:, 1] < self.away / 10)
        return torch.stack([~right, right], 1).double()

    def encode(self, x):
        return torch.where(x[:, 1:] < self.away / 10, -x[:, :1], x[:, :1])


def plane(n: int = 200) -> Data:
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 0] -= 0.5
    split = Split(x, (x[:, 0] > 0).long())
    return Data(None, Event((2,), REAL, precision="float64"), split, split, split, ("a", "b"))


RATE_ONE = {"optimizer": "sgd", "betas": (0.0, 0.9), "lr": 1.0, "schedule": "constant", "progress": "off"}


@pytest.mark.parametrize("validator", ["accuracy", "knn"])
def test_the_best_parameters_are_kept_whichever_way_is_better(validator):
    data = plane()
    model = Path(data.event)
    fitted = fit(model, data, steps=8, validate_every=1, validator=validator, **RATE_ONE)
    assert model.w.item() == 3
    assert fitted.validator == validator
    assert fitted.validation is None
    values = [e["value"] for e in fitted.events if e.get("validator") == validator]
    assert len(values) == 9
    better = min if MEASURES[validator].better == "lower" else max
    assert fitted.score == better(values) == values[3]
    assert len(set(values)) > 3


def test_patience_counts_validations_without_gain_of_what_is_to_rise():
    data = plane()
    fitted = fit(Path(data.event), data, steps=50, validate_every=1, validator="knn", patience=2, **RATE_ONE)
    assert fitted.steps == 5  # the best at 3


def test_newest_keeps_the_newest():
    data = plane()
    model = Path(data.event)
    fitted = fit(model, data, steps=5, validate_every=1, validator="newest", **RATE_ONE)
    assert model.w.item() == 5
    assert (fitted.validator, fitted.score) == ("newest", None)


def test_accuracy_is_the_share_of_right_names():
    data = plane()
    model = Path(data.event)
    with torch.no_grad():
        model.w.fill_(7.0)
    found = Validator(MEASURES["accuracy"]).start(data, data.validation, 0)(model)
    assert found.value == pytest.approx(float((data.validation.x[:, 1] >= 0.4).double().mean()))
    assert found.told == f"accuracy {found.value:.4g}"


def test_neighbours_vote_as_in_a_loop():
    generator = torch.Generator().manual_seed(0)
    known, asked = torch.randn(40, 3, generator=generator), torch.randn(25, 3, generator=generator)
    known, asked = known * torch.tensor([1.0, 100, 1e-3]), asked * torch.tensor([1.0, 100, 1e-3])
    label, true = torch.randint(2, (40,), generator=generator), torch.randint(2, (25,), generator=generator)
    std = known.std(0, correction=0)
    right = 0
    for x, y in zip(asked, true, strict=True):
        distances = [float((((x - z) / std) ** 2).sum()) for z in known]
        nearest = sorted(range(40), key=distances.__getitem__)[:5]
        right += int(int(label[nearest].sum()) > 2) == int(y)
    assert neighbours_vote(known, label, asked, true).value == pytest.approx(right / 25)


def test_a_vae_is_kept_by_the_accuracy_of_its_neighbours(digits, tmp_path):
    settings = {"steps": 40, "validate_every": 8, "validator": "knn", "lr": 3e-3, "progress": "off"}
    model = unsup.create("vae", digits.event, preset="tiny", seed=1)
    fitted = fit(model, digits, out=tmp_path / "r", **settings)
    values = [e["value"] for e in fitted.events if e.get("validator") == "knn"]
    assert len(values) == 6
    assert fitted.score == max(values)
    assert not any("nats" in e for e in fitted.events)
    codes = [encode_all(model, s.x).double() for s in (digits.train, digits.validation)]
    again = neighbours_vote(codes[0], digits.train.label, codes[1], digits.validation.label).value
    assert again == pytest.approx(fitted.score, abs=1e-12)
    kept = unsup.load(tmp_path / "r")
    assert all(torch.equal(p, q) for p, q in zip(kept.parameters(), model.parameters(), strict=True))


def test_a_gan_is_kept_by_its_fid(digits):
    model = unsup.create("gan", digits.event, preset="tiny", seed=1)
    fitted = fit(model, digits, steps=30, validate_every=10, validator="fid", batch_size=32, progress="off")
    values = [e["value"] for e in fitted.events if e.get("validator") == "fid"]
    assert len(values) == 4
    assert fitted.score == min(values)
    # As by hand, from samples of the kept parameters under the same key.
    found = Validator(MEASURES["fid"]).start(digits, digits.validation, 1)(model)
    extractor = choose_extractor("auto", digits.event, digits.train.x)
    samples = model.eval().sample(len(digits.validation), generator=keyed_generator(1, 0, 0))
    by_hand = frechet_distance(extractor(samples).points, extractor(digits.validation.x).points)
    assert found.value == pytest.approx(by_hand, rel=1e-6)


def test_fid_falls_where_samples_are_examples(digits):
    class Replay(Model, CanSample):
        def __init__(self, event: Event, *, noise: float = 0.0) -> None:
            self.noise = noise
            self.w = nn.Parameter(torch.zeros(()))

        def loss(self, batch, *, generator=None):
            return {"loss": self.w**2}

        def sample(self, n, *, generator=None):
            x = digits.train.x[:n].float()
            x = x + self.noise * torch.randn(x.shape, generator=generator)
            return x.round().clamp(0, 16).to(torch.uint8)

    judge = Validator(MEASURES["fid"]).start(digits, digits.validation, 0)
    values = [judge(Replay(digits.event, noise=noise)).value for noise in (0.0, 2.0, 6.0)]
    assert values == sorted(values)
    assert values[2] > 2 * values[0]


# --- choice -----------------------------------------------------------------------------------------------------------


def test_auto_is_the_models_own_then_the_likelihood_then_nothing(digits):
    vae = unsup.create("vae", digits.event, preset="tiny")
    gan = unsup.create("gan", digits.event, preset="tiny")
    assert choose_validator("auto", vae, digits).name == "likelihood"
    assert choose_validator("auto", gan, digits) is None
    vae.validator = gan.validator = "knn"
    assert choose_validator("auto", vae, digits).name == "knn"
    assert choose_validator("auto", gan, digits) is None  # it does not encode
    unlabelled = dataclasses.replace(digits, train=dataclasses.replace(digits.train, label=None))
    assert choose_validator("auto", vae, unlabelled).name == "likelihood"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("likelihood", "needs a model with a density, which GAN on digits does not have; available: fid, kid, "),
        ("knn", "needs a model that encodes, and labels"),
        ("accuracy", "needs a model that classifies, and labels"),
        ("seconds", "there is no validator 'seconds'"),
        ("likelyhood", "there is no validator 'likelyhood'; did you mean 'likelihood'"),
    ],
)
def test_one_that_does_not_fit_is_refused_with_those_that_do(digits, name, told, tmp_path):
    gan = unsup.create("gan", digits.event, preset="tiny")
    with pytest.raises(InputError) as error:
        fit(gan, digits, out=tmp_path / "r", validator=name, steps=1, progress="off")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "r").exists()


def test_a_resumed_run_goes_on_with_its_validator(digits, tmp_path):
    class Stop(BaseException):
        pass

    settings = {"steps": 12, "validate_every": 3, "validator": "knn", "checkpoint_seconds": 0, "progress": "off"}

    def vae() -> Model:
        return unsup.create("vae", digits.event, preset="tiny", seed=1)

    whole = fit(vae(), digits, out=tmp_path / "whole", **settings)
    stopped = vae()

    def after_step(time):
        if time.step == 8:
            raise Stop

    stopped.after_step = after_step
    with pytest.raises(Stop):
        fit(stopped, digits, out=tmp_path / "r", **settings)
    with pytest.raises(InputError, match=r"selects the best parameters by knn, not by likelihood; .*validator='knn'"):
        fit(vae(), digits, out=tmp_path / "r", resume=True, **{**settings, "validator": "likelihood"})
    again = fit(vae(), digits, out=tmp_path / "r", resume=True, **settings)
    assert (again.score, again.validator) == (whole.score, "knn")
    values = [[e["value"] for e in f.events if "value" in e] for f in (whole, again)]
    assert values[0] == values[1]


def test_what_is_shown_has_the_validators_name(digits):
    seen = []
    model = unsup.create("vae", digits.event, preset="tiny")
    fit(model, digits, steps=4, validate_every=2, validator="knn", progress=seen.append)
    assert seen[-1].validation.startswith("validation knn 0.")


def test_a_validator_that_cannot_be_had_stops_the_run(digits, monkeypatch):
    def run(exam):
        raise InputError("the codes are not finite")

    monkeypatch.setitem(MEASURES, "knn", dataclasses.replace(MEASURES["knn"], run=run))
    model = unsup.create("vae", digits.event, preset="tiny")
    with pytest.raises(unsup.TrainingError, match=r"the validator knn is nan \(the codes are not finite\)"):
        fit(model, digits, steps=2, validator="knn", progress="off")


def test_the_page_of_a_run_tells_the_best(digits, tmp_path):
    model = unsup.create("vae", digits.event, preset="tiny", seed=1)
    fitted = fit(model, digits, out=tmp_path / "r", steps=9, validate_every=3, validator="knn", progress="off")
    write_page(tmp_path / "r")
    assert f"knn {fitted.score:.4g} at" in (tmp_path / "r" / "report.html").read_text()


def test_validators_compute_values_only(digits, monkeypatch):
    """Intervals and floors take longer than the values, and are not used in training."""

    def refused(*arguments, **options):
        raise AssertionError("an interval is computed")

    whole, resamples = measures.anomaly_detection, set()

    def noted(*scores, **options):
        resamples.add(options["resamples"])
        return whole(*scores, **options)

    for name in ("jackknife_error", "neighbour_measures"):
        monkeypatch.setattr(measures, name, refused)
    monkeypatch.setattr(measures, "anomaly_detection", noted)
    vae = unsup.create("vae", digits.event, preset="tiny")
    found = validators(vae, digits)
    assert {"fid", "precision", "auroc", "probe"} <= set(found)
    bench = _Watching(digits, digits.validation, 0)
    figures, missing = Exam(bench, vae).figures(found)
    assert not missing
    assert resamples == {0}
    assert not any(figures[key]["floor"] for key in ("fid", "kid", "precision", "coverage", "probe", "knn"))
    full, _ = Exam(Bench(digits, Measuring(samples=100)), vae).figures(["auroc"])
    assert full["auroc"]["error"]
    assert resamples == {0, 1000}
