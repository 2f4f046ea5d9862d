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
same run by its own loss on c(x), which moves nothing but the prior; the paper fits it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch, Time
from unsup.core.config import AtLeast, Count, Weight, Whole, Widths, Within
from unsup.core.event import Event, Support
from unsup.core.likelihood import Kind
from unsup.core.model import (
    Advice,
    CanDecode,
    CanSample,
    ChooseEntry,
    CodesSplitEntries,
    Conditional,
    HasDensity,
    HasLatents,
    Model,
    Symptom,
    Terms,
)
from unsup.core.part import Part
from unsup.nn.autoencoder import Autoencoder
from unsup.nn.bottlenecks import BottleneckNet
from unsup.nn.code_prior import CodePrior
from unsup.nn.observation import ObservationName
from unsup.nn.quantiser import RESTARTING, CodebookName, VectorQuantiser
from unsup.prob.distributions import at_least_float32, log_mean_exp

_CODES_OF_A_VECTOR = 8  # where the data has no places


class VQVAE(Model, HasDensity, CanSample, CanDecode, HasLatents, CodesSplitEntries):
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
        net: ``conv``, or ``dense`` layers. None: ``conv`` for images whose sides are large enough.
        width: features of the maps of ``net="conv"``.
        block_width: features inside the residual blocks.
        blocks: number of residual blocks of the encoder, as of the decoder.
        stages: number of halvings of the sides, by 4×4 convolutions.
        hidden: widths of the hidden layers of dense nets.
        decoder: p(x | z_q), as for `VAE`.
        prior: p(c), a model of the codes, e.g. ``gated-pixelcnn`` for maps or ``made``. None is uniform.

    Raises:
        InputError: a decoder, net or prior that does not fit.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = VQVAE(Event((1, 8, 8), Support("binary")), codebook_size=16, width=8, block_width=4)
    >>> x = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    >>> model.codes_of(x).shape, model.log_prob(x).shape
    (torch.Size([3, 1, 2, 2]), torch.Size([3]))
    """

    presets = {
        "tiny": {"codebook_size": 8, "code_dim": 4, "width": 8, "block_width": 4, "blocks": 1, "hidden": (16,)},
        "paper": {"codebook_size": 512, "code_dim": 64, "width": 256, "block_width": 256, "blocks": 2, "net": "conv"},
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
    ) -> None:
        self.commitment = commitment
        large = event.is_image and not event.missing and min(event.shape[1:]) >= 2**stages
        is_conv = net == "conv" or (net is None and large)
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
    def likelihood_kind(self) -> Kind:
        return "bound"

    @property
    def mass_in_support(self) -> bool:
        return not self.nets.observation.is_noisy

    @property
    def code_size(self) -> int:
        return self.code_event.dims

    @property
    def latent_event(self) -> Event:
        return self.code_event

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start the output bias at the marginals of the data, the codebook at encoded examples, and the prior."""
        self.nets.prepare(batch.x, None, generator=generator)
        self.quantiser.prepare(self._encoded(batch.x).flatten(0, 1), generator=generator)
        self.prior.prepare(self.codes_of(batch.x), generator=generator)

    # --- the loss and the bound -----------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and its terms, of each example, in nats or squared distances; ``perplexity`` and ``restarted``."""
        found = self.quantiser(self._encoded(batch.x), weight=batch.weight, generator=generator)
        target = self.nets.target(batch.x, generator)
        reconstruction = -self.nets.log_likelihood(target, self._decodable(found.vectors)[None]).squeeze(0)
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
        return self.quantiser.diagnose(terms)

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        codes = self.codes_of(batch.x)
        draws = samples if self.nets.observation.is_noisy else 1  # of the noise of dequantised entries
        targets = torch.stack([self.nets.target(batch.x, generator) for _ in range(draws)])
        vectors = self._vectors(codes).expand(draws, -1, -1)
        log_likelihood = log_mean_exp(self.nets.log_likelihood(targets, vectors), 0)
        return log_likelihood + self.prior.log_prob(codes, samples=samples, generator=generator)

    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The codes of each example, ``(B, *latent_event.shape)``, whose log q is 0."""
        codes = self.codes_of(batch.x)
        return codes, self.quantiser.codebook.new_zeros(len(codes))

    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        target = self.nets.target(batch.x, generator)
        log_likelihood = self.nets.log_likelihood(target, self._vectors(z)[None]).squeeze(0)
        return log_likelihood + self.prior.log_prob(z, generator=generator)

    # --- codes ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def codes_of(self, x: Tensor) -> Tensor:
        """The codes c(x) of raw data: ``(B, *event.shape)`` → ``(B, *latent_event.shape)``."""
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

    def _decodable(self, vectors: Tensor) -> Tensor:
        """Vectors ``(B, N, D)`` as the input of the decoder."""
        each = self.code_event.shape[0]
        return vectors.view(len(vectors), each, self._places, self.quantiser.dim).transpose(2, 3).flatten(1)

    def _vectors(self, codes: Tensor) -> Tensor:
        """z_q of codes ``(B, …)``, as the input of the decoder."""
        return self._decodable(self.quantiser.lookup(codes.flatten(1)))

    def _as_map(self, codes: Tensor) -> Tensor:
        return codes.view(-1, *self.code_event.shape).to(self.code_event.dtype)

    # --- interface ------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> Tensor:
        """The codes of raw data, flattened, as floating numbers: ``(B, *event.shape)`` → ``(B, N)``."""
        return self.codes_of(x).flatten(1).to(at_least_float32(self.quantiser.codebook).dtype)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most typical example of codes ``(B, N)``, which are rounded to numbers from 0 to K − 1."""
        self.check_codes(z)
        return self.nets.typical(self._vectors(z.round().clamp(0, self.quantiser.size - 1)))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Draws from p(x | c) with c ~ p(c)."""
        codes = self.prior.sample(n, generator=generator)
        return self.nets.draw(self._vectors(codes), generator=generator)

    # --- entropy coding: the codes under the prior, then x given them ---------------------------------------------

    def reason_against_coding(self) -> str | None:
        if self.nets.observation.is_noisy or not self.event.is_discrete or self.event.missing:
            return "has a decoder of densities, or missing entries, which have no probabilities"
        return self.prior.reason_against_coding()

    @property
    def split_event(self) -> Event:
        """The codes of an example, followed by its entries."""
        return Event((self.code_size + self.event.dims,), self.code_event.columns + self.event.columns)

    def split_entries(self, x: Tensor) -> Tensor:
        codes = self.codes_of(x.to(self.device)).to(x.device)
        return torch.cat([codes.flatten(1).long(), x.flatten(1).long()], 1)

    def join_entries(self, y: Tensor) -> Tensor:
        return y[:, self.code_size :].reshape(-1, *self.event.shape).to(self.event.dtype)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        chosen = torch.zeros(n, self.code_size, dtype=torch.int64)

        def choose_code(entry: int, conditional: Conditional) -> Tensor:
            found = choose(entry, conditional)
            chosen[:, entry] = found.long()
            return found

        self.prior.visit(n, choose_code)
        outputs = self.nets.decode(self._vectors(chosen.to(self.device)))
        for entry in range(self.event.dims):
            masses = self.nets.log_masses(outputs, torch.tensor([entry], device=outputs.device)).squeeze(1)
            choose(self.code_size + entry, masses)
