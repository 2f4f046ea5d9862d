"""BYOL: a student predicts what a slowly moving teacher makes of another view. SimSiam: without the moving teacher.

With online projections z = g(f(view)), predictions q(z) and the teacher's projections z′ of the other view,

    L = ‖q(z_1)/|q(z_1)| − z′_2/|z′_2|‖² + ‖q(z_2)/|q(z_2)| − z′_1/|z′_1|‖²,

the *sum* of both directions. The teacher is an average over steps, θ′ ← m θ′ + (1 − m) θ, whose m rises to 1 (Grill et
al. 2020, https://arxiv.org/abs/2006.07733). SimSiam has no average: z′ = z without gradient, and the loss is
1 − ½ Σ cos, the mean of both directions (Chen, He 2021, https://arxiv.org/abs/2011.10566).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import Positive, Widths, Within, refuse_unused
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.augment import augment
from unsup.nn.backbones import BackboneName
from unsup.nn.feature_model import FeatureModel, reason_against_one
from unsup.nn.projector import projector
from unsup.nn.teacher import cosine_momentum, follow, teacher_of
from unsup.prob import contrast


class BYOL(FeatureModel):
    """Bootstrap your own latent (Grill et al. 2020), and SimSiam (Chen, He 2021) with ``teacher=False``.

    There are no negatives; the predictor, and the teacher, keep embeddings from collapsing. Each view is a forward pass
    of its own, so that no batch normalisation mixes both views. The teacher normalises by batches too, in training.

    Args:
        event: images of levels.
        net: the backbone.
        width: a factor of its numbers of channels.
        projection: widths of the projection head after the features.
        prediction: widths of the hidden layers of the predictor.
        views: the recipes of the two views, see `unsup augment --list`; one for both, or two.
        teacher: False: SimSiam; the projection then ends with a batch normalisation.
        momentum: m at the start; it rises to 1 by a cosine. For a teacher only.

    Raises:
        InputError: images that are too small for the backbone, recipes that are unknown or do not fit the images, or a
            momentum without a teacher.

    >>> from unsup.core.event import Support
    >>> event = Event((3, 8, 8), Support("ordinal", 256), "image")
    >>> BYOL(event, net="mlp", width=0.02, projection=(8,), prediction=(8,)).code_size
    20
    """

    presets = {
        "tiny": {"net": "mlp", "width": 0.02, "projection": (12, 8), "prediction": (10,)},
        "paper": {
            "net": "resnet50",
            "width": 1.0,
            "projection": (4096, 256),
            "prediction": (4096,),
            "views": ("byol-first", "byol-second"),
            "momentum": 0.996,
        },
        "paper-simsiam": {
            "net": "resnet50",
            "width": 1.0,
            "projection": (2048, 2048, 2048),
            "prediction": (512,),
            "views": ("moco-v2",),
            "teacher": False,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 256, "weight_decay": 1e-4, "warmup": 100}

    def __init__(
        self,
        event: Event,
        *,
        net: BackboneName = "resnet18",
        width: Positive = 0.25,
        projection: Widths = (512, 128),
        prediction: Widths = (512,),
        views: tuple[str, ...] = ("simclr-small",),
        teacher: bool = True,
        momentum: Annotated[float, Within(0, 1)] = 0.99,
    ) -> None:
        if not teacher:
            refuse_unused(BYOL, {"momentum": momentum}, needs="teacher=True", got=teacher)
        self.take(event, net, width)
        self.recipes = self.pair_of_recipes(views)
        self.momentum = momentum
        self.projector = projector((self.backbone.size, *projection), last_norm=not teacher, last_bias=False)
        self.predictor = projector((projection[-1], *prediction, projection[-1]))
        self.teacher = teacher_of(nn.Sequential(self.backbone, self.projector)) if teacher else None

    def reason_against_batch(self, count: int, whole: int) -> str | None:
        return reason_against_one(count)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        super().prepare(batch, generator=generator)
        if self.teacher is not None:
            self.teacher[0].load_state_dict(self.backbone.state_dict())

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss of each image, and the ``spread`` of the projections."""
        x = self.unit(batch.x)
        views = [augment(x, recipe, generator) for recipe in self.recipes]
        online = [self.projector(self.backbone(view)) for view in views]
        with torch.no_grad():
            targets = [z.detach() for z in online] if self.teacher is None else [self.teacher(view) for view in views]
        first, second = (
            contrast.cosine_distance(self.predictor(z), target)
            for z, target in zip(online, reversed(targets), strict=True)
        )
        loss: Tensor = first + second if self.teacher is not None else 0.25 * (first + second)
        return {"loss": loss, "spread": contrast.spread(online[0])}

    def after_step(self, time: Time) -> None:
        if self.teacher is not None:
            student = nn.Sequential(self.backbone, self.projector)
            follow(self.teacher, student, cosine_momentum(self.momentum, time.share))
