"""Mixture of Bernoullis: p(x) = Σ_k π_k Π_d θ_kd^x_d (1 − θ_kd)^(1 − x_d), the latent class model of binary data.

EM (Juan, Vidal 2004, http://users.dsic.upv.es/~ajuan/research/2004/Juan04_08b.pdf; Bishop 2006, section 9.3.3), with a
prior Beta(1 + α, 1 + α) on every θ, alternates

    r_nk = π_k p(x_n | θ_k) / Σ_j π_j p(x_n | θ_j)
    N_k = Σ_n r_nk,  π_k = N_k / N,  θ_kd = (Σ_n r_nk x_nd + α) / (N_k + 2α)

and never lowers Σ_n log p(x_n) + log p(θ). With l = log θ / (1 − θ), log p(x | θ_k) = Σ_d x_d l_kd − log(1 + e^l_kd) is
one matrix product. Given its component an example's entries are independent, so that p(unknown | known) is a mixture
as well, whose weights are the responsibilities by the known entries alone. Missing entries are integrated out: N_k in
θ_kd is then the sum over the examples that have the entry d.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus

from unsup.core.batch import Batch
from unsup.core.config import Count, Weight
from unsup.core.event import Event
from unsup.core.model import Advice, CanDecode, ChooseEntry, CodesEntries, KnowsMarginals, Marginal
from unsup.core.random import bits
from unsup.core.steps import in_steps
from unsup.nn.counting import Mixture
from unsup.prob import distributions as dist

_CERTAIN = 36.0  # maximum log-odds: beyond it, 1 − θ is rounded to 0 in float64


class BernoulliMixture(Mixture, CanDecode, KnowsMarginals, CodesEntries):
    """Mixture of K products of Bernoullis (Juan, Vidal 2004); all operations are exact.

    `encode` gives the responsibilities p(k | x), `decode` the most probable value of every entry under the mixture
    with these weights, `complete` exact draws of the unknown entries given the known ones. The initialisation is
    k-means++ on the bits. In EM, a component that loses all its examples keeps its θ, with a negligible weight.

    Args:
        event: binary, of any shape.
        components: K.
        smoothing: α, the number of pseudo-observations of 1, and of 0, per entry and component; 0 is maximum
            likelihood, where an entry that is always 0 in a component has probability 0 there, up to 2e-16.
        learn: ``em``, or ``gradient``: gradient ascent on the likelihood alone.
        iterations: maximum number of EM passes.
        tolerance: EM stops when a pass increases the mean log-likelihood by less than this, in nats.
        restarts: number of initialisations, each with ten EM passes; the best one is used.

    Raises:
        InputError: fewer training examples than components.

    >>> from unsup import Event, Support
    >>> model = BernoulliMixture(Event((3,), Support("binary")), components=2)
    >>> values = torch.cartesian_prod(*[torch.arange(2)] * 3)
    >>> round(model.log_prob(values).exp().sum().item(), 6)
    1.0
    """

    # The papers do not fix the number; 500 is usual for binarised MNIST.
    presets = {"tiny": {"components": 3, "iterations": 20}, "paper": {"components": 500}}
    fit_defaults = {"lr": 1e-2}
    autocast = False
    takes_missing = True
    marginalises = True

    def __init__(
        self,
        event: Event,
        *,
        components: Count = 50,
        smoothing: Weight = 0.1,
        learn: Literal["em", "gradient"] = "em",
        iterations: Count = 100,
        tolerance: Weight = 1e-3,
        restarts: Count = 1,
    ) -> None:
        self.smoothing = smoothing
        self.take_passes(iterations if learn == "em" else 0, tolerance)
        self.take_components(components, restarts)
        self.log_odds = nn.Parameter(torch.randn(components, event.dims, dtype=torch.float64))  # l

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.uniform is not None and event.uniform.kind == "binary" else "takes binary data only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """One component per twenty examples, at most a hundred."""
        return Advice({"components": max(1, min(100, examples // 20))}, turn=None)

    @property
    def n_free(self) -> int:
        return self.parameter_count - 1

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        return self.log_joint(self.points(batch.x)[0]).logsumexp(1)

    # --- components -----------------------------------------------------------------------------------------------

    def log_components(self, y: Tensor) -> Tensor:
        if not self.event.missing:
            return y @ self.log_odds.T - softplus(self.log_odds).sum(1)
        gaps = y.isnan()
        return y.masked_fill(gaps, 0.0) @ self.log_odds.T - (~gaps).to(y.dtype) @ softplus(self.log_odds).T

    def embed(self, y: Tensor) -> Tensor:
        return y.nan_to_num(0.5) if self.event.missing else y

    def moments(self, y: Tensor, responsibility: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
        """``ones``: Σ_n r_nk x_nd, ``(K, D)``; ``seen``: Σ_n r_nk of the examples that have d, if some lack it."""
        if not self.event.missing:
            return {"ones": responsibility.T @ y}
        gaps = y.isnan()
        return {"ones": responsibility.T @ y.masked_fill(gaps, 0.0), "seen": responsibility.T @ (~gaps).to(y.dtype)}

    def maximize_components(self, sums: Mapping[str, Tensor], alive: Tensor) -> None:
        ones, seen = sums["ones"].clamp(min=0), sums.get("seen", sums["weight"][:, None])
        zeros = (seen - ones).clamp(min=0)
        log_odds = (ones + self.smoothing).log() - (zeros + self.smoothing).log()
        kept = ~alive[:, None] | (seen + self.smoothing <= 0)
        self.log_odds.copy_(torch.where(kept, self.log_odds, log_odds.clamp(-_CERTAIN, _CERTAIN)))

    def parameter_log_prior(self) -> Tensor:
        """α Σ log θ (1 − θ)."""
        return -self.smoothing * (softplus(self.log_odds) + softplus(-self.log_odds)).sum()

    def draw(self, component: Tensor, generator: Generator | None) -> Tensor:
        return self._raw(bits(self.log_odds[component].sigmoid(), generator))

    def _raw(self, y: Tensor) -> Tensor:
        return y.view(len(y), *self.event.shape).to(self.event.dtype)

    # --- verbs ----------------------------------------------------------------------------------------------------

    @property
    def code_size(self) -> int:
        return self.components

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable value of each entry under Σ_k z_k p(x_d | k): ``(B, K)`` → ``(B, *event.shape)``."""
        self.check_codes(z)
        weight = z.to(self.dtype)
        return self._raw(2 * weight @ self.log_odds.sigmoid() > weight.sum(1, keepdim=True))

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exact draws: k ~ p(k | known entries), then the unknown entries from θ_k.

        A known entry that is missing (NaN) stays so, and is integrated out.
        """
        component = dist.sample_categorical(self._log_joint_of_known(x, known), generator=generator)
        return self.kept(x, known, self.draw(component, generator))

    def _log_joint_of_known(self, x: Tensor, known: Tensor) -> Tensor:
        """log p(k, known entries), ``(B, K)``."""
        self.check_known(x, known)
        fixed = known.flatten(1) & ~x.flatten(1).isnan()
        y = torch.where(fixed, x.flatten(1).to(self.dtype), 0.0)
        return self.logits.log_softmax(0) + y @ self.log_odds.T - fixed.to(self.dtype) @ softplus(self.log_odds).T

    @torch.no_grad()
    def marginals(self, x: Tensor, known: Tensor) -> Iterator[tuple[int, Tensor, Marginal]]:
        """p(x_d | known entries) = Σ_k w_k p(x_d | k), with the weights w_k ∝ π_k p(known entries | k)."""
        weights = self._log_joint_of_known(x, known).softmax(1)
        for entry, rows in self.unknown_rows(known):
            one = weights[rows] @ self.log_odds[:, entry].sigmoid()
            yield entry, rows, torch.stack([1 - one, one], 1).clamp(min=0.0).log()

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        """p(x_d | x_<d) = Σ_k w_k p(x_d | k), with the weights w_k ∝ π_k p(x_<d | k)."""
        log_theta = -softplus(torch.stack([self.log_odds, -self.log_odds]))  # log p(0 | k), log p(1 | k): (2, K, D)
        log_joint = self.logits.log_softmax(0).expand(n, -1)
        for entry in in_steps(range(self.event.dims)):
            own = log_theta[:, :, entry]
            value = choose(entry, (log_joint.softmax(1) @ own.exp().T).log())
            log_joint = log_joint + own[value.nan_to_num(0.0).long()].masked_fill(value.isnan()[:, None], 0.0)
