"""Arrays in memory: sequences of different lengths, weights, events that are said; splits as PyTorch knows them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import orders
import pytest
import torch
from torch.utils.data import DataLoader

from unsup import InputError, from_arrays, load_data
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.source import Data, Split

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


def rows_of(data: Data, order: list[int]) -> list[np.ndarray]:
    """The sequences of all splits without their padding, in the order that they were given."""
    found: list[Any] = []
    for split in (data.train, data.validation, data.test):
        assert split.lengths is not None
        found += [x[:n].numpy() for x, n in zip(split.x, split.lengths.tolist(), strict=True)]
    ordered: list[Any] = [None] * len(found)
    for place, x in zip(order, found, strict=True):
        ordered[place] = x
    return ordered


@pytest.mark.parametrize(
    ("make", "event"),
    [
        (lambda n: RNG.integers(0, 20, n), Event((9,), Support("nominal", 20), "sequence", open=True)),
        (lambda n: RNG.integers(0, 2, n), Event((9,), BINARY, "sequence", open=True)),
        (lambda n: RNG.integers(-5, 6, n), Event((9,), Support("ordinal", 11, -5), "sequence", open=True)),
        (lambda n: RNG.integers(0, 4, (n, 2)), Event((9, 2), Support("ordinal", 4), "sequence", open=True)),
        (lambda n: RNG.normal(size=n), Event((9,), REAL, "sequence", open=True)),
        (lambda n: RNG.normal(size=(n, 3)).astype(np.float32), Event((9, 3), REAL, "sequence", open=True)),
        (
            lambda n: 1e9 + RNG.normal(size=(n, 2)),
            Event((9, 2), REAL, "sequence", precision="float64", open=True),
        ),
    ],
)
def test_sequences_of_different_lengths_come_back(make: Any, event: Event) -> None:
    sequences = [make(1 + i % 9) for i in range(400)]
    data, order = from_arrays(sequences), orders.order(sequences)
    assert data.event == event
    for given, found in zip(sequences, rows_of(data, order), strict=True):
        np.testing.assert_array_equal(found, given)
    data.event.check(data.train.x, data.train.lengths)
    data.event.check(data.train.x)  # padding lies in the support too
    batch = data.train.batch(torch.arange(3))
    assert batch.lengths is not None
    assert data.train.lengths is not None
    assert torch.equal(batch.lengths, data.train.lengths[:3])
    assert f"sequences, up to {'×'.join(map(str, event.shape))}, " in data.describe()
    padded = np.zeros((400, *event.shape), sequences[0].dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    again = from_arrays(padded, lengths=[len(s) for s in sequences], event=event)
    assert torch.equal(again.train.lengths, data.train.lengths)
    for given, found in zip(sequences, rows_of(again, order), strict=True):
        np.testing.assert_array_equal(found, given)


def test_a_uniform_code_spends_its_bits_on_entries_and_none_on_padding() -> None:
    """With p uniform over K symbols, nats over summed entries are log K, whatever the padding is."""
    data = from_arrays([RNG.integers(0, 8, n) for n in (1, 2, 3, 4) * 20])
    batch = data.train.batch(torch.arange(len(data.train)))
    assert batch.lengths is not None
    each = torch.where(data.event.padding(batch.lengths), 0.0, math.log(8))
    assert float(each.sum() / batch.lengths.sum()) == pytest.approx(math.log(8))


def test_lists_of_one_length_are_arrays_unless_an_open_event_is_said() -> None:
    rows = RNG.integers(0, 5, (30, 4))
    assert from_arrays(list(rows)).event == from_arrays(rows).event == Event((4,), Support("ordinal", 5))
    event = Event((6,), Support("nominal", 9), "sequence", open=True)
    data = from_arrays(rows, event=event)
    assert data.event == event
    assert data.train.x.shape[1:] == (6,)
    assert 10 < len(data.train.x) < 30
    assert data.train.lengths is not None
    assert data.train.lengths.unique().tolist() == [4]


def test_sequences_without_labels_beside_labelled_ones() -> None:
    labelled, more = (
        [RNG.integers(0, 3, 1 + i % 4) for i in range(20)],
        [RNG.integers(0, 6, 1 + i % 7) for i in range(30)],
    )
    data = from_arrays(labelled, np.arange(20) % 2, unlabelled=more)
    assert data.event == Event((7,), Support("nominal", 6), "sequence", open=True)
    stream = data.train.streams["unlabelled"]
    assert stream.lengths is not None
    assert 15 < len(stream) < 30
    assert stream.x.shape[1] == 7
    assert int(stream.lengths.max()) == 7


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        ([[1, 2], []], {}, "at least one entry each"),
        ([[[1, 2]], [[1, 2, 3]]], {"lengths": [1, 1]}, "with equal C"),
        (np.zeros((4, 3)), {"lengths": [1, 2, 3]}, r"lengths have shape \(3,\)"),
        (np.zeros((4, 3)), {"lengths": [1, 2, 3, 4]}, "lengths are from 1 to 4; expected 1 to 3"),
        (np.zeros((4, 3)), {"lengths": [0, 2, 3, 3]}, "lengths are from 0 to 3"),
        (np.zeros((4, 3)), {"lengths": [0.5, 2, 3, 3]}, "lengths have shape .* float64"),
        ([[1], [1, 2]], {"event": Event((2,), BINARY)}, "expected vector of 2"),
        ([[1], [1, 2]], {"event": Event((1,), BINARY, open=True)}, "expected vector of up to 1"),
        (
            [[1], [1, 9]],
            {"event": Event((2,), Support("nominal", 3), open=True)},
            "1 of 2 examples have values outside",
        ),
        ([[1.0], [1.0, math.nan]], {}, "1 of 2 examples have values outside"),
        ([["a"], ["a", "b"]], {}, "x has sequences of type <U1"),
        (np.array([["a"]]), {"event": Event((1,), BINARY)}, "x has type <U1"),
        (np.zeros((4, 3)), {"event": Event((3,), Support("nominal", 3)), "weight": np.ones(3)}, r"expected \(4,\)"),
        (np.zeros((4, 3)), {"weight": [1, 1, 1, -1]}, "at least 0"),
        (np.zeros((4, 3)), {"weight": np.zeros(4)}, "not all 0"),
        (np.full((4, 3), 7), {"event": Event((3,), BINARY)}, "4 of 4 examples have values outside vector of 3, binary"),
        (np.zeros((4, 2)), {"event": Event((3,), BINARY)}, r"shape \(2,\); expected \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(x: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        from_arrays(x, **options)
    assert "\n" not in str(caught.value)


def test_weights_go_with_their_examples() -> None:
    x, weight = np.arange(50.0)[:, None], np.arange(50.0) / 7
    data = from_arrays(x, weight=weight)
    for split in (data.train, data.validation, data.test):
        assert split.weight is not None
        torch.testing.assert_close(split.weight, (split.x[:, 0] / 7).float())
        batch = split.batch(torch.tensor([2, 0]))
        assert torch.equal(batch.weight, split.weight[[2, 0]])


def test_an_event_that_is_said_is_the_event() -> None:
    x = RNG.integers(0, 3, (40, 4)).astype(float)
    event = Event((4,), Support("nominal", 5))
    data = from_arrays(x, event=event)
    assert data.event == event
    assert data.train.x.dtype == event.dtype
    np.testing.assert_array_equal(data.train.x.numpy(), x[orders.parts(x)[0]])
    assert from_arrays(x, event=Event((4,), REAL, precision="float64")).train.x.dtype == torch.float64
    large = RNG.integers(2**63, 2**64 - 1, (40, 2), dtype=np.uint64)
    assert float(from_arrays(large, event=Event((2,), REAL)).train.x.min()) >= 2**63


# --- splits as PyTorch knows them -------------------------------------------------------------------------------------


def test_a_data_loader_gives_batches_of_a_split() -> None:
    data = load_data("digits", given="label")
    seen = list(DataLoader(data.train, batch_size=4))
    assert len(seen) == 315
    for field in ("x", "label", "given"):
        assert torch.equal(torch.cat([batch[field] for batch in seen]), getattr(data.train, field))
    assert set(seen[0]) == {"x", "label", "given"}
    shuffled = DataLoader(data.train, batch_size=500, shuffle=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([b["x"] for b in shuffled]).long().sum(0), data.train.x.long().sum(0))


def test_entries_of_a_split() -> None:
    data = from_arrays([[1, 2], [3], [2, 2, 2]] * 5, np.arange(15) % 3, weight=np.ones(15))
    first, last = data.train[0], data.train[-1]
    assert set(first) == {"x", "label", "lengths", "weight"}
    assert torch.equal(first["x"], data.train.x[0])
    assert torch.equal(last["lengths"], data.train.lengths[-1])
    assert len([*data.train]) == len(data.train)
    with pytest.raises(IndexError, match="5 is out of range for 5"):
        data.train[len(data.train)]
    assert set(Split(torch.zeros(2, 1))[0]) == {"x"}


def test_what_a_run_records_and_a_user_is_told() -> None:
    data = from_arrays([[1, 2], [3], [2, 2, 2]] * 5, np.arange(15) % 3, given="label")
    record = data.to_json()
    assert Event.from_json(record["event"]) == data.event
    assert Event.from_json(record["given"]) == data.given
    assert data.describe() == (
        "15 sequences, up to 3, 4 categories, 3 classes; 5 train, 5 validation, 5 test; given one of 3 classes"
    )


def test_the_program_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(), re.S)
    exec(compile(program, "docs/data.md", "exec"), {})
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        "300 rows, 4 columns (real), 3 classes; 246 train, 25 validation, 29 test; unlabelled: 725 train, "
        "76 validation, 99 test; given one of 3 classes"
    )
    assert told[1] in program
