"""Examples encoded and decoded again, and paths between examples through the codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.model import CanDecode, IsFlow, Model
from unsup.data.source import Split
from unsup.evaluate.conditions import batches, beside

_AT_ONCE = 200


@torch.no_grad()
def reconstruct(model: Model, x: Tensor | Split | Batch) -> Tensor:
    """Raw examples ``(N, *event.shape)``, encoded and decoded again, both given what goes with them.

    Raises:
        InputError: the model does not decode.
    """
    found = []
    for part in (batch.to(model.device) for batch in batches(x, _AT_ONCE)):
        condition = beside(model, part.given)
        decoder = _decoder(model)
        found.append(decoder.decode(decoder.encode(part.x, **condition), **condition).cpu())
    return torch.cat(found)


@torch.no_grad()
def interpolate(model: Model, a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Paths from examples ``a`` to ``b``, both ``(R, *event.shape)``, through the codes: ``(R, steps, *event.shape)``.

    Straight in general. Of a flow whose base is N(0, I) the paths are spherical: codes of data lie near the sphere of
    radius √F, and a straight path between two of them passes through its inside, where no data is encoded (White 2016,
    https://arxiv.org/abs/1609.04468). The angle and the norm then change evenly.

    Raises:
        InputError: the model does not decode, or ``steps`` is below 2.
    """
    if steps < 2:
        raise InputError(f"steps={steps} given; expected 2 or more, for the two ends")
    if len(a) != len(b):
        raise InputError(f"{len(a)} starts and {len(b)} ends given; expected as many")
    start, end = (_codes(model, x) for x in (a, b))
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    spherical = isinstance(model, IsFlow) and torch.allclose(
        model.base_log_prob(start), IsFlow.base_log_prob(model, start)
    )
    path = spherical_path if spherical else straight_path
    codes = torch.stack([path(one, other, t) for one, other in zip(start, end, strict=True)])
    return _decoded(model, codes.flatten(0, 1)).unflatten(0, (len(a), steps))


def straight_path(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(1 − t) a + t b: ``(F,)``, ``(F,)``, ``(S, 1)`` → ``(S, F)``."""
    return (1 - t) * a + t * b


def spherical_path(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """From a to b on their great circle, the norm linear in t; straight where they are parallel or opposite.

    >>> t = torch.tensor([[0.0], [0.5], [1.0]])
    >>> [round(float(z.norm()), 4) for z in spherical_path(torch.tensor([3.0, 0]), torch.tensor([0.0, 3]), t)]
    [3.0, 3.0, 3.0]
    """
    norms = a.norm(), b.norm()
    if not (norms[0] > 0 and norms[1] > 0):
        return straight_path(a, b, t)
    one, other = a / norms[0], b / norms[1]
    angle = math.acos(max(-1.0, min(1.0, float(one @ other))))
    if min(angle, math.pi - angle) < 1e-3:
        return straight_path(a, b, t)
    direction = (((1 - t) * angle).sin() * one + (t * angle).sin() * other) / math.sin(angle)
    return straight_path(norms[0], norms[1], t) * direction


def _codes(model: Model, x: Tensor) -> Tensor:
    return _decoder(model).encode(x.to(model.device))


def _decoded(model: Model, z: Tensor) -> Tensor:
    return torch.cat([_decoder(model).decode(part).cpu() for part in z.split(_AT_ONCE)])


def _decoder(model: Model) -> CanDecode:
    if not isinstance(model, CanDecode):
        raise InputError(
            f"{type(model).__name__} does not decode; reconstructions need a model that does (unsup models)"
        )
    return model
