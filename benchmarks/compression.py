"""Lossless compression: speed of every coder, share of the entropy coder, and decoding with caches against without."""

from __future__ import annotations

import lzma
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
import zstandard
from torch import Tensor

import unsup
from benchmarks.harness import Measured, Several, interleave
from unsup.coding import compress, decompress
from unsup.coding.autoregressive import EntryByEntry
from unsup.coding.entropy import QueueDecoder, QueueEncoder, Stack
from unsup.core.model import Model
from unsup.data.source import Data, Split
from unsup.families.autoregressive.pixelcnn import PixelCNN
from unsup.nn.autoregressor import Naive, Steps
from unsup.nn.causal import Context

ENTROPY_CODERS = {
    QueueEncoder: ("encode", "to_bytes"),
    QueueDecoder: ("decode", "finish"),
    Stack: ("push", "pop", "push_uniform", "pop_uniform", "push_bits", "pop_bits", "to_bytes"),
}
"""What is counted as the entropy coder: with its checks and its conversion of frequencies, without their tables."""


@dataclass(frozen=True)
class Coder:
    """A model that is trained for a short time on the digits and codes the test split."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    binary: bool = False


CODERS = (
    Coder("made", {"hidden": (512,), "dropout": 0.3}, {"steps": 400}),
    Coder("pixelcnn", training={"steps": 200}),
    Coder("bernoulli-mixture", binary=True),
    Coder("vae", {"latent_dim": 16}, {"steps": 400}),
    Coder("nice", training={"steps": 600}),
    Coder("realnvp", training={"steps": 200}),
)


def compression() -> Several:
    """Both directions of every coder beside zstandard on the same bytes."""
    return Several([measured for coder in CODERS for measured in _both_directions(coder)])


def compression_caches() -> Measured:
    """A PixelCNN that evaluates each layer at one site, against one that evaluates all of them at every site."""
    generator = torch.Generator().manual_seed(0)
    event = unsup.Event((1, 28, 28), unsup.Support("ordinal", 256))
    options = {"channels": 16, "blocks": 3, "head_channels": 32}
    model, naive = PixelCNN(event, **options), _WithoutCaches(event, **options)
    naive.load_state_dict(model.state_dict())
    x = torch.randint(256, (16, 1, 28, 28), generator=generator).to(event.dtype)
    fast, slow = EntryByEntry(model), EntryByEntry(naive)
    coded = fast.encode(x)

    def decode(scheme: EntryByEntry) -> None:
        if not torch.equal(scheme.decode(coded, len(x)), x):
            raise AssertionError("decoded to something else")

    return interleave(
        f"PixelCNN decompression, {len(x)} images of 28×28, 256 levels, 16 channels",
        lambda: decode(fast),
        {"without caches": lambda: decode(slow)},
        rounds=1,
        warmup=0,
        target="≥ 20×",
    )


class _WithoutCaches(PixelCNN):
    def _steps(self, n: int, context: Context) -> Steps:
        raster, low = self.raster, self.inputs.support.low
        return Naive(lambda line: self._outputs(raster.grid(line) + low, context), self._blank(n))


def _both_directions(coder: Coder) -> Iterator[Measured]:
    data = _digits(coder.binary)
    model = unsup.create(coder.model, data, seed=0, **coder.options)
    unsup.fit(model, data, seed=0, progress="off", **coder.training)
    x = data.test.x
    raw = x.numpy().tobytes()
    coded = compress(model, x)
    encode, decode = zstandard.ZstdCompressor(level=19).compress, zstandard.ZstdDecompressor().decompress
    packed, xz = encode(raw), lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "compression": (lambda: compress(model, x), lambda: encode(raw)),
        "decompression": (lambda: _decoded(model, coded, x), lambda: decode(packed)),
    }
    for work, (ours, theirs) in works.items():
        title = f"{coder.model} {work}, {len(x)} {'binarised ' if coder.binary else ''}digits"
        found = interleave(title, ours, {"zstd -19": theirs}, rounds=3, target="entropy coder < 20 %")
        note = (
            f"{len(raw) / found.ours / 1e6:.3f} MB/s, {len(x) / found.ours:,.0f} items/s; entropy coder "
            f"{100 * _share(ours):.1f} % of the time; file {len(coded) / len(packed):.2f} of zstd -19, "
            f"{len(coded) / len(xz):.2f} of xz -9e"
        )
        yield replace(found, note=note)


def _decoded(model: Model, coded: bytes, x: Tensor) -> None:
    if not torch.equal(decompress(model, coded), x):
        raise AssertionError("decoded to something else")


def _digits(binary: bool) -> Data:
    digits = unsup.load_data("digits")
    if not binary:
        return digits
    parts = [Split((part.x > 8).to(torch.uint8)) for part in (digits.train, digits.validation, digits.test)]
    return Data("binary digits", unsup.Event((1, 8, 8), unsup.Support("binary")), *parts)


def _share(work: Callable[[], object]) -> float:
    """The share of the processor time that is spent in the entropy coder; the median of five."""
    shares = []
    for _ in range(5):
        with _timed() as spent:
            started = time.process_time()
            work()
            shares.append(spent[0] / (time.process_time() - started))
    return statistics.median(shares)


@contextmanager
def _timed() -> Iterator[list[float]]:
    spent, depth = [0.0], 0

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal depth
            depth += 1
            started = time.process_time()
            try:
                return method(*arguments, **named)
            finally:
                depth -= 1
                if not depth:  # methods call each other
                    spent[0] += time.process_time() - started

        return call

    with ExitStack() as stack:
        for kind, names in ENTROPY_CODERS.items():
            for name in names:
                stack.enter_context(patch.object(kind, name, timed(getattr(kind, name))))
        yield spent
