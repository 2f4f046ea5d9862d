"""Outputs of encoders: Gaussians with differentiable draws."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from unsup.core import random
from unsup.prob.distributions import LOG_2PI, at_least_float32

_LARGEST_LOG_VARIANCE = 20.0  # limit of both signs: keeps outliers finite, far from the range in training


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag exp(log_variance)), in float32 at least: a posterior, or the prior of a layer of latents.

    Attributes:
        mean: ``(…, L)``; sums over events are over the last axis.
        log_variance: log-variance of the same shape.

    >>> import torch
    >>> q = DiagonalGaussian(torch.zeros(3, 2), torch.zeros(3, 2))
    >>> z, log_q = q.draw(None)
    >>> z.shape, log_q.shape, q.kl()
    (torch.Size([3, 2]), torch.Size([3]), tensor([0., 0., 0.]))
    """

    mean: Tensor
    log_variance: Tensor

    @classmethod
    def of(cls, outputs: Tensor) -> DiagonalGaussian:
        """From the outputs ``(…, 2 L)`` of a network: means, then log-variances."""
        mean, log_variance = at_least_float32(outputs).chunk(2, -1)
        return cls(mean, log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE))

    @property
    def std(self) -> Tensor:
        return (0.5 * self.log_variance).exp()

    def noise(self, generator: Generator | None) -> Tensor:
        """ε ~ N(0, I) for one draw."""
        return random.normal(self.mean.shape, generator, like=self.mean)

    def at(self, noise: Tensor) -> Tensor:
        """z = μ + σ ∘ ε: ``(…, L)`` → ``(…, L)``."""
        return self.mean + self.std * noise

    def log_density(self, noise: Tensor) -> Tensor:
        """log q at the z of `at`, computed from the noise: ``(…, L)`` → ``(…)``."""
        return -0.5 * ((noise**2 + self.log_variance).sum(-1) + noise.shape[-1] * LOG_2PI)

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z): ``(…, L)`` → ``(…)``."""
        return self.log_density((z - self.mean) * (-0.5 * self.log_variance).exp())

    def draw(self, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """One draw and its log-density."""
        noise = self.noise(generator)
        return self.at(noise), self.log_density(noise)

    def held(self) -> DiagonalGaussian:
        """The same, detached: `log_prob` then has a gradient with respect to z only."""
        return DiagonalGaussian(self.mean.detach(), self.log_variance.detach())

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL(self ‖ other), summed over the last axis; None is N(0, I).

        ½ Σ ((μ − m)² / s² + σ²/s² − 1 − log σ²/s²), with m and s² of ``other``.
        """
        if other is None:
            return 0.5 * (self.mean**2 + self.log_variance.expm1() - self.log_variance).sum(-1)
        log_ratio = self.log_variance - other.log_variance
        distance = (self.mean - other.mean) ** 2 * (-other.log_variance).exp()
        return 0.5 * (distance + log_ratio.expm1() - log_ratio).sum(-1)
