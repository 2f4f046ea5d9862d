"""Bits-back coding of discrete latents: exact inverses, and the length of the bound."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from uniform import examples, move

import unsup
from unsup.coding import compress, decompress
from unsup.coding.choices import BitsBackOfChoices, _Walk
from unsup.coding.chunks import scheme_for
from unsup.coding.entropy import Stack
from unsup.coding.notes import Noting
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.core.part import Part
from unsup.data import load_data
from unsup.families.latent.latent import Latent
from unsup.train.trainer import fit

BITS = Event((12,), BINARY)
TABLE = (BINARY, Support("nominal", 5), Support("ordinal", 40, 3), Support("ordinal", 7))
CASES = {
    "bits": (BITS, {"layers": (14,)}),
    "three layers": (BITS, {"layers": (14, 6, 3), "hidden": ()}),
    "categories": (Event((5,), Support("ordinal", 7)), {"layers": (6, 4), "categories": 5}),
    "table": (Event((4,), TABLE), {"layers": (13,)}),
    "proposal": (BITS, {"layers": (13,), "objective": "importance", "proposal": Part("latent", {"layers": (13,)})}),
}


def created(key: str) -> Latent:
    event, options = CASES[key]
    model = unsup.create("latent", event, preset="tiny", seed=0, **options)
    assert isinstance(model, Latent)
    move(model, 0.4)
    return model


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_examples_come_back(key: str, scale: float) -> None:
    model, x = created(key), examples(CASES[key][0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    scheme = scheme_for(model)
    assert isinstance(scheme, BitsBackOfChoices)
    assert torch.equal(scheme.decode(scheme.encode(x), len(x)), x)
    assert torch.equal(decompress(model, compress(model, x)), x)
    assert scheme.canary() == BitsBackOfChoices(model).canary()


@pytest.mark.parametrize("key", CASES)
def test_bits_are_put_back(key: str) -> None:
    scheme, x = BitsBackOfChoices(created(key)), examples(CASES[key][0], 20)
    start = bytes(range(256)) * 16
    stack = Stack(start)
    seen = []
    for one in x.split(1):
        coder = _Walk(scheme, stack, Noting(), 0, 1, one)
        scheme.own.code(Batch(one), coder)
        seen.append(coder.values)
    for one in reversed(x.split(1)):
        back = _Walk(scheme, stack, Noting(), 0, 1, None)
        scheme.own.restore(1, back)
        assert back.x is not None
        assert torch.equal(back.x, one)
        values = seen.pop()
        assert all(np.array_equal(back.values[layer], values[layer]) for layer in values)
    assert stack.to_bytes() == Stack(start).to_bytes()


@pytest.mark.parametrize(
    "options",
    [{"layers": (20,), "hidden": (32,)}, {"layers": (20, 10), "hidden": ()}, {"layers": (8,), "categories": 6}],
)
def test_digits_cost_the_bound(options: dict[str, object]) -> None:
    data = load_data("digits")
    model = unsup.create("latent", data.event, seed=0, **options)
    fit(model, data, steps=100, batch_size=32, lr=3e-3, progress="off", validate_every=0)
    assert isinstance(model, Latent)
    x, scheme = data.train.x[:600], BitsBackOfChoices(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    double, generator = copy.deepcopy(model).double().eval(), torch.Generator().manual_seed(7)
    with torch.no_grad():
        bound = -sum(float(double.log_prob(x, generator=generator).sum()) for _ in range(8)) / 8 / math.log(2)
    assert abs(8 * (len(coded) - scheme._head(coded, len(x))[0]) / bound - 1) < 0.005


def test_initial_bits_do_not_grow_with_layers() -> None:
    sizes = []
    for layers in ((14,), (14, 14, 14, 14)):
        model = unsup.create("latent", BITS, preset="tiny", seed=0, layers=layers, hidden=())
        scheme = BitsBackOfChoices(model)
        x = examples(BITS, 1)
        sizes.append(scheme._head(scheme.encode(x), 1)[0])
    assert sizes[1] <= sizes[0] + 4


@pytest.mark.parametrize(
    ("event", "options", "reason"),
    [
        (Event((3,), REAL), {"layers": (13,)}, "real entries"),
        (Event((4,), TABLE, missing=True), {"layers": (13,)}, "missing entries"),
        (BITS, {"layers": (11,), "objective": "enumerate"}, "no network q"),
    ],
)
def test_what_is_not_coded_is_refused_with_a_reason(event: Event, options: dict[str, object], reason: str) -> None:
    model = unsup.create("latent", event, preset="tiny", **options)
    with pytest.raises(CapabilityError, match=reason):
        scheme_for(model)
