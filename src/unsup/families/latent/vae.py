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

q may be richer than a diagonal Gaussian (``posterior``), and p(z) richer than N(0, I) (``prior``, ``pseudo_inputs``).
With ``mmd`` = λ the loss has the term λ MMD²(q(z), p(z)), of the codes of a batch against draws of the prior, as in
InfoVAE (Zhao, Song, Ermon 2017, https://arxiv.org/abs/1706.02262); without the KL term, ``beta`` = 0, it is a
Wasserstein autoencoder (Tolstikhin, Bousquet, Gelly, Schölkopf 2018, https://arxiv.org/abs/1711.01558).

With ``window`` the decoder is a limited autoregressive one, p(x|z) = Π_i p(x_i | z, the pixels next to x_i and before
it): what they tell need not be in z (Chen et al. 2017, https://arxiv.org/abs/1611.02731; Gulrajani et al. 2017,
https://arxiv.org/abs/1611.05013).

With a condition c, encoder and decoder also see c: p(x|c) = ∫ p(z) p(x|z, c) dz (Sohn, Lee, Yan 2015,
https://papers.nips.cc/paper/5775-learning-structured-output-representation-using-deep-conditional-generative-models).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Whole, Widths, refuse_unused
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event
from unsup.core.likelihood import Kind
from unsup.core.model import (
    Advice,
    CanDecode,
    CanSample,
    ChooseEntry,
    CodesEntries,
    HasDensity,
    IsConditional,
    Model,
    Symptom,
    Terms,
)
from unsup.core.parallel import gather_rows
from unsup.core.part import Part
from unsup.nn.autoencoder import Autoencoder, NetName
from unsup.nn.flow import Flow
from unsup.nn.inference import Diagonal, PosteriorName, inference_for
from unsup.nn.nets import ActivationName
from unsup.nn.observation import ObservationName
from unsup.nn.posterior import Approximation, CodesExactLatents, DiagonalGaussian, Gaussian
from unsup.nn.prior import EqualMixture, Prior
from unsup.nn.usage import COLLAPSED_KL, Usage, usage_of
from unsup.prob import bounds
from unsup.prob.discrepancy import mmd_each
from unsup.prob.distributions import at_least_float32, equal_mixture_log_prob

_PSEUDO_NOISE = 0.01  # standard deviation beside the examples from which pseudo-inputs start
_REFINING_DRAWS, _REFINING_RATE = 8, 0.05  # fixed noise, and the rate of Adam
_FEWEST_EXAMPLES = 20  # for a variance over examples
_CHUNK_ELEMENTS = 2**20  # entries of the widest layer of the decoder: 4 MiB of float32, the fastest for small caches


class VAE(Model, HasDensity, CanSample, CanDecode, IsConditional, CodesExactLatents):
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
            ``logistic-mixture`` is a mixture of 10 discretised logistics for each entry of ordinal data, as in
            PixelCNN++ (Salimans et al. 2017, https://arxiv.org/abs/1701.05517) but with independent channels; in a
            table, for columns of more than 16 whole numbers, with mixtures of 10 Gaussians for real ones.
        window: pixels of discrete images also depend on those before them, in raster order, that are at most so many
            rows above and columns beside, as in a variational lossy autoencoder (Chen et al. 2017,
            https://arxiv.org/abs/1611.02731). Their channels depend on earlier ones. 0: independent entries.
        window_features: hidden features of each pixel and channel for ``window``.
        activation: activation of the hidden layers.
        beta: weight of the KL term in the loss.
        samples: k of the loss. 1 is the VAE, with its KL in closed form for the prior N(0, I); more is IWAE.
        gradient: estimator of the gradient of the encoder. ``pathwise`` differentiates the bound; ``stl``, for one
            sample, omits the term with mean 0 (Roeder, Wu, Duvenaud 2017, https://arxiv.org/abs/1703.09194); ``dreg``,
            for several samples, is the doubly reparametrised estimator (Tucker et al. 2019,
            https://arxiv.org/abs/1810.04152).
        posterior: q(z|x): a ``diagonal`` or ``full`` Gaussian, or a diagonal one that passes ``flow_steps`` steps:
            ``planar`` (Rezende, Mohamed 2015, https://arxiv.org/abs/1505.05770), ``sylvester`` (orthogonal, of rank
            ``latent_dim`` / 2; van den Berg et al. 2018, https://arxiv.org/abs/1803.05649) or ``iaf`` (Kingma et al.
            2016, https://arxiv.org/abs/1606.04934).
        flow_steps: number of steps of ``planar``, ``sylvester`` or ``iaf``.
        flow_hidden: units of each hidden layer of the networks of ``iaf``.
        prior: p(z), another model of ``latent_dim`` real numbers, e.g. ``gaussian-mixture`` (with learn="gradient"),
            ``made``, ``realnvp`` or a trained run. None is N(0, I).
        pseudo_inputs: K of the VampPrior p(z) = 1/K Σ_k q(z|u_k), with learned inputs u_k of the encoder that start
            from examples (Tomczak, Welling 2018, https://arxiv.org/abs/1705.07120). 0: none.
        warm_up: number of steps in which the weight of the KL term increases from 0 to ``beta``.
        free_bits: nats of each latent that cost nothing: λ in Σ_j max(λ, KL_j) with KL_j the mean over the batch
            (Kingma et al. 2016, eq. 15). Where the KL has no closed form, it is one number: max(L λ, KL).
        mmd: weight of the MMD term, which moves the encoder only: draws of the prior are constants in it.
        refinement: number of steps of gradient ascent, in evaluation only, by which the bound of each example improves
            the mean and variance that the encoder proposes. It takes so many passes with gradients.
        given: event of the condition: a class, real numbers, an image. Its features are appended to the input of the
            encoder and to z.

    Raises:
        InputError: a decoder, net or prior that does not fit; ``samples`` > 1 with β ≠ 1; a ``gradient`` that does not
            fit ``samples`` or ``posterior``; options of another posterior; pseudo-inputs beside another prior, a
            condition or a flow; a prior that should learn with β = 0.

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
        window: Whole = 0,
        window_features: Count = 32,
        activation: ActivationName = "relu",
        beta: Weight = 1.0,
        samples: Count = 1,
        gradient: Literal["pathwise", "stl", "dreg"] = "pathwise",
        posterior: PosteriorName = "diagonal",
        flow_steps: Count = 4,
        flow_hidden: Widths = (128,),
        prior: Part | None = None,
        pseudo_inputs: Whole = 0,
        warm_up: Whole = 0,
        free_bits: Weight = 0.0,
        mmd: Weight = 0.0,
        refinement: Whole = 0,
        given: Event | None = None,
    ) -> None:
        _check_objective(beta, samples, gradient, posterior, weighted=bool(warm_up or free_bits or mmd))
        if beta == 0 and (pseudo_inputs or (prior is not None and not prior.frozen)):
            raise InputError(
                "VAE: with beta=0 nothing trains the prior, whose draws are constants in mmd; use beta above 0, a "
                "frozen prior, or N(0, I)"
            )
        if refinement and posterior != "diagonal":
            raise InputError(f"VAE: refinement is for posterior='diagonal', got {posterior!r}; use refinement=0")
        if posterior in ("diagonal", "full"):
            refuse_unused(VAE, {"flow_steps": flow_steps}, needs="a posterior that is a flow", got=posterior)
        if posterior != "iaf":
            refuse_unused(VAE, {"flow_hidden": flow_hidden}, needs="posterior='iaf'", got=posterior)
        if not window:
            refuse_unused(VAE, {"window_features": window_features}, needs="a window above 0", got=window)
        self.latent_dim, self.beta, self.samples, self.gradient = latent_dim, beta, samples, gradient
        self.warm_up, self.free_bits, self.mmd, self.refinement = warm_up, free_bits, mmd, refinement
        self.take_condition(given)
        self.inference = inference_for(posterior, latent_dim, steps=flow_steps, hidden=flow_hidden, owner="VAE")
        self.nets = Autoencoder(
            event,
            code_size=latent_dim,
            encoded_size=self.inference.outputs,
            hidden=hidden,
            net=net,
            decoder=decoder,
            activation=activation,
            given=given,
            window=window,
            window_features=window_features,
            owner="VAE",
        )
        self.prior = Prior(prior, self.latent_event, owner="VAE")
        self.pseudo_inputs: nn.Parameter | None = None
        if pseudo_inputs:
            _check_pseudo_inputs(prior, given, posterior)
            self.pseudo_inputs = nn.Parameter(
                torch.zeros(pseudo_inputs, *self.nets.seen(event.lowest(torch.zeros(0))[None]).shape[1:])
            )

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
        if self.pseudo_inputs is not None:
            order = random.permutation(len(batch), generator, like=batch.x)
            seen = self.nets.seen(
                batch.x[order[torch.arange(len(self.pseudo_inputs), device=order.device) % len(batch)]]
            )
            noise = random.normal(seen.shape, generator, like=self.pseudo_inputs, axis=None)
            self.pseudo_inputs.copy_(seen + _PSEUDO_NOISE * noise)
        if not self.prior.is_standard:
            self.prior.prepare(self.draw_latents(batch, generator=generator)[0], generator=generator)

    # --- the bound ------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss``, ``reconstruction`` and ``kl`` of each example, in nats."""
        features = self._features(batch)
        q = self._posterior(batch.x, features)
        noise, target = self._draws(q, batch.x, self.samples, generator)
        z, log_q = q.placed(noise)  # (k, B, L), (k, B)
        log_likelihood = self.nets.log_likelihood(target, z, features)
        reconstruction = -log_likelihood.mean(0)
        closed = isinstance(q, Gaussian) and self._is_standard
        if self.samples == 1:
            closed = closed and self.gradient == "pathwise"
            kl = q.kl() if isinstance(q, Gaussian) and closed else self._log_ratio(q, log_q, z, generator)[0]
            each = q.kl_each() if isinstance(q, DiagonalGaussian) and closed else None
            weight = self.beta * batch.time.ramp(self.warm_up)
            terms = {
                "loss": reconstruction + weight * self._charged(kl, each, batch.weight),
                "reconstruction": reconstruction,
                "kl": kl,
            }
            if self.mmd:
                discrepancy = self._mmd(z[0], generator)
                terms = terms | {"loss": terms["loss"] + self.mmd * discrepancy, "mmd": discrepancy}
            return terms
        log_ratio = self._log_ratio(q, log_q, z, generator)
        log_weight = log_likelihood - log_ratio
        bound = bounds.dreg(log_weight, z) if self.gradient == "dreg" else bounds.iwae(log_weight)
        kl = q.kl() if isinstance(q, Gaussian) and closed else log_ratio.mean(0)
        return {"loss": -bound, "reconstruction": reconstruction.detach(), "kl": kl.detach()}

    def _log_ratio(self, q: Approximation, log_q: Tensor, z: Tensor, generator: Generator | None) -> Tensor:
        """log q(z|x) − log p(z), ``(k, B)``; the parameters of q are detached unless the gradient is ``pathwise``."""
        if self.gradient != "pathwise" and isinstance(q, Gaussian):
            log_q = q.held().log_prob(z)
        return log_q - self._log_prior(z, generator)

    def _charged(self, kl: Tensor, each: Tensor | None, weight: Tensor | None) -> Tensor:
        """The KL that costs something, of each example: at least `free_bits` for each latent in the mean."""
        if not self.free_bits:
            return kl
        parts, least = (kl[:, None], self.latent_dim * self.free_bits) if each is None else (each, self.free_bits)
        return bounds.with_free_bits(parts, least, weight)

    def _mmd(self, z: Tensor, generator: Generator | None) -> Tensor:
        """The share of each example in MMD²(q(z), p(z))."""
        prior = self._draw_prior(len(z), generator, 1.0, z).to(z.dtype)
        return mmd_each(z, prior, gather_rows(z.detach()), gather_rows(prior))

    @property
    def _is_standard(self) -> bool:
        return self.prior.is_standard and self.pseudo_inputs is None

    def _log_prior(self, z: Tensor, generator: Generator | None) -> Tensor:
        """log p(z), ``(k, B, L)`` → ``(k, B)``."""
        if self.pseudo_inputs is None:
            return self.prior.log_prob(z, generator=generator)
        each = self._of_pseudo_inputs()
        return equal_mixture_log_prob(z, each.mean, each.log_variance)

    def _draw_prior(self, n: int, generator: Generator | None, temperature: float, like: Tensor) -> Tensor:
        if self.pseudo_inputs is None:
            return self.prior.sample(n, generator=generator, temperature=temperature, like=like)
        with torch.no_grad():
            each = self._of_pseudo_inputs()
            chosen = random.integers(0, len(each.mean), (n,), generator, like=like)
            noise = random.normal((n, self.latent_dim), generator, like=like)
            return each.mean[chosen] + temperature * each.std[chosen] * noise

    def _of_pseudo_inputs(self) -> DiagonalGaussian:
        """q(z|u_k), ``(K, L)``."""
        assert self.pseudo_inputs is not None
        return DiagonalGaussian.of(self.nets.encode_seen(self.pseudo_inputs))

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """One draw of the bound L_k, k = ``samples``.

        Samples are decoded in chunks, so that memory does not grow with k (under ``torch.no_grad()``: a graph for the
        gradient keeps them all). Noise is drawn sample by sample, so that the chunks do not change the value.
        """
        features = self._features(batch)
        q = self._posterior(batch.x, features)
        if self.refinement and isinstance(q, DiagonalGaussian):
            q = self._refined(q, batch, features, generator)
        chunk = max(1, _CHUNK_ELEMENTS // (max(1, len(batch)) * self.nets.widest))
        # glibc returns freed memory above twice its largest freed block to the system, so that the pages of every
        # chunk would be faulted in again, a third of the time. One large untouched block makes it keep them.
        torch.empty(4 * _CHUNK_ELEMENTS)
        total = at_least_float32(self.nets.output_bias).new_full((len(batch),), -math.inf)
        for start in range(0, samples, chunk):
            noise, target = self._draws(q, batch.x, min(chunk, samples - start), generator)
            z, log_q = q.placed(noise)
            log_p = self.nets.log_likelihood(target, z, features) + self._log_prior(z, generator)
            total = torch.logaddexp(total, (log_p - log_q).logsumexp(0))
        return total - math.log(samples)

    def _refined(
        self, q: DiagonalGaussian, batch: Batch, features: Tensor | None, generator: Generator | None
    ) -> DiagonalGaussian:
        """q after `refinement` steps of Adam on the bound of each example, for fixed noise.

        The bound with other noise is a bound for any q.
        """
        noise, target = self._draws(q, batch.x, _REFINING_DRAWS, generator)
        with torch.inference_mode(False), torch.enable_grad():
            noise, target = noise.clone(), target.clone()
            features = None if features is None else features.detach().clone()
            own = [q.mean.detach().clone().requires_grad_(), q.log_variance.detach().clone().requires_grad_()]
            adam = torch.optim.Adam(own, lr=_REFINING_RATE)
            for _ in range(self.refinement):
                better = DiagonalGaussian(*own)
                z, log_q = better.placed(noise)
                log_p = self.nets.log_likelihood(target, z, features) + self._log_prior(z, None)
                for parameter, gradient in zip(
                    own, torch.autograd.grad((log_q - log_p).mean(0).sum(), own), strict=True
                ):
                    parameter.grad = gradient
                adam.step()
        return DiagonalGaussian(own[0].detach(), own[1].detach())

    # --- collapse -------------------------------------------------------------------------------------------------

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        kl = next((value for name, value in terms.items() if name.split("/")[-1] == "kl"), None)
        if kl is None or kl > COLLAPSED_KL:
            return None
        return Symptom(
            "collapse",
            f"the KL of z is {kl:.2g} nats, so the decoder ignores z; try a longer warm_up, free_bits, a smaller beta, "
            "or a decoder that can do less without z",
        )

    @torch.no_grad()
    def usage(self, batch: Batch, *, generator: Generator | None = None) -> Usage:
        """How many units of z the examples of a batch use, and their KL."""
        q = self._posterior(batch.x, self._features(batch))
        if self._is_standard and isinstance(q, Gaussian):
            return usage_of(q, q.kl(), standard=True)
        z, log_q = q.draw(generator)
        kl = log_q - self._log_prior(z[None], generator)[0]
        return usage_of(q, kl, standard=self._is_standard, generator=generator)

    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """Active units and KL of z, and whether it has collapsed."""
        if batch is None or len(batch) < _FEWEST_EXAMPLES:
            return ()
        return self.usage(batch, generator=Generator().manual_seed(0)).sentences()

    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        return self._posterior(batch.x, self._features(batch)).draw(generator)

    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        target, z = self.nets.target(batch.x, generator), z.unsqueeze(0)
        log_likelihood = self.nets.log_likelihood(target, z, self._features(batch))
        return (log_likelihood + self._log_prior(z, generator)).squeeze(0)

    # --- entropy coding -------------------------------------------------------------------------------------------

    def reason_against_bits_back(self) -> str | None:
        if self.nets.observation.is_noisy:
            return "has a decoder of densities, not of probabilities"
        return self.prior.reason_against_coding()

    @property
    def has_standard_latents(self) -> bool:
        return self._is_standard and isinstance(self.inference, Diagonal)

    def approximation(self, batch: Batch) -> Approximation:
        return self._posterior(batch.x, self._features(batch))

    @property
    def coded_prior(self) -> Flow | CodesEntries | None:
        if self.pseudo_inputs is None:
            return self.prior.coded
        each = self._of_pseudo_inputs()
        return EqualMixture(each.mean, 0.5 * each.log_variance)

    def posterior(self, batch: Batch) -> tuple[Tensor, Tensor]:
        q = self._posterior(batch.x, self._features(batch))
        assert isinstance(q, DiagonalGaussian)  # see `has_standard_latents`
        return q.mean, q.log_variance

    def outputs(self, z: Tensor, given: Tensor | None = None) -> Tensor:
        return self.nets.decode(z, self.nets.conditions(self.condition_or_none(given, len(z))))

    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        return self.nets.log_masses(outputs, columns)

    @property
    def codes_in_turn(self) -> bool:
        return self.nets.local is not None

    @torch.no_grad()
    def visit_entries(self, z: Tensor, choose: ChooseEntry, *, given: Tensor | None = None) -> None:
        self.nets.visit(self.outputs(z, given), choose)

    def _features(self, batch: Batch) -> Tensor | None:
        """Features of the conditions, ``(B, F)``."""
        return self.nets.conditions(self.condition_or_none(batch.given, len(batch)))

    def _posterior(self, x: Tensor, features: Tensor | None) -> Approximation:
        """q(z|x), ``(B, L)``."""
        found: Approximation = self.inference(self.nets.encode(x, features))
        return found

    def _draws(self, q: Approximation, x: Tensor, samples: int, generator: Generator | None) -> tuple[Tensor, Tensor]:
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
        """The posterior mean, or what a flow makes of that of its base: ``(B, *event.shape)`` → ``(B, latent_dim)``."""
        return self._posterior(x, self._features(Batch(x, given=given))).centre()

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
        z = self._draw_prior(n, generator, temperature, self.nets.output_bias)
        return self.nets.draw(z, features, generator=generator)


def _check_objective(beta: float, samples: int, gradient: str, posterior: str, *, weighted: bool) -> None:
    if samples > 1 and beta != 1:
        raise InputError(
            f"VAE: samples={samples} with beta={beta:g} is not defined: L_k has no KL term to weight; "
            "use samples=1 or beta=1"
        )
    if samples > 1 and weighted:
        raise InputError(
            f"VAE: samples={samples} with warm_up, free_bits or mmd is not defined: L_k has no KL term; use samples=1"
        )
    if samples == 1 and gradient == "dreg":
        raise InputError(
            "VAE: gradient='dreg' is an estimator of L_k with k > 1; use samples > 1 or gradient='pathwise'"
        )
    if samples > 1 and gradient == "stl":
        raise InputError("VAE: gradient='stl' is biased for samples > 1; use samples=1 or gradient='dreg'")
    if gradient != "pathwise" and posterior not in ("diagonal", "full"):
        raise InputError(
            f"VAE: gradient={gradient!r} needs the density of q at any z, which posterior={posterior!r} has at its own "
            "draws only; use gradient='pathwise', or posterior='diagonal' or 'full'"
        )


def _check_pseudo_inputs(prior: Part | None, given: Event | None, posterior: str) -> None:
    if prior is not None:
        raise InputError(f"VAE: pseudo_inputs are a prior of their own; remove prior={prior.name!r}")
    if given is not None:
        raise InputError("VAE: pseudo_inputs have no condition for the encoder; remove given, or pseudo_inputs")
    if posterior != "diagonal":
        raise InputError(
            f"VAE: pseudo_inputs are for posterior='diagonal', whose density is known at any z; got {posterior!r}"
        )
