"""Tools for models that are trained by several processes.

Every process has the whole model and a part of the rows of each batch, in order. With three rules, n processes give
the same result as one:

- Noise. Generators have the same state on every process. Draws go through `unsup.core.random`, which draws for the
    whole batch and keeps the local rows.
- Statistics that couple the rows of a batch are averaged with `mean_over_rows`.
- State made from rows (replay buffers, pools) is gathered with `gather_rows`, so that all processes have the same.

With one process, all of this is the identity and costs nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unsup.core.random import Rows, rows_at_hand


class Group(ABC):
    """A group of processes that train together, as seen by one of them."""

    count: int
    rank: int

    @abstractmethod
    def add(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over the processes, as a new tensor."""

    def start_adding(self, x: Tensor) -> Callable[[], Any]:
        """Start to replace ``x`` by its sum over the processes. Call the result before ``x`` is read."""
        x.copy_(self.add(x))
        return lambda: None

    @abstractmethod
    def collect(self, x: Tensor) -> list[Tensor]:
        """``x`` of every process in order of rank; the shapes are equal."""

    @abstractmethod
    def first(self, x: Tensor) -> Tensor:
        """``x`` of the first process, as a new tensor; the shapes are equal."""

    @abstractmethod
    def collect_objects(self, value: Any) -> list[Any]:
        """A picklable value of every process, in order of rank."""


class _Alone(Group):
    count, rank = 1, 0

    def add(self, x: Tensor) -> Tensor:
        return x

    def collect(self, x: Tensor) -> list[Tensor]:
        return [x]

    def first(self, x: Tensor) -> Tensor:
        return x

    def collect_objects(self, value: Any) -> list[Any]:
        return [value]


class _Distributed(Group):
    """The process group of `torch.distributed`."""

    def __init__(self) -> None:
        self.count, self.rank = dist.get_world_size(), dist.get_rank()

    def add(self, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    def start_adding(self, x: Tensor) -> Callable[[], Any]:
        work = dist.all_reduce(x, async_op=True)
        assert work is not None
        return work.wait

    def collect(self, x: Tensor) -> list[Tensor]:
        x = x.detach().contiguous()
        parts = [torch.empty_like(x) for _ in range(self.count)]
        dist.all_gather(parts, x)
        return parts

    def first(self, x: Tensor) -> Tensor:
        x = x.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(x, 0)
        return x

    def collect_objects(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found


_ALONE = _Alone()
_GROUP: ContextVar[Group | None] = ContextVar("_GROUP", default=None)


def group() -> Group:
    """The current group of processes."""
    chosen = _GROUP.get()
    if chosen is not None:
        return chosen
    return _Distributed() if dist.is_available() and dist.is_initialized() else _ALONE


@contextmanager
def working_in(chosen: Group) -> Iterator[None]:
    """Use ``chosen`` as the group of processes in this context: threads in place of processes, in tests."""
    token = _GROUP.set(chosen)
    try:
        yield
    finally:
        _GROUP.reset(token)


def process_count() -> int:
    """The number of processes in the group; 1 without a process group."""
    return group().count


def process_rank() -> int:
    """The number of this process, from 0."""
    return group().rank


def share_of(total: int, count: int, rank: int) -> Rows:
    """The rows of the process ``rank`` of ``count``, out of ``total``: as even as possible, the first ones get more.

    >>> share_of(8, 3, 2)
    Rows(total=8, start=6, count=2)
    """
    each, more = divmod(total, count)
    return Rows(total, rank * each + min(rank, more), each + (rank < more))


def parts_of(total: int, count: int, rank: int, parts: int, pack: int = 1) -> tuple[Rows, ...]:
    """The rows of the process ``rank`` of ``count`` in ``parts`` parts; all processes compute one part at a time.

    Args:
        pack: number of rows that stay together; ``total`` is a multiple of it.

    >>> parts_of(8, 3, 2, 2)
    (Rows(total=8, start=6, count=1), Rows(total=8, start=7, count=1))
    >>> [parts_of(8, 3, rank, 1, pack=2)[0].count for rank in range(3)]
    [4, 2, 2]
    """
    shares = [share_of(total // pack, count, r) for r in range(count)]
    found = []
    for part in range(parts):
        of_each = [share_of(share.count, parts, part) for share in shares]
        beside = tuple(pack * own.count for own in of_each)
        start = pack * (shares[rank].start + of_each[rank].start)
        found.append(Rows(total, start, beside[rank], beside, last=part == parts - 1))
    return tuple(found)


def is_last_part() -> bool:
    """Whether this is the last part of the current batch.

    State that is updated once per step, and is not made of rows (the index of the next mask, a chain shared by all
    examples), must be written only then, so that all parts start from the same state.
    """
    rows, processes = rows_at_hand(), group()
    if rows is None:
        return True
    if rows.last is not None:
        return rows.last
    own = share_of(rows.total, processes.count, processes.rank)
    return rows.start + rows.count == own.start + own.count


def _at_hand(rows: Rows, processes: Group) -> tuple[int, ...]:
    """The number of rows of each process."""
    return rows.beside or tuple(share_of(rows.total, processes.count, r).count for r in range(processes.count))


def own_rows(x: Tensor) -> Tensor:
    """The rows of this process in the result of `gather_rows`; the length may be a multiple or a fraction of it."""
    processes, rows = group(), rows_at_hand()
    if processes.count == 1:
        return x
    if rows is None:
        own = share_of(len(x), processes.count, processes.rank)
        return x[own.start : own.start + own.count]
    counts = _at_hand(rows, processes)
    start, end = (len(x) * sum(counts[: processes.rank + i]) for i in (0, 1))
    if start % sum(counts) or end % sum(counts):
        raise ValueError(f"{len(x)} rows cannot be divided like {counts} examples")
    return x[start // sum(counts) : end // sum(counts)]


def gather_rows(x: Tensor) -> Tensor:
    """The rows of all processes, in order, without gradient: about ``(B / n, ...)`` → ``(B, ...)``."""
    processes = group()
    if processes.count == 1:
        return x
    x = x.detach()
    counts = [int(c) for c in processes.collect(torch.tensor(len(x), device=x.device))]
    padded = torch.cat([x, x.new_zeros(max(counts) - len(x), *x.shape[1:])])
    return torch.cat([part[:n] for part, n in zip(processes.collect(padded), counts, strict=True)])


def all_rows(x: Tensor) -> Tensor:
    """As `gather_rows`, with gradients, which flow back from all processes: about ``(B / n, ...)`` → ``(B, ...)``.

    If a batch is computed in parts, they are the rows of the current part.
    """
    processes = group()
    if processes.count == 1:
        return x
    counts = [int(c) for c in processes.collect(torch.tensor(len(x), device=x.device))]
    before, after = (sum(counts[part]) for part in (slice(processes.rank), slice(processes.rank + 1, None)))
    whole = torch.cat([x.new_zeros(before, *x.shape[1:]), x, x.new_zeros(after, *x.shape[1:])])
    total: Tensor = _Sum.apply(whole)
    return total


def first_row() -> int:
    """The number of the first row of this process in the result of `all_rows`."""
    processes, rows = group(), rows_at_hand()
    if processes.count == 1 or rows is None:
        return 0
    return sum(_at_hand(rows, processes)[: processes.rank])


def mean_over_rows(x: Tensor) -> Tensor:
    """The mean over processes, weighted by their number of rows; gradients flow back from all processes.

    If a batch is computed in parts, it is the mean over the current part.
    """
    processes, rows = group(), rows_at_hand()
    if processes.count == 1:
        return x
    counts = (1,) * processes.count if rows is None else _at_hand(rows, processes)
    total: Tensor = _Sum.apply(x * (counts[processes.rank] / sum(counts)))
    return total


def rows_together() -> int | None:
    """The current number of rows of all processes; None outside a step with several processes or parts."""
    rows = rows_at_hand()
    return None if rows is None else sum(_at_hand(rows, group()))


class _Sum(torch.autograd.Function):
    """Sum over processes; the part of each process receives the gradients of all processes at the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return group().add(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(gradient)
        return found


def sum_over_processes(*tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums of named tensors over the tables of all processes; a process may have no table."""
    if process_count() > 1:
        found = group().collect_objects([{k: v.cpu() for k, v in table.items()} for table in tables])
        device = next((v.device for table in tables for v in table.values()), torch.device("cpu"))
        tables = tuple({k: v.to(device) for k, v in table.items()} for part in found for table in part)
    total: dict[str, Tensor] = {}
    for table in tables:
        for name, value in table.items():
            total[name] = total[name] + value if name in total else value
    return total


def share_out(count: int, work: Callable[[int], Tensor], on_done: Callable[[int], None] | None = None) -> Tensor:
    """The rows of ``work(0)``, …, ``work(count − 1)`` in order, each computed by one of the processes.

    Every process makes the same number of calls, since a sharded model must be called by all processes at once. Surplus
    calls in the last round are wasted.

    Args:
        work: returns rows of the result, on the CPU.
        on_done: called after each round with the number of finished calls.
    """
    parts: list[dict[str, Tensor]] = []
    for first in range(0, count, process_count()):
        position = first + process_rank()
        rows = work(min(position, count - 1))
        if position < count:
            parts.append({str(position): rows})
        if on_done is not None:
            on_done(min(first + process_count(), count))
    whole = sum_over_processes(*parts)
    return torch.cat([whole[str(position)] for position in range(count)])
