"""``unsup sample RUN``: draw samples, as a picture or as raw values."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsup.cli.conditions import add_given, conditions
from unsup.cli.options import Parser, add_memory, add_options, argument_texts, under
from unsup.cli.show import write
from unsup.cli.words import Words
from unsup.core.errors import CapabilityError, InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.train.runs import Run

_KNOB = "sample."
_MANY = 64


def main(arguments: Sequence[str]) -> int:
    words = _parser(None).split(arguments)
    run = _run(words)
    parser = _parser(run)
    if words.has("-h", "--help"):
        parser.print_help()
        return 0
    if run is not None:
        _check_knobs(parser.split(arguments).unknown, run)
    options = parser.parse(arguments)

    from unsup.core.model import CanSample
    from unsup.evaluate.samples import draw_samples
    from unsup.train.progress import Progress
    from unsup.train.runs import open_run

    run = open_run(options.run)
    if options.n is not None and options.n < 1:
        raise InputError(f"-n {options.n} should be at least 1")
    if options.out is None:
        raise InputError("no output file given; use -o FILE.png or -o FILE.npy")
    if not isinstance(run.model, CanSample):
        raise CapabilityError(f"{run.config['model']['model']} does not sample; unsup models lists models that do")
    given = conditions(options, run, needed=False)
    n = options.n or (1 if given is not None and given.from_file else _MANY)
    each = None if given is None else given.values.repeat_interleave(n, 0)
    with Progress("auto", unit="sample", start=0) as display:

        def on_chunk(done: int, total: int) -> None:
            if display.due():
                display.show(done, total, {})

        x = draw_samples(
            run.model,
            n if each is None else len(each),
            seed=options.seed,
            given=each,
            options=under(options, _KNOB),
            on_chunk=on_chunk,
        )
    seen = write_examples(x, run, options.out, f"samples of {run.path.name}")
    write(f"{len(x)} samples of {run.path} in {options.out}{seen}")
    return 0


def _parser(run: Run | None) -> Parser:
    parser = Parser(
        prog="unsup sample",
        description="Draw samples from a run.",
        epilog="unsup sample RUN --help lists the options --sample.NAME of that run.",
        add_help=False,
        mends={"--temperature": "it is --sample.temperature now", "--label": "it is --given CLASS now"},
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "-n",
        type=int,
        metavar="N",
        help=f"number of samples, per given condition [{_MANY}; one per condition in a file]",
    )
    parser.add_argument("-o", "--out", metavar="FILE", help=".png for a picture, .npy for raw values")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed [0]")
    add_given(parser, "condition of the samples, for models trained with a condition")
    add_memory(parser)
    parser.add_argument("-h", "--help", action="store_true", help="show this help message and exit")
    if run is not None:
        _add_knobs(parser, run)
    return parser


def _add_knobs(parser: Parser, run: Run) -> None:
    from unsup.core.model import CanSample, knobs
    from unsup.core.registry import model_class

    name = run.config["model"]["model"]
    cls = model_class(name)
    if issubclass(cls, CanSample) and knobs(cls):
        texts = argument_texts(cls.sample.__doc__ or "")
        add_options(parser, knobs(cls), texts, prefix=_KNOB, title=f"sampling of {name}")


def _check_knobs(unknown: Sequence[str], run: Run) -> None:
    """Refuse options of sampling that the model of the run does not have."""
    from unsup.core.model import knobs
    from unsup.core.registry import model_class

    name = run.config["model"]["model"]
    known = [f"--{_KNOB}{k.replace('_', '-')}" for k in knobs(model_class(name))]
    for flag in unknown:
        if flag.startswith((f"--{_KNOB}", f"--no-{_KNOB}")):
            hint = nearest(flag, known) if known else "; its sampling has no options"
            raise InputError(f"{name} has no option {flag!r}{hint}")


def _run(words: Words) -> Run | None:
    """The run: the positional word, or a word after a flag that only the run defines."""
    from unsup.train.runs import Run, open_run

    if words.positionals:
        return open_run(words.positionals[0])
    there = [word for word in words.loose if Run(word).exists]
    return open_run(there[-1]) if there else None


def write_examples(x: Tensor, run: Run, out: str, what: str) -> str:
    """Write raw examples as ``.npy`` or as a picture, and return a note if the picture shows only some of them.

    Args:
        what: description of the examples, for the picture.
    """
    import numpy as np

    from unsup.cli.output import write_file

    suffix = Path(out).suffix.lower()
    if suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, x.cpu().numpy())
        write_file(out, buffer.getvalue())
        return ""
    if suffix != ".png":
        raise InputError(f"{out} should end in .png (a picture) or .npy (raw values)")
    drawn = run.gallery(x).examples(x, what)
    if drawn is None:
        raise InputError(
            f"none of {len(x)} examples is finite, so a picture is not possible; write them to a .npy file"
        )
    write_file(out, drawn.enlarged().png)
    return f" (the picture shows {drawn.shown} of them; a .npy file holds all)" if drawn.shown < len(x) else ""
