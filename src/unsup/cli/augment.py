"""``unsup augment DATA``: examples with random views of them, as a model that is trained on views sees them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsup.cli.options import DATA_OPTIONS, Parser, add_data, add_memory, chosen
from unsup.cli.show import table, write
from unsup.core.config import Count, Seed
from unsup.core.errors import InputError
from unsup.core.words import counted

if TYPE_CHECKING:
    from torch import Tensor

    from unsup.data.examples import Examples
    from unsup.data.sound import SoundForm
    from unsup.pictures.gallery import Drawn

# Not useful here.
_SKIPPED = ("given", "limit", "without", "unlabelled", "domain_b", "changed_data", "tail", "n", "labels", "label_seed")

_MOST_WAVES = 6  # plots next to the original


def main(arguments: Sequence[str]) -> int:
    parser = _parser()
    if "--list" in arguments and not {"-h", "--help"} & set(arguments):
        parser.parse(arguments)
        return _list()
    add_data(parser, arguments, skip=_SKIPPED)
    options = parser.parse(arguments)
    if options.data is None:
        raise InputError("no data given; use unsup augment DATA --recipe NAME -o grid.png, or --list")
    if options.recipe is None:
        raise InputError("no recipe given; use --recipe NAME (unsup augment --list lists them)")
    if options.out is None:
        raise InputError("no output file given; use -o grid.png, or a folder for sound")
    suffix = Path(options.out).suffix.lower()
    if suffix not in (".png", ""):
        raise InputError(f"-o {options.out} should end in .png (a picture), or be a folder, without a suffix (sound)")

    import torch

    from unsup.core.random import keyed_generator
    from unsup.core.storage import write_file
    from unsup.data.load import load_rows
    from unsup.data.sound import SoundForm
    from unsup.evaluate.views import unit_of
    from unsup.nn.augment import augment, recipe_named

    recipe = recipe_named(options.recipe)
    found = load_rows(options.data, **chosen(options, [n for n in DATA_OPTIONS if n not in _SKIPPED]))
    reason = recipe.reason_against(found.event.shape)
    if reason is not None:
        raise InputError(f"{options.data}: an example {reason}")
    if suffix == "" and not isinstance(found.form, SoundForm):
        raise InputError(f"-o {options.out} is a folder, for recordings, but {options.data} has none; use a .png file")
    if suffix and not found.event.is_image and options.views > _MOST_WAVES:
        raise InputError(f"a picture of sound has at most {_MOST_WAVES} views; use fewer (--views), or -o FOLDER")
    n = min(options.n, len(found.whole))
    chosen_rows = torch.arange(n) * len(found.whole) // n
    x = unit_of(found.whole.take(chosen_rows).x, found.event, found.form, options.data)
    views = [augment(x, recipe, keyed_generator(options.seed, view)) for view in range(options.views)]
    rows = torch.stack([x, *views], 1)
    if suffix == "":
        assert isinstance(found.form, SoundForm)
        for path, content in _recordings(rows, found.form, Path(options.out)):
            write_file(path, content)
        shown = n
    else:
        drawn = _picture(rows, found, f"{recipe.name}: examples of {options.data} with their views")
        write_file(options.out, drawn.png)
        shown = drawn.shown
    few = f"; the first {shown} of {n} examples" if shown < n else ""
    each = f"{counted(shown, 'example')} of {options.data}, each with {counted(options.views, 'view')}"
    write(f"{each} by {recipe.name} in {options.out}{few}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="unsup augment",
        description="Write examples, each next to random views of it, as a model that is trained on views sees them.",
    )
    parser.add_argument("data", metavar="DATA", nargs="?", help="images or sound: a data set's name or a path")
    parser.add_argument("--list", action="store_true", help="list the recipes")
    parser.add_argument("--recipe", metavar="NAME", help="name of a recipe")
    parser.add_number("-n", Count, "number of examples, evenly spaced in the data [8]", default=8)
    parser.add_number("--views", Count, "views of each example [6]", default=6)
    parser.add_out(
        ".png for a picture, a row per example, the original first; for sound also a folder of WAV files",
        metavar="FILE",
        either=True,
    )
    parser.add_number("--seed", Seed, "random seed [0]", default=0)
    add_memory(parser)
    return parser


def _list() -> int:
    from unsup.nn.augment import RECIPES

    rows = [(recipe.name, recipe.kind if recipe.operations else "any", recipe.summary) for recipe in RECIPES.values()]
    write(*table(("recipe", "for", "operations"), rows))
    return 0


def _recordings(rows: Tensor, form: SoundForm, out: Path) -> Iterator[tuple[Path, bytes]]:
    """WAV files of ``(N, 1 + views, T)``, in a folder; louder samples than full scale are cut off."""
    digits = len(str(len(rows) - 1))
    for i, row in enumerate(rows):
        for view, wave in enumerate(form.raw(row)):
            kind = f"view-{view}" if view else "original"
            yield from form.files(wave[None], out / f"{i:0{digits}d}-{kind}.wav")


def _picture(rows: Tensor, found: Examples, what: str) -> Drawn:
    """``(N, 1 + views, *shape)``: images at 8 bits, or waveforms."""
    from unsup.core.event import REAL, Event, Support
    from unsup.pictures.gallery import Gallery

    if found.event.is_image:
        event, rows = Event(found.event.shape, Support("ordinal", 256)), (255 * rows).round()
    else:
        event = Event(found.event.shape, REAL, "sequence")
    drawn = Gallery(event, rows.flatten(0, 1), rate=found.rate, whole=True).views(rows, what)
    if drawn is None:
        raise InputError("no example is finite, so a picture is not possible")
    return drawn.enlarged()
