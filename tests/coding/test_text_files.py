"""Texts come back byte for byte, with what the model does not know beside it."""

from __future__ import annotations

import io
import json
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unsup
from unsup.coding.archive import Archive
from unsup.coding.chunks import ChunkCoder
from unsup.coding.container import Container
from unsup.coding.packing import Packed, sources_of, write_archive
from unsup.coding.text_files import Text
from unsup.core.errors import InputError
from unsup.core.model import Model
from unsup.data.form import Form
from unsup.train.trainer import fit

LENGTH = 8
Trained = tuple[Model, Form]


def prose(n: int, seed: int = 0, letters: str = 20 * "e" + "tao\n") -> str:
    return "".join(np.random.default_rng(seed).choice(list(letters), n))


@pytest.fixture(scope="module", params=["bytes", "characters"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("text") / "train.txt"
    path.write_text(prose(20_000) + "é" * 40)
    data = unsup.load_data(path, tokens=request.param, length=LENGTH)
    model = unsup.create("made", data, hidden=(8,), seed=0)
    fit(model, data, steps=10, batch_size=16, progress="off")
    assert data.form is not None
    return model, data.form


def packed(trained: Trained, path: Path) -> tuple[bytes, Packed]:
    model, form = trained
    file = io.BytesIO()
    found = write_archive(file, model, ChunkCoder(model), sources_of([path]), form=form)
    return file.getvalue(), found


def restored(trained: Trained, data: bytes, out: Path, only: range | None = None) -> bytes:
    archive = Archive(Container(io.BytesIO(data), "it"))
    (name,) = archive.restore(out, archive.coder(trained[0]), only=only)
    return (out / name).read_bytes()


CASES = {
    "whole windows": prose(400 * LENGTH),
    "a rest": prose(400 * LENGTH + 5),
    "a rest that ends in an accent": prose(400 * LENGTH + 5) + "é",
    "unseen characters": prose(700) + "Ж" + prose(700, 1) + "\U0001f600\0\r\n" + prose(30),
    "byte order mark": "\ufeff" + prose(800),
    "many windows": prose(6000 * LENGTH + 3),
}


@pytest.mark.parametrize("name", CASES)
def test_a_text_comes_back_byte_for_byte(name: str, trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(CASES[name].encode())
    data, found = packed(trained, path)
    assert (found.with_model, found.why) == (1, {})
    assert restored(trained, data, tmp_path / "out") == path.read_bytes()


def test_its_length_is_that_of_the_model(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(prose(4000 * LENGTH, 3))
    model, form = trained
    _, done = packed(trained, path)
    found = Text.read(path, model.event, form)  # type: ignore[arg-type]
    assert not isinstance(found, str)
    with torch.no_grad():
        ideal = -float(model.log_prob(found[1].to(model.event.dtype)).sum()) / np.log(2) / 8
    assert ideal < sum(done.ways.values()) < 1.01 * ideal + 200


KEPT = {
    "empty": b"",
    "shorter than a window": b"tea\n",
    "random": np.random.default_rng(0).bytes(3000),
    "ISO 8859-1": prose(2000).encode() + b"\xe9" + np.random.default_rng(0).bytes(3000),
    "smaller without the model": b"tea " * 4000,
}


@pytest.mark.parametrize("name", KEPT)
def test_other_files_are_kept_as_they_are(name: str, trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(KEPT[name])
    data, found = packed(trained, path)
    assert sum(found.why.values()) == 1
    assert found.with_model == 0
    assert restored(trained, data, tmp_path / "out") == path.read_bytes()


def test_files_of_other_kinds_are_kept(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "book.gz"
    path.write_text(prose(2000))
    assert packed(trained, path)[1].why == {".gz files": 1}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.one_of(st.text(max_size=20), st.binary(max_size=20)), max_size=6),
    more=st.integers(0, 3 * LENGTH),
)
def test_any_content(parts: list[str | bytes], more: int, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    path = folder / "book.txt"
    content = b"".join(part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass") for part in parts)
    path.write_bytes(prose(2000 + more).encode() + content)
    data, _ = packed(trained, path)
    assert restored(trained, data, folder / "out") == path.read_bytes()


def test_some_windows_of_a_text(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(prose(5000 * LENGTH + 3, 2))
    data, _ = packed(trained, path)
    content = path.read_bytes()
    assert restored(trained, data, tmp_path / "a", range(3, 10)) == content[3 * LENGTH : 10 * LENGTH]
    assert restored(trained, data, tmp_path / "b", range(4990, 5000)) == content[4990 * LENGTH :]


def test_progress_ends_at_the_size_of_the_file(trained: Trained, tmp_path: Path) -> None:
    model, form = trained
    for number, content in enumerate((prose(5000 * LENGTH), "tea " * 4000)):
        path = tmp_path / f"{number}.txt"
        path.write_text(content)
        done: list[int] = []
        sources = sources_of([path])
        write_archive(io.BytesIO(), model, ChunkCoder(model), sources, form=form, on_bytes=done.append)
        assert sum(done) == len(content)


SIDE = {"odd": [], "rest": ""}
FORGED = {
    "not a list of characters": [[], {"odd": 3, "rest": ""}, {"odd": [], "rest": 3}, {"odd": [], "rest": "Ж"}],
    "instead of a place and a character": [SIDE | {"odd": odd} for odd in ([3], [[3]], [[-1, "a"]], [[32, "a"]])],
    "instead of a character": [SIDE | {"odd": [[3, character]]} for character in (3, "", "ab", None)],
    "not valid text": [SIDE | {"odd": [[3, "\ud800"]]}],
}


@pytest.mark.parametrize("reason", FORGED)
def test_what_is_beside_the_windows_is_checked(reason: str) -> None:
    text = Text("uint8", "ab")
    for side in FORGED[reason]:
        with pytest.raises(InputError, match=reason):
            text.rows(torch.zeros(2, LENGTH, dtype=torch.uint8), json.dumps(side).encode(), range(2), last=True)
    with pytest.raises(InputError, match="not those of 2 characters"):
        text.rows(torch.full((2, LENGTH), 2, dtype=torch.uint8), json.dumps(SIDE).encode(), range(2), last=True)


def test_alphabets_are_checked(trained: Trained) -> None:
    with pytest.raises(InputError, match="not different"):
        Text("uint8", "aa")
    with pytest.raises(InputError, match="not text"):
        Text("uint8", "\ud800")
    with pytest.raises(InputError, match="do not fit"):
        Text("uint8", "ab").check(trained[0].event)
