"""The page of ``unsup outliers``: the oddest rows, with the columns or pixels that make them so."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

import unsup
from unsup.core.escapes import command_line
from unsup.core.event import Event
from unsup.evaluate.outliers import Entry, Outlier
from unsup.pictures.images import plain_image, png_bytes
from unsup.report.album import Shown, embedded
from unsup.report.pages import Page, Section, footer, render, shown

_SIDE = 96
"""Screen pixels that a picture of an example is wide, about."""


@dataclass(frozen=True)
class Line:
    """A row of the table of the page.

    Attributes:
        entries: what makes it odd, each as (column, what it holds and what is usual, nats).
    """

    rank: int
    row: int
    name: str
    score: str
    entries: tuple[tuple[str, str, str], ...]


def outlier_page(data: str, how: str, ranking: Sequence[Outlier], scores: Tensor, x: Tensor, event: Event) -> str:
    """The page as HTML.

    Args:
        data: what was ranked, as the user named it.
        how: what it was scored by, in words.
        ranking: the rows to show.
        scores: of all rows, ``(N,)``.
        x: all raw rows.
    """
    lines = [Line(o.rank, o.row, o.name, f"{o.score:.2f}", tuple(map(_entry, o.entries))) for o in ranking]
    usual, highest = float(scores.median()), ranking[0]
    summary = [
        f"The oddest of {len(x):,} rows is {highest.name}, with a score of {highest.score:.2f} nats; half of all rows "
        f"are below {usual:.2f}.",
        "A high score means that a row is unlikely, not that it is wrong.",
    ]
    command = command_line(["unsup", "outliers", data, "-o", "outliers.csv"])
    pictures = [_picture(o, x[o.row], event) for o in ranking] if event.is_image and event.shape[0] in (1, 3) else []
    page = Page(
        title=f"Outliers of {data}",
        brand="unsup outliers",
        about=f"Scored by {how}",
        summary=tuple(summary),
        next=(("Write all rows with their scores:", command),),
        sections=shown(Section("rows", "Rows", lines), Section("pictures", "Pictures", pictures)),
        footer=footer({"unsup": unsup.__version__, "time": time.strftime("%Y-%m-%d %H:%M")}),
    )
    return render("outliers.html", page=page)


def _entry(entry: Entry) -> tuple[str, str, str]:
    return entry.column, f"{entry.value:.4g}, usually {entry.typical:.4g}", f"+{entry.nats:.1f}"


def _picture(outlier: Outlier, x: Tensor, event: Event) -> Shown:
    image = plain_image(x, event)
    scale = max(1, math.floor(_SIDE / image.width))
    alt = f"the example {outlier.name}, rank {outlier.rank}"
    return embedded(png_bytes(image), alt, f"{outlier.rank}. {outlier.name}", f"{outlier.score:.2f}", scale, plot=False)
