"""Codes as points of the plane: principal components, or t-SNE."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.model import keyed_generator
from unsup.evaluate.distances import check_points
from unsup.evaluate.probe import standardised

Method = Literal["pca", "tsne"]
_PERPLEXITY = 30.0
_LEAST = 3  # points of a map
_TSNE = 20  # key of random numbers


@dataclass(frozen=True)
class Projection:
    """Points of the plane, with what their positions mean.

    Attributes:
        points: ``(N, 2)``, float64.
        axes: labels of the axes; empty if they have no meaning.
        meaning: what distances mean, and what they do not.
    """

    points: Tensor = field(repr=False)
    axes: tuple[str, str]
    meaning: str


def project(x: Tensor, method: Method, *, seed: int = 0) -> Projection:
    """Codes ``(N, F)`` in the plane.

    - ``pca``: the two principal components of the codes as they are; signs such that the largest entry is positive.
    - ``tsne``: t-SNE (van der Maaten, Hinton 2008, https://jmlr.org/papers/v9/vandermaaten08a.html) of standardised
      codes, started from principal components.

    Raises:
        InputError: fewer than three examples, or codes that are not finite.

    >>> project(torch.tensor([[0.0, 0.0, 5.0], [2.0, 0.0, 5.0], [4.0, 0.0, 5.0]]), "pca").axes[0]
    'first component, 100 % of the variance'
    """
    check_points(x=x)
    if len(x) < _LEAST:
        raise InputError(f"{len(x)} examples given; a map needs {_LEAST} or more")
    x = x.detach().cpu().double()
    return _components(x) if method == "pca" else _neighbourhoods(x, seed)


def _components(x: Tensor) -> Projection:
    centred = x - x.mean(0)
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    sign = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()[:, 0]  # the same on every machine
    points = torch.zeros(len(x), 2, dtype=torch.float64)
    points[:, : len(values)] = (left * values * sign)[:, :2]
    total = float(values.square().sum())
    shares = [float(v) ** 2 / total if total else 0.0 for v in (*values[:2], *[0.0] * 2)][:2]
    first, second = (f"{share:.0%}".replace("%", " %") for share in shares)
    both = f"{sum(shares):.0%}".replace("%", " %")
    return Projection(
        points,
        (f"first component, {first} of the variance", f"second component, {second} of the variance"),
        f"A linear projection that shows {both} of the variance of the codes: points that are apart here are apart in "
        "the codes, but points that are near here may be far apart in the other dimensions.",
    )


def _neighbourhoods(x: Tensor, seed: int) -> Projection:
    from sklearn.manifold import TSNE  # slow to import

    scaled, _ = standardised(x, x)
    points = torch.zeros(len(x), 2, dtype=torch.float64)
    if scaled.shape[1]:
        perplexity = min(_PERPLEXITY, (len(x) - 1) / 3)
        state = keyed_generator(seed, _TSNE).initial_seed() % 2**32
        start = "pca" if min(scaled.shape) >= 2 else "random"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of points that are equal
            model = TSNE(2, perplexity=perplexity, init=start, random_state=state)
            points = torch.from_numpy(model.fit_transform(scaled.float().numpy())).double()
    return Projection(
        points,
        ("", ""),
        "t-SNE keeps neighbours together. Distances between groups, their sizes and their densities mean nothing, the "
        "axes have no unit, and groups may appear that the codes do not have.",
    )
