"""Arrays come back bit for bit, at the length that the likelihood states, in other processes as well."""

from __future__ import annotations

import copy
import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from environments import OTHERS

import unsup
from unsup import testing
from unsup.coding import arrays, compress, decompress
from unsup.coding.chunks import scheme_class, scheme_for, to_bytes
from unsup.coding.container import Chunk, Container, write_container
from unsup.coding.errors import CodingError, EnvironmentMismatch, UnknownModel
from unsup.core import machine
from unsup.core.errors import CapabilityError
from unsup.core.event import Event, Support
from unsup.core.model import Model
from unsup.data import load_data
from unsup.train.trainer import fit

EVENTS = {
    "binary": Event((1, 4, 5), Support("binary"), "image"),
    "grey": Event((1, 4, 4), Support("ordinal", 17), "image"),
    "colour": Event((3, 3, 3), Support("ordinal", 256), "image"),
    "words": Event((6,), Support("nominal", 5), "vector"),
    "counts": Event((4,), Support("ordinal", 300, -7), "vector"),
}
CASES = [
    (name, key)
    for name in ("made", "pixelcnn", "gated-pixelcnn")
    for key, event in EVENTS.items()
    if name == "made" or event.layout == "image"
]


def examples(event: Event, n: int = 40) -> torch.Tensor:
    support = event.columns[0]
    pair = torch.randint(0, support.levels, (2, n, *event.shape), generator=torch.Generator().manual_seed(1))
    return (pair.amin(0) + support.low).to(event.dtype)


def trained(name: str, event: Event, x: torch.Tensor) -> Model:
    model = unsup.create(name, event, preset="tiny", seed=0)
    fit(model, unsup.from_arrays(x.numpy(), event=event), steps=5, progress="off", validate_every=0)
    return model


@pytest.mark.parametrize(("name", "key"), CASES)
def test_examples_come_back_at_the_length_of_their_likelihood(name: str, key: str) -> None:
    event = EVENTS[key]
    x = examples(event)
    model = trained(name, event, x)
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    with torch.no_grad():
        ideal = -float(copy.deepcopy(model).double().eval().log_prob(x).sum()) / math.log(2)
    assert ideal - 1e-6 * ideal <= 8 * len(coded) <= 1.005 * ideal + 64 + 64
    assert torch.equal(decompress(model, compress(model, x)), x)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.float16, torch.float32, torch.float64, torch.bfloat16]
)
def test_every_type_comes_back(dtype: torch.dtype) -> None:
    x = examples(EVENTS["grey"]).to(dtype)
    model = trained("made", EVENTS["grey"], examples(EVENTS["grey"]))
    found = decompress(model, compress(model, x))
    assert found.dtype == dtype
    assert torch.equal(found, x)


def test_what_the_model_cannot_represent_comes_back_bit_for_bit() -> None:
    event = EVENTS["grey"]
    model = trained("made", event, examples(event))
    x = examples(event).float()
    x[0, 0, 0] = -0.0
    x[1, 0, 0, 0] = torch.nan
    x[2] = torch.inf
    x.view(torch.int32)[3, 0, 0, 0] = 0x7FC12345  # a NaN with a payload
    data = compress(model, x)
    assert decompress(model, data).view(torch.int32).equal(x.view(torch.int32))
    noise = torch.randint(0, 256, (3000, *event.shape), dtype=torch.uint8)  # not compressible
    data = compress(model, noise)
    assert torch.equal(decompress(model, data), noise)
    assert len(data) <= 1.01 * noise.numel() + 1000


def test_examples_outside_the_model_do_not_cost_the_others() -> None:
    event = EVENTS["grey"]
    model = trained("made", event, examples(event))
    x = examples(event, 400)
    alone = len(compress(model, x))
    x[7, 0, 0, 0], x[390, 0, 3, 3] = 200, 201
    data = compress(model, x)
    assert torch.equal(decompress(model, data), x)
    assert len(data) < alone + 2 * (x[0].numel() * x.element_size() + 4) + 40


@pytest.mark.parametrize("name", ["made", "vae", "nice", "histogram"])
def test_a_model_that_computes_nan_compresses_as_well(name: str) -> None:
    event = EVENTS["grey"]
    x = examples(event)
    model = trained(name, event, x)
    with torch.no_grad():
        for tensor in model.buffers() if name == "histogram" else model.parameters():
            if tensor.is_floating_point():
                tensor.fill_(torch.nan)
    assert torch.equal(decompress(model, compress(model, x)), x)


@pytest.mark.parametrize("levels", [2**40, 2**44, 2**50, 2**60])
def test_flows_of_very_many_levels_code_or_refuse(levels: int) -> None:
    event = Event((2,), Support("ordinal", levels), "vector")
    model = unsup.create("nice", event, preset="tiny", seed=0)
    x = torch.tensor([[0, levels - 1], [5, levels // 2]])
    if isinstance(scheme_class(model), str):
        with pytest.raises(CapabilityError, match="too many levels"):
            compress(model, x)
    else:
        assert torch.equal(decompress(model, compress(model, x)), x)


def test_native_files_need_the_same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    event = EVENTS["grey"]
    x = examples(event)
    model = trained("made", event, x)
    data = compress(model, x, profile="native")
    assert torch.equal(decompress(model, data), x)
    here = machine.environment()
    monkeypatch.setattr(arrays, "environment", lambda: here | {"threads": "97"})
    with pytest.raises(EnvironmentMismatch, match=r"coded with threads .*, found threads 97"):
        decompress(model, data)


def test_no_examples() -> None:
    model = trained("made", EVENTS["grey"], examples(EVENTS["grey"]))
    assert decompress(model, compress(model, torch.zeros(0, 1, 4, 4, dtype=torch.uint8))).shape == (0, 1, 4, 4)


def test_another_model_is_refused() -> None:
    event = EVENTS["grey"]
    x = examples(event)
    model = trained("made", event, x)
    data = compress(model, x)
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(iter(other.parameters())).view(-1)[0] += 1e-6
    with pytest.raises(UnknownModel, match="coded with the model MADE"):
        decompress(other, data)
    with pytest.raises(CapabilityError, match="does not code examples"):
        compress(unsup.create("gan", event, preset="tiny", seed=0), x)


def test_damage_is_found() -> None:
    event = EVENTS["binary"]
    x = examples(event)
    model = trained("made", event, x)
    data = compress(model, x)
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(CodingError):
            decompress(model, bytes(damaged))
    for size in range(0, len(data), 7):
        with pytest.raises(CodingError):
            decompress(model, data[:size])


DECODE = """
import sys, torch, unsup
from pathlib import Path
from unsup.coding import decompress
from unsup.train.runs import load_model
folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
for name in ("made", "pixelcnn"):
    model = load_model(folder / name)
    x = decompress(model, (folder / f"{name}.unsup").read_bytes())
    assert torch.equal(x, torch.load(folder / "x.pt", weights_only=True)), name
"""


@OTHERS
def test_files_are_decoded_with_other_instructions_and_threads(
    threads: int, settings: dict[str, str], tmp_path: Path
) -> None:
    x = load_data("digits").test.x
    for name in ("made", "pixelcnn"):
        model = trained(name, load_data("digits").event, x)
        model.save(tmp_path / name)
        (tmp_path / f"{name}.unsup").write_bytes(compress(model, x))
    torch.save(x, tmp_path / "x.pt")
    words = [sys.executable, "-c", DECODE, str(tmp_path), str(threads)]
    subprocess.run(words, env=os.environ | settings, check=True, timeout=300)


def test_the_class_of_conditional_models_is_coded() -> None:
    digits = load_data("digits", given="label")
    model = unsup.create("pixelcnn", digits, preset="tiny", seed=0)
    fit(model, digits, steps=60, progress="off", validate_every=0)
    x = digits.test.x[:100]
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    assert torch.equal(decompress(model, compress(model, x)), x)
    double = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        ideal = -float(double.log_prob(x).sum()) / math.log(2)
    assert ideal <= 8 * len(coded) <= ideal + len(x) * math.log2(10) + 200


TABLE = Event((3,), (Support("real"), Support("ordinal", 9), Support("nominal", 3)), "vector", missing=True)


@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("made", EVENTS["grey"]),
        ("pixelcnn", EVENTS["grey"]),
        ("vae", EVENTS["grey"]),
        ("nice", EVENTS["grey"]),
        ("realnvp", EVENTS["grey"]),
        ("bernoulli-mixture", EVENTS["binary"]),
        ("made", TABLE),
        ("gaussian-mixture", TABLE),
        ("histogram", TABLE),
    ],
)
def test_batches_of_another_size_decode_the_same(name: str, event: Event) -> None:
    x = testing.examples(event, 40).x
    model = trained(name, event, x)
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    for spare in (1, 7, 64):
        scheme = scheme_for(model)
        scheme.spare = spare
        assert to_bytes(scheme.decode(coded, len(x))) == to_bytes(x)


def test_stated_sizes_are_checked_before_decoding() -> None:
    event = EVENTS["grey"]
    x = examples(event)
    model = trained("made", event, x)
    data = compress(model, x)
    with Container(io.BytesIO(data), "it") as container:
        header, coded, info = container.header, container.chunk(0), container.info(0)
    for count, size, shape in (
        (10**6, info.raw_size, [1, 4, 4]),
        (40, 10**6, [1, 4, 4]),
        (40, info.raw_size, [4, 4, 1]),
    ):
        forged = io.BytesIO()
        items = header["items"] | {"shape": shape}
        write_container(forged, header | {"items": items}, [Chunk(0, count, coded, size, info.digest)])
        with pytest.raises(CodingError):
            decompress(model, forged.getvalue())
