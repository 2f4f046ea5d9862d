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

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count
from unsup.core.errors import CapabilityError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import CanComplete, CanDecode, CanSample, HasNegatives, HasPartition, Model, Terms
from unsup.core.parallel import is_last_part
from unsup.core.random import alike, bits
from unsup.core.steps import in_steps
from unsup.prob.annealing import (
    anneal,
    base_log_partition,
    bernoulli_pair_step,
    ladder,
    log_mean_and_error,
)

_ENUMERABLE = 20  # units of the smaller layer up to which log Z is a sum over its states
_STATES_AT_ONCE = 4096
_CHAINS, _TEMPERATURES = 100, 1000  # annealed importance sampling at effort 1
_INITIAL_STD = 0.01


class RBM(Model, HasPartition, HasNegatives, CanSample, CanDecode, CanComplete):
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
    autocast = False  # a chain's probabilities are compared with uniform numbers: float32
    not_in_half = "its free energies are sums that nearly cancel"

    base_bias: Tensor
    fantasies: Tensor
    log_partition: Tensor
    partition_of: Tensor

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
        self.hidden, self.persistent, self.steps, self.burn_in = hidden, persistent, steps, burn_in
        self.centred = centred
        self.weight = nn.Parameter(_INITIAL_STD * torch.randn(event.dims, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(event.dims))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.register_buffer("base_bias", torch.zeros(event.dims))  # log-odds of the means of the data
        if persistent:
            self.register_buffer("fantasies", torch.zeros(chains, hidden, dtype=torch.uint8))  # h of each
        # log Z, its standard error, and a checksum of the corresponding parameters (0 for none).
        self.register_buffer("log_partition", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("partition_of", torch.zeros((), dtype=torch.int64))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.uniform is not None and event.uniform.kind == "binary" else "takes binary data only"

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise visible biases with the log-odds of the means of the data, and persistent chains at random."""
        x = batch.x
        ones, n = x.flatten(1).sum(0, dtype=self.base_bias.dtype), len(x)
        self.base_bias.copy_(((ones + 0.5) / (n + 1)).logit())
        self.visible_bias.copy_(self.base_bias)
        if self.persistent:
            hidden = torch.full_like(self.fantasies, 0.5, dtype=self.dtype)
            self.fantasies.copy_(bits(hidden, generator, axis=None))

    # --- energies -------------------------------------------------------------------------------------------------

    def interaction(self) -> tuple[Tensor, Tensor, Tensor]:
        """W ``(D, H)``, b ``(D,)`` and c ``(H,)`` of the plain form of the energy."""
        w, b, c = self.weight, self.visible_bias, self.hidden_bias
        if not self.centred:
            return w, b, c
        # (v − µ)ᵀb + cᵀ(h − ½) + (v − µ)ᵀW(h − ½) = vᵀ(b − ½ W1) + (c − Wᵀµ)ᵀh + vᵀWh + constant
        return w, b - 0.5 * w.sum(1), c - w.t().mv(self.base_bias.sigmoid())

    def energy(self, x: Tensor) -> Tensor:
        """The free energy F of raw data in nats: ``(B, *event.shape)`` → ``(B,)``."""
        return free_energy(self._bits(x), *self.interaction())

    def _bits(self, x: Tensor) -> Tensor:
        self.event.check_shape(x)
        return x.flatten(1).to(self.dtype)

    def _raw(self, bits: Tensor) -> Tensor:
        return bits.view(len(bits), *self.event.shape).to(self.event.dtype)

    # --- learning -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Free energy of each example minus that of the chains, which are updated by ``steps`` sweeps.

        The ends of persistent chains are stored in training mode only.
        """
        data = self._bits(batch.x)
        if self.persistent:
            n, v = len(data), self._chains(None, generator)
            free, inputs = self._free_energy_and_inputs(torch.cat([data, v]))  # one product is faster than two
            below, above = free[:n], free[n:].mean()  # all processes share the chains
            if self.training and is_last_part():
                with alike():
                    self.fantasies.copy_(bits(inputs[n:].sigmoid(), generator))
        else:
            below, inputs = self._free_energy_and_inputs(data)
            above, _ = self._free_energy_and_inputs(self._chains(inputs, generator))
        return {"loss": below - above, "data": below.detach(), "chains": above.detach()}

    @torch.no_grad()
    def _chains(self, inputs: Tensor | None, generator: Generator | None) -> Tensor:
        """v after ``steps`` sweeps: of persistent chains, or of CD from hidden units given the data's ``inputs``."""
        w, b, c = self.interaction()
        with alike() if inputs is None else nullcontext():
            h = self.fantasies.to(w.dtype) if inputs is None else bits(inputs.sigmoid(), generator)
            v = bits(torch.addmm(b, h, w.t()).sigmoid_(), generator)
            return gibbs(v, w, b, c, self.steps - 1, generator)

    def _free_energy_and_inputs(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Free energy of bits ``(B, V)`` up to a constant, and without gradient the input of every hidden unit.

        Subtracting µ from v and ½ from h here gives the gradient without sums of W.
        """
        if self.centred:
            v = v - self.base_bias.sigmoid()
        inputs = torch.addmm(self.hidden_bias, v, self.weight)
        hidden = softplus(inputs).sum(1)
        if self.centred:
            hidden = hidden - 0.5 * inputs.sum(1)
        return -(v @ self.visible_bias) - hidden, inputs.detach()

    @torch.no_grad()
    def contrast(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The examples and the ends of the chains as bits, ``(B, V)`` and ``(C, V)``; persistent chains are kept."""
        data = self._bits(batch.x)
        return data, self._chains(None if self.persistent else self._free_energy_and_inputs(data)[1], generator)

    def point_energy(self, points: Tensor) -> Tensor:
        """The free energy of bits ``(N, V)``."""
        return free_energy(points, *self.interaction())

    # --- log Z ----------------------------------------------------------------------------------------------------

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if min(self.event.dims, self.hidden) <= _ENUMERABLE else "estimate"

    @torch.no_grad()
    def estimate_log_partition(self, *, effort: int = 1, generator: Generator | None = None) -> tuple[float, float]:
        """Compute log Z and its standard error, and store them for `log_prob`.

        The sum over the states of the smaller layer if it has at most 20 units; else annealed importance sampling from
        the base rates of the data, with 100 chains and 1,000 temperatures times ``effort``.
        """
        exact = self.likelihood_kind == "exact"
        found = (float(self._enumerate()), 0.0) if exact else self._anneal(effort, generator)
        self.log_partition.copy_(torch.tensor(found, dtype=torch.float64))
        self.partition_of.copy_(self._checksum())
        return found

    @property
    def log_partition_error(self) -> float:
        return 0.0 if self.likelihood_kind == "exact" else float(self._stored()[1])

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """−F(x) − log Z of raw data, float64: ``(B, *event.shape)`` → ``(B,)`` nats.

        Raises:
            CapabilityError: log Z must be estimated, but was not, or the parameters have changed since.
        """
        if self.likelihood_kind == "estimate":
            with torch.no_grad():
                return -self.energy(batch.x).double() - self._stored()[0]
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        log_partition = self._enumerate() if learns or not self._is_current() else self._stored()[0]
        return -self.energy(batch.x).double() - log_partition

    def _is_current(self) -> bool:
        return bool(self.partition_of == self._checksum())

    def _stored(self) -> Tensor:
        if not self._is_current():
            when = "was not estimated" if not self.partition_of else "was estimated for other parameters"
            raise CapabilityError(
                f"log Z of this RBM {when}, and {self.event.dims} visible and {self.hidden} hidden units are too many "
                "for an exact sum; call model.estimate_log_partition(effort=..., generator=...) first, or unsup eval"
            )
        return self.log_partition

    @torch.no_grad()
    def _checksum(self) -> Tensor:
        """A number, not 0, that changes with any bit of the parameters but not with their type or device."""
        total = torch.ones((), dtype=torch.int64, device=self.device)
        for p in (*self.parameters(), self.base_bias):
            bits = p.detach().double().flatten().view(torch.int64)
            odd = 2 * torch.arange(len(bits), device=bits.device) + 1
            total = total * 6364136223846793005 + ((bits ^ (bits >> 29)) * odd).sum()
        return total | 1

    def _enumerate(self) -> Tensor:
        """log Z as a sum over the states of the smaller layer; its gradient takes the memory of one block of them."""
        w, b, c = (p.double() for p in self.interaction())
        if self.event.dims < self.hidden:
            w, b, c = w.t(), c, b  # sum over the states of the layer with bias c, the smaller one
        units = torch.arange(len(c), device=w.device)

        def part(states: Tensor, w: Tensor, b: Tensor, c: Tensor) -> Tensor:
            h = (states[:, None] >> units & 1).double()
            return (-free_energy(h, w.t(), c, b)).logsumexp(0)

        parts = [
            checkpoint(part, states, w, b, c, use_reentrant=False, preserve_rng_state=False)
            for states in torch.arange(2 ** len(c), device=w.device).split(_STATES_AT_ONCE)
        ]
        return torch.stack(parts).logsumexp(0)

    def _anneal(self, effort: int, generator: Generator | None) -> tuple[float, float]:
        step = bernoulli_pair_step(*self.interaction(), self.base_bias)
        start = self._from_base_rates(_CHAINS, generator)
        log_weight = anneal(start, ladder(_TEMPERATURES * effort), step, generator=generator)
        mean, error = log_mean_and_error(log_weight)
        return base_log_partition(self.base_bias, self.hidden) + mean, error

    # --- chains ---------------------------------------------------------------------------------------------------

    def _from_base_rates(self, n: int, generator: Generator | None) -> Tensor:
        return bits(self.base_bias.sigmoid().expand(n, -1), generator)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        burn_in: Count | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The last states of ``n`` chains: ``(n, *event.shape)``.

        Args:
            burn_in: sweeps of the chains; None: as in the model.
            on_step: called after each sweep with the number of sweeps and the states of the chains as raw data.
        """
        w, b, c = self.interaction()
        if self.persistent:
            rows = random.integers(0, len(self.fantasies), (n,), generator, like=w)
            h = self.fantasies[rows].to(self.dtype)
            v = bits(torch.addmm(b, h, w.t()).sigmoid_(), generator)
        else:
            v = self._from_base_rates(n, generator)
        watch = None if on_step is None else lambda step, v: on_step(step, self._raw(v))
        return self._raw(gibbs(v, w, b, c, burn_in or self.burn_in, generator, on_step=watch))

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, *, generator: Generator | None = None, burn_in: Count | None = None
    ) -> Tensor:
        """Gibbs sweeps that do not change the known entries."""
        self.check_known(x, known)
        given, fixed = self._bits(x), known.flatten(1)
        start = torch.where(fixed, given, self._from_base_rates(len(x), generator))
        return self._raw(gibbs(start, *self.interaction(), burn_in or self.burn_in, generator, fixed=fixed))

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


def free_energy(v: Tensor, weight: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """F(v) = −bᵀv − Σ_j softplus(c_j + vᵀW_j): ``(B, V)`` → ``(B,)``."""
    return -(v @ visible_bias) - softplus(torch.addmm(hidden_bias, v, weight)).sum(1)


def gibbs(
    v: Tensor,
    weight: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    sweeps: int,
    generator: Generator | None,
    *,
    fixed: Tensor | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """``sweeps`` of h ~ p(h|v), v ~ p(v|h) over all rows of ``v`` ``(B, V)``; entries ``fixed`` (bool) stay."""
    down = weight.t()
    given = v
    for sweep in in_steps(range(sweeps)):
        h = bits(torch.addmm(hidden_bias, v, weight).sigmoid_(), generator)
        v = bits(torch.addmm(visible_bias, h, down).sigmoid_(), generator)
        if fixed is not None:
            v = torch.where(fixed, given, v)
        if on_step is not None:
            on_step(sweep + 1, v)
    return v
