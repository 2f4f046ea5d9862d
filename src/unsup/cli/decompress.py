"""``unsup decompress FILE -o FOLDER``: restore compressed files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unsup.cli.compress import shown_bytes
from unsup.cli.options import Parser, add_memory
from unsup.cli.show import write, write_error
from unsup.core.errors import InputError
from unsup.core.words import counted

if TYPE_CHECKING:
    from unsup.coding.archive import Archive
    from unsup.coding.chunks import ChunkCoder

_RANGE = re.compile(r"(\d{0,18}):(\d{0,18})|(\d{1,18})", re.ASCII)
_SHOWN = 20
_SPARE = 3  # further examples in each batch, so that a check has other batches than the encoder


def main(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog="unsup decompress",
        description="Restore the files of a compressed file.",
        epilog="unsup compress --info FILE lists the files and the numbers of their items.",
    )
    parser.add_argument("file", metavar="FILE", help="a file of unsup compress")
    parser.add_out("the folder for the files", metavar="FOLDER", folder=True)
    parser.add_argument("--run", metavar="RUN", help="the run that compressed the file, if it has moved")
    parser.add_argument("--only", metavar="A:B", help="items to restore, counted from 0: 3:10, or 3")
    parser.add_argument("--keep-going", action="store_true", help="restore what is not damaged")
    parser.add_argument("--check", action="store_true", help="decode and compare everything, and write nothing")
    parser.add_argument("--json", action="store_true", help="with --check: write the digests of all files as JSON")
    add_memory(parser)
    options = parser.parse(arguments)
    if options.json and not options.check:
        raise InputError("--json is for --check: it writes the digests of all files")
    if options.check == (options.out is not None):
        raise InputError("expected either the folder for the files, -o FOLDER, or --check")

    from unsup.coding.archive import Archive
    from unsup.coding.container import Container
    from unsup.core.targets import folder_target

    with Container.open(options.file, salvage=options.keep_going) as container:
        archive = Archive(container, keep_going=options.keep_going)
        only = None if options.only is None else _range(options.only, archive.items)
        coder = _coder(archive, options.file, options.run) if archive.needs_model else None
        with shown_bytes(container.totals.raw_size, "checking" if options.check else "restoring") as on_bytes:
            if options.check:
                if coder is not None and container.header["profile"] == "portable":
                    coder.scheme.spare = _SPARE
                digests = archive.digests(coder, on_bytes)
                written: list[str] = []
            else:
                written = archive.restore(folder_target(options.out), coder, only=only, on_bytes=on_bytes)
        damage = container.damage
    if options.check and options.json:
        record = {"file": options.file, "digests": digests, "lost": [list(lost.names) for lost in archive.lost]}
        write(json.dumps(record))  # in ASCII, so that the terminal changes no name
    elif options.check and not archive.lost:
        write(f"{options.file} is intact: {counted(archive.items, 'item')} decoded")
    elif not options.check:
        write(f"{counted(len(written), 'file')} of {options.file} in {options.out}")
    for lost in archive.lost[:_SHOWN]:
        names = ", ".join(lost.names[:3]) + (f" and {len(lost.names) - 3} more" if len(lost.names) > 3 else "")
        write_error(f"unsup: lost {names or 'a group of files'}: {lost.error}")
    if archive.lost or damage is not None:
        count = sum(max(1, len(lost.names)) for lost in archive.lost)
        cut = "; files after the damage may be missing without a name here" if damage is not None else ""
        write_error(f"unsup: {options.file} is damaged" + (f"; {counted(count, 'file')} lost" if count else "") + cut)
        return 1
    return 0


def _coder(archive: Archive, file: str, given: str | None) -> ChunkCoder:
    """The coder with the model of a run."""
    from unsup.coding.errors import UnknownModel
    from unsup.train.runs import Run, open_model

    if given is not None:
        return archive.coder(open_model(given).model)
    places = [Path(archive.run), Path(file).parent / archive.run] if archive.run else []
    for place in places:
        if Run(place).exists:
            return archive.coder(open_model(place).model)
    own = archive.container.header.get("model", {"name": "unknown", "hash": ""})
    raise UnknownModel(file, f"{own['name']} {own['hash'][:12]} of {archive.run or 'a run'}", None)


def _range(text: str, items: int) -> range:
    """The items ``3:10``, ``3:``, ``:10`` or ``3``."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise InputError(f"--only {text}: expected items like 3:10, counted from 0")
    start = int(found[3] or found[1] or 0)
    stop = start + 1 if found[3] else int(found[2]) if found[2] else items
    if not start < stop <= items:
        raise InputError(f"--only {text}: the file has items 0 to {items - 1}; expected some of them")
    return range(start, stop)
