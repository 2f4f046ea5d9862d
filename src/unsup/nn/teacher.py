"""Teachers: networks without gradients that follow a student."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

Net = TypeVar("Net", bound=nn.Module)


def teacher_of(net: Net) -> Net:
    """A copy without gradients."""
    return copy.deepcopy(net).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """θ′ ← m θ′ + (1 − m) θ for all parameters; buffers, such as running averages of a normalisation, are its own."""
    own: list[Tensor] = list(teacher.parameters())
    others = [p.detach() for p in student.parameters()]
    torch._foreach_lerp_(own, others, 1 - momentum)


def cosine_momentum(start: float, share: float) -> float:
    """1 − (1 − m₀) (cos(π k/K) + 1) / 2, from m₀ at the start to 1 at the end of a run (Grill et al. 2020).

    >>> cosine_momentum(0.99, 0.0), cosine_momentum(0.99, 1.0)
    (0.99, 1.0)
    """
    return 1 - (1 - start) * (math.cos(math.pi * share) + 1) / 2
