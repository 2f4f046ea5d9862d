"""A training step of `ffjord` against a torchdiffeq script of the form of the paper, with the same network and weights.

The script has the concatsquash layers of our model, softplus between them, Hutchinson's estimate by a vector-Jacobian
product of autograd, one vector of signs for a solve, and the adjoint equation with dopri5 at tolerance 1e-5 (Grathwohl
et al. 2019). Ours is timed with the same solver, and with its default for training, 8 steps of the Runge–Kutta method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchdiffeq import odeint_adjoint

from benchmarks.harness import Several, as_fit, interleave, training_step
from unsup.core.batch import Batch
from unsup.core.event import Event, Support
from unsup.families.flows.ffjord import FFJORD

DIMS, HIDDEN, BATCH, TOLERANCE = 43, (256, 256), 512, 1e-5
ROUNDS, WARM_UP = 20, 2

Work = Callable[[], object]


class ConcatSquash(nn.Module):
    """(W h + b) ⊙ σ(u t + c) + v t."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.gate = nn.Linear(inputs, outputs), nn.Linear(1, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        time = t.view(1, 1)
        return self.linear(h) * self.gate(time).sigmoid() + self.shift(time)


class Script(nn.Module):
    """The right-hand side of the joint equation of y and its log-density, as in the code of the paper."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (DIMS, *HIDDEN, DIMS)
        self.layers = nn.ModuleList(ConcatSquash(a, b) for a, b in pairwise(sizes))
        self.signs = torch.zeros(0)

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y = state[0]
        with torch.enable_grad():
            y = y.requires_grad_()
            h = y
            for number, layer in enumerate(self.layers):
                h = layer(t, h if number == 0 else softplus(h))
            (product,) = torch.autograd.grad(h, y, self.signs, create_graph=True)
        return h, (product * self.signs).sum(1)

    def loss(self, x: Tensor) -> Tensor:
        self.signs = torch.randint(0, 2, x.shape).to(x.dtype) * 2 - 1
        times, state = x.new_tensor([0.0, 1.0]), (x, x.new_zeros(len(x)))
        y, trace = odeint_adjoint(self, state, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
        log_base = torch.distributions.Normal(0.0, 1.0).log_prob(y[-1]).sum(1)
        return -(log_base + trace[-1]).mean()


def same_networks() -> tuple[FFJORD, Script]:
    """Our model with dopri5, and the script, with equal parameters."""
    torch.manual_seed(0)
    model = FFJORD(Event((DIMS,), Support("real")), hidden=HIDDEN, solver="dopri5", tolerance=TOLERANCE)
    script = Script()
    with torch.no_grad():
        for own, other in zip(script.parameters(), model.parameters(), strict=True):
            own.copy_(other)
    return model, script


def ffjord_training() -> Several:
    """The same arithmetic for all: PyTorch's default kernels."""
    return _measured("FFJORD training step", "", lambda step: step)


def ffjord_training_as_fit() -> Several:
    """Ours as `unsup.fit` runs it, with the faster float32 kernels where they keep float32's digits."""

    return _measured("FFJORD step in `unsup.fit`", "; ours with the kernels that `unsup.fit` chooses", as_fit)


def _measured(title: str, remark: str, way: Callable[[Work], Work]) -> Several:
    """Two rows, for the solver of the script and for our default."""
    x = torch.randn(BATCH, DIMS, generator=torch.Generator().manual_seed(0))
    model, script = same_networks()
    default = FFJORD(model.event, hidden=HIDDEN)
    default.load_state_dict(model.state_dict())
    count = sum(p.numel() for p in script.parameters())
    assert count == sum(p.numel() for p in model.parameters())
    other = f"torchdiffeq script, dopri5 at 1e-5, {count:,} parameters"
    note = f"{DIMS} dimensions, hidden {HIDDEN}, batch {BATCH}, one equation, same network and parameters{remark}"
    return Several(
        [
            interleave(
                f"{title}, {solver}",
                way(_our_step(own, x)),
                {other: _their_step(copy.deepcopy(script), x)},
                rounds=ROUNDS,
                target="≥ 1.5×",
                note=note,
                warmup=WARM_UP,
            )
            for solver, own in (("dopri5 at 1e-5", model), ("8 steps of rk4 (our default)", default))
        ]
    )


def _our_step(model: FFJORD, x: Tensor) -> Work:
    return training_step(_optimizer(model), lambda: model.loss(Batch(x))["loss"].mean())


def _their_step(script: Script, x: Tensor) -> Work:
    return training_step(_optimizer(script), lambda: script.loss(x))


def _optimizer(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
