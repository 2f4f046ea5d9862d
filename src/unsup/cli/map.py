"""``unsup map RUN``: codes in the plane, as a picture that states what its distances mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from unsup.cli.encoded import add_encoded_data, data_of, encoder_of
from unsup.cli.eval import Stages
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import write
from unsup.core.config import Seed, Within
from unsup.core.errors import InputError

_POINTS, _MOST = 2000, 20_000


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup map",
        description="Draw the codes of held-out examples in the plane, coloured by class if there are labels; the "
        "picture states what its distances mean.",
    )
    add_encoded_data(parser, arguments)
    parser.add_out("a picture", metavar="FILE.png", required=True)
    parser.add_argument(
        "--method",
        choices=("pca", "tsne"),
        default="pca",
        help="principal components, whose distances have a meaning, or t-SNE, which shows neighbourhoods [pca]",
    )
    parser.add_argument(
        "--split", choices=("test", "validation", "train"), default="test", help="the examples to draw [test]"
    )
    parser.add_number("--points", Annotated[int, Within(3, _MOST)], f"at most N examples [{_POINTS}]", default=_POINTS)
    parser.add_number("--seed", Seed, "of t-SNE [0]", default=0)
    add_memory(parser)
    options = parser.parse(arguments)
    if Path(options.out).suffix.lower() != ".png":
        raise InputError(f"-o {options.out} should end in .png")

    from unsup.core.storage import write_file
    from unsup.data.source import some_of
    from unsup.evaluate.probe import encode_all
    from unsup.evaluate.projection import project
    from unsup.pictures.maps import draw_map

    run = encoder_of(options)
    data = data_of(options, run)
    split = getattr(data, options.split)
    shown = split.take(some_of(len(split), options.points))
    with Stages() as display:
        codes = encode_all(run.model, shown, lambda done, total: display.show("encoding", done, total))
    found = project(codes, options.method, seed=options.seed)
    name, what = run.config["model"]["model"], Path(str(data.name if options.file is None else options.file)).name
    drawn = draw_map(
        found.points,
        f"codes of {name} on {what} ({options.split})",
        found.meaning,
        axes=found.axes,
        label=shown.label,
        names=data.labels or (),
    )
    write_file(options.out, drawn.enlarged().png)
    write(f"{len(codes):,} of {len(split):,} {options.split} examples in {options.out}", drawn.caption)
    return 0
