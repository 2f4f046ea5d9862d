"""Entry after entry: the one loop over the sites of an example.

    log p(x) = Σ_t log p(x_t | x_<t)

Drawing, completing, decoding and scoring step by step are the same walk with another choice at each site.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor

from unsup.nn.observation import Observation

Choose = Callable[[int, Tensor], Tensor]
"""What is at a site, ``(B,)``, from the site and the outputs ``(B, P)`` there."""


class Steps(ABC):
    """A net as a walk sees it: it says what the outputs at a site are, then is told what was chosen there."""

    @abstractmethod
    def outputs(self, site: int) -> Tensor:
        """The parameters of p(site | sites before), ``(B, P)``."""

    @abstractmethod
    def put(self, site: int, value: Tensor) -> None:
        """Take the target chosen at the site, ``(B,)``."""


class Naive(Steps):
    """Steps that compute the outputs of all sites anew each time: the slow reference of every cache.

    Args:
        outputs: targets ``(B, D)`` → outputs ``(B, D, P)``, causal.
        targets: to begin with, at sites where nothing was chosen yet.
    """

    def __init__(self, outputs: Callable[[Tensor], Tensor], targets: Tensor) -> None:
        self.all_outputs, self.targets = outputs, targets.clone()

    def outputs(self, site: int) -> Tensor:
        return self.all_outputs(self.targets)[:, site]

    def put(self, site: int, value: Tensor) -> None:
        self.targets[:, site] = value


def walk(net: Steps, sites: Iterable[int], choose: Choose, targets: Tensor) -> Tensor:
    """Go through the sites in order and fill in the targets ``(B, D)`` that ``choose`` finds; they are returned."""
    for site in sites:
        value = choose(site, net.outputs(site))
        targets[:, site] = value
        net.put(site, value)
    return targets


def drawing(observation: Observation, generator: Generator | None, temperature: float = 1.0) -> Choose:
    """Choose by drawing."""
    return lambda site, outputs: observation.draw(outputs, generator, temperature=temperature)


def keeping(known: Tensor, targets: Tensor, otherwise: Choose) -> Choose:
    """Choose the targets ``(B, D)`` where ``known``, something else where not."""
    return lambda site, outputs: torch.where(known[:, site], targets[:, site], otherwise(site, outputs))


def forcing(targets: Tensor) -> Choose:
    """Choose given targets ``(B, D)``: what an encoder does, and scoring step by step."""
    return lambda site, outputs: targets[:, site]
