"""A limit on the time of what computes with tensors: slow samplers, slow scores, the first step of a large model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from unsup.core.errors import InputError


class OutOfTime(InputError):
    """The time for something is over."""


class Deadline(TorchFunctionMode):
    """Inside, an operation on tensors after the time is over raises `OutOfTime`.

    One operation is never cut short. What restores a state (writes in place, grad mode) always runs, and after the
    error everything does, so that what was interrupted can clean up. A deadline may be entered several times; its clock
    starts when it is made.

    Args:
        seconds: from now on; infinitely many for no limit.
        reason: what the error says.

    >>> import torch
    >>> with Deadline(0.0, "0 s are over"):
    ...     torch.zeros(2).exp()
    Traceback (most recent call last):
    unsup.core.deadline.OutOfTime: 0 s are over
    """

    def __init__(self, seconds: float, reason: str) -> None:
        super().__init__()
        self.seconds = seconds
        self._until = time.monotonic() + seconds
        self._reason = reason
        self._raised = False

    def __enter__(self) -> Deadline:
        self._raised = False
        if self._until < math.inf:
            super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._until < math.inf:
            super().__exit__(*error)

    @property
    def seconds_left(self) -> float:
        """How much of the time is left, at least 0."""
        return max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Raise `OutOfTime` if the time is over."""
        if time.monotonic() >= self._until:
            self._raised = True
            raise OutOfTime(self._reason)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self._raised and args and isinstance(args[0], Tensor) and not func.__name__.endswith("_"):
            self.check()
        return func(*args, **(kwargs or {}))
