"""Small models of the contracts that the trainer keeps, and data for them."""

from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from torch import nn

from unsup.core import random
from unsup.core import rows as core_rows
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import CanEncode, CanSample, Classifies, HasDensity, Model, Objective, Symptom
from unsup.core.registry import Paper, Row
from unsup.data import Data, Split

BITS = Event((6,), BINARY)


class Killed(BaseException):
    """Ends a run at once, as a killed process ends, with nothing saved after it."""


class Toy(Model, HasDensity, CanSample):
    """Independent Bernoullis with one free logit each, and switches that make training go wrong."""

    def __init__(self, event: Event, *, nan_at: int = 0) -> None:
        self.logits = nn.Parameter(torch.zeros(event.shape))
        self.nan_at = nan_at
        self.losses = 0
        self.interrupt_at = 0
        self.kill_at = 0

    def loss(self, batch, *, generator=None):
        self.losses += 1
        if self.losses == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        if self.losses == self.kill_at:
            raise Killed
        loss = -self._log_prob(batch, samples=1, generator=generator)
        return {"loss": loss * (math.nan if self.nan_at and self.losses > self.nan_at else 1)}

    def _log_prob(self, batch, *, samples, generator):
        return torch.distributions.Bernoulli(logits=self.logits).log_prob(batch.x.float()).flatten(1).sum(1)

    def sample(self, n, *, generator=None):
        return torch.bernoulli(self.logits.sigmoid().expand(n, *self.event.shape), generator=generator).to(torch.uint8)


class Ailing(Toy):
    """The same; its loss falls under a bound after some steps, which is called a symptom."""

    def diagnose(self, terms):
        return Symptom("low", "expect more") if terms["loss"] < 4.1 else None


class TwoHeads(Model):
    """A trunk with two heads, each of which regresses on a function of its own; the trunk belongs to both objectives.

    ``joins``: the second plays on the batch of the first and on the features that the first left there.
    """

    def __init__(self, event: Event, *, joins: bool = False, scale: float = 1.0) -> None:
        self.joins, self.scale = joins, scale
        self.trunk = nn.Linear(event.dims, 3)
        self.head_a, self.head_b = nn.Linear(3, 1), nn.Linear(3, 1)
        self.seen: list[torch.Tensor] = []

    def loss(self, batch, *, generator=None):
        return {"loss": self.loss_a(batch)["loss"] + self.loss_b(batch)["loss"]}

    def loss_a(self, batch, *, generator=None):
        self.seen.append(batch.x)
        features = self.trunk(batch.x).tanh()
        if self.joins:
            batch.shared["features"] = features
        return {"loss": (self.head_a(features).squeeze(-1) - batch.x.sum(1)).square()}

    def loss_b(self, batch, *, generator=None):
        self.seen.append(batch.x)
        features = batch.shared["features"] if self.joins else self.trunk(batch.x).tanh()
        # Its loss reaches the other head as well, which is not its own to move.
        wrong = self.head_b(features) + 0.3 * self.head_a(features)
        return {"loss": self.scale * (wrong.squeeze(-1) - batch.x.prod(1)).square()}

    def objectives(self):
        trunk = tuple(self.trunk.parameters())
        return (
            Objective("a", self.loss_a, trunk + tuple(self.head_a.parameters())),
            Objective("b", self.loss_b, trunk + tuple(self.head_b.parameters()), joins=self.joins),
        )


class Ramp(Model):
    """w is pulled to the data's mean with a weight that rises over steps; a teacher follows at a rate of its own."""

    teacher: torch.Tensor

    def __init__(self, event: Event, *, steps: int = 10) -> None:
        self.steps = steps
        self.w = nn.Parameter(torch.zeros(event.shape))
        self.register_buffer("teacher", torch.zeros(event.shape))
        self.times: list[tuple[str, int, int | None, int]] = []
        self.kill_at = 0

    def loss(self, batch, *, generator=None):
        self.times.append(("loss", batch.time.step, batch.time.total, batch.time.epoch))
        if len(self.times) == self.kill_at:
            raise Killed
        noise = random.normal(batch.x.shape, generator, like=self.w)
        away = (self.w - batch.x - 0.1 * noise).square().sum(1)
        return {"loss": batch.time.ramp(self.steps) * away + (1 - batch.time.share) * self.w.square().sum()}

    def after_step(self, time):
        self.times.append(("after", time.step, time.total, time.epoch))
        self.teacher.lerp_(self.w.detach(), time.ramp(self.steps))


class SemiSupervised(Model, Classifies, CanEncode):
    """A linear classifier: cross entropy of labelled examples, and the entropy of noisy unlabelled ones."""

    streams = {"unlabelled": 3}
    needs_labels = True
    validator = "accuracy"

    def __init__(self, event: Event, *, classes: int = 3) -> None:
        self.classify = nn.Linear(event.dims, classes)
        self.kill_at = 0
        self.losses = 0

    def loss(self, batch, *, generator=None):
        self.losses += 1
        if self.losses == self.kill_at:
            raise Killed
        own = nn.functional.cross_entropy(self.classify(batch.x), batch.label, reduction="none")
        more = batch["unlabelled"].x
        more = more + 0.1 * random.normal(more.shape, generator, like=more)
        logits = self.classify(more)
        entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum(1)
        return {"loss": own + entropy.view(len(batch), -1).mean(1), "entropy": entropy.mean().detach()}

    def predict_proba(self, x):
        return self.classify(x).softmax(1)

    def encode(self, x):
        return self.classify(x)


class Unigram(Model, HasDensity):
    """Tokens are independent; sequences are as long as they are."""

    takes_lengths = True

    def __init__(self, event: Event) -> None:
        self.logits = nn.Parameter(torch.zeros(event.uniform.levels))

    @classmethod
    def reason_against(cls, event):
        return None if event.layout == "sequence" else "takes sequences"

    def loss(self, batch, *, generator=None):
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    def _log_prob(self, batch, *, samples, generator):
        entries = self.logits.log_softmax(0)[batch.x.long().clamp(0, len(self.logits) - 1)]
        lengths = batch.lengths
        if lengths is not None:
            entries = entries.masked_fill(self.event.padding(lengths), 0.0)
        return entries.sum(1)


class Outer(Model):
    """A frozen module beside one that learns."""

    def __init__(self, event: Event, *, frozen: bool = True) -> None:
        self.fixed, self.learned = nn.Linear(event.dims, 2), nn.Linear(2, 1)
        self.fixed.requires_grad_(not frozen)

    def loss(self, batch, *, generator=None):
        return {"loss": (self.learned(self.fixed(batch.x)).squeeze(-1) - 1).square()}

    def objectives(self):
        return (
            Objective("all", self.loss, tuple(self.parameters())),
            Objective("fixed", self.loss, tuple(self.fixed.parameters())),
        )


TOYS = (Toy, Ailing, TwoHeads, Ramp, SemiSupervised, Unigram, Outer)


def rows() -> dict[str, Row]:
    paper = Paper("k", "A. Uthor", 2000, "T", "V", "https://example.org")
    return {
        cls.__name__.lower(): Row(
            cls.__name__.lower(), f"{__name__}:{cls.__name__}", "tests", "s", ("score",), "any", paper
        )
        for cls in TOYS
    }


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys in the registry, so that runs can name them; a test module that imports this has it."""
    for name, row in rows().items():
        monkeypatch.setitem(core_rows._ROWS, name, row)


def binary_data(n: int = 400) -> Data:
    x = (torch.rand(n, 6, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 6)).to(torch.uint8)
    return Data(None, BITS, Split(x), Split(x[:100]), Split(x[:50]))


def real_data(n: int = 60, dims: int = 2, *, seed: int = 0, weight: torch.Tensor | None = None) -> Data:
    x = torch.randn(n, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    split = Split(x, weight=weight)
    return Data(None, Event((dims,), REAL, precision="float64"), split, Split(x), Split(x))


def labelled_data(n: int = 40, more: int = 70) -> Data:
    """Three classes in the plane, and a stream of examples without labels."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (n,), generator=generator)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64) + 2 * label[:, None]
    unlabelled = torch.randn(more, 2, generator=generator, dtype=torch.float64) * 2 + 2
    train = Split(x, label, streams={"unlabelled": Split(unlabelled)})
    return Data(None, Event((2,), REAL, precision="float64"), train, Split(x, label), Split(x, label), ("a", "b", "c"))


def sequences(n: int = 50, most: int = 7, *, padding: int = 0) -> Data:
    """Tokens 0, 1, 2 with frequencies of their own, in sequences of 1 to ``most``."""
    generator = torch.Generator().manual_seed(0)
    x = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), n * most, True, generator=generator).view(n, most)
    lengths = torch.randint(1, most + 1, (n,), generator=generator)
    event = Event((most,), Support("nominal", 3), layout="sequence", open=True)
    x = torch.where(event.padding(lengths), torch.full_like(x, padding), x)
    split = Split(x, lengths=lengths)
    return Data(None, event, split, split, split)
