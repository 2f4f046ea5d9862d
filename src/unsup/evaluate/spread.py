"""How codes are spread: alignment, uniformity, effective rank. No labels are needed.

With codes f(x), and u(x) = f(x) / ‖f(x)‖ their directions on the unit sphere:

- alignment: E ‖u(x) − u(x⁺)‖² of two views x, x⁺ of the same example (Wang, Isola 2020,
  https://arxiv.org/abs/2005.10242, α = 2). It is 0 if views have the same direction, and 2 for unrelated ones.
- uniformity: log E exp(−2 ‖u(x) − u(y)‖²) of two different examples (same paper, t = 2). It is 0 if all codes have one
  direction, and tends to −4 for the uniform distribution on a sphere of many dimensions.
- effective rank: exp H(p), with p the eigenvalues of the covariance of f, divided by their sum (Roy, Vetterli 2007,
  EUSIPCO). It is 1 if the codes vary along one line, or not at all, and F if they vary
  equally along all F dimensions. It is not changed by a shift, a rotation or a factor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.evaluate.distances import check_points
from unsup.evaluate.estimate import Estimate
from unsup.prob import contrast

BLOCK = 2**22
"""Numbers of the Gram matrix in memory at once."""


def directions(x: Tensor) -> Tensor:
    """Rows of length 1 in float64 on the CPU: ``(N, F)`` → ``(N, F)``. Zeros are not changed.

    >>> directions(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    x = x.detach().cpu().double()
    largest = x.abs().amax(1, keepdim=True)
    scaled = x / largest.where(largest > 0, 1.0)  # so that no square overflows
    length = scaled.norm(dim=1, keepdim=True)
    return scaled / length.where(length > 0, 1.0)


def alignment(first: Tensor, second: Tensor) -> Estimate:
    """E ‖u(x) − u(x⁺)‖² of codes ``(N, F)`` and of the codes of other views of the same examples ``(N, F)``.

    Raises:
        InputError: different shapes, fewer than two examples, or codes that are not finite.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> alignment(x, 2 * x).value, round(alignment(x, -x).value, 6)
    (0.0, 4.0)
    """
    check_points(2, first=first, second=second)
    if first.shape != second.shape:
        raise InputError(
            f"codes of shapes {tuple(first.shape)} and {tuple(second.shape)} given; expected two views of each example"
        )
    terms = (directions(first) - directions(second)).square().sum(1)
    return Estimate.normal(float(terms.mean()), float(terms.std()) / math.sqrt(len(terms)))


def uniformity(x: Tensor, *, block: int = BLOCK) -> Estimate:
    """log mean over i ≠ j of exp(−2 ‖uᵢ − uⱼ‖²) of codes ``(N, F)``.

    The mean is a U-statistic with kernel h, whose variance is 4 var(E[h | x]) / N (Hoeffding 1948); that of its
    logarithm follows by the delta method.

    Args:
        block: numbers of the Gram matrix in memory at once; the result does not depend on it.

    Raises:
        InputError: fewer than two examples, or codes that are not finite.

    >>> uniformity(torch.ones(5, 3)).value
    0.0
    """
    check_points(2, codes=x)
    u = directions(x)
    squares, means = u.square().sum(1), []
    for rows in torch.arange(len(u)).split(max(1, block // len(u))):
        distance = (squares[rows, None] + squares - 2 * u[rows] @ u.T).clamp(min=0)
        distance[torch.arange(len(rows)), rows] = math.inf  # an example is not its own pair
        means.append((-2 * distance).exp().sum(1) / (len(u) - 1))
    each = torch.cat(means)
    value = float(each.mean())
    return Estimate.normal(math.log(value), 2 * float(each.std()) / math.sqrt(len(u)) / value)


def effective_rank(x: Tensor) -> float:
    """exp H(λ / Σλ) with the eigenvalues λ of the covariance of codes ``(N, F)``; 1 if they do not vary.

    Raises:
        InputError: fewer than two examples, or codes that are not finite.

    >>> round(effective_rank(torch.eye(4).repeat(5, 1)), 6)  # one-hot: the mean has no share
    3.0
    """
    check_points(2, codes=x)
    return contrast.effective_rank(x)


def spread(x: Tensor) -> float:
    """The mean over dimensions of the standard deviation of the directions u of codes ``(N, F)``.

    It is 0 if all codes have one direction, and 1/√F if they are uniform on the sphere.
    """
    check_points(2, codes=x)
    return float(directions(x).std(0, correction=0).mean())
