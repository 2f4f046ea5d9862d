"""What is joined to codes and to examples, entry by entry."""

from __future__ import annotations

import pytest
import torch

from unsup import Event, Support
from unsup.core.event import REAL, labels
from unsup.nn.conditions import Conditions, joined


def test_a_class_is_one_hot_beside_codes_and_at_every_pixel_of_images() -> None:
    conditions = Conditions(labels(3), (4, 5))
    features = conditions(torch.tensor([2, 0]))
    z, x = torch.randn(2, 6), torch.randn(2, 1, 4, 5)
    assert joined(z, features)[:, 6:].tolist() == [[0, 0, 1], [1, 0, 0]]
    beside = joined(x, conditions.beside_examples(features))
    assert torch.equal(beside[:, :1], x)
    assert beside.shape == (2, 4, 4, 5)
    assert torch.equal(beside[0, 1:], torch.tensor([0.0, 0, 1]).view(3, 1, 1).expand(3, 4, 5))


@pytest.mark.parametrize("support", [Support("ordinal", 256), Support("nominal", 3), REAL])
def test_an_image_of_the_same_sides_lies_on_the_pixels_and_another_does_not(support: Support) -> None:
    given = Event((2, 4, 5), support)
    low, high = (-3, 4) if support == REAL else (0, support.levels)
    c = torch.randint(low, high, (3, 2, 4, 5)).to(given.dtype)
    conditions = Conditions(given, (4, 5))
    features = conditions(c)
    beside = conditions.beside_examples(features)
    each = support.levels if support.kind == "nominal" else 1
    assert beside.shape == (3, 2 * each, 4, 5)
    assert conditions.channels == 2 * each
    assert conditions.size == 2 * each * 20
    for channel in range(2):
        for row, column in ((0, 0), (1, 3), (3, 4)):
            found = beside[:, each * channel : each * (channel + 1), row, column]
            value = c[:, channel, row, column]
            if each > 1:
                expected = torch.nn.functional.one_hot(value.long(), each).float()
            else:
                expected = (value.float() if support == REAL else value.float() / 127.5 - 1).unsqueeze(1)
            torch.testing.assert_close(found, expected)
    elsewhere = Conditions(given, (8, 10))
    assert elsewhere.channels == elsewhere.size == features.shape[1]
    assert torch.equal(elsewhere.beside_examples(features)[..., 7, 2], features)


def test_numbers_are_standardised_by_the_training_data() -> None:
    conditions = Conditions(Event((2,), REAL))
    c = torch.randn(500, 2) * torch.tensor([3.0, 0.1]) + torch.tensor([100.0, -5.0])
    conditions.prepare(c, generator=torch.Generator())
    features = conditions(c)
    torch.testing.assert_close(features.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(2), atol=1e-4, rtol=0)
    x = torch.randn(500, 3, 2)
    assert torch.equal(joined(x, conditions.beside_examples(features)), torch.cat([x.flatten(1), features], 1))


def test_without_a_condition_nothing_is_joined() -> None:
    conditions = Conditions(None, (4, 4))
    x = torch.randn(2, 1, 4, 4)
    assert (conditions.size, conditions.channels, conditions(None)) == (0, 0, None)
    assert joined(x, conditions.beside_examples(None)) is x
    assert not conditions.state_dict()
