"""The page of one run and its README, from the files of its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from unsup.core.commands import data_words, flags, path_word
from unsup.core.config import options_of, plain
from unsup.core.errors import InputError
from unsup.core.escapes import command_line, markdown, visible
from unsup.core.event import Event
from unsup.core.likelihood import parts_in_words
from unsup.core.logbook import read_log
from unsup.core.reading import read_json
from unsup.core.registry import model_class, names, row
from unsup.core.storage import DataRecord, ModelRecord, read_checkpoint_record, write_inside
from unsup.core.words import counted, duration
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.data.form import form_from_json
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.records import Evaluation, Evaluations, Measures, Picture, is_below
from unsup.pictures.gallery import Drawn
from unsup.report.album import Shown, embedded, ranked, title_of
from unsup.report.charts import training_curves
from unsup.report.drawn import Chart, curve_panels, curves_of, key_of
from unsup.report.figures import Column, Figure, finite, gap_text, reading, sign, untrained
from unsup.report.graph import MOST_NODES, graph
from unsup.report.pages import Page, Pairs, Parts, blocks, footer, render, sections
from unsup.report.svg import number
from unsup.report.words import capital, environment_text, plainly, told

_log = logging.getLogger(__name__)
_EARLIER = 5  # pictures of samples that are shown with the last one
_WIDE, _SMALL = 760, 200  # largest width of the last picture and of earlier ones, in screen pixels
_HEADS = [
    *("Measure", "Value", "95 % interval"),
    *({"text": title, "class": "words"} for title in ("For comparison", "Measured on")),
]
_OF_LENGTH = ("steps", "epochs", "minutes")


class _Config(TypedDict):
    data: DataRecord | None
    model: ModelRecord
    training: dict[str, Any]
    labels: NotRequired[list[str] | None]


class _Described(TypedDict):
    notes: list[str]  # and sizes, split, labels, streams
    columns: NotRequired[list[str] | None]


class _About(TypedDict):
    """``about.json``: a description of the data, and the default settings of training of the model."""

    data: _Described
    describe: str
    training: dict[str, Any]


class _Graph(TypedDict):
    """``graph.json``: pairs of entries."""

    edges: list[list[int]]


class _Kept(TypedDict):
    """``measures.json`` of a run of a comparison."""

    measures: Measures


@dataclass(frozen=True)
class Recorded:
    """The records of a run.

    Attributes:
        pictures: those that a comparison made of it; none if it has learned since.
        kept: the step of the parameters that the run provides, if known.
        planned: the number of steps of its schedule, or of passes if the time ended them; None if it counted until it
            converged, or if it is not known yet.
        ended: whether training is finished.
        edges: of the graph between the entries, if the model has one.
    """

    folder: Path
    config: _Config
    about: _About | None
    events: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Evaluation]
    environment: Mapping[str, Any]
    pictures: Mapping[str, Picture]
    kept: int | None
    planned: int | None
    ended: bool
    edges: Sequence[tuple[int, int]] | None = None

    @property
    def event(self) -> Event:
        return Event.from_json(self.config["model"]["event"])

    @property
    def columns(self) -> Sequence[str] | None:
        """The names of the columns of a table, if they are known."""
        return self.about["data"].get("columns") if self.about else None

    @property
    def steps(self) -> int:
        return int(self.events[-1]["step"]) if self.events else 0

    @property
    def seconds(self) -> float:
        return float(self.events[-1]["seconds"]) if self.events else 0.0

    @property
    def title(self) -> str:
        data = self.config["data"]
        return f"{self.config['model']['model']} on {'arrays in memory' if data is None else Path(data['name']).name}"


def write_page(folder: str | Path) -> None:
    """Write ``report.html`` and ``README.md`` of a run folder from the files in it."""
    run = read_run(Path(folder))
    page = page_view(run)
    lines = [f"# {markdown(page.title)}", "", markdown(page.about), "", *(f"- {markdown(s)}" for s in page.summary)]
    lines += ["", "```", *(visible(line) for _, line in commands_of(run)), "```", ""]
    for name, text in (("report.html", render(page)), ("README.md", "\n".join(lines))):
        write_inside(run.folder / name, text.encode(errors="surrogateescape"))


def read_run(folder: Path) -> Recorded:
    """The records of a run folder; damaged files other than the configuration are ignored with a note."""
    config: _Config = read_json(folder / "config.json", _Config)
    points, wrong = read_log(folder / "events.jsonl")
    if wrong is not None:
        _log.warning("note: %s", wrong)
    last, best = (_checkpoint(folder, name) for name in ("last", "best"))
    kept = best.get("done", last.get("done"))
    evaluations = _side_record(folder / "eval.json", Evaluations).get("results", [])
    measured = _side_record(folder / "measures.json", _Kept)
    found = Recorded(
        folder=folder,
        config=config,
        about=_side_record(folder / "about.json", _About) or None,
        events=[point.record for point in points],
        evaluations=[e for e in evaluations if e["measure"] in MEASURES],
        environment=_side_record(folder / "env.json", dict[str, Any]),
        pictures=measured["measures"]["pictures"] if measured else {},
        kept=kept if isinstance(kept, int) else None,
        planned=_planned(last),
        ended=last.get("ended") is not None,
        edges=_edges(_side_record(folder / "graph.json", _Graph)),
    )
    of_now = not measured or measured["measures"]["steps"] == found.steps
    return found if of_now else replace(found, pictures={})


def _edges(record: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    pairs = record.get("edges")
    return None if pairs is None else [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _planned(last: Mapping[str, Any]) -> int | None:
    if "position" in last:  # of gradients
        return cast("int | None", last.get("total"))
    return cast("int | None", last.get("done")) if last.get("ended") == "minutes" else None


def _checkpoint(folder: Path, name: str) -> dict[str, Any]:
    try:
        return read_checkpoint_record(folder / "checkpoints" / f"{name}.safetensors")
    except InputError:  # commands that need it report the error
        return {}


def _side_record(path: Path, annotation: Any) -> Any:
    """An optional file; empty, with a note, if it is damaged."""
    if not path.exists():
        return {}
    try:
        return read_json(path, annotation)
    except InputError as error:
        _log.warning("note: %s; it is ignored", error)
        return {}


def page_view(run: Recorded) -> Page:
    commands = commands_of(run)
    return Page(
        title=run.title,
        brand="unsup run",
        about=run.about["describe"] if run.about else f"Examples are {run.event}.",
        summary=summary_of(run),
        next=commands[:3],
        sections=sections(
            ("figures", "Figures", [("table", figure_rows(run), "figures", "Measured figures", _HEADS, "plain", True)]),
            ("samples", "Samples", samples_view(run.folder)),
            ("graph", "Graph", graph_view(run)),
            ("pictures", "Pictures", [("gallery", pictures_of(run), "h3")]),
            ("training", "Training", training_view(run)),
            ("data", "Data", data_view(run)),
            ("settings", "Settings", settings_view(run)),
            ("commands", "Commands", [("commands", commands)]),
        ),
        footer=footer(run.environment),
    )


def summary_of(run: Recorded) -> tuple[str, ...]:
    """The outcome in sentences, the most important first."""
    test = [e for e in _sorted(run.evaluations) if e["split"] == "test" and not _is_older(run, e)]
    others = [e for e in test[1:] if e["measure"] in ("fid", "auroc", "probe")][:2]
    said = [_sentence(run, e) for e in (*test[:1], *others)]
    if best := _best(run):
        said.append(f"Best validation: {best}.")
    if not test:
        said.append("It has not been evaluated on the test split yet.")
    steps = counted(run.steps, "step")
    if run.ended:
        said.append(f"Training is finished: {steps} in {duration(run.seconds)}.")
    else:
        said.append(f"Training is not finished: it was saved after {steps} and can be resumed.")
    if found := sum("symptom" in e for e in run.events):
        said.append(f"Training had {counted(found, 'symptom')} (see below).")
    return tuple(said)


def _sorted(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """In the order of the table of measures, the test split first."""
    order = list(MEASURES)
    return sorted(evaluations, key=lambda e: (order.index(e["measure"]), e["split"] != "test"))


def _column(entry: Evaluation) -> Column:
    return Column.of(entry["measure"], MEASURES[entry["measure"]].to_json())


def _sentence(run: Recorded, entry: Evaluation) -> str:
    column, figure = _column(entry), reading(entry["figure"])
    if figure is None:
        return f"{column.title} has no finite value."
    shown = f"{column.headline(figure)} {column.unit}".rstrip().removeprefix("= ")
    bits = _bits(run, figure)
    extra = [bits] if bits else []
    if figure.floor is not None and column.floor:
        extra.append(f"{column.show(figure.floor)} for {column.floor}")
    said = f"{capital(entry['split'])} {MEASURES[entry['measure']].title}: {shown}"
    return said + (f" ({', '.join(extra)})" if extra else "") + f", n = {entry['figure']['n']:,}."


def _bits(run: Recorded, figure: Figure) -> str:
    """The bits/dim of a likelihood, its kind and the columns of which it is a mass or a density; or nothing.

    For coded bytes, instead of the kind, how many more they are than the implied ones.
    """
    bits = finite(figure.detail.get("bits_per_dim"))
    if bits is None:
        return ""
    parts = parts_in_words(run.event, run.columns)
    units = figure.detail.get("bits_per_unit") or {"dim": bits}
    told = ", ".join(f"{number(value, 4)} bits/{unit}" for unit, value in units.items())
    said = [told, str(figure.detail.get("kind") or ""), gap_text(figure)]
    return ", ".join(filter(None, said)) + (parts and f"; {parts}")


def _best(run: Recorded) -> str:
    """The best validation since the last loss of data by a damaged folder."""
    lost = max((i for i, e in enumerate(run.events) if "lost" in e), default=-1)
    kept = run.events[lost + 1 :]
    if compared := [e for e in kept if "validator" in e]:
        pick = min if compared[0]["better"] == "lower" else max
        best = pick(compared, key=lambda e: e["value"])
        return f"{best['validator']} {best['value']:.4g} at step {best['step']:,}"
    if scored := [e for e in kept if "bits_per_dim" in e]:
        best = min(scored, key=lambda e: e["nats"])
        nats, bits = f"{sign(best['kind'])} {number(best['nats'], 3)}", number(best["bits_per_dim"], 4)
        return f"{nats.removeprefix('= ')} nats ({bits} bits/dim, {best['kind']}) at step {best['step']:,}"
    return ""


def _is_older(run: Recorded, entry: Evaluation) -> bool:
    return run.kept is not None and entry["step"] is not None and entry["step"] != run.kept


def figure_rows(run: Recorded) -> list[list[Any]]:
    """Every figure of ``eval.json``, and what it was measured on."""
    found = []
    for entry in _sorted(run.evaluations):
        column, figure = _column(entry), reading(entry["figure"])
        if figure is None:
            continue
        settings = {k: v for k, v in entry["settings"].items() if v is not None and (k, v) != ("seed", 0)}
        of = [f"{entry['split']}, n = {entry['figure']['n']:,}", plainly(settings, ", ", " ")]
        of.append("data that has changed since training" if entry["changed_data"] else "")
        bits = _bits(run, figure)
        value = f"{column.headline(figure)} {column.unit}".rstrip() + (f" ({bits})" if bits else "")
        older = f"of step {entry['step']:,}, older parameters" if _is_older(run, entry) else ""
        beside = [(figure.floor, column.floor), (untrained(figure.detail), "untrained encoder")]
        floor = "; ".join(f"{column.show(value)} {words}" for value, words in beside if value is not None)
        name = {"text": column.title, "small": [capital(column.explanation)]}
        shown = {"text": value, "figure": True, "chip": older}
        found.append([name, shown, column.interval(figure), floor, "; ".join(filter(None, of))])
    return found


def samples_view(folder: Path) -> list[Parts]:
    """The last picture of samples, and earlier ones in a row."""
    files = [p for p in sorted((folder / "samples").glob("*.png")) if p.is_file()]
    found = [(p.stem, drawn) for p in files if (drawn := _picture_in(p)) is not None]
    if not found:
        return []
    *earlier, last = found
    if len(earlier) > _EARLIER:
        earlier = [earlier[round(i * (len(earlier) - 1) / (_EARLIER - 1))] for i in range(_EARLIER)]
    small = [_grid(*one, _SMALL) for one in earlier]
    return [("picture", _grid(*last, _WIDE)), ("heading", small and "Earlier"), ("gallery", small, "h4", "strip")]


def graph_view(run: Recorded) -> list[Parts]:
    """The graph between the entries, if it is not too large for a picture."""
    dims, edges = run.event.dims, run.edges
    if edges is None or dims > MOST_NODES or not all(0 <= v < dims for edge in edges for v in edge):
        return []
    columns = list(run.columns or ())
    if len(columns) != dims:
        columns = [str(d) for d in range(dims)]
    try:
        drawn = graph(columns, edges, "chart-graph", f"Graph of {run.title}")
    except ValueError:  # a damaged file
        return []
    caption = "Every column depends on those from which an arrow leads to it. An arrow is not a cause."
    return [("charts", [Chart("Dependences", drawn, caption)], "single", "wide")]


def pictures_of(run: Recorded) -> list[Shown]:
    """What a comparison drew of the run, the most important first."""
    found = []
    for name in ranked(dict(run.pictures)):
        of = run.pictures[name]
        path = run.folder / of["file"]
        drawn = _picture_in(path) if is_below(of["file"]) and path.is_file() else None
        if drawn is not None:
            scale = max(1, of["scale"])
            words = of["alt"], title_of(name), of["caption"]
            found.append(embedded(drawn.png, *words, scale, plot=of.get("plot", False)))
    return found


def _picture_in(path: Path) -> Drawn | None:
    """The picture in a file; None if it is damaged, as a page without it is still of use."""
    try:
        return Drawn.read(path.read_bytes())
    except InputError:
        return None


def _grid(stem: str, drawn: Drawn, width: int) -> Shown:
    """A picture of samples with the words in its file, at its own size or no wider than ``width``."""
    content = drawn.png
    digits = stem.removeprefix("step-")
    step = f"step {int(digits):,}" if digits.isdigit() else stem
    scale = min(float(drawn.scale), width / max(1, int.from_bytes(content[16:20], "big")))
    caption = drawn.caption if width == _WIDE else capital(step)
    return embedded(content, drawn.alt or f"Samples, {step}", "", caption, scale, plot=drawn.plot)


def training_view(run: Recorded) -> list[Parts]:
    def first(key: str, other: Any = None) -> Any:
        return next((e[key] for e in run.events if key in e), other)

    curves = curves_of(run.events, "nats" if any(e.get("nats") is not None for e in run.events) else "value")
    charts = []
    if panels := curve_panels([curves], first("kind"), first("validator", "likelihood")):
        together = len(panels) == 1 and len(panels[0].lines) > 1
        scales = "Training and validation are on one scale" if together else "Each panel has its own scale"
        drawn = training_curves(panels, "chart-training", f"Training of {run.title}", width=440.0)
        words = f"{scales}; the first steps may be above it. "
        charts.append(Chart("Training and validation", drawn, words, key_of(panels)))
    facts = {
        "Steps": f"{run.steps:,}",
        "Time": duration(run.seconds),
        "Seed": str(run.config["training"].get("seed", "")),
        "Best validation": _best(run),
        "Parameters": "" if run.kept is None else f"those of step {run.kept:,}",
        "Machine": environment_text(run.environment),
    }
    changed = "The data had changed at step {}: the following steps used the new data."
    noticed = [f"{e['symptom']} at step {e['step']}: {e['advice']}" for e in run.events if "symptom" in e]
    noticed += [changed.format(e["step"]) for e in run.events if "changed_data" in e]
    noticed += [f"Lost before step {e['step']}: {e['lost']}." for e in run.events if "lost" in e]
    shown = [(k, v) for k, v in facts.items() if v]
    return [
        ("charts", charts, "single", "wide"),
        ("facts", shown),
        ("heading", noticed and "Notes"),
        ("items", noticed),
    ]


def data_view(run: Recorded) -> list[Parts]:
    data, given = run.config["data"], run.config["model"]["config"].get("given")
    facts = {"Name": "arrays in memory" if data is None else data["name"], "One example": str(run.event)}
    own: Mapping[str, Any] = run.about["data"] if run.about else {}
    facts["Splits"] = plainly(own.get("sizes", {}), ", ", " ")
    for name, key in (("Split by", "split"), ("Columns", "columns"), ("Labels", "labels"), ("Streams", "streams")):
        facts[name] = plainly(own.get(key))
    facts["Options"] = "" if data is None else plainly(data["options"], ", ", " ")
    facts["Conditions"] = "" if given is None else told(given)
    shown, notes = [(k, v) for k, v in facts.items() if v not in ("", "None")], own.get("notes", [])
    return [("facts", shown, True), ("heading", notes and "Notes"), ("items", notes)]


def settings_view(run: Recorded) -> list[Parts]:
    """Options of the model and settings of training: those that differ from the defaults, and the rest."""
    changed: list[tuple[str, str]] = []
    rest: list[tuple[str, str]] = []
    for prefix, own, usual in zip(("model.", ""), _settings(run), _defaults(run), strict=True):
        different = _changed(own, usual)
        for name, value in own.items():
            (changed if name in different else rest).append((prefix + name, told(value)))
    inside = blocks(("facts", rest, True))
    return [
        ("note", changed and "Settings that differ from the defaults."),
        ("facts", changed, True),
        ("fold", inside, "All other settings" if changed else "All settings", "rest"),
    ]


def _settings(run: Recorded) -> tuple[dict[str, Any], dict[str, Any]]:
    return run.config["model"]["config"], run.config["training"]


def _defaults(run: Recorded) -> tuple[dict[str, Any], dict[str, Any]]:
    """The defaults of options and of settings of training, as far as they are known."""
    name, options = run.config["model"]["model"], {}
    if name in names():
        known = options_of(vars(model_class(name))["__init__"])
        options = {k: plain(default) for k, (_, default) in known.items()}
    return options, run.about["training"] if run.about else {}


def _changed(own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in own.items() if usual and (k not in usual or plain(v) != plain(usual[k]))}


def changed_settings(run: Recorded) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options and the settings of training, except its length, that differ from the defaults of the model."""
    options, training = (_changed(*pair) for pair in zip(_settings(run), _defaults(run), strict=True))
    options.pop("given", None)  # the condition follows from the data
    return options, {k: v for k, v in training.items() if k not in _OF_LENGTH}


def fit_command(run: Recorded, out: str) -> str:
    """The ``unsup fit`` that trains the run again into ``out``, with the steps that fitted its time budget."""
    length = {k: run.config["training"].get(k) for k in _OF_LENGTH}
    if length["minutes"] is not None:  # models that count until they converge need no length
        length = {"steps": run.planned}
    data, *more = data_words(run.config["data"])
    options, training = changed_settings(run)
    words = ["unsup", "fit", data, run.config["model"]["model"], "-o", path_word(out), *more, *flags(length | training)]
    return command_line([*words, *flags(options, "model.")])


def next_lines(folder: str | Path) -> list[str]:
    """The command lines to continue with after training, the most useful first."""
    return [line for _, line in commands_of(read_run(Path(folder)))[:3]]


def commands_of(run: Recorded) -> Pairs:
    """What can be done with the run in its present state, the most useful first, as pairs of words and a command."""
    config, data, folder = run.config["model"], run.config["data"], path_word(run.folder)
    able = {*(row(config["model"]).abilities if config["model"] in names() else ("score", "sample"))}
    given = config["config"].get("given")
    condition = _condition(given, data)
    found: list[tuple[str, list[str]]] = []
    if not run.ended:
        found.append(("Resume training", ["fit", "--resume", "-o", folder]))
    evaluated = any(e["split"] == "test" and not _is_older(run, e) for e in run.evaluations)
    if "score" in able and data is not None and not evaluated:
        found.append(("Likelihood of the test split", ["eval", folder]))
    if "sample" in able:
        found.append(("Draw samples", ["sample", folder, "-n", "64", "-o", "samples.png", *condition]))
        form = run.config.get("form")
        what, out = ("Samples as numbers", "samples.npy")
        if form is not None:
            what, out = "Samples in the form of the data", f"samples{form_from_json(form).suffixes[0]}"
        found.append((what, ["sample", folder, "-n", "64", "-o", out, *condition]))
    if data is not None:
        own, *_ = data_words(data)
        examples = [own, *flags({k: v for k, v in data["options"].items() if k in EXAMPLE_OPTIONS})]
        alone = given is None and not {"domain_b", "unlabelled", "labels"} & data["options"].keys()
        scores = "energy" in able or "score" in able
        labelled = run.config.get("labels") is not None
        classifies = "predict" in able and (given is not None or "condition" not in able)
        fills = "complete" in able and bool(config["event"].get("missing"))
        unlikely = ["outliers", *examples, "--model", folder, "-o", "outliers.csv"]
        for possible, what, words in (
            (True, "All possible measures", ["eval", folder, "--measures", "all"]),
            ("score" in able, "Log-likelihood of each example", ["score", folder, *examples, "-o", "scores.csv"]),
            (scores and given is None, "Unlikely rows", unlikely),
            (classifies, "Class of each example", ["predict", folder, *examples, "-o", "classes.csv"]),
            ("encode" in able, "Codes of examples", ["encode", folder, *examples, "-o", "codes.npz"]),
            ("encode" in able and labelled, "What the codes contain", ["probe", folder, "-o", "codes.html"]),
            ("encode" in able, "Map of the codes", ["map", folder, "-o", "map.png"]),
            ({"encode", "decode"} <= able, "Decode codes", ["decode", folder, "codes.npz", "-o", "decoded.png"]),
            (fills, "Draw missing cells", ["complete", folder, own, "-o", "filled.csv"]),
            ("translate" in able, "Translate images", ["translate", folder, own, "-o", "translated", "--to", "b"]),
            (True, "One page with all measures and pictures", ["report", folder, "-o", "comparison"]),
            (alone, "Compare with other models", ["compare", *data_words(data), "-o", "compared"]),
        ):
            found += [(what, words)] if possible else []
    found.append(("Papers to cite", ["cite", folder]))
    return tuple((what, command_line(["unsup", *words])) for what, words in found)


def _condition(given: Mapping[str, Any] | None, data: DataRecord | None) -> list[str]:
    """The condition of samples: none for classes; else the source of the condition in training, or zeros."""
    if given is None or not given["shape"]:
        return []
    source = None if data is None else data["options"].get("given")
    return (
        ["--given", path_word(source)] if isinstance(source, str) else ["--given", *["0"] * Event.from_json(given).dims]
    )
