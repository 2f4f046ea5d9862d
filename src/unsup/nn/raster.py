"""Densities of discrete images that are chains of causal layers over the pixels, in raster order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.autoregressor import Steps
from unsup.nn.causal import NOTHING, Causal, ChainWalk, Context, Site
from unsup.nn.entries import ChainModel, ChainSteps, against_all_but_images
from unsup.nn.inputs import Inputs
from unsup.nn.logistics import PixelHead
from unsup.nn.observation import Discrete, symbols_for
from unsup.nn.order import Order
from unsup.nn.weight_norm import initialise

_FIRST_BATCH = 64  # examples of the data-dependent initialisation


class Raster(Order):
    """Images as sequences: rows from the top, left to right, channel by channel in a pixel.

    Args:
        event: images ``(C, H, W)``.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event, torch.arange(event.dims).view(event.shape).permute(1, 2, 0).flatten())
        self.channels, self.height, self.width = event.shape
        self.beginning = "the known part must be a prefix of the raster order (top rows first, e.g. the upper half)"
        self.sites = [Site(*self._place(t)) for t in range(self.dims)]

    def _place(self, t: int) -> tuple[int, int, int]:
        pixel, channel = divmod(t, self.channels)
        return (*divmod(pixel, self.width), channel)

    def line(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), self.dims)

    def grid(self, line: Tensor) -> Tensor:
        return line.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)


def usual_order(event: Event) -> Order:
    """Raster order of images, else that of the flattened entries."""
    return Raster(event) if event.is_image else Order(event)


class AsSequence(Causal):
    """A layer of sequences over the pixels in raster order; each channel of a pixel is a site.

    Features ``(B, C F, H, W)`` in C equal groups are ``(B, H W C, F)`` for the layer.
    """

    def __init__(self, inner: Causal, raster: Raster) -> None:
        super().__init__()
        self.inner, self.raster = inner, raster

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        n, _, height, width = h.shape
        line = h.unflatten(1, (self.raster.channels, -1)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        found: Tensor = self.inner(line, context)
        return found.view(n, height, width, self.raster.channels, found.shape[-1]).permute(0, 3, 4, 1, 2).flatten(1, 2)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Any:
        return self.inner.begin(n, (1, self.raster.dims), context)

    def step(self, memory: Any, site: Site, h: Tensor) -> Tensor:
        pixel = site.row * self.raster.width + site.column
        return cast(Tensor, self.inner.step(memory, Site(0, pixel * self.raster.channels + site.group), h))

    def spread(self, seen: Tensor) -> Tensor:
        return self.raster.grid(self.inner.spread(self.raster.line(seen)))


class RasterModel(ChainModel):
    """A density of discrete images in raster order, channel fastest, that is a chain of causal layers over maps.

    A model calls `take` in its constructor and defines its `layers`, which find the features of a condition in their
    context. They lead from the inputs to ``C · outputs_each`` features, or those of the head.

    Attributes:
        raster: the order of generation.
        inputs: from pixels to features.
    """

    raster: Raster
    inputs: Inputs
    observation: Discrete

    def take(self, event: Event, given: Event | None, *, head: PixelHead | None = None, **widths: int) -> None:
        """Called in the constructor: set the attributes for the event, and for the condition, if any.

        Args:
            event: images.
            given: the event of the condition, or None.
            head: the distribution of the channels of a pixel; layers then have one group of features, and outputs are
                per pixel. None: every channel has its own site and outputs.
            ***widths: numbers of features of layers; each group needs at least one feature.
        """
        if head is None:
            check_widths(event.shape[0], **widths)
        self.raster = self.order = Raster(event)
        self.inputs, self.pixel_head = Inputs(event), head
        self.observation = symbols_for(event) if head is None else head.observation
        self.take_condition_of(given)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_images(event)

    def start_norms(self, batch: Batch) -> None:
        """Initialise the layers with weight norm such that their outputs are standardised over examples."""
        x = batch.x[:_FIRST_BATCH]
        given = None if self.given is None else self.condition(batch.given, len(batch))[:_FIRST_BATCH]
        initialise(self, lambda: self._network(x, self._context(given)))

    def _features(self, x: Tensor) -> Tensor:
        return self.inputs.image(x)

    def _line(self, found: Tensor) -> Tensor:
        return found.permute(0, 2, 3, 1).flatten(1, 2)

    def _alone(self) -> Tensor:
        groups = self.raster.channels if self.pixel_head is None else 1
        pixels = (self.raster.height, self.raster.width)
        return torch.eye(math.prod(pixels) * groups).view(-1, *pixels, groups).permute(0, 3, 1, 2)

    def _steps(self, n: int, context: Context) -> Steps:
        return RasterSteps(self.layers(), self.inputs, self.raster, n, context, self.pixel_head)


def check_widths(groups: int, **widths: int) -> None:
    """Refuse layers with fewer features than groups."""
    if min(widths.values(), default=groups) < groups:
        told = " and ".join(f"{name}={width}" for name, width in widths.items())
        raise InputError(f"{told} must be at least {groups}: one feature for each of the {groups} colour channels")


class RasterSteps(ChainSteps):
    """Layers over maps in a walk: a site is a channel of a pixel, or a pixel with a head."""

    def __init__(
        self,
        layers: Sequence[Causal],
        inputs: Inputs,
        raster: Raster,
        n: int,
        context: Context,
        head: PixelHead | None = None,
    ) -> None:
        chain = ChainWalk(layers, n, (raster.height, raster.width), context)
        super().__init__(chain, 1 if head is None else head.channels, head)
        self.sites, self.inputs = raster.sites, inputs

    def place(self, t: int) -> Site:
        return self.sites[t * self.each]

    def features(self, values: list[Tensor]) -> Tensor:
        return self.inputs.levels(torch.stack(values, 1)).flatten(1)
