"""Bits-back coding of discrete latents, layer by layer.

As `unsup.coding.bitsback`, but a latent has K values, and is coded under its own masses: there are no bins. With
q(z|x) = q(z_1|x) Π q(z_{l+1}|z_l), an example costs log q(z|x) − log p(x, z), whose mean is the negative bound with one
sample.
"""

from __future__ import annotations

import math
from typing import cast, final

import numpy as np
import torch
from torch import Tensor

from unsup.coding.bitsback import WithLatents, initial_bytes, mass_table
from unsup.coding.entropy import Stack, StreamError
from unsup.coding.flows import Seen
from unsup.coding.notes import Noting, Rounding
from unsup.coding.scheme import Profile
from unsup.coding.tables import MAX_SYMBOLS, Integers
from unsup.core.batch import Batch
from unsup.core.model import ChoiceCoder, CodesChoices, Model


@final
class BitsBackOfChoices(WithLatents):
    """Layers of discrete latents under their own masses."""

    name, version = "bits back of choices", 1
    capability = CodesChoices

    def __init__(self, model: Model, profile: Profile = "portable") -> None:
        super().__init__(model, profile)
        self.own = cast(CodesChoices, self.model)

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        reason = super().reason_against(model)
        if reason is None and max(levels for _, levels in cast(CodesChoices, model).choices) > MAX_SYMBOLS:
            return f"has latents of more than {MAX_SYMBOLS:,} values"
        return reason

    def _begin(self, notes: Rounding) -> None:
        """There are no tables of all groups."""

    def _masses_of_latents(self) -> int:
        return max(count * levels for count, levels in cast(CodesChoices, self.model).choices)

    def _initial_size(self, x: Tensor, given: Tensor | None) -> int:
        stack = Stack(initial_bytes(4 * (self.own.latent_count + 2)))  # a latent takes at most 24 bits
        lowest = self._code(Batch(x), stack, Noting(), 0, plain=False)
        return 4 * math.ceil((stack.initial_bits - lowest) / 32)

    def _calls(self, rows: int) -> int:
        """All posteriors and priors, and the entries."""
        return 2 * len(self.own.choices) + self._of_entries(rows)

    def _code(self, batch: Batch, stack: Stack, notes: Rounding, call: int, *, plain: bool) -> int:
        coder = _Walk(self, stack, notes, call, len(batch), batch.x)
        self.own.code(self._beside(batch), coder)
        return coder.lowest

    def _restore(
        self, rows: int, given: Tensor | None, stack: Stack, notes: Rounding, call: int, *, plain: bool
    ) -> Tensor:
        if plain:
            raise StreamError("an example that is coded without its posterior; the stream is damaged")
        coder = _Walk(self, stack, notes, call, rows, None)
        self.own.restore(rows + self.spare, coder)
        assert coder.x is not None
        return coder.x

    def _canary(self, batch: Batch) -> bytes:
        seen = Seen()
        self._code(batch, Stack(initial_bytes(4 * (self.own.latent_count + 2))), seen, 0, plain=False)
        return bytes(seen.found)


@final
class _Walk(ChoiceCoder):
    """The latents of a group of examples on a stack.

    Attributes:
        x: raw examples to push; None before they are popped.
        lowest: the smallest number of bits that were on the stack.
    """

    def __init__(
        self, scheme: BitsBackOfChoices, stack: Stack, notes: Rounding, call: int, rows: int, x: Tensor | None
    ) -> None:
        self.scheme, self.stack, self.notes, self.rows, self.x = scheme, stack, notes, rows, x
        self.restores, self.lowest = x is None, stack.bits
        self.values: dict[int, Integers] = {}
        layers = len(scheme.own.choices)
        of_posteriors, self.of_entries = call, call + layers
        of_priors = self.of_entries + scheme._of_entries(rows)
        # What is popped when examples are restored was pushed when they were coded.
        self.of_popped, self.of_pushed = (of_priors, of_posteriors) if self.restores else (of_posteriors, of_priors)

    def _table(self, log_masses: Tensor, number: int) -> Integers:
        return mass_table(log_masses[: self.rows].flatten(0, 1), self.notes, number)

    def pop(self, layer: int, log_masses: Tensor) -> Tensor:
        found = self.stack.pop(self._table(log_masses, self.of_popped + layer)).astype(np.int64)
        self.lowest = min(self.lowest, self.stack.bits)
        self.values[layer] = found
        return self.scheme.with_spare(torch.from_numpy(found).view(self.rows, -1))

    def push(self, layer: int, log_masses: Tensor) -> None:
        self.stack.push(self.values[layer], self._table(log_masses, self.of_pushed + layer))

    def entries(self, outputs: Tensor) -> Tensor:
        if self.restores:
            self.x = self.scheme.pop_entries(outputs, self.rows, self.stack, self.notes, self.of_entries)
        else:
            assert self.x is not None
            self.scheme.push_entries(self.x, outputs, self.stack, self.notes, self.of_entries)
        return self.scheme.with_spare(self.x)
