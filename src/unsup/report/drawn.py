"""The charts of the pages with their headings and captions, from the records of contests and runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unsup.core.words import counted, duration
from unsup.evaluate.records import Contestant, Results
from unsup.report.charts import (
    Bar,
    Pair,
    Panel,
    Point,
    bars,
    calibration_curve,
    likelihood_dots,
    scatter,
    training_curves,
)
from unsup.report.figures import Column, Figure, bits_per_dim, figure_of, in_order, interval, kind, sign
from unsup.report.svg import number
from unsup.report.words import capital


@dataclass(frozen=True)
class Chart:
    """A drawing with its heading and caption; ``key`` pairs the number of a colour with what has it."""

    title: str
    drawn: Markup
    caption: str
    key: tuple[tuple[int, str], ...] = ()


def likelihood_charts(results: Results) -> list[Chart]:
    """Likelihoods as dots, and against the time they took."""
    rows = in_order(results)
    unit, times = _times(rows)
    dots, points = [], []
    for row in sorted(rows, key=lambda r: _place_of_kind(r)):
        bits, own = bits_per_dim(row), kind(row)
        if bits is None or own in (None, "unnormalised"):
            continue
        shown = f"{sign(own)} {number(bits.value, 4)}"
        dots.append(Bar(row["name"], bits.value, shown, bits.interval, str(own), seeds=bits.seeds))
        points.append(Point(row["name"], times.get(row["name"], 0.1), bits.value, bits.interval, str(own)))
    if not dots:
        return []
    several = any(len(r["runs"]) > 1 for r in rows)
    ends = "the lowest to the highest seed, small dots the single runs" if several else "95 % intervals"
    apart = [r["name"] for r in rows if kind(r) == "unnormalised"]
    left = f" Not drawn, as their constant is unknown: {', '.join(apart)}." if apart else ""
    caption = (
        f"Bits per number of a held-out example. Lines are {ends}. Each kind has its own group: a bound that looks "
        f"worse than an exact figure may not be.{left}"
    )
    found = [Chart("Likelihood", likelihood_dots(dots, "chart-likelihood"), caption)]
    if len(points) > 1:
        words = ("Likelihood by training time", f"{unit} of training", "bits/dim")
        caption = "Lower is better, left is cheaper. ● exact, ◀ bound, ◆ estimate."
        found.append(Chart("Likelihood and training time", scatter(points, "chart-time-likelihood", *words), caption))
    return found


def _place_of_kind(contestant: Contestant) -> tuple[int, float]:
    bits, order = bits_per_dim(contestant), ("exact", "bound", "estimate")
    own = kind(contestant)
    return order.index(own) if own in order else len(order), 0.0 if bits is None else bits.value


def quality_charts(results: Results) -> list[Chart]:
    """FID against training time."""
    rows = in_order(results)
    unit, times = _times(rows)
    found = [(r["name"], f) for r in rows if (f := figure_of(r["runs"], "fid")) and r["name"] in times]
    if len(found) < 2:
        return []
    points = [Point(n, times[n], f.value, f.interval, "none") for n, f in found]
    drawn = scatter(points, "chart-time-fid", "FID by training time", f"{unit} of training", "FID")
    caption = "FID of samples: lower is better, left is cheaper. An arrow ↑ marks one that lies far above."
    return [Chart("Sample quality and training time", drawn, caption)]


def _times(rows: list[Contestant]) -> tuple[str, dict[str, float]]:
    """Training times by name, in minutes where that makes numbers worth reading."""
    seconds = {r["name"]: sum(m["train_seconds"] or 0.0 for m in r["runs"]) / len(r["runs"]) for r in rows}
    if max(seconds.values(), default=0.0) < 180:
        return "seconds", {n: max(s, 0.1) for n, s in seconds.items()}
    return "minutes", {n: max(s / 60, 0.01) for n, s in seconds.items()}


def storage_charts(results: Results) -> list[Chart]:
    """Real bytes of codecs beside the bytes that likelihoods imply."""
    rows = [
        Bar(f"{s['codec']}, {s['how'].split(',')[0]}", s["per_example"], f"{number(s['per_example'])} bytes")
        for s in results["baselines"]["stored"]
    ]
    implied = [(c, f) for c in in_order(results) if (f := figure_of(c["runs"], "implied_bytes"))]
    for contestant, figure in implied:
        shown = f"{sign(kind(contestant))} ".lstrip("= ") + f"{number(figure.value)} bytes, implied"
        rows.append(Bar(contestant["name"], figure.value, shown, figure.interval, implied=True))
    if not rows:
        return []
    rows.sort(key=lambda r: r.value)
    caption = "Solid bars are files that were really written. " + (
        "Striped bars are implied: what a coder as good as the model’s likelihood would need. No such file was "
        "written, and the model itself is not counted."
        if implied
        else "Nothing is implied by a density of real numbers without a precision."
    )
    drawn = bars(rows, "chart-storage", "Bytes per example", "bytes per example")
    return [Chart("Bytes per example", drawn, caption)]


def measure_chart(results: Results, column: Column) -> Chart | None:
    """One measure as bars, the best first, beside its floor."""
    found = [(c["name"], f) for c in in_order(results) if (f := figure_of(c["runs"], column.key))]
    if not found or column.better is None:
        return None
    found.sort(key=lambda p: p[1].value, reverse=column.better == "higher")
    rows = [Bar(n, f.value, _with_interval(f, column), f.interval) for n, f in found]
    floors = [f.floor for _, f in found if f.floor is not None]
    lines, key = [], []
    if floors:
        lines.append((column.floor, sum(floors) / len(floors)))
        key.append(f"the dashed line is {column.floor} ({column.show(lines[0][1])})")
    majority = found[0][1].detail.get("majority")
    if majority is not None:
        lines.append(("most frequent class", majority))
        key.append(f"the dotted line is always naming the most frequent class ({column.show(majority)})")
    values = [v for r in rows for v in (r.value, *(r.interval or ()))] + [v for _, v in lines]
    domain = (0.0, 1.0) if min(values) >= 0 and max(values) <= 1 else None
    ident = "chart-" + re.sub("[^a-z0-9]+", "-", column.key.lower())
    drawn = bars(rows, ident, column.title, column.title, domain=domain, lines=lines)
    by = found[0][1].detail.get("by")
    said = column.meaning + (f", by {by}" if by else "")
    return Chart(column.title, drawn, "; ".join([capital(said), *key]) + ".")


def _with_interval(figure: Figure, column: Column) -> str:
    ends = interval(figure, column.show)
    return column.show(figure.value) + (f" ({ends})" if ends else "")


def calibration_charts(results: Results) -> list[Chart]:
    """Shares of held-out examples against levels of the model's draws."""
    parts = []
    for i, contestant in enumerate(results["contestants"]):
        figure = figure_of(contestant["runs"], "calibration")
        if figure is None:
            continue
        curves = [
            r["figures"]["calibration"]["detail"]["curve"] for r in contestant["runs"] if "calibration" in r["figures"]
        ]
        ends = interval(figure)
        shown = number(figure.value) + (f" ({ends})" if ends else "")
        drawn = calibration_curve(curves, f"chart-calibration-{i}", contestant["name"], shown)
        parts.append(Chart(contestant["name"], drawn, f"error {shown}"))
    return parts


def training_charts(results: Results) -> list[Chart]:
    """Training curves, a panel a contestant."""
    parts = []
    for i, contestant in enumerate(results["contestants"]):
        runs = contestant["runs"]
        panels = curve_panels([r["curve"] for r in runs], kind(contestant))
        if not panels:
            continue
        steps = sorted({r["steps"] for r in runs})
        words = counted(steps[0], "step") if len(steps) == 1 else f"{steps[0]:,}–{steps[-1]:,} steps"
        words += f", {duration(sum(r['train_seconds'] or 0.0 for r in runs) / len(runs))}"
        drawn = training_curves(panels, f"chart-training-{i}", f"Training of {contestant['name']}")
        parts.append(Chart(contestant["name"], drawn, words + ". ", key_of(panels)))
    return parts


def curve_panels(curves: Sequence[Mapping[str, Any]], kind: str | None, by: str = "likelihood") -> list[Panel]:
    """Losses and validation over steps, on one scale where both are nats: the loss of an exact likelihood or a bound.

    Args:
        curves: of the runs: ``losses`` by name, and ``validation``, as pairs of a step and a number.
        kind: of the likelihood.
        by: what validation measures; the likelihood is in nats.
    """
    names = list(dict.fromkeys(n for c in curves for n in c["losses"]))
    names = [n for n in names if n.split("/")[-1] == "loss"] or names
    losses = [(n, c["losses"][n]) for n in names for c in curves if c["losses"].get(n)]
    checked = [("validation", c["validation"]) for c in curves if c["validation"]]
    if checked and names == ["loss"] and kind in ("exact", "bound"):
        lines = [("training loss", pairs) for _, pairs in losses] + checked
        return [Panel("nats per example", lines, colours=[0] * len(losses) + [1] * len(checked))]
    found = []
    if losses:
        title = "training loss" if len(names) == 1 else "training losses"
        found.append(Panel(title, losses, colours=[names.index(n) for n, _ in losses]))
    if checked:
        found.append(
            Panel(
                "validation, nats per example" if by == "likelihood" else f"validation: {by}",
                checked,
                colours=[0] * len(checked),
            )
        )
    return found


def key_of(panels: Sequence[Panel]) -> tuple[tuple[int, str], ...]:
    """The colours of the first panel, where it has several."""
    names: dict[str, int] = (
        {n: c for (n, _), c in zip(panels[0].lines, panels[0].colours, strict=True)} if panels else {}
    )
    return tuple((c % 4, n) for n, c in names.items()) if len(names) > 1 else ()


def curves_of(events: Sequence[Mapping[str, Any]], measure: str = "nats") -> dict[str, Any]:
    """The curves in the log of a run: every loss, and what validation says under the name ``measure``."""
    names = dict.fromkeys(n for e in events for n in e if n.split("/")[-1] == "loss")
    losses: dict[str, list[Pair]] = {n: [(e["step"], e[n]) for e in events if n in e] for n in names}
    return {"losses": losses, "validation": [(e["step"], e[measure]) for e in events if e.get(measure) is not None]}
