"""Colorization: the colours of a picture from its lightness, as a classification of colours.

A network sees the lightness L of a picture and gives, at each place (h, w) of a coarser grid, a distribution Ẑ over
the Q = 313 bins of ab in CIE Lab. The target Z is a soft encoding of the true colour on its 5 nearest bins (Zhang,
Isola, Efros 2016, https://arxiv.org/abs/1603.08511, eq. 2 and 4):

    loss = − Σ_hw v(Z_hw) Σ_q Z_hwq log Ẑ_hwq,      v(Z) = w_q* with q* = argmax_q Z_q,
    w ∝ ((1 − λ) p̃ + λ / Q)⁻¹,      Σ_q p̃_q w_q = 1,

with the smoothed frequencies p̃ of the bins in training pictures: rare colours weigh more. Places of grey pictures (all
|a| and |b| at most 5) have v = 0, as in the published code. Colours are decoded by the annealed mean (eq. 5)

    ab = Σ_q q f_T(Ẑ)_q,      f_T(z) = exp(log z / T) / Σ_q exp(log z_q / T).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from torch import Generator, Tensor, nn

from unsup.core.batch import Batch
from unsup.core.config import Count, Positive, Whole, Within
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Colours, Terms
from unsup.nn.colour_nets import ColourNet
from unsup.nn.feature_model import FeatureModel, evaluating
from unsup.prob.lab import (
    ab_bins,
    annealed_mean,
    class_weights,
    from_lab,
    smoothed,
    soft_cross_entropy,
    soft_encoding,
    to_lab,
    upsampled,
)

_GREY = 5.0  # largest |a| or |b| of a grey picture
_AT_ONCE = 256  # pictures of which colours are counted
_RAREST = 1e-5  # probability in the first prediction
_PIXELS_AT_ONCE = 2**18  # of pictures that are coloured


class Colorization(FeatureModel, Colours):
    """Colourful image colorization (Zhang, Isola, Efros 2016, https://arxiv.org/abs/1603.08511).

    ``loss`` is the rebalanced cross-entropy, a sum over the places of a picture; ``cross_entropy`` is the plain one in
    nats per place. Targets are the colours at the pixels 0, s, 2s … of both sides with s = 2^(halvings − 1), and
    predictions are interpolated between them.

    Features are the means over places of the first stage after all halvings, conv4 in the paper. They are functions of
    L only.

    Args:
        event: colour images ``(3, H, W)`` of levels, taken as sRGB.
        width: channels of the first stage of the network, doubled at each halving.
        halvings: number of halvings of the sides. The network then doubles them once.
        layers: number of convolutions of each stage; at most 2 in the first two.
        dilated: number of stages with dilated convolutions.
        uniform: λ, the share of the uniform distribution in the weights of colours; 1 for equal weights.
        temperature: T of the annealed mean.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = Colorization(Event((3, 16, 16), Support("ordinal", 256)), width=4)
    >>> x = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    >>> model.translate(x, to="b").shape, model.encode(x).shape
    (torch.Size([2, 3, 16, 16]), torch.Size([2, 16]))
    """

    backbone: ColourNet
    prior: Tensor

    presets = {
        "tiny": {"width": 4, "halvings": 1, "layers": 1, "dilated": 1},
        "paper": {"width": 64, "halvings": 3, "layers": 3, "dilated": 2},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64, "betas": (0.9, 0.99), "weight_decay": 1e-3}

    def __init__(
        self,
        event: Event,
        *,
        width: Count = 32,
        halvings: Annotated[int, Within(1, 5)] = 2,
        layers: Count = 2,
        dilated: Whole = 1,
        uniform: Annotated[float, Within(0.01, 1)] = 0.5,
        temperature: Positive = 0.38,
    ) -> None:
        self.uniform, self.temperature = uniform, temperature
        self.backbone = ColourNet(width, halvings, layers, dilated)
        self.stage = halvings + 1
        self.head = nn.Conv2d(self.backbone.size, len(ab_bins()), 1)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self._bias)
        self.register_buffer("prior", torch.full((len(ab_bins()),), 1 / len(ab_bins())))

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        found = super().reason_against(event)
        if found is None and event.shape[0] != 3:
            return "takes colour images (3, H, W)"
        return found

    @torch.no_grad()
    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Count the colours of training pictures: p̃; the first prediction is the best one that knows nothing else."""
        counts = torch.zeros_like(self.prior, dtype=torch.float64)
        for part in batch.x.split(_AT_ONCE):
            bins, _ = soft_encoding(self._targets(part), neighbours=1)
            counts += torch.bincount(bins.flatten(), minlength=len(counts))
        self.prior.copy_(smoothed(counts))
        if not bool(self._bias.any()):  # it has not learned
            self._bias.copy_((self.prior * class_weights(self.prior, self.uniform)).clamp(min=_RAREST).log())

    @property
    def _bias(self) -> Tensor:
        assert self.head.bias is not None
        return self.head.bias

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """``loss`` and ``cross_entropy``, of each picture."""
        ab = self._targets(batch.x)
        bins, weights = soft_encoding(ab)
        nats = soft_cross_entropy(self._logits(batch.x), bins, weights)  # (B, h, w)
        rarity = class_weights(self.prior.to(nats.dtype), self.uniform)[bins[:, 0]]  # the nearest bin is the argmax
        is_coloured = (ab.abs() > _GREY).flatten(1).any(1)
        loss = (rarity * nats).flatten(1).sum(1) * is_coloured
        return {"loss": loss, "cross_entropy": nats.detach().flatten(1).mean(1)}

    def chromaticity(self, x: Tensor) -> Tensor:
        self.event.check_shape(x)
        return to_lab(self.unit(x))[:, 1:]

    @torch.no_grad()
    def translate(self, x: Tensor, *, to: Literal["a", "b"]) -> Tensor:
        """Raw pictures without their colours (to a), or with predicted colours (to b): ``(B, 3, H, W)``.

        L of the result is that of ``x``, up to the rounding to levels. A predicted colour that sRGB does not have at
        this L is moved towards grey.

        Raises:
            InputError: wrong shape, or a domain other than ``"a"`` and ``"b"``.
        """
        if to not in ("a", "b"):
            raise InputError(f"to={to!r}; expected 'a' (grey pictures) or 'b' (colour pictures)")
        self.event.check_shape(x)
        parts = x.split(max(1, _PIXELS_AT_ONCE // math.prod(self.event.shape[1:])))
        return torch.cat([self._coloured(part) if to == "b" else self._of_lab(self._grey(part)) for part in parts])

    def _coloured(self, x: Tensor) -> Tensor:
        with evaluating(self):
            ab = annealed_mean(self._logits(x), self.temperature)
        lightness = self._grey(x)[:, :1]
        return self._of_lab(torch.cat([lightness, upsampled(ab, x.shape[2:], self.backbone.stride)], 1))

    def _grey(self, x: Tensor) -> Tensor:
        """Lab without colour."""
        lightness = to_lab(self.unit(x))[:, :1]
        return torch.cat([lightness, torch.zeros_like(lightness).expand(-1, 2, -1, -1)], 1)

    def _of_lab(self, lab: Tensor) -> Tensor:
        """Lab → raw levels."""
        support = self.event.uniform
        assert support is not None
        levels = (from_lab(lab) * (support.levels - 1)).round().long()
        return (levels + support.low).to(self.event.dtype)

    def _targets(self, x: Tensor) -> Tensor:
        """a and b at the places: ``(B, 2, h, w)``."""
        stride = self.backbone.stride
        return to_lab(self.unit(x[:, :, ::stride, ::stride]))[:, 1:]

    def _logits(self, x: Tensor) -> Tensor:
        """log Ẑ without its constant, ``(B, Q, h, w)``."""
        h, w = (-(-side // self.backbone.stride) for side in self.event.shape[1:])
        found: Tensor = self.head(self.backbone.maps(self.unit(x))[..., :h, :w])
        return found
