"""Monotone rational-quadratic splines with identity tails, elementwise.

Inside [−B, B] the map is, in a bin of width w and height h between knots (x_k, y_k) with slopes δ_k, δ_{k+1},

    y = y_k + h (s ξ² + δ_k ξ(1 − ξ)) / (s + (δ_{k+1} + δ_k − 2s) ξ(1 − ξ)),    ξ = (x − x_k) / w,  s = h / w

and outside it is y = x, with slope 1 at both ends (Durkan, Bekasov, Murray, Papamakarios 2019,
https://arxiv.org/abs/1906.04032, section 3.1). Pure functions on tensors, which may be outputs of a network.

`rational_quadratic` computes values and gradients in few passes over the parameters: only the slopes at the ends of the
bin of an entry are evaluated, and the gradient is written down. `plain_rational_quadratic` is the same by autograd, the
slow reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad, softplus

SMALLEST = 1e-3
"""The smallest width and height of a bin, as a share of 2B, and the smallest slope at a knot."""
_SLOPE_ONE = math.log(math.expm1(1 - SMALLEST))  # softplus of this is the slope 1 of the identity


def outputs_of(bins: int) -> int:
    """Number of parameters of each entry: widths, heights, and the slopes at inner knots."""
    return 3 * bins - 1


class Knots(NamedTuple):
    """Knots of the splines of all entries.

    Attributes:
        x: places, ``(..., K + 1)``, from −B to B.
        y: values, ``(..., K + 1)``.
        slope: derivatives, ``(..., K + 1)``; 1 at both ends.
    """

    x: Tensor
    y: Tensor
    slope: Tensor

    @classmethod
    def of(cls, outputs: Tensor, bound: float) -> Knots:
        """The knots that parameters ``(..., 3K − 1)`` describe; zeros describe the identity."""
        bins = (outputs.shape[-1] + 1) // 3
        widths, heights, slopes = outputs.split([bins, bins, bins - 1], -1)
        slope = pad(SMALLEST + softplus(slopes + _SLOPE_ONE), (1, 1), value=1.0)
        return cls(_cumulated(widths, bound), _cumulated(heights, bound), slope)


class _Bin(NamedTuple):
    """The bin of each entry: its left knot, width, height, and the slopes at its ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor


def rational_quadratic(x: Tensor, outputs: Tensor, bound: float, divisor: float = 1.0) -> tuple[Tensor, Tensor]:
    """y and log dy/dx of every entry.

    Parameters ``(B, D, 3K − 1)`` of which those of one kind lie side by side along the batch are read in place;
    others are copied to this layout.

    Args:
        x: any shape.
        outputs: parameters of every entry, ``(*x.shape, 3K − 1)``.
        bound: B.
        divisor: the parameters of widths and heights are divided by it.

    >>> y, log_derivative = rational_quadratic(torch.tensor([-9.0, 0.5]), torch.zeros(2, 11), bound=3.0)
    >>> y, log_derivative.abs().max() < 1e-5
    (tensor([-9.0000,  0.5000]), tensor(True))
    """
    entries, parameters, back = _planes(x, outputs)
    y, log_derivative = cast(tuple[Tensor, Tensor], _Spline.apply(entries, parameters, bound, divisor))
    return back(y), back(log_derivative)


def rational_quadratic_inverse(y: Tensor, outputs: Tensor, bound: float, divisor: float = 1.0) -> Tensor:
    """The inverse of `rational_quadratic`: the root of a quadratic equation in the bin of each entry."""
    if torch.is_grad_enabled() and (y.requires_grad or outputs.requires_grad):
        return plain_rational_quadratic_inverse(y, outputs, bound, divisor)
    entries, parameters, back = _planes(y, outputs)
    inside = entries.abs() < bound
    own = _located(entries.clamp(-bound, bound).nan_to_num(0.0), parameters, bound, divisor, by=1).bin
    xi = _root(entries, own).nan_to_num_(0.0)
    return back(torch.where(inside, own.x + xi * own.width, entries))


def plain_rational_quadratic(x: Tensor, outputs: Tensor, bound: float, divisor: float = 1.0) -> tuple[Tensor, Tensor]:
    """`rational_quadratic` by autograd."""
    knots, inside = Knots.of(_told(outputs, divisor), bound), x.abs() < bound
    own = _bin(knots, knots.x, torch.where(inside, x, torch.zeros_like(x)))
    xi = ((torch.where(inside, x, own.x) - own.x) / own.width).clamp(0, 1)
    s, product = own.height / own.width, xi * (1 - xi)
    denominator = s + (own.left + own.right - 2 * s) * product
    y = own.y + own.height * (s * xi.square() + own.left * product) / denominator
    rise = own.right * xi.square() + 2 * s * product + own.left * (1 - xi).square()
    log_derivative = 2 * s.log() + rise.log() - 2 * denominator.log()
    return torch.where(inside, y, x), torch.where(inside, log_derivative, torch.zeros_like(x))


def plain_rational_quadratic_inverse(y: Tensor, outputs: Tensor, bound: float, divisor: float = 1.0) -> Tensor:
    """`rational_quadratic_inverse` by autograd."""
    knots, inside = Knots.of(_told(outputs, divisor), bound), y.abs() < bound
    own = _bin(knots, knots.y, torch.where(inside, y, torch.zeros_like(y)))
    return torch.where(inside, own.x + _root(torch.where(inside, y, own.y), own) * own.width, y)


def _root(y: Tensor, own: _Bin) -> Tensor:
    """ξ of values in their bins."""
    s = own.height / own.width
    above = (y - own.y).clamp(min=0)
    bend = own.left + own.right - 2 * s
    a = own.height * (s - own.left) + above * bend
    b = own.height * own.left - above * bend
    c = -s * above
    # Rounding can make the discriminant of a nearly linear piece negative.
    root = (b.square() - 4 * a * c).clamp(min=0).sqrt()
    return (2 * c / (-b - root)).clamp(0, 1)


def _told(outputs: Tensor, divisor: float) -> Tensor:
    if divisor == 1:
        return outputs
    bins = (outputs.shape[-1] + 1) // 3
    return torch.cat([outputs[..., : 2 * bins] / divisor, outputs[..., 2 * bins :]], -1)


def _planes(x: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Entries ``(A, C)``, parameters ``(A, 3K − 1, C)`` with neighbours along C, and the way back to ``x.shape``."""
    if x.ndim == 2 and outputs.stride(0) == 1:
        return x.T.contiguous(), outputs.permute(1, 2, 0), lambda t: t.T
    parameters = outputs.movedim(-1, 0).reshape(1, outputs.shape[-1], -1)
    return x.reshape(1, -1), parameters, lambda t: t.view(x.shape)


class _Located(NamedTuple):
    """What is known about the bins of entries ``(A, C)``.

    Attributes:
        bin: its ends.
        shares: softmax of the parameters of widths and heights, ``(A, 2, K, C)``.
        number: of the bin, ``(A, 1, C)``.
        reached: 1 where the bin is k or a later one, for k from 1, ``(A, K − 1, C)``.
    """

    bin: _Bin
    shares: Tensor
    number: Tensor
    reached: Tensor


def _located(at: Tensor, parameters: Tensor, bound: float, divisor: float, *, by: int) -> _Located:
    """The bins that contain entries of [−B, B], on the axis of widths (``by`` 0) or of heights (1)."""
    bins = (parameters.shape[1] + 1) // 3
    sizes = parameters[:, : 2 * bins].unflatten(1, (2, bins))
    shares = (sizes if divisor == 1 else sizes / divisor).softmax(2)
    sizes = (shares * (2 * bound * (1 - SMALLEST * bins))).add_(2 * bound * SMALLEST)
    knots = torch.empty_like(sizes)  # the left ones
    knots[:, :, 0] = -bound
    for k in range(1, bins):
        torch.add(knots[:, :, k - 1], sizes[:, :, k - 1], out=knots[:, :, k])
    beyond = at[:, None] >= knots[:, by, 1:]
    number = beyond.view(torch.uint8).sum(1, keepdim=True, dtype=torch.int64)
    places = number[:, None].expand(-1, 2, -1, -1)
    left, size = knots.gather(2, places)[:, :, 0], sizes.gather(2, places)[:, :, 0]
    ends = torch.cat([(number - 1).clamp_(min=0), number.clamp(max=bins - 2)], 1)
    slope = softplus(parameters[:, 2 * bins :].gather(1, ends).add_(_SLOPE_ONE)).add_(SMALLEST)
    slope[:, 0].masked_fill_(number[:, 0] == 0, 1.0)
    slope[:, 1].masked_fill_(number[:, 0] == bins - 1, 1.0)
    own = _Bin(left[:, 0], left[:, 1], size[:, 0], size[:, 1], slope[:, 0], slope[:, 1])
    return _Located(own, shares, number, beyond.to(at.dtype))


class _Spline(Function):
    """`rational_quadratic` of entries ``(A, C)`` and parameters ``(A, 3K − 1, C)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, parameters: Tensor, bound: float, divisor: float) -> tuple[Tensor, Tensor]:
        inside = x.abs() < bound
        at = x.clamp(-bound, bound).nan_to_num_(0.0)
        own, shares, number, reached = _located(at, parameters, bound, divisor, by=0)
        xi = ((at - own.x) / own.width).clamp_(0, 1)
        s, product = own.height / own.width, xi * (1 - xi)
        denominator = (own.left + own.right).sub_(s, alpha=2).mul_(product).add_(s)
        part = (s * xi).mul_(xi).addcmul_(own.left, product).div_(denominator)
        rise = (own.right * xi).mul_(xi).addcmul_(s, product, value=2).addcmul_(own.left, (1 - xi).square_())
        within = inside.to(x.dtype)
        log_derivative = (s / denominator).square_().mul_(rise).log_().mul_(within)
        ctx.save_for_backward(x, parameters, *own, shares, number, reached, xi, s, denominator, part, rise, within)
        ctx.bound, ctx.divisor = bound, divisor
        return torch.where(inside, own.y + own.height * part, x), log_derivative

    @staticmethod
    def backward(ctx: Any, to_y: Tensor, to_log: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return (*_again(ctx, to_y, to_log), None, None)
        x, parameters, *own, shares, number, reached, xi, s, denominator, part, rise, within = ctx.saved_tensors
        own = _Bin(*own)
        bins = shares.shape[2]
        y, log = to_y * within, to_log * within
        product, over, steep = xi * (1 - xi), denominator.reciprocal(), log / rise
        # Along ξ, s = h / w, and the slopes at both ends; the chain rule then gives the four numbers of the bin.
        by_height = y * own.height * over
        bent = by_height * part + 2 * log * over  # minus the gradient at the denominator
        to_slopes = torch.empty_like(shares[:, :, 0])
        torch.mul(by_height - bent, product, out=to_slopes[:, 0]).addcmul_(steep, (1 - xi).square())
        torch.mul(xi.square(), steep, out=to_slopes[:, 1]).addcmul_(bent, product, value=-1)
        to_s = by_height * xi.square() + 2 * (steep * product + log / s) - bent * (1 - 2 * product)
        along = y * own.height * s * rise * over.square()
        bend = own.left + own.right - 2 * s
        along += 2 * steep * (own.right * xi + s * (1 - 2 * xi) - own.left * (1 - xi))
        along -= 2 * log * over * bend * (1 - 2 * xi)
        along /= own.width
        to_x = torch.addcmul(along, to_y, 1 - within)
        to_left = torch.stack([-along, y], 1)
        to_size = torch.stack([-along * xi - to_s * s / own.width, y * part + to_s / own.width], 1)
        to_parameters = torch.empty_like(parameters)
        rest = 2 * ctx.bound * (1 - SMALLEST * bins)
        # Shares before the bin move its left end, its own share its size; the rest is the derivative of the softmax.
        before = torch.stack([own.x, own.y], 1) + ctx.bound
        before = (before - number * (2 * ctx.bound * SMALLEST)) / rest
        mine = (torch.stack([own.width, own.height], 1) - 2 * ctx.bound * SMALLEST) / rest
        mean = to_left * before + to_size * mine
        to_shares = torch.zeros_like(shares)
        torch.mul(reached[:, None], to_left[:, :, None], out=to_shares[:, :, :-1])
        to_shares.scatter_(2, number[:, None].expand(-1, 2, -1, -1), to_size[:, :, None])
        to_shares.sub_(mean[:, :, None]).mul_(rest / ctx.divisor)
        torch.mul(to_shares, shares, out=to_parameters[:, : 2 * bins].unflatten(1, (2, bins)))
        # softplus′ from its value; the outer slopes are fixed.
        to_slopes *= -torch.expm1(SMALLEST - torch.stack([own.left, own.right], 1))
        padded = shares.new_zeros(len(x), bins + 1, x.shape[1])
        padded.scatter_(1, torch.cat([number, number + 1], 1), to_slopes)
        to_parameters[:, 2 * bins :] = padded[:, 1:-1]
        return to_x, to_parameters, None, None


def _again(ctx: Any, to_y: Tensor, to_log: Tensor) -> tuple[Tensor | None, ...]:
    """The gradient with a graph, for second derivatives: by the slow reference."""
    inputs = ctx.saved_tensors[:2]
    found = plain_rational_quadratic(inputs[0], inputs[1].movedim(1, -1), ctx.bound, ctx.divisor)
    wanted = [t for t in inputs if t.requires_grad]
    gradients = iter(torch.autograd.grad(found, wanted, (to_y, to_log), create_graph=True))
    return tuple(next(gradients) if t.requires_grad else None for t in inputs)


def _cumulated(shares: Tensor, bound: float) -> Tensor:
    """Unnormalised sizes of bins → knots from −B to B."""
    bins = shares.shape[-1]
    sizes = SMALLEST + (1 - SMALLEST * bins) * shares.softmax(-1)
    inner = 2 * bound * sizes[..., :-1].cumsum(-1) - bound
    return pad(pad(inner, (1, 0), value=-bound), (0, 1), value=bound)


def _bin(knots: Knots, places: Tensor, at: Tensor) -> _Bin:
    """The bin that contains each entry of ``at``, which lie between the first and the last of ``places``."""
    number = (at.unsqueeze(-1) >= places[..., 1:-1]).sum(-1, keepdim=True)
    ends = torch.cat([number, number + 1], -1)
    x, y, slope = (t.gather(-1, ends) for t in knots)
    return _Bin(x[..., 0], y[..., 0], x[..., 1] - x[..., 0], y[..., 1] - y[..., 0], slope[..., 0], slope[..., 1])
