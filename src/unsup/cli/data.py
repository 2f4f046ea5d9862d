"""``unsup data``: list all data sets, or describe one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unsup.cli.options import DATA_OPTIONS, Parser, add_data, add_memory, chosen
from unsup.cli.show import table, write, write_json

if TYPE_CHECKING:
    from unsup.data import Data

_WORDS = 4  # that are shown of a column
_COLUMNS = 50


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup data", description="List all data sets, or describe one.")
    parser.add_argument("what", metavar="NAME_OR_PATH", nargs="?", help="a data set's name or a path")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    named = [a for a in arguments if not a.startswith("-")] or "--" in arguments[:-1]
    if not named and not {"-h", "--help"} & set(arguments):
        options = parser.parse(arguments)
        return _list(options.json)

    from unsup.data import load_data

    add_data(parser, arguments)
    parser.add_argument("--download", action="store_true", help="download a standard set once and verify its checksum")
    add_memory(parser)
    options = parser.parse(arguments)
    reading = chosen(options, DATA_OPTIONS) | ({"download": True} if options.download else {})
    data = load_data(options.what, **reading)
    if options.json:
        write_json(data.to_json())
        return 0
    write(data.describe())
    for note in data.notes:
        write(note)
    if data.form is not None and data.form.name == "table":
        series = "length" in reading  # each row once, since windows overlap
        alone = {k: v for k, v in reading.items() if k != "limit"} | {"length": 1, "stride": 1}
        rows = _columns(load_data(options.what, **alone) if series else data)
        write("", *table(("column", "kind", "range", "missing", "example"), rows[:_COLUMNS]))
        write(*[f"… and {len(rows) - _COLUMNS:,} more columns"] * (len(rows) > _COLUMNS), "")

    from unsup.core.registry import fitting

    write(f"models that support it: {', '.join(fitting(data.event))}")
    return 0


def _columns(data: Data) -> list[tuple[str, ...]]:
    """The columns of a table: name, kind, range of the values or most of the words, missing cells, an example."""
    import torch

    from unsup.data.columns import TableForm

    assert isinstance(data.form, TableForm)
    x = torch.cat([data.train.x, data.validation.x, data.test.x]).reshape(-1, len(data.form.columns))
    rows: list[tuple[str, ...]] = []
    for d, column in enumerate(data.form.columns):
        values = x[:, d].numpy()
        support = data.event.columns[d] if not data.form.window else data.event.columns[0]
        known = values[values == values]
        if column.words:
            shown = ", ".join(column.words[:_WORDS]) + (", …" if len(column.words) > _WORDS else "")
        else:
            ends = [known.argmin(), known.argmax()] if len(known) else []
            shown = " … ".join(dict.fromkeys(column.text(known[ends], support)))
        example = "".join(column.text(known[:1], support))
        rows.append((column.name, column.described(), shown, f"{len(values) - len(known):,}", example))
    return rows


def _list(as_json: bool) -> int:
    from unsup.data.catalog import CATALOG

    if as_json:
        write_json([{"name": e.name, "summary": e.summary, "source": e.source} for e in CATALOG.values()])
        return 0
    write(*table(("data", "description", "source"), [(e.name, e.summary, e.source) for e in CATALOG.values()]))
    write("or a path: images, sound, text (files or folders of them), .csv/.parquet, .npy/.npz, JSON lines")
    return 0
