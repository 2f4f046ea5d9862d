"""Invertible steps: value and log-determinant in one call, and the inverse. A flow is a chain of them.

A step maps examples ``(B, ...)`` and may change their shape, but not their number of entries. Log-determinants and
tensors are at least float32; only conditioners compute in a smaller type.

`Exact` steps can also be computed without rounding errors, for lossless coding: they move entries, they apply
increasing maps to entries, such as x · exp(s) + t, whose parameters are functions of other entries, or they are
`Smooth` and state their Jacobian. How such a map is exact is up to an `Arithmetic`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from unsup.nn.split import Partition
from unsup.nn.traces import traces
from unsup.prob.distributions import at_least_float32


class Invertible(nn.Module, ABC):
    """A map of examples with an inverse and a known Jacobian determinant.

    Features ``(B, F)`` of a condition are passed to all steps; those whose parameters come from a network use them.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, ...)`` → y ``(B, ...)`` and log|det ∂y/∂x| ``(B,)``."""

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The x that `forward` maps to ``y``, with running averages in place of batch statistics."""


class Arithmetic(ABC):
    """Exact computation with fixed-point numbers, which are int64 tensors ``(B, ...)``."""

    @abstractmethod
    def real(self, x: Tensor) -> Tensor:
        """The numbers as a floating-point tensor, for a network."""

    @abstractmethod
    def affine(self, x: Tensor, log_scale: Tensor | None, shift: Tensor | None, where: Tensor | None = None) -> Tensor:
        """x · exp(log_scale) + shift, rounded so that `affine_inverse` with the same parameters is the exact inverse.

        Args:
            log_scale: of the shape of ``x``, or one that expands to it; None: 0.
            shift: like ``log_scale``.
            where: the entries that change, bool, of a shape that expands to that of ``x``; None: all.
        """

    @abstractmethod
    def affine_inverse(
        self, y: Tensor, log_scale: Tensor | None, shift: Tensor | None, where: Tensor | None = None
    ) -> Tensor:
        """The x that `affine` maps to ``y``. The maps are inverted in reverse order."""

    @abstractmethod
    def monotone(self, x: Tensor, curve: Callable[[Tensor], Tensor], where: Tensor | None = None) -> Tensor:
        """A map that is the increasing ``curve`` at many places, and linear between them.

        Args:
            curve: values of the places of all entries, float64 of the shape of ``x``.
            where: as of `affine`.
        """

    @abstractmethod
    def monotone_inverse(self, y: Tensor, curve: Callable[[Tensor], Tensor], where: Tensor | None = None) -> Tensor:
        """The x that `monotone` maps to ``y``."""

    @abstractmethod
    def smooth(self, x: Tensor, step: Smooth, context: Tensor | None) -> Tensor:
        """y near that of a step, with small noise whose distribution follows from the step's Jacobian."""

    @abstractmethod
    def smooth_inverse(self, y: Tensor, step: Smooth, context: Tensor | None) -> Tensor:
        """The x that `smooth` maps to ``y``."""


class Exact(ABC):
    """Capability of an `Invertible`: the same map on fixed-point numbers, with an exact inverse.

    The parameters of a map must be computed from entries that it does not change.
    """

    @abstractmethod
    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        """y of fixed-point numbers, as `forward` with running averages in place of batch statistics.

        ``context`` has a row for each of those that `Arithmetic.real` returns.
        """

    @abstractmethod
    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        """The x that `exactly` maps to ``y``, with the same maps in reverse order."""


class Smooth(Invertible, Exact):
    """A step that changes all entries at once. Fixed-point numbers pass it with small noise: `Arithmetic.smooth`.

    What the methods below compute for an example does not depend on the others of the batch, up to rounding errors.
    """

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return arithmetic.smooth(x, self, context)

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return arithmetic.smooth_inverse(y, self, context)

    @abstractmethod
    def jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """∂y/∂x of the entries in order, ``(B, D, D)``: column d is the derivative along x_d. It may be approximate."""

    def value(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y without a log-determinant."""
        with traces("none"):
            y: Tensor = self(x, context)[0]
        return y

    def preimage(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The x whose `value` is ``y``."""
        return self.inverse(y, context)

    def freeze(self) -> None:
        """Compute what depends on parameters alone, which do not change any more."""
        return


class Chain(Invertible, Exact):
    """A sequence of steps; their log-determinants are summed.

    >>> chain = Chain([Squeeze(), DiagonalScale((4, 2, 3))])
    >>> y, log_det = chain(torch.zeros(5, 1, 4, 6))
    >>> y.shape, log_det.shape
    (torch.Size([5, 4, 2, 3]), torch.Size([5]))
    """

    def __init__(self, steps: Iterable[Invertible]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = _zero(x)
        for step in self.steps:
            x, more = step(x, context)
            log_det = log_det + more
        return x, log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        for step in reversed(_steps(self.steps)):
            y = step.inverse(y, context)
        return y

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        for step in _exact(self.steps):
            x = step.exactly(x, arithmetic, context)
        return x

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        for step in reversed(_exact(self.steps)):
            y = step.exactly_inverse(y, arithmetic, context)
        return y


class Rearrangement(Invertible, Exact):
    """A step that only moves entries, in tensors of any type."""

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        y: Tensor = self(x)[0]
        return y

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return self.inverse(y)


class Flatten(Rearrangement):
    """Examples of ``shape`` become vectors: ``(B, *shape)`` → ``(B, D)``."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flatten(1), _zero(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y.unflatten(1, self.shape)


class Squeeze(Rearrangement):
    """The 2 × 2 blocks of an image become channels: ``(B, C, H, W)`` → ``(B, 4C, H/2, W/2)``.

    The order is that of `torch.nn.functional.pixel_unshuffle`, which leaves an empty batch unchanged.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        blocks = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, H/2, 2, W/2, 2)
        return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3), _zero(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        blocks = y.unflatten(1, (-1, 2, 2))  # (B, C, 2, 2, H/2, W/2)
        return blocks.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


class DiagonalScale(Invertible, Exact):
    """y = x ⊙ exp(s) with a learned s of the shape of an example (NICE, section 3.3).

    Args:
        start: initial value of s.
    """

    def __init__(self, shape: Sequence[int], start: float = 0.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.full(tuple(shape), start))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = at_least_float32(self.log_scale)
        return x * log_scale.exp(), log_scale.sum().expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return y * (-at_least_float32(self.log_scale)).exp()

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return arithmetic.affine(x, self.log_scale[None], None)

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        return arithmetic.affine_inverse(y, self.log_scale[None], None)


class MultiScale(Invertible, Exact):
    """After each scale except the last, a part of the entries is factored out (RealNVP, section 3.6).

    The factored-out parts of all scales form the output vector: ``(B, *shape)`` → ``(B, D)``.

    Args:
        scales: the steps of each scale.
        split: its first part continues, its second is factored out.
        shapes: shape of the part of an example that is factored out after each scale.
    """

    def __init__(self, scales: Iterable[Invertible], split: Partition, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.scales, self.split, self.shapes = nn.ModuleList(scales), split, list(shapes)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        *before, last = _steps(self.scales)
        log_det, out = _zero(x), []
        for scale in before:
            y, more = scale(x, context)
            x, done = self.split.parts(y)
            log_det = log_det + more
            out.append(done.flatten(1))
        x, more = last(x, context)
        return torch.cat([*out, x.flatten(1)], 1), log_det + more

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        *before, last = self._pieces(y)
        *scales, last_scale = _steps(self.scales)
        x = last_scale.inverse(last, context)
        for scale, done in zip(reversed(scales), reversed(before), strict=True):
            x = scale.inverse(self.split.join(x, done), context)
        return x

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        *before, last = _exact(self.scales)
        out = []
        for scale in before:
            x, done = self.split.parts(scale.exactly(x, arithmetic, context))
            out.append(done.flatten(1))
        return torch.cat([*out, last.exactly(x, arithmetic, context).flatten(1)], 1)

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        *before, last = self._pieces(y)
        *scales, last_scale = _exact(self.scales)
        x = last_scale.exactly_inverse(last, arithmetic, context)
        for scale, done in zip(reversed(scales), reversed(before), strict=True):
            x = scale.exactly_inverse(self.split.join(x, done), arithmetic, context)
        return x

    def _pieces(self, y: Tensor) -> list[Tensor]:
        """The factored-out part of each scale."""
        pieces = y.split([math.prod(shape) for shape in self.shapes], 1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


def _steps(modules: nn.ModuleList) -> list[Invertible]:
    return list(cast(Iterable[Invertible], modules))


def _exact(modules: nn.ModuleList) -> list[Exact]:
    return list(cast(Iterable[Exact], modules))


def _zero(x: Tensor) -> Tensor:
    """The log-determinant of a permutation of entries."""
    return x.new_zeros(len(x))
