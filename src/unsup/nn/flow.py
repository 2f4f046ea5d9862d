"""Common parts of flows: a model consists of a front and an invertible map.

log p(x) = log p_Z(f(y(x))) + log|det ∂f/∂y| + log|det ∂y/∂x|
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Positive
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import NO_WORDS, IsFlow, Model
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.nn.invertible import Invertible
from unsup.nn.norm import batch_statistics
from unsup.prob.distributions import LOG_2PI, at_least_float32


class Flow(Model, IsFlow):
    """A model with a front, steps and a loss; all methods are derived from these.

    The base is N(0, I), unless a model overrides `base_log_prob`, `base_cdf` and `draw_base` together. Its entries are
    independent and have one law.

    Attributes:
        front: raw x ⇄ y, ``(B, *event.shape)``.
        flow: y → z, ``(B, D)``.
    """

    front: ContinuousFront
    flow: Invertible

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout not in ("vector", "image"):
            return "takes vectors, tables and images only"
        if event.has_words:
            return NO_WORDS
        if event.dims < 2:
            return "needs at least two entries"
        return None

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real else "bound"

    @property
    def mass_in_support(self) -> bool:
        return self.event.is_real

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Standardise each entry with the training data; logits are not standardised."""
        if self.front.logit_alpha is None:
            self.front.prepare(batch.x, generator=generator)

    def negative_log_prob(self, batch: Batch, *, generator: Generator | None = None) -> Tensor:
        """The base of losses: −log p(x), or its bound, ``(B,)``; with the statistics of the batch in training."""
        with batch_statistics(self.training):
            return -self._log_prob(batch, samples=1, generator=generator)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        return dequantized_log_prob(self.front, self._log_density, batch.x, samples=samples, generator=generator)

    def _log_density(self, y: Tensor) -> Tensor:
        """log p(y) of the output of the front, by the change of variables."""
        z, log_det = self.flow(at_least_float32(y))
        return self.base_log_prob(z) + log_det

    def base_log_prob(self, z: Tensor) -> Tensor:
        z = at_least_float32(z)
        return -0.5 * (z.square().sum(1) + LOG_2PI * z.shape[1])

    def base_cdf(self, z: Tensor) -> Tensor:
        """P(Z ≤ z) of one entry of the base, elementwise."""
        return torch.special.ndtr(z)

    def draw_base(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """``n`` draws of z from the base, ``(n, D)``."""
        return random.normal((n, self.event.dims), generator, like=self.front.like)

    def transform(self, x: Tensor, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        y, front_log_det = self.front(x)
        z, log_det = self.flow(at_least_float32(y))
        return z, log_det + front_log_det

    def invert(self, z: Tensor) -> Tensor:
        return self.front.invert(self.flow.inverse(at_least_float32(z)))

    def encode(self, x: Tensor) -> Tensor:
        """z at the middle of the cell of each discrete entry."""
        z: Tensor = self.flow(at_least_float32(self.front.middle(x)))[0]
        return z

    @property
    def code_size(self) -> int:
        return self.event.dims

    def decode(self, z: Tensor) -> Tensor:
        self.check_codes(z)
        return self.front.to_support(self.invert(z))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: Positive = 1.0) -> Tensor:
        """Draws from the model.

        Args:
            n: number of samples.
            generator: random generator of the draws.
            temperature: factor of the draws of the base.
        """
        return self.decode(temperature * self.draw_base(n, generator=generator))
