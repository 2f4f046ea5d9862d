"""Picture of `cdf-flow` for docs/flows.md, trained here in a minute: ``python scripts/cdf_flow_picture.py``.

Data, the map and the base, of one column with a uniform base, and of two columns with a Gaussian one; all examples
shown are held out.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

import unsup
from unsup.core.event import REAL, Event
from unsup.core.model import Model

COUNT, SHOWN, LINES = 8000, 1500, 13
BLUE, ORANGE, GREY = "#3b6ea8", "#d97b29", "#888888"


def column() -> Tensor:
    """Two narrow modes and a flat part, in random order."""
    generator = np.random.default_rng(0)
    parts = [generator.normal(-2, 0.3, COUNT // 2), generator.normal(0, 0.15, COUNT // 4)]
    values = np.concatenate([*parts, generator.uniform(0.8, 2.5, COUNT - 3 * (COUNT // 4))])
    return torch.tensor(generator.permutation(values), dtype=torch.float32)[:, None]


def fitted(x: Tensor, steps: int, **options: str | int) -> Model:
    model = unsup.create("cdf-flow", Event((x.shape[1],), REAL), seed=0, **options)
    unsup.fit(model, x.numpy(), steps=steps, seed=0, progress="off")
    return model.eval()


def one_column(axes: list[Axes]) -> None:
    x = column()
    model, held_out = fitted(x[:-SHOWN], 1500, base="uniform", components=8), x[-SHOWN:]
    line = torch.linspace(-3.3, 3, 600)[:, None]
    with torch.no_grad():
        density, mapped, z = model.log_prob(line).exp(), model.encode(line), model.encode(held_out)
    data, across, base = axes
    data.hist(held_out[:, 0], 60, density=True, color=BLUE, alpha=0.4, label="held-out data")
    data.plot(line, density, color=ORANGE, label="p(x)")
    data.legend(frameon=False)
    data.set(title="data x", xlabel="x")
    across.plot(line, mapped, color=ORANGE)
    across.set(title="map z = F(x)", xlabel="x", ylabel="z")
    base.hist(z[:, 0], 20, density=True, color=BLUE, alpha=0.4)
    base.axhline(1, color=ORANGE)
    base.set(title="base z, uniform", xlabel="z")


def two_columns(axes: list[Axes]) -> None:
    x = torch.from_numpy(unsup.load_data("moons").train.x.numpy())
    model, held_out = fitted(x, 1500, components=12), unsup.load_data("moons").test.x[:SHOWN]
    at = torch.linspace(-2.5, 2.5, LINES)
    fine = torch.linspace(-2.5, 2.5, 200)
    grid = [torch.stack([level.expand(200), fine], 1) for level in at] + [
        torch.stack([fine, level.expand(200)], 1) for level in at
    ]
    with torch.no_grad():
        z, lines = model.encode(held_out), [model.decode(one) for one in grid]
    colour = z[:, 0].clamp(-2.5, 2.5)
    data, across, base = axes
    data.scatter(*held_out.T, c=colour, s=2, cmap="viridis")
    data.set(title="data x, coloured by z₁", xlabel="x₁", ylabel="x₂")
    for one in lines:
        across.plot(*one.T, color=GREY, linewidth=0.6)
    across.set(title="the grid of z in the space of x", xlabel="x₁", ylabel="x₂")
    base.scatter(*z.T, c=colour, s=2, cmap="viridis")
    for level in at:
        base.axhline(float(level), color=GREY, linewidth=0.3)
        base.axvline(float(level), color=GREY, linewidth=0.3)
    base.set(title="base z, Gaussian", xlabel="z₁", ylabel="z₂", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/cdf-flow.png"))
    chosen = parser.parse_args()
    figure = Figure(figsize=(10, 6), layout="constrained")
    rows = figure.subplots(2, 3)
    one_column(list(rows[0]))
    two_columns(list(rows[1]))
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=80)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(128).save(chosen.out, optimize=True)
    print(f"{chosen.out}: {chosen.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
