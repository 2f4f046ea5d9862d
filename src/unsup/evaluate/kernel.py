"""The kernel distance between two sets of features (KID): an unbiased squared MMD with a cubic kernel.

    k(x, y) = (x·y / D + 1)³
    MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / m(m−1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m−1) − 2 Σ_{i,j} k(xᵢ, yⱼ) / m²

Bińkowski, Sutherland, Arbel, Gretton 2018, https://arxiv.org/abs/1801.01401. Its mean over pairs of subsets does not
depend on the counts. It may be negative for similar sets.
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


@dataclass(frozen=True)
class KernelDistance:
    """The mean of MMD² over ``subsets`` of ``size`` examples, and its standard error from disjoint subsets."""

    value: float
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

    Each round shuffles both sets and divides them into disjoint subsets. The standard error is that of the mean over
    the subsets of a round, averaged over rounds. With fewer than ``2 · size`` examples, the subsets are halves of the
    smaller set.

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
    values = np.empty((math.ceil(subsets / parts), parts))
    for r in range(len(values)):
        fakes, reals = (
            torch.randperm(len(a), generator=keyed_generator(seed, side, r))[: parts * size].view(parts, size).numpy()
            for side, a in enumerate((x, y))
        )
        values[r] = [squared_mmd(x[i], y[j]) for i, j in zip(fakes, reals, strict=True)]
    error = float(np.sqrt(values.var(1, ddof=1).mean() / parts))
    return KernelDistance(float(values.mean()), error, values.size, size)


def _kernel(x: Array, y: Array) -> Array:
    inner = x @ y.T / x.shape[1] + 1
    return np.asarray(inner * inner * inner)
