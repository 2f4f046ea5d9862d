"""FixMatch: the class that is predicted for a weak view, if it is certain, is the label of a strong view.

    L = −log p(y | weak(x)) + λ 1[max p(y | weak(u)) ≥ τ] · −log p(ŷ | strong(u)),      ŷ = argmax p(y | weak(u))

with ŷ without gradient (Sohn et al. 2020, https://arxiv.org/abs/2001.07685, eq. 3 and 4). The mean of the second term
is over all unlabelled examples, masked or not, so that its weight grows as the classifier becomes certain.
"""

from __future__ import annotations

from typing import Annotated

from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels, grouped
from unsup.prob.distributions import at_least_float32


class FixMatch(FewLabels):
    """FixMatch (Sohn et al. 2020, https://arxiv.org/abs/2001.07685).

    The terms are ``cross_entropy`` and ``accuracy`` of the labelled examples, ``pseudo``, the masked cross-entropy of
    the strong views, and ``mask``, the share of unlabelled examples that count.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        weight: λ.
        threshold: τ.
        views: the weak recipe of augmentation, see `unsup augment --list`.
        strong: the strong recipe.
        noise: the deviation of Gaussian noise in strong views, for examples that have no recipes.
        unlabelled: µ, the number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network; examples that are not images in another than ``mlp``; a
            recipe that does not fit.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = FixMatch(Event((4,), Support("binary")), classes=3, width=0.02, views="none", strong="none", noise=0.3)
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
        "ema": 0.999,
    }

    def __init__(
        self,
        event: Event,
        *,
        classes: Count = 2,
        net: BackboneName = "mlp",
        width: Positive = 1.0,
        weight: Weight = 1.0,
        threshold: Annotated[float, Within(0, 1)] = 0.95,
        views: str = "crop-flip",
        strong: str = "randaugment",
        noise: Weight = 0.0,
        unlabelled: Count = 7,
    ) -> None:
        self.take(event, classes, net, width)
        self.weight, self.threshold = weight, threshold
        self.views, self.strong, self.noise = self.recipe_named(views), self.recipe_named(strong), noise
        self.streams = {"unlabelled": unlabelled}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        h, u = self.inputs(batch.x), self.inputs(batch["unlabelled"].x)
        weak = [self.view(each, self.views, 0.0, generator) for each in (h, u)]
        labelled, plain, moved = self.together(*weak, self.view(u, self.strong, self.noise, generator))
        loss, terms = self.labelled_terms(labelled, batch.label)
        sure, label = at_least_float32(plain.detach()).softmax(1).max(1)
        mask = (sure >= self.threshold).to(loss.dtype)
        each = cross_entropy(at_least_float32(moved), label, reduction="none")
        pseudo = grouped(mask * each, len(batch))
        total: Tensor = loss + self.weight * pseudo
        return {"loss": total, **terms, "pseudo": pseudo, "mask": grouped(mask, len(batch))}
