"""``unsup sample RUN``: draw samples, in the form of the data, as a picture or as raw values."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsup.cli.conditions import add_given, conditions
from unsup.cli.options import Parser, add_memory, add_options, argument_texts, under
from unsup.cli.show import write
from unsup.cli.words import Words
from unsup.core.config import Count, Positive, Seed
from unsup.core.errors import CapabilityError, InputError, nearest
from unsup.core.words import counted, duration

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.data.form import Form
    from unsup.train.progress import Progress
    from unsup.train.runs import Run

_KNOB = "sample."
OUT_HELP = (
    "a file or folder in the form of the data (.csv, .wav, .txt, …), .png for a picture (of the first examples if "
    "they do not all fit), or .npy for all raw values"
)
_MANY = 64
_FIRST, _LONG = 2.0, 60.0  # seconds after which the time is estimated, and from which on it is told


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
    from unsup.core.steps import heard_by
    from unsup.evaluate.samples import draw_samples
    from unsup.train.progress import Progress
    from unsup.train.runs import open_model

    run = open_model(options.run)
    if options.out is None:
        own = [] if run.form is None else [f"-o FILE{s}" if s else "-o FOLDER" for s in run.form.suffixes]
        ways = list(dict.fromkeys([*own, "-o FILE.png", "-o FILE.npy"]))
        raise InputError(f"no output file given; use {', '.join(ways[:-1])} or {ways[-1]}")
    check_output(options.out, run)
    if not isinstance(run.model, CanSample):
        raise CapabilityError(f"{run.config['model']['model']} does not sample; unsup models lists models that do")
    given = conditions(options, run, needed=False)
    is_single = run.form is not None and is_form(run.form, options.out) and run.form.is_single(Path(options.out))
    n = options.n or (1 if is_single or (given is not None and given.from_file) else _MANY)
    each = None if given is None else given.values.repeat_interleave(n, 0)
    total = n if each is None else len(each)
    if is_single and total > 1:
        raise InputError(f"-o {options.out} is one recording, but {total} samples were requested; name a folder")
    length = None if options.seconds is None else _length(options.seconds, run)
    with Progress("auto", unit="sample", start=0) as display:
        clock = Clock(total, display)
        with heard_by(clock.on_step):
            x = draw_samples(
                run.model,
                total,
                seed=options.seed,
                given=each,
                options=under(options, _KNOB),
                length=length,
                on_chunk=clock.on_chunk,
            )
    write_examples(x, run, options.out, "sample")
    return 0


def _length(seconds: float, run: Run) -> int:
    """The number of samples of ``--seconds``.

    Raises:
        InputError: the data of the run has no rate.
        CapabilityError: its model samples examples of one length only.
    """
    from unsup.core.model import SamplesAnyLength

    form, model, name = run.form, run.model, run.config["model"]["model"]
    if form is None or form.samples_a_second is None:
        raise InputError(f"--seconds {seconds:g} is for sound, but this run is of {model.event}; remove it")
    reason = (
        model.reason_against_length()
        if isinstance(model, SamplesAnyLength)
        else "samples examples of the length of its event only"
    )
    if reason is not None:
        whole = model.event.shape[0] / form.samples_a_second
        raise CapabilityError(f"{name} {reason} ({whole:g} seconds); remove --seconds {seconds:g}")
    return max(1, round(seconds * form.samples_a_second))


class Clock:
    """Shows the progress of ``total`` draws, and warns once if they take long.

    Samples are drawn in chunks, and those of some models in steps, such as pixels.
    """

    def __init__(self, total: int, display: Progress, noun: str = "sample") -> None:
        from unsup.evaluate.samples import CHUNK

        self.total, self.display, self.noun, self.chunk = total, display, noun, CHUNK
        self.finished, self.warned, self.started = 0, False, time.monotonic()

    def on_chunk(self, done: int, total: int) -> None:
        self.finished = done
        self._show(done)

    def on_step(self, step: int, steps: int) -> None:
        self._show(self.finished + min(self.chunk, self.total - self.finished) * step / steps)

    def _show(self, done: float) -> None:
        elapsed = time.monotonic() - self.started
        if not self.warned and elapsed >= _FIRST and 0 < done < self.total:
            self.warned = True
            if (whole := elapsed * self.total / done) > _LONG:
                self.display.note(
                    f"{counted(self.total, self.noun)} will take about {duration(whole)}"
                    + ("; fewer samples (-n) take less" if self.noun == "sample" else "")
                )
        if self.display.due():
            self.display.show(done, self.total, {})


def _parser(run: Run | None) -> Parser:
    parser = Parser(
        prog="unsup sample",
        description="Draw samples from a run.",
        epilog="unsup sample RUN --help lists the options --sample.NAME of that run.",
        add_help=False,
        mends={"--temperature": "it is --sample.temperature now", "--label": "it is --given CLASS now"},
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_number("-n", Count, f"number of samples, per given condition [{_MANY}; one per condition in a file]")
    parser.add_out(OUT_HELP, metavar="FILE")
    parser.add_number(
        "--seconds",
        Positive,
        "duration of samples of sound, for models that sample any length [that of the training examples]",
        metavar="S",
    )
    parser.add_number("--seed", Seed, "random seed [0]", default=0)
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
    from unsup.train.runs import Run, open_model

    if words.positionals:
        return open_model(words.positionals[0])
    there = [word for word in words.loose if Run(word).exists]
    return open_model(there[-1]) if there else None


def is_form(form: Form, out: str) -> bool:
    """Whether ``out`` is the name of files in the form of the data: one of its suffixes, or a folder."""
    suffix = Path(out).suffix.lower()
    return (bool(suffix) and out.lower().endswith(tuple(filter(None, form.suffixes)))) or (
        not suffix and "" in form.suffixes
    )


def check_output(out: str, run: Run) -> None:
    """Refuse the name of a file that `write_examples` cannot write, before the work for it."""
    if Path(out).suffix.lower() in (".png", ".npy") or (run.form is not None and is_form(run.form, out)):
        return
    own = () if run.form is None else run.form.suffixes
    more = ", ".join(s or "be a folder" for s in own)
    raise InputError(f"{out} should end in .png (a picture) or .npy (raw values)" + (f", or {more}" if more else ""))


def write_examples(x: Tensor, run: Run, out: str, noun: str) -> None:
    """Write raw examples as ``.npy`` or as a picture, and report what is in the file.

    Args:
        noun: the examples, in the singular.
    """
    import numpy as np

    from unsup.core.storage import write_file

    said = f"{counted(len(x), noun)} of {run.path} in {out}"
    if run.form is not None and is_form(run.form, out):
        for path, content in run.form.files(x.cpu(), Path(out)):
            write_file(path, content)
        write(said)
        return
    if Path(out).suffix.lower() == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, x.cpu().numpy())
        content = buffer.getvalue()
    else:
        drawn = run.gallery(x).examples(x, f"{noun}s of {run.path.name}")
        if drawn is None:
            raise InputError(
                f"none of {len(x)} examples is finite, so a picture is not possible; write them to a .npy file"
            )
        content = drawn.enlarged().png
        if drawn.shown < len(x):
            said = f"{out} shows the first {drawn.shown} of {counted(len(x), noun)} of {run.path}; a .npy file has all"
    write_file(out, content)
    write(said)
