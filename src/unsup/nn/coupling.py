"""Couplings: one part of an example is transformed entry by entry, with parameters from a network of the other part.

    y_seen = x_seen,  y_moved = b(x_moved; net(x_seen)),  log|det ∂y/∂x| = Σ log b′

(Dinh, Krueger, Bengio 2014, https://arxiv.org/abs/1410.8516). The network is any module, since it is never inverted; b
is a `Bijection`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

from torch import Tensor, nn

from unsup.nn.bijection import Bijection
from unsup.nn.conditions import joined
from unsup.nn.invertible import Arithmetic, Exact, Invertible
from unsup.nn.split import Partition, Split
from unsup.prob.distributions import at_least_float32


class Coupling(Invertible, Exact):
    """One part is transformed with parameters that the conditioner computes from the other.

    >>> import torch
    >>> from unsup.nn.bijection import Additive
    >>> from unsup.nn.conditioner import mlp
    >>> from unsup.nn.split import Halves
    >>> coupling = Coupling(Halves(2), mlp(2, (16,), 1), Additive())
    >>> y, log_det = coupling(torch.randn(5, 3))
    >>> y.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))

    Args:
        split: splits an example into the seen and the transformed part.
        conditioner: maps the seen part to the parameters of the bijection.
    """

    def __init__(self, split: Split, conditioner: nn.Module, bijection: Bijection) -> None:
        super().__init__()
        self.split, self.conditioner, self.bijection = split, conditioner, bijection

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen, moved = self.split.parts(x)
        moved, log_derivative = self.bijection(moved, _outputs(self.conditioner, self.bijection, seen, context))
        return self.split.join(seen, moved), self.split.total(log_derivative)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        seen, moved = self.split.parts(y)
        outputs = _outputs(self.conditioner, self.bijection, seen, context)
        return self.split.join(seen, self.bijection.inverse(moved, outputs))

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        seen, moved = self.split.parts(x)
        outputs = _outputs(self.conditioner, self.bijection, arithmetic.real(seen), context)
        return self.split.join(seen, self.bijection.exactly(moved, outputs, arithmetic, self.split.transformed))

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        seen, moved = self.split.parts(y)
        outputs = _outputs(self.conditioner, self.bijection, arithmetic.real(seen), context)
        return self.split.join(seen, self.bijection.exactly_inverse(moved, outputs, arithmetic, self.split.transformed))


class Alternating(Invertible, Exact):
    """Couplings that transform the two parts of one partition alternately, starting with the second.

    The parts are stored separately in all couplings, so that nothing is gathered or joined between them.

    Args:
        couplings: conditioner and bijection of each coupling.
    """

    def __init__(self, split: Partition, couplings: Iterable[tuple[nn.Module, Bijection]]) -> None:
        super().__init__()
        conditioners, bijections = zip(*couplings, strict=True)
        self.split = split
        self.conditioners, self.bijections = nn.ModuleList(conditioners), nn.ModuleList(bijections)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        seen, moved = self.split.parts(x)
        log_det = x.new_zeros(len(x))
        for conditioner, bijection in self._couplings():
            now, log_derivative = bijection(moved, _outputs(conditioner, bijection, seen, context))
            log_det = log_det + self.split.total(log_derivative)
            seen, moved = now, seen
        return self.split.join(*self._in_order(seen, moved)), log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        seen, moved = self._in_order(*self.split.parts(y))
        for conditioner, bijection in reversed(list(self._couplings())):
            outputs = _outputs(conditioner, bijection, moved, context)
            seen, moved = moved, bijection.inverse(seen, outputs)
        return self.split.join(seen, moved)

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        seen, moved = self.split.parts(x)
        for conditioner, bijection in self._couplings():
            outputs = _outputs(conditioner, bijection, arithmetic.real(seen), context)
            seen, moved = bijection.exactly(moved, outputs, arithmetic), seen
        return self.split.join(*self._in_order(seen, moved))

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        seen, moved = self._in_order(*self.split.parts(y))
        for conditioner, bijection in reversed(list(self._couplings())):
            outputs = _outputs(conditioner, bijection, arithmetic.real(moved), context)
            seen, moved = moved, bijection.exactly_inverse(seen, outputs, arithmetic)
        return self.split.join(seen, moved)

    def _in_order(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The parts after the last coupling, which an odd number of couplings has swapped."""
        return (second, first) if len(self.bijections) % 2 else (first, second)

    def _couplings(self) -> Iterator[tuple[nn.Module, Bijection]]:
        return zip(self.conditioners, cast(Iterable[Bijection], self.bijections), strict=True)


def _outputs(conditioner: nn.Module, bijection: Bijection, seen: Tensor, context: Tensor | None) -> Tensor:
    """The outputs of a network, which are blocks along axis 1, as parameters ``(B, C, ..., outputs_each)``.

    The features of a condition are appended to those of vectors, or as channels to each pixel of images.
    """
    if context is not None and seen.ndim == 4 and context.ndim == 2:
        context = context[:, :, None, None].expand(-1, -1, *seen.shape[2:])
    outputs = at_least_float32(conditioner(joined(seen, context)))
    return outputs.unflatten(1, (bijection.outputs_each, -1)).movedim(1, -1)
