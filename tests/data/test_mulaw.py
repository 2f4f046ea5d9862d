"""Sound as levels of the μ-law, and at another rate: by the closed form, in both directions, from files to files."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.data import load_data, mulaw
from unsup.data.form import form_from_json
from unsup.data.load import load_batch, load_rows
from unsup.data.sound import SoundForm

RNG = np.random.default_rng(0)
EVERY = np.arange(256)
MU_LAW = Support("ordinal", 256)


def test_levels_are_those_of_the_formula() -> None:
    for x in (-1.0, -0.5, -1e-3, 0.0, 1e-5, 0.02, 1.0):
        f = np.sign(x) * np.log(1 + 255 * abs(x)) / np.log(256)
        assert mulaw.encoded(np.array([x]))[0] == int(np.floor((f + 1) / 2 * 255 + 0.5))
    assert mulaw.encoded(np.zeros(1)) == 128  # exactly between two levels: the upper one
    assert mulaw.encoded(np.array([-7.0, 7.0])).tolist() == [0, 255]


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_levels_keep_the_order_and_half_a_step(a: float, b: float) -> None:
    low, high = mulaw.encoded(np.array(sorted((a, b))))
    assert low <= high
    # The error on the scale of f is at most half a step, 1 / 255.
    f = np.sign(a) * np.log1p(255 * abs(a)) / np.log(256)
    level = int(mulaw.encoded(np.array([a]))[0])
    assert abs(2 * level / 255 - 1 - f) <= 1 / 255 + 1e-12


def test_a_decoded_level_is_encoded_as_itself() -> None:
    x = mulaw.decoded(EVERY)
    assert x[0] == -1
    assert x[-1] == 1
    assert np.array_equal(x, -x[::-1])
    assert np.array_equal(mulaw.encoded(x), EVERY)


@pytest.mark.parametrize("depth", ["int16", "int24", "int32", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_of_every_depth_come_back(depth: str, channels: int, tmp_path: Path) -> None:
    """Levels → a file of the depth → the same levels."""
    x = torch.from_numpy(RNG.permutation(np.repeat(EVERY, 2)).astype(np.uint8)).view(1, -1)
    x = x.view(1, -1, 2) if channels == 2 else x
    form = SoundForm(16_000, depth, mu_law=True)  # type: ignore[arg-type]
    ((path, content),) = form.files(x, tmp_path / "a.wav")
    path.write_bytes(content)
    found = load_rows(path, length=x.shape[1], mu_law=True)
    assert torch.equal(found.tensor, x)
    assert found.event == Event(x.shape[1:], MU_LAW, "sequence")
    assert found.event.dtype == found.tensor.dtype
    assert found.form == form
    assert form_from_json(form.to_json()) == form
    plain = load_rows(path, length=x.shape[1])
    assert plain.form == SoundForm(16_000, depth)  # type: ignore[arg-type]
    in_unit = plain.tensor.double() / (32_768 if depth == "int16" else 1)
    assert torch.equal(torch.from_numpy(mulaw.encoded(in_unit.numpy())), x)


def test_8_bits_are_read_and_written_too(tmp_path: Path) -> None:
    x = np.arange(256, dtype=np.uint8)
    wavfile.write(tmp_path / "a.wav", 8000, x)
    found = load_rows(tmp_path / "a.wav", length=256, mu_law=True)
    assert np.array_equal(found.tensor[0].numpy(), mulaw.encoded((x.astype(float) - 128) / 128))
    assert found.form is not None
    ((_, content),) = found.form.files(found.tensor, tmp_path / "b.wav")
    (tmp_path / "b.wav").write_bytes(content)
    again = wavfile.read(tmp_path / "b.wav")[1]
    assert again.dtype == np.uint8
    assert int(np.abs(again.astype(int) - x).max()) <= 3  # the coarsest levels are 5.6 of 256 apart


def test_a_form_of_before_is_not_of_the_mu_law() -> None:
    record = {"form": "sound", "rate": 8000, "depth": "int16"}
    assert form_from_json(record) == SoundForm(8000, "int16", mu_law=False)


def test_louder_samples_are_cut_off_and_said(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0, 2.0, -1.5, 1.0], np.float32))
    found = load_rows(tmp_path / "a.wav", length=4, mu_law=True)
    assert found.tensor.tolist() == [[128, 255, 0, 255]]
    assert found.notes == ("cut off 2 samples outside −1 … 1",)


# ---------------------------------------------------------------- rates


def tone(rate: int, seconds: float = 1.0, channels: int = 1, depth: str = "int16") -> np.ndarray:
    """440 Hz, at 0.5."""
    x = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    x = np.stack([x, -x], 1) if channels == 2 else x
    return {
        "int16": lambda: np.rint(x * 32_768).astype(np.int16),
        "uint8": lambda: (np.rint(x * 128) + 128).astype(np.uint8),
        "float32": lambda: x.astype(np.float32),
    }[depth]()


@pytest.mark.parametrize("depth", ["int16", "uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("own", [16_000, 44_100, 6_000])
def test_a_tone_stays_a_tone_at_another_rate(own: int, channels: int, depth: str, tmp_path: Path) -> None:
    wavfile.write(tmp_path / "a.wav", own, tone(own, channels=channels, depth=depth))
    found = load_rows(tmp_path / "a.wav", length=8000, rate=8000)
    expected = tone(8000, channels=channels, depth=depth).astype(float)
    scale = {"int16": 32_768, "uint8": 128, "float32": 1}[depth]
    assert found.tensor.shape[1:] == expected.shape
    error = np.abs(found.tensor[0].numpy().astype(float) - expected)[100:-100] / scale  # the ends are those of a filter
    assert error.max() < {"int16": 2e-3, "uint8": 1.2e-2, "float32": 2e-3}[depth]
    assert found.form == SoundForm(8000, depth)  # type: ignore[arg-type]
    assert found.rate == 8000
    assert found.notes == (f"resampled 1 recording of {own} Hz to 8000 Hz: a.wav",)


def test_resampled_levels_stay_in_their_range(tmp_path: Path) -> None:
    """A filter overshoots at the edges of a square wave."""
    x = np.where(np.arange(4000) // 50 % 2 == 0, 32_767, -32_768).astype(np.int16)
    wavfile.write(tmp_path / "a.wav", 4000, x)
    found = load_rows(tmp_path / "a.wav", length=7000, rate=7000)
    assert bool(found.event.contains(found.tensor).all())
    assert int(found.tensor.max()) == 32_767


def test_recordings_of_several_rates(tmp_path: Path) -> None:
    for i, rate in enumerate((8000, 16_000, 16_000, 8000)):
        wavfile.write(tmp_path / f"{i}.wav", rate, tone(rate, 0.1))
    with pytest.raises(InputError, match=r"differ: 8000 Hz 16 bits \(.*\), 16000 Hz 16 bits \(.*, or resample them "
                                         r"with --rate 8000 \(rate=8000\)$"):  # fmt: skip
        load_data(tmp_path, length=100)
    data = load_data(tmp_path, length=100, rate=8000)
    assert "resampled 2 recordings of 16000 Hz to 8000 Hz: 2.wav, 1.wav" in "".join(data.notes).replace(
        "1.wav, 2.wav", "2.wav, 1.wav"
    )
    assert len(data.train) + len(data.validation) + len(data.test) == 4 * 8
    with pytest.raises(InputError, match="rate=0"):
        load_data(tmp_path, length=100, rate=0)


def test_other_files_are_read_as_those_of_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`load_batch` with the form of the data: at its rate, in its levels, and it says so."""
    wavfile.write(tmp_path / "a.wav", 8000, tone(8000))
    wavfile.write(tmp_path / "b.wav", 16_000, tone(16_000, depth="float32"))
    data = load_data(tmp_path / "a.wav", length=400, mu_law=True)
    with caplog.at_level(logging.WARNING):
        own, _ = load_batch(tmp_path / "a.wav", data.event, form=data.form)
        other, names = load_batch(tmp_path / "b.wav", data.event, form=data.form)
    assert own.x.shape == other.x.shape == (20, 400)
    assert int((own.x.int() - other.x.int())[1:-1].abs().max()) <= 4
    assert names[1] == "b.wav 0.050 s"
    assert "resampled 1 recording of 16000 Hz to 8000 Hz: b.wav" in caplog.text
    assert "a.wav: resampled" not in caplog.text


@pytest.mark.parametrize("channels", [1, 2])
def test_with_a_tail_every_sample_is_in_one_window(channels: int, tmp_path: Path) -> None:
    sizes = (250, 100, 30)
    sounds = [RNG.integers(-9, 9, (n, channels)).astype(np.int16) for n in sizes]
    for i, x in enumerate(sounds):
        wavfile.write(tmp_path / f"{i}.wav", 8000, x[:, 0] if channels == 1 else x)
    found = load_rows(tmp_path, length=100, tail=True)
    assert found.lengths is not None
    rows = sorted(zip(found.names, found.tensor, found.lengths.tolist(), strict=True), key=lambda row: row[0])
    assert [(name, length) for name, _, length in rows] == [
        ("0.wav 0.000 s", 100), ("0.wav 0.013 s", 100), ("0.wav 0.025 s", 50), ("1.wav 0.000 s", 100),
        ("2.wav 0.000 s", 30),
    ]  # fmt: skip
    assert np.array_equal(
        np.concatenate([x.reshape(100, channels)[:n] for _, x, n in rows]), np.concatenate(sounds).astype(int)
    )
    assert found.notes == ()
    assert found.form == SoundForm(8000, "int16", tail=True)
    assert {k: v.tolist() for k, v in found.form.units(found.tensor, found.lengths).items()} == {
        "sample": (channels * found.lengths).tolist()
    }
    assert found.form.units(found.tensor, None)["sample"].tolist() == [100 * channels] * 5
    batch, _ = load_batch(tmp_path / "0.wav", found.event, form=found.form)
    assert batch.lengths is not None
    assert batch.lengths.tolist() == [100, 100, 50]
