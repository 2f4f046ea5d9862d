"""The walk: one loop that draws, completes, scores and decodes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

import unsup
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.autoregressive.made import MADE
from unsup.nn.autoregressor import Choose, Naive, Steps, drawing, forcing, keeping, walk
from unsup.nn.causal import Context
from unsup.nn.observation import Discrete, symbols_for
from unsup.nn.raster import RasterModel

PIXELS = Event((2, 3, 3), Support("ordinal", 5, low=2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(name: str, event: Event, **options: object) -> unsup.Model:
    """A float64 model whose conditionals are far from uniform."""
    model = unsup.create(name, event, preset="tiny", **options).double().eval()
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(0.4 * torch.randn(p.shape, generator=generator(i), dtype=p.dtype))
    return model


def cached(model: unsup.Model, n: int) -> tuple[Steps, list[int], Discrete]:
    """The model's cached steps through ``n`` examples, the sites in order, and what is observed there."""
    if isinstance(model, RasterModel):
        return model._steps(n, Context()), list(range(model.event.dims)), model.observation
    assert isinstance(model, MADE)
    return model.net.begin(n, 0, model._encode), model.orders[0].argsort().tolist(), model.observation


def targets_of(model: unsup.Model, x: Tensor) -> Tensor:
    line = model.raster.line(x) if isinstance(model, RasterModel) else x.flatten(1)
    return line.long() - model.event.uniform.low


def all_outputs(model: unsup.Model, x: Tensor) -> Tensor:
    """Outputs at every site, from one pass."""
    found = model.conditionals(x)
    return found[:, model.orders[0].argsort()] if isinstance(model, RasterModel) else found


MODELS: dict[str, Callable[[], unsup.Model]] = {
    "pixelcnn": lambda: shaken("pixelcnn", PIXELS),
    "gated-pixelcnn": lambda: shaken("gated-pixelcnn", PIXELS),
    "made": lambda: shaken("made", Event((6,), Support("nominal", 4)), order="random", hidden=(20, 20)),
    "made-without-layers": lambda: shaken("made", Event((5,), Support("ordinal", 40, low=-3)), hidden=()),
}


def words(model: unsup.Model, n: int) -> Tensor:
    support = model.event.uniform
    return support.low + torch.randint(support.levels, (n, *model.event.shape), generator=generator(3))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_outputs_of_a_forced_walk_are_those_of_one_pass(name: str) -> None:
    model = MODELS[name]()
    x = words(model, 7)
    targets = targets_of(model, x)
    steps, sites, _ = cached(model, len(x))
    seen: dict[int, Tensor] = {}

    def note(choose: Choose) -> Choose:
        def noted(site: int, outputs: Tensor) -> Tensor:
            seen[site] = outputs
            return choose(site, outputs)

        return noted

    found = walk(steps, sites, note(forcing(targets)), torch.zeros_like(targets))
    assert torch.equal(found, targets)
    assert list(seen) == sites
    torch.testing.assert_close(
        torch.stack([seen[s] for s in range(len(sites))], 1), all_outputs(model, x), rtol=1e-11, atol=1e-11
    )


def cumulative(masses: Tensor) -> list[int]:
    """Cumulative frequencies, each level at least 1."""
    counts = (masses * (1 << 40)).long() + 1
    return [0, *counts.cumsum(0).tolist()]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_decoding_is_a_walk_that_chooses_by_a_code(name: str) -> None:
    """An arithmetic code of exact fractions: the encoder is forced, the decoder asks the same net for its masses."""
    model = MODELS[name]()
    x = words(model, 3)
    targets = targets_of(model, x)
    steps, sites, observation = cached(model, len(x))
    low, width = [Fraction(0)] * len(x), [Fraction(1)] * len(x)

    def encode(site: int, outputs: Tensor) -> Tensor:
        for i, masses in enumerate(observation.log_masses(outputs).exp()):
            table, symbol = cumulative(masses), int(targets[i, site])
            low[i] += width[i] * Fraction(table[symbol], table[-1])
            width[i] *= Fraction(table[symbol + 1] - table[symbol], table[-1])
        return targets[:, site]

    walk(steps, sites, encode, torch.zeros_like(targets))
    code = [a + w / 2 for a, w in zip(low, width, strict=True)]

    def decode(site: int, outputs: Tensor) -> Tensor:
        symbols = []
        for i, masses in enumerate(observation.log_masses(outputs).exp()):
            table = cumulative(masses)
            symbol = next(s for s in range(len(table)) if code[i] * table[-1] < table[s + 1])
            code[i] = (code[i] - Fraction(table[symbol], table[-1])) * table[-1] / (table[symbol + 1] - table[symbol])
            symbols.append(symbol)
        return torch.tensor(symbols)

    steps, _, _ = cached(model, len(x))
    assert torch.equal(walk(steps, sites, decode, torch.zeros_like(targets)), targets)
    # The code is as long as the model says: −log2 of its width, up to the rounding of the frequencies.
    bits = torch.tensor([float(w) for w in width], dtype=torch.float64).log2().neg()
    torch.testing.assert_close(bits, -model.log_prob(x) / torch.log(torch.tensor(2.0)), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_what_is_known_is_kept_and_what_is_drawn_for_it_is_thrown_away() -> None:
    model = MODELS["pixelcnn"]()
    x = words(model, 4)
    targets, known = targets_of(model, x), torch.zeros(4, model.event.dims, dtype=torch.bool)
    for i in range(4):
        known[i, : 4 * i] = True
    drawn = drawing(model.observation, generator(1))
    steps, sites, _ = cached(model, 4)
    found = walk(steps, sites, keeping(known, targets, drawn), torch.zeros_like(targets))
    assert torch.equal(found[known], targets[known])
    free, sites, _ = cached(model, 4)
    alone = walk(free, sites, drawing(model.observation, generator(1)), torch.zeros_like(targets))
    assert torch.equal(found[0], alone[0])  # nothing known: the same noise draws the same
    assert not torch.equal(found[3], alone[3])


def test_naive_steps_compute_all_outputs_from_what_was_put() -> None:
    """A Markov chain: the output at each site is the value before it plus 1."""

    def successor(targets: Tensor) -> Tensor:
        return torch.cat([torch.zeros(len(targets), 1), targets[:, :-1] + 1], 1).unsqueeze(-1)

    found = walk(Naive(successor, torch.zeros(2, 5)), range(5), lambda site, outputs: outputs[:, 0], torch.zeros(2, 5))
    assert found.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_temperature_reaches_the_draw() -> None:
    observation = symbols_for(Event((1,), BINARY))
    outputs = torch.full((20_000, 1), 1.0)
    for temperature in (1.0, 0.5):
        share = drawing(observation, generator(), temperature)(0, outputs).double().mean()
        assert float(share) == pytest.approx(1 / (1 + 2.718281828 ** (-1 / temperature)), abs=0.01)


def test_real_sites_are_walked_as_well() -> None:
    model = shaken("made", Event((3,), REAL))
    fast, slow = (draw(40, generator=generator()) for draw in (model.sample, model.sample_naive))
    torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-6)
