"""What the states of a hidden Markov model emit at a step: symbols, or Gaussians and mixtures of them.

A *frame* is what is seen at one step: ``(N, C)`` for N steps of C entries, in the units of the emissions. Entries that
are missing are integrated out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, one_hot

from unsup.core import random
from unsup.core.event import Event
from unsup.core.model import Conditional, Marginal
from unsup.nn.columns import FURTHEST, Columns
from unsup.nn.gaussians import Gaussians
from unsup.nn.intervals import GaussianIntervals
from unsup.prob import distributions as dist
from unsup.prob.clusters import kmeans_plus_plus
from unsup.prob.gaussian_em import Structure

_CERTAIN = -690.0
"""Log-probability of a level that is impossible."""
_EMPTY = 1e-10  # steps; a state with fewer is not updated
_SEEDED = 8192  # steps from which seeds are drawn


class Emissions(nn.Module, ABC):
    """p(frame | state) of K states.

    Attributes:
        states: K.
        event: of one frame, raw.
    """

    states: int
    event: Event

    @property
    @abstractmethod
    def n_free(self) -> int:
        """The number of free parameters."""

    @abstractmethod
    def frames(self, x: Tensor) -> Tensor:
        """Units of raw steps: ``(N, C)`` → ``(N, C)``."""

    @abstractmethod
    def raw(self, frames: Tensor) -> Tensor:
        """Raw steps of type ``event.dtype``: ``(N, C)`` → ``(N, C)``."""

    @abstractmethod
    def gap(self, frames: Tensor) -> Tensor:
        """Which entries are missing, bool ``(N, C)``."""

    @abstractmethod
    def without(self, frames: Tensor, gone: Tensor) -> Tensor:
        """Frames in which some entries are missing: ``(N, C)``, bool ``(N, C)``."""

    @abstractmethod
    def log_prob(self, frames: Tensor) -> Tensor:
        """log p(frame | state), in nats of raw data: ``(N, C)`` → ``(N, K)``."""

    @abstractmethod
    def log_each(self, frames: Tensor) -> Tensor:
        """log p(entry | entries before it in the frame, state), 0 of a missing one: ``(N, C)`` → ``(N, C, K)``.

        Its cumulative sum over entries is log p of the beginnings of the frame.
        """

    @abstractmethod
    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        """Set the units from raw steps, ``(N, C)``."""

    @abstractmethod
    def start(self, frames: Tensor, generator: Generator | None) -> None:
        """Random parameters for the first pass."""

    @abstractmethod
    def sums(self, frames: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """What `maximize` needs; ``weight`` is p(state | x) of the steps, ``(N, K)``."""

    @abstractmethod
    def maximize(self, sums: Mapping[str, Tensor]) -> None:
        """The M step. A state without steps keeps its parameters."""

    @abstractmethod
    def log_prior(self) -> Tensor:
        """Log-density of the parameters, up to a constant."""

    @abstractmethod
    def draw(self, state: Tensor, generator: Generator | None) -> Tensor:
        """A frame of each state, ``(N,)`` → ``(N, C)``."""

    @abstractmethod
    def fill(self, frames: Tensor, state: Tensor, generator: Generator | None) -> Tensor:
        """Missing entries drawn given the others and the state: ``(N, C)``, ``(N,)`` → ``(N, C)``."""

    @abstractmethod
    def marginals(self, frames: Tensor, log_weights: Tensor) -> Callable[[int, Tensor], Marginal]:
        """The distributions of missing entries given the others of their frames: a function of an entry and of frames.

        Args:
            frames: ``(N, C)``.
            log_weights: log p of the states, given everything that is known, ``(N, K)``.
        """

    @abstractmethod
    def in_turn(self, n: int, gaps: Tensor | None) -> FrameInTurn:
        """The entries of the frames of ``n`` sequences at one step, one after the other.

        Args:
            gaps: which are missing, ``(n, C)``.
        """


class FrameInTurn(ABC):
    """The entries of a frame, each given those before it: first `conditional`, then `put`, for every entry."""

    @abstractmethod
    def conditional(self, entry: int, log_weights: Tensor) -> Conditional:
        """The distribution of an entry, if the states have these weights (not normalised): ``(n, K)``."""

    @abstractmethod
    def put(self, entry: int, value: Tensor) -> Tensor:
        """Take the raw value or level of an entry ``(n,)``, NaN if missing: its log p in each state, ``(n, K)``."""


class Symbols(Emissions):
    """Independent entries with a probability of every level.

    A frame has level numbers from 0, and −1 for missing entries. A prior Dirichlet(1 + α) on the probabilities adds α
    to the counts.

    Args:
        event: of one frame: entries of one support.
        states: K.
        smoothing: α.
        end: whether the end of a sequence is one more level.
    """

    def __init__(self, event: Event, states: int, smoothing: float, *, end: bool = False) -> None:
        super().__init__()
        assert event.uniform is not None
        self.event, self.states, self.smoothing = event, states, smoothing
        self.low = event.uniform.low
        self.end = event.uniform.levels if end else None
        self.levels = event.uniform.levels + end
        self.logits = nn.Parameter(torch.randn(states, event.dims, self.levels, dtype=torch.float64))

    @property
    def n_free(self) -> int:
        return self.states * self.event.dims * (self.levels - 1)

    def frames(self, x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return x.long() - self.low
        gone = x.isnan()
        return torch.where(gone, -1, x.masked_fill(gone, 0.0).long() - self.low)

    def raw(self, frames: Tensor) -> Tensor:
        """The end, and what follows it, is the lowest level in raw data."""
        found = (frames if self.end is None else torch.where(frames == self.end, 0, frames)) + self.low
        found = found.to(self.event.dtype)
        return found.masked_fill(frames < 0, math.nan) if self.event.missing else found

    def gap(self, frames: Tensor) -> Tensor:
        return frames < 0

    def without(self, frames: Tensor, gone: Tensor) -> Tensor:
        return frames.masked_fill(gone, -1)

    def log_table(self) -> Tensor:
        """log p(level | state), ``(K, C, levels)``."""
        return self.logits.log_softmax(2)

    def log_prob(self, frames: Tensor) -> Tensor:
        table, gone = self.log_table(), frames < 0
        some = bool(gone.any())
        if self.levels == 2 and frames.shape[1] > 1:
            bits = (frames == 1).to(table.dtype)
            if not some:
                return bits @ (table[:, :, 1] - table[:, :, 0]).T + table[:, :, 0].sum(1)
            return bits @ table[:, :, 1].T + (frames == 0).to(table.dtype) @ table[:, :, 0].T
        rows = table.permute(1, 2, 0).contiguous()  # (C, levels, K): looking up rows in order is faster
        found: Tensor | None = None
        for own, missing, each in zip(frames.T, gone.T, rows, strict=True):
            own = embedding(own.clamp(min=0), each).masked_fill(missing[:, None], 0.0) if some else embedding(own, each)
            found = own if found is None else found + own
        return table.new_zeros(len(frames), self.states) if found is None else found

    def log_each(self, frames: Tensor) -> Tensor:
        table, gone = self.log_table(), frames < 0
        rows = frames.clamp(min=0)
        each = [embedding(rows[:, entry], table[:, entry].T) for entry in range(frames.shape[1])]
        return torch.stack(each, 1).masked_fill(gone[:, :, None], 0.0)

    def some_symbol(self) -> Tensor:
        """log p(no end | state), ``(K,)``."""
        return self.log_table()[:, 0, : self.end].logsumexp(1)

    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        pass

    def start(self, frames: Tensor, generator: Generator | None) -> None:
        """Frequencies of all steps times exponential noise, which is a draw around them.

        Levels get their noise in the order in which they appear, so that their numbers mean nothing.
        """
        noise = random.uniform(self.logits.shape, generator, like=self.logits, axis=None)
        for entry, own in enumerate(frames.T):
            own = own[own >= 0]
            count = own.bincount(minlength=self.levels)
            place = torch.full((self.levels,), len(own), device=own.device)
            place.scatter_reduce_(0, own, torch.arange(len(own), device=own.device), "amin")
            rank = place.argsort(stable=True).argsort()
            weight = (count + self.smoothing + 1e-3) * (-torch.log1p(-noise[:, entry, rank])).clamp(min=1e-3)
            self.logits[:, entry] = weight.log().log_softmax(1)

    def sums(self, frames: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """``levels``: how often a state emits each level, ``(K, C, levels)``."""
        if self.levels == 2 and frames.shape[1] > 1:
            both = [weight.T @ (frames == level).to(weight.dtype) for level in (0, 1)]
            return {"levels": torch.stack(both, 2)}
        found = weight.new_zeros(frames.shape[1], self.levels + 1, self.states)  # the last one is for gaps
        for own, counts in zip(frames.T, found, strict=True):
            counts.index_add_(0, torch.where(own < 0, self.levels, own), weight)
        return {"levels": found[:, :-1].permute(2, 0, 1).contiguous()}

    def maximize(self, sums: Mapping[str, Tensor]) -> None:
        counts = sums["levels"].clamp(min=0) + self.smoothing
        total = counts.sum(2, keepdim=True)
        found = (counts / total.clamp(min=_EMPTY)).log().clamp(min=_CERTAIN)
        self.logits.copy_(torch.where(total > _EMPTY, found, self.logits))

    def log_prior(self) -> Tensor:
        """α Σ log p(level | state)."""
        return self.smoothing * self.log_table().sum()

    def draw(self, state: Tensor, generator: Generator | None) -> Tensor:
        return dist.sample_categorical(self.log_table()[state], generator=generator)

    def fill(self, frames: Tensor, state: Tensor, generator: Generator | None) -> Tensor:
        drawn = dist.sample_categorical(self.log_table()[state], generator=generator)
        return torch.where(frames < 0, drawn, frames)

    def fill_before_end(self, frames: Tensor, state: Tensor, open_: Tensor, generator: Generator | None) -> Tensor:
        """`fill`, but only where ``open_`` is true (bool ``(N,)``) a step may be the end."""
        table = self.log_table()[state]
        table[:, :, -1].masked_fill_(~open_[:, None], -math.inf)
        return torch.where(frames < 0, dist.sample_categorical(table, generator=generator), frames)

    def marginals(self, frames: Tensor, log_weights: Tensor) -> Callable[[int, Tensor], Marginal]:
        weights, masses = log_weights.softmax(1), self.log_table().exp()
        return lambda entry, rows: (weights[rows] @ masses[:, entry]).log()

    def in_turn(self, n: int, gaps: Tensor | None) -> FrameInTurn:
        return _SymbolsInTurn(self.log_table())


class _SymbolsInTurn(FrameInTurn):
    def __init__(self, table: Tensor) -> None:
        self.table = table

    def conditional(self, entry: int, log_weights: Tensor) -> Conditional:
        return (log_weights.softmax(1) @ self.table[:, entry].exp()).log()

    def put(self, entry: int, value: Tensor) -> Tensor:
        each = self.table[:, entry].T[value.nan_to_num(0.0).long()]
        return each.masked_fill(value.isnan()[:, None], 0.0)


class MixedGaussians(Emissions):
    """A mixture of J Gaussians for every state.

    A frame has standardised numbers, and NaN for missing entries. A prior on every covariance, of ``prior`` steps with
    the spread of the data, keeps it from collapsing: Σ = (N S + w I) / (N + w).

    Args:
        event: of one frame: real entries.
        states: K.
        components: J.
        structure: of the covariances.
        prior: w.
    """

    def __init__(self, event: Event, states: int, components: int, structure: Structure, prior: float) -> None:
        super().__init__()
        self.event, self.states, self.components, self.prior = event, states, components, prior
        self.columns = Columns(event).double()
        self.logits = nn.Parameter(torch.zeros(states, components, dtype=torch.float64))
        self.logits.requires_grad_(components > 1)
        self.gaussians = Gaussians(states * components, event.dims, (structure,), chooses=False)

    @property
    def n_free(self) -> int:
        return self.states * (self.components - 1) + sum(p.numel() for p in self.gaussians.parameters())

    @property
    def used(self) -> Tensor:
        """Which Gaussians are in use: all, bool ``(K J,)``."""
        return torch.ones(self.states * self.components, dtype=torch.bool, device=self.logits.device)

    @property
    def _spread(self) -> Tensor:
        return torch.ones(self.event.dims, dtype=torch.float64, device=self.logits.device)

    def frames(self, x: Tensor) -> Tensor:
        found: Tensor = self.columns(x)
        return found

    def raw(self, frames: Tensor) -> Tensor:
        return self.columns.raw(frames)

    def gap(self, frames: Tensor) -> Tensor:
        return frames.isnan()

    def without(self, frames: Tensor, gone: Tensor) -> Tensor:
        return frames.masked_fill(gone, math.nan)

    def _log_joint(self, frames: Tensor) -> Tensor:
        """log of the weight and the density of every Gaussian, ``(N, K, J)``, in units."""
        each = self.gaussians.log_prob(frames, self.used, self.used).view(-1, self.states, self.components)
        return each if self.components == 1 else each + self.logits.log_softmax(1)

    def log_prob(self, frames: Tensor) -> Tensor:
        derivatives = self.columns.log_derivatives()
        own = (~frames.isnan()).to(frames.dtype) @ derivatives
        joint = self._log_joint(frames)
        return (joint.squeeze(2) if self.components == 1 else joint.logsumexp(2)) + own[:, None]

    def log_each(self, frames: Tensor) -> Tensor:
        each, gone = [], frames.isnan()
        turn = _GaussiansInTurn(self, len(frames), gone if bool(gone.any()) else None)
        for entry, own in enumerate(frames.T):
            each.append(turn.put_units(entry, own))
        return torch.stack(each, 1) if each else frames.new_zeros(*frames.shape, self.states)

    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        if len(x):
            self.columns.prepare(x, generator=generator)

    def start(self, frames: Tensor, generator: Generator | None) -> None:
        """Seeds of k-means++, each with the steps nearest to it."""
        order = random.uniform((len(frames),), generator, like=frames, axis=None).argsort()
        y = frames[order[:_SEEDED]]
        count = self.states * self.components
        if len(y) < count:
            more = random.normal((count - len(y), y.shape[1]), generator, like=frames, axis=None)
            y = torch.cat([y, more])
        seeds, nearest = kmeans_plus_plus(y.nan_to_num(0.0), count, generator=generator)
        self.gaussians.means.copy_(y[seeds].nan_to_num(0.0))
        self.gaussians.log_diagonal.zero_()
        if self.gaussians.above is not None:
            self.gaussians.above.zero_()
        weight = one_hot(nearest, count).to(y.dtype)
        self._maximize(self._sums(y, weight))

    def sums(self, frames: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """``gaussians``: the weight of each Gaussian, ``(K J,)``; and its moments."""
        if self.components > 1:
            weight = (weight[:, :, None] * self._log_joint(frames).softmax(2)).flatten(1)
        return self._sums(frames, weight)

    def _sums(self, frames: Tensor, weight: Tensor) -> dict[str, Tensor]:
        # Moments of the second order are sums about the current means, which all parts share.
        return {"gaussians": weight.sum(0), **self.gaussians.moments(frames, weight, None, self.used)}

    def maximize(self, sums: Mapping[str, Tensor]) -> None:
        self._maximize(sums)

    def _maximize(self, sums: Mapping[str, Tensor]) -> None:
        weight = sums["gaussians"]
        alive = weight > _EMPTY
        if self.components > 1:
            each = weight.view(self.states, self.components).clamp(min=0)
            total = each.sum(1, keepdim=True)
            found = (each / total.clamp(min=_EMPTY)).log().clamp(min=_CERTAIN)
            self.logits.copy_(torch.where(total > _EMPTY, found, self.logits))
        self.gaussians.maximize(
            {**sums, "weight": weight, "count": weight.sum()}, alive, floor=0.0, spread=self._spread, prior=self.prior
        )

    def log_prior(self) -> Tensor:
        return self.gaussians.log_prior(self.used, self._spread, self.prior)

    def draw(self, state: Tensor, generator: Generator | None) -> Tensor:
        component = dist.sample_categorical(self.logits[state], generator=generator)
        return self.gaussians.draw(state * self.components + component, self.used, generator)

    def fill(self, frames: Tensor, state: Tensor, generator: Generator | None) -> Tensor:
        chosen = self._log_joint(frames)[torch.arange(len(frames), device=state.device), state]
        component = dist.sample_categorical(chosen, generator=generator)
        return self.gaussians.fill(frames, state * self.components + component, self.used, generator)

    def marginals(self, frames: Tensor, log_weights: Tensor) -> Callable[[int, Tensor], Marginal]:
        both = (self._log_joint(frames).log_softmax(2) + log_weights[:, :, None]).flatten(1)
        means, log_std = self.gaussians.given(frames, self.used)

        def of(entry: int, rows: Tensor) -> Marginal:
            units = self.columns.units(entry)
            return GaussianIntervals(both[rows], means[rows, :, entry], log_std[rows, :, entry], *units)

        return of

    def in_turn(self, n: int, gaps: Tensor | None) -> FrameInTurn:
        return _GaussiansInTurn(self, n, gaps)


class _GaussiansInTurn(FrameInTurn):
    """Within a frame, the weights of the Gaussians of a state change with the entries that are known."""

    def __init__(self, own: MixedGaussians, n: int, gaps: Tensor | None) -> None:
        self.own, self.n = own, n
        self.turn = own.gaussians.in_turn(n, own.used, gaps)
        self.log_weights = own.logits.log_softmax(1).expand(n, -1, -1)  # (n, K, J), given the entries so far

    def conditional(self, entry: int, log_weights: Tensor) -> Conditional:
        mean, log_std = self.turn.of(entry)
        both = (log_weights[:, :, None] + self.log_weights).flatten(1)
        return GaussianIntervals(both, mean, log_std, *self.own.columns.units(entry))

    def put(self, entry: int, value: Tensor) -> Tensor:
        centre, spread = self.own.columns.units(entry)
        return self.put_units(entry, ((value - centre) / spread).clamp(-FURTHEST, FURTHEST))

    def put_units(self, entry: int, y: Tensor) -> Tensor:
        mean, log_std = self.turn.of(entry)
        each = dist.gaussian_log_prob(y.nan_to_num(0.0)[:, None], mean, log_std)
        each = (each + self.own.columns.log_derivatives()[entry]).masked_fill(y.isnan()[:, None], 0.0)
        self.turn.put(entry, y)
        both = self.log_weights + each.view(self.n, self.own.states, self.own.components)
        total = both.logsumexp(2)
        self.log_weights = both - total[:, :, None]
        return total
