"""PixelCNN: cached sampling against the naive loop, and bfloat16 against float32 training."""

from __future__ import annotations

import torch

import unsup
from benchmarks.harness import Measured, interleave
from unsup.core.batch import Batch
from unsup.core.machine import has_fast_bfloat16

BINARY = unsup.Support("binary")


def pixelcnn_sampling() -> Measured:
    model = unsup.create("pixelcnn", unsup.Event((1, 28, 28), BINARY)).eval()  # type: ignore[attr-defined]
    return interleave(
        "PixelCNN sampling, 16 images of 28×28, default size",
        lambda: model.sample(16, generator=torch.Generator().manual_seed(0)),
        {"naive loop": lambda: model.sample_naive(16, generator=torch.Generator().manual_seed(0))},
        rounds=2,
        target="≥ 20×",
    )


def pixelcnn_bfloat16() -> Measured:
    event = unsup.Event((1, 28, 28), BINARY)
    model = unsup.create("pixelcnn", event, channels=64).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x = (torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.13).to(torch.uint8)

    def step(enabled: bool) -> None:
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = model.loss(Batch(x))["loss"].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    fast = has_fast_bfloat16(torch.device("cpu"))
    return interleave(
        "PixelCNN training step in bfloat16, 64 channels, batch 32",
        lambda: step(True),
        {"float32": lambda: step(False)},
        rounds=5,
        target="≥ 1.8× with AMX",
        note="bfloat16 is the default on this machine" if fast else "float32 is the default on this machine",
    )
