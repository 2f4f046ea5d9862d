"""Pictures of any event, with their texts."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.pictures.artist import Artist, Sheet, number
from unsup.pictures.images import png_bytes, without_waste
from unsup.pictures.plots import Lines, Plane
from unsup.pictures.tables import Table
from unsup.pictures.text import Text
from unsup.pictures.tiles import Tiles

_TOP = 48
_PCM = 65_536  # levels of 16-bit sound
_VALUES = 2**24  # of the training examples for the scale
_LARGEST_SCALE = 64


@dataclass(frozen=True)
class Drawn:
    """A picture with its texts, which the PNG file also contains (see `read`).

    Attributes:
        png: the file.
        alt: alternative text.
        caption: the content and how to read it.
        scale: screen pixels per pixel.
        plot: whether it is a plot on white, which a dark page may invert; other pictures are not inverted.
        shown: number of the given examples in the picture.
    """

    png: bytes
    alt: str
    caption: str
    scale: int
    plot: bool = False
    shown: int = 0

    @classmethod
    def read(cls, png: bytes) -> Drawn:
        """The picture in a PNG file, with the texts in the file, if any.

        Raises:
            InputError: the file is not a PNG.
        """
        try:
            with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
                words = {str(k): str(v) for k, v in image.info.items() if isinstance(v, str)}
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"the picture cannot be read ({' '.join(str(error).split())}); draw it again") from error
        scale = next((n for n in range(1, _LARGEST_SCALE + 1) if words.get("scale") == str(n)), 1)
        return cls(png, words.get("Description", ""), words.get("caption", ""), scale, words.get("plot") == "yes")

    def enlarged(self) -> Drawn:
        """The picture at its size on a page, for viewers that do not support the scale."""
        with Image.open(io.BytesIO(self.png)) as image:
            large = image.resize((image.width * self.scale, image.height * self.scale), Image.Resampling.NEAREST)
        return _file(large, replace(self, scale=1))


def _file(image: Image.Image, drawn: Drawn) -> Drawn:
    """``drawn`` with the file of ``image`` and its texts."""
    plot = "yes" if drawn.plot else "no"
    words = {"Description": drawn.alt, "caption": drawn.caption, "scale": str(drawn.scale), "plot": plot}
    return replace(drawn, png=png_bytes(image, words))


class Gallery:
    """Draws examples of one event. Axes, limits and levels depend on the training data only.

    So pictures of different models have the same scale. Every method is deterministic: the same input gives the same
    bytes. Examples with an entry that is not finite are removed, and the caption has their number. ``lengths`` are the
    lengths of the open first axis of the examples.

    Args:
        event: the type of an example.
        train_x: raw training examples ``(N, *event.shape)``.
        lengths: of the training examples, if the event is open.
        names: of the columns of a table.
        rate: samples per second, of recordings.
        whole: draw images at full size and all given examples, for a separate file instead of a page.

    >>> x = torch.arange(64).view(4, 1, 4, 4).remainder(16).to(torch.uint8)
    >>> from unsup import Support
    >>> gallery = Gallery(Event((1, 4, 4), Support("ordinal", 16)), x)
    >>> gallery.examples(x, "real examples").alt
    'Real examples: a grid of 4 images in 4 columns.'
    """

    def __init__(
        self,
        event: Event,
        train_x: Tensor,
        *,
        lengths: Tensor | None = None,
        names: Sequence[str] | None = None,
        rate: float | None = None,
        whole: bool = False,
    ) -> None:
        if names is not None and len(names) != event.dims:
            raise InputError(f"{len(names)} names of columns given; expected {event.dims}, one for each")
        self.event, most = event, max(16, _VALUES // event.dims)
        (self.real,), _ = self._finite(train_x[:most], lengths=None if lengths is None else lengths[:most])
        if not len(self.real):
            raise InputError(f"none of {len(train_x):,} examples is finite; expected one or more, for the scale")
        self.artist = _artist(event, self.real, names, rate, whole)
        self.wanted = self.artist.wanted

    def examples(self, x: Tensor, what: str, *, lengths: Tensor | None = None, beside: bool = False) -> Drawn | None:
        """Examples; ``what`` describes them, e.g. ``"samples of made"``.

        Args:
            beside: show some training examples next to them.
        """
        (x,), removed = self._finite(x, lengths=lengths)
        return _drawn(self.artist.examples(x, self.real if beside else None), what, removed) if len(x) else None

    def translations(self, a: Tensor, b: Tensor, back: Tensor) -> Drawn | None:
        """Examples of domain A, their translations to B, and these translated back to A."""
        (a, b, back), removed = self._finite(a, b, back, examples=3)
        note = "In order: an example of domain A, its translation to B, and that translated back to A."
        rows = torch.stack([a, b, back], 1)
        return _drawn(self.artist.paths(rows), "translations", removed, note) if len(a) else None

    def reconstructions(self, x: Tensor, x_hat: Tensor, *, lengths: Tensor | None = None) -> Drawn | None:
        """Examples ``(N, *event.shape)`` with their reconstructions."""
        return self._pairs(x, x_hat, ("originals", "reconstructions"), "reconstructions", lengths)

    def neighbours(self, samples: Tensor, nearest_train: Tensor) -> Drawn | None:
        """Samples with the nearest training example of each, row by row."""
        names = ("samples", "nearest training examples")
        return self._pairs(samples, nearest_train, names, "samples and their nearest neighbours", None)

    def _pairs(
        self, first: Tensor, second: Tensor, names: tuple[str, str], what: str, lengths: Tensor | None
    ) -> Drawn | None:
        (first, second), removed = self._finite(first, second, examples=2, lengths=lengths)
        return _drawn(self.artist.pairs(first, second, names), what, removed) if len(first) else None

    def interpolation(self, rows: Tensor) -> Drawn | None:
        """``(R, S, *event.shape)``: each row a path in S ≥ 2 steps between two real examples."""
        finite = torch.isfinite(rows.double()).flatten(1).all(1)
        removed, rows = int((~finite).sum()), rows[finite].detach().cpu()
        if not len(rows) or rows.shape[1] < 2:
            return None
        note = "The first and last of each row are the decoded codes of two real examples."
        return _drawn(self.artist.paths(rows), "interpolation in the space of codes", removed, note)

    def extremes(self, x: Tensor, nats: Tensor, most: bool, *, lengths: Tensor | None = None) -> Drawn | None:
        """The most likely (``most``) or least likely examples, the most extreme first.

        Args:
            nats: −log p of each example ``(N,)``; the energy of an unnormalised model.
        """
        (x, nats), removed = self._finite(x, nats, lengths=lengths)
        if not len(x):
            return None
        order = nats.argsort(descending=not most, stable=True)
        words = [number(v) for v in nats[order].double().tolist()]
        sheet = self.artist.ranked(x[order], words[: 2 * _TOP])
        what = f"the {'likeliest' if most else 'least likely'} of {len(x):,} examples"
        last = words[sheet.shown - 1]
        note = f"−log p from {words[0]} to {last} nats." if sheet.shown > 1 else f"−log p is {words[0]} nats."
        return _drawn(sheet, what, removed, note)

    def anomaly_ranking(
        self, x: Tensor, scores: Tensor, is_anomaly: Tensor, *, lengths: Tensor | None = None
    ) -> Drawn | None:
        """The examples with the highest ``scores`` (higher is more anomalous), in decreasing order.

        Args:
            is_anomaly: bool ``(N,)``: the truth.
        """
        (x, scores, is_anomaly), removed = self._finite(x, scores, is_anomaly, lengths=lengths)
        if not len(x):
            return None
        order = scores.argsort(descending=True, stable=True)[:_TOP]
        marks = is_anomaly[order].bool()
        sheet = self.artist.ranked(x[order], [], marks.tolist())
        top, everywhere = float(marks.double().mean()), float(is_anomaly.double().mean())
        note = (
            f"Of the top {len(order)}, {int(marks.sum())} are anomalies ({top:.0%}); of all {len(x):,} examples, "
            f"{int(is_anomaly.sum()):,} ({everywhere:.0%})."
        )
        note += f" The first {sheet.shown} are shown." if sheet.shown < len(order) else ""
        return _drawn(sheet, "examples with the highest anomaly scores", removed, note)

    def bits(self, x: Tensor, bits: Tensor, *, lengths: Tensor | None = None) -> Drawn | None:
        """Examples with the bits of every flattened entry ``(N, D)``, from `bits_by_dimension`."""
        if bits.shape != (len(x), self.event.dims):
            raise InputError(f"bits have shape {tuple(bits.shape)}; expected {(len(x), self.event.dims)}")
        (x, bits), removed = self._finite(x, bits, lengths=lengths)
        if not len(x):
            return None
        infinite = int((bits == math.inf).sum())
        note = f"{infinite:,} entries have probability 0: infinitely many bits." if infinite else ""
        return _drawn(self.artist.bits(x, bits), "bits of each part of an example", removed, note)

    def _finite(self, *tensors: Tensor, examples: int = 1, lengths: Tensor | None = None) -> tuple[list[Tensor], int]:
        """The rows whose first ``examples`` tensors are finite and others not NaN, and the number of other rows."""
        rows = [t.detach().cpu() for t in tensors]
        kept = torch.ones(len(rows[0]), dtype=torch.bool)
        for i, t in enumerate(rows):
            if i < examples:
                self.event.check_shape(t)
            if len(t) != len(kept):
                raise InputError(f"{len(kept)} examples and {len(t)} rows beside them given; expected equal numbers")
            known = t.isfinite() if i < examples else ~t.isnan()
            if i < examples and lengths is not None:
                padding = _beyond(self.event, lengths)
                known |= padding
                rows[i] = torch.where(padding, math.nan, t.double())
            kept &= known.reshape(len(t), math.prod(t.shape[1:])).all(1)
        return [t[kept] for t in rows], int((~kept).sum())


def _beyond(event: Event, lengths: Tensor) -> Tensor:
    """The padding, with the number of axes of the examples."""
    return event.padding(lengths.cpu()).view(len(lengths), -1, *(1,) * (len(event.shape) - 1))


def _artist(event: Event, train_x: Tensor, names: Sequence[str] | None, rate: float | None, whole: bool) -> Artist:
    support = event.uniform
    if event.layout in ("image", "video"):
        return Tiles(event, train_x, whole)
    if (event.layout == "sequence" or event.open) and support is not None and len(event.shape) <= 2:
        if support.kind in ("real", "ordinal"):
            # 16-bit levels are sound; other sound has a rate.
            sound = math.prod(event.shape[1:]) == 1 and (rate is not None or support.levels == _PCM)
            return Lines(event, train_x, rate, sound)
        return Text(event, train_x, whole) if len(event.shape) == 1 else Tiles(event, train_x, whole)
    return Plane(event, train_x, names) if event.shape == (2,) and event.is_real else Table(event, train_x, names)


def _drawn(sheet: Sheet, what: str, removed: int, note: str = "") -> Drawn:
    title = what[:1].upper() + what[1:]
    missing = f"{removed:,} with values that are not finite are left out." if removed else ""
    alt = f"{title}: {sheet.layout}. {note}".rstrip()
    caption = " ".join(filter(None, (f"{title}.", note, sheet.reading, missing)))
    return _file(without_waste(sheet.image), Drawn(b"", alt, caption, sheet.scale, sheet.plot, sheet.shown))
