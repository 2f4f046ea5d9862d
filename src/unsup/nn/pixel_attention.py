"""Strictly causal attention: a site attends to the sites before it, and not to itself.

Queries may come from other features than keys and values: what a site contributes may depend on its target, which is
known only when later sites attend to it. The first site has no key, and finds zeros.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention


def strictly_causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Σ_{j<t} softmax_j(q_t k_jᵀ / √d) v_j, zeros for t = 0.

    Args:
        queries: ``(B, L, d)``.
        keys: ``(B, L, d)``.
        values: ``(B, L, v)``.

    Returns:
        ``(B, L, v)``.

    >>> one = torch.ones(1, 3, 1)
    >>> strictly_causal_attention(one, one, torch.tensor([[[2.0], [4.0], [9.0]]])).flatten().tolist()
    [0.0, 2.0, 3.0]
    """
    if queries.shape[1] == 1:
        return torch.zeros_like(values)
    # Query t + 1 and keys up to t: plain causal attention of one site less. It never stores the weights of all pairs
    # if there is an axis of heads, and if keys and values have one size; zeros change nothing.
    each, size = queries.shape[-1], max(queries.shape[-1], values.shape[-1])
    q, k, v = (
        pad(part, (0, size - part.shape[-1]))[:, None] for part in (queries[:, 1:], keys[:, :-1], values[:, :-1])
    )
    found = scaled_dot_product_attention(q, k, v, is_causal=True, scale=each**-0.5)
    return pad(found[:, 0, :, : values.shape[-1]], (0, 0, 1, 0))


class Past:
    """Keys and values of the sites so far, in a walk.

    Args:
        keys: room for the keys ``(B, L, d)``.
        values: room for the values ``(B, L, v)``.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def put(self, key: Tensor, value: Tensor) -> None:
        """Add a site: ``(B, d)``, ``(B, v)``."""
        self.keys[:, self.length], self.values[:, self.length] = key, value
        self.length += 1

    def look(self, query: Tensor) -> Tensor:
        """What a query ``(B, d)`` finds: ``(B, v)``; zeros if there are no keys."""
        if self.length == 0:
            return torch.zeros_like(self.values[:, 0])
        keys, values = self.keys[:, : self.length], self.values[:, : self.length]
        return scaled_dot_product_attention(query[:, None], keys, values)[:, 0]


def strict_spread(seen: Tensor) -> Tensor:
    """What sites find of inputs that keys and values have seen, ``(N, L)``: that of all sites before."""
    return pad(seen.cummax(1).values[:, :-1], (1, 0))
