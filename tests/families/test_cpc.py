"""CPC: InfoNCE by loops, a planted mutual information, what contexts see, wiring, crops, sizes, and bad input."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import unsup
from unsup.core import memory
from unsup.core.batch import Batch
from unsup.core.errors import InputError
from unsup.core.event import BINARY, REAL, Event, Support
from unsup.families.selfsup.cpc import CPC
from unsup.nn.places import PatchPlaces, RowContext, SoundPlaces
from unsup.nn.resnet_v2 import PreBlock
from unsup.prob.contrast import info_nce, predictive_info_nce
from unsup.train.trainer import fit

LEVELS = Support("ordinal", 256)
SMALL = {"kernels": (4, 3), "strides": (2, 2), "patch": 4}  # places of short examples
DISJOINT = {"kernels": (2, 2), "strides": (2, 2)}  # places that share no sample


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def sound(*shape: int, support: Support = REAL) -> Event:
    return Event(shape, support, "sequence")


def model_of(event: Event, **options: Any) -> CPC:
    model = unsup.create("cpc", event, preset="tiny", **{**SMALL, **options})
    assert isinstance(model, CPC)
    return model.double()


def slow(z: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Loops over examples, steps, places and candidates."""
    n, rows, columns, _ = z.shape
    steps = predicted.shape[3]
    loss, hits = [], []
    for b, k in itertools.product(range(n), range(1, steps + 1)):
        each, hit = [], []
        for row, column in itertools.product(range(rows - k), range(columns)):
            scores = {}
            for place in itertools.product(range(n), range(rows), range(columns)):
                scores[place] = (predicted[b, row, column, k - 1] * z[place]).sum()
            positive = (b, row + k, column)
            total = sum((s.exp() for s in scores.values()), z.new_zeros(()))
            each.append(-(scores[positive].exp() / total).log())
            hit.append(float(scores[positive] == max(scores.values())))
        loss.append(sum(each, z.new_zeros(())) / len(each))
        hits.append(sum(hit) / len(hit))
    return torch.stack(loss).view(n, steps), z.new_tensor(hits).view(n, steps)


@pytest.mark.parametrize(("rows", "columns", "steps"), [(4, 1, 3), (3, 2, 2), (2, 3, 1)])
def test_loss_is_the_loop_with_its_gradient(rows: int, columns: int, steps: int) -> None:
    start = draw(3, rows, columns, 4), draw(3, rows, columns, steps, 4, seed=1)
    weight = draw(3, steps, seed=2)
    found = []
    for function in (predictive_info_nce, slow):
        z, predicted = (own.clone().requires_grad_() for own in start)
        loss, share, *_ = function(z, predicted)
        found.append((loss, share, *torch.autograd.grad((loss * weight).sum(), (z, predicted))))
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


class _Sizes(TorchDispatchMode):
    """The number of entries of the largest result of an operation."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = found if isinstance(found, (tuple, list)) else (found,)
        self.largest = max([self.largest, *(t.numel() for t in tensors if isinstance(t, Tensor))])
        return found


def test_only_the_scores_of_one_step_are_in_memory() -> None:
    z, predicted = draw(5, 8, 1, 2).requires_grad_(), draw(5, 8, 1, 6, 2).requires_grad_()
    kept: list[int] = []
    with (
        _Sizes() as sizes,
        torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t),
    ):
        predictive_info_nce(z, predicted)[0].sum().backward()
    assert sizes.largest == 40 * 35  # of step 1, forward and backward
    assert max(kept) <= predicted.numel()  # no scores


@pytest.mark.parametrize(
    ("shape", "options", "places", "words"),
    [
        ((60,), {}, 14, r"a crop \(--model.window\) or larger --model.strides$"),
        ((60,), {"window": 40}, 9, r"a crop \(--model.window\) or larger --model.strides$"),
        ((1, 10, 10), {}, 16, "a larger --model.patch$"),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_more_places_than_fit_into_memory_are_refused_before_training(
    shape: tuple[int, ...], options: dict[str, Any], places: int, words: str, accumulate: int, tmp_path: Path
) -> None:
    x = torch.randint(0, 256, (80, *shape), generator=generator(), dtype=torch.uint8)
    data = unsup.load_data(x.numpy(), event=Event(shape, LEVELS, "image" if len(shape) == 3 else "sequence"))
    model = model_of(data.event, **options).float()
    settings: dict[str, Any] = {"steps": 1, "batch_size": 12, "accumulate": accumulate, "progress": "off"}
    together = 12 * places // accumulate
    needed = 20 * together**2
    told = (
        rf"^CPC compares the {together} places of {12 // accumulate} examples with each other, .*--batch-size, {words}"
    )
    with memory.within(needed - 1), pytest.raises(InputError, match=told):
        fit(model, data, out=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()
    with memory.within(needed):
        assert fit(model, data, **settings).steps == 1


@pytest.mark.parametrize(("n", "rows", "columns", "steps"), [(2, 3, 1, 2), (5, 4, 3, 1), (1, 2, 1, 1)])
def test_constant_scores_are_log_n(n: int, rows: int, columns: int, steps: int) -> None:
    z = torch.ones(n, rows, columns, 2, dtype=torch.float64)
    loss, _, candidates = predictive_info_nce(z, draw(n, rows, columns, steps, 2))
    assert candidates == n * rows * columns
    torch.testing.assert_close(loss, torch.full((n, steps), math.log(candidates), dtype=torch.float64))


def test_one_candidate_costs_nothing() -> None:
    assert info_nce(draw(4, 1), torch.zeros(4, dtype=torch.long)).abs().max() == 0


@pytest.mark.parametrize("scale", [0.5, 3.0, 400.0])
def test_orthonormal_encodings_in_closed_form(scale: float) -> None:
    """The positive is among the candidates exactly once; nothing is added to a probability."""
    n, rows = 3, 4
    z = torch.eye(n * rows, dtype=torch.float64).view(n, rows, 1, -1)
    predicted = scale * torch.stack([z.roll(-1, 1), z.roll(-2, 1)], 3)
    loss, share, candidates = predictive_info_nce(z, predicted)
    expected = math.log1p((candidates - 1) * math.exp(-scale))
    torch.testing.assert_close(loss, torch.full_like(loss, expected))
    assert (share == 1).all()
    wrong, _, _ = predictive_info_nce(z, -predicted)  # no floor under a small probability
    torch.testing.assert_close(wrong, torch.full_like(loss, scale + math.log(candidates - 1 + math.exp(-scale))))


def test_the_order_of_negatives_and_of_examples_does_not_matter() -> None:
    z, predicted = draw(5, 4, 1, 3), draw(5, 4, 1, 2, 3, seed=1)
    order = torch.tensor([3, 0, 4, 1, 2])
    loss = predictive_info_nce(z, predicted)[0]
    torch.testing.assert_close(predictive_info_nce(z[order], predicted[order])[0], loss[order])
    backwards = torch.cat([z[:1], z[1:].flip(1)])  # negatives of the first example reversed in time
    torch.testing.assert_close(predictive_info_nce(backwards, predicted)[0][0], loss[0])


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_planted_mutual_information_is_reached_from_below(rho: float) -> None:
    """(x, y) Gaussian with correlation ρ: the bound is −½ ln(1 − ρ²), with features (y, y²) and (x, 1).

    Row 0 has further independent draws of y as negatives.
    """
    noise, size = generator(), 256

    def loss(weight: Tensor) -> tuple[Tensor, int]:
        x, fresh, others = torch.randn(3, size, generator=noise, dtype=torch.float64)
        y = rho * x + math.sqrt(1 - rho**2) * fresh
        z = torch.stack([others, y], 1)[:, :, None, None]
        context = torch.stack([x, torch.ones_like(x)], 1)
        predicted = (context @ weight.T)[:, None, None, None].expand(-1, 2, -1, -1, -1)
        each, _, candidates = predictive_info_nce(torch.cat([z, z.square()], -1), predicted)
        return each[:, 0], candidates

    weight = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.2)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 300)
        optimizer.zero_grad()
        loss(weight)[0].mean().backward()
        optimizer.step()
    with torch.no_grad():
        found = [loss(weight) for _ in range(40)]
    candidates = found[0][1]
    bound = math.log(candidates) - torch.cat([each for each, _ in found])
    error = float(bound.std()) / math.sqrt(len(bound))
    information = -0.5 * math.log(1 - rho**2)
    assert candidates == 2 * size
    assert information - 4 * error < bound.mean() < information + 4 * error
    assert abs(float(weight.detach()[0, 0]) / (rho / (1 - rho**2)) - 1) < 0.1  # coefficient of xy in the log-ratio


def test_the_bound_is_at_most_log_n() -> None:
    """The information of a pair may be larger; the estimate of few candidates is not."""
    x = 50 * draw(4, 1)
    z = torch.stack([torch.zeros_like(x), x], 1)[:, :, None]  # (4, 2, 1, 1)
    features = torch.cat([z, z.square()], -1)
    context = 100 * torch.cat([x, torch.full_like(x, -0.5)], 1)
    loss, _, candidates = predictive_info_nce(features, context[:, None, None, None].expand(-1, 2, -1, -1, -1))
    assert math.log(candidates) - 1e-9 < (math.log(candidates) - loss).min()
    assert (math.log(candidates) - loss).max() <= math.log(candidates)


def _jacobian(model: CPC, x: Tensor, *, of_context: bool) -> Tensor:
    """Which outputs depend on which entries, bool ``(rows, columns, *event.shape)``."""

    def function(own: Tensor) -> Tensor:
        z = model.places(model.unit(own))
        return (model.context(z) if of_context else z)[0]

    found = torch.autograd.functional.jacobian(function, x)  # (rows, columns, F, 1, *shape)
    return (found != 0).any(2)[:, :, 0]


def test_a_place_of_sound_sees_its_window_and_a_context_no_later_sample() -> None:
    model = model_of(sound(26), kernels=(4, 3), strides=(2, 2), width=24)
    places = model.places
    assert isinstance(places, SoundPlaces)
    assert (places.hop, places.window) == (4, 8)
    rows, _ = places.grid((26,))
    x = draw(1, 26)
    z, c = (_jacobian(model, x, of_context=flag)[:, 0] for flag in (False, True))
    start, samples = torch.arange(rows)[:, None] * places.hop, torch.arange(26)
    assert torch.equal(z, (samples >= start) & (samples < start + places.window))
    assert torch.equal(c, samples < start + places.window)


def test_a_patch_sees_its_pixels_and_a_context_no_lower_row() -> None:
    model = model_of(Event((1, 8, 8), REAL), context=24, width=8)
    places = model.places
    assert isinstance(places, PatchPlaces)
    rows, columns = places.grid((1, 8, 8))
    assert (rows, columns) == (3, 3)
    x = draw(1, 1, 8, 8)
    z, c = (_jacobian(model, x, of_context=flag)[:, :, 0] for flag in (False, True))
    pixel = torch.arange(8)
    for row, column in itertools.product(range(rows), range(columns)):
        inside_row, inside_column = ((pixel >= 2 * i) & (pixel < 2 * i + 4) for i in (row, column))
        assert torch.equal(z[row, column], inside_row[:, None] & inside_column)
        assert not c[row, column][2 * row + 4 :].any()
        assert c[row, column][2 * row : 2 * row + 4].any()
        if row:
            assert c[row, column][2 * row - 2].any()  # the row above


def test_rows_of_patches_below_do_not_change_a_context() -> None:
    context = RowContext(5, 8, 3).double()
    z = draw(2, 6, 4, 5)
    changed = z.clone()
    changed[:, 3:] = draw(2, 3, 4, 5, seed=1)
    with torch.no_grad():
        same = (context(z) == context(changed)).all(-1)
    assert same[:, :3].all()
    assert not same[:, 3:].any()


def test_patches_are_slices_of_the_middle() -> None:
    places = PatchPlaces(2, 4, 3, (1,), bottleneck=False, norm="layer")
    x = torch.randn(3, 2, 9, 11, generator=generator())
    found = places.patches(x)
    assert found.shape[:3] == (3, *places.grid((2, 9, 11))) == (3, 3, 4)
    for row, column in itertools.product(range(3), range(4)):
        top, left = 2 * row, 2 * column  # 9 − 8 and 11 − 10 pixels are left over: none before
        assert torch.equal(found[:, row, column], x[:, :, top : top + 4, left : left + 4])


@pytest.mark.parametrize("event", [sound(22, support=LEVELS), Event((1, 8, 8), LEVELS)])
def test_codes_are_means_of_contexts_or_of_patches(event: Event) -> None:
    model = model_of(event)
    x = torch.randint(256, (3, *event.shape), generator=generator())
    z = model.places(x.double() / 255)
    expected = z.mean((1, 2)) if event.is_image else model.context(z).mean((1, 2))
    torch.testing.assert_close(model.encode(x), expected)
    assert model.encode(x).shape == (3, model.code_size)


@pytest.mark.parametrize("event", [sound(22), Event((1, 8, 8), REAL)])
def test_the_loss_of_a_step_moves_the_encoder_the_context_and_its_own_map(event: Event) -> None:
    model = model_of(event, steps=2)
    z = model.places(model.unit(draw(4, *event.shape)))
    predicted = model.maps(model.context(z)).unflatten(-1, (model.steps, -1))
    each = predictive_info_nce(z, predicted)[0].mean(0)
    for step in range(model.steps):
        named = dict(model.named_parameters())
        found = torch.autograd.grad(each[step], list(named.values()), retain_graph=True)
        for name, gradient in zip(named, found, strict=True):
            if name == "maps.weight":
                moved = gradient.unflatten(0, (model.steps, -1)).flatten(1).abs().sum(1) > 0
                assert moved.tolist() == [k == step for k in range(model.steps)]
            else:
                assert gradient.abs().max() > 0, name
    terms = model.loss(Batch(draw(4, *event.shape)))
    torch.testing.assert_close(terms["loss"].mean(), each.mean())
    assert [name for name, term in terms.items() if term.requires_grad] == ["loss"]


def test_terms_are_those_of_the_steps() -> None:
    model = model_of(sound(22), steps=3)
    x = draw(6, 22)
    z = model.places(model.unit(x))
    each, share, candidates = predictive_info_nce(z, model.maps(model.context(z)).unflatten(-1, (3, -1)))
    terms = model.loss(Batch(x))
    torch.testing.assert_close(terms["bound"], math.log(candidates) - terms["loss"].detach())
    torch.testing.assert_close(terms["near"], math.log(candidates) - each[:, 0].detach())
    torch.testing.assert_close(terms["far"], math.log(candidates) - each[:, 2].detach())
    torch.testing.assert_close(terms["accuracy"], share.mean(1))


def train(model: CPC, fresh: Any, steps: int) -> dict[str, Tensor]:
    """Terms on new data after training on new data at every step."""
    model.prepare(Batch(fresh(1000)), generator=generator())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for number in range(steps):
        optimizer.zero_grad()
        model.loss(Batch(fresh(number)))["loss"].mean().backward()
        optimizer.step()
    with torch.no_grad():
        found = [model.loss(Batch(fresh(2000 + i))) for i in range(10)]
    return {name: torch.stack([own[name].flatten() for own in found]).flatten() for name in found[0]}


def _error(x: Tensor) -> float:
    return float(x.std()) / math.sqrt(len(x))


def test_sound_of_noise_stays_at_chance() -> None:
    model = unsup.create("cpc", sound(32), preset="tiny", steps=3, **DISJOINT)
    assert isinstance(model, CPC)
    found = train(model, lambda seed: torch.randn(24, 32, generator=generator(seed)), 80)
    assert found["bound"].mean() < 4 * _error(found["bound"])
    assert found["bound"].mean() > -0.1
    assert abs(float(found["accuracy"].mean()) - 1 / (24 * 8)) < 4 * _error(found["accuracy"])


def test_images_of_noise_stay_at_chance_where_patches_do_not_overlap() -> None:
    model = unsup.create("cpc", Event((1, 8, 8), REAL), preset="tiny", steps=2)
    assert isinstance(model, CPC)
    found = train(model, lambda seed: torch.randn(24, 1, 8, 8, generator=generator(seed)), 80)
    assert -0.1 < found["far"].mean() < 4 * _error(found["far"])
    assert found["near"].mean() > 0.3  # rows next to each other share pixels


def test_what_an_example_has_throughout_is_found() -> None:
    """Each example has one of four loudnesses: at most log 4 nats about another place."""

    def fresh(seed: int) -> Tensor:
        noise = generator(seed)
        loudness = 3.0 ** torch.randint(4, (24, 1), generator=noise)
        return loudness * (1 + 0.1 * torch.randn(24, 32, generator=noise))

    model = unsup.create("cpc", sound(32), preset="tiny", steps=3, **(DISJOINT | {"width": 16, "context": 16}))
    assert isinstance(model, CPC)
    bound = train(model, fresh, 200)["bound"]
    assert 1.0 < bound.mean() < math.log(4) + 4 * _error(bound)


def test_a_crop_is_a_window_of_its_example_at_any_start() -> None:
    model = model_of(sound(40), window=20)
    x = torch.arange(500.0)[:, None] * 1000 + torch.arange(40.0)
    crop = model.cropped(x, generator())
    assert crop.shape == (500, 20)
    start = crop[:, 0] - 1000 * torch.arange(500.0)
    assert torch.equal(crop, x[:, :1] + start[:, None] + torch.arange(20.0))
    assert start.unique().tolist() == list(range(21))
    assert torch.equal(model.cropped(x, generator()), crop)
    assert not torch.equal(model.cropped(x, generator(1)), crop)
    stereo = model_of(sound(40, 2), window=20).cropped(torch.stack([x, -x], 2), generator())
    assert torch.equal(stereo, torch.stack([crop, -crop], 2))
    assert model_of(sound(20), window=30).cropped(x[:, :20], generator()).shape == (500, 20)


def test_paper_sizes_of_sound() -> None:
    model = unsup.create("cpc", sound(20_480), preset="paper")
    assert isinstance(model, CPC)
    assert isinstance(model.places, SoundPlaces)
    assert (model.places.hop, model.places.window) == (160, 465)
    assert model.places.grid((20_480,)) == (126, 1)
    f, c = 512, 256
    convolutions = 10 * f + (8 + 4 + 4 + 4) * f * f + 5 * f
    gru = 3 * c * (f + c) + 6 * c
    assert model.parameter_count == convolutions + gru + 12 * f * c


def test_paper_sizes_of_images() -> None:
    model = unsup.create("cpc", Event((3, 256, 256), LEVELS), preset="paper-image")
    assert isinstance(model, CPC)
    places = model.places
    assert isinstance(places, PatchPlaces)
    assert places.grid((3, 256, 256)) == (7, 7)
    assert (places.size, model.code_size, model.steps) == (1024, 1024, 5)
    blocks = [part for part in places.net.modules() if isinstance(part, PreBlock)]
    assert len(blocks) == 3 + 4 + 23
    expected, before = 3 * 49 * 64 + 64, 64
    for width, count in zip((64, 128, 256), (3, 4, 23), strict=True):
        for block in range(count):
            expected += before * width + 9 * width * width + 4 * width * width + (1 + 1 + 4) * width
            expected += 0 if block else before * 4 * width + 4 * width
            before = 4 * width
    assert sum(p.numel() for p in places.net.parameters()) == expected


def test_steps_are_those_of_the_papers_or_fewer() -> None:
    assert CPC(sound(2048)).steps == 12
    assert CPC(sound(470)).steps == 3
    assert CPC(Event((3, 32, 32), LEVELS), width=2).steps == 5
    assert CPC(Event((1, 16, 16), BINARY), width=2).steps == 2


@pytest.mark.parametrize("event", [sound(2048), Event((1, 28, 28), LEVELS), Event((3, 32, 32), LEVELS)])
def test_a_tiny_model_has_few_places(event: Event) -> None:
    """A default batch needs less than a tenth of a gigabyte."""
    model = unsup.create("cpc", event, preset="tiny")
    with memory.within(10**8):
        assert model.reason_against_batch(32, 32) is None


@pytest.mark.parametrize(
    ("height", "width", "side", "grid"), [(8, 8, 4, (3, 3)), (28, 28, 8, (6, 6)), (5, 9, 2, (4, 8))]
)
def test_patches_of_small_images(height: int, width: int, side: int, grid: tuple[int, int]) -> None:
    places = CPC(Event((1, height, width), BINARY), width=2).places
    assert isinstance(places, PatchPlaces)
    assert (places.patch, places.grid((1, height, width))) == (side, grid)


@pytest.mark.parametrize(
    ("event", "options", "words"),
    [
        (sound(100), {}, "225 samples every 80 samples; an example of 100 samples has 0 such places"),
        (sound(250), {}, "has 1 such places, but a prediction needs 2, i.e. 305 samples"),
        (sound(1000), {"steps": 12}, "steps=12 needs 13, i.e. 1185 samples; use longer examples"),
        (sound(1000), {"window": 240}, "a crop of window=240 samples has 1 such places"),
        (sound(1000), {"kernels": (4, 4)}, "differ in number"),
        (Event((1, 8, 8), LEVELS), {"patch": 8}, "patches of patch=8 pixels, of which images of 8×8 have 1 rows"),
        (Event((1, 16, 4), LEVELS), {"patch": 8}, "of 16×4 have 3 rows of 0"),
        (Event((1, 16, 16), LEVELS), {"steps": 3}, "steps=3 needs 4 rows"),
        (Event((1, 16, 16), LEVELS), {"window": 8}, "window=8 is for sound; .* is paper-image"),
        (sound(1000), {"bottleneck": True}, "are for images, and this is sequence of 1000"),
        (sound(1000, support=Support("nominal", 5)), {}, "takes numbers, not symbols"),
        (Event((1000,), REAL), {}, "takes sound"),
        (Event((1000,), REAL, "sequence", open=True), {}, "equal length"),
    ],
)
def test_bad_input_is_refused(event: Event, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CPC(event, **options)


def test_collapse_is_reported() -> None:
    model = model_of(sound(22))
    symptom = model.diagnose({"loss": 3.0, "spread": 0.01})
    assert symptom is not None
    assert symptom.name == "collapse"
    assert model.diagnose({"loss": 3.0, "spread": 0.9}) is None
