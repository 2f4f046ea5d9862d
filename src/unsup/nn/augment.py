"""Views of examples: random operations on batches, with parameters per example, and named recipes of them.

Images are ``(B, C, H, W)`` in [0, 1] with C = 1 or 3, sound is ``(B, T)``. `augment` makes one view; call it again for
another one. The result has the shape of the input, except for `SoundCrop`.

All operations compute a whole batch at once. All draws are from one generator by `unsup.core.random`, with the axis of
examples, so that n processes give the same views as one, and the view of an example does not depend on the others.
Views have a gradient with respect to the examples (`RandAugment`: not through posterising and equalising).

Operations that flip do so while they sample, which is the same as a flip at any later place: all later operations of
the recipes commute with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from unsup.core.errors import InputError, kind_of, nearest
from unsup.core.random import integers, normal, uniform
from unsup.prob import colour, warps

Range = tuple[float, float]
Kind = Literal["images", "sound"]
_TRIES = 10  # of a resized crop, before its fallback, as in torchvision
_FULL = 30  # the magnitude of RandAugment at which ranges end
_GREY = 0.5  # of what comes from outside of an image


class Operation(ABC):
    """A random operation on a batch. Subclasses are final.

    Class attributes:
        kind: what it changes.
    """

    kind: ClassVar[Kind] = "images"

    @abstractmethod
    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Batch ``(B, …)`` → its view; float32 or float64."""

    def reason_against(self, shape: Sequence[int]) -> str | None:
        """Why examples of this shape are not supported; None if they are."""
        return None


# --- images -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ResizedCrop(Operation):
    """A random rectangle, enlarged to the size of the image (Szegedy et al. 2015), and a random flip.

    The rectangle has whole pixels, as in torchvision: ten draws of area and aspect, of which the first that fits is
    used; else the largest rectangle in the middle with an aspect within the range. Interpolation is bilinear.

    Attributes:
        area: share of the area of the image, uniform.
        aspect: width / height, log-uniform.
        flip: probability of a horizontal flip.
    """

    area: Range = (0.08, 1.0)
    aspect: Range = (3 / 4, 4 / 3)
    flip: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        full_height, full_width = x.shape[2:]
        area = _between(x, generator, *self.area, _TRIES) * (full_height * full_width)
        narrow, wide = self.aspect
        aspect = _between(x, generator, math.log(narrow), math.log(wide), _TRIES).exp()
        heights, widths = (a.sqrt().round() for a in (area / aspect, area * aspect))
        fits = (heights >= 1) & (heights <= full_height) & (widths >= 1) & (widths <= full_width)
        first = fits.to(torch.uint8).argmax(1, keepdim=True)
        height, width = (size.gather(1, first)[:, 0] for size in (heights, widths))
        limited = min(max(full_width / full_height, narrow), wide)
        middle_height = min(full_height, round(full_width / limited))
        middle_width = min(full_width, round(full_height * limited))
        some = fits.any(1)
        height, width = torch.where(some, height, middle_height), torch.where(some, width, middle_width)
        place = _between(x, generator, 0, 1, 2)
        top, left = (place[:, 0] * (full_height - height + 1)).floor(), (place[:, 1] * (full_width - width + 1)).floor()
        top = torch.where(some, top, (full_height - middle_height) // 2).minimum(full_height - height)
        left = torch.where(some, left, (full_width - middle_width) // 2).minimum(full_width - width)
        return warps.resized_crop(x, top, left, height, width, _drawn(x, generator, self.flip))


@dataclass(frozen=True)
class PadCrop(Operation):
    """The image moved by up to ``padding`` whole pixels in each direction, and a random flip.

    This is padding, and a crop of the original size.

    Attributes:
        padding: pixels.
        border: what comes in: the reflected image or zeros.
        flip: probability of a horizontal flip.
    """

    padding: int = 4
    border: warps.Border = "reflect"
    flip: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        shift = integers(-self.padding, self.padding + 1, (len(x), 2), generator, like=x)
        return warps.shifted(x, shift[:, 0], shift[:, 1], self.border, _drawn(x, generator, self.flip))

    def reason_against(self, shape: Sequence[int]) -> str | None:
        return _too_small(shape, self.padding + 1) if self.border == "reflect" else None


@dataclass(frozen=True)
class Flip(Operation):
    """A horizontal flip with a probability."""

    probability: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        return warps.flipped(x, _drawn(x, generator, self.probability))


@dataclass(frozen=True)
class ColourJitter(Operation):
    """Brightness, contrast, saturation and hue changed in a random order, which is drawn for each image.

    Factors are uniform in [1 − s, 1 + s], at least 0; the turn of the hue is uniform in [−s, s] (1 is a full turn).
    Grey images have neither hue nor saturation.

    Attributes:
        brightness: its s; 0 does not change it. The same for the others.
        probability: of any change.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    probability: float = 1.0

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        strengths = x.new_tensor([self.brightness, self.contrast, self.saturation])
        low, high = (1 - strengths).clamp_min(0), 1 + strengths
        factors = low + (high - low) * uniform((len(x), 3), generator, like=x)
        turns = _between(x, generator, -self.hue, self.hue)
        order = uniform((len(x), 3), generator, like=x).argsort(1)  # of the blends
        turn_before = integers(0, 4, (len(x),), generator, like=x)  # the blend before which the hue is turned
        return _on(x, _drawn(x, generator, self.probability), self._jittered, factors, turns, order, turn_before)

    def _jittered(self, x: Tensor, factors: Tensor, turns: Tensor, order: Tensor, turn_before: Tensor) -> Tensor:
        for place in range(4):
            if self.hue:
                x = _on(x, turn_before == place, colour.hue_turned, turns)
            if place < 3:
                what = order[:, place]
                x = colour.adjusted(x, factors.gather(1, what[:, None])[:, 0], what)
        return x


@dataclass(frozen=True)
class Greyscale(Operation):
    """The lightness in place of the colour, with a probability."""

    probability: float

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        return _on(x, _drawn(x, generator, self.probability), colour.without_colour)


@dataclass(frozen=True)
class Blur(Operation):
    """Gaussian blur with a random width, with a probability.

    The kernel has 2 r + 1 taps in each direction; r is half of a tenth of the height, rounded down twice as in SimCLR
    (11 for 224 pixels, 1 for 32), and at least 1. Borders are reflected.

    Attributes:
        sigma: standard deviation in pixels, uniform.
        probability: of a blur.
    """

    sigma: Range = (0.1, 2.0)
    probability: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        sigma, chosen = _between(x, generator, *self.sigma), _drawn(x, generator, self.probability)
        radius = _radius(x.shape[2])
        return _on(x, chosen, lambda part, width: warps.blurred(part, width, radius), sigma)

    def reason_against(self, shape: Sequence[int]) -> str | None:
        return _too_small(shape, _radius(shape[1]) + 1)


def _radius(height: int) -> int:
    return max(1, height // 10 // 2)


@dataclass(frozen=True)
class Solarise(Operation):
    """Values of at least ``threshold`` inverted, with a probability."""

    probability: float
    threshold: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        threshold = x.new_full((len(x),), self.threshold)
        return _on(x, _drawn(x, generator, self.probability), colour.solarised, threshold)


@dataclass(frozen=True)
class Cutout(Operation):
    """A grey rectangle at a random place (DeVries and Taylor 2017), of which a part may be outside of the image.

    Attributes:
        share: its height and width, as shares of those of the image.
    """

    share: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        sizes = x.shape[2:]
        middle = [integers(0, n, (len(x),), generator, like=x) for n in sizes]
        height, width = (round(n * self.share) for n in sizes)
        return warps.covered(x, middle[0], middle[1], height, width, _GREY)


@dataclass(frozen=True)
class Affine(Operation):
    """A random rotation, scale, shear and shift around the centre; interpolation is bilinear, and grey comes in.

    Attributes:
        degrees: largest rotation, in both directions.
        shift: largest shift, as a share of height and width.
        scale: factor, uniform.
        shear: largest shear of each axis, in pixels per pixel, below 1.
        probability: of a change.
    """

    degrees: float = 0.0
    shift: float = 0.0
    scale: Range = (1.0, 1.0)
    shear: float = 0.0
    probability: float = 1.0

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        height, width = x.shape[2:]
        unit = _between(x, generator, -1, 1, 5)
        angle, right, down, shear_x, shear_y = unit.unbind(1)
        scale, chosen = _between(x, generator, *self.scale), _drawn(x, generator, self.probability)
        source = warps.affine_source(
            angle * self.degrees,
            right * self.shift * width,
            down * self.shift * height,
            scale,
            shear_x * self.shear,
            shear_y * self.shear,
        )
        return _on(x, chosen, lambda part, source: warps.affine(part, source, _GREY), source)


@dataclass(frozen=True)
class RandAugment(Operation):
    """Operations of one magnitude, drawn for each image from a list of 14 (Cubuk, Zoph, Shlens, Le 2020).

    The list, with what the magnitude M changes from 0 to 30: identity, autocontrast, equalise · rotate 0 to 30 degrees
    · shear x and y 0 to 0.3 pixels per pixel · translate x and y 0 to 150/331 of the size · brightness, colour,
    contrast and sharpness: factor 1 to 1 ± 0.9 · posterise 8 to 4 bits · solarise from level 256 to 0. Signs are
    random. These ranges are those of torchvision, which solarises white at M = 0 too. Grey images draw from the same
    list; colour does not change them.

    Attributes:
        count: N, operations per image, one after the other.
        magnitude: M from 0 to 30. None: drawn for each operation, uniformly, as in FixMatch (Sohn et al. 2020).
    """

    count: int = 2
    magnitude: float | None = 9.0

    def __post_init__(self) -> None:
        if self.count < 0 or (self.magnitude is not None and not 0 <= self.magnitude <= _FULL):
            raise InputError(
                f"RandAugment with count {self.count} and magnitude {self.magnitude}; expected at least 0, and 0 to "
                f"{_FULL} or None"
            )

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        for _ in range(self.count):
            what = integers(0, len(_LIST), (len(x),), generator, like=x)
            sign = 2.0 * integers(0, 2, (len(x),), generator, like=x) - 1
            if self.magnitude is None:
                strength = uniform((len(x),), generator, like=x)
            else:
                strength = x.new_full((len(x),), self.magnitude / _FULL)
            for apply, members in _TOGETHER:
                chosen = (what >= members.start) & (what < members.stop)
                x = _on(x, chosen, apply, what - members.start, sign.to(x), strength)
        return x


def _moved(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    """Rotate, shear x, shear y, translate x, translate y."""
    height, width = x.shape[2:]
    signed, zero = sign * strength, torch.zeros_like(strength)
    angle, shear_x, shear_y, right, down = (
        signed * most * (which == k) for k, most in enumerate((30.0, 0.3, 0.3, 150 / 331 * width, 150 / 331 * height))
    )
    return warps.affine(x, warps.affine_source(angle, right, down, zero + 1, shear_x, shear_y), _GREY)


def _blend(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    """Brightness, contrast, colour."""
    return colour.adjusted(x, 1 + 0.9 * sign * strength, which)


def _sharpened(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    return colour.sharpened(x, 1 + 0.9 * sign * strength)


def _posterised(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    return colour.posterised(x, 8 - (4 * strength).round())


def _solarised(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    return colour.solarised(x, 256 / 255 * (1 - strength))  # at magnitude 0, white is not inverted


def _autocontrasted(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    return colour.autocontrasted(x)


def _equalised(x: Tensor, which: Tensor, sign: Tensor, strength: Tensor) -> Tensor:
    return colour.equalised(x)


_LIST = (
    *("rotate", "shear x", "shear y", "translate x", "translate y"),
    *("brightness", "contrast", "colour", "sharpness", "posterise", "solarise", "autocontrast", "equalise", "identity"),
)
"""The operations of `RandAugment`; those that are computed together are next to each other."""
_TOGETHER: tuple[tuple[Callable[..., Tensor], range], ...] = (
    (_moved, range(0, 5)),
    (_blend, range(5, 8)),
    (_sharpened, range(8, 9)),
    (_posterised, range(9, 10)),
    (_solarised, range(10, 11)),
    (_autocontrasted, range(11, 12)),
    (_equalised, range(12, 13)),
)


# --- sound --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain(Operation):
    """Louder or softer by a random number of decibels, uniform; samples are not cut off."""

    kind: ClassVar[Kind] = "sound"

    decibels: Range = (-6.0, 6.0)

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        return x * 10 ** (_between(x, generator, *self.decibels)[:, None] / 20)


@dataclass(frozen=True)
class Noise(Operation):
    """White Gaussian noise at a random ratio of signal to noise, with a probability. Silence stays silent.

    Attributes:
        decibels: 10 log10 of the power of the signal by the expected power of the noise, uniform.
        probability: of noise.
    """

    kind: ClassVar[Kind] = "sound"

    decibels: Range = (10.0, 40.0)
    probability: float = 0.5

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        ratio, chosen = _between(x, generator, *self.decibels), _drawn(x, generator, self.probability)
        noise = normal(x.shape, generator, like=x)
        power = x.square().mean(1).clamp_min(torch.finfo(x.dtype).tiny)  # the square root of 0 has no gradient
        return x + noise * (power.sqrt() * 10 ** (-ratio / 20) * chosen)[:, None]


@dataclass(frozen=True)
class Shift(Operation):
    """Earlier or later by a random whole number of samples.

    Attributes:
        share: the largest shift, as a share of the length.
        circular: the end comes in at the beginning; else silence comes in.
    """

    kind: ClassVar[Kind] = "sound"

    share: float = 0.1
    circular: bool = False

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        length = x.shape[1]
        most = round(self.share * length)
        later = integers(-most, most + 1, (len(x), 1), generator, like=x)
        places = torch.arange(length, device=x.device) - later
        moved = x.gather(1, places.remainder(length))
        return moved if self.circular else moved * ((places >= 0) & (places < length))


@dataclass(frozen=True)
class SoundCrop(Operation):
    """A random window of ``length`` samples: ``(B, T)`` → ``(B, length)``."""

    kind: ClassVar[Kind] = "sound"

    length: int

    def __call__(self, x: Tensor, generator: Generator | None) -> Tensor:
        start = integers(0, x.shape[1] - self.length + 1, (len(x), 1), generator, like=x)
        return x.gather(1, start + torch.arange(self.length, device=x.device))

    def reason_against(self, shape: Sequence[int]) -> str | None:
        if shape[0] >= self.length:
            return None
        return f"is {shape[0]:,} samples long; a crop needs at least {self.length:,}"


# --- recipes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """A sequence of operations.

    Attributes:
        name: its name in `RECIPES`.
        summary: one line.
        source: the paper, and what differs from it.
        operations: one after the other.
        kind: what it is for.
    """

    name: str
    summary: str
    source: str
    operations: tuple[Operation, ...]
    kind: Kind = "images"

    def reason_against(self, shape: Sequence[int]) -> str | None:
        """Why examples of this shape ``(C, H, W)`` or ``(T,)`` are not supported; None if they are."""
        if not self.operations:
            return None
        if self.kind == "images" and (len(shape) != 3 or shape[0] not in (1, 3)):
            return f"has shape {tuple(shape)}; {self.name} needs images (1 or 3 channels, height, width)"
        if self.kind == "sound" and len(shape) != 1:
            return f"has shape {tuple(shape)}; {self.name} needs sound of one channel (samples,)"
        reasons = (operation.reason_against(shape) for operation in self.operations)
        return next((reason for reason in reasons if reason is not None), None)


_SIMCLR = "Chen, Kornblith, Norouzi, Hinton 2020 (https://arxiv.org/abs/2002.05709); bilinear in place of bicubic"
_MOCO = "He, Fan, Wu, Xie, Girshick 2020 (https://arxiv.org/abs/1911.05722)"
_MOCO_2 = "Chen, Fan, Girshick, He 2020 (https://arxiv.org/abs/2003.04297)"
_BYOL = "Grill et al. 2020 (https://arxiv.org/abs/2006.07733); bilinear in place of bicubic"
_BYOL_JITTER = ColourJitter(0.4, 0.4, 0.2, 0.1, probability=0.8)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe("none", "no change", "", ()),
            Recipe(
                "crop",
                "resized crop (area 0.2 to 1) and flip",
                "MAE: He, Chen, Xie, Li, Dollár, Girshick 2022 (https://arxiv.org/abs/2111.06377); bilinear",
                (ResizedCrop((0.2, 1.0)),),
            ),
            Recipe(
                "crop-flip",
                "shift by up to 4 pixels (reflected) and flip; weak",
                "FixMatch, weak: Sohn et al. 2020 (https://arxiv.org/abs/2001.07685), for 32×32 pixels",
                (PadCrop(4),),
            ),
            Recipe(
                "simclr",
                "resized crop (area 0.08 to 1), flip, strong colour jitter, grey 0.2, blur 0.5",
                f"SimCLR for ImageNet: {_SIMCLR}",
                (ResizedCrop(), ColourJitter(0.8, 0.8, 0.8, 0.2, probability=0.8), Greyscale(0.2), Blur()),
            ),
            Recipe(
                "simclr-small",
                "resized crop (area 0.08 to 1), flip, colour jitter, grey 0.2; for small images",
                f"SimCLR for CIFAR-10, jitter of strength 0.5 and no blur: {_SIMCLR}",
                (ResizedCrop(), ColourJitter(0.4, 0.4, 0.4, 0.1, probability=0.8), Greyscale(0.2)),
            ),
            Recipe(
                "moco-v1",
                "resized crop (area 0.2 to 1), grey 0.2, colour jitter with a large hue, flip",
                f"MoCo v1: {_MOCO}",
                (ResizedCrop((0.2, 1.0)), Greyscale(0.2), ColourJitter(0.4, 0.4, 0.4, 0.4)),
            ),
            Recipe(
                "moco-v2",
                "resized crop (area 0.2 to 1), flip, colour jitter, grey 0.2, blur 0.5",
                f"MoCo v2: {_MOCO_2}",
                (ResizedCrop((0.2, 1.0)), ColourJitter(0.4, 0.4, 0.4, 0.1, probability=0.8), Greyscale(0.2), Blur()),
            ),
            Recipe(
                "byol-first",
                "resized crop (area 0.08 to 1), flip, colour jitter, grey 0.2, always blurred",
                f"BYOL, first view: {_BYOL}",
                (ResizedCrop(), _BYOL_JITTER, Greyscale(0.2), Blur(probability=1.0)),
            ),
            Recipe(
                "byol-second",
                "as byol-first, with blur 0.1 and solarised 0.2",
                f"BYOL, second view: {_BYOL}",
                (ResizedCrop(), _BYOL_JITTER, Greyscale(0.2), Blur(probability=0.1), Solarise(0.2)),
            ),
            Recipe(
                "randaugment",
                "shift, flip, two operations of RandAugment with random magnitudes, cutout of half the size",
                "RandAugment: Cubuk, Zoph, Shlens, Le 2020 (https://arxiv.org/abs/1909.13719), ranges of torchvision; "
                "shift, random magnitudes and cutout as in FixMatch (https://arxiv.org/abs/2001.07685)",
                (PadCrop(4), RandAugment(2, None), Cutout(0.5)),
            ),
            Recipe(
                "sound",
                "gain ±6 dB, shift by up to a tenth of the length, noise at 10 to 40 dB in half of the views",
                "our choice",
                (Gain(), Shift(), Noise()),
                "sound",
            ),
        )
    }
)
"""The recipes by name."""


def recipe_named(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is no such recipe (the message suggests the nearest).
    """
    if name not in RECIPES:
        raise InputError(f"there is no augmentation recipe {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]


def augment(x: Tensor, recipe: str | Recipe, generator: Generator | None) -> Tensor:
    """One view of each example: the operations of a recipe, one after the other.

    Args:
        x: images ``(B, 1 or 3, H, W)`` in [0, 1], or sound ``(B, T)``; floating. float16 and bfloat16 are computed in
            float32.
        recipe: the name of one of `RECIPES`, or your own.
        generator: the source of all draws. Inside a training step, draws are made for the whole batch.

    Raises:
        InputError: no such recipe, or examples of a wrong shape or type. That images are in [0, 1] is checked for the
            first one.

    >>> x = torch.rand(8, 3, 32, 32)
    >>> g = torch.Generator().manual_seed(0)
    >>> first, second = augment(x, "simclr-small", g), augment(x, "simclr-small", g)
    >>> first.shape, bool((first == second).all())
    (torch.Size([8, 3, 32, 32]), False)
    """
    if isinstance(recipe, str):
        recipe = recipe_named(recipe)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        given = f"a {x.dtype} tensor" if isinstance(x, Tensor) else kind_of(x)
        raise InputError(f"augmentation was given {given}; expected a floating tensor (images in [0, 1])")
    reason = recipe.reason_against(x.shape[1:])
    if reason is not None:
        raise InputError(f"augmentation {recipe.name}: an example {reason}")
    if recipe.kind == "images" and recipe.operations and len(x):
        low, high = (float(end) for end in x[0].detach().aminmax())
        if not -1e-6 <= low <= high <= 1 + 1e-6:
            raise InputError(f"augmentation {recipe.name}: values from {low:g} to {high:g} given; expected [0, 1]")
    with torch.autocast(x.device.type, enabled=False):
        view = x if x.dtype in (torch.float32, torch.float64) else x.float()
        for operation in recipe.operations:
            view = operation(view, generator)
        return view.to(x.dtype)


def _between(x: Tensor, generator: Generator | None, low: float, high: float, *more: int) -> Tensor:
    """Uniform draws ``(B, *more)``."""
    return low + (high - low) * uniform((len(x), *more), generator, like=x)


def _drawn(x: Tensor, generator: Generator | None, probability: float) -> Tensor:
    """Bool ``(B,)``: true with this probability."""
    return uniform((len(x),), generator, like=x) < probability


def _on(x: Tensor, chosen: Tensor, apply: Callable[..., Tensor], *each: Tensor) -> Tensor:
    """``x`` with the ``chosen`` examples replaced by ``apply(x, *each)`` of them."""
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return x
    if len(rows) == len(x):
        return apply(x, *each)
    return x.index_copy(0, rows, apply(x[rows], *(values[rows] for values in each)))


def _too_small(shape: Sequence[int], least: int) -> str | None:
    height, width = shape[1:]
    return f"has {height}×{width} pixels; expected at least {least}×{least}" if min(height, width) < least else None
