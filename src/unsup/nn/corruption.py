"""Corruption of examples and of units: what a denoising autoencoder removes.

Vincent, Larochelle, Lajoie, Bengio, Manzagol 2010, https://jmlr.org/papers/v11/vincent10a.html.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.errors import InputError
from unsup.nn.autoencoder import Autoencoder
from unsup.nn.columns import is_table
from unsup.nn.nets import UnitName

CorruptionName = Literal["masking", "gaussian", "salt"]
_RANGES: dict[str, tuple[float, float]] = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}


class Corruption(nn.Module):
    """x̃ ~ q(x̃ | x), as inputs of an encoder. Entries are corrupted independently of each other.

    - ``masking``: each entry is removed with probability ν. Levels of images and vectors become the lowest one, real
      entries the mean of the data, and whole numbers of mixed tables their mean; categories lose their indicators. If
      entries may be missing, a removed entry is a missing one.
    - ``gaussian``: N(0, σ²) is added to each input: σ is in standard deviations of real entries, and of whole numbers
      of mixed tables, in ranges (highest − lowest) of levels, and added to the indicators of categories. Missing
      entries stay missing.
    - ``salt``: each entry becomes, with probability ν, its lowest or its highest level, with equal probability
      (salt-and-pepper noise).

    Args:
        nets: the encoder, without a condition.
        name: the kind of noise.
        strength: ν or σ; 0 leaves examples as they are.
        owner: name for errors.

    Raises:
        InputError: ν above 1, or ``salt`` on entries without a lowest and a highest value.
    """

    entry_of: Tensor
    noisy: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, nets: Autoencoder, name: CorruptionName, strength: float, owner: str) -> None:
        super().__init__()
        event, self.name, self.strength = nets.event, name, strength
        check_strength(name, strength, owner)
        is_ordered = all(support.kind in ("binary", "ordinal") for support in event.columns)
        if name == "salt" and not is_ordered:
            raise InputError(
                f"{owner}: noise='salt' sets entries to their lowest or highest level; this data is {event}; use "
                "noise='masking' or 'gaussian'"
            )
        self.has_levels = is_ordered and not is_table(event)
        sizes = torch.tensor(nets.seen_sizes)
        entries = torch.arange(event.dims)
        if nets.conditions.sides is None:
            entry_of = entries.repeat_interleave(sizes)
        else:  # the features of a channel are maps, side by side
            entry_of = entries.view(event.shape).repeat_interleave(int(sizes[0]), 0).flatten()
        noisy = torch.ones(len(entry_of))
        if event.missing:
            noisy[sizes.cumsum(0) - 1] = 0  # indicators
        ends = [[s.low, s.low + max(s.levels, 1) - 1] for s in event.columns]
        lowest, highest = torch.tensor(ends).unbind(1)
        self.register_buffer("entry_of", entry_of, persistent=False)
        self.register_buffer("noisy", noisy, persistent=False)
        self.register_buffer("lowest", lowest.view(event.shape), persistent=False)  # int64: exact
        self.register_buffer("highest", highest.view(event.shape), persistent=False)

    def forward(self, nets: Autoencoder, x: Tensor, generator: Generator | None) -> Tensor:
        """Raw data ``(B, *event.shape)`` → corrupted inputs, of the shape of `Autoencoder.seen`."""
        seen = nets.seen(x)
        if not self.strength:
            return seen
        there = ~x.flatten(1).isnan() if nets.event.missing else None
        if self.name == "gaussian":
            noise = random.normal(seen.shape, generator, like=seen) * self.noisy.view(seen.shape[1:])
            if there is not None:
                noise = noise * self._of_inputs(there, seen)
            if self.has_levels:
                low, high = self._ends(nets, x)
                noise = noise * (high - low)
            return seen + self.strength * noise
        u = random.uniform((len(x), nets.event.dims), generator, like=seen)
        if self.name == "masking":
            return torch.where(self._of_inputs(u < self.strength, seen), self._removed(nets, x, seen), seen)
        low, high = self._ends(nets, x)
        hit = u < self.strength if there is None else (u < self.strength) & there
        either = torch.where(self._of_inputs(u < self.strength / 2, seen), low, high)
        return torch.where(self._of_inputs(hit, seen), either, seen)

    def _of_inputs(self, of_entries: Tensor, seen: Tensor) -> Tensor:
        """A value of each entry ``(B, D)`` for each input."""
        if len(self.entry_of) > of_entries.shape[1]:
            of_entries = of_entries[:, self.entry_of]
        return of_entries.reshape(seen.shape)

    def _ends(self, nets: Autoencoder, x: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs of an example at its lowest levels, and at its highest."""
        ends = torch.stack([self.lowest, self.highest])
        low, high = nets.seen(ends.to(x.dtype) if x.is_floating_point() else ends)
        return low, high

    def _removed(self, nets: Autoencoder, x: Tensor, seen: Tensor) -> Tensor:
        """The inputs of an example whose entries are all removed."""
        if nets.event.missing:
            return nets.seen(torch.full_like(x[:1], torch.nan))[0] if len(x) else seen.new_zeros(seen.shape[1:])
        return self._ends(nets, x)[0] if self.has_levels else seen.new_zeros(seen.shape[1:])


def corrupted_units(
    h: Tensor, name: CorruptionName, strength: float, activation: UnitName, generator: Generator | None
) -> Tensor:
    """The same noise of units ``(B, H)``: they are set to 0, σ is in their own unit, or they are set to their ends."""
    if not strength:
        return h
    if name == "gaussian":
        return h + strength * random.normal(h.shape, generator, like=h)
    u = random.uniform(h.shape, generator, like=h)
    if name == "masking":
        return torch.where(u < strength, 0.0, h)
    low, high = _RANGES[activation]
    return torch.where(u < strength / 2, low, torch.where(u < strength, high, h))


def has_ends(activation: UnitName) -> bool:
    """Whether units have a lowest and a highest value."""
    return activation in _RANGES


def check_strength(name: CorruptionName, strength: float, owner: str) -> None:
    """Raise `InputError` if the strength is a probability above 1."""
    if name != "gaussian" and strength > 1:
        raise InputError(
            f"{owner}: corruption={strength:g} is the probability that noise={name!r} hits an entry; expected at most 1"
        )
