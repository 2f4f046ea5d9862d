"""The error of translations against the true map, doing nothing, and a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unsup import InputError, create, load_data
from unsup.core.errors import CapabilityError
from unsup.core.model import Model, Translates
from unsup.data.builtin import add_stripes
from unsup.evaluate.journeys import translation_error


class Fixed(Model, Translates):
    """Applies a known map: the true one to b, brightness + 3 to a."""

    def __init__(self, event) -> None:
        self.register_buffer("shift", torch.tensor(3.0))

    def loss(self, batch, *, generator=None):
        raise AssertionError("not to be trained")

    def translate(self, x: Tensor, *, to: str) -> Tensor:
        assert not self.training
        return add_stripes(x) if to == "b" else x + 3


@pytest.fixture(scope="module")
def data():
    return load_data("stripes", n=3000)  # 300 test examples: more than one chunk


def test_the_true_map_has_no_error_and_doing_nothing_has_some(data) -> None:
    model = Fixed(data.event).train()
    x, target = data.test.x, data.test.streams["domain_b"].x
    found = translation_error(model, x, target, to="b")
    assert (found["value"], found["n"], found["detail"]["share"]) == (0.0, 300, 0.0)
    expected = np.abs(x.numpy().astype(float) - target.numpy().astype(float)).mean()
    assert found["floor"] == pytest.approx(expected, rel=1e-12)
    assert found["floor"] > 10
    assert model.training


def test_the_error_is_in_raw_units(data) -> None:
    x = data.test.x
    found = translation_error(Fixed(data.event), x, x + 5, to="a")
    assert (found["value"], found["floor"], found["detail"]["share"]) == (2.0, 5.0, 0.4)


def test_levels_that_wrap_around_in_bytes_are_subtracted_as_numbers(data) -> None:
    low, high = (torch.full((2, 3, 16, 16), v, dtype=torch.uint8) for v in (10, 250))
    assert translation_error(Fixed(data.event), low, high, to="a")["value"] == 237
    assert translation_error(Fixed(data.event), high, low, to="a")["floor"] == 240


def test_what_cannot_be_judged_is_refused(data) -> None:
    x = data.test.x
    with pytest.raises(CapabilityError, match="does not translate"):
        translation_error(create("histogram", data.event), x, x, to="b")
    for target in (x[:5], x[:, :1]):
        with pytest.raises(InputError, match="one target per example"):
            translation_error(Fixed(data.event), x, target, to="b")
    with pytest.raises(InputError, match="expected one target"):
        translation_error(Fixed(data.event), x[:0], x[:0], to="b")
