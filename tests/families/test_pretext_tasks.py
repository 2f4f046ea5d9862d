"""What holds for every made-up classification task: chance where nothing can be known, and what moves what."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

import unsup
from unsup.core.batch import Batch, Time
from unsup.core.event import Event, Support
from unsup.data.source import Data, Split
from unsup.families.selfsup import jigsaw, patch_position, rotation
from unsup.nn.feature_model import FeatureModel
from unsup.nn.guesses import guesses
from unsup.testing.subject import learn

LEVELS = Support("ordinal", 256)


@dataclass(frozen=True)
class Task:
    """A model, the number of answers among which it chooses, and a task that takes seconds."""

    module: Any
    side: int
    answers: int
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 5e-3
    steps: int = 100

    def model(self, *, channels: int = 1, seed: int = 0, **options: Any) -> FeatureModel:
        name = {rotation: "rotation", patch_position: "patch-position", jigsaw: "jigsaw"}[self.module]
        event = Event((channels, self.side, self.side), LEVELS)
        made = unsup.create(name, event, preset="tiny", seed=seed, **(self.options | options))
        assert isinstance(made, FeatureModel)
        return made


TASKS = {
    "rotation": Task(rotation, 12, 4, {"width": 0.05}),
    "patch-position": Task(patch_position, 16, 8),
    "jigsaw": Task(jigsaw, 15, 5, {"width": 0.1, "hidden": (16, 32)}),
}
EVERY = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def noise(n: int, side: int, generator: Generator, channels: int = 1) -> Tensor:
    return torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


def bowls(n: int, side: int, generator: Generator, channels: int = 1) -> Tensor:
    """Brightness grows with the distance from a place above the centre, in all images: each part has its direction."""
    at = torch.arange(side) - (side - 1) / 2
    height = (at[:, None] + side / 6).square() + at.square()
    shares = height / height.max()
    contrast = 0.5 + 0.5 * torch.rand(n, channels, 1, 1, generator=generator)
    grain = 0.01 * torch.randn(n, channels, side, side, generator=generator)
    return (255 * (contrast * shares + grain).clamp(0, 1)).to(torch.uint8)


def seeded(*words: int) -> Generator:
    return Generator().manual_seed(sum(w * 1000**i for i, w in enumerate(words)))


def trained(task: Task, images: Callable[..., Tensor], **options: Any) -> FeatureModel:
    model = task.model(**options)
    channels = model.event.shape[0]
    model.prepare(Batch(images(64, task.side, seeded(1), channels)), generator=seeded(2))
    learn(
        model.train(),
        lambda step: Batch(images(32, task.side, seeded(3, step), channels)),
        task.steps,
        task.rate,
        lambda step: seeded(4, step),
    )
    return model


@torch.no_grad()
def accuracies(model: FeatureModel, x: Tensor) -> Tensor:
    """Of each example, in the mode of the model."""
    return copy.deepcopy(model).double().loss(Batch(x), generator=seeded(5))["accuracy"]


def assert_chance(task: Task, model: FeatureModel, x: Tensor) -> None:
    """In both modes: statistics of the batch must not give the answer away either."""
    for training in (True, False):
        found = accuracies(model.train(training), x)
        error = float(found.std()) / math.sqrt(len(found))
        assert abs(float(found.mean()) - 1 / task.answers) < 4 * error + 1e-12


@EVERY
def test_noise_gives_chance(task: Task) -> None:
    model = trained(task, noise)
    assert_chance(task, model, noise(400, task.side, seeded(6)))


@EVERY
def test_a_planted_gradient_is_solved(task: Task) -> None:
    model = trained(task, bowls).eval()
    assert float(accuracies(model, bowls(200, task.side, seeded(6))).mean()) > 0.8


@EVERY
def test_shuffled_answers_give_chance(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = seeded(7)

    def shuffled(logits: Tensor, target: Tensor) -> Any:
        return guesses(logits, target.flatten()[torch.randperm(target.numel(), generator=drawn)].view(target.shape))

    monkeypatch.setattr(task.module, "guesses", shuffled)
    model = trained(task, bowls)
    assert_chance(task, model, bowls(400, task.side, seeded(6)))


@EVERY
def test_before_training_the_loss_is_near_that_of_guessing(task: Task) -> None:
    model = task.model().eval()
    loss = model.loss(Batch(noise(50, task.side, seeded(1))), generator=seeded(2))["loss"].detach()
    assert abs(float(loss.mean()) - math.log(task.answers)) < 0.2


@EVERY
def test_the_loss_moves_the_backbone_and_the_head_and_accuracy_nothing(task: Task) -> None:
    model = task.model(channels=3).double()
    terms = model.loss(Batch(noise(20, task.side, seeded(1), 3)), generator=seeded(2))
    assert set(terms) == {"loss", "accuracy"}
    assert all(term.shape == (20,) for term in terms.values())
    assert not terms["accuracy"].requires_grad
    terms["loss"].mean().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    assert moved == {name for name, _ in model.named_parameters()}
    parts = {name.split(".")[0] for name in moved}
    assert parts - {"backbone"} == {n for n, child in model.named_children() if n != "backbone"} != set()


@EVERY
def test_codes_are_those_of_a_stage_alone(task: Task) -> None:
    for stage in (1, 2):
        model = task.model(channels=3, stage=stage).double()
        x = noise(6, task.side, seeded(1), 3)
        codes = model.encode(x)
        assert codes.shape == (6, model.code_size)
        assert model.training
        with torch.no_grad():
            for name, p in model.named_parameters():
                number = name.split(".")[2] if name.startswith("backbone.stages.") else "99"
                if int(number) >= stage:
                    p.add_(1)
        assert torch.equal(model.encode(x), codes)
        with torch.no_grad():
            first = next(model.backbone.stages[stage - 1].parameters())
            first.add_(torch.randn(first.shape, generator=seeded(8), dtype=first.dtype))
        assert not torch.allclose(model.encode(x), codes)


@EVERY
def test_stages_that_the_net_does_not_have_are_refused(task: Task) -> None:
    with pytest.raises(unsup.InputError, match="stage=9 should be at most"):
        task.model(stage=9)


@EVERY
def test_the_answers_of_a_step_are_those_of_its_generator(task: Task) -> None:
    model = task.model(channels=3).eval()
    batch = Batch(noise(20, task.side, seeded(1), 3))
    first, again, other = (model.loss(batch, generator=seeded(seed))["loss"] for seed in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Killed(Exception):
    pass


@EVERY
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(task: Task, tmp_path: Path) -> None:
    x = noise(40, task.side, seeded(1), 3)
    whole, killed, again = (task.model(channels=3) for _ in range(3))
    data = Data(None, whole.event, *(Split(own) for own in (x[:20], x[20:30], x[30:])))
    settings: dict[str, Any] = {
        "steps": 5,
        "batch_size": 8,
        "checkpoint_seconds": 0,
        "progress": "off",
        "device": "cpu",
    }
    unsup.fit(whole, data, out=tmp_path / "whole", **settings)
    steps = []

    def after_step(time: Time) -> None:
        steps.append(time.step)
        if len(steps) == 4:
            raise Killed

    killed.after_step = after_step  # type: ignore[method-assign]
    with pytest.raises(Killed):
        unsup.fit(killed, data, out=tmp_path / "killed", **settings)
    fitted = unsup.fit(again, data, out=tmp_path / "killed", resume=True, **settings)
    assert fitted.steps == 5
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert any(not torch.equal(p, q) for p, q in zip(whole.parameters(), killed.parameters(), strict=True))
