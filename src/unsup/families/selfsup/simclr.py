"""SimCLR: two views of the same image are near each other, and far from the views of all other images of the batch.

With z = g(f(view)) of 2N views and the cosine s, the loss of view i with its twin j is the normalised cross-entropy

    l(i, j) = −log exp(s_ij / τ) / Σ_{k ≠ i} exp(s_ik / τ),

averaged over all views (NT-Xent). Features are f, before the projection head g.

Chen, Kornblith, Norouzi, Hinton 2020, https://arxiv.org/abs/2002.05709.
"""

from __future__ import annotations

import torch
from torch import Generator

from unsup.core.batch import Batch
from unsup.core.config import Positive, Widths
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.augment import augment
from unsup.nn.backbones import BackboneName
from unsup.nn.feature_model import FeatureModel, reason_against_one
from unsup.nn.projector import projector
from unsup.prob import contrast


class SimCLR(FeatureModel):
    """Contrastive learning of visual representations (Chen et al. 2020, https://arxiv.org/abs/2002.05709).

    All other views of the batch are negatives: larger batches are better. Both views are one forward pass, whose batch
    normalisation sees all of them; with several processes these are the views of all processes. The last layer of the
    head is followed by a batch normalisation without gain and offset.

    Args:
        event: images of levels.
        net: the backbone.
        width: a factor of its numbers of channels.
        projection: widths of the head after the features; None: the size of the features, and 128.
        views: the recipe of augmentation, see `unsup augment --list`.
        temperature: τ.

    Raises:
        InputError: images that are too small for the backbone, or a recipe that is unknown or does not fit them.

    >>> from unsup.core.event import Support
    >>> event = Event((3, 8, 8), Support("ordinal", 256), "image")
    >>> model = SimCLR(event, net="mlp", width=0.02)
    >>> model.encode(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 20])
    """

    presets = {
        "tiny": {"net": "mlp", "width": 0.02, "projection": (12, 8)},
        "paper": {
            "net": "resnet50",
            "width": 1.0,
            "projection": (2048, 128),
            "views": "simclr",
            "temperature": 0.1,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 256, "weight_decay": 1e-4, "warmup": 100}

    def __init__(
        self,
        event: Event,
        *,
        net: BackboneName = "resnet18",
        width: Positive = 0.25,
        projection: Widths | None = None,
        views: str = "simclr-small",
        temperature: Positive = 0.5,
    ) -> None:
        self.take(event, net, width)
        self.recipe, self.temperature = self.recipe_named(views), temperature
        widths = (self.backbone.size, 128) if projection is None else projection
        self.head = projector((self.backbone.size, *widths), last_norm=True)

    def reason_against_batch(self, count: int, whole: int) -> str | None:
        return reason_against_one(count)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """NT-Xent of each image in nats, the mean over its two views, and the ``spread`` of the embeddings."""
        x = self.unit(batch.x)
        views = torch.cat([augment(x, self.recipe, generator) for _ in range(2)])
        z = self.head(self.backbone(views))
        first, second = z.chunk(2)
        return {"loss": contrast.nt_xent(first, second, self.temperature), "spread": contrast.spread(first)}
