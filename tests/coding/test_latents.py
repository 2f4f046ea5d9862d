"""Bits-back coding with any posterior and any prior: exact round trips, and lengths that are the bound."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from uniform import examples, move

import unsup
from unsup.coding import compress, decompress
from unsup.coding.bitsback import BitsBack
from unsup.coding.chunks import scheme_for
from unsup.coding.entropy import Stack, StreamError
from unsup.coding.flows import Modular
from unsup.coding.latents import LatentsInIntegers
from unsup.coding.notes import Noting
from unsup.core.batch import Batch
from unsup.core.errors import CapabilityError
from unsup.core.event import BINARY, Event, Support, labels
from unsup.core.model import Conditional, Intervals
from unsup.core.part import Part
from unsup.data import load_data
from unsup.families.latent.vae import VAE
from unsup.nn.posterior import FullGaussian
from unsup.nn.prior import EqualMixture
from unsup.prob.distributions import equal_mixture_log_prob
from unsup.train.trainer import fit

BITS, GREY = Event((1, 6, 6), BINARY, "image"), Event((1, 4, 4), Support("ordinal", 256), "image")
TABLE = Event((4,), (BINARY, Support("nominal", 5), Support("ordinal", 40, 3), BINARY))
SMALL = {"hidden": (8,)}
CASES = {
    "full": (BITS, {"posterior": "full"}),
    "planar": (BITS, {"posterior": "planar", "flow_steps": 2}),
    "sylvester": (GREY, {"posterior": "sylvester", "flow_steps": 2}),
    "iaf": (TABLE, {"posterior": "iaf", "flow_steps": 2, "flow_hidden": (8,)}),
    "made": (BITS, {"prior": Part("made", SMALL)}),
    "mixture": (TABLE, {"prior": Part("gaussian-mixture", {"components": 3, "learn": "gradient"})}),
    "coupling": (GREY, {"prior": Part("realnvp", {"layers": 2, **SMALL})}),
    "autoregressive flow": (BITS, {"prior": Part("maf", {"layers": 2, **SMALL})}),
    "smooth flow": (BITS, {"prior": Part("planar", {"layers": 2})}),
    "pseudo-inputs": (BITS, {"pseudo_inputs": 4}),
    "both": (BITS, {"posterior": "iaf", "flow_steps": 2, "prior": Part("maf", {"layers": 2, **SMALL})}),
    "class": (BITS, {"posterior": "full", "given": labels(3)}),
}


def created(key: str) -> VAE:
    event, options = CASES[key]
    model = unsup.create("vae", event, preset="tiny", seed=0, **options)
    assert isinstance(model, VAE)
    return model


def moved(key: str, noise: float) -> VAE:
    """With parameters that are not those of the start, where flows are the identity."""
    model = created(key)
    move(model, noise, seed=5)
    return model


@pytest.mark.parametrize("key", CASES)
@pytest.mark.parametrize("noise", [0.2, 20.0])
def test_examples_come_back(key: str, noise: float) -> None:
    """Also with parameters so large that latents are beyond the numbers."""
    model, x = moved(key, noise), examples(CASES[key][0], 40)
    scheme = scheme_for(model)
    assert isinstance(scheme, LatentsInIntegers)
    coded = scheme.encode(x)
    assert torch.equal(scheme.decode(coded, len(x)), x)
    scheme.spare = 3
    assert torch.equal(scheme.decode(coded, len(x)), x)
    assert torch.equal(decompress(model, compress(model, x[:3])), x[:3])


def test_latents_beyond_the_numbers_are_coded_without_the_posterior() -> None:
    model, x = created("made"), examples(BITS, 40)
    with torch.no_grad():
        model.nets.encoder[-1].weight.mul_(5e3)
    scheme = scheme_for(model)
    assert isinstance(scheme, LatentsInIntegers)
    coded = scheme.encode(x)
    groups = scheme._head(coded, len(x))[1]
    assert 0 in groups
    assert torch.equal(scheme.decode(coded, len(x)), x)


def test_native_profile() -> None:
    for key in ("iaf", "made"):
        model, x = moved(key, 0.2), examples(CASES[key][0], 40)
        assert torch.equal(decompress(model, compress(model, x, profile="native")), x)


@pytest.mark.parametrize("key", ["full", "planar", "sylvester", "iaf"])
def test_exact_maps_are_those_of_the_posterior(key: str) -> None:
    model, event = moved(key, 0.3).double().eval(), CASES[key][0]
    x, bits = examples(event, 30), 17
    noise = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    numbers = (noise * 2**bits).round().long()
    with torch.no_grad():
        q = model.approximation(Batch(x))
        modular = Modular(Stack(bytes(100_000)), Noting(), bits, torch.float64, smooth=True)
        found, before = q.exactly(numbers, modular), modular.calls
        wanted, _ = q.placed(numbers.double() / 2**bits)
        assert (found.double() / 2**bits - wanted).abs().max() < 0.01 * (1 + float(wanted.abs().max()))
        assert before > 1
        assert torch.equal(q.exactly_inverse(found, modular), numbers)


def test_a_full_gaussian_costs_its_divergence() -> None:
    """With a decoder that ignores z, −log p(x) and KL(q ‖ N(0, I)) are known."""
    event = Event((20,), BINARY)
    model = unsup.create("vae", event, latent_dim=3, hidden=(), posterior="full", seed=0).double()
    assert isinstance(model, VAE)
    q = torch.tensor([0.7, -0.4, 1.1, -1.0, 0.3, -2.0, 0.8, -0.6, 1.5])  # mean, log-diagonal, below the diagonal
    with torch.no_grad():
        for part in (model.nets.encoder[-1], model.nets.decoder[-1]):
            part.weight.zero_()
        model.nets.encoder[-1].bias.copy_(q)
        model.nets.decoder[-1].bias.copy_(torch.linspace(-3, 3, 20))
    x = examples(event, 4000)
    scheme = scheme_for(model)
    assert isinstance(scheme, LatentsInIntegers)
    coded = scheme.encode(x)
    lower = torch.diag(q[3:6].exp())
    lower[1, 0], lower[2, 0], lower[2, 1] = q[6:]
    divergence = 0.5 * float((lower**2).sum() + (q[:3] ** 2).sum() - 3) - float(q[3:6].sum())
    with torch.no_grad():
        bound = -float(model.nets.log_likelihood(x.double(), torch.zeros(1, len(x), 3)).sum())
    bound = (bound + len(x) * divergence) / math.log(2)
    assert abs(8 * (len(coded) - scheme._head(coded, len(x))[0]) / bound - 1) < 0.005


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(
            {"posterior": "sylvester", "flow_steps": 2, "prior": Part("made", {"hidden": (12,)})},
            marks=pytest.mark.slow,
        ),
        {"posterior": "iaf", "prior": Part("maf", {"layers": 2, "hidden": (8,)})},
        {"pseudo_inputs": 5},
    ],
)
def test_digits_cost_the_bound(options: dict[str, object]) -> None:
    data = load_data("digits")
    model = unsup.create("vae", data.event, preset="tiny", seed=0, **options)
    fit(model, data, steps=100, progress="off", validate_every=0)
    assert isinstance(model, VAE)
    x, scheme = data.train.x, scheme_for(model)
    assert isinstance(scheme, LatentsInIntegers)
    coded = scheme.encode(x)
    double, generator = copy.deepcopy(model).double().eval(), torch.Generator().manual_seed(7)
    with torch.no_grad():
        bound = -sum(float(double.log_prob(x, generator=generator).sum()) for _ in range(8)) / 8 / math.log(2)
    assert abs(8 * (len(coded) - scheme._head(coded, len(x))[0]) / bound - 1) < 0.003
    assert torch.equal(scheme.decode(coded, len(x)), x)


@pytest.mark.parametrize("apart", [1.0, 50.0])
def test_conditionals_of_an_equal_mixture(apart: float) -> None:
    """The product of the masses of narrow cells, given the entries before, is the density."""
    generator = torch.Generator().manual_seed(0)
    means, log_stds, z = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4, 4, 7))
    means = apart * means
    z = z + means[torch.arange(7) % 4] * (apart > 1)
    total, width = torch.zeros(7, dtype=torch.float64), 1e-6

    def choose(entry: int, conditional: Conditional) -> Tensor:
        nonlocal total
        assert isinstance(conditional, Intervals)
        own = z[:, entry]
        total = total + conditional.log_masses(torch.stack([own - width / 2, own + width / 2], 1))[:, 0]
        return own

    EqualMixture(means, log_stds).visit(7, choose)
    expected = equal_mixture_log_prob(z[None], means, 2 * log_stds)[0] + 3 * math.log(width)
    assert torch.allclose(total, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        (Part("vae", {"latent_dim": 1, "hidden": (4,)}), "a prior whose likelihood is a bound"),
        (Part("made", {"masks": 2, "order": "random", "hidden": (8,)}), "a prior that is a mixture over orders"),
    ],
)
def test_what_is_not_coded_is_refused_with_a_reason(prior: Part, reason: str) -> None:
    model = unsup.create("vae", Event((4,), BINARY), latent_dim=2, hidden=(4,), prior=prior, seed=0)
    with pytest.raises(CapabilityError, match=reason):
        scheme_for(model)


def test_a_diagonal_gaussian_is_coded_in_bins_as_before() -> None:
    model = unsup.create("vae", Event((4,), BINARY), latent_dim=2, hidden=(4,), seed=0)
    assert isinstance(scheme_for(model), BitsBack)


def test_full_gaussians_in_numbers_agree_with_bins() -> None:
    """A full posterior whose triangle is 0 is a diagonal one: both coders take as many bits."""
    event = Event((12,), BINARY)
    diagonal = unsup.create("vae", event, latent_dim=2, hidden=(8,), seed=0)
    full = unsup.create("vae", event, latent_dim=2, hidden=(8,), posterior="full", seed=0)
    state = diagonal.state_dict()
    for name, tensor in full.state_dict().items():
        if tensor.shape != state[name].shape:
            padded = torch.zeros_like(tensor)
            own = state[name].clone()
            own[2:4] *= 0.5  # log-variances become log-deviations
            padded[:4] = own
            state[name] = padded
    full.load_state_dict(state)
    x, sizes = examples(event, 12_000), []
    with torch.no_grad():
        assert isinstance(full.approximation(Batch(x[:2])), FullGaussian)
    for model in (diagonal, full):
        scheme = scheme_for(model)
        coded = scheme.encode(x)
        sizes.append(len(coded) - scheme._head(coded, len(x))[0])
    assert abs(sizes[1] / sizes[0] - 1) < 0.005


def test_damage_is_found() -> None:
    for key in ("iaf", "made"):
        model, x = moved(key, 0.2), examples(CASES[key][0], 10)
        scheme, rng = scheme_for(model), np.random.default_rng(0)
        coded, found = scheme.encode(x), 0
        for _ in range(12):
            damaged = bytearray(coded)
            damaged[rng.integers(len(coded))] ^= 1 << rng.integers(8)
            try:
                assert scheme.decode(bytes(damaged), len(x)).shape == x.shape
            except StreamError:
                found += 1
        assert found >= 11  # the initial bits are a check of their own
        for size in range(0, len(coded), 101):
            with pytest.raises(StreamError):
                scheme.decode(coded[:size], len(x))
        for n in (1, 9, 11):
            with pytest.raises(StreamError):
                scheme.decode(coded, n)


DECODE = """
import sys, torch, unsup
from pathlib import Path
from unsup.coding import decompress
from unsup.train.runs import load_model
folder = Path(sys.argv[1])
torch.set_num_threads(int(sys.argv[2]))
for name in ("sylvester", "made"):
    x = decompress(load_model(folder / name), (folder / f"{name}.unsup").read_bytes())
    assert torch.equal(x, torch.load(folder / f"{name}.pt", weights_only=True)), name
"""


def test_files_are_decoded_with_other_instructions_and_threads(tmp_path: Path) -> None:
    for name in ("sylvester", "made"):
        model, x = moved(name, 0.2), examples(CASES[name][0], 200)
        model.save(str(tmp_path / name))
        (tmp_path / f"{name}.unsup").write_bytes(compress(model, x))
        torch.save(x, tmp_path / f"{name}.pt")
    settings = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    words = [sys.executable, "-c", DECODE, str(tmp_path), "2"]
    subprocess.run(words, env=os.environ | settings, check=True, timeout=300)
