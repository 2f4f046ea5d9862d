"""How far translations lie from the true ones, where these are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unsup.core.errors import CapabilityError, InputError
from unsup.core.machine import fast_cpu
from unsup.core.model import Model, Translates
from unsup.evaluate.likelihood import CHUNK


@dataclass(frozen=True)
class TranslationError:
    """Mean absolute differences per entry, in raw units.

    Attributes:
        error: of the model's translations from the true ones.
        identity: of the examples themselves from the true translations: what doing nothing costs.
        standard_error: of ``error``, over examples.
        n: examples.
    """

    error: float
    identity: float
    standard_error: float
    n: int

    @property
    def share(self) -> float:
        """The error as a share of that of doing nothing."""
        return self.error / self.identity


@torch.no_grad()
def translation_error(model: Model, x: Tensor, target: Tensor, *, to: Literal["a", "b"]) -> TranslationError:
    """How far ``model.translate(x, to=to)`` lies from the true translations.

    Args:
        x: raw examples ``(N, *event.shape)``.
        target: the true translation of each, the same shape.
        to: the domain of ``target``.

    Raises:
        CapabilityError: the model does not translate.
        InputError: not as many targets as examples, or none.
    """
    if not isinstance(model, Translates):
        raise CapabilityError(f"{type(model).__name__} does not translate (unsup models tells who can)")
    if x.shape != target.shape or not len(x):
        raise InputError(
            f"x has shape {tuple(x.shape)} and target {tuple(target.shape)}; expected one target an example"
        )
    was_training = model.training
    model.eval()
    errors, identity = [], 0.0
    with fast_cpu(model.device):
        for given, true in zip(x.split(CHUNK), target.split(CHUNK), strict=True):
            found = model.translate(given.to(model.device), to=to).cpu().double()
            errors.append((found - true.double()).abs().flatten(1).mean(1))
            identity += float((given.double() - true.double()).abs().sum())
    model.train(was_training)
    error = torch.cat(errors)
    spread = float(error.std(correction=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    return TranslationError(float(error.mean()), identity / x.numel(), spread, len(x))
