"""Components of mixtures on discrete columns of tables: categories, and whole numbers.

Given the component k the columns are independent, so that a component needs log p(v | k) of every level v of every
column, and the E step the number of times n_kv that each level was seen. A missing entry is counted nowhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import accumulate

import torch
from torch import Generator, Tensor, nn

from unsup.core.model import Marginal
from unsup.nn.columns import observed_moments
from unsup.nn.intervals import GaussianIntervals
from unsup.prob import distributions as dist
from unsup.prob.gaussians import cell_moments, gaussian_cell_log_prob

_WIDE = 3.0
"""Standard deviations of a component that is free, at most: those of a uniform distribution over the levels."""


class Levels(nn.Module, ABC):
    """Abstract: K components on discrete columns of one kind. All levels of all columns lie side by side, S in total.

    Args:
        levels: number of levels of each column.
        components: K.
    """

    offset: Tensor

    def __init__(self, levels: list[int], components: int) -> None:
        super().__init__()
        self.levels, self.components = levels, components
        starts = [end - size for size, end in zip(levels, accumulate(levels), strict=True)]
        self.register_buffer("offset", torch.tensor(starts), persistent=False)

    @property
    @abstractmethod
    def n_free(self) -> int:
        """The number of free parameters of one component."""

    @abstractmethod
    def log_masses(self) -> Tensor:
        """log p(v | k) of every level: ``(S, K)``."""

    @abstractmethod
    def maximize(self, counts: Tensor, alive: Tensor, floor: float, prior: float) -> None:
        """The M step of the components that are ``alive``, ``(K,)``, from n_kv, ``(S, K)``.

        Args:
            floor: added to variances.
            prior: examples that the prior of a variance is worth.
        """

    @abstractmethod
    def log_prior(self, used: Tensor, prior: float) -> Tensor:
        """Log-density of the parameters of the components that are ``used``, up to a constant."""

    @abstractmethod
    def free(self, slots: Tensor) -> None:
        """Make components wide, bool ``(K,)``."""

    def prepare(self, units: Tensor) -> None:
        """Statistics of training data, ``(N, n)``."""

    def take_seeds(self, units: Tensor) -> None:
        """Called before the first M step: examples at which the first components start, ``(k, n)``."""

    def _places(self, units: Tensor) -> Tensor:
        """Row of each level among all S; a missing entry has the row S: ``(B, n)`` → ``(B, n)``."""
        gaps = units.isnan()
        return (units.masked_fill(gaps, 0.0).long() + self.offset).masked_fill(gaps, sum(self.levels))

    def log_mass_tables(self) -> tuple[Tensor, ...]:
        """log p(v | k) of the levels of each column: ``(levels, K)`` each."""
        return self.log_masses().split(self.levels)

    @abstractmethod
    def conditional(self, column: int, log_weights: Tensor) -> Marginal:
        """The mixture of the components on one column, by their weights ``(n, K)``."""

    def log_each(self, units: Tensor) -> Tensor:
        """log p(v | k) of each entry, 0 for a missing one: ``(B, n)`` → ``(B, n, K)``."""
        table = self.log_masses()
        return torch.cat([table, torch.zeros_like(table[:1])])[self._places(units)]

    def counts(self, units: Tensor, responsibility: Tensor) -> Tensor:
        """n_kv of examples: ``(B, n)``, ``(B, K)`` → ``(S, K)``."""
        found = responsibility.new_zeros(sum(self.levels) + 1, responsibility.shape[1])
        each = responsibility[:, None].expand(-1, units.shape[1], -1)
        return found.index_add_(0, self._places(units).flatten(), each.flatten(0, 1))[:-1]

    def draw(self, component: Tensor, generator: Generator | None) -> Tensor:
        """A level of each column from each component: ``(N,)`` → ``(N, n)``."""
        rows = self.log_masses().T[component]
        columns = [dist.sample_categorical(own, generator=generator) for own in rows.split(self.levels, 1)]
        return torch.stack(columns, 1)


class Categories(Levels):
    """θ_kv, any probabilities, by (n_kv + α) / Σ_v (n_kv + α): the maximum with a Dirichlet prior of 1 + α.

    With α = 1 / V for V levels, the prior is worth one example that is spread over all levels.
    """

    def __init__(self, levels: list[int], components: int) -> None:
        super().__init__(levels, components)
        self.logits = nn.Parameter(torch.randn(sum(levels), components, dtype=torch.float64))
        alpha = torch.cat([torch.full((size, 1), 1 / size, dtype=torch.float64) for size in levels])
        self.register_buffer("alpha", alpha, persistent=False)

    @property
    def n_free(self) -> int:
        return sum(self.levels) - len(self.levels)

    def log_masses(self) -> Tensor:
        return torch.cat([own.log_softmax(0) for own in self.logits.split(self.levels)])

    def conditional(self, column: int, log_weights: Tensor) -> Marginal:
        table = self.logits.split(self.levels)[column].log_softmax(0)
        return (log_weights.softmax(1) @ table.exp().T).log()

    def maximize(self, counts: Tensor, alive: Tensor, floor: float, prior: float) -> None:
        smoothed = (counts.clamp(min=0) + self.get_buffer("alpha")).split(self.levels)
        log_p = torch.cat([(own / own.sum(0)).log() for own in smoothed])
        self.logits.copy_(torch.where(alive, log_p, self.logits))

    def log_prior(self, used: Tensor, prior: float) -> Tensor:
        return (self.get_buffer("alpha") * self.log_masses()[:, used]).sum()

    def free(self, slots: Tensor) -> None:
        self.logits[:, slots] = 0.0


class RoundedGaussians(Levels):
    """Gaussians rounded down to the levels; the first and the last level include the tails.

    p(v | k) = Φ((v + 1 − µ_k) / σ_k) − Φ((v − µ_k) / σ_k). EM completes every entry by the continuous value behind it,
    whose moments given the level are those of a truncated Gaussian. Means and deviations refer to standardised levels.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, levels: list[int], components: int) -> None:
        super().__init__(levels, components)
        columns, real = len(levels), torch.float64
        self.means = nn.Parameter(torch.randn(columns, components, dtype=real))
        self.log_std = nn.Parameter(torch.zeros(columns, components, dtype=real))
        self.register_buffer("centre", torch.tensor([k / 2 for k in levels], dtype=real))
        self.register_buffer("spread", torch.tensor([k / 4 for k in levels], dtype=real))
        level = torch.cat([torch.arange(k, dtype=real) for k in levels])[:, None]
        top = torch.cat([torch.full((k, 1), k - 1) for k in levels])
        self.register_buffer("level", level, persistent=False)
        self.register_buffer("column", torch.cat([torch.full((k,), d) for d, k in enumerate(levels)]), persistent=False)
        self.register_buffer("first", level == 0, persistent=False)
        self.register_buffer("last", level == top, persistent=False)

    @property
    def n_free(self) -> int:
        return 2 * len(self.levels)

    def prepare(self, units: Tensor) -> None:
        mean, std = observed_moments(units + 0.5)
        self.centre.copy_(mean)
        self.spread.copy_(std)

    def take_seeds(self, units: Tensor) -> None:
        self.means[:, : len(units)] = ((units + 0.5 - self.centre) / self.spread).nan_to_num(0.0).T
        self.log_std[:, : len(units)] = 0.0

    def _cells(self) -> tuple[Tensor, ...]:
        """Ends of the cells, parameters, and which cells have no lower or upper end, to broadcast to ``(S, K)``."""
        column = self.get_buffer("column")
        lower = (self.get_buffer("level") - self.centre[column, None]) / self.spread[column, None]
        upper = lower + 1 / self.spread[column, None]
        ends = self.get_buffer("first"), self.get_buffer("last")
        return lower, upper, self.means[column], self.log_std[column], *ends

    def log_masses(self) -> Tensor:
        return gaussian_cell_log_prob(*self._cells())

    def conditional(self, column: int, log_weights: Tensor) -> Marginal:
        # Level v is the cell from v to v + 1 here, and from v − ½ to v + ½ there.
        units = self.centre[column] - 0.5, self.spread[column]
        return GaussianIntervals(log_weights, self.means[column], self.log_std[column], *units)

    def maximize(self, counts: Tensor, alive: Tensor, floor: float, prior: float) -> None:
        column = self.get_buffer("column")
        one, two = cell_moments(*self._cells())
        sums = [torch.zeros_like(self.means).index_add_(0, column, own) for own in (counts, counts * one, counts * two)]
        weight = sums[0]
        safe = torch.where(weight > 0, weight, 1.0)
        shift, square = sums[1] / safe, sums[2] / safe  # in deviations σ, about µ
        std = self.log_std.exp()
        variance = (weight * std.square() * (square - shift.square()) + prior) / (safe + prior) + floor
        kept = ~alive | (weight <= 0)
        self.means.copy_(torch.where(kept, self.means, self.means + std * shift))
        self.log_std.copy_(torch.where(kept, self.log_std, 0.5 * variance.log()))

    def log_prior(self, used: Tensor, prior: float) -> Tensor:
        log_std = self.log_std[:, used]
        return -0.5 * prior * (2 * log_std + (-2 * log_std).exp()).sum()

    def free(self, slots: Tensor) -> None:
        self.means[:, slots] = 0.0
        levels = torch.tensor(self.levels, dtype=self.spread.dtype, device=self.spread.device)
        width = (levels / (math.sqrt(12) * self.spread)).clamp(max=_WIDE)  # wider ones gather at the ends
        self.log_std[:, slots] = width.log()[:, None]
