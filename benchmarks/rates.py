"""Rates of lossless compression: ``python -m benchmarks rates [RUNS]`` writes a section of ``docs/compression.md``.

The test splits are coded with models and with general codecs. Model files are written by ``unsup compress`` and decoded
in another process with another instruction set; every codec is decoded and compared, too. RUNS is the folder of the
trained models, by default ``runs/rates``; those that are not there are trained first, with the settings below.

Each result is appended to ``benchmarks/rates.jsonl`` at once, and what stands there is not measured again.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import brotli
import imagecodecs
import numpy as np
import pyppmd
import torch
import zstandard
from numpy.typing import NDArray
from PIL import Image

import unsup
from unsup.core.machine import machine_kind
from unsup.data import Data
from unsup.train.runs import Run

Pixels = NDArray[np.uint8]

PAGE = Path("docs/compression.md")
RECORDS = Path("benchmarks/rates.jsonl")
BEGIN, END = "<!-- rates, written by python -m benchmarks rates -->", "<!-- end of rates -->"
_PPMD_MEMORY = 1 << 26
ORDERS = (2, 3, 4, 6)
"""Orders of PPMd that are tried; the best one counts. Higher ones are worse on these data."""


@dataclass(frozen=True)
class Trained:
    """A model of a data set; ``training``, ``options`` and ``data`` are the settings if it is not there yet.

    Attributes:
        data: what it is trained on, if not the train split of the data set that it codes.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    data: str | None = None


Record = dict[str, Any]
"""``data``, ``coder``, ``bytes``; with a model also ``model_bytes`` and how it was trained and how fast it coded."""


MODELS = {
    "binarized-mnist": (
        Trained(
            "made",
            {"hidden": (2000,), "dropout": 0.4},
            {"steps": 4413, "batch_size": 200, "lr": 2e-3, "warmup": 300, "ema": 0.999},
        ),
        Trained(
            "vae",
            {"net": "conv", "hidden": (32, 64), "latent_dim": 40},
            {"steps": 10_000, "batch_size": 100, "lr": 2e-3, "warmup": 200, "ema": 0.999, "precision": "bfloat16"},
        ),
    ),
    "mnist": (
        Trained(
            "pixelcnn",
            {"channels": 16, "blocks": 3, "head_channels": 32},
            {"steps": 2000, "batch_size": 32, "lr": 3e-3, "warmup": 100, "ema": 0.99, "validation_limit": 500},
        ),
    ),
    "digits": (
        Trained(
            "made",
            {"hidden": (512,), "direct": False, "dropout": 0.3},
            {"steps": 1800, "weight_decay": 0.1, "ema": 0.99},
        ),
        Trained("pixelcnn", {}, {"steps": 500, "ema": 0.99}),
    ),
}
"""One mask of `made` takes −log2 p, and a mixture over M orders up to log2 M bits more."""

TITLES = {
    "binarized-mnist": "Static binarised MNIST",
    "mnist": "Grey MNIST",
    "digits": "8×8 digits",
}
NOTES = {("binarized-mnist", "made"): "; ended by a time limit, 7,251 were planned"}
"""What else a reader must know of the training of recorded results."""
PUBLISHED = {"binarized-mnist": ("BB-ANS, published (Townsend, Bird, Barber 2019), unverified", "0.19")}


def main(arguments: list[str]) -> None:
    """Train what is missing, measure, and write the section."""
    runs = Path(arguments[0] if arguments else "runs/rates")
    for name in MODELS:
        measure(name, runs)
    parts = [BEGIN, *_lines(), END]
    text = PAGE.read_text()
    start, end = (text.index(BEGIN), text.index(END) + len(END)) if BEGIN in text else _placeholder(text)
    PAGE.write_text(text[:start] + "\n".join(parts) + text[end:])


def measure(name: str, runs: Path) -> None:
    """Append the results for a data set that are not there yet."""
    data = unsup.load_data(name)
    x = data.test.x.numpy()
    images = x.reshape(len(x), *x.shape[-2:]).astype(np.uint8)
    ways: dict[str, Callable[[], Record]] = {
        coder: (lambda size=size: {"bytes": size(images)})  # type: ignore[misc]
        for coder, size in GENERAL.items()
    }
    ways |= {t.model: (lambda t=t: _with_model(t, data, runs)) for t in MODELS[name]}  # type: ignore[misc]
    there = {(record["data"], record["coder"]) for record in _records()}
    for coder, way in ways.items():
        if (name, coder) not in there:
            record = {"data": name, "coder": coder, "images": len(x), "pixels": x.size, **way()}
            with RECORDS.open("a") as file:
                file.write(json.dumps(record) + "\n")
            sys.stdout.write(f"{name}  {coder}  {8 * record['bytes'] / x.size:.4f} bits/dim\n")
            sys.stdout.flush()


def _records() -> list[Record]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.is_file() else []


def _placeholder(text: str) -> tuple[int, int]:
    start = text.index("\nRATES\n") + 1
    return start, start + len("RATES")


def _lines() -> Iterator[str]:
    records = _records()
    for name in MODELS:
        yield from _table(name, [record for record in records if record["data"] == name])
    yield "The models:"
    yield ""
    yield "| Model | Data | −log2 p, bits/dim | Coded | Gap | Compress | Decompress | Trained |"
    yield "|---|---|--:|--:|--:|--:|--:|---|"
    for r in records:
        if "model_bytes" in r:
            yield (
                f"| `{r['coder']}` | {TITLES[r['data']]} | {'' if r['exact'] else '≤ '}{r['ideal']:.4f} | "
                f"{r['coded']:.4f} | {100 * r['gap']:+z.2f} % | {r['images'] / r['compress_seconds']:,.0f} images/s | "
                f"{r['images'] / r['decompress_seconds']:,.0f} images/s | seed {r['seed']}, {r['steps']:,} steps, "
                f"{r['minutes']:.0f} min{NOTES.get((r['data'], r['coder']), '')} |"
            )
    yield ""
    machines = dict.fromkeys(r["machine"] for r in records if "machine" in r)
    yield (
        f"Every file was decoded in another process with another instruction set; its time includes the start. "
        f"Machine: {'; '.join(machines)}, shared with other work."
    )


def _table(name: str, records: list[Record]) -> Iterator[str]:
    images, pixels = records[0]["images"], records[0]["pixels"]
    yield f"**{TITLES[name]}, test split**: {images:,} images, {pixels:,} pixels."
    yield ""
    yield "| Coder | File, bytes | Bits/dim | Model, bytes | Bits/dim with the model |"
    yield "|---|--:|--:|--:|--:|"
    for record in sorted(records, key=lambda record: record["bytes"]):
        size, model = record["bytes"], record.get("model_bytes", 0)
        coder, rate = record["coder"], f"{8 * size / pixels:.4f}"
        if model:
            coder, rate = f"**`{coder}`**, {record['parameters']:,} parameters", f"**{rate}**"
        whole = f"{8 * (size + model) / pixels:.{2 if model else 4}f}"
        yield f"| {coder} | {size:,} | {rate} | {f'{model:,}' if model else '–'} | {whole} |"
    if name in PUBLISHED:
        title, rate = PUBLISHED[name]
        yield f"| {title} | – | {rate} | – | – |"
    yield ""


def _with_model(trained: Trained, data: Data, runs: Path) -> Record:
    folder = runs / f"{trained.model}-{data.name}"
    if not Run(folder).exists:
        shown = data if trained.data is None else unsup.load_data(trained.data)
        model = unsup.create(trained.model, shown, seed=0, **trained.options)
        unsup.fit(model, shown, out=folder, seed=0, **trained.training)
    out = folder.resolve().with_suffix(".unsup")
    # The file is decoded in a process of its own here, whose time is wanted.
    found = json.loads(_unsup("compress", folder, data.name, "-o", out, "--no-verify", "--json"))
    started = time.perf_counter()
    other = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    _unsup("decompress", out, "--run", folder, "--check", environment=other)
    seconds = time.perf_counter() - started
    out.unlink()
    run = Run(folder)
    last = run.events()[-1]
    return {
        "bytes": found["bytes"],
        "model_bytes": found["model_bytes"],
        "parameters": run.model.parameter_count,
        "exact": found["likelihood"] == "exact",
        "ideal": found["model_bits_per_dim"],
        "coded": found["bits_per_dim"],
        "gap": found["gap"],
        "compress_seconds": found["seconds"],
        "decompress_seconds": seconds,
        "seed": run.config["training"]["seed"],
        "steps": last["step"],
        "minutes": last["seconds"] / 60,
        "machine": f"{machine_kind()}, OMP_NUM_THREADS={torch.get_num_threads()}, torch {torch.__version__}",
        "time": time.strftime("%Y-%m-%d"),
    }


def _unsup(*words: object, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "unsup", *map(str, words)],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


def mosaic(images: Pixels) -> Pixels:
    """All images ``(N, H, W)`` as one picture, as square as N allows."""
    rows = next(k for k in range(math.isqrt(len(images)), 0, -1) if len(images) % k == 0)
    _, height, width = images.shape
    return images.reshape(rows, -1, height, width).swapaxes(1, 2).reshape(rows * height, -1)


Bytes = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def _zstd(level: int) -> Bytes:
    return zstandard.ZstdCompressor(level=level).compress, zstandard.ZstdDecompressor().decompress


def _ppmd(order: int) -> Bytes:
    def encode(raw: bytes) -> bytes:
        encoder = pyppmd.Ppmd7Encoder(order, _PPMD_MEMORY)
        return struct.pack("<Q", len(raw)) + bytes(encoder.encode(raw) + encoder.flush())

    def decode(coded: bytes) -> bytes:
        (size,) = struct.unpack_from("<Q", coded)
        decoder = pyppmd.Ppmd7Decoder(order, _PPMD_MEMORY)
        found = decoder.decode(coded[8:], size)
        return bytes(found if len(found) == size else found + decoder.decode(bytes(1), size - len(found)))

    return encode, decode


BYTES: dict[str, list[Bytes]] = {
    "zstd -19": [_zstd(19)],
    "zstd -22": [_zstd(22)],
    "xz -9e": [(lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME), lzma.decompress)],
    "brotli -q 11": [(lambda raw: bytes(brotli.compress(raw, quality=11, lgwin=24)), brotli.decompress)],
    "PPMd7, best order": [_ppmd(order) for order in ORDERS],
}


def checked_size(way: Bytes, raw: bytes) -> int | None:
    """The size, or None if the bytes do not come back: some streams of PPMd cannot be decoded by its library."""
    encode, decode = way
    coded = encode(raw)
    try:
        return len(coded) if decode(coded) == raw else None
    except ValueError:
        return None


Encode, Decode = Callable[[Pixels], bytes], Callable[[bytes], Pixels]


def _png(image: Pixels) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image == 1) if image.max() <= 1 else Image.fromarray(image)).save(file, "png", optimize=True)
    return file.getvalue()


def _webp(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert("RGB").save(file, "webp", lossless=True, quality=100, method=6)
    return file.getvalue()


def _jpegxl(image: Pixels) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(image, lossless=True, effort=7, numthreads=1))


def _opened(coded: bytes) -> Pixels:
    picture = Image.open(io.BytesIO(coded))
    return np.array(picture if picture.mode == "1" else picture.convert("L"), np.uint8)


PICTURES: dict[str, tuple[Encode, Decode]] = {
    "PNG": (_png, _opened),
    "WebP": (_webp, _opened),
    "JPEG XL": (_jpegxl, lambda coded: np.asarray(imagecodecs.jpegxl_decode(coded))),
}


def _checked(encode: Encode, decode: Decode, image: Pixels) -> int:
    coded = encode(image)
    if not np.array_equal(decode(coded).reshape(image.shape), image):
        raise AssertionError("a codec did not return the same pixels")
    return len(coded)


def _bytes_size(ways: list[Bytes]) -> Callable[[Pixels], int]:
    """The smallest size, of one byte a pixel or of bits."""

    def size(images: Pixels) -> int:
        forms = [images.tobytes(), *([np.packbits(images).tobytes()] if images.max() == 1 else [])]
        return min(found for way in ways for raw in forms if (found := checked_size(way, raw)) is not None)

    return size


def _picture_sizes(name: str, encode: Encode, decode: Decode) -> dict[str, Callable[[Pixels], int]]:
    return {
        f"{name}, one picture of all": lambda images: _checked(encode, decode, mosaic(images)),
        f"{name}, image by image": lambda images: sum(_checked(encode, decode, image) for image in images),
    }


GENERAL: dict[str, Callable[[Pixels], int]] = {name: _bytes_size(ways) for name, ways in BYTES.items()}
for _name, _ways in PICTURES.items():
    GENERAL |= _picture_sizes(_name, *_ways)
