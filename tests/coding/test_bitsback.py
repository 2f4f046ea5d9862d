"""Bits-back coding: exact round trips, and lengths that are the bound on log p(x)."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus
from uniform import examples

import unsup
from unsup.coding import compress, decompress
from unsup.coding.bitsback import BitsBack, _Coding, _Restoring, bin_ends, bin_medians, log_cell_masses
from unsup.coding.chunks import scheme_for
from unsup.coding.entropy import OutOfBits, Stack, StreamError
from unsup.coding.errors import CodingError
from unsup.coding.notes import Noting
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, REAL, Event, Support, labels
from unsup.core.part import Part
from unsup.data import load_data
from unsup.families.latent.vae import VAE
from unsup.prob.gaussians import gaussian_cell_log_prob
from unsup.train.trainer import fit

WHOLE, FEW = Support("ordinal", 40, 3), Support("ordinal", 7)
TABLE = (BINARY, Support("nominal", 5), WHOLE, Support("ordinal", 300, -7), FEW, Support("nominal", 40), WHOLE, BINARY)
CASES = {
    "binary": (Event((1, 8, 8), BINARY, "image"), {}),
    "binary, conv": (Event((1, 8, 8), BINARY, "image"), {"net": "conv", "hidden": (8,)}),
    "grey": (Event((1, 8, 8), Support("ordinal", 256), "image"), {}),
    "colour, conv": (Event((3, 4, 4), Support("ordinal", 256), "image"), {"net": "conv", "hidden": (8,)}),
    "categorical": (Event((6,), Support("ordinal", 17, -3)), {"decoder": "categorical"}),
    "nominal": (Event((6,), Support("nominal", 5)), {}),
    "table": (Event((8,), TABLE), {}),
    "class": (Event((12,), BINARY), {"given": labels(3)}),
}


def created(key: str, **more: object) -> VAE:
    event, options = CASES[key]
    model = unsup.create("vae", event, preset="tiny", seed=0, **options, **more)
    assert isinstance(model, VAE)
    return model


def exact_bits(stack: Stack) -> float:
    """log2 of the number that the stack is, of which `Stack.bits` is the number of digits."""
    return math.log2(int.from_bytes(stack.to_bytes(), "little"))


def per_example(scheme: BitsBack, x: Tensor, change: Callable[[Stack, Tensor, np.ndarray], None]) -> Stack:
    """Code examples one by one on a stack with many initial bits; ``change`` sees the stack after each."""
    stack = Stack(bytes(range(256)) * 8)
    scheme._begin(Noting())
    for one in x.split(1):
        coder = _Coding(scheme, stack, Noting(), 0, Batch(one))
        scheme.own.code(Batch(one), coder)
        change(stack, one, coder.bins[0])
    return stack


def test_ends_and_medians_do_not_depend_on_the_platform() -> None:
    ends, medians = bin_ends(1024), bin_medians(1024)
    assert (ends[:-1] < medians).all()
    assert (medians < ends[1:]).all()
    for k in range(1, 2048):  # no quantile is near a rounding boundary, so that its last digits do not matter
        scaled = NormalDist().inv_cdf(k / 2048) * 2**20
        assert abs(scaled - math.floor(scaled) - 0.5) > 1e-5
        assert round(scaled) / 2**20 == (medians[k // 2] if k % 2 else ends[k // 2])
    masses = log_cell_masses(torch.from_numpy(ends)).exp()
    assert (masses * 1024 - 1).abs().max() < 1e-3


@pytest.mark.parametrize("mean", [0.0, 0.3, -4.0, 100.0])
@pytest.mark.parametrize("log_std", [-6.0, -1.0, 0.0, 2.0])
def test_masses_of_cells(mean: float, log_std: float) -> None:
    ends = torch.from_numpy(bin_ends(256))
    own = log_cell_masses((ends - mean) * math.exp(-log_std))
    first, last = torch.arange(256) == 0, torch.arange(256) == 255
    low, high = ends[:-1].clamp(min=-100), ends[1:].clamp(max=100)
    place, log_width = torch.tensor([mean, log_std], dtype=torch.float64)
    other = gaussian_cell_log_prob(low, high, place, log_width, first, last)
    assert torch.allclose(own, other, rtol=1e-9, atol=1e-9)
    assert abs(float(own.logsumexp(0))) < 1e-12


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_examples_come_back(key: str, scale: float) -> None:
    """Also with parameters so large that posteriors lie outside the bins and probabilities are 0 and 1."""
    model, x = created(key), examples(CASES[key][0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    scheme = scheme_for(model)
    assert isinstance(scheme, BitsBack)
    assert torch.equal(scheme.decode(scheme.encode(x), len(x)), x)
    for extreme in (x.amin(0, keepdim=True), x.amax(0, keepdim=True)):
        assert torch.equal(scheme.decode(scheme.encode(extreme), 1), extreme)
    assert torch.equal(decompress(model, compress(model, x)), x)


@pytest.mark.parametrize("key", CASES)
def test_masses_of_all_levels_are_those_of_the_likelihood(key: str) -> None:
    event, model = CASES[key][0], created(key).double()
    x, z = examples(event, 9), torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = torch.arange(9) % 3 if model.given is not None else None
    outputs, total = model.outputs(z, given), torch.zeros(9)
    for levels, columns in BitsBack(model).kinds.items():
        log_masses = model.log_masses(outputs, columns)
        assert log_masses.shape == (9, len(columns), levels)
        assert log_masses.logsumexp(2).abs().max() < 1e-9
        low = torch.tensor([event.columns[d].low for d in columns.tolist()])
        own = x.flatten(1)[:, columns].long() - low
        total = total + log_masses.gather(2, own[..., None]).sum((1, 2))
    features = model.nets.conditions(given)
    assert torch.allclose(total, model.nets.log_likelihood(model.nets.target(x), z[None], features)[0], rtol=1e-9)


@pytest.mark.parametrize("key", ["binary", "grey", "table"])
def test_native_profile(key: str) -> None:
    model, x = created(key), examples(CASES[key][0])
    assert torch.equal(decompress(model, compress(model, x, profile="native")), x)


def test_each_example_costs_the_masses_of_its_bins() -> None:
    event = Event((6,), BINARY)
    model = unsup.create("vae", event, latent_dim=2, hidden=(8,), seed=0).double()
    scheme, bits, errors = BitsBack(model), [0.0], []
    ends, medians = torch.from_numpy(bin_ends(1024)), torch.from_numpy(bin_medians(1024))

    def compare(stack: Stack, one: Tensor, bins: np.ndarray) -> None:
        at = torch.from_numpy(bins)
        mean, log_variance = (v[0] for v in model.posterior(Batch(one)))
        log_q = gaussian_cell_log_prob(
            ends[at].clamp(min=-99), ends[at + 1].clamp(max=99), mean, log_variance / 2, at == 0, at == 1023
        )
        logits = model.outputs(medians[at][None])[0, :, 0]
        log_x = torch.where(one[0] == 1, -softplus(-logits), -softplus(logits))
        expected = float(log_q.sum() - log_x.sum()) / math.log(2) + 2 * 10
        errors.append(exact_bits(stack) - bits[0] - expected)
        bits[0] = exact_bits(stack)

    bits[0] = exact_bits(Stack(bytes(range(256)) * 8))
    with torch.no_grad():
        per_example(scheme, examples(event, 200), compare)
    assert max(map(abs, errors)) < 1e-2
    assert abs(sum(errors) / len(errors)) < 1e-3


def test_bits_are_put_back() -> None:
    event = CASES["table"][0]
    scheme, x = BitsBack(created("table")), examples(event)
    seen: list[np.ndarray] = []
    stack = per_example(scheme, x, lambda _stack, _one, bins: seen.append(bins))
    for one in reversed(x.split(1)):
        coder = _Restoring(scheme, stack, Noting(), 0, 1)
        scheme.own.restore(1, None, coder)
        assert np.array_equal(coder.bins[0], seen.pop())
        assert torch.equal(coder.x, one)
    assert stack.to_bytes() == Stack(bytes(range(256)) * 8).to_bytes()


def independent(mean: float, log_variance: float) -> VAE:
    """A model whose decoder ignores z, with one posterior for all x: log p(x) and the KL are known exactly."""
    model = unsup.create("vae", Event((20,), BINARY), latent_dim=3, hidden=(), seed=0).double()
    assert isinstance(model, VAE)
    with torch.no_grad():
        for part in (model.nets.encoder[-1], model.nets.decoder[-1]):
            part.weight.zero_()
        model.nets.encoder[-1].bias.copy_(torch.tensor([mean] * 3 + [log_variance] * 3))
        model.nets.decoder[-1].bias.copy_(torch.linspace(-3, 3, 20))
    return model


def test_exact_posterior_costs_log_p() -> None:
    model, x = independent(0.0, 0.0), examples(Event((20,), BINARY), 1500)
    scheme = BitsBack(model)
    coded = scheme.encode(x)
    with torch.no_grad():
        exact = -float(model.log_prob(x).sum()) / math.log(2)
    assert abs(8 * len(coded) - 8 * scheme._head(coded, len(x))[0] - exact) < 400  # head, runs, 33 bits, rounding
    assert torch.equal(scheme.decode(coded, len(x)), x)


@pytest.mark.parametrize(("mean", "log_variance"), [(0.7, -1.0), (-1.0, -4.0)])
def test_another_posterior_costs_its_divergence(mean: float, log_variance: float) -> None:
    model, x = independent(mean, log_variance), examples(Event((20,), BINARY), 4000)
    scheme = BitsBack(model)
    coded = scheme.encode(x)
    divergence = 1.5 * (mean**2 + math.exp(log_variance) - 1 - log_variance)
    with torch.no_grad():
        bound = (-float(model.nets.log_likelihood(x.double(), torch.zeros(1, len(x), 3)).sum())) / math.log(2)
    bound += len(x) * divergence / math.log(2)
    noise = 3 * math.sqrt(3 * len(x)) * 2.0  # log q − log p of a latent has a deviation of about 1 to 2 bits
    assert abs(8 * len(coded) - 8 * scheme._head(coded, len(x))[0] - bound) < 400 + noise
    assert abs(8 * len(coded) / bound - 1) < 0.01


def fitted(given: str | None = None) -> tuple[VAE, Tensor]:
    data = load_data("digits", given=given)
    model = unsup.create("vae", data.event, given=data.given, preset="tiny", seed=0)
    fit(model, data, steps=150, progress="off", validate_every=0)
    assert isinstance(model, VAE)
    return model, data.train.x


def bound_of(model: VAE, x: Tensor, draws: int = 8) -> float:
    double, generator = copy.deepcopy(model).double().eval(), torch.Generator().manual_seed(7)
    with torch.no_grad():
        return -sum(float(double.log_prob(x, generator=generator).sum()) for _ in range(draws)) / draws / math.log(2)


def test_digits_cost_the_bound() -> None:
    model, x = fitted()
    scheme = BitsBack(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    assert abs(8 * (len(coded) - scheme._head(coded, len(x))[0]) / bound_of(model, x) - 1) < 0.005


def test_more_bins_cost_less() -> None:
    """A latent that shifts 16 thresholds, with its posterior nearly exact: the entries tell z to about 0.3."""
    model = unsup.create("vae", Event((16,), BINARY), latent_dim=1, hidden=(), seed=0).double()
    assert isinstance(model, VAE)
    with torch.no_grad():
        encoder, decoder = model.nets.encoder[-1], model.nets.decoder[-1]
        encoder.weight.copy_(torch.tensor([[0.25], [0.0]]).expand(2, 16))
        encoder.bias.copy_(torch.tensor([-2.0, -2.5]))
        decoder.weight.fill_(8.0)
        decoder.bias.copy_(8 * torch.linspace(-2, 2, 16))
        x = model.sample(4000, generator=torch.Generator().manual_seed(0))
    scheme, sizes = BitsBack(model), []
    for digits in (2, 4, 32):  # 4, 16 and 1024 bins
        scheme.digits = digits
        coded = scheme.encode(x)
        assert torch.equal(scheme.decode(coded, len(x)), x)
        sizes.append(8 * (len(coded) - scheme._head(coded, len(x))[0]))
    assert sizes[0] > 1.05 * sizes[1] > 1.05 * 1.005 * sizes[2]
    assert abs(sizes[2] / bound_of(model, x, 30) - 1) < 0.02


def test_classes_are_coded_first() -> None:
    model, x = fitted(given="label")
    scheme = BitsBack(model)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    assert 8 * len(coded) < 1.01 * bound_of(model, x) + len(x) * math.log2(10)


def test_initial_bits_are_those_of_one_example() -> None:
    scheme, x = BitsBack(created("grey")), examples(CASES["grey"][0], 600)
    alone, together = scheme._head(scheme.encode(x[:1]), 1), scheme._head(scheme.encode(x), 600)
    assert alone[0] == together[0] <= 4 * math.ceil(4 * 10 * 1.5 / 32)  # 4 latents in 2^10 bins
    assert together[1][0] == 1
    assert max(together[1]) == 256
    assert len(together[1]) < 60


def test_missing_initial_bits_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme, x = BitsBack(created("binary")), examples(CASES["binary"][0])
    with pytest.raises(OutOfBits):
        scheme._encode(x, None, 0)
    monkeypatch.setattr(BitsBack, "_initial_size", lambda *_: 0)
    coded = scheme.encode(x)
    assert 0 < scheme._head(coded, len(x))[0] < 40
    assert torch.equal(scheme.decode(coded, len(x)), x)


def test_groups_that_cannot_be_paid_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stack is told to hold far more than it does, so that groups are too large at first."""
    scheme, x = BitsBack(created("binary")), examples(CASES["binary"][0], 300)
    monkeypatch.setattr(Stack, "bits", property(lambda stack: 10**6 + 32 * stack._coder.pos()[0]))
    monkeypatch.setattr(BitsBack, "_initial_size", lambda *_: 12)
    with monkeypatch.context() as change:
        refused: list[int] = []
        pop = Stack.pop

        def counted(stack: Stack, *arguments: Any) -> Any:
            try:
                return pop(stack, *arguments)
            except OutOfBits:
                refused.append(1)
                raise

        change.setattr(Stack, "pop", counted)
        coded = scheme.encode(x)
    assert len(refused) > 5
    assert torch.equal(scheme.decode(coded, 300), x)


@pytest.mark.parametrize(
    ("event", "options", "reason"),
    [
        (Event((4,), REAL), {}, "real entries"),
        (Event((2,), (BINARY, REAL)), {}, "real entries"),
        (Event((4,), BINARY, missing=True), {}, "missing entries"),
        (Event((4,), Support("ordinal", 256)), {"decoder": "gaussian"}, "a decoder of densities"),
        (Event((4,), Support("nominal", 70000)), {}, "entries of more than 65,536 levels"),
        (Event((4,), BINARY), {"given": Event((2,), REAL)}, "a condition that is not a class"),
        (Event((4,), BINARY), {"prior": Part("vae", frozen=True)}, "a prior whose likelihood is a bound"),
    ],
)
def test_what_is_not_coded_is_refused_with_a_reason(event: Event, options: dict[str, object], reason: str) -> None:
    model = unsup.create("vae", event, latent_dim=2, hidden=(4,), seed=0, **options)
    with pytest.raises(CapabilityError, match=f"it has {reason}"):
        scheme_for(model)


def test_damage_is_found() -> None:
    model, x = created("table"), examples(CASES["table"][0])
    scheme, rng = BitsBack(model), np.random.default_rng(0)
    coded, found = scheme.encode(x), 0
    for _ in range(100):
        damaged = bytearray(coded)
        damaged[rng.integers(len(coded))] ^= 1 << rng.integers(8)
        try:
            assert scheme.decode(bytes(damaged), len(x)).shape == x.shape
        except StreamError:
            found += 1
    assert found >= 98  # the initial bits are a check of their own
    for size in range(0, len(coded), 29):
        with pytest.raises(StreamError):
            scheme.decode(coded[:size], len(x))
    for n in (1, 59, 61):
        with pytest.raises(StreamError):
            scheme.decode(coded, n)
    with pytest.raises(StreamError):
        scheme.decode(b"\xff" * 5 + coded[5:], len(x))
    data = compress(model, x)
    for _ in range(30):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
        with pytest.raises(CodingError):
            decompress(model, bytes(damaged))


DECODE = """
import sys, torch, unsup
from pathlib import Path
from unsup.coding import decompress
from unsup.train.runs import load_model
folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
for name in ("digits", "binary, conv", "table"):
    x = decompress(load_model(folder / name), (folder / f"{name}.unsup").read_bytes())
    assert torch.equal(x, torch.load(folder / f"{name}.pt", weights_only=True)), name
"""


def test_files_are_decoded_with_other_instructions_and_threads(tmp_path: Path) -> None:
    for name in ("digits", "binary, conv", "table"):
        model, x = fitted() if name == "digits" else (created(name), examples(CASES[name][0], 200))
        x = x[:300]
        model.save(str(tmp_path / name))
        (tmp_path / f"{name}.unsup").write_bytes(compress(model, x))
        torch.save(x, tmp_path / f"{name}.pt")
    for threads, settings in (
        (1, {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
        (2, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    ):
        words = [sys.executable, "-c", DECODE, str(tmp_path), str(threads)]
        subprocess.run(words, env=os.environ | settings, check=True, timeout=300)
