"""General compressors on the test windows of texts and sound: ``python -m benchmarks sequence_peers``.

A compressor has no training. Its bits are those that the test windows add to a file of the training and validation
windows: it has seen these, like a trained model, and may look back beyond the window, unlike one. The last window of
a text may be shorter. The table goes into ``docs/autoregressive.md``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

import unsup
from benchmarks.rates import BYTES, checked_size

PAGE = Path("docs/autoregressive.md")
BEGIN, END = "<!-- compressors, written by python -m benchmarks sequence_peers -->", "<!-- end of compressors -->"
SETS: dict[str, dict[str, Any]] = {
    "tinyshakespeare": {"length": 256, "tail": True},
    "enwiki-fragment": {"length": 512, "tail": True},
    "fsdd": {"length": 1024},
}
WAYS = ("xz -9e", "PPMd7, best order")


def main() -> None:
    rows = [_row(name, options) for name, options in SETS.items()]
    lines = [
        f"| bits per byte of the test windows | {' | '.join(WAYS)} |",
        f"|---|{'--:|' * len(WAYS)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text("\n".join([text[:start], *lines, text[end:]]))


def _row(name: str, options: dict[str, Any]) -> list[str]:
    data = unsup.load_data(name, **options)
    known = _bytes(data.train) + _bytes(data.validation)
    test = _bytes(data.test)
    cells = []
    for way in WAYS:
        sizes = [(checked_size(each, known), checked_size(each, known + test)) for each in BYTES[way]]
        added = min(whole - part for part, whole in sizes if part is not None and whole is not None)
        cells.append(f"{8 * added / len(test):.3f}")
    return [name, *cells]


def _bytes(split: Any) -> bytes:
    """The windows one after the other, without padding."""
    x = split.x[:]
    if split.lengths is not None:
        x = x[torch.arange(x.shape[1]) < split.lengths[:, None]]
    return bytes(x.flatten().to(torch.uint8).numpy())
