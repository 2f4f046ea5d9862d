"""CycleGAN: two translators between two domains, learned from unpaired examples.

G maps domain a to domain b and F maps b to a; a critic of each domain judges patches (Zhu, Park, Isola, Efros 2017,
https://arxiv.org/abs/1703.10593). The two translators minimise together

    E_a (D_b(G(a)) − 1)² + E_b (D_a(F(b)) − 1)²                    least-squares adversarial (Mao et al. 2017)
    + λ (E_a ‖F(G(a)) − a‖₁ + E_b ‖G(F(b)) − b‖₁)                  cycle consistency
    + ½ λ (E_b ‖G(b) − b‖₁ + E_a ‖F(a) − a‖₁)                      identity

and each critic ½ (E (D(real) − 1)² + E D(pooled)²), where a pooled example comes from a history of translations
(Shrivastava et al. 2017, https://arxiv.org/abs/1612.07828). Norms are means over entries, in units in which the lowest
level is −1 and the highest 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import AtLeast, Weight, Widths
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.model import Model, Objective, Symptom, Terms, Translates
from unsup.core.parallel import gather_rows, own_rows
from unsup.nn.inputs import Inputs
from unsup.prob.distributions import at_least_float32

_KERNEL = 4  # maximum widths of the layers of a critic
_INITIAL_STD = 0.02
_PIXELS_AT_ONCE = 2**19  # batch of translation: 8 pictures of 256×256, whose first features need 128 MiB
_SATURATED = 0.02  # loss of a critic; 0.25 is chance level
_LOST = 0.5  # a cycle term, of at most 2


class InstanceNorm(nn.Module):
    """(x − μ) / √(σ² + ε) over the pixels of each example and channel, without weights or state; also for H · W = 1."""

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        if not len(x):
            return x  # an empty batch has no statistics
        var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) * (var + self.eps).rsqrt()


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), 3×3 convolutions with reflection at the border."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect"),
            InstanceNorm(),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect"),
            InstanceNorm(),
        )

    def forward(self, x: Tensor) -> Tensor:
        branch: Tensor = self.layers(x)
        return x + branch


def translator(channels: int, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """c7s1-w₀, d w₁ … d wₙ, R wₙ × blocks, u wₙ₋₁ … u w₀, c7s1-channels, tanh."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 7, padding=3, padding_mode="reflect"),
        InstanceNorm(),
        nn.ReLU(),
    ]
    for above, below in pairwise(widths):
        layers += [nn.Conv2d(above, below, 3, stride=2, padding=1), InstanceNorm(), nn.ReLU()]
    layers += [ResidualBlock(widths[-1]) for _ in range(blocks)]
    for below, above in pairwise(reversed(widths)):
        up = nn.ConvTranspose2d(below, above, 3, stride=2, padding=1, output_padding=1)
        layers += [up, InstanceNorm(), nn.ReLU()]
    layers += [nn.Conv2d(widths[0], channels, 7, padding=3, padding_mode="reflect"), nn.Tanh()]
    return nn.Sequential(*layers)


def patch_critic(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """4×4 convolutions, stride 2 except in the last two: images → a map of scores, one per overlapping patch.

    Widths (64, 128, 256, 512) see patches of 70×70 pixels.
    """
    layers: list[nn.Module] = []
    for i, (before, width) in enumerate(pairwise((channels, *widths))):
        stride = 2 if i < len(widths) - 1 else 1
        layers += [nn.Conv2d(before, width, _KERNEL, stride=stride, padding=1)]
        layers += [InstanceNorm(), nn.LeakyReLU(0.2)] if i else [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, _KERNEL, padding=1))


def patch_side(layers: int) -> int:
    """Side in pixels of the patch of one score, for a critic with ``layers`` widths.

    >>> [patch_side(n) for n in (1, 2, 3, 4)]
    [7, 16, 34, 70]
    """
    side = 1 + 2 * (_KERNEL - 1)  # the score and the last layer have stride 1
    for _ in range(layers - 1):
        side = 2 * side + _KERNEL - 2
    return side


class History(nn.Module):
    """A history of translations; the critic sees some of them in place of new ones.

    Until it is full, new examples are stored and returned. After that, each new example is, with probability ½,
    exchanged for a random stored one, which is returned; otherwise it is returned and not stored.

    Args:
        size: number of stored examples; with 0, new examples are returned.
        shape: shape of one example.
    """

    examples: Tensor
    count: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("examples", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, new: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Exchange ``new`` examples ``(B, *shape)``; the result has the same size and no gradient."""
        if not self.size:
            return new.detach()
        rows = gather_rows(new.detach()).to(self.examples.dtype)
        keep = random.uniform((len(rows),), generator, like=self.count, axis=None) < 0.5
        slots = random.integers(0, self.size, (len(rows),), generator, like=rows, axis=None)
        shown = rows.clone()
        filled = int(self.count)
        for i, (own, slot) in enumerate(zip(keep.tolist(), slots.tolist(), strict=True)):
            if filled < self.size:
                self.examples[filled] = rows[i]
                filled += 1
            elif not own:
                shown[i] = self.examples[slot]
                self.examples[slot] = rows[i]
        self.count.fill_(filled)
        return own_rows(shown)


class CycleGAN(Model, Translates):
    """CycleGAN (Zhu, Park, Isola, Efros 2017, https://arxiv.org/abs/1703.10593): unpaired translation of images.

    Training needs batches with ``domain_b``, i.e. data with a second domain (``load_data(A, domain_b=B)``). There is no
    dropout and no noise: `translate` is a deterministic function of each image. The module docstring explains the loss
    terms; ``critic_a`` and ``critic_b`` are halved, so that 0.25 is chance level.

    Instance normalisation removes the mean and contrast of the features of a picture. Therefore the colours of a
    picture with only two flat colours are ambiguous if the colours of its domain are arbitrary; richer pictures are not
    affected.

    Args:
        event: images with discrete levels, whose sides are multiples of 4 and at least 8.
        widths: channels of the stages of the translators; every stage after the first halves the sides.
        blocks: residual blocks at the last width. None: 9 if a side is 256 or more, else 6.
        critic_widths: channels of the layers of the critics; all but the last halve the sides. None: as many of (64,
            128, 256, 512) as possible with patches no larger than the image.
        cycle: λ, the weight of the cycle terms.
        identity: weight of the identity terms, as a fraction of λ.
        pool: number of translations in the history of each critic; 0 for none.

    Raises:
        InputError: sides that the widths cannot halve, a critic too deep for the image.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = CycleGAN(Event((3, 16, 16), Support("ordinal", 256)), widths=(4, 8, 8), blocks=1)
    >>> model.translate(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), to="b").shape
    torch.Size([2, 3, 16, 16])
    """

    presets = {
        "tiny": {"widths": (4, 6), "blocks": 1, "critic_widths": (4, 6), "pool": 4},
        # At 3×256×256: 11,378,179 parameters in each translator and 2,764,737 in each critic.
        "paper": {"widths": (64, 128, 256), "blocks": 9, "critic_widths": (64, 128, 256, 512)},
    }
    streams = {"domain_b": 1}
    fit_defaults = {"lr": 2e-4, "betas": (0.5, 0.999), "batch_size": 1, "schedule": "half-linear"}

    def __init__(
        self,
        event: Event,
        *,
        widths: Widths = (64, 128, 256),
        blocks: Annotated[int, AtLeast(0)] | None = None,
        critic_widths: Widths | None = None,
        cycle: Weight = 10.0,
        identity: Weight = 0.5,
        pool: Annotated[int, AtLeast(0)] = 50,
    ) -> None:
        channels, *sides = event.shape
        if critic_widths is None:
            critic_widths = (64, 128, 256, 512)[: max(n for n in (1, 2, 3, 4) if n == 1 or patch_side(n) <= min(sides))]
        _check(event, widths, critic_widths)
        self.cycle, self.identity = cycle, identity
        self.inputs = Inputs(event, one_hot=False, lowest=-1)
        blocks = (9 if max(sides) >= 256 else 6) if blocks is None else blocks
        self.to_b, self.to_a = (translator(channels, widths, blocks) for _ in range(2))  # G, F
        self.critic_a, self.critic_b = (patch_critic(channels, critic_widths) for _ in range(2))
        self.history_a, self.history_b = (History(pool, event.shape) for _ in range(2))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=_INITIAL_STD)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image or event.uniform is None or event.uniform.kind not in ("binary", "ordinal"):
            return "takes images of discrete levels"
        if min(event.shape[1:]) < 8 or any(side % 4 for side in event.shape[1:]):
            return "takes images whose sides are multiples of 4 and at least 8 (resize them)"
        return None

    def objectives(self) -> tuple[Objective, ...]:
        translators = (*self.to_b.parameters(), *self.to_a.parameters())
        critics = (*self.critic_a.parameters(), *self.critic_b.parameters())
        return (
            Objective("translators", self.translators_loss, translators),
            Objective("critics", self.critics_loss, critics),
        )

    def averaged(self) -> tuple[nn.Module, ...]:
        return (self.to_b, self.to_a)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The terms of both players; ``loss`` is their sum, which is not minimised itself."""
        translators, critics = self.translators_loss(batch), self.critics_loss(batch, generator=generator)
        return {**translators, **critics, "loss": translators["loss"] + critics["loss"]}

    def translators_loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The objective of G and F for each pair of a and b; deterministic."""
        a, b = self._domains(batch)
        # One pass of a translator processes the pictures to translate and those for the identity loss.
        fake_b, same_b = self.to_b(torch.cat([a, b])).split([len(a), len(b)])
        fake_a, same_a = self.to_a(torch.cat([b, a])).split([len(b), len(a)])
        terms = {
            "adversarial_a": _squared_distance(self.critic_a(fake_a), 1.0),
            "adversarial_b": _squared_distance(self.critic_b(fake_b), 1.0),
            "cycle_a": _absolute_difference(self.to_a(fake_b), a),
            "cycle_b": _absolute_difference(self.to_b(fake_a), b),
            "identity_a": _absolute_difference(same_a, a),
            "identity_b": _absolute_difference(same_b, b),
        }
        terms = _of_pairs(terms)
        adversarial, cycle, identity = (
            terms[f"{kind}_a"] + terms[f"{kind}_b"] for kind in ("adversarial", "cycle", "identity")
        )
        loss = adversarial + self.cycle * cycle + self.cycle * self.identity * identity
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def critics_loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The objective of D_a and D_b: ½ (D(real) − 1)² + ½ D(pooled)². In training it updates the histories."""
        a, b = self._domains(batch)
        with torch.no_grad():
            fake_a, fake_b = self.to_a(b), self.to_b(a)
        if self.training:
            fake_a = self.history_a.exchange(fake_a, generator=generator)
            fake_b = self.history_b.exchange(fake_b, generator=generator)
        terms = {}
        for name, critic, real, fake in (("a", self.critic_a, a, fake_a), ("b", self.critic_b, b, fake_b)):
            of_real, of_fake = critic(torch.cat([real, fake.to(real.dtype)])).split([len(real), len(fake)])
            halves = _of_pairs({"real": _squared_distance(of_real, 1.0), "fake": _squared_distance(of_fake, 0.0)})
            terms[f"critic_{name}"] = 0.5 * (halves["real"] + halves["fake"])
        return {"loss": terms["critic_a"] + terms["critic_b"]} | {k: v.detach() for k, v in terms.items()}

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        for domain in ("a", "b"):
            critic, cycle = terms[f"critics/critic_{domain}"], terms[f"translators/cycle_{domain}"]
            if critic < _SATURATED:
                return Symptom(
                    "saturation",
                    f"the critic of domain {domain} almost always detects translations (loss {critic:.3f}; "
                    "0.25 is chance), so the translators learn little; try narrower or fewer critic_widths, a smaller "
                    "cycle weight, or more examples of that domain",
                )
            if cycle > _LOST:
                return Symptom(
                    "lost content",
                    f"pictures of domain {domain} are not restored by translation and back (distance {cycle:.2f} "
                    "of at most 2); try a larger cycle weight, or a smaller --lr",
                )
        return None

    @torch.no_grad()
    def translate(self, x: Tensor, *, to: Literal["a", "b"]) -> Tensor:
        """Translate raw images of the other domain to domain ``to``: ``(B, *event.shape)``, ``event.dtype``.

        Raises:
            InputError: wrong shape, or a domain other than ``"a"`` and ``"b"``.
        """
        if to not in ("a", "b"):
            raise InputError(f"to={to!r}; expected 'a' or 'b', the domain to translate to")
        translator, support = self.to_b if to == "b" else self.to_a, self._support
        parts = x.split(max(1, _PIXELS_AT_ONCE // math.prod(self.event.shape[1:])))
        y = torch.cat([translator(self._scaled(part)) for part in parts])
        return (((y + 1) * (support.levels - 1) / 2).round().long() + support.low).to(self.event.dtype)

    @property
    def _support(self) -> Support:
        assert self.event.uniform is not None
        return self.event.uniform

    def _scaled(self, x: Tensor) -> Tensor:
        """Raw levels → [−1, 1]."""
        self.event.check_shape(x)
        scaled: Tensor = self.inputs(x)
        return scaled

    def _domains(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._scaled(batch.x), self._scaled(batch["domain_b"].x)


def _squared_distance(scores: Tensor, target: float) -> Tensor:
    return (at_least_float32(scores) - target).square().flatten(1).mean(1)


def _absolute_difference(one: Tensor, other: Tensor) -> Tensor:
    return (at_least_float32(one) - other).abs().flatten(1).mean(1)


def _of_pairs(terms: Terms) -> Terms:
    """Terms per example, or their means if the domains have different numbers of examples."""
    if len({len(term) for term in terms.values()}) == 1:
        return terms
    return {name: term.mean() for name, term in terms.items()}


def _check(event: Event, widths: tuple[int, ...], critic_widths: tuple[int, ...]) -> None:
    sides = event.shape[1:]
    factor = 2 ** (len(widths) - 1)
    if not widths or any(side % factor or side // factor < 2 for side in sides):
        raise InputError(
            f"widths={widths} halve the sides {max(len(widths) - 1, 0)} times, which {sides[0]}×{sides[1]} pixels do "
            f"not allow; use 1 to {_halvings(sides) + 1} widths"
        )
    if not critic_widths or min(sides) // 2 ** (len(critic_widths) - 1) < 3:
        most = max(1, int(math.log2(min(sides) / 3)) + 1)
        raise InputError(
            f"critic_widths={critic_widths} have patches larger than {sides[0]}×{sides[1]} pixels; use 1 to {most} "
            "widths"
        )


def _halvings(sides: tuple[int, ...]) -> int:
    """How often all ``sides`` can be halved with results of at least 2."""
    count = 0
    while all(side % 2 ** (count + 1) == 0 and side // 2 ** (count + 1) >= 2 for side in sides):
        count += 1
    return count
