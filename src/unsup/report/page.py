"""The page of one run and its README, from the files of its folder alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from unsup.core.commands import data_words, flags, path_word
from unsup.core.config import options_of, plain
from unsup.core.errors import InputError
from unsup.core.escapes import command_line, markdown, visible
from unsup.core.event import Event
from unsup.core.logbook import read_log
from unsup.core.reading import read_json
from unsup.core.registry import model_class, names, row
from unsup.core.storage import ModelRecord, read_checkpoint_record, write_inside
from unsup.core.words import counted, duration
from unsup.data.catalog import EXAMPLE_OPTIONS
from unsup.evaluate.measures import MEASURES
from unsup.evaluate.records import Evaluation, Evaluations
from unsup.pictures.gallery import Drawn
from unsup.report.album import Shown, embedded, is_png
from unsup.report.charts import training_curves
from unsup.report.drawn import Chart, curve_panels, curves_of, key_of
from unsup.report.figures import Figure, finite, headline, interval, reading, shown_by, sign
from unsup.report.pages import Page, Pairs, Section, footer, render, shown
from unsup.report.svg import number
from unsup.report.words import capital, environment_text, plainly, told

_log = logging.getLogger(__name__)
_STRIP = 5
"""Earlier grids that are shown beside the last one."""
_WIDE, _SMALL = 760, 200
"""Screen pixels that a picture is wide at most: the last one, and those before it."""


class _DataRecord(TypedDict):
    name: str
    options: dict[str, Any]


class _Config(TypedDict):
    data: _DataRecord | None
    model: ModelRecord
    training: dict[str, Any]


class _Described(TypedDict):
    notes: list[str]
    sizes: NotRequired[Any]
    split: NotRequired[Any]
    columns: NotRequired[Any]
    labels: NotRequired[Any]
    streams: NotRequired[Any]


class _About(TypedDict):
    """``about.json``: what the data were, and the settings of training that are usual for the model."""

    data: _Described
    describe: str
    training: dict[str, Any]


@dataclass(frozen=True)
class Recorded:
    """What the files of a run say.

    Attributes:
        kept: the step of the parameters that the run hands out, where it is known.
        ended: whether training is over.
    """

    folder: Path
    config: _Config
    about: _About | None
    events: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Evaluation]
    environment: Mapping[str, Any]
    kept: int | None
    ended: bool

    @property
    def event(self) -> Event:
        return Event.from_json(self.config["model"]["event"])

    @property
    def steps(self) -> int:
        return int(self.events[-1]["step"]) if self.events else 0

    @property
    def title(self) -> str:
        data = self.config["data"]
        return f"{self.config['model']['model']} on {'arrays in memory' if data is None else Path(data['name']).name}"


@dataclass(frozen=True)
class Line:
    """A figure of ``eval.json``: what it is, and what it was measured on."""

    title: str
    explanation: str
    value: str
    interval: str
    floor: str
    of: str
    older: str


def write_page(folder: str | Path) -> None:
    """Write ``report.html`` and ``README.md`` of a run folder from the files in it."""
    run = read_run(Path(folder))
    page = page_view(run)
    lines = [f"# {markdown(page.title)}", "", markdown(page.about), "", *(f"- {markdown(s)}" for s in page.summary)]
    lines += ["", "```", *(visible(line) for _, line in commands_of(run)), "```", ""]
    _write(run.folder / "report.html", render("run.html", page=page))
    _write(run.folder / "README.md", "\n".join(lines))


def _write(path: Path, text: str) -> None:
    write_inside(path, text.encode(errors="surrogateescape"))


# --- what the files say -----------------------------------------------------------------------------------------------


def read_run(folder: Path) -> Recorded:
    """The records of a run folder; what is damaged besides its configuration is left out with a note."""
    config: _Config = read_json(folder / "config.json", _Config)
    points, wrong = read_log(folder / "events.jsonl")
    if wrong is not None:
        _log.warning("note: %s", wrong)
    last, best = (_checkpoint(folder, name) for name in ("last", "best"))
    kept = best.get("done", last.get("done"))
    evaluations = _side_record(folder / "eval.json", Evaluations).get("results", [])
    return Recorded(
        folder=folder,
        config=config,
        about=_side_record(folder / "about.json", _About) or None,
        events=[point.record for point in points],
        evaluations=[e for e in evaluations if e["measure"] in MEASURES],
        environment=_side_record(folder / "env.json", dict[str, Any]),
        kept=kept if isinstance(kept, int) else None,
        ended=last.get("ended") is not None,
    )


def _checkpoint(folder: Path, name: str) -> dict[str, Any]:
    try:
        return read_checkpoint_record(folder / "checkpoints" / f"{name}.safetensors")
    except InputError:  # whoever uses it says what is wrong
        return {}


def _side_record(path: Path, annotation: Any) -> Any:
    """A file that the page can do without; nothing, and a note, where it is damaged."""
    if not path.exists():
        return {}
    try:
        return read_json(path, annotation)
    except InputError as error:
        _log.warning("note: %s; it is left out", error)
        return {}


# --- what the page shows ----------------------------------------------------------------------------------------------


def page_view(run: Recorded) -> Page:
    commands = commands_of(run)
    return Page(
        title=run.title,
        brand="unsup run",
        about=run.about["describe"] if run.about else f"Examples are {run.event}.",
        summary=summary_of(run),
        next=commands[:3],
        sections=shown(
            Section("figures", "Figures", figures_view(run)),
            Section("samples", "Samples", samples_view(run.folder)),
            Section("training", "Training", training_view(run)),
            Section("data", "Data", data_view(run)),
            Section("settings", "Settings", settings_view(run)),
            Section("commands", "Commands", commands),
        ),
        footer=footer(run.environment),
    )


def summary_of(run: Recorded) -> tuple[str, ...]:
    """What came of it, the answer first."""
    now = [e for e in run.evaluations if not _is_older(run, e)]
    test = sorted((e for e in now if e["split"] == "test"), key=lambda e: list(MEASURES).index(e["measure"]))
    said = []
    if test:
        said.append(_sentence(test[0]))
        said += [_sentence(e) for e in test if e["measure"] in ("fid", "auroc", "probe") and e is not test[0]][:2]
    best = _best(run)
    if best:
        said.append(f"Best validation: {best}.")
    if not test:
        said.append("It has not been evaluated on the test split yet.")
    seconds = run.events[-1]["seconds"] if run.events else 0.0
    if run.ended:
        said.append(f"Training is finished: {counted(run.steps, 'step')} in {duration(seconds)}.")
    else:
        said.append(f"Training is not finished: it was saved after {counted(run.steps, 'step')} and can be resumed.")
    found = len([e for e in run.events if "symptom" in e])
    if found:
        said.append(
            f"{counted(found, 'symptom')} {'was' if found == 1 else 'were'} noticed during training (see below)."
        )
    return tuple(said)


def _sentence(entry: Evaluation) -> str:
    measure, figure = MEASURES[entry["measure"]], reading(entry["figure"])
    if figure is None:
        return f"{capital(measure.title)} has no finite value."
    shown = f"{headline(figure, measure.key, shown_by(measure.key))} {measure.unit}".rstrip()
    said = f"{capital(entry['split'])} {measure.title}: {shown.removeprefix('= ')}"
    extra = [_bits(figure)] if _bits(figure) else []
    extra += (
        [f"{shown_by(measure.key)(figure.floor)} for {measure.floor}"]
        if figure.floor is not None and measure.floor
        else []
    )
    return said + (f" ({', '.join(extra)})" if extra else "") + f", n = {entry['figure']['n']:,}."


def _bits(figure: Figure) -> str:
    """The bits/dim of a likelihood and its kind, or nothing."""
    bits = finite(figure.detail.get("bits_per_dim"))
    return "" if bits is None else f"{number(bits, 4)} bits/dim, {figure.detail.get('kind')}"


def _best(run: Recorded) -> str:
    """The best validation since what a damaged folder has lost."""
    lost = max((i for i, e in enumerate(run.events) if "lost" in e), default=-1)
    held = run.events[lost + 1 :]
    scored = [e for e in held if "bits_per_dim" in e]
    compared = [e for e in held if "validator" in e]
    if compared:
        pick = min if compared[0]["better"] == "lower" else max
        best = pick(compared, key=lambda e: e["value"])
        return f"{best['validator']} {best['value']:.4g} at step {best['step']:,}"
    if scored:
        best = min(scored, key=lambda e: e["nats"])
        nats, bits = f"{sign(best['kind'])} {number(best['nats'], 3)}", number(best["bits_per_dim"], 4)
        return f"{nats.removeprefix('= ')} nats ({bits} bits/dim, {best['kind']}) at step {best['step']:,}"
    return ""


def _is_older(run: Recorded, entry: Evaluation) -> bool:
    return run.kept is not None and entry["step"] is not None and entry["step"] != run.kept


def figures_view(run: Recorded) -> list[Line]:
    """Every figure of ``eval.json`` in the order of the table of measures."""
    order = list(MEASURES)
    found = []
    for entry in sorted(run.evaluations, key=lambda e: (order.index(e["measure"]), e["split"] != "test")):
        measure, figure = MEASURES[entry["measure"]], reading(entry["figure"])
        if figure is None:
            continue
        settings = {k: v for k, v in entry["settings"].items() if v is not None and (k, v) != ("seed", 0)}
        older = f"of step {entry['step']:,}, older parameters" if _is_older(run, entry) else ""
        changed = ["data that has changed since training"] if entry["changed_data"] else []
        of = [
            f"{entry['split']}, n = {entry['figure']['n']:,}",
            *([plainly(settings, ", ", " ")] if settings else []),
            *changed,
        ]
        value = f"{headline(figure, measure.key, shown_by(measure.key))} {measure.unit}".rstrip()
        value += f" ({_bits(figure)})" if _bits(figure) else ""
        floor = f"{shown_by(measure.key)(figure.floor)} {measure.floor}" if figure.floor is not None else ""
        ends = interval(figure, shown_by(measure.key))
        found.append(
            Line(capital(measure.title), capital(measure.explanation), value, ends, floor, "; ".join(of), older)
        )
    return found


def samples_view(folder: Path) -> dict[str, Any]:
    """The last picture of samples, and earlier ones in a row."""
    files = [p for p in sorted((folder / "samples").glob("*.png")) if p.is_file()]
    found = [(p.stem, p.read_bytes()) for p in files]
    found = [(name, content) for name, content in found if is_png(content)]
    if not found:
        return {}
    *earlier, last = found
    if len(earlier) > _STRIP:
        earlier = [earlier[round(i * (len(earlier) - 1) / (_STRIP - 1))] for i in range(_STRIP)]
    return {"last": _grid(*last, _WIDE), "earlier": [_grid(*one, _SMALL) for one in earlier]}


def _grid(stem: str, content: bytes, width: int) -> Shown:
    """A picture of samples with the words in its file: at its own size, or no wider than ``width``."""
    drawn = Drawn.read(content)
    digits = stem.removeprefix("step-")
    step = f"step {int(digits):,}" if digits.isdigit() else stem
    scale = min(float(drawn.scale), width / max(1, int.from_bytes(content[16:20], "big")))
    caption = drawn.caption if width == _WIDE else capital(step)
    return embedded(content, drawn.alt or f"Samples, {step}", "", caption, scale, plot=drawn.plot)


def training_view(run: Recorded) -> dict[str, Any]:
    by = "nats" if any(e.get("nats") is not None for e in run.events) else "value"
    curves = curves_of(run.events, by)
    kind = next((e["kind"] for e in run.events if "kind" in e), None)
    panels = curve_panels([curves], kind, next((e["validator"] for e in run.events if "validator" in e), "likelihood"))
    charts = []
    if panels:
        said = (
            "Training and validation are on one scale"
            if len(panels) == 1 and len(panels[0].lines) > 1
            else "Each panel has its own scale"
        )
        drawn = training_curves(panels, "chart-training", f"Training of {run.title}", width=440.0)
        charts.append(
            Chart("Training and validation", drawn, f"{said}; the first steps may lie above it. ", key_of(panels))
        )
    seconds = run.events[-1]["seconds"] if run.events else 0.0
    facts = {
        "Steps": f"{run.steps:,}",
        "Time": duration(seconds),
        "Seed": str(run.config["training"].get("seed", "")),
        "Best validation": _best(run),
        "Parameters kept": "" if run.kept is None else f"those of step {run.kept:,}",
        "Machine": environment_text(run.environment),
    }
    noticed = [f"{e['symptom']} at step {e['step']}: {e['advice']}" for e in run.events if "symptom" in e]
    noticed += [
        f"The data had changed at step {e['step']}: the following steps used the new data."
        for e in run.events
        if "changed_data" in e
    ]
    noticed += [f"Lost before step {e['step']}: {e['lost']}." for e in run.events if "lost" in e]
    return {"charts": charts, "facts": [(k, v) for k, v in facts.items() if v], "noticed": noticed}


def data_view(run: Recorded) -> dict[str, Any]:
    data = run.config["data"]
    facts = {"Name": "arrays in memory" if data is None else data["name"], "One example": str(run.event)}
    if run.about:
        own = run.about["data"]
        facts["Splits"] = plainly(own.get("sizes", {}), ", ", " ")
        facts["Split by"] = plainly(own.get("split"))
        facts["Columns"] = plainly(own.get("columns"))
        facts["Labels"] = plainly(own.get("labels"))
        facts["Further streams"] = plainly(own.get("streams"))
    facts["Options"] = "" if data is None else plainly(data["options"], ", ", " ")
    given = run.config["model"]["config"].get("given")
    facts["Conditions"] = "" if given is None else told(given)
    empty = ("", "None")
    return {
        "facts": [(k, v) for k, v in facts.items() if v not in empty],
        "notes": run.about["data"]["notes"] if run.about else [],
    }


def settings_view(run: Recorded) -> dict[str, Any]:
    """Options of the model and settings of training: those that are not the default, and the rest."""
    model, training = run.config["model"], run.config["training"]
    known = model["model"] in names()
    defaults = {}
    if known:
        options = options_of(vars(model_class(model["model"]))["__init__"])
        defaults = {k: plain(default) for k, (_, default) in options.items()}
    usual = run.about["training"] if run.about else {}
    changed: list[tuple[str, str]] = []
    rest: list[tuple[str, str]] = []
    for prefix, own, default in (("model.", model["config"], defaults), ("", training, usual)):
        for name, value in own.items():
            same = name in default and plain(value) == plain(default[name])
            (rest if same or not default else changed).append((prefix + name, told(value)))
    return {"changed": changed, "rest": rest}


# --- commands ---------------------------------------------------------------------------------------------------------


def next_lines(folder: str | Path) -> list[str]:
    """The command lines to go on with after training, the most wanted first."""
    return [line for _, line in commands_of(read_run(Path(folder)))[:3]]


def commands_of(run: Recorded) -> Pairs:
    """What can be done with the run as it is now, the most wanted first, as pairs of words and a command line."""
    config = run.config["model"]
    name, data, folder = config["model"], run.config["data"], path_word(run.folder)
    able = row(name).abilities if name in names() else ("score", "sample")
    given = config["config"].get("given")
    found: list[tuple[str, list[str]]] = []
    if not run.ended:
        found.append(("Resume training", ["fit", "--resume", "-o", folder]))
    evaluated = any(e["split"] == "test" and not _is_older(run, e) for e in run.evaluations)
    if "score" in able and data is not None and not evaluated:
        found.append(("Likelihood of the test split", ["eval", folder]))
    if "sample" in able:
        condition = _condition(given, data)
        found.append(("Draw samples", ["sample", folder, "-n", "64", "-o", "samples.png", *condition]))
        found.append(("Samples as numbers", ["sample", folder, "-n", "64", "-o", "samples.npy", *condition]))
    if data is not None:
        found.append(("Every measure it can have", ["eval", folder, "--measures", "all"]))
    if data is not None:
        own, *_ = data_words(data)
        examples = [own, *flags({k: v for k, v in data["options"].items() if k in EXAMPLE_OPTIONS})]
        if "score" in able:
            found.append(("Log-likelihood of each example", ["score", folder, *examples, "-o", "scores.csv"]))
        if {"score", "energy"} & {*able} and given is None:
            found.append(("Rows that are unlikely", ["outliers", *examples, "--model", folder, "-o", "outliers.csv"]))
        if "predict" in able and (given is not None or "condition" not in able):
            found.append(("Class of each example", ["predict", folder, *examples, "-o", "classes.csv"]))
        if "encode" in able:
            found.append(("Codes of examples", ["encode", folder, *examples, "-o", "codes.npz"]))
            if "decode" in able:
                found.append(("Examples of codes", ["decode", folder, "codes.npz", "-o", "decoded.png"]))
        if "translate" in able:
            found.append(("Translate images", ["translate", folder, own, "-o", "translated", "--to", "b"]))
        found.append(("One page with all measures and pictures", ["report", folder, "-o", "comparison"]))
        if given is None and not {"domain_b", "unlabelled"} & data["options"].keys():
            found.append(("Compare with other models", ["compare", *data_words(data), "-o", "contest"]))
    found.append(("The papers behind it", ["cite", folder]))
    return tuple((what, command_line(["unsup", *words])) for what, words in found)


def _condition(given: Mapping[str, Any] | None, data: _DataRecord | None) -> list[str]:
    """What samples are conditioned on: nothing where it is a class; the condition of the training data, or zeros."""
    if given is None or not given["shape"]:
        return []
    source = None if data is None else data["options"].get("given")
    return (
        ["--given", path_word(source)] if isinstance(source, str) else ["--given", *["0"] * Event.from_json(given).dims]
    )
