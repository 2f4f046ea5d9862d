"""Files as one compressed file, and back.

Files are coded in groups, one after the other. A group is a chunk with a record (names, layout, numbers of examples)
and the chunks with the data. Every group can be read without the others, and the last chunk has copies of all records,
so that damage loses only the files that it hits. `unsup.coding.packing` writes archives; this module reads them.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from torch import Tensor

from unsup.coding.arrays import coder_of
from unsup.coding.chunks import ChunkCoder, check_general, plain_decoded
from unsup.coding.container import ChunkInfo, Container
from unsup.coding.errors import CodingError, CorruptChunk, one_line
from unsup.coding.layouts import Examples, Images, Rows
from unsup.coding.packing import Listener
from unsup.coding.records import LONGEST, Group, conflicts, group_of, memory_of
from unsup.core import memory
from unsup.core.config import shown
from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.core.reading import parse_json
from unsup.data.pixels import decode, quiet

_SHOWN = 400  # characters of a reason
_BYTES_A_BYTE = 48  # of memory, for JSON
Write = Callable[[Path, Iterable[bytes], bool], None]
"""Takes the name of a file, its content, and whether it is an image that is written again."""


@final
@dataclass(frozen=True)
class Lost:
    """Files, or parts of them, that could not be restored, and why."""

    names: tuple[str, ...]
    error: CodingError


def is_archive(container: Container) -> bool:
    """Whether a compressed file has files, not the examples of `unsup.coding.compress`."""
    return container.header["items"].get("kind") == "files"


@final
class Archive:
    """A compressed file of files, open for reading.

    Args:
        container: the file.
        keep_going: skip groups that are damaged; they are in `lost`.

    Attributes:
        groups: the files.
        lost: what cannot be restored.

    Raises:
        CodingError: the file is damaged, or has no files.
    """

    def __init__(self, container: Container, *, keep_going: bool = False) -> None:
        self.container, self.keep_going = container, keep_going
        self.lost: list[Lost] = []
        items = container.header["items"]
        if not is_archive(container):
            raise CodingError(
                f"{container.name} has {shown(items.get('kind'))} instead of files; decode it with "
                "unsup.coding.decompress(model, data)"
            )
        check_general(container)
        run = items.get("run")
        self.run = run if isinstance(run, str) and "\0" not in run and len(run) <= LONGEST else ""
        self._memory = 0  # that the names take
        self.groups = self._without_conflicts(self._groups())

    def _groups(self) -> list[Group]:
        found: list[Group] = []
        number, last, losing = 0, self.container.chunks - 1, False
        while number <= last:
            try:
                group = self._group(number, last)
            except CodingError as error:
                if not self.keep_going:
                    raise
                if not losing:  # the chunks after a lost record may be of its group
                    self.lost.append(Lost((), error))
                number, losing = number + 1, True
                continue
            if group is None:
                return found
            losing = False
            found.append(group)
            number = group.first + group.chunks
        if not self.keep_going:
            raise CorruptChunk(self.container.name, max(0, last), "it has no copies of the records")
        return found

    def _group(self, number: int, last: int) -> Group | None:
        """The group whose record is in a chunk; None for the copies of the records."""
        try:
            record = self._record(number)
            if "copies" in record and number == last:
                return None
            return self._group_of(number, record)
        except CodingError:
            if not self.keep_going or number not in self._copies:
                raise
        return self._group_of(number, self._copies[number])

    def _record(self, number: int) -> dict[str, Any]:
        """The record in a chunk."""
        name = self.container.name
        try:
            record = parse_json(self.plain(number, is_json=True).decode("utf-8", "replace"))
        except InputError as error:
            if isinstance(error, CodingError):
                raise
            raise CorruptChunk(name, number, f"its record is not valid: {one_line(str(error), _SHOWN)}") from error
        if not isinstance(record, dict):
            raise CorruptChunk(name, number, "it has no record")
        return record

    @functools.cached_property
    def _copies(self) -> dict[int, dict[str, Any]]:
        """Copies of the records in the last chunk, by the numbers of their chunks; empty if it is damaged too."""
        try:
            copies = self._record(self.container.chunks - 1).get("copies")
        except CodingError:
            return {}
        pairs = [pair for pair in copies if isinstance(pair, list)] if isinstance(copies, list) else []
        return {k[0]: k[1] for k in pairs if len(k) == 2 and isinstance(k[0], int) and isinstance(k[1], dict)}

    def _group_of(self, number: int, record: dict[str, Any]) -> Group:
        container = self.container
        try:
            self._memory += memory_of(record)
            if self._memory > memory.limit():
                raise CodingError(
                    f"{container.name} has names of files that take more than the {memory.said(memory.limit())} of "
                    "memory available; free memory, or raise --max-memory"
                )
            group = group_of(record, number + 1)
            if number + group.chunks >= container.chunks and not self.keep_going:
                raise InputError(f"{group.chunks} chunks from {number + 1} on, of {container.chunks} in the file")
        except InputError as error:
            if isinstance(error, CodingError):
                raise
            raise CorruptChunk(
                container.name, number, f"its record is not valid: {one_line(str(error), _SHOWN)}"
            ) from error
        return group

    def _without_conflicts(self, groups: list[Group]) -> list[Group]:
        """The groups, if the names and numbers of their files are not those of others."""
        owners = [index for index, group in enumerate(groups) for _ in group.names]
        names = [name for group in groups for name in group.names]
        order = sorted((place, k) for k, place in enumerate(place for group in groups for place in group.places))
        bad: dict[int, CodingError] = {}
        for reason, pairs in (
            ("has a file or folder with the name of another file", conflicts(names)),
            (
                "has a file with the number of another",
                ((a, b) for (p, a), (q, b) in itertools.pairwise(order) if p == q),
            ),
        ):
            for pair in pairs:
                for k in pair:
                    number = groups[owners[k]].first - 1
                    error = CorruptChunk(self.container.name, number, f"its record {reason}: {one_line(names[k])}")
                    if not self.keep_going:
                        raise error
                    bad.setdefault(owners[k], error)
        if not self.keep_going and order and order[-1][0] != len(order) - 1:
            raise CodingError(f"{self.container.name} has {len(order)} files, and one with the number {order[-1][0]}")
        self.lost += [Lost(groups[index].names, error) for index, error in sorted(bad.items())]
        return [group for index, group in enumerate(groups) if index not in bad]

    @property
    def files(self) -> list[tuple[int, str, int]]:
        """Number, name and number of items of every file, in the order in which they were given."""
        return sorted(
            (place, name, items)
            for group in self.groups
            for place, name, items in zip(group.places, group.names, group.items, strict=True)
        )

    @property
    def items(self) -> int:
        """The number of items of all files."""
        return sum(items for _, _, items in self.files)

    def firsts(self) -> dict[int, int]:
        """The number of the first item of each file, by the number of the file."""
        found, first = {}, 0
        for place, _, items in self.files:
            found[place] = first
            first += items
        return found

    @property
    def records(self) -> set[int]:
        """The numbers of the chunks with records: those without data."""
        data = (number for group in self.groups for number in range(group.first, group.first + group.chunks))
        return set(range(self.container.chunks)).difference(data)

    @property
    def needs_model(self) -> bool:
        """Whether any file has examples."""
        return any(isinstance(group.layout, Examples) for group in self.groups)

    def coder(self, model: Model) -> ChunkCoder:
        """The coder of the files.

        Raises:
            CodingError: another model, or another environment.
        """
        return coder_of(model, self.container)

    def restore(
        self, out: Path, coder: ChunkCoder | None, *, only: range | None = None, on_bytes: Listener | None = None
    ) -> list[str]:
        """Write the files to a folder, and return their names.

        Args:
            out: the folder; it is created.
            coder: see `coder`.
            only: numbers of the items to restore; arrays then have these rows.
            on_bytes: see `Listener`.

        Raises:
            InputError: a file exists, or cannot be written, or a link in the folder leads out of it.
            CodingError: a chunk is damaged, unless ``keep_going``.
        """
        wanted = only if only is not None else range(self.items)
        firsts = self.firsts()
        tasks = []
        for group in self.groups:
            own = []
            for index, (place, items) in enumerate(zip(group.places, group.items, strict=True)):
                rows = _within(wanted, firsts[place], items)
                if len(rows) or (not items and only is None):
                    own.append((index, rows))
            if own:
                tasks.append((group, own))
        _check_targets(out, [group.names[index] for group, own in tasks for index, _ in own])
        done: list[Path] = []

        def write(path: Path, parts: Iterable[bytes], is_image: bool) -> None:
            _write(path, parts, is_image)
            done.append(path)

        files = _Files(self, out, coder, write, on_bytes)
        try:
            return [name for group, own in tasks for name in files.of(group, own)]
        except CodingError:  # all or nothing, unless the caller keeps going
            for path in done:
                path.unlink(missing_ok=True)
            raise

    def digests(self, coder: ChunkCoder | None, on_bytes: Listener | None = None) -> dict[str, tuple[str, str]]:
        """What would be restored, without writing it: `digest_of` of each file.

        Raises:
            CodingError: a chunk is damaged, or is decoded to something else here, unless ``keep_going``.
        """
        found: dict[str, tuple[str, str]] = {}

        def note(path: Path, parts: Iterable[bytes], is_image: bool) -> None:
            found[path.as_posix()] = digest_of(parts, is_image=is_image)

        files = _Files(self, Path(), coder, note, on_bytes)
        for group in self.groups:
            files.of(group, [(index, range(items)) for index, items in enumerate(group.items)])
        if not self.keep_going:
            self._record(self.container.chunks - 1)
        return found

    def _info(self, number: int) -> ChunkInfo:
        if not 0 <= number < self.container.chunks:  # the end of the file is missing
            raise CorruptChunk(self.container.name, number, "it is missing")
        return self.container.info(number)

    def plain(self, number: int, size: int | None = None, *, is_json: bool = False) -> bytes:
        """The bytes of a chunk without items, which must be ``size``."""
        info = self._info(number)
        if is_json and _BYTES_A_BYTE * info.raw_size > memory.limit():
            raise CodingError(
                f"{self.container.name}: chunk {number} has {memory.said(info.raw_size)} of names or cells, too much "
                f"for the {memory.said(memory.limit())} of memory available; free memory, or raise --max-memory"
            )
        if size is not None and info.raw_size != size:
            raise CorruptChunk(self.container.name, number, f"it has {info.raw_size:,} bytes, expected {size:,}")
        return plain_decoded(self.container, number)

    def examples(self, group: Group, index: int, coder: ChunkCoder | None) -> Tensor:
        """The examples of a part of a group."""
        assert isinstance(group.layout, Examples)
        assert coder is not None
        number, name = group.first + group.step * index, self.container.name
        count = self._info(number).count
        if count != group.size(index):
            raise CorruptChunk(name, number, f"it has {count:,} examples, expected {group.size(index):,}")
        try:
            group.layout.check(coder.event)
        except InputError as error:
            raise CorruptChunk(
                name, group.first - 1, f"its record is not valid: {one_line(str(error), _SHOWN)}"
            ) from error
        return coder.decode(self.container, number, coder.event.shape, group.layout.dtype)

    def lose(self, names: tuple[str, ...], error: CodingError) -> None:
        """Note what cannot be restored, or raise the reason unless ``keep_going``."""
        if not self.keep_going:
            raise error
        self.lost.append(Lost(names, error))


@final
class _Files:
    """Restores files of an archive.

    Args:
        archive: the archive.
        out: the folder.
        coder: see `Archive.coder`.
        write: takes the files.
        on_bytes: see `Listener`.
    """

    def __init__(
        self, archive: Archive, out: Path, coder: ChunkCoder | None, write: Write, on_bytes: Listener | None
    ) -> None:
        self.archive, self.out, self.coder, self.write = archive, out, coder, write
        self.on_bytes = on_bytes or (lambda _: None)

    def of(self, group: Group, own: list[tuple[int, range]]) -> list[str]:
        """Write files of a group, by their numbers in it and their rows, and return their names."""
        if isinstance(group.layout, Images):
            return self._images(group, own)
        if isinstance(group.layout, Rows):
            return self._rows(group, own)
        return self._bytes(group, own)

    def _images(self, group: Group, own: list[tuple[int, range]]) -> list[str]:
        assert isinstance(group.layout, Images)
        names = tuple(group.names[index] for index, _ in own)
        try:
            x = self.archive.examples(group, 0, self.coder)
        except CodingError as error:
            self.archive.lose(names, error)
            return []
        for index, _ in own:
            self.write(self.out / group.names[index], [group.layout.file(x[index])], True)
            self.on_bytes(x[index].numel() * x.element_size())
        return list(names)

    def _rows(self, group: Group, own: list[tuple[int, range]]) -> list[str]:
        layout, (index, rows) = group.layout, own[0]
        assert isinstance(layout, Rows)
        assert self.coder is not None
        event = self.coder.event
        name, total, size = group.names[index], group.sizes[index], group.block

        def content(wanted: range) -> Iterator[bytes]:
            yield layout.start(len(wanted), total, event)
            for number in range(wanted.start // size, -(-wanted.stop // size)):
                x = self.archive.examples(group, number, self.coder)
                after = group.first + group.step * number + 1
                side = self.archive.plain(after, is_json=True) if layout.has_side else b""
                inside = _within(wanted, number * size, len(x))
                try:
                    yield layout.rows(x, side, inside, last=number * size + inside.stop == total)
                except InputError as error:
                    raise CorruptChunk(self.archive.container.name, after, one_line(str(error), _SHOWN)) from error
                self.on_bytes(x.numel() * x.element_size())

        try:
            self.write(self.out / name, content(rows), False)
        except CodingError as error:
            if not self.archive.keep_going:
                raise
            reason = error
        else:
            return [name]
        found, missing = [], []
        path = PurePosixPath(name)
        for start in range(rows.start - rows.start % size, rows.stop, size):
            part = range(max(rows.start, start), min(rows.stop, start + size))
            own_name = str(path.with_name(f"{path.stem}.rows-{part.start}-{part.stop}{path.suffix}"))
            try:
                self.write(self.out / own_name, content(part), False)
            except CodingError:
                missing.append(f"{name} rows {part.start} to {part.stop - 1}")
            else:
                found.append(own_name)
        self.archive.lose(tuple(missing), reason)
        return found

    def _bytes(self, group: Group, own: list[tuple[int, range]]) -> list[str]:
        starts = [0, *itertools.accumulate(group.sizes)]
        kept: tuple[int, bytes] | None = None

        def block(number: int) -> bytes:
            nonlocal kept
            if kept is None or kept[0] != number:
                kept = number, self.archive.plain(group.first + number, group.size(number))
                self.on_bytes(len(kept[1]))
            return kept[1]

        def content(start: int, stop: int) -> Iterator[bytes]:
            last = -(-stop // group.block) if stop > start else 0
            for number in range(start // group.block, last):
                raw, at = block(number), number * group.block
                yield raw[max(0, start - at) : max(0, stop - at)]

        written = []
        for index, _ in own:
            name, (start, stop) = group.names[index], starts[index : index + 2]
            try:
                self.write(self.out / name, content(start, stop), False)
            except CodingError as error:
                self.archive.lose((name,), error)
            else:
                written.append(name)
        return written


def _check_targets(out: Path, names: Iterable[str]) -> None:
    """Raises InputError if one of the files exists, or would be written outside the folder."""
    root, checked = os.path.realpath(out), set[Path]()
    for name in names:
        target = out / name
        if os.path.lexists(target):
            raise _there(target)
        if target.parent not in checked:
            checked.add(target.parent)
            place = os.path.realpath(target.parent)
            if not Path(place).is_relative_to(root):
                raise InputError(
                    f"{one_line(str(target.parent))} leads out of {out} to {one_line(place)} by a link; choose another "
                    "folder (-o FOLDER)"
                )


def _there(path: Path) -> InputError:
    return InputError(f"{one_line(str(path))} exists; choose another folder (-o FOLDER), or move it away")


def _within(wanted: range, first: int, count: int) -> range:
    """The part of ``wanted`` in the items from ``first`` on, counted from there."""
    start, stop = max(wanted.start - first, 0), min(wanted.stop - first, count)
    return range(start, max(start, stop))


def digest_of(parts: Iterable[bytes], *, is_image: bool) -> tuple[str, str]:
    """``("bytes", digest)`` of the content of a file, or ``("pixels", digest)`` of an image."""
    if is_image:
        with quiet():
            pixels = decode(b"".join(parts)).pixels
        content = [f"{pixels.shape} {pixels.dtype}".encode(), pixels.tobytes()]
    found = hashlib.blake2b(digest_size=16)
    for part in content if is_image else parts:
        found.update(part)
    return ("pixels" if is_image else "bytes"), found.hexdigest()


def _write(path: Path, parts: Iterable[bytes], is_image: bool) -> None:
    """Write a new file completely or not at all."""
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if not path.parent.is_dir():
            for folder in (*reversed(path.parent.parents), path.parent):
                folder.mkdir(exist_ok=True)
        file = temporary.open("xb")
        try:
            with file:
                for part in parts:
                    file.write(part)
            if os.path.lexists(path):  # where a and A are one name
                raise _there(path)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(
            f"cannot write {one_line(str(path))} ({error.strerror}); choose another folder (-o FOLDER)"
        ) from error
