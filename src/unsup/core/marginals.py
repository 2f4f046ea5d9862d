"""One value for an entry: the mode or the mean of its distribution, or of draws of it."""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.event import Support
from unsup.core.model import Located, Marginal


def typical(marginal: Marginal, support: Support, *, mean: bool) -> Tensor:
    """The mode of an entry, or its mean: raw values, float64 ``(n,)``.

    The mean of whole numbers is the nearest level. Categories have no mean, so that it is the mode.

    >>> log_p = torch.tensor([[0.5, 0.0, 0.1, 0.4]]).log()
    >>> [typical(log_p, Support("ordinal", 4, low=7), mean=mean).item() for mean in (False, True)]
    [7.0, 8.0]
    """
    if not support.is_discrete:
        assert isinstance(marginal, Located)
        return (marginal.mean() if mean else marginal.mode()).double()
    if isinstance(marginal, Tensor):
        log_p = marginal.double()
    else:
        edges = torch.arange(support.levels + 1, dtype=torch.float64) - 0.5
        edges[0], edges[-1] = -torch.inf, torch.inf
        log_p = marginal.log_masses(edges[None])
    if not mean or support.kind == "nominal":
        return log_p.argmax(1).double() + support.low
    levels = torch.arange(support.levels, dtype=log_p.dtype, device=log_p.device)
    return (log_p.softmax(1) @ levels).round() + support.low


def typical_of_draws(drawn: Tensor, support: Support, *, mean: bool) -> Tensor:
    """The same, of independent draws: raw values ``(draws, n)`` → float64 ``(n,)``; of real ones the half-sample mode.

    >>> typical_of_draws(torch.tensor([[2], [2], [3], [9]]), Support("ordinal", 10), mean=False)
    tensor([2.], dtype=torch.float64)
    """
    drawn = drawn.double()
    if not support.is_discrete:
        return drawn.mean(0) if mean else half_sample_mode(drawn)
    return drawn.mean(0).round() if mean and support.kind != "nominal" else drawn.mode(0).values


def half_sample_mode(x: Tensor) -> Tensor:
    """The mode of each column of a sample ``(N, ...)``: the shortest half, then the shortest half of that, and so on.

    Robertson, Cryer 1974, https://doi.org/10.1080/01621459.1974.10480246.

    >>> half_sample_mode(torch.tensor([0.0, 3.0, 3.1, 3.2, 9.0, 20.0])).item()
    3.049999952316284
    """
    x = x.sort(0).values
    while len(x) > 2:
        half = (len(x) + 1) // 2
        start = (x[half - 1 :] - x[: len(x) - half + 1]).argmin(0, keepdim=True)
        steps = torch.arange(half, device=x.device).view(-1, *(1,) * (x.ndim - 1))
        x = x.gather(0, start + steps)
    return x.mean(0)
