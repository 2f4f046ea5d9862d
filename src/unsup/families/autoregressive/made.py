"""MADE: masked autoencoder for distribution estimation.

p(x) = ∏_d p(x_d | x_<d), all conditionals from one pass of an MLP whose weights are masked (Germain, Gregor, Murray,
Larochelle 2015, https://arxiv.org/abs/1502.03509): output d sees the inputs before d only (`unsup.nn.masked`). With
several masks, the model is the uniform mixture over them: log p(x) = log (1/M) Σ_m p_m(x), a mean of probabilities of
the whole example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Widths, Within
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import Advice, IsAutoregressive, Model, Terms
from unsup.core.parallel import is_last_part
from unsup.nn.autoregressor import Naive, Steps, drawing, walk
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.nn.inputs import MOST_ONE_HOT_LEVELS, Inputs
from unsup.nn.masked import MaskedMLP, draw_degrees
from unsup.nn.observation import Discrete, GaussianMixture, count_levels, symbols_for
from unsup.prob import distributions as dist

_FEW_EXAMPLES = 10_000  # number of examples below which a default network overfits
_MOST_OUTPUTS = 50_000  # maximum size of the last layer: entries × levels


class MADE(Model, IsAutoregressive):
    """Masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    Outputs are Bernoullis for binary data, a K-way softmax for other discrete data, and a mixture of Gaussians per
    dimension for real data (and for tables with mixed supports, which are dequantised).

    Args:
        event: any event.
        hidden: units of each hidden layer.
        masks: number of connectivities (and orders, if random); cycled by minibatch in training, mixed in scoring.
        order: ``natural``, or ``random``: a permutation of the dimensions per mask.
        direct: add masked direct connections from input to output (section 4.4 of the paper).
        components: number of Gaussians of each real conditional.
        dropout: fraction of hidden units dropped in training.
        mask_seed: seed of the degrees and orders.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = MADE(Event((4,), Support("binary")), hidden=(16,))
    >>> model.log_prob(torch.tensor([[0, 1, 1, 0]])).shape
    torch.Size([1])
    """

    presets = {
        "tiny": {
            "hidden": (24,),
            "components": 3,
            "direct": False,
        },  # the number of direct connections grows with D² times the levels
        "paper": {"hidden": (8000, 8000), "masks": 32, "order": "random", "direct": True},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}

    _orders: Tensor
    next_mask: Tensor

    def __init__(
        self,
        event: Event,
        *,
        hidden: Widths = (512, 512),
        masks: Count = 1,
        order: Literal["natural", "random"] = "natural",
        direct: bool = True,
        components: Count = 10,
        dropout: Annotated[float, Within(0, 1, below=True)] = 0.0,
        mask_seed: int = 0,
    ) -> None:
        support = event.uniform
        self.masks = masks
        self.observation: Discrete | GaussianMixture
        self.inputs: Inputs | None = None
        if support is not None and support.is_discrete:
            self.observation = symbols_for(event)
            ordered = support.kind != "nominal" and support.levels > MOST_ONE_HOT_LEVELS
            one_hot = support.levels > 2 and not ordered
            self.inputs = Inputs(event, one_hot=one_hot, lowest=0 if support.levels == 2 else -1)
        else:
            self.observation = GaussianMixture(event, components)
        orders, degrees = draw_degrees(event.dims, hidden, masks, order, Generator().manual_seed(mask_seed))
        self.net = MaskedMLP(
            orders,
            degrees,
            inputs_each=1 if self.inputs is None else self.inputs.each,
            outputs_each=self.observation.outputs_each,
            direct=direct,
            dropout=dropout,
        )
        self.register_buffer("_orders", orders)
        self.register_buffer("next_mask", torch.zeros((), dtype=torch.int64))

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        outputs = event.dims * max((s.levels for s in event.columns), default=0)
        against = None
        if event.is_discrete and outputs > _MOST_OUTPUTS:
            against = f"would have {outputs:,} outputs, one per level and entry, which is too slow"
        if examples >= _FEW_EXAMPLES:
            return Advice(training={"ema": 0.99}, against=against)
        width = 512 if event.dims > 16 else 128
        options = {"hidden": (width,), "masks": 8, "order": "random", "direct": False, "dropout": 0.3}
        return Advice(options, {"weight_decay": 0.1, "ema": 0.99}, against)

    @property
    def orders(self) -> Tensor:
        return self._orders

    @property
    def front(self) -> ContinuousFront | None:
        """The map from raw to standardised data, if it is not discrete."""
        return None if isinstance(self.observation, Discrete) else self.observation.front

    @property
    def mass_in_support(self) -> bool:
        return self.likelihood_kind == "exact"  # not dequantised

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real or isinstance(self.observation, Discrete) else "bound"

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the data marginals (log-odds, log-frequencies); standardise real data."""
        self.observation.prepare(batch.x, generator)
        if isinstance(self.observation, Discrete):
            levels = self.observation.levels
            counts = count_levels(self.observation.target(batch.x.flatten(1)), levels).to(self.dtype) + 1
            log_frequency = (counts / counts.sum(1, keepdim=True)).log()
            bias = log_frequency[:, 1] - log_frequency[:, 0] if levels == 2 else log_frequency.flatten()
            self.net.start_at(bias)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x), ``(B,)``: under the next mask in training, under the mixture otherwise."""
        if not self.training:
            return {"loss": -self.log_prob(batch.x, generator=generator)}
        order = int(self.next_mask) if self.masks > 1 else 0
        if is_last_part():
            self.next_mask.copy_((self.next_mask + 1) % self.masks)
        return {"loss": -self._log_prob_in_order(batch.x, order, 1, generator)}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        parts = [self._log_prob_in_order(batch.x, m, samples, generator) for m in range(self.masks)]
        return parts[0] if self.masks == 1 else dist.log_mean_exp(torch.stack(parts), 0)

    def _log_prob_in_order(self, x: Tensor, order: int, samples: int, generator: Generator | None) -> Tensor:
        observation = self.observation
        if isinstance(observation, Discrete):
            outputs = self.net(self._features(x), order, generator=generator)
            return observation.total_log_prob(observation.target(x.flatten(1)), outputs)

        def density(y: Tensor) -> Tensor:
            flat = y.flatten(1)
            return observation.density(flat, self.net(flat, order, generator=generator)).sum(1)

        return dequantized_log_prob(observation.front, density, x, samples=samples, generator=generator)

    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor | None:
        self.event.check_shape(x)
        if bool((self.orders != self.orders[0]).any()):
            return None
        # The noise of a bound is drawn separately for each mask, as in `log_prob`.
        parts = [self._entries_in_order(x, m, generator) for m in range(self.masks)]
        if self.masks == 1:
            return parts[0]
        ranked = torch.stack(parts)[..., self.orders[0].argsort()]
        weights = ranked.new_full((self.masks,), 1 / self.masks).log()
        return dist.mixture_log_conditionals(ranked, weights)[:, self.orders[0] - 1]

    def _entries_in_order(self, x: Tensor, order: int, generator: Generator | None) -> Tensor:
        target = self.observation.target(x, generator).flatten(1)
        seen = x if self.inputs is not None else target.view(x.shape)
        return self.observation.log_prob(target, self.conditionals(seen, order=order))

    def conditionals(self, x: Tensor, *, order: int = 0) -> Tensor:
        found: Tensor = self.net(self._features(x), order)
        return found

    def _features(self, x: Tensor) -> Tensor:
        """The input of the network for raw data, including noise if any: ``(B, *event.shape)`` → ``(B, F)``."""
        if self.inputs is not None:
            return self.inputs.flat(x)
        assert self.front is not None
        return self.front(x)[0].flatten(1)

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Pairs that are not connected under this mask, because no hidden unit has the necessary degree."""
        position = self.orders[order]
        return (position[:, None] > position[None, :]) & ~self.net.joined(order)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: Positive = 1.0) -> Tensor:
        """Ancestral sampling that computes every hidden unit once, when its last input is known."""
        return self._sample(n, lambda rows, order: self.net.begin(rows, order, self._encode), generator, temperature)

    @torch.no_grad()
    def sample_naive(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        def steps(rows: int, order: int) -> Steps:
            return Naive(lambda targets: self.net(self._encode(targets).flatten(1), order), self._blank(rows))

        return self._sample(n, steps, generator, temperature)

    def _encode(self, targets: Tensor) -> Tensor:
        """Targets of any shape → input features, on a last axis if there are several."""
        return targets.to(self.dtype) if self.inputs is None else self.inputs.levels(targets)

    def _blank(self, n: int) -> Tensor:
        like = torch.int64 if self.inputs is not None else dist.at_least_float32(self.net.top.weight).dtype
        return torch.zeros(n, self.event.dims, dtype=like, device=self.device)

    def _sample(
        self, n: int, steps: Callable[[int, int], Steps], generator: Generator | None, temperature: float
    ) -> Tensor:
        targets, choose = self._blank(n), drawing(self.observation, generator, temperature)
        if not n:
            return self.observation.raw(targets)
        weights = torch.ones(self.masks, device=self.device)
        order_of = weights.multinomial(n, replacement=True, generator=generator)
        for order in order_of.unique().tolist():
            rows = order_of == order
            net = steps(int(rows.sum()), order)
            targets[rows] = walk(net, self.orders[order].argsort().tolist(), choose, targets[rows])
        return self.observation.raw(targets)
