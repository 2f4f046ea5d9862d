"""Causal layers: computed for all sites at once, or site by site with a cache.

A *site* is a position on a grid (row by row from the top, left to right) together with a group of features (a colour).
A sequence is a grid with one row. The output of a layer at a site depends on its inputs at this and earlier sites. The
first layer of a network is strict: it does not see the site itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
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
        """Whether all rows above are complete, and this row is empty."""
        return self.column == 0 and self.group == 0


@dataclass(frozen=True)
class Context:
    """The inputs of a network besides the example.

    Attributes:
        given: features of the condition of each example, ``(B, F)``, or None.
        generator: random generator of noise in training (dropout).
        pixels: features of each pixel that are known before the first site, ``(B, F, H, W)``, or None.
    """

    given: Tensor | None = None
    generator: Generator | None = None
    pixels: Tensor | None = None


NOTHING = Context()


class Groups:
    """Features split into consecutive groups, as evenly as possible.

    Args:
        features: number of features.
        groups: number of groups.
        parts: number of equal parts that are split separately, e.g. 2 for the halves of a gate.

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
        """The slice of each group when features are sorted by group."""
        self.sorted = parts == 1 or groups == 1

    def sort(self, x: Tensor, axis: int = 0) -> Tensor:
        """``x`` with features sorted by group; the parts of a group are consecutive."""
        return x if self.sorted else x.index_select(axis, self.of.argsort(stable=True).to(x.device))


class Causal(nn.Module, ABC):
    """A layer over a grid of sites.

    Stepping through all sites in order gives the same result as `forward`.
    """

    @abstractmethod
    def forward(self, h: Any, context: Context = NOTHING) -> Any:
        """Features of all sites: ``(B, I, H, W)`` → ``(B, O, H, W)``."""

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Any:
        """The state of `step` in a walk of ``n`` examples over a grid of ``size`` (rows, columns)."""

    @abstractmethod
    def step(self, memory: Any, site: Site, h: Any) -> Any:
        """Features of one site, called in order: ``(B, I_g)`` of its group → ``(B, O_g)``."""

    def spread(self, seen: Any) -> Any:
        """The inputs of the network on which each output site can depend, given the same for the inputs of the layer.

        Booleans as numbers 0 and 1 ``(N, groups, H, W)``, one row per input of the network; for blind spots.
        """
        return seen


class Remembering(Causal):
    """A layer that stores its inputs and reads some of them.

    Attributes:
        strict: whether the site itself is excluded, as in the first layer of a network, which is evaluated before the
            target at the site is known.
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
    """A function of each site on its own, such as ``torch.relu``; of sequences also a linear layer or a norm.

    The weights of a module have names that start with ``module``, so that stored runs can be read.
    """

    def __init__(self, module: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.module = module

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        return self.module(h)

    def step(self, memory: None, site: Site, h: Tensor) -> Tensor:
        return self.module(h)


def gate(h: Tensor, axis: int = 1) -> Tensor:
    """tanh(a) ⊙ σ(b) of the halves a, b of an axis."""
    a, b = h.chunk(2, axis)
    return a.tanh() * b.sigmoid()


class Dropout(Causal):
    """Dropout of features in training, with the generator of the context."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        return random.dropout(h, self.share, context.generator) if self.training else h

    def step(self, memory: None, site: Site, h: Tensor) -> Tensor:
        return h


class Shift(Causal):
    """h + V c: a bias that depends on the condition of the example, the same at all sites.

    Args:
        size: size of the features c in the context; 0 without a condition, where the layer is the identity.
        groups: groups of the features h.
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
        if memory is None:
            return h
        bias = memory[site.group]
        return h + (bias if h.ndim == 2 else bias[:, :, None, None])  # of a site, or of a row


def layers_of(modules: nn.ModuleList) -> list[Causal]:
    """The causal layers in a list of modules."""
    return cast(list[Causal], list(modules))


def through(layers: Iterable[Causal], h: Any, context: Context = NOTHING) -> Any:
    """The features of all sites after a chain of layers."""
    for layer in layers:
        h = layer(h, context)
    return h


def spread_through(layers: Iterable[Causal], seen: Any) -> Any:
    """`Causal.spread` of a chain of layers."""
    for layer in layers:
        seen = layer.spread(seen)
    return seen


class ChainWalk:
    """A network in a walk: every layer is computed at the site only, when its last input is known.

    Args:
        layers: a chain of layers, the first one strict.
        n: number of examples.
        size: rows and columns of the grid.
        context: the other inputs of the network.
    """

    def __init__(self, layers: Sequence[Causal], n: int, size: tuple[int, int], context: Context) -> None:
        self.first = cast(Remembering, layers[0])
        assert self.first.strict
        self.memory = self.first.begin(n, size, context)
        self.rest = [(layer, layer.begin(n, size, context)) for layer in layers[1:]]

    def look(self, site: Site) -> Tensor:
        """The features of the last layer at a site, ``(B, O_g)``."""
        h = self.first.look(self.memory, site)
        for layer, memory in self.rest:
            h = layer.step(memory, site, h)
        return cast(Tensor, h)

    def put(self, site: Site, h: Tensor) -> None:
        """Take the inputs of the site, ``(B, I_g)``."""
        self.first.put(self.memory, site, h)


class Chain(Causal):
    """A sequence of layers. Subclasses define the layers and their order."""

    residual = False
    """Whether the input is added to the output."""

    @abstractmethod
    def layers(self) -> Sequence[Causal]:
        """The layers in order."""

    def forward(self, h: Any, context: Context = NOTHING) -> Any:
        y = through(self.layers(), h, context)
        return h + y if self.residual else y

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> list[tuple[Causal, Any]]:
        return [(layer, layer.begin(n, size, context)) for layer in self.layers()]

    def step(self, memory: list[tuple[Causal, Any]], site: Site, h: Any) -> Any:
        y = h
        for layer, own in memory:
            y = layer.step(own, site, y)
        return h + y if self.residual else y

    def spread(self, seen: Any) -> Any:
        y = spread_through(self.layers(), seen)
        return torch.maximum(seen, y) if self.residual else y


class Sequential(Chain):
    """A numbered sequence of layers.

    Args:
        layers: the layers in order.
        residual: whether the input is added to the output.
    """

    def __init__(self, *layers: Causal, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        for number, layer in enumerate(layers):
            self.add_module(str(number), layer)

    def layers(self) -> Sequence[Causal]:
        return cast(list[Causal], list(self._modules.values()))
