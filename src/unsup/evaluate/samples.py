"""Samples of a model, and how far a set of features is from another: FID, KID, Inception score.

The Fréchet distance of two sets, each approximated by a Gaussian (FID; Heusel, Ramsauer, Unterthiner, Nessler,
Hochreiter 2017, https://arxiv.org/abs/1706.08500), is

    d² = ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

With any factors Σᵢ = FᵢFᵢᵀ the eigenvalues of Σ₁Σ₂ are the squares of the singular values of F₁ᵀF₂. So
tr (Σ₁Σ₂)^½ = ‖F₁ᵀF₂‖ₙ (nuclear norm), which is real and not negative, and no square root of an asymmetric matrix is
needed. With fewer examples than features, the centred examples are the factor. Covariances are unbiased (n − 1) and
float64. The estimate decreases with n: compare values of equal counts only.

The kernel distance (KID; Bińkowski, Sutherland, Arbel, Gretton 2018, https://arxiv.org/abs/1801.01401) is an unbiased
squared MMD with a cubic kernel,

    k(x, y) = (x·y / D + 1)³
    MMD² = Σ_{i≠j} k(xᵢ, xⱼ) / m(m−1) + Σ_{i≠j} k(yᵢ, yⱼ) / m(m−1) − 2 Σ_{i,j} k(xᵢ, yⱼ) / m².

Its mean over pairs of subsets does not depend on the counts. It may be negative for similar sets.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from torch import Tensor

from unsup.core import memory
from unsup.core.config import Count, Whole, check_value
from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import CanSample, Model, SamplesAnyLength, keyed_generator
from unsup.evaluate.conditions import by_chunks, is_conditioned
from unsup.evaluate.distances import check_points

CHUNK = 500
"""Samples drawn at once. Each chunk is keyed by (seed, position), so any process may draw it."""
SPLITS = 10
SUBSETS, SUBSET_SIZE = 100, 1000
_GROUPS, _GROUPS_WIDE, _WIDE = 20, 10, 512
# Smallest eigenvalue of Σ₁Σ₂ relative to the largest for which the square root is accurate to eleven digits of the
# largest root.
_SMALLEST = 1e-10
_SAMPLE, _SHUFFLE, SUBSETS_KEY = 0, 3, 4

Array = NDArray[np.float64]


def draw_samples(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    given: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    length: int | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw ``n`` samples ``(n, *event.shape)``, on the CPU, keyed by (seed, chunk); several processes share the work.

    Args:
        given: the condition of each sample, ``(n, *given.shape)``, for models with a condition.
        options: of ``model.sample``, e.g. a temperature.
        length: length of the first axis, if it is not that of the event.

    Raises:
        CapabilityError: the model does not sample, or not examples of that length, or has no condition.
    """
    n, seed = check_value("n", n, Whole), check_value("seed", seed, int)
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{type(model).__name__} draws no samples; unsup models lists models that sample")
    size = n * model.event.dims * model.event.dtype.itemsize
    if length is not None:
        size = size // model.event.shape[0] * check_value("length", length, Count)
        if not isinstance(model, SamplesAnyLength):
            raise CapabilityError(f"{type(model).__name__} only samples examples of the length of its event")
    if size > memory.limit():
        raise InputError(
            f"{n:,} samples of {model.event} need {memory.said(size)}, more than the {memory.said(memory.limit())} of "
            "memory available; draw fewer at a time, or raise --max-memory"
        )
    if given is not None and not is_conditioned(model):
        raise CapabilityError(f"this {type(model).__name__} has no condition; remove given=")
    sample: Callable[..., Tensor] = functools.partial(model.sample, **(options or {}))
    if isinstance(model, SamplesAnyLength) and length is not None:
        sample = functools.partial(model.sample_long, length=length, **(options or {}))

    def drawn(position: int, rows: slice) -> Tensor:
        generator = keyed_generator(seed, _SAMPLE, position, device=model.device)
        condition = {} if given is None else {"given": given[rows].to(model.device)}
        return sample(rows.stop - rows.start, generator=generator, **condition).cpu()

    return by_chunks(model, n, CHUNK, drawn, on_chunk)


# --- FID --------------------------------------------------------------------------------------------------------------


def frechet_distance(fake: Tensor, real: Tensor) -> float:
    """d² of features ``(N, D)`` and ``(M, D)``, of any floating type.

    Raises:
        InputError: fewer than two examples in a set, different numbers of features, or values that are not finite.

    >>> x = torch.randn(100, 3, dtype=torch.float64)
    >>> round(frechet_distance(x + 2, x), 6)  # a shift by v adds ‖v‖²
    12.0
    """
    x, y = _arrays(fake, real)
    f, g = ((a - a.mean(0)) / np.sqrt(len(a) - 1) for a in (x, y))
    if min(len(f), len(g)) > f.shape[1]:
        cross = trace_of_root(f.T @ f, g.T @ g)
    else:
        first, second = (a.T if len(a) <= a.shape[1] else _root(a.T @ a) for a in (f, g))
        cross = _nuclear(first.T @ second)
    return _distance(x.mean(0) - y.mean(0), float((f**2).sum() + (g**2).sum()), cross)


def jackknife_error(fake: Tensor, real: Tensor) -> float:
    """Standard error of the FID of ``(N, D)`` and ``(M, D)``: a jackknife over disjoint groups of both sets.

    With d²₍g₎ the distance without group g of G: se² = (G − 1)/G Σ_g (d²₍g₎ − mean)². G is 20, or 10 for more than 512
    features. NaN for more than 512 features and fewer examples than features: it would be slow and inaccurate.
    """
    if fake.shape[1] > max(_WIDE, len(fake)):
        return math.nan
    groups = min(_GROUPS if fake.shape[1] <= _WIDE else _GROUPS_WIDE, len(fake) // 2, len(real) // 2)
    if groups < 2:
        return math.nan
    return math.sqrt((groups - 1) * float(np.var(deleted_groups(fake, real, groups))))


def deleted_groups(fake: Tensor, real: Tensor, groups: int) -> list[float]:
    """d² without each of ``groups`` slices of both sets, for a jackknife over groups.

    Moments of the remaining examples are differences of sums, so that the examples are read once.
    """
    sets = _arrays(fake, real)
    centre = sets[1].mean(0)  # sums about a common point lose no digits
    parts = [[(len(s), s.sum(0), s.T @ s) for s in np.array_split(x - centre, groups)] for x in sets]
    wholes = [[sum(s[k] for s in sums) for k in range(3)] for sums in parts]

    def moments_without(group: int, which: int) -> tuple[Array, Array]:
        n, first, second = (w - s for w, s in zip(wholes[which], parts[which][group], strict=True))
        mean = first / n
        return mean, (second - n * np.outer(mean, mean)) / (n - 1)

    found = []
    for group in range(groups):
        (mean, a), (other, b) = (moments_without(group, which) for which in (0, 1))
        found.append(_distance(mean - other, float(np.trace(a) + np.trace(b)), trace_of_root(a, b)))
    return found


def trace_of_root(a: Array, b: Array) -> float:
    """tr (ab)^½ of two covariances: the roots of the eigenvalues of ab, which are those of a symmetric FᵀbF."""
    try:
        # One symmetric problem, without forming the product; it fails if a has no Cholesky factor F.
        eigenvalues = eigh(b, a, type=2, eigvals_only=True, driver="gv", check_finite=False)
        if eigenvalues[0] > _SMALLEST * eigenvalues[-1]:
            return float(np.sqrt(eigenvalues).sum())
    except np.linalg.LinAlgError:
        pass
    return _nuclear(_root(a) @ _root(b))


def _distance(shift: Array, traces: float, cross: float) -> float:
    return max(float(shift @ shift) + traces - 2 * cross, 0.0)


def _root(a: Array) -> Array:
    """The symmetric square root of a covariance."""
    values, vectors = np.linalg.eigh(a)
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)


def _nuclear(a: Array) -> float:
    return float(np.linalg.svd(a, compute_uv=False).sum())


# --- KID --------------------------------------------------------------------------------------------------------------


class KernelDistance(NamedTuple):
    """The mean of MMD² over ``subsets`` of ``size`` examples, and its standard error from disjoint subsets."""

    value: float
    error: float
    subsets: int
    size: int


def kernel_distance(
    fake: Tensor, real: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = 0
) -> KernelDistance:
    """KID of features ``(N, D)`` and ``(M, D)``.

    Each round shuffles both sets and divides them into disjoint subsets. The standard error is that of the mean over
    the subsets of a round, averaged over rounds. With fewer than ``2 · size`` examples, the subsets are halves of the
    smaller set.

    Raises:
        InputError: fewer than four examples in a set.

    >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    >>> found = kernel_distance(x[:200], x[200:], subsets=10)
    >>> found.size, abs(found.value) < 4 * found.error
    (100, True)
    """
    x, y = _arrays(fake, real, least=4)
    least = min(len(x), len(y))
    size = min(size, least // 2)
    parts = least // size
    values = np.empty((math.ceil(subsets / parts), parts))
    for r in range(len(values)):
        fakes, reals = (
            torch.randperm(len(a), generator=keyed_generator(seed, side, r))[: parts * size].view(parts, size).numpy()
            for side, a in enumerate((x, y))
        )
        values[r] = [squared_mmd(x[i], y[j]) for i, j in zip(fakes, reals, strict=True)]
    error = float(np.sqrt(values.var(1, ddof=1).mean() / parts))
    return KernelDistance(float(values.mean()), error, values.size, size)


def squared_mmd(x: Array, y: Array) -> float:
    """Unbiased MMD² of features ``(N, D)`` and ``(M, D)``."""
    n, m = len(x), len(y)
    xx, yy, xy = ((a @ b.T / a.shape[1] + 1) for a, b in ((x, x), (y, y), (x, y)))
    xx, yy, xy = (inner * inner * inner for inner in (xx, yy, xy))
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return float(within - 2 * xy.mean())


def _arrays(fake: Tensor, real: Tensor, least: int = 2) -> tuple[Array, Array]:
    """Features ``(N, D)`` and ``(M, D)`` as float64.

    Raises:
        InputError: another shape, fewer than ``least`` examples in a set, or values that are not finite.
    """
    check_points(least, fake=fake, real=real)
    x, y = (np.asarray(points.detach().cpu().double().numpy()) for points in (fake, real))
    return x, y


# --- Inception score --------------------------------------------------------------------------------------------------


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int | None = 0) -> tuple[float, float]:
    """exp E KL(p(y|x) ‖ p(y)) of class logits ``(N, K)``: mean and standard deviation (ddof 0) over splits.

    Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen 2016, https://arxiv.org/abs/1606.03498. Computed in float64. It
    increases with the size of a split: compare values of equal counts only. A logit of −∞ excludes a class.

    Args:
        splits: number of parts of equal size (up to one example).
        seed: of the shuffle before splitting; None keeps the order.

    Raises:
        InputError: fewer examples than splits, or logits that are NaN, +∞, or all −∞ for an example.

    >>> round(inception_score(100 * torch.eye(10), splits=1)[0], 6)
    10.0
    """
    n = len(logits)
    if n < splits or splits < 1:
        raise InputError(f"{n} examples and {splits} splits given; expected one example per split or more")
    if seed is not None:
        logits = logits[torch.randperm(n, generator=keyed_generator(seed, _SHUFFLE))]
    log_p = logits.double().log_softmax(1)  # NaN where it is not defined
    if bad := int(log_p.isnan().any(1).sum()):
        raise InputError(
            f"{bad} of {n} examples have class logits that are NaN, +inf or all -inf; remove these examples, or use "
            "another extractor"
        )
    values = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        marginal = part.logsumexp(0) - math.log(len(part))  # the mean of probabilities that underflow would be 0
        terms = torch.where(part > -math.inf, part.exp() * (part - marginal), 0.0)
        values.append(terms.sum(1).mean().exp().clamp(min=1))  # it is at least 1, except for rounding
    found = torch.stack(values)
    return float(found.mean()), float(found.std(correction=0))
