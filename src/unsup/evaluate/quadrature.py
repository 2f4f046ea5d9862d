"""log Z of an energy in one or two dimensions, by quadrature, and the likelihood it gives."""

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

_MARGIN = 0.5  # of the data's extent, added on each side for the first box
_FIRST, _MOST_GROWING, _MOST = 129, 257, 1025  # nodes an axis
_MOST_GROWTH = 12  # doublings of the box
_CHUNK = 2**15  # energies evaluated at once


@dataclass(frozen=True)
class Partition:
    """log Z = log ∫ exp(−E(x)) dx over a box.

    Attributes:
        log_z: in nats, for lengths in raw units.
        error: the change of ``log_z`` with the last refinement or widening, whichever is larger.
        low, high: corners of the box, ``(D,)`` float64.
        nodes: of the finest grid, along each axis.
    """

    log_z: float
    error: float
    low: Tensor
    high: Tensor
    nodes: int


def is_planar(event: Event) -> bool:
    """Whether an event is one or two real numbers, so that a grid covers it."""
    return event.is_real and event.dims <= 2


@torch.no_grad()
def log_partition(model: HasEnergy, box: Tensor, points: int) -> float:
    """log ∫ exp(−E) over a box by the trapezoid rule, in nats; the model is used as it is.

    Args:
        model: of one or two real numbers.
        box: its corners, ``(2, D)``, lowest first, in raw units.
        points: nodes along each axis, the corners among them.
    """
    x, log_weight = grid(box, points)
    event = cast(Model, model).event
    device = cast(Model, model).device
    parts = [model.energy(part.view(-1, *event.shape).to(device)).double().cpu() for part in x.split(_CHUNK)]
    return float((log_weight - torch.cat(parts)).logsumexp(0))


def grid(box: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Nodes ``(points^D, D)`` of the trapezoid rule on a box ``(2, D)`` and the log of their weights, float64.

    >>> x, log_weight = grid(torch.tensor([[0.0], [2.0]]), 3)
    >>> x.flatten().tolist(), log_weight.exp().tolist()
    ([0.0, 1.0, 2.0], [0.5, 1.0, 0.5])
    """
    low, high = box.double()
    axes, weights = [], []
    for a, b in zip(low.tolist(), high.tolist(), strict=True):
        weight = torch.full((points,), (b - a) / (points - 1), dtype=torch.float64)
        weight[0] *= 0.5
        weight[-1] *= 0.5
        axes.append(torch.linspace(a, b, points, dtype=torch.float64))
        weights.append(weight.log())
    x = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, len(axes))
    return x, torch.stack(torch.meshgrid(*weights, indexing="ij"), -1).flatten(0, -2).sum(-1)


def find_partition(model: Model, x: Tensor, *, tolerance: float = 1e-3) -> Partition:
    """log Z of an energy model, on a box that starts around examples ``x`` and widens and refines until it is settled.

    The box begins as the extent of ``x`` and half of it more on every side, and doubles about its centre until that
    changes log Z by less than ``tolerance``, so that mass which a model puts where there are no data is counted (a mode
    apart from all other mass, and beyond twice the box, is not seen); then the grid is refined likewise. The trapezoid
    rule converges fast on smooth energies that grow at the box's sides.

    Raises:
        CapabilityError: the model has no energy, or one of more than two real numbers.
        InputError: log Z does not settle: exp(−E) has no finite integral, or detail finer than the grid.
    """
    if not (isinstance(model, HasEnergy) and is_planar(model.event)):
        raise CapabilityError(
            f"quadrature needs an energy of one or two real numbers; this is a {type(model).__name__}"
        )
    was_training = model.training
    model.eval()
    flat = x.flatten(1).double().cpu()
    low, high = flat.amin(0), flat.amax(0)
    extent = (high - low).clamp(min=1e-6)
    box, nodes = torch.stack([low - _MARGIN * extent, high + _MARGIN * extent]), _FIRST
    for _ in range(_MOST_GROWTH):
        wider = box + (box - box.mean(0))
        # twice the box at the same spacing: the nodes of the one are among those of the other
        value = log_partition(model, box, nodes)
        change = abs(log_partition(model, wider, 2 * nodes - 1) - value)
        if change <= tolerance:
            break
        box, nodes = wider, min(2 * nodes - 1, _MOST_GROWING)
    else:
        raise InputError(f"log Z still changes by {change:.3g} nats as the box grows: exp(−E) has no finite integral")
    finer = math.inf
    while finer > tolerance:
        if 2 * nodes - 1 > _MOST:
            raise InputError(
                f"log Z still changes by {finer:.3g} nats with {nodes} nodes an axis: E is too fine for it"
            )
        nodes = 2 * nodes - 1
        value, before = log_partition(model, box, nodes), value
        finer = abs(value - before)
    model.train(was_training)
    return Partition(value, max(change, finer), box[0], box[1], nodes)


class NormalisedEnergy(nn.Module, HasDensity):
    """An energy model with its log Z: log p(x) = −E(x) − log Z, an ``estimate`` as good as `Partition.error`."""

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
        """−E(x) − log Z."""
        return -cast(HasEnergy, self.model).energy(batch.x) - self.partition.log_z


def with_likelihood(model: Model, x: Tensor) -> Model:
    """``model`` itself, or, for an energy of one or two real numbers without a density, a stand-in that has one.

    Args:
        x: training examples, around which quadrature starts.

    >>> import unsup
    >>> data = unsup.load_data("moons", n=200)
    >>> model = unsup.create("ebm", data.event, preset="tiny")
    >>> with_likelihood(model, data.train.x).likelihood_kind
    'estimate'
    """
    if isinstance(model, HasDensity) or not isinstance(model, HasEnergy) or not is_planar(model.event):
        return model
    return cast(Model, NormalisedEnergy(model, find_partition(model, x)))
