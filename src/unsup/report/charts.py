"""The charts of the pages: pure functions from numbers to inline SVG.

Most are 400 units wide, so that text is legible on a phone. Colours are classes of the style sheet; everything that a
colour shows is also shown by a shape or a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unsup.report.svg import Scale, drawing, element, fitted, line, shape, text, tick_text

WIDTH = 400.0
_LEFT, _RIGHT, _ROW = 8.0, 392.0, 37.0
_MOST_POINTS = 160
_GROUPS = {
    "exact": "exact (=)",
    "bound": "upper bounds (≤): the true value is at the mark or to its left",
    "estimate": "estimates (≈): the true value may be on either side",
}
Pair = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """One row of a chart, or one dot of a scatter plot.

    Attributes:
        shown: the value as text.
        kind: ``exact``, ``bound`` or ``estimate`` for likelihoods; ``implied`` bars are striped, and
            ``coded`` ones have the same colour.
        seeds: values of the single runs.
        x: horizontal value of a dot.
    """

    label: str
    value: float
    shown: str = ""
    interval: Pair | None = None
    kind: str = ""
    seeds: tuple[float, ...] = ()
    x: float = 0.0


@dataclass(frozen=True)
class Panel:
    """Curves over steps that share one vertical scale; those of the same name share a colour."""

    title: str
    lines: Sequence[tuple[str, Sequence[Pair]]]

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self.lines))


def _axis_below(x: Scale, top: float, bottom: float, title: str) -> list[str]:
    lines = [line(x(v), top, x(v), bottom, "grid") for v in x.ticks]
    numbers = [text(tick_text(v), x(v), bottom + 14, "tick", "middle") for v in x.ticks]
    return [*lines, *numbers, text(title, (x.start + x.end) / 2, bottom + 30, "axis", "middle")]


def _axis_left(y: Scale, left: float, right: float) -> list[str]:
    lines = [line(left, y(v), right, y(v), "grid") for v in y.ticks]
    return lines + [text(tick_text(v), left - 6, y(v) + 4, "tick", "end") for v in y.ticks]


def _rows(
    rows: Sequence[Bar], names: tuple[str, str, str], scale: Scale, draw: Callable[[Bar, float], str], defs: str = ""
) -> Markup:
    """A row per bar over one axis: label and value as text, and below them what ``draw`` returns for its height.

    ``names`` are the identifier, the title, and the title of the axis.
    """
    (ident, title, axis), body, y, group = names, [defs], 8.0, ""
    for row in rows:
        if row.kind != group and row.kind in _GROUPS:
            y += 22
            body.append(text(_GROUPS[row.kind], _LEFT, y - 6, "group"))
        group = row.kind
        words = [text(_cut(row.label), _LEFT, y + 13, "label"), text(row.shown, _RIGHT, y + 13, "value", "end")]
        body += [draw(row, y + 24), *words]  # text is above the lines
        y += _ROW
    said = "; ".join(f"{r.label} {r.shown}" + (f" ({r.kind})" if r.kind in _GROUPS else "") for r in rows)
    return drawing(ident, WIDTH, y + 40, title, f"{axis}: {said}", [*_axis_below(scale, 6.0, y + 2, axis), *body])


def _cut(label: str, most: int = 36) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def likelihood_dots(rows: Sequence[Bar], ident: str) -> Markup:
    """Likelihoods with intervals, grouped by kind; an arrow on bounds points to lower, possibly true values."""
    limit = _outer_limit([r.value for r in rows])
    values = [v for r in rows if r.value <= limit for v in (r.value, *r.seeds, *(r.interval or ()))]
    scale = fitted(values, _LEFT + 22, _RIGHT - 12)

    def draw(row: Bar, y: float) -> str:
        track, x, end = line(_LEFT, y, _RIGHT, y, "track"), scale(row.value), _RIGHT - 6
        if row.value > limit:
            return track + _arrow(end - 14, end, y, "whisker") + text("off the scale", end - 20, y + 4, "small", "end")
        parts = [track, _whisker(row.interval, scale, y)]
        if row.kind == "bound":
            low = scale((row.interval or (row.value, 0))[0])
            parts.append(_arrow(x, max(scale.start - 20, min(x, low) - 26), y, "open-end"))
        parts += [element("circle", cx=scale(v), cy=y, r=1.8, class_="seed") for v in row.seeds if len(row.seeds) > 1]
        return "".join([*parts, _mark(row.kind, x, y)])

    return _rows(rows, (ident, "Likelihood in bits/dim by model", "bits/dim, lower is better"), scale, draw)


def _arrow(x: float, end: float, y: float, class_: str) -> str:
    back = end + (6 if end < x else -6)
    head = f"M{back:.1f} {y - 4:.1f}L{end:.1f} {y:.1f}L{back:.1f} {y + 4:.1f}"
    return element("path", d=f"M{x:.1f} {y:.1f}H{end:.1f}{head}", class_=class_)


def _outer_limit(values: Sequence[float]) -> float:
    """The largest value that is not more than three times the range of the others away from them."""
    ordered = sorted(values)
    while len(ordered) > 3 and ordered[-1] - ordered[-2] > 3 * (ordered[-2] - ordered[0]) > 0:
        ordered.pop()
    return ordered[-1]


def _whisker(interval: Pair | None, scale: Scale, y: float) -> str:
    if interval is None:
        return ""
    found = [scale(v) for v in interval]
    a, b = (min(max(v, scale.start - 8), scale.end + 8) for v in found)
    # An end that is cut off by the frame has no cap.
    caps = "".join(f"M{x:.1f} {y - 4:.1f}V{y + 4:.1f}" for x, v in zip((a, b), found, strict=True) if x == v)
    return element("path", d=f"M{a:.1f} {y:.1f}H{b:.1f}{caps}", class_="whisker")


def _mark(kind: str, x: float, y: float) -> str:
    """The mark of a kind of likelihood: disc exact, triangle bound, diamond estimate, square none."""
    corners: dict[str, list[Pair]] = {
        "exact": [],
        "bound": [(-6.25, 0), (4.375, -6.25), (4.375, 6.25)],
        "estimate": [(0, -6.25), (6.25, 0), (0, 6.25), (-6.25, 0)],
        "none": [(-5, -5), (5, -5), (5, 5), (-5, 5)],
    }
    kind = kind if kind in corners else "none"
    if kind == "exact":
        return element("circle", cx=x, cy=y, r=5.0, class_="mark exact")
    return shape("polygon", [(x + dx, y + dy) for dx, dy in corners[kind]], f"mark {kind}")


def bars(rows: Sequence[Bar], ident: str, title: str, lines: Sequence[float] = ()) -> Markup:
    """Bars from 0 with intervals, up to 1 for shares; ``lines`` are values to compare with, dashed and dotted."""
    values = [0.0, *lines, *(v for r in rows for v in (r.value, *(r.interval or ())))]
    high = 1.0 if max(values) <= 0 or (min(values) >= 0 and max(values) <= 1) else max(values) * 1.04
    scale = Scale(min(values), high, _LEFT + 2, _RIGHT - 2)

    def draw(row: Bar, y: float) -> str:
        a, b = sorted((scale(0), scale(row.value)))
        fill: dict[str, Any] = {"style": f"fill:url(#{ident}-hatch)"} if row.kind == "implied" else {}
        class_ = f"bar {row.kind}".rstrip()
        bar = element("rect", x=a, y=y - 6, width=max(b - a, 1.0), height=12, rx=1.5, class_=class_, **fill)
        marks = [line(scale(v), y - 9, scale(v), y + 9, f"reference r{i}") for i, v in enumerate(lines)]
        base = line(scale(0), y - 20, scale(0), y + 17, "base")
        return "".join([base, bar, _whisker(row.interval, scale, y), *marks])

    units = {"patternUnits": "userSpaceOnUse", "patternTransform": "rotate(45)"}
    stripe = element("path", d="M0 0V6", class_="stripe")
    hatch = element("pattern", stripe, id=f"{ident}-hatch", width=6, height=6, **units)
    return _rows(rows, (ident, title, title), scale, draw, hatch)


def scatter(dots: Sequence[Bar], ident: str, title: str, x_title: str, y_title: str) -> Markup:
    """Dots with their names; axes are logarithmic if the values span decades."""
    top, left, bottom = 28.0, 46.0, 256.0
    limit = _outer_limit([d.value for d in dots])
    inside = [d.value for d in dots if d.value <= limit]
    x = fitted([d.x for d in dots], left + 6, _RIGHT - 14, decades=True, room=0.1)
    y = fitted(inside, bottom, top, decades=len(inside) == len(dots), room=0.1)
    parts = [text(y_title, _LEFT, 14, "axis"), *_axis_left(y, left, _RIGHT)]
    parts += _axis_below(x, top - 6, bottom + 6, x_title + (", logarithmic" if x.log else ""))
    placed = [(x(d.x), y(d.value) if d.value <= limit else 20.0) for d in dots]
    taken = [(a - 6, b - 6, a + 6, b + 6) for a, b in placed]
    for dot, (a, b) in zip(dots, placed, strict=True):
        if dot.interval is not None and dot.value <= limit and not y.log:
            low, high = (min(max(y(v), top - 6), bottom + 6) for v in dot.interval)
            parts.append(element("path", d=f"M{a:.1f} {low:.1f}V{high:.1f}", class_="whisker"))
        name = _cut(dot.label, 22) + (f" ↑ {dot.value:.3g}" if dot.value > limit else "")
        parts += [_mark(dot.kind, a, b), _free_label(name, a, b, taken)]
    said = f"{x_title} and {y_title}: " + "; ".join(f"{d.label} {d.x:.3g}, {d.value:.4g}" for d in dots)
    return drawing(ident, WIDTH, bottom + 44, title, said, parts)


def _free_label(name: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> str:
    """A label next to (x, y), at the position that covers least; its box is added to ``taken``."""
    width, shifts = 6.9 * len(name), {"start": 0.0, "middle": 0.5, "end": 1.0}
    spots = [(x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 11, "middle"), (x, y + 19, "middle")]
    spots += [(x + dx, y + dy, a) for dy in (-9, 17, -22, 30) for dx, a in ((5, "start"), (-5, "end"))]
    boxes = [(a - width * shifts[c], b - 10, a - width * shifts[c] + width, b + 3) for a, b, c in spots]

    def cost(box: Sequence[float]) -> float:
        outside = max(0.0, 44 - box[0]) + max(0.0, box[2] - WIDTH) + max(0.0, 18 - box[1]) + max(0.0, box[3] - 264)
        shared = [[max(0.0, min(box[i + 2], t[i + 2]) - max(box[i], t[i])) for i in (0, 1)] for t in taken]
        return 40 * outside + sum(across * down for across, down in shared)

    best = min(range(len(spots)), key=lambda i: cost(boxes[i]))
    taken.append(boxes[best])
    a, b, anchor = spots[best]
    return text(name, a, b, "label", anchor)


def training_curves(panels: Sequence[Panel], ident: str, title: str, *, width: float = 300.0) -> Markup:
    """Training of one model: panels over one axis of steps."""
    tall, left, bottom, right = (92.0 if width < WIDTH else 180.0), 44.0, -4.0, width - 8
    x = Scale(0.0, max([1.0, *(s for p in panels for _, pairs in p.lines for s, _ in pairs)]), left, right, most=4)
    parts = []
    for i, panel in enumerate(panels):
        top, bottom = bottom + 26, bottom + 26 + tall
        # Losses start far away: the scale leaves out the highest and lowest 2 % of the values after the first tenth.
        values = sorted(v for _, pairs in panel.lines for _, v in pairs[len(pairs) // 10 :])
        cut = int(0.02 * len(values))
        y = fitted(values[cut : len(values) - cut], bottom, top)
        clip = element("rect", x=left, y=top - 2, width=right - left + 4, height=tall + 4)
        parts += [text(panel.title, left, top - 7, "axis"), *_axis_left(y, left, right)]
        parts.append(element("clipPath", clip, id=f"{ident}-c{i}"))
        drawn = [_curve([(x(s), y(v)) for s, v in pairs], panel.names.index(name)) for name, pairs in panel.lines]
        parts.append(element("g", "".join(drawn), clip_path=f"url(#{ident}-c{i})"))
    ends = [f"{p.title}: {name} ends at {pairs[-1][1]:.4g}" for p in panels for name, pairs in p.lines if pairs]
    parts += _axis_below(x, bottom - 4, bottom, "step")
    return drawing(ident, width, bottom + 36, title, "; ".join(ends), parts)


def _curve(points: Sequence[Pair], colour: int) -> str:
    """A line through the points; one point is a dot."""
    if len(points) == 1:
        return element("circle", cx=points[0][0], cy=points[0][1], r=3.0, class_=f"dot s{colour % 4}")
    return shape("polyline", thinned(points), f"curve s{colour % 4}")


def thinned(pairs: Sequence[Pair], most: int = _MOST_POINTS) -> list[Pair]:
    """At most ``most`` of the pairs, evenly spaced, including the first and the last.

    >>> thinned([(float(i), 0.0) for i in range(10)], 4)
    [(0.0, 0.0), (3.0, 0.0), (6.0, 0.0), (9.0, 0.0)]
    """
    if len(pairs) <= most:
        return list(pairs)
    return [pairs[round(i * (len(pairs) - 1) / (most - 1))] for i in range(most)]


def calibration_curve(curves: Sequence[Sequence[Pair]], ident: str, label: str, shown: str) -> Markup:
    """The share of held-out examples in regions that contain a given share of the model's samples."""
    left, right, top, bottom = 30.0, 182.0, 8.0, 160.0
    x, y = Scale(0.0, 1.0, left, right, most=3), Scale(0.0, 1.0, bottom, top, most=3)
    lines = [[(x(a), y(b)) for a, b in thinned(curve)] for curve in curves]
    parts = [*_axis_below(x, top, bottom, ""), *_axis_left(y, left, right)]
    parts.append(line(left, bottom, right, top, "diagonal"))
    parts += [shape("polygon", [(left, bottom), *points, (right, top)], "area") for points in lines[:1]]
    parts += [_curve(points, 0) for points in lines]
    said = f"Largest difference from the diagonal: {shown}."
    return drawing(ident, 190.0, bottom + 20, f"Calibration of {label}", said, parts)
