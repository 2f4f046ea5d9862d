"""``unsup fit DATA MODEL``: train, validate, checkpoint, and say what to do next."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.model_options import MODEL, ModelOptions
from unsup.cli.options import DATA_OPTIONS, DataOptions, Parser, add_fields, add_memory, chosen, under
from unsup.cli.show import write, write_if_heard
from unsup.cli.words import Words, is_number
from unsup.core.errors import CapabilityError, InputError
from unsup.core.registry import create, model_class, names, row, rows

if TYPE_CHECKING:
    from unsup.core.model import Model
    from unsup.data.source import Data
    from unsup.train.base import Fitted
    from unsup.train.progress import ProgressMode
    from unsup.train.runs import Run


def main(arguments: Sequence[str]) -> int:
    words = _parser().split(arguments)
    if words.has("-h", "--help"):
        found = _candidates(words)
        name = _named_in_place(arguments, found) or next(reversed(found), None)
        parser, _ = _parser_for(name, arguments)
        parser.print_help()
        return 0
    out, resume = words.value("-o", "--out"), words.has("--resume")
    if out is None:
        raise InputError("there is no run folder; say where to write with -o FOLDER")
    name = _name_of_run(out) if resume else _name(arguments, words)
    parser, model_options = _parser_for(name, arguments)
    options = parser.parse(arguments)
    mode: ProgressMode = "plain" if options.plain else "auto"

    from unsup.train.runs import open_run
    from unsup.train.settings import Settings
    from unsup.train.trainer import fit

    settings = chosen(options, list(Settings.__dataclass_fields__))
    changed = resume and bool(getattr(options, "changed_data", False))
    if resume:
        finished = open_run(out).finished
        model, data, settings = _resumed(name, options, settings, changed)
        if not finished:
            write(f"resuming {out}: {name} on {data.name}")
    else:
        finished = False
        model, data = _begun(name, options, settings, model_options.given(options))
    fitted = fit(model, data, out=out, resume=resume, changed_data=changed, progress=mode, **settings)
    if finished and (Path(out) / "report.html").is_file():
        return 0  # the trainer has said so, and the folder stays as it is
    return _finish(fitted, name, out, changed=changed)


def _begun(name: str, options: Any, settings: dict[str, Any], given: dict[str, Any]) -> tuple[Model, Data]:
    """A fresh model and its data."""
    from unsup.data import load_data
    from unsup.train.settings import make_settings

    make_settings(model_class(name), settings)  # refuse bad settings before any work
    data = load_data(options.data, **chosen(options, DATA_OPTIONS))
    if data.given is not None:
        given["given"] = _condition(name, data)
    model = create(name, data.event, preset=options.preset, seed=settings.get("seed", 0), **given)
    write(data.describe())
    for note in data.notes:
        write(note)
    write(f"{name}: {model.parameter_count:,} parameters")
    return model, data


def _condition(name: str, data: Data) -> Any:
    """The event that the examples of ``data`` are conditioned on, for a model that takes a condition."""
    from unsup.core.model import IsConditional

    if not issubclass(model_class(name), IsConditional):
        able = [n for n in names() if "condition" in row(n).abilities and model_class(n).refusal(data.event) is None]
        others = f"models of such data that do: {', '.join(able) or 'none'}"
        raise CapabilityError(f"{name} takes no condition; leave out --given, or choose another model ({others})")
    return data.given


def _resumed(
    name: str, options: Any, settings: dict[str, Any], changed_data: bool
) -> tuple[Model, Data, dict[str, Any]]:
    """The model, data and settings of the run that is to go on."""
    from unsup.core.config import plain
    from unsup.train.runs import open_run

    if options.model not in (None, name):
        raise InputError(
            f"{options.out} is a run of {name}, not of {options.model}; leave the model out or name {name}"
        )
    run = open_run(options.out, changed_data=changed_data)
    _check_same_data(run, options)
    changed = [k for k, v in settings.items() if plain(v) != run.config["training"][k]]
    if changed or under(options, MODEL) or options.preset:
        what = changed[0] if changed else "model options"
        raise InputError(f"{options.out} goes on with the settings it was started with; leave out {what}")
    return run.new_model(), run.data, {k: v for k, v in run.config["training"].items() if v is not None}


def _check_same_data(run: Run, options: Any) -> None:
    """Raise `InputError` where other data is named than that of the run, or other options of it."""
    from unsup.core.config import plain
    from unsup.data.load import full_name

    record = run.config["data"] or {"name": None, "options": {}}
    if options.data is not None and full_name(options.data) != record["name"]:
        raise InputError(f"{options.out} goes on with the data it was started with, {record['name']}; leave out DATA")
    given = {k: v for k, v in chosen(options, DATA_OPTIONS).items() if k != "changed_data"}
    other = [k for k, v in given.items() if plain(v) != record["options"].get(k)]
    if other:
        flag = f"--{other[0].replace('_', '-')}"
        raise InputError(f"{options.out} goes on with the data as it was read at the start; leave out {flag}")


# --- the command line -----------------------------------------------------------------------------------------------


def _parser() -> Parser:
    """What is known before the model is."""
    from unsup.train.settings import Settings

    parser = Parser(
        prog="unsup fit",
        usage="unsup fit DATA MODEL -o FOLDER [options]",
        description="Train a model on data and write a run folder. DATA and MODEL may stand anywhere, in this order.",
        epilog="unsup fit MODEL --help lists the options of that model as --model.NAME.",
        add_help=False,
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="a data set's name or a path (unsup data)")
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model's name (unsup models)")
    parser.add_argument("-o", "--out", metavar="FOLDER", required=False, help="run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with the run in FOLDER")
    parser.add_argument("--preset", metavar="NAME", help="tiny, or paper: the paper's architecture")
    parser.add_argument("--plain", action="store_true", help="plain progress lines even on a terminal")
    parser.add_argument("-h", "--help", action="store_true", help="show this and stop")
    add_fields(parser, Settings, title="training")
    add_fields(parser, DataOptions, title="data")
    add_memory(parser)
    return parser


def _parser_for(name: str | None, arguments: Sequence[str]) -> tuple[Parser, Any]:
    """The whole parser, with the options of a model and of those in it."""
    parser = _parser()
    return parser, None if name is None else ModelOptions(parser, name, arguments)


def _candidates(words: Words) -> list[str]:
    """The words that name models and may be meant so: not yet values of flags."""
    return [w for w in (*words.positionals, *words.loose) if w in rows()]


def _named_in_place(arguments: Sequence[str], candidates: Sequence[str]) -> str | None:
    """The candidate with whose options all flags are known and it is the second positional word."""
    for name in dict.fromkeys(candidates):
        parser, _ = _parser_for(name, arguments)
        words = parser.split(arguments)
        if not words.unknown and words.positionals[1:2] == (name,):
            return name
    return None


def _name(arguments: Sequence[str], words: Words) -> str:
    """The model that is named, or, where the words do not fit together, the one whose parser says why."""
    candidates = _candidates(words)
    name = _named_in_place(arguments, candidates)
    if name is not None:
        return name
    if len(words.positionals) > 1:
        data, model = words.positionals[:2]
        if data in rows() and model not in rows():
            raise InputError(
                f"there is no model {model!r}, but {data!r} is one: DATA comes first, unsup fit {model} {data}"
            )
        return row(model).name
    behind = [w for w in words.loose if not is_number(w)]
    if len(words.positionals) + len(behind) > 1:
        return candidates[-1] if candidates else row(behind[-1]).name
    what = "DATA and no MODEL" if not words.positionals and not behind else "MODEL"
    raise InputError(f"there is no {what}; say unsup fit DATA MODEL -o FOLDER (unsup models lists them)")


def _name_of_run(out: str) -> str:
    from unsup.train.runs import open_run

    return str(open_run(out).config["model"]["model"])


def _finish(fitted: Fitted, model: str, out: str, *, changed: bool) -> int:
    from unsup.core.escapes import command_line
    from unsup.core.words import counted
    from unsup.report.page import next_lines, write_page
    from unsup.train.progress import duration

    write_page(out)
    if fitted.interrupted:
        command = command_line(["unsup", "fit", "--resume", "-o", out, *["--changed-data"][:changed]])
        write_if_heard(f"stopped at step {fitted.steps} and saved; go on with:  {command}")
        return 128 + (fitted.signal or signal.SIGINT)
    line = f"done: {counted(fitted.steps, 'step')} in {duration(fitted.seconds)}"
    if fitted.validation is not None:
        line += f"; validation {fitted.validation}"
    elif fitted.score is not None:
        line += f"; validation {fitted.validator} {fitted.score:.4g}"
    write(line, "", *(f"  {command}" for command in next_lines(out)), f"the page of the run is {out}/report.html")
    return 0
