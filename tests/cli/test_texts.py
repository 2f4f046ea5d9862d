"""Runs of text: characters, windows that cover a text once, a score for each text, prompts, completions, documents."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

import unsup
from unsup.cli.main import main
from unsup.core.model import ClassifiesByBayes, HasDensity
from unsup.data.load import load_batch

Call = Callable[..., Any]
LENGTH = 24
TEXT = "".join(random.Random(0).choices(["one ", "two ", "three\n", "né "], k=500))
FIT = ("transformer", "--preset", "tiny", "--steps", "3", "--batch-size", "8", "--plain")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of characters, one of bytes, and one of documents."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.txt").write_text(TEXT, encoding="utf-8")
    lines = [json.dumps({"text": text}) for text in TEXT.split("\n")]
    (folder / "lines.jsonl").write_text("\n".join(lines))
    text, lines_file = str(folder / "book.txt"), str(folder / "lines.jsonl")
    characters = ("--tokens", "characters")
    for name, data, more in (
        ("characters", text, (*characters, "--length", str(LENGTH))),
        ("bytes", text, ("--length", str(LENGTH))),
        ("documents", lines_file, (*characters, "--documents")),
    ):
        assert main(["fit", data, *FIT, *more, "-o", str(folder / name)]) == 0
    return folder


def scores(called: Any) -> list[dict[str, str]]:
    assert called.status == 0, called.err
    return list(csv.DictReader(io.StringIO(called.out)))


@pytest.mark.parametrize("run", ["characters", "bytes"])
def test_every_character_of_a_text_is_scored_once(run: str, book: Path, tmp_path: Path, call: Call) -> None:
    model = unsup.open_run(book / run).model
    assert isinstance(model, HasDensity)
    texts = {"a.txt": TEXT[:100], "b.txt": TEXT[40:45], "c.txt": TEXT[: 3 * LENGTH]}
    (tmp_path / "texts").mkdir()
    for name, text in texts.items():
        (tmp_path / "texts" / name).write_text(text, encoding="utf-8")
    form = unsup.open_run(book / run).form
    rows = {row["example"]: row for row in scores(call("score", book / run, tmp_path / "texts"))}
    assert rows.keys() == texts.keys()
    for name, text in texts.items():
        tokens, total = form.tokens_of(text, name), 0.0
        for part in tokens.split(LENGTH):  # the last one as the beginning of a window, in a loop
            x = torch.zeros(1, LENGTH, dtype=torch.int64)
            x[0, : len(part)] = part
            with torch.no_grad():
                total += float(model.log_conditionals(x)[0, : len(part)].sum())
        assert float(rows[name]["log_prob_nats"]) == pytest.approx(total, rel=1e-5)
        for unit, count in (("byte", len(text.encode())), ("character", len(text))):
            bits = float(rows[name][f"bits_per_{unit}"])
            assert bits == pytest.approx(-total / count / math.log(2), rel=1e-5)
    one = scores(call("score", book / run, tmp_path / "texts" / "a.txt"))
    assert [row["log_prob_nats"] for row in one] == [rows["a.txt"]["log_prob_nats"]]


def test_eval_says_bits_of_bytes_and_characters_and_the_context(book: Path, call: Call) -> None:
    called = call("eval", book / "characters")
    assert "bits/byte, " in called.out
    assert "bits/character)" in called.out
    assert "each character given the earlier ones of its window: 0 to 23, " in called.out
    found = json.loads(call("eval", book / "characters", "--json").out)["figures"]["likelihood"]
    units, data = found["detail"]["bits_per_unit"], unsup.open_run(book / "characters").data
    assert data.test.lengths is not None
    total = found["value"] * len(data.test) / math.log(2)
    assert units["character"] == pytest.approx(total / int(data.test.lengths.sum()))
    assert found["detail"]["bits_per_dim"] == pytest.approx(units["character"])
    last = b"".join(data.form.texts(data.test.x, data.test.lengths))
    assert TEXT.encode().endswith(last)
    assert units["byte"] == pytest.approx(total / len(last))
    lengths = data.test.lengths.double()
    mean = float((lengths * (lengths - 1) / 2).sum() / lengths.sum())
    assert found["detail"]["context"] == {"most": LENGTH - 1, "mean": pytest.approx(mean)}


def test_a_prompt_begins_every_sample(book: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "out.txt"
    for run in ("characters", "bytes"):
        called = call("sample", book / run, "--prompt", "né one ", "-n", 3, "-o", out, "--top-k", 3)
        assert called.status == 0, called.err
        content = out.read_bytes()
        parts = content.split(b"\n" + b"-" * 20 + b"\n")
        assert len(parts) == 3
        assert all(part.startswith("né one ".encode()) for part in parts)
    cold = []
    for _ in range(2):
        call("sample", book / "characters", "--prompt", "o", "-n", 2, "-o", out, "--temperature", 1e-6, "--seed", 3)
        cold.append(out.read_text())
    assert cold[0] == cold[1]
    first, second = cold[0].split("\n" + "-" * 20 + "\n")
    assert first == second  # almost no temperature: the likeliest character everywhere


def test_texts_are_continued(book: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "in").mkdir()
    begun = {"a.txt": "one two", "b.txt": "thr"}
    for name, text in begun.items():
        (tmp_path / "in" / name).write_text(text)
    out = tmp_path / "out"
    assert call("complete", book / "characters", tmp_path / "in", "-o", out).status == 0
    found = [path.read_text(encoding="utf-8") for path in sorted(out.iterdir())]
    assert [len(text) for text in found] == [LENGTH, LENGTH]
    assert all(text.startswith(start) for text, start in zip(found, begun.values(), strict=True))
    assert call("complete", book / "characters", "--prompt", "one", "-o", tmp_path / "one.txt").status == 0
    assert (tmp_path / "one.txt").read_text(encoding="utf-8").startswith("one")
    called = call("complete", book / "characters", book / "book.txt", "--keep", "first:0.5", "-o", tmp_path / "x.npy")
    assert called.status == 0, called.err
    drawn, data = np.load(tmp_path / "x.npy"), unsup.open_run(book / "characters").data
    whole = torch.cat([data.train.x, data.validation.x, data.test.x]).numpy()
    full, short = whole[:-1], int(data.test.lengths[-1])  # the last window is shorter
    assert (drawn[:-1, : LENGTH // 2] == full[:, : LENGTH // 2]).all()
    assert (drawn[-1, : round(short / 2)] == whole[-1, : round(short / 2)]).all()
    assert (drawn != whole).any()


def test_the_kept_part_of_a_text_has_no_padding(book: Path, tmp_path: Path, call: Call) -> None:
    texts = ["o", "two three", "one two three né ", "t", "th", "one one "]
    (tmp_path / "in").mkdir()
    for i, text in enumerate(texts):
        (tmp_path / "in" / f"{i}.txt").write_text(text, encoding="utf-8")
    lines = tmp_path / "in.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for run, known in (("bytes", str.encode), ("characters", str), ("documents", str)):
        out = tmp_path / f"{run}-kept"
        called = call("complete", book / run, tmp_path / "in", "--keep", "first:1", "-o", out, "--top-k", 2)
        assert called.status == 0, called.err
        for path, text in zip(sorted(out.iterdir()), texts, strict=True):  # in the order of the names
            assert path.read_bytes().startswith(text.encode()), path
            assert len(known(path.read_bytes().decode(errors="replace"))) >= len(known(text))
        assert len({path.read_bytes() for path in out.iterdir()}) > 1
        out = tmp_path / f"{run}-lines"
        assert call("complete", book / run, lines, "-o", out).status == 0
        for path, text in zip(sorted(out.iterdir()), texts, strict=True):
            assert path.read_bytes().startswith(text.encode())
    x = tmp_path / "x.npy"
    first = [unsup.open_run(book / "bytes").form.tokens_of(text, "a text").numpy() for text in texts]
    seen = []
    for seed in range(2):
        call("complete", book / "bytes", tmp_path / "in", "--keep", "first:0.5", "-o", x, "--seed", seed)
        seen.append(np.load(x))
    for i, own in enumerate(first):
        half = round(len(own) / 2)
        assert (seen[0][i, :half] == own[:half]).all()
        assert (seen[0][i, half:] != seen[1][i, half:]).any()
        assert (seen[0][i, half : LENGTH // 2] != 0).any()


def test_documents_are_classified_without_their_padding(tmp_path: Path, call: Call) -> None:
    for name, word in (("x", "ab"), ("y", "zw")):
        (tmp_path / "in" / name).mkdir(parents=True)
        for i in range(12):
            (tmp_path / "in" / name / f"{i}.txt").write_text(word * (2 + i % 5))
    run = tmp_path / "run"
    fit = ("rnn", "--documents", "--given", "label", "--preset", "tiny", "--steps", 3, "--plain", "-o", run)
    assert call("fit", tmp_path / "in", *fit).status == 0
    model, data = unsup.open_run(run).model, unsup.open_run(run).data
    assert isinstance(model, ClassifiesByBayes)
    x, lengths = data.train.x, data.train.lengths
    found = model.predict_proba(x, lengths=lengths)
    each = [model.log_prob(x, given=torch.full((len(x),), y), lengths=lengths) for y in range(2)]
    torch.testing.assert_close(found, (torch.stack(each, 1) + model.log_class_prior()).softmax(1))
    padded = x.where(~data.event.padding(lengths), 7)
    torch.testing.assert_close(model.predict_proba(padded, lengths=lengths), found)
    called = call("predict", run, tmp_path / "in")
    assert called.status == 0, called.err
    rows = {row["example"]: float(row["p(x)"]) for row in csv.DictReader(io.StringIO(called.out))}
    batch, names = load_batch(tmp_path / "in", data.event, form=data.form, condition=data.given, labels=data.labels)
    expected = model.predict_proba(batch.x, lengths=batch.lengths)[:, 0].tolist()
    assert [rows[name] for name in names] == pytest.approx(expected, rel=1e-4)


def test_padding_is_not_coded(book: Path, tmp_path: Path, call: Call) -> None:
    """A general codec was said to need fewer bytes than a model that was charged for padding."""
    for run in ("documents", "bytes"):
        data = unsup.open_run(book / run).data
        assert data.test.lengths is not None
        full = int((data.test.lengths == data.event.shape[0]).sum())
        called = call("eval", book / run, "--measures", "coded_bytes,implied_bytes", "--json")
        found = json.loads(called.out)
        if not full:
            assert "no example has full length" in json.dumps(found)
        elif "coded_bytes" in found["figures"]:
            assert found["figures"]["coded_bytes"]["n"] == full


def test_the_padding_of_a_text_is_no_unseen_character(tmp_path: Path, call: Call) -> None:
    (tmp_path / "book.txt").write_text("abc" * 30)
    (tmp_path / "one.txt").write_text("b")
    fit = ("fit", tmp_path / "book.txt", *FIT, "--tokens", "characters", "--length", 4, "-o", tmp_path / "run")
    assert call(*fit).status == 0
    called = call("score", tmp_path / "run", tmp_path / "one.txt")
    assert called.status == 0, called.err


def test_other_tokens_and_sound_are_refused(book: Path, tmp_path: Path, call: Call) -> None:
    for run, other in (("bytes", "characters"), ("characters", "bytes")):
        called = call("score", book / run, book / "book.txt", "--tokens", other)
        assert (called.status, called.err.count("\n")) == (2, 1)
        assert f"remove --tokens {other}" in called.err
    wavfile.write(tmp_path / "a.wav", 8000, np.arange(90, dtype=np.uint8))
    called = call("score", book / "bytes", tmp_path / "a.wav")
    assert called.status == 2
    assert "is sound, and the training data is not" in called.err


def test_documents_end_where_the_model_ends_them(book: Path, tmp_path: Path, call: Call) -> None:
    run, out = book / "documents", tmp_path / "out"
    assert call("sample", run, "-n", 30, "-o", out).status == 0
    assert len({path.stat().st_size for path in out.iterdir()}) > 1
    assert call("sample", run, "-n", 5, "-o", tmp_path / "two", "--prompt", "two").status == 0
    assert all(path.read_bytes().startswith(b"two") for path in (tmp_path / "two").iterdir())
    rows = scores(call("score", run, book / "lines.jsonl"))
    assert len(rows) == len(TEXT.split("\n"))
    opened = unsup.open_run(run)
    model, data = opened.model, opened.data
    assert isinstance(model, HasDensity)
    with torch.no_grad():
        first = model.log_prob(data.train.x[:3], lengths=data.train.lengths[:3])
    assert [float(row["log_prob_nats"]) for row in rows[:3]] == pytest.approx(first.tolist(), rel=1e-4)
    assert "of its document" in call("eval", run).out


def test_class_labels_and_short_forms(tmp_path: Path, call: Call) -> None:
    out, same = tmp_path / "a.npy", tmp_path / "b.npy"
    run = tmp_path / "run"
    fit = ("fit", "digits", "pixelcnn", "-o", run, "--preset", "tiny", "--steps", 2, "--plain", "--given", "label")
    assert call(*fit).status == 0
    assert call("sample", run, "-n", 4, "-o", out, "--label", 3, "--temperature", 0.5).status == 0
    assert call("sample", run, "-n", 4, "-o", same, "--given", 3, "--sample.temperature", 0.5).status == 0
    assert (np.load(out) == np.load(same)).all()


def test_parts_of_images(tmp_path: Path, call: Call) -> None:
    upper = np.zeros((8, 8), np.uint8)
    upper[:3] = 255
    Image.fromarray(upper).save(tmp_path / "upper.png")
    run = tmp_path / "run"
    assert call("fit", "digits", "pixelcnn", "-o", run, "--preset", "tiny", "--steps", 2, "--plain").status == 0
    found = []
    for how in (("--keep", "top:0.375"), ("--top", 0.375), ("--mask", tmp_path / "upper.png")):
        assert call("complete", run, "digits", "-o", tmp_path / "x.npy", *how).status == 0
        found.append(np.load(tmp_path / "x.npy"))
    x = unsup.load_data("digits").test.x.numpy()
    assert (found[0][:, :, :3] == x[:, :, :3]).all()
    assert (found[0] != x).any()
    assert all((other == found[0]).all() for other in found[1:])


def test_mistakes_are_one_line(book: Path, tmp_path: Path, call: Call) -> None:
    def refused(*words: Any) -> str:
        called = call(*words)
        assert called.status == 2, called.out
        assert called.err.count("\n") == 1
        assert "Traceback" not in called.err
        return str(called.err)

    run, out = book / "characters", tmp_path / "out.txt"
    assert "'☃'" in (found := refused("sample", run, "--prompt", "☃", "-o", out))
    assert "--tokens bytes" in found
    assert "not UTF-8" in refused("sample", book / "bytes", "--prompt", "a\udcff", "-o", out)
    assert f"at most {LENGTH - 1}" in refused("sample", run, "--prompt", "o" * LENGTH, "-o", out)
    assert f"at most {LENGTH - 1}" in refused("complete", run, book / "book.txt", "-o", out)
    assert "expected a FILE" in refused("complete", run, "-o", out)
    assert "both given" in refused("complete", run, book / "book.txt", "--prompt", "o", "-o", out)
    assert "first:0.5" in refused("complete", run, book / "book.txt", "--keep", "left:0.5", "-o", out)
    assert "is for sound" in refused("complete", run, book / "book.txt", "--seconds", 2, "-o", out)
    assert "is for images" in refused("complete", run, book / "book.txt", "--mask", out, "-o", out)
    assert "is for images" in refused("complete", run, book / "book.txt", "--top", 0.5, "-o", out)
    (tmp_path / "odd.txt").write_text("☃ in it")
    assert "'☃'" in refused("score", run, tmp_path / "odd.txt")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00\x01\x81" * 9)
    assert "--as bytes" in refused("fit", tmp_path / "bad.txt", *FIT, "-o", tmp_path / "r")
    assert call("fit", tmp_path / "bad.txt", *FIT, "--as", "bytes", "--length", 4, "-o", tmp_path / "r").status == 0
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "nine.png")
    image = tmp_path / "image"
    assert call("fit", "digits", "pixelcnn", "-o", image, "--preset", "tiny", "--steps", 1, "--plain").status == 0
    out = tmp_path / "x.npy"
    assert "9×9" in refused("complete", image, "digits", "--mask", tmp_path / "nine.png", "-o", out)
    assert "not an image" in refused("complete", image, "digits", "--mask", tmp_path / "odd.txt", "-o", out)
    assert "--keep top:0.5 is possible" in refused("complete", image, "digits", "--keep", "left:0.5", "-o", out)
    coarse = tmp_path / "coarse"  # the upper half does not come first in its order
    assert call("fit", "digits", "subscale", "-o", coarse, "--preset", "tiny", "--steps", 1, "--plain").status == 0
    found = refused("complete", coarse, "digits", "--keep", "top:0.5", "-o", out)
    assert "slice by slice" in found
    assert "is possible" not in found
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "white.png")
    assert "black" in refused("complete", image, "digits", "--mask", tmp_path / "white.png", "-o", out)
    assert "0x" not in refused("complete", image, "digits", "--mask", tmp_path / "odd.txt", "-o", out)
    (tmp_path / "there").mkdir()
    for command in (("sample", run), ("complete", run, "--prompt", "o")):
        assert "a folder that exists; choose another name" in refused(*command, "-o", tmp_path / "there")
    (tmp_path / "few.txt").write_text("few words")
    assert "--length below 24" in refused("fit", tmp_path / "few.txt", *FIT, "--length", 24, "-o", tmp_path / "few")
    assert "top, bottom, left or right" in refused("complete", image, "digits", "--keep", "middle:1", "-o", out)
    assert "one of them" in refused("complete", image, "digits", "--keep", "top:1", "--top", 1, "-o", out)
    assert "nothing to complete" in refused("complete", image, "digits", "--keep", "top:1", "-o", out)
    assert "is for text" in refused("sample", image, "--prompt", "a", "-o", out)
