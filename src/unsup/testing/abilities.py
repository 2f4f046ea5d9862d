"""The words of the registry for what a model can do, and the capabilities that they stand for."""

from __future__ import annotations

from collections.abc import Mapping

from unsup.core.model import (
    CanComplete,
    CanDecode,
    CanEncode,
    CanSample,
    CanTemper,
    HasDensity,
    HasEnergy,
    HasScore,
    IsConditional,
    Model,
    Translates,
)

ABILITIES: Mapping[str, type] = {
    "score": HasDensity,
    "sample": CanSample,
    "temper": CanTemper,
    "encode": CanEncode,
    "decode": CanDecode,
    "complete": CanComplete,
    "condition": IsConditional,
    "energy": HasEnergy,
    "gradient": HasScore,
    "translate": Translates,
}


def abilities_of(cls: type[Model]) -> tuple[str, ...]:
    """The words that a model class has earned by its capabilities.

    >>> from unsup.core.registry import model_class
    >>> abilities_of(model_class("made"))
    ('score', 'sample', 'temper')
    """
    return tuple(word for word, capability in ABILITIES.items() if issubclass(cls, capability))
