"""Reconstructions, paths between examples through their codes, and the errors of translations and of colours."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError, InputError
from unsup.core.model import CanDecode, Colours, IsFlow, Model, Translates
from unsup.data.source import Split
from unsup.evaluate.conditions import beside, by_chunks, over_examples
from unsup.evaluate.estimate import make_figure
from unsup.evaluate.records import Figure

_AT_ONCE = 200
_COLOURS_OF = 5000  # training pictures of which the mean colour is computed


def reconstruct(model: Model, x: Tensor | Split | Batch) -> Tensor:
    """Encode and decode raw examples ``(N, *event.shape)``, given their conditions.

    Raises:
        InputError: the model does not decode.
    """
    decoder = _decoder(model)

    def decoded(position: int, batch: Batch) -> Tensor:
        condition = beside(model, batch.given)
        return decoder.decode(decoder.encode(batch.x, **condition), **condition)

    return over_examples(model, x, _AT_ONCE, decoded)


@torch.no_grad()
def interpolate(model: Model, a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Paths from examples ``a`` to ``b``, both ``(R, *event.shape)``, through the codes: ``(R, steps, *event.shape)``.

    Paths are straight in general. For a flow with base N(0, I) they are spherical: codes of data are near the sphere of
    radius √F, and a straight path would pass through its inside, where no data is encoded (White 2016,
    https://arxiv.org/abs/1609.04468). Angle and norm then change linearly.

    Raises:
        InputError: the model does not decode, ``steps`` is below 2, or ``a`` and ``b`` have different lengths.
    """
    if steps < 2:
        raise InputError(f"steps={steps} given; expected 2 or more, for the two ends")
    if len(a) != len(b):
        raise InputError(f"{len(a)} starts and {len(b)} ends given; expected equal numbers")
    decoder = _decoder(model)
    start, end = (decoder.encode(x.to(model.device)) for x in (a, b))
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    spherical = isinstance(model, IsFlow) and torch.allclose(
        model.base_log_prob(start), IsFlow.base_log_prob(model, start)
    )
    path = spherical_path if spherical else torch.lerp
    codes = torch.cat([path(one, other, t) for one, other in zip(start, end, strict=True)])
    return torch.cat([decoder.decode(part).cpu() for part in codes.split(_AT_ONCE)]).unflatten(0, (len(a), steps))


def spherical_path(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b on their great circle, the norm linear in t: ``(F,)``, ``(F,)``, ``(S, 1)`` → ``(S, F)``.

    Straight if a and b are parallel or opposite, or one is 0.

    >>> t = torch.tensor([[0.0], [0.5], [1.0]])
    >>> [round(float(z.norm()), 4) for z in spherical_path(torch.tensor([3.0, 0]), torch.tensor([0.0, 3]), t)]
    [3.0, 3.0, 3.0]
    """
    norms = a.norm(), b.norm()
    if not (norms[0] > 0 and norms[1] > 0):
        return torch.lerp(a, b, t)
    one, other = a / norms[0], b / norms[1]
    angle = math.acos(max(-1.0, min(1.0, float(one @ other))))
    if min(angle, math.pi - angle) < 1e-3:
        return torch.lerp(a, b, t)
    direction = (((1 - t) * angle).sin() * one + (t * angle).sin() * other) / math.sin(angle)
    return torch.lerp(norms[0], norms[1], t) * direction


def _decoder(model: Model) -> CanDecode:
    if not isinstance(model, CanDecode):
        raise InputError(f"{type(model).__name__} does not decode; unsup models lists models that do")
    return model


def translation_error(model: Model, x: Tensor, target: Tensor, *, to: Literal["a", "b"]) -> Figure:
    """The mean absolute difference per entry of ``model.translate(x, to=to)`` and the true translations, in raw units.

    Args:
        x: raw examples ``(N, *event.shape)``.
        target: the true translation of each example, of the same shape.
        to: the domain of ``target``.

    Returns:
        The error, with its standard error over examples. The floor is the error of the examples themselves, without a
        translation; the detail ``share`` is the error relative to it.

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

    error, identity = by_chunks(model, len(x), _AT_ONCE, errors).unbind(1)
    spread = float(error.std(correction=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    found, floor = float(error.mean()), float(identity.mean())
    return make_figure(found, len(x), error=spread, floor=floor, share=found / floor)


@torch.no_grad()
def colour_error(model: Model, x: Tensor, known: Tensor) -> Figure:
    """The mean distance in ab of CIE Lab, over pixels, of colours that are predicted for grey pictures and true ones.

    Args:
        x: raw colour pictures ``(N, 3, H, W)``; the model sees them as grey pictures.
        known: raw training pictures, of which at most 5,000 are used.

    Returns:
        The error, with its standard error over pictures. The floor is the error of one colour for all pixels, the mean
        of a and b in training pictures; the detail ``share`` is the error relative to it.

    Raises:
        CapabilityError: the model does not colour pictures.
        InputError: no pictures.
    """
    if not isinstance(model, Colours):
        raise CapabilityError(f"{type(model).__name__} does not colour pictures; use colorization")
    if not len(x) or not len(known):
        raise InputError(f"{len(x)} pictures and {len(known)} training pictures given; expected one or more")
    painter = model

    def chromaticity(pictures: Tensor) -> Tensor:
        return painter.chromaticity(pictures).double().cpu()

    known = known[:_COLOURS_OF]
    mean = sum(chromaticity(part.to(model.device)).mean((2, 3)).sum(0) for part in known.split(_AT_ONCE)) / len(known)
    constant = torch.as_tensor(mean)[:, None, None]

    def errors(position: int, rows: slice) -> Tensor:
        own = x[rows].to(model.device)
        true, found = chromaticity(own), chromaticity(painter.translate(painter.translate(own, to="a"), to="b"))
        return torch.stack([(v - true).norm(dim=1).flatten(1).mean(1) for v in (found, constant)], 1)

    error, floor = by_chunks(model, len(x), _AT_ONCE, errors).unbind(1)
    spread = float(error.std(correction=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    value, least = float(error.mean()), float(floor.mean())
    return make_figure(value, len(x), error=spread, floor=least, **({"share": value / least} if least else {}))
