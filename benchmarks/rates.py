"""Rates of lossless compression: ``python -m benchmarks rates [RUNS]`` writes a section of ``docs/compression.md``.

The test splits are coded with models and with general codecs. Model files are written by ``unsup compress`` and decoded
in another process with another instruction set; every codec is decoded and compared, too. RUNS is the folder of the
trained models, by default ``runs/rates``; those that are not there are trained first, with the settings below.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import os
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
from unsup.train.runs import Run

Pixels = NDArray[np.uint8]

PAGE = Path("docs/compression.md")
BEGIN, END = "<!-- rates, written by python -m benchmarks rates -->", "<!-- end of rates -->"
ORDERS = (4, 6, 8, 12, 16)
"""Orders of PPMd that are tried; the best one counts."""


@dataclass(frozen=True)
class Trained:
    """A model of a data set; ``training`` and ``options`` are the settings if it is not there yet."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Coded:
    """One way to code a test split. ``model`` is the number of bytes that a decoder needs besides."""

    name: str
    size: int
    model: int = 0


MODELS = {
    "binarized-mnist": (
        Trained(
            "made",
            {"hidden": (2000,), "dropout": 0.4},
            {"steps": 7251, "batch_size": 200, "lr": 2e-3, "warmup": 300, "ema": 0.999},
        ),
        Trained(
            "vae",
            {"hidden": (400, 400), "latent_dim": 40},
            {"steps": 30_000, "batch_size": 128, "lr": 2e-3, "warmup": 500, "ema": 0.999, "validation_limit": 1000},
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
"""A compressor uses one order of `made`, so that one mask is better than the mixture over several."""

TITLES = {
    "binarized-mnist": "Static binarised MNIST",
    "mnist": "Grey MNIST",
    "digits": "8×8 digits",
}
PUBLISHED = {"binarized-mnist": ("BB-ANS, published (Townsend, Bird, Barber 2019), unverified", "0.19")}


def main(arguments: list[str]) -> None:
    """Train what is missing, measure, and write the section."""
    runs = Path(arguments[0] if arguments else "runs/rates")
    wanted = arguments[1:] or list(MODELS)
    parts = [BEGIN, *_lines(runs, wanted), END]
    text = PAGE.read_text()
    start, end = (text.index(BEGIN), text.index(END) + len(END)) if BEGIN in text else _placeholder(text)
    PAGE.write_text(text[:start] + "\n".join(parts) + text[end:])


def _placeholder(text: str) -> tuple[int, int]:
    start = text.index("\nRATES\n") + 1
    return start, start + len("RATES")


def _lines(runs: Path, wanted: list[str]) -> Iterator[str]:
    about = ["| Model | Data | −log2 p, bits/dim | Coded | Gap | Compress | Decompress | Seed, steps, minutes |"]
    about.append("|---|---|--:|--:|--:|--:|--:|---|")
    for name in wanted:
        data = unsup.load_data(name)
        x = data.test.x.numpy()
        images = x.reshape(len(x), *x.shape[-2:]).astype(np.uint8)
        coded = [*general(images)]
        for trained in MODELS[name]:
            row, text = _with_model(trained, data, runs)
            coded.append(row)
            about.append(text)
        yield from _table(name, x, coded)
    yield "Models:"
    yield ""
    yield from about
    yield ""
    yield (
        f"Machine: {machine_kind()}, {torch.get_num_threads()} threads, shared with other work; torch "
        f"{torch.__version__}; {time.strftime('%Y-%m-%d')}."
    )


def _table(name: str, x: Any, coded: list[Coded]) -> Iterator[str]:
    yield f"**{TITLES[name]}, test split: {len(x):,} images, {x.size:,} pixels.**"
    yield ""
    yield "| Coder | File, bytes | Bits/dim | Model, bytes | Bits/dim with the model |"
    yield "|---|--:|--:|--:|--:|"
    for row in sorted(coded, key=lambda row: row.size):
        whole = f"{8 * (row.size + row.model) / x.size:.3f}"
        rate = f"{8 * row.size / x.size:.4f}"
        cells = (f"**{row.name}**", f"**{rate}**") if row.model else (row.name, rate)
        yield f"| {cells[0]} | {row.size:,} | {cells[1]} | {f'{row.model:,}' if row.model else '–'} | {whole} |"
    if name in PUBLISHED:
        title, rate = PUBLISHED[name]
        yield f"| {title} | – | {rate} | – | – |"
    yield ""


def _with_model(trained: Trained, data: Any, runs: Path) -> tuple[Coded, str]:
    """The file of a model, and the line about the model."""
    folder = runs / f"{trained.model}-{data.name}"
    if not Run(folder).exists:
        model = unsup.create(trained.model, data, seed=0, **trained.options)
        unsup.fit(model, data, out=folder, seed=0, **trained.training)
    out = folder.resolve() / "rates.unsup"
    record = json.loads(_unsup("compress", folder, data.name, "-o", out, "--no-verify", "--json"))
    started = time.perf_counter()
    other = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    _unsup("decompress", out, "--run", folder, "--check", environment=other)
    seconds = time.perf_counter() - started
    out.unlink()
    run, count = Run(folder), record["examples"]
    last = run.events[-1]
    sign = "" if record["likelihood"] == "exact" else "≤ "
    line = (
        f"| {trained.model} | {data.name} | {sign}{record['model_bits_per_dim']:.4f} | {record['bits_per_dim']:.4f} | "
        f"{100 * record['gap']:+.2f} % | {count / record['seconds']:,.0f} items/s | {count / seconds:,.0f} items/s | "
        f"{run.config['training']['seed']}; {last['step']:,}; {last['seconds'] / 60:.0f} |"
    )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    return Coded(f"{trained.model}, {sum(p.numel() for p in run.model.parameters()):,} parameters", record["bytes"],
                 record["model_bytes"]), line  # fmt: skip


def _unsup(*words: object, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "unsup", *map(str, words)],
        env=os.environ | (environment or {}),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout


def general(images: Pixels) -> Iterator[Coded]:
    """Test images ``(N, H, W)`` by codecs that know no data but these."""
    yield Coded("stored, packed", math.ceil(images.size * int(images.max()).bit_length() / 8))
    forms = [images.tobytes()]
    if images.max() == 1:
        forms.append(np.packbits(images).tobytes())
    for name, ways in BYTES.items():
        yield Coded(name, min(_tried(way, raw) for way in ways for raw in forms))
        sys.stdout.write(f"{name}\n")
    large = mosaic(images)
    for name, (encode, decode) in PICTURES.items():
        yield Coded(f"{name}, one picture of all", _checked(encode, decode, large))
        yield Coded(f"{name}, image by image", sum(_checked(encode, decode, image) for image in images))
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()


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
        return bytes(pyppmd.compress(raw, max_order=order, mem_size=1 << 26))

    return encode, lambda coded: bytes(pyppmd.decompress(coded, max_order=order, mem_size=1 << 26))


BYTES: dict[str, list[Bytes]] = {
    "zstd -19": [_zstd(19)],
    "zstd -22": [_zstd(22)],
    "xz -9e": [(lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME), lzma.decompress)],
    "brotli -q 11": [(lambda raw: bytes(brotli.compress(raw, quality=11, lgwin=24)), brotli.decompress)],
    "PPMd, best order": [_ppmd(order) for order in ORDERS],
}


def _tried(way: Bytes, raw: bytes) -> int:
    encode, decode = way
    coded = encode(raw)
    if decode(coded) != raw:
        raise AssertionError("a codec did not return the same bytes")
    return len(coded)


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
