"""Train the feature extractors of the library: ``python -m unsup.train.extractors grey colour -o FOLDER``.

``grey`` classifies the 20 classes of MNIST and Fashion-MNIST; ``colour`` the 10 classes of CIFAR-10 and the 10 of
MNIST, with digits and backgrounds of random colours. Batch norm is folded into the convolutions before the weights are
written as float16. A run is determined by its seed, except that the last digits of bfloat16 products depend on the
machine.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate

from unsup.core.model import keyed_generator
from unsup.core.storage import save_tensors
from unsup.data import Data, load_data
from unsup.evaluate.features import PLANS, SIDE, ConvNet, to_square, to_unit

LOG = logging.getLogger(__name__)
BATCH, EPOCHS, RATE, DECAY = 128, {"grey": 4, "colour": 7}, 3e-3, 5e-2
COLOURED = 5_000  # number of digits in each epoch
_WEIGHTS, _ORDER, _DISTORT, _PAINT = range(4)


@dataclass(frozen=True, eq=False)
class Task:
    """The data of one extractor: uint8 images ``(N, C, 32, 32)`` and their classes, for training and testing."""

    train: tuple[Tensor, Tensor]
    test: dict[str, tuple[Tensor, Tensor]]
    classes: tuple[str, ...]
    data: tuple[str, ...]


def grey_task() -> Task:
    """MNIST (classes 0–9) and Fashion-MNIST (classes 10–19), training splits."""
    digits, clothes = load_data("mnist"), load_data("fashion-mnist")
    train = [_levels(d.train.x) for d in (digits, clothes)]
    test = [_levels(d.test.x) for d in (digits, clothes)]
    return Task(
        (torch.cat(train), torch.cat([_label(digits, "train"), 10 + _label(clothes, "train")])),
        {"mnist": (test[0], _label(digits, "test")), "fashion-mnist": (test[1], 10 + _label(clothes, "test"))},
        (*(f"digit {i}" for i in range(10)), *_names(clothes)),
        ("mnist", "fashion-mnist"),
    )


def colour_task(photographs: str, seed: int) -> Task:
    """Photographs (classes 0–9) and coloured digits (classes 10–19)."""
    photos, digits = load_data(photographs), load_data("mnist")
    painted = paint(_levels(digits.train.x[:COLOURED]), keyed_generator(seed, _PAINT))
    painted_test = paint(_levels(digits.test.x), keyed_generator(seed, _PAINT, 1))
    x = torch.cat([_levels(photos.train.x), _levels(photos.validation.x), painted])
    label = torch.cat([_label(photos, "train"), _label(photos, "validation"), 10 + _label(digits, "train")[:COLOURED]])
    return Task(
        (x, label),
        {
            "photographs": (_levels(photos.test.x), _label(photos, "test")),
            "coloured digits": (painted_test, 10 + _label(digits, "test")),
        },
        (*_names(photos), *(f"digit {i}" for i in range(10))),
        (Path(photographs).name, "mnist, coloured"),
    )


def paint(grey: Tensor, generator: Generator) -> Tensor:
    """Grey images ``(N, 1, 32, 32)`` in a random colour on another: uint8 ``(N, 3, 32, 32)``."""
    n = len(grey)
    ground, ink = torch.randint(256, (2, n, 3, 1, 1), generator=generator)
    share = grey.float() / 255
    return (ground + share * (ink - ground)).round().to(torch.uint8)


def train_extractor(
    name: str, task: Task, *, seed: int = 0, epochs: int | None = None
) -> tuple[ConvNet, dict[str, float]]:
    """Train one extractor, and return its accuracy on each test set."""
    channels, plan = PLANS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(keyed_generator(seed, _WEIGHTS).initial_seed())
        net = ConvNet(channels, plan, len(task.classes))
    norms = nn.ModuleList(nn.BatchNorm2d(width) for width, _ in plan)
    parameters = [p for m in (net, norms) for p in m.parameters()]
    x, label = task.train
    steps_an_epoch = len(x) // BATCH
    total = steps_an_epoch * (epochs or EPOCHS[name])
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=total, pct_start=0.2)
    started = time.monotonic()
    for step in range(total):
        epoch, place = divmod(step, steps_an_epoch)
        if place == 0:
            order = torch.randperm(len(x), generator=keyed_generator(seed, _ORDER, epoch))
        rows = order[place * BATCH : (place + 1) * BATCH]
        images = distort(x[rows], keyed_generator(seed, _DISTORT, step), mirror=name == "colour")
        with torch.autocast("cpu", torch.bfloat16):
            logits = _forward(net, norms, images)
        loss = cross_entropy(logits.float(), label[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            LOG.info("%s step %d/%d loss %.3f, %.0f s", name, step + 1, total, loss.item(), time.monotonic() - started)
    fold(net, norms)
    for p in net.parameters():
        p.data = p.data.half().float()  # the weights as the file will store them
    return net, {k: accuracy(net, *v) for k, v in task.test.items()}


def distort(x: Tensor, generator: Generator, *, mirror: bool) -> Tensor:
    """Augmentation: uint8 images to [0, 1].

    Each image is shifted by up to 2 pixels, rotated by up to 8°, scaled by up to 8 % and, with ``mirror``, mirrored
    with probability ½. A fifth of the batches is first reduced in resolution (to 8, 14 or 20 pixels a side), and a
    fifth of grey images is randomly binarised, like binary data.
    """
    n = len(x)
    unit = to_unit(x, (0.0, 255.0))
    draw = torch.rand(4, n, generator=generator) * 2 - 1
    angle, scale = draw[0] * 0.14, 1 + draw[1] * 0.08
    cos, sin, shift = angle.cos() * scale, angle.sin() * scale, draw[2:] * 4 / SIDE
    flip = torch.where(torch.rand(n, generator=generator) < 0.5 * mirror, -1.0, 1.0)
    rows = torch.stack([cos * flip, -sin, shift[0], sin * flip, cos, shift[1]], 1).view(n, 2, 3)
    unit = grid_sample(unit, affine_grid(rows, list(unit.shape), align_corners=False), align_corners=False)
    chance, size = torch.rand(1, generator=generator).item(), int(torch.randint(3, (1,), generator=generator))
    if chance < 0.2:
        side = (8, 14, 20)[size]
        small = interpolate(unit, (side, side), mode="bilinear", align_corners=False, antialias=True)
        unit = interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    elif x.shape[1] == 1:
        binary = torch.rand(n, 1, 1, 1, generator=generator) < 0.25
        unit = torch.where(binary, (torch.rand(unit.shape, generator=generator) < unit).float(), unit)
    return unit


def _forward(net: ConvNet, norms: nn.ModuleList, x: Tensor) -> Tensor:
    for convolution, norm in zip(net.convolutions, norms, strict=True):
        x = norm(convolution(x)).relu()
    logits: Tensor = net.head(x.mean((2, 3)))
    return logits


@torch.no_grad()
def fold(net: ConvNet, norms: nn.ModuleList) -> None:
    """Fold each batch norm (its running statistics) into the convolution before it."""
    for convolution, norm in zip(cast("Iterable[nn.Conv2d]", net.convolutions), norms, strict=True):
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert convolution.bias is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        convolution.weight.mul_(factor[:, None, None, None])
        convolution.bias.copy_((convolution.bias - norm.running_mean) * factor + norm.bias)


@torch.no_grad()
def accuracy(net: ConvNet, x: Tensor, label: Tensor) -> float:
    """Accuracy on uint8 images ``(N, C, 32, 32)``."""
    hits = sum(
        int((net(to_unit(part, (0.0, 255.0)))[1].argmax(1) == own).sum())
        for part, own in zip(x.split(500), label.split(500), strict=True)
    )
    return hits / len(x)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m unsup.train.extractors", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=tuple(PLANS))
    parser.add_argument("-o", "--out", required=True, help="folder for NAME.safetensors")
    parser.add_argument("--photographs", default="cifar10", help="data of the colour extractor [cifar10]")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        started = time.monotonic()
        task = grey_task() if name == "grey" else colour_task(options.photographs, options.seed)
        net, accuracies = train_extractor(name, task, seed=options.seed)
        record = {
            "extractor": name,
            "classes": list(task.classes),
            "data": list(task.data),
            "accuracy": accuracies,
            "seed": options.seed,
            "epochs": EPOCHS[name],
        }
        save_tensors(folder / f"{name}.safetensors", {k: v.half() for k, v in net.state_dict().items()}, record)
        LOG.info("%s: %s, %.0f s", name, accuracies, time.monotonic() - started)


def _levels(x: Tensor) -> Tensor:
    """uint8 images to uint8 squares of 32 pixels."""
    return torch.cat([(255 * to_square(to_unit(part, (0.0, 255.0)))).round().to(torch.uint8) for part in x.split(5000)])


def _label(data: Data, split: str) -> Tensor:
    label = getattr(data, split).label
    assert label is not None
    return label


def _names(data: Data) -> tuple[str, ...]:
    assert data.labels is not None
    return data.labels


if __name__ == "__main__":
    main()
