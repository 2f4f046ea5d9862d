"""Entry by entry: the single loop over the sites of an example.

    log p(x) = Σ_t log p(x_t | x_<t)

Drawing, completing, decoding and scoring step by step are the same walk with different choices at each site.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.core.steps import in_steps
from unsup.nn.observation import Discrete, Observation
from unsup.prob import distributions as dist

Choose = Callable[[int, Tensor], Tensor]
"""Chooses the target at a site, ``(B,)``, from the site and the outputs ``(B, P)`` there."""


class Steps(ABC):
    """A network in a walk: it returns the outputs at a site, and then receives the target chosen there."""

    @abstractmethod
    def outputs(self, site: int) -> Tensor:
        """The parameters of p(site | sites before), ``(B, P)``."""

    @abstractmethod
    def put(self, site: int, value: Tensor) -> None:
        """Take the target chosen at the site, ``(B,)``."""


class Naive(Steps):
    """Steps that recompute the outputs of all sites each time: the slow reference for caches.

    Args:
        outputs: targets ``(B, D)`` → outputs ``(B, D, P)``, causal.
        targets: initial targets, for sites where nothing was chosen yet.
    """

    def __init__(self, outputs: Callable[[Tensor], Tensor], targets: Tensor) -> None:
        self.all_outputs, self.targets = outputs, targets.clone()

    def outputs(self, site: int) -> Tensor:
        return self.all_outputs(self.targets)[:, site]

    def put(self, site: int, value: Tensor) -> None:
        self.targets[:, site] = value


def walk(net: Steps, sites: Sequence[int], choose: Choose, targets: Tensor) -> Tensor:
    """Visit the sites in order and fill in the targets ``(B, D)`` from ``choose``; return them."""
    for site in in_steps(sites):
        value = choose(site, net.outputs(site))
        targets[:, site] = value
        net.put(site, value)
    return targets


def nothing_chosen(model: Model, observation: Observation, n: int) -> Tensor:
    """The targets of a walk before anything is chosen, ``(n, D)``: level numbers, or standardised numbers."""
    is_discrete = isinstance(observation, Discrete)
    dtype = torch.int64 if is_discrete else dist.at_least_float32(torch.zeros((), dtype=model.dtype)).dtype
    return torch.zeros(n, model.event.dims, dtype=dtype, device=model.device)


def drawing(
    observation: Observation,
    generator: Generator | None,
    temperature: float = 1.0,
    *,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Choose:
    """Choose by drawing; with ``top_k`` or ``top_p`` from the most probable levels only (`dist.most_probable`).

    Raises:
        InputError: ``top_k`` or ``top_p`` for entries without levels.
    """
    if top_k is None and top_p is None:
        return lambda site, outputs: observation.draw_at(site, outputs, generator, temperature=temperature)
    if not isinstance(observation, Discrete):
        raise InputError("top_k and top_p choose among levels, which real data does not have; use temperature")

    def choose(site: int, outputs: Tensor) -> Tensor:
        log_masses = (observation.log_masses(outputs) / temperature).log_softmax(-1)
        return dist.sample_categorical(dist.most_probable(log_masses, top_k, top_p), generator=generator)

    return choose


def keeping(known: Tensor, targets: Tensor, otherwise: Choose) -> Choose:
    """Choose the given targets ``(B, D)`` if ``known``, and another choice otherwise."""
    return lambda site, outputs: torch.where(known[:, site], targets[:, site], otherwise(site, outputs))


def forcing(targets: Tensor) -> Choose:
    """Choose given targets ``(B, D)``: for encoders and for scoring step by step."""
    return lambda site, outputs: targets[:, site]
