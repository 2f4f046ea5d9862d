"""Text or any other file as windows of bytes; a folder of WAV recordings as windows of samples."""

from __future__ import annotations

import logging
import wave
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Examples, listing
from unsup.data.source import hashed_order

_PER_BYTE, _PER_SAMPLE_BYTE = 3, 12  # bytes of memory at the peak
_log = logging.getLogger(__name__)


def read_bytes(path: Path, *, length: int = 64) -> Examples:
    """Consecutive windows of ``length`` bytes: ``(length,)``, nominal(256), split 80/10/10 in file order.

    Args:
        length: number of values in one window of text, bytes or sound.
    """
    check_fits(_PER_BYTE * path.stat().st_size, str(path), "use a part of it")
    content = path.read_bytes()
    if not content:
        raise InputError(f"{path} is empty; expected text or other bytes")
    x, left = _windows(np.frombuffer(content, np.uint8), length, str(path), "bytes")
    notes = (f"the last {left} bytes do not fill a window and are dropped",) if left else ()
    names = tuple(f"byte {i * length}" for i in range(len(x)))
    event = Event((length,), Support("nominal", 256), "sequence")
    return Examples(torch.from_numpy(x.copy()), event, names, notes=notes, split="in file order", in_order=True)


def read_wav_folder(path: Path, *, length: int = 1024) -> Examples:
    """Windows of ``length`` samples of mono recordings, 8 bits (levels 0..255) or 16 bits (−32768..32767).

    The files are split in hashed order, so that windows of one recording stay together. Files that cannot be read are
    skipped and listed in the notes.

    Args:
        length: samples in one window.
    """
    files = sorted(file for file in path.glob("*.[wW][aA][vV]") if file.is_file())
    check_fits(
        _PER_SAMPLE_BYTE * sum(file.stat().st_size for file in files), f"the recordings in {path}", "use some of them"
    )
    sounds, good, bad = [], [], []
    kinds: dict[tuple[int, int], str] = {}
    for i in hashed_order(len(files)).tolist():
        try:
            samples, rate = _samples(files[i])
        except (wave.Error, EOFError, OSError, ValueError) as error:
            bad.append(f"{files[i].name} ({described(error)})")
            continue
        kinds.setdefault((rate, samples.dtype.itemsize * 8), files[i].name)
        sounds.append(samples)
        good.append(files[i].name)
    if 2 * len(bad) > len(files):
        raise InputError(
            f"{len(bad)} of {len(files)} recordings in {path} cannot be read: {listing(bad, 3)}; replace them"
        )
    for what in bad:
        _log.warning("skipped %s in %s", what, path)
    if len(kinds) > 1:
        shown = listing([f"{rate} Hz {bits} bits ({name})" for (rate, bits), name in kinds.items()])
        raise InputError(f"the recordings in {path} differ: {shown}; convert them to one rate and width")
    cut = [_windows(s, length, f"{path / n}", "samples") for s, n in zip(sounds, good, strict=True) if len(s) >= length]
    notes = [f"skipped {len(bad)} of {len(files)} recordings that cannot be read: {listing(bad)}"] if bad else []
    short = [n for s, n in zip(sounds, good, strict=True) if len(s) < length]
    if short:
        notes.append(
            f"ignored {len(short)} recording{'s' * (len(short) != 1)} shorter than {length} samples: {listing(short)}"
        )
    if not cut:
        raise InputError(f"every recording in {path} is shorter than length={length} samples; use a smaller length")
    notes.append(f"dropped {sum(left for _, left in cut):,} samples that do not fill a window")
    x = np.concatenate([w for w, _ in cut])
    support = Support("ordinal", 256) if x.dtype == np.uint8 else Support("ordinal", 65536, -32768)
    event = Event((length,), support, "sequence")
    long = [n for n in good if n not in set(short)]
    names = tuple(f"{n} sample {i * length}" for n, (w, _) in zip(long, cut, strict=True) for i in range(len(w)))
    return Examples(
        torch.from_numpy(x).to(event.dtype),
        event,
        names,
        notes=tuple(notes),
        split="in hashed order of the files",
        in_order=True,
        rate=next(iter(kinds))[0],
    )


def _samples(file: Path) -> tuple[NDArray[np.uint8] | NDArray[np.int16], int]:
    with wave.open(str(file), "rb") as sound:
        channels, width, rate = sound.getnchannels(), sound.getsampwidth(), sound.getframerate()
        if channels != 1 or width > 2:
            raise ValueError(f"{channels} channels of {8 * width} bits; expected mono, 8 or 16 bits")
        if sound.getnframes() * width > file.stat().st_size:
            raise ValueError(f"truncated: its header claims {sound.getnframes() * width:,} bytes")
        content = sound.readframes(sound.getnframes())
        if len(content) != sound.getnframes() * width:
            raise ValueError(f"truncated: {len(content)} of {sound.getnframes() * width} bytes")
    return np.frombuffer(content, np.uint8 if width == 1 else "<i2"), rate


def _windows(values: NDArray[Any], length: int, origin: str, unit: str) -> tuple[NDArray[Any], int]:
    """Rows of ``length`` values, and the number of remaining values."""
    if length < 1:
        raise InputError(f"length={length}; expected at least 1")
    if len(values) < length:
        raise InputError(
            f"{origin} has {len(values)} {unit}, less than one window of length={length}; use a smaller length"
        )
    n = len(values) // length
    return values[: n * length].reshape(n, length), len(values) - n * length
