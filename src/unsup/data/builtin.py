"""Built-in data without files: the digits of scikit-learn, 2-D densities, synthetic pictures and sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unsup.core.errors import InputError
from unsup.core.event import REAL, Event, Support
from unsup.data import planes
from unsup.data.examples import Examples
from unsup.data.planes import CIRCLE_STD, CIRCLES, GRID_STD, GRID_STEP, MOON_STD, RING_RADIUS, RING_STD, SPIRAL_STD

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Draw = Callable[[int, np.random.Generator], tuple[Array, Labels | None]]


def digits() -> Examples:
    """The UCI handwritten digits of scikit-learn: (1, 8, 8), levels 0..16; split 70/10/20 by a hash."""
    from sklearn.datasets import load_digits  # slow to import

    found = load_digits()
    return Examples(
        torch.from_numpy(found.images.astype(np.uint8)).unsqueeze(1),
        Event((1, 8, 8), Support("ordinal", 17)),
        tuple(f"digit {i}" for i in range(len(found.images))),
        torch.from_numpy(found.target.astype(np.int64)),
        tuple(str(i) for i in range(10)),
        shares=(10, 20),
    )


def moons(*, n: int = 20_000) -> Examples:
    """Two half circles with Gaussian noise of std 0.1 (scikit-learn's ``make_moons``).

    Args:
        n: number of training examples of a synthetic set; validation and test have a tenth of it each.
    """

    from sklearn.datasets import make_moons  # slow to import

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        x, label = make_moons(n, noise=MOON_STD, random_state=int(rng.integers(2**31)))
        return x, label.astype(np.int64)

    return _plane("moons", draw, n)


def rings(*, n: int = 20_000) -> Examples:
    """Four circles of radius 0.75, 1.5, 2.25 and 3, Gaussian noise of std 0.08 (https://arxiv.org/abs/1810.01367)."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        label = rng.integers(4, size=n)
        angle = rng.uniform(0, 2 * np.pi, n)
        return _circle(angle) * np.array(CIRCLES)[label][:, None] + CIRCLE_STD * rng.standard_normal((n, 2)), label

    return _plane("rings", draw, n)


def ring8(*, n: int = 20_000) -> Examples:
    """Eight Gaussians of std 0.01 on the unit circle (Lin et al. 2018, https://arxiv.org/abs/1712.04086)."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        label = rng.integers(8, size=n)
        return RING_RADIUS * _circle(np.pi / 4 * label) + RING_STD * rng.standard_normal((n, 2)), label

    return _plane("ring8", draw, n)


def grid25(*, n: int = 20_000) -> Examples:
    """25 Gaussians of std 0.05 at {−4, −2, 0, 2, 4}² (Lin et al. 2018, https://arxiv.org/abs/1712.04086)."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        label = rng.integers(25, size=n)
        mean = GRID_STEP * (np.stack([label // 5, label % 5], 1) - 2.0)
        return mean + GRID_STD * rng.standard_normal((n, 2)), label

    return _plane("grid25", draw, n)


def checkerboard(*, n: int = 20_000) -> Examples:
    """Uniform on 8 of the 16 squares of side 2 of [−4, 4)²: density 1/32 where ⌊x/2⌋ + ⌊y/2⌋ is even."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, None]:
        column, pair = rng.integers(4, size=n), rng.integers(2, size=n)
        square = np.stack([column - 2, 2 * pair + column % 2 - 2], 1)
        return 2 * (square + rng.random((n, 2))), None

    return _plane("checkerboard", draw, n)


def pinwheel(*, n: int = 20_000) -> Examples:
    """Five Gaussian arms, rotated by an angle that grows with the radius (Johnson et al. 2016, 1603.06277)."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        label = rng.integers(5, size=n)
        arm = rng.standard_normal((n, 2)) * np.array(planes.ARM_STD) + np.array([1.0, 0.0])
        angle = 2 * np.pi / planes.ARMS * label + planes.ARM_RATE * np.exp(arm[:, 0])
        cos, sin = np.cos(angle), np.sin(angle)
        return 2 * np.stack([arm[:, 0] * cos - arm[:, 1] * sin, arm[:, 0] * sin + arm[:, 1] * cos], 1), label

    return _plane("pinwheel", draw, n)


def spirals(*, n: int = 20_000) -> Examples:
    """Two spirals of one and a half turns, radius up to π, Gaussian noise of std 0.1."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Labels]:
        label = rng.integers(2, size=n)
        angle = 3 * np.pi * np.sqrt(rng.random(n))
        side = (2 * label - 1)[:, None]
        return side * _circle(angle) * (angle / 3)[:, None] + SPIRAL_STD * rng.standard_normal((n, 2)), label

    return _plane("spirals", draw, n)


def shapes(*, n: int = 5_000, channels: Literal[1, 3] = 1) -> Examples:
    """One bright disc, square or triangle on a dark background: ``(channels, 16, 16)``, 256 levels, synthetic.

    Args:
        n: number of training examples, as in `moons`.
        channels: 1 or 3 channels of synthetic pictures.
    """
    sizes = _sizes("shapes", n)
    total, rng = sum(sizes), _source("shapes")
    label = rng.integers(3, size=total)
    centre, radius = rng.uniform(5, 10, (total, 2)), rng.uniform(3, 5, total)
    ground, ink = rng.integers(0, 96, (total, channels)), rng.integers(128, 256, (total, channels))
    inside = _inside(label, centre, radius)
    x = np.where(inside[:, None], ink[:, :, None, None], ground[:, :, None, None]).astype(np.uint8)
    return Examples(
        torch.from_numpy(x),
        Event((channels, 16, 16), Support("ordinal", 256)),
        _numbered(total),
        torch.from_numpy(label),
        ("disc", "square", "triangle"),
        sizes=sizes,
        split="drawn independently",
    )


def stripes(*, n: int = 2_000) -> Examples:
    """A pair of domains whose true translation is known: plain shapes and striped shapes, ``(3, 16, 16)``, 256 levels.

    Domain a has two shapes on a dark background (red discs, green squares or blue triangles) of random size and
    position, the second on top of the first. Domain b has the same with stripes in a pale tone of the same colour: with
    i the row from 0,

        T(x)[:, i, j] = pale(x[:, i, j]) if i is odd and x[:, i, j] is not background, else x[:, i, j],

    and T⁻¹ restores the full colour. T is the natural translation between the domains: stripes are always in the same
    rows, and colours cannot be exchanged, since each kind of shape has its own colour. (T after a reflection gives the
    same distribution; an identity loss rules this out.) The two domains of the training split have different shapes; in
    validation and test, ``domain_b`` is T(x).
    """
    sizes, rng = _sizes("stripes", n), _source("stripes")
    x, other = (torch.from_numpy(_two_shapes(size, rng)) for size in (sum(sizes), sizes[0]))
    return Examples(
        x,
        Event((3, 16, 16), Support("ordinal", 256)),
        _numbered(len(x)),
        sizes=sizes,
        split="drawn independently",
        domain_b=add_stripes(torch.cat([other, x[sizes[0] :]])),
    )


_GROUND = (40, 40, 60)
_COLOURS = ((210, 60, 50), (50, 170, 70), (60, 90, 220))  # colours of discs, squares, triangles
_PALE = ((250, 200, 190), (190, 250, 200), (190, 210, 250))


def add_stripes(x: torch.Tensor) -> torch.Tensor:
    """The translation T of `stripes` from domain a to b: uint8 ``(N, 3, 16, 16)`` → the same shape."""
    striped = (torch.arange(x.shape[2]) % 2 == 1).view(-1, 1)
    for colour, pale in zip(_COLOURS, _PALE, strict=True):
        full, light = (torch.tensor(c, dtype=torch.uint8).view(3, 1, 1) for c in (colour, pale))
        x = torch.where((x == full).all(1, keepdim=True) & striped, light, x)
    return x


def _two_shapes(total: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    x = np.empty((total, 3, 16, 16), np.uint8)
    x[:] = np.array(_GROUND, np.uint8).reshape(3, 1, 1)
    for _ in range(2):
        kind = rng.integers(3, size=total)
        inside = _inside(kind, rng.uniform(3, 12, (total, 2)), rng.uniform(3, 5, total))
        x = np.where(inside[:, None], np.array(_COLOURS, np.uint8)[kind][:, :, None, None], x)
    return x


def _inside(kind: Labels, centre: Array, radius: Array) -> NDArray[np.bool_]:
    """The masks ``(N, 16, 16)`` of discs (kind 0), squares (1) and triangles (2)."""
    down, right = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    v = (down[None] - centre[:, 0, None, None]) / radius[:, None, None]  # the shape spans [−1, 1]
    u = (right[None] - centre[:, 1, None, None]) / radius[:, None, None]
    disc, square = u**2 + v**2 <= 1, np.maximum(abs(u), abs(v)) <= 0.85
    triangle = (v <= 0.8) & (2 * abs(u) <= v + 1)
    return np.asarray(np.choose(kind[:, None, None], [disc, square, triangle]))


def markov(*, n: int = 5_000, length: int = 32, symbols: int = 4) -> Examples:
    """Sequences of a first-order Markov chain, started in equilibrium: ``(length,)``, nominal(symbols).

    With the equilibrium π and the transition matrix P of `markov_chain`, the entropy of an example is
    H(π) + (length − 1) Σ_i π_i H(P_i), the lower bound for any model. The notes state it.

    Args:
        n: number of training examples, as in `moons`.
        length: length of each sequence.
        symbols: number of symbols in synthetic sequences.
    """
    if length < 1 or not 2 <= symbols <= 256:
        raise InputError(f"markov: length={length}, symbols={symbols}; expected length >= 1 and 2 to 256 symbols")
    sizes, rng = _sizes("markov", n), _source("markov")
    start, transition = markov_chain(symbols)
    x = np.empty((sum(sizes), length), np.uint8)
    x[:, 0] = _categorical(np.broadcast_to(start, (len(x), symbols)), rng)
    for t in range(1, length):
        x[:, t] = _categorical(transition[x[:, t - 1]], rng)
    first, step = _entropy(start), float(start @ np.array([_entropy(row) for row in transition]))
    note = f"entropy {first + (length - 1) * step:.4f} nats per example, {step:.4f} nats per step"
    return Examples(
        torch.from_numpy(x),
        Event((length,), Support("nominal", symbols), "sequence"),
        _numbered(len(x)),
        notes=(note,),
        sizes=sizes,
        split="drawn independently",
    )


def markov_chain(symbols: int) -> tuple[Array, Array]:
    """Equilibrium ``(K,)`` and transition matrix ``(K, K)`` of the chain of `markov`."""
    transition = np.random.default_rng([symbols, 1906]).dirichlet(np.full(symbols, 0.5), symbols)
    transition = 0.95 * transition + 0.05 / symbols
    # π P = π and Σ π = 1, as one least-squares system.
    system = np.vstack([transition.T - np.eye(symbols), np.ones(symbols)])
    start = np.linalg.lstsq(system, np.append(np.zeros(symbols), 1.0), rcond=None)[0]
    return start, transition


def _entropy(p: Array) -> float:
    return float(-(p * np.log(p)).sum())


def _categorical(p: Array, rng: np.random.Generator) -> NDArray[Any]:
    """One draw from each row of ``p`` ``(N, K)`` by inverting its cumulative sum."""
    return np.asarray(np.count_nonzero(rng.random((len(p), 1)) > p.cumsum(1)[:, :-1], axis=1))


def _plane(name: str, draw: Draw, n: int) -> Examples:
    sizes = _sizes(name, n)
    x, label = draw(sum(sizes), _source(name))
    classes = 0 if label is None else int(label.max()) + 1
    return Examples(
        torch.from_numpy(x.astype(np.float32)),
        Event((2,), REAL),
        _numbered(len(x)),
        None if label is None else torch.from_numpy(label),
        tuple(str(i) for i in range(classes)) or None,
        notes=(f"entropy {planes.entropy(name):.4f} nats per example",),
        sizes=sizes,
        split="drawn independently",
    )


def _sizes(name: str, n: int) -> tuple[int, int, int]:
    """n training examples, and a tenth of n for validation and for test."""
    if n < 10:
        raise InputError(f"{name}: n={n} training examples; expected at least 10")
    return n, n // 10, n // 10


def _source(name: str) -> np.random.Generator:
    return np.random.default_rng(list(name.encode()))


def _circle(angle: NDArray[Any]) -> Array:
    return np.stack([np.cos(angle), np.sin(angle)], 1)


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(n))
