"""The terms of a made-up classification task."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from unsup.core.model import Terms
from unsup.prob.distributions import at_least_float32


def guesses(logits: Tensor, target: Tensor) -> Terms:
    """``loss``, the cross-entropy in nats, and ``accuracy`` of each example, means over its N guesses: ``(B,)``.

    Args:
        logits: ``(B, N, K)``.
        target: the right ones of K, int64 ``(B, N)``.
    """
    loss = cross_entropy(at_least_float32(logits).flatten(0, 1), target.flatten(), reduction="none")
    right = logits.detach().argmax(-1) == target
    return {"loss": loss.view(target.shape).mean(1), "accuracy": right.to(loss.dtype).mean(1)}
