"""Mixtures of logistics, and heads whose network outputs are per pixel.

How a model uses a head of pixels: it makes one with `pixel_head(event, name, components)` and passes it to
`RasterModel.take` or `SequenceModel.take` as ``head``. Then

- its last layer returns ``head.outputs`` features for each *pixel* (for `RasterModel`, maps ``(B, outputs, H, W)``; for
  `SequenceModel`, ``(B, pixels, outputs)``, where a site is a pixel and ``frame`` is the number of channels);
- its first layer is strict for whole pixels; groups of channels do not exist (``groups=1``);
- ``observation`` is that of one channel given the earlier ones. The conditionals of the channels are expanded from the
  outputs of a pixel and the true levels of its earlier channels, in a full pass by `PixelHead.expand`, in a walk, which
  evaluates the network once per pixel, by `PixelHead.at`;
- the loss is `PixelHead.joint_log_prob`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid

from unsup.core import random
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.inputs import interpolated
from unsup.nn.observation import LOWEST_LOG_SCALE, Discrete, mixture_parts, symbols_for
from unsup.prob import distributions as dist
from unsup.prob.logistics import logistic_mixture_log_masses, logistic_mixture_log_prob

_MOST_LISTED = 256  # levels whose masses are computed for a draw
_MOST_SEEN = 2**20  # entries from which the start is computed


class MixtureOfLogistics(Discrete):
    """A mixture of logistics rounded to the levels, with (logits, means, log-scales) of every component as outputs.

    The levels have range [−1, 1]; see `unsup.prob.logistics`. Log-scales are at least −7 as in the paper, with more
    than 256 levels at least log(2 / L) − 2: one level can then have a mass of 0.95.

    Args:
        event: ordinal entries.
        components: number of logistics of each entry.
    """

    def __init__(self, event: Event, components: int) -> None:
        super().__init__(event)
        self.components, self.outputs_each = components, 3 * components
        self.lowest = min(LOWEST_LOG_SCALE, math.log(2 / self.levels) - 2)

    def parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log-scales of the components: ``(…, 3 K)`` → ``(…, K)`` each."""
        return mixture_parts(outputs, self.lowest)

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        return logistic_mixture_log_prob(target, *self.parts(outputs), self.levels)

    def log_masses(self, outputs: Tensor) -> Tensor:
        return logistic_mixture_log_masses(*self.parts(outputs), self.levels)

    def typical(self, outputs: Tensor) -> Tensor:
        """The level of highest probability."""
        return self.log_masses(outputs).argmax(-1)

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        if self.levels <= _MOST_LISTED or temperature != 1:
            return dist.sample_categorical(self.log_masses(outputs), generator=generator, temperature=temperature)
        logits, mean, log_scale = self.parts(outputs)
        chosen = dist.sample_categorical(logits, generator=generator).unsqueeze(-1)
        mean, log_scale = (t.gather(-1, chosen).squeeze(-1) for t in (mean, log_scale))
        v = mean + log_scale.exp() * random.uniform(mean.shape, generator, like=mean).logit()
        return ((v + 1) / 2 * self.levels).floor().clamp(0, self.levels - 1).long()

    def start(self, x: Tensor) -> Tensor:
        """Outputs ``(3 K,)`` of the mixture that is closest to the entries of raw data of any shape; see `marginal`."""
        return self.marginal(x.reshape(-1, 1)[:_MOST_SEEN])[0]

    def marginal(self, cells: Tensor) -> Tensor:
        """Means are quantiles of the column, and scales are those of a logistic with 1 / K of its deviation."""
        v = (2 * self.target(cells).float() + 1) / self.levels - 1
        shares = (torch.arange(self.components, dtype=v.dtype, device=v.device) + 0.5) / self.components
        means = v.quantile(shares, 0).T  # (M, K)
        spread = (v.std(0, correction=0) / self.components).clamp(min=1 / self.levels)
        log_scale = (spread * math.sqrt(3) / math.pi).log()[:, None].expand_as(means)
        return torch.cat([torch.zeros_like(means), means, log_scale], -1).to(self.like.dtype)


@torch.no_grad()
def start_at(layer: nn.Module, outputs: Tensor) -> None:
    """Set a linear layer, or the last one of a module, such that it returns these outputs for any input."""
    *_, last = layer.modules()
    assert isinstance(last, nn.Linear)
    last.weight.zero_()
    last.bias.copy_(outputs)


class PixelHead(ABC):
    """The joint distribution of the channels of a pixel, from the outputs of a network for the pixel.

    Attributes:
        observation: p(channel | earlier channels), from the parameters that `expand` returns.
        channels: number of channels of a pixel, C.
        outputs: number of network outputs of a pixel.
    """

    observation: Discrete
    channels: int
    outputs: int

    @abstractmethod
    def conditionals(self, found: Tensor, levels: Sequence[Tensor], count: int) -> list[Tensor]:
        """Parameters of the first channels given the earlier ones.

        Args:
            found: network outputs ``(…, outputs)``.
            levels: the level of each of the first ``count − 1`` channels or more, ``(…)``; possibly between levels.
            count: number of channels.

        Returns:
            ``count`` tensors ``(…, observation.outputs_each)``.
        """

    def expand(self, found: Tensor, levels: Tensor) -> Tensor:
        """Parameters of all channels given the earlier ones of the pixel.

        Args:
            found: network outputs of all pixels, ``(B, N, outputs)``.
            levels: levels of their channels, counted from 0, ``(B, N, C)``; possibly between levels.

        Returns:
            ``(B, N, C, observation.outputs_each)``.
        """
        return torch.stack(self.conditionals(found, levels.unbind(-1), self.channels), -2)

    def at(self, found: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Parameters of the channel after the ``earlier`` ones: ``(B, outputs)``, levels ``(B,)`` each."""
        return self.conditionals(found, earlier, len(earlier) + 1)[-1]

    def joint_log_prob(self, found: Tensor, levels: Tensor) -> Tensor:
        """log p of all pixels of an example: ``(B, N, outputs)``, ``(B, N, C)`` → ``(B,)``."""
        return self.observation.total_log_prob(levels.flatten(1), self.expand(found, levels).flatten(1, 2))


class CoupledLogistics(PixelHead):
    """Mixture of K logistics over the channels of a pixel, whose means are linear in earlier channels.

    p(r, g, b) = Σ_k π_k P(r; μ_r, s_r) P(g; μ_g + α r, s_g) P(b; μ_b + β r + γ g, s_b)      (of component k each)

    (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 3), with α, β, γ bounded by tanh, and r, g the centres
    of the true levels on the scale of the means, [−1, 1]. Given r, the weights of g's mixture are π_k P(r; μ_r, s_r),
    normalised; therefore every conditional is a mixture of logistics. Outputs: K logits, C K means, C K log-scales,
    C (C − 1) / 2 · K coefficients (10 K for three channels).

    Args:
        event: images ``(C, H, W)`` of ordinal entries.
        components: K.
    """

    observation: MixtureOfLogistics

    def __init__(self, event: Event, components: int) -> None:
        self.observation = MixtureOfLogistics(event, components)
        self.levels, self.components, self.channels = self.observation.levels, components, event.shape[0]
        self.outputs = components * (1 + 2 * self.channels + self.channels * (self.channels - 1) // 2)

    def start(self, x: Tensor) -> Tensor:
        """Outputs ``(outputs,)`` of mixtures for the channels of images ``(N, C, H, W)``.

        All components have the deviation of their channel: narrower ones fit only channels that move together.
        """
        each = torch.stack([self.observation.start(x[:, c]) for c in range(self.channels)])
        logits, means, log_scales = each.unflatten(1, (3, -1)).unbind(1)  # (C, K) each
        found = torch.cat([logits[0], means.flatten(), (log_scales + math.log(self.components)).flatten()])
        return torch.cat([found, found.new_zeros(self.outputs - len(found))])

    def _parts(self, found: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits ``(…, K)``, means and log-scales ``(…, C, K)``, coefficients ``(…, pairs, K)``."""
        found = dist.at_least_float32(found).unflatten(-1, (-1, self.components))
        c = self.channels
        logits, means, log_scales, coefficients = found.split([1, c, c, found.shape[-2] - 1 - 2 * c], -2)
        return logits.squeeze(-2), means, log_scales, coefficients.tanh()

    def _mean(self, means: Tensor, coefficients: Tensor, levels: Sequence[Tensor], channel: int) -> Tensor:
        """The means of a channel given the earlier ones, ``(…, K)``."""
        mean, first = means[..., channel, :], channel * (channel - 1) // 2
        for earlier in range(channel):
            centre = (2 * levels[earlier].to(mean.dtype) + 1) / self.levels - 1
            mean = mean + coefficients[..., first + earlier, :] * centre.unsqueeze(-1)
        return mean

    def conditionals(self, found: Tensor, levels: Sequence[Tensor], count: int) -> list[Tensor]:
        logits, means, log_scales, coefficients = self._parts(found)
        made: list[Tensor] = []
        for channel in range(count):
            mean, log_scale = self._mean(means, coefficients, levels, channel), log_scales[..., channel, :]
            made.append(torch.cat([logits, mean, log_scale], -1))
            if channel + 1 < count:
                x = levels[channel].unsqueeze(-1)
                logits = (logits + self._component(x, mean, log_scale)).log_softmax(-1)
        return made

    def _component(self, x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        *_, log_scale = self.observation.parts(torch.cat([mean, mean, log_scale], -1))
        return dist.discretized_logistic_log_prob(x, mean, log_scale, self.levels)

    def joint_log_prob(self, found: Tensor, levels: Tensor) -> Tensor:
        logits, means, log_scales, coefficients = self._parts(found)
        each = levels.unbind(-1)
        shifted = torch.stack([self._mean(means, coefficients, each, c) for c in range(self.channels)], -2)
        component = self._component(levels.unsqueeze(-1), shifted, log_scales).sum(-2)
        return torch.logsumexp(logits.log_softmax(-1) + component, -1).sum(-1)


class PixelMixture(Discrete):
    """The observation of images whose channels are `CoupledLogistics`: outputs are per pixel, ``(…, H W, outputs)``.

    Entries are independent between pixels only, so that masses of a single entry are not known.

    Args:
        event: images of ordinal entries.
        components: K.

    Attributes:
        outputs: number of outputs of a pixel.
    """

    def __init__(self, event: Event, components: int) -> None:
        super().__init__(event)
        self.head = CoupledLogistics(event, components)
        self.entries = self.head.observation
        self.channels, self.outputs = event.shape[0], self.head.outputs

    def _by_pixel(self, target: Tensor) -> Tensor:
        """Targets ``(…, D)`` → ``(…, H W, C)``."""
        return target.unflatten(-1, (self.channels, -1)).transpose(-1, -2)

    def _flat(self, levels: Tensor) -> Tensor:
        return levels.transpose(-1, -2).flatten(-2)

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        levels = self._by_pixel(target)
        levels = levels.expand(*outputs.shape[:-1], levels.shape[-1])
        return self._flat(self.entries.log_prob(levels, self.head.expand(outputs, levels)))

    def total_log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        return self.head.joint_log_prob(outputs, self._by_pixel(target))

    def typical(self, outputs: Tensor) -> Tensor:
        """Channel by channel, the level of highest probability given those before."""
        levels: list[Tensor] = []
        for _ in range(self.channels):
            levels.append(self.entries.typical(self.head.at(outputs, levels)))
        return self._flat(torch.stack(levels, -1))

    def draw(self, outputs: Tensor, generator: Generator | None, *, temperature: float = 1.0) -> Tensor:
        levels: list[Tensor] = []
        for _ in range(self.channels):
            own = self.head.at(outputs, levels)
            levels.append(self.entries.draw(own, generator, temperature=temperature).long())
        return self._flat(torch.stack(levels, -1))

    def marginal(self, cells: Tensor) -> Tensor:
        """The outputs of a pixel for cells ``(N, C)``, ``(outputs,)``."""
        return self.head.start(cells[:, :, None, None])


class CoupledSymbols(PixelHead):
    """Mixture of K products of Bernoullis or softmaxes over the channels of a pixel, for symbols without an order.

    p(x_1 … x_C) = Σ_k π_k ∏_c p_k(x_c); given earlier channels, the weights are π_k ∏ p_k(x_j), normalised. With one
    channel it is a single Bernoulli or softmax. Outputs: K logits, then C K times those of a Bernoulli or softmax.

    Args:
        event: images ``(C, H, W)`` of discrete entries.
        components: K.
    """

    def __init__(self, event: Event, components: int) -> None:
        self.observation = symbols_for(event)
        self.levels, self.channels = self.observation.levels, event.shape[0]
        self.components = components if self.channels > 1 else 1
        each = self.channels * self.components * self.observation.outputs_each
        self.outputs = each + self.components if self.channels > 1 else each

    def conditionals(self, found: Tensor, levels: Sequence[Tensor], count: int) -> list[Tensor]:
        if self.channels == 1:
            return [found]
        found = dist.at_least_float32(found)
        log_weights, each = found[..., : self.components].log_softmax(-1), found[..., self.components :]
        each = each.unflatten(-1, (self.channels, self.components, -1))
        made: list[Tensor] = []
        for channel in range(count):
            log_p = self._log_masses(each[..., channel, :, :])  # (…, K, levels)
            mixed = torch.logsumexp(log_weights.unsqueeze(-1) + log_p, -2)
            made.append(mixed[..., 1:] - mixed[..., :1] if self.levels == 2 else mixed)
            if channel + 1 < count:
                x = interpolated(levels[channel].to(found.dtype), self.levels).unsqueeze(-2)
                log_weights = (log_weights + (x * log_p).sum(-1)).log_softmax(-1)
        return made

    def _log_masses(self, outputs: Tensor) -> Tensor:
        if self.levels == 2:
            return torch.cat([logsigmoid(-outputs), logsigmoid(outputs)], -1)
        return outputs.log_softmax(-1)


HeadName = Literal["auto", "logistic", "softmax"]


def pixel_head(event: Event, name: HeadName = "auto", components: int = 10) -> PixelHead:
    """The head ``name`` for discrete images.

    Args:
        event: images ``(C, H, W)``.
        name: ``logistic`` for ordinal levels; ``softmax`` (with two levels Bernoulli) for any. ``auto`` is ``logistic``
            for more than two ordinal levels, else ``softmax``.
        components: number of components of the mixture.

    Raises:
        InputError: ``logistic`` for levels without an order, or for two levels.
    """
    assert event.uniform is not None
    ordinal = event.uniform.kind == "ordinal" and event.uniform.levels > 2
    if name == "logistic" and not ordinal:
        raise InputError(f"head='logistic' does not fit {event}; it takes more than two ordered levels; use 'softmax'")
    if name == "logistic" or (name == "auto" and ordinal):
        return CoupledLogistics(event, components)
    return CoupledSymbols(event, components)
