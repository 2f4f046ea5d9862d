"""Derivatives of a network along directions in its inputs, in the same pass as its outputs.

`pushed` gives f(x) and J d, the Jacobian of f at x times a direction d. Automatic differentiation in forward mode does
the same for any module (`torch.autograd.forward_ad`), but takes a product with zeros for each layer, and fails under
autocast. The rules here take one more product for each layer; modules without a rule fall back on forward mode.

With batch statistics, f is a function of the whole batch, and J d of all directions together.
"""

from __future__ import annotations

from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from unsup.core.parallel import mean_over_rows, process_count
from unsup.nn.backbone import Backbone, ChannelScale
from unsup.nn.norm import BatchNorm, averages_kept, moves_averages
from unsup.nn.resnets import SLOPE, BasicBlock, Bottleneck, WideBlock, WideResNet
from unsup.nn.vit import ViT
from unsup.prob.distributions import at_least_float32

Pair = tuple[Tensor, Tensor]


@singledispatch
def pushed(module: nn.Module, x: Tensor, d: Tensor) -> Pair:
    """f(x), with its graph, and J d, without: both of the shape of the output.

    Args:
        module: a network, in training or evaluation mode.
        x: its inputs ``(B, …)``.
        d: a direction for each, of the same shape.

    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> _ = nn.init.ones_(net[0].weight)
    >>> [float(each.detach()) for each in pushed(net, torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]))]
    [3.0, 0.5]
    """
    return _in_forward_mode(module, x, d)


def _in_forward_mode(module: nn.Module, x: Tensor, d: Tensor) -> Pair:
    """By `torch.autograd.forward_ad`, in float32 or float64."""
    y = module(x)
    with (
        torch.no_grad(),
        averages_kept(),
        torch.autocast(x.device.type, enabled=False),
        sdpa_kernel(SDPBackend.MATH),  # others have no forward mode
        forward_ad.dual_level(),
    ):
        dual = forward_ad.make_dual(at_least_float32(x.detach()), at_least_float32(d))
        tangent = forward_ad.unpack_dual(module(dual)).tangent
    return y, torch.zeros_like(y) if tangent is None else tangent


@pushed.register
def _sequential(module: nn.Sequential, x: Tensor, d: Tensor) -> Pair:
    for layer in module:
        x, d = pushed(layer, x, d)
    return x, d


@pushed.register
def _backbone(module: Backbone, x: Tensor, d: Tensor) -> Pair:
    x, d = pushed(module.scale, x, d)
    for stage in module.stages:
        x, d = pushed(stage, x, d)
    if isinstance(module, WideResNet):
        x, d = _leaky(*pushed(module.norm, x, d), SLOPE)
    return module.pooled(x), module.pooled(d)


pushed.register(ViT)(_in_forward_mode)


@pushed.register
def _scale(module: ChannelScale, x: Tensor, d: Tensor) -> Pair:
    return module(x), (d / module.std.view(-1, 1, 1)).contiguous(memory_format=torch.channels_last)


@pushed.register
def _linear(module: nn.Linear, x: Tensor, d: Tensor) -> Pair:
    with torch.no_grad():
        moved = F.linear(d, module.weight)
    return module(x), moved


@pushed.register
def _conv(module: nn.Conv2d, x: Tensor, d: Tensor) -> Pair:
    with torch.no_grad():
        moved = F.conv2d(d, module.weight, None, module.stride, module.padding, module.dilation, module.groups)
    return module(x), moved


@pushed.register
def _norm(module: BatchNorm, x: Tensor, d: Tensor) -> Pair:
    """The Jacobian of a normalised channel is symmetric: the backward pass of the layer is also its tangent."""
    if process_count() > 1 and module.training:
        return _shared_norm(module, x, d)
    weight, statistics = module.weight, (module.running_mean, module.running_var)
    if module.training and not moves_averages():
        statistics = (module.running_mean.clone(), module.running_var.clone())
    y, mean, scale = torch.native_batch_norm(
        x, weight, module.bias, *statistics, module.training, module.momentum, module.eps
    )
    with torch.no_grad():
        back = torch.ops.aten.native_batch_norm_backward
        found = (d.to(x.dtype), x.detach(), weight, *statistics, mean, scale, module.training, module.eps)
        moved: Tensor = back(*found, [True, False, False])[0]
    return y, moved


def _shared_norm(module: BatchNorm, x: Tensor, d: Tensor) -> Pair:
    """The same with the statistics of the batches of all processes."""
    y, axes = module(x), [i for i in range(x.ndim) if i != 1]
    shape = [-1 if i == 1 else 1 for i in range(x.ndim)]
    with torch.no_grad():
        x, d = at_least_float32(x.detach()), at_least_float32(d)
        centred = x - mean_over_rows(x.mean(axes)).view(shape)
        scale = (mean_over_rows(centred.square().mean(axes)).view(shape) + module.eps).rsqrt()
        drift, stretch = (mean_over_rows(each.mean(axes)).view(shape) for each in (d, centred * scale * d))
        moved = (d - drift - centred * scale * stretch) * scale
        return y, moved if module.weight is None else moved * module.weight.view(shape)


def _leaky(x: Tensor, d: Tensor, slope: float) -> Pair:
    if not slope:
        y = F.relu(x)
        return y, torch.ops.aten.threshold_backward(d, y.detach(), 0)
    return F.leaky_relu(x, slope), torch.ops.aten.leaky_relu_backward(d, x.detach(), slope, False)


@pushed.register
def _relu(module: nn.ReLU, x: Tensor, d: Tensor) -> Pair:
    return _leaky(x, d, 0.0)


@pushed.register
def _leaky_relu(module: nn.LeakyReLU, x: Tensor, d: Tensor) -> Pair:
    return _leaky(x, d, module.negative_slope)


@pushed.register
def _max_pool(module: nn.MaxPool2d, x: Tensor, d: Tensor) -> Pair:
    y, where = F.max_pool2d(
        x, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, return_indices=True
    )
    return y, d.flatten(2).gather(2, where.flatten(2)).view(y.shape)


@pushed.register(nn.AvgPool2d)
@pushed.register(nn.Flatten)
@pushed.register(nn.Identity)
def _itself(module: nn.Module, x: Tensor, d: Tensor) -> Pair:
    """Of linear maps without parameters."""
    return module(x), module(d)


@pushed.register
def _basic(module: BasicBlock, x: Tensor, d: Tensor) -> Pair:
    h = _leaky(*pushed(module.first_norm, *pushed(module.first, x, d)), 0.0)
    return _sum_rectified(pushed(module.second_norm, *pushed(module.second, *h)), pushed(module.shortcut, x, d))


@pushed.register
def _bottleneck(module: Bottleneck, x: Tensor, d: Tensor) -> Pair:
    h = _leaky(*pushed(module.first_norm, *pushed(module.first, x, d)), 0.0)
    h = _leaky(*pushed(module.second_norm, *pushed(module.second, *h)), 0.0)
    return _sum_rectified(pushed(module.third_norm, *pushed(module.third, *h)), pushed(module.shortcut, x, d))


def _sum_rectified(one: Pair, two: Pair) -> Pair:
    return _leaky(one[0] + two[0], one[1] + two[1], 0.0)


@pushed.register
def _wide(module: WideBlock, x: Tensor, d: Tensor) -> Pair:
    started = _leaky(*pushed(module.first_norm, x, d), SLOPE)
    h = _leaky(*pushed(module.second_norm, *pushed(module.first, *started)), SLOPE)
    h = pushed(module.second, *h)
    other = (x, d) if module.shortcut is None else pushed(module.shortcut, *started)
    return h[0] + other[0], h[1] + other[1]
