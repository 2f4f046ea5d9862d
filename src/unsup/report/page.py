"""The page of one run: its figures, curves and samples in a single HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import numpy as np
from PIL import Image

from unsup.core.config import OrNothing
from unsup.core.errors import InputError
from unsup.core.escapes import command_line, markdown, markup, visible
from unsup.core.logbook import read_log
from unsup.core.reading import read_json
from unsup.core.registry import names, row
from unsup.core.storage import ModelRecord, write_inside
from unsup.pictures.images import new_figure, plain_label, png_bytes, to_image
from unsup.report.words import told

_log = logging.getLogger(__name__)
_LINES = ("#4477aa", "#228833", "#aa3377", "#ccbb44")
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 4px; image-rendering: pixelated; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
code, pre { font-family: ui-monospace, monospace; } pre { overflow-x: auto; padding: .6rem; border: 1px solid #8886; }
"""


def write_page(folder: str | Path) -> None:
    """Write ``report.html`` and ``README.md`` of a run folder from the files in it."""
    folder = Path(folder)
    config: dict[str, Any] = read_json(folder / "config.json", _Config)
    points, wrong = read_log(folder / "events.jsonl")
    if wrong is not None:
        _log.warning("note: %s", wrong)
    events = [point.record for point in points]
    title = f"{config['model']['model']} on {config['data']['name'] if config['data'] else 'arrays in memory'}"
    lost = max((i for i, e in enumerate(events) if "lost" in e), default=-1)
    held = events[lost + 1 :]  # what is said of the best parameters is true of those that are there
    scored = [e for e in held if "bits_per_dim" in e]
    facts = {"steps": events[-1]["step"] if events else 0, "seconds": events[-1]["seconds"] if events else 0}
    if scored:
        best = min(scored, key=lambda e: e["nats"])
        facts["best validation"] = f"{best['bits_per_dim']:.4f} bits/dim ({best['kind']}) at {best['step']}"
    compared = [e for e in held if "validator" in e]
    if compared:
        pick = min if compared[0]["better"] == "lower" else max
        best = pick(compared, key=lambda e: e["value"])
        facts["best validation"] = f"{best['validator']} {best['value']:.4g} at {best['step']}"
    test = _side_record(folder / "eval.json", _Evaluation)
    if "likelihood" in test:
        found = test["likelihood"]
        facts[f"{test.get('split', 'test')} likelihood"] = (
            f"{_digits(found['nats'])} ± {_digits(found['standard_error'])} nats, "
            f"{_digits(found['bits_per_dim'], 4)} bits/dim ({found['kind']}, n = {found['n']}){_of_changed(found)}"
        )
    if "samples" in test:
        judged = test["samples"]
        facts["FID of samples"] = (
            f"{_digits(judged['scores']['fid']['value'])} (held-out data "
            f"{_digits(judged['scores']['fid']['floor'])}, extractor "
            f"{judged['extractor']['name']}, {judged['fake']:,} against {judged['real']:,}){_of_changed(judged)}"
        )
    for name, value in test.get("figures", {}).items():
        facts[f"test {name}"] = f"{value:.4g}"
    facts["machine"] = _side_record(folder / "env.json", _Environment).get("machine", "")
    record = config["model"]
    suggested = next_commands(record["model"], folder, record["event"], record["config"].get("given"))
    commands = [*suggested, command_line(["unsup", "fit", "--resume", "-o", str(folder)])]
    grids = [path for path in sorted((folder / "samples").glob("*.png")) if _is_picture(path)]
    body = [f"<h1>{markup(title)}</h1>", _table(facts)]
    if any(name.endswith("loss") for e in events for name in e):
        body.append(
            "<h2>Training</h2>" + _image(png_bytes(_curves(events)), "training and validation curves over steps")
        )
    if grids:
        body.append("<h2>Samples</h2>" + _image(grids[-1].read_bytes(), f"samples drawn at {grids[-1].stem}"))
    said = [f"{e['symptom']} at {e['step']}: {e['advice']}" for e in events if "symptom" in e]
    changed = [e["step"] for e in events if "changed_data" in e]
    said += [f"the data had changed at {step}: what follows was learnt from it" for step in changed]
    said += [f"lost before {e['step']}: {e['lost']}" for e in events if "lost" in e]
    if said:
        body.append("<h2>Noticed</h2><ul>" + "".join(f"<li>{markup(line)}</li>" for line in said) + "</ul>")
    body.append("<h2>Settings</h2>" + _table(config["model"]["config"]) + _table(config["training"]))
    body.append("<h2>Commands</h2><pre>" + "\n".join(map(markup, commands)) + "</pre>")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{policy()}'
        f'<meta name="viewport" content="width=device-width">'
        f"<title>{markup(title)}</title><style>{_STYLE}</style><body>{''.join(body)}</body></html>"
    )
    _write(folder / "report.html", page)
    facts_lines = "\n".join(f"- {markdown(k)}: {markdown(v)}" for k, v in facts.items())
    shown = "\n".join(map(visible, commands))
    _write(folder / "README.md", f"# {markdown(title)}\n\n{facts_lines}\n\n```\n{shown}\n```\n")


def policy(script: str = "") -> str:
    """The element that forbids a page all but its own pictures, its styles, and ``script`` to the letter.

    So even text that got out of its place would run nothing and fetch nothing.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    rules = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {allowed}base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _of_changed(figure: Mapping[str, Any]) -> str:
    return ", of data that has changed since the training" if figure.get("changed_data") else ""


def next_commands(
    model: str, folder: str | Path, event: Mapping[str, Any], given: Mapping[str, Any] | None = None
) -> list[str]:
    """The commands that look at what came of a run of the model of that name.

    Args:
        event: what one example is, as the configuration of the run records it.
        given: the event that the model is conditioned on, as its configuration records it.
    """
    able = row(model).abilities if model in names() else ("score", "sample")
    run = str(folder)
    found = [["eval", run]] if "score" in able else []
    if "sample" in able:
        condition = [] if given is None else ["--given", "PATH" if given["shape"] else "CLASS"]
        found.append(["sample", run, "-n", "64", "-o", "samples.png", *condition])
    if "sample" in able and "score" not in able:
        found.append(["eval", run, "--samples", "10000"])
    if "translate" in able:
        found.append(["translate", run, "FILES", "-o", "DIR", "--to", "b"])
    return [command_line(["unsup", *words]) for words in found]


class _Data(TypedDict):
    name: str


class _Config(TypedDict):
    data: _Data | None
    model: ModelRecord
    training: dict[str, Any]


_Figure = Annotated[float, OrNothing()]


class _Likelihood(TypedDict):
    nats: _Figure
    standard_error: _Figure
    bits_per_dim: _Figure
    kind: str
    n: int


class _Score(TypedDict):
    value: _Figure
    floor: _Figure


class _Scores(TypedDict):
    fid: _Score


class _Extractor(TypedDict):
    name: str


class _Samples(TypedDict):
    scores: _Scores
    extractor: _Extractor
    fake: int
    real: int


class _Evaluation(TypedDict):
    """``eval.json``."""

    split: NotRequired[Literal["train", "validation", "test"]]
    likelihood: NotRequired[_Likelihood]
    samples: NotRequired[_Samples]
    figures: NotRequired[dict[str, float]]


class _Environment(TypedDict):
    """``env.json``."""

    machine: NotRequired[str]


def _curves(events: list[dict[str, Any]], unit: str = "bits/dim") -> Image.Image:
    """Training and validation curves over steps, from the lines of a run's ``events.jsonl``."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    losses = dict.fromkeys(name for e in events for name in e if name.split("/")[-1] == "loss")
    validation = [(e["step"], e["bits_per_dim"]) for e in events if "bits_per_dim" in e]
    for name, color in zip(losses, itertools.cycle(_LINES)):
        line = np.array([(e["step"], e[name]) for e in events if name in e]).T
        axes.plot(*line, color=color, lw=1, label="training loss (nats)" if name == "loss" else plain_label(name))
    axes.set_xlabel("step")
    axes.set_ylabel("nats" if "loss" in losses else "loss")
    if validation:
        right = axes.twinx()
        right.plot(*np.array(validation).T, color="#cc6677", lw=1.6, marker="o", ms=3, label=f"validation {unit}")
        right.set_ylabel(unit)
    figure.legend(loc="upper right", frameon=False, fontsize=8)
    return to_image(figure)


def _side_record(path: Path, annotation: Any) -> dict[str, Any]:
    """A file that the page can do without; nothing, and a note, where it is damaged."""
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = read_json(path, annotation)
    except InputError as error:
        _log.warning("note: %s; it is left out", error)
        return {}
    return found


def _digits(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _is_picture(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def _write(path: Path, text: str) -> None:
    write_inside(path, text.encode(errors="surrogateescape"))


def _table(record: dict[str, Any]) -> str:
    rows = "".join(f"<tr><th scope=row>{markup(k)}</th><td>{markup(told(v))}</td></tr>" for k, v in record.items())
    return f"<table>{rows}</table>"


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{markup(text)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
