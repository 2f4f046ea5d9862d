"""Approximate posteriors q(z|x) with differentiable draws: Gaussians, and Gaussians that pass a flow.

The modules that turn the outputs of an encoder into them are in `unsup.nn.inference`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.model import CodesEntries, CodesLatents
from unsup.nn.flow import Flow
from unsup.nn.invertible import Arithmetic, Exact
from unsup.prob.distributions import LOG_2PI, at_least_float32

_LARGEST_LOG_VARIANCE = 20.0  # limit of both signs: keeps outliers finite, far from the range in training


class Approximation(ABC):
    """q(z|x) of some examples."""

    @abstractmethod
    def centre(self) -> Tensor:
        """A typical z, of a Gaussian the mean: ``(…, L)``."""

    @abstractmethod
    def noise(self, generator: Generator | None) -> Tensor:
        """ε ~ N(0, I) for one draw."""

    @abstractmethod
    def placed(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The draws of some noise and log q of them: ``(…, L)`` → ``(…, L)`` and ``(…)``."""

    def draw(self, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """One draw and its log-density."""
        return self.placed(self.noise(generator))

    @abstractmethod
    def exactly(self, noise: Tensor, arithmetic: Arithmetic) -> Tensor:
        """The z of `placed` of noise in fixed-point numbers ``(B, L)``, for lossless coding."""

    @abstractmethod
    def exactly_inverse(self, z: Tensor, arithmetic: Arithmetic) -> Tensor:
        """The noise that `exactly` places at ``z``."""


class Gaussian(Approximation):
    """Capability: the density is known at any z, and the divergence from N(0, I) in closed form."""

    mean: Tensor

    def centre(self) -> Tensor:
        return self.mean

    def noise(self, generator: Generator | None) -> Tensor:
        return random.normal(self.mean.shape, generator, like=self.mean)

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z): ``(…, L)`` → ``(…)``."""

    @abstractmethod
    def held(self) -> Gaussian:
        """The same, detached: `log_prob` then has a gradient with respect to z only."""

    @abstractmethod
    def kl(self) -> Tensor:
        """KL(q ‖ N(0, I)), ``(…)``."""


class CodesExactLatents(CodesLatents):
    """Capability: any q(z | x) that places noise exactly, and any p(z) that is a flow or visits its entries."""

    @abstractmethod
    def approximation(self, batch: Batch) -> Approximation:
        """q(z | x), ``(B, L)``."""

    @property
    @abstractmethod
    def coded_prior(self) -> Flow | CodesEntries | None:
        """p(z) of real vectors; None is N(0, I)."""


@dataclass(frozen=True)
class DiagonalGaussian(Gaussian):
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

    def placed(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        return self.at(noise), self.log_density(noise)

    def at(self, noise: Tensor) -> Tensor:
        """z = μ + σ ∘ ε: ``(…, L)`` → ``(…, L)``."""
        return self.mean + self.std * noise

    def log_density(self, noise: Tensor) -> Tensor:
        """log q at the z of `at`, computed from the noise: ``(…, L)`` → ``(…)``."""
        return -0.5 * ((noise**2 + self.log_variance).sum(-1) + noise.shape[-1] * LOG_2PI)

    def log_density_each(self, noise: Tensor) -> Tensor:
        """The same of every latent: ``(…, L)`` → ``(…, L)``."""
        return -0.5 * (noise**2 + self.log_variance + LOG_2PI)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.log_density(self.units_of(z))

    def exactly(self, noise: Tensor, arithmetic: Arithmetic) -> Tensor:
        return arithmetic.affine(noise, 0.5 * self.log_variance, self.mean)

    def exactly_inverse(self, z: Tensor, arithmetic: Arithmetic) -> Tensor:
        return arithmetic.affine_inverse(z, 0.5 * self.log_variance, self.mean)

    def held(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.mean.detach(), self.log_variance.detach())

    def kl(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL(self ‖ other), summed over the last axis; None is N(0, I).

        ½ Σ ((μ − m)² / s² + σ²/s² − 1 − log σ²/s²), with m and s² of ``other``.
        """
        return self.kl_each(other).sum(-1)

    def kl_each(self, other: DiagonalGaussian | None = None) -> Tensor:
        """KL(self ‖ other) of every latent, ``(…, L)``; None is N(0, I)."""
        if other is None:
            return 0.5 * (self.mean**2 + self.log_variance.expm1() - self.log_variance)
        log_ratio = self.log_variance - other.log_variance
        distance = (self.mean - other.mean) ** 2 * (-other.log_variance).exp()
        return 0.5 * (distance + log_ratio.expm1() - log_ratio)

    def units_of(self, z: Tensor) -> Tensor:
        """(z − μ) / σ, the inverse of `at`."""
        return (z - self.mean) * (-0.5 * self.log_variance).exp()

    def merged(self, other: DiagonalGaussian) -> DiagonalGaussian:
        """The normalised product of two densities: means weighted by precisions, which add up.

        σ² = 1 / (σ₁⁻² + σ₂⁻²),  μ = σ² (μ₁ σ₁⁻² + μ₂ σ₂⁻²)     (Sønderby et al. 2016, eq. 11 and 12).
        """
        log_variance = -torch.logaddexp(-self.log_variance, -other.log_variance)
        weights = (log_variance - self.log_variance).exp(), (log_variance - other.log_variance).exp()
        return DiagonalGaussian(weights[0] * self.mean + weights[1] * other.mean, log_variance)

    def moved(self, change: DiagonalGaussian) -> DiagonalGaussian:
        """N(μ + Δμ, σ Δσ) with Δμ the mean and Δσ the deviation of ``change`` (Vahdat, Kautz 2020, section 3.2)."""
        log_variance = self.log_variance + change.log_variance
        bounded = log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)
        return DiagonalGaussian(self.mean + change.mean, bounded)


@dataclass(frozen=True)
class FullGaussian(Gaussian):
    """N(mean, L Lᵀ) with a lower-triangular L.

    Attributes:
        mean: ``(…, L)``.
        lower: the part of L below its diagonal, ``(…, L, L)``.
        log_diagonal: logarithms of its diagonal, ``(…, L)``.
    """

    mean: Tensor
    lower: Tensor
    log_diagonal: Tensor

    @property
    def factor(self) -> Tensor:
        return self.lower + self.log_diagonal.exp().diag_embed()

    def placed(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        moved = (self.factor @ noise.unsqueeze(-1)).squeeze(-1)
        return self.mean + moved, self._log_density(noise)

    def _log_density(self, noise: Tensor) -> Tensor:
        return -0.5 * (noise.square().sum(-1) + noise.shape[-1] * LOG_2PI) - self.log_diagonal.sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        away = (z - self.mean).unsqueeze(-1)
        return self._log_density(torch.linalg.solve_triangular(self.factor, away, upper=False).squeeze(-1))

    def exactly(self, noise: Tensor, arithmetic: Arithmetic) -> Tensor:
        """From the last latent to the first: each depends on the noise of earlier ones."""
        z = noise.clone()
        for i in reversed(range(noise.shape[-1])):
            z[:, i : i + 1] = arithmetic.affine(noise[:, i : i + 1], *self._exact_parameters(noise, i, arithmetic))
        return z

    def exactly_inverse(self, z: Tensor, arithmetic: Arithmetic) -> Tensor:
        noise = z.clone()
        for i in range(z.shape[-1]):
            told = self._exact_parameters(noise, i, arithmetic)
            noise[:, i : i + 1] = arithmetic.affine_inverse(z[:, i : i + 1], *told)
        return noise

    def _exact_parameters(self, noise: Tensor, i: int, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
        earlier = arithmetic.real(noise[:, :i])
        shift = self.mean[:, i] + (self.lower[:, i, :i] * earlier).sum(1)
        return self.log_diagonal[:, i : i + 1], shift[:, None]

    def held(self) -> FullGaussian:
        return FullGaussian(self.mean.detach(), self.lower.detach(), self.log_diagonal.detach())

    def kl(self) -> Tensor:
        """½ (tr L Lᵀ + ‖μ‖² − L) − log|L|."""
        diagonal = (2 * self.log_diagonal).expm1() - 2 * self.log_diagonal
        return 0.5 * (diagonal.sum(-1) + self.lower.square().sum((-2, -1)) + self.mean.square().sum(-1))


@dataclass(frozen=True)
class Transformed(Approximation):
    """z = f(z_0), z_0 from a Gaussian, and log q(z) = log q(z_0) − log|det ∂f/∂z_0|, known at draws only.

    Attributes:
        base: q(z_0|x).
        flow: f, ``(k, B, L)`` → ``(k, B, L)`` and log-determinants ``(k, B)``.
        steps: the steps of f on vectors ``(B, L)``, for coding; None if it is not coded.
        context: the features that the steps see.
        flow_each: f of autoregressive steps, with the share of each latent in the log-determinant, ``(k, B, L)``; None
            if it is not known.
    """

    base: DiagonalGaussian
    flow: Callable[[Tensor], tuple[Tensor, Tensor]]
    steps: Callable[[], Sequence[Exact]] | None = None
    context: Tensor | None = None
    flow_each: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def centre(self) -> Tensor:
        return self.flow(self.base.mean.unsqueeze(0))[0].squeeze(0)

    def noise(self, generator: Generator | None) -> Tensor:
        return self.base.noise(generator)

    def placed(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        first, log_density = self.base.placed(noise if noise.ndim == 3 else noise.unsqueeze(0))
        z, log_det = self.flow(first)
        found = z, log_density - log_det
        return found if noise.ndim == 3 else (found[0].squeeze(0), found[1].squeeze(0))

    def placed_each(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`placed`, with log q of every latent given those before it: ``(B, L)`` → ``(B, L)`` and ``(B, L)``."""
        assert self.flow_each is not None
        z, log_det = self.flow_each(self.base.at(noise).unsqueeze(0))
        return z.squeeze(0), self.base.log_density_each(noise) - log_det.squeeze(0)

    def exactly(self, noise: Tensor, arithmetic: Arithmetic) -> Tensor:
        z = self.base.exactly(noise, arithmetic)
        assert self.steps is not None
        for step in self.steps():
            z = step.exactly(z, arithmetic, self.context)
        return z

    def exactly_inverse(self, z: Tensor, arithmetic: Arithmetic) -> Tensor:
        assert self.steps is not None
        for step in reversed(self.steps()):
            z = step.exactly_inverse(z, arithmetic, self.context)
        return self.base.exactly_inverse(z, arithmetic)
