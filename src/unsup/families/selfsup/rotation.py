"""Rotation: features by telling by how many quarter turns an image is rotated.

All four rotations of each image are classified in the same batch (Gidaris, Singh, Komodakis 2018,
https://arxiv.org/abs/1803.07728, eq. 2 and 3):

    L(x) = −(1/4) Σ_y log p(y | g(x, y)),      y = 0, 90, 180, 270 degrees

g transposes and flips, so that a rotation changes no value, and leaves no traces of interpolation by which the task
could be solved. The features that serve other tasks best are those of a middle stage: the last one is specific to the
rotations.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.augment import augment
from unsup.nn.backbones import BackboneName
from unsup.nn.feature_model import FeatureModel
from unsup.nn.guesses import guesses
from unsup.prob.crops import quarter_turns

ROTATIONS = 4


class Rotation(FeatureModel):
    """Prediction of the rotation of an image (Gidaris, Singh, Komodakis 2018, https://arxiv.org/abs/1803.07728).

    The terms are ``loss``, in nats, and ``accuracy``, means over the four rotations of an example; by chance they are
    log 4 and 1/4. All rotations are in one forward pass, so that a batch of B images takes 4 B of the network, and
    batch normalisation sees all of them.

    Args:
        event: square images of levels.
        net: the backbone; ``nin-4`` is that of the paper for CIFAR-10, of four blocks.
        width: a factor of its numbers of channels.
        stage: the stage, counted from 1, whose pooled maps are the features. None: the middle one, the earlier of two.
        views: the recipe of augmentation before the rotations, see `unsup augment --list`.

    Raises:
        InputError: images that are not square or too small, a stage that the net does not have, or a recipe that is
            unknown or does not fit them.

    >>> import torch
    >>> from unsup import Batch, Event, Support
    >>> model = Rotation(Event((1, 8, 8), Support("binary"), "image"), net="mlp", width=0.1)
    >>> x = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)  # looks the same from all sides
    >>> terms = model.loss(Batch(x))
    >>> round(float(terms["accuracy"].mean()), 2)
    0.25
    """

    presets = {
        "tiny": {"net": "mlp", "width": 0.02},
        "paper": {"net": "nin-4", "width": 1.0, "stage": 2},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 32}

    def __init__(
        self,
        event: Event,
        *,
        net: BackboneName = "nin-4",
        width: Positive = 0.5,
        stage: Count | None = None,
        views: str = "crop-flip",
    ) -> None:
        self.take(event, net, width)
        self.recipe = self.recipe_named(views)
        stages = len(self.backbone.stages)
        self.stage = (stages + 1) // 2 if stage is None else self.stage_numbered(stage)
        self.head = nn.Linear(self.backbone.size, ROTATIONS)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        reason = super().reason_against(event)
        if reason is None and event.shape[1] != event.shape[2]:
            return "takes square images, which keep their shape when they are turned"
        return reason

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and ``accuracy`` of each example."""
        turned = quarter_turns(self.view(self.unit(batch.x), generator)).flatten(0, 1)  # (4 B, C, H, W)
        logits = self.head(self.backbone(turned)).unflatten(0, (ROTATIONS, -1)).transpose(0, 1)  # (B, 4, 4)
        target = torch.arange(ROTATIONS, device=logits.device).expand(len(logits), -1)
        return guesses(logits, target)

    def view(self, x: Tensor, generator: Generator | None) -> Tensor:
        """The images in [0, 1] that are rotated."""
        return augment(x, self.recipe, generator)
