"""Parallel multi-scale: from a coarse grid of pixels to finer ones, many pixels at once.

p(x) = p(x_base) ∏_g ∏_{i ∈ g} ∏_k p(x_{i,k} | x_{groups before g}, x_{i,<k})

(Reed et al. 2017, https://arxiv.org/abs/1703.03664). A PixelCNN has the coarsest grid. Each step doubles both sides:
the known pixels are the upper left corners of squares of 2×2; the groups are their upper right, lower left and lower
right corners in turn (figure 2). Pixels of a group are independent given earlier groups, the form of the main text
(figure 3, A) and not the one with a shallow PixelCNN inside of patches: a group is one evaluation of its network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from unsup.core.config import AtLeast, Count
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice
from unsup.nn.autoregressor import Steps
from unsup.nn.causal import Causal, Context, layers_of, spread_through, through
from unsup.nn.causal_conv import MaskedConv, relu_points
from unsup.nn.entries import EntryModel, against_all_but_images
from unsup.nn.gated import gated_layers
from unsup.nn.inputs import Inputs
from unsup.nn.nets import ResidualBlock
from unsup.nn.observation import symbols_for
from unsup.nn.order import Order
from unsup.nn.raster import Raster, RasterSteps, check_widths

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # rows and columns of a square of 2×2, in the order of the groups


@dataclass(frozen=True)
class Group:
    """The pixels that one network generates: a corner of each square of 2×2 pixels of a grid.

    Attributes:
        stride: distance of the squares, in pixels of the image.
        corner: number of the corner, 1 to 3.
    """

    stride: int
    corner: int

    def at(self, image: Tensor, corner: int) -> Tensor:
        """The pixels of a corner: ``(…, H, W)`` → ``(…, H / stride, W / stride)``."""
        row, column = (self.stride // 2 * i for i in _CORNERS[corner])
        return image[..., row :: self.stride, column :: self.stride]

    def own(self, image: Tensor) -> Tensor:
        return self.at(image, self.corner)

    def earlier(self, image: Tensor) -> Tensor:
        """The pixels of the grid that come before, the corners side by side on axis 1."""
        return torch.cat([self.at(image, corner) for corner in range(self.corner)], 1)


class CoarseToFine(Order):
    """The coarsest grid in raster order, channel by channel in a pixel; then group by group.

    In a group, all pixels of a channel come before those of the next channel.

    Args:
        event: images ``(C, H, W)``.
        base: the smallest side of the coarsest grid: both sides are halved while they are even, and their halves are
            not smaller.
    """

    def __init__(self, event: Event, base: int) -> None:
        self.channels, height, width = event.shape
        steps = 0
        while all(side % 2 ** (steps + 1) == 0 and side >> (steps + 1) >= base for side in (height, width)):
            steps += 1
        self.stride = 2**steps
        self.coarse = Event((self.channels, height >> steps, width >> steps), event.columns[0])
        self.groups = [Group(self.stride >> s, corner) for s in range(steps) for corner in (1, 2, 3)]
        numbers = torch.arange(event.dims).view(event.shape)
        parts = [self.base(numbers).permute(1, 2, 0), *(group.own(numbers) for group in self.groups)]
        self.sizes = [part.numel() for part in parts]
        super().__init__(event, torch.cat([part.flatten() for part in parts]))
        self.beginning = (
            "the known part must come first in the order of generation: the pixels of the coarsest grid, then group by "
            "group"
        )

    def base(self, image: Tensor) -> Tensor:
        """The pixels of the coarsest grid."""
        return image[..., :: self.stride, :: self.stride]


class Upscaler(nn.Module):
    """The network of a group: a residual network over what comes before it, then the channels of each pixel in turn.

    Args:
        inputs: features of the earlier pixels of a square.
        own: features of a pixel.
        groups: number of channels.
        widths: features of the residual network, and of the hidden layer of the head.
        blocks: number of residual blocks.
        outputs: outputs of each entry.
        condition: size of the features of a condition; 0 without one.
    """

    def __init__(
        self, inputs: int, own: int, groups: int, widths: tuple[int, int], blocks: int, outputs: int, condition: int
    ) -> None:
        super().__init__()
        width, head = widths
        self.groups, self.reach = groups, 1 + 2 * blocks
        self.first = nn.Conv2d(inputs, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width, condition) for _ in range(blocks))
        self.top = nn.Conv2d(width, head, 1)
        self.own = MaskedConv(own, head, groups, mask="A") if groups > 1 else None
        self.out = MaskedConv(head, groups * outputs, groups)

    def features(self, earlier: Tensor, given: Tensor | None) -> Tensor:
        """What all channels of the group get from earlier groups: ``(B, I, h, w)`` → ``(B, head, h, w)``."""
        h: Tensor = self.first(earlier)
        for block in self.blocks:
            h = block(h, given)
        return cast(Tensor, self.top(relu(h)))

    def outputs(self, features: Tensor, own: Tensor) -> Tensor:
        """Outputs ``(B, C, h w, P)`` of all entries; those of a channel depend on earlier channels of ``own``."""
        h = features if self.own is None else features + self.own(own)
        return cast(Tensor, self.out(relu(h)).flatten(2).unflatten(1, (self.groups, -1)).transpose(2, 3))


class ParallelMultiscale(EntryModel):
    """Coarse to fine in groups of independent pixels (Reed et al. 2017, https://arxiv.org/abs/1703.03664).

    The likelihood is exact, of a weaker model than PixelCNN: pixels of the same group do not see each other, nor what
    is farther away than their network reaches (`blind_spot`). In sampling, every group is one evaluation, so that an
    image of side N takes those of the base and 3 log₂(N / base) more. The base is a Gated PixelCNN. Each group of each
    scale has its own network. The widths are a choice of ours.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries, with sides that can be halved.
        base: the smallest side of the coarsest grid. Sides are halved while they are even, and their halves are not
            smaller: from 32 to 4, from 28 to 7.
        channels: features of both stacks of the base and of the residual networks, at least C.
        layers: number of gated layers of the base.
        blocks: number of residual blocks of each group, each with two 3×3 convolutions.
        head_channels: features of the hidden layer before the logits, at least C.
        given: event of the condition, e.g. ``labels(10)``, or None.

    Raises:
        InputError: data that is not discrete images, sides that cannot be halved, fewer features than colour channels.

    >>> from unsup import Event, Support
    >>> model = ParallelMultiscale(Event((1, 8, 8), Support("binary")), channels=4, layers=2, blocks=1)
    >>> len(model.order.groups), model.sample(2).shape
    (3, torch.Size([2, 1, 8, 8]))
    """

    presets = {
        "tiny": {"channels": 6, "layers": 2, "blocks": 1, "head_channels": 8},
        "paper": {"channels": 128, "layers": 12, "blocks": 6, "head_channels": 256},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    order: CoarseToFine

    def __init__(
        self,
        event: Event,
        *,
        base: Count = 4,
        channels: Count = 32,
        layers: Count = 5,
        blocks: Annotated[int, AtLeast(0)] = 2,
        head_channels: Count = 64,
        given: Event | None = None,
    ) -> None:
        groups, height, width = event.shape
        check_widths(groups, channels=channels, head_channels=head_channels)
        self.order = CoarseToFine(event, base)
        if not self.order.groups:
            raise InputError(
                f"images of {height}×{width} cannot be halved to sides of at least base={base}; expected even sides, "
                "e.g. 28 or 32, or use gated-pixelcnn"
            )
        self.inputs, self.observation = Inputs(event), symbols_for(event)
        self.take_condition_of(given)
        own, outputs, condition = self.inputs.channels, self.observation.outputs_each, self.conditions.size
        self.coarse = Raster(self.order.coarse)
        self.stacks = gated_layers(own, channels, groups, 3, condition, layers)
        self.head = relu_points((channels, head_channels, groups * outputs), groups)
        widths = (channels, head_channels)
        self.upscalers = nn.ModuleList(
            Upscaler(group.corner * own, own, groups, widths, blocks, outputs, condition) for group in self.order.groups
        )

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return against_all_but_images(event)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    def layers(self) -> Sequence[Causal]:
        """Those of the base."""
        return [*layers_of(self.stacks), self.head]

    @property
    def parts(self) -> list[tuple[Group, Upscaler]]:
        """Every group with its network."""
        return list(zip(self.order.groups, cast(list[Upscaler], list(self.upscalers)), strict=True))

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        self.event.check_shape(x)
        image = self.inputs.image(x)
        h = through(self.layers(), self.order.base(image), context)
        each = self.observation.outputs_each
        found = [h.permute(0, 2, 3, 1).reshape(len(x), self.order.sizes[0], each)]
        for group, net in self.parts:
            features = net.features(group.earlier(image), context.given)
            found.append(net.outputs(features, group.own(image)).flatten(1, 2))
        return torch.cat(found, 1)

    def _steps(self, n: int, context: Context) -> Steps:
        return _GroupByGroup(self, n, context)

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Pixels of the same group, and those beyond the reach of the networks."""
        dims, channels = self.event.dims, self.order.channels
        reached = torch.zeros(dims, dtype=torch.bool).repeat(dims, 1)
        size = self.order.sizes[0]
        seen = spread_through(self.layers(), self.coarse.grid(torch.eye(size)))
        reached[:size, :size] = self.coarse.line(seen).T > 0
        _, row, column = self.order.places()
        start = size
        for (group, net), size in zip(self.parts, self.order.sizes[1:], strict=True):
            own = slice(start, start + size)
            far = [(place[own, None] // group.stride - place[:start] // group.stride).abs() for place in (row, column)]
            reached[own, :start] = (far[0] <= net.reach) & (far[1] <= net.reach)
            same = torch.eye(size // channels, dtype=torch.bool).repeat(channels, channels)
            reached[own, own] = same.tril(-1)
            start += size
        return self.order.unreached(reached)


class _GroupByGroup(Steps):
    """The base pixel by pixel; the network of a group once, and its head once for each channel."""

    def __init__(self, model: ParallelMultiscale, n: int, context: Context) -> None:
        self.model, self.n, self.context = model, n, context
        self.base = RasterSteps(model.layers(), model.inputs, model.coarse, n, context)
        self.image = model.inputs.like.new_zeros(n, model.inputs.channels, *model.event.shape[1:])
        self.places = torch.stack(model.order.places(), 1).tolist()
        self.first = model.order.sizes[0]
        """Number of entries of the base."""
        sizes = enumerate(model.order.sizes[1:])
        self.sites = [(number, *divmod(i, size // model.order.channels)) for number, size in sizes for i in range(size)]
        """The group, channel and pixel of each later entry."""
        self.features = self.found = self.image

    def outputs(self, site: int) -> Tensor:
        if site < self.first:
            return self.base.outputs(site)
        number, channel, pixel = self.sites[site - self.first]
        if pixel == 0:
            group, net = self.model.parts[number]
            if channel == 0:
                self.features = net.features(group.earlier(self.image), self.context.given)
            self.found = net.outputs(self.features, group.own(self.image))[:, channel]
        return self.found[:, pixel]

    def put(self, site: int, value: Tensor) -> None:
        if site < self.first:
            self.base.put(site, value)
        each, (channel, row, column) = self.model.inputs.each, self.places[site]
        features = self.model.inputs.levels(value).view(self.n, each)
        self.image[:, channel * each : (channel + 1) * each, row, column] = features
