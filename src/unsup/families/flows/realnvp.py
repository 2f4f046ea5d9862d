"""RealNVP: real-valued non-volume-preserving flow.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x|, f a chain of affine couplings (Dinh, Sohl-Dickstein, Bengio 2017,
https://arxiv.org/abs/1605.08803). A coupling moves one part of its input given the other:

    y = b ⊙ x + (1 − b) ⊙ (x ⊙ exp(s(b ⊙ x)) + t(b ⊙ x))        (eq. 9)
    log|det ∂y/∂x| = Σ (1 − b) ⊙ s(b ⊙ x)                        (eq. 6)
    x = b ⊙ y + (1 − b) ⊙ ((y − t(b ⊙ y)) ⊙ exp(−s(b ⊙ y)))     (eq. 8)

with s = scale · tanh(·), the scale learned. Vectors alternate two halves. Images go through the multi-scale
architecture of section 3.6: three checkerboard couplings, squeeze, three channel couplings, factor out half; the last
scale is four checkerboard couplings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.likelihood import Kind
from unsup.core.model import IsFlow, Model, Terms
from unsup.core.parallel import mean_over_rows
from unsup.nn.front import ContinuousFront, dequantized_log_prob
from unsup.nn.norm import batch_norm
from unsup.prob.distributions import LOG_2PI, at_least_float32

_LOGIT_ALPHA = 0.05
_SCALE_PENALTY = 5e-5
_EPSILON = 1e-4  # of every batch normalisation
_MOMENTUM = 0.1  # of the running statistics
_DIAGONAL, _ANTIDIAGONAL = [0, 3], [1, 2]  # corners of a 2 × 2 block, as pixel_unshuffle numbers them


class RealNVP(Model, IsFlow):
    """RealNVP (Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803).

    Discrete entries are dequantised by uniform noise, so the likelihood is a bound; images of them then pass through
    logit(α + (1 − 2α) v), α = 0.05. Tables and real data are standardised by the training data. Training minimises
    the negative log-likelihood in nats plus 5e-5 times the sum of squares of the weight-scale parameters (the scales
    of tanh and the gains of the weight normalisation).

    Image flows hold batch-normalisation layers, in the conditioners and after each coupling. Only `loss` in training
    mode uses the statistics of the batch; all else (`log_prob`, `transform`, `invert`, `sample`, …) uses their running
    averages, in either mode, so that an example's score does not depend on its neighbours.

    The ``paper`` preset is the CIFAR-10 model: 8 residual blocks, 64 channels, one down-scaling. What the paper leaves
    open follows the authors' released code: widths double with each squeeze; conditioners start from
    relu([h, −h, b]) with h the normalised input; inside the flow only moved entries are normalised, without gain or
    shift. That code counts the masked zeros in the statistics of those entries, which here do not count, and it keeps
    the biases that a batch normalisation cancels, which here are left out.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: couplings of a vector flow; four move each half twice.
        hidden: units of each hidden layer of a vector flow's conditioners.
        channels: of the conditioners at full image size.
        blocks: residual blocks of each image conditioner.
        scales: of an image flow, one more than it has squeezes; None squeezes until a side is odd or at most 4.

    Raises:
        InputError: the image cannot be squeezed ``scales − 1`` times.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = RealNVP(Event((3,), Support("real")), layers=4, hidden=(16,))
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    presets = {
        "tiny": {"layers": 4, "hidden": (16,), "channels": 4, "blocks": 1},
        "paper": {"channels": 64, "blocks": 8, "scales": 2},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64, "clip": 100.0}

    def __init__(
        self,
        event: Event,
        *,
        layers: int = 6,
        hidden: tuple[int, ...] = (256, 256),
        channels: int = 16,
        blocks: int = 2,
        scales: int | None = None,
    ) -> None:
        self.has_logit = event.is_image and event.is_discrete
        self.front = ContinuousFront(event, logit_alpha=_LOGIT_ALPHA if self.has_logit else None)
        self.flow: VectorFlow | ImageFlow
        if event.is_image:
            self.flow = ImageFlow(event.shape, channels, blocks, _scale_count(event, scales))
        else:
            self.flow = VectorFlow(event.dims, layers, hidden)

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.layout not in ("vector", "image"):
            return "takes vectors, tables and images only"
        if any(s.kind == "nominal" for s in event.columns):
            return "takes no nominal entries (they have no order to dequantise along)"
        if event.layout == "vector" and event.dims < 2:
            return "needs two entries or more (one is moved given another)"
        if event.is_image and event.shape[1] * event.shape[2] < 2:
            return "needs images of two pixels or more (one is moved given another)"
        return None

    @property
    def likelihood_kind(self) -> Kind:
        return "exact" if self.event.is_real else "bound"

    def prepare(self, batch: Batch, *, generator: Generator) -> None:
        """Standardise each entry of tables and real data; logits of pixels stay as they are."""
        x = batch.x
        if not self.has_logit:
            self.front.prepare(x, generator=generator)

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Negative log-likelihood (bound), plus the penalty on the scales in training."""
        if not self.training:
            return {"loss": -self.log_prob(batch.x, generator=generator).mean()}
        y, log_det = self.front(self.front.dequantize(batch.x, generator=generator))
        nll = -(self._log_density(y, batch_statistics=True) + log_det).mean()
        penalty = _SCALE_PENALTY * torch.cat([p.flatten() for p in self.flow.scale_parameters()]).square().sum()
        return {"loss": nll + penalty, "nll": nll, "scale_penalty": penalty}

    def _log_prob(self, batch: Batch, *, samples: int, generator: Generator | None) -> Tensor:
        x = batch.x
        self.event.check_shape(x)
        return dequantized_log_prob(self.front, self._log_density, x, samples=samples, generator=generator)

    def _log_density(self, y: Tensor, *, batch_statistics: bool = False) -> Tensor:
        """log p(y) of what the front gives, by the change of variables."""
        z, log_det = self.flow(y, batch_statistics)
        return log_det - 0.5 * (z.square().sum(1) + LOG_2PI * z.shape[1])

    def transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, front_log_det = self.front(x)
        z, log_det = self.flow(y, False)
        return z, log_det + front_log_det

    def invert(self, z: Tensor) -> Tensor:
        return self.front.invert(self.flow.invert(z))

    def encode(self, x: Tensor) -> Tensor:
        """z of the middle of each discrete entry's cell."""
        self.event.check_shape(x)
        return self.transform(x.to(self.dtype) + 0.5 * self.front.discrete)[0]

    @property
    def code_size(self) -> int:
        return self.event.dims

    def decode(self, z: Tensor) -> Tensor:
        return self.front.to_support(self.invert(z))

    @torch.no_grad()
    def sample(self, n: int, *, generator: Generator | None = None, temperature: float = 1.0) -> Tensor:
        """Draws from the model; ``temperature`` scales the base noise."""
        z = torch.randn(n, self.event.dims, generator=generator, dtype=self.dtype, device=self.device)
        return self.decode(temperature * z)


class VectorFlow(nn.Module):
    """Couplings that move the two halves of a vector in turn.

    The halves are kept apart from the first coupling to the last, so no layer gathers, masks or joins anything. The
    last layer of each conditioner starts at zero: at first the flow is the identity.
    """

    def __init__(self, dims: int, layers: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (dims - dims // 2, dims // 2)
        self.cut = sizes[0]
        self.nets = nn.ModuleList(_mlp(sizes[i % 2], hidden, 2 * sizes[1 - i % 2]) for i in range(layers))
        self.scale = nn.Parameter(torch.ones(layers))

    def scale_parameters(self) -> list[nn.Parameter]:
        return [self.scale]

    def forward(self, y: Tensor, batch_statistics: bool = False) -> tuple[Tensor, Tensor]:
        """(B, D) → z (B, D), log-determinant (B,). There are no batch statistics here."""
        seen, moved = y[:, : self.cut], y[:, self.cut :]
        log_det = y.new_zeros(())
        for net, scale in zip(self.nets, self.scale.unbind(), strict=True):
            h, t = at_least_float32(net(seen)).chunk(2, 1)
            s = scale * h.tanh()
            log_det = log_det + s.sum(1)
            seen, moved = torch.addcmul(t, moved, s.exp()), seen
        return torch.cat((moved, seen) if len(self.nets) % 2 else (seen, moved), 1), log_det

    def invert(self, z: Tensor) -> Tensor:
        """(B, D) → (B, D)."""
        first, second = z[:, : self.cut], z[:, self.cut :]
        seen, moved = (second, first) if len(self.nets) % 2 else (first, second)
        for net, scale in zip(reversed(self.nets), reversed(self.scale.unbind()), strict=True):
            h, t = at_least_float32(net(moved)).chunk(2, 1)
            seen, moved = moved, (seen - t) * (-scale * h.tanh()).exp()
        return torch.cat((seen, moved), 1)


class ImageFlow(nn.Module):
    """The multi-scale architecture (section 3.6). z holds what is factored out, from the finest scale to the last."""

    def __init__(self, shape: tuple[int, ...], channels: int, blocks: int, scales: int) -> None:
        super().__init__()
        c, height, width = shape
        self.fine, self.coarse = nn.ModuleList(), nn.ModuleList()
        self.parts: list[tuple[int, int, int]] = []
        for _ in range(scales - 1):
            self.fine.append(_checkerboards(3, (c, height, width), channels, blocks))
            height, width, channels = height // 2, width // 2, 2 * channels
            shape = (4 * c, height, width)
            self.coarse.append(nn.ModuleList(ChannelCoupling(shape, i % 2, channels, blocks) for i in range(3)))
            c = 2 * c
            self.parts.append((c, height, width))
        self.fine.append(_checkerboards(4, (c, height, width), channels, blocks))
        self.parts.append((c, height, width))

    def scale_parameters(self) -> list[nn.Parameter]:
        gains = [m.gain for m in self.modules() if isinstance(m, WeightNormConv) and m.gain is not None]
        return gains + [m.scale for m in self.modules() if isinstance(m, ImageCoupling)]

    def forward(self, y: Tensor, batch_statistics: bool = False) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → z (B, C·H·W), log-determinant (B,)."""
        log_dets, out = [], []
        for scale, fine in enumerate(self.fine):
            for coupling in fine:
                y, log_det = coupling(y, batch_statistics)
                log_dets.append(log_det)
            if scale < len(self.coarse):
                y = F.pixel_unshuffle(y, 2)  # (B, 4C, H/2, W/2)
                for coupling in self.coarse[scale]:
                    y, log_det = coupling(y, batch_statistics)
                    log_dets.append(log_det)
                y, z = factor_out(y)  # (B, 2C, H/2, W/2) each
                out.append(z.flatten(1))
        return torch.cat([*out, y.flatten(1)], 1), torch.stack(log_dets).sum(0)

    def invert(self, z: Tensor) -> Tensor:
        """(B, C·H·W) → (B, C, H, W)."""
        sizes = [c * height * width for c, height, width in self.parts]
        out = [piece.view(-1, *part) for piece, part in zip(z.split(sizes, 1), self.parts, strict=True)]
        y = out[-1]
        for scale in reversed(range(len(self.fine))):
            if scale < len(self.coarse):
                y = factor_in(y, out[scale])
                for coupling in reversed(self.coarse[scale]):
                    y = coupling.invert(y)
                y = F.pixel_shuffle(y, 2)
            for coupling in reversed(self.fine[scale]):
                y = coupling.invert(y)
        return y


def factor_out(x: Tensor) -> tuple[Tensor, Tensor]:
    """A squeezed image → the half that goes on (diagonals of the 2 × 2 blocks) and the half that is done."""
    corners = x.unflatten(1, (-1, 4))  # (B, C, 4, H, W)
    goes_on, done = corners[:, :, _DIAGONAL], corners[:, :, _ANTIDIAGONAL]
    return goes_on.transpose(1, 2).flatten(1, 2), done.transpose(1, 2).flatten(1, 2)


def factor_in(goes_on: Tensor, done: Tensor) -> Tensor:
    """The inverse of `factor_out`."""
    a, d = goes_on.chunk(2, 1)
    b, c = done.chunk(2, 1)
    return torch.stack((a, b, c, d), 2).flatten(1, 2)


class ImageCoupling(nn.Module, ABC):
    """An affine coupling, then batch normalisation (section 3.7, appendix E), of the moved entries.

    y = (x ⊙ eˢ + t − μ) / √(σ² + ε) adds s − ½ log(σ² + ε) to the log-determinant at each moved entry, with the very
    μ and σ² it was divided by: those of the batch, or their running averages. The inverse uses the averages.
    """

    def __init__(self, moves: Tensor, c: int, scale: float, net: Conditioner) -> None:
        """``moves`` is bool ``(1, 1, H, W)``: the places of the ``c`` moved channels that change."""
        super().__init__()
        self.net = net
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.register_buffer("moves", moves, persistent=False)
        self.register_buffer("running_mean", torch.zeros(1, c, 1, 1))
        self.register_buffer("running_var", torch.ones(1, c, 1, 1))

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the conditioner sees, and the channels in which entries move."""

    @abstractmethod
    def join(self, x: Tensor, moved: Tensor) -> Tensor:
        """``x`` with its moved entries replaced."""

    def forward(self, x: Tensor, batch_statistics: bool) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) → (B, C, H, W), log-determinant (B,)."""
        seen, moved = self.split(x)
        s, t = self._scale_and_shift(seen, batch_statistics)
        y = torch.addcmul(t, moved, s.exp())
        mean, var = self._batch_moments(y) if batch_statistics else (self.running_mean, self.running_var)
        var = var + _EPSILON
        log_det = ((s - 0.5 * var.log()) * self.moves).sum((1, 2, 3))
        return self.join(x, (y - mean) * var.rsqrt()), log_det

    def invert(self, y: Tensor) -> Tensor:
        seen, moved = self.split(y)
        s, t = self._scale_and_shift(seen, False)
        moved = moved * (self.running_var + _EPSILON).sqrt() + self.running_mean
        return self.join(y, (moved - t) * (-s).exp())

    def _scale_and_shift(self, seen: Tensor, batch_statistics: bool) -> tuple[Tensor, Tensor]:
        h, t = at_least_float32(self.net(seen, batch_statistics)).chunk(2, 1)
        return self.scale * (h + self.bias).tanh(), t

    def _batch_moments(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel's moved entries; the running averages follow them."""
        count = len(y) * self.moves.sum()
        mean = mean_over_rows((y * self.moves).sum((0, 2, 3), keepdim=True) / count)
        var = mean_over_rows(((y - mean).square() * self.moves).sum((0, 2, 3), keepdim=True) / count)
        with torch.no_grad():
            self.running_mean.lerp_(mean, _MOMENTUM)
            self.running_var.lerp_(var, _MOMENTUM)
        return mean, var


class CheckerboardCoupling(ImageCoupling):
    """Moves the pixels of one colour of a chessboard given those of the other (``colour``, 0 at the corner)."""

    def __init__(self, shape: tuple[int, int, int], colour: int, channels: int, blocks: int) -> None:
        c, height, width = shape
        moves = (torch.arange(height)[:, None] + torch.arange(width)) % 2 != colour
        super().__init__(moves[None, None], c, 0.0, Conditioner(c, channels, blocks, ~moves[None, None]))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * ~self.moves, x

    def join(self, x: Tensor, moved: Tensor) -> Tensor:
        return torch.where(self.moves, moved, x)


class ChannelCoupling(ImageCoupling):
    """Moves one half of the channels given the other (``half``, 0 or 1)."""

    def __init__(self, shape: tuple[int, int, int], half: int, channels: int, blocks: int) -> None:
        c, height, width = shape
        moves = torch.ones(1, 1, height, width, dtype=torch.bool)
        super().__init__(moves, c // 2, 1.0, Conditioner(c // 2, channels, blocks, None))
        self.half = half

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        halves = x.chunk(2, 1)
        return halves[self.half], halves[1 - self.half]

    def join(self, x: Tensor, moved: Tensor) -> Tensor:
        halves = x.chunk(2, 1)
        return torch.cat((moved, halves[1]) if self.half else (halves[0], moved), 1)


class Conditioner(nn.Module):
    """Residual net of an image coupling, (B, C, H, W) → (B, 2C, H, W): weight and batch normalised, skips summed."""

    def __init__(self, c: int, channels: int, blocks: int, mask: Tensor | None) -> None:
        """``mask`` marks the entries of the input that are not blanked, where some are: ``(1, 1, H, W)``."""
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.norm_in = BatchNorm(c)
        self.conv_in = WeightNormConv(2 * c + (mask is not None), channels, 3, gain=False)
        self.blocks = nn.ModuleList(ResidualBlock(channels) for _ in range(blocks))
        self.skips = nn.ModuleList(WeightNormConv(channels, channels, 1) for _ in range(blocks + 1))
        self.norm_out = BatchNorm(channels)
        self.conv_out = WeightNormConv(channels, 2 * c, 1)

    def forward(self, x: Tensor, batch_statistics: bool) -> Tensor:
        h = self.norm_in(x, batch_statistics)
        parts = [h, -h]
        if self.mask is not None:
            # Half of the normalised entries are blanks.
            parts = [2 * h, -2 * h, self.mask.to(h.dtype).expand(len(h), -1, -1, -1)]
        h = self.conv_in(torch.cat(parts, 1).relu())
        total = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = block(h, batch_statistics)
            total = total + skip(h)
        return self.conv_out(self.norm_out(total, batch_statistics).relu())


class ResidualBlock(nn.Module):
    """h + conv(relu(norm(conv(relu(norm(h))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = BatchNorm(channels), BatchNorm(channels)
        self.conv1 = WeightNormConv(channels, channels, 3, gain=False)
        self.conv2 = WeightNormConv(channels, channels, 3)

    def forward(self, h: Tensor, batch_statistics: bool) -> Tensor:
        inner = self.conv1(self.norm1(h, batch_statistics).relu())
        return h + self.conv2(self.norm2(inner, batch_statistics).relu())


class WeightNormConv(nn.Module):
    """Convolution with weight g · v / ‖v‖ for each output (Salimans, Kingma 2016, https://arxiv.org/abs/1602.07868).

    It has no bias, and g = 1 without a gain: a batch normalisation follows.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, gain: bool = True) -> None:
        super().__init__()
        bound = (2 / inputs) ** 0.5
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size).uniform_(-bound, bound))
        # The expected norm of v: the weight starts as it would without normalisation.
        self.gain = nn.Parameter(torch.full((outputs,), size / 6**0.5)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        scale = norm.reciprocal() if self.gain is None else self.gain.view(-1, 1, 1, 1) / norm
        return F.conv2d(x, self.weight * scale, padding="same")


class BatchNorm(nn.Module):
    """(x − μ) / √(σ² + ε) + shift for each channel, by the statistics of the batch or by their running averages."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, batch_statistics: bool) -> Tensor:
        mean, var = self.running_mean, self.running_var
        return batch_norm(x, mean, var, None, self.shift, batch_statistics, _MOMENTUM, _EPSILON)


def _checkerboards(n: int, shape: tuple[int, int, int], channels: int, blocks: int) -> nn.ModuleList:
    return nn.ModuleList(CheckerboardCoupling(shape, i % 2, channels, blocks) for i in range(n))


def _mlp(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    sizes = (inputs, *hidden)
    layers: list[nn.Module] = []
    for below, width in zip(sizes[:-1], hidden, strict=True):
        layers += [nn.Linear(below, width), nn.ReLU(inplace=True)]
    last = nn.Linear(sizes[-1], outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)


def _scale_count(event: Event, scales: int | None) -> int:
    height, width = event.shape[1:]
    if scales is None:
        scales = 1
        while height % 2 == width % 2 == 0 and min(height, width) > 4:
            height, width, scales = height // 2, width // 2, scales + 1
        return scales
    side = 2 ** (scales - 1)
    if scales < 1 or height % side or width % side or height == width == side:
        raise InputError(
            f"scales={scales} halves the sides {scales - 1} times, which {height}×{width} does not allow "
            "(both must stay whole, with two pixels left); use scales=None for as many as fit"
        )
    return scales
