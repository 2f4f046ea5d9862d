"""Flows code discrete data exactly, at the length that the likelihood states."""

from __future__ import annotations

import copy
import functools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from environments import OTHERS
from torch import nn

import unsup
from unsup.coding import compress, decompress, flows
from unsup.coding.chunks import scheme_for
from unsup.coding.entropy import OutOfBits, Stack, StreamError
from unsup.coding.flows import FlowInIntegers
from unsup.coding.notes import Noted, Noting
from unsup.core.errors import InputError
from unsup.core.event import Event, Support
from unsup.core.model import Model
from unsup.data import load_data
from unsup.nn.bijection import Affine, Bijection
from unsup.nn.coupling import Alternating
from unsup.nn.flow import Flow
from unsup.nn.front import UniformDequantizer
from unsup.nn.invertible import Chain, DiagonalScale, Invertible, Smooth
from unsup.nn.ode import ODE, Layers
from unsup.nn.residual import LipschitzConv, LipschitzDense, LipschitzNet, Residual
from unsup.nn.smooth_steps import PlanarStep, RadialStep, SylvesterStep
from unsup.nn.traces import traces
from unsup.train.trainer import fit

MIXED = (Support("binary"), Support("ordinal", 300, -7), Support("ordinal", 2**20), Support("ordinal", 5, 3))
EVENTS = {
    "binary": Event((1, 4, 6), Support("binary"), "image"),
    "grey": Event((1, 5, 3), Support("ordinal", 16), "image"),
    "fine": Event((1, 4, 4), Support("ordinal", 256), "image"),
    "colour": Event((3, 4, 4), Support("ordinal", 256), "image"),
    "deep": Event((1, 2, 2), Support("ordinal", 65536), "image"),
    "counts": Event((5,), Support("ordinal", 40, -7), "vector"),
    "table": Event((4,), MIXED, "vector"),
}
CASES = [(name, key, {}) for name in ("realnvp", "nice") for key in EVENTS] + [
    ("nice", key, {"base": "gaussian"}) for key in ("grey", "table")
]
CASES += [
    ("maf", "grey", {}),
    ("maf", "table", {"whiten": True, "batch_norm": True}),
    ("maf", "counts", {"components": 2}),
    ("maf", "table", {"dequantization": "variational"}),
    ("iaf", "table", {}),
    ("naf", "counts", {}),
    ("naf", "counts", {"transformer": "ddsf"}),
    ("cdf-flow", "counts", {"base": "uniform"}),
    ("cdf-flow", "table", {"dependence": "independent", "component": "gaussian"}),
    ("spline-flow", "fine", {}),
    ("spline-flow", "counts", {"dequantization": "variational"}),
    ("spline-flow", "table", {"step": "autoregressive", "whiten": True}),
    ("flow++", "fine", {}),
    ("realnvp", "grey", {"dequantization": "variational"}),
    ("glow", "fine", {"dequantization": "variational"}),
    ("ffjord", "fine", {}),
    ("ffjord", "table", {"solver": "dopri5"}),
    ("residual-flow", "fine", {"dequantization": "variational"}),
    ("residual-flow", "counts", {}),
    ("planar", "counts", {}),
    ("radial", "grey", {}),
    ("sylvester", "table", {}),
]
BENT = [case for case in CASES if case[0] not in ("nice", "realnvp", "iaf")]


def in_time(cases: list[tuple[str, str, dict[str, Any]]]) -> list[Any]:
    """The cases, with those of `ffjord` and one of `flow++` marked as slow."""
    slow = [case for case in cases if case[0] == "ffjord" or case[:2] == ("flow++", "fine")]
    return [pytest.param(*case, marks=pytest.mark.slow) if case in slow else case for case in cases]


def examples(event: Event, n: int = 60) -> torch.Tensor:
    """Small values, with the extremes in the last two examples and in the corners of others."""
    rng = np.random.default_rng(1)
    low = np.array([s.low for s in event.columns])
    top = np.array([s.levels - 1 for s in event.columns])
    x = np.floor(rng.beta(1, 3, (n, event.dims)) * (top + 1)).astype(np.int64)
    x[-1], x[-2], x[-3, 0], x[-4, -1] = top, 0, top[0], 0
    return torch.from_numpy(x + low).view(n, *event.shape).to(event.dtype)


@functools.cache
def _ready(name: str, key: str, options: tuple[tuple[str, Any], ...]) -> Model:
    return trained(name, EVENTS[key], examples(EVENTS[key]), **dict(options))


def of_case(name: str, key: str, options: dict[str, Any]) -> Model:
    """The model of a case, trained on its examples; a copy, so that a test may change it."""
    return copy.deepcopy(_ready(name, key, tuple(options.items())))


def trained(name: str, event: Event, x: torch.Tensor, steps: int = 8, **options: Any) -> Model:
    model = unsup.create(name, event, preset="tiny", seed=0, **options)
    fit(model, unsup.from_arrays(x.numpy(), event=event), steps=steps, progress="off", validate_every=0)
    return model


def bound_bits(model: Model, x: torch.Tensor, draws: int) -> float:
    """−Σ log2 p, the mean over draws of the noise."""
    model = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = [float(model.log_prob(x, generator=generator).sum()) for _ in range(draws)]
    return -sum(found) / draws / math.log(2)


@pytest.fixture(scope="module")
def digits() -> tuple[Model, torch.Tensor]:
    data = load_data("digits")
    model = unsup.create("realnvp", data, preset="tiny", seed=0)
    fit(model, data, steps=60, progress="off", validate_every=0)
    return model, torch.cat([data.test.x, data.validation.x])


class Given:
    """A stack that returns given symbols and keeps what is pushed."""

    bits = 0

    def __init__(self, uniform: np.ndarray, extra: np.ndarray) -> None:
        self.uniform, self.extra = uniform, extra
        self.pushed: list[np.ndarray] = []

    def pop_uniform(self, sizes: np.ndarray) -> np.ndarray:
        return self.uniform

    def pop_bits(self, bits: np.ndarray) -> np.ndarray:
        return self.extra

    def push_uniform(self, symbols: np.ndarray, sizes: np.ndarray) -> None:
        assert ((symbols >= 0) & (symbols < sizes)).all()
        self.pushed.append(symbols)

    def push_bits(self, values: np.ndarray, bits: np.ndarray) -> None:
        self.pushed.append(values & ((1 << bits) - 1))


@pytest.mark.parametrize("step", [-1300, -517, -256, -100, -1, 0, 1, 77, 255, 256, 700, 2048, 2300, 2700])
def test_a_scaling_is_a_bijection(step: int) -> None:
    ratio, up, down = (int(v[0]) for v in flows._ratio(np.array([step])))
    assert ratio * 2.0 ** (up - down) == pytest.approx(2 ** (step / 256), rel=2e-3)
    x, remainder, extra = (
        part.ravel() for part in np.meshgrid(np.arange(-9, 10), np.arange(ratio), np.arange(1 << up), indexing="ij")
    )
    scale = np.full(x.shape, step)
    modular = flows.Modular(stack := Given(remainder, extra), Noting(), 12, torch.float64)  # type: ignore[arg-type]
    y = modular._scaled(x, scale)
    (rest,) = stack.pushed
    assert len(np.unique(np.stack([y, rest]), axis=1)[0]) == len(x)
    # y is the scaled x up to the size of the cell
    exact = x * (ratio * 2.0 ** (up - down))
    assert (np.abs(y - exact) <= ratio * 2.0 ** (up - down) + 1).all()
    # every pair between the extremes is reached: counts of y are all possible pushes
    counts = np.unique(y, return_counts=True)[1][2:-2]
    assert (counts <= 1 << down).all()
    assert up or (counts == 1 << down).all()
    back = flows.Modular(stack := Given(remainder, rest), Noting(), 12, torch.float64)  # type: ignore[arg-type]
    assert (back._unscaled(y, scale) == x).all()
    assert (stack.pushed[0] == extra).all()
    assert (stack.pushed[1] == remainder).all()


def test_large_numbers_are_scaled_exactly() -> None:
    rng = np.random.default_rng(0)
    step = rng.integers(-24 * 256, 24 * 256, 4000)
    x = (rng.choice([-1, 1], 4000) * 2.0 ** np.minimum(rng.uniform(0, 50, 4000), 49.9 - step / 256)).astype(np.int64)
    stack = Stack(rng.bytes(40_000))
    before = stack.to_bytes()
    modular = flows.Modular(stack, Noting(), 12, torch.float64)
    y = modular._scaled(x, step)
    exact = [(int(v) * int(m) << int(u)) >> int(d) for v, m, u, d in zip(x, *flows._ratio(step), strict=True)]
    assert (np.abs(y - exact) <= 2 ** np.maximum(step / 256 + 1, 1)).all()
    assert (modular._unscaled(y, step) == x).all()
    assert stack.to_bytes() == before


def test_uniform_symbols_come_back() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.choice([1, 2, 3, 500, 512, 4095, 1 << 20], 3000)
    bits = rng.integers(0, 53, 3000)
    symbols = rng.integers(0, sizes)
    values = rng.integers(0, 1 << 62, 3000) & ((1 << bits) - 1)
    stack = Stack()
    stack.push_uniform(symbols, sizes)
    assert stack.bits - stack.initial_bits == pytest.approx(np.log2(sizes).sum(), abs=3)
    stack.push_bits(values, bits)
    assert stack.bits - stack.initial_bits == pytest.approx(np.log2(sizes).sum() + bits.sum(), abs=4)
    assert (stack.pop_bits(bits) == values).all()
    assert (stack.pop_uniform(sizes) == symbols).all()
    stack.finish()
    stack = Stack(bytes(range(40)))
    before = stack.to_bytes()
    for pop in (lambda: stack.pop_bits(np.full(9, 40)), lambda: stack.pop_uniform(np.full(40, 500))):
        with pytest.raises(OutOfBits):
            pop()
        assert stack.to_bytes() == before
    for sizes in (np.array([0]), np.array([-1]), np.array([(1 << 20) + 1])):
        with pytest.raises(InputError):
            stack.pop_uniform(sizes)


@pytest.mark.parametrize(("name", "key", "options"), in_time(CASES))
def test_examples_come_back(name: str, key: str, options: dict[str, Any]) -> None:
    event = EVENTS[key]
    x = examples(event)
    model = of_case(name, key, options)
    scheme = scheme_for(model)
    assert isinstance(scheme, FlowInIntegers)
    assert torch.equal(decompress(model, compress(model, x)), x)
    native = scheme_for(model, "native")
    assert torch.equal(native.decode(native.encode(x), len(x)), x)
    for n in (1, 2, 9):
        assert torch.equal(scheme.decode(scheme.encode(x[-n:]), n), x[-n:])


def test_the_length_is_the_bound(digits: tuple[Model, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = digits
    bound = bound_bits(model, x, 20)
    raw = x[0].numel() * math.log2(17) - bound / len(x)  # what an example costs more without the flow
    excess = {}
    for bits in (1, 6, 9, 12, 16):
        for name, value in {"_BITS": bits, "_SHIFT_BITS": bits, "_CELL": 2, "_PARTS": 256 if bits > 9 else 32}.items():
            monkeypatch.setattr(flows, name, value)
        scheme = scheme_for(model)
        coded = scheme.encode(x)
        assert torch.equal(scheme.decode(coded, len(x)), x)
        _, sizes, alone, rest = scheme._plan(coded, len(x))
        rest = Noted.split(rest)[1]
        found = 8 * len(rest) - 33 - raw * (sizes.count(0) + len(alone))
        excess[bits] = found / bound - 1
        assert 8 * (len(coded) - len(rest)) < 500
    assert all(abs(excess[bits]) < 0.002 for bits in (9, 12, 16))
    assert excess[1] > 0.003, excess


def test_the_length_of_known_flows() -> None:
    event = Event((6,), Support("ordinal", 16), "vector")
    model = unsup.create("nice", event, preset="tiny", base="gaussian", seed=0)
    assert isinstance(model, Flow)
    mean, std = torch.linspace(0.2, 0.7, 6), torch.linspace(0.1, 0.6, 6)
    scale = torch.linspace(-0.7, 0.9, 6)
    model.front.mean.copy_(mean)
    model.front.std.copy_(std)
    model.flow.steps[-1].log_scale.data.copy_(scale)
    shift = torch.linspace(-0.3, 0.3, 6)[1::2]
    model.flow.steps[1].conditioners[0][-1].bias.data.copy_(shift)
    x = torch.from_numpy(np.random.default_rng(0).binomial(15, 0.45, (3000, 6))).to(event.dtype)
    # −E log2 of the density, over the noise, at 400 places of each cell
    v = ((torch.arange(16 * 400).double() + 0.5) / 400 / 16)[:, None]
    z = (v - mean) / std
    z[:, 1::2] += shift
    z = z * scale.exp()
    nats = 0.5 * (z**2 + math.log(2 * math.pi)) - scale + std.log() + math.log(16)
    each = nats.view(16, 400, 6).mean(1) / math.log(2)
    expected = float(each.gather(0, x.long()).sum())
    scheme = scheme_for(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    assert 8 * len(coded) == pytest.approx(expected, rel=0.003, abs=500)


def test_few_bits_are_needed_to_start(digits: tuple[Model, torch.Tensor]) -> None:
    model, x = digits
    scheme = scheme_for(model)
    assert isinstance(scheme, FlowInIntegers)
    _, sizes, alone, _ = scheme._plan(scheme.encode(x), len(x))
    assert not len(alone)
    assert sizes.count(0) <= 6
    assert max(sizes) >= 32


def test_examples_beyond_the_integers_are_coded_without_the_flow() -> None:
    event = EVENTS["counts"]
    x = examples(event, 200)
    model = trained("realnvp", event, x)
    broken = copy.deepcopy(model)
    for step in broken.modules():
        if isinstance(step, Alternating):
            step.conditioners[0][-1].weight.data.fill_(2.0)  # type: ignore[index]
            step.bijections[0].scale.data.fill_(40.0)  # type: ignore[union-attr]
    lost = copy.deepcopy(model)
    next(lost.parameters()).data.fill_(torch.nan)
    for changed in (broken, lost):
        scheme = scheme_for(changed)
        assert isinstance(scheme, FlowInIntegers)
        coded = scheme.encode(x)
        _, _, alone, _ = scheme._plan(coded, len(x))
        assert len(alone)
        assert 8 * len(coded) < 1.3 * x.numel() * math.log2(40) + 32 * len(alone) + 800
        assert torch.equal(scheme.decode(coded, len(x)), x)


def disturb(scheme: FlowInIntegers, size: float) -> None:
    """Outputs of the networks that differ in their last digits, as on another machine."""
    generator = torch.Generator().manual_seed(7)

    def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(output.shape, dtype=output.dtype, generator=generator) - 0.5
        return output + size * noise * (1 + output.abs())

    for step in scheme.flow.flow.modules():
        for name, part in step.named_children():
            if name == "conditioner" or (name == "conditioners" and isinstance(part, nn.ModuleList)):
                for net in part if isinstance(part, nn.ModuleList) else [part]:
                    net.register_forward_hook(hook)


@pytest.mark.parametrize(("name", "key", "options"), in_time(BENT))
def test_the_length_of_other_maps_and_noise_is_the_bound(name: str, key: str, options: dict[str, Any]) -> None:
    x = examples(EVENTS[key])[:-4]  # without the extremes: no symbol takes more than 24 bits
    model = of_case(name, key, options)
    scheme = scheme_for(model)
    many = x.repeat(8, *(1,) * (x.ndim - 1))
    bits = 8 * (len(scheme.encode(torch.cat([many, many]))) - len(scheme.encode(many)))
    assert bits == pytest.approx(8 * bound_bits(model, x, 20), rel=0.015)


@pytest.mark.parametrize(("name", "key", "options"), BENT)
def test_autoregressive_and_bent_maps_of_other_last_digits(
    name: str, key: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = examples(EVENTS[key], 30)
    model = of_case(name, key, options)
    coded = scheme_for(model).encode(x)
    other = scheme_for(model)
    assert isinstance(other, FlowInIntegers)
    exact, generator = flows.Modular.real, torch.Generator().manual_seed(1)

    def real(self: flows.Modular, x: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(x.shape, generator=generator, dtype=torch.float64) - 0.5
        return exact(self, x) + 1e-14 * noise

    monkeypatch.setattr(flows.Modular, "real", real)
    assert torch.equal(other.decode(coded, len(x)), x)


def test_values_next_to_a_rounding_boundary_are_settled() -> None:
    bits = flows._PLACE_BITS + flows._RISE_BITS
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-(4 << 20), 4 << 20, (400, 3), generator=generator)

    def curve(error: float) -> Any:
        # All values are half-way between two steps; the error of the decoder rounds them down.
        return lambda at: (
            torch.floor((0.3 * at + torch.tanh(3 * at)) * 2**bits) * 2.0**-bits + 2.0 ** (-bits - 1) + error
        )

    stack, notes = Stack(np.random.default_rng(0).bytes(40_000)), Noting()
    before = stack.to_bytes()
    y = flows.Modular(stack, notes, 20, torch.float64).monotone(x, curve(1e-13))
    assert notes.size > 9 * x.numel()
    decoder = flows.Modular(stack, Noted.split(notes.to_bytes())[0], 20, torch.float64)
    decoder.calls += 1
    assert torch.equal(decoder.monotone_inverse(y, curve(-1e-13)), x)
    assert stack.to_bytes() == before


def test_a_bent_map_has_its_log_determinant_as_length() -> None:
    x = torch.linspace(-2, 2, 20_000, dtype=torch.float64).view(-1, 4)
    stack = Stack(np.random.default_rng(0).bytes(80_000))
    before = stack.bits
    arithmetic = flows.Modular(stack, Noting(), 20, torch.float64)
    y = arithmetic.monotone((x * 2**20).round().long(), lambda at: torch.sinh(2 * at))
    torch.testing.assert_close(y.double() * 2.0**-20, torch.sinh(2 * x), atol=0.01, rtol=1e-3)
    expected = float((2 * torch.cosh(2 * x)).log2().sum())
    assert before - stack.bits == pytest.approx(expected, rel=2e-3)


def test_noise_does_not_depend_on_the_stack() -> None:
    base = flows.NumbersOfBase(torch.special.ndtr, 17, 5, Noting(), drawn=True)
    stack = Stack(bytes(40_000))
    before = stack.to_bytes()
    mask = np.random.default_rng(0).integers(0, 1 << 24, 8000)
    z = base.draw(stack, mask)
    assert np.abs([z.mean(), z.std() - (1 << 17)]).max() < 4 * (1 << 17) / math.sqrt(8000)
    base.undraw(stack, z, mask)
    assert stack.to_bytes() == before


@pytest.mark.parametrize("name", ["realnvp", "nice"])
def test_other_last_digits_do_not_matter(name: str) -> None:
    event = EVENTS["colour"]
    x = examples(event, 150)
    model = trained(name, event, x)
    if name == "nice":  # every shift of a coupling is next to a rounding boundary
        assert isinstance(model, Flow)
        last = model.flow.steps[1].conditioners[1][-1]
        last.weight.data.zero_()
        last.bias.data.fill_(3.5 * 2.0**-flows._SHIFT_BITS)
    coded = scheme_for(model).encode(x)
    other = scheme_for(model)
    assert isinstance(other, FlowInIntegers)
    disturb(other, 1e-12)
    assert torch.equal(other.decode(coded, len(x)), x)
    disturb(other, 1e-2)
    with pytest.raises((StreamError, AssertionError)):
        assert torch.equal(other.decode(coded, len(x)), x)


@pytest.mark.parametrize(
    ("name", "options"), [("realnvp", {}), ("planar", {}), ("spline-flow", {"dequantization": "variational"})]
)
def test_damage_is_an_error(name: str, options: dict[str, Any]) -> None:
    event = EVENTS["counts"]
    x = examples(event, 20 if name == "spline-flow" else 60)
    scheme = scheme_for(trained(name, event, x, **options))
    coded = scheme.encode(x)
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(75):
        damaged = bytearray(coded)
        damaged[rng.integers(len(coded))] ^= 1 << rng.integers(8)
        try:
            assert scheme.decode(bytes(damaged), len(x)).shape == x.shape
            wrong += 1  # rare: only a checksum can notice it
        except StreamError:
            pass
    assert wrong < 4
    for size in range(0, len(coded), 7):
        with pytest.raises(StreamError):
            scheme.decode(coded[:size], len(x))
    for n in (1, len(x) - 1, len(x) + 1, 10**6):
        with pytest.raises(StreamError):
            scheme.decode(coded, n)
    for size in range(1, 80, 2):
        with pytest.raises(StreamError):
            scheme.decode(rng.bytes(size), 3)


def test_other_models_are_refused_with_a_reason() -> None:
    real = Event((3,), Support("real"))
    mixed = Event((3,), (Support("real"), Support("binary"), Support("binary")))
    for event, reason in ((real, "real entries"), (mixed, "real entries")):
        assert reason in str(FlowInIntegers.reason_against(unsup.create("nice", event, preset="tiny", seed=0)))
    assert (
        FlowInIntegers.reason_against(unsup.create("made", EVENTS["counts"], preset="tiny", seed=0)) == "is not a flow"
    )

    class Unknown(Invertible):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x.new_zeros(len(x))

        def inverse(self, y: torch.Tensor) -> torch.Tensor:
            return y

    class Noise(UniformDequantizer):
        pass

    model = unsup.create("nice", EVENTS["counts"], preset="tiny", seed=0)
    assert isinstance(model, Flow)
    kept, model.flow = model.flow, Chain([model.flow, Unknown()])
    assert "the step Unknown" in str(FlowInIntegers.reason_against(model))
    model.flow, model.front.dequantizer = kept, Noise()
    assert "neither uniform" in str(FlowInIntegers.reason_against(model))


def test_the_base_of_a_model_is_its_distribution() -> None:
    for name, options in (("nice", {"base": "logistic"}), ("nice", {"base": "gaussian"}), ("realnvp", {})):
        model = unsup.create(name, EVENTS["counts"], preset="tiny", seed=0, **options)
        assert isinstance(model, Flow)
        z = torch.linspace(-6, 6, 25, dtype=torch.float64).requires_grad_()
        (density,) = torch.autograd.grad(model.base_cdf(z).sum(), z)
        each = model.base_log_prob(z[:, None].expand(-1, 5)) / 5
        torch.testing.assert_close(density.log(), each)
        torch.testing.assert_close(model.base_cdf(z) + model.base_cdf(-z), torch.ones_like(z))


def test_every_known_step_is_exact() -> None:
    """A fixed-point map is the map of the flow, up to the grid."""
    for key in ("colour", "counts", "table"):
        for name in ("realnvp", "nice"):
            model = trained(name, EVENTS[key], examples(EVENTS[key])).double().eval().requires_grad_(False)
            assert isinstance(model, Flow)
            assert all(isinstance(m, Affine) for m in model.modules() if isinstance(m, Bijection))
            y = torch.randn(7, *EVENTS[key].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
            stack = Stack(np.random.default_rng(0).bytes(100_000))
            modular = flows.Modular(stack, Noting(), 30, torch.float64)
            z = model.flow.exactly((y * 2.0**30).round().long(), modular)  # type: ignore[operator]
            torch.testing.assert_close(z.double() * 2.0**-30, model.flow(y)[0], atol=0.05, rtol=0.02)
            x = model.flow.exactly_inverse(z, modular)  # type: ignore[operator]
            assert torch.equal(x, (y * 2.0**30).round().long())
            assert modular.calls == flows._FIRST
            stack.finish()


def test_a_diagonal_scale_has_its_log_determinant_as_length() -> None:
    scale = DiagonalScale((50,))
    scale.log_scale.data.copy_(torch.linspace(-2, 3, 50))
    stack = Stack(np.random.default_rng(0).bytes(20_000))
    before = stack.bits
    scale.exactly(torch.arange(5000).view(100, 50), flows.Modular(stack, Noting(), 12, torch.float64))
    assert before - stack.bits == pytest.approx(100 * float(scale.log_scale.detach().sum()) / math.log(2), rel=2e-3)


DECODE = """
import sys, torch
from pathlib import Path
from unsup.coding import decompress
from unsup.train.runs import load_model
folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
for name in ("realnvp", "nice", "spline-flow"):
    x = decompress(load_model(folder / name), (folder / f"{name}.unsup").read_bytes())
    assert torch.equal(x, torch.load(folder / "x.pt", weights_only=True)), name
"""


@OTHERS
def test_files_are_decoded_with_other_instructions_and_threads(
    threads: int, settings: dict[str, str], digits: tuple[Model, torch.Tensor], tmp_path: Path
) -> None:
    model, x = digits[0], digits[1][:250]
    spline = trained("spline-flow", model.event, x, dequantization="variational")
    for name, flow in (("realnvp", model), ("nice", trained("nice", model.event, x)), ("spline-flow", spline)):
        flow.save(str(tmp_path / name))
        (tmp_path / f"{name}.unsup").write_bytes(compress(flow, x))
    torch.save(x, tmp_path / "x.pt")
    words = [sys.executable, "-c", DECODE, str(tmp_path), str(threads)]
    subprocess.run(words, env=os.environ | settings, check=True, timeout=300)


def _steps() -> dict[str, Smooth]:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(2, 3, 3, padding="same"), nn.Conv2d(3, 2, 3, padding="same")]
    lipschitz = [LipschitzConv(2, 3, 3, (6, 5)), LipschitzConv(3, 3, 1, (6, 5)), LipschitzConv(3, 2, 3, (6, 5))]
    return {
        "planar": PlanarStep(4),
        "radial": RadialStep(4),
        "sylvester": SylvesterStep(4, 3),
        "ode": ODE(Layers([nn.Linear(4, 8), nn.Linear(8, 4)], 0, "tanh"), exact=True),
        "ode of images": ODE(Layers(convolutions, 0, "softplus"), exact=False),
        "residual": Residual(LipschitzNet([LipschitzDense(4, 8), LipschitzDense(8, 4)], 0), exact=True),
        "residual of images": Residual(LipschitzNet(lipschitz, 0), exact=False),
    }


@pytest.mark.parametrize("name", _steps())
def test_smooth_steps_state_their_jacobian_and_inverse(name: str) -> None:
    step = _steps()[name].double().eval().requires_grad_(False)
    for parameter in step.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    shape = (2, 6, 5) if "images" in name else (4,)
    x = torch.randn(3, *shape, dtype=torch.float64)
    found = step.jacobian(x)
    expected = torch.stack(
        [torch.autograd.functional.jacobian(lambda v: step.value(v[None])[0], row).view(found.shape[1:]) for row in x]
    )
    assert torch.allclose(found, expected, atol=1e-4 if "ode" in name else 1e-9)
    with traces("none"):
        assert torch.allclose(step.value(x), step(x)[0], atol=1e-4)
    assert torch.allclose(step.preimage(step.value(x)), x, atol=1e-9)
    for method in (step.value, step.preimage):  # of each example alone
        assert torch.allclose(method(x)[1:2], method(x[1:2]), rtol=0, atol=1e-12)
    step.freeze()
    assert torch.equal(step.jacobian(x), found)


def test_a_wrong_jacobian_costs_bits_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = examples(EVENTS["grey"], 40)[:-4].repeat(6, 1, 1, 1)
    model = trained("planar", EVENTS["grey"], x)
    lengths = []
    for factor in (1.0, 1.3):
        right = PlanarStep.jacobian
        monkeypatch.setattr(PlanarStep, "jacobian", lambda *args, f=factor, j=right: f * j(*args))
        scheme = scheme_for(model)
        coded = scheme.encode(x)
        assert torch.equal(scheme.decode(coded, len(x)), x)
        lengths.append(len(coded))
    assert lengths[1] > 1.03 * lengths[0]


def test_noise_that_is_drawn_costs_what_it_should() -> None:
    base = flows.NumbersOfBase(torch.special.ndtr, 6, 5, Noting(), drawn=True, short=True)
    assert base.table.sum() == 1 << 24
    stack = Stack(np.random.default_rng(0).bytes(400_000))
    before, content, n = stack.bits, stack.to_bytes(), 100_000
    mask = np.random.default_rng(1).integers(0, 1 << 24, n)
    drawn = base.draw(stack, mask)
    assert drawn.std() / 64 == pytest.approx(1, abs=0.01)
    assert (drawn + 0.5).mean() / 64 == pytest.approx(0, abs=0.015)
    chosen = base.table[np.searchsorted(base.start, drawn, side="right") - 1]
    assert (before - stack.bits) / n == pytest.approx(float((24 - np.log2(chosen)).mean()), abs=3e-4)
    base.undraw(stack, drawn, mask)
    assert stack.to_bytes() == content


@pytest.mark.parametrize("name", ["planar", "radial", "sylvester", "residual-flow", "ffjord"])
def test_a_smooth_step_costs_its_log_determinant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    event = EVENTS["counts"]
    x = examples(event)[:-4].repeat(50 if name != "ffjord" else 20, 1)
    scheme = scheme_for(trained(name, event, x))
    assert isinstance(scheme, FlowInIntegers)
    coder = flows._Coder(scheme, Stack(np.random.default_rng(0).bytes(10**6)), Noting())
    excess, smooth = [], flows.Modular.smooth

    def measured(self: flows.Modular, x: torch.Tensor, step: Smooth, context: torch.Tensor | None) -> torch.Tensor:
        before, real = self.stack.bits, self.real(x)
        y = smooth(self, x, step, context)
        log_det = torch.linalg.slogdet(step.jacobian(real, context)).logabsdet.sum()
        excess.append((self.stack.bits - before + float(log_det) / math.log(2)) / x.numel())
        return y

    monkeypatch.setattr(flows.Modular, "smooth", measured)
    with torch.no_grad():
        coder.push(scheme.cells.levels_of(x))
    assert excess
    assert abs(np.mean(excess)) < 0.005
