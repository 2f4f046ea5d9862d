"""Supervised: a classifier of the labelled examples alone, the baseline of the others, with the same networks.

    L = −log p(y | x)

Oliver, Odena, Raffel, Cubuk, Goodfellow 2018 (https://arxiv.org/abs/1804.09170): a method that uses unlabelled
examples is to be compared with the same network, optimizer and effort on the labels alone.
"""

from __future__ import annotations

from torch import Generator

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.backbones import BackboneName
from unsup.nn.few_labels import FewLabels


class Supervised(FewLabels):
    """A classifier of labelled examples, the baseline of Oliver et al. 2018 (https://arxiv.org/abs/1804.09170).

    The terms are ``cross_entropy``, in nats, and ``accuracy``.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.

    Raises:
        InputError: images that are too small for the network, or examples that are not images in another than ``mlp``.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = Supervised(Event((4,), Support("binary")), classes=3, width=0.02)
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {"tiny": {"width": 0.01}, "paper": {"classes": 10, "net": "wrn-28-2"}}
    fit_defaults = {"lr": 1e-3, "batch_size": 100}
    streams = {}

    def __init__(self, event: Event, *, classes: Count = 2, net: BackboneName = "mlp", width: Positive = 1.0) -> None:
        self.take(event, classes, net, width)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(y | x) of each example."""
        loss, terms = self.labelled_terms(self.logits(self.inputs(batch.x)), batch.label)
        return {"loss": loss, **terms}
