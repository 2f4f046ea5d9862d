"""Whether samples are copies of training examples: their distances to the nearest, beside those of held-out examples.

With T the training examples and d(x) = min over t in T of ‖x − t‖, held-out examples say how near new examples of the
same law come. The statistic is P(d(fake) < d(held out)) + ½ P(=): ½ for a model that has learned the law, towards 1
for one that copies, below ½ for one whose samples lie off the data (Meehan, Chaudhuri, Dasgupta 2020,
https://arxiv.org/abs/2004.05675, over the whole space at once).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.estimate import Estimate, mann_whitney

BLOCK = 2**22
"""Distances held at once."""
_NEAR = 0.01
_UNIT = 2.0**-53  # relative rounding of float64


@dataclass(frozen=True, eq=False)
class MemorisationResult:
    """What the distances say.

    Attributes:
        nearer: P(d(fake) < d(held out)) + ½ P(=), with DeLong's interval (`mann_whitney`). The training examples are
            held fixed.
        copies: share of fakes nearer than the 1 % quantile of held-out distances.
        n: fakes.
        nearest: ``(N,)`` int64, the training example nearest to each fake, the first of equally near ones.
        distance: ``(N,)`` float64, how far it is.
    """

    nearer: Estimate
    copies: float
    n: int
    nearest: Tensor
    distance: Tensor

    def to_json(self) -> dict[str, Any]:
        return {"nearer": self.nearer.to_json(), "copies": self.copies, "n": self.n}


def memorisation(fake: Tensor, held_out: Tensor, train: Tensor) -> MemorisationResult:
    """The test for features of samples ``(N, D)``, held-out examples ``(M, D)`` and training examples ``(T, D)``.

    Raises:
        InputError: fewer than two fakes or held-out examples, no training example, numbers of features that differ,
            values that are not finite.

    >>> x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    >>> copied = memorisation(x[:100], x[100:200], x[:100])
    >>> copied.nearer.value, copied.copies, bool(copied.distance.any())
    (1.0, 1.0, False)
    """
    if min(len(fake), len(held_out)) < 2:
        raise InputError(f"{len(fake)} fakes and {len(held_out)} held-out examples given; expected two or more of each")
    for name, x in (("fake", fake), ("held_out", held_out)):
        _check(name, x, train)
    index, distance = nearest_neighbours(torch.cat([fake, held_out]), train)
    of_fake, of_held_out = distance[: len(fake)], distance[len(fake) :]
    copies = float((of_fake < of_held_out.quantile(_NEAR)).double().mean())
    return MemorisationResult(mann_whitney(of_held_out, of_fake), copies, len(fake), index[: len(fake)], of_fake)


def nearest_neighbours(x: Tensor, train: Tensor, *, block: int = BLOCK) -> tuple[Tensor, Tensor]:
    """The nearest of ``train`` ``(T, D)`` to each of ``x`` ``(N, D)``: int64 ``(N,)``, and its distance, float64.

    What comparing every pair by Σ (x − t)² gives, the first of equal ones. Most pairs are ruled out by

        ‖x − t‖² ≥ (1 − κ)(‖x‖² + ‖t‖²) − 2 x·t,        κ = 8 (D + 16) 2⁻⁵³,

    where the right side is one matrix product and κ more than makes up for its rounding.

    Args:
        block: lower bounds held at once; the result does not depend on it.

    Raises:
        InputError: no training example, numbers of features that differ, values that are not finite.

    >>> nearest_neighbours(torch.tensor([[3.0, 4.0]]), torch.tensor([[9.0, 9.0], [0.0, 0.0]]))
    (tensor([1]), tensor([5.], dtype=torch.float64))
    """
    _check("x", x, train)
    kept = _first_of_each(train)
    x, train = x.detach().cpu().double(), train[kept]
    centre = x.mean(0)
    centred = x - centre
    shrunk = 1 - 8 * (x.shape[1] + 16) * _UNIT
    norms = shrunk * centred.square().sum(1)
    least, index = torch.full_like(norms, torch.inf), torch.full((len(x),), -1)
    step = max(1, block // len(x))
    for start in range(0, len(train), step):
        part = train[start : start + step].detach().cpu().double()
        other = part - centre
        # The right side without ‖x‖², which the limit on it takes in.
        bounds = torch.addmm(shrunk * other.square().sum(1), centred, other.T, alpha=-2)  # (N, step)
        lowest, at = bounds.min(1)
        # A distance of 0 cannot be beaten.
        rows = ((lowest + norms <= least) & (least > 0)).nonzero().squeeze(1)
        limit = torch.minimum(_squared(x, rows, part, at[rows], block), least[rows]) - norms[rows]
        here, column = (bounds[rows] <= limit[:, None]).nonzero().unbind(1)
        squared = _squared(x, rows[here], part, column, block)
        best = torch.full_like(limit, torch.inf).scatter_reduce(0, here, squared, "amin")
        first = torch.full_like(rows, len(train)).scatter_reduce(
            0, here, torch.where(squared == best[here], column, len(train)), "amin"
        )
        better = best < least[rows]
        least[rows[better]], index[rows[better]] = best[better], start + first[better]
    return kept.cpu()[index], least.sqrt()


def _first_of_each(train: Tensor) -> Tensor:
    """The rows that equal no earlier row, in order. Repeated rows would all be candidates at once."""
    distinct, inverse = train.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(train), device=train.device)
    return torch.full_like(rows[: len(distinct)], len(train)).scatter_reduce(0, inverse, rows, "amin").sort().values


def _squared(x: Tensor, i: Tensor, y: Tensor, j: Tensor, block: int) -> Tensor:
    """‖xᵢ − yⱼ‖² of pairs ``(P,)``."""
    step = max(1, block // x.shape[1])
    parts = [(x[a] - y[b]).square().sum(1) for a, b in zip(i.split(step), j.split(step), strict=True)]
    return torch.cat(parts)


def _check(name: str, x: Tensor, train: Tensor) -> None:
    """Raise `InputError` unless both are finite and ``(N, D)`` with one D, not empty."""
    if x.ndim != 2 or train.ndim != 2 or x.shape[1] != train.shape[1] or not len(x) or not len(train):
        raise InputError(
            f"{name} of shape {tuple(x.shape)} and train of shape {tuple(train.shape)} given; expected (N, D) and "
            "(T, D), not empty"
        )
    for which, values in ((name, x), ("train", train)):
        if bad := int((~values.isfinite()).any(1).sum()):
            raise InputError(
                f"{bad} of {len(values)} examples of {which} have features that are not finite; leave them out, or "
                "mend the model"
            )
