"""A training step of PixelCNN++ against a plain float32 script of the same network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, log_softmax, logsigmoid, pad, softplus
from torch.nn.utils.parametrizations import weight_norm

import unsup
from benchmarks.harness import Several, interleave
from unsup.core.batch import Batch
from unsup.core.machine import fast_cpu

CHANNELS, BLOCKS, RESOLUTIONS, MIXTURES, BATCH = 32, 2, 3, 10, 8
LEVELS = 256
EVENT = unsup.Event((3, 32, 32), unsup.Support("ordinal", LEVELS))
CPU = torch.device("cpu")


def concat_elu(x: Tensor) -> Tensor:
    return elu(torch.cat([x, -x], 1))


class Shifted(nn.Module):
    """A weight-normalised convolution of an input that is padded above, and on the left or on both sides.

    Args:
        kernel: rows and columns.
        strict: whether outputs do not depend on the input at their own row (``both``), or at their own column.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], *, both: bool, strict: bool = False, stride: int = 1
    ) -> None:
        super().__init__()
        rows, columns = kernel
        sides = ((columns - 1) // 2, (columns - 1) // 2) if both else (columns - 1, 0)
        self.padding, self.strict, self.both = (*sides, rows - 1, 0), strict, both
        self.conv = weight_norm(nn.Conv2d(inputs, outputs, kernel, stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(pad(x, self.padding))
        if not self.strict:
            return y
        return pad(y[:, :, :-1], (0, 0, 1, 0)) if self.both else pad(y[:, :, :, :-1], (1, 0))


def above(inputs: int, outputs: int, **options: int) -> Shifted:
    return Shifted(inputs, outputs, (2, 3), both=True, **options)


def left(inputs: int, outputs: int, **options: int) -> Shifted:
    return Shifted(inputs, outputs, (2, 2), both=False, **options)


class Block(nn.Module):
    """A gated residual block, with another input beside it."""

    def __init__(self, conv: Callable[..., Shifted], beside: int) -> None:
        super().__init__()
        self.first, self.second = conv(2 * CHANNELS, CHANNELS), conv(2 * CHANNELS, 2 * CHANNELS)
        self.beside = weight_norm(nn.Conv2d(2 * beside, CHANNELS, 1)) if beside else None

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        y = self.first(concat_elu(x))
        if self.beside is not None:
            y = y + self.beside(concat_elu(beside))
        a, b = self.second(concat_elu(y)).chunk(2, 1)
        return x + a * b.sigmoid()


class Plain(nn.Module):
    """The network and the loss, as a script would have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first_above = Shifted(4, CHANNELS, (2, 3), both=True, strict=True)
        self.first_row = Shifted(4, CHANNELS, (1, 3), both=True, strict=True)
        self.first_left = Shifted(4, CHANNELS, (2, 1), both=False, strict=True)
        lower = RESOLUTIONS - 1
        self.down = nn.ModuleList(
            nn.ModuleList([Block(above, 0), Block(left, CHANNELS)]) for _ in range(BLOCKS * RESOLUTIONS)
        )
        ups = BLOCKS + lower * (BLOCKS + 1)
        self.up = nn.ModuleList(nn.ModuleList([Block(above, CHANNELS), Block(left, 2 * CHANNELS)]) for _ in range(ups))
        self.shrink = nn.ModuleList(
            nn.ModuleList([above(CHANNELS, CHANNELS, stride=2), left(CHANNELS, CHANNELS, stride=2)])
            for _ in range(lower)
        )
        self.grow = nn.ModuleList(
            nn.ModuleList(
                [
                    weight_norm(nn.ConvTranspose2d(CHANNELS, CHANNELS, (2, 3), 2, (0, 1), (0, 1))),
                    weight_norm(nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2)),
                ]
            )
            for _ in range(lower)
        )
        self.last = weight_norm(nn.Conv2d(CHANNELS, 10 * MIXTURES, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The mean of −log p of images in [−1, 1]."""
        h = torch.cat([x, torch.ones_like(x[:, :1])], 1)
        u, v = self.first_above(h), self.first_row(h) + self.first_left(h)
        kept = [(u, v)]
        for i, (block_above, block_left) in enumerate(self.down):  # type: ignore[misc]
            if i and i % BLOCKS == 0:
                shrink_above, shrink_left = self.shrink[i // BLOCKS - 1]  # type: ignore[misc]
                u, v = shrink_above(u), shrink_left(v)
                kept.append((u, v))
            u = block_above(u)
            v = block_left(v, u)
            kept.append((u, v))
        u, v = kept.pop()
        done, grown, size = 0, 0, BLOCKS
        for block_above, block_left in self.up:  # type: ignore[misc]
            if done == size:
                grow_above, grow_left = self.grow[grown]  # type: ignore[misc]
                u, v = grow_above(u), grow_left(v)
                done, grown, size = 0, grown + 1, BLOCKS + 1
            other, beside = kept.pop()
            u = block_above(u, other)
            v = block_left(v, torch.cat([u, beside], 1))
            done += 1
        return surprise(x, self.last(elu(v)))


def surprise(x: Tensor, outputs: Tensor) -> Tensor:
    """−log p of the discretised mixture of logistics, with the mid-point approximation of the published code."""
    n, _, height, width = x.shape
    logits = outputs[:, :MIXTURES]
    means, scales, couplings = outputs[:, MIXTURES:].view(n, 3, 3, MIXTURES, height, width).unbind(1)
    scales, (first, second, third) = scales.clamp(min=-7), couplings.tanh().unbind(1)
    red, green = x[:, 0, None], x[:, 1, None]
    means = means + torch.stack([torch.zeros_like(first), first * red, second * red + third * green], 1)
    centred = x[:, :, None] - means
    inverse = (-scales).exp()
    higher, lower = inverse * (centred + 1 / 255), inverse * (centred - 1 / 255)
    mass = (higher.sigmoid() - lower.sigmoid()).clamp(min=1e-12)
    middle = inverse * centred
    density = middle - scales - 2 * softplus(middle) - torch.log(torch.tensor(127.5))
    inside = torch.where(mass > 1e-5, mass.log(), density)
    value = x[:, :, None]
    log_p = torch.where(value < -0.999, logsigmoid(higher), torch.where(value > 0.999, -softplus(lower), inside))
    return -(log_p.sum(1) + log_softmax(logits, 1)).logsumexp(1).sum() / n


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def pixelcnn_plus_plus_training() -> Several:
    """Our step as `unsup.fit` runs it on this CPU, in float32 and in bfloat16, against the script."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(LEVELS, (BATCH, 3, 32, 32), generator=generator, dtype=torch.uint8)
    plain, scaled = Plain(), x / 127.5 - 1
    theirs = _step(plain, lambda: plain(scaled))
    parts = []
    for low in (False, True):
        model = unsup.create(
            "pixelcnn++", EVENT, channels=CHANNELS, blocks=BLOCKS, resolutions=RESOLUTIONS, mixtures=MIXTURES
        )
        step = _step(model, lambda m=model: m.loss(Batch(x), generator=generator)["loss"].mean())  # type: ignore[misc]

        def ours(step: Callable[[], None] = step, low: bool = low) -> None:
            with fast_cpu(CPU), torch.autocast("cpu", torch.bfloat16, enabled=low):
                step()

        parts.append(
            interleave(
                f"PixelCNN++ training step in `unsup.fit`, {'bfloat16' if low else 'float32'}",
                ours,
                {"plain float32 script": theirs},
                rounds=5,
                target="≥ 1.5× where there is AMX",
                note=f"{CHANNELS} channels, {BLOCKS} blocks, {RESOLUTIONS} resolutions, batch {BATCH} of 3×32×32",
            )
        )
    sizes = [sum(p.numel() for p in m.parameters()) for m in (plain, model)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.01, f"the networks differ in size: {sizes}"
    return Several(parts)
