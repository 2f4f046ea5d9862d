"""Picture for docs/autoregressive.md from two runs: ``python scripts/autoregressive_picture.py IMAGES TEXT``.

Samples, completions and bits by pixel of a run of images, and a text coloured by the bits of its characters.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import unsup
from unsup.evaluate.likelihood import bits_by_dimension
from unsup.pictures.artist import bit_colours
from unsup.pictures.images import plain_image
from unsup.train.runs import Run

COLUMNS, ENLARGED, GAP, HEADING = 12, 2, 4, 28


def heading(words: str, width: int) -> Image.Image:
    strip = Image.new("RGB", (width, HEADING), "white")
    ImageDraw.Draw(strip).text((GAP, 8), words, fill="#333333", font=ImageFont.load_default(14))
    return strip


def row(tiles: list[Image.Image]) -> Image.Image:
    """Tiles of one size, side by side."""
    width, height = (ENLARGED * side + GAP for side in tiles[0].size)
    strip = Image.new("RGB", (width * len(tiles), height), "white")
    for i, tile in enumerate(tiles):
        large = tile.convert("RGB").resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
        strip.paste(large, (i * width, 0))
    return strip


def stacked(parts: list[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        page.paste(part, (0, top))
        top += part.height
    return page


def of_images(run: Run) -> list[Image.Image]:
    model, generator = run.model, torch.Generator().manual_seed(0)
    x = run.data.test.x[:COLUMNS]
    known = torch.zeros(model.event.shape, dtype=torch.bool)
    known[:, : known.shape[1] // 2] = True
    completed = model.complete(x, known.expand(x.shape), generator=generator)
    bits = bits_by_dimension(model, x)
    assert bits is not None
    shades = bit_colours(bits, bits)[0].reshape(len(x), *model.event.shape[1:], 3)

    def images(y: torch.Tensor) -> Image.Image:
        return row([plain_image(one, model.event) for one in y])

    name = run.config["model"]["model"]
    return [
        heading(f"Samples of {name}", 640),
        images(model.sample(COLUMNS, generator=generator)),
        heading("Test images, completed from their upper halves, and the bits of each pixel (yellow: many)", 640),
        images(x),
        images(completed),
        row([Image.fromarray(one) for one in shades]),
    ]


def of_text(run: Run) -> list[Image.Image]:
    x = run.data.test.x[:1]
    bits = bits_by_dimension(run.model, x)
    assert bits is not None
    drawn = run.gallery(x).bits(x, bits)
    assert drawn is not None
    with Image.open(io.BytesIO(drawn.enlarged().png)) as image:
        picture = image.convert("RGB")
    return [heading(f"A test window of {run.config['model']['model']}, and the bits of each character", 640), picture]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="folder of a run of images")
    parser.add_argument("text", type=Path, help="folder of a run of text")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/autoregressive.png"))
    chosen = parser.parse_args()
    page = stacked([*of_images(unsup.open_run(chosen.images)), *of_text(unsup.open_run(chosen.text))])
    page.quantize(256).save(chosen.out, optimize=True)
    print(f"{chosen.out}: {chosen.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
