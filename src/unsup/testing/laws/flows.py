"""Laws of invertible models, on the whole model from continuous raw data."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from unsup.core.model import IsFlow, Model
from unsup.testing.law import law, require
from unsup.testing.subject import Subject

_MOST_DIMS = 1024


def _is_flow(model: Model) -> bool:
    return isinstance(model, IsFlow)


def _continuous(subject: Subject, n: int) -> Tensor:
    """Examples in float64, with uniform noise on their discrete entries."""
    x = subject.batch.x[:n].double()
    discrete = torch.tensor([s.is_discrete for s in subject.model.event.columns], device=x.device).view(x.shape[1:])
    return x + discrete * torch.rand(x.shape, generator=subject.generator(9), dtype=x.dtype, device=x.device)


@law(
    "inverse",
    "invert(transform(x)) = x to 1e-9 in float64 and 1e-4 in float32, and transform(invert(z)) = z.",
    needs="a flow",
    applies=_is_flow,
)
def inverse(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, IsFlow)
    x = _continuous(subject, 32)
    given = subject.given(len(x))
    with torch.no_grad():
        there, _ = model.transform(x, **given)
        require(there.shape == (len(x), model.event.dims), f"codes have shape {tuple(there.shape)}")
        worst = _round_trip(model, x, given)
        require(worst < 1e-9, f"the error of invert(transform(x)) is {worst:.2g}")
        z = model.draw_base(len(x), generator=subject.generator(2)).to(x.dtype)
        again, _ = model.transform(model.invert(z, **given), **given)
        worst = float((again - z).abs().max())
        # Codes far out are values at the ends of the levels, where the logit loses some digits of x.
        require(worst < 1e-8, f"the error of transform(invert(z)) is {worst:.2g}")
        worst = _round_trip(copy.deepcopy(model).float(), x.float(), given)
        require(worst < 1e-4, f"the error of invert(transform(x)) in float32 is {worst:.2g}")


def _round_trip(model: IsFlow, x: Tensor, given: dict[str, Any]) -> float:
    back = model.invert(model.transform(x, **given)[0], **given)
    return float(((back - x).abs() / (1 + x.abs())).max())


@law(
    "log-determinant",
    "The log-determinant is that of the autograd Jacobian of the whole model.",
    needs=f"a flow of at most {_MOST_DIMS} dimensions",
    applies=lambda model: _is_flow(model) and model.event.dims <= _MOST_DIMS,
)
def log_determinant(subject: Subject) -> None:
    for draw in range(2):
        model = subject.generic(draw)
        assert isinstance(model, IsFlow)
        worst = model.jacobian_check(_continuous(subject, 2), **subject.given(2))
        # slogdet of a D×D matrix in float64 keeps about 16 − log10(D) − log10(condition) digits.
        require(worst < 1e-7, f"log|det dz/dx| differs from that of the autograd Jacobian by {worst:.2g}")


@law(
    "change-of-variables",
    "log p(x) is the base log-density of the code plus the log-determinant.",
    needs="a flow on real data",
    applies=lambda model: isinstance(model, IsFlow) and model.likelihood_kind == "exact",
)
def change_of_variables(subject: Subject) -> None:
    model = subject.generic()
    assert isinstance(model, IsFlow)
    with torch.no_grad():
        x = subject.batch.x.double()
        given = subject.given(len(x))
        z, log_det = model.transform(x, **given)
        gap = model.log_prob(x, **given) - (model.base_log_prob(z) + log_det)
    worst = float(gap.abs().max())
    require(worst < 1e-8 * model.event.dims, f"log p(x) differs from base + log-determinant by {worst:.2g}")
