"""Image generators and critics: the papers' layers counted by hand, folded convolutions, norms, sizes."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, interpolate, relu

from unsup.core.errors import InputError
from unsup.nn.gan import image_networks
from unsup.nn.norm import BatchNorm

SIZES = [(1, 8, 8), (3, 16, 16), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 9, 21)]
FLOAT64 = torch.float64


def networks(net="resnet", shape=(3, 16, 16), critic_norm="none", width=6, **more):
    torch.manual_seed(0)
    generator, critic = image_networks(
        net, shape, latent_dim=5, generator_channels=width, critic_channels=width, critic_norm=critic_norm, **more
    )
    return generator.double(), critic.double()


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- the papers' nets -------------------------------------------------------------------------------------------------


def test_sngan_has_the_parameters_of_the_papers_table():
    generator, critic = image_networks(
        "resnet", (3, 32, 32), latent_dim=128, generator_channels=256, critic_channels=128, critic_norm="spectral"
    )

    def conv(inputs, outputs, side):
        return inputs * outputs * side**2 + outputs

    up = 2 * conv(256, 256, 3) + conv(256, 256, 1) + 2 * 2 * 256
    assert count(generator) == 128 * 4096 + 4096 + 3 * up + 2 * 256 + conv(256, 3, 3) == 4_276_739
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down = 2 * conv(128, 128, 3) + conv(128, 128, 1)
    flat = 2 * conv(128, 128, 3)
    assert count(critic) == first + down + 2 * flat + 128 + 1 == 1_053_825


def test_dcgan_has_the_parameters_of_the_papers_figure():
    """Linear to 4²·1024, 5×5 to 512, 256, 128, 3; biases only where no batch norm follows."""
    generator, critic = image_networks(
        "dcgan", (3, 64, 64), latent_dim=100, generator_channels=128, critic_channels=128, critic_norm="batch"
    )
    widths = [1024, 512, 256, 128, 3]
    kernels = sum(25 * n * m for n, m in itertools.pairwise(widths))
    assert count(generator) == 100 * 16 * 1024 + 2 * (1024 + 512 + 256 + 128) + kernels + 3
    assert count(critic) == kernels + 128 + 2 * (256 + 512 + 1024) + 16 * 1024 + 1


def test_initial_weights_are_the_papers():
    generator, critic = image_networks(
        "dcgan", (3, 32, 32), latent_dim=64, generator_channels=32, critic_channels=32, critic_norm="none"
    )
    for p in [*generator.parameters(), *critic.parameters()]:
        if p.ndim > 1:
            assert p.std().item() == pytest.approx(0.02, rel=0.1)
    _, critic = networks(width=24)
    for name, p in critic.named_parameters():
        if p.ndim == 4:
            fans = (p.shape[0] + p.shape[1]) * p.shape[2] ** 2
            gain = 2 if "conv" in name else 1
            assert p.abs().max().item() == pytest.approx(math.sqrt(gain * 6 / fans), rel=0.05)


def plain_generator(net, z):
    """The paper's order of operations, nothing folded."""

    def norm(x, layer):
        return relu(batch_norm(x, None, None, layer.weight, layer.bias, training=True))

    def conv(x, layer, padding):
        return conv2d(x, layer.weight, layer.bias, padding=padding)

    first = net.first
    h = first.linear(z).view(len(z), first.height, first.width, -1).permute(0, 3, 1, 2)
    for block in net.blocks:
        x = h
        h = conv(interpolate(norm(x, block.norm1), scale_factor=2.0), block.conv1, 1)
        h = conv(norm(h, block.norm2), block.conv2, 1)
        h = h + conv(interpolate(x, scale_factor=2.0), block.shortcut, 0)
    return conv(norm(h, net.norm), net.last, 1).tanh()[:, :, : net.size[0], : net.size[1]]


def plain_critic(net, x):
    def conv(x, layer, padding):
        return conv2d(x, layer.weight, layer.bias, padding=padding)

    first, second, third, fourth = net.blocks
    h = conv(relu(conv(x, first.conv1, 1)), first.conv2, 1)
    h = avg_pool2d(h, 2) + conv(avg_pool2d(x, 2), first.shortcut, 0)
    g = conv(relu(conv(relu(h), second.conv1, 1)), second.conv2, 1)
    h = avg_pool2d(g + conv(h, second.shortcut, 0), 2)
    for block in (third, fourth):
        h = h + conv(relu(conv(relu(h), block.conv1, 1)), block.conv2, 1)
    return (relu(h).sum((2, 3)) @ net.linear.weight.T + net.linear.bias)[:, 0]


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 19, 21)])
def test_folded_convolutions_compute_the_papers_nets(shape):
    """Values and gradients, odd sides and borders included."""
    generator, critic = networks(shape=shape)
    z = torch.randn(3, 5, dtype=FLOAT64)
    for net, plain, x in (
        (generator, plain_generator, z),
        (critic, plain_critic, torch.randn(3, shape[0], 32, 30, dtype=FLOAT64)),
    ):
        expected, found = plain(net, x), net(x)
        torch.testing.assert_close(found, expected)
        weights = list(net.parameters())
        probe = torch.randn_like(found)
        for a, b in zip(
            torch.autograd.grad((found * probe).sum(), weights),
            torch.autograd.grad((expected * probe).sum(), weights),
            strict=True,
        ):
            torch.testing.assert_close(a, b)


# --- any size, any norm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic_norm", ["none", "batch", "spectral"])
@pytest.mark.parametrize("net", ["dcgan", "resnet"])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_parameter_of_both_players_moves_the_judgement(net, shape, critic_norm):
    generator, critic = networks(net, shape, critic_norm, width=3)
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(0.3 * torch.randn_like(p))
    x = generator(torch.randn(4, 5, dtype=FLOAT64))
    assert x.shape == (4, *shape)
    assert x.abs().max() <= 1
    (critic(x) * torch.randn(4, dtype=FLOAT64)).sum().backward()
    for module in (generator, critic):
        normalised = net == "resnet" and (module is generator or critic_norm == "batch")
        for name, p in module.named_parameters():
            assert p.grad is not None, name
            # SNGAN keeps the biases of its blocks, whose channel means the batch norms behind them take away
            dead = normalised and re.fullmatch(r"blocks\.\d+\.(conv1|conv2|shortcut)\.bias", name)
            assert (p.grad.abs().max() < 1e-9) == bool(dead), name


@pytest.mark.parametrize("net", ["dcgan", "resnet"])
def test_every_pixel_and_channel_is_judged_and_made(net):
    for shape in ((1, 28, 28), (3, 16, 16)):
        generator, critic = networks(net, shape, width=4)
        x = torch.randn(2, *shape, dtype=FLOAT64, requires_grad=True)
        (gradient,) = torch.autograd.grad(critic(x).sum(), x)
        assert (gradient.abs() > 0).all()
        made = generator(torch.randn(50, 5, dtype=FLOAT64))
        assert (made.std(0) > 0).all()


@pytest.mark.parametrize("net", ["dcgan", "resnet"])
def test_only_batch_norm_couples_the_examples_of_a_batch(net):
    for critic_norm in ("none", "spectral", "batch"):
        _, critic = networks(net, (1, 16, 16), critic_norm)
        critic.train(critic_norm == "batch")  # a training pass of the spectral critic would move u
        x = torch.randn(4, 1, 16, 16, dtype=FLOAT64)
        coupled = not torch.allclose(critic(x)[:2], critic(x[:2]))
        assert coupled == (critic_norm == "batch")


@pytest.mark.parametrize("net", ["dcgan", "resnet"])
def test_spectral_critic_has_no_weight_without_its_norm(net):
    _, critic = networks(net, (1, 28, 28), "spectral")
    x = torch.randn(2, 1, 28, 28, dtype=FLOAT64)
    with torch.no_grad():
        for p in critic.parameters():
            if p.ndim == 1:
                p.zero_()
        layers = [m for m in critic.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for layer, _ in itertools.product(layers, range(500)):
            assert layer.weight is not None  # an iteration
        critic.eval()
        before = critic(x)
        for i, p in enumerate(p for p in critic.parameters() if p.ndim > 1):
            p.mul_(2.0 + i)
        torch.testing.assert_close(critic(x), before)
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


def test_where_batch_norm_stands():
    def channels(module):
        return [len(m.running_mean) for m in module.modules() if isinstance(m, BatchNorm)]

    generator, critic = networks("dcgan", (3, 32, 32), "batch", width=4)
    assert channels(generator) == [16, 8, 4]  # not after the layer that makes the image
    assert channels(critic) == [8, 16]  # not after the layer that takes it
    assert channels(networks("dcgan", (3, 32, 32), "spectral")[1]) == []
    assert channels(networks("resnet", (3, 32, 32), "none")[1]) == []
    first, *others = networks("resnet", (3, 32, 32), "batch", width=4)[1].blocks
    assert channels(first) == [4]  # between its convolutions, not at its input
    assert [channels(block) for block in others] == [[4, 4]] * 3


def test_packed_critic_takes_its_images_as_channels():
    generator, critic = networks("dcgan", (1, 16, 16), pack=2)
    x = generator(torch.randn(4, 5, dtype=FLOAT64))
    assert critic(x.view(2, 2, 16, 16)).shape == (2,)
    with pytest.raises(RuntimeError):
        critic(x)


def test_channels_last_changes_no_value_and_stays():
    for net in ("dcgan", "resnet"):
        generator, critic = (m.float() for m in networks(net, (3, 16, 16), "spectral"))
        z = torch.randn(3, 5)
        x = generator(z)
        judged = critic.eval()(x)
        for m in (generator, critic):
            m.to(memory_format=torch.channels_last)
        torch.testing.assert_close(generator(z), x, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(critic(x), judged, rtol=1e-4, atol=1e-5)
        assert generator(z).is_contiguous(memory_format=torch.channels_last)


def test_autocast_keeps_image_and_logit_in_float32():
    generator, critic = (m.float() for m in networks("resnet", (1, 16, 16), "spectral"))
    with torch.autocast("cpu", torch.bfloat16):
        x = generator(torch.randn(2, 5))
        v = critic(x)
    assert x.dtype == v.dtype == torch.float32


def test_small_images_are_refused():
    with pytest.raises(InputError, match=r"\(1, 7, 9\).*at least 8"):
        networks(shape=(1, 7, 9))
