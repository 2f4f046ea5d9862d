"""Densities of discrete images that are chains of causal layers over the pixels.

log p(x | c) = Σ_t log p(x_t | x_<t, c)  over pixels in raster order and the channels of a pixel in turn
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.config import Positive
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
from unsup.nn.causal import Causal, Context, Remembering, Site
from unsup.nn.conditions import Conditions
from unsup.nn.inputs import Inputs
from unsup.nn.observation import Discrete, symbols_for
from unsup.prob import distributions as dist


class Raster:
    """Images as sequences: rows from the top, left to right, channel by channel in a pixel.

    Args:
        event: images ``(C, H, W)``.
    """

    def __init__(self, event: Event) -> None:
        self.channels, self.height, self.width = event.shape
        self.dims = event.dims
        self.sites = [Site(*self._place(t)) for t in range(self.dims)]

    def _place(self, t: int) -> tuple[int, int, int]:
        pixel, channel = divmod(t, self.channels)
        return (*divmod(pixel, self.width), channel)

    def line(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` → ``(B, D)``, in the order of generation."""
        return x.permute(0, 2, 3, 1).reshape(len(x), self.dims)

    def grid(self, line: Tensor) -> Tensor:
        """The inverse of `line`."""
        return line.view(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)


class RasterModel(Model, IsAutoregressive, CanComplete, CodesEntries, ClassifiesByBayes):
    """A density of discrete images in raster order, channel fastest, that is a chain of causal layers.

    A model calls `take` in its constructor and defines its `layers`, which find the features of a condition in their
    context.

    Attributes:
        raster: the order of generation.
        inputs: from pixels to features.
        observation: p(pixel | outputs).
        conditions: their features; none for a model without a condition.
    """

    raster: Raster
    inputs: Inputs
    observation: Discrete
    conditions: Conditions

    def take(self, event: Event, given: Event | None, **widths: int) -> None:
        """Called in the constructor: set the attributes for the event, and for the condition, if any.

        Args:
            event: images.
            given: the event of the condition, or None.
            ***widths: numbers of features of layers; each colour channel needs at least one feature.
        """
        groups = event.shape[0]
        if min(widths.values()) < groups:
            told = " and ".join(f"{name}={width}" for name, width in widths.items())
            raise InputError(f"{told} must be at least {groups}: one feature for each of the {groups} colour channels")
        self.raster, self.inputs, self.observation = Raster(event), Inputs(event), symbols_for(event)
        self.take_condition(given)
        self.conditions = Conditions(given)

    @abstractmethod
    def layers(self) -> Sequence[Causal]:
        """From the inputs to ``C · outputs_each`` features, the first layer strict."""

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if not event.is_image:
            return "takes images only"
        return None if event.is_discrete else "takes discrete pixels only"

    @property
    def orders(self) -> Tensor:
        """Raster over pixels, channel fastest; the same for every class."""
        position = self.raster.grid(torch.arange(self.event.dims, device=self.device)).reshape(1, -1)
        return position.repeat(max(self.classes, 1), 1)

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the classes, or standardise the numbers, of the condition."""
        self.count_condition(batch)
        self.conditions.prepare(self.condition_or_none(batch.given, len(batch)), generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """−log p(x | c), or −log p(x) if no condition is given in evaluation mode: ``(B,)``."""
        if not self.training and batch.given is None:
            return {"loss": -self.log_prob(batch.x)}
        given = None if self.given is None else self.condition(batch.given, len(batch))
        return {"loss": -self._score(replace(batch, given=given), generator)}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        return self._score(batch, None)

    def _score(self, batch: Batch, generator: Generator | None) -> Tensor:
        return self.observation.total_log_prob(*self._scored(batch.x, self._context(batch.given, generator)))

    def _context(self, given: Tensor | None, generator: Generator | None = None) -> Context:
        return Context(self.conditions(given), generator)

    def _outputs(self, x: Tensor, context: Context) -> Tensor:
        """``(B, C, H, W)`` → ``(B, D, P)`` in the order of generation."""
        self.event.check_shape(x)  # convolutions would accept any height and width
        h = self.inputs.image(x)
        for layer in self.layers():
            h = layer(h, context)
        return h.permute(0, 2, 3, 1).reshape(len(x), self.event.dims, self.observation.outputs_each)

    def _scored(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """Targets ``(B, D)`` and the outputs ``(B, D, P)`` that they are scored by."""
        return self.observation.target(self.raster.line(x)), self._outputs(x, context)

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
        return self.raster.grid(line).flatten(1)

    def conditionals(self, x: Tensor, *, order: int = 0, given: Tensor | None = None) -> Tensor:
        """Parameters of every conditional, ``(B, D, P)``; given class ``order`` without a condition."""
        if self.classes and given is None:
            given = self._every(order, len(x))
        given = self.condition_or_none(given, len(x))
        return self._outputs(x, self._context(given))[:, self.orders[0]]

    def blind_spot(self, *, order: int = 0) -> Tensor:
        """Earlier dimensions that no layer can reach, by windows and masks, independent of weights."""
        raster = self.raster
        seen: Any = raster.grid(torch.eye(raster.dims))
        for layer in self.layers():
            seen = layer.spread(seen)
        position = self.orders[order].cpu()
        reached = raster.line(seen).T[position][:, position] > 0
        return (position[:, None] > position[None, :]) & ~reached

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: Positive = 1.0,
    ) -> Tensor:
        """Draw a class if none is given, then entry by entry, evaluating each layer at one site only.

        ``temperature`` divides the logits of the pixels; the class is drawn at temperature 1.
        """
        context = self._context(self.condition_to_sample(given, n, generator))
        return self._walked(self._steps(n, context), n, drawing(self.observation, generator, temperature))

    @torch.no_grad()
    def sample_naive(
        self,
        n: int,
        *,
        given: Tensor | None = None,
        generator: Generator | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        context = self._context(self.condition_to_sample(given, n, generator))
        raster, low = self.raster, self.inputs.support.low
        net = Naive(lambda line: self._outputs(raster.grid(line) + low, context), self._blank(n))
        return self._walked(net, n, drawing(self.observation, generator, temperature))

    @torch.no_grad()
    def complete(
        self, x: Tensor, known: Tensor, *, given: Tensor | None = None, generator: Generator | None = None
    ) -> Tensor:
        """Draw the unknown entries from p(unknown | known), exactly; a class not given is drawn from p(class | known).

        Args:
            x: raw images ``(B, C, H, W)``; unknown entries may have any value.
            known: bool, same shape. In each image the known entries must be the first ones in the order of generation
                (rows from the top, left to right, channel by channel in a pixel).
            given: condition of each image.

        Raises:
            InputError: a known entry comes after an unknown one, so the draw would ignore it.
        """
        self.check_known(x, known)
        line = self.raster.line(known)
        if bool((line[:, 1:] & ~line[:, :-1]).any()):
            raise InputError(
                "a known entry comes after an unknown one, so the draw could not depend on it; "
                "the known part must be a prefix of the raster order (top rows first, e.g. the upper half)"
            )
        x = torch.where(known, x, self.event.lowest(x))
        if self.classes and given is None:
            posterior = (self._entries(x, None) * line).sum(2).T + self.log_class_prior()
            given = dist.sample_categorical(posterior, generator=generator)
        else:
            given = self.condition_or_none(given, len(x))
        targets = self.observation.target(self.raster.line(x)).long()
        choose = keeping(line, targets, drawing(self.observation, generator))
        return self._walked(self._steps(len(x), self._context(given)), len(x), choose)

    @torch.no_grad()
    def visit(self, n: int, choose: ChooseEntry, *, gaps: Tensor | None = None, given: Tensor | None = None) -> None:
        context = self._context(self.condition_or_none(given, n))
        entries = self.raster.line(torch.arange(self.event.dims).view(1, *self.event.shape))[0].tolist()
        self._walked(
            self._steps(n, context),
            n,
            lambda site, outputs: choose(entries[site], self.observation.log_masses(outputs)).long(),
        )

    def _steps(self, n: int, context: Context) -> Steps:
        return _Cached(self.layers(), self.inputs, self.raster, n, context)

    def _blank(self, n: int) -> Tensor:
        return torch.zeros(n, self.event.dims, dtype=torch.int64, device=self.device)

    def _walked(self, net: Steps, n: int, choose: Choose) -> Tensor:
        targets = walk(net, range(self.event.dims), choose, self._blank(n))
        return self.observation.raw(self.raster.grid(targets).reshape(n, self.event.dims))


class _Cached(Steps):
    """Every layer is computed at the site only, when its last input is known."""

    def __init__(self, layers: Sequence[Causal], inputs: Inputs, raster: Raster, n: int, context: Context) -> None:
        size = (raster.height, raster.width)
        self.sites, self.inputs, self.n = raster.sites, inputs, n
        self.first = cast(Remembering, layers[0])
        assert self.first.strict
        self.memory = self.first.begin(n, size, context)
        self.rest = [(layer, layer.begin(n, size, context)) for layer in layers[1:]]

    def outputs(self, site: int) -> Tensor:
        place = self.sites[site]
        h = self.first.look(self.memory, place)
        for layer, memory in self.rest:
            h = layer.step(memory, place, h)
        return cast(Tensor, h)

    def put(self, site: int, value: Tensor) -> None:
        self.first.put(self.memory, self.sites[site], self.inputs.levels(value).view(self.n, self.inputs.each))
