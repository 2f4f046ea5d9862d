"""Distributions of an entry on the line, by the log-masses of intervals: mixtures of Gaussians and of logistics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from unsup.core.model import Conditional, Intervals, Located
from unsup.prob.distributions import logistic_interval_log_prob
from unsup.prob.gaussians import gaussian_interval_log_prob, mixture_mode

_BLOCK = 2**22  # masses of components at a time


class MixedIntervals(Intervals):
    """Abstract: Σ_k w_k p_k of (value − centre) / spread.

    Args:
        log_weights, means, log_scales: of the components, ``(n, K)`` or ``(K,)``.
        centre, spread: of the units, ``()``.
    """

    def __init__(self, log_weights: Tensor, means: Tensor, log_scales: Tensor, centre: Tensor, spread: Tensor) -> None:
        self.log_weights = log_weights.double().log_softmax(-1).unsqueeze(-2)
        self.means, self.log_scales = means.double().unsqueeze(-2), log_scales.double().unsqueeze(-2)
        self.centre, self.spread = centre.double(), spread.double()

    def log_masses(self, edges: Tensor) -> Tensor:
        rows = max(1, _BLOCK // max(1, edges[0].numel() * self.log_weights.shape[-1])) if len(edges) else 1
        parts = [
            torch.logsumexp(self._rows(self.log_weights, part) + self._log_each(edges[part], part), -1)
            for part in (slice(start, start + rows) for start in range(0, max(1, len(edges)), rows))
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def log_each(self, edges: Tensor) -> Tensor:
        """log P of each interval in each component: ``(n, m + 1)`` → ``(n, m, K)``."""
        return self._log_each(edges, slice(None))

    def _log_each(self, edges: Tensor, rows: slice) -> Tensor:
        units, widths = (edges - self.centre) / self.spread, edges.diff() / self.spread
        means, log_scales = (self._rows(own, rows) for own in (self.means, self.log_scales))
        found = self.components(units.unsqueeze(-1), widths.unsqueeze(-1), means, log_scales)
        # An interval between two infinite ends has no mass.
        return found.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)

    @staticmethod
    def _rows(own: Tensor, rows: slice) -> Tensor:
        """Parameters of some examples; those of all examples are shared."""
        return own[rows] if own.ndim == 3 and len(own) > 1 else own

    @staticmethod
    @abstractmethod
    def components(edges: Tensor, widths: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        """`log_each` in units: edges ``(n, m + 1, 1)`` and widths ``(n, m, 1)``."""


class GaussianIntervals(MixedIntervals, Located):
    """A mixture of Gaussians."""

    @staticmethod
    def components(edges: Tensor, widths: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        return gaussian_interval_log_prob(edges, widths, means, log_scales)

    def mean(self) -> Tensor:
        return self.centre + self.spread * (self.log_weights.exp() * self.means).sum(-1).squeeze(-1)

    def mode(self) -> Tensor:
        shape = torch.broadcast_shapes(self.log_weights.shape, self.means.shape, self.log_scales.shape)
        parts = (part.expand(shape).squeeze(-2) for part in (self.log_weights, self.means, self.log_scales))
        return self.centre + self.spread * mixture_mode(*parts)


class LogisticIntervals(MixedIntervals):
    """A mixture of logistics."""

    @staticmethod
    def components(edges: Tensor, widths: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        return logistic_interval_log_prob(edges, widths, means, log_scales)


class JoinedIntervals(Intervals):
    """Σ_m w_m p_m of several distributions.

    Args:
        parts: M distributions.
        log_weights: of each, ``(n, M)``.
    """

    def __init__(self, parts: Sequence[Intervals], log_weights: Tensor) -> None:
        self.parts, self.log_weights = parts, log_weights

    def log_masses(self, edges: Tensor) -> Tensor:
        each = torch.stack([part.log_masses(edges) for part in self.parts], -1)
        return torch.logsumexp(self.log_weights.unsqueeze(1) + each, -1)


def joined(parts: Sequence[Conditional], log_weights: Tensor) -> Conditional:
    """The mixture of conditionals of one kind, by weights that sum to one: ``(n, M)``."""
    if len(parts) == 1:
        return parts[0]
    lines = [part for part in parts if isinstance(part, Intervals)]
    if lines:
        return JoinedIntervals(lines, log_weights)
    each = torch.stack([part.double() for part in parts if isinstance(part, Tensor)], -1)
    return torch.logsumexp(log_weights.unsqueeze(1) + each, -1)


def log_chosen(conditional: Conditional, value: Tensor, levels: int, nearby: Tensor) -> Tensor:
    """log p of what an entry is, 0 where it is missing: ``(n,)`` → ``(n,)``.

    Args:
        levels: of a discrete entry; 0: log P of a real one within ``nearby`` of the value, log p up to a constant.
    """
    gaps = value.isnan()
    value = value.masked_fill(gaps, 0.0)
    if isinstance(conditional, Tensor):
        found = conditional.gather(1, value.long()[:, None])
    else:
        edges = cells(value, levels) if levels else torch.stack([value - nearby, value + nearby], 1)
        found = conditional.log_masses(edges)
    return found.squeeze(1).double().masked_fill(gaps, 0.0)


def cells(value: Tensor, levels: int) -> Tensor:
    """The ends of the cells of levels ``(n,)`` on the line, ``(n, 2)``; the first and the last level have the tails."""
    low = (value - 0.5).masked_fill(value < 0.5, -torch.inf)
    return torch.stack([low, (value + 0.5).masked_fill(value > levels - 1.5, torch.inf)], 1)
