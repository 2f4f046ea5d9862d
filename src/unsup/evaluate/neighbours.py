"""Precision, recall, density and coverage, from balls of nearest neighbours.

B(y) is the closed ball around y through its k-th nearest neighbour in its own set (without y itself).

- precision: share of fakes in ⋃ B(real); recall: share of reals in ⋃ B(fake)
  (Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019, https://arxiv.org/abs/1904.06991; k = 3).
- density: (1 / kM) Σ over fakes of the number of B(real) that contain them; may exceed 1. coverage: share of B(real)
  that contain a fake (Naeem, Oh, Uh, Choi, Yoo 2020, https://arxiv.org/abs/2002.09797; k = 5).

Distances are exact in float64 (`unsup.evaluate.distances`). They are computed in blocks of rows: memory is linear in N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.distances import BLOCK, bounds, check_points, first_of_each, radii, within
from unsup.evaluate.estimate import Estimate, Z, of_share

PRECISION_K, DENSITY_K = 3, 5
_GROUPS, _GROUPS_OF_MANY, _MANY = 10, 5, 4_000_000


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
    check_points(fake=fake, real=real)
    if min(len(fake), len(real)) <= (k := max(precision_k, density_k)):
        raise InputError(
            f"{len(fake)} fakes and {len(real)} reals given; expected more than {k} of each, so that a k-th neighbour "
            "exists"
        )
    fake, real = fake.detach().cpu().double(), real.detach().cpu().double()
    of_real = radii(real, (precision_k, density_k), block)  # (2, M), squared
    (of_fake,) = radii(fake, (precision_k,), block)
    # Equal examples have equal balls and are in the same ones.
    (one, fakes), (other, reals) = first_of_each(fake), first_of_each(real)
    x, y, of_real, of_fake = fake[one], real[other], of_real[:, other], of_fake[one]
    repeats = reals.bincount().double()
    precision, density = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(x), dtype=torch.float64)
    recall, coverage = torch.zeros(len(y), dtype=torch.bool), torch.zeros(len(y), dtype=torch.bool)
    for part in bounds(x, y, block):
        precision[part.rows] = within(part, x, y, of_real[:1]).any(1)
        inside = within(part, x, y, of_real[1:])
        density[part.rows] = inside.double() @ repeats / density_k
        coverage |= inside.any(0)
        recall |= within(part, x, y, of_fake[part.rows, None]).any(0)
    return Neighbours(precision[fakes].float(), recall[reals].float(), density[fakes].float(), coverage[reals].float())


def neighbour_measures(fake: Tensor, real: Tensor) -> dict[str, Estimate]:
    """The four measures by name, with intervals for new draws of both sets.

    The variance is that of a jackknife over G disjoint groups of both sets, (G − 1)/G Σ_g (θ₍g₎ − mean)², but not below
    that over examples for a fixed other set. Intervals use Student's t with G − 1 degrees of freedom, in log odds for
    shares. G is 10, or 5 for many pairs.
    """
    whole = neighbours(fake, real)
    groups = _GROUPS if len(fake) * len(real) <= _MANY else _GROUPS_OF_MANY
    parts = zip(*(torch.arange(len(x)).tensor_split(groups) for x in (fake, real)), strict=True)
    kept = [[_without(x, rows) for x, rows in zip((fake, real), both, strict=True)] for both in parts]
    left_out = [neighbours(*sets).means for sets in kept]
    wider = float(student.ppf(0.975, groups - 1)) / Z
    found = {}
    for name, terms in vars(whole).items():
        n, value = len(terms), whole.means[name]
        between = math.sqrt((groups - 1) * float(np.var([means[name] for means in left_out])))
        error = max(wider * between, float(terms.double().std()) / math.sqrt(n))
        found[name] = Estimate.normal(value, error) if name == "density" else of_share(value, error, n)
    return found


def _without(x: Tensor, rows: Tensor) -> Tensor:
    return torch.cat([x[: rows[0]], x[rows[-1] + 1 :]])
