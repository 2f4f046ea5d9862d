"""The page of ``unsup outliers``: the most unlikely rows, and what makes them unlikely."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import unsup
from unsup.core.escapes import command_line, visible
from unsup.data.form import Form
from unsup.evaluate.outliers import Entry, Outlier
from unsup.pictures.artist import Artist
from unsup.pictures.gallery import Gallery
from unsup.pictures.plots import Plane
from unsup.pictures.tables import Table
from unsup.pictures.text import Text
from unsup.report.album import Shown, embedded
from unsup.report.pages import Page, footer, render, sections

_AROUND = 12  # tokens of a text on each side of the one that is shown


def outlier_page(
    data: str,
    how: str,
    ranking: Sequence[Outlier],
    scores: Tensor,
    x: Tensor,
    gallery: Gallery,
    form: Form | None = None,
) -> str:
    """The page as HTML: a table with the columns responsible, or pictures with the parts that are responsible.

    Args:
        data: the data as the user named it.
        how: the detector, in words.
        ranking: the rows to show.
        scores: of all rows, ``(N,)``.
        x: all raw rows.
        gallery: of the rows.
        form: of the data, which has the words of categories and dates.
    """
    usual, highest = float(scores.median()), ranking[0]
    summary = (
        f"The most unlikely of {len(x):,} rows is {highest.name}, with a score of {nats(highest.score)} nats; half of "
        f"all rows are below {nats(usual)}.",
        "A high score means that a row is unlikely, not that it is wrong.",
    )
    tabular = is_tabular(gallery.artist)
    lines = [_row(o, causes(o, x[o.row], gallery.artist, form)) for o in ranking] if tabular else []
    among = torch.stack([_excess(o) for o in ranking])
    pictures = [] if tabular else [_picture(o, x[o.row], gallery, among) for o in ranking]
    command = command_line(["unsup", "outliers", data, "-o", "outliers.csv"])
    caption = "The most unlikely rows, the most unlikely first"
    heads = ["Row", "Score, nats", {"text": "Most unusual values", "class": "words"}]
    table = ("table", lines, "rows", caption, heads, "plain outliers", True)
    page = Page(
        title=f"Outliers of {data}",
        brand="unsup outliers",
        about=f"Scored by {how}",
        summary=summary,
        next=(("Write all rows with their scores:", command),),
        sections=sections(
            ("rows", "Rows", [("legend", lines, "outliers"), table]),
            ("pictures", "Rows", [("legend", pictures, "unusual"), ("gallery", pictures, "h3")]),
        ),
        footer=footer({"unsup": unsup.__version__, "time": time.strftime("%Y-%m-%d %H:%M")}),
    )
    return render(page)


def _row(outlier: Outlier, found: Sequence[tuple[str, str, str, str]]) -> list[Any]:
    reasons = [(f"{before}{entry}{after}", what) for before, entry, after, what in found]
    return [outlier.name, nats(outlier.score), {"text": "", "named": reasons}]


def is_tabular(artist: Artist) -> bool:
    """Whether the entries of a row have names that say more than their position."""
    return isinstance(artist, Table | Plane)


def causes(outlier: Outlier, row: Tensor, artist: Artist, form: Form | None = None) -> list[tuple[str, str, str, str]]:
    """The entries responsible, as text: (before, entry, after, explanation), of which the entry is emphasised."""
    if not isinstance(artist, Text):
        return [("", e.column, "", f" = {_compared(e, form)} (+{nats(e.nats)})") for e in outlier.entries]
    found = []
    for e in outlier.entries:
        i = e.position
        parts = [
            artist.string(row[slice(*ends)])
            for ends in ((max(0, i - _AROUND), i), (i, i + 1), (i + 1, i + 1 + _AROUND))
        ]
        before, after = "…" * (i > _AROUND), "…" * (i + 1 + _AROUND < len(row))
        space = "" if artist.cell == 1 else " "
        found.append(
            (f"“{before}{parts[0]}{space}", parts[1], f"{space}{parts[2]}{after}”", f" (+{nats(e.nats)} nats)")
        )
    return found


def told(entry: Entry, form: Form | None) -> str:
    """The value of an entry: its category or date in words, or its number."""
    word = None if form is None else form.word(entry.position, entry.value)
    return plain(entry.value) if word is None else visible(word)


def _compared(entry: Entry, form: Form | None) -> str:
    """The value, and of a number the usual one; categories have no median."""
    is_number = form is None or form.word(entry.position, entry.value) is None
    return f"{told(entry, form)}{f', usually {plain(entry.typical)}' if is_number else ''}"


def plain(value: float) -> str:
    """Four digits.

    >>> plain(-1.5)
    '−1.5'
    """
    return f"{value:.4g}".replace("-", "−")


def nats(value: float) -> str:
    """Two decimals, or four digits if the number is large.

    >>> nats(1234.567), nats(-2.5e9)
    ('1,234.57', '−2.5e+09')
    """
    return (f"{value:,.2f}" if abs(value) < 1e6 else f"{value:.4g}").replace("-", "−")


def _excess(outlier: Outlier) -> Tensor:
    """The nats by which each part is more surprising than usual, ``(D,)``."""
    return outlier.excess.clamp(min=0)


def _picture(outlier: Outlier, row: Tensor, gallery: Gallery, among: Tensor) -> Shown:
    """The example with the nats by which each part is more surprising than usual, on the colour scale of ``among``."""
    title = f"{outlier.rank}. {outlier.name}"
    drawn = gallery.bits(row[None], _excess(outlier)[None], among=among, unit="nats")
    caption = f"Score {nats(outlier.score)} nats."
    if isinstance(gallery.artist, Text):
        found = "; ".join(f"{a}[{b}]{c}{d}" for a, b, c, d in causes(outlier, row, gallery.artist))
        caption += f" Least expected: {found}." if found else ""
    if drawn is None:
        return Shown(title, caption, reason="cannot be drawn: its values are not finite")
    alt = f"The example {outlier.name}, rank {outlier.rank}, and how surprising each part is."
    reading = drawn.caption.partition(". ")[2]
    return embedded(drawn.png, alt, title, f"{caption} {reading}", drawn.scale, plot=drawn.plot)
