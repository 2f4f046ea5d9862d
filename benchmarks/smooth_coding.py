"""Coding with flows whose steps change all entries at once: ``python -m benchmarks smooth_coding [MODEL …]``.

Each flow is trained for a short time on the digits and codes held-out images. The stream of a few images starts with
some that are coded without the flow, so that the length is the difference between twice as many images and these.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence

import torch

import unsup
from unsup.coding.chunks import scheme_for
from unsup.core.machine import machine_kind
from unsup.core.model import HasDensity
from unsup.data import load_data

STEPS = {"planar": 1500, "radial": 1500, "sylvester": 600, "residual-flow": 300, "ffjord": 300}
_IMAGES = 180
_DRAWS = 8


def row(name: str) -> str:
    """A line of the table."""
    data = load_data("digits")
    model = unsup.create(name, data, seed=0)
    unsup.fit(model, data, steps=STEPS[name], progress="off", validate_every=0)
    assert isinstance(model, HasDensity)
    first, second = data.test.x[:_IMAGES], data.test.x[_IMAGES : 2 * _IMAGES]
    scheme = scheme_for(model)
    both = torch.cat([first, second])
    start = time.perf_counter()
    coded = scheme.encode(both)
    middle = time.perf_counter()
    assert torch.equal(scheme.decode(coded, len(both)), both)
    end = time.perf_counter()
    bits = 8 * (len(coded) - len(scheme.encode(first)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        bound = sum(-float(model.log_prob(second, generator=generator).sum()) for _ in range(_DRAWS))
    dims = second.numel()
    told = bound / _DRAWS / math.log(2) / dims
    found = bits / dims
    encoded, decoded = len(both) / (middle - start), len(both) / (end - middle)
    return (
        f"| `{name}` | {told:.4f} | {found:.4f} | {100 * (found / told - 1):+.1f} % | {encoded:.2g} | {decoded:.2g} |\n"
    )


def main(names: Sequence[str]) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    write = sys.stdout.write
    write("| Model | bound, bits/dim | coded | difference | compress, images/s | decompress, images/s |\n")
    write("|---|--:|--:|--:|--:|--:|\n")
    for name in names or STEPS:
        write(row(name))
        sys.stdout.flush()
    write(f"\nMachine: {machine_kind()}, one thread.\n")
