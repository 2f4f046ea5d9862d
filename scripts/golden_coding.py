"""Make golden files of compressed data that are missing: ``python scripts/golden_coding.py``.

A golden file is committed once and decoded by every later version (``tests/coding/test_golden_coding.py``), which
imports this file by its path. Existing files are never overwritten. When a scheme writes other bytes, increase its
version, and add cases for the new version beside the old ones.

Each case is, in ``tests/coding/golden``: a folder with the model, ``<name>.unsup`` with the compressed examples, and
``<name>.npy`` with the examples. Its chunks hold examples of the model, examples of the model with others between them,
equal examples outside the model (zstandard) and random ones (stored).

Each archive is, in ``tests/coding/golden/archive``: a folder with the model, ``<name>.unsup`` with the compressed
files, and ``<name>-files`` with the files.
"""

from __future__ import annotations

import argparse
import functools
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import unsup
from unsup.coding.arrays import header_of
from unsup.coding.chunks import ChunkCoder
from unsup.coding.container import write_container
from unsup.coding.packing import sources_of, write_archive
from unsup.core.event import Event, Support
from unsup.core.model import Model
from unsup.core.part import Part
from unsup.data.form import Form

FOLDER = Path(__file__).parents[1] / "tests" / "coding" / "golden"
PER_CHUNK = 40  # examples; a chunk of a usual file has up to 4096


@dataclass(frozen=True)
class Case:
    """A golden file, ``<model>-<data>``: the model with the preset ``tiny`` and these options, for one event.

    Attributes:
        noise: further levels, with equal probabilities, so that a flow codes the examples better than zstandard.
    """

    model: str
    data: str
    event: Event
    options: Mapping[str, Any] = field(default_factory=dict)
    noise: int = 1

    @property
    def name(self) -> str:
        return f"{self.model}-{self.data}"


COLUMNS = (Support("real"), Support("ordinal", 9, -2), Support("real"), Support("nominal", 3), Support("real"))
VARIATIONAL = {"dequantization": "variational"}
ORDERS = {"hidden": (12,), "masks": 3, "order": "random"}
_SMALL = {"latent_dim": 2, "hidden": (8,), "flow_steps": 2}
LATENTS = {**_SMALL, "posterior": "iaf", "flow_hidden": (8,), "prior": Part("made", {"hidden": (8,)})}
WINDOW = {**_SMALL, "posterior": "sylvester", "prior": Part("maf", {"layers": 2, "hidden": (8,)}), "window": 1}
# `made-first-order` is a mixture over orders as it was coded before "entry by entry in the best order".
CASES = (
    Case("made", "binary", Event((1, 5, 6), Support("binary"), "image"), {"hidden": (12,)}),
    Case("made", "words", Event((7,), Support("nominal", 5), "vector"), {"hidden": (12,)}),
    Case("made", "table", Event((5,), COLUMNS, "vector", missing=True), {"hidden": (12,)}),
    Case("made", "orders", Event((5,), COLUMNS, "vector", missing=True), ORDERS),
    Case("pixelcnn", "grey", Event((1, 5, 5), Support("ordinal", 16), "image")),
    Case("subscale-depth", "grey", Event((1, 4, 6), Support("ordinal", 16), "image"), {"depth": 2}),
    Case("vae", "binary", Event((1, 5, 6), Support("binary"), "image")),
    Case("vae", "grey", Event((1, 5, 6), Support("ordinal", 16), "image")),
    Case("vae", "latents", Event((1, 5, 6), Support("binary"), "image"), LATENTS),
    Case("vae", "window", Event((1, 5, 6), Support("ordinal", 16), "image"), WINDOW),
    Case("nice", "grey", Event((1, 5, 6), Support("ordinal", 16), "image"), noise=4),
    Case("realnvp", "grey", Event((1, 6, 6), Support("ordinal", 16), "image"), noise=4),
    Case("glow", "grey", Event((1, 6, 6), Support("ordinal", 16), "image"), VARIATIONAL, noise=4),
    Case("maf", "counts", Event((24,), Support("ordinal", 40), "vector"), noise=8),
    Case("spline-flow", "counts", Event((24,), Support("ordinal", 40), "vector"), noise=8),
    Case("sylvester", "grey", Event((1, 6, 6), Support("ordinal", 16), "image"), noise=4),
    Case("residual-flow", "grey", Event((1, 6, 6), Support("ordinal", 16), "image"), VARIATIONAL, noise=4),
    Case("ffjord", "levels", Event((24,), Support("ordinal", 16), "vector"), noise=4),
    Case("bernoulli-mixture", "binary", Event((1, 5, 6), Support("binary"), "image")),
    Case("gaussian-mixture", "table", Event((5,), COLUMNS, "vector", missing=True)),
)


def examples(event: Event, n: int, noise: int = 1) -> Tensor:
    """Examples that a model can learn: level = sum of the position and of a number for each example, with noise."""
    draw = np.random.Generator(np.random.PCG64(20))
    sites = np.arange(event.dims) // 3
    levels = sites + draw.integers(0, 2, (n, 1)) + (draw.random((n, event.dims)) < 0.1)
    if noise > 1:
        levels = levels + draw.integers(0, noise, levels.shape)
    x = torch.empty(n, event.dims, dtype=event.dtype)
    for site, support in enumerate(event.columns):
        if support.is_discrete:
            x[:, site] = torch.from_numpy(levels[:, site] % support.levels) + support.low
        else:  # to two decimals, or with all bits
            real = levels[:, site] + draw.random(n)
            x[:, site] = torch.from_numpy(real.round(2) if site % 4 else real)
    if event.missing:
        x[torch.from_numpy(draw.random(x.shape) < 0.1)] = torch.nan
    return x.reshape(n, *event.shape)


def parts(event: Event, noise: int = 1) -> Iterator[Tensor]:
    """The chunks of a golden file."""
    inside = examples(event, 3 * PER_CHUNK, noise)
    outside = 201 if event.is_discrete else torch.inf  # no event here has this level, nor the next
    yield inside[:PER_CHUNK]
    mixed = inside[PER_CHUNK : 2 * PER_CHUNK].clone()
    mixed.view(PER_CHUNK, -1)[[3, 17], [0, 2]] = outside
    yield mixed
    yield inside[2 * PER_CHUNK :]
    yield torch.full((PER_CHUNK, *event.shape), outside + 1, dtype=event.dtype)
    draw = np.random.Generator(np.random.PCG64(21))
    if event.is_discrete:
        yield torch.from_numpy(draw.integers(100, 256, (3, *event.shape))).to(event.dtype)
    else:  # any bits, NaN with payloads among them
        yield torch.from_numpy(np.frombuffer(draw.bytes(12 * event.dims), "<f4").reshape(3, *event.shape).copy())


def trained(case: Case) -> Model:
    model = unsup.create(case.model, case.event, preset="tiny", seed=0, **case.options)
    data = unsup.from_arrays(examples(case.event, 512, case.noise).numpy(), event=case.event)
    unsup.fit(model, data, steps=400, lr=1e-2, progress="off", validate_every=0)
    return model


def make(case: Case, folder: Path) -> None:
    """Write the files of a case."""
    model, x = trained(case), list(parts(case.event, case.noise))
    model.save(str(folder / case.name))
    model = unsup.load(folder / case.name)
    (folder / case.name / "README.md").unlink()
    coder = ChunkCoder(model)
    items = {"kind": "examples", "type": str(x[0].dtype).removeprefix("torch."), "shape": list(case.event.shape)}
    file = io.BytesIO()
    write_container(file, header_of(model, coder, items, "portable"), map(coder.encode, x))
    np.save(folder / f"{case.name}.npy", torch.cat(x).numpy())
    (folder / f"{case.name}.unsup").write_bytes(file.getvalue())


GREY = Event((1, 5, 6), Support("ordinal", 16), "image")
ARCHIVES = ("images", "table")


def image_files(folder: Path) -> tuple[Model, None]:
    """Images, an array and files without examples; and a model of the images."""
    x = examples(GREY, 300).numpy()
    for number, one in enumerate(x[:40]):
        Image.fromarray(one[0]).save(folder / f"a{number + 95:03d}.png")
    (folder / "more").mkdir()
    for number, one in enumerate(x[40:60]):
        Image.fromarray(one[0]).save(folder / "more" / f"{number}.bmp")
    np.save(folder / "more" / "numbers.npy", x[60:130])
    np.save(folder / "last.npy", x[130:160].transpose(0, 2, 3, 1))
    Image.fromarray(x[:, 0].reshape(-1, 6)[:12]).save(folder / "larger.png")
    (folder / "rows.csv").write_bytes(b"".join(b"%d,%d\n" % (k, k * k % 17) for k in range(60)))
    (folder / "empty").write_bytes(b"")
    (folder / "notes.txt").write_text("".join(f"line {k}: \N{LATIN SMALL LETTER E WITH ACUTE}\r\n" for k in range(30)))
    return trained(Case("made", "grey", GREY, {"hidden": (12,)})), None


def table_files(folder: Path) -> tuple[Model, Form | None]:
    """A table with a column that the model does not have, missing cells and cells in another notation."""
    draw = np.random.Generator(np.random.PCG64(22))
    lines = ["kind,count,price,day,id"]
    for number in range(300):
        kind = int(draw.integers(3))
        day = np.datetime64("2024-01-01") + int(draw.integers(90))
        price = f"{10 * kind + draw.random():.2f}" if number % 29 else ("1e1", "")[number % 2]
        lines.append(f"{'abc'[kind]},{3 * kind + int(draw.integers(3))},{price},{day},{number:04d}-x")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "notes.txt").write_text("Prices are in euros.\n")
    data = unsup.load_data(folder / "rows.csv", drop=("id",))
    model = unsup.create("gaussian-mixture", data, components=3, seed=0)
    unsup.fit(model, data, progress="off")
    return model, data.form


def make_archive(name: str, folder: Path) -> None:
    """Write the files of an archive."""
    files = folder / f"{name}-files"
    files.mkdir(parents=True)
    model, form = {"images": image_files, "table": table_files}[name](files)
    model.save(str(folder / name))
    model = unsup.load(folder / name)
    (folder / name / "README.md").unlink()
    with (folder / f"{name}.unsup").open("xb") as file:
        write_archive(file, model, ChunkCoder(model), sources_of([files]), form=form)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Make golden files of compressed data that are missing.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write them (default: %(default)s)")
    folder = parser.parse_args(words).folder
    tasks: list[tuple[str, tuple[str, ...], Callable[[], None]]] = [
        (case.name, ("", ".unsup", ".npy"), functools.partial(make, case, folder)) for case in CASES
    ]
    for name in ARCHIVES:
        work = functools.partial(make_archive, name, folder / "archive")
        tasks.append((f"archive/{name}", ("", ".unsup", "-files"), work))
    for name, ends, work in tasks:
        paths = [folder / f"{name}{end}" for end in ends]
        there = [path.name for path in paths if path.exists()]
        if there:
            print(f"{name}: {', '.join(there)} exist and are never overwritten")
            continue
        try:
            work()
        except BaseException:  # a half case would be kept for ever
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            raise
        print(f"{name}: {paths[1].stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
