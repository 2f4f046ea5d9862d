"""Orders of generation: in which order the entries of an example are drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.event import Event


class Order:
    """An order of the entries of an example.

    Args:
        event: the event of one example.
        entries: numbers of the flattened entries in the order of generation, ``(D,)``; None for their own order.

    Attributes:
        dims: number of entries, D.
        entries: as above.

    >>> from unsup.core.event import BINARY
    >>> Order(Event((3,), BINARY), torch.tensor([2, 0, 1])).line(torch.tensor([[5, 6, 7]])).tolist()
    [[7, 5, 6]]
    """

    def __init__(self, event: Event, entries: Tensor | None = None) -> None:
        self.shape, self.dims = event.shape, event.dims
        self.entries = torch.arange(self.dims) if entries is None else entries
        self.position = self.entries.argsort()
        """Position of each flattened entry in the order of generation, ``(D,)``."""
        self.is_plain = entries is None

    def line(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, D)``, in the order of generation."""
        flat = x.reshape(len(x), self.dims)
        return flat if self.is_plain else flat[:, self.entries.to(x.device)]

    def grid(self, line: Tensor) -> Tensor:
        """The inverse of `line`."""
        flat = line if self.is_plain else line[:, self.position.to(line.device)]
        return flat.view(-1, *self.shape)
