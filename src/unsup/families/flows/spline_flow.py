"""Neural spline flow: monotone rational-quadratic splines in couplings or autoregressive steps.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x|, where f alternates linear maps and steps that apply a spline to each
entry (Durkan, Bekasov, Murray, Papamakarios 2019, https://arxiv.org/abs/1906.04032). The knots of the spline of an
entry are outputs of a residual network of the other half of the entries (coupling), or of the earlier entries
(autoregressive); see `unsup.prob.splines`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from unsup.core.config import AtLeast, Count, Positive, Whole, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressive_map import MaskedAutoregressive
from unsup.nn.bijection import Spline
from unsup.nn.conditioner import ResidualMLP
from unsup.nn.coupling import Coupling
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.nn.mixing import Shuffle, TriangularMixing, Whitening
from unsup.nn.split import Halves

_MIXED = 128  # entries up to which linear maps are learned
_SMALL = 10_000  # training examples below which units are dropped
_FEW = 16  # columns up to which networks find linear dependence in a short time


class SplineFlow(Flow):
    """Neural spline flow, RQ-NSF (Durkan et al. 2019, https://arxiv.org/abs/1906.04032).

    A step is a linear map PLU, which starts as a random permutation, and then splines of all entries (autoregressive)
    or of the second half (coupling). Outside [−bound, bound] a spline is the identity, so that tails are
    those of the linear maps and the base. Above 128 entries the linear maps are fixed permutations. Discrete entries
    are dequantised: the likelihood is then a bound. Images are flattened.

    The ``paper`` preset is the model of tables, RQ-NSF (C);
    ``paper-autoregressive`` is RQ-NSF (AR).

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        step: ``coupling``, or ``autoregressive``, which samples entry by entry.
        layers: number of steps.
        width: units of the residual networks.
        blocks: residual blocks of each network.
        bins: bins of each spline.
        bound: B.
        dropout: fraction of the units inside residual blocks dropped in training.
        whiten: subtract from each entry its linear regression on the earlier ones, at first and with fixed weights.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; its features are inputs of every network.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = SplineFlow(Event((3,), Support("real")), layers=2, width=16)
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    presets = {
        "tiny": {"layers": 2, "width": 16, "blocks": 1, "bins": 4},
        "paper": {"step": "coupling", "layers": 10, "width": 256, "blocks": 2, "bins": 8},
        "paper-autoregressive": {"step": "autoregressive", "layers": 10, "width": 256, "blocks": 2, "bins": 8},
    }
    fit_defaults = {"lr": 5e-4, "batch_size": 256, "clip": 5.0}

    def __init__(
        self,
        event: Event,
        *,
        step: Literal["coupling", "autoregressive"] = "coupling",
        layers: Count = 5,
        width: Count = 64,
        blocks: Whole = 2,
        bins: Annotated[int, AtLeast(2)] = 8,
        bound: Positive = 3.0,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        whiten: bool = False,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, dequantization=dequantization)
        context, dims = self.conditions.size, event.dims
        seen = dims - dims // 2

        def splines() -> Invertible:
            spline = Spline(bins, bound, math.sqrt(width))
            if step == "autoregressive":
                hidden = (width,) * (1 + 2 * blocks)
                return MaskedAutoregressive(dims, hidden, spline, context=context, residual=True, dropout=dropout)
            net = ResidualMLP(seen + context, width, blocks, spline.outputs_each * (dims - seen), dropout=dropout)
            return Coupling(Halves(seen), net, spline)

        def mixing() -> Invertible:
            return TriangularMixing(dims, start="permutation") if dims <= _MIXED else Shuffle(dims)

        steps = (s for _ in range(layers) for s in (mixing(), splines()))
        self.flow = Chain([Flatten(event.shape), *([Whitening(event.dims)] if whiten else []), *steps, mixing()])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        training = {"ema": 0.99}
        if event.layout != "vector":
            return Advice(training=training, turn=None)
        training |= {"lr": 5e-3, "batch_size": 128, "warmup": 50}
        options = {"layers": 3, "blocks": 1, "whiten": event.dims > _FEW, "dropout": 0.1 if examples < _SMALL else 0.0}
        return Advice(options, training, turn=None)
