"""Score matching: an energy network is fitted by its gradient, without Z and without sampling.

With s(x) = −∇E(x), the objective is the Fisher divergence ½ E_data‖s(x) − ∇ log p_data(x)‖² up to a constant, in one
of three forms (`unsup.prob.score_matching`):

- ``exact``: J = E[½ ‖s‖² + tr ∇s] (Hyvärinen 2005, https://jmlr.org/papers/v6/hyvarinen05a.html);
- ``sliced``: E[½ ‖s‖² + vᵀ∇s v] over random signs v (Song, Garg, Shi, Ermon 2019, https://arxiv.org/abs/1905.07088);
- ``denoising``: ½ E‖s(x + σε) + ε/σ‖² (Vincent 2011, https://doi.org/10.1162/NECO_a_00142), which fits the density of
  the data with noise of deviation σ added, not that of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Widths
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import NO_WORDS, Advice, CanSample, HasEnergy, HasScore, Model, Symptom, Terms
from unsup.nn.energy import EnergyNet, frozen
from unsup.prob.mcmc import langevin
from unsup.prob.score_matching import (
    denoising_score_matching,
    exact_score_matching,
    score_of,
    sliced_score_matching,
)

_MOST_EXACT_DIMS = 64
_STEP_SIZE = 0.002  # step size of chains without σ
_DEEP = -1e4  # J per dimension below which the energy has wells narrower than 1 % of the standard deviation of the data


class ScoreMatching(Model, HasEnergy, HasScore, CanSample):
    """Score matching of an energy network: exact, sliced or denoising (Hyvärinen 2005; Song et al. 2019; Vincent 2011).

    Energies are of standardised data, see `unsup.nn.energy.EnergyNet`. With ``denoising`` the model is of noisy data:
    its density is p ∗ N(0, σ²) with σ = ``sigma`` standard deviations of each entry, and samples are noisy by as much.
    Ordinal and binary entries have no score: ``denoising`` adds uniform noise within their cells before its own noise,
    and `energy` and `score` of raw data are evaluated at the middle of the cell; the other methods refuse such entries.

    `sample` runs unadjusted Langevin chains at temperature 1 from N(0, I) on standardised data:
    x ← x − step_size · ∇E + √(2 step_size) ξ. Chains settle within a mode, but move between modes that are far apart
    only by chance; the shares of such modes are then determined by the starts of the chains.

    The loss terms are ``norm`` = ½ ‖s‖² and ``trace`` for ``exact`` and ``sliced``; for ``denoising`` ``unexplained``,
    the loss as a share of that of a score of zero, D / (2σ²).

    Args:
        event: any event without categories of more than two values; real entries only for ``exact`` and ``sliced``.
        hidden: widths of the dense layers (None: 128, 128, 128), of the residual groups for images (None: 32, 64).
            All activations are swish, which has the required two derivatives.
        blocks: residual blocks in a group (images).
        method: ``exact``, with the trace of the Hessian; ``sliced``, with random directions in its place; or
            ``denoising``, of the data with Gaussian noise.
        sigma: σ of ``denoising``, in standard deviations of each entry of the data.
        slices: number of directions v per example for ``sliced``.
        steps: steps of the chains of `sample`.
        step_size: step of the chains of `sample`, on standardised data. None: σ²/4 for ``denoising``, else 0.002.

    Raises:
        InputError: ``exact`` above 64 dimensions; discrete entries with ``exact`` or ``sliced``.

    >>> from unsup import Event, Support
    >>> model = ScoreMatching(Event((2,), Support("real")), hidden=(16,), method="exact")
    >>> model.energy(torch.zeros(1, 2)).shape
    torch.Size([1])
    """

    presets = {
        "tiny": {"hidden": (16,), "steps": 5},
        # The papers do not fix the network: three layers of 128 are enough for 2-D densities.
        "paper": {"hidden": (128, 128, 128)},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 256}
    autocast = False  # derivatives of derivatives

    def __init__(
        self,
        event: Event,
        *,
        hidden: Widths | None = None,
        blocks: Count = 1,
        method: Literal["exact", "sliced", "denoising"] = "denoising",
        sigma: Positive = 0.1,
        slices: Count = 1,
        steps: Count = 500,
        step_size: Positive | None = None,
    ) -> None:
        _check(event, method)
        self.method, self.sigma, self.slices, self.steps = method, sigma, slices, steps
        smooth = sigma**2 / 4 if method == "denoising" else _STEP_SIZE
        self.step_size = smooth if step_size is None else step_size
        if hidden is None:
            hidden = (32, 64) if event.is_image else (128, 128, 128)
        self.net = EnergyNet(event, hidden=hidden, blocks=blocks, activation="swish", bounded=False)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return NO_WORDS if event.has_words else None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """Not for sequences, which a dense network would see as flattened entries."""
        return Advice(
            against=None if event.layout in ("vector", "image") else "supports vectors and images only", turn=2
        )

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Standardise every entry by the data."""
        self.net.prepare(batch.x, generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The terms described above, per example, on standardised data."""
        y = self.net.scale(batch.x, generator=generator).flatten(1)
        if self.method == "denoising":
            noise = random.normal(y.shape, generator, like=y)
            loss = denoising_score_matching(self._score, y, noise, self.sigma)
            return {"loss": loss, "unexplained": loss.detach() * (2 * self.sigma**2 / y.shape[1])}
        if self.method == "exact":
            norm, trace = exact_score_matching(self._score, y)
        else:
            signs = random.integers(0, 2, (self.slices, *y.shape), generator, like=y, axis=1)
            norm, trace = sliced_score_matching(self._score, y, 2 * signs.to(y.dtype) - 1)
        return {"loss": norm + trace, "norm": norm.detach(), "trace": trace.detach()}

    def _score(self, y: Tensor) -> Tensor:
        """−∇E of flattened standardised data ``(B, D)``, with a graph if gradients are enabled."""
        return score_of(lambda flat: self.net(flat.view(-1, *self.event.shape)), y, graph=torch.is_grad_enabled())

    def energy(self, x: Tensor) -> Tensor:
        """E(x) of raw data, at the middle of the cell of discrete values: ``(B, *event.shape)`` → ``(B,)``."""
        return self.net.energy(x)

    def score(self, x: Tensor) -> Tensor:
        """−∇E(x) per unit of raw data; of discrete data per level, at the middle of the cell."""
        return self.net.score(x)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        steps: Count | None = None,
        step_size: Positive | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The ends of Langevin chains from N(0, I), see the class; discrete entries are floored and clamped.

        Args:
            steps: steps of the chains; None: as in the model.
            step_size: s of the chains, on standardised data; None: as in the model.
            on_step: called after each step with the number of steps and the states of the chains as raw data.
        """
        y = self.net.start(n, generator=generator)
        steps, step_size = steps or self.steps, step_size or self.step_size
        watch = None if on_step is None else lambda step, y: on_step(step, self.net.unscale(y))
        with frozen(self.net):
            y = langevin(self.net, y, steps=steps, step=step_size, generator=generator, on_step=watch)
        return self.net.unscale(y)

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        if self.method == "denoising" or terms["loss"] / self.event.dims > _DEEP:
            return None
        return Symptom(
            "wells",
            f"the loss is {terms['loss']:.3g}: the energy has narrow wells at the data, which are on a "
            "lower-dimensional set or repeat values; try --method denoising, or a smaller --hidden",
        )


def _check(event: Event, method: str) -> None:
    if method != "denoising" and not event.is_real:
        raise InputError(
            f"method={method!r} needs derivatives of the density, which discrete entries do not have; this data is "
            f"{event}; use method='denoising', which adds noise to them"
        )
    if method == "exact" and event.dims > _MOST_EXACT_DIMS:
        raise InputError(
            f"method='exact' needs a backward pass per dimension, and this data has {event.dims}: more than "
            f"{_MOST_EXACT_DIMS}; use method='sliced'"
        )
