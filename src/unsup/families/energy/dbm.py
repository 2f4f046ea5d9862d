"""Deep Boltzmann machine: layers of binary units with undirected weights between neighbours.

With layers h⁰ = x, h¹, …, h^L (Salakhutdinov, Hinton 2009, https://proceedings.mlr.press/v5/salakhutdinov09a.html):

    p(h⁰, …, h^L) ∝ exp(Σ_l b_lᵀh^l + Σ_l h^{l−1ᵀ} W_l h^l)

Units of a layer are independent given the layers next to it, so that the even layers e and the odd layers o are the two
sides of a restricted Boltzmann machine p(e, o) ∝ exp(bᵀe + cᵀo + eᵀWo), whose W has the W_l as blocks. One sweep of
Gibbs sampling draws all odd layers, then all even ones; log Z is that of this machine.

The posterior of the hidden layers is approximated by independent units q(h | x) with means m that maximise

    log p(x) ≥ E_q[log p(x, h)] + H(q),       m_l = σ(b_l + W_lᵀ m_{l−1} + W_{l+1} m_{l+1}).

Odd layers are updated together, then even ones: each update is the maximum given the others, so that the bound never
falls and needs no damping. The gradient is E_q[∂E] − E_p[∂E] with the sign of a loss, and the second mean is taken over
persistent chains (Tieleman 2008, https://doi.org/10.1145/1390156.1390290).

Before that, the layers may be trained one after the other by contrastive divergence, as restricted Boltzmann machines
that stand for the input of the missing neighbour by doubling: the first one has two copies of x, the last one two
copies of h^L, with the same weights; the weights of the others are doubled. Their weights are then those of the deep
machine.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Widths, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import Advice, Objective, Terms
from unsup.core.parallel import is_last_part
from unsup.core.random import alike, bits
from unsup.nn.boltzmann import log_bits
from unsup.nn.gibbs import Undirected, Watch
from unsup.prob import boltzmann
from unsup.prob.boltzmann import Interaction


class DBM(Undirected):
    """Deep Boltzmann machine of binary units (Salakhutdinov, Hinton 2009).

    `log_prob` is log (1/k) Σ_i p(x, eⁱ) / q(eⁱ | x), k = ``samples``, with the even hidden layers e drawn from the mean
    field and the odd ones summed out: a lower ``bound`` on log p, above `mean_field_bound` on average, if log Z is a
    sum (one side of the machine has 20 units at most); else an ``estimate`` of this bound that needs
    `estimate_log_partition` first. The estimate of log Z is low in expectation, so that log p is high. log p has no
    gradient and no graph.

    The players are ``layer-1``, …, one after the other, each with the learning rate schedule in its own part of the
    run, and ``joint``. The loss terms are ``data`` and ``chains``, the mean energies under q and of the chains, and
    ``loss`` = data − chains.

    Args:
        event: binary, of any shape.
        hidden: sizes of the layers h¹, …, h^L, two at least.
        pretraining: share of the steps in which the layers are trained one after the other, in equal parts.
        mean_field: number of updates of all layers.
        steps: k, the number of Gibbs sweeps between updates.
        chains: number of persistent chains.
        centred: use x − µ and h − ½ in the energy, with the means µ of the data. The model is the same, but its
            gradient is better conditioned (Montavon, Müller 2012, https://doi.org/10.1007/978-3-642-35289-8_33).
        burn_in: sweeps of `sample` and `complete`.

    Raises:
        InputError: fewer than two layers.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = DBM(Event((4,), Support("binary")), hidden=(3, 2))
    >>> model.log_prob(torch.tensor([[0, 1, 1, 0]]), samples=10).shape
    torch.Size([1])
    """

    presets = {
        "tiny": {"hidden": (12, 10), "chains": 64, "burn_in": 200},
        # The network of two layers of Salakhutdinov, Hinton (2009) for MNIST, with 100 chains of 5 sweeps.
        "paper": {"hidden": (500, 1000), "steps": 5, "centred": False},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100, "schedule": "linear", "ema": 0.999}
    autocast = False  # means and probabilities are compared with uniform numbers: float32

    base_bias: Tensor
    fantasies: Tensor

    def __init__(
        self,
        event: Event,
        *,
        hidden: Widths = (500, 500),
        pretraining: Annotated[float, Within(0, 1, below=True)] = 0.3,
        mean_field: Count = 10,
        steps: Count = 2,
        chains: Count = 100,
        centred: bool = True,
        burn_in: Count = 1000,
    ) -> None:
        if len(hidden) < 2:
            raise InputError(f"DBM: hidden={hidden} should have at least two layers; use rbm for one")
        self.pretraining, self.updates, self.steps = pretraining, mean_field, steps
        self.centred, self.burn_in = centred, burn_in
        self.sizes = (event.dims, *hidden)
        self.weights = nn.ParameterList(
            boltzmann.INITIAL_STD * torch.randn(below, above) for below, above in zip(self.sizes, hidden, strict=False)
        )
        self.biases = nn.ParameterList(torch.zeros(size) for size in self.sizes)
        self.register_buffer("base_bias", torch.zeros(event.dims))  # log-odds of the means of the data
        self.register_buffer("fantasies", torch.zeros(chains, sum(self.sizes[1::2]), dtype=torch.uint8))  # odd layers
        self.take_partition()

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the visible biases with the log-odds of the means of the data, and persistent chains at random."""
        x = batch.x.flatten(1)
        mean = x.sum(0, dtype=self.base_bias.dtype) / len(x)
        self.base_bias.copy_(boltzmann.log_odds(mean, len(x)))
        self.biases[0].copy_(self.base_bias)
        half = torch.full_like(self.fantasies, 0.5, dtype=self.dtype)
        self.fantasies.copy_(bits(half, generator, axis=None))

    # --- the two sides --------------------------------------------------------------------------------------------

    def _centres(self) -> tuple[Tensor, Tensor]:
        """The offsets of even and of odd units; zeros if the energy is not centred."""
        visible, odd = self.base_bias.sigmoid(), sum(self.sizes[1::2])
        hidden = visible.new_full((sum(self.sizes[2::2]),), 0.5)
        even = torch.cat([visible, hidden])
        return (even, visible.new_full((odd,), 0.5)) if self.centred else (0 * even, visible.new_zeros(odd))

    def _blocks(self) -> Interaction:
        """W ``(E, O)`` between even and odd layers, and the parameters b ``(E,)`` and c ``(O,)``."""
        last = len(self.sizes)
        rows = []
        for i in range(0, last, 2):
            row = []
            for j in range(1, last, 2):
                if j == i + 1:
                    row.append(self.weights[i])
                elif j == i - 1:
                    row.append(self.weights[j].t())
                else:
                    row.append(self.base_bias.new_zeros(self.sizes[i], self.sizes[j]))
            rows.append(torch.cat(row, 1))
        return torch.cat(rows), torch.cat([*self.biases[::2]]), torch.cat([*self.biases[1::2]])

    def interaction(self) -> Interaction:
        """W ``(E, O)``, b ``(E,)`` and c ``(O,)`` of the plain form of the energy of even and odd units."""
        w, b, c = self._blocks()
        if not self.centred:
            return w, b, c
        even, odd = self._centres()
        return w, b - w.mv(odd), c - w.t().mv(even)

    def mean_energy(self, even: Tensor, odd: Tensor) -> Tensor:
        """The energy of independent units with these means, up to a constant: ``(B, E)``, ``(B, O)`` → ``(B,)``."""
        w, b, c = self._blocks()
        of_even, of_odd = self._centres()
        even, odd = even - of_even, odd - of_odd
        return -(even @ b) - odd @ c - ((even @ w) * odd).sum(1)

    @torch.no_grad()
    def mean_field(self, x: Tensor, updates: int | None = None) -> tuple[Tensor, Tensor]:
        """The means of even and odd units under q(h | x), x itself first: ``(B, D)`` → ``(B, E)`` and ``(B, O)``."""
        w, b, c = self.interaction()
        visible = x.shape[1]
        from_x, further, bias = torch.addmm(c, x, w[:visible]), w[visible:], b[visible:]
        even = x.new_full((len(x), len(bias)), 0.5)
        odd = torch.addmm(from_x, even, further).sigmoid_()
        for _ in range(self.updates if updates is None else updates):
            even = torch.addmm(bias, odd, further.t()).sigmoid_()
            odd = torch.addmm(from_x, even, further).sigmoid_()
        return torch.cat([x, even], 1), odd

    # --- learning -------------------------------------------------------------------------------------------------

    def objectives(self) -> tuple[Objective, ...]:
        """The layers, one after the other, then all of them."""
        depth = len(self.weights)
        ends = [self.pretraining * i / depth for i in range(depth + 1)]
        found = []
        for i in range(depth) if self.pretraining else ():
            own = [self.weights[i], self.biases[i + 1], *([] if i else [self.biases[0]])]
            moved = tuple(p for p in own if p.requires_grad)
            found.append(Objective(f"layer-{i + 1}", partial(self.layer_loss, i), moved, during=(ends[i], ends[i + 1])))
        everything = tuple(p for p in self.parameters() if p.requires_grad)
        return (*found, Objective("joint", self.loss, everything, during=(ends[-1], 1.0)))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Mean energy of each example under q minus that of the chains, which are updated by ``steps`` sweeps.

        The ends of the chains are stored in training mode only.
        """
        even, odd = self.mean_field(self._bits(batch.x))
        with torch.no_grad(), alike():
            w, b, c = self.interaction()
            start = bits(torch.addmm(b, self.fantasies.to(w.dtype), w.t()).sigmoid_(), generator)
            ends = boltzmann.gibbs(start, w, b, c, self.steps - 1, generator)
            means = torch.addmm(c, ends, w).sigmoid_()
            drawn = bits(means, generator) if self.training else None
        if drawn is not None and is_last_part():
            self.fantasies.copy_(drawn)
        energies = self.mean_energy(torch.cat([even, ends]), torch.cat([odd, means]))
        below, above = energies[: len(even)], energies[len(even) :].mean()
        return {"loss": below - above, "data": below.detach(), "chains": above.detach()}

    def doubled(self, index: int) -> Interaction:
        """W, b and c of the RBM that trains the weights between h^index and h^{index + 1}, in the plain form.

        The first one has two copies of x as visible units, the last one two copies of h^L as hidden units.
        """
        w, b, c = self.weights[index], self.biases[index], self.biases[index + 1]
        if self.centred:
            centre = self._centres()[0][: len(b)] if index == 0 else torch.full_like(b, 0.5)
            last = index == len(self.weights) - 1
            b = b - (0.5 if index == 0 else 1.0) * w.sum(1)
            c = c - (1.0 if last else 2.0) * w.t().mv(centre)
        if index == 0:
            return torch.cat([w, w]), torch.cat([b, b]), c
        if index == len(self.weights) - 1:
            return torch.cat([w, w], 1), b, torch.cat([c, c])
        return 2 * w, b, c

    def layer_loss(self, index: int, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Contrastive divergence of the RBM between h^index and h^{index + 1}, on bits drawn upwards."""
        v = self._bits(batch.x)
        with torch.no_grad():
            for lower in range(index):
                w, _, c = self.doubled(lower)
                v = bits(torch.addmm(c, torch.cat([v, v], 1) if lower == 0 else v, w).sigmoid_(), generator)
            if index == 0:
                v = torch.cat([v, v], 1)
        w, b, c = self.doubled(index)
        below, hidden = boltzmann.free_energy_and_hidden(v, w, b, c)
        with torch.no_grad():
            ends = bits(torch.addmm(b, bits(hidden, generator), w.t()).sigmoid_(), generator)
            ends = boltzmann.gibbs(ends, w, b, c, self.steps - 1, generator)
        above, _ = boltzmann.free_energy_and_hidden(ends, w, b, c)
        return {"loss": below - above, "data": below.detach(), "chains": above.detach()}

    # --- density --------------------------------------------------------------------------------------------------

    @property
    def likelihood_kind(self) -> Kind:
        return "bound" if self.partition_is_exact else "estimate"

    @property
    def partition_is_exact(self) -> bool:
        return boltzmann.is_enumerable(sum(self.sizes[::2]), sum(self.sizes[1::2]))

    def partition_estimate(self, effort: int, generator: Generator | None) -> tuple[float, float]:
        """From independent even units that have the means of the persistent chains."""
        w, b, c = self.interaction()
        means = torch.addmm(b, self.fantasies.to(w.dtype), w.t()).sigmoid_().mean(0)
        base = boltzmann.log_odds(means, len(self.fantasies))
        return boltzmann.annealed_log_partition((w, b, c), base, effort, generator)

    def partition_sizes(self) -> str:
        return f"even and odd layers of {sum(self.sizes[::2])} and {sum(self.sizes[1::2])} units"

    @torch.no_grad()
    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """log (1/k) Σ p(x, e) / q(e|x) with k draws of the even hidden layers, float64: ``(B,)`` nats."""
        x, (w, b, c) = self._bits(batch.x), self.interaction()
        _, odd = self.mean_field(x)
        # The best q(e|x) given that of the odd layers: half an update more.
        log_odds = torch.addmm(b[x.shape[1] :], odd, w[x.shape[1] :].t())
        total = x.new_full((len(x),), -math.inf, dtype=torch.float64)
        for _ in range(samples):
            h = bits(log_odds.sigmoid(), generator)
            log_p = -boltzmann.free_energy(torch.cat([x, h], 1), w, b, c)
            total = torch.logaddexp(total, log_p.double() - log_bits(h, log_odds).double())
        return total - math.log(samples) - self.log_z()

    @torch.no_grad()
    def mean_field_bound(self, x: Tensor) -> Tensor:
        """E_q[log p(x, h)] + H(q) of raw data, float64: ``(B, *event.shape)`` → ``(B,)`` nats.

        Raises:
            CapabilityError: log Z must be estimated, but was not, or the parameters have changed since.
        """
        even, odd = self.mean_field(self._bits(x))
        w, b, c = self.interaction()
        units = torch.cat([even[:, self.sizes[0] :], odd], 1).double()
        entropy = -(torch.xlogy(units, units) + torch.xlogy(1 - units, 1 - units)).sum(1)
        energy = -(even @ b) - odd @ c - ((even @ w) * odd).sum(1)
        return entropy - energy.double() - self.log_z()

    # --- interface ------------------------------------------------------------------------------------------------

    def chain_ends(self, n: int, sweeps: int, generator: Generator | None, watch: Watch | None) -> Tensor:
        """Even units, from persistent chains drawn at random."""
        w, b, c = self.interaction()
        rows = random.integers(0, len(self.fantasies), (n,), generator, like=w)
        even = bits(torch.addmm(b, self.fantasies[rows].to(w.dtype), w.t()).sigmoid_(), generator)
        return boltzmann.gibbs(even, w, b, c, sweeps, generator, on_step=watch)

    def starting_means(self) -> Tensor:
        """Those of the data, and ½ of the other even units."""
        visible = self.base_bias.sigmoid()
        return torch.cat([visible, visible.new_full((sum(self.sizes[2::2]),), 0.5)])

    def encode(self, x: Tensor) -> Tensor:
        """The means of the top layer under q(h | x): ``(B, *event.shape)`` → ``(B, H_L)``."""
        return self.encode_layers(x)[-1]

    def encode_layers(self, x: Tensor) -> list[Tensor]:
        """The means of each hidden layer under q(h | x), ``(B, H_l)``."""
        even, odd = self.mean_field(self._bits(x))
        sides = [even.split(self.sizes[::2], 1), odd.split(self.sizes[1::2], 1)]
        return [sides[i % 2][i // 2] for i in range(1, len(self.sizes))]

    @property
    def code_size(self) -> int:
        return self.sizes[-1]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable bits of x by mean-field updates of all other layers given h^L = z: ``(B, H_L)`` → examples.

        They begin with a downward pass in which the input of the missing layer below is that of the layer above.
        """
        self.check_codes(z)
        means = [z.to(self.dtype)]
        weights, biases = [*self.weights], self._plain_biases()
        for i in reversed(range(len(weights))):
            double = 2.0 if i else 1.0
            means.insert(0, torch.addmm(biases[i], means[0], weights[i].t(), alpha=double).sigmoid_())
        for _ in range(self.updates):
            for i in range(len(weights)):
                inputs = torch.addmm(biases[i], means[i + 1], weights[i].t())
                if i:
                    inputs = torch.addmm(inputs, means[i - 1], weights[i - 1])
                means[i] = inputs.sigmoid_()
        return self._raw(means[0] > 0.5)

    def _plain_biases(self) -> list[Tensor]:
        _, b, c = self.interaction()
        sides = [b.split(self.sizes[::2]), c.split(self.sizes[1::2])]
        return [sides[i % 2][i // 2] for i in range(len(self.sizes))]
