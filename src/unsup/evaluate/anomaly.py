"""How well a score detects anomalies.

AUROC is the chance that an anomaly has the higher score, ties counted half. Average precision is Σ (Rₖ − Rₖ₋₁) Pₖ over
the distinct scores in falling order, with precision Pₖ and recall Rₖ of all examples at or above the k-th; its value
for a score that knows nothing is the share of anomalies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.model import keyed_generator
from unsup.evaluate.estimate import Estimate, as_values, mann_whitney

RESAMPLES = 1000
"""Draws with replacement behind the interval of average precision."""
_BLOCK = 2**20  # counts held at once
_RESAMPLE, _BREAK = range(2)


@dataclass(frozen=True)
class AnomalyScores:
    """What a score is worth.

    Attributes:
        auroc: with DeLong's interval, see `mann_whitney`.
        average_precision: with the 2.5 % and 97.5 % points over resamples of both sets, each by itself. At complete
            separation every resample is separated too, and the interval is a point.
        ordinary, anomalies: examples counted.
    """

    auroc: Estimate
    average_precision: Estimate
    ordinary: int
    anomalies: int


def anomaly_detection(ordinary: Tensor, anomalies: Tensor, *, seed: int = 0) -> AnomalyScores:
    """AUROC and average precision of anomaly scores ``(N,)`` and ``(M,)``; higher means more anomalous.

    Args:
        ordinary, anomalies: −log p or an energy, say; +∞ is the most anomalous.
        seed: of the resamples.

    Raises:
        InputError: fewer than two of either, or NaN.

    >>> found = anomaly_detection(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0]))
    >>> round(found.auroc.value, 4), round(found.average_precision.value, 4)
    (0.75, 0.75)
    """
    usual, odd = as_values("ordinary", ordinary), as_values("anomalies", anomalies)
    # Distinct scores, falling: an example's place is the number of its score among them.
    places = torch.cat([usual, odd]).neg().unique(return_inverse=True)[1].numpy()
    of_usual, of_odd = places[: len(usual)], places[len(usual) :]
    levels = int(places.max()) + 1
    value = _average_precision(_counts(of_usual[None], levels), _counts(of_odd[None], levels))[0]
    draws = np.random.default_rng(keyed_generator(seed, _RESAMPLE).initial_seed())
    found: list[float] = []
    while len(found) < RESAMPLES:
        n = min(max(1, _BLOCK // levels), RESAMPLES - len(found))
        counts = [_counts(v[draws.integers(0, len(v), (n, len(v)))], levels) for v in (of_usual, of_odd)]
        found.extend(_average_precision(*counts))
    low, high = np.quantile(found, (0.025, 0.975))
    precision = Estimate(float(value), min(float(low), float(value)), max(float(high), float(value)))
    return AnomalyScores(mann_whitney(odd, usual), precision, len(usual), len(odd))


def break_dependence(x: Tensor, *, seed: int = 0) -> Tensor:
    """Anomalies made of ordinary examples: each entry of an example comes from another one, drawn by itself.

    Every column of the flattened examples is shuffled over the examples, independently. What each entry looks like
    alone stays exactly as it was, what entries have to do with each other goes: anomalies that only a model of the
    dependence can see.

    Args:
        x: raw examples ``(N, *shape)``, any type.

    Raises:
        InputError: fewer than two examples.

    >>> x = torch.arange(8).view(4, 2)
    >>> torch.equal(break_dependence(x).sort(0).values, x)
    True
    """
    if len(x) < 2:
        raise InputError(f"{len(x)} examples given; expected two or more, whose entries can change places")
    shuffle = np.random.default_rng(keyed_generator(seed, _BREAK).initial_seed())
    columns = x.detach().cpu().flatten(1).T.contiguous().numpy()  # (D, N)
    return torch.from_numpy(shuffle.permuted(columns, axis=1)).T.reshape(x.shape).contiguous()


def _counts(places: np.ndarray[Any, Any], levels: int) -> np.ndarray[Any, Any]:
    """How many examples of each row ``(R, N)`` have each of ``levels`` places: ``(R, levels)``."""
    rows = len(places)
    flat = places + levels * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=rows * levels).reshape(rows, levels)


def _average_precision(ordinary: np.ndarray[Any, Any], anomalies: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of counts at each distinct score, falling: ``(R, levels)`` twice → ``(R,)``."""
    found = anomalies.cumsum(1)
    precision = found / np.maximum(found + ordinary.cumsum(1), 1)
    return np.asarray((precision * anomalies).sum(1) / found[:, -1])
