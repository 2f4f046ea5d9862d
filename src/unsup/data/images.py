"""A folder of images, or one image: PNG, JPEG, WebP or BMP to uint8 pixels."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.data.examples import Examples, listing

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_KINDS = "PNG, JPEG, WebP or BMP"
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test"}
_log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]


def read_folder(path: Path, *, resize: int | None = None) -> Examples:
    """Every image of a folder, or of its subfolders one level deep, whose names are then the labels.

    Grey images give (1, H, W); as soon as one is in colour all give (3, H, W). Files that cannot be
    decoded to the end are named, skipped and counted in the notes.

    Args:
        resize: side in pixels that images get: scaled to cover that square, their middle cut out.

    Raises:
        InputError: no images, mixed sizes, or more than half of the images unreadable.
    """
    _check_side(resize)
    files, labels, notes = _list(path)
    pixels, good, bad, transparent = [], [], [], 0
    for file in files:
        try:
            decoded, had_alpha = decode(file, resize=resize)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            bad.append(f"{file.relative_to(path)} ({' '.join(str(error).split())})")
            continue
        pixels.append(decoded)
        good.append(file)
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
        files=True,
    )


def read_file(path: Path, *, resize: int | None = None) -> Examples:
    """One image as one example."""
    _check_side(resize)
    try:
        pixels, _ = decode(path, resize=resize)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); replace it") from error
    x = torch.from_numpy(_stack([pixels], path)).contiguous()
    return Examples(x, Event(tuple(x.shape[1:]), Support("ordinal", 256)), (path.name,))


def decode(file: Path, *, resize: int | None = None) -> tuple[Pixels, bool]:
    """All pixels of one image, ``(H, W)`` grey or ``(H, W, 3)`` RGB, and whether it had transparency."""
    with Image.open(file) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"more than 8 bits a pixel (mode {image.mode}); expected 8")
        transparent = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
        # This decodes to the end, so that a truncated file is noticed.
        eight_bit = image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
    if resize is not None:
        eight_bit = ImageOps.fit(eight_bit, (resize, resize), Image.Resampling.BICUBIC)
    return np.array(eight_bit), transparent


def _check_side(resize: int | None) -> None:
    if resize is not None and resize < 1:
        raise InputError(f"resize={resize} given; expected the side in pixels, 1 or more")


def _list(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """Image files, labels (empty without subfolders) and notes on what else lies there."""
    top = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    inside = [p for f in top if f.is_dir() for p in sorted(f.iterdir()) if not p.name.startswith(".")]
    files, deeper = ([p for p in level if p.is_file() and p.suffix.lower() in SUFFIXES] for level in (top, inside))
    known = {*files, *deeper, *(p for p in top if p.is_dir())}
    other = [str(p.relative_to(path)) for p in [*top, *inside] if p not in known]
    if files and deeper:
        raise InputError(
            f"{path} holds {len(files)} images at its top and {len(deeper)} in subfolders; put all of them into "
            "subfolders (their names are the labels) or none"
        )
    if not files and not deeper:
        what = f"{len(other)} other files" if other else "it is empty"
        raise InputError(f"{path} holds no images ({what}); expected {_KINDS}, at its top or one folder deep")
    labels = sorted({p.parent.name for p in deeper})
    if set(labels) & _SPLIT_NAMES:
        raise InputError(
            f"the subfolders of {path} ({listing(labels)}) look like splits, not labels; give one of them, e.g. "
            f"{path / labels[0]}: it is split by a hash"
        )
    notes = [f"left out {len(other)} files or folders that are no images: {listing(other)}"] if other else []
    return files or deeper, labels, notes


def _stack(pixels: list[Pixels], path: Path) -> Pixels:
    """Images of one size → ``(N, C, H, W)``; grey ones are repeated to RGB where colour is among them."""
    sizes = Counter(p.shape[:2] for p in pixels)
    if len(sizes) > 1:
        common = sizes.most_common(3)
        shown = listing([f"{h}×{w} ({n})" for (h, w), n in common])
        side = min(common[0][0])
        raise InputError(
            f"the images in {path} have {len(sizes)} sizes, e.g. {shown}; expected one size: "
            f"give --resize {side} (resize={side})"
        )
    if all(p.ndim == 2 for p in pixels):
        return np.stack(pixels)[:, None]
    colour = [p if p.ndim == 3 else np.repeat(p[:, :, None], 3, 2) for p in pixels]
    return np.stack(colour).transpose(0, 3, 1, 2)
