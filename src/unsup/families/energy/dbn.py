"""Deep belief network: a restricted Boltzmann machine on top of directed layers of binary units.

With layers h⁰ = x, h¹, …, h^L the two top layers are undirected, and each layer below is drawn from the one above it
(Hinton, Osindero, Teh 2006, https://doi.org/10.1162/neco.2006.18.7.1527):

    p(x, h¹, …, h^L) = p(h^{L−1}, h^L) Π_{l<L} p(h^{l−1} | h^l)
    p(h^{L−1}, h^L) ∝ exp(bᵀh^{L−1} + cᵀh^L + h^{L−1ᵀ} W_L h^L),   p(h_i^{l−1} = 1 | h^l) = σ(b_i + W_{l,i} h^l)

Training is greedy. The first layer is an RBM of the data; each further layer is an RBM of bits of h^l drawn from
q(h^l | h^{l−1}) = p(h^l | h^{l−1}) of the RBM below, whose weights then stay and become the directed ones. If
W_{l+1} = W_lᵀ, the deeper model has the density of the shallower one, so that a layer starts there where its size
allows it, and log p ≥ E_q[log p(x, h) − log q(h | x)] of the deeper model starts at the value that it had before.

The rest of the training is the contrastive wake-sleep ("up-down") algorithm, with recognition weights R_l that begin
as W_l. Bits drawn upwards from the data fit every p(h^{l−1} | h^l), and the top RBM by contrastive divergence; bits
drawn downwards from the ends of its chains fit every q(h_j^l = 1 | h^{l−1}) = σ(r_j + R_{l,j}ᵀ h^{l−1}).

log Z of the top RBM is a sum or an estimate by annealed importance sampling (Salakhutdinov, Murray 2008,
https://doi.org/10.1145/1390156.1390266).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import Count, Widths, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import Advice, Objective, Terms, keyed_generator
from unsup.core.random import alike, bits
from unsup.nn.boltzmann import BinaryLayers, log_bits
from unsup.nn.gibbs import BinaryUnits, Watch
from unsup.prob import boltzmann

_STARTS = 100  # chains that tell the means of a layer to the one above it
_SWEEPS = 50  # of these chains
_PACE = 0.25  # of the learning rate, for all players but the first


class DBN(BinaryUnits):
    """Deep belief network of binary units (Hinton, Osindero, Teh 2006; Salakhutdinov, Murray 2008).

    `log_prob` is log (1/k) Σ_i p(x, hⁱ) / q(hⁱ | x), k = ``samples``, with the top layer summed out: a lower ``bound``
    on log p if log Z is a sum (a layer of the top RBM has 20 units at most), else an ``estimate`` of this bound that
    needs `estimate_log_partition` first. The estimate of log Z is low in expectation, so that log p is high. log p has
    no gradient and no graph: bits have none.

    The run trains one layer after the other, in equal parts, then all of them: the players ``layer-1``, …, each with
    the learning rate schedule in its own part, and ``up-down``. After the first layer, the learning rate is a quarter
    of that of the run: these players start from a good model, which large steps make worse. Until the last layer is
    reached, the model is the DBN of the layers so far (with one layer, the RBM), also in `log_prob`, `sample` and
    `encode`. A second training builds the layers again, from the first one. The terms of a layer are those of ``rbm``;
    those of ``up-down`` are ``generative`` = −Σ log p(h^{l−1} | h^l), ``data`` and ``chains`` of the top RBM and
    ``recognition`` = −Σ log q of the bits drawn downwards.

    Args:
        event: binary, of any shape.
        hidden: sizes of the layers h¹, …, h^L, two at least.
        persistent: train the RBMs by PCD, or by CD when False.
        steps: k, the number of Gibbs sweeps between updates.
        chains: number of persistent chains of each RBM; CD has one per example of the batch.
        centred: use the energy of v − µ and h − ½ in training, with the means µ of the layer below, as in ``rbm``.
        fine_tuning: share of the steps for the up-down algorithm; 0: none, and recognition weights are those of the
            RBMs.
        burn_in: Gibbs sweeps of the top RBM in `sample`.

    Raises:
        InputError: fewer than two layers.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = DBN(Event((4,), Support("binary")), hidden=(3, 4))
    >>> model.log_prob(torch.tensor([[0, 1, 1, 0]]), samples=10).shape
    torch.Size([1])
    """

    presets = {
        "tiny": {"hidden": (16, 8), "chains": 64, "burn_in": 200},
        # The greedily trained network of Salakhutdinov, Murray (2008), 784-500-2000.
        "paper": {"hidden": (500, 2000), "persistent": False, "steps": 25, "centred": False, "fine_tuning": 0.0},
    }
    fit_defaults = {"lr": 2e-3, "batch_size": 100, "schedule": "linear"}

    depth_in_use: Tensor

    def __init__(
        self,
        event: Event,
        *,
        hidden: Widths = (500, 500),
        persistent: bool = True,
        steps: Count = 1,
        chains: Count = 100,
        centred: bool = True,
        fine_tuning: Annotated[float, Within(0, 1, below=True)] = 0.4,
        burn_in: Count = 1000,
    ) -> None:
        if len(hidden) < 2:
            raise InputError(f"DBN: hidden={hidden} should have at least two layers; use rbm for one")
        self.burn_in, self.fine_tuning = burn_in, fine_tuning
        sizes = (event.dims, *hidden)
        self.layers = nn.ModuleList(
            BinaryLayers(below, above, persistent=persistent, steps=steps, chains=chains, centred=centred)
            for below, above in zip(sizes, hidden, strict=False)
        )
        self.recognition = nn.ModuleList()
        if fine_tuning:
            self.recognition.extend(nn.Linear(below, above) for below, above in zip(sizes, hidden[:-1], strict=False))
            for lower in range(len(self.recognition)):
                self._copy_to_recognition(lower)
        self.register_buffer("depth_in_use", torch.tensor(len(hidden)))  # layers that are trained or in training
        self.take_partition()

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice(turn=None)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the visible biases with the log-odds of the means of the data, and persistent chains at random."""
        x = batch.x.flatten(1)
        first = self._layer(0)
        first.base_bias.copy_(boltzmann.log_odds(x.sum(0, dtype=first.base_bias.dtype) / len(x), len(x)))
        first.visible_bias.copy_(first.base_bias)
        for layer in self._layers():
            layer.draw_fantasies(generator)

    # --- layers ---------------------------------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """The number of layers of hidden units in use."""
        return int(self.depth_in_use)

    def _layer(self, index: int) -> BinaryLayers:
        layer = self.layers[index]
        assert isinstance(layer, BinaryLayers)
        return layer

    def _layers(self) -> list[BinaryLayers]:
        return [self._layer(i) for i in range(len(self.layers))]

    def _up(self, index: int, v: Tensor) -> Tensor:
        """The log-odds of h^{index + 1} given h^index by the recognition weights: ``(B, V)`` → ``(B, H)``."""
        if not self.recognition:
            return self._layer(index).up(v)
        recognition = self.recognition[index]
        assert isinstance(recognition, nn.Linear)
        return boltzmann.log_odds_of_bits(v, recognition.weight.t(), recognition.bias)

    @torch.no_grad()
    def _copy_to_recognition(self, index: int) -> None:
        weight, _, bias = self._layer(index).interaction()
        recognition = self.recognition[index]
        assert isinstance(recognition, nn.Linear)
        recognition.weight.copy_(weight.t())
        recognition.bias.copy_(bias)

    @torch.no_grad()
    def add_layer(self) -> None:
        """Use one layer more: its parameters start from those of the layer below, which stay.

        The RBM above V visible and H hidden units starts with the transposed weights if it has at least V hidden units:
        the model then has the density that it had before, up to the small random weights of further units. Else its
        weights are small and random, and its visible units have the means of h under the RBM below.
        """
        below = self.depth - 1
        lower, upper = self._layer(below), self._layer(below + 1)
        w, b, c = lower.interaction()
        generator = keyed_generator(0, below, device=w.device)
        with alike():
            if lower.persistent:
                h = lower.fantasies.to(w.dtype)
            else:
                start = lower.from_base_rates(_STARTS, generator)
                v = boltzmann.gibbs(start, w, b, c, _SWEEPS, generator)
                h = bits(torch.addmm(c, v, w).sigmoid_(), generator)
            means = torch.addmm(c, torch.addmm(b, h, w.t()).sigmoid_(), w).sigmoid_().mean(0)
            upper.base_bias.copy_(boltzmann.log_odds(means, len(h)))
            weight = upper.weight.normal_(std=boltzmann.INITIAL_STD, generator=generator)
            visible, tied = len(b), len(upper.hidden_bias) >= len(b)
            further = weight[:, visible:] if tied else weight
            if tied:
                weight[:, :visible] = w.t()
            # Further units are on half of the time at the means: log cosh of a small number is nearly 0.
            hidden_bias = -(weight.t() @ upper.base_bias.sigmoid())
            if tied:
                hidden_bias[:visible] = b
            upper.set_interaction(weight, (c if tied else upper.base_bias) - 0.5 * further.sum(1), hidden_bias)
            if upper.persistent:
                rows = torch.arange(len(upper.fantasies), device=w.device) % len(h)
                upper.fantasies.copy_(bits(upper.up(h[rows]).sigmoid_(), generator))
        if self.recognition:
            self._copy_to_recognition(below)
        self.depth_in_use += 1

    # --- learning -------------------------------------------------------------------------------------------------

    def objectives(self) -> tuple[Objective, ...]:
        """The RBMs, one after the other, then the up-down algorithm."""
        depth = len(self.layers)
        ends = [(1 - self.fine_tuning) * i / depth for i in range(depth + 1)]
        found = [
            Objective(
                f"layer-{i + 1}",
                partial(self.layer_loss, i),
                tuple(p for p in layer.parameters() if p.requires_grad),
                pace=_PACE if i else 1.0,
                during=(ends[i], ends[i + 1]),
            )
            for i, layer in enumerate(self._layers())
        ]
        if self.fine_tuning:
            moved = [p for layer in self._layers()[:-1] for p in (layer.weight, layer.visible_bias)]
            moved += [*self._layer(-1).parameters(), *self.recognition.parameters()]
            own = tuple(p for p in moved if p.requires_grad)
            found.append(Objective("up-down", self.up_down_loss, own, pace=_PACE, during=(ends[-1], 1.0)))
        return tuple(found)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss of the last player."""
        return self.objectives()[-1].loss(batch, generator=generator)

    def layer_loss(self, index: int, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Contrastive divergence of the RBM above h^index: free energies of bits drawn upwards and of chains."""
        v = self._bits(batch.x)
        with torch.no_grad():
            for lower in range(index):
                v = bits(self._up(lower, v).sigmoid_(), generator)
        below, above, _, _ = self._layer(index).contrasted(v, generator)
        return {"loss": below - above, "data": below.detach(), "chains": above.detach()}

    def up_down_loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The up-down algorithm: the loss is the sum of its terms, whose bits are drawn without gradient."""
        directed = range(len(self.layers) - 1)
        states = [self._bits(batch.x)]
        with torch.no_grad():
            for i in directed:
                states.append(bits(self._up(i, states[-1]).sigmoid_(), generator))
        generative = -torch.stack([log_bits(states[i], self._layer(i).down(states[i + 1])) for i in directed]).sum(0)
        top = self._layer(-1)
        below, above, _, ends = top.contrasted(states[-1], generator)
        dreams = [ends]
        with torch.no_grad():
            for i in reversed(directed):
                probability = self._layer(i).down(dreams[0]).sigmoid_()
                if top.persistent:
                    with alike():
                        dreams.insert(0, bits(probability, generator))
                else:
                    dreams.insert(0, bits(probability, generator))
        recognition = -torch.stack([log_bits(dreams[i + 1], self._up(i, dreams[i])) for i in directed]).sum(0)
        if top.persistent:
            recognition = recognition.mean()  # of the chains, which all examples share
        return {
            "loss": generative + below - above + recognition,
            "generative": generative.detach(),
            "data": below.detach(),
            "chains": above.detach(),
            "recognition": recognition.detach(),
        }

    def after_step(self, time: Time) -> None:
        """Add a layer where its part of the run begins."""
        if time.total is None:
            return
        players = self.objectives()[: len(self.layers)]
        wanted = max(1, sum(player.steps(time.total)[0] <= time.step for player in players))
        if wanted < self.depth:
            self.depth_in_use.fill_(wanted)
        while self.depth < wanted:
            self.add_layer()

    # --- density --------------------------------------------------------------------------------------------------

    @property
    def likelihood_kind(self) -> Kind:
        return "bound" if self.partition_is_exact else "estimate"

    @property
    def uses_samples(self) -> bool:
        """A single layer has no draws of the layers below the top one."""
        return self.depth > 1 or not self.partition_is_exact

    @property
    def partition_is_exact(self) -> bool:
        return boltzmann.is_enumerable(*self._layer(self.depth - 1).weight.shape)

    def partition_sum(self) -> Tensor:
        return boltzmann.enumerated_log_partition(*self._layer(self.depth - 1).interaction())

    def partition_estimate(self, effort: int, generator: Generator | None) -> tuple[float, float]:
        top, through = self._layer(self.depth - 1), self.below_top()
        return boltzmann.annealed_log_partition(top.interaction(), top.base_bias, effort, generator, through=through)

    def below_top(self) -> boltzmann.Interaction | None:
        """The RBM below the top one, upside down: the model from which the top RBM has started.

        None for one layer, and with the up-down algorithm, after which that layer is not an RBM.
        """
        if self.depth == 1 or self.recognition:
            return None
        w, b, c = self._layer(self.depth - 2).interaction()
        return w.t(), c, b

    def partition_parameters(self) -> Iterator[Tensor]:
        top = self._layer(self.depth - 1)
        yield from top.parameters()
        yield top.base_bias

    def partition_sizes(self) -> str:
        visible, hidden = self._layer(self.depth - 1).weight.shape
        return f"layers of {visible} and {hidden} units"

    @torch.no_grad()
    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        """log (1/k) Σ p(x, h) / q(h|x) with k draws of h¹, …, h^{L−1}, float64: ``(B,)`` nats."""
        x, depth = self._bits(batch.x), self.depth
        total = x.new_full((len(x),), -math.inf, dtype=torch.float64)
        for _ in range(samples):
            v, log_weight = x, torch.zeros_like(total)
            for i in range(depth - 1):
                log_odds = self._up(i, v)
                h = bits(log_odds.sigmoid(), generator)
                log_weight += log_bits(v, self._layer(i).down(h)).double() - log_bits(h, log_odds).double()
                v = h
            total = torch.logaddexp(total, log_weight - self._layer(depth - 1).energy_of(v).double())
        return total - math.log(samples) - self.log_z()

    # --- interface ------------------------------------------------------------------------------------------------

    def chain_ends(self, n: int, sweeps: int, generator: Generator | None, watch: Watch | None) -> Tensor:
        """A pass of the directed layers below the last states of chains of the top RBM."""
        below = self.depth - 1
        v = self._layer(below).drawn(n, sweeps, generator, watch)
        for i in reversed(range(below)):
            v = bits(self._layer(i).down(v).sigmoid_(), generator)
        return v

    def shown(self, units: Tensor) -> Tensor:
        """The most probable examples below the chains of the top RBM."""
        return self._raw(self._typical(units))

    def _typical(self, v: Tensor) -> Tensor:
        """Bits of x, the most probable ones given probabilities of each layer below h^{depth − 1}."""
        for i in reversed(range(self.depth - 1)):
            v = self._layer(i).down(v).sigmoid()
        return v > 0.5

    def encode(self, x: Tensor) -> Tensor:
        """Probabilities of the top layer by an upward pass of probabilities: ``(B, *event.shape)`` → ``(B, H_L)``."""
        return self.encode_layers(x)[-1]

    def encode_layers(self, x: Tensor) -> list[Tensor]:
        """Probabilities of each layer of hidden units in use, ``(B, H_l)``: an upward pass of probabilities."""
        found = [self._bits(x)]
        for i in range(self.depth - 1):
            found.append(self._up(i, found[-1]).sigmoid())
        return [*found[1:], self._layer(self.depth - 1).up(found[-1]).sigmoid()]

    @property
    def code_size(self) -> int:
        return len(self._layer(self.depth - 1).hidden_bias)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable x by a downward pass of probabilities from h^L = z: ``(B, H_L)`` → examples."""
        self.check_codes(z)
        return self._raw(self._typical(self._layer(self.depth - 1).down(z.to(self.dtype)).sigmoid()))
