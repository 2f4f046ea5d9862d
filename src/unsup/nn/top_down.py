"""Hierarchies of Gaussian latents: p draws the layers from the top, and one pass gives prior and posterior of each.

With layers z_L, …, z_1, of which z_1 generates x (indices here start at 0, the layer that generates x):

    p(x, z) = p(z_L) Π_l p(z_l | z_>l) p(x | z),      q(z|x) = Π_l q(z_l | z_>l, x)   or   q(z_1|x) Π_l q(z_{l+1} | z_l)

`DenseHierarchy` is for vectors, `ConvHierarchy` for images. Gaussians are of flattened latents, ``(N, size)``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import adaptive_avg_pool2d, elu, interpolate

from unsup.nn.bijection import GatedAverage
from unsup.nn.causal_conv import MaskedConv, square
from unsup.nn.conditions import joined
from unsup.nn.inference import InverseAutoregressive
from unsup.nn.nets import ActivationName, Sides, start_glorot
from unsup.nn.norm import BatchNorm
from unsup.nn.posterior import Approximation, DiagonalGaussian, Transformed
from unsup.prob.distributions import at_least_float32

LayeredPosterior = Literal["bottom-up", "ladder", "direct", "residual", "iaf"]
CellName = Literal["bottleneck", "separable", "plain"]
NormName = Literal["none", "batch"]
Place = Callable[[int, Approximation, DiagonalGaussian | None], tuple[Tensor, Tensor]]
"""z of a layer and log q(z), from its number, its posterior, and its prior (None: not known before z).

log q is ``(N,)``, or that of every latent given those before it, ``(N, size)``.
"""
Placed = tuple[Tensor, DiagonalGaussian, Tensor]
"""z of a layer ``(N, size)``, its posterior, and log q(z), ``(N,)``."""
Draw = Callable[[int, DiagonalGaussian], Tensor]
"""z of a layer from its number and its prior."""


@dataclass(frozen=True)
class Layer:
    """One layer of inferred latents.

    Attributes:
        z: ``(N, size)``.
        log_q: log q of them, ``(N,)``.
        is_closed: whether q was computed without z, so that KL(q ‖ p) is the expectation of log q − log p.
        log_q_each: log q of every latent given those before it, ``(N, size)``; None if it is not known.
    """

    z: Tensor
    q: Approximation
    p: DiagonalGaussian
    log_q: Tensor
    is_closed: bool = True
    log_q_each: Tensor | None = None

    @classmethod
    def placed(cls, z: Tensor, q: Approximation, p: DiagonalGaussian, log_q: Tensor) -> Layer:
        """With log q as a `Place` gives it."""
        return cls(z, q, p, log_q) if log_q.ndim == 1 else cls(z, q, p, log_q.sum(1), log_q_each=log_q)

    def log_ratio_each(self) -> Tensor | None:
        """log q(z) − log p(z) of every latent given those before it, ``(N, size)``; None if it is not known."""
        if self.log_q_each is None:
            return None
        return self.log_q_each - self.p.log_density_each(self.p.units_of(self.z))

    @property
    def log_ratio(self) -> Tensor:
        """log q(z) − log p(z), ``(N,)``."""
        return self.log_q - self.p.log_prob(self.z)

    def kl_each(self) -> Tensor | None:
        """KL(q ‖ p) of every latent, ``(N, size)``; None if it has no closed form."""
        return self.q.kl_each(self.p) if self.is_closed and isinstance(self.q, DiagonalGaussian) else None


@dataclass(frozen=True)
class Inferred:
    """All layers, from the one that generates x, and the features from which x is generated, ``(N, features)``."""

    layers: list[Layer]
    features: Tensor

    @property
    def log_ratio(self) -> Tensor:
        """log q(z|x) − log p(z), ``(N,)``."""
        return torch.stack([layer.log_ratio for layer in self.layers]).sum(0)


class Hierarchy(nn.Module, ABC):
    """Networks of all layers.

    Attributes:
        sizes: number of latents of each layer, from the one that generates x.
        maps: number of maps among them; latents of vectors are one map each.
        groups: what each layer is called in reports.
        widest: size of the largest layer of features of the generative network.
    """

    sizes: tuple[int, ...]
    maps: tuple[int, ...]
    groups: tuple[str, ...]
    widest: int

    @abstractmethod
    def infer(self, seen: Tensor, given: Tensor | None, copies: int, place: Place) -> Inferred:
        """Visit all layers with their posteriors.

        Args:
            seen: inputs of the encoder, ``(B, …)``, computed once for all copies.
            given: features of the conditions, ``(B, F)``.
            copies: k; Gaussians have N = k B rows, copy by copy.
            place: chooses the latents of each layer.
        """

    @abstractmethod
    def generate(self, n: int, given: Tensor | None, draw: Draw) -> Tensor:
        """Features ``(n, features)`` from latents that ``draw`` chooses from the top, given ``(n, F)``."""


@overload
def _repeated(x: Tensor, copies: int) -> Tensor: ...
@overload
def _repeated(x: None, copies: int) -> None: ...
@overload
def _repeated(x: Tensor | None, copies: int) -> Tensor | None: ...
def _repeated(x: Tensor | None, copies: int) -> Tensor | None:
    return x if x is None or copies == 1 else x.repeat(copies, *(1,) * (x.ndim - 1))


# --- vectors ----------------------------------------------------------------------------------------------------------


class DenseHierarchy(Hierarchy):
    """Layers of vectors; each depends on the next one alone under p: the Markov chain p(z_L) Π_l p(z_l | z_{l+1}).

    Networks between layers are MLPs with ``depth`` hidden layers: up, d_l = MLP(d_{l−1}), or MLP(z_{l−1}) for
    ``bottom-up``; down, h_l = MLP(z_{l+1}), from which p(z_l | z_{l+1}) is linear. p(z_L) = N(0, I). The top layer, and
    ``ladder``, take the outputs of d_l alone; ``direct``, ``residual`` and ``iaf`` of d_l and h_l.

    Args:
        seen: number of inputs.
        latents: of each layer, from the one that generates x.
        hidden: width of the MLPs below each layer.
        given: number of features of a condition, an input of all networks.

    Attributes:
        features: number of features from which x is generated.
    """

    def __init__(
        self,
        seen: int,
        latents: tuple[int, ...],
        hidden: tuple[int, ...],
        *,
        depth: int,
        activation: ActivationName,
        norm: NormName,
        posterior: LayeredPosterior,
        given: int,
        flow_steps: int,
        flow_hidden: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.sizes, self.maps, self.features, self.widest = latents, latents, hidden[0], max(hidden)
        self.groups, self.is_bottom_up = tuple(str(i + 1) for i in range(len(latents))), posterior == "bottom-up"
        self.posterior, top = posterior, len(latents) - 1
        below = [seen, *(n + given for n in latents)] if self.is_bottom_up else [seen, *hidden]
        made = zip(below, hidden, strict=False)
        self.up = nn.ModuleList(_mlp(inputs, width, depth, activation, norm) for inputs, width in made)
        self.down = nn.ModuleList(
            _mlp(n + given, width, depth, activation, norm) for n, width in zip(latents, hidden, strict=True)
        )
        self.prior = nn.ModuleList(nn.Linear(hidden[i + 1], 2 * latents[i]) for i in range(top))
        self.flows = nn.ModuleList(
            InverseAutoregressive(n, flow_steps, flow_hidden) for n in latents if posterior == "iaf"
        )
        context = flow_hidden[0] if posterior == "iaf" else 0
        sees_above = posterior not in ("bottom-up", "ladder")
        self.own = nn.ModuleList(
            nn.Linear(hidden[i] + (hidden[i + 1] if sees_above and i < top else 0), 2 * latents[i] + context)
            for i in range(top + 1)
        )
        start_glorot(self.up, self.down, self.prior, self.own)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the networks."""
        return cast(nn.Linear, self.own[0]).weight.dtype

    def prior_of(self, layer: int, h: Tensor | None, like: Tensor) -> DiagonalGaussian:
        """p(z_l | z_>l) from h of the layer above; of the top layer N(0, I) for the rows of ``like``."""
        if h is not None:
            return DiagonalGaussian.of(self.prior[layer](h))
        zeros = at_least_float32(like).new_zeros(len(like), self.sizes[layer])
        return DiagonalGaussian(zeros, zeros)

    def below(self, layer: int, z: Tensor, given: Tensor | None) -> Tensor:
        """h of what is below layer l: the features of p(z_{l−1} | z_l), or of p(x | z)."""
        h: Tensor = self.down[layer](joined(z.to(self.dtype), given))
        return h

    def posterior_above(
        self, layer: int, below: Tensor, given: Tensor | None, *, held: bool = False
    ) -> DiagonalGaussian:
        """q(z_l | z_{l−1}) of ``bottom-up`` inference, of layer 0 given the inputs.

        Args:
            held: with its parameters detached; there is still a gradient with respect to the layer below.
        """
        inputs = below if layer == 0 else joined(below.to(self.dtype), given)
        d = _called(self.up[layer], inputs, held)
        return DiagonalGaussian.of(_called(self.own[layer], d, held))

    def infer(self, seen: Tensor, given: Tensor | None, copies: int, place: Place) -> Inferred:
        if self.is_bottom_up:
            return self.with_priors(self.upwards(seen, given, copies, place), _repeated(given, copies))
        return self._downwards(seen, _repeated(given, copies), copies, place)

    def upwards(self, seen: Tensor, given: Tensor | None, copies: int, place: Place) -> list[Placed]:
        """(z, q, log q) of every layer of ``bottom-up`` inference; the arguments are those of `infer`."""
        q = _copied(self.posterior_above(0, seen, given), copies)
        given, found = _repeated(given, copies), list[Placed]()
        for layer in range(len(self.sizes)):
            if layer:
                q = self.posterior_above(layer, found[-1][0], given)
            z, log_q = place(layer, q, None)
            found.append((z, q, log_q))
        return found

    def with_priors(self, found: Sequence[Placed], given: Tensor | None) -> Inferred:
        """The layers with their priors, from (z, q, log q) of each; given ``(N, F)``."""
        layers: list[Layer] = []
        h: Tensor | None = None
        for layer, (z, q, log_q) in reversed(list(enumerate(found))):
            p = self.prior_of(layer, h, z)
            layers.insert(0, Layer(z, q, p, log_q, is_closed=layer == len(self.sizes) - 1))
            h = self.below(layer, z, given)
        assert h is not None
        return Inferred(layers, h)

    def _downwards(self, seen: Tensor, given: Tensor | None, copies: int, place: Place) -> Inferred:
        activations: list[Tensor] = []
        for net in self.up:
            activations.append(net(activations[-1] if activations else seen))
        layers: list[Layer] = []
        h: Tensor | None = None
        for layer in reversed(range(len(self.sizes))):
            d = _repeated(activations[layer], copies)
            p = self.prior_of(layer, h, d)
            sees_above = h is not None and self.posterior != "ladder"
            outputs = self.own[layer](torch.cat([d, h], 1) if sees_above and h is not None else d)
            if self.posterior == "iaf":
                own = DiagonalGaussian.of(outputs[:, : 2 * self.sizes[layer]])
                flow = cast(InverseAutoregressive, self.flows[layer])
                q: Approximation = flow.from_base(p.moved(own), outputs[:, 2 * self.sizes[layer] :])
            else:  # the top layer of a ladder has nothing to merge with
                kind = "direct" if self.posterior == "ladder" and h is None else self.posterior
                q = approximation(kind, outputs, p)
            z, log_q = place(layer, q, p)
            layers.insert(0, Layer.placed(z, q, p, log_q))
            h = self.below(layer, z, given)
        assert h is not None
        return Inferred(layers, h)

    def generate(self, n: int, given: Tensor | None, draw: Draw) -> Tensor:
        h: Tensor | None = None
        like = at_least_float32(cast(nn.Linear, self.own[0]).weight).new_zeros(n)
        for layer in reversed(range(len(self.sizes))):
            h = self.below(layer, draw(layer, self.prior_of(layer, h, like)), given)
        assert h is not None
        return h


def approximation(kind: LayeredPosterior, outputs: Tensor, p: DiagonalGaussian) -> DiagonalGaussian:
    """q of a layer from the outputs ``(N, 2 size)`` of a network and the prior.

    ``ladder`` merges both by precision, ``direct`` ignores the prior, and ``residual`` moves it.
    """
    own = DiagonalGaussian.of(outputs)
    if kind == "ladder":
        return own.merged(p)
    return own if kind == "direct" else p.moved(own)


def _mlp(inputs: int, width: int, depth: int, activation: ActivationName, norm: NormName) -> nn.Sequential:
    """``depth`` layers of ``width`` units, each a linear map, a normalisation and an activation."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers.append(nn.Linear(inputs if i == 0 else width, width, bias=norm == "none"))
        layers += [BatchNorm(width)] if norm == "batch" else []
        layers.append(nn.Tanh() if activation == "tanh" else nn.ReLU())
    return nn.Sequential(*layers)


def _called(net: nn.Module, inputs: Tensor, held: bool) -> Tensor:
    """A network of the inputs; ``held``: with detached parameters."""
    if not held:
        found: Tensor = net(inputs)
        return found
    fixed: Tensor = functional_call(net, {k: p.detach() for k, p in net.named_parameters()}, (inputs,))
    return fixed


def _copied(q: DiagonalGaussian, copies: int) -> DiagonalGaussian:
    return DiagonalGaussian(q.mean.repeat(copies, 1), q.log_variance.repeat(copies, 1)) if copies > 1 else q


# --- images -----------------------------------------------------------------------------------------------------------


class Narrow(nn.Module):
    """Conv₁ₓ₁ ∘ GELU ∘ Conv₃ₓ₃ ∘ GELU ∘ Conv₃ₓ₃ ∘ GELU ∘ Conv₁ₓ₁ ∘ GELU, with ``middle`` features in between.

    The block of VD-VAE (Child 2021, https://arxiv.org/abs/2011.10650, figure 3). Where no side is above 2, all
    convolutions are 1×1.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, sides: Sides) -> None:
        super().__init__()
        size = 3 if max(sides) > 2 else 1
        between = (nn.Conv2d(middle, middle, size, padding=size // 2) for _ in range(2))
        convolutions = (nn.Conv2d(inputs, middle, 1), *between, nn.Conv2d(middle, outputs, 1))
        self.layers = nn.Sequential(*(part for c in convolutions for part in (nn.GELU(), c)))
        for c in convolutions:
            nn.init.zeros_(cast(Tensor, c.bias))

    @property
    def last(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.layers[-1])

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.layers(h)
        return found


class Plain(nn.Module):
    """0.1 Conv₃ₓ₃ ∘ ELU ∘ Conv₃ₓ₃ ∘ ELU, the residual of ResNet VAE (Kingma et al. 2016).

    https://arxiv.org/abs/1606.04934.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.layers = nn.Sequential(nn.ELU(), first, nn.ELU(), second)

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.layers(h)
        return _RESIDUAL * found


class Separable(nn.Module):
    """The residual cell of NVAE (Vahdat, Kautz 2020, https://arxiv.org/abs/2007.03898, figure 3).

    Generative: BN, Conv₁ₓ₁ to 6 times the features, BN, Swish, depthwise Conv₅ₓ₅, BN, Swish, Conv₁ₓ₁, BN,
    squeeze-excite. Encoder: twice BN, Swish, Conv₃ₓ₃, then squeeze-excite. The result is multiplied by 0.1.
    """

    def __init__(self, width: int, *, encodes: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if encodes:
            for _ in range(2):
                layers += [BatchNorm(width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1, bias=bool(layers))]
        else:
            wide = 6 * width
            layers += [BatchNorm(width), nn.Conv2d(width, wide, 1, bias=False), BatchNorm(wide), nn.SiLU()]
            layers += [nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False), BatchNorm(wide), nn.SiLU()]
            layers += [nn.Conv2d(wide, width, 1, bias=False), BatchNorm(width)]
        self.layers = nn.Sequential(*layers, SqueezeExcite(width))

    def forward(self, h: Tensor) -> Tensor:
        found: Tensor = self.layers(h)
        return _RESIDUAL * found


class SqueezeExcite(nn.Module):
    """h σ(W₂ ReLU(W₁ mean(h))), a gate for each feature (Hu, Shen, Sun 2018, https://arxiv.org/abs/1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(4, width // 16)
        self.gate = nn.Sequential(nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width), nn.Sigmoid())

    def forward(self, h: Tensor) -> Tensor:
        gate: Tensor = self.gate(h.mean((2, 3)))
        return h * gate[:, :, None, None]


_RESIDUAL = 0.1


def _cell(name: CellName, width: int, sides: Sides, scale: float, *, encodes: bool) -> nn.Module:
    """The residual branch of a block; ``scale`` multiplies the first weights of the last layer of a bottleneck."""
    if name == "plain":
        return Plain(width)
    if name == "separable":
        return Separable(width, encodes=encodes)
    cell = Narrow(width, _middle(width), width, sides)
    with torch.no_grad():
        cell.last.weight.mul_(scale)
    return cell


def _middle(width: int) -> int:
    return max(1, width // 4)


class MapSteps(nn.Module):
    """Inverse autoregressive steps z ← σ z + (1 − σ) m of maps of latents, each one pass of masked convolutions.

    (Kingma et al. 2016, https://arxiv.org/abs/1606.04934, figure 3.) A latent is moved by those of earlier pixels, and
    of earlier maps at its pixel, and by features d of the encoder at its pixel and those before it. The order is
    reversed in every other step. At first σ = σ(2) and m = 0.

    Args:
        latents: number of maps.
        width: features of d.
        hidden: features of the hidden layers.
    """

    def __init__(self, latents: int, sides: Sides, width: int, steps: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.latents, self.sides, self.bijection = latents, sides, GatedAverage()
        widths = [max(h, latents) for h in hidden]
        self.context = nn.Conv2d(width, steps * widths[0], 1)
        self.first = nn.ModuleList(
            MaskedConv(latents, widths[0], latents, window=square(3), mask="A") for _ in range(steps)
        )
        self.inner = nn.ModuleList(
            nn.ModuleList(MaskedConv(a, b, latents, window=square(3)) for a, b in pairwise(widths))
            for _ in range(steps)
        )
        self.last = nn.ModuleList(MaskedConv(widths[-1], 2 * latents, latents, parts=2) for _ in range(steps))
        for last in self.last:
            nn.init.zeros_(cast(Tensor, last.weight))
            nn.init.zeros_(cast(Tensor, last.bias))

    def outputs(self, step: int, z: Tensor, context: Tensor) -> Tensor:
        """h and m of every latent of maps ``(N, latents, *sides)``: ``(N, size, 2)``."""
        a: Tensor = self.first[step](z) + context
        for layer in cast(nn.ModuleList, self.inner[step]):
            a = layer(elu(a))
        found: Tensor = self.last[step](elu(a))
        return at_least_float32(torch.stack([part.flatten(1) for part in found.chunk(2, 1)], -1))

    def from_base(self, base: DiagonalGaussian, d: Tensor) -> Transformed:
        """The steps after any Gaussian ``(N, size)``, with features ``(N, width, *sides)``."""
        # Reversed latents lie at the opposite pixels, and so do their features.
        parts = enumerate(self.context(d).chunk(len(self.first), 1))
        contexts = [part.flip(2, 3) if step % 2 else part for step, part in parts]

        def flow_each(z: Tensor) -> tuple[Tensor, Tensor]:
            flat = z.flatten(0, 1)
            log_det = torch.zeros_like(flat)
            for step, context in enumerate(contexts):
                flat = flat.flip(1) if step % 2 else flat
                maps = flat.view(-1, self.latents, *self.sides).to(context.dtype)
                flat, each = self.bijection(flat, self.outputs(step, maps, context))
                flat, each = (flat.flip(1), each.flip(1)) if step % 2 else (flat, each)
                log_det = log_det + each
            return flat.view(z.shape), log_det.view(z.shape)

        def flow(z: Tensor) -> tuple[Tensor, Tensor]:
            found, log_det = flow_each(z)
            return found, log_det.sum(-1)

        return Transformed(base, flow, flow_each=flow_each)


class TopDownBlock(nn.Module):
    """One layer of latents on a residual stream h: (p, r) = f(h), q = g(h, d), h ← h + r + W z, h ← h + cell(h).

    p is N(0, I) at first, since the last layer of f starts at zero. r exists for ``bottleneck`` only; for the other
    cells f is a 1×1 and g a 3×3 convolution after an ELU.

    Args:
        width: features of h and d.
        latents: number of maps of z.
        posterior: see `approximation`.
        scale: of the first weights that add to the stream, √(1/N) with N blocks.
    """

    def __init__(
        self,
        width: int,
        latents: int,
        sides: Sides,
        *,
        cell: CellName,
        posterior: LayeredPosterior,
        scale: float,
        flow_steps: int,
        flow_hidden: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.latents, self.sides, self.posterior, self.has_rest = latents, sides, posterior, cell == "bottleneck"
        self.flow = MapSteps(latents, sides, width, flow_steps, flow_hidden) if posterior == "iaf" else None
        inner = width if posterior == "ladder" else 2 * width
        if cell == "bottleneck":
            self.prior: nn.Module = Narrow(width, _middle(width), 2 * latents + width, sides)
            self.own: nn.Module = Narrow(inner, _middle(width), 2 * latents, sides)
            last = self.prior.last
        else:
            last = nn.Conv2d(width, 2 * latents, 1)
            self.prior = nn.Sequential(nn.ELU(), last)
            self.own = nn.Sequential(nn.ELU(), nn.Conv2d(inner, 2 * latents, 3, padding=1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.embed = nn.Conv2d(latents, width, 1)
        nn.init.zeros_(cast(Tensor, self.embed.bias))
        with torch.no_grad():
            self.embed.weight.mul_(scale)
        self.cell = _cell(cell, width, sides, scale, encodes=False)

    def prior_of(self, h: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """p(z | h), and h + r."""
        outputs: Tensor = self.prior(h)
        own = 2 * self.latents
        return DiagonalGaussian.of(outputs[:, :own].flatten(1)), h + outputs[:, own:] if self.has_rest else h

    def posterior_of(self, h: Tensor, d: Tensor, p: DiagonalGaussian) -> Approximation:
        """q(z | h, d)."""
        outputs = self.own(d if self.posterior == "ladder" else torch.cat([h, d], 1)).flatten(1)
        if self.flow is not None:
            return self.flow.from_base(p.moved(DiagonalGaussian.of(outputs)), d)
        return approximation(self.posterior, outputs, p)

    def merged(self, h: Tensor, z: Tensor) -> Tensor:
        """h with z, after the cell."""
        h = h + self.embed(z.to(h.dtype).view(-1, self.latents, *self.sides))
        found: Tensor = h + self.cell(h)
        return found


class ConvHierarchy(Hierarchy):
    """Layers of maps of latents at several resolutions, on one residual stream (VD-VAE, NVAE, ResNet VAE).

    The encoder has cells at each resolution, one more before each average pooling, and gives features d of each
    resolution. Downwards, h starts as a learned map at the coarsest resolution, and is enlarged to the nearest pixels
    plus a learned constant between resolutions (Child 2021, https://arxiv.org/abs/2011.10650). At the finest
    resolutions there may be no latents; h then passes as many cells as the encoder has there. A condition adds a linear
    function of its features to the first h.

    Args:
        seen: number of input channels.
        sides: of the images.
        width: features of all maps.
        latents: maps of latents of a layer.
        blocks: number of layers at each resolution, from the finest.
        encoder_blocks: number of cells of the encoder at each resolution, from the finest.
        pooling: the factors between resolutions.
        given: number of features of a condition.

    Attributes:
        features: number of maps from which x is generated, of the sides of the image.
    """

    def __init__(
        self,
        seen: int,
        sides: Sides,
        width: int,
        latents: int,
        *,
        blocks: tuple[int, ...],
        encoder_blocks: tuple[int, ...],
        pooling: tuple[int, ...],
        cell: CellName,
        posterior: LayeredPosterior,
        given: int,
        flow_steps: int,
        flow_hidden: tuple[int, ...],
    ) -> None:
        super().__init__()
        every = [sides]
        for factor in pooling:
            every.append((every[-1][0] // factor, every[-1][1] // factor))
        self.every, self.features, self.widest = every, width, 6 * width * math.prod(sides)
        self.start = nn.Conv2d(seen, width, 3, padding=1)
        counts = [n + (r < len(pooling)) for r, n in enumerate(encoder_blocks)]
        scale = math.sqrt(1 / sum(counts))
        self.up = nn.ModuleList(
            nn.ModuleList(_cell(cell, width, own, scale, encodes=True) for _ in range(n))
            for own, n in zip(every, counts, strict=True)
        )
        scale = math.sqrt(1 / sum(blocks))
        self.level = [r for r, n in enumerate(blocks) for _ in range(n)]
        self.down = nn.ModuleList(
            TopDownBlock(
                width,
                latents,
                every[r],
                cell=cell,
                posterior=posterior,
                scale=scale,
                flow_steps=flow_steps,
                flow_hidden=flow_hidden,
            )
            for r in self.level
        )
        self.finishing = nn.ModuleList(  # of the finest resolutions, which have no latents
            nn.ModuleList(_cell(cell, width, every[r], scale, encodes=False) for _ in range(encoder_blocks[r]))
            for r in range(self.level[0])
        )
        self.bias = nn.ParameterList(nn.Parameter(torch.zeros(width, *own)) for own in every)
        self.condition = nn.Linear(given, width, bias=False) if given else None
        self.gain, self.shift = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))
        self.sizes = tuple(latents * math.prod(every[r]) for r in self.level)
        self.maps = (latents,) * len(self.level)
        self.groups = tuple("{}x{}".format(*every[r]) for r in self.level)

    def activations(self, seen: Tensor) -> list[Tensor]:
        """d of each resolution, from the finest: ``(B, width, *sides)``."""
        d: Tensor = self.start(seen)
        found: list[Tensor] = []
        for r, cells in enumerate(self.up):
            inner = list(cast(nn.ModuleList, cells))
            last = inner.pop() if r + 1 < len(self.every) else None
            for cell in inner:
                d = d + cell(d)
            found.append(d)
            if last is not None:
                d = adaptive_avg_pool2d(d + last(d), self.every[r + 1])
        return found

    def _first(self, n: int, given: Tensor | None) -> Tensor:
        h = self.bias[-1].expand(n, -1, -1, -1)
        return h if self.condition is None or given is None else h + self.condition(given)[:, :, None, None]

    def _at(self, r: int, h: Tensor) -> Tensor:
        """h at resolution r."""
        if h.shape[2:] == self.every[r]:
            return h
        return interpolate(h, size=self.every[r], mode="nearest") + self.bias[r]

    def _last(self, h: Tensor) -> Tensor:
        for r in reversed(range(len(self.finishing))):
            h = self._at(r, h)
            for cell in cast(nn.ModuleList, self.finishing[r]):
                h = h + cell(h)
        return (self.gain * h + self.shift).flatten(1)

    def infer(self, seen: Tensor, given: Tensor | None, copies: int, place: Place) -> Inferred:
        d = [_repeated(own, copies) for own in self.activations(seen)]
        h = self._first(len(d[0]), _repeated(given, copies))
        layers: list[Layer] = []
        for layer in reversed(range(len(self.sizes))):
            block, r = cast(TopDownBlock, self.down[layer]), self.level[layer]
            h = self._at(r, h)
            p, rest = block.prior_of(h)
            q = block.posterior_of(h, d[r], p)
            z, log_q = place(layer, q, p)
            layers.insert(0, Layer.placed(z, q, p, log_q))
            h = block.merged(rest, z)
        return Inferred(layers, self._last(h))

    def generate(self, n: int, given: Tensor | None, draw: Draw) -> Tensor:
        h = self._first(n, given)
        for layer in reversed(range(len(self.sizes))):
            block, r = cast(TopDownBlock, self.down[layer]), self.level[layer]
            h = self._at(r, h)
            p, rest = block.prior_of(h)
            h = block.merged(rest, draw(layer, p))
        return self._last(h)
