"""What a model is shown at one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import InputError


@dataclass(frozen=True)
class Time:
    """When a step happens.

    Attributes:
        step: updates done before it.
        total: updates of the whole run, or None while that is not known.
        epoch: passes over the training split done before it.
    """

    step: int = 0
    total: int | None = None
    epoch: int = 0

    @property
    def share(self) -> float:
        """How much of the run is done, from 0 to 1; 0 while its length is not known."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    def ramp(self, steps: int) -> float:
        """From 0 at the first step to 1 after ``steps`` of them, linearly; 1 for ``steps`` of 0."""
        return min(1.0, self.step / steps) if steps else 1.0


@dataclass(frozen=True)
class Batch:
    """Raw examples, with whatever else the data has about them.

    Attributes:
        x: raw data ``(B, *event.shape)``.
        label: class numbers ``(B,)``, int64, or None.
        given: what each example is conditioned on, ``(B, *given.shape)``, or None.
        lengths: of the open first axis of each example, ``(B,)``, int64, or None.
        weight: of each example in means over the batch, ``(B,)``, or None: all alike.
        streams: batches of further streams of the data by name (``batch["unlabelled"]``), each of a size of its own.
        time: when the step happens.
        shared: what one player leaves for the players after it that play on the same batch.
    """

    x: Tensor
    label: Tensor | None = None
    given: Tensor | None = None
    lengths: Tensor | None = None
    weight: Tensor | None = None
    streams: Mapping[str, Batch] = field(default_factory=dict)
    time: Time = Time()
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, name: str) -> Batch:
        """The batch of a further stream.

        Raises:
            InputError: the data has no such stream.
        """
        if name not in self.streams:
            known = ", ".join(self.streams) or "none"
            raise InputError(f"the batch has no stream {name!r}; it has: {known}")
        return self.streams[name]

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name in ("x", "label", "given", "lengths", "weight"):
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``."""
        moved = {k: v.to(device, non_blocking=True) for k, v in self._tensors()}
        return replace(self, **moved, streams={k: v.to(device) for k, v in self.streams.items()})  # type: ignore[arg-type]

    def take(self, rows: Tensor | slice) -> Batch:
        """The examples at ``rows``; streams of the same length are cut with them, others are kept whole."""
        taken = {k: v[rows] for k, v in self._tensors()}
        streams = {k: v.take(rows) if len(v) == len(self) else v for k, v in self.streams.items()}
        return replace(self, **taken, streams=streams)  # type: ignore[arg-type]
