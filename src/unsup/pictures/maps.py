"""Maps: points of the plane, coloured by class, with a sentence in the picture on what their positions mean."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from unsup.core.escapes import visible
from unsup.core.words import class_word, counted
from unsup.pictures.artist import ORDINARY, array, colours
from unsup.pictures.gallery import Drawn, finished
from unsup.pictures.plots import STYLE, figure_of, plotted, robust_limits

MOST_CLASSES = 20
"""Classes with a colour and a shape of their own; of more, the colours are a scale."""
_MARKERS = "osD^v<>PX*"
_NAME, _LINE = 18, 84  # characters of a class in the legend, and of a line below the map


def draw_map(
    points: Tensor,
    what: str,
    meaning: str,
    *,
    axes: tuple[str, str] = ("", ""),
    label: Tensor | None = None,
    names: Sequence[str] = (),
) -> Drawn:
    """Points ``(N, 2)`` as a scatter plot.

    Args:
        points: finite.
        what: describes them, e.g. ``"codes of vae"``.
        meaning: what positions mean; it is written into the picture, and is part of the caption.
        axes: labels of the axes; without them they have no ticks.
        label: class numbers ``(N,)``.
        names: of the classes; their numbers by default.

    >>> import torch
    >>> draw_map(torch.eye(2).repeat(3, 1), "codes", "Near is near.", label=torch.arange(6) % 2).caption
    'Codes. Near is near. Colours and shapes are classes.'
    """
    from matplotlib import rc_context  # slow to import, and only pictures need it

    xy, said = array(points), ""
    with rc_context(STYLE):
        figure = figure_of(5.4)
        plane = figure.subplots()
        size = min(max(6000 / len(xy), 5), 30)
        kinds = [] if label is None else label.unique().tolist()
        layout = f"a scatter plot of {counted(len(xy), 'point')}"
        if label is None or len(kinds) < 2:
            plane.scatter(*xy.T, s=size, color=ORDINARY, alpha=0.6, linewidths=0)
        elif len(kinds) <= MOST_CLASSES:
            shades = colours("tab10" if len(kinds) <= 10 else "tab20", np.arange(len(kinds))) / 255
            for i, kind in enumerate(kinds):
                own = xy[(label == kind).cpu().numpy()]
                style = {"s": size, "color": shades[i], "marker": _MARKERS[i % len(_MARKERS)], "linewidths": 0}
                plane.scatter(*own.T, label=_name(names, kind), alpha=0.75, **style)
            plane.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=1.5)
            said, layout = "Colours and shapes are classes.", f"{layout} of {len(kinds)} classes"
        else:
            order = np.searchsorted(kinds, label.cpu().numpy()) / (len(kinds) - 1)
            plane.scatter(*xy.T, s=size, c=colours("turbo", order) / 255, alpha=0.75, linewidths=0)
            said, layout = f"Each of {len(kinds)} classes has a colour.", f"{layout} of {len(kinds)} classes"
        plane.set(xlim=robust_limits(xy[:, 0], 0.0), ylim=robust_limits(xy[:, 1], 0.0))
        if any(axes):
            plane.set(xlabel=axes[0], ylabel=axes[1])
        else:
            plane.set(xticks=[], yticks=[])
        figure.supxlabel("\n".join(textwrap.wrap(meaning, _LINE)), fontsize="small", x=0.01, ha="left")
        sheet = plotted(figure, len(xy), layout, " ".join(filter(None, (meaning, said))))
    return finished(sheet, what)


def _name(names: Sequence[str], kind: int) -> str:
    name = visible(class_word(kind, names))
    shown = name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"
    return shown if not shown.startswith("_") else f" {shown}"  # names with an underscore have no line in a legend
