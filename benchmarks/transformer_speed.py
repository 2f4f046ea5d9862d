"""The transformer against a plain script of the same net: a training step, and cached against naive sampling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import unsup
from benchmarks.harness import Several, as_fit, interleave, training_step
from unsup.core.batch import Batch

SYMBOLS, WIDTH, LAYERS, HEADS = 65, 128, 4, 4
LENGTH, BATCH = 256, 16
SAMPLED = 1024
CPU = torch.device("cpu")


class PlainBlock(nn.Module):
    """A pre-norm block as in nanoGPT."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention, self.projection = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.net = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        b, t, c = h.shape
        q, k, v = self.attention(self.first(h)).split(WIDTH, 2)
        q, k, v = (a.view(b, t, HEADS, c // HEADS).transpose(1, 2) for a in (q, k, v))
        found = scaled_dot_product_attention(q, k, v, dropout_p=self.dropout.p, is_causal=True)
        h = h + self.dropout(self.projection(found.transpose(1, 2).contiguous().view(b, t, c)))
        return h + self.dropout(self.net(self.second(h)))


class Plain(nn.Module):
    """A GPT in the manner of nanoGPT: embeddings, blocks, a norm, logits, and the mean cross-entropy."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(SYMBOLS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(PlainBlock(dropout) for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, SYMBOLS, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.dropout(self.tokens(x) + self.places(torch.arange(x.shape[1])))
        logits = self.head(self.norm(self.blocks(h)))
        return cross_entropy(logits.view(-1, SYMBOLS), y.view(-1))


def _event(length: int) -> unsup.Event:
    return unsup.Event((length,), unsup.Support("nominal", SYMBOLS), "sequence")


def _optimizer(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), fused=True)


def transformer_training() -> Several:
    """Both train on all of the symbols: ours puts a learned start before them, the script shifts them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(SYMBOLS, (BATCH, LENGTH + 1), generator=generator)
    inputs, targets = x[:, :-1].contiguous(), x[:, 1:].contiguous()
    parts = []
    for dropout in (0.0, 0.1):
        model = unsup.create("transformer", _event(LENGTH), width=WIDTH, layers=LAYERS, heads=HEADS, dropout=dropout)
        plain = Plain(dropout)

        def loss(model: Any = model) -> Tensor:
            found: Tensor = model.loss(Batch(targets), generator=generator)["loss"].mean()
            return found

        def plain_loss(plain: Plain = plain) -> Tensor:
            found: Tensor = plain(inputs, targets)
            return found

        ours, theirs = training_step(_optimizer(model), loss), training_step(_optimizer(plain), plain_loss)
        size = f"{LAYERS} layers of width {WIDTH}, {BATCH} × {LENGTH} symbols, float32"
        for told, step in (("", ours), (" in `unsup.fit`", as_fit(ours))):
            name = f"Transformer training step{told}, dropout {dropout:g}"
            parts.append(interleave(name, step, {"plain script": theirs}, rounds=15, target="≥ 1×", note=size))
    return Several(parts)
