"""Clusters of codes, compared with classes: k-means, normalised mutual information, adjusted Rand index.

Both measures compare two partitions of the same examples by their table of counts n_ij, with sums a_i and b_j:

    NMI = I(U; V) / ((H(U) + H(V)) / 2)
    ARI = (Σ C(n_ij, 2) − E) / ((Σ C(a_i, 2) + Σ C(b_j, 2)) / 2 − E),   E = Σ C(a_i, 2) Σ C(b_j, 2) / C(n, 2).

Both are 1 for equal partitions, with any numbering. For independent ones the ARI is 0 on average (Hubert, Arabie 1985,
https://doi.org/10.1007/BF01908075), but the NMI is above 0 (Vinh, Epps, Bailey 2010,
https://jmlr.org/papers/v11/vinh10a.html): compare NMIs for the same number of clusters and examples only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.model import keyed_generator
from unsup.evaluate.estimate import Estimate
from unsup.evaluate.probe import check_labelled, standardised

STARTS = 5
"""Starts of k-means, of which the one with the lowest sum of squares is used."""
_MOST_STEPS = 100
_RESAMPLES = 200
_KMEANS, _BOOTSTRAP = 10, 11  # keys of random numbers

Counts = NDArray[np.float64]
"""Tables of counts ``(…, U, V)``."""


def contingency(first: Tensor, second: Tensor) -> Counts:
    """The table of counts of two partitions, class numbers ``(N,)`` each.

    Raises:
        InputError: different lengths, or no example.

    >>> contingency(torch.tensor([0, 0, 5]), torch.tensor([1, 2, 2])).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise InputError(
            f"partitions of shapes {tuple(first.shape)} and {tuple(second.shape)} given; expected (N,) twice, N of 1 "
            "or more"
        )
    (a, u), (b, v) = ((i, len(kinds)) for kinds, i in (p.cpu().unique(return_inverse=True) for p in (first, second)))
    return (a * v + b).bincount(minlength=u * v).view(u, v).double().numpy()


def mutual_information(counts: Counts) -> NDArray[np.float64]:
    """NMI of tables of counts; 1 if both partitions have one part only.

    >>> float(mutual_information(np.eye(3)))
    1.0
    """
    share = counts / counts.sum((-2, -1), keepdims=True)
    rows, columns = share.sum(-1), share.sum(-2)
    own, other, both = _entropy(rows), _entropy(columns), _entropy(share.reshape(*share.shape[:-2], -1))
    mean = (own + other) / 2
    single = mean <= 0
    return np.where(single, 1.0, ((own + other - both) / np.where(single, 1.0, mean)).clip(0, 1))


def adjusted_rand(counts: Counts) -> NDArray[np.float64]:
    """ARI of tables of counts; 1 if both partitions have one part only, or one for each example.

    >>> round(float(adjusted_rand(np.ones((2, 2)))), 6)
    -0.5
    """
    rows, columns, cells = (
        (v * (v - 1) / 2).sum(-1) for v in (counts.sum(-1), counts.sum(-2), counts.reshape(*counts.shape[:-2], -1))
    )
    n = counts.sum((-2, -1))
    expected = rows * columns / np.maximum(n * (n - 1) / 2, 1)
    mean = (rows + columns) / 2
    same = mean == expected
    return np.where(same, 1.0, (cells - expected) / np.where(same, 1.0, mean - expected))


def clusters(known: Tensor, asked: Tensor, k: int, *, seed: int = 0) -> Tensor:
    """The nearest of ``k`` centres for each of ``(M, F)``, int64 ``(M,)``: k-means on ``(N, F)``, standardised.

    Both are standardised by the known codes, as for `unsup.evaluate.probe.probe`. Centres are those of the best of
    `STARTS` starts by k-means++. If fewer points are distinct, there are fewer centres.
    """
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.exceptions import ConvergenceWarning

    x, other = standardised(known.detach().cpu().double(), asked.detach().cpu().double())
    if not x.shape[1]:
        return torch.zeros(len(other), dtype=torch.int64)
    state = keyed_generator(seed, _KMEANS).initial_seed() % 2**32
    model = KMeans(min(k, len(x)), n_init=STARTS, max_iter=_MOST_STEPS, random_state=state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than centres
        return torch.from_numpy(model.fit(x.float().numpy()).predict(other.float().numpy())).long()


def _judged(value: Callable[[Counts], NDArray[np.float64]]) -> Callable[..., Estimate]:
    def judge(known: Tensor, label: Tensor, asked: Tensor, true: Tensor, *, seed: int = 0) -> Estimate:
        """k-means on codes ``(N, F)`` with one cluster per class of ``label``, and its clusters of ``(M, F)``.

        The labels ``(N,)`` are only counted. The interval is a bootstrap over the ``(M,)`` examples, for fixed centres.
        """
        check_labelled(known, label, asked, true)
        found = clusters(known, asked, len(label.unique()), seed=seed)
        table = contingency(true.cpu(), found)
        source = np.random.Generator(np.random.SFC64(keyed_generator(seed, _BOOTSTRAP).initial_seed()))
        drawn = source.multinomial(len(true), (table / table.sum()).ravel(), _RESAMPLES).reshape(-1, *table.shape)
        return Estimate.normal(float(value(table)), float(value(drawn.astype(np.float64)).std()))

    return judge


nmi = _judged(mutual_information)
"""The normalised mutual information of clusters of codes and classes."""
ari = _judged(adjusted_rand)
"""The adjusted Rand index of clusters of codes and classes."""


def _entropy(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of probabilities along the last axis, in nats."""
    found: NDArray[np.float64] = -(share * np.log(np.where(share > 0, share, 1.0))).sum(-1)
    return found
