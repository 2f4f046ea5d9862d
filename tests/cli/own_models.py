"""Small models of our own for the command line: conditioned on classes, on anything, with a model in them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from unsup import Batch, Event, Part
from unsup.core import random
from unsup.core.config import Count, Positive, Widths
from unsup.core.model import CanDecode, CanSample, Classifies, HasDensity, IsConditional, Model, Terms
from unsup.core.rows import Paper, Row
from unsup.prob.distributions import gaussian_log_prob

PAPER = Paper("own", "Somebody", 2020, "Small models", "nowhere", "https://example.org")


class Blobs(Model, IsConditional, HasDensity, CanSample, CanDecode, Classifies):
    """p(x | y) = N(x; μ_y, s²) of real vectors: means from the data, one width.

    Args:
        width: s
        given: what examples are conditioned on
    """

    presets = {"tiny": {}, "paper": {}}
    mean: Tensor

    def __init__(self, event: Event, *, width: Positive = 0.5, given: Event | None = None) -> None:
        self.take_condition(given)
        self.scale = nn.Parameter(torch.tensor(float(width)))
        self.register_buffer("mean", torch.zeros(max(self.classes, 1), event.dims))

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        self.count_condition(batch)
        label = self._label(batch.given, len(batch))
        for y in range(len(self.mean)):
            self.mean[y] = batch.x[label == y].to(self.dtype).mean(0)

    def _label(self, given: Tensor | None, n: int) -> Tensor:
        return self.condition(given, n).long() if self.classes else torch.zeros(n, dtype=torch.int64)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        mean = self.mean[self._label(batch.given, len(batch))]
        return gaussian_log_prob(batch.x.to(self.dtype), mean, self.scale.log()).sum(1)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        given: Tensor | None = None,
        temperature: Positive = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> Tensor:
        """``n`` examples.

        Args:
            temperature: of the noise; below 1 is nearer the means
            shift: added to every sample
        """
        if self.classes and given is None:
            given = self.draw_condition(n, generator)
        noise = random.normal((n, self.event.dims), generator, like=self.mean)
        z = temperature * noise
        return self._examples(z, given) + torch.tensor(shift)

    def _examples(self, z: Tensor, given: Tensor | None) -> Tensor:
        return (self.mean[self._label(given, len(z))] + self.scale * z).to(self.event.dtype)

    def encode(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        return (x.to(self.dtype) - self.mean[self._label(given, len(x))]) / self.scale

    @property
    def code_size(self) -> int:
        return self.event.dims

    def decode(self, z: Tensor, *, given: Tensor | None = None) -> Tensor:
        return self._examples(z, given)

    def predict_proba(self, x: Tensor) -> Tensor:
        return (self.log_prob_each_class(Batch(x)) + self.log_class_prior()).softmax(1)


class Follower(Model, IsConditional, HasDensity, CanSample):
    """p(x | c) = N(x; Σ c, s²): every entry is near the sum of a real or whole-numbered condition."""

    presets = {"tiny": {}, "paper": {}}

    def __init__(self, event: Event, *, width: Positive = 0.01, given: Event | None = None) -> None:
        self.take_condition(given)
        self.scale = nn.Parameter(torch.tensor(float(width)))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    def _mean(self, given: Tensor | None, n: int) -> Tensor:
        return self.condition(given, n).flatten(1).to(self.dtype).sum(1, keepdim=True).expand(n, self.event.dims)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        mean = self._mean(batch.given, len(batch))
        return gaussian_log_prob(batch.x.flatten(1).to(self.dtype), mean, self.scale.log()).sum(1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, given: Tensor | None = None) -> Tensor:
        mean = self._mean(given, n)
        noise = self.scale * random.normal(mean.shape, generator, like=mean)
        return (mean + noise).view(n, *self.event.shape).to(self.event.dtype)


class Shell(Model, HasDensity, CanSample):
    """A model whose density is that of the model in it, or N(0, I) without one.

    Args:
        inner: the model in it
        layers: a number that changes nothing
        sizes: numbers that change nothing
    """

    presets = {"tiny": {}, "paper": {"inner": "histogram"}}

    def __init__(
        self, event: Event, *, inner: Part | None = None, layers: Count = 1, sizes: Widths = (8, 8), bins: int = 3
    ) -> None:
        self.inner = None if inner is None else inner.build(event)
        self.weight = nn.Parameter(torch.zeros(()))

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        if self.inner is not None:
            self.inner.prepare(batch, generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        return {"loss": -self._log_prob(batch, samples=1, generator=generator) + self.weight**2}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        if self.inner is not None:
            return self.inner.log_prob(batch.x, samples=samples, generator=generator)
        x = batch.x.flatten(1).to(self.weight.dtype)
        return gaussian_log_prob(x, torch.zeros_like(x), torch.zeros_like(x)).sum(1)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        if self.inner is not None:
            return self.inner.sample(n, generator=generator)
        noise = random.normal((n, *self.event.shape), generator, like=self.weight)
        return noise.to(self.event.dtype)


def _row(name: str, cls: str, *abilities: str) -> Row:
    return Row(name, f"own_models:{cls}", "own", "A model for tests.", abilities, "real vectors", PAPER)


ROWS = (
    _row("blobs", "Blobs", "score", "sample", "temper", "encode", "decode", "condition", "predict"),
    _row("follower", "Follower", "score", "sample", "condition"),
    _row("shell", "Shell", "score", "sample"),
)
