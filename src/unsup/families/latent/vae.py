"""Variational autoencoder, with the importance-weighted bound as objective and for evaluation.

A decoder p(x|z) generates x from a code z ~ N(0, I); an encoder q(z|x) = N(μ(x), diag σ²(x)) is fitted with it
(Kingma, Welling 2014, https://arxiv.org/abs/1312.6114; Rezende, Mohamed, Wierstra 2014,
https://arxiv.org/abs/1401.4082):

    log p(x) ≥ E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)),        z = μ + σ ∘ ε,  ε ~ N(0, I)

With β ≠ 1 the KL term is multiplied by β in the loss (Higgins et al. 2017). With k samples the bound is IWAE's (Burda,
Grosse, Salakhutdinov 2016, https://arxiv.org/abs/1509.00519), which rises with k to log p(x):

    L_k = E log (1/k) Σ_i w_i,        w_i = p(x, z_i) / q(z_i|x)

In tables every column has a head of its own, and missing entries are integrated out of p(x|z), whose entries are
independent: log p(x_obs) ≥ E_q[log p(x_obs|z)] − KL. The encoder sees zeros and indicators in their places (Nazabal,
Olmos, Ghahramani, Valera 2020, https://arxiv.org/abs/1807.03653); with k samples it is the bound of Mattei, Frellsen
2019, https://arxiv.org/abs/1812.02633.

With a condition c, encoder and decoder also see c: p(x|c) = ∫ p(z) p(x|z, c) dz (Sohn, Lee, Yan 2015,
https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Widths
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event
from unsup.core.likelihood import Kind
from unsup.core.model import Advice, CanDecode, CanSample, CodesLatents, HasDensity, IsConditional, Model, Terms
from unsup.core.part import Part
from unsup.nn.autoencoder import Autoencoder, NetName
from unsup.nn.nets import ActivationName
from unsup.nn.observation import ObservationName
from unsup.nn.posterior import DiagonalGaussian
from unsup.nn.prior import Prior
from unsup.prob import bounds

_CHUNK_ELEMENTS = 2**20  # entries of the widest layer of the decoder: 4 MiB of float32, the fastest for small caches


class VAE(Model, HasDensity, CanSample, CanDecode, IsConditional, CodesLatents):
    """Variational autoencoder (Kingma, Welling 2014, https://arxiv.org/abs/1312.6114), β-VAE, IWAE, conditional VAE.

    `log_prob` is the importance-weighted bound L_k with k = ``samples`` of the call, independent of the loss: β and
    ``samples`` of the constructor do not affect it. The loss terms are ``reconstruction`` = −E_q[log p(x|z)] summed
    over dimensions and ``kl`` summed over latents; ``loss`` is reconstruction + β · kl, or −L_k when ``samples`` > 1.

    Args:
        event: any event; images for ``net="conv"``.
        latent_dim: length of z.
        hidden: widths of the hidden layers of the encoder, mirrored in the decoder (``()``: both linear); channels of
            its stride-2 stages when ``net="conv"``. None: (256, 256), or (32, 64) for ``net="conv"``.
        net: dense layers, or 4×4 convolutions of stride 2 down and transposed ones up.
        decoder: p(x|z). ``auto``: ``bernoulli`` on binary data, ``categorical`` (softmax) on nominal, ``logistic``
            (discretised) on ordinal, ``gaussian`` (learned variances) on real data, and one of these for each column of
            a table, a softmax for at most 16 whole numbers.
        activation: activation of the hidden layers.
        beta: weight of the KL term in the loss.
        samples: k of the loss. 1 is the VAE, with its KL in closed form for the prior N(0, I); more is IWAE.
        gradient: estimator of the gradient of the encoder. ``pathwise`` differentiates the bound; ``stl``, for one
            sample, omits the term with mean 0 (Roeder, Wu, Duvenaud 2017, https://arxiv.org/abs/1703.09194); ``dreg``,
            for several samples, is the doubly reparametrised estimator (Tucker et al. 2019,
            https://arxiv.org/abs/1810.04152).
        prior: p(z), another model of ``latent_dim`` real numbers, e.g. ``made``, ``realnvp`` or a trained run. None is
            N(0, I).
            given: event of the condition: a class, real numbers, an image. Its features are appended to the input of
                the
            encoder and to z.

    Raises:
        InputError: a decoder, net or prior that does not fit; ``samples`` > 1 with β ≠ 1; a ``gradient`` that does not
            fit ``samples``.

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
    takes_missing = True
    marginalises = True

    def __init__(
        self,
        event: Event,
        *,
        latent_dim: Count = 32,
        hidden: Widths | None = None,
        net: NetName = "dense",
        decoder: ObservationName = "auto",
        activation: ActivationName = "relu",
        beta: Weight = 1.0,
        samples: Count = 1,
        gradient: Literal["pathwise", "stl", "dreg"] = "pathwise",
        prior: Part | None = None,
        given: Event | None = None,
    ) -> None:
        _check_objective(beta, samples, gradient)
        self.latent_dim, self.beta, self.samples, self.gradient = latent_dim, beta, samples, gradient
        self.take_condition(given)
        self.nets = Autoencoder(
            event,
            code_size=latent_dim,
            encoded_size=2 * latent_dim,
            hidden=hidden,
            net=net,
            decoder=decoder,
            activation=activation,
            given=given,
            owner="VAE",
        )
        self.prior = Prior(prior, self.latent_event, owner="VAE")

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        small = {"latent_dim": max(2, min(16, event.dims // 2))} if event.dims <= 64 else {}
        return Advice(small, {"ema": 0.99})

    @property
    def likelihood_kind(self) -> Kind:
        return "bound"

    @property
    def mass_in_support(self) -> bool:
        return not self.nets.observation.is_noisy

    @property
    def code_size(self) -> int:
        return self.latent_dim

    @property
    def latent_event(self) -> Event:
        return Event((self.latent_dim,), REAL)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the marginals of the data; a prior model is prepared on codes of the data."""
        given = self.condition_or_none(batch.given, len(batch))
        self.nets.prepare(batch.x, given, generator=generator)
        self.count_condition(batch)
        if not self.prior.is_standard:
            self.prior.prepare(self.draw_latents(batch, generator=generator)[0], generator=generator)

    # --- the bound ------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss``, ``reconstruction`` and ``kl`` of each example, in nats."""
        features = self._features(batch)
        q = self._posterior(batch.x, features)
        noise, target = self._draws(q, batch.x, self.samples, generator)
        z = q.at(noise)  # (k, B, L)
        log_likelihood = self.nets.log_likelihood(target, z, features)
        reconstruction = -log_likelihood.mean(0)
        if self.samples == 1:
            closed = self.prior.is_standard and self.gradient == "pathwise"
            kl = q.kl() if closed else self._log_ratio(q, noise, z, generator)[0]
            return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}
        log_ratio = self._log_ratio(q, noise, z, generator)
        log_weight = log_likelihood - log_ratio
        bound = bounds.dreg(log_weight, z) if self.gradient == "dreg" else bounds.iwae(log_weight)
        kl = q.kl() if self.prior.is_standard else log_ratio.mean(0)
        return {"loss": -bound, "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def _log_ratio(self, q: DiagonalGaussian, noise: Tensor, z: Tensor, generator: Generator | None) -> Tensor:
        """log q(z|x) − log p(z), ``(k, B)``; the parameters of q are detached unless the gradient is ``pathwise``."""
        log_q = q.log_density(noise) if self.gradient == "pathwise" else q.held().log_prob(z)
        return log_q - self.prior.log_prob(z, generator=generator)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """One draw of the bound L_k, k = ``samples``.

        Samples are decoded in chunks, so that memory does not grow with k (under ``torch.no_grad()``: a graph for the
        gradient keeps them all). Noise is drawn sample by sample, so that the chunks do not change the value.
        """
        features = self._features(batch)
        q = self._posterior(batch.x, features)
        chunk = max(1, _CHUNK_ELEMENTS // (max(1, len(batch)) * self.nets.widest))
        # glibc returns freed memory above twice its largest freed block to the system, so that the pages of every
        # chunk would be faulted in again, a third of the time. One large untouched block makes it keep them.
        torch.empty(4 * _CHUNK_ELEMENTS)
        total = q.mean.new_full((len(batch),), -math.inf)
        for start in range(0, samples, chunk):
            noise, target = self._draws(q, batch.x, min(chunk, samples - start), generator)
            z = q.at(noise)
            log_p = self.nets.log_likelihood(target, z, features) + self.prior.log_prob(z, generator=generator)
            total = torch.logaddexp(total, (log_p - q.log_density(noise)).logsumexp(0))
        return total - math.log(samples)

    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        return self._posterior(batch.x, self._features(batch)).draw(generator)

    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        target, z = self.nets.target(batch.x, generator), z.unsqueeze(0)
        log_likelihood = self.nets.log_likelihood(target, z, self._features(batch))
        return (log_likelihood + self.prior.log_prob(z, generator=generator)).squeeze(0)

    # --- entropy coding -------------------------------------------------------------------------------------------

    def reason_against_coding(self) -> str | None:
        if not self.prior.is_standard:
            return "has a prior that is a model, whose bins have no known masses"
        if self.nets.observation.is_noisy:
            return "has a decoder of densities, not of probabilities"
        return None

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        q = self._posterior(batch.x, self._features(batch))
        return q.mean, q.log_variance

    def outputs(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        return self.nets.decode(z, self.nets.conditions(self.condition_or_none(given, len(z))))

    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        return self.nets.log_masses(outputs, columns)

    def _features(self, batch: Batch) -> Tensor | None:
        """Features of the conditions, ``(B, F)``."""
        return self.nets.conditions(self.condition_or_none(batch.given, len(batch)))

    def _posterior(self, x: Tensor, features: Tensor | None) -> DiagonalGaussian:
        """q(z|x), ``(B, L)``."""
        return DiagonalGaussian.of(self.nets.encode(x, features))

    def _draws(
        self, q: DiagonalGaussian, x: Tensor, samples: int, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Noise ``(k, B, L)`` and the target of the observation ``(B, D)`` or ``(k, B, D)``, drawn sample by sample."""
        noises: list[Tensor] = []
        targets: list[Tensor] = []
        is_noisy = self.nets.observation.is_noisy
        for _ in range(samples):
            noises.append(q.noise(generator))
            if is_noisy or not targets:
                targets.append(self.nets.target(x, generator))
        return torch.stack(noises), torch.stack(targets) if is_noisy else targets[0]

    # --- interface ----------------------------------------------------------------------------------------------

    def encode(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        """The posterior mean of raw data: ``(B, *event.shape)`` → ``(B, latent_dim)``."""
        return self._posterior(x, self._features(Batch(x, given=given))).mean

    @torch.no_grad()
    def decode(self, z: Tensor, *, given: Tensor | None = None) -> Tensor:
        """The most probable value (Bernoulli, categorical), or the value at the mean, of every entry given z."""
        self.check_codes(z)
        return self.nets.typical(z, self.nets.conditions(self.condition_or_none(given, len(z))))

    @torch.no_grad()
    def sample(
        self, n: int, *, given: Tensor | None = None, generator: Generator | None = None, temperature: Positive = 1.0
    ) -> Tensor:
        """Draws from p(x|z) with z ~ p(z), N(0, temperature² I); the noise of the decoder has temperature 1."""
        features = self.nets.conditions(self.condition_to_sample(given, n, generator))
        z = self.prior.sample(n, generator=generator, temperature=temperature, like=self.nets.output_bias)
        return self.nets.draw(z, features, generator=generator)


def _check_objective(beta: float, samples: int, gradient: str) -> None:
    if samples > 1 and beta != 1:
        raise InputError(
            f"VAE: samples={samples} with beta={beta:g} is not defined: L_k has no KL term to weight; "
            "use samples=1 or beta=1"
        )
    if samples == 1 and gradient == "dreg":
        raise InputError(
            "VAE: gradient='dreg' is an estimator of L_k with k > 1; use samples > 1 or gradient='pathwise'"
        )
    if samples > 1 and gradient == "stl":
        raise InputError("VAE: gradient='stl' is biased for samples > 1; use samples=1 or gradient='dreg'")
