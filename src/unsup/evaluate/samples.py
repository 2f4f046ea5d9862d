"""Samples of a model, their Inception score and the standard error of their FID."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import CanSample, Model, keyed_generator
from unsup.evaluate.conditions import by_chunks, is_conditioned
from unsup.evaluate.frechet import deleted_groups

CHUNK = 500
"""Samples drawn at once. Each chunk is keyed by (seed, position), so any process may draw it."""
SPLITS = 10
_GROUPS, _GROUPS_WIDE, _WIDE = 20, 10, 512
_SAMPLE, _SHUFFLE, SUBSETS_KEY = 0, 3, 4


def draw_samples(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    given: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw ``n`` samples ``(n, *event.shape)``, on the CPU, keyed by (seed, chunk); several processes share the work.

    Args:
        given: the condition of each sample, ``(n, *given.shape)``, for models with a condition.
        options: of ``model.sample``, e.g. a temperature.

    Raises:
        CapabilityError: the model does not sample, or has no condition.
    """
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{type(model).__name__} draws no samples; unsup models lists models that sample")
    if given is not None and not is_conditioned(model):
        raise CapabilityError(f"this {type(model).__name__} has no condition; remove given=")
    sample: Callable[..., Tensor] = functools.partial(model.sample, **(options or {}))

    def drawn(position: int, rows: slice) -> Tensor:
        generator = keyed_generator(seed, _SAMPLE, position, device=model.device)
        condition = {} if given is None else {"given": given[rows].to(model.device)}
        return sample(rows.stop - rows.start, generator=generator, **condition).cpu()

    return by_chunks(model, n, CHUNK, drawn, on_chunk)


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
