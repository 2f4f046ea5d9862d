"""Variational autoencoder, with the importance-weighted bound as objective and as evaluation.

A code z ~ N(0, I) makes x through a decoder p(x|z); an encoder q(z|x) = N(μ(x), diag σ²(x)) is fitted with it
(Kingma, Welling 2014, https://arxiv.org/abs/1312.6114; Rezende, Mohamed, Wierstra 2014,
https://arxiv.org/abs/1401.4082):

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)),        z = μ + σ ∘ ε,  ε ~ N(0, I)

With β ≠ 1 the KL term is multiplied by β in the loss (Higgins et al. 2017). With k samples the bound is IWAE's (Burda,
Grosse, Salakhutdinov 2016, https://arxiv.org/abs/1509.00519), which rises with k to log p(x):

    L_k = E log (1/k) Σ_i w_i,        w_i = p(x, z_i) / q(z_i|x)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import one_hot, softplus

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import CanDecode, CanSample, HasDensity, Model, Terms
from unsup.nn.front import ContinuousFront
from unsup.prob import distributions as dist

_DECODERS = {  # by the event's support; the first is "auto"
    "binary": ("bernoulli",),
    "nominal": ("categorical",),
    "ordinal": ("logistic", "categorical", "gaussian"),
    "real": ("gaussian",),
}
_LOWEST_LOG_SCALE = -7.0  # of decoders with a scale: a constant column must not make the density infinite
_LARGEST_LOG_VARIANCE = 20.0  # of the encoder, either sign: keeps outliers finite, far from where training goes
_CHUNK_ELEMENTS = 2**20  # numbers in the decoder's widest layer: 4 MiB of float32, the fastest where caches are small


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) ‖ N(0, I)) = ½ Σ (μ² + σ² − 1 − log σ²), summed over the last axis."""
    return 0.5 * (mean**2 + log_variance.expm1() - log_variance).sum(-1)


def log_prior_over_posterior(z: Tensor, noise: Tensor, log_variance: Tensor) -> Tensor:
    """log p(z) − log q(z|x) at z = μ + σ ∘ noise, summed over the last axis; the constants of both cancel."""
    return 0.5 * (noise**2 - z**2 + log_variance).sum(-1)


class Observation(nn.Module, ABC):
    """p(x|z): what the decoder's outputs ``(..., D, outputs_each)`` say about flattened raw data."""

    outputs_each: int
    noisy = False  # whether `target` is random

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event, self.support = event, event.uniform

    @abstractmethod
    def target(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Raw data ``(B, *event.shape)`` → what `log_prob` scores, ``(B, D)``."""

    @abstractmethod
    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        """log p(x|z) of raw data: ``(B, D)`` or ``(k, B, D)``, ``(k, B, D, outputs_each)`` → ``(k, B)``."""

    @abstractmethod
    def typical(self, outputs: Tensor) -> Tensor:
        """The most typical raw data: ``(B, D, outputs_each)`` → ``(B, *event.shape)``."""

    @abstractmethod
    def draw(self, outputs: Tensor, generator: Generator | None) -> Tensor:
        """One draw of raw data: ``(B, D, outputs_each)`` → ``(B, *event.shape)``."""

    @abstractmethod
    def marginal(self, cells: Tensor) -> Tensor:
        """Outputs that fit each column of raw data on its own: ``(N, M)`` → ``(M, outputs_each)``."""

    def prepare(self, x: Tensor, generator: Generator) -> None:
        """Statistics of the data that `target` uses."""

    def to_raw(self, levels: Tensor) -> Tensor:
        """Level numbers from 0, ``(B, D)`` → raw data ``(B, *event.shape)``."""
        return (levels.view(-1, *self.event.shape) + self.support.low).to(self.event.dtype)


class Bernoulli(Observation):
    """p(x_d = 1) = σ(output)."""

    outputs_each = 1

    def target(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x.flatten(1).float()

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        logits = dist.at_least_float32(outputs.squeeze(-1))
        # Two sums instead of one of Bernoulli terms: log p = Σ x l − Σ log(1 + e^l).
        return (target * logits).sum(-1) - softplus(logits).sum(-1)

    def typical(self, outputs: Tensor) -> Tensor:
        return self.to_raw(outputs.squeeze(-1) > 0)

    def draw(self, outputs: Tensor, generator: Generator | None) -> Tensor:
        return self.to_raw(dist.sample_bernoulli(outputs.squeeze(-1), generator=generator))

    def marginal(self, cells: Tensor) -> Tensor:
        return cells.float().mean(0).clamp(1e-3, 1 - 1e-3).logit().unsqueeze(-1)


class Categorical(Observation):
    """p(x_d = v) = softmax(outputs)_v."""

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.outputs_each = self.support.levels

    def target(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x.flatten(1).long() - self.support.low

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        return dist.categorical_log_prob(target.expand(outputs.shape[:-1]), outputs).sum(-1)

    def typical(self, outputs: Tensor) -> Tensor:
        return self.to_raw(outputs.argmax(-1))

    def draw(self, outputs: Tensor, generator: Generator | None) -> Tensor:
        return self.to_raw(dist.sample_categorical(outputs, generator=generator))

    def marginal(self, cells: Tensor) -> Tensor:
        columns, levels = cells.shape[1], self.support.levels
        offset = levels * torch.arange(columns, device=cells.device)
        flat = (cells.long() - self.support.low + offset).flatten()
        counts = flat.bincount(minlength=columns * levels).view(columns, levels) + 1.0
        return (counts / counts.sum(1, keepdim=True)).log()


class Logistic(Observation):
    """A logistic (mean, log-scale) rounded to the levels, with range [−1, 1]; see `discretized_logistic_log_prob`."""

    outputs_each = 2

    def _mean_and_log_scale(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = dist.at_least_float32(outputs).unbind(-1)
        return mean, log_scale.clamp(min=_LOWEST_LOG_SCALE)

    def _level(self, v: Tensor) -> Tensor:
        return ((v + 1) * (self.support.levels / 2)).floor().clamp(0, self.support.levels - 1)

    def target(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x.flatten(1).float() - self.support.low

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(outputs)
        return dist.discretized_logistic_log_prob(target, mean, log_scale, self.support.levels).sum(-1)

    def typical(self, outputs: Tensor) -> Tensor:
        return self.to_raw(self._level(self._mean_and_log_scale(outputs)[0]))

    def draw(self, outputs: Tensor, generator: Generator | None) -> Tensor:
        mean, log_scale = self._mean_and_log_scale(outputs)
        uniform = torch.rand(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self.to_raw(self._level(mean + log_scale.exp() * uniform.logit()))

    def marginal(self, cells: Tensor) -> Tensor:
        levels = self.support.levels
        v = (2 * (cells.float() - self.support.low) + 1) / levels - 1
        # A logistic's standard deviation is π/√3 scales; a constant column gets that of half a bin.
        log_scale = (v.std(0, correction=0).clamp(min=1 / levels) * math.sqrt(3) / math.pi).log()
        return torch.stack([v.mean(0), log_scale], -1)


class Gaussian(Observation):
    """y_d ~ N(output, exp(log_std_d)²) on the front's standardised y, with one learned log_std for each dimension."""

    outputs_each = 1

    def __init__(self, event: Event) -> None:
        super().__init__(event)
        self.front = ContinuousFront(event)
        self.noisy = not event.is_real
        self.log_std = nn.Parameter(torch.zeros(event.dims))

    def target(self, x: Tensor, generator: Generator | None) -> Tensor:
        return self.front.dequantize(x, generator=generator).flatten(1)

    def log_prob(self, target: Tensor, outputs: Tensor) -> Tensor:
        y, log_det = self.front(target.reshape(-1, *self.event.shape))
        mean = dist.at_least_float32(outputs.squeeze(-1))
        density = dist.gaussian_log_prob(y.view(target.shape), mean, self.log_std.clamp(min=_LOWEST_LOG_SCALE))
        return density.sum(-1) + log_det.view(target.shape[:-1])

    def _raw(self, y: Tensor) -> Tensor:
        y = y.to(self.front.mean.dtype).view(-1, *self.event.shape)
        return self.front.to_support(self.front.invert(y))

    def typical(self, outputs: Tensor) -> Tensor:
        return self._raw(outputs.squeeze(-1))

    def draw(self, outputs: Tensor, generator: Generator | None) -> Tensor:
        mean = dist.at_least_float32(outputs.squeeze(-1))
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        return self._raw(mean + self.log_std.clamp(min=_LOWEST_LOG_SCALE).exp() * noise)

    def marginal(self, cells: Tensor) -> Tensor:
        return torch.zeros(cells.shape[1], 1, device=cells.device)  # y is standardised

    def prepare(self, x: Tensor, generator: Generator) -> None:
        self.front.prepare(x, generator=generator)


_OBSERVATIONS: dict[str, type[Observation]] = {
    "bernoulli": Bernoulli,
    "categorical": Categorical,
    "logistic": Logistic,
    "gaussian": Gaussian,
}


class VAE(Model, HasDensity, CanSample, CanDecode):
    """Variational autoencoder (Kingma, Welling 2014, https://arxiv.org/abs/1312.6114), β-VAE and IWAE.

    `log_prob` is the importance-weighted bound L_k with k = ``samples`` of the call, whatever the loss was: β and the
    constructor's ``samples`` do not enter it. The loss terms are ``reconstruction`` = −E_q[log p(x|z)] summed over
    dimensions and ``kl`` summed over latents; ``loss`` is reconstruction + β · kl, or −L_k when ``samples`` > 1.

    Args:
        event: any; images for ``net="conv"``.
        latent_dim: length of z.
        hidden: widths of the encoder's hidden layers, mirrored in the decoder (``()``: both linear); channels of its
            stride-2 stages when ``net="conv"``. None: (256, 256), or (32, 64) for ``net="conv"``.
        net: dense layers, or 4×4 convolutions of stride 2 down and transposed ones up.
        decoder: p(x|z). ``auto``: ``bernoulli`` on binary data, ``categorical`` (softmax) on nominal, ``logistic``
            (discretised) on ordinal, ``gaussian`` (learned variances, discrete columns dequantised) on the rest.
        activation: of the hidden layers.
        beta: weight of the KL term in the loss.
        samples: k of the loss. 1 is the VAE, with its KL in closed form; more is IWAE.
        gradient: for ``samples`` > 1: ``pathwise`` differentiates L_k; ``dreg`` is the doubly reparametrised
            estimator of the encoder's gradient (Tucker et al. 2019, https://arxiv.org/abs/1810.04152).

    Raises:
        InputError: a decoder or net that does not fit the event; ``samples`` > 1 with β ≠ 1; ``dreg`` with one sample.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = VAE(Event((4,), Support("binary")), latent_dim=2, hidden=(16,))
    >>> model.log_prob(torch.tensor([[0, 1, 1, 0]]), samples=10).shape
    torch.Size([1])
    """

    presets = {
        "tiny": {"latent_dim": 4, "hidden": (24,), "activation": "tanh"},
        # The one-layer net of the IWAE paper, which is also its VAE baseline: 425,284 parameters at 28×28.
        "paper": {"latent_dim": 50, "hidden": (200, 200), "activation": "tanh"},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        latent_dim: int = 32,
        hidden: tuple[int, ...] | None = None,
        net: Literal["dense", "conv"] = "dense",
        decoder: Literal["auto", "bernoulli", "categorical", "logistic", "gaussian"] = "auto",
        activation: Literal["relu", "tanh"] = "relu",
        beta: float = 1.0,
        samples: int = 1,
        gradient: Literal["pathwise", "dreg"] = "pathwise",
    ) -> None:
        _check_objective(beta, samples, gradient)
        self.latent_dim, self.beta, self.samples, self.gradient = latent_dim, beta, samples, gradient
        self.observation = _OBSERVATIONS[_decoder_for(event, decoder)](event)
        kind = event.uniform.kind if event.uniform is not None else "real"
        self.one_hot = event.uniform.levels if kind == "nominal" else 0
        inputs_each, outputs_each = self.one_hot or 1, self.observation.outputs_each
        act = nn.ReLU if activation == "relu" else nn.Tanh
        if net == "dense":
            hidden = (256, 256) if hidden is None else hidden
            self.cells = event.dims
            self.encoder = _dense((event.dims * inputs_each, *hidden, 2 * latent_dim), act)
            self.decoder = _dense((latent_dim, *reversed(hidden), event.dims * outputs_each), act)
            self.widest = max((*hidden, event.dims * outputs_each))
        else:
            hidden = (32, 64) if hidden is None else hidden
            _check_conv(event, hidden)
            self.cells, height, width = event.shape
            # Each stage halves the sides, rounding down; the way up adds the lost row or column back.
            sides = [(height >> i, width >> i) for i in range(len(hidden) + 1)]
            self.encoder = _conv_down((self.cells * inputs_each, *hidden), sides[-1], 2 * latent_dim, act)
            self.decoder = _conv_up(latent_dim, (*reversed(hidden), self.cells * outputs_each), sides[::-1], act)
            areas = [h * w for h, w in sides]
            self.widest = max(c * a for c, a in zip((self.cells * outputs_each, *hidden), areas, strict=True))
        for module in (*self.encoder, *self.decoder):
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.xavier_uniform_(module.weight)  # Glorot, Bengio 2010, as in the IWAE paper
                nn.init.zeros_(module.bias)

    @property
    def likelihood_kind(self) -> Kind:
        return "bound"

    @property
    def code_size(self) -> int:
        return self.latent_dim

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start the output bias at the data's marginals (for Bernoullis, log-odds of the mean within [0.001, 0.999]).

        A dense decoder has one bias for each dimension, a convolutional one for each channel.
        """
        x = batch.x
        self.observation.prepare(x, generator)
        cells = x.reshape(len(x), self.cells, -1).transpose(1, 2).flatten(0, 1)  # (N · H · W, C), or (N, D)
        self.decoder[-1].bias.copy_(self.observation.marginal(cells).flatten())

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss``, ``reconstruction`` and ``kl`` in nats, means over the batch."""
        mean, log_variance = self._posterior(batch.x)
        kl = gaussian_kl(mean, log_variance).mean()
        noise, target = self._draws(batch.x, mean, self.samples, generator)
        z = mean + (0.5 * log_variance).exp() * noise  # (k, B, L)
        log_likelihood = self._log_likelihood(z, target)
        reconstruction = -log_likelihood.mean()
        if self.samples == 1:
            return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}
        if self.gradient == "pathwise" or not z.requires_grad:
            log_weight = log_likelihood + log_prior_over_posterior(z, noise, log_variance)
            loss = -dist.log_mean_exp(log_weight, 0).mean()
        else:
            # Σ_i w̃_i² ∂log w_i/∂z_i ∂z_i/∂φ for the encoder, Σ_i w̃_i ∂log w_i/∂θ for the decoder: q's own parameters
            # are held in log w, and one factor w̃_i joins the gradient as it passes z_i.
            frozen_mean, frozen = mean.detach(), log_variance.detach()
            standardised = (z - frozen_mean) * (-0.5 * frozen).exp()
            log_weight = log_likelihood + log_prior_over_posterior(z, standardised, frozen)
            share = log_weight.detach().softmax(0)
            z.register_hook(lambda gradient: gradient * share.unsqueeze(-1))
            surrogate = -(share * log_weight).sum(0).mean()
            value = -dist.log_mean_exp(log_weight.detach(), 0).mean()
            loss = surrogate + (value - surrogate.detach())
        return {"loss": loss, "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """One draw of the bound L_k of raw data, k = ``samples``: ``(B, *event.shape)`` → ``(B,)`` nats.

        Samples are decoded in chunks, so that memory does not grow with k (under ``torch.no_grad()``: a graph for the
        gradient keeps them all). Noise is drawn sample by sample, so that the chunks do not change the value.
        """
        x = batch.x
        mean, log_variance = self._posterior(x)
        std = (0.5 * log_variance).exp()
        chunk = max(1, _CHUNK_ELEMENTS // (len(x) * self.widest))
        # glibc hands freed memory above twice its largest freed block back to the system, which would then fault in
        # every chunk's pages again, a third of the time; one large block, never touched, makes it keep them.
        torch.empty(4 * _CHUNK_ELEMENTS)
        total = mean.new_full((len(x),), -math.inf)
        for start in range(0, samples, chunk):
            noise, target = self._draws(x, mean, min(chunk, samples - start), generator)
            z = mean + std * noise  # (k, B, L)
            log_weight = self._log_likelihood(z, target) + log_prior_over_posterior(z, noise, log_variance)
            total = torch.logaddexp(total, log_weight.logsumexp(0))
        return total - math.log(samples)

    def _posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), ``(B, L)`` each, in float32 at least."""
        self.event.check_shape(x)
        mean, log_variance = dist.at_least_float32(self.encoder(self._features(x))).chunk(2, -1)
        return mean, log_variance.clamp(-_LARGEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE)

    def _features(self, x: Tensor) -> Tensor:
        """Raw data → the encoder's input: one-hot, scaled to [0, 1] or [−1, 1], or the front's y at bin centres."""
        if isinstance(self.observation, Gaussian):
            front = self.observation.front
            return front(x + 0.5 * front.discrete)[0]
        support = self.event.uniform
        if self.one_hot:
            hot = one_hot(x.long() - support.low, self.one_hot).to(self.dtype)
            return hot.movedim(-1, 1).flatten(1, 2)  # (B, K · C, H, W)
        unit = (x.to(self.dtype) - support.low) / (support.levels - 1)
        return unit if support.kind == "binary" else 2 * unit - 1

    def _draws(self, x: Tensor, mean: Tensor, samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
        """Noise ``(k, B, L)`` and the observation's target, drawn sample by sample."""
        noises, targets = [], []
        for _ in range(samples):
            noises.append(torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device))
            if self.observation.noisy or not targets:
                targets.append(self.observation.target(x, generator))
        return torch.stack(noises), torch.stack(targets) if self.observation.noisy else targets[0]

    def _log_likelihood(self, z: Tensor, target: Tensor) -> Tensor:
        """log p(target|z): ``(k, B, L)`` → ``(k, B)``."""
        outputs = self._outputs(z.flatten(0, 1))
        return self.observation.log_prob(target, outputs.view(*z.shape[:2], *outputs.shape[1:]))

    def _outputs(self, z: Tensor) -> Tensor:
        """The decoder's outputs ``(N, D, outputs_each)``."""
        each = self.observation.outputs_each
        out = self.decoder(z).reshape(len(z), self.cells, each, -1)  # (N, C, P, H · W), or (N, D, P, 1)
        return out.transpose(2, 3).reshape(len(z), self.event.dims, each)

    def encode(self, x: Tensor) -> Tensor:
        """The posterior mean of raw data: ``(B, *event.shape)`` → ``(B, latent_dim)``."""
        return self._posterior(x)[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable value (Bernoulli, categorical), or the one at the mean, of every entry given z."""
        return self.observation.typical(self._outputs(z.to(self.dtype)))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Draws from p(x|z) with z ~ N(0, temperature² I); the decoder's own noise is that of temperature 1."""
        noise = torch.randn(n, self.latent_dim, generator=generator, dtype=self.dtype, device=self.device)
        return self.observation.draw(self._outputs(temperature * noise), generator)


def _check_objective(beta: float, samples: int, gradient: str) -> None:
    if samples < 1:
        raise InputError(f"VAE: samples={samples} should be at least 1")
    if samples > 1 and beta != 1:
        raise InputError(
            f"VAE: samples={samples} with beta={beta:g} has no meaning: L_k has no KL term to weight; "
            "use samples=1 or beta=1"
        )
    if samples == 1 and gradient == "dreg":
        raise InputError(
            "VAE: gradient='dreg' is an estimator of L_k with k > 1; give samples > 1 or gradient='pathwise'"
        )


def _check_conv(event: Event, hidden: tuple[int, ...]) -> None:
    if not event.is_image:
        raise InputError(f"VAE: net='conv' takes images only; this data is {event}; use net='dense'")
    if not hidden or min(event.shape[1:]) < 2 ** len(hidden):
        raise InputError(
            f"VAE: net='conv' halves the sides once for each width in hidden={hidden}: expected at least one width and "
            f"sides of at least {2 ** len(hidden)}; this data is {event}"
        )


def _decoder_for(event: Event, decoder: str) -> str:
    """The decoder's name, ``auto`` resolved."""
    known = _DECODERS[event.uniform.kind if event.uniform is not None else "real"]
    if decoder not in ("auto", *known):
        raise InputError(f"VAE: decoder={decoder!r} does not fit {event}; expected {' or '.join(map(repr, known))}")
    return known[0] if decoder == "auto" else decoder


def _dense(widths: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def _conv_down(
    channels: tuple[int, ...], side: tuple[int, int], outputs: int, activation: type[nn.Module]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, above in pairwise(channels):
        layers += [nn.Conv2d(below, above, 4, stride=2, padding=1), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * side[0] * side[1], outputs))


def _conv_up(
    inputs: int, channels: tuple[int, ...], sides: list[tuple[int, int]], activation: type[nn.Module]
) -> nn.Sequential:
    shape = (channels[0], *sides[0])
    layers: list[nn.Module] = [nn.Linear(inputs, math.prod(shape)), nn.Unflatten(1, shape)]
    for (below, above), (height, width) in zip(pairwise(channels), sides[1:], strict=True):
        lost = (height % 2, width % 2)
        layers += [activation(), nn.ConvTranspose2d(below, above, 4, stride=2, padding=1, output_padding=lost)]
    return nn.Sequential(*layers)
