"""Hostile files: each ends within seconds, in one line, and takes no memory to speak of."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import struct
import sys
import time
import wave
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

import unsup.cli.fit
import unsup.train.trainer  # noqa: F401 - what children would import otherwise, each for itself
from unsup import InputError
from unsup.cli.main import main
from unsup.core import memory
from unsup.data import delimited, load_data

resource = pytest.importorskip("resource", reason="needs fork and its accounting")
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs fork and its accounting"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

SECONDS, MEGABYTES = 5, 400
_AT_MOST = 60  # seconds, before a child is killed


def ended(*words: str, stdin: int | None = None) -> tuple[int, str, float, float]:
    """Status, standard error, seconds and megabytes beyond what it began with, of a command in a child process."""
    read, write = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        status, before, told = 70, resident(), io.StringIO()
        try:
            signal.alarm(_AT_MOST)
            torch.set_num_threads(1)  # the others of the parent are not there
            if stdin is not None:
                os.dup2(stdin, 0)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
                status = main(list(words))
        except BaseException as error:  # a traceback is what is looked for
            told.write(f"Traceback: {error!r}")
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        os.write(write, f"{most - before} {told.getvalue()[:60_000]}".encode())
        os._exit(status)
    os.close(write)
    with os.fdopen(read, encoding="utf-8", errors="replace") as pipe:
        taken, _, said = pipe.read().partition(" ")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said, time.monotonic() - started, float(taken or "inf")


def resident() -> float:
    """Megabytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def check_refused(*words: str, expected: str = "", stdin: int | None = None, megabytes: float = MEGABYTES) -> str:
    status, said, seconds, taken = ended(*words, stdin=stdin)
    assert (status, said.count("\n")) == (2, 1), said[:2000]
    assert said.startswith("unsup: error: ")
    assert "Traceback" not in said
    assert len(said) < 1500
    assert expected in said
    assert taken < megabytes, said
    assert seconds < SECONDS, said
    return said


# --- what is no file --------------------------------------------------------------------------------------------------

NAMES = ("x", "x.csv", "x.csv.gz", "x.npy", "x.npz", "x.parquet", "x.txt", "x.wav")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("linked", [False, True])
def test_a_named_pipe_is_not_waited_for(tmp_path: Path, name: str, linked: bool) -> None:
    path = tmp_path / name
    os.mkfifo(tmp_path / "pipe" if linked else path)
    if linked:
        path.symlink_to(tmp_path / "pipe")
    check_refused("data", str(path), expected="is a named pipe; expected a file or a folder")


def test_sockets_devices_and_circles_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "s.csv"))
        check_refused("data", str(tmp_path / "s.csv"), expected="is a socket")
    for device in ("/dev/zero", "/dev/null", "/dev/urandom"):
        check_refused("data", device, expected="is a device")
        for flag in ("--given", "--unlabelled", "--domain-b"):
            check_refused("data", "digits", flag, device, expected="is a device")
    read, write = os.pipe()
    check_refused("data", "/dev/stdin", stdin=read, expected="is a named pipe")
    os.close(read)
    os.close(write)
    (tmp_path / "a.npy").symlink_to(tmp_path / "b.npy")
    (tmp_path / "b.npy").symlink_to(tmp_path / "a.npy")
    check_refused("data", str(tmp_path / "a.npy"), expected="there is no data set, file or folder")


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.wav", "train.npz", "cats/a.png"])
@pytest.mark.parametrize("kind", ["pipe", "circle", "zero"])
def test_a_folder_with_a_pipe_a_device_or_a_circle_in_it(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(path if kind == "circle" else Path("/dev/zero"))
    (tmp_path / "round").symlink_to(tmp_path)
    check_refused("data", str(tmp_path))


# --- headers of arrays ------------------------------------------------------------------------------------------------


def npy(header: str | bytes, values: bytes = b"", *, version: int = 1, length: int | None = None) -> bytes:
    text = header.encode() if isinstance(header, str) else header
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + values


def claimed(shape: str, descr: str = "'<f8'") -> bytes:
    return npy(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", b"\0" * 80)


HEADERS: dict[str, bytes] = {
    "a shape of terabytes": claimed("(1000000000000, 2)"),
    "a shape beyond 64 bits": claimed("(4611686018427387904, 4611686018427387904)"),
    "a product that wraps to what is there": claimed("(4294967296, 4294967296, 10)"),
    "a negative shape": claimed("(-10, 1)"),
    "a shape of truths": claimed("(True, 10)"),
    "a shape of words": claimed("('a', 10)"),
    "a thousand axes": claimed("(" + "1," * 1000 + ")"),
    "a digit for every byte": claimed("(" + "9" * 5000 + ", 1)"),
    "objects": claimed("(10,)", "'|O'"),
    "a type of gigabytes": claimed("(1, 1)", "'|V2147483647'"),
    "a long text": claimed("(1, 1)", "'<U500000000'"),
    "a type without end": claimed("(1, 1)", "[" * 2000 + "]" * 2000),
    "records": claimed("(10,)", "[('a', '<f4'), ('b', '<i4')]"),
    "no type": claimed("(10,)", "'zz'"),
    "brackets": npy("(" * 9000),
    "signs": npy("-" * 9000 + "1"),
    "no header": npy(b"", length=60_000),
    "a header of 4 GB": npy(b"{}", version=2, length=2**32 - 1),
    "a version to come": npy("{}", version=9),
    "nothing more": b"\x93NUMPY",
    "zeros": b"\x93NUMPY" + bytes(1000),
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("place", ["npy", "on disk", "npz", "shard"])
def test_headers_that_claim_what_is_not_there(tmp_path: Path, kind: str, place: str) -> None:
    words = ["data", str(tmp_path / "x.npy")]
    if place == "npz":
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", HEADERS[kind])
        words[1] = str(tmp_path / "x.npz")
    else:
        (tmp_path / "x.npy").write_bytes(HEADERS[kind])
        words = ["data", str(tmp_path)] if place == "shard" else words
    check_refused(*words, *(["--no-in-memory"] if place == "on disk" else []))


def test_random_headers_end_in_one_line(tmp_path: Path) -> None:
    """Bytes of a sound header are changed at random: an array, or an error of ours."""
    buffer = io.BytesIO()
    np.save(buffer, np.arange(40.0).reshape(10, 4))
    whole, rng = bytearray(buffer.getvalue()), np.random.default_rng(0)
    for _ in range(400):
        changed = bytearray(whole)
        for place in rng.integers(0, 128, rng.integers(1, 4)):
            changed[place] = rng.integers(256)
        (tmp_path / "x.npy").write_bytes(changed)
        for in_memory in (True, False):
            with contextlib.suppress(InputError):
                load_data(tmp_path / "x.npy", in_memory=in_memory)


def test_more_rows_than_there_is_memory_to_order(tmp_path: Path) -> None:
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(claimed("(1000000000000, 1)", "'|u1'")[:-80])
        file.truncate(file.tell() + 10**12)
    check_refused("data", str(tmp_path / "x.npy"), expected="the order of the 1,000,000,000,000 rows")


# --- packed files -----------------------------------------------------------------------------------------------------


def deflated(block: bytes, times: int, kind: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, kind)
    return b"".join(packer.compress(block) for _ in range(times)) + packer.flush()


def gz_bomb(line: bytes) -> bytes:
    """About 64 GB of the same line, packed."""
    block = line * (2**20 // len(line))
    return deflated(block, 32, 31) * 2000


@pytest.mark.parametrize("line", [b"0,0,0,0,0,0,0,0\n", b"\n", b"0,", b'"', b"1"])
def test_a_packed_table_of_tens_of_gigabytes(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.csv.gz").write_bytes(gz_bomb(line))
    check_refused("data", str(tmp_path / "x.csv.gz"), "--max-memory", "4")
    check_refused("data", str(tmp_path / "x.csv.gz"), "--max-memory", "4", "--given", "label", "--label", "a")
    check_refused("data", "digits", "--unlabelled", str(tmp_path / "x.csv.gz"), "--max-memory", "4")


def test_a_packed_array_of_gigabytes(tmp_path: Path) -> None:
    """What is packed is known before it is unpacked; a size that is too small ends the reading there."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 1), }\n"
    path = tmp_path / "x.npz"
    for size, told in ((2**30, 2**30), (2**30, 1000), (2**16, 2**40)):
        head = npy(header % size)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("x.npy", "w") as member:
                member.write(head)
                for _ in range(size // 2**16):
                    member.write(bytes(2**16))
            archive.infolist()[0].file_size = len(head) + told
        check_refused("data", str(path), "--max-memory", "1.5")
        check_refused("fit", str(path), "made", "-o", str(tmp_path / "r"), "--max-memory", "1.5")
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", ["rows", "words", "lists", "columns"])
def test_a_packed_parquet_table_of_gigabytes(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    match kind:
        case "rows":
            table = arrow.table({"a": np.zeros(20_000_000, np.int8)})
        case "words":
            word = arrow.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), ["x" * 2_000_000])
            table = arrow.table({"a": np.arange(100_000), "b": word})
        case "lists":
            table = arrow.table({"a": arrow.ListArray.from_arrays([0, 20_000_000], np.zeros(20_000_000, np.int8))})
        case _:
            monkeypatch.setattr(delimited, "MOST_COLUMNS", 1000)
            table = arrow.table({str(i): [0] for i in range(1001)})
    path = tmp_path / "x.parquet"
    parquet.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 30_000_000
    if kind == "words":  # one word that stands in 100,000 cells takes the place of one
        status, said, seconds, taken = ended("data", str(path), "--max-memory", "2")
        assert (status, said) == (0, "")
        assert taken < MEGABYTES
        assert seconds < SECONDS
    else:
        check_refused("data", str(path), "--max-memory", "2")


def test_one_long_label_makes_no_other_longer(tmp_path: Path) -> None:
    lines = [f"{i},{'cat' if i else 'x' * 100_000}" for i in range(100_000)]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    status, said, seconds, taken = ended("data", str(tmp_path / "x.csv"))
    assert (status, said) == (0, "")
    assert taken < MEGABYTES
    assert seconds < SECONDS


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["column{}", "0", "{}"])
def test_a_million_columns(tmp_path: Path, cell: str) -> None:
    line = ",".join(cell.format(i) for i in range(1_000_000))
    (tmp_path / "x.csv").write_text(f"{line}\n" * 3)
    check_refused("data", str(tmp_path / "x.csv"), expected="has 1,000,000 columns; the maximum is 100,000")


def test_columns_take_time_in_proportion(tmp_path: Path) -> None:
    took = {}
    for columns in (1_000, 10_000):
        lines = [",".join(f"c{i}" for i in range(columns))]
        lines += [",".join(f"{row}.{i}" for i in range(columns)) for row in range(5)]
        (tmp_path / "x.csv").write_text("\n".join(lines))
        started = time.process_time()
        assert load_data(tmp_path / "x.csv").event.shape == (columns,)
        took[columns] = time.process_time() - started
    assert took[10_000] < 40 * took[1_000] + 0.5


@pytest.mark.parametrize(
    ("start", "end"), [("", ""), ("1,2\n3,", ""), ('1,2\n3,"', '"'), ("1,2\n" * 1000, ""), ("a,b\n1,2\n\n\n3,", "\n")]
)
def test_a_cell_of_a_thousand_million_characters(tmp_path: Path, start: str, end: str) -> None:
    with (tmp_path / "x.csv").open("wb") as file:
        file.write(start.encode())
        file.truncate(10**9)
        file.seek(10**9)
        file.write(end.encode())
    check_refused("data", str(tmp_path / "x.csv"), "--max-memory", "40")
    (tmp_path / "x.csv").write_text(start + "a\n" * 10**6 + end if '"' in start else start + "7" * 200_000 + end)
    check_refused("data", str(tmp_path / "x.csv"))


@pytest.mark.parametrize("name", ["x.csv", "x.txt", "x", "x.npz", "x.parquet"])
def test_files_of_terabytes(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**42)
    check_refused("data", str(tmp_path / name))


# --- pictures and sounds ----------------------------------------------------------------------------------------------


def png(width: int, height: int, bits: int = 1) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = bytes(1 + width * bits // 8)
    packed = deflated(row, height, 15)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_a_picture_of_thousands_of_millions_of_pixels(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(40_000, 40_000))
    check_refused("data", str(folder), expected="1 of 1 images")
    check_refused("data", str(folder), "--resize", "8", expected="1 of 1 images")
    (folder / "a.png").write_bytes(png(12_000, 12_000))  # within Pillow's own bound
    check_refused("data", str(folder), "--max-memory", "1", expected="an image of 12,000 × 12,000 pixels")


def test_pictures_that_are_too_many(tmp_path: Path) -> None:
    one = png(2_000, 2_000)
    for i in range(300):
        (tmp_path / f"{i}.png").write_bytes(one)
    check_refused("data", str(tmp_path), "--max-memory", "2", expected="--resize N")
    check_refused("data", str(tmp_path), "--resize", "100000", expected="--resize N")


def test_pictures_of_terabytes_and_of_other_kinds(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.write(png(4, 4))
        file.truncate(2**42)
    check_refused("data", str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    check_refused("data", str(tmp_path), expected="cannot identify")


def test_sounds_that_claim_gigabytes(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(2000))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = struct.pack("<I", 2**32 - 2)
    (tmp_path / "a.wav").write_bytes(content)
    check_refused("data", str(tmp_path), expected="truncated")
    with (tmp_path / "a.wav").open("r+b") as file:
        file.truncate(2**42)
    check_refused("data", str(tmp_path), expected="of memory")


# --- the limit --------------------------------------------------------------------------------------------------------


def test_a_limit_holds_for_its_command_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(1000, 10)))
    before = memory.limit()
    assert main(["data", str(tmp_path / "x.npy"), "--in-memory", "--max-memory", "0.0001"]) == 2
    assert memory.limit() > before / 10
    assert main(["data", str(tmp_path / "x.npy"), "--in-memory"]) == 0
    with memory.within(1000):
        assert memory.limit() == 1000
        with memory.within(None), memory.within(500):
            assert memory.limit() == 500
    assert memory.limit() > 1000


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_limits_that_are_none(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "digits", f"--max-memory={value}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["fit", "eval", "compare", "report", "score", "predict", "encode", "decode",
                                     "translate", "sample", "check", "data", "reproduce"])  # fmt: skip
def test_every_command_that_reads_data_takes_a_limit(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        main([command, "--help"])
    assert "--max-memory GB" in capsys.readouterr().out


def test_a_process_that_may_take_less_has_less(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _, data = (0, resource.getrlimit(resource.RLIMIT_DATA))
        taken = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_DATA, (taken + 50_000_000, data[1]))
        os.write(write, str(memory.limit()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert 20_000_000 < int(pipe.read()) <= 50_000_000
