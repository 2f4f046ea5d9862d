"""Approximate posteriors by name: modules that turn the outputs of an encoder into q(z|x)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from unsup.core.errors import InputError
from unsup.nn.autoregressive_map import MaskedAutoregressive
from unsup.nn.bijection import GatedAverage
from unsup.nn.invertible import Exact
from unsup.nn.posterior import Approximation, DiagonalGaussian, FullGaussian, Transformed
from unsup.nn.smooth_steps import PlanarMap, SylvesterMap
from unsup.prob.distributions import at_least_float32
from unsup.prob.smooth_maps import UNMOVED, bounded_triangle, invertible_direction, planar, sylvester

PosteriorName = Literal["diagonal", "full", "planar", "sylvester", "iaf"]
_SMALL = 0.1  # factor of the outputs that move the steps of a flow away from the identity
_LARGEST_LOG_STD = 10.0  # limit of both signs, as of diagonal Gaussians


class Inference(nn.Module, ABC):
    """q(z|x) of L latents from the outputs of an encoder.

    Attributes:
        outputs: the number of outputs of the encoder for an example.
    """

    outputs: int

    @abstractmethod
    def forward(self, outputs: Tensor) -> Approximation:
        """Outputs ``(B, outputs)`` → q(z|x)."""


class Diagonal(Inference):
    """N(μ, diag σ²)."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.outputs = 2 * latents

    def forward(self, outputs: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian.of(outputs)


class Full(Inference):
    """N(μ, L Lᵀ) with a triangular L whose entries are all outputs (Kingma, Welling 2019, section 2.5.1)."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.latents, self.outputs = latents, 2 * latents + latents * (latents - 1) // 2

    def forward(self, outputs: Tensor) -> FullGaussian:
        own = at_least_float32(outputs)
        mean, log_diagonal, below = own.split([self.latents, self.latents, self.outputs - 2 * self.latents], -1)
        lower = below.new_zeros(*below.shape[:-1], self.latents, self.latents)
        row, column = torch.tril_indices(self.latents, self.latents, -1, device=below.device)
        lower[..., row, column] = below
        return FullGaussian(mean, lower, log_diagonal.clamp(-_LARGEST_LOG_STD, _LARGEST_LOG_STD))


class Planar(Inference):
    """Planar steps whose w, u and b are outputs of the encoder (Rezende, Mohamed 2015).

    Where the outputs are 0 a step is the identity; with the function m of the paper it would be undefined there.
    """

    def __init__(self, latents: int, steps: int) -> None:
        super().__init__()
        self.latents, self.steps = latents, steps
        self.outputs = 2 * latents + steps * (2 * latents + 1)

    def forward(self, outputs: Tensor) -> Transformed:
        own, each = at_least_float32(outputs), 2 * self.latents + 1
        base = DiagonalGaussian.of(own[..., : 2 * self.latents])
        told = []
        for step in own[..., 2 * self.latents :].split(each, -1):
            w, u, bias = step.split([self.latents, self.latents, 1], -1)
            told.append((w, *invertible_direction(w, _SMALL * u, UNMOVED), bias[..., 0]))

        def flow(z: Tensor) -> tuple[Tensor, Tensor]:
            log_det = z.new_zeros(z.shape[:-1])
            for w, u, product, bias in told:
                z, more = planar(z, w, u, product, bias)
                log_det = log_det + more
            return z, log_det

        return Transformed(base, flow, lambda: [PlanarMap(*each) for each in told])


class Sylvester(Inference):
    """Orthogonal Sylvester steps whose Q, R, R̃ and b are outputs of the encoder (van den Berg et al. 2018).

    Q is orthonormal by a QR decomposition; the paper iterates towards an orthonormal matrix.

    Args:
        rank: M, at most L.
    """

    def __init__(self, latents: int, steps: int, rank: int) -> None:
        super().__init__()
        self.latents, self.steps, self.rank = latents, steps, rank
        self.outputs = 2 * latents + steps * (latents * rank + 2 * rank * rank + rank)

    def forward(self, outputs: Tensor) -> Transformed:
        own, m, size = at_least_float32(outputs), self.rank, self.latents * self.rank
        base = DiagonalGaussian.of(own[..., : 2 * self.latents])
        told = []
        for step in own[..., 2 * self.latents :].split(size + 2 * m * m + m, -1):
            raw, outer, inner, bias = step.split([size, m * m, m * m, m], -1)
            start = torch.eye(self.latents, m, dtype=raw.dtype, device=raw.device)
            q = torch.linalg.qr(start + raw.unflatten(-1, (self.latents, m))).Q
            triangles = (bounded_triangle(_SMALL * t.unflatten(-1, (m, m))) for t in (outer, inner))
            told.append((q, *triangles, bias))

        def flow(z: Tensor) -> tuple[Tensor, Tensor]:
            log_det = z.new_zeros(z.shape[:-1])
            for q, outer, inner, bias in told:
                z, more = sylvester(z, q, outer, inner, bias)
                log_det = log_det + more
            return z, log_det

        return Transformed(base, flow, lambda: [SylvesterMap(*each) for each in told])


class InverseAutoregressive(Inference):
    """Inverse autoregressive steps z ← σ z + (1 − σ) m of masked networks that also see an output of the encoder.

    (Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling 2016, https://arxiv.org/abs/1606.04934, algorithm 1.) The
    order of the latents is reversed after each step.

    Args:
        hidden: units of each hidden layer of the networks, and the number of features from the encoder.
    """

    def __init__(self, latents: int, steps: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.latents, self.features = latents, hidden[0]
        self.outputs = 2 * latents + self.features
        order = torch.arange(1, latents + 1)
        orders = [order if step % 2 == 0 else order.flip(0) for step in range(steps)]
        self.steps = nn.ModuleList(
            MaskedAutoregressive(latents, hidden, GatedAverage(), order=own, context=self.features) for own in orders
        )

    def forward(self, outputs: Tensor) -> Transformed:
        return self.from_base(DiagonalGaussian.of(outputs[..., : 2 * self.latents]), outputs[..., 2 * self.latents :])

    def from_base(self, base: DiagonalGaussian, context: Tensor) -> Transformed:
        """The steps after any Gaussian, with their features ``(B, features)``."""

        def flow(z: Tensor) -> tuple[Tensor, Tensor]:
            shape, log_det = z.shape, z.new_zeros(z.shape[:-1].numel())
            told, z = context.repeat(len(z), 1), z.flatten(0, 1)
            for step in self.steps:
                z, more = step(z, told)
                log_det = log_det + more
            return z.view(shape), log_det.view(shape[:-1])

        return Transformed(base, flow, lambda: list(cast(Iterable[Exact], self.steps)), context)


def inference_for(name: PosteriorName, latents: int, *, steps: int, hidden: tuple[int, ...], owner: str) -> Inference:
    """The posterior of a name.

    Args:
        steps: of a flow.
        hidden: units of the networks of ``iaf``; the rank of ``sylvester`` is half of the latents.

    Raises:
        InputError: a flow of a single latent for which it would be a scaling.
    """
    if name == "diagonal":
        return Diagonal(latents)
    if name == "full":
        return Full(latents)
    if latents < 2:
        raise InputError(f"{owner}: posterior={name!r} needs 2 latents or more, got latent_dim={latents}")
    if name == "planar":
        return Planar(latents, steps)
    if name == "sylvester":
        return Sylvester(latents, steps, max(1, latents // 2))
    return InverseAutoregressive(latents, steps, hidden)
