"""MADE: masked autoencoder for distribution estimation.

p(x) = ∏_d p(x_d | x_<d), all conditionals from one pass of an MLP whose weights are masked (Germain, Gregor, Murray,
Larochelle 2015, https://arxiv.org/abs/1502.03509). Unit k of layer l has a degree m^l(k); a weight is kept where

    hidden:  m^l(k') ≥ m^{l−1}(k)        (eq. 13)
    output:  m(d) > m^L(k)               (eq. 14)

so that output d sees inputs of smaller degree only. With several masks the model is the uniform mixture over them:
log p(x) = log (1/M) Σ_m p_m(x), a mean of probabilities of the whole example.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import dropout, linear, relu

from unsup.core.batch import Batch
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import IsAutoregressive, Model, Terms
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.prob import distributions as dist

Fill = Callable[[Tensor, int, Generator | None, float], Tensor]

_ONE_HOT_LEVELS = 32  # ordinal inputs with more levels enter as one scaled number


class MaskedLinear(nn.Module):
    """y = (W ∘ M) x + b with one mask for each ordering.

    The masks are kept as the degrees they are made from, a few thousand integers in place of millions of entries, and
    one at a time is written out as floats: a product with a boolean mask is many times slower.
    """

    def __init__(self, above: Tensor, below: Tensor, *, strict: bool, bias: bool = True) -> None:
        """Keep input k' of output k where above[k] ≥ below[k'], or > if ``strict``; int64 degrees ``(orders, units)``.

        Without a bias the weights start at zero (a skip connection).
        """
        super().__init__()
        fresh = nn.Linear(below.shape[1], above.shape[1], bias=bias)
        self.weight, self.bias = fresh.weight, fresh.bias
        if not bias:
            nn.init.zeros_(self.weight)
        self.strict = strict
        self.register_buffer("above", above)
        self.register_buffer("below", below)
        self._mask: tuple[tuple[object, ...], Tensor] | None = None
        self._product: tuple[tuple[object, ...], Tensor] | None = None

    def mask(self, order: int) -> Tensor:
        """M of one ordering, 0 and 1 in the type of the weight, ``(outputs, inputs)``; the last one is kept."""
        key = (order, self.above._version, self.below._version, self.weight.dtype, self.weight.device)
        if self._mask is None or self._mask[0] != key:
            difference = self.above[order].float()[:, None] - self.below[order].float()
            self._mask = (key, (difference if self.strict else difference + 1).clamp_(0, 1).to(self.weight.dtype))
        return self._mask[1]

    def masked_weight(self, order: int) -> Tensor:
        """W ∘ M of one ordering; outside training it is multiplied once and kept until the weight changes."""
        if self.training or torch.is_grad_enabled():
            self._product = None
            return self.weight * self.mask(order)
        key = (order, self.weight._version, self.weight.dtype, self.weight.device, self.above._version)
        if self._product is None or self._product[0] != key:
            self._product = (key, self.weight * self.mask(order))
        return self._product[1]

    def forward(self, x: Tensor, order: int) -> Tensor:
        return linear(x, self.masked_weight(order), self.bias)


class MADE(Model, IsAutoregressive):
    """Masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    Binary data ends in Bernoullis, other discrete data in a K-way softmax, real data (and tables that mix supports,
    dequantised) in a mixture of Gaussians for each dimension.

    Args:
        event: any.
        hidden: units of each hidden layer.
        masks: connectivities (and orders, when random); cycled through by minibatch in training, mixed when scoring.
        order: ``natural``, or ``random``: a permutation of the dimensions for each mask.
        direct: add masked direct connections from input to output (section 4.4 of the paper).
        components: Gaussians of each real conditional.
        dropout: share of hidden units dropped in training.
        mask_seed: of the degrees and orders.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = MADE(Event((4,), Support("binary")), hidden=(16,))
    >>> model.log_prob(torch.tensor([[0, 1, 1, 0]])).shape
    torch.Size([1])
    """

    presets = {
        "tiny": {"hidden": (24,), "components": 3},
        "paper": {"hidden": (8000, 8000), "masks": 32, "order": "random", "direct": True},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    def __init__(
        self,
        event: Event,
        *,
        hidden: tuple[int, ...] = (512, 512),
        masks: int = 1,
        order: Literal["natural", "random"] = "natural",
        direct: bool = True,
        components: int = 10,
        dropout: float = 0.0,
        mask_seed: int = 0,
    ) -> None:
        support = event.uniform
        self.masks, self.dropout, self.components = masks, dropout, components
        self.levels = support.levels if support is not None and support.is_discrete else 0
        self.low = support.low if support is not None else 0
        self.front = None if self.levels else ContinuousFront(event)
        nominal = support is not None and support.kind == "nominal"
        self.one_hot = self.levels > 2 and (nominal or self.levels <= _ONE_HOT_LEVELS)
        inputs_each = self.levels if self.one_hot else 1
        self.outputs_each = 3 * components if not self.levels else 1 if self.levels == 2 else self.levels

        orders, degrees = _degrees(event.dims, hidden, masks, order, Generator().manual_seed(mask_seed))
        per_input, per_output = orders.repeat_interleave(inputs_each, 1), orders.repeat_interleave(self.outputs_each, 1)
        layers = [MaskedLinear(up, down, strict=False) for down, up in pairwise([per_input, *degrees])]
        layers.append(MaskedLinear(per_output, degrees[-1] if degrees else per_input, strict=True))
        self.layers = nn.ModuleList(layers)
        self.direct = MaskedLinear(per_output, per_input, strict=True, bias=False) if direct else None
        self.register_buffer("_orders", orders)
        self.register_buffer("next_mask", torch.zeros((), dtype=torch.int64))

    @property
    def orders(self) -> Tensor:
        return self._orders

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.levels or self.event.is_real else "bound"

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start the output bias at the data's marginals (log-odds, log-frequencies), or standardise real data."""
        x = batch.x
        if self.front is not None:
            self.front.prepare(x, generator=generator)
            return
        dims = self.event.dims
        cells = (x.flatten(1).long() - self.low) + self.levels * torch.arange(dims, device=x.device)
        counts = cells.flatten().bincount(minlength=dims * self.levels).view(dims, self.levels).to(self.dtype) + 1
        log_frequency = (counts / counts.sum(1, keepdim=True)).log()
        bias = log_frequency[:, 1] - log_frequency[:, 0] if self.levels == 2 else log_frequency.flatten()
        with torch.no_grad():
            self.layers[-1].bias.copy_(bias)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Mean negative log-likelihood: of the next mask in training, of the mixture otherwise."""
        if not self.training:
            return {"loss": -self.log_prob(batch.x, generator=generator).mean()}
        order = int(self.next_mask) if self.masks > 1 else 0
        self.next_mask.copy_((self.next_mask + 1) % self.masks)
        return {"loss": -self._log_prob_in_order(batch.x, order, 1, generator).mean()}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        x = batch.x
        self.event.check_shape(x)
        parts = [self._log_prob_in_order(x, m, samples, generator) for m in range(self.masks)]
        return parts[0] if self.masks == 1 else dist.log_mean_exp(torch.stack(parts), 0)

    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor | None:
        self.event.check_shape(x)
        if bool((self.orders != self.orders[0]).any()):
            return None
        # The noise of a bound is drawn for each mask in turn, as `log_prob` does.
        parts = [self._entries_in_order(x, m, generator) for m in range(self.masks)]
        if self.masks == 1:
            return parts[0]
        ranked = torch.stack(parts)[..., self.orders[0].argsort()]
        weights = ranked.new_full((self.masks,), 1 / self.masks).log()
        return dist.mixture_log_conditionals(ranked, weights)[:, self.orders[0] - 1]

    def _entries_in_order(self, x: Tensor, order: int, generator: Generator | None) -> Tensor:
        if self.front is None:
            return self._discrete_entries(x, order)
        noisy = self.front.dequantize(x, generator=generator)
        return self._real_entries(self.front(noisy)[0], order) + self.front.log_derivatives(noisy)

    def _log_prob_in_order(self, x: Tensor, order: int, samples: int, generator: Generator | None) -> Tensor:
        if self.front is None:
            return self._discrete_entries(x, order).sum(1)

        def density(y: Tensor) -> Tensor:
            return self._real_entries(y, order).sum(1)

        return dequantized_log_prob(self.front, density, x, samples=samples, generator=generator)

    def _discrete_entries(self, x: Tensor, order: int) -> Tensor:
        """log p of each discrete entry given the earlier ones, ``(B, D)``."""
        flat = x.flatten(1)
        parameters = self._net(self._encode(flat), order)
        if self.levels == 2:
            return dist.bernoulli_log_prob(flat - self.low, parameters.squeeze(-1))
        return dist.categorical_log_prob(flat.long() - self.low, parameters)

    def _real_entries(self, y: Tensor, order: int) -> Tensor:
        """Log-density of each standardised entry given the earlier ones, ``(B, D)``."""
        flat = y.flatten(1)
        return dist.gaussian_mixture_log_prob(flat, *self._net(flat, order).chunk(3, -1))

    def conditionals(self, x: Tensor, *, order: int = 0) -> Tensor:
        y = x if self.front is None else self.front(x)[0]
        return self._net(self._encode(y.flatten(1)), order)

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Pairs that no path of this mask joins, because no hidden unit drew the degree that would."""
        position = self.orders[order]
        reach = self.layers[0].mask(order)
        for layer in self.layers[1:]:
            reach = (layer.mask(order) @ reach).clamp(max=1)
        if self.direct is not None:
            reach = reach + self.direct.mask(order)
        dims = self.event.dims
        joined = reach.view(dims, self.outputs_each, dims, -1).sum((1, 3)) > 0
        return (position[:, None] > position[None, :]) & ~joined

    def _encode(self, flat: Tensor) -> Tensor:
        """Flattened raw data → inputs of the net: as it is, scaled to [−1, 1], or one-hot (interpolated in between)."""
        flat = flat.to(self.dtype)
        if not self.levels or self.levels == 2:
            return flat - self.low
        if not self.one_hot:
            return 2 * (flat - self.low) / (self.levels - 1) - 1
        grid = torch.arange(self.levels, dtype=flat.dtype, device=flat.device) + self.low
        return relu(1 - (flat.unsqueeze(-1) - grid).abs()).flatten(1)

    def _net(self, h: Tensor, order: int) -> Tensor:
        inputs = h
        for layer in self.layers[:-1]:
            h = dropout(relu(layer(h, order)), self.dropout, self.training)
        out = self.layers[-1](h, order)
        if self.direct is not None:
            out = out + self.direct(inputs, order)
        return out.view(len(out), self.event.dims, self.outputs_each)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Ancestral sampling in which every hidden unit is computed once, when the last input it sees is known.

        A unit of degree m sees inputs of degree ≤ m only, so all D steps together cost one pass of the net.
        """
        return self._sample(n, self._fill, generator, temperature)

    @torch.no_grad()
    def sample_naive(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        return self._sample(n, self._fill_naive, generator, temperature)

    def _sample(self, n: int, fill: Fill, generator: Generator | None, temperature: float) -> Tensor:
        weights = torch.ones(self.masks, device=self.device)
        order_of = weights.multinomial(n, replacement=True, generator=generator)
        flat = torch.zeros(n, self.event.dims, dtype=self.dtype, device=self.device)
        for order in order_of.unique().tolist():
            rows = order_of == order
            flat[rows] = fill(flat[rows], order, generator, temperature)
        y = flat.view(n, *self.event.shape)
        return (
            (y + self.low).to(self.event.dtype) if self.front is None else self.front.to_support(self.front.invert(y))
        )

    def _draw(self, parameters: Tensor, generator: Generator | None, temperature: float) -> Tensor:
        """One dimension's values (from 0 for discrete ones) given its parameters ``(B, outputs_each)``."""
        if not self.levels:
            chunks = parameters.chunk(3, -1)
            return dist.sample_gaussian_mixture(*chunks, generator=generator, temperature=temperature)
        if self.levels == 2:
            return dist.sample_bernoulli(parameters.squeeze(-1), generator=generator, temperature=temperature)
        return dist.sample_categorical(parameters, generator=generator, temperature=temperature)

    def _fill_naive(self, flat: Tensor, order: int, generator: Generator | None, temperature: float) -> Tensor:
        for d in self.orders[order].argsort().tolist():
            parameters = self._net(self._encode(flat + self.low), order)[:, d]
            flat[:, d] = self._draw(parameters, generator, temperature).to(flat.dtype)
        return flat

    def _fill(self, flat: Tensor, order: int, generator: Generator | None, temperature: float) -> Tensor:
        position = self.orders[order]
        dims, n = self.event.dims, len(flat)
        sequence = position.argsort()
        degrees = [layer.above[order] for layer in self.layers[:-1]]
        by_degree = [m.argsort(stable=True) for m in degrees]
        # Hidden units sorted by degree: those ready after step t are the contiguous slice [ends[t-1], ends[t]).
        ends = [m.bincount(minlength=dims + 1).cumsum(0).tolist() for m in degrees]
        weights, biases, columns = [], [], None
        for layer, rows in zip(self.layers[:-1], by_degree, strict=True):
            weight = layer.masked_weight(order)[rows]
            weights.append(weight if columns is None else weight[:, columns])
            biases.append(layer.bias[rows])
            columns = rows
        top = self.layers[-1].masked_weight(order)
        top = (top if columns is None else top[:, columns]).view(dims, self.outputs_each, -1)
        top_bias = self.layers[-1].bias.view(dims, self.outputs_each)
        skip = None if self.direct is None else self.direct.masked_weight(order).view(dims, self.outputs_each, -1)

        inputs = torch.zeros(n, dims, self.layers[0].weight.shape[1] // dims, dtype=flat.dtype, device=flat.device)
        hidden = [flat.new_zeros(n, len(m)) for m in degrees]
        for step, d in enumerate(sequence.tolist(), start=1):
            seen = hidden[-1][:, : ends[-1][step - 1]] if hidden else inputs.flatten(1)
            parameters = top_bias[d] + seen @ top[d, :, : seen.shape[1]].T
            if skip is not None:
                parameters = parameters + inputs.flatten(1) @ skip[d].T
            value = self._draw(parameters, generator, temperature).to(flat.dtype)
            flat[:, d] = value
            inputs[:, d] = self._encode(value[:, None] + self.low).view(n, -1)
            below = inputs.flatten(1)
            for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                start, end = ends[i][step - 1], ends[i][step]
                if end > start:
                    hidden[i][:, start:end] = relu(below @ weight[start:end, : below.shape[1]].T + bias[start:end])
                below = hidden[i][:, :end]
        return flat


def _degrees(
    dims: int, hidden: tuple[int, ...], masks: int, order: str, generator: Generator
) -> tuple[Tensor, list[Tensor]]:
    """Positions of the inputs ``(M, D)`` from 1 to D, and degrees ``(M, H)`` of each hidden layer's units.

    Degrees are uniform between the smallest degree of the layer below and D − 1 (section 4.1 of the paper).
    """
    natural = torch.arange(1, dims + 1)
    orders, degrees = [], []
    for _ in range(masks):
        position = natural if order == "natural" else torch.randperm(dims, generator=generator) + 1
        orders.append(position)
        lowest, layers = 1, []
        for width in hidden:
            layers.append(torch.randint(lowest, max(dims, lowest + 1), (width,), generator=generator))
            lowest = int(layers[-1].min())
        degrees.append(layers)
    return torch.stack(orders), [torch.stack(layer) for layer in zip(*degrees, strict=True)]
