"""``unsup fit DATA MODEL``: train, validate, checkpoint, and say what to do next."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsup.cli.options import DATA_OPTIONS, DataOptions, Parser, add_constructor, add_fields, chosen, given
from unsup.cli.show import write
from unsup.core.errors import InputError
from unsup.core.registry import create, model_class, row

if TYPE_CHECKING:
    from unsup.train.base import Fitted
    from unsup.train.progress import ProgressMode

_MODEL = "model."


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    if "--help" in arguments or "-h" in arguments:
        words = [a for a in arguments if a not in ("-h", "--help")]
        early, _ = parser.parse_known_args(words)
        _add_options(parser, early.model)
        write(parser.format_help())
        return 0
    early, _ = parser.parse_known_args(list(arguments))
    model_name = _model_name(early.model, early.resume, early.out)
    _add_options(parser, model_name)
    options = parser.parse(arguments)

    from unsup.data import load_data
    from unsup.train.runs import open_run
    from unsup.train.settings import Settings, make_settings
    from unsup.train.trainer import fit

    settings = chosen(options, list(Settings.__dataclass_fields__))
    if options.resume:
        run = open_run(options.out)
        changed = [k for k, v in settings.items() if v != _plain(run.config["training"][k])]
        if changed or given(options, _MODEL) or options.preset:
            what = changed[0] if changed else "model options"
            raise InputError(f"{options.out} goes on with the settings it was started with; leave out {what}")
        model, data = run.new_model(), run.data
        settings = {k: v for k, v in run.config["training"].items() if v is not None}
        write(f"resuming {options.out}: {model_name} on {data.name}")
    else:
        if options.data is None:
            raise InputError("there is no DATA; say unsup fit DATA MODEL -o FOLDER")
        data = load_data(options.data, **chosen(options, DATA_OPTIONS))
        make_settings(model_class(model_name), settings)  # refuse bad settings before any work
        seed = settings.get("seed", 0)
        model = create(model_name, data.event, preset=options.preset, seed=seed, **given(options, _MODEL))
        write(data.describe())
        for note in data.notes:
            write(note)
        write(f"{model_name}: {model.parameter_count:,} parameters")
    mode: ProgressMode = "plain" if options.plain else "auto"
    fitted = fit(model, data, out=options.out, resume=options.resume, progress=mode, **settings)
    return _finish(fitted, model_name, options.out)


def _parser() -> Parser:
    parser = Parser(
        prog="unsup fit",
        usage="unsup fit DATA MODEL -o FOLDER [options]",
        description="Train a model on data and write a run folder.",
        epilog="unsup fit DATA MODEL --help lists the options of that model as --model.NAME.",
        add_help=False,
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="a data set's name or a path (unsup data)")
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model's name (unsup models)")
    parser.add_argument("-o", "--out", metavar="FOLDER", required=False, help="run folder to write")
    parser.add_argument("--resume", action="store_true", help="go on with the run in FOLDER")
    parser.add_argument("--preset", metavar="NAME", help="tiny, or paper: the paper's architecture")
    parser.add_argument("--plain", action="store_true", help="plain progress lines even on a terminal")
    parser.add_argument("-h", "--help", action="store_true", help="show this and stop")
    return parser


def _model_name(model: str | None, resume: bool, out: str | None) -> str:
    if out is None:
        raise InputError("there is no run folder; say where to write with -o FOLDER")
    if resume:
        from unsup.train.runs import open_run

        name: str = open_run(out).config["model"]["model"]
        if model not in (None, name):
            raise InputError(f"{out} is a run of {name}, not of {model}; leave the model out or name {name}")
        return name
    if model is None:
        raise InputError("there is no MODEL; say unsup fit DATA MODEL -o FOLDER (unsup models lists them)")
    return row(model).name


def _add_options(parser: Parser, model: str | None) -> None:
    from unsup.train.settings import Settings

    add_fields(parser, Settings, title="training")
    add_fields(parser, DataOptions, title="data")
    if model is not None:
        add_constructor(parser, model_class(model), prefix=_MODEL, title=f"options of {model}")


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _finish(fitted: Fitted, model: str, out: str) -> int:
    from unsup.report.page import next_commands, write_page
    from unsup.train.progress import duration

    write_page(out)
    if fitted.interrupted:
        write(f"stopped at step {fitted.steps} and saved; go on with:  unsup fit --resume -o {out}")
        return 128 + signal.SIGINT
    line = f"done: {fitted.steps:,} steps in {duration(fitted.seconds)}"
    if fitted.validation is not None:
        line += f"; validation {fitted.validation}"
    commands = "\n  ".join([*next_commands(model, out), f"open {out}/report.html"])
    write(f"{line}\n\n  {commands}")
    return 0
