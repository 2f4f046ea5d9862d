"""What a model needs to know of being trained by several processes: almost nothing.

Every process holds the whole model and a part of each batch, its rows in order. Three rules make n processes one:

- Noise. A generator is in the same state on every process. Inside `shared_noise` (the trainer's business) a random
  tensor with the rows of the batch is drawn for the whole batch and each process keeps its own rows; any other random
  tensor is the same everywhere.
- Statistics that couple the rows of a batch are averaged with `mean_over_processes`.
- State made from rows (replay, pools) is gathered with `gather_rows`, so that it is the same everywhere.

With one process all of this is the identity and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.overrides import TorchFunctionMode


def process_count() -> int:
    """How many processes work together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if process_count() > 1 else 0


def gather_rows(x: Tensor) -> Tensor:
    """The rows of every process, in order, without gradient: ``(B / n, ...)`` → ``(B, ...)``."""
    if process_count() == 1:
        return x
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(process_count())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of ``x`` over processes; its gradient comes back from every process."""
    if process_count() == 1:
        return x
    return _Sum.apply(x) / process_count()


class _Sum(torch.autograd.Function):
    """Sum over processes; each process's part takes the gradients that all of them have at the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def sum_over_processes(*tables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sums of named tensors over tables, those of every process; a process may have none."""
    if process_count() > 1:
        found: list[Any] = [None] * process_count()
        dist.all_gather_object(found, [{k: v.cpu() for k, v in table.items()} for table in tables])
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


def own_rows(x: Tensor) -> Tensor:
    """This process's rows of a whole batch: ``(B, ...)`` → ``(B / n, ...)``."""
    n = process_count()
    return x if n == 1 else x.tensor_split(n)[process_rank()]


class _SharedNoise(TorchFunctionMode):
    """Draws random tensors that have the rows of the batch for all processes, and keeps this one's rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.count, self.rank = rows, process_count(), process_rank()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        draw = _DRAWS.get(func)
        return func(*args, **kwargs) if draw is None else draw(self, func, args, kwargs)

    def axis(self, shape: tuple[int, ...]) -> int | None:
        return next((i for i, n in enumerate(shape) if n == self.rows), None)

    def whole(self, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        return (*shape[:axis], self.rows * self.count, *shape[axis + 1 :])

    def part(self, x: Tensor, axis: int) -> Tensor:
        return x.narrow(axis, self.rank * self.rows, self.rows)


def _by_size(mode: _SharedNoise, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.rand` and its like: sizes first, as numbers or as one sequence, or as ``size=``."""
    kwargs = dict(kwargs)
    leading: tuple[Any, ...] = ()
    if func is torch.randint:
        sizes = kwargs.pop("size", None)
        if sizes is None:
            *bounds, sizes = args
            leading = tuple(bounds)
        else:
            leading = args
    elif "size" in kwargs:
        sizes = kwargs.pop("size")
    else:
        sizes = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
    shape = tuple(sizes)
    axis = mode.axis(shape)
    if axis is None:
        return func(*leading, shape, **kwargs)
    return mode.part(func(*leading, mode.whole(shape, axis), **kwargs), axis)


def _by_example(mode: _SharedNoise, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.rand_like` and its like."""
    like, *rest = args
    axis = mode.axis(tuple(like.shape))
    if axis is None:
        return func(*args, **kwargs)
    return mode.part(func(like.new_empty(mode.whole(tuple(like.shape), axis)), *rest, **kwargs), axis)


def _by_parameters(mode: _SharedNoise, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.bernoulli`, `torch.multinomial`: the other processes' rows stand in as copies of one of ours."""
    p, *rest = args
    axis = mode.axis(tuple(p.shape))
    if axis is None:
        return func(*args, **kwargs)
    drawn = func(p.repeat(*(mode.count if i == axis else 1 for i in range(p.ndim))), *rest, **kwargs)
    return mode.part(drawn, axis)


def _in_place(mode: _SharedNoise, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``x.normal_()`` and its like."""
    x, *rest = args
    axis = mode.axis(tuple(x.shape))
    if axis is None:
        return func(*args, **kwargs)
    drawn = func(x.new_empty(mode.whole(tuple(x.shape), axis)), *rest, **kwargs)
    return x.copy_(mode.part(drawn, axis))


def _dropout(mode: _SharedNoise, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Dropout draws one number for each entry from the global generator."""
    x, *rest = args
    axis = mode.axis(tuple(x.shape))
    if axis is None:
        return func(*args, **kwargs)
    kept = func(torch.ones_like(x).repeat(*(mode.count if i == axis else 1 for i in range(x.ndim))), *rest, **kwargs)
    return x * mode.part(kept, axis)


_DRAWS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.rand, torch.randn, torch.randint), _by_size),
    **dict.fromkeys((torch.rand_like, torch.randn_like), _by_example),
    **dict.fromkeys((torch.bernoulli, torch.multinomial), _by_parameters),
    **dict.fromkeys((Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.random_), _in_place),
    torch.nn.functional.dropout: _dropout,
}


_ACTIVE: ContextVar[_SharedNoise | None] = ContextVar("_ACTIVE", default=None)


@contextmanager
def shared_noise(rows: int) -> Iterator[None]:
    """Inside, random tensors with an axis of ``rows`` (this process's part of the batch) are parts of one draw.

    The axis is the first of that length. A random tensor of another shape is drawn alike on every process.
    """
    if process_count() == 1:
        yield
        return
    mode = _SharedNoise(rows)
    token = _ACTIVE.set(mode)
    try:
        with mode:
            yield
    finally:
        _ACTIVE.reset(token)


@contextmanager
def replicated_noise() -> Iterator[None]:
    """Inside, every random tensor is the same on every process: for chains and masks that all of them share."""
    with noise_rows(-1):
        yield


@contextmanager
def noise_rows(rows: int) -> Iterator[None]:
    """Inside, it is random tensors with an axis of ``rows`` that are parts of one draw over all processes.

    For parts of a batch: pairs of its examples, several draws for each.
    """
    mode = _ACTIVE.get()
    if mode is None:
        yield
        return
    before, mode.rows = mode.rows, rows
    try:
        yield
    finally:
        mode.rows = before
