"""PixelCNN: a stack of masked convolutions that gives every conditional of an image in one pass.

p(x) = ∏_i ∏_c p(x_{i,c} | x_{<i}, x_{i,<c})  over pixels i in raster order and colour channels c in turn
(van den Oord, Kalchbrenner, Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759). Each layer's features are split into
one group a channel. A k×k kernel keeps the rows above its centre and, in the centre's row, what is on the left; at the
centre itself group g sees

    mask A (first layer):  groups < g          mask B (all others, 1×1 included):  groups ≤ g

The 7×7 mask A convolution gives 2h features; a residual block is ReLU, 1×1 2h→h, ReLU, k×k h→h, ReLU, 1×1 h→2h
(figure 5); then two layers of ReLU and 1×1, and a last ReLU and 1×1 to the logits of a softmax for each channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, pad, relu

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event
from unsup.core.model import CanComplete, IsAutoregressive, IsConditional, Model, Terms
from unsup.prob import distributions as dist

_FIRST_KERNEL = 7  # table 1 of the paper


class MaskedConv(nn.Module):
    """k×k convolution under mask A or B. The rows below the centre are always masked, so they are not stored."""

    def __init__(
        self, inputs: int, outputs: int, groups: int, *, kernel: int = 1, mask: Literal["A", "B"] = "B"
    ) -> None:
        super().__init__()
        self.reach = kernel // 2
        fresh = nn.Conv2d(inputs, outputs, (self.reach + 1, kernel))
        self.weight, self.bias = fresh.weight, fresh.bias
        into, out = group_of(inputs, groups), group_of(outputs, groups)
        self.register_buffer("mask", kernel_mask(into, out, kernel, mask), persistent=False)
        # Per group: its inputs, its outputs, and how many leading inputs it sees at the centre.
        self.into, self.out = _slices(into, groups), _slices(out, groups)
        self.seen = [int(self.mask[s.start, :, -1, self.reach].sum()) for s in self.out]
        self._cache: tuple[tuple[int, torch.dtype, torch.device], Tensor] | None = None

    def masked_weight(self) -> Tensor:
        """W ∘ M; outside training it is multiplied once and kept until the weight changes."""
        if self.training or torch.is_grad_enabled():
            self._cache = None
            return self.weight * self.mask
        key = (self.weight._version, self.weight.dtype, self.weight.device)
        if self._cache is None or self._cache[0] != key:
            self._cache = (key, self.weight * self.mask)
        return self._cache[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.reach:
            x = pad(x, (self.reach, self.reach, self.reach, 0))
        return conv2d(x, self.masked_weight(), self.bias)


class ResidualBlock(nn.Module):
    """x + Conv₁ₓ₁(ReLU(Convₖₓₖ(ReLU(Conv₁ₓ₁(ReLU(x)))) + V y)), V y only when there are classes."""

    def __init__(self, width: int, groups: int, kernel: int, classes: int) -> None:
        super().__init__()
        self.reduce = MaskedConv(2 * width, width, groups)
        self.spatial = MaskedConv(width, width, groups, kernel=kernel)
        self.expand = MaskedConv(width, 2 * width, groups)
        self.label_bias = nn.Linear(classes, width, bias=False) if classes else None

    def forward(self, x: Tensor, label: Tensor | None) -> Tensor:
        h = self.spatial(relu(self.reduce(relu(x))))
        if self.label_bias is not None:
            h = h + self.label_bias.weight.T[label][:, :, None, None]
        return x + self.expand(relu(h))


class PixelCNN(Model, IsAutoregressive, IsConditional, CanComplete):
    """Masked convolutional density of discrete images (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759).

    Two levels end in a Bernoulli logit, more in a K-way softmax. Integers are scaled to [−1, 1] before the net;
    nominal ones with more than two levels enter one-hot. Earlier pixels in a wedge to the upper right stay unseen
    (`blind_spot`), which is a property of the method.

    With ``classes`` the label adds a bias without spatial extent to every block, as in the conditional PixelCNN (van
    den Oord et al. 2016, https://arxiv.org/abs/1606.05328). Training minimises −log p(x | y); with p(y) counted in
    `prepare`, log p(x) = log Σ_y p(y) p(x | y) stays exact, and `orders`, `conditionals` have one row, one mixture
    component, for each class.

    Args:
        event: images ``(C, H, W)`` of binary, ordinal or nominal entries.
        channels: h; the residual stream is 2h wide. At least C.
        blocks: residual blocks.
        head_channels: features of the two 1×1 layers at the end. At least C.
        kernel: odd size of the convolutions in the blocks; the first layer's is 7.
        classes: number of labels to condition on, or 0.

    Raises:
        InputError: data that is not discrete images, an even kernel, fewer features than colour channels.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = PixelCNN(Event((3, 4, 4), Support("ordinal", 8)), channels=6, blocks=1, head_channels=6)
    >>> model.log_prob(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).shape
    torch.Size([2])
    >>> model.sample(2, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 4, 4])
    """

    presets = {
        "tiny": {"channels": 6, "blocks": 1, "head_channels": 8},
        "paper": {"channels": 128, "blocks": 15, "head_channels": 1024},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        channels: int = 32,
        blocks: int = 7,
        head_channels: int = 64,
        kernel: int = 3,
        classes: int = 0,
    ) -> None:
        groups, support = event.shape[0], event.uniform
        if kernel % 2 == 0:
            raise InputError(
                f"kernel={kernel} is even, so it has no centre to mask; give an odd one, e.g. {kernel + 1}"
            )
        if min(channels, head_channels) < groups:
            raise InputError(
                f"channels={channels} and head_channels={head_channels} must give each of the {groups} colour channels "
                f"a feature of its own; give at least {groups}"
            )
        self.kernel, self.classes = kernel, classes
        self.levels, self.low = support.levels, support.low
        self.one_hot = support.kind == "nominal" and self.levels > 2
        self.outputs_each = 1 if self.levels == 2 else self.levels
        inputs = groups * (self.levels if self.one_hot else 1)

        self.first = MaskedConv(inputs, 2 * channels, groups, kernel=_FIRST_KERNEL, mask="A")
        self.blocks = nn.ModuleList(ResidualBlock(channels, groups, kernel, classes) for _ in range(blocks))
        widths = (2 * channels, head_channels, head_channels, groups * self.outputs_each)
        self.head = nn.ModuleList(MaskedConv(a, b, groups) for a, b in pairwise(widths))
        if classes:
            self.register_buffer("log_prior", torch.full((classes,), 1 / classes).log())
        # The layout in which CPU and GPU convolutions are fastest, and in which the softmax reads contiguous logits.
        self.to(memory_format=torch.channels_last)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images only"
        return None if event.is_discrete else "takes discrete pixels only"

    @property
    def orders(self) -> Tensor:
        """Raster over pixels, channel fastest; the same for every class."""
        channels, height, width = self.event.shape
        position = torch.arange(self.event.dims, device=self.device).view(height, width, channels)
        return position.permute(2, 0, 1).reshape(1, -1).repeat(max(self.classes, 1), 1)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the class prior, Laplace-smoothed."""
        if self.classes:
            counts = self._labels_of(batch.label).bincount(minlength=self.classes).to(self.dtype) + 1
            self.log_prior.copy_((counts / counts.sum()).log())

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Mean negative log-likelihood: given the label in training where there are classes, of x alone otherwise."""
        if self.training and self.classes:
            return {"loss": -self.log_prob_given(batch.x, self._labels_of(batch.label)).mean()}
        return {"loss": -self.log_prob(batch.x).mean()}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        x = batch.x
        if not self.classes:
            return self._entry_log_prob(x, None).flatten(1).sum(1)
        return (self._log_prob_each_class(x, torch.ones_like(x, dtype=torch.bool)) + self._log_prior()).logsumexp(1)

    def log_prob_given(self, x: Tensor, label: Tensor) -> Tensor:
        return self._entry_log_prob(x, self._labels_of(label)).flatten(1).sum(1)

    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor:
        labels = [torch.full((len(x),), y, device=x.device) for y in range(self.classes)] or [None]
        raster = torch.stack([self._entry_log_prob(x, label).flatten(1) for label in labels])  # (M, B, H W C)
        entries = dist.mixture_log_conditionals(raster, self._log_prior()) if self.classes else raster[0]
        return entries[:, self.orders[0]]

    def conditionals(self, x: Tensor, *, order: int = 0) -> Tensor:
        """Logits of every conditional: ``(B, C, H, W)`` → ``(B, D, P)``; of class ``order`` where there are classes."""
        label = torch.full((len(x),), order, device=x.device) if self.classes else None
        return self._logits(x, label).permute(0, 3, 1, 2, 4).reshape(len(x), self.event.dims, self.outputs_each)

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Earlier dimensions out of reach: the wedge to the upper right, and what is further than all layers reach.

        Sets of (pixel, channel) are passed through the taps of one mask A and ``blocks`` masks B, weights aside.
        """
        channels, height, width = self.event.shape
        dims = self.event.dims
        reach = torch.eye(dims).view(dims, channels, height, width)  # [j, i]: whether i depends on input j
        group = torch.arange(channels)
        masks = [kernel_mask(group, group, _FIRST_KERNEL, "A")]
        masks += [kernel_mask(group, group, self.kernel, "B")] * len(self.blocks)
        for mask in masks:
            half = mask.shape[-1] // 2
            reach = (conv2d(pad(reach, (half, half, half, 0)), mask.float()) > 0).float()
        position = self.orders[order].cpu()
        return (position[:, None] > position[None, :]) & (reach.view(dims, dims).T == 0)

    def _log_prior(self) -> Tensor:
        """log p(y), normalised in the type the model computes in now (a float32 buffer sums to 1 in float32 only)."""
        return self.log_prior.log_softmax(0)

    def _labels_of(self, label: Tensor | None) -> Tensor:
        if not self.classes:
            raise CapabilityError(
                "this PixelCNN was built without classes; create it with classes=K to condition on labels"
            )
        if label is None:
            raise InputError(f"this PixelCNN has classes={self.classes}, but the data has no labels; use classes=0")
        if bool(((label < 0) | (label >= self.classes)).any()):
            raise InputError(
                f"labels run from {int(label.min())} to {int(label.max())}; expected 0 to {self.classes - 1}"
            )
        return label

    def _encode(self, x: Tensor) -> Tensor:
        """Raw ``(B, C, H, W)`` → inputs of the net, scaled or one-hot (interpolated between levels)."""
        x = x.to(self.dtype) - self.low
        if not self.one_hot:
            return 2 * x / (self.levels - 1) - 1
        grid = torch.arange(self.levels, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        return relu(1 - (x.unsqueeze(2) - grid).abs()).flatten(1, 2)  # (B, C K, H, W)

    def _logits(self, x: Tensor, label: Tensor | None) -> Tensor:
        """``(B, C, H, W)`` → ``(B, H, W, C, P)``: axes 1 to 3 in the order of generation."""
        self.event.check_shape(x)  # the convolutions would take any height and width
        # One input channel does not carry a layout, so it is set where the features begin.
        h = self.first(self._encode(x)).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, label)
        for layer in self.head:
            h = layer(relu(h))
        return h.permute(0, 2, 3, 1).unflatten(3, (-1, self.outputs_each))

    def _entry_log_prob(self, x: Tensor, label: Tensor | None) -> Tensor:
        """log p of every entry given the earlier ones: ``(B, H, W, C)``."""
        logits, target = self._logits(x, label), x.permute(0, 2, 3, 1) - self.low
        if self.levels == 2:
            return dist.bernoulli_log_prob(target, logits.squeeze(-1))
        return dist.categorical_log_prob(target, logits)

    def _log_prob_each_class(self, x: Tensor, counted: Tensor) -> Tensor:
        """Σ log p(x_i | x_<i, y) over the entries of the bool mask ``counted``, for every y: ``(B, classes)``."""
        columns = []
        for y in range(self.classes):
            entries = self._entry_log_prob(x, torch.full((len(x),), y, device=x.device))
            columns.append((entries * counted.permute(0, 2, 3, 1)).flatten(1).sum(1))
        return torch.stack(columns, 1)

    def _draw_labels(self, n: int, generator: Generator | None) -> Tensor | None:
        if not self.classes:
            return None
        return dist.sample_categorical(self._log_prior().expand(n, -1), generator=generator)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Draw a label where there are classes, then pixel by pixel, each layer computed at the current pixel only.

        ``temperature`` divides the logits of the pixels; the label is drawn at temperature 1.
        """
        return self._fill_cached(self._blank(n), None, self._draw_labels(n, generator), generator, temperature)

    @torch.no_grad()
    def sample_given(self, label: Tensor, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        return self._fill_cached(self._blank(len(label)), None, self._labels_of(label), generator, temperature)

    @torch.no_grad()
    def sample_naive(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        x, label = self._blank(n), self._draw_labels(n, generator)
        for row, column, c in self._steps():
            logits = self._logits(x, label)[:, row, column, c]
            x[:, c, row, column] = self._draw(logits, generator, temperature)
        return x.to(self.event.dtype)

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Draw the unknown entries from p(unknown | known), exactly; with classes the label is drawn from p(y | known).

        Args:
            x: raw images ``(B, C, H, W)``; unknown entries may hold anything.
            known: bool, same shape. In each image the known entries must be the first ones in the order of generation
                (rows from the top, left to right, channel after channel in a pixel).

        Raises:
            InputError: a known entry comes after an unknown one, so the draw would ignore it.
        """
        self.event.check_shape(x)
        self.event.check_shape(known)
        sequence = known.permute(0, 2, 3, 1).flatten(1)
        if bool((sequence[:, 1:] & ~sequence[:, :-1]).any()):
            raise InputError(
                "a known entry comes after an unknown one, so the draw could not depend on it; "
                "the known part must be a prefix of the raster order (top rows first, e.g. the upper half)"
            )
        x = torch.where(known, x.to(self.dtype), self._blank(len(x)))
        label = None
        if self.classes:
            posterior = self._log_prob_each_class(x, known) + self._log_prior()
            label = dist.sample_categorical(posterior, generator=generator)
        return self._fill_cached(x, known, label, generator, 1.0)

    def _blank(self, n: int) -> Tensor:
        return torch.full((n, *self.event.shape), float(self.low), dtype=self.dtype, device=self.device)

    def _steps(self) -> Iterator[tuple[int, int, int]]:
        channels, height, width = self.event.shape
        return ((row, column, c) for row in range(height) for column in range(width) for c in range(channels))

    def _draw(self, logits: Tensor, generator: Generator | None, temperature: float) -> Tensor:
        """Raw values ``(B,)`` of one entry from its logits ``(B, P)``."""
        if self.levels == 2:
            drawn = dist.sample_bernoulli(logits.squeeze(-1), generator=generator, temperature=temperature)
        else:
            drawn = dist.sample_categorical(logits, generator=generator, temperature=temperature)
        return (drawn + self.low).to(self.dtype)

    def _fill_cached(
        self, x: Tensor, known: Tensor | None, label: Tensor | None, generator: Generator | None, temperature: float
    ) -> Tensor:
        """Fill ``x`` entry by entry; group c of every layer is computed once, when its last input is there."""
        n, (_, height, width) = len(x), self.event.shape
        first = _Tap(self.first, n, height, width)
        blocks = []
        for block in self.blocks:
            extra = None if block.label_bias is None else block.label_bias.weight.T[label]
            spatial = _Tap(block.spatial, n, height, width, extra)
            blocks.append((_Tap(block.reduce, n, height, width), spatial, _Tap(block.expand, n, height, width)))
        head = [_Tap(layer, n, height, width) for layer in self.head]

        for site in self._steps():
            row, column, c = site
            h = first(site)
            for reduce, spatial, expand in blocks:
                reduce.put_relu(site, h)
                spatial.put_relu(site, reduce(site))
                expand.put_relu(site, spatial(site))
                h = h + expand(site)
            for layer in head:
                layer.put_relu(site, h)
                h = layer(site)
            value = self._draw(h, generator, temperature)
            if known is not None:
                value = torch.where(known[:, c, row, column], x[:, c, row, column], value)
            x[:, c, row, column] = value
            first.slot(site).copy_(self._encode(value.view(n, 1, 1, 1)).flatten(1))
        return x.to(self.event.dtype)


class _Tap:
    """One masked convolution at one pixel and group: its stored inputs, and its kernel cut to the taps that count."""

    def __init__(self, conv: MaskedConv, n: int, height: int, width: int, extra_bias: Tensor | None = None) -> None:
        self.conv, self.reach = conv, conv.reach
        weight = conv.masked_weight()
        # A 1×1 convolution needs the current pixel only; the others keep a map, zero-padded above and at the sides.
        size = (height + self.reach, width + 2 * self.reach) if self.reach else (1, 1)
        self.map = weight.new_zeros(n, *size, weight.shape[1])  # (B, H, W, I)
        bias = conv.bias if extra_bias is None else conv.bias + extra_bias
        self.kernels = []
        for out, seen in zip(conv.out, conv.seen, strict=True):
            rows = weight[out].permute(2, 3, 1, 0)  # (k rows, k, I, O)
            above = rows[: self.reach].flatten(0, 2).contiguous()
            level = rows[self.reach, : self.reach + 1].flatten(0, 1)[: self.reach * weight.shape[1] + seen].contiguous()
            self.kernels.append((above, level, bias[..., out]))

    def slot(self, site: tuple[int, int, int]) -> Tensor:
        """Where the inputs of one pixel and group are stored: a view ``(B, I_g)``."""
        row, column, group = site
        if not self.reach:
            return self.map[:, 0, 0, self.conv.into[group]]
        return self.map[:, row + self.reach, column + self.reach, self.conv.into[group]]

    def put_relu(self, site: tuple[int, int, int], value: Tensor) -> None:
        torch.clamp_min(value, 0, out=self.slot(site))

    def __call__(self, site: tuple[int, int, int]) -> Tensor:
        """Group's output features at one pixel, ``(B, O_g)``."""
        row, column, group = site
        above, level, bias = self.kernels[group]
        if not self.reach:
            return torch.addmm(bias, self.map[:, 0, 0, : len(level)], level)
        here = self.map[:, row + self.reach, column : column + self.reach + 1].flatten(1)[:, : len(level)]
        higher = self.map[:, row : row + self.reach, column : column + 2 * self.reach + 1].flatten(1)
        return torch.addmm(torch.addmm(bias, here, level), higher, above)


def kernel_mask(into: Tensor, out: Tensor, kernel: int, mask: Literal["A", "B"]) -> Tensor:
    """Which taps mask A or B keeps, bool ``(O, I, kernel // 2 + 1, kernel)``, from the groups of inputs and outputs."""
    half = kernel // 2
    kept = torch.ones(len(out), len(into), half + 1, kernel, dtype=torch.bool)
    kept[:, :, half, half] = out[:, None] > into if mask == "A" else out[:, None] >= into
    kept[:, :, half, half + 1 :] = False
    return kept


def group_of(features: int, groups: int) -> Tensor:
    """The colour group of each feature: contiguous groups of sizes as even as possible.

    >>> group_of(8, 3).tolist()
    [0, 0, 0, 1, 1, 1, 2, 2]
    """
    return torch.arange(features) * groups // features


def _slices(group: Tensor, groups: int) -> list[slice]:
    """Where each group's features lie."""
    ends = group.bincount(minlength=groups).cumsum(0).tolist()
    return [slice(start, end) for start, end in pairwise([0, *ends])]
