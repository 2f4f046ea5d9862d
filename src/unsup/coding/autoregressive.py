"""Range coding of examples entry by entry: log p(x) = Σ log p(x_i | x_<i).

All examples of a chunk are visited together, site by site, by one coder. Encoder and decoder make the same visit, so
that they compute the same masses; these are rounded to a grid, and the encoder records how it rounded the few that are
next to a boundary, because another machine may round them in the other way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.entropy import QueueDecoder, QueueEncoder, StreamError
from unsup.coding.tables import frequencies, settle, to_grid
from unsup.core.model import CodesEntries

NAME, VERSION = "entry by entry", 1

_COUNT, _NOTE = struct.Struct("<I"), struct.Struct("<IIB")
Frequencies = Callable[[Tensor], NDArray[np.int64]]


def encode(model: CodesEntries, x: Tensor, *, given: Tensor | None = None) -> bytes:
    """Code raw examples ``(B, *event.shape)``, which must be inside the event of the model."""
    levels = model.levels_by_site(x)
    coder, notes = QueueEncoder(), bytearray()
    calls = 0

    def choose(site: int, log_masses: Tensor) -> Tensor:
        nonlocal calls
        grid = to_grid(log_masses.double().numpy())
        for at in grid.near.tolist():
            notes.extend(_NOTE.pack(calls, at, int(grid.steps.flat[at]) % 4))
        coder.encode(levels[:, site].numpy(), frequencies(grid.steps))
        calls += 1
        return levels[:, site]

    if len(x):
        model.visit(len(x), choose, given=given)
    return _COUNT.pack(len(notes) // _NOTE.size) + bytes(notes) + coder.to_bytes()


def decode(model: CodesEntries, coded: bytes, n: int, *, given: Tensor | None = None) -> Tensor:
    """The ``n`` raw examples that `encode` has coded.

    Raises:
        StreamError: the bytes were cut, damaged, or made with another model.
    """
    if len(coded) < _COUNT.size:
        raise StreamError(f"a stream of {len(coded)} bytes; expected {_COUNT.size} or more: it was cut or damaged")
    count = _COUNT.unpack_from(coded)[0]
    start = _COUNT.size + count * _NOTE.size
    if start > len(coded):
        raise StreamError(f"a stream of {len(coded)} bytes with {count} notes of rounding; it was cut or damaged")
    notes: dict[int, list[tuple[int, int]]] = {}
    for call, at, remainder in _NOTE.iter_unpack(coded[_COUNT.size : start]):
        notes.setdefault(call, []).append((at, remainder))
    coder = QueueDecoder(coded[start:])
    calls = 0

    def choose(site: int, log_masses: Tensor) -> Tensor:
        nonlocal calls
        steps = to_grid(log_masses.double().numpy()).steps
        if calls in notes:
            at, remainders = (np.array(part, dtype=np.int64) for part in zip(*notes[calls], strict=True))
            if at.max() >= steps.size:
                raise StreamError("a note of rounding refers to no entry; the stream is damaged")
            steps = settle(steps, at, remainders)
        calls += 1
        return torch.from_numpy(coder.decode(frequencies(steps)).astype(np.int64))

    x = model.visit(n, choose, given=given)
    coder.finish()
    return x
