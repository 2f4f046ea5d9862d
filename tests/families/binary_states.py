"""All states of a few binary units, for tests by enumeration."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor


def states(n: int) -> Tensor:
    """All 2^n states, the last unit varies fastest: float64 ``(2^n, n)``."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


def index_of(v: Tensor) -> Tensor:
    """The row of each example in `states`."""
    flat = v.flatten(1).double()
    return (flat @ 2.0 ** torch.arange(flat.shape[1] - 1, -1, -1, dtype=torch.float64)).long()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
