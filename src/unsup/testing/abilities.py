"""The abilities in the registry, and the corresponding capabilities of models."""

from __future__ import annotations

from collections.abc import Mapping

from unsup.core.model import (
    CanComplete,
    CanDecode,
    CanEncode,
    CanSample,
    Classifies,
    CodesByLatents,
    CodesEntries,
    HasDensity,
    HasEnergy,
    HasScore,
    IsConditional,
    IsFlow,
    Model,
    Translates,
    knobs,
)

ABILITIES: Mapping[str, type | tuple[type, ...]] = {
    "score": HasDensity,
    "sample": CanSample,
    "encode": CanEncode,
    "decode": CanDecode,
    "complete": CanComplete,
    "compress": (CodesEntries, CodesByLatents),
    "condition": IsConditional,
    "energy": HasEnergy,
    "gradient": HasScore,
    "predict": Classifies,
    "translate": Translates,
}
WORDS = ("score", "sample", "temper", *(word for word in ABILITIES if word not in ("score", "sample")))
"""The abilities in the registry: those of capabilities, and ``temper``, a sampling option."""


def abilities_of(cls: type[Model]) -> tuple[str, ...]:
    """The abilities of a model class, by its capabilities.

    >>> from unsup.core.registry import model_class
    >>> abilities_of(model_class("made"))
    ('score', 'sample', 'temper', 'complete', 'compress')
    """
    earned = {word for word, capability in ABILITIES.items() if issubclass(cls, capability)}
    if issubclass(cls, IsFlow) and cls.in_integers:
        earned.add("compress")
    if "temperature" in knobs(cls):
        earned.add("temper")
    return tuple(word for word in WORDS if word in earned)
