"""VICReg and Barlow Twins: two views agree, and the entries of embeddings vary and are not redundant.

VICReg, with the embeddings Z and Z′ of both views, ``(N, F)``:

    λ |Z − Z′|² / (N F) + μ [v(Z) + v(Z′)] / 2 + ν [c(Z) + c(Z′)],

    v(Z) = mean_j max(0, 1 − √(Var Z_j + ε)),       c(Z) = Σ_{i ≠ j} Cov(Z)_ij² / F

(Bardes, Ponce, LeCun 2022, https://arxiv.org/abs/2105.04906). Barlow Twins, with the correlation C of the entries of
both views over the batch:

    Σ_i (1 − C_ii)² + λ Σ_{i ≠ j} C_ij²

(Zbontar, Jing, Misra, LeCun, Deny 2021, https://arxiv.org/abs/2103.03230). No negatives, no teacher.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator

from unsup.core.batch import Batch
from unsup.core.config import Positive, Weight, Widths, refuse_unused
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.augment import augment
from unsup.nn.backbones import BackboneName
from unsup.nn.feature_model import FeatureModel, reason_against_one
from unsup.nn.projector import projector
from unsup.prob import contrast
from unsup.prob.distributions import at_least_float32


class VICReg(FeatureModel):
    """Variance-invariance-covariance regularisation (Bardes et al. 2022), and Barlow Twins (Zbontar et al. 2021).

    Embeddings are not normalised, and their statistics are those of the whole batch, over all processes. Each view is a
    forward pass of its own, so that no batch normalisation mixes both views.

    Args:
        event: images of levels.
        net: the backbone.
        width: a factor of its numbers of channels.
        expander: widths of the head after the features.
        views: the recipes of the two views, see `unsup augment --list`; one for both, or two.
        objective: the terms of VICReg, or those of Barlow Twins.
        invariance: λ of VICReg, the weight of the distance between the two views.
        variance: μ of VICReg, the weight of the hinge on the deviation of each feature.
        covariance: ν of VICReg, the weight of the covariances of the features.
        redundancy: λ of Barlow Twins.

    Raises:
        InputError: images that are too small for the backbone, a recipe that is unknown or does not fit them, or a
            weight of the other objective.

    >>> from unsup.core.event import Support
    >>> event = Event((3, 8, 8), Support("ordinal", 256), "image")
    >>> VICReg(event, net="mlp", width=0.02, expander=(16,)).code_size
    20
    """

    presets = {
        "tiny": {"net": "mlp", "width": 0.02, "expander": (12, 8)},
        "paper": {
            "net": "resnet50",
            "width": 1.0,
            "expander": (8192, 8192, 8192),
            "views": ("byol-first", "byol-second"),
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 256, "weight_decay": 1e-4, "warmup": 100}

    def __init__(
        self,
        event: Event,
        *,
        net: BackboneName = "resnet18",
        width: Positive = 0.25,
        expander: Widths = (512, 512, 512),
        views: tuple[str, ...] = ("simclr-small",),
        objective: Literal["vicreg", "barlow-twins"] = "vicreg",
        invariance: Weight = 25.0,
        variance: Weight = 25.0,
        covariance: Weight = 1.0,
        redundancy: Weight = 0.005,
    ) -> None:
        if objective == "vicreg":
            refuse_unused(VICReg, {"redundancy": redundancy}, needs="objective='barlow-twins'", got=objective)
        else:
            weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
            refuse_unused(VICReg, weights, needs="objective='vicreg'", got=objective)
        self.take(event, net, width)
        self.recipes, self.objective = self.pair_of_recipes(views), objective
        self.invariance, self.variance, self.covariance = invariance, variance, covariance
        self.redundancy = redundancy
        self.head = projector((self.backbone.size, *expander), last_bias=False)

    def reason_against_batch(self, count: int, whole: int) -> str | None:
        return reason_against_one(count)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The weighted sum, each of its terms, and the ``spread`` of the embeddings."""
        x = self.unit(batch.x)
        views = [augment(x, recipe, generator) for recipe in self.recipes]
        first, second = (at_least_float32(self.head(self.backbone(view))) for view in views)
        beside: Terms = {"spread": contrast.spread(first)}
        if self.objective == "barlow-twins":
            on, off = contrast.redundancy(contrast.cross_correlation(first, second), self.redundancy)
            return {"loss": on + off, "invariance": on.detach(), "redundancy": off.detach()} | beside
        distance = (first - second).square().mean(1)
        covariances = [contrast.moments(z)[1] for z in (first, second)]
        variance = 0.5 * sum(contrast.variance_hinge(own) for own in covariances)
        covariance = sum(contrast.covariance_penalty(own) for own in covariances)
        loss = self.invariance * distance + self.variance * variance + self.covariance * covariance
        terms = {"invariance": distance, "variance": variance, "covariance": covariance}
        return {"loss": loss} | {name: torch.as_tensor(term).detach() for name, term in terms.items()} | beside
