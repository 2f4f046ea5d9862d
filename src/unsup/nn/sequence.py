"""Densities of sequences that are chains of causal layers over the sites ``(B, L, F)``.

A site is one entry of the order of generation, or a whole frame of entries that are independent given earlier frames.
Images are sequences of their entries too.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import embedding, linear

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Share, check_value
from unsup.core.errors import CapabilityError
from unsup.core.event import Event
from unsup.core.model import HasLengths, SamplesAnyLength
from unsup.nn.autoregressor import Choose, Steps, walk
from unsup.nn.causal import NOTHING, Causal, ChainWalk, Context, Remembering, Site
from unsup.nn.entries import ChainModel, ChainSteps
from unsup.nn.inputs import levels_of
from unsup.nn.logistics import PixelHead
from unsup.nn.observation import Discrete, GaussianMixture, SymbolsWithEnd, symbols_for
from unsup.nn.order import Order
from unsup.nn.raster import usual_order


class Delayed(Remembering):
    """Features of the site before, and a learned start: the first, strict layer of a network.

    A condition adds V c at every site.

    Args:
        width: number of features.
        condition: size of the features c in the context; 0 without a condition.
    """

    strict = True

    def __init__(self, width: int, condition: int = 0) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.zeros(width))
        self.condition = nn.Linear(condition, width, bias=False) if condition else None

    @abstractmethod
    def features(self, h: Tensor) -> Tensor:
        """Features of what is put at a site: ``(B, …)`` → ``(B, width)``; also with an axis of sites, axis 1."""

    def _shift(self, context: Context) -> Tensor | None:
        if self.condition is None:
            return None
        assert context.given is not None
        return linear(context.given, self.condition.weight)

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        """``(B, L, …)`` → ``(B, L, width)``."""
        found = torch.cat([self.start.expand(len(h), 1, -1), self.features(h[:, :-1])], 1)
        shift = self._shift(context)
        return found if shift is None else found + shift[:, None]

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> dict[str, Any]:
        return {"last": self.start.expand(n, -1), "shift": self._shift(context)}

    def put(self, memory: dict[str, Any], site: Site, h: Tensor) -> None:
        memory["last"] = self.features(h)

    def look(self, memory: dict[str, Any], site: Site) -> Tensor:
        last: Tensor = memory["last"]
        return last if memory["shift"] is None else last + memory["shift"]

    def spread(self, seen: Tensor) -> Tensor:
        """``(N, L)``: a site sees the one before."""
        return torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], 1)


class Tokens(Delayed):
    """Embeddings of levels, ``(B, L)`` → ``(B, L, width)``. Between levels they are interpolated.

    Args:
        levels: number of levels.
        width: number of features.
        condition: size of the features of a condition; 0 without one.
    """

    def __init__(self, levels: int, width: int, condition: int = 0) -> None:
        super().__init__(width, condition)
        self.weight = nn.Parameter(torch.randn(levels, width) * width**-0.5)

    def features(self, h: Tensor) -> Tensor:
        if not h.is_floating_point():
            return embedding(h, self.weight)
        below = h.detach().floor().long().clamp(0, len(self.weight) - 2)
        share = (h - below).unsqueeze(-1).to(self.weight.dtype)
        return torch.lerp(embedding(below, self.weight), embedding(below + 1, self.weight), share)


class Frames(Delayed):
    """A linear map of frames of numbers, ``(B, L, features)`` → ``(B, L, width)``.

    Args:
        features: number of numbers in a frame.
        width: number of features.
        condition: size of the features of a condition; 0 without one.
    """

    def __init__(self, features: int, width: int, condition: int = 0) -> None:
        super().__init__(width, condition)
        self.map = nn.Linear(features, width)

    def features(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.map(h.to(self.map.weight.dtype)))


class Placed(Causal):
    """h + features of the place of the site, which repeat after some number of sites."""

    @abstractmethod
    def places(self) -> Tensor:
        """``(period, width)``."""

    def forward(self, h: Tensor, context: Context = NOTHING) -> Tensor:
        places = self.places()
        return (h.unflatten(1, (-1, len(places))) + places).flatten(1, 2)

    def begin(self, n: int, size: tuple[int, int], context: Context = NOTHING) -> Tensor:
        return self.places()

    def step(self, memory: Tensor, site: Site, h: Tensor) -> Tensor:
        return h + memory[site.column % len(memory)]


class Places(Placed):
    """A learned embedding of the place of the site: the sum of one table for each axis of the examples.

    Args:
        order: the order of generation, of one entry at a site.
        width: number of features.
        shape: axes that number the entries; by default those of the examples. It may have room for more entries.
    """

    index: Tensor

    def __init__(self, order: Order, width: int, shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        places = order.places() if shape is None else torch.unravel_index(order.entries, shape)
        self.register_buffer("index", torch.stack(places), persistent=False)  # (axes, L)
        sides = order.shape if shape is None else shape
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(n, width) * width**-0.5) for n in sides)

    def places(self) -> Tensor:
        return cast(Tensor, sum(embedding(own, table) for table, own in zip(self.tables, self.index, strict=True)))


class SequenceModel(ChainModel, HasLengths, SamplesAnyLength):
    """A density of sequences that is a chain of causal layers over sites.

    A model calls `take` in its constructor and defines its `layers`. They lead from levels ``(B, L)``, or frames of
    levels or standardised numbers ``(B, L, frame)``, to ``frame · outputs_each`` features, or those of the head. In
    between, features are ``(B, L, F)`` in a full pass and ``(B, F)`` in a step, at ``Site(0, t)``.

    Examples of different lengths: those of unordered symbols end with a symbol of their own, so that masses sum to one
    over all lengths, 0 included; of other data, p(x) is that given the length. If all examples have one length, lengths
    in a batch are those of beginnings of examples.

    Class attributes:
        unbounded: whether no layer depends on the number of sites, so that a walk may go on beyond the event.

    Attributes:
        frame: entries of a site.
        ends: whether examples have an end symbol.
    """

    takes_lengths = True
    data_defaults = {"text": {"length": 256}}
    unbounded: ClassVar[bool] = False

    frame: int
    ends: bool

    def take(
        self,
        event: Event,
        given: Event | None,
        *,
        order: Order | None = None,
        frame: int = 1,
        components: int = 0,
        head: PixelHead | None = None,
    ) -> None:
        """Called in the constructor: set the attributes for the event, and for the condition, if any.

        Args:
            event: examples of any layout.
            given: the event of the condition, or None.
            order: the order of generation; by default raster for images, else that of the flattened entries.
            frame: entries of a site, which are independent given earlier sites.
            components: number of Gaussians of a real entry.
            head: the distribution of the channels of a pixel of images; a site is then a pixel. The order must have
                the channels of a pixel one after another.
        """
        self.order = order or usual_order(event)
        self.frame = frame if head is None else head.channels
        self.pixel_head = head
        self.ends = event.open and len(event.shape) == 1 and frame == 1 and event.has_words
        if head is not None:
            self.observation = head.observation
        elif event.is_real:
            self.observation = GaussianMixture(event, components)
        else:
            self.observation = SymbolsWithEnd(event) if self.ends else symbols_for(event)
        self.take_condition_of(given)

    @property
    def sites(self) -> int:
        """Number of sites, L."""
        return self.order.dims // self.frame

    def _features(self, x: Tensor) -> Tensor:
        """Raw data → levels or standardised numbers in the order of generation: ``(B, L)``, or ``(B, L, frame)``."""
        if isinstance(self.observation, GaussianMixture):
            values = self.observation.front(x)[0]
        else:
            like = torch.zeros((), dtype=self.dtype) if x.is_floating_point() else torch.zeros((), dtype=torch.int64)
            values = levels_of(x, self.observation.support, like)
        return self._sited(self.order.line(values))

    def _sited(self, line: Tensor) -> Tensor:
        return line if self.frame == 1 and not self.event.is_real else line.reshape(len(line), self.sites, self.frame)

    def _line(self, found: Tensor) -> Tensor:
        return found

    def _alone(self) -> Tensor:
        return torch.eye(self.sites)

    def _steps(self, n: int, context: Context) -> Steps:
        return SequenceSteps(self, n, context, self.sites)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """As for all models. In the place of padding, real data is standardised with entries of other examples."""
        if batch.lengths is not None and self.event.is_real:
            batch = replace(batch, x=self._without_padding(batch.x, batch.lengths))
        super().prepare(batch, generator=generator)

    def _without_padding(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Padding replaced by what other examples have at the same place; 0 where none has anything."""
        x, beyond = x.clone(), self.event.padding(lengths)
        for place in range(x.shape[1]):
            there = x[~beyond[:, place], place]
            count = int(beyond[:, place].sum())
            if count:
                rows = torch.arange(count, device=x.device) % max(1, len(there))
                x[beyond[:, place], place] = there[rows] if len(there) else 0.0
        return x

    def _score(self, batch: Batch, generator: Generator | None) -> Tensor:
        if batch.lengths is None:
            return super()._score(batch, generator)
        return self._each_entry(batch.x, self._context(batch.given, generator), batch.lengths).sum(1)

    def _each_entry(self, x: Tensor, context: Context, lengths: Tensor | None) -> Tensor:
        x = self._with_low_padding(x, lengths)
        return self._each(self._targets(x), self._outputs(x, context), lengths)

    def _total(self, targets: Tensor, outputs: Tensor, lengths: Tensor | None, start: int = 0) -> Tensor:
        """log p of the entries from ``start`` on, ``(B,)``; of an example with a length, without its padding."""
        if lengths is None:
            return self.observation.total_log_prob(targets, outputs)
        return self._each(targets, outputs, lengths, start).sum(1)

    def _with_low_padding(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Examples whose padding, which may have any value, is the lowest level or 0."""
        if lengths is None:
            return x
        padding = self.event.padding(lengths).view(len(x), -1, *(1,) * (len(self.event.shape) - 1))
        return torch.where(padding, self.event.lowest(x).to(x.dtype), x)

    def _each(self, targets: Tensor, outputs: Tensor, lengths: Tensor | None, start: int = 0) -> Tensor:
        """log p of each entry from ``start`` on, in the order of generation: 0 for padding, and the end counts at its
        place. Targets ``(B, D − start)``, outputs ``(B, D − start, P)`` → ``(B, D − start)``."""
        if lengths is None:
            return self.observation.log_prob(targets, outputs)
        length = (lengths * (self.order.dims // self.event.shape[0]))[:, None]
        place = torch.arange(start, self.order.dims, device=targets.device)
        counted = place < length
        if isinstance(self.observation, SymbolsWithEnd):
            targets = torch.where(place == length, self.observation.end, targets)
            counted = place <= length
        return torch.where(counted, self.observation.log_prob(targets, outputs), 0.0)

    def log_conditionals(
        self,
        x: Tensor,
        *,
        given: Tensor | None = None,
        lengths: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """As for all models; entries beyond the lengths are 0, and the end of an example counts at its place.

        Raises:
            InputError: lengths that do not fit.
        """
        if lengths is not None:
            lengths = torch.as_tensor(lengths, device=x.device)
            self.event.check_lengths(lengths, len(x))
        return self._log_conditionals(x, given, lengths)

    @torch.no_grad()
    def sample_with_lengths(
        self,
        n: int,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> tuple[Tensor, Tensor]:
        choose, context = self._sampling(n, given, generator, temperature, top_k, top_p)
        line = self._walked(self._steps(n, context), n, choose)
        return self._raw(line), self._lengths(line)

    def reason_against_length(self) -> str | None:
        if self.event.is_image or self.event.layout == "vector":
            return f"samples examples of {self.event}, whose size is fixed"
        if not self.unbounded:
            return "depends on the positions of entries, which it knows up to the length of its event only"
        if not isinstance(self.observation, Discrete):
            return "standardises each real entry by its position, up to the length of its event only"
        return "ends its examples itself" if self.ends else None

    @torch.no_grad()
    def sample_long(
        self,
        n: int,
        length: Count,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> Tensor:
        length = check_value("length", length, Count)
        reason = self.reason_against_length()
        if reason is not None:
            raise CapabilityError(f"{type(self).__name__} {reason}")
        assert isinstance(self.observation, Discrete)
        rest = self.event.shape[1:]
        dims = length * (self.event.dims // self.event.shape[0])
        choose, context = self._sampling(n, given, generator, temperature, top_k, top_p)
        steps = SequenceSteps(self, n, context, dims // self.frame)
        targets = torch.zeros(n, dims, dtype=torch.int64, device=self.device)
        drawn = walk(steps, range(dims), choose, targets).view(n, length, *rest)
        return (drawn + self.observation.support.low).to(self.event.dtype)

    @torch.no_grad()
    def complete_with_lengths(
        self,
        x: Tensor,
        known: Tensor,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
        top_k: Count | None = None,
        top_p: Share | None = None,
    ) -> tuple[Tensor, Tensor]:
        line = self._continued(x, known, given, generator, temperature, top_k, top_p)
        return self._completed(x, known, line), self._lengths(line)

    def _walked(self, net: Steps, n: int, choose: Choose) -> Tensor:
        """As for all models; an end is followed by ends."""
        if not isinstance(self.observation, SymbolsWithEnd):
            return super()._walked(net, n, choose)
        end, ended = self.observation.end, torch.zeros(n, dtype=torch.bool, device=self.device)

        def choose_until_end(site: int, outputs: Tensor) -> Tensor:
            value = torch.where(ended, end, choose(site, outputs))
            ended.logical_or_(value == end)
            return value

        return super()._walked(net, n, choose_until_end)

    def _lengths(self, line: Tensor) -> Tensor:
        """Lengths of the examples that a walk has chosen, ``(B,)``: up to the end symbol, or all of the event."""
        if isinstance(self.observation, SymbolsWithEnd):
            return (line != self.observation.end).sum(1)
        return torch.full((len(line),), self.event.shape[0], dtype=torch.int64, device=self.device)


class SequenceSteps(ChainSteps):
    """Layers over sites in a walk, also beyond the sites of the event."""

    def __init__(self, model: SequenceModel, n: int, context: Context, sites: int) -> None:
        super().__init__(ChainWalk(model.layers(), n, (1, sites), context), model.frame, model.pixel_head)
        self.end = model.observation.end if isinstance(model.observation, SymbolsWithEnd) else None
        self.is_flat = model.frame == 1 and not model.event.is_real

    def place(self, t: int) -> Site:
        return Site(0, t)

    def features(self, values: list[Tensor]) -> Tensor:
        if not self.is_flat:
            return torch.stack(values, 1)
        # What comes after an end does not matter.
        return values[0] if self.end is None else torch.where(values[0] == self.end, 0, values[0])
