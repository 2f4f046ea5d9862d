"""Pictures of any event, with their texts."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.pictures.artist import Artist, Sheet, number
from unsup.pictures.images import png_bytes, without_waste
from unsup.pictures.plots import STYLE, Lines, Plane
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


def finished(sheet: Sheet, what: str, missing: str = "") -> Drawn:
    """The file of a drawn picture; ``what`` describes it, and ``missing`` is a sentence on what is not in it."""
    title = what[:1].upper() + what[1:]
    alt = f"{title}: {sheet.layout}. {sheet.note}".rstrip()
    caption = " ".join(filter(None, (f"{title}.", sheet.note, sheet.reading, missing)))
    return _file(without_waste(sheet.image), Drawn(b"", alt, caption, sheet.scale, sheet.plot, sheet.shown))


class Gallery:
    """Draws examples of one event. Axes, limits and levels depend on the training data only.

    So pictures of different models have the same scale. Every method is deterministic: the same input gives the same
    bytes. Examples with an entry that is not finite are removed, and the caption has their number. If all training
    examples have gaps, these take the values before them. ``lengths`` are the lengths of the open first axis of the
    examples. A method returns None if there is nothing to draw.

    Args:
        event: the type of an example.
        train_x: raw training examples ``(N, *event.shape)``.
        lengths: of the training examples, if the event is open.
        names: of the columns of a table.
        rate: samples per second, of recordings.
        letters: the character of each token, of texts whose tokens are characters.
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
        letters: str = "",
        whole: bool = False,
    ) -> None:
        if names is not None and len(names) != event.dims:
            raise InputError(f"{len(names)} names of columns given; expected {event.dims}, one for each")
        self.event, self.names, most = event, names, max(16, _VALUES // event.dims)
        (train,), _ = self._finite(train_x[:most], lengths=None if lengths is None else lengths[:most])
        self.carried = not len(train) and lengths is None and bool(train_x[:most].isfinite().any())
        if self.carried:
            train = _carried(train_x[:most].detach().cpu())
        if not len(train):
            raise InputError(f"none of {len(train_x):,} examples is finite; expected one or more, for the scale")
        self.artist = _artist(event, train, names, rate, whole, letters)
        self.wanted = self.artist.wanted

    def examples(self, x: Tensor, what: str, *, lengths: Tensor | None = None, beside: bool = False) -> Drawn | None:
        """Examples; ``what`` describes them, e.g. ``"samples of made"``.

        Args:
            beside: show some training examples next to them.
        """
        return self._draw(what, lambda x: self.artist.examples(x, beside), x, lengths=lengths)

    def translations(self, a: Tensor, b: Tensor, back: Tensor) -> Drawn | None:
        """Examples of domain A, their translations to B, and these translated back to A."""
        what = "an example of domain A, its translation to B, and that translated back to A"
        return self._sets(what, (a, b, back))

    def colourings(self, grey: Tensor, coloured: Tensor, true: Tensor) -> Drawn | None:
        """Grey pictures, with the colours that a model predicts for them, and with their own."""
        return self._sets("a grey picture, its predicted colours, and its own", (grey, coloured, true))

    def reconstructions(self, x: Tensor, x_hat: Tensor, *, lengths: Tensor | None = None) -> Drawn | None:
        """Examples ``(N, *event.shape)`` with their reconstructions."""
        return self._sets("reconstructions", (x, x_hat), ("originals", "reconstructions"), lengths)

    def neighbours(self, samples: Tensor, nearest_train: Tensor) -> Drawn | None:
        """Samples with the nearest training example of each, row by row."""
        names = ("samples", "nearest training examples")
        return self._sets("samples and their nearest neighbours", (samples, nearest_train), names)

    def nearest(self, x: Tensor, near: Tensor, words: Sequence[str]) -> Drawn | None:
        """An example ``(*event.shape)``, then those that are nearest to it, ``(K, *event.shape)``, with K words."""

        def draw(rows: Tensor) -> Sheet:
            if isinstance(self.artist, Tiles):
                return self.artist.sets(rows.double()[None])
            return self.artist.ranked(rows, ["own", *words][: len(rows)])

        return self._draw("an example, and those that are nearest to it", draw, torch.cat([x[None].to(near), near]))

    def interpolation(self, rows: Tensor) -> Drawn | None:
        """``(R, S, *event.shape)``: each row a path in S ≥ 2 steps between two real examples."""
        what = "interpolation from the decoded code of a real example to that of another"
        return self._sets(what, rows.unbind(1)) if rows.shape[1] > 1 else None

    def views(self, rows: Tensor, what: str) -> Drawn | None:
        """``(R, S, *event.shape)``: each row an example and its S − 1 views."""
        steps = [step.double() for step in rows.unbind(1)]
        return self._draw(what, lambda *steps: self.artist.views(torch.stack(steps, 1)), *steps, examples=len(steps))

    def extremes(self, x: Tensor, nats: Tensor, most: bool, *, lengths: Tensor | None = None) -> Drawn | None:
        """The most likely (``most``) or least likely examples, the most extreme first.

        Args:
            nats: −log p of each example ``(N,)``; the energy of an unnormalised model.
        """

        def draw(x: Tensor, nats: Tensor) -> Sheet:
            order = nats.argsort(descending=not most, stable=True)
            words = [number(v) for v in nats[order].double().tolist()]
            sheet = self.artist.ranked(x[order], words)
            ends = f"from {words[0]} to {words[sheet.shown - 1]}" if sheet.shown > 1 else f"is {words[0]}"
            return replace(sheet, note=f"−log p {ends} nats.")

        what = f"the {'likeliest' if most else 'least likely'} of {len(x):,} examples"
        return self._draw(what, draw, x, nats, lengths=lengths)

    def anomaly_ranking(
        self, x: Tensor, scores: Tensor, is_anomaly: Tensor, *, lengths: Tensor | None = None
    ) -> Drawn | None:
        """The examples with the highest ``scores`` (higher is more anomalous), in decreasing order.

        Args:
            is_anomaly: bool ``(N,)``: the truth.
        """

        def draw(x: Tensor, scores: Tensor, is_anomaly: Tensor) -> Sheet:
            order = scores.argsort(descending=True, stable=True)[:_TOP]
            marks = is_anomaly[order].bool()
            sheet = self.artist.ranked(x[order], ["▲ anomaly" if mark else "" for mark in marks], marks.tolist())
            top, everywhere = float(marks.double().mean()), float(is_anomaly.double().mean())
            note = (
                f"Of the top {len(order)}, {int(marks.sum())} are anomalies ({top:.0%}); of all {len(x):,} examples, "
                f"{int(is_anomaly.sum()):,} ({everywhere:.0%})."
            )
            note += f" The first {sheet.shown} are shown." if sheet.shown < len(order) else ""
            note += " Anomalies have a triangle or an orange frame."
            return replace(sheet, note=note)

        return self._draw("examples with the highest anomaly scores", draw, x, scores, is_anomaly, lengths=lengths)

    def bits(
        self,
        x: Tensor,
        bits: Tensor,
        *,
        lengths: Tensor | None = None,
        among: Tensor | None = None,
        unit: str = "bits",
    ) -> Drawn | None:
        """Examples with the bits of every flattened entry ``(N, D)``, from `bits_by_dimension`.

        Args:
            among: the bits ``(M, D)`` of all examples that share the colour scale, by default those given.
            unit: of the numbers, in the plural.
        """
        if bits.shape != (len(x), self.event.dims):
            raise InputError(f"bits have shape {tuple(bits.shape)}; expected {(len(x), self.event.dims)}")

        def draw(x: Tensor, bits: Tensor) -> Sheet:
            infinite = int((bits == math.inf).sum())
            note = f"{infinite:,} entries have probability 0: infinitely many {unit}." if infinite else ""
            return replace(self.artist.bits(x, bits, bits if among is None else among, unit), note=note)

        return self._draw(f"{unit} of each part of an example", draw, x, bits, lengths=lengths)

    def _sets(
        self, what: str, steps: Sequence[Tensor], names: tuple[str, ...] = (), lengths: Tensor | None = None
    ) -> Drawn | None:
        def draw(*steps: Tensor) -> Sheet:
            return self.artist.sets(torch.stack([step.double() for step in steps], 1), names)

        return self._draw(what, draw, *steps, examples=len(steps), lengths=lengths)

    def _draw(
        self, what: str, draw: Callable[..., Sheet], *rows: Tensor, examples: int = 1, lengths: Tensor | None = None
    ) -> Drawn | None:
        """What ``draw`` makes of the finite rows, with its texts; None if there are none."""
        from matplotlib import rc_context  # slow to import, and only pictures need it

        kept, removed = self._finite(*rows, examples=examples, lengths=lengths)
        if not len(kept[0]):
            return None
        with rc_context(STYLE):
            sheet = draw(*kept)
        removals = f"{removed:,} with values that are not finite are left out." if removed else ""
        gaps = "All training examples have gaps, which take the values before them here." if self.carried else ""
        return finished(sheet, what, " ".join(filter(None, (removals, gaps))))

    def _finite(self, *rows: Tensor, examples: int = 1, lengths: Tensor | None = None) -> tuple[list[Tensor], int]:
        """The rows whose first ``examples`` tensors are finite and others not NaN, and the number of other rows."""
        found, kept = [], torch.ones(len(rows[0]), dtype=torch.bool)
        for i, given in enumerate(rows):
            t, is_example = given.detach().cpu(), i < examples
            if is_example:
                self.event.check_shape(t)
            if len(t) != len(kept):
                raise InputError(f"{len(kept)} examples and {len(t)} rows beside them given; expected equal numbers")
            known = t.isfinite() if is_example else ~t.isnan()
            if is_example and lengths is not None:
                padding = self.event.padding(lengths.cpu()).view(len(t), -1, *(1,) * (t.ndim - 2))
                known |= padding
                t = torch.where(padding, math.nan, t.double())
            kept &= known.reshape(len(t), math.prod(t.shape[1:])).all(1)
            found.append(t)
        return [t[kept] for t in found], int((~kept).sum())


def _carried(x: Tensor) -> Tensor:
    """Examples ``(N, …, C)`` whose gaps have the last finite value of the same column before them, or the first one."""
    rows = x.double().reshape(-1, x.shape[-1])
    for _ in range(2):  # forwards, then backwards for the gaps at the start
        at = torch.where(rows.isfinite(), torch.arange(len(rows))[:, None], 0)
        rows = rows.gather(0, at.cummax(0).values).flip(0)
    return rows.nan_to_num(0.0, 0.0, 0.0).view(x.shape)


def _artist(
    event: Event, train_x: Tensor, names: Sequence[str] | None, rate: float | None, whole: bool, letters: str
) -> Artist:
    support = event.uniform
    if event.layout in ("image", "video"):
        return Tiles(event, train_x, whole)
    if (event.layout == "sequence" or event.open) and support is not None and len(event.shape) <= 2:
        if support.kind in ("real", "ordinal"):
            # 16-bit levels are sound; other sound has a rate.
            sound = math.prod(event.shape[1:]) == 1 and (rate is not None or support.levels == _PCM)
            return Lines(event, train_x, rate, sound)
        return Text(event, train_x, whole, letters) if len(event.shape) == 1 else Tiles(event, train_x, whole)
    return Plane(event, train_x, names) if event.shape == (2,) and event.is_real else Table(event, train_x, names)
