"""The page of ``unsup outliers``: the most unlikely rows, with the columns or pixels responsible."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

import unsup
from unsup.core.escapes import command_line
from unsup.core.event import Event
from unsup.evaluate.outliers import Outlier
from unsup.pictures.images import plain_image, png_bytes
from unsup.report.album import Shown, embedded
from unsup.report.pages import Page, footer, render, sections

_SIDE = 96
"""Approximate width of a picture of an example in screen pixels."""


def outlier_page(data: str, how: str, ranking: Sequence[Outlier], scores: Tensor, x: Tensor, event: Event) -> str:
    """The page as HTML.

    Args:
        data: the data as the user named it.
        how: the detector, in words.
        ranking: the rows to show.
        scores: of all rows, ``(N,)``.
        x: all raw rows.
    """
    usual, highest = float(scores.median()), ranking[0]
    summary = (
        f"The most unlikely of {len(x):,} rows is {highest.name}, with a score of {highest.score:.2f} nats; half of "
        f"all rows are below {usual:.2f}.",
        "A high score means that a row is unlikely, not that it is wrong.",
    )
    command = command_line(["unsup", "outliers", data, "-o", "outliers.csv"])
    pictures = [_picture(o, x[o.row], event) for o in ranking] if event.is_image and event.shape[0] in (1, 3) else []
    caption = "The most unlikely rows, the most unlikely first"
    heads = ["Row", "Score, nats", {"text": "Most unusual values", "class": "words"}]
    table = ("table", [_row(o) for o in ranking], "rows", caption, heads, "plain", True)
    page = Page(
        title=f"Outliers of {data}",
        brand="unsup outliers",
        about=f"Scored by {how}",
        summary=summary,
        next=(("Write all rows with their scores:", command),),
        sections=sections(
            ("rows", "Rows", [("legend", ranking, "outliers"), table]),
            ("pictures", "Pictures", [("gallery", pictures, "h3", "strip")]),
        ),
        footer=footer({"unsup": unsup.__version__, "time": time.strftime("%Y-%m-%d %H:%M")}),
    )
    return render(page)


def _row(outlier: Outlier) -> list[Any]:
    reasons = [(e.column, f" = {e.value:.4g}, usually {e.typical:.4g} (+{e.nats:.1f})") for e in outlier.entries]
    return [outlier.name, f"{outlier.score:.2f}", {"text": "", "named": reasons}]


def _picture(outlier: Outlier, x: Tensor, event: Event) -> Shown:
    image = plain_image(x, event)
    scale = max(1, math.floor(_SIDE / image.width))
    alt = f"the example {outlier.name}, rank {outlier.rank}"
    return embedded(png_bytes(image), alt, f"{outlier.rank}. {outlier.name}", f"{outlier.score:.2f}", scale, plot=False)
