"""Energy-based model trained by maximum likelihood with Langevin negatives.

p(x) = exp(−E(x)) / Z with E a network. The gradient of the log-likelihood is (Hinton 2002)

    ∇ E_data[log p] = −E_data[∇E] + E_p[∇E]

so that training lowers the energy of data and raises that of samples x⁻ of p, which Langevin dynamics draws
(Xie, Lu, Zhu, Wu 2016, https://arxiv.org/abs/1602.03264). The chains start from a replay buffer of former samples,
5 % of them restarted (persistent chains; Du, Mordatch 2019, https://arxiv.org/abs/1903.08689), from the data of the
batch (contrastive divergence) or from noise (short-run chains; Nijkamp, Hill, Zhu, Wu 2019,
https://arxiv.org/abs/1904.09770). The loss is

    L = E(x⁺) − E(x⁻) + α (E(x⁺)² + E(x⁻)²)

Its value is not a likelihood and stays near 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Share, Weight, Widths
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import NO_WORDS, Advice, CanSample, HasNegatives, HasScore, Model, Symptom, Terms
from unsup.core.parallel import gather_rows
from unsup.nn.energy import Activation, EnergyNet, frozen
from unsup.nn.front import in_precision_of
from unsup.prob.mcmc import langevin, langevin_acceptance, temperature_of

_IMAGES = {"hidden": (32, 64), "step_size": 1.0, "noise": 0.01, "clamp": 0.2, "regularizer": 0.01}
_REST = {"hidden": (128, 128, 128), "step_size": 0.002, "noise": None, "clamp": 0.0, "regularizer": 0.0}
_LARGE_GAP, _LARGE_ENERGY = 20.0, 1e4  # the gap of a well-trained model stays near 0


class EBM(Model, HasNegatives, HasScore, CanSample):
    """Energy-based model by maximum likelihood (Xie et al. 2016; Du, Mordatch 2019).

    Energies are of scaled data, see `unsup.nn.energy.EnergyNet`: real entries are standardised and have a Gaussian
    reference; discrete ones get uniform noise, are scaled to [0, 1], and are kept there by clamping in the chain.
    `energy` and `score` of discrete raw data are evaluated at the middle of the cell of a value.

    A chain is x ← x − step_size · ∇E + noise · ξ. It is at temperature T = noise² / (2 step_size): 1 by default on
    vectors and tables, where samples are those of exp(−E) up to the discretisation; 5e-5 with the defaults of images
    and 1.25e-6 with Du and Mordatch's (the preset ``paper``), which are short, noisy descents: there the model is a
    generator whose samples are not those of exp(−E), and the energy only ranks.

    The variance of an unadjusted chain of step s is at least 2 s. At temperature 1, a step above half the smallest
    variance of the scaled data (e.g. across a curve) makes training sharpen the energy without limit; ``acceptance``
    then decreases.

    The loss terms, with one negative per example, are ``energy_data`` = E(x⁺), ``energy_samples`` = E(x⁻), ``gap``
    = E(x⁻) − E(x⁺), ``regularizer``
    = E(x⁺)² + E(x⁻)² and ``acceptance``, the probability with which Metropolis would accept one more step of the chain
    at its own temperature, bounds aside. A gap that grows means that the chains do not reach where energy is low.

    `sample` continues chains of the replay buffer, or starts from noise without one, for ``sample_steps`` steps.

    Args:
        event: any event without categories of more than two values.
        hidden: widths of the dense layers (None: 128, 128, 128), or of the residual groups for images (None: 32, 64).
        blocks: residual blocks per group (images).
        activation: activation of the network.
        start: start of the chains: a replay ``buffer``, the ``data`` of the batch, or ``noise`` (the reference).
        buffer: number of chains in the replay buffer, stored as raw data.
        restart: fraction of the chains from the buffer that restart from noise.
        steps: steps of a chain per loss.
        step_size: s of the chain, on scaled data. None: 1 for images, else 0.002.
        noise: τ of the chain. None: 0.01 for images, else √(2 s), temperature 1.
        clamp: maximum entry of the gradient of a step, 0 for no limit. None: 0.2 for images, else 0.
        regularizer: α. None: 0.01 for images, else 0.
        sample_steps: steps of the chains of `sample`.

    Raises:
        InputError: sides too small for the groups; a batch larger than the buffer.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = EBM(Event((2,), Support("real")), hidden=(16,), buffer=64)
    >>> model.score(torch.zeros(1, 2)).shape
    torch.Size([1, 2])
    """

    presets = {
        "tiny": {"hidden": (16,), "buffer": 256, "steps": 5, "sample_steps": 5},
        # The larger unconditional network for CIFAR-10 and its chains.
        "paper": {
            "hidden": (128, 256, 512),
            "blocks": 3,
            "activation": "leaky-relu",
            "steps": 60,
            "step_size": 10.0,
            "noise": 0.005,
            "clamp": 0.01,
            "regularizer": 1.0,
        },
    }
    fit_defaults = {"lr": 3e-4, "betas": (0.0, 0.999), "batch_size": 128}
    autocast = False  # the loss is a difference of energies that nearly cancel

    replay: Tensor

    def __init__(
        self,
        event: Event,
        *,
        hidden: Widths | None = None,
        blocks: Count = 1,
        activation: Activation = "swish",
        start: Literal["buffer", "data", "noise"] = "buffer",
        buffer: Count = 10_000,
        restart: Share = 0.05,
        steps: Count = 40,
        step_size: Positive | None = None,
        noise: Positive | None = None,
        clamp: Weight | None = None,
        regularizer: Weight | None = None,
        sample_steps: Count = 200,
    ) -> None:
        given = {
            "hidden": hidden,
            "step_size": step_size,
            "noise": noise,
            "clamp": clamp,
            "regularizer": regularizer,
        }
        defaults = _IMAGES if event.is_image else _REST
        chosen: dict[str, Any] = {k: defaults[k] if v is None else v for k, v in given.items()}
        if chosen["noise"] is None:
            chosen["noise"] = (2 * chosen["step_size"]) ** 0.5
        self.start, self.restart, self.steps, self.sample_steps = start, restart, steps, sample_steps
        self.step_size, self.noise = chosen["step_size"], chosen["noise"]
        self.clamp, self.regularizer = chosen["clamp"], chosen["regularizer"]
        self.net = EnergyNet(event, hidden=chosen["hidden"], blocks=blocks, activation=activation, bounded=True)
        if start == "buffer":
            self.register_buffer("replay", self._kept(self.net.start(buffer)))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        kept = self._buffers.get("replay")
        super()._apply(fn, recurse)
        if kept is not None and kept.is_floating_point():
            self.replay = in_precision_of(self.event, kept, self.replay)
        return self

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return NO_WORDS if event.has_words else None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @property
    def temperature(self) -> float:
        """T of the chains, noise² / (2 step_size)."""
        return temperature_of(self.step_size, self.noise)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Standardise real entries by the data and fill the replay buffer with noise on their scale."""
        self.net.prepare(batch.x, generator=generator)
        if self.start == "buffer":
            self.replay.copy_(self._kept(self.net.start(len(self.replay), generator=generator)))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The terms described above, per example. In training mode, the ends of the chains are stored in the buffer."""
        positive = self.net.scale(batch.x, generator=generator)
        with torch.no_grad(), frozen(self.net):
            negative, rows = self._negatives(positive, generator)
            chain = {"step": self.step_size, "noise": self.noise, "clamp": self.clamp}
            acceptance = langevin_acceptance(self.net, negative, **chain, generator=generator)
        if rows is not None and self.training:
            self.replay[gather_rows(rows)] = gather_rows(self._kept(negative)).to(self.replay.dtype)
        energies = self.net(torch.cat([positive, negative]))  # one batch: one step of the spectral norms
        data, samples = energies.split(len(positive))
        regularizer, gap = data.square() + samples.square(), samples - data
        return {
            "loss": self.regularizer * regularizer - gap,
            "energy_data": data.detach(),
            "energy_samples": samples.detach(),
            "gap": gap.detach(),
            "regularizer": regularizer.detach(),
            "acceptance": acceptance,
        }

    @torch.no_grad()
    def contrast(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Scaled examples and the ends of their chains, twice ``(B, *event.shape)``; the buffer is not changed."""
        positive = self.net.scale(batch.x, generator=generator)
        return positive, self._negatives(positive, generator)[0]

    def point_energy(self, points: Tensor) -> Tensor:
        """The energy of scaled data."""
        energy: Tensor = self.net(points)
        return energy

    @torch.no_grad()
    def _negatives(self, positive: Tensor, generator: Generator | None) -> tuple[Tensor, Tensor | None]:
        """x⁻ after ``steps`` steps from the start of the chains, and the indices of the chains in the buffer."""
        rows = None
        if self.start == "data":
            y = positive
        else:
            y = self.net.start(len(positive), generator=generator).to(positive.dtype)
        if self.start == "buffer":
            rows = self._rows(len(positive), generator)
            old = self.net.scale(self.replay[rows], generator=generator)
            fresh = random.uniform((len(y),), generator, like=y) < self.restart
            y = torch.where(fresh.view(-1, *(1,) * (y.ndim - 1)), y, old)
        return self._chain(y, self.steps, generator), rows

    def _rows(self, n: int, generator: Generator | None) -> Tensor:
        """The chain of the buffer that each example continues, without repeats: ``(n,)``."""
        whole = random.whole_count(n)
        if whole > len(self.replay):
            raise InputError(
                f"a batch of {whole} needs more chains than the replay buffer's {len(self.replay)}; set buffer to at "
                "least the batch size"
            )
        return random.distinct(len(self.replay), n, generator, like=self.replay)

    def _chain(
        self,
        y: Tensor,
        steps: int,
        generator: Generator | None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        held = self.net.any_held
        with frozen(self.net):
            return langevin(
                self.net,
                y,
                steps=steps,
                step=self.step_size,
                noise=self.noise,
                clamp=self.clamp,
                low=self.net.low if held else None,
                high=self.net.high if held else None,
                generator=generator,
                on_step=on_step,
            )

    def _kept(self, y: Tensor) -> Tensor:
        """y in the form of the buffer: raw data, with discrete values as such (their noise is drawn again)."""
        return self.net.unscale(y)

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
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """The ends of chains from the replay buffer or from noise; see the class.

        Args:
            steps: steps of the chains; None: ``sample_steps``.
            on_step: called after each step with the number of steps and the states of the chains as raw data.
        """
        if self.start == "buffer":
            order = random.permutation(len(self.replay), generator, like=self.replay)
            rows = order[torch.arange(n, device=self.device) % len(order)]
            y = self.net.scale(self.replay[rows], generator=generator)
        else:
            y = self.net.start(n, generator=generator)
        watch = None if on_step is None else lambda step, y: on_step(step, self.net.unscale(y))
        return self.net.unscale(self._chain(y, steps or self.sample_steps, generator, watch))

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        gap, energies = terms["gap"], (terms["energy_data"], terms["energy_samples"])
        if max(abs(e) for e in energies) > _LARGE_ENERGY:
            return Symptom(
                "exploding-energies",
                f"energies are {energies[0]:.3g} on data and {energies[1]:.3g} on samples; try a smaller --lr or "
                f"--step-size (now {self.step_size:g}), a larger --regularizer (now {self.regularizer:g}), or --clip 1",
            )
        if abs(gap) > _LARGE_GAP:
            cause = (
                "the chains do not reach low energy"
                if gap > 0
                else "the chains found lower energies than those of the data"
            )
            return Symptom(
                "energy-gap",
                f"samples have {gap:.3g} more energy than the data (acceptance {terms['acceptance']:.2f}): {cause}; "
                f"try more --steps (now {self.steps}), another --step-size (now {self.step_size:g}), a larger "
                f"--regularizer (now {self.regularizer:g}), or a smaller --lr",
            )
        return None
