"""Densities of discrete images that are chains of causal layers over the pixels, in raster order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.nn.autoregressor import Steps
from unsup.nn.causal import NOTHING, Causal, Context, Remembering, Site
from unsup.nn.entries import EntryModel
from unsup.nn.inputs import Inputs
from unsup.nn.logistics import PixelHead, PixelWalk
from unsup.nn.observation import Discrete, symbols_for
from unsup.nn.order import Order


class Raster(Order):
    """Images as sequences: rows from the top, left to right, channel by channel in a pixel.

    Args:
        event: images ``(C, H, W)``.
    """

    def __init__(self, event: Event) -> None:
        super().__init__(event, torch.arange(event.dims).view(event.shape).permute(1, 2, 0).flatten())
        self.channels, self.height, self.width = event.shape
        self.sites = [Site(*self._place(t)) for t in range(self.dims)]

    def _place(self, t: int) -> tuple[int, int, int]:
        pixel, channel = divmod(t, self.channels)
        return (*divmod(pixel, self.width), channel)

    def line(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(len(x), self.dims)

    def grid(self, line: Tensor) -> Tensor:
        return line.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)


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


class RasterModel(EntryModel):
    """A density of discrete images in raster order, channel fastest, that is a chain of causal layers.

    A model calls `take` in its constructor and defines its `layers`, which find the features of a condition in their
    context.

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
        groups = event.shape[0] if head is None else 1
        if min(widths.values(), default=groups) < groups:
            told = " and ".join(f"{name}={width}" for name, width in widths.items())
            raise InputError(f"{told} must be at least {groups}: one feature for each of the {groups} colour channels")
        self.raster = self.order = Raster(event)
        self.inputs, self.pixel_head = Inputs(event), head
        self.observation = symbols_for(event) if head is None else head.observation
        self.take_condition_of(given)

    @abstractmethod
    def layers(self) -> Sequence[Causal]:
        """From the inputs to ``C · outputs_each`` features, or those of the head, the first layer strict."""

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images only"
        return None if event.is_discrete else "takes discrete pixels only"

    def _network(self, x: Tensor, context: Context) -> Tensor:
        """Outputs of all pixels, ``(B, H W, outputs)``."""
        self.event.check_shape(x)  # convolutions would accept any height and width
        h = self.inputs.image(x)
        for layer in self.layers():
            h = layer(h, context)
        return h.permute(0, 2, 3, 1).flatten(1, 2)

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        return self._expanded(x, self._network(x, context))

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Earlier dimensions that no layer can reach, by windows and masks, independent of weights."""
        raster, head = self.raster, self.pixel_head
        groups = raster.channels if head is None else 1
        sites = raster.height * raster.width * groups
        seen: Any = torch.eye(sites).view(-1, raster.height, raster.width, groups).permute(0, 3, 1, 2)
        for layer in self.layers():
            seen = layer.spread(seen)
        reached = seen.permute(0, 2, 3, 1).reshape(sites, sites).T > 0
        return unreached(reached if head is None else with_channels(reached, head.channels), self.order)

    def _first(self) -> str:
        return "the known part must be a prefix of the raster order (top rows first, e.g. the upper half)"

    def _steps(self, n: int, context: Context) -> Steps:
        return RasterSteps(self.layers(), self.inputs, self.raster, n, context, self.pixel_head)


def with_channels(reached: Tensor, channels: int) -> Tensor:
    """Entries that reach entries ``(D, D)``, from pixels that reach pixels, if a head couples the channels."""
    within = torch.ones(channels, channels, dtype=torch.bool).tril(-1)
    across = reached.repeat_interleave(channels, 0).repeat_interleave(channels, 1)
    return across | torch.block_diag(*[within] * len(reached))


def unreached(reached: Tensor, order: Order) -> Tensor:
    """Earlier entries that do not reach an entry, by flattened entries: `IsAutoregressive.blind_spot`.

    Args:
        reached: ``(D, D)`` bool: whether position i sees position j of the order of generation.
        order: the order of generation.
    """
    position = order.position
    return (position[:, None] > position[None, :]) & ~reached[position][:, position]


class RasterSteps(Steps):
    """Every layer is computed at the site only, when its last input is known."""

    def __init__(
        self,
        layers: Sequence[Causal],
        inputs: Inputs,
        raster: Raster,
        n: int,
        context: Context,
        pixel_head: PixelHead | None = None,
    ) -> None:
        size = (raster.height, raster.width)
        self.sites, self.inputs, self.n = raster.sites, inputs, n
        self.first = cast(Remembering, layers[0])
        assert self.first.strict
        self.memory = self.first.begin(n, size, context)
        self.rest = [(layer, layer.begin(n, size, context)) for layer in layers[1:]]
        self.pixel = None if pixel_head is None else PixelWalk(pixel_head)

    def outputs(self, site: int) -> Tensor:
        if self.pixel is not None:
            return self.pixel.outputs(lambda: self._network(self.sites[site]))
        return self._network(self.sites[site])

    def _network(self, place: Site) -> Tensor:
        h = self.first.look(self.memory, place)
        for layer, memory in self.rest:
            h = layer.step(memory, place, h)
        return cast(Tensor, h)

    def put(self, site: int, value: Tensor) -> None:
        place, values = self.sites[site], [value]
        if self.pixel is not None:
            place, values = Site(place.row, place.column), self.pixel.put(value)
        if values:
            self.first.put(self.memory, place, self.inputs.levels(torch.stack(values, 1)).flatten(1))
