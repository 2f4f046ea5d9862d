"""The training examples whose codes are nearest to those of other examples, by cosine."""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.distances import check_points
from unsup.evaluate.spread import directions

BANK = 60_000
"""Training examples that are searched; if there are more, they are chosen by a hash of their position."""
_QUERIES = 256  # at once


def nearest_codes(asked: Tensor, bank: Tensor, k: int, *, block: int = 2**22) -> tuple[Tensor, Tensor]:
    """The ``k`` rows of ``bank`` ``(N, F)`` nearest to each of ``(M, F)``: int64 ``(M, k)``, and their cosines.

    They are sorted by cosine, equally near ones by row. A code of zeros has cosine 0 to all.

    Args:
        k: at most N are found.
        block: numbers of the matrix of cosines in memory at once; the result does not depend on it.

    Raises:
        InputError: shapes that do not match, codes that are not finite, or k below 1.

    >>> nearest_codes(torch.tensor([[2.0, 0.1]]), torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]), 2)[0]
    tensor([[1, 0]])
    """
    check_points(asked=asked, bank=bank)
    if k < 1:
        raise InputError(f"k is {k}; expected 1 or more")
    known, found, cosines = directions(bank), [], []
    step = max(1, block // min(len(asked), _QUERIES))
    for part in directions(asked).split(_QUERIES):
        best, rows = part.new_zeros(len(part), 0), torch.zeros(len(part), 0, dtype=torch.int64)
        for start in range(0, len(known), step):
            cosine = part @ known[start : start + step].T
            own = torch.arange(start, start + cosine.shape[1]).expand(len(part), -1)
            best, order = torch.cat([best, cosine], 1).sort(dim=1, descending=True, stable=True)
            best, rows = best[:, :k], torch.cat([rows, own], 1).gather(1, order[:, :k])
        found.append(rows)
        cosines.append(best)
    return torch.cat(found), torch.cat(cosines)
