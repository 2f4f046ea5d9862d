"""FVSBN, the fully visible sigmoid belief network: a logistic regression of each entry on the earlier ones.

p(x_i = 1 | x_<i, c) = σ(b_i + Σ_{j<i} W_ij x_j + V_i c)

(Neal 1992, https://doi.org/10.1016/0004-3702(92)90065-6; Frey, Hinton, Dayan 1996). W is strictly lower triangular in
the order of generation. More than two levels have a softmax over them, and one-hot inputs.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear

from unsup.core.batch import Batch
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressor import Steps
from unsup.nn.causal import Context
from unsup.nn.entries import EntryModel
from unsup.nn.inputs import dense_inputs
from unsup.nn.masked import MaskedMLP
from unsup.nn.observation import symbols_for
from unsup.nn.raster import usual_order


class FVSBN(EntryModel):
    """Logistic regressions of each entry on the earlier ones (Neal 1992).

    The problem is convex. Weights start at 0 and biases at the smoothed log-odds of the data, which is the product of
    independent entries.

    Args:
        event: discrete entries with one support; images are in raster order, channel by channel in a pixel.
        given: event of the condition, e.g. ``labels(10)``, or None.

    >>> from unsup import Event, Support
    >>> model = FVSBN(Event((4,), Support("binary")))
    >>> model.sample(3).shape
    torch.Size([3, 4])
    """

    presets = {"tiny": {}, "paper": {}}
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(self, event: Event, *, given: Event | None = None) -> None:
        self.order = usual_order(event)
        self.observation, self.inputs = symbols_for(event), dense_inputs(event)
        self.take_condition_of(given)
        each = self.observation.outputs_each
        self.net = MaskedMLP(self.order.position[None] + 1, [], inputs=self.inputs.each, outputs=each)
        nn.init.zeros_(self.net.top.weight)
        self.net.start_at(torch.zeros(event.dims * each))
        self.shift = nn.Linear(self.conditions.size, event.dims * each, bias=False) if self.conditions.size else None

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.uniform is None:
            return "takes entries with the same levels only"
        return None if event.is_discrete else "takes discrete entries only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start at the log-odds, or log-frequencies, of the data."""
        super().prepare(batch, generator=generator)
        self.net.start_at(self.observation.marginal(batch.x.flatten(1)).flatten())

    def shifts(self, n: int, context: Context) -> Tensor | None:
        """V c of each entry in the order of generation: ``(B, D, P)``."""
        if self.shift is None:
            return None
        assert context.given is not None
        found = linear(context.given, self.shift.weight).view(n, self.order.dims, self.observation.outputs_each)
        return found[:, self.order.entries.to(found.device)]

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        self.event.check_shape(x)
        found: Tensor = self.net(self.inputs.flat(x))[:, self.order.entries.to(x.device)]
        shifts = self.shifts(len(x), context)
        return found if shifts is None else found + shifts

    def _steps(self, n: int, context: Context) -> Steps:
        steps = self.net.begin(n, 0, lambda site, value: self.inputs.levels(value))
        shifts = self.shifts(n, context)
        return steps if shifts is None else _Shifted(steps, shifts)


class _Shifted(Steps):
    """Steps with a shift of the outputs at each site, ``(B, D, P)``."""

    def __init__(self, steps: Steps, shifts: Tensor) -> None:
        self.steps, self.shifts = steps, shifts

    def outputs(self, site: int) -> Tensor:
        return self.steps.outputs(site) + self.shifts[:, site]

    def put(self, site: int, value: Tensor) -> None:
        self.steps.put(site, value)
