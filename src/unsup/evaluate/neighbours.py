"""Precision, recall, density, coverage and memorisation, from nearest neighbours.

B(y) is the closed ball around y through its k-th nearest neighbour in its own set (without y itself).

- precision: share of fakes in ⋃ B(real); recall: share of reals in ⋃ B(fake)
  (Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019, https://arxiv.org/abs/1904.06991; k = 3).
- density: (1 / kM) Σ over fakes of the number of B(real) that contain them; may exceed 1. coverage: share of B(real)
  that contain a fake (Naeem, Oh, Uh, Choi, Yoo 2020, https://arxiv.org/abs/2002.09797; k = 5).

- memorisation: whether samples are copies of training examples, by the distance to the nearest training example. With
  the training examples T and d(x) = min over t in T of ‖x − t‖, the statistic is P(d(fake) < d(held out)) + ½ P(=).
  It is ½ for a model that has learned the distribution, near 1 for a model that copies, and below ½ for samples far
  from the data (Meehan, Chaudhuri, Dasgupta 2020, https://arxiv.org/abs/2004.05675, for the whole space at once).

Distances are exact in float64 (`unsup.evaluate.distances`). They are computed in blocks of rows: memory is linear in N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.distances import BLOCK, bounds, check_points, decided, first_of_each, nearest, nearest_neighbours
from unsup.evaluate.estimate import Estimate, Z, mann_whitney, of_share

PRECISION_K, DENSITY_K = 3, 5
_NEAR = 0.01  # the quantile of held-out distances below which a sample counts as a copy
_GROUPS, _GROUPS_OF_MANY, _MANY = 10, 5, 4_000_000
_AT_ONCE = 2**18  # pairs that are compared at once with all radii


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The terms of the examples, ``(N,)`` for fakes and ``(M,)`` for reals; the measures are their means."""

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor

    @property
    def means(self) -> dict[str, float]:
        return {name: float(terms.double().mean()) for name, terms in vars(self).items()}


def neighbours(
    fake: Tensor, real: Tensor, *, precision_k: int = PRECISION_K, density_k: int = DENSITY_K, block: int = BLOCK
) -> Neighbours:
    """All four measures for features ``(N, D)`` and ``(M, D)``.

    Args:
        block: distances in memory at once; the result does not depend on it.

    Raises:
        InputError: a set has no k-th neighbour, or the numbers of features differ.

    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> found = neighbours(x, x)
    >>> [float(v.mean()) for v in (found.precision, found.recall, found.coverage)]
    [1.0, 1.0, 1.0]
    """
    return groups_left_out(fake, real, 0, (precision_k, density_k), block)[0]


def neighbour_measures(fake: Tensor, real: Tensor) -> dict[str, Estimate]:
    """The four measures by name, with intervals for new draws of both sets.

    The variance is that of a jackknife over G disjoint groups of both sets, (G − 1)/G Σ_g (θ₍g₎ − mean)², but not below
    that over examples for a fixed other set. Intervals use Student's t with G − 1 degrees of freedom, in log odds for
    shares. G is 10, or 5 for many pairs.
    """
    from scipy.stats import t as student  # slow to import

    groups = min(_GROUPS if len(fake) * len(real) <= _MANY else _GROUPS_OF_MANY, len(fake), len(real))
    whole, *rest = groups_left_out(fake, real, groups)
    left_out = [found.means for found in rest]
    wider = float(student.ppf(0.975, groups - 1)) / Z
    found = {}
    for name, terms in vars(whole).items():
        n, value = len(terms), whole.means[name]
        between = math.sqrt((groups - 1) * float(np.var([means[name] for means in left_out])))
        error = max(wider * between, float(terms.double().std()) / math.sqrt(n))
        found[name] = Estimate.normal(value, error) if name == "density" else of_share(value, error, n)
    return found


def groups_left_out(
    fake: Tensor, real: Tensor, groups: int, ks: tuple[int, int] = (PRECISION_K, DENSITY_K), block: int = BLOCK
) -> list[Neighbours]:
    """The measures of all examples, and of the rest without each of ``groups`` slices of both sets.

    Every distance is bounded once. A ball without a group is larger only if one of its nearest neighbours is missing.
    """
    check_points(fake=fake, real=real)
    if min(len(fake), len(real)) <= (least := max(ks) + (groups > 0)):
        raise InputError(
            f"{len(fake)} fakes and {len(real)} reals given; expected more than {least} of each, so that a k-th "
            "neighbour exists"
        )
    a, b = _Balls(fake, ks[:1], groups, block), _Balls(real, ks, groups, block)
    x, y, (of_fake,), (of_real, wide) = a.points, b.points, a.limits, b.limits
    precision, density = torch.zeros(groups + 1, len(x), dtype=torch.bool), torch.zeros(groups + 1, len(x)).double()
    recall, coverage = (torch.zeros(groups + 1, len(y), dtype=torch.bool) for _ in range(2))
    largest, others = of_fake.amax(0), torch.maximum(of_real, wide).amax(0)
    for part in bounds(x, y, block):
        pairs = (part.lower <= torch.maximum(largest[part.rows, None], others)).nonzero()
        for i, j in (some.unbind(1) for some in pairs.split(_AT_ONCE)):
            rows = part.rows[i]
            squares = decided(part, x, y, i, j, torch.cat([of_fake[:, rows], of_real[:, j], wide[:, j]]))
            for g in range(groups + 1):
                inside = (squares <= wide[g, j]) & (a.copies[g, rows] > 0)
                precision[g, rows[squares <= of_real[g, j]]] = True
                recall[g, j[squares <= of_fake[g, rows]]] = True
                coverage[g, j[inside]] = True
                density[g].index_add_(0, rows[inside], b.copies[g, j[inside]])
    density /= ks[1]
    sets = (precision, a), (recall, b), (density, a), (coverage, b)
    return [Neighbours(*(balls.terms(found[g], g) for found, balls in sets)) for g in range(groups + 1)]


class _Balls:
    """The balls of a set: all of them, and those without each group.

    Attributes:
        points: the distinct examples ``(N, D)``. Equal examples have equal balls and are in the same ones.
        limits: squared radii for each k, of all balls and without each group: ``(K, G + 1, N)``; −∞ for no ball.
        copies: how often each point occurs in all, and without each group: ``(G + 1, N)``.
    """

    def __init__(self, x: Tensor, ks: tuple[int, ...], groups: int, block: int) -> None:
        x = x.detach().cpu().double()
        first, self._place = first_of_each(x)
        self.points = x[first]
        split = torch.arange(len(x)).tensor_split(max(groups, 1))
        among = [nearest(x, x[rows], max(ks), block // len(split), start=int(rows[0]))[0] for rows in split]
        self._kept = torch.ones(groups + 1, len(x), dtype=torch.bool)
        for g, rows in enumerate(split[:groups]):
            self._kept[g + 1, rows] = False
        self.limits = x.new_full((len(ks), groups + 1, len(first)), -torch.inf)
        self.copies = x.new_zeros(groups + 1, len(first))
        for g in range(groups + 1):
            near = torch.cat([v for i, v in enumerate(among) if i != g - 1], 1).sort(1).values  # (N, ·)
            rows = self._kept[g].nonzero().squeeze(1)
            self.limits[:, g, self._place[rows]] = near[rows][:, torch.tensor(ks) - 1].T
            self.copies[g] = self._place[rows].bincount(minlength=len(first))

    def terms(self, found: Tensor, group: int) -> Tensor:
        """What was found of points, for every example outside of the group."""
        return found[self._place[self._kept[group]]].float()


@dataclass(frozen=True, eq=False)
class MemorisationResult:
    """Results of `memorisation`.

    Attributes:
        nearer: P(d(fake) < d(held out)) + ½ P(=), with DeLong's interval (`mann_whitney`) for fixed training examples.
        copies: share of fakes nearer than the 1 % quantile of held-out distances.
        n: number of fakes.
        nearest: ``(N,)`` int64, the nearest training example of each fake (the first of equally near ones).
        distance: ``(N,)`` float64, its distance.
    """

    nearer: Estimate
    copies: float
    n: int
    nearest: Tensor
    distance: Tensor


def memorisation(fake: Tensor, held_out: Tensor, train: Tensor) -> MemorisationResult:
    """The test for features of samples ``(N, D)``, held-out examples ``(M, D)`` and training examples ``(T, D)``.

    Raises:
        InputError: fewer than two fakes or held-out examples, no training example, different numbers of features, or
            values that are not finite.

    >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> copied = memorisation(x[:100], x[100:200], x[:100])
    >>> copied.nearer.value, copied.copies, bool(copied.distance.any())
    (1.0, 1.0, False)
    """
    if min(len(fake), len(held_out)) < 2:
        raise InputError(f"{len(fake)} fakes and {len(held_out)} held-out examples given; expected two or more of each")
    check_points(fake=fake, held_out=held_out, train=train)
    index, distance = nearest_neighbours(torch.cat([fake, held_out]), train)
    of_fake, of_held_out = distance[: len(fake)], distance[len(fake) :]
    copies = float((of_fake < of_held_out.quantile(_NEAR)).double().mean())
    return MemorisationResult(mann_whitney(of_held_out, of_fake), copies, len(fake), index[: len(fake)], of_fake)
