"""Training with several processes: the process group, sums of gradients, sharding, agreement.

`torchrun` starts the processes and sets the environment; without it, everything here is the identity. The interface for
models is in `unsup.core.parallel`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from unsup.core.errors import InputError, TrainingError
from unsup.core.model import Model
from unsup.core.parallel import group, process_count

# Methods that are called from outside and use parameters; each must gather them first.
_METHODS = (
    *("loss", "log_prob", "log_prob_each_class", "log_conditionals", "conditionals", "predict_proba"),
    *("energy", "score", "estimate_log_partition", "contrast", "point_energy"),
    *("sample", "sample_naive", "complete", "encode", "decode", "translate", "transform", "invert"),
    *("draw_latents", "log_joint"),
)
_BUCKET = 2**20
"""Size of the pieces in which gradients are summed: 4 MB, so that one is sent while the next is packed."""
_TIMEOUT = timedelta(minutes=10)
_REPORT = timedelta(seconds=10)
_GONE = ("closed by peer", "reset by peer", "broken pipe", "timed out", "nccl", "gloo", "remote process")


@contextmanager
def process_group() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Join the processes that `torchrun` started, in this context; without `torchrun` nothing happens.

    With CUDA, each process uses the GPU of its local rank and NCCL; otherwise gloo.

    Yields:
        A function with which all processes report what all of them found: the first process calls its argument, and
        the others wait for that, since `torchrun` ends all processes as soon as one of them fails. A process that
        waits in vain calls its argument itself.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield lambda report: report()
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, size = next(rendezvous("env://", timeout=_TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)

    def once(report: Callable[[], None]) -> None:
        if rank == 0:
            report()
            store.set("unsup/reported", "yes")
            return
        try:
            store.wait(["unsup/reported"], _REPORT)
        except dist.DistError:
            report()

    try:
        yield once
    finally:
        dist.destroy_process_group()


def same_start(model: nn.Module) -> None:
    """Copy the parameters and buffers of the first process to all processes, in place."""
    if process_count() > 1:
        with torch.no_grad():
            for t in (*model.parameters(), *model.buffers()):
                t.copy_(group().first(t))


@torch.no_grad()
def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradient of each parameter by its sum over the processes; without any gradient it stays None.

    Some parameters are used in some steps only (one of several masks, one class), perhaps on some processes only.
    """
    if process_count() == 1:
        return
    begun = []
    for bucket in _buckets(parameters):
        own = [p.grad is not None for p in bucket]
        for p in bucket:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        flags = torch.tensor(own, dtype=bucket[0].dtype, device=bucket[0].device)
        total = torch.cat([*(cast(Tensor, p.grad).reshape(-1) for p in bucket), flags])
        begun.append((bucket, own, total, group().start_adding(total)))
    for bucket, own, total, wait in begun:
        wait()
        *sums, owners = total.split([*(p.numel() for p in bucket), len(bucket)])
        # Copied back, since optimizers expect the memory layout of the gradients.
        torch._foreach_copy_(
            [cast(Tensor, p.grad) for p in bucket], [s.view_as(p) for s, p in zip(sums, bucket, strict=True)]
        )
        for i, p in enumerate(bucket):
            if not own[i] and not bool(owners[i] > 0):
                p.grad = None


def _buckets(parameters: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Parameters grouped by type and device."""
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for p in parameters:
        bucket = alike.setdefault((p.dtype, p.device), [])
        bucket.append(p)
        if sum(q.numel() for q in bucket) >= _BUCKET:
            yield alike.pop((p.dtype, p.device))
    yield from alike.values()


def shard_model(model: Model) -> None:
    """Shard parameters, gradients and optimizer state over the processes (`fully_shard`), in place.

    Raises:
        InputError: there is only one process.
    """
    if process_count() == 1:
        raise InputError("--shard needs several processes, but there is only one; start them with torchrun")
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # slow to import

    scalars = {p for p in model.parameters() if p.ndim == 0}  # cannot be sharded; every process keeps them
    fully_shard(model, ignored_params=scalars)
    for p in scalars:
        p.register_post_accumulate_grad_hook(_average_gradient)
    methods = set(_METHODS) | {
        loss.__name__
        for loss in (getattr(o.loss, "func", o.loss) for o in model.objectives())
        if getattr(loss, "__self__", None) is model
    }
    for name in methods:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def _average_gradient(p: Tensor) -> None:
    assert p.grad is not None
    dist.all_reduce(p.grad)
    p.grad /= process_count()


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with sharded ones gathered from all processes (all of them must call this)."""
    if process_count() == 1:
        return dict(tensors)
    from torch.distributed.tensor import DTensor  # slow to import

    return {k: v.full_tensor() if isinstance(v, DTensor) else v for k, v in tensors.items()}


def like(own: Tensor, value: Tensor) -> Tensor:
    """A full tensor, sharded like ``own``."""
    if process_count() == 1:
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor  # slow to import

    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def any_process(*flags: bool) -> tuple[bool, ...]:
    """Which flags are set on at least one process; every process gets the same result."""
    if process_count() == 1:
        return flags
    return tuple(bool(f) for f in group().add(torch.tensor(flags, dtype=torch.int64)) > 0)


def from_first(value: int) -> int:
    """The number of the first process."""
    return value if process_count() == 1 else int(group().first(torch.tensor(value)))


def number_of_first(value: float) -> float:
    """The number of the first process, as a float."""
    return value if process_count() == 1 else float(group().first(torch.tensor(value, dtype=torch.float64)))


def summed_values(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Each number summed over the processes."""
    if process_count() > 1:
        values = group().add(torch.tensor(values, dtype=torch.float64)).tolist()
    return dict(zip(names, values, strict=True))


def barrier() -> None:
    """Wait for the other processes."""
    any_process(False)


@contextmanager
def explained(advice: Callable[[str], str]) -> Iterator[None]:
    """Convert the failure of a collective operation to a `TrainingError` about a process that has died."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        lost = isinstance(error, dist.DistError) or any(word in first.lower() for word in _GONE)
        if process_count() == 1 or not lost:
            raise
        raise TrainingError(advice(first)) from error


def check_batch_size(batch_size: int, parts: int, pack: int = 1) -> None:
    """Raise `InputError` unless every process gets a row of a batch, in each of its ``parts``.

    Args:
        pack: number of rows that stay together.
    """
    n = process_count()
    if n == 1 and parts == 1:
        return
    where = f" over {n} processes" if n > 1 else ""
    where += f" in {parts} parts{' each' if n > 1 else ''}" if parts > 1 else ""
    if batch_size < n * parts * pack:
        least, what = n * parts * pack, "an example" if pack == 1 else f"a pack of {pack}"
        raise InputError(
            f"batch_size={batch_size}{where} leaves some of them without {what}; use --batch-size {least} or more"
        )
    if batch_size % pack:
        raise InputError(f"batch_size={batch_size}{where} splits packs of {pack}; use a multiple of {pack}")
