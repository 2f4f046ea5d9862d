"""Symptoms in the samples of any model."""

from __future__ import annotations

from typing import cast

import torch
from torch import Generator, Tensor

from unsup.core.model import CanSample, Model, Symptom
from unsup.data.source import Split
from unsup.evaluate.conditions import for_samples

_SAMPLES = 256
_TWIN = 0.1  # fraction of the median distance between nearest neighbours in the data
_SURPLUS = 0.25  # excess share of samples with a twin, compared with the data, that counts as collapse


def twin_shares(samples: Tensor, data: Tensor) -> tuple[float, float]:
    """Shares of samples, and of equally many data examples, that have a twin: ``(N, *shape)`` twice → two numbers.

    A twin is another member of the same set, closer than a tenth of the median distance between nearest neighbours in
    the data (equal, if that median is 0).
    """
    n = min(len(samples), len(data))
    nearest = []
    for x in (samples[:n], data[:n]):
        flat = x.flatten(1).double()
        distance = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
        nearest.append(distance.fill_diagonal_(torch.inf).amin(1))
    limit = _TWIN * nearest[1].median()
    return float((nearest[0] <= limit).double().mean()), float((nearest[1] <= limit).double().mean())


@torch.no_grad()
def collapse(model: CanSample, data: Split, *, generator: Generator) -> Symptom | None:
    """Whether samples of the model repeat each other far more than examples of the data."""
    n = min(_SAMPLES, len(data))
    samples = model.sample(n, generator=generator, **for_samples(cast(Model, model), data, n)).cpu()
    own, theirs = twin_shares(samples, data.glance.cpu())
    if own <= theirs + _SURPLUS:
        return None
    return Symptom(
        "collapse",
        f"{own:.0%} of the samples are near-copies of others ({theirs:.0%} in the data); try a smaller --lr, more "
        "critic steps, a gradient penalty or r1, larger batches, or another seed",
    )
