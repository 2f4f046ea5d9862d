"""How good samples are: Inception score, FID, KID, precision, recall, density and coverage from one pass of features.

Fakes are judged against as many training examples. Beside each number stands the same number of held-out real examples:
what a perfect model would get.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.machine import fast_cpu
from unsup.core.model import CanSample, Model, keyed_generator
from unsup.core.parallel import share_out
from unsup.data.source import Data, Split
from unsup.evaluate.conditions import conditions_of, is_conditioned
from unsup.evaluate.features import Extractor, Features, choose_extractor, digit_reader, read_digits
from unsup.evaluate.frechet import deleted_groups, frechet_distance
from unsup.evaluate.kernel import kernel_distance
from unsup.evaluate.modes import ModeCoverage, class_coverage, mode_coverage, plane_modes
from unsup.evaluate.neighbours import neighbours

CHUNK = 500
"""Examples drawn at once, each chunk keyed by (seed, position), so that it does not matter who draws which."""
SPLITS = 10
_GROUPS, _GROUPS_WIDE, _WIDE = 20, 10, 512
_Z = 1.96
_SAMPLE, _REAL, _HELD_OUT, _SHUFFLE, _SUBSETS = range(5)

INTERVALS = (
    "95 %, normal: FID by a jackknife over disjoint groups of both sets; KID over disjoint subsets; Inception score "
    "over its splits; the others over examples, the other set held fixed"
)

Stage = Literal["sampling", "features", "metrics"]
Report = Callable[[Stage, int, int], None]


@dataclass(frozen=True)
class Score:
    """One number of a set of samples.

    Attributes:
        value: of the samples.
        error: its standard error.
        floor: the number that held-out real examples get in the samples' place.
        better: which way is better.
    """

    value: float
    error: float
    floor: float
    better: Literal["lower", "higher"]

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, normal."""
        return self.value - _Z * self.error, self.value + _Z * self.error

    def to_json(self) -> dict[str, Any]:
        record = {"value": self.value, "interval": list(self.interval), "floor": self.floor, "better": self.better}
        return {k: _finite(v) for k, v in record.items()}


@dataclass(frozen=True)
class SampleQuality:
    """Every number of one set of samples, and what each depends on.

    Attributes:
        scores: by name: ``fid``, ``kid``, ``precision``, ``recall``, ``density``, ``coverage`` and, where the extractor
            has classes, ``inception_score``.
        fake, real, held_out: examples counted: samples, training examples, held-out examples behind the floor.
        extractor, digest, input: name, SHA-256 and what is done to an example first.
        seed: of the samples, the choice of real examples and the subsets.
        modes: coverage of known modes, where the data has such.
        notes: what the reader should know.
    """

    scores: dict[str, Score]
    fake: int
    real: int
    held_out: int
    extractor: str
    digest: str
    input: str
    seed: int
    modes: ModeCoverage | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Score:
        return self.scores[name]

    def to_json(self) -> dict[str, Any]:
        return {
            "scores": {k: v.to_json() for k, v in self.scores.items()},
            "fake": self.fake,
            "real": self.real,
            "held_out": self.held_out,
            "extractor": {"name": self.extractor, "sha256": self.digest, "input": self.input},
            "seed": self.seed,
            "intervals": INTERVALS,
            "modes": None if self.modes is None else self.modes.to_json(),
            "notes": list(self.notes),
        }


def evaluate_samples(
    model_or_samples: Model | Tensor,
    data: Data,
    n: int = 10_000,
    extractor: str | Extractor = "auto",
    seed: int = 0,
    on_progress: Report | None = None,
) -> SampleQuality:
    """Judge a model's samples, or samples ``(N, *event.shape)`` at hand, against the training split of ``data``.

    A model with a condition is asked for samples given the conditions of training examples.

    Args:
        n: samples, and training examples they are held against; of samples at hand, how many at most.
        extractor: ``auto`` (by the kind of data), a name of `features.NAMES`, or an extractor.
        on_progress: told the stage, how much of it is done and how much there is.

    Raises:
        CapabilityError: the model cannot sample.
        InputError: samples of another shape, or with values outside the event (NaN among them), or too few.

    >>> from unsup import load_data
    >>> moons = load_data("moons", n=1000)
    >>> found = evaluate_samples(moons.test.x, moons)
    >>> found.extractor, found.fake, found.scores["precision"].value > 0.8
    ('raw', 100, True)
    """
    if n < 2:
        raise InputError(f"n = {n} samples asked for; expected 2 or more")
    report = on_progress or (lambda stage, done, total: None)
    if isinstance(model_or_samples, Model):
        given = conditions_of(model_or_samples, data.train, n)
        fake = draw_samples(
            model_or_samples, n, seed=seed, given=given, on_chunk=lambda done, of: report("sampling", done, of)
        )
    else:
        fake = model_or_samples[:n]
    if not len(fake):
        raise InputError("no samples given; expected two or more")
    data.event.check(fake)
    total, done = len(fake) + min(n, len(data.train)) + min(n, len(data.test)), 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        report("features", done, total)

    real = real_features(data, n, extractor, seed=seed, on_chunk=count)
    points = real.extractor(fake, on_chunk=count)
    return judge_features(points, real, known_modes(data.name, fake), lambda i, of: report("metrics", i, of))


@dataclass(frozen=True, eq=False)
class RealFeatures:
    """Features of the real examples that samples are judged against, made once for any number of models.

    Attributes:
        extractor: what made them.
        train: of ``n`` training examples, or all where there are fewer.
        held_out: of as many test examples.
        seed: of the choice.
    """

    extractor: Extractor
    train: Features
    held_out: Features
    seed: int


def real_features(
    data: Data,
    n: int,
    extractor: str | Extractor = "auto",
    *,
    seed: int = 0,
    on_chunk: Callable[[int], None] | None = None,
) -> RealFeatures:
    """Features of ``n`` examples of the training split and of the test split, chosen by the seed."""
    chosen = choose_extractor(extractor, data.event, data.train.glance) if isinstance(extractor, str) else extractor
    train, held_out = _choose(data.train, n, seed, _REAL), _choose(data.test, n, seed, _HELD_OUT)
    return RealFeatures(chosen, chosen(train, on_chunk=on_chunk), chosen(held_out, on_chunk=on_chunk), seed)


def judge_features(
    fake: Features,
    real: RealFeatures,
    found_modes: tuple[ModeCoverage | None, tuple[str, ...]] = (None, ()),
    on_progress: Callable[[int, int], None] | None = None,
) -> SampleQuality:
    """Every score of the features of samples; what `evaluate_samples` ends with."""
    scores = compare_features(fake, real.train, real.held_out, seed=real.seed, on_progress=on_progress)
    modes, notes = found_modes
    if len(real.held_out) < len(fake):
        notes += (f"the floor is that of only {len(real.held_out):,} held-out examples, which raises its FID",)
    counts = len(fake), len(real.train), len(real.held_out)
    by = real.extractor
    return SampleQuality(scores, *counts, by.name, by.digest, by.input, real.seed, modes, notes)


@torch.no_grad()
def draw_samples(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    given: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """``n`` samples ``(n, *event.shape)`` on the CPU, keyed by (seed, chunk), so that several processes share them.

    Args:
        given: what each is conditioned on, ``(n, *given.shape)``, for models built with ``given``.
        options: of ``model.sample``, e.g. a temperature.

    Raises:
        CapabilityError: the model cannot sample, or takes no condition.
    """
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{type(model).__name__} draws no samples; ask a model that can sample (unsup models)")
    if given is not None and not is_conditioned(model):
        raise CapabilityError(f"this {type(model).__name__} was built without a condition; leave out given=")
    sample: Callable[..., Tensor] = functools.partial(model.sample, **(options or {}))
    was_training = model.training
    model.eval()

    def drawn(position: int) -> Tensor:
        generator = keyed_generator(seed, _SAMPLE, position, device=model.device)
        start, stop = position * CHUNK, min((position + 1) * CHUNK, n)
        beside = {} if given is None else {"given": given[start:stop].to(model.device)}
        return sample(stop - start, generator=generator, **beside).cpu()

    def report(done: int) -> None:
        if on_chunk is not None:
            on_chunk(min(done * CHUNK, n), n)

    with fast_cpu(model.device):
        found = share_out(-(-n // CHUNK), drawn, report)
    model.train(was_training)
    return found


def compare_features(
    fake: Features,
    real: Features,
    held_out: Features,
    *,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Score]:
    """Every score of fakes against reals, with that of held-out reals as the floor.

    Raises:
        InputError: too few examples for a score.
    """
    tell = on_progress or (lambda done, total: None)
    steps = 6
    points, reference, other = fake.points, real.points, held_out.points
    error = jackknife_error(points, reference)
    scores = {
        "fid": Score(frechet_distance(points, reference), error, frechet_distance(other, reference), "lower"),
    }
    tell(1, steps)
    key = keyed_generator(seed, _SUBSETS).initial_seed()
    kid = kernel_distance(points, reference, seed=key)
    tell(2, steps)
    scores["kid"] = Score(kid.value, kid.error, kernel_distance(other, reference, seed=key).value, "lower")
    tell(3, steps)
    if fake.logits is not None and held_out.logits is not None:
        value, spread = inception_score(fake.logits, seed=seed)
        error = spread / math.sqrt(SPLITS - 1)
        scores["inception_score"] = Score(value, error, inception_score(held_out.logits, seed=seed)[0], "higher")
    tell(4, steps)
    own = neighbours(points, reference)
    tell(5, steps)
    floor = neighbours(other, reference)
    tell(6, steps)
    for name in ("precision", "recall", "density", "coverage"):
        terms = getattr(own, name).double()
        spread = float(terms.std()) / math.sqrt(len(terms))
        scores[name] = Score(float(terms.mean()), spread, float(getattr(floor, name).double().mean()), "higher")
    return scores


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int | None = 0) -> tuple[float, float]:
    """exp E KL(p(y|x) ‖ p(y)) of class logits ``(N, K)``: mean and standard deviation (ddof 0) over splits.

    Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen 2016, https://arxiv.org/abs/1606.03498. Computed in float64. It
    rises with the size of a split: compare figures of equal counts only.

    Args:
        splits: parts of equal size, up to one example.
        seed: of the shuffle before splitting; None keeps the order.

    Raises:
        InputError: fewer examples than splits.

    >>> round(inception_score(100 * torch.eye(10), splits=1)[0], 6)
    10.0
    """
    n = len(logits)
    if n < splits or splits < 1:
        raise InputError(f"{n} examples and {splits} splits given; expected one example a split or more")
    if seed is not None:
        logits = logits[torch.randperm(n, generator=keyed_generator(seed, _SHUFFLE))]
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    values = []
    for i in range(splits):
        part = slice(i * n // splits, (i + 1) * n // splits)
        # log_softmax is finite, so a p that has gone under adds 0; the clamp keeps a class nobody has from adding NaN.
        marginal = p[part].mean(0).clamp(min=torch.finfo(torch.float64).tiny).log()
        values.append((p[part] * (log_p[part] - marginal)).sum(1).mean().exp())
    found = torch.stack(values)
    return float(found.mean()), float(found.std(correction=0))


def jackknife_error(fake: Tensor, real: Tensor) -> float:
    """Standard error of the FID of ``(N, D)`` against ``(M, D)``: a jackknife over disjoint groups of both sets.

    With d²₍g₎ the distance without group g of G: se² = (G − 1)/G Σ_g (d²₍g₎ − mean)². G is 20; 10 beyond 512 features.
    NaN for more than 512 features of fewer examples than features, whose covariances it would take long to say little.
    """
    if fake.shape[1] > max(_WIDE, len(fake)):
        return math.nan
    groups = min(_GROUPS if fake.shape[1] <= _WIDE else _GROUPS_WIDE, len(fake) // 2, len(real) // 2)
    if groups < 2:
        return math.nan
    values = torch.tensor(deleted_groups(fake, real, groups), dtype=torch.float64)
    return math.sqrt((groups - 1) * float(values.var(correction=0)))


def known_modes(name: str | None, fake: Tensor) -> tuple[ModeCoverage | None, tuple[str, ...]]:
    """Mode coverage of samples of a data set whose modes are known, with notes on how it was found; else None."""
    plane = plane_modes(name)
    if plane is not None:
        return mode_coverage(fake, *plane), ()
    if name != "stacked-mnist":
        return None, ()
    digits = read_digits(fake.reshape(-1, 1, *fake.shape[2:])).view(-1, 3)
    accuracy = digit_reader().record["accuracy"]["mnist"]
    note = f"modes are read by the extractor grey, which names {accuracy:.2%} of MNIST's test digits correctly"
    return class_coverage((digits * torch.tensor([100, 10, 1])).sum(1), 1000), (note,)


def _choose(split: Split, n: int, seed: int, use: int) -> Tensor:
    """``n`` of the examples, or all in another order where there are no more."""
    return split.rows(torch.randperm(len(split), generator=keyed_generator(seed, use))[:n])


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
