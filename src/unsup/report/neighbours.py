"""The page of ``unsup neighbours``: each example with the training examples whose codes are nearest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

import unsup
from unsup.core.words import counted
from unsup.data.form import Form
from unsup.pictures.artist import number
from unsup.pictures.gallery import Gallery
from unsup.pictures.plots import Lines
from unsup.pictures.text import Text
from unsup.pictures.tiles import Tiles
from unsup.report.album import Shown, embedded
from unsup.report.pages import Page, Parts, footer, render, sections

MOST = 100
"""Examples on a page."""
_ROUNDING = 1e-13  # of a cosine
_ENTRIES, _LETTERS = 12, 160  # of an example that is shown as words


def neighbours_page(
    title: str,
    names: Sequence[str],
    asked: Tensor,
    train: Tensor,
    rows: Tensor,
    cosines: Tensor,
    named: Callable[[int], str],
    gallery: Gallery,
    form: Form | None = None,
) -> str:
    """The page as HTML: a picture of each example and its neighbours where they have one each, else a table.

    Args:
        title: model and data.
        names: of the examples.
        asked: raw examples ``(M, *event.shape)``.
        train: raw training examples.
        rows: the nearest ones, ``(M, K)``.
        cosines: their cosines, ``(M, K)``, told as 1 − cosine.
        named: the name of a training example.
        gallery: of the training data.
        form: of the training data.
    """
    shown = range(min(MOST, len(names)))
    pictured = isinstance(gallery.artist, Tiles | Lines)
    parts: list[Parts] = []
    if pictured:
        found = [_picture(names[i], asked[i], train[rows[i]], rows[i], cosines[i], named, gallery) for i in shown]
        parts = [("gallery", found, "h3")]
    else:
        heads = ["Example", "1 − cosine", {"text": "Values", "class": "words"}]
        for i in shown:
            lines: list[Any] = [["your example", "", words_of(asked[i], gallery, form)]]
            lines += [
                [named(row), distance_word(cosine), words_of(train[row], gallery, form)]
                for row, cosine in zip(rows[i].tolist(), cosines[i].tolist(), strict=True)
            ]
            parts += [
                ("heading", names[i]),
                ("table", lines, f"near-{i}", f"Nearest to {names[i]}", heads, "plain", True),
            ]
    summary = [
        f"{counted(len(names), 'example')}, each with the {rows.shape[1]} of {len(train):,} training examples whose "
        "codes are nearest.",
        "Near means a high cosine of the codes of this model: another model finds other neighbours.",
    ]
    if len(names) > MOST:
        summary.append(f"The first {MOST} are shown.")
    page = Page(
        title=f"Nearest training examples: {title}",
        brand="unsup neighbours",
        about="Your examples come first, then the training examples in the order of their cosines",
        summary=tuple(summary),
        next=(),
        sections=sections(("neighbours", "Neighbours", parts)),
        footer=footer({"unsup": unsup.__version__, "time": time.strftime("%Y-%m-%d %H:%M")}),
    )
    return render(page)


def distance_word(cosine: float) -> str:
    """1 − cosine to four digits: cosines of neighbours may all be 1.000.

    >>> distance_word(0.99987654), distance_word(1 + 1e-16)
    ('0.0001235', '0')
    """
    distance = 1 - cosine
    return f"{distance:.4g}" if distance > _ROUNDING else "0"


def words_of(row: Tensor, gallery: Gallery, form: Form | None = None) -> str:
    """The first entries of an example as words: text, or columns with their values."""
    if isinstance(gallery.artist, Text):
        text = gallery.artist.string(row)
        return text if len(text) <= _LETTERS else f"{text[:_LETTERS]}…"
    values = row.flatten()[:_ENTRIES].tolist()
    names = gallery.names or [str(d) for d in range(len(values))]
    found = []
    for d, value in enumerate(values):
        word = None if form is None else form.word(d, value)
        found.append(f"{names[d]} = {number(value) if word is None else word}")
    return "; ".join(found) + ("; …" if row.numel() > _ENTRIES else "")


def _picture(
    name: str,
    own: Tensor,
    near: Tensor,
    rows: Tensor,
    cosines: Tensor,
    named: Callable[[int], str],
    gallery: Gallery,
) -> Shown:
    told = [
        f"{named(row)} {distance_word(cosine)}" for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)
    ]
    drawn = gallery.nearest(own, near, told)
    caption = f"Training examples and 1 − cosine: {', '.join(told)}."
    if drawn is None:
        return Shown(name, caption, reason="cannot be drawn: its values are not finite")
    alt = f"{name}, and the {len(near)} training examples with the nearest codes."
    return embedded(drawn.png, alt, name, caption, drawn.scale, plot=drawn.plot)
