"""Colorization against double loops, planted colours that L tells and colours that it does not, and its command."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unsup import Batch, Event, InputError, Support, create, fit, from_arrays
from unsup.cli.main import main
from unsup.core.errors import CapabilityError
from unsup.evaluate.journeys import colour_error
from unsup.families.selfsup.colorization import Colorization
from unsup.prob.lab import ab_bins, class_weights, from_lab, smoothed, soft_encoding, to_lab

PIXELS = Event((3, 9, 6), Support("ordinal", 256))
SMALL = {"width": 4, "halvings": 2, "layers": 2, "dilated": 1}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(n: int, seed: int = 0, event: Event = PIXELS) -> Tensor:
    return torch.randint(0, 256, (n, *event.shape), generator=seeded(seed), dtype=torch.uint8)


def generic(event: Event = PIXELS, **options: object) -> Colorization:
    torch.manual_seed(0)
    model = Colorization(event, **(SMALL | options)).double().eval()
    model.prepare(Batch(pixels(20, 5, event)), generator=seeded())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    return model


def lab(x: Tensor) -> Tensor:
    return to_lab(x.double() / 255)


# --- loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uniform", [0.5, 1.0])
def test_the_loss_is_that_of_a_loop_over_places_with_its_gradient(uniform: float) -> None:
    model, x = generic(uniform=uniform), pixels(2)
    x[1] = x[1, :1]  # a grey picture
    x[1, 0] = (x[1, 0].int() + 2).clamp(max=255).to(torch.uint8)  # |a| and |b| below 5
    batch = Batch(x)
    terms = model.loss(batch)
    (own,) = torch.autograd.grad(terms["loss"].sum(), model.head.weight, retain_graph=True)

    logits = model._logits(x)
    assert logits.shape == (2, 313, 5, 3)
    ab, centres = lab(x)[:, 1:, ::2, ::2], ab_bins()
    weight = class_weights(model.prior, uniform)
    losses = []
    for n in range(2):
        coloured = bool((ab[n].abs() > 5).any())
        assert coloured == (n == 0)
        total, plain = torch.zeros((), dtype=torch.float64), 0.0
        for i, j in itertools.product(range(5), range(3)):
            squared = (centres - ab[n, :, i, j]).square().sum(1)
            nearest = squared.argsort()[:5]
            z = torch.zeros(313, dtype=torch.float64)
            z[nearest] = (-squared[nearest] / 50).exp() / (-squared[nearest] / 50).exp().sum()
            nats = -(z * logits[n, :, i, j].log_softmax(0)).sum()
            total = total + float(weight[z.argmax()]) * coloured * nats
            plain += float(nats.detach())
        losses.append(total)
        assert float(terms["cross_entropy"][n]) == pytest.approx(plain / 15, rel=1e-9)
    torch.testing.assert_close(terms["loss"], torch.stack(losses), rtol=1e-9, atol=1e-9)
    (expected,) = torch.autograd.grad(sum(losses), model.head.weight)
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_without_rebalancing_the_loss_is_the_cross_entropy() -> None:
    x = pixels(3)
    terms = generic(uniform=1.0).loss(Batch(x))
    torch.testing.assert_close(terms["loss"].detach(), 15 * terms["cross_entropy"])
    terms = generic().loss(Batch(x))
    assert not torch.allclose(terms["loss"].detach(), 15 * terms["cross_entropy"], rtol=1e-2)


def test_weights_scale_the_loss_and_not_the_logits() -> None:
    """With another prior, the gradient at the logits of a place is that of the plain loss, times a number."""
    model, x = generic(), pixels(1)
    bins, _ = soft_encoding(lab(x)[:, 1:, ::2, ::2])
    slopes = []
    for uniform in (0.5, 1.0):
        model.uniform = uniform
        logits = model._logits(x).detach().requires_grad_()
        model._logits = lambda x, logits=logits: logits  # type: ignore[method-assign]
        slopes += torch.autograd.grad(model.loss(Batch(x))["loss"].sum(), logits)
        del model._logits
    expected = class_weights(model.prior, 0.5)[bins[:, 0]][:, None]
    torch.testing.assert_close(slopes[0], expected * slopes[1])


def test_prepare_counts_colours_and_the_mean_weight_is_one() -> None:
    model, x = generic(), pixels(600, 3)
    model.prepare(Batch(x), generator=seeded())
    ab = lab(x)[:, 1:, ::2, ::2].movedim(1, -1).reshape(-1, 2)
    nearest = torch.cdist(ab, ab_bins()).argmin(1)
    expected = smoothed(torch.bincount(nearest, minlength=313).double())
    torch.testing.assert_close(model.prior, expected, rtol=1e-9, atol=1e-12)
    assert float((model.prior * class_weights(model.prior, model.uniform)).sum()) == pytest.approx(1, abs=1e-12)


def test_the_network_sees_the_lightness_only() -> None:
    model = generic()
    x = (pixels(2).double() / 255).requires_grad_()
    for output in (model.backbone.maps(x).square().sum(), model.backbone(x, model.stage).square().sum()):
        (slope,) = torch.autograd.grad(output, x)
        # L is a function of Y alone: the slope is a multiple of its gradient with respect to sRGB.
        direction = torch.autograd.grad(to_lab(x)[:, 0].sum(), x)[0]
        ratio = slope / direction
        assert float(slope.abs().max()) > 0
        torch.testing.assert_close(ratio[:, 0], ratio[:, 1], rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(ratio[:, 0], ratio[:, 2], rtol=1e-6, atol=1e-12)


def test_features_are_those_of_the_first_stage_after_the_halvings() -> None:
    model, x = generic(), pixels(3)
    seen: list[Tensor] = []
    model.backbone.stages[2].register_forward_hook(lambda module, inputs, output: seen.append(output))
    found = model.encode(x)
    torch.testing.assert_close(found, seen[0].mean((2, 3)))
    assert found.shape == (3, 16) == (3, model.code_size)


def test_the_paper_preset_has_the_layers_of_the_paper() -> None:
    with torch.device("meta"):
        model = create("colorization", Event((3, 176, 176), Support("ordinal", 256)), preset="paper")
    convolutions = [m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 12 + [256] * 3
    strides = [1, 2, 1, 2, 1, 1, 2, *[1] * 12, 2, 1, 1]
    dilations = [1] * 10 + [2] * 6 + [1] * 6
    assert [m.out_channels for m in convolutions] == widths
    assert [m.stride[0] for m in convolutions] == strides
    assert [m.dilation[0] for m in convolutions] == dilations
    assert model.head.out_channels == 313
    assert model.backbone.stride == 4


# --- colouring --------------------------------------------------------------------------------------------------------


def test_colours_are_the_annealed_mean_of_the_prediction() -> None:
    model, x = generic(temperature=0.38), pixels(2)
    centres = ab_bins()
    for temperature in (0.38, 1.0, 1e-4):
        model.temperature = temperature
        with torch.no_grad():
            p = model._logits(x).softmax(1)
        powers = (p.log() / temperature).softmax(1)
        ab = torch.einsum("nqhw,qc->nchw", powers, centres)
        if temperature == 1e-4:  # the mode
            ab = centres[p.argmax(1)].movedim(-1, 1)
        expected = 255 * from_lab(torch.cat([lab(x)[:, :1, ::2, ::2], ab], 1))
        found = model.translate(x, to="b")[:, :, ::2, ::2]
        assert float((found - expected).abs().max()) < 0.51


def test_a_constant_prediction_is_a_constant_colour() -> None:
    model, x = generic(temperature=1.0), pixels(4)
    q = ab_bins().tolist().index([10.0, 20.0])
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()[q] = 50.0
    x = (100 + x.int() // 4).to(torch.uint8)  # of a lightness at which sRGB has this colour
    found = lab(model.translate(x, to="b"))
    assert float((found[:, 1] - 10).abs().max()) < 1
    assert float((found[:, 2] - 20).abs().max()) < 1
    assert float((found[:, 0] - lab(x)[:, 0]).abs().max()) < 0.5


def test_a_picture_is_coloured_alike_whatever_colours_it_had() -> None:
    model, x = generic(), pixels(2)
    direct = model.translate(x, to="b").double()
    through_grey = model.translate(model.translate(x, to="a"), to="b").double()
    assert float((direct - through_grey).abs().mean()) < 1.5  # levels; the grey picture is rounded
    with pytest.raises(InputError, match="grey pictures"):
        model.translate(x, to="c")  # type: ignore[arg-type]


def test_other_events_are_refused() -> None:
    levels = Support("ordinal", 256)
    for event in (Event((1, 8, 8), levels), Event((3, 8, 8), Support("real")), Event((3,), levels)):
        with pytest.raises(InputError, match=r"images"):
            Colorization(event)


# --- learning ---------------------------------------------------------------------------------------------------------


def planted(n: int, *, independent: bool, seed: int = 0) -> Tensor:
    """Flat 8×8 quarters, dark ones blue and light ones yellow; or of these colours at random."""
    generator = seeded(seed)
    light = torch.randint(0, 2, (n, 2, 2), generator=generator)
    colour = torch.randint(0, 2, (n, 2, 2), generator=generator) if independent else light
    level = (0.35 + 0.3 * light + 0.05 * torch.rand(n, 2, 2, generator=generator)).double()
    shift = torch.where(colour[:, None].bool(), 1.0, -1.0) * torch.tensor([0.02, 0.02, -0.12]).view(1, 3, 1, 1)
    # The lightness is that of the grey level, whatever the colour.
    lightness = to_lab(level[:, None].expand(-1, 3, -1, -1))[:, :1]
    ab = to_lab((0.5 + shift).double())[:, 1:]
    small = (255 * from_lab(torch.cat([lightness, ab], 1))).round().to(torch.uint8)
    return small.repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_colours_that_the_lightness_tells_are_learned() -> None:
    x = planted(256, independent=False)
    model = create("colorization", Event((3, 8, 8), Support("ordinal", 256)), width=8, halvings=1, layers=1, dilated=0)
    fit(model, from_arrays(x), steps=80, batch_size=16, lr=1e-2, seed=0)
    test = planted(64, independent=False, seed=9)
    found = colour_error(model, test, x)
    assert found["value"] < 0.25 * found["floor"]
    assert found["detail"]["share"] == pytest.approx(found["value"] / found["floor"])


def test_colours_that_the_lightness_does_not_tell_cost_the_entropy_of_the_marginal() -> None:
    x, test = planted(512, independent=True), planted(512, independent=True, seed=9)
    model = create(
        "colorization", Event((3, 8, 8), Support("ordinal", 256)), width=4, halvings=1, layers=1, dilated=0, uniform=1.0
    )
    fit(model, from_arrays(x), steps=100, batch_size=32, lr=1e-2, seed=0)
    bins, weights = soft_encoding(lab(test)[:, 1:])
    marginal = torch.zeros(313, dtype=torch.float64).index_put((bins.flatten(),), weights.flatten(), accumulate=True)
    marginal /= marginal.sum()
    entropy = float(-(marginal * marginal.clamp(min=1e-300).log()).sum())
    with torch.no_grad():
        found = float(model.eval().loss(Batch(test))["cross_entropy"].mean())
    assert entropy - 0.02 < found < entropy + 0.15


# --- measure ----------------------------------------------------------------------------------------------------------


def test_the_colour_error_is_that_of_a_loop() -> None:
    model, x, known = generic(), pixels(3), pixels(5, 7)
    found = colour_error(model, x, known)
    mean = lab(known)[:, 1:].mean((0, 2, 3))
    predicted = lab(model.translate(model.translate(x, to="a"), to="b"))
    errors, floors = [], []
    for n, i, j in itertools.product(range(3), range(9), range(6)):
        true = lab(x)[n, 1:, i, j].tolist()
        errors.append(math.dist(true, predicted[n, 1:, i, j].tolist()))
        floors.append(math.dist(true, mean.tolist()))
    assert found["value"] == pytest.approx(np.mean(errors), rel=1e-6)
    assert found["floor"] == pytest.approx(np.mean(floors), rel=1e-6)
    with pytest.raises(InputError, match="expected one or more"):
        colour_error(model, x[:0], known)
    with pytest.raises(CapabilityError, match="colour"):
        colour_error(create("split-brain", PIXELS, preset="tiny"), x, known)


# --- the command line -------------------------------------------------------------------------------------------------


def test_a_folder_of_grey_or_colour_pictures_is_coloured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = planted(40, independent=False)
    for folder, convert in (("colour", "RGB"), ("grey", "L")):
        (tmp_path / folder).mkdir()
        for i, one in enumerate(x[: 40 if folder == "colour" else 3]):
            Image.fromarray(one.movedim(0, -1).numpy()).convert(convert).save(tmp_path / folder / f"{i}.png")
    run, out = tmp_path / "run", tmp_path / "out"
    words = ["fit", tmp_path / "colour", "colorization", "-o", run, "--preset", "tiny", "--steps", 3, "--plain"]
    assert main([str(w) for w in words]) == 0
    assert (run / "samples" / "step-0000003.png").exists()
    assert main(["translate", str(run), str(tmp_path / "grey"), "-o", str(out)]) == 0
    capsys.readouterr()
    for i in range(3):
        found = np.asarray(Image.open(out / f"{i}.png"))
        assert found.shape == (8, 8, 3)
        own = torch.from_numpy(found.copy()).movedim(-1, 0)[None]
        grey = torch.from_numpy(np.array(Image.open(tmp_path / "grey" / f"{i}.png"))).expand(1, 3, 8, 8)
        assert float((lab(own)[:, 0] - lab(grey)[:, 0]).abs().max()) < 0.5
    assert main(["eval", str(run), "--measures", "colour"]) == 0
    assert "colour error" in capsys.readouterr().out
    Image.new("L", (20, 12)).save(tmp_path / "wide.png")
    assert main(["translate", str(run), str(tmp_path / "wide.png"), "-o", str(out)]) == 2
    assert "--resize 8" in capsys.readouterr().err
