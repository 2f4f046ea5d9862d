"""A model from outside the library: p(y) = ∏_d N(y_d; μ_d, exp(s_d)²) of standardised real data, by gradient ascent."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from unsup import Batch, Event, Support
from unsup.core import random
from unsup.core.config import Positive
from unsup.core.model import CanSample, HasDensity, Model, Terms
from unsup.core.rows import Paper, Row
from unsup.nn.front import ContinuousFront
from unsup.prob.distributions import gaussian_log_prob
from unsup.testing import Case

PAPER = Paper(
    "gauss1809", "Carl Friedrich Gauß", 1809, "Theoria motus", "Perthes", "https://doi.org/10.3931/e-rara-522"
)
ROW = Row(
    name="independent-gaussians",
    target="independent_gaussians:IndependentGaussians",
    family="outside",
    summary="One Gaussian a column.",
    abilities=("score", "sample", "temper"),
    events="real vectors",
    paper=PAPER,
    cases="independent_gaussians:CASES",
)
CASES = (Case("independent-gaussians", Event((2,), Support("real"))),)


class IndependentGaussians(Model, HasDensity, CanSample):
    """One Gaussian for each column of real vectors."""

    presets = {"tiny": {"spread": 2.0}, "paper": {}}

    def __init__(self, event: Event, *, spread: Positive = 1.0) -> None:
        self.front = ContinuousFront(event)
        self.mean = nn.Parameter(torch.zeros(event.dims))
        self.log_std = nn.Parameter(torch.full((event.dims,), spread).log())

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.is_real and len(event.shape) == 1 else "takes real vectors only"

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        self.front.prepare(batch.x, generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        return {"loss": -self._log_prob(batch, samples=1, generator=generator)}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        y, log_det = self.front(self.front.floating(batch.x))
        return gaussian_log_prob(y, self.mean, self.log_std).sum(1) + log_det

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: Positive = 1.0) -> Tensor:
        noise = random.normal((n, self.event.dims), generator, like=self.mean)
        return self.front.to_support(self.front.invert(self.mean + temperature * self.log_std.exp() * noise))
