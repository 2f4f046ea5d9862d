"""One model on one bench: everything that measures share, each computed when the first of them needs it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from unsup.core.commands import path_word
from unsup.core.deadline import Deadline, OutOfTime
from unsup.core.errors import CapabilityError, InputError
from unsup.core.escapes import command_line
from unsup.core.likelihood import Likelihood
from unsup.core.machine import fast_cpu
from unsup.core.model import CanSample, HasDensity, HasEnergy, Model, keyed_generator
from unsup.data.source import Data, Split
from unsup.evaluate.anomaly import AnomalyScores, anomaly_detection
from unsup.evaluate.bench import Bench, Measuring, Tell
from unsup.evaluate.calibration import CalibrationResult, calibration
from unsup.evaluate.conditions import beside, is_conditioned
from unsup.evaluate.features import Extractor, Features
from unsup.evaluate.likelihood import CHUNK, likelihood_of, log_probs
from unsup.evaluate.measures import MEASURES, bounded, sample_measures
from unsup.evaluate.memorisation import MemorisationResult, memorisation
from unsup.evaluate.modes import ModeCoverage
from unsup.evaluate.neighbours import Neighbours, neighbours
from unsup.evaluate.probe import encode_all, predict_classes
from unsup.evaluate.quadrature import with_likelihood
from unsup.evaluate.records import Evaluation, Figure
from unsup.evaluate.samples import draw_samples, known_modes
from unsup.evaluate.translation import TranslationError, translation_error

_MOST_IMPORTANCE_SAMPLES = 50
_FIRST, _TIMED, _TIMED_FEW = 2, 64, 4  # samples, not counted; timed; timed of a slow sampler
_TIMED_MOST = 4  # times the limit, from which a sampler is slow
_FOR_QUALITY = 10


@dataclass(frozen=True)
class Sampling:
    """How fast samples are drawn, and those that were drawn to find out."""

    per_second: float
    n: int
    shown: Tensor


class Exam:
    """A model, or samples of one at hand, on a bench.

    Its properties raise an `InputError` or a `CapabilityError` with the reason where there is nothing to be had.

    Args:
        bench: the real examples.
        model: what is measured; or only samples ``(N, *event.shape)``, for the measures of samples.
        name: of the model, in reasons.
        path: of its run, for commands in reasons.
        train_seconds: how long it was trained, where that is known.
        seconds: what all measuring may take; a measure that would take longer is missing, with the reason.
        tell: told what is computed: the title of a measure as it starts, ``"likelihood"`` and ``"sampling"`` with the
            examples done.
    """

    def __init__(
        self,
        bench: Bench,
        model: Model | Tensor,
        *,
        name: str = "",
        path: Path | None = None,
        train_seconds: float | None = None,
        seconds: float = math.inf,
        tell: Tell = lambda stage, done, total: None,
    ) -> None:
        self.bench, self._model, self.path, self.tell = bench, model, path, tell
        self.name = name or type(model).__name__
        self.train_seconds = train_seconds
        self.m = bench.measuring
        self.seconds: dict[str, float] = {}
        self.deadline = Deadline(seconds, f"the {seconds:.0f} s for measuring {self.name} were over before this")
        self._no_sampling: OutOfTime | None = None

    def figures(self, keys: Iterable[str]) -> tuple[dict[str, Figure], dict[str, str]]:
        """The figures of these measures, and why others cannot be had."""
        figures: dict[str, Figure] = {}
        missing: dict[str, str] = {}
        for key in keys:
            row = MEASURES[key]
            reason = row.reason_against(self._model, self.bench.data, self.name)
            started = time.monotonic()
            if reason is None:
                self.tell(row.title, 0, 0)
                try:
                    with self.deadline if row.needs else nullcontext():
                        found = bounded(row.run(self), *row.range)
                    reason = None if math.isfinite(found["value"]) else f"its {row.title} is {found['value']}"
                except (InputError, CapabilityError) as error:
                    reason = str(error)
            if reason is None:
                figures[key], self.seconds[key] = found, round(time.monotonic() - started, 3)
            else:
                missing[key] = reason
        return figures, missing

    def evaluations(self, figures: Mapping[str, Figure], *, step: int | None, changed_data: bool) -> list[Evaluation]:
        """Figures of this exam as ``eval.json`` keeps them.

        Args:
            step: of the parameters.
            changed_data: whether the data has changed since training.
        """
        return [
            {
                "measure": key,
                "split": self.m.split,
                "step": step,
                "settings": MEASURES[key].settings(self.m),
                "seconds": self.seconds[key],
                "changed_data": changed_data,
                "figure": figure,
            }
            for key, figure in figures.items()
        ]

    @property
    def slow_seconds(self) -> float:
        """What one slow part may take: that of the plan, or half of what is left."""
        return min(self.m.seconds, self.deadline.seconds_left / 2)

    @property
    def model(self) -> Model:
        if not isinstance(self._model, Model):
            raise InputError("there are only samples; this measure needs the model itself")
        return self._model

    # --- likelihood -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def scored(self) -> Model:
        """The model, or what gives an energy of the plane its likelihood."""
        return with_likelihood(self.model, self.bench.data.train.glance)

    @functools.cached_property
    def importance_samples(self) -> int:
        if self.m.importance_samples is not None:
            return self.m.importance_samples
        scored, test = self.scored, self.bench.test
        if not isinstance(scored, HasDensity) or scored.likelihood_kind != "bound":
            return 1
        # As many as the test examples, the anomalies and as many draws can be scored with in time.
        few = test.take(slice(CHUNK))
        log_probs(scored, few, seed=self.m.seed)
        started = time.monotonic()
        log_probs(scored, few, seed=self.m.seed)
        each = (time.monotonic() - started) / min(CHUNK, len(test))
        count = len(test) + len(self.bench.anomalies) + self.m.samples
        return max(1, min(_MOST_IMPORTANCE_SAMPLES, int(self.slow_seconds / (each * count))))

    def log_probs(self, x: Split, *, stored: bool = True) -> Tensor:
        return log_probs(
            self.scored,
            x,
            samples=self.importance_samples,
            seed=self.m.seed,
            stored=stored,
            on_chunk=lambda done, total: self.tell("likelihood", done, total),
        )

    @functools.cached_property
    def _test_scores(self) -> Tensor:
        return self.log_probs(self.bench.test, stored=False)

    @property
    def scores(self) -> Tensor:
        """log p of the held-out examples: ``(N,)``, float64, finite."""
        scores, weight = self._test_scores, self.bench.test.weight
        counted = scores if weight is None else scores[weight.cpu() > 0]
        if bad := int((~counted.isfinite()).sum()):
            what = "of NaN" if bool(counted.isnan().any()) else "of −∞"
            raise InputError(f"{bad} of {len(counted)} {self.m.split} examples have a log-likelihood {what}")
        return scores

    @property
    def likelihood(self) -> Likelihood:
        test = self.bench.test
        return likelihood_of(
            self.scored, self.scores, self.importance_samples, lengths=test.lengths, weight=test.weight
        )

    @functools.cached_property
    def calibration(self) -> CalibrationResult:
        scores = self.scores
        return calibration(scores, self.log_probs(self.samples))

    # --- samples --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def sampling(self) -> Sampling:
        """How fast samples come, after one draw that is not counted."""
        if self._no_sampling is not None:
            raise self._no_sampling
        limit = Deadline(self.slow_seconds, f"drawing {_FIRST} samples takes more than {self.slow_seconds:.0f} s here")
        try:
            with limit:
                return self._timed_sampling()
        except OutOfTime as error:
            self._no_sampling = error
            raise

    @torch.no_grad()
    def _timed_sampling(self) -> Sampling:
        model, slow = self.model, self.slow_seconds
        if not isinstance(model, CanSample):
            raise CapabilityError(f"{self.name} draws no samples")
        generator = keyed_generator(self.m.seed, _TIMED, device=model.device)

        def draw(n: int) -> Tensor:
            given = self.bench.conditions(self.model, n)
            condition = None if given is None else given.to(self.model.device)
            return model.sample(n, generator=generator, **beside(self.model, condition)).cpu()

        was_training = self.model.training
        self.model.eval()
        with fast_cpu(model.device):
            started = time.monotonic()
            count, shown = _FIRST, draw(_FIRST)
            first = time.monotonic() - started
            # Thirty-two times as long is the most that the batch can take; slow samplers are timed on a smaller one.
            for count in (_TIMED, _TIMED_FEW) if 32 * first < _TIMED_MOST * slow else (_TIMED_FEW,):
                started = time.monotonic()
                with suppress(OutOfTime), Deadline(slow / 2, ""):
                    shown = draw(count)
                    break
            rate = len(shown) / max(time.monotonic() - started, 1e-9)
        self.model.train(was_training)
        return Sampling(rate, len(shown), shown)

    @functools.cached_property
    def samples(self) -> Split:
        """As many samples as are judged, with what they are given, unless that would take too long."""
        n = self.m.samples
        if n < 2:
            raise InputError(f"{n} samples asked for; expected 2 or more")
        if isinstance(self._model, Tensor):
            return Split(self._model[:n])
        slow = self.slow_seconds
        if slow < math.inf and (needed := n / self.sampling.per_second) > slow:
            again = command_line(["unsup", "eval", path_word(self.path or "RUN"), "--samples", str(n)])
            raise InputError(
                f"{n:,} draws would take about {needed:,.0f} s here and {slow:.0f} s were left for them; {again} makes "
                "them"
            )
        given = self.bench.conditions(self._model, n)
        told = functools.partial(self.tell, "sampling")
        return Split(draw_samples(self._model, n, seed=self.m.seed, given=given, on_chunk=told), given=given)

    @functools.cached_property
    def compared(self) -> tuple[Features, Features, Features]:
        """The features of the samples, of training examples and of held-out examples."""
        samples = self.samples.x
        self.bench.data.event.check(samples)
        fewest = min(len(samples), len(self.bench.held_out))
        if fewest < _FOR_QUALITY:
            raise InputError(
                f"judging samples needs {_FOR_QUALITY} of them and as many {self.m.split} examples; there are {fewest}"
            )
        real, done = self.bench.real, 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            self.tell("features", done, len(samples))

        return real.extractor(samples, on_chunk=count), real.train, real.held_out

    @property
    def sets(self) -> dict[str, Any]:
        """What the features are of and by."""
        fake, real, held_out = self.compared
        by = self.bench.real.extractor
        counts = {"fake": len(fake), "real": len(real), "held_out": len(held_out)}
        return {"extractor": by.name, "sha256": by.digest, **counts}

    @functools.cached_property
    def neighbours(self) -> Neighbours:
        fake, real, _ = self.compared
        return neighbours(fake.points, real.points)

    @functools.cached_property
    def memorised(self) -> MemorisationResult:
        fake, _, held_out = self.compared
        return memorisation(fake.points, held_out.points, self.bench.train_features.points)

    @functools.cached_property
    def modes(self) -> tuple[ModeCoverage, str]:
        """The modes that the samples cover, and how they were read, or ""."""
        samples = self.samples.x
        self.bench.data.event.check(samples)
        return known_modes(self.bench.data.name, samples)

    # --- what it is good for --------------------------------------------------------------------------------------

    @functools.cached_property
    def anomaly_scores(self) -> tuple[Tensor, Tensor, str]:
        """Scores of held-out examples and of anomalies, higher for odder ones, and what they are."""
        if self.m.anomalies is None and self.bench.data.event.dims == 1:
            raise InputError("an example is one number, so shuffling columns makes no anomalies; name other data")
        try:
            ordinary, odd = self._compared_scores()
            return -ordinary, -odd, "log-likelihood"
        except (InputError, CapabilityError):
            if not isinstance(self.model, HasEnergy):
                raise
        return self._energies(self.bench.test.x), self._energies(self.bench.anomalies), "energy"

    def _compared_scores(self) -> tuple[Tensor, Tensor]:
        """log p of test examples and of anomalies, of both given their conditions or of both without.

        Raises:
            CapabilityError: the anomalies have no conditions, and the model cannot do without.
        """
        test, odd = self.bench.test, self.bench.odd
        scores = self.scores
        if is_conditioned(self.model) and test.given is not None and odd.given is None:
            scores = self.log_probs(replace(test, given=None))
        return scores, self.log_probs(odd)

    @torch.no_grad()
    def _energies(self, x: Tensor) -> Tensor:
        model = self.model
        assert isinstance(model, HasEnergy)
        with fast_cpu(model.device):
            return torch.cat([model.energy(part.to(model.device)).double().cpu() for part in x.split(CHUNK)])

    @functools.cached_property
    def anomalies(self) -> tuple[AnomalyScores, str]:
        ordinary, odd, by = self.anomaly_scores
        return anomaly_detection(ordinary, odd, seed=self.m.seed), by

    @functools.cached_property
    def codes(self) -> tuple[Tensor, Tensor]:
        """Codes of the training examples that probes are fitted on, and of the held-out examples."""
        return encode_all(self.model, self.bench.probed), encode_all(self.model, self.bench.test)

    @functools.cached_property
    def classes(self) -> Tensor:
        return predict_classes(self.model, self.bench.test)

    def translation(self, to: Literal["a", "b"]) -> TranslationError:
        a, b = self.bench.pairs
        return translation_error(self.model, *((a, b) if to == "b" else (b, a)), to=to)


def evaluate_samples(
    model_or_samples: Model | Tensor,
    data: Data,
    n: int = 10_000,
    extractor: str | Extractor = "auto",
    seed: int = 0,
    tell: Tell = lambda stage, done, total: None,
) -> dict[str, Figure]:
    """Judge a model's samples, or samples ``(N, *event.shape)`` at hand, against the training split of ``data``.

    A model with a condition is asked for samples given the conditions of training examples.

    Args:
        n: samples, and training examples they are compared with; of samples at hand, how many at most.
        extractor: ``auto`` (by the kind of data), a name of `features.NAMES`, or an extractor.
        tell: told the stage, how much of it is done and how much there is.

    Returns:
        The figures of the measures of samples that the data allows, by their keys.

    Raises:
        CapabilityError: the model cannot sample.
        InputError: samples of another shape, or with values outside the event (NaN among them), or too few.

    >>> from unsup import load_data
    >>> moons = load_data("moons", n=1000)
    >>> found = evaluate_samples(moons.test.x, moons)
    >>> found["fid"]["detail"]["extractor"], found["fid"]["n"], found["precision"]["value"] > 0.8
    ('raw', 100, True)
    """
    measuring = Measuring(samples=n, extractor=extractor, seed=seed)
    exam = Exam(Bench(data, measuring, tell), model_or_samples, tell=tell)
    _ = exam.compared  # raises what stands in the way of all of them
    return exam.figures(sample_measures(data))[0]
