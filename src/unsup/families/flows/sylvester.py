"""Sylvester flow: planar steps of rank M.

    f(y) = y + Q R h(R̃ Qᵀy + b),  h = tanh        (eq. 14)
    |det ∂f/∂y| = Π_i (1 + h′(·)_i R_ii R̃_ii)      (eq. 11)

with M orthonormal columns Q and upper triangular R and R̃ (van den Berg, Hasenclever, Tomczak, Welling 2018,
https://arxiv.org/abs/1803.05649). Diagonals in (−1, 1) make f invertible (theorem 2).
"""

from __future__ import annotations

from unsup.core.config import Count
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten
from unsup.nn.smooth_steps import SylvesterStep


class Sylvester(Flow):
    """Sylvester flow (van den Berg et al. 2018, https://arxiv.org/abs/1803.05649), from data to N(0, I).

    Steps of rank M bend space along M directions at once. The paper has them in the posterior of a VAE; here they map
    data to the base, so that densities cost one pass, and a sample M bisections for each step. Q is orthonormal by a QR
    decomposition, which has the same range as the iterations of the paper.

    The paper does not fix the number of steps of the ``paper`` preset for this use: it is our choice.

    Args:
        event: real, ordinal or binary vectors.
        layers: number of steps.
        rank: M; None: the number of entries, at most 32.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; the offsets b depend on it.

    Raises:
        InputError: a rank larger than the number of entries.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = Sylvester(Event((3,), Support("real")), layers=2, rank=2)
    >>> model.log_prob(torch.zeros(4, 3)).shape
    torch.Size([4])
    """

    presets = {"tiny": {"layers": 2}, "paper": {"layers": 16, "rank": 32}}
    fit_defaults = {"lr": 2e-3, "batch_size": 128}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 8,
        rank: Count | None = None,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, dequantization=dequantization)
        rank = min(event.dims, 32) if rank is None else rank
        if rank > event.dims:
            raise InputError(f"rank={rank} is larger than the number of entries, {event.dims}")
        steps = (SylvesterStep(event.dims, rank, self.conditions.size) for _ in range(layers))
        self.flow = Chain([Flatten(event.shape), *steps])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)
