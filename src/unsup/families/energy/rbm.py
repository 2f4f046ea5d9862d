"""Restricted Boltzmann machine, trained by contrastive divergence or persistent contrastive divergence.

Binary visible units v and hidden units h have p(v, h) ∝ exp(bᵀv + cᵀh + vᵀWh) (Smolensky 1986), so that both
conditionals are independent bits and the hidden units sum out of the energy of v:

    p(h_j = 1 | v) = σ(c_j + vᵀW_j),   p(v_i = 1 | h) = σ(b_i + W_i h),   F(v) = −bᵀv − Σ_j log(1 + exp(c_j + vᵀW_j))

The gradient of the likelihood is −E_data[∂F] + E_model[∂F]. The second mean is taken over the ends of Gibbs chains of k
sweeps: chains that start at the examples of the batch (CD-k: Hinton 2002, https://doi.org/10.1162/089976602760128018),
or chains that continue from step to step and never see data (PCD: Tieleman 2008,
https://doi.org/10.1145/1390156.1390290). The loss is the difference of the free energies, which has this gradient; its
value is not a likelihood.

log Z is exact by enumeration of the smaller layer, else estimated by annealed importance sampling from the base rates
of the data (Salakhutdinov, Murray 2008, https://doi.org/10.1145/1390156.1390266).
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import HasNegatives, HasPartition, Terms
from unsup.nn.boltzmann import TwoLayers
from unsup.nn.gibbs import Undirected, Watch
from unsup.prob import boltzmann


class RBM(TwoLayers, Undirected, HasPartition, HasNegatives):
    """Restricted Boltzmann machine of binary units (Hinton 2002; Tieleman 2008; Salakhutdinov, Murray 2008).

    `energy` is the free energy F(v). `log_prob` is −F(v) − log Z: ``exact`` when the smaller layer has 20 units at most
    (log Z is then summed over its states, at once if `estimate_log_partition` has not stored it), else an ``estimate``
    that needs `estimate_log_partition` first, and again after the parameters have changed. The estimate of log Z is low
    in expectation, so that log p is high; more effort reduces this bias. An exact log p includes the gradient of log Z;
    an estimated log p has no gradient and no graph.

    `sample` and `complete` run ``burn_in`` Gibbs sweeps and return their last state, a draw from the model as far as
    the chains mix. `sample` starts at persistent chains drawn at random where there are any, else at the base rates of
    the data, as the unknown entries of `complete` do. The loss terms are ``data`` and ``chains``, the free energies of
    the examples and of the chains up to the same constant; ``loss`` is data − chains. In CD, each example has its own
    chain; the mean over persistent chains is shared by all examples.

    Args:
        event: binary, of any shape.
        hidden: H.
        persistent: PCD, or CD when False.
        steps: k, the number of Gibbs sweeps between updates.
        chains: number of persistent chains; CD has one per example of the batch.
        centred: use v − µ and h − ½ in the energy, with the means µ of the data. The model is the same, but its
            gradient is independent of the choice of the value 1 (Montavon, Müller 2012,
            https://doi.org/10.1007/978-3-642-35289-8_33).
        burn_in: sweeps of `sample` and `complete`.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = RBM(Event((4,), Support("binary")), hidden=3)
    >>> values = torch.cartesian_prod(*[torch.arange(2)] * 4)
    >>> round(model.log_prob(values).exp().sum().item(), 6)
    1.0
    """

    presets = {
        "tiny": {"hidden": 6, "chains": 64, "burn_in": 200},
        # The CD-25 machine of Salakhutdinov, Murray (2008): 393,284 parameters at 28×28.
        "paper": {"hidden": 500, "persistent": False, "steps": 25, "centred": False},
    }
    fit_defaults = {"lr": 2e-3, "batch_size": 100, "schedule": "linear", "ema": 0.999}

    def __init__(
        self,
        event: Event,
        *,
        hidden: Count = 500,
        persistent: bool = True,
        steps: Count = 1,
        chains: Count = 100,
        centred: bool = True,
        burn_in: Count = 1000,
    ) -> None:
        self.hidden, self.burn_in = hidden, burn_in
        self.take_layers(event.dims, hidden, persistent=persistent, steps=steps, chains=chains, centred=centred)
        self.take_partition()

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise visible biases with the log-odds of the means of the data, and persistent chains at random."""
        x = batch.x
        ones, n = x.flatten(1).sum(0, dtype=self.base_bias.dtype), len(x)
        self.base_bias.copy_(((ones + 0.5) / (n + 1)).logit())
        self.visible_bias.copy_(self.base_bias)
        self.draw_fantasies(generator)

    # --- energies -------------------------------------------------------------------------------------------------

    def energy(self, x: Tensor) -> Tensor:
        """The free energy F of raw data in nats: ``(B, *event.shape)`` → ``(B,)``."""
        return self.energy_of(self._bits(x))

    # --- learning -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Free energy of each example minus that of the chains, which are updated by ``steps`` sweeps.

        The ends of persistent chains are stored in training mode only.
        """
        below, above, _, _ = self.contrasted(self._bits(batch.x), generator)
        return {"loss": below - above, "data": below.detach(), "chains": above.detach()}

    @torch.no_grad()
    def contrast(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The examples and the ends of the chains as bits, ``(B, V)`` and ``(C, V)``; persistent chains are kept."""
        data = self._bits(batch.x)
        return data, self.chains(None if self.persistent else self.free_energy_and_hidden(data)[1], generator)

    def point_energy(self, points: Tensor) -> Tensor:
        """The free energy of bits ``(N, V)``."""
        return self.energy_of(points)

    # --- log Z ----------------------------------------------------------------------------------------------------

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.partition_is_exact else "estimate"

    @property
    def partition_is_exact(self) -> bool:
        return boltzmann.is_enumerable(self.event.dims, self.hidden)

    def partition_estimate(self, effort: int, generator: Generator | None) -> tuple[float, float]:
        return boltzmann.annealed_log_partition(self.interaction(), self.base_bias, effort, generator)

    def partition_sizes(self) -> str:
        return f"{self.event.dims} visible and {self.hidden} hidden units"

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """−F(x) − log Z of raw data, float64: ``(B, *event.shape)`` → ``(B,)`` nats."""
        with nullcontext() if self.partition_is_exact else torch.no_grad():
            return -self.energy(batch.x).double() - self.log_z()

    # --- chains ---------------------------------------------------------------------------------------------------

    def chain_ends(self, n: int, sweeps: int, generator: Generator | None, watch: Watch | None) -> Tensor:
        return self.drawn(n, sweeps, generator, watch)

    def starting_means(self) -> Tensor:
        return self.base_bias.sigmoid()

    def encode(self, x: Tensor) -> Tensor:
        """p(h = 1 | x) of raw data: ``(B, *event.shape)`` → ``(B, hidden)``."""
        w, _, c = self.interaction()
        return torch.addmm(c, self._bits(x), w).sigmoid()

    @property
    def code_size(self) -> int:
        return self.hidden

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable v given h = z, which may be probabilities: ``(B, hidden)`` → ``(B, *event.shape)``."""
        self.check_codes(z)
        w, b, _ = self.interaction()
        return self._raw(torch.addmm(b, z.to(self.dtype), w.t()) > 0)
