"""MixMatch: guessed labels of unlabelled examples, and mixtures of all examples with their labels.

For K weak views u_k of an unlabelled example, the guess is q = sharpen((1/K) Σ_k p(y | u_k), T), without gradient. Then
labelled and unlabelled views, with their labels or guesses, are mixed with partners drawn from all of them,

    x′ = λ x₁ + (1 − λ) x₂,   y′ = λ y₁ + (1 − λ) y₂,      λ = max(λ₀, 1 − λ₀),   λ₀ ~ Beta(α, α)

with a λ for each example (Berthelot, Carlini, Goodfellow, Papernot, Oliver, Raffel 2019,
https://arxiv.org/abs/1905.02249, eq. 3 to 11), and

    L = H(y′, p(y | x′)) + w(t) λ_U (1/K_classes) ‖q′ − p(y | u′)‖²

Each example stays nearer to itself than to its partner, which decides the term it counts in. One pass has all mixtures,
so that batch normalisation sees labelled and unlabelled ones together.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.core.parallel import all_rows, first_row
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels, grouped
from unsup.nn.norm import averages_kept
from unsup.prob.consistency import linear_ramp, sharpened, soft_cross_entropy
from unsup.prob.distributions import at_least_float32

Mixture = tuple[Tensor, Tensor]


class MixMatch(FewLabels):
    """MixMatch (Berthelot et al. 2019, https://arxiv.org/abs/1905.02249).

    The terms are ``cross_entropy`` of mixtures of labelled examples, ``guess``, the squared distance from the mixed
    guesses, and ``accuracy``, the share of mixtures whose nearer label is predicted.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        weight: λ_U at its end.
        ramp: the share of the run until which it rises linearly from 0.
        temperature: T.
        alpha: α of the Beta distribution.
        guesses: K, the number of views.
        views: the recipe of augmentation of every view, see `unsup augment --list`.
        unlabelled: number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network; examples that are not images in another than ``mlp``; a
            recipe that does not fit.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = MixMatch(Event((4,), Support("binary")), classes=3, width=0.02, views="none")
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {
        "tiny": {"width": 0.01, "views": "none"},
        "paper": {"classes": 10, "net": "wrn-28-2", "ramp": 0.25},
    }
    fit_defaults = {"lr": 2e-3, "batch_size": 64, "schedule": "constant", "weight_decay": 0.02, "ema": 0.999}

    def __init__(
        self,
        event: Event,
        *,
        classes: Count = 2,
        net: BackboneName = "mlp",
        width: Positive = 1.0,
        weight: Weight = 75.0,
        ramp: Annotated[float, Within(0, 1)] = 1.0,
        temperature: Positive = 0.5,
        alpha: Positive = 0.75,
        guesses: Count = 2,
        views: str = "crop-flip",
        unlabelled: Count = 1,
    ) -> None:
        self.take(event, classes, net, width)
        self.weight, self.ramp, self.temperature, self.alpha, self.guesses = weight, ramp, temperature, alpha, guesses
        self.views = self.recipe_named(views)
        self.streams = {"unlabelled": unlabelled}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        assert batch.label is not None
        h = self.view(self.inputs(batch.x), self.views, 0.0, generator)
        u = self.inputs(batch["unlabelled"].x)
        views = [self.view(u, self.views, 0.0, generator) for _ in range(self.guesses)]
        y = one_hot(batch.label, self.classes).to(at_least_float32(h).dtype)
        q = self.guess(views).to(y.dtype)
        mixed = self.mixed([(h, y), *((view, q) for view in views)], generator)
        labelled, *other = self.together(*(x for x, _ in mixed))
        own, *guessed = (target for _, target in mixed)
        loss = soft_cross_entropy(own, labelled)
        distance = [
            (q - at_least_float32(logits).softmax(1)).square().mean(1) for q, logits in zip(guessed, other, strict=True)
        ]
        guess = grouped(torch.stack(distance).mean(0), len(batch))
        total: Tensor = loss + self.weight * linear_ramp(batch.time.share, 0.0, self.ramp) * guess
        right = (labelled.detach().argmax(1) == own.argmax(1)).to(loss.dtype)
        return {"loss": total, "cross_entropy": loss, "guess": guess, "accuracy": right}

    @torch.no_grad()
    def guess(self, views: list[Tensor]) -> Tensor:
        """q of several views of the same examples: ``(µ B, K)``."""
        with averages_kept():
            p = sum(at_least_float32(self.logits(view)).softmax(1) for view in views) / len(views)
        assert isinstance(p, Tensor)
        return sharpened(p, self.temperature)

    def mixed(self, parts: list[Mixture], generator: Generator | None) -> list[Mixture]:
        """Examples and their labels, each mixed with a partner from all parts of all processes; λ ≥ 1/2 for each."""
        whole = [(all_rows(x), all_rows(y)) for x, y in parts]
        others, labels = (torch.cat([pair[i] for pair in whole]) for i in range(2))
        partner = random.permutation(len(others), generator, like=others)
        found, before = [], 0
        for (x, y), (all_x, _) in zip(parts, whole, strict=True):
            start = before + first_row() * len(all_x) // len(whole[0][0])
            own = partner[start : start + len(x)]
            share = random.beta((len(x),), self.alpha, generator, like=y)
            share = torch.maximum(share, 1 - share)
            weight = share.to(x.dtype).view(-1, *(1,) * (x.ndim - 1))
            found.append((x.lerp(others[own], 1 - weight), y.lerp(labels[own], 1 - share[:, None])))
            before += len(all_x)
        return found
