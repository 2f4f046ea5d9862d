"""RealNVP: real-valued non-volume-preserving flow.

log p(x) = log N(f(x); 0, I) + log|det ∂f/∂x|, where f is a chain of affine couplings (Dinh, Sohl-Dickstein, Bengio
2017, https://arxiv.org/abs/1605.08803). A coupling transforms one part of its input given the other:

    y = b ⊙ x + (1 − b) ⊙ (x ⊙ exp(s(b ⊙ x)) + t(b ⊙ x))        (eq. 9)
    log|det ∂y/∂x| = Σ (1 − b) ⊙ s(b ⊙ x)                        (eq. 6)
    x = b ⊙ y + (1 − b) ⊙ ((y − t(b ⊙ y)) ⊙ exp(−s(b ⊙ y)))     (eq. 8)

with s = scale · tanh(·) and a learned scale. Vectors alternate two halves. Images use the multi-scale
architecture of section 3.6: three checkerboard couplings, squeeze, three channel couplings, factor out half; the last
scale is four checkerboard couplings.
"""

from __future__ import annotations

import torch
from torch import Generator, nn

from unsup.core.batch import Batch
from unsup.core.config import Count, Widths
from unsup.core.errors import InputError
from unsup.core.event import Event
from unsup.core.model import Advice, Terms
from unsup.nn.bijection import BoundedAffine, Normalised
from unsup.nn.conditioner import ResidualConvNet, WeightNormConv, mlp
from unsup.nn.coupling import Alternating, Coupling
from unsup.nn.flow import Dequantization, Flow, scale_count
from unsup.nn.front import usual_alpha
from unsup.nn.invertible import Chain, Invertible, MultiScale, Squeeze
from unsup.nn.split import Checkerboard, Corners, Halves
from unsup.prob.distributions import at_least_float32

_SCALE_PENALTY = 5e-5
_SMALL = 10_000  # training examples below which a vector flow is regularised


class RealNVP(Flow):
    """RealNVP (Dinh, Sohl-Dickstein, Bengio 2017, https://arxiv.org/abs/1605.08803).

    Discrete entries are dequantised, so the likelihood is a bound; images of them then pass through
    logit(α + (1 − 2α) v), with α = 1e-6 if they are grey and 0.05 for colours. Tables and real data are standardised by
    the training data. Training minimises the negative log-likelihood in nats plus 5e-5 times the sum of squares of the
    weight-scale parameters (the scales of tanh and the gains of the weight normalisation).

    Image flows have batch-normalisation layers, in the conditioners and after each coupling. Only `loss` in training
    mode uses the statistics of the batch; all other methods (`log_prob`, `transform`, `invert`, `sample`, …) use their
    running averages in both modes, so that the score of an example does not depend on its neighbours.

    The ``paper`` preset is the CIFAR-10 model: 8 residual blocks, 64 channels, one down-scaling. Details that the paper
    does not specify follow the code of its authors: widths double with each squeeze; conditioners start from
    relu([h, −h, b]) with the normalised input h; inside the flow only transformed entries are normalised, without gain
    or shift. Unlike that code, the statistics of those entries do not include the masked zeros, and biases that a batch
    normalisation cancels are omitted.

    Args:
        event: real, ordinal or binary; vector (any mix), or image.
        layers: number of couplings of a vector flow; four transform each half twice.
        hidden: units of each hidden layer of the conditioners of a vector flow.
        channels: channels of the conditioners at full image size.
        blocks: residual blocks of each image conditioner.
        dequantization: noise within the cells of discrete entries: ``uniform``, or ``variational``, of a small flow.
        given: event of the condition of vectors, e.g. ``labels(10)``, or None; its features are inputs of every
            coupling.
        scales: number of scales of an image flow (squeezes plus one); None squeezes until a side is odd or at most 4.

    Raises:
        InputError: the image cannot be squeezed ``scales − 1`` times.

    >>> import torch
    >>> from unsup import Event, Support
    >>> model = RealNVP(Event((3,), Support("real")), layers=4, hidden=(16,))
    >>> z, log_det = model.transform(torch.randn(5, 3))
    >>> z.shape, log_det.shape
    (torch.Size([5, 3]), torch.Size([5]))
    """

    fewest_entries = 2
    in_integers = True
    presets = {
        "tiny": {"layers": 4, "hidden": (16,), "channels": 4, "blocks": 1},
        "paper": {"channels": 64, "blocks": 8, "scales": 2},
    }
    fit_defaults = {"lr": 1e-3, "batch_size": 64, "clip": 100.0}

    def __init__(
        self,
        event: Event,
        *,
        layers: Count = 6,
        hidden: Widths = (256, 256),
        channels: Count = 16,
        blocks: Count = 2,
        scales: Count | None = None,
        dequantization: Dequantization = "uniform",
        given: Event | None = None,
    ) -> None:
        width, alpha = min(channels, 32), usual_alpha(event)
        self.take(event, given, logit_alpha=alpha, earlier_alpha=0.05, dequantization=dequantization, width=width)
        if event.is_image and given is not None:
            raise InputError(f"given={given} is for vectors and tables; conditioned images are those of glow")
        if event.is_image:
            self.flow = _image_flow(event.shape, channels, blocks, _scale_count(event, scales))
        else:
            self.flow = _vector_flow(event.dims, layers, hidden, self.conditions.size)
        self._scaled = [m for m in self.modules() if isinstance(m, (BoundedAffine, WeightNormConv))]

    @classmethod
    def reason_against(cls, event: Event) -> str | None:
        if event.is_image and event.shape[1] * event.shape[2] < 2:
            return "needs images of at least two pixels"
        return super().reason_against(event)

    @classmethod
    def advice(cls, event: Event, examples: int) -> Advice:
        if event.layout == "vector" and examples < _SMALL:
            return Advice({"hidden": (64, 64)}, {"ema": 0.99, "weight_decay": 0.1})
        return Advice(training={"ema": 0.99})

    def loss(self, batch: Batch, *, generator: Generator | None = None) -> Terms:
        """Negative log-likelihood (bound), plus the penalty on the scales in training."""
        nll = self.negative_log_prob(batch, generator=generator)
        if not self.training:
            return {"loss": nll}
        scales = at_least_float32(torch.cat([p.flatten() for p in self.scale_parameters()]))
        penalty = _SCALE_PENALTY * scales.square().sum()
        return {"loss": nll + penalty, "nll": nll, "scale_penalty": penalty}

    def scale_parameters(self) -> list[nn.Parameter]:
        """The scales of tanh, and the gains of the weight normalisation."""
        found = [m.scale if isinstance(m, BoundedAffine) else m.gain for m in self._scaled]
        return [p for p in found if p is not None]


def _vector_flow(dims: int, layers: int, hidden: tuple[int, ...], context: int) -> Invertible:
    """The two halves alternate. Conditioners are initialised to zero, so that the flow starts as the identity."""
    sizes = (dims - dims // 2, dims // 2)
    couplings = [(mlp(sizes[i % 2] + context, hidden, 2 * sizes[1 - i % 2]), BoundedAffine()) for i in range(layers)]
    return Alternating(Halves(sizes[0]), couplings)


def _image_flow(shape: tuple[int, ...], channels: int, blocks: int, scales: int) -> MultiScale:
    """The multi-scale architecture (section 3.6)."""
    c, height, width = shape
    chains, shapes = [], []

    def checkerboard(i: int) -> Coupling:
        split = Checkerboard(height, width, i % 2)
        net = ResidualConvNet(c, 2 * c, channels, blocks, ~split.mask)
        return Coupling(split, net, Normalised(BoundedAffine(0.0, c), c, split.mask))

    def channelwise(i: int) -> Coupling:
        net = ResidualConvNet(c, 2 * c, channels, blocks)
        return Coupling(Halves(c, moves_first=i % 2 == 1), net, Normalised(BoundedAffine(1.0, c), c))

    for _ in range(scales - 1):
        fine = [checkerboard(i) for i in range(3)]
        c, height, width, channels = 2 * c, height // 2, width // 2, 2 * channels
        chains.append(Chain([*fine, Squeeze(), *(channelwise(i) for i in range(3))]))  # of 2c channels now
        shapes.append((c, height, width))
    chains.append(Chain(checkerboard(i) for i in range(4)))
    return MultiScale(chains, Corners(), [*shapes, (c, height, width)])


def _scale_count(event: Event, scales: int | None) -> int:
    """As for all flows, but at least two pixels are left for the last couplings."""
    count = scale_count(event, scales)
    height, width = event.shape[1:]
    if height == width == 2 ** (count - 1):
        raise InputError(f"scales={count} leaves one pixel of {height}×{width}; use scales=None for as many as fit")
    return count
