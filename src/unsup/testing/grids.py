"""Oracles for laws: enumeration, quadrature, and statistics that compare them with draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unsup.core.event import Event

MOST_POINTS = 2**16
SMALL_GRID = 4096
FIRST_NODES = 201
MOST_NODES = 700_000  # allows 801² points, and 25,601 nodes of one real entry with 27 discrete values
LEAST_MASS = 1e-12  # of a node; all nodes together then miss less than 1e-6
P_VALUE = 1e-6  # a law about frequencies fails below this; with a fixed seed, a false alarm is reproducible
STANDARD_ERRORS = 4.5  # two-sided 7e-6 for a mean of many draws


@dataclass(frozen=True)
class Grid:
    """Points with weights: all values of a discrete event, or quadrature nodes for real entries.

    Attributes:
        x: ``(N, *event.shape)``, of ``event.dtype`` for discrete events and float64 otherwise.
        log_weight: ``(N,)``, so that Σ exp(log_weight + log p) is the total mass.
    """

    x: Tensor
    log_weight: Tensor


def states(event: Event) -> int:
    """The number of joint values of the discrete entries."""
    return math.prod(s.levels for s in event.columns if s.is_discrete)


def is_enumerable(event: Event, most: int = MOST_POINTS) -> bool:
    return event.is_discrete and states(event) <= most


def is_integrable(event: Event) -> bool:
    """Whether there are one or two real entries, and few enough discrete values for a fine grid."""
    real = sum(not s.is_discrete for s in event.columns)
    return real in (1, 2) and points(event, 801) <= MOST_NODES


def points(event: Event, nodes: int) -> int:
    """The number of points of `grid`."""
    return states(event) * nodes ** sum(not s.is_discrete for s in event.columns)


def has_small_grid(event: Event) -> bool:
    return points(event, FIRST_NODES) <= SMALL_GRID


def grid(event: Event, data: Tensor, nodes: int = FIRST_NODES) -> Grid:
    """The product of all levels of discrete entries and ``nodes`` nodes x = c + s sinh(t) of real ones.

    c and s are the mean and standard deviation of the entry in ``data``. With t equally spaced on [−5, 5] the nodes
    extend to 74 deviations with a spacing of at most 0.05 deviations in the middle, and the trapezoidal rule on a
    smooth, decaying integrand converges faster than any power of the spacing.
    """
    axes, weights = [], []
    flat = data.flatten(1).double()
    for d, support in enumerate(event.columns):
        if support.is_discrete:
            axes.append(torch.arange(support.levels, dtype=torch.float64) + support.low)
            weights.append(torch.zeros(support.levels, dtype=torch.float64))
        else:
            t = torch.linspace(-5, 5, nodes, dtype=torch.float64)
            known = flat[:, d][~flat[:, d].isnan()]
            scale = float(known.std())
            axes.append(float(known.mean()) + scale * t.sinh())
            weights.append((scale * t.cosh() * (10 / (nodes - 1))).log())
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, *event.shape)
    weight = torch.stack(torch.meshgrid(*weights, indexing="ij"), -1).flatten(0, -2).sum(-1)
    return Grid((x.to(event.dtype) if event.is_discrete else x).to(data.device), weight.to(data.device))


def _axes(event: Event, nodes: int) -> tuple[int, ...]:
    return tuple(s.levels if s.is_discrete else nodes for s in event.columns)


def refined(event: Event, at_nodes: Tensor, nodes: int) -> Tensor:
    """Numbers at the points of a grid of ``nodes`` on that of ``2 nodes − 1``, which contains them; NaN between."""
    finer = at_nodes.new_full(_axes(event, 2 * nodes - 1), math.nan)
    finer[tuple(slice(None, None, None if s.is_discrete else 2) for s in event.columns)] = at_nodes.view(
        _axes(event, nodes)
    )
    return finer.flatten()


def around_mass(event: Event, log_mass: Tensor, nodes: int) -> Tensor:
    """Which points of the grid of ``2 nodes − 1`` are within two nodes of the coarser one with some mass: bool.

    Nodes lie closely enough that elsewhere nothing is left to add: masses below ``LEAST_MASS``.
    """
    some = (log_mass > math.log(LEAST_MASS)).view(_axes(event, nodes))
    for axis, support in enumerate(event.columns):
        if support.is_discrete:
            continue
        own = torch.arange(2 * nodes - 1, device=some.device)
        near = [((own + step) // 2).clamp(0, nodes - 1) for step in range(-4, 6)]
        some = torch.stack([some.index_select(axis, place) for place in near]).any(0)
    return some.flatten()


def enumerate_event(event: Event) -> Tensor:
    """All values of a discrete event, ``(N, *event.shape)``; the last entry varies fastest."""
    return grid(event, torch.zeros(1, *event.shape)).x


def index_of(event: Event, x: Tensor) -> Tensor:
    """The row of each example in `enumerate_event`."""
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for d, support in enumerate(event.columns):
        index = index * support.levels + (x.flatten(1)[:, d].long() - support.low)
    return index


def chi_square(counts: Tensor, probability: Tensor) -> float:
    """p-value of Pearson's test of ``counts`` against ``probability``; cells with expected counts below 5 are pooled.

    >>> chi_square(torch.tensor([50, 50]), torch.tensor([0.5, 0.5]))
    1.0
    """
    probability = probability.double() / probability.double().sum()
    if bool((counts[probability == 0] > 0).any()):
        return 0.0
    expected = probability * counts.sum()
    rare = expected < 5
    observed = torch.cat([counts[~rare].double(), counts[rare].sum()[None].double()])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    if len(expected) < 2:
        return 1.0
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2.0).to(statistic), statistic / 2))


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))
