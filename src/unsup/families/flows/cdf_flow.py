"""CDF flow: the distribution function of a mixture as the map of a flow.

If x has the distribution function F, then F(x) is uniform, and Φ⁻¹(F(x)) is standard normal: a flow of one entry needs
nothing else. With F(x) = Σ_k π_k G((x − μ_k) / s_k) for logistic or Gaussian G, log p(x) = log F′(x), exactly a mixture
density. Several entries are mapped one by one, or each given the earlier ones, z_d = Φ⁻¹(F(x_d | x_<d)), with the
parameters of F from a masked network (the probability integral transform, Rosenblatt 1952,
https://doi.org/10.1214/aoms/1177729394).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.config import Count, Widths
from unsup.core.event import Event
from unsup.core.model import NO_WORDS, Advice
from unsup.nn.autoregressive_map import autoregressive_step
from unsup.nn.bijection import NormalScores
from unsup.nn.elementwise import Elementwise, NormalCdf
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.nn.mixing import Whitening

_FEW = 16  # columns up to which networks find linear dependence in a short time


class CdfFlow(Flow):
    """Mixture distribution functions, entry by entry (the probability integral transform, Rosenblatt 1952).

    The simplest flow, to look at and to learn from: the base is uniform or normal, and the density is that of a
    mixture of ``components`` for each entry. Data is standardised by the training data; discrete entries are
    dequantised, so that their likelihood is a bound. The paper has the transformation to a uniform base, for any F: the
    ``paper`` preset is that, with the mixtures of this model.

    Args:
        event: real, ordinal or binary vectors, also of one entry.
        components: number of components of each entry.
        component: ``logistic`` or ``gaussian``.
        base: ``gaussian``, or ``uniform``, for z = F(x). A temperature is then that of Φ⁻¹(z).
        dependence: ``autoregressive``: F is that of an entry given the earlier ones; ``independent``: entries are
            transformed one by one, and are independent in the model.
        hidden: units of each hidden layer of the masked network.
        whiten: subtract from each entry its linear regression on the earlier ones, at first and with fixed weights.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None.

    >>> from unsup import Event, Support
    >>> model = CdfFlow(Event((1,), Support("real")), components=3, base="uniform")
    >>> z, _ = model.transform(torch.randn(5, 1))
    >>> bool(((z > 0) & (z < 1)).all())
    True
    """

    in_integers = True
    presets = {
        "tiny": {"components": 3, "hidden": (16,)},
        "paper": {"dependence": "autoregressive", "base": "uniform"},  # the transformation, with these mixtures
    }
    fit_defaults = {"lr": 1e-2, "batch_size": 128, "clip": 5.0}

    def __init__(
        self,
        event: Event,
        *,
        components: Count = 5,
        component: Literal["logistic", "gaussian"] = "logistic",
        base: Literal["gaussian", "uniform"] = "gaussian",
        dependence: Literal["autoregressive", "independent"] = "autoregressive",
        hidden: Widths = (64, 64),
        whiten: bool = False,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.base = base
        self.take(event, given, dequantization=dequantization)
        context, dims, scores = self.conditions.size, event.dims, NormalScores(components, component)
        own: Invertible
        if dependence == "independent":
            own = Elementwise(dims, scores, context)
        else:
            own = autoregressive_step(dims, hidden, scores, context=context)
        start = [Flatten(event.shape), *([Whitening(event.dims)] if whiten else [])]
        self.flow = Chain([*start, own, *([NormalCdf()] if base == "uniform" else [])])

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout != "vector":
            return "takes vectors and tables only"
        return NO_WORDS if event.has_words else None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        if event.dims == 1:
            return Advice(training={"ema": 0.99}, turn=None)
        options = {"components": 10, "component": "gaussian", "hidden": (128, 128), "whiten": event.dims > _FEW}
        training = {"lr": 5e-3, "batch_size": 128, "warmup": 50, "clip": 5.0, "ema": 0.99}
        return Advice(options, training, turn=None)

    def base_log_prob(self, z: Tensor) -> Tensor:
        if self.base == "gaussian":
            return super().base_log_prob(z)
        inside = ((z >= 0) & (z <= 1)).all(1)
        return torch.where(inside, 0.0, -torch.inf).to(z.dtype)

    def base_cdf(self, z: Tensor) -> Tensor:
        return super().base_cdf(z) if self.base == "gaussian" else z.clamp(0, 1)

    def exact_cdf(self, z: Tensor) -> Tensor:
        return super().base_cdf(z)  # the last step, to a uniform base, is left out

    def draw_base(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        if self.base == "gaussian":
            return super().draw_base(n, generator=generator, temperature=temperature)
        normal = random.normal((n, self.event.dims), generator, like=self.front.like)
        return torch.special.ndtr(temperature * normal)

    def base_scores(self, z: Tensor) -> Tensor:
        return z if self.base == "gaussian" else torch.special.ndtri(z)
