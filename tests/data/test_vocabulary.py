"""Texts as words."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import unsup
from unsup.core.errors import InputError
from unsup.data.form import form_from_json
from unsup.data.load import load_batch
from unsup.data.vocabulary import UNKNOWN, WordsForm, read_words, vocabulary_of, words_of

ROOT = Path(__file__).parents[2]
TEXT = "To be, or not to be: that is the question.\n" * 30 + "Whether 'tis nobler"


@pytest.fixture
def play(tmp_path: Path) -> Path:
    path = tmp_path / "text" / "tinyshakespeare" / "input.txt"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    return path


def load(folder: Path, **options: object) -> unsup.Data:
    return unsup.load_data("tinyshakespeare-words", data_dir=str(folder), **options)


def test_words_are_found_without_their_case() -> None:
    assert words_of("O, I'll--go\n42 Ways! É") == ["o", ",", "i'll", "-", "-", "go", "42", "ways", "!", "é"]


def test_the_vocabulary_has_the_most_frequent_words() -> None:
    words = words_of(TEXT)
    found = vocabulary_of(words, 5)
    assert found == (UNKNOWN, "be", "to", ",", ".")
    assert vocabulary_of(words, 100)[0] == UNKNOWN
    assert set(vocabulary_of(words, 100)[1:]) == set(words)


def test_the_vocabulary_is_not_that_of_the_test_split(play: Path) -> None:
    found = read_words(play, length=6, vocabulary=100, tail=False, training=0.9)
    assert isinstance(found.form, WordsForm)
    assert "question" in found.form.words
    assert "nobler" not in found.form.words
    assert found.event.support == unsup.Support("nominal", len(found.form.words))


def test_a_named_set_of_words(play: Path, tmp_path: Path) -> None:
    data = load(tmp_path, length=6, vocabulary=8)
    assert data.event.shape == (6,)
    assert isinstance(data.form, WordsForm)
    assert len(data.form.words) == 8
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sizes[2] == sum(sizes) // 10
    assert form_from_json(data.form.to_json()) == data.form
    assert data.form.units(data.test.x[:3], None)["word"].tolist() == [6, 6, 6]
    with pytest.raises(InputError, match="vocabulary"):
        load(tmp_path, vocabulary=1)
    with pytest.raises(InputError, match="less than one window"):
        load(tmp_path, length=1000)


def test_what_is_written_is_read_again(play: Path, tmp_path: Path) -> None:
    data = load(tmp_path, length=6, vocabulary=9)
    assert isinstance(data.form, WordsForm)
    x = data.train.x[:20]
    for row, text in zip(x, data.form.texts(x), strict=True):
        words = words_of(text.decode().replace(UNKNOWN, "zzz"))
        assert (data.form.numbers(words) == row).all()


def test_another_text_has_the_numbers_of_the_run(play: Path, tmp_path: Path) -> None:
    data = load(tmp_path, length=6, vocabulary=9)
    assert isinstance(data.form, WordsForm)
    other = tmp_path / "other.txt"
    other.write_text("To question, or xyzzy: be. And more words")
    batch, names = load_batch(other, data.event, form=data.form)
    known = {word: i for i, word in enumerate(data.form.words)}
    assert batch.x[0].tolist() == [known.get(w, 0) for w in ("to", "question", ",", "or", "xyzzy", ":")]
    assert batch.x[0, 4] == 0
    assert len(names) == len(batch.x) == 1


def _benchmark() -> ModuleType:
    specification = importlib.util.spec_from_file_location("words_benchmark", ROOT / "benchmarks" / "words.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_n_grams_sum_to_one_and_use_the_word_before() -> None:
    benchmark = _benchmark()
    windows = np.random.default_rng(0).integers(0, 5, (20, 4))
    windows[:, 2] = (windows[:, 1] + 1) % 5
    bigram, unigram = benchmark.Bigram(windows, 7), benchmark.Unigram(windows, 7)
    assert unigram.p.sum() == pytest.approx(1)
    for v in range(7):
        assert sum(bigram.p(v, w) for w in range(7)) == pytest.approx(1)
    assert 0 < bigram.discount < 1
    expected = [np.log(unigram.p[windows[:, 0]])]
    expected += [np.log([bigram.p(v, w) for v, w in itertools.pairwise(row)]) for row in windows.tolist()]
    assert bigram.log_prob(windows) == pytest.approx(np.concatenate(expected).mean())
    assert bigram.log_prob(windows) > unigram.log_prob(windows)


def test_an_hmm_of_one_state_is_the_unigram() -> None:
    benchmark = _benchmark()
    windows = np.random.default_rng(0).integers(0, 5, (20, 4))
    event = unsup.Event((4,), unsup.Support("nominal", 6), "sequence")
    model = unsup.create("hmm", event, states=1, smoothing=benchmark.SMOOTHING, restarts=1)
    x = torch.from_numpy(windows).to(event.dtype)
    model.maximize(model.statistics(unsup.core.batch.Batch(x)))
    mean = float(model.log_prob(x).detach().mean()) / 4
    assert mean == pytest.approx(benchmark.Unigram(windows, 6).log_prob(windows), abs=1e-9)
