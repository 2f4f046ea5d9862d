"""Uniform mixtures of densities that factorise entry by entry, each in an order of its own.

log p(x) = log (1/M) Σ_m p_m(x), a mean of probabilities of the whole example; M = 1 is a single order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Share
from unsup.core.model import ChooseEntry, CodesInOrders, IsAutoregressive, Model
from unsup.core.steps import in_steps, part_of
from unsup.nn.autoregressor import Choose, Naive, Steps, drawing, nothing_chosen, walk
from unsup.nn.heads import Heads
from unsup.nn.intervals import joined, log_chosen
from unsup.nn.observation import Discrete, GaussianMixture
from unsup.prob import distributions as dist

_NEARBY = 1e-6  # standard deviations around a value, whose mass stands for its density


class OrderMixture(Model, IsAutoregressive, CodesInOrders):
    """A uniform mixture of M densities, each of which factorises in one order.

    A model calls `take_orders` in its constructor and defines `outputs`, `outputs_of` and `steps`. Its sites are
    flattened entries.

    Attributes:
        observation: p(entry | outputs).
    """

    observation: Discrete | GaussianMixture | Heads

    _orders: Tensor

    def take_orders(self, orders: Tensor) -> None:
        """Called in the constructor: the positions of the entries from 1 in each order, int64 ``(M, D)``."""
        self.register_buffer("_orders", orders)

    @abstractmethod
    def outputs(self, x: Tensor, order: int, generator: Generator | None = None) -> Tensor:
        """Outputs of all flattened entries of raw data, ``(B, *event.shape)`` → ``(B, D, P)``.

        ``generator`` draws the noise of training.
        """

    @abstractmethod
    def outputs_of(self, targets: Tensor, order: int) -> Tensor:
        """The same for targets ``(B, D)``."""

    @abstractmethod
    def steps(self, n: int, order: int) -> Steps:
        """The network entry by entry, with caches."""

    @property
    def orders(self) -> Tensor:
        return self._orders

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        parts = [self._log_prob_in_order(batch.x, m, generator) for m in range(len(self.orders))]
        return parts[0] if len(parts) == 1 else dist.log_mean_exp(torch.stack(parts), 0)

    def _log_prob_in_order(self, x: Tensor, order: int, generator: Generator | None) -> Tensor:
        outputs = self.outputs(x, order, generator)
        return self.observation.total_log_prob(self.observation.target(x).flatten(1), outputs)

    def log_conditionals(self, x: Tensor, *, generator: Generator | None = None) -> Tensor | None:
        self.event.check_shape(x)
        if self.densities > 1:
            return None
        parts = [self._entries_in_order(x, m) for m in range(len(self.orders))]
        if len(parts) == 1:
            return parts[0]
        ranked = torch.stack(parts)[..., self.orders[0].argsort()]
        weights = ranked.new_full((len(parts),), 1 / len(parts)).log()
        return dist.mixture_log_conditionals(ranked, weights)[:, self.orders[0] - 1]

    def _entries_in_order(self, x: Tensor, order: int) -> Tensor:
        return self.observation.log_prob(self.observation.target(x).flatten(1), self.outputs(x, order))

    def conditionals(self, x: Tensor, *, order: int = 0) -> Tensor:
        return self._aligned(self.outputs(x, order))

    def _aligned(self, outputs: Tensor) -> Tensor:
        """Outputs of the network with the conditionals on an axis: ``(B, D, P)``."""
        return self.observation.padded(outputs) if isinstance(self.observation, Heads) else outputs

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> Tensor:
        """Draw an order, then entry by entry, computing every hidden unit once, when its last input is known.

        Args:
            n: number of samples.
            generator: random generator.
            temperature: divides the logits of the entries.
            top_k: draw each entry from its k most probable levels only.
            top_p: draw each entry from the fewest levels whose total probability is at least p (nucleus sampling).
        """
        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        return self._sample(n, self.steps, generator, choose)

    @torch.no_grad()
    def sample_naive(
        self,
        n: int,
        *,
        generator: Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        def steps(rows: int, order: int) -> Steps:
            nothing = nothing_chosen(self, self.observation, rows)
            return Naive(lambda targets: self._aligned(self.outputs_of(targets, order)), nothing)

        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        return self._sample(n, steps, generator, choose)

    def _sample(
        self, n: int, steps: Callable[[int, int], Steps], generator: Generator | None, choose: Choose
    ) -> Tensor:
        targets = nothing_chosen(self, self.observation, n)
        if not n:
            return self.observation.raw(targets)
        weights = torch.ones(len(self.orders), device=self.device)
        order_of = weights.multinomial(n, replacement=True, generator=generator)
        orders = order_of.unique().tolist()
        for i, order in enumerate(orders):
            rows = order_of == order
            net = steps(int(rows.sum()), order)
            with part_of(i, len(orders)):
                targets[rows] = walk(net, self.orders[order].argsort().tolist(), choose, targets[rows])
        return self.observation.raw(targets)

    @property
    def densities(self) -> int:
        """1 if all components have the same order: their mixture has conditionals in it."""
        return 1 if bool((self.orders == self.orders[0]).all()) else len(self.orders)

    def log_prob_each_order(self, batch: Batch) -> Tensor:
        if self.densities == 1:
            return self._log_prob(batch, samples=1, generator=None).unsqueeze(1)
        return torch.stack([self._log_prob_in_order(batch.x, m, None) for m in range(len(self.orders))], 1)

    @torch.no_grad()
    def visit(
        self,
        n: int,
        choose: ChooseEntry,
        *,
        gaps: Tensor | None = None,
        given: Tensor | None = None,
        order: int = 0,
    ) -> None:
        nets = [self.steps(n, m) for m in ([order] if self.densities > 1 else range(len(self.orders)))]
        log_joint = torch.zeros(n, len(nets), dtype=torch.float64, device=self.device)
        for site in in_steps(self.orders[order].argsort().tolist()):
            parts = [self.observation.conditional(site, net.outputs(site)) for net in nets]
            value = choose(site, joined(parts, log_joint.log_softmax(1)))
            if len(nets) > 1:
                levels = self.event.columns[site].levels
                _, unit = self.observation.units(site)
                log_joint += torch.stack([log_chosen(part, value, levels, _NEARBY * unit) for part in parts], 1)
            target = self.observation.near(site, value)
            for net in nets:
                net.put(site, target)
