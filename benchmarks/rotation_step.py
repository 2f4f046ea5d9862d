"""A training step of `rotation` through the trainer against a plain PyTorch script of the same net and batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.harness import Measured, interleave
from benchmarks.vq_vae_step import trainer_step

BATCH = 32


def rotation_step() -> Measured:
    return _measure("float32", ("float32",))


def rotation_step_bfloat16() -> Measured:
    return _measure("bfloat16", ("bfloat16", "float32"))


def _measure(precision: str, others: tuple[str, ...]) -> Measured:
    x = torch.randint(0, 256, (10 * BATCH, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return interleave(
        f"rotation on 3×32², one step, batch {BATCH} × 4, {precision}",
        trainer_step(x, precision, "rotation", {"net": "nin-4", "width": 1.0}, batch=BATCH),
        {f"plain PyTorch {other} script": plain_step(x, other) for other in others},
        rounds=5,
        target="≥ 1×, of the same precision",
        note="the paper's net of four blocks",
    )


def plain_step(x: Tensor, precision: str) -> Callable[[], None]:
    """As scripts commonly do it: the batch is turned with `torch.rot90`, scaled and classified."""
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    answers = torch.arange(4).repeat_interleave(BATCH)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in ((0.5, 0.5, 0.5), (0.29, 0.29, 0.29)))

    def step() -> None:
        rows = (x[torch.randint(0, len(x), (BATCH,))].float() / 255 - mean) / std
        turned = torch.cat([torch.rot90(rows, quarter, (2, 3)) for quarter in range(4)])
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = cross_entropy(net(turned).float(), answers)
        loss.backward()
        optimizer.step()

    return step


def network() -> nn.Sequential:
    """The NIN of four blocks, with its classifier."""
    layers: list[nn.Module] = []
    before = 3
    blocks = ((5, 192, 160, 96), (5, 192, 192, 192), (3, 192, 192, 192), (3, 192, 192, 192))
    pools = (nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), nn.Identity(), nn.Identity())
    for (kernel, *widths), pool in zip(blocks, pools, strict=True):
        for outputs, size in zip(widths, (kernel, 1, 1), strict=True):
            layers += [nn.Conv2d(before, outputs, size, padding=size // 2, bias=False), nn.BatchNorm2d(outputs)]
            layers.append(nn.ReLU(inplace=True))
            before = outputs
        layers.append(pool)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 4))
