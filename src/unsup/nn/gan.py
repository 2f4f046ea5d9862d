"""Generators and critics for images: the convolutional pair of DCGAN and the residual pair of SNGAN, for any size.

The papers' sizes are special cases. With n = ⌊log₂(side / 4)⌋ doublings, the generator starts from sides ⌈side / 2ⁿ⌉
between 4 and 8 (28 = 7·2², 32 = 4·2³, 64 = 4·2⁴) and crops the surplus at the right and below (nothing if 2ⁿ divides
the side).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, leaky_relu, pad, relu

from unsup.core.errors import InputError
from unsup.nn.norm import BatchNorm
from unsup.nn.spectral import spectral_norm
from unsup.prob.distributions import at_least_float32

ImageNet = Literal["dcgan", "resnet"]
CriticNorm = Literal["none", "batch", "spectral"]
Shape = tuple[int, int, int]


def image_networks(
    net: ImageNet,
    shape: Shape,
    *,
    latent_dim: int,
    generator_channels: int,
    critic_channels: int,
    critic_norm: CriticNorm,
    pack: int = 1,
    beside: int = 0,
) -> tuple[nn.Module, nn.Module]:
    """A generator ``(B, latent_dim)`` → ``(B, C, H, W)`` in [−1, 1] and a critic ``(B, C, H, W)`` → ``(B,)`` of logits.

    - ``dcgan`` (Radford, Metz, Chintala 2016, https://arxiv.org/abs/1511.06434): 5×5 convolutions of stride ½ and 2,
      N(0, 0.02) weights. Channels are those of the layer next to the image, and double with each layer away from it:
      64² with 128 and 128 is the network of the paper, 1024 at 4².
    - ``resnet`` (Miyato et al. 2018, https://arxiv.org/abs/1802.05957, table 4): residual blocks of the same width
      throughout; 32² with 256 and 128 channels and latents of 128 is the network of the paper.

    Args:
        net: the pair.
        shape: (C, H, W) of an image with sides of at least 8.
        latent_dim: size of z with the features of a condition.
        generator_channels: width of the generator.
        critic_channels: width of the critic.
        critic_norm: ``batch`` normalises activations with batch statistics (real and fake are then separate batches),
            ``spectral`` normalises the weights of every layer.
        pack: number of images, stacked along channels, that the critic judges together.
        beside: condition channels per image; the input of the critic is ``(B, pack · (C + beside), H, W)``.

    Raises:
        InputError: a side below 8.

    >>> generator, critic = image_networks(
    ...     "resnet", (1, 28, 28), latent_dim=8, generator_channels=4, critic_channels=4, critic_norm="spectral"
    ... )
    >>> x = generator(torch.randn(2, 8))
    >>> x.shape, critic(x).shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2]))
    """
    channels, height, width = shape
    if min(height, width) < 8:
        raise InputError(f"images of shape {shape} are too small for net={net!r}; expected sides of at least 8")
    judged = (pack * (channels + beside), height, width)
    if net == "dcgan":
        return DCGANGenerator(shape, latent_dim, generator_channels), DCGANCritic(judged, critic_channels, critic_norm)
    return ResNetGenerator(shape, latent_dim, generator_channels), ResNetCritic(judged, critic_channels, critic_norm)


def _doublings(shape: Shape) -> int:
    return int(math.log2(min(shape[1:]) // 4))


class _FirstImage(nn.Module):
    """z → the smallest feature map of the generator, in channels-last layout: ``(B, latent)`` → ``(B, C, h, w)``."""

    def __init__(self, shape: Shape, latent_dim: int, channels: int, *, bias: bool) -> None:
        super().__init__()
        scale = 2 ** _doublings(shape)
        self.height, self.width = math.ceil(shape[1] / scale), math.ceil(shape[2] / scale)
        self.channels = channels
        self.linear = nn.Linear(latent_dim, self.height * self.width * channels, bias=bias)

    def forward(self, z: Tensor) -> Tensor:
        h: Tensor = self.linear(z)
        return h.view(len(z), self.height, self.width, self.channels).permute(0, 3, 1, 2)


class DCGANGenerator(nn.Module):
    """z → linear to the start, then 5×5 convolutions of stride ½, batch norm and ReLU between all, tanh at the end."""

    def __init__(self, shape: Shape, latent_dim: int, channels: int) -> None:
        super().__init__()
        self.size = shape[1:]
        widths = [channels * 2**i for i in reversed(range(_doublings(shape)))]
        self.first = _FirstImage(shape, latent_dim, widths[0], bias=False)
        self.norms = nn.ModuleList(BatchNorm(n) for n in widths)
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(n, m, 5, stride=2, padding=2, output_padding=1, bias=last)
            for n, m, last in zip(widths, [*widths[1:], shape[0]], [False] * (len(widths) - 1) + [True], strict=True)
        )
        _initialise_normal(self)

    def forward(self, z: Tensor) -> Tensor:
        h = self.first(z)
        for norm, up in zip(self.norms, self.ups, strict=True):
            h = up(relu(norm(h), inplace=True))
        return _to_image(h, self.size)


class DCGANCritic(nn.Module):
    """5×5 convolutions of stride 2 with LeakyReLU 0.2, no batch norm on the first, then linear."""

    def __init__(self, shape: Shape, channels: int, norm: CriticNorm) -> None:
        super().__init__()
        widths = [channels * 2**i for i in range(_doublings(shape))]
        self.downs = nn.ModuleList(
            nn.Conv2d(n, m, 5, stride=2, padding=2, bias=norm != "batch" or i == 0)
            for i, (n, m) in enumerate(zip([shape[0], *widths], widths, strict=False))
        )
        self.norms = nn.ModuleList(
            BatchNorm(n) if norm == "batch" and i else nn.Identity() for i, n in enumerate(widths)
        )
        scale = 2 ** len(widths)
        self.linear = nn.Linear(widths[-1] * math.ceil(shape[1] / scale) * math.ceil(shape[2] / scale), 1)
        _initialise_normal(self)
        _normalise_weights(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for down, norm in zip(self.downs, self.norms, strict=True):
            h = leaky_relu(norm(down(h)), 0.2, inplace=True)
        return _to_logit(self.linear, h.permute(0, 2, 3, 1).flatten(1))


class ResNetGenerator(nn.Module):
    """z → linear to the start, residual blocks that double the sides, batch norm, ReLU, 3×3 convolution, tanh."""

    def __init__(self, shape: Shape, latent_dim: int, channels: int) -> None:
        super().__init__()
        self.size = shape[1:]
        self.first = _FirstImage(shape, latent_dim, channels, bias=True)
        self.blocks = nn.Sequential(*(_UpBlock(channels) for _ in range(_doublings(shape))))
        self.norm = BatchNorm(channels)
        self.last = nn.Conv2d(channels, shape[0], 3, padding=1)
        _initialise_glorot(self)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.first(z))
        return _to_image(self.last(relu(self.norm(h), inplace=True)), self.size)


class ResNetCritic(nn.Module):
    """Residual blocks that halve the sides until they are at most 8, two that keep them, ReLU, sum pool, linear."""

    def __init__(self, shape: Shape, channels: int, norm: CriticNorm) -> None:
        super().__init__()
        halvings = max(1, math.ceil(math.log2(min(shape[1:]) / 8)))
        self.blocks = nn.Sequential(
            _DownBlock(shape[0], channels, norm, first=True),
            *(_DownBlock(channels, channels, norm, first=False) for _ in range(halvings - 1)),
            *(_FlatBlock(channels, norm) for _ in range(2)),
        )
        self.norm = _norm(channels, norm)
        self.linear = nn.Linear(channels, 1)
        _initialise_glorot(self)
        _normalise_weights(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        h = relu(self.norm(self.blocks(x)))
        return _to_logit(self.linear, at_least_float32(h).sum((2, 3)))


class _UpsampledConv(nn.Conv2d):
    """A 3×3 convolution of its input upsampled to the nearest pixel, exactly, at 4/9 of the work.

    Upsampling is a transposed convolution of stride 2 with a 2×2 kernel of ones; the two in a row are one of stride 2
    with a 4×4 kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel = _spread(self.weight.flip(2, 3)).transpose(0, 1)
        return conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class _PooledConv(nn.Conv2d):
    """A 3×3 convolution followed by the mean over 2×2 pixels, exactly, at 4/9 of the work: one of 4×4, stride 2."""

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, _spread(self.weight) / 4, self.bias, stride=2, padding=1)


def _spread(weight: Tensor) -> Tensor:
    """The full convolution with a 2×2 kernel of ones: ``(..., 3, 3)`` → ``(..., 4, 4)``."""
    rows = pad(weight, (0, 0, 0, 1)) + pad(weight, (0, 0, 1, 0))
    return pad(rows, (0, 1)) + pad(rows, (1, 0))


class _UpBlock(nn.Module):
    """Batch norm, ReLU, upsample, 3×3, batch norm, ReLU, 3×3, added to the upsampled 1×1 short-cut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(channels), BatchNorm(channels)
        self.conv1 = _UpsampledConv(channels, channels, 3)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)  # before upsampling: the same, for a quarter of the work

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(relu(self.norm1(x), inplace=True))
        h = self.conv2(relu(self.norm2(h), inplace=True))
        return h + interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")


class _DownBlock(nn.Module):
    """ReLU (not in the first block), 3×3, ReLU, 3×3, 2×2 mean, added to the 1×1 short-cut of the 2×2 mean."""

    def __init__(self, inputs: int, channels: int, norm: CriticNorm, *, first: bool) -> None:
        super().__init__()
        self.first = first
        self.norm1 = nn.Identity() if first else _norm(inputs, norm)
        self.norm2 = _norm(channels, norm)
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1)
        self.conv2 = _PooledConv(channels, channels, 3)
        self.shortcut = nn.Conv2d(inputs, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else relu(self.norm1(x)))
        h = self.conv2(relu(self.norm2(h), inplace=True))
        return h + self.shortcut(avg_pool2d(x, 2))  # a mean and a 1×1 convolution commute


class _FlatBlock(nn.Module):
    """x + (ReLU, 3×3, ReLU, 3×3)."""

    def __init__(self, channels: int, norm: CriticNorm) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(channels, norm), _norm(channels, norm)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(relu(self.norm1(x)))
        return x + self.conv2(relu(self.norm2(h), inplace=True))


def _norm(channels: int, norm: CriticNorm) -> nn.Module:
    return BatchNorm(channels) if norm == "batch" else nn.Identity()


def _to_image(h: Tensor, size: tuple[int, ...]) -> Tensor:
    return at_least_float32(h[:, :, : size[0], : size[1]]).tanh()


def _to_logit(linear: nn.Linear, h: Tensor) -> Tensor:
    """The last layer, at full precision: ``(B, F)`` → ``(B,)``."""
    with torch.autocast(h.device.type, enabled=False):
        return linear(at_least_float32(h)).squeeze(1)


def _normalise_weights(critic: nn.Module, norm: CriticNorm) -> None:
    if norm == "spectral":
        for layer in list(critic.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spectral_norm(layer)


@torch.no_grad()
def _initialise_normal(net: nn.Module) -> None:
    """DCGAN's: weights N(0, 0.02²), biases 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.weight.normal_(0, 0.02)
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def _initialise_glorot(net: nn.Module) -> None:
    """SNGAN's: uniform by Glorot, with gain √2 in the residual branches; biases 0."""
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, math.sqrt(2) if ".conv" in name else 1.0)
            assert layer.bias is not None  # batch norm in these nets does not replace it
            layer.bias.zero_()
