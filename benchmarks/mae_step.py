"""A training step of MAE through the trainer against plain PyTorch scripts of the same nets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

import unsup
from benchmarks.harness import Measured, interleave
from benchmarks.vq_vae_step import trainer_step
from unsup.nn.vit import sine_positions

BATCH, SIDE, PATCH, SIZE, DECODER = 64, 32, 4, 192, 96
PLACES, ENTRIES = (SIDE // PATCH) ** 2, 3 * PATCH**2
VISIBLE = PLACES // 4


def mae_step() -> Measured:
    return _measure("float32", ("float32",))


def mae_step_bfloat16() -> Measured:
    return _measure("bfloat16", ("bfloat16", "float32"))


def _measure(precision: Literal["float32", "bfloat16"], others: tuple[str, ...]) -> Measured:
    shape = (10 * BATCH, 3, SIDE, SIDE)
    x = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    event = unsup.Event((3, SIDE, SIDE), unsup.Support("ordinal", 256), "image")
    scripts = {f"plain PyTorch {other} script": plain_step(x, other) for other in others}
    everything = {"the same, mask tokens in the encoder": plain_step(x, precision, all_tokens=True)}
    return interleave(
        f"MAE on 3×32², one step, batch {BATCH}, {precision}",
        trainer_step(x, precision, "mae", {}, event=event, batch=BATCH),
        scripts | everything,
        rounds=5,
        target="≥ 1×, of the same precision",
        note="default size, 16 of 64 patches visible",
    )


def plain_step(x: Tensor, precision: str, *, all_tokens: bool = False) -> Callable[[], None]:
    """One step of a script; with ``all_tokens``, masked patches are replaced in the encoder, not left out."""
    net = Plain(all_tokens)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05)

    def step() -> None:
        rows = x[torch.randint(0, len(x), (BATCH,))].float() / 255
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = net(rows)
        loss.backward()
        optimizer.step()

    return step


def transformer(size: int, depth: int) -> nn.Sequential:
    blocks = (
        nn.TransformerEncoderLayer(size, 3, 4 * size, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True)
        for _ in range(depth)
    )
    return nn.Sequential(*blocks, nn.LayerNorm(size, 1e-6))


class Plain(nn.Module):
    """All patches are projected, then some are left out, and all are predicted, as in the published code."""

    positions: Tensor
    decoder_positions: Tensor

    def __init__(self, all_tokens: bool) -> None:
        super().__init__()
        self.all_tokens = all_tokens
        self.project, self.encoder = nn.Conv2d(3, SIZE, PATCH, PATCH), transformer(SIZE, 6)
        self.embed, self.decoder = nn.Linear(SIZE, DECODER), transformer(DECODER, 2)
        self.mask_token = nn.Parameter(0.02 * torch.randn(SIZE if all_tokens else DECODER))
        self.out = nn.Linear(DECODER, ENTRIES)
        side = SIDE // PATCH
        self.register_buffer("positions", sine_positions(side, side, SIZE))
        self.register_buffer("decoder_positions", sine_positions(side, side, DECODER))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 0.5) / 0.25
        shuffle = torch.rand(BATCH, PLACES).argsort(1)
        restore = shuffle.argsort(1)
        mask = (restore >= VISIBLE).float()
        tokens = self.project(x).flatten(2).transpose(1, 2)
        if self.all_tokens:
            tokens = torch.where(mask[:, :, None] > 0, self.mask_token, tokens)
            tokens = self.embed(self.encoder(tokens + self.positions))
        else:
            kept = shuffle[:, :VISIBLE, None].repeat(1, 1, SIZE)
            encoded = self.embed(self.encoder((tokens + self.positions).gather(1, kept)))
            tokens = torch.cat([encoded, self.mask_token.expand(BATCH, PLACES - VISIBLE, -1)], 1)
            tokens = tokens.gather(1, restore[:, :, None].repeat(1, 1, DECODER))
        predicted = self.out(self.decoder(tokens + self.decoder_positions))
        side = SIDE // PATCH
        cut = x.reshape(BATCH, 3, side, PATCH, side, PATCH)
        target = torch.einsum("nchpwq->nhwpqc", cut).reshape(BATCH, PLACES, ENTRIES)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        error = (predicted - target).square().mean(-1)
        return (error * mask).sum() / mask.sum()
