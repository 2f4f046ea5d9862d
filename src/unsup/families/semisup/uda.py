"""UDA: predictions of strongly augmented examples are to be those of the unchanged ones.

    L = −log p(y | x) 1[p(y | x) ≤ η(t)] + λ 1[max p(y | u) ≥ τ] KL(q ‖ p(y | strong(u))),      q = sharpen(p(y | u), T)

with q without gradient (Xie, Dai, Hovy, Luong, Le 2020, https://arxiv.org/abs/1904.12848). The mean of the second term
is over all unlabelled examples, masked or not. Training signal annealing leaves out the labelled examples that are
already predicted with more than η(t), which rises from 1/K to 1; the mean of the first term is over the others.
"""

from __future__ import annotations

from typing import Annotated

from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.core.parallel import mean_over_rows
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels, grouped
from unsup.prob.consistency import Schedule, annealed_threshold, divergence
from unsup.prob.distributions import at_least_float32


class UDA(FewLabels):
    """Unsupervised data augmentation (Xie et al. 2020, https://arxiv.org/abs/1904.12848).

    The terms are ``cross_entropy`` of the labelled examples that are not left out, ``consistency``, the masked
    divergence, ``mask``, the share of unlabelled examples that count, and ``accuracy``.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        weight: λ.
        threshold: τ.
        temperature: T.
        annealing: how η(t) rises; ``none`` leaves no example out.
        views: the recipe of augmentation of labelled examples, and of unlabelled ones for q.
        strong: the strong recipe.
        noise: the deviation of Gaussian noise in strong views, for examples that have no recipes.
        unlabelled: number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network; examples that are not images in another than ``mlp``; a
            recipe that does not fit.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = UDA(Event((4,), Support("binary")), classes=3, width=0.02, views="none", strong="none", noise=0.3)
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {
        "tiny": {"width": 0.01, "views": "none", "strong": "none", "noise": 0.3},
        "paper": {"classes": 10, "net": "wrn-28-2"},
    }
    fit_defaults = {
        "optimizer": "sgd",
        "lr": 0.03,
        "batch_size": 64,
        "weight_decay": 5e-4,
    }

    def __init__(
        self,
        event: Event,
        *,
        classes: Count = 2,
        net: BackboneName = "mlp",
        width: Positive = 1.0,
        weight: Weight = 1.0,
        threshold: Annotated[float, Within(0, 1)] = 0.8,
        temperature: Positive = 0.4,
        annealing: Schedule = "none",
        views: str = "crop-flip",
        strong: str = "randaugment",
        noise: Weight = 0.0,
        unlabelled: Count = 7,
    ) -> None:
        self.take(event, classes, net, width)
        self.weight, self.threshold, self.temperature, self.annealing = weight, threshold, temperature, annealing
        self.views, self.strong, self.noise = self.recipe_named(views), self.recipe_named(strong), noise
        self.streams = {"unlabelled": unlabelled}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        h, u = self.inputs(batch.x), self.inputs(batch["unlabelled"].x)
        weak = [self.view(each, self.views, 0.0, generator) for each in (h, u)]
        labelled, plain, moved = self.together(*weak, self.view(u, self.strong, self.noise, generator))
        loss, terms = self.labelled_terms(labelled, batch.label)
        kept = self.kept(loss.detach(), batch.time.share)
        plain = at_least_float32(plain.detach())
        mask = (plain.softmax(1).amax(1) >= self.threshold).to(loss.dtype)
        consistency = grouped(mask * divergence(plain / self.temperature, moved), len(batch))
        annealed = loss * kept
        total: Tensor = annealed + self.weight * consistency
        told = {"consistency": consistency, "mask": grouped(mask, len(batch))}
        return {"loss": total, **terms, "cross_entropy": annealed, **told}

    def kept(self, loss: Tensor, share: float) -> Tensor:
        """Weights of labelled examples whose mean is 1: 0 of those with p(y | x) > η."""
        kept = ((-loss).exp() <= annealed_threshold(self.annealing, share, self.classes)).to(loss.dtype)
        return kept / mean_over_rows(kept.mean()).clamp_min(1e-12)
