"""Samples of a model, features of the real examples that they are compared with, and measures of samples."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unsup.core import memory
from unsup.core.config import Whole, check_value
from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import CanSample, Model, keyed_generator
from unsup.data.source import Data, Split
from unsup.evaluate.conditions import by_chunks, is_conditioned
from unsup.evaluate.features import Extractor, Features, choose_extractor, digit_reader, read_digits
from unsup.evaluate.frechet import deleted_groups
from unsup.evaluate.modes import MODES_KNOWN, STACKED, ModeCoverage, class_coverage, mode_coverage, plane_modes

CHUNK = 500
"""Samples drawn at once. Each chunk is keyed by (seed, position), so any process may draw it."""
SPLITS = 10
_GROUPS, _GROUPS_WIDE, _WIDE = 20, 10, 512
_SAMPLE, _REAL, _HELD_OUT, _SHUFFLE, SUBSETS_KEY = range(5)


@dataclass(frozen=True, eq=False)
class RealFeatures:
    """Features of training and of held-out examples, and their extractor."""

    extractor: Extractor
    train: Features
    held_out: Features


def real_features(
    data: Data,
    held_out: Split,
    n: int,
    extractor: str | Extractor = "auto",
    *,
    seed: int = 0,
    on_chunk: Callable[[int], None] | None = None,
) -> RealFeatures:
    """Features of ``n`` training examples and ``n`` held-out examples, or all of them, chosen by the seed."""
    chosen = choose_extractor(extractor, data.event, data.train.glance) if isinstance(extractor, str) else extractor
    train, other = _choose(data.train, n, seed, _REAL), _choose(held_out, n, seed, _HELD_OUT)
    return RealFeatures(chosen, chosen(train, on_chunk=on_chunk), chosen(other, on_chunk=on_chunk))


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
    n, seed = check_value("n", n, Whole), check_value("seed", seed, int)
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{type(model).__name__} draws no samples; unsup models lists models that sample")
    size = n * model.event.dims * model.event.dtype.itemsize
    if size > memory.limit():
        raise InputError(
            f"{n:,} samples of {model.event} need {memory.said(size)}, more than the {memory.said(memory.limit())} of "
            "memory available; draw fewer at a time, or raise --max-memory"
        )
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


def known_modes(name: str | None, fake: Tensor) -> tuple[ModeCoverage, str]:
    """Mode coverage of samples of a data set with known modes, and a note on the assignment to modes, or "".

    Raises:
        InputError: the modes are not known.
    """
    plane = plane_modes(name)
    if plane is not None:
        return mode_coverage(fake, *plane), ""
    if name != STACKED:
        raise InputError(f"the modes of {name or 'this data'} are not known, only those of {', '.join(MODES_KNOWN)}")
    digits = read_digits(fake.reshape(-1, 1, *fake.shape[2:])).view(-1, 3)
    accuracy = digit_reader().record["accuracy"]["mnist"]
    note = f"modes are read by the extractor grey, which classifies {accuracy:.2%} of MNIST's test digits correctly"
    return class_coverage((digits * torch.tensor([100, 10, 1])).sum(1), 1000), note


def _choose(split: Split, n: int, seed: int, use: int) -> Tensor:
    """``n`` of the examples in random order, or all of them."""
    return split.rows(torch.randperm(len(split), generator=keyed_generator(seed, use))[:n])
