"""log Z of an energy in one or two dimensions by quadrature, and the resulting likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import HasDensity, HasEnergy, Model
from unsup.evaluate.conditions import in_use

_MARGIN = 0.5  # relative to the extent of the data, added on each side for the first box
_FIRST, _MOST_GROWING, _MOST = 129, 257, 1025  # nodes per axis
_MOST_GROWTH = 12  # doublings of the box
_CHUNK = 2**15  # energies evaluated at once


@dataclass(frozen=True)
class Partition:
    """log Z = log ∫ exp(−E(x)) dx over a box.

    Attributes:
        log_z: in nats, for lengths in raw units.
        error: the change of ``log_z`` with the last refinement or widening, whichever is larger.
        low, high: corners of the box, ``(D,)`` float64.
    """

    log_z: float
    error: float
    low: Tensor
    high: Tensor


def is_planar(event: Event) -> bool:
    """Whether an event is one or two real numbers, for which a grid is feasible."""
    return event.is_real and event.dims <= 2


def log_partition(model: HasEnergy, box: Tensor, points: int) -> float:
    """log ∫ exp(−E) over a box ``(2, D)`` in raw units, by the trapezoid rule with ``points`` nodes per axis."""
    x, log_weight = grid(box, points)
    shape, device = cast(Model, model).event.shape, cast(Model, model).device
    parts = [model.energy(part.view(-1, *shape).to(device)).double().cpu() for part in x.split(_CHUNK)]
    return float((log_weight - torch.cat(parts)).logsumexp(0))


def grid(box: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Nodes ``(points^D, D)`` of the trapezoid rule on a box ``(2, D)`` and the log of their weights, float64.

    >>> x, log_weight = grid(torch.tensor([[0.0], [2.0]]), 3)
    >>> x.flatten().tolist(), log_weight.exp().tolist()
    ([0.0, 1.0, 2.0], [0.5, 1.0, 0.5])
    """
    low, high = box.double().tolist()
    axes = [torch.linspace(a, b, points, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    shares = torch.ones(points, dtype=torch.float64)
    shares[[0, -1]] = 0.5
    weights = [((b - a) / (points - 1) * shares).log() for a, b in zip(low, high, strict=True)]
    x, log_weight = (torch.cartesian_prod(*v).view(-1, len(low)) for v in (axes, weights))
    return x, log_weight.sum(-1)


def find_partition(model: Model, x: Tensor, *, tolerance: float = 1e-3) -> Partition:
    """log Z of an energy model, on a box around the examples ``x``.

    The box is first the extent of ``x`` with a margin of half the extent. It is doubled until log Z changes by less
    than ``tolerance``, to include mass far from the data (a distant mode beyond twice the box is not found); then the
    grid is refined in the same way. The trapezoid rule converges fast for smooth energies that grow at the sides.

    Raises:
        CapabilityError: the model has no energy, or more than two real numbers.
        InputError: log Z does not converge: exp(−E) has no finite integral, or details finer than the grid.
    """
    if not (isinstance(model, HasEnergy) and is_planar(model.event)):
        raise CapabilityError(f"quadrature needs an energy of one or two real numbers; {type(model).__name__} has none")
    flat = x.flatten(1).double().cpu()
    low, high = flat.amin(0), flat.amax(0)
    margin = _MARGIN * (high - low).clamp(min=1e-6)
    box, nodes, finer = torch.stack([low - margin, high + margin]), _FIRST, math.inf
    with in_use(model):
        for _ in range(_MOST_GROWTH):
            wider = box + (box - box.mean(0))
            # twice the box with the same spacing, so the nodes are nested
            value = log_partition(model, box, nodes)
            change = abs(log_partition(model, wider, 2 * nodes - 1) - value)
            if change <= tolerance:
                break
            box, nodes = wider, min(2 * nodes - 1, _MOST_GROWING)
        else:
            raise InputError(
                f"log Z still changes by {change:.3g} nats as the box grows: exp(−E) has no finite integral"
            )
        while finer > tolerance:
            if 2 * nodes - 1 > _MOST:
                raise InputError(
                    f"log Z still changes by {finer:.3g} nats with {nodes} nodes per axis: E is not smooth"
                )
            nodes = 2 * nodes - 1
            value, before = log_partition(model, box, nodes), value
            finer = abs(value - before)
    return Partition(value, max(change, finer), box[0], box[1])


class NormalisedEnergy(nn.Module, HasDensity):
    """An energy model with its log Z: log p(x) = −E(x) − log Z, an estimate with the error `Partition.error`."""

    def __init__(self, model: Model, partition: Partition) -> None:
        super().__init__()
        self.model, self.partition = model, partition
        self.event, self.config = model.event, model.config

    not_in_half = ""

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def likelihood_kind(self) -> Kind:
        return "estimate"

    @property
    def log_partition_error(self) -> float:
        return self.partition.error

    def _log_prob(self, batch: Batch, *, samples: int, generator: torch.Generator | None) -> Tensor:
        return -cast(HasEnergy, self.model).energy(batch.x) - self.partition.log_z


def with_likelihood(model: Model, x: Tensor) -> Model:
    """``model``, or, for an energy of one or two real numbers without a density, the same model with a density.

    Args:
        x: training examples, where quadrature starts.

    >>> import unsup
    >>> data = unsup.load_data("moons", n=200)
    >>> model = unsup.create("ebm", data.event, preset="tiny")
    >>> with_likelihood(model, data.train.x).likelihood_kind
    'estimate'
    """
    if isinstance(model, HasDensity) or not isinstance(model, HasEnergy) or not is_planar(model.event):
        return model
    return cast(Model, NormalisedEnergy(model, find_partition(model, x)))
