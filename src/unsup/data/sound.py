"""Sound: WAV of every depth, FLAC and OGG; one recording, or a folder of them, as windows of samples."""

from __future__ import annotations

import io
import logging
import math
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

from unsup.core.config import Count
from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.core.words import counted
from unsup.data import mulaw
from unsup.data.bounds import check_fits, described
from unsup.data.examples import Examples, listing
from unsup.data.folders import listed, skipped
from unsup.data.form import Form, numbered
from unsup.data.precision import precise
from unsup.data.source import hashed_order
from unsup.data.windows import cut

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
_MU_LAW = Support("ordinal", mulaw.LEVELS)


@dataclass(frozen=True)
class SoundForm(Form):
    """Recordings are written as WAV files of the same rate and depth.

    Attributes:
        rate: samples a second.
        depth: type of a sample in the file.
        mu_law: whether examples are levels of the μ-law (`unsup.data.mulaw`), which are decoded.
        tail: whether the last window of a recording may be shorter than others.
    """

    name: ClassVar[str] = "sound"
    suffixes: ClassVar[tuple[str, ...]] = ("", ".wav")

    rate: int
    depth: Depth
    mu_law: bool = False
    tail: bool = False

    def units(self, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
        """The number of samples of all channels: with the μ-law, of its levels and not of the file."""
        sizes = torch.full((len(x),), x.shape[1]) if lengths is None else lengths.detach().cpu()
        return {"sample": sizes * math.prod(x.shape[2:])}

    @property
    def samples_a_second(self) -> int:
        return self.rate

    def is_single(self, out: Path) -> bool:
        return bool(out.suffix)

    def files(self, x: Tensor, out: Path) -> Iterator[tuple[Path, bytes]]:
        self.check_suffix(out)
        if out.suffix and len(x) != 1:
            raise InputError(f"{out} is one file, but there are {len(x)} recordings; name a folder: {out.stem}")
        for i, path in enumerate(numbered(out, len(x), ".wav") if not out.suffix else [out]):
            yield path, self._content(x[i].detach().cpu().numpy())

    @property
    def entry(self) -> str:
        return "sample"

    def waves(self, x: Tensor) -> Tensor:
        """Raw examples as waves, float32; full scale is ±1."""
        samples = x.detach().cpu().numpy()
        return torch.from_numpy(mulaw.decoded(samples) if self.mu_law else _in_unit(samples, self.depth)).float()

    def raw(self, waves: Tensor) -> Tensor:
        """The inverse of `waves`, rounded to the levels; louder samples than full scale are cut off."""
        samples = waves.detach().cpu().double().numpy()
        return torch.from_numpy(mulaw.encoded(samples) if self.mu_law else _from_unit(samples, self.depth))

    def _content(self, samples: NDArray[Any]) -> bytes:
        """A WAV file with samples ``(T,)`` or ``(T, C)``."""
        from scipy.io import wavfile

        if self.mu_law:
            samples = _from_unit(mulaw.decoded(samples), self.depth)
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


def _in_unit(samples: NDArray[Any], depth: Depth) -> NDArray[Any]:
    """Samples in raw units → float64 from −1 to 1; louder ones only of floating depths."""
    support = _SUPPORTS.get(depth)
    if support is None:
        return samples.astype(np.float64)
    half = support.levels // 2
    return (samples.astype(np.float64) - (support.low + half)) / half


def _from_unit(samples: NDArray[np.float64], depth: Depth) -> NDArray[Any]:
    """The inverse of `_in_unit`, rounded to the levels; louder samples are cut off."""
    support = _SUPPORTS.get(depth)
    if support is None:
        return samples.astype(np.float64 if depth == "float64" else np.float32)
    levels = np.rint(samples * (support.levels // 2)) + support.low + support.levels // 2
    return np.clip(levels, support.low, support.low + support.levels - 1).astype(depth)


@dataclass(frozen=True)
class _Recording:
    """Samples ``(T,)`` or ``(T, C)`` in their raw units: levels of at most 16 bits, or real."""

    samples: NDArray[Any]
    rate: int
    depth: Depth

    @property
    def kind(self) -> tuple[int, int, Depth]:
        return self.rate, 1 if self.samples.ndim == 1 else self.samples.shape[1], self.depth

    def at(self, rate: int | None) -> _Recording:
        """The recording at another rate, by a polyphase filter; itself for None or its own rate."""
        if rate is None or rate == self.rate:
            return self
        from scipy.signal import resample_poly

        size = _PER_SAMPLE_BYTE * self.samples.size * max(1, rate / self.rate) * 4
        check_fits(size, f"the recordings at {rate} samples a second", "use a lower --rate (rate=)")
        shared = math.gcd(rate, self.rate)
        samples = resample_poly(_in_unit(self.samples, self.depth), rate // shared, self.rate // shared, axis=0)
        return replace(self, samples=_from_unit(samples, self.depth), rate=rate)


def read_folder(
    path: Path, *, length: int = 1024, mu_law: bool = False, rate: Count | None = None, tail: bool = False
) -> Examples:
    """Windows of ``length`` samples of recordings: ``(length,)``, or ``(length, C)`` with C channels.

    Samples of 8 and 16 bits are levels (0 … 255 and −32768 … 32767); deeper samples are real, integers from −1 to 1.
    Subfolders (one level) are labels. The files are split in hashed order, so that windows of one recording stay
    together. Files that cannot be read are skipped and listed in the notes.

    Args:
        length: samples in one window.
        mu_law: sound as the 256 levels of the μ-law (μ = 255), instead of those of the file.
        rate: resample recordings of other rates to this number of samples a second.
        tail: as for bytes.
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
    pieces = [(found.names[i], sound) for i, sound in sounds]
    pieces, resampled = _at_rate(pieces, rate)
    notes += resampled
    kinds = {sound.kind: name for name, sound in reversed(pieces)}
    if len(kinds) > 1:
        shown = listing([f"{_said(*kind)} ({name})" for kind, name in sorted(kinds.items())])
        rates = sorted({rate for rate, _, _ in kinds})
        mend = f", or resample them with --rate {rates[0]} (rate={rates[0]})" if len(rates) > 1 else ""
        raise InputError(
            f"the recordings in {path} differ: {shown}; convert them to one rate, depth and number of channels{mend}"
        )
    label = [found.label[i] for i, _ in sounds] if found.labels else None
    examples = _examples(pieces, length, str(path), label, mu_law=mu_law, tail=tail)
    split = "in hashed order of the files"
    return replace(examples, labels=found.labels or None, notes=(*notes, *examples.notes), split=split)


def read_file(
    path: Path, *, length: int = 1024, mu_law: bool = False, rate: Count | None = None, tail: bool = False
) -> Examples:
    """Windows of ``length`` samples of one recording, split 80/10/10 in its order.

    Args:
        length: samples in one window.
        mu_law: as for a folder.
        rate: as for a folder.
        tail: as for bytes.
    """
    check_fits(_PER_SAMPLE_BYTE * path.stat().st_size, str(path), "use a part of it")
    try:
        sound = _recording(path)
    except InputError:
        raise
    except _BROKEN as error:
        raise InputError(f"{path} cannot be read ({described(error)}); convert it to WAV, or replace it") from error
    pieces, notes = _at_rate([(path.name, sound)], rate)
    examples = _examples(pieces, length, str(path), None, mu_law=mu_law, tail=tail)
    return replace(examples, notes=(*notes, *examples.notes), split="in the order of the file")


def windows_of_files(
    files: list[tuple[str, Path]], length: int, origin: str, *, mu_law: bool, tail: bool
) -> tuple[Examples, Tensor]:
    """The windows of recordings of one kind, one file after the other, and the number of the file of each.

    Args:
        files: name and path of each recording.
        length: samples in one window.
        origin: the source of the files, for errors.
        mu_law, tail: as in `read_folder`.

    Raises:
        InputError: a file cannot be read, or all are shorter than a window.
    """
    sounds = []
    for name, path in files:
        try:
            sounds.append((name, _recording(path)))
        except _BROKEN as error:
            raise InputError(f"{path} is damaged ({described(error)}); replace it") from error
    found = _examples(sounds, length, origin, list(range(len(files))), mu_law=mu_law, tail=tail)
    assert found.label is not None
    return replace(found, label=None), found.label


def _at_rate(pieces: list[_Piece], rate: int | None) -> tuple[list[_Piece], list[str]]:
    """The recordings at one rate, and notes about those that are resampled; as they are for None."""
    other = [(name, sound.rate) for name, sound in pieces if rate not in (None, sound.rate)]
    if not other:
        return pieces, []
    rates = listing([f"{own} Hz" for own in sorted({own for _, own in other})])
    note = f"resampled {counted(len(other), 'recording')} of {rates} to {rate} Hz: {listing([n for n, _ in other])}"
    return [(name, sound.at(rate)) for name, sound in pieces], [note]


def _examples(
    sounds: list[_Piece], length: int, origin: str, label: list[int] | None, *, mu_law: bool, tail: bool
) -> Examples:
    """The windows of recordings of one kind."""
    depth, rate = sounds[0][1].depth, sounds[0][1].rate
    pieces = [(name, _as_levels(sound) if mu_law else sound.samples) for name, sound in sounds]
    found = cut(pieces, length, origin, "recording", "samples", rate=rate, tail=tail)
    x, notes = found.x, found.notes
    support = _MU_LAW if mu_law else _SUPPORTS.get(depth, REAL)
    event = Event(x.shape[1:], support, "sequence")
    if mu_law and (loud := sum(int((np.abs(_in_unit(s.samples, depth)) > 1).sum()) for _, s in sounds)):
        notes.append(f"cut off {counted(loud, 'sample')} outside −1 … 1")
    if x.dtype == np.float64:
        entries = x.reshape(-1, 1)
        event = precise(event, entries[:: max(1, len(entries) // _FEW)])
    tensor = torch.from_numpy(x)
    return Examples(
        tensor.to(event.dtype) if event.is_discrete else tensor,
        event,
        found.names,
        None if label is None else torch.tensor(label)[torch.from_numpy(found.owner)],
        notes=tuple(notes),
        in_order=True,
        lengths=None if found.lengths is None else torch.from_numpy(found.lengths),
        rate=rate,
        form=SoundForm(rate, depth, mu_law, tail),
    )


def _as_levels(sound: _Recording) -> NDArray[np.uint8]:
    return mulaw.encoded(_in_unit(sound.samples, sound.depth))


_Piece = tuple[str, _Recording]  # with its name


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
