"""The transformer against a plain script of the same net: a training step, and cached against naive sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import unsup
from benchmarks.harness import Measured, Several, interleave
from unsup.core.batch import Batch
from unsup.core.machine import fast_cpu

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


def _step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def transformer_training() -> Several:
    """Both train on all of the symbols: ours puts a learned start before them, the script shifts them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(SYMBOLS, (BATCH, LENGTH + 1), generator=generator)
    inputs, targets = x[:, :-1].contiguous(), x[:, 1:].contiguous()
    parts = []
    for dropout in (0.0, 0.1):
        model = unsup.create("transformer", _event(LENGTH), width=WIDTH, layers=LAYERS, heads=HEADS, dropout=dropout)
        plain = Plain(dropout)
        ours = _step(model, lambda m=model: m.loss(Batch(targets), generator=generator)["loss"].mean())  # type: ignore[misc]
        theirs = _step(plain, lambda p=plain: p(inputs, targets))  # type: ignore[misc]

        def as_fit(step: Callable[[], None] = ours) -> None:
            with fast_cpu(CPU):
                step()

        size = f"{LAYERS} layers of width {WIDTH}, {BATCH} × {LENGTH} symbols, dropout {dropout:g}, float32"
        parts += [
            interleave(
                f"Transformer training step{told}", step, {"plain script": theirs}, rounds=15, target="≥ 1×", note=size
            )
            for told, step in (("", ours), (" in `unsup.fit`", as_fit))
        ]
    return Several(parts)


def transformer_sampling() -> Measured:
    model = unsup.create("transformer", _event(SAMPLED), width=WIDTH, layers=LAYERS, heads=HEADS).eval()
    return interleave(
        f"Transformer sampling, {SAMPLED:,} symbols, default size",
        lambda: model.sample(1, generator=torch.Generator().manual_seed(0)),  # type: ignore[attr-defined]
        {"naive loop": lambda: model.sample_naive(1, generator=torch.Generator().manual_seed(0))},  # type: ignore[attr-defined]
        rounds=1,
        target="≥ 20×",
        warmup=0,
    )
