"""Learning by counting and expectation-maximisation: sums over all data, then a closed-form update."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import TrainingError
from unsup.core.model import Model, keyed_generator
from unsup.core.parallel import process_count, process_rank, sum_over_processes
from unsup.data.source import Data, Split
from unsup.evaluate.likelihood import CHUNK
from unsup.train import parallel
from unsup.train.base import NOISE, VALIDATIONS, Trainer
from unsup.train.progress import Progress
from unsup.train.runs import Ended
from unsup.train.settings import Settings


class CountingTrainer(Trainer):
    """Expectation-maximisation and counting: sums over all data, then a closed-form update."""

    model: Any  # a Model that is also LearnsByCounting

    def __init__(self, model: Model, data: Data, settings: Settings, display: Progress) -> None:
        super().__init__(model, data, settings, display)
        self.previous = -math.inf  # log-likelihood plus log-prior after the previous pass

    def learn(self) -> None:
        # An update is a pass over the training split.
        self.total = self.settings.steps or self.settings.epochs or self.model.passes
        train = self.data.train.epoch(self.settings.seed, 0)
        ended: Ended | None = None
        terms: dict[str, float] = {}
        while ended is None and (ended := self.over()) is None and not self.stopped:
            pass_started = time.monotonic()
            with torch.no_grad(), self.in_time("pass") if self.done == 0 else nullcontext():
                statistics, counted = self._sums(train)
                if counted < len(train):  # out of time
                    some = f"{counted:,} of {len(train):,} examples"
                    self._log({"ended": f"by the time limit: the last pass counted {some}"})
                    if self.done:  # the parameters of the last whole pass stay
                        ended = "minutes"
                        self.say(self.model.diagnose(terms))
                        self.validate(last=True)
                        break
                log_prior = float(self.model.parameter_log_prior())
                self.model.maximize(statistics)
            self.done += 1
            terms = {}
            if "log_prob" in statistics:
                mean = float(statistics["log_prob"] / statistics["count"])
                reached = mean + log_prior / float(statistics["count"])  # the objective of EM
                terms = {"loss": -reached, "log_prob": mean}
                if not math.isfinite(reached):
                    raise TrainingError(self._advice(f"the log-likelihood is {mean}, with the prior {reached}"))
                self._log(terms)
                converged = reached - self.previous < self.model.tolerance
                self.previous = reached
            else:  # further passes would find the same
                converged = self.model.passes <= self.done < self.total
            out_of_time = self._over_budget(time.monotonic() - pass_started)
            if counted < len(train):
                ended = "minutes"
            else:
                ended = "converged" if converged else self.over() or ("minutes" if out_of_time else None)
            if ended:  # before that, a component may temporarily have a single example
                self.say(self.model.diagnose(terms))
            if ended or self.done % (self.settings.validate_every or max(1, self.total // VALIDATIONS)) == 0:
                self.validate(last=ended is not None)
                self.display.show(self.done, self.total, {k: v for k, v in terms.items() if k == "loss"})
            if ended is None:  # otherwise it is saved together with that, right after logging
                self.save_if_due()
        self.ended = ended

    def _sums(self, train: Split) -> tuple[dict[str, Tensor], int]:
        """The sums over the training split, and over how many examples: fewer than all if the time was over."""
        statistics: dict[str, Tensor] = {}
        counted = 0
        for chunk, start in enumerate(range(0, len(train), 10 * CHUNK)):
            # Asked by all processes at the same chunks, when each has counted as many.
            if chunk and chunk % process_count() == 0 and self._over_budget(0.0):
                break
            counted = min(start + 10 * CHUNK, len(train))
            if chunk % process_count() != process_rank():
                continue
            batch = train.batch(torch.arange(start, counted)).to(self.device)
            self.display.count(len(batch) * process_count())
            # The same noise in every pass, so that EM increases the likelihood of fixed data.
            generator = keyed_generator(self.settings.seed, NOISE, chunk, device=self.device)
            for name, value in self.model.statistics(batch, generator=generator).items():
                statistics[name] = statistics[name] + value if name in statistics else value
            if self.display.due():
                self.display.show(self.done + 1, self.total, {})
        return sum_over_processes(statistics), counted

    def record(self) -> dict[str, Any]:
        return {"previous": self.previous if math.isfinite(self.previous) else None}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        self.previous = -math.inf if record["previous"] is None else record["previous"]

    def remedies(self) -> str:
        return self.unusual_examples

    def _over_budget(self, last_pass: float) -> bool:
        """Whether one more pass as long as the last would exceed ``minutes``; the processes agree on it."""
        if self.settings.minutes is None:
            return False
        (over,) = parallel.any_process(self.seconds + last_pass > 60 * self.settings.minutes)
        return over
