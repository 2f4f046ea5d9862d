"""Discrete latent variables: one decoder, and the estimators by which it may be trained.

p(x) = Σ_z p(z) p(x|z) with binary or categorical z and a learned p(z). With several stochastic layers it is a sigmoid
belief network (Neal 1992, https://doi.org/10.1016/0004-3702(92)90065-6), whose z_1 generates x:

    p(x, z) = p(z_L) Π_l p(z_l | z_{l+1}) p(x | z_1),      q(z|x) = q(z_1|x) Π_l q(z_{l+1} | z_l)

Every layer has independent variables given the layer from which it is drawn. With k draws of z and
log w_i = log p(x, z_i) − log q(z_i|x), log p(x) ≥ E log (1/k) Σ_i w_i = L_k, which increases with k from the ELBO L_1.
Draws of z have no gradient: this is where the objectives differ.

| objective | maximises | gradient |
| --- | --- | --- |
| ``enumerate`` | log p(x) | exact: a sum over all states of z; there is no q |
| ``variational`` | L_1 of the best factorised q of each example | exact, of p at that q (Hoffman et al. 2013) |
| ``prior`` | L_k with draws from p(z) | of p at fixed draws; q learns as in the wake phase |
| ``importance`` | L_k (IWAE; Burda et al. 2016) | score function without a baseline; none with a given ``proposal`` |
| ``nvil`` | L_1 | score function of each layer, minus its baseline b_l(z_{l−1}) (Mnih, Gregor 2014) |
| ``vimco`` | L_k | score function, minus leave-one-out baselines (Mnih, Rezende 2016) |
| ``gumbel-softmax`` | L_1 of relaxed draws | pathwise, biased (Jang, Gu, Poole 2017; Maddison, Mnih, Teh 2017) |
| ``straight-through`` | L_1 | that of relaxed draws at hard draws, biased (Bengio, Léonard, Courville 2013) |
| ``wake-sleep`` | p: L_1; q: E_p log q(z\\|x) | two players (Hinton, Dayan, Frey, Neal 1995) |
| ``reweighted-wake-sleep`` | p: L_k; q: the same, and Σ_i w̃_i log q(z_i\\|x) | two players (Bornschein, Bengio 2015) |

``variational`` has no network for q. For each example of a batch, the probabilities of all variables start at those of
the prior and take ``sweeps`` of coordinate ascent (`unsup.prob.mean_field`); expectations are sums over all states. p
then takes a step at this q, through which there is no gradient, as in stochastic variational inference. All other
objectives with a q are amortised: q(z|x) is a network of x.

The KL of the relaxed objectives is that of the discrete variables, not of the Concrete densities: the entropy of every
q and E_q log p(z_L) are closed forms, and log p(z_l | z_{l+1}) is taken at relaxed draws, in which it is linear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn
from torch.utils.checkpoint import checkpoint

from unsup.core import random
from unsup.core.batch import Batch, Time
from unsup.core.config import AtLeast, Count, Positive, Widths, refuse_unused
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import (
    Advice,
    CanDecode,
    CanSample,
    ChoiceCoder,
    ChooseEntry,
    CodesChoices,
    CodesEntries,
    HasDensity,
    Model,
    Objective,
    Symptom,
    Terms,
)
from unsup.core.part import Part
from unsup.core.random import alike
from unsup.core.steps import in_steps
from unsup.nn.autoencoder import Autoencoder, NetName
from unsup.nn.nets import ActivationName, dense, start_glorot
from unsup.nn.observation import ObservationName
from unsup.nn.units import Units
from unsup.prob import estimators, mean_field
from unsup.prob.distributions import at_least_float32

ObjectiveName = Literal[
    "enumerate",
    "variational",
    "prior",
    "importance",
    "nvil",
    "vimco",
    "gumbel-softmax",
    "straight-through",
    "wake-sleep",
    "reweighted-wake-sleep",
]

_ENUMERABLE = 2**12  # states of z, over which sums are exact
_CODED = 2**10  # states of z_1, with which entries are coded
_SAMPLES = {"prior": 100, "importance": 5, "vimco": 5, "reweighted-wake-sleep": 5}  # else 1
_RELAXED = ("gumbel-softmax", "straight-through")
_TWO_PLAYERS = ("prior", "wake-sleep", "reweighted-wake-sleep")
_CHUNK_ELEMENTS = 2**20  # entries of the widest layer of the decoder in one chunk of draws
_TABLE_ELEMENTS = 2**24  # the same of a sum over states
_BASELINE_WIDTH, _BASELINE_EXAMPLES = 100, 1000
_ACTIVE = 0.01  # nats of a variable that carries information
_FEWEST_ACTIVE = 0.5


@dataclass(frozen=True)
class Draws:
    """k draws of z for each of B examples, with their log-probabilities ``(k, B)``.

    Attributes:
        z: states of every layer, from the one that generates x, ``(k, B, width)``.
        q, p: logits of every layer under q and under p; the axis of draws may be 1.
        log_q_each, log_prior_each: of every layer, ``(L, k, B)``.
    """

    z: list[Tensor]
    q: list[Tensor]
    p: list[Tensor]
    log_q_each: Tensor
    log_prior_each: Tensor
    log_likelihood: Tensor

    @property
    def log_q(self) -> Tensor:
        """log q(z|x)."""
        return self.log_q_each.sum(0)

    @property
    def log_prior(self) -> Tensor:
        """log p(z)."""
        return self.log_prior_each.sum(0)

    @property
    def log_p(self) -> Tensor:
        """log p(x, z)."""
        return self.log_likelihood + self.log_prior


class Latent(Model, HasDensity, CanSample, CanDecode, CodesEntries, CodesChoices):
    """Discrete latent-variable model, sigmoid belief network (Neal 1992; Mnih, Rezende 2016), with ten objectives.

    `log_prob` is independent of the objective: exact if z has at most 4,096 states, else the bound L_k of hard draws
    from q, with k = ``samples`` of the call; `bound` is L_k for any number of states. The gradient of L_k is that at
    fixed draws. `encode` gives the probabilities of z_1: of the exact posterior if z has at most 4,096 states, else of
    q(z_1|x). In evaluation mode the loss is −L_k with hard draws (``enumerate``: −log p; ``variational``: the loss of
    training; ``prior``: with draws from the prior), k = ``samples``; for k = 1 it is ``reconstruction`` + ``kl``.
    ``active`` is the number of variables whose KL from the prior is above 0.01 nats.

    Args:
        event: any event; images for ``net="conv"``.
        layers: number of variables of each stochastic layer, from the one that generates x.
        categories: K, the number of values of a variable; 2 is binary.
        hidden: widths of the hidden layers of q(z_1|x), mirrored in p(x|z_1) (``()``: both linear, a sigmoid belief
            network); channels of stride-2 stages when ``net="conv"``. None: (256, 256), or (32, 64) for ``net="conv"``.
            The maps between stochastic layers are linear.
        net: dense layers, or 4×4 convolutions of stride 2 down and transposed ones up.
        decoder: p(x|z), as for `VAE`; it must not dequantise.
        activation: activation of the hidden layers.
        objective: how p and q learn: by sums over all states (``enumerate``; ``variational``: with the best factorised
            q), by draws from the prior (``prior``), by the score function without a baseline (``importance``), with a
            learned one (``nvil``) or with those of the other draws (``vimco``), by relaxed draws (``gumbel-softmax``,
            ``straight-through``), or by turns of p and q (``wake-sleep``, ``reweighted-wake-sleep``).
        samples: k of ``prior``, ``importance``, ``vimco`` and ``reweighted-wake-sleep``; the others use one draw. None:
            5, or 100 for ``prior``, whose draws are shared by all examples of a batch.
        proposal: a trained `latent` with the same variables, for ``importance``: its q(z|x) is used and does not learn.
        sweeps: passes of ``variational`` over the variables of q, for each example of a batch.
        wake_q: whether q of ``reweighted-wake-sleep`` learns from the weighted draws too, by the mean of both losses.
        temperature: τ of ``gumbel-softmax`` and ``straight-through`` at the start of the run.
        last_temperature: τ at the end of the run, geometric in between.

    Raises:
        InputError: ``enumerate`` or ``variational`` with more than 4,096 states, a decoder that does not fit, or
            options that do not fit the objective.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = Latent(Event((4,), Support("binary")), layers=(3,), hidden=(16,), objective="enumerate")
    >>> values = torch.cartesian_prod(*[torch.arange(2)] * 4)
    >>> round(model.log_prob(values).exp().sum().item(), 5)
    1.0
    """

    presets = {
        "tiny": {"layers": (4,), "hidden": (12,), "activation": "tanh"},
        # The two-layer sigmoid belief network 200-200-784 of NVIL and VIMCO.
        "paper": {"layers": (200, 200), "hidden": ()},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}
    takes_missing = True
    marginalises = True

    def __init__(
        self,
        event: Event,
        *,
        layers: Widths = (64,),
        categories: Annotated[int, AtLeast(2)] = 2,
        hidden: Widths | None = None,
        net: NetName = "dense",
        decoder: ObservationName = "auto",
        activation: ActivationName = "relu",
        objective: ObjectiveName = "vimco",
        samples: Count | None = None,
        proposal: Part | None = None,
        sweeps: Count = 5,
        wake_q: bool = True,
        temperature: Positive = 1.0,
        last_temperature: Positive = 0.5,
    ) -> None:
        self.units = [Units(count, categories) for count in layers]
        self.objective, self.samples, self.wake_q = objective, samples or _SAMPLES.get(objective, 1), wake_q
        self.sweeps = sweeps
        self.temperature, self.last_temperature = temperature, last_temperature
        _check(layers, categories, objective, samples)
        if objective not in _RELAXED:
            relaxed = {"temperature": temperature, "last_temperature": last_temperature}
            refuse_unused(Latent, relaxed, needs=f"objective={' or '.join(map(repr, _RELAXED))}", got=objective)
        if objective != "variational":
            refuse_unused(Latent, {"sweeps": sweeps}, needs="objective='variational'", got=objective)
        if objective != "reweighted-wake-sleep":
            refuse_unused(Latent, {"wake_q": wake_q}, needs="objective='reweighted-wake-sleep'", got=objective)
        self.proposal = None if proposal is None else self._built(proposal)
        widths = [units.width for units in self.units]
        learns_q = self._has_q and proposal is None
        self.nets = Autoencoder(
            event,
            code_size=widths[0],
            encoded_size=widths[0] if learns_q else 0,
            hidden=hidden,
            net=net,
            decoder=decoder,
            activation=activation,
            owner="Latent",
        )
        if self.nets.observation.is_noisy:
            raise InputError(
                f"Latent: decoder={decoder!r} adds noise to the levels of {event}; expected 'auto' or a decoder of "
                "probabilities"
            )
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Linear(above, below) for below, above in pairs)
        self.up = nn.ModuleList(nn.Linear(below, above) for below, above in pairs if learns_q)
        start_glorot(self.down, self.up)
        self.prior = nn.Parameter(torch.zeros(widths[-1]))
        below = (self.nets.seen_size, *(units.width for units in self.units[:-1])) if objective == "nvil" else ()
        self.baselines = nn.ModuleList(dense((width, _BASELINE_WIDTH, 1), "tanh") for width in below)

    def _built(self, proposal: Part) -> Latent:
        if self.objective != "importance":
            raise InputError(f"Latent: a proposal is for objective='importance'; this is {self.objective!r}")
        found = proposal.build(self.event)
        if not isinstance(found, Latent) or not found._has_q or found.units != self.units:
            raise InputError(
                f"Latent: proposal={proposal.name!r} must be a latent model with a network q(z|x) and the same "
                "layers and categories"
            )
        return found.requires_grad_(False)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """Few entries: 256 states, over which sums are exact."""
        if event.dims > 64:
            return Advice(turn=None)
        return Advice({"layers": (8,), "hidden": (64,), "objective": "enumerate"}, turn=None)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the marginals of the data, and baselines with the means of their signals."""
        self.nets.prepare(batch.x, None, generator=generator)
        if self.objective == "nvil":
            x = batch.x[:_BASELINE_EXAMPLES]
            _, signals, _ = self._nvil(x, self._draws(x, 1, generator))
            for net, signal in zip(self.baselines, signals, strict=True):
                *_, bias = net.parameters()
                bias.fill_(signal.mean())

    @property
    def _q(self) -> Latent:
        """The model with the networks of q(z|x)."""
        return self if self.proposal is None else self.proposal

    @property
    def _has_q(self) -> bool:
        return self.objective not in ("enumerate", "variational")

    @property
    def states(self) -> int:
        """The number of states of z."""
        return self.units[0].categories ** sum(units.count for units in self.units)

    @property
    def is_enumerable(self) -> bool:
        """Whether sums over z are exact."""
        return self.states <= _ENUMERABLE

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.is_enumerable else "bound"

    # --- the two networks -----------------------------------------------------------------------------------------

    def _prior_logits(self, z: list[Tensor]) -> list[Tensor]:
        """Logits of every layer under p: of layer l given the state of l + 1, and of p(z_L)."""
        dtype = self.prior.dtype
        below = [net(above.to(dtype)) for net, above in zip(self.down, z[1:], strict=True)]
        return [*below, self.prior.view(*(1,) * (z[-1].ndim - 1), -1)]

    def _posterior_logits(self, x: Tensor, z: list[Tensor]) -> list[Tensor]:
        """Logits of every layer under q, ``(·, B, width)``: of z_1 given x, and of layer l + 1 given the state of l."""
        above = [net(below.to(self.prior.dtype)) for net, below in zip(self._q.up, z, strict=False)]
        return [self._q.nets.encode(x)[None], *above]

    def _log_probs_of(self, z: list[Tensor], logits: list[Tensor]) -> Tensor:
        """Of every layer, ``(L, …)``."""
        parts = [units.log_prob(*pair) for units, *pair in zip(self.units, z, logits, strict=True)]
        return torch.stack(torch.broadcast_tensors(*parts))

    def _log_prob_of(self, z: list[Tensor], logits: list[Tensor]) -> Tensor:
        return self._log_probs_of(z, logits).sum(0)

    def _noise(self, n: int, k: int, generator: Generator | None) -> list[Tensor]:
        """Uniform numbers for every layer ``(k, n, count)``, drawn sample by sample."""
        counts = [units.count for units in self.units]
        like = at_least_float32(self.prior)
        drawn = [random.uniform((n, sum(counts)), generator, like=like) for _ in range(k)]
        return list(torch.stack(drawn).split(counts, -1))

    def _draws(self, x: Tensor, k: int, generator: Generator | None) -> Draws:
        """Hard draws of q(z|x)."""
        z: list[Tensor] = []
        q: list[Tensor] = []
        logits = self._q.nets.encode(x)[None]
        for layer, noise in enumerate(self._noise(len(x), k, generator)):
            if layer:
                logits = self._q.up[layer - 1](z[-1].to(self.prior.dtype))
            q.append(logits)
            z.append(self.units[layer].draw(logits, noise))
        p = self._prior_logits(z)
        log_likelihood = self.nets.log_likelihood(self.nets.target(x), z[0])
        return Draws(z, q, p, self._log_probs_of(z, q), self._log_probs_of(z, p), log_likelihood)

    def _log_weight(self, draws: Draws) -> Tensor:
        return draws.log_p - draws.log_q

    def _ancestral(self, noise: list[Tensor]) -> list[Tensor]:
        """z ~ p(z) at uniform numbers ``(n, count)`` of every layer."""
        z = [self.units[-1].draw(self.prior, noise[-1])]
        for units, net, own in zip(self.units[-2::-1], reversed(self.down), noise[-2::-1], strict=True):
            z.insert(0, units.draw(net(z[0].to(self.prior.dtype)), own))
        return z

    # --- sums over all states -------------------------------------------------------------------------------------

    def _states(self) -> list[Tensor]:
        """All states of z: of every layer ``(S, width)``, those of z_1 slowest."""
        counts = [units.count for units in self.units]
        every = Units(sum(counts), self.units[0].categories).states(self.prior)
        return list(every.split([units.width for units in self.units], -1))

    def _log_prior_of_all(self) -> Tensor:
        """log p(z) of all states of z, ``(S,)``."""
        z = self._states()
        return self._log_prob_of(z, self._prior_logits(z))

    def _log_prior_of_states(self) -> tuple[Tensor, Tensor]:
        """All states of z_1 ``(S_1, width)``, and log p(z_1), ``(S_1,)``."""
        first = self.units[0].states(self.prior)
        return first, self._log_prior_of_all().view(len(first), -1).logsumexp(1)

    def _log_joint_table(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z_1) of all states of z_1, ``(S_1, B)``, and these states."""
        states, log_prior = self._log_prior_of_states()
        return self._log_likelihood_table(x, states) + log_prior[:, None], states

    def _log_likelihood_table(self, x: Tensor, states: Tensor) -> Tensor:
        """log p(x | z_1) of states of z_1: ``(S_1, width)`` → ``(S_1, B)``."""
        target = self.nets.target(x)
        size = max(1, _TABLE_ELEMENTS // (max(1, len(x)) * self.nets.widest))
        chunks = states.split(size)
        if len(chunks) > 1 and torch.is_grad_enabled():
            parts = [
                checkpoint(self.nets.log_likelihood_table, target, z, use_reentrant=False, preserve_rng_state=False)
                for z in chunks
            ]
        else:
            parts = [self.nets.log_likelihood_table(target, z) for z in chunks]
        return torch.cat(parts)

    # --- the bound ------------------------------------------------------------------------------------------------

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        if self.is_enumerable:
            return self._log_joint_table(batch.x)[0].logsumexp(0)
        return self._bound(batch.x, samples, generator)

    def bound(self, x: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        """L_k of raw data with draws from q(z|x), k = ``samples``: ``(B, *event.shape)`` → ``(B,)`` nats.

        Raises:
            CapabilityError: ``enumerate`` and ``variational``, which have no network of q.
        """
        if not self._has_q:
            raise CapabilityError(
                f"this Latent has no network q(z|x), since objective={self.objective!r}; use log_prob, which is exact"
            )
        return self._bound(x, samples, generator)

    def _bound(self, x: Tensor, samples: int, generator: Generator | None) -> Tensor:
        """Draws are decoded in chunks; noise is drawn sample by sample, so that the chunks do not change the value."""
        chunk = max(1, _CHUNK_ELEMENTS // (max(1, len(x)) * self.nets.widest))
        sizes = [min(chunk, samples - start) for start in range(0, samples, chunk)]
        parts = [self._log_weight(self._draws(x, size, generator)).logsumexp(0) for size in sizes]
        return torch.stack(parts).logsumexp(0) - math.log(samples)

    # --- learning -------------------------------------------------------------------------------------------------

    def objectives(self) -> tuple[Objective, ...]:
        """One player; or one for p and one for q, which uses the batch and the draws of the first."""
        if self.objective not in _TWO_PLAYERS:
            return super().objectives()
        of_q = {id(p) for net in (self.nets.encoder, self.up) if net is not None for p in net.parameters()}
        q = tuple(p for p in self.parameters() if p.requires_grad and id(p) in of_q)
        p = tuple(p for p in self.parameters() if p.requires_grad and id(p) not in of_q)
        return (Objective("generative", self.loss, p), Objective("recognition", self.recognition_loss, q, joins=True))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss``, ``reconstruction`` and ``kl`` of each example in nats, and the number of ``active`` variables."""
        if self.objective == "enumerate":
            return self._exact_loss(batch.x)
        if self.objective == "variational":
            return self._variational_loss(batch.x)
        if self.objective == "prior":
            return self._prior_loss(batch, generator)
        if self.objective in _RELAXED and self.training:
            return self._relaxed_loss(batch.x, batch.time, generator)
        draws = self._draws(batch.x, self.samples, generator)
        beside: Terms = {}
        if self.objective == "importance":
            bound = estimators.reinforce(draws.log_p, draws.log_q)
        elif self.objective == "vimco":
            bound = estimators.vimco(draws.log_p, draws.log_q)
        elif self.objective == "nvil":
            bound, signals, baselines = self._nvil(batch.x, draws)
            error = (signals - baselines).square().mean(1).sum(0)
            bound = bound - (error - error.detach())
            beside = {"baseline_error": error.detach()}
        else:  # the wake phase; also the value of relaxed objectives in evaluation mode
            bound = estimators.wake(draws.log_p, draws.log_q)
            share = self._log_weight(draws).detach().softmax(0)
            batch.shared["latents"] = [z.detach() for z in draws.z], share
        with torch.no_grad():
            kl = (draws.log_q - draws.log_prior).mean(0)
            each = [units.kl_each(*pair) for units, *pair in zip(self.units, draws.q, draws.p, strict=True)]
            active = torch.stack([(kl > _ACTIVE).to(kl.dtype).sum(-1).mean(0) for kl in each]).sum(0)
            reconstruction = -draws.log_likelihood.mean(0)
        return {"loss": -bound, "reconstruction": reconstruction, "kl": kl, "active": active} | beside

    def _nvil(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """The bound ``(B,)``, and signals and baselines of every layer, ``(L, k, B)``."""
        log_p = torch.cat([draws.log_likelihood[None], draws.log_prior_each])
        below = [self.nets.seen(x), *(z.flatten(0, 1).to(self.prior.dtype) for z in draws.z[:-1])]
        found = [at_least_float32(net(seen)).view(-1, len(x)) for net, seen in zip(self.baselines, below, strict=True)]
        baselines = torch.stack(torch.broadcast_tensors(*found))
        return *estimators.nvil(log_p, draws.log_q_each, baselines), baselines

    def _exact_loss(self, x: Tensor) -> Terms:
        """−log p(x) = −E_{p(z|x)} log p(x|z) + KL(p(z|x) ‖ p(z))."""
        log_joint, states = self._log_joint_table(x)
        log_p = log_joint.logsumexp(0)
        with torch.no_grad():
            posterior = log_joint.softmax(0)
            _, log_prior = self._log_prior_of_states()
            reconstruction = -(posterior * (log_joint - log_prior[:, None])).sum(0)
            means = (posterior.T @ states, log_prior.exp() @ states)
            kl = self.units[0].kl_each(*(self.units[0].logits(mean) for mean in means))
            active = (kl > _ACTIVE).to(kl.dtype).sum(-1)
        return {
            "loss": -log_p,
            "reconstruction": reconstruction,
            "kl": -log_p.detach() - reconstruction,
            "active": active,
        }

    def _variational_loss(self, x: Tensor) -> Terms:
        """−E_q log p(x, z) − H(q) of the factorised q of each example, whose sweeps have no gradient."""
        log_prior = self._log_prior_of_all()
        of_states = self._log_likelihood_table(x, self.units[0].states(self.prior))  # (S_1, B)
        above = len(log_prior) // len(of_states)
        axes = (self.units[0].categories,) * sum(units.count for units in self.units)
        log_likelihood = of_states.repeat_interleave(above, 0).view(*axes, -1)
        table = log_likelihood + log_prior.view(*axes, 1)
        with torch.no_grad():
            p = mean_field.marginals(log_prior.exp().view(axes))[..., None]
            q = mean_field.coordinate_ascent(table, p.expand(-1, -1, len(x)), self.sweeps)
            reconstruction = -mean_field.expectation(log_likelihood, q)
            kl_each = (torch.special.xlogy(q, q) - torch.special.xlogy(q, p)).sum(1)
            active = (kl_each > _ACTIVE).to(q.dtype).sum(0)
        loss = -mean_field.elbo(table, q)
        return {
            "loss": loss,
            "reconstruction": reconstruction,
            "kl": loss.detach() - reconstruction,
            "active": active,
        }

    def _prior_loss(self, batch: Batch, generator: Generator | None) -> Terms:
        """log (1/k) Σ_i p(x|z_i), z_i ~ p(z), with the same draws for all examples, which are decoded once."""
        counts = [units.count for units in self.units]
        with alike(), torch.no_grad():
            noise = random.uniform((self.samples, sum(counts)), generator, like=at_least_float32(self.prior), axis=None)
            z = self._ancestral(list(noise.split(counts, -1)))
        log_prior = self._log_prob_of(z, self._prior_logits(z))[:, None]
        log_likelihood = self.nets.log_likelihood_table(self.nets.target(batch.x), z[0])
        share = log_likelihood.detach().softmax(0)
        batch.shared["latents"] = [one[:, None] for one in z], share
        bound = estimators.wake(log_likelihood + log_prior, log_prior.expand_as(log_likelihood))
        return {"loss": -bound, "reconstruction": -(share * log_likelihood).sum(0).detach()}

    def _relaxed_loss(self, x: Tensor, time: Time, generator: Generator | None) -> Terms:
        """The ELBO of one relaxed draw; straight-through: of its nearest state, with the gradient of the draw."""
        tau = self.temperature * (self.last_temperature / self.temperature) ** time.share
        widths = [units.width for units in self.units]
        noise = random.uniform((len(x), sum(widths)), generator, like=at_least_float32(self.prior)).split(widths, -1)
        z: list[Tensor] = []
        q: list[Tensor] = []
        logits = self.nets.encode(x)
        for layer, (units, own) in enumerate(zip(self.units, noise, strict=True)):
            if layer:
                logits = self.up[layer - 1](z[-1].to(self.prior.dtype))
            soft = units.relaxed(logits, own, tau)
            q.append(logits)
            z.append(soft if self.objective == "gumbel-softmax" else units.nearest(soft) + (soft - soft.detach()))
        p = self._prior_logits(z)
        reconstruction = -self.nets.log_likelihood(self.nets.target(x), z[0][None]).squeeze(0)
        means = [units.mean(own) for units, own in zip(self.units, q, strict=True)]
        # −H(q) − log p(z), the last layer in closed form.
        kl = self._log_prob_of(means, q) - self._log_prob_of([*z[:-1], means[-1]], p)
        with torch.no_grad():
            each = [units.kl_each(*pair) for units, *pair in zip(self.units, q, p, strict=True)]
            active = torch.stack([(own > _ACTIVE).to(own.dtype).sum(-1) for own in each]).sum(0)
        return {
            "loss": reconstruction + kl,
            "reconstruction": reconstruction.detach(),
            "kl": kl.detach(),
            "active": active,
        }

    def recognition_loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log q(z|x) of dreams (x, z) ~ p, the sleep phase, and −Σ_i w̃_i log q(z_i|x) of the draws of `loss`."""
        terms: Terms = {}
        if self.objective != "prior":
            z, x = self._dream(batch.x, generator)
            z = [one[None] for one in z]
            terms["sleep"] = -self._log_prob_of(z, self._posterior_logits(x, z)).squeeze(0)
        if self.objective == "prior" or (self.objective == "reweighted-wake-sleep" and self.wake_q):
            z, share = batch.shared["latents"]
            log_q = self._log_prob_of(z, self._posterior_logits(batch.x, z))
            terms["wake"] = -(share * log_q).sum(0)
        loss = torch.stack(list(terms.values())).mean(0)
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    @torch.no_grad()
    def _dream(self, x: Tensor, generator: Generator | None) -> tuple[list[Tensor], Tensor]:
        """(z, x) ~ p, as many as examples, with the gaps of the examples."""
        z = self._ancestral([own.squeeze(0) for own in self._noise(len(x), 1, generator)])
        dreamt = self.nets.draw(z[0], generator=generator)
        return z, torch.where(x.isnan(), torch.nan, dreamt) if self.event.missing else dreamt

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        active = next((value for name, value in terms.items() if name.split("/")[-1] == "active"), None)
        if active is None or active >= _FEWEST_ACTIVE:
            return None
        return Symptom(
            "collapse",
            f"the latent variables are hardly used: per example {active:.2g} of "
            f"{sum(units.count for units in self.units)} differ from the prior by more than {_ACTIVE} nats; try fewer "
            "hidden layers of the decoder, more samples, or another objective",
        )

    # --- interface ------------------------------------------------------------------------------------------------

    @property
    def code_size(self) -> int:
        return self.units[0].width

    def encode(self, x: Tensor) -> Tensor:
        """Probabilities of z_1 given raw data, of 1 or of every category: ``(B, *event.shape)`` → ``(B, width)``."""
        if not self.is_enumerable:
            return self.units[0].mean(self._q.nets.encode(x))
        self.event.check_shape(x)
        log_joint, states = self._log_joint_table(x)
        return log_joint.softmax(0).T @ states

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most typical value of every entry given z_1, which may be probabilities."""
        self.check_codes(z)
        return self.nets.typical(z)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Draws from p(x|z) with z ~ p(z)."""
        z = self._ancestral([own.squeeze(0) for own in self._noise(n, 1, generator)])
        return self.nets.draw(z[0], generator=generator)

    def reason_against_coding(self) -> str | None:
        if not self.is_enumerable or self.units[0].categories ** self.units[0].count > _CODED:
            return f"has too many states of z for a sum: more than {_ENUMERABLE:,}, or {_CODED:,} in the first layer"
        if not all(support.is_discrete for support in self.event.columns):
            return "has a decoder of densities, not of probabilities"
        return None

    def reason_against_bits_back(self) -> str | None:
        return None if self._has_q else f"has no network q(z|x), since objective={self.objective!r}"

    @property
    def choices(self) -> tuple[tuple[int, int], ...]:
        return tuple((units.count, units.categories) for units in self.units)

    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        return self.nets.log_masses(outputs, columns)

    @torch.no_grad()
    def code(self, batch: Batch, coder: ChoiceCoder) -> None:
        z = self._popped(0, self._q.nets.encode(batch.x), coder)
        coder.entries(self.nets.decode(z))
        for layer, (up, down) in enumerate(zip(self._q.up, self.down, strict=True), start=1):
            above = self._popped(layer, up(z), coder)
            coder.push(layer - 1, self.units[layer - 1].log_masses(down(above)))
            z = above
        coder.push(len(self.units) - 1, self.units[-1].log_masses(self.prior.expand(len(z), -1)))

    @torch.no_grad()
    def restore(self, n: int, coder: ChoiceCoder) -> None:
        z = self._popped(len(self.units) - 1, self.prior.expand(n, -1), coder)
        for layer in reversed(range(1, len(self.units))):
            below = self._popped(layer - 1, self.down[layer - 1](z), coder)
            coder.push(layer, self.units[layer].log_masses(self._q.up[layer - 1](below)))
            z = below
        x = coder.entries(self.nets.decode(z))
        coder.push(0, self.units[0].log_masses(self._q.nets.encode(x)))

    def _popped(self, layer: int, logits: Tensor, coder: ChoiceCoder) -> Tensor:
        """The state of a layer that the bits of a stack choose."""
        units = self.units[layer]
        return units.state(coder.pop(layer, units.log_masses(logits)), self.prior.dtype)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(x_d | x_<d) = Σ_s p(z_1 = s | x_<d) p(x_d | z_1 = s)."""
        states, log_prior = self._log_prior_of_states()
        outputs, log_joint = self.nets.decode(states), log_prior.expand(n, -1)
        for entry in in_steps(range(self.event.dims)):
            own = self.nets.log_masses(outputs, torch.tensor([entry], device=states.device))[:, 0]  # (S, levels)
            value = choose(entry, (log_joint.softmax(1) @ own.exp()).log())
            each = own[:, value.nan_to_num(0.0).long()].T
            log_joint = log_joint + each.masked_fill(value.isnan()[:, None], 0.0)


def _check(layers: Widths, categories: int, objective: str, samples: int | None) -> None:
    if not layers:
        raise InputError("Latent: layers=() has no latent variables; expected the number of each layer, e.g. (64,)")
    count = sum(layers)
    if objective in ("enumerate", "variational") and count * math.log(categories) > math.log(_ENUMERABLE) + 1e-9:
        raise InputError(
            f"Latent: objective={objective!r} sums over all states of z, at most {_ENUMERABLE:,}; layers={layers} with "
            f"categories={categories} have {categories}^{count}; use fewer, or objective='vimco'"
        )
    if samples not in (None, 1) and objective not in _SAMPLES:
        raise InputError(
            f"Latent: samples={samples} with objective={objective!r}, which uses one draw; objectives with several: "
            f"{', '.join(_SAMPLES)}"
        )
    if samples == 1 and objective == "vimco":
        raise InputError("Latent: objective='vimco' compares several draws; use samples of at least 2, or 'nvil'")
