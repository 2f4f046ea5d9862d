"""Learning by counting and expectation-maximisation: sums over all the data, then one closed-form update."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import TrainingError
from unsup.core.model import keyed_generator
from unsup.core.parallel import process_count, process_rank, sum_over_processes
from unsup.evaluate.likelihood import CHUNK
from unsup.train import parallel
from unsup.train.base import NOISE, VALIDATIONS, Trainer


class CountingTrainer(Trainer):
    """Expectation-maximisation and counting: sums over all the data, then one closed-form update."""

    model: Any  # a Model that is also LearnsByCounting

    def learn(self) -> None:
        self.total = self.model.passes
        train = self.data.train.epoch(self.settings.seed, 0)
        previous = next((-e["loss"] for e in reversed(self.events) if "log_prob" in e), -math.inf)
        while self.done < self.total and not self.stopped:
            pass_started = time.monotonic()
            statistics: dict[str, Tensor] = {}
            with torch.no_grad():
                for chunk, start in enumerate(range(0, len(train), 10 * CHUNK)):
                    if chunk % process_count() != process_rank():
                        continue
                    batch = train.batch(torch.arange(start, min(start + 10 * CHUNK, len(train)))).to(self.device)
                    self.display.count(len(batch) * process_count())
                    # The same noise at every pass: the likelihood that EM raises is that of fixed data.
                    generator = keyed_generator(self.settings.seed, NOISE, chunk, device=self.device)
                    for name, value in self.model.statistics(batch, generator=generator).items():
                        statistics[name] = statistics[name] + value if name in statistics else value
                    if self.display.due():
                        self.display.show(self.done + 1, self.total, {})
                statistics = sum_over_processes(statistics)
                log_prior = float(self.model.parameter_log_prior())
                self.model.maximize(statistics)
            self.done += 1
            terms = {}
            if "log_prob" in statistics:
                mean = float(statistics["log_prob"] / statistics["count"])
                reached = mean + log_prior / float(statistics["count"])  # what passes raise
                terms = {"loss": -reached, "log_prob": mean}
                if not math.isfinite(reached):
                    raise TrainingError(self._advice(f"the log-likelihood is {mean}, with its prior {reached}"))
                self._log(terms)
                converged = reached - previous < self.model.tolerance
                previous = reached
            else:
                converged = False
            out_of_time = self._over_budget(time.monotonic() - pass_started)
            ended = converged or out_of_time or self.done == self.total
            if ended or self.done % max(1, self.total // VALIDATIONS) == 0:
                self.validate()
                self.display.show(self.done, self.total, {k: v for k, v in terms.items() if k == "loss"})
            self.save_if_due()
            if ended:
                break

    def _over_budget(self, last_pass: float) -> bool:
        """Whether one more pass as long as the last would go beyond ``minutes``; the processes agree on it."""
        if self.settings.minutes is None:
            return False
        (over,) = parallel.any_process(self.seconds + last_pass > 60 * self.settings.minutes)
        return over
