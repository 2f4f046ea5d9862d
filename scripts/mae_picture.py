"""Picture for docs/selfsup.md from a run of ``mae``: ``python scripts/mae_picture.py RUN``.

Rows of test images: with masked patches in grey, with predictions in their place, and the images themselves.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image

import unsup
from unsup.families.selfsup.mae import MAE
from unsup.pictures.images import plain_image

COLUMNS, ENLARGED, GAP = 16, 5, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run of mae")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/mae.png"))
    chosen = parser.parse_args()
    run = unsup.open_run(chosen.run)
    assert isinstance(run.model, MAE)
    x = run.data.test.x[:COLUMNS]
    rows = (*run.model.reconstruct(x, generator=torch.Generator().manual_seed(0)), x)
    width, height = (ENLARGED * side + GAP for side in reversed(run.model.backbone.sides))
    page = Image.new("RGB", (width * len(x) - GAP, height * len(rows) - GAP), "white")
    for i, row in enumerate(rows):
        for j, one in enumerate(row):
            tile = plain_image(one, run.model.event).convert("RGB")
            large = tile.resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
            page.paste(large, (j * width, i * height))
    page.quantize(256).save(chosen.out, optimize=True)
    print(f"{chosen.out}: {chosen.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
