"""Densities that factorise entry by entry: a network, an order, and a distribution of each entry given earlier ones.

log p(x | c) = Σ_t log p(x_t | x_<t, c)

A model defines the network twice: the outputs of all entries in one pass, and its steps with caches. Scoring, sampling,
completing, coding and the naive reference follow.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Share
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import (
    CanComplete,
    ChooseEntry,
    ClassifiesByBayes,
    CodesEntries,
    IsAutoregressive,
    Model,
    Terms,
)
from unsup.nn.autoregressor import Choose, Naive, Steps, drawing, keeping, walk
from unsup.nn.causal import Context
from unsup.nn.conditions import Conditions
from unsup.nn.inputs import levels_of
from unsup.nn.logistics import PixelHead
from unsup.nn.observation import Discrete, GaussianMixture
from unsup.nn.order import Order
from unsup.prob import distributions as dist


class EntryModel(Model, IsAutoregressive, CanComplete, CodesEntries, ClassifiesByBayes):
    """A density that factorises over entries in one order.

    A model sets the attributes in its constructor (`take_condition_of` sets those of the condition), and defines
    `_outputs` and `_steps`.

    Attributes:
        order: the order of generation.
        observation: p(entry | outputs).
        conditions: features of the condition; none for a model without a condition.
        pixel_head: the distribution of the channels of a pixel, if network outputs are per pixel.
    """

    order: Order
    observation: Discrete | GaussianMixture
    conditions: Conditions
    pixel_head: PixelHead | None = None

    def take_condition_of(self, given: Event | None) -> None:
        """Called in the constructor: set the attributes for the condition, if any."""
        self.take_condition(given)
        self.conditions = Conditions(given)

    @abstractmethod
    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        """Outputs of all entries, ``(B, *event.shape)`` → ``(B, D, P)``, in the order of generation.

        Discrete entries may be between their levels, for derivatives.
        """

    @abstractmethod
    def _steps(self, n: int, context: Context) -> Steps:
        """The same network entry by entry, with caches. Sites are positions in the order of generation."""

    @property
    def orders(self) -> Tensor:
        """The order of generation; the same for every class."""
        return self.order.position.to(self.device).repeat(max(self.classes, 1), 1)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the classes, or standardise the numbers, of the condition; standardise real data."""
        self.observation.prepare(batch.x, generator)
        self.count_condition(batch)
        self.conditions.prepare(self.condition_or_none(batch.given, len(batch)), generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x | c), or −log p(x) if no condition is given in evaluation mode: ``(B,)``."""
        if not self.training and batch.given is None:
            return {"loss": -self.log_prob(batch.x, lengths=batch.lengths)}
        given = None if self.given is None else self.condition(batch.given, len(batch))
        return {"loss": -self._score(replace(batch, given=given), generator)}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        return self._score(batch, None)

    def _score(self, batch: Batch, generator: Generator | None) -> Tensor:
        """log p(x | c), ``(B,)``. ``generator`` draws the noise of training."""
        context = self._context(batch.given, generator)
        if self.pixel_head is not None:
            return self.pixel_head.joint_log_prob(self._network(batch.x, context), self._pixels(batch.x))
        return self.observation.total_log_prob(*self._scored(batch.x, context))

    def _network(self, x: Tensor, context: Context) -> Tensor:
        """Network outputs of all pixels ``(B, pixels, outputs)``, of a model with a head of pixels."""
        raise NotImplementedError

    def _expanded(self, x: Tensor, found: Tensor) -> Tensor:
        """Network outputs of all sites, in order → the outputs of all entries ``(B, D, P)``."""
        if self.pixel_head is None:
            return found.reshape(len(x), self.event.dims, self.observation.outputs_each)
        return self.pixel_head.expand(found, self._pixels(x)).flatten(1, 2)

    def _pixels(self, x: Tensor) -> Tensor:
        """The levels of all pixels ``(B, pixels, C)``, in order; possibly between levels."""
        assert isinstance(self.observation, Discrete)
        levels = levels_of(x, self.observation.support, dist.at_least_float32(self.observation.like))
        channels = self.event.shape[0]
        return self.order.line(levels).view(len(x), self.event.dims // channels, channels)

    def _context(self, given: Tensor | None, generator: Generator | None = None) -> Context:
        return Context(self.conditions(given), generator)

    def _scored(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Targets ``(B, D)`` and the outputs ``(B, D, P)`` that they are scored by, in the order of generation."""
        return self._targets(x), self._outputs(x, context)

    def _targets(self, x: Tensor) -> Tensor:
        """Raw data → targets ``(B, D)`` in the order of generation."""
        return self.order.line(self.observation.target(x).view(x.shape))

    def _entries(self, x: Tensor, given: Tensor | None) -> Tensor:
        """log p of every entry given earlier ones, in the order of generation: ``(M, B, D)``, one row per component."""
        if self.given is None or given is not None:
            conditions = [self.condition_or_none(given, len(x))]
        else:
            conditions = [self._every(y, len(x)) for y in range(len(self.log_class_prior()))]
        return torch.stack([self.observation.log_prob(*self._scored(x, self._context(c))) for c in conditions])

    def _every(self, label: int, n: int) -> Tensor:
        return torch.full((n,), label, dtype=torch.int64, device=self.device)

    def log_conditionals(self, x: Tensor, *, given: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        entries = self._entries(x, given)
        line = entries[0] if len(entries) == 1 else dist.mixture_log_conditionals(entries, self.log_class_prior())
        return self.order.grid(line).flatten(1)

    def conditionals(self, x: Tensor, *, order: int = 0, given: Tensor | None = None) -> Tensor:
        """Parameters of every conditional, ``(B, D, P)``; given class ``order`` without a condition."""
        if self.classes and given is None:
            given = self._every(order, len(x))
        given = self.condition_or_none(given, len(x))
        return self._outputs(x, self._context(given))[:, self.orders[0]]

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> Tensor:
        """Draw a class if none is given, then entry by entry, evaluating the network at one site only.

        Args:
            n: number of samples.
            given: condition of each sample.
            generator: random generator.
            temperature: divides the logits of the entries; the class is drawn at temperature 1.
            top_k: draw each entry from its k most probable levels only.
            top_p: draw each entry from the fewest levels whose total probability is at least p (nucleus sampling).
        """
        context = self._context(self.condition_to_sample(given, n, generator))
        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        return self._walked(self._steps(n, context), n, choose)

    @torch.no_grad()
    def sample_naive(
        self,
        n: int,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Tensor:
        context = self._context(self.condition_to_sample(given, n, generator))
        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        return self._walked(self._naive(n, context), n, choose)

    @torch.no_grad()
    def complete(
        self,
        x: Tensor,
        known: Tensor,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> Tensor:
        """Draw the unknown entries from p(unknown | known), exactly; a class not given is drawn from p(class | known).

        Args:
            x: raw examples ``(B, *event.shape)``; unknown entries may have any value.
            known: bool, same shape. In each example the known entries must be the first ones in the order of
                generation (of images: rows from the top, left to right, channel by channel in a pixel).
            given: condition of each example.
            generator: random generator.
            temperature: as for `sample`; so are ``top_k`` and ``top_p``.

        Raises:
            InputError: a known entry comes after an unknown one, so the draw would ignore it.
        """
        self.check_known(x, known)
        line = self.order.line(known)
        if bool((line[:, 1:] & ~line[:, :-1]).any()):
            raise InputError(
                f"a known entry comes after an unknown one, so the draw could not depend on it; {self._first()}"
            )
        x = torch.where(known, x, self.event.lowest(x))
        if self.classes and given is None:
            posterior = (self._entries(x, None) * line).sum(2).T + self.log_class_prior()
            given = dist.sample_categorical(posterior, generator=generator)
        else:
            given = self.condition_or_none(given, len(x))
        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        choose = keeping(line, self._targets(x).to(self._blank(1).dtype), choose)
        drawn = self._walked(self._steps(len(x), self._context(given)), len(x), choose)
        return drawn if self.event.is_discrete else self.kept(x, known, drawn)

    def _first(self) -> str:
        """What may be known in `complete`, for an error."""
        return "the known part must be the first entries in the order of generation"

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        observation, entries = self.observation, self.order.entries.tolist()

        def choose_target(site: int, outputs: Tensor) -> Tensor:
            entry = entries[site]
            return observation.near(entry, choose(entry, observation.conditional(entry, outputs)))

        self._walked(self._steps(n, self._context(self.condition_or_none(given, n))), n, choose_target)

    def _naive(self, n: int, context: Context) -> Steps:
        """`_steps` by one full pass for each entry."""
        return Naive(lambda line: self._outputs(self._raw(line), context), self._blank(n))

    def _raw(self, line: Tensor) -> Tensor:
        """Targets ``(B, D)`` in the order of generation → raw data."""
        return self.observation.raw(self.order.grid(line).reshape(len(line), self.event.dims))

    def _blank(self, n: int) -> Tensor:
        """Targets before anything is chosen, ``(n, D)``."""
        is_discrete = isinstance(self.observation, Discrete)
        dtype = torch.int64 if is_discrete else dist.at_least_float32(torch.zeros((), dtype=self.dtype)).dtype
        return torch.zeros(n, self.event.dims, dtype=dtype, device=self.device)

    def _walked(self, net: Steps, n: int, choose: Choose) -> Tensor:
        return self._raw(walk(net, range(self.event.dims), choose, self._blank(n)))
