"""A buffer of the newest rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RingBuffer(nn.Module):
    """The newest K rows that were put into it, a ring buffer that is saved with the model.

    Attributes:
        rows: ``(K, F)``.
        next: the place of the oldest row, which is replaced first.
    """

    rows: Tensor
    next: Tensor

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, features))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, rows: Tensor) -> None:
        """Replace the oldest rows by ``(B, F)``; of more than K rows, the last K stay."""
        size, start = len(self.rows), int(self.next)
        kept = rows[-size:]
        places = (start + len(rows) - len(kept) + torch.arange(len(kept), device=rows.device)) % size
        self.rows[places] = kept.to(self.rows.dtype)
        self.next.fill_((start + len(rows)) % size)

    def in_order(self) -> Tensor:
        """The rows from the oldest to the newest."""
        return self.rows.roll(-int(self.next), 0)
