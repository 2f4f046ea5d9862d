"""Whether samples are copies of training examples, by the distance to the nearest training example.

With the training examples T and d(x) = min over t in T of ‖x − t‖, the statistic is P(d(fake) < d(held out)) + ½ P(=).
It is ½ for a model that has learned the distribution, near 1 for a model that copies, and below ½ for samples far from
the data (Meehan, Chaudhuri, Dasgupta 2020, https://arxiv.org/abs/2004.05675, for the whole space at once).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.distances import BLOCK, bounds, check_points, first_of_each, squared
from unsup.evaluate.estimate import Estimate, mann_whitney

_NEAR = 0.01  # the quantile of held-out distances below which a sample counts as a copy


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


def nearest_neighbours(x: Tensor, train: Tensor, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """The nearest example of ``train`` ``(T, D)`` for each of ``x`` ``(N, D)``: int64 ``(N,)``; its distance, float64.

    The result is that of comparing all pairs by Σ (x − t)²; the first of equally near examples.

    Args:
        block: lower bounds in memory at once; the result does not depend on it.

    Raises:
        InputError: no training example, different numbers of features, or values that are not finite.

    >>> nearest_neighbours(torch.tensor([[3.0, 4.0]]), torch.tensor([[9.0, 9.0], [0.0, 0.0]]))
    (tensor([1]), tensor([5.], dtype=torch.float64))
    """
    check_points(x=x, train=train)
    kept = first_of_each(train)[0].cpu()  # repeated examples would all be candidates
    x, train = x.detach().cpu().double(), train.detach().cpu()[kept].double()
    least, index = x.new_full((len(x),), torch.inf), torch.full((len(x),), -1)
    step = math.isqrt(block)
    for start in range(0, len(train), step):
        other = train[start : start + step]
        for part in bounds(x, other, block):
            lowest, at = part.lower.min(1)
            open_ = ((lowest <= least[part.rows]) & (least[part.rows] > 0)).nonzero().squeeze(1)  # 0 is the least
            rows, lower = part.rows[open_], part.lower[open_]
            limit = torch.minimum(squared(x, rows, other, at[open_]), least[rows])
            here, column = (lower <= limit[:, None]).nonzero().unbind(1)
            distance = squared(x, rows[here], other, column)
            best = torch.full_like(limit, torch.inf).scatter_reduce(0, here, distance, "amin")
            column = torch.where(distance == best[here], column, len(train))
            first = torch.full_like(rows, len(train)).scatter_reduce(0, here, column, "amin")
            better = best < least[rows]
            least[rows[better]], index[rows[better]] = best[better], start + first[better]
    return kept[index], least.sqrt()
