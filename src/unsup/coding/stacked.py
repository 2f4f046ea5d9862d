"""Visits of entries whose choices are on a stack: what is pushed last is popped first."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import numpy as np
import torch
from torch import Tensor

from unsup.coding.autoregressive import NEAR_REAL, Some
from unsup.coding.entropy import Stack
from unsup.coding.notes import Rounding
from unsup.coding.reals import Line, Offsets
from unsup.coding.tables import NEAR, Floats, Integers, frequencies, to_grid
from unsup.core.model import Conditional, Intervals, VisitEntries


@final
class OnStack:
    """Codes entries ``(n, D)`` of n examples by visits.

    The encoder makes a visit with the entries that it knows, and then pushes them, the last one first. The decoder
    pops each entry in its own visit. Both compute the same distributions.

    Args:
        n: examples.
        spare: copies of them, which the model computes in vain.
        notes: rounds the masses.
        call: the first number of a rounding; a visit takes one for each digit.
        line: of real entries, the same for all.
    """

    def __init__(self, n: int, spare: int, notes: Rounding, call: int, line: Line | None = None) -> None:
        self.n, self.notes, self.call, self.line = n, notes, call, line
        self.beside = np.arange(n + spare) % n

    def push(self, visit: VisitEntries, offsets: Offsets, stack: Stack) -> None:
        """Code levels, or numbers on the line, ``(n, D)``."""
        chosen: list[tuple[Integers, Integers]] = []

        def digit(entry: int, start: Offsets, shift: int, table: Integers) -> Integers:
            own = ((offsets[:, entry] - start) >> np.uint64(shift)).astype(np.int64)
            chosen.append((own, table))
            return own

        self._made(visit, digit)
        for own, table in reversed(chosen):
            stack.push(own, table)

    def pop(self, visit: VisitEntries, dims: int, stack: Stack) -> Offsets:
        """What `push` has coded."""
        found = np.zeros((self.n, dims), np.uint64)

        def digit(entry: int, start: Offsets, shift: int, table: Integers) -> Integers:
            own = stack.pop(table).astype(np.int64)
            found[:, entry] = start + (own.astype(np.uint64) << np.uint64(shift))
            return own

        self._made(visit, digit)
        return found

    def _made(self, visit: VisitEntries, digit: Callable[[int, Offsets, int, Integers], Integers]) -> None:
        call = self.call

        def choose(entry: int, conditional: Conditional) -> Tensor:
            def choose_digit(start: Offsets, shift: int, log_masses: Floats, near: float = NEAR_REAL) -> Integers:
                nonlocal call
                steps = self.notes.settle(call, to_grid(np.ascontiguousarray(log_masses), near))
                call += 1
                return digit(entry, start, shift, frequencies(steps))

            if isinstance(conditional, Intervals):
                assert self.line is not None
                own = conditional if len(self.beside) == self.n else Some(conditional, self.beside, self.n)
                offsets = self.line.choose(own, self.n, choose_digit)
                values = self.line.values(offsets, np.dtype(np.float64))
            else:
                masses = conditional[: self.n].double().numpy()
                values = choose_digit(np.zeros(self.n, np.uint64), 0, masses, NEAR).astype(np.float64)
            return torch.from_numpy(values[self.beside])

        visit(choose)
