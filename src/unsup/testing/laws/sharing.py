"""Laws of shared work: several processes, or parts of an accumulated batch, give the same result as one."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from unsup.core import random
from unsup.core.batch import Batch, Time
from unsup.core.model import IsConditional, LearnsByCounting, Model, reduced
from unsup.core.parallel import Group, parts_of, working_in
from unsup.core.random import Rows, part_of_batch
from unsup.testing.law import law, require
from unsup.testing.laws.learning import by_gradient
from unsup.testing.processes import as_processes
from unsup.testing.subject import Subject, part_of

_SMALLEST, _LARGEST = 2, 32  # batch sizes that could be confused with another axis
_ROUNDING = 1e-9

Found = dict[str, Tensor]


def sizes_of(model: Model) -> list[int]:
    """All sizes that an axis of the tensors of the model may have, by its options and event, from 2 to 32."""
    given = model.given if isinstance(model, IsConditional) else None
    events = [model.event] if given is None else [model.event, given]
    found: set[int] = set()
    for event in events:
        found |= {*event.shape, event.dims, *(s.levels for s in event.columns)}
    found |= set(_whole_numbers(model.config))
    return sorted(n for n in found if _SMALLEST <= n <= _LARGEST) or [_SMALLEST]


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, Mapping):
        yield from (n for inner in value.values() for n in _whole_numbers(inner))
    elif isinstance(value, (tuple, list)):
        yield len(value)
        yield from (n for inner in value for n in _whole_numbers(inner))


def _many(batch: Batch, n: int) -> Batch:
    """``n`` examples: those of the batch, repeated."""
    rows = torch.arange(n, device=batch.x.device)
    streams = {k: _many(v, n * len(v) // len(batch)) for k, v in batch.streams.items()}
    return replace(replace(batch, streams={}).take(rows % len(batch)), streams=streams)


def outcome(model: Model, batch: Batch, subject: Subject, rows: Rows, *, separate: bool = False) -> Found:
    """The results of a step for the local rows: the loss of each player and the gradients of its parameters.

    They are multiplied by the share of the rows, as in training before summation.

    Args:
        separate: every player with a batch of its own starts from the present buffers, since in training it has seen
            all parts of its batch before the next player begins.
    """
    buffers = _buffers(model) if separate else {}
    own = part_of(batch, rows)
    names = {id(p): name for name, p in model.named_parameters()}
    found: Found = {}
    generator = subject.generator(1)
    shared: dict[str, Any] = {}
    with part_of_batch(rows):
        for objective in model.objectives():
            if not objective.joins:
                shared = {}
                for name, buffer in model.named_buffers() if separate else ():
                    buffer.copy_(buffers[name])
            model.zero_grad()
            terms = objective.loss(replace(own, shared=shared, time=Time(1, 10)), generator=generator)
            loss = reduced({"loss": terms["loss"]}, share=rows.count / rows.total)["loss"]
            loss.backward()
            found[f"{objective.name}/loss"] = loss.detach()
            for p in objective.parameters:
                found[f"{objective.name}/gradient of {names[id(p)]}"] = (
                    torch.zeros_like(p) if p.grad is None else p.grad.clone()
                )
    return found


def compare(what: str, parts: Iterable[Found], whole: Found) -> None:
    """Whether the parts of losses and gradients add up to those of the whole batch."""
    parts = list(parts)
    largest = max(float(v.abs().max()) for name, v in whole.items() if v.numel())
    for name, value in whole.items():
        total = torch.stack([part[name] for part in parts]).sum(0)
        size = max(float(value.abs().max()), 1e-3 * largest) if value.numel() else 1.0
        worst = float((total - value).abs().max()) / max(size, 1e-12) if value.numel() else 0.0
        require(worst < _ROUNDING, f"{what}: {name} differs from that of the whole batch by {worst:.2g} (relative)")


def _buffers(model: Model) -> Found:
    return {name: b.detach().clone() for name, b in model.named_buffers()}


@law(
    "processes",
    "Two and three processes give the losses, gradients and buffers of one, even if a batch, or its part, is as "
    "large as another axis of the model.",
    needs="a model that learns by gradients",
    applies=by_gradient,
)
def processes(subject: Subject) -> None:
    start = subject.generic().train()
    # Packs of examples are on one process each; a loss that is one number per batch is additive over equal shares only.
    pack, number = start.packing, _is_a_number(start, subject)
    data, buffers = subject.data(start), _buffers(start)
    for count in (2, 3):
        one, *models = (copy.deepcopy(start) for _ in range(1 + count))
        for total in _totals(sizes_of(start), count, pack, even=number):
            batch = _many(data, total)
            for model in (one, *models):
                for name, buffer in model.named_buffers():
                    buffer.copy_(buffers[name])
            whole = outcome(one, batch, subject, Rows(total, 0, total))

            def work(rank: int, batch: Batch = batch, models: list[Model] = models, total: int = total) -> Found:
                return outcome(models[rank], batch, subject, parts_of(total, len(models), rank, 1, pack)[0])

            what = f"{count} processes, {total} examples"
            compare(what, as_processes(count, work), whole)
            expected = _buffers(one)
            for rank, model in enumerate(models):
                for name, buffer in model.named_buffers():
                    same = torch.allclose(buffer.double(), expected[name].double(), rtol=_ROUNDING, atol=_ROUNDING)
                    require(same, f"{what}: {name} of process {rank} differs from that of one process")


def _totals(sizes: list[int], count: int, pack: int, *, even: bool) -> list[int]:
    """Sizes of batches: with two processes each part is as large as another axis, with three the whole is."""
    if count == 2:
        return [2 * pack * n for n in sizes]
    found = [pack * n for n in sizes if n >= count and not (even and n % count)]
    return found or [pack * count * sizes[0]]


def _is_a_number(model: Model, subject: Subject) -> bool:
    """Whether the loss of a player is one number per batch, not one per example."""
    model = copy.deepcopy(model)
    shared: dict[str, Any] = {}
    found = False
    for objective in model.objectives():
        shared = shared if objective.joins else {}
        with torch.no_grad():
            terms = objective.loss(replace(subject.data(model), shared=shared), generator=subject.generator(1))
        found |= terms["loss"].ndim == 0
    return found


class _Doubled(Group):
    """A process with a twin that has the same rows; ``added``: whether they computed a statistic of the batch."""

    count, rank = 2, 0

    def __init__(self) -> None:
        self.added = False

    def add(self, x: Tensor) -> Tensor:
        self.added = True
        return 2 * x

    def collect(self, x: Tensor) -> list[Tensor]:
        return [x, x]

    def collect_objects(self, value: Any) -> list[Any]:
        return [value, value]

    def first(self, value: Any) -> Any:
        return value


@law(
    "accumulation",
    "If a loss is one number per example, without a statistic of all examples, separately computed parts of a batch "
    "add up to the whole.",
    needs="a model that learns by gradients",
    applies=by_gradient,
)
def accumulation(subject: Subject) -> None:
    start = subject.generic().train()
    if _is_a_number(start, subject):
        return
    batch = _many(subject.data(start), 12)
    twins = _Doubled()
    with working_in(twins):
        outcome(copy.deepcopy(start), _many(batch, 24), subject, Rows(24, 0, 12))
    if twins.added:
        return
    whole = outcome(copy.deepcopy(start), batch, subject, Rows(12, 0, 12), separate=True)
    for ends in ((5, 12), (4, 8, 12)):
        parts = [Rows(12, a, b - a) for a, b in zip((0, *ends), ends, strict=False)]
        found = [outcome(copy.deepcopy(start), batch, subject, rows, separate=True) for rows in parts]
        compare(f"{len(parts)} parts", found, whole)


# --- draws --------------------------------------------------------------------------------------------------------

_BARE = {
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("normal", "bernoulli", "multinomial", "poisson", "binomial", "rrelu"),
    *("normal_", "uniform_", "bernoulli_", "random_", "exponential_", "geometric_", "cauchy_", "log_normal_"),
    *("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
    *("feature_dropout", "gumbel_softmax"),
}
_HOME = random.__file__
_TORCH = torch.__path__[0]


class BareDraw(Exception):
    """A draw inside a loss that does not go through `unsup.core.random`."""


class NoBareDraws(TorchFunctionMode):
    """In this context, random numbers must come from `unsup.core.random`; anything else is a `BareDraw`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        idle = "dropout" in name and not _drops(args, kwargs)
        if name in _BARE and not idle:
            file, line = _caller()
            if file != _HOME:
                raise BareDraw(f"{name} is called in {file}:{line}")
        return func(*args, **kwargs)


def _drops(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of dropout(x, p, training) draws at all."""
    p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
    training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
    return bool(training) and p > 0


def _caller() -> tuple[str, int]:
    """The nearest line of code outside torch and this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith(_TORCH) or frame.f_code.co_filename == __file__
    ):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


@law("draws", "All draws in a loss use unsup.core.random, which knows the local rows.")
def draws(subject: Subject) -> None:
    model = subject.generic().train()
    batch = subject.data(model)
    with torch.enable_grad() if by_gradient(model) else torch.no_grad():
        try:
            with NoBareDraws():
                if isinstance(model, LearnsByCounting):
                    model.statistics(batch, generator=subject.generator(1))
                shared: dict[str, Any] = {}
                for objective in model.objectives():
                    shared = shared if objective.joins else {}
                    objective.loss(replace(batch, shared=shared), generator=subject.generator(1))
        except BareDraw as draw:
            require(False, f"a loss draws directly: {draw}")
