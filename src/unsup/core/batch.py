"""The batch that a model sees at one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import InputError


@dataclass(frozen=True)
class Time:
    """The position of a step in training.

    Attributes:
        step: number of updates done before this step.
        total: number of updates of the whole run, or None while it is not known.
        epoch: number of passes over the training split completed before this step.
    """

    step: int = 0
    total: int | None = None
    epoch: int = 0

    @property
    def share(self) -> float:
        """The fraction of the run that is done, from 0 to 1; 0 while the length of the run is not known."""
        return min(1.0, self.step / self.total) if self.total else 0.0

    def ramp(self, steps: int) -> float:
        """A linear ramp from 0 at the first step to 1 after ``steps`` steps; 1 if ``steps`` is 0."""
        return min(1.0, self.step / steps) if steps else 1.0


@dataclass(frozen=True)
class Batch:
    """Raw examples, with everything else that the data provides for them.

    Attributes:
        x: raw data ``(B, *event.shape)``.
        label: class numbers ``(B,)``, int64, or None.
        given: the condition of each example, ``(B, *given.shape)``, or None.
        lengths: the length of the open first axis of each example, ``(B,)``, int64, or None.
        weight: the weight of each example in means over the batch, ``(B,)``, or None for equal weights.
        streams: batches of additional streams of the data by name (``batch["unlabelled"]``). Their sizes may differ.
        time: the position of the step in training.
        shared: values that one player stores for later players on the same batch.
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
        """The batch of an additional stream.

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
        """The examples at ``rows``. Streams of the same length are indexed as well; other streams are kept whole."""
        taken = {k: v[rows] for k, v in self._tensors()}
        streams = {k: v.take(rows) if len(v) == len(self) else v for k, v in self.streams.items()}
        return replace(self, **taken, streams=streams)  # type: ignore[arg-type]
