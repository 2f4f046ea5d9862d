"""Latent linear models with Gaussian noise: y = W z + μ + ε, z ~ N(0, I), ε ~ N(0, Ψ), as models of raw data.

There are two ways of learning. With at most `MOST_DIMS` entries and none missing, one pass counts the covariance of the
data, and the fit is made from it. Otherwise each pass is an EM step on sums of size D × M, and no D × D matrix is
formed. It starts at the principal directions of training examples, by a randomised singular value decomposition.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Positive
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import (
    NO_WORDS,
    CanDecode,
    CanSample,
    ChooseEntry,
    CodesEntries,
    HasEntryConditionals,
    KnowsMarginals,
    Marginal,
)
from unsup.core.steps import in_steps
from unsup.nn.columns import FURTHEST
from unsup.nn.counting import Counting, added
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.nn.intervals import GaussianIntervals
from unsup.prob import linear_gaussian as lg

MOST_DIMS = 1024
"""The most entries for which the covariance is counted."""
MOST_AUTO = 64
"""The most components that are chosen from the data."""
_COUNTS = (1, 2, 3, 5, 8, 12, 16, 24, 32, 48, 64)  # tried where each is a fit of its own, until two have not helped
_ENOUGH = 2000  # examples to try them on
_SHORT = 30  # steps of such a fit
_BLOCK = 2**22  # numbers at a time
_STARTS = 2**24  # numbers that EM starts from
_CACHED, _LEAST = 2**17, 64  # numbers that stay in the cache, and rows at a time at least

Units = Literal["each", "common"]


class LinearGaussian(Counting, HasEntryConditionals, CanSample, CanDecode, KnowsMarginals, CodesEntries):
    """Abstract: N(W Wᵀ + Ψ) on standardised data, with all verbs. A subclass says which Ψ, and how W is fitted.

    Its constructor calls `take`.
    """

    autocast = False
    takes_missing = True
    marginalises = True
    not_in_half = "its factors are computed in float64"

    rank: Tensor

    def take(
        self,
        event: Event,
        components: int | Literal["auto"],
        *,
        shared: bool,
        units: Units,
        floor: float,
        iterations: int,
        tolerance: float,
    ) -> None:
        """Called in the constructor.

        Args:
            components: M, or ``auto``: by BIC.
            shared: whether Ψ = σ²I.
            units: whether every entry is divided by its own standard deviation, or all by a common one.
            floor: the least noise variance, in these units.
            iterations, tolerance: of EM; the tolerance is in nats per entry.

        Raises:
            InputError: as many components as entries, or more.
        """
        dims = event.dims
        if components != "auto" and components >= dims:
            raise InputError(
                f"{type(self).__name__}: components={components} needs more than {components} entries; {event} has "
                f"{dims}"
            )
        self.shared, self.units, self.floor = shared, units, floor
        self.iterations, self.chooses = iterations, components == "auto"
        self.counts_covariance = dims <= MOST_DIMS and not event.missing
        self.take_passes(1 if self.counts_covariance else iterations, tolerance * dims)
        self.front = ContinuousFront(event).double()
        slots = min(dims - 1, MOST_AUTO) if components == "auto" else components
        real = torch.float64
        self.means = nn.Parameter(torch.zeros(dims, dtype=real))
        self.loadings = nn.Parameter(0.1 * torch.randn(dims, slots, dtype=real))
        self.log_noise = nn.Parameter(torch.zeros(1 if shared else dims, dtype=real))
        self.register_buffer("rank", torch.tensor(slots))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.has_words:
            return NO_WORDS
        return "takes two or more entries" if event.dims < 2 else None

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real else "bound"

    @property
    def mass_in_support(self) -> bool:
        return self.event.is_real

    @property
    def n_free(self) -> int:
        """μ, Ψ, and W up to its rotation."""
        dims, rank = self.event.dims, self.code_size
        return dims + len(self.log_noise) + dims * rank - rank * (rank - 1) // 2

    @property
    def code_size(self) -> int:
        """M."""
        return int(self.rank)

    # --- parameters -----------------------------------------------------------------------------------------------

    def _factors(self) -> tuple[Tensor, Tensor]:
        """W ``(D, M)`` and log Ψ ``(D,)``."""
        return self.loadings[:, : self.code_size], self.log_noise.expand(self.event.dims)

    def _put(self, means: Tensor, loadings: Tensor, log_noise: Tensor) -> None:
        self.means.copy_(means)
        self.loadings.zero_()
        self.loadings[:, : loadings.shape[1]] = loadings
        self.rank.fill_(loadings.shape[1])
        self.log_noise.copy_(log_noise[: len(self.log_noise)])

    def covariance(self) -> Tensor:
        """W Wᵀ + Ψ in raw units (of dequantised levels): ``(D, D)``, for small D."""
        loadings, log_noise = self._factors()
        scale = (self.front.levels * self.front.std).flatten().double()
        return (loadings @ loadings.T + log_noise.exp().diag()) * scale[:, None] * scale

    # --- learning -------------------------------------------------------------------------------------------------

    @abstractmethod
    def fit_covariance(self, covariance: Tensor, components: int) -> tuple[Tensor, Tensor]:
        """The maximum of the likelihood for a covariance ``(D, D)``: W ``(D, M)`` and log Ψ ``(D,)``."""

    def choose(self, y: Tensor, *, generator: Generator) -> int:
        """The number of components with the lowest BIC, for points ``(N, D)``: fits of several numbers are compared.

        At most 2,000 points are used.
        """
        y = y[random.uniform((len(y),), generator, like=y).argsort()[:_ENOUGH]]
        most, lowest, best, worse = min(self.loadings.shape[1], max(1, len(y) - 1)), math.inf, 1, 0
        start = self.means.clone(), *(part.clone() for part in self._factors())
        for components in (number for number in _COUNTS if number <= most):
            if self.counts_covariance:
                self._put(torch.zeros_like(start[0]), start[1][:, :components], start[2])
                self.maximize(added(map(self._sums, self._blocks(y))))
            else:
                self.start(y, components, generator=generator)
                for _ in range(_SHORT):
                    self.maximize(added(map(self._sums, self._blocks(y))))
            log_prob = float(self._density(y).sum())
            bic = self.n_free * math.log(len(y)) - 2 * log_prob
            worse = 0 if bic < lowest else worse + 1
            if bic < lowest:
                lowest, best = bic, components
            if worse == 2:
                break
        self._put(*start)
        return best

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the units; choose the number of components; start EM, if the fit is not from a covariance.

        Raises:
            InputError: fewer than two examples.
        """
        if len(batch) < 2:
            raise InputError(f"{type(self).__name__} needs two or more training examples, not {len(batch)}")
        self.front.prepare(batch.x, generator=generator)
        if self.units == "common":
            self.front.std.fill_(self.front.std.double().square().mean().sqrt())
        if self.counts_covariance and not self.chooses:
            return
        # As many examples as take bounded memory, where EM starts; their order is random.
        x = batch.x if self.counts_covariance else batch.x[: max(2, _STARTS // self.event.dims)]
        y = self._points(x, generator)
        if self.chooses:
            components = self.choose(y, generator=generator)
            self.loadings[:, components:] = 0.0
            self.rank.fill_(components)
        if not self.counts_covariance:
            self.start(y, self.code_size, generator=generator)

    def start(self, y: Tensor, components: int, *, generator: Generator) -> None:
        """Put W at the principal directions of points ``(N, D)``, with means in place of missing entries."""
        means = y.nanmean(0).nan_to_num(0.0)
        centred = (y - means).nan_to_num(0.0)
        values, vectors = lg.leading_directions(centred, components, generator)
        own = centred.square().mean(0)
        loadings, noise = lg.principal(values, vectors, own.sum(), len(values), self.floor)
        loadings = torch.nn.functional.pad(loadings, (0, components - len(values)))
        if self.shared:
            log_noise = noise.log().expand_as(own)
        else:
            log_noise = torch.maximum(own - loadings.square().sum(1), 0.1 * own).clamp(min=self.floor).log()
        self._put(means, loadings, log_noise)

    def _points(self, x: Tensor, generator: Generator | None) -> Tensor:
        y: Tensor = self.front(self.front.dequantize(x, generator=generator))[0]
        return y.flatten(1)

    def _blocks(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Parts of rows that stay in the cache, or take bounded memory."""
        dims = self.event.dims
        own = _CACHED // dims
        if self.event.missing:
            own = min(own, _BLOCK // (self.code_size + 1) ** 2)
        return rows.split(max(own, _LEAST))

    @torch.no_grad()
    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """``count`` and two moments, or the sums of the E step with ``log_prob``; examples are weighted."""
        noisy = self.front.dequantize(batch.x, generator=generator)
        if not len(noisy):
            return self._sums(self.front(noisy)[0].flatten(1), None)
        parts = self._blocks(noisy)
        weights = [None] * len(parts) if batch.weight is None else batch.weight.split(len(parts[0]))

        def each(part: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
            y, log_det = self.front(part)
            weight = None if weight is None else weight.to(y.dtype)
            sums = self._sums(y.flatten(1), weight)
            if "log_prob" in sums:
                sums["log_prob"] = sums["log_prob"] + (log_det if weight is None else weight * log_det).sum()
            return sums

        return added(map(each, parts, weights))

    def _sums(self, y: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """`statistics` of points ``(N, D)``, without the Jacobian of the units."""
        if self.counts_covariance:
            weighted = y if weight is None else y * weight[:, None]
            count = y.new_tensor(len(y)) if weight is None else weight.sum()
            return {"count": count, "first": weighted.sum(0), "second": weighted.T @ y}
        weight = y.new_ones(len(y)) if weight is None else weight
        sums = lg.expected(y, self.means, *self._factors(), weight, each_column=self.event.missing)
        return sums | {"count": weight.sum(), "log_prob": (weight * self._density(y)).sum()}

    @torch.no_grad()
    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Fit to the covariance, or take one M step."""
        loadings, log_noise = self._factors()
        if not self.counts_covariance:
            found = lg.maximised(
                dict(statistics), self.means, loadings, log_noise, shared=self.shared, floor=self.floor
            )
            self._put(*found)
            return
        means = statistics["first"] / statistics["count"]
        covariance = statistics["second"] / statistics["count"] - means[:, None] * means
        self._put(means, *self.fit_covariance(covariance, self.code_size))

    # --- densities ------------------------------------------------------------------------------------------------

    def _density(self, y: Tensor) -> Tensor:
        """log p of points, ``(B, D)`` → ``(B,)``."""
        factors = self._factors()
        parts = [lg.log_prob(part.flatten(1) - self.means, *factors) for part in self._blocks(y)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        # The noise of levels is drawn for all examples together.
        parts = self._blocks(batch.x) if self.event.is_real else (batch.x,)
        found = [
            dequantized_log_prob(self.front, self._density, part, samples=samples, generator=generator)
            for part in parts
        ]
        return torch.cat(found)

    def _middle(self, x: Tensor) -> Tensor:
        """y − μ of raw data, levels at the middle of their cells: ``(B, D)``."""
        self.event.check_shape(x)
        return self.front.middle(x).flatten(1) - self.means

    def log_given_rest(self, x: Tensor) -> Tensor:
        """log p(x_d | the rest), in closed form by the diagonal of the inverse covariance; 0 for a missing entry."""
        found = lg.log_each(self._middle(x), *self._factors())
        derivatives = self.front.log_derivatives(self.front.floating(x))
        return found + derivatives

    def encode(self, x: Tensor) -> Tensor:
        """E[z | x], ``(B, M)``; discrete entries are at the middle of a level, missing ones are integrated out."""
        return lg.posterior(self._middle(x), *self._factors()).mean

    def decode(self, z: Tensor) -> Tensor:
        """W z + μ, the mean of x given a code, rounded to levels."""
        self.check_codes(z)
        return self._raw(z.to(self.loadings.dtype) @ self._factors()[0].T)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: Positive = 1.0) -> Tensor:
        """Exact draws W z + μ + ε; ``temperature`` is a factor of z and ε, and so of the deviations from the mean."""
        loadings, log_noise = self._factors()
        z = random.normal((n, self.code_size), generator, like=loadings)
        noise = random.normal((n, self.event.dims), generator, like=loadings) * (0.5 * log_noise).exp()
        return self._raw(temperature * (z @ loadings.T + noise))

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws of the unknown entries given the known ones. A known entry that is missing (NaN) stays so.

        Known levels have a random position in their cells, as in training.
        """
        self.check_known(x, known)
        whole = torch.where(known, x, self.event.lowest(x))
        residual = (self._points(whole, generator) - self.means).masked_fill(~known.flatten(1), math.nan)
        return self.kept(x, known, self._raw(lg.fill(residual, *self._factors(), generator)))

    def approximation(self, known: Tensor) -> str | None:
        return None if self.event.is_real else "with dequantised whole numbers"

    @torch.no_grad()
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Marginal]]:
        """N(μ_d + w_dᵀm, w_dᵀP w_d + ψ_d), with the moments m and P of z given the known entries.

        Known levels are at the middle of their cells.
        """
        self.check_known(x, known)
        residual = self._middle(torch.where(known, x, self.event.lowest(x))).masked_fill(~known.flatten(1), math.nan)
        loadings, log_noise = self._factors()
        found = lg.posterior(residual, loadings, log_noise)
        spread = torch.cholesky_inverse(found.lower)  # P of every pattern, (P, M, M)
        for entry, rows in self.unknown_rows(known):
            row = loadings[entry]
            mean = self.means[entry] + found.mean[rows] @ row
            variance = ((spread @ row) @ row + log_noise[entry].exp())[found.pattern[rows]]
            centre, scale = self.front.units(entry)
            if self.event.columns[entry].is_discrete:  # level v is the cell from v to v + 1 here
                centre = centre - self.front.low.flatten()[entry] - 0.5
            weight = mean.new_zeros(len(rows), 1)
            line = (weight, mean[:, None], 0.5 * variance.log()[:, None], centre.double(), scale.double())
            yield entry, rows, GaussianIntervals(*line)

    def _raw(self, residual: Tensor) -> Tensor:
        y = (residual + self.means).view(len(residual), *self.event.shape)
        return self.front.to_support(self.front.invert(y))

    # --- compression ----------------------------------------------------------------------------------------------

    def reason_against_coding(self) -> str | None:
        if self.event.is_real:
            return None
        return "dequantises levels, and no level has a known probability given others"

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(y_d | y_<d) = N(μ_d + w_dᵀm, w_dᵀP w_d + ψ_d), with the moments m and P of z given y_<d."""
        loadings, log_noise = self._factors()
        kinds = gaps.unique(dim=0, return_inverse=True) if gaps is not None else None
        dims, size = loadings.shape
        mean = loadings.new_zeros(n, size)
        spread = torch.eye(size, dtype=mean.dtype, device=mean.device).repeat(
            1 if kinds is None else len(kinds[0]), 1, 1
        )
        pattern = torch.zeros(n, dtype=torch.int64, device=mean.device) if kinds is None else kinds[1]
        weight = mean.new_zeros(n, 1)
        for entry in in_steps(range(dims)):
            row = loadings[entry]
            turned = spread @ row  # (P, M)
            variance = turned @ row + log_noise[entry].exp()
            centre, scale = self.front.units(entry)
            middle = self.means[entry] + mean @ row
            line = GaussianIntervals(
                weight, middle[:, None], 0.5 * variance[pattern, None].log(), centre.double(), scale.double()
            )
            value = choose(entry, line)
            gain = turned / variance[:, None]
            update = turned[:, :, None] * gain[:, None, :]
            if kinds is not None:
                there = ~kinds[0][:, entry]
                update, gain = update * there[:, None, None], gain * there[:, None]
            surprise = ((value - centre) / scale).clamp(-FURTHEST, FURTHEST) - middle
            mean = mean + gain[pattern] * surprise.nan_to_num(0.0)[:, None]
            spread = spread - update
