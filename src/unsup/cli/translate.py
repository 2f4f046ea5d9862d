"""``unsup translate RUN FILES``: translate images to the other domain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unsup.cli.conditions import like_training
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import write
from unsup.core.config import Count
from unsup.core.errors import CapabilityError, InputError
from unsup.core.words import counted

_COLOURS = {"a": "shades of grey", "b": "predicted colours"}


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup translate",
        description="Translate images to the other domain of a run; each is written as a .png file of the same name.",
    )
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "files", metavar="FILES", nargs="+", help="images, folders of images, .npy arrays, or data sets (test split)"
    )
    parser.add_out("folder to write to", metavar="FOLDER", folder=True, required=True)
    parser.add_argument(
        "--to", choices=("a", "b"), default="b", help="domain to translate to [b]; of models that colour, a is grey"
    )
    parser.add_number("--resize", Count, "side in pixels to which images are resized [as in training]")
    add_memory(parser)
    options = parser.parse(arguments)

    from unsup.core.model import Colours, Translates
    from unsup.core.storage import write_file
    from unsup.data import load_examples
    from unsup.pictures.images import plain_image, png_bytes
    from unsup.train.runs import open_model

    run = open_model(options.run)
    model = run.model
    if not isinstance(model, Translates):
        raise CapabilityError(
            f"{run.config['model']['model']} cannot translate (unsup models lists the models that can)"
        )
    if not model.event.is_image or model.event.shape[0] not in (1, 3):
        raise InputError(f"{model.event} is not a grey or colour image; use model.translate in Python")
    resize = {} if options.resize is None else {"resize": options.resize}
    found = [(file, *load_examples(file, model.event, **like_training(file, run) | resize)) for file in options.files]
    targets = _targets(options.out, [(file, names) for file, _, names in found])
    for (_, x, _), paths in zip(found, targets, strict=True):
        translated = model.translate(x.to(model.device), to=options.to)
        for one, path in zip(translated, paths, strict=True):
            write_file(path, png_bytes(plain_image(one, model.event)))
    kind = _COLOURS[options.to] if isinstance(model, Colours) else f"domain {options.to}"
    write(f"{counted(sum(map(len, targets)), 'image')} of {kind} written to {options.out}")
    return 0


def _targets(out: str, sources: Sequence[tuple[str, Sequence[str]]]) -> list[list[Path]]:
    """The output path of each example; duplicate paths and overwriting a source are refused."""
    folder, targets = Path(out), []
    taken: dict[Path, Path] = {}
    for source, names in sources:
        base = Path(source).expanduser()
        own: list[Path] = []
        for i, name in enumerate(names):
            origin = base / name if base.is_dir() else base
            is_image = origin.is_file() and (base.is_dir() or len(names) == 1)
            path = folder / (Path(name).with_suffix(".png") if is_image else f"{base.stem}-{i:05d}.png")
            if path in taken:
                raise InputError(
                    f"{taken[path]} and {origin} would both be written to {path}; translate them into two folders"
                )
            if path.exists() and origin.exists() and path.samefile(origin):
                raise InputError(
                    f"{path} would be overwritten by its own translation; choose another folder (-o FOLDER)"
                )
            taken[path] = origin
            own.append(path)
        targets.append(own)
    return targets
