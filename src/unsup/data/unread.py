"""Files that are not read: known formats are refused by name, with how to convert them."""

from __future__ import annotations

from pathlib import Path

from unsup.core.errors import InputError
from unsup.data.text import is_text

_SAVE = "numpy.savez(path, x=x, label=label)"
_UNPACK = "unpack it, and use the file or folder in it"
_TORCH = f"load it in PyTorch, and save its tensors with {_SAVE}"
_PICKLE = f"it may run code when it is opened: open it in Python only if you trust it, and save arrays with {_SAVE}"
_VIDEO = "save its frames as images, e.g. ffmpeg -i FILE frames/%05d.png"
_SOUND = "convert it to WAV, e.g. ffmpeg -i FILE sound.wav"
_TABLE = "export it as CSV"
_PICTURE = "convert it to PNG or TIFF"
_TEXT = "save it as plain text (.txt)"

_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a MATLAB file": (f"open it with scipy.io.loadmat, and save it with {_SAVE}", (".mat",)),
    "a Python pickle": (_PICKLE, (".pkl", ".pickle", ".joblib", ".dill")),
    "a PyTorch file": (_TORCH, (".pt", ".pth", ".ckpt")),
    "a file of tensors": (f"open it with safetensors, and save its arrays with {_SAVE}", (".safetensors",)),
    "an HDF5 file": (f"open it with h5py, and save its arrays with {_SAVE}", (".h5", ".hdf5", ".nc", ".h5ad")),
    "an R file": ("export its table as CSV with write.csv", (".rds", ".rda", ".rdata")),
    "a table of another program": (_TABLE, (".sav", ".dta", ".sas7bdat", ".numbers")),
    "an ARFF table": ("open it with scipy.io.arff.loadarff, and save it as CSV", (".arff",)),
    "a sparse table": (
        f"open it with sklearn.datasets.load_svmlight_file, and save it with {_SAVE}",
        (".svm", ".libsvm", ".svmlight"),
    ),
    "a database": ("export a table of it as CSV", (".db", ".sqlite", ".sqlite3", ".mdb", ".accdb")),
    "JSON": ("save it as JSON lines (.jsonl, one object with a text in each line), or as a CSV table", (".json",)),
    "a ZIP archive": (_UNPACK, (".zip",)),
    "an archive": (
        _UNPACK,
        (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".7z", ".rar"),
    ),
    "a compressed file": ("unpack it first", (".gz", ".bz2", ".xz", ".zst", ".lzma", ".lz4", ".z")),
    "a document": (_TEXT, (".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".ps", ".djvu")),
    "a presentation": (_TEXT, (".ppt", ".pptx", ".odp")),
    "a video": (_VIDEO, (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv")),
    "a recording of another format": (_SOUND, (".mp3", ".m4a", ".aac", ".aif", ".aiff", ".wma", ".mid", ".midi")),
    "an image of another format": (
        _PICTURE,
        (".jp2", ".avif", ".heic", ".heif", ".tga", ".ico", ".psd", ".svg", ".exr", ".hdr", ".dcm", ".fits", ".raw"),
    ),
    "a medical image": (f"open it with nibabel, and save its array with {_SAVE}", (".nii", ".nii.gz")),
    "a program": ("expected data", (".exe", ".dll", ".so", ".dylib", ".pyc", ".class", ".o", ".jar")),
}
_SUFFIXES = {suffix: (what, mend) for what, (mend, suffixes) in _KINDS.items() for suffix in suffixes}
_BEGINNINGS: dict[bytes, str] = {
    b"PK\x03\x04": "a ZIP archive, or a document that is one",
    b"\x1f\x8b": "compressed with gzip",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"%PDF": "a PDF document",
    b"\x89PNG": "a PNG image; rename it to .png",
    b"\xff\xd8\xff": "a JPEG image; rename it to .jpg",
    b"GIF8": "a GIF image; rename it to .gif",
    b"II*\x00": "a TIFF image; rename it to .tif",
    b"MM\x00*": "a TIFF image; rename it to .tif",
    b"RIFF": "a WAV recording or a similar file; rename a recording to .wav",
    b"fLaC": "a FLAC recording; rename it to .flac",
    b"OggS": "an OGG recording; rename it to .ogg",
    b"\x93NUMPY": "a NumPy array; rename it to .npy",
    b"PAR1": "a Parquet table; rename it to .parquet",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "a database",
    b"MATLAB 5.0": "a MATLAB file",
    b"\x80\x02": "a Python pickle",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\x7fELF": "a program",
}
_AS_BYTES = "or use its bytes with --as bytes (as_='bytes')"


def check_is_text(path: Path) -> None:
    """Raise `InputError` for a file that is known not to be text, by its suffix or its content."""
    name = path.name.lower()
    found = [suffix for suffix in _SUFFIXES if name.endswith(suffix)]
    if found:
        suffix = max(found, key=len)
        what, mend = _SUFFIXES[suffix]
        raise InputError(f"{path} is {what} ({suffix}), which is not read; {mend}, {_AS_BYTES}")
    with path.open("rb") as file:
        head = file.read(16)
    for beginning, what in _BEGINNINGS.items():
        if head.startswith(beginning):
            raise InputError(f"{path} looks like {what}; expected text, {_AS_BYTES}")
    if not is_text(path) and not name.endswith((".txt", ".text", ".md")):
        raise InputError(
            f"{path} is of an unknown kind, and not text in UTF-8; expected images, sound, a table, arrays or text: "
            f"convert it, {_AS_BYTES}"
        )
