"""Runs in folders that may not be written: everything that only reads goes on, and what cannot be saved is said."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unsup
from unsup.core.errors import InputError
from unsup.train.runs import Run, open_run

ALONE = """mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@" """


@pytest.fixture
def sealed(monkeypatch):
    """``sealed(folder)``: from then on no file in it can be opened to write, as on a read-only disk."""
    folders: list[Path] = []
    path_open, os_open = pathlib.Path.open, os.open

    def refuse(path, writes):
        if writes and any(f in Path(os.fsdecode(path)).absolute().parents for f in folders):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def path_opened(self, mode="r", *rest, **more):
        refuse(self, set(mode) & set("wax+"))
        return path_open(self, mode, *rest, **more)

    def os_opened(path, flags, *rest, **more):
        refuse(path, flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        return os_open(path, flags, *rest, **more)

    monkeypatch.setattr(pathlib.Path, "open", path_opened)
    monkeypatch.setattr(os, "open", os_opened)
    return folders.append


@pytest.fixture
def read_only(runs, tmp_path, sealed):
    """``read_only(name)``: a copy of a finished run of that model, sealed."""

    def copy(name):
        shutil.copytree(runs / name, tmp_path / name)
        sealed(tmp_path / name)
        return tmp_path / name

    return copy


def contents(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def said(text: str, run: Path) -> None:
    (line,) = text.splitlines()
    assert line.startswith(f"unsup: note: the result is not saved: cannot write {run}/eval.json")
    assert f"no write permission for {run}" in line
    assert "free some space" not in line


def test_a_read_only_run_is_evaluated_and_only_saving_fails(call, runs, read_only):
    expected = json.loads(call("eval", runs / "made", "--json").out)["figures"]
    run = read_only("made")
    before = contents(run)
    found = call("eval", run, "--json")
    assert found.status == 0
    assert json.loads(found.out)["figures"] == expected
    said(found.err, run)
    found = call("eval", run)
    assert found.status == 0
    assert f"{expected['likelihood']['value']:.3f}" in found.out
    said(found.err, run)
    found = call("eval", run, "--samples", 20, "--json")
    assert found.status == 0
    assert json.loads(found.out)["figures"]["fid"]["value"] > 0
    said(found.err, run)
    assert contents(run) == before


def test_a_full_disk_costs_no_result_either(call, runs, tmp_path, monkeypatch):
    shutil.copytree(runs / "made", tmp_path / "r")
    path_open = pathlib.Path.open

    def full(self, mode="r", *rest, **more):
        if set(mode) & {"w", "x"} and self.parent == tmp_path / "r":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))
        return path_open(self, mode, *rest, **more)

    monkeypatch.setattr(pathlib.Path, "open", full)
    found = call("eval", tmp_path / "r")
    assert found.status == 0
    assert "nats" in found.out
    assert "the result is not saved" in found.err
    assert "free some space" in found.err


def test_a_read_only_run_is_sampled_scored_encoded_and_shown(call, read_only, tmp_path):
    run = read_only("nice")
    x = unsup.load_data("digits", limit=200).test.x[:7]
    np.save(tmp_path / "x.npy", x.numpy())
    for words in (
        ("sample", run, "-n", 4, "-o", tmp_path / "s.npy"),
        ("score", run, tmp_path / "x.npy", "-o", tmp_path / "s.csv"),
        ("encode", run, tmp_path / "x.npy", "-o", tmp_path / "z.npz"),
        ("cite", run),
    ):
        found = call(*words)
        assert found.status == 0, found.err
        assert found.err == ""
    assert open_run(run).model.log_prob(x).isfinite().all()
    assert unsup.load(run) is not None
    assert len(unsup.load_data(f"codes:{run}").train) > 0


def test_going_on_with_a_read_only_run_is_refused_unless_it_is_finished(call, runs, tmp_path, sealed):
    shutil.copytree(runs / "made", tmp_path / "done")
    data = unsup.load_data("digits", limit=200)
    model = unsup.create("made", data.event, preset="tiny")
    unsup.fit(model, data, out=tmp_path / "begun", steps=3, progress="off")
    Run(tmp_path / "begun").checkpoint("last").unlink()
    Run(tmp_path / "begun").checkpoint("best").unlink()
    sealed(tmp_path)
    found = call("fit", "--resume", "-o", tmp_path / "done")
    assert found.status == 0
    assert "has already finished" in found.err
    found = call("fit", "--resume", "-o", tmp_path / "begun")
    assert found.status == 2
    (line,) = found.err.splitlines()
    assert "cannot lock" in line
    assert f"no write permission for {tmp_path / 'begun'}" in line
    with pytest.raises(InputError, match="no write permission for"):
        unsup.fit(model, data, out=tmp_path / "begun", resume=True, steps=3, progress="off")


def test_on_a_disk_mounted_read_only(runs, tmp_path):
    shutil.copytree(runs / "made", tmp_path / "r")
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-c", ALONE, "sh", str(tmp_path / "r")]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount")
    for words, status in (
        (("eval", "RUN"), 0),
        (("sample", "RUN", "-n", "4", "-o", str(tmp_path / "s.npy")), 0),
        (("fit", "--resume", "-o", "RUN"), 0),
    ):
        command = [sys.executable, "-m", "unsup", *(w.replace("RUN", str(tmp_path / "r")) for w in words)]
        done = subprocess.run([*alone, *command], capture_output=True, text=True)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        if words[0] == "eval":
            assert "nats" in done.stdout
            assert "Read-only file system" in done.stderr
            said(done.stderr, tmp_path / "r")
