"""VQ-VAE-2: two or three maps of codes, a small one for the global structure and larger ones for details given it.

With two maps, the bottom encoder gives features h of an image; the top encoder halves their sides again, and its
vectors are quantised to e_top. A decoder D of these and h give the vectors of the bottom map, which has a codebook of
its own, and the image decoder sees both (Razavi, van den Oord, Vinyals 2019, https://arxiv.org/abs/1906.00446,
algorithm 1):

    e_top = Quantise(E_top(h)),    e_bottom = Quantise(E_bottom(h, D(e_top))),    p(x | e_bottom, e_top)

With a third map, a middle encoder gives features h_middle of h; the top map is that of h_middle, and the middle map
stands to h_middle and e_top, and the bottom map to h and e_middle, as the bottom map above to h and e_top. The image
decoder sees all maps. (The paper uses three maps for images of 1024×1024; how its middle networks are built is our
reading.)

The loss is that of VQ-VAE with the terms of all maps. With the code numbers of all,

    log p(x) ≥ log p(c_top) + log p(c_bottom | c_top) + log p(x | c_bottom, c_top),

and with three maps log p(c_middle | c_top) + log p(c_bottom | c_middle, c_top) in place of the second term. The priors
are uniform or models, trained in the same run by their own losses, which move nothing else. The prior of a map is
conditioned on the numbers of all smaller maps, each repeated at the places that it lies over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, cast

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
from unsup.nn.nets import Sides
from unsup.nn.observation import ObservationName
from unsup.nn.quantiser import MOST_ENCODED, RESTARTING, CodebookName, Quantised, VectorQuantiser

NAMES = {2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
"""Names of the maps, in the order of the codes."""
_SUFFIXES = {"top": "", "middle": "_middle", "bottom": "_bottom"}
_PREFIXES = {"top": "", "middle": "middle_", "bottom": "bottom_"}


class VQVAE2(DiscreteCodes):
    """Autoencoder with two or three maps of codes (Razavi et al. 2019, https://arxiv.org/abs/1906.00446).

    The bottom map has the sides H / 2^stages and W / 2^stages, each map above it half of these. Codes are the numbers
    of the top map, followed by those of the maps below. The terms of the loss are those of `VQVAE`, summed over the
    maps; ``prior`` is that of the top map, ``middle_prior`` and ``bottom_prior`` those of the other maps given the
    smaller ones; ``perplexity`` and ``restarted`` are those of the top codebook, with ``_middle`` and ``_bottom`` of
    the others.

    Args:
        event: images.
        levels: number of maps.
        codebook_size: K, of each map.
        code_dim: D, the length of the vectors of the codebooks.
        codebook: learned as ``moving`` averages, or by ``gradient``.
        decay: γ of the moving averages and counts.
        commitment: β.
        width: features of the maps of the networks.
        block_width: features inside the residual blocks.
        blocks: number of residual blocks of each network.
        stages: number of halvings of the sides to the bottom map.
        decoder: p(x | codes), as for `VAE`.
        prior: p(c_top), a model of the codes, e.g. ``pixelsnail``. None is uniform.
        bottom_prior: the prior of the other maps, each of its own, given the smaller maps: a model with a condition.
            ``subscale`` sees the codes above each place; other models see all of them as one vector for all places.
            None is uniform.
        autoencoder: a trained `vq-vae-2`, e.g. the folder of its run, whose networks and codebooks are used as they
            are; only the priors learn. All options but those of the priors are then its own.

    Raises:
        InputError: images smaller than 2^(stages + levels − 1), a decoder that does not fit, a prior that does not fit
            or takes no condition, or an autoencoder with other options.

    >>> from unsup import Event, Support
    >>> model = VQVAE2(Event((1, 8, 8), Support("binary")), codebook_size=16, width=8, block_width=4)
    >>> [event.shape for event in model.code_events]
    [(1, 2, 2), (1, 4, 4)]
    """

    levels: int
    sides: list[Sides]
    code_events: list[Event]
    encoders: nn.ModuleList
    decoders: nn.ModuleList
    merges: nn.ModuleList
    enlarge: nn.ModuleList
    quantisers: nn.ModuleList

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
        levels: Annotated[int, Within(2, 3)] = 2,
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
        autoencoder: Part | None = None,
    ) -> None:
        if autoencoder is not None:
            found = self.adopted(autoencoder)
            levels = found.levels
        elif min(event.shape[1:]) < 2 ** (stages + levels - 1):
            raise InputError(
                f"VQ-VAE-2: stages={stages} and levels={levels} halve the sides {stages + levels - 1} times to the top "
                f"map: expected sides of at least {2 ** (stages + levels - 1)}; this data is {event}"
            )
        self.levels, self.names, self.commitment = levels, NAMES[levels], commitment
        if autoencoder is None:
            self._build(event, BottleneckNet(width, block_width, blocks, stages), decoder, codebook_size, code_dim)
            self.quantisers = nn.ModuleList(
                VectorQuantiser(codebook_size, code_dim, learn=codebook, decay=decay) for _ in range(levels)
            )
        else:
            self.sides, self.code_events, self.nets = found.sides, found.code_events, found.nets
            self.encoders, self.decoders, self.merges = found.encoders, found.decoders, found.merges
            self.enlarge, self.quantisers = found.enlarge, found.quantisers
        self.priors = nn.ModuleList(
            CodePrior(bottom_prior, own, given=self.condition_event(place), owner=_OWNER)
            if place
            else CodePrior(prior, own, owner=_OWNER)
            for place, own in enumerate(self.code_events)
        )

    def _build(
        self, event: Event, outer: BottleneckNet, decoder: ObservationName, codebook_size: int, code_dim: int
    ) -> None:
        """The networks of all maps, in lists from the top; the last encoder gives features of the bottom map."""
        width, inner = outer.width, BottleneckNet(outer.width, outer.block_width, outer.blocks, stages=1)
        # The codes of a place of all maps go into the image decoder; its encoder gives the features h.
        self.nets = Autoencoder(
            event, code_size=self.levels * code_dim, encoded_size=width, net=outer, decoder=decoder, owner=_OWNER
        )
        self.sides = [outer.sides((event.shape[1], event.shape[2]))]
        for _ in range(1, self.levels):
            self.sides.insert(0, inner.sides(self.sides[0]))
        self.code_events = [Event((1, *own), Support("nominal", codebook_size)) for own in self.sides]
        made = [code_dim] + [width] * (self.levels - 2)
        self.encoders = nn.ModuleList(inner.encoder(width, outputs) for outputs in made)
        self.decoders = nn.ModuleList(inner.decoder(code_dim, width, own) for own in self.sides[1:])
        self.merges = nn.ModuleList(nn.Conv2d(2 * width, code_dim, 1) for _ in self.sides[1:])
        self.enlarge = nn.ModuleList(
            nn.Sequential(*(_doubled(code_dim, own) for own in self.sides[place + 1 :]))
            for place in range(self.levels - 1)
        )

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        return None if event.is_image else "takes images only"

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        return Advice({"prior": Part("gated-pixelcnn"), "bottom_prior": Part("subscale")}, {"ema": 0.99}, turn=None)

    @property
    def latent_event(self) -> Event:
        return Event((sum(own.dims for own in self.code_events),), self.code_events[0].columns[0])

    @property
    def of_autoencoder(self) -> tuple[nn.Module, ...]:
        return (self.nets, self.encoders, self.decoders, self.merges, self.enlarge, self.quantisers)

    @property
    def _quantisers(self) -> list[VectorQuantiser]:
        return [cast(VectorQuantiser, own) for own in self.quantisers]

    @property
    def _priors(self) -> list[CodePrior]:
        return [cast(CodePrior, own) for own in self.priors]

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Start the output bias at the marginals of the data, the codebooks at encoded examples, and the priors."""
        few = batch.x[:MOST_ENCODED]
        if not self.is_adopted:
            self.nets.prepare(batch.x, None, generator=generator)
            self._quantised(few, lambda place, z: self._started(place, z, generator))
        maps = self.split_codes(self.codes_of(few))
        for place, (prior, codes) in enumerate(zip(self._priors, maps, strict=True)):
            prior.prepare(codes, self.condition(maps[:place]), generator=generator)

    def _started(self, place: int, z: Tensor, generator: Generator) -> Tensor:
        """The vectors of a map, whose codebook starts at them."""
        quantiser = self._quantisers[place]
        quantiser.prepare(z.flatten(0, 1), generator=generator)
        return quantiser.lookup(quantiser.nearest(z))

    # --- the networks: vectors are (B, N, D), maps (B, features, h, w) --------------------------------------------

    def _quantised(self, x: Tensor, quantise: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        """The quantised vectors of all maps from the top, by a function of the place of a map and its vectors."""
        features = [self.nets.encode(x).unflatten(1, (-1, *self.sides[-1]))]
        for place in reversed(range(self.levels - 1)):
            features.insert(0, self.encoders[place](features[0]).unflatten(1, (-1, *self.sides[place])))
        vectors: list[Tensor] = []
        for place, h in enumerate(features):
            if place:
                above = self.decoders[place - 1](vectors[-1].transpose(1, 2).flatten(1).to(h.dtype))
                h = self.merges[place - 1](torch.cat([h, above], 1))
            vectors.append(quantise(place, h.flatten(2).transpose(1, 2)))
        return vectors

    def _as_input(self, vectors: list[Tensor]) -> Tensor:
        """The vectors of all maps as the input of the image decoder, those of the bottom map first."""
        maps: list[Tensor] = []
        for place, own in enumerate(vectors):
            found = own.transpose(1, 2).unflatten(2, self.sides[place])
            maps.insert(0, found if place == self.levels - 1 else self.enlarge[place](found))
        return torch.cat([own.to(maps[0].dtype) for own in maps], 1).flatten(1)

    # --- the loss -------------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and its terms, of each example, in nats or squared distances, and the state of the codebooks."""
        if self.is_adopted and self.training:
            return self._sum_of(self._prior_terms(self.split_codes(self.codes_of(batch.x)), batch, generator))
        found: list[Quantised] = []

        def quantise(place: int, z: Tensor) -> Tensor:
            found.append(self._quantisers[place](z, weight=batch.weight, generator=generator))
            return found[-1].vectors

        vectors = self._quantised(batch.x, quantise)
        target, seen = self.nets.target(batch.x, generator), self._as_input(vectors)
        terms = {
            "reconstruction": -self.nets.log_likelihood(target, seen[None]).squeeze(0),
            "commitment": torch.stack([own.commitment for own in found]).sum(0),
        }
        if self._quantisers[0].learn == "gradient":
            terms["codebook"] = torch.stack([own.codebook for own in found]).sum(0)
        maps = [self._as_map(own.codes, event) for own, event in zip(found, self.code_events, strict=True)]
        terms |= self._prior_terms(maps, batch, generator)
        state = {
            name + _SUFFIXES[level]: value
            for level, quantiser in zip(self.names, self._quantisers, strict=True)
            for name, value in (("perplexity", quantiser.perplexity), ("restarted", quantiser.restarted.clone()))
        }
        return self._sum_of(terms) | state

    def _prior_terms(self, maps: list[Tensor], batch: Batch, generator: Generator | None) -> Terms:
        return {
            f"{_PREFIXES[name]}prior": prior.loss(maps[place], batch, self.condition(maps[:place]), generator=generator)
            for place, (name, prior) in enumerate(zip(self.names, self._priors, strict=True))
        }

    def _sum_of(self, terms: Terms) -> Terms:
        weights = {"commitment": self.commitment}
        loss = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum(0)
        return {"loss": loss} | {name: term.detach() for name, term in terms.items()}

    def after_step(self, time: Time) -> None:
        """Move the codebooks; in the first half of a run, restart their dead codes."""
        for quantiser in self._quantisers:
            quantiser.update(restart=time.share < RESTARTING)

    def diagnose(self, terms: Mapping[str, float]) -> Symptom | None:
        for name, quantiser in () if self.is_adopted else zip(self.names, self._quantisers, strict=True):
            found = quantiser.diagnose(terms, _SUFFIXES[name])
            if found is not None:
                return Symptom(found.name, f"{name} map: {found.advice}")
        return None

    # --- codes ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def codes_of(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []

        def quantise(place: int, z: Tensor) -> Tensor:
            found.append(self._quantisers[place].nearest(z))
            return self._quantisers[place].lookup(found[-1])

        self._quantised(x, quantise)
        return torch.cat(found, 1).to(self.latent_event.dtype)

    def split_codes(self, codes: Tensor) -> list[Tensor]:
        """The maps of codes ``(B, N)`` from the top, each ``(B, 1, h, w)``."""
        parts = codes.split([own.dims for own in self.code_events], 1)
        return [self._as_map(part, own) for part, own in zip(parts, self.code_events, strict=True)]

    def condition_event(self, place: int) -> Event:
        """The event of `condition` for the map at this place, which has a channel for each smaller map."""
        return Event((place, *self.sides[place]), self.code_events[place].columns[0])

    def condition(self, smaller: list[Tensor]) -> Tensor | None:
        """The smaller maps at the places of the next one, ``(B, maps, h, w)``; None of none.

        Where halving has lost a row or column, the last one is repeated.
        """
        if not smaller:
            return None
        found = smaller[0]
        for place in range(1, len(smaller) + 1):
            found = _repeated(found, self.sides[place])
            found = torch.cat([found, smaller[place]], 1) if place < len(smaller) else found
        return found

    def decodable(self, codes: Tensor) -> Tensor:
        maps = zip(self._quantisers, self.split_codes(codes), strict=True)
        return self._as_input([quantiser.lookup(own.flatten(1)) for quantiser, own in maps])

    def _as_map(self, codes: Tensor, event: Event) -> Tensor:
        return codes.reshape(-1, *event.shape).to(event.dtype)

    # --- the priors -----------------------------------------------------------------------------------------------

    def log_prior(self, codes: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        maps = self.split_codes(codes)
        each = [
            prior.log_prob(maps[place], self.condition(maps[:place]), samples=samples, generator=generator)
            for place, prior in enumerate(self._priors)
        ]
        return torch.stack(each).sum(0)

    def draw_codes(self, n: int, *, generator: Generator | None) -> Tensor:
        maps: list[Tensor] = []
        for prior in self._priors:
            maps.append(prior.sample(n, self.condition(maps), generator=generator))
        return torch.cat([own.flatten(1) for own in maps], 1)

    def reason_against_coding_codes(self) -> str | None:
        return next((reason for prior in self._priors if (reason := prior.reason_against_coding())), None)

    def visit_codes(self, n: int, choose: ChooseEntry) -> None:
        maps: list[Tensor] = []
        start = 0
        for own, prior in zip(self.code_events, self._priors, strict=True):
            chosen = torch.zeros(n, own.dims, dtype=torch.int64)

            def choose_code(
                entry: int, conditional: Conditional, chosen: Tensor = chosen, start: int = start
            ) -> Tensor:
                found = choose(start + entry, conditional)
                chosen[:, entry] = found.long()
                return found

            prior.visit(n, choose_code, self.condition(maps))
            maps.append(self._as_map(chosen, own).to(self.device))
            start += own.dims


_OWNER = "VQ-VAE-2"


def _doubled(features: int, sides: Sides) -> nn.ConvTranspose2d:
    """Maps of half of these sides → maps of these sides."""
    odd = (sides[0] % 2, sides[1] % 2)
    return nn.ConvTranspose2d(features, features, 4, stride=2, padding=1, output_padding=odd)


def _repeated(codes: Tensor, sides: Sides) -> Tensor:
    """Every code at four places: maps of half of these sides → maps of these sides."""
    found = codes.repeat_interleave(2, 2).repeat_interleave(2, 3)
    lost = [own - there for own, there in zip(sides, found.shape[2:], strict=True)]
    return pad(found.float(), (0, lost[1], 0, lost[0]), mode="replicate").to(codes.dtype) if any(lost) else found
