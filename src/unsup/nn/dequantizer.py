"""Variational dequantisation: a conditional flow for the noise within the cells of discrete entries.

    log P(x) ≥ E_q(u|x) [log p(x + u) − log q(u | x)],  u = σ(g(ε; x)),  ε ~ N(0, I)

(Ho, Chen, Srinivas, Duan, Abbeel 2019, https://arxiv.org/abs/1902.00275, section 3.1). With u uniform the second term
is 0; a flow g that has learned where p lies within a cell makes the bound tighter.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid

from unsup.core import random
from unsup.core.event import Event
from unsup.nn.autoregressive_map import MaskedAutoregressive
from unsup.nn.bijection import LogAffine
from unsup.nn.conditioner import NormedConv, glow_net
from unsup.nn.coupling import Coupling
from unsup.nn.front import Dequantizer
from unsup.nn.invertible import Chain, Invertible
from unsup.nn.mixing import Reverse
from unsup.nn.split import Checkerboard
from unsup.prob.distributions import LOG_2PI, at_least_float32

_COUPLINGS, _STEPS = 4, 2


class VariationalDequantizer(Dequantizer):
    """q(u | x) of a small conditional flow; at first u = σ(ε).

    Images have checkerboard couplings, whose networks see features of x from a convolution; the discrete entries of
    vectors have autoregressive steps, whose networks see x.

    Args:
        event: of the examples; real entries of a table get no noise.
        width: channels, or units, of the networks.
        flow: of images: g, in place of that described above.
        features: of images: what its networks see of x, scaled to [−1, 1].
    """

    places: Tensor
    low: Tensor
    span: Tensor

    def __init__(
        self, event: Event, width: int = 32, *, flow: Invertible | None = None, features: nn.Module | None = None
    ) -> None:
        super().__init__()
        columns = event.columns
        places = [d for d, support in enumerate(columns) if support.is_discrete]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("low", torch.tensor([float(s.low) for s in columns]).view(event.shape), persistent=False)
        span = [float(max(s.levels - 1, 1)) if s.is_discrete else 1.0 for s in columns]
        self.register_buffer("span", torch.tensor(span).view(event.shape), persistent=False)
        self.features: nn.Module
        self.flow: Invertible
        if flow is not None and features is not None:
            self.shape, self.flow, self.features = event.shape, flow, features
        elif event.is_image:
            channels, height, side = event.shape
            self.shape = event.shape
            self.features = nn.Sequential(NormedConv(channels, width, 3), nn.ReLU(inplace=True))

            def coupling(i: int) -> Coupling:
                net = glow_net(channels + width, width, 2 * channels)
                return Coupling(Checkerboard(height, side, i % 2), net, LogAffine())

            self.flow = Chain(coupling(i) for i in range(_COUPLINGS))
        else:
            self.shape = (len(places),)
            self.features = nn.Flatten()
            steps = [_step(len(places), width, event.dims) for _ in range(_STEPS)]
            self.flow = Chain([steps[0], *(s for step in steps[1:] for s in (Reverse(), step))])

    def forward(self, x: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor]:
        noise = random.normal((len(x), *self.shape), generator, like=at_least_float32(x))
        s, log_det = self.flow(noise, self.context(x))
        each = -0.5 * (noise.square() + LOG_2PI) - logsigmoid(s) - logsigmoid(-s)
        u = s.sigmoid().clamp(max=1 - torch.finfo(s.dtype).eps).flatten(1)
        placed = u.new_zeros(len(x), x[0].numel() if len(x) else self.low.numel()).index_copy(1, self.places, u)
        return placed.view(x.shape), each.flatten(1).sum(1) - log_det

    def context(self, x: Tensor) -> Tensor:
        """What the flow sees of raw examples, floating."""
        scaled = 2 * (x - self.low.to(x.dtype)) / self.span.to(x.dtype) - 1
        return at_least_float32(self.features(scaled))


def _step(dims: int, width: int, context: int) -> MaskedAutoregressive:
    return MaskedAutoregressive(dims, (width,), LogAffine(), context=context)
