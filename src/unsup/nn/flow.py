"""Common parts of flows: a model consists of a front and an invertible map.

log p(x) = log p_Z(f(y(x))) + log|det ∂f/∂y| + log|det ∂y/∂x|
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Positive
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import NO_WORDS, ClassifiesByBayes, IsFlow, Model, Terms
from unsup.nn.conditions import Conditions
from unsup.nn.dequantizer import VariationalDequantizer
from unsup.nn.dropout import dropping
from unsup.nn.front import ContinuousFront, LogitFront, dequantized_log_prob
from unsup.nn.invertible import Invertible
from unsup.nn.mixing import Whitening
from unsup.nn.norm import batch_statistics
from unsup.nn.traces import traces
from unsup.nn.weight_norm import DataDependent, initialise
from unsup.prob.distributions import LOG_2PI, at_least_float32

Dequantization = Literal["uniform", "variational"]
"""Noise within the cells of discrete entries: uniform, or of a small flow, which makes the bound tighter."""
_FIRST_BATCH = 256  # examples of the data-dependent initialisation


class Flow(Model, IsFlow, ClassifiesByBayes):
    """A model with a front, steps and a loss; all methods are derived from these.

    The base is N(0, I), unless a model overrides `base_log_prob`, `base_cdf` and `draw_base` together. Its entries are
    independent and have one law. Constructors call `take` before they build the steps.

    Class attributes:
        fewest_entries: of an example; couplings need two.

    Attributes:
        front: raw x ⇄ y, ``(B, *event.shape)``.
        conditions: features of the condition, which are passed to all steps.
        flow: y → z, ``(B, D)``.
    """

    fewest_entries: ClassVar[int] = 1
    front: ContinuousFront
    conditions: Conditions
    flow: Invertible

    def take(
        self,
        event: Event,
        given: Event | None,
        *,
        logit_alpha: float | None = None,
        earlier_alpha: float | None = None,
        dequantization: Dequantization = "uniform",
        width: int = 32,
        standardise: bool = True,
    ) -> None:
        """Build the front, and the features of the condition.

        ``earlier_alpha`` is the α of files that do not record it, by default ``logit_alpha``; 0 means none. ``width``
        is that of the networks of the flow for the noise. Without ``standardise`` the levels of discrete
        entries are scaled to [−1/2, 1/2], not by the data.

        Raises:
            InputError: noise from a flow, and an event without discrete entries.
        """
        self.take_condition(given)
        dequantizer = None
        if dequantization == "variational":
            if event.is_real:
                raise InputError(
                    "dequantization='variational' is for data with discrete entries; these are real: use 'uniform', "
                    "which leaves them unchanged"
                )
            dequantizer = VariationalDequantizer(event, width)
        if logit_alpha is None:
            self.front = ContinuousFront(event, dequantizer=dequantizer)
        else:
            earlier = logit_alpha if earlier_alpha is None else earlier_alpha
            self.front = LogitFront(event, logit_alpha=logit_alpha, earlier_alpha=earlier, dequantizer=dequantizer)
        self.conditions = Conditions(given)
        self.standardises = standardise and logit_alpha is None
        if not standardise:
            self.front.mean.fill_(0.5)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout not in ("vector", "image"):
            return "takes vectors, tables and images only"
        if event.has_words:
            return NO_WORDS
        if event.dims < cls.fewest_entries:
            return f"needs at least {cls.fewest_entries} entries"
        return None

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real else "bound"

    @property
    def mass_in_support(self) -> bool:
        return self.event.is_real

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Standardise each entry with the training data (logits are not), then start the steps that depend on data.

        Steps that whiten are the first ones of their flows.
        """
        if self.standardises:
            self.front.prepare(batch.x, generator=generator)
        given = self.condition_or_none(batch.given, len(batch))
        self.conditions.prepare(given, generator=generator)
        self.count_condition(batch)
        for whitening in (m for m in self.modules() if isinstance(m, Whitening)):
            y = self.front(self.front.dequantize(batch.x, generator=generator))[0]
            whitening.start(at_least_float32(y).flatten(1))
        if any(isinstance(m, DataDependent) for m in self.modules()):
            x = batch.x[:_FIRST_BATCH]
            features = self.conditions(None if given is None else given[:_FIRST_BATCH])

            def full_pass() -> None:
                noisy = self.front.dequantize(x, generator=generator)
                self.flow(at_least_float32(self.front(noisy)[0]), features)

            with traces("none"):
                initialise(self, full_pass)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Negative log-likelihood (bound)."""
        return {"loss": self.negative_log_prob(batch, generator=generator)}

    def negative_log_prob(self, batch: Batch, *, generator: Generator | None = None) -> Tensor:
        """The base of losses: −log p(x), or its bound, ``(B,)``; in training with batch statistics and dropout."""
        with batch_statistics(self.training), dropping(self.training, generator):
            return -self._log_prob(batch, samples=1, generator=generator)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        features = self.conditions(self.condition_or_none(batch.given, len(batch)))

        def density(y: Tensor) -> Tensor:
            told = features
            if features is not None and len(y) > len(features):  # several draws of the noise
                told = features.repeat(len(y) // len(features), 1)
            z, log_det = self.flow(at_least_float32(y), told)
            return self.base_log_prob(z) + log_det

        return dequantized_log_prob(
            self.front,
            density,
            batch.x,
            samples=samples,
            average=self.likelihood_kind == "estimate",
            generator=generator,
        )

    def base_log_prob(self, z: Tensor) -> Tensor:
        z = at_least_float32(z)
        return -0.5 * (z.square().sum(1) + LOG_2PI * z.shape[1])

    def base_cdf(self, z: Tensor) -> Tensor:
        """P(Z ≤ z) of one entry of the base, elementwise."""
        return torch.special.ndtr(z)

    def exact_cdf(self, z: Tensor) -> Tensor:
        """`base_cdf` of what the exact steps give, a law that is symmetric about 0."""
        return self.base_cdf(z)

    def transform(
        self, x: Tensor, *, given: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        self.event.check_shape(x)
        y, front_log_det = self.front(x)
        z, log_det = self.flow(at_least_float32(y), self._features(given, len(x)))
        return z, log_det + front_log_det

    def invert(self, z: Tensor, *, given: Tensor | None = None) -> Tensor:
        self.check_codes(z)
        return self.front.invert(self.flow.inverse(at_least_float32(z), self._features(given, len(z))))

    def encode(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        """z at the middle of the cell of each discrete entry."""
        z: Tensor = self.flow(at_least_float32(self.front.middle(x)), self._features(given, len(x)))[0]
        return z

    @property
    def code_size(self) -> int:
        return self.event.dims

    def decode(self, z: Tensor, *, given: Tensor | None = None) -> Tensor:
        self.check_codes(z)
        return self.front.to_support(self.invert(z, given=given))

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
    ) -> Tensor:
        """Draws from the model.

        Args:
            n: number of samples.
            given: condition, for models built with ``given``: one, or one for each sample. For a class, the default is
                drawn from p(y).
            generator: random generator of the draws.
            temperature: factor of the draws of the base.
        """
        told = self.condition_to_sample(given, n, generator)
        return self.decode(self.draw_base(n, generator=generator, temperature=temperature), given=told)

    def _features(self, given: Tensor | None, n: int) -> Tensor | None:
        found: Tensor | None = self.conditions(self.condition_or_none(given, n))
        return found


class EstimatedFlow(Flow):
    """A flow whose log-determinants are exact for few entries, and otherwise estimates along random directions.

    An estimate of discrete data does not increase with the number of samples: they are averaged.

    Attributes:
        exact: whether log-determinants are exact; the steps know it too.
    """

    exact: bool

    @property
    def likelihood_kind(self) -> Kind:
        return super().likelihood_kind if self.exact else "estimate"

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        with traces("random", generator):
            return super()._log_prob(batch, samples=samples, generator=generator)

    def transform(
        self, x: Tensor, *, given: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """z and log|det ∂z/∂x|, exact without a ``generator``, which takes D derivatives; else as in `log_prob`."""
        with traces("exact" if generator is None else "random", generator):
            return super().transform(x, given=given, generator=generator)

    def encode(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        with traces("none"):
            return super().encode(x, given=given)


def scale_count(event: Event, scales: int | None, *, squeezes_first: bool = False) -> int:
    """The number of scales of an image, with a squeeze between them; None: until a side is odd or at most 4.

    Args:
        event: images.
        scales: the number wanted, or None.
        squeezes_first: whether there is also a squeeze before the first scale, which is always made.

    Raises:
        InputError: the sides cannot be halved as often.

    >>> from unsup import Support
    >>> image = Event((3, 32, 32), Support("ordinal", 256))
    >>> scale_count(image, None), scale_count(image, None, squeezes_first=True)
    (4, 4)
    """
    height, width = event.shape[1:]
    if scales is None:
        scales, side = 1, 4 if squeezes_first else 2
        while height % side == width % side == 0 and min(height, width) > 4:
            height, width, scales = height // 2, width // 2, scales + 1
        return scales
    halvings = scales if squeezes_first else scales - 1
    if height % 2**halvings or width % 2**halvings:
        raise InputError(
            f"scales={scales} halves the sides {halvings} times, which {height}×{width} does not allow (both must stay "
            "whole); use scales=None for as many as fit"
        )
    return scales
