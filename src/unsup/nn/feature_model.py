"""The base of models that learn features of images, without a density: a backbone, and what collapse looks like."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice, CanEncode, Model, Symptom
from unsup.nn.augment import Recipe, recipe_named
from unsup.nn.backbone import Backbone
from unsup.nn.backbones import BackboneName, build_backbone
from unsup.prob.contrast import effective_rank

_COLLAPSED = 0.1  # of the spread of embeddings, which is 1 on the sphere
_FEWEST, _TOLD, _AT_ONCE = 10, 1000, 100  # examples by which the rank is told, and encoded at once


class LearnsFeatures(Model, CanEncode):
    """Abstract: features of examples of numbers, which are all that is used after training; there is no density."""

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        """In a contest only if named: its measures are of likelihoods and samples."""
        return Advice(turn=None)

    @property
    @abstractmethod
    def code_size(self) -> int:
        """F, the number of features."""

    def unit(self, x: Tensor) -> Tensor:
        """Raw levels as numbers in [0, 1] of the type in which the model computes; real entries as they are."""
        support = self.event.uniform
        assert support is not None
        if not support.is_discrete:
            return x.to(self.dtype)
        scaled = (x - support.low).to(self.dtype) / (support.levels - 1)
        return scaled.clamp(0, 1)

    def recipe_named(self, views: str) -> Recipe:
        """The recipe of augmentation of this name, for the images of the model.

        Raises:
            InputError: there is no such recipe, or it does not fit the images.
        """
        recipe = recipe_named(views)
        reason = recipe.reason_against(self.event.shape)
        if reason is not None:
            raise InputError(
                f"{type(self).__name__}: views={views!r} does not fit: an example {reason}; use --model.views none, or "
                "a recipe that fits"
            )
        return recipe

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        """Collapse: all embeddings are nearly the same."""
        spread = next((value for name, value in terms.items() if name.split("/")[-1] == "spread"), None)
        if spread is None or not spread < _COLLAPSED:
            return None
        return Symptom(
            "collapse",
            f"the embeddings hardly differ: the spread of their entries is {spread:.2g} of that on a sphere; try "
            "larger batches, a smaller learning rate, a longer warmup, or another seed",
        )

    @torch.no_grad()
    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """The effective rank of the features of some examples, unless they are few: it is less than their number."""
        if batch is None or len(batch) < _FEWEST:
            return ()
        x = batch.x[:_TOLD]
        with evaluating(self):
            rank = effective_rank(torch.cat([self.encode(part) for part in x.split(_AT_ONCE)]))
        return (f"features: {self.code_size}, of effective rank {rank:.1f} ({len(x):,} examples)",)


def reason_against_one(count: int) -> str | None:
    """`Model.reason_against_batch` of models that compare examples, or normalise them by statistics of a batch.

    >>> reason_against_one(1)
    'needs 2 examples or more at once, and has 1; use more examples, a larger --batch-size, or a smaller --accumulate'
    """
    if count >= 2:
        return None
    return (
        f"needs 2 examples or more at once, and has {count}; use more examples, a larger --batch-size, or a smaller "
        "--accumulate"
    )


class FeatureModel(LearnsFeatures):
    """Abstract: features of images of levels by a backbone, which is all that is used after training.

    Its constructor calls `take`, or `take_backbone` with a network of its own. Codes are the features of the backbone,
    before any head; the gradient of `encode` is that of these features.
    """

    def take(self, event: Event, net: BackboneName, width: float) -> None:
        """Called in the constructor."""
        self.take_backbone(build_backbone(net, event, width=width, owner=type(self).__name__))

    def take_backbone(self, backbone: Backbone) -> None:
        """Called in the constructor, instead of `take`."""
        self.backbone = backbone
        self.stage: int | None = None

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images (C, H, W)"
        if event.uniform is None or event.uniform.kind not in ("binary", "ordinal"):
            return "takes images of levels, such as 0 to 255"
        return None

    @property
    def code_size(self) -> int:
        """F, the number of features."""
        return self.backbone.size if self.stage is None else self.backbone.sizes[self.stage - 1]

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the moments of the channels."""
        self.backbone.scale.prepare(self.unit(batch.x))

    def seen(self, x: Tensor) -> Tensor:
        """What the backbone is given of raw images in `encode`: `unit`, unless a model normalises it further."""
        return self.unit(x)

    def stage_numbered(self, stage: int) -> int:
        """``stage``, counted from 1, if the backbone has it.

        Raises:
            InputError: the backbone has fewer stages.
        """
        stages = len(self.backbone.stages)
        if stage > stages:
            raise InputError(f"{type(self).__name__}: stage={stage} should be at most {stages}, the stages of this net")
        return stage

    def pair_of_recipes(self, views: tuple[str, ...]) -> tuple[Recipe, Recipe]:
        """The recipes of two views: one name stands for both.

        Raises:
            InputError: as for `recipe_named`, or not one or two names.
        """
        if len(views) not in (1, 2):
            raise InputError(
                f"{type(self).__name__}: views={views} are {len(views)} recipes; expected one for both views, or two"
            )
        return self.recipe_named(views[0]), self.recipe_named(views[-1])

    def encode(self, x: Tensor) -> Tensor:
        """Features of raw images, ``(B, C, H, W)`` → ``(B, F)``; in training mode with the statistics of the batch."""
        self.event.check_shape(x)
        found: Tensor = self.backbone(self.seen(x), self.stage)
        return found


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """In this context, a network is in evaluation mode."""
    training = net.training
    if training:
        net.eval()
    try:
        yield
    finally:
        if training:
            net.train()
