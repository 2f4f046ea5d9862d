"""Standard sets: found in ``data_dir``, ``$UNSUP_DATA`` or the cache; downloaded only on request."""

from __future__ import annotations

import gzip
import itertools
import os
import struct
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pooch
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unsup.core.config import AtLeast, check_value
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.data.arrays import read_npz
from unsup.data.examples import Examples, Names, classes, part_names
from unsup.data.sound import windows_of_files
from unsup.data.source import binarise
from unsup.data.text import Tokens, read_text
from unsup.data.vocabulary import read_words

_PIXELS = Support("ordinal", 256)

_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_MD5: dict[str, str | None] = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
_FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FASHION_MD5: dict[str, str | None] = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
_CIFAR_MD5: dict[str, str | None] = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR_RECORD = 1 + 3 * 32 * 32

_ENWIKI_FILE = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.xml.bz2"
_SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

_MOST = 2**29  # maximum bytes in one file
_FIXED_SEED = 0  # key of the fixed binarisation of validation and test images of dynamic-mnist


def mnist(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """MNIST (LeCun, Cortes, Burges 1998); the last 10,000 training images are used for validation.

    Args:
        data_dir: folder with the standard sets, instead of $UNSUP_DATA.
        download: download missing files once and verify their checksums.
    """
    files = _find("mnist", "mnist", _MNIST_MD5, _MNIST_URL, data_dir, download)
    return _idx_images(files, tuple(str(i) for i in range(10)))


def fashion_mnist(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, https://arxiv.org/abs/1708.07747), split like MNIST."""
    files = _find("fashion-mnist", "fashion_mnist", _FASHION_MD5, _FASHION_URL, data_dir, download)
    return _idx_images(files, _FASHION_CLASSES)


def dynamic_mnist(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """MNIST with pixels drawn as Bernoulli(grey / 255): again in every training epoch, once for the other splits.

    The last 400 training images are used for validation, as in the IWAE paper (Burda, Grosse, Salakhutdinov 2016,
    https://arxiv.org/abs/1509.00519).
    """
    files = _find("dynamic-mnist", "mnist", _MNIST_MD5, _MNIST_URL, data_dir, download)
    grey = _idx_images(files, tuple(str(i) for i in range(10)))
    x = binarise(grey.tensor, seed=_FIXED_SEED, epoch=0)
    return Examples(
        x,
        Event((1, 28, 28), BINARY),
        grey.names,
        grey.label,
        grey.labels,
        notes=("training pixels are drawn again in every epoch; validation and test pixels are drawn once",),
        sizes=(59_600, 400, 10_000),
        split="official test; validation: the last 400 training images",
        grey=grey.tensor,
    )


def stacked_mnist(*, n: int = 128_000, data_dir: str | None = None, download: bool = False) -> Examples:
    """Three MNIST digits as the channels of one image ``(3, 28, 28)``: 1,000 equally likely modes.

    Che, Li, Jacob, Bengio, Li 2017 (https://arxiv.org/abs/1612.02136). The class is the number formed by the digits,
    starting with the first channel. n training images are drawn with replacement from the training digits of MNIST, and
    a tenth of n each for validation and test from the corresponding splits.
    """
    if n < 10:
        raise InputError(f"stacked-mnist: n={n} training examples; expected at least 10")
    digits = mnist(data_dir=data_dir, download=download)
    assert digits.sizes is not None
    assert digits.label is not None
    sizes, rng = (n, n // 10, n // 10), np.random.default_rng(list(b"stacked-mnist"))
    starts = np.cumsum([0, *digits.sizes[:2]])
    rows = np.concatenate(
        [
            start + rng.integers(own, size=(size, 3))
            for start, own, size in zip(starts, digits.sizes, sizes, strict=True)
        ]
    )
    x = torch.from_numpy(digits.tensor.numpy()[:, 0][rows])  # (N, 3, 28, 28)
    label = (digits.label[torch.from_numpy(rows)] * torch.tensor([100, 10, 1])).sum(1)
    return Examples(
        x,
        Event((3, 28, 28), _PIXELS),
        _part_names(sizes),
        label,
        tuple(f"{i:03}" for i in range(1000)),
        sizes=sizes,
        split="drawn from the digits of the splits of MNIST",
    )


def binarized_mnist(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """The static binarisation of MNIST (Salakhutdinov, Murray 2008; Larochelle, Murray 2011). It has no labels.

    The test images are sorted by digit.
    """
    names = [f"binarized_mnist_{part}.npz" for part in ("train", "valid", "test")]
    files = _find("binarized-mnist", "binarized_mnist", dict.fromkeys(names), None, data_dir, download)
    parts = [torch.from_numpy(read_npz(file)["x"]).view(-1, 1, 28, 28) for file in files.values()]
    sizes = (len(parts[0]), len(parts[1]), len(parts[2]))
    return Examples(torch.cat(parts), Event((1, 28, 28), BINARY), _part_names(sizes), sizes=sizes, split="official")


def cifar10(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """CIFAR-10 (Krizhevsky 2009), binary version; the last 5,000 training images are used for validation."""
    (file,) = _find("cifar10", "cifar10", _CIFAR_MD5, _CIFAR_URL, data_dir, download).values()
    batches = [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)] + [
        "cifar-10-batches-bin/test_batch.bin"
    ]
    try:
        with tarfile.open(file) as archive:
            content = [archive.extractfile(name).read() for name in batches]  # type: ignore[union-attr]
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise _damaged(file, error) from error
    records = torch.frombuffer(bytearray(b"".join(content)), dtype=torch.uint8).view(-1, _CIFAR_RECORD)
    test = len(content[-1]) // _CIFAR_RECORD
    train = len(records) - test
    sizes = (train - train // 10, train // 10, test)
    return Examples(
        records[:, 1:].reshape(-1, 3, 32, 32),
        Event((3, 32, 32), _PIXELS),
        _part_names((train, 0, test)),
        records[:, 0].long(),
        _CIFAR_CLASSES,
        sizes=sizes,
        split="official test; validation: the last tenth of the training images",
    )


def cifar10_20k(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """20,000 of the training images of CIFAR-10 (Krizhevsky 2009) and all test images; 2,000 are for validation.

    Results on this subset are not results on CIFAR-10.
    """
    files = _find("cifar10-20k", "cifar10_20k", dict.fromkeys(("train.npz", "test.npz")), None, data_dir, download)
    train, test = (read_npz(file) for file in files.values())
    sizes = (len(train["x"]) - len(train["x"]) // 10, len(train["x"]) // 10, len(test["x"]))
    return Examples(
        torch.from_numpy(np.concatenate([train["x"], test["x"]])),
        Event((3, 32, 32), _PIXELS),
        _part_names((len(train["x"]), 0, len(test["x"]))),
        torch.from_numpy(np.concatenate([train["label"], test["label"]])).long(),
        _CIFAR_CLASSES,
        sizes=sizes,
        split="official test; validation: the last tenth of the training images",
    )


def bsds_patches(*, n: int = 100_000, data_dir: str | None = None) -> Examples:
    """Grey patches of 8×8 pixels of the photographs of BSDS300 (Martin et al. 2001), 63 real numbers each.

    As for the densities of Papamakarios, Pavlakou, Murray (2017, https://arxiv.org/abs/1705.07057): uniform noise
    within the levels, scaled to [0, 1], the mean of the patch subtracted, and the last pixel, which the others
    determine, removed. The patches are drawn by a fixed seed from the images found, test patches from validation images
    of BSDS500, so that a result here is not one on the fixed file of that paper.

    Args:
        n: number of training patches; validation, from a tenth of the training images, and test have a tenth of it.
        data_dir: folder with the standard sets, instead of $UNSUP_DATA.
    """
    if n < 10:
        raise InputError(f"bsds-patches: n={n} training patches; expected at least 10")
    training, test = (_photographs("bsds-patches", f"bsds300/{part}", data_dir) for part in ("train", "val"))
    kept = len(training) - max(1, len(training) // 10)
    parts, sizes = (training[:kept], training[kept:], test), (n, n // 10, n // 10)
    rng = np.random.default_rng(list(b"bsds-patches"))
    x = np.concatenate([_patches(images, size, rng) for images, size in zip(parts, sizes, strict=True)])
    return Examples(
        torch.from_numpy(x),
        Event((63,), REAL),
        _part_names(sizes),
        sizes=sizes,
        split="patches of different photographs",
    )


def bsds_colour(*, n: int = 20_000, side: int = 32, data_dir: str | None = None) -> Examples:
    """Colour patches of the photographs of BSDS300 (Martin et al. 2001), drawn by a fixed seed: ``(3, side, side)``.

    Validation patches are from a tenth of the training images, test patches from validation images of BSDS500.

    Args:
        n: number of training patches; validation and test have a tenth of it.
        side: of the patches, in pixels.
        data_dir: folder with the standard sets, instead of $UNSUP_DATA.
    """
    if n < 10:
        raise InputError(f"bsds-colour: n={n} training patches; expected at least 10")
    training, test = (_photographs("bsds-colour", f"bsds300/{part}", data_dir, "RGB") for part in ("train", "val"))
    smallest = min(min(image.shape[:2]) for image in (*training, *test))
    if not 1 <= side <= smallest:
        raise InputError(f"bsds-colour: side={side} pixels; expected 1 to {smallest}, the smallest side of an image")
    kept = len(training) - max(1, len(training) // 10)
    parts, sizes = (training[:kept], training[kept:], test), (n, n // 10, n // 10)
    rng = np.random.default_rng(list(b"bsds-colour"))
    x = np.concatenate([_windows(images, size, side, rng) for images, size in zip(parts, sizes, strict=True)])
    return Examples(
        torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))),
        Event((3, side, side), _PIXELS),
        _part_names(sizes),
        sizes=sizes,
        split="patches of different photographs",
    )


def _photographs(name: str, folder: str, data_dir: str | None, mode: str = "L") -> list[NDArray[np.uint8]]:
    """The images of a folder by name, grey ``(H, W)`` or ``(H, W, 3)`` with mode RGB."""
    places = [place / folder for place in _places(data_dir, folder)]
    files = next((found for place in places if (found := sorted(place.glob("*.jpg")))), [])
    if len(files) < 2:
        raise InputError(
            f"{name} needs at least two images {folder}/*.jpg, which are not in "
            f"{', '.join(str(place.parent.parent) for place in places)}; set $UNSUP_DATA or --data-dir (data_dir=) to "
            f"the folder that contains {folder}/ (it cannot be downloaded, because its source provides no checksum)"
        )
    images = []
    for file in files:
        with Image.open(file) as image:
            images.append(np.asarray(image.convert(mode)))
    return images


def _windows(images: list[NDArray[np.uint8]], n: int, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random squares of random images, ``(n, side, side, ...)``."""
    found = np.empty((n, side, side, *images[0].shape[2:]), np.uint8)
    for i, which in enumerate(rng.integers(len(images), size=n)):
        image = images[which]
        top, left = (rng.integers(size - side + 1) for size in image.shape[:2])
        found[i] = image[top : top + side, left : left + side]
    return found


def _patches(images: list[NDArray[np.uint8]], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    flat = (_windows(images, n, 8, rng).reshape(n, -1) + rng.random((n, 64))) / 256
    flat -= flat.mean(1, keepdims=True)
    return flat[:, :-1].astype(np.float32)


def jsb_chorales(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """382 chorales by J. S. Bach as piano rolls, 88 keys at every step (Boulanger-Lewandowski et al. 2012).

    Examples have different lengths, up to 160 steps.
    """
    return _piano_rolls("jsb-chorales", "JSB_Chorales.mat", data_dir, download)


def nottingham(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """1,037 folk tunes as piano rolls, 88 keys at every step (Boulanger-Lewandowski et al. 2012).

    Examples have different lengths, up to 1,793 steps.
    """
    return _piano_rolls("nottingham", "Nottingham.mat", data_dir, download)


def _piano_rolls(name: str, file: str, data_dir: str | None, download: bool) -> Examples:
    from scipy.io import loadmat  # here, because importing it takes a quarter of a second

    (path,) = _find(name, "polyphonic_music", {file: None}, None, data_dir, download).values()
    try:
        content = loadmat(path, variable_names=("traindata", "validdata", "testdata"))
        parts = [list(content[key][0]) for key in ("traindata", "validdata", "testdata")]
        rolls = [np.asarray(roll, np.uint8) for part in parts for roll in part]
        lengths = np.array([len(roll) for roll in rolls])
        x = np.zeros((len(rolls), int(lengths.max()), 88), np.uint8)
        for row, roll in zip(x, rolls, strict=True):
            row[: len(roll)] = roll
    except (OSError, KeyError, IndexError, TypeError, ValueError, zlib.error) as error:
        raise _damaged(path, error) from error
    sizes = (len(parts[0]), len(parts[1]), len(parts[2]))
    return Examples(
        torch.from_numpy(x),
        Event(x.shape[1:], BINARY, "sequence", open=True),
        _part_names(sizes),
        lengths=torch.from_numpy(lengths),
        sizes=sizes,
        split="official",
    )


def omniglot(*, data_dir: str | None = None, download: bool = False) -> Examples:
    """The two small background sets of Omniglot (Lake, Salakhutdinov, Tenenbaum 2015): (1, 105, 105), 1 is ink."""
    name = "omniglot_small1and2_105.npz"
    (file,) = _find("omniglot", "omniglot", {name: None}, None, data_dir, download).values()
    arrays = read_npz(file)
    alphabet = np.char.decode(arrays["alphabet"], "utf-8")
    character = np.array([f"{a} {c:02d}" for a, c in zip(alphabet, arrays["character"].tolist(), strict=True)])
    label, labels = classes(character, str(file))
    names = tuple(f"{c} drawer {d}" for c, d in zip(character.tolist(), arrays["drawer"].tolist(), strict=True))
    return Examples(torch.from_numpy(arrays["x"]).unsqueeze(1), Event((1, 105, 105), BINARY), names, label, labels)


def fsdd(
    *,
    length: int = 1024,
    mu_law: bool = True,
    label: Literal["digit", "speaker"] = "digit",
    tail: bool = False,
    data_dir: str | None = None,
) -> Examples:
    """The Free Spoken Digit Dataset (Jackson et al.): windows of 3,000 recordings at 8 kHz, of six speakers.

    The test split is the official one, takes 0 to 4 of every digit and speaker; takes 5 to 9 are used for validation.

    Args:
        length: samples in one window.
        mu_law: as the 256 levels of the μ-law, instead of 16 bits.
        label: what the labels are, the digit or the speaker.
        tail: as for bytes.
        data_dir: folder with the standard sets, instead of $UNSUP_DATA.
    """
    parts = (range(10, 50), range(5, 10), range(5))
    takes = [
        (str(digit), speaker, take)
        for part in parts
        for digit, speaker, take in itertools.product(range(10), _SPEAKERS, part)
    ]
    names = [f"{digit}_{speaker}_{take}.wav" for digit, speaker, take in takes]
    files = _find("fsdd", "fsdd", {f"recordings/{name}": None for name in names}, None, data_dir, False)
    recordings = list(zip(names, files.values(), strict=True))
    found, owner = windows_of_files(recordings, length, "fsdd", mu_law=mu_law, tail=tail)
    classes = tuple(map(str, range(10))) if label == "digit" else _SPEAKERS
    number = torch.tensor([classes.index(take[0 if label == "digit" else 1]) for take in takes])
    ends = torch.tensor([60 * len(part) for part in parts]).cumsum(0)
    train, validation, test = torch.bucketize(owner, ends, right=True).bincount(minlength=3).tolist()
    return replace(
        found,
        label=number[owner],
        labels=classes,
        sizes=(train, validation, test),
        split="official test; validation: takes 5 to 9 of the training recordings",
    )


def tinyshakespeare(
    *,
    length: int = 256,
    tokens: Literal["bytes", "characters"] = "characters",
    tail: bool = False,
    data_dir: str | None = None,
) -> Examples:
    """Windows of 1,115,394 characters from plays by Shakespeare (Karpathy 2015); the last 10 % are the test split.

    Every 18th window of the rest is for validation.

    Args:
        length: characters, or bytes, in one window.
        tokens: as for texts.
        tail: as for bytes.
        data_dir: as for fsdd.
    """
    found = _find("tinyshakespeare", "text/tinyshakespeare", {"input.txt": None}, None, data_dir, False)
    return _text(found, length, tokens, tail)


def tinyshakespeare_words(
    *, length: int = 64, vocabulary: int = 5_000, tail: bool = False, data_dir: str | None = None
) -> Examples:
    """Windows of words and punctuation marks of the same plays, in lower case; the last 10 % are the test split.

    Every 18th window of the rest is for validation. Words that are not among the most frequent of the first 90 % are
    one token.

    Args:
        length: words in one window.
        vocabulary: number of tokens, that of all other words included.
        tail: as for bytes.
        data_dir: as for fsdd.
    """
    found = _find("tinyshakespeare-words", "text/tinyshakespeare", {"input.txt": None}, None, data_dir, False)
    (path,) = found.values()
    check_value("vocabulary", vocabulary, Annotated[int, AtLeast(2)])
    return _split(read_words(path, length=length, vocabulary=vocabulary, tail=tail, training=0.9))


def enwiki_fragment(
    *,
    length: int = 512,
    tokens: Literal["bytes", "characters"] = "bytes",
    tail: bool = False,
    data_dir: str | None = None,
) -> Examples:
    """Windows of 206 pages of the English Wikipedia in XML, 6 MB; the last 10 % are the test split.

    Every 18th window of the rest is for validation. It is text of the kind of enwik8, but not a piece of it: results
    are not results on enwik8.

    Args:
        length: bytes, or characters, in one window.
        tokens: as for texts.
        tail: as for bytes.
        data_dir: as for fsdd.
    """
    found = _find("enwiki-fragment", "text/enwiki_fragment", {_ENWIKI_FILE: None}, None, data_dir, False)
    return _text(found, length, tokens, tail)


def _text(files: dict[str, Path], length: int, tokens: Tokens, tail: bool) -> Examples:
    """Windows of a text: the last 10 % for test, every 18th of the others (5 % of all) for validation."""
    (path,) = files.values()
    return _split(read_text(path, length=length, tokens=tokens, tail=tail))


def _split(found: Examples) -> Examples:
    """The last 10 % of the windows for test, every 18th of the others for validation."""
    numbers = torch.arange(len(found.x))
    test = numbers >= len(found.x) - len(found.x) // 10
    validation = ~test & (numbers % 18 == 9)
    parts = [numbers[part] for part in (~test & ~validation, validation, test)]
    sizes = (len(parts[0]), len(parts[1]), len(parts[2]))
    split = "test: the last 10 % of the windows; validation: every 18th of the others"
    return found.reordered(torch.cat(parts), sizes, split)


def _find(
    name: str, folder: str, md5: dict[str, str | None], url: str | None, data_dir: str | None, download: bool
) -> dict[str, Path]:
    """The path of each file of a set; missing files are downloaded on request."""
    *given, cache = _places(data_dir, folder)
    places = [place / folder for place in [*given, cache]]
    found = {}
    for file, digest in md5.items():
        here = next((place / file for place in places if (place / file).is_file()), None)
        if here is None and download and url is not None and digest is not None:
            here = _download(url + file, digest, cache / folder, file)
        if here is None:
            mend = (
                f", or run unsup data {name} --download (download=True)"
                if url is not None
                else " (it cannot be downloaded, because its source provides no checksum)"
            )
            raise InputError(
                f"{name} needs {folder}/{file}, which is not in {', '.join(map(str, [*given, cache]))}; "
                f"set $UNSUP_DATA or --data-dir (data_dir=) to the folder that contains {folder}/{mend}"
            )
        found[file] = here
    return found


def _places(data_dir: str | None, folder: str) -> list[Path]:
    """Where sets are looked for, the cache last."""
    if data_dir is not None and not Path(data_dir).is_dir():
        raise InputError(
            f"there is no folder {data_dir} (data_dir, or --data-dir); expected the folder that contains {folder}/"
        )
    return [Path(d) for d in (data_dir, os.environ.get("UNSUP_DATA"), pooch.os_cache("unsup")) if d]


def _download(url: str, md5: str, folder: Path, file: str) -> Path:
    try:
        return Path(pooch.retrieve(url, known_hash=f"md5:{md5}", path=folder, fname=file))
    except (OSError, ValueError) as error:  # no network; a wrong checksum
        reason = " ".join(str(error).split())
        raise InputError(f"cannot download {url} ({reason}); download it manually and put it into {folder}") from error


def _idx_images(files: dict[str, Path], labels: tuple[str, ...]) -> Examples:
    read = {name: read_idx(path) for name, path in files.items()}
    train, test = len(read["train-images-idx3-ubyte.gz"]), len(read["t10k-images-idx3-ubyte.gz"])
    return Examples(
        torch.cat([read["train-images-idx3-ubyte.gz"], read["t10k-images-idx3-ubyte.gz"]]).unsqueeze(1),
        Event((1, 28, 28), _PIXELS),
        _part_names((train, 0, test)),
        torch.cat([read["train-labels-idx1-ubyte.gz"], read["t10k-labels-idx1-ubyte.gz"]]).long(),
        labels,
        sizes=(train - 10_000, 10_000, test),
        split="official test; validation: the last 10,000 training images",
    )


def read_idx(path: Path) -> Tensor:
    """Read a gzipped idx file of bytes: magic (its last byte is the number of axes), big-endian sizes, values.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with gzip.open(path) as file:
            content = file.read(_MOST)
        if len(content) == _MOST:
            raise ValueError("it is larger than any of these sets")
        axes = content[3]
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
        return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * axes).view(shape)
    except (OSError, EOFError, zlib.error, struct.error, IndexError, ValueError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{path} is damaged ({reason}); delete it and download it again")


def _part_names(sizes: tuple[int, int, int]) -> Names:
    return part_names(dict(zip(("train", "validation", "test"), sizes, strict=True)))
