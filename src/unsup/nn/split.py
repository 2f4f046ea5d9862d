"""Ways to split an example into two parts: seen and transformed by a coupling, or kept and factored out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_DIAGONAL, _ANTIDIAGONAL = [0, 3], [1, 2]  # corners of a 2 × 2 block, as pixel_unshuffle numbers them


class Split(nn.Module, ABC):
    """A split into the part that a coupling sees, and a tensor in which some entries are transformed."""

    @property
    @abstractmethod
    def transformed(self) -> Tensor | None:
        """Which entries of the second tensor are transformed, of a shape that expands to its shape; None: all."""

    @abstractmethod
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The seen part, and the tensor whose entries (all or some) are transformed."""

    @abstractmethod
    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        """The example again: ``join(*parts(x)) = x``."""

    @abstractmethod
    def total(self, log_derivative: Tensor) -> Tensor:
        """The sum of a log-derivative (of the shape of the transformed tensor) over transformed entries: ``(B,)``."""


class Checkerboard(Split):
    """A checkerboard: pixels of one colour are seen (the others are blank), those of the other are transformed.

    Both parts are whole images ``(B, C, H, W)``; of the moved one only the entries in ``mask`` count.

    Args:
        colour: colour of the seen pixels, 0 at the corner.
    """

    mask: Tensor

    def __init__(self, height: int, width: int, colour: int) -> None:
        super().__init__()
        mask = (torch.arange(height)[:, None] + torch.arange(width)) % 2 != colour
        self.register_buffer("mask", mask[None, None], persistent=False)  # (1, 1, H, W)

    @property
    def transformed(self) -> Tensor | None:
        return self.mask

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * ~self.mask, x

    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        return torch.where(self.mask, moved, seen)

    def total(self, log_derivative: Tensor) -> Tensor:
        return (log_derivative * self.mask).sum((1, 2, 3))


class Partition(Split):
    """Every entry is in one of two tensors, so that both parts can be transformed alternately."""

    @property
    def transformed(self) -> Tensor | None:
        return None

    def total(self, log_derivative: Tensor) -> Tensor:
        return log_derivative.flatten(1).sum(1)


class Halves(Partition):
    """Axis 1 is split in two: the first ``size`` entries or channels, and the others.

    Args:
        moves_first: whether the first part is transformed.
    """

    def __init__(self, size: int, *, moves_first: bool = False) -> None:
        super().__init__()
        self.size, self.moves_first = size, moves_first

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, others = x[:, : self.size], x[:, self.size :]
        return (others, first) if self.moves_first else (first, others)

    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((moved, seen) if self.moves_first else (seen, moved), 1)


class EqualHalves(Partition):
    """The halves of the channels.

    Args:
        moves_first: whether the first half is transformed.
    """

    def __init__(self, *, moves_first: bool = False) -> None:
        super().__init__()
        self.moves_first = moves_first

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.tensor_split(2, 1)
        return (second, first) if self.moves_first else (first, second)

    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        return torch.cat((moved, seen) if self.moves_first else (seen, moved), 1)


class HalfCheckerboard(Partition):
    """The two colours of a checkerboard, each as an image of half the width: ``(B, C, H, W)`` → ``(B, C, H, W/2)``.

    Args:
        colour: colour of the seen pixels, 0 at the corner.
    """

    def __init__(self, colour: int) -> None:
        super().__init__()
        self.colour = colour

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = self._turned(x[..., ::2], x[..., 1::2])
        return (odd, even) if self.colour else (even, odd)

    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        even, odd = self._turned(*((moved, seen) if self.colour else (seen, moved)))
        return torch.stack([even, odd], -1).flatten(-2)

    def _turned(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Both with their odd rows exchanged."""
        odd = (torch.arange(left.shape[-2], device=left.device) % 2 == 1)[:, None]
        return torch.where(odd, right, left), torch.where(odd, left, right)


class EvenOdd(Partition):
    """The entries 0, 2, 4, … of vectors are seen; the entries 1, 3, 5, … are transformed."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, ::2], x[:, 1::2]

    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        left = seen.shape[1] - moved.shape[1]  # 1 if the number of entries is odd
        woven = torch.stack((seen[:, : moved.shape[1]], moved), 2).flatten(1)
        return torch.cat((woven, seen[:, -1:]), 1) if left else woven


class Corners(Partition):
    """Channels of a squeezed image: the diagonals of the 2 × 2 blocks, and their antidiagonals (RealNVP, figure 4)."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        corners = x.unflatten(1, (-1, 4))  # (B, C, 4, H, W)
        first, second = corners[:, :, _DIAGONAL], corners[:, :, _ANTIDIAGONAL]
        return first.transpose(1, 2).flatten(1, 2), second.transpose(1, 2).flatten(1, 2)

    def join(self, seen: Tensor, moved: Tensor) -> Tensor:
        (a, d), (b, c) = seen.chunk(2, 1), moved.chunk(2, 1)
        return torch.stack((a, b, c, d), 2).flatten(1, 2)
