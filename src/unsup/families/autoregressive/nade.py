"""NADE: the hidden units of all conditionals share their weights, so that one running sum serves them all.

h_i = s(a_i),   a_i = c + Σ_{j<i} W_j x_j,   p(x_i = 1 | x_<i) = σ(b_i + V_i h_i)

(Larochelle, Murray 2011, https://proceedings.mlr.press/v15/larochelle11a.html), with s = σ and a_{i+1} = a_i + W_i x_i,
so that all D conditionals of H units cost O(D H). More than two levels have a softmax over them, and one-hot inputs.

The orderless form (Uria, Murray, Larochelle 2014, https://arxiv.org/abs/1310.1757) trains one deep network for all
orders o: it sees the entries before position d and which ones these are, and its loss

    D / (D − d + 1) · Σ_{i not before d} −log p(x_i | x_{o<d}),   o and d uniform

is the mean of −log p(x | o) over orders. p(x) is then the mean of p(x | o) over several orders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import linear, relu

from unsup.core import random
from unsup.core.batch import Batch
from unsup.core.config import AtLeast, Count, Positive, Share
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice, CanComplete, Terms
from unsup.core.steps import part_of
from unsup.nn.autoregressor import Steps, drawing, keeping, nothing_chosen, walk
from unsup.nn.inputs import dense_inputs
from unsup.nn.masked import draw_degrees
from unsup.nn.observation import Discrete, symbols_for
from unsup.nn.order_mixture import OrderMixture
from unsup.prob import distributions as dist

_CHUNK = 16  # entries whose sums are one product with a triangular mask; measured, see `NADE._running`


class NADE(OrderMixture, CanComplete):
    """Neural autoregressive distribution estimator (Larochelle, Murray 2011).

    With ``orderless`` (Uria et al. 2014), log p(x) is exact for the recorded orders, at D evaluations of the network
    per order; training costs one. `complete` then takes any known entries: they come first in each of the orders. The
    preset ``paper-orderless`` is the network for MNIST, with the largest ensemble of the paper; a smaller ``ensemble``
    leaves the network unchanged, and its log p(x) costs less.

    Args:
        event: discrete entries with one support.
        hidden: number of hidden units H of each layer.
        layers: number of hidden layers; more than one with ``orderless`` only.
        order: ``natural``, or ``random``: a permutation of the entries.
        orderless: train one network for all orders, with ReLU units; otherwise for one order, with sigmoid units.
        ensemble: number of orders that are mixed in p(x); more than one with ``orderless`` and random orders only.
        order_seed: seed of the random orders.

    Raises:
        InputError: several layers or orders without ``orderless``, or several natural orders.

    >>> from unsup import Event, Support
    >>> model = NADE(Event((4,), Support("binary")), hidden=8, orderless=True, ensemble=3, order="random")
    >>> known = torch.tensor([[False, True, False, True]])
    >>> model.complete(torch.ones(1, 4, dtype=torch.uint8), known).shape
    torch.Size([1, 4])
    """

    presets = {
        "tiny": {"hidden": 16},
        "paper": {"hidden": 500},
        "paper-orderless": {"hidden": 500, "layers": 2, "orderless": True, "order": "random", "ensemble": 128},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    observation: Discrete

    def __init__(
        self,
        event: Event,
        *,
        hidden: Annotated[int, AtLeast(0)] = 500,
        layers: Count = 1,
        order: Literal["natural", "random"] = "natural",
        orderless: bool = False,
        ensemble: Count = 1,
        order_seed: int = 0,
    ) -> None:
        if not orderless and (layers > 1 or ensemble > 1):
            raise InputError(f"layers={layers} and ensemble={ensemble} should be 1; more of them need orderless=True")
        if ensemble > 1 and order == "natural":
            raise InputError(f"ensemble={ensemble} orders should differ, and order='natural' is one; use 'random'")
        self.orderless = orderless
        self.observation, self.inputs = symbols_for(event), dense_inputs(event)
        dims, each, outputs = event.dims, self.inputs.each, self.observation.outputs_each
        # The network without an order also sees which entries it was given: one more feature, which is 1.
        self.into = _uniform((dims, each + orderless, hidden), dims * (each + orderless))  # W
        self.bias = nn.Parameter(torch.zeros(hidden))  # c
        self.deeper = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.out = _uniform((dims, hidden, outputs), hidden)  # V
        self.out_bias = nn.Parameter(torch.zeros(dims, outputs))  # b
        self.take_orders(draw_degrees(dims, (), ensemble, order, Generator().manual_seed(order_seed))[0])

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.uniform is None:
            return "takes entries with the same levels only"
        return None if event.is_discrete else "takes discrete entries only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(training={"ema": 0.99}, turn=None)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the biases of the outputs with the log-odds, or log-frequencies, of the data."""
        self.out_bias.copy_(self.observation.marginal(batch.x.flatten(1)))

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x), ``(B,)``; of the orderless form in training, an unbiased estimate of its mean over all orders."""
        if not (self.training and self.orderless):
            return {"loss": -self.log_prob(batch.x)}
        features, targets = self._features(batch.x), self.observation.target(batch.x).flatten(1)
        n, dims = targets.shape
        given = random.integers(0, dims, (n, 1), generator, like=features)  # d − 1 entries are known
        known = random.uniform((n, dims), generator, like=features).argsort(1).argsort(1) < given
        rest = self.observation.log_prob(targets, self.outputs_given(features, known)).masked_fill(known, 0.0)
        return {"loss": -rest.sum(1) * dims / (dims - given[:, 0])}

    def outputs_given(self, features: Tensor, known: Tensor) -> Tensor:
        """Outputs of all entries given the known ones: ``(B, D, F)``, bool ``(B, D)`` → ``(B, D, P)``."""
        seen = (features * known[..., None]).flatten(1)
        h = self._hidden(linear(seen, self.into.flatten(0, 1).T, self.bias))
        return torch.einsum("bh,dhp->bdp", h, self.out) + self.out_bias

    def _hidden(self, a: Tensor) -> Tensor:
        if not self.orderless:
            return a.sigmoid()
        h = relu(a)
        for layer in self.deeper:
            h = relu(layer(h))
        return h

    def _features(self, x: Tensor) -> Tensor:
        """Raw data → features of each flattened entry, ``(B, D, F)``."""
        self.event.check_shape(x)
        return self._marked(self.inputs(x.flatten(1)))

    def _marked(self, features: Tensor) -> Tensor:
        """``(B, D)`` or ``(B, D, each)`` → ``(B, D, F)``, with a 1 beside the features of an entry if needed."""
        features = features if self.inputs.one_hot else features.unsqueeze(-1)
        return torch.cat([features, torch.ones_like(features[..., :1])], -1) if self.orderless else features

    def outputs(self, x: Tensor, order: int, generator: Generator | None = None) -> Tensor:
        return self._in_order(self._features(x), order)

    def outputs_of(self, targets: Tensor, order: int) -> Tensor:
        return self._in_order(self._marked(self.inputs.levels(targets)), order)

    def _in_order(self, features: Tensor, order: int) -> Tensor:
        """Outputs of each entry given those before it in an order: ``(B, D, F)`` → ``(B, D, P)``."""
        position = self.orders[order] - 1
        sequence = position.argsort()
        found, start = [], 0
        for a in self._running(features[:, sequence], self.into[sequence]):  # (n, B, H)
            own = sequence[start : start + len(a)]
            found.append(torch.baddbmm(self.out_bias[own, None], self._hidden(a), self.out[own]))
            start += len(a)
        return torch.cat(found).transpose(0, 1)[:, position]

    def _running(self, features: Tensor, weight: Tensor) -> Iterator[Tensor]:
        """a_i = c + Σ_{j<i} W_j x_j in chunks of entries: ``(B, D, F)``, ``(D, F, H)`` → ``(n, B, H)`` each.

        In a chunk, the sums are one product of inputs under a triangular mask. On a CPU this takes a fifth of the time
        of a cumulative sum over all entries, although it multiplies zeros.
        """
        base = self.bias
        for x, w in zip(features.split(_CHUNK, 1), weight.split(_CHUNK), strict=True):
            n, rows = x.shape[1], w.flatten(0, 1)
            earlier = torch.ones(n, n, dtype=x.dtype, device=x.device).tril(-1)
            seen = (earlier[:, None, :, None] * x).flatten(2)  # (n, B, n F)
            yield seen @ rows + base
            base = base + x.flatten(1) @ rows

    def steps(self, n: int, order: int) -> Steps:
        return _Running(self, self.bias.expand(n, -1))

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> Tensor:
        """Draw the unknown entries from p(unknown | known).

        With ``orderless`` any entries may be known. The draw is exact for the mixture over the same orders, in each of
        which the known entries come first; it is that of `log_prob` if they do so anyway.

        Args:
            x: raw examples ``(B, *event.shape)``; unknown entries may have any value.
            known: bool, same shape. Without ``orderless``, the known entries must be the first ones in the order.
            generator: random generator.
            temperature: as for `sample`; so are ``top_k`` and ``top_p``.

        Raises:
            InputError: a known entry comes after an unknown one, without ``orderless``.
        """
        self.check_known(x, known)
        line = known.flatten(1)
        in_order = line[:, self.orders[0].argsort()]
        if not self.orderless and bool((in_order[:, 1:] & ~in_order[:, :-1]).any()):
            raise InputError(
                "a known entry comes after an unknown one, so the draw could not depend on it; the known part must be "
                "the first entries in the order of generation, or the model be trained with orderless=True"
            )
        targets = self.observation.target(torch.where(known, x, self.event.lowest(x))).flatten(1)
        features = self._marked(self.inputs.levels(targets)) * line[..., None]
        start = linear(features.flatten(1), self.into.flatten(0, 1).T, self.bias)
        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        drawn = nothing_chosen(self, self.observation, len(x))
        order_of = self._draw_order(features, targets, line, generator)
        orders = order_of.unique().tolist()
        for i, order in enumerate(orders):
            rows = order_of == order
            net = _Running(self, start[rows], line[rows])
            own = keeping(line[rows], targets[rows].to(drawn.dtype), choose)
            with part_of(i, len(orders)):
                drawn[rows] = walk(net, self.orders[order].argsort().tolist(), own, drawn[rows])
        return self.observation.raw(drawn)

    def _draw_order(self, features: Tensor, targets: Tensor, known: Tensor, generator: Generator | None) -> Tensor:
        """An order for each example from p(order | known entries), where each order starts with the known ones."""
        if len(self.orders) == 1:
            return torch.zeros(len(features), dtype=torch.int64, device=features.device)
        parts = []
        for order in range(len(self.orders)):
            log_p = self.observation.log_prob(targets, self._in_order(features, order))
            parts.append(log_p.masked_fill(~known, 0.0).sum(1))
        return dist.sample_categorical(torch.stack(parts, 1), generator=generator)


class _Running(Steps):
    """a_i, to which each entry is added when it is known.

    Args:
        start: a of the first entry, ``(n, H)``.
        counted: entries that ``start`` has already, bool ``(n, D)``, or None.
    """

    def __init__(self, model: NADE, start: Tensor, counted: Tensor | None = None) -> None:
        self.model, self.a, self.counted = model, start, counted

    def outputs(self, site: int) -> Tensor:
        return torch.addmm(self.model.out_bias[site], self.model._hidden(self.a), self.model.out[site])

    def put(self, site: int, value: Tensor) -> None:
        features = self.model._marked(self.model.inputs.levels(value))
        if self.counted is not None:
            features = features * ~self.counted[:, site, None]
        self.a = torch.addmm(self.a, features, self.model.into[site])


def _uniform(shape: tuple[int, ...], inputs: int) -> nn.Parameter:
    """Uniform in ±1 / √inputs, as linear layers start."""
    return nn.Parameter((2 * torch.rand(shape) - 1) * max(inputs, 1) ** -0.5)
