"""Hierarchical variational autoencoder: several layers of Gaussian latents, drawn from the top.

    p(x, z) = p(z_L) Π_l p(z_l | z_>l) p(x|z),      log p(x) ≥ E_q[log p(x|z)] − Σ_l E_q KL(q(z_l | ·) ‖ p(z_l | z_>l))

The layers differ in how q is built (``posterior``):

- ``bottom-up``: q(z_1|x) Π q(z_{l+1} | z_l) (Burda, Grosse, Salakhutdinov 2016, https://arxiv.org/abs/1509.00519)
- ``ladder``: q(z_l | z_>l, x) ∝ q̂(z_l|x) p(z_l | z_>l) (Sønderby et al. 2016, https://arxiv.org/abs/1602.02282)
- ``direct``: a Gaussian that both paths determine (VD-VAE: Child 2021, https://arxiv.org/abs/2011.10650)
- ``residual``: N(μ_p + Δμ, (σ_p Δσ)²) (NVAE: Vahdat, Kautz 2020, https://arxiv.org/abs/2007.03898)
- ``iaf``: ``residual``, then inverse autoregressive steps (Kingma et al. 2016, https://arxiv.org/abs/1606.04934)

All but the first share the top-down pass of p, which gives prior and posterior of each layer. Dense layers are the
chain p(z_l | z_{l+1}) (`unsup.nn.top_down.DenseHierarchy`); convolutional ones a residual stream through several
resolutions (`unsup.nn.top_down.ConvHierarchy`).

With k samples the loss is −L_k, the importance-weighted bound. For ``bottom-up`` the doubly reparametrised gradient
(Tucker et al. 2019, https://arxiv.org/abs/1810.04152) holds for the joint q(z|x): log w is computed at copies of the
draws, whose gradients are multiplied by the normalised weights once, and in q(z_{l+1} | z_l) the parameters are
detached, not z_l. Top-down posteriors share parameters with p, so that it does not apply to them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from unsup.core import random
from unsup.core.batch import Batch, Time
from unsup.core.config import Count, Positive, Weight, Whole, Widths, refuse_unused
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event
from unsup.core.likelihood import Kind
from unsup.core.model import (
    Advice,
    CanDecode,
    CanSample,
    CodesLayers,
    HasDensity,
    IsConditional,
    LayerCoder,
    Model,
    Moments,
    Terms,
)
from unsup.nn.autoencoder import Autoencoder, NetName
from unsup.nn.logistics import PixelMixture
from unsup.nn.nets import ActivationName
from unsup.nn.observation import ObservationName
from unsup.nn.posterior import Approximation, DiagonalGaussian, Transformed
from unsup.nn.spectral import LargestSingularValues
from unsup.nn.top_down import (
    CellName,
    ConvHierarchy,
    DenseHierarchy,
    Hierarchy,
    Inferred,
    Layer,
    LayeredPosterior,
    NormName,
    Place,
    Placed,
)
from unsup.prob import bounds
from unsup.prob.distributions import at_least_float32, standard_gaussian_log_prob

_CHUNK_ELEMENTS = 2**20  # entries of the widest layer in one chunk of draws, as of `VAE`
_BLOCKS = (2, 2, 1)
_ACTIVE = 0.01  # nats of a latent that carries information
_SPREAD_DRAWS = 256  # samples of the prior from which the bins of lower layers are placed


class HierarchicalVAE(Model, HasDensity, CanSample, CanDecode, IsConditional, CodesLayers):
    """Hierarchical VAE: VD-VAE (Child 2021, https://arxiv.org/abs/2011.10650), and by options ladder VAE, the two-layer
    net of IWAE, NVAE cells and ResNet VAE with IAF.

    `log_prob` is the importance-weighted bound L_k with k = ``samples`` of the call, without warm-up and free bits. The
    loss terms are ``reconstruction`` = −E_q log p(x|z), ``kl`` of all layers, and the KL of each layer (``kl_1`` is
    that of the latents that generate x) or of each resolution (``kl_8x8``); ``active`` is the number of latents of an
    example whose KL is above 0.01 nats. Codes are noise: u_l = (z_l − μ_p) / σ_p with p(z_l | z_>l) = N(μ_p, σ_p²),
    from the top layer down, so that p(u) = N(0, I); `encode` gives those of the posterior means.

    Args:
        event: any event; images for ``net="conv"``.
        latents: dense: number of latents of each layer, from the one that generates x; None: (32, 16). Convolutional:
            the number of maps of latents of each layer, a single number; None: (8,).
        hidden: dense: width of the networks below each layer; None: (256, 128). Convolutional: the number of
            features of all maps, a single number; None: (48,).
        depth: number of hidden layers of each dense network.
        net: dense layers, or convolutions at several resolutions.
        blocks: number of layers of latents at each resolution, from the finest; for ``net="conv"``. The finest ones may
            have none.
        encoder_blocks: number of cells of the encoder at each resolution; None: as ``blocks``.
        pooling: the factors between neighbouring resolutions, one fewer; None: 2 each.
        cell: residual cells of convolutional networks: the ``bottleneck`` of VD-VAE, the ``separable`` cell of NVAE, or
            two ``plain`` 3×3 convolutions as in ResNet VAE.
        posterior: how q of a layer is built: ``bottom-up`` from the layer that is nearer to x (IWAE), for
            ``net="dense"``; ``ladder``: q̂(z_l|x) times the prior; ``direct``: a Gaussian that both paths determine
            (VD-VAE); ``residual``: changes of the prior (NVAE); ``iaf``: these, then inverse autoregressive steps.
        decoder: p(x|z), as for `VAE`; ``logistic-mixture`` has 10 discretised logistics, for ordinal
            entries; in images its channels depend on each other as in PixelCNN++.
        activation: of dense networks.
        norm: batch normalisation of dense networks, or none.
        samples: k of the loss.
        gradient: of L_k with respect to q, as for `VAE`; ``dreg`` is for ``posterior="bottom-up"``.
        warm_up: number of steps in which the weight of the KL increases from 0 to 1.
        free_bits: nats of each latent, or of each map of latents, that cost nothing: λ in Σ_j max(λ, KL_j) with KL_j
            the mean over the batch, of draws for maps of ``posterior="iaf"``. For other layers without a closed form,
            dense ones of ``iaf`` and lower ones of ``bottom-up``, KL is one number for a layer, with as many λ.
        spectral: weight of the largest singular values of all layers in the loss of training, as in NVAE.
        flow_steps: number of steps of ``posterior="iaf"``.
        flow_hidden: units of each hidden layer of the networks of ``posterior="iaf"``.
        given: event of the condition: a class, real numbers, an image.

    Raises:
        InputError: options that do not fit each other or the event.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = HierarchicalVAE(Event((4,), Support("binary")), latents=(3, 2), hidden=(16, 8))
    >>> model.log_prob(torch.tensor([[0, 1, 1, 0]]), samples=10).shape, model.code_size
    (torch.Size([1]), 5)
    """

    presets = {
        "tiny": {"latents": (3, 2), "hidden": (12, 8), "depth": 1, "activation": "tanh"},
        # VD-VAE for CIFAR-10. The first layer of a resolution is the one after enlarging.
        "paper": {
            "net": "conv",
            "latents": (16,),
            "hidden": (384,),
            "blocks": (22, 11, 6, 3, 1),
            "encoder_blocks": (11, 6, 6, 3, 3),
            "pooling": (2, 2, 2, 4),
            "posterior": "direct",
            "decoder": "logistic-mixture",
        },
        "paper-two-layer": {
            "latents": (100, 50),
            "hidden": (200, 100),
            "posterior": "bottom-up",
            "activation": "tanh",
            "samples": 50,
        },
        # Widths of the paper; the activation is ours.
        "paper-ladder": {
            "latents": (64, 32, 16, 8, 4),
            "hidden": (512, 256, 128, 64, 32),
            "posterior": "ladder",
            "norm": "batch",
        },
        # Numbers of layers and maps, and resolutions, of the papers; our stream and blocks, see the documentation.
        "iaf-resnet": {
            "net": "conv",
            "latents": (32,),
            "hidden": (160,),
            "blocks": (0, 10, 10),
            "encoder_blocks": (1, 10, 10),
            "cell": "plain",
            "posterior": "iaf",
            "flow_hidden": (160, 160),
            "decoder": "logistic",
            "free_bits": 0.25,
        },
        "nvae-mnist": {
            "net": "conv",
            "latents": (20,),
            "hidden": (32,),
            "blocks": (0, 0, 10, 5),
            "encoder_blocks": (2, 2, 20, 10),
            "cell": "separable",
            "posterior": "residual",
            "spectral": 1e-2,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}
    takes_missing = True
    marginalises = True

    def __init__(
        self,
        event: Event,
        *,
        latents: Widths | None = None,
        hidden: Widths | None = None,
        depth: Count = 2,
        net: NetName = "dense",
        blocks: tuple[Whole, ...] = _BLOCKS,
        encoder_blocks: Widths | None = None,
        pooling: Widths | None = None,
        cell: CellName = "bottleneck",
        posterior: LayeredPosterior = "residual",
        decoder: ObservationName = "auto",
        activation: ActivationName = "relu",
        norm: NormName = "none",
        samples: Count = 1,
        gradient: Literal["pathwise", "dreg"] = "pathwise",
        warm_up: Whole = 0,
        free_bits: Weight = 0.0,
        spectral: Weight = 0.0,
        flow_steps: Count = 1,
        flow_hidden: Widths = (64,),
        given: Event | None = None,
    ) -> None:
        self.samples, self.gradient, self.warm_up, self.free_bits = samples, gradient, warm_up, free_bits
        _check_objective(samples, gradient, posterior, norm, weighted=bool(warm_up or free_bits))
        if posterior != "iaf":
            flow = {"flow_steps": flow_steps, "flow_hidden": flow_hidden}
            refuse_unused(HierarchicalVAE, flow, needs="posterior='iaf'", got=posterior)
        self.take_condition(given)
        if net == "dense":
            if blocks != _BLOCKS or encoder_blocks or pooling:
                raise InputError(
                    f"HierarchicalVAE: blocks, encoder_blocks and pooling are for net='conv'; got blocks={blocks} and "
                    "net='dense'; use net='conv' for images, or latents and hidden with a number for each layer"
                )
            latents, hidden = latents or (32, 16), hidden or (256, 128)
            if len(latents) != len(hidden):
                raise InputError(
                    f"HierarchicalVAE: latents={latents} are {len(latents)} layers and hidden={hidden} "
                    f"{len(hidden)}; expected one width for each layer"
                )
        else:
            latents, hidden = latents or (8,), hidden or (48,)
            pooling = (2,) * (len(blocks) - 1) if pooling is None else pooling
            encoder_blocks = encoder_blocks or tuple(max(1, n) for n in blocks)
            _check_conv(event, latents, hidden, blocks, encoder_blocks, pooling, posterior)
        self.nets = Autoencoder(
            event,
            code_size=hidden[0],
            encoded_size=0,
            hidden=(),
            net="dense" if net == "dense" else "places",
            decoder=decoder,
            given=given,
            owner="HierarchicalVAE",
        )
        self.hierarchy: Hierarchy
        more = self.nets.conditions.size
        if net == "dense":
            self.hierarchy = DenseHierarchy(
                self.nets.seen_size,
                latents,
                hidden,
                depth=depth,
                activation=activation,
                norm=norm,
                posterior=posterior,
                given=more,
                flow_steps=flow_steps,
                flow_hidden=flow_hidden,
            )
        else:
            height, width = event.shape[1:]
            self.hierarchy = ConvHierarchy(
                self.nets.seen_size // (height * width),
                (height, width),
                hidden[0],
                latents[0],
                blocks=blocks,
                encoder_blocks=encoder_blocks or (),
                pooling=pooling or (),
                cell=cell,
                posterior=posterior,
                given=more,
                flow_steps=flow_steps,
                flow_hidden=flow_hidden,
            )
            if cell == "bottleneck":  # settings of VD-VAE, with a shorter average of the parameters
                self.fit_defaults = {"lr": 2e-4, "betas": (0.9, 0.9), "weight_decay": 0.01, "batch_size": 32}
                self.fit_defaults |= {"warmup": 100, "clip": 200.0, "ema": 0.999}
        self.spectral, self.singular = spectral, LargestSingularValues(self.hierarchy) if spectral else None
        self.widest = max(self.hierarchy.widest, self.nets.widest)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        small = {"latents": (max(2, min(16, event.dims // 2)), 2)} if event.dims <= 64 else {}
        return Advice(small, {"ema": 0.99}, turn=None)

    @property
    def likelihood_kind(self) -> Kind:
        return "bound"

    @property
    def mass_in_support(self) -> bool:
        return not self.nets.observation.is_noisy

    @property
    def code_size(self) -> int:
        return sum(self.hierarchy.sizes)

    @property
    def latent_event(self) -> Event:
        return Event((self.code_size,), REAL)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the marginals of the data."""
        self.nets.prepare(batch.x, self.condition_or_none(batch.given, len(batch)), generator=generator)
        self.count_condition(batch)

    # --- the bound ------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and its terms, of each example, in nats."""
        features = self._features(batch)
        noise, target = self._draws(batch.x, self.samples, generator)
        if self.gradient == "dreg":
            found, share = self._at_copies(batch, features, noise)
        else:
            found, share = self._inferred(batch, features, self.samples, noise), None
        log_likelihood = self._log_likelihood(target, found, features, self.samples)
        reconstruction = -log_likelihood.mean(0)
        each = [layer.kl_each() if self.samples == 1 else None for layer in found.layers]
        parts = [layer.log_ratio if own is None else own.sum(1) for layer, own in zip(found.layers, each, strict=True)]
        kl = torch.stack(parts).sum(0)
        if self.samples == 1:
            shares = [
                layer.log_ratio_each() if own is None else own for layer, own in zip(found.layers, each, strict=True)
            ]
            charged = [
                self._charged(i, kl, own, batch.weight) for i, (kl, own) in enumerate(zip(parts, shares, strict=True))
            ]
            loss = reconstruction + batch.time.ramp(self.warm_up) * torch.stack(charged).sum(0)
        else:
            loss = -self._weighted(log_likelihood - found.log_ratio.view(self.samples, -1), share)
        terms = {"loss": loss, "reconstruction": reconstruction.detach(), "kl": self._mean(kl)}
        with torch.no_grad():
            for group in dict.fromkeys(self.hierarchy.groups):
                own_kl = [part for part, name in zip(parts, self.hierarchy.groups, strict=True) if name == group]
                terms[f"kl_{group}"] = self._mean(torch.stack(own_kl).sum(0))
            terms["active"] = self._mean(torch.stack([_active(layer) for layer in found.layers]).sum(0))
        if self.singular is not None and self.training:
            penalty = self.singular()
            terms |= {"loss": terms["loss"] + self.spectral * penalty, "spectral": penalty.detach()}
        return terms

    def after_step(self, time: Time) -> None:
        if self.singular is not None:
            self.singular.update()

    def _mean(self, of_copies: Tensor) -> Tensor:
        """The mean over the copies of each example: ``(k B,)`` → ``(B,)``, without a graph."""
        return of_copies.detach().view(self.samples, -1).mean(0)

    def _charged(self, layer: int, kl: Tensor, each: Tensor | None, weight: Tensor | None) -> Tensor:
        """The KL of a layer that costs something, ``(B,)``: at least `free_bits` for each map in the mean."""
        if not self.free_bits:
            return kl
        maps = self.hierarchy.maps[layer]
        parts, least = (kl[:, None], maps * self.free_bits) if each is None else (_of_maps(each, maps), self.free_bits)
        return bounds.with_free_bits(parts, least, weight)

    def _at_copies(self, batch: Batch, features: Tensor | None, noise: list[Tensor]) -> tuple[Inferred, Tensor]:
        """Layers at copies of bottom-up draws, with the parameters of q detached, for the gradient of DReG.

        Also the weight of the gradient of each draw, ``(k B, 1)``, which is set once log w is known.
        """
        hierarchy = self.hierarchy
        assert isinstance(hierarchy, DenseHierarchy)
        given = None if features is None else features.repeat(self.samples, 1)
        drawn = hierarchy.upwards(self.nets.seen(batch.x, features), features, self.samples, _placing(noise))
        share = torch.ones_like(drawn[0][2]).unsqueeze(1)
        z = [own.view_as(own) for own, _, _ in drawn]  # no gradient of log w passes from one to the other
        found: list[Placed] = []
        for layer, (one, (_, q, _)) in enumerate(zip(z, drawn, strict=True)):
            if one.requires_grad:
                one.register_hook(lambda gradient: gradient * share)
            held = q.held() if layer == 0 else hierarchy.posterior_above(layer, z[layer - 1], given, held=True)
            found.append((one, held, held.log_prob(one)))
        return hierarchy.with_priors(found, given), share

    def _weighted(self, log_weight: Tensor, share: Tensor | None) -> Tensor:
        """L_k of log-weights ``(k, B)``; with ``share`` (see `_at_copies`), with the gradient of `bounds.dreg`."""
        if share is None:
            return bounds.iwae(log_weight)
        normalised = log_weight.detach().softmax(0)
        share.copy_(normalised.view(-1, 1))
        surrogate = (normalised * log_weight).sum(0)
        return bounds.iwae(log_weight.detach()) + (surrogate - surrogate.detach())

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """One draw of the bound L_k, k = ``samples``; noise is drawn sample by sample, as in `VAE`."""
        features = self._features(batch)
        chunk = max(1, _CHUNK_ELEMENTS // (max(1, len(batch)) * self.widest))
        total = at_least_float32(self.nets.output_bias).new_full((len(batch),), -math.inf)
        for start in range(0, samples, chunk):
            copies = min(chunk, samples - start)
            noise, target = self._draws(batch.x, copies, generator)
            found = self._inferred(batch, features, copies, noise)
            log_weight = self._log_likelihood(target, found, features, copies) - found.log_ratio.view(copies, -1)
            total = torch.logaddexp(total, log_weight.logsumexp(0))
        return total - math.log(samples)

    def _features(self, batch: Batch) -> Tensor | None:
        """Features of the conditions, ``(B, F)``."""
        return self.nets.conditions(self.condition_or_none(batch.given, len(batch)))

    def _draws(self, x: Tensor, copies: int, generator: Generator | None) -> tuple[list[Tensor], Tensor]:
        """Noise of each layer ``(k B, size)``, and the target ``(B, D)`` or ``(k, B, D)``, drawn sample by sample."""
        like = at_least_float32(self.nets.output_bias)
        noises: list[Tensor] = []
        targets: list[Tensor] = []
        is_noisy = self.nets.observation.is_noisy
        for _ in range(copies):
            noises.append(random.normal((len(x), self.code_size), generator, like=like))
            if is_noisy or not targets:
                targets.append(self.nets.target(x, generator))
        return self._by_layer(torch.cat(noises)), torch.stack(targets) if is_noisy else targets[0]

    def _by_layer(self, codes: Tensor) -> list[Tensor]:
        """Codes ``(N, code_size)``, the top layer first → those of each layer, from the one that generates x."""
        return list(codes.split(self.hierarchy.sizes[::-1], 1))[::-1]

    def _inferred(self, batch: Batch, features: Tensor | None, copies: int, noise: list[Tensor]) -> Inferred:
        placing = _placing(noise, each=self.free_bits > 0)
        return self.hierarchy.infer(self.nets.seen(batch.x, features), features, copies, placing)

    def _log_likelihood(self, target: Tensor, found: Inferred, features: Tensor | None, copies: int) -> Tensor:
        """log p(x|z), ``(k, B)``."""
        h = found.features.view(copies, -1, found.features.shape[1])
        return self.nets.log_likelihood(target, h, self._for_decoder(features))

    def _for_decoder(self, features: Tensor | None) -> Tensor | None:
        """The features of conditions that are appended to those of latents; maps already contain them."""
        return features if isinstance(self.hierarchy, DenseHierarchy) else None

    @torch.no_grad()
    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """The KL of all layers, or resolutions, and which are below 0.01 nats."""
        if batch is None:
            return ()
        terms = self.loss(batch, generator=Generator().manual_seed(0))
        kl = {name: float(terms[f"kl_{name}"].mean()) for name in dict.fromkeys(self.hierarchy.groups)}
        what = "resolution" if isinstance(self.hierarchy, ConvHierarchy) else "layer"
        told = f"the KL in nats of each {what} of latents: " + ", ".join(f"{name}: {kl[name]:.2f}" for name in kl)
        collapsed = [name for name in kl if kl[name] < _ACTIVE]
        if not collapsed:
            return (told,)
        advice = "try a longer warm_up, free_bits, or fewer layers"
        return told, f"{what} {', '.join(collapsed)} collapsed: the same for all examples; {advice}"

    # --- interface ------------------------------------------------------------------------------------------------

    def _codes(self, layers: list[Layer]) -> Tensor:
        """u of the latents of all layers, ``(N, code_size)``."""
        return torch.cat([layer.p.units_of(layer.z) for layer in reversed(layers)], 1)

    def _generated(self, codes: Tensor, features: Tensor | None) -> Tensor:
        """The features of latents with these codes."""
        each = self._by_layer(codes)
        return self.hierarchy.generate(len(codes), features, lambda layer, p: p.at(each[layer]))

    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        features = self._features(batch)
        noise, _ = self._draws(batch.x, 1, generator)
        layers = self._inferred(batch, features, 1, noise).layers
        log_q = torch.stack([layer.log_q + 0.5 * layer.p.log_variance.sum(1) for layer in layers]).sum(0)
        return self._codes(layers), log_q

    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        features = self._features(batch)
        target, h = self.nets.target(batch.x, generator), self._generated(z, features)
        log_likelihood = self.nets.log_likelihood(target, h[None], self._for_decoder(features))
        return log_likelihood.squeeze(0) + standard_gaussian_log_prob(z).sum(1)

    def encode(self, x: Tensor, *, given: Tensor | None = None) -> Tensor:
        """u of the posterior means, each given those of the layers before: ``(B, code_size)``, the top layer first."""
        batch = Batch(x, given=given)
        features = self._features(batch)

        def place(layer: int, q: Approximation, p: DiagonalGaussian | None) -> tuple[Tensor, Tensor]:
            centre = q.centre()
            return centre, centre.new_zeros(len(centre))

        return self._codes(self.hierarchy.infer(self.nets.seen(x, features), features, 1, place).layers)

    @torch.no_grad()
    def decode(self, z: Tensor, *, given: Tensor | None = None) -> Tensor:
        """The most probable value (Bernoulli, categorical), or the value at the mean, of every entry given codes u."""
        self.check_codes(z)
        features = self.nets.conditions(self.condition_or_none(given, len(z)))
        return self.nets.typical(self._generated(z, features), self._for_decoder(features))

    @torch.no_grad()
    def sample(
        self, n: int, *, given: Tensor | None = None, generator: Generator | None = None, temperature: Positive = 1.0
    ) -> Tensor:
        """Draws from p(x|z) with z_l ~ N(μ_p, (temperature σ_p)²); the noise of p(x|z) has temperature 1."""
        features = self.nets.conditions(self.condition_to_sample(given, n, generator))
        like = at_least_float32(self.nets.output_bias)
        codes = temperature * random.normal((n, self.code_size), generator, like=like)
        return self.nets.draw(self._generated(codes, features), self._for_decoder(features), generator=generator)

    # --- entropy coding -------------------------------------------------------------------------------------------

    def reason_against_bits_back(self) -> str | None:
        if self.config["posterior"] == "iaf":
            return "has a posterior that is not a diagonal Gaussian, whose bins have no known masses"
        if isinstance(self.nets.observation, PixelMixture):
            return "has a decoder whose channels depend on each other (use decoder='logistic')"
        if self.nets.observation.is_noisy:
            return "has a decoder of densities, not of probabilities"
        return None

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        return self.hierarchy.sizes

    def spread(self) -> list[Moments | None]:
        """Of the lower layers of ``bottom-up``, whose prior is not known before they are drawn: by fixed samples."""
        hierarchy = self.hierarchy
        if not (isinstance(hierarchy, DenseHierarchy) and hierarchy.is_bottom_up) or len(hierarchy.sizes) == 1:
            return [None] * len(hierarchy.sizes)
        found: list[Moments | None] = []
        codes = random.normal(
            (_SPREAD_DRAWS, self.code_size),
            random.keyed_generator(0),
            like=torch.zeros((), dtype=torch.float64),
            axis=None,
        ).to(at_least_float32(self.nets.output_bias))
        each, drawn = self._by_layer(codes), dict[int, Tensor]()

        def draw(layer: int, p: DiagonalGaussian) -> Tensor:
            drawn[layer] = p.at(each[layer])
            return drawn[layer]

        zeros = codes.new_zeros(_SPREAD_DRAWS, self.nets.conditions.size) if self.nets.conditions.size else None
        hierarchy.generate(_SPREAD_DRAWS, zeros, draw)
        for layer in range(len(hierarchy.sizes) - 1):
            found.append((drawn[layer].mean(0), drawn[layer].var(0).log()))
        return [*found, None]

    def code(self, batch: Batch, coder: LayerCoder) -> None:
        features = self._features(batch)
        seen, hierarchy = self.nets.seen(batch.x, features), self.hierarchy
        if isinstance(hierarchy, DenseHierarchy) and hierarchy.is_bottom_up:
            z = coder.pop(0, _moments(hierarchy.posterior_above(0, seen, features)))
            coder.entries(self._outputs(hierarchy.below(0, z, features), features))
            for layer in range(1, len(hierarchy.sizes)):
                z = coder.pop(layer, _moments(hierarchy.posterior_above(layer, z, features)))
                prior = hierarchy.prior_of(layer - 1, hierarchy.below(layer, z, features), z)
                coder.push(layer - 1, _moments(prior))
            coder.push(len(hierarchy.sizes) - 1)
            return

        def place(layer: int, q: Approximation, p: DiagonalGaussian | None) -> tuple[Tensor, Tensor]:
            assert isinstance(q, DiagonalGaussian)  # see `reason_against_bits_back`
            assert p is not None
            z = coder.pop(layer, _moments(q), _moments(p))
            return z, z.new_zeros(len(z))

        found = hierarchy.infer(seen, features, 1, place)
        coder.entries(self._outputs(found.features, features))
        for layer in range(len(hierarchy.sizes)):
            coder.push(layer)

    def restore(self, n: int, given: Tensor | None, coder: LayerCoder) -> None:
        features = self.nets.conditions(self.condition_or_none(given, n))
        hierarchy = self.hierarchy
        if isinstance(hierarchy, DenseHierarchy) and hierarchy.is_bottom_up:
            z = coder.pop(len(hierarchy.sizes) - 1)
            for layer in reversed(range(1, len(hierarchy.sizes))):
                prior = hierarchy.prior_of(layer - 1, hierarchy.below(layer, z, features), z)
                z = coder.pop(layer - 1, _moments(prior))
                coder.push(layer, _moments(hierarchy.posterior_above(layer, z, features)))
            x = coder.entries(self._outputs(hierarchy.below(0, z, features), features))
            coder.push(0, _moments(hierarchy.posterior_above(0, self.nets.seen(x, features), features)))
            return
        drawn: dict[int, Tensor] = {}

        def draw(layer: int, p: DiagonalGaussian) -> Tensor:
            drawn[layer] = coder.pop(layer, None, _moments(p))
            return drawn[layer]

        x = coder.entries(self._outputs(hierarchy.generate(n, features, draw), features))
        pairs: dict[int, tuple[Moments, Moments]] = {}

        def place(layer: int, q: Approximation, p: DiagonalGaussian | None) -> tuple[Tensor, Tensor]:
            assert isinstance(q, DiagonalGaussian)
            assert p is not None
            pairs[layer] = _moments(q), _moments(p)
            return drawn[layer], drawn[layer].new_zeros(n)

        hierarchy.infer(self.nets.seen(x, features), features, 1, place)
        for layer in range(len(hierarchy.sizes)):
            coder.push(layer, *pairs[layer])

    def _outputs(self, h: Tensor, features: Tensor | None) -> Tensor:
        return self.nets.decode(h, self._for_decoder(features))

    def log_masses(self, outputs: Tensor, columns: Tensor) -> Tensor:
        return self.nets.log_masses(outputs, columns)


def _placing(noise: list[Tensor], *, each: bool = False) -> Place:
    """Draws at noise of each layer, ``(k B, size)``; ``each``: with log q of every latent where it is known."""

    def place(layer: int, q: Approximation, p: DiagonalGaussian | None) -> tuple[Tensor, Tensor]:
        if each and isinstance(q, Transformed) and q.flow_each is not None:
            return q.placed_each(noise[layer])
        return q.placed(noise[layer])

    return place


def _moments(of: DiagonalGaussian) -> Moments:
    return of.mean, of.log_variance


def _of_maps(each: Tensor, maps: int) -> Tensor:
    """The KL of each map of latents: ``(N, size)`` → ``(N, maps)``."""
    return each.view(len(each), maps, -1).sum(2)


def _active(layer: Layer) -> Tensor:
    """Number of latents whose KL is above 0.01 nats, ``(N,)``; of a flow, by its Gaussian."""
    q = layer.q if isinstance(layer.q, DiagonalGaussian) else getattr(layer.q, "base", None)
    assert isinstance(q, DiagonalGaussian)
    each = q.kl_each(layer.p)
    return (each > _ACTIVE).to(each.dtype).sum(1)


def _check_objective(samples: int, gradient: str, posterior: str, norm: str, *, weighted: bool) -> None:
    if samples > 1 and weighted:
        raise InputError(
            f"HierarchicalVAE: samples={samples} with warm_up or free_bits is not defined: L_k has no KL term; use "
            "samples=1"
        )
    if gradient == "dreg" and (samples == 1 or posterior != "bottom-up"):
        raise InputError(
            "HierarchicalVAE: gradient='dreg' is an estimator of L_k with k > 1 for posterior='bottom-up', got "
            f"samples={samples} and posterior={posterior!r}; use gradient='pathwise'"
        )
    if gradient == "dreg" and norm == "batch":
        raise InputError("HierarchicalVAE: gradient='dreg' evaluates q twice; use norm='none' or gradient='pathwise'")


def _check_conv(
    event: Event,
    latents: tuple[int, ...],
    hidden: tuple[int, ...],
    blocks: tuple[int, ...],
    encoder_blocks: tuple[int, ...],
    pooling: tuple[int, ...],
    posterior: str,
) -> None:
    if len(latents) != 1 or len(hidden) != 1:
        raise InputError(
            f"HierarchicalVAE: net='conv' has the same maps in all layers; expected one number each, got "
            f"latents={latents} and hidden={hidden}"
        )
    if posterior == "bottom-up":
        raise InputError("HierarchicalVAE: posterior='bottom-up' is for net='dense'; use another posterior")
    if len(encoder_blocks) != len(blocks) or len(pooling) != len(blocks) - 1 or min(pooling, default=2) < 2:
        raise InputError(
            f"HierarchicalVAE: blocks={blocks} are {len(blocks)} resolutions; expected as many encoder_blocks, got "
            f"{encoder_blocks}, and one factor of at least 2 between neighbours, got pooling={pooling}"
        )
    first = next((r for r, n in enumerate(blocks) if n), len(blocks))
    if not all(blocks[first:]) or first == len(blocks):
        raise InputError(
            f"HierarchicalVAE: blocks={blocks} have a resolution without layers; expected zeros before the first "
            "number only, and one number or more above 0"
        )
    if event.is_image and min(event.shape[1:]) < math.prod(pooling):
        raise InputError(
            f"HierarchicalVAE: the sides are divided by {math.prod(pooling)} in all; this data is {event}; use fewer "
            "resolutions: shorter blocks"
        )
