"""Interleaved timing: A B A B …, and the ratio pair by pair, so that a drifting machine weighs on both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from unsup.core.machine import fast_cpu


@dataclass(frozen=True)
class Measured:
    """One line of the benchmark table.

    Attributes:
        name: what was done.
        ours: median seconds of our way.
        theirs: median seconds of the reference, by name.
        ratios: median over pairs of reference / ours: above 1 we are faster.
        target: what was promised, in words.
        note: what the reader should know.
    """

    name: str
    ours: float
    theirs: Mapping[str, float]
    ratios: Mapping[str, float]
    target: str
    note: str = ""

    def rows(self) -> list[tuple[str, ...]]:
        return [
            (
                self.name,
                other,
                _milliseconds(self.ours),
                _milliseconds(self.theirs[other]),
                f"{ratio:.2f}×",
                self.target,
                self.note,
            )
            for other, ratio in self.ratios.items()
        ]


@dataclass(frozen=True)
class Several:
    """Several lines of the table."""

    parts: list[Measured]

    def rows(self) -> list[tuple[str, ...]]:
        return [row for part in self.parts for row in part.rows()]


def interleave(
    name: str,
    ours: Callable[[], object],
    others: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    target: str,
    note: str = "",
    warmup: int = 1,
) -> Measured:
    """Time ``ours`` and ``others`` in turn, ``rounds`` times each after ``warmup`` uncounted rounds."""
    ways = {"ours": ours, **others}
    seconds: dict[str, list[float]] = {k: [] for k in ways}
    for round_number in range(rounds + warmup):
        for way, work in ways.items():
            started = time.perf_counter()
            work()
            elapsed = time.perf_counter() - started
            if round_number >= warmup:
                seconds[way].append(elapsed)
    ratios = {k: statistics.median(b / a for a, b in zip(seconds["ours"], seconds[k], strict=True)) for k in others}
    medians = {k: statistics.median(v) for k, v in seconds.items()}
    return Measured(name, medians["ours"], {k: medians[k] for k in others}, ratios, target, note)


def training_step(optimizer: Optimizer, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One update of the parameters of an optimizer."""

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def as_fit(work: Callable[[], object]) -> Callable[[], None]:
    """Work with the faster float32 kernels that `unsup.fit` chooses where they keep float32's digits."""

    def chosen() -> None:
        with fast_cpu(torch.device("cpu")):
            work()

    return chosen


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.1f}"
