"""Random views of raw examples by the recipes of `unsup.nn.augment`, and raw examples in their units."""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.random import keyed_generator
from unsup.data.form import Form
from unsup.data.sound import SoundForm
from unsup.nn.augment import augment, recipe_named

IMAGES, SOUND = "simclr-small", "sound"
"""The recipes of `raw_views`."""
_CHUNK = 500


def has_views(event: Event, form: Form | None) -> bool:
    """Whether `raw_views` makes views of these examples: of images of 1 or 3 channels of numbers, and of sound.

    >>> from unsup.core.event import Support
    >>> has_views(Event((3, 8, 8), Support("ordinal", 256)), None), has_views(Event((3,), Support("real")), None)
    (True, False)
    """
    if isinstance(form, SoundForm):
        return recipe_named(SOUND).reason_against(event.shape) is None
    is_ordered = event.uniform is not None and event.uniform.kind != "nominal"
    return event.is_image and is_ordered and recipe_named(IMAGES).reason_against(event.shape) is None


def unit_of(x: Tensor, event: Event, form: Form | None, name: str) -> Tensor:
    """Raw images as float32 in [0, 1], and raw sound as float32, full scale ±1.

    Raises:
        InputError: the data is neither images with an order of levels nor sound, or real images are not in [0, 1].
    """
    support = event.uniform
    if isinstance(form, SoundForm):
        return form.waves(x)
    is_wave = event.layout == "sequence" and event.is_real
    if support is None or support.kind == "nominal" or not (event.is_image or is_wave):
        raise InputError(f"{name} is {event}; augmentation needs images or sound")
    if support.is_discrete:
        return ((x.double() - support.low) / (support.levels - 1)).float()
    if event.is_image and not bool(((x >= 0) & (x <= 1)).all()):
        raise InputError(f"{name} has real values from {float(x.min()):g} to {float(x.max()):g}; expected [0, 1]")
    return x.float()


def raw_of(unit: Tensor, event: Event, form: Form | None) -> Tensor:
    """The inverse of `unit_of`, rounded to the nearest level: float ``(B, *event.shape)`` → raw examples."""
    support = event.uniform
    if isinstance(form, SoundForm):
        return form.raw(unit)
    assert support is not None
    if support.is_discrete:
        return (unit.double().clamp(0, 1) * (support.levels - 1)).round().add(support.low).to(event.dtype)
    return unit.to(event.dtype)


def raw_views(x: Tensor, event: Event, form: Form | None, name: str, *, seed: int) -> Tensor:
    """One random view of each raw example ``(N, *event.shape)``, in raw units: `IMAGES` or `SOUND`.

    Raises:
        InputError: as `unit_of`.
    """
    recipe = SOUND if isinstance(form, SoundForm) else IMAGES
    return torch.cat(
        [
            raw_of(augment(unit_of(part, event, form, name), recipe, keyed_generator(seed, i)), event, form)
            for i, part in enumerate(x.split(_CHUNK))
        ]
    )
