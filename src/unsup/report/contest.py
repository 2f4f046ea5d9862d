"""The page of a contest: one self-contained HTML file from ``results.json`` and the pictures that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unsup.core.errors import InputError
from unsup.core.reading import read_json
from unsup.core.storage import write_inside
from unsup.core.words import counted, duration
from unsup.evaluate.records import Contestant, Measures, Results
from unsup.report import drawn
from unsup.report.album import Album, Shown, folder_of, pictured, ranked, title_of
from unsup.report.figures import (
    KINDS,
    PURPOSES,
    STATUS,
    Column,
    bits_text,
    columns,
    figure_of,
    in_order,
    kind,
    kind_order,
    mark,
    tables,
)
from unsup.report.pages import Page, Pairs, Section, footer, render, shown
from unsup.report.svg import number
from unsup.report.words import capital, environment_text, plainly, told

LIMIT = 5_000_000
"""The largest size of a page in bytes."""
_MARGIN = 20_000
_THREE_IN_A_ROW, _TWO_IN_A_ROW = 400, 600


def write_comparison_page(folder: str | Path) -> Path:
    """Write ``index.html`` of a contest's folder from its ``results.json``, and return its path.

    Raises:
        InputError: the folder has no results, or damaged ones.
    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(f"{folder} has no comparison (no results.json); expected a folder of unsup compare")
    results: Results = read_json(path, dict[str, Any], mend="run unsup compare again to restore it")
    try:
        page = comparison_page(results, folder)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error!r}); run unsup compare again to restore it") from error
    write_inside(folder / "index.html", page.encode())
    return folder / "index.html"


def comparison_page(results: Results, root: Path) -> str:
    """The page of ``results``, whose pictures are in ``root``."""
    bare = render("contest.html", page=page_view(results, Album(results, root, 0)))
    return render("contest.html", page=page_view(results, Album(results, root, LIMIT - _MARGIN - len(bare.encode()))))


def page_view(results: Results, album: Album) -> Page:
    measured = sum(bool(c["runs"]) for c in results["contestants"])
    of_purpose = {purpose: _purpose_section(results, album, purpose) for purpose in PURPOSES if purpose != "cost"}
    asked = [of_purpose.pop(results["for"])] if results["for"] in of_purpose else []
    return Page(
        title=f"{counted(measured, 'model')} {'measured' if measured == 1 else 'compared'} on {results['title']}",
        brand="unsup compare",
        about=results["about"],
        summary=tuple(results["summary"]),
        next=tuple((n["what"], n["command"]) for n in results["next"]),
        sections=shown(
            Section("results", "Results", results_view(results)),
            *asked,
            *of_purpose.values(),
            Section("training", "Training", drawn.training_charts(results)),
            Section("models", "Model by model", models_view(results, album)),
            Section("method", "How this was measured", method_view(results, album)),
        ),
        footer=footer(results["environment"]),
    )


def _purpose_section(results: Results, album: Album, purpose: str) -> Section:
    """Charts and pictures of one purpose: its own, or bars for each of its measures."""
    title, view = PURPOSES[purpose], []
    if purpose == "samples":
        title, view = "Samples and real data", [samples_view(results, album), drawn.quality_charts(results)]
    elif purpose == "density":
        title = "Likelihood and time"
        view = [drawn.likelihood_charts(results), drawn.calibration_charts(results)]
    elif purpose == "compression":
        stored = results["baselines"]["stored"]
        title, view = "Storage", [drawn.storage_charts(results), [_stored(s) for s in stored]]
    else:
        view = [
            c for column in columns(results) if column.purpose == purpose for c in drawn.measure_chart(results, column)
        ]
    return Section(purpose, title, view if any(view) else None)


def _stored(s: Any) -> tuple[str, ...]:
    return s["codec"], f"{s['bytes']:,}", number(s["per_example"]), s["how"]


def results_view(results: Results) -> dict[str, Any]:
    """The tables, how to read them, and the contestants that are missing."""
    rows = in_order(results)
    several = any(len(r["runs"]) > 1 for r in rows)
    small = (
        "the mean over seeds, with the lowest and the highest run below" if several else "with its 95 % interval below"
    )
    kinds = {kind(r) for r in rows}
    return {
        "tables": [_table(results, rows, own) for own in tables(columns(results))],
        "reading": f"Each figure is of {counted(results['examples'], 'held-out example')} or "
        f"{counted(results['samples'], 'sample')}, {small}.",
        "kinds": [k for k in KINDS if k in kinds],
        "ranked": any(results["places"].values()),
        "absent": [
            (c["name"], STATUS[c["status"]], c["reason"] or "it starts when the contest is resumed")
            for c in results["contestants"]
            if c["status"] != "done"
        ],
    }


def _table(results: Results, rows: list[Contestant], own: list[Column]) -> dict[str, Any]:
    """Measures of some purposes; ``floors`` is a row of what the measures are compared with, or empty."""
    all_runs = [r for c in rows for r in c["runs"]]
    found = [(figure_of(all_runs, c.key), c) for c in own]
    floors = ["" if f is None or f.floor is None else c.show(f.floor) for f, c in found]
    first, *others = dict.fromkeys(PURPOSES.get(c.purpose, c.purpose) for c in own)
    return {
        "title": ", ".join([first, *(t.lower() for t in others)]),
        "columns": own,
        "rows": [(_about(results, c), [_cell(results, c, column) for column in own]) for c in rows],
        "floors": floors if any(floors) else (),
    }


def _about(results: Results, contestant: Contestant) -> dict[str, Any]:
    """The record of a contestant, with its link, its status in words and the place of its kind of likelihood."""
    family, model = contestant["family"], contestant["model"]
    return {
        **contestant,
        "link": f"model-{results['contestants'].index(contestant)}",
        "status": STATUS.get(contestant["status"]),
        "about": family if model == contestant["name"] else f"{model}, {family}",
        "group": kind_order(contestant),
    }


def _cell(results: Results, contestant: Contestant, column: Column) -> dict[str, Any]:
    """One figure of a table: its text, the value to sort by, and small lines below; or the reason why it is missing."""
    figure, own = figure_of(contestant["runs"], column.key), kind(contestant)
    if figure is None:
        reasons = [r["missing"][column.key] for r in contestant["runs"] if column.key in r["missing"]]
        return {"value": None, "why": "; ".join(dict.fromkeys(reasons))}
    of_likelihood, small = column.key == "likelihood", []
    if column.better and not (of_likelihood and figure.error is not None):
        small.append(column.interval(figure))
    if of_likelihood and (bits := bits_text(contestant)):
        small.append(f"{bits} bits/dim")
    if (copies := figure.detail.get("copies")) is not None:
        small.append(f"copies {number(100 * copies, 1)} %")
    return {
        "value": figure.value,
        "text": column.headline(figure),
        "mark": mark(results["places"], column, contestant["name"]),
        "kind": own if of_likelihood and own in KINDS else "",
        "small": [s for s in small if s],
    }


def samples_view(results: Results, album: Album) -> list[Shown]:
    """Real data, then samples of each contestant, all at one scale."""
    found = [(p, "", title_of(n)) for n, p in results["pictures"].items()]
    for contestant in in_order(results):
        run = pictured(contestant["runs"])
        if run is not None and "samples" in run["pictures"]:
            found.append((run["pictures"]["samples"], folder_of(run), contestant["name"]))
    widest = max((album.width(p, folder) for p, folder, _ in found), default=0)
    whole = min([_THREE_IN_A_ROW // max(1, widest), *(p["scale"] for p, _, _ in found)])
    scale = whole if whole >= 1 else min(1.0, _TWO_IN_A_ROW / max(1, widest))
    return [album.show(p, folder, title, scale) for p, folder, title in found]


def models_view(results: Results, album: Album) -> list[dict[str, Any]]:
    absent = [c for c in results["contestants"] if not c["runs"]]
    return [_model(results, c, album) for c in [*in_order(results), *absent]]


def _model(results: Results, contestant: Contestant, album: Album) -> dict[str, Any]:
    """The record of a contestant, with its runs and pictures as the page shows them."""
    runs, several, own = contestant["runs"], len(contestant["runs"]) > 1, columns(results)
    run, names = pictured(runs), {k: capital(m["title"]) for k, m in results["measures"].items()}
    pictures = {} if run is None else {n: run["pictures"][n] for n in ranked(run["pictures"]) if n != "samples"}
    short = [f"{bits} bits/dim"] if (bits := bits_text(contestant)) else []
    for column, words in ((c, w) for key, w in (("fid", "FID "), ("seconds", "")) for c in own if c.key == key):
        if figure := figure_of(runs, column.key):
            short.append(words + column.show(figure.value))
    return _about(results, contestant) | {
        "short": " · ".join(short),
        "options": ", ".join(f"{k} {told(v)}" for k, v in contestant["options"].items()),
        "pictures": [album.show(p, folder_of(run), title_of(n)) for n, p in pictures.items() if run is not None],
        "runs": [_run(r, own, names) for r in runs],
        "notes": list(dict.fromkeys((f"Seed {r['seed']}: " if several else "") + n for r in runs for n in r["notes"])),
        "missing": list(dict.fromkeys((names.get(k, k), why) for r in runs for k, why in r["missing"].items())),
    }


def _run(run: Measures, own: list[Column], names: dict[str, str]) -> dict[str, Any]:
    found = [(c, f) for c in own if (f := figure_of([run], c.key))]
    training, measuring = (duration(run[k] or 0) for k in ("train_seconds", "measure_seconds"))
    lines: dict[str, list[str]] = {}
    for key, line in run["commands"].items():
        lines.setdefault(line, []).append(names.get(key, key))
    return {
        "seed": run["seed"],
        "facts": [
            ("Folder", run["run"]),
            ("Seed", str(run["seed"])),
            ("Steps", f"{run['steps']:,}"),
            ("Time", f"{training} training, {measuring} measuring"),
            ("Environment", environment_text(run["environment"])),
        ],
        "commands": [("train it again", run["command"]), *((f"measure {', '.join(n)}", c) for c, n in lines.items())],
        "figures": [(c.title, c.headline(f), c.interval(f)) for c, f in found],
    }


def method_view(results: Results, album: Album) -> dict[str, Any]:
    runs = [r for c in results["contestants"] for r in c["runs"]]
    facts = {"Plan": results["plan"], "Data": plainly(results["data"])}
    if results["minutes"] is not None:
        facts["Budget"] = counted(results["minutes"], "minute")
    facts["Time taken"] = duration(results["seconds"] or 0)
    facts["Seeds"] = ", ".join(map(str, results["seeds"])) or "none"
    facts["Held-out examples"] = f"{results['examples']:,}"
    facts["Samples per run"] = f"{results['samples']:,}"
    if (fid := figure_of(runs, "fid")) is not None:
        facts["Extractor"] = plainly(fid.detail.get("extractor"))
        fake, real, other = (fid.detail.get(k, 0) for k in ("fake", "real", "held_out"))
        facts["Counts"] = (
            f"{counted(fake, 'sample')} are compared with {counted(real, 'training example')}; so are "
            f"{counted(other, 'held-out example')}, for comparison"
        )
    facts["Anomalies"] = results["anomalies"]
    facts["Machine"] = environment_text(results["environment"])
    pairs: Pairs = tuple((k, v) for k, v in facts.items() if v)
    return {"facts": pairs, "left_out": album.left_out, "limit": LIMIT // 10**6, "command": results["command"]}
