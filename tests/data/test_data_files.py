"""The user's own files: what is read is what was written, and bad input gets one line that says how to mend it."""

from __future__ import annotations

import gzip
import json
import logging
import re
import wave
from pathlib import Path
from typing import Any

import numpy as np
import orders
import pytest
import torch
from PIL import Image

import unsup
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data import load_data, load_examples
from unsup.data.source import hashed_order

RNG = np.random.default_rng(0)


def refusal(path: Path, **options: Any) -> str:
    """The message of the error, which must be one line, with the path taken out."""
    with pytest.raises(InputError) as error:
        load_data(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), "PATH")


def pictures(folder: Path, n: int, shape: tuple[int, ...] = (6, 5), suffix: str = "png") -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (n, *shape), dtype=np.uint8)
    for i, p in enumerate(pixels):
        Image.fromarray(p).save(folder / f"{i:03d}.{suffix}")
    return pixels


# ---------------------------------------------------------------- the event's support


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
@pytest.mark.parametrize(("levels", "low"), [(256, 0), (17, 0), (300, -5), (65536, -32768), (5, 1000), (4, -9)])
def test_support_is_compared_as_numbers_not_modulo_the_type(dtype: torch.dtype, levels: int, low: int) -> None:
    x = torch.tensor([[-9], [-5], [0], [16], [17], [127], [255], [256], [1002]])
    x = x[(x[:, 0] >= 0) & (x[:, 0] < 256)] if dtype == torch.uint8 else x
    inside = Event((1,), Support("ordinal", levels, low)).contains(x.to(dtype))
    assert inside.tolist() == [low <= v < low + levels for v in x[:, 0].tolist()]


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_images_come_back(tmp_path: Path, suffix: str, channels: int) -> None:
    shape = (6, 5) if channels == 1 else (6, 5, 3)
    tmp_path.mkdir(exist_ok=True)
    pixels = RNG.integers(0, 256, (10, *shape), dtype=np.uint8)
    for i, p in enumerate(pixels):
        Image.fromarray(p).save(tmp_path / f"{i}.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    if suffix == "webp" and channels == 1:
        pixels = np.repeat(pixels[..., None], 3, 3)  # WebP has no grey: such files are colour
    expected = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    data = load_data(tmp_path)
    assert data.event == Event(expected.shape[1:], Support("ordinal", 256))
    assert data.labels is None
    x = torch.cat([data.train.x, data.validation.x, data.test.x]).numpy()
    found = orders.parts(orders.files(tmp_path.iterdir()))
    np.testing.assert_array_equal(x, expected[found[0] + found[1] + found[2]])
    assert x.dtype == np.uint8
    assert [len(data.train), len(data.validation), len(data.test)] == [len(part) for part in found]


def test_jpeg_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(tmp_path / "flat.jpg")
    x, names = load_examples(tmp_path, Event((1, 8, 8), Support("ordinal", 256)))
    assert names == ("flat.jpg",)
    assert int((x.long() - 77).abs().max()) <= 1


def test_subfolders_are_labels_and_other_files_are_told(tmp_path: Path) -> None:
    cats, dogs = pictures(tmp_path / "cat", 6), pictures(tmp_path / "dog", 4)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "dog" / "deep").mkdir()
    (tmp_path / ".hidden").write_text("x")
    data = load_data(tmp_path)
    assert data.labels == ("cat", "dog")
    assert data.notes == ("ignored 2 files or folders that are not images: notes.txt, dog/deep",)
    label = torch.cat([data.train.label, data.validation.label, data.test.label])
    order = orders.order(orders.files(tmp_path.glob("*/*.png")))
    assert label.tolist() == [int(i >= 6) for i in order]
    x = torch.cat([data.train.x, data.validation.x, data.test.x])[:, 0]
    np.testing.assert_array_equal(x, np.concatenate([cats, dogs])[order])
    again = load_data(data.name, **json.loads(json.dumps(data.to_json()))["options"])
    assert torch.equal(again.train.x, data.train.x)


def test_grey_among_colour_is_repeated(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (4, 4), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / "b.png")
    x, names = load_examples(tmp_path, Event((3, 4, 4), Support("ordinal", 256)))
    assert names == ("a.png", "b.png")
    assert np.array_equal(x[0], np.repeat(grey[None], 3, 0))
    single, _ = load_examples(tmp_path / "a.png", Event((3, 4, 4), Support("ordinal", 256)))
    assert torch.equal(single, x[:1])


def test_transparency_is_dropped_and_told(tmp_path: Path) -> None:
    rgba = RNG.integers(0, 256, (3, 4, 4, 4), dtype=np.uint8)
    for i, p in enumerate(rgba):
        Image.fromarray(p).save(tmp_path / f"{i}.png")
    data = load_data(tmp_path)
    assert data.notes == ("dropped the transparency of 3 images",)
    np.testing.assert_array_equal(torch.cat([data.train.x, data.validation.x, data.test.x])[:, :, 0, 0],
                                  rgba[orders.order(orders.files(tmp_path.iterdir()))][:, 0, 0, :3])  # fmt: skip


def test_mixed_sizes_and_resize(tmp_path: Path) -> None:
    pictures(tmp_path, 3, (8, 8))
    Image.fromarray(np.full((10, 6), 9, np.uint8)).save(tmp_path / "z.png")
    assert refusal(tmp_path) == (
        "the images in PATH have 2 sizes, e.g. 8×8 (3), 10×6 (1); expected one size: use --resize 8 (resize=8)"
    )
    data = load_data(tmp_path, resize=4)
    assert data.event.shape == (1, 4, 4)
    assert data.options == {"resize": 4}
    x, _ = load_examples(tmp_path, data.event, resize=4)
    assert bool((x[3] == 9).all())
    assert refusal(tmp_path, resize=0) == "resize=0; expected the side in pixels, at least 1"


def test_resize_cuts_out_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((4, 8), np.uint8)
    wide[:, 2:6] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    x, _ = load_examples(tmp_path / "wide.png", Event((1, 4, 4), Support("ordinal", 256)), resize=4)
    assert bool((x == 200).all())


def test_truncated_image_is_named_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = pictures(tmp_path, 9, (40, 40))
    whole = (tmp_path / "004.png").read_bytes()
    (tmp_path / "004.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "007.png").write_bytes(b"no image at all")
    with caplog.at_level(logging.WARNING):
        data = load_data(tmp_path)
    assert len(caplog.records) == 2
    assert "004.png" in caplog.text
    assert re.match(
        r"^skipped 2 of 9 images that cannot be read: 004\.png \(.+\), 007\.png \(cannot identify .+\)$", data.notes[0]
    )
    kept = np.delete(pixels, [4, 7], 0)
    order = orders.order([c for i, c in enumerate(orders.files(tmp_path.iterdir())) if i not in (4, 7)])
    np.testing.assert_array_equal(torch.cat([data.train.x, data.validation.x, data.test.x])[:, 0], kept[order])


def test_truncated_jpeg_is_noticed(tmp_path: Path) -> None:
    pictures(tmp_path, 4, (64, 64), "jpg")
    whole = (tmp_path / "001.jpg").read_bytes()
    (tmp_path / "001.jpg").write_bytes(whole[: len(whole) // 2])
    assert load_data(tmp_path).notes[0].startswith("skipped 1 of 4 images that cannot be read: 001.jpg (")


def test_mostly_bad_images_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path, 5)
    for i in range(3):
        (tmp_path / f"{i:03d}.png").write_bytes(b"bad")
    message = refusal(tmp_path)
    assert message.startswith("3 of 5 images in PATH cannot be read: 000.png (cannot identify")
    assert message.endswith("; replace or remove them")


def test_sixteen_bit_image_is_not_clipped_silently(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    Image.fromarray(np.full((6, 5), 40_000, np.uint16)).save(tmp_path / "deep.png")
    assert refusal(tmp_path) == (
        "the images in PATH have 2 types of pixels: uint16 (deep.png), uint8 (000.png); convert them to one, or "
        "remove some"
    )


def test_image_folder_refusals(tmp_path: Path) -> None:
    assert refusal(tmp_path) == (
        "PATH has no images (it is empty); expected PNG, JPEG, WebP, BMP, GIF or TIFF, at its top level or one folder "
        "deep"
    )
    (tmp_path / "a.bin").write_text("x")
    assert "PATH has no images (1 other files)" in refusal(tmp_path)
    pictures(tmp_path / "sub", 3)
    pictures(tmp_path, 2)
    assert refusal(tmp_path).startswith("PATH has 2 images at its top level and 3 in subfolders; move all of them")
    assert refusal(tmp_path / "sub" / "000.png") == ("PATH is one image; expected a folder of images")
    pictures(tmp_path / "sets" / "train", 3)
    pictures(tmp_path / "sets" / "test", 3)
    assert "(test, train) look like splits, not labels; use one of them" in refusal(tmp_path / "sets")


# ---------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("array", "event"),
    [
        (RNG.integers(0, 256, (9, 3, 4, 5), dtype=np.uint8), Event((3, 4, 5), Support("ordinal", 256))),
        (RNG.integers(0, 2, (9, 4, 5), dtype=np.uint8), Event((1, 4, 5), BINARY)),
        (RNG.integers(0, 200, (9, 4, 5), dtype=np.int64), Event((1, 4, 5), Support("ordinal", 256))),
        (RNG.random((9, 4, 5)) > 0.5, Event((1, 4, 5), BINARY)),
        (np.array([[0, 1], [1, 0], [1, 1]]), Event((2,), BINARY)),
        (np.array([[3, -2], [5, 0], [4, 1]]), Event((2,), Support("ordinal", 8, -2))),
        (np.array([[0, 7], [1, 900], [1, 8]]), Event((2,), (BINARY, REAL))),
        (np.array([[0, 2], [1, 0], [1, 1]]), Event((2,), Support("ordinal", 3))),
        (np.array([[0, 7], [2, 900], [1, 8]]), Event((2,), (Support("ordinal", 3), REAL))),
        (np.array([[0, 7], [1, 301], [1, 302]]), Event((2,), (BINARY, REAL))),
        (RNG.standard_normal((9, 7)), Event((7,), REAL)),
        (RNG.standard_normal((9, 7)).astype(np.float16), Event((7,), REAL)),
        (RNG.standard_normal((9, 7)).astype(">f4"), Event((7,), REAL)),
    ],
)
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_come_back(tmp_path: Path, array: np.ndarray, event: Event, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    np.save(file, array) if kind == "npy" else np.savez(file, x=array)
    data = load_data(file)
    assert data.event == event
    x = torch.cat([data.train.x, data.validation.x, data.test.x])
    np.testing.assert_array_equal(x.numpy(), array.reshape(-1, *event.shape)[orders.order(array)])
    event.check(x)
    if event.is_discrete:
        assert x.dtype == event.dtype
    again, names = load_examples(file, event)
    np.testing.assert_array_equal(again.numpy(), array.reshape(-1, *event.shape))
    assert names[-1] == str(len(array) - 1)


def test_channels_last_is_turned_and_told(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x)
    data = load_data(tmp_path / "a.npz")
    assert data.notes == ("images of shape (N, H, W, C) were converted to (N, C, H, W)",)
    np.testing.assert_array_equal(load_examples(data.name, data.event)[0], x.transpose(0, 3, 1, 2))


def test_real_types_are_kept(tmp_path: Path) -> None:
    for given, kept in [(np.float64, torch.float64), (np.float32, torch.float32), (np.float16, torch.float32)]:
        np.save(tmp_path / "a.npy", RNG.standard_normal((5, 2)).astype(given))
        assert load_data(tmp_path / "a.npy").train.x.dtype == kept


@pytest.mark.parametrize(("x_key", "y_key"), [("x", "label"), ("X", "y")])
def test_labelled_npz(tmp_path: Path, x_key: str, y_key: str) -> None:
    x, y = RNG.standard_normal((12, 2)), np.arange(12) % 2 * 5.0
    np.savez(tmp_path / "a.npz", **{x_key: x, y_key: y})
    data = load_data(tmp_path / "a.npz")
    assert data.labels == ("0", "5")
    assert data.train.label.tolist() == [i % 2 for i in orders.parts(x)[0]]
    assert data.train.label.dtype == torch.int64


def test_npz_with_its_own_splits(tmp_path: Path) -> None:
    x = RNG.standard_normal((20, 2))
    np.savez(tmp_path / "a.npz", x_train=x[:10], x_val=x[10:14], x_test=x[14:], y_train=x[:10, 0] > 0,
             y_val=x[10:14, 0] > 0, y_test=x[14:, 0] > 0)  # fmt: skip
    data = load_data(tmp_path / "a.npz")
    for split, rows in [(data.train, x[:10]), (data.validation, x[10:14]), (data.test, x[14:])]:
        rows = rows[orders.order(rows, (0, 0))]
        np.testing.assert_array_equal(split.x.numpy(), rows)
        assert split.label.tolist() == (rows[:, 0] > 0).tolist()
    assert data.split == "as in the file"
    assert data.labels == ("False", "True")


@pytest.mark.parametrize("form", ["keys", "folder"])
def test_missing_validation_is_cut_from_train(tmp_path: Path, form: str) -> None:
    x, y = RNG.standard_normal((26, 2)), np.arange(26) % 3
    if form == "keys":
        path = tmp_path / "a.npz"
        np.savez(path, train_x=x[:20], test_x=x[20:])
    else:
        path = tmp_path
        np.savez(path / "train.npz", x=x[:20], label=y[:20])
        np.savez(path / "test.npz", x=x[20:], label=y[20:])
    data = load_data(path)
    train, validation, _ = orders.parts(x[:20], (10, 0))
    test = [20 + i for i in orders.order(x[20:], (0, 0))]
    np.testing.assert_array_equal(data.train.x.numpy(), x[train])
    np.testing.assert_array_equal(data.validation.x.numpy(), x[validation])
    np.testing.assert_array_equal(data.test.x.numpy(), x[test])
    assert data.split == "as in the file; a tenth of train is used for validation, by a hash of each row"
    if form == "folder":
        assert data.train.label.tolist() == y[train].tolist()
        assert data.test.label.tolist() == y[test].tolist()
    _, names = load_examples(path, data.event)
    assert (names[0], names[-1]) == ("train 0", "test 5")


def nan_table() -> np.ndarray:
    x = np.zeros((5, 3))
    x[3, 1], x[4, 0] = np.nan, np.inf
    return x


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": nan_table()},
            "PATH: 1 values of x are infinite, the first in row 4, column 0 (from 0); fill them, or remove those rows",
        ),
        ({"x": np.array(["a"])}, "PATH: x has type <U1; expected numbers (integers or floats)"),
        (
            {"x": np.zeros(5)},
            "PATH: x has shape (5,); expected (examples, ...) with at least two axes, none of them empty",
        ),
        (
            {"x": np.zeros((0, 2))},
            "PATH: x has shape (0, 2); expected (examples, ...) with at least two axes, none of them empty",
        ),
        (
            {"x": np.zeros((5, 2)), "label": np.zeros(4)},
            "PATH: label has shape (4,) and type float64; expected (5,), integers or text",
        ),
        ({"x": np.zeros((5, 2)), "y": np.full(5, 0.5)}, "the label of PATH has 0.5, which is not a class; "
         "expected integers or text"),
        ({"a": np.zeros(2), "b": np.zeros(2)}, "PATH has the arrays a, b; expected x (and label), or x_train, "
         "x_test (and label_train, label_test)"),
        (
            {"x": np.zeros((5, 7, 7, 7), np.uint8)},
            "PATH: x has shape (5, 7, 7, 7); expected images (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels C, "
            "or pass --channels first or last (channels=)",
        ),
        (
            {"x": np.full((5, 4, 4), 2**60) + np.arange(4)},
            f"PATH: x has integers from {2**60} to {2**60 + 3}, too far from 0 for float64 to distinguish them; "
            f"subtract {2**60} from them",
        ),
        (
            {"x_train": np.zeros((5, 2)), "x_test": np.zeros((5, 3))},
            "the splits of PATH have examples of different shapes [(2,), (3,)]; expected one shape",
        ),
        ({"x": np.eye(2)}, "PATH has 2 examples; at least 3 are needed to split it"),
        (
            {"x": np.zeros((2, 2))},
            "PATH has 2 examples, 1 of them distinct; at least 3 are needed to split it",
        ),
    ],
)  # fmt: skip
def test_array_refusals(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    assert refusal(tmp_path / "a.npz") == message


def test_objects_and_damaged_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{}, 1], dtype=object))
    np.savez(tmp_path / "o.npz", x=np.array([{}, 1], dtype=object))
    np.savez(tmp_path / "short.npz", x=np.zeros((50, 50)))
    content = (tmp_path / "short.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(content[:900])
    np.save(tmp_path / "short.npy", np.zeros((50, 50)))
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:900])
    (tmp_path / "flipped.npz").write_bytes(content[:5000] + b"\x55" + content[5001:])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "text.npz").write_text("hello")
    for name in ("o.npy", "o.npz", "short.npz", "short.npy", "flipped.npz", "empty.npz", "text.npz"):
        message = refusal(tmp_path / name)
        assert message.startswith("PATH has no numeric arrays (")
        assert message.endswith("); save it with numpy.savez(path, x=x, label=label)")


# ---------------------------------------------------------------- tables


def test_csv_with_header_and_words(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = [(0.5 * i, i % 2, 10 + i, "ab"[i % 2]) for i in range(10)]
    file.write_text(
        "\ufeffsize,flag,count,kind\n" + "".join(f"{a},{b},{c},{d}\n" for a, b, c, d in rows), encoding="utf-8"
    )
    data = load_data(file)
    assert data.event == Event((3,), (REAL, BINARY, Support("ordinal", 10, 10)))
    assert data.labels == ("a", "b")
    assert data.notes == ("the last column ('kind') contains text and is used as the label",)
    x, names = load_examples(file, data.event)
    assert x.dtype == torch.float64
    assert x.tolist() == [[a, b, c] for a, b, c, _ in rows]
    assert names[:2] == ("line 2", "line 3")
    train, *_ = orders.parts([(a, float(b), float(c), d) for a, b, c, d in rows])
    assert data.train.label.tolist() == [i % 2 for i in train]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("packed", [False, True])
def test_csv_separators_and_gzip(tmp_path: Path, separator: str, packed: bool) -> None:
    text = "".join(separator.join([repr(0.1 * i), str(-i), str(3 * i + 300)]) + "\n" for i in range(300))
    file = tmp_path / ("t.csv.gz" if packed else "t.csv")
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    data = load_data(file)
    assert data.event == Event((3,), REAL)
    x, names = load_examples(file, data.event)
    assert x.tolist() == [[0.1 * i, -i, 3 * i + 300] for i in range(300)]
    assert names[0] == "line 1"


def test_csv_label_and_drop(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("id,day,a,class\n" + "".join(f"n{i},2020-01-0{i},{i % 2},{i % 3 + 4}\n" for i in range(1, 10)))
    data = load_data(file, drop=("id", "day"), label="class")
    assert data.event == Event((1,), BINARY)
    assert data.labels == ("4", "5", "6")
    assert data.columns == ("a",)
    assert data.train.x.dtype == torch.uint8
    recorded = json.loads(json.dumps(data.to_json()))
    assert recorded["options"] == {"drop": ["id", "day"], "label": "class"}
    again = load_data(recorded["name"], **recorded["options"])
    assert torch.equal(again.train.x, data.train.x)
    assert torch.equal(again.train.label, data.train.label)
    assert refusal(file, drop=("idd",)) == "PATH has no column 'idd' to drop; did you mean 'id'?"
    assert refusal(file, label="clas") == "PATH has no column 'clas' for the label; did you mean 'class'?"
    assert refusal(file, resize=3) == "PATH has no option 'resize'; did you mean 'stride'?"
    assert refusal(file, drop=("id", "day", "a"), label="class") == (
        "PATH has no columns besides the label and dropped columns; expected at least one column of numbers or words"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1,2\n3,inf\n",
            "PATH: column '2': 'inf' (line 2) is not finite; correct them, remove the column (--drop 2, drop=('2',))",
        ),
        ("a,b\n1,2\n3\n", "PATH: the first line has 2 cells, but line 3 has 1; fix or delete it"),
        ("a,a\n1,2\n", "PATH: the header names the column 'a' 2 times; rename one"),
        ("a,b\n", "PATH has a header (a, b) but no rows; expected lines of numbers or words after it"),
        ("", "PATH is empty; expected lines of cells separated by , ; | tabs or spaces"),
        ("1,2\n3,4\n", "PATH has 2 examples; at least 3 are needed to split it"),
    ],
)
def test_csv_refusals(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    assert refusal(tmp_path / "t.csv") == message


def test_csv_label_with_gaps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,k\n1,x\n2,\n3,y\n")
    assert refusal(tmp_path / "t.csv", label="k") == (
        "the column 'k' of PATH (the label) has 1 missing cells; fill them, delete the lines, or drop them with "
        "--missing drop (missing='drop')"
    )


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"1,2\n\x00,4\n")
    assert refusal(tmp_path / "t.csv") == "PATH is not text (it has zero bytes); expected lines of cells"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"1,2\n" * 99)[:20])
    assert refusal(tmp_path / "t.csv.gz").startswith("PATH cannot be read as CSV (")


def test_constant_columns_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,7.5\n2,7.5\n3,7.5\n")
    assert load_data(tmp_path / "t.csv").notes[0].startswith("1 constant column: b; remove them with --drop")


def test_parquet(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="needs the extra tables")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"a": [0.25, 1e-17, 3.0], "b": [True, False, True], "k": ["x", "y", "x"]})
    frame.to_parquet(tmp_path / "t.parquet")
    data = load_data(tmp_path / "t.parquet")
    assert data.event == Event((2,), (REAL, BINARY))
    assert data.labels == ("x", "y")
    assert load_examples(tmp_path / "t.parquet", data.event)[0].tolist() == [[0.25, 1], [1e-17, 0], [3, 1]]
    (tmp_path / "t.parquet").write_text("no")
    assert refusal(tmp_path / "t.parquet").startswith("PATH is not a Parquet file (")


# ---------------------------------------------------------------- bytes and sound


def test_text_windows(tmp_path: Path) -> None:
    content = bytes(RNG.integers(0, 256, 1003, dtype=np.uint8))
    (tmp_path / "a.txt").write_bytes(content)
    data = load_data(tmp_path / "a.txt", length=10, as_="bytes")
    assert data.event == Event((10,), Support("nominal", 256), "sequence")
    assert data.notes == ("dropped 3 bytes that do not fill a window",)
    assert data.split == "80/10/10 in file order"
    joined = torch.cat([data.train.x, data.validation.x, data.test.x])
    assert joined.numpy().tobytes() == content[:1000]
    assert len(data.train) == 80
    x, names = load_examples(tmp_path / "a.txt", data.event, as_="bytes")
    assert torch.equal(x, joined)
    assert names[3] == "byte 30"
    (tmp_path / "b.bin").write_bytes(content[:10])
    assert len(load_examples(tmp_path / "b.bin", data.event, as_="bytes")[0]) == 1


def test_text_refusals(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    assert refusal(tmp_path / "a.txt") == "PATH is empty; expected text or other bytes"
    (tmp_path / "a.txt").write_bytes(b"12345")
    assert refusal(tmp_path / "a.txt") == ("PATH has 5 bytes, less than one window of length=64; use a smaller length")
    assert refusal(tmp_path / "a.txt", length=0) == "length=0; expected at least 1"


def write_wav(file: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1) -> None:
    with wave.open(str(file), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(samples.dtype.itemsize)
        sound.setframerate(rate)
        sound.writeframes(samples.tobytes())


@pytest.mark.parametrize(
    ("dtype", "event"),
    [
        (np.uint8, Event((8,), Support("ordinal", 256), "sequence")),
        (np.dtype("<i2"), Event((8,), Support("ordinal", 65536, -32768), "sequence")),
    ],
)
def test_wav_folder(tmp_path: Path, dtype: Any, event: Event) -> None:
    limits = np.iinfo(dtype)
    sounds = [RNG.integers(limits.min, limits.max, 20, endpoint=True).astype(dtype) for _ in range(4)]
    sounds = [
        RNG.integers(limits.min, limits.max, 20, endpoint=True, dtype=np.dtype(dtype).newbyteorder("=")) for _ in sounds
    ]
    for i, s in enumerate(sounds):
        write_wav(tmp_path / f"{i}.wav", s)
    whole = (tmp_path / "2.wav").read_bytes()
    (tmp_path / "2.wav").write_bytes(whole[:-7])
    write_wav(tmp_path / "4.wav", sounds[0][:5])
    data = load_data(tmp_path, length=8)
    assert data.event == event
    kept = [i for i in hashed_order(5) if i not in (2, 4)]
    expected = np.concatenate([sounds[i][:16].reshape(2, 8) for i in kept])
    np.testing.assert_array_equal(torch.cat([data.train.x, data.validation.x, data.test.x]).numpy(), expected)
    assert data.notes[0].startswith("skipped 1 of 5 recordings that cannot be read: 2.wav (truncated: ")
    assert data.notes[1:] == (
        "ignored 1 recording shorter than 8 samples: 4.wav",
        "dropped 12 samples that do not fill a window",
    )
    _, names = load_examples(tmp_path, data.event)
    assert names[1] == f"{kept[0]}.wav 0.001 s"


def test_wav_refusals(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(40, np.int16))
    assert refusal(tmp_path, length=64) == (
        "every recording in PATH is shorter than length=64 samples; use a smaller length"
    )
    write_wav(tmp_path / "b.wav", np.zeros(40, np.int16), rate=16000)
    assert refusal(tmp_path, length=4) == (
        "the recordings in PATH differ: 8000 Hz 16 bits (a.wav), 16000 Hz 16 bits (b.wav); convert them to one rate, "
        "depth and number of channels, or resample them with --rate 8000 (rate=8000)"
    )


# ---------------------------------------------------------------- paths, and examples of a given event


def test_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1\n")
    message = refusal(tmp_path / "tabel.csv")
    assert (
        message == "there is no data set, file or folder 'PATH'; did you mean 'table.csv'? (unsup data lists the sets)"
    )


def test_a_name_of_the_catalogue_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "digits", 3)
    assert load_data("digits").event.shape == (1, 8, 8)
    mine = load_data("./digits")
    assert mine.event.shape == (1, 6, 5)
    assert mine.name == str(tmp_path / "digits")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and cannot be read")
def test_unreadable_file() -> None:
    assert refusal(Path("/proc/self/mem")) == "cannot read PATH (Input/output error); check its permissions"


@pytest.mark.parametrize(
    ("array", "event", "message"),
    [
        (
            np.zeros((2, 3, 32, 32), np.uint8),
            Event((3, 28, 28), Support("ordinal", 256)),
            "PATH has examples of shape (3, 32, 32); expected (3, 28, 28) (image of 3×28×28, ordinal(256)); "
            "use --resize 28 "
            "(resize=28)",
        ),
        (
            np.zeros((2, 3, 8, 8), np.uint8),
            Event((1, 8, 8), Support("ordinal", 256)),
            "PATH has examples of shape (3, 8, 8); expected (1, 8, 8) (image of 1×8×8, ordinal(256)); convert "
            "the images to "
            "1 channel",
        ),
        (
            np.zeros((2, 64), np.uint8),
            Event((1, 8, 8), Support("ordinal", 17)),
            "PATH has examples of shape (64,); expected (1, 8, 8) (image of 1×8×8, ordinal(17)); reshape the "
            "array to "
            "(-1, 1, 8, 8)",
        ),
        (
            np.zeros((2, 4)),
            Event((3,), REAL),
            "PATH has examples of shape (4,); expected (3,) (vector of 3, real); remove columns with --drop "
            "(drop=) or "
            "--label (label=)",
        ),
        (
            np.full((3, 1, 8, 8), 255, np.uint8),
            Event((1, 8, 8), Support("ordinal", 17)),
            "PATH: 3 of 3 examples have values outside image of 1×8×8, ordinal(17) (the first is number 0, from "
            "0; values range "
            "from 255 to 255); expected raw data in the units of the training data",
        ),
        (
            np.array([[0.0, 1], [0.5, 0]]),
            Event((2,), BINARY),
            "PATH: 1 of 2 examples have values outside vector of 2, binary (the first is number 1, from 0; "
            "values range from 0 to "
            "1); expected raw data in the units of the training data",
        ),
    ],
)
def test_examples_must_fit_the_event(tmp_path: Path, array: np.ndarray, event: Event, message: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError) as error:
        load_examples(tmp_path / "a.npy", event)
    assert str(error.value).replace(str(tmp_path / "a.npy"), "PATH") == message


def test_examples_take_the_type_of_the_event(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0.0, 3], [2, 1]]))
    x, _ = load_examples(tmp_path / "a.npy", Event((2,), Support("ordinal", 4)))
    assert x.dtype == torch.uint8
    assert x.tolist() == [[0, 3], [2, 1]]
    np.save(tmp_path / "b.npy", np.array([[0, 3], [2, 1]]))
    x, _ = load_examples(tmp_path / "b.npy", Event((2,), REAL))
    assert x.is_floating_point()
    assert x.tolist() == [[0, 3], [2, 1]]


def test_arrays_in_memory_are_split_like_a_file(tmp_path):
    x = np.random.default_rng(0).integers(0, 9, (60, 4))
    label = np.arange(60) % 3
    np.savez(tmp_path / "a.npz", x=x, label=label)
    memory, file = unsup.from_arrays(x, label), unsup.load_data(tmp_path / "a.npz")
    assert memory.name is None
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(memory, part).x, getattr(file, part).x)
        assert torch.equal(getattr(memory, part).label, getattr(file, part).label)
    assert torch.equal(unsup.from_arrays(torch.from_numpy(x)).train.x, memory.train.x)


def test_a_class_is_left_out_of_every_split_and_nothing_else():
    whole, rest = load_data("digits"), load_data("digits", without="3")
    for name in ("train", "validation", "test"):
        before, after = getattr(whole, name), getattr(rest, name)
        assert torch.equal(after.x, before.x[before.label != 3])
        assert torch.equal(after.label, before.label[before.label != 3])
    assert rest.labels == whole.labels
    assert rest.options == {"without": "3"}
    assert "9 classes" in rest.describe()
    with pytest.raises(InputError, match="has no class '33'; known: 0, 1, 2, 3"):
        load_data("digits", without="33")
    with pytest.raises(InputError, match="markov has no labels"):
        load_data("markov", without="3")
