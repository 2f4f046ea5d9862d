"""Outliers: which rows of a table are unlikely, and which of their entries make them so.

The default detector needs no labels and no settings. It is the mean of two log-densities, in nats:

    score(x) = −½ [ (1/M) Σ_m log p_m(x) + Σ_d log h_d(x_d) ]

The p_m are Gaussian mixtures that choose their components themselves (`components="auto"`), each fitted to a few
hundred random rows (bagging: Breiman 1996, https://doi.org/10.1007/BF00058655). A small sample holds few anomalies, so
that a group of them is not mistaken for a component; isolation forests rely on the same (Liu, Ting, Zhou 2008,
https://doi.org/10.1109/ICDM.2008.17). The mixtures model the dependence between entries. The h_d are histograms of each
entry by itself, with Sturges' number of bins, and model shapes that are not Gaussian. A mean of log-densities is a
logarithmic opinion pool: what either of them finds impossible has a high score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
    Model,
    keyed_generator,
)
from unsup.core.random import uniform
from unsup.core.registry import create, model_class
from unsup.evaluate.likelihood import CHUNK

MEMBERS = 10
"""Gaussian mixtures of the default detector."""
ROWS_EACH = 512
"""Random rows that each is fitted to, and never more than `SHARE` of them."""
SHARE = 0.7
_FIT, _NOISE, _LEARN = range(3)
_MIXTURE, _HISTOGRAM = "gaussian-mixture", "histogram"


class Detector(Protocol):
    """What scores rows, and says what each entry adds."""

    def scores(self, x: Tensor) -> Tensor:
        """Higher is odder, in nats: raw rows ``(N, *shape)`` → ``(N,)``, float64."""

    def surprisals(self, x: Tensor) -> Tensor:
        """What each entry adds to the score, up to a constant of the entry: ``(N, *shape)`` → ``(N, D)``, float64."""


@dataclass(frozen=True)
class Entry:
    """An entry of an odd row.

    Attributes:
        column: its name.
        value: what it holds.
        typical: the median of that column.
        nats: by how much it is more surprising than the column's entries usually are.
    """

    column: str
    value: float
    typical: float
    nats: float


@dataclass(frozen=True)
class Outlier:
    """A row with its place in the ranking.

    Attributes:
        rank: from 1.
        row: its number, from 0, in the data.
        name: what the reader calls it.
        score: higher is odder, in nats.
        entries: those that make it odd, the oddest first.
    """

    rank: int
    row: int
    name: str
    score: float
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class SingleModel:
    """A detector of one model: −log p, or the energy of a model without a density.

    An entry's surprisal is −log p(x_d | the other entries) where the model knows it, else its factor of log p, else how
    much log p rises when the entry is replaced by the column's median.

    Args:
        model: trained.
        typical: the median of each column, ``(*shape)``.
        seed: of the noise behind a bound.
    """

    model: Model
    typical: Tensor
    seed: int = 0

    def scores(self, x: Tensor) -> Tensor:
        return torch.cat([self._score(part, i) for i, part in enumerate(x.split(CHUNK))])

    @torch.no_grad()
    def _score(self, x: Tensor, chunk: int) -> Tensor:
        x = x.to(self.model.device)
        if isinstance(self.model, HasDensity):
            generator = keyed_generator(self.seed, _NOISE, chunk, device=self.model.device)
            return -self.model.log_prob(x, generator=generator).double().cpu()
        if isinstance(self.model, HasEnergy):
            return self.model.energy(x).double().cpu()
        name = type(self.model).__name__
        raise CapabilityError(f"{name} has neither a density nor an energy; take a model that can score (unsup models)")

    @torch.no_grad()
    def surprisals(self, x: Tensor) -> Tensor:
        if isinstance(self.model, HasEntryConditionals):
            return torch.cat([-self.model.log_given_rest(part).double().cpu() for part in x.split(CHUNK)])
        if isinstance(self.model, Factorises):
            generator = keyed_generator(self.seed, _NOISE, 0, device=self.model.device)
            parts = [self.model.log_conditionals(part, generator=generator) for part in x.split(CHUNK)]
            if all(part is not None for part in parts):
                return torch.cat([-part.double().cpu() for part in parts if part is not None])
        return torch.stack([self._gains(row) for row in x]) if len(x) else x.new_zeros(0, self.typical.numel())

    def _gains(self, row: Tensor) -> Tensor:
        """How much the score of one row falls when each of its entries is the median: ``(D,)``."""
        flat, typical = row.flatten(), self.typical.flatten()
        changed = flat.repeat(len(flat) + 1, 1)
        changed[range(len(flat)), range(len(flat))] = typical.to(flat.dtype)
        scores = self.scores(changed.view(-1, *row.shape))
        return scores[-1] - scores[:-1]


@dataclass(frozen=True)
class Pool:
    """The mean of detectors, each with a weight."""

    members: Sequence[Detector]
    weights: Sequence[float]

    def scores(self, x: Tensor) -> Tensor:
        return sum((w * m.scores(x) for m, w in self._each), torch.zeros(len(x), dtype=torch.float64))

    def surprisals(self, x: Tensor) -> Tensor:
        start = torch.zeros(len(x), math.prod(x.shape[1:]), dtype=torch.float64)
        return sum((w * m.surprisals(x) for m, w in self._each), start)

    @property
    def _each(self) -> list[tuple[Detector, float]]:
        return list(zip(self.members, self.weights, strict=True))


def default_detector(event: Event, x: Tensor, *, seed: int = 0) -> Detector:
    """Fit the default detector to rows ``(N, *event.shape)``, which may hold anomalies.

    Where the event has unordered entries, which Gaussian mixtures do not take, the histograms are all of it.

    Args:
        seed: of the rows that each mixture is fitted to, and of their starts.

    Raises:
        InputError: fewer than two rows.

    >>> x = torch.cat([torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([[3.0, 9.0]])])
    >>> int(default_detector(Event((2,)), x).scores(x).argmax())
    200
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} rows given; outliers are found among two or more")
    middle = typical_values(x)
    bins = 1 + math.ceil(math.log2(len(x)))  # Sturges 1926
    histogram = create(_HISTOGRAM, event, seed=seed, bins=bins, joint="never").double()
    learn_by_counting(histogram, x, seed=seed)
    counted = SingleModel(histogram, middle, seed)
    if model_class(_MIXTURE).refusal(event) is not None:
        return counted
    size = max(2, min(ROWS_EACH, int(SHARE * len(x))))
    mixtures = []
    for number in range(MEMBERS):
        generator = keyed_generator(seed, _FIT, number)
        rows = uniform((len(x),), generator, like=torch.zeros((), dtype=torch.float64), axis=None).argsort()[:size]
        mixture = create(_MIXTURE, event, seed=seed + number)
        mixture.prepare(Batch(x[rows]), generator=generator)
        mixtures.append(SingleModel(mixture.eval(), middle, seed))
    return Pool([counted, *mixtures], [0.5, *[0.5 / MEMBERS] * MEMBERS])


def learn_by_counting(model: Model, x: Tensor, *, seed: int) -> None:
    """One pass of a model that counts."""
    assert isinstance(model, LearnsByCounting)
    generator = keyed_generator(seed, _LEARN)
    model.prepare(Batch(x), generator=generator)
    model.maximize(model.statistics(Batch(x), generator=generator))
    model.eval()


def typical_values(x: Tensor) -> Tensor:
    """The median of each entry (the lower one of two), ``(N, *shape)`` → ``(*shape)``."""
    return x.flatten(1).sort(0).values[(len(x) - 1) // 2].view(x.shape[1:])


def rank(
    detector: Detector, x: Tensor, names: Sequence[str], columns: Sequence[str], *, top: int, entries: int = 3
) -> tuple[tuple[Outlier, ...], Tensor]:
    """The ``top`` oddest rows of x, and the scores of all.

    An entry's nats are its surprisal less the median surprisal of its column, over a sample of the rows: how surprising
    the *value* is, whatever the units and the spread of the column. Only entries above 0 are told.

    Args:
        names, columns: of the rows, and of the flattened entries.
        entries: at most so many of each row.
    """
    scores = detector.scores(x)
    order = scores.argsort(descending=True, stable=True)[:top]
    reference = order.new_tensor(range(0, len(x), max(1, len(x) // _REFERENCE)))[:_REFERENCE]
    surprisal = detector.surprisals(x[torch.cat([order, reference])])
    excess = surprisal[: len(order)] - surprisal[len(order) :].median(0).values
    typical = typical_values(x).flatten().tolist()
    found = []
    for place, row in enumerate(order.tolist()):
        oddest = excess[place].argsort(descending=True, stable=True)[:entries].tolist()
        values = x[row].flatten().tolist()
        told = tuple(
            Entry(columns[d], values[d], typical[d], float(excess[place, d])) for d in oddest if excess[place, d] > 0
        )
        found.append(Outlier(place + 1, row, names[row], float(scores[row]), told))
    return tuple(found), scores


_REFERENCE = 200
"""Rows by which the usual surprisal of a column is known."""
