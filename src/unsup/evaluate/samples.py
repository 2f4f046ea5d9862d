"""Samples of a model, the real examples that they are compared with, and what measures of samples need."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.machine import fast_cpu
from unsup.core.model import CanSample, Model, keyed_generator
from unsup.core.parallel import share_out
from unsup.data.source import Data, Split
from unsup.evaluate.conditions import is_conditioned
from unsup.evaluate.features import Extractor, Features, choose_extractor, digit_reader, read_digits
from unsup.evaluate.frechet import deleted_groups
from unsup.evaluate.modes import MODES_KNOWN, STACKED, ModeCoverage, class_coverage, mode_coverage, plane_modes

CHUNK = 500
"""Examples drawn at once, each chunk keyed by (seed, position), so that it does not matter who draws which."""
SPLITS = 10
_GROUPS, _GROUPS_WIDE, _WIDE = 20, 10, 512
_SAMPLE, _REAL, _HELD_OUT, _SHUFFLE, SUBSETS_KEY = range(5)


@dataclass(frozen=True, eq=False)
class RealFeatures:
    """Features of the real examples that samples are judged against, made once for any number of models.

    Attributes:
        extractor: what made them.
        train: of ``n`` training examples, or all where there are fewer.
        held_out: of as many test examples.
    """

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
    """Features of ``n`` examples of the training split and of held-out examples, chosen by the seed."""
    chosen = choose_extractor(extractor, data.event, data.train.glance) if isinstance(extractor, str) else extractor
    train, other = _choose(data.train, n, seed, _REAL), _choose(held_out, n, seed, _HELD_OUT)
    return RealFeatures(chosen, chosen(train, on_chunk=on_chunk), chosen(other, on_chunk=on_chunk))


@torch.no_grad()
def draw_samples(
    model: Model,
    n: int,
    *,
    seed: int = 0,
    given: Tensor | None = None,
    options: Mapping[str, Any] | None = None,
    on_chunk: Callable[[int, int], None] | None = None,
) -> Tensor:
    """``n`` samples ``(n, *event.shape)`` on the CPU, keyed by (seed, chunk), so that several processes share them.

    Args:
        given: what each is conditioned on, ``(n, *given.shape)``, for models built with ``given``.
        options: of ``model.sample``, e.g. a temperature.

    Raises:
        CapabilityError: the model cannot sample, or takes no condition.
    """
    if not isinstance(model, CanSample):
        raise CapabilityError(f"{type(model).__name__} draws no samples; ask a model that can sample (unsup models)")
    if given is not None and not is_conditioned(model):
        raise CapabilityError(f"this {type(model).__name__} was built without a condition; leave out given=")
    sample: Callable[..., Tensor] = functools.partial(model.sample, **(options or {}))
    was_training = model.training
    model.eval()

    def drawn(position: int) -> Tensor:
        generator = keyed_generator(seed, _SAMPLE, position, device=model.device)
        start, stop = position * CHUNK, min((position + 1) * CHUNK, n)
        beside = {} if given is None else {"given": given[start:stop].to(model.device)}
        return sample(stop - start, generator=generator, **beside).cpu()

    def report(done: int) -> None:
        if on_chunk is not None:
            on_chunk(min(done * CHUNK, n), n)

    with fast_cpu(model.device):
        found = share_out(-(-n // CHUNK), drawn, report)
    model.train(was_training)
    return found


def inception_score(logits: Tensor, *, splits: int = SPLITS, seed: int | None = 0) -> tuple[float, float]:
    """exp E KL(p(y|x) ‖ p(y)) of class logits ``(N, K)``: mean and standard deviation (ddof 0) over splits.

    Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen 2016, https://arxiv.org/abs/1606.03498. Computed in float64. It
    rises with the size of a split: compare figures of equal counts only.

    Args:
        splits: parts of equal size, up to one example.
        seed: of the shuffle before splitting; None keeps the order.

    A logit may be −∞: that class is ruled out.

    Raises:
        InputError: fewer examples than splits, or logits that are NaN, +∞, or all −∞ for an example.

    >>> round(inception_score(100 * torch.eye(10), splits=1)[0], 6)
    10.0
    """
    n = len(logits)
    if n < splits or splits < 1:
        raise InputError(f"{n} examples and {splits} splits given; expected one example a split or more")
    if seed is not None:
        logits = logits[torch.randperm(n, generator=keyed_generator(seed, _SHUFFLE))]
    log_p = logits.double().log_softmax(1)  # NaN where it is not defined
    if bad := int(log_p.isnan().any(1).sum()):
        raise InputError(
            f"{bad} of {n} examples have class logits that are NaN, +inf or all -inf; leave these examples out, or use "
            "another extractor"
        )
    p = log_p.exp()
    values = []
    for i in range(splits):
        part = slice(i * n // splits, (i + 1) * n // splits)
        # 0 log 0 = 0, for a class that is ruled out and for one that is too unlikely to have a probability.
        terms = torch.where(p[part] > 0, p[part] * (log_p[part] - p[part].mean(0).log()), 0.0)
        values.append(terms.sum(1).mean().exp().clamp(min=1))  # it is 1 or more but for rounding
    found = torch.stack(values)
    return float(found.mean()), float(found.std(correction=0))


def jackknife_error(fake: Tensor, real: Tensor) -> float:
    """Standard error of the FID of ``(N, D)`` against ``(M, D)``: a jackknife over disjoint groups of both sets.

    With d²₍g₎ the distance without group g of G: se² = (G − 1)/G Σ_g (d²₍g₎ − mean)². G is 20; 10 beyond 512 features.
    NaN for more than 512 features of fewer examples than features, whose covariances it would take long to say little.
    """
    if fake.shape[1] > max(_WIDE, len(fake)):
        return math.nan
    groups = min(_GROUPS if fake.shape[1] <= _WIDE else _GROUPS_WIDE, len(fake) // 2, len(real) // 2)
    if groups < 2:
        return math.nan
    values = torch.tensor(deleted_groups(fake, real, groups), dtype=torch.float64)
    return math.sqrt((groups - 1) * float(values.var(correction=0)))


def known_modes(name: str | None, fake: Tensor) -> tuple[ModeCoverage, str]:
    """Mode coverage of samples of a data set whose modes are known, with a note on how they were read, or "".

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
    note = f"modes are read by the extractor grey, which names {accuracy:.2%} of MNIST's test digits correctly"
    return class_coverage((digits * torch.tensor([100, 10, 1])).sum(1), 1000), note


def _choose(split: Split, n: int, seed: int, use: int) -> Tensor:
    """``n`` of the examples, or all in another order where there are no more."""
    return split.rows(torch.randperm(len(split), generator=keyed_generator(seed, use))[:n])
