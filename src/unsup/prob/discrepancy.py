"""Maximum mean discrepancy of samples (Gretton, Borgwardt, Rasch, Schölkopf, Smola 2012). Pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Of the kernel, as in the code of Tolstikhin, Bousquet, Gelly, Schölkopf 2018, https://arxiv.org/abs/1711.01558."""


def kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """Σ_j k(x_i, y_j) with k = Σ_s C / (C + ‖x − y‖²), C = 2 L s, inverse multiquadratics: ``(B, L)`` → ``(B,)``.

    C is that of a prior N(0, I), whose draws have a mean squared distance of 2 L.
    """
    squared = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()
    found = torch.zeros_like(squared)
    for scale in SCALES:
        c = 2 * x.shape[1] * scale
        found = found + c / (c + squared)
    return found.sum(1)


def mmd_each(x: Tensor, y: Tensor, all_x: Tensor, all_y: Tensor) -> Tensor:
    """The share of each row in the unbiased estimate of MMD²(p, q), whose mean over all rows it is: ``(B,)``.

        MMD² = mean_{i≠j} k(x_i, x_j) − 2 mean_{i,j} k(x_i, y_j) + mean_{i≠j} k(y_i, y_j)

    It can be negative. Gradients are with respect to ``x``: as many as of the whole estimate, though each row sees the
    others, in ``all_x``, as constants.

    Args:
        x: draws of p in this process, ``(B, L)``.
        y: as many draws of q, constants.
        all_x: the draws of all processes, detached, ``(N, L)``.
        all_y: the same of q.

    >>> x, y = torch.zeros(3, 2), torch.zeros(3, 2)
    >>> mmd_each(x, y, x, y)
    tensor([0., 0., 0.])
    """
    n, own = len(all_x), len(SCALES)  # k(x, x) = number of scales
    others = max(1, n - 1)
    within = (kernel_sums(x, all_x) - own) / others
    twice = within + (within - within.detach())  # x_i is in as many pairs as the first as it is as the second
    return twice - 2 * kernel_sums(x, all_y) / n + (kernel_sums(y, all_y) - own) / others
