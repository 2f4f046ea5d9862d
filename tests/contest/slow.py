"""Models from outside that take time by a clock of their own, and that clock."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from unsup import Batch, Event
from unsup.core import random
from unsup.core.model import Advice, CanSample, HasDensity, Model, Terms
from unsup.core.rows import Paper, Row
from unsup.nn.front import ContinuousFront
from unsup.prob.distributions import gaussian_log_prob

PAPER = Paper("slow", "A. Author", 2000, "Slowness", "Nowhere", "https://example.org")


class Clock:
    """Stands still unless a model works; what `time.monotonic` gives in these tests."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float, x: Tensor) -> Tensor:
        """Let time pass between operations on ``x``."""
        parts = max(5, round(seconds))
        for _ in range(parts):
            self.now += seconds / parts
            x = x * 1.0
        return x


CLOCK = Clock()


class _Slow(Model, HasDensity, CanSample):
    """One Gaussian a column, whose steps, scores and samples take as many seconds as the class says."""

    presets: ClassVar = {"tiny": {}, "paper": {}}
    step: ClassVar[float] = 0.1
    score: ClassVar[float] = 1e-5  # of an example
    draw: ClassVar[float] = 1e-5  # of a sample

    def build(self, event: Event) -> None:
        self.front = ContinuousFront(event)
        self.mean = nn.Parameter(torch.zeros(event.dims))
        self.log_std = nn.Parameter(torch.zeros(event.dims))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.is_real and len(event.shape) == 1 else "takes real vectors only"

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        self.front.prepare(batch.x, generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        return {"loss": CLOCK.work(self.step, -self._of(batch.x))}

    def _of(self, x: Tensor) -> Tensor:
        y, log_det = self.front(self.front.floating(x))
        return gaussian_log_prob(y, self.mean, self.log_std).sum(1) + log_det

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        return CLOCK.work(self.score * len(batch.x), self._of(batch.x))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        noise = random.normal((n, self.event.dims), generator, like=self.mean)
        return self.front.invert(CLOCK.work(self.draw * n, self.mean + self.log_std.exp() * noise))


class Slow(_Slow):
    def __init__(self, event: Event) -> None:
        self.build(event)


class SlowSteps(_Slow):
    step = 0.5

    def __init__(self, event: Event) -> None:
        self.build(event)


class VerySlowSteps(_Slow):
    step = 5.0

    def __init__(self, event: Event) -> None:
        self.build(event)


class EndlessStep(_Slow):
    step = 500.0

    def __init__(self, event: Event) -> None:
        self.build(event)


class SlowScores(_Slow):
    score = 0.05

    def __init__(self, event: Event) -> None:
        self.build(event)


class SlowDraws(_Slow):
    draw = 3.0

    def __init__(self, event: Event) -> None:
        self.build(event)


class Declines(_Slow):
    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(against="is too slow on purpose")

    def __init__(self, event: Event) -> None:
        self.build(event)


class Named(_Slow):
    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    def __init__(self, event: Event) -> None:
        self.build(event)


def rows() -> dict[str, Row]:
    """A row for each of them, by name."""
    classes = (Slow, SlowSteps, VerySlowSteps, EndlessStep, SlowScores, SlowDraws, Declines, Named)
    return {
        cls.__name__.lower(): Row(
            name=cls.__name__.lower(),
            target=f"slow:{cls.__name__}",
            family="slow",
            summary="slow",
            abilities=("score", "sample"),
            events="real vectors",
            paper=PAPER,
        )
        for cls in classes
    }
