"""Split-brain autoencoders against double loops; the halves do not know each other's input."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from unsup import Batch, Event, InputError, Support, create, fit, from_arrays
from unsup.families.selfsup.split_brain import SplitBrain
from unsup.prob.lab import ab_bins, from_lab, soft_encoding, to_lab

PIXELS = Event((3, 9, 6), Support("ordinal", 256))
NETS = [{"width": 4, "halvings": 2, "layers": 2, "dilated": 1}, {"net": "alexnet", "width": 6}]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(n: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (n, *PIXELS.shape), generator=seeded(seed), dtype=torch.uint8)


def generic(options: dict[str, object]) -> SplitBrain:
    torch.manual_seed(0)
    model = SplitBrain(PIXELS, **options).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=seeded(p.numel()), dtype=p.dtype))
    return model


@pytest.mark.parametrize("options", NETS)
@pytest.mark.parametrize("training", [False, True])
def test_the_jacobian_of_each_half_with_respect_to_the_other_input_is_zero(options, training: bool) -> None:
    model = generic(options).train(training)
    lab = to_lab(pixels(2).double() / 255).requires_grad_()
    model.backbone.scale.forward = lambda x: (lab - model.backbone.scale.mean.view(3, 1, 1)) / 100
    of_colour, of_lightness = model.logits(lab)
    features = model.backbone(lab, model.stage)
    half = features.shape[1] // 2
    for found, seen, unseen in (
        (of_colour, [0], [1, 2]),
        (of_lightness, [1, 2], [0]),
        (features[:, :half], [0], [1, 2]),
        (features[:, half:], [1, 2], [0]),
    ):
        (slope,) = torch.autograd.grad((found * torch.randn_like(found)).sum(), lab, retain_graph=True)
        assert float(slope[:, unseen].abs().max()) == 0
        assert all(float(slope[:, one].abs().max()) > 0 for one in seen)


@pytest.mark.parametrize("options", NETS)
def test_one_grouped_network_is_two_networks(options) -> None:
    """Each half alone, layer by layer, with its own part of the weights."""
    model, x = generic(options), pixels(3)
    scaled = model.backbone.scale(model.unit(x))
    expected = []
    for half, inputs in enumerate((scaled[:, :1], scaled[:, 1:])):
        h = inputs
        for stage in model.backbone.stages:
            for layer in stage:
                h = run_half(layer, h, half)
        expected.append(h)
    torch.testing.assert_close(model.backbone.maps(model.unit(x)), torch.cat(expected, 1))


def run_half(layer: nn.Module, h: Tensor, half: int) -> Tensor:
    if hasattr(layer, "of_lightness"):
        return (layer.of_lightness, layer.of_colour)[half](h)
    if isinstance(layer, nn.Conv2d):
        bias = None if layer.bias is None else layer.bias.chunk(2)[half]
        weight = layer.weight.chunk(2)[half]
        return nn.functional.conv2d(h, weight, bias, layer.stride, layer.padding, layer.dilation)
    if isinstance(layer, nn.ConvTranspose2d):
        weight, bias = layer.weight.chunk(2)[half], layer.bias.chunk(2)[half]
        return nn.functional.conv_transpose2d(h, weight, bias, layer.stride, layer.padding)
    if hasattr(layer, "running_mean"):
        mean, var, gain, bias = (
            v.chunk(2)[half].view(-1, 1, 1) for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
        )
        return (h - mean) / (var + layer.eps).sqrt() * gain + bias
    return layer(h)


@pytest.mark.parametrize("options", NETS)
def test_the_loss_is_that_of_a_loop_over_places(options) -> None:
    model, x = generic(options), pixels(2)
    stride = model.backbone.stride
    lab = to_lab(x.double() / 255)[:, :, ::stride, ::stride]
    terms = model.loss(Batch(x))
    of_colour, of_lightness = (v.detach().log_softmax(1) for v in model.logits(model.unit(x)))
    h, w = lab.shape[2:]
    assert of_colour.shape == (2, 313, h, w)
    assert of_lightness.shape == (2, 100, h, w)
    for n in range(2):
        colour = lightness = 0.0
        for i, j in itertools.product(range(h), range(w)):
            squared = (ab_bins() - lab[n, 1:, i, j]).square().sum(1)
            nearest = squared.argsort()[:5]
            z = (-squared[nearest] / 50).exp()
            colour -= float((z / z.sum()) @ of_colour[n, nearest, i, j])
            lightness -= float(of_lightness[n, min(99, int(lab[n, 0, i, j])), i, j])
        assert float(terms["loss"][n].detach()) == pytest.approx(colour + lightness, rel=1e-9)
        assert float(terms["colour"][n]) == pytest.approx(colour / (h * w), rel=1e-9)
        assert float(terms["lightness"][n]) == pytest.approx(lightness / (h * w), rel=1e-9)


@pytest.mark.parametrize("options", NETS)
def test_each_cross_entropy_moves_its_own_half(options) -> None:
    model, x = generic(options), pixels(2)
    of_colour, of_lightness = model.logits(model.unit(x))
    named = dict(model.named_parameters())
    for found, own, other, first in (
        (of_colour, "to_colour", "to_lightness", "of_lightness"),
        (of_lightness, "to_lightness", "to_colour", "of_colour"),
    ):
        slopes = torch.autograd.grad(found.square().sum(), [*named.values()], allow_unused=True, retain_graph=True)
        moved = {name for name, g in zip(named, slopes, strict=True) if g is not None and float(g.abs().max()) > 0}
        assert any(name.startswith(own) for name in moved)
        assert not any(name.startswith(other) for name in moved)
        assert any(first in name for name in moved)
        assert not any("of_colour" in name or "of_lightness" in name for name in moved if first not in name)


def test_features_are_those_of_both_halves() -> None:
    model, x = generic(NETS[0]), pixels(3)
    found = model.encode(x)
    assert found.shape == (3, model.code_size) == (3, 16)
    grey = x[:, :1].expand(-1, 3, -1, -1)
    changed = model.encode(grey)
    assert not torch.allclose(found[:, 8:], changed[:, 8:])
    torch.testing.assert_close(changed[:, 8:].std(0), torch.zeros(8, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_paper_preset_is_alexnet_in_halves() -> None:
    with torch.device("meta"):
        model = create("split-brain", Event((3, 180, 180), Support("ordinal", 256)), preset="paper")
    assert model.backbone.sizes == (96, 256, 384, 384, 256)
    layers = [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.groups) for m in layers] == [
        (1, 48, 11, 1),
        (2, 48, 11, 1),
        (96, 256, 5, 2),
        (256, 384, 3, 2),
        (384, 384, 3, 2),
        (384, 256, 3, 2),
    ]
    real = create("split-brain", Event((3, 180, 180), Support("binary")), net="alexnet", width=6)
    maps = real.backbone.maps(torch.zeros(1, 3, 180, 180))
    assert maps.shape[2:] == (12, 12)


def test_widths_and_events_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="even"):
        SplitBrain(PIXELS, width=5)
    with pytest.raises(InputError, match="colour images"):
        SplitBrain(Event((1, 8, 8), Support("binary")))


def test_each_half_learns_what_the_other_side_tells() -> None:
    """Two kinds of quarters, dark blue and light yellow: each channel tells the others."""
    generator = seeded()
    light = torch.randint(0, 2, (256, 1, 2, 2), generator=generator).double()
    lab = torch.cat([40 + 30 * light, 10 * light, 60 * light - 30], 1)
    x = (255 * from_lab(lab)).round().to(torch.uint8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    model = create("split-brain", Event((3, 8, 8), Support("ordinal", 256)), width=16, halvings=1, layers=1, dilated=0)
    fit(model, from_arrays(x), steps=100, batch_size=16, lr=1e-2, seed=0)
    with torch.no_grad():
        terms = model.eval().loss(Batch(x))
    assert float(terms["lightness"].mean()) < 0.05
    two = to_lab(x.double() / 255)[:, 1:]
    _, weights = soft_encoding(two)
    least = float(-(weights * weights.log()).sum(1).mean())  # the entropy of the soft targets
    assert float(terms["colour"].mean()) < least + 0.05
