"""The table of measures: laws of every row, that planted models are told apart, and that one row is seen everywhere."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unsup
from unsup.cli.main import main
from unsup.core.batch import Batch
from unsup.core.config import check_value
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.model import (
    CanDecode,
    CanSample,
    Classifies,
    CodesEntries,
    Colours,
    HasDensity,
    Model,
    Translates,
)
from unsup.data.source import Data
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.estimate import of_share, wilson
from unsup.evaluate.exam import Exam, evaluate_samples
from unsup.evaluate.measures import MEASURES, NEEDS, Measure, bounded, choose_measures, make_figure, possible_measures
from unsup.evaluate.records import Figure, MeasureRecord
from unsup.evaluate.samples import inception_score
from unsup.evaluate.validators import choose_validator, validators
from unsup.report.page import write_page
from unsup.train.trainer import fit

# --- planted models ---------------------------------------------------------------------------------------------------


class Planted(Model, HasDensity, CanSample, CanDecode, Classifies, CodesEntries, Translates):
    """All that can be measured, as good as ``skill`` says: 1 knows the data, 0 nothing."""

    likelihood_kind = "exact"

    def __init__(self, event: Event, *, skill: float = 1.0) -> None:
        self.skill = skill
        self.weight = nn.Parameter(torch.zeros(1))

    def knows(self, data: Data) -> Planted:
        self._data = data
        return self

    def loss(self, batch, *, generator=None):
        return {"loss": self.weight.sum()}

    def _known(self, x):
        """The nearest training example of each, and how far it is."""
        train = self._data.train.x[:500].flatten(1).float()
        return torch.cdist(x.flatten(1).float(), train).min(1)

    def _log_prob(self, batch: Batch, *, samples, generator):
        middle = self._data.train.x.double().mean(0)
        away = (batch.x.double() - middle).flatten(1).norm(dim=1)
        return -self.skill * self._known(batch.x).values - (1 - self.skill) * (1e4 + away)

    def sample(self, n, *, generator=None):
        real = self._data.validation.x
        found = real[torch.randint(len(real), (n,), generator=generator)]
        wrong = torch.rand(n, generator=generator) >= self.skill
        middle = real.double().mean(0) + 3 * real.double().std() * torch.rand(found.shape, generator=generator)
        low, high = real.min(), real.max()
        return torch.where(wrong.view(-1, *[1] * (found.ndim - 1)), middle.clamp(low, high).to(real.dtype), found)

    def encode(self, x):
        noise = torch.randn(x.flatten(1).shape, generator=torch.Generator().manual_seed(len(x)))
        return self.skill * x.flatten(1).float() + (1 - self.skill) * 16 * noise

    @property
    def code_size(self):
        return self.event.dims

    def decode(self, z):
        low, high = self._data.train.x.min(), self._data.train.x.max()
        return z.view(-1, *self.event.shape).clamp(float(low), float(high)).to(self.event.dtype)

    def predict_proba(self, x):
        label = self._data.train.label[:500][self._known(x).indices]
        kept = torch.arange(len(x)) % 10 < 10 * self.skill
        return nn.functional.one_hot(torch.where(kept, label, 0), 10).double()

    def visit(self, n, choose, *, gaps=None, given=None):
        """Every entry by its frequencies in the training examples, with more noise if it knows less."""
        train, levels = self._data.train.x[:500].flatten(1).long(), self.event.columns[0].levels
        noise = 0.3 - 0.28 * self.skill
        for entry in range(self.event.dims):
            seen = nn.functional.one_hot(train[:, entry] - self.event.columns[0].low, levels).double().mean(0)
            choose(entry, ((1 - noise) * seen + noise / levels).log().expand(n, levels))

    def translate(self, x, *, to):
        streams = self._data.test.streams["domain_b"].x
        sources = (self._data.test.x, streams) if to == "b" else (streams, self._data.test.x)
        found = torch.cdist(x.flatten(1).float(), sources[0].flatten(1).float()).argmin(1)
        return (self.skill * sources[1][found].double() + (1 - self.skill) * x.double()).to(x.dtype)


class PlantedColours(Planted, Colours):
    """Keeps the red channel of a picture as its grey one, from which it finds the picture."""

    def chromaticity(self, x):
        return x[:, 1:].double()

    def translate(self, x, *, to):
        if to == "a":
            return x[:, :1].expand_as(x)
        known = self._data.test.x
        found = known[torch.cdist(x[:, 0].flatten(1).float(), known[:, 0].flatten(1).float()).argmin(1)]
        return (self.skill * found.double() + (1 - self.skill) * x.double()).to(x.dtype)


MAY_BE_MISSING = ("modes_kl", "inception_score", "coded_bytes")
"""Without a good sample, without logits, and where zstandard needs fewer bytes."""

DATA: dict[str, Callable[[], Data]] = {
    "digits": lambda: unsup.load_data("digits", limit=400),
    "ring8": lambda: unsup.load_data("ring8", n=1000),
    "stripes": lambda: unsup.load_data("stripes"),
    "colours": lambda: unsup.load_data("stripes", n=400),
}


@pytest.fixture(scope="module")
def planted() -> dict[tuple[str, float], dict[str, Figure]]:
    """The figures of models of three skills on data that together allow every measure."""
    found = {}
    for name, load in DATA.items():
        data = load()
        bench = Bench(data, Measuring(samples=200, examples=100))
        cls = PlantedColours if name == "colours" else Planted
        keys = [key for key in possible_measures(data) if (key == "colour") == (name == "colours")]
        for skill in (0.0, 0.5, 1.0):
            exam = Exam(bench, cls(data.event, skill=skill).knows(data), name="planted", train_seconds=1.0)
            figures, missing = exam.figures(keys)
            assert {k: r for k, r in missing.items() if k not in MAY_BE_MISSING} == {}
            found[name, skill] = figures
    return found


# --- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", MEASURES)
def test_a_row_has_all_fields(key):
    row = MEASURES[key]
    assert row.key == key
    assert row.title
    assert row.explanation
    assert not row.explanation.endswith(".")
    assert row.range[0] < row.range[1]
    assert set(row.needs) <= set(NEEDS)
    assert all(isinstance(row.show(v), str) and row.show(v) for v in (0.0, 0.1234, 12345.6))
    check_value(key, row.to_json(), MeasureRecord)
    assert json.loads(json.dumps(row.settings(Measuring(examples=5)))).keys() <= {
        "seed",
        "samples",
        "examples",
        "extractor",
        "importance_samples",
        "labels",
    }
    assert choose_measures(key) == (key,)


def test_titles_are_of_one_row_each():
    assert len({row.title for row in MEASURES.values()}) == len(MEASURES)


def test_together_the_data_allow_every_measure(planted):
    assert {k for figures in planted.values() for k in figures} == set(MEASURES)


@pytest.mark.parametrize("key", MEASURES)
def test_figures_lie_in_their_range_and_hold_their_value(planted, key):
    """Intervals do so by construction (`bounded`); coverage is in test_floors, test_anomaly and test_samples."""
    row = MEASURES[key]
    for figures in planted.values():
        if key not in figures:
            continue
        figure = figures[key]
        check_value(key, json.loads(json.dumps(figure, allow_nan=False)), Figure)
        assert row.range[0] <= figure["value"] <= row.range[1]
        assert figure["n"] > 0
        assert (figure["floor"] is not None) == bool(row.floor)
        if figure["floor"] is not None:
            assert row.range[0] <= figure["floor"] <= row.range[1]
        if figure["interval"] is not None:
            low, high = figure["interval"]
            assert row.range[0] <= low <= figure["value"] <= high <= row.range[1]


@pytest.mark.parametrize("key", [k for k, row in MEASURES.items() if row.better is not None and row.purpose != "cost"])
def test_better_is_better(planted, key):
    """The skilled model is better than the one that knows nothing, in the direction that the row names."""
    sign = -1 if MEASURES[key].better == "lower" else 1
    compared = 0
    for name in DATA:
        good, bad = (planted[name, skill].get(key) for skill in (1.0, 0.0))
        if good is not None and bad is not None:
            compared += 1
            assert sign * (good["value"] - bad["value"]) > 0, (name, good, bad)
    good = {planted[name, 1.0][key]["value"] for name in DATA if key in planted[name, 1.0]}
    assert compared or (good and key == "modes_kl")  # without a good sample there is no KL


def test_samples_are_judged_within_bounds_whatever_they_are():
    """Random, repeated, copied, far away: every measure has a value and an interval, which `bounded` cuts."""
    data = unsup.load_data("moons", n=600)
    generator = torch.Generator().manual_seed(0)
    x, n = data.train.x, 60
    cases = {
        "noise": 3 * torch.randn(n, 2, generator=generator, dtype=x.dtype),
        "one point": x[:1].repeat(n, 1),
        "copies": x[:n],
        "held out": data.test.x[:n],
        "far away": 1e6 + x[:n],
        "one far away": torch.cat([x[: n - 1], torch.full((1, 2), 1e8, dtype=x.dtype)]),
    }
    for name, samples in cases.items():
        found = evaluate_samples(samples, data, n)
        assert set(found) == {"fid", "kid", "precision", "recall", "density", "coverage"}, name
        for key, figure in found.items():
            low, high = MEASURES[key].range
            assert low <= figure["interval"][0] <= figure["value"] <= figure["interval"][1] <= high, (name, key)
    assert evaluate_samples(cases["copies"], data, n)["precision"]["interval"][1] <= 1
    assert evaluate_samples(cases["held out"], data, n)["fid"]["interval"][0] >= 0


def test_intervals_are_cut_and_hold_the_value():
    assert bounded(make_figure(0.1, 4, error=1.0), 0, 1)["interval"] == (0, 1)
    assert bounded(make_figure(3.0, 4, error=math.nan), 0, math.inf)["interval"] is None
    assert bounded({**make_figure(0.5, 4), "interval": (0.6, 0.7)}, 0, 1)["interval"] == (0.5, 0.7)


@pytest.mark.parametrize(("share", "n"), [(0.01, 60), (0.1, 40), (0.5, 30), (0.9, 200), (0.995, 300)])
def test_intervals_of_shares_cover_them(share, n):
    rng = np.random.default_rng(0)
    counts = rng.binomial(n, share, 4000)
    for interval in (wilson, lambda k, n: of_share(k / n, math.sqrt(k * (n - k) / n**3), n)):
        found = {k: interval(int(k), n) for k in np.unique(counts)}
        assert all(0 <= e.low <= e.value <= e.high <= 1 for e in found.values())
        assert np.mean([found[k].low <= share <= found[k].high for k in counts]) > 0.92


# --- few labels, Inception score --------------------------------------------------------------------------------------


def test_few_labels_are_the_mean_over_choices_of_probes():
    from unsup.core.model import keyed_generator
    from unsup.evaluate.probe import few_labels, probe

    label = torch.arange(600) % 3
    x = torch.randn(600, 4, generator=torch.Generator().manual_seed(0)) + nn.functional.one_hot(label, 4) * 1.5
    found = few_labels(x[:400], label[:400], x[400:], label[400:], seed=3)
    own = []
    for choice in range(5):
        order = torch.randperm(400, generator=keyed_generator(3, 2, choice)).tolist()
        rows = [i for c in range(3) for i in [j for j in order if label[j] == c][:10]]
        own.append(probe(x[rows], label[rows], x[400:], label[400:], seed=3).value)
    assert found.value == pytest.approx(np.mean(own))
    assert found.low < found.value < found.high
    assert found.value < probe(x[:400], label[:400], x[400:], label[400:]).value


def test_classes_that_are_ruled_out_have_no_share_in_the_inception_score():
    ruled = torch.full((40, 4), -torch.inf)
    ruled[torch.arange(40), torch.arange(40) % 4] = 0.0
    assert inception_score(ruled, splits=1)[0] == pytest.approx(4)
    some = torch.tensor([[0.0, 1.0, -torch.inf], [2.0, -torch.inf, -torch.inf]]).repeat(10, 1)
    finite = some.clamp(min=-800.0)
    assert inception_score(some, splits=2, seed=None) == pytest.approx(inception_score(finite, splits=2, seed=None))


@pytest.mark.parametrize("gap", [700.0, 744.0, 745.0, 800.0, math.inf])
def test_a_class_of_hardly_any_probability_leaves_the_inception_score_as_without_it(gap):
    """The mean over examples of a probability that is nearly 0 rounds to 0."""
    logits = torch.zeros(500, 3)
    logits[:, 1] = -5
    logits[:, 2] = -math.inf
    without = inception_score(logits)
    logits[0, 2] = -gap
    assert inception_score(logits) == pytest.approx(without, abs=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_none_are_refused_in_one_line(value):
    logits = torch.zeros(30, 5)
    logits[3, 2] = value
    with pytest.raises(InputError, match="1 of 30 examples have class logits") as error:
        inception_score(logits)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="1 of 30"):
        inception_score(torch.zeros(30, 5).index_fill(0, torch.tensor([7]), -torch.inf))


# --- one row is seen everywhere ---------------------------------------------------------------------------------------


def _size(exam: Exam) -> Figure:
    x = exam.samples.x.double().flatten(1).mean(1)
    return make_figure(float(x.mean()), len(x), error=float(x.std()) / math.sqrt(len(x)), floor=5.0, spread=1.0)


@pytest.fixture
def brightness(monkeypatch) -> Measure:
    row = Measure(
        key="brightness",
        title="mean brightness",
        explanation="mean level of samples",
        unit="levels",
        better="lower",
        purpose="classes",  # of which nothing else is possible here, so that the short table shows it
        needs=("samples",),
        run=_size,
        range=(0.0, 16.0),
        floor="bright data",
        show="{:.4f} lv".format,
    )
    monkeypatch.setitem(MEASURES, "brightness", row)
    return row


def called(capsys: Any, *words: object) -> str:
    capsys.readouterr()
    assert main([str(w) for w in words]) == 0
    return capsys.readouterr().out


def test_a_row_is_listed(capsys, brightness):
    (line,) = (line for line in called(capsys, "measures").splitlines() if line.startswith("brightness"))
    for word in ("mean brightness", "lower", "levels", "a model that samples", "bright data"):
        assert word in line
    assert json.loads(called(capsys, "measures", "--json"))["brightness"]["title"] == "mean brightness"


def test_a_row_is_evaluated_and_kept(capsys, brightness, tmp_path):
    run = tmp_path / "run"
    called(capsys, "fit", "digits", "histogram", "-o", run, "--plain")
    out = called(capsys, "eval", run, "--measures", "brightness,likelihood", "--samples", 50)
    (line,) = (line for line in out.splitlines() if line.startswith("mean brightness (levels) ↓"))
    assert line.count(" lv") == 4  # value, interval, floor
    assert "baseline of mean brightness: bright data" in out
    (kept,) = (e for e in json.loads((run / "eval.json").read_text())["results"] if e["measure"] == "brightness")
    assert (kept["figure"]["n"], kept["step"], kept["settings"]["samples"]) == (50, 1, 50)
    found = json.loads(called(capsys, "eval", run, "--measures", "all", "--samples", 50, "--json"))
    assert found["figures"]["brightness"] == kept["figure"]
    write_page(run)
    assert "mean brightness" in (run / "report.html").read_text().lower()


def test_a_row_is_in_a_contest(capsys, brightness, tmp_path):
    out = called(
        capsys, "compare", "digits", "--models", "histogram,vae", "--minutes", 0.2, "-o", tmp_path / "c", "--plain"
    )
    results = json.loads((tmp_path / "c" / "results.json").read_text())
    assert results["measures"]["brightness"] == brightness.to_json()
    for contestant in results["contestants"]:
        (run,) = contestant["runs"]
        figure = run["figures"]["brightness"]
        words = run["commands"]["brightness"].split()
        assert "brightness" in words[words.index("--measures") + 1].split(",")
        assert f"{figure['value']:.4f} lv" in out
        assert f"{figure['value']:.4f} lv" in (tmp_path / "c" / "index.html").read_text()
    assert set(results["places"]["brightness"]) == {"histogram", "vae"}
    assert "mean brightness" in out.lower()
    assert "mean brightness" in (tmp_path / "c" / "index.html").read_text().lower()
    rows = list(csv.DictReader((tmp_path / "c" / "results.csv").open()))
    assert {float(r["brightness"]) for r in rows} == {
        c["runs"][0]["figures"]["brightness"]["value"] for c in results["contestants"]
    }


def test_a_row_is_measured_by_recipes_and_is_in_the_results(capsys, brightness, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'summary = "s"\ndata = "digits"\nseeds = [0]\nmeasures = ["brightness"]\nsamples = 40\n\n'
        '[[run]]\nmodel = "histogram"\n'
    )
    words = ("reproduce", tmp_path / "mine.toml", "-o", tmp_path / "R.md", "--runs", tmp_path / "runs")
    assert "mean brightness" in called(capsys, *words)
    (record,) = map(json.loads, (tmp_path / "R.jsonl").read_text().splitlines())
    page = (tmp_path / "R.md").read_text()
    assert f"{record['figures']['brightness']['value']:.4f} lv" in page
    assert "## Mean brightness" in page
    assert "baseline: bright data" in page


def test_a_row_is_a_validator(brightness):
    data = unsup.load_data("digits", limit=200)
    model = unsup.create("vae", data.event, preset="tiny")
    assert choose_validator("brightness", model, data).name == "brightness"
    fitted = fit(model, data, steps=4, validate_every=2, validator="brightness", progress="off")
    values = [e["value"] for e in fitted.events if e.get("validator") == "brightness"]
    assert len(values) == 3
    assert fitted.score == min(values)


def test_a_row_that_cannot_be_had_says_why(brightness, monkeypatch, capsys, tmp_path):
    def none(exam):
        raise InputError("it is too dark")

    called(capsys, "fit", "digits", "histogram", "-o", tmp_path / "run", "--plain")
    monkeypatch.setitem(MEASURES, "brightness", Measure(**{**vars(brightness), "run": none}))
    assert "note: no mean brightness: it is too dark" in called(
        capsys, "eval", tmp_path / "run", "--measures", "likelihood,brightness"
    )
    assert main(["eval", str(tmp_path / "run"), "--measures", "brightness"]) == 2
    assert capsys.readouterr().err == "unsup: error: it is too dark\n"
    assert main(["eval", str(tmp_path / "run"), "--measures", "brigtness"]) == 2
    assert "there is no measure 'brigtness'; did you mean 'brightness'" in capsys.readouterr().err


# --- validators -------------------------------------------------------------------------------------------------------


def test_every_measure_of_validation_examples_is_a_validator():
    """A model that has everything is judged by every measure that has a better side, except costs and coding."""
    found = set()
    for name, load in DATA.items():
        data = load()
        model = (PlantedColours if name == "colours" else Planted)(data.event).knows(data)
        for key, validator in validators(model, data).items():
            judged = validator.start(data, data.validation, 0)(model)
            assert math.isfinite(judged.value), (key, judged.told)
            found.add(key)
    directed = {k for k, row in MEASURES.items() if row.better is not None and row.purpose != "cost"}
    assert found == directed - {"coded_bytes"}


# --- missing entries --------------------------------------------------------------------------------------------------


def with_gaps(rows: int = 600) -> tuple[np.ndarray, Data]:
    """A table of words and numbers, a tenth of whose entries are missing, with labels."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(0, 3, rows), rng.normal(size=rows), rng.normal(size=rows)], 1).astype(float)
    gaps = np.where(rng.random(x.shape) < 0.1, np.nan, x)
    event = Event((3,), (Support("nominal", 3), REAL, REAL), missing=True)
    return x, unsup.from_arrays(gaps, label=x[:, 0].astype(int), event=event)


def complete(data: Data) -> Data:
    """The same splits, of the rows without missing entries."""
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    return replace(data, **{k: v.take(~v.x.isnan().any(1)) for k, v in splits.items()})


def test_samples_are_compared_with_complete_rows():
    x, data = with_gaps()
    samples = torch.from_numpy(x[:300]).to(data.train.x.dtype)
    assert data.train.x.isnan().any()
    found, expected = (evaluate_samples(samples, each, n=300) for each in (data, complete(data)))
    assert {k: v["value"] for k, v in found.items()} == {k: v["value"] for k, v in expected.items()}
    assert all(math.isfinite(figure["value"]) for figure in found.values())


@pytest.mark.parametrize(
    ("key", "name"), [("calibration", "gaussian-mixture"), ("probe", "vae"), ("knn", "vae"), ("few_labels", "vae")]
)
def test_calibration_and_probes_use_complete_rows(key: str, name: str):
    _, data = with_gaps()
    model = unsup.create(name, data, preset="tiny", seed=0)
    measuring = Measuring(samples=500)
    found, expected = (MEASURES[key].run(Exam(Bench(each, measuring), model)) for each in (data, complete(data)))
    assert found["n"] == expected["n"] < len(data.test)
    assert found["value"] == pytest.approx(expected["value"], abs=1e-6)
    assert found["floor"] == pytest.approx(expected["floor"], abs=1e-6)
