"""Layers of discrete latent variables: bits, or categories as one-hot vectors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softplus

from unsup.prob.distributions import at_least_float32


@dataclass(frozen=True)
class Units:
    """A layer of independent Bernoulli variables, or of independent categorical variables with K > 2 values.

    A state z has ``width`` numbers: a bit of each Bernoulli variable, whose logit is log p(1) / p(0); or a one-hot
    vector of each categorical variable, which has K logits. States are floating, so that networks take them.

    Args:
        count: number of variables.
        categories: K; 2 is Bernoulli.

    >>> units = Units(3)
    >>> logits = torch.tensor([0.0, 2.0, -2.0])
    >>> round(float(units.log_prob(units.states(logits), logits).exp().sum()), 6)
    1.0
    """

    count: int
    categories: int = 2

    @property
    def is_binary(self) -> bool:
        return self.categories == 2

    @property
    def width(self) -> int:
        return self.count if self.is_binary else self.count * self.categories

    def _split(self, values: Tensor) -> Tensor:
        """``(…, width)`` → ``(…, count, K)`` of categorical variables."""
        return values.unflatten(-1, (self.count, self.categories))

    def log_prob_each(self, z: Tensor, logits: Tensor) -> Tensor:
        """log p of every variable: ``(…, width)``, ``(…, width)`` → ``(…, count)``.

        It is linear in z, so that its value at probabilities of z is the mean over z.
        """
        logits = at_least_float32(logits)
        if self.is_binary:
            return z * logits - softplus(logits)
        return (self._split(z) * self._split(logits).log_softmax(-1)).sum(-1)

    def log_prob(self, z: Tensor, logits: Tensor) -> Tensor:
        """log p of the layer: ``(…, width)``, ``(…, width)`` → ``(…)``."""
        return self.log_prob_each(z, logits).sum(-1)

    def log_masses(self, logits: Tensor) -> Tensor:
        """log p of all K values of every variable: ``(…, width)`` → ``(…, count, K)``."""
        logits = at_least_float32(logits)
        if self.is_binary:
            return torch.stack([-softplus(logits), -softplus(-logits)], -1)
        return self._split(logits).log_softmax(-1)

    def mean(self, logits: Tensor) -> Tensor:
        """The probabilities of 1, or of every category: ``(…, width)``."""
        logits = at_least_float32(logits)
        return logits.sigmoid() if self.is_binary else self._split(logits).softmax(-1).flatten(-2)

    def logits(self, mean: Tensor) -> Tensor:
        """Logits of probabilities, which are limited to what the type can tell from 0 and 1: ``(…, width)``."""
        least = torch.finfo(mean.dtype).eps
        return mean.logit(least) if self.is_binary else mean.clamp(min=least).log()

    def kl_each(self, logits: Tensor, other: Tensor) -> Tensor:
        """KL of every variable from that with the logits ``other``, in nats: ``(…, width)`` → ``(…, count)``."""
        mean = self.mean(logits)
        return self.log_prob_each(mean, logits) - self.log_prob_each(mean, other)

    def draw(self, logits: Tensor, noise: Tensor) -> Tensor:
        """The state at uniform numbers, one per variable: ``(…, width)``, ``(…, count)`` → ``(…, width)``."""
        mean = self.mean(logits)
        if self.is_binary:
            return (noise < mean).to(mean.dtype)
        cumulative = self._split(mean).cumsum(-1)
        # Scaling by the last entry absorbs the rounding of the sum, so that no draw falls outside.
        place = (cumulative < noise.unsqueeze(-1) * cumulative[..., -1:]).sum(-1)
        return self._one_hot(place.clamp(max=self.categories - 1), mean.dtype)

    def relaxed(self, logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """A differentiable draw of the Concrete distribution at uniform numbers: all ``(…, width)``.

        softmax((log π + g) / τ) with Gumbel noise g (Jang, Gu, Poole 2017, https://arxiv.org/abs/1611.01144; Maddison,
        Mnih, Teh 2017, https://arxiv.org/abs/1611.00712), σ((l + logistic noise) / τ) of a bit.
        """
        logits = at_least_float32(logits)
        noise = noise.clamp(min=torch.finfo(noise.dtype).tiny)
        if self.is_binary:
            return ((logits + noise.logit()) / temperature).sigmoid()
        gumbel = -(-noise.log()).log()
        return (self._split(logits + gumbel) / temperature).softmax(-1).flatten(-2)

    def nearest(self, soft: Tensor) -> Tensor:
        """The state nearest to a relaxed draw, ``(…, width)``."""
        if self.is_binary:
            return (soft > 0.5).to(soft.dtype)
        return self._one_hot(self._split(soft).argmax(-1), soft.dtype)

    def states(self, like: Tensor) -> Tensor:
        """All K^count states, ``(S, width)``, in the type of ``like``."""
        places = torch.tensor(list(itertools.product(range(self.categories), repeat=self.count)), device=like.device)
        return self.state(places, at_least_float32(like).dtype)

    def state(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """The state with the given values from 0: ``(…, count)`` → ``(…, width)``."""
        return values.to(dtype) if self.is_binary else self._one_hot(values, dtype)

    def _one_hot(self, place: Tensor, dtype: torch.dtype) -> Tensor:
        return one_hot(place, self.categories).flatten(-2).to(dtype)
