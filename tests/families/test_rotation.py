"""Rotation against a loop over images and rotations, and the network of the paper."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.selfsup import rotation
from unsup.families.selfsup.rotation import Rotation
from unsup.nn.augment import augment
from unsup.testing.subject import learn

EVENT = Event((3, 10, 10), Support("ordinal", 256))
SMALL = {"views": "none", "net": "nin-3", "width": 0.05}


def images(n: int = 7, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, *EVENT.shape), generator=Generator().manual_seed(seed), dtype=torch.uint8)


def model(**options: object) -> Rotation:
    torch.manual_seed(0)
    made = Rotation(EVENT, **(SMALL | options)).double()
    made.prepare(Batch(images(50, 1)), generator=Generator())
    return made


def numpy_loss(logits: list[Tensor], rotations: list[int]) -> Tensor:
    """The mean cross-entropy, from single rows of logits."""
    each = [(row.exp().sum().log() - row[answer]) for row, answer in zip(logits, rotations, strict=True)]
    return torch.stack(each).mean()


@pytest.mark.parametrize("training", [True, False])
def test_loss_and_gradient_are_those_of_a_loop_over_images_and_rotations(training: bool) -> None:
    ours = model().train(training)
    theirs = copy.deepcopy(ours)
    x = images()
    loss = ours.loss(Batch(x))["loss"]
    loss.mean().backward()
    turned, answers = [], []
    for image in x.numpy():
        for quarter in range(4):
            turned.append(torch.from_numpy(np.rot90(image, quarter, axes=(1, 2)).copy()))
            answers.append(quarter)
    if training:  # batch statistics are those of all rotations
        logits = list(theirs.head(theirs.backbone(torch.stack(turned).double() / 255)))
    else:
        logits = [theirs.head(theirs.backbone(one[None].double() / 255))[0] for one in turned]
    expected = numpy_loss(logits, answers)
    expected.backward()
    assert abs(float(loss.detach().mean() - expected.detach())) < 1e-9
    for row, start in zip(loss, range(0, len(logits), 4), strict=True):
        own = numpy_loss(logits[start : start + 4], answers[start : start + 4])
        assert abs(float((row - own).detach())) < 1e-9
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None, name
        assert q.grad is not None, name
        assert torch.allclose(p.grad, q.grad, rtol=1e-6, atol=1e-9), name


def test_what_the_network_sees_is_restored_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, seen = model(), []
    forward = ours.backbone.forward
    monkeypatch.setattr(ours.backbone, "forward", lambda x, stage=None: (seen.append(x), forward(x, stage))[1])
    x = images()
    ours.loss(Batch(x))
    (given,) = seen  # one pass
    assert len(given) == 4 * len(x)
    for quarter, part in enumerate(given.chunk(4)):
        back = np.rot90(part.numpy(), -quarter, axes=(2, 3))
        assert np.array_equal(np.round(back * 255).astype(np.uint8), x.numpy())
        assert np.array_equal(back, ours.unit(x).numpy())


def test_accuracy_is_the_share_of_right_answers() -> None:
    ours = model().eval()
    with torch.no_grad():
        for p in ours.head.parameters():
            p.zero_()
        ours.head.bias[2] = 1.0  # always 180 degrees
        terms = ours.loss(Batch(images()))
    assert terms["accuracy"].tolist() == [0.25] * 7
    assert torch.allclose(terms["loss"], torch.full((7,), math.log(3 + math.e)).double() - 0.25)


def test_discs_are_unsolvable_even_after_training() -> None:
    at = (torch.arange(10) - 4.5).square()
    radius = at[:, None] + at
    shade = torch.randint(0, 256, (40, 3, 82), generator=Generator().manual_seed(0), dtype=torch.uint8)
    x = shade[:, :, radius.long()]  # a level for each radius
    assert all(torch.equal(x, torch.rot90(x, k, (2, 3))) for k in range(4))
    ours = model()
    learn(ours.train(), lambda step: Batch(x), 10, 1e-2, lambda step: Generator())
    for mode in (True, False):
        with torch.no_grad():
            terms = ours.train(mode).loss(Batch(x))
        assert float((terms["accuracy"] - 0.25).abs().max()) == 0
        assert float(terms["loss"].min()) >= math.log(4) - 1e-12


def test_features_are_those_of_the_middle_block() -> None:
    ours = Rotation(EVENT, net="nin-4", width=0.1)
    assert ours.stage == 2
    x = images()
    ours.eval()
    with torch.no_grad():
        maps = ours.backbone.maps(ours.unit(x), 2)
        assert torch.equal(ours.encode(x), maps.mean((2, 3)))
    assert ours.code_size == 19
    stages = {name: Rotation(EVENT, net=name, width=0.1).stage for name in ("mlp", "nin-3", "nin-5", "resnet18")}
    assert stages == {"mlp": 1, "nin-3": 2, "nin-5": 3, "resnet18": 2}


def test_the_network_of_the_paper() -> None:
    """The blocks of RotNet for CIFAR-10: 5×5 192, 1×1 160, 1×1 96; 5×5 192, 1×1 192 twice; 3×3 twice more."""
    ours = Rotation(Event((3, 32, 32), Support("ordinal", 256)), **Rotation.presets["paper"])
    shapes = [tuple(p.shape) for p in ours.backbone.parameters() if p.ndim == 4]
    later = [(192, 192, 1, 1), (192, 192, 1, 1)]
    first = [(192, 3, 5, 5), (160, 192, 1, 1), (96, 160, 1, 1), (192, 96, 5, 5), *later]
    assert shapes == [*first, (192, 192, 3, 3), *later, (192, 192, 3, 3), *later]
    x = torch.zeros(2, 3, 32, 32)
    ours.eval()
    assert [ours.backbone.maps(x, stage).shape[2] for stage in (1, 2, 3, 4)] == [16, 8, 8, 8]
    assert ours.code_size == 192


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event((1, 8, 9), BINARY), "square images"),
        (Event((5,), BINARY), "takes images"),
        (Event((1, 8, 8), REAL), "images of levels"),
        (Event((1, 3, 3), BINARY), "needs 4 pixels or more; these are 3×3"),
    ],
)
def test_other_data_is_refused(event: Event, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rotation(event)


def test_changes_of_an_image_come_before_its_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = model().eval()
    x = images()
    flipped = ours.loss(Batch(x.flip(3)))["loss"]
    monkeypatch.setattr(rotation.Rotation, "view", lambda self, x, generator: x.flip(3))
    assert torch.equal(ours.loss(Batch(x))["loss"], flipped)


def test_images_are_augmented_before_they_are_rotated() -> None:
    plain, moved = (Rotation(EVENT, **(SMALL | {"views": views})).double() for views in ("none", "crop-flip"))
    moved.load_state_dict(plain.state_dict())
    x = moved.unit(torch.randint(0, 256, (6, *EVENT.shape), generator=Generator().manual_seed(0), dtype=torch.uint8))
    seen = augment(x, "crop-flip", Generator().manual_seed(1))
    assert not torch.equal(seen, x)
    assert torch.equal(moved.view(x, Generator().manual_seed(1)), seen)
    assert torch.equal(plain.view(x, Generator().manual_seed(1)), x)
