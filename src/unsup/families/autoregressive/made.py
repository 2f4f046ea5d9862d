"""MADE: masked autoencoder for distribution estimation.

p(x) = ∏_d p(x_d | x_<d), all conditionals from one pass of an MLP whose weights are masked (Germain, Gregor, Murray,
Larochelle 2015, https://arxiv.org/abs/1502.03509): output d sees the inputs before d only (`unsup.nn.masked`). With
several masks, the model is the uniform mixture over them: log p(x) = log (1/M) Σ_m p_m(x), a mean of probabilities of
the whole example.

Where entries may be missing, it is the model of those that are there, given which are missing. With the observed
entries o and the indicators m of missing ones,

    p(x_o | m) = ∏_{d ∈ o} p(x_d | x_{<d, o}, m_{<d}),

which is normalised over the observed entries for every pattern; training uses the patterns of the data.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Widths, Within
from unsup.core.event import Event
from unsup.core.model import Advice, CanComplete, Terms
from unsup.core.parallel import is_last_part
from unsup.core.steps import part_of
from unsup.nn.autoregressor import Steps, drawing, keeping, nothing_chosen, walk
from unsup.nn.columns import is_table
from unsup.nn.front import ContinuousFront
from unsup.nn.heads import Heads
from unsup.nn.inputs import Inputs, TableInputs, dense_inputs
from unsup.nn.masked import MaskedMLP, draw_degrees
from unsup.nn.observation import Discrete, GaussianMixture, count_levels, symbols_for
from unsup.nn.order_mixture import OrderMixture
from unsup.prob import distributions as dist

_FEW_EXAMPLES = 10_000  # number of examples below which a default network overfits
_MOST_OUTPUTS = 50_000  # maximum size of the last layer: entries × levels
_PROPOSALS = 100  # completions of an example, of which one is chosen
_TOGETHER = 64  # examples that are completed at a time


class MADE(OrderMixture, CanComplete):
    """Masked autoencoder for distribution estimation (Germain et al. 2015, https://arxiv.org/abs/1502.03509).

    Outputs are Bernoullis for binary data, a K-way softmax for other discrete data, and a mixture of Gaussians per
    dimension for real data. In tables with mixed columns or missing entries each column has a head of its own
    (`unsup.nn.heads`): the same ones, and mixtures of discretised logistics for more than 16 whole numbers. Missing
    entries are not scored; samples are complete.

    Args:
        event: any event.
        hidden: units of each hidden layer.
        masks: number of connectivities (and orders, if random); cycled by minibatch in training, mixed in scoring.
        order: ``natural``, or ``random``: a permutation of the dimensions per mask.
        direct: add masked direct connections from input to output (section 4.4 of the paper).
        components: number of Gaussians of each real conditional, and of logistics of whole numbers.
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
    takes_missing = True

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
        self.inputs: Inputs | TableInputs | None = None
        if is_table(event):
            self.observation, self.inputs = Heads(event, components), TableInputs(event)
        elif support is not None and support.is_discrete:
            self.observation = symbols_for(event)
            self.inputs = dense_inputs(event)
        else:
            self.observation = GaussianMixture(event, components)
        orders, degrees = draw_degrees(event.dims, hidden, masks, order, Generator().manual_seed(mask_seed))
        self.net = MaskedMLP(
            orders,
            degrees,
            inputs=1 if self.inputs is None else self.inputs.sizes,
            outputs=self.observation.sizes if isinstance(self.observation, Heads) else self.observation.outputs_each,
            direct=direct,
            dropout=dropout,
        )
        self.take_orders(orders)
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
    def front(self) -> ContinuousFront | None:
        """The map from raw to standardised data, if all of it is real and none missing."""
        return self.observation.front if isinstance(self.observation, GaussianMixture) else None

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the data marginals (log-odds, log-frequencies); standardise real data."""
        observation = self.observation
        observation.prepare(batch.x, generator)
        if isinstance(observation, Heads):
            assert isinstance(self.inputs, TableInputs)
            self.inputs.prepare(observation.target(batch.x))
            self.net.start_at(observation.marginal(batch.x.flatten(1)))
        elif isinstance(observation, Discrete):
            levels = observation.levels
            counts = count_levels(observation.target(batch.x.flatten(1)), levels).to(self.dtype) + 1
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
        return {"loss": -self._log_prob_in_order(batch.x, order, generator)}

    def outputs(self, x: Tensor, order: int, generator: Generator | None = None) -> Tensor:
        return self.net(self._features(x), order, generator=generator)

    def outputs_of(self, targets: Tensor, order: int) -> Tensor:
        return self.net(self._all(targets), order)

    def steps(self, n: int, order: int) -> Steps:
        return self.net.begin(n, order, self._encode)

    @torch.no_grad()
    def complete(self, x: Tensor, known: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Draw the unknown entries from p(unknown | known), by sampling-importance-resampling.

        (Rubin 1987, https://doi.org/10.1080/01621459.1987.10478460.) Of 100 proposals one is chosen. Each is drawn
        entry by entry, in an order of the mixture, with the known entries in their places, and its probability of being
        chosen is proportional to Π p(known entry | entries before it). The draw is near p(unknown | known) if many
        proposals fit what is known. If the known entries come first in the only order, one proposal is an exact draw.

        Args:
            x: raw examples ``(B, *event.shape)``; unknown entries may have any value.
            known: bool, same shape.
            generator: random generator.
        """
        self.check_known(x, known)
        filled = torch.where(known, x, self.event.lowest(x))
        parts = list(zip(filled.split(_TOGETHER), known.split(_TOGETHER), strict=True))
        found = []
        for i, (part, mask) in enumerate(parts):
            with part_of(i, len(parts)):
                found.append(self._chosen_proposals(part, mask, generator))
        drawn = torch.cat(found)
        return drawn if self.event.is_discrete else self.kept(x, known, drawn)

    def approximation(self, known: Tensor) -> str | None:
        return None if self._is_exact(known) else f"each chosen from {_PROPOSALS} proposals"

    def _is_exact(self, known: Tensor) -> bool:
        """Whether the known entries come first in the only order."""
        in_order = known.flatten(1)[:, self.orders[0].argsort()]
        return len(self.orders) == 1 and not bool((in_order[:, 1:] & ~in_order[:, :-1]).any())

    def _chosen_proposals(self, x: Tensor, known: Tensor, generator: Generator | None) -> Tensor:
        if not len(x):
            return self.observation.raw(nothing_chosen(self, self.observation, 0))
        proposals = 1 if self._is_exact(known) else _PROPOSALS
        rows = torch.arange(len(x), device=x.device).repeat_interleave(proposals)
        targets, mask = self._walked(x)[rows], known.flatten(1)[rows]
        choose = drawing(self.observation, generator)
        drawn = nothing_chosen(self, self.observation, len(rows))
        log_weight = torch.zeros(len(rows), dtype=torch.float64, device=x.device)
        weights = torch.ones(len(self.orders), device=x.device)
        order_of = weights.multinomial(len(rows), replacement=True, generator=generator)
        orders = order_of.unique().tolist()
        for i, order in enumerate(orders):
            own = order_of == order
            net, sites = self.steps(int(own.sum()), order), self.orders[order].argsort().tolist()
            with part_of(i, len(orders)):
                drawn[own] = walk(net, sites, keeping(mask[own], targets[own].to(drawn.dtype), choose), drawn[own])
            entries = self._entries_in_order(self.observation.raw(drawn[own]), order).double()
            log_weight[own] = entries.masked_fill(~mask[own], 0.0).sum(1)
        found = self.observation.raw(drawn).unflatten(0, (len(x), proposals))
        chosen = dist.sample_categorical(log_weight.view(len(x), proposals), generator=generator)
        return found[torch.arange(len(x), device=x.device), chosen]

    def _walked(self, x: Tensor) -> Tensor:
        """Raw data as a walk chooses it, ``(B, D)``: levels, or standardised numbers."""
        if self.front is not None:
            return self.front(x)[0].flatten(1)
        return self.observation.target(x).flatten(1)

    def _features(self, x: Tensor) -> Tensor:
        """The input of the network for raw data: ``(B, *event.shape)`` → ``(B, F)``."""
        if isinstance(self.inputs, TableInputs):
            return self.inputs(self.observation.target(x))
        if self.inputs is not None:
            return self.inputs.flat(x)
        assert self.front is not None
        return self.front(x)[0].flatten(1)

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Pairs that are not connected under this mask, because no hidden unit has the necessary degree."""
        position = self.orders[order]
        return (position[:, None] > position[None, :]) & ~self.net.joined(order)

    def _encode(self, site: int, targets: Tensor) -> Tensor:
        """Targets ``(B,)`` of one entry → its input features ``(B, F)``."""
        if isinstance(self.inputs, TableInputs):
            return self.inputs.at(site, targets)
        return targets.to(self.dtype) if self.inputs is None else self.inputs.levels(targets)

    def _all(self, targets: Tensor) -> Tensor:
        """Targets ``(B, D)`` of all entries → input features ``(B, F)``."""
        if isinstance(self.inputs, TableInputs):
            return self.inputs(targets)
        return targets.to(self.dtype) if self.inputs is None else self.inputs.levels(targets).flatten(1)
