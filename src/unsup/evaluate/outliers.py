"""Outliers: unlikely rows of a table, and the entries that cause their scores.

The default detector needs no labels and no settings. It is the mean of two log-densities, in nats, and not
normalised itself:

    score(x) = −½ [ (1/M) Σ_m log p_m(x) + Σ_d log h_d(x_d) ]

The p_m are Gaussian mixtures with automatic selection of components (`components="auto"`), each fitted to a few hundred
random rows (bagging: Breiman 1996, https://doi.org/10.1007/BF00058655). A small sample has few anomalies, so a group of
anomalies does not become a component, as for isolation forests (Liu, Ting, Zhou 2008,
https://doi.org/10.1109/ICDM.2008.17). The mixtures model the dependence between entries. The h_d are histograms of
single entries with Sturges' number of bins; they model shapes that are not Gaussian. The mean of log-densities is a
logarithmic opinion pool: a row that either of them excludes has a high score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import (
    Factorises,
    HasDensity,
    HasEnergy,
    HasEntryConditionals,
    LearnsByCounting,
    LeavesOut,
    Model,
    keyed_generator,
)
from unsup.core.random import uniform
from unsup.core.registry import create, model_class
from unsup.evaluate.likelihood import chunk_of

MEMBERS = 10
"""Gaussian mixtures of the default detector."""
ROWS_EACH = 512
"""Random rows for each mixture, at most the fraction `SHARE` of all rows."""
SHARE = 0.7
LEAST = 0.5
"""Nats from which an entry is listed as unusual."""
_SHARE_OF_FIRST = 0.2
_REFERENCE = 200  # rows for the usual surprisal of a column
_FIT, _NOISE, _LEARN = range(3)
_MIXTURE, _HISTOGRAM = "gaussian-mixture", "histogram"


class Detector(Protocol):
    """Scores rows and their entries."""

    def scores(self, x: Tensor) -> Tensor:
        """In nats, higher is more anomalous: raw rows ``(N, *shape)`` → ``(N,)``, float64."""

    def surprisals(self, x: Tensor) -> Tensor:
        """How surprising each entry is given the others, up to a constant per entry: ``(N, *shape)`` → ``(N, D)``.

        In nats, float64. They do not sum to the score.
        """


@dataclass(frozen=True)
class Entry:
    """An entry of an outlier; ``typical`` is the column's median, ``nats`` its surprisal minus the usual one."""

    position: int
    column: str
    value: float
    typical: float
    nats: float


@dataclass(frozen=True)
class Outlier:
    """A ranked row.

    Attributes:
        rank: from 1.
        row: its number in the data, from 0.
        name: from the reader.
        score: in nats, higher is more anomalous.
        entries: the most surprising ones, in decreasing order.
        excess: nats of all flattened entries, ``(D,)``.
    """

    rank: int
    row: int
    name: str
    score: float
    entries: tuple[Entry, ...]
    excess: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class SingleModel:
    """A detector from one model: −log p, or the energy of a model without a density.

    A model that is made of its training examples (`LeavesOut`) scores each row as if it had not been one.

    The surprisal of an entry is −log p(x_d | the other entries) if the model has it, else its factor of log p, else the
    increase of log p if the entry is replaced by the median of its column.

    Args:
        model: a trained model.
        typical: the median of each column, ``(*shape)``.
        seed: of the noise of a bound.
    """

    model: Model
    typical: Tensor
    seed: int = 0

    def scores(self, x: Tensor) -> Tensor:
        return self._scores(x, x)

    def _scores(self, x: Tensor, own: Tensor) -> Tensor:
        """Scores of x, without the training examples ``own`` in models that are made of their examples."""
        size = chunk_of(self.model.event)
        parts = zip(x.split(size), own.split(size), strict=True)
        return torch.cat([self._score(part, out, i) for i, (part, out) in enumerate(parts)])

    @torch.no_grad()
    def _score(self, x: Tensor, own: Tensor, chunk: int) -> Tensor:
        x = x.to(self.model.device)
        if isinstance(self.model, HasDensity):
            generator = keyed_generator(self.seed, _NOISE, chunk, device=self.model.device)
            if isinstance(self.model, LeavesOut):
                return -self.model.log_prob_without(x, own.to(x.device), generator=generator).double().cpu()
            return -self.model.log_prob(x, generator=generator).double().cpu()
        if isinstance(self.model, HasEnergy):
            return self.model.energy(x).double().cpu()
        name = type(self.model).__name__
        raise CapabilityError(f"{name} has neither a density nor an energy; unsup models lists models that score")

    @torch.no_grad()
    def surprisals(self, x: Tensor) -> Tensor:
        if isinstance(self.model, HasEntryConditionals):
            return torch.cat(
                [-self.model.log_given_rest(part).double().cpu() for part in x.split(chunk_of(self.model.event))]
            )
        if isinstance(self.model, Factorises):
            generator = keyed_generator(self.seed, _NOISE, 0, device=self.model.device)
            parts = [
                self.model.log_conditionals(part, generator=generator) for part in x.split(chunk_of(self.model.event))
            ]
            if all(part is not None for part in parts):
                return torch.cat([-part.double().cpu() for part in parts if part is not None])
        return torch.stack([self._gains(row) for row in x]) if len(x) else x.new_zeros(0, self.typical.numel())

    def _gains(self, row: Tensor) -> Tensor:
        """The decrease of the score of one row if each of its entries is replaced by the median: ``(D,)``."""
        flat, typical = row.flatten(), self.typical.flatten()
        changed = flat.repeat(len(flat) + 1, 1)
        changed[range(len(flat)), range(len(flat))] = typical.to(flat.dtype)
        scores = self._scores(changed.view(-1, *row.shape), row.expand(len(changed), *row.shape))
        return scores[-1] - scores[:-1]


@dataclass(frozen=True)
class Pool:
    """The weighted sum of detectors."""

    members: Sequence[tuple[float, Detector]]

    def scores(self, x: Tensor) -> Tensor:
        return torch.stack([weight * member.scores(x) for weight, member in self.members]).sum(0)

    def surprisals(self, x: Tensor) -> Tensor:
        return torch.stack([weight * member.surprisals(x) for weight, member in self.members]).sum(0)


def default_detector(event: Event, x: Tensor, *, seed: int = 0) -> Detector:
    """Fit the default detector to rows ``(N, *event.shape)``, which may contain anomalies.

    If Gaussian mixtures do not support the event, only the histograms are used.

    Args:
        seed: of the rows for each mixture, and of the fit.

    Raises:
        InputError: fewer than two rows.

    >>> from unsup.core.event import REAL
    >>> x = torch.cat([torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([[3.0, 9.0]])])
    >>> int(default_detector(Event((2,), REAL), x).scores(x).argmax())
    200
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} rows given; expected two or more, to find outliers among them")
    middle = typical_values(x)
    bins = 1 + math.ceil(math.log2(len(x)))  # Sturges 1926
    histogram = create(_HISTOGRAM, event, seed=seed, bins=bins, joint="never").double()
    assert isinstance(histogram, LearnsByCounting)
    generator = keyed_generator(seed, _LEARN)
    histogram.prepare(Batch(x), generator=generator)
    histogram.maximize(histogram.statistics(Batch(x), generator=generator))
    counted = SingleModel(histogram.eval(), middle, seed)
    if model_class(_MIXTURE).refusal(event) is not None:
        return counted
    size = max(2, min(ROWS_EACH, int(SHARE * len(x))))
    mixtures = []
    for number in range(MEMBERS):
        generator = keyed_generator(seed, _FIT, number)
        rows = uniform((len(x),), generator, like=torch.zeros((), dtype=torch.float64), axis=None).argsort()[:size]
        mixture = create(_MIXTURE, event, seed=seed + number)
        mixture.prepare(Batch(x[rows]), generator=generator)
        mixtures.append((0.5 / MEMBERS, SingleModel(mixture.eval(), middle, seed)))
    return Pool([(0.5, counted), *mixtures])


def typical_values(x: Tensor) -> Tensor:
    """The median of each entry (the lower one of two) without missing ones, ``(N, *shape)`` → ``(*shape)``."""
    flat = x.flatten(1)
    if not flat.is_floating_point():
        return flat.sort(0).values[(len(x) - 1) // 2].view(x.shape[1:])
    return flat.nanmedian(0).values.view(x.shape[1:])


def rank(
    detector: Detector, x: Tensor, names: Sequence[str], columns: Sequence[str], *, top: int, entries: int = 3
) -> tuple[tuple[Outlier, ...], Tensor]:
    """The ``top`` rows of x with the highest scores, and all scores.

    The nats of an entry are its surprisal minus the median surprisal of its column over a sample of the rows, which
    does not depend on the unit and the spread of the column. Entries of less than `LEAST` nats, or of less than a
    fifth of those of the first, are not listed.

    Args:
        names, columns: of the rows, and of the flattened entries.
        entries: at most this number per row.
    """
    distinct, inverse = x.unique(dim=0, return_inverse=True)
    scores = detector.scores(distinct)[inverse]  # equal rows have equal scores, also where noise is involved
    order = scores.argsort(descending=True, stable=True)[:top]
    count = min(len(x), _REFERENCE)
    reference = torch.arange(count) * len(x) // count  # evenly spaced: a table may be sorted
    surprisal = detector.surprisals(x[torch.cat([order, reference])])
    excess = surprisal[: len(order)] - surprisal[len(order) :].median(0).values
    typical = typical_values(x).flatten().tolist()
    found = []
    for place, row in enumerate(order.tolist()):
        most = excess[place].argsort(descending=True, stable=True)[:entries].tolist()
        nats, values = excess[place].tolist(), x[row].flatten().tolist()
        least = max(LEAST, _SHARE_OF_FIRST * nats[most[0]])
        causes = tuple(Entry(d, columns[d], values[d], typical[d], nats[d]) for d in most if nats[d] >= least)
        found.append(Outlier(place + 1, row, names[row], float(scores[row]), causes, excess[place]))
    return tuple(found), scores
