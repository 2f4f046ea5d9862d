"""Features for the comparison of samples: raw examples → points ``(N, D)`` and, for classifiers, logits.

``grey`` and ``colour`` are small convolutional classifiers included in the library (`unsup.train.extractors` trains
them); features are the last layer's ReLU averaged over positions. ``raw`` is the data itself, standardised with the
training split. ``inception`` is the Inception network of the published figures, from the extra ``metrics``. Numbers of
different extractors are not comparable, so each extractor has a name and a digest.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, one_hot, pad

from unsup.core.errors import CapabilityError, InputError
from unsup.core.event import Event, Support
from unsup.core.machine import fast_cpu
from unsup.core.storage import load_tensors

SIDE = 32
CHUNK = 500
"""Examples in one pass through an extractor."""
PLANS: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "grey": (1, ((32, 2), (64, 2), (96, 1), (128, 2), (128, 1))),
    "colour": (3, ((32, 1), (64, 2), (96, 2), (128, 1), (128, 2))),
}
"""Channels of the image, then (channels, stride) of each 3×3 convolution."""
_MOST_COLUMNS = 4096  # of raw features: the covariance of more takes minutes
NAMES = ("auto", *PLANS, "raw", "inception")


@dataclass(frozen=True, eq=False)
class Features:
    """Features ``(N, D)`` of examples and logits ``(N, K)`` of the extractor's classes, if any; float32, on the CPU."""

    points: Tensor
    logits: Tensor | None

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: slice) -> Features:
        return Features(self.points[rows], None if self.logits is None else self.logits[rows])


class Extractor(ABC):
    """Maps raw examples of one event to features.

    Attributes:
        name: the value for ``--extractor``.
        digest: SHA-256 of everything that the features depend on, except the examples.
    """

    name: str
    digest: str

    @abstractmethod
    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points ``(B, D)`` and logits ``(B, K)``, or None, of raw examples ``(B, *event.shape)``."""

    @torch.no_grad()
    def __call__(self, x: Tensor, *, on_chunk: Callable[[int], None] | None = None) -> Features:
        """Features of raw examples ``(N, *event.shape)``; ``on_chunk`` is called with the size of each chunk."""
        found = []
        with fast_cpu(torch.device("cpu")):
            for chunk in x.split(CHUNK):
                found.append(self.compute(chunk.cpu()))
                if on_chunk is not None:
                    on_chunk(len(chunk))
        logits = [q.float() for _, q in found if q is not None]
        return Features(torch.cat([p.float() for p, _ in found]), torch.cat(logits) if logits else None)


class ConvNet(nn.Module):
    """3×3 convolutions with ReLU, the mean over positions, one linear layer: ``(B, C, 32, 32)`` → points, logits."""

    def __init__(self, channels: int, plan: tuple[tuple[int, int], ...], classes: int) -> None:
        super().__init__()
        sizes = (channels, *(width for width, _ in plan))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[i], width, 3, stride, padding=1) for i, (width, stride) in enumerate(plan)
        )
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for convolution in self.convolutions:
            x = convolution(x).relu()
        points = x.mean((2, 3))  # (B, D)
        return points, self.head(points)


class ConvExtractor(Extractor):
    """``grey`` or ``colour``: the included weights, stored as float16 and used in float32.

    Levels are scaled to [0, 1]; see `to_square` for the size.
    """

    def __init__(self, name: str, event: Event, span: tuple[float, float], weights: Path | None = None) -> None:
        path = weights or weights_path(name)
        tensors, self.record = load_tensors(path)
        channels, plan = PLANS[name]
        if not event.is_image or event.shape[0] not in {1, channels}:
            raise InputError(
                f"the extractor {name!r} takes images of {channels} channel{'s' * (channels > 1)}; this data is {event}"
                "; remove --extractor, or use 'raw'"
            )
        self.name, self.digest = name, hashlib.sha256(path.read_bytes()).hexdigest()
        self.classes: tuple[str, ...] = tuple(self.record["classes"])
        self.channels, self.span = channels, span
        self.net = ConvNet(channels, plan, len(self.classes))
        self.net.load_state_dict({k: v.float() for k, v in tensors.items()})
        self.net.eval()

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        found: tuple[Tensor, Tensor] = self.net(to_square(to_unit(x, self.span)).expand(-1, self.channels, -1, -1))
        return found


class RawExtractor(Extractor):
    """The flattened data, standardised with the training split; categories become indicators.

    Constant columns are only centred.
    """

    name = "raw"

    def __init__(self, event: Event, train: Tensor) -> None:
        self.event = event
        if (size := column_count(event)) > _MOST_COLUMNS:
            raise InputError(
                f"the extractor 'raw' would make {size:,} columns of {event}; expected at most {_MOST_COLUMNS:,}"
            )
        flat = torch.cat([columns_of(part, event) for part in train.split(CHUNK)])
        self.mean, std = flat.mean(0), flat.std(0, correction=0)
        self.std = torch.where(std > 0, std, torch.ones_like(std))
        self.digest = hashlib.sha256(torch.stack([self.mean, self.std]).numpy().tobytes()).hexdigest()

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return (columns_of(x, self.event) - self.mean) / self.std, None


def column_count(event: Event) -> int:
    """The number of columns of `columns_of`."""
    return sum(s.levels if s.kind == "nominal" else 1 for s in event.columns)


def columns_of(x: Tensor, event: Event, dtype: torch.dtype = torch.float64) -> Tensor:
    """Flattened raw examples, with an indicator for each level of a nominal entry: ``(B, *shape)`` → ``(B, D)``."""
    flat, columns = x.flatten(1), event.columns
    if all(s.kind != "nominal" for s in set(columns)):
        return flat.to(dtype)
    entries = zip(flat.T, columns, strict=True)
    parts = (one_hot(v.long(), s.levels) if s.kind == "nominal" else v[:, None] for v, s in entries)
    return torch.cat([part.to(dtype) for part in parts], 1)


class InceptionExtractor(Extractor):
    """The 2048 pool features and the logits without bias of the TF-2015 Inception network, by torch-fidelity.

    Levels are scaled to 0…255 and rounded; torch-fidelity resizes to 299×299.
    """

    name = "inception"

    def __init__(self, event: Event, span: tuple[float, float]) -> None:
        if not event.is_image or event.shape[0] not in {1, 3}:
            raise InputError(f"the extractor 'inception' takes grey or colour images; this data is {event}; give 'raw'")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except (ImportError, RuntimeError, AttributeError) as error:  # torchvision of another torch raises the latter
            raise CapabilityError(
                f"the extractor 'inception' needs the extra metrics ({_line(error)}); install it with pip install "
                "'unsup[metrics]', or remove --extractor"
            ) from error
        self.span = span
        try:
            self.net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        except OSError as error:
            raise InputError(
                f"the weights of the extractor 'inception' cannot be downloaded ({_line(error)}); connect to the "
                "internet once, or remove --extractor"
            ) from error
        self.digest = digest_of(self.net.state_dict())

    def compute(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = (255 * to_unit(x, self.span)).round().to(torch.uint8)
        found: tuple[Tensor, Tensor] = self.net(levels.expand(-1, 3, -1, -1))
        return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def choose_extractor(name: str, event: Event, train: Tensor) -> Extractor:
    """The extractor called ``name`` for raw data like ``train`` ``(N, *event.shape)``.

    ``auto`` is ``grey`` for images of one channel, ``colour`` for three, ``raw`` for other data.

    Raises:
        InputError: an unknown name, or an extractor that does not support this data.
        CapabilityError: ``inception`` without its extra.

    >>> from unsup import load_data
    >>> moons = load_data("moons", n=100)
    >>> extractor = choose_extractor("auto", moons.event, moons.train.x)
    >>> extractor.name, tuple(extractor(moons.train.x).points.shape)
    ('raw', (100, 2))
    """
    if name == "auto":
        channels = event.shape[0] if event.is_image else 0
        name = {1: "grey", 3: "colour"}.get(channels, "raw")
    if name in PLANS:
        return ConvExtractor(name, event, span_of(event, train))
    if name == "raw":
        return RawExtractor(event, train)
    if name == "inception":
        return InceptionExtractor(event, span_of(event, train))
    raise InputError(f"there is no extractor {name!r}; known: {', '.join(NAMES)}")


def weights_path(name: str) -> Path:
    """The path of the included weights of ``grey`` or ``colour``."""
    return Path(str(resources.files("unsup.evaluate"))) / "weights" / f"{name}.safetensors"


def span_of(event: Event, train: Tensor) -> tuple[float, float]:
    """The values for black and white: the ends of the support, or of the training data if the support is real."""
    support = event.uniform
    if support is None or not support.is_discrete:
        return float(train.min()), float(train.max())
    return float(support.low), float(support.low + support.levels - 1)


def to_unit(x: Tensor, span: tuple[float, float]) -> Tensor:
    """Raw values to [0, 1]; values outside ``span`` are clamped."""
    low, high = span
    return ((x.float() - low) / max(high - low, 1e-12)).clamp(0, 1)


def to_square(x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` in [0, 1] → ``(B, C, 32, 32)``.

    An image is centred on a black square of its longer side, or of 32 if that is 25 to 32; other sizes are then
    resized, bilinear with antialiasing.

    >>> to_square(torch.ones(1, 1, 28, 28)).sum().item()
    784.0
    """
    longer = max(x.shape[2:])
    side = SIDE if 25 <= longer <= SIDE else longer
    down, right = side - x.shape[2], side - x.shape[3]
    x = pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    if side == SIDE:
        return x
    return interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@functools.cache
def digit_reader() -> ConvExtractor:
    """The extractor ``grey`` for grey levels 0…255; its first ten classes are MNIST's digits."""
    return ConvExtractor("grey", Event((1, 28, 28), Support("ordinal", 256)), (0.0, 255.0))


def read_digits(x: Tensor, *, on_chunk: Callable[[int], None] | None = None) -> Tensor:
    """The most probable digit of each grey image ``(N, 1, H, W)`` of levels 0…255: int64 ``(N,)``."""
    logits = digit_reader()(x, on_chunk=on_chunk).logits
    assert logits is not None
    return logits[:, :10].argmax(1)
