"""Orders of generation: in which order the entries of an example are drawn, and where they are."""

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
        beginning: what may be known of an example that is completed: a clause of an error.

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
        self.beginning = "the known part must be the first entries in the order of generation"
        if entries is None and event.layout == "sequence":
            self.beginning = "the known part must be the beginning of the sequence"

    def line(self, x: Tensor) -> Tensor:
        """``(B, *event.shape)`` → ``(B, D)``, in the order of generation."""
        flat = x.reshape(len(x), self.dims)
        return flat if self.is_plain else flat[:, self.entries.to(x.device)]

    def begins(self, known: Tensor) -> bool:
        """Whether the known entries of each example, bool ``(B, *event.shape)``, are the first ones."""
        line = self.line(known)
        return not bool((line[:, 1:] & ~line[:, :-1]).any())

    def grid(self, line: Tensor) -> Tensor:
        """The inverse of `line`."""
        flat = line if self.is_plain else line[:, self.position.to(line.device)]
        return flat.view(-1, *self.shape)

    def places(self, each: int = 1) -> tuple[Tensor, ...]:
        """Where the sites are along each axis of an example, in order: integers ``(L,)``; the first entry of a site.

        Args:
            each: number of entries of a site, which follow each other.
        """
        return torch.unravel_index(self.entries[::each], self.shape)

    def coordinates(self, each: int = 1) -> Tensor:
        """`places` scaled to [−1, 1]: ``(L, axes)``.

        Axes of length 1 are left out, and so is the last axis of an example if a site has several entries.

        >>> from unsup.core.event import BINARY
        >>> Order(Event((1, 2, 3), BINARY)).coordinates().tolist()[:2]
        [[-1.0, -1.0], [-1.0, 0.0]]
        """
        axes = [(place, side) for place, side in zip(self.places(each), self.shape, strict=True) if side > 1]
        if each > 1:
            axes = axes[:-1]
        scaled = [2 * place / (side - 1) - 1 for place, side in axes]
        return torch.stack(scaled, 1) if scaled else torch.zeros(self.dims // each, 0)

    def unreached(self, reached: Tensor) -> Tensor:
        """Earlier entries that do not reach an entry, by flattened entries: `IsAutoregressive.blind_spot`.

        Args:
            reached: ``(D, D)`` bool: whether position i of the order sees position j.
        """
        position = self.position
        return (position[:, None] > position[None, :]) & ~reached[position][:, position]
