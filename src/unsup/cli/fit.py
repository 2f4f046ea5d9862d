"""``unsup fit DATA MODEL``: train, validate, checkpoint, and suggest the next commands."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unsup.cli.model_options import MODEL, ModelOptions
from unsup.cli.options import DATA_OPTIONS, Parser, add_data, add_fields, add_memory, chosen, flag_of, under
from unsup.cli.show import note, write, write_error, write_if_heard
from unsup.cli.words import Words, is_number
from unsup.core.errors import CapabilityError, InputError
from unsup.core.registry import create, fitting, model_class, names, row, rows
from unsup.core.words import counted, listed

if TYPE_CHECKING:
    from unsup.core.model import Model
    from unsup.data.source import Data
    from unsup.train.base import Fitted
    from unsup.train.progress import ProgressMode
    from unsup.train.runs import Run

_SHOWN = 1000  # validation examples from which findings are made
_MANY, _TIMES = 10_000_000, 20  # parameters, and parameters for each number of the training data, for a warning


def main(arguments: Sequence[str]) -> int:
    words = _parser(()).split(arguments)
    if words.has("-h", "--help"):
        found = _candidates(words)
        name = _named_in_place(arguments, found) or next(reversed(found), None)
        parser, _ = _parser_for(name, arguments)
        parser.print_help()
        return 0
    out, resume = words.value("-o", "--out"), words.has("--resume")
    if out is None:
        raise InputError("the output folder is missing; pass -o FOLDER")
    name = _name_of_run(out) if resume else _name(arguments, words)
    parser, model_options = _parser_for(name, arguments)
    options = parser.parse(arguments)
    mode: ProgressMode = "plain" if options.plain else "auto"

    from unsup.report.page import write_page
    from unsup.train.runs import open_run
    from unsup.train.settings import Settings
    from unsup.train.trainer import fit

    settings = chosen(options, list(Settings.__dataclass_fields__))
    changed = resume and bool(getattr(options, "changed_data", False))
    if resume:
        run = open_run(out, changed_data=changed, data=_moved(open_run(out), options.data))
        _check_same(run, name, options, settings)
        if run.finished:  # the folder is not changed, and its data is not read
            write_error(f"{out} has already finished ({run.ending}); nothing to do")
            _ = run.model  # notes what is lost
            if not (run.path / "report.html").is_file():
                write_page(out)
            return 0
        model, data = run.new_model(), run.data
        settings = {k: v for k, v in run.config["training"].items() if v is not None}
        write(f"resuming {out}: {name} on {data.name}")
    else:
        model, data = _begun(name, options, settings, model_options.given(options))
    fitted = fit(model, data, out=out, resume=resume, changed_data=changed, progress=mode, **settings)
    return _finish(fitted, model, data, out, changed=changed)


def _begun(name: str, options: Any, settings: dict[str, Any], given: dict[str, Any]) -> tuple[Model, Data]:
    """A fresh model and its data."""
    from unsup.data.load import load_supported
    from unsup.train.settings import make_settings

    make_settings(model_class(name), settings)  # refuse invalid settings before any work
    cls = model_class(name)
    data = load_supported(
        options.data,
        takes_missing=cls.takes_missing,
        takes_lengths=cls.takes_lengths,
        defaults=cls.data_defaults,
        **chosen(options, DATA_OPTIONS),
    )
    if data.given is not None:
        _check_conditional(name, data)
    model = create(name, data, preset=options.preset, seed=settings.get("seed", 0), **given)
    write(data.describe())
    for line in data.notes:
        write(line)
    if model.parameter_count:  # tables that are counted have none
        write(f"{name}: {model.parameter_count:,} parameters")
    if (warning := too_large(name, model, data)) is not None:
        note(warning)
    return model, data


def too_large(name: str, model: Model, data: Data) -> str | None:
    """A warning of a model that has far more parameters than the training data has numbers, or None."""
    count, numbers = model.parameter_count, len(data.train) * data.event.dims
    if count <= max(_MANY, _TIMES * numbers):
        return None
    largest, size = max(((n, p.numel()) for n, p in model.named_parameters()), key=lambda found: found[1])
    tiny = {k: v for k, v in type(model).presets.get("tiny", {}).items() if model.config.get(k) != v}
    mends = (
        [f"smaller options (those of --preset tiny: {', '.join(f'{k}={v}' for k, v in tiny.items())})"] if tiny else []
    )
    layers = [n for n in fitting(data.event) if n != name and "convolution" in row(n).summary.lower()]
    mends += [f"a convolutional model ({listed(layers, 'or')})"] if layers else []
    return (
        f"{name} has {count:,} parameters ({size:,} of them in {largest}), {count / numbers:,.0f} times the "
        f"{counted(numbers, 'number')} in the training data: training is slow and may overfit; use "
        f"{' or '.join([*mends, 'more data'])}"
    )


def _check_conditional(name: str, data: Data) -> None:
    """Refuse data with conditions for a model that does not support them."""
    from unsup.core.model import IsConditional

    if not issubclass(model_class(name), IsConditional):
        able = [n for n in names() if "condition" in row(n).abilities and model_class(n).refusal(data.event) is None]
        others = f"models for this data that do: {', '.join(able) or 'none'}"
        raise CapabilityError(f"{name} does not support conditions; remove --given, or choose another model ({others})")


def _moved(run: Run, data: str | None) -> str | None:
    """The present place of the data of a run: DATA on the command line, if there is none at the recorded place."""
    from unsup.data.readers import exists

    record = run.config["data"]
    return data if data is not None and record is not None and not exists(record["name"]) else None


def _check_same(run: Run, name: str, options: Any, settings: dict[str, Any]) -> None:
    """Raise `InputError` if the model, the settings, the data or its options differ from those of the run."""
    from unsup.core.config import plain
    from unsup.data.load import full_name
    from unsup.train.settings import LENGTHS

    if options.model not in (None, name):
        raise InputError(f"{options.out} is a run of {name}, not of {options.model}; remove the model or use {name}")
    changed = [k for k, v in settings.items() if plain(v) != run.config["training"][k]]
    if changed or under(options, MODEL) or options.preset:
        flags = [*map(flag_of, changed), *(flag_of(MODEL + k) for k in under(options, MODEL)), "--preset"]
        if run.finished and changed and changed[0] in LENGTHS:
            raise InputError(
                f"{options.out} has finished ({run.ending}) and cannot be trained longer, since its learning rate has "
                f"reached the end of its schedule; train a new run with {flags[0]} in another folder (-o FOLDER)"
            )
        raise InputError(f"the settings of {options.out} cannot be changed on resume; remove {flags[0]}")
    record = run.config["data"] or {"name": None, "options": {}}
    same = options.data is None or _moved(run, options.data) or full_name(options.data) == record["name"]
    if not same:
        raise InputError(
            f"the data of {options.out} ({record['name']}) cannot be changed on resume; remove {options.data}"
        )
    given = {k: v for k, v in chosen(options, DATA_OPTIONS).items() if k != "changed_data"}
    other = [k for k, v in given.items() if plain(v) != record["options"].get(k)]
    if other:
        raise InputError(f"the data options of {options.out} cannot be changed on resume; remove {flag_of(other[0])}")


# --- the command line -----------------------------------------------------------------------------------------------


def _parser(arguments: Sequence[str], defaults: Mapping[str, Any] | None = None) -> Parser:
    """The part of the parser that does not depend on the model, except for the ``defaults`` of training it shows."""
    from unsup.train.settings import Settings

    parser = Parser(
        prog="unsup fit",
        usage="unsup fit DATA MODEL -o FOLDER [options]",
        description="Train a model on data and write a run folder. DATA and MODEL may be anywhere, in this order.",
        epilog="unsup fit DATA MODEL --help lists the options of that data, and those of that model as --model.NAME.",
        add_help=False,
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="a data set's name or a path (unsup data)")
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model's name (unsup models)")
    parser.add_out("run folder to write", metavar="FOLDER", folder=True)
    parser.add_argument("--resume", action="store_true", help="resume the run in FOLDER")
    parser.add_argument("--preset", metavar="NAME", help="tiny, or paper: the paper's architecture")
    parser.add_argument("--plain", action="store_true", help="plain progress lines even on a terminal")
    parser.add_argument("-h", "--help", action="store_true", help="show this help message and exit")
    add_fields(parser, Settings, title="training", defaults=defaults)
    add_data(parser, arguments)
    add_memory(parser)
    return parser


def _parser_for(name: str | None, arguments: Sequence[str]) -> tuple[Parser, Any]:
    """The complete parser, with the options of a model and of its parts."""
    parser = _parser(arguments, None if name is None else model_class(name).fit_defaults)
    return parser, None if name is None else ModelOptions(parser, name, arguments)


def _candidates(words: Words) -> list[str]:
    """The words that are names of models and not values of known flags."""
    return [w for w in (*words.positionals, *words.loose) if w in rows()]


def _named_in_place(arguments: Sequence[str], candidates: Sequence[str]) -> str | None:
    """The candidate whose options make all flags known and itself the second positional word."""
    for name in dict.fromkeys(candidates):
        parser, _ = _parser_for(name, arguments)
        words = parser.split(arguments)
        if not words.unknown and words.positionals[1:2] == (name,):
            return name
    return None


def _name(arguments: Sequence[str], words: Words) -> str:
    """The model of the command line; if the words do not fit, a model whose parser gives the right error."""
    candidates = _candidates(words)
    name = _named_in_place(arguments, candidates)
    if name is not None:
        return name
    if len(words.positionals) > 1:
        data, model = words.positionals[:2]
        if data in rows() and model not in rows():
            raise InputError(
                f"there is no model {model!r}, but {data!r} is one; DATA comes first: unsup fit {model} {data}"
            )
        return row(model).name
    behind = [w for w in words.loose if not is_number(w)]
    if len(words.positionals) + len(behind) > 1:
        return candidates[-1] if candidates else row(behind[-1]).name
    what = "DATA and MODEL are" if not words.positionals and not behind else "MODEL is"
    raise InputError(f"{what} missing; expected unsup fit DATA MODEL -o FOLDER (unsup models lists all models)")


def _name_of_run(out: str) -> str:
    from unsup.train.runs import open_run

    return str(open_run(out).config["model"]["model"])


def _finish(fitted: Fitted, model: Model, data: Data, out: str, *, changed: bool) -> int:
    import torch

    from unsup.core.escapes import command_line
    from unsup.core.likelihood import parts_in_words
    from unsup.report.page import next_lines, write_page
    from unsup.train.progress import duration

    write_page(out)
    if fitted.interrupted:
        command = command_line(["unsup", "fit", "--resume", "-o", out, *["--changed-data"][:changed]])
        write_if_heard(f"stopped at step {fitted.steps} and saved; resume with:  {command}")
        return 128 + (fitted.signal or signal.SIGINT)
    line = f"done: {counted(fitted.steps, 'step')} in {duration(fitted.seconds)}"
    if fitted.validation is not None:
        line += f"; validation {fitted.validation.told(parts_in_words(data.event, data.columns))}"
    elif fitted.score is not None:
        line += f"; validation {fitted.validator} {fitted.score:.4g}"
    commands = (f"  {command}" for command in next_lines(out))
    some = data.validation.batch(torch.arange(min(len(data.validation), _SHOWN))).to(model.device)
    write(line, *model.findings(data.columns, batch=some), "", *commands, f"the page of the run is {out}/report.html")
    return 0
