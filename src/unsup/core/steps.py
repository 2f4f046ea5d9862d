"""Steps of long loops, such as the pixels of a sample, for whoever shows their progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Call ``listener`` with the numbers of finished and of all steps after each step of a loop in this context."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def part_of(part: int, parts: int) -> Iterator[None]:
    """In this context, the steps of loops are those of one of several equal parts of a longer loop.

    >>> with heard_by(lambda done, total: print(done, "of", total)), part_of(1, 2):
    ...     for _ in in_steps("ab"):
    ...         pass
    3 of 4
    4 of 4
    """
    listener = _listener.get()
    if listener is None:
        yield
        return
    with heard_by(lambda done, total: listener(part * total + done, parts * total)):
        yield


def in_steps(items: Sequence[T]) -> Iterator[T]:
    """The items of a loop, each of which is a step.

    >>> with heard_by(lambda done, total: print(done, "of", total)):
    ...     for _ in in_steps("ab"):
    ...         pass
    1 of 2
    2 of 2
    """
    listener = _listener.get()
    for done, item in enumerate(items, 1):
        yield item
        if listener is not None:
            listener(done, len(items))
