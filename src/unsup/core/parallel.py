"""What a model needs to know of being trained by several processes: almost nothing.

Every process holds the whole model and a part of each batch, its rows in order. Three rules make n processes one:

- Noise. A generator is in the same state on every process, and draws go through `unsup.core.random`, which draws for
  the whole batch and keeps the rows at hand.
- Statistics that couple the rows of a batch are averaged with `mean_over_rows`.
- State made from rows (replay, pools) is gathered with `gather_rows`, so that it is the same everywhere.

With one process all of this is the identity and costs nothing.
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
    """Processes that work as one, as the one at hand sees them."""

    count: int
    rank: int

    @abstractmethod
    def add(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over the processes, a new tensor."""

    def start_adding(self, x: Tensor) -> Callable[[], Any]:
        """Begin to replace ``x`` by its sum over the processes; to be called before ``x`` is read."""
        x.copy_(self.add(x))
        return lambda: None

    @abstractmethod
    def collect(self, x: Tensor) -> list[Tensor]:
        """``x`` of every process, all of one shape, in order of rank."""

    @abstractmethod
    def first(self, x: Tensor) -> Tensor:
        """``x`` of the first process, all of one shape, a new tensor."""

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
    """The processes that work together."""
    chosen = _GROUP.get()
    if chosen is not None:
        return chosen
    return _Distributed() if dist.is_available() and dist.is_initialized() else _ALONE


@contextmanager
def working_in(chosen: Group) -> Iterator[None]:
    """Inside, ``chosen`` are the processes that work together: threads in place of processes, in tests."""
    token = _GROUP.set(chosen)
    try:
        yield
    finally:
        _GROUP.reset(token)


def process_count() -> int:
    """How many processes work together; 1 without a process group."""
    return group().count


def process_rank() -> int:
    """The number of this process, from 0."""
    return group().rank


def share_of(total: int, count: int, rank: int) -> Rows:
    """Which of ``total`` rows the process ``rank`` of ``count`` takes: as even as possible, the first ones more.

    >>> share_of(8, 3, 2)
    Rows(total=8, start=6, count=2)
    """
    each, more = divmod(total, count)
    return Rows(total, rank * each + min(rank, more), each + (rank < more))


def parts_of(total: int, count: int, rank: int, parts: int, pack: int = 1) -> tuple[Rows, ...]:
    """The rows of the process ``rank`` of ``count`` in ``parts`` parts, one of which all processes compute at a time.

    Args:
        pack: rows that stay together; ``total`` is a multiple of it.

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
    """Whether no part of the batch at hand comes after this one.

    State that moves once a step, and is not made of rows (which mask comes next, a chain that all examples share), is
    to be written then only, so that all parts start from the same.
    """
    rows, processes = rows_at_hand(), group()
    if rows is None:
        return True
    if rows.last is not None:
        return rows.last
    own = share_of(rows.total, processes.count, processes.rank)
    return rows.start + rows.count == own.start + own.count


def _at_hand(rows: Rows, processes: Group) -> tuple[int, ...]:
    """How many rows each process has at hand."""
    return rows.beside or tuple(share_of(rows.total, processes.count, r).count for r in range(processes.count))


def own_rows(x: Tensor) -> Tensor:
    """This process's rows of what `gather_rows` put together; the length may also be a multiple or part of theirs."""
    processes, rows = group(), rows_at_hand()
    if processes.count == 1:
        return x
    if rows is None:
        own = share_of(len(x), processes.count, processes.rank)
        return x[own.start : own.start + own.count]
    counts = _at_hand(rows, processes)
    start, end = (len(x) * sum(counts[: processes.rank + i]) for i in (0, 1))
    if start % sum(counts) or end % sum(counts):
        raise ValueError(f"{len(x)} rows cannot be shared out as {counts} examples are")
    return x[start // sum(counts) : end // sum(counts)]


def gather_rows(x: Tensor) -> Tensor:
    """The rows of every process, in order, without gradient: about ``(B / n, ...)`` → ``(B, ...)``."""
    processes = group()
    if processes.count == 1:
        return x
    x = x.detach()
    counts = [int(c) for c in processes.collect(torch.tensor(len(x), device=x.device))]
    padded = torch.cat([x, x.new_zeros(max(counts) - len(x), *x.shape[1:])])
    return torch.cat([part[:n] for part, n in zip(processes.collect(padded), counts, strict=True)])


def mean_over_rows(x: Tensor) -> Tensor:
    """The mean over processes of what each found for its own rows, by their number; gradients come back from all.

    Of a batch in parts, whose gradients are accumulated, it is the mean over the part at hand.
    """
    processes, rows = group(), rows_at_hand()
    if processes.count == 1:
        return x
    counts = (1,) * processes.count if rows is None else _at_hand(rows, processes)
    total: Tensor = _Sum.apply(x * (counts[processes.rank] / sum(counts)))
    return total


def rows_together() -> int | None:
    """How many rows all processes have at hand at this moment; None outside a step of several processes or parts."""
    rows = rows_at_hand()
    return None if rows is None else sum(_at_hand(rows, group()))


class _Sum(torch.autograd.Function):
    """Sum over processes; each process's part takes the gradients that all of them have at the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return group().add(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(gradient)
        return found


def sum_over_processes(*tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums of named tensors over tables, those of every process; a process may have none."""
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
    """The rows of ``work(0)``, …, ``work(count − 1)``, in order, each done by one of the processes.

    Every process makes as many calls, since a sharded model has to be called by all at once: what is left over in the
    last round is done for nothing.

    Args:
        work: its rows of the outcome, on the CPU.
        on_done: told how many are done after each round.
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
