"""A time limit for computations on tensors: slow samplers, slow scores, the first step of a large model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from unsup.core.errors import UnsupError

CLEAN_UP = 2.0
"""Seconds after an interruption in which no operation is interrupted, so that the interrupted code can clean up."""
_clean_until: ContextVar[float] = ContextVar("_clean_until", default=-math.inf)


class OutOfTime(UnsupError, TimeoutError):
    """A time limit has passed.

    Attributes:
        deadline: whose limit it is.
    """

    def __init__(self, message: str, deadline: Deadline) -> None:
        super().__init__(message)
        self.deadline = deadline


class Deadline(TorchFunctionMode):
    """In this context, a function of tensors that is called after the time limit raises `OutOfTime`.

    A running operation is not interrupted. Operations that restore a state (writes in place, grad mode) always run, and
    for `CLEAN_UP` seconds after the error all operations do, also those in surrounding deadlines. A deadline may be
    entered several times; its clock starts when it is created. It applies to the current thread only.

    Args:
        seconds: the limit from now on; infinity for no limit.
        reason: the message of the error.

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

    def __enter__(self) -> Deadline:
        if self._until < math.inf:
            super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if self._until < math.inf:
            super().__exit__(kind, error, traceback)
        if isinstance(error, OutOfTime) and error.deadline is self:
            _clean_until.set(-math.inf)  # what was interrupted has cleaned up

    @property
    def seconds_left(self) -> float:
        """The remaining time, at least 0."""
        return max(0.0, self._until - time.monotonic())

    @contextmanager
    def ends_quietly(self) -> Iterator[None]:
        """Like the deadline itself, but reaching its limit only ends the block."""
        try:
            with self:
                yield
        except OutOfTime as error:
            if error.deadline is not self:
                raise

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        now = time.monotonic()
        computes = _has_tensor(args) or _has_tensor(kwargs.values())
        if computes and now >= self._until and now >= _clean_until.get() and not _restores(func.__name__):
            _clean_until.set(now + CLEAN_UP)
            raise OutOfTime(self._reason, self)
        return func(*args, **kwargs)


def _has_tensor(values: Iterable[Any]) -> bool:
    return any(isinstance(v, Tensor) or (isinstance(v, list | tuple) and _has_tensor(v)) for v in values)


def sets_mode(name: str) -> bool:
    """Whether a function of that name sets a mode of torch, as at the end of ``no_grad``: it must not be refused.

    >>> [sets_mode(name) for name in ("_set_grad_enabled", "set_default_dtype", "exp")]
    [True, True, False]
    """
    return name.lstrip("_").startswith("set_")


def _restores(name: str) -> bool:
    """Whether a function of that name restores a state.

    >>> [_restores(name) for name in ("copy_", "__setitem__", "_set_grad_enabled", "__rsub__", "cat", "exp")]
    [True, True, True, False, False, False]
    """
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name in ("__set__", "__setitem__") or sets_mode(name)
