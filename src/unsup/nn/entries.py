"""Densities that factorise entry by entry: a network, an order, and a distribution of each entry given earlier ones.

log p(x | c) = Σ_t log p(x_t | x_<t, c)

A model defines the network twice: the outputs of all entries in one pass, and its steps with caches. Scoring, sampling,
completing, coding and the naive reference follow. A chain of causal layers is both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
from unsup.nn.autoregressor import Choose, Naive, Steps, drawing, keeping, nothing_chosen, walk
from unsup.nn.causal import Causal, ChainWalk, Context, Site, spread_through, through
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
    """

    order: Order
    observation: Discrete | GaussianMixture
    conditions: Conditions

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
        outputs = self._outputs(batch.x, self._context(batch.given, generator))
        return self.observation.total_log_prob(self._targets(batch.x), outputs)

    def _context(self, given: Tensor | None, generator: Generator | None = None) -> Context:
        return Context(self.conditions(given), generator)

    def _targets(self, x: Tensor) -> Tensor:
        """Raw data → targets ``(B, D)`` in the order of generation."""
        return self.order.line(self.observation.target(x).view(x.shape))

    def _each_entry(self, x: Tensor, context: Context, lengths: Tensor | None) -> Tensor:
        """log p of every entry given earlier ones, in the order of generation: ``(B, D)``."""
        return self.observation.log_prob(self._targets(x), self._outputs(x, context))

    def _each_component(self, x: Tensor, given: Tensor | None, lengths: Tensor | None = None) -> Tensor:
        """`_each_entry` given the condition, or given every class if there is none: ``(M, B, D)``."""
        if self.given is None or given is not None:
            conditions = [self.condition_or_none(given, len(x))]
        else:
            conditions = [self._every(y, len(x)) for y in range(len(self.log_class_prior()))]
        return torch.stack([self._each_entry(x, self._context(c), lengths) for c in conditions])

    def _every(self, label: int, n: int) -> Tensor:
        return torch.full((n,), label, dtype=torch.int64, device=self.device)

    def log_conditionals(self, x: Tensor, *, given: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        return self._log_conditionals(x, given)

    def _log_conditionals(self, x: Tensor, given: Tensor | None, lengths: Tensor | None = None) -> Tensor:
        entries = self._each_component(x, given, lengths)
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
        choose, context = self._sampling(n, given, generator, temperature, top_k, top_p)
        return self._raw(self._walked(self._steps(n, context), n, choose))

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
        choose, context = self._sampling(n, given, generator, temperature, top_k, top_p)
        return self._raw(self._walked(self._naive(n, context), n, choose))

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
        return self._completed(x, known, self._continued(x, known, given, generator, temperature, top_k, top_p))

    def _sampling(
        self,
        n: int,
        given: Tensor | None,
        generator: Generator | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> tuple[Choose, Context]:
        """The choices of `sample` in a walk, and what the network depends on."""
        context = self._context(self.condition_to_sample(given, n, generator))
        return drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p), context

    def _continued(
        self,
        x: Tensor,
        known: Tensor,
        given: Tensor | None,
        generator: Generator | None,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
    ) -> Tensor:
        """The targets of examples of which some entries are known, in the order of generation."""
        self.check_known(x, known)
        line = self.order.line(known)
        if not self.order.begins(known):
            raise InputError(
                f"a known entry comes after an unknown one, so the draw could not depend on it; {self.order.beginning}"
            )
        x = torch.where(known, x, self.event.lowest(x))
        if self.classes and given is None:
            posterior = (self._each_component(x, None) * line).sum(2).T + self.log_class_prior()
            given = dist.sample_categorical(posterior, generator=generator)
        else:
            given = self.condition_or_none(given, len(x))
        choose = drawing(self.observation, generator, temperature, top_k=top_k, top_p=top_p)
        net = self._steps(len(x), self._context(given))
        return self._walked(net, len(x), keeping(line, self._chosen(x), choose))

    def _completed(self, x: Tensor, known: Tensor, line: Tensor) -> Tensor:
        drawn = self._raw(line)
        return drawn if self.event.is_discrete else self.kept(x, known, drawn)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        observation, entries = self.observation, self.order.entries.tolist()

        def choose_target(site: int, outputs: Tensor) -> Tensor:
            entry = entries[site]
            return observation.near(entry, choose(entry, observation.conditional(entry, outputs)))

        self._walked(self._steps(n, self._context(self.condition_or_none(given, n))), n, choose_target)

    def _walked(self, net: Steps, n: int, choose: Choose) -> Tensor:
        """The targets that are chosen in a walk over all entries, ``(B, D)``, in the order of generation."""
        return walk(net, range(self.event.dims), choose, nothing_chosen(self, self.observation, n))

    def _naive(self, n: int, context: Context) -> Steps:
        """`_steps` by one full pass for each entry."""
        return Naive(lambda line: self._outputs(self._raw(line), context), nothing_chosen(self, self.observation, n))

    def _raw(self, line: Tensor) -> Tensor:
        """Targets ``(B, D)`` in the order of generation → raw data."""
        return self.observation.raw(self.order.grid(line).reshape(len(line), self.event.dims))

    def _chosen(self, x: Tensor) -> Tensor:
        """Raw data as a walk chooses it: levels, or standardised numbers, ``(B, D)`` in the order of generation."""
        if isinstance(self.observation, Discrete):
            return self._targets(x).long()
        return self.order.line(self.observation.front(x)[0]).to(nothing_chosen(self, self.observation, 0).dtype)


class ChainModel(EntryModel):
    """A density whose network is a chain of causal layers.

    A model defines its `layers`, and for a layout of their features `_features`, `_line`, `_alone` and `_steps`.

    Attributes:
        pixel_head: the distribution of the channels of a pixel, if a site is a pixel of an image; else None.
    """

    pixel_head: PixelHead | None

    @abstractmethod
    def layers(self) -> Sequence[Causal]:
        """From what `_features` returns to the outputs of all entries of a site, or those of the head; the first one is
        strict."""

    @abstractmethod
    def _features(self, x: Tensor) -> Any:
        """Raw data → inputs of the first layer."""

    @abstractmethod
    def _line(self, found: Any) -> Tensor:
        """Outputs of the last layer → those of the sites in order: ``(B, L, outputs)``."""

    @abstractmethod
    def _alone(self) -> Any:
        """Each site alone, as `Causal.spread` of the first layer takes it."""

    def _network(self, x: Tensor, context: Context) -> Tensor:
        """Outputs of all sites, ``(B, L, outputs)``, in order."""
        self.event.check_shape(x)  # layers may accept more or fewer sites
        return self._line(through(self.layers(), self._features(x), context))

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        found = self._network(x, context)
        if self.pixel_head is None:
            return found.reshape(len(x), self.event.dims, self.observation.outputs_each)
        return self.pixel_head.expand(found, self._pixels(x, self.pixel_head)).flatten(1, 2)

    def _score(self, batch: Batch, generator: Generator | None) -> Tensor:
        if self.pixel_head is None:
            return super()._score(batch, generator)
        found = self._network(batch.x, self._context(batch.given, generator))
        return self.pixel_head.joint_log_prob(found, self._pixels(batch.x, self.pixel_head))

    def _pixels(self, x: Tensor, head: PixelHead) -> Tensor:
        """The levels of all pixels ``(B, pixels, C)``, in order; possibly between levels."""
        levels = levels_of(x, head.observation.support, dist.at_least_float32(head.observation.like))
        return self.order.line(levels).unflatten(1, (-1, head.channels))

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Earlier entries that no layer can reach, by windows and masks, independent of weights."""
        sites = self._line(spread_through(self.layers(), self._alone())).flatten(1).T > 0
        each = self.event.dims // len(sites)
        reached = sites.repeat_interleave(each, 0).repeat_interleave(each, 1)
        if self.pixel_head is not None:  # which couples the channels of a pixel
            within = torch.ones(each, each, dtype=torch.bool).tril(-1)
            reached |= torch.block_diag(*[within] * len(sites))
        return self.order.unreached(reached)


class ChainSteps(Steps, ABC):
    """A chain of layers in a walk over entries: a site has one entry or several, whose outputs are computed together.

    Args:
        chain: the layers.
        each: number of entries of a site.
        head: the distribution of the channels of a pixel, if a site is a pixel; else its entries are independent.
    """

    def __init__(self, chain: ChainWalk, each: int, head: PixelHead | None) -> None:
        self.chain, self.each, self.head = chain, each, head
        self.found = torch.zeros(0)
        self.values: list[Tensor] = []

    @abstractmethod
    def place(self, t: int) -> Site:
        """Where site t is."""

    @abstractmethod
    def features(self, values: list[Tensor]) -> Tensor:
        """The inputs of the first layer at a site from the targets of its entries, ``(B,)`` each."""

    def outputs(self, site: int) -> Tensor:
        t, entry = divmod(site, self.each)
        if entry == 0:
            self.found = self.chain.look(self.place(t))
        if self.head is not None:
            return self.head.at(self.found, self.values)
        return self.found.chunk(self.each, 1)[entry]

    def put(self, site: int, value: Tensor) -> None:
        self.values.append(value)
        if len(self.values) == self.each:
            self.chain.put(self.place(site // self.each), self.features(self.values))
            self.values = []


def against_all_but_images(event: Event) -> str | None:
    """`Model.reason_against` of models of discrete images."""
    if not event.is_image:
        return "takes images only"
    return None if event.is_discrete else "takes discrete pixels only"


def against_all_but_symbols(event: Event) -> str | None:
    """`Model.reason_against` of models of discrete entries with one support."""
    return None if event.is_discrete and event.uniform is not None else "takes discrete entries of one kind only"
