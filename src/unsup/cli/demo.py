"""``unsup demo``: three families on real handwritten digits, fitted, scored and sampled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from unsup.cli.options import Parser
from unsup.cli.show import table, write

_MODELS = {"made": "autoregressive", "realnvp": "flow", "vae": "latent variables"}


def main(arguments: Sequence[str]) -> int:
    parser = Parser(prog="unsup demo", description="Fit three models on 8×8 digits, print a table, write sample grids.")
    parser.add_argument("-o", "--out", default="demo", metavar="FOLDER", help="where to write [demo]")
    options = parser.parse(arguments)

    from unsup.core.model import CanSample, keyed_generator
    from unsup.core.registry import create
    from unsup.core.storage import write_atomically
    from unsup.data import load_data
    from unsup.evaluate.likelihood import evaluate_likelihood
    from unsup.report.page import write_page
    from unsup.report.pictures import image_grid, png_bytes, side_by_side
    from unsup.train.recipes import read_recipe
    from unsup.train.trainer import fit

    data = load_data("digits")
    write(data.describe())
    out = Path(options.out) / time.strftime("%Y%m%d-%H%M%S")
    rows, grids = [], {"real digits": image_grid(data.validation.x[:64], data.event)}
    recipe = read_recipe("digits")
    chosen = {run.model: run for run in recipe.run}
    for name, family in _MODELS.items():
        write(f"\n{name} ({family})")
        model = create(name, data.event, **chosen[name].options)
        fitted = fit(model, data, out=out / name, **chosen[name].training)
        if fitted.interrupted:
            raise KeyboardInterrupt
        write_page(out / name)
        found = evaluate_likelihood(model, data.test.x, samples=recipe.importance_samples)
        started = time.monotonic()
        assert isinstance(model, CanSample)
        grids[name] = image_grid(model.sample(64, generator=keyed_generator(0)), data.event)
        rate = 64 / (time.monotonic() - started)
        rows.append(
            (
                name,
                family,
                f"{found.sign} {found.bits_per_dim:.3f}",
                f"{found.sign} {found.nats:.1f} ± {found.standard_error:.1f}",
                found.kind,
                f"{model.parameter_count:,}",
                f"{fitted.seconds:.0f}",
                f"{rate:,.0f}",
            )
        )
    picture = out / "samples.png"
    write_atomically(picture, png_bytes(side_by_side(grids)))
    header = ("model", "family", "bits/dim", "nats", "kind", "parameters", "seconds", "samples/s")
    write(
        f"\n{data.name}, test split, n = {len(data.test.x)}; lower is better; a bound (of {recipe.importance_samples} "
        "importance samples) may be better than it says"
    )
    write(table(header, rows, right=(2, 3, 5, 6, 7)))
    write(f"\nsamples: {picture}\nnext:    unsup fit FOLDER_OF_PNGS pixelcnn -o runs/mine")
    return 0
