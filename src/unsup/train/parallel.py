"""Several processes as one: the process group, the players under DistributedDataParallel, sharding, agreement.

`torchrun` starts the processes and sets the environment; everything here is the identity without it. What models see of
it is in `unsup.core.parallel`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from unsup.core.batch import Batch
from unsup.core.errors import InputError, TrainingError
from unsup.core.model import Model, Objective, Terms
from unsup.core.parallel import process_count
from unsup.core.random import Rows, part_of_batch

# What is called from outside and uses parameters: each has to gather them first.
_METHODS = (
    *("loss", "log_prob", "energy", "score", "estimate_log_partition"),
    *("sample", "complete", "encode", "decode", "translate"),
)
_TIMEOUT = timedelta(minutes=10)
_GONE = ("closed by peer", "reset by peer", "broken pipe", "timed out", "nccl", "gloo", "remote process")


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that `torchrun` started, for the length of the block; without `torchrun` nothing happens.

    With CUDA each process takes the GPU of its local rank and NCCL; otherwise gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


class _Player(nn.Module):
    """One objective as a module of its parameters, which is what DistributedDataParallel wraps."""

    def __init__(self, objective: Objective, loss: Callable[..., Terms]) -> None:
        super().__init__()
        self.owned = nn.ParameterList(objective.parameters)
        self.loss = loss

    def forward(self, batch: Batch, generator: Generator) -> Terms:
        return self.loss(batch, generator=generator)


def player_loss(model: Model, objective: Objective, loss: Callable[..., Terms], shard: bool) -> Callable[..., Terms]:
    """``loss`` of this process's rows, whose backward pass leaves the gradient of the whole batch.

    With ``shard`` the model already does so itself (see `shard_model`).
    """
    if process_count() == 1:
        return loss
    if shard:
        run: Callable[..., Terms] = loss
    else:
        # Some parameters act in some steps only (one mask of several, one class), hence the search for unused ones.
        run = DistributedDataParallel(_Player(objective, loss), find_unused_parameters=True)

    def call(batch: Batch, *, generator: Generator) -> Terms:
        n = process_count()
        with part_of_batch(Rows(n * len(batch), dist.get_rank() * len(batch), len(batch))):
            return run(batch, generator=generator)

    return call


def shard_model(model: Model) -> None:
    """Spread parameters, gradients and optimizer state over the processes (`fully_shard`), in place.

    Raises:
        InputError: there is one process.
    """
    if process_count() == 1:
        raise InputError("--shard spreads a model over processes and there is one; start it with torchrun")
    scalars = {p for p in model.parameters() if p.ndim == 0}  # cannot be cut; every process keeps them
    fully_shard(model, ignored_params=scalars)
    for p in scalars:
        p.register_post_accumulate_grad_hook(_average_gradient)
    methods = set(_METHODS) | {
        o.loss.__name__ for o in model.objectives() if getattr(o.loss, "__self__", None) is model
    }
    for name in methods:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def _average_gradient(p: Tensor) -> None:
    assert p.grad is not None
    dist.all_reduce(p.grad)
    p.grad /= process_count()


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, the sharded ones gathered from all processes (which all have to call this)."""
    return {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in tensors.items()}


def like(own: Tensor, value: Tensor) -> Tensor:
    """A whole tensor, sharded as ``own`` is."""
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def any_process(*flags: bool) -> tuple[bool, ...]:
    """Which flags are raised on at least one process; every process gets the same answer."""
    if process_count() == 1:
        return flags
    found = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return tuple(bool(f) for f in found)


def from_first(value: int) -> int:
    """The number that the first process gives."""
    if process_count() == 1:
        return value
    found = torch.tensor(value)
    dist.broadcast(found, 0)
    return int(found)


def mean_values(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Each number averaged over the processes."""
    if process_count() > 1:
        found = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(found)
        values = (found / process_count()).tolist()
    return dict(zip(names, values, strict=True))


def barrier() -> None:
    """Wait for the other processes."""
    any_process(False)


@contextmanager
def explained(advice: Callable[[str], str]) -> Iterator[None]:
    """Turn the failure of a collective operation into a `TrainingError` that says that a process has gone."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        lost = isinstance(error, dist.DistError) or any(word in first.lower() for word in _GONE)
        if process_count() == 1 or not lost:
            raise
        raise TrainingError(advice(first)) from error


def check_batch_size(batch_size: int) -> None:
    """Raise `InputError` unless every process gets as many rows of a batch."""
    n: Any = process_count()
    if batch_size % n:
        below, above = batch_size // n * n, -(-batch_size // n) * n
        choices = f"{below} or {above}" if below else f"{above}"
        raise InputError(f"batch_size={batch_size} does not divide over {n} processes; use --batch-size {choices}")
