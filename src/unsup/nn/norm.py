"""Normalisation by batch statistics that several processes share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unsup.core.parallel import mean_over_processes, process_count


class BatchNorm(nn.Module):
    """y = γ (x − μ) / √(σ² + ε) + β for each channel (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167).

    In training mode μ and σ² are those of the whole batch, over all processes; in evaluation mode their running
    averages, which follow at rate ``momentum`` (the unbiased variance, as in PyTorch).

    Args:
        channels: size of axis 1 of ``(B, C)`` or ``(B, C, H, W)``.
        affine: whether there are γ and β.
    """

    def __init__(self, channels: int, *, affine: bool = True, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and process_count() > 1:
            return self._over_processes(x)
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    def _over_processes(self, x: Tensor) -> Tensor:
        axes = [i for i in range(x.ndim) if i != 1]
        shape = [-1 if i == 1 else 1 for i in range(x.ndim)]
        mean = mean_over_processes(x.mean(axes))
        var = mean_over_processes((x - mean.view(shape)).square().mean(axes))
        with torch.no_grad():
            count = x.numel() // x.shape[1] * process_count()
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), self.momentum)
        scale = (var + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        y = (x - mean.view(shape)) * scale.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)
