"""Precision, recall, density and coverage: which examples lie in whose balls of nearest neighbours.

B(y) is the ball about y through its k-th nearest neighbour in its own set (y itself not counted), edge included.

- precision: share of fakes in ⋃ B(real); recall: share of reals in ⋃ B(fake)
  (Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019, https://arxiv.org/abs/1904.06991; k = 3).
- density: (1 / kM) Σ over fakes of the number of B(real) they lie in; may exceed 1. coverage: share of B(real) with a
  fake in it (Naeem, Oh, Uh, Choi, Yoo 2020, https://arxiv.org/abs/2002.09797; k = 5).

Distances are float64, a block of rows at a time, so that memory grows with N, not N².
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.frechet import check_pair

PRECISION_K, DENSITY_K = 3, 5
BLOCK = 2**22
"""Distances held at once."""
_TIE = 1e-12  # of squared norms: distances that are equal but for rounding are equal


@dataclass(frozen=True, eq=False)
class Neighbours:
    """What each example adds; the metrics are the means.

    Attributes:
        precision: ``(N,)``, one for each fake in a ball of a real.
        recall: ``(M,)``, one for each real in a ball of a fake.
        density: ``(N,)``, balls of reals about each fake, over k.
        coverage: ``(M,)``, one for each ball of a real with a fake in it.
    """

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


def neighbours(
    fake: Tensor, real: Tensor, *, precision_k: int = PRECISION_K, density_k: int = DENSITY_K, block: int = BLOCK
) -> Neighbours:
    """All four for features ``(N, D)`` and ``(M, D)``.

    Args:
        block: distances held at once; the result does not depend on it.

    Raises:
        InputError: a set has no k-th neighbour, or the numbers of features differ.

    >>> x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    >>> found = neighbours(x, x)
    >>> [float(v.mean()) for v in (found.precision, found.recall, found.coverage)]
    [1.0, 1.0, 1.0]
    """
    check_pair(fake, real)
    least = min(len(fake), len(real))
    if least <= max(precision_k, density_k):
        raise InputError(
            f"{len(fake)} fakes and {len(real)} reals given; expected more than k = {max(precision_k, density_k)} of "
            "each, so that a k-th neighbour exists"
        )
    centre = real.double().mean(0)
    fake, real = fake.detach().cpu().double() - centre.cpu(), real.detach().cpu().double() - centre.cpu()
    of_real = radii(real, (precision_k, density_k), block)  # (2, M), squared
    (of_fake,) = radii(fake, (precision_k,), block)
    precision, density = torch.zeros(len(fake)), torch.zeros(len(fake))
    recall, coverage = torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    for rows, distances, slack in _blocks(fake, real, block):
        precision[rows] = (distances <= of_real[0] + slack).any(1).float()
        inside = distances <= of_real[1] + slack
        density[rows] = inside.sum(1) / density_k
        coverage |= inside.any(0)
        recall |= (distances <= of_fake[rows, None] + slack).any(0)
    return Neighbours(precision, recall.float(), density, coverage.float())


def radii(x: Tensor, ks: tuple[int, ...], block: int = BLOCK) -> Tensor:
    """Squared distance of each example ``(N, D)`` to its k-th nearest other one, for each k: ``(len(ks), N)``."""
    found = x.new_empty(len(ks), len(x))
    for rows, distances, _ in _blocks(x, x, block):
        own = torch.arange(rows.start, rows.stop)
        distances[own - rows.start, own] = torch.inf
        nearest = distances.topk(max(ks), largest=False).values  # ascending
        for i, k in enumerate(ks):
            found[i, rows] = nearest[:, k - 1].clamp(min=0)
    return found


def _blocks(x: Tensor, y: Tensor, block: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of ``x``, their squared distances to all ``y`` and how much rounding may have changed each."""
    squares = y.square().sum(1)
    step = max(1, block // len(y))
    for start in range(0, len(x), step):
        part = x[start : start + step]
        norms = part.square().sum(1, keepdim=True) + squares
        yield slice(start, start + len(part)), torch.addmm(norms, part, y.T, alpha=-2), _TIE * norms
