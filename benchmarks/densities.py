"""Flows on the built-in 2-D sets, beside the true densities: ``python -m benchmarks densities [MODEL …]``.

Every model trains for 2,000 steps of 256 of 20,000 examples, with seed 0, averaged parameters, a learning rate of 0.002
that falls to 0 along a cosine, and the sizes listed below. A figure is the mean over the 2,000 test examples of
log p(x) − log q(x), with the true density p: an estimate of the Kullback–Leibler divergence of the model from the data,
which is 0 for a perfect model for sets of any entropy.

Each result is appended to ``benchmarks/densities.jsonl`` at once, and what stands there is not run again; the page
``docs/densities.md`` and its picture are written from all of them.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import unsup
from unsup.core.machine import machine_kind
from unsup.core.registry import names as registry_names
from unsup.data import planes

RECORDS = Path("benchmarks/densities.jsonl")
PAGE = Path("docs/densities.md")
PICTURE = Path("docs/densities.png")
SETS = ("moons", "rings", "ring8", "grid25", "checkerboard", "pinwheel", "spirals")
SIDES = {"moons": 2.6, "rings": 3.6, "ring8": 1.2, "grid25": 5.0, "checkerboard": 4.6, "pinwheel": 5.0, "spirals": 3.9}
MODELS: dict[str, dict[str, Any]] = {
    "planar": {},
    "radial": {},
    "sylvester": {},
    "realnvp": {"hidden": (128, 128)},
    "maf": {"hidden": (128, 128)},
    "cdf-flow": {"components": 10},
    "naf": {},
    "spline-flow": {},
    "ffjord": {},
    "residual-flow": {},
    "gaussian-mixture": {},
}
STEPS, BATCH = 2000, 256
CELLS = 64  # of a side of a density in the picture


def main(names: list[str]) -> None:
    """Run what is missing of the models named (all), and write the page."""
    unknown = [n for n in names if n not in MODELS]
    if unknown:
        raise SystemExit(f"there is no model {unknown[0]!r}; expected some of: {', '.join(MODELS)}")
    done = {(r["model"], r["set"]) for r in records()}
    for model in names or MODELS:
        for name in SETS:
            if (model, name) not in done and model in registry_names():
                record = measured(model, name)
                with RECORDS.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                sys.stdout.write(f"{model} on {name}: {record['divergence']:.4f}, {record['seconds']:.0f} s\n")
                sys.stdout.flush()
    PAGE.write_text(page(records()))
    draw(records())


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.is_file() else []


def measured(name: str, data_name: str) -> dict[str, Any]:
    """One model on one set; its density on a grid is kept for the picture, as whole numbers."""
    data = unsup.load_data(data_name)
    model = unsup.create(name, data.event, seed=0, **MODELS[name])
    counting = name == "gaussian-mixture"
    settings: dict[str, Any] = {} if counting else {"steps": STEPS, "batch_size": BATCH, "lr": 2e-3, "ema": 0.99}
    started = time.process_time()
    if unsup.fit(model, data, progress="off", **settings).interrupted:
        raise SystemExit(f"{name} on {data_name} was interrupted")
    seconds = time.process_time() - started
    x = data.test.x[:]
    true = planes.log_density(data_name, x.numpy())
    differences = true - _scores(model, x)
    middle = SIDES[data_name] * (2 * (np.arange(CELLS) + 0.5) / CELLS - 1)
    grid = torch.tensor(np.stack(np.meshgrid(middle, middle[::-1]), -1).reshape(-1, 2), dtype=torch.float32)
    density = np.exp(_scores(model, grid))
    return {
        "model": name,
        "set": data_name,
        "divergence": round(float(differences.mean()), 5),
        "error": round(float(differences.std() / len(x) ** 0.5), 5),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
        "machine": f"{machine_kind()}; {torch.get_num_threads()} thread(s)",
        "date": time.strftime("%Y-%m-%d"),
        "shades": base64.b64encode(zlib.compress(_shades(density), 9)).decode(),
    }


@torch.no_grad()
def _scores(model: Any, x: torch.Tensor) -> NDArray[np.float64]:
    generator = torch.Generator().manual_seed(0)
    found = [model.log_prob(part, generator=generator) for part in x.split(1000)]
    return torch.cat(found).double().numpy()


def _shades(density: NDArray[np.float64]) -> bytes:
    """One byte for each cell: the square root of the density, relative to its 99th percentile."""
    root = np.sqrt(np.nan_to_num(density))
    return (255 * np.clip(root / max(np.quantile(root, 0.99), 1e-12), 0, 1)).astype(np.uint8).tobytes()


def page(found: list[dict[str, Any]]) -> str:
    """The page in Markdown, of the records alone."""
    by = {(r["model"], r["set"]): r for r in found}
    models = [m for m in MODELS if all((m, s) in by for s in SETS)]
    sizes = "; ".join(
        f"`{m}`" + "".join(f" `--model.{k} {_told(v)}`" for k, v in MODELS[m].items()) for m in models if MODELS[m]
    )
    lines = [
        "# Densities of the plane",
        "",
        " ".join((__doc__ or "").split("\n\n")[1].split()),
        "",
        f"Other options than the defaults: {sizes}. `gaussian-mixture` is fitted by expectation maximisation.",
        "",
        "`python -m benchmarks densities` repeats this.",
        "",
        "![The densities of the data, by their formulas, and those of the models](densities.png)",
        "",
        f"| model | parameters | processor seconds a set | {' | '.join(SETS)} |",
        f"| --- | --: | --: |{' --: |' * len(SETS)}",
    ]
    for model in models:
        rows = [by[model, s] for s in SETS]
        cells = " | ".join(f"{r['divergence']:.3f} ± {r['error']:.3f}" for r in rows)
        seconds = sum(r["seconds"] for r in rows) / len(rows)
        lines.append(f"| `{model}` | {rows[0]['parameters']:,} | {seconds:.0f} | {cells} |")
    entropies = " | ".join(f"{planes.entropy(s):.3f}" for s in SETS)
    lines += [
        f"| entropy of the data, nats | | | {entropies} |",
        "",
        "± is a standard error over test examples. No model was chosen by these figures. Machine: "
        f"{', '.join(sorted({r['machine'] for r in found}))}; {max(r['date'] for r in found)}.",
    ]
    return "\n".join([*lines, ""])


def _told(value: Any) -> str:
    return " ".join(str(v) for v in value) if isinstance(value, tuple) else str(value)


def draw(found: list[dict[str, Any]]) -> None:
    """Densities by model and set, the true ones first."""
    from PIL import Image, ImageDraw, ImageFont

    by = {(r["model"], r["set"]): r for r in found}
    models = [m for m in MODELS if all((m, s) in by for s in SETS)]
    gap, left, top = 4, 130, 24
    size = CELLS + gap
    sheet = Image.new("RGB", (left + size * len(SETS), top + size * (len(models) + 1)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for j, name in enumerate(SETS):
        pen.text((left + j * size, 8), name, fill="#333333", font=ImageFont.load_default(10))
    for i, model in enumerate(["data", *models]):
        pen.text((4, top + i * size + CELLS // 2 - 8), model, fill="#333333", font=font)
        for j, name in enumerate(SETS):
            cells = zlib.decompress(base64.b64decode(by[model, name]["shades"])) if i else _shades(_true_density(name))
            shades = 255 - np.frombuffer(cells, np.uint8).reshape(CELLS, CELLS)
            sheet.paste(Image.fromarray(shades), (left + j * size, top + i * size))
    sheet.quantize(32).save(PICTURE, optimize=True)


def _true_density(name: str) -> NDArray[np.float64]:
    middle = SIDES[name] * (2 * (np.arange(CELLS) + 0.5) / CELLS - 1)
    return np.exp(planes.log_density(name, np.stack(np.meshgrid(middle, middle[::-1]), -1).reshape(-1, 2)))
