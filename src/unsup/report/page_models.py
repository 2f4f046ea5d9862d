"""The pictures of the page: real data beside everybody's samples, then a section a contestant with its runs."""

from __future__ import annotations

from typing import Any

from unsup.core.escapes import markup
from unsup.evaluate.records import Contestant, Measures, Results
from unsup.report.album import TITLES, Album, pictured, ranked
from unsup.report.figures import COLUMNS, STATUS, bits_per_dim, duration, in_order, interval, kind, sign
from unsup.report.svg import number
from unsup.report.words import told

_THREE_IN_A_ROW, _TWO_IN_A_ROW = 400, 600


def samples_section(results: Results, album: Album) -> str:
    """Real data, then samples of each contestant, all at one scale."""
    shown = [(p, "", TITLES.get(n, n.replace("_", " ").capitalize())) for n, p in results["pictures"].items()]
    for contestant in in_order(results["contestants"]):
        run = pictured(contestant["runs"])
        if run is not None and "samples" in run["pictures"]:
            shown.append((run["pictures"]["samples"], run.get("folder", run["run"]), contestant["name"]))
    if not shown:
        return ""
    widest = max(album.width(p, folder) for p, folder, _ in shown)
    whole = min([_THREE_IN_A_ROW // max(1, widest), *(p["scale"] for p, _, _ in shown)])
    scale = whole if whole >= 1 else min(1.0, _TWO_IN_A_ROW / widest)
    cards = [album.figure(p, folder, title, "h3", scale) for p, folder, title in shown]
    note = "<p class=note>Unselected, all at one scale; of several seeds, the first that was drawn.</p>"
    return f'{note}<div class="gallery{" pairs" if scale > 1 else ""}">{"".join(cards)}</div>'


def models_section(results: Results, album: Album) -> str:
    """One ``<details>`` a contestant."""
    order = in_order(results["contestants"])
    rest = [c for c in results["contestants"] if not c["runs"]]
    return "".join(
        _model(c, results["contestants"].index(c), album, is_open=c is order[0] if order else False)
        for c in [*order, *rest]
    )


def _model(contestant: Contestant, place: int, album: Album, *, is_open: bool) -> str:
    status = STATUS.get(contestant["status"])
    chip = f' <span class="chip warn">{status}</span>' if status else ""
    reason = f"<p class=absent>{markup(contestant['reason'])}</p>" if contestant["reason"] else ""
    paper = f'<p class="note paper">{markup(contestant["paper"])}</p>' if contestant["paper"] else ""
    options = (
        f"<p class=note>Options: <code>{markup(_options(contestant['options']))}</code></p>"
        if contestant["options"]
        else ""
    )
    return (
        f'<details id="model-{place}" class="model"{" open" if is_open else ""}>'
        f'<summary><h3>{markup(contestant["name"])}</h3><span class="family">{markup(contestant["family"])}'
        f'</span>{chip}<span class="short">{_short(contestant)}</span>'
        f"</summary><div class=inside>{reason}{paper}{options}{_pictures(contestant, album)}{_runs(contestant)}"
        f"{_remarks(contestant)}</div></details>"
    )


def _options(options: dict[str, Any]) -> str:
    return ", ".join(f"{k} {told(v)}" for k, v in options.items())


def _short(contestant: Contestant) -> str:
    """The few figures that stand beside the name."""
    bits, said = bits_per_dim(contestant), []
    if bits is not None:
        said.append(f"{sign(kind(contestant))} {number(bits.value, 4)} bits/dim")
    figures = {c.key: c.figure(contestant) for c in COLUMNS}
    if fid := figures["fid"]:
        said.append(f"FID {number(fid.value)}")
    if seconds := figures["seconds"]:
        said.append(duration(seconds.value))
    return " · ".join(said)


def _pictures(contestant: Contestant, album: Album) -> str:
    run = pictured(contestant["runs"])
    if run is None:
        return ""
    shown = [n for n in ranked(run["pictures"]) if n != "samples"]
    if not shown:
        return ""
    figures = "".join(
        album.figure(run["pictures"][n], run.get("folder", run["run"]), TITLES.get(n, n.replace("_", " ").capitalize()))
        for n in shown
    )
    several = len(contestant["runs"]) > 1
    note = f"<p class=note>Pictures of the run with seed {markup(run['seed'])}.</p>" if several else ""
    return f"{note}<div class=gallery>{figures}</div>"


def _runs(contestant: Contestant) -> str:
    if not contestant["runs"]:
        return ""
    runs = "".join(_run(r) for r in contestant["runs"])
    return f"<h4>{'Its runs' if len(contestant['runs']) > 1 else 'Its run'}</h4>{runs}"


def _run(run: Measures) -> str:
    own = {
        "Folder": f"<code>{markup(run['run'])}</code>",
        "Seed": markup(run["seed"]),
        "Steps": f"{run['steps']:,}",
        "Time": f"{duration(run['train_seconds'])} training, {duration(run['measure_seconds'])} measuring",
        "Environment": markup(environment_text(run["environment"])),
    }
    facts = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in own.items())
    commands = command(run["command"], "made by")
    if run["eval_command"]:
        commands += command(run["eval_command"], "measured again by")
    if samples := run.get("samples_command"):
        commands += command(samples, "samples judged again by")
    return (
        f"<div class=run><dl class=facts>{facts}</dl>{commands}<details class=figures><summary>All figures of seed "
        f"{markup(run['seed'])}</summary>{_figures(run)}</details></div>"
    )


def _figures(run: Measures) -> str:
    alone: Any = {"runs": [run]}
    rows = ""
    for column in COLUMNS:
        figure = column.figure(alone)
        if figure is not None:
            ends = interval(figure, column.show)
            name = markup(column.title)
            rows += f"<tr><th scope=row>{name}</th><td>{column.show(figure.value)}</td><td>{ends}</td></tr>"
    return (
        "<div class=scroll role=region tabindex=0 aria-label='Figures of one run'><table class=plain>"
        f"<caption class=visually-hidden>Figures of seed {markup(run['seed'])}</caption><thead><tr>"
        "<th scope=col>Measure</th><th scope=col>Value</th><th scope=col>95 % interval</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _remarks(contestant: Contestant) -> str:
    missing = dict.fromkeys((k, v) for r in contestant["runs"] for k, v in r["missing"].items())
    notes = dict.fromkeys((r["seed"], n) for r in contestant["runs"] for n in r["notes"])
    several = len(contestant["runs"]) > 1
    parts = ""
    if notes:
        items = "".join(f"<li>{markup(f'Seed {seed}: ') if several else ''}{markup(n)}</li>" for seed, n in notes)
        parts += f"<h4>Noticed</h4><ul>{items}</ul>"
    if missing:
        items = "".join(f"<li><b>{markup(k.replace('_', ' '))}</b>: {markup(v)}</li>" for k, v in missing)
        parts += f"<h4>Not measured</h4><ul>{items}</ul>"
    return parts


def command(line: str, label: str = "") -> str:
    """A command line with a button that copies it."""
    before = f'<span class="label">{markup(label)}</span>' if label else ""
    return (
        f'<div class="command">{before}<pre tabindex="0" aria-label="command"><code>{markup(line)}</code></pre>'
        '<button type="button" class="copy needs-js">Copy</button></div>'
    )


def environment_text(environment: dict[str, Any]) -> str:
    """Where something ran, in one line."""
    names = {"unsup": "unsup ", "python": "Python ", "torch": "PyTorch ", "threads": "threads "}
    known = [f"{names.get(k, '')}{v}" for k, v in environment.items() if v not in (None, "", [], {})]
    return ", ".join(known)
