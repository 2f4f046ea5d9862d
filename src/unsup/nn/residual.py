"""Residual steps of flows: y = x + g(x) with a network g whose Lipschitz constant is below 1.

The inverse is the fixed point of x ↦ y − g(x) (Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen 2019,
https://arxiv.org/abs/1811.00995), and log|det ∂y/∂x| = log det(I + J), J = ∂g/∂x, is exact for few entries and an
unbiased estimate otherwise (Chen et al. 2019, https://arxiv.org/abs/1906.02735), see `unsup.prob.roulette`.

All layers of g have a spectral norm of at most 0.98, and activations a slope of at most 1. Networks return their slopes
beside g, so that a product J v is one more pass of linear layers, and its gradient needs no second derivatives.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, linear, softplus

from unsup.core import random
from unsup.nn.invertible import Smooth
from unsup.nn.traces import current_probes, jacobian, random_signs
from unsup.prob.distributions import at_least_float32
from unsup.prob.roulette import geometric, log_det_by_neumann, log_det_series, roulette_weights, roulette_weights_each
from unsup.prob.spectrum import top_singular_vectors

COEFFICIENT = 0.98
"""The largest spectral norm of a layer."""
TRAINING_TERMS, SCORING_TERMS = 2, 20
"""Terms of the series that are always computed: in training, and elsewhere."""
_TRAINING_TOLERANCE, _TRAINING_POWERS = 1e-3, 3  # of squared spectral norms, relative; see `top_singular_vectors`
_TIGHT, _POWERS = {torch.float32: 1e-6, torch.float64: 1e-13}, 16
"""Elsewhere; the tolerance is also that of fixed points."""
_MORE_ITERATIONS = 8  # after those of `inverse`, so that what is left of its error is a rounding error
_MOST_ITERATIONS = 2000  # of fixed points: 0.98^2000 < 1e-17


class Lipschitz(nn.Module, ABC):
    """W h + b, with W = V · min(1, 0.98 / σ(V)) for the largest singular value σ of the linear map V.

    σ = uᵀ V v from Lanczos' method, until σ² changes by less than a tolerance: 1e-3 in training, elsewhere 1e-6 in
    float32 and 1e-13 in float64. The iteration starts from the stored u, which `refresh` updates; using the layer
    changes no state. v follows from u. Gradients flow through V in σ, but not through u and v.

    Args:
        weight: initial V.
        outputs: shape of the outputs of V.
    """

    u: Tensor

    def __init__(self, weight: Tensor, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(len(weight)))
        self.register_buffer("u", torch.randn(outputs))

    @abstractmethod
    def map(self, h: Tensor, weight: Tensor) -> Tensor:
        """The linear map of a weight: inputs ``(B, ...)`` → outputs."""

    @abstractmethod
    def transposed(self, h: Tensor, weight: Tensor) -> Tensor:
        """Its transpose: outputs ``(B, ...)`` → inputs."""

    def bounded(self) -> Tensor:
        """The weight with the bound, at least float32."""
        with torch.autocast(self.weight.device.type, enabled=False):
            weight = at_least_float32(self.weight)
            u, v = self._vectors(tight=not self.training)
            norm = (u * self.map(v, weight)).sum()
            return weight * (COEFFICIENT / norm.clamp(min=COEFFICIENT))

    @torch.no_grad()
    def refresh(self) -> None:
        """Store u for the current weight."""
        with torch.autocast(self.weight.device.type, enabled=False):
            self.u.copy_(self._vectors(tight=False)[0][0])

    def _vectors(self, *, tight: bool) -> tuple[Tensor, Tensor]:
        """u and v, with a batch axis."""
        weight = at_least_float32(self.weight.detach())
        return top_singular_vectors(
            lambda v: self.map(v, weight),
            lambda u: self.transposed(u, weight),
            self.u.to(weight.dtype)[None],
            tolerance=_TIGHT[weight.dtype] if tight else _TRAINING_TOLERANCE,
            powers=_POWERS if tight else _TRAINING_POWERS,
        )


class LipschitzDense(Lipschitz):
    """A dense layer; σ is that of its matrix."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(_uniform(outputs, inputs), (outputs,))

    def map(self, h: Tensor, weight: Tensor) -> Tensor:
        return linear(h, weight)

    def transposed(self, h: Tensor, weight: Tensor) -> Tensor:
        return linear(h, weight.mT)


class LipschitzConv(Lipschitz):
    """A convolution with padding by zeros; σ is that of the linear map of whole images with these sides.

    (The norm of the reshaped kernel is another number, which bounds nothing.) The map of a 1×1 kernel is the same
    matrix at every pixel, so that its σ is that of the matrix.

    Args:
        inputs: channels.
        outputs: channels.
        kernel: odd side of the kernel.
        sides: height and width of the images.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, sides: tuple[int, int]) -> None:
        super().__init__(_uniform(outputs, inputs, kernel, kernel), (outputs, *(sides if kernel > 1 else (1, 1))))
        self.padding = kernel // 2

    def map(self, h: Tensor, weight: Tensor) -> Tensor:
        return conv2d(h, weight, padding=self.padding)

    def transposed(self, h: Tensor, weight: Tensor) -> Tensor:
        return conv_transpose2d(h, weight, padding=self.padding)


def _uniform(outputs: int, *inputs: int) -> Tensor:
    """An initial weight, as of `nn.Linear` and `nn.Conv2d`."""
    limit = 1 / math.sqrt(math.prod(inputs))
    return torch.empty(outputs, *inputs).uniform_(-limit, limit)


class LipSwish(nn.Module):
    """φ(h) = h σ(β h) / 1.1 with β = softplus(b) > 0, and its slope, at most 1 (Chen et al. 2019).

    >>> value, slope = LipSwish()(torch.linspace(-100, 100, 100_001))
    >>> 0.99 < float(slope.detach().max()) < 1
    True
    """

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(0.5))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        beta = softplus(at_least_float32(self.sharpness))
        gate = (beta * h).sigmoid()
        return h * gate / 1.1, gate * (1 + beta * h * (1 - gate)) / 1.1


class Linearised(NamedTuple):
    """g at some examples, and its derivative there."""

    value: Tensor
    along: Callable[[Tensor], Tensor]
    """Directions ``(B, k, *shape)`` → J v of each, of the same shape."""


class LipschitzNet(nn.Module):
    """g(x, c) with a Lipschitz constant in x below 1: layers with LipSwish between them.

    A linear map of the features of the condition is added to the hidden units. It is not bounded, since it does not
    depend on x.

    Args:
        layers: from x to the shape of x, at least two.
        context: number of features of the condition.
        activated: whether there is also an activation before the first layer.

    Attributes:
        reach: pixels of g depend on those of x at most so far away; None: on all entries.
        frozen: the bounded weights, where no parameter changes any more, or None.
    """

    frozen: list[Tensor] | None = None

    def __init__(self, layers: Sequence[Lipschitz], context: int, *, activated: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activated = activated
        paddings = [layer.padding for layer in layers if isinstance(layer, LipschitzConv)]
        self.reach = sum(paddings) if len(paddings) == len(layers) else None
        self.activations = nn.ModuleList(LipSwish() for _ in layers[0 if activated else 1 :])
        hidden = [len(layer.weight) for layer in layers[:-1]]
        self.told = nn.ModuleList(nn.Linear(context, units, bias=False) for units in hidden) if context else None

    def weights(self) -> list[Tensor]:
        """The bounded weights, for several passes."""
        return [layer.bounded() for layer in self._layers()] if self.frozen is None else self.frozen

    def forward(self, x: Tensor, context: Tensor | None, weights: list[Tensor]) -> Linearised:
        layers, slopes = self._layers(), list[Tensor | None]()
        activations = iter(self.activations)
        h = x
        for number, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
            slope = None
            if number or self.activated:
                h, slope = next(activations)(h)
            slopes.append(slope)
            bias = at_least_float32(layer.bias) + self._shift(number, context)
            h = at_least_float32(layer.map(h, weight)) + bias.view(-1, len(layer.bias), *[1] * (x.ndim - 2))

        def along(v: Tensor) -> Tensor:
            for layer, weight, slope in zip(layers, weights, slopes, strict=True):
                if slope is not None:
                    v = v * slope[:, None]
                each = at_least_float32(layer.map(v.flatten(0, 1), weight))
                v = each.view(*v.shape[:2], *each.shape[1:])
            return v

        return Linearised(h, along)

    def _shift(self, number: int, context: Tensor | None) -> Tensor | float:
        """What the condition adds to the outputs of a layer, ``(B, units)``."""
        if self.told is None or context is None or number == len(self.told):
            return 0.0
        shift = cast(nn.Linear, self.told[number])
        found: Tensor = shift(context.to(shift.weight.dtype))
        return at_least_float32(found)

    def _layers(self) -> list[Lipschitz]:
        return [cast(Lipschitz, layer) for layer in self.layers]


class Residual(Smooth):
    """y = x + g(x).

    Inside `unsup.nn.traces.traces`, log-determinants are estimated by one direction of random signs and a random number
    of terms: 2 terms and at least one more in training, the same for all examples of a call; elsewhere 20 and at least
    one more, for each example. The gradient of a training step is the Neumann series, which needs the memory of one
    product.

    Args:
        net: g.
        exact: whether log-determinants are always exact, by all D derivatives.
    """

    def __init__(self, net: LipschitzNet, *, exact: bool) -> None:
        super().__init__()
        self.net, self.exact = net, exact

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        probes = current_probes()
        value, along = self.net(x, context, self.net.weights())
        if probes.way == "none":
            log_det = x.new_zeros(len(x))
        elif self.exact or probes.way == "exact":
            log_det = torch.linalg.slogdet(self._jacobian(along, x)).logabsdet
        else:
            log_det = self._estimate(along, x, probes.generator)
        return x + value.to(x.dtype), log_det.to(x.dtype)

    def preimage(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """With more iterations, since their number in `inverse` depends on the other examples."""
        x, weights = self.inverse(y, context), self.net.weights()
        for _ in range(_MORE_ITERATIONS):
            x = y - self.net(x, context, weights).value
        return x

    def freeze(self) -> None:
        self.net.frozen = self.net.weights()

    def jacobian(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._jacobian(self.net(x, context, self.net.weights()).along, x)

    def _jacobian(self, along: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        own = jacobian(along, x, self.net.reach)
        return torch.eye(own.shape[1], dtype=own.dtype, device=own.device) + own

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The fixed point of x ↦ y − g(x). Its gradient is that of the implicit function, without its iterations."""
        weights = self.net.weights()
        with torch.no_grad():
            x = fixed_point(lambda x: y - self.net(x, context, weights).value, y)
        if not torch.is_grad_enabled():
            return x
        found = y - self.net(x, context, weights).value
        if found.requires_grad:
            point = x.requires_grad_()
            at_point = self.net(point, context, [weight.detach() for weight in weights]).value

            def solve(given: Tensor) -> Tensor:  # (I + Jᵀ)⁻¹ of the gradient
                def step(v: Tensor) -> Tensor:
                    return given - torch.autograd.grad(at_point, point, v, retain_graph=True)[0]

                return fixed_point(step, given)

            found.register_hook(solve)
        return found

    def _estimate(self, along: Callable[[Tensor], Tensor], x: Tensor, generator: Generator | None) -> Tensor:
        probe = random_signs(x, generator)

        def product(v: Tensor) -> Tensor:
            return along(v[:, None])[:, 0]

        if self.training:
            more = geometric(float(random.uniform((1,), generator, like=x, axis=None)))
            series = log_det_by_neumann if torch.is_grad_enabled() else log_det_series
            return series(product, probe, roulette_weights(TRAINING_TERMS, more))
        uniform = random.uniform((len(x),), generator, like=x)
        return log_det_series(product, probe, roulette_weights_each(SCORING_TERMS, uniform))


def fixed_point(step: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The x with step(x) = x of a contraction: iterated until no entry changes by more than its type resolves.

    The last change is below 1e-6 in float32 and 1e-13 in float64, relative to 1 + |x|.
    """
    x, tolerance = start, _TIGHT[start.dtype]
    for _ in range(_MOST_ITERATIONS):
        before, x = x, step(x)
        if bool(((x - before).abs() <= tolerance * (1 + x.abs())).all()):
            break
    return x
