"""Autoencoders with discrete codes: the bound, samples, codes and entropy coding from a prior and a decoder."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.config import options_of
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import (
    CanDecode,
    CanSample,
    ChooseEntry,
    CodesSplitEntries,
    Conditional,
    HasDensity,
    HasLatents,
    Model,
)
from unsup.core.part import Part
from unsup.nn.autoencoder import Autoencoder
from unsup.prob.distributions import at_least_float32, log_mean_exp


class DiscreteCodes(Model, HasDensity, CanSample, CanDecode, HasLatents, CodesSplitEntries):
    """Abstract: p(x) = Σ_c p(c) p(x | c), with codes c(x) that are a function of x.

    `log_prob` is the bound log p(c(x)) + log p(x | c(x)), a single term of the sum. Importance samples average the
    noise of dequantised entries only. Data is coded as its codes under the prior, followed by its entries given them.

    Attributes:
        nets: the decoder, ``nets.decode``, and the inputs and observation of the event.
    """

    nets: Autoencoder

    @property
    def is_adopted(self) -> bool:
        """Whether the networks and codebooks are those of a trained autoencoder, and only the prior learns."""
        return self.config["autoencoder"] is not None

    @property
    @abstractmethod
    def of_autoencoder(self) -> tuple[nn.Module, ...]:
        """The networks and codebooks."""

    def adopted(self, part: Part) -> Self:
        """A trained autoencoder of the same class, whose parameters are fixed.

        Raises:
            InputError: another class of model, options that are neither defaults nor those of the autoencoder, or no
                prior that could learn.
        """
        found = part.build(self.event)
        if not isinstance(found, type(self)):
            raise InputError(f"autoencoder={part.name!r} is another model; expected a trained {type(self).__name__}")
        for name, (_, default) in options_of(type(self)).items():
            if not name.endswith(("prior", "autoencoder")) and self.config[name] not in (default, found.config[name]):
                raise InputError(
                    f"{name}={self.config[name]!r} is not that of the autoencoder, {found.config[name]!r}; remove "
                    "this option"
                )
        if all(self.config[name] is None for name in options_of(type(self)) if name.endswith("prior")):
            raise InputError(
                "autoencoder= fixes all but the prior; name a prior, e.g. prior='gated-pixelcnn' (--model.prior)"
            )
        return found.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.is_adopted:
            for module in self.of_autoencoder:
                module.eval()
        return self

    @abstractmethod
    def codes_of(self, x: Tensor) -> Tensor:
        """The codes c(x) of raw data: ``(B, *event.shape)`` → ``(B, *latent_event.shape)``, without a graph."""

    @abstractmethod
    def decodable(self, codes: Tensor) -> Tensor:
        """The input of the decoder: ``(B, *latent_event.shape)`` → ``(B, F)``."""

    @abstractmethod
    def log_prior(self, codes: Tensor, *, samples: int = 1, generator: Generator | None = None) -> Tensor:
        """log p(c), or the bound on it: ``(B, *latent_event.shape)`` → ``(B,)``."""

    @abstractmethod
    def draw_codes(self, n: int, *, generator: Generator | None) -> Tensor:
        """``n`` draws from p(c), ``(n, *latent_event.shape)``."""

    @abstractmethod
    def reason_against_coding_codes(self) -> str | None:
        """Why p(c) cannot be visited code by code, a clause; None if it can."""

    @abstractmethod
    def visit_codes(self, n: int, choose: ChooseEntry) -> None:
        """As `visit`, of the flattened codes of ``n`` examples."""

    @property
    def likelihood_kind(self) -> Kind:
        return "bound"

    @property
    def uses_samples(self) -> bool:
        """The code of an example is fixed; only noise of the decoder and the bound of a prior use draws."""
        priors = (module for module in self.modules() if module is not self)
        return self.nets.observation.is_noisy or any(isinstance(p, HasDensity) and p.uses_samples for p in priors)

    @property
    def mass_in_support(self) -> bool:
        return not self.nets.observation.is_noisy

    @property
    def code_size(self) -> int:
        return self.latent_event.dims

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        codes = self.codes_of(batch.x)
        draws = samples if self.nets.observation.is_noisy else 1
        targets = torch.stack([self.nets.target(batch.x, generator) for _ in range(draws)])
        seen = self.decodable(codes).expand(draws, -1, -1)
        log_likelihood = log_mean_exp(self.nets.log_likelihood(targets, seen), 0)
        return log_likelihood + self.log_prior(codes, samples=samples, generator=generator)

    def draw_latents(self, batch: Batch, *, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """The codes of each example, ``(B, *latent_event.shape)``, whose log q is 0."""
        codes = self.codes_of(batch.x)
        return codes, self.nets.output_bias.new_zeros(len(codes))

    def log_joint(self, batch: Batch, z: Tensor, *, generator: Generator | None = None) -> Tensor:
        target = self.nets.target(batch.x, generator)
        log_likelihood = self.nets.log_likelihood(target, self.decodable(z)[None]).squeeze(0)
        return log_likelihood + self.log_prior(z, generator=generator)

    def encode(self, x: Tensor) -> Tensor:
        """The codes of raw data, flattened, as floating numbers: ``(B, *event.shape)`` → ``(B, N)``."""
        return self.codes_of(x).flatten(1).to(at_least_float32(self.nets.output_bias).dtype)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The most typical example of codes ``(B, N)``, which are rounded to numbers from 0 to K − 1."""
        self.check_codes(z)
        return self.nets.typical(self.decodable(self._as_codes(z)))

    def _as_codes(self, z: Tensor) -> Tensor:
        """Flattened numbers → ``(B, *latent_event.shape)``."""
        support, event = self.latent_event.uniform, self.latent_event
        assert support is not None
        return z.round().clamp(0, support.levels - 1).to(event.dtype).view(-1, *event.shape)

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None) -> Tensor:
        """Draws from p(x | c) with c ~ p(c)."""
        codes = self.draw_codes(n, generator=generator)
        return self.nets.draw(self.decodable(codes), generator=generator)

    # --- entropy coding -------------------------------------------------------------------------------------------

    def reason_against_coding(self) -> str | None:
        if self.nets.observation.is_noisy or not self.event.is_discrete or self.event.missing:
            return "has a decoder of densities, or missing entries, which have no probabilities"
        return self.reason_against_coding_codes()

    @property
    def split_event(self) -> Event:
        """The codes of an example, followed by its entries."""
        return Event((self.code_size + self.event.dims,), self.latent_event.columns + self.event.columns)

    def split_entries(self, x: Tensor) -> Tensor:
        codes = self.codes_of(x.to(self.device)).to(x.device)
        return torch.cat([codes.flatten(1).long(), x.flatten(1).long()], 1)

    def join_entries(self, y: Tensor) -> Tensor:
        return y[:, self.code_size :].reshape(-1, *self.event.shape).to(self.event.dtype)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        chosen = torch.zeros(n, self.code_size, dtype=torch.float64)

        def choose_code(entry: int, conditional: Conditional) -> Tensor:
            found = choose(entry, conditional)
            chosen[:, entry] = found
            return found

        self.visit_codes(n, choose_code)
        outputs = self.nets.decode(self.decodable(self._as_codes(chosen).to(self.device)))
        for entry in range(self.event.dims):
            masses = self.nets.log_masses(outputs, torch.tensor([entry], device=outputs.device)).squeeze(1)
            choose(self.code_size + entry, masses)
