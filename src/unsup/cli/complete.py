"""``unsup complete RUN FILE``: draw or estimate what is missing in examples, given the rest."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unsup.cli.conditions import add_example_options, examples_of, reading_of
from unsup.cli.knobs import add_knobs, knobs_in, parse_for_run
from unsup.cli.options import Parser, add_memory, chosen
from unsup.cli.sample import OUT_HELP, Clock, check_completes, check_output, prompted, write_examples
from unsup.cli.show import note, write
from unsup.cli.words import is_number
from unsup.core.config import Positive, Seed, Share
from unsup.core.errors import InputError
from unsup.core.words import counted, listed

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.core.batch import Batch
    from unsup.core.event import Event
    from unsup.data.series import Series
    from unsup.train.runs import Run

_KEPT = 0.5
_SIDES = ("top", "bottom", "left", "right")
_READING = ("decimal", "header", "sheet")
_FILLS = ("draw", "mode", "mean")
_TEXT = (".csv", ".tsv", ".csv.gz")


def main(arguments: Sequence[str]) -> int:
    options = parse_for_run(lambda run: _parser(run, arguments), arguments)
    if options is None:
        return 0

    from unsup.core.steps import heard_by
    from unsup.train.progress import Progress
    from unsup.train.runs import open_model

    run = open_model(options.run)
    check_completes(run)
    check_output(options.out, run)
    if options.file is not None and Path(options.out).resolve() == Path(options.file).expanduser().resolve():
        raise InputError(f"-o {options.out} is the file to complete, which is not overwritten; choose another name")
    examples, known, names = _asked(options, run)
    if bool(known.all()):
        mend = "leave the cells empty that are to be drawn"
        if _is_by_gaps(run) and options.keep is None:
            mend += f", or draw a part of each window (--keep first:{_KEPT})"
        elif run.model.event.shape and run.model.event.layout != "vector":
            mend = "use a mask with black pixels" if options.mask else "keep a smaller part of it (--keep)"
        raise InputError(f"{options.file} has nothing to complete, since every value is known; {mend}")
    rows = _rows_of(options, run)
    try:
        with Progress("auto", unit="example", start=0) as display:
            clock = Clock(len(examples), display, "example")
            with heard_by(clock.on_step):
                if rows is None:
                    x, lengths = _completed(run, examples, known, options, clock)
                else:
                    x, lengths = _completed_windows(run, examples, known, len(rows.x), options, clock), None
    except InputError as error:
        asked = next((f"--{way} {getattr(options, way)}" for way in ("keep", "mask") if getattr(options, way)), None)
        if asked is None:
            if _is_series(run):
                mend = "use a run of a model that fills gaps anywhere, such as hmm"
                raise InputError(f"{options.file} has gaps before known values: {error}; {mend}") from error
            raise
        raise InputError(f"{asked}: {error}{_instead(run, examples)}") from error
    if rows is None or Path(options.out).suffix.lower() in (".npy", ".png"):
        _write(x, known, run, options, lengths, names)
    else:
        _write_series(x, known, rows, run, options)
    return 0


def _completed(
    run: Run, examples: Batch, known: Tensor, options: argparse.Namespace, clock: Clock, before: int = 0
) -> tuple[Tensor, Tensor | None]:
    """The completed examples and their lengths.

    Args:
        before: the number of examples that were completed before, with other noise.
    """
    from unsup.core.model import KnowsMarginals
    from unsup.evaluate.completions import complete_examples, fill_examples
    from unsup.evaluate.samples import CHUNK

    own = knobs_in(options)
    settings = {
        "seed": options.seed,
        "on_chunk": lambda done, total: clock.on_chunk(before + done, before + total),
        "before": -(-before // CHUNK),
    }
    if options.fill == "draw":
        return complete_examples(run.model, examples, known, options=own, **settings)
    if own and isinstance(run.model, KnowsMarginals):
        flag = next(iter(own)).replace("_", "-")
        raise InputError(f"--sample.{flag} is for draws, and --fill {options.fill} draws nothing; remove one of them")
    return fill_examples(run.model, examples, known, options.fill, options=own, **settings), None


def _completed_windows(
    run: Run, examples: Batch, known: Tensor, n: int, options: argparse.Namespace, clock: Clock
) -> Tensor:
    """The completed windows of a series of ``n`` rows, ``(W, L, ...)``.

    The last one may overlap the one before it, of which all values are then known.
    """
    import torch

    window, first = examples.x.shape[1], len(examples) - 1
    rest = n % window
    if not rest:
        return _completed(run, examples, known, options, clock)[0]
    x, _ = _completed(run, examples.take(slice(0, first)), known[:first], options, clock)
    last, seen = examples.take(slice(first, None)), known[first:].clone()
    values = last.x.clone()
    values[:, : window - rest] = x[-1:, rest:].to(values.dtype)
    seen[:, : window - rest] = True
    end, _ = _completed(run, replace(last, x=values), seen, options, clock, before=first)
    return torch.cat([x, end])


def _rows_of(options: argparse.Namespace, run: Run) -> Series | None:
    """The rows of a file with a series, in the order of time; None for other data."""
    from unsup.data.catalog import TABLES_BY_SUFFIX
    from unsup.data.columns import TableForm
    from unsup.data.tables import series_like

    path = Path(options.file or "").expanduser()
    is_table = path.is_file() and path.name.lower().endswith(tuple(itertools.chain(*TABLES_BY_SUFFIX.values())))
    if not (_is_series(run) and is_table):
        return None
    assert isinstance(run.form, TableForm)
    reading = {k: v for k, v in reading_of(options, run).items() if k in _READING}
    return series_like(path, run.form, **reading)[0]


def _how(run: Run, fill: str, known: Tensor) -> str:
    """How the cells were filled, as in ``12 missing cells in 5 rows of a.csv …``."""
    from unsup.core.model import KnowsMarginals
    from unsup.evaluate.completions import DRAWS

    way = _approximation(run, fill, known)
    if fill == "draw":
        return f"drawn from {run.path}" if way is None else f"drawn approximately from {run.path}, {way}"
    if isinstance(run.model, KnowsMarginals):
        return f"filled with the {fill} under {run.path}"
    draws = f"{DRAWS} draws" if way is None else f"{DRAWS} approximate draws, {way}"
    return f"filled with the {fill} under {run.path}, estimated by {draws}"


def _approximation(run: Run, fill: str, known: Tensor) -> str | None:
    """How draws are approximate, a clause; None if they are exact, or nothing is drawn."""
    from unsup.core.model import CanComplete, KnowsMarginals

    assert isinstance(run.model, CanComplete)
    if fill != "draw" and isinstance(run.model, KnowsMarginals):
        return None
    return run.model.approximation(known.to(run.model.device))


def _instead(run: Run, examples: Batch) -> str:
    """What could be kept instead, a clause; empty if the model cannot complete that either."""
    from unsup.nn.order import Order

    event, order = run.model.event, getattr(run.model, "order", None)
    asked = f"{'top' if event.is_image else 'first'}:{_KEPT}"
    known = _known_part(argparse.Namespace(keep=asked, top=None, mask=None, seconds=None), event, run)
    if not isinstance(order, Order) or not order.begins(known(examples.take(slice(0, 1)))):
        return ""
    return f"; --keep {asked} is possible"


def _parser(run: Run | None, arguments: Sequence[str]) -> Parser:
    parser = Parser(
        prog="unsup complete",
        description="Draw what is missing in examples from its distribution given the rest: the missing cells of a "
        "table, a part of images, or what follows a text or the beginning of a sound. --fill takes the mode or the "
        "mean in place of a draw. Everything else is kept as it is, and all examples are written in their order.",
        epilog="unsup complete RUN --help lists the options --sample.NAME of that run.",
        add_help=False,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="your examples: a table with missing cells, images, sound, or texts to continue",
    )
    parser.add_out(OUT_HELP, metavar="FILE", either=True, required=True)
    parser.add_number("--seed", Seed, "random seed [0]", default=0)
    parser.add_argument(
        "--fill",
        choices=_FILLS,
        default=_FILLS[0],
        help="what is written: a draw, which keeps the spread of the data; the mode, the most probable value of each "
        "cell by itself; or the mean, rounded for whole numbers, and the mode for categories [draw]",
    )
    parser.add_argument(
        "--keep",
        metavar="SIDE:SHARE",
        help=f"the share that is known: top, bottom, left or right of images, first of each sequence [top:{_KEPT}, "
        f"first:{_KEPT}; of series, all values that are there]",
    )
    parser.add_number("--top", Share, "short form of --keep top:SHARE", metavar="SHARE")
    parser.add_argument("--mask", metavar="IMAGE", help="images: what is known is white in this image of their size")
    parser.add_number("--seconds", Positive, "sound: the duration that is known, from the beginning", metavar="S")
    parser.add_argument("--prompt", metavar="TEXT", help="text to continue, in place of FILE")
    add_example_options(parser, arguments, without=("missing", "stride"))
    add_memory(parser)
    parser.add_argument("-h", "--help", action="store_true", help="show this help message and exit")
    if run is not None:
        add_knobs(parser, run, complete=True)
    return parser


def _asked(options: argparse.Namespace, run: Run) -> tuple[Batch, Tensor, list[str]]:
    """The examples, which of their entries are known (bool of their shape), and the files of a folder.

    Raises:
        InputError: two parts that are known, or one that does not fit the data.
    """
    import torch

    from unsup.data.sound import SoundForm
    from unsup.data.text import Written
    from unsup.data.windows import file_of

    ways = [w for w in ("keep", "top", "mask", "seconds", "prompt") if getattr(options, w) is not None]
    if len(ways) > 1:
        raise InputError(f"--{ways[0]} and --{ways[1]} are both given; use one of them")
    if (options.file is None) == (options.prompt is None):
        both = f"{options.file} and --prompt are both given" if options.file else "there is nothing to complete"
        raise InputError(f"{both}; expected a FILE, or for text --prompt TEXT")
    if options.prompt is not None:
        return *prompted(options.prompt, run, 1), []
    event = run.model.event
    if isinstance(run.form, Written) and not ways:
        return _texts(options, run)
    is_known, is_folder = _known_part(options, event, run), Path(options.file).is_dir()
    examples, names = examples_of(options, run, own=_with_gaps(run), cover=True)
    files = list(map(file_of, names))
    if isinstance(run.form, Written | SoundForm):
        rows = list(range(len(names)))
        if is_folder:  # read in hashed order
            rows.sort(key=lambda i: files[i])
        if options.seconds is not None:  # the beginning of a recording is in its first window
            rows = [i for place, i in enumerate(rows) if not place or files[i] != files[rows[place - 1]]]
            if len(rows) < len(names):
                later = counted(len(names) - len(rows), "later window")
                note(f"--seconds {options.seconds:g} is of the first window of a recording; {later} left out")
        examples, files = examples.take(torch.tensor(rows)), [files[i] for i in rows]
    return examples, is_known(examples), files if is_folder else []


def _texts(options: argparse.Namespace, run: Run) -> tuple[Batch, Tensor, list[str]]:
    """The texts in a file or folder, each the beginning of an example; see `_asked`."""
    import torch

    from unsup.core.batch import Batch
    from unsup.data.text import Written, texts_of

    form, most = run.form, run.model.event.shape[0]
    assert isinstance(form, Written)
    texts = texts_of(Path(options.file), getattr(options, "field", None))
    tokens = [form.tokens_of(text, name) for name, text in texts]
    longest = max(map(len, tokens))
    room = most if run.model.event.open else most - 1  # a document may end at once
    if longest > room:
        raise InputError(
            f"{options.file} has a text of {counted(longest, form.entry)}, and examples of this run have {most}; leave "
            f"at most {room} to be continued, or keep the beginning of each window with --keep first:SHARE"
        )
    event = run.model.event
    x = event.lowest(torch.zeros(1, dtype=torch.int64)).expand(len(tokens), most).clone()
    for row, own in zip(x, tokens, strict=True):
        row[: len(own)] = own
    sizes = torch.tensor([len(own) for own in tokens])
    names = [name for name, _ in texts] if Path(options.file).is_dir() else []
    return Batch(x.to(event.dtype)), torch.arange(most) < sizes[:, None], names


def _known_part(options: argparse.Namespace, event: Event, run: Run) -> Callable[[Batch], Tensor]:
    """The function of examples that tells which entries are known: a part of images or sequences, else those with a
    value. Nothing is known beyond the length of an example.

    Raises:
        InputError: a part that this data does not have.
    """
    import torch

    if options.top is not None and not event.is_image:
        raise InputError(f"--top {options.top:g} is for images, but this run is of {event}; remove it")
    if options.mask is not None:
        mask = _mask(options.mask, event)
        return lambda examples: mask.to(examples.x.device).expand(len(examples), *event.shape)
    if options.seconds is not None:
        rate = None if run.form is None else run.form.samples_a_second
        if rate is None:
            raise InputError(f"--seconds {options.seconds:g} is for sound, but this run is of {event}; remove it")
        start = round(options.seconds * rate)
        if start >= event.shape[0]:
            whole = event.shape[0] / rate
            raise InputError(f"--seconds {options.seconds:g} leaves nothing to draw: examples have {whole:g} seconds")
        return lambda examples: _beginnings(event, _sizes(event, examples).clamp(max=start))
    sequence = event.layout == "sequence"
    if not (event.is_image or sequence):
        if options.keep is not None:
            raise InputError(
                f"--keep {options.keep} is for images and sequences, and this run is of {event}; remove it"
            )
        return lambda examples: ~examples.x.isnan()
    side, share = _keep(options, event)
    if sequence:
        if _is_by_gaps(run) and options.keep is None:
            return lambda examples: ~examples.x.isnan()
        return lambda examples: _beginnings(event, (_sizes(event, examples) * share).round()) & ~examples.x.isnan()
    axis = 1 if side in ("top", "bottom") else 2
    n = event.shape[axis]
    count, place = round(share * n), torch.arange(n)
    there = place < count if side in ("top", "left") else place >= n - count
    part = there.view(*(-1 if i == axis else 1 for i in range(len(event.shape))))
    return lambda examples: part.to(examples.x.device).expand(len(examples), *event.shape)


def _is_by_gaps(run: Run) -> bool:
    """Whether what is known of sequences are their values that are there, and not their beginnings."""
    return run.model.event.layout == "sequence" and (run.model.event.missing or _is_series(run))


def _is_series(run: Run) -> bool:
    """Whether examples are windows of the rows of a table."""
    from unsup.data.columns import TableForm

    return isinstance(run.form, TableForm) and run.form.window > 0


def _sizes(event: Event, examples: Batch) -> Tensor:
    """The length of each sequence, ``(B,)``."""
    import torch

    return torch.full((len(examples),), event.shape[0]) if examples.lengths is None else examples.lengths


def _beginnings(event: Event, sizes: Tensor) -> Tensor:
    """Which entries are among the first ``(B,)`` of each sequence, ``(B, *event.shape)``."""
    import torch

    there = torch.arange(event.shape[0], device=sizes.device) < sizes[:, None]
    return there.view(len(sizes), -1, *(1 for _ in event.shape[1:])).expand(-1, *event.shape)


def _keep(options: argparse.Namespace, event: Event) -> tuple[str, float]:
    """The side and share of ``--keep``."""
    sides = _SIDES if event.is_image else ("first",)
    if options.keep is None:
        return sides[0], _KEPT if options.top is None else options.top
    side, _, share = options.keep.partition(":")
    if side not in sides or not is_number(share) or not 0 <= float(share) <= 1:
        raise InputError(
            f"--keep {options.keep} is not a part of {event}; expected {listed(sides, 'or')}, and a share from 0 to 1: "
            f"{sides[0]}:{_KEPT}"
        )
    return side, float(share)


def _mask(path: str, event: Event) -> Tensor:
    """Which pixels are white in an image, ``(1, H, W)``.

    Raises:
        InputError: it is not an image of the size of the examples.
    """
    import torch

    from unsup.data.pixels import BROKEN, decode

    if not event.is_image:
        raise InputError(f"--mask {path} is for images, but this run is of {event}; remove it")
    try:
        pixels = decode(Path(path).expanduser().read_bytes()).pixels[0]
    except (*BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise InputError(f"--mask {path} cannot be read ({error.strerror}); expected an image") from error
        raise InputError(f"--mask {path} is not an image; expected one, white where pixels are known") from error
    if pixels.shape[1:] != event.shape[1:]:
        size, own = ("×".join(map(str, shape)) for shape in (pixels.shape[1:], event.shape[1:]))
        raise InputError(f"--mask {path} has {size} pixels, and examples of this run have {own}; resize the mask")
    top = float(pixels.max()) or 1.0
    return torch.from_numpy(pixels[:3].astype("float64").mean(0) >= top / 2)[None]


def _with_gaps(run: Run) -> Event:
    """The event of examples that may have missing entries; real ones keep the precision of the file."""
    event = run.model.event
    if event.is_image or (event.layout == "sequence" and not _is_series(run)):
        return event
    return replace(event, missing=True, precision=event.precision if event.is_discrete else "float64")


def _write(
    x: Tensor, known: Tensor, run: Run, options: argparse.Namespace, lengths: Tensor | None, names: list[str]
) -> None:
    """Write completed examples; the other cells of a CSV file are copied as text, with all of its columns."""
    from unsup.core.storage import write_file
    from unsup.data.catalog import TABLES_BY_SUFFIX
    from unsup.data.columns import TableForm
    from unsup.data.tables import filled

    form, path, out = run.form, Path(options.file or "").expanduser(), Path(options.out)
    is_csv = path.is_file() and path.name.lower().endswith(TABLES_BY_SUFFIX["a .csv table"])
    if not (isinstance(form, TableForm) and not form.window and is_csv and out.name.lower().endswith(_TEXT)):
        way = _approximation(run, options.fill, known)
        noun = "completed example" if way is None else "approximately completed example"
        write_examples(x, run, options.out, noun, lengths=lengths, apart=True, names=names)
        return
    gaps = ~known
    reading: dict[str, Any] = chosen(options, ("decimal", "header"))
    write_file(out, filled(path, form, x, gaps, out, **reading))
    some = f"{counted(int(gaps.sum()), 'missing cell')} in {counted(int(gaps.any(1).sum()), 'row')}"
    write(f"{some} of {options.file} {_how(run, options.fill, known)}; all {counted(len(x), 'row')} in {options.out}")


def _write_series(x: Tensor, known: Tensor, rows: Series, run: Run, options: argparse.Namespace) -> None:
    """Write the completed rows of a series in the order of their file, as `_write` does with those of a table.

    Files of other kinds than the input have the column of times, and those of the model.
    """
    import numpy as np
    import torch

    from unsup.core.storage import write_file
    from unsup.data.catalog import TABLES_BY_SUFFIX
    from unsup.data.columns import TableForm
    from unsup.data.tables import filled

    form, path, out = run.form, Path(options.file).expanduser(), Path(options.out)
    assert isinstance(form, TableForm)
    n, width = rows.x.shape
    gaps = rows.in_file(_rows_in(~known, n, width).numpy())
    drawn = rows.in_file(_rows_in(x, n, width).double().numpy())
    values = torch.from_numpy(np.where(gaps, drawn, rows.in_file(rows.x)))
    if path.name.lower().endswith(TABLES_BY_SUFFIX["a .csv table"]) and out.name.lower().endswith(_TEXT):
        reading: dict[str, Any] = chosen(options, ("decimal", "header"))
        write_file(out, filled(path, form, values, torch.from_numpy(gaps), out, **reading))
    else:
        form = replace(form, window=0, columns=rows.columns)
        if rows.time is not None and rows.moments is not None:
            form = replace(form, columns=(rows.time, *form.columns))
            values = torch.cat([torch.from_numpy(rows.in_file(rows.moments))[:, None], values], 1)
        for place, content in form.files(values, out):
            write_file(place, content)
    noun = "missing cell" if options.keep is None else "cell"
    some = f"{counted(int(gaps.sum()), noun)} in {counted(int(gaps.any(1).sum()), 'row')}"
    write(f"{some} of {options.file} {_how(run, options.fill, known)}; all {counted(n, 'row')} in {options.out}")


def _rows_in(windows: Tensor, n: int, width: int) -> Tensor:
    """The ``n`` rows ``(n, width)`` of windows ``(W, L, ...)``, of which the last may overlap the one before it."""
    import torch

    each = windows.reshape(len(windows), -1, width)  # (W, L, D)
    rest = n % each.shape[1]
    if not rest:
        return each.flatten(0, 1)
    return torch.cat([each[:-1].flatten(0, 1), each[-1, -rest:]])
