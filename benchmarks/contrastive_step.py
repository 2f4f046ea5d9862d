"""Training steps of SimCLR, MoCo, BYOL and VICReg, augmentation included, against the example loops of lightly.

Lightly takes its transforms from torchvision, which has no build for CPUs: ``pip install --no-deps lightly
lightly_utils lightning_utilities torchvision``. Its compiled operators are not used here, and are declared so that it
can be imported.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import Measured, Several, interleave
from benchmarks.vq_vae_step import trainer_step
from unsup.core.event import Event, Support
from unsup.nn.backbones import build_backbone

BATCH, WIDTH, QUEUE, WORKERS = 256, 0.25, 4096, 2
EVENT = Event((3, 32, 32), Support("ordinal", 256), "image")
_DECLARED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def contrastive_steps() -> Several:
    """One row for each model."""
    _declare_operators()
    x = torch.randint(0, 256, (8 * BATCH, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    net = {"net": "resnet18", "width": WIDTH}
    options: dict[str, dict[str, Any]] = {
        "simclr": net,
        "moco": net | {"queue": QUEUE},
        "byol": net | {"projection": (512, 128), "prediction": (512,)},
        "vicreg": net | {"expander": (512, 512, 512)},
    }
    return Several([_measure(name, x, own) for name, own in options.items()])


def _measure(name: str, x: Tensor, options: dict[str, Any]) -> Measured:
    return interleave(
        f"{name}, one step, batch {BATCH} of 3×32², ResNet-18 of {WIDTH:g} of the widths",
        trainer_step(x, "auto", name, options, event=EVENT, batch=BATCH),
        {
            f"lightly, its transforms in {WORKERS} workers": _lightly_step(name, x, bfloat16=False),
            "the same under bfloat16 autocast": _lightly_step(name, x, bfloat16=True),
        },
        rounds=5,
        target="≥ 3×" if name == "simclr" else "≥ 1×",
        note=f"the same backbone, heads, recipe and queue on both sides; {torch.get_num_threads()} thread(s)",
    )


@functools.cache
def _declare_operators() -> torch.library.Library:
    """The declarations, which last as long as the library that is returned."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for signature in _DECLARED:
        if not hasattr(torch.ops.torchvision, signature.partition("(")[0]):
            library.define(signature)
    return library


def _lightly_step(name: str, x: Tensor, *, bfloat16: bool) -> Callable[[], None]:
    batches = _batches(x)
    loss_of, parameters = {"simclr": _simclr, "moco": _moco, "byol": _byol, "vicreg": _vicreg}[name]()
    optimizer = torch.optim.Adam(parameters, lr=1e-3)

    def step() -> None:
        first, second = next(batches)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = loss_of(first, second)
        loss.backward()
        optimizer.step()

    return step


def _batches(x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless pairs of views by the transforms of lightly, of images as PIL has them."""
    from lightly.transforms import SimCLRTransform
    from PIL import Image

    images = [Image.fromarray(np.ascontiguousarray(one)) for one in x.permute(0, 2, 3, 1).numpy()]
    transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0)

    class Views(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            return transform(images[index])

    loader = torch.utils.data.DataLoader(
        Views(), batch_size=BATCH, shuffle=True, drop_last=True, num_workers=WORKERS, persistent_workers=True
    )
    while True:
        yield from loader


Parts = tuple[Callable[[Tensor, Tensor], Tensor], list[nn.Parameter]]


def _net() -> nn.Module:
    return build_backbone("resnet18", EVENT, width=WIDTH, owner="benchmark")


def _simclr() -> Parts:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    net = _net()
    model = nn.Sequential(net, SimCLRProjectionHead(net.size, net.size, 128))
    criterion = NTXentLoss(temperature=0.5)
    return (lambda a, b: criterion(model(a), model(b))), list(model.parameters())


def _moco() -> Parts:
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import update_momentum

    net = _net()
    model = nn.Sequential(net, MoCoProjectionHead(net.size, 128, 128))
    teacher = copy.deepcopy(model).requires_grad_(False)
    criterion = NTXentLoss(temperature=0.2, memory_bank_size=(QUEUE, 128))

    def loss(a: Tensor, b: Tensor) -> Tensor:
        update_momentum(model, teacher, m=0.99)
        query = model(a)
        with torch.no_grad():
            key = teacher(b)
        found: Tensor = criterion(query, key)
        return found

    return loss, list(model.parameters())


def _byol() -> Parts:
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import update_momentum

    net = _net()
    model = nn.Sequential(net, BYOLProjectionHead(net.size, 512, 128))
    predictor = BYOLPredictionHead(128, 512, 128)
    teacher = copy.deepcopy(model).requires_grad_(False)
    criterion = NegativeCosineSimilarity()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        update_momentum(model, teacher, m=0.99)
        one, two = predictor(model(a)), predictor(model(b))
        with torch.no_grad():
            first, second = teacher(a), teacher(b)
        found: Tensor = 0.5 * (criterion(one, second) + criterion(two, first))
        return found

    return loss, [*model.parameters(), *predictor.parameters()]


def _vicreg() -> Parts:
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead

    net = _net()
    model = nn.Sequential(net, VICRegProjectionHead(net.size, 512, 512, num_layers=3))
    criterion = VICRegLoss()
    return (lambda a, b: criterion(model(a), model(b))), list(model.parameters())
