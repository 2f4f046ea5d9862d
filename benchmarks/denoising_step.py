"""A training step of a denoising autoencoder through the trainer against a plain PyTorch script of the same net."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import unsup
from benchmarks.harness import Measured, interleave, training_step
from benchmarks.vq_vae_step import trainer_step

BATCH, UNITS, EXAMPLES = 100, 1000, 2000


def denoising_autoencoder_step() -> Measured:
    noise = torch.rand(EXAMPLES, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    x = (noise < 0.13).to(torch.uint8)
    event = unsup.Event((1, 28, 28), unsup.Support("binary"))
    options = {"hidden": (UNITS, UNITS), "code": UNITS, "corruption": 0.25, "pretraining": 0.0}
    return interleave(
        f"Denoising autoencoder on 784-1000-1000-1000, one step, batch {BATCH}, float32",
        trainer_step(x, "float32", "denoising-autoencoder", options, event=event, batch=BATCH),
        {"plain PyTorch script": _plain_step(x.flatten(1))},
        rounds=20,
        target="≥ 1×",
        note="all layers at once, a quarter of the pixels masked",
    )


def _plain_step(x: Tensor) -> Callable[[], None]:
    widths = (784, UNITS, UNITS, UNITS, UNITS, UNITS, 784)
    layers = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.Sigmoid())]
    net = nn.Sequential(*layers[:-1])

    def loss() -> Tensor:
        rows = x[torch.randint(0, len(x), (BATCH,))].float()
        masked = rows * (torch.rand_like(rows) >= 0.25)
        return binary_cross_entropy_with_logits(net(masked), rows, reduction="sum") / BATCH

    return training_step(torch.optim.Adam(net.parameters(), lr=1e-3), loss)
