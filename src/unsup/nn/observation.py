"""Observation models: p of the entries of an example, given the outputs of a network for each entry.

The event determines the observation model. It works on *targets*: level numbers from 0 for discrete entries, y of the
front for continuous entries. Outputs have the axes of the targets and a last axis of ``outputs_each`` numbers per
entry; leading axes of outputs (several draws) are broadcast. Columns of a table have different numbers of outputs, see
`unsup.nn.heads`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot, softplus

from unsup.core import random
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Conditional
from unsup.nn.columns import FURTHEST
from unsup.nn.front import ContinuousFront
from unsup.nn.inputs import levels_of
from unsup.nn.intervals import GaussianIntervals
from unsup.prob import distributions as dist

LOWEST_LOG_SCALE = -7.0  # minimum scale: a constant column must not make the density infinite

_RATE = 10.0

ObservationName = Literal["auto", "bernoulli", "categorical", "logistic", "logistic-mixture", "gaussian"]
_BY_SUPPORT: dict[str, tuple[str, ...]] = {  # the first is "auto"
    "binary": ("bernoulli",),
    "nominal": ("categorical",),
    "ordinal": ("logistic", "categorical", "gaussian"),
    "real": ("gaussian",),
}


class Observation(nn.Module, ABC):
    """p(target | outputs), entry by entry.

    Attributes:
        outputs_each: number of network outputs per entry.
        is_noisy: whether targets are random (dequantised).
    """

    outputs_each: int
    is_noisy = False

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event

    @abstractmethod
    def target(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Raw data (of any shape if discrete) → the target that `log_prob` scores, of the same shape."""

    @abstractmethod
    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        """log p of every entry of the *raw* data behind the target: ``(…)``, ``(…, outputs_each)`` → ``(…)``."""

    def total_log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        """`log_prob` summed over the last axis of the targets."""
        return self.log_prob(target, outputs).sum(-1)

    def log_prob_table(self, target: Tensor, outputs: Tensor) -> Tensor:
        """`total_log_prob` of every target under every output: ``(B, D)``, ``(S, …)`` of S examples → ``(S, B)``."""
        return self.total_log_prob(target, outputs.unsqueeze(1).expand(-1, len(target), *outputs.shape[1:]))

    @abstractmethod
    def typical(self, outputs: Tensor) -> Tensor:
        """The most typical target."""

    @abstractmethod
    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        """One draw of the target."""

    def draw_at(self, site: int, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        """One draw of the target of entry ``site`` from its outputs: ``(B, P)`` → ``(B,)``."""
        return self.draw(outputs, generator, temperature=temperature)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of outputs of each entry."""
        return (self.outputs_each,) * self.event.dims

    @abstractmethod
    def marginal(self, cells: Tensor) -> Tensor:
        """Outputs that fit each column of raw data separately: ``(N, M)`` → ``(M, outputs_each)``."""

    @abstractmethod
    def raw(self, target: Tensor) -> Tensor:
        """Targets ``(B, D)`` → raw data ``(B, *event.shape)`` of ``event.dtype``."""

    def prepare(self, x: Tensor, generator: Generator) -> None:
        """Statistics of the data that `target` uses."""


class Discrete(Observation):
    """Observations of level numbers."""

    like: Tensor

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        support = event.uniform
        assert support is not None
        assert support.is_discrete
        self.support, self.levels = support, support.levels
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def target(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        return levels_of(x, self.support, dist.at_least_float32(self.like))

    def raw(self, target: Tensor) -> Tensor:
        return (target.long().view(-1, *self.event.shape) + self.support.low).to(self.event.dtype)

    def conditional(self, site: int, outputs: Tensor) -> Conditional:
        """The distribution of the level of one entry from its outputs ``(B, outputs_each)``."""
        return self.log_masses(outputs)

    def units(self, site: int) -> tuple[Tensor, Tensor]:
        """Centre and spread of the units of one entry, ``()`` each."""
        return torch.zeros_like(self.like), torch.ones_like(self.like)

    def near(self, site: int, value: Tensor) -> Tensor:
        """The targets of levels ``(B,)`` of one entry."""
        return value.long()

    def log_masses(self, outputs: Tensor) -> Tensor:
        """log p of every level: ``(…, outputs_each)`` → ``(…, levels)``; for entropy coding."""
        levels = torch.arange(self.levels, dtype=dist.at_least_float32(outputs).dtype, device=outputs.device)
        return self.log_prob(
            levels.expand(*outputs.shape[:-1], -1), outputs.unsqueeze(-2).expand(*outputs.shape[:-1], self.levels, -1)
        )

    def log_prob_table(self, target: Tensor, outputs: Tensor) -> Tensor:
        """With few levels a matrix product of log-masses and one-hot targets."""
        if self.levels > len(target):
            return super().log_prob_table(target, outputs)
        log_masses = self.log_masses(outputs).flatten(1)
        seen = one_hot(target.long(), self.levels).to(log_masses.dtype).flatten(1)
        with torch.autocast(log_masses.device.type, enabled=False):  # a sum of log-probabilities
            return log_masses @ seen.T


class Bernoulli(Discrete):
    """p(1) = σ(output)."""

    outputs_each = 1

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        logits = outputs.squeeze(-1)
        return dist.bernoulli_log_prob(target.expand(logits.shape), logits)

    def total_log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        logits = dist.at_least_float32(outputs.squeeze(-1))
        # Two sums instead of one of Bernoulli terms: log p = Σ x l − Σ log(1 + e^l).
        return (target * logits).sum(-1) - softplus(logits).sum(-1)

    def log_prob_table(self, target: Tensor, outputs: Tensor) -> Tensor:
        logits = dist.at_least_float32(outputs.squeeze(-1))
        with torch.autocast(logits.device.type, enabled=False):  # a sum of log-probabilities
            return logits @ target.to(logits.dtype).T - softplus(logits).sum(-1, keepdim=True)

    def typical(self, outputs: Tensor) -> Tensor:
        return (outputs.squeeze(-1) > 0).long()

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        return dist.sample_bernoulli(outputs.squeeze(-1), generator=generator, temperature=temperature)

    def marginal(self, cells: Tensor) -> Tensor:
        return self.target(cells).float().mean(0).clamp(1e-3, 1 - 1e-3).logit().unsqueeze(-1)


class Categorical(Discrete):
    """p(v) = softmax(outputs)_v."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.outputs_each = self.levels

    def target(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        return x.long() - self.support.low

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        return dist.categorical_log_prob(target.expand(outputs.shape[:-1]), outputs)

    def typical(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        return dist.sample_categorical(outputs, generator=generator, temperature=temperature)

    def marginal(self, cells: Tensor) -> Tensor:
        counts = count_levels(self.target(cells), self.levels).to(self.like.dtype) + 1
        return (counts / counts.sum(1, keepdim=True)).log()

    def log_masses(self, outputs: Tensor) -> Tensor:
        return dist.at_least_float32(outputs).log_softmax(-1)


class SymbolsWithEnd(Categorical):
    """A softmax over the levels and a symbol for the end of an example, which is level ``end``."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.end = self.levels
        self.levels = self.outputs_each = self.end + 1

    def raw(self, target: Tensor) -> Tensor:
        """The end, and what follows it, is the lowest level in raw data."""
        return super().raw(torch.where(target == self.end, 0, target))


class Logistic(Discrete):
    """A logistic (mean, log-scale) rounded to the levels, with range [−1, 1]; see `discretized_logistic_log_prob`."""

    outputs_each = 2

    def _mean_and_log_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = dist.at_least_float32(outputs).unbind(-1)
        return mean, log_scale.clamp(min=LOWEST_LOG_SCALE)

    def _level(self, v: Tensor) -> Tensor:
        return ((v + 1) * (self.levels / 2)).floor().clamp(0, self.levels - 1)

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(outputs)
        return dist.discretized_logistic_log_prob(target, mean, log_scale, self.levels)

    def typical(self, outputs: Tensor) -> Tensor:
        return self._level(self._mean_and_log_scale(outputs)[0])

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(outputs)
        noise = random.uniform(mean.shape, generator, like=mean)
        return self._level(mean + temperature * log_scale.exp() * noise.logit())

    def marginal(self, cells: Tensor) -> Tensor:
        v = (2 * self.target(cells).float() + 1) / self.levels - 1
        # The standard deviation of a logistic is π/√3 scales; a constant column gets that of half a bin.
        log_scale = (v.std(0, correction=0).clamp(min=1 / self.levels) * math.sqrt(3) / math.pi).log()
        return torch.stack([v.mean(0), log_scale], -1)


class Continuous(Observation):
    """Observations of y of the front; `log_prob` includes the Jacobian of the map from raw data to y.

    The target is dequantised raw data; outputs refer to y.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.front = ContinuousFront(event)
        self.is_noisy = not event.is_real

    def target(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        return self.front.dequantize(x, generator=generator).flatten(1)

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        noisy = target.reshape(-1, *self.event.shape)
        y, derivatives = self.front(noisy)[0].view(target.shape), self.front.log_derivatives(noisy).view(target.shape)
        return self.density(y, outputs) + derivatives

    def total_log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        y, log_det = self.front(target.reshape(-1, *self.event.shape))
        return self.density(y.view(target.shape), outputs).sum(-1) + log_det.view(target.shape[:-1])

    @abstractmethod
    def density(self, y: Tensor, outputs: Tensor) -> Tensor:
        """Log-density of every y: ``(…)``, ``(…, outputs_each)`` → ``(…)``."""

    def raw(self, target: Tensor) -> Tensor:
        return self.front.to_support(self.front.invert(target.view(-1, *self.event.shape)))

    def prepare(self, x: Tensor, generator: Generator) -> None:
        self.front.prepare(x, generator=generator)


class Deviations(nn.Module):
    """log σ of each column. The parameter is a tenth of it, so that steps of Adam change σ ten times as fast.

    At the rate of the weights of a network, σ would take thousands of steps to reach the error of the means.
    """

    earlier_state: ClassVar[dict[str, tuple[str, float]]] = {"log_std": ("tenth", 1 / _RATE)}

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.tenth = nn.Parameter(torch.zeros(columns))

    def forward(self) -> Tensor:
        """log σ, at least `LOWEST_LOG_SCALE`: ``(columns,)``."""
        return (_RATE * dist.at_least_float32(self.tenth)).clamp(min=LOWEST_LOG_SCALE)


class Gaussian(Continuous):
    """y_d ~ N(output, σ_d²), with one learned σ per dimension. Draws and typical values are in y."""

    outputs_each = 1

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.deviations = Deviations(event.dims)

    def density(self, y: Tensor, outputs: Tensor) -> Tensor:
        mean = dist.at_least_float32(outputs.squeeze(-1))
        return dist.gaussian_log_prob(y, mean, self.deviations())

    def typical(self, outputs: Tensor) -> Tensor:
        return outputs.squeeze(-1)

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        mean = dist.at_least_float32(outputs.squeeze(-1))
        noise = random.normal(mean.shape, generator, like=mean)
        return mean + temperature * self.deviations().exp() * noise

    def marginal(self, cells: Tensor) -> Tensor:
        return self.deviations().new_zeros(cells.shape[1], 1)  # y is standardised


class GaussianMixture(Continuous):
    """y ~ Σ_k π_k N(µ_k, σ_k²) with (logits, means, log-deviations) of every component as outputs."""

    def __init__(self, event: Event, components: int) -> None:
        super().__init__(event)
        self.components, self.outputs_each = components, 3 * components

    def density(self, y: Tensor, outputs: Tensor) -> Tensor:
        return dist.gaussian_mixture_log_prob(y, *mixture_parts(outputs))

    def typical(self, outputs: Tensor) -> Tensor:
        logits, mean, _ = outputs.chunk(3, -1)
        return mean.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        return dist.sample_gaussian_mixture(*mixture_parts(outputs), generator=generator, temperature=temperature)

    def marginal(self, cells: Tensor) -> Tensor:
        return self.front.mean.new_zeros(cells.shape[1], self.outputs_each)

    def conditional(self, site: int, outputs: Tensor) -> Conditional:
        """The distribution of one real entry from its outputs ``(B, outputs_each)``."""
        logits, mean, log_std = mixture_parts(outputs)
        return GaussianIntervals(logits, mean, log_std, *self.units(site))

    def units(self, site: int) -> tuple[Tensor, Tensor]:
        """Centre and spread of the units of one entry, ``()`` each."""
        return self.front.units(site)

    def near(self, site: int, value: Tensor) -> Tensor:
        """y of raw values ``(B,)`` of one real entry, at most `FURTHEST` from 0."""
        centre, spread = self.units(site)
        return ((value - centre) / spread).clamp(-FURTHEST, FURTHEST)


def mixture_parts(outputs: Tensor, lowest: float = LOWEST_LOG_SCALE) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, means and log-deviations or log-scales of mixtures: ``(…, 3 K)`` → ``(…, K)`` each.

    They have a minimum width, so that the square of a far value divided by it is finite.
    """
    logits, mean, log_scale = dist.at_least_float32(outputs).chunk(3, -1)
    return logits, mean, log_scale.clamp(min=lowest)


def observation_for(event: Event, name: str = "auto", *, owner: str) -> Observation:
    """The observation model ``name`` of an event with one support; ``auto`` depends on it.

    Raises:
        InputError: it does not fit the event; the message names ``owner``.
    """
    assert event.uniform is not None
    known = _BY_SUPPORT[event.uniform.kind]
    if name not in ("auto", *known):
        raise InputError(f"{owner}={name!r} does not fit {event}; expected {' or '.join(map(repr, known))}")
    kinds: dict[str, Callable[[Event], Observation]] = {
        "bernoulli": Bernoulli,
        "categorical": Categorical,
        "logistic": Logistic,
        "gaussian": Gaussian,
    }
    return kinds[known[0] if name == "auto" else name](event)


def symbols_for(event: Event) -> Discrete:
    """Bernoulli for two levels, a softmax for more: the observation of discrete autoregressive models."""
    assert event.uniform is not None
    return Bernoulli(event) if event.uniform.levels == 2 else Categorical(event)


def count_levels(level: Tensor, levels: int) -> Tensor:
    """Counts of each level in each column: ``(N, M)`` int64 → ``(M, levels)`` int64."""
    columns = level.shape[1]
    offset = levels * torch.arange(columns, device=level.device)
    return (level.long() + offset).flatten().bincount(minlength=columns * levels).view(columns, levels)
