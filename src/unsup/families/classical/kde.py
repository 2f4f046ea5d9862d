"""Kernel density estimate: the mean of a kernel around every training example,

    p(x) = (1/N) Σ_n Π_d K_d(x_d | x_nd)

(Rosenblatt 1956, https://doi.org/10.1214/aoms/1177728190; Parzen 1962, https://doi.org/10.1214/aoms/1177704472). The
kernel of a real entry is N(x_nd, (h s_d)²), with the spread s_d of the entry. The kernel of a whole number in a table
is the same Gaussian, rounded to levels; that of a category is Aitchison's and Aitken's (1976,
https://doi.org/10.1093/biomet/63.3.413): 1 − λ for the same category, and λ shared by the others. The bandwidths h and
λ maximise the likelihood of each training example under the others (Duin 1976,
https://doi.org/10.1109/TC.1976.1674577):

    (1/N) Σ_n log p_{−n}(x_n),        p_{−n}(x) = (1/(N − 1)) Σ_{m≠n} K(x | x_m)

The logarithms of all kernels between a block of examples and a block of centres are one matrix product, by
|x − y|² = |x|² − 2 xᵀy + |y|² and one-hot levels, and are summed block by block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import (
    Advice,
    CanComplete,
    CanSample,
    ChooseEntry,
    CodesEntries,
    LearnsByCounting,
    LeavesOut,
    Model,
    Terms,
)
from unsup.core.steps import in_steps
from unsup.nn.columns import FURTHEST, Columns
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.nn.intervals import GaussianIntervals, cells
from unsup.prob import distributions as dist
from unsup.prob import kernels
from unsup.prob.distributions import LOG_2PI
from unsup.prob.robust import in_order, place, usual_range

_BLOCK = 2**20  # kernels at a time
_QUERIES = 256  # examples at a time
_MOST_ONE_HOT = 64  # levels of a column that are one-hot
_TRIED = 1000  # training examples that the bandwidths are chosen by
_NARROWER, _WIDER = 50.0, 4.0  # bandwidths that are tried, relative to Scott's rule
_STEPS, _ROUNDS = 14, 2  # of a search, and of searches for h and λ in turn
_REACH = 10.0  # interquartile ranges from the median, beyond which a value is gross
_CODED = 2_048  # stored examples, with which entries are coded
_LEAST_SHARE = 1e-4  # of λ, relative to the uniform kernel


class KDE(Model, LeavesOut, LearnsByCounting, CanSample, CanComplete, CodesEntries):
    """Kernel density estimate with Gaussian kernels, and kernels of levels and categories (Parzen 1962).

    The training examples are stored, and nothing is learned but the bandwidths. Tables have a kernel for every column:
    their likelihood is exact. Levels of images and other arrays are dequantised, so that the likelihood is a bound;
    binary arrays have the kernel of categories, and are exact.

    Each real or whole column is measured in its spread, the smaller of its standard deviation and its interquartile
    range / 1.349, so that a few gross values do not widen the kernels of all (Silverman 1986). Entries of images and
    sequences share one unit, the root mean square of their standard deviations.

    With ``bandwidth="auto"`` copies of an example are left out with it, where the event has real entries: otherwise
    they would favour a bandwidth of zero. Rows of a table with a real value more than 10 interquartile ranges from the
    median have no part in the choice: the likelihood of a single one would decide it.

    Args:
        event: real, binary, or ordinal; a table of any columns. Missing entries are not supported.
        bandwidth: h, in units of the spread; ``auto``: by the likelihood of up to 1,000 of the stored examples, each
            left out; ``scott``: N^(−1/(D + 4)); ``silverman``: (N (D + 2) / 4)^(−1/(D + 4)). With ``auto``, λ is chosen
            likewise; else the kernel of categories is uniform with probability N^(−2/(D + 4)).
        examples: the most training examples that are stored, drawn at random from the first 20,000 of a random order.

    >>> import torch
    >>> from unsup import Batch, Event, Support
    >>> model = KDE(Event((1,), Support("real")), bandwidth=1.0)
    >>> model.prepare(Batch(torch.tensor([[0.0]])), generator=torch.Generator())
    >>> round(float(model.log_prob(torch.zeros(1, 1))), 4)  # the kernel itself
    -0.9189
    """

    presets = {"tiny": {"examples": 64}, "paper": {}}
    autocast = False
    not_in_half = "its kernels are computed in float64"

    data: Tensor
    stored: Tensor
    bandwidth: Tensor
    share: Tensor
    spread: Tensor

    def __init__(
        self,
        event: Event,
        *,
        bandwidth: Positive | Literal["auto", "scott", "silverman"] = "auto",
        examples: Count = 10_000,
    ) -> None:
        self.rule, self.examples = bandwidth, examples
        by_column = not event.is_real and (event.layout == "vector" or _is_binary(event))
        self.columns = Columns(event).double() if by_column else None
        self.front = None if by_column else ContinuousFront(event).double()
        columns = event.columns if by_column else ()
        self.words = [d for d, s in enumerate(columns) if s.kind in ("nominal", "binary")]
        self.whole = [d for d, s in enumerate(columns) if s.kind == "ordinal"]
        real = torch.float64
        lowest = event.lowest(torch.zeros((), dtype=event.dtype)).to(event.dtype)
        self.register_buffer("data", lowest.repeat(examples, *(1,) * len(event.shape)))
        self.register_buffer("stored", torch.tensor(1))
        self.register_buffer("bandwidth", torch.ones((), dtype=real))
        self.register_buffer("share", torch.ones((), dtype=real))  # of λ, relative to the uniform kernel
        self.register_buffer("spread", torch.ones(event.dims, dtype=real))  # of whole columns, in levels

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout != "vector" and any(s.kind == "nominal" for s in event.columns):
            return "takes unordered (nominal) entries in tables only"
        return None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real or self.columns is not None else "bound"

    @property
    def mass_in_support(self) -> bool:
        return self.likelihood_kind == "exact"

    # --- learning -------------------------------------------------------------------------------------------------

    @property
    def passes(self) -> int:
        return 1

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The negative log-likelihood of each example; a training example has a kernel around itself."""
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """``count`` alone: examples were stored in `prepare`."""
        weight = batch.x.new_ones(len(batch), dtype=torch.float64) if batch.weight is None else batch.weight.double()
        return {"count": weight.sum()}

    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Nothing is left to do."""

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Store examples, and choose the bandwidths.

        Raises:
            InputError: no example.
        """
        if not len(batch):
            raise InputError("KDE needs a training example or more")
        x = batch.x
        if len(x) > self.examples:
            order = random.uniform((len(x),), generator, like=self.spread).argsort()
            x = x[order[: self.examples]]
        self.data[: len(x)] = x.to(self.data.dtype)
        self.stored.fill_(len(x))
        self._measure(x, generator)
        n, dims = len(x), self.event.dims
        self.share.fill_(kernels.scott(n, dims) ** 2)
        if self.rule == "auto":
            self._choose(generator)
        elif self.rule == "silverman":
            self.bandwidth.fill_(kernels.silverman(n, dims))
        else:
            self.bandwidth.fill_(kernels.scott(n, dims) if self.rule == "scott" else self.rule)

    def _measure(self, x: Tensor, generator: Generator) -> None:
        """Set the units of all entries."""
        if self.columns is not None:
            self.columns.prepare(x, generator=generator)
            if self.columns.front is not None:
                _narrow(self.columns.front, x.flatten(1)[:, self.columns.real])
            if self.whole:
                levels = self.columns(x)[:, self.whole]
                self.spread[self.whole] = _spread(levels, levels.std(0, correction=0))
            return
        assert self.front is not None
        self.front.prepare(x, generator=generator)
        if self.event.layout == "vector" and self.event.is_real:
            _narrow(self.front, x)
        else:
            self.front.std.fill_(self.front.std.double().square().mean().sqrt())

    def _choose(self, generator: Generator) -> None:
        """Maximise the leave-one-out likelihood over h and λ, in turn."""
        usual = kernels.scott(int(self.stored), self.event.dims)
        self.bandwidth.fill_(usual)
        rows = random.uniform((int(self.stored),), generator, like=self.spread).argsort()
        rows = rows[self._usual()[rows]][:_TRIED]
        points, group = self._noisy(rows, generator), self._groups()
        alone = (group.bincount() == len(group))[group[rows]]  # all examples are copies of it
        rows, points = rows[~alone], points[~alone]
        if not len(rows):
            return

        def reached() -> float:
            return float(self._left_out(points, group[rows], group).mean())

        def at_bandwidth(log_h: float) -> float:
            self.bandwidth.fill_(math.exp(log_h))
            return reached()

        def at_share(log_share: float) -> float:
            self.share.fill_(math.exp(log_share))
            return reached()

        ends = math.log(usual / _NARROWER), math.log(usual * _WIDER)
        on_line = len(self.words) < self.event.dims
        for _ in range(_ROUNDS if on_line and self.words else 1):
            if on_line:
                self.bandwidth.fill_(math.exp(kernels.golden_section(at_bandwidth, *ends, _STEPS)))
            if self.words:
                share = kernels.golden_section(at_share, math.log(_LEAST_SHARE), 0.0, _STEPS)
                self.share.fill_(math.exp(share))

    def _noisy(self, rows: Tensor, generator: Generator | None) -> Tensor:
        """Points of stored examples; levels that are dequantised have noise, as where they are scored."""
        if self.front is None or generator is None:
            return self._middle(self.data[rows])
        y: Tensor = self.front(self.front.dequantize(self.data[rows], generator=generator))[0]
        return y.flatten(1)

    def _usual(self) -> Tensor:
        """Which stored rows of a table have no gross real value, bool ``(N,)``."""
        real = self._centres()[:, self._real()]
        if self.event.layout != "vector" or (self.columns is None and not self.event.is_real):
            return torch.ones(len(real), dtype=torch.bool, device=real.device)
        low, high = usual_range(real, _REACH)
        return ((real >= low) & (real <= high)).all(1)

    def _groups(self) -> Tensor:
        """The number of each stored example; examples with the same real entries have the same, ``(N,)``."""
        x = self.data[: int(self.stored)].flatten(1)
        if self.event.is_discrete and self.columns is not None:
            return torch.arange(len(x), device=x.device)
        real = x if self.columns is None else x[:, self.columns.real]
        return real.unique(dim=0, return_inverse=True)[1]

    @torch.no_grad()
    def leave_one_out(self) -> Tensor:
        """log p_{−n}(x_n) of every stored example, under the others: ``(N,)``; −∞ for a single one.

        Dequantised levels are at the middle of their cells, so that it is a density then.
        """
        points = self._middle(self.data[: int(self.stored)])
        own = torch.arange(len(points), device=points.device)
        found = self._left_out(points, own, own)
        return found + self._log_derivatives()

    @torch.no_grad()
    def log_prob_without(self, x: Tensor, left_out: Tensor, *, generator: Generator | None = None) -> Tensor:
        """log p of x under the stored examples but one copy of ``left_out``; of the only one, nothing is left out."""
        self.event.check(x)
        self.event.check_shape(left_out)
        n = int(self.stored)
        both = torch.cat([self.data[:n].flatten(1), left_out.flatten(1).to(self.data.dtype)])
        number = both.unique(dim=0, return_inverse=True)[1]
        first = torch.full((len(both),), n, device=number.device)  # the first stored example of each value
        first = first.scatter_reduce(0, number[:n], torch.arange(n, device=number.device), "amin")
        out = first[number[n:]] if n > 1 else torch.full((len(x),), n, device=number.device)
        if self.front is not None:
            y, log_det = self.front(self.front.dequantize(x, generator=generator))
            points = y.flatten(1)
        else:
            points, log_det = self._middle(x), self._log_derivatives()
        return self._left_out(points, out, torch.arange(n, device=out.device)) + log_det

    # --- densities ------------------------------------------------------------------------------------------------

    def _log_derivatives(self) -> Tensor:
        if self.columns is not None:
            return self.columns.log_derivatives().sum()
        assert self.front is not None
        return -(self.front.levels.log() + self.front.std.log()).double().sum()

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        if self.columns is not None:
            return self._density(self.columns(batch.x)) + self._log_derivatives()
        assert self.front is not None
        return dequantized_log_prob(
            self.front, lambda y: self._density(y.flatten(1)), batch.x, samples=samples, generator=generator
        )

    def _middle(self, x: Tensor) -> Tensor:
        """Points of raw data: standardised reals and level numbers, ``(B, D)``."""
        y: Tensor = self.columns(x) if self.columns is not None else self._front_middle(x)
        return y.flatten(1)

    def _front_middle(self, x: Tensor) -> Tensor:
        assert self.front is not None
        return self.front.middle(x)

    def _density(self, points: Tensor) -> Tensor:
        """log p of points, ``(B, D)`` → ``(B,)``."""
        centres = self._centres()
        found = [
            torch.stack([kernel.logsumexp(1) for kernel in self._kernels(part, centres)], 1).logsumexp(1)
            for part in points.split(_QUERIES)
        ]
        total = torch.cat(found) if found else points.new_zeros(0)
        return total - math.log(len(centres))

    def _left_out(self, points: Tensor, own: Tensor, group: Tensor) -> Tensor:
        """log p of points ``(B, D)`` under the centres whose ``group``, ``(N,)``, is not their ``own``, ``(B,)``."""
        centres, found = self._centres(), []
        for part, mine in zip(points.split(_QUERIES), own.split(_QUERIES), strict=True):
            blocks = self._kernels(part, centres)
            sums = []
            start = 0
            for kernel in blocks:
                same = mine[:, None] == group[start : start + kernel.shape[1]]
                sums.append(kernel.masked_fill(same, -math.inf).logsumexp(1))
                start += kernel.shape[1]
            found.append(torch.stack(sums, 1).logsumexp(1))
        sizes = torch.cat([group.bincount(), group.new_zeros(1)])  # a number that no centre has: none is left out
        total = torch.cat(found) if found else points.new_zeros(0)
        return total - (len(group) - sizes[own]).double().log()

    def _centres(self) -> Tensor:
        """Points of the stored examples, ``(N, D)``."""
        return self._middle(self.data[: int(self.stored)])

    def _real(self) -> Tensor:
        """The numbers of the real entries among those of a point."""
        return torch.arange(self.event.dims, device=self.spread.device) if self.columns is None else self.columns.real

    def _kernels(self, points: Tensor, centres: Tensor, known: Tensor | None = None) -> Iterator[Tensor]:
        """log K of points ``(B, D)`` around centres ``(N, D)``, block by block: ``(B, n)`` each.

        Args:
            known: which entries count, ``(B, D)``; the kernels of others are integrated out.
        """
        real, h = self._real(), self.bandwidth
        z = points[:, real] / h
        there = None if known is None else known[:, real].to(z.dtype)
        z = z if there is None else z * there
        number: Tensor | int = len(real) if there is None else there.sum(1, keepdim=True)
        constant = -0.5 * z.square().sum(1, keepdim=True) - number * (h.log() + 0.5 * LOG_2PI)
        tables = {d: self._masses(d, points[:, d]) for d in (*self.words, *self.whole)}
        if known is not None:
            tables = {d: own * known[:, d, None] for d, own in tables.items()}
        small = [d for d in tables if tables[d].shape[1] <= _MOST_ONE_HOT]
        left = torch.cat([z, *([] if there is None else [-0.5 * there]), *(tables[d] for d in small)], 1)
        for block in centres.split(max(1, _BLOCK // max(1, len(points)))):
            c = block[:, real] / h
            square = c.square()
            right = [c, *([] if there is None else [square])]
            right += [one_hot(block[:, d].long(), tables[d].shape[1]).to(c.dtype) for d in small]
            kernel = torch.addmm(constant, left, torch.cat(right, 1).T)
            if there is None and len(real):
                kernel = kernel - 0.5 * square.sum(1)
            for d in tables.keys() - set(small):
                kernel = kernel + tables[d][:, block[:, d].long()]
            yield kernel

    def _masses(self, column: int, values: Tensor) -> Tensor:
        """log K(v | u) of one column, for all levels u: ``(B,)`` → ``(B, levels)``."""
        levels = self.event.columns[column].levels
        if column in self.words:
            return kernels.aitchison_aitken(values, levels, self.share)
        return kernels.rounded_gaussian(values, levels, self.bandwidth * self.spread[column])

    # --- drawing --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: a stored example at random, then its kernels."""
        uniform = random.uniform((n,), generator, like=self.spread)
        return self._raw(self._drawn((uniform * self.stored).long(), generator))

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: a stored example by its kernels of the known entries, then its kernels of the unknown ones.

        Known levels that are dequantised are at the middle of their cells.
        """
        self.check_known(x, known)
        points = self._middle(torch.where(known, x, self.event.lowest(x)))
        centres, which, seen = self._centres(), [], known.flatten(1)
        rows = max(1, _BLOCK // len(centres))
        for part, own in zip(points.split(rows), seen.split(rows), strict=True):
            kernel = torch.cat(list(self._kernels(part, centres, own)), 1)
            which.append(dist.sample_categorical(kernel, generator=generator))
        chosen = torch.cat(which) if len(x) else seen.new_zeros(0, dtype=torch.int64)
        return self.kept(x, known, self._raw(self._drawn(chosen, generator)))

    def approximation(self, known: Tensor) -> str | None:
        return None if self.likelihood_kind == "exact" else "with dequantised whole numbers"

    def _drawn(self, which: Tensor, generator: Generator | None) -> Tensor:
        """A point from the kernels of each of the stored examples: ``(n,)`` → ``(n, D)``."""
        y = self._middle(self.data[which])
        noise = random.normal(y.shape, generator, like=y) * self.bandwidth
        if self.columns is None:
            return y + noise
        columns = self.event.columns
        y[:, self.columns.real] += noise[:, self.columns.real]
        for d in self.whole:
            y[:, d] = (y[:, d] + noise[:, d] * self.spread[d]).round().clamp(0, columns[d].levels - 1)
        if self.words:
            chance = random.uniform((2, *y.shape), generator, like=y)
            for d in self.words:
                levels = columns[d].levels
                # A share of the kernel is uniform over all categories.
                uniform = (chance[1, :, d] * levels).floor().clamp(max=levels - 1)
                y[:, d] = torch.where(chance[0, :, d] < self.share, uniform, y[:, d])
        return y

    def _raw(self, y: Tensor) -> Tensor:
        if self.columns is not None:
            return self.columns.raw(y)
        assert self.front is not None
        return self.front.to_support(self.front.invert(y.view(len(y), *self.event.shape)))

    # --- coding ---------------------------------------------------------------------------------------------------

    def reason_against_coding(self) -> str | None:
        if int(self.stored) > _CODED:
            return (
                f"stores {int(self.stored):,} examples, and coding compares every entry with all of them: at most "
                f"{_CODED:,} (--model.examples {_CODED})"
            )
        return None

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(x_d | x_<d) = Σ_n w_n K_d(x_d | x_nd), with the weights w_n ∝ Π_<d K(x_<d | x_n,<d).

        Dequantised levels have the probability of their cells, of which `log_prob` is a lower bound.
        """
        centres = self._centres()
        log_joint = centres.new_zeros(n, len(centres))
        words = set(self.words)
        for entry in in_steps(range(self.event.dims)):
            column, levels = centres[:, entry], self.event.columns[entry].levels
            if entry in words:
                log_masses = self._masses(entry, torch.arange(levels, device=column.device))  # of v given u
                of_levels = log_joint.softmax(1) @ one_hot(column.long(), levels).to(log_joint.dtype)
                value = choose(entry, (of_levels @ log_masses.exp().T).log())
                each = log_masses[value.nan_to_num(0.0).long()][:, column.long()]
            else:
                centre, spread, width = self._units(entry)
                line = GaussianIntervals(log_joint, column, width.log().expand(len(column)), centre, spread)
                value = choose(entry, line)
                if levels:
                    each = line.log_each(cells(value, levels)).squeeze(1)
                else:
                    y = ((value - centre) / spread).clamp(-FURTHEST, FURTHEST)
                    each = dist.gaussian_log_prob(y[:, None], column, width.log())
            log_joint = log_joint + each.masked_fill(value.isnan()[:, None], 0.0)

    def _units(self, entry: int) -> tuple[Tensor, Tensor, Tensor]:
        """Centre and spread of an entry, of a level counted from 0, and the width of the kernel in these units."""
        if self.columns is not None:
            width = self.bandwidth * (self.spread[entry] if entry in self.whole else 1.0)
            return *self.columns.units(entry), width
        assert self.front is not None
        centre, spread = self.front.units(entry)
        if self.event.columns[entry].is_discrete:  # level v is the cell from v to v + 1 there, from v − ½ to v + ½ here
            centre = centre - self.front.low.flatten()[entry] - 0.5
        return centre, spread, self.bandwidth


def _is_binary(event: Event) -> bool:
    return event.uniform is not None and event.uniform.kind == "binary"


def _narrow(front: ContinuousFront, x: Tensor) -> None:
    """Put the spread of each real entry in place of its standard deviation."""
    front.std.copy_(_spread(x.double(), front.std.double()))


def _spread(x: Tensor, std: Tensor) -> Tensor:
    """The smaller of the standard deviation and the interquartile range / 1.349, if above 0, else 1: ``(D,)``."""
    ordered, n = in_order(x)
    half = (place(ordered, (3 * n) // 4) - place(ordered, n // 4)) / 1.349
    found = torch.where(half > 0, torch.minimum(std, half), std)
    return torch.where(found > 0, found, torch.ones_like(found))
