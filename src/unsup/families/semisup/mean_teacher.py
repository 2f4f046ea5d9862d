"""Mean teacher: predictions are to agree with those of an average of the network over steps.

    L = −log p(y | x) + w(t) ‖p(y | v₁) − p′(y | v₂)‖² / K,      θ′ ← m θ′ + (1 − m) θ

with views v₁ and v₂ of labelled and unlabelled examples, and p′ of the teacher θ′, without gradient (Tarvainen, Valpola
2017, https://arxiv.org/abs/1703.01780). The teacher normalises by its own batches, with noise of its own, and it is
what predicts in the end. w(t) = w exp(−5 (1 − t)²) rises until a share of the run; m is at most 1 − 1/(step + 1).
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import Count, Positive, Weight, Within
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.backbones import BackboneName
from unsup.nn.feature_model import evaluating
from unsup.nn.few_labels import FewLabels, grouped
from unsup.nn.teacher import follow, teacher_of
from unsup.prob.consistency import gaussian_ramp, squared_distance
from unsup.prob.distributions import at_least_float32


class MeanTeacher(FewLabels):
    """Mean teacher (Tarvainen, Valpola 2017, https://arxiv.org/abs/1703.01780).

    The terms are ``cross_entropy`` and ``accuracy`` of the labelled examples by the student, and ``consistency``.

    Args:
        event: images of levels, or any other examples with ``net="mlp"``.
        classes: K, the number of classes.
        net: the network before the last layer.
        width: a factor of its numbers of channels.
        weight: w.
        momentum: m.
        views: the recipe of augmentation of every view, see `unsup augment --list`.
        noise: the deviation of Gaussian noise in every view; of images with pixels from 0 to 1.
        ramp: the share of the run after which w(t) = w.
        unlabelled: number of unlabelled examples for each labelled one.

    Raises:
        InputError: images that are too small for the network; examples that are not images in another than ``mlp``; a
            recipe that does not fit.

    >>> import torch
    >>> from unsup.core.event import Support
    >>> model = MeanTeacher(Event((4,), Support("binary")), classes=3, width=0.02)
    >>> model.predict_proba(torch.zeros(2, 4, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """

    presets = {
        "tiny": {"width": 0.01},
        # 100 · 4,000 / 50,000 of the mean over classes, for 4,000 labels of CIFAR-10.
        "paper": {
            "classes": 10,
            "net": "conv-large",
            "weight": 8.0,
            "momentum": 0.999,
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
        weight: Weight = 8.0,
        momentum: Annotated[float, Within(0, 1)] = 0.99,
        views: str = "none",
        noise: Weight = 0.15,
        ramp: Annotated[float, Within(0, 1)] = 0.27,
        unlabelled: Count = 2,
    ) -> None:
        self.take(event, classes, net, width)
        self.weight, self.momentum, self.ramp = weight, momentum, ramp
        self.views, self.noise = self.recipe_named(views), noise
        self.streams = {"unlabelled": unlabelled}
        self.teacher = teacher_of(nn.Sequential(self.backbone, self.head))

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        super().prepare(batch, generator=generator)
        self.teacher.load_state_dict(nn.Sequential(self.backbone, self.head).state_dict())

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss and its terms, one number for each labelled example."""
        inputs = [self.inputs(x) for x in (batch.x, batch["unlabelled"].x)]
        student, teacher = ([self.view(h, self.views, self.noise, generator) for h in inputs] for _ in range(2))
        labelled, other = self.together(*student)
        with torch.no_grad():
            targets = self.teacher(torch.cat(teacher)).split([len(h) for h in inputs])
        loss, terms = self.labelled_terms(labelled, batch.label)
        both = [
            grouped(squared_distance(logits, target), len(batch))
            for logits, target in zip((labelled, other), targets, strict=True)
        ]
        each = self.streams["unlabelled"]
        consistency = (both[0] + each * both[1]) / (1 + each)
        total: Tensor = loss + self.weight * gaussian_ramp(batch.time.share, self.ramp) * consistency
        return {"loss": total, **terms, "consistency": consistency}

    def after_step(self, time: Time) -> None:
        follow(self.teacher, nn.Sequential(self.backbone, self.head), min(self.momentum, 1 - 1 / (time.step + 1)))

    def predict_proba(self, x: Tensor) -> Tensor:
        """p(y | x) of raw examples by the teacher, ``(B, K)``, in evaluation mode."""
        self.event.check(x)
        with evaluating(self):
            return at_least_float32(self.teacher(self.inputs(x))).softmax(1)

    def encode(self, x: Tensor) -> Tensor:
        """The features of the teacher before its last layer, ``(B, F)``."""
        self.event.check_shape(x)
        found: Tensor = self.teacher[0](self.inputs(x))
        return found
