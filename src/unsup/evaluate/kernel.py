"""The kernel distance between two sets of features (KID): an unbiased squared MMD with a cubic kernel.

    k(x, y) = (x·y / D + 1)³
    MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / m(m−1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m−1) − 2 Σ_{i,j} k(xᵢ, yⱼ) / m²

Bińkowski, Sutherland, Arbel, Gretton 2018, https://arxiv.org/abs/1801.01401. Its mean over pairs of subsets does not
depend on the counts, and may be negative where the sets are alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.model import keyed_generator
from unsup.evaluate.frechet import Array, as_array, check_pair

SUBSETS, SUBSET_SIZE = 100, 1000
_FAKE, _REAL = 0, 1


@dataclass(frozen=True)
class KernelDistance:
    """KID over subsets.

    Attributes:
        value: mean of MMD² over the subsets.
        spread: standard deviation over the subsets, as papers print it.
        error: standard error of ``value``, from disjoint subsets.
        subsets: how many, and ``size`` examples of each set in one.
    """

    value: float
    spread: float
    error: float
    subsets: int
    size: int


def squared_mmd(x: Array, y: Array) -> float:
    """Unbiased MMD² of features ``(N, D)`` and ``(M, D)``."""
    n, m = len(x), len(y)
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def kernel_distance(
    fake: Tensor, real: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 0
) -> KernelDistance:
    """KID of features ``(N, D)`` and ``(M, D)``.

    The subsets are drawn in rounds: each round shuffles both sets and cuts them into disjoint parts. The standard error
    is that of the mean of one round's parts, averaged over rounds. With fewer than ``2 · size`` examples the parts are
    halves of the smaller set.

    Raises:
        InputError: fewer than four examples in a set.

    >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    >>> found = kernel_distance(x[:200], x[200:], subsets=10)
    >>> found.size, abs(found.value) < 4 * found.error
    (100, True)
    """
    check_pair(fake, real)
    x, y = as_array(fake), as_array(real)
    least = min(len(x), len(y))
    if least < 4:
        raise InputError(f"{len(x)} fakes and {len(y)} reals given; expected four or more of each")
    size = min(size, least // 2)
    parts = least // size
    rounds = math.ceil(subsets / parts)
    values = np.empty((rounds, parts))
    for r in range(rounds):
        orders = [
            torch.randperm(len(a), generator=keyed_generator(seed, side, r)).numpy()
            for side, a in ((_FAKE, x), (_REAL, y))
        ]
        for p in range(parts):
            i, j = (order[p * size : (p + 1) * size] for order in orders)
            values[r, p] = squared_mmd(x[i], y[j])
    error = float(np.sqrt(values.var(1, ddof=1).mean() / parts))
    return KernelDistance(float(values.mean()), float(values.std()), error, rounds * parts, size)


def _kernel(x: Array, y: Array) -> Array:
    inner = x @ y.T / x.shape[1] + 1
    return np.asarray(inner * inner * inner)
