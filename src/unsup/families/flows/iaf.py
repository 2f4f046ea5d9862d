"""IAF: inverse autoregressive flow.

The steps of a masked autoregressive flow in the other direction (Kingma, Salimans, Jozefowicz, Chen, Sutskever,
Welling 2016, https://arxiv.org/abs/1606.04934): from the base to the data, each entry is scaled and shifted given the
earlier entries of the base,

    x_i = z_i exp(α_i(z_<i)) + μ_i(z_<i)        (eqs. 7 to 9, with exp in place of a gate)

so that a sample costs one pass for each layer, and the density of a given example goes entry by entry.
"""

from __future__ import annotations

from unsup.core.config import Count, Widths
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressive_map import WIDEST, InverseAutoregressive, MaskedAutoregressive, autoregressive_step
from unsup.nn.bijection import LogAffine
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.nn.mixing import Reverse


class IAF(Flow):
    """Inverse autoregressive flow (Kingma et al. 2016, https://arxiv.org/abs/1606.04934).

    The same map as `MAF` in the other direction. Samples are fast; the density of given data, and so training on it,
    is slow: it finds the code of each entry after the other. Its gradient is that of the implicit function, which takes
    up to D further passes. Use `MAF` for data, and this model for few entries, or where samples are what counts. It
    has no batch normalisation, whose inverse in training would need the statistics of what it computes.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: number of autoregressive steps.
        hidden: units of each hidden layer of each network.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; its features are inputs of every network.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = IAF(Event((3,), Support("real")), layers=2, hidden=(16,))
    >>> model.sample(5).shape
    torch.Size([5, 3])
    """

    in_integers = True
    presets = {
        "tiny": {"layers": 2, "hidden": (16,)},
        "paper": {"layers": 8, "hidden": (1920, 1920)},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 4,
        hidden: Widths = (128, 128),
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(event, given, dequantization=dequantization)
        steps: list[Invertible] = [Flatten(event.shape)]
        for layer in range(layers):
            steps += [Reverse()] if layer else []
            step = autoregressive_step(event.dims, hidden, LogAffine(WIDEST), context=self.conditions.size)
            steps.append(InverseAutoregressive(step) if isinstance(step, MaskedAutoregressive) else step)
        self.flow = Chain(steps)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice({"hidden": (64,)}, {"ema": 0.99}, turn=None)
