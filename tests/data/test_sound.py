"""Recordings of every depth and number of channels are read exactly, and written so that they come back."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.data import load_data, load_examples
from unsup.data.form import form_from_json
from unsup.data.load import load_rows
from unsup.data.sound import SoundForm

RNG = np.random.default_rng(0)
soundfile = pytest.importorskip("soundfile")
DEPTHS = ["uint8", "int16", "int24", "int32", "float32", "float64"]
SUBTYPES = dict(zip(DEPTHS, ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"], strict=True))
SUPPORTS = {"uint8": Support("ordinal", 256), "int16": Support("ordinal", 65_536, -32_768)}


def samples_of(n: int, channels: int, depth: str) -> np.ndarray:
    """Samples in raw units ``(n,)`` or ``(n, channels)``, with the extremes of the depth."""
    shape = (n,) if channels == 1 else (n, channels)
    if depth.startswith("float"):
        return RNG.normal(size=shape).astype(depth)
    bits = int(depth.lstrip("uint"))
    low, high = (0, 255) if depth == "uint8" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    x = RNG.integers(low, high, shape, endpoint=True)
    x.reshape(-1)[:2] = low, high
    return x if bits <= 16 else x / 2 ** (bits - 1)


def write(path: Path, x: np.ndarray, depth: str, rate: int = 8000, kind: str = "WAV") -> None:
    """By libsndfile, which is not what the library writes or reads WAV with."""
    if depth == "uint8":
        x = (x.astype(np.int16) - 128) << 8
    elif depth in ("int24", "int32"):
        x = np.rint(x * 2.0**31).astype(np.int32)
    else:
        x = x.astype(depth)
    soundfile.write(path, x, rate, subtype=SUBTYPES[depth], format=kind)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("depth", DEPTHS)
def test_wav_of_every_depth(depth: str, channels: int, kind: str, tmp_path: Path) -> None:
    x = samples_of(64, channels, depth)
    write(tmp_path / "a.wav", x, depth, kind=kind)
    found = load_rows(tmp_path / "a.wav", length=8)
    assert found.event == Event((8,) if channels == 1 else (8, channels), SUPPORTS.get(depth, REAL), "sequence")
    np.testing.assert_array_equal(found.tensor.reshape(x.shape).double().numpy(), x.astype(float))
    assert found.rate == 8000
    assert found.form == SoundForm(8000, depth)  # type: ignore[arg-type]
    assert found.names[:2] == ("a.wav 0.000 s", "a.wav 0.001 s")
    data = load_data(tmp_path / "a.wav", length=4)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 2, 2)
    assert data.split == "80/10/10 in the order of the file"
    assert data.rate == 8000
    again, _ = load_examples(tmp_path / "a.wav", found.event)
    assert torch.equal(again, found.tensor)


@pytest.mark.parametrize(
    ("suffix", "kind", "depth"), [("flac", "FLAC", "int16"), ("flac", "FLAC", "int24"), ("ogg", "OGG", "float32")]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_packed_recordings(suffix: str, kind: str, depth: str, channels: int, tmp_path: Path) -> None:
    x = samples_of(4000, channels, depth)
    path = tmp_path / f"a.{suffix}"
    if kind == "OGG":
        soundfile.write(path, np.sin(np.arange(x.size).reshape(x.shape) / 20) / 2, 8000, format="OGG")
        expected = soundfile.read(path, dtype="float32")[0]
    else:
        write(path, x, depth, kind=kind)
        expected = x
    for place in (path, tmp_path):
        found = load_rows(place, length=500)
        assert found.event.shape == ((500,) if channels == 1 else (500, channels))
        np.testing.assert_array_equal(found.tensor.reshape(expected.shape).double().numpy(), expected.astype(float))
        assert found.form == SoundForm(8000, depth)  # type: ignore[arg-type]


def test_without_soundfile_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.flac", samples_of(64, 1, "int16"), "int16", kind="FLAC")
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    for place in (tmp_path, tmp_path / "a.flac"):
        with pytest.raises(InputError) as error:
            load_data(place)
        assert str(error.value) == (f"reading {tmp_path / 'a.flac'} needs soundfile: pip install 'unsup[sound]'")


def test_subfolders_are_labels_and_other_files_are_said(tmp_path: Path) -> None:
    for folder, n in (("cat", 3), ("dog", 4)):
        (tmp_path / folder).mkdir()
        for i in range(n):
            write(tmp_path / folder / f"{i}.wav", np.full(16, len(folder) + i), "int16")
    (tmp_path / "dog" / "long").mkdir()
    (tmp_path / "about.txt").write_text("x")
    (tmp_path / "cat" / "0.wav").write_bytes(wav_of(np.full(20, 77, np.int16)))
    found = load_rows(tmp_path, length=8)
    assert found.labels == ("cat", "dog")
    assert found.notes == (
        "ignored 2 files or folders that are not recordings: about.txt, dog/long",
        "dropped 4 samples that do not fill a window",
    )
    assert found.label is not None
    assert [found.labels[i] for i in found.label] == [name.split("/")[0] for name in found.names]
    assert len(found.names) == 14


def wav_of(x: np.ndarray) -> bytes:
    import io

    file = io.BytesIO()
    wavfile.write(file, 8000, x)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:-7], "truncated: its header claims 200 bytes of samples, but it has 193"),
        (lambda c: c[:30], "it is not a WAV file, or has no samples"),
        (lambda c: b"", "it is not a WAV file"),
        (lambda c: b"no sound at all, but long enough to be a header", "it is not a WAV file"),
        (lambda c: c[:20] + struct.pack("<H", 7) + c[22:], "nknown wave file format: MULAW"),
        (lambda c: c[:24] + bytes(4) + c[28:], "WAV header is invalid"),
        (lambda c: c[:22] + bytes(2) + c[24:], "cannot be read"),
    ],
)
def test_what_is_damaged_is_said_in_one_line(change: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(change(wav_of(np.arange(100, dtype=np.int16))))
    for place in (tmp_path / "a.wav", tmp_path):
        with pytest.raises(InputError) as error:
            load_data(place, length=8)
        assert words in str(error.value)
        assert "\n" not in str(error.value)


def test_random_damage_ends_in_one_line(tmp_path: Path) -> None:
    contents = [wav_of(samples_of(50, c, "int16").astype(np.int16)) for c in (1, 2)]
    for _ in range(300):
        broken = bytearray(contents[RNG.integers(2)])
        for at in RNG.integers(0, 60, 3):
            broken[at] = RNG.integers(256)
        (tmp_path / "a.wav").write_bytes(bytes(broken[: RNG.integers(1, len(broken))]))
        with contextlib.suppress(InputError):
            load_rows(tmp_path / "a.wav", length=4)


def test_samples_that_are_not_finite(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0, np.nan, 1], np.float32))
    with pytest.raises(InputError, match="it has samples that are NaN or infinite"):
        load_rows(tmp_path / "a.wav", length=1)


@pytest.mark.parametrize(
    ("x", "depth", "rate"),
    [(samples_of(32, 2, "int16"), "int16", 8000), (samples_of(32, 1, "int24"), "int24", 8000),
     (samples_of(32, 1, "int16"), "int16", 44_100)],
)  # fmt: skip
def test_recordings_that_differ_are_refused(x: np.ndarray, depth: str, rate: int, tmp_path: Path) -> None:
    write(tmp_path / "a.wav", samples_of(32, 1, "int16"), "int16")
    write(tmp_path / "b.wav", x, depth, rate)
    with pytest.raises(InputError, match=r"the recordings in .* differ: .*convert them to one rate, depth and number"):
        load_data(tmp_path, length=4)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("depth", DEPTHS)
def test_what_is_written_comes_back(depth: Any, channels: int, tmp_path: Path) -> None:
    x = torch.from_numpy(np.stack([samples_of(16, channels, depth) for _ in range(12)]))
    form = SoundForm(22_050, depth)
    for path, content in form.files(x, tmp_path / "out"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        with soundfile.SoundFile(path) as sound:
            assert (sound.samplerate, sound.subtype) == (22_050, SUBTYPES[depth])
    found = load_rows(tmp_path / "out", length=16)
    order = np.argsort(found.names)
    assert torch.equal(found.tensor[torch.from_numpy(order)].double(), x.double())
    assert found.form == form
    assert form_from_json(form.to_json()) == form
    ((path, content),) = form.files(x[:1], tmp_path / "one.wav")
    path.write_bytes(content)
    assert torch.equal(load_rows(path, length=16).tensor.double(), x[:1].double())


@pytest.mark.parametrize("depth", DEPTHS)
def test_waves_are_at_full_scale_and_come_back(depth: Any) -> None:
    x = torch.from_numpy(np.stack([samples_of(16, 1, depth) for _ in range(3)]))
    form = SoundForm(8000, depth)
    waves = form.waves(x)
    assert waves.dtype == torch.float32
    scale = {"uint8": 128, "int16": 32_768}.get(depth, 1)
    assert torch.allclose(waves.double(), (x.double() - (128 if depth == "uint8" else 0)) / scale, atol=1e-7)
    assert torch.allclose(form.raw(waves).double(), x.double(), atol=1e-7)
    if depth in ("uint8", "int16"):
        assert form.raw(3 * torch.ones(1, 2)).max() == {"uint8": 255, "int16": 32_767}[depth]
    law = SoundForm(8000, depth, mu_law=True)
    levels = torch.arange(256, dtype=torch.uint8)[None]
    assert torch.equal(law.raw(law.waves(levels)), levels)
    assert float(law.waves(levels).abs().max()) == 1


def test_louder_samples_are_cut_off() -> None:
    import io

    for depth in ("int24", "int32"):
        form = SoundForm(8000, depth)  # type: ignore[arg-type]
        ((_, content),) = form.files(torch.tensor([[-2.0, 2.0]]), Path("a.wav"))
        assert soundfile.read(io.BytesIO(content), dtype="int32")[0][0] == -(2**31)
        assert soundfile.read(io.BytesIO(content), dtype="int32")[0][1] > 2**31 - 257


def test_one_file_holds_one_recording() -> None:
    form = SoundForm(8000, "int16")
    with pytest.raises(InputError, match="is one file, but there are 3 recordings; name a folder: a"):
        list(form.files(torch.zeros(3, 4), Path("a.wav")))
    with pytest.raises(InputError, match=r"the suffix '\.mp3', but sound can be written to a folder \(no suffix\) or"):
        list(form.files(torch.zeros(1, 4), Path("a.mp3")))
