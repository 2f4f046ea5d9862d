"""The pictures of a contest, for any event: what they show, and what to say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.pictures.artist import Artist, Sheet, number
from unsup.pictures.images import png_bytes, without_waste
from unsup.pictures.plots import Lines, Plane
from unsup.pictures.tables import Table
from unsup.pictures.tiles import Text, Tiles, has_letters

_TOP = 48


@dataclass(frozen=True)
class Drawn:
    """A picture with what to say of it.

    Attributes:
        png: the file.
        alt: what is seen, for who does not see it.
        caption: what it is and how to read it.
        scale: screen pixels that one of its own takes.
    """

    png: bytes
    alt: str
    caption: str
    scale: int


class Gallery:
    """Draws examples of one event. Axes, limits and levels come from the training data alone.

    So two pictures of the same method are at the same scale, whoever's samples they show. Every method is a function
    of its arguments: the same input gives the same bytes. Examples with an entry that is not finite are left out, and
    the caption counts them.

    Args:
        event: what one example is.
        train_x: raw training examples ``(N, *event.shape)``.
        names: of the columns of a table.

    >>> x = torch.arange(64).view(4, 1, 4, 4).remainder(16).to(torch.uint8)
    >>> from unsup import Support
    >>> gallery = Gallery(Event((1, 4, 4), Support("ordinal", 16)), x)
    >>> gallery.examples(x, "real examples").alt
    'Real examples: a grid of 4 images in 4 columns.'
    """

    def __init__(self, event: Event, train_x: Tensor, *, names: Sequence[str] | None = None) -> None:
        event.check_shape(train_x)
        if not len(train_x):
            raise InputError("0 training examples given; expected 1 or more, from which the scale is taken")
        if names is not None and len(names) != event.dims:
            raise InputError(f"{len(names)} names of columns given; expected {event.dims}, one for each")
        self.event = event
        self.artist = _artist(event, train_x.detach().cpu(), names)

    def examples(self, x: Tensor, what: str) -> Drawn | None:
        """Examples at a glance; ``what`` they are, e.g. ``"samples of made"``."""
        (x,), left_out = self._finite(x)
        return _drawn(self.artist.examples(x), what, left_out) if len(x) else None

    def reconstructions(self, x: Tensor, x_hat: Tensor) -> Drawn | None:
        """Examples ``(N, *event.shape)`` with their reconstructions."""
        (x, x_hat), left_out = self._finite(x, x_hat, examples=2)
        if not len(x):
            return None
        return _drawn(self.artist.pairs(x, x_hat, ("originals", "reconstructions")), "reconstructions", left_out)

    def neighbours(self, samples: Tensor, nearest_train: Tensor) -> Drawn | None:
        """Samples with the nearest training example of each, row by row."""
        (samples, nearest_train), left_out = self._finite(samples, nearest_train, examples=2)
        if not len(samples):
            return None
        names = ("samples", "nearest training examples")
        return _drawn(
            self.artist.pairs(samples, nearest_train, names), "samples and their nearest neighbours", left_out
        )

    def interpolation(self, rows: Tensor) -> Drawn | None:
        """``(R, S, *event.shape)``: each row a path in S ≥ 2 steps between two real examples."""
        finite = torch.isfinite(rows.double()).flatten(1).all(1)
        left_out, rows = int((~finite).sum()), rows[finite].detach().cpu()
        if not len(rows) or rows.shape[1] < 2:
            return None
        ends = "The first and the last of each are the codes of two real examples, decoded."
        return _drawn(self.artist.paths(rows), "interpolation in the space of codes", left_out, ends)

    def extremes(self, x: Tensor, nats: Tensor, most: bool) -> Drawn | None:
        """The likeliest (``most``) or the least likely of the examples, the most extreme first.

        Args:
            nats: −log p of each example ``(N,)``, fewer is likelier; of an unnormalised model the energy.
        """
        (x, nats), left_out = self._finite(x, nats)
        if not len(x):
            return None
        order = nats.argsort(descending=not most, stable=True)
        nats = nats[order].double()
        sheet = self.artist.ranked(x[order], [number(v) for v in nats[: 2 * _TOP].tolist()])
        first, last = (number(float(nats[i])) for i in (0, sheet.shown - 1))
        what = f"the {'likeliest' if most else 'least likely'} of {len(x):,} examples"
        reach = f"−log p from {first} to {last} nats." if sheet.shown > 1 else f"−log p is {first} nats."
        return _drawn(sheet, what, left_out, reach)

    def anomaly_ranking(self, x: Tensor, scores: Tensor, is_anomaly: Tensor) -> Drawn | None:
        """The examples of the highest ``scores`` (more anomalous is higher), the highest first.

        Args:
            is_anomaly: bool ``(N,)``: the truth.
        """
        (x, scores, is_anomaly), left_out = self._finite(x, scores, is_anomaly)
        if not len(x):
            return None
        order = scores.argsort(descending=True, stable=True)[:_TOP]
        marks = is_anomaly[order].bool()
        sheet = self.artist.marked(x[order], marks.tolist())
        top, everywhere = float(marks.double().mean()), float(is_anomaly.double().mean())
        share = (
            f"Of the top {len(order)}, {int(marks.sum())} are anomalies ({top:.0%}); of all {len(x):,} examples, "
            f"{int(is_anomaly.sum()):,} ({everywhere:.0%})."
        )
        share += f" The first {sheet.shown} are shown." if sheet.shown < len(order) else ""
        return _drawn(sheet, "examples that the model finds strangest", left_out, share)

    def bits(self, x: Tensor, bits: Tensor) -> Drawn | None:
        """Examples with the bits of every flattened entry ``(N, D)``, as `bits_by_dimension` gives them."""
        if bits.shape != (len(x), self.event.dims):
            raise InputError(f"bits have shape {tuple(bits.shape)}; expected {(len(x), self.event.dims)}")
        (x, bits), left_out = self._finite(x, bits)
        if not len(x):
            return None
        endless = int((bits == math.inf).sum())
        said = f"{endless:,} entries have probability 0: infinitely many bits." if endless else ""
        return _drawn(self.artist.bits(x, bits), "what each part of an example costs", left_out, said)

    def _finite(self, *tensors: Tensor, examples: int = 1) -> tuple[list[Tensor], int]:
        """The rows where the first ``examples`` tensors are finite and the others no NaN; how many are left out."""
        rows = [t.detach().cpu() for t in tensors]
        kept = torch.ones(len(rows[0]), dtype=torch.bool)
        for i, t in enumerate(rows):
            if i < examples:
                self.event.check_shape(t)
            if len(t) != len(kept):
                raise InputError(f"{len(kept)} examples and {len(t)} rows beside them given; expected as many")
            flat = (t[:, None] if t.ndim == 1 else t.flatten(1)).double()
            kept &= (flat.isfinite() if i < examples else ~flat.isnan()).all(1)
        return [t[kept] for t in rows], int((~kept).sum())


def _artist(event: Event, train_x: Tensor, names: Sequence[str] | None) -> Artist:
    support = event.uniform
    if event.layout in ("image", "video") and support is not None:
        return Tiles(event, train_x)
    if event.layout == "sequence" and support is not None:
        if has_letters(event, train_x):
            return Text(event, train_x)
        ordered = support.kind in ("real", "ordinal")
        return Lines(event, train_x) if ordered else Tiles(event, train_x)
    if event.shape == (2,) and event.is_real:
        return Plane(event, train_x)
    return Table(event, train_x, names)


def _drawn(sheet: Sheet, what: str, left_out: int, said: str = "") -> Drawn:
    title = what[:1].upper() + what[1:]
    missing = f"{left_out:,} with values that are not finite are left out." if left_out else ""
    sentences = [s for s in (said, sheet.reading, missing) if s]
    alt = " ".join([f"{title}: {sheet.layout}.", *([said] if said else [])])
    return Drawn(png_bytes(without_waste(sheet.image)), alt, " ".join([f"{title}.", *sentences]), sheet.scale)
