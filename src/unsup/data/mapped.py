"""Arrays larger than memory: ``.npy`` files that stay on disk, of which rows are read as they are needed."""

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

_SHARE = 0.25  # of the memory, above which files are left on disk: splitting an array copies it


@dataclass(frozen=True)
class Form:
    """How rows of an array become raw examples.

    Attributes:
        shape: of one example.
        dtype: of raw examples.
        channels_last: whether images lie as ``(H, W, C)``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channels_last: bool = False

    def tensor(self, rows: NDArray[Any]) -> Tensor:
        """Rows as they are stored ``(n, ...)`` → raw examples ``(n, *shape)``, copied only where they must be."""
        if self.channels_last:
            rows = rows.transpose(0, 3, 1, 2)
        rows = np.ascontiguousarray(rows, dtype=self.dtype)
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).view(-1, *self.shape)


class Mapped(Source):
    """The rows of ``.npy`` files, one file after the other, read from disk when they are asked for.

    Args:
        files: arrays of one type and one shape of rows.
        form: how rows become raw examples.
        order: which rows these are, int64 ``(N,)``; None for all of them.
        noted: the hashes of all rows of the files, where they were taken when the files were looked through.
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
        """Without the open files, which another process (a worker of a DataLoader) opens for itself."""
        return {"files": self.files, "form": self.form, "order": self.order, "_noted": None}


def opened(file: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file, left on disk."""
    return np.lib.format.open_memmap(file, mode="r")


def gathered(arrays: Sequence[NDArray[Any]], where: NDArray[np.int64]) -> NDArray[Any]:
    """Rows of several arrays that follow one another: ``(len(where), ...)``, a copy.

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
    """Whether ``size`` bytes are more than a quarter of the memory that this process may take."""
    return size > _SHARE * memory.limit()
