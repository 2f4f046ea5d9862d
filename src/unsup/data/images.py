"""A folder of images, or one image: PNG, JPEG, WebP or BMP to uint8 pixels."""

from __future__ import annotations

import io
import logging
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Examples, listing
from unsup.data.hashing import bytes_hash

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_KINDS = "PNG, JPEG, WebP or BMP"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test"}
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_COPIES = 3  # copies of the pixels at the peak: single images, all together, and split
_LARGE = 10**7  # bytes or pixels, each counted twice
_MEND = "use a smaller size with --resize N (resize=N), or fewer images"
_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, MemoryError)
_log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]


def read_folder(path: Path, *, resize: int | None = None) -> Examples:
    """All images of a folder, or of its subfolders (one level), whose names are then the labels.

    Grey images give (1, H, W); if at least one image has colour, all give (3, H, W). Files that cannot be
    decoded completely are skipped and listed in the notes.

    Args:
        resize: side in pixels of the images after scaling and central cropping to a square.

    Raises:
        InputError: no images, mixed sizes, or more than half of the images unreadable.
    """
    _check_side(resize)
    files, labels, notes = _list(path)
    if resize is not None:
        _check_fits(resize**2 * len(files), path)
    pixels, good, bad, hashes, transparent, size, checked = [], [], [], [], 0, 0, 0
    for file in files:
        try:
            content = _content(file)
            decoded, had_alpha = decode(content, resize=resize)
        except InputError:
            raise
        except _BROKEN as error:
            bad.append(f"{file.relative_to(path)} ({described(error)})")
            continue
        pixels.append(decoded)
        good.append(file)
        hashes.append(bytes_hash(content))
        size += decoded.nbytes
        if max(size, decoded.nbytes * len(files)) > checked:
            checked = 2 * max(size, decoded.nbytes * len(files))  # checked again when there are twice as many
            _check_fits(checked // 2, path)
        transparent += had_alpha
    if 2 * len(bad) > len(files):
        raise InputError(
            f"{len(bad)} of {len(files)} images in {path} cannot be read: {listing(bad, 3)}; replace or remove them"
        )
    for what in bad:
        _log.warning("skipped %s in %s", what, path)
    if bad:
        notes.append(f"skipped {len(bad)} of {len(files)} images that cannot be read: {listing(bad)}")
    if transparent:
        notes.append(f"dropped the transparency of {transparent} images")
    x = torch.from_numpy(_stack(pixels, path)).contiguous()
    label = torch.tensor([labels.index(f.parent.name) for f in good]) if labels else None
    return Examples(
        x,
        Event(tuple(x.shape[1:]), Support("ordinal", 256)),
        tuple(str(f.relative_to(path)) for f in good),
        label,
        tuple(labels) or None,
        tuple(notes),
        split="by a hash of each file",
        hashes=np.array(hashes, np.uint64),
        files=True,
    )


def read_file(path: Path, *, resize: int | None = None) -> Examples:
    """One image as one example."""
    _check_side(resize)
    try:
        pixels, _ = decode(_content(path), resize=resize)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read ({described(error)}); replace it") from error
    x = torch.from_numpy(_stack([pixels], path)).contiguous()
    return Examples(x, Event(tuple(x.shape[1:]), Support("ordinal", 256)), (path.name,))


def _content(file: Path) -> bytes:
    """The bytes of a file, for its hash and its pixels."""
    size = file.stat().st_size
    if size > _LARGE:
        check_fits(2 * size, str(file), "remove it")
    return file.read_bytes()


def _check_fits(size: int, path: Path) -> None:
    check_fits(_COPIES * size, f"the images in {path}", _MEND)


def decode(content: bytes, *, resize: int | None = None) -> tuple[Pixels, bool]:
    """All pixels of one image, ``(H, W)`` grey or ``(H, W, 3)`` RGB, and whether it had transparency."""
    with warnings.catch_warnings():  # about large images; their size is checked below
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(io.BytesIO(content), formats=_FORMATS)
    with opened as image:
        pixels = image.width * image.height
        if pixels > _LARGE:
            check_fits(8 * pixels, f"an image of {image.width:,} × {image.height:,} pixels", "remove it")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"more than 8 bits per channel (mode {image.mode}); expected 8")
        transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        # This decodes the whole file, so that a truncated file is detected.
        eight_bit = image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    if resize is not None:
        eight_bit = ImageOps.fit(eight_bit, (resize, resize), Image.Resampling.BICUBIC)
    return np.array(eight_bit), transparent


def _check_side(resize: int | None) -> None:
    if resize is not None and resize < 1:
        raise InputError(f"resize={resize}; expected the side in pixels, at least 1")


def _list(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """Image files, labels (empty without subfolders), and notes about other files."""
    top = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    inside = [p for f in top if f.is_dir() for p in sorted(f.iterdir()) if not p.name.startswith(".")]
    files, deeper = ([p for p in level if p.is_file() and p.suffix.lower() in SUFFIXES] for level in (top, inside))
    known = {*files, *deeper, *(p for p in top if p.is_dir())}
    other = [str(p.relative_to(path)) for p in [*top, *inside] if p not in known]
    if files and deeper:
        raise InputError(
            f"{path} has {len(files)} images at its top level and {len(deeper)} in subfolders; move all of them "
            "into subfolders (their names are the labels), or none"
        )
    if not files and not deeper:
        what = f"{len(other)} other files" if other else "it is empty"
        raise InputError(f"{path} has no images ({what}); expected {_KINDS}, at its top level or one folder deep")
    labels = sorted({p.parent.name for p in deeper})
    if set(labels) & _SPLIT_NAMES:
        raise InputError(
            f"the subfolders of {path} ({listing(labels)}) look like splits, not labels; use one of them, e.g. "
            f"{path / labels[0]}, which is split by a hash"
        )
    notes = [f"ignored {len(other)} files or folders that are not images: {listing(other)}"] if other else []
    return files or deeper, labels, notes


def _stack(pixels: list[Pixels], path: Path) -> Pixels:
    """Images of one size → ``(N, C, H, W)``; grey images become RGB if at least one has colour."""
    sizes = Counter(p.shape[:2] for p in pixels)
    if len(sizes) > 1:
        common = sizes.most_common(3)
        shown = listing([f"{h}×{w} ({n})" for (h, w), n in common])
        side = min(common[0][0])
        raise InputError(
            f"the images in {path} have {len(sizes)} sizes, e.g. {shown}; expected one size: "
            f"use --resize {side} (resize={side})"
        )
    if all(p.ndim == 2 for p in pixels):
        return np.stack(pixels)[:, None]
    colour = [p if p.ndim == 3 else np.repeat(p[:, :, None], 3, 2) for p in pixels]
    return np.stack(colour).transpose(0, 3, 1, 2)
