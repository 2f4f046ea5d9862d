"""Neural spline flow: monotone rational-quadratic splines in couplings or autoregressive steps.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x|, where f alternates linear maps and steps that apply a spline to each
entry (Durkan, Bekasov, Murray, Papamakarios 2019, https://arxiv.org/abs/1906.04032). The knots of the spline of an
entry are outputs of a residual network of the other half of the entries (coupling), or of the earlier entries
(autoregressive); see `unsup.prob.splines`. Couplings of images have the layout of Glow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from unsup.core.config import AtLeast, Count, Positive, Whole, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressive_map import autoregressive_step
from unsup.nn.bijection import Spline
from unsup.nn.conditioner import PlainResidualConvNet, ResidualMLP
from unsup.nn.coupling import Coupling
from unsup.nn.flow import Dequantization, Flow, scale_count
from unsup.nn.invertible import Chain, Flatten, Invertible, Squeeze
from unsup.nn.mixing import ActNorm, Shuffle, TriangularMixing, Whitening
from unsup.nn.split import Halves

_MIXED = 128  # entries of vectors up to which linear maps are learned
_SCALES = 3  # of images, by default
_DEQUANTIZER = 32  # channels of the networks of variational dequantisation
_SMALL = 10_000  # training examples below which units are dropped
_FEW = 16  # columns up to which networks find linear dependence in a short time


class SplineFlow(Flow):
    """Neural spline flow, RQ-NSF (Durkan et al. 2019, https://arxiv.org/abs/1906.04032).

    A step is a linear map PLU, which starts as a random permutation, and then splines of all entries (autoregressive)
    or of the second half (coupling). Outside [−bound, bound] a spline is the identity, so that tails are
    those of the linear maps and the base. Above 128 entries the linear maps are fixed permutations. Discrete entries
    are dequantised: the likelihood is then a bound.

    Couplings of images with even sides have the layout of Glow: each scale squeezes 2 × 2 pixels to channels, and has
    steps of an activation normalisation, a linear map of the channels, and a coupling of their halves, whose network
    has residual blocks of convolutions with batch normalisation; a linear map ends it. Nothing is factored out. Pixels
    are then divided by the number of levels, and not standardised; batch statistics are those of the batch in the loss
    of training only, elsewhere running averages. Other images, and images in autoregressive steps, are flattened.

    Units of the networks are dropped in the loss of training only. The ``paper`` preset is the model of tables,
    RQ-NSF (C), and ``paper-autoregressive`` is RQ-NSF (AR), both with the dropout of the data set MINIBOONE. The
    dropout of the larger tables is less, at most 0.2, which was not verified. ``paper-cifar10`` is the image model.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        step: ``coupling``, or ``autoregressive``, which samples entry by entry.
        layers: number of steps; of images: at each scale.
        width: units, or channels, of the residual networks.
        blocks: residual blocks of each network.
        scales: number of scales of images, each of which squeezes once; None: as many as the sides allow, at most 3.
        bins: bins of each spline.
        bound: B.
        dropout: share of the units inside the residual blocks that are dropped in training.
        whiten: subtract from each entry its linear regression on the earlier ones, at first and with fixed weights.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; its features are inputs of every network.

    Raises:
        InputError: the image cannot be squeezed ``scales`` times, or is to be whitened.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = SplineFlow(Event((3,), Support("real")), layers=2, width=16)
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    in_integers = True
    presets = {
        "tiny": {"layers": 2, "width": 16, "blocks": 1, "scales": 1, "bins": 4},
        "paper": {"step": "coupling", "layers": 10, "width": 256, "blocks": 2, "bins": 8, "dropout": 0.25},
        "paper-autoregressive": {
            "step": "autoregressive",
            "layers": 10,
            "width": 256,
            "blocks": 2,
            "bins": 8,
            "dropout": 0.25,
        },
        "paper-cifar10": {"layers": 7, "width": 96, "blocks": 3, "scales": 3, "bins": 4, "dropout": 0.2},
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
        scales: Count | None = None,
        bins: Annotated[int, AtLeast(2)] = 8,
        bound: Positive = 3.0,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        whiten: bool = False,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        step = "autoregressive" if event.dims == 1 else step  # nothing to couple
        as_image = step == "coupling" and event.is_image and not any(side % 2 for side in event.shape[1:])
        self.take(
            event,
            given,
            dequantization=dequantization,
            width=min(width, _DEQUANTIZER),
            standardise=event.is_real or not as_image,
        )
        context, dims = self.conditions.size, event.dims
        if as_image:
            if whiten:
                raise InputError("whiten=True is for vectors and autoregressive steps, not for couplings of images")
            count = scale_count(event, scales, squeezes_first=True)
            count = min(count, _SCALES) if scales is None else count

            def coupling(c: int) -> Coupling:
                spline = Spline(bins, bound, math.sqrt(width))
                outputs = spline.outputs_each * (c - c // 2)
                return Coupling(
                    Halves(c // 2), PlainResidualConvNet(c // 2 + context, outputs, width, blocks, dropout), spline
                )

            self.flow = _image_flow(event.shape, count, layers, coupling)
            return
        seen = dims - dims // 2

        def splines() -> Invertible:
            spline = Spline(bins, bound, math.sqrt(width))
            if step == "autoregressive":
                hidden = (width,) * (1 + 2 * blocks)
                return autoregressive_step(dims, hidden, spline, context=context, residual=True, dropout=dropout)
            net = ResidualMLP(seen + context, width, blocks, spline.outputs_each * (dims - seen), dropout)
            return Coupling(Halves(seen), net, spline)

        def mixing() -> Invertible:
            return TriangularMixing(dims, start="permutation") if dims <= _MIXED else Shuffle(dims)

        steps: list[Invertible] = []
        for _ in range(layers):
            steps += [*([mixing()] if dims > 1 else []), splines()]
        steps += [mixing()] if dims > 1 else []
        self.flow = Chain([Flatten(event.shape), *([Whitening(event.dims)] if whiten else []), *steps])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        training = {"ema": 0.99}
        if event.layout != "vector":
            return Advice(training=training, turn=None)
        training |= {"lr": 5e-3, "batch_size": 128, "warmup": 50}
        options = {"layers": 3, "blocks": 1, "whiten": event.dims > _FEW, "dropout": 0.1 if examples < _SMALL else 0.0}
        return Advice(options, training, turn=None)


def _image_flow(shape: tuple[int, ...], scales: int, layers: int, coupling: Callable[[int], Coupling]) -> Chain:
    """The layout of Glow without factoring out; ``coupling`` makes a coupling of a number of channels."""
    c, height, width = shape
    steps = list[Invertible]()
    for _ in range(scales):
        c, height, width = 4 * c, height // 2, width // 2
        steps.append(Squeeze())
        for _ in range(layers):
            steps += [ActNorm(c), TriangularMixing(c, start="permutation"), coupling(c)]
        steps.append(TriangularMixing(c, start="permutation"))
    return Chain([*steps, Flatten((c, height, width))])
