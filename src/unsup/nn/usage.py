"""How much of a latent vector is used: KL and active units, as sentences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from unsup.core.words import counted
from unsup.nn.posterior import Approximation, DiagonalGaussian, Gaussian

ACTIVE = 0.01
"""A unit is active if the variance over examples of its posterior mean is larger (Burda et al. 2016, appendix C)."""
COLLAPSED_KL = 0.01  # nats, of all units together
_DRAWS = 32  # for means that have no closed form


@dataclass(frozen=True)
class Usage:
    """How the latents of some examples differ from each other and from the prior.

    Attributes:
        variance: Var_x E[z|x] of each unit, ``(L,)``.
        kl: KL(q(z|x) ‖ p(z)) in nats, the mean over the examples.
        each: its share of each unit ``(L,)``, where it is a sum over units; else None.
    """

    variance: Tensor
    kl: float
    each: Tensor | None = None

    @property
    def active(self) -> int:
        """Number of active units."""
        return int((self.variance > ACTIVE).sum())

    def sentences(self) -> tuple[str, ...]:
        """What a reader should know.

        >>> Usage(torch.tensor([0.9, 0.0]), 1.5, torch.tensor([1.5, 0.0])).sentences()[0]
        '1 of 2 units of z is active (its mean differs between examples); the KL is 1.50 nats, 0.000 to 1.500 a unit'
        """
        units, active = len(self.variance), self.active
        if not active:
            return (
                f"z has collapsed: none of its {counted(units, 'unit')} is active, with a KL of {self.kl:.2g} nats, so "
                "that z says nothing about x; try a longer warm_up, free_bits, or a decoder that can do less",
            )
        verb, own = ("is", "its mean differs") if active == 1 else ("are", "their means differ")
        told = f"{active} of {units} units of z {verb} active ({own} between examples); the KL is {self.kl:.2f} nats"
        if self.each is not None:
            told += f", {float(self.each.min()):.3f} to {float(self.each.max()):.3f} a unit"
        if active == units:
            return (told,)
        return told, f"{counted(units - active, 'unit')} of z collapsed: the same for all examples"


@torch.no_grad()
def usage_of(q: Approximation, kl: Tensor, *, standard: bool, generator: Generator | None = None) -> Usage:
    """The usage of z by some examples.

    E[z|x] of a posterior other than a Gaussian is a mean of draws, whose variance is subtracted.

    Args:
        q: q(z|x), ``(B, L)``.
        kl: KL(q ‖ p), or draws of it, ``(B,)``.
        standard: whether p(z) is N(0, I).
    """
    if isinstance(q, Gaussian):
        variance = q.mean.var(0)
    else:
        z = torch.stack([q.draw(generator)[0] for _ in range(_DRAWS)])
        variance = (z.mean(0).var(0) - z.var(0).mean(0) / _DRAWS).clamp(min=0)
    each = q.kl_each().mean(0) if standard and isinstance(q, DiagonalGaussian) else None
    return Usage(variance, float(kl.mean()), each)
