"""``unsup sample RUN``: draw samples, in the form of the data, as a picture or as raw values."""

from __future__ import annotations

import io
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unsup.cli.conditions import add_given, conditions
from unsup.cli.knobs import add_knobs, knobs_in, parse_for_run
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import write
from unsup.core.config import Count, Positive, Seed
from unsup.core.errors import CapabilityError, InputError
from unsup.core.registry import names, row
from unsup.core.words import counted, duration, listed

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.core.batch import Batch
    from unsup.data.form import Form
    from unsup.train.progress import Progress
    from unsup.train.runs import Run

_BETWEEN = b"\n" + 20 * b"-" + b"\n"  # between texts in one file
OUT_HELP = (
    "a file or folder in the form of the data (.csv, .wav, .txt, …), .png for a picture (of the first examples if "
    "they do not all fit), or .npy for all raw values"
)
_MANY = 64
_FIRST, _LONG = 2.0, 60.0  # seconds after which the time is estimated, and from which on it is told


def main(arguments: Sequence[str]) -> int:
    options = parse_for_run(_parser, arguments)
    if options is None:
        return 0

    from unsup.core.model import CanSample, has_ends
    from unsup.core.steps import heard_by
    from unsup.evaluate.completions import complete_examples, sample_with_lengths
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
    length = _length(options, run)
    if length not in (None, run.model.event.shape[0]) and Path(options.out).suffix.lower() == ".png":
        long = f"{whole_seconds(run):g} seconds" if options.seconds else f"{run.model.event.shape[0]:,} steps"
        flag = "--seconds" if options.seconds else "--length"
        raise InputError(f"a picture has samples of {long}; remove {flag}, or name another file than a picture (.npy)")
    prompt = None if options.prompt is None else prompted(options.prompt, run, total)
    lengths = None
    with Progress("auto", unit="sample", start=0) as display:
        clock = Clock(total, display)
        with heard_by(clock.on_step):
            how = {"seed": options.seed, "options": knobs_in(options), "on_chunk": clock.on_chunk}
            if prompt is not None:
                x, lengths = complete_examples(run.model, replace(prompt[0], given=each), prompt[1], **how)
            elif has_ends(run.model):
                x, lengths = sample_with_lengths(run.model, total, given=each, **how)
            else:
                x = draw_samples(run.model, total, given=each, length=length, **how)
    write_examples(x, run, options.out, "sample", lengths=lengths, apart=prompt is not None)
    return 0


def prompted(text: str, run: Run, n: int, what: str = "--prompt") -> tuple[Batch, Tensor]:
    """``n`` examples that begin with a text, and which of their entries are known.

    Raises:
        InputError: the run is not of text, or the text is too long or has characters that the run does not know.
        CapabilityError: the model of the run does not complete examples.
    """
    import torch

    from unsup.core.batch import Batch
    from unsup.data.text import Written

    event, form = run.model.event, run.form
    if not isinstance(form, Written):
        raise InputError(f"{what} is for text, but this run is of {event}; remove it")
    check_completes(run)
    tokens = form.tokens_of(text, what)
    size, most = len(tokens), event.shape[0]
    if size >= most and not event.open:
        raise InputError(
            f"{what} has {counted(size, form.entry)}, and examples of this run have {most}, so nothing would be drawn; "
            f"use at most {most - 1}, such as the last ones"
        )
    if size > most:
        raise InputError(f"{what} has {counted(size, form.entry)}; use at most {most}, such as the last ones")
    x = event.lowest(torch.zeros(1, dtype=torch.int64)).expand(n, most).clone()
    x[:, :size] = tokens
    first = torch.arange(most) < size
    return Batch(x.to(event.dtype)), first.expand(n, most)


def check_completes(run: Run) -> None:
    """Raise `CapabilityError` unless the model of the run completes examples."""
    from unsup.core.model import CanComplete

    if not isinstance(run.model, CanComplete):
        able = ", ".join(n for n in names() if "complete" in row(n).abilities)
        name = run.config["model"]["model"]
        raise CapabilityError(f"{name} cannot complete examples (models that can: {able})")


def _length(options: Namespace, run: Run) -> int | None:
    """The length of the samples by ``--seconds`` or ``--length``; None for that of the training examples.

    Raises:
        InputError: both are given, or the data of the run has no rate, or is not of sequences.
        CapabilityError: its model samples examples of one length only.
    """
    from unsup.core.model import SamplesAnyLength

    form, model, name = run.form, run.model, run.config["model"]["model"]
    if options.seconds is None and options.length is None:
        return None
    if options.seconds is not None and options.length is not None:
        raise InputError("--seconds and --length are both given; remove one of them")
    if options.length is not None:
        if model.event.layout != "sequence":
            raise InputError(f"--length {options.length} is for sequences, but this run is of {model.event}; remove it")
        length, own, said = options.length, f"{model.event.shape[0]:,} steps", f"--length {options.length}"
    else:
        if form is None or form.samples_a_second is None:
            raise InputError(f"--seconds {options.seconds:g} is for sound, but this run is of {model.event}; remove it")
        length = max(1, round(options.seconds * form.samples_a_second))
        own, said = f"{whole_seconds(run):g} seconds", f"--seconds {options.seconds:g}"
    reason = (
        model.reason_against_length()
        if isinstance(model, SamplesAnyLength)
        else "samples examples of the length of its event only"
    )
    if reason is not None:
        raise CapabilityError(f"{name} {reason} ({own}); remove {said}")
    return length


def whole_seconds(run: Run) -> float:
    """The duration of the training examples of a run of sound."""
    assert run.form is not None
    assert run.form.samples_a_second is not None
    return run.model.event.shape[0] / run.form.samples_a_second


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
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_number("-n", Count, f"number of samples, per given condition [{_MANY}; one per condition in a file]")
    parser.add_out(OUT_HELP, metavar="FILE", either=True)
    parser.add_number(
        "--seconds",
        Positive,
        "duration of samples of sound, for models that sample any length [that of the training examples]",
        metavar="S",
    )
    parser.add_number(
        "--length",
        Count,
        "number of steps of samples of sequences, for models that sample any length [that of the training examples]",
    )
    parser.add_number("--seed", Seed, "random seed [0]", default=0)
    parser.add_argument(
        "--prompt", metavar="TEXT", help="the beginning of every sample, for text; the rest is drawn given it"
    )
    add_given(parser, "condition of the samples, for models trained with a condition", "--label")
    add_memory(parser)
    parser.add_argument("-h", "--help", action="store_true", help="show this help message and exit")
    if run is not None:
        add_knobs(parser, run)
    return parser


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
    own = [] if run.form is None else [s for s in run.form.suffixes if s not in ("", ".png")]
    ends = listed([".png (a picture)", ".npy (raw values)", *own], "or")
    folder = ", or be a folder, without a suffix" if run.form is not None and "" in run.form.suffixes else ""
    raise InputError(f"{out} should end in {ends}{folder}")


def _named(files: list[tuple[Path, bytes]], names: Sequence[str]) -> list[tuple[Path, bytes]]:
    """Files with these names in place of numbers, if there is one for each, and they differ."""
    stems = [Path(name).with_suffix("").as_posix() for name in names]
    if len(set(stems)) != len(files) or len(stems) != len(files):
        return files
    return [(path.parent / f"{stem}{path.suffix}", content) for (path, content), stem in zip(files, stems, strict=True)]


def write_examples(
    x: Tensor,
    run: Run,
    out: str,
    noun: str,
    *,
    lengths: Tensor | None = None,
    apart: bool = False,
    names: Sequence[str] = (),
) -> None:
    """Write raw examples as ``.npy`` or as a picture, and report what is in the file.

    Args:
        noun: the examples, in the singular.
        lengths: of the examples, if they differ.
        apart: whether a line separates texts in one file; it always separates texts of different lengths.
        names: of the files that the examples are from, which those in a folder then have too; else they are numbered.
    """
    import numpy as np

    from unsup.core.storage import write_file
    from unsup.data.text import Written

    said = f"{counted(len(x), noun)} of {run.path} in {out}"
    if run.form is not None and is_form(run.form, out):
        if isinstance(run.form, Written):
            between = _BETWEEN if apart or lengths is not None else b""
            files = run.form.files_of(run.form.texts(x, lengths), Path(out), between=between)
        else:
            files = run.form.files(x.cpu(), Path(out))
        for path, content in _named(list(files), names):
            write_file(path, content)
        write(said)
        return
    if Path(out).suffix.lower() == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, x.cpu().numpy())
        content = buffer.getvalue()
    else:
        drawn = run.gallery(x).examples(x, f"{noun}s of {run.path.name}", lengths=lengths)
        if drawn is None:
            raise InputError(
                f"none of {len(x)} examples is finite, so a picture is not possible; write them to a .npy file"
            )
        content = drawn.enlarged().png
        if drawn.shown < len(x):
            said = f"{out} shows the first {drawn.shown} of {counted(len(x), noun)} of {run.path}; a .npy file has all"
    write_file(out, content)
    write(said)
