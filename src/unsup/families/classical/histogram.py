"""Histogram: count, smooth, divide by the width of the bin.

A discrete entry's cells are its levels. A real entry has ``bins`` cells of equal width w between the smallest and the
largest training value, except for gross values, and one unbounded cell on each side. With n_i of N examples in cell i
of K,

    P(i) = (n_i + α) / (N + α K),    p(x) = P(i) · (1 / w inside,  e^(−δ/s) / s in a tail),

where δ is the distance beyond the range and s the standard deviation of the entry, so that the density is proper on the
whole line. α = 0 is maximum likelihood: unseen values have log p = −∞. The entries are independent, or, if the
product of their numbers of cells is at most 2¹⁶, share one table over all combinations. Missing entries are summed out;
a joint table with missing entries is counted by EM, which shares every incomplete example among the cells that it may
belong to. On the fixed-width histogram
as a density estimate: Rosenblatt 1956, https://doi.org/10.1214/aoms/1177728190.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import (
    Advice,
    CanSample,
    ChooseEntry,
    CodesEntries,
    Factorises,
    KnowsMarginals,
    Located,
    Marginal,
)
from unsup.core.steps import in_steps
from unsup.nn.columns import patterns
from unsup.nn.counting import Counting
from unsup.prob.distributions import log_ratios
from unsup.prob.robust import usual_range

JOINT_CELLS = 2**16
_MOST_OVERLAPS = 2**22  # of intervals with bins, at a time
_MOST_CELLS = 20_000_000  # of all tables, each as wide as the widest
_EM_PASSES, _TOLERANCE = 100, 1e-6
_REACH = 10.0  # widths of the middle half of a column, from its median to the end of the bins


class Histogram(Counting, Factorises, CanSample, KnowsMarginals, CodesEntries):
    """Smoothed frequencies of levels and bins, p(x) = P(cell of x) / width (Rosenblatt 1956).

    It has no parameters with gradients: training is one pass of counting (or several, of EM, for a joint table of data
    with missing entries). The ``paper`` preset is the default, since
    the method has no architecture.

    Args:
        event: any event.
        bins: number of equal-width cells of each real entry, between the smallest and the largest training value, but
            at most 10 interquartile ranges from the median; the range of a constant entry is its value ± ½. Beyond the
            range, each side has an exponential tail: the further a value, the less likely.
        smoothing: α, added to the count of every cell (of every combination of cells, in a joint table).
        joint: ``auto``: one table over all entries if it has at most 65,536 cells. It is estimated from its own counts
            if the training data has at least one example per cell on average, else as the product of its smoothed
            margins. ``always``: a joint table for any amount of data. ``never``: independent entries.

    Raises:
        InputError: ``joint="always"`` with too many cells.

    >>> import torch
    >>> from unsup import Batch, Event, Support
    >>> model = Histogram(Event((1,), Support("ordinal", 4)), smoothing=1.0)
    >>> model.maximize(model.statistics(Batch(torch.tensor([[0], [0], [3]]))))
    >>> [round(p, 4) for p in model.log_prob(torch.arange(4)[:, None]).exp().tolist()]
    [0.4286, 0.1429, 0.1429, 0.2857]
    """

    presets = {"tiny": {"bins": 8}, "paper": {}}
    autocast = False
    takes_missing = True
    marginalises = True
    not_in_half = "its cells are found in float64"

    discrete: Tensor
    size: Tensor
    stride: Tensor
    low: Tensor
    high: Tensor
    tail: Tensor
    log_mass: Tensor
    apart: Tensor

    def __init__(
        self,
        event: Event,
        *,
        bins: Count = 32,
        smoothing: Weight = 1.0,
        joint: Literal["auto", "always", "never"] = "auto",
    ) -> None:
        columns = event.columns
        sizes = [s.levels if s.is_discrete else bins + 2 for s in columns]
        # Logarithms, because the product over the entries of an image may have a million digits.
        fits = sum(math.log2(k) for k in sizes) <= math.log2(JOINT_CELLS) + 1e-9
        if joint == "always" and not fits:
            raise InputError(
                f"Histogram: joint='always' allows {JOINT_CELLS:,} cells, but {event} has more; use 'auto'"
            )
        self.bins, self.smoothing, self.joint = bins, smoothing, joint
        self.one_table = fits and joint != "never"
        self.sizes = tuple(sizes)
        if event.missing and self.one_table:
            self.take_passes(_EM_PASSES, _TOLERANCE)
        else:
            self.take_passes(1)

        strides = [1] * len(sizes)
        for d in reversed(range(len(sizes) - 1)):
            strides[d] = strides[d + 1] * sizes[d + 1] if self.one_table else 1
        real = torch.float64
        self.register_buffer("discrete", torch.tensor([s.is_discrete for s in columns]), persistent=False)
        self.register_buffer("size", torch.tensor(sizes), persistent=False)
        self.register_buffer("stride", torch.tensor(strides), persistent=False)
        self.register_buffer("low", torch.tensor([s.low for s in columns], dtype=real))
        self.register_buffer("high", torch.tensor([s.low + max(s.levels - 1, 1) for s in columns], dtype=real))
        self.register_buffer("tail", torch.ones(len(sizes), dtype=real))  # s, the scale of an exponential tail
        # One row per table: a single joint table, or one per entry. Padding cells have no mass.
        rows = torch.zeros(len(sizes), max(sizes), dtype=real).masked_fill(~self._valid, -math.inf)
        self.register_buffer("log_mass", (self._outer_sum(rows) if self.one_table else rows).log_softmax(1))
        self.register_buffer("apart", torch.tensor(not self.one_table))  # whether entries are independent

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        cells = event.dims * max((s.levels for s in event.columns if s.is_discrete), default=0)
        if cells <= _MOST_CELLS:
            return Advice()
        return Advice(against=f"would have {cells:,} cells, one per level and entry, which is too slow")

    @property
    def n_free(self) -> int:
        """The free masses (one less than the cells per table), and three numbers for the range of each real entry."""
        masses = sum(self.sizes) - len(self.sizes) if self.apart else math.prod(self.sizes) - 1
        return masses + 3 * int((~self.discrete).sum())

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the range and the scale of the tails of every real entry from training examples."""
        x = batch.x
        flat = x.flatten(1).double()
        if self.event.missing:
            gaps = flat.isnan()
            mean = flat.nanmean(0).nan_to_num(0.0)
            flat = torch.where(gaps, mean, flat)  # does not change the range
            std = ((flat - mean).square().sum(0) / (~gaps).sum(0).clamp(min=1)).sqrt()
        else:
            std = flat.std(0, correction=0)
        # One gross value would leave all others in one bin, in which none of them is unlikely.
        least, most = usual_range(flat, _REACH)
        low, high = flat.amin(0).maximum(least), flat.amax(0).minimum(most)
        constant = low == high
        real = ~self.discrete
        self.low.copy_(torch.where(real, torch.where(constant, low - 0.5, low), self.low))
        self.high.copy_(torch.where(real, torch.where(constant, high + 0.5, high), self.high))
        self.tail.copy_(torch.where(real & ~constant, std, torch.ones_like(std)))

    def statistics(self, batch: Batch, *, generator: Generator | None = None) -> dict[str, Tensor]:
        """``counts`` of every cell of every table, and ``count``, the number of examples; they count by weight.

        Where entries are missing, also ``log_prob``, and ``margins``: the counts of the cells of each entry alone.
        """
        flat = batch.x.flatten(1)
        weight = flat.new_ones(len(flat), dtype=torch.float64) if batch.weight is None else batch.weight.double()
        cells, count = self._cells(flat), weight.sum()
        if not (self.one_table and self.event.missing):
            own = weight[:, None] * (~flat.isnan()) if self.event.missing else weight
            counts = self._counted(self._index(cells), own, *self.log_mass.shape)
            return {"counts": counts, "count": count}
        log_prob = (weight * self._log_prob(batch, samples=1, generator=None)).sum()
        margins = self._counted(cells, weight[:, None] * ~flat.isnan(), *self._valid.shape)
        return {"counts": self._expected(flat, cells, weight), "count": count, "margins": margins, "log_prob": log_prob}

    def _counted(self, index: Tensor, weight: Tensor, tables: int, cells: int) -> Tensor:
        """The weight in every cell: ``(B, tables)``, ``(B,)`` or ``(B, tables)`` → ``(tables, cells)``."""
        each = weight[:, None].expand_as(index) if weight.ndim == 1 else weight
        flat = (index + cells * torch.arange(tables, device=index.device)).flatten()
        return flat.bincount(each.flatten(), minlength=tables * cells).view(tables, cells)

    def _expected(self, flat: Tensor, cells: Tensor, weight: Tensor) -> Tensor:
        """The E step of a joint table: every example is shared among the cells that agree with its observed entries."""
        table = self.log_mass.view(self.sizes)
        total = torch.zeros_like(table)
        for rows, seen in patterns(flat):
            log_p, index = self._marginal(seen), self._position(cells[rows], seen)
            counts = index.bincount(weight[rows], minlength=log_p.numel()).view(log_p.shape)
            # n(o) P(cell) / P(o); cells of probability 0 get nothing
            share = (table - log_p).exp().nan_to_num(0.0)
            total += counts * share
        return total.view_as(self.log_mass)

    def _marginal(self, seen: Tensor) -> Tensor:
        """The joint table summed over all entries but those ``seen``, whose axes keep their places (with size 1)."""
        hidden = [d for d in range(len(self.sizes)) if d not in seen.tolist()]
        table = self.log_mass.view(self.sizes)
        return table.logsumexp(hidden, keepdim=True) if hidden else table

    def _position(self, cells: Tensor, seen: Tensor) -> Tensor:
        """The cell of each row in the flattened `_marginal`: ``(N, D)`` → ``(N,)``."""
        index = torch.zeros(len(cells), dtype=torch.int64, device=cells.device)
        for d in seen.tolist():
            index = index * self.sizes[d] + cells[:, d]
        return index

    def maximize(self, statistics: Mapping[str, Tensor]) -> None:
        """Set the mass of every cell to its smoothed frequency, (n + α) / (N + α K)."""
        counts, count = statistics["counts"], statistics["count"]
        joint = self.one_table and (self.joint == "always" or bool(count >= counts.numel()))
        if joint:
            log_mass = self._log_frequency(counts, torch.ones_like(counts, dtype=torch.bool))
        else:
            margins = self._margins(counts) if self.one_table else counts
            margins = statistics.get("margins", margins)
            log_mass = self._log_frequency(margins, self._valid)
        self.log_mass.copy_(self._outer_sum(log_mass) if self.one_table and not joint else log_mass)
        self.apart.fill_(not joint)

    def parameter_log_prior(self) -> Tensor:
        """α Σ log P(cell) over all cells of every table: Dirichlet distributions with parameters 1 + α."""
        if not self.smoothing:
            return self.log_mass.new_zeros(())
        if not self.apart:
            return self.smoothing * self.log_mass.sum()
        rows = self._margins(self.log_mass.exp()).log() if self.one_table else self.log_mass
        return self.smoothing * rows[self._valid].sum()

    def _margins(self, table: Tensor) -> Tensor:
        """Sums of a joint table over all entries but one, for each: ``(D, most cells)``."""
        table = table.view(self.sizes)
        margins = table.new_zeros(self._valid.shape)
        for d, size in enumerate(self.sizes):
            margins[d, :size] = table.movedim(d, 0).reshape(size, -1).sum(1)
        return margins

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        flat = batch.x.flatten(1)
        cells = self._cells(flat)
        if not self.event.missing:
            log_mass = self.log_mass.gather(1, self._index(cells).T).sum(0)  # (tables, B) → (B,)
        elif self.one_table:
            log_mass = flat.new_zeros(len(flat), dtype=torch.float64)
            for rows, seen in patterns(flat):
                log_mass[rows] = self._marginal(seen).flatten()[self._position(cells[rows], seen)]
        else:
            log_mass = self.log_mass.gather(1, cells.T).T.masked_fill(flat.isnan(), 0.0).sum(1)
        return log_mass if self.event.is_discrete else log_mass + self._log_within(flat, cells).sum(1)

    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        self.event.check(x)
        flat = x.flatten(1)
        cells = self._cells(flat)
        if not self.one_table:
            log_mass = self.log_mass.gather(1, cells.T).T
        elif not self.event.missing:
            log_mass = log_ratios(self._log_mass_of_leading(cells, self.log_mass.view(self.sizes)))
        else:
            log_mass = flat.new_zeros(flat.shape, dtype=torch.float64)
            for rows, seen in patterns(flat):
                if len(seen):
                    table = self._marginal(seen).squeeze(
                        tuple(d for d in range(len(self.sizes)) if d not in seen.tolist())
                    )
                    leading = self._log_mass_of_leading(cells[rows][:, seen], table)
                    log_mass[rows[:, None], seen] = log_ratios(leading)
        if self.event.missing:
            log_mass = log_mass.masked_fill(flat.isnan(), 0.0)
        return log_mass if self.event.is_discrete else log_mass + self._log_within(flat, cells)

    def _log_mass_of_leading(self, cells: Tensor, table: Tensor) -> Tensor:
        """log P(cells_≤d) for every d, ``(B, D)``: a joint table, summed over later entries."""
        columns = []
        for d in reversed(range(table.ndim)):
            columns.append(table[tuple(cells[:, : d + 1].T)])
            table = table.logsumexp(-1)
        return torch.stack(columns[::-1], 1)

    def _log_within(self, flat: Tensor, cells: Tensor) -> Tensor:
        """Log-density of each real entry in its cell, 0 for a discrete one: ``(B, D)``."""
        beyond = torch.maximum(self.low - flat, flat - self.high)
        outside = (cells == 0) | (cells == self.bins + 1)
        within = torch.where(outside, -self.tail.log() - beyond / self.tail, -self._width.log())
        within = within.masked_fill(self.discrete, 0)
        return within.masked_fill(flat.isnan(), 0) if self.event.missing else within

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: Positive = 1.0) -> Tensor:
        """Exact draws from p(x)^(1/T) / Z: a cell, then a position in it (uniform in a bin, exponential in a tail)."""
        log_mass = self.log_mass / temperature
        if not self.event.is_discrete:
            log_mass = log_mass - self._log_volumes(1.0) / temperature + self._log_volumes(temperature)
        cumulative = log_mass.softmax(1).cumsum(1)
        uniform = self._uniform((len(log_mass), n), generator, axis=1)
        # The first cell whose cumulative mass exceeds u: dividing by the last entry makes it 1, and u < 1.
        index = torch.searchsorted(cumulative / cumulative[:, -1:], uniform, right=True).T  # (n, tables)
        return self._placed((index // self.stride) % self.size, generator, temperature)

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: the cells of the unknown entries given those of the known ones, then positions in the cells.

        Known entries keep their values. A known entry that is missing (NaN) stays so, and is summed out. Where entries
        are independent, the unknown ones are samples.

        Raises:
            InputError: the known entries of an example have probability 0, which only ``smoothing=0`` allows.
        """
        self.check_known(x, known)
        if not self.one_table:
            return self.kept(x, known, self.sample(len(x), generator=generator))
        flat, fixed = torch.where(known, x, self.event.lowest(x)).flatten(1), known.flatten(1)
        cells, uniform = self._cells(flat), self._uniform((len(x), 1), generator, axis=0)
        for rows, seen in patterns(flat.double().masked_fill(~fixed, math.nan)) if len(x) else ():
            hidden = [d for d in range(len(self.sizes)) if d not in seen.tolist()]
            if not hidden:
                continue
            sizes = [self.sizes[d] for d in hidden]
            table = self.log_mass.view(self.sizes).permute(*seen.tolist(), *hidden).reshape(-1, math.prod(sizes))
            position = cells.new_zeros(len(rows))
            for d in seen.tolist():
                position = position * self.sizes[d] + cells[rows, d]
            self._check_possible(table[position], rows)
            cumulative = table[position].softmax(1).cumsum(1)
            index = torch.searchsorted(cumulative / cumulative[:, -1:], uniform[rows], right=True).squeeze(1)
            cells[rows[:, None], torch.tensor(hidden)] = torch.stack(torch.unravel_index(index, sizes), 1)
        return self.kept(x, known, self._placed(cells, generator, 1.0))

    @staticmethod
    def _check_possible(log_mass: Tensor, rows: Tensor) -> None:
        impossible = log_mass.isneginf().all(1).nonzero()
        if len(impossible):
            raise InputError(
                f"the known entries of example {int(rows[impossible[0]])} have probability 0 under this Histogram, so "
                "that nothing follows from them; train it with smoothing above 0"
            )

    @torch.no_grad()
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Marginal]]:
        """The frequencies of the cells of an entry given the cells of the known ones.

        Raises:
            InputError: as `complete`.
        """
        self.check_known(x, known)
        if not self.one_table:
            for entry, rows in self.unknown_rows(known):
                log_mass = self.log_mass[entry, : self.sizes[entry]].expand(len(rows), -1)
                yield entry, rows, self._marginal_of(entry, log_mass)
            return
        flat, gaps = torch.where(known, x, self.event.lowest(x)).flatten(1), ~known.flatten(1)
        cells = self._cells(flat)
        for rows, seen in patterns(flat.double().masked_fill(gaps, math.nan)) if len(x) else ():
            for entry in gaps[rows].any(0).nonzero().flatten().tolist():
                own = rows[gaps[rows, entry]]  # others miss it, as known
                both = torch.cat([seen, seen.new_tensor([entry])])
                table = self._marginal(both).movedim(entry, -1).reshape(-1, self.sizes[entry])
                log_mass = table[self._position(cells[own], seen)]
                self._check_possible(log_mass, own)
                yield entry, own, self._marginal_of(entry, log_mass.log_softmax(1))

    def _marginal_of(self, entry: int, log_mass: Tensor) -> Marginal:
        if self.discrete[entry]:
            return log_mass
        return _Bins(log_mass, self.low[entry], self.high[entry], self.tail[entry])

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """Entry by entry, with the margin of the joint table over later and over missing entries."""
        raw = self.low.expand(n, -1).clone()
        parts = list(self._leading(torch.zeros_like(raw) if gaps is None else raw.masked_fill(gaps, math.nan)))
        for entry in in_steps(range(self.event.dims)):
            log_mass = self._log_mass_at(entry, self._cells(raw) if self.one_table else raw, parts)
            if not self.discrete[entry]:
                own = (self.low[entry], self.high[entry], self.tail[entry])
                value = choose(entry, _Bins(log_mass, *own))
            else:
                value = choose(entry, log_mass) + self.low[entry]
            raw[:, entry] = torch.where(value.isnan(), raw[:, entry], value)

    def _leading(self, raw: Tensor) -> Iterator[tuple[Tensor, list[int], list[Tensor]]]:
        """Rows with the same entries observed, these entries, and the log-masses of the first one, two, … of them."""
        for rows, seen in patterns(raw) if self.one_table else ():
            if len(seen):
                hidden = tuple(d for d in range(len(self.sizes)) if d not in seen.tolist())
                tables = [self._marginal(seen).squeeze(hidden)]
                while tables[-1].ndim > 1:
                    tables.append(tables[-1].logsumexp(-1))
                yield rows, seen.tolist(), tables[::-1]

    def _log_mass_at(
        self, entry: int, cells: Tensor, parts: Sequence[tuple[Tensor, list[int], list[Tensor]]]
    ) -> Tensor:
        """log P of the cells of an entry given those of earlier ones, ``(n, cells)``; after the impossible, uniform."""
        size = self.sizes[entry]
        if not self.one_table:
            return self.log_mass[entry, :size].expand(len(cells), -1)
        found = self.log_mass.new_full((len(cells), size), -math.log(size))
        for rows, seen, tables in parts:
            if entry in seen:
                place = seen.index(entry)
                own = tables[place][tuple(cells[rows][:, seen[:place]].T)] if place else tables[0].expand(len(rows), -1)
                total = own.logsumexp(1, keepdim=True)
                found[rows] = torch.where(total == -math.inf, found[rows], own - total)
        return found

    def _placed(self, cells: Tensor, generator: Generator | None, temperature: float) -> Tensor:
        """Raw data in these cells ``(n, D)``: real entries are uniform in a bin, exponential in a tail."""
        n = len(cells)
        x = cells + self.low
        if not self.event.is_discrete:
            uniform = self._uniform((n, self.event.dims), generator, axis=0)
            beyond = -torch.log1p(-uniform) * self.tail * temperature
            inside = self.low + (cells - 1 + uniform) * self._width
            real = torch.where(cells > self.bins, self.high + beyond, inside)
            x = torch.where(self.discrete, x, torch.where(cells == 0, self.low - beyond, real))
        return x.view(n, *self.event.shape).to(self.event.dtype)

    def _uniform(self, shape: tuple[int, int], generator: Generator | None, *, axis: int) -> Tensor:
        return random.uniform(shape, generator, like=self.low.double(), axis=axis)

    @property
    def _width(self) -> Tensor:
        return (self.high - self.low) / self.bins

    @property
    def _valid(self) -> Tensor:
        """``(D, most cells)`` bool: which cells of the padded rows an entry has."""
        return torch.arange(max(self.sizes), device=self.size.device) < self.size[:, None]

    def _cells(self, flat: Tensor) -> Tensor:
        """Raw entries → cell numbers, ``(B, D)``; of a real entry 0 and bins + 1 are the tails, the top edge closed.

        The cell of a missing entry is 0.
        """
        if self.event.missing:
            flat = torch.where(flat.isnan(), self.low.to(flat.dtype), flat)
        if self.event.is_discrete:
            return flat.long() - self.low.long()
        flat = flat.double()
        inside = 1 + ((flat - self.low) / self._width).floor().clamp(0, self.bins - 1)
        inside = inside.masked_fill(flat < self.low, 0).masked_fill(flat > self.high, self.bins + 1)
        return torch.where(self.discrete, flat - self.low, inside).long()

    def _index(self, cells: Tensor) -> Tensor:
        """Cell numbers ``(B, D)`` → the cell of each table, ``(B, 1)`` for the joint one."""
        return (cells * self.stride).sum(1, keepdim=True) if self.one_table else cells

    def _outer_sum(self, rows: Tensor) -> Tensor:
        """Σ_d rows[d, cell_d] for every combination of cells: ``(D, most cells)`` → ``(1, all combinations)``."""
        total = rows.new_zeros(1)
        for row, size in zip(rows, self.sizes, strict=True):
            total = (total[:, None] + row[:size]).flatten()
        return total[None]

    def _log_frequency(self, counts: Tensor, valid: Tensor) -> Tensor:
        smoothed = (counts + self.smoothing) * valid
        return (smoothed / smoothed.sum(1, keepdim=True)).log()

    def _log_volumes(self, temperature: float) -> Tensor:
        """log ∫ (density relative to its highest value in the cell)^(1/T), in the shape of ``log_mass``."""
        rows = torch.zeros(self._valid.shape, dtype=torch.float64, device=self.device)
        last = self.bins + 1
        rows[:, 1:last] = self._width.log()[:, None]
        rows[:, 0] = rows[:, last] = (self.tail * temperature).log()
        rows = rows.masked_fill(self.discrete[:, None], 0)
        return self._outer_sum(rows) if self.one_table else rows


class _Bins(Located):
    """A real entry of a histogram: uniform in bins of equal width, with exponential tails.

    Args:
        log_mass: log P of the lower tail, the bins and the upper tail, ``(n, bins + 2)``.
        low, high: the range of the bins.
        tail: the scale of the tails.
    """

    def __init__(self, log_mass: Tensor, low: Tensor, high: Tensor, tail: Tensor) -> None:
        self.log_mass, self.low, self.high, self.tail = log_mass, low, high, tail

    def log_masses(self, edges: Tensor) -> Tensor:
        rows = max(1, _MOST_OVERLAPS // (edges.shape[1] * self.log_mass.shape[1]))
        parts = zip(self.log_mass.split(rows), edges.split(rows), strict=True)
        return torch.cat([self._of(log_mass, own) for log_mass, own in parts])

    def mean(self) -> Tensor:
        mass, (low, high, tail) = self.log_mass.double().softmax(1), self._units()
        return mass[:, 1:-1] @ self._middles() + mass[:, [0, -1]] @ torch.stack([low - tail, high + tail])

    def mode(self) -> Tensor:
        """The middle of the bin with the highest density, or the end of the range where a tail has more."""
        log_mass, (low, high, tail) = self.log_mass.double(), self._units()
        width = (high - low) / (log_mass.shape[1] - 2)
        log_p = torch.cat([log_mass[:, 1:-1] - width.log(), log_mass[:, [0, -1]] - tail.log()], 1)
        return torch.cat([self._middles(), torch.stack([low, high])])[log_p.argmax(1)]

    def _units(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.low.double(), self.high.double(), self.tail.double()

    def _middles(self) -> Tensor:
        (low, high, _), bins = self._units(), self.log_mass.shape[1] - 2
        return low + (high - low) * (torch.arange(bins, dtype=low.dtype, device=low.device) + 0.5) / bins

    def _of(self, log_mass: Tensor, edges: Tensor) -> Tensor:
        low, high, bins = self.low, self.high, log_mass.shape[1] - 2
        ends = low + (high - low) * torch.arange(bins + 1, device=low.device) / bins
        ends[-1] = high
        a, b = edges[:, :-1, None], edges[:, 1:, None]
        inside = (torch.minimum(b, ends[1:]) - torch.maximum(a, ends[:-1])).clamp(min=0).log() - ends.diff().log()
        below = self._log_tail(low - edges.flip(1).clamp(max=low)).flip(1)
        above = self._log_tail(edges.clamp(min=high) - high)
        each = torch.cat([below[..., None], inside, above[..., None]], 2)
        return torch.logsumexp(log_mass[:, None] + each, 2)

    def _log_tail(self, beyond: Tensor) -> Tensor:
        """log of e^(−a/s) − e^(−b/s) for neighbouring distances a ≤ b beyond the range: ``(n, m + 1)`` → ``(n, m)``."""
        found = -beyond[:, :-1] / self.tail + torch.log(-torch.expm1(-beyond.diff(dim=1) / self.tail))
        return found.nan_to_num(nan=-math.inf, neginf=-math.inf)
