"""Causal layers: computed for all sites at once, or site by site with a memory of what came before.

A *site* is a place on a grid, its rows from the top and left to right in a row, and at one place one group of features
(colours) after another. A sequence is a grid with one row. What a layer gives at a site depends on what it was given at
that site and earlier ones; a strict one, which a net of them starts with, does not see the site itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from unsup.core import random


class Site(NamedTuple):
    """One step of the order of generation."""

    row: int
    column: int
    group: int = 0

    @property
    def opens_row(self) -> bool:
        """Whether all rows above are there, and nothing yet of this one."""
        return self.column == 0 and self.group == 0


@dataclass(frozen=True)
class Context:
    """What a net is told besides its inputs.

    Attributes:
        given: features of what each example is conditioned on, ``(B, F)``, or None.
        generator: of noise in training (dropout).
    """

    given: Tensor | None = None
    generator: Generator | None = None


NOTHING = Context()


class Groups:
    """Features split into groups as evenly as possible, the groups one after another.

    Args:
        features: how many there are.
        groups: how many groups.
        parts: equal parts that are split each on its own, e.g. 2 for the halves that a gate multiplies.

    >>> Groups(8, 3).of.tolist()
    [0, 0, 0, 1, 1, 1, 2, 2]
    >>> Groups(4, 2, parts=2).of.tolist()
    [0, 1, 0, 1]
    """

    def __init__(self, features: int, groups: int, parts: int = 1) -> None:
        each = features // parts
        self.count = groups
        self.of = (torch.arange(each) * groups // each).repeat(parts)
        """The group of each feature."""
        ends = self.of.bincount(minlength=groups).cumsum(0).tolist()
        self.slices = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        """Where each group lies once features are sorted by group."""
        self.sorted = parts == 1 or groups == 1

    def sort(self, x: Tensor, axis: int = 0) -> Tensor:
        """``x`` with its axis of features sorted by group, the parts of a group one after another."""
        return x if self.sorted else x.index_select(axis, self.of.argsort(stable=True).to(x.device))


class Causal(nn.Module, ABC):
    """A layer over a grid of sites.

    Stepping through all sites in order gives what `forward` gives for all of them.
    """

    @abstractmethod
    def forward(self, h: Any, context: Context = NOTHING) -> Any:
        """Features of all sites: ``(B, I, H, W)`` → ``(B, O, H, W)``."""

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Any:
        """What `step` reads and fills in a walk of ``n`` examples over a grid of ``size`` (rows, columns)."""

    @abstractmethod
    def step(self, memory: Any, site: Site, h: Any) -> Any:
        """Features of one site, sites taken in order: ``(B, I_g)`` of its group → ``(B, O_g)``."""

    def spread(self, seen: Any) -> Any:
        """Which inputs of the net each site of the output can depend on, given the same of the layer's inputs.

        Booleans as numbers 0 and 1 ``(N, groups, H, W)``, one row for each input of the net; for blind spots.
        """
        return seen


class Remembering(Causal):
    """A layer that keeps what it was given, and looks at some of it.

    Attributes:
        strict: whether the site itself is left out, as in the first layer of a net, which is looked at before what is
            at the site is known.
    """

    strict: bool

    @abstractmethod
    def look(self, memory: Any, site: Site) -> Any:
        """Outputs at a site, ``(B, O_g)``."""

    @abstractmethod
    def put(self, memory: Any, site: Site, h: Tensor) -> None:
        """Take the inputs of a site, ``(B, I_g)``."""

    def step(self, memory: Any, site: Site, h: Any) -> Any:
        if not self.strict:
            self.put(memory, site, h)
            return self.look(memory, site)
        found = self.look(memory, site)
        self.put(memory, site, h)
        return found


class Pointwise(Causal):
    """A function of the features of one site, e.g. ``Pointwise(torch.relu)``; axis 1 is that of features."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        return self.function(h)

    def step(self, memory: None, site: Site, h: Tensor) -> Tensor:
        return self.function(h)


def gate(h: Tensor) -> Tensor:
    """tanh(a) ⊙ σ(b) of the halves a, b of axis 1."""
    a, b = h.chunk(2, 1)
    return a.tanh() * b.sigmoid()


class Dropout(Causal):
    """Features set to 0 at random in training, by the generator of the context."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        return random.dropout(h, self.share, context.generator) if self.training else h

    def step(self, memory: None, site: Site, h: Tensor) -> Tensor:
        return h


class Shift(Causal):
    """h + V c: a bias that depends on what the example is conditioned on, the same at all sites.

    Args:
        size: of the features c in the context; 0 where there is no condition, and the layer is the identity.
        groups: of the features h.
    """

    def __init__(self, size: int, groups: Groups) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Linear(size, len(groups.of), bias=False).weight if size else None

    def bias(self, context: Context) -> Tensor | None:
        """V c: ``(B, features)``, or None without a condition."""
        if self.weight is None:
            return None
        assert context.given is not None
        return linear(context.given, self.weight)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        bias = self.bias(context)
        return h if bias is None else h + bias[:, :, None, None]

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> list[Tensor] | None:
        bias = self.bias(context)
        return None if bias is None else [self.groups.sort(bias, 1)[:, own] for own in self.groups.slices]

    def step(self, memory: list[Tensor] | None, site: Site, h: Tensor) -> Tensor:
        return h if memory is None else h + memory[site.group]


class Chain(Causal):
    """Layers in a row. Subclasses name their layers and say in which order they come."""

    residual = False
    """Whether what comes in is added to what comes out."""

    @abstractmethod
    def layers(self) -> Sequence[Causal]:
        """The layers, the first one first."""

    def forward(self, h: Any, context: Context = NOTHING) -> Any:
        y = h
        for layer in self.layers():
            y = layer(y, context)
        return h + y if self.residual else y

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> list[tuple[Causal, Any]]:
        return [(layer, layer.begin(n, size, context)) for layer in self.layers()]

    def step(self, memory: list[tuple[Causal, Any]], site: Site, h: Any) -> Any:
        y = h
        for layer, own in memory:
            y = layer.step(own, site, y)
        return h + y if self.residual else y

    def spread(self, seen: Any) -> Any:
        y = seen
        for layer in self.layers():
            y = layer.spread(y)
        return torch.maximum(seen, y) if self.residual else y


class Sequential(Chain):
    """Layers in a row, numbered.

    Args:
        layers: the first one first.
        residual: whether what comes in is added to what comes out.
    """

    def __init__(self, *layers: Causal, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        for number, layer in enumerate(layers):
            self.add_module(str(number), layer)

    def layers(self) -> Sequence[Causal]:
        return cast(list[Causal], list(self._modules.values()))
