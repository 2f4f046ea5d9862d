"""SNGAN's step on 32² colour images through the trainer against a plain PyTorch script of the same nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu
from torch.nn.utils.parametrizations import spectral_norm

import unsup
from benchmarks.harness import Measured, interleave
from unsup.core.machine import fast_cpu
from unsup.data.source import Data, Split
from unsup.train.gradients import GradientTrainer
from unsup.train.progress import Progress
from unsup.train.settings import make_settings

BATCH, LATENT, GENERATOR, CRITIC = 64, 128, 256, 128


def sngan_step() -> Measured:
    return _measure("float32")


def sngan_step_bfloat16() -> Measured:
    return _measure("bfloat16")


def _measure(precision: Literal["float32", "bfloat16"]) -> Measured:
    x = torch.randint(0, 256, (10 * BATCH, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return interleave(
        f"SNGAN on 3×32², one critic and one generator step, batch {BATCH}, {precision}",
        trainer_step(x, precision),
        {"plain PyTorch float32 script": plain_step(x)},
        rounds=4,
        target="≥ 1.5× where there is AMX",
        note="the paper's nets; each step is of one batch",
    )


def trainer_step(x: Tensor, precision: str) -> Callable[[], None]:
    event = unsup.Event((3, 32, 32), unsup.Support("ordinal", 256))
    data = Data("random", event, Split(x), Split(x[:10]), Split(x[:10]))
    model = unsup.create("gan", event, preset="paper", critic_steps=1)
    settings = make_settings(model, {"steps": 100_000, "batch_size": BATCH, "ema": 0.0, "precision": precision})
    trainer = GradientTrainer(model, data, settings, Progress("off"))
    trainer.begin()
    batches = trainer.batches()

    def step() -> None:
        with fast_cpu(trainer.device):
            trainer._step(batches)

    return step


def plain_step(x: Tensor) -> Callable[[], None]:
    generator, critic = Generator(), Critic()
    generator_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.0, 0.9))
    critic_optimizer = torch.optim.Adam(critic.parameters(), lr=2e-4, betas=(0.0, 0.9))

    def step() -> None:
        real = (x[torch.randint(0, len(x), (BATCH,))].float() + torch.rand(BATCH, 3, 32, 32)) / 128 - 1
        critic_optimizer.zero_grad()
        fake = generator(torch.randn(BATCH, LATENT)).detach()
        loss = relu(1 - critic(real)).mean() + relu(1 + critic(fake)).mean()
        loss.backward()
        critic_optimizer.step()

        generator_optimizer.zero_grad()
        loss = -critic(generator(torch.randn(BATCH, LATENT))).mean()
        loss.backward()
        generator_optimizer.step()

    return step


class UpBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(interpolate(relu(self.norm1(x)), scale_factor=2))
        h = self.conv2(relu(self.norm2(h)))
        return h + self.shortcut(interpolate(x, scale_factor=2))


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(LATENT, 16 * GENERATOR)
        self.blocks = nn.Sequential(*(UpBlock(GENERATOR) for _ in range(3)))
        self.norm = nn.BatchNorm2d(GENERATOR)
        self.last = nn.Conv2d(GENERATOR, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.linear(z).view(-1, GENERATOR, 4, 4))
        return torch.tanh(self.last(relu(self.norm(h))))


class DownBlock(nn.Module):
    def __init__(self, inputs: int, *, first: bool = False, down: bool = False) -> None:
        super().__init__()
        self.first, self.down = first, down
        self.conv1 = spectral_norm(nn.Conv2d(inputs, CRITIC, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(CRITIC, CRITIC, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(inputs, CRITIC, 1)) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if not self.down:
            return h + x
        if self.first:
            return avg_pool2d(h, 2) + self.shortcut(avg_pool2d(x, 2))
        return avg_pool2d(h, 2) + avg_pool2d(self.shortcut(x), 2)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            DownBlock(3, first=True, down=True), DownBlock(CRITIC, down=True), DownBlock(CRITIC), DownBlock(CRITIC)
        )
        self.linear = spectral_norm(nn.Linear(CRITIC, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(relu(self.blocks(x)).sum((2, 3))).squeeze(1)
