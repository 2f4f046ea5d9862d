"""The story of sound: fit on recordings as levels of the μ-law, evaluate, score, draw recordings of any duration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from unsup.cli.main import main
from unsup.data.load import load_rows

RATE = 4000
RNG = np.random.default_rng(0)


def write(folder: Path, name: str, pitch: int, rate: int = RATE) -> None:
    noise = RNG.normal(0, 0.02, rate // 4)
    x = 0.3 * np.sin(2 * np.pi * pitch * np.arange(rate // 4) / rate) + noise
    folder.mkdir(parents=True, exist_ok=True)
    wavfile.write(folder / name, rate, np.rint(x * 32_768).astype(np.int16))


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Recordings of two pitches, and a run on them given the pitch."""
    folder = tmp_path_factory.mktemp("sound")
    for pitch in (200, 500):
        for i in range(5):
            write(folder / "tones" / f"p{pitch}", f"{i}.wav", pitch)
    options = ["--mu-law", "--length", "100", "--steps", "20", "--preset", "tiny", "--plain", "--given", "label"]
    assert main(["fit", str(folder / "tones"), "wavenet", "-o", str(folder / "run"), *options]) == 0
    return folder


@pytest.mark.parametrize(("seconds", "samples"), [(0.5, 2000), (0.01, 40), (None, 100)])
def test_recordings_of_any_duration(story, call, tmp_path, seconds, samples):
    """One file is one recording, at the rate and depth of those that were read."""
    longer = [] if seconds is None else ["--seconds", seconds]
    found = call("sample", story / "run", *longer, "--given", "p500", "-o", tmp_path / "out.wav")
    assert found.status == 0, found.err
    assert found.out == f"1 sample of {story / 'run'} in {tmp_path / 'out.wav'}\n"
    rate, x = wavfile.read(tmp_path / "out.wav")
    assert (rate, x.dtype, x.shape) == (RATE, np.int16, (samples,))
    levels = load_rows(tmp_path / "out.wav", length=samples, mu_law=True).tensor
    assert len(levels.unique()) > 20
    again = call("sample", story / "run", *longer, "--given", "p500", "-o", tmp_path / "again.wav")
    assert again.status == 0
    assert (tmp_path / "again.wav").read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_folders_have_several_recordings(story, call, tmp_path):
    assert call("sample", story / "run", "--seconds", 0.1, "-n", 3, "-o", tmp_path / "out").status == 0
    assert [wavfile.read(tmp_path / "out" / f"{i}.wav")[1].shape for i in range(3)] == [(400,)] * 3
    found = call("sample", story / "run", "-n", 3, "-o", tmp_path / "out.wav")
    assert found.status == 2
    assert "is one recording, but 3 samples were requested; name a folder" in found.err


def test_pictures_of_other_durations_are_refused(story, call, tmp_path):
    found = call("sample", story / "run", "--seconds", 0.1, "-o", tmp_path / "out.png")
    assert found.status == 2
    assert "a picture has samples of 0.025 seconds" in found.err
    assert call("sample", story / "run", "--seconds", 0.025, "-n", 2, "-o", tmp_path / "out.png").status == 0


def test_recordings_are_completed_in_their_order_and_without_padding(story, call, tmp_path):
    sizes = {"a": 130, "b": 100, "c": 20, "d": 90, "e": 210}
    made = {name: RNG.integers(-9000, 9000, size).astype(np.int16) for name, size in sizes.items()}
    (tmp_path / "in").mkdir()
    for name, x in made.items():
        wavfile.write(tmp_path / "in" / f"{name}.wav", RATE, x)
    windows = [x[:100] for x in made.values()]
    drawn = []
    for seed in range(2):
        words = ("--seconds", 0.015, "--given", "p200", "--seed", seed, "-o", tmp_path / f"out{seed}")
        found = call("complete", story / "run", tmp_path / "in", *words)
        assert found.status == 0, found.err
        drawn.append([wavfile.read(path)[1].astype(int) for path in sorted((tmp_path / f"out{seed}").iterdir())])
    for one, other, window in zip(*drawn, windows, strict=True):
        known = min(60, len(window))
        assert np.abs(one[:known] - window[:known]).max() < 300  # of the μ-law
        assert (one[:known] == other[:known]).all()
        assert (one[known : known + 40] != other[known : known + 40]).any()
    assert "of the first window of a recording; 3 later windows left out" in found.err
    assert sorted(path.name for path in (tmp_path / "out0").iterdir()) == [f"{name}.wav" for name in made]
    words = ("--seconds", 0.015, "--given", "p200", "-o", tmp_path / "nested")
    assert call("complete", story / "run", story / "tones", *words).status == 0
    assert (tmp_path / "nested" / "p500" / "4.wav").is_file()
    words = ("--seconds", 0.015, "--given", "p200", "-o", tmp_path / "e.wav")
    assert call("complete", story / "run", tmp_path / "in" / "e.wav", *words).status == 0
    assert np.abs(wavfile.read(tmp_path / "e.wav")[1][:60] - made["e"][:60]).max() < 300


def test_eval_and_score_read_sound_as_the_run_does(story, call, tmp_path):
    found = call("eval", story / "run")
    assert found.status == 0
    assert "[exact, of p(x | c)]" in found.out
    write(tmp_path, "a.wav", 200, 2 * RATE)
    found = call("score", story / "run", tmp_path / "a.wav", "--given", "p200")
    assert found.status == 0, found.err
    assert len(found.out.splitlines()) == 1 + 10
    assert f"a.wav: resampled 1 recording of {2 * RATE} Hz to {RATE} Hz" in found.err


def test_other_runs_have_no_duration(story, call, tmp_path):
    assert call("fit", "digits", "made", "-o", tmp_path / "made", "--steps", "2", "--preset", "tiny").status == 0
    found = call("sample", tmp_path / "made", "--seconds", 2, "-o", tmp_path / "x.npy")
    assert found.status == 2
    assert "--seconds 2 is for sound, but this run is of image of 1×8×8" in found.err
    options = ["--mu-law", "--length", "50", "--steps", "2", "--preset", "tiny"]
    for model in ("transformer", "made"):
        assert call("fit", story / "tones", model, "-o", tmp_path / f"{model}-s", *options).status == 0
        found = call("sample", tmp_path / f"{model}-s", "--seconds", 2, "-o", tmp_path / "x.wav")
        assert found.status == 2
        assert "length of its event only (0.0125 seconds); remove --seconds 2" in found.err
    assert call("sample", story / "run", "--seconds", -1, "-o", tmp_path / "x.wav").status == 2
