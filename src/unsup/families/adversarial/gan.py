"""Generative adversarial networks: a generator and a critic with opposing objectives, and their losses.

A generator G maps noise z ~ N(0, I) to examples, a critic D assigns a logit v to every example, and each minimises
its own loss (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661). With v_r = D(x) and v_f = D(G(z)):

    loss             critic minimises                                          generator minimises
    minimax          E softplus(−v_r) + E softplus(v_f)                        −E softplus(v_f)
    non-saturating   the same                                                  E softplus(−v_f)
    least-squares    ½E(v_r − 1)² + ½E v_f²                                    ½E(v_f − 1)²
    hinge            E max(0, 1 − v_r) + E max(0, 1 + v_f)                     −E v_f
    wgan             E v_f − E v_r, weights clipped to [−c, c]                 −E v_f
    wgan-gp          E v_f − E v_r + λ E(‖∇D(x̂)‖ − 1)², x̂ = εx + (1 − ε)G(z)   −E v_f

Least squares: Mao et al. 2017, https://arxiv.org/abs/1611.04076. Hinge: Lim, Ye 2017,
https://arxiv.org/abs/1705.02894. Wasserstein: Arjovsky, Chintala, Bottou 2017, https://arxiv.org/abs/1701.07875;
Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028. The R1 penalty γ/2 E‖∇D(x)‖² (Mescheder, Geiger, Nowozin 2018,
https://arxiv.org/abs/1801.04406) and spectral normalisation (Miyato et al. 2018, https://arxiv.org/abs/1802.05957) hold
the critic back; packing shows it m examples at a time, so that it detects a lack of variety (Lin et al. 2018,
https://arxiv.org/abs/1712.04086). With a condition y both players see it: G(z, y) and D(x, y) (Mirza, Osindero 2014,
https://arxiv.org/abs/1411.1784).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Widths, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import NO_WORDS, Advice, CanSample, IsConditional, Model, Objective, Symptom, Terms
from unsup.nn.conditions import Conditions, joined
from unsup.nn.front import ContinuousFront
from unsup.nn.gan import CriticNorm, image_networks
from unsup.nn.norm import BatchNorm
from unsup.nn.spectral import spectral_norm
from unsup.prob.adversarial import (
    AdversarialLoss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    r1_penalty,
)

_WITH_TARGETS = ("minimax", "non-saturating", "least-squares")
_WASSERSTEIN = ("wgan", "wgan-gp")
_CLIP, _PENALTY = 0.01, 10.0  # initialisation of the two papers
_SMALLEST_SIDE = 8  # sides of images that the convolutional networks support
# v_r − v_f above which the loss of the critic almost vanishes, and that of the generator has little information.
_SATURATED = {"minimax": 8.0, "non-saturating": 12.0, "hinge": 2.5, "least-squares": 0.97}
_EXPLODED = 1e4


class GAN(Model, CanSample, IsConditional):
    """Generative adversarial network (Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661) with six losses.

    The critic sees real entries standardised (images of real numbers: each channel's range as [−1, 1]) and discrete
    ones with uniform noise of one level added, scaled to [−1, 1], so that data and the generator's continuous output
    can have the same distribution; samples are floored back to the levels. Real and fake examples pass the critic
    as one batch, or as two if it has batch statistics. With spectral normalisation, each pass through the critic,
    including those of the generator and the penalty, makes one power iteration.

    The ``ema`` of the trainer averages the generator only; its batch statistics are the newest.

    Args:
        event: any event without categories of more than two values; images for ``net`` other than ``mlp``.
        loss: losses of both players, see the table of the module.
        latent_dim: length of z ~ N(0, I).
        net: ``mlp``; for images ``dcgan`` (Radford, Metz, Chintala 2016, https://arxiv.org/abs/1511.06434) and
            ``resnet`` (of SNGAN). ``auto``: ``dcgan`` for images with sides of at least 8, else ``mlp``.
        hidden: widths of the hidden layers of ``mlp``, for generator and critic.
        generator_channels: width of an image generator (``dcgan``: next to the image, doubling away from it); None:
            64 for ``dcgan``, 128 for ``resnet``.
        critic_channels: width of an image critic.
        critic_norm: ``auto`` is ``spectral`` for a ``resnet`` with the hinge loss, ``batch`` for a ``dcgan`` without a
            penalty on gradients, else ``none``.
        critic_steps: updates of the critic per update of the generator; None: 5 for ``wgan``, ``wgan-gp`` and ``hinge``
            with spectral normalisation, else 1.
        weight_clip: c of ``wgan``; None is 0.01.
        penalty: λ of ``wgan-gp``; None is 10.
        r1: γ of the R1 penalty, 0 for none.
        smoothing: s; the target of the critic for real examples is 1 − s, for fakes 0 (Salimans et al. 2016,
            https://arxiv.org/abs/1606.03498).
        packing: m, the number of examples that the critic judges together; surplus examples of a batch are dropped.
        given: event of the condition: a class, real numbers, an image. Its features are appended to z, and to each
            example that the critic sees: as features, or as channels of images.

    Raises:
        InputError: options that conflict with each other or the event; the message gives the reason.

    >>> import torch, unsup
    >>> model = GAN(unsup.Event((2,), unsup.Support("real")), loss="wgan-gp", latent_dim=2, hidden=(32, 32))
    >>> model.sample(5).shape, model.critic_steps, model.fit_defaults["betas"]
    (torch.Size([5, 2]), 5, (0.0, 0.9))
    """

    presets = {
        "tiny": {"latent_dim": 3, "hidden": (16, 16), "generator_channels": 4, "critic_channels": 4},
        # SNGAN's residual pair for CIFAR-10; DCGAN's is net="dcgan" with 128 and 128 channels and latent_dim=100.
        "paper": {
            "net": "resnet",
            "loss": "hinge",
            "critic_norm": "spectral",
            "latent_dim": 128,
            "generator_channels": 256,
            "critic_channels": 128,
        },
    }

    def __init__(
        self,
        event: Event,
        *,
        loss: AdversarialLoss = "non-saturating",
        latent_dim: Count = 64,
        net: Literal["auto", "mlp", "dcgan", "resnet"] = "auto",
        hidden: Widths = (256, 256),
        generator_channels: Count | None = None,
        critic_channels: Count | None = None,
        critic_norm: Literal["auto", "none", "batch", "spectral"] = "auto",
        critic_steps: Count | None = None,
        weight_clip: Positive | None = None,
        penalty: Positive | None = None,
        r1: Weight = 0.0,
        smoothing: Annotated[float, Within(0, 0.5, below=True)] = 0.0,
        packing: Count = 1,
        given: Event | None = None,
    ) -> None:
        self.players_loss: AdversarialLoss = loss
        self.latent_dim, self.r1, self.smoothing, self.packing = latent_dim, r1, smoothing, packing
        self.net = _net_for(event, net)
        self.critic_norm = _norm_for(critic_norm, self.net, loss, r1)
        _check(self.config | {"critic_norm": self.critic_norm})
        self.weight_clip = (_CLIP if weight_clip is None else weight_clip) if loss == "wgan" else 0.0
        self.penalty = (_PENALTY if penalty is None else penalty) if loss == "wgan-gp" else 0.0
        many = loss in _WASSERSTEIN or (loss == "hinge" and self.critic_norm == "spectral")
        self.critic_steps = (5 if many else 1) if critic_steps is None else critic_steps
        self.fit_defaults = _fit_defaults(loss, self.critic_norm, self.net)
        self.take_condition(given)
        self.front = ContinuousFront(event)
        self._range_of_discrete_entries()
        self.generator: nn.Module
        self.critic: nn.Module
        if self.net == "mlp":
            self.conditions = Conditions(given)
            self.generator = _dense_generator(latent_dim + self.conditions.size, hidden, event.dims)
            judged = packing * (event.dims + self.conditions.channels)
            self.critic = _dense_critic(judged, hidden, self.critic_norm)
        else:
            usual = 64 if self.net == "dcgan" else 128
            channels, height, width = event.shape
            self.conditions = Conditions(given, (height, width))
            self.generator, self.critic = image_networks(
                self.net,
                (channels, height, width),
                latent_dim=latent_dim + self.conditions.size,
                generator_channels=generator_channels or usual,
                critic_channels=critic_channels or usual,
                critic_norm=self.critic_norm,
                pack=packing,
                beside=self.conditions.channels,
            )

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return NO_WORDS if event.has_words else None

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(against=None if event.layout in ("vector", "image") else "supports vectors and images only")

    def objectives(self) -> tuple[Objective, ...]:
        """First ``critic_steps`` updates of the critic, then one of the generator."""
        after = self.clip_weights if self.weight_clip else None
        return (
            Objective(
                "critic", self.critic_loss, tuple(self.critic.parameters()), repeats=self.critic_steps, after=after
            ),
            Objective("generator", self.generator_loss, tuple(self.generator.parameters())),
        )

    def averaged(self) -> tuple[nn.Module, ...]:
        return (self.generator,)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Location and scale of real entries: mean and std, or the range of each channel for convolutional networks."""
        x = batch.x
        front = self.front
        if self.net != "mlp" and self.event.is_real:
            low, high = x.amin((0, 2, 3)).view(-1, 1, 1), x.amax((0, 2, 3)).view(-1, 1, 1)
            front.mean.copy_(((low + high) / 2).expand(self.event.shape))
            front.std.copy_(torch.where(high > low, (high - low) / 2, 1.0).expand(self.event.shape))
        else:
            front.prepare(x, generator=generator)
            self._range_of_discrete_entries()
        if self.given is not None:
            self.count_condition(batch)
            self.conditions.prepare(self.condition(batch.given, len(batch)), generator=generator)

    def _range_of_discrete_entries(self) -> None:
        """(v − ½) / ½ maps the levels from [0, 1] to [−1, 1]."""
        self.front.mean.masked_fill_(self.front.discrete, 0.5)
        self.front.std.masked_fill_(self.front.discrete, 0.5)

    # --- the two players ------------------------------------------------------------------------------------------

    def critic_loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The ``loss`` of the critic, the logits ``real`` and ``fake``, and its ``penalty``, unweighted, if any.

        They are per example, or means over packs.
        """
        features = self._features(batch)
        beside = self._beside(features)
        real = self.packed(self.scaled(batch.x, generator=generator))
        with torch.no_grad():
            fake = self.packed(self.fakes(len(batch), features=features, generator=generator))

        def judge(x: Tensor) -> Tensor:
            return self.judge(x, beside)

        if self.critic_norm == "batch":
            real_logit, fake_logit = judge(real), judge(fake)
        else:
            both = None if beside is None else torch.cat([beside, beside])
            real_logit, fake_logit = self.judge(torch.cat([real, fake]), both).chunk(2)
        loss = discriminator_loss(self.players_loss, real_logit, fake_logit, self.smoothing)
        terms = {"real": real_logit.detach(), "fake": fake_logit.detach()}
        if self.penalty:
            penalty = gradient_penalty(judge, real, fake, generator)
            loss = loss + self.penalty * penalty
            terms["penalty"] = penalty.detach()
        if self.r1:
            penalty = r1_penalty(judge, real)
            loss = loss + self.r1 / 2 * penalty
            terms["penalty"] = penalty.detach()
        return self._terms({"loss": loss} | terms)

    def generator_loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The ``loss`` of the generator, for as many samples as ``batch`` has examples, and their logits ``fake``."""
        features = self._features(batch)
        fake = self.packed(self.fakes(len(batch), features=features, generator=generator))
        logit = self.judge(fake, self._beside(features))
        return self._terms({"loss": generator_loss(self.players_loss, logit), "fake": logit.detach()})

    def _terms(self, terms: Terms) -> Terms:
        return terms if self.packing == 1 else {name: term.mean() for name, term in terms.items()}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The terms of both players, and the sum of their losses, which is not minimised itself."""
        critic = self.critic_loss(batch, generator=generator)
        maker = self.generator_loss(batch, generator=generator)
        terms = {f"critic/{k}": v for k, v in critic.items()} | {f"generator/{k}": v for k, v in maker.items()}
        return {"loss": critic["loss"] + maker["loss"]} | terms

    @torch.no_grad()
    def clip_weights(self) -> None:
        """The constraint of WGAN: clip every parameter of the critic to [−c, c]."""
        for parameter in self.critic.parameters():
            parameter.clamp_(-self.weight_clip, self.weight_clip)

    def scaled(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Raw data as the critic sees it: ``(B, *event.shape)``, standardised, or in [−1, 1] with noise of a level."""
        return self.front(self.front.dequantize(x, generator=generator))[0]

    def fakes(self, n: int, *, features: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """G(z) of n new z, on the scale of the critic: ``(n, *event.shape)``.

        Args:
            features: features of the conditions, ``(n, F)``, if the model is conditional.
        """
        z = random.normal((n, self.latent_dim), generator, like=next(self.generator.parameters()))
        return self._made(z, features)

    def _made(self, z: Tensor, features: Tensor | None) -> Tensor:
        y: Tensor = self.generator(joined(z, features))
        if self.net != "mlp":
            return y
        y = y.view(len(z), *self.event.shape)
        return y if self.front.all_real else torch.where(self.front.discrete, y.tanh(), y)

    def judge(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        """Logits of packs, ``(B, …)`` → ``(B,)``, with the features of their conditions."""
        logit: Tensor = self.critic(joined(x, beside))
        return logit

    def _features(self, batch: Batch) -> Tensor | None:
        """Features of the conditions, ``(B, F)``."""
        return self.conditions(self.condition_or_none(batch.given, len(batch)))

    def _beside(self, features: Tensor | None) -> Tensor | None:
        beside = self.conditions.beside_examples(features)
        return None if beside is None else self.packed(beside)

    def packed(self, x: Tensor) -> Tensor:
        """Join m consecutive examples along features or channels: ``(B, C, …)`` → ``(B // m, m · C, …)``."""
        m = self.packing
        if m == 1:
            return x
        if len(x) < m:
            raise InputError(f"GAN: packing={m} needs batches of at least {m} examples; got {len(x)}")
        return x[: len(x) // m * m].reshape(len(x) // m, m * x.shape[1], *x.shape[2:])

    # --- interface ----------------------------------------------------------------------------------------------

    def forward(self, z: Tensor, *, given: Tensor | None = None) -> Tensor:
        """G(z) in units of the data, not yet rounded to levels: ``(B, latent_dim)`` → ``(B, *event.shape)``."""
        return self.front.invert(self._made(z, self.conditions(self.condition_or_none(given, len(z)))))

    @torch.no_grad()
    def sample(self, n: int, *, given: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """``n`` examples in raw units; discrete entries are floored to their levels."""
        features = self.conditions(self.condition_to_sample(given, n, generator))
        return self.front.to_support(self.front.invert(self.fakes(n, features=features, generator=generator)))

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Detect a saturated critic or unbounded losses."""
        real, fake, loss = terms["critic/real"], terms["critic/fake"], terms["generator/loss"]
        if max(abs(real), abs(fake), abs(loss)) > _EXPLODED:
            return Symptom(
                "explosion",
                f"mean logits {real:.3g} (real) and {fake:.3g} (fake), generator loss {loss:.3g}: the critic grows "
                f"without bound; try a smaller --lr or {self._restraint()}",
            )
        if real - fake > (1 - self.smoothing) * _SATURATED.get(self.players_loss, float("inf")):
            return Symptom(
                "saturated critic",
                f"mean logits {real:.2f} (real) and {fake:.2f} (fake): the critic detects all fakes and its "
                f"loss is almost 0, so the generator learns little; try {self._restraint()}",
            )
        return None

    def _restraint(self) -> str:
        """Options that would restrain the critic and are not in use."""
        found = []
        if self.players_loss == "minimax":
            found.append("loss=non-saturating")
        if not self.r1 and self.players_loss not in _WASSERSTEIN:
            found.append("r1=0.1 or more" + (" with critic_norm=none" if self.critic_norm == "batch" else ""))
        elif self.r1:
            found.append(f"r1 above {self.r1:g}")
        if self.players_loss == "wgan":
            found.append("loss=wgan-gp")
        if self.penalty:
            found.append(f"penalty above {self.penalty:g}")
        if self.critic_norm != "spectral" and self.players_loss not in _WASSERSTEIN:
            found.append("critic_norm=spectral")
        if self.critic_steps > 1:
            found.append(f"critic_steps below {self.critic_steps}")
        return ", ".join(found) or "a smaller critic"


def _net_for(event: Event, net: str) -> Literal["mlp", "dcgan", "resnet"]:
    if net == "auto":
        return "dcgan" if event.is_image and min(event.shape[1:]) >= _SMALLEST_SIDE else "mlp"
    if net != "mlp" and not event.is_image:
        raise InputError(f"GAN: net={net!r} takes images only; this data is {event}; use net='mlp'")
    return net  # type: ignore[return-value]


def _norm_for(norm: str, net: str, loss: str, r1: float) -> CriticNorm:
    if norm != "auto":
        return norm  # type: ignore[return-value]
    if net == "resnet" and loss == "hinge":
        return "spectral"
    return "batch" if net == "dcgan" and loss != "wgan-gp" and not r1 else "none"


def _check(given: Mapping[str, Any]) -> None:
    """Refuse conflicting options; ``critic_norm`` is resolved."""
    loss, norm, smoothing, r1 = given["loss"], given["critic_norm"], given["smoothing"], given["r1"]
    clip, penalty = given["weight_clip"], given["penalty"]
    if norm == "batch" and (loss == "wgan-gp" or r1):
        raise InputError(
            f"GAN: critic_norm='batch' with {'wgan-gp' if loss == 'wgan-gp' else f'r1={r1:g}'}: the penalty is on the "
            "gradient of each example's own logit, which batch statistics mix with those of others; use "
            "critic_norm='none' or 'spectral'"
        )
    if penalty is not None and loss != "wgan-gp":
        raise InputError(
            f"GAN: penalty={penalty:g} with loss={loss!r}: it is the λ of 'wgan-gp'; the other losses take r1, and "
            "'wgan' clips weights instead"
        )
    if clip is not None and loss != "wgan":
        raise InputError(
            f"GAN: weight_clip={clip:g} with loss={loss!r}: it is the bound by which 'wgan' keeps the critic "
            "Lipschitz; the other losses are not defined with it"
        )
    if loss == "wgan" and norm == "spectral":
        raise InputError(
            "GAN: critic_norm='spectral' with loss='wgan': weights that are divided by their norm cannot be bounded by "
            "clipping; use loss='hinge', or critic_norm='none'"
        )
    if r1 and loss in _WASSERSTEIN:
        raise InputError(
            f"GAN: r1={r1:g} with loss={loss!r}: a Wasserstein critic already has a constraint (weight_clip, "
            "penalty); use another loss, or r1=0"
        )
    if smoothing and loss not in _WITH_TARGETS:
        raise InputError(
            f"GAN: smoothing={smoothing:g} with loss={loss!r}: only {', '.join(_WITH_TARGETS)} have targets to smooth"
        )


def _fit_defaults(loss: str, norm: str, net: str) -> dict[str, Any]:
    """The settings of the papers, by loss; linear decay and the generator's average are ours, except for ``wgan``."""
    found: dict[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999), "schedule": "linear", "batch_size": 64, "ema": 0.999}
    if loss == "wgan":
        return found | {"optimizer": "rmsprop", "lr": 5e-5, "betas": (0.0, 0.99), "schedule": "constant"}
    if loss == "wgan-gp":
        return found | {"lr": 2e-4 if net == "resnet" else 1e-4, "betas": (0.0, 0.9)}
    if loss == "hinge" and norm == "spectral":
        return found | {"betas": (0.0, 0.9)}
    return found


def _dense_generator(latent_dim: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, above in pairwise((latent_dim, *hidden)):
        layers += [nn.Linear(below, above), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear((latent_dim, *hidden)[-1], outputs))


def _dense_critic(inputs: int, hidden: tuple[int, ...], norm: CriticNorm) -> nn.Sequential:
    """LeakyReLU 0.2 layers to one logit, ``(B, …)`` → ``(B,)``; no batch norm on the first, as in DCGAN."""

    def linear(below: int, above: int, *, bias: bool = True) -> nn.Linear:
        layer = nn.Linear(below, above, bias=bias)
        return spectral_norm(layer) if norm == "spectral" else layer

    layers: list[nn.Module] = [nn.Flatten()]
    for i, (below, above) in enumerate(pairwise((inputs, *hidden))):
        batch = norm == "batch" and i > 0
        layers += [linear(below, above, bias=not batch), *([BatchNorm(above)] if batch else []), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, linear((inputs, *hidden)[-1], 1), nn.Flatten(0))
