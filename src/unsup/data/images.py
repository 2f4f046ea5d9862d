"""A folder of images, or one file: PNG, JPEG, WebP, BMP, GIF or TIFF; each frame or page is an example."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Examples, listing
from unsup.data.folders import Listed, has_suffix, listed, skipped
from unsup.data.hashing import bytes_hash
from unsup.data.pixels import BROKEN, Alpha, Picture, Pixels, count_frames, decode, form_of, quiet, support_of, widened
from unsup.data.precision import precise, some_rows

__all__ = ["SUFFIXES", "count_frames", "read_file", "read_folder"]

_TIFF = (".tif", ".tiff")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", *_TIFF)
_KINDS = "PNG, JPEG, WebP, BMP, GIF or TIFF"
_LARGE = 10**7  # bytes of a file that are checked before it is read
_MEND = "use a smaller size with --resize N (resize=N), or fewer images"
_MOST_THREADS = 8
_SMALL = 2**17  # bytes of a decoded image below which threads wait for each other more than they decode
_AT_ONCE = 32  # files that a thread reads before it takes others
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _File:
    """What is known of one file.

    Attributes:
        size: ``(C, H, W)``, and the type of the pixels.
        frames: number of frames.
        pixels: the frames ``(F, C, H, W)``, unless they are where they belong, or of no use.
        hashes: a hash of the file, or of each of its frames if there are several.
    """

    size: tuple[int, int, int]
    depth: np.dtype[Any]
    frames: int
    pixels: Pixels | None
    hashes: tuple[int, ...]
    transparent: bool
    turned: bool


def read_folder(
    path: Path, *, resize: int | None = None, alpha: Literal["drop", "keep", "white", "black"] = "drop"
) -> Examples:
    """All images of a folder, or of its subfolders (one level), whose names are then the labels.

    Grey images give (1, H, W); if at least one image has colour, all give (3, H, W). Pixels of 8 and 16 bits are
    levels, others are real. Every frame of an animation and every page of a TIFF is an example. Files that cannot be
    decoded completely are skipped and listed in the notes.

    Args:
        resize: side in pixels of the images after scaling and central cropping to a square.
        alpha: transparency of images: drop it, keep it as a fourth channel, or put a white or black background
            behind it.

    Raises:
        InputError: no images, mixed sizes or depths, or more than half of the images unreadable.
    """
    _check_side(resize)
    found = listed(path, SUFFIXES, "images", _KINDS)
    if resize is not None:
        _check_fits(resize**2 * len(found.files), np.dtype(np.uint8), path)
    with quiet():
        place, files = _decoded(found, path, resize, alpha)
    bad = [f"{found.names[i]} ({file})" for i, file in enumerate(files) if isinstance(file, str)]
    notes = [*found.notes, *skipped(bad, len(files), path, "images", "replace or remove them")]
    for what in bad:
        _log.warning("skipped %s in %s", what, path)
    good = [(i, file) for i, file in enumerate(files) if isinstance(file, _File)]
    _check_alike([(found.names[i], file) for i, file in good], path)
    x = _joined(place, [(i, file) for i, file in good])
    rows = [(found.names[i], file) for i, file in good]
    label = [found.label[i] for i, file in good for _ in range(file.frames)] if found.labels else None
    examples = _examples(x, rows, path, alpha, tiff=all(has_suffix(found.files[i], _TIFF) for i, _ in good))
    return replace(
        examples,
        label=None if label is None else torch.tensor(label),
        labels=found.labels or None,
        notes=(*notes, *examples.notes),
    )


def read_file(
    path: Path, *, resize: int | None = None, alpha: Literal["drop", "keep", "white", "black"] = "drop"
) -> Examples:
    """One image as one example, or the frames of an animation, or the pages of a TIFF.

    Args:
        resize: as for a folder.
        alpha: as for a folder.
    """
    _check_side(resize)
    with quiet():
        file = _read(path, resize, alpha)
    if isinstance(file, str):
        raise InputError(f"{path} cannot be read ({file}); replace it")
    assert file.pixels is not None
    return _examples(file.pixels, [(path.name, file)], path, alpha, tiff=has_suffix(path, _TIFF))


def _examples(x: Pixels, rows: Sequence[tuple[str, _File]], path: Path, alpha: Alpha, *, tiff: bool) -> Examples:
    """Examples of images ``(N, C, H, W)``, of these files."""
    event = Event(x.shape[1:], support_of(x.dtype))
    form = form_of(x.dtype, tiff=tiff)
    if event.is_real and x.dtype != np.float32:
        x = x.astype(np.float64, copy=False)
        event = precise(event, x.reshape(len(x), -1)[some_rows(len(x), event.dims)].reshape(-1, 1))
    several = [name for name, file in rows if file.frames > 1]
    notes = []
    transparent = sum(file.transparent for _, file in rows)
    if transparent and alpha == "drop":
        notes.append(f"dropped the transparency of {transparent} image{'s' * (transparent != 1)}")
    turned = sum(file.turned for _, file in rows)
    if turned:
        notes.append(f"turned {turned} image{'s' * (turned != 1)} upright, as the files say (EXIF)")
    if several and len(rows) > 1:
        notes.append(
            f"{len(several)} file{'s have' if len(several) != 1 else ' has'} several frames; each frame is an example, "
            f"and frames of one file may be in different splits: {listing(several)}"
        )
    names = tuple(
        name if file.frames == 1 else f"{name} frame {frame}" for name, file in rows for frame in range(file.frames)
    )
    x = x.astype(np.int64) if event.is_discrete and x.dtype != np.uint8 else np.ascontiguousarray(x)
    return Examples(
        torch.from_numpy(x),
        event,
        names,
        notes=tuple(notes),
        split="by a hash of each file" if not several else "by a hash of each file or frame",
        hashes=np.array([value for _, file in rows for value in file.hashes], np.uint64),
        files=True,
        form=form,
    )


def _decoded(found: Listed, path: Path, resize: int | None, alpha: Alpha) -> tuple[Pixels | None, list[_File | str]]:
    """Every file, or why it cannot be read, and the array ``(files, C, H, W)`` with the images like the first good one.

    Threads decode the files and write into the array, so that nothing is held twice.
    """
    files: list[_File | str] = []
    first: _File | None = None
    for file in found.files:  # until one can be read
        read = _read(file, resize, alpha)
        files.append(read)
        if isinstance(read, _File):
            first = read
            break
    if first is None or len(files) == len(found.files):
        return None, files
    place: Pixels | None = None
    if first.frames == 1:
        shape = (len(found.files), *first.size)
        _check_fits(int(np.prod(shape)) * first.depth.itemsize, first.depth, path)
        place = np.empty(shape, first.depth)
        assert first.pixels is not None
        place[len(files) - 1] = first.pixels[0]
        files[-1] = replace(first, pixels=None)
    budget = _Budget(path)

    def read_into(i: int) -> _File | str:
        read = _read(found.files[i], resize, alpha)
        if isinstance(read, str):
            return read
        assert read.pixels is not None
        if read.size[1:] != first.size[1:] or read.depth != first.depth:
            return replace(read, pixels=None)  # which is refused when all sizes are known
        if place is not None and read.frames == 1 and _fits(read.size[0], place.shape[1]):
            place[i] = widened(read.pixels[0], place.shape[1])
            return replace(read, pixels=None)
        budget.add(read.pixels)
        return read

    rest = range(len(files), len(found.files))
    parts = [rest[start : start + _AT_ONCE] for start in range(0, len(rest), _AT_ONCE)]
    size = int(np.prod(first.size)) * first.depth.itemsize
    threads = min(_MOST_THREADS, os.cpu_count() or 1) if size >= _SMALL else 1
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(lambda part: [read_into(i) for i in part], parts):
            files += part
    return place, files


def _fits(channels: int, most: int) -> bool:
    """Whether images with these channels can be stored among others (see `widened`)."""
    return channels == most or (channels < most <= 4 and {channels, most} <= {1, 3, 4})


class _Budget:
    """Refuses pixels beside the array when they become too many; checked again when there are twice as many."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.checked = path, 0, _LARGE

    def add(self, pixels: Pixels) -> None:
        self.size += pixels.nbytes
        if self.size > self.checked:
            self.checked = 2 * self.size
            _check_fits(self.size, pixels.dtype, self.path)


def _joined(place: Pixels | None, files: Sequence[tuple[int, _File]]) -> Pixels:
    """The frames of all files one after the other ``(N, C, H, W)``, with as many channels as the widest."""
    if place is not None and all(file.pixels is None for _, file in files):
        if len(files) < len(place):
            for row, (i, _) in enumerate(files):
                place[row] = place[i]
        return place[: len(files)]
    channels = max(file.size[0] for _, file in files)
    x = np.empty((sum(file.frames for _, file in files), channels, *files[0][1].size[1:]), files[0][1].depth)
    row = 0
    for i, file in files:
        pixels = file.pixels
        if pixels is None:
            assert place is not None
            pixels = place[i : i + 1]
        x[row : row + file.frames] = widened(pixels, channels)
        row += file.frames
    return x


def _read(file: Path, resize: int | None, alpha: Alpha) -> _File | str:
    """One file, or why it cannot be read."""
    try:
        content = _content(file)
        picture = decode(content, resize=resize, alpha=alpha)
    except InputError:
        raise
    except BROKEN as error:
        return described(error)
    return _known(picture, content)


def _known(picture: Picture, content: bytes) -> _File:
    pixels = picture.pixels
    hashes = [bytes_hash(content)]
    if len(pixels) > 1:
        hashes = [bytes_hash(np.ascontiguousarray(frame).tobytes()) for frame in pixels]
    _, channels, height, width = pixels.shape
    size = (channels, height, width)
    return _File(size, pixels.dtype, len(pixels), pixels, tuple(hashes), picture.transparent, picture.turned)


def _content(file: Path) -> bytes:
    """The bytes of a file, for its hash and its pixels."""
    with file.open("rb", buffering=0) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > _LARGE:
            check_fits(2 * size, str(file), "remove it")
        return opened.readall()


def _check_fits(size: int, depth: np.dtype[Any], path: Path) -> None:
    """Refuse pixels of ``size`` bytes that would not fit: as decoded, and as examples twice, to split them."""
    wide = 1 if depth == np.uint8 or depth.kind == "f" else 8 // depth.itemsize
    check_fits((1 + 2 * wide) * size, f"the images in {path}", _MEND)


def _check_side(resize: int | None) -> None:
    if resize is not None and resize < 1:
        raise InputError(f"resize={resize}; expected the side in pixels, at least 1")


def _check_alike(files: Sequence[tuple[str, _File]], path: Path) -> None:
    """Raise `InputError` for images of several sizes, depths or numbers of channels."""
    sizes = Counter(file.size[1:] for _, file in files)
    if len(sizes) > 1:
        common = sizes.most_common(3)
        shown = listing([f"{h}×{w} ({n})" for (h, w), n in common])
        side = min(common[0][0])
        raise InputError(
            f"the images in {path} have {len(sizes)} sizes, e.g. {shown}; expected one size: "
            f"use --resize {side} (resize={side})"
        )
    for what, kinds in (
        ("types of pixels", {file.depth.name: name for name, file in reversed(files)}),
        ("numbers of channels", _odd_channels(files)),
    ):
        if len(kinds) > 1:
            shown = listing([f"{kind} ({name})" for kind, name in kinds.items()])
            raise InputError(
                f"the images in {path} have {len(kinds)} {what}: {shown}; convert them to one, or remove some"
            )


def _odd_channels(files: Sequence[tuple[str, _File]]) -> dict[str, str]:
    """The numbers of channels and a file of each, unless they are those of grey, RGB and RGBA."""
    found = {file.size[0]: name for name, file in reversed(files)}
    return {} if found.keys() <= {1, 3, 4} else {str(channels): name for channels, name in found.items()}
