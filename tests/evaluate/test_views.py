"""Views of raw examples in raw units, and the measure of how near their codes are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import unsup
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.model import CanEncode, Model
from unsup.core.random import keyed_generator
from unsup.data.sound import SoundForm
from unsup.evaluate.bench import Bench, Measuring
from unsup.evaluate.exam import Exam
from unsup.evaluate.probe import raw_features
from unsup.evaluate.spread import alignment
from unsup.evaluate.views import has_views, raw_of, raw_views, unit_of
from unsup.nn.augment import augment

PICTURES = Event((3, 6, 6), Support("ordinal", 256))


def levels(event: Event, n: int = 20) -> Tensor:
    support = event.uniform
    assert support is not None
    draws = torch.randint(support.low, support.low + support.levels, (n, *event.shape), generator=keyed_generator(0))
    return draws.to(event.dtype)


@pytest.mark.parametrize(
    "event",
    [
        PICTURES,
        Event((1, 5, 4), BINARY),
        Event((1, 5, 4), Support("ordinal", 17)),
        Event((1, 4, 4), Support("ordinal", 9, low=-3)),
    ],
)
def test_levels_return_from_the_unit_interval(event):
    x = levels(event)
    unit = unit_of(x, event, None, "x")
    assert float(unit.min()) == 0
    assert float(unit.max()) == 1
    back = raw_of(unit, event, None)
    assert torch.equal(back, x)
    assert back.dtype == x.dtype


@pytest.mark.parametrize(
    ("mu_law", "event"), [(True, Event((64,), Support("ordinal", 256))), (False, Event((64,), REAL))]
)
def test_sound_returns_from_waves(mu_law, event):
    form = SoundForm(8000, "int16", mu_law=mu_law)
    x = levels(event) if mu_law else torch.randint(-(2**15), 2**15, (20, 64)).short()
    unit = unit_of(x, event, form, "x")
    assert float(unit.abs().max()) <= 1
    assert torch.equal(raw_of(unit, event, form).to(x), x)


def test_views_are_those_of_the_recipe_rounded_to_levels():
    x = levels(PICTURES)
    found = raw_views(x, PICTURES, None, "x", seed=5)
    expected = augment(x.double().div(255).float(), "simclr-small", keyed_generator(5, 0)) * 255
    assert PICTURES.contains(found).all()
    torch.testing.assert_close(found.float(), expected, atol=0.5 + 1e-4, rtol=0)
    assert torch.equal(found, raw_views(x, PICTURES, None, "x", seed=5))
    assert not torch.equal(found, raw_views(x, PICTURES, None, "x", seed=6))


@pytest.mark.parametrize(
    ("event", "has"),
    [
        (PICTURES, True),
        (Event((2, 6, 6), Support("ordinal", 256)), False),
        (Event((1, 6, 6), Support("nominal", 5)), False),
        (Event((12,), REAL), False),
    ],
)
def test_what_has_views(event, has):
    assert has_views(event, None) == has
    if not has:
        data = unsup.from_arrays(
            levels(event).numpy() if event.is_discrete else torch.randn(20, 12).numpy(), event=event
        )
        _, missing = Exam(Bench(data, Measuring()), Mean(event)).figures(["alignment"])
        assert "views are made of images" in missing["alignment"]


class Mean(Model, CanEncode):
    """Codes: the mean level of each channel, and a constant that training would change."""

    def __init__(self, event: Event) -> None:
        self.shift = nn.Parameter(torch.randn(()))

    def loss(self, batch, *, generator=None):
        return {"loss": self.shift.square().expand(len(batch))}

    @property
    def code_size(self) -> int:
        return self.event.shape[0] + 1

    def encode(self, x: Tensor) -> Tensor:
        means = x.flatten(2).float().mean(2) if x.ndim > 2 else x[:, :1].float().expand(-1, self.event.shape[0])
        return torch.cat([means, self.shift.expand(len(x), 1) * 100], 1)


def test_the_measure_is_the_distance_of_codes_of_examples_and_views_beside_its_floors():
    data = unsup.from_arrays(levels(PICTURES, 200).numpy(), event=PICTURES)
    torch.manual_seed(0)
    model = Mean(PICTURES)
    exam = Exam(Bench(data, Measuring(seed=4)), model)
    figures, missing = exam.figures(["alignment"])
    assert not missing
    test = data.test.x
    views = raw_views(test, PICTURES, None, "x", seed=4)
    own = alignment(model.encode(test), model.encode(views))
    assert figures["alignment"]["value"] == pytest.approx(own.value, rel=1e-5)
    assert figures["alignment"]["floor"] == pytest.approx(
        alignment(raw_features(test, PICTURES), raw_features(views, PICTURES)).value
    )
    fresh = exam.untrained_model
    assert not torch.equal(fresh.shift, model.shift)
    detail = figures["alignment"]["detail"]
    assert detail["untrained"] == pytest.approx(alignment(fresh.encode(test), fresh.encode(views)).value, rel=1e-5)
