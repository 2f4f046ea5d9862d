"""Contrastive predictive coding: the future of an example is told from other places by its context.

L_k = −E log exp(z_{t+k}ᵀ W_k c_t) / Σ_j exp(z_jᵀ W_k c_t)      L = mean over k of L_k,  k = 1, …, K

with z_j the encodings of all N places of the batch, among them the positive z_{t+k} once, and c_t the context of places
up to t. log N − L_k is a lower bound on the mutual information of c_t and z_{t+k} if the negatives are independent
draws; here they include places of the same example, as in the paper, so that it is a bound for these candidates only.

(van den Oord, Li, Vinyals 2018, https://arxiv.org/abs/1807.03748; layer normalisation and the context of rows: Hénaff
et al. 2020, https://arxiv.org/abs/1905.09272.)
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core import memory, random
from unsup.core.batch import Batch
from unsup.core.config import AtLeast, Count, NotEmpty, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Terms
from unsup.nn.feature_model import LearnsFeatures
from unsup.nn.places import PatchPlaces, PlaceEncoder, RecurrentContext, RowContext, SoundPlaces
from unsup.nn.resnet_v2 import NormName
from unsup.prob.contrast import predictive_bytes, predictive_info_nce, spread

_FAR_SOUND, _FAR_IMAGES = 12, 5  # steps predicted by the paper
_PATCH = 8  # pixels
_Few = Annotated[int, AtLeast(1), Within(1, 4096)]


class CPC(LearnsFeatures):
    """Features of sound and of images by predicting encodings of later places (van den Oord et al. 2018).

    Sound: strided convolutions encode windows of samples, a GRU is the context, and codes are the mean over time of the
    context. The default strides are 80 samples, 10 ms at 8 kHz; the paper has 160, 10 ms at 16 kHz. Images: a residual
    network encodes overlapping patches, masked convolutions over the patches of the row and of rows above are the
    context, which predicts rows below, and codes are the mean over patches of the encodings.

    Sound is read as levels of the μ-law by default; the paper has linear samples.

    The loss of an example is the mean over steps of the mean over its places, in nats. Terms: ``accuracy``, the share
    of predictions with the positive first; ``bound``, log N − L; ``near`` and ``far``, the same for the first step and
    for the last one.

    Args:
        event: sound ``(T,)`` or ``(T, C)``, levels or reals, or images ``(C, H, W)``.
        width: channels of every convolution of sound, or of the first stage of the network of patches. None: 128 for
            sound, 32 for images.
        context: number of cells of the GRU, or channels of the masked convolutions.
        steps: K, the number of steps that are predicted. None: 12 for sound and 5 for images, or fewer if there are
            fewer rows.
        kernels, strides: sizes and distances of the convolutions of sound, first to last.
        window: samples of a random crop of longer examples of sound in the loss. None: whole examples.
        patch: side of a patch of an image. Patches overlap by half. None: 8 pixels, or half of the smaller side of
            images with a side below 16.
        blocks: number of residual blocks of each stage of the network of patches.
        bottleneck: whether the residual blocks have three convolutions instead of two.
        norm: normalisation of the network of patches. It has no batch statistics, which would tell patches about
            others.
        layers: number of blocks of masked convolutions.

    Raises:
        InputError: the examples have too few places, or options that are for other data are given.

    >>> from unsup import Event, Support
    >>> model = CPC(Event((800,), Support("ordinal", 256), "sequence"), width=8, context=16)
    >>> model.places.hop, model.places.window, model.places.grid((800,)), model.steps
    (80, 225, (8, 1), 7)
    >>> model.encode(torch.zeros(2, 800)).shape
    torch.Size([2, 16])
    """

    presets = {
        "tiny": {
            "width": 6,
            "context": 5,
            "kernels": (10, 8),
            "strides": (10, 8),
            "blocks": (1, 1),
            "layers": 1,
        },
        "paper": {
            "width": 512,
            "context": 256,
            "steps": 12,
            "kernels": (10, 8, 4, 4, 4),
            "strides": (5, 4, 2, 2, 2),
            "window": 20_480,
        },
        "paper-image": {
            "width": 64,
            "context": 256,
            "steps": 5,
            "patch": 64,
            "blocks": (3, 4, 23),
            "bottleneck": True,
            "norm": "none",
            "layers": 5,
        },
    }
    fit_defaults = {"lr": 5e-4, "batch_size": 32}
    data_defaults = {"sound": {"mu_law": True}}

    def __init__(
        self,
        event: Event,
        *,
        width: Count | None = None,
        context: Count = 256,
        steps: Count | None = None,
        kernels: Annotated[tuple[_Few, ...], NotEmpty()] = (10, 8, 4, 4),
        strides: Annotated[tuple[_Few, ...], NotEmpty()] = (5, 4, 2, 2),
        window: Annotated[int, AtLeast(1), Within(1, 2**30)] | None = None,
        patch: Annotated[int, AtLeast(2), Within(2, 4096)] | None = None,
        blocks: Annotated[tuple[_Few, ...], NotEmpty()] = (1, 1, 1),
        bottleneck: bool = False,
        norm: NormName = "layer",
        layers: _Few = 3,
    ) -> None:
        self.places: PlaceEncoder
        self.context: RecurrentContext | RowContext
        self.window: int | None = None
        if event.is_image:
            if window is not None:
                raise InputError(f"window={window} is for sound; the preset of the paper for images is paper-image")
            side = patch or max(2, min(_PATCH, min(event.shape[1:]) // 2))
            self.places = PatchPlaces(event.shape[0], side, width or 32, blocks, bottleneck=bottleneck, norm=norm)
            self.context = RowContext(self.places.size, context, layers)
        else:
            if bottleneck or norm != "layer":
                raise InputError(f"bottleneck={bottleneck} and norm={norm} are for images, and this is {event}")
            if len(kernels) != len(strides):
                raise InputError(f"kernels={kernels} and strides={strides} differ in number; expected one of each")
            channels = event.shape[1] if len(event.shape) == 2 else 1
            self.places = SoundPlaces(channels, width or 128, kernels, strides)
            self.context = RecurrentContext(self.places.size, context)
            self.window = window if window is not None and window < event.shape[0] else None
        rows = self._rows(steps)
        self.steps = steps or min(_FAR_IMAGES if event.is_image else _FAR_SOUND, rows - 1)
        self.maps = nn.Linear(self.context.size, self.steps * self.places.size, bias=False)
        nn.init.normal_(self.maps.weight, std=(self.context.size * self.places.size) ** -0.5)  # scores of order one

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image and event.layout != "sequence":
            return "takes sound (T,) or (T, channels), and images (C, H, W)"
        if event.uniform is None or event.has_words:
            return "takes numbers, not symbols"
        if event.is_real and event.needs_float64:
            return "takes reals that float32 distinguishes (subtract their mean)"
        return None

    def reason_against_batch(self, count: int, whole: int) -> str | None:
        """The scores of one step may need more than the available memory."""
        places = count * math.prod(self.places.grid(self._shape))
        needed, free = predictive_bytes(places), memory.limit()
        if needed <= free or self.device.type != "cpu":  # the limit is not that of other devices
            return None
        fewer = "a larger --model.patch" if self.event.is_image else "a crop (--model.window) or larger --model.strides"
        return (
            f"compares the {places:,} places of {count:,} examples with each other, which needs "
            f"{memory.said(needed)}, more than the {memory.said(free)} of memory available; use a smaller "
            f"--batch-size, {fewer}"
        )

    @property
    def _shape(self) -> tuple[int, ...]:
        """The shape of an example or crop in the loss."""
        return self.event.shape if self.window is None else (self.window, *self.event.shape[1:])

    def _rows(self, steps: int | None) -> int:
        """The number of rows of places in the loss, which are enough for ``steps``."""
        shape = self._shape
        rows, columns = self.places.grid(shape)
        least = 2 if steps is None else steps + 1
        if rows >= least and columns:
            return rows
        predicted = f"steps={steps} needs" if steps is not None else "a prediction needs"
        if isinstance(self.places, SoundPlaces):
            one, hop = self.places.window, self.places.hop
            what = "a crop of window=" if self.window is not None else "an example of "
            raise InputError(
                f"CPC encodes {one} samples every {hop} samples; {what}{shape[0]} samples has {rows} such places, but "
                f"{predicted} {least}, i.e. {one + (least - 1) * hop} samples; use longer examples (--length), fewer "
                "steps, or smaller kernels and strides"
            )
        side = self.places.patch if isinstance(self.places, PatchPlaces) else 0
        raise InputError(
            f"CPC encodes patches of patch={side} pixels, of which images of {shape[1]}×{shape[2]} have {rows} rows of "
            f"{columns}, but {predicted} {least} rows; use a smaller patch or fewer steps"
        )

    @property
    def code_size(self) -> int:
        """The number of features of the context of sound, or of an encoded patch."""
        return self.places.size if self.event.is_image else self.context.size

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Set the moments of the channels."""
        self.places.prepare(self.unit(batch.x))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """InfoNCE ``(B,)`` in nats, and how well the positives are found."""
        z = self.places(self.unit(self.cropped(batch.x, generator)))  # (B, R, W, F)
        predicted = self.maps(self.context(z)).unflatten(-1, (self.steps, self.places.size))  # (B, R, W, K, F)
        each, share, candidates = predictive_info_nce(z, predicted)
        bound = math.log(candidates) - each.detach()
        return {
            "loss": each.mean(1),
            "accuracy": share.mean(1),
            "bound": bound.mean(1),
            "near": bound[:, 0],
            "far": bound[:, -1],
            "spread": spread(z.flatten(0, 2)),
        }

    def cropped(self, x: Tensor, generator: Generator | None) -> Tensor:
        """A random window of each example of sound, ``(B, window, ...)``, or whole examples."""
        if self.window is None:
            return x
        start = random.integers(0, x.shape[1] - self.window + 1, (len(x),), generator, like=x)
        own = start[:, None] + torch.arange(self.window, device=x.device)
        return x[torch.arange(len(x), device=x.device)[:, None], own]

    def encode(self, x: Tensor) -> Tensor:
        """The mean over time of the contexts of sound, the mean over patches of images: ``(B, F)``."""
        self.event.check_shape(x)
        z = self.places(self.unit(x))
        return (z if self.event.is_image else self.context(z)).flatten(1, 2).mean(1)
