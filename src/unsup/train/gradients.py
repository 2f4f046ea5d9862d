"""Learning by stochastic gradients: every objective of the model has its own optimizer."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.errors import InputError, TrainingError
from unsup.core.machine import uses_bfloat16
from unsup.core.model import Model, keyed_generator, reduced
from unsup.core.parallel import parts_of, process_count, process_rank
from unsup.core.random import Rows, part_of_batch
from unsup.data.source import Data, Split, permutation, some_of
from unsup.train import parallel
from unsup.train.base import AGREE_EVERY, NOISE, VALIDATIONS, Trainer
from unsup.train.ema import EMA
from unsup.train.players import Gradients, Player, groups_at, only, players_of
from unsup.train.progress import Progress
from unsup.train.schedules import learning_rate_factor
from unsup.train.settings import Settings

_CALIBRATION = 0.05  # share of a time budget spent before its number of steps is fixed
_WARM, _STEADY = 3, 8  # steps that warm caches up; steps that tell the speed, where they take less than
_SLOW = 0.1  # of the time budget
_LATE = 1.5  # times a time budget, when training ends wherever it is
_VALIDATING, _FEWEST_VALIDATIONS = 0.2, 3  # the share of a time budget for validations, and how many there are at least
_TIMED, _FEWEST_WATCHED = 100, 16  # examples that tell what a validation takes; that it has at least
_SMOOTHING, _SETTLED = 0.9, 20  # of the terms that a diagnosis is made from; log points before the first one


@dataclass(frozen=True)
class Drawn:
    """The examples of one update, read on demand, one part at a time.

    Attributes:
        split: their source.
        indices: indices of all examples.
        position: number of batches before this one.
        time: the position of the step in training.
    """

    split: Split
    indices: Tensor
    position: int
    time: Time

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, part: Rows, streams: dict[str, int], seed: int) -> Batch:
        """The examples of one part."""
        batch = self.split.step(self.indices, streams, seed=seed, position=self.position, part=part)
        return replace(batch, time=self.time)

    def weight(self) -> float | None:
        """The sum of the weights of all examples; 1 if it is 0, so that they add nothing."""
        if self.split.weight is None:
            return None
        return float(self.split.weight[self.indices].sum()) or 1.0


class GradientTrainer(Trainer):
    """Stochastic gradients: every objective of the model has its own optimizer."""

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        super().__init__(model, data, settings, display)
        if model.event.is_image and not settings.shard:  # which supports contiguous parameters only
            nn.Module.to(self.model, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bfloat16 = uses_bfloat16(settings.precision, self.device, allowed=model.autocast)
        self.generator = keyed_generator(settings.seed, NOISE, device=self.device)
        self.batch_size = min(settings.batch_size, len(data.train))
        parallel.check_batch_size(self.batch_size, settings.accumulate, model.packing)
        for part in self._parts(self.batch_size):
            reason = model.reason_against_batch(sum(part.beside) or part.count, self.batch_size)
            if reason is not None:
                raise InputError(f"{type(model).__name__} {reason}")
        self.per_epoch = len(data.train) // self.batch_size
        self.position = 0  # number of batches so far
        self.validation_took = 0.0  # seconds, the first one
        self.smoothed: dict[str, float] = {}

    def begin(self) -> None:
        settings = self.settings
        if settings.shard:
            parallel.shard_model(self.model)
        self.players = players_of(self.model, settings)
        self.ema = EMA(settings.ema, *self.model.averaged()) if settings.ema else None
        if settings.minutes is None:
            self.total = settings.steps or 2000
            if settings.epochs:
                players = [p.objective for p in self.players if not p.objective.joins]
                batches = sum((o.during[1] - o.during[0]) * o.repeats / o.every for o in players)
                self.total = max(1, round(settings.epochs * self.per_epoch / batches))

    def tensors(self) -> dict[str, Tensor]:
        found = {"rng.noise": self.generator.get_state()}
        for player in self.players:
            found |= {f"optimizer.{player.name}.{k}": v for k, v in player.states() if isinstance(v, Tensor)}
        if self.ema is not None:
            found |= {f"ema.{i}": v for i, v in enumerate(self.ema.average)}
        return found

    def record(self) -> dict[str, Any]:
        numbers = {p.name: {k: v for k, v in p.states() if not isinstance(v, Tensor)} for p in self.players}
        return {
            "position": self.position,
            "validation_took": None if self.settings.minutes is None else self.validation_took,
            "watched": len(self.watched),
            "ema_steps": self.ema.steps if self.ema else 0,
            "optimizers": numbers,
            "smoothed": self.smoothed,
        }

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.position, self.smoothed = record["position"], record["smoothed"]
        self.validation_took = record["validation_took"] or 0.0
        self._watch(record.get("watched", len(self.watched)))
        self.generator.set_state(tensors["rng.noise"])
        for player in self.players:
            prefix = f"optimizer.{player.name}."
            states = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            player.restore(states | record["optimizers"][player.name])
        if self.ema is not None:
            average = [parallel.like(own, tensors[f"ema.{i}"]) for i, own in enumerate(self.ema.average)]
            self.ema.load(average, record["ema_steps"])

    def batches(self) -> Iterator[Drawn]:
        """An infinite iterator of batches from ``position``; the order of an epoch is keyed by (seed, epoch)."""
        seed = self.settings.seed
        while True:
            epoch, first = divmod(self.position, self.per_epoch)
            split = self.data.train.epoch(seed, epoch)
            order = permutation(seed, epoch, len(split))
            for i in range(first, self.per_epoch):
                self.position += 1
                rows = order[i * self.batch_size : (i + 1) * self.batch_size]
                yield Drawn(split, rows, self.position - 1, Time(self.done, self.total, epoch))

    def learn(self) -> None:
        batches = self.batches()
        if self.validated is None:
            self._first_validation()
        start = self.done
        calibration = start, start, time.monotonic()
        while (ended := self.over()) is None and not self.stopped:
            if self.done and self._late():
                self._log({"ended": f"late: {self.seconds:.0f} s, step {self.done} of {self.total}"})
                if self.validated != self.done:
                    self.validate(last=True)
                ended = "minutes"
                break
            with self.in_time("step") if self.done == start else nullcontext():
                terms = self._step(batches)
            self.done += 1
            fixed = False
            if self.total is None:
                self.total = parallel.from_first(self._steps_in_budget(calibration)) or None
                fixed = self.total is not None
                if self.done in (start + 1, start + _WARM):  # what is slow the first time is not timed
                    calibration = start, self.done, time.monotonic()
            logged, validates = self._log_due(), self._validation_due()
            shows = validates or self.display.due()
            if logged or shows:
                values = {k: float(v) for k, v in terms.items()}
                if logged:
                    values = parallel.summed_values(list(values), list(values.values()))
                else:
                    values = {k: v * process_count() for k, v in values.items()}  # approximately
                for name, value in values.items():
                    if not math.isfinite(value):
                        raise TrainingError(self._advice(f"{name} is {value}"))
                if logged:
                    self._log(values)
                    self._diagnose(values)
                if validates:
                    self.validate()
                if shows:
                    self.display.show(self.done, self.total, values)
            self.save_if_due(now=fixed)  # a measured length is the same when the run is resumed
        self.ended = ended

    def _log_due(self) -> bool:
        return self.done in (1, self.total) or self.done % max(1, (self.total or 1000) // 400) == 0

    def _first_validation(self) -> None:
        """Validate before step 1, and time that for a time budget, once what is slow the first time is done.

        Where one validation would take more than its part of the budget, fewer examples are watched.
        """
        if self.settings.minutes is not None and self.validator is not None:
            part = 60 * self.settings.minutes * _VALIDATING / (1 + _FEWEST_VALIDATIONS)
            with self.in_time("validation of a few examples"):
                self._timed_validation(_FEWEST_WATCHED)
            took, few = self._timed_validation(_FEWEST_WATCHED)
            if took < part / 2:  # a large batch takes less for each
                took, few = self._timed_validation(_TIMED)
            self._watch(parallel.from_first(max(_FEWEST_WATCHED, int(part * few / max(took, 1e-9)))))
        started = time.monotonic()
        self.validate()
        self.validation_took = time.monotonic() - started

    def _timed_validation(self, most: int) -> tuple[float, int]:
        """Seconds that the validator takes for a few of the examples that are watched, and how many these are."""
        assert self.validator is not None
        few = self.watched.take(some_of(len(self.watched), most))
        judge = self.validator.start(self.data, few, self.settings.seed)
        started = time.monotonic()
        judge(self.model)
        return time.monotonic() - started, len(few)

    def _watch(self, most: int) -> None:
        """Watch so many of the validation examples, if there are more."""
        if most < len(self.watched):
            self.watched = self.watched.take(some_of(len(self.watched), most))

    def _late(self) -> bool:
        """Whether a time budget is long over, since the machine has become slower than it was at the first steps."""
        if self.settings.minutes is None or (process_count() > 1 and self.done % AGREE_EVERY):
            return False
        return bool(parallel.from_first(int(self.seconds > _LATE * 60 * self.settings.minutes)))

    def _validation_due(self) -> bool:
        if self.total is None:
            return False
        every = self.settings.validate_every or max(1, self.total // self._validations())
        return self.done % every == 0 or self.done == self.total

    def _validations(self) -> int:
        """The number of validations: fewer if twenty would need more than a fifth of a time budget."""
        if self.settings.minutes is None:
            return VALIDATIONS
        each = max(self.validation_took, 1e-9)
        return max(_FEWEST_VALIDATIONS, min(VALIDATIONS, int(_VALIDATING * 60 * self.settings.minutes / each)))

    def averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.ema is None else self.ema.applied()

    def remedies(self) -> str:
        if self.done == 0:
            return self.unusual_examples
        s = self.settings
        tries = {
            f"a smaller --lr (now {s.lr:g})": any("lr" not in p.objective.optimizer for p in self.players),
            "--clip 1": not 0 < s.clip <= 1,
            "--warmup 500": s.warmup < 500,
            "--precision float32": self.bfloat16,
        }
        return f"try {' or '.join(way for way, is_left in tries.items() if is_left) or 'another --seed'}"

    def _steps_in_budget(self, calibration: tuple[int, int, float]) -> int:
        """The time budget in steps, fixed once so that the schedule and a resumed run agree on it; 0: not known yet.

        Args:
            calibration: the step at which learning began in this process, a later one, and the time of that.
        """
        start, steps, since = calibration
        budget = 60 * (self.settings.minutes or 0)
        each = (time.monotonic() - since) / (self.done - steps)
        left = max(0.0, budget - self.seconds - self._validations() * self.validation_took)
        if self.done < start + _STEADY:
            slow = each * (start + _STEADY - self.done) > _SLOW * budget
            # The first step is slower than the others, so that a second one is timed where it may be had.
            if not slow or (self.done == start + 1 and each < left):
                return 0
        elif self.seconds < _CALIBRATION * budget and self.seconds < 10:
            return 0
        return self.done + int(left / each)

    def _step(self, batches: Iterator[Drawn]) -> dict[str, Tensor]:
        """Update all players of this step; return the contribution of the local rows to the mean of each term."""
        self.model.train()
        shown: dict[str, Tensor] = {}
        s, several = self.settings, len(self.players) > 1
        for together in groups_at(self.players, self.done, self.total):
            for player in together:
                first, end = player.objective.steps(self.total) if self.total else (0, 10**9)
                factor = learning_rate_factor(self.done - first, end - first, s.warmup, s.schedule)
                for group in player.optimizer.param_groups:
                    group["lr"] = player.lr * factor
            repeats = together[0].objective.repeats
            for repeat in range(repeats):
                playing = together if repeat == repeats - 1 else together[:1]
                if several:  # gradients flow through the parameters of other players, but are not computed for them
                    only(playing, self.players)
                terms = self._update(playing, next(batches))
            for player, found in zip(together, terms, strict=True):
                prefix = f"{player.name}/" if several else ""
                shown |= {prefix + k: v for k, v in found.items()}
        if several:
            only(self.players, self.players)
        if self.ema is not None:
            self.ema.update()
        time = Time(self.done + 1, self.total, self.position // self.per_epoch)
        for module in self.model.modules():  # parts are models too; a frozen part does not change
            if isinstance(module, Model) and (
                module is self.model or any(p.requires_grad for p in module.parameters())
            ):
                module.after_step(time)
        return shown

    def _update(self, playing: Sequence[Player], drawn: Drawn) -> list[dict[str, Tensor]]:
        """One update of players by the gradients of their losses on one batch; returns the terms of each."""
        self.display.count(len(drawn), done=self.done)
        parts = self._parts(len(drawn))
        state = self.generator.get_state() if len(parts) > 1 else None
        total = drawn.weight()
        # Sharded gradients are averaged over processes, while those of the parts of a batch are summed.
        gradients = Gradients(playing, scale=process_count() if self.settings.shard else 1.0)
        added: list[dict[str, Tensor]] = [{} for _ in playing]
        for part in parts:
            if state is not None:  # every part draws the noise of the whole batch and keeps its rows
                self.generator.set_state(state)
            batch = drawn.batch(part, dict(self.model.streams), self.settings.seed).to(self.device)
            losses = []
            with part_of_batch(None if part.count == part.total else part):
                for player, sums in zip(playing, added, strict=True):
                    with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                        terms = player.loss(batch, generator=self.generator)
                        found = reduced(terms, batch.weight, part.count / part.total, total)
                    losses.append(found["loss"])
                    for name, term in found.items():
                        sums[name] = sums[name] + term.detach() if name in sums else term.detach()
                gradients.take(losses)
        for player in playing:
            gradients.give(player)
            if not self.settings.shard:
                parallel.sum_gradients(player.parameters)
            if self.settings.clip:
                torch.nn.utils.clip_grad_norm_(player.parameters, self.settings.clip)
            player.optimizer.step()
            if player.objective.after is not None:
                player.objective.after()
        return added

    def _parts(self, total: int) -> tuple[Rows, ...]:
        """The rows of a batch that this process computes, part by part."""
        if process_count() == 1 and self.settings.accumulate == 1:
            return (Rows(total, 0, total),)
        return parts_of(total, process_count(), process_rank(), self.settings.accumulate, self.model.packing)

    def _diagnose(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.smoothed[name] = value + _SMOOTHING * (self.smoothed.get(name, value) - value)
        if self.logged >= _SETTLED:
            self.say(self.model.diagnose(self.smoothed))
