"""Range coding of examples entry by entry: log p(x) = Σ log p(x_i | x_<i).

Examples are visited in groups, site by site, with one coder for all groups. Encoder and decoder make the same visit, so
that they compute the same masses; these are rounded to a grid, and the encoder notes how it rounded the few that are
next to a boundary, because another machine may round them in the other way.
"""

from __future__ import annotations

import struct
from typing import cast, final

import torch
from torch import Tensor

from unsup.coding.entropy import QueueDecoder, QueueEncoder, StreamError
from unsup.coding.notes import Noted, Noting
from unsup.coding.scheme import Scheme
from unsup.coding.tables import frequencies, to_grid
from unsup.core.model import CodesEntries, IsConditional, Model

_GROUP = struct.Struct("<I")
_MOST_ENTRIES = 2**18  # entries of the examples of a group: bounds the memory of the visit
_MOST = 1024  # examples of a group
_SMALLER = 64  # groups of other versions may be smaller by this factor


@final
class EntryByEntry(Scheme):
    """Range coding with the conditionals of a model that `CodesEntries`."""

    name, version = "entry by entry", 1

    @classmethod
    def reason_against(cls, model: Model) -> str | None:
        if not isinstance(model, CodesEntries):
            return "does not factorise into conditionals of single entries"
        if isinstance(model, IsConditional) and model.given is not None:
            return "has a condition, which is not coded"
        return None

    def encode(self, x: Tensor) -> bytes:
        model = cast(CodesEntries, self.model)
        size = self._group()
        coder, notes, calls = QueueEncoder(), Noting(), 0
        for group in x.split(size):
            levels = model.levels_by_site(group)

            def choose(site: int, log_masses: Tensor, levels: Tensor = levels) -> Tensor:
                nonlocal calls
                steps = notes.settle(calls, to_grid(log_masses.double().numpy()))
                coder.encode(levels[:, site].numpy(), frequencies(steps))
                calls += 1
                return levels[:, site]

            model.visit(len(group), choose)
        return _GROUP.pack(size) + notes.to_bytes() + coder.to_bytes()

    def decode(self, coded: bytes, n: int) -> Tensor:
        model = cast(CodesEntries, self.model)
        if len(coded) < _GROUP.size:
            raise StreamError(f"a stream of {len(coded)} bytes; it was cut")
        (size,) = _GROUP.unpack_from(coded)
        most = self._group()
        # Much smaller groups would take a time, and larger ones a memory, that nothing else bounds.
        if not most // _SMALLER <= size <= most or not size:
            raise StreamError(f"groups of {size} examples; expected up to {most}: the stream is damaged")
        notes, rest = Noted.split(coded[_GROUP.size :])
        coder, calls = QueueDecoder(rest), 0

        def choose(site: int, log_masses: Tensor) -> Tensor:
            nonlocal calls
            steps = notes.settle(calls, to_grid(log_masses.double().numpy()))
            calls += 1
            return torch.from_numpy(coder.decode(frequencies(steps))).long()

        parts = [model.visit(min(size, n - start), choose) for start in range(0, n, size)]
        coder.finish()
        return torch.cat(parts)

    def _group(self) -> int:
        return max(1, min(_MOST, _MOST_ENTRIES // self.event.dims))

    def canary(self) -> bytes:
        seen = bytearray()

        def choose(site: int, log_masses: Tensor) -> Tensor:
            seen.extend(to_grid(log_masses.double().numpy()).steps.tobytes())
            return torch.zeros(len(log_masses), dtype=torch.int64)

        cast(CodesEntries, self.model).visit(1, choose)
        return bytes(seen)
