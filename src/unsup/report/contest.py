"""The page of a contest: one HTML file that needs nothing else, from ``results.json`` and the pictures it names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unsup.core.errors import InputError
from unsup.core.reading import read_json
from unsup.core.storage import write_inside
from unsup.core.words import counted, duration
from unsup.evaluate.records import Contestant, Measures, Results
from unsup.report.album import Album, Shown, pictured, ranked, title_of
from unsup.report.drawn import (
    calibration_charts,
    likelihood_charts,
    measure_chart,
    quality_charts,
    storage_charts,
    training_charts,
)
from unsup.report.figures import (
    KINDS,
    PURPOSES,
    STATUS,
    Column,
    bits_per_dim,
    columns,
    figure_of,
    headline,
    in_order,
    interval,
    kind,
    kind_order,
    mark,
    sign,
    tables,
)
from unsup.report.pages import Section, render, shown
from unsup.report.svg import number
from unsup.report.words import capital, environment_text, plainly, told

LIMIT = 5_000_000
"""Bytes that a page may have at most."""
_MARGIN = 20_000
_THREE_IN_A_ROW, _TWO_IN_A_ROW = 400, 600


# --- what the page shows ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One figure of the table: what is written, what it sorts by, and small lines below; or why there is none."""

    text: str = ""
    value: float | None = None
    mark: str | None = None
    kind: str = ""
    small: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Row:
    """A contestant in the table; ``group`` is the place of its kind of likelihood."""

    name: str
    about: str
    link: str
    status: str | None
    group: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Measures of some purposes; ``floors`` is a row of what the measures compare with, or empty."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    floors: tuple[str, ...]


@dataclass(frozen=True)
class Ran:
    """One run of a contestant."""

    seed: int
    facts: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Model:
    """A contestant with its runs."""

    link: str
    name: str
    family: str
    status: str | None
    short: str
    reason: str | None
    paper: str
    options: str
    pictures: tuple[Shown, ...]
    runs: tuple[Ran, ...]
    notes: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """The whole page; a part that has nothing to show is no section."""

    title: str
    brand: str
    about: str
    summary: tuple[str, ...]
    next: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    footer: str


# --- from the record --------------------------------------------------------------------------------------------------


def write_comparison_page(folder: str | Path) -> Path:
    """Write ``index.html`` of a contest's folder from its ``results.json``, and say where.

    Raises:
        InputError: the folder holds no results, or damaged ones.
    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no comparison (no results.json); expected a folder of unsup compare")
    results: Results = read_json(path, dict[str, Any], mend="run unsup compare again to restore it")
    try:
        page = comparison_page(results, folder)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path} is damaged ({error!r}); run unsup compare again to restore it") from error
    write_inside(folder / "index.html", page.encode())
    return folder / "index.html"


def comparison_page(results: Results, root: Path) -> str:
    """The page of ``results``, whose pictures lie under ``root``."""
    bare = render("contest.html", page=page_view(results, Album(results, root, 0)))
    return render("contest.html", page=page_view(results, Album(results, root, LIMIT - _MARGIN - len(bare.encode()))))


def page_view(results: Results, album: Album) -> Page:
    measured = sum(bool(c["runs"]) for c in results["contestants"])
    of_purpose = {purpose: _purpose_section(results, album, purpose) for purpose in PURPOSES if purpose != "cost"}
    asked = [of_purpose.pop(results["for"])] if results["for"] in of_purpose else []
    environment = results["environment"]
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
            Section("training", "Training", training_charts(results)),
            Section("models", "Model by model", models_view(results, album)),
            Section("method", "How this was measured", method_view(results, album)),
        ),
        footer=" · ".join(
            str(p) for p in (f"unsup {environment.get('unsup', '')}".strip(), environment.get("time")) if p
        ),
    )


def _purpose_section(results: Results, album: Album, purpose: str) -> Section:
    """What is shown of one purpose besides the table: charts and pictures of its own, or bars for each measure."""
    if purpose == "samples":
        pictures, charts = samples_view(results, album), quality_charts(results)
        return Section("samples", "Samples beside real data", (pictures, charts) if pictures or charts else None)
    if purpose == "density":
        charts, curves = likelihood_charts(results), calibration_charts(results)
        return Section("density", "Likelihood and time", (charts, curves) if charts or curves else None)
    if purpose == "compression":
        charts = storage_charts(results)
        return Section("compression", "Storage", (charts, _stored(results)) if charts else None)
    found = [measure_chart(results, c) for c in columns(results) if c.purpose == purpose]
    return Section(purpose, PURPOSES[purpose], [c for c in found if c is not None])


def _stored(results: Results) -> list[tuple[str, str, str, str]]:
    stored = results["baselines"]["stored"]
    return [(s["codec"], f"{s['bytes']:,}", number(s["per_example"]), s["how"]) for s in stored]


def results_view(results: Results) -> dict[str, Any]:
    """The tables, how to read them, and who is not in them."""
    rows = in_order(results)
    several = any(len(r["runs"]) > 1 for r in rows)
    small = (
        "the mean over seeds, and below it the lowest and the highest run" if several else "its 95 % interval below it"
    )
    kinds = {k for r in rows if (k := kind(r))}
    return {
        "tables": [_table(results, rows, own) for own in tables(columns(results))],
        "reading": f"Each figure is of {counted(results['examples'], 'held-out example')} or "
        f"{counted(results['samples'], 'sample')}, with {small}.",
        "kinds": [k for k in KINDS if k in kinds],
        "ranked": any(results["places"].values()),
        "absent": [
            (c["name"], STATUS[c["status"]], c["reason"] or "it starts when the contest is resumed")
            for c in results["contestants"]
            if c["status"] != "done"
        ],
    }


def _table(results: Results, rows: list[Contestant], own: list[Column]) -> Table:
    all_runs = [r for c in rows for r in c["runs"]]
    floors = [(figure_of(all_runs, c.key), c) for c in own]
    known = [c.show(f.floor) if f is not None and f.floor is not None else "" for f, c in floors]
    titles = list(dict.fromkeys(PURPOSES.get(c.purpose, c.purpose) for c in own))
    return Table(
        title=", ".join([titles[0], *(t.lower() for t in titles[1:])]),
        columns=tuple(own),
        rows=tuple(_row(results, r, own) for r in rows),
        floors=tuple(known) if any(known) else (),
    )


def _row(results: Results, contestant: Contestant, own: list[Column]) -> Row:
    family, model = contestant["family"], contestant["model"]
    return Row(
        name=contestant["name"],
        about=family if model == contestant["name"] else f"{model}, {family}",
        link=f"model-{results['contestants'].index(contestant)}",
        status=STATUS.get(contestant["status"]),
        group=kind_order(contestant),
        cells=tuple(_cell(results, contestant, c) for c in own),
    )


def _cell(results: Results, contestant: Contestant, column: Column) -> Cell:
    figure, own = figure_of(contestant["runs"], column.key), kind(contestant)
    if figure is None:
        reasons = [r["missing"][column.key] for r in contestant["runs"] if column.key in r["missing"]]
        return Cell(why="; ".join(dict.fromkeys(reasons)))
    small = (
        [interval(figure, column.show)]
        if column.better and (column.key != "likelihood" or figure.error is None)
        else []
    )
    if column.key == "likelihood" and (bits := bits_per_dim(contestant)):
        small.append(f"{sign(kind(contestant))} {number(bits.value, 4)} bits/dim")
    if (copies := figure.detail.get("copies")) is not None:
        small.append(f"copies {number(100 * copies, 1)} %")
    return Cell(
        text=headline(figure, column.key, column.show),
        value=figure.value,
        mark=mark(results["places"], column, contestant["name"]),
        kind=own if column.key == "likelihood" and own in KINDS else "",
        small=tuple(s for s in small if s),
    )


def samples_view(results: Results, album: Album) -> list[Shown]:
    """Real data, then samples of each contestant, all at one scale."""
    found = [(p, "", title_of(n)) for n, p in results["pictures"].items()]
    for contestant in in_order(results):
        run = pictured(contestant["runs"])
        if run is not None and "samples" in run["pictures"]:
            found.append((run["pictures"]["samples"], run.get("folder", run["run"]), contestant["name"]))
    widest = max((album.width(p, folder) for p, folder, _ in found), default=0)
    whole = min([_THREE_IN_A_ROW // max(1, widest), *(p["scale"] for p, _, _ in found)])
    scale = whole if whole >= 1 else min(1.0, _TWO_IN_A_ROW / max(1, widest))
    return [album.show(p, folder, title, scale) for p, folder, title in found]


def models_view(results: Results, album: Album) -> list[Model]:
    measured = in_order(results)
    return [_model(results, c, album) for c in [*measured, *(c for c in results["contestants"] if not c["runs"])]]


def _model(results: Results, contestant: Contestant, album: Album) -> Model:
    runs, several = contestant["runs"], len(contestant["runs"]) > 1
    run = pictured(runs)
    shown = [] if run is None else [n for n in ranked(run["pictures"]) if n != "samples"]
    titles = {k: capital(m["title"]) for k, m in results["measures"].items()}
    missing = dict.fromkeys((titles.get(k, k), v) for r in runs for k, v in r["missing"].items())
    notes = dict.fromkeys((f"Seed {r['seed']}: " if several else "") + n for r in runs for n in r["notes"])
    own = columns(results)
    return Model(
        link=f"model-{results['contestants'].index(contestant)}",
        name=contestant["name"],
        family=contestant["family"],
        status=STATUS.get(contestant["status"]),
        short=_short(contestant, own),
        reason=contestant["reason"],
        paper=contestant["paper"],
        options=", ".join(f"{k} {told(v)}" for k, v in contestant["options"].items()),
        pictures=()
        if run is None
        else tuple(album.show(run["pictures"][n], run.get("folder", run["run"]), title_of(n)) for n in shown),
        runs=tuple(_ran(r, own) for r in runs),
        notes=tuple(notes),
        missing=tuple(missing),
    )


def _short(contestant: Contestant, own: list[Column]) -> str:
    """The few figures that stand beside the name."""
    said, show = [], {c.key: c.show for c in own}
    if bits := bits_per_dim(contestant):
        said.append(f"{sign(kind(contestant))} {number(bits.value, 4)} bits/dim")
    for key, words in (("fid", "FID {}"), ("seconds", "{}")):
        if figure := figure_of(contestant["runs"], key):
            said.append(words.format(show[key](figure.value)))
    return " · ".join(said)


def _ran(run: Measures, own: list[Column]) -> Ran:
    found = [(c, figure_of([run], c.key)) for c in own]
    lines: dict[str, list[str]] = {}
    titles = {c.key: c.title for c in own}
    for key, line in run["commands"].items():
        lines.setdefault(line, []).append(titles.get(key, key))
    return Ran(
        seed=run["seed"],
        facts=(
            ("Folder", run["run"]),
            ("Seed", str(run["seed"])),
            ("Steps", f"{run['steps']:,}"),
            (
                "Time",
                f"{duration(run['train_seconds'] or 0)} training, {duration(run['measure_seconds'] or 0)} measuring",
            ),
            ("Environment", environment_text(run["environment"])),
        ),
        commands=(
            ("trains it again", run["command"]),
            *((f"measures {', '.join(n)}", line) for line, n in lines.items()),
        ),
        figures=tuple((c.title, headline(f, c.key, c.show), interval(f, c.show)) for c, f in found if f is not None),
    )


def method_view(results: Results, album: Album) -> dict[str, Any]:
    runs = [r for c in results["contestants"] for r in c["runs"]]
    fid = figure_of(runs, "fid")
    facts = {"Plan": results["plan"], "Data": plainly(results["data"])}
    if results["minutes"] is not None:
        facts["Budget"] = counted(results["minutes"], "minute")
    facts["Time taken"] = duration(results["seconds"] or 0)
    facts["Seeds"] = ", ".join(map(str, results["seeds"])) or "none"
    facts["Held-out examples"] = f"{results['examples']:,}"
    facts["Samples per run"] = f"{results['samples']:,}"
    if fid is not None:
        detail = fid.detail
        facts["Extractor"] = plainly(detail.get("extractor"))
        facts["Counts"] = (
            f"{counted(detail.get('fake', 0), 'sample')} against {counted(detail.get('real', 0), 'training example')}; "
            f"{counted(detail.get('held_out', 0), 'held-out example')} behind what real data get"
        )
    if results["anomalies"]:
        facts["Anomalies"] = results["anomalies"]
    if any(len(c["runs"]) > 1 for c in results["contestants"]):
        facts["Over seeds"] = "a figure of several seeds is their mean; below it are the lowest and the highest run"
    facts["Machine"] = environment_text(results["environment"])
    return {
        "facts": list(facts.items()),
        "left_out": album.left_out,
        "limit": LIMIT // 10**6,
        "command": results["command"],
    }
