"""Files are collected in groups of one layout, and coded: the writer of archives.

Files with examples of the model are coded with it; all others are kept byte for byte. See `unsup.coding.archive`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast, final

import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.coding.arrays import header_of
from unsup.coding.chunks import ChunkCoder, plain_chunk
from unsup.coding.container import Chunk, Totals, write_container
from unsup.coding.layouts import IMAGES, Array, Bytes, Examples, Images, Layout, Rows, npy_head
from unsup.coding.records import MOST_FILES, checked_name, conflicts, packed_json, record_of
from unsup.coding.scheme import Profile
from unsup.coding.table_files import TABLES, Table
from unsup.coding.text_files import Text
from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.data.columns import TableForm
from unsup.data.form import Form
from unsup.data.text import BytesForm, TextForm

_BLOCK = 2**22  # bytes of files without examples per chunk
_MOST_CONTENT = 2**24  # bytes of image files that wait for the others of their chunk
Listener = Callable[[int], None]
"""Called with the number of bytes that were done since the last call."""


@dataclass(frozen=True)
class Source:
    """A file to compress.

    Attributes:
        name: its name in the archive, with ``/`` between folders.
        path: where it is; None for an array in memory.
        array: its examples ``(N, ...)``, if it is in memory; it is restored as an ``.npy`` file.
    """

    name: str
    path: Path | None = None
    array: NDArray[Any] | None = None

    def parts(self) -> Iterator[bytes]:
        """Its content.

        Raises:
            OSError: it cannot be read.
        """
        if self.path is None:
            assert self.array is not None
            yield npy_head(self.array.shape, self.array.dtype)
            yield self.array.tobytes()
            return
        with self.path.open("rb") as file:
            while part := file.read(_BLOCK):
                yield part

    @property
    def size(self) -> int:
        """Its size in bytes."""
        if self.path is not None:
            return self.path.stat().st_size
        assert self.array is not None
        return self.array.nbytes


@final
@dataclass
class Packed:
    """What was compressed.

    Attributes:
        files: number of files.
        size: their bytes.
        with_model: how many of them have examples of the model.
        why: for the other files, how many there are of each reason.
        ways: bytes of the chunks with data, by the name of the coder.
        otherwise: examples in chunks that are shorter with a general codec.
        totals: of the container.
    """

    files: int = 0
    size: int = 0
    with_model: int = 0
    why: dict[str, int] = field(default_factory=dict)
    ways: dict[str, int] = field(default_factory=dict)
    otherwise: int = 0
    totals: Totals | None = None


def sources_of(paths: Sequence[str | Path]) -> list[Source]:
    """The files at these paths; folders are searched to any depth.

    Names are relative to the folder if it is the only path, else they start with the name of the folder or file.

    Raises:
        InputError: a path that does not exist, a device, two files of one name, or no files.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = PurePosixPath("" if len(paths) == 1 else path.absolute().name)
            found += [Source(str(inside / file.relative_to(path).as_posix()), file) for file in _files(path)]
        elif path.is_file():
            found.append(Source(path.name, path))
        else:
            what = "is a device or a pipe" if path.exists() else "does not exist"
            raise InputError(f"{given} {what}; expected files or folders to compress")
    if not found:
        raise InputError(f"{', '.join(map(str, paths))}: no files; expected files or folders to compress")
    for source in found:
        checked_name(source.name, windows=False)
    for one, two in conflicts(source.name for source in found):
        names = found[one].name, found[two].name
        what = f"two files would have the name {names[0]!r}"
        if names[0] != names[1]:
            what = f"{names[0]!r} would be a file, and the folder of {names[1]!r}"
        raise InputError(f"{what}; compress their folder instead")
    return found


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename} ({error.strerror}); check its permissions") from error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(place) / name).is_file())


def write_archive(
    file: BinaryIO,
    model: Model,
    coder: ChunkCoder,
    sources: Iterable[Source],
    *,
    run: str = "",
    profile: Profile = "portable",
    form: Form | None = None,
    whole_files: bool = False,
    on_bytes: Listener | None = None,
    on_model: Callable[[Tensor], None] | None = None,
) -> Packed:
    """Compress files.

    Args:
        file: buffered file, open for writing.
        model: the model of ``coder``.
        coder: see `ChunkCoder`.
        sources: the files.
        run: where the model is, for `Archive`.
        profile: that of ``coder``.
        form: how the training data was written (`Data.form`), for tables and texts.
        whole_files: every file comes back byte for byte. Otherwise images are written again with the same pixels.
        on_bytes: see `Listener`.
        on_model: called with the examples that the model has coded.

    Raises:
        InputError: a file cannot be read, or has changed while it was read.
    """
    packing = _Packing(coder, form, whole_files, on_bytes or (lambda _: None), on_model or (lambda _: None))
    header = header_of(model, coder, {"kind": "files", "run": run, "whole_files": whole_files}, profile)
    packing.packed.totals = write_container(file, header, packing.chunks(sources))
    return packing.packed


@dataclass(frozen=True)
class _Waiting:
    """A file that waits for others of its layout."""

    name: str
    place: int
    content: bytes
    x: Tensor | None = None


class _Packing:
    """Collects files in groups."""

    def __init__(
        self,
        coder: ChunkCoder,
        form: Form | None,
        whole_files: bool,
        on_bytes: Listener,
        on_model: Callable[[Tensor], None],
    ) -> None:
        self.coder, self.form, self.whole_files = coder, form, whole_files
        self.on_bytes, self.on_model = on_bytes, on_model
        self.packed = Packed()
        self.waiting: dict[Layout, list[_Waiting]] = {}
        self.held: dict[Layout, int] = {}  # bytes of the files that wait
        self.copies: list[tuple[int, dict[str, Any]]] = []  # the records, and the numbers of their chunks
        self.number = 0

    def chunks(self, sources: Iterable[Source]) -> Iterator[Chunk]:
        for place, source in enumerate(sources):
            try:
                yield from self._add(place, source)
            except OSError as error:
                raise InputError(f"cannot read {source.path} ({error.strerror}); check its permissions") from error
        for layout in sorted(self.waiting, key=lambda layout: isinstance(layout, Bytes)):
            yield from self._flush(layout)
        yield from self._flush(Bytes())  # images that the model does not make smaller
        yield plain_chunk(packed_json({"copies": self.copies}))

    def _add(self, place: int, source: Source) -> Iterator[Chunk]:
        self.packed.files += 1
        self.packed.size += source.size
        event, path = self.coder.event, source.path
        if path is None:
            assert source.array is not None
            found = Array.of(source.array, event)
            if found is None:
                raise InputError(
                    f"{source.name} has shape {source.array.shape} and type {source.array.dtype}; expected (N, *event)"
                )
            yield from self._array(place, source, *found)
            return
        suffix = path.suffix.lower()
        if suffix == ".npy":
            found = Array.read(path, event)
            if found is not None:
                yield from self._array(place, source, *found)
                return
            yield from self._keep(place, source, "arrays of another shape or type")
        elif suffix in IMAGES and not self.whole_files:
            content = path.read_bytes()
            image = Images.read(content, suffix, event)
            if image is None:
                yield from self._keep(place, source, "images that the model does not fit")
                return
            self.packed.with_model += 1
            yield from self._wait(image[0], _Waiting(source.name, place, content, image[1]))
        elif suffix in TABLES and isinstance(self.form, TableForm):
            table = Table.read(path, event, self.form)
            if isinstance(table, str):
                yield from self._keep(place, source, table)
            else:
                yield from self._table(place, source, *table)
        elif isinstance(self.form, TextForm | BytesForm) and Text.takes(suffix, self.form):
            text = Text.read(path, event, self.form)
            if isinstance(text, str):
                yield from self._keep(place, source, text)
            else:
                yield from self._text(place, source, *text)
        else:
            yield from self._keep(place, source, f"{suffix or 'other'} files")

    def _keep(self, place: int, source: Source, reason: str) -> Iterator[Chunk]:
        """A file without examples."""
        assert source.path is not None
        self.packed.why[reason] = self.packed.why.get(reason, 0) + 1
        size = source.size
        if size <= _BLOCK:
            yield from self._wait(Bytes(), _Waiting(source.name, place, source.path.read_bytes()))
            return
        count = -(-size // _BLOCK)
        yield self._record(Bytes(), count, _BLOCK, [source.name], [place], [size])
        with source.path.open("rb") as file:
            left = size
            for _ in range(count):
                raw = file.read(min(_BLOCK, left))
                left -= len(raw)
                if not raw:
                    break
                yield self._data(plain_chunk(raw))
                self.on_bytes(len(raw))
        if left:
            raise InputError(f"{source.path} became shorter while it was read; compress it again")

    def _array(self, place: int, source: Source, layout: Array, x: NDArray[Any]) -> Iterator[Chunk]:
        self.packed.with_model += 1
        event = self.coder.event
        size = self.coder.count(event.shape, x.dtype.itemsize)
        starts = range(0, len(x), size)
        yield self._record(layout, len(starts), size, [source.name], [place], [len(x)])
        for start in starts:
            rows = layout.examples(x[start : start + size], event)
            yield self._data(self.coder.encode(rows), rows)
            self.on_bytes(rows.numel() * rows.element_size())

    def _table(self, place: int, source: Source, layout: Table, x: Tensor, texts: list[list[str]]) -> Iterator[Chunk]:
        def side(start: int, stop: int) -> bytes:
            return layout.side(x[start:stop], [text[start:stop] for text in texts])

        yield from self._with_sides(place, source, layout, x, side, "tables that are smaller as they are")

    def _text(
        self, place: int, source: Source, layout: Text, x: Tensor, odd: dict[int, str], rest: bytes
    ) -> Iterator[Chunk]:
        length = x.shape[1]

        def side(start: int, stop: int) -> bytes:
            inside = range(start * length, stop * length)
            own = {at - inside.start: character for at, character in odd.items() if at in inside}
            return layout.side(own, rest if stop == len(x) else b"")

        yield from self._with_sides(place, source, layout, x, side, "texts that are smaller as they are")

    def _with_sides(
        self, place: int, source: Source, layout: Rows, x: Tensor, side: Callable[[int, int], bytes], reason: str
    ) -> Iterator[Chunk]:
        """The rows of a file, and after those of each chunk what they have besides; or the file as it is, if smaller.

        Args:
            side: the same for the rows from a start to a stop.
            reason: for the files that are smaller as they are.
        """
        size, done = self.coder.count(tuple(x.shape[1:]), x.element_size()), 0
        chunks: list[tuple[Chunk, Tensor | None]] = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            chunks += [(self.coder.encode(part), part), (plain_chunk(side(start, start + len(part))), None)]
            share = source.size * (start + len(part)) // len(x)
            self.on_bytes(share - done)
            done = share
        assert source.path is not None
        content = source.path.read_bytes()
        plain = sum(len(plain_chunk(content[at : at + _BLOCK]).coded) for at in range(0, len(content), _BLOCK))
        if sum(len(chunk.coded) for chunk, _ in chunks) >= plain:
            self.on_bytes(-done)
            yield from self._keep(place, source, reason)
            return
        self.packed.with_model += 1
        yield self._record(layout, len(chunks), size, [source.name], [place], [len(x)])
        for chunk, rows in chunks:
            yield self._data(chunk, rows)

    def _data(self, chunk: Chunk, x: Tensor | None = None) -> Chunk:
        """A chunk with data, of these examples, that is written."""
        name = str(self.coder.coders[chunk.coder]["name"])
        self.packed.ways[name] = self.packed.ways.get(name, 0) + len(chunk.coded)
        if x is not None and len(own := self.coder.of_model(chunk, x)):
            self.on_model(own)
        elif x is not None:
            self.packed.otherwise += len(x)
        return chunk

    def _record(
        self,
        layout: Layout,
        chunks: int,
        block: int,
        names: Sequence[str],
        places: Sequence[int],
        sizes: Sequence[int] | None = None,
    ) -> Chunk:
        """The chunk with the record of a group, to which ``chunks`` chunks of data belong."""
        record = record_of(layout, chunks, block, names, places, sizes)
        self.copies.append((self.number, record))
        self.number += 1 + chunks
        return plain_chunk(packed_json(record))

    def _wait(self, layout: Layout, file: _Waiting) -> Iterator[Chunk]:
        files = self.waiting.setdefault(layout, [])
        files.append(file)
        content = self.held[layout] = self.held.get(layout, 0) + len(file.content)
        if isinstance(layout, Examples):
            most = self.coder.count(self.coder.event.shape, layout.dtype.itemsize)
            full = len(files) >= most or content >= _MOST_CONTENT
        else:
            full = len(files) >= MOST_FILES or content >= _BLOCK
        if full:
            yield from self._flush(layout)

    def _flush(self, layout: Layout) -> Iterator[Chunk]:
        files = self.waiting.pop(layout, [])
        self.held.pop(layout, None)
        if not files:
            return
        content = b"".join(file.content for file in files)
        names, places = [file.name for file in files], [file.place for file in files]
        if isinstance(layout, Examples):
            x = torch.stack([cast(Tensor, file.x) for file in files])
            chunk = self.coder.encode(x)
            if len(chunk.coded) < len(content):
                yield self._record(layout, 1, len(files), names, places)
                yield self._data(chunk, x)
                self.on_bytes(len(content))
                return
            self.packed.with_model -= len(files)
            reason = "images that are smaller as they are"
            self.packed.why[reason] = self.packed.why.get(reason, 0) + len(files)
            for file in files:
                yield from self._wait(Bytes(), file)
            return
        blocks = [content[start : start + _BLOCK] for start in range(0, len(content), _BLOCK)]
        yield self._record(layout, len(blocks), _BLOCK, names, places, [len(file.content) for file in files])
        for raw in blocks:
            yield self._data(plain_chunk(raw))
            self.on_bytes(len(raw))
