"""Entropy minimisation: unlabelled examples are to have certain classes. With consistency, the Π-model.

    L = −log p(y | x) + λ w(t) H(p(y | u)) + γ w(t) ‖p(y | u₁) − p(y | u₂)‖² / K

for labelled x and unlabelled u (Grandvalet, Bengio 2005, https://papers.nips.cc/paper/2740). The last term is that of
the Π-model (Laine, Aila 2017, https://arxiv.org/abs/1610.02242, algorithm 1): two views of the same example, and the
gradient through both. w(t) = exp(−5 (1 − t)²) rises until a share of the run.

Entropy alone is also least if all unlabelled examples have one class.
"""

from __future__ import annotations

from typing import Annotated

from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels, grouped
from unsup.prob import consistency as losses


class EntropyMinimisation(FewLabels):
    """Entropy minimisation (Grandvalet, Bengio 2005, https://papers.nips.cc/paper/2740), and the Π-model.

    The terms are ``cross_entropy`` and ``accuracy`` of the labelled examples, ``entropy`` in nats and ``consistency``
    of the unlabelled ones.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        entropy: λ.
        consistency: γ.
        views: the recipe of augmentation of every view, see `unsup augment --list`.
        noise: the deviation of Gaussian noise in every view; of images with pixels from 0 to 1.
        ramp: the share of the run after which w = 1.
        unlabelled: number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network; examples that are not images in another than ``mlp``; a
            recipe that does not fit.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = EntropyMinimisation(Event((4,), Support("binary")), classes=3, width=0.02)
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {
        "tiny": {"width": 0.01},
        # The Π-model on CIFAR-10 with 4,000 labels: 100 · 4,000 / 50,000 of the mean over classes.
        "paper": {
            "classes": 10,
            "net": "conv-large",
            "entropy": 0.0,
            "consistency": 8.0,
            "views": "crop-flip",
            "noise": 0.15,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        classes: Count = 2,
        net: BackboneName = "mlp",
        width: Positive = 1.0,
        entropy: Weight = 1.0,
        consistency: Weight = 0.0,
        views: str = "none",
        noise: Weight = 0.0,
        ramp: Annotated[float, Within(0, 1)] = 0.27,
        unlabelled: Count = 2,
    ) -> None:
        self.take(event, classes, net, width)
        self.entropy, self.consistency = entropy, consistency
        self.views, self.noise, self.ramp = self.recipe_named(views), noise, ramp
        self.streams = {"unlabelled": unlabelled}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        h, u = self.inputs(batch.x), self.inputs(batch["unlabelled"].x)
        views = [self.view(each, self.views, self.noise, generator) for each in (h, u)]
        if self.consistency:
            views.append(self.view(u, self.views, self.noise, generator))
        labelled, first, *second = self.together(*views)
        loss, terms = self.labelled_terms(labelled, batch.label)
        rise = losses.gaussian_ramp(batch.time.share, self.ramp)
        entropy = grouped(losses.entropy(first), len(batch))
        total: Tensor = loss + rise * self.entropy * entropy
        told = {"entropy": entropy}
        if self.consistency:
            told["consistency"] = grouped(losses.squared_distance(first, second[0]), len(batch))
            total = total + rise * self.consistency * told["consistency"]
        return {"loss": total, **terms, **told}
