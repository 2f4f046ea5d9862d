"""The catalogue of named data sets: plain rows, read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EXAMPLE_OPTIONS = (
    "resize",
    "alpha",
    "channels",
    "label",
    "drop",
    "length",
    "stride",
    "missing",
    "decimal",
    "header",
    "sheet",
    "field",
    "tokens",
    "documents",
    "tail",
    "as_",
    "data_dir",
    "changed_data",
)
"""Options that other examples may need, to have the same event as the data."""

READERS: dict[str, str] = {
    "a folder of images": "unsup.data.images:read_folder",
    "an image": "unsup.data.images:read_file",
    "a .csv table": "unsup.data.tables:read_csv",
    "a .parquet table": "unsup.data.tables:read_parquet",
    "an Excel table": "unsup.data.tables:read_excel",
    "a recording": "unsup.data.sound:read_file",
    "a folder of recordings": "unsup.data.sound:read_folder",
    "a text": "unsup.data.text:read_text",
    "a folder of texts": "unsup.data.text:read_folder",
    "JSON lines": "unsup.data.text:read_lines",
    "bytes": "unsup.data.text:read_bytes",
    "an .npy array": "unsup.data.arrays:read_array",
    "a folder of .npy arrays": "unsup.data.arrays:read_shards",
    ".npz arrays": "unsup.data.arrays:read_file",
    "a folder of .npz arrays": "unsup.data.arrays:read_folder",
    "codes of a run": "unsup.data.codes:read_codes",
}
"""Readers of data without a name, by kind: ``"module:function"``, as in `Entry`."""

Missing = Literal["keep", "drop", "impute", "refuse"]
"""What to do with rows that have missing entries."""

PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
"""Suffixes of packed text."""

TABLES_BY_SUFFIX: dict[str, tuple[str, ...]] = {
    "a .csv table": tuple(
        f"{kind}{packed}" for kind in (".csv", ".tsv", ".tab", ".psv", ".data", ".dat") for packed in PACKED
    ),
    "a .parquet table": (".parquet", ".pq", ".arrow", ".feather", ".ipc"),
    "an Excel table": (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods"),
}
"""The suffixes of tables, by the kind of reader."""

TABLES = tuple(READERS[kind] for kind in TABLES_BY_SUFFIX)

CODES = "codes:"
"""The prefix of the codes of a run, followed by the run folder."""


@dataclass(frozen=True)
class Entry:
    """A data set that `load_data` knows by name.

    Attributes:
        name: its name in `load_data` and on the command line.
        target: ``"module:function"`` of its reader, whose keyword-only arguments are the options.
        summary: description in one line.
        source: where the data comes from.
        licence: licence of the source.
    """

    name: str
    target: str
    summary: str
    source: str
    licence: str

    @property
    def needs_download(self) -> bool:
        """Whether its files are not part of the library."""
        return self.source != _HERE


_BUILTIN, _STANDARD = "unsup.data.builtin", "unsup.data.standard"
_HERE = "built in"
_FETCHED = "$UNSUP_DATA, or --download"
_FOUND = "$UNSUP_DATA"
_OURS = "Apache-2.0 (made by this library)"

CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "digits",
            f"{_BUILTIN}:digits",
            "1,797 handwritten digits, 8×8, 17 grey levels",
            _HERE,
            "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits)",
        ),
        Entry("moons", f"{_BUILTIN}:moons", "two interleaved half circles in the plane", _HERE, _OURS),
        Entry("rings", f"{_BUILTIN}:rings", "four concentric circles in the plane", _HERE, _OURS),
        Entry("ring8", f"{_BUILTIN}:ring8", "eight narrow Gaussians on a circle", _HERE, _OURS),
        Entry("grid25", f"{_BUILTIN}:grid25", "25 narrow Gaussians on a square grid", _HERE, _OURS),
        Entry(
            "checkerboard", f"{_BUILTIN}:checkerboard", "uniform on the dark squares of a checkerboard", _HERE, _OURS
        ),
        Entry("pinwheel", f"{_BUILTIN}:pinwheel", "five curved Gaussian arms in the plane", _HERE, _OURS),
        Entry("spirals", f"{_BUILTIN}:spirals", "two interleaved spirals in the plane", _HERE, _OURS),
        Entry("shapes", f"{_BUILTIN}:shapes", "16×16 pictures of one disc, square or triangle", _HERE, _OURS),
        Entry(
            "stripes",
            f"{_BUILTIN}:stripes",
            "two domains of 16×16 pictures: coloured shapes without and with pale stripes",
            _HERE,
            _OURS,
        ),
        Entry("markov", f"{_BUILTIN}:markov", "token sequences of a Markov chain with known entropy", _HERE, _OURS),
        Entry(
            "mnist",
            f"{_STANDARD}:mnist",
            "70,000 handwritten digits, 28×28, 256 grey levels",
            _FETCHED,
            "none stated (often given as CC BY-SA 3.0)",
        ),
        Entry(
            "dynamic-mnist",
            f"{_STANDARD}:dynamic_mnist",
            "MNIST, binarised at random in every epoch; 400 for validation",
            _FETCHED,
            "none stated (often given as CC BY-SA 3.0)",
        ),
        Entry(
            "stacked-mnist",
            f"{_STANDARD}:stacked_mnist",
            "three MNIST digits as the channels of one 28×28 image: 1,000 modes",
            _FETCHED,
            "none stated (often given as CC BY-SA 3.0)",
        ),
        Entry(
            "binarized-mnist",
            f"{_STANDARD}:binarized_mnist",
            "the fixed binarisation of MNIST by Larochelle and Murray, 50,000 + 10,000 + 10,000",
            _FOUND,
            "unknown (derived from MNIST)",
        ),
        Entry("fashion-mnist", f"{_STANDARD}:fashion_mnist", "70,000 pictures of clothing, 28×28", _FETCHED, "MIT"),
        Entry(
            "cifar10",
            f"{_STANDARD}:cifar10",
            "60,000 colour photographs of ten classes, 32×32",
            _FETCHED,
            "none stated (cite Krizhevsky 2009)",
        ),
        Entry(
            "cifar10-20k",
            f"{_STANDARD}:cifar10_20k",
            "20,000 training images and all test images of CIFAR-10",
            _FOUND,
            "none stated (cite Krizhevsky 2009)",
        ),
        Entry(
            "bsds-patches",
            f"{_STANDARD}:bsds_patches",
            "grey patches of 8×8 pixels of photographs without their means, 63 real numbers",
            _FOUND,
            "Berkeley terms: non-commercial research and education",
        ),
        Entry(
            "bsds-colour",
            f"{_STANDARD}:bsds_colour",
            "colour patches of 32×32 pixels of photographs",
            _FOUND,
            "Berkeley terms: non-commercial research and education",
        ),
        Entry(
            "jsb-chorales",
            f"{_STANDARD}:jsb_chorales",
            "382 chorales by Bach as piano rolls of 88 keys, up to 160 steps",
            _FOUND,
            "none stated (cite Boulanger-Lewandowski et al. 2012)",
        ),
        Entry(
            "nottingham",
            f"{_STANDARD}:nottingham",
            "1,037 folk tunes as piano rolls of 88 keys, up to 1,793 steps",
            _FOUND,
            "none stated (cite Boulanger-Lewandowski et al. 2012)",
        ),
        Entry(
            "omniglot",
            f"{_STANDARD}:omniglot",
            "4,840 drawings of 242 characters, 105×105, black and white (the two small background sets)",
            _FOUND,
            "MIT",
        ),
        Entry(
            "fsdd",
            f"{_STANDARD}:fsdd",
            "3,000 recordings of spoken digits by six speakers, 8 kHz, as windows of μ-law samples",
            _FOUND,
            "CC BY-SA 4.0",
        ),
        Entry(
            "tinyshakespeare",
            f"{_STANDARD}:tinyshakespeare",
            "1,115,394 characters from plays by Shakespeare, as windows",
            _FOUND,
            "public domain",
        ),
        Entry(
            "tinyshakespeare-words",
            f"{_STANDARD}:tinyshakespeare_words",
            "the same plays as windows of words, with a vocabulary of 5,000",
            _FOUND,
            "public domain",
        ),
        Entry(
            "enwiki-fragment",
            f"{_STANDARD}:enwiki_fragment",
            "6 MB of the English Wikipedia with its mark-up, as windows of bytes",
            _FOUND,
            "CC BY-SA and GFDL (Wikipedia)",
        ),
    )
}
