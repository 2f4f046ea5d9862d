"""The benchmark of sound features on recordings of a few tones: a vector for each recording, labels, and its table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks import sound_features

import unsup
from unsup.core.event import Event, Support
from unsup.data import mulaw
from unsup.data.examples import Examples

LENGTH, TAKES = 600, 10
SPEAKERS = ("ann", "bob")


def _examples(sizes: tuple[int, ...]) -> Callable[..., Examples]:
    """Two windows for each recording of two digits, tones of 400 and 900 Hz, by a quiet and a loud speaker."""

    def fsdd(*, length: int, mu_law: bool) -> Examples:
        generator = torch.Generator().manual_seed(0)
        x, names = [], []
        for part in sizes:
            for digit, speaker, take in ((d, s, t) for d in range(2) for s in range(2) for t in range(part)):
                t = torch.arange(2 * length) / sound_features.RATE
                tone = 0.05 * 8**speaker * torch.sin(6.2832 * (400 + 500 * digit) * t)
                noise = 0.002 * torch.randn(2 * length, generator=generator)
                x.append((tone + noise).view(2, length))
                names += [f"{digit}_{SPEAKERS[speaker]}_{part}{take}.wav 0.{at}75 s" for at in (0, 1)]
        levels = torch.from_numpy(mulaw.encoded(torch.cat(x).double().numpy()))
        event = Event((length,), Support("ordinal", 256 if mu_law else 65_536), "sequence")
        return Examples(levels, event, tuple(names), sizes=tuple(8 * part for part in sizes))

    return fsdd


def test_recordings_have_the_mean_of_their_windows_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound_features, "fsdd", _examples((3, 2, 1)))
    found = sound_features.Recordings(Event((LENGTH,), Support("ordinal", 256), "sequence"))
    assert len(found.names) == 4 * 6
    assert found.part.tolist() == [0] * 12 + [1] * 8 + [2] * 4
    assert found.label("digit")[:12].tolist() == [0] * 6 + [1] * 6
    assert found.label("speaker")[:12].tolist() == [0, 0, 0, 1, 1, 1] * 2
    windows = torch.arange(48.0)[:, None]
    assert found.mean(windows).flatten().tolist() == [2 * i + 0.5 for i in range(24)]
    assert found.samples().abs().max() <= 1
    assert found.samples()[-1].abs().max() > 0.3


def test_the_table_has_mfcc_a_random_encoder_and_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sound_features, "fsdd", _examples((8, 4, 4)))
    event = Event((LENGTH,), Support("ordinal", 256), "sequence")
    data = unsup.load_data(_examples((8, 4, 4))(length=LENGTH, mu_law=True).x, event=event)
    model = unsup.create("cpc", event, width=8, context=8)
    unsup.fit(model, data, out=tmp_path / "run", steps=2, progress="off")
    sound_features.main(["--test", str(tmp_path / "run")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].split(" (")[0].strip() for line in lines[2:]] == [
        "most frequent class",
        "moments of MFCC",
        f"random encoder of {tmp_path / 'run'}",
        str(tmp_path / "run"),
    ]
    assert "32 and 16 recordings" in lines[2]
    assert lines[3].split("|")[3:5] == [" 1.0000 [0.8064, 1.0000] "] * 2


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks", "sound_features", str(tmp_path / "none")]
    found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert found.returncode == 1
    assert found.stderr.startswith("benchmarks: error: ")
    assert found.stderr.count("\n") == 1
