"""VQ-VAE: an autoencoder whose codes are the nearest vectors of a learned codebook, with a prior over their numbers.

The encoder gives vectors z_e(x), each of which is replaced by the nearest of K vectors e_k of the codebook; the decoder
sees these, z_q(x) (van den Oord, Vinyals, Kavukcuoglu 2017, https://arxiv.org/abs/1711.00937, eq. 3):

    L = −log p(x | z_q(x)) + ‖sg[z_e(x)] − e‖² + β ‖z_e(x) − sg[e]‖²,      z_q(x) = e_k,  k = argmin_j ‖z_e(x) − e_j‖

sg is the identity without a gradient. The gradient of the first term with respect to z_q is passed to z_e unchanged.
Term by term, the decoder learns from the first, the codebook from the second, the encoder from the first and third.
Instead of the second term, the codebook may be a moving average of the z_e of each code (appendix A.1).

With the code numbers c(x) of x and a prior p(c), which is uniform or another model,

    log p(x) = log Σ_c p(c) p(x | c) ≥ log p(c(x)) + log p(x | c(x)),

the bound that `log_prob` returns. The uniform prior takes log K nats for each code. A model as prior is trained in the
same run by its own loss on c(x), which moves nothing but the prior; or afterwards, as in the paper, to a given
``autoencoder``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch, Time
from unsup.core.config import AtLeast, Count, Weight, Whole, Widths, Within
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.model import Advice, ChooseEntry, Symptom, Terms
from unsup.core.part import Part
from unsup.nn.autoencoder import Autoencoder
from unsup.nn.bottlenecks import BottleneckNet
from unsup.nn.code_prior import CodePrior
from unsup.nn.discrete_codes import DiscreteCodes
from unsup.nn.observation import ObservationName
from unsup.nn.quantiser import MOST_ENCODED, RESTARTING, CodebookName, VectorQuantiser

_CODES_OF_A_VECTOR = 8  # where the data has no places


class VQVAE(DiscreteCodes):
    """Autoencoder with vector-quantised codes (van den Oord et al. 2017, https://arxiv.org/abs/1711.00937).

    Codes are numbers from 0 to K − 1: a map ``(codes, H / 2^stages, W / 2^stages)`` with ``net="conv"``, else
    ``(codes,)``. `log_prob` is the bound log p(c(x)) + log p(x | c(x)). The loss is the sum of ``reconstruction`` =
    −log p(x | z_q), ``codebook`` (with a gradient codebook), ``commitment`` times its weight, and ``prior``, which is
    −log p(c(x)) for most models. All are sums over the entries or codes of an example; the paper averages the second
    and third over codes. ``perplexity`` is that of the moving counts of codes, at most K, and ``restarted`` the number
    of dead codes that the latest step has restarted at vectors of its batch. Codes are restarted in the first half of a
    run only, so that the prior can learn their meaning.

    Args:
        event: any event; images for ``net="conv"``.
        codebook_size: K.
        code_dim: D, the length of the vectors of the codebook.
        codes: number of codes of each place of the map (None: 1), or of each example of a dense net (None: 8).
        codebook: learned as ``moving`` averages, or by the ``gradient`` of the second term.
        decay: γ of the moving averages and counts.
        commitment: β.
        net: ``conv``, or ``dense`` layers. None: ``conv`` for images with sides of at least 4 (2 with one stage).
        width: features of the maps of ``net="conv"``.
        block_width: features inside the residual blocks.
        blocks: number of residual blocks of the encoder, as of the decoder.
        stages: number of halvings of the sides, by 4×4 convolutions.
        hidden: widths of the hidden layers of dense nets.
        decoder: p(x | z_q), as for `VAE`.
        prior: p(c), a model of the codes, e.g. ``gated-pixelcnn`` for maps or ``made``. None is uniform.
        autoencoder: a trained `vq-vae`, e.g. the folder of its run, whose networks and codebook are used as they are;
            only the prior learns. All options but the prior are then its own.

    Raises:
        InputError: a decoder, net or prior that does not fit, or an autoencoder with other options.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = VQVAE(Event((1, 8, 8), Support("binary")), codebook_size=16, width=8, block_width=4)
    >>> x = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    >>> model.codes_of(x).shape, model.log_prob(x).shape
    (torch.Size([3, 1, 2, 2]), torch.Size([3]))
    """

    nets: Autoencoder
    code_event: Event
    quantiser: VectorQuantiser

    presets = {
        "tiny": {"codebook_size": 8, "code_dim": 4, "width": 8, "block_width": 4, "blocks": 1, "hidden": (16,)},
        "paper": {
            "codebook_size": 512,
            "code_dim": 64,
            "codes": 10,
            "width": 256,
            "block_width": 256,
            "blocks": 2,
            "net": "conv",
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}
    takes_missing = True
    marginalises = True

    def __init__(
        self,
        event: Event,
        *,
        codebook_size: Annotated[int, AtLeast(2)] = 256,
        code_dim: Count = 32,
        codes: Count | None = None,
        codebook: CodebookName = "moving",
        decay: Annotated[float, Within(0, 1, below=True)] = 0.99,
        commitment: Weight = 0.25,
        net: Literal["conv", "dense"] | None = None,
        width: Count = 64,
        block_width: Count = 32,
        blocks: Whole = 2,
        stages: Count = 2,
        hidden: Widths = (256, 256),
        decoder: ObservationName = "auto",
        prior: Part | None = None,
        autoencoder: Part | None = None,
    ) -> None:
        self.commitment = commitment
        if autoencoder is not None:
            found = self.adopted(autoencoder)
            self.nets, self.code_event, self.quantiser = found.nets, found.code_event, found.quantiser
            self.prior = CodePrior(prior, self.code_event, owner="VQ-VAE")
            return
        is_complete_image = event.is_image and not event.missing
        is_conv = net == "conv" or (net is None and is_complete_image and min(event.shape[1:]) >= 2 ** min(stages, 2))
        if is_conv and is_complete_image and min(event.shape[1:]) < 2**stages:
            raise InputError(
                f"VQ-VAE: stages={stages} halve the sides {stages} times: expected sides of at least {2**stages}; this "
                f"data is {event}; use fewer stages, or net='dense'"
            )
        each = codes or (1 if is_conv else _CODES_OF_A_VECTOR)
        maps = BottleneckNet(width, block_width, blocks, stages)
        self.nets = Autoencoder(
            event,
            code_size=each * code_dim,
            encoded_size=each * code_dim,
            hidden=hidden,
            net=maps if is_conv else "dense",
            decoder=decoder,
            owner="VQ-VAE",
        )
        shape = (each, *maps.sides((event.shape[1], event.shape[2]))) if is_conv else (each,)
        self.code_event = Event(shape, Support("nominal", codebook_size))
        self.quantiser = VectorQuantiser(codebook_size, code_dim, learn=codebook, decay=decay)
        self.prior = CodePrior(prior, self.code_event, owner="VQ-VAE")

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        small = {"codebook_size": 64, "code_dim": 16} if event.dims <= 64 else {}
        part = {"name": "gated-pixelcnn"} if event.is_image and min(event.shape[1:]) >= 8 else {"name": "made"}
        return Advice({**small, "prior": Part.from_json(part)}, {"ema": 0.99}, turn=None)

    @property
    def latent_event(self) -> Event:
        return self.code_event

    @property
    def of_autoencoder(self) -> tuple[nn.Module, ...]:
        return (self.nets, self.quantiser)

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start the output bias at the marginals of the data, the codebook at encoded examples, and the prior."""
        few = batch.x[:MOST_ENCODED]
        if not self.is_adopted:
            self.nets.prepare(batch.x, None, generator=generator)
            self.quantiser.prepare(self._encoded(few).flatten(0, 1), generator=generator)
        self.prior.prepare(self.codes_of(few), generator=generator)

    # --- the loss -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and its terms, of each example, in nats or squared distances; ``perplexity`` and ``restarted``."""
        if self.is_adopted and self.training:
            prior = self.prior.loss(self.codes_of(batch.x), batch, generator=generator)
            return {"loss": prior, "prior": prior.detach()}
        found = self.quantiser(self._encoded(batch.x), weight=batch.weight, generator=generator)
        target = self.nets.target(batch.x, generator)
        reconstruction = -self.nets.log_likelihood(target, self._as_input(found.vectors)[None]).squeeze(0)
        prior = self.prior.loss(self._as_map(found.codes), batch, generator=generator)
        loss = reconstruction + self.commitment * found.commitment + prior
        terms = {"reconstruction": reconstruction, "commitment": found.commitment, "prior": prior}
        if self.quantiser.learn == "gradient":
            loss, terms["codebook"] = loss + found.codebook, found.codebook
        state = {"perplexity": self.quantiser.perplexity, "restarted": self.quantiser.restarted.clone()}
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()} | state

    def after_step(self, time: Time) -> None:
        """Move the codebook; in the first half of a run, restart its dead codes."""
        self.quantiser.update(restart=time.share < RESTARTING)

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        return None if self.is_adopted else self.quantiser.diagnose(terms)

    # --- codes ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def codes_of(self, x: Tensor) -> Tensor:
        return self._as_map(self.quantiser.nearest(self._encoded(x)))

    @property
    def _places(self) -> int:
        """The number of places of the map."""
        return self.code_event.dims // self.code_event.shape[0]

    def _encoded(self, x: Tensor) -> Tensor:
        """z_e(x): ``(B, N, D)`` for the N codes in the order of the flattened map."""
        encoded = self.nets.encode(x)
        each, places = self.code_event.shape[0], self._places
        return encoded.view(len(x), each, self.quantiser.dim, places).transpose(2, 3).flatten(1, 2)

    def _as_input(self, vectors: Tensor) -> Tensor:
        """Vectors ``(B, N, D)`` as the input of the decoder."""
        each = self.code_event.shape[0]
        return vectors.view(len(vectors), each, self._places, self.quantiser.dim).transpose(2, 3).flatten(1)

    def decodable(self, codes: Tensor) -> Tensor:
        return self._as_input(self.quantiser.lookup(codes.flatten(1)))

    def _as_map(self, codes: Tensor) -> Tensor:
        return codes.view(-1, *self.code_event.shape).to(self.code_event.dtype)

    # --- the prior ------------------------------------------------------------------------------------------------

    def log_prior(self, codes: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        return self.prior.log_prob(codes, samples=samples, generator=generator)

    def draw_codes(self, n: int, *, generator: Generator | None) -> Tensor:
        return self.prior.sample(n, generator=generator)

    def reason_against_coding_codes(self) -> str | None:
        return self.prior.reason_against_coding()

    def visit_codes(self, n: int, choose: ChooseEntry) -> None:
        self.prior.visit(n, choose)
