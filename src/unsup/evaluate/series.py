"""How near simulated series are to real ones: values, autocorrelations, and a classifier of windows.

All functions compare two sets of windows ``(N, T)`` or ``(N, T, C)`` of equal length, without missing entries. Each of
them has a baseline: the same number for windows of the training series in place of the simulated ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from torch import Tensor

from unsup.core.config import Count, Whole, check_value
from unsup.core.errors import InputError

Values = NDArray[np.float64]
_TREES = 200


def autocorrelation(windows: Tensor, lags: int) -> Values:
    """The autocorrelations of lags 1 … ``lags``, one mean and one variance for all windows: ``(lags, C)``.

        r(k) = mean of (x_t − m)(x_t+k − m) over windows and t ≤ T − k, divided by the variance of all values

    A mean of its own for each window would hide how much of the variance is between windows. r(k) of a constant is 0.

    Raises:
        InputError: windows without values or with values that are not finite, or as many lags as steps.

    >>> import torch
    >>> autocorrelation(torch.tensor([[1.0, -1.0, 1.0, -1.0]]), 2).tolist()
    [[-1.0], [1.0]]
    """
    x = _windows(windows)
    if not 1 <= lags < x.shape[1]:
        raise InputError(f"lags={lags}; expected 1 to {x.shape[1] - 1}, less than the {x.shape[1]} steps of a window")
    x = x - x.mean((0, 1))
    variance = (x**2).mean((0, 1))
    found = np.stack([(x[:, :-k] * x[:, k:]).mean((0, 1)) for k in range(1, lags + 1)])
    return np.divide(found, variance, out=np.zeros_like(found), where=variance > 0)


def autocorrelation_error(fake: Tensor, real: Tensor, *, lags: int | None = None) -> float:
    """The mean absolute difference of `autocorrelation`, over lags (by default up to half a window) and columns.

    >>> import torch
    >>> autocorrelation_error(torch.eye(4), torch.eye(4))
    0.0
    """
    first, _ = _two(fake, real)
    lags = first.shape[1] // 2 if lags is None else lags
    return float(np.abs(autocorrelation(fake, lags) - autocorrelation(real, lags)).mean())


def marginal_distance(fake: Tensor, real: Tensor) -> float:
    """The 1-Wasserstein distance of all values, in standard deviations of the real ones; its mean over columns.

    ∫ |F(v) − G(v)| dv with the distribution functions F and G of the values, regardless of their order in time.

    Raises:
        InputError: a column of the real windows is constant.

    >>> import torch
    >>> marginal_distance(torch.tensor([[2.0, 4.0]]), torch.tensor([[1.0, 3.0]]))
    1.0
    """
    first, second = (x.reshape(-1, x.shape[2]) for x in _two(fake, real))
    spread = second.std(0)
    if not spread.all():
        raise InputError(f"column {int(np.flatnonzero(spread == 0)[0])} of the real windows is constant; remove it")
    each = [wasserstein_distance(a, b) / s for a, b, s in zip(first.T, second.T, spread, strict=True)]
    return float(np.mean(each))


def two_sample_auroc(fake: Tensor, real: Tensor, *, overlap: int = 0, folds: int = 5, seed: int = 0) -> float:
    """The AUROC with which a random forest distinguishes simulated from real windows; ½ if they have one distribution.

    A classifier two-sample test (Lopez-Paz, Oquab 2017, https://arxiv.org/abs/1610.06545), cross-validated. Its
    features are the values of a window and their differences from step to step. Folds take blocks of windows in turn,
    so that each has all seasons.

    Args:
        overlap: how many windows after a window share steps with it, if windows are in the order of time: ⌈length /
            stride⌉ − 1. A forest that was fitted to such a neighbour would recognise the window for any model;
            therefore neighbours of the tested windows are not fitted.

    Raises:
        InputError: too few windows for the folds.

    >>> import torch
    >>> two_sample_auroc(torch.randn(30, 4) + 9, torch.randn(30, 4))
    1.0
    """
    folds, overlap = check_value("folds", folds, Count), check_value("overlap", overlap, Whole)
    first, second = _two(fake, real)
    block = overlap + 1
    if folds < 3 or min(len(first), len(second)) < folds * block:
        raise InputError(
            f"{len(first):,} and {len(second):,} windows, folds={folds} and overlap={overlap}; expected at least 3 "
            f"folds, and {folds * block:,} windows of each kind (folds · (overlap + 1))"
        )
    x = np.concatenate([np.concatenate([w, np.diff(w, axis=1)], 1).reshape(len(w), -1) for w in (first, second)])
    y = np.repeat([1, 0], [len(first), len(second)])
    fold = np.concatenate([np.arange(len(w)) // block % folds for w in (first, second)])
    found = []
    for k in range(folds):
        tested = fold == k
        fitted = ~np.concatenate([_near(own, overlap) for own in np.split(tested, [len(first)])])
        forest = RandomForestClassifier(_TREES, min_samples_leaf=3, class_weight="balanced", random_state=seed)
        scores = forest.fit(x[fitted], y[fitted]).predict_proba(x[tested])[:, 1]
        found.append(roc_auc_score(y[tested], scores))
    return float(np.mean(found))


def _near(chosen: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Positions at most ``distance`` from one that is chosen."""
    return np.convolve(chosen, np.ones(2 * distance + 1), "full")[distance : distance + len(chosen)] > 0


def _windows(x: Tensor) -> Values:
    """Windows ``(N, T, C)`` in float64."""
    values = x.detach().cpu().double().numpy()
    if values.ndim not in (2, 3) or not values.size:
        raise InputError(f"windows have shape {tuple(x.shape)}; expected (N, T) or (N, T, C), with values")
    if not np.isfinite(values).all():
        raise InputError("windows have values that are NaN or infinite; remove these windows, or fill them")
    return values if values.ndim == 3 else values[:, :, None]


def _two(fake: Tensor, real: Tensor) -> tuple[Values, Values]:
    if fake.shape[1:] != real.shape[1:]:
        raise InputError(
            f"windows have the shapes {tuple(fake.shape[1:])} and {tuple(real.shape[1:])}; expected one shape"
        )
    return _windows(fake), _windows(real)
