"""Probabilistic PCA: x = W z + μ + ε with z ~ N(0, I) of M numbers and ε ~ N(0, σ²I), so that

    x ~ N(μ, W Wᵀ + σ²I).

With the eigenvalues λ_1 ≥ λ_2 ≥ … of the covariance of the data and the vectors U_M of the first M, the maximum of the
likelihood is (Tipping, Bishop 1999, https://doi.org/10.1111/1467-9868.00196)

    σ² = (1 / (D − M)) Σ_{i>M} λ_i,        W = U_M (Λ_M − σ²I)^½ R

for any rotation R; here R = I. As σ² → 0, E[z | x] becomes the projection of PCA, divided by its standard deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core.config import Count, Weight
from unsup.core.event import Event
from unsup.core.model import Advice, Symptom
from unsup.nn.linear_gaussian import LinearGaussian
from unsup.prob import linear_gaussian as lg


class PPCA(LinearGaussian):
    """Probabilistic PCA: a Gaussian with M principal directions and equal noise in all others (Tipping, Bishop 1999).

    The fit is in closed form from one pass if no entry may be missing and there are at most 1,024 entries: the pass
    counts the covariance. Otherwise every pass is an EM step on sums of size D × M, from the principal directions of up
    to 20,000 training examples (5,461 of 3,072 entries), by a randomised singular value decomposition. Missing entries
    are integrated out.

    The likelihood of real data is exact. Levels are dequantised, so that it is a bound. Categories are refused. The
    method depends on units: see ``units``. The ``paper`` preset is the default, since the method has no architecture.

    Args:
        event: two or more entries, none of them of three or more unordered symbols.
        components: M, less than the number of entries, or ``auto``: from 1 to 64, by BIC on up to 20,000 training
            examples (2,000 where entries are missing).
        units: ``each``: every entry is divided by its standard deviation (the PCA of correlations). ``common``: all are
            divided by one number, which is the usual PCA of data in one unit. ``auto``: each in tables and vectors,
            common in images and sequences.
        floor: the least σ², in these units.
        iterations: the most EM passes.
        tolerance: EM stops when a pass raises the mean log-likelihood by less than this, in nats per entry.

    Raises:
        InputError: as many components as entries, or more.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = PPCA(Event((5,), Support("real")), components=2)
    >>> model.encode(torch.zeros(3, 5)).shape
    torch.Size([3, 2])
    """

    presets = {"tiny": {"components": 1}, "paper": {}}

    def __init__(
        self,
        event: Event,
        *,
        components: Count | Literal["auto"] = "auto",
        units: Literal["auto", "each", "common"] = "auto",
        floor: Weight = 1e-6,
        iterations: Count = 1000,
        tolerance: Weight = 1e-4,
    ) -> None:
        own = units
        if own == "auto":
            own = "each" if event.layout == "vector" else "common"
        self.take(event, components, shared=True, units=own, floor=floor, iterations=iterations, tolerance=tolerance)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """More components than are chosen, where entries are many. It takes part in comparisons that name it."""
        return Advice({"components": min(100, max(1, examples // 10))} if event.dims > 256 else {}, turn=None)

    def fit_covariance(self, covariance: Tensor, components: int) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(covariance)
        loadings, noise = lg.principal(values.flip(0), vectors.flip(1), covariance.trace(), components, self.floor)
        return loadings, noise.log().expand(len(covariance))

    def choose(self, y: Tensor, *, generator: Generator) -> int:
        """By BIC, in closed form for every number of components at once if no entry is missing."""
        if self.event.missing:
            return super().choose(y, generator=generator)
        centred = y - y.mean(0)
        most, dims = min(self.loadings.shape[1], max(1, len(y) - 1)), y.shape[1]
        if self.counts_covariance:
            values = torch.linalg.eigvalsh(centred.T @ centred / len(y)).flip(0)[:most]
        else:
            values, _ = lg.leading_directions(centred, most, generator)
        log_probs = lg.principal_log_probs(values, centred.square().mean(0).sum(), dims, self.floor)
        number = torch.arange(1, len(values) + 1, device=y.device)
        free = dims + 1 + dims * number - number * (number - 1) // 2
        return 1 + int((free * torch.tensor(float(len(y))).log() - 2 * len(y) * log_probs).argmin())

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Whether σ² is at its floor."""
        noise = float(self.log_noise.detach().exp())
        if noise > 1.001 * self.floor:
            return None
        return Symptom(
            "degenerate",
            f"{self.code_size} components explain the training data completely: only floor={self.floor:g} keeps the "
            "density finite, and new data will score far lower than the training data; use fewer components, raise "
            "floor, or drop columns that others determine",
        )
