"""Exact distances among many points: a matrix product excludes most pairs; the others are computed by differences.

With x̃ = x − c and ỹ = y − c for any c, and κ = 8 (D + 16) 2⁻⁵³,

    (1 − κ)(‖x̃‖² + ‖ỹ‖²) − 2 x̃·ỹ  ≤  Σ (x − y)²  ≤  (1 + κ)(‖x̃‖² + ‖ỹ‖²) − 2 x̃·ỹ,

where κ exceeds the rounding errors of all three. The bounds are tight if c is near x and y. So rows are sorted by the
column with the largest range and divided into blocks, and c is the median of a block: distant clusters and outliers
then only affect the bounds among themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unsup.core.errors import InputError

BLOCK = 2**22
"""Bounds in memory at once."""
_UNIT = 2.0**-53  # relative rounding of float64
_PAIRS = 2**18  # numbers in a block of differences, which fits in a cache
_SPARE = 3  # additional candidates, which nearly always include the nearest neighbours


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds of the squared distances of some rows of x to all of y.

    Attributes:
        rows: which rows of x, int64 ``(B,)``.
        lower: ``(B, M)``.
        row_slack, column_slack: ``(B, 1)`` and ``(1, M)``; the upper bounds are the lower ones plus both.
    """

    rows: Tensor
    lower: Tensor
    row_slack: Tensor
    column_slack: Tensor


def bounds(x: Tensor, y: Tensor, block: int = BLOCK) -> Iterator[Bounds]:
    """The bounds for float64 points ``(N, D)`` and ``(M, D)``, in blocks of rows of x."""
    kappa = 8 * (x.shape[1] + 16) * _UNIT
    order = x[:, (x.amax(0) - x.amin(0)).argmax()].argsort()
    for rows in order.split(max(1, block // len(y))):
        centre = x[rows].median(0).values
        near, far = x[rows] - centre, y - centre
        norms, others = near.square().sum(1, keepdim=True), far.square().sum(1, keepdim=True)
        left = torch.cat([-2 * near, (1 - kappa) * norms, torch.ones_like(norms)], 1)
        right = torch.cat([far, torch.ones_like(others), (1 - kappa) * others], 1)
        yield Bounds(rows, left @ right.T, 3 * kappa * norms, 3 * kappa * others.T)


def squared(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """Σ (xᵢ − yⱼ)² of pairs ``(P,)``."""
    step = max(1, _PAIRS // x.shape[1])
    return torch.cat([(x[a] - y[b]).square().sum(1) for a, b in zip(i.split(step), j.split(step), strict=True)])


def radii(x: Tensor, ks: tuple[int, ...], block: int = BLOCK) -> Tensor:
    """Squared distance of each point ``(N, D)`` to its k-th nearest neighbour, for each k: ``(len(ks), N)``."""
    return nearest(x, x, max(ks), block, start=0)[0][:, torch.tensor(ks) - 1].T


def nearest(x: Tensor, y: Tensor, k: int, block: int = BLOCK, start: int | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest of y ``(M, D)`` for each of x ``(N, D)``: squared distances and rows of y, both ``(N, k)``.

    They are sorted by distance, equally near ones by row; of many at distance 0, any are found. Neighbours that do not
    exist are at ∞.

    Args:
        start: the row of x from which y is a part of it: a point is not its own neighbour.
    """
    found, which = x.new_full((len(x), k), torch.inf), torch.zeros(len(x), k, dtype=torch.long)
    count = min(k + _SPARE, len(y))
    for part in bounds(x, y, block):
        lower, rows = part.lower, part.rows
        if start is not None:
            own = ((rows >= start) & (rows < start + len(y))).nonzero().squeeze(1)
            lower[own, rows[own] - start] = torch.inf
        low, column = lower.topk(count, largest=False)
        column = column.where(low < torch.inf, len(y)).sort().values
        real = column < len(y)
        some = squared(x, rows.repeat_interleave(count), y, column.flatten().clamp(max=len(y) - 1)).view(-1, count)
        some, order = some.masked_fill(~real, torch.inf).sort(stable=True)
        found[rows, :count], which[rows, :count] = some[:, :k], column.gather(1, order)[:, :k]
        if count == len(y):
            continue
        # Other points may be as near if their bounds are; no distance is below 0.
        limit = some[:, k - 1]
        unsure = ((low[:, -1] <= limit) & (limit > 0)).nonzero().squeeze(1)
        if len(unsure):
            here, column = (lower[unsure] <= limit[unsure, None]).nonzero().unbind(1)
            distance = squared(x, rows[unsure][here], y, column)
            order = distance.argsort(stable=True)
            order = order[here[order].argsort(stable=True)]  # by row, then by distance
            counts = here.bincount(minlength=len(unsure))
            first = order[(counts.cumsum(0) - counts)[:, None] + torch.arange(k)]
            found[rows[unsure]], which[rows[unsure]] = distance[first], column[first]
    return found, which


def decided(part: Bounds, x: Tensor, y: Tensor, i: Tensor, j: Tensor, limits: Tensor) -> Tensor:
    """Numbers ``(P,)`` that are at most a limit exactly if the squared distance of row i of the block and yⱼ is.

    Args:
        limits: ``(L, P)``, for each pair. A distance is computed only if its bounds do not decide all of its limits.
    """
    found = part.lower[i, j]
    upper = found + part.row_slack[i, 0] + part.column_slack[0, j]
    open_ = ((found <= limits) & (limits < upper)).any(0).nonzero().squeeze(1)
    if len(open_):
        found[open_] = squared(x, part.rows[i[open_]], y, j[open_])
    return found


def first_of_each(x: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of each set of equal rows, in order, and for every row the position of its first among them."""
    distinct, inverse = x.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(x), device=x.device)
    first = torch.full_like(rows[: len(distinct)], len(x)).scatter_reduce(0, inverse, rows, "amin")
    kept, order = first.sort()
    return kept, order.argsort()[inverse]


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
        (distance,), (row,) = (v.unbind(1) for v in nearest(x, train[start : start + step], 1, block))
        better = distance < least
        least[better], index[better] = distance[better], start + row[better]
    return kept[index], least.sqrt()


def check_points(least: int = 1, /, **sets: Tensor) -> None:
    """Raise `InputError` unless all sets are finite and ``(N, D)`` with one D, and N of ``least`` or more."""
    widths = {x.shape[1] if x.ndim == 2 and len(x) >= least else -1 for x in sets.values()}
    if len(widths) > 1 or -1 in widths:
        shapes = " and ".join(f"{name} of shape {tuple(x.shape)}" for name, x in sets.items())
        counts = "not empty" if least == 1 else f"with {least} examples or more"
        raise InputError(f"{shapes} given; expected (N, D) and (M, D), {counts}")
    for name, x in sets.items():
        if bad := int((~x.isfinite()).any(1).sum()):
            raise InputError(
                f"{bad} of {len(x)} examples of {name} have features that are not finite; remove these examples, or "
                "fix the model"
            )
