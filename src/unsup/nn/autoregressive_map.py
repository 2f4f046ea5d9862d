"""Autoregressive steps of flows: each entry is transformed with parameters computed from earlier entries.

    y_i = b(x_i; net_i(x_<i)),  log|det ∂y/∂x| = Σ_i log b′

(Papamakarios, Pavlakou, Murray 2017, https://arxiv.org/abs/1705.07057). One pass of a masked network gives y; the
inverse finds one entry after the other. An inverse autoregressive step is the same map in the other direction (Kingma
et al. 2016, https://arxiv.org/abs/1606.04934).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unsup.nn.autoregressor import Steps
from unsup.nn.bijection import Bijection
from unsup.nn.dropout import drops
from unsup.nn.elementwise import Elementwise
from unsup.nn.invertible import Arithmetic, Exact, Invertible
from unsup.nn.masked import MaskedMLP, sequential_degrees
from unsup.prob.distributions import at_least_float32

WIDEST = 3.0
"""Bound of the logarithm of a scale in affine steps: a row far out keeps a finite score in a stack of them."""


class MaskedAutoregressive(Invertible, Exact):
    """y_i = b(x_i; net_i(x_<i)) for vectors ``(B, D)``, in any order of the entries. At first it is that of zeros.

    Args:
        dims: D.
        hidden: units of each hidden layer.
        bijection: b.
        order: position of each entry, from 1, ``(D,)``; None: the natural order.
        context: number of features of the condition.
        residual: see `MaskedMLP`.
        dropout: share of the hidden units that are dropped inside `unsup.nn.dropout.dropping`.

    >>> from unsup.nn.bijection import LogAffine
    >>> step = MaskedAutoregressive(3, (16,), LogAffine())
    >>> x = torch.randn(5, 3)
    >>> y, log_det = step(x)
    >>> y.shape, log_det.shape, torch.equal(step.inverse(y), x)
    (torch.Size([5, 3]), torch.Size([5]), True)
    """

    def __init__(
        self,
        dims: int,
        hidden: tuple[int, ...],
        bijection: Bijection,
        *,
        order: Tensor | None = None,
        context: int = 0,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bijection = bijection
        own = torch.arange(1, dims + 1) if order is None else order
        self.net = MaskedMLP(
            own[None],
            sequential_degrees(dims, hidden, 0 if context else 1),
            outputs=bijection.outputs_each,
            context=context,
            residual=residual,
            dropout=dropout,
        )
        nn.init.zeros_(self.net.top.weight)
        assert self.net.top.bias is not None
        nn.init.zeros_(self.net.top.bias)
        self.sites: list[int] = own.argsort().tolist()

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The parameters of all entries, ``(B, D, outputs_each)``."""
        dtype, (on, generator) = self.net.top.weight.dtype, drops()
        if on and self.net.dropout:
            return at_least_float32(self.net(x.to(dtype), context=context, drops=True, generator=generator))
        return at_least_float32(self.net.by_blocks(x.to(dtype), context=context))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, log_derivative = self.bijection(x, self.outputs(x, context))
        return y, log_derivative.sum(1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """Entry by entry; each unit of the network is computed once, so that all entries cost one pass."""
        with torch.no_grad():
            dtype = self.net.top.weight.dtype
            steps = self.net.begin(len(y), 0, lambda site, value: value.to(dtype)[:, None], context)
            x = torch.empty_like(y)
            for site in self.sites:
                outputs = at_least_float32(steps.outputs(site))[:, None]
                x[:, site] = self.bijection.inverse(y[:, site : site + 1], outputs)[:, 0]
                steps.put(site, x[:, site])
        return self._differentiable(x, y, context)

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        """From the last entry to the first: each depends on earlier ones, which have not changed yet.

        The network is evaluated entry by entry, as in the inverse, so that both compute the same numbers.
        """
        y, outputs = x.clone(), self.exact_outputs(x, arithmetic, context)
        for site in reversed(self.sites):
            y[:, site : site + 1] = self.bijection.exactly(x[:, site : site + 1], outputs[site], arithmetic)
        return y

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        x, walk = torch.empty_like(y), _ExactWalk(self, y, arithmetic, context)
        for site in self.sites:
            own = self.bijection.exactly_inverse(y[:, site : site + 1], walk.outputs(site), arithmetic)
            x[:, site : site + 1] = own
            walk.put(site, own)
        return x

    def exact_outputs(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None) -> list[Tensor]:
        """The parameters of the entries of fixed-point numbers, ``(B, 1, outputs_each)`` each."""
        walk, found = _ExactWalk(self, x, arithmetic, context), dict[int, Tensor]()
        for site in self.sites:
            found[site] = walk.outputs(site)
            walk.put(site, x[:, site : site + 1])
        return [found[site] for site in range(len(found))]

    def naive_inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The same by a full pass for each entry: the slow reference."""
        x = torch.zeros_like(y)
        for _ in self.sites:
            x = self.bijection.inverse(y, self.outputs(x, context))
        return x

    def _differentiable(self, x: Tensor, y: Tensor, context: Tensor | None) -> Tensor:
        """x with the gradient of the inverse with respect to ``y``, the context and the parameters.

        x is the fixed point of g(x) = b⁻¹(y; net(x)), whose Jacobian N is strictly triangular in the order: a gradient
        v at x becomes (I − Nᵀ)⁻¹ v = v + Nᵀ v + … at g, with at most D terms.
        """
        inputs = [y, *([] if context is None else [context]), *self.parameters()]
        if not torch.is_grad_enabled() or not any(t.requires_grad for t in inputs):
            return x
        found = self.bijection.inverse(y, self.outputs(x, context))
        fixed = x.requires_grad_()
        again = self.bijection.inverse(y.detach(), self.outputs(fixed, context))

        def solved(gradient: Tensor) -> Tensor:
            total, term = gradient, gradient
            for _ in range(y.shape[1] - 1):
                (term,) = torch.autograd.grad(again, fixed, term, retain_graph=True)
                if not bool(term.any()):
                    break
                total = total + term
            return total

        found.register_hook(solved)
        return found


def autoregressive_step(
    dims: int,
    hidden: tuple[int, ...],
    bijection: Bijection,
    *,
    context: int = 0,
    residual: bool = False,
    dropout: float = 0.0,
) -> MaskedAutoregressive | Elementwise:
    """A `MaskedAutoregressive` step; one entry without a condition depends on nothing, and needs no network."""
    if dims == 1 and not context:
        return Elementwise(dims, bijection)
    return MaskedAutoregressive(dims, hidden, bijection, context=context, residual=residual, dropout=dropout)


class InverseAutoregressive(Invertible, Exact):
    """The inverse of an autoregressive step as a step: `inverse` is one pass, and `forward` goes entry by entry."""

    def __init__(self, step: MaskedAutoregressive) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.step.inverse(x, context)
        _, log_det = self.step(y, context)
        return y, -log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        x: Tensor = self.step(y, context)[0]
        return x

    def exactly(self, x: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        y, walk, bijection = torch.empty_like(x), _ExactWalk(self.step, x, arithmetic, context), self.step.bijection
        for site in self.step.sites:
            own = bijection.exactly(x[:, site : site + 1], walk.outputs(site), arithmetic, turned=True)
            y[:, site : site + 1] = own
            walk.put(site, own)
        return y

    def exactly_inverse(self, y: Tensor, arithmetic: Arithmetic, context: Tensor | None = None) -> Tensor:
        x, outputs = y.clone(), self.step.exact_outputs(y, arithmetic, context)
        for site in reversed(self.step.sites):
            own = y[:, site : site + 1]
            x[:, site : site + 1] = self.step.bijection.exactly_inverse(own, outputs[site], arithmetic, turned=True)
        return x


class _ExactWalk:
    """The network of a step, entry by entry, with fixed-point numbers of the shape of ``like``."""

    def __init__(
        self, step: MaskedAutoregressive, like: Tensor, arithmetic: Arithmetic, context: Tensor | None
    ) -> None:
        self.arithmetic, dtype = arithmetic, step.net.top.weight.dtype
        n = len(arithmetic.real(like[:, :1]))
        self.steps: Steps = step.net.begin(n, 0, lambda site, value: value.to(dtype)[:, None], context)

    def outputs(self, site: int) -> Tensor:
        """The parameters of an entry, ``(B, 1, outputs_each)``."""
        return at_least_float32(self.steps.outputs(site))[:, None]

    def put(self, site: int, value: Tensor) -> None:
        """The next entry is known, ``(B, 1)``."""
        self.steps.put(site, self.arithmetic.real(value)[:, 0])
