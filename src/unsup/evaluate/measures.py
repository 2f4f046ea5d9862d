"""The table of measures: names, requirements, computation, and whether lower or higher values are better.

``unsup eval``, ``unsup compare``, recipes, results, validators and pages use this table only. A row computes its
`Figure` from an `Exam`: one model on one set of real examples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from unsup.core.deadline import OutOfTime
from unsup.core.errors import InputError, nearest
from unsup.core.model import (
    CanDecode,
    CanEncode,
    CanSample,
    Classifies,
    Colours,
    HasDensity,
    HasEnergy,
    IsConditional,
    IsFlow,
    Model,
    Translates,
    keyed_generator,
)
from unsup.core.words import class_word, counted, duration
from unsup.data.source import Data, Split, some_of
from unsup.evaluate.anomaly import RESAMPLES, anomaly_detection
from unsup.evaluate.calibration import calibration
from unsup.evaluate.clusters import ari, nmi
from unsup.evaluate.compressed import reason_against_coding
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.estimate import Estimate, make_figure, wilson
from unsup.evaluate.features import Features
from unsup.evaluate.journeys import colour_error, translation_error
from unsup.evaluate.modes import MODES_KNOWN, known_modes
from unsup.evaluate.neighbours import neighbour_measures, neighbours
from unsup.evaluate.probe import (
    TEMPERATURE,
    VOTERS,
    encode_all,
    few_labels,
    majority_share,
    neighbours_vote,
    predict_classes,
    probe,
    raw_features,
    weighted_vote,
)
from unsup.evaluate.quadrature import is_planar
from unsup.evaluate.reconstruction import unrestored_variance
from unsup.evaluate.records import Better, Figure, MeasureRecord, Purpose
from unsup.evaluate.samples import (
    SPLITS,
    SUBSETS_KEY,
    frechet_distance,
    inception_score,
    jackknife_error,
    kernel_distance,
)
from unsup.evaluate.spread import alignment, effective_rank, spread, uniformity
from unsup.evaluate.storage import implied_bytes
from unsup.evaluate.units import bits_by_unit, context_of
from unsup.evaluate.views import has_views, raw_views

if TYPE_CHECKING:
    from unsup.evaluate.bench import Bench, Measuring
    from unsup.evaluate.exam import Exam

_Codes = Callable[[], tuple[Tensor, Tensor]]
_SPREAD = 5000  # held-out codes of which the spread is measured

Subject = Model | Tensor | None
"""A model, only its samples, or None for a question about the data only."""


@dataclass(frozen=True)
class Need:
    """A requirement on the model or the data.

    Attributes:
        words: its description, after "needs".
        of: whether it concerns the model or the data.
        holds: whether it is satisfied.
        without: the message if it is not satisfied; ``{model}`` is the name of the model.
        why: what ``{why}`` in the message stands for.
    """

    words: str
    of: Literal["model", "data"]
    holds: Callable[[Subject, Data], bool] = field(repr=False)
    without: str
    why: Callable[[Subject], str] = field(default=lambda model: "", repr=False)

    def reason_against(self, model: Subject, data: Data, name: str) -> str | None:
        """The message for a model called ``name``, or None if the requirement is satisfied."""
        return None if self.holds(model, data) else self.without.format(model=name, why=self.why(model))


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    Attributes:
        key: its name in files, flags and tables.
        title: its name in texts.
        explanation: one line.
        unit: of the value, or empty.
        better: whether lower or higher values are better; None for neither.
        purpose: the question that it answers; the first row of a purpose decides it.
        needs: keys of `NEEDS`.
        run: computes the figure.
        range: of the value; intervals are clipped to it.
        floor: what `Figure.floor` is measured on, or empty.
        show: formats a value.
        reads: further fields of `Measuring` that it depends on.
    """

    key: str
    title: str
    explanation: str
    unit: str
    better: Better | None
    purpose: Purpose
    needs: tuple[str, ...]
    run: Callable[[Exam], Figure] = field(repr=False)
    range: tuple[float, float] = (-math.inf, math.inf)
    floor: str = ""
    show: Callable[[float], str] = field(default=lambda value: plain(value), repr=False)
    reads: tuple[str, ...] = ()

    @property
    def needs_in_words(self) -> str:
        return ", and ".join(NEEDS[need].words for need in self.needs)

    def reason_against(self, model: Subject, data: Data, name: str) -> str | None:
        """Why a model called ``name`` does not have the measure on this data, or None."""
        return next(filter(None, (NEEDS[need].reason_against(model, data, name) for need in self.needs)), None)

    def settings(self, measuring: Measuring) -> dict[str, Any]:
        """What a figure depends on besides the model and the data, by the names of the options of ``unsup eval``."""
        if self.purpose == "cost":
            return {}
        found: dict[str, Any] = {"seed": measuring.seed}
        if "samples" in self.needs:
            found["samples"] = measuring.samples
        if self.purpose == "samples":
            return found | ({"extractor": measuring.extractor} if "samples" in self.needs else {})
        if {"likelihood", "score"} & set(self.needs):
            found["importance_samples"] = measuring.importance_samples
        found |= {name: getattr(measuring, name) for name in self.reads}
        return found if measuring.examples is None else found | {"examples": measuring.examples}

    def to_json(self) -> MeasureRecord:
        return cast(MeasureRecord, {name: getattr(self, name) for name in MeasureRecord.__annotations__})


def choose_measures(keys: str) -> tuple[str, ...]:
    """The keys in ``fid,auroc``.

    Raises:
        InputError: there is no such measure.

    >>> choose_measures("auroc, fid")
    ('auroc', 'fid')
    """
    asked = tuple(dict.fromkeys(key.strip() for key in keys.split(",")))
    for key in asked:
        if key not in MEASURES:
            raise InputError(f"there is no measure {key!r}{nearest(key, MEASURES)}; unsup measures lists them")
    return asked


def bounded(figure: Figure, low: float, high: float) -> Figure:
    """The figure with its interval clipped to [low, high], and without numbers that are not finite."""
    value, interval = figure["value"], figure["interval"]
    if interval is not None:
        interval = min(max(interval[0], low), value), max(min(interval[1], high), value)
        interval = interval if all(map(math.isfinite, interval)) else None
    error, floor = (v if v is not None and math.isfinite(v) else None for v in (figure["error"], figure["floor"]))
    return {**figure, "error": error, "interval": interval, "floor": floor}


def plain(value: float) -> str:
    """
    >>> plain(1234.5), plain(12.345), plain(0.01234)
    ('1,234.5', '12.35', '0.012')
    """
    return f"{value:,.{1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3}f}"


# --- computation ------------------------------------------------------------------------------------------------------


def _likelihood(exam: Exam) -> Figure:
    found = exam.likelihood
    detail: dict[str, Any] = {"kind": found.kind, "bits_per_dim": found.bits_per_dim, "samples": found.samples}
    if units := bits_by_unit(found.nats, exam.scored.event, exam.bench.data.form, exam.bench.test):
        detail["bits_per_unit"] = units
    if (context := context_of(exam.scored, exam.bench.test)) is not None:
        detail["context"] = context._asdict()
    return make_figure(found.nats, found.n, error=found.standard_error, **detail)


def _implied_bytes(exam: Exam) -> Figure:
    found = exam.likelihood
    value, error = (implied_bytes(nats, 1) for nats in (found.nats, found.standard_error))
    detail: dict[str, Any] = {"kind": found.kind, "bits_per_dim": found.bits_per_dim, "samples": found.samples}
    return make_figure(value, found.n, error=error, **detail)


def _coded_bytes(exam: Exam) -> Figure:
    """The standard error is that of the implied bytes, which differ from the coded ones by the gap only."""
    x, weight, likelihood = exam.coded_examples.x, exam.bench.test.weight, exam.coded_likelihood
    if weight is not None:
        raise InputError("the examples have weights, but a compressed file has each of them once")
    if not len(x):
        raise InputError("no example has full length, and shorter ones are not coded by the model")
    coded, n = exam.coded, len(x)
    implied, error = (implied_bytes(nats, 1) for nats in (likelihood.nats, likelihood.standard_error))
    value = coded.coded / n
    if not coded.by_model:
        raise InputError(
            f"a general codec needs fewer bytes ({value:,.1f} an example) than {exam.name}, whose likelihood implies "
            f"{implied:,.1f}"
        )
    detail: dict[str, Any] = {
        "bits_per_dim": 8 * value / likelihood.dims,
        "gap": (value - coded.mask / n) / implied - 1 if implied > 0 else None,
        "bytes": coded.coded,
        "mask_bytes": coded.mask,
        "file_bytes": coded.file,
        "seconds": coded.seconds,
    }
    return make_figure(value, n, error=error, **detail)


def _compared(
    key: str,
    judge: Callable[[Bench, Any, bool], dict[str, Figure]],
    sets: Callable[[Exam], tuple[Any, Any, dict[str, Any]]] = lambda exam: exam.compared,
) -> Callable[[Exam], Figure]:
    """A measure of samples, and of held-out examples in their place as the floor.

    The detail ``at_floor`` is its value for as many samples as there are held-out examples, ``floor_error`` the
    standard error of the floor; `unsup.evaluate.ranking` compares these.

    Args:
        judge: the figures by key of a bench and samples, with intervals or without.
        sets: the samples of an exam, its held-out examples and their description.
    """

    def run(exam: Exam) -> Figure:
        (fake, other, about), bench = sets(exam), exam.bench
        own = exam.once(judge.__name__, lambda: judge(bench, fake, bench.intervals))[key]
        if not bench.intervals:
            return own
        floor, first = bench.once(judge.__name__, lambda: judge(bench, other, True))[key], own
        if len(other) < len(fake):
            first = exam.once(f"{judge.__name__} of as many", lambda: judge(bench, fake[: len(other)], False))[key]
        of_floor = {"at_floor": first["value"], "floor_error": bounded(floor, *MEASURES[key].range)["error"]}
        return {**own, "floor": floor["value"], "detail": {**about, **own["detail"], **of_floor}}

    return run


def _fid(bench: Bench, fake: Features, intervals: bool) -> dict[str, Figure]:
    pair = fake.points, bench.real.train.points
    error = jackknife_error(*pair) if intervals else None
    return {"fid": make_figure(frechet_distance(*pair), len(fake), error=error)}


def _kid(bench: Bench, fake: Features, intervals: bool) -> dict[str, Figure]:
    key = keyed_generator(bench.measuring.seed, SUBSETS_KEY).initial_seed()
    found = kernel_distance(fake.points, bench.real.train.points, seed=key)
    return {"kid": make_figure(found.value, len(fake), error=found.error)}


def _inception_score(bench: Bench, fake: Features, intervals: bool) -> dict[str, Figure]:
    if fake.logits is None:
        raise InputError(f"the extractor {bench.real.extractor.name} has no classes")
    value, spread = inception_score(fake.logits, seed=bench.measuring.seed)
    return {"inception_score": make_figure(value, len(fake), error=spread / math.sqrt(SPLITS - 1))}


def _neighbours(bench: Bench, fake: Features, intervals: bool) -> dict[str, Figure]:
    pair = fake.points, bench.real.train.points
    found = neighbour_measures(*pair) if intervals else neighbours(*pair).means
    return {k: make_figure(v, len(pair[k in ("recall", "coverage")])) for k, v in found.items()}


def _memorisation(exam: Exam) -> Figure:
    found, space = exam.memorised, f"features of the extractor {exam.bench.real.extractor.name}"
    return make_figure(found.nearer, found.n, floor=0.5, copies=found.copies, space=space)


def _modes(bench: Bench, samples: Tensor, intervals: bool) -> dict[str, Figure]:
    bench.data.event.check(samples)
    return known_modes(bench.data.name, samples)


def _of_modes(key: str) -> Callable[[Exam], Figure]:
    return _compared(key, _modes, lambda exam: (exam.samples.x, exam.bench.first_held_out, {}))


def _calibration(exam: Exam) -> Figure:
    bench, scores = exam.bench, exam.scores
    if bench.data.event.missing:  # a marginal is not comparable to the density of a sample
        scores = scores[bench.is_complete(bench.test)]
    return calibration(scores, exam.log_probs(exam.samples))


def _of_anomalies(key: str) -> Callable[[Exam], Figure]:
    def run(exam: Exam) -> Figure:
        ordinary, odd, by = exam.anomaly_scores
        resamples, seed = RESAMPLES if exam.bench.intervals else 0, exam.m.seed
        found = exam.once("anomalies", lambda: anomaly_detection(ordinary, odd, seed=seed, resamples=resamples))[key]
        artificial = exam.m.anomalies is None
        return {**found, "detail": {"by": by, **found["detail"], "artificial": artificial}}

    return run


def _of_labels(key: str, judge: Callable[..., Estimate], *reads: str, **stated: Any) -> Callable[[Exam], Figure]:
    """How well codes agree with classes.

    Args:
        key: of the measure.
        judge: compares codes ``(N, F)`` and labels ``(N,)`` of training examples with those of held-out examples.
        reads: settings of `Measuring` that the judge takes.
        stated: constants of the protocol, for the detail of the figure.
    """

    def run(exam: Exam) -> Figure:
        bench, m = exam.bench, exam.m
        known, true = classes_of(bench)
        settings = {name: getattr(m, name) for name in reads}

        def judged(codes: tuple[Tensor, Tensor]) -> Estimate:
            return judge(codes[0], known, codes[1], true, seed=m.seed, **settings)

        return _beside_floors(exam, key, judged, len(true), majority=majority_share(known, true), **settings, **stated)

    return run


def _reconstruction(exam: Exam) -> Figure:
    return unrestored_variance(exam.model, exam.bench.without_gaps(exam.bench.test))


def _of_spread(key: str, judge: Callable[[Tensor], Estimate | float]) -> Callable[[Exam], Figure]:
    """How codes of held-out examples are spread; ``std`` is the mean deviation of their directions by dimension."""

    def run(exam: Exam) -> Figure:
        some = some_of(len(exam.bench.probed[1]), _SPREAD)
        std = spread(exam.codes[1][some])
        return _beside_floors(exam, key, lambda codes: judge(codes[1][some]), len(some), std=std)

    return run


def _alignment(exam: Exam) -> Figure:
    """How near the codes of held-out examples are to those of random views of them."""
    bench, event = exam.bench, exam.bench.data.event
    held_out = bench.probed[1]
    some = some_of(len(held_out), _SPREAD)
    x = held_out.x[some]
    views = raw_views(x, event, bench.data.form, bench.data.name or "the data", seed=bench.measuring.seed)
    viewed = Split(views, given=None if held_out.given is None else held_out.given[some])
    codes = (
        lambda: (exam.codes[1][some], encode_all(exam.model, viewed)),
        lambda: (raw_features(x, event), raw_features(views, event)),
        lambda: (exam.untrained_codes[1][some], encode_all(exam.untrained_model, viewed)),
    )
    return _beside_floors(exam, "alignment", lambda pair: alignment(*pair), len(x), codes)


def _beside_floors(
    exam: Exam,
    key: str,
    judged: Callable[[tuple[Tensor, Tensor]], Estimate | float],
    n: int,
    codes: tuple[_Codes, _Codes, _Codes] | None = None,
    **detail: Any,
) -> Figure:
    """A figure of two sets of codes.

    Its floor is that of raw data, the detail ``untrained`` that of the untrained encoder.

    Args:
        codes: of the model, of raw data, and of the untrained encoder; by default of the training and the held-out
            examples.
    """
    bench, floor = exam.bench, None
    of_model, of_raw, of_untrained = codes or (
        lambda: exam.codes,
        lambda: bench.raw_codes,
        lambda: exam.untrained_codes,
    )
    found = judged(of_model())

    def value(of: _Codes) -> float | None:
        try:
            result = judged(of())
        except InputError:  # too many columns, codes that are not finite
            return None
        number = result.value if isinstance(result, Estimate) else result
        return number if math.isfinite(number) else None

    if bench.intervals:
        floor = bench.once(key, lambda: value(of_raw))
        try:
            detail["untrained"] = value(of_untrained)
        except OutOfTime:  # the figure itself is there
            detail["untrained"] = None
    return make_figure(found, n, floor=floor, features=exam.codes[0].shape[1], **detail)


def classes_of(bench: Bench) -> tuple[Tensor, Tensor]:
    """The labels of the training and the held-out examples for probes.

    Raises:
        InputError: there are none, or too few to learn from.
    """
    known, true = _labels_of(bench.probed)
    classes, kinds = len(torch.cat([known, true]).unique()), len(known.unique())
    if kinds == 1:
        raise InputError(
            f"all {len(known):,} training examples have the same class, so there is nothing to predict; a probe needs "
            "examples of two classes or more"
        )
    if len(known) < classes:
        raise InputError(
            f"there are {len(known)} labelled training examples of {classes} classes; a probe needs one example of "
            "each class or more"
        )
    return known, true


def check_labels(bench: Bench, labels: int) -> None:
    """Raise `InputError` if a class has fewer training examples than ``labels``: each choice would be all."""
    label = bench.probed[0].label
    if label is None:
        return
    kinds, counts = label.unique(return_counts=True)
    least = int(counts.argmin())
    if (count := int(counts[least])) < labels:
        kind = class_word(int(kinds[least]), bench.data.labels)
        raise InputError(
            f"{labels} labels per class asked for, but class {kind} has {counted(count, 'training example')}; use "
            f"--labels {count} or fewer"
        )


def _labels_of(splits: tuple[Split, Split]) -> tuple[Tensor, Tensor]:
    """The labels of two splits."""
    first, second = (split.label for split in splits)
    if first is None or second is None:
        raise InputError("the data has no labels")
    return first.cpu(), second.cpu()


def _accuracy(exam: Exam) -> Figure:
    known, true = _labels_of((exam.bench.data.train, exam.bench.test))
    found = wilson(int((predict_classes(exam.model, exam.bench.test) == true).sum()), len(true))
    return make_figure(found, len(true), floor=majority_share(known, true))


def _translation(to: Literal["a", "b"]) -> Callable[[Exam], Figure]:
    def run(exam: Exam) -> Figure:
        a, b = exam.bench.pairs
        return translation_error(exam.model, *((a, b) if to == "b" else (b, a)), to=to)

    return run


def _colour(exam: Exam) -> Figure:
    return colour_error(exam.model, exam.bench.test.x, exam.bench.data.train.glance)


def _seconds(exam: Exam) -> Figure:
    if exam.train_seconds is None:
        raise InputError("the duration of training is not recorded")
    return make_figure(exam.train_seconds, 1)


# --- the tables -------------------------------------------------------------------------------------------------------


def _has_likelihood(model: Subject, data: Data) -> bool:
    if not isinstance(model, HasDensity):
        return isinstance(model, HasEnergy) and is_planar(model.event)
    marginalised = isinstance(model, IsConditional) and model.classes > 0
    return not is_conditioned(model) or marginalised or data.validation.given is not None


def _has_labels(model: Subject, data: Data) -> bool:
    return data.train.label is not None and data.validation.label is not None


def _classifies(model: Subject, data: Data) -> bool:
    return isinstance(model, Classifies) and (not isinstance(model, IsConditional) or model.classes > 0)


# fmt: off
NEEDS: dict[str, Need] = {
    # words, of, holds, without
    "likelihood": Need("a model with a density", "model", _has_likelihood, "{model} has no likelihood"),
    "score": Need("a model with a density or an energy", "model",
                  lambda model, data: _has_likelihood(model, data) or isinstance(model, HasEnergy),
                  "{model} has neither a likelihood nor an energy"),
    "samples": Need("a model that samples", "model", lambda model, data: isinstance(model, CanSample | Tensor),
                    "{model} draws no samples"),
    "codes": Need("a model that encodes", "model", lambda model, data: isinstance(model, CanEncode),
                  "{model} has no codes"),
    "restored": Need("a model that decodes its codes, and is not invertible", "model",
                     lambda model, data: isinstance(model, CanDecode) and not isinstance(model, IsFlow),
                     "{model} {why}", lambda model: "is invertible: it restores every example"
                     if isinstance(model, IsFlow) else "does not decode"),
    "classes": Need("a model that classifies", "model", _classifies, "{model} is not a classifier"),
    "translations": Need("a model that translates", "model", lambda model, data: isinstance(model, Translates),
                         "{model} does not translate"),
    "colouring": Need("a model that colours grey pictures", "model", lambda model, data: isinstance(model, Colours),
                      "{model} does not colour pictures"),
    "labels": Need("labels", "data", _has_labels, "the data has no labels"),
    "levels": Need("discrete data", "data", lambda model, data: data.event.is_discrete,
                   "a density of real numbers does not imply a number of bytes"),
    "coder": Need("a model with a coder (unsup compress)", "model",
                  lambda model, data: not reason_against_coding(model),
                  "{model} has no coder ({why})", reason_against_coding),
    "images": Need("images of one or three channels", "data",
                   lambda model, data: data.event.is_image and data.event.shape[0] in (1, 3),
                   "the data are not images of one or three channels"),
    "colour": Need("colour pictures", "data", lambda model, data: data.event.is_image and data.event.shape[0] == 3,
                   "the data are not images of three channels"),
    "views": Need("images or sound", "data",
                  lambda model, data: has_views(data.event, data.form),
                  "views are made of images of one or three channels, with an order of levels, and of sound"),
    "modes": Need(f"data whose modes are known ({', '.join(MODES_KNOWN)})", "data",
                  lambda model, data: data.name in MODES_KNOWN,
                  f"the modes of the data are not known, only those of {', '.join(MODES_KNOWN)}"),
    "pairs": Need("paired domains", "data", lambda model, data: "domain_b" in data.test.streams and data.paired,
                  "the data has no pairs to compare translations with"),
}
# fmt: on
"""The requirements of measures, by name."""

_HELD_OUT = "held-out data in place of samples"
_RAW = "raw data in place of codes"
_TRUE = "held-out examples, at most as many"
_MEAN_COLOUR = "the mean colour of training pictures"
_UNTRANSLATED = "examples without a translation"
_ANY = (-math.inf, math.inf)
_SHARE = (0.0, 1.0)
_POSITIVE = (0.0, math.inf)

# fmt: off
MEASURES: dict[str, Measure] = {row.key: row for row in (
    # key, title, explanation, unit, better, purpose, needs, run, range, floor, show
    Measure("likelihood", "likelihood", "mean −log p of an example",
            "nats", "lower", "density", ("likelihood",), _likelihood, _ANY, "", "{:,.2f}".format),
    Measure("calibration", "calibration error", "largest error of the shares of data in regions of high density",
            "", "lower", "density", ("likelihood", "samples"),
            _calibration, _SHARE,
            "exceeded by one of twenty calibrated models"),
    Measure("fid", "FID", "Fréchet distance of samples to training examples in features of an extractor",
            "", "lower", "samples", ("samples",), _compared("fid", _fid), _POSITIVE, _HELD_OUT),
    Measure("kid", "KID × 10³", "kernel distance of samples to training examples in features of an extractor",
            "", "lower", "samples", ("samples",), _compared("kid", _kid), _ANY, _HELD_OUT,
            lambda value: f"{1000 * value:,.0f}" if abs(value) >= 1 else f"{1000 * value:.4g}"),
    Measure("inception_score", "Inception score", "how certain and how varied the classes of samples are",
            "", "higher", "samples", ("samples", "images"), _compared("inception_score", _inception_score),
            (1.0, math.inf), _HELD_OUT),
    Measure("precision", "precision", "share of samples that are among the training examples",
            "", "higher", "samples", ("samples",), _compared("precision", _neighbours), _SHARE, _HELD_OUT),
    Measure("recall", "recall", "share of training examples that are among the samples",
            "", "higher", "samples", ("samples",), _compared("recall", _neighbours), _SHARE, _HELD_OUT),
    Measure("density", "density", "mean number of neighbourhoods of training examples around a sample, over 5",
            "", "higher", "samples", ("samples",), _compared("density", _neighbours), _POSITIVE, _HELD_OUT),
    Measure("coverage", "coverage", "share of the neighbourhoods of training examples that contain a sample",
            "", "higher", "samples", ("samples",), _compared("coverage", _neighbours), _SHARE, _HELD_OUT),
    Measure("memorisation", "memorisation", "probability that a sample is nearer to training data than held-out data",
            "", None, "samples", ("samples",), _memorisation, _SHARE, _HELD_OUT, "{:.1%}".format),
    Measure("modes", "modes covered", "modes of the data that have a good sample",
            "", "higher", "samples", ("samples", "modes"), _of_modes("modes"), _POSITIVE, _TRUE,
            "{:,.4g}".format),
    Measure("modes_good", "good samples", "share of samples near a mode of the data",
            "", "higher", "samples", ("samples", "modes"),
            _of_modes("modes_good"), _SHARE, _TRUE, "{:.1%}".format),
    Measure("modes_kl", "KL of modes", "divergence of the shares of the modes of good samples from equal shares",
            "nats", "lower", "samples", ("samples", "modes"), _of_modes("modes_kl"), _POSITIVE,
            _TRUE, "{:.4f}".format),
    Measure("translation_b", "error to b", "mean absolute error per entry of translations to domain b",
            "raw units", "lower", "samples", ("translations", "pairs"), _translation("b"), _POSITIVE, _UNTRANSLATED),
    Measure("translation_a", "error to a", "mean absolute error per entry of translations to domain a",
            "raw units", "lower", "samples", ("translations", "pairs"), _translation("a"), _POSITIVE, _UNTRANSLATED),
    Measure("colour", "colour error", "mean distance of predicted colours of grey pictures from the true ones",
            "units of ab", "lower", "samples", ("colouring", "colour"), _colour, _POSITIVE, _MEAN_COLOUR),
    Measure("auroc", "AUROC", "probability that an anomaly has a higher score than a held-out example",
            "", "higher", "anomalies", ("score",), _of_anomalies("auroc"), _SHARE, "guessing"),
    Measure("average_precision", "average precision", "mean precision over the ranks of the anomalies",
            "", "higher", "anomalies", ("score",), _of_anomalies("average_precision"), _SHARE, "guessing"),
    Measure("probe", "linear probe", "accuracy of a logistic regression on the codes, with all labels",
            "", "higher", "features", ("codes", "labels"), _of_labels("probe", probe), _SHARE, _RAW,
            "{:.1%}".format),
    Measure("knn", "nearest codes", "accuracy of a classifier by the five training examples with the nearest codes",
            "", "higher", "features", ("codes", "labels"), _of_labels("knn", neighbours_vote), _SHARE, _RAW,
            "{:.1%}".format),
    Measure("knn_weighted", "weighted vote", f"accuracy of a vote of the {VOTERS} training examples with the nearest "
            f"codes by cosine s, weighted by exp(s / {TEMPERATURE})",
            "", "higher", "features", ("codes", "labels"),
            _of_labels("knn_weighted", weighted_vote, k=VOTERS, temperature=TEMPERATURE), _SHARE, _RAW,
            "{:.1%}".format),
    Measure("few_labels", "probe, few labels", "accuracy of a logistic regression on the codes, a few labels per "
            "class (ten by default)",
            "", "higher", "features", ("codes", "labels"), _of_labels("few_labels", few_labels, "labels"), _SHARE, _RAW,
            "{:.1%}".format, ("labels",)),
    Measure("reconstruction", "reconstruction error", "share of the variance that decoding the codes does not restore",
            "", "lower", "features", ("restored",), _reconstruction, _POSITIVE),
    Measure("nmi", "NMI of clusters", "information about the classes in k-means clusters of the codes, one per class",
            "", "higher", "features", ("codes", "labels"), _of_labels("nmi", nmi), _SHARE, _RAW),
    Measure("ari", "ARI of clusters", "adjusted Rand index of k-means clusters of the codes and classes; 0 is chance",
            "", "higher", "features", ("codes", "labels"), _of_labels("ari", ari), (-0.5, 1.0), _RAW),
    Measure("alignment", "alignment", "mean d² of normalised codes of an example and of a random view of it; 0 is "
            "invariance, 2 no relation",
            "", None, "features", ("codes", "views"), _alignment, (0.0, 4.0), _RAW, "{:.3f}".format),
    Measure("uniformity", "uniformity", "log mean of exp(−2 d²) over pairs of normalised codes; 0 is collapse, −4 a "
            "uniform sphere",
            "", None, "features", ("codes",), _of_spread("uniformity", uniformity), (-8.0, 0.0), _RAW, "{:.2f}".format),
    Measure("effective_rank", "effective rank", "number of dimensions along which the codes vary, by the entropy of "
            "their spectrum",
            "", None, "features", ("codes",), _of_spread("effective_rank", effective_rank), (1.0, math.inf), _RAW,
            "{:,.1f}".format),
    Measure("implied_bytes", "implied bytes", "bytes of an example under an ideal coder, by the likelihood",
            "bytes", "lower", "compression", ("likelihood", "levels"), _implied_bytes, _POSITIVE),
    Measure("coded_bytes", "coded bytes", "bytes of an example compressed with the model, decoded and compared",
            "bytes", "lower", "compression", ("likelihood", "levels", "coder"), _coded_bytes, _POSITIVE),
    Measure("accuracy", "accuracy", "share of examples that the model classifies correctly",
            "", "higher", "classes", ("classes", "labels"), _accuracy, _SHARE, "most frequent class", "{:.1%}".format),
    Measure("seconds", "training time", "seconds of training, including validation",
            "", None, "cost", (), _seconds, _POSITIVE, "", duration),
    Measure("sampling", "sampling speed", "samples drawn per second",
            "samples/s", "higher", "cost", ("samples",),
            lambda exam: make_figure(exam.sampling.per_second, len(exam.sampling.shown)), _POSITIVE, "",
            lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.2g}"),
    Measure("parameters", "parameters", "number of trained parameters",
            "", None, "cost", (), lambda exam: make_figure(exam.model.parameter_count, 1), _POSITIVE, "",
            "{:,.0f}".format),
)}
# fmt: on
"""Every measure, in the order of tables."""


def possible_measures(data: Data) -> tuple[str, ...]:
    """The measures whose requirements on the data are satisfied."""
    lacking = {need for need, row in NEEDS.items() if row.of == "data" and not row.holds(None, data)}
    return tuple(key for key, row in MEASURES.items() if not lacking & set(row.needs))


def sample_measures(data: Data) -> tuple[str, ...]:
    """The measures of the quality of samples that are possible on the data."""
    rows = (MEASURES[key] for key in possible_measures(data))
    return tuple(row.key for row in rows if row.purpose == "samples" and row.better and "samples" in row.needs)
