"""A vector quantiser: a codebook that learns by gradients or by moving averages, whose dead codes are restarted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding

from unsup.core import random
from unsup.core.model import Symptom
from unsup.core.parallel import group
from unsup.core.random import rows_at_hand
from unsup.prob.distributions import at_least_float32
from unsup.prob.quantisation import nearest, perplexity, smoothed_counts, straight_through, sums_of_codes

CodebookName = Literal["moving", "gradient"]

SMOOTHING = 1e-5
"""ε of the Laplace smoothing of counts."""
DEAD = 0.02
"""A code is dead if its moving count is below this share of the mean of all codes: after 390 steps without use at
γ = 0.99, and much earlier at the start of a run."""
_TAKEN = 1e-3  # squared distance to the nearest code, as a share of the variance of vectors
MOST_ENCODED = 1024
"""Examples whose vectors start a codebook."""
RESTARTING = 0.5
"""The share of a run in which models restart dead codes; afterwards, codes keep their meaning for the prior."""
_FEW = 0.05  # share of the codes
_RESTARTED = 0.02  # share of the codes, in each step


@dataclass(frozen=True)
class Quantised:
    """The result of a quantiser for vectors ``(B, N, D)``.

    Attributes:
        codes: numbers of the nearest vectors of the codebook, ``(B, N)``.
        vectors: these vectors, whose gradient goes to the input, ``(B, N, D)``.
        codebook: Σ ‖sg[z] − e‖² of each example, ``(B,)``; it moves the codebook only.
        commitment: Σ ‖z − sg[e]‖² of each example, ``(B,)``; it moves the encoder only.
    """

    codes: Tensor
    vectors: Tensor
    codebook: Tensor
    commitment: Tensor


class VectorQuantiser(nn.Module):
    """Replaces vectors by the nearest of K vectors e_k, with a straight-through gradient.

    With ``moving``, the codebook is the moving average of the vectors z of each code, over training steps with counts
    n_k (van den Oord, Vinyals, Kavukcuoglu 2017, appendix A.1, https://arxiv.org/abs/1711.00937):

        N_k ← γ N_k + (1 − γ) n_k,    m_k ← γ m_k + (1 − γ) Σ z,    e_k = m_k / N'_k,

    where N' are the counts with Laplace smoothing. Otherwise it is a parameter with gradient. In both cases a code
    whose moving count falls below 0.02 of the mean is dead, and becomes a vector of the batch, drawn at random, unless
    another code is there already.

    In step t the averages use min(γ, (1 + t) / (10 + t)) for γ, so that their memory is short at first: a new encoder
    moves all its vectors away from where the codebook has started, to a few of its codes. With the paper's constant γ,
    the others are found dead only after hundreds of steps (docs/latent.md has figures).

    A pass in training mode only collects sums; the model calls `update` after the step. The sums are those of all
    processes and all parts of a batch.

    Args:
        size: K.
        dim: D.
        learn: ``moving`` or ``gradient``.
        decay: γ after the first steps.

    >>> quantiser = VectorQuantiser(4, 2)
    >>> found = quantiser(torch.zeros(3, 5, 2))
    >>> found.codes.shape, found.vectors.shape, found.commitment.shape
    (torch.Size([3, 5]), torch.Size([3, 5, 2]), torch.Size([3]))
    """

    later_state: ClassVar = {"steps": 1000.0}  # files without the number of steps were past the first ones

    steps: Tensor
    usage: Tensor
    sums: Tensor
    collected: Tensor
    restarted: Tensor

    def __init__(self, size: int, dim: int, *, learn: CodebookName = "moving", decay: float = 0.99) -> None:
        super().__init__()
        self.size, self.dim, self.learn, self.decay = size, dim, learn, decay
        self.codebook = nn.Parameter(torch.randn(size, dim) / dim**0.5, requires_grad=learn == "gradient")
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("usage", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, dim))
        self.register_buffer("restarted", torch.zeros(()))
        # Counts, sums and candidates of the current step; zero between steps.
        self.register_buffer("collected", torch.zeros(size, 1 + 2 * dim), persistent=False)

    @torch.no_grad()
    def prepare(self, z: Tensor, *, generator: Generator | None) -> None:
        """Start the codebook at vectors of training data ``(N, D)``, distinct ones if there are enough."""
        order = random.permutation(len(z), generator, like=z)
        self.codebook.copy_(z[order.repeat(-(-self.size // len(z)))[: self.size]])
        for state in (self.steps, self.usage, self.sums, self.restarted, self.collected):
            state.zero_()

    def nearest(self, z: Tensor) -> Tensor:
        """Codes of vectors ``(…, D)`` → ``(…)``, int64."""
        return nearest(at_least_float32(z).to(at_least_float32(self.codebook).dtype), at_least_float32(self.codebook))

    def lookup(self, codes: Tensor) -> Tensor:
        """Vectors of codes: ``(…)`` → ``(…, D)``."""
        return embedding(codes.long(), self.codebook)

    def forward(self, z: Tensor, *, weight: Tensor | None = None, generator: Generator | None = None) -> Quantised:
        """Quantise ``(B, N, D)``, in float32 or float64 independent of autocast.

        Args:
            z: outputs of an encoder.
            weight: weights of the examples in the moving averages, ``(B,)``; None for 1.
            generator: draws the vectors at which dead codes would be restarted.
        """
        with torch.autocast(z.device.type, enabled=False):
            z = at_least_float32(z)
            codes = self.nearest(z)
            vectors = self.lookup(codes)
            if self.training:
                self._collect(z.detach(), codes, weight, generator)
            return Quantised(
                codes,
                straight_through(z, vectors),
                (z.detach() - vectors).square().flatten(1).sum(1),
                (z - vectors.detach()).square().flatten(1).sum(1),
            )

    @torch.no_grad()
    def _collect(self, z: Tensor, codes: Tensor, weight: Tensor | None, generator: Generator | None) -> None:
        """Add the sums of the local rows, and those rows that are candidates of the whole batch."""
        rows, each = rows_at_hand(), z.shape[1]
        total, start = (len(z), 0) if rows is None else (rows.total, rows.start)
        chosen = random.integers(0, total * each, (self.size,), generator, like=z, axis=None) - start * each
        flat, shares = z.flatten(0, 1), None if weight is None else weight.repeat_interleave(each)
        candidates = z.new_zeros(self.size, self.dim)
        here = (chosen >= 0) & (chosen < len(flat))
        candidates[here] = flat[chosen[here]]
        found = torch.cat([sums_of_codes(flat, codes.flatten(), self.size, shares), candidates], 1)
        self.collected += group().add(found).to(self.collected.dtype)

    @torch.no_grad()
    def update(self, *, restart: bool = True) -> None:
        """Move the averages by the sums of the step, and restart dead codes. Without sums, nothing changes.

        Args:
            restart: whether dead codes are restarted. What a restarted code means is new to a prior.
        """
        counts, sums, candidates = self.collected.split([1, self.dim, self.dim], 1)
        counts = counts.squeeze(1)
        if not bool(counts.any()):
            return
        if not bool(self.usage.any()):  # before the first step, all codes count alike
            self.usage.fill_(float(counts.mean()))
            self.sums.copy_(self.codebook * self.usage[:, None])
        rate = 1 - ((1 + self.steps) / (10 + self.steps)).clamp(max=self.decay)
        self.usage.lerp_(counts, rate)
        self.sums.lerp_(sums, rate)
        self.steps += 1
        if self.learn == "moving":
            self.codebook.copy_(self.sums / smoothed_counts(self.usage, SMOOTHING)[:, None])
        mean = self.usage.mean()
        dead = (self.usage < DEAD * mean) & restart & self._is_free(candidates)
        dead &= ~self._is_repeated(candidates, dead)
        self.restarted.copy_(dead.sum())
        self.codebook.copy_(torch.where(dead[:, None], candidates, self.codebook))
        self.usage.copy_(torch.where(dead, mean, self.usage))
        self.sums.copy_(torch.where(dead[:, None], candidates * mean, self.sums))
        self.collected.zero_()

    def _is_free(self, z: Tensor) -> Tensor:
        """Whether no code is at a vector, ``(K, D)`` → ``(K,)``: of two at one place, either may be the nearest."""
        apart = (z - self.lookup(self.nearest(z))).square().sum(1)
        return apart > _TAKEN * z.var(0, correction=0).sum()

    def _is_repeated(self, z: Tensor, wanted: Tensor) -> Tensor:
        """Whether a vector is at an earlier one that is ``wanted``: ``(K, D)``, ``(K,)`` → ``(K,)``."""
        distances = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").square()
        same = (distances <= _TAKEN * z.var(0, correction=0).sum()) & wanted
        return same.tril(-1).any(1)

    @property
    def perplexity(self) -> Tensor:
        """exp of the entropy of the moving counts of codes, ``()``, from 1 to K."""
        return perplexity(self.usage)

    def diagnose(self, terms: Mapping[str, float], suffix: str = "") -> Symptom | None:
        """Detect few codes in use, or many that die, from the terms ``perplexity`` and ``restarted``, plus a suffix."""
        used, restarted = terms["perplexity" + suffix], terms["restarted" + suffix]
        if self.size >= 1 / _FEW and used < _FEW * self.size:
            return Symptom(
                "few codes",
                f"the codes in use have a perplexity of {used:.1f} of {self.size}, so most of the codebook is wasted; "
                "try a smaller codebook_size or code_dim, a smaller --lr, or more than one of codes per place",
            )
        if restarted > max(0.5, _RESTARTED * self.size):
            return Symptom(
                "dead codes",
                f"{restarted:.1f} of {self.size} codes are restarted in each step since almost no example uses them; "
                "try a smaller codebook_size, a larger --batch-size or a smaller --lr",
            )
        return None
