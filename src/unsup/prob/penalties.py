"""Penalties of codes: of units that are active too often, and of codes that change with every small change of x."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unsup.prob.distributions import at_least_float32


def activity_divergence(mean: Tensor, target: float) -> Tensor:
    """Σ_j KL(ρ ‖ ρ̂_j) of Bernoullis in nats, of units with the mean activities ρ̂ ``(F,)``; ρ is the target: ``()``.

    (Ng 2011, "Sparse autoencoder", https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf.)

    >>> activity_divergence(torch.tensor([0.05, 0.05]), 0.05)
    tensor(0.)
    """
    tiny = torch.finfo(mean.dtype).eps  # a mean of float32 rounds to 0 or 1
    mean = mean.clamp(tiny, 1 - tiny)
    on, off = (target / mean).log(), ((1 - target) / (1 - mean)).log()
    return (target * on + (1 - target) * off).sum()


def contraction(weights: Sequence[Tensor], slopes: Sequence[Tensor]) -> Tensor:
    """‖∂h/∂x‖²_F of h = s_L(W_L … s_1(W_1 x + b_1) … + b_L), exactly: ``(B,)``.

    For one layer it is Σ_j s′(a_j)² ‖W_j‖² (Rifai, Vincent, Muller, Glorot, Bengio 2011). For more, the
    Jacobian with respect to the first layer is multiplied from the code downwards, which keeps ``(B, F, width)``
    numbers of each layer between, and W_1 enters by W_1 W_1ᵀ, so that the number of inputs does not matter.

    Args:
        weights: W_l, ``(outputs, inputs)``, from the first layer.
        slopes: s′_l at the pre-activations of every layer, ``(B, outputs)``.
    """
    with torch.autocast(weights[0].device.type, enabled=False):  # a sum of squares
        first, *others = (at_least_float32(w) for w in weights)
        lowest, *above = (at_least_float32(s) for s in slopes)
        if not others:
            return lowest.square() @ first.square().sum(1)
        jacobian = above[-1].unsqueeze(2) * others[-1]  # (B, F, width below)
        for weight, slope in zip(reversed(others[:-1]), reversed(above[:-1]), strict=True):
            jacobian = (jacobian * slope.unsqueeze(1)) @ weight
        jacobian = jacobian * lowest.unsqueeze(1)
        return ((jacobian @ (first @ first.t())) * jacobian).sum((1, 2))
