"""Energy networks: one number per example, lower for data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.front import ContinuousFront
from unsup.nn.spectral import computed_once, spectral_norm
from unsup.prob.distributions import at_least_float32
from unsup.prob.score_matching import score_of

Activation = Literal["swish", "leaky-relu"]


class EnergyNet(nn.Module):
    """E(x) = f(y(x)) + ½ Σ y_d² over unbounded entries d: a network on scaled data, with a Gaussian reference.

    The reference exp(−½ y²), as in Xie et al. 2016, makes the density of unbounded entries normalisable for any f,
    since f grows at most linearly. f has no constant term: the zero of an energy is arbitrary.

    Scaled data y: real entries are standardised by `prepare`. Discrete entries represent the cell [x, x + 1) that
    uniform noise fills: with ``bounded``, they are scaled to [0, 1] and bounded there, else standardised like real
    entries. The energy and the score of discrete raw data are evaluated at the middle of the cell, the score per level.

    Args:
        event: binary, ordinal, real, or a table that mixes them.
        hidden: widths of the dense layers, or of the residual groups for images.
        blocks: residual blocks per group (images).
        activation: swish is smooth; an energy that is differentiated twice must be.
        bounded: whether discrete entries stay within their cells.
    """

    free: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, event: Event, *, hidden: tuple[int, ...], blocks: int = 1, activation: Activation, bounded: bool
    ) -> None:
        super().__init__()
        self.event, self.bounded = event, bounded
        self.front = ContinuousFront(event)
        self.net = (
            ConvEnergy(event, hidden, blocks, activation)
            if event.is_image
            else DenseEnergy(event.dims, hidden, activation)
        )
        held = self.front.discrete & bounded
        self.register_buffer("free", ~held, persistent=False)
        self.register_buffer("low", torch.zeros(event.shape).masked_fill(~held, -torch.inf), persistent=False)
        self.register_buffer("high", torch.ones(event.shape).masked_fill(~held, torch.inf), persistent=False)
        self.any_free, self.any_held = bool(self.free.any()), bool(held.any())

    @torch.no_grad()
    def prepare(self, x: Tensor, *, generator: Generator) -> None:
        """Standardise unbounded entries by training data ``(N, *event.shape)``."""
        self.front.prepare(x, generator=generator)
        self.front.mean.masked_fill_(~self.free, 0.0)
        self.front.std.masked_fill_(~self.free, 1.0)

    def forward(self, y: Tensor) -> Tensor:
        """Energies ``(B,)`` of scaled data ``(B, *event.shape)``."""
        energy = at_least_float32(self.net(y))
        return energy + 0.5 * (y * self.free).flatten(1).square().sum(1) if self.any_free else energy

    def scale(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Raw data → y, with uniform noise on discrete entries."""
        y: Tensor = self.front(self.front.dequantize(x, generator=generator))[0]
        return y

    def unscale(self, y: Tensor) -> Tensor:
        """y → raw data of ``event.dtype``, inside the support."""
        return self.front.to_support(self.front.invert(y))

    def start(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """``n`` draws of y from the reference: N(0, 1) for unbounded entries, uniform on [0, 1] for bounded ones."""
        shape, like = (n, *self.event.shape), self.front.like
        normal = random.normal(shape, generator, like=like) if self.any_free else None
        if not self.any_held:
            return cast(Tensor, normal)
        uniform = random.uniform(shape, generator, like=like)
        return uniform if normal is None else torch.where(self.free, normal, uniform)

    def energy(self, x: Tensor) -> Tensor:
        """E of raw data: ``(B, *event.shape)`` → ``(B,)``."""
        energy: Tensor = self(self.front.middle(x))
        return energy

    def score(self, x: Tensor) -> Tensor:
        """−∇E of raw data, per raw unit, without a graph: ``(B, *event.shape)`` → the same shape, floating."""
        return score_of(self.energy, self.front.floating(x), graph=False)


class DenseEnergy(nn.Module):
    """Dense layers with activations between them, to one number: ``(B, ...)`` → ``(B,)``."""

    def __init__(self, dims: int, hidden: tuple[int, ...], activation: Activation) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(dims, width), _activation(activation)]
            dims = width
        self.layers = nn.Sequential(*layers, nn.Linear(dims, 1, bias=False))

    def forward(self, y: Tensor) -> Tensor:
        energy: Tensor = self.layers(y).squeeze(1)
        return energy


class ConvEnergy(nn.Module):
    """The residual net of Du and Mordatch 2019: ``(B, C, H, W)`` → ``(B,)``.

    A 3×3 convolution, groups of residual blocks of which the first widens and halves the sides, a ReLU-like
    activation, the sum over positions and one linear map. Convolutions have spectral norm 1, the linear map is free;
    no layer normalises.
    """

    def __init__(self, event: Event, hidden: tuple[int, ...], blocks: int, activation: Activation) -> None:
        super().__init__()
        channels, height, width = event.shape
        least = 2 ** len(hidden)
        if not hidden or min(height, width) < least:
            raise InputError(
                f"hidden={hidden} on {event}: an energy net for images needs at least one group, and sides of at least "
                f"2 to the number of groups ({least}); use fewer widths"
            )
        self.stem = spectral_norm(nn.Conv2d(channels, hidden[0], 3, padding=1))
        before = hidden[0]
        groups: list[nn.Module] = []
        for group in hidden:
            for block in range(blocks):
                groups.append(_Residual(before, group, activation, halve=block == 0))
                before = group
        self.groups = nn.Sequential(*groups)
        self.act = _activation(activation)
        self.head = nn.Linear(before, 1, bias=False)

    def forward(self, y: Tensor) -> Tensor:
        features = self.groups(self.act(self.stem(y)))
        energy: Tensor = self.head(features.sum((2, 3))).squeeze(1)
        return energy


class _Residual(nn.Module):
    """act(pool(conv(act(conv(h))) + skip(h)))."""

    def __init__(self, before: int, after: int, activation: Activation, *, halve: bool) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Identity() if before == after else spectral_norm(nn.Conv2d(before, after, 3, padding=1))
        self.act, self.halve = _activation(activation), halve

    def forward(self, h: Tensor) -> Tensor:
        h = self.second(self.act(self.first(h))) + self.skip(h)
        if self.halve:
            h = F.avg_pool2d(h, 2, ceil_mode=True)
        return cast(Tensor, self.act(h))


def _activation(name: Activation) -> nn.Module:
    return nn.SiLU() if name == "swish" else nn.LeakyReLU(0.2)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """In this context, ``module`` is in evaluation mode without parameter gradients; the state is restored afterwards.

    Computed weights (spectral norm) are computed once: parameters must not change in this context.
    """
    training = {m: m.training for m in module.modules()}
    learns = {p: p.requires_grad for p in module.parameters()}
    module.eval().requires_grad_(False)
    try:
        with computed_once(module):
            yield
    finally:
        for m, mode in training.items():
            m.training = mode
        for p, mode in learns.items():
            p.requires_grad_(mode)
