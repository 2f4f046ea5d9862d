"""Arrays larger than memory: ``.npy`` files that stay on disk, with rows read on demand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core import memory
from unsup.data.hashing import Words
from unsup.data.source import Source

_SHARE = 0.25  # fraction of the memory above which files stay on disk: splitting an array copies it


@dataclass(frozen=True)
class Form:
    """The conversion of rows of an array to raw examples.

    Attributes:
        shape: shape of one example.
        dtype: type of raw examples.
        channels_last: whether images are stored as ``(H, W, C)``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channels_last: bool = False

    def tensor(self, rows: NDArray[Any]) -> Tensor:
        """Stored rows ``(n, ...)`` → raw examples ``(n, *shape)``, copied only if necessary."""
        if self.channels_last:
            rows = rows.transpose(0, 3, 1, 2)
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).view(-1, *self.shape)


class Mapped(Source):
    """The rows of consecutive ``.npy`` files, read from disk on demand.

    Args:
        files: arrays with equal type and shape of rows.
        form: conversion of rows to raw examples.
        order: indices of the rows, int64 ``(N,)``; None for all rows.
        noted: hashes of all rows of the files, if they were computed when the files were scanned.
    """

    def __init__(
        self, files: Sequence[Path], form: Form, order: Tensor | None = None, noted: Words | None = None
    ) -> None:
        self.files, self.form, self.order, self._noted = tuple(files), form, order, noted

    @functools.cached_property
    def _arrays(self) -> list[NDArray[Any]]:
        return [opened(file) for file in self.files]

    def __len__(self) -> int:
        return sum(map(len, self._arrays)) if self.order is None else len(self.order)

    def rows(self, indices: Tensor) -> Tensor:
        found = indices if self.order is None else self.order[indices]
        return self.form.tensor(gathered(self._arrays, found.cpu().numpy()))

    def take(self, indices: Tensor) -> Mapped:
        return Mapped(self.files, self.form, indices if self.order is None else self.order[indices], self._noted)

    @property
    def hashes(self) -> Words | None:
        return self._noted if self._noted is None or self.order is None else self._noted[self.order.numpy()]

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the open files; another process (a DataLoader worker) opens them itself."""
        return {"files": self.files, "form": self.form, "order": self.order, "_noted": None}


def opened(file: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, memory-mapped."""
    return np.lib.format.open_memmap(file, mode="r")


def gathered(arrays: Sequence[NDArray[Any]], where: NDArray[np.int64]) -> NDArray[Any]:
    """A copy of rows of consecutive arrays: ``(len(where), ...)``.

    >>> gathered([np.array([[0], [1]]), np.array([[2]])], np.array([2, 0])).tolist()
    [[2], [0]]
    """
    if len(arrays) == 1:
        return np.asarray(arrays[0][where])
    starts = np.cumsum([0, *map(len, arrays)])
    which = np.searchsorted(starts, where, side="right") - 1
    found = np.empty((len(where), *arrays[0].shape[1:]), arrays[0].dtype)
    for i in np.unique(which):
        here = which == i
        found[here] = arrays[i][where[here] - starts[i]]
    return found


def too_large(size: int) -> bool:
    """Whether ``size`` bytes are more than a quarter of the memory limit."""
    return size > _SHARE * memory.limit()
