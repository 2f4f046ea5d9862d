"""Sound: WAV of every depth, FLAC and OGG; one recording, or a folder of them, as windows of samples."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import wave
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Examples, listing
from unsup.data.folders import listed, skipped
from unsup.data.form import Form, numbered
from unsup.data.precision import precise
from unsup.data.source import hashed_order
from unsup.data.windows import windows_of_all

PLAIN = (".wav", ".wave")
PACKED = (".flac", ".ogg", ".oga", ".opus")
SUFFIXES = (*PLAIN, *PACKED)
_KINDS = "WAV, FLAC or OGG"
_PER_SAMPLE_BYTE = 12  # bytes of memory at the peak for a byte of a file
_FEW = 10_000  # samples that are looked at for the precision
_BROKEN = (OSError, EOFError, ValueError, ArithmeticError, LookupError, TypeError, MemoryError, struct.error)
_DIGITS = {ord(letter): None for letter in "uintfloat"}
_log = logging.getLogger(__name__)

Depth = Literal["uint8", "int16", "int24", "int32", "float32", "float64"]
_DEPTHS: dict[tuple[str, int], Depth] = {
    ("u", 1): "uint8",
    ("i", 2): "int16",
    ("i", 3): "int24",
    ("i", 4): "int32",
    ("f", 4): "float32",
    ("f", 8): "float64",
}
"""The depth by the kind of the numbers, and the bytes of a sample in the file."""
_SUPPORTS = {"uint8": Support("ordinal", 256), "int16": Support("ordinal", 65_536, -32_768)}
"""The supports of depths that are levels; other depths are real."""


@dataclass(frozen=True)
class SoundForm(Form):
    """Recordings are written as WAV files of the same rate and depth.

    Attributes:
        rate: samples a second.
        depth: type of a sample in the file.
    """

    name: ClassVar[str] = "sound"
    suffixes: ClassVar[tuple[str, ...]] = ("", ".wav")

    rate: int
    depth: Depth

    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        self.check_suffix(out)
        if out.suffix and len(x) != 1:
            raise InputError(f"{out} is one file, but there are {len(x)} recordings; name a folder: {out.stem}")
        for i, path in enumerate(numbered(out, len(x), ".wav") if not out.suffix else [out]):
            yield path, self._content(x[i].detach().cpu().numpy())

    @property
    def entry(self) -> str:
        return "sample"

    def units(self, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        entries = x[0].numel() if len(x) else 0
        return {
            "sample": torch.full((len(x),), entries) if lengths is None else lengths.cpu() * (entries // x.shape[1])
        }

    def _content(self, samples: NDArray[Any]) -> bytes:
        """A WAV file with samples ``(T,)`` or ``(T, C)``."""
        from scipy.io import wavfile

        file = io.BytesIO()
        if self.depth == "int24":
            with wave.open(file, "wb") as sound:
                sound.setparams((samples.shape[1] if samples.ndim == 2 else 1, 3, self.rate, 0, "NONE", ""))
                levels = np.ascontiguousarray(_levels(samples, 24), "<i4")
                sound.writeframes(levels.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
        else:
            levels = _levels(samples, 32) if self.depth == "int32" else samples
            wavfile.write(file, self.rate, np.ascontiguousarray(levels, self.depth))
        return file.getvalue()


def _levels(samples: NDArray[Any], bits: int) -> NDArray[np.int64]:
    """Samples in [−1, 1) as integers; louder samples are cut off."""
    top = 2 ** (bits - 1)
    return np.clip(np.rint(samples.astype(np.float64) * top), -top, top - 1).astype(np.int64)


@dataclass(frozen=True)
class _Recording:
    """Samples ``(T,)`` or ``(T, C)`` in their raw units: levels of at most 16 bits, or real."""

    samples: NDArray[Any]
    rate: int
    depth: Depth

    @property
    def kind(self) -> tuple[int, int, Depth]:
        return self.rate, 1 if self.samples.ndim == 1 else self.samples.shape[1], self.depth


def read_folder(path: Path, *, length: int = 1024) -> Examples:
    """Windows of ``length`` samples of recordings: ``(length,)``, or ``(length, C)`` with C channels.

    Samples of 8 and 16 bits are levels (0 … 255 and −32768 … 32767); deeper samples are real, integers from −1 to 1.
    Subfolders (one level) are labels. The files are split in hashed order, so that windows of one recording stay
    together. Files that cannot be read are skipped and listed in the notes.

    Args:
        length: samples in one window.
    """
    found = listed(path, SUFFIXES, "recordings", _KINDS)
    size = sum(file.stat().st_size for file in found.files)
    check_fits(_PER_SAMPLE_BYTE * size, f"the recordings in {path}", "use some of them")
    sounds: list[tuple[int, _Recording]] = []
    bad = []
    for i in hashed_order(len(found.files)).tolist():
        try:
            sounds.append((i, _recording(found.files[i])))
        except InputError:
            raise
        except _BROKEN as error:
            bad.append(f"{found.names[i]} ({described(error)})")
    notes = [*found.notes, *skipped(bad, len(found.files), path, "recordings", "replace them")]
    for what in bad:
        _log.warning("skipped %s in %s", what, path)
    kinds = {sound.kind: found.names[i] for i, sound in reversed(sounds)}
    if len(kinds) > 1:
        shown = listing([f"{_said(*kind)} ({name})" for kind, name in sorted(kinds.items())])
        raise InputError(
            f"the recordings in {path} differ: {shown}; convert them to one rate, depth and number of channels"
        )
    label = [found.label[i] for i, _ in sounds] if found.labels else None
    examples = _examples([(found.names[i], sound) for i, sound in sounds], length, str(path), label)
    split = "in hashed order of the files"
    return replace(examples, labels=found.labels or None, notes=(*notes, *examples.notes), split=split)


def read_file(path: Path, *, length: int = 1024) -> Examples:
    """Windows of ``length`` samples of one recording, split 80/10/10 in its order.

    Args:
        length: samples in one window.
    """
    check_fits(_PER_SAMPLE_BYTE * path.stat().st_size, str(path), "use a part of it")
    try:
        sound = _recording(path)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read ({described(error)}); convert it to WAV, or replace it") from error
    return replace(_examples([(path.name, sound)], length, str(path), None), split="in the order of the file")


def _examples(sounds: list[tuple[str, _Recording]], length: int, origin: str, label: list[int] | None) -> Examples:
    """The windows of recordings of one kind."""
    pieces = [(name, sound.samples) for name, sound in sounds]
    depth, rate = sounds[0][1].depth, sounds[0][1].rate
    x, names, owner, notes = windows_of_all(pieces, length, origin, "recording", "samples", rate)
    event = Event(x.shape[1:], _SUPPORTS.get(depth, REAL), "sequence")
    if x.dtype == np.float64:
        entries = x.reshape(-1, 1)
        event = precise(event, entries[:: max(1, len(entries) // _FEW)])
    tensor = torch.from_numpy(x)
    return Examples(
        tensor.to(event.dtype) if event.is_discrete else tensor,
        event,
        names,
        None if label is None else torch.tensor(label)[torch.from_numpy(owner)],
        notes=tuple(notes),
        in_order=True,
        rate=rate,
        form=SoundForm(rate, depth),
    )


def _said(rate: int, channels: int, depth: Depth) -> str:
    bits = f"{depth.translate(_DIGITS)} bits{' float' * depth.startswith('f')}"
    return f"{rate} Hz {bits}" + (f" {channels} channels" if channels > 1 else "")


def _recording(file: Path) -> _Recording:
    samples, rate, depth = _wav(file) if file.suffix.lower() in PLAIN else _packed(file)
    if rate < 1:
        raise ValueError(f"its rate is {rate} samples a second")
    if depth in ("int24", "int32"):  # left-justified
        exact = samples / 2.0**31
        samples = exact.astype(np.float32)
        samples = samples if np.array_equal(samples, exact) else exact
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ValueError("it has samples that are NaN or infinite")
    return _Recording(samples[:, 0] if samples.ndim == 2 and samples.shape[1] == 1 else samples, rate, depth)


def _wav(file: Path) -> tuple[NDArray[Any], int, Depth]:
    """Samples as SciPy reads them, integers left-justified, with the rate and depth of the file."""
    from scipy.io import wavfile  # here, because importing it takes a quarter of a second

    content = file.read_bytes()
    width = _width(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # about chunks that are not samples
        rate, samples = wavfile.read(io.BytesIO(content))
    depth = _DEPTHS.get((samples.dtype.kind, width))
    if depth is None:
        raise ValueError(f"{8 * width} bits of type {samples.dtype}; expected integers of 8 to 32 bits, or floats")
    return samples.astype(samples.dtype.newbyteorder("=")), rate, depth


def _width(content: bytes) -> int:
    """The bytes of a sample in a WAV file. SciPy does not say it, and ignores that a file ends too early.

    Raises:
        ValueError: the file is truncated.
    """
    order, at, width = ">" if content.startswith(b"RIFX") else "<", 12, 0
    while at + 8 <= len(content):
        name, (size,) = content[at : at + 4], struct.unpack_from(order + "I", content, at + 4)
        if name == b"fmt " and at + 24 <= len(content):
            channels, align = struct.unpack_from(order + "2xH8xH", content, at + 8)
            width = align // channels
        if name == b"data" and width:
            there = len(content) - at - 8
            if size > there and not content.startswith(b"RF64"):  # whose sizes have 64 bits elsewhere
                raise ValueError(f"truncated: its header claims {size:,} bytes of samples, but it has {there:,}")
            return width
        at += 8 + size + size % 2
    raise ValueError("it is not a WAV file, or has no samples")


def _packed(file: Path) -> tuple[NDArray[Any], int, Depth]:
    """Samples of FLAC and OGG, integers left-justified, with rate and depth."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its shared library is missing
        raise InputError(f"reading {file} needs soundfile: pip install 'unsup[sound]'") from error
    try:
        with soundfile.SoundFile(file) as sound:
            kinds: dict[str, Depth] = {"PCM_S8": "int16", "PCM_16": "int16", "PCM_24": "int24"}
            depth = kinds.get(sound.subtype, "float32")
            size = 4 * sound.frames * sound.channels
            check_fits(_PER_SAMPLE_BYTE * size, f"the samples of {file}", "use a part of it")
            samples = sound.read(dtype="int32" if depth == "int24" else depth)
            if len(samples) != sound.frames:
                raise ValueError(f"truncated: {len(samples):,} of {sound.frames:,} samples")
            return samples, sound.samplerate, depth
    except soundfile.SoundFileError as error:
        raise ValueError(str(error)) from error
