"""Features of a condition, appended to the input of a network."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from unsup.core.event import Event
from unsup.nn.inputs import Features

Sides = tuple[int, int]


class Conditions(nn.Module):
    """Appends the features of a condition to codes and to examples; the identity for a model without a condition.

    Args:
        given: the event of the condition, or None.
        sides: sides of the images of convolutional networks, to which features are appended as channels: pixel by pixel
            for a condition that is an image with the same sides, otherwise the same at every pixel. None: networks
            take flat examples.

    Attributes:
        size: number of features of a condition; 0 without one.
        channels: number of features appended to each example, or of channels if examples are images.

    >>> from unsup import Event, Support
    >>> conditions = Conditions(Event((), Support("nominal", 3)), sides=(8, 8))
    >>> features = conditions(torch.tensor([0, 2]))
    >>> joined(torch.zeros(2, 5), features).shape
    torch.Size([2, 8])
    >>> joined(torch.zeros(2, 1, 8, 8), conditions.beside_examples(features)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(self, given: Event | None, sides: Sides | None = None) -> None:
        super().__init__()
        self.given, self.sides = given, sides
        self.features = None if given is None else Features(given)
        self.size = 0 if self.features is None else self.features.size
        self.lies_on_pixels = given is not None and given.is_image and given.shape[1:] == sides
        self.channels = self.size // math.prod(sides) if sides and self.lies_on_pixels else self.size

    def prepare(self, given: Tensor | None, *, generator: Generator) -> None:
        """Standardise numbers by the conditions of training data."""
        if self.features is not None and given is not None:
            self.features.prepare(given, generator=generator)

    def forward(self, given: Tensor | None) -> Tensor | None:
        """Conditions ``(B, *given.shape)`` → features ``(B, size)``."""
        if self.features is None or given is None:
            return None
        found: Tensor = self.features(given)
        return found

    def beside_examples(self, features: Tensor | None) -> Tensor | None:
        """Features that `joined` appends to examples: ``(B, size)``, or ``(B, channels, *sides)`` with ``sides``."""
        if features is None or self.sides is None:
            return features
        if self.lies_on_pixels and self.given is not None:
            each = self.channels // self.given.shape[0]
            own: Tensor = features.view(len(features), self.given.shape[0], *self.sides, each)  # entry by entry
            return own.movedim(-1, 2).flatten(1, 2)
        return features.view(len(features), self.channels, 1, 1).expand(-1, -1, *self.sides)


def joined(x: Tensor, more: Tensor | None) -> Tensor:
    """``more`` after the features of ``x``, which is flattened, or after its channels; x alone for None."""
    if more is None:
        return x
    return torch.cat([x.flatten(1) if more.ndim == 2 else x, more.to(x.dtype)], 1)
