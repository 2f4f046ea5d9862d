"""A training step of VQ-VAE through the trainer against a plain PyTorch script of the same nets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, relu

import unsup
from benchmarks.harness import Measured, interleave
from unsup.core.machine import fast_cpu
from unsup.data.source import Data, Split
from unsup.train.gradients import GradientTrainer
from unsup.train.progress import Progress
from unsup.train.settings import make_settings

BATCH, WIDTH, CODES, DIM = 32, 256, 512, 64


def vq_vae_step() -> Measured:
    return _measure("float32", ("float32",))


def vq_vae_step_bfloat16() -> Measured:
    return _measure("bfloat16", ("bfloat16", "float32"))


def _measure(precision: Literal["float32", "bfloat16"], others: tuple[str, ...]) -> Measured:
    x = torch.randint(0, 256, (10 * BATCH, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return interleave(
        f"VQ-VAE on 3×32², one step, batch {BATCH}, {precision}",
        trainer_step(x, precision),
        {f"plain PyTorch {other} script": plain_step(x, other) for other in others},
        rounds=5,
        target="≥ 1×, of the same precision",
        note="the paper's nets, codebook by moving averages, uniform prior",
    )


def trainer_step(
    x: Tensor,
    precision: str,
    name: str = "vq-vae",
    options: Mapping[str, Any] | None = None,
    *,
    event: unsup.Event | None = None,
    batch: int = BATCH,
) -> Callable[[], None]:
    """One step of the trainer, on images of 3×32² by default; without options, of the ``paper`` preset."""
    event = event or unsup.Event((3, 32, 32), unsup.Support("ordinal", 256))
    data = Data("random", event, Split(x), Split(x[:10]), Split(x[:10]))
    model = unsup.create(name, event, preset="paper") if options is None else unsup.create(name, event, **options)
    settings = make_settings(model, {"steps": 100_000, "batch_size": batch, "ema": 0.0, "precision": precision})
    trainer = GradientTrainer(model, data, settings, Progress("off"))
    trainer.begin()
    batches = trainer.batches()

    def step() -> None:
        with fast_cpu(trainer.device):
            trainer._step(batches)

    return step


def plain_step(x: Tensor, precision: str) -> Callable[[], None]:
    net = Plain()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)

    def step() -> None:
        rows = x[torch.randint(0, len(x), (BATCH,))].float()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = net(rows)
        loss.backward()
        optimizer.step()

    return step


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(relu(self.first(relu(h))))


class Plain(nn.Module):
    """The quantiser multiplies by one-hot codes, as scripts commonly do."""

    codebook: Tensor
    usage: Tensor
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        down = (nn.Conv2d(3, WIDTH, 4, 2, 1), nn.ReLU(), nn.Conv2d(WIDTH, WIDTH, 4, 2, 1))
        self.encoder = nn.Sequential(*down, Block(), Block(), nn.ReLU(), nn.Conv2d(WIDTH, DIM, 1))
        up = (nn.ConvTranspose2d(WIDTH, WIDTH, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(WIDTH, 6, 4, 2, 1))
        self.decoder = nn.Sequential(nn.Conv2d(DIM, WIDTH, 1), Block(), Block(), nn.ReLU(), *up)
        self.register_buffer("codebook", torch.randn(CODES, DIM))
        self.register_buffer("usage", torch.ones(CODES))
        self.register_buffer("sums", self.codebook.clone())

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x / 127.5 - 1).permute(0, 2, 3, 1).float()
        flat = z.reshape(-1, DIM)
        with torch.no_grad():
            distances = flat.square().sum(1, keepdim=True) - 2 * flat @ self.codebook.T + self.codebook.square().sum(1)
            codes = one_hot(distances.argmin(1), CODES).float()
            vectors = (codes @ self.codebook).view(z.shape)
            self.usage.mul_(0.99).add_(codes.sum(0), alpha=0.01)
            self.sums.mul_(0.99).add_((codes.T @ flat).float(), alpha=0.01)
            self.codebook.copy_(self.sums / (self.usage + 1e-5)[:, None])
        commitment = (z - vectors).square().sum((1, 2, 3))
        mean, log_scale = self.decoder((z + (vectors - z).detach()).permute(0, 3, 1, 2)).float().chunk(2, 1)
        edges = [((2 * x + e) / 256 - 1 - mean) * (-log_scale.clamp(min=-7)).exp() for e in (0, 2)]
        mass = (edges[1].sigmoid() - edges[0].sigmoid()).clamp(min=1e-12)
        return (0.25 * commitment - mass.log().sum((1, 2, 3))).mean()
