"""The charts of the page with their headings and captions, from the records."""

from __future__ import annotations

from unsup.core.escapes import markup
from unsup.evaluate.records import Contestant, Results
from unsup.report.charts import (
    Bar,
    Panel,
    Point,
    bars,
    calibration_curve,
    likelihood_dots,
    scatter,
    training_curves,
)
from unsup.report.figures import Figure, bits_per_dim, column, duration, in_order, interval, kind, sign
from unsup.report.svg import number


def chart(title: str, drawn: str, caption: str, class_: str = "chart", heading: str = "h3") -> str:
    """A figure with a heading above and a caption, which is markup, below."""
    return (
        f'<figure class="{class_}"><{heading}>{markup(title)}</{heading}>{drawn}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def likelihood_section(results: Results) -> str:
    """Likelihoods as dots, and quality against the time it took."""
    rows = in_order(results["contestants"])
    unit, times = _times(rows)
    dots, points = [], []
    for row in rows:
        bits, own = bits_per_dim(row), kind(row)
        if bits is None or own in (None, "unnormalised"):
            continue
        shown = f"{sign(own)} {number(bits.value, 4)}"
        dots.append(Bar(row["name"], bits.value, shown, bits.interval, str(own), seeds=bits.seeds))
        points.append(Point(row["name"], times[row["name"]], bits.value, bits.interval, str(own)))
    charts = []
    if dots:
        charts.append(
            chart(
                "Likelihood",
                likelihood_dots(dots, "chart-likelihood"),
                "Bits a number of a held-out example takes. Bars are "
                + _interval_words(rows)
                + ". Kinds have their own "
                "groups: a bound that looks worse than an exact figure may not be.",
            )
        )
    apart = [markup(r["name"]) for r in rows if kind(r) == "unnormalised"]
    if len(points) > 1:
        charts.append(
            chart(
                "Likelihood and training time",
                scatter(
                    points, "chart-time-likelihood", "Likelihood by training time", f"{unit} of training", "bits/dim"
                ),
                "Lower is better, left is cheaper. ● exact, ◀ bound, ◆ estimate.",
            )
        )
    fid = [(r, f) for r in rows if (f := column("fid").figure(r))]
    if len(fid) > 1:
        quality = [Point(r["name"], times[r["name"]], f.value, f.interval, "none") for r, f in fid]
        charts.append(
            chart(
                "Sample quality and training time",
                scatter(quality, "chart-time-fid", "FID by training time", f"{unit} of training", "FID"),
                "FID of samples: lower is better, left is cheaper. ↑ lies far above.",
            )
        )
    note = f"<p class=note>Not drawn, as their constant is unknown: {', '.join(apart)}.</p>" if apart else ""
    return f"<div class=charts>{''.join(charts)}</div>{note}" if charts else note


def _times(rows: list[Contestant]) -> tuple[str, dict[str, float]]:
    """Training times by name, in minutes where that makes numbers worth reading."""
    seconds = {r["name"]: f.value for r in rows if (f := column("seconds").figure(r))}
    if max(seconds.values(), default=0.0) < 180:
        return "seconds", {n: max(s, 0.1) for n, s in seconds.items()}
    return "minutes", {n: max(s / 60, 0.01) for n, s in seconds.items()}


def _interval_words(rows: list[Contestant]) -> str:
    several = any(len(r["runs"]) > 1 for r in rows)
    return "the lowest to the highest seed, small dots the single runs" if several else "95 % intervals"


def storage_section(results: Results) -> str:
    """Real bytes of codecs beside the bytes likelihoods imply."""
    stored = results["baselines"]["stored"]
    rows = [
        Bar(f"{s['codec']}, {s['how'].split(',')[0]}", s["per_example"], f"{number(s['per_example'])} bytes")
        for s in stored
    ]
    implied = [(c, f) for c in in_order(results["contestants"]) if (f := column("implied_bytes").figure(c))]
    for contestant, figure in implied:
        own = kind(contestant)
        told = "" if own in (None, "exact") else f"{sign(own)} "
        shown = f"{told}{number(figure.value)} bytes, implied"
        rows.append(Bar(contestant["name"], figure.value, shown, figure.interval, implied=True))
    if not rows:
        return ""
    rows.sort(key=lambda r: r.value)
    drawn = bars(rows, "chart-storage", "Bytes per example", "bytes per example")
    hows = "".join(
        f"<tr><th scope=row>{markup(s['codec'])}</th><td>{s['bytes']:,}</td>"
        f"<td>{number(s['per_example'])}</td><td class=words>{markup(s['how'])}</td></tr>"
        for s in stored
    )
    table = (
        "<div class=scroll role=region tabindex=0 aria-labelledby=stored-caption><table class=plain><caption "
        "id=stored-caption>Files that were really written</caption><thead><tr><th scope=col>Codec</th>"
        "<th scope=col>Bytes</th><th scope=col>Per example</th><th scope=col class=words>What is in the file</th></tr>"
        "</thead>"
        f"<tbody>{hows}</tbody></table></div>"
    )
    words = "Solid bars are files that were written. " + (
        "Striped bars are <b>implied</b>: what a coder as good as the model’s likelihood would need. No such file was "
        "written, and the model itself is not counted."
        if implied
        else "Nothing is implied by a density of real numbers without a precision."
    )
    side = f"<div class=beside>{table}</div>" if stored else ""
    return f"<div class=charts>{chart('Bytes per example', drawn, words)}{side}</div>"


def anomaly_section(results: Results) -> str:
    """How well likelihoods find anomalies."""
    found = [(c, f) for c in in_order(results["contestants"]) if (f := column("auroc").figure(c))]
    if not found:
        return ""
    by = {r["anomaly"]["by"] for c, _ in found for r in c["runs"] if r["anomaly"]}
    rows = [_figure_bar(c["name"], f) for c, f in sorted(found, key=lambda p: -p[1].value)]
    low = min([0.5, *(r.value for r in rows), *(r.interval[0] for r in rows if r.interval)])
    domain = (0.5 if low >= 0.5 else max(0.0, low - 0.03), 1.0)
    drawn = bars(rows, "chart-anomaly", "AUROC of anomaly detection", "AUROC; ½ is guessing", base=0.5, domain=domain)
    words = (
        f"Chance that an anomaly is ranked above an ordinary example, by {markup(' or '.join(sorted(by)))}. "
        f"Anomalies: {markup(results['anomalies'])}. A bar left of ½ means that anomalies look more likely "
        "than the data."
    )
    return chart("Finding anomalies", drawn, words)


def probe_section(results: Results) -> str:
    """How much of the labels the codes hold."""
    found = [(c, f) for c in in_order(results["contestants"]) if (f := column("probe").figure(c))]
    if not found:
        return ""
    rows = [_figure_bar(c["name"], f) for c, f in sorted(found, key=lambda p: -p[1].value)]
    base = results["baselines"]
    lines, key = [], []
    if base["raw_probe"] is not None:
        value = base["raw_probe"]["accuracy"]["value"]
        lines.append(("raw data", value))
        key.append(f"The dashed line is raw data in place of codes ({number(value)})")
    if base["majority"] is not None:
        lines.append(("commonest class", base["majority"]))
        key.append(f"the dotted line is always naming the commonest class ({number(base['majority'])})")
    drawn = bars(rows, "chart-probe", "Probe accuracy", "accuracy", domain=(0.0, 1.0), lines=lines)
    words = "Accuracy of a logistic regression on the model’s codes. " + "; ".join(key) + ("." if key else "")
    return chart("What the codes know", drawn, words)


def _figure_bar(name: str, figure: Figure) -> Bar:
    return Bar(name, figure.value, _with_interval(figure), figure.interval)


def _with_interval(figure: Figure) -> str:
    ends = interval(figure)
    return number(figure.value) + (f" ({ends})" if ends else "")


def calibration_section(results: Results) -> str:
    """Shares of held-out examples against levels of the model's draws."""
    parts = []
    for i, contestant in enumerate(results["contestants"]):
        found = [r["calibration"] for r in contestant["runs"] if r["calibration"]]
        figure = column("calibration").figure(contestant)
        if not found or figure is None:
            continue
        shown = _with_interval(figure)
        drawn = calibration_curve([c["curve"] for c in found], f"chart-calibration-{i}", contestant["name"], shown)
        parts.append(chart(contestant["name"], drawn, f"error {shown}", "small"))
    if not parts:
        return ""
    words = (
        "Across: the share of the model’s own draws that a region of highest density holds. Up: the share of held-out "
        "examples in it. On the diagonal, held-out examples are as likely as the model’s draws; below it, the model "
        "finds them less likely."
    )
    return f"<p class=note>{words}</p><div class=multiples>{''.join(parts)}</div>"


def training_section(results: Results) -> str:
    """Training curves, a panel a contestant."""
    parts = []
    for i, contestant in enumerate(results["contestants"]):
        panels = _panels(contestant)
        if not panels:
            continue
        seconds = column("seconds").figure(contestant)
        steps = sorted({r["steps"] for r in contestant["runs"]})
        words = "–".join(f"{s:,}" for s in (steps[0], steps[-1])[: len(steps)]) + (
            " step" if steps == [1] else " steps"
        )
        words += f", {duration(seconds.value)}" if seconds else ""
        drawn = training_curves(panels, f"chart-training-{i}", f"Training of {contestant['name']}")
        parts.append(chart(contestant["name"], drawn, words + _key(panels[0]), "small"))
    if not parts:
        return ""
    words = "Each panel has its own scale; the first steps may lie above it. One line a seed and a loss."
    return f"<p class=note>{words}</p><div class=multiples>{''.join(parts)}</div>"


def _panels(contestant: Contestant) -> list[Panel]:
    names = dict.fromkeys(n for r in contestant["runs"] for n in r["curve"]["losses"])
    names = dict.fromkeys([n for n in names if n.split("/")[-1] == "loss"] or names)
    losses = [(n, r["curve"]["losses"][n]) for n in names for r in contestant["runs"] if r["curve"]["losses"].get(n)]
    found = []
    if losses:
        colours = [list(names).index(n) for n, _ in losses]
        title = "training loss, nats" if list(names) == ["loss"] else "training losses"
        found.append(Panel(title, losses, colours=colours))
    checked = [("validation", r["curve"]["validation"]) for r in contestant["runs"] if r["curve"]["validation"]]
    if checked:
        found.append(Panel("validation, bits/dim", checked, dots=True, colours=[0] * len(checked)))
    return found


def _key(panel: Panel) -> str:
    names = {n: c for (n, _), c in zip(panel.lines, panel.colours, strict=True)}
    if len(names) < 2:
        return ""
    items = ", ".join(f'<span class="key s{c % 4}">{markup(n)}</span>' for n, c in names.items())
    return f". {items}"
