"""Two layers of binary units with weights between them: the restricted Boltzmann machine as a part of models."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.parallel import is_last_part
from unsup.core.random import alike, bits
from unsup.prob import boltzmann
from unsup.prob.boltzmann import Interaction, free_energy, free_energy_and_hidden, gibbs
from unsup.prob.distributions import bernoulli_log_prob


def log_bits(x: Tensor, log_odds: Tensor) -> Tensor:
    """log p of independent bits with these log-odds, summed over units: ``(B, D)`` → ``(B,)``."""
    return bernoulli_log_prob(x, log_odds).sum(1)


class TwoLayers(nn.Module):
    """p(v, h) ∝ exp(bᵀv + cᵀh + vᵀWh), trained by contrastive divergence. A subclass calls `take_layers`.

    Attributes:
        weight: W ``(V, H)``.
        visible_bias: b ``(V,)``, or with ``centred`` that of v − µ and h − ½.
        hidden_bias: c ``(H,)``, likewise.
        base_bias: log-odds ``(V,)`` of the means µ of the visible units.
        fantasies: h of the persistent chains, uint8 ``(C, H)``; only if ``persistent``.
    """

    base_bias: Tensor
    fantasies: Tensor
    persistent: bool
    steps: int
    centred: bool

    def take_layers(
        self, visible: int, hidden: int, *, persistent: bool, steps: int, chains: int, centred: bool
    ) -> None:
        self.persistent, self.steps, self.centred = persistent, steps, centred
        self.weight = nn.Parameter(boltzmann.INITIAL_STD * torch.randn(visible, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.register_buffer("base_bias", torch.zeros(visible))
        if persistent:
            self.register_buffer("fantasies", torch.zeros(chains, hidden, dtype=torch.uint8))

    def interaction(self) -> Interaction:
        """W ``(V, H)``, b ``(V,)`` and c ``(H,)`` of the plain form of the energy."""
        w, b, c = self.weight, self.visible_bias, self.hidden_bias
        if not self.centred:
            return w, b, c
        # (v − µ)ᵀb + cᵀ(h − ½) + (v − µ)ᵀW(h − ½) = vᵀ(b − ½ W1) + (c − Wᵀµ)ᵀh + vᵀWh + constant
        return w, b - 0.5 * w.sum(1), c - w.t().mv(self.base_bias.sigmoid())

    @torch.no_grad()
    def set_interaction(self, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> None:
        """Set the parameters so that `interaction` is (W, b, c), for the current ``base_bias``."""
        self.weight.copy_(weight)
        if self.centred:
            visible_bias = visible_bias + 0.5 * weight.sum(1)
            hidden_bias = hidden_bias + weight.t().mv(self.base_bias.sigmoid())
        self.visible_bias.copy_(visible_bias)
        self.hidden_bias.copy_(hidden_bias)

    @torch.no_grad()
    def draw_fantasies(self, generator: Generator | None) -> None:
        """Start the persistent chains at random."""
        if self.persistent:
            hidden = torch.full_like(self.fantasies, 0.5, dtype=self.weight.dtype)
            self.fantasies.copy_(bits(hidden, generator, axis=None))

    def contrasted(self, data: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Free energies of data ``(B, V)`` and of the ends of chains, up to a constant, and what they are made of.

        The gradient of the mean of the first minus that of the second is that of contrastive divergence. The ends of
        persistent chains are stored in training mode only.

        Returns:
            The free energies ``(B,)`` of the data, the free energies of the ends: ``(B,)``, or ``()``, the mean over
            persistent chains, which all examples share; p(h = 1 | v) of the data ``(B, H)``; and the ends ``(C, V)``.
        """
        if self.persistent:
            n, v = len(data), self.chains(None, generator)
            free, hidden = self.free_energy_and_hidden(torch.cat([data, v]))  # one product is faster than two
            below, above = free[:n], free[n:].mean()  # all processes share the chains
            if self.training:  # every part of a batch draws, so that the draws after these are alike
                with alike():
                    h = bits(hidden[n:], generator)
                if is_last_part():
                    self.fantasies.copy_(h)
            return below, above, hidden[:n], v
        below, hidden = self.free_energy_and_hidden(data)
        v = self.chains(hidden, generator)
        return below, self.free_energy_and_hidden(v)[0], hidden, v

    def up(self, v: Tensor) -> Tensor:
        """The log-odds of the hidden units given bits or probabilities: ``(B, V)`` → ``(B, H)``."""
        centre = self.base_bias.sigmoid() if self.centred else None
        return boltzmann.log_odds_of_bits(v, self.weight, self.hidden_bias, centre)

    def down(self, h: Tensor) -> Tensor:
        """The log-odds of the visible units given bits or probabilities: ``(B, H)`` → ``(B, V)``."""
        centre = torch.full_like(self.hidden_bias, 0.5) if self.centred else None
        return boltzmann.log_odds_of_bits(h, self.weight.t(), self.visible_bias, centre)

    def energy_of(self, v: Tensor) -> Tensor:
        """The free energy in the plain form, of bits ``(B, V)``, with its gradient: ``(B,)``."""
        return free_energy(v, *self.interaction())

    def from_base_rates(self, n: int, generator: Generator | None) -> Tensor:
        """Independent visible units ``(n, V)`` with the means µ."""
        return bits(self.base_bias.sigmoid().expand(n, -1), generator)

    @torch.no_grad()
    def drawn(
        self,
        n: int,
        sweeps: int,
        generator: Generator | None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """v ``(n, V)`` after Gibbs sweeps from persistent chains drawn at random, else from the base rates."""
        w, b, c = self.interaction()
        if self.persistent:
            rows = random.integers(0, len(self.fantasies), (n,), generator, like=w)
            h = self.fantasies[rows].to(w.dtype)
            v = bits(torch.addmm(b, h, w.t()).sigmoid_(), generator)
        else:
            v = self.from_base_rates(n, generator)
        return gibbs(v, w, b, c, sweeps, generator, on_step=on_step)

    @torch.no_grad()
    def chains(self, hidden: Tensor | None, generator: Generator | None) -> Tensor:
        """v after ``steps`` sweeps: of persistent chains, or of CD from the data's ``hidden`` probabilities."""
        w, b, c = self.interaction()
        with alike() if hidden is None else nullcontext():
            h = self.fantasies.to(w.dtype) if hidden is None else bits(hidden, generator)
            v = bits(boltzmann.log_odds_of_bits(h, w.t(), b).sigmoid_(), generator)
            return gibbs(v, w, b, c, self.steps - 1, generator)

    def free_energy_and_hidden(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Free energy of bits ``(B, V)`` up to a constant, and without gradient p(h = 1 | v) of every hidden unit.

        Subtracting µ from v and ½ from h here gives the gradient without sums of W.
        """
        centre = self.base_bias.sigmoid() if self.centred else None
        return free_energy_and_hidden(v, self.weight, self.visible_bias, self.hidden_bias, centre)


class BinaryLayers(TwoLayers):
    """`TwoLayers` as a module of its own."""

    def __init__(self, visible: int, hidden: int, *, persistent: bool, steps: int, chains: int, centred: bool) -> None:
        super().__init__()
        self.take_layers(visible, hidden, persistent=persistent, steps=steps, chains=chains, centred=centred)
