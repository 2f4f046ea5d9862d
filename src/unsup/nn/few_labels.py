"""The base of classifiers that learn from few labels: a backbone, a linear layer, and the stream without labels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event
from unsup.core.model import Classifies, Symptom, Terms
from unsup.nn.augment import Recipe, augment
from unsup.nn.backbones import BackboneName, build_backbone
from unsup.nn.feature_model import LearnsFeatures, evaluating
from unsup.nn.inputs import Features
from unsup.prob.distributions import at_least_float32


class FewLabels(LearnsFeatures, Classifies):
    """Abstract: p(y | x) = softmax(W f(x) + b) with features f of a backbone.

    The constructor of a subclass calls `take`. Training reads ``batch.label`` and, unless `streams` is empty, the
    stream ``"unlabelled"``. Images of levels go into the backbone as they are in [0, 1]; other examples as one vector
    of features, and only into ``net="mlp"``.
    """

    needs_labels = True
    streams: Mapping[str, int] = {"unlabelled": 1}

    def take(self, event: Event, classes: int, net: BackboneName, width: float) -> None:
        """Called in the constructor."""
        owner = type(self).__name__
        if classes < 2:
            raise InputError(f"{owner}: classes={classes} should be at least 2")
        self.classes = classes
        self.features = None if _is_picture(event) else Features(event)
        if self.features is not None and net != "mlp":
            raise InputError(f"{owner}: net={net!r} takes images of levels; this data is {event}: use net='mlp'")
        own = event if self.features is None else Event((self.features.size, 1, 1), REAL, "image")
        self.backbone = build_backbone(net, own, width=width, owner=owner)
        self.head = nn.Linear(self.backbone.size, classes)

    def recipe_named(self, views: str) -> Recipe:
        """As of all models of features; examples that are not images have no recipes."""
        if self.features is not None and views != "none":
            owner = type(self).__name__
            raise InputError(f"{owner}: views={views!r} is for images; this data is {self.event}: use views='none'")
        return super().recipe_named(views)

    def view(self, h: Tensor, recipe: Recipe, noise: float, generator: Generator | None) -> Tensor:
        """A random view of inputs: augmented, with Gaussian noise of this deviation."""
        h = augment(h, recipe, generator)
        return h if not noise else h + noise * random.normal(h.shape, generator, like=h)

    def together(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """The logits of several inputs by one pass, in which batch statistics are those of all of them."""
        return self.logits(torch.cat(parts)).split([len(part) for part in parts])

    @property
    def code_size(self) -> int:
        return self.backbone.size

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the moments of the inputs."""
        if self.features is not None:
            self.features.prepare(batch.x, generator=generator)
        self.backbone.scale.prepare(self.inputs(batch.x))

    def inputs(self, x: Tensor) -> Tensor:
        """Raw examples as what the backbone takes, and noise is added to: ``(B, C, H, W)``."""
        if self.features is None:
            return self.unit(x)
        found: Tensor = self.features(x)
        return found[:, :, None, None]

    def logits(self, h: Tensor) -> Tensor:
        """Those of inputs: ``(B, K)``."""
        found: Tensor = self.head(self.backbone(h))
        return found

    def labelled_terms(self, logits: Tensor, label: Tensor | None) -> tuple[Tensor, Terms]:
        """−log p(y | x) of each example, and the terms that tell it, with the ``accuracy``."""
        assert label is not None
        loss = cross_entropy(at_least_float32(logits), label, reduction="none")
        right = logits.detach().argmax(1) == label
        return loss, {"cross_entropy": loss, "accuracy": right.to(loss.dtype)}

    def predict_proba(self, x: Tensor) -> Tensor:
        """p(y | x) of raw examples, ``(B, K)``, in evaluation mode."""
        self.event.check(x)
        with evaluating(self):
            return at_least_float32(self.logits(self.inputs(x))).softmax(1)

    def encode(self, x: Tensor) -> Tensor:
        """The features before the last layer, ``(B, F)``."""
        self.event.check_shape(x)
        found: Tensor = self.backbone(self.inputs(x))
        return found

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Nothing: a classifier is not said to collapse."""
        return None


def _is_picture(event: Event) -> bool:
    """Whether examples are images of levels."""
    return event.is_image and event.uniform is not None and event.uniform.kind in ("binary", "ordinal")


def grouped(value: Tensor, groups: int) -> Tensor:
    """The means of numbers of unlabelled examples, for each labelled one: ``(µ B,)`` → ``(B,)``."""
    return value.view(groups, -1).mean(1)
