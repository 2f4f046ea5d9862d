"""Threads in place of processes, so that the results of several can be compared with one in the same test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from unsup.core.machine import fast_cpu
from unsup.core.parallel import Group, working_in

T = TypeVar("T")
_PATIENCE = 120.0  # seconds that one thread waits for the others


class _Gone(RuntimeError):
    """Another thread ended without the collective call that this one waits for."""


class _Meeting:
    """A collective exchange: in each round, every thread contributes one value and receives those of all."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._changed = threading.Condition()
        self._rounds: dict[int, dict[int, Any]] = {}
        self._next = [0] * count
        self._left: set[int] = set()

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """The values of this round, in order of rank, when all threads have contributed."""
        with self._changed:
            number = self._next[rank]
            self._next[rank] += 1
            brought = self._rounds.setdefault(number, {})
            brought[rank] = value
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(brought) == self.count or self._left - brought.keys(), _PATIENCE)
            if len(brought) < self.count:
                raise _Gone(f"process {rank} waits in collective call {number}; the others make no such call")
            if min(self._next) > number:
                self._rounds.pop(number, None)
            return [brought[r] for r in range(self.count)]

    def leave(self, rank: int) -> None:
        with self._changed:
            self._left.add(rank)
            self._changed.notify_all()


class ThreadGroup(Group):
    """One of ``count`` threads that act as processes; see `as_processes`."""

    def __init__(self, rank: int, meeting: _Meeting) -> None:
        self.count, self.rank = meeting.count, rank
        self._meeting = meeting

    def add(self, x: Tensor) -> Tensor:
        return torch.stack(self.collect(x)).sum(0).to(x.dtype)

    def collect(self, x: Tensor) -> list[Tensor]:
        return [part.clone() for part in self._meeting.exchange(self.rank, x.detach().clone())]

    def first(self, x: Tensor) -> Tensor:
        return self.collect(x)[0]

    def collect_objects(self, value: Any) -> list[Any]:
        return self._meeting.exchange(self.rank, value)


def as_processes(count: int, work: Callable[[int], T]) -> list[T]:
    """The results of ``work(rank)`` in ``count`` threads that act as processes, in order of rank.

    In the threads, `unsup.core.parallel` sees ``count`` processes. Each thread needs its own model and generator,
    created
    before: threads must not draw from the global generator, which they share (`create` does).

    Raises:
        RuntimeError: one thread makes a collective call that another does not make. Exceptions of ``work`` are raised
            unchanged.

    >>> from unsup.core.parallel import gather_rows, process_count
    >>> as_processes(2, lambda rank: (process_count(), gather_rows(torch.tensor([rank])).tolist()))
    [(2, [0, 1]), (2, [0, 1])]
    """
    meeting = _Meeting(count)
    found: list[Any] = [None] * count
    errors: dict[int, BaseException] = {}

    def run(rank: int) -> None:
        try:
            with working_in(ThreadGroup(rank, meeting)):
                found[rank] = work(rank)
        except BaseException as error:  # raised again below, in the calling thread
            errors[rank] = error
        finally:
            meeting.leave(rank)

    # Global state of all threads (kernels, the generator) is restored once, here.
    with fast_cpu(torch.device("cpu")), torch.random.fork_rng(devices=[]):
        threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise next((e for e in errors.values() if not isinstance(e, _Gone)), next(iter(errors.values())))
    return found
