"""The error of translations whose true results are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import Model, Translates
from unsup.evaluate.conditions import by_chunks
from unsup.evaluate.likelihood import CHUNK


@dataclass(frozen=True)
class TranslationError:
    """Mean absolute differences per entry, in raw units.

    Attributes:
        error: of the model's translations.
        identity: of the examples themselves: the error without a translation.
        standard_error: of ``error``, over examples.
        n: number of examples.
    """

    error: float
    identity: float
    standard_error: float
    n: int

    @property
    def share(self) -> float:
        """The error relative to that without a translation."""
        return self.error / self.identity


def translation_error(model: Model, x: Tensor, target: Tensor, *, to: Literal["a", "b"]) -> TranslationError:
    """Compare ``model.translate(x, to=to)`` with the true translations.

    Args:
        x: raw examples ``(N, *event.shape)``.
        target: the true translation of each example, of the same shape.
        to: the domain of ``target``.

    Raises:
        CapabilityError: the model does not translate.
        InputError: no examples, or ``x`` and ``target`` have different shapes.
    """
    if not isinstance(model, Translates):
        raise CapabilityError(f"{type(model).__name__} does not translate; unsup models lists models that do")
    if x.shape != target.shape or not len(x):
        raise InputError(
            f"x has shape {tuple(x.shape)} and target {tuple(target.shape)}; expected one target per example"
        )
    translator = model

    def errors(position: int, rows: slice) -> Tensor:
        found = translator.translate(x[rows].to(model.device), to=to).cpu()
        return torch.stack([(v.double() - target[rows]).abs().flatten(1).mean(1) for v in (found, x[rows])], 1)

    error, identity = by_chunks(model, len(x), CHUNK, errors).unbind(1)
    spread = float(error.std(correction=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    return TranslationError(float(error.mean()), float(identity.mean()), spread, len(x))
