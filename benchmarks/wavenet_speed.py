"""WaveNet: a training step against convolutions in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import unsup
from benchmarks.harness import Measured, interleave
from unsup.core.batch import Batch
from unsup.families.autoregressive.wavenet import WaveNet

MU_LAW = unsup.Support("ordinal", 256)


def wavenet_training() -> Measured:
    event = unsup.Event((1024,), MU_LAW, "sequence")
    model, plain = WaveNet(event), PlainWaveNet(32, 128, [2**layer for _ in range(2) for layer in range(9)])
    x = torch.randint(256, (8, 1024), generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.optim.AdamW(m.parameters(), fused=True) for m in (model, plain))

    def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return interleave(
        "WaveNet training step, default size, 8 × 1,024 samples, float32",
        lambda: step(ours, model.loss(Batch(x))["loss"].mean()),
        {"plain PyTorch (Conv1d)": lambda: step(theirs, plain(x))},
        rounds=7,
        target="≥ 1×",
    )


class PlainWaveNet(nn.Module):
    """The same network as most programs write it: dilated and 1×1 `Conv1d` over ``(B, F, L)``."""

    def __init__(self, width: int, skip: int, dilations: list[int]) -> None:
        super().__init__()
        self.dilations = dilations
        self.tokens = nn.Embedding(257, width)
        self.gates = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=d) for d in dilations)
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in dilations)
        self.skip = nn.ModuleList(nn.Conv1d(width, skip, 1) for _ in dilations)
        self.head = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, 256, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(torch.cat([torch.full_like(x[:, :1], 256), x[:, :-1]], 1)).transpose(1, 2)
        total: Tensor | float = 0.0
        for d, gate, residual, skip in zip(self.dilations, self.gates, self.residual, self.skip, strict=True):
            a, b = gate(pad(h, (d, 0))).chunk(2, 1)
            z = a.tanh() * b.sigmoid()
            h, total = h + residual(z), total + skip(z)
        return cross_entropy(self.head(total), x, reduction="sum") / len(x)
