"""Names of files that are not UTF-8, or hold spaces and control characters, are read like others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from unsup.data.load import load_data, load_rows

NAMES = [b"caf\xe9", b"a b", b"-x", b"new\nline", b"\x1b[31m", "ü".encode(), b"%d {0} \\"]


@pytest.mark.parametrize("kind", ["png", "wav", "txt"])
@pytest.mark.parametrize("level", ["files", "folders"])
def test_any_name_is_read(kind: str, level: str, tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        stem = os.fsdecode(name)
        path = tmp_path / f"{stem}.{kind}" if level == "files" else tmp_path / stem / f"a.{kind}"
        path.parent.mkdir(exist_ok=True)
        if kind == "png":
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(path, "PNG")
        elif kind == "wav":
            wavfile.write(path, 8000, np.full(64, i, np.int16))
        else:
            path.write_text(f"{i}" * 64, encoding="utf-8")
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
