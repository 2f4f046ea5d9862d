"""One model on one bench: everything that measures share, computed at its first use."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from unsup.core import memory
from unsup.core.commands import path_word
from unsup.core.deadline import Deadline, OutOfTime
from unsup.core.errors import CapabilityError, InputError
from unsup.core.escapes import command_line
from unsup.core.likelihood import Likelihood
from unsup.core.model import CanSample, HasDensity, HasEnergy, Model, keyed_generator
from unsup.data.source import Data, Split
from unsup.evaluate.bench import Bench, Measuring, Once, Tell, counting
from unsup.evaluate.compressed import Coded, coded_size
from unsup.evaluate.conditions import beside, in_use, is_conditioned, over_examples
from unsup.evaluate.features import Extractor, Features
from unsup.evaluate.likelihood import CHUNK, entries_of, likelihood_of, log_probs
from unsup.evaluate.measures import MEASURES, bounded, sample_measures
from unsup.evaluate.neighbours import MemorisationResult, memorisation
from unsup.evaluate.probe import encode_all, fingerprint
from unsup.evaluate.quadrature import with_likelihood
from unsup.evaluate.records import Evaluation, Figure
from unsup.evaluate.samples import draw_samples
from unsup.evaluate.untrained import untrained

_IMPORTANCE_SAMPLES = 50  # of a bound, where time permits
_FIRST, _TIMED, _TIMED_FEW = 2, 64, 4  # samples: to warm up; timed; timed for a slow sampler
_TIMED_MOST = 4  # a sampler is slow if the timed samples may take longer than this times the limit
_FOR_QUALITY = 10


class Sampling(NamedTuple):
    """The speed of sampling, and the samples that were drawn to measure it."""

    per_second: float
    shown: Tensor


class Exam(Once):
    """A model, or only its samples, on a bench.

    The properties raise an `InputError` or a `CapabilityError` with the reason if something is not available.

    Args:
        bench: the real examples.
        model: the model; or only samples ``(N, *event.shape)``, for the measures of samples.
        name: of the model, in messages.
        path: of its run, for commands in messages.
        train_seconds: duration of training, if known.
        seconds: limit for all measures; a measure that takes longer is missing, with the reason.
        tell: called with the title of each measure at its start, and with ``"likelihood"``, ``"sampling"`` and
            ``"encoding"`` for progress.
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
        super().__init__()
        self.bench, self._model, self.path, self.tell = bench, model, path, tell
        self.name = name or type(model).__name__
        self.train_seconds = train_seconds
        self.m = bench.measuring
        self.seconds: dict[str, float] = {}
        self.deadline = Deadline(seconds, f"the {seconds:.0f} s for the measures of {self.name} were over before this")

    def figures(self, keys: Iterable[str]) -> tuple[dict[str, Figure], dict[str, str]]:
        """The figures of these measures, and the reasons why others are missing."""
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
                except (InputError, OutOfTime) as error:
                    reason = str(error)
            if reason is None:
                figures[key], self.seconds[key] = found, round(time.monotonic() - started, 3)
            else:
                missing[key] = reason
        return figures, missing

    def evaluations(self, figures: Mapping[str, Figure], *, step: int | None, changed_data: bool) -> list[Evaluation]:
        """Figures of this exam as entries of ``eval.json``."""
        return [
            {
                "measure": key,
                "split": self.m.split,
                "step": step,
                "settings": self._settings(key),
                "seconds": self.seconds[key],
                "changed_data": changed_data,
                "figure": figure,
            }
            for key, figure in figures.items()
        ]

    def _settings(self, key: str) -> dict[str, Any]:
        """Those of a measure, with one importance sample if the model uses no samples."""
        found = MEASURES[key].settings(self.m)
        return found | {"importance_samples": 1} if "importance_samples" in found and not self._uses_samples else found

    @property
    def _uses_samples(self) -> bool:
        return isinstance(self.scored, HasDensity) and self.scored.uses_samples

    @property
    def slow_seconds(self) -> float:
        """The time limit for one slow part: the given one, or half of the remaining time."""
        return min(self.m.seconds, self.deadline.seconds_left / 2)

    @property
    def model(self) -> Model:
        if not isinstance(self._model, Model):
            raise InputError("only samples were given; this measure needs the model")
        return self._model

    # --- likelihood -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def scored(self) -> Model:
        """The model; with its log Z if it is an energy of one or two real numbers."""
        return with_likelihood(self.model, self.bench.data.train.glance)

    @functools.cached_property
    def importance_samples(self) -> int:
        if not self._uses_samples:
            return 1
        if self.m.importance_samples is not None:
            return self.m.importance_samples
        scored, test = self.scored, self.bench.test
        if not isinstance(scored, HasDensity) or scored.likelihood_kind != "bound":
            return 1
        # The test examples, the anomalies and the samples can be scored with so many in time.
        few = test.take(slice(CHUNK))
        log_probs(scored, few, seed=self.m.seed)
        started = time.monotonic()
        log_probs(scored, few, seed=self.m.seed)
        each = (time.monotonic() - started) / min(CHUNK, len(test))
        count = len(test) + len(self.bench.anomalies) + self.m.samples
        # One of two numbers: only bounds of equally many are ranked.
        return _IMPORTANCE_SAMPLES if _IMPORTANCE_SAMPLES * each * count <= self.slow_seconds else 1

    def log_probs(self, x: Split, *, stored: bool = True) -> Tensor:
        return log_probs(
            self.scored,
            x,
            samples=self.importance_samples,
            seed=self.m.seed,
            stored=stored,
            on_chunk=lambda done, total: self.tell("likelihood", done, total),
        )

    @property
    def scores(self) -> Tensor:
        """log p of the held-out examples: ``(N,)``, float64, finite."""
        scores = self.once("scores", lambda: self.log_probs(self.bench.test, stored=False))
        weight = self.bench.test.weight
        counted = scores if weight is None else scores[weight.cpu() > 0]
        if bad := int((~counted.isfinite()).sum()):
            what = "of NaN" if bool(counted.isnan().any()) else "of −∞"
            raise InputError(f"{bad} of {len(counted)} {self.m.split} examples have a log-likelihood {what}")
        return scores

    @property
    def likelihood(self) -> Likelihood:
        test = self.bench.test
        entries = entries_of(self.scored.event, test)
        return likelihood_of(self.scored, self.scores, self.importance_samples, entries=entries, weight=test.weight)

    @property
    def _full(self) -> Tensor | slice:
        """The held-out examples of full length: others have no code without their padding."""
        lengths = self.bench.test.lengths
        return slice(None) if lengths is None else lengths == self.scored.event.shape[0]

    @property
    def coded_examples(self) -> Split:
        """The held-out examples that are compressed."""
        return self.bench.test.take(self._full)

    @property
    def coded_likelihood(self) -> Likelihood:
        """The likelihood of `coded_examples`."""
        weight = self.bench.test.weight
        own = None if weight is None else weight[self._full]
        return likelihood_of(self.scored, self.scores[self._full], self.importance_samples, weight=own)

    @functools.cached_property
    def coded(self) -> Coded:
        """Real sizes of the held-out examples, compressed with the model, if coding them is not too slow."""
        again = command_line(["unsup", "eval", path_word(self.path or "RUN"), "--measures", "coded_bytes"])
        listen = functools.partial(self.tell, "coding")
        return coded_size(self.model, self.coded_examples.x, self.slow_seconds, f"use {again}", listen)

    # --- samples --------------------------------------------------------------------------------------------------

    @property
    def sampling(self) -> Sampling:
        """The speed of sampling, without the first samples."""
        if isinstance(self._sampling, OutOfTime):
            raise self._sampling
        return self._sampling

    @functools.cached_property
    def _sampling(self) -> Sampling | OutOfTime:
        slow, model = self.slow_seconds, self.model
        if not isinstance(model, CanSample):
            raise CapabilityError(f"{self.name} draws no samples")
        try:
            with Deadline(slow, f"drawing {_FIRST} samples takes more than {slow:.0f} s here"), in_use(self.model):
                return self._timed(model.sample, slow)
        except OutOfTime as error:
            return error

    def _timed(self, sample: Callable[..., Tensor], slow: float) -> Sampling:
        generator = keyed_generator(self.m.seed, _TIMED, device=self.model.device)

        def draw(n: int) -> Tensor:
            given = self.bench.conditions(self.model, n)
            condition = None if given is None else given.to(self.model.device)
            return sample(n, generator=generator, **beside(self.model, condition)).cpu()

        started = time.monotonic()
        shown = draw(_FIRST)
        first = time.monotonic() - started
        # The large batch takes at most 32 times as long as the first; slow samplers are timed on a smaller one.
        for count in (_TIMED, _TIMED_FEW) if 32 * first < _TIMED_MOST * slow else (_TIMED_FEW,):
            started = time.monotonic()
            with Deadline(slow / 2, "").ends_quietly():
                shown = draw(count)
                break
        return Sampling(len(shown) / max(time.monotonic() - started, 1e-9), shown)

    @functools.cached_property
    def samples(self) -> Split:
        """The samples with their conditions, if drawing them is not too slow."""
        n = self.m.samples
        if n < 2:
            raise InputError(f"{n} samples requested; expected 2 or more")
        if isinstance(self._model, Tensor):
            return Split(self._model[:n])
        size, free = n * self.bench.data.event.dims * self.bench.data.event.dtype.itemsize, memory.limit()
        if size > free:
            raise InputError(
                f"{n:,} samples need {memory.said(size)} of memory, but {memory.said(free)} are available; use fewer "
                "samples (--samples N)"
            )
        slow = self.slow_seconds
        if slow < math.inf and (needed := n / self.sampling.per_second) > slow:
            again = command_line(["unsup", "eval", path_word(self.path or "RUN"), "--samples", str(n)])
            raise InputError(
                f"{n:,} samples would take about {needed:,.0f} s here, but only {slow:.0f} s were left; use {again}"
            )
        given = self.bench.conditions(self._model, n)
        told = functools.partial(self.tell, "sampling")
        return Split(draw_samples(self._model, n, seed=self.m.seed, given=given, on_chunk=told), given=given)

    @functools.cached_property
    def compared(self) -> tuple[Features, Features, dict[str, Any]]:
        """Features of the samples and of held-out examples; their extractor and the numbers of examples."""
        samples, bench = self.samples.x, self.bench
        bench.data.event.check(samples)
        fewest = min(len(samples), *map(len, bench.complete))
        if fewest < _FOR_QUALITY:
            what = " without missing values" if bench.data.event.missing else ""
            raise InputError(
                f"measures of samples need {_FOR_QUALITY} samples and {self.m.split} examples{what}; there are {fewest}"
            )
        by, train, other = bench.real
        fake = by(samples, on_chunk=counting(self.tell, "features", len(samples)))
        counts = {"fake": len(fake), "real": len(train), "held_out": len(other)}
        return fake, other, {"extractor": by.name, "sha256": by.digest, **counts}

    @functools.cached_property
    def memorised(self) -> MemorisationResult:
        fake, held_out, _ = self.compared
        return memorisation(fake.points, held_out.points, self.bench.train_features.points)

    # --- anomalies and codes --------------------------------------------------------------------------------------

    @functools.cached_property
    def anomaly_scores(self) -> tuple[Tensor, Tensor, str]:
        """Scores of held-out examples and of anomalies (higher is more anomalous), and the kind of score."""
        if self.m.anomalies is None and self.bench.data.event.dims == 1:
            raise InputError("an example is one number, so shuffling columns makes no anomalies; use --anomalies DATA")
        model, test, odd = self.model, self.bench.test, self.bench.odd
        try:
            scores = self.scores
            if is_conditioned(model) and test.given is not None and odd.given is None:  # both without conditions
                scores = self.log_probs(replace(test, given=None))
            return -scores, -self.log_probs(odd), "log-likelihood"
        except InputError:
            if not isinstance(model, HasEnergy):
                raise
        energy = model.energy
        ordinary, of_odd = (over_examples(model, x, CHUNK, lambda _, b: energy(b.x).double()) for x in (test.x, odd.x))
        return ordinary, of_odd, "energy"

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 of the parameters and buffers of the model."""
        return fingerprint(self.model)

    @functools.cached_property
    def codes(self) -> tuple[Tensor, Tensor]:
        """Codes of the training examples for probes, and of the held-out examples, by the encoder as it is.

        Raises:
            InputError: encoding has changed a parameter or a buffer of the model.
        """
        if not self.bench.intervals:
            return self._encoded(self.model)
        before = self.digest
        found = self._encoded(self.model)
        if fingerprint(self.model) != before:
            raise InputError(
                f"encoding changes parameters or buffers of {self.name}, so that its codes depend on what was encoded "
                "before; its encode should leave the model unchanged in evaluation mode"
            )
        return found

    @functools.cached_property
    def untrained_codes(self) -> tuple[Tensor, Tensor]:
        """The same by `untrained_model`."""
        return self._encoded(self.untrained_model)

    @functools.cached_property
    def untrained_model(self) -> Model:
        """The encoder with random parameters, prepared on the training data, but not trained."""
        return untrained(self.model, self.bench.data, seed=self.m.seed)

    def _encoded(self, model: Model) -> tuple[Tensor, Tensor]:
        train, test = self.bench.probed
        total = len(train) + len(test)
        return (
            encode_all(model, train, lambda done, _: self.tell("encoding", done, total)),
            encode_all(model, test, lambda done, _: self.tell("encoding", len(train) + done, total)),
        )


def evaluate_samples(
    model_or_samples: Model | Tensor,
    data: Data,
    n: int = 10_000,
    extractor: str | Extractor = "auto",
    seed: int = 0,
    tell: Tell = lambda stage, done, total: None,
) -> dict[str, Figure]:
    """Compare the samples of a model, or given samples ``(N, *event.shape)``, with the training split of ``data``.

    A model with a condition draws samples given the conditions of training examples.

    Args:
        n: number of samples (at most, if they are given), and of the training examples for the comparison.
        extractor: ``auto`` (by the kind of data), a name of `features.NAMES`, or an extractor.
        tell: called with the stage, the finished part of it and its total.

    Returns:
        The figures of the measures of samples that are possible on the data, by key.

    Raises:
        CapabilityError: the model does not sample.
        InputError: too few samples, samples of another shape, or with values outside the event (including NaN).

    >>> from unsup import load_data
    >>> moons = load_data("moons", n=1000)
    >>> found = evaluate_samples(moons.test.x, moons)
    >>> found["fid"]["detail"]["extractor"], found["fid"]["n"], found["precision"]["value"] > 0.8
    ('raw', 100, True)
    """
    measuring = Measuring(samples=n, extractor=extractor, seed=seed)
    exam = Exam(Bench(data, measuring, tell), model_or_samples, tell=tell)
    _ = exam.compared  # raises an error that concerns all of them
    return exam.figures(sample_measures(data))[0]
