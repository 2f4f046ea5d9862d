"""Folders: any names of files are read, in an order that does not depend on the file system."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from unsup.data.load import load_data, load_rows

NAMES = [b"caf\xe9", b"a b", b"-x", b"new\nline", b"\x1b[31m", "ü".encode(), b"%d {0} \\"]


def write(path: Path, i: int) -> None:
    """A small file of the kind of its suffix, with a content of its own."""
    path.parent.mkdir(exist_ok=True)
    match path.suffix:
        case ".png":
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(path, "PNG")
        case ".wav":
            wavfile.write(path, 8000, np.full(64, i, np.int16))
        case ".npy":
            with path.open("wb") as file:
                np.save(file, np.full((4, 3), i / 2) + np.arange(4)[:, None])
        case _:
            path.write_text(f"{i % 10}" * 64, encoding="utf-8")


@pytest.mark.parametrize("kind", ["png", "wav", "txt"])
@pytest.mark.parametrize("level", ["files", "folders"])
def test_any_name_is_read(kind: str, level: str, tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        stem = os.fsdecode(name)
        path = tmp_path / f"{stem}.{kind}" if level == "files" else tmp_path / stem / f"a.{kind}"
        write(path, i)
    found = load_rows(tmp_path, **({} if kind == "png" else {"length": 64}))
    assert len(found.names) == len(NAMES)
    stems = {os.fsencode(name.rsplit(" ", 2)[0] if kind != "png" else name) for name in found.names}
    assert stems == {name + (f".{kind}" if level == "files" else f"/a.{kind}").encode() for name in NAMES}
    if level == "folders":
        assert found.labels is not None
        assert {os.fsencode(label) for label in found.labels} == set(NAMES)
    data = load_data(tmp_path, **({} if kind == "png" else {"length": 16}))
    again = json.loads(json.dumps(data.to_json()))
    assert load_data(again["name"], **again["options"]).digest == data.digest


@pytest.mark.parametrize("kind", ["png", "wav", "txt", "npy"])
@pytest.mark.parametrize("level", ["files", "folders"])
def test_the_order_in_which_files_are_listed_does_not_matter(
    kind: str, level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (kind, level) == ("npy", "folders"):
        pytest.skip("shards have no subfolders")
    for i in range(24):
        write(tmp_path / f"{i}.{kind}" if level == "files" else tmp_path / "ba"[i % 2] / f"{i}.{kind}", i)
    options = {"length": 8} if kind in ("wav", "txt") else {}
    before, scan, names = load_data(tmp_path, **options), os.scandir, os.listdir
    rng = np.random.default_rng(0)

    @contextlib.contextmanager
    def shuffled(path: Any) -> Iterator[list[os.DirEntry[str]]]:
        with scan(path) as entries:
            found = list(entries)
        yield [found[i] for i in rng.permutation(len(found))]

    monkeypatch.setattr(os, "scandir", shuffled)
    monkeypatch.setattr(os, "listdir", lambda path: rng.permutation(names(path)).tolist())
    after = load_data(tmp_path, **options)
    assert (after.digest, after.labels) == (before.digest, before.labels)
    assert torch.equal(after.train.x, before.train.x)
