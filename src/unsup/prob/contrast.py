"""Losses that compare embeddings of views: InfoNCE, NT-Xent, BYOL, VICReg, Barlow Twins. Functions on tensors.

Where rows of a batch are compared with each other, these are the rows of all processes, and gradients flow back to all
of them. Everything is computed in float32 or float64, also under autocast: products in bfloat16 would round cosines of
nearly equal embeddings to the same number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu
from torch.utils.checkpoint import checkpoint

from unsup.core.parallel import all_rows, first_row, mean_over_rows, rows_together
from unsup.prob.distributions import at_least_float32

_COPIES = 5  # of scores while their gradient is computed
_ROUNDING = 1e-12  # a smaller variance, relative to the mean square, is rounding


def unit(x: Tensor) -> Tensor:
    """Embeddings ``(B, F)`` on the sphere, in float32 at least."""
    return normalize(at_least_float32(x), dim=-1, eps=1e-12)


def info_nce(scores: Tensor, positive: Tensor) -> Tensor:
    """−log softmax of the score of the positive among all candidates: ``(B, M)``, ``(B,)`` → ``(B,)`` in nats.

    log M minus its mean is a lower bound on the mutual information (van den Oord, Li, Vinyals 2018,
    https://arxiv.org/abs/1807.03748), if the candidates of a row are its positive and M − 1 independent draws.

    >>> info_nce(torch.zeros(2, 5), torch.tensor([0, 3])).exp().round(decimals=3)
    tensor([5., 5.])
    """
    scores = at_least_float32(scores)
    return scores.logsumexp(1) - scores.gather(1, positive[:, None]).squeeze(1)


def predictive_info_nce(z: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor, int]:
    """InfoNCE of predictions of later rows of places, as in contrastive predictive coding, over all processes.

    Prediction k of a place, counted from 1, is compared with the encoding k rows below, by a softmax over the
    candidates of this one prediction: the N encodings of all places of all examples. The positive is one of them,
    exactly once, and all others are negatives.

    Args:
        z: encodings, ``(B, R, W, F)``; the rows of a sequence are its times, and W is 1.
        predicted: predictions from the context of each place, ``(B, R, W, K, F)`` with K < R; those of rows that do
            not exist are not read.

    The scores of one step are in memory at a time.

    Returns:
        ``(B, K)`` in nats, ``(B, K)`` and N: for each example and step, the mean over places of the loss, and the share
        of places whose positive has the highest score; the number of candidates.

    >>> loss, share, candidates = predictive_info_nce(torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 1, 2, 4))
    >>> loss.exp().round(decimals=3), candidates  # constant scores: log N
    (tensor([[6., 6.],
            [6., 6.]]), 6)
    """
    n, rows, columns, _ = z.shape
    steps = predicted.shape[3]
    candidates = all_rows(z).flatten(0, 2)  # (N, F)
    first = first_row() * rows * columns
    own = first + torch.arange(n * rows * columns, device=z.device).view(n, rows, columns)
    found = []
    for k in range(1, steps + 1):
        anchors, positive = predicted[:, : rows - k, :, k - 1].flatten(0, 2), own[:, k:].flatten()
        if steps > 1 and torch.is_grad_enabled():  # scores are not kept, but computed again for their gradient
            each = checkpoint(_told, anchors, candidates, positive, use_reentrant=False, preserve_rng_state=False)
        else:
            each = _told(anchors, candidates, positive)
        found.append([by_place.view(n, -1).mean(1) for by_place in each])
    loss, share = (torch.stack(own, 1) for own in zip(*found, strict=True))
    return loss, share, len(candidates)


def predictive_bytes(places: int) -> int:
    """The memory that `predictive_info_nce` of N places needs with its gradient: that of the scores of one step.

    >>> predictive_bytes(10_000)
    2000000000
    """
    return _COPIES * 4 * places**2


def _told(anchors: Tensor, candidates: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each anchor, and 1 if its positive has the highest score, else 0: ``(M,)`` twice."""
    scores = _products(anchors, candidates)  # (M, N)
    loss = info_nce(scores, positive)
    return loss, (scores.argmax(1) == positive).to(loss.dtype)


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Normalised cross-entropy between two views of each example: ``(B, F)`` twice → ``(B,)``, the mean of both ways.

    For view i of 2N views, with s the cosine: −log exp(s(i, its twin) / τ) / Σ_{k ≠ i} exp(s(i, k) / τ) (Chen,
    Kornblith, Norouzi, Hinton 2020, https://arxiv.org/abs/2002.05709). Only the view itself is excluded.

    >>> same = torch.ones(4, 3)
    >>> round(float(nt_xent(same, same, 0.5).mean().exp()), 4)  # all embeddings equal: 2N − 1 equal candidates
    7.0
    """
    one, two = unit(first), unit(second)
    candidates = torch.cat([all_rows(one), all_rows(two)])
    whole = len(candidates) // 2
    own = first_row() + torch.arange(len(one), device=one.device)
    each = []
    for anchors, itself, twin in ((one, own, own + whole), (two, own + whole, own)):
        scores = _products(anchors, candidates) / temperature
        each.append(info_nce(scores.scatter(1, itself[:, None], -math.inf), twin))
    return 0.5 * (each[0] + each[1])


def info_nce_of_queue(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of queries against their own key and those of a queue, as in MoCo.

    Args:
        query: ``(B, F)``, on the sphere.
        key: that of each query, ``(B, F)``, on the sphere.
        queue: the negatives of all queries, ``(K, F)``.
        temperature: τ, by which the products are divided.

    Returns:
        ``(B,)`` twice: the loss in nats, and 1 for queries whose own key is the nearest, else 0.

    >>> loss, first = info_nce_of_queue(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(4, 3), 0.2)
    >>> loss.exp().round(decimals=3)  # K + 1 equal candidates
    tensor([5., 5.])
    """
    own = (at_least_float32(query) * at_least_float32(key)).sum(1, keepdim=True)
    scores = torch.cat([own, _products(query, queue)], 1)
    loss = info_nce(scores / temperature, torch.zeros(len(query), dtype=torch.int64, device=query.device))
    return loss, (scores.detach().argmax(1) == 0).to(loss.dtype)


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """‖p/|p| − z/|z|‖² = 2 − 2 cos(p, z): ``(B, F)`` twice → ``(B,)``.

    One term of BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733), whose loss is the *sum* of both ways.

    >>> cosine_distance(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    tensor([0., 2.])
    """
    return 2 - 2 * (unit(prediction) * unit(target)).sum(-1)


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean ``(F,)`` and unbiased covariance ``(F, F)`` of the embeddings of all processes, ``(B, F)``."""
    z = at_least_float32(z)
    count = rows_together() or len(z)
    mean = mean_over_rows(z.mean(0))
    centred = (z - mean).T
    return mean, mean_over_rows(_products(centred, centred) / len(z)) * (count / max(1, count - 1))


def variance_hinge(covariance: Tensor, target: float = 1.0, eps: float = 1e-4) -> Tensor:
    """The mean over entries of max(0, γ − √(variance + ε)): ``(F, F)`` → ``()``, of VICReg.

    >>> round(float(variance_hinge(torch.zeros(3, 3))), 4)  # constant embeddings: 1 − √ε
    0.99
    """
    return relu(target - (covariance.diagonal() + eps).sqrt()).mean()


def covariance_penalty(covariance: Tensor) -> Tensor:
    """The sum of squares off the diagonal, divided by F: ``(F, F)`` → ``()``, of VICReg.

    >>> float(covariance_penalty(torch.eye(3)))
    0.0
    """
    return _off_diagonal(covariance).square().sum() / len(covariance)


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """The correlation of every entry of one view with every one of the other: ``(B, F)`` twice → ``(F, F)``.

    Each entry is standardised by its moments over the batch, of all processes.
    """
    one, two = (_standardised(at_least_float32(z)) for z in (first, second))
    return mean_over_rows(_products(one.T, two.T) / len(one))


def redundancy(correlation: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """Σ_i (1 − C_ii)² and weight · Σ_{i≠j} C_ij²: ``(F, F)`` → ``()`` twice, the terms of Barlow Twins.

    Zbontar, Jing, Misra, LeCun, Deny 2021, https://arxiv.org/abs/2103.03230.
    """
    off = _off_diagonal(correlation).square().sum()
    return (1 - at_least_float32(correlation.diagonal())).square().sum(), weight * off


def spread(z: Tensor) -> Tensor:
    """√F times the mean deviation of the entries of normalised embeddings: 1 if they fill the sphere, 0 if all agree.

    ``(B, F)`` → ``()``, over all processes.
    """
    z = unit(z.detach())
    mean = mean_over_rows(z.mean(0))
    variance = mean_over_rows(z.square().mean(0)) - mean.square()
    return variance.clamp(min=0).sqrt().mean() * math.sqrt(z.shape[1])


def effective_rank(z: Tensor) -> float:
    """exp H(λ / Σ λ) of the eigenvalues λ of the covariance of features ``(N, F)``, from 1 to F; 1 if none varies.

    Roy, Vetterli 2007, EUSIPCO.

    >>> round(effective_rank(torch.eye(4).repeat(5, 1)), 6)  # one-hot: the mean has no share
    3.0
    """
    z = z.detach().cpu().double()
    largest = float(z.abs().max())
    if not largest:
        return 1.0
    scaled = z / largest  # so that no square overflows
    centred = scaled - scaled.mean(0)
    square = centred.T @ centred if centred.shape[1] <= len(centred) else centred @ centred.T
    if float(square.trace()) <= _ROUNDING * float(scaled.square().sum()):
        return 1.0
    found = torch.linalg.eigvalsh(square).clamp(min=0)
    return math.exp(float(torch.special.entr(found / found.sum()).sum()))


def _products(first: Tensor, second: Tensor) -> Tensor:
    """The scalar product of every row of one and every row of the other, ``(N, F)``, ``(M, F)`` → ``(N, M)``."""
    with torch.autocast(first.device.type, enabled=False):
        return at_least_float32(first) @ at_least_float32(second).T


def _off_diagonal(square: Tensor) -> Tensor:
    """The entries off the diagonal, ``(F, F)`` → ``(F − 1, F)``."""
    size = len(square)  # after the last one, every (F + 1)-th entry is on the diagonal
    return at_least_float32(square).flatten()[:-1].view(size - 1, size + 1)[:, 1:]


def _standardised(z: Tensor, eps: float = 1e-12) -> Tensor:
    mean = mean_over_rows(z.mean(0))
    centred = z - mean
    return centred / (mean_over_rows(centred.square().mean(0)) + eps).sqrt()
