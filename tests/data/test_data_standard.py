"""Standard sets: counts and moments where the files are at hand, and the readers on small files of the same form."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data import load_data, load_examples, standard
from unsup.data.source import Data

ROOT = Path(os.environ.get("UNSUP_DATA", "/nowhere"))


def needs(*folders: str) -> pytest.MarkDecorator:
    missing = [f for f in folders if not (ROOT / f).is_dir()]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} in $UNSUP_DATA")


def sizes(data: Data) -> tuple[int, int, int]:
    return len(data.train), len(data.validation), len(data.test)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No $UNSUP_DATA, an empty cache."""
    monkeypatch.delenv("UNSUP_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path


@needs("mnist")
def test_mnist_and_its_dynamic_binarisation() -> None:
    plain, drawn = load_data("mnist"), load_data("dynamic-mnist")
    assert sizes(plain) == (50_000, 10_000, 10_000)
    assert sizes(drawn) == (59_600, 400, 10_000)
    assert plain.event == Event((1, 28, 28), Support("ordinal", 256))
    assert drawn.event == Event((1, 28, 28), BINARY)
    # The class counts and the mean 0.1307 of the 60,000 training images, as published everywhere.
    label = torch.cat([plain.train.label, plain.validation.label])
    assert label.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert plain.test.label.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    grey = torch.cat([plain.train.x, plain.validation.x])
    assert round(float(grey.sum()) / grey.numel() / 255, 4) == 0.1307

    assert torch.equal(drawn.train.grey, grey[:59_600])
    assert drawn.validation.grey is None
    assert drawn.test.grey is None
    assert torch.equal(drawn.train.label, label[:59_600])
    assert torch.equal(drawn.validation.label, label[59_600:])
    seen, grey = drawn.train.epoch(0, 1).x[:10_000], grey[:10_000]
    drawn.event.check(seen)
    assert not bool((seen > 0)[grey == 0].any())
    assert bool((seen > 0)[grey == 255].all())
    p = grey.float() / 255
    assert abs(int(seen.sum()) - p.double().sum()) < 4 * (p * (1 - p)).double().sum().sqrt()
    # Validation and test are drawn once: equal in every load, black where the grey image is.
    again = load_data("dynamic-mnist", data_dir=str(ROOT))
    assert torch.equal(again.test.x, drawn.test.x)
    assert torch.equal(again.validation.x, drawn.validation.x)
    assert bool((drawn.test.x[plain.test.x == 255] == 1).all())
    assert bool((drawn.test.x[plain.test.x == 0] == 0).all())
    assert again.options == {"data_dir": str(ROOT)}


@needs("binarized_mnist")
def test_binarized_mnist() -> None:
    data = load_data("binarized-mnist")
    assert sizes(data) == (50_000, 10_000, 10_000)
    assert data.event == Event((1, 28, 28), BINARY)
    assert data.labels is None
    means = [round(float(s.x.sum()) / s.x.numel(), 5) for s in (data.train, data.validation, data.test)]
    assert means == [0.13056, 0.13113, 0.13251]
    assert data.train.x.unique().tolist() == [0, 1]


@needs("binarized_mnist", "mnist")
def test_binarized_mnist_lies_upright_on_mnist() -> None:
    """The test images are MNIST's, stably sorted by digit: ink only where the grey image is not black."""
    static, plain = load_data("binarized-mnist").test.x, load_data("mnist").test
    grey = plain.x[plain.label.argsort(stable=True)]
    assert not bool(((static == 1) & (grey == 0)).any())
    assert not bool(((static == 0) & (grey == 255)).any())


@needs("fashion_mnist")
def test_fashion_mnist() -> None:
    data = load_data("fashion-mnist")
    assert sizes(data) == (50_000, 10_000, 10_000)
    label = torch.cat([data.train.label, data.validation.label])
    assert label.bincount().tolist() == [6000] * 10
    assert data.test.label.bincount().tolist() == [1000] * 10
    # First training images, as the authors' own table of labels has them: ankle boot, T-shirt, T-shirt, dress.
    assert [data.labels[i] for i in label[:4].tolist()] == ["Ankle boot", "T-shirt/top", "T-shirt/top", "Dress"]


@needs("fsdd")
def test_spoken_digits() -> None:
    data = load_data("fsdd", length=400)
    assert data.event == Event((400,), Support("ordinal", 256), "sequence")
    assert data.rate == 8000
    assert data.split == "official test; validation: takes 5 to 9 of the training recordings"
    x, names = load_examples("fsdd", data.event, length=400)
    takes = {int(name.split(".")[0].split("_")[2]) for name in names}
    assert takes == {0, 1, 2, 3, 4}
    assert len(x) == len(data.test)
    label = [data.labels[i] for i in data.test.label]
    assert label == [name[0] for name in names]
    whole = sum(len(split) for split in (data.train, data.validation, data.test))
    dropped = int(data.notes[-1].split()[1].replace(",", ""))
    assert 400 * whole + dropped == 10_498_424  # no recording is shorter than a window

    covered = load_data("fsdd", length=400, tail=True)
    assert sum(int(s.lengths.sum()) for s in (covered.train, covered.validation, covered.test)) == 10_498_424
    told = load_data("fsdd", length=4000, label="speaker", given="label", mu_law=False)
    assert told.event == Event((4000,), Support("ordinal", 65_536, -32_768), "sequence")
    assert str(told.given) == "nominal(6)"
    assert told.labels == ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    with pytest.raises(InputError, match="label"):
        load_data("fsdd", label="word")


@needs("text")
@pytest.mark.parametrize(
    ("name", "folder", "event"),
    [
        ("tinyshakespeare", "tinyshakespeare", Event((256,), Support("nominal", 65), "sequence")),
        ("enwiki-fragment", "enwiki_fragment", Event((512,), Support("nominal", 256), "sequence")),
    ],
)
def test_texts_are_covered_once(name: str, folder: str, event: Event) -> None:
    (path,) = (ROOT / "text" / folder).iterdir()
    content = path.read_bytes()
    content = bz2.decompress(content) if path.suffix == ".bz2" else content
    length = event.shape[0]
    data = load_data(name, tail=True)
    assert data.event == event
    train, validation, test = (data.form.texts(s.x, s.lengths) for s in (data.train, data.validation, data.test))
    windows = iter(train), iter(validation)
    count = len(train) + len(validation)
    before = b"".join(next(windows[number % 18 == 9]) for number in range(count))
    assert before + b"".join(test) == content  # the text is ASCII where tokens are characters
    # The number of windows is rounded down, and the last window is short.
    assert len(b"".join(test)) == pytest.approx(0.1 * len(content), abs=2 * length)
    assert len(validation) == pytest.approx(0.05 * (count + len(test)), abs=2)


@needs("bsds300")
def test_patches_of_photographs() -> None:
    """The removed pixel makes the sum zero, up to the noise-free mean; parts come from different images."""
    data = load_data("bsds-patches", n=2000)
    x = data.train.x[:]
    assert data.event == Event((63,), REAL)
    assert sizes(data) == (2000, 200, 200)
    whole = torch.cat([x, -x.sum(1, keepdim=True)], 1)
    assert whole.abs().max() < 1
    assert whole.std() > 0.05
    steps = whole.view(-1, 8, 8).diff(dim=2).abs().mean()  # neighbours are similar in photographs
    assert steps < 0.6 * (whole - whole.roll(1, 0)).abs().mean()
    assert torch.equal(x, load_data("bsds-patches", n=2000).train.x[:])
    with pytest.raises(InputError, match="n=9 training patches; expected at least 10"):
        load_data("bsds-patches", n=9)


@needs("bsds300")
def test_colour_patches_of_photographs() -> None:
    data = load_data("bsds-colour", n=300, side=24)
    x = data.train.x
    assert data.event == Event((3, 24, 24), Support("ordinal", 256))
    assert sizes(data) == (300, 30, 30)
    assert (x.amax(1).int() - x.amin(1).int()).double().mean() > 10  # they have colours
    steps = x.int().diff(dim=3).abs().double().mean()
    assert steps < 0.3 * (x.int() - x.roll(1, 0).int()).abs().double().mean()
    assert torch.equal(x, load_data("bsds-colour", n=300, side=24).train.x)
    for options, words in (({"n": 9}, "n=9 training patches"), ({"side": 322}, "side=322 pixels; expected 1 to 321")):
        with pytest.raises(InputError, match=words):
            load_data("bsds-colour", **options)


def test_missing_photographs_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSUP_DATA", raising=False)
    with pytest.raises(InputError, match="needs at least two images bsds300/train/"):
        load_data("bsds-patches", data_dir=str(tmp_path))


@needs("omniglot")
def test_omniglot() -> None:
    data = load_data("omniglot")
    assert sum(sizes(data)) == 4840
    assert data.event == Event((1, 105, 105), BINARY)
    assert len(data.labels) == 242
    label = torch.cat([data.train.label, data.validation.label, data.test.label])
    assert label.bincount().tolist() == [20] * 242
    x, names = load_examples("omniglot", data.event)
    assert torch.equal(x, data.test.x)
    assert names[0].startswith(data.labels[int(data.test.label[0])] + " drawer ")


@needs("adbench", "uci", "text")
def test_tables_and_text_of_the_data_folder() -> None:
    shuttle = load_data(ROOT / "adbench" / "32_shuttle.npz")
    assert sum(sizes(shuttle)) == 49_097
    assert shuttle.event.shape == (9,)
    assert shuttle.labels == ("0", "1")
    iris = load_data(ROOT / "uci" / "iris.csv")
    assert iris.describe() == "150 rows, 4 columns (real), 3 classes; 118 train, 15 validation, 17 test"
    pollution = load_data(ROOT / "uci" / "pollution.csv.gz")
    assert sum(sizes(pollution)) == 43_824
    assert "2,067 of 43,824 rows have missing values, in the columns pm2.5 (2,067)" in pollution.notes
    text = load_data(ROOT / "text" / "tinyshakespeare" / "input.txt")
    assert sum(sizes(text)) == 1_115_394 // 64
    assert len(text.train.x.unique()) == 65


def write_idx(file: Path, values: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    file.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes(), 1))


def test_idx_files_come_back_and_damage_is_noticed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 3, 2))
    write_idx(tmp_path / "a.gz", values)
    np.testing.assert_array_equal(standard.read_idx(tmp_path / "a.gz").numpy(), values)
    whole = (tmp_path / "a.gz").read_bytes()
    for damaged in (whole[:-9], b"junk", b"", whole[:20] + b"\xff\xff" + whole[22:], gzip.compress(b"\0\0\x08"),
                    gzip.compress(b"\0\0\x08\x02\0\0\0\x05\0\0\0\x05abc")):  # fmt: skip
        (tmp_path / "a.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.gz is damaged \(.+\); delete it and download it again$"):
            standard.read_idx(tmp_path / "a.gz")


def test_cifar10_from_its_binary_version(nowhere: Path) -> None:
    """Records of one label and 3×32×32 bytes, red plane first, five training batches and one of test."""
    rng = np.random.default_rng(0)
    label, x = rng.integers(0, 10, 24), rng.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8)
    (nowhere / "cifar10").mkdir()
    with tarfile.open(nowhere / "cifar10" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
            content = b"".join(bytes([label[j]]) + x[j].tobytes() for j in range(4 * i, 4 * i + 4))
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    data = load_data("cifar10", data_dir=str(nowhere))
    assert sizes(data) == (18, 2, 4)
    assert data.event == Event((3, 32, 32), Support("ordinal", 256))
    np.testing.assert_array_equal(torch.cat([data.train.x, data.validation.x, data.test.x]).numpy(), x)
    np.testing.assert_array_equal(torch.cat([data.train.label, data.validation.label, data.test.label]), label)
    assert data.labels[:2] == ("airplane", "automobile")
    file = nowhere / "cifar10" / "cifar-10-binary.tar.gz"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"cifar-10-binary\.tar\.gz is damaged"):
        load_data("cifar10", data_dir=str(nowhere))


def test_missing_data_says_where_and_how(nowhere: Path) -> None:
    with pytest.raises(InputError) as error:
        load_data("mnist")
    assert str(error.value) == (
        f"mnist needs mnist/train-images-idx3-ubyte.gz, which is not in {nowhere}/cache/unsup; set $UNSUP_DATA or "
        "--data-dir "
        "(data_dir=) to the folder that contains mnist/, or run unsup data mnist --download (download=True)"
    )
    for download in (False, True):
        with pytest.raises(
            InputError, match=r"contains binarized_mnist/ \(it cannot be downloaded, because its source provides no"
        ):
            load_data("binarized-mnist", download=download)
    with pytest.raises(InputError, match=r"^there is no folder /no/such \(data_dir, or --data-dir\)"):
        load_data("mnist", data_dir="/no/such")


def test_download_asks_for_the_known_checksum_and_only_when_told(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    content = {"train-images": rng.integers(0, 256, (10_003, 28, 28)), "train-labels": rng.integers(0, 10, 10_003),
               "t10k-images": rng.integers(0, 256, (2, 28, 28)), "t10k-labels": np.array([3, 4])}  # fmt: skip
    asked = []

    def retrieve(url: str, *, known_hash: str, path: Path, fname: str) -> str:
        asked.append((url.rsplit("/", 1)[1], known_hash))
        write_idx(path / fname, content["-".join(fname.split("-")[:2])])
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(InputError, match=r"--download"):
        load_data("mnist")
    assert asked == []
    data = load_data("mnist", download=True)
    assert sorted(asked) == sorted((file, f"md5:{md5}") for file, md5 in standard._MNIST_MD5.items())
    assert sizes(data) == (3, 10_000, 2)
    assert data.options == {}
    np.testing.assert_array_equal(data.test.x[:, 0].numpy(), content["t10k-images"])
    assert torch.equal(load_data("mnist").train.x, data.train.x)
    assert len(asked) == 4


def test_failed_download_is_one_line(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def retrieve(url: str, **_: object) -> str:
        raise ValueError("hash of downloaded file\ndoes not match")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(
        InputError, match=r"^cannot download .*hash of downloaded file does not match\); download it manually"
    ):
        load_data("cifar10", download=True)


@needs("mnist", "fashion_mnist")
def test_known_checksums_are_those_of_the_files() -> None:
    for folder, md5 in [("mnist", standard._MNIST_MD5), ("fashion_mnist", standard._FASHION_MD5)]:
        for file, known in md5.items():
            assert pooch.file_hash(str(ROOT / folder / file), alg="md5") == known
