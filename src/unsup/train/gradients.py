"""Learning by stochastic gradients: each of the model's objectives with its own optimizer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer, RMSprop

from unsup.core.batch import Batch, Time
from unsup.core.errors import TrainingError
from unsup.core.machine import uses_bfloat16
from unsup.core.model import HasDensity, Model, Objective, Terms, keyed_generator, reduced
from unsup.core.parallel import process_count, process_rank, share_of
from unsup.data.source import Data, permutation
from unsup.evaluate.likelihood import CHUNK, evaluate_likelihood
from unsup.train import parallel
from unsup.train.base import AGREE_EVERY, NOISE, VALIDATIONS, Trainer
from unsup.train.ema import EMA
from unsup.train.progress import Progress
from unsup.train.schedules import learning_rate_factor
from unsup.train.settings import Settings

_CALIBRATION = 0.05  # share of a time budget spent before its number of steps is fixed
_LATE = 1.5  # times a time budget, when training ends wherever it is
_VALIDATING, _FEWEST_VALIDATIONS = 0.2, 3  # the share of a time budget for validations, and how many there are at least
_SMOOTHING, _SETTLED = 0.9, 20  # of the terms that a diagnosis is made from; log points before the first one


class GradientTrainer(Trainer):
    """Stochastic gradients: each of the model's objectives with its own optimizer."""

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        super().__init__(model, data, settings, display)
        if model.event.is_image and not settings.shard:  # which takes contiguous parameters only
            self.model.to(memory_format=torch.channels_last)
        self.bfloat16 = uses_bfloat16(settings.precision, self.device, allowed=model.autocast)
        self.generator = keyed_generator(settings.seed, NOISE, device=self.device)
        self.batch_size = min(settings.batch_size, len(data.train))
        parallel.check_batch_size(self.batch_size)
        self.per_epoch = len(data.train) // self.batch_size
        self.position = 0  # batches taken so far
        self.validation_took = 0.0  # seconds, the first one
        self.smoothed: dict[str, float] = {}

    def begin(self) -> None:
        settings = self.settings
        if settings.shard:
            parallel.shard_model(self.model)
        self.objectives = self.model.objectives()
        self.optimizers = [self._optimizer(o) for o in self.objectives]
        self.losses = [self._loss(o) for o in self.objectives]
        self.ema = EMA(settings.ema, *self.model.averaged()) if settings.ema else None
        if settings.minutes is None:
            self.total = settings.steps or 2000
            if settings.epochs:
                batches = sum(o.repeats / o.every for o in self.objectives)
                self.total = max(1, round(settings.epochs * self.per_epoch / batches))

    def _optimizer(self, objective: Objective) -> Optimizer:
        s = self.settings
        chosen = {"lr": s.lr, "betas": s.betas, "eps": s.eps, "weight_decay": s.weight_decay}
        chosen |= objective.optimizer
        (first, second), parameters = chosen.pop("betas"), objective.parameters
        match s.optimizer:
            case "adam":
                return AdamW(parameters, betas=(first, second), fused=True, **chosen)
            case "rmsprop":
                return RMSprop(parameters, alpha=second, foreach=True, **chosen)
            case "sgd":
                del chosen["eps"]
                return SGD(parameters, momentum=first, fused=not s.shard, **chosen)

    def _loss(self, objective: Objective) -> Callable[..., Terms]:
        loss = torch.compile(objective.loss) if self.settings.compile else objective.loss
        return parallel.player_loss(self.model, objective, loss, self.settings.shard)

    def tensors(self) -> dict[str, Tensor]:
        found = {"rng.noise": self.generator.get_state()}
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            for i, state in optimizer.state_dict()["state"].items():
                kept = {k: v for k, v in state.items() if v is not None}  # SGD has no buffer without momentum
                found |= {f"optimizer.{objective.name}.{i}.{k}": v for k, v in kept.items()}
        if self.ema is not None:
            found |= {f"ema.{i}": v for i, v in enumerate(self.ema.average)}
        return found

    def record(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "validation_took": None if self.settings.minutes is None else self.validation_took,
            "ema_steps": self.ema.steps if self.ema else 0,
            "smoothed": self.smoothed,
            "symptoms": self.symptoms,
        }

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.position, self.smoothed, self.symptoms = record["position"], record["smoothed"], record["symptoms"]
        self.validation_took = record.get("validation_took") or 0.0
        self.generator.set_state(tensors["rng.noise"])
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            prefix = f"optimizer.{objective.name}."
            state: dict[int, dict[str, Tensor]] = {}
            for name, value in tensors.items():
                if name.startswith(prefix):
                    index, _, key = name.removeprefix(prefix).partition(".")
                    own = objective.parameters[int(index)]
                    if value.ndim:  # fused optimizers take for granted that it lies in memory as the parameter does
                        value = torch.empty_like(own, dtype=value.dtype).copy_(parallel.like(own, value))
                    state.setdefault(int(index), {})[key] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        if self.ema is not None:
            average = [parallel.like(own, tensors[f"ema.{i}"]) for i, own in enumerate(self.ema.average)]
            self.ema.load(average, record["ema_steps"])

    def batches(self) -> Iterator[Batch]:
        """Batches from ``position`` on, for ever; the order of an epoch is keyed by (seed, epoch)."""
        seed = self.settings.seed
        while True:
            epoch, first = divmod(self.position, self.per_epoch)
            split = self.data.train.epoch(seed, epoch)
            order = permutation(seed, epoch, len(split))
            for i in range(first, self.per_epoch):
                self.position += 1
                rows = order[i * self.batch_size : (i + 1) * self.batch_size]
                part = share_of(len(rows), process_count(), process_rank())
                batch = split.step(rows, self.model.streams, seed=seed, position=self.position - 1, part=part)
                yield replace(batch.to(self.device), time=Time(self.done, self.total, epoch))

    def learn(self) -> None:
        batches = self.batches()
        log_every = 1
        start = self.done
        calibration: tuple[int, float] | None = None
        if self.done == 0:
            self._first_validation()
        while (self.total is None or self.done < self.total) and not self.stopped:
            if self._late():
                self._log({"ended": f"late: {self.seconds:.0f} s, step {self.done} of {self.total}"})
                self._validate()
                break
            terms = self._step(batches)
            self.done += 1
            if self.total is None:
                if self.done == start + 3:  # the first steps warm caches up
                    calibration = (self.done, time.monotonic())
                self.total = parallel.from_first(self._steps_in_budget(calibration)) or None
            logged = self.done % log_every == 0 or self.done == self.total
            if logged or self.display.due():
                values = {k: float(v) for k, v in terms.items()}
                if logged:
                    values = parallel.mean_values(list(values), list(values.values()))
                for name, value in values.items():
                    if not math.isfinite(value):
                        raise TrainingError(self._advice(f"{name} is {value}"))
                if logged:
                    self._log(values)
                    self._diagnose(values)
                    log_every = max(1, (self.total or 1000) // 400)
                if self.display.due():
                    self.display.show(self.done, self.total, values)
            if self._validation_due():
                self._validate()
                self.display.show(self.done, self.total, {k: float(v) for k, v in terms.items()})
            self.save_if_due()

    def _first_validation(self) -> None:
        """Validate before step 1, and time that for a time budget, once what is slow the first time is done."""
        if self.settings.minutes is not None and isinstance(self.model, HasDensity):
            evaluate_likelihood(self.model, self.watched.take(slice(0, CHUNK)), seed=self.settings.seed)
        started = time.monotonic()
        self._validate()
        self.validation_took = time.monotonic() - started

    def _late(self) -> bool:
        """Whether a time budget is long over, since the machine has become slower than it was at the first steps."""
        if self.settings.minutes is None or self.total is None or (process_count() > 1 and self.done % AGREE_EVERY):
            return False
        return bool(parallel.from_first(int(self.seconds > _LATE * 60 * self.settings.minutes)))

    def _validation_due(self) -> bool:
        if self.total is None:
            return False
        every = self.settings.validate_every or max(1, self.total // self._validations())
        return self.done % every == 0 or self.done == self.total

    def _validations(self) -> int:
        """How many there are: fewer where twenty would take more than a fifth of a time budget."""
        if self.settings.minutes is None:
            return VALIDATIONS
        each = max(self.validation_took, 1e-9)
        return max(_FEWEST_VALIDATIONS, min(VALIDATIONS, int(_VALIDATING * 60 * self.settings.minutes / each)))

    def _validate(self) -> None:
        with self.ema.applied() if self.ema is not None else nullcontext():
            self.validate()

    def _steps_in_budget(self, calibration: tuple[int, float] | None) -> int:
        """The time budget in steps, fixed once so that the schedule and a resumed run agree on it; 0: not known yet."""
        budget = 60 * (self.settings.minutes or 0)
        if calibration is None or (self.seconds < _CALIBRATION * budget and self.seconds < 10):
            return 0
        steps, since = calibration
        if self.done < steps + 5:
            return 0
        each = (time.monotonic() - since) / (self.done - steps)
        validation = self._validations() * self.validation_took
        left = max(0.0, budget - self.seconds - validation)
        return self.done + max(1, int(left / each))

    def _step(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        self.model.train()
        shown: dict[str, Tensor] = {}
        s, several = self.settings, len(self.objectives) > 1
        factor = learning_rate_factor(self.done, self.total or 10**9, s.warmup, s.schedule)
        for objective, optimizer, loss in zip(self.objectives, self.optimizers, self.losses, strict=True):
            if self.done % objective.every:
                continue
            for group in optimizer.param_groups:
                group["lr"] = objective.optimizer.get("lr", s.lr) * factor
            if several:  # a player's gradient passes through the others' parameters and is not taken there
                self._play(objective)
            for _ in range(objective.repeats):
                batch = next(batches)
                self.display.count(len(batch) * process_count())
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    terms = reduced(loss(batch, generator=self.generator), batch.weight)
                optimizer.zero_grad()
                terms["loss"].backward()
                if s.clip:
                    torch.nn.utils.clip_grad_norm_(objective.parameters, s.clip)
                optimizer.step()
                if objective.after is not None:
                    objective.after()
            prefix = f"{objective.name}/" if several else ""
            shown |= {prefix + k: v.detach() for k, v in terms.items()}
        if several:
            self._play(*self.objectives)
        if self.ema is not None:
            self.ema.update()
        time = Time(self.done + 1, self.total, self.position // self.per_epoch)
        for module in self.model.modules():  # parts are models of their own
            if isinstance(module, Model):
                module.after_step(time)
        return shown

    def _play(self, *players: Objective) -> None:
        """Only the parameters of ``players`` take gradients."""
        for objective in self.objectives:
            for p in objective.parameters:
                p.requires_grad_(objective in players)

    def _diagnose(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.smoothed[name] = value + _SMOOTHING * (self.smoothed.get(name, value) - value)
        if len(self.events) >= _SETTLED:
            self.say(self.model.diagnose(self.smoothed))
