"""The charts of a comparison: pure functions from numbers to inline SVG.

All are drawn about 400 units wide, so that their letters stay legible on a phone and two stand side by side on a desk.
Colours are classes of the page's style sheet; whatever a colour says, a shape or a word says too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from unsup.report.svg import (
    Scale,
    drawing,
    element,
    fitted,
    line,
    polyline,
    spans_decades,
    text,
    tick_texts,
    ticks,
)

WIDTH = 400.0
_LEFT, _RIGHT, _ROW, _FOOT = 8.0, 392.0, 37.0, 40.0
_MOST_POINTS = 160
Pair = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """One row of a chart: a label, a number and how it is known.

    Attributes:
        shown: the number as it is written beside the label.
        kind: kind of likelihood, where it is one.
        implied: drawn hatched: worked out, not measured.
        seeds: the single runs' numbers.
    """

    label: str
    value: float
    shown: str
    interval: Pair | None = None
    kind: str = "exact"
    implied: bool = False
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Point:
    """One dot of a scatter plot."""

    label: str
    x: float
    y: float
    interval: Pair | None = None
    kind: str = "exact"


@dataclass(frozen=True)
class Panel:
    """Curves over steps that share one vertical scale."""

    title: str
    lines: Sequence[tuple[str, Sequence[Pair]]]
    dots: bool = False
    colours: Sequence[int] = field(default_factory=tuple)


def likelihood_dots(rows: Sequence[Bar], ident: str, unit: str = "bits/dim") -> Markup:
    """Likelihoods with intervals, in groups by kind; a bound's arrow points to where the truth may lie: lower."""
    limit = _outer_limit([r.value for r in rows])
    shown = [r for r in rows if r.value <= limit]
    values = [v for r in shown for v in (r.value, *r.seeds, *(r.interval or ()))]
    scale = fitted(values, _LEFT + 22, _RIGHT - 12)
    body, y, group = [], 6.0, None
    for row in rows:
        if row.kind != group:
            group = row.kind
            y += 16
            body.append(text(_GROUPS.get(group, group), _LEFT, y, "group"))
            y += 6
        body.append(_row_text(row, y + 14))
        body.append(line(_LEFT, y + 25, _RIGHT, y + 25, "track"))
        body.append(_beyond(y + 25) if row.value > limit else _dot(row, scale, y + 25))
        y += _ROW
    top = 8.0
    axis = _bottom_axis(scale, top, y + 4, f"{unit}, lower is better")
    said = f"{unit}: " + "; ".join(f"{r.label} {r.shown} ({r.kind})" for r in rows)
    return drawing(ident, WIDTH, y + _FOOT, f"Likelihood in {unit} by model", said, axis + "".join(body))


_GROUPS = {
    "exact": "exact (=)",
    "bound": "upper bounds (≤): the truth lies at the mark or to its left",
    "estimate": "estimates (≈): the truth may lie on either side",
}


def _outer_limit(values: Sequence[float]) -> float:
    """Beyond it a value would squeeze the others: more than three times their range from them."""
    ordered = sorted(values)
    while len(ordered) > 3 and ordered[-1] - ordered[-2] > 3 * (ordered[-2] - ordered[0]) > 0:
        ordered.pop()
    return ordered[-1]


def _beyond(y: float) -> str:
    x = _RIGHT - 6
    return (
        polyline([(x - 14, y), (x, y)], "whisker")
        + element("path", d=f"M{x - 6:.1f} {y - 5:.1f}L{x:.1f} {y:.1f}L{x - 6:.1f} {y + 5:.1f}", class_="whisker")
        + text("off the scale", x - 20, y + 4, "small", "end")
    )


def _row_text(row: Bar, y: float) -> str:
    return text(_cut(row.label), _LEFT, y, "label") + text(row.shown, _RIGHT, y, "value", "end")


def _cut(label: str, most: int = 36) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _dot(row: Bar, scale: Scale, y: float) -> str:
    parts = [_whisker(row.interval, scale, y)]
    x = scale(row.value)
    if row.kind == "bound":
        left = max(scale.start - 20, min(x, scale((row.interval or (row.value, 0))[0])) - 26)
        arrow = f"M{x:.1f} {y:.1f}H{left:.1f}M{left + 6:.1f} {y - 4:.1f}L{left:.1f} {y:.1f}L{left + 6:.1f} {y + 4:.1f}"
        parts.append(element("path", d=arrow, class_="open-end"))
    parts += [element("circle", cx=scale(v), cy=y, r=1.8, class_="seed") for v in row.seeds if len(row.seeds) > 1]
    return "".join(parts) + shape(row.kind, x, y)


def _whisker(interval: Pair | None, scale: Scale, y: float) -> str:
    if interval is None:
        return ""
    found = [scale(v) for v in interval]
    a, b = (min(max(v, scale.start - 8), scale.end + 8) for v in found)
    # An end that the frame cuts off has no cap.
    caps = "".join(f"M{x:.1f} {y - 4:.1f}V{y + 4:.1f}" for x, v in zip((a, b), found, strict=True) if x == v)
    return element("path", d=f"M{a:.1f} {y:.1f}H{b:.1f}{caps}", class_="whisker")


def shape(kind: str, x: float, y: float, size: float = 5.0) -> str:
    """The mark of a kind of likelihood: disc exact, triangle bound, diamond estimate, square none.

    >>> shape("exact", 10.0, 20.0)
    '<circle cx="10" cy="20" r="5" class="mark exact"/>'
    """
    if kind == "exact":
        return element("circle", cx=x, cy=y, r=size, class_="mark exact")
    r = size * 1.25
    corners = {
        "bound": [(-r, 0), (r * 0.7, -r), (r * 0.7, r)],
        "estimate": [(0, -r), (r, 0), (0, r), (-r, 0)],
    }.get(kind, [(-size, -size), (size, -size), (size, size), (-size, size)])
    known = kind if kind in ("bound", "estimate") else "none"
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return element("polygon", points=points, class_=f"mark {known}")


def _bottom_axis(scale: Scale, top: float, bottom: float, title: str) -> str:
    values = scale.ticks
    parts = [line(scale(v), top, scale(v), bottom, "grid") for v in values]
    parts += [text(t, scale(v), bottom + 14, "tick", "middle") for v, t in zip(values, tick_texts(values), strict=True)]
    return "".join(parts) + text(title, (scale.start + scale.end) / 2, bottom + 30, "axis", "middle")


def bars(
    rows: Sequence[Bar],
    ident: str,
    title: str,
    axis: str,
    *,
    base: float = 0.0,
    domain: Pair | None = None,
    lines: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Bars from ``base`` with intervals; ``lines`` are named references, written in a key below."""
    values = [v for r in rows for v in (r.value, *(r.interval or ()))] + [v for _, v in lines] + [base]
    low, high = domain or (min(values), max(values) * 1.04 if max(values) > 0 else 1.0)
    scale = Scale(low, high, _LEFT + 2, _RIGHT - 2)
    top, y = 6.0, 8.0
    body = [_hatch(ident)]
    for row in rows:
        body.append(_row_text(row, y + 13))
        a, b = sorted((scale(base), scale(min(max(row.value, low), high))))
        fill = {"style": f"fill:url(#{ident}-hatch)"} if row.implied else {}
        body.append(
            element(
                "rect",
                x=a,
                y=y + 18,
                width=max(b - a, 1.0),
                height=12,
                rx=1.5,
                class_="bar implied" if row.implied else "bar",
                **fill,
            )
        )
        body.append(_whisker(row.interval, scale, y + 24))
        for i, (_, value) in enumerate(lines):
            body.append(line(scale(value), y + 15, scale(value), y + 33, f"reference r{i}"))
        y += _ROW
    foot = _bottom_axis(scale, top, y + 2, axis) + line(scale(base), top, scale(base), y + 2, "base")
    said = f"{axis}: " + "; ".join(f"{r.label} {r.shown}{' (implied)' if r.implied else ''}" for r in rows)
    return drawing(ident, WIDTH, y + _FOOT, title, said, foot + "".join(body))


def _hatch(ident: str) -> str:
    stripe = element("path", d="M0 0V6", class_="stripe")
    options = {"patternUnits": "userSpaceOnUse", "patternTransform": "rotate(45)"}
    return element("pattern", stripe, id=f"{ident}-hatch", width=6, height=6, **options)


def scatter(points: Sequence[Point], ident: str, title: str, x_title: str, y_title: str) -> Markup:
    """Dots with their names beside them; axes are logarithmic where the numbers span decades."""
    height = 300.0
    limit = _outer_limit([p.y for p in points])
    inside = [p.y for p in points if p.y <= limit]
    log_y = limit == max(p.y for p in points) and spans_decades(inside)
    x = fitted([p.x for p in points], 52, _RIGHT - 14, log=spans_decades([p.x for p in points]), room=0.1)
    y = fitted(inside, height - 44, 28, log=log_y, room=0.1)
    parts = [text(y_title, _LEFT, 14, "axis")]
    for v, t in zip(y.ticks, tick_texts(y.ticks), strict=True):
        parts += [line(46, y(v), _RIGHT, y(v), "grid"), text(t, 40, y(v) + 4, "tick", "end")]
    parts.append(_bottom_axis(x, 22, height - 38, x_title + (", logarithmic" if x.log else "")))
    placed = [(x(p.x), y(p.y) if p.y <= limit else 20.0) for p in points]
    taken = [(a - 6, b - 6, a + 6, b + 6) for a, b in placed]
    for point, (a, b) in zip(points, placed, strict=True):
        if point.interval is not None and point.y <= limit and not y.log:
            low, high = (min(max(y(v), 22), height - 38) for v in point.interval)
            parts.append(element("path", d=f"M{a:.1f} {low:.1f}V{high:.1f}", class_="whisker"))
        name = _cut(point.label, 22) + (f" ↑ {point.y:.3g}" if point.y > limit else "")
        parts += [shape(point.kind, a, b), _free_label(name, a, b, taken)]
    said = f"{x_title} and {y_title}: " + "; ".join(f"{p.label} {p.x:.3g}, {p.y:.4g}" for p in points)
    return drawing(ident, WIDTH, height, title, said, "".join(parts))


def _free_label(name: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> str:
    """A label beside (x, y) where it covers least of what is there already; its box is added to ``taken``."""
    width = 6.9 * len(name)
    spots = [(x + 9, y + 4, "start"), (x - 9, y + 4, "end"), (x, y - 11, "middle"), (x, y + 19, "middle")]
    spots += [(x + dx, y + dy, a) for dy in (-9, 17, -22, 30) for dx, a in ((5, "start"), (-5, "end"))]

    def box_of(spot: tuple[float, float, str]) -> tuple[float, float, float, float]:
        left = spot[0] - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[spot[2]]
        return left, spot[1] - 10, left + width, spot[1] + 3

    def cost(spot: tuple[float, float, str]) -> float:
        box = box_of(spot)
        outside = max(0.0, 44 - box[0]) + max(0.0, box[2] - WIDTH) + max(0.0, 18 - box[1]) + max(0.0, box[3] - 264)
        return 40 * outside + sum(
            max(0.0, min(box[2], t[2]) - max(box[0], t[0])) * max(0.0, min(box[3], t[3]) - max(box[1], t[1]))
            for t in taken
        )

    best = min(spots, key=cost)
    taken.append(box_of(best))
    return text(name, best[0], best[1], "label", best[2])


def training_curves(panels: Sequence[Panel], ident: str, title: str, *, width: float = 300.0) -> Markup:
    """Training of one model: panels over one axis of steps."""
    tall, gap, left = (92.0 if width < WIDTH else 180.0), 26.0, 44.0
    steps = [s for p in panels for _, pairs in p.lines for s, _ in pairs]
    x = Scale(0.0, max([*steps, 1.0]), left, width - 8)
    parts, top = [], 22.0
    for i, panel in enumerate(panels):
        parts.append(text(panel.title, left, top - 7, "axis"))
        y = _curve_scale(panel, top + tall, top)
        for v, t in zip(y.ticks, tick_texts(y.ticks), strict=True):
            parts += [line(left, y(v), width - 8, y(v), "grid"), text(t, left - 6, y(v) + 4, "tick", "end")]
        clip = element("rect", x=left, y=top - 2, width=width - left - 4, height=tall + 4)
        parts.append(element("clipPath", clip, id=f"{ident}-c{i}"))
        drawn = []
        for j, (_, pairs) in enumerate(panel.lines):
            points = [(x(s), y(v)) for s, v in thinned(pairs)]
            colour = panel.colours[j] if panel.colours else j
            drawn.append(polyline(points, f"curve s{colour % 4}"))
            if panel.dots and len(points) <= 24:
                drawn += [element("circle", cx=a, cy=b, r=2.2, class_=f"dot s{colour % 4}") for a, b in points]
        parts.append(element("g", "".join(drawn), clip_path=f"url(#{ident}-c{i})"))
        top += tall + gap
    bottom = top - gap
    values = ticks(0.0, x.high, 4)
    parts += [text(t, x(v), bottom + 14, "tick", "middle") for v, t in zip(values, tick_texts(values), strict=True)]
    parts.append(text("step", width - 8, bottom + 28, "axis", "end"))
    ends = [f"{p.title}: {name} ends at {pairs[-1][1]:.4g}" for p in panels for name, pairs in p.lines if pairs]
    return drawing(ident, width, bottom + 34, title, "; ".join(ends), "".join(parts))


def _curve_scale(panel: Panel, start: float, end: float) -> Scale:
    """Holds all but the highest and lowest 2 % of the numbers after the first tenth: a loss starts far away."""
    values = sorted(v for _, pairs in panel.lines for _, v in pairs[len(pairs) // 10 :])
    cut = int(0.02 * len(values))
    return fitted(values[cut : len(values) - cut], start, end)


def thinned(pairs: Sequence[Pair], most: int = _MOST_POINTS) -> list[Pair]:
    """At most ``most`` of the pairs, evenly spread, the first and the last among them.

    >>> thinned([(float(i), 0.0) for i in range(10)], 4)
    [(0.0, 0.0), (3.0, 0.0), (6.0, 0.0), (9.0, 0.0)]
    """
    if len(pairs) <= most:
        return list(pairs)
    return [pairs[round(i * (len(pairs) - 1) / (most - 1))] for i in range(most)]


def calibration_curve(curves: Sequence[Sequence[Pair]], ident: str, label: str, shown: str) -> Markup:
    """Share of held-out examples inside the region that holds each level of the model's draws, beside the diagonal."""
    side, left, top = 190.0, 30.0, 8.0
    x, y = Scale(0.0, 1.0, left, side - 8), Scale(0.0, 1.0, top + side - left - 8, top)
    parts = []
    for v, t in zip((0.0, 0.5, 1.0), ("0", "½", "1"), strict=True):
        parts += [line(left, y(v), x.end, y(v), "grid"), line(x(v), top, x(v), y.start, "grid")]
        parts += [text(t, left - 6, y(v) + 4, "tick", "end"), text(t, x(v), y.start + 14, "tick", "middle")]
    parts.append(line(x(0), y(0), x(1), y(1), "diagonal"))
    for i, curve in enumerate(curves):
        points = [(x(a), y(b)) for a, b in thinned(curve)]
        if i == 0:
            area = [(x(0), y(0)), *points, (x(1), y(1))]
            parts.append(element("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in area), class_="area"))
        parts.append(polyline(points, "curve s0"))
    said = f"Largest difference from the diagonal: {shown}."
    return drawing(ident, side, y.start + 20, f"Calibration of {label}", said, "".join(parts))
