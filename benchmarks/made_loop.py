"""Training MADE through the trainer against a hand-written minimal loop of the same net, and its peak memory."""

from __future__ import annotations

import resource
import subprocess
import sys

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, relu

import unsup
from benchmarks.harness import Measured, interleave
from unsup.data.source import Data, Split

STEPS, BATCH, HIDDEN = 300, 100, 500


def made_loop() -> Measured:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(20_000, 1, 28, 28, generator=generator) < 0.13).to(torch.uint8)
    event = unsup.Event((1, 28, 28), unsup.Support("binary"))
    data = Data("random", event, Split(x), Split(x[:10]), Split(x[:10]))

    def ours() -> None:
        model = unsup.create("made", event, hidden=(HIDDEN,), direct=False)
        unsup.fit(model, data, steps=STEPS, batch_size=BATCH, validate_every=STEPS, progress="off", precision="float32")

    def by_hand() -> None:
        dims = 784
        position = torch.arange(1, dims + 1)
        degree = torch.randint(1, dims, (HIDDEN,), generator=torch.Generator().manual_seed(0))
        first, second = nn.Linear(dims, HIDDEN), nn.Linear(HIDDEN, dims)
        mask1, mask2 = (degree[:, None] >= position).float(), (position[:, None] > degree).float()
        optimizer = torch.optim.AdamW([*first.parameters(), *second.parameters()], lr=1e-3, weight_decay=0, fused=True)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        flat = x.flatten(1)
        for step in range(STEPS):
            start = step * BATCH % len(x)
            batch = flat[order[start : start + BATCH]].float()
            hidden = relu(linear(batch, first.weight * mask1, first.bias))
            logits = linear(hidden, second.weight * mask2, second.bias)
            loss = binary_cross_entropy_with_logits(logits, batch, reduction="none").sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return interleave(
        f"MADE-{HIDDEN} training, {STEPS} steps, batch {BATCH}",
        ours,
        {"minimal PyTorch loop": by_hand},
        rounds=5,
        target="≥ 0.90×",
        note="whole `unsup.fit`, with its validation and logging",
    )


def peak_memory_megabytes() -> float:
    """Largest resident memory of a process that trains MADE on MNIST-sized data (60,000 × 784)."""
    program = (
        "import torch, unsup\n"
        "from unsup.data.source import Data, Split\n"
        "x = (torch.rand(60_000, 1, 28, 28) < 0.13).to(torch.uint8)\n"
        "event = unsup.Event((1, 28, 28), unsup.Support('binary'))\n"
        "data = Data('random', event, Split(x), Split(x[:5000]), Split(x[:10]))\n"
        "model = unsup.create('made', event, hidden=(500,))\n"
        "unsup.fit(model, data, steps=200, progress='off')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
