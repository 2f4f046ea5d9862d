"""Bits-back coding of several layers of latents: top-down posteriors, and the recursion of Bit-Swap."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from uniform import examples, move

import unsup
from unsup.coding import compress, decompress
from unsup.coding.bitsback import BitsBack, _Coding, _Restoring
from unsup.coding.chunks import scheme_for
from unsup.coding.entropy import Stack
from unsup.coding.notes import Noting
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, Event, Support, labels
from unsup.data import load_data
from unsup.families.latent.hierarchical_vae import HierarchicalVAE
from unsup.train.trainer import fit

TABLE = (BINARY, Support("nominal", 5), Support("ordinal", 40, 3), Support("ordinal", 7))
MAPS = {"net": "conv", "latents": (2,), "hidden": (8,), "blocks": (2, 1)}
CASES = {
    "chain": (Event((12,), BINARY), {"posterior": "bottom-up"}),
    "chain of four": (
        Event((12,), BINARY),
        {"posterior": "bottom-up", "latents": (3, 3, 2, 2), "hidden": (9, 8, 7, 6)},
    ),
    "ladder": (Event((12,), BINARY), {"posterior": "ladder", "norm": "batch"}),
    "table": (Event((4,), TABLE), {"posterior": "direct"}),
    "class": (Event((12,), BINARY), {"posterior": "bottom-up", "given": labels(3)}),
    "maps": (Event((1, 6, 6), Support("ordinal", 16), "image"), {**MAPS, "decoder": "logistic-mixture"}),
    "colours": (Event((3, 4, 4), Support("ordinal", 256), "image"), {**MAPS, "posterior": "direct"}),
}


def created(key: str) -> HierarchicalVAE:
    event, options = CASES[key]
    model = unsup.create("hierarchical-vae", event, preset="tiny", seed=0, **options)
    assert isinstance(model, HierarchicalVAE)
    move(model, 0.2)
    return model


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_examples_come_back(key: str, scale: float) -> None:
    model, x = created(key), examples(CASES[key][0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    scheme = scheme_for(model)
    assert isinstance(scheme, BitsBack)
    assert torch.equal(scheme.decode(scheme.encode(x), len(x)), x)
    assert torch.equal(decompress(model, compress(model, x)), x)
    assert scheme.canary() == BitsBack(model).canary()


@pytest.mark.parametrize("key", ["chain of four", "maps", "table"])
def test_bits_are_put_back(key: str) -> None:
    scheme, x = BitsBack(created(key)), examples(CASES[key][0], 20)
    start = bytes(range(256)) * 16
    stack = Stack(start)
    scheme._begin(Noting())
    seen = []
    for one in x.split(1):
        coder = _Coding(scheme, stack, Noting(), 0, Batch(one))
        scheme.own.code(Batch(one), coder)
        seen.append(coder.bins)
    for one in reversed(x.split(1)):
        back = _Restoring(scheme, stack, Noting(), 0, 1)
        scheme.own.restore(1, None, back)
        assert torch.equal(back.x, one)
        bins = seen.pop()
        assert all(np.array_equal(back.bins[layer], bins[layer]) for layer in bins)
    assert stack.to_bytes() == Stack(start).to_bytes()


@pytest.mark.parametrize(
    "options", [{"posterior": "bottom-up"}, {"posterior": "residual"}, pytest.param(MAPS, marks=pytest.mark.slow)]
)
def test_digits_cost_the_bound(options: dict[str, object]) -> None:
    data = load_data("digits")
    model = unsup.create("hierarchical-vae", data.event, preset="tiny", seed=0, **options)
    fit(model, data, steps=100, batch_size=32, lr=3e-3, progress="off", validate_every=0)
    assert isinstance(model, HierarchicalVAE)
    x, scheme = data.train.x[:600], BitsBack(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    double, generator = copy.deepcopy(model).double().eval(), torch.Generator().manual_seed(7)
    with torch.no_grad():
        bound = -sum(float(double.log_prob(x, generator=generator).sum()) for _ in range(8)) / 8 / math.log(2)
    assert abs(8 * (len(coded) - scheme._head(coded, len(x))[0]) / bound - 1) < 0.01


def test_initial_bits_of_a_chain_do_not_grow_with_its_layers() -> None:
    event, found = Event((12,), BINARY), {}
    for posterior in ("bottom-up", "direct"):
        for layers in (2, 6):
            options = {"posterior": posterior, "latents": (16,) * layers, "hidden": (8,) * layers}
            model = unsup.create("hierarchical-vae", event, preset="tiny", seed=0, **options)
            scheme = BitsBack(model)
            found[posterior, layers] = scheme._head(scheme.encode(examples(event, 1)), 1)[0]
    assert found["direct", 6] > 2.8 * found["direct", 2]
    assert abs(found["bottom-up", 6] / found["bottom-up", 2] - 1) < 0.1


@pytest.mark.parametrize(
    ("event", "options", "reason"),
    [
        (Event((4,), BINARY), {"posterior": "iaf"}, "not a diagonal Gaussian"),
        (Event((3, 4, 4), Support("ordinal", 256)), {**MAPS, "decoder": "logistic-mixture"}, "depend on each other"),
        (Event((4,), Support("ordinal", 256)), {"decoder": "gaussian"}, "a decoder of densities"),
    ],
)
def test_what_is_not_coded_is_refused_with_a_reason(event: Event, options: dict[str, object], reason: str) -> None:
    model = unsup.create("hierarchical-vae", event, preset="tiny", seed=0, **options)
    with pytest.raises(CapabilityError, match=reason):
        scheme_for(model)
