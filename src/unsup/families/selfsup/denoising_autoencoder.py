"""Denoising autoencoder: a network that restores an example from a corrupted copy of it, also trained layer by layer.

With a corruption q(x̃|x), an encoder f and a decoder g, whose outputs are the parameters of a distribution of x
(Vincent, Larochelle, Bengio, Manzagol 2008, https://doi.org/10.1145/1390156.1390294; Vincent, Larochelle, Lajoie,
Bengio, Manzagol 2010, https://jmlr.org/papers/v11/vincent10a.html):

    L = E_{q(x̃|x)} [−log p(x | g(f(x̃)))]

The target is the clean x. The corruption is drawn again in every step; codes are those of clean examples.

Layer by layer, with h⁰ = x and the units h^l = s(W_l h^{l−1} + b_l) of the layers below, which are trained and stay:

    L_l = E_{q(h̃|h^{l−1})} [ℓ(h^{l−1}, g_l(f_l(h̃)))]

where ℓ is −log p for l = 1, and above it the cross-entropy of sigmoid units, or half the squared error of others. The
stack of all f_l is the encoder, and the stack of all g_l is the decoder.

For Gaussian noise of variance σ² and the squared error, the best r(x̃) = g(f(x̃)) is E[x | x̃], and (r(x̃) − x̃) / σ² is
the gradient of the log-density of noisy data (Vincent 2011, https://doi.org/10.1162/NECO_a_00142).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from unsup.core.batch import Batch
from unsup.core.config import Count, Share, Weight, Widths
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice, CanDecode, Model, Objective, Terms
from unsup.nn.activity import activity_sentences
from unsup.nn.autoencoder import Autoencoder as Networks
from unsup.nn.autoencoder import NetName
from unsup.nn.corruption import Corruption, CorruptionName, corrupted_units, has_ends
from unsup.nn.nets import TiedLinear, UnitName, activated, layer_units, linear_layers
from unsup.nn.observation import ObservationName
from unsup.prob.distributions import at_least_float32

_USUAL_PRETRAINING = 0.5  # of the steps, with several layers


class DenoisingAutoencoder(Model, CanDecode):
    """Denoising autoencoder, with layer-wise training (Vincent et al. 2010, https://jmlr.org/papers/v11/vincent10a.html).

    The loss is −log p(x | g(f(x̃))) in nats, summed over the entries of the clean example: the cross-entropy of binary
    entries, and of real ones the squared error over twice a learned variance, with the logarithm of that variance.

    With ``pretraining`` above 0, the players ``layer-1``, … train one layer after the other in equal parts of that
    share of the run, each with a learning rate schedule of its own; the player ``denoising`` trains all layers in the
    rest of it. Until its last layer is reached, the code of the model is that of layers which have not learned, so that
    the newest parameters are kept; without such players, they are those with the best ``reconstruction``.

    Args:
        event: any event; images for ``net="conv"``.
        code: size of the code, the last layer.
        hidden: widths of the layers below it, mirrored in the decoder (``()``: the code is the only layer); channels of
            stride-2 stages when ``net="conv"``. None: (500,), or (32, 64) for ``net="conv"``.
        net: dense layers, or 4×4 convolutions of stride 2 down and transposed ones up.
        decoder: p(x | g(h)), as for ``autoencoder``.
        activation: activation of all layers, also of the code.
        tied: the decoder has the transposed weights of the encoder.
        noise: q(x̃|x): ``masking``, ``gaussian`` or ``salt`` (salt-and-pepper), see `unsup.nn.corruption.Corruption`.
        corruption: its strength: the probability ν that an entry is hit, or σ of ``gaussian``. 0 is a plain
            autoencoder. The units between layers get the same noise.
        pretraining: share of the steps in which dense layers are trained one after the other; with 1, they are never
            trained together. None: 0.5 with several dense layers, else 0.

    Raises:
        InputError: a decoder, net or noise that does not fit; tied weights of networks that do not mirror each other;
            layer-wise training of convolutions, or of units without a lowest and a highest value under ``salt``.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = DenoisingAutoencoder(Event((4,), Support("binary")), code=8, hidden=(16,))
    >>> model.encode(torch.tensor([[0, 1, 1, 0]])).shape
    torch.Size([1, 8])
    """

    presets = {
        "tiny": {"code": 8, "hidden": (16,)},
        # The stack of three layers that its tables compare; sizes and noise are hyper-parameters there, chosen by
        # validation: three times 1000 units and a quarter of the pixels are our choice.
        "paper": {"code": 1000, "hidden": (1000, 1000), "corruption": 0.25, "pretraining": 1.0},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}
    takes_missing = True

    def __init__(
        self,
        event: Event,
        *,
        code: Count = 500,
        hidden: Widths | None = None,
        net: NetName = "dense",
        decoder: ObservationName = "auto",
        activation: UnitName = "sigmoid",
        tied: bool = False,
        noise: CorruptionName = "masking",
        corruption: Weight = 0.25,
        pretraining: Share | None = None,
    ) -> None:
        if hidden is None and net == "dense":
            hidden = (500,)
        if pretraining is None:
            pretraining = _USUAL_PRETRAINING if net == "dense" and hidden else 0.0
        if pretraining and net != "dense":
            raise InputError(
                f"DenoisingAutoencoder: pretraining={pretraining:g} trains dense layers one by one; use pretraining=0 "
                "with net='conv'"
            )
        if pretraining and hidden and noise == "salt" and not has_ends(activation):
            raise InputError(
                f"DenoisingAutoencoder: noise='salt' sets units to their lowest or highest value, which "
                f"activation={activation!r} does not have; use 'sigmoid' or 'tanh', or pretraining=0"
            )
        self._code_size, self.activation, self.pretraining = code, activation, pretraining
        self.noise, self.strength = noise, corruption
        if not pretraining:  # else a code of untrained layers might be the best one for some time
            self.validator = "reconstruction"
        self.nets = Networks(
            event,
            code_size=code,
            encoded_size=code,
            hidden=hidden,
            net=net,
            decoder=decoder,
            activation=activation,
            tied=tied,
            owner="DenoisingAutoencoder",
        )
        self.corruption = Corruption(self.nets, noise, corruption, "DenoisingAutoencoder")

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice({"code": 100, "hidden": (100,)} if event.dims <= 64 else {}, turn=None)

    @property
    def code_size(self) -> int:
        return self._code_size

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the marginals of the data."""
        self.nets.prepare(batch.x, None, generator=generator)

    # --- learning -------------------------------------------------------------------------------------------------

    def objectives(self) -> tuple[Objective, ...]:
        """The layers, one after the other, then all of them."""
        found = []
        if self.pretraining:
            depth = len(self._up)
            ends = [self.pretraining * i / depth for i in range(depth + 1)]
            for i in range(depth):
                own = tuple(p for p in self._layer_parameters(i) if p.requires_grad)
                loss = partial(self.layer_loss, i)
                found.append(Objective(f"layer-{i + 1}", loss, own, during=(ends[i], ends[i + 1])))
        if self.pretraining < 1:
            everything = tuple(p for p in self.parameters() if p.requires_grad)
            found.append(Objective("denoising", self.loss, everything, during=(self.pretraining, 1.0)))
        return tuple(found)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x | g(f(x̃))) of all layers, ``(B,)``."""
        code = self._code(self.corruption(self.nets, batch.x, generator))
        target = self.nets.target(batch.x, generator)
        return {"loss": -self.nets.log_likelihood(target, code[None]).squeeze(0)}

    def layer_loss(self, index: int, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """The loss of the layer above h^index, ``(B,)``: in nats, or half the squared error of units on the line."""
        up, down = self._up[index], self._down[index]
        if index == 0:
            seen = self.corruption(self.nets, batch.x, generator).flatten(1)
            outputs = self.nets.shaped(down(activated(up(seen), self.activation)))
            target = self.nets.target(batch.x, generator)
            return {"loss": -self.nets.observation.total_log_prob(target, outputs)}
        below = self._units_below(index, batch.x)
        corrupted = corrupted_units(below, self.noise, self.strength, self.activation, generator)
        a = at_least_float32(down(activated(up(corrupted), self.activation)))
        below = at_least_float32(below)
        if self.activation == "sigmoid":
            return {"loss": binary_cross_entropy_with_logits(a, below, reduction="none").sum(1)}
        # Without the ReLU, which has no gradient for units that should be on and are off.
        restored = a.tanh() if self.activation == "tanh" else a
        return {"loss": 0.5 * (restored - below).square().sum(1)}

    @torch.no_grad()
    def _units_below(self, index: int, x: Tensor) -> Tensor:
        """h^index of clean examples."""
        assert self.nets.encoder is not None
        return layer_units(self.nets.encoder, self.nets.seen(x), [self.activation] * index)[-1]

    @property
    def _up(self) -> list[nn.Linear | TiedLinear]:
        """The maps from h^{l−1} to h^l, from the first."""
        assert self.nets.encoder is not None
        return linear_layers(self.nets.encoder)

    @property
    def _down(self) -> list[nn.Linear | TiedLinear]:
        """The maps from h^l to h^{l−1}, from that of the first layer."""
        return linear_layers(self.nets.decoder)[::-1]

    def _layer_parameters(self, index: int) -> list[nn.Parameter]:
        """Those of one layer; the observation model belongs to the first."""
        found = [*self._up[index].parameters(), *self._down[index].parameters()]
        return found if index else found + list(self.nets.observation.parameters())

    # --- interface ------------------------------------------------------------------------------------------------

    def _code(self, seen: Tensor) -> Tensor:
        return activated(self.nets.encode_seen(seen), self.activation)

    def encode(self, x: Tensor) -> Tensor:
        """f(x) of the clean example: ``(B, *event.shape)`` → ``(B, code)``."""
        return self._code(self.nets.seen(x))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable value (Bernoulli, categorical), or the value at the mean, of every entry given the code."""
        self.check_codes(z)
        return self.nets.typical(z)

    @torch.no_grad()
    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """How many units of the code vary, and how active they are."""
        return () if batch is None else activity_sentences(self.encode(batch.x), self.activation)
