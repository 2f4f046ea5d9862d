"""One trainer for every model: it carries out what the model says of who minimises, or counts, what."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor
from torch.optim import AdamW

from unsup.core.batch import Batch
from unsup.core.config import check_value
from unsup.core.errors import InputError, TrainingError, nearest
from unsup.core.likelihood import Likelihood
from unsup.core.machine import Precision, choose_device, fast_cpu, uses_bfloat16
from unsup.core.model import CanSample, HasDensity, LearnsByCounting, Model, Objective, keyed_generator
from unsup.core.storage import load_tensors, model_record
from unsup.data.source import Data, permutation
from unsup.evaluate.likelihood import CHUNK, evaluate_likelihood
from unsup.report.pictures import has_picture, picture, png_bytes
from unsup.train.ema import EMA
from unsup.train.progress import Progress, ProgressMode
from unsup.train.runs import MODEL_PREFIX, Run
from unsup.train.schedules import Schedule, learning_rate_factor

_VALIDATIONS = 20  # of a run whose length is known
_PREPARE_LIMIT = 20_000
_CALIBRATION = 0.05  # share of a time budget spent before its number of steps is fixed
# Keys of the generators, so that no two uses share noise.
_NOISE, _PREPARE, _VALIDATE, _GRID, _SUBSET = range(5)


@dataclass(frozen=True)
class Settings:
    """How to train. Of ``steps``, ``epochs`` and ``minutes`` one at most is given; with none it is 2,000 steps.

    Attributes:
        steps: updates.
        epochs: passes over the training split.
        minutes: time budget; the number of steps is fixed from the speed of the first twentieth of it.
        batch_size: examples a step.
        lr: peak learning rate of AdamW.
        warmup: steps of linear warm-up.
        schedule: ``cosine`` to 0, or ``constant``.
        weight_decay: decoupled (AdamW).
        betas: of AdamW.
        eps: of AdamW.
        clip: largest gradient norm, or 0 for no clipping.
        ema: decay of the averaged parameters that are validated and kept, or 0 for none.
        patience: stop after this many validations without gain, or 0 for never.
        validate_every: steps between validations, or 0 for twenty in a run.
        validation_limit: validation examples used while training.
        checkpoint_seconds: time between checkpoints.
        precision: ``auto`` is bfloat16 autocast where the machine is fast at it.
        compile: compile the loss with `torch.compile`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        seed: of everything random.
    """

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int = 128
    lr: float = 1e-3
    warmup: int = 0
    schedule: Schedule = "cosine"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    validate_every: int = 0
    validation_limit: int = 2000
    checkpoint_seconds: float = 30.0
    precision: Precision = "auto"
    compile: bool = False
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        given = [k for k in ("steps", "epochs", "minutes") if getattr(self, k) is not None]
        if len(given) > 1:
            raise InputError(f"give one of steps, epochs and minutes; {' and '.join(given)} were given")
        for name in ("steps", "epochs", "minutes", "batch_size", "lr", "validation_limit"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name}={value} should be above 0")


@dataclass(frozen=True)
class Fitted:
    """What `fit` hands back. The model itself is trained in place and in evaluation mode.

    Attributes:
        steps: updates (or passes, for models that learn by counting) done in all.
        seconds: training time, validation included.
        validation: the kept parameters' likelihood on validation examples, or None where the model has none.
        events: the log points, as in ``events.jsonl``.
        interrupted: whether Ctrl-C or SIGTERM ended it.
        run: the run folder, or None.
    """

    steps: int
    seconds: float
    validation: Likelihood | None
    events: list[dict[str, Any]]
    interrupted: bool
    run: Run | None


def fit(
    model: Model,
    data: Data,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: ProgressMode = "auto",
    **settings: Any,
) -> Fitted:
    """Train ``model`` in place on ``data.train``, watching ``data.validation``; the test split is never read.

    Args:
        model: any model of the registry, or your own `Model`.
        data: what `load_data` gives.
        out: run folder to write, or None to keep everything in memory.
        resume: go on with the run in ``out`` from its last checkpoint, bit for bit on the CPU.
        progress: ``auto`` (live on a terminal), ``plain`` or ``off``.
        **settings: fields of `Settings`; what is not given comes from ``model.fit_defaults``, then `Settings`.

    Returns:
        A `Fitted` record.

    Raises:
        InputError: settings that do not exist or contradict, a folder that cannot be used.
        TrainingError: the loss became NaN, or the disk full; the last good checkpoint is kept.

    >>> import unsup
    >>> data = unsup.load_data("digits")
    >>> model = unsup.create("made", data.event, preset="tiny", seed=0)
    >>> unsup.fit(model, data, steps=20, progress="off").steps
    20
    """
    chosen = make_settings(type(model), settings)
    if resume and out is None:
        raise InputError("resume needs the run folder: give out=FOLDER")
    with Progress(progress, unit="pass" if _counts(model) else "step") as display:
        trainer = (_Counting if _counts(model) else _Gradients)(model, data, chosen, display)
        return trainer.run(Path(out) if out is not None else None, resume)


def make_settings(model: type[Model], given: dict[str, Any]) -> Settings:
    """`Settings` from the model's defaults and what was given; unknown names are refused with the nearest one."""
    fields = {f.name: f for f in dataclasses.fields(Settings)}
    for name in given:
        if name not in fields:
            raise InputError(f"there is no training setting {name!r}{nearest(name, fields)}")
    defaults = dict(model.fit_defaults)
    if any(given.get(k) is not None for k in ("steps", "epochs", "minutes")):
        for k in ("steps", "epochs", "minutes"):
            defaults.pop(k, None)
    hints = get_type_hints(Settings)
    checked = {k: check_value(k, v, hints[k]) for k, v in given.items()}
    return Settings(**(defaults | checked))


def _counts(model: Model) -> bool:
    return isinstance(model, LearnsByCounting) and model.passes > 0


class _Trainer(ABC):
    """What both ways of learning share: the run folder, validation, checkpoints, stopping."""

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        self.settings, self.data, self.display = settings, data, display
        self.device = choose_device(settings.device)
        self.model = model.to(self.device)
        self.folder: Run | None = None
        self.done = 0
        self.total: int | None = None
        self.events: list[dict[str, Any]] = []
        self.best = math.inf
        self.best_state: dict[str, Tensor] | None = None
        self.validation: Likelihood | None = None
        self.stale = 0
        self.spent = 0.0
        self.started = time.monotonic()
        self.saved_at = self.started
        self.stop_signal: int | None = None
        limit = settings.validation_limit
        subset = torch.randperm(len(data.validation), generator=keyed_generator(settings.seed, _SUBSET))[:limit]
        self.watched = data.validation.x[subset.sort().values]

    # --- the parts that differ ------------------------------------------------------------------------------------

    @abstractmethod
    def learn(self) -> None:
        """Train until done, stopped or out of patience."""

    def tensors(self) -> dict[str, Tensor]:
        """What `last` holds besides the model."""
        return {}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:  # noqa: B027 - counting needs none
        """Put back what `tensors` and `record` saved."""

    # --- one run --------------------------------------------------------------------------------------------------

    def run(self, out: Path | None, resume: bool) -> Fitted:
        with self._own_rng(), self._signals(), fast_cpu(self.device):
            if resume:
                assert out is not None
                self._resume(out)
            else:
                if out is not None:
                    self.folder = Run.create(out, self._config(), needed_bytes=self._needed_bytes())
                self._prepare()
                self.save()
            self.learn()
            self.save()
        interrupted = self.stop_signal is not None
        if not interrupted:
            self._log({"finished": True})
        self._keep_best()
        self.model.eval()
        return Fitted(self.done, self.seconds, self.validation, self.events, interrupted, self.folder)

    @property
    def seconds(self) -> float:
        return self.spent + time.monotonic() - self.started

    def _config(self) -> dict[str, Any]:
        data = None if self.data.name is None else {"name": self.data.name, "options": dict(self.data.options)}
        return {"data": data, "model": model_record(self.model), "training": dataclasses.asdict(self.settings)}

    def _needed_bytes(self) -> int:
        size = sum(t.numel() * t.element_size() for t in self.model.state_dict().values())
        return 8 * size + 1_000_000  # weights, two Adam moments, EMA, best, and one more copy while writing

    def _prepare(self) -> None:
        train = self.data.train.epoch(self.settings.seed, 0)
        rows = torch.randperm(len(train), generator=keyed_generator(self.settings.seed, _SUBSET, 1))[:_PREPARE_LIMIT]
        label = None if train.label is None else train.label[rows].to(self.device)
        generator = keyed_generator(self.settings.seed, _PREPARE, device=self.device)
        with torch.no_grad():
            self.model.prepare(train.x[rows].to(self.device), label, generator=generator)

    def _resume(self, out: Path) -> None:
        folder = Run(out)
        own = json.loads(json.dumps(self._config()))  # tuples are lists there
        if (folder.config["model"], folder.config["data"]) != (own["model"], own["data"]):
            raise InputError(f"{out} is a run of another model or other data; resume it with those it was started with")
        tensors, record = load_tensors(folder.checkpoint("last"))
        self.folder = folder
        weights = {k.removeprefix(MODEL_PREFIX): v for k, v in tensors.items() if k.startswith(MODEL_PREFIX)}
        self.model.load_state_dict(weights)
        self.done, self.total, self.stale = record["done"], record["total"], record["stale"]
        self.best = math.inf if record["best"] is None else record["best"]
        if record["validation"] is not None:
            self.validation = Likelihood(**record["validation"])
        self.spent = record["seconds"]
        self.started = time.monotonic()
        torch.set_rng_state(tensors["rng.global"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        self.restore(tensors, record)
        folder.drop_events_after(self.done)
        self.events = folder.events()
        if folder.checkpoint("best").is_file():
            best, _ = load_tensors(folder.checkpoint("best"))
            self.best_state = {k.removeprefix(MODEL_PREFIX): v for k, v in best.items()}

    def save(self) -> None:
        """Write ``last``; parameters that are not finite are never written over good ones."""
        if self.folder is None:
            return
        state = self.model.state_dict()
        if not all(bool(t.isfinite().all()) for t in state.values() if t.is_floating_point()):
            raise TrainingError(self._advice("a parameter is not finite"))
        tensors = {MODEL_PREFIX + k: v for k, v in state.items()} | {"rng.global": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        record = {
            "done": self.done,
            "total": self.total,
            "best": None if math.isinf(self.best) else self.best,
            "validation": None if self.validation is None else dataclasses.asdict(self.validation),
            "stale": self.stale,
            "seconds": self.seconds,
        }
        extra = self.tensors()
        self.folder.save_checkpoint("last", tensors | extra, record | self.record())
        self.saved_at = time.monotonic()

    def record(self) -> dict[str, Any]:
        """What the JSON part of ``last`` holds besides the common fields."""
        return {}

    def save_if_due(self) -> None:
        if time.monotonic() - self.saved_at >= self.settings.checkpoint_seconds:
            self.save()

    def _log(self, event: dict[str, Any]) -> None:
        event = {"step": self.done, "seconds": round(self.seconds, 3)} | event
        self.events.append(event)
        if self.folder is not None:
            self.folder.append_event(event)

    def validate(self) -> None:
        """Score validation examples, remember the best parameters, draw the fixed-noise grid."""
        if isinstance(self.model, HasDensity):
            found = evaluate_likelihood(self.model, self.watched, seed=self._key(_VALIDATE))
            if not math.isfinite(found.nats):
                raise TrainingError(self._advice(f"the validation likelihood is {found.nats}"))
            if found.nats < self.best:
                self.best, self.validation, self.stale = found.nats, found, 0
                self.best_state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
                if self.folder is not None:
                    best = {MODEL_PREFIX + k: v for k, v in self.best_state.items()}
                    self.folder.save_checkpoint("best", best, {"done": self.done, "nats": found.nats})
            else:
                self.stale += 1
            self._log({"nats": found.nats, "bits_per_dim": found.bits_per_dim, "kind": found.kind})
            self.display.validated(f"validation {found.sign} {found.bits_per_dim:.4f} bits/dim")
        if self.folder is not None and isinstance(self.model, CanSample) and has_picture(self.model.event):
            self.model.eval()
            count = 500 if self.model.event.shape == (2,) else 25
            generator = keyed_generator(self.settings.seed, _GRID, device=self.device)
            grid = picture(self.model.sample(count, generator=generator), self.model.event)
            self.folder.save_picture(f"step-{self.done:07d}.png", png_bytes(grid))

    def _key(self, use: int) -> int:
        return self.settings.seed * 1000 + use

    def _keep_best(self) -> None:
        if self.best_state is not None:
            self.model.load_state_dict(self.best_state)

    @property
    def stopped(self) -> bool:
        """By a signal, or out of patience."""
        return self.stop_signal is not None or 0 < self.settings.patience <= self.stale

    def _advice(self, what: str) -> str:
        kept = "nothing was saved" if self.folder is None else f"the last good checkpoint is in {self.folder.path}"
        return (
            f"{what} at {self.display.unit} {self.done}; {kept}; try a smaller --lr (now {self.settings.lr:g}), "
            "--clip 1, --warmup 500, or --precision float32"
        )

    @contextmanager
    def _own_rng(self) -> Iterator[None]:
        """Dropout draws from the global generators: inside they are keyed by the seed, after it as they were."""
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(self.settings.seed)
            if cuda:
                torch.cuda.manual_seed(self.settings.seed)
            yield

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end training after the step in hand, so that it can be saved."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, frame: object) -> None:
            if self.stop_signal is not None:
                raise KeyboardInterrupt  # the second time, at once
            self.stop_signal = number

        previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class _Gradients(_Trainer):
    """Stochastic gradients: each of the model's objectives with its own optimizer."""

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        super().__init__(model, data, settings, display)
        if model.event.is_image:
            self.model.to(memory_format=torch.channels_last)
        self.bfloat16 = uses_bfloat16(settings.precision, self.device, allowed=model.autocast)
        self.objectives = model.objectives()
        self.optimizers = [self._optimizer(o) for o in self.objectives]
        self.losses = [torch.compile(o.loss) if settings.compile else o.loss for o in self.objectives]
        self.generator = keyed_generator(settings.seed, _NOISE, device=self.device)
        self.ema = EMA(model, settings.ema) if settings.ema else None
        self.batch_size = min(settings.batch_size, len(data.train))
        self.per_epoch = len(data.train) // self.batch_size
        self.position = 0  # batches taken so far
        if settings.minutes is None:
            steps = settings.epochs * self.per_epoch if settings.epochs else settings.steps or 2000
            self.total = steps

    def _optimizer(self, objective: Objective) -> AdamW:
        s = self.settings
        options: dict[str, Any] = {"lr": s.lr, "betas": s.betas, "eps": s.eps, "weight_decay": s.weight_decay}
        return AdamW(objective.parameters, fused=True, **(options | dict(objective.optimizer)))

    def tensors(self) -> dict[str, Tensor]:
        found = {"rng.noise": self.generator.get_state()}
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            for i, state in optimizer.state_dict()["state"].items():
                found |= {f"optimizer.{objective.name}.{i}.{k}": v for k, v in state.items()}
        if self.ema is not None:
            found |= {f"ema.{i}": v for i, v in enumerate(self.ema.average)}
        return found

    def record(self) -> dict[str, Any]:
        return {"position": self.position, "ema_steps": self.ema.steps if self.ema else 0}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.position = record["position"]
        self.generator.set_state(tensors["rng.noise"])
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            prefix = f"optimizer.{objective.name}."
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, _, key = name.removeprefix(prefix).partition(".")
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if self.ema is not None:
            self.ema.load([tensors[f"ema.{i}"] for i in range(len(self.ema.average))], record["ema_steps"])

    def batches(self) -> Iterator[Batch]:
        """Batches from ``position`` on, for ever; the order of an epoch is keyed by (seed, epoch)."""
        seed = self.settings.seed
        while True:
            epoch, first = divmod(self.position, self.per_epoch)
            split = self.data.train.epoch(seed, epoch)
            order = permutation(seed, epoch, len(split))
            for i in range(first, self.per_epoch):
                self.position += 1
                yield split.batch(order[i * self.batch_size : (i + 1) * self.batch_size]).to(self.device)

    def learn(self) -> None:
        batches = self.batches()
        log_every = 1
        calibration: tuple[int, float] | None = None
        if self.done == 0:
            self._validate()
        while (self.total is None or self.done < self.total) and not self.stopped:
            terms = self._step(batches)
            self.done += 1
            if self.total is None:
                if calibration is None and self.done == 3:  # the first steps warm caches up
                    calibration = (self.done, time.monotonic())
                self._fix_total(calibration)
            logged = self.done % log_every == 0 or self.done == self.total
            if logged or self.display.due():
                values = {k: float(v) for k, v in terms.items()}
                if not all(math.isfinite(v) for v in values.values()):
                    raise TrainingError(self._advice(f"the loss is {values['loss']}"))
                if logged:
                    self._log(values)
                    log_every = max(1, (self.total or 1000) // 400)
                if self.display.due():
                    self.display.show(self.done, self.total, values)
            if self._validation_due():
                self._validate()
                self.display.show(self.done, self.total, {k: float(v) for k, v in terms.items()})
            self.save_if_due()

    def _validation_due(self) -> bool:
        if self.total is None:
            return False
        every = self.settings.validate_every or max(1, self.total // _VALIDATIONS)
        return self.done % every == 0 or self.done == self.total

    def _validate(self) -> None:
        with self.ema.applied() if self.ema is not None else nullcontext():
            self.validate()

    def _fix_total(self, calibration: tuple[int, float] | None) -> None:
        """Turn the time budget into a number of steps, once, so that the schedule and a resumed run agree on it."""
        budget = 60 * (self.settings.minutes or 0)
        if calibration is None or (self.seconds < _CALIBRATION * budget and self.seconds < 10) or self.done < 8:
            return
        steps, since = calibration
        each = (time.monotonic() - since) / (self.done - steps)
        validation = _VALIDATIONS * (self.events[0]["seconds"] if self.events else 0)
        left = max(0.0, budget - self.seconds - validation)
        self.total = self.done + max(1, int(left / each))

    def _step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        self.model.train()
        shown: dict[str, Tensor] = {}
        s = self.settings
        factor = learning_rate_factor(self.done, self.total or 10**9, s.warmup, s.schedule)
        for objective, optimizer, loss in zip(self.objectives, self.optimizers, self.losses, strict=True):
            if self.done % objective.every:
                continue
            for group in optimizer.param_groups:
                group["lr"] = objective.optimizer.get("lr", s.lr) * factor
            for _ in range(objective.repeats):
                batch = next(batches)
                self.display.count(len(batch))
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    terms = loss(batch, generator=self.generator)
                optimizer.zero_grad()
                terms["loss"].backward()
                if s.clip:
                    torch.nn.utils.clip_grad_norm_(objective.parameters, s.clip)
                optimizer.step()
            prefix = "" if len(self.objectives) == 1 else f"{objective.name}/"
            shown |= {prefix + k: v.detach() for k, v in terms.items()}
        if self.ema is not None:
            self.ema.update()
        self.model.after_step(self.done)
        return shown


class _Counting(_Trainer):
    """Expectation-maximisation and counting: sums over all the data, then one closed-form update."""

    model: Any  # a Model that is also LearnsByCounting

    def learn(self) -> None:
        self.total = self.model.passes
        train = self.data.train.epoch(self.settings.seed, 0)
        previous = -math.inf if not self.events else self.events[-1].get("log_prob", -math.inf)
        while self.done < self.total and not self.stopped:
            statistics: dict[str, Tensor] = {}
            with torch.no_grad():
                for chunk, start in enumerate(range(0, len(train), 10 * CHUNK)):
                    batch = train.batch(torch.arange(start, min(start + 10 * CHUNK, len(train)))).to(self.device)
                    self.display.count(len(batch))
                    # The same noise at every pass: the likelihood that EM raises is that of fixed data.
                    generator = keyed_generator(self.settings.seed, _NOISE, chunk, device=self.device)
                    for name, value in self.model.statistics(batch, generator=generator).items():
                        statistics[name] = statistics[name] + value if name in statistics else value
                    if self.display.due():
                        self.display.show(self.done + 1, self.total, {})
                self.model.maximize(statistics)
            self.done += 1
            terms = {}
            if "log_prob" in statistics:
                mean = float(statistics["log_prob"] / statistics["count"])
                terms = {"loss": -mean, "log_prob": mean}
                if not math.isfinite(mean):
                    raise TrainingError(self._advice(f"the log-likelihood is {mean}"))
                self._log(terms)
                converged = mean - previous < self.model.tolerance
                previous = mean
            else:
                converged = False
            if converged or self.done == self.total or self.done % max(1, self.total // _VALIDATIONS) == 0:
                self.validate()
                self.display.show(self.done, self.total, {k: v for k, v in terms.items() if k == "loss"})
            self.save_if_due()
            if converged:
                break
