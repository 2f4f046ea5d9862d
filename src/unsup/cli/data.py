"""``unsup data``: list all data sets, or describe one."""

from __future__ import annotations

from collections.abc import Sequence

from unsup.cli.options import DATA_OPTIONS, Parser, add_data, add_memory, chosen
from unsup.cli.show import table, write, write_json


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup data", description="List all data sets, or describe one.")
    parser.add_argument("what", metavar="NAME_OR_PATH", nargs="?", help="a data set's name or a path")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    if not [a for a in arguments if not a.startswith("-")] and not {"-h", "--help"} & set(arguments):
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

    from unsup.core.registry import fitting

    write(f"models that support it: {', '.join(fitting(data.event))}")
    return 0


def _list(as_json: bool) -> int:
    from unsup.data.catalog import CATALOG

    if as_json:
        write_json([{"name": e.name, "summary": e.summary, "source": e.source} for e in CATALOG.values()])
        return 0
    write(*table(("data", "description", "source"), [(e.name, e.summary, e.source) for e in CATALOG.values()]))
    write("or a path: a folder of images, .npy/.npz, .csv/.parquet, text or other bytes, a folder of .wav files")
    return 0
