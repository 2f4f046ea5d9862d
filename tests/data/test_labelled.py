"""Few labels: who keeps one, what the others become, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unsup
from unsup.core.errors import InputError
from unsup.data.labelled import balanced, with_few_labels


@pytest.mark.parametrize("seed", range(3))
def test_the_same_number_of_each_class_by_seed_and_class_alone(seed: int) -> None:
    label = torch.randint(5, (400,), generator=torch.Generator().manual_seed(seed))
    rows = balanced(label, 7, range(5), seed)
    assert torch.equal(rows, rows.unique())
    assert torch.bincount(label[rows]).tolist() == [7] * 5
    assert torch.equal(rows, balanced(label, 7, range(5), seed))
    assert not torch.equal(rows, balanced(label, 7, range(5), seed + 1))
    more = set(balanced(label, 9, range(5), seed).tolist())  # of 9 labels, the first 7 are the same
    assert set(rows.tolist()) < more
    other = torch.where(label == 4, 3, label)  # a change of other classes changes nothing
    of_first = rows[label[rows] < 3]
    assert torch.equal(of_first, balanced(other, 7, range(3), seed))


def test_every_example_of_a_class_is_equally_likely_to_keep_its_label() -> None:
    label = torch.tensor([0, 1] * 10)
    counts = torch.zeros(20)
    for seed in range(1000):
        counts[balanced(label, 3, (0, 1), seed)] += 1
    assert float((counts - 300).abs().max()) < 5 * (300 * 0.7) ** 0.5


def test_all_training_examples_are_unlabelled_as_well(tmp_path: Path) -> None:
    whole, few = unsup.load_data("digits"), unsup.load_data("digits", labels=30, label_seed=4)
    assert few.labelled is not None
    rows = torch.tensor(few.labelled)
    assert torch.equal(few.train.x, whole.train.x[rows])
    assert whole.train.label is not None
    assert torch.equal(torch.bincount(whole.train.label[rows]), torch.full((10,), 3))
    for part in ("train", "validation", "test"):
        own, stream = getattr(whole, part), getattr(few, part).streams["unlabelled"]
        assert torch.equal(stream.x, own.x)
        assert stream.label is None
    assert torch.equal(few.test.x, whole.test.x)
    assert few.options == {"labels": 30, "label_seed": 4}
    assert few.to_json()["labelled"] == list(few.labelled)
    assert "30 of 1,257 training examples have labels, 3 of each class, drawn with seed 4" in few.notes
    assert unsup.load_data("digits", **few.options).digest == few.digest
    assert unsup.load_data("digits", labels=30).digest != few.digest


def test_further_unlabelled_examples_follow(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array(["x", "y"])
    for name, rows in (("a.csv", 60), ("b.csv", 40)):
        cells = [f"{p:.3f},{q:.3f},{names[i % 2]}" for i, (p, q) in enumerate(rng.normal(size=(rows, 2)))]
        (tmp_path / name).write_text("\n".join(["p,q,kind", *cells]))
    a, b = (unsup.load_data(tmp_path / name, label="kind") for name in ("a.csv", "b.csv"))
    both = unsup.load_data(tmp_path / "a.csv", label="kind", labels=4, unlabelled=tmp_path / "b.csv")
    assert len(both.train) == 4
    assert torch.equal(both.train.streams["unlabelled"].x, torch.cat([a.train.x, b.train.x]))


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("digits", {"labels": 105}, "labels=105 is not the same number of each of the 10 classes of digits; use 100"),
        ("digits", {"labels": 5}, "use 10"),
        ("digits", {"labels": 0}, "use 10"),
        ("digits", {"labels": 5000}, "needs 500 training examples of each class, but digits has"),
        ("markov", {"labels": 10}, "has no labels"),
        ("digits", {"label_seed": 3}, "label_seed=3 chooses the examples with labels; pass labels= as well"),
        ("digits", {"labels": 100, "without": "3"}, "of the 9 classes of digits; use 99 or 108"),
    ],
)
def test_bad_numbers_are_refused(data: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as found:
        unsup.load_data(data, **options)
    assert said in str(found.value)


def test_a_class_without_examples_is_refused_unless_it_was_removed() -> None:
    data = unsup.load_data("digits")
    assert data.train.label is not None
    for classes, said in (((0,), "all training examples of digits are of one class"), ((0, 1), "has 0 of class '2'")):
        kept = torch.isin(data.train.label, torch.tensor(classes))
        with pytest.raises(InputError, match=said):
            with_few_labels(replace(data, train=data.train.take(kept)), 10, 0)
    left = unsup.load_data("digits", labels=18, without="3")
    assert left.train.label is not None
    assert torch.bincount(left.train.label).tolist() == [2, 2, 2, 0, 2, 2, 2, 2, 2, 2]
