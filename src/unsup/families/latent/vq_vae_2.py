"""VQ-VAE-2: two maps of codes, a small one for the global structure and a larger one for details given it.

The bottom encoder gives features h of an image; the top encoder halves their sides again, and its vectors are
quantised to e_top. A decoder D of these and h give the vectors of the bottom map, which has a codebook of its own, and
the image decoder sees both (Razavi, van den Oord, Vinyals 2019, https://arxiv.org/abs/1906.00446, algorithm 1):

    e_top = Quantise(E_top(h)),    e_bottom = Quantise(E_bottom(h, D(e_top))),    p(x | e_bottom, e_top)

The loss is that of VQ-VAE with the terms of both maps. With the code numbers of both,

    log p(x) ≥ log p(c_top) + log p(c_bottom | c_top) + log p(x | c_bottom, c_top).

Both priors are uniform or models, trained in the same run by their own losses, which move nothing else. The bottom
prior is conditioned on the numbers of the top map, each repeated at the places of the bottom map that it lies over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import pad

from unsup.core.batch import Batch, Time
from unsup.core.config import AtLeast, Count, Weight, Whole, Within
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.model import Advice, ChooseEntry, Conditional, Symptom, Terms
from unsup.core.part import Part
from unsup.nn.autoencoder import Autoencoder
from unsup.nn.bottlenecks import BottleneckNet
from unsup.nn.code_prior import CodePrior
from unsup.nn.discrete_codes import DiscreteCodes
from unsup.nn.observation import ObservationName
from unsup.nn.quantiser import MOST_ENCODED, RESTARTING, CodebookName, Quantised, VectorQuantiser


class VQVAE2(DiscreteCodes):
    """Autoencoder with two maps of codes (Razavi, van den Oord, Vinyals 2019, https://arxiv.org/abs/1906.00446).

    The bottom map has the sides H / 2^stages and W / 2^stages, the top map half of these. Codes are the numbers of the
    top map, followed by those of the bottom map. The terms of the loss are those of `VQVAE`, summed over both maps;
    ``prior`` is that of the top map and ``bottom_prior`` that of the bottom map given it; ``perplexity`` and
    ``restarted`` are those of the top codebook, with ``_bottom`` of the other.

    Args:
        event: images.
        codebook_size: K, of each map.
        code_dim: D, the length of the vectors of both codebooks.
        codebook: learned as ``moving`` averages, or by ``gradient``.
        decay: γ of the moving averages and counts.
        commitment: β.
        width: features of the maps of the networks.
        block_width: features inside the residual blocks.
        blocks: number of residual blocks of each of the four networks.
        stages: number of halvings of the sides to the bottom map.
        decoder: p(x | codes), as for `VAE`.
        prior: p(c_top), a model of the codes, e.g. ``pixelsnail``. None is uniform.
        bottom_prior: p(c_bottom | c_top), a model with a condition. ``subscale`` sees the top codes around each place;
            other models see all of them as one vector for all places. None is uniform.

    Raises:
        InputError: images smaller than 2^(stages + 1), a decoder that does not fit, or a prior that does not fit or
            takes no condition.

    >>> from unsup import Event, Support
    >>> model = VQVAE2(Event((1, 8, 8), Support("binary")), codebook_size=16, width=8, block_width=4)
    >>> model.top_event.shape, model.bottom_event.shape
    ((1, 2, 2), (1, 4, 4))
    """

    presets = {
        "tiny": {"codebook_size": 6, "code_dim": 4, "width": 8, "block_width": 8, "blocks": 1},
        "paper": {
            "codebook_size": 512,
            "code_dim": 64,
            "width": 128,
            "block_width": 64,
            "stages": 2,
            "prior": Part("pixelsnail"),
            "bottom_prior": Part("subscale"),
        },
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64}

    def __init__(
        self,
        event: Event,
        *,
        codebook_size: Annotated[int, AtLeast(2)] = 256,
        code_dim: Count = 32,
        codebook: CodebookName = "moving",
        decay: Annotated[float, Within(0, 1, below=True)] = 0.99,
        commitment: Weight = 0.25,
        width: Count = 64,
        block_width: Count = 32,
        blocks: Whole = 2,
        stages: Count = 1,
        decoder: ObservationName = "auto",
        prior: Part | None = None,
        bottom_prior: Part | None = None,
    ) -> None:
        if min(event.shape[1:]) < 2 ** (stages + 1):
            raise InputError(
                f"VQ-VAE-2: stages={stages} halve the sides {stages + 1} times to the top map: expected sides of at "
                f"least {2 ** (stages + 1)}; this data is {event}"
            )
        self.commitment, self.width = commitment, width
        outer = BottleneckNet(width, block_width, blocks, stages)
        inner = BottleneckNet(width, block_width, blocks, stages=1)
        # Both codes of a place go into the image decoder; its encoder gives the features h.
        self.nets = Autoencoder(
            event, code_size=2 * code_dim, encoded_size=width, net=outer, decoder=decoder, owner="VQ-VAE-2"
        )
        height, breadth = outer.sides((event.shape[1], event.shape[2]))
        self.bottom_sides, support = (height, breadth), Support("nominal", codebook_size)
        self.bottom_event = Event((1, *self.bottom_sides), support)
        self.top_event = Event((1, *inner.sides(self.bottom_sides)), support)
        self.top_encoder = inner.encoder(width, code_dim)
        self.top_decoder = inner.decoder(code_dim, width, self.bottom_sides)
        self.bottom_encoder = nn.Conv2d(2 * width, code_dim, 1)
        odd = (height % 2, breadth % 2)
        self.enlarge = nn.ConvTranspose2d(code_dim, code_dim, 4, stride=2, padding=1, output_padding=odd)
        self.top, self.bottom = (
            VectorQuantiser(codebook_size, code_dim, learn=codebook, decay=decay) for _ in range(2)
        )
        self.prior = CodePrior(prior, self.top_event, owner="VQ-VAE-2")
        self.bottom_prior = CodePrior(bottom_prior, self.bottom_event, given=self.bottom_event, owner="VQ-VAE-2")

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.is_image else "takes images only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice({"prior": Part("gated-pixelcnn"), "bottom_prior": Part("subscale")}, {"ema": 0.99}, turn=None)

    @property
    def latent_event(self) -> Event:
        dims = self.top_event.dims + self.bottom_event.dims
        return Event((dims,), self.top_event.columns[0])

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start the output bias at the marginals of the data, both codebooks at encoded examples, and the priors."""
        self.nets.prepare(batch.x, None, generator=generator)
        few = batch.x[:MOST_ENCODED]
        h = self._features(few)
        z_top = self._top_vectors(h)
        self.top.prepare(z_top.flatten(0, 1), generator=generator)
        e_top = self.top.lookup(self.top.nearest(z_top))
        self.bottom.prepare(self._bottom_vectors(h, e_top).flatten(0, 1), generator=generator)
        top, bottom = self.split_codes(self.codes_of(few))
        self.prior.prepare(top, generator=generator)
        self.bottom_prior.prepare(bottom, self.condition(top), generator=generator)

    # --- the networks: vectors are (B, N, D), maps (B, features, h, w) --------------------------------------------

    def _features(self, x: Tensor) -> Tensor:
        """h of raw data: ``(B, width, h, w)``."""
        return self.nets.encode(x).view(len(x), self.width, *self.bottom_sides)

    def _top_vectors(self, h: Tensor) -> Tensor:
        maps: Tensor = self.top_encoder(h)
        return maps.view(len(h), self.top.dim, self.top_event.dims).transpose(1, 2)

    def _bottom_vectors(self, h: Tensor, e_top: Tensor) -> Tensor:
        enlarged = self.top_decoder(e_top.transpose(1, 2).flatten(1).to(h.dtype))
        maps: Tensor = self.bottom_encoder(torch.cat([h, enlarged], 1))
        return maps.flatten(2).transpose(1, 2)

    def _as_input(self, e_top: Tensor, e_bottom: Tensor) -> Tensor:
        """The vectors of both maps as the input of the image decoder."""
        shape = (len(e_top), self.top.dim, *self.top_event.shape[1:])
        top: Tensor = self.enlarge(e_top.transpose(1, 2).reshape(shape))
        bottom = e_bottom.transpose(1, 2).reshape(len(e_bottom), self.bottom.dim, *self.bottom_sides)
        return torch.cat([bottom, top.to(bottom.dtype)], 1).flatten(1)

    # --- the loss -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and its terms, of each example, in nats or squared distances, and the state of both codebooks."""
        h = self._features(batch.x)
        top: Quantised = self.top(self._top_vectors(h), weight=batch.weight, generator=generator)
        z_bottom = self._bottom_vectors(h, top.vectors)
        bottom: Quantised = self.bottom(z_bottom, weight=batch.weight, generator=generator)
        target, seen = self.nets.target(batch.x, generator), self._as_input(top.vectors, bottom.vectors)
        terms = {
            "reconstruction": -self.nets.log_likelihood(target, seen[None]).squeeze(0),
            "commitment": top.commitment + bottom.commitment,
        }
        if self.top.learn == "gradient":
            terms["codebook"] = top.codebook + bottom.codebook
        c_top, c_bottom = self._as_map(top.codes, self.top_event), self._as_map(bottom.codes, self.bottom_event)
        terms["prior"] = self.prior.loss(c_top, batch, generator=generator)
        terms["bottom_prior"] = self.bottom_prior.loss(c_bottom, batch, self.condition(c_top), generator=generator)
        weights = {"commitment": self.commitment}
        loss = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum(0)
        state = {"perplexity": self.top.perplexity, "restarted": self.top.restarted.clone()}
        state |= {"perplexity_bottom": self.bottom.perplexity, "restarted_bottom": self.bottom.restarted.clone()}
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()} | state

    def after_step(self, time: Time) -> None:
        """Move the codebooks; in the first half of a run, restart their dead codes."""
        for quantiser in (self.top, self.bottom):
            quantiser.update(restart=time.share < RESTARTING)

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        return self.top.diagnose(terms) or self.bottom.diagnose(terms, "_bottom")

    # --- codes ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def codes_of(self, x: Tensor) -> Tensor:
        h = self._features(x)
        top = self.top.nearest(self._top_vectors(h))
        bottom = self.bottom.nearest(self._bottom_vectors(h, self.top.lookup(top)))
        return torch.cat([top, bottom], 1).to(self.latent_event.dtype)

    def split_codes(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The top map ``(B, *top_event.shape)`` and the bottom map of codes ``(B, N)``."""
        top, bottom = codes.split([self.top_event.dims, self.bottom_event.dims], 1)
        return self._as_map(top, self.top_event), self._as_map(bottom, self.bottom_event)

    def condition(self, top: Tensor) -> Tensor:
        """The top map at the places of the bottom map, ``(B, *bottom_event.shape)``; the last row or column is
        repeated where halving has lost one.
        """
        found = top.repeat_interleave(2, 2).repeat_interleave(2, 3)
        lost = [own - there for own, there in zip(self.bottom_sides, found.shape[2:], strict=True)]
        return pad(found.float(), (0, lost[1], 0, lost[0]), mode="replicate").to(top.dtype) if any(lost) else found

    def decodable(self, codes: Tensor) -> Tensor:
        top, bottom = self.split_codes(codes)
        return self._as_input(self.top.lookup(top.flatten(1)), self.bottom.lookup(bottom.flatten(1)))

    def _as_map(self, codes: Tensor, event: Event) -> Tensor:
        return codes.reshape(-1, *event.shape).to(event.dtype)

    # --- the priors -----------------------------------------------------------------------------------------------

    def log_prior(self, codes: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        top, bottom = self.split_codes(codes)
        of_top = self.prior.log_prob(top, samples=samples, generator=generator)
        return of_top + self.bottom_prior.log_prob(bottom, self.condition(top), samples=samples, generator=generator)

    def draw_codes(self, n: int, *, generator: Generator | None) -> Tensor:
        top = self.prior.sample(n, generator=generator)
        bottom = self.bottom_prior.sample(n, self.condition(top), generator=generator)
        return torch.cat([top.flatten(1), bottom.flatten(1)], 1)

    def reason_against_coding_codes(self) -> str | None:
        return self.prior.reason_against_coding() or self.bottom_prior.reason_against_coding()

    def visit_codes(self, n: int, choose: ChooseEntry) -> None:
        chosen = torch.zeros(n, self.top_event.dims, dtype=torch.int64)

        def choose_top(entry: int, conditional: Conditional) -> Tensor:
            found = choose(entry, conditional)
            chosen[:, entry] = found.long()
            return found

        self.prior.visit(n, choose_top)
        given = self.condition(self._as_map(chosen, self.top_event)).to(self.device)
        count = self.top_event.dims
        self.bottom_prior.visit(n, lambda entry, conditional: choose(count + entry, conditional), given)
