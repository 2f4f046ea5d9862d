"""Text is read as UTF-8 whatever its encoding; formats that are not read are refused by name, or read as bytes."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch

from unsup.cli.main import main
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.data import load_data, load_examples
from unsup.data.form import form_from_json
from unsup.data.load import load_batch, load_rows, load_supported, options_taken
from unsup.data.text import TextForm
from unsup.data.unread import _SUFFIXES
from unsup.data.windows import file_of

RNG = np.random.default_rng(0)
TEXT = "Ein Text über Käse, «déjà vu» – und “quotes”.\nLine two\tof it.\n" * 20
WESTERN = TEXT.replace("–", "-")


def content_of(x: torch.Tensor) -> bytes:
    return x.to(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    ("encoding", "mark", "note"),
    [
        ("utf-8", b"", None),
        ("utf-8", codecs.BOM_UTF8, None),
        ("utf-16-le", codecs.BOM_UTF16_LE, "converted from UTF-16 to UTF-8"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "converted from UTF-16 to UTF-8"),
        ("utf-32-le", codecs.BOM_UTF32_LE, "converted from UTF-32 to UTF-8"),
        ("utf-32-be", codecs.BOM_UTF32_BE, "converted from UTF-32 to UTF-8"),
        ("cp1252", b"", "not UTF-8: read as Latin-1 (Windows-1252), and converted to UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz", "a.md.bz2", "a.txt.xz"])
def test_text_of_every_encoding(encoding: str, mark: bytes, note: str | None, name: str, tmp_path: Path) -> None:
    text = WESTERN if encoding == "cp1252" else TEXT
    content = mark + text.encode(encoding)
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(content))
    found = load_rows(tmp_path / name, length=1)
    assert found.event == Event((1,), Support("nominal", 256), "sequence")
    assert content_of(found.tensor) == text.encode()
    assert found.notes == (() if note is None else (note,))
    folder = load_rows(tmp_path, length=1)
    assert content_of(folder.tensor) == text.encode()
    assert folder.notes == (() if note is None else (f"converted 1 texts to plain UTF-8: {name}",))


def test_latin_1_without_windows_characters(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("café señor\n".encode("latin-1") * 20)
    assert content_of(load_rows(tmp_path / "a.txt", length=1).tensor) == "café señor\n".encode() * 20


@pytest.mark.parametrize("name", ["a.py", "a", "a.html", "a.tex", "LICENSE", "a.log", "a.b.c"])
def test_any_file_in_utf_8_is_text(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXT, encoding="utf-8")
    found = load_rows(tmp_path / name)
    assert content_of(found.tensor) == TEXT.encode()[: found.tensor.numel()]
    assert isinstance(found.form, TextForm)


def test_a_character_at_the_end_of_the_look_ahead(tmp_path: Path) -> None:
    content = b"a" * (2**20 - 1) + "é".encode() * 10
    (tmp_path / "a").write_bytes(content)
    assert content_of(load_rows(tmp_path / "a", length=1).tensor) == content


def test_a_folder_of_texts(tmp_path: Path) -> None:
    for folder in ("poems", "prose"):
        (tmp_path / folder).mkdir()
        for i in range(6):
            (tmp_path / folder / f"{i}.txt").write_text(f"{folder} {i} " * 10, encoding="utf-8")
    (tmp_path / "prose" / "short.txt").write_text("x", encoding="utf-8")
    (tmp_path / "prose" / "bad.txt").write_bytes(bytes(100))
    (tmp_path / "notes.doc").write_bytes(b"")
    found = load_rows(tmp_path, length=20)
    assert found.labels == ("poems", "prose")
    assert found.notes == (
        "ignored 1 files or folders that are not texts: notes.doc",
        "skipped 1 of 14 texts that cannot be read: prose/bad.txt (its byte 0 is the control character 0x00)",
        "ignored 1 text shorter than 20 bytes: prose/short.txt",
    )
    assert found.label is not None
    files = [name.split(" ")[0] for name in found.names]
    assert [found.labels[i] for i in found.label] == [name.split("/")[0] for name in files]
    first = {name: files.index(name) for name in files}
    assert all(files[i] == files[i - 1] or first[files[i]] == i for i in range(1, len(files)))  # windows stay together
    for i, name in enumerate(files):
        at = int(found.names[i].split(" ")[-1])
        assert content_of(found.tensor[i]) == (tmp_path / name).read_bytes()[at : at + 20]
    data = load_data(tmp_path, length=20)
    assert data.split == "80/10/10 in hashed order of the files"


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_json_lines(name: str, tmp_path: Path) -> None:
    texts = ["first é", "second\nline", "", "fourth"]
    lines = "\n".join(json.dumps({"id": i, "text": text, "title": "t"}) for i, text in enumerate(texts)) + "\n\n"
    (tmp_path / name).write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    found = load_rows(tmp_path / name, field="text", length=1)
    assert content_of(found.tensor) == "\n".join(texts).encode()
    assert found.notes == ("the 4 texts of the field 'text' are joined by newlines",)
    with pytest.raises(InputError, match=r"line 1 has 2 fields with text \(text, title\); choose one with --field"):
        load_rows(tmp_path / name, length=1)
    with pytest.raises(InputError, match=r"line 1 has no field 'txt'; did you mean 'text'\?"):
        load_rows(tmp_path / name, field="txt", length=1)
    with pytest.raises(InputError, match="line 1 has no text in 'id'"):
        load_rows(tmp_path / name, field="id", length=1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "line 2 is not JSON"),
        (b"[1]", "line 2 is not an object"),
        (b"[" * 100_000, "line 2 is not JSON"),
        (b'{"text": null}', "line 2 has no text in 'text'"),
        (b'{"text": "\x00"}', "is not text"),
    ],
)
def test_json_lines_that_are_damaged(line: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b"\n")
    with pytest.raises(InputError) as error:
        load_rows(tmp_path / "a.jsonl", length=1)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- what is not read


@pytest.mark.parametrize("suffix", sorted(_SUFFIXES))
@pytest.mark.parametrize("content", [TEXT.encode(), bytes(range(256))])
def test_known_formats_are_refused_by_name(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"data{suffix.upper() if suffix == '.mat' else suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load_data(path)
    message = str(error.value)
    assert message.startswith(f"{path} is ")
    assert f"({suffix}), which is not read; " in message
    assert message.endswith("or use its bytes with --as bytes (as_='bytes')")
    assert "\n" not in message
    data = load_data(path, as_="bytes", length=8)
    assert content_of(torch.cat([data.train.x, data.validation.x, data.test.x])) == content[: 8 * (len(content) // 8)]
    assert data.options == {"as_": "bytes", "length": 8}
    assert load_data(data.name, **data.options).digest == data.digest
    assert torch.equal(load_examples(path, data.event, as_="bytes")[0][:1], data.train.x[:1])


@pytest.mark.parametrize("name", ["data", "data.bin", "data.unknown", "data.txt", "data.md"])
@pytest.mark.parametrize(
    "content", [bytes(200), RNG.bytes(500), b"PK\x03\x04" + RNG.bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(90)]
)
def test_other_binary_files_are_not_text(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=r"with --as bytes \(as_='bytes'\)|pass --as bytes \(as_='bytes'\)"):
        load_data(tmp_path / name)
    assert len(load_rows(tmp_path / name, as_="bytes", length=1).names) == len(content)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.jsonl", "a.bin"])
def test_an_empty_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        load_data(tmp_path / name)


def test_as_is_for_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"digits is not a file; remove --as bytes"):
        load_data("digits", as_="bytes")
    with pytest.raises(InputError, match="is a folder, which has no bytes"):
        load_data(tmp_path, as_="bytes")
    with pytest.raises(InputError, match=r"as_.*bytes"):
        load_data("digits", as_="words")  # type: ignore[arg-type]
    (tmp_path / "a.bin").write_bytes(RNG.bytes(900))
    assert options_taken(tmp_path / "a.bin", as_="bytes") == {"length", "tail", "given", "as_"}


def test_as_bytes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.bin").write_bytes(RNG.bytes(3000))
    assert main(["data", str(tmp_path / "a.bin")]) == 2
    assert "--as bytes" in capsys.readouterr().err
    assert main(["data", str(tmp_path / "a.bin"), "--as", "bytes", "--length", "10"]) == 0
    assert capsys.readouterr().out.startswith("300 sequences, 10, 256 categories")
    run = str(tmp_path / "run")
    assert main(["fit", str(tmp_path / "a.bin"), "histogram", "--as", "bytes", "--length", "10", "-o", run]) == 0
    assert main(["eval", run]) == 0
    assert main(["score", run, str(tmp_path / "a.bin"), "--as", "bytes", "-o", str(tmp_path / "s.csv")]) == 0
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 2
    assert main(["fit", "--resume", "-o", run, "--as", "bytes"]) == 0


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("out", ["out.txt", "out"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "cp1252"])
def test_what_is_written_comes_back(encoding: str, out: str, tmp_path: Path) -> None:
    text = "ab cdé\n" * 24  # windows of 16 bytes end between characters
    x = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy()).view(-1, 16)
    form = TextForm(encoding)
    for path, content in form.files(x, tmp_path / out):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    found = load_rows(tmp_path / out, length=16)
    order = range(len(x)) if out == "out.txt" else np.argsort(found.names).tolist()
    assert torch.equal(found.tensor[list(order)], x)
    assert found.form == form
    assert form_from_json(form.to_json()) == form


def test_bytes_that_are_not_text_are_written_as_they_are(tmp_path: Path) -> None:
    x = torch.arange(256, dtype=torch.uint8).view(4, 64)
    ((_, content),) = TextForm().files(x, tmp_path / "a.txt")
    assert content == bytes(range(256))
    with pytest.raises(InputError, match=r"text can be written to \.txt or a folder"):
        list(TextForm().files(x, tmp_path / "a.doc"))


# --- characters, the last window, documents


def test_characters_are_numbered_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("né ☃\n" * 30, encoding="utf-8")
    found = load_rows(tmp_path / "a.txt", length=10, tokens="characters")
    assert isinstance(found.form, TextForm)
    assert found.form.alphabet == "\n né☃"
    assert found.event == Event((10,), Support("nominal", 5), "sequence")
    assert found.form.text(found.tensor[0]).decode() == "né ☃\nné ☃\n"
    assert form_from_json(json.loads(json.dumps(found.form.to_json()))) == found.form
    again = torch.cat([found.form.tokens_of("né ☃\n", "it")] * 2)
    assert torch.equal(again, found.tensor[0].long())


def test_a_text_of_one_character(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 30)
    found = load_rows(tmp_path / "a.txt", length=10, tokens="characters")
    assert found.event.uniform == Support("nominal", 2)
    assert bool((found.tensor == 1).all())


@pytest.mark.parametrize("tokens", ["bytes", "characters"])
@pytest.mark.parametrize("length", [1, 7, 64, 5000])
def test_windows_with_a_tail_cover_a_text_once(length: int, tokens: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    found = load_rows(tmp_path / "a.txt", length=length, tokens=tokens, tail=True)
    assert isinstance(found.form, TextForm)
    assert b"".join(found.form.texts(found.tensor, found.lengths)) == TEXT.encode()
    units = found.form.units(found.tensor, found.lengths)
    assert int(units["byte"].sum()) == len(TEXT.encode())
    assert int(units["character"].sum()) == len(TEXT)
    assert found.notes == ()


def test_every_text_of_a_folder_has_a_tail(tmp_path: Path) -> None:
    texts = {f"{i}.txt": "abc" * i for i in range(1, 9)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = load_rows(tmp_path, length=10, tail=True)
    assert isinstance(found.form, TextForm)
    of: dict[str, bytes] = {}
    for name, text in zip(found.names, found.form.texts(found.tensor, found.lengths), strict=True):
        of[file_of(name)] = of.get(file_of(name), b"") + text
    assert {name: text.decode() for name, text in of.items()} == texts


def test_documents_are_examples_of_their_own_length(tmp_path: Path) -> None:
    texts = ["first é", "second\nline", "", "fourth " * 40]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    found = load_rows(tmp_path / "a.jsonl", documents=True)
    assert found.event == Event((280,), Support("nominal", 256), "sequence", open=True)
    assert isinstance(found.form, TextForm)
    assert [text.decode() for text in found.form.texts(found.tensor, found.lengths)] == texts
    assert list(found.names) == ["line 1", "line 2", "line 3", "line 4"]
    assert found.notes == ()
    short = load_rows(tmp_path / "a.jsonl", documents=True, length=20, tokens="characters")
    assert short.lengths is not None
    assert short.lengths.tolist() == [7, 11, 0, 20]
    assert short.notes == ("1 of 4 documents are longer than 20 characters, and cut there; --length sets the length",)


def test_another_text_has_the_characters_of_the_training_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefgh \n" * 30)
    (tmp_path / "b.txt").write_text("hat bad\n")
    (tmp_path / "c.txt").write_text("gegeg\n")
    data = load_data(tmp_path / "a.txt", length=6, tokens="characters", tail=True)
    batch, _ = load_batch(tmp_path / "c.txt", data.event, form=data.form)
    assert isinstance(data.form, TextForm)
    assert data.form.texts(batch.x, batch.lengths) == [b"gegeg\n"]
    with pytest.raises(InputError, match=r"b.txt has 1 character that the training text does not have: 't'; .*bytes"):
        load_batch(tmp_path / "b.txt", data.event, form=data.form)


def test_the_last_window_is_for_models_that_take_lengths(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefgh \n" * 100)
    path = tmp_path / "a.txt"
    full = load_supported(path, takes_missing=False, length=64)
    assert full.test.lengths is None
    assert full.notes == ("dropped 40 bytes that do not fill a window",)
    defaults = {"text": {"length": 128}}
    data = load_supported(path, takes_missing=False, takes_lengths=True, defaults=defaults)
    assert data.options["length"] == 128
    assert data.test.lengths is not None
    assert int(data.test.lengths[-1]) == 1000 % 128
    assert load_supported(path, takes_missing=False, takes_lengths=True, tail=False).test.lengths is None
    again = load_data(path, **data.options)
    assert again.digest == data.digest
