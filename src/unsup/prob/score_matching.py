"""Score matching: the distance of a score s(x) from ∇ log p(x), without p. Pure functions, one value per example.

The Fisher divergence ½ E‖s(x) − ∇ log p(x)‖² equals, up to a constant that does not depend on s, and if s p vanishes
at infinity (Hyvärinen 2005, https://jmlr.org/papers/v6/hyvarinen05a.html),

    J = E[½ ‖s(x)‖² + tr ∇s(x)]

Therefore data must be continuous and unbounded, and s must be differentiable: a piecewise linear energy has a trace of
zero almost everywhere. A ``score`` is a function ``(B, D)`` → ``(B, D)`` that acts on each row separately. Results have
a graph if gradients are enabled.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]


def score_of(energy: Callable[[Tensor], Tensor], x: Tensor, *, graph: bool) -> Tensor:
    """s(x) = −∇E(x), shaped as ``x``, differentiable in x and the parameters of E if ``graph`` is true.

    It also works under `torch.inference_mode`, where ``graph`` must be false.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x if x.requires_grad else _leaf(x)
        (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=graph)
    return -gradient


def exact_score_matching(score: Score, x: Tensor) -> tuple[Tensor, Tensor]:
    """½ ‖s‖² and tr ∇s of each example, whose sum is J (Hyvärinen 2005): ``(B, D)`` → ``(B,)`` twice.

    The trace needs a backward pass for each of the D dimensions (batching them with `vmap` was not faster).

    >>> s = lambda x: -2 * x
    >>> norm, trace = exact_score_matching(s, torch.tensor([[1.0, 2.0]]))
    >>> norm.tolist(), trace.tolist()
    ([10.0], [-4.0])
    """
    graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = _leaf(x)
        s = score(x)
        slopes = (
            torch.autograd.grad(s[:, i].sum(), x, create_graph=graph, retain_graph=True)[0][:, i]
            for i in range(x.shape[1])
        )
        norm, trace = 0.5 * s.square().sum(1), torch.stack(list(slopes)).sum(0)
    return (norm, trace) if graph else (norm.detach(), trace.detach())


def sliced_score_matching(
    score: Score, x: Tensor, v: Tensor, *, variance_reduced: bool = True
) -> tuple[Tensor, Tensor]:
    """Sliced score matching (Song, Garg, Shi, Ermon 2019, https://arxiv.org/abs/1905.07088): ``(B,)`` twice.

    The mean over slices v of vᵀ∇s v, after ½ (vᵀs)², or after ½ ‖s‖² if ``variance_reduced`` (the mean of the
    former over v). In expectation over v with E[v vᵀ] = I both sums are J.

    Args:
        v: ``(K, B, D)``, drawn independently of ``x``; the same v is in both terms.
    """
    graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        x = _leaf(x)
        s = score(x)
        products = [
            torch.autograd.grad(s, x, slice_, create_graph=graph, retain_graph=True)[0] for slice_ in v
        ]  # ∇sᵀ v
        trace = torch.stack([(p * slice_).sum(1) for p, slice_ in zip(products, v, strict=True)]).mean(0)
        norm = 0.5 * (s.square().sum(1) if variance_reduced else (s * v).sum(2).square().mean(0))
    return (norm, trace) if graph else (norm.detach(), trace.detach())


def denoising_score_matching(score: Score, x: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """½ ‖s(x + σε) + ε/σ‖² with ε = ``noise`` ~ N(0, I) (Vincent 2011): ``(B, D)`` twice → ``(B,)``.

    In expectation it is, up to a constant, the Fisher divergence from the density of the *noisy* data, p ∗ N(0, σ²I).
    """
    return 0.5 * (score(x + sigma * noise) + noise / sigma).square().sum(1)


def _leaf(x: Tensor) -> Tensor:
    """``x`` as a separate variable, even if it was created under `torch.inference_mode`."""
    return (x.clone() if x.is_inference() else x.detach()).requires_grad_()
