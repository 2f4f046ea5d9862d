"""Observation models of tables: every column has outputs of its own kind, a head.

| column | head | outputs |
| --- | --- | --- |
| two levels | Bernoulli | 1 |
| categories, or at most 16 whole numbers | softmax | one per level |
| more whole numbers | (mixture of) logistics rounded to the levels | 2, or 3 per component |
| real | Gaussian, or mixture of Gaussians | 1, or 3 per component |

Up to 16 levels a softmax has about as many outputs as a mixture of five components, and represents any distribution;
with more levels neighbouring numbers should share what is learned. Discrete columns thus have probabilities, and real
columns densities; none is dequantised. A missing entry contributes nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import accumulate
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid, pad, softplus

from unsup.core import random
from unsup.core.event import Event, Support
from unsup.core.model import Conditional
from unsup.nn.columns import Columns, observed_moments
from unsup.nn.intervals import GaussianIntervals, LogisticIntervals
from unsup.nn.observation import LOWEST_LOG_SCALE, Deviations, Observation, count_levels, mixture_parts
from unsup.prob import distributions as dist

MOST_SYMBOLS = 16
"""Whole numbers of at most this many levels are symbols of a softmax."""


class Head(nn.Module, ABC):
    """Distributions of some columns that have outputs of the same kind, in the units of `Columns`.

    Attributes:
        each: number of outputs of a column.
    """

    each: int

    @abstractmethod
    def log_prob(self, units: Tensor, outputs: Tensor) -> Tensor:
        """log p of every entry, none missing: ``(…, n)``, ``(…, n, each)`` → ``(…, n)``."""

    @abstractmethod
    def typical(self, outputs: Tensor) -> Tensor:
        """The most typical value of each column: ``(…, n, each)`` → ``(…, n)``."""

    @abstractmethod
    def draw(self, outputs: Tensor, columns: slice, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        """One draw of each of these columns: ``(…, n, each)`` → ``(…, n)``."""

    @abstractmethod
    def conditional(self, outputs: Tensor, place: int, units: tuple[Tensor, Tensor]) -> Conditional:
        """The distribution of column ``place`` of the head from its outputs ``(B, each)``.

        Args:
            units: centre and spread of a real column.
        """

    @abstractmethod
    def marginal(self, units: Tensor) -> Tensor:
        """Outputs that fit each column of training data, with missing entries: ``(N, n)`` → ``(n, each)``."""

    def prepare(self, units: Tensor) -> None:
        """Statistics of training data that the outputs refer to."""


class DiscreteHead(Head):
    """Distributions of discrete columns."""

    @abstractmethod
    def log_masses(self, outputs: Tensor, columns: list[int], levels: int) -> Tensor:
        """log p of all levels of these columns, which have ``levels`` each: ``(N, n, each)`` → ``(N, n, levels)``."""


class Bits(DiscreteHead):
    """p(1) = σ(output)."""

    each = 1

    def log_masses(self, outputs: Tensor, columns: list[int], levels: int) -> Tensor:
        logits = dist.at_least_float32(outputs)
        return torch.cat([-softplus(logits), -softplus(-logits)], -1)

    def log_prob(self, units: Tensor, outputs: Tensor) -> Tensor:
        logits = outputs.squeeze(-1)
        return dist.bernoulli_log_prob(units.expand(logits.shape), logits)

    def typical(self, outputs: Tensor) -> Tensor:
        return dist.at_least_float32((outputs.squeeze(-1) > 0).to(outputs.dtype))

    def draw(self, outputs: Tensor, columns: slice, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        found = dist.sample_bernoulli(outputs.squeeze(-1), generator=generator, temperature=temperature)
        return found.to(dist.at_least_float32(outputs).dtype)

    def conditional(self, outputs: Tensor, place: int, units: tuple[Tensor, Tensor]) -> Conditional:
        return logsigmoid(torch.cat([-outputs, outputs], 1))

    def marginal(self, units: Tensor) -> Tensor:
        return units.nanmean(0).nan_to_num(0.5).clamp(1e-3, 1 - 1e-3).logit().unsqueeze(-1)


class Symbols(DiscreteHead):
    """p(v) = softmax(outputs)_v."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.each = levels

    def log_masses(self, outputs: Tensor, columns: list[int], levels: int) -> Tensor:
        return dist.at_least_float32(outputs).log_softmax(-1)

    def log_prob(self, units: Tensor, outputs: Tensor) -> Tensor:
        return dist.categorical_log_prob(units.expand(outputs.shape[:-1]), outputs)

    def typical(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1).to(dist.at_least_float32(outputs).dtype)

    def draw(self, outputs: Tensor, columns: slice, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        found = dist.sample_categorical(outputs, generator=generator, temperature=temperature)
        return found.to(dist.at_least_float32(outputs).dtype)

    def conditional(self, outputs: Tensor, place: int, units: tuple[Tensor, Tensor]) -> Conditional:
        return outputs.log_softmax(1)

    def marginal(self, units: Tensor) -> Tensor:
        # A missing entry is counted as an additional level, which is then dropped.
        counts = count_levels(units.nan_to_num(self.each), self.each + 1)[:, :-1].to(units.dtype) + 1
        return (counts / counts.sum(1, keepdim=True)).log()


class WholeNumbers(DiscreteHead):
    """Mixtures of logistics rounded to the levels; the first and last level include the tails, so that masses sum to 1.

    Outputs refer to standardised levels, so that they fit columns of few large numbers and many small ones.
    """

    levels: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, levels: list[int], components: int) -> None:
        super().__init__()
        self.components, self.each = components, 2 if components == 1 else 3 * components
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("centre", torch.tensor([k / 2 for k in levels]))
        self.register_buffer("spread", torch.tensor([k / 4 for k in levels]))

    def prepare(self, units: Tensor) -> None:
        mean, std = observed_moments(units + 0.5)
        self.centre.copy_(mean)
        self.spread.copy_(std)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log-scales of the components: ``(…, n, each)`` → ``(…, n, components)`` each."""
        outputs = dist.at_least_float32(outputs)
        if self.components == 1:
            mean, log_scale = outputs.chunk(2, -1)
            return torch.zeros_like(mean), mean, log_scale.clamp(min=LOWEST_LOG_SCALE)
        return mixture_parts(outputs)

    def log_prob(self, units: Tensor, outputs: Tensor) -> Tensor:
        return self._log_prob(units, outputs, self.levels, self.centre, self.spread)

    def _log_prob(self, units: Tensor, outputs: Tensor, levels: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        logits, mean, log_scale = self._parts(outputs)
        lower = ((units - centre) / spread).unsqueeze(-1)
        first, last = (units < 0.5).unsqueeze(-1), (units > levels - 1.5).unsqueeze(-1)
        each = dist.logistic_cell_log_prob(lower, (1 / spread).unsqueeze(-1), mean, log_scale, first, last)
        return torch.logsumexp(logits.log_softmax(-1) + each, -1)

    def log_masses(self, outputs: Tensor, columns: list[int], levels: int) -> Tensor:
        every = torch.arange(levels, dtype=dist.at_least_float32(outputs).dtype, device=outputs.device)
        own = (self.levels[columns, None], self.centre[columns, None], self.spread[columns, None])
        return self._log_prob(every, outputs.unsqueeze(-2), *own)

    def _level(self, v: Tensor, columns: slice) -> Tensor:
        level = (v * self.spread[columns] + self.centre[columns]).floor()
        return torch.minimum(level.clamp(min=0), self.levels[columns] - 1)

    def typical(self, outputs: Tensor) -> Tensor:
        logits, mean, _ = self._parts(outputs)
        return self._level(mean.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1), slice(None))

    def draw(self, outputs: Tensor, columns: slice, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        logits, mean, log_scale = self._parts(outputs)
        if self.components > 1:
            chosen = dist.sample_categorical(logits, generator=generator, temperature=temperature).unsqueeze(-1)
            mean, log_scale = mean.gather(-1, chosen), log_scale.gather(-1, chosen)
        mean, log_scale = mean.squeeze(-1), log_scale.squeeze(-1)
        noise = random.uniform(mean.shape, generator, like=mean)
        return self._level(mean + temperature * log_scale.exp() * noise.logit(), columns)

    def conditional(self, outputs: Tensor, place: int, units: tuple[Tensor, Tensor]) -> Conditional:
        # Level v is the cell from v to v + 1 here, and from v − ½ to v + ½ there.
        return LogisticIntervals(*self._parts(outputs), self.centre[place] - 0.5, self.spread[place])

    def marginal(self, units: Tensor) -> Tensor:
        # The standard deviation of a logistic is π/√3 scales.
        return _spread_out(((units + 0.5) - self.centre) / self.spread, self.components, math.sqrt(3) / math.pi)


class Reals(Head):
    """Mixtures of Gaussians with (logits, means, log-deviations) as outputs."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.components, self.each = components, 3 * components

    def log_prob(self, units: Tensor, outputs: Tensor) -> Tensor:
        return dist.gaussian_mixture_log_prob(units, *mixture_parts(outputs))

    def typical(self, outputs: Tensor) -> Tensor:
        logits, mean, _ = mixture_parts(outputs)
        return mean.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)

    def draw(self, outputs: Tensor, columns: slice, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        return dist.sample_gaussian_mixture(*mixture_parts(outputs), generator=generator, temperature=temperature)

    def conditional(self, outputs: Tensor, place: int, units: tuple[Tensor, Tensor]) -> Conditional:
        return GaussianIntervals(*mixture_parts(outputs), *units)

    def marginal(self, units: Tensor) -> Tensor:
        return _spread_out(units, self.components, 1.0)


class SingleReals(Head):
    """N(output, σ_d²), with one learned deviation per column."""

    each = 1

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.deviations = Deviations(columns)

    def log_prob(self, units: Tensor, outputs: Tensor) -> Tensor:
        return dist.gaussian_log_prob(units, dist.at_least_float32(outputs.squeeze(-1)), self.deviations())

    def typical(self, outputs: Tensor) -> Tensor:
        return dist.at_least_float32(outputs.squeeze(-1))

    def draw(self, outputs: Tensor, columns: slice, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        mean = dist.at_least_float32(outputs.squeeze(-1))
        noise = random.normal(mean.shape, generator, like=mean)
        return mean + temperature * self.deviations()[columns].exp() * noise

    def conditional(self, outputs: Tensor, place: int, units: tuple[Tensor, Tensor]) -> Conditional:
        log_std = self.deviations()[place : place + 1]
        return GaussianIntervals(torch.zeros_like(log_std), outputs, log_std, *units)

    def marginal(self, units: Tensor) -> Tensor:
        return units.new_zeros(units.shape[1], 1)  # units are standardised


def _spread_out(v: Tensor, components: int, scale: float) -> Tensor:
    """Outputs of mixtures with components at quantiles of each column, as wide as the kernels of a density estimate.

    The components thus differ from the start. The width in standard deviations is Scott's rule K^(−1/5), one for K = 1.

    Args:
        v: standardised training data with missing entries, ``(N, n)``.
        scale: that of a component with standard deviation 1.
    """
    places = (torch.arange(components, dtype=torch.float64) + 0.5) / components
    columns = [own[~own.isnan()] for own in v.double().T]
    means = torch.stack([own.quantile(places.to(v.device)) if len(own) else places.to(v.device) * 0 for own in columns])
    log_scale = torch.full_like(means, math.log(scale) - 0.2 * math.log(components))
    if components == 1:
        return torch.cat([v.double().nanmean(0).nan_to_num(0.0)[:, None], log_scale], 1).to(v.dtype)
    return torch.cat([torch.zeros_like(means), means, log_scale], 1).to(v.dtype)


class Heads(Observation):
    """The heads of all columns of a table; outputs of the columns lie side by side: ``(…, P)``.

    Targets are units of `Columns`.

    Args:
        event: any event; it is flattened.
        components: of each mixture. None: single Gaussians with learned deviations, and single logistics, for models
            that mix already.
    """

    def __init__(self, event: Event, components: int | None = None) -> None:
        super().__init__(event)
        self.columns = Columns(event)
        kinds: dict[tuple[str, int], list[int]] = {}
        for d, support in enumerate(event.columns):
            kinds.setdefault(_kind(support), []).append(d)
        self.groups = list(kinds.values())
        self.heads = nn.ModuleList(_head(kind, event, own, components) for kind, own in kinds.items())
        each = {d: head.each for head, own in self._owners() for d in own}
        self._sizes = tuple(each[d] for d in range(event.dims))
        self.outputs_each = max(self._sizes)
        self.home = {d: (g, j) for g, own in enumerate(self.groups) for j, d in enumerate(own)}
        starts = [end - size for size, end in zip(self._sizes, accumulate(self._sizes), strict=True)]
        for g, own in enumerate(self.groups):
            places = torch.tensor([starts[d] for d in own])[:, None] + torch.arange(each[own[0]])
            self.register_buffer(f"places{g}", places, persistent=False)
        self.register_buffer("order", torch.tensor([d for own in self.groups for d in own]).argsort(), persistent=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self._sizes

    def _owners(self) -> Iterator[tuple[Head, list[int]]]:
        """Each head with its columns."""
        return zip(cast(list[Head], list(self.heads)), self.groups, strict=True)

    def _parts(self, outputs: Tensor) -> Iterator[tuple[Head, list[int], Tensor]]:
        """Each head with its columns and their outputs ``(…, n, each)``."""
        for g, (head, own) in enumerate(self._owners()):
            yield head, own, outputs[..., self.get_buffer(f"places{g}")]

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Values of the columns of every head ``(…, n)`` → ``(…, D)``."""
        return torch.cat(parts, -1)[..., self.get_buffer("order")]

    def target(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        found: Tensor = self.columns(x.reshape(-1, *self.event.shape))
        return found

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        gaps = target.isnan() if self.event.missing else None
        units = target if gaps is None else target.masked_fill(gaps, 0.0)
        found = self._joined([head.log_prob(units[..., own], own_out) for head, own, own_out in self._parts(outputs)])
        found = found + self.columns.log_derivatives()
        return found if gaps is None else found.masked_fill(gaps, 0.0)

    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        """log p of all levels of discrete columns with the same number of levels: ``(N, P)`` → ``(N, n, levels)``."""
        wanted = columns.tolist()
        levels = self.event.columns[wanted[0]].levels
        found: dict[int, Tensor] = {}
        for g, (head, _) in enumerate(self._owners()):
            here = [d for d in wanted if self.home[d][0] == g]
            if here:
                assert isinstance(head, DiscreteHead)
                places = [self.home[d][1] for d in here]
                each = head.log_masses(outputs[:, self.get_buffer(f"places{g}")[places]], places, levels)
                found |= zip(here, each.unbind(1), strict=True)
        return torch.stack([found[d] for d in wanted], 1)

    def typical(self, outputs: Tensor) -> Tensor:
        return self._joined([head.typical(own_out) for head, _, own_out in self._parts(outputs)])

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        return self._joined(
            [
                head.draw(own_out, slice(None), generator, temperature=temperature)
                for head, _, own_out in self._parts(outputs)
            ]
        )

    def draw_at(self, site: int, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        group, place = self.home[site]
        head = cast(Head, self.heads[group])
        own = outputs[..., None, : self._sizes[site]]
        return head.draw(own, slice(place, place + 1), generator, temperature=temperature).squeeze(-1)

    def conditional(self, site: int, outputs: Tensor) -> Conditional:
        """The distribution of one column from its outputs ``(B, P)``."""
        group, place = self.home[site]
        head = cast(Head, self.heads[group])
        return head.conditional(outputs[:, : self._sizes[site]], place, self.units(site))

    def units(self, site: int) -> tuple[Tensor, Tensor]:
        """Centre and spread of a real column in raw units, 0 and 1 of a discrete one, ``()`` each."""
        return self.columns.units(site)

    def near(self, site: int, value: Tensor) -> Tensor:
        """Targets of levels or raw values ``(B,)`` of one column, real ones at most `FURTHEST` from 0."""
        return self.columns.near(site, value).to(self.columns.like.dtype)

    def padded(self, outputs: Tensor) -> Tensor:
        """The outputs of each column on an axis of their own, zeros at the end: ``(…, P)`` → ``(…, D, most)``."""
        parts = outputs.split(self._sizes, -1)
        return torch.stack([pad(part, (0, self.outputs_each - part.shape[-1])) for part in parts], -2)

    def marginal(self, cells: Tensor) -> Tensor:
        """Outputs of all columns, side by side, for each column of raw data ``(N, D)``: ``(P,)``."""
        units = self.target(cells)
        parts: dict[int, Tensor] = {}
        for head, own in self._owners():
            parts |= zip(own, head.marginal(units[:, own]), strict=True)
        return torch.cat([parts[d] for d in range(self.event.dims)])

    def raw(self, target: Tensor) -> Tensor:
        return self.columns.raw(target)

    def prepare(self, x: Tensor, generator: Generator) -> None:
        self.columns.prepare(x, generator=generator)
        units = self.target(x)
        for head, own in self._owners():
            head.prepare(units[:, own])


def _kind(support: Support) -> tuple[str, int]:
    """Columns of the same kind share a head."""
    if support.kind == "real":
        return "real", 0
    if support.levels == 2:
        return "bits", 0
    if support.kind == "nominal" or support.levels <= MOST_SYMBOLS:
        return "symbols", support.levels
    return "whole", 0


def _head(kind: tuple[str, int], event: Event, own: list[int], components: int | None) -> Head:
    name, levels = kind
    if name == "bits":
        return Bits()
    if name == "symbols":
        return Symbols(levels)
    if name == "whole":
        return WholeNumbers([event.columns[d].levels for d in own], components or 1)
    return SingleReals(len(own)) if components is None else Reals(components)
