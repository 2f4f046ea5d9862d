"""How well a score detects anomalies.

AUROC is the probability that an anomaly has the higher score; ties count half. Average precision is Σ (Rₖ − Rₖ₋₁) Pₖ
over the distinct scores in decreasing order, where Pₖ and Rₖ are the precision and recall of all examples with the k-th
score or a higher one. A score without information has the share of anomalies as its average precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.model import keyed_generator
from unsup.evaluate.estimate import Estimate, as_values, make_figure, mann_whitney
from unsup.evaluate.records import Figure

RESAMPLES = 1000
"""Bootstrap samples for the interval of average precision."""
_BLOCK = 2**20  # counts in memory at once
_RESAMPLE, _BREAK = range(2)


def anomaly_detection(
    ordinary: Tensor, anomalies: Tensor, *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Figure]:
    """AUROC and average precision of anomaly scores ``(N,)`` and ``(M,)``; higher means more anomalous.

    Args:
        ordinary, anomalies: for example −log p or an energy; may be ±∞.
        seed: of the bootstrap.
        resamples: bootstrap samples; without any, the interval of average precision is a point.

    Returns:
        ``auroc`` with DeLong's interval, see `mann_whitney`; ``average_precision`` with the percentile interval of a
        bootstrap stratified by class. If the classes are separated, every bootstrap sample has the same value: the
        interval is then from `_under_exponentials`. Floors are those of guessing; the detail ``anomalies`` is their
        number.

    Raises:
        InputError: fewer than two scores of either class, or NaN.

    >>> found = anomaly_detection(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0]))
    >>> round(found["auroc"]["value"], 4), round(found["average_precision"]["value"], 4)
    (0.75, 0.75)
    """
    usual, odd = as_values("ordinary", ordinary), as_values("anomalies", anomalies)
    # Each score as its position among the distinct scores, in decreasing order.
    places = torch.cat([usual, odd]).neg().unique(return_inverse=True)[1].numpy()
    classes, levels = (places[: len(usual)], places[len(usual) :]), int(places.max()) + 1
    value = float(_average_precision(*(_counts(v[None], levels) for v in classes))[0])
    draws = np.random.default_rng(keyed_generator(seed, _RESAMPLE).initial_seed())
    found: list[float] = []
    while len(found) < resamples:
        n = min(max(1, _BLOCK // levels), resamples - len(found))
        found.extend(_average_precision(*(_counts(v[draws.integers(0, len(v), (n, len(v)))], levels) for v in classes)))
    low, high = (float(q) for q in np.quantile(found or [value], (0.025, 0.975)))
    n, m, auroc = len(places), len(odd), mann_whitney(odd, usual)
    if found and auroc.value in (0.0, 1.0):
        ends = [_under_exponentials(end, m / n) for end in (auroc.low, auroc.high)]
        width = ends[1] - ends[0]
        low, high = (1 - width, 1.0) if auroc.value else (value, min(1.0, value + width))
    precision = Estimate(value, min(low, value), max(high, value))
    return {
        "auroc": make_figure(auroc, n, floor=0.5, anomalies=m),
        "average_precision": make_figure(precision, n, floor=m / n, anomalies=m),
    }


def break_dependence(x: Tensor, *, seed: int = 0) -> Tensor:
    """Anomalies made from ordinary examples ``(N, *shape)``: every column is shuffled independently.

    The marginal distributions do not change, but the entries become independent. Only a model of the dependence
    detects these anomalies.

    Raises:
        InputError: fewer than two examples.

    >>> x = torch.arange(8).view(4, 2)
    >>> torch.equal(break_dependence(x).sort(0).values, x)
    True
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} examples given; expected two or more, to shuffle their entries")
    shuffle = np.random.default_rng(keyed_generator(seed, _BREAK).initial_seed())
    columns = x.detach().cpu().flatten(1).T.contiguous().numpy()  # (D, N)
    return torch.from_numpy(shuffle.permuted(columns, axis=1)).T.reshape(x.shape).contiguous()


def _under_exponentials(auroc: float, share: float) -> float:
    """The average precision of many examples, a ``share`` of them anomalies, under the model of `mann_whitney`.

    Exponential scores have the ROC curve FPR = r^k for a recall r, with k = AUROC / (1 − AUROC).

    >>> round(_under_exponentials(0.5, 0.25), 6), _under_exponentials(1.0, 0.25)
    (0.25, 1.0)
    """
    if auroc == 1:
        return 1.0
    from scipy.integrate import quad  # slow to import

    k = auroc / (1 - auroc)
    # share / (share + (1 − share) r^(k − 1)), with powers of r that do not overflow at 0.
    up, down = max(k - 1, 0.0), max(1 - k, 0.0)
    area, _ = quad(lambda r: share * r**down / (share * r**down + (1 - share) * r**up), 0, 1)
    return float(area)


def _counts(places: NDArray[Any], levels: int) -> NDArray[Any]:
    """The number of examples of each row ``(R, N)`` at each of ``levels`` positions: ``(R, levels)``."""
    flat = places + levels * np.arange(len(places))[:, None]
    return np.bincount(flat.ravel(), minlength=len(places) * levels).reshape(-1, levels)


def _average_precision(ordinary: NDArray[Any], anomalies: NDArray[Any]) -> NDArray[Any]:
    """From the counts at each distinct score, in decreasing order: ``(R, levels)`` twice → ``(R,)``."""
    found = anomalies.cumsum(1)
    precision = found / np.maximum(found + ordinary.cumsum(1), 1)
    return np.asarray((precision * anomalies).sum(1) / found[:, -1])
