"""MoCo: queries of a student against keys of a slowly moving teacher, with a queue of earlier keys as negatives.

    L = −log exp(q·k₊ / τ) / (exp(q·k₊ / τ) + Σ_{k in queue} exp(q·k / τ)),

q of one view by the student, k₊ of the other view by the teacher θ′ ← m θ′ + (1 − m) θ, which has no gradient. The
queue is read before the keys of the step are put into it (He, Fan, Wu, Xie, Girshick 2020,
https://arxiv.org/abs/1911.05722). Version 2 has a head of two layers and stronger views (Chen, Fan, Girshick, He 2020,
https://arxiv.org/abs/2003.04297).

Batch normalisation would tell which key is in the batch of a query. Its statistics are therefore those of groups of
examples, two groups or more, and the examples of a batch are shuffled between groups before the teacher sees them: the
paper shuffles them between GPUs.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core import random
from unsup.core.batch import Batch, Time
from unsup.core.config import AtLeast, Count, Positive, Widths, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.core.parallel import gather_rows, is_last_part, own_rows, rows_together
from unsup.nn.augment import augment
from unsup.nn.backbones import BackboneName
from unsup.nn.feature_model import FeatureModel
from unsup.nn.norm import statistics_of_groups
from unsup.nn.projector import projector
from unsup.nn.ring_buffer import RingBuffer
from unsup.nn.teacher import follow, teacher_of
from unsup.prob import contrast

_FEWEST = 4  # two groups of two examples: the normalised activity of a single one would be 0


class MoCo(FeatureModel):
    """Momentum contrast (He et al. 2020; version 2: Chen et al. 2020).

    Args:
        event: images of levels.
        net: the backbone.
        width: a factor of its numbers of channels.
        projection: widths of the head after the features; one width is the linear head of version 1.
        views: the recipe of augmentation, see `unsup augment --list`.
        temperature: τ.
        queue: K, the number of earlier keys; at least the batch.
        momentum: m.
        group: number of examples that share the statistics of a batch normalisation. A remainder of the batch is spread
            over the groups, and there are at least two. Processes have complete groups.

    Raises:
        InputError: images that are too small for the backbone, or a recipe that is unknown or does not fit them.

    >>> from unsup.core.event import Support
    >>> event = Event((3, 8, 8), Support("ordinal", 256), "image")
    >>> MoCo(event, net="mlp", width=0.02, queue=64).queue.rows.shape
    torch.Size([64, 128])
    """

    presets = {
        "tiny": {"net": "mlp", "width": 0.02, "projection": (12, 8), "queue": 512, "group": 2},
        "paper": {
            "net": "resnet50",
            "width": 1.0,
            "projection": (128,),
            "views": "moco-v1",
            "temperature": 0.07,
            "queue": 65_536,
            "momentum": 0.999,
        },
        "paper-v2": {
            "net": "resnet50",
            "width": 1.0,
            "projection": (2048, 128),
            "views": "moco-v2",
            "temperature": 0.2,
            "queue": 65_536,
            "momentum": 0.999,
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 256, "weight_decay": 1e-4, "warmup": 100}

    def __init__(
        self,
        event: Event,
        *,
        net: BackboneName = "resnet18",
        width: Positive = 0.25,
        projection: Widths = (128, 128),
        views: str = "simclr-small",
        temperature: Positive = 0.2,
        queue: Count = 4096,
        momentum: Annotated[float, Within(0, 1)] = 0.99,
        group: Annotated[int, AtLeast(2)] = 32,
    ) -> None:
        self.take(event, net, width)
        self.recipe, self.temperature, self.momentum = self.recipe_named(views), temperature, momentum
        self.packing = group
        self.head = projector((self.backbone.size, *projection), norm=False)
        self.teacher = teacher_of(nn.Sequential(self.backbone, self.head))
        self.queue = RingBuffer(queue, projection[-1])
        self.queue.rows.copy_(contrast.unit(torch.randn(self.queue.rows.shape)))
        self._waiting: list[Tensor] = []  # keys of the parts of a batch

    def reason_against_batch(self, count: int, whole: int) -> str | None:
        if count < _FEWEST:
            return (
                f"needs {_FEWEST} examples or more at once, two groups of two (--model.group), and has {count}; "
                "use a larger --batch-size"
            )
        size = len(self.queue.rows)
        if whole > size:
            return (
                f"has a batch of {whole} examples and a queue of {size} keys; the queue must be at least as long "
                "(--model.queue), or the batch smaller (--batch-size)"
            )
        return None

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        super().prepare(batch, generator=generator)
        self.teacher[0].load_state_dict(self.backbone.state_dict())

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """InfoNCE of each image in nats, the share of queries whose key comes first, and the ``spread`` of queries.

        In training mode, the keys are put into the queue.
        """
        if self.training:
            reason = self.reason_against_batch(rows_together() or len(batch), random.whole_count(len(batch)))
            if reason is not None:
                raise InputError(f"MoCo {reason}")
        x = self.unit(batch.x)
        one, other = (augment(x, self.recipe, generator) for _ in range(2))
        with statistics_of_groups(self.packing):
            query = contrast.unit(self.head(self.backbone(one)))
            key = self._keys(other, generator)
        negatives = self.queue.rows.to(query.dtype, copy=True)  # they are replaced before the gradient is taken
        loss, first = contrast.info_nce_of_queue(query, key, negatives, self.temperature)
        if self.training:
            self._waiting.append(gather_rows(key))
            if is_last_part():
                self.queue.put(torch.cat(self._waiting))
                self._waiting.clear()
        return {"loss": loss, "accuracy": first, "spread": contrast.spread(query)}

    @torch.no_grad()
    def _keys(self, view: Tensor, generator: Generator | None) -> Tensor:
        """Keys of the teacher, which sees the examples of the whole batch in another order: ``(B, F)``."""
        everyone = gather_rows(view)
        order = random.permutation(len(everyone), generator, like=view)
        keys = gather_rows(contrast.unit(self.teacher(own_rows(everyone[order]))))
        return own_rows(torch.empty_like(keys).index_copy_(0, order, keys))

    def after_step(self, time: Time) -> None:
        follow(self.teacher, nn.Sequential(self.backbone, self.head), self.momentum)
