"""Laws of models that colour grey pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from unsup.core.event import Event
from unsup.core.model import Colours, Model
from unsup.prob.lab import to_lab
from unsup.testing.law import law, require
from unsup.testing.subject import Subject

_EXAMPLES = 8
_ROUNDING = 1e-3  # of L, from 0 to 100


def _lightness(event: Event, x: Tensor, shift: float = 0.0) -> Tensor:
    """L of raw pictures after a shift of all levels."""
    support = event.uniform
    assert support is not None
    return to_lab(((x.double() + shift - support.low) / (support.levels - 1)).clamp(0, 1))[:, 0]


@law(
    "colouring",
    "Pictures without colours have three equal channels; these and coloured pictures have the lightness of the "
    "original, up to the rounding to levels.",
    needs="a model that colours grey pictures",
    applies=lambda model: isinstance(model, Colours),
)
def colouring(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, Model)
    assert isinstance(model, Colours)
    x = subject.x(model)[:_EXAMPLES]
    with torch.no_grad():
        grey, coloured = (model.translate(x, to=to) for to in ("a", "b"))
        require(bool((grey == grey[:, :1]).all()), "the channels of a grey picture differ")
        require(torch.equal(model.translate(grey, to="a"), grey), "a grey picture is not its own grey picture")
        own = _lightness(model.event, x)
        for name, found in (("grey", grey), ("coloured", coloured)):
            low, high = (_lightness(model.event, found, shift) for shift in (-0.5, 0.5))
            worst = float(torch.maximum(low - own, own - high).max())
            require(worst <= _ROUNDING, f"L of a {name} picture is {worst:.3g} farther from its own than by rounding")
        away = float(model.chromaticity(grey).abs().max())
        require(away <= _ROUNDING, f"a or b of a grey picture is {away:.3g}")
