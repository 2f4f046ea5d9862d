"""The charts of the pages with their headings and captions, from the records of contests and runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unsup.core.event import Event
from unsup.core.likelihood import parts_in_words
from unsup.core.words import counted, duration, listed
from unsup.evaluate.records import Contestant, Results
from unsup.report import charts
from unsup.report.charts import Bar, Pair, Panel
from unsup.report.figures import (
    Column,
    Figure,
    bits_per_dim,
    bits_text,
    figures,
    in_order,
    kind,
    kind_order,
    sign,
    untrained,
)
from unsup.report.svg import number
from unsup.report.words import capital


@dataclass(frozen=True)
class Chart:
    """A drawing with its heading and caption; ``key`` pairs the number of a colour with its meaning."""

    title: str
    drawn: Markup
    caption: str
    key: tuple[tuple[int, str], ...] = ()


def likelihood_charts(results: Results) -> list[Chart]:
    """Likelihoods as dots, and by training time."""
    rows = in_order(results)
    found = [(r, bits) for r in rows if kind(r) not in (None, "unnormalised") and (bits := bits_per_dim(r))]
    if not found:
        return []
    found.sort(key=lambda p: (kind_order(p[0]), p[1].value))
    dots = [Bar(r["name"], b.value, bits_text(r), b.interval, str(kind(r)), b.seeds) for r, b in found]
    several = any(len(r["runs"]) > 1 for r in rows)
    ends = "from the lowest to the highest seed, small dots are single runs" if several else "95 % intervals"
    apart = [r["name"] for r in rows if kind(r) == "unnormalised"]
    left = f" Not drawn, because their constant is unknown: {', '.join(apart)}." if apart else ""
    data = results["data"]
    parts = parts_in_words(Event.from_json(data["event"]), data.get("columns"))
    caption = (
        f"Bits per entry of a held-out example. Lines are {ends}. Each kind has its own group: a model with a higher "
        f"bound than an exact value of another is not necessarily worse.{left}{parts and f' {capital(parts)}.'}"
    )
    drawn = [Chart("Likelihood", charts.likelihood_dots(dots, "chart-likelihood"), caption)]
    caption = "Lower is better, left is cheaper. ● exact, ◀ bound, ◆ estimate."
    return drawn + _by_time("Likelihood", "bits/dim", found, caption)


def quality_charts(results: Results) -> list[Chart]:
    """FID by training time."""
    caption = "FID of samples: lower is better, left is cheaper. An arrow ↑ marks values far above the others."
    return _by_time("FID", "FID", figures(results, "fid"), caption)


def _by_time(what: str, axis: str, found: Sequence[tuple[Contestant, Figure]], caption: str) -> list[Chart]:
    """Figures over training times, in minutes if these are long."""
    if len(found) < 2:
        return []
    seconds = [sum(m["train_seconds"] or 0.0 for m in c["runs"]) / len(c["runs"]) for c, _ in found]
    unit, size, least = ("seconds", 1, 0.1) if max(seconds) < 180 else ("minutes", 60, 0.01)
    dots = [
        Bar(c["name"], f.value, "", f.interval, f.detail.get("kind", "none"), x=max(s / size, least))
        for s, (c, f) in zip(seconds, found, strict=True)
    ]
    ident, title = f"chart-time-{what.lower()}", f"{what} by training time"
    return [Chart(title, charts.scatter(dots, ident, title, f"{unit} of training", axis), caption)]


def storage_charts(results: Results) -> list[Chart]:
    """Real bytes of codecs, next to the bytes that likelihoods imply and the real ones of models."""
    rows = [
        Bar(f"{s['codec']}, {s['how'].split(',')[0]}", s["per_example"], f"{number(s['per_example'])} bytes")
        for s in results["baselines"]["stored"]
    ]
    implied, coded = (figures(results, key) for key in ("implied_bytes", "coded_bytes"))
    for contestant, figure in implied:
        shown = f"{sign(kind(contestant))} ".lstrip("= ") + f"{number(figure.value)} bytes, implied"
        rows.append(Bar(contestant["name"], figure.value, shown, figure.interval, "implied"))
    for contestant, figure in coded:
        shown = f"{number(figure.value)} bytes, coded"
        rows.append(Bar(contestant["name"], figure.value, shown, None, "coded"))
    if not rows:
        return []
    caption = "Solid bars are real: the examples were compressed. "
    if implied:
        caption += "Striped bars are implied: what an ideal coder would need by the model’s likelihood. "
        if coded:
            caption += "Coded bytes were written with the model, decoded and compared, without header and index. "
        else:
            caption += "No file was written with a model. "
        caption += "The model itself is not counted."
    else:
        caption += "A density of real numbers without a precision implies no size, so none is compared with real ones."
    rows.sort(key=lambda r: r.value)
    return [Chart("Bytes per example", charts.bars(rows, "chart-storage", "Bytes per example"), caption)]


def measure_chart(results: Results, column: Column) -> list[Chart]:
    """One measure as bars, the best first, with its floor."""
    found = sorted(figures(results, column.key), key=lambda p: p[1].value, reverse=column.better == "higher")
    if not found or column.better is None:
        return []
    rows = [Bar(c["name"], f.value, column.with_interval(f), f.interval) for c, f in found]
    floors, detail = [f.floor for _, f in found if f.floor is not None], found[0][1].detail
    scored = list(dict.fromkeys(str(f.detail["by"]) for _, f in found if f.detail.get("by")))
    lines, caption = [], [capital(column.meaning) + (f", by {listed(scored, 'or')}" if scored else "")]
    if floors:
        lines.append(sum(floors) / len(floors))
        caption.append(f"the dashed line is {column.floor} ({column.show(lines[0])})")
    if (majority := detail.get("majority")) is not None:
        lines.append(majority)
        caption.append(f"the dotted line is the most frequent class for all examples ({column.show(majority)})")
    before = [f"{c['name']} {column.show(v)}" for c, f in found if (v := untrained(f.detail)) is not None]
    if before:
        caption.append(f"the same encoders with random parameters, not trained: {', '.join(before)}")
    ident = "chart-" + re.sub("[^a-z0-9]+", "-", column.key.lower())
    return [Chart(column.title, charts.bars(rows, ident, column.title, lines), "; ".join(caption) + ".")]


def calibration_charts(results: Results) -> list[Chart]:
    """Shares of held-out examples by levels of the model's samples."""
    found = []
    for i, (contestant, figure) in enumerate(figures(results, "calibration")):
        name, runs = contestant["name"], contestant["runs"]
        shown = Column.of("calibration", results["measures"]["calibration"]).with_interval(figure)
        curves = [r["figures"]["calibration"]["detail"]["curve"] for r in runs if "calibration" in r["figures"]]
        drawn = charts.calibration_curve(curves, f"chart-calibration-{i}", name, shown)
        found.append(Chart(name, drawn, f"error {shown}"))
    return found


def training_charts(results: Results) -> list[Chart]:
    """Training curves, one chart for each contestant."""
    found = []
    for i, contestant in enumerate(results["contestants"]):
        name, runs = contestant["name"], contestant["runs"]
        if panels := curve_panels([r["curve"] for r in runs], kind(contestant)):
            steps = sorted({r["steps"] for r in runs})
            words = counted(steps[0], "step") if len(steps) == 1 else f"{steps[0]:,}–{steps[-1]:,} steps"
            words += f", {duration(sum(r['train_seconds'] or 0.0 for r in runs) / len(runs))}. "
            drawn = charts.training_curves(panels, f"chart-training-{i}", f"Training of {name}")
            found.append(Chart(name, drawn, words, key_of(panels)))
    return found


def curve_panels(curves: Sequence[Mapping[str, Any]], kind: str | None, by: str = "likelihood") -> list[Panel]:
    """Losses and validation over steps; on one scale if both are nats, as for exact likelihoods and bounds.

    Args:
        curves: of the runs: ``losses`` by name, and ``validation``, as pairs of a step and a value.
        kind: of the likelihood.
        by: the measure of validation; the likelihood is in nats.
    """
    names = list(dict.fromkeys(n for c in curves for n in c["losses"]))
    names = [n for n in names if n.split("/")[-1] == "loss"] or names
    losses = [(n, c["losses"][n]) for n in names for c in curves if c["losses"].get(n)]
    checked = [("validation", c["validation"]) for c in curves if c["validation"]]
    if checked and names == ["loss"] and kind in ("exact", "bound"):
        return [Panel("nats per example", [*(("training loss", pairs) for _, pairs in losses), *checked])]
    title = "training loss" if len(names) == 1 else "training losses"
    valid = "validation, nats per example" if by == "likelihood" else f"validation: {by}"
    return [p for p in (Panel(title, losses), Panel(valid, checked)) if p.lines]


def key_of(panels: Sequence[Panel]) -> tuple[tuple[int, str], ...]:
    """The colours of the first panel, if it has several."""
    names = panels[0].names if panels else []
    return tuple((i % 4, name) for i, name in enumerate(names)) if len(names) > 1 else ()


def curves_of(events: Sequence[Mapping[str, Any]], measure: str = "nats") -> dict[str, Any]:
    """The curves in the log of a run: every loss, and the validation values recorded as ``measure``."""
    names = dict.fromkeys(n for e in events for n in e if n.split("/")[-1] == "loss")
    losses: dict[str, list[Pair]] = {n: [(e["step"], e[n]) for e in events if n in e] for n in names}
    return {"losses": losses, "validation": [(e["step"], e[measure]) for e in events if e.get(measure) is not None]}
