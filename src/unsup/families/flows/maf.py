"""MAF: masked autoregressive flow.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x|, where f is a chain of autoregressive steps (Papamakarios, Pavlakou,
Murray 2017, https://arxiv.org/abs/1705.07057). A step standardises each entry given the earlier ones,

    y_i = (x_i − μ_i(x_<i)) exp(−α_i(x_<i))        (eq. 4)
    log|det ∂y/∂x| = −Σ_i α_i                      (eq. 5)

with μ and α from one pass of a masked network. Each step has the reverse order of the one before.
"""

from __future__ import annotations

from typing import Annotated, Any

from unsup.core.config import Count, Whole, Widths, Within
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressive_map import WIDEST, autoregressive_step
from unsup.nn.bijection import Bijection, LogAffine, NormalScores
from unsup.nn.flow import Dequantization, Flow
from unsup.nn.front import usual_alpha
from unsup.nn.invertible import Chain, Flatten, Invertible
from unsup.nn.mixing import BatchNormalisation, Reverse, Whitening

_SMALL = 10_000  # training examples below which the networks are smaller
_FEW = 16  # columns up to which networks find linear dependence in a short time


class MAF(Flow):
    """Masked autoregressive flow (Papamakarios, Pavlakou, Murray 2017, https://arxiv.org/abs/1705.07057).

    Discrete entries are dequantised, so the likelihood is a bound; images of them then pass through
    logit(α + (1 − 2α) v), with α = 1e-6 if they are grey and 0.05 for colours. Everything else is standardised by the
    training data. Images are flattened.

    A density costs one pass, a sample one pass for each layer too: units of the networks are computed once, when their
    last input is known. Batch normalisation layers use the statistics of the batch only in the loss in training mode;
    all other methods use their running averages, where the paper has the statistics of the whole training set.

    Logarithms of scales are bounded to ±3 by tanh, which is not in the paper, so that a row far out keeps a
    finite score. The ``paper`` preset is the MAF(5) of the data sets HEPMASS and MINIBOONE.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: number of autoregressive steps.
        hidden: units of each hidden layer of each network.
        batch_norm: batch normalisation after each step.
        components: number of Gaussians of each entry in the base, a mixture given the earlier entries (MAF MoG); 0:
            the base is N(0, I).
        whiten: subtract from each entry its linear regression on the earlier ones, at first and with fixed weights.
        dropout: fraction of hidden units dropped in training.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition, e.g. ``labels(10)``, or None; its features are inputs of every network.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = MAF(Event((3,), Support("real")), layers=2, hidden=(16,))
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    in_integers = True
    presets = {
        "tiny": {"layers": 2, "hidden": (16,)},
        "paper": {"layers": 5, "hidden": (512, 512), "batch_norm": True},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 5,
        hidden: Widths = (128, 128),
        batch_norm: bool = False,
        components: Whole = 0,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        whiten: bool = False,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        self.take(
            event,
            given,
            logit_alpha=usual_alpha(event),
            dequantization=dequantization,
        )
        steps: list[Invertible] = [Flatten(event.shape), *([Whitening(event.dims)] if whiten else [])]
        context = self.conditions.size

        def step(bijection: Bijection) -> Invertible:
            return autoregressive_step(event.dims, hidden, bijection, context=context, dropout=dropout)

        for layer in range(layers):
            steps += [Reverse()] if layer else []
            steps.append(step(LogAffine(WIDEST)))
            steps += [BatchNormalisation(event.dims)] if batch_norm else []
        if components:
            steps += [Reverse(), step(NormalScores(components))]
        self.flow = Chain(steps)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        training: dict[str, Any] = {"ema": 0.99}
        if event.layout != "vector":
            options = {"hidden": (64,)} if examples < _SMALL else {}
            return Advice(options, training | ({"weight_decay": 0.1} if examples < _SMALL else {}), turn=None)
        training |= {"lr": 3e-3, "batch_size": 128, "clip": 5.0}
        more: dict[str, Any] = {"whiten": event.dims > _FEW}
        if examples < _SMALL:
            more |= {"hidden": (64, 64), "dropout": 0.1}
        return Advice(more, training, turn=None)
