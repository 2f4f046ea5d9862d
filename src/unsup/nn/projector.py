"""Projectors and predictors: dense heads on the features of self-supervised models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from unsup.nn.norm import BatchNorm


def projector(
    widths: Sequence[int], *, norm: bool = True, last_norm: bool = False, last_bias: bool = True
) -> nn.Sequential:
    """Linear layers with ReLU between them: ``(B, widths[0])`` → ``(B, widths[-1])``.

    Args:
        norm: batch normalisation before each ReLU.
        last_norm: batch normalisation without gain and offset after the last layer.
        last_bias: whether the last layer has a bias; none where the loss does not depend on it.
    """
    layers: list[nn.Module] = []
    for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        last = number == len(widths) - 1
        normed = last_norm if last else norm
        layers.append(nn.Linear(inputs, outputs, bias=not normed and (last_bias or not last)))
        if normed:
            layers.append(BatchNorm(outputs, affine=not last))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
