"""Everything that is measured of one model, by the same examples and limits for every model of a comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.machine import fast_cpu
from unsup.core.model import CanDecode, CanEncode, CanSample, HasDensity, HasEnergy, Model, keyed_generator
from unsup.data.source import Split
from unsup.evaluate.anomaly import anomaly_detection
from unsup.evaluate.bench import SHOWN, Bench, written
from unsup.evaluate.calibration import calibration
from unsup.evaluate.conditions import beside, conditions_of, is_conditioned
from unsup.evaluate.dimensions import bits_by_dimension
from unsup.evaluate.journeys import interpolate, reconstruct
from unsup.evaluate.likelihood import CHUNK, likelihood_of, log_probs
from unsup.evaluate.memorisation import memorisation
from unsup.evaluate.probe import encode_all, probe
from unsup.evaluate.quadrature import with_likelihood
from unsup.evaluate.records import Curve, Interval, Measures, Sampling
from unsup.evaluate.samples import draw_samples, judge_features, known_modes
from unsup.evaluate.storage import implied_bytes
from unsup.pictures.gallery import Drawn

_IMPORTANCE_SAMPLES = 50
_TIMED, _TIMED_FEW, _TIMED_MOST = 64, 4, 4  # samples; of a slow sampler; times the limit from which it is slow
_FEW, _SOME, _PATHS, _PATH_STEPS = 16, 500, 6, 9
_CURVE_POINTS = 200
_FOR_QUALITY = 10
_Z = 1.96

Tell = Callable[[str], None]


class Exam:
    """One model on the bench."""

    def __init__(
        self,
        bench: Bench,
        model: Model,
        record: dict[str, Any],
        events: list[dict[str, Any]],
        path: Path,
        into: Path,
        tell: Tell,
    ) -> None:
        self.bench, self.model, self.into, self.tell = bench, model, into, tell
        self.events, self.path, self.seed = events, path, record["training"]["seed"]
        self.scores: Tensor | None = None
        self.m = bench.measuring
        self.missing: dict[str, str] = {}
        self.notes: list[str] = []
        self.drawn: dict[str, Drawn | None] = {}
        self.name: str = record["model"]["model"]
        self.importance_samples = 1

    def all(self) -> Measures:
        started = time.monotonic()
        events = self.events
        last = events[-1] if events else {"step": 0, "seconds": 0.0}
        self._symptoms(events)
        scored = self._scored()
        sampling, samples = self._samples()
        self.tell("likelihood")
        scores = self._scores(scored, self.bench.test, stored=False)
        if scores is not None and not bool(scores.isfinite().all()):
            without = int((~scores.isfinite()).sum())
            self.missing["likelihood"] = f"{without} of {len(scores)} test examples have a log-likelihood of −∞"
            self.missing["anomaly"] = self.missing["calibration"] = self.missing["likelihood"]
            scores = None
        test = self.bench.test
        likelihood = (
            None
            if scores is None
            else likelihood_of(scored, scores, self.importance_samples, lengths=test.lengths, weight=test.weight)
        )
        per_example: Interval | None = None
        if scores is not None:
            self.scores = scores
            if self.bench.data.event.is_discrete and likelihood is not None:
                middle = implied_bytes(likelihood.nats, 1)
                spread = _Z * implied_bytes(likelihood.standard_error, 1)
                per_example = {"value": middle, "interval": (middle - spread, middle + spread)}
            else:
                self.missing["implied_bytes"] = "a density of real numbers says nothing of bytes without a precision"
        quality, copied = self._quality(samples)
        anomaly = self._anomaly(scored, scores)
        calibrated = self._calibration(scored, scores, samples)
        read = self._probe()
        self.tell("pictures")
        self._more_pictures(scored, scores)
        return {
            "run": "",
            "model": self.name,
            "seed": self.seed,
            "parameters": self.model.parameter_count,
            "steps": int(last["step"]),
            "train_seconds": float(last["seconds"]),
            "measure_seconds": round(time.monotonic() - started, 2),
            "command": "",
            "eval_command": None,
            "likelihood": None if likelihood is None else likelihood.to_json(),
            "implied_bytes": per_example,
            "quality": quality,
            "memorisation": copied,
            "sampling": sampling,
            "anomaly": anomaly,
            "probe": read,
            "calibration": calibrated,
            "missing": self.missing,
            "notes": self.notes,
            "curve": _curve(events),
            "pictures": written(self.into, self.drawn),
            "environment": {},
        }

    def _symptoms(self, events: list[dict[str, Any]]) -> None:
        self.notes += [f"{e['symptom']} at step {e['step']}: {e['advice']}" for e in events if "symptom" in e]
        self.notes += [f"training ended {e['ended']}" for e in events if "ended" in e]

    # --- likelihood -----------------------------------------------------------------------------------------------

    def _scored(self) -> Model:
        """The model, or what gives an energy of the plane its likelihood."""
        try:
            return with_likelihood(self.model, self.bench.data.train.glance)
        except InputError as error:
            self.missing["likelihood"] = str(error)
            return self.model

    def _scores(self, scored: Model, x: Split, *, stored: bool) -> Tensor | None:
        if not isinstance(scored, HasDensity):
            self.missing.setdefault("likelihood", f"{self.name} gives no likelihood")
            return None
        if not stored and scored.likelihood_kind == "bound":
            self.importance_samples = self._affordable(scored, x)
        return log_probs(scored, x, samples=self.importance_samples, seed=self.m.seed, stored=stored)

    def _affordable(self, scored: Model, x: Split) -> int:
        """Importance samples that the test examples, the anomalies and as many draws can be scored with in time."""
        few = x.take(slice(CHUNK))
        log_probs(scored, few, seed=self.m.seed)
        started = time.monotonic()
        log_probs(scored, few, seed=self.m.seed)
        each = (time.monotonic() - started) / min(CHUNK, len(x))
        count = len(x) + len(self.bench.anomalies) + self.m.samples
        return max(1, min(_IMPORTANCE_SAMPLES, int(self.m.seconds / (each * count))))

    # --- samples --------------------------------------------------------------------------------------------------

    def _samples(self) -> tuple[Sampling | None, Split | None]:
        """How fast samples come, and as many as are judged, unless that would take too long.

        Those of a model with a condition are given what training examples are.
        """
        model = self.model
        if not isinstance(model, CanSample):
            for name in ("sampling", "quality", "memorisation", "calibration"):
                self.missing[name] = f"{self.name} draws no samples"
            return None, None
        self.tell("sampling")
        generator = keyed_generator(self.m.seed, _TIMED, device=model.device)

        def draw(n: int) -> Tensor:
            given = conditions_of(self.model, self.bench.data.train, n)
            condition = None if given is None else given.to(self.model.device)
            return model.sample(n, generator=generator, **beside(self.model, condition)).cpu()

        with torch.no_grad(), fast_cpu(model.device):
            started = time.monotonic()
            draw(2)
            # Thirty-two times as long is the most that the batch can take; slow samplers are timed on a smaller one.
            count = _TIMED if 32 * (time.monotonic() - started) < _TIMED_MOST * self.m.seconds else _TIMED_FEW
            started = time.monotonic()
            shown = draw(count)
            rate = count / max(time.monotonic() - started, 1e-9)
        needed = self.m.samples / rate
        if needed > self.m.seconds:
            again = f"unsup eval {self.path} --samples {self.m.samples}"
            for name in ("quality", "memorisation", "calibration"):
                self.missing[name] = (
                    f"{self.m.samples:,} draws would take about {needed:,.0f} s here and {self.m.seconds:.0f} s were "
                    f"left for them; {again} makes them"
                )
            self.drawn["samples"] = self.bench.gallery.examples(shown, f"samples of {self.name}")
            return {"per_second": rate, "n": count}, None
        given = conditions_of(model, self.bench.data.train, self.m.samples)
        samples = draw_samples(model, self.m.samples, seed=self.m.seed, given=given)
        few = samples[:SHOWN] if self.bench.data.event.is_image else samples[: len(self.bench.test)]
        self.drawn["samples"] = self.bench.gallery.examples(few, f"samples of {self.name}")
        return {"per_second": rate, "n": count}, Split(samples, given=given)

    def _quality(self, drawn: Split | None) -> tuple[dict[str, Any] | None, Any]:
        if drawn is None:
            return None, None
        self.tell("sample quality")
        bench, samples = self.bench, drawn.x
        fewest = min(len(samples), len(bench.data.test))
        if fewest < _FOR_QUALITY:
            self.missing["quality"] = self.missing["memorisation"] = (
                f"judging samples needs {_FOR_QUALITY} of them and as many test examples; there are {fewest}"
            )
            return None, None
        try:
            bench.data.event.check(samples)
            features = bench.real.extractor(samples)
            judged = judge_features(features, bench.real, known_modes(bench.data.name, samples))
            near = memorisation(features.points, bench.real.held_out.points, bench.train_features.points)
        except InputError as error:
            self.missing["quality"] = self.missing["memorisation"] = str(error)
            return None, None
        order = near.distance[:SHOWN].argsort()[:_FEW]
        self.drawn["neighbours"] = bench.gallery.neighbours(samples[order], bench.train.x[near.nearest[order]])
        return judged.to_json(), near.to_json() | {"space": f"features of the extractor {bench.real.extractor.name}"}

    # --- what it is good for --------------------------------------------------------------------------------------

    def _anomaly(self, scored: Model, scores: Tensor | None) -> Any:
        self.tell("anomalies")
        anomalies = self.bench.anomalies
        try:
            if scores is not None:
                ordinary, odd = self._compared(scored, scores)
                by = "log-likelihood"
            elif isinstance(self.model, HasEnergy):
                ordinary, odd, by = self._energies(self.bench.test.x), self._energies(anomalies), "energy"
            else:
                self.missing["anomaly"] = f"{self.name} gives neither a likelihood nor an energy"
                return None
            detected = anomaly_detection(ordinary, odd, seed=self.m.seed)
        except InputError as error:
            self.missing["anomaly"] = str(error)
            return None
        is_anomaly = torch.cat([torch.zeros(len(ordinary)), torch.ones(len(odd))]).bool()
        both = torch.cat([self.bench.test.x, anomalies.to(self.bench.test.x.dtype)])
        self.drawn["anomalies"] = self.bench.gallery.anomaly_ranking(both, torch.cat([ordinary, odd]), is_anomaly)
        return detected.to_json() | {"by": by}

    def _compared(self, scored: Model, scores: Tensor) -> tuple[Tensor, Tensor]:
        """−log p of test examples and of anomalies, of both given their conditions or of both without.

        Raises:
            CapabilityError: the anomalies have no conditions, and the model cannot do without.
        """
        test, odd = self.bench.test, self.bench.odd
        if is_conditioned(self.model) and test.given is not None and odd.given is None:
            alone = self._scores(scored, replace(test, given=None), stored=True)
            assert alone is not None
            scores = alone
        found = self._scores(scored, odd, stored=True)
        assert found is not None
        return -scores, -found

    @torch.no_grad()
    def _energies(self, x: Tensor) -> Tensor:
        model = self.model
        assert isinstance(model, HasEnergy)
        with fast_cpu(model.device):
            return torch.cat([model.energy(part.to(model.device)).double().cpu() for part in x.split(CHUNK)])

    def _calibration(self, scored: Model, scores: Tensor | None, samples: Split | None) -> Any:
        if scores is None:
            self.missing.setdefault("calibration", "there is no likelihood to calibrate")
            return None
        if samples is None:
            return None
        self.tell("calibration")
        own = self._scores(scored, samples, stored=True)
        assert own is not None
        try:
            return calibration(scores, own).to_json()
        except InputError as error:
            self.missing["calibration"] = str(error)
            return None

    def _probe(self) -> Any:
        train, test = self.bench.probed, self.bench.test
        if train.label is None or test.label is None:
            self.missing["probe"] = "the data has no labels"
            return None
        if not isinstance(self.model, CanEncode):
            self.missing["probe"] = f"{self.name} gives no features"
            return None
        self.tell("probe")
        try:
            fitted, asked = (encode_all(self.model, split) for split in (train, test))
            return probe(fitted, train.label, asked, test.label).to_json()
        except InputError as error:
            self.missing["probe"] = str(error)
            return None

    # --- pictures -------------------------------------------------------------------------------------------------

    def _more_pictures(self, scored: Model, scores: Tensor | None) -> None:
        test, gallery = self.bench.test, self.bench.gallery
        x = test.x
        some = test.take(slice(_FEW if self.bench.data.event.is_image else _SOME))  # plots take more than grids
        few = some.x
        if scores is not None:
            self.drawn["most_likely"] = gallery.extremes(x, -scores, most=True)
            self.drawn["least_likely"] = gallery.extremes(x, -scores, most=False)
        if isinstance(self.model, CanDecode):
            self.drawn["reconstructions"] = gallery.reconstructions(few, reconstruct(self.model, some))
            if len(x) >= 2 * _PATHS and not is_conditioned(self.model):  # whose ends may have different conditions
                path = interpolate(self.model, x[:_PATHS], x[_PATHS : 2 * _PATHS], _PATH_STEPS)
                self.drawn["interpolation"] = gallery.interpolation(path)
        bits = bits_by_dimension(self.model, some, seed=self.m.seed)
        if bits is not None:
            self.drawn["bits"] = gallery.bits(few, bits)


def _curve(events: list[dict[str, Any]]) -> Curve:
    """Losses thinned to a drawable number of points, and every validation."""
    losses: dict[str, list[tuple[float, float]]] = {}
    for event in events:
        for name, value in event.items():
            if name.split("/")[-1] == "loss" and math.isfinite(value):
                losses.setdefault(name, []).append((event["step"], value))
    thinned = {k: v[:: max(1, len(v) // _CURVE_POINTS)] for k, v in losses.items()}
    validation = [(e["step"], e["bits_per_dim"]) for e in events if math.isfinite(e.get("bits_per_dim", math.nan))]
    return {"losses": thinned, "validation": validation}
