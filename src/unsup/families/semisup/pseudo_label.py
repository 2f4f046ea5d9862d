"""Pseudo-label: the class that the classifier predicts for an unlabelled example is taken for its label.

    L = −log p(y | x) + α(t) · −log p(ŷ | u),      ŷ = argmax_y p(y | u)

drawn again at every step (Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep
Neural Networks", ICML workshop on challenges in representation learning). α rises linearly from 0 between two shares of
a run. With a threshold, only unlabelled examples whose p(ŷ | u) reaches it have a label; the mean is over all of them.
"""

from __future__ import annotations

from typing import Annotated

from torch import Generator, Tensor
from torch.nn.functional import cross_entropy

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels, grouped
from unsup.prob.consistency import linear_ramp
from unsup.prob.distributions import at_least_float32

Share = Annotated[float, Within(0, 1)]


class PseudoLabel(FewLabels):
    """Pseudo-label (Lee 2013, ICML workshop on challenges in representation learning).

    The terms are ``cross_entropy`` and ``accuracy`` of the labelled examples, ``pseudo``, the cross-entropy of
    predicted labels, and ``labelled``, the share of unlabelled examples that have one.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        weight: α at its end.
        start: the share of the run until which α = 0.
        end: the share of the run from which α is ``weight``.
        threshold: the least p(ŷ | u) of an example that gets a label.
        views: the recipe of augmentation of labelled and unlabelled examples, see `unsup augment --list`.
        unlabelled: number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network; examples that are not images in another than ``mlp``; a
            recipe that does not fit.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = PseudoLabel(Event((4,), Support("binary")), classes=3, width=0.02)
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {
        "tiny": {"width": 0.01},
        "paper": {"classes": 10, "net": "wrn-28-2", "views": "crop-flip", "threshold": 0.95},  # of Oliver et al. 2018
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        classes: Count = 2,
        net: BackboneName = "mlp",
        width: Positive = 1.0,
        weight: Weight = 3.0,
        start: Share = 0.17,
        end: Share = 1.0,
        threshold: Share = 0.0,
        views: str = "none",
        unlabelled: Count = 2,
    ) -> None:
        if end < start:
            raise InputError(f"PseudoLabel: end={end} should be at least start={start}")
        self.take(event, classes, net, width)
        self.weight, self.start, self.end, self.threshold = weight, start, end, threshold
        self.views = self.recipe_named(views)
        self.streams = {"unlabelled": unlabelled}

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        views = [self.view(self.inputs(x), self.views, 0.0, generator) for x in (batch.x, batch["unlabelled"].x)]
        labelled, other = self.together(*views)
        loss, terms = self.labelled_terms(labelled, batch.label)
        other = at_least_float32(other)
        sure, label = other.detach().softmax(1).max(1)
        has_label = (sure >= self.threshold).to(sure.dtype)
        pseudo = grouped(has_label * cross_entropy(other, label, reduction="none"), len(batch))
        total: Tensor = loss + self.weight * linear_ramp(batch.time.share, self.start, self.end) * pseudo
        return {"loss": total, **terms, "pseudo": pseudo, "labelled": grouped(has_label, len(batch))}
