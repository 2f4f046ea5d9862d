"""The page of a comparison: one self-contained HTML file from ``results.json`` and the pictures that it names."""

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
    figures,
    gap_text,
    in_order,
    kind,
    kind_order,
    mark,
    tables,
    untrained,
)
from unsup.report.pages import Page, Parts, blocks, footer, render, sections
from unsup.report.svg import number
from unsup.report.verdict import trained_little
from unsup.report.words import capital, environment_text, plainly, told

LIMIT = 5_000_000
"""The largest size of a page in bytes."""
_MARGIN = 20_000
_THREE_IN_A_ROW, _TWO_IN_A_ROW = 400, 600
_SIGNS = {
    "exact": "= is exact",
    "bound": "≤ is an upper bound, and the true value is as low or lower",
    "estimate": "≈ is an estimate, which may err in either direction",
    "unnormalised": "∝ is known only up to a constant and cannot be compared",
}


def write_comparison_page(folder: str | Path) -> Path:
    """Write ``index.html`` of the folder of a comparison from its ``results.json``, and return its path.

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
    bare = render(page_view(results, Album(results, root, 0)))
    return render(page_view(results, Album(results, root, LIMIT - _MARGIN - len(bare.encode()))))


def page_view(results: Results, album: Album) -> Page:
    measured = sum(bool(c["runs"]) for c in results["contestants"])
    purposes = sorted((p for p in PURPOSES if p != "cost"), key=lambda p: p != results["for"])
    training = drawn.training_charts(results)
    return Page(
        title=f"{counted(measured, 'model')} {'measured' if measured == 1 else 'compared'} on {results['title']}",
        brand="unsup compare",
        about=results["about"],
        summary=tuple(results["summary"]),
        next=tuple((n["what"], n["command"]) for n in results["next"]),
        sections=sections(
            ("results", "Results", results_view(results)),
            *(_purpose_section(results, album, purpose) for purpose in purposes),
            ("training", "Training", [("legend", training, "training"), ("charts", training, "multiples", "small")]),
            ("models", "Model by model", models_view(results, album)),
            ("method", "How this was measured", method_view(results, album)),
        ),
        footer=footer(results["environment"]),
    )


def _purpose_section(results: Results, album: Album, purpose: str) -> tuple[str, str, list[Parts]]:
    """Charts and pictures of one purpose: its own, or bars for each of its measures."""
    if purpose == "samples":
        pictures = samples_view(results, album)
        view: list[Parts] = [("legend", pictures, "samples"), ("gallery", pictures, "h3")]
        return purpose, "Samples and real data", [*view, ("charts", drawn.quality_charts(results))]
    if purpose == "density":
        curves = drawn.calibration_charts(results)
        view = [("charts", drawn.likelihood_charts(results)), ("heading", curves and "Calibration")]
        tight = ("charts", curves, "multiples tight", "small", "h4")
        return purpose, "Likelihood and time", [*view, ("legend", curves, "calibration"), tight]
    if purpose == "compression":
        heads = ("Codec or model", "Bytes", "Per example", "Content of the file")
        beside = blocks(("table", stored_rows(results), "stored", "Compressed files of the same examples", heads))
        return purpose, "Storage", [("charts", drawn.storage_charts(results), "charts", "chart", "h3", beside)]
    own = [column for column in columns(results) if column.purpose == purpose]
    return purpose, PURPOSES[purpose], [("charts", [c for o in own for c in drawn.measure_chart(results, o)])]


def stored_rows(results: Results) -> list[list[Any]]:
    """The files of general codecs and of models, the smallest first; then the models with which none was written."""
    found: list[tuple[float, list[Any]]] = [
        (s["bytes"], [s["codec"], f"{s['bytes']:,}", number(s["per_example"]), s["how"]])
        for s in results["baselines"]["stored"]
    ]
    absent: list[list[Any]] = []
    for contestant, _ in figures(results, "implied_bytes"):
        name, runs = {"text": contestant["name"], "link": _link(results, contestant)}, contestant["runs"]
        coded = next((f for r in runs if (f := r["figures"].get("coded_bytes"))), None)
        if coded is None:
            why = "; ".join(dict.fromkeys(r["missing"].get("coded_bytes", "not measured") for r in runs))
            absent.append([name, {"text": None}, {"text": None}, f"none was written: {why}"])
            continue
        size, seed = coded["detail"]["file_bytes"], f", seed {runs[0]['seed']}" if len(runs) > 1 else ""
        header = size - coded["detail"]["bytes"]
        how = f"all examples and {header:,} bytes of header and index, without the model; decoded and compared{seed}"
        found.append((size, [name, f"{size:,}", number(size / coded["n"]), how]))
    return [row for _, row in sorted(found, key=lambda pair: pair[0])] + absent


def results_view(results: Results) -> list[Parts]:
    """The tables, how to read them, and the models that are missing."""
    rows = in_order(results)
    small = (
        "the mean over seeds, with the lowest and the highest run below"
        if any(len(r["runs"]) > 1 for r in rows)
        else "with its 95 % interval below"
    )
    reading = (
        f"Each figure is of {counted(results['examples'], 'held-out example')} or "
        f"{counted(results['samples'], 'sample')}, {small}."
    )
    found = [_table(results, rows, own, f"table-{i}") for i, own in enumerate(tables(columns(results)), start=1)]
    kinds = {kind(r) for r in rows}
    absent = [
        (c["name"], STATUS[c["status"]], c["reason"] or "it starts when the comparison is resumed")
        for c in results["contestants"]
        if c["status"] != "done"
    ]
    return [
        ("note", not found and "No model has been measured yet.", "absent"),
        ("legend", found and reading, "sort"),
        *found,
        ("legend", [words for k, words in _SIGNS.items() if k in kinds], "kinds"),
        ("legend", any(results["places"].values()), "marks"),
        ("heading", absent and "Not finished"),
        ("items", absent),
        ("heading", (common := _missing(results, rows, common=True)) and "Not measured for any model"),
        ("items", common),
    ]


def _missing(results: Results, found: list[Contestant], *, common: bool) -> list[tuple[str, str, str]]:
    """Measures and the reason why they are missing: the same for all models (as for the data), or of ``found`` only."""
    names = {k: capital(m["title"]) for k, m in results["measures"].items()}
    every = [r["missing"].items() for c in results["contestants"] for r in c["runs"]]
    shared = set.intersection(*map(set, every)) if len(every) > 1 else set()
    reasons: dict[str, dict[str, None]] = {}
    for key, why in ((k, why) for c in found for r in c["runs"] for k, why in r["missing"].items()):
        if ((key, why) in shared) == common:
            reasons.setdefault(why, {})[names.get(key, key)] = None
    return [(", ".join(keys), "", why) for why, keys in reasons.items()]


def _table(results: Results, rows: list[Contestant], own: list[Column], ident: str) -> Parts:
    """Measures of some purposes; the last row is what the measures are compared with, if anything."""
    all_runs = [r for c in rows for r in c["runs"]]
    shown = {}
    for column in own:
        if (figure := figure_of(all_runs, column.key)) and figure.floor is not None:
            shown[column.key] = {"text": column.show(figure.floor), "small": [column.floor]}
    feet = ["For comparison", *(shown.get(c.key, "") for c in own)] if shown else []
    first, *others = dict.fromkeys(PURPOSES.get(c.purpose, c.purpose) for c in own)
    title = ", ".join([first, *(t.lower() for t in others)])
    lines, group = [], None
    for c in rows:
        look, group = {} if kind_order(c) == group else {"class": "first"}, kind_order(c)
        name = _name(results, c) | {"row": {"data-group": group, **look}}
        lines.append([name, *(_cell(results, c, column) for column in own)])
    return "table", lines, ident, title, ["Model", *map(_head, own)], "measures", False, feet


def _head(column: Column) -> dict[str, Any]:
    first = "descending" if column.better == "higher" else "ascending"
    attributes = {"data-key": column.key, "data-first": first, "title": column.meaning}
    return {"text": column.title, "small": [f"{column.unit} {column.arrow}".strip()], "attributes": attributes}


def _name(results: Results, contestant: Contestant) -> dict[str, Any]:
    """The first cell of a model, with its remarks."""
    family, model, name = contestant["family"], contestant["model"], contestant["name"]
    return {
        "text": name,
        "link": _link(results, contestant),
        "chip": STATUS.get(contestant["status"]) or (trained_little(contestant) and "short training"),
        "small": [family if model == name else f"{model}, {family}"],
        "attributes": {"data-value": name.lower()},
    }


def _link(results: Results, contestant: Contestant) -> str:
    return f"model-{results['contestants'].index(contestant)}"


def _cell(results: Results, contestant: Contestant, column: Column) -> dict[str, Any]:
    """One figure of a table: its text, the value to sort by, and small lines below; or the reason why it is missing."""
    figure, own = figure_of(contestant["runs"], column.key), kind(contestant)
    if figure is None:
        reasons = [r["missing"][column.key] for r in contestant["runs"] if column.key in r["missing"]]
        why = "; ".join(dict.fromkeys(reasons))
        return {"text": None, "attributes": {"class": "none"} | ({"title": why} if why else {})}
    of_likelihood, small = column.key == "likelihood", []
    if column.better and not (of_likelihood and figure.error is not None):
        small.append(column.interval(figure))
    if bits := bits_text(contestant, column.key):
        small.append(f"{bits} bits/dim")
    small.append(gap_text(figure))
    if (before := untrained(figure.detail)) is not None:
        small.append(f"untrained {column.show(before)}")
    if (copies := figure.detail.get("copies")) is not None:
        small.append(f"copies {number(100 * copies, 1)} %")
    # Nothing is the best at artificial anomalies, as in the sentences.
    best = None if figure.detail.get("artificial") else mark(results["places"], column, contestant["name"])
    return {
        "text": column.headline(figure),
        "figure": True,
        "kind": own if of_likelihood and own in KINDS else "",
        "chip": best,
        "look": best,
        "small": small,
        "attributes": {"data-value": figure.value} | ({"class": "best"} if best == "best" else {}),
    }


def samples_view(results: Results, album: Album) -> list[Shown]:
    """Real data, then samples of each model, all at one scale."""
    found = [(p, "", title_of(n)) for n, p in results["pictures"].items()]
    for contestant in in_order(results):
        run = pictured(contestant["runs"])
        if run is not None and "samples" in run["pictures"]:
            found.append((run["pictures"]["samples"], folder_of(run), contestant["name"]))
    widest = max((album.width(p, folder) for p, folder, _ in found), default=0)
    whole = min([_THREE_IN_A_ROW // max(1, widest), *(p["scale"] for p, _, _ in found)])
    scale = whole if whole >= 1 else min(1.0, _TWO_IN_A_ROW / max(1, widest))
    return [album.show(p, folder, title, scale) for p, folder, title in found]


def models_view(results: Results, album: Album) -> list[Parts]:
    absent = [c for c in results["contestants"] if not c["runs"]]
    return [_model(results, c, album, first=i == 0) for i, c in enumerate([*in_order(results), *absent])]


def _model(results: Results, contestant: Contestant, album: Album, *, first: bool) -> Parts:
    """A model with its runs and pictures, to be opened."""
    runs, several, own = contestant["runs"], len(contestant["runs"]) > 1, columns(results)
    run = pictured(runs)
    wanted = [] if run is None else [n for n in ranked(run["pictures"]) if n != "samples"]
    pictures = [album.show(run["pictures"][n], folder_of(run), title_of(n)) for n in wanted if run is not None]
    short = [f"{bits} bits/dim"] if (bits := bits_text(contestant)) else []
    for column, words in ((c, w) for key, w in (("fid", "FID "), ("seconds", "")) for c in own if c.key == key):
        if figure := figure_of(runs, column.key):
            short.append(words + column.show(figure.value))
    options = ", ".join(f"{k} {told(v)}" for k, v in contestant["options"].items())
    notes = list(dict.fromkeys((f"Seed {r['seed']}: " if several else "") + n for r in runs for n in r["notes"]))
    missing = _missing(results, [contestant], common=False)
    link = _link(results, contestant)
    inside = blocks(
        ("note", contestant["reason"] or "", "absent"),
        ("note", contestant["paper"]),
        ("note", options and "Options: ", "note", options),
        ("note", pictures and several and "Pictures of the first seed."),
        ("gallery", pictures),
        ("heading", runs and ("Runs" if several else "Run"), "h4"),
        *(("group", _run(r, own, f"{link}-{i}", contestant["name"]), "run") for i, r in enumerate(runs, start=1)),
        ("heading", notes and "Notes", "h4"),
        ("items", notes),
        ("heading", missing and "Not measured", "h4"),
        ("items", missing),
    )
    status = STATUS.get(contestant["status"])
    return (
        "model",
        contestant["name"],
        inside,
        link,
        contestant["family"],
        status,
        " · ".join(short),
        first and bool(runs),
    )


def _run(run: Measures, own: list[Column], ident: str, name: str) -> tuple[Parts, ...]:
    training, measuring = (duration(run[k] or 0) for k in ("train_seconds", "measure_seconds"))
    facts = [
        ("Folder", run["run"]),
        ("Seed", str(run["seed"])),
        ("Steps", f"{run['steps']:,}"),
        ("Time", f"{training} training, {measuring} measuring"),
        ("Environment", environment_text(run["environment"])),
    ]
    again = [("measure it again", line) for line in dict.fromkeys(run["commands"].values())]
    found = [(c.title, c.headline(f), c.interval(f)) for c in own if (f := figure_of([run], c.key))]
    heads = ("Measure", "Value", "95 % interval")
    inside = blocks(("table", found, ident, f"Figures of {name}, seed {run['seed']}", heads, "plain", True))
    return blocks(
        ("facts", facts),
        ("commands", [("train it again", run["command"]), *again]),
        ("fold", inside, f"All figures of seed {run['seed']}", "figures"),
    )


def method_view(results: Results, album: Album) -> list[Parts]:
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
    omitted = f"Omitted to keep the page below {LIMIT // 10**6} MB: {', '.join(album.left_out)}."
    return [
        ("facts", [(k, v) for k, v in facts.items() if v], True),
        ("note", album.left_out and f"{omitted} They are in the run folders.", "absent"),
        ("heading", "The command"),
        ("command", results["command"]),
        ("files", ("results.csv", "results.json")),
    ]
