"""Causal self-attention over sequences ``(B, L, F)``, with keys and values in a cache."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from unsup.core import random
from unsup.core.errors import InputError
from unsup.nn.causal import NOTHING, Causal, Context, Site


def check_heads(width: int, heads: int) -> None:
    """Raise `InputError` unless the features can be split among the heads."""
    if width % heads:
        raise InputError(f"width={width} is not divisible by heads={heads}; each head has the same number of features")


def split_heads(h: Tensor, heads: int) -> Tensor:
    """``(B, L, F)`` → ``(B, heads, L, F / heads)``."""
    return h.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(h: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    return h.transpose(1, 2).flatten(2)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None = None,
    *,
    context: Context = NOTHING,
    dropout: float = 0.0,
) -> Tensor:
    """softmax(q kᵀ / √d) v: ``(B, heads, L, d)``, ``(B, heads, K, d)``, ``(B, heads, K, e)`` → ``(B, heads, L, e)``.

    Args:
        seen: whether a query sees a key, bool ``(L, K)`` or with axes before; each query sees at least one. None: query
            i sees the keys up to i.
        context: has the generator of dropout.
        dropout: share of attention weights that are dropped.
    """
    if not dropout and _fused_is_faster(q):
        return scaled_dot_product_attention(q, k, v, seen, is_causal=seen is None)
    if seen is None:
        seen = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    unseen = torch.zeros(seen.shape, dtype=q.dtype, device=q.device).masked_fill_(~seen, -math.inf)
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + unseen).softmax(-1)
    return random.dropout(weights, dropout, context.generator) @ v


def _fused_is_faster(q: Tensor) -> bool:
    """The fused CPU kernel multiplies tile by tile. With the float32 products of oneDNN, which training chooses on some
    CPUs (`unsup.core.machine.fast_cpu`), a small product is slow: below 512 sites whole matrices take less time."""
    whole = q.device.type == "cpu" and q.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return not (whole and q.shape[2] < 512)


class Attention(Causal):
    """Multi-head attention of each site to itself and all earlier sites (Vaswani et al. 2017,
    https://arxiv.org/abs/1706.03762).

        softmax(q kᵀ / √d) v      q, k, v: linear maps of the features, d features in each head

    Args:
        width: number of features.
        heads: number of heads, a divisor of the width.
        dropout: share of attention weights that are dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.dropout = heads, dropout
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        q, k, v = (split_heads(part, self.heads) for part in self.queries_keys_values(h).chunk(3, -1))
        found = attend(q, k, v, context=context, dropout=self.dropout if self.training else 0.0)
        return cast(Tensor, self.out(join_heads(found)))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        weight = self.out.weight
        empty = weight.new_zeros(n, self.heads, size[1], weight.shape[0] // self.heads)
        return {"keys": empty, "values": torch.zeros_like(empty)}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor) -> Tensor:
        t = site.column
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.queries_keys_values(h).chunk(3, -1))
        memory["keys"][:, :, t], memory["values"][:, :, t] = k, v
        keys, values = memory["keys"][:, :, : t + 1], memory["values"][:, :, : t + 1]
        found = scaled_dot_product_attention(q[:, :, None], keys, values)
        return cast(Tensor, self.out(found.flatten(1)))

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``: a site sees all earlier ones."""
        return seen.cummax(1).values
