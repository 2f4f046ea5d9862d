"""Weight normalisation with data-dependent initialisation.

    w = g v / ‖v‖

for each output of a linear layer (Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868). At the start of training, g
and the bias are set such that each output has mean 0 and a given standard deviation over a batch.

A layer has a `WeightNorm` beside its parameters v and bias: it computes its weight with `weight`, and passes its
outputs in a full pass through `started`. The model calls `initialise` in `prepare`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

_LEAST = 0.1
"""Outputs whose deviation in the batch is a smaller share of the wanted one are centred only: a large gain would
amplify the first changes of v."""


class DataDependent(nn.Module):
    """A layer that sets its parameters when it is evaluated inside `initialise`, where `starting` is true.

    Attributes:
        initialised: whether that has happened. It is saved with the parameters: a model that is trained again keeps
            what it has learned.
        later_state: what files without a record of it stand for.
    """

    starting = False
    later_state: ClassVar = {"initialised": True}
    initialised: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialised", torch.tensor(False))


class WeightNorm(DataDependent):
    """The gain g of each output of a linear layer.

    Args:
        outputs: number of outputs.
        scale: standard deviation of the outputs over the first batch.
    """

    def __init__(self, outputs: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.gain = nn.Parameter(torch.full((outputs,), scale))

    def weight(self, v: Tensor) -> Tensor:
        """w of v, whose first axis has the outputs."""
        norm = torch.norm_except_dim(v, 2, 0)
        return v * (self.gain.view_as(norm) / norm)

    def started(self, outputs: Tensor, bias: Tensor) -> Tensor:
        """The outputs of the layer, features on axis 1; while initialising, standardised, with g and bias changed."""
        if not self.starting:
            return outputs
        axes = [axis for axis in range(outputs.ndim) if axis != 1]
        std, mean = torch.std_mean(outputs, axes, correction=0)
        ratio = torch.where(std > _LEAST * self.scale, self.scale / std, 1.0)
        self.gain.mul_(ratio)
        bias.copy_((bias - mean) * ratio)
        shape = (-1, *[1] * (outputs.ndim - 2))
        return (outputs - mean.view(shape)) * ratio.view(shape)


def initialise(model: nn.Module, full_pass: Callable[[], object]) -> None:
    """Set the parameters of all layers that depend on data, in the order in which a full pass evaluates them, once.

    >>> layer = nn.Linear(3, 2)
    >>> norm, x = WeightNorm(2, scale=0.5), torch.randn(64, 3)
    >>> outputs = lambda: norm.started(nn.functional.linear(x, norm.weight(layer.weight), layer.bias), layer.bias)
    >>> initialise(norm, outputs)
    >>> outputs().std(0, correction=0).detach()
    tensor([0.5000, 0.5000])
    """
    norms = [part for part in model.modules() if isinstance(part, DataDependent) and not part.initialised]
    if not norms:
        return
    training = model.training
    model.eval()
    for norm in norms:
        norm.starting = True
    try:
        with torch.no_grad():
            full_pass()
    finally:
        for norm in norms:
            norm.starting = False
        model.train(training)
    for norm in norms:
        norm.initialised.fill_(True)
