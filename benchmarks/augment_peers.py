"""Views of SimCLR: batches against one image after the other with Pillow, and against kornia if it is installed.

``python -m benchmarks augment_peers`` prints the rows. The loop has the operations of torchvision on Pillow images:
the same distributions, 8 bits after each step. All ways start from uint8 and end in float32 in [0, 1].
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from benchmarks.harness import Measured, interleave
from unsup.nn.augment import RECIPES, Blur, ColourJitter, ResizedCrop, augment

CASES = (("simclr-small", 512, 32, 9), ("simclr", 32, 224, 5))
"""Recipe, images, pixels of a side, rounds."""


def _crop(image: Image.Image, crop: ResizedCrop) -> Image.Image:
    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = width * height * random.uniform(*crop.area)
        aspect = math.exp(random.uniform(*map(math.log, crop.aspect)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            box = (left, top, left + w, top + h)
            break
    return image.crop(box).resize((width, height), Image.Resampling.BILINEAR)


def _turned(image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    levels = np.asarray(hue) + np.uint8(round(turns * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(levels), saturation, value)).convert("RGB")


def _jittered(image: Image.Image, jitter: ColourJitter) -> Image.Image:
    def changed(enhance: Any, strength: float) -> Callable[[Image.Image], Image.Image]:
        return lambda image: enhance(image).enhance(random.uniform(max(0.0, 1 - strength), 1 + strength))

    steps = [
        changed(ImageEnhance.Brightness, jitter.brightness),
        changed(ImageEnhance.Contrast, jitter.contrast),
        changed(ImageEnhance.Color, jitter.saturation),
        lambda image: _turned(image, random.uniform(-jitter.hue, jitter.hue)),
    ]
    random.shuffle(steps)
    for step in steps:
        image = step(image)
    return image


def one_by_one(images: list[Image.Image], name: str) -> Tensor:
    """The recipe ``name``, ``simclr`` or ``simclr-small``, image by image."""
    crop, jitter, _, *more = RECIPES[name].operations
    assert isinstance(crop, ResizedCrop)
    assert isinstance(jitter, ColourJitter)
    views = []
    for image in images:
        view = _crop(image, crop)
        if random.random() < crop.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < jitter.probability:
            view = _jittered(view, jitter)
        if random.random() < 0.2:
            view = view.convert("L").convert("RGB")
        for blur in more:
            assert isinstance(blur, Blur)
            if random.random() < blur.probability:
                view = view.filter(ImageFilter.GaussianBlur(random.uniform(*blur.sigma)))
        views.append(torch.from_numpy(np.array(view)).permute(2, 0, 1))
    return torch.stack(views).float() / 255


def kornia_way(name: str, side: int) -> Callable[[Tensor], Tensor]:
    """The same recipe as modules of kornia."""
    kornia = import_module("kornia.augmentation")
    crop, jitter, _, *more = RECIPES[name].operations
    assert isinstance(crop, ResizedCrop)
    assert isinstance(jitter, ColourJitter)
    strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    modules = [
        kornia.RandomResizedCrop((side, side), scale=crop.area),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJiggle(*strengths, p=jitter.probability),
        kornia.RandomGrayscale(p=0.2),
        *(kornia.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5) for _ in more),
    ]
    return torch.nn.Sequential(*modules)


def augmentation(name: str, count: int, side: int, rounds: int) -> Measured:
    levels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    images = [Image.fromarray(one) for one in levels.permute(0, 2, 3, 1).numpy()]
    generator = torch.Generator().manual_seed(0)
    others: dict[str, Callable[[], object]] = {"Pillow, one by one": lambda: one_by_one(images, name)}
    if find_spec("kornia"):
        other = kornia_way(name, side)
        others["kornia"] = lambda: other(levels.float() / 255)
    with torch.no_grad():
        return interleave(
            f"{name}, {count} images of 3×{side}×{side}",
            lambda: augment(levels.float() / 255, name, generator),
            others,
            rounds=rounds,
            target="3× one by one, 1× kornia",
        )


def main() -> None:
    for case in CASES:
        for row in augmentation(*case).rows():
            sys.stdout.write("  ".join(row) + "\n")
            sys.stdout.flush()
