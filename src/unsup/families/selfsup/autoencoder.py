"""Autoencoder: a network that restores an example from a code of it, with sparse and contractive penalties.

With an encoder h = f(x) and a decoder g, whose outputs are the parameters of a distribution of x, the loss is

    L = −log p(x | g(f(x))) + β Σ_j KL(ρ ‖ ρ̂_j) + λ ‖∂f(x)/∂x‖²_F

The first term is the cross-entropy of binary entries, and of real ones the squared error over twice a learned variance,
with the logarithm of that variance. It alone, with a code smaller than x, is the deep autoencoder of Hinton,
Salakhutdinov 2006 (https://doi.org/10.1126/science.1127647). A larger code needs a penalty:

- sparse: ρ̂_j is the mean activity of the sigmoid unit j of the code over a batch, which should be ρ (Ng 2011, "Sparse
  autoencoder", https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf; Lee, Ekanadham, Ng 2007);
- contractive: the squared norm of the Jacobian of the code with respect to the inputs of the network (Rifai, Vincent,
  Muller, Glorot, Bengio 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf). For one layer of sigmoid units it is
  Σ_j (h_j (1 − h_j))² ‖W_j‖².

There is no density of x: the code of an example is one point, and nothing says how codes are distributed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Weight, Widths, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice, CanDecode, Model, Symptom, Terms
from unsup.core.parallel import mean_over_rows
from unsup.nn.activity import activity_sentences
from unsup.nn.autoencoder import Autoencoder as Networks
from unsup.nn.autoencoder import NetName
from unsup.nn.nets import UnitName, activated, layer_units, linear_layers, slope
from unsup.nn.observation import ObservationName
from unsup.prob.distributions import at_least_float32
from unsup.prob.penalties import activity_divergence, contraction

_MOST_OF_JACOBIAN = 2**16  # numbers of an example that the exact penalty keeps for each hidden layer
_CONSTANT = 1e-4  # ‖J‖² below which the code does not depend on x


class Autoencoder(Model, CanDecode):
    """Deep autoencoder (Hinton, Salakhutdinov 2006, https://doi.org/10.1126/science.1127647), sparse or contractive.

    The loss is ``reconstruction`` = −log p(x | g(f(x))) in nats, summed over entries, plus the weighted penalties
    ``sparsity``, one number per batch, and ``contraction``, one per example.

    Args:
        event: any event; images for ``net="conv"``.
        code: size of the code.
        hidden: widths of the hidden layers of the encoder, mirrored in the decoder (``()``: one layer each); channels
            of its stride-2 stages when ``net="conv"``. None: (256, 256), or (32, 64) for ``net="conv"``.
        net: dense layers, or 4×4 convolutions of stride 2 down and transposed ones up.
        decoder: p(x | g(h)), as for ``vae``: ``auto`` is ``bernoulli`` on binary data, ``categorical`` (softmax) on
            nominal, ``logistic`` (discretised) on ordinal, ``gaussian`` (learned variances) on real data, and one of
            these for each column of a table.
        activation: activation of the hidden layers.
        code_activation: activation of the code.
        tied: the decoder has the transposed weights of the encoder.
        sparsity: β, the weight of the sparse penalty; it needs ``code_activation="sigmoid"``.
        target: ρ, the wanted mean activity.
        contractive: λ, the weight of the contractive penalty, for ``net="dense"``. It is exact; with hidden layers,
            each of them takes ``code`` times its width numbers of memory per example, at most 65,536.

    Raises:
        InputError: a decoder or net that does not fit; tied weights of networks that do not mirror each other; a
            penalty on networks that it is not defined for.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = Autoencoder(Event((4,), Support("binary")), code=2, hidden=(16,))
    >>> model.encode(torch.tensor([[0, 1, 1, 0]])).shape
    torch.Size([1, 2])
    """

    presets = {
        "tiny": {"code": 4, "hidden": (16,), "activation": "tanh"},
        # 784-1000-500-250-30 with a linear code, which the paper trains first as a stack of RBMs.
        "paper": {"code": 30, "hidden": (1000, 500, 250), "activation": "sigmoid"},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 100}
    takes_missing = True
    validator = "reconstruction"

    def __init__(
        self,
        event: Event,
        *,
        code: Count = 32,
        hidden: Widths | None = None,
        net: NetName = "dense",
        decoder: ObservationName = "auto",
        activation: UnitName = "relu",
        code_activation: UnitName = "linear",
        tied: bool = False,
        sparsity: Weight = 0.0,
        target: Annotated[float, Within(0.001, 0.999)] = 0.05,
        contractive: Weight = 0.0,
    ) -> None:
        if sparsity and code_activation != "sigmoid":
            raise InputError(
                f"Autoencoder: sparsity={sparsity:g} compares mean activities from 0 to 1 with a target; use "
                f"code_activation='sigmoid', got {code_activation!r}"
            )
        self._code_size, self.activation, self.code_activation = code, activation, code_activation
        self.sparsity, self.target, self.contractive = sparsity, target, contractive
        self.nets = Networks(
            event,
            code_size=code,
            encoded_size=code,
            hidden=hidden,
            net=net,
            decoder=decoder,
            activation=activation,
            tied=tied,
            owner="Autoencoder",
        )
        if contractive:
            self._check_contractive(net, code)

    def _check_contractive(self, net: NetName, code: int) -> None:
        if net != "dense":
            raise InputError("Autoencoder: contractive is for net='dense'; use contractive=0")
        assert self.nets.encoder is not None
        widest = max((layer.weight.shape[0] for layer in linear_layers(self.nets.encoder)[:-1]), default=0)
        if code * widest > _MOST_OF_JACOBIAN:
            raise InputError(
                f"Autoencoder: contractive with code={code} and a hidden layer of {widest} units takes "
                f"{code * widest:,} numbers per example; expected at most {_MOST_OF_JACOBIAN:,}; use fewer units, or "
                "hidden=(), for which the penalty has a closed form"
            )

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        small = {"code": max(2, min(16, event.dims // 2))} if event.dims <= 64 else {}
        return Advice(small, turn=None)

    @property
    def code_size(self) -> int:
        return self._code_size

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Initialise the output bias with the marginals of the data."""
        self.nets.prepare(batch.x, None, generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and its terms, in nats or squared units of the code per unit of the inputs."""
        seen = self.nets.seen(batch.x)
        code = self._code(seen)
        target = self.nets.target(batch.x, generator)
        reconstruction = -self.nets.log_likelihood(target, code[None]).squeeze(0)
        terms = {"loss": reconstruction, "reconstruction": reconstruction.detach()}
        if self.sparsity:
            sparsity = activity_divergence(_mean_activity(code, batch.weight), self.target)
            terms |= {"loss": terms["loss"] + self.sparsity * sparsity, "sparsity": sparsity.detach()}
        if self.contractive:
            contracted = self._contraction(seen)
            terms |= {"loss": terms["loss"] + self.contractive * contracted, "contraction": contracted.detach()}
        return terms

    def _code(self, seen: Tensor) -> Tensor:
        return activated(self.nets.encode_seen(seen), self.code_activation)

    def _contraction(self, seen: Tensor) -> Tensor:
        """‖∂h/∂x‖²_F with respect to the inputs of the encoder, ``(B,)``."""
        assert self.nets.encoder is not None
        layers = linear_layers(self.nets.encoder)
        names: list[UnitName] = [self.activation] * (len(layers) - 1) + [self.code_activation]
        units = layer_units(self.nets.encoder, seen, names)
        return contraction(
            [layer.weight for layer in layers], [slope(h, name) for h, name in zip(units, names, strict=True)]
        )

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        if terms.get("contraction", 1.0) > _CONSTANT:
            return None
        return Symptom(
            "collapse",
            f"the squared norm of the Jacobian of the code is {terms['contraction']:.2g}, so the code hardly depends "
            "on x; try a smaller contractive, tied=True, or code_activation='sigmoid'",
        )

    @torch.no_grad()
    def findings(self, names: Sequence[str] | None = None, *, batch: Batch | None = None) -> tuple[str, ...]:
        """How many units of the code vary, and how active they are."""
        return () if batch is None else activity_sentences(self.encode(batch.x), self.code_activation)

    # --- interface ------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """f(x): ``(B, *event.shape)`` → ``(B, code)``."""
        return self._code(self.nets.seen(x))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most probable value (Bernoulli, categorical), or the value at the mean, of every entry given the code."""
        self.check_codes(z)
        return self.nets.typical(z)


def _mean_activity(code: Tensor, weight: Tensor | None) -> Tensor:
    """The mean of each unit over the batch, of all processes: ``(B, F)`` → ``(F,)``."""
    code = at_least_float32(code)
    if weight is None:
        return mean_over_rows(code.mean(0))
    weight = weight.to(code.dtype)
    return mean_over_rows((weight[:, None] * code).mean(0)) / mean_over_rows(weight.mean())
