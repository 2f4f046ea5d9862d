"""Pre-norm decoders: blocks of attention and a feed-forward net, and their initial weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from unsup.nn.attention import Attention
from unsup.nn.causal import NOTHING, Causal, Context, Dropout, Pointwise, Site
from unsup.nn.sparse_attention import SparseAttention


class Block(Causal):
    """A residual block: the norms are before attention and net, and the residual stream is left as it is.

        h ← h + Attention(LN(h))      h ← h + W₂ GELU(W₁ LN(h))

    Args:
        width: number of features.
        attention: the attention layer; ``out`` is its last linear map.
        hidden: units of the net.
        dropout: share of the features of both terms that are dropped in training.
    """

    def __init__(self, width: int, attention: Attention | SparseAttention, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = attention
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        h = h + self.dropout(self.attention(self.first(h), context), context)
        return h + self.dropout(self.net(self.second(h)), context)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Any:
        return self.attention.begin(n, size, context)

    def step(self, memory: Any, site: Site, h: Tensor) -> Tensor:
        h = h + self.attention.step(memory, site, self.first(h))
        return h + self.net(self.second(h))

    def spread(self, seen: Tensor) -> Tensor:
        return torch.maximum(seen, self.attention.spread(seen))

    @property
    def ends(self) -> list[nn.Linear]:
        """The linear maps whose results are added to the residual stream."""
        last = self.net[2]
        assert isinstance(last, nn.Linear)
        return [self.attention.out, last]


def normed_map(width: int, outputs: int) -> Pointwise:
    """A norm and a linear map of the features of each site: the head of a pre-norm decoder."""
    return Pointwise(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs)))


def linear_map(head: Pointwise) -> nn.Linear:
    """The linear map of a `normed_map`."""
    return cast(nn.Linear, cast(nn.Sequential, head.module)[1])


@torch.no_grad()
def draw_weights(model: nn.Module, deviation: Callable[[Tensor], float]) -> None:
    """Initial weights N(0, deviation²), also of embeddings, and biases 0; norms are left as they are.

    ``deviation`` is a function of the weights, ``(outputs, inputs)`` or ``(symbols, width)``. Weights of what N blocks
    add to the residual stream are smaller by 1/√(2N): the variance of the sum of the 2N terms does not grow with N
    (Radford et al. 2019; Child et al. 2019).
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1:
                parameter.normal_(0, deviation(parameter))
            elif isinstance(module, nn.Linear) and name == "bias":
                parameter.zero_()
    for block in blocks:
        for end in block.ends:
            end.weight.mul_((2 * len(blocks)) ** -0.5)
