"""Normalisation by batch statistics that several processes share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsup.core.parallel import mean_over_rows, process_count, rows_together, share_of
from unsup.core.random import rows_at_hand

_CHANNELS_OF_A_GROUP = 16
_BATCH_STATISTICS: ContextVar[bool] = ContextVar("_BATCH_STATISTICS", default=False)


@contextmanager
def batch_statistics(on: bool = True) -> Iterator[None]:
    """In this context, the layers of flows normalise by the statistics of the batch and update their running averages.

    Otherwise they use the running averages, even in training mode: the result of a flow for an example then does not
    depend on its neighbours, and the inverse is exact.
    """
    token = _BATCH_STATISTICS.set(on)
    try:
        yield
    finally:
        _BATCH_STATISTICS.reset(token)


def uses_batch_statistics() -> bool:
    """Whether a forward pass inside `batch_statistics` is running."""
    return _BATCH_STATISTICS.get()


_GROUP: ContextVar[int | None] = ContextVar("_GROUP", default=None)


@contextmanager
def statistics_of_groups(size: int | None) -> Iterator[None]:
    """In this context, `BatchNorm` in training mode normalises by the statistics of ``size`` consecutive examples.

    Sizes are those of `sizes_of_groups`. None: statistics of the whole batch.
    """
    token = _GROUP.set(size)
    try:
        yield
    finally:
        _GROUP.reset(token)


_MOVES_AVERAGES: ContextVar[bool] = ContextVar("_MOVES_AVERAGES", default=True)


@contextmanager
def averages_kept() -> Iterator[None]:
    """In this context, `BatchNorm` in training mode uses the statistics of the batch and keeps its running averages.

    For passes over other examples than those of the data, such as adversarial ones.
    """
    token = _MOVES_AVERAGES.set(False)
    try:
        yield
    finally:
        _MOVES_AVERAGES.reset(token)


def moves_averages() -> bool:
    """Whether no `averages_kept` is around."""
    return _MOVES_AVERAGES.get()


def sizes_of_groups(count: int, size: int) -> list[int]:
    """Sizes of the groups of the ``count`` examples of a process, which differ by at most one.

    They are ``size`` and more: a remainder is spread over the groups. There are at least two groups over all processes,
    so that a smaller batch is halved; each of several processes has complete groups of ``size``.

    >>> sizes_of_groups(96, 32), sizes_of_groups(97, 32), sizes_of_groups(32, 32)
    ([32, 32, 32], [33, 32, 32], [16, 16])
    """
    groups = max(2 if process_count() == 1 else 1, count // size)
    return [share_of(count, groups, number).count for number in range(groups)]


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """`torch.nn.functional.batch_norm` with the statistics of the whole batch, over all processes."""
    if not training or process_count() == 1:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = [i for i in range(x.ndim) if i != 1]
    shape = [-1 if i == 1 else 1 for i in range(x.ndim)]
    mean = mean_over_rows(x.mean(axes))
    var = mean_over_rows((x - mean.view(shape)).square().mean(axes))
    with torch.no_grad():
        rows, together = rows_at_hand(), rows_together()
        more = process_count() if rows is None or together is None else together / rows.count
        count = x.numel() / x.shape[1] * more
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * count / (count - 1)).to(running_var.dtype), momentum)
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    y = (x - mean.view(shape)) * scale.view(shape)
    return y if bias is None else y + bias.view(shape)


class BatchNorm(nn.Module):
    """y = γ (x − μ) / √(σ² + ε) + β for each channel (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167).

    In training mode μ and σ² are those of the whole batch, over all processes; in evaluation mode their running
    averages, which follow at rate ``momentum`` (the unbiased variance, as in PyTorch).

    Args:
        channels: size of axis 1 of ``(B, C)`` or ``(B, C, H, W)``.
        affine: whether to use γ and β.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, affine: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        size = _GROUP.get() if self.training else None
        if size is not None:
            return self._in_groups(x, size)
        statistics = (self.running_mean, self.running_var)
        if self.training and not _MOVES_AVERAGES.get():
            statistics = (self.running_mean.clone(), self.running_var.clone())
        return batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)

    def _in_groups(self, x: Tensor, size: int) -> Tensor:
        """Running averages move by the mean of the statistics of all groups."""
        parts, means, variances = [], [], []
        for group in x.split(sizes_of_groups(len(x), size)):
            found, mean, rate = torch.native_batch_norm(
                group, self.weight, self.bias, None, None, True, self.momentum, self.eps
            )
            count = group.numel() / group.shape[1]
            parts.append(found)
            means.append(mean.detach())
            variances.append((rate.detach() ** -2 - self.eps) * (count / max(1.0, count - 1)))
        with torch.no_grad():
            for running, each in ((self.running_mean, means), (self.running_var, variances)):
                running.lerp_(mean_over_rows(torch.stack(each).mean(0)).to(running.dtype), self.momentum)
        return torch.cat(parts)


def without_batch_statistics(net: nn.Module) -> None:
    """Replace every `BatchNorm` in ``net`` by a group normalisation, whose moments are those of one example.

    Groups have 16 channels, or more if their number does not divide that of the channels (Wu, He 2018,
    https://arxiv.org/abs/1803.08494).

    >>> net = nn.Sequential(nn.Conv2d(1, 48, 3), BatchNorm(48))
    >>> without_batch_statistics(net)
    >>> net[1].num_groups
    3
    """
    for name, child in net.named_children():
        if isinstance(child, BatchNorm):
            channels = len(child.running_mean)
            groups = next(n for n in range(max(1, channels // _CHANNELS_OF_A_GROUP), 0, -1) if channels % n == 0)
            setattr(net, name, nn.GroupNorm(groups, channels, affine=child.weight is not None))
        else:
            without_batch_statistics(child)
