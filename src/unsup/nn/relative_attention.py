"""Attention with relative positions over segments, each with a memory of the sites before it.

Dai, Yang, Yang, Carbonell, Le, Salakhutdinov 2019, https://arxiv.org/abs/1901.02860.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from unsup.core import random
from unsup.nn.attention import check_heads, join_heads, split_heads
from unsup.nn.causal import NOTHING, Causal, Context, Site


@dataclass(frozen=True)
class Reach:
    """Which sites a site sees, and how their distance is told.

    Segments have S sites. Site i of the segment from site s on sees the M sites before s, and those from s to s + i:
    M + 1 sites at the beginning of a segment, M + S at its end.

    Attributes:
        segment: S.
        memory: M.
        same_length: every site sees the last M sites only, itself included.
        clamp: a larger distance is told as this one; None for no limit.
    """

    segment: int
    memory: int
    same_length: bool = False
    clamp: int | None = None

    def first(self, site: int) -> int:
        """The first site that a site sees; it sees all from there to itself."""
        return max(0, site - self.memory + 1 if self.same_length else site - site % self.segment - self.memory)

    def within(self, length: int) -> Reach:
        """The same over ``length`` sites, without what lies beyond them."""
        return replace(self, segment=min(self.segment, length), memory=min(self.memory, length))

    def visible(self, length: int, device: torch.device) -> Tensor:
        """Whether each site of a segment sees each of the sites from M before the segment on, bool ``(R, S, M + S)``
        for the R segments of ``length`` sites; the last one may be longer than what is left."""
        site = torch.arange(-(-length // self.segment) * self.segment, device=device).view(-1, self.segment, 1)
        other = site[:, :1] - self.memory + torch.arange(self.memory + self.segment, device=device)
        seen = (other >= 0) & (other <= site)
        return seen & (site - other < self.memory) if self.same_length else seen


def sinusoids(distance: Tensor, width: int, like: Tensor) -> Tensor:
    """Sines and cosines of distances, at wavelengths from 2π to about 10000 · 2π: ``(K,)`` → ``(K, width)``."""
    frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64, device=like.device) / width)
    angle = distance.to(torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)[:, :width].to(like.dtype)


def relative_shift(x: Tensor) -> Tensor:
    """Scores by distance → scores by key: out[…, i, k] = x[…, i, S − 1 − i + k] for k ≤ K − S + i, ``(…, S, K)``.

    ``x[…, i, p]`` is the score of query i at distance K − 1 − p, and query i is at the place of key K − S + i. Scores
    of later keys mean nothing.
    """
    segment, keys = x.shape[-2:]
    padded = pad(x, (1, 0)).flatten(-2)  # with rows of K + 1 read as rows of K, row i starts i places further
    return padded[..., segment:].unflatten(-1, (segment, keys))


class RelativeAttention(Causal):
    """Multi-head attention with the score of query i and key j

        (q_iᵀ k_j + q_iᵀ W r_{i−j} + uᵀ k_j + vᵀ W r_{i−j}) / √d      r: sinusoids of the distance

    In training, gradients do not flow into the memory of a segment: its keys and values are computed from features
    that are detached. Elsewhere they do.

    Args:
        width: number of features.
        heads: number of heads, a divisor of the width.
        training: which sites are seen in training.
        evaluation: the same elsewhere.
        dropout: share of the features of distances that are dropped in training.
        attention_dropout: share of attention weights that are dropped in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        training: Reach,
        evaluation: Reach,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(width, heads)
        self.heads, self.reaches = heads, (training, evaluation)
        self.dropout, self.attention_dropout = dropout, attention_dropout
        self.queries_keys_values = nn.Linear(width, 3 * width, bias=False)
        self.distances = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, width // heads))  # u
        self.distance_bias = nn.Parameter(torch.zeros(heads, width // heads))  # v
        self.out = nn.Linear(width, width, bias=False)

    def reach(self, length: int) -> Reach:
        """Which of ``length`` sites are seen, in the present mode."""
        training, evaluation = self.reaches
        return (training if self.training else evaluation).within(length)

    def _sinusoids(self, farthest: int, reach: Reach) -> Tensor:
        """r of the distances from the farthest one to 0: ``(K, width)``."""
        weight = self.distances.weight
        distance = torch.arange(farthest, -1, -1, device=weight.device)
        limit = farthest if reach.clamp is None else reach.clamp
        return sinusoids(distance.clamp(max=limit), weight.shape[1], weight)

    def _told(self, r: Tensor) -> Tensor:
        """W r of each head: ``(K, width)`` → ``(heads, K, d)``."""
        return cast(Tensor, self.distances(r)).unflatten(-1, (self.heads, -1)).transpose(0, 1)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        length = h.shape[1]
        reach = self.reach(length)
        segment, memory = reach.segment, reach.memory
        weight = self.queries_keys_values.weight
        q, k, v = (split_heads(part, self.heads) for part in linear(h, weight).chunk(3, -1))
        before: tuple[Tensor, ...] = (k, v)
        if self.training and memory:
            kept = linear(h.detach(), weight[len(weight) // 3 :])
            before = tuple(split_heads(part, self.heads) for part in kept.chunk(2, -1))
        missing = -length % segment

        def segments(x: Tensor) -> Tensor:
            """``(B, heads, L, d)`` → ``(B, heads, R, S, d)``."""
            return pad(x, (0, 0, 0, missing)).unflatten(2, (-1, segment))

        def remembered(own: Tensor, x: Tensor) -> Tensor:
            """Each segment after its memory: ``(B, heads, R, M + S, d)``."""
            if not memory:
                return segments(own)
            windows = pad(x, (0, 0, memory, missing)).unfold(2, memory, segment)[:, :, :-1].transpose(-1, -2)
            return torch.cat([windows, segments(own)], 3)

        keys, values = remembered(k, before[0]), remembered(v, before[1])
        q = segments(q)
        r = self._sinusoids(memory + segment - 1, reach)
        if self.training:
            r = random.dropout(r, self.dropout, context.generator, axis=None)
        told = self._told(r)[:, None]  # (heads, 1, M + S, d)
        content = (q + self.content_bias[:, None, None]) @ keys.transpose(-1, -2)
        apart = relative_shift((q + self.distance_bias[:, None, None]) @ told.transpose(-1, -2))
        scores = (content + apart) * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~reach.visible(length, h.device), -torch.inf).softmax(-1)
        if self.training:
            weights = random.dropout(weights, self.attention_dropout, context.generator)
        found = (weights @ values).flatten(2, 3)[:, :, :length]
        return cast(Tensor, self.out(join_heads(found)))

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        reach, weight = self.reach(size[1]), self.out.weight
        empty = weight.new_zeros(n, self.heads, size[1], weight.shape[0] // self.heads)
        told = self._told(self._sinusoids(min(size[1], reach.memory + reach.segment) - 1, reach))
        return {"keys": empty, "values": torch.zeros_like(empty), "told": told, "reach": reach}

    def step(self, memory: dict[str, Any], site: Site, h: Tensor) -> Tensor:
        t = site.column
        parts = linear(h, self.queries_keys_values.weight).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, 1, -1)) for part in parts)
        memory["keys"][:, :, t : t + 1], memory["values"][:, :, t : t + 1] = k, v
        seen = slice(memory["reach"].first(t), t + 1)
        told = memory["told"][:, -(t + 1 - seen.start) :]
        content = (q + self.content_bias[:, None]) @ memory["keys"][:, :, seen].transpose(-1, -2)
        apart = (q + self.distance_bias[:, None]) @ told.transpose(-1, -2)
        weights = ((content + apart) * q.shape[-1] ** -0.5).softmax(-1)
        return cast(Tensor, self.out((weights @ memory["values"][:, :, seen]).flatten(1)))

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``."""
        length = seen.shape[1]
        reach, visible = self.reach(length), torch.zeros(length, length, dtype=seen.dtype)
        for t in range(length):
            visible[t, reach.first(t) : t + 1] = 1
        return (seen @ visible.T > 0).to(seen.dtype)
