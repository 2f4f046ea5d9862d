"""Continuous steps of flows: the solution of a differential equation, and the integral of the trace of its Jacobian.

    dy/dt = f(y, t),  log|det ∂y(1)/∂y(0)| = ∫₀¹ tr ∂f/∂y dt

(Chen, Rubanova, Bettencourt, Duvenaud 2018, https://arxiv.org/abs/1806.07366). The trace is exact for few entries, and
otherwise Hutchinson's estimate εᵀ (∂f/∂y) ε with random signs ε, the same ones during a solve (Grathwohl et al. 2019,
https://arxiv.org/abs/1810.01367). Networks return J ε beside f, by the chain rule forwards through their layers: so a
trace costs as much as f, and its gradient needs no second derivatives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import linear, softplus

from unsup.nn.invertible import Smooth
from unsup.nn.traces import current_probes, few_at_once, jacobian, random_signs, unit_vectors
from unsup.prob.distributions import at_least_float32

ActivationName = Literal["softplus", "tanh"]
SolverName = Literal["rk4", "dopri5"]
_TIGHT = {torch.float64: (1e-11, "dopri8"), torch.float32: (1e-6, "dopri5")}
"""Tolerance of solutions outside training, and the method that needs the fewest evaluations for it."""
_HALF_TOLERANCE = 1e-3  # with networks in half precision, whose rounding a smaller tolerance would follow
_CODING_STEPS = 16  # of equal length, so that an example does not depend on the others
_JACOBIAN_STEPS = 8  # fewer: each needs derivatives along many directions


class Dynamics(nn.Module, ABC):
    """f(y, t), with its derivatives along given directions.

    Attributes:
        reach: pixels of f depend on those of y at most so far away; None: on all entries.
    """

    reach: int | None = None

    @abstractmethod
    def forward(self, y: Tensor, directions: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """f and its directional derivatives.

        Args:
            y: ``(B, *shape)``.
            directions: ``(B, k, *shape)``.
            told: time and features of the condition, ``(B, 1 + F)``, or one row for all examples.

        Returns:
            f ``(B, *shape)``, and J v of each direction ``(B, k, *shape)``.
        """


class _Squash(nn.Module):
    """y = (W h + b) ⊙ σ(U c) + V c, for time and condition c ("concatsquash" in the code of FFJORD)."""

    def __init__(self, linear: nn.Linear | nn.Conv2d, told: int) -> None:
        super().__init__()
        outputs = linear.weight.shape[0]
        self.linear = linear
        self.gate, self.shift = nn.Linear(told, outputs), nn.Linear(told, outputs, bias=False)

    def forward(self, h: Tensor, tangents: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        more = (1,) * (h.ndim - 2)
        gate, shift = self.gate(told).sigmoid(), self.shift(told)
        gate, shift = gate.view(*gate.shape, *more), shift.view(*shift.shape, *more)
        weighted = self._without_bias(tangents.flatten(0, 1)).view(*tangents.shape[:2], gate.shape[1], *h.shape[2:])
        return self.linear(h) * gate + shift, weighted * gate[:, None]

    def _without_bias(self, h: Tensor) -> Tensor:
        if isinstance(self.linear, nn.Linear):
            return nn.functional.linear(h, self.linear.weight)
        return nn.functional.conv2d(h, self.linear.weight, padding="same")


class Layers(Dynamics):
    """Layers with activations between them, of vectors or of images.

    Args:
        layers: linear layers, or convolutions with padding ``same``.
        context: number of features of the condition.
        activation: between layers.
    """

    def __init__(self, layers: Sequence[nn.Linear | nn.Conv2d], context: int, activation: ActivationName) -> None:
        super().__init__()
        self.activation = activation
        self.layers = nn.ModuleList(_Squash(layer, 1 + context) for layer in layers)
        kernels = [max(layer.kernel_size) for layer in layers if isinstance(layer, nn.Conv2d)]
        self.reach = sum(kernel // 2 for kernel in kernels) if len(kernels) == len(layers) else None

    def forward(self, y: Tensor, directions: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        dtype = cast(_Squash, self.layers[0]).linear.weight.dtype
        h, tangents, told = y.to(dtype), directions.to(dtype), told.to(dtype)
        if len(told) == 1 and h.ndim == 2:
            return self._stacked(h, tangents, told)
        return self.separately(h, tangents, told)

    def separately(self, h: Tensor, tangents: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` layer by layer, for any layers and conditions: the slow reference."""
        for number, layer in enumerate(self.layers):
            h, tangents = layer(h, tangents, told)
            if number < len(self.layers) - 1:
                if self.activation == "tanh":
                    h = h.tanh()
                    slope = 1 - h.square()
                else:
                    h, slope = softplus(h), h.sigmoid()
                tangents = tangents * slope[:, None]
        return at_least_float32(h), at_least_float32(tangents)

    def _stacked(self, h: Tensor, tangents: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """The same of vectors at one time: values and tangents in one product, with gates in the weights."""
        rows = torch.cat([h[None], tangents.movedim(1, 0)])  # (1 + k, B, D)
        for number, layer in enumerate(cast(Iterable[_Squash], self.layers)):
            gate, shift = layer.gate(told).sigmoid().squeeze(0), layer.shift(told).squeeze(0)
            weight, bias = layer.linear.weight * gate[:, None], cast(Tensor, layer.linear.bias) * gate + shift
            rows = linear(rows.flatten(0, 1), weight).view(*rows.shape[:2], -1)
            if number < len(self.layers) - 1:
                rows = cast(Tensor, _Activated.apply(rows, bias, self.activation))
        return at_least_float32(rows[0] + bias), at_least_float32(rows[1:].movedim(0, 1))


class _Activated(Function):
    """a(h + b) and a′(h + b) v of a stack of values h and tangents v, ``(1 + k, B, D)``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, bias: Tensor, activation: ActivationName) -> Tensor:
        found, h = torch.empty_like(rows), rows[0] + bias
        if activation == "tanh":
            torch.tanh(h, out=found[0])
            slope = 1 - found[0].square()
        else:
            found[0] = softplus(h)
            slope = h.sigmoid()
        torch.mul(rows[1:], slope, out=found[1:])
        ctx.save_for_backward(rows, bias, found, slope)
        ctx.activation = activation
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, bias, found, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives
            h = rows[0] + bias
            found = h.tanh() if ctx.activation == "tanh" else softplus(h)
            slope = 1 - found.square() if ctx.activation == "tanh" else h.sigmoid()
            curved = -2 * found * slope if ctx.activation == "tanh" else slope * (1 - slope)
            to_h = gradient[0] * slope + (gradient[1:] * rows[1:]).sum(0) * curved
            return torch.cat([to_h[None], gradient[1:] * slope]), to_h.sum(0), None
        to_rows = torch.mul(gradient, slope)
        if len(rows) > 1:
            bent = gradient[1] * rows[1] if len(rows) == 2 else (gradient[1:] * rows[1:]).sum(0)
            bent.mul_(slope)
            if ctx.activation == "tanh":
                to_rows[0].addcmul_(bent, found[0], value=-2)
            else:
                to_rows[0].addcmul_(bent, 1 - slope)
        return to_rows, to_rows[0].sum(0), None


class ODE(Smooth):
    """y(1) of y(0) = x.

    Args:
        dynamics: f.
        exact: whether traces are always exact, by D directions. Otherwise they are estimated by one random direction
            inside `traces`, which says how.
        solver: in training: ``rk4``, with so many steps of equal length, or ``dopri5``, whose steps adapt to the
            tolerance; the gradient is then that of the adjoint equation. Outside training, the tolerance is small.
        steps: of ``rk4``.
        tolerance: absolute and relative, of ``dopri5`` in training.
    """

    def __init__(
        self, dynamics: Dynamics, *, exact: bool, solver: SolverName = "rk4", steps: int = 8, tolerance: float = 1e-5
    ) -> None:
        super().__init__()
        self.dynamics, self.exact = dynamics, exact
        self.solver, self.steps, self.tolerance = solver, steps, tolerance

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_det = self._solve(x, context, backwards=False)
        assert log_det is not None
        return y, log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self._solve(y, context, backwards=True)[0]

    def value(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._in_equal_steps(x, context, backwards=False)

    def preimage(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Equal steps backwards are not the exact inverse of those forwards: their error is subtracted once."""
        x = self._in_equal_steps(y, context, backwards=True)
        return self._in_equal_steps(2 * y - self.value(x, context), context, backwards=True)

    def jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """By the equation dJ/dt = A J, A = ∂f/∂y, with steps of Runge and Kutta's method."""
        times = torch.linspace(0, 1, 2 * _JACOBIAN_STEPS + 1, dtype=x.dtype, device=x.device)
        along = self._along(x, context, times)

        def derivative(number: int) -> Tensor:
            y, told = along[number], _told(times[number], x, context)
            return jacobian(lambda v: self.dynamics(y, v, told)[1].to(x.dtype), y, self.dynamics.reach)

        h, dims = 1 / _JACOBIAN_STEPS, x[0].numel()
        found = torch.eye(dims, dtype=x.dtype, device=x.device).expand(len(x), dims, dims)
        start = derivative(0)
        for step in range(_JACOBIAN_STEPS):
            middle, end = derivative(2 * step + 1), derivative(2 * step + 2)
            first = start @ found
            second = middle @ (found + h / 2 * first)
            third = middle @ (found + h / 2 * second)
            fourth = end @ (found + h * third)
            found = found + h / 6 * (first + 2 * second + 2 * third + fourth)
            start = end
        return found

    def _in_equal_steps(self, x: Tensor, context: Tensor | None, *, backwards: bool) -> Tensor:
        return self._along(x, context, x.new_tensor([1.0, 0.0] if backwards else [0.0, 1.0]))[-1]

    def _along(self, x: Tensor, context: Tensor | None, times: Tensor) -> Tensor:
        """The solution of y = ``x`` at the first time at all times, by steps of equal length."""
        from torchdiffeq import odeint

        def field(t: Tensor, y: Tensor) -> Tensor:
            value, _ = self.dynamics(y, y.new_zeros(len(y), 0, *y.shape[1:]), _told(t, y, context))
            return value.to(y.dtype)

        found: Tensor = odeint(field, x, times, method="rk4", options={"step_size": 1 / _CODING_STEPS})
        return found

    def _directions(self, x: Tensor) -> Tensor:
        """``(B, k, *shape)``: all unit vectors, signs, or nothing."""
        probes = current_probes()
        if probes.way == "none":
            return x.new_zeros(len(x), 0, *x.shape[1:])
        if self.exact or probes.way == "exact":
            return unit_vectors(x)
        return random_signs(x, probes.generator)[:, None]

    def _solve(self, x: Tensor, context: Tensor | None, *, backwards: bool) -> tuple[Tensor, Tensor | None]:
        from torchdiffeq import odeint, odeint_adjoint

        if not len(x):
            return x, x.new_zeros(0)
        directions = x.new_zeros(len(x), 0, *x.shape[1:]) if backwards else self._directions(x)
        field = _Field(self.dynamics, directions, context)
        times = x.new_tensor([1.0, 0.0] if backwards else [0.0, 1.0])
        state = (x, x.new_zeros(len(x)))
        if self.training and torch.is_grad_enabled():
            if self.solver == "rk4":
                found = odeint(field, state, times, method="rk4", options={"step_size": 1 / self.steps})
            else:
                told = [] if context is None or not context.requires_grad else [context]
                parameters = (*self.dynamics.parameters(), *told)
                settings = {"rtol": self.tolerance, "atol": self.tolerance, "method": "dopri5"}
                found = odeint_adjoint(field, state, times, adjoint_params=parameters, **settings)
        else:
            tolerance, method = _TIGHT[x.dtype]
            if next(self.dynamics.parameters()).dtype in (torch.float16, torch.bfloat16):
                tolerance = _HALF_TOLERANCE
            # The last step ends at the last time; otherwise the solution is interpolated there, with a larger error.
            options: dict[str, Any] = {"step_t": times[-1:]}
            found = odeint(field, state, times, rtol=tolerance, atol=tolerance, method=method, options=options)
        return found[0][-1], found[1][-1]


class _Field(nn.Module):
    """The right-hand side of the joint equation of y and log-determinant, for a solver."""

    def __init__(self, dynamics: Dynamics, directions: Tensor, context: Tensor | None) -> None:
        super().__init__()
        self.dynamics, self.directions, self.context = dynamics, directions, context

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, _ = state
        told = _told(t, y, self.context)
        trace = y.new_zeros(len(y))
        for part in few_at_once(self.directions):
            value, along = self.dynamics(y, part, told)
            trace = trace + (along * part).flatten(1).sum(1).to(y.dtype)
        return value.to(y.dtype), trace


def _told(t: Tensor, y: Tensor, context: Tensor | None) -> Tensor:
    """Time and features of the condition: ``(B, 1 + F)``, or one row for all examples."""
    told = t.to(y.dtype).view(1, 1)
    return told if context is None else torch.cat([told.expand(len(y), 1), context.to(y.dtype)], 1)
