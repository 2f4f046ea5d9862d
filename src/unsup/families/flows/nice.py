"""NICE: non-linear independent components estimation.

log p(x) = Σ_d log p_Z(z_d) + Σ_d s_d with z = exp(s) ⊙ h(x), where h is a chain of additive couplings (Dinh, Krueger,
Bengio 2014, https://arxiv.org/abs/1410.8516). Each shifts the entries of one parity by a function of the others:

    h_even = x_even,  h_odd = x_odd + m(x_even)        (eqs. 11 and 12)

and the next one shifts the even entries given the odd ones. Shifts preserve volume, so the log-determinant is Σ s
alone: the single diagonal scale at the end models the variation of each component (section 3.3).
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Generator, Tensor

from unsup.core.config import Count, Widths
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.bijection import Additive
from unsup.nn.conditioner import mlp
from unsup.nn.coupling import Alternating
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.invertible import Chain, DiagonalScale, Flatten
from unsup.nn.split import EvenOdd
from unsup.prob.distributions import sample_standard_logistic, standard_logistic_log_prob

_LOGISTIC_STD = math.pi / math.sqrt(3)
_SMALL = 10_000  # training examples below which the couplings are regularised


class NICE(Flow):
    """NICE (Dinh, Krueger, Bengio 2014, https://arxiv.org/abs/1410.8516).

    Discrete entries are dequantised, so the likelihood is a bound. Every entry is standardised by the
    training data: the paper whitens Toronto Faces, SVHN and CIFAR-10, and leaves the pixels of MNIST in [0, 1]. Images
    are flattened, channel by channel and row by row.

    The ``paper`` preset is the MNIST model: four couplings, each of five hidden layers of 1000 rectified units. It
    trains for 1500 epochs by Adam with β₁ = 0.9, β₂ = 0.01 in the notation of Adam's first version, which is 0.99
    today, and ε = 1e-4; these are the defaults of `unsup.fit` here. The last layers of the couplings start at zero and
    the scales at the base's standard deviation: a new model is the base with the mean and deviation of every entry.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: number of couplings; with at least three, every component can depend on every entry.
        hidden: units of each hidden layer of the network of a coupling.
        base: density of the components: ``logistic`` (as in the paper, except for Toronto Faces) or ``gaussian``.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; its features are inputs of every coupling.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = NICE(Event((3,), Support("real")), hidden=(16,))
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    fewest_entries = 2
    in_integers = True
    presets = {"tiny": {"hidden": (16,)}, "paper": {"layers": 4, "hidden": (1000,) * 5, "base": "logistic"}}
    fit_defaults = {"lr": 1e-3, "batch_size": 200, "betas": (0.9, 0.99), "eps": 1e-4}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 4,
        hidden: Widths = (256, 256),
        base: Literal["logistic", "gaussian"] = "logistic",
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.base = base
        self.take(event, given, dequantization=dequantization)
        sizes = (event.dims - event.dims // 2, event.dims // 2)  # numbers of even and odd entries
        couplings = [
            (mlp(sizes[i % 2] + self.conditions.size, hidden, sizes[1 - i % 2]), Additive()) for i in range(layers)
        ]
        scale = DiagonalScale((event.dims,), math.log(_LOGISTIC_STD) if base == "logistic" else 0.0)
        self.flow = Chain([Flatten(event.shape), Alternating(EvenOdd(), couplings), scale])

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        if examples < _SMALL:
            return Advice({"hidden": (64, 64)}, {"ema": 0.99, "weight_decay": 0.1}, turn=None)
        return Advice(training={"ema": 0.99}, turn=None)

    def base_log_prob(self, z: Tensor) -> Tensor:
        return standard_logistic_log_prob(z).sum(1) if self.base == "logistic" else super().base_log_prob(z)

    def base_cdf(self, z: Tensor) -> Tensor:
        return z.sigmoid() if self.base == "logistic" else super().base_cdf(z)

    def draw_base(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        if self.base == "gaussian":
            return super().draw_base(n, generator=generator, temperature=temperature)
        return temperature * sample_standard_logistic((n, self.event.dims), generator, like=self.front.like)
